"""Signing keys and token of the embedded engine: made from the project's SECRET_KEY, unless somebody chose others.

`dispatch` signs with the current key; the endpoint accepts both keys of the pair. Which pair: the settings' own, else
the newest row (after a rotation), else one derived from SECRET_KEY, so that a new project has keys without a step.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid5

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.db import connections
from django.utils.encoding import force_bytes

from django_workflow.conf import Settings, get_settings
from django_workflow.engine.clock import current_clock
from django_workflow.engine.gate import engine_atomic
from django_workflow.errors import Misconfigured
from django_workflow.models import SigningKey

KEEP_SECONDS = 3.0
"""For how long a pair is used without asking the database."""

GRACE_SECONDS = 10.0
"""How long after a rotation the key before still verifies: processes that have not heard of it sign with that one."""

USER_ID = "django_workflow"
_ROTATIONS = UUID("6f2b3a52-6c1f-4d0e-9a83-0c51b7f2a7d4")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """`current` signs, both verify."""

    current: str
    next: str


class KeyOrigin(Enum):
    SETTINGS = "settings"
    ROTATED = "rotated"
    DERIVED = "derived"


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the pair in force comes from, without the keys themselves: the settings, a rotation (`since` when), or
    SECRET_KEY. `number`: how many keys verify."""

    origin: KeyOrigin
    number: int
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the table says. `fading`: the key that signed until a moment ago."""

    pair: KeyPair | None
    fading: tuple[str, ...]
    database: str
    until: float


_kept: _Stored | None = None


def signing_pair() -> KeyPair:
    """The pair in force. Raises DatabaseError when it has to be looked up and the database does not answer."""
    settings = get_settings()
    return _configured(settings) or _stored(settings.database).pair or derived_pair(django_settings.SECRET_KEY)


def verification_keys() -> list[str]:
    """Every key that a valid signature may be made with, the current one first.

    Keys derived from SECRET_KEY_FALLBACKS count only while the pair in force is derived too: a rotation, or keys in
    the settings, are there to end older keys.
    """
    settings = get_settings()
    pair = _configured(settings)
    if pair is not None:
        return [pair.current, pair.next]
    stored = _stored(settings.database)
    if stored.pair is not None:
        return [stored.pair.current, stored.pair.next, *stored.fading]
    pairs = [derived_pair(key) for key in (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS)]
    return [key for pair in pairs for key in (pair.current, pair.next)]


def key_source() -> KeySource:
    """What can be told about the keys. Of a hosted engine they are in the settings, or there are none."""
    settings = get_settings()
    if settings.is_hosted:
        return KeySource(KeyOrigin.SETTINGS, len(settings.credentials().signing_keys))
    number = len(set(verification_keys()))
    if _configured(settings) is not None:
        return KeySource(KeyOrigin.SETTINGS, number)
    newest = SigningKey.objects.using(settings.database).order_by("-created_at").first()
    if newest is not None:
        return KeySource(KeyOrigin.ROTATED, number, newest.created_at)
    return KeySource(KeyOrigin.DERIVED, number)


def rotate() -> KeyPair:
    """Make the next key the current one, and a new next key. Returns the pair that is in force then.

    Two that start from the same pair become one. Raises Misconfigured when the keys come from the settings.
    """
    settings = get_settings()
    if _configured(settings) is not None:
        raise Misconfigured(
            "The signing keys are set in DJANGO_WORKFLOW or in QSTASH_CURRENT_SIGNING_KEY, so they cannot be rotated "
            "here. Change them there: the next key becomes the current one, and a new one the next."
        )
    with engine_atomic(settings.database):
        newest = SigningKey.objects.using(settings.database).order_by("-created_at").first()
        before = _pair_of(newest) or derived_pair(django_settings.SECRET_KEY)
        now = current_clock().now()
        if (
            newest is not None and now <= newest.created_at
        ):  # a clock that was put back must not bring the old pair back
            now = newest.created_at + timedelta(microseconds=1)
        row = _follow(settings.database, before, now)
    forget()
    return KeyPair(row.current, row.next)


def engine_token() -> str:
    """The bearer token of the embedded engine's HTTP API: the setting, else one derived from SECRET_KEY.

    Its form is that of the hosted engine, base64 of `{"UserID", "Password"}`: SDKs read the user id out of it.
    """
    return engine_tokens()[0]


def engine_tokens() -> list[str]:
    """Every token that may call the API, the one to give away first. Without a setting for it, tokens derived from
    SECRET_KEY_FALLBACKS count too."""
    token = get_settings().token
    return [token] if token else _derived_tokens("token")


def names_a_user(token: str) -> bool:
    """Whether SDKs find a user's id in a token, which they put into the addresses of webhooks."""
    try:
        read = json.loads(base64.b64decode(token, validate=True))
    except ValueError:
        return False
    return isinstance(read, dict) and bool(read.get("UserID"))


def read_only_tokens() -> list[str]:
    """Tokens that may only read, derived from SECRET_KEY and then from SECRET_KEY_FALLBACKS."""
    return _derived_tokens("read-only token")


def _derived_tokens(purpose: str) -> list[str]:
    keys = (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS)
    texts = [json.dumps({"UserID": USER_ID, "Password": _derive(key, purpose)}) for key in keys]
    return [base64.b64encode(text.encode()).decode() for text in texts]


@lru_cache(maxsize=16)
def derived_pair(secret_key: str | bytes) -> KeyPair:
    """The pair that belongs to a SECRET_KEY."""
    return KeyPair(f"sig_{_derive(secret_key, 'current')}", f"sig_{_derive(secret_key, 'next')}")


def forget() -> None:
    """Look the pair up again."""
    global _kept
    _kept = None


def _configured(settings: Settings) -> KeyPair | None:
    current = settings.current_signing_key or settings.next_signing_key
    return KeyPair(current, settings.next_signing_key or current) if current else None


def _stored(database: str) -> _Stored:
    global _kept
    kept = _kept
    if kept is None or kept.database != database or time.monotonic() >= kept.until:
        kept = _look_up(database)
        # What a transaction has read may be rolled back. Threads may look up twice; each assigns a whole object.
        if not connections[database].in_atomic_block:
            _kept = kept
    return kept


def _look_up(database: str) -> _Stored:
    rows = list(SigningKey.objects.using(database).order_by("-created_at")[:2])
    fading: tuple[str, ...] = ()
    if rows and current_clock().now() - rows[0].created_at < timedelta(seconds=GRACE_SECONDS):
        before = _pair_of(rows[1]) if len(rows) > 1 else derived_pair(django_settings.SECRET_KEY)
        fading = (before.current,) if before else ()
    pair = _pair_of(rows[0]) if rows else None
    return _Stored(pair, fading, database, time.monotonic() + KEEP_SECONDS)


def _pair_of(row: SigningKey | None) -> KeyPair | None:
    return KeyPair(row.current, row.next) if row is not None else None


def _follow(database: str, before: KeyPair, now: datetime) -> SigningKey:
    """The row that comes after the pair `before`. Its key is made of that pair, so there is only one."""
    values: dict[str, Any] = {"current": before.next, "next": f"sig_{secrets.token_hex(32)}", "created_at": now}
    key = uuid5(_ROTATIONS, f"{before.current} {before.next}")
    row, _ = SigningKey.objects.using(database).get_or_create(pk=key, defaults=values)
    return row


def _derive(secret_key: str | bytes, purpose: str) -> str:
    """32 bytes for one purpose, in hexadecimal digits. Source: RFC 5869 (HKDF), with one block of output."""
    extracted = hmac.digest(b"django_workflow", force_bytes(secret_key), hashlib.sha256)
    return hmac.new(extracted, f"django_workflow {purpose}\x01".encode(), hashlib.sha256).hexdigest()


def _changed(*, setting: str, **kwargs: Any) -> None:
    if setting in ("DJANGO_WORKFLOW", "DATABASES"):
        forget()


setting_changed.connect(_changed, dispatch_uid="django_workflow.engine.signing_keys")

"""Who may follow a channel, and who may answer what its run asks.

The rule is `realtime_authorize` of the settings, else `may_by_default`. Besides the rule, a signed token admits whoever
holds it: `{% workflow_progress %}` makes one for a page whose author vouches for its viewer. A token lives a day; the
widget gets a new one with its fragment. Tokens are never logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.core import signing
from django.http import HttpRequest
from django.http.request import split_domain_port, validate_host
from django.utils.crypto import constant_time_compare
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from django_workflow.conf import get_settings
from django_workflow.errors import RequestRejected
from django_workflow.models import Run
from django_workflow.protocol.identifiers import RUN_PREFIX

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser
    from django.contrib.sessions.backends.base import SessionBase

    User = AbstractBaseUser | AnonymousUser

Scope = Literal["read", "respond"]
Rule = Callable[[Any, str, Scope], bool]

logger = logging.getLogger("django_workflow.realtime")

TOKEN_LIFETIME = timedelta(days=1)
TOKEN_HEADER = "X-Workflow-Token"
PERMISSIONS: dict[Scope, str] = {"read": "django_workflow.view_run", "respond": "django_workflow.notify_run"}

_SALT = "django_workflow.realtime.channel"


class AccessDenied(RequestRejected):
    """A channel may not be followed. `reason` is a stable name: forbidden, token_expired, token_invalid."""

    status_code = 403

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Grant(msgspec.Struct, frozen=True):
    """What a token says: these channels may be read (and answered) until `expires` (Unix seconds)."""

    channels: list[str]
    expires: int
    respond: bool = False

    def covers(self, channel: str, scope: Scope) -> bool:
        return channel in self.channels and (scope == "read" or self.respond)


def authorize(user: User | None, channel: str, scope: Scope = "read") -> bool:
    """Whether the rule in force lets a user read a channel, or answer its run (scope "respond").

    A rule of the project's own that raises denies, and is logged.
    """
    path = get_settings().realtime_authorize
    if path is None:
        return may_by_default(user, channel, scope)
    rule: Rule = import_string(path)
    try:
        return bool(rule(user, channel, scope))
    except Exception:
        logger.exception("%s failed for channel %r; access is denied.", path, channel)
        return False


def may_by_default(user: User | None, channel: str, scope: Scope) -> bool:
    """Runs' channels only: superusers, holders of `view_run` (`notify_run` to respond) and the run's owner."""
    if user is None or not user.is_authenticated or not user.is_active or not channel.startswith(RUN_PREFIX):
        return False
    # Superusers have every permission. A user model without permissions leaves the owner.
    if getattr(user, "is_superuser", False) or (hasattr(user, "has_perm") and user.has_perm(PERMISSIONS[scope])):
        return True
    return Run.objects.using(get_settings().database).filter(run_id=channel, owner=user.pk).exists()


def check_access(user: User | None, channel: str, scope: Scope = "read", token: str = "") -> None:
    """Raise AccessDenied unless the rule or the token admits."""
    if authorize(user, channel, scope):
        return
    if token and read_token(token).covers(channel, scope):
        return
    raise AccessDenied(_("You may not see this channel."), reason="forbidden")


def may(user: User | None, channel: str, scope: Scope = "read", token: str = "") -> bool:
    """`check_access` as a question."""
    try:
        check_access(user, channel, scope, token)
    except AccessDenied:
        return False
    return True


def make_token(channels: Iterable[str], *, respond: bool = False, lifetime: timedelta = TOKEN_LIFETIME) -> str:
    """A signed grant to read these channels, and to answer their runs. Whoever holds it may use it until it expires."""
    expires = int(time.time() + lifetime.total_seconds())
    grant = Grant(channels=list(channels), expires=expires, respond=respond)
    return signing.dumps(msgspec.to_builtins(grant), salt=_SALT)


def read_token(token: str) -> Grant:
    """The grant of a token. Raises AccessDenied when it is forged, damaged or expired."""
    try:
        grant = msgspec.convert(signing.loads(token, salt=_SALT), Grant)
    except (signing.BadSignature, msgspec.ValidationError, ValueError) as error:
        raise AccessDenied(_("The token is not valid."), reason="token_invalid") from error
    if grant.expires <= time.time():
        raise AccessDenied(_("The token has expired. Load the page again."), reason="token_expired")
    return grant


def token_of(request: HttpRequest) -> str:
    """The token that came with a request, by header or query."""
    return request.headers.get(TOKEN_HEADER) or request.GET.get("token", "")


def current_user(scope: Mapping[str, Any]) -> User | None:
    """The user of a connection as of now: who logged out, was deactivated or changed the password is anonymous.

    `scope` is the connection's: its `user` and `session` are what was true when it opened.
    """
    user = scope.get("user")
    if user is None or not user.is_authenticated:
        return user
    session = scope.get("session")
    if session is None or not session.session_key:
        return get_user_model()._default_manager.filter(pk=user.pk).first()
    return _user_of(session.__class__(session.session_key), user)


def _user_of(session: SessionBase, user: User) -> User | None:
    """The user if the session is still theirs. Not `auth.get_user`, which may rotate the session's key: no cookie could
    follow."""
    path = session.get(BACKEND_SESSION_KEY, "")
    if path not in django_settings.AUTHENTICATION_BACKENDS or session.get(SESSION_KEY) != str(user.pk):
        return None
    now: AbstractBaseUser | None = load_backend(path).get_user(user.pk)
    if now is None or not hasattr(now, "get_session_auth_hash"):
        return now
    hashes = [now.get_session_auth_hash(), *now.get_session_auth_fallback_hash()]
    seen = session.get(HASH_SESSION_KEY, "")
    return now if any(constant_time_compare(seen, valid) for valid in hashes) else None


def origin_allowed(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a WebSocket may be opened from the page that asks: pages of other sites carry the user's cookies too.

    Allowed are the hosts of ALLOWED_HOSTS and the origins of CSRF_TRUSTED_ORIGINS. Programs send no Origin; browsers
    always do.
    """
    origins = [value.decode("latin-1").lower() for name, value in headers if name == b"origin"]
    if not origins:
        return True
    origin = origins[0]
    scheme, _separator, host = origin.partition("://")
    if len(origins) > 1 or scheme not in ("http", "https") or not host:
        return False
    if origin in django_settings.CSRF_TRUSTED_ORIGINS:
        return True
    hosts = django_settings.ALLOWED_HOSTS
    if django_settings.DEBUG and not hosts:
        hosts = [".localhost", "127.0.0.1", "[::1]"]
    domain, _port = split_domain_port(host)
    return bool(domain) and validate_host(domain, hosts)

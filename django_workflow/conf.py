"""Settings: one typed object, read late from `DJANGO_WORKFLOW` in the project's settings.

`get_settings()` gives the object; it is made again when a test overrides the setting. Bad values are collected by
`problems()` for the system checks and raise Misconfigured when the object is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import lru_cache
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from django_workflow.errors import Misconfigured
from django_workflow.protocol.durations import parse_duration

HOSTED_URL = "https://qstash.upstash.io"
HEARTBEAT_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """DJANGO_WORKFLOW in the project's settings; unknown keys are refused by check E001."""

    engine: str = "embedded"
    """"embedded" (this project's database) or "qstash" (hosted; needs a token and `base_url`)."""

    database: str = "default"
    """Alias that holds this app's tables; `atomic=True` covers this alias alone."""

    base_url: str | None = None
    """Public origin of this site (`https://shop.example`); None: the worker calls workflows inside its process."""

    worker_autostart: bool | str = "debug"
    """Whether `workflow_application()` starts a worker thread: "debug" (only under DEBUG), True or False."""

    concurrency: int = 16
    """Deliveries in flight per worker."""

    worker_timeout: float = 15
    """Seconds of a silent heartbeat after which a worker's leases are free for others."""

    request_timeout: timedelta = timedelta(minutes=5)
    """Longest time of one delivery. A timedelta, seconds, or a duration such as "5m"."""

    retries: int = 3
    """Retries of a delivery after its first attempt, unless a workflow or trigger says otherwise."""

    retry_delay: str | None = None
    """Delay before a retry: a timedelta, seconds, or an expression in milliseconds with `retried`; None: backoff."""

    token: str | None = field(default=None, repr=False)
    """Bearer token of the engine's API. Default: the variable QSTASH_TOKEN; the embedded engine makes one."""

    current_signing_key: str | None = field(default=None, repr=False)
    """Key that signs deliveries. Default: QSTASH_CURRENT_SIGNING_KEY; the embedded engine makes one."""

    next_signing_key: str | None = field(default=None, repr=False)
    """Key that is accepted as well, for rotation. Default: QSTASH_NEXT_SIGNING_KEY."""

    qstash_url: str = HOSTED_URL
    """Origin of the hosted engine. Default: QSTASH_URL."""

    engine_api: bool = False
    """Serve the QStash HTTP API at `qstash/` for SDKs in other languages."""

    atomic_steps: bool = False
    """Run every sync `ctx.run` in one transaction with its result."""

    steps_per_call: int = 1
    """Steps that one call of a workflow may run (in process only)."""

    max_payload_bytes: int = 1024 * 1024
    """Largest payload of a trigger, in bytes of JSON."""

    max_result_bytes: int = 4 * 1024 * 1024
    """Largest result of a step or run, in bytes of JSON."""

    call_allow: tuple[str, ...] = ()
    """Hosts and CIDRs that calls may reach besides public addresses: ("127.0.0.0/8", "payments.internal")."""

    retention: timedelta = timedelta(days=30)
    """How long finished runs, their events and logs are kept."""

    realtime_store: str = "database"
    """Where realtime events are kept: "database", "redis" (a django-redis alias) or "memory"."""

    realtime_authorize: str | None = None
    """Dotted path of `(user, channel, scope) -> bool`; None: superusers, `view_run`, the run's owner, signed tokens."""

    auto_events: bool = True
    """Emit the workflow events (runStart, stepFinish …) by themselves."""

    publish_results: bool = True
    """Put results up to 4 KiB into `stepFinish` events."""


_ENVIRONMENT = {
    "token": "QSTASH_TOKEN",
    "current_signing_key": "QSTASH_CURRENT_SIGNING_KEY",
    "next_signing_key": "QSTASH_NEXT_SIGNING_KEY",
    "qstash_url": "QSTASH_URL",
}
_DURATIONS = ("request_timeout", "retention")
_AT_LEAST = {
    "concurrency": 1,
    "retries": 0,
    "steps_per_call": 1,
    "max_payload_bytes": 1,
    "max_result_bytes": 1,
    "worker_timeout": HEARTBEAT_SECONDS * 2,
}
_CHOICES: dict[str, tuple[object, ...]] = {
    "engine": ("embedded", "qstash"),
    "worker_autostart": ("debug", True, False),
    "realtime_store": ("database", "redis", "memory"),
}


def get_settings() -> Settings:
    """The settings in force. Raises Misconfigured with every problem when the setting is bad."""
    return _load()


def problems() -> list[str]:
    """What is wrong with `DJANGO_WORKFLOW`, one sentence each; empty when all is well."""
    values = getattr(django_settings, "DJANGO_WORKFLOW", {})
    if not isinstance(values, Mapping):
        return [f"DJANGO_WORKFLOW is a {type(values).__name__}, not a dict."]
    return list(_problems(_with_environment(values)))


@lru_cache(maxsize=1)
def _load() -> Settings:
    found = problems()
    if found:
        raise Misconfigured("DJANGO_WORKFLOW in the settings is wrong: " + " ".join(found))
    values = _with_environment(getattr(django_settings, "DJANGO_WORKFLOW", {}))
    return Settings(**{key: _convert(key, value) for key, value in values.items()})


def _with_environment(values: Mapping[str, Any]) -> dict[str, Any]:
    merged = {key: os.environ[name] for key, name in _ENVIRONMENT.items() if os.environ.get(name)}
    return {**merged, **values}


def _convert(key: str, value: Any) -> Any:
    if key in _DURATIONS:
        return parse_duration(value)
    if key == "retry_delay" and value is not None and not isinstance(value, str):
        return str(round(parse_duration(value).total_seconds() * 1000))
    if key in ("base_url", "qstash_url") and value:
        return value.rstrip("/")
    if key == "call_allow":
        return tuple(value)
    return value


def _problems(values: Mapping[str, Any]) -> Iterator[str]:
    known = {f.name for f in fields(Settings)}
    for key, value in values.items():
        if key not in known:
            yield f"{key!r} is not a setting; known are {', '.join(sorted(known))}."
        elif key in _CHOICES and value not in _CHOICES[key]:
            yield f"{key} is {value!r}, but must be one of {', '.join(map(repr, _CHOICES[key]))}."
        elif key in _AT_LEAST and (isinstance(value, bool) or not isinstance(value, int | float)):
            yield f"{key} is {value!r}, but must be a number."
        elif key in _AT_LEAST and value < _AT_LEAST[key]:
            yield f"{key} is {value!r}, but must be at least {_AT_LEAST[key]:g}."
        elif key in _DURATIONS:
            try:
                parse_duration(value)
            except (ValueError, TypeError) as error:
                yield f"{key} is {value!r}: {error}"
        elif key == "database" and value not in django_settings.DATABASES:
            yield f"database is {value!r}, but DATABASES has only {', '.join(django_settings.DATABASES)}."
        elif key == "base_url" and value and not str(value).startswith(("http://", "https://")):
            yield f"base_url is {value!r}, but must start with http:// or https://."
        elif key == "call_allow" and (isinstance(value, str) or not all(isinstance(item, str) for item in value)):
            yield f"call_allow is {value!r}, but must be a list of hosts and CIDRs."
    if values.get("engine") == "qstash":
        missing = [key for key in ("token", "base_url") if not values.get(key)]
        if missing:
            yield f"engine is 'qstash', but {' and '.join(missing)} is not set."


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("DJANGO_WORKFLOW", "DATABASES"):
        _load.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_workflow.conf")

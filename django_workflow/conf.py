"""Settings: one typed object, read late from `DJANGO_WORKFLOW` in the project's settings.

`get_settings()` gives the object; it is made again when a test overrides the setting. Bad values are collected by
`problems()` for the system checks and raise Misconfigured when the object is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from django_workflow.errors import Misconfigured, among
from django_workflow.protocol.durations import parse_duration

HOSTED_URL = "https://qstash.upstash.io"
HEARTBEAT_SECONDS = 2.0
LONGEST_VERSION = 64
REGIONS = ("EU_CENTRAL_1", "US_EAST_1")
"""Regions of the hosted engine; each may have a URL, a token and keys of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Where one engine is, and how it and this site know one another. `signing_keys`: the current one first."""

    url: str
    token: str | None = field(default=None, repr=False)
    signing_keys: tuple[str, ...] = field(default=(), repr=False)
    region: str | None = None


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
    """URL of the hosted engine, a path before its API included. Default: QSTASH_URL."""

    region: str | None = None
    """Region of the hosted engine that new runs go to: "EU_CENTRAL_1" or "US_EAST_1". Default: QSTASH_REGION.

    With a region, URL and token are read from US_EAST_1_QSTASH_URL and US_EAST_1_QSTASH_TOKEN, keys from
    US_EAST_1_QSTASH_CURRENT_SIGNING_KEY and US_EAST_1_QSTASH_NEXT_SIGNING_KEY; the variables without a region serve
    where these are missing.
    """

    regions: tuple[Credentials, ...] = ()
    """Credentials by region, for those who keep them elsewhere than in the environment: `{"US_EAST_1": {"token": …}}`.

    Each may have url, token, current_signing_key and next_signing_key.
    """

    engine_api: bool = False
    """Serve the QStash HTTP API at `qstash/` for SDKs in other languages."""

    atomic_steps: bool = False
    """Run every sync `ctx.run` in one transaction with its result."""

    steps_per_call: int = 1
    """Steps that one call of a workflow may run, each committed before the next begins (in a worker's process only)."""

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

    code_version: str = ""
    """Version of the project's code (a release, a Git commit): noted on each run that one of its workflows starts."""

    auto_events: bool = True
    """Emit the workflow events (runStart, stepFinish …) by themselves."""

    publish_results: bool = True
    """Put results up to 4 KiB into `stepFinish` events."""

    @property
    def is_hosted(self) -> bool:
        """Whether runs are kept by an engine behind a URL."""
        return self.engine == "qstash"

    def credentials(self, region: str | None = None) -> Credentials:
        """Those of a region, its name spelt in any way; the default ones when it has none of its own."""
        keys = tuple(key for key in (self.current_signing_key, self.next_signing_key) if key)
        default = Credentials(url=self.qstash_url, token=self.token, signing_keys=keys, region=self.region)
        name = region_name(region)
        if self.region is None or name in (None, self.region):
            return default
        own = next((own for own in self.regions if own.region == name), default)
        # One engine's token is worth nothing at another one's URL.
        reached = own if own.url and own.token else default
        return replace(reached, signing_keys=own.signing_keys or keys)


_ENVIRONMENT = {
    "token": "QSTASH_TOKEN",
    "current_signing_key": "QSTASH_CURRENT_SIGNING_KEY",
    "next_signing_key": "QSTASH_NEXT_SIGNING_KEY",
    "qstash_url": "QSTASH_URL",
    "region": "QSTASH_REGION",
}
_OF_REGIONS = {"qstash_url": "url", "token": "token"} | {
    key: key for key in ("current_signing_key", "next_signing_key")
}
"""Settings that a region may have of its own, and their names in `regions`."""
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


def region_name(text: str | None) -> str | None:
    """`"us-east-1"` -> `"US_EAST_1"`; None for what is no region."""
    name = (text or "").strip().replace("-", "_").upper()
    return name if name in REGIONS else None


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
    """The settings' own values win, then those of their region, then those without a region."""
    found = {key: os.environ[name] for key, name in _ENVIRONMENT.items() if os.environ.get(name)}
    region = region_name(values.get("region") or found.get("region"))
    given = values.get("regions")
    if region is None or not isinstance(given, Mapping | None):
        return {**found, **values}
    regions = {name: own for name in REGIONS if (own := {**_region_variables(name), **_given(given, name)})}
    own = regions.get(region, {})
    if not (own.get("url") and own.get("token")):
        own = {name: value for name, value in own.items() if name not in ("url", "token")}
    of_region = {key: own[name] for key, name in _OF_REGIONS.items() if own.get(name)}
    return {**found, **of_region, **values, "regions": {**(given or {}), **regions}}


def _region_variables(region: str) -> dict[str, str]:
    """What the environment says of a region: `US_EAST_1_QSTASH_TOKEN` and so on."""
    variables = {name: os.environ.get(f"{region}_{_ENVIRONMENT[key]}") for key, name in _OF_REGIONS.items()}
    return {name: value for name, value in variables.items() if value}


def _given(regions: Mapping[str, Any] | None, region: str) -> dict[str, Any]:
    """What the settings say of a region, however its name is spelt."""
    found: Any = next((own for name, own in (regions or {}).items() if region_name(name) == region), {})
    return dict(found) if isinstance(found, Mapping) else {}


def _convert(key: str, value: Any) -> Any:
    if key in _DURATIONS:
        return parse_duration(value)
    if key == "retry_delay" and value is not None and not isinstance(value, str):
        return str(round(parse_duration(value).total_seconds() * 1000))
    if key in ("base_url", "qstash_url") and value:
        return value.rstrip("/")
    if key == "call_allow":
        return tuple(value)
    if key == "region":
        return region_name(value)
    if key == "regions":
        return tuple(_credentials(name, own) for name, own in value.items())
    return value


def _credentials(region: str, own: Mapping[str, str]) -> Credentials:
    return Credentials(
        url=own.get("url", "").rstrip("/"),
        token=own.get("token"),
        signing_keys=tuple(key for key in (own.get("current_signing_key"), own.get("next_signing_key")) if key),
        region=region_name(region),
    )


def _problems(values: Mapping[str, Any]) -> Iterator[str]:
    known = {f.name for f in fields(Settings)}
    for key, value in values.items():
        if key not in known:
            yield f"{key!r} is not a setting; {among(str(key), known)}"
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
        elif key == "code_version" and not (isinstance(value, str) and len(value) <= LONGEST_VERSION):
            yield f"code_version is {value!r}, but must be text of at most {LONGEST_VERSION} characters."
        elif key == "base_url" and value and not str(value).startswith(("http://", "https://")):
            yield f"base_url is {value!r}, but must start with http:// or https://."
        elif key == "call_allow" and (isinstance(value, str) or not all(isinstance(item, str) for item in value)):
            yield f"call_allow is {value!r}, but must be a list of hosts and CIDRs."
        elif key == "qstash_url" and not str(value).startswith(("http://", "https://")):
            yield f"qstash_url is {value!r}, but must start with http:// or https://."
        elif key == "region" and value and region_name(str(value)) is None:
            yield f"region is {value!r}, but must be one of {', '.join(REGIONS)}."
        elif key == "regions":
            yield from _region_problems(value)


def _region_problems(regions: Any) -> Iterator[str]:
    """The values of credentials are secrets: none is shown."""
    if not isinstance(regions, Mapping):
        yield f"regions is a {type(regions).__name__}, but must be a dict of credentials by region."
        return
    known = set(_OF_REGIONS.values())
    for name, own in regions.items():
        if region_name(str(name)) is None:
            yield f"regions has {name!r}, but there are only {', '.join(REGIONS)}."
        elif not isinstance(own, Mapping) or not set(own) <= known:
            yield f"regions[{name!r}] must be a dict with some of {', '.join(sorted(known))}."


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("DJANGO_WORKFLOW", "DATABASES"):
        _load.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_workflow.conf")

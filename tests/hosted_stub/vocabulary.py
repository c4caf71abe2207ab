"""The vocabulary of control headers: which exist, what they may hold, where they may stand.

`read_message` takes the headers of a message, `read_callback` those of one of its callbacks (`Upstash-Callback-…`
without the prefix). Both raise Fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.hosted_stub import values
from tests.hosted_stub.refusals import Fault
from tests.hosted_stub.values import Flow


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)

# What every request over HTTP carries; it says nothing to the service.
TRANSPORT = words(
    "accept accept-encoding accept-language cache-control connection content-length host pragma transfer-encoding "
    "user-agent"
)

CONTROL: dict[str, Callable[[str], Any]] = {
    "method": values.only(*values.METHODS),
    "delay": values.duration,
    "not-before": values.unix_seconds,
    "retries": values.whole,
    "retry-delay": values.retry_expression,
    "timeout": values.duration_or_seconds,
    "callback": values.http_url,
    "failure-callback": values.http_url,
    "deduplication-id": values.some,
    "content-based-deduplication": values.flag,
    "flow-control-key": values.word,
    "flow-control-value": values.flow,
    "label": values.labels,
    "redact-fields": values.redact,
    "cron": values.Cron.parse,
    "schedule-id": values.word,
    "queue-name": values.word,
    "feature-set": values.features,
    "workflow-init": values.only("true", "false"),
    "workflow-runid": values.some,
    "workflow-url": values.http_url,
    "workflow-calltype": values.only("step", "toCallback", "fromCallback", "failureCall"),
    "workflow-sdk-version": values.only("1"),
    "workflow-invoke": values.only("true"),
    "workflow-trigger-by-sdk": values.only("true"),
    "telemetry-sdk": values.some,
    "telemetry-framework": values.some,
    "telemetry-runtime": values.some,
    "telemetry-platform": values.some,
}
IN_CALLBACKS = words(
    "method timeout retries retry-delay delay flow-control-key flow-control-value failure-callback feature-set "
    "workflow-runid workflow-init workflow-url workflow-calltype"
)

# Headers of deliveries that endpoints hand back when they start a run of themselves, and those that a message may set.
HANDED_BACK = words(
    "upstash-signature upstash-message-id upstash-retried upstash-caller-ip upstash-topic-name upstash-schedule-id "
    "upstash-feature-set upstash-label"
)
OF_STEPS = frozenset({"upstash-workflow-sdk-version", "upstash-workflow-invoke-count"})
OF_CALLBACKS = frozenset(
    f"upstash-workflow-{name}"
    for name in ("callback", "stepid", "stepname", "steptype", "concurrent", "contenttype", "invoke-count")
)
OF_FAILURES = frozenset(
    {"upstash-workflow-is-failure", "upstash-workflow-failure-callback", "upstash-workflow-invoke-count"}
)


@dataclass(frozen=True)
class CallbackConfig:
    """What follows `Upstash-Callback-` or `Upstash-Failure-Callback-`: control values by name, forwards as given."""

    url: str | None
    control: Mapping[str, Any]
    forward: Mapping[str, str]
    nested_failure: CallbackConfig | None = None


@dataclass(frozen=True)
class Instructions:
    """The headers of one message: control values by name without prefix, forwards by name as given."""

    content_type: str | None = None
    control: Mapping[str, Any] = field(default_factory=dict)
    forward: Mapping[str, str] = field(default_factory=dict)
    callback: CallbackConfig | None = None
    failure: CallbackConfig | None = None

    def get(self, name: str, default: Any = None) -> Any:
        return self.control.get(name, default)

    @property
    def run_id(self) -> str | None:
        return self.control.get("workflow-runid")

    @property
    def init(self) -> bool:
        return self.control.get("workflow-init") == "true"

    @property
    def call_type(self) -> str:
        return str(self.control.get("workflow-calltype", "step"))

    @property
    def features(self) -> frozenset[str]:
        return frozenset(self.control.get("feature-set", ()))

    @property
    def flow(self) -> tuple[str, Flow] | None:
        key = self.control.get("flow-control-key")
        return None if key is None else (key, self.control["flow-control-value"])


def read_message(headers: Iterable[tuple[str, str]], *, over_http: bool) -> Instructions:
    """The headers of a message. `over_http`: of a request, which also has those of its transport; else of a batch."""
    control: dict[str, str] = {}
    forward: dict[str, str] = {}
    parts: dict[str, dict[str, str]] = {"callback-": {}, "failure-callback-": {}}
    content_type = None
    for name, value in unrepeated(headers):
        lower = name.lower()
        one_line(name, value)
        if lower == "content-type":
            content_type = value
        elif lower.startswith("upstash-"):
            rest = name[len("upstash-") :]
            for prefix, found in parts.items():
                if rest.lower().startswith(prefix):
                    found[rest[len(prefix) :]] = value
                    break
            else:
                _sort_out(rest, value, control, forward)
        elif not (over_http and (lower in TRANSPORT or lower == "authorization")):
            raise Fault(f"The header {name} means nothing here; Upstash-Forward-{name} would be handed on.")
    read = _read_control(control, CONTROL, "Upstash-")
    callback = _callback(read.get("callback"), parts["callback-"], "Upstash-Callback-", OF_CALLBACKS)
    failure = _callback(
        read.get("failure-callback"), parts["failure-callback-"], "Upstash-Failure-Callback-", OF_FAILURES
    )
    check_forwards(forward, OF_STEPS | HANDED_BACK, "Upstash-Forward-")
    return Instructions(content_type, read, forward, callback, failure)


def _callback(url: str | None, headers: dict[str, str], prefix: str, own: frozenset[str]) -> CallbackConfig | None:
    if url is None and not headers:
        return None
    control: dict[str, str] = {}
    forward: dict[str, str] = {}
    nested: dict[str, str] = {}
    for rest, value in headers.items():
        if rest.lower().startswith("failure-callback-"):
            nested[rest[len("failure-callback-") :]] = value
        else:
            _sort_out(rest, value, control, forward)
    allowed = {name: read for name, read in CONTROL.items() if name in IN_CALLBACKS}
    read = _read_control(control, allowed, prefix)
    check_forwards(forward, own | HANDED_BACK, prefix + "Forward-")
    below = (
        _callback(read.get("failure-callback"), nested, prefix + "Failure-Callback-", OF_FAILURES) if nested else None
    )
    return CallbackConfig(url, read, forward, below)


def _sort_out(rest: str, value: str, control: dict[str, str], forward: dict[str, str]) -> None:
    if rest.lower().startswith("forward-"):
        forward[rest[len("forward-") :]] = value
    else:
        control[rest.lower()] = value


def _read_control(given: Mapping[str, str], readers: Mapping[str, Callable[[str], Any]], prefix: str) -> dict[str, Any]:
    found = {}
    for name, value in given.items():
        if name not in readers:
            raise Fault(f"There is no header {prefix}{name}.")
        try:
            found[name] = readers[name](value)
        except ValueError as error:
            raise Fault(f"{prefix}{name} is {value!r}: {error}.") from error
    if ("flow-control-key" in found) != ("flow-control-value" in found):
        raise Fault(f"{prefix}Flow-Control-Key and -Value come together.")
    return found


def check_forwards(forward: Mapping[str, str], own: frozenset[str], prefix: str) -> None:
    for name in forward:
        if not TOKEN.fullmatch(name):
            raise Fault(f"{prefix}{name}: {name!r} cannot be the name of a header.")
        if name.lower().startswith("upstash-") and name.lower() not in own:
            raise Fault(f"{prefix}{name}: the engine's own headers are not forwarded.")


def unrepeated(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers, of which none may be there twice with different values."""
    found: dict[str, tuple[str, str]] = {}
    for name, value in headers:
        known = found.setdefault(name.lower(), (name, value))
        if known[1] != value and name.lower() not in TRANSPORT:
            raise Fault(f"{name} is there twice, with {known[1]!r} and {value!r}.")
    return list(found.values())


def one_line(name: str, value: Any) -> None:
    if not isinstance(value, str) or re.search(r"[\r\n\0]", value):
        raise Fault(f"The header {name} is {value!r}, and not one line of text.")

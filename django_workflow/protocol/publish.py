"""Outgoing messages: what is published, and its headers and body on the wire.

`Message` is one message with its configuration, typed. `encode_headers` writes its `Upstash-*` headers,
`decode_message` reads them back (names in any letter case, configuration also from the query); a batch carries the
same headers as JSON. What cannot be read raises MessageInvalid with the header's name and value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from django_workflow.errors import MessageInvalid
from django_workflow.protocol import headers as h
from django_workflow.protocol.durations import format_duration, to_seconds
from django_workflow.protocol.retry_delay import check_expression
from django_workflow.protocol.steps import CallType

FEATURES = ("LazyFetch", "InitialBody", "WF_DetectTrigger", "WF_TriggerOnConfig")
CALL_FEATURES = ("WF_NoDelete", "InitialBody")


class FlowControl(msgspec.Struct, frozen=True):
    """Limits of a key. `period` in seconds belongs to `rate`; a limit that is None does not limit."""

    key: str
    parallelism: int | None = None
    rate: int | None = None
    period: int = 1


class CallbackConfig(msgspec.Struct, frozen=True):
    """Where a callback goes and how: `headers` are the `Upstash-*` headers of the callback message itself.

    `url` is None when a message configures a callback without naming it (nested callbacks of some SDKs).
    """

    url: str | None
    headers: dict[str, str] = {}


class WorkflowFields(msgspec.Struct, frozen=True, kw_only=True):
    """The workflow part of a message's headers."""

    run_id: str
    url: str
    init: bool = False
    call_type: str = "step"
    features: tuple[str, ...] = ()
    sdk_version: str | None = None
    invoke: bool = False
    trigger_by_sdk: bool = False


class RunAttributes(msgspec.Struct, frozen=True):
    """What a site keeps about a run of its own, for itself: `owner` is a user's key, `for_object` the label of a model
    and the key of an object, `kind` how the run was started. None: not said."""

    owner: str | None = None
    for_object: tuple[str, str] | None = None
    kind: str | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message to publish. Lengths are seconds, instants Unix seconds.

    `headers` are those that the destination gets (`Upstash-Forward-*` without the prefix).
    `retry_delay` is an expression in milliseconds. None means: not said, the engine's or the run's default holds.
    `redact` is what its publisher hides (`body`, `header[Name]`), `secret` the paths of what a run's types mark secret.
    `attributes` never leave the site: they have no wire form.
    """

    destination: str
    body: bytes = b""
    method: str = "POST"
    content_type: str | None = None
    headers: dict[str, str] = {}
    delay: float | None = None
    not_before: float | None = None
    retries: int | None = None
    retry_delay: str | None = None
    timeout: float | None = None
    flow_control: FlowControl | None = None
    labels: tuple[str, ...] = ()
    redact: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    callback: CallbackConfig | None = None
    failure_callback: CallbackConfig | None = None
    attributes: RunAttributes | None = None
    deduplication_id: str | None = None
    content_based_deduplication: bool = False
    queue: str | None = None
    workflow: WorkflowFields | None = None


class BatchItem(msgspec.Struct, frozen=True):
    """One element of `POST /v2/batch`. Header values that are no strings are taken as their text."""

    destination: str
    headers: dict[str, str | bool | int | float | list[str] | None] | None = None
    body: str | None = None
    queue: str | None = None


LONGEST_FLOW_PERIOD = 7 * 86_400
DEEPEST_CALLBACK = 5
"""How far callbacks may have callbacks of their own: each level is read again with every message."""

_LABEL_RE = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_REDACT_RE = re.compile(r"(?:(body)|headers?(?:\[([^\[\]]+)\])?)", re.IGNORECASE)
_METHOD_RE = re.compile(r"[A-Z]+", re.ASCII)
_NOT_FORWARDED = h.HOP_BY_HOP | {"authorization", "content-length", "content-type", "host"}


def encode_headers(message: Message) -> dict[str, str]:
    """The headers that say all of a message but its destination, body and queue."""
    headers = {h.METHOD: message.method}
    if message.content_type is not None:
        headers[h.CONTENT_TYPE] = message.content_type
    if message.workflow is not None:
        _encode_workflow(message.workflow, headers)
    if message.delay is not None:
        headers[h.DELAY] = format_duration(message.delay)
    if message.not_before is not None:
        headers[h.NOT_BEFORE] = str(math.ceil(round(message.not_before, 6)))  # whole seconds, never earlier
    if message.retries is not None:
        headers[h.RETRIES] = str(message.retries)
    if message.retry_delay is not None:
        headers[h.RETRY_DELAY] = message.retry_delay
    if message.timeout is not None:
        headers[h.TIMEOUT] = format_duration(message.timeout)
    if message.flow_control is not None:
        headers[h.FLOW_CONTROL_KEY] = message.flow_control.key
        if value := encode_flow_control(message.flow_control):
            headers[h.FLOW_CONTROL_VALUE] = value
    if message.labels:
        headers[h.LABEL] = ",".join(message.labels)
    if message.redact:
        headers[h.REDACT_FIELDS] = ",".join(message.redact)
    if message.secret:
        headers[h.SECRET] = ",".join(message.secret)
    if message.deduplication_id is not None:
        headers[h.DEDUPLICATION_ID] = message.deduplication_id
    if message.content_based_deduplication:
        headers[h.CONTENT_BASED_DEDUPLICATION] = "true"
    _encode_callback(message.callback, h.CALLBACK, headers)
    _encode_callback(message.failure_callback, h.FAILURE_CALLBACK, headers)
    for name, value in message.headers.items():
        headers[h.FORWARD_PREFIX + name] = value
    return headers


def _encode_workflow(workflow: WorkflowFields, headers: dict[str, str]) -> None:
    headers[h.WORKFLOW_INIT] = _text(workflow.init)
    headers[h.WORKFLOW_RUN_ID] = workflow.run_id
    headers[h.WORKFLOW_URL] = workflow.url
    if workflow.call_type != CallType.STEP:
        headers[h.WORKFLOW_CALL_TYPE] = workflow.call_type
    if workflow.features:
        headers[h.FEATURE_SET] = ",".join(workflow.features)
    if workflow.sdk_version is not None:
        headers[h.WORKFLOW_SDK_VERSION] = workflow.sdk_version
    if workflow.invoke:
        headers[h.WORKFLOW_INVOKE] = "true"
    if workflow.trigger_by_sdk:
        headers[h.WORKFLOW_TRIGGER_BY_SDK] = "true"


def _encode_callback(config: CallbackConfig | None, name: str, headers: dict[str, str]) -> None:
    if config is None:
        return
    if config.url is not None:
        headers[name] = config.url
    for key, value in config.headers.items():
        if not key.lower().startswith("upstash-"):
            raise MessageInvalid(f"A callback is configured by Upstash-* headers, not by {key!r}.", name=key)
        headers[f"{name}-{key[len(h.PREFIX) :]}"] = value


def decode_message(
    destination: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    query: Iterable[tuple[str, str]] = (),
    queue: str | None = None,
) -> Message:
    """The message that these headers say; `query` holds configuration by parameter, which a header overrides.

    Forward headers are kept as they came: what a delivery may carry of them is `headers.forwardable`'s business.
    """
    named = {name.lower(): (name, value) for name, value in query}
    named.update((name.lower(), (name, value)) for name, value in headers.items())
    fields = _decode(named, h.PREFIX, destination)
    secret = _comma_list(named.get(h.SECRET.lower(), ("", ""))[1])
    return Message(destination=destination, body=body, queue=queue, secret=secret, **fields)


def callback_message(
    config: CallbackConfig, body: bytes, *, retries: int | None = None, destination: str | None = None
) -> Message:
    """The message that delivers a callback's JSON `body`, configured by the headers of `config`.

    `retries` are those of the parent, for a callback that names none; `destination` serves one that names no URL.
    Raises ValueError without any destination. Source: engine protocol, "Callbacks and failure callbacks".
    """
    url = config.url or destination
    if url is None:
        raise ValueError("The callback has no URL, so it cannot be delivered.")
    message = decode_message(url, config.headers, body)
    return msgspec.structs.replace(
        message,
        content_type="application/json",
        retries=retries if message.retries is None else message.retries,
    )


def _decode(named: Mapping[str, tuple[str, str]], prefix: str, destination: str | None) -> dict[str, Any]:
    """Fields of a Message from headers by lower-case name. `prefix` is what stood before the names, for errors."""
    control: dict[str, str] = {}
    forwards: dict[str, str] = {}
    callback: dict[str, str] = {}
    failure: dict[str, str] = {}
    for lower, (name, value) in named.items():
        if not lower.startswith("upstash-"):
            continue
        rest = lower[8:]
        # Values that came as JSON may hold what would end a header; they are not repeated here, as they may be secret.
        if not h.is_safe_value(value):
            raise MessageInvalid(f"{prefix}{name[8:]} holds a line break or NUL.", name=prefix + name[8:])
        if rest.startswith("forward-"):
            if not h.is_header_name(name[16:]):
                raise MessageInvalid(f"{name[16:]!r} cannot be a header's name.", name=prefix + name[8:])
            forwards[name[16:]] = value
        elif rest.startswith("failure-callback-"):
            failure[h.PREFIX + name[25:]] = value
        elif rest.startswith("callback-"):
            callback[h.PREFIX + name[17:]] = value
        else:
            control[rest] = value.strip()
    reader = _Reader(control, prefix)
    fields: dict[str, Any] = {
        "headers": forwards,
        "callback": reader.callback("callback", callback),
        "failure_callback": reader.callback("failure-callback", failure),
        "workflow": reader.workflow(destination),
        "flow_control": reader.flow_control(),
        "content_based_deduplication": reader.flag("content-based-deduplication"),
    }
    if "content-type" in named:
        fields["content_type"] = named["content-type"][1].strip() or None
    for rest, text in control.items():
        if rest in _FIELDS and text:
            field, read = _FIELDS[rest]
            try:
                fields[field] = read(text)
            except ValueError as error:
                raise reader.invalid(rest, str(error)) from error
    if reader.flag("header-forward"):
        for lower, (name, value) in named.items():
            if not lower.startswith("upstash-") and lower not in _NOT_FORWARDED:
                forwards.setdefault(name, value)
    return fields


class _Reader:
    """The control headers of one message, by lower-case name without prefix."""

    __slots__ = ("control", "prefix")

    def __init__(self, control: Mapping[str, str], prefix: str) -> None:
        self.control = control
        self.prefix = prefix

    def invalid(self, rest: str, reason: str) -> MessageInvalid:
        name = self.prefix + h.canonical(rest)
        value = self.control.get(rest, "")
        return MessageInvalid(f"{name}: {value[:200]!r} cannot be read. {reason}", name=name, value=value)

    def flag(self, rest: str) -> bool:
        value = self.control.get(rest, "").lower()  # Python writes True
        if value not in ("", "0", "1", "false", "true"):
            raise self.invalid(rest, "Give true or false.")
        return value in ("1", "true")

    def callback(self, rest: str, config: dict[str, str]) -> CallbackConfig | None:
        url = self.control.get(rest) or None
        if url is None and not config:
            return None
        if url is not None and not url.lower().startswith(("http://", "https://")):
            raise self.invalid(rest, "Give an absolute URL.")
        if self.prefix.lower().count("callback-") >= DEEPEST_CALLBACK:
            raise self.invalid(rest, f"Callbacks of callbacks are {DEEPEST_CALLBACK} deep at most.")
        # Read now and thrown away, so that a bad value is refused while somebody is there to hear it.
        nested = {name.lower(): (name, value) for name, value in config.items()}
        _decode(nested, f"{self.prefix}{h.canonical(rest)}-", url)
        return CallbackConfig(url=url, headers=config)

    def flow_control(self) -> FlowControl | None:
        key, value = self.control.get("flow-control-key"), self.control.get("flow-control-value")
        if not key:
            if value:
                raise self.invalid("flow-control-value", f"It needs {self.prefix}Flow-Control-Key as well.")
            return None
        try:
            return decode_flow_control(key, value or "")
        except ValueError as error:
            raise self.invalid("flow-control-value", str(error)) from error

    def workflow(self, destination: str | None) -> WorkflowFields | None:
        init = self.flag("workflow-init")
        run_id = self.control.get("workflow-runid")
        if not run_id:
            if init:
                raise self.invalid("workflow-init", f"A run needs {self.prefix}Workflow-RunId as well.")
            return None
        call_type = self.control.get("workflow-calltype") or CallType.STEP
        if call_type not in _CALL_TYPES:
            raise self.invalid("workflow-calltype", f"It is one of {', '.join(CallType)}.")
        return WorkflowFields(
            run_id=run_id,
            url=self.control.get("workflow-url") or destination or "",
            init=init,
            call_type=call_type,
            features=_comma_list(self.control.get("feature-set", "")),
            sdk_version=self.control.get("workflow-sdk-version") or None,
            invoke=self.flag("workflow-invoke"),
            trigger_by_sdk=self.flag("workflow-trigger-by-sdk"),
        )


_CALL_TYPES = frozenset(CallType)


def _text(value: bool) -> str:
    return "true" if value else "false"


def _comma_list(text: str) -> tuple[str, ...]:
    return tuple(stripped for part in text.split(",") if (stripped := part.strip()))


def encode_flow_control(flow_control: FlowControl) -> str:
    """`"parallelism=5, rate=10, period=60s"`, the parts that are set; empty when nothing is limited."""
    parts = []
    if flow_control.parallelism is not None:
        parts.append(f"parallelism={flow_control.parallelism}")
    if flow_control.rate is not None:
        parts.append(f"rate={flow_control.rate}")
    if flow_control.period != 1:
        parts.append(f"period={flow_control.period}s")
    return ", ".join(parts)


def decode_flow_control(key: str, value: str) -> FlowControl:
    """The inverse; blanks are optional, `ratePerSecond` is an old name of `rate`. Raises ValueError."""
    parts: dict[str, int] = {}
    for part in _comma_list(value):
        name, _, text = (piece.strip() for piece in part.partition("="))
        field = _FLOW_PARTS.get(name.lower())
        if field is None:
            raise ValueError(f"{part!r} is none of parallelism=<n>, rate=<n>, period=<duration>.")
        parts[field] = _flow_period(text) if field == "period" else _positive(name, text)
    return FlowControl(key=key, **parts)


_FLOW_PARTS = {"parallelism": "parallelism", "rate": "rate", "ratepersecond": "rate", "period": "period"}


def _positive(name: str, text: str) -> int:
    number = _count(text)
    if number < 1:
        raise ValueError(f"{name} must be at least 1.")
    return number


def _flow_period(text: str) -> int:
    seconds = math.ceil(to_seconds(text))
    if not 1 <= seconds <= LONGEST_FLOW_PERIOD:
        raise ValueError("period must be from one second to seven days.")
    return seconds


def decode_labels(text: str) -> tuple[str, ...]:
    """`"a, b"` -> `("a", "b")`. Raises ValueError for other characters than letters, digits, `-`, `_` and `.`."""
    labels = _comma_list(text)
    for label in labels:
        if not _LABEL_RE.fullmatch(label):
            raise ValueError(f"The label {label!r} may have letters, digits, hyphens, underscores and periods only.")
    return labels


def decode_redact(text: str) -> tuple[str, ...]:
    """`"body, headers[X-Key]"` -> `("body", "header[X-Key]")`. Raises ValueError for other fields."""
    fields = []
    for part in _comma_list(text):
        match = _REDACT_RE.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is none of body, header, header[<name>].")
        body, name = match.groups()
        fields.append("body" if body else f"header[{name.strip()}]" if name else "header")
    return tuple(fields)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 15:
        raise ValueError(f"{text[:20]!r} is no whole number.")
    return int(text)


def _instant(text: str) -> float:
    seconds = float(text)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("Give Unix seconds.")
    return seconds


def _method(text: str) -> str:
    method = text.upper()
    if not _METHOD_RE.fullmatch(method) or method in ("CONNECT", "TRACE"):
        raise ValueError("Give an HTTP method such as POST.")
    return method


def _expression(text: str) -> str:
    check_expression(text)
    return text


_FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "method": ("method", _method),
    "delay": ("delay", to_seconds),
    "not-before": ("not_before", _instant),
    "retries": ("retries", _count),
    "retry-delay": ("retry_delay", _expression),
    "timeout": ("timeout", to_seconds),
    "label": ("labels", decode_labels),
    "redact-fields": ("redact", decode_redact),
    "deduplication-id": ("deduplication_id", str),
}


def to_batch_item(message: Message) -> dict[str, Any]:
    """A message as one element of a batch. Raises MessageInvalid for a body that is no UTF-8: JSON cannot carry it."""
    item: dict[str, Any] = {"destination": message.destination, "headers": encode_headers(message)}
    if message.body:
        try:
            item["body"] = message.body.decode()
        except UnicodeDecodeError as error:
            raise MessageInvalid(
                f"The body for {message.destination} is no UTF-8 text, which a batch needs; publish it by itself.",
                name="body",
            ) from error
    if message.queue is not None:
        item["queue"] = message.queue
    return item


def from_batch_item(item: BatchItem | Mapping[str, Any]) -> Message:
    """The message of a batch's element. Raises MessageInvalid."""
    if not isinstance(item, BatchItem):
        try:
            item = msgspec.convert(item, BatchItem)
        except msgspec.ValidationError as error:
            raise MessageInvalid(f"This is no batch item: {error}.", name="batch") from error
    return decode_message(
        item.destination,
        {name: _header_text(value) for name, value in (item.headers or {}).items() if value is not None},
        (item.body or "").encode(),
        queue=item.queue,
    )


def _header_text(value: str | float | list[str]) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return value if isinstance(value, str) else str(value)  # "True" is read as true

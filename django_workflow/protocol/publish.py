"""Outgoing messages: what is published, and its headers and body on the wire.

`Message` is one message with its configuration, typed. `encode_headers` writes the `Upstash-*` headers of it,
`decode_headers` reads them back (names in any letter case, configuration also from the query).
"""

from __future__ import annotations

import msgspec

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


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message to publish. Lengths are seconds, instants Unix seconds.

    `headers` are those that the destination gets (`Upstash-Forward-*` without the prefix).
    `retry_delay` is an expression in milliseconds. None means: not said, the engine's or the run's default holds.
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
    callback: CallbackConfig | None = None
    failure_callback: CallbackConfig | None = None
    deduplication_id: str | None = None
    content_based_deduplication: bool = False
    queue: str | None = None
    workflow: WorkflowFields | None = None

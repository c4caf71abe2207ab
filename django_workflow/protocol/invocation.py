"""Incoming workflow calls: what a request to an endpoint is, from its headers and its body.

`classify` tells the five kinds apart and decodes the body of each; `serve` goes on from there. It trusts nothing and
checks no signature: that is done before, over the same bytes. Source: endpoint protocol, sections 4 and 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from django_workflow.errors import InvocationInvalid, MessageInvalid
from django_workflow.protocol import headers as h
from django_workflow.protocol.callbacks import CallbackBody, FailureBody, decode_callback, decode_failure
from django_workflow.protocol.steps import JournalMessage, StepType, decode_messages


class Kind(StrEnum):
    FIRST = "first"
    """From outside: a user's request, a schedule, a plain message. The endpoint starts a run of its own."""

    UNKNOWN_SDK = "unknown_sdk"
    """A run that the engine started without knowing the endpoint; it answers by starting the run itself."""

    STEPS = "steps"
    """A run's messages up to the one that is delivered: replay, then the next step."""

    CALL_CALLBACK = "call_callback"
    """The answer of a call's target."""

    FAILURE_CALLBACK = "failure_callback"
    """The run has failed: its failure function is asked for."""


class RunSteps(msgspec.Struct, frozen=True):
    """A run so far. `messages` starts with the payload's own and holds those of calls too, as delivered."""

    payload: bytes
    messages: list[JournalMessage]


class CallReturn(msgspec.Struct, frozen=True, kw_only=True):
    """Which step a call's answer belongs to, and the answer; `body` is None while it has to be fetched."""

    step_id: int
    step_name: str
    step_type: str
    concurrent: int
    content_type: str
    body: CallbackBody | None


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """One call of an endpoint.

    `run_id` is empty for a first call from outside. `created_at` is in Unix milliseconds. `payload` is the run's:
    the whole body of a first call, the first message's of a steps delivery, the source's of a failure callback; a
    call callback has none. `lazy`: the body was left out, so ask the engine for the run's messages up to
    `message_id` and go on with `with_messages`.
    """

    kind: Kind
    run_id: str = ""
    message_id: str | None = None
    created_at: int | None = None
    retried: int = 0
    invoke_count: int = 0
    labels: tuple[str, ...] = ()
    payload: bytes = b""
    steps: RunSteps | None = None
    call: CallReturn | None = None
    failure: FailureBody | None = None
    lazy: bool = False

    def with_messages(self, messages: Sequence[JournalMessage]) -> Invocation:
        """A lazy invocation with what was fetched; the last message is the delivered one. Raises InvocationInvalid."""
        if not messages:
            raise InvocationInvalid(
                f"The engine's list of run {self.run_id} lacks the delivered message {self.message_id}; the delivery "
                "will be tried again."
            )
        if self.call is not None:
            call = msgspec.structs.replace(self.call, body=_callback(messages[-1].raw))
            return msgspec.structs.replace(self, call=call, lazy=False)
        payload = messages[0].raw
        steps = RunSteps(payload, list(messages))
        return msgspec.structs.replace(self, payload=payload, steps=steps, lazy=False)


def classify(headers: Mapping[str, str], body: bytes) -> Invocation:
    """What this request is. Header names are looked up in any letter case, also in a plain dict.

    Raises InvocationInvalid with the official texts when the protocol is not followed.
    """
    get = h.any_case(headers).get
    if get(h.WORKFLOW_UNKNOWN_SDK):
        return _steps(
            get, body, Kind.UNKNOWN_SDK, "Couldn't get workflow id from header when handling unknown sdk request"
        )
    # Before the version: failure callbacks of runs that were started by REST carry one.
    if get(h.WORKFLOW_FAILURE_CALLBACK) or get(h.WORKFLOW_IS_FAILURE):
        return _failure(get, body)
    version = get(h.WORKFLOW_SDK_VERSION)
    if version and version != h.PROTOCOL_VERSION:
        raise InvocationInvalid(
            "Incompatible workflow sdk protocol version. "
            f"Expected {h.PROTOCOL_VERSION}, got {version} from the request."
        )
    if get(h.WORKFLOW_CALLBACK):
        return _call(get, body)
    if version:
        return _steps(get, body, Kind.STEPS, "Couldn't get workflow id from header")
    return _delivered(get, kind=Kind.FIRST, payload=body)


_Get = Callable[[str], str | None]


def _delivered(get: _Get, **fields: Any) -> Invocation:
    """An invocation with what the headers of any delivery say, and these fields."""
    return Invocation(
        message_id=get(h.MESSAGE_ID) or None,
        retried=_whole(get(h.RETRIED)) or 0,
        invoke_count=_whole(get(h.WORKFLOW_INVOKE_COUNT)) or 0,
        labels=_labels(get(h.LABEL)),
        **fields,
    )


def _steps(get: _Get, body: bytes, kind: Kind, without_run: str) -> Invocation:
    run_id = get(h.WORKFLOW_RUN_ID)
    if not run_id:
        raise InvocationInvalid(without_run)
    steps = None
    if body:
        try:
            messages = decode_messages(body)
        except MessageInvalid as error:
            raise InvocationInvalid(f"The delivery to run {run_id} cannot be read. {error}") from error
        if not messages:
            raise InvocationInvalid(f"The delivery to run {run_id} holds no message, not even the payload.")
        steps = RunSteps(messages[0].raw, messages)
    return _delivered(
        get,
        kind=kind,
        run_id=run_id,
        created_at=_whole(get(h.WORKFLOW_CREATED_AT)),
        payload=b"" if steps is None else steps.payload,
        steps=steps,
        lazy=steps is None,
    )


def _call(get: _Get, body: bytes) -> Invocation:
    run_id = get(h.WORKFLOW_RUN_ID)
    step_id, concurrent = get(h.WORKFLOW_STEP_ID), get(h.WORKFLOW_CONCURRENT)
    name, step_type, content_type = (
        get(h.WORKFLOW_STEP_NAME),
        get(h.WORKFLOW_STEP_TYPE),
        get(h.WORKFLOW_CONTENT_TYPE),
    )
    number, branches = _whole(step_id), _whole(concurrent)
    if not (run_id and name and step_type in _STEP_TYPES and content_type) or number is None or branches is None:
        found = {
            "workflowRunId": run_id,
            "stepIdString": step_id,
            "stepName": name,
            "stepType": step_type,
            "concurrentString": concurrent,
            "contentType": content_type,
        }
        raise InvocationInvalid(
            "Error when handling call return (isCallReturn=true): Error: "
            f"Missing info in callback message source header: {msgspec.json.encode(found).decode()}"
        )
    return _delivered(
        get,
        kind=Kind.CALL_CALLBACK,
        run_id=run_id,
        created_at=_whole(get(h.WORKFLOW_CREATED_AT)),
        call=CallReturn(
            step_id=number,
            step_name=h.utf8_value(name),
            step_type=step_type,
            concurrent=branches,
            content_type=content_type,
            body=_callback(body) if body else None,
        ),
        lazy=not body,
    )


def _failure(get: _Get, body: bytes) -> Invocation:
    run_id = get(h.WORKFLOW_RUN_ID)
    if not run_id:
        raise InvocationInvalid("Couldn't get workflow id from header when handling failure callback request")
    try:
        failure = decode_failure(body)
    except MessageInvalid as error:
        raise InvocationInvalid(f"The failure callback of run {run_id} cannot be read. {error}") from error
    return _delivered(
        get,
        kind=Kind.FAILURE_CALLBACK,
        run_id=run_id,
        created_at=_whole(get(h.WORKFLOW_CREATED_AT)) or failure.workflow_created_at or None,
        payload=failure.source_body,
        failure=failure,
    )


def _callback(body: bytes) -> CallbackBody:
    try:
        return decode_callback(body)
    except MessageInvalid as error:
        raise InvocationInvalid(f"The answer of a call cannot be read. {error}") from error


_STEP_TYPES = frozenset(StepType)


def _whole(text: str | None) -> int | None:
    """A header's whole number; None for anything else, since none of them is worth a failed delivery."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else None


def _labels(text: str | None) -> tuple[str, ...]:
    return tuple(label for part in text.split(",") if (label := part.strip())) if text else ()

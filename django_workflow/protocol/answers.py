"""An engine's answers to requests, as HTTP: status and JSON.

`encode_answer` and `encode_error` are the engine's side, `decode_answer` the client's. The requests are in `wire`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec

from django_workflow.errors import (
    EngineError,
    EngineUnavailable,
    MessageInvalid,
    QuotaExceeded,
    RequestRejected,
    RunEnded,
    WorkflowError,
)
from django_workflow.protocol import resources, run_calls
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import (
    Batch,
    CancelRun,
    CancelRuns,
    EngineRequest,
    FetchRun,
    FinishRun,
    GetWaiters,
    Notified,
    Notify,
    Publish,
    Published,
    Wait,
    WaiterInfo,
)
from django_workflow.protocol.schedules import (
    CreateSchedule,
    DeleteSchedule,
    FetchSchedule,
    ListSchedules,
    PauseSchedule,
    ResumeSchedule,
    ScheduleInfo,
)
from django_workflow.protocol.steps import JournalMessage, decode_messages, encode_messages

R = TypeVar("R")


# Value -> HTTP


def encode_answer(request: EngineRequest[R], answer: R) -> tuple[int, bytes]:
    """Status and body of the answer to `request`."""
    if isinstance(request, Publish):
        published = cast(Published, answer)
        return (202 if published.deduplicated else 200), msgspec.json.encode(published)
    if isinstance(request, FetchRun):
        return 200, encode_messages(cast("tuple[JournalMessage, ...]", answer))
    if isinstance(request, CancelRuns):
        return 200, msgspec.json.encode({"cancelled": answer})
    if isinstance(request, CreateSchedule):
        return 200, msgspec.json.encode({"scheduleId": answer})
    if answer is None:
        return 200, b"{}"
    return 200, msgspec.json.encode(answer)


def encode_error(error: WorkflowError, request: EngineRequest[Any] | None = None) -> tuple[int, bytes]:
    """Status and body that tell a client of an error. SDKs act on the status: see `decode_answer`."""
    if isinstance(error, RunEnded):
        status = 404 if isinstance(request, FetchRun) else error.status
    elif isinstance(error, EngineUnavailable):
        status = error.status or 503
    elif isinstance(error, EngineError):
        status = error.status or 500
    else:
        status = error.status_code if isinstance(error, RequestRejected) else 500
    return status, msgspec.json.encode({"error": str(error)})


# HTTP -> value


def decode_answer(request: EngineRequest[R], status: int, body: bytes) -> R:
    """The answer, or the error that its status means.

    RunEnded: 400 on what would be added to a run and on its end, 404 on what asks for one run. QuotaExceeded: 412.
    EngineError, with status and text: any other refusal, and an answer that cannot be read.
    """
    if not 200 <= status < 300:
        raise _refusal(request, status, body)
    decode = _ANSWERS[type(request)]
    try:
        return cast(R, decode(request, body))
    except (msgspec.DecodeError, MessageInvalid, UnicodeDecodeError, RecursionError) as error:
        raise EngineError(
            f"The engine answered {type(request).__name__} with {status} and what cannot be read: {error}.",
            status=status,
        ) from error


def _refusal(request: EngineRequest[Any], status: int, body: bytes) -> EngineError:
    text = _error_text(body)
    if status == 412:
        return QuotaExceeded(text or "A limit of the engine was reached.")
    run_id = _asked_run(request)
    if run_id is not None and status in ((404,) if isinstance(request, FetchRun | Notify) else (400, 404)):
        return RunEnded(text or f"Run {run_id} is over or unknown.", run_id=run_id, status=status)
    detail = f": {text}" if text else "."
    return EngineError(f"The engine refused {type(request).__name__} with status {status}{detail}", status=status)


def _asked_run(request: EngineRequest[Any]) -> str | None:
    """The run that a request adds to or asks for; a new run is none, so its refusal is no end."""
    if isinstance(request, FetchRun | FinishRun | CancelRun | Notify):
        return request.run_id
    messages: tuple[Message, ...] = ()
    if isinstance(request, Batch):
        messages = request.messages
    elif isinstance(request, Publish | Wait):
        messages = (request.message,)
    for message in messages:
        # An invoke starts a run too, but as a step of the one that waits for it.
        if message.workflow is not None and (not message.workflow.init or message.workflow.invoke):
            return message.workflow.run_id
    return None


def _error_text(body: bytes) -> str:
    try:
        read = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        read = None
    if isinstance(read, dict) and isinstance(read.get("error"), str):
        return cast(str, read["error"])
    return body[:2000].decode("utf-8", "replace").strip()


_published_decoder = msgspec.json.Decoder(Published | list[Published])
_batch_answer_decoder = msgspec.json.Decoder(Published | list[Published | list[Published]])
_notified_decoder = msgspec.json.Decoder(Notified | list[Notified])
_waiters_decoder = msgspec.json.Decoder(list[WaiterInfo])
_cancelled_decoder = msgspec.json.Decoder(dict[str, Any])
_created_decoder = msgspec.json.Decoder(dict[str, str])


def _published(answer: Published | list[Published]) -> Published:
    """A URL group is answered with one item per endpoint: the first stands for all."""
    if not isinstance(answer, list):
        return answer
    if not answer:
        raise MessageInvalid("the list of messages is empty", name="body")
    return answer[0]


def _publish_answer(request: Publish, body: bytes) -> Published:
    return _published(_published_decoder.decode(body))


def _batch_answer(request: Batch, body: bytes) -> tuple[Published, ...]:
    answer = _batch_answer_decoder.decode(body)
    items = tuple(map(_published, answer if isinstance(answer, list) else [answer]))
    if len(items) != len(request.messages):
        raise MessageInvalid(f"{len(items)} items for {len(request.messages)} messages", name="body")
    return items


def _notify_answer(request: Notify, body: bytes) -> tuple[Notified, ...]:
    answer = _notified_decoder.decode(body)  # documented as one object when the event is for one run
    return tuple(answer) if isinstance(answer, list) else (answer,)


def _fetch_answer(request: FetchRun, body: bytes) -> tuple[JournalMessage, ...]:
    messages = decode_messages(body)
    # A list of one is the payload alone, whose id is another when the run was started by REST.
    if request.message_id is None or len(messages) == 1:
        return tuple(messages)
    for index, message in enumerate(messages):
        if message.message_id == request.message_id:
            return tuple(messages[: index + 1])
    return ()


def _cancelled_answer(request: CancelRuns, body: bytes) -> int:
    count = _cancelled_decoder.decode(body).get("cancelled")
    if not isinstance(count, int):
        raise MessageInvalid('"cancelled" is missing', name="body")
    return count


def _created_schedule(request: CreateSchedule, body: bytes) -> str:
    return _created_decoder.decode(body)["scheduleId"]


def _nothing(request: EngineRequest[None], body: bytes) -> None:
    """The body is ignored, as SDKs do."""


_ANSWERS: dict[type[EngineRequest[Any]], Callable[[Any, bytes], Any]] = {
    Publish: _publish_answer,
    Batch: _batch_answer,
    Wait: _nothing,
    Notify: _notify_answer,
    GetWaiters: lambda request, body: tuple(_waiters_decoder.decode(body)),
    FetchRun: _fetch_answer,
    FinishRun: _nothing,
    CancelRun: _nothing,
    CancelRuns: _cancelled_answer,
    CreateSchedule: _created_schedule,
    ListSchedules: lambda request, body: tuple(resources.decode_resource(body, list[ScheduleInfo])),
    FetchSchedule: run_calls.resource_answer(ScheduleInfo),
    DeleteSchedule: _nothing,
    PauseSchedule: _nothing,
    ResumeSchedule: _nothing,
    **run_calls.ANSWERS,
}

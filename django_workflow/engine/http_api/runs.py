"""Runs and their events: fetched, finished and cancelled; waited for, notified, called by webhooks."""

from __future__ import annotations

from typing import cast

import msgspec

from django_workflow.conf import get_settings
from django_workflow.engine.hooks import receive
from django_workflow.engine.http_api.request import MESSAGE_HEADERS, ApiRequest, ApiResponse, Route
from django_workflow.engine.transport import EngineTransport, register_wait
from django_workflow.engine.writing import write
from django_workflow.errors import RunEnded
from django_workflow.protocol import headers as h
from django_workflow.protocol.answers import encode_answer
from django_workflow.protocol.headers import header_lists
from django_workflow.protocol.identifiers import message_id_of
from django_workflow.protocol.requests import Notified, Wait, WaiterInfo
from django_workflow.protocol.waits import WaitBody, WebhookEvent
from django_workflow.protocol.wire import decode_request


def ask(request: ApiRequest, **pieces: str) -> ApiResponse:
    """A call that is one of the engine's requests: decoded, answered in this process, encoded."""
    asked = decode_request(request.method, request.target, request.headers, request.body)
    return ApiResponse(*encode_answer(asked, EngineTransport().send(asked)))


def ask_one(request: ApiRequest, run_id: str) -> ApiResponse:
    """The same of one run: 404 when it is unknown, or over where only a living one will do."""
    try:
        return ask(request)
    except RunEnded as error:
        raise RunEnded(str(error), run_id=run_id, status=404) from error


def wait(request: ApiRequest, event_id: str) -> Waiting:
    asked = cast(Wait, decode_request(request.method, request.target, request.headers, request.body))
    key = write(get_settings().database, lambda unit: register_wait(unit, asked))
    return Waiting(message_id=message_id_of(key) if key else None)


def hook(request: ApiRequest, user_id: str, run_id: str, event_id: str) -> Notified:
    """Any request becomes the event of its webhook."""
    scheme, _, rest = request.base.partition("://")
    host, _, mount = rest.partition("/")
    event = WebhookEvent(
        method=request.method,
        header=header_lists(request.headers),
        body=request.body,
        proto=scheme,
        host=host,
        url=f"/{mount}{request.target}" if mount else request.target,
    )
    return receive(run_id, event_id, event)


class Waiting(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A wait was registered; without an id it was before."""

    message_id: str | None = None


class RunMessage(msgspec.Struct, frozen=True, rename="camel"):
    """One message of a run's journal, the payload first; `body` is base64."""

    message_id: str
    body: str
    call_type: str


class Cancelled(msgspec.Struct, frozen=True):
    """How many there were."""

    cancelled: int


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/v2/workflows/runs/{run_id}",
        ask_one,
        "The messages of a run that is not over; up to one of them, when that is named.",
        headers=(h.MESSAGE_ID,),
        answer=list[RunMessage],
    ),
    Route(
        "DELETE",
        "/v2/workflows/runs/{run_id}",
        ask_one,
        "End a run: with its result (cancel=false, the body is the result), or cancel it. Twice is well.",
        query=("cancel",),
    ),
    Route(
        "DELETE",
        "/v2/workflows/runs",
        ask,
        "Cancel runs by their ids or by filters, in the query or as a JSON body; without any, all runs.",
        query=(
            "workflowRunIds",
            "workflowUrl",
            "workflowUrlExactMatch",
            "label",
            "fromDate",
            "toDate",
            "callerIp",
            "flowControlKey",
            "count",
        ),
        answer=Cancelled,
    ),
    Route(
        "POST",
        "/v2/wait/{event_id...}",
        wait,
        "Let a run wait for an event.",
        headers=(h.WORKFLOW_RUN_ID, *MESSAGE_HEADERS),
        body=WaitBody,
        answer=Waiting,
    ),
    Route(
        "POST",
        "/v2/notify/{event_id...}",
        ask,
        "Send an event to whoever waits for it, or (/v2/notify/{run id}/{event id}) to one run, which keeps it.",
        headers=(h.DEDUPLICATION_ID,),
        answer=list[Notified],
    ),
    Route("GET", "/v2/waiters/{event_id...}", ask, "Who waits for an event.", answer=list[WaiterInfo]),
    Route(
        "*",
        "/v2/workflows/hooks/{user_id}/{run_id}/{event_id}",
        hook,
        "The address of a webhook: each call of it is an event for its run.",
        answer=Notified,
        public=True,
    ),
)

"""Failed runs: listed, resumed, restarted, deleted, one or many; and their failure callbacks."""

from __future__ import annotations

from django_workflow.engine.failed_runs import unknown
from django_workflow.engine.http_api.request import ApiRequest, Route
from django_workflow.engine.http_api.runs import ask
from django_workflow.engine.transport import EngineTransport
from django_workflow.protocol.queries import DEAD_LETTER_ACTIONS, DEAD_LETTERS
from django_workflow.protocol.requests import DeleteDeadLetters, RestartRuns, ResumeRuns
from django_workflow.protocol.resources import Deleted, RunDeadLetter, RunDeadLetters, StartedRun, StartedRuns
from django_workflow.protocol.run_calls import OVERRIDES
from django_workflow.protocol.wire import decode_request


def start_one(request: ApiRequest, dlq_id: str) -> StartedRun:
    """Resume or restart one failed run, whichever the path says."""
    asked = decode_request(request.method, request.target, request.headers, request.body)
    assert isinstance(asked, ResumeRuns | RestartRuns)
    return EngineTransport().send(asked).workflow_runs[0]


def delete_one(request: ApiRequest, dlq_id: str) -> Deleted:
    deleted = EngineTransport().send(DeleteDeadLetters(dlq_ids=(dlq_id,)))
    if not deleted.deleted:
        raise unknown((dlq_id,))
    return deleted


_LIST = tuple(parameter.name for parameter in DEAD_LETTERS)
_ACTIONS = tuple(parameter.name for parameter in DEAD_LETTER_ACTIONS)
_ONE = "/v2/workflows/dlq/{dlq_id}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/workflows/dlq", ask, "Failed runs, the newest first.", query=_LIST, answer=RunDeadLetters),
    Route(
        "GET",
        "/v2/dlq",
        ask,
        "The same, as the official client asks for them.",
        query=("source", *_LIST),
        answer=RunDeadLetters,
        given=("source", "workflow"),
    ),
    Route(
        "DELETE",
        "/v2/workflows/dlq",
        ask,
        "Forget failed runs' dead letters: those named, those that fit, or all.",
        query=_ACTIONS,
        answer=Deleted,
    ),
    Route(
        "POST",
        "/v2/workflows/dlq/resume",
        ask,
        "Go on with failed runs where they failed, at most 50.",
        query=_ACTIONS,
        headers=OVERRIDES,
        answer=StartedRuns,
    ),
    Route(
        "POST",
        "/v2/workflows/dlq/restart",
        ask,
        "Begin failed runs anew, at most 50.",
        query=_ACTIONS,
        headers=OVERRIDES,
        answer=StartedRuns,
    ),
    Route(
        "POST",
        "/v2/workflows/dlq/resume/{dlq_id}",
        start_one,
        "Go on with a failed run where it failed.",
        headers=OVERRIDES,
        answer=StartedRun,
    ),
    Route(
        "POST",
        "/v2/workflows/dlq/restart/{dlq_id}",
        start_one,
        "Begin a failed run anew.",
        headers=OVERRIDES,
        answer=StartedRun,
    ),
    Route(
        "POST",
        "/v2/workflows/dlq/callback/{dlq_id}",
        ask,
        "Make the failure callback of a failed run again, which must have failed.",
        answer=StartedRun,
    ),
    Route(
        "DELETE",
        "/v2/workflows/dlq/callback/{dlq_id}",
        ask,
        "Stop a failure callback that is in progress.",
    ),
    Route("GET", _ONE, ask, "One failed run.", answer=RunDeadLetter),
    Route("DELETE", _ONE, delete_one, "Forget the dead letter of a failed run.", answer=Deleted),
)

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from django_workflow.errors import EngineError
from django_workflow.protocol.answers import decode_answer, encode_answer
from django_workflow.protocol.requests import (
    CancelFailureCallback,
    DeleteDeadLetters,
    EngineRequest,
    FetchDeadLetter,
    FetchDeadLetters,
    FetchRunEvents,
    FetchRunLogs,
    RerunFailureCallback,
    RestartRuns,
    ResumeRuns,
)
from django_workflow.protocol.resources import (
    Deleted,
    FailureCallbackInfo,
    FailureFunctionLog,
    InvokerLog,
    RunDeadLetter,
    RunDeadLetters,
    RunEvent,
    RunEvents,
    RunLog,
    RunLogs,
    StartedRun,
    StartedRuns,
    StepError,
    StepGroup,
    StepLog,
)

FAILED = StepLog(message_id="msg_1", state="STEP_FAILED", errors=(StepError(error="no", status=500, time=1),))
RUN = RunLog(
    workflow_run_id="wfr_1",
    workflow_url="https://h/",
    workflow_state="RUN_FAILED",
    workflow_run_created_at=1,
    invoker=InvokerLog(workflow_run_id="wfr_0", workflow_url="https://h/0", workflow_run_created_at=0),
    failure_function=FailureFunctionLog(message_id="msg_2", state="CALLBACK_FAIL", response_status=500),
    labels=("a", "b"),
    steps=(StepGroup(type="next", steps=(FAILED,)),),
)
LETTER = RunDeadLetter(
    dlq_id="d", workflow_run_id="wfr_1", failure_callback_info=FailureCallbackInfo(state="CALLBACK_FAIL")
)
EVENT = RunEvent(time=1, state="RUN_FAILED", workflow_run_id="wfr_1", step_info=FAILED)
STARTED = StartedRun(workflow_run_id="wfr_2", workflow_created_at=2)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (FetchRunLogs(), RunLogs(cursor="c", runs=(RUN,))),
        (FetchRunEvents(), RunEvents(events=(EVENT,))),
        (FetchDeadLetters(), RunDeadLetters(messages=(LETTER,))),
        (FetchDeadLetter(dlq_id="d"), LETTER),
        (DeleteDeadLetters(), Deleted(deleted=3)),
        (ResumeRuns(), StartedRuns(cursor="c", workflow_runs=(STARTED,))),
        (RestartRuns(), StartedRuns(workflow_runs=())),
        (RerunFailureCallback(dlq_id="d"), STARTED),
        (CancelFailureCallback(dlq_id="d"), None),
    ],
)
def test_every_answer_round_trips(request_: EngineRequest[Any], answer: Any) -> None:
    assert decode_answer(request_, *encode_answer(request_, answer)) == answer


def test_what_clients_read_by_key_is_always_there() -> None:
    written = json.loads(msgspec.json.encode(LETTER))
    for name in ("responseStatus", "maxRetries", "notBefore", "createdAt", "method", "callerIP", "header", "body"):
        assert name in written
    assert "bodyBase64" not in written
    assert json.loads(msgspec.json.encode(FAILED)) == {
        "messageId": "msg_1",
        "state": "STEP_FAILED",
        "retries": 0,
        "errors": [{"error": "no", "body": "", "headers": {}, "status": 500, "time": 1}],
    }


def test_the_last_page_has_no_cursor() -> None:
    assert encode_answer(FetchRunLogs(), RunLogs(runs=())) == (200, b'{"runs":[]}')
    assert decode_answer(FetchRunLogs(), 200, b'{"cursor":"","runs":[]}') == RunLogs(runs=())


def test_small_differences_of_other_engines_are_understood() -> None:
    body = {
        "runs": [
            {
                "workflowRunId": "wfr_1",
                "workflowState": "RUN_STARTED",
                "workflowRunCreatedAt": "17",
                "label": None,
                "steps": [
                    {
                        "type": "sequential",
                        "steps": [{"state": "STEP_SUCCESS", "out": {"a": 1}, "headers": {"X": "1"}, "colour": "red"}],
                    }
                ],
            }
        ]
    }
    (run,) = decode_answer(FetchRunLogs(), 200, json.dumps(body).encode()).runs
    assert run.workflow_run_created_at == 17
    (step,) = run.steps[0].steps
    assert (step.out, step.headers) == ('{"a":1}', {"X": ["1"]})


def test_a_rerun_may_be_answered_with_a_list_of_one() -> None:
    request = RerunFailureCallback(dlq_id="d")
    body = b'{"cursor":"","workflowRuns":[{"workflowRunId":"wfr_2","workflowCreatedAt":2}]}'
    assert decode_answer(request, 200, body) == STARTED
    with pytest.raises(EngineError, match="cannot be read"):
        decode_answer(request, 200, b'{"workflowRuns":[]}')

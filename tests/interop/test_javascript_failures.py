"""What fails, with the JavaScript SDK: retries, errors of its own, failure functions, the dead letter queue."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.conftest import Records, Trigger
from tests.interop.destination import Answer, Box, decoded
from tests.interop.engine import Engine
from tests.interop.processes import Client, ClientError


def log_of(js: Client, run_id: str) -> dict[str, Any]:
    (run,) = js("return (await workflow.logs({ filter: { workflowRunId } })).runs", workflowRunId=run_id)
    return dict(run)


def dead_letter_of(js: Client, run_id: str) -> dict[str, Any]:
    (letter,) = js("return (await workflow.dlq.list({ filter: { workflowRunId } })).messages", workflowRunId=run_id)
    return dict(letter)


def wait_for_callback(js: Client, run_id: str, state: str) -> dict[str, Any]:
    """The run's log once its failure function has the state."""
    log: dict[str, Any] = js(
        """
        for (let asked = 0; asked < 500; asked++) {
          const [run] = (await workflow.logs({ filter: { workflowRunId } })).runs;
          if (run?.failureFunction?.state === state) return run;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        throw new Error(`no ${state}`);
        """,
        workflowRunId=run_id,
        state=state,
    )
    return log


def test_a_step_is_tried_again_until_it_succeeds(engine: Engine, trigger: Trigger, js: Client) -> None:
    run_id = trigger("failures", {"times": 2}, retries=3, retryDelay="10 * (1 + retried)")
    run = engine.wait(run_id, "success")
    assert run.result == {"retried": 2}
    assert run.told("name", "status", "attempts") == [("read payload", "success", 1), ("may fail", "success", 3)]
    assert js("return (await workflow.dlq.list({ filter: { workflowRunId } })).messages", workflowRunId=run_id) == []


def test_a_run_fails_after_the_last_attempt(
    engine: Engine, trigger: Trigger, js: Client, records: Records, express: str
) -> None:
    payload = {"data": "grüße"}
    run_id = trigger("failures", payload, retries=1, retryDelay="10", label="of-failure")
    run = engine.wait(run_id, "failed")
    assert run.told("name", "status", "attempts") == [("read payload", "success", 1), ("may fail", "failed", 2)]
    assert "failed at 1" in run.run["error"]
    assert run.run["error_step"] == "may fail"

    log = wait_for_callback(js, run_id, "CALLBACK_SUCCESS")
    assert log["workflowState"] == "RUN_FAILED"
    assert log["failureFunction"]["url"] == f"{express}/failures"
    assert log["failureFunction"]["failStatus"] == 500
    assert "failed at 1" in log["failureFunction"]["failResponse"]
    assert "took note of failed at 1" in log["failureFunction"]["responseBody"]
    assert records(run_id) == [
        {
            "failStatus": 500,
            "failResponse": "failed at 1",
            "payload": payload,
            "url": f"{express}/failures",
            "step": ["may fail"],
        }
    ]

    letter = dead_letter_of(js, run_id)
    assert letter["dlqId"] == log["dlqId"] == log["failureFunction"]["dlqId"]
    assert (letter["workflowUrl"], letter["responseStatus"], letter["label"]) == (
        f"{express}/failures",
        500,
        "of-failure",
    )
    assert "failed at 1" in letter["responseBody"]
    assert letter["failureCallbackInfo"]["state"] == "CALLBACK_SUCCESS"


def test_a_branch_is_tried_again_by_itself(engine: Engine, trigger: Trigger, records: Records) -> None:
    run_id = trigger("branches", {"times": 1}, retries=2, retryDelay="10")
    run = engine.wait(run_id, "success")
    assert run.result == [1, 2]
    assert records(run_id) == ["steady ran"]
    assert run.told("name", "status", "attempts", "concurrent") == [
        ("read payload", "success", 1, 1),
        ("steady", "success", 1, 2),
        ("flaky", "success", 2, 2),
        ("after", "success", 1, 1),
    ]


def test_an_error_that_no_retry_cures_fails_at_once(
    engine: Engine, trigger: Trigger, js: Client, records: Records
) -> None:
    run_id = trigger("failures", {"kind": "nonretryable"}, retries=3, retryDelay="10")
    run = engine.wait(run_id, "failed")
    assert run.run["error"].endswith("never again")
    # Of such an error the SDK does not tell the step.
    assert run.told("name", "status", "attempts") == [("read payload", "success", 1)]
    wait_for_callback(js, run_id, "CALLBACK_SUCCESS")
    assert [(told["failStatus"], told["failResponse"]) for told in records(run_id)] == [(489, "never again")]


@pytest.mark.parametrize("delay", [1, "1s"])
def test_a_step_says_when_to_try_again(engine: Engine, trigger: Trigger, delay: int | str) -> None:
    # Were it the delay of the trigger, the run would not end in time.
    run_id = trigger("failures", {"kind": "later", "times": 1, "delay": delay}, retries=1, retryDelay="3600000")
    run = engine.wait(run_id, "success")
    assert run.result == {"retried": 1}
    assert run.run["duration_seconds"] >= 1


def test_a_failure_without_a_function_is_nobodys_callback(engine: Engine, trigger: Trigger, js: Client) -> None:
    run_id = trigger("unguarded", retries=0)
    engine.wait(run_id, "failed")
    log = js(
        """
        for (let asked = 0; asked < 500; asked++) {
          const [run] = (await workflow.logs({ filter: { workflowRunId } })).runs;
          if (run.failureFunction?.state !== "CALLBACK_INPROGRESS") return run;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        throw new Error("still in progress");
        """,
        workflowRunId=run_id,
    )
    assert log["workflowState"] == "RUN_FAILED"
    assert "failureFunction" not in log
    assert [group["type"] for group in log["steps"]] == ["sequential", "next"]
    (pending,) = log["steps"][1]["steps"]
    assert (pending["state"], pending["errors"][0]["status"]) == ("STEP_FAILED", 500)
    assert "nobody looks at this" in pending["errors"][0]["body"]


def test_a_failure_is_told_to_another_url(engine: Engine, trigger: Trigger, js: Client, box: Box, express: str) -> None:
    payload = {"data": "grüße ☃"}
    run_id = trigger("failures", payload, retries=0, failureUrl=box.url, headers={"X-Mine": "yes"})
    engine.wait(run_id, "failed")
    told = box.one()
    assert (told.method, told.headers["x-mine"]) == ("POST", "yes")
    assert js("return receiver.verify({ signature, body })", signature=told.signature, body=told.text) is True
    body = told.json
    assert (body["status"], body["workflowRunId"], body["url"]) == (500, run_id, f"{express}/failures")
    assert decoded(body["sourceBody"]) == payload
    assert decoded(body["body"])["message"] == "failed at 0"
    assert body["dlqId"] == dead_letter_of(js, run_id)["dlqId"]


def test_a_failure_function_that_failed_is_called_again_on_request(
    engine: Engine, trigger: Trigger, js: Client, records: Records
) -> None:
    run_id = trigger("failures", {"failAgain": 3}, retries=1, retryDelay="10")
    engine.wait(run_id, "failed")
    log = wait_for_callback(js, run_id, "CALLBACK_FAIL")
    assert len(records(run_id)) == 2
    letter = dead_letter_of(js, run_id)
    assert letter["failureCallbackInfo"]["state"] == "CALLBACK_FAIL"
    assert letter["failureCallbackInfo"]["responseStatus"] == 500

    answer = js("return await workflow.dlq.retryFailureFunction({ dlqId })", dlqId=log["dlqId"])
    assert answer["workflowRunId"] == run_id
    wait_for_callback(js, run_id, "CALLBACK_SUCCESS")
    assert len(records(run_id)) == 3
    with pytest.raises(ClientError) as refused:
        js("return await workflow.dlq.retryFailureFunction({ dlqId })", dlqId=log["dlqId"])
    assert refused.value.status == 400


def test_more_retries_than_the_engine_has_are_refused(trigger: Trigger) -> None:
    with pytest.raises(ClientError) as refused:
        trigger("nothing", retries=1_000_000)
    assert refused.value.status == 412


def test_a_destination_that_is_no_workflow_is_told_at_once(
    engine: Engine, trigger: Trigger, box: Box, js: Client
) -> None:
    box.answers(Answer(200, b'{"hello":"world"}'))
    run_id = trigger("nothing", url=box.url, retries=3)
    run = engine.wait(run_id, "failed")
    text = "detected a non-workflow destination for trigger/invoke"
    assert text in run.run["error"]
    (pending,) = log_of(js, run_id)["steps"][-1]["steps"]
    assert text in pending["errors"][0]["error"]


def test_a_workflow_that_does_not_exist_fails_as_its_server_says(
    engine: Engine, trigger: Trigger, js: Client, express: str
) -> None:
    run_id = trigger("nowhere", url=f"{express}-nowhere", retries=1, retryDelay="10")
    engine.wait(run_id, "failed")
    assert dead_letter_of(js, run_id)["responseStatus"] == 404


# The dead letter queue


def test_a_resumed_run_goes_on_where_it_failed(engine: Engine, trigger: Trigger, js: Client) -> None:
    # The third attempt succeeds, which is the second of the resumed run: its `retried` begins at 0 again.
    run_id = trigger("failures", {"times": 1}, retries=0, label="resumed")
    engine.wait(run_id, "failed")
    letter = dead_letter_of(js, run_id)
    answer = js("return await workflow.dlq.resume(dlqId, { retries: 1 })", dlqId=letter["dlqId"])
    (made,) = answer["workflowRuns"]
    assert made["workflowRunId"] != run_id
    run = engine.wait(made["workflowRunId"], "success")
    assert run.result == {"retried": 1}
    assert run.run["labels"] == ["resumed"]
    assert run.run["resumed_from"] == run_id
    log = log_of(js, made["workflowRunId"])
    assert log["workflowRunCreatedAt"] == made["workflowCreatedAt"]
    assert js("return (await workflow.dlq.list({ filter: { workflowRunId } })).messages", workflowRunId=run_id) == []


def test_a_run_that_failed_in_a_branch_keeps_the_other_branches(
    engine: Engine, trigger: Trigger, js: Client, records: Records, unique: str
) -> None:
    # The branch does not fail before the engine has the other one's result.
    run_id = trigger("branches", {"times": 1, "patient": f"wfr_{unique}"}, workflowRunId=unique, retries=0)
    engine.wait(run_id, "failed")
    letter = dead_letter_of(js, run_id)
    answer = js("return await workflow.dlq.resume(dlqId, { retries: 1 })", dlqId=letter["dlqId"])
    resumed = answer["workflowRuns"][0]["workflowRunId"]
    assert engine.wait(resumed, "success").result == [1, 2]
    assert (records(run_id), records(resumed)) == (["steady ran"], [])


def test_a_restarted_run_begins_anew(engine: Engine, trigger: Trigger, js: Client) -> None:
    run_id = trigger("failures", {"times": 1, "data": [1]}, retries=0)
    engine.wait(run_id, "failed")
    letter = dead_letter_of(js, run_id)
    made = js("return await workflow.dlq.restart({ dlqId, retries: 2 })", dlqId=letter["dlqId"])
    run = engine.wait(made["workflowRunId"], "success")
    assert run.result == {"retried": 1, "data": [1]}
    assert run.told("name", "attempts") == [("read payload", 1), ("may fail", 2)]


def test_dead_letters_are_found_and_deleted_by_a_filter(
    engine: Engine, trigger: Trigger, js: Client, unique: str
) -> None:
    run_ids = [trigger("unguarded", retries=0, label=unique) for _ in range(3)]
    for run_id in run_ids:
        engine.wait(run_id, "failed")
    found = js(
        """
        const filter = { label };
        const first = await workflow.dlq.list({ filter, count: 2 });
        const rest = await workflow.dlq.list({ filter, count: 2, cursor: first.cursor });
        const deleted = await workflow.dlq.delete(first.messages[0].dlqId);
        const both = await workflow.dlq.delete({ filter });
        return { first, rest, deleted, both, left: await workflow.dlq.list({ filter }) };
        """,
        label=unique,
    )
    pages = found["first"]["messages"] + found["rest"]["messages"]
    assert sorted(letter["workflowRunId"] for letter in pages) == sorted(run_ids)
    assert "cursor" not in found["rest"]
    assert (found["deleted"]["deleted"], found["both"]["deleted"]) == (1, 2)
    assert found["left"]["messages"] == []


def test_many_dead_letters_are_resumed_and_restarted_at_once(
    engine: Engine, trigger: Trigger, js: Client, unique: str
) -> None:
    for _ in range(2):
        engine.wait(trigger("failures", {"times": 1}, retries=0, label=unique), "failed")
    resumed = js("return await workflow.dlq.resume({ filter: { label } }, { retries: 0 })", label=unique)
    assert len(resumed["workflowRuns"]) == 2
    # Each has no retry again, so each fails again.
    for made in resumed["workflowRuns"]:
        engine.wait(made["workflowRunId"], "failed")
    restarted = js(
        """
        const { messages } = await workflow.dlq.list({ filter: { label } });
        return await workflow.dlq.restart(messages.map((message) => message.dlqId), { retries: 1 });
        """,
        label=unique,
    )
    assert len(restarted["workflowRuns"]) == 2
    for made in restarted["workflowRuns"]:
        assert engine.wait(made["workflowRunId"], "success").result == {"retried": 1}


def test_a_dead_letter_that_is_gone_cannot_be_resumed(js: Client) -> None:
    with pytest.raises(ClientError) as refused:
        js("return await workflow.dlq.resume('1700000000000-0')")
    assert refused.value.status == 404

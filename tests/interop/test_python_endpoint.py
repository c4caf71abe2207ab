"""Whole runs of workflows that the Python SDK serves by FastAPI.

That SDK has no client for workflows: a run starts by a message to its URL, or by the client of another language.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.interop.destination import Answer, Box
from tests.interop.engine import Engine, RunRows
from tests.interop.processes import Client
from tests.interop.test_javascript_failures import dead_letter_of, wait_for_callback

Start = Callable[..., str]


@pytest.fixture
def start(py: Client, fastapi: str) -> Start:
    """Starts a workflow by a message of the official Python client, and gives the id that the endpoint answered."""

    def start(name: str, body: Any, **options: Any) -> str:
        run_id: str = py(
            """
            import base64, json, time
            from qstash.log import LogState

            published = qstash.message.publish_json(url=url, body=body, **options)
            delivered = {"message_id": published.message_id, "state": LogState.DELIVERED}
            for _ in range(500):
                for log in qstash.log.list(filter=delivered).logs:
                    return json.loads(base64.b64decode(log.response_body))["workflowRunId"]
                time.sleep(0.02)
            raise TimeoutError(f"{published.message_id} is not delivered")
            """,
            url=f"{fastapi}/{name}",
            body=body,
            options=options,
        )
        return run_id

    return start


def last_step(run: RunRows) -> Any:
    """What the last step gave back: the SDK loses the result of the run itself."""
    return run.steps[-1]["result"]


def test_steps_give_back_what_they_returned(engine: Engine, start: Start, fastapi: str) -> None:
    run = engine.wait(start("results", {"word": "Straße ☃"}, headers={"X-Mine": "yes"}), "success")
    assert last_step(run) == {
        "object": {"n": 1, "text": "grüße ☃"},
        "text": "plain",
        "nothing": None,
        "number": 4.5,
        "payload": {"word": "Straße ☃"},
        "mine": "yes",
    }
    assert run.told("name", "step_type", "status", "attempts") == [
        (name, "Run", "success", 1) for name in ("object", "text", "nothing", "number", "last")
    ]
    assert (run.result, run.run["payload"], run.run["url"]) == (None, {"word": "Straße ☃"}, f"{fastapi}/results")


def test_a_client_of_another_language_starts_a_run(engine: Engine, js: Client, fastapi: str) -> None:
    run_id = js(
        "return (await workflow.trigger({ url, body, headers, label })).workflowRunId",
        url=f"{fastapi}/results",
        body={"from": "JavaScript"},
        headers={"X-Mine": "from JavaScript"},
        label="polyglot",
    )
    run = engine.wait(run_id, "success")
    assert last_step(run)["payload"] == {"from": "JavaScript"}
    assert last_step(run)["mine"] == "from JavaScript"
    assert run.run["labels"] == ["polyglot"]


def test_a_large_history_is_sent(engine: Engine, js: Client, fastapi: str) -> None:
    """This SDK says that it fetches what is not sent, and does not; nor is it the one that started the run."""
    run_id = js("return (await workflow.trigger({ url, body: {} })).workflowRunId", url=f"{fastapi}/large")
    assert last_step(engine.wait(run_id, "success")) == 4_194_304


def test_sleeps_take_their_time(engine: Engine, start: Start) -> None:
    run = engine.wait(start("sleeps", {}), "success")
    told = last_step(run)
    assert 2 <= told["slept"] < 20
    assert 0 <= told["until"] < 20
    assert run.told("name", "step_type", "status")[1:5] == [
        ("a number", "SleepFor", "success"),
        ("a duration", "SleepFor", "success"),
        ("after sleeps", "Run", "success"),
        ("an instant", "SleepUntil", "success"),
    ]


def test_calls_give_back_what_was_answered(engine: Engine, start: Start, box: Box, py: Client) -> None:
    text, flaky, hopeless = box.beside("text"), box.beside("flaky"), box.beside("hopeless")
    box.answers(Answer(201, '{"word":"grüße"}'.encode()))
    text.answers(Answer(200, "viele Grüße ☃".encode(), {"Content-Type": "text/plain"}))
    flaky.answers(Answer(503), Answer(200, b"at last"))
    hopeless.answers(Answer(500, b"never"))
    settings = {
        "json": {"url": box.url, "method": "POST", "body": {"n": "ü"}, "headers": {"X-Mine": "yes"}, "timeout": 30},
        "text": {"url": text.url},
        "flaky": {"url": flaky.url, "retries": 1},
        "hopeless": {"url": hopeless.url, "method": "POST", "retries": 1},
    }
    run = engine.wait(start("calls", settings), "success")
    assert last_step(run) == {
        "json": {"status": 201, "body": {"word": "grüße"}},
        "text": {"status": 200, "body": "viele Grüße ☃"},
        "flaky": {"status": 200, "body": "at last"},
        "hopeless": {"status": 500, "body": "never"},
    }
    assert [step["step_type"] for step in run.steps] == ["Run", "Call", "Call", "Call", "Call", "Run"]
    asked = box.one()
    assert (asked.json, asked.headers["x-mine"]) == ({"n": "ü"}, "yes")
    py("receiver.verify(signature=signature, body=body)", signature=asked.signature, body=asked.text)
    assert (len(flaky.received), len(hopeless.received)) == (2, 2)


def test_a_step_is_tried_again(engine: Engine, start: Start, unique: str) -> None:
    run = engine.wait(start("failures", {"key": unique, "times": 1}), "success")
    assert run.told("name", "status", "attempts") == [("before", "success", 1), ("may fail", "success", 2)]
    assert last_step(run) == 2


def test_a_run_fails_after_the_last_attempt(
    engine: Engine, start: Start, js: Client, fastapi: str, unique: str
) -> None:
    payload = {"key": unique, "times": 9}
    run_id = start("failures", payload)
    run = engine.wait(run_id, "failed")
    assert run.run["error"] == "ValueError: failed 2"
    # This SDK does not tell which step it was.
    assert run.told("name", "status", "attempts") == [("before", "success", 1)]
    log = wait_for_callback(js, run_id, "CALLBACK_SUCCESS")
    assert log["workflowState"] == "RUN_FAILED"
    assert dead_letter_of(js, run_id)["responseStatus"] == 500
    noted = httpx.get(f"{fastapi}/records/{run_id}", trust_env=False).json()
    assert noted == [{"status": 500, "response": "failed 2", "payload": payload, "url": f"{fastapi}/failures"}]


def test_a_failed_run_is_resumed(engine: Engine, start: Start, js: Client, unique: str) -> None:
    failed = start("failures", {"key": unique, "times": 2})
    engine.wait(failed, "failed")
    letter = dead_letter_of(js, failed)
    (made,) = js("return (await workflow.dlq.resume(dlqId)).workflowRuns", dlqId=letter["dlqId"])
    run = engine.wait(made["workflowRunId"], "success")
    assert run.told("name", "result") == [("before", 1), ("may fail", 3)]
    assert run.run["resumed_from"] == failed


def test_a_sleeping_run_is_cancelled(engine: Engine, start: Start, js: Client) -> None:
    run_id = start("waits", {})
    engine.wait(run_id, "sleeping")
    assert js("return await workflow.cancel(id)", id=run_id) == {"cancelled": 1}
    assert engine.wait(run_id, "canceled").told("name", "status") == [("before", "success"), ("for ever", "canceled")]


def test_an_endpoint_refuses_whoever_is_not_the_engine(fastapi: str) -> None:
    answer = httpx.post(f"{fastapi}/results", json={}, trust_env=False)
    assert answer.status_code == 500
    assert "Failed to verify that the Workflow request comes from QStash" in answer.text

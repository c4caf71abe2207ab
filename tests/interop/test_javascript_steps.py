"""Whole runs of workflows that the JavaScript SDK serves by Express, one for each kind of step."""

from __future__ import annotations

import threading

import httpx

from tests.interop.conftest import Records, Trigger, wait_for_waiter
from tests.interop.destination import Answer, Box
from tests.interop.engine import Engine
from tests.interop.processes import Client

TEXT = {"Content-Type": "text/plain; charset=utf-8"}


def test_steps_give_back_what_they_returned(engine: Engine, trigger: Trigger) -> None:
    run = engine.wait(trigger("results", {"payload": "Straße ☃"}), "success")
    object_ = {"n": 1, "text": "grüße ☃", "nested": [True, None]}
    assert run.result == {
        "object": object_,
        "text": "plain",
        "nothing": "undefined",
        "empty": None,
        "number": 4.5,
        "payload": {"payload": "Straße ☃"},
    }
    assert run.results == {"object": object_, "text": "plain", "nothing": None, "empty": None, "number": 4.5}
    assert run.told("step_type", "status", "attempts") == [("Run", "success", 1)] * 5
    assert run.run["payload"] == {"payload": "Straße ☃"}


def test_a_run_may_return_nothing_and_have_no_payload(engine: Engine, trigger: Trigger) -> None:
    run = engine.wait(trigger("nothing"), "success")
    assert (run.result, run.run["payload"]) == (None, None)
    assert run.told("name", "status") == [("one", "success")]


def test_sleeps_take_their_time(engine: Engine, trigger: Trigger) -> None:
    run = engine.wait(trigger("sleeps"), "success")
    assert 2_000 <= run.result["slept"] < 20_000
    # The SDK rounds instants to seconds.
    assert 0 <= run.result["until"] < 20_000
    assert run.told("name", "step_type", "status") == [
        ("begin", "Run", "success"),
        ("a number", "SleepFor", "success"),
        ("a duration", "SleepFor", "success"),
        ("after sleeps", "Run", "success"),
        ("a date", "SleepUntil", "success"),
        ("seconds", "SleepUntil", "success"),
        ("end", "Run", "success"),
    ]


def test_calls_give_back_what_was_answered(engine: Engine, trigger: Trigger, box: Box, js: Client) -> None:
    text, teapot = box.beside("text"), box.beside("teapot")
    box.answers(Answer(201, '{"word":"grüße"}'.encode()))
    text.answers(Answer(200, "viele Grüße ☃".encode(), TEXT))
    teapot.answers(Answer(418, b"short and stout", {**TEXT, "X-Pot": "tea"}))
    settings = {
        "json": {
            "url": f"{box.url}?a=1&b=x%2Fy",
            "method": "PUT",
            "body": '{"n": "ü"}',
            "headers": {"X-Mine": "yes", "Content-Type": "application/json"},
        },
        "text": {"url": text.url},
        "teapot": {"url": teapot.url, "method": "POST", "body": "x"},
    }
    run = engine.wait(trigger("calls", settings), "success")
    told = {name: (answer["status"], answer["body"]) for name, answer in run.result.items()}
    assert told == {
        "json": (201, {"word": "grüße"}),
        "text": (200, "viele Grüße ☃"),
        "teapot": (418, "short and stout"),
    }
    assert run.result["teapot"]["header"]["X-Pot"] == ["tea"]
    assert run.told("name", "step_type", "status") == [
        ("read payload", "Run", "success"),
        ("json", "Call", "success"),
        ("text", "Call", "success"),
        ("teapot", "Call", "success"),
    ]

    asked = box.one()
    assert (asked.method, asked.text) == ("PUT", '{"n": "ü"}')
    assert asked.path == f"{box.path}?a=1&b=x%2Fy"
    assert (asked.headers["x-mine"], asked.headers["content-type"]) == ("yes", "application/json")
    assert [name for name in asked.headers if name.startswith("upstash-workflow-sdk")] == []
    assert js("return receiver.verify({ signature, body })", signature=asked.signature, body=asked.text) is True
    assert (text.one().method, text.one().body) == ("GET", b"")


def test_a_call_is_retried_as_it_asks(engine: Engine, trigger: Trigger, box: Box) -> None:
    hopeless = box.beside("hopeless")
    box.answers(Answer(503), Answer(500), Answer(200, b'"at last"'))
    hopeless.answers(Answer(500, b'"never"'))
    settings = {
        "lucky": {"url": box.url, "retries": 3, "retryDelay": "10"},
        "hopeless": {"url": hopeless.url, "method": "POST", "retries": 1, "retryDelay": "10"},
    }
    run = engine.wait(trigger("calls", settings), "success")
    assert (run.result["lucky"]["status"], run.result["lucky"]["body"]) == (200, "at last")
    assert (run.result["hopeless"]["status"], run.result["hopeless"]["body"]) == (500, "never")
    assert [request.headers["upstash-retried"] for request in box.received] == ["0", "1", "2"]
    assert len(hopeless.received) == 2


def test_a_call_is_given_up_when_its_time_is_over(engine: Engine, trigger: Trigger, box: Box) -> None:
    later = threading.Event()
    box.answers(Answer(held_until=later))
    try:
        run = engine.wait(trigger("calls", {"slow": {"url": box.url, "timeout": 1}}), "success")
    finally:
        later.set()
    assert not 200 <= run.result["slow"]["status"] < 300
    assert len(box.received) == 1


def test_a_call_takes_its_turn_by_a_key_of_its_own(
    engine: Engine, trigger: Trigger, box: Box, js: Client, unique: str
) -> None:
    flow_control = {"key": unique, "rate": 10, "period": "1m"}
    run = engine.wait(trigger("calls", {"call": {"url": box.url, "flowControl": flow_control}}), "success")
    assert run.result["call"]["status"] == 200
    shown = js("return await qstash.flowControl.get(key)", key=unique)
    assert (shown["rateMax"], shown["ratePeriod"], shown["rateCount"]) == (10, 60, 1)


def test_logs_tell_what_was_called(engine: Engine, trigger: Trigger, box: Box, js: Client) -> None:
    box.answers(Answer(202, b'{"ok":true}'))
    settings = {"call": {"url": box.url, "method": "POST", "body": '{"n":1}', "headers": {"X-Mine": "yes"}}}
    run_id = trigger("calls", settings)
    engine.wait(run_id, "success")
    (log,) = js("return (await workflow.logs({ filter: { workflowRunId } })).runs", workflowRunId=run_id)
    step = log["steps"][-1]["steps"][0]
    expected = {
        "stepName": "call",
        "stepType": "Call",
        "callUrl": box.url,
        "callMethod": "POST",
        "callBody": '{"n":1}',
        "callResponseStatus": 202,
        "callResponseBody": '{"ok":true}',
    }
    assert {name: step.get(name) for name in expected} == expected
    assert step["callHeaders"]["X-Mine"] == ["yes"]
    assert step["callResponseHeaders"]["Content-Type"] == ["application/json"]


def test_a_call_that_nobody_answers_ends_with_a_result(engine: Engine, trigger: Trigger, unused_tcp_port: int) -> None:
    run = engine.wait(trigger("calls", {"lost": {"url": f"http://127.0.0.1:{unused_tcp_port}/"}}), "success")
    assert not 200 <= run.result["lost"]["status"] < 300


def test_a_workflow_sees_what_it_was_triggered_with(engine: Engine, trigger: Trigger, express: str) -> None:
    run_id = trigger("surroundings", {}, headers={"X-Mine": "yes"}, label=["first", "second"])
    run = engine.wait(run_id, "success")
    assert {name: run.result[name] for name in ("id", "url", "label", "labels", "retried", "mine", "agent")} == {
        "id": run_id,
        "url": f"{express}/surroundings",
        "label": "first",
        "labels": ["first", "second"],
        "retried": 0,
        # By the delivery after the step: the SDK does not repeat it, the engine does.
        "mine": "yes",
        "agent": "Upstash-QStash",
    }
    assert run.result["createdAt"] > 1_700_000_000_000
    assert run.result["messageId"].startswith("msg_")
    assert run.run["labels"] == ["first", "second"]
    assert run.run["url"] == f"{express}/surroundings"


def test_a_history_that_is_too_large_to_send_is_fetched(engine: Engine, trigger: Trigger, records: Records) -> None:
    run_id = trigger("large")
    run = engine.wait(run_id, "success")
    assert run.result == {"length": 2_621_440, "same": True}
    # By all calls but the first one, which had nothing but the payload.
    assert records(run_id) == ["fetched", "fetched"]


def test_a_run_cancels_itself(engine: Engine, trigger: Trigger, js: Client) -> None:
    run_id = trigger("cancels")
    run = engine.wait(run_id, "canceled")
    assert run.told("name", "status") == [("before", "success")]
    logs = js("return await workflow.logs({ filter: { workflowRunId } })", workflowRunId=run_id)
    assert logs["runs"][0]["workflowState"] == "RUN_CANCELED"
    assert js("return await workflow.dlq.list({ filter: { workflowRunId } })", workflowRunId=run_id)["messages"] == []


def test_parallel_steps_of_every_kind_are_joined(
    engine: Engine, trigger: Trigger, box: Box, js: Client, unique: str
) -> None:
    box.answers(Answer(200, b'{"called":true}'))
    payload = {"target": box.url, "event": unique, "neverEvent": f"{unique}-never"}
    run_id = trigger("parallel", payload)
    wait_for_waiter(js, unique)
    js("return await workflow.notify({ eventId, eventData: { tea: 1 } })", eventId=unique)
    run = engine.wait(run_id, "success")
    assert run.result == {
        "one": 1,
        "two": {"two": 2},
        "call": {"called": True},
        "happened": {"tea": 1},
        "missed": True,
        "after": "done",
    }
    assert run.told("name", "step_type", "status", "concurrent") == [
        ("read payload", "Run", "success", 1),
        ("before", "Run", "success", 1),
        ("one", "Run", "success", 7),
        ("two", "Run", "success", 7),
        ("call", "Call", "success", 7),
        ("happened", "Wait", "success", 7),
        ("missed", "Wait", "success", 7),
        ("sleep", "SleepFor", "success", 7),
        ("until", "SleepUntil", "success", 7),
        ("after", "Run", "success", 1),
    ]


def test_chains_of_steps_run_side_by_side(engine: Engine, trigger: Trigger) -> None:
    run = engine.wait(trigger("chains"), "success")
    assert run.result == ["a!", "b!"]
    assert run.told("name", "status") == [
        (name, "success") for name in ("a first", "b first", "a sleep", "b sleep", "a last", "b last")
    ]


def test_an_endpoint_refuses_whoever_is_not_the_engine(express: str) -> None:
    answer = httpx.post(f"{express}/nothing", json={}, trust_env=False)
    assert answer.status_code == 500
    assert "Failed to verify that the Workflow request comes from QStash" in answer.text

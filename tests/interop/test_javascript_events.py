"""Waiting and being told, with the JavaScript SDK: events, webhooks, other workflows."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.interop.conftest import Trigger, wait_for_waiter
from tests.interop.engine import Engine
from tests.interop.processes import Client

# Events


@pytest.mark.parametrize(
    ("data", "kind", "told"),
    [
        ({"word": "grüße ☃", "n": [1, None]}, "object", {"word": "grüße ☃", "n": [1, None]}),
        ("a text", "string", "a text"),
        (7, "number", 7),
    ],
)
def test_a_wait_gives_back_what_it_was_told(
    engine: Engine, trigger: Trigger, js: Client, unique: str, data: Any, kind: str, told: Any
) -> None:
    run_id = trigger("waits", {"event": unique, "timeout": "1h"})
    (waiter,) = wait_for_waiter(js, unique)
    assert waiter["url"].endswith("/workflows/waits")
    assert 3_500 < waiter["deadline"] - time.time() < 3_700
    assert waiter["headers"]["Upstash-Workflow-Runid"] == [run_id]

    (answer,) = js("return await workflow.notify({ eventId, eventData })", eventId=unique, eventData=data)
    assert answer["waiter"]["url"] == waiter["url"]
    assert answer["messageId"].startswith("msg_")
    run = engine.wait(run_id, "success")
    assert run.result == {"eventData": told, "timeout": False, "data": kind}
    assert run.told("name", "step_type", "status", "event_id")[-1] == ("wait", "Wait", "success", unique)
    assert js("return await workflow.getWaiters({ eventId })", eventId=unique) == []


def test_a_wait_may_be_told_nothing(engine: Engine, trigger: Trigger, js: Client, unique: str) -> None:
    run_id = trigger("waits", {"event": unique})
    wait_for_waiter(js, unique)
    js("return await workflow.notify({ eventId })", eventId=unique)
    assert engine.wait(run_id, "success").result == {"timeout": False, "data": "undefined"}


def test_a_wait_times_out(engine: Engine, trigger: Trigger, js: Client, unique: str) -> None:
    run = engine.wait(trigger("waits", {"event": unique, "timeout": 1}), "success")
    assert run.result == {"timeout": True, "data": "undefined"}
    assert js("return await workflow.notify({ eventId, eventData: 1 })", eventId=unique) == []


def test_everybody_who_waits_is_told(engine: Engine, trigger: Trigger, js: Client, unique: str) -> None:
    run_ids = [trigger("waits", {"event": unique}) for _ in range(2)]
    for run_id in run_ids:
        engine.wait(run_id, "waiting")
    told = js("return await workflow.notify({ eventId, eventData: 'all' })", eventId=unique)
    assert sorted(answer["workflowRunId"] for answer in told) == sorted(run_ids)
    assert [engine.wait(run_id, "success").result["eventData"] for run_id in run_ids] == ["all", "all"]


def test_one_run_is_told_before_it_waits(engine: Engine, trigger: Trigger, js: Client, unique: str) -> None:
    run_id = trigger("waits", {"event": unique}, delay=1)
    other = trigger("waits", {"event": unique, "timeout": 1}, delay=1)
    js(
        "return await workflow.notify({ eventId, eventData: 'early', workflowRunId })",
        eventId=unique,
        workflowRunId=run_id,
    )
    assert engine.wait(run_id, "success").result["eventData"] == "early"
    assert engine.wait(other, "success").result["timeout"] is True


def test_a_workflow_tells_another(engine: Engine, trigger: Trigger, js: Client, unique: str) -> None:
    waiting = trigger("waits", {"event": unique})
    wait_for_waiter(js, unique)
    telling = engine.wait(trigger("notifies", {"event": unique, "data": {"from": "a run"}}), "success")
    assert telling.result == {"eventId": unique, "eventData": {"from": "a run"}, "told": 1}
    assert telling.told("name", "step_type")[-1] == ("tell", "Notify")
    assert engine.wait(waiting, "success").result["eventData"] == {"from": "a run"}


def test_a_workflow_tells_a_run_that_does_not_wait_yet(engine: Engine, trigger: Trigger, unique: str) -> None:
    waiting = trigger("waits", {"event": unique}, delay=1)
    telling = engine.wait(trigger("notifies", {"event": unique, "data": "early", "runId": waiting}), "success")
    assert telling.result["eventData"] == "early"
    assert engine.wait(waiting, "success").result["eventData"] == "early"


# Webhooks


def webhook_of(engine: Engine, run_id: str, *statuses: str) -> str:
    """The URL that the run's first step made, once the run has a status."""
    return str(engine.wait(run_id, *statuses).results["make"]["webhookUrl"])


def call(url: str, method: str = "POST", **options: Any) -> None:
    assert httpx.request(method, url, trust_env=False, **options).status_code == 200


def test_a_webhook_answers_one_wait_after_the_other(engine: Engine, trigger: Trigger) -> None:
    run_id = trigger("webhooks", {})
    url = webhook_of(engine, run_id, "waiting")
    assert url.startswith(f"{engine.environment['QSTASH_URL']}/v2/workflows/hooks/")
    call(f"{url}?n=1", content="grüße ☃".encode(), headers={"X-Caller": "me", "Content-Type": "text/plain"})
    call(f"{url}?n=2", "GET")
    run = engine.wait(run_id, "success")
    assert run.result == [
        {"method": "POST", "url": f"{url}?n=1", "body": "grüße ☃", "header": "me"},
        {"method": "GET", "url": f"{url}?n=2", "body": "", "header": None},
    ]
    assert run.told("name", "step_type", "status")[1:] == [
        ("make", "CreateWebhook", "success"),
        ("first", "WaitForWebhook", "success"),
        ("second", "WaitForWebhook", "success"),
    ]


def test_a_webhook_keeps_what_comes_before_the_wait(engine: Engine, trigger: Trigger, js: Client, unique: str) -> None:
    run_id = trigger("webhooks", {"gate": unique})
    wait_for_waiter(js, unique)
    url = webhook_of(engine, run_id, "waiting")
    for body in ("one", "two"):
        call(url, content=body)
    js("return await workflow.notify({ eventId })", eventId=unique)
    assert [told["body"] for told in engine.wait(run_id, "success").result] == ["one", "two"]
    assert httpx.post(url, trust_env=False).status_code == 404


def test_a_wait_for_a_webhook_times_out(engine: Engine, trigger: Trigger) -> None:
    run = engine.wait(trigger("webhooks", {"timeout": "1s"}), "success")
    assert run.result == {"timeout": True}


# Other workflows


def invoked(engine: Engine, js: Client, run_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parent's log, once it is over, and the log of the run that its last step invoked."""
    engine.wait(run_id, "success")
    code = "return (await workflow.logs({ filter: { workflowRunId } })).runs[0]"
    parent = js(code, workflowRunId=run_id)
    step = parent["steps"][-1]["steps"][0]
    return parent, js(code, workflowRunId=step["invokedWorkflowRunId"])


def test_a_workflow_invokes_another(engine: Engine, trigger: Trigger, js: Client, express: str) -> None:
    run_id = trigger("parent", {"mode": "work", "value": {"deep": ["ü"]}, "label": "of-the-child"})
    parent, child = invoked(engine, js, run_id)
    run = engine.wait(run_id)
    assert run.result == {
        "body": {"value": {"deep": ["ü"]}, "header": "from the parent", "label": "of-the-child"},
        "isFailed": False,
        "isCanceled": False,
    }
    assert run.told("name", "step_type", "status")[-1] == ("child", "Invoke", "success")
    step = parent["steps"][-1]["steps"][0]
    assert (step["stepType"], step["invokedWorkflowUrl"]) == ("Invoke", f"{express}/child")
    assert child["workflowState"] == "RUN_SUCCESS"
    assert child["invoker"]["workflowRunId"] == run_id
    assert child["invoker"]["workflowRunCreatedAt"] == parent["workflowRunCreatedAt"]
    rows = engine.rows(child["workflowRunId"])
    assert (rows.run["parent"], rows.run["labels"]) == (run_id, ["of-the-child"])


@pytest.mark.parametrize(
    ("mode", "state", "flags"),
    [
        ("fail", "RUN_FAILED", {"isFailed": True, "isCanceled": False}),
        ("cancel", "RUN_CANCELED", {"isFailed": False, "isCanceled": True}),
    ],
)
def test_a_workflow_learns_how_the_other_ended(
    engine: Engine, trigger: Trigger, js: Client, mode: str, state: str, flags: dict[str, bool]
) -> None:
    run_id = trigger("parent", {"mode": mode})
    _, child = invoked(engine, js, run_id)
    assert engine.wait(run_id).result == flags
    assert child["workflowState"] == state

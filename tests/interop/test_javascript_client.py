"""The client of `@upstash/workflow`: starting runs, reading their logs, cancelling them."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.interop.conftest import Trigger, wait_for_waiter
from tests.interop.engine import Engine
from tests.interop.processes import Client, ClientError

# Starting


def test_several_runs_start_in_one_call(engine: Engine, js: Client, express: str) -> None:
    runs = [{"url": f"{express}/results", "body": {"n": n}} for n in range(3)]
    answers = js("return await workflow.trigger(runs)", runs=runs)
    assert [engine.wait(answer["workflowRunId"], "success").run["payload"]["n"] for answer in answers] == [0, 1, 2]


def test_an_id_of_a_live_run_starts_no_other(engine: Engine, trigger: Trigger, js: Client, unique: str) -> None:
    first = trigger("waits", {"event": unique}, workflowRunId=unique)
    assert first == f"wfr_{unique}"
    assert trigger("waits", {"event": f"{unique}-other"}, workflowRunId=unique) == first
    wait_for_waiter(js, unique)
    js("return await workflow.notify({ eventId })", eventId=unique)
    assert engine.wait(first, "success").run["payload"] == {"event": unique}


def test_a_run_waits_for_its_start(engine: Engine, trigger: Trigger, js: Client) -> None:
    delayed = trigger("nothing", delay="1h")
    later = trigger("nothing", notBefore=int(time.time()) + 3600)
    for run_id in (delayed, later):
        rows = engine.wait(run_id, "scheduled")
        assert rows.steps == []
        log = js("return (await workflow.logs({ filter: { workflowRunId } })).runs[0]", workflowRunId=run_id)
        assert log["workflowState"] == "RUN_STARTED"
    assert js("return await workflow.cancel([a, b])", a=delayed, b=later) == {"cancelled": 2}


def test_a_run_of_a_flow_control_key_uses_it(engine: Engine, trigger: Trigger, js: Client, unique: str) -> None:
    js("await qstash.flowControl.pause(key)", key=unique)
    run_id = trigger("nothing", flowControl={"key": unique, "parallelism": 2, "rate": 50, "period": "1m"})
    held = js(
        """
        for (let asked = 0; asked < 500; asked++) {
          const info = await qstash.flowControl.get(key);
          if (info.waitListSize === 1) return info;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        throw new Error("nothing is held");
        """,
        key=unique,
    )
    assert {name: held[name] for name in ("flowControlKey", "parallelismMax", "rateMax", "ratePeriod", "isPaused")} == {
        "flowControlKey": unique,
        "parallelismMax": 2,
        "rateMax": 50,
        "ratePeriod": 60,
        "isPaused": True,
    }
    assert js("return await workflow.logs({ filter: { flowControlKey } })", flowControlKey=unique)["runs"]
    js("await qstash.flowControl.resume(key)", key=unique)
    engine.wait(run_id, "success")
    # Two calls of the endpoint, each of which counts.
    assert js("return await qstash.flowControl.get(key)", key=unique)["rateCount"] == 2


def test_a_run_whose_body_is_hidden_shows_it_nowhere(engine: Engine, trigger: Trigger, js: Client) -> None:
    run_id = trigger("results", {"card": "4111"}, redact={"body": True})
    run = engine.wait(run_id, "success")
    log = js("return (await workflow.logs({ filter: { workflowRunId } })).runs[0]", workflowRunId=run_id)
    assert "4111" not in str(log)
    assert log["steps"][0]["steps"][0]["out"].startswith("REDACTED:")
    assert "4111" not in str(run.run["payload"])


@pytest.mark.parametrize("path", ["trigger", "batch"])
def test_a_run_starts_without_any_sdk(engine: Engine, express: str, path: str) -> None:
    token = {"Authorization": f"Bearer {engine.environment['QSTASH_TOKEN']}"}
    url = engine.environment["QSTASH_URL"]
    if path == "trigger":
        headers = {**token, "Upstash-Forward-X-Mine": "yes", "Upstash-Label": "by-hand"}
        answer = httpx.post(f"{url}/v2/trigger/{express}/surroundings", json={}, headers=headers, trust_env=False)
        assert answer.status_code == 200
        told = answer.json()
    else:
        item = {
            "destination": f"{express}/surroundings",
            "body": "{}",
            "headers": {"Upstash-Forward-X-Mine": "yes", "Upstash-Label": "by-hand"},
        }
        answer = httpx.post(f"{url}/v2/batch/trigger", json=[item], headers=token, trust_env=False)
        assert answer.status_code == 201
        (told,) = answer.json()
    run = engine.wait(told["workflowRunId"], "success")
    assert (run.result["mine"], run.result["label"]) == ("yes", "by-hand")
    assert run.result["createdAt"] == told["workflowCreatedAt"]


def test_a_message_to_a_workflow_starts_a_run(engine: Engine, js: Client, express: str, unique: str) -> None:
    """As a schedule does it: the endpoint starts the run itself, with the headers of the message."""
    published = js(
        "return await qstash.publishJSON({ url, body: { n: 1 }, headers: { 'X-Mine': mine } })",
        url=f"{express}/surroundings",
        mine=unique,
    )
    run_id = run_started_by(js, published["messageId"])
    run = engine.wait(run_id, "success")
    assert run.result["mine"] == unique
    assert run.result["agent"] == "Upstash-QStash"


def run_started_by(js: Client, message_id: str) -> str:
    """The id that the endpoint answered to a message."""
    run_id: str = js(
        """
        for (let asked = 0; asked < 500; asked++) {
          const { events } = await qstash.logs({ filter: { messageId } });
          const delivered = events.find((event) => event.state === "DELIVERED");
          if (delivered) return JSON.parse(Buffer.from(delivered.responseBody, "base64")).workflowRunId;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        throw new Error("not delivered");
        """,
        messageId=message_id,
    )
    return run_id


# Logs


def test_logs_show_a_run_that_is_under_way(
    engine: Engine, trigger: Trigger, js: Client, unique: str, express: str
) -> None:
    run_id = trigger("middle", {"event": unique}, label=["a-label", unique], headers={"X-Mine": "yes"})
    wait_for_waiter(js, unique)
    code = "return (await workflow.logs({ filter: { workflowRunId } })).runs[0]"
    log = js(code, workflowRunId=run_id)
    assert {name: log[name] for name in ("workflowRunId", "workflowUrl", "workflowState", "label", "labels")} == {
        "workflowRunId": run_id,
        "workflowUrl": f"{express}/middle",
        "workflowState": "RUN_STARTED",
        "label": "a-label",
        "labels": ["a-label", unique],
    }
    assert "workflowRunCompletedAt" not in log
    first, *finished = log["steps"][:3]
    (init,) = first["steps"]
    assert (first["type"], init["stepName"], init["stepType"]) == ("sequential", "init", "Initial")
    assert (init["out"], init["state"]) == (f'{{"event":"{unique}"}}', "STEP_SUCCESS")
    assert init["headers"]["X-Mine"] == ["yes"]
    assert [(group["type"], group["steps"][0]["stepName"]) for group in finished] == [
        ("sequential", "read payload"),
        ("sequential", "first"),
    ]
    assert finished[1]["steps"][0]["out"] == '{"first":1}'
    (waiting,) = log["steps"][3]["steps"]
    assert waiting["state"] == "STEP_PROGRESS"

    js("return await workflow.notify({ eventId, eventData: 'go' })", eventId=unique)
    engine.wait(run_id, "success")
    log = js(code, workflowRunId=run_id)
    assert log["workflowState"] == "RUN_SUCCESS"
    assert log["workflowRunResponse"] == '{"first":1,"eventData":"go"}'
    assert log["workflowRunCompletedAt"] >= log["workflowRunCreatedAt"]
    assert [(group["type"], group["steps"][0]["stepName"], group["steps"][0]["state"]) for group in log["steps"]] == [
        ("sequential", name, "STEP_SUCCESS") for name in ("init", "read payload", "first", "middle", "last")
    ]
    waited = log["steps"][3]["steps"][0]
    assert (waited["stepType"], waited["waitEventId"], waited["waitTimeout"]) == ("Wait", unique, False)


def test_logs_show_the_branches_of_parallel_steps(engine: Engine, trigger: Trigger, js: Client) -> None:
    run_id = trigger("chains")
    engine.wait(run_id, "success")
    log = js("return (await workflow.logs({ filter: { workflowRunId } })).runs[0]", workflowRunId=run_id)
    told = [(group["type"], [step["stepName"] for step in group["steps"]]) for group in log["steps"]]
    assert told == [
        ("sequential", ["init"]),
        ("parallel", ["a first", "b first"]),
        ("parallel", ["a sleep", "b sleep"]),
        ("parallel", ["a last", "b last"]),
    ]


def test_logs_come_in_pages_and_by_filters(engine: Engine, trigger: Trigger, js: Client, unique: str) -> None:
    run_ids = [trigger("nothing", label=unique) for _ in range(3)]
    for run_id in run_ids:
        engine.wait(run_id, "success")
    waiting = trigger("waits", {"event": unique}, label=unique)
    engine.wait(waiting, "waiting")
    told = js(
        """
        const ids = ({ runs }) => runs.map((run) => run.workflowRunId);
        const first = await workflow.logs({ count: 3, filter: { label } });
        const second = await workflow.logs({ count: 3, cursor: first.cursor, filter: { label } });
        return {
          pages: [ids(first), ids(second)],
          done: ids(await workflow.logs({ filter: { label, state: "RUN_SUCCESS" } })),
          open: ids(await workflow.logs({ filter: { label, state: "RUN_STARTED" } })),
          url: ids(await workflow.logs({ filter: { label, workflowUrl } })),
          future: ids(await workflow.logs({ filter: { label, fromDate: Date.now() + 60_000 } })),
          past: ids(await workflow.logs({ filter: { label, toDate: new Date() } })),
        };
        """,
        label=unique,
        workflowUrl=engine.wait(waiting, "waiting").run["url"],
    )
    newest_first = [waiting, *reversed(run_ids)]
    assert told == {
        "pages": [newest_first[:3], newest_first[3:]],
        "done": newest_first[1:],
        "open": [waiting],
        "url": [waiting],
        "future": [],
        "past": newest_first,
    }


# Cancelling


@pytest.fixture
def sleeping(engine: Engine, trigger: Trigger, unique: str) -> list[str]:
    """Three runs with the label `unique` that wait."""
    run_ids = [trigger("waits", {"event": unique}, label=unique) for _ in range(3)]
    for run_id in run_ids:
        engine.wait(run_id, "waiting")
    return run_ids


def test_runs_are_cancelled_by_their_ids(engine: Engine, js: Client, sleeping: list[str], unique: str) -> None:
    one, *others = sleeping
    assert js("return await workflow.cancel(id)", id=one) == {"cancelled": 1}
    # Once more, with one that does not exist, counts only those that were live.
    assert js("return await workflow.cancel(ids)", ids=[*sleeping, "wfr_unknown"]) == {"cancelled": 2}
    for run_id in (one, *others):
        run = engine.wait(run_id, "canceled")
        assert run.told("name", "status")[-1] == ("wait", "canceled")
    assert js("return await workflow.getWaiters({ eventId })", eventId=unique) == []
    letters = js("return await workflow.dlq.list({ filter: { label } })", label=unique)
    assert letters["messages"] == []


@pytest.mark.parametrize(
    ("request_", "count"),
    [
        ("{ filter: { label } }", 3),
        ("{ filter: { label }, count: 2 }", 2),
        ("{ filter: { label, workflowUrl: `${express}/waits` } }", 3),
        ("{ filter: { label, workflowUrl: `${express}/wai` } }", 0),
        ("{ filter: { label, workflowUrlStartingWith: `${express}/wai` } }", 3),
        ("{ filter: { label, fromDate: new Date(Date.now() + 60_000) } }", 0),
        ("{ workflowRunIds: ids }", 3),
        ("{ ids }", 3),
    ],
)
def test_runs_are_cancelled_by_a_filter(
    engine: Engine, js: Client, sleeping: list[str], unique: str, express: str, request_: str, count: int
) -> None:
    told = js(f"return await workflow.cancel({request_})", label=unique, express=express, ids=sleeping)
    assert told == {"cancelled": count}
    assert sorted(engine.rows(run_id).status for run_id in sleeping) == ["canceled"] * count + ["waiting"] * (3 - count)


def test_all_runs_are_cancelled_at_once(engine: Engine, js: Client, sleeping: list[str]) -> None:
    assert js("return await workflow.cancel({ all: true })")["cancelled"] >= 3
    for run_id in sleeping:
        engine.wait(run_id, "canceled")


# Whoever is not let in


def test_a_wrong_token_is_refused(js: Client, engine: Engine) -> None:
    with pytest.raises(ClientError) as refused:
        js("return await new QStash({ baseUrl, token: 'wrong' }).schedules.list()", baseUrl=base_url(engine))
    assert refused.value.status == 401


def base_url(engine: Engine) -> Any:
    return engine.environment["QSTASH_URL"]

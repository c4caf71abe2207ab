"""What a client asks of an engine beside starting runs: logs, dead letters, waiters, cancellation, schedules."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from django_workflow import NonRetryableError, WorkflowContext, workflow
from django_workflow.client.client import get_client
from django_workflow.client.options import TriggerOptions
from django_workflow.errors import EngineError
from django_workflow.models import DeadLetter, Run
from tests.scenarios.conftest import Engine


@workflow(name="listed")
def listed(ctx: WorkflowContext[int]) -> int:
    return ctx.run("double", lambda: ctx.request_payload * 2)


@workflow(name="listed-waiting")
def waiting(ctx: WorkflowContext[None]) -> Any:
    return ctx.wait_for_event("wait", "listed-event", timeout="1d").event_data


@workflow(name="listed-failing")
def failing(ctx: WorkflowContext[None]) -> None:
    def fail() -> None:
        raise NonRetryableError("no use")

    ctx.run("fail", fail)


def test_logs_show_runs_page_by_page(engine: Engine) -> None:
    handles = []
    for number in range(4):
        handles.append(listed.using(label=["odd" if number % 2 else "even"]).trigger(number))
        engine.clock.advance(1)
    engine.run()
    client, pages, cursor = get_client(), [], None
    while not pages or cursor:
        page = client.logs(count=3, cursor=cursor)
        pages.append([run.workflow_run_id for run in page.runs])
        cursor = page.cursor
    assert [len(page) for page in pages] == [3, 1]
    assert [run_id for page in pages for run_id in page] == [handle.id for handle in reversed(handles)]
    odd = client.logs(label="odd", workflow="listed").runs
    assert {run.workflow_run_id for run in odd} == {handles[1].id, handles[3].id}
    assert client.logs(state="RUN_FAILED").runs == ()
    assert client.logs(workflow="listed-waiting").runs == ()


def test_a_log_tells_all_of_a_run(engine: Engine) -> None:
    handle = listed.using(label="vip").trigger(21)
    engine.run()
    (log,) = get_client().logs(run_ids=handle.id).runs
    assert (log.workflow_state, log.workflow_run_response, log.labels) == ("RUN_SUCCESS", "42", ("vip",))
    steps = [step for group in log.steps for step in group.steps]
    assert [(step.step_name, step.step_type, step.state, step.out) for step in steps] == [
        ("init", "Initial", "STEP_SUCCESS", "21"),
        ("double", "Run", "STEP_SUCCESS", "42"),
    ]
    assert log.workflow_run_created_at == int(handle.run.created_at.timestamp() * 1000)


def test_waiters_are_listed_until_they_are_told(engine: Engine) -> None:
    handles = [waiting.trigger() for _ in range(2)]
    engine.run()
    client = get_client()
    assert len(client.waiters("listed-event")) == 2
    assert len(client.notify("listed-event", {"n": 1})) == 2
    assert client.waiters("listed-event") == ()
    for handle in handles:
        engine.finish(handle)


def test_runs_are_canceled_by_workflow_label_or_all_together(engine: Engine) -> None:
    runs = {name: waiting.using(label=name).trigger() for name in ("a", "b", "c")}
    other = listed.using(delay="1h", label="a").trigger(1)
    engine.run()
    client = get_client()
    assert client.cancel(label="a", workflow="listed-waiting") == 1
    assert runs["a"].run.status == Run.Status.CANCELED
    assert client.cancel([runs["b"].id, "wfr_unknown", runs["a"].id]) == 1
    assert client.cancel(everything=True) == 2
    assert other.run.status == Run.Status.CANCELED
    assert client.cancel(everything=True) == 0
    assert engine.run() == 0
    assert engine.left() == 0


def test_dead_letters_are_found_by_what_is_known_of_their_runs(engine: Engine) -> None:
    first, second = failing.using(label="one").trigger(), failing.using(label="two").trigger()
    engine.run(skip_delays=True)
    client = get_client()
    letters = client.dead_letters(workflow="listed-failing").messages
    assert {letter.workflow_run_id for letter in letters} == {first.id, second.id}
    (letter,) = client.dead_letters(label="two").messages
    assert (letter.workflow_run_id, letter.response_status) == (second.id, 489)
    assert client.dead_letter(letter.dlq_id).workflow_run_id == second.id
    assert client.delete_dead_letters([letter.dlq_id, "dlq-unknown"]).deleted == 1
    with pytest.raises(EngineError) as refused:
        client.dead_letter(letter.dlq_id)
    assert refused.value.status == 404
    assert [each.run.run_id for each in DeadLetter.objects.all()] == [first.id]
    with pytest.raises(EngineError):
        client.resume([letter.dlq_id])


def test_schedules_are_made_paused_resumed_and_deleted(engine: Engine) -> None:
    engine.clock.move_to(datetime(2091, 3, 23, 12, 30, tzinfo=UTC))
    client = get_client()
    options = TriggerOptions.of(label="hourly", headers={"X-Tenant": "seven"})
    name = client.schedule("listed", "0 * * * *", b"5", options, schedule_id="each-hour")
    found = client.find_schedule(name)
    assert (found.cron, found.is_paused) == ("0 * * * *", False)
    engine.clock.advance("1h")
    engine.run()
    run = Run.objects.get(workflow="listed")
    assert (run.result, run.trigger_kind, run.label_list) == ("10", Run.TriggerKind.SCHEDULE, ["hourly"])
    client.pause_schedule(name)
    engine.clock.advance("3h")
    engine.run()
    assert client.find_schedule(name).is_paused
    assert Run.objects.count() == 1
    client.resume_schedule(name)
    engine.clock.advance("1h")
    engine.run()
    assert Run.objects.count() == 2
    assert name in [schedule.schedule_id for schedule in client.schedules()]
    client.delete_schedule(name)
    with pytest.raises(EngineError) as refused:
        client.find_schedule(name)
    assert refused.value.status == 404

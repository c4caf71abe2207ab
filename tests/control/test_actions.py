"""What can be done to a run and what cannot, who may, and what is noted about it."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User

from django_workflow import NonRetryableError, PayloadInvalid, WorkflowContext, workflow
from django_workflow.control.actions import ACTIONS, ActionRefused
from django_workflow.models import DeadLetter, Run
from django_workflow.testing import run_workflows
from django_workflow.testing.factories import make_run
from tests.admin.builders import make_user

pytestmark = pytest.mark.django_db

broken = True


def fragile() -> str:
    if broken:
        raise NonRetryableError("it is broken")
    return "done"


@workflow(name="controlled", retries=0)
def controlled(ctx: WorkflowContext[dict[str, int]]) -> list[Any]:
    answer = ctx.wait_for_event("ask", "controlled-ask", timeout="1h")
    return [answer.event_data, ctx.run("fragile", fragile), ctx.request_payload]


@workflow(name="controlling")
def controlling(ctx: WorkflowContext[None]) -> Any:
    return ctx.invoke("controlled", controlled, {"n": 1}).body


@pytest.fixture
def operator() -> User:
    codenames = {action.permission for action in ACTIONS.values()}
    return make_user("operator", *codenames)


@pytest.fixture(autouse=True)
def _broken() -> Any:
    global broken
    broken = True
    yield
    broken = True


def waiting_run(**payload: int) -> Run:
    handle = controlled.trigger(payload or {"n": 1})
    run_workflows()
    run: Run = handle.run
    assert run.status == Run.Status.WAITING
    return run


def failed_run() -> Run:
    run = waiting_run()
    ACTIONS["notify"].perform(run, by=None, data=5)
    run_workflows()
    run.refresh_from_db()
    assert run.status == Run.Status.FAILED
    return run


def as_it_is(run_id: str) -> Run:
    return Run.objects.get(run_id=run_id)


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_is_refused_without_its_permission(name: str) -> None:
    run = make_run(status=Run.Status.RUNNING)
    why = ACTIONS[name].why_not(run, user=make_user("nobody"))
    assert ACTIONS[name].permission in why
    with pytest.raises(ActionRefused, match=ACTIONS[name].permission):
        ACTIONS[name].perform(run, by=User.objects.get())
    assert not LogEntry.objects.exists()


def test_a_run_is_canceled_once(operator: User) -> None:
    run = waiting_run()
    assert ACTIONS["cancel"].why_not(run, user=operator) == ""
    outcome = ACTIONS["cancel"].perform(run, by=operator, reason="ordered twice")
    assert outcome.run_id == run.run_id
    assert as_it_is(run.run_id).status == Run.Status.CANCELED
    (entry,) = LogEntry.objects.all()
    assert (entry.user, entry.object_id) == (operator, str(run.pk))
    assert "ordered twice" in entry.get_change_message()
    with pytest.raises(ActionRefused, match="over"):
        ACTIONS["cancel"].perform(run, by=operator)


def test_code_acts_without_a_user_and_leaves_no_note() -> None:
    ACTIONS["cancel"].perform(waiting_run(), by=None)
    assert not LogEntry.objects.exists()


def test_an_event_goes_to_the_one_wait(operator: User) -> None:
    global broken
    broken = False
    run = waiting_run()
    ACTIONS["notify"].perform(run, by=operator, data={"yes": True})
    run_workflows()
    assert as_it_is(run.run_id).result == '[{"yes":true},"done",{"n":1}]'


def test_an_event_needs_a_name_when_nothing_is_waited_for(operator: User) -> None:
    run = make_run(status=Run.Status.RUNNING)
    with pytest.raises(ActionRefused, match="name one"):
        ACTIONS["notify"].perform(run, by=operator, data=1)


def test_a_failed_run_goes_on_from_the_failed_step(operator: User) -> None:
    global broken
    run = failed_run()
    assert set(ACTIONS["resume"].possible(Run.objects.all())) == {run}
    broken = False
    outcome = ACTIONS["resume"].perform(run, by=operator)
    run_workflows()
    assert as_it_is(outcome.run_id).result == '[5,"done",{"n":1}]'
    assert ACTIONS["resume"].why_not(run) != ""
    assert not ACTIONS["resume"].possible(Run.objects.all())


def test_a_run_is_restarted_with_another_payload(operator: User) -> None:
    run = failed_run()
    outcome = ACTIONS["restart"].perform(run, by=operator, payload='{"n": 2}', labels=["again"])
    new = as_it_is(outcome.run_id)
    assert (new.payload, new.label_list, new.trigger_kind) == ('{"n":2}', ["again"], Run.TriggerKind.RESTART)
    with pytest.raises(PayloadInvalid) as caught:
        ACTIONS["restart"].perform(run, by=operator, payload='{"n": "two"}')
    assert caught.value.field == "$[...]"
    assert Run.objects.count() == 2


def test_a_similar_run_belongs_to_who_started_it(operator: User) -> None:
    run = make_run(workflow="controlled", payload='{"n":1}', labels=",vip,", status=Run.Status.RUNNING)
    outcome = ACTIONS["start_similar"].perform(run, by=operator)
    new = as_it_is(outcome.run_id)
    assert (new.owner, new.payload, new.label_list) == (operator, '{"n":1}', ["vip"])
    assert new.trigger_kind == Run.TriggerKind.USER


def test_a_run_id_in_use_is_refused(operator: User) -> None:
    run = make_run(workflow="controlled", payload='{"n":1}')
    with pytest.raises(ActionRefused, match=run.run_id):
        ACTIONS["start_similar"].perform(run, by=operator, run_id=run.run_id)


def test_a_handled_failure_is_handled_once(operator: User) -> None:
    run = failed_run()
    ACTIONS["mark_handled"].perform(run, by=operator, reason="paid by hand")
    assert not DeadLetter.objects.exists()
    assert as_it_is(run.run_id).status == Run.Status.FAILED
    assert ACTIONS["mark_handled"].why_not(run, user=operator) == "The failure was handled already."


def test_a_run_is_deleted_when_it_is_over(operator: User) -> None:
    run = waiting_run()
    with pytest.raises(ActionRefused, match="cancel it first"):
        ACTIONS["delete"].perform(run, by=operator)
    ACTIONS["cancel"].perform(run, by=operator)
    ACTIONS["delete"].perform(run, by=operator)
    assert not Run.objects.exists()


def test_runs_that_a_paused_run_invoked_go_on_and_their_results_are_kept_for_it() -> None:
    global broken
    broken = False
    parent = controlling.trigger(None)
    run_workflows()
    ACTIONS["pause"].perform(parent.run, by=None)
    child = parent.run.children.get()
    ACTIONS["notify"].perform(child, by=None, data=5)
    run_workflows()
    child.refresh_from_db()
    assert (child.status, parent.run.status) == (Run.Status.SUCCESS, Run.Status.PAUSED)
    ACTIONS["unpause"].perform(parent.run, by=None)
    run_workflows()
    assert parent.run.status == Run.Status.SUCCESS
    assert parent.run.result == child.result

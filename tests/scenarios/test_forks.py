"""New runs made of old ones by their ids: canceled ones gone on with, any begun anew, forks after a chosen step."""

from __future__ import annotations

from typing import Any

import pytest

from django_workflow import PayloadInvalid, WorkflowContext, step, workflow
from django_workflow.client.client import get_client
from django_workflow.control.actions import ACTIONS, ActionRefused
from django_workflow.errors import EngineError
from django_workflow.models import Run
from tests.scenarios.conftest import Engine

EMBEDDED = pytest.mark.edges("in_process", "on_the_wire", reason="the hosted engine has no such calls")
HOSTED = pytest.mark.edges("apart", "stub", reason="refused there alone")

ran: list[str] = []
keys: dict[str, list[str]] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()
    keys.clear()


def work(name: str) -> str:
    ran.append(name)
    return name


@workflow(name="forked")
def forked(ctx: WorkflowContext[dict[str, int]]) -> list[Any]:
    first = ctx.run("first", work, "first")
    both = ctx.parallel(*(step.run(name, work, name) for name in ("a", "b")))
    answer = ctx.wait_for_event("ask", "forked-ask", timeout="1h")
    return [first, *both, answer.event_data, ctx.run("last", work, "last"), ctx.request_payload]


@workflow(name="keyed")
def keyed(ctx: WorkflowContext[None]) -> None:
    def remember(name: str) -> None:
        keys.setdefault(name, []).append(ctx.idempotency_key)

    ctx.run("first", remember, "first")
    ctx.run("second", remember, "second")


@workflow(name="forked-invoker")
def invoker(ctx: WorkflowContext[None]) -> Any:
    return ctx.invoke("forked", workflow=forked, body={"n": 1}).body


def waiting(engine: Engine) -> Any:
    """A run whose first step and group are done, and which waits."""
    handle = forked.trigger({"n": 1})
    engine.run()
    assert handle.run.status == "waiting"
    ran.clear()
    return handle


def answer(engine: Engine, run_id: str, data: Any = "yes") -> Run:
    """Answer a run; it must succeed."""
    engine.run()
    get_client().notify("forked-ask", data, run_id=run_id)
    engine.run()
    run = Run.objects.get(run_id=run_id)
    assert run.status == "success", run.error
    return run


def act(name: str, handle: Any, **parameters: Any) -> str:
    return ACTIONS[name].perform(handle.run, by=None, **parameters).run_id


@EMBEDDED
def test_a_canceled_run_is_gone_on_with(engine: Engine) -> None:
    handle = waiting(engine)
    handle.cancel()
    new = act("resume", handle)
    run = answer(engine, new)
    assert (run.result, ran) == ('["first","a","b","yes","last",{"n":1}]', ["last"])
    assert (run.resumed_from, run.first_run) == (handle.run, handle.run)
    with pytest.raises(ActionRefused, match=new):
        act("resume", handle)
    with pytest.raises(EngineError, match=new):
        get_client().resume_run(handle.id)
    assert not ACTIONS["resume"].possible(Run.objects.all())


@EMBEDDED
def test_an_event_for_a_canceled_run_reaches_the_one_that_goes_on(engine: Engine) -> None:
    handle = waiting(engine)
    handle.cancel()
    new = act("resume", handle)
    engine.run()
    (told,) = get_client().notify("forked-ask", 1, run_id=handle.id)
    assert told.workflow_run_id == new


@EMBEDDED
def test_a_run_is_forked_after_a_step_and_goes_on_itself(engine: Engine) -> None:
    handle = waiting(engine)
    new = act("fork", handle, step=3)
    assert answer(engine, new, "fork").result == '["first","a","b","fork","last",{"n":1}]'
    assert ran == ["last"]
    assert handle.run.status == "waiting"
    assert answer(engine, handle.id, "self").result == '["first","a","b","self","last",{"n":1}]'
    run = Run.objects.get(run_id=new)
    assert (run.trigger_kind, run.resumed_from, run.first_run) == ("fork", handle.run, None)


@EMBEDDED
@pytest.mark.parametrize(
    ("after", "again"),
    [
        (0, ["a", "b", "first", "last"]),
        (1, ["a", "b", "last"]),
        (2, ["b", "last"]),  # in the middle of a group: its other branches run again
        (4, ["last"]),  # the wait, with its answer
        (5, []),
    ],
)
def test_a_fork_of_a_run_that_is_over_repeats_what_follows(engine: Engine, after: int, again: list[str]) -> None:
    handle = waiting(engine)
    done = answer(engine, handle.id)
    ran.clear()
    new = act("fork", handle, step=after)
    run = Run.objects.get(run_id=new) if after >= 4 else answer(engine, new)
    engine.run()
    run.refresh_from_db()
    assert (run.status, run.result) == ("success", done.result)
    assert sorted(ran) == again
    assert run.steps.count() == done.steps.count()


@EMBEDDED
def test_a_fork_from_the_beginning_may_have_another_payload(engine: Engine) -> None:
    handle = waiting(engine)
    new = act("fork", handle, step=0, payload='{"n": 2}')
    assert answer(engine, new).result == '["first","a","b","yes","last",{"n":2}]'
    with pytest.raises(ActionRefused, match="from the beginning"):
        act("fork", handle, step=1, payload='{"n": 2}')
    with pytest.raises(PayloadInvalid):
        act("fork", handle, step=0, payload='{"n": "two"}')


@EMBEDDED
def test_a_step_without_a_result_is_no_place_to_fork(engine: Engine) -> None:
    handle = waiting(engine)
    with pytest.raises(ActionRefused, match="no result"):
        act("fork", handle, step=4)
    with pytest.raises(ActionRefused, match="no result"):
        act("fork", handle, step=99)
    assert Run.objects.count() == 1


@EMBEDDED
def test_a_fork_has_keys_of_its_own_and_a_resumed_run_those_of_the_chain(engine: Engine) -> None:
    handle = keyed.trigger()
    engine.finish(handle)
    act("fork", handle, step=1)
    engine.run()
    assert len(keys["first"]) == 1
    assert len(set(keys["second"])) == 2


@EMBEDDED
def test_a_fork_does_not_answer_the_step_that_invoked_the_run(engine: Engine) -> None:
    parent = invoker.trigger()
    engine.run()
    child = parent.run.children.get()
    outcome = ACTIONS["fork"].perform(child, by=None, step=3)
    answer(engine, outcome.run_id, "fork")
    assert parent.run.status == "waiting"
    answer(engine, child.run_id, "child")
    assert '"child"' in engine.finish(parent).result


def test_a_run_that_succeeded_is_begun_anew(engine: Engine) -> None:
    handle = waiting(engine)
    answer(engine, handle.id)
    ran.clear()
    new = act("restart", handle)
    run = answer(engine, new)
    assert (run.result, run.trigger_kind) == ('["first","a","b","yes","last",{"n":1}]', "restart")
    assert sorted(ran) == ["a", "b", "first", "last"]


def test_a_run_is_restarted_with_another_payload_and_id(engine: Engine) -> None:
    handle = waiting(engine)
    with pytest.raises(ActionRefused, match="cancel it first"):
        act("restart", handle)
    handle.cancel()
    with pytest.raises(PayloadInvalid):
        act("restart", handle, payload='{"n": "two"}')
    new = act("restart", handle, payload='{"n": 2}', run_id="again-2", labels=["again"])
    assert new == "wfr_again-2"
    assert answer(engine, new).label_list == ["again"]
    with pytest.raises(ActionRefused, match="already"):
        act("restart", handle, run_id="again-2")


@HOSTED
def test_a_hosted_run_is_not_forked(engine: Engine) -> None:
    handle = waiting(engine)
    with pytest.raises(ActionRefused, match="hosted engine"):
        act("fork", handle, step=1)
    handle.cancel()
    with pytest.raises(ActionRefused, match="hosted engine"):
        act("resume", handle)
    for name in ("fork", "resume"):
        assert not ACTIONS[name].possible(Run.objects.all())

"""Runs that are for objects of the project, and belong to somebody: from the trigger to the object's list."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from django_workflow import NonRetryableError, WorkflowContext, workflow
from django_workflow.control.actions import ACTIONS
from django_workflow.models import Run
from tests.effects.models import Effect
from tests.scenarios.conftest import Engine


def refuse() -> None:
    raise NonRetryableError("no")


@workflow(name="for-objects", retries=0)
def for_objects(ctx: WorkflowContext[bool]) -> Any:
    answer = ctx.wait_for_event("approval", "for-objects-approval", timeout="1h")
    if ctx.request_payload:
        ctx.run("refuse", refuse)
    return answer.timeout


@pytest.fixture
def effect() -> Effect:
    return Effect.objects.create(run_id="", step="x", atomic=False)


def test_a_run_is_found_by_its_object(engine: Engine, effect: Effect) -> None:
    other = Effect.objects.create(run_id="", step="y", atomic=False)
    user = User.objects.create_user("ann")
    handle = for_objects.using(owner=user).trigger(False, for_object=effect)
    for_objects.trigger(False)
    run = handle.run
    assert (run.related_object, run.owner, run.trigger_kind) == (effect, user, "code")
    assert list(effect.workflow_runs.active()) == [run]
    assert list(Run.objects.for_object(effect)) == [run]
    assert not other.workflow_runs.exists()
    engine.finish(handle)
    assert not effect.workflow_runs.active()
    assert list(effect.workflow_runs.succeeded()) == [run]


def test_runs_are_found_by_what_they_wait_for(engine: Engine, effect: Effect) -> None:
    handle = for_objects.trigger(False, for_object=effect)
    assert not Run.objects.active().waiting_on("approval")
    engine.run()
    for name in ("approval", "for-objects-approval"):  # the step's name and the event's id
        assert list(Run.objects.active().waiting_on(name)) == [handle.run]
        assert effect.workflow_runs.waiting_on(name).exists()
    engine.finish(handle)
    assert not Run.objects.waiting_on("approval")


def test_many_runs_for_one_object(engine: Engine, effect: Effect) -> None:
    for_objects.using(for_object=effect, trigger_kind="user").trigger_many([False, True])
    assert effect.workflow_runs.filter(trigger_kind="user").count() == 2


def test_the_object_and_its_run_are_one_transaction(engine: Engine) -> None:
    with transaction.atomic():
        effect = Effect.objects.create(run_id="", step="x", atomic=False)
        for_objects.trigger(False, for_object=effect)
        transaction.set_rollback(True)
    assert not Run.objects.exists()
    engine.run()


def test_what_goes_on_in_place_of_a_run_is_for_its_object(engine: Engine, effect: Effect) -> None:
    handle = for_objects.using(owner=User.objects.create_user("ann")).trigger(True, for_object=effect)
    engine.fail(handle)
    outcome = ACTIONS["resume"].perform(handle.run, by=None)
    run = Run.objects.get(run_id=outcome.run_id)
    assert (run.related_object, run.owner) == (effect, handle.run.owner)
    assert list(effect.workflow_runs.failed()) == [handle.run]


def test_a_run_outlives_its_object(engine: Engine, effect: Effect) -> None:
    handle = for_objects.trigger(False, for_object=effect)
    effect.delete()
    assert engine.finish(handle).related_object is None


@pytest.mark.edges("in_process", reason="refused before an engine is asked")
def test_what_has_no_key_is_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="not saved"):
        for_objects.trigger(False, for_object=Effect(step="x"))
    with pytest.raises(TypeError, match="must be an object of a model"):
        for_objects.trigger(False, for_object=7)  # type: ignore[arg-type]
    assert not Run.objects.exists()

"""Schedules that code declares, kept by the hosted engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.authoring.registry import registry
from django_workflow.client.client import get_client
from django_workflow.errors import EngineUnavailable
from django_workflow.mirror import schedules
from django_workflow.models import Run, Schedule
from tests.mirror.conftest import Hosted


@contextmanager
def other_code() -> Iterator[None]:
    """A process whose code declares nothing yet."""
    with registry.isolated():
        for name in registry.names():
            del registry._workflows[name]
        registry._by_any_name.clear()
        yield


@pytest.fixture(autouse=True)
def _no_workflows() -> Iterator[None]:
    with other_code():
        yield


def declare(name: str = "nightly", cron: str = "0 3 * * *", **options: Any) -> None:
    @workflow(name=name, schedule=cron, **options)
    def scheduled(ctx: WorkflowContext[None]) -> None:
        ctx.run("work", lambda: None)


def at_engine(hosted: Hosted) -> dict[str, str]:
    return {found.schedule_id: found.cron for found in get_client().schedules()}


def test_what_code_declares_is_made_and_started_by_the_engine(hosted: Hosted) -> None:
    declare(timezone="Europe/Berlin", label="night")
    assert schedules.reconcile(hosted.transport) == (1, 0)
    name = schedules.schedule_id("nightly")
    assert at_engine(hosted) == {name: "CRON_TZ=Europe/Berlin 0 3 * * *"}
    row = Schedule.objects.get()
    assert (row.schedule_id, row.workflow, row.cron, row.timezone) == (name, "nightly", "0 3 * * *", "Europe/Berlin")
    assert row.in_code
    assert row.next_at is not None
    hosted.clock.move_to(row.next_at)
    hosted.run()
    run = Run.objects.get()
    assert (run.status, run.trigger_kind, run.label_list) == (Run.Status.SUCCESS, Run.TriggerKind.SCHEDULE, ["night"])
    row.refresh_from_db()
    assert (row.last_run_id, row.last_at is not None) == (run.run_id, True)


def test_what_is_there_already_is_left_alone(hosted: Hosted) -> None:
    declare()
    schedules.reconcile(hosted.transport)
    get_client().pause_schedule(schedules.schedule_id("nightly"))
    assert Schedule.objects.get().paused
    assert schedules.reconcile(hosted.transport) == (0, 0)
    assert Schedule.objects.get().paused  # what people have paused stays so
    get_client().resume_schedule(schedules.schedule_id("nightly"))
    assert not Schedule.objects.get().paused


def test_a_changed_declaration_overwrites(hosted: Hosted) -> None:
    declare()
    schedules.reconcile(hosted.transport)
    with other_code():
        declare(cron="30 4 * * *")
        assert schedules.reconcile(hosted.transport) == (1, 0)
    assert list(at_engine(hosted).values()) == ["30 4 * * *"]
    assert Schedule.objects.get().cron == "30 4 * * *"


def test_what_code_no_longer_declares_is_deleted_and_others_are_not(hosted: Hosted, settings: Any) -> None:
    client = get_client()
    client.schedule("https://elsewhere.example/", "0 0 * * *", schedule_id="by-hand")
    declare()
    settings_before = settings.DJANGO_WORKFLOW
    settings.DJANGO_WORKFLOW = {**settings_before, "base_url": "https://staging.example"}  # another site, same account
    schedules.reconcile(hosted.transport)
    of_staging = schedules.schedule_id("nightly")
    settings.DJANGO_WORKFLOW = settings_before
    schedules.reconcile(hosted.transport)
    with other_code():
        assert schedules.reconcile(hosted.transport) == (0, 1)
    assert set(at_engine(hosted)) == {"by-hand", of_staging}
    assert [row.schedule_id for row in Schedule.objects.all()] == ["by-hand"]


def test_rows_of_the_embedded_engine_give_way(hosted: Hosted) -> None:
    declare()
    Schedule.objects.create(schedule_id="nightly", workflow="nightly", cron="0 3 * * *", created_at=hosted.clock.now())
    schedules.reconcile(hosted.transport)
    assert Schedule.objects.get().schedule_id == schedules.schedule_id("nightly")


def test_a_bad_declaration_stops_no_other(hosted: Hosted) -> None:
    declare("bad", "every day")
    declare("good")
    assert schedules.reconcile(hosted.transport) == (1, 0)
    assert Schedule.objects.get().workflow == "good"


def test_an_engine_that_is_away_is_told(hosted: Hosted) -> None:
    declare()
    hosted.away(2)
    with pytest.raises(EngineUnavailable):
        schedules.reconcile(hosted.transport)


def test_names_that_cannot_stand_in_an_id_are_told_apart(hosted: Hosted) -> None:
    names = [schedules.schedule_id(name) for name in ("größe", "gr-ße", "gröSse", "a:b", "a b")]
    assert len(set(names)) == len(names)
    assert all(name.isascii() and ":" not in name and " " not in name for name in names)

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from django_workflow import WorkflowContext, workflow
from django_workflow.models import Run, Schedule
from django_workflow.testing import WorkflowClock, run_workflows
from tests.admin.builders import make_schedule, make_user
from tests.mirror.conftest import Hosted, hosted  # noqa: F401 - a fixture

LIST = "/admin/django_workflow/schedule/"
HOSTILE = "<script>alert(1)</script>"


@dataclass
class Stock:
    shelf: int = 1


@workflow(name="counted_by_clock", schedule="30 6 * * *", timezone="Europe/Berlin")
def counted_by_clock(ctx: WorkflowContext[Stock]) -> int:
    return ctx.run("count", lambda: ctx.request_payload.shelf)


VALUES = {
    "schedule_id": "count-hourly",
    "workflow": "counted_by_clock",
    "cron": "15 * * * *",
    "timezone": "Asia/Tokyo",
    "payload": '{"shelf": 7}',
    "enabled": "on",
    "reason": "the old one was wrong",
}


@pytest.fixture
def operator(client: Client, db: None) -> Client:
    rights = ("view", "add", "change", "delete", "pause")
    client.force_login(make_user("ann", "view_run", "trigger_workflow", *(f"{right}_schedule" for right in rights)))
    return client


def declared(**values: Any) -> Schedule:
    defaults = {"schedule_id": "counted_by_clock", "workflow": "counted_by_clock", "cron": "30 6 * * *"}
    return make_schedule(**{**defaults, **values})


def test_a_schedule_is_made_and_fires(operator: Client, workflow_clock: WorkflowClock) -> None:
    page = operator.post(f"{LIST}add/", {**VALUES, "_preview": "1"}).content.decode()
    assert "Next times" in page
    assert not Schedule.objects.exists()
    response = operator.post(f"{LIST}add/", VALUES)
    schedule = Schedule.objects.get()
    assert response.headers["Location"] == f"{LIST}{schedule.pk}/change/"
    assert (schedule.cron, schedule.timezone, schedule.payload) == (
        "CRON_TZ=Asia/Tokyo 15 * * * *",
        "Asia/Tokyo",
        '{"shelf": 7}',
    )
    assert LogEntry.objects.get().get_change_message() == "Added. Reason: the old one was wrong"
    workflow_clock.advance("1h")
    run_workflows()
    assert Run.objects.get().result == "7"


def test_what_cannot_be_a_schedule_is_said_at_its_field(operator: Client) -> None:
    make_schedule(schedule_id="taken")
    for name, value, text in (
        ("schedule_id", "taken", "There is a schedule or a workflow of this name already."),
        ("schedule_id", "a b", "Enter a valid value."),
        ("cron", "61 * * * *", "is no cron expression"),
        ("timezone", "Berlin", "is no time zone"),
        ("payload", '{"shelf": "x"}', "Expected `int`, got `str`"),
        ("payload", "{", "This is no JSON"),
    ):
        response = operator.post(f"{LIST}add/", {**VALUES, name: value})
        assert response.status_code == 400
        assert set(response.context["form"].errors) == {name}, name
        assert text in response.context["form"].errors.as_text(), name
        assert VALUES["reason"] in response.content.decode()
    assert Schedule.objects.count() == 1


def test_a_schedule_is_changed_and_keeps_what_is_not_in_the_form(operator: Client) -> None:
    operator.post(f"{LIST}add/", VALUES)
    schedule = Schedule.objects.get()
    url = f"{LIST}{schedule.pk}/change/"
    form = operator.get(url).context["form"]
    assert (form["cron"].value(), form["timezone"].value(), form["workflow"].value()) == (
        "15 * * * *",
        "Asia/Tokyo",
        "counted_by_clock",
    )
    operator.post(url, {**VALUES, "cron": "@daily", "timezone": "UTC", "payload": "", "enabled": "", "reason": ""})
    changed = Schedule.objects.get()
    assert (changed.pk, changed.cron, changed.timezone, changed.payload, changed.paused) == (
        schedule.pk,
        "0 0 * * *",
        "UTC",
        "",
        True,
    )
    entry = LogEntry.objects.order_by("-pk")[0]
    assert entry.get_change_message() == "Changed: cron, timezone, payload, enabled."


def test_a_schedule_of_code_is_shown_and_run_but_not_edited(operator: Client) -> None:
    schedule = declared(timezone="Europe/Berlin")
    page = operator.get(f"{LIST}{schedule.pk}/change/").content.decode()
    for text in ("Run now", "Backfill…", "Pause", "After a time without a worker it fires once"):
        assert text in page
    assert 'name="cron"' not in page
    assert "None" not in page
    assert "Destination" not in page
    assert operator.post(f"{LIST}{schedule.pk}/delete/", {"post": "yes"}).status_code == 403


def test_running_it_now_asks_first_and_starts_one_run_however_often_it_is_sent(operator: Client) -> None:
    schedule = declared(payload='{"shelf": 3}', paused=True)
    url = f"{LIST}{schedule.pk}/do/run/"
    asked = operator.get(url)
    assert not Run.objects.exists()
    sent = {"confirmed": "yes", "run_id": dict(asked.context["hidden"])["run_id"], "reason": "for the audit"}
    operator.post(url, sent)
    page = operator.post(url, sent, follow=True).content.decode()
    assert "It was run by this page already." in page
    run = Run.objects.get()
    assert (run.trigger_kind, run.payload) == (Run.TriggerKind.SCHEDULE, '{"shelf":3}')
    assert "Reason: for the audit" in LogEntry.objects.get().get_change_message()


def test_times_that_passed_are_made_up_for_once(operator: Client) -> None:
    schedule = declared(cron="0 6 * * *", timezone="UTC")
    url = f"{LIST}{schedule.pk}/do/backfill/"
    assert operator.get(url).status_code == 200
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    between = {
        "since": (today - timedelta(days=3)).strftime("%Y-%m-%dT%H:%M"),
        "until": (today - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M"),
    }
    ran = counted_by_clock.using(workflow_run_id=f"counted_by_clock-{today - timedelta(days=2):%Y%m%d}T060000").trigger(
        None
    )
    asked = operator.post(url, between).content.decode()
    assert "Start 2 runs of counted_by_clock" in asked
    assert "It ran already." in asked
    page = operator.post(url, {**between, "confirmed": "yes"}, follow=True).content.decode()
    assert "2 runs were started for times that had passed." in page
    assert Run.objects.exclude(run_id=ran.id).count() == 2
    operator.post(url, {**between, "confirmed": "yes"})
    assert Run.objects.count() == 3


def test_a_backfill_has_limits(operator: Client) -> None:
    schedule = declared(cron="* * * * *")
    url = f"{LIST}{schedule.pk}/do/backfill/"
    for since, until, text in (
        ("2026-01-01T00:00", "2026-01-02T00:00", "There are more than 100 times in between"),
        ("2026-01-02T00:00", "2026-01-01T00:00", "The end is before the beginning."),
        ("2026-01-01T00:00", "2999-01-01T00:00", "Only times that have passed"),
    ):
        response = operator.post(url, {"since": since, "until": until, "confirmed": "yes"})
        assert text in response.content.decode()
    assert not Run.objects.exists()


def test_pausing_asks_first_and_is_noted(operator: Client) -> None:
    schedule = declared()
    asked = operator.post(LIST, {"action": "pause", "_selected_action": [str(schedule.pk)]}).content.decode()
    assert "Pause 1 schedule" in asked
    schedule.refresh_from_db()
    assert not schedule.paused
    operator.post(f"{LIST}{schedule.pk}/do/pause/", {"confirmed": "yes", "reason": "holidays"})
    schedule.refresh_from_db()
    assert schedule.paused
    assert LogEntry.objects.get().get_change_message() == "Paused. Reason: holidays"


def test_who_may_only_look_is_offered_nothing_and_refused(viewing: Client) -> None:
    schedule, made = (
        declared(),
        make_schedule(schedule_id="made", in_code=False, workflow="", destination="https://a.b/"),
    )
    page = viewing.get(f"{LIST}{schedule.pk}/change/").content.decode()
    assert "/do/" not in page
    assert 'name="cron"' not in viewing.get(f"{LIST}{made.pk}/change/").content.decode()
    for name in ("pause", "run", "backfill"):
        assert viewing.post(f"{LIST}{schedule.pk}/do/{name}/", {"confirmed": "yes"}).status_code == 403
    assert viewing.get(f"{LIST}add/").status_code == 403
    assert viewing.post(f"{LIST}add/", VALUES).status_code == 403
    viewing.post(f"{LIST}{made.pk}/change/", VALUES)
    made.refresh_from_db()
    assert made.cron == "0 3 * * *"
    assert not Run.objects.exists()


def test_names_and_payloads_are_text_and_no_html(operator: Client) -> None:
    from django_workflow.engine.records import encode_config
    from django_workflow.protocol.publish import Message

    config = encode_config(Message(destination=f"https://a.example/{HOSTILE}"))
    schedule = make_schedule(
        schedule_id=HOSTILE,
        workflow="",
        destination=f"https://a.example/{HOSTILE}",
        config=config,
        in_code=False,
        payload=HOSTILE,
        error=HOSTILE,
    )
    for url in (LIST, f"{LIST}{schedule.pk}/change/", f"{LIST}{schedule.pk}/do/pause/"):
        page = operator.get(url).content.decode()
        assert HOSTILE not in page, url
        assert "&lt;script&gt;" in page, url


def test_schedules_of_the_hosted_engine_are_made_there_and_shown_here(client: Client, hosted: Hosted) -> None:  # noqa: F811
    client.force_login(make_user("root", superuser=True))
    client.post(f"{LIST}add/", VALUES)
    schedule = Schedule.objects.get(schedule_id="count-hourly")
    assert hosted.asked("POST", "/v2/schedules/") == 1
    assert schedule.timezone == "Asia/Tokyo"
    client.post(f"{LIST}{schedule.pk}/change/", {**VALUES, "cron": "@daily"})
    assert Schedule.objects.get().cron == "CRON_TZ=Asia/Tokyo 0 0 * * *"
    client.post(f"{LIST}{schedule.pk}/delete/", {"post": "yes"})
    assert not Schedule.objects.exists()
    assert hosted.asked("DELETE", "/v2/schedules/") == 1
    assert hosted.service.faults == []


def test_instants_of_ids_are_those_of_the_clock(db: None) -> None:
    from django_workflow.control.schedules import run_id_at

    schedule = declared()
    assert run_id_at(schedule, datetime(2026, 3, 1, 5, 30, tzinfo=UTC)) == "wfr_counted_by_clock-20260301T053000"

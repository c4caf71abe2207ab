from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_workflow.engine.records import encode_config
from django_workflow.models import DeadLetter, FlowKey, Run
from django_workflow.protocol.publish import Message
from django_workflow.testing import CallAnswer, mock_calls, run_workflows
from django_workflow.testing.factories import make_delivery, make_run, make_worker
from tests.admin.builders import make_dead_letter, make_finished_run, make_schedule, make_user
from tests.engine.posting import URL, post


@pytest.mark.parametrize("name", ["delivery", "deadletter", "worker", "flowkey"])
def test_every_list_opens_and_offers_no_editing(client: Client, db: None, name: str) -> None:
    client.force_login(make_user("root", superuser=True))
    assert client.get(f"/admin/django_workflow/{name}/", {"q": "x"}).status_code == 200
    assert client.get(f"/admin/django_workflow/{name}/add/").status_code == 403


def test_deliveries_tell_who_holds_them_and_when_they_are_due(viewing: Client) -> None:
    now = timezone.now()
    run = make_run(run_id="wfr_abc")
    make_delivery(run, worker=make_worker(host="web-1", pid=7), step_name="charge", attempt=1, max_retries=5)
    make_delivery(run, due_at=now + timedelta(hours=1))
    shown = make_delivery(
        run, due_at=now - timedelta(hours=1), config='{"headers":{"Authorization":"Bearer x"}}', body="secret"
    )
    page = viewing.get("/admin/django_workflow/delivery/").content.decode()
    for text in ("Leased", "Later", "Due", "web-1:7", "1 of 5", "wfr_abc"):
        assert text in page
    for state, number in (("leased", 1), ("due", 1), ("later", 1)):
        response = viewing.get("/admin/django_workflow/delivery/", {"state": state})
        assert len(response.context["cl"].result_list) == number
    detail = viewing.get(reverse("admin:django_workflow_delivery_change", args=[shown.pk]))
    assert "Bearer" not in detail.content.decode()
    assert "secret" not in detail.content.decode()


def test_deliveries_are_not_deleted_from_under_their_run(client: Client, db: None) -> None:
    client.force_login(make_user("root", superuser=True))
    delivery = make_delivery()
    assert client.post(f"/admin/django_workflow/delivery/{delivery.pk}/delete/", {"post": "yes"}).status_code == 403


def test_dead_letters_tell_what_failed_and_what_the_failure_function_did(viewing: Client) -> None:
    letter = make_dead_letter(
        make_run(run_id="wfr_abc", workflow="fulfil_order", status=Run.Status.FAILED),
        failure_state=DeadLetter.FailureState.SUCCESS,
        failure_response="mail sent",
        response_body='{"error":"CardError"}',
    )
    page = viewing.get("/admin/django_workflow/deadletter/", {"q": "abc"}).content.decode()
    for text in ("ConnectionError", "fulfil_order", "wfr_abc", "charge card", "500", "Done"):
        assert text in page
    detail = viewing.get(f"/admin/django_workflow/deadletter/{letter.pk}/change/").content.decode()
    assert "mail sent" in detail
    assert "&quot;CardError&quot;" in detail


def test_dead_letters_and_deliveries_of_messages_have_no_run_and_are_shown(viewing: Client) -> None:
    with mock_calls(CallAnswer(500, "the hidden answer")):
        open_, hidden = post(retries="0", body="open"), post(retries="0", redact_fields="body", queue="mail")
        run_workflows()
    waiting = post("https://later.example/", delay="1h")
    page = viewing.get("/admin/django_workflow/deadletter/").content.decode()
    assert page.count(URL) == 2
    assert page.count("the hidden answer") == 1
    found = viewing.get("/admin/django_workflow/deadletter/", {"q": "hooks.example"}).content.decode()
    assert found.count(URL) == 2
    for log, shown in ((open_, True), (hidden, False)):
        letter = DeadLetter.objects.get(message=log)
        detail = viewing.get(f"/admin/django_workflow/deadletter/{letter.pk}/change/").content.decode()
        assert ("the hidden answer" in detail) == shown
        assert ("REDACTED" in detail) != shown
    page = viewing.get("/admin/django_workflow/delivery/").content.decode()
    assert "Message" in page
    detail = viewing.get(f"/admin/django_workflow/delivery/{waiting.pk}/change/").content.decode()
    assert "https://later.example/" in detail
    assert waiting.message_id in detail


def test_a_schedule_shows_its_next_times_in_the_readers_zone(viewing: Client) -> None:
    run = make_finished_run(run_id="wfr_last")
    schedule = make_schedule(last_run_id=run.run_id, payload='{"a":1}', next_at=timezone.now())
    page = viewing.get(f"/admin/django_workflow/schedule/{schedule.pk}/change/").content.decode()
    assert page.count("<br><time") == 4
    assert str(run.pk) in page
    assert "&quot;a&quot;: 1" in page
    assert "nightly" in viewing.get("/admin/django_workflow/schedule/").content.decode()


def test_a_schedule_that_cannot_be_read_says_why(viewing: Client) -> None:
    schedule = make_schedule(cron="61 * * * *")
    page = viewing.get(f"/admin/django_workflow/schedule/{schedule.pk}/change/").content.decode()
    assert "61 * * * *" in page


def test_a_schedule_of_the_api_shows_where_it_goes(viewing: Client) -> None:
    message = Message(destination="https://shop.example/nightly", queue="orders")
    schedule = make_schedule(
        workflow="",
        in_code=False,
        destination=message.destination,
        config=encode_config(message),
        cron="CRON_TZ=Asia/Tokyo 0 10 * * *",
        timezone="Asia/Tokyo",
        payload="plain text",
        error="EngineError: There is no URL group 'x'.",
    )
    page = viewing.get("/admin/django_workflow/schedule/").content.decode()
    for text in ("https://shop.example/nightly", "There is no URL group", ">0 10 * * *<", "Asia/Tokyo"):
        assert text in page
    detail = viewing.get(f"/admin/django_workflow/schedule/{schedule.pk}/change/").content.decode()
    for text in ("orders", "plain text", "There is no URL group"):
        assert text in detail


def test_a_payload_that_its_publisher_hides_is_hidden(viewing: Client) -> None:
    message = Message(destination="https://shop.example/", redact=("body",))
    schedule = make_schedule(in_code=False, config=encode_config(message), payload="secret")
    assert "secret" not in viewing.get(f"/admin/django_workflow/schedule/{schedule.pk}/change/").content.decode()


def test_schedules_of_both_kinds_are_paused_and_resumed(client: Client, db: None) -> None:
    client.force_login(make_user("ann", "view_schedule", "pause_schedule"))
    past = timezone.now() - timedelta(minutes=5)
    rows = [
        make_schedule(schedule_id="declared", next_at=past),
        make_schedule(schedule_id="made", workflow="", in_code=False, destination="https://a.example/", next_at=past),
    ]

    def act(action: str) -> str:
        chosen = {"action": action, "_selected_action": [str(row.pk) for row in rows], "confirmed": "yes"}
        page = client.post("/admin/django_workflow/schedule/", chosen, follow=True).content.decode()
        for row in rows:
            row.refresh_from_db()
        return page

    assert "2 schedules were paused." in act("pause")
    assert [row.paused for row in rows] == [True, True]
    assert "2 schedules were resumed." in act("resume")
    assert [row.paused for row in rows] == [False, False]
    assert all(row.next_at is not None and row.next_at > timezone.now() for row in rows)


def test_who_may_only_look_at_schedules_pauses_none(viewing: Client) -> None:
    schedule = make_schedule()
    page = viewing.get("/admin/django_workflow/schedule/").content.decode()
    assert 'value="pause"' not in page
    viewing.post("/admin/django_workflow/schedule/", {"action": "pause", "_selected_action": [str(schedule.pk)]})
    schedule.refresh_from_db()
    assert not schedule.paused


def test_workers_are_alive_silent_or_draining(viewing: Client) -> None:
    make_delivery(worker=make_worker(host="alive"))
    make_worker(host="silent", heartbeat_at=timezone.now() - timedelta(minutes=5))
    make_worker(host="leaving", draining=True)
    page = viewing.get("/admin/django_workflow/worker/").content.decode()
    for text in ("Alive", "Silent", "Draining"):
        assert text in page


def test_flow_keys_count_what_runs_and_what_waits(viewing: Client) -> None:
    FlowKey.objects.create(key="card", parallelism=1)
    make_delivery(flow_key="card", worker=make_worker())
    make_delivery(flow_key="card")
    make_delivery(flow_key="card")
    response = viewing.get("/admin/django_workflow/flowkey/")
    key = response.context["cl"].result_list[0]
    assert (key.running, key.waiting) == (1, 2)

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from django_workflow.models import ChannelEvent, Outbox
from django_workflow.testing.factories import make_delivery, make_run, make_worker
from tests.admin.builders import make_user

PAGE = "/admin/django_workflow/worker/"


def test_a_site_without_a_worker_is_told_how_to_start_one(viewing: Client) -> None:
    make_worker(heartbeat_at=timezone.now() - timedelta(minutes=2))
    make_delivery()
    page = viewing.get(PAGE).content.decode()
    assert "No worker has reported for 2 min" in page
    assert "1 delivery is due." in page
    assert "manage.py workflow_worker" in page


def test_overdue_deliveries_are_told_from_those_that_a_key_holds(viewing: Client) -> None:
    make_worker(concurrency=4)
    long_ago = timezone.now() - timedelta(minutes=5)
    run = make_run()
    make_delivery(run, due_at=long_ago)
    make_delivery(run, due_at=long_ago, flow_key="card")
    health = viewing.get(PAGE).context["health"]
    assert (health.due.ready, health.due.overdue, health.due.held) == (1, 1, 1)
    assert [problem.text for problem in health.problems] == ["1 delivery has been due for over a minute."]
    assert "do not keep up" in health.problems[0].remedy


def test_what_the_outbox_holds_back_is_a_problem(viewing: Client, settings: Any) -> None:
    settings.DJANGO_WORKFLOW = {"engine": "qstash", "token": "t", "base_url": "https://shop.example"}
    now = timezone.now()
    make_worker()
    old = now - timedelta(minutes=10)
    Outbox.objects.create(batch=make_run().pk, run_id="wfr_1", created_at=old, due_at=now)
    Outbox.objects.create(batch=make_run().pk, run_id="wfr_2", created_at=old, given_up_at=now)
    page = viewing.get(PAGE).content.decode()
    assert "1 message could not be handed to the hosted engine." in page
    assert "A message has waited in the outbox for 10 min" in page
    assert "There are no signing keys" in page


def test_signing_keys_are_told_by_their_origin_and_never_shown(viewing: Client, settings: Any) -> None:
    assert "SECRET_KEY" in viewing.get(PAGE).content.decode()
    settings.DJANGO_WORKFLOW = {"current_signing_key": "sig_hidden_one", "next_signing_key": "sig_hidden_two"}
    page = viewing.get(PAGE).content.decode()
    assert "the settings" in page
    assert "sig_hidden" not in page


def test_the_number_of_queries_does_not_grow(
    viewing: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(20):
        make_delivery(worker=make_worker(pid=number))
        make_delivery()
    with django_assert_max_num_queries(16):
        viewing.get(PAGE)


def test_realtime_is_tried_out_with_and_without_a_script(client: Client, db: None) -> None:
    client.force_login(make_user("ann", "view_worker"))
    page = client.post(f"{PAGE}probe/", follow=True).content.decode()
    assert "A test event was kept and read back in" in page
    assert "The channel layer took" in page
    found = client.post(f"{PAGE}probe/", headers={"accept": "application/json"}).json()
    event = ChannelEvent.objects.order_by("-position").first()
    assert event is not None
    assert found["id"] == event.event_id
    assert found["store"] > 0
    assert found["error"] == ""


def test_the_try_needs_a_post_and_the_right_to_look(client: Client, db: None) -> None:
    client.force_login(make_user("nobody"))
    assert client.post(f"{PAGE}probe/").status_code == 403
    client.force_login(make_user("ann", "view_worker"))
    assert client.get(f"{PAGE}probe/").status_code == 405
    assert not ChannelEvent.objects.exists()

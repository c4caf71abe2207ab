"""The pages on an AdminSite of the project's own: they open there, and lead to pages of that site."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from django_workflow.models import FlowKey, Run, Schedule
from django_workflow.realtime.channel import Realtime
from django_workflow.testing.factories import make_run, make_worker
from tests.admin.builders import make_dead_letter, make_schedule, make_user
from tests.admin.test_inbox import ask
from tests.admin.test_workflows import parcel_in_admin

BASE = "/operations/django_workflow/"


@pytest.fixture
def operator(client: Client, db: None, settings: Any) -> Client:
    settings.ROOT_URLCONF = "tests.admin.own_site"
    client.force_login(make_user("root", superuser=True))
    return client


def test_every_page_opens_and_stays_on_its_site(operator: Client) -> None:
    letter = make_dead_letter(make_run(status=Run.Status.FAILED))
    waiter, schedule, key = ask("one"), make_schedule(workflow=parcel_in_admin.name), FlowKey.objects.create(key="card")
    Realtime().channel("shop").emit("tick")
    make_worker()
    for page in (
        "",
        "waiter/",
        f"waiter/{waiter.pk}/change/",
        "deadletter/",
        f"deadletter/{letter.pk}/change/",
        f"deadletter/run/{letter.run_id}/mark_handled/",
        "registeredworkflow/",
        "registeredworkflow/parcel_5Fin_5Fadmin/change/",
        "registeredworkflow/parcel_5Fin_5Fadmin/trigger/",
        "schedule/",
        "schedule/add/",
        f"schedule/{schedule.pk}/change/",
        f"schedule/{schedule.pk}/do/pause/",
        f"schedule/{schedule.pk}/do/backfill/",
        "flowkey/",
        f"flowkey/{key.pk}/change/",
        "worker/",
        "channel/",
        "channel/shop/change/",
    ):
        response = operator.get(BASE + page)
        assert response.status_code == 200, page
        text = response.content.decode()
        content = text[text.index('<main id="content-start"') :]
        strangers = re.findall(r'(?:href|action)="(/admin/[^"]*)"', content)
        assert strangers == [], page


def test_actions_lead_back_to_the_site(operator: Client) -> None:
    run = make_run(status=Run.Status.FAILED)
    make_dead_letter(run)
    response = operator.post(f"{BASE}deadletter/run/{run.pk}/mark_handled/", {"confirmed": "yes"})
    assert response.headers["Location"] == f"{BASE}deadletter/"
    response = operator.post(
        f"{BASE}registeredworkflow/parcel_5Fin_5Fadmin/trigger/?as=json",
        {"payload-json": '{"number": 1, "email": "a", "weight": "2"}'},
    )
    assert response.headers["Location"] == f"{BASE}run/{Run.objects.get(workflow=parcel_in_admin.name).pk}/change/"
    schedule = make_schedule()
    operator.post(f"{BASE}schedule/{schedule.pk}/do/pause/", {"confirmed": "yes"})
    assert Schedule.objects.get(pk=schedule.pk).paused

"""Buttons of a run and actions of the list: who sees them, what they ask, what they do; alone and in bulk."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from django_workflow import WorkflowContext, workflow
from django_workflow.authoring.registry import registry
from django_workflow.control import bulk
from django_workflow.control.actions import ACTIONS
from django_workflow.models import BulkOperation, Run, Step, Waiter
from django_workflow.testing import run_workflows
from django_workflow.testing.factories import make_delivery, make_run, make_step, make_waiter
from tests.admin.builders import make_dead_letter, make_finished_run, make_user

pytestmark = pytest.mark.django_db

LIST = "/admin/django_workflow/run/"


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(make_user("root", superuser=True))
    return client


@dataclass
class Order:
    order_id: int


@pytest.fixture
def ship() -> Iterator[Any]:
    with registry.isolated():

        @workflow
        def ship(ctx: WorkflowContext[Order]) -> int:
            return ctx.run("double", lambda: ctx.request_payload.order_id * 2)

        yield ship


def page_url(run: Run) -> str:
    return reverse("admin:django_workflow_run_change", args=[run.pk])


def act_url(run: Run, name: str) -> str:
    return reverse("admin:django_workflow_run_action", args=[run.pk, name])


def fields(page: str) -> dict[str, str]:
    """What the page's form would send as it is."""
    inputs = re.findall(r'<input type="(?:hidden|text)" name="([^"]+)"(?: value="([^"]*)")?', page)
    return {name: value for name, value in inputs if name != "csrfmiddlewaretoken"} | {"confirmed": "yes"}


def live_run(**values: Any) -> Run:
    run = make_run(status=Run.Status.RUNNING, **values)
    make_delivery(run)
    return run


# Buttons


def test_a_run_offers_what_can_be_done_and_says_why_the_rest_cannot(root: Client) -> None:
    page = root.get(page_url(live_run())).content.decode()
    assert ">Cancel</a>" in page
    assert '<span class="wfa-button wfa-off" title="The run has not failed.">' in page
    assert "(The run has not failed.)</span>" in page
    assert "Mark" not in page
    finished = root.get(page_url(make_finished_run())).content.decode()
    assert ">Cancel</a>" not in finished
    assert 'title="The run is over: Success."' in finished


def test_without_permission_buttons_are_hidden_and_refused(viewing: Client) -> None:
    run = live_run()
    page = viewing.get(page_url(run)).content.decode()
    assert "wfa-actions" not in page
    for name in ACTIONS:
        assert viewing.get(act_url(run, name)).status_code == 403
        assert viewing.post(act_url(run, name), {"confirmed": "yes"}).status_code == 403
    run.refresh_from_db()
    assert run.status == Run.Status.RUNNING


def test_one_permission_shows_one_button(client: Client) -> None:
    client.force_login(make_user("ann", "view_run", "cancel_run"))
    run = live_run()
    page = client.get(page_url(run)).content.decode()
    assert re.findall(r'href="[^"]+/act/([a-z_]+)/"', page) == ["cancel"]
    assert "wfa-off" not in page


# One run


def test_canceling_asks_first_notes_who_and_why_and_is_done_once(root: Client) -> None:
    run = live_run()
    page = root.get(act_url(run, "cancel")).content.decode()
    assert 'value="Cancel 1 run"' in page
    assert "Keep as it is" in page
    run.refresh_from_db()
    assert run.status == Run.Status.RUNNING  # a GET does nothing
    response = root.post(act_url(run, "cancel"), {"confirmed": "yes", "reason": "ordered twice"})
    assert response["Location"] == page_url(run)
    run.refresh_from_db()
    assert run.status == Run.Status.CANCELED
    (entry,) = LogEntry.objects.all()
    assert "ordered twice" in entry.change_message
    assert root.post(act_url(run, "cancel"), {"confirmed": "yes"}).status_code == 200  # says why not
    assert LogEntry.objects.count() == 1
    assert "ordered twice" in root.get(reverse("admin:django_workflow_run_history", args=[run.pk])).content.decode()


def test_posts_need_the_token(db: None) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user("root", superuser=True))
    assert client.post(act_url(live_run(), "cancel"), {"confirmed": "yes"}).status_code == 403


def test_a_restart_takes_another_payload_that_the_workflow_accepts(root: Client, ship: Any) -> None:
    run = ship.trigger(Order(4)).run
    run_workflows()
    page = root.get(act_url(run, "restart")).content.decode()
    assert "&quot;order_id&quot;: 4" in page
    sent = fields(page)
    refused = root.post(act_url(run, "restart"), {**sent, "payload": '{"order_id": "x"}'}).content.decode()
    assert "order_id" in refused
    assert "errorlist" in refused
    assert "This is no JSON" in root.post(act_url(run, "restart"), {**sent, "payload": "{"}).content.decode()
    assert Run.objects.count() == 1
    for _time in range(2):  # the page is sent twice
        response = root.post(act_url(run, "restart"), {**sent, "payload": '{"order_id": 7}', "labels": "again"})
        new = Run.objects.get(run_id=sent["run_id"])
        assert response["Location"] == page_url(new)
    assert Run.objects.count() == 2
    assert new.label_list == ["again"]
    run_workflows()
    new.refresh_from_db()
    assert new.result == "14"


def test_a_payload_that_is_left_as_it_is_goes_along_with_its_hidden_values(root: Client, ship: Any) -> None:
    run = ship.using(redact=("body",)).trigger(Order(4)).run
    run_workflows()
    page = root.get(act_url(run, "start_similar")).content.decode()
    assert "REDACTED" in page
    sent = fields(page)
    bad = root.post(act_url(run, "start_similar"), {**sent, "payload": '{"order_id": "REDACTED"}'}).content.decode()
    assert "stands for a value that is hidden" in bad
    root.post(act_url(run, "start_similar"), {**sent, "payload": "REDACTED"})
    run_workflows()
    assert Run.objects.get(run_id=sent["run_id"]).result == "8"


def test_an_event_is_sent(root: Client) -> None:
    run = make_run(status=Run.Status.WAITING)
    make_step(run, step_type="Wait", status=Step.Status.WAITING, finished_at=None, name="wait")
    waiter = make_waiter(run, event_id="approve-7")
    page = root.get(act_url(run, "notify")).content.decode()
    assert 'value="approve-7"' in page
    assert (
        "This is no JSON" in root.post(act_url(run, "notify"), {**fields(page), "event_data": "yes"}).content.decode()
    )
    root.post(act_url(run, "notify"), {**fields(page), "event_data": '{"approved": true}'})
    waiter.refresh_from_db()
    assert waiter.state == Waiter.State.RESOLVED


def test_a_delay_that_cannot_be_read_is_refused_on_the_page(root: Client) -> None:
    run = make_finished_run()
    sent = {"confirmed": "yes", "payload": "", "labels": "", "run_id": "wfr_x", "delay": "soon"}
    assert "errorlist" in root.post(act_url(run, "start_similar"), sent).content.decode()


def test_what_is_no_action_and_no_run_is_not_found(root: Client) -> None:
    assert root.get(act_url(make_run(), "explode")).status_code == 404
    assert root.get(f"{LIST}nothing/act/cancel/").status_code == 404


# Many runs


def choose(client: Client, action: str, runs: list[Run], **more: str) -> Any:
    return client.post(LIST, {"action": action, "_selected_action": [str(run.pk) for run in runs], **more})


@pytest.mark.parametrize("name", ["pause", "cancel"])
def test_the_page_says_that_invoked_runs_go_on(root: Client, name: str) -> None:
    run = live_run()
    assert "It invoked" not in root.get(act_url(run, name)).content.decode()
    live_run(parent=run)
    make_run(parent=run, status=Run.Status.PAUSED)
    make_finished_run(parent=run)
    assert "It invoked 1 run that is not over: that one goes on." in root.get(act_url(run, name)).content.decode()
    live_run(parent=run)
    assert "It invoked 2 runs that are not over: those go on." in root.get(act_url(run, name)).content.decode()


def test_a_run_whose_failure_is_handled_stays_on_its_page(root: Client) -> None:
    run = make_finished_run(status=Run.Status.FAILED)
    make_dead_letter(run)
    response = root.post(act_url(run, "mark_handled"), {"confirmed": "yes"})
    assert response["Location"] == page_url(run)


def test_the_list_asks_which_runs_are_affected_and_which_not(root: Client) -> None:
    runs = [live_run(), live_run(), make_finished_run()]
    page = choose(root, "cancel_runs", runs).content.decode()
    assert 'value="Cancel 2 runs"' in page
    assert "The run is over: Success." in page
    sent = fields(page)
    for _time in range(2):  # sent twice
        assert root.post(LIST, {**sent, "_selected_action": [str(run.pk) for run in runs]}).status_code == 302
    operation = BulkOperation.objects.get()
    assert (operation.name, operation.done, operation.skipped) == ("Cancel 2 runs", 2, 1)
    assert Run.objects.filter(status=Run.Status.CANCELED).count() == 2
    shown = root.get(LIST).content.decode()
    assert "2 runs canceled." in shown
    assert "1 run was passed over." in shown


def test_everything_that_the_filter_matches_is_reached(root: Client) -> None:
    inside = [make_dead_letter(make_run(status=Run.Status.FAILED, labels=",vip,")).run for _number in range(3)]
    outside = make_dead_letter(make_run(status=Run.Status.FAILED)).run
    query = f"{LIST}?label=vip"
    chosen = {"action": "delete_runs", "select_across": "1", "_selected_action": [str(inside[0].pk)]}
    page = root.post(query, chosen).content.decode()
    assert 'value="Delete 3 runs"' in page
    root.post(query, {**fields(page), **chosen})
    assert list(Run.objects.all()) == [outside]


def test_many_runs_are_done_in_the_background_with_progress_and_can_be_stopped(
    root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE", 2)
    monkeypatch.setattr(bulk, "BATCH", 3)
    runs = [live_run() for _number in range(8)]
    page = choose(root, "cancel_runs", runs).content.decode()
    assert "in the background" in page
    response = root.post(LIST, {**fields(page), "_selected_action": [str(run.pk) for run in runs]})
    operation = BulkOperation.objects.get()
    url = reverse("admin:django_workflow_run_operation", args=[operation.pk])
    assert response["Location"] == url
    progress = root.get(url).content.decode()  # no worker lives: whoever looks does a batch
    assert "3 of 8 runs" in progress
    assert 'value="3"' in progress
    assert "Stop" in progress
    assert root.post(url).status_code == 302
    over = root.get(url).content.decode()
    assert "Stopped" in over
    assert "data-over" in over
    assert Run.objects.filter(status=Run.Status.CANCELED).count() == 3


def test_actions_of_the_list_need_their_permission(client: Client) -> None:
    client.force_login(make_user("ann", "view_run", "pause_run"))
    run = live_run()
    page = client.get(LIST).content.decode()
    assert "pause_runs" in page
    assert "cancel_runs" not in page
    choose(client, "cancel_runs", [run], confirmed="yes")
    run.refresh_from_db()
    assert run.status == Run.Status.RUNNING
    operation = bulk.start(ACTIONS["pause"], Run.objects.all(), by=None)
    client.force_login(make_user("eve", "view_run", "view_bulkoperation"))
    url = reverse("admin:django_workflow_run_operation", args=[operation.pk])
    assert client.get(url).status_code == 200
    assert client.post(url).status_code == 403


def test_asking_takes_few_queries_for_many_runs(root: Client, django_assert_max_num_queries: Any) -> None:
    runs = [live_run(payload=json.dumps({"a": number})) for number in range(30)]
    with django_assert_max_num_queries(20):
        choose(root, "cancel_runs", runs)

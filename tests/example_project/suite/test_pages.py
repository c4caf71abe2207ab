"""The pages as a browser without JavaScript sees them."""

from __future__ import annotations

import html
import inspect
import re
from typing import Any
from unittest.mock import Mock

import pytest
from django.test import Client

from django_workflow import NonRetryableError
from django_workflow.models import Run
from django_workflow.realtime.access import may
from django_workflow.testing import WorkflowClock, run_workflows
from example_project.guide.workflows import basic
from example_project.shop.models import ImportedOrder, Order, Parcel
from example_project.shop.source import highlighted
from example_project.shop.workflows import (
    fulfil_order,
    import_orders,
    nightly_report,
    settle_complaint,
    track_parcel,
    write_delivery_note,
)
from tests.example_project.suite.visitor import Visitor

pytestmark = pytest.mark.usefixtures("demo", "workflow_clock")

PAGES = ["/", "/import/", "/complaint/", "/note/", "/together/", "/report/", "/guide/"]


@pytest.fixture
def visitor() -> Visitor:
    return Visitor()


@pytest.mark.parametrize(
    "url", ["/", "/orders/1/", "/import/", "/complaint/", "/note/", "/together/", "/report/", "/guide/"]
)
def test_every_page_opens_before_anything_has_run(visitor: Visitor, url: str) -> None:
    visitor.open(url)


@pytest.mark.parametrize(
    "workflow",
    [fulfil_order, import_orders, nightly_report, settle_complaint, track_parcel, write_delivery_note, basic],
)
def test_the_code_on_a_page_is_the_workflows_code(workflow: Any) -> None:
    shown = re.sub(r"<[^>]+>", "", highlighted(workflow))
    assert html.unescape(shown) == inspect.getsource(workflow.function)


@pytest.mark.parametrize(
    "url", ["/orders/99/", "/import/wfr_none/", "/complaint/wfr_none/", "/note/wfr_none/", "/guide/wfr_none/"]
)
def test_what_does_not_exist_is_not_found(client: Client, url: str) -> None:
    assert client.get(url).status_code == 404


@pytest.mark.parametrize(
    "url", ["/orders/fulfil/", "/complaint/start/", "/note/start/", "/together/start/", "/guide/start/basic/"]
)
def test_nothing_starts_without_a_csrf_token_or_by_a_link(url: str) -> None:
    assert Client(enforce_csrf_checks=True).post(url, {"order": "1"}).status_code == 403
    assert Client().get(url).status_code == 405
    assert not Run.objects.exists()


def test_an_order_is_started_approved_and_done(visitor: Visitor, services: Any, workflow_clock: WorkflowClock) -> None:
    visitor.open("/")
    page = visitor.press("Fulfil the order")
    assert visitor.url == "/orders/1/"
    assert f'run="{Order.objects.get(pk=1).workflow_run_id}"' in page
    assert not visitor.can_press("Approve")

    run_workflows()
    workflow_clock.advance("5s")
    run_workflows()
    page = visitor.open("/orders/1/")
    assert "Paid after 2 attempts" in page
    assert visitor.can_press("Approve")

    assert "Approved: the order goes on." in visitor.press("Approve")
    assert not visitor.can_press("Approve")
    run_workflows(skip_delays=True)
    page = visitor.open("/orders/1/")
    assert "INV-000001" in page
    assert "PX00000001" in page
    assert visitor.can_press("Start over")
    assert "INVOICE INV-000001" in visitor.open("/orders/1/invoice/")


def test_an_answer_that_comes_too_late_is_told_so(
    visitor: Visitor, services: Any, workflow_clock: WorkflowClock
) -> None:
    visitor.open("/orders/1/")
    visitor.press("Fulfil the order")
    run_workflows()
    workflow_clock.advance("5s")
    run_workflows()
    slower = Visitor()
    slower.open("/orders/1/")
    visitor.open("/orders/1/")
    visitor.press("Reject")
    assert "Nothing waits for this answer any more." in slower.press("Approve")
    run_workflows(skip_delays=True)
    assert "Rejected by a visitor of the demo." in visitor.open("/orders/1/")


def test_a_second_click_finds_the_run_of_the_first(visitor: Visitor) -> None:
    visitor.open("/")
    first = visitor.html
    visitor.press("Fulfil the order")
    visitor.html = first
    visitor.press("Fulfil the order")
    assert Run.objects.count() == 1


def test_an_order_that_was_started_over_is_new(visitor: Visitor, services: Any) -> None:
    visitor.open("/orders/2/")
    visitor.press("Fulfil the order")
    run_workflows(skip_delays=True)
    visitor.open("/orders/2/")
    assert "The order is new again." in visitor.press("Start over")
    assert visitor.can_press("Fulfil the order")
    assert "not asked for yet" in visitor.html


def test_a_script_gets_json(client: Client) -> None:
    response = client.post("/orders/fulfil/", {"order": "2"}, headers={"Accept": "application/json"})
    answer = response.json()
    assert answer["workflowRunId"] == Order.objects.get(pk=2).workflow_run_id
    assert answer["url"] == "/orders/2/"
    assert may(None, answer["workflowRunId"], "respond", answer["token"])
    refused = client.post("/orders/fulfil/", {"order": "99"}, headers={"Accept": "application/json"})
    assert refused.status_code == 400
    assert refused.json() == {"error": "There is no such order."}


def test_an_order_that_does_not_exist_cannot_be_started(visitor: Visitor) -> None:
    visitor.open("/")
    assert "There is no such order." in visitor.press("Fulfil the order", order="99")
    assert not Run.objects.exists()


def test_an_import_shows_its_totals_and_bad_rows(visitor: Visitor) -> None:
    visitor.open("/")
    visitor.press("Import orders.csv")
    run_workflows(skip_delays=True)
    page = visitor.open(visitor.url)
    assert ImportedOrder.objects.count() == 2490
    assert "2,490" in page
    assert "the email is missing" in page
    assert "the id WEB-00041 is in line 42 already" in page


def test_a_report_of_a_day_is_made(visitor: Visitor) -> None:
    visitor.open("/report/")
    visitor.press("Make the report", day="2025-12-31")
    run_workflows(skip_delays=True)
    assert "2025-12-31" in visitor.open(visitor.url)


def test_a_day_that_is_none_is_refused(visitor: Visitor) -> None:
    visitor.open("/report/")
    assert "Enter a valid date." in visitor.press("Make the report", day="yesterday")
    assert not Run.objects.exists()


def test_without_an_address_of_its_own_the_site_sends_no_parcel(visitor: Visitor) -> None:
    assert "DEMO_BASE_URL=http://testserver make demo" in visitor.open("/parcel/")
    assert not visitor.can_press("Send the parcel")


def test_a_parcel_is_handed_over_at_the_door(visitor: Visitor, base_url: str, services: Any) -> None:
    visitor.open("/parcel/")
    visitor.press("Send the parcel")
    run_workflows()
    visitor.open(visitor.url)
    visitor.press("A neighbour opens")
    run_workflows()
    assert "Received by a neighbour." in visitor.open(visitor.url)


def test_a_courier_whom_the_shop_does_not_answer_is_told_so(visitor: Visitor, base_url: str, services: Any) -> None:
    visitor.open("/parcel/")
    visitor.press("Send the parcel")
    run_workflows()
    Parcel.objects.update(callback_url=f"{base_url}/workflows/hooks/wfr_none/evt_none/")
    visitor.open(visitor.url)
    assert "did not take the courier" in visitor.press("A neighbour opens")


def test_a_complaint_is_settled_by_a_form(visitor: Visitor) -> None:
    assert '<option value="2" selected>' in visitor.open("/complaint/?order=2")
    page = visitor.press("Complain", order="2", text="The lamp is broken.")
    assert "The lamp is broken." in page
    run_workflows()
    page = visitor.open(visitor.url)
    assert "Order 2 cost 64.80 EUR. How much of it do we give back?" in page

    # What the form does not take comes back on a page of its own, and leads back when it is right.
    shown = visitor.url
    assert "Whoever gets nothing back is told why." in visitor.press("Send", **{"wf2-share": "nothing"})
    visitor.press("Send", **{"wf2-share": "half", "wf2-answer": "We are sorry."}, back=shown)
    run_workflows()
    page = visitor.open(shown)
    assert "32.40 EUR" in page
    assert "We are sorry." in page


def test_a_complaint_says_something(visitor: Visitor) -> None:
    visitor.open("/complaint/")
    assert "what is wrong with it" in visitor.press("Complain", text="")
    assert not Run.objects.exists()


def test_a_note_stands_on_its_page(visitor: Visitor) -> None:
    visitor.open("/note/")
    page = visitor.press("Write the note")
    assert "data-words" in page
    run_workflows()
    page = visitor.open(visitor.url)
    assert "2 x Standing desk, 600.00 EUR each and 1200.00 EUR together" in page
    assert "data-words" not in page


def test_the_words_so_far_stand_on_the_page(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    breaking = Mock(side_effect=NonRetryableError("The printer is on fire."))
    monkeypatch.setattr("example_project.shop.notes.DeliveryNote.objects.update_or_create", breaking)
    visitor.open("/note/")
    visitor.press("Write the note")
    run_workflows()
    page = visitor.open(visitor.url)
    assert "Should anything be missing or broken, tell us" in page
    assert "The printer is on fire." in page


def test_four_runs_start_at_once(visitor: Visitor) -> None:
    visitor.open("/together/")
    page = visitor.press("Start all four")
    assert Run.objects.count() == 4
    for run_id in Run.objects.values_list("run_id", flat=True):
        assert f'run="{run_id}"' in page
    run_workflows(skip_delays=True)
    page = visitor.open("/together/")
    assert page.count(' status="success"') == 7


def test_the_guides_run_goes_on_when_it_is_told_to(visitor: Visitor) -> None:
    visitor.open("/guide/")
    visitor.press("Run one that asks")
    run_workflows()
    assert "The run waits for you" in visitor.open(visitor.url)
    visitor.press("Continue")
    run_workflows(skip_delays=True)
    assert "process done" in visitor.open(visitor.url)


def test_the_guide_shows_what_the_failure_function_says(visitor: Visitor) -> None:
    visitor.open("/guide/")
    visitor.press("Run one that fails")
    run_workflows(skip_delays=True)
    page = visitor.open(visitor.url)
    assert "The failure function says:" in page
    assert "The card terminal does not answer." in page


def test_the_pages_of_one_sample_show_no_runs_of_another(client: Client) -> None:
    run_id = client.post("/import/start/", headers={"Accept": "application/json"}).json()["workflowRunId"]
    assert client.get(f"/import/{run_id}/").status_code == 200
    assert client.get(f"/report/{run_id}/").status_code == 404
    assert client.get(f"/guide/{run_id}/").status_code == 404

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from django.core import mail

from django_workflow.models import Run
from django_workflow.realtime.channel import Realtime
from django_workflow.testing import WorkflowClock, assert_step_ran, run_workflows, send_event
from django_workflow.testing.calls import CallRecorder
from example_project.guide.models import Notice
from example_project.guide.workflows import basic, basic_failing, basic_with_approval
from example_project.shop.models import (
    Complaint,
    DailyReport,
    DeliveryNote,
    ImportedOrder,
    ImportReport,
    Order,
    Parcel,
    Product,
)
from example_project.shop.services import hand_over
from example_project.shop.workflows import (
    fulfil_order,
    import_orders,
    nightly_report,
    settle_complaint,
    track_parcel,
    write_delivery_note,
)

pytestmark = pytest.mark.usefixtures("demo", "workflow_clock")


def stock(sku: str) -> int:
    return Product.objects.get(sku=sku).stock


def run_up_to_the_approval(clock: WorkflowClock) -> None:
    run_workflows()
    clock.advance("5s")  # the retry of the payment
    run_workflows()


def test_a_small_order_goes_straight_through(services: CallRecorder) -> None:
    handle = fulfil_order.trigger({"order_id": 2})
    run_workflows(skip_delays=True)
    assert handle.run.status == Run.Status.SUCCESS
    receipt = handle.wait()
    assert receipt.total == Decimal("64.80")
    assert receipt.invoice == "INV-000002"
    assert Order.objects.get(pk=2).status == Order.Status.SHIPPED
    assert stock("NOTEBOOK") == 998
    assert [message.to for message in mail.outbox] == [["grace@example.com"]]


def test_the_payment_is_tried_again_until_it_works(services: CallRecorder) -> None:
    handle = fulfil_order.trigger({"order_id": 2})
    run_workflows(skip_delays=True)
    assert len(services.calls) == 2
    assert Order.objects.get(pk=2).payment.attempts == 2
    assert_step_ran(handle, "charge card")


def test_a_large_order_waits_for_approval(services: CallRecorder, workflow_clock: WorkflowClock) -> None:
    handle = fulfil_order.trigger({"order_id": 1})
    run_up_to_the_approval(workflow_clock)
    assert Run.objects.get().status == Run.Status.WAITING

    assert send_event("approve-1", {"approved": True, "by": "ann"})
    run_workflows(skip_delays=True)
    assert handle.wait().tracking_number == Parcel.objects.get().tracking_number


def test_a_rejected_order_is_refunded_and_its_goods_are_back(
    services: CallRecorder, workflow_clock: WorkflowClock
) -> None:
    fulfil_order.trigger({"order_id": 1})
    run_up_to_the_approval(workflow_clock)
    assert stock("DESK") == 58

    send_event("approve-1", {"approved": False, "by": "ann"})
    run_workflows(skip_delays=True)
    order = Order.objects.get(pk=1)
    assert (order.status, order.note) == (Order.Status.REJECTED, "Rejected by ann.")
    assert order.payment.state == "refunded"
    assert stock("DESK") == 60
    assert Run.objects.get().status == Run.Status.CANCELED


def test_an_order_that_nobody_approves_is_rejected_after_two_days(services: CallRecorder) -> None:
    fulfil_order.trigger({"order_id": 1})
    run_workflows(skip_delays=True)
    assert Order.objects.get(pk=1).note == "Nobody answered in two days."


def test_an_order_without_stock_fails_at_once_and_takes_nothing(services: CallRecorder) -> None:
    fulfil_order.trigger({"order_id": 3})
    run_workflows(skip_delays=True)
    order = Order.objects.get(pk=3)
    assert order.status == Order.Status.FAILED
    assert "only 1 are in stock" in order.note
    assert stock("PIANO") == 1
    assert services.calls == []
    assert Run.objects.get().status == Run.Status.FAILED


def test_a_second_run_of_an_order_takes_and_charges_nothing_twice(services: CallRecorder) -> None:
    for _ in range(2):
        fulfil_order.trigger({"order_id": 2})
        run_workflows(skip_delays=True)
    assert stock("NOTEBOOK") == 998
    assert Order.objects.get(pk=2).payment.attempts == 2
    assert Parcel.objects.count() == 1


def test_an_import_has_the_right_totals_and_every_bad_row() -> None:
    handle = import_orders.trigger({})
    run_workflows(skip_delays=True)
    imported = handle.wait()
    assert (imported.rows, imported.imported, imported.bad) == (2500, 2490, 10)
    assert imported.total == sum(ImportedOrder.objects.values_list("amount", flat=True))
    report = ImportReport.objects.get()
    assert report.rows_done == 2500
    assert report.bad_rows.count() == 10
    run = Run.objects.get()
    assert (run.progress_done, run.progress_total) == (2500, 2500)


def test_the_same_import_again_adds_nothing() -> None:
    for _ in range(2):
        import_orders.trigger({})
        run_workflows(skip_delays=True)
    assert ImportedOrder.objects.count() == 2490
    assert {report.imported for report in ImportReport.objects.all()} == {2490}


def test_a_complaint_that_nobody_looks_into_is_settled_after_two_days() -> None:
    complaint = Complaint.objects.create(order_id=2, text="Broken.")
    handle = settle_complaint.trigger({"complaint_id": complaint.pk})
    run_workflows()
    assert Run.objects.get().status == Run.Status.WAITING
    run_workflows(skip_delays=True)
    complaint.refresh_from_db()
    assert complaint.refunded == handle.wait().refunded == Decimal("64.80")
    assert [message.to for message in mail.outbox] == [["grace@example.com"]]


def test_a_note_is_said_word_by_word_and_kept_once() -> None:
    handle = write_delivery_note.trigger({"order_id": 1})
    run_workflows()
    note = DeliveryNote.objects.get()
    messages = Realtime().channel(handle.id).history()
    words = [message.value for message in messages if message.event == "note.word"]
    assert "".join(word["word"] for word in words) == note.text
    assert [word["number"] for word in words] == list(range(handle.wait()))


def test_a_report_adds_up_its_day_and_is_mailed() -> None:
    import_orders.trigger({})
    run_workflows(skip_delays=True)
    day = date(2025, 6, 1)
    expected = ImportedOrder.objects.filter(placed_on=day)

    handle = nightly_report.trigger({"day": day})
    run_workflows(skip_delays=True)
    assert handle.wait().imported_orders == expected.count() > 0
    assert DailyReport.objects.get(day=day).imported_turnover == sum(expected.values_list("amount", flat=True))
    assert [message.subject for message in mail.outbox] == [f"2025-06-01: {expected.count()} orders"]


def test_a_report_waits_for_an_import_that_is_going_on() -> None:
    ImportReport.objects.create(workflow_run_id="wfr_other", file_name="orders.csv")
    nightly_report.trigger({"day": date(2025, 6, 1)})
    run_workflows()
    assert Run.objects.get(workflow="nightly_report").status == Run.Status.WAITING

    ImportReport.objects.all().delete()
    import_orders.trigger({})
    run_workflows(skip_delays=True)
    assert Run.objects.get(workflow="nightly_report").status == Run.Status.SUCCESS
    assert DailyReport.objects.get().imported_orders > 0


def test_the_report_comes_by_itself_at_three_in_berlin(workflow_clock: WorkflowClock) -> None:
    run_workflows(declare_schedules=True)
    assert not Run.objects.exists()
    workflow_clock.advance("1d")
    run_workflows()
    run = Run.objects.get(workflow="nightly_report")
    assert run.trigger_kind == Run.TriggerKind.SCHEDULE
    assert run.status == Run.Status.SUCCESS


def test_a_parcel_waits_for_the_couriers_call(services: CallRecorder, base_url: str) -> None:
    handle = track_parcel.trigger({"order_id": 1})
    run_workflows()
    assert Run.objects.get().status == Run.Status.WAITING
    assert "PX00000001" in mail.outbox[0].body

    hand_over(Parcel.objects.get(), "ada")
    run_workflows()
    assert handle.wait() == "ada"
    assert Parcel.objects.get().received_by == "ada"


def test_the_guides_basic_workflow_runs() -> None:
    handle = basic.trigger({"user_id": "ann", "action": "count"})
    run_workflows(skip_delays=True)
    assert handle.wait() == {"user_id": "ann", "outcome": "count done"}


def test_the_guides_workflow_waits_for_a_person() -> None:
    handle = basic_with_approval.trigger({})
    run_workflows()
    assert send_event(f"approval-{handle.id}", {"approved": True})
    run_workflows(skip_delays=True)
    assert handle.wait()["outcome"] == "process done"


def test_the_guides_failing_workflow_calls_its_failure_function_once() -> None:
    handle = basic_failing.trigger({})
    run_workflows(skip_delays=True)
    assert Run.objects.get().status == Run.Status.FAILED
    notice = Notice.objects.get(workflow_run_id=handle.id)
    assert notice.text == "Sorry, user-1: The card terminal does not answer."

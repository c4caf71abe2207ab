"""The shop's workflows, one for each thing that takes longer than a web request.

Found by itself, like admin.py. A workflow is called again for every step and gets the results of the earlier ones from
its journal, so it holds decisions only: whatever touches the world is a step, a function of `orders`, `imports`,
`complaints` and so on. Steps may be repeated; steps with `atomic=True` commit their rows together with their result.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from django.conf import settings

from django_workflow import AsyncWorkflowContext, NonRetryableError, WorkflowContext, step, workflow
from example_project.shop import complaints, imports, notes, orders, reports
from example_project.shop.forms import RefundForm

CHARGE_URL = f"{settings.DEMO_ORIGIN}/services/payments/charge/"
REFUND_URL = f"{settings.DEMO_ORIGIN}/services/payments/refund/"
COURIER_URL = f"{settings.DEMO_ORIGIN}/services/courier/parcels/"
SERVICE_HEADERS = {"Authorization": f"Bearer {settings.DEMO_SERVICE_TOKEN}"}
IMPORT_FINISHED = "shop-import-finished"


@dataclass(frozen=True, slots=True)
class OrderToFulfil:
    order_id: int


@dataclass(frozen=True, slots=True)
class Receipt:
    order_id: int
    total: Decimal
    payment: str
    invoice: str
    tracking_number: str


@dataclass(frozen=True, slots=True)
class Approval:
    approved: bool
    by: str = ""


def tell_staff(ctx: WorkflowContext[OrderToFulfil], status: int, response: str, headers: dict[str, list[str]]) -> str:
    """Called once the run has failed for good: the order says so, and its goods are back on the shelf."""
    orders.mark_failed(ctx.request_payload.order_id, response)
    return "The order is marked for the shop's staff."


@workflow(retries=3, retry_delay="1000", on_failure=tell_staff)
def fulfil_order(ctx: WorkflowContext[OrderToFulfil]) -> Receipt:
    """From stock to the customer's door: payment, approval by a person, parcel, invoice, mail."""
    order_id = ctx.request_payload.order_id

    reserved = ctx.run("reserve stock", orders.reserve_stock, order_id, ctx.workflow_run_id, atomic=True)

    # The engine makes this call, so no worker waits for it. It tries again by itself: this service fails at first.
    charge = ctx.call(
        "charge card",
        url=CHARGE_URL,
        method="POST",
        headers={**SERVICE_HEADERS, "Idempotency-Key": f"order-{order_id}"},
        body={"order": order_id, "amount": str(reserved.total)},
        retries=3,
        retry_delay="1000",
    )
    if charge.status != 200:
        raise NonRetryableError(f"The payment service refused order {order_id}: {charge.status} {charge.body}")
    ctx.run("mark as paid", orders.mark_paid, order_id)

    if reserved.total > 1000:
        # Nothing runs while the run waits: it is a row until somebody answers, or until two days have gone by.
        answer = ctx.wait_for_event(
            "approval",
            f"approve-{order_id}",
            timeout="2d",
            type=Approval,
            message=f"Order {order_id} costs {reserved.total} EUR. Shall it go out?",
        )
        if answer.timeout or not answer.event_data.approved:
            reason = "Nobody answered in two days." if answer.timeout else f"Rejected by {answer.event_data.by}."
            ctx.call(
                "refund", url=REFUND_URL, method="POST", headers=SERVICE_HEADERS, body={"order": order_id}, retries=3
            )
            ctx.run("put goods back", orders.reject, order_id, reason, atomic=True)
            ctx.cancel()

    # Both at the same time; each is kept and retried on its own.
    label, invoice = ctx.parallel(
        step.run("print label", orders.print_label, order_id),
        step.run("render invoice", orders.render_invoice, order_id),
    )

    # The instant comes from a step's result, so that it is the same each time this function is called.
    ctx.sleep_until("wait for the courier", label.pickup_at)
    ctx.run("mark as shipped", orders.mark_shipped, order_id)

    ctx.sleep("let it travel", "3s")
    # The key is the same on every attempt of the step: whoever gets it can tell a repetition.
    ctx.run("ask for a review", lambda: orders.send_review_mail(reserved.email, order_id, ctx.idempotency_key))

    return Receipt(
        order_id=order_id,
        total=reserved.total,
        payment=charge.body["reference"],
        invoice=invoice,
        tracking_number=label.tracking_number,
    )


@dataclass(frozen=True, slots=True)
class ComplaintToSettle:
    complaint_id: int


@workflow
def settle_complaint(ctx: WorkflowContext[ComplaintToSettle]) -> complaints.Settled:
    """Waits for a Django form: the run goes on with what a person filled in, and the form's rules hold."""
    filed = ctx.run("read the complaint", complaints.read, ctx.request_payload.complaint_id)

    # `to="shop.change_complaint"` would ask only those with that permission. Here every visitor may decide.
    decided = ctx.wait_for_form(
        "decide on the refund",
        RefundForm,
        timeout="2d",
        initial={"share": complaints.Share.HALF},
        message=f"Order {filed.order_id} cost {filed.total} EUR. How much of it do we give back?",
        type=complaints.Decision,
    )
    # Nobody looked into it for two days: the customer shall not wait any longer.
    decision = complaints.Decision(complaints.Share.ALL, "Sorry!") if decided.timeout else decided.values

    settled = ctx.run("settle it", complaints.settle, filed, decision, atomic=True)
    ctx.run("tell the customer", lambda: complaints.send_answer(filed, settled, ctx.idempotency_key))
    return settled


@workflow
def write_delivery_note(ctx: WorkflowContext[OrderToFulfil]) -> int:
    """One step that says each word as it writes it. Pages show them at once; the journal keeps the result alone."""
    order_id = ctx.request_payload.order_id
    text = ctx.run("compose the text", notes.compose, order_id)

    def say(number: int, word: str) -> None:
        ctx.emit(notes.WORD, {"number": number, "word": word})  # not a commit each: they are written in batches

    return ctx.run("write it down", lambda: notes.write(order_id, ctx.workflow_run_id, text, say))


@dataclass(frozen=True, slots=True)
class FileToImport:
    file_name: str = "orders.csv"


@workflow(retries=3)
def import_orders(ctx: WorkflowContext[FileToImport]) -> imports.Imported:
    """A CSV file into the database: in chunks, all at the same time, with progress; bad rows are reported, not lost."""
    file_name = ctx.request_payload.file_name

    opened = ctx.run("open the file", imports.open_file, file_name, ctx.workflow_run_id, atomic=True)

    def import_chunk(start: int, end: int) -> int:
        done = imports.import_chunk(file_name, opened.report_id, start, end)
        ctx.progress(done, opened.rows)
        return done

    ctx.parallel(
        *(step.run(f"rows {start + 1} to {end}", import_chunk, start, end, atomic=True) for start, end in opened.chunks)
    )

    imported = ctx.run("check the totals", imports.finish, opened.report_id, atomic=True)
    ctx.emit("shop.imported", imported)  # for pages that watch the run
    ctx.notify("tell who waits", IMPORT_FINISHED, {"rows": imported.rows})
    return imported


@dataclass(frozen=True, slots=True)
class ReportToMake:
    """Without a day: yesterday, as the schedule has it."""

    day: date | None = None


@workflow
def mail_report(ctx: WorkflowContext[reports.Day]) -> str:
    """Called by other workflows, with `ctx.invoke`."""
    return ctx.run("send the mail", lambda: reports.mail(ctx.request_payload, ctx.idempotency_key))


@workflow(schedule="0 3 * * *", timezone="Europe/Berlin")
def nightly_report(ctx: WorkflowContext[ReportToMake]) -> reports.Day:
    """Adds up a day. At three each night in Berlin, summer and winter; and whenever somebody asks."""
    day = ctx.request_payload.day or ctx.run("choose the day", reports.yesterday)

    # The import may end between the look and the wait, so it looks again every five seconds. After a minute the report
    # is made of what is there.
    for _ in range(12):
        if not ctx.run("look for a running import", reports.is_import_running):
            break
        ctx.wait_for_event("wait for the import", IMPORT_FINISHED, timeout="5s")

    totals = ctx.run("add up the day", reports.add_up, day, ctx.workflow_run_id, atomic=True)
    mailed = ctx.invoke("mail the owners", mail_report, totals)
    if mailed.is_failed:
        ctx.run("count the day without a mail", reports.note_missing_mail, day)
    return totals


@workflow
async def track_parcel(ctx: AsyncWorkflowContext[OrderToFulfil]) -> str:
    """Who received the parcel. A coroutine: what `gather` awaits together runs together.

    Webhooks need `base_url` in the settings, for an address that others can call.
    """
    order_id = ctx.request_payload.order_id
    label = await ctx.run("print label", orders.print_label, order_id)
    webhook = await ctx.create_webhook("make an address")

    announced, _ = await asyncio.gather(
        ctx.call(
            "tell the courier",
            url=COURIER_URL,
            method="POST",
            headers=SERVICE_HEADERS,
            body={"order": order_id, "callback": webhook.webhook_url},
            retries=3,
        ),
        ctx.run(
            "tell the customer", lambda: orders.send_tracking_mail(order_id, label.tracking_number, ctx.idempotency_key)
        ),
    )
    if not announced.ok:
        raise NonRetryableError(f"The courier does not take the parcel: {announced.status} {announced.text}")

    handed_over = await ctx.wait_for_webhook("wait for the courier", webhook, timeout="7d")
    receiver = "nobody" if handed_over.request is None else handed_over.request.json()["received_by"]
    await ctx.run("note the receiver", orders.mark_received, order_id, receiver)
    return receiver

"""The demo's pages. Every form works without JavaScript; scripts only save a reload.

Everybody sees every run here: the template tag gives each page a token for the run that it shows. A site of your own
decides first who the visitor is, and renders the tag for those who may see the run.
"""

from __future__ import annotations

import json

import httpx
from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from django_workflow import get_client
from example_project.guide.workflows import basic
from example_project.shop import notes, orders, services
from example_project.shop.forms import ComplaintForm, FulfilForm, ReportForm
from example_project.shop.models import (
    Complaint,
    DailyReport,
    DeliveryNote,
    ImportedOrder,
    ImportReport,
    Invoice,
    Order,
    Parcel,
)
from example_project.shop.runs import is_active, latest_run, refused, run_of, started
from example_project.shop.source import highlighted
from example_project.shop.workflows import (
    fulfil_order,
    import_orders,
    nightly_report,
    settle_complaint,
    track_parcel,
    write_delivery_note,
)


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    return render(
        request,
        "shop/home.html",
        {
            "basic_code": highlighted(basic),
            "fulfil_form": FulfilForm(),
            "report_form": _report_form(),
            "order_run": latest_run(fulfil_order),
            "import_run": latest_run(import_orders),
            "parcel_run": latest_run(track_parcel),
            "report_run": latest_run(nightly_report),
            "complaint_run": latest_run(settle_complaint),
            "note_run": latest_run(write_delivery_note),
            "order_code": highlighted(fulfil_order),
            "import_code": highlighted(import_orders),
            "parcel_code": highlighted(track_parcel),
            "report_code": highlighted(nightly_report),
            "complaint_code": highlighted(settle_complaint),
            "note_code": highlighted(write_delivery_note),
        },
    )


# Orders


@require_safe
def order(request: HttpRequest, pk: int) -> HttpResponse:
    shown = get_object_or_404(Order.objects.prefetch_related("lines__product"), pk=pk)
    return render(
        request,
        "shop/order.html",
        {
            "order": shown,
            "is_active": is_active(shown.workflow_run_id),
            "is_waiting": bool(get_client().waiters(f"approve-{pk}")),
            "code": highlighted(fulfil_order),
        },
    )


@require_POST
def fulfil(request: HttpRequest) -> HttpResponseBase:
    form = FulfilForm(request.POST)
    if not form.is_valid():
        return refused(request, "There is no such order.", reverse("shop:home"))
    # The order and its run are one transaction: neither is ever there without the other. The lock makes a second
    # click find the run of the first.
    with transaction.atomic():
        chosen = Order.objects.select_for_update().get(pk=form.cleaned_data["order"].pk)
        if not is_active(chosen.workflow_run_id):
            handle = fulfil_order.using(label=f"order-{chosen.pk}").trigger({"order_id": chosen.pk}, for_object=chosen)
            chosen.workflow_run_id = handle.id
            chosen.save(update_fields=["workflow_run_id"])
    return started(request, chosen.workflow_run_id, chosen.get_absolute_url())


@require_POST
def decide(request: HttpRequest, pk: int) -> HttpResponse:
    decision = {
        "approved": request.POST.get("decision") == "approve",
        "by": request.user.get_username() or "a visitor of the demo",
    }
    # One entry per run that the event reached; none when somebody else was faster.
    if get_client().notify(f"approve-{pk}", decision):
        messages.success(request, "Approved: the order goes on." if decision["approved"] else "Rejected.")
    else:
        messages.warning(request, "Nothing waits for this answer any more.")
    return redirect("shop:order", pk=pk)


@require_POST
def start_over(request: HttpRequest, pk: int) -> HttpResponse:
    with transaction.atomic():
        shown = get_object_or_404(Order.objects.select_for_update(), pk=pk)
        if is_active(shown.workflow_run_id):
            messages.warning(request, "The order's run is still going on.")
        else:
            orders.start_over(shown)
            messages.success(request, "The order is new again.")
    return redirect(shown)


@require_safe
def invoice(request: HttpRequest, pk: int) -> HttpResponse:
    return HttpResponse(get_object_or_404(Invoice, order=pk).text, content_type="text/plain; charset=utf-8")


# The import


@require_safe
def import_page(request: HttpRequest, run_id: str = "") -> HttpResponse:
    run = run_of(import_orders, run_id)
    if run_id and run is None:
        raise Http404("There is no such import.")
    report = ImportReport.objects.filter(workflow_run_id=run.run_id).first() if run else None
    return render(
        request,
        "shop/import.html",
        {
            "run": run,
            "report": report,
            "bad_rows": report.bad_rows.all()[:50] if report else (),
            "orders_in_database": ImportedOrder.objects.count(),
            "code": highlighted(import_orders),
        },
    )


@require_POST
def start_import(request: HttpRequest) -> HttpResponseBase:
    handle = import_orders.trigger({"file_name": "orders.csv"})
    return started(request, handle.id, reverse("shop:import_run", args=[handle.id]))


# Complaints


@require_safe
def complaint_page(request: HttpRequest, run_id: str = "") -> HttpResponse:
    run = run_of(settle_complaint, run_id)
    if run_id and run is None:
        raise Http404("There is no such complaint.")
    return render(
        request,
        "shop/complaint.html",
        {
            "run": run,
            "complaint": Complaint.objects.filter(workflow_run_id=run.run_id).first() if run else None,
            "form": ComplaintForm(initial={"order": request.GET.get("order", "")}),
            "code": highlighted(settle_complaint),
        },
    )


@require_POST
def start_complaint(request: HttpRequest) -> HttpResponseBase:
    form = ComplaintForm(request.POST)
    if not form.is_valid():
        return refused(request, "Say which order it is, and what is wrong with it.", reverse("shop:complaint"))
    with transaction.atomic():
        complaint = Complaint.objects.create(order=form.cleaned_data["order"], text=form.cleaned_data["text"])
        handle = settle_complaint.trigger({"complaint_id": complaint.pk}, for_object=complaint.order)
        complaint.workflow_run_id = handle.id
        complaint.save(update_fields=["workflow_run_id"])
    return started(request, handle.id, reverse("shop:complaint_run", args=[handle.id]))


# A text, word by word


@require_safe
def note_page(request: HttpRequest, run_id: str = "") -> HttpResponse:
    run = run_of(write_delivery_note, run_id)
    if run_id and run is None:
        raise Http404("There is no such run.")
    note = DeliveryNote.objects.filter(workflow_run_id=run.run_id).first() if run else None
    return render(
        request,
        "shop/note.html",
        {
            "run": run,
            "note": note,
            "is_writing": run is not None and note is None and is_active(run.run_id),
            "words": notes.written(run.run_id) if run and note is None else "",
            "form": FulfilForm(),
            "code": highlighted(write_delivery_note),
        },
    )


@require_POST
def start_note(request: HttpRequest) -> HttpResponseBase:
    form = FulfilForm(request.POST)
    if not form.is_valid():
        return refused(request, "There is no such order.", reverse("shop:note"))
    order = form.cleaned_data["order"]
    handle = write_delivery_note.trigger({"order_id": order.pk}, for_object=order)
    return started(request, handle.id, reverse("shop:note_run", args=[handle.id]))


# Several runs on one page


@require_safe
def together(request: HttpRequest) -> HttpResponse:
    return render(
        request,
        "shop/together.html",
        {
            "basic_run": latest_run(basic),
            "import_run": latest_run(import_orders),
            "note_run": latest_run(write_delivery_note),
            "report_run": latest_run(nightly_report),
        },
    )


@require_POST
def start_together(request: HttpRequest) -> HttpResponse:
    order = Order.objects.order_by("pk").first()
    with transaction.atomic():  # all of them, or none
        import_orders.trigger({"file_name": "orders.csv"})
        nightly_report.trigger({"day": _report_form().initial["day"]})
        basic.trigger({"user_id": "visitor", "action": "process"})
        if order is not None:
            write_delivery_note.trigger({"order_id": order.pk})
    return redirect("shop:together")


# The nightly report


@require_safe
def report_page(request: HttpRequest, run_id: str = "") -> HttpResponse:
    run = run_of(nightly_report, run_id)
    if run_id and run is None:
        raise Http404("There is no such report.")
    return render(
        request,
        "shop/report.html",
        {
            "run": run,
            "form": _report_form(),
            "reports": DailyReport.objects.all()[:10],
            "code": highlighted(nightly_report),
        },
    )


@require_POST
def start_report(request: HttpRequest) -> HttpResponseBase:
    form = ReportForm(request.POST)
    if not form.is_valid():
        return refused(request, " ".join(form.errors["day"]), reverse("shop:report"))
    handle = nightly_report.trigger({"day": form.cleaned_data["day"]})
    return started(request, handle.id, reverse("shop:report_run", args=[handle.id]))


# A parcel, and its courier


@require_safe
def parcel_page(request: HttpRequest, run_id: str = "") -> HttpResponse:
    run = run_of(track_parcel, run_id)
    if run_id and run is None:
        raise Http404("There is no such run.")
    return render(
        request,
        "shop/parcel.html",
        {
            "run": run,
            "form": FulfilForm(),
            "parcels": Parcel.objects.exclude(callback_url="").filter(received_by=""),
            "receiver": json.loads(run.result) if run and run.result else "",
            "base_url": settings.DJANGO_WORKFLOW["base_url"],
            "code": highlighted(track_parcel),
        },
    )


@require_POST
def start_parcel(request: HttpRequest) -> HttpResponseBase:
    form = FulfilForm(request.POST)
    if not form.is_valid():
        return refused(request, "There is no such order.", reverse("shop:parcel"))
    order = form.cleaned_data["order"]
    handle = track_parcel.trigger({"order_id": order.pk}, for_object=order)
    return started(request, handle.id, reverse("shop:parcel_run", args=[handle.id]))


@require_POST
def hand_over(request: HttpRequest, pk: int) -> HttpResponse:
    parcel = get_object_or_404(Parcel.objects.exclude(callback_url=""), pk=pk)
    try:
        services.hand_over(parcel, request.POST.get("receiver") or "a neighbour")
    except httpx.HTTPError as error:
        messages.error(request, f"The shop did not take the courier's call: {error}")
    run = run_of(track_parcel, request.POST.get("run", ""))
    return redirect("shop:parcel_run", run.run_id) if run else redirect("shop:parcel")


def _report_form() -> ReportForm:
    """Of a day that has something to add up."""
    newest = ImportedOrder.objects.order_by("-placed_on").first()
    return ReportForm(initial={"day": newest and newest.placed_on})

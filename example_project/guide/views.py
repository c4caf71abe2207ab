"""The guide's page: start one of three workflows and watch it."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from django_workflow import get_client
from django_workflow.models import Run
from example_project.guide.models import Notice
from example_project.guide.workflows import basic, basic_failing, basic_with_approval
from example_project.shop.runs import started
from example_project.shop.source import highlighted

VARIANTS = {each.name: each for each in (basic, basic_with_approval, basic_failing)}


@require_safe
def home(request: HttpRequest, run_id: str = "") -> HttpResponse:
    run = get_object_or_404(Run, run_id=run_id, workflow__in=VARIANTS) if run_id else None
    return render(
        request,
        "guide/home.html",
        {
            "run": run,
            "is_waiting": run is not None and bool(get_client().waiters(f"approval-{run_id}")),
            "notice": Notice.objects.filter(workflow_run_id=run_id).first() if run else None,
            "code": highlighted(VARIANTS[run.workflow if run else "basic"]),
        },
    )


@require_POST
def start(request: HttpRequest, variant: str) -> HttpResponseBase:
    if variant not in VARIANTS:
        raise Http404("There is no such workflow.")
    handle = VARIANTS[variant].trigger({"user_id": request.user.get_username() or "visitor", "action": "process"})
    return started(request, handle.id, reverse("guide:run", args=[handle.id]))


@require_POST
def answer(request: HttpRequest, run_id: str) -> HttpResponse:
    if get_client().notify(f"approval-{run_id}", {"approved": request.POST.get("decision") == "approve"}):
        messages.success(request, "Thank you: the run goes on.")
    else:
        messages.warning(request, "Nothing waits for this answer any more.")
    return redirect("guide:run", run_id)

"""Small things that the pages of shop and guide share: finding a run, and answering a trigger."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.shortcuts import redirect

from django_workflow.models import Run
from django_workflow.realtime.access import make_token


def latest_run(workflow: Any) -> Run | None:
    return Run.objects.filter(workflow=workflow.name).order_by("-created_at").first()


def run_of(workflow: Any, run_id: str) -> Run | None:
    """The run of that id, when it is this workflow's; without an id the latest."""
    return Run.objects.filter(workflow=workflow.name, run_id=run_id).first() if run_id else latest_run(workflow)


def is_active(run_id: str) -> bool:
    return bool(run_id) and Run.objects.active().filter(run_id=run_id).exists()


def started(request: HttpRequest, run_id: str, page: str) -> HttpResponseBase:
    """The answer to a trigger: the page that shows the run; to `<workflow-trigger>`, which asks for JSON, its run id.

    The token lets who started the run follow it.
    """
    if request.accepts("text/html"):
        return redirect(page)
    return JsonResponse({"workflowRunId": run_id, "token": make_token([run_id], respond=True), "url": page})


def refused(request: HttpRequest, reason: str, page: str) -> HttpResponseBase:
    """The answer to a trigger that cannot be: the page with a message, or JSON with the error."""
    if request.accepts("text/html"):
        messages.error(request, reason)
        return redirect(page)
    return JsonResponse({"error": reason}, status=400)

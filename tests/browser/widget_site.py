"""A page that holds the widget under the strictest of policies, and a form that starts a run."""

from __future__ import annotations

import json
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import engines
from django.urls import URLPattern, URLResolver, include, path
from django.utils import timezone

from django_workflow.models import Run
from django_workflow.realtime import access

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

PAGE = """{% load django_workflow %}<!DOCTYPE html>
<html lang="en" dir="{{ dir }}" data-theme="{{ theme }}">
<head><meta charset="utf-8"><title>Widget</title>{% workflow_progress_assets %}</head>
<body><main><h1>A run</h1>
{% if trigger %}
<workflow-trigger>
<form method="post" action="/trigger/">{% csrf_token %}<button name="go" value="1">Start</button></form>
{% workflow_progress None %}</workflow-trigger>
{% else %}
{% workflow_progress run view=view can_respond=respond transport=transport redirect_on_success=redirect %}
{% endif %}
</main></body></html>
"""


def page(request: HttpRequest) -> HttpResponse:
    """`?id=1` gives the tag an id instead of the run."""
    query = request.GET
    run = Run.objects.filter(run_id=query.get("run", "wfr_1")).first()
    context = {
        "run": run.run_id if run and "id" in query else run,
        "view": query.get("view", "steps"),
        "respond": "respond" in query,
        "transport": query.get("transport", "auto"),
        "redirect": query.get("redirect", ""),
        "trigger": "trigger" in query,
        "dir": query.get("dir", "ltr"),
        "theme": query.get("theme", "light"),
    }
    return HttpResponse(engines["django"].from_string(PAGE).render(context, request))


def trigger(request: HttpRequest) -> HttpResponse:
    if request.POST.get("go") != "1":
        return JsonResponse({"error": "Nothing to do."}, status=400)
    run = Run.objects.create(run_id="wfr_started", workflow="started", url="x", created_at=timezone.now())
    return JsonResponse({"workflowRunId": run.run_id, "token": access.make_token([run.run_id])})


def notify(request: HttpRequest, event_id: str) -> HttpResponse:
    """Stands for the API: `refuse` was answered by somebody else, `form` has errors."""
    if event_id == "form" and request.POST["wf1-amount"] != "7":
        fields = {"amount": ["Enter seven."]}
        return JsonResponse({"detail": "The form has errors.", "errors": fields}, status=400)
    try:
        data = json.loads(request.POST.get("eventData", "null"))
    except ValueError as error:
        return JsonResponse({"detail": f"The answer is not understood: {error}."}, status=400)
    answers.append((event_id, request.GET.get("run", ""), data))
    if event_id == "refuse":
        return JsonResponse({"detail": "Too late."}, status=409)
    return JsonResponse({"success": True, "resolved": 1})


answers: list[tuple[str, str, object]] = []


def strict_policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return middleware


workflow_urls: tuple[list[URLPattern | URLResolver], str] = (
    [
        path("realtime/", include("django_workflow.realtime.urls")),
        path("api/events/<path:event_id>/notify/", notify),
    ],
    "django_workflow",
)
urlpatterns = [
    path("", page),
    path("trigger/", trigger),
    path("workflows/", include(workflow_urls)),
]

"""Included at `realtime/`; the WebSocket is in `routing`."""

from __future__ import annotations

from django.urls import path

from django_workflow.realtime import views
from django_workflow.realtime.sse import sse

urlpatterns = [
    path("sse/", sse, name="realtime-sse"),
    path("poll/", views.poll, name="realtime-poll"),
    path("run/<path:run_id>/", views.run_fragment, name="realtime-run"),
]

"""Included at `api/` under the namespace `django_workflow`. Run ids have no slash; event ids may have."""

from __future__ import annotations

from django.urls import path

from django_workflow.api import views
from django_workflow.api.openapi import is_available

urlpatterns = [
    path("workflows/", views.WorkflowListView.as_view(), name="workflows"),
    path("workflows/<str:name>/trigger/", views.TriggerView.as_view(), name="trigger"),
    path("runs/", views.RunListView.as_view(), name="runs"),
    path("runs/<str:run_id>/", views.RunDetailView.as_view(), name="run"),
    path("runs/<str:run_id>/steps/", views.RunStepsView.as_view(), name="run-steps"),
    path("runs/<str:run_id>/events/", views.RunEventsView.as_view(), name="run-events"),
    path("runs/<str:run_id>/cancel/", views.CancelView.as_view(), name="run-cancel"),
    path("waiters/", views.WaiterListView.as_view(), name="waiters"),
    path("events/<path:event_id>/notify/", views.NotifyView.as_view(), name="notify"),
    path("schedules/", views.ScheduleListView.as_view(), name="schedules"),
    path("dead-letters/", views.DeadLetterListView.as_view(), name="dead-letters"),
]

if is_available():
    from django_workflow.api.schema import SchemaView

    urlpatterns.append(path("schema/", SchemaView.as_view(), name="api-schema"))

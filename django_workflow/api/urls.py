"""Included at `api/` under the namespace `django_workflow`. Run ids have no slash; event ids may have."""

from __future__ import annotations

from django.urls import path

from django_workflow.api import acting, views
from django_workflow.api.openapi import is_available

urlpatterns = [
    path("workflows/", views.WorkflowListView.as_view(), name="workflows"),
    path("workflows/<str:name>/trigger/", views.TriggerView.as_view(), name="trigger"),
    path("runs/", views.RunListView.as_view(), name="runs"),
    path("runs/<str:run_id>/", views.RunDetailView.as_view(), name="run"),
    path("runs/<str:run_id>/steps/", views.RunStepsView.as_view(), name="run-steps"),
    path("runs/<str:run_id>/events/", views.RunEventsView.as_view(), name="run-events"),
    path("runs/<str:run_id>/cancel/", acting.CancelView.as_view(), name="run-cancel"),
    path("runs/<str:run_id>/pause/", acting.PauseView.as_view(), name="run-pause"),
    path("runs/<str:run_id>/unpause/", acting.UnpauseView.as_view(), name="run-unpause"),
    path("runs/<str:run_id>/retry-now/", acting.RetryNowView.as_view(), name="run-retry-now"),
    path("runs/<str:run_id>/resume/", acting.ResumeView.as_view(), name="run-resume"),
    path("runs/<str:run_id>/restart/", acting.RestartView.as_view(), name="run-restart"),
    path("runs/<str:run_id>/fork/", acting.ForkView.as_view(), name="run-fork"),
    path("runs/<str:run_id>/start-similar/", acting.StartSimilarView.as_view(), name="run-start-similar"),
    path("runs/<str:run_id>/mark-handled/", acting.MarkHandledView.as_view(), name="run-mark-handled"),
    path(
        "runs/<str:run_id>/retry-failure-function/",
        acting.RetryFailureFunctionView.as_view(),
        name="run-retry-failure-function",
    ),
    path("runs/<str:run_id>/reveal/", acting.RevealView.as_view(), name="run-reveal"),
    path("bulk-operations/", acting.BulkOperationListView.as_view(), name="bulk-operations"),
    path("bulk-operations/start/", acting.BulkStartView.as_view(), name="bulk-start"),
    path("bulk-operations/<str:pk>/", acting.BulkOperationView.as_view(), name="bulk-operation"),
    path("bulk-operations/<str:pk>/abort/", acting.BulkAbortView.as_view(), name="bulk-abort"),
    path("waiters/", views.WaiterListView.as_view(), name="waiters"),
    path("events/<path:event_id>/notify/", views.NotifyView.as_view(), name="notify"),
    path("schedules/", views.ScheduleListView.as_view(), name="schedules"),
    path("dead-letters/", views.DeadLetterListView.as_view(), name="dead-letters"),
]

if is_available():
    from django_workflow.api.schema import SchemaView

    urlpatterns.append(path("schema/", SchemaView.as_view(), name="api-schema"))

"""URLs of the package: `path("workflows/", include("django_workflow.urls"))`."""

from __future__ import annotations

from django.urls import include, path

app_name = "django_workflow"

urlpatterns = [
    path("", include("django_workflow.serve.urls")),
    path("api/", include("django_workflow.api.urls")),
    path("qstash/", include("django_workflow.engine.http_api.urls")),
    path("hooks/", include("django_workflow.engine.hooks")),
    path("health/", include("django_workflow.health")),
    path("realtime/", include("django_workflow.realtime.urls")),
]

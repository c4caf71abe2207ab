"""The demo's URLs: the shop's pages at the root, the seed guide's page, the admin, and the workflows."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("example_project.shop.urls")),
    path("guide/", include("example_project.guide.urls")),
    path("admin/", admin.site.urls),
    # Endpoints of the workflows, REST API and realtime connections.
    path("workflows/", include("django_workflow.urls")),
]

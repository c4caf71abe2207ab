"""The demo's URLs: the shop's pages at the root, the seed guide's page, the admin, and the workflows."""

from __future__ import annotations

from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", include("example_project.shop.urls")),
    path("guide/", include("example_project.guide.urls")),
    # The admin's pages name no icon, so browsers ask for this one.
    path("favicon.ico", RedirectView.as_view(url=static("shop/mark.svg"))),
    path("admin/", admin.site.urls),
    # Endpoints of the workflows, REST API and realtime connections.
    path("workflows/", include("django_workflow.urls")),
]

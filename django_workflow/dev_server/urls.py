"""URLs of the development server: the engine's API at the root, as SDKs expect it, and the admin beside it."""

from __future__ import annotations

from django.apps import apps
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.generic import RedirectView

HERE = "The development server of django_workflow. Its API is at /v2/, as that of QStash.\n"


def front(request: HttpRequest) -> HttpResponse:
    """What somebody sees who opens the address in a browser."""
    watch = "Runs and messages: /admin/\n" if apps.is_installed("django.contrib.admin") else ""
    return HttpResponse(HERE + watch, content_type="text/plain; charset=utf-8")


urlpatterns = [path("", front), path("", include("django_workflow.engine.http_api.urls"))]

if apps.is_installed("django.contrib.admin"):
    from django.contrib import admin

    urlpatterns += [path("admin/", admin.site.urls), path("admin", RedirectView.as_view(url="/admin/"))]

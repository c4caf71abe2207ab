"""URLs of a project whose pages of workflows stand on an AdminSite of its own, beside the default one."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from django_workflow import models

site = admin.AdminSite(name="operations")
for model, model_admin in admin.site._registry.items():
    if model._meta.app_label == models.Run._meta.app_label:
        site.register(model, type(model_admin))

urlpatterns = [
    path("admin/", admin.site.urls),
    path("operations/", site.urls),
    path("workflows/", include("django_workflow.urls")),
]

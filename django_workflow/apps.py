"""The composition root: finds the workflows of the project and wires engine, client and realtime together."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DjangoWorkflowConfig(AppConfig):
    name = "django_workflow"
    verbose_name = _("Workflows")
    default_auto_field = "django.db.models.BigAutoField"

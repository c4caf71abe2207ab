from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class OpenTelemetryConfig(AppConfig):
    name = "django_workflow.contrib.opentelemetry"
    label = "django_workflow_opentelemetry"
    verbose_name = _("Traces of workflows")

    def ready(self) -> None:
        from django_workflow.contrib.opentelemetry.tracing import Tracing
        from django_workflow.replay.instruments import use_instrument

        use_instrument(Tracing())

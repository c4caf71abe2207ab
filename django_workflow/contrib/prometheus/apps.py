from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class PrometheusConfig(AppConfig):
    name = "django_workflow.contrib.prometheus"
    label = "django_workflow_prometheus"
    verbose_name = _("Metrics of workflows")

    def ready(self) -> None:
        from django_workflow.contrib.prometheus import metrics

        metrics.connect()

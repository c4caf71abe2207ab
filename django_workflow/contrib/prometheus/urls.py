"""`path("metrics/", include("django_workflow.contrib.prometheus.urls"))`: metrics in Prometheus' text form.

They tell names of workflows and numbers, and no data of runs. Who may read them is the project's matter: its proxy's
rules, or a path that is no secret but not guessed either.
"""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.http import require_safe
from prometheus_client.exposition import choose_encoder

from django_workflow.contrib.prometheus.metrics import registry


@login_not_required
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(registry()), content_type=content_type)


urlpatterns = [path("", metrics, name="workflow-metrics")]

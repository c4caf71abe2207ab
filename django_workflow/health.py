"""`health/`: whether the engine works, for load balancers and monitoring. 200 when it does, 503 when not.

    {"status": "pass", "checks": {"database": "pass", "worker": "pass", "overdue": "pass"}}

`?check=database` asks for that alone (several are given several times): a load balancer should not take web processes
away because a worker is. Two cheap queries, no names, no secrets; the admin's health page tells the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from django.db import DatabaseError, InterfaceError, connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from django_workflow.conf import get_settings
from django_workflow.machine_views import machine_view
from django_workflow.models import Delivery
from django_workflow.presentation.health import OVERDUE
from django_workflow.presentation.lookup import has_living_worker

logger = logging.getLogger("django_workflow.health")


def _answers(now: datetime) -> bool:
    with connections[get_settings().database].cursor() as cursor:
        cursor.execute("SELECT 1")
    return True


def _keeps_up(now: datetime) -> bool:
    """Whether nothing has been due for over a minute, but what a flow-control key or a queue holds back."""
    late = Delivery.objects.using(get_settings().database).unleased().due(now - OVERDUE)
    return not late.filter(flow_key="", queue="").exists()


CHECKS: dict[str, Callable[[datetime], bool]] = {
    "database": _answers,
    "worker": has_living_worker,
    "overdue": _keeps_up,
}


@machine_view
@never_cache
@require_safe
def health(request: HttpRequest) -> HttpResponse:
    wanted = request.GET.getlist("check") or list(CHECKS)
    unknown = [name for name in wanted if name not in CHECKS]
    if unknown:
        return JsonResponse({"error": f"There is no such check; known are {', '.join(CHECKS)}."}, status=400)
    now = timezone.now()
    found = {name: "pass" if _passes(name, now) else "fail" for name in wanted}
    failed = "fail" in found.values()
    return JsonResponse({"status": "fail" if failed else "pass", "checks": found}, status=503 if failed else 200)


def _passes(name: str, now: datetime) -> bool:
    try:
        return CHECKS[name](now)
    except (DatabaseError, InterfaceError) as error:
        logger.error("The check %s found no database: %s", name, error)
        return False


urlpatterns = [path("", health, name="health")]

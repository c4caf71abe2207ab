"""Adding up a day: the steps of `workflows.nightly_report`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.core.mail import EmailMessage
from django.db.models import Sum
from django.utils import timezone

from example_project.shop import imports
from example_project.shop.models import DailyReport, ImportReport, Order

logger = logging.getLogger(__name__)

BERLIN = ZoneInfo("Europe/Berlin")


@dataclass(frozen=True, slots=True)
class Day:
    day: date
    orders: int
    turnover: Decimal
    imported_orders: int
    imported_turnover: Decimal


def yesterday() -> date:
    """A step, not a line of the workflow: a run that goes on after midnight keeps the day that it began with."""
    return (timezone.now().astimezone(BERLIN) - timedelta(days=1)).date()


def is_import_running() -> bool:
    """One that was left unfinished for an hour has failed."""
    return ImportReport.objects.filter(finished_at=None, started_at__gt=timezone.now() - timedelta(hours=1)).exists()


def add_up(day: date, run_id: str) -> Day:
    shipped = Order.objects.filter(status=Order.Status.SHIPPED, created_at__date=day)
    imported_orders, imported_turnover = imports.totals(day)
    totals = Day(
        day=day,
        orders=shipped.count(),
        turnover=shipped.aggregate(total=Sum("total"))["total"] or Decimal("0.00"),
        imported_orders=imported_orders,
        imported_turnover=imported_turnover,
    )
    DailyReport.objects.update_or_create(
        day=day,
        defaults={
            "orders": totals.orders,
            "turnover": totals.turnover,
            "imported_orders": totals.imported_orders,
            "imported_turnover": totals.imported_turnover,
            "workflow_run_id": run_id,
        },
    )
    return totals


def note_missing_mail(day: date) -> None:
    logger.warning("the report of %s was not mailed; it stands in the admin", day)


def mail(totals: Day, key: str) -> str:
    """Send the report to the owners; the subject, for who looks at the run."""
    subject = f"{totals.day}: {totals.orders + totals.imported_orders} orders"
    EmailMessage(
        subject=subject,
        body=(
            f"Shop:     {totals.orders} orders, {totals.turnover} EUR\n"
            f"Imported: {totals.imported_orders} orders, {totals.imported_turnover} EUR\n"
        ),
        to=["owners@example.com"],
        headers={"Message-ID": f"<{key}@shop.example.com>"},
    ).send()
    return subject

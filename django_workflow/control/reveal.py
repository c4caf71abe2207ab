"""Showing somebody what is hidden of a run: by permission, for a reason, and never without a note of it.

    revealed = reveal(run, by=request.user, reason="customer asks what went wrong, ticket 4711")

Credentials in headers stay hidden from everybody.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from django_workflow.control.action import ActionRefused, may
from django_workflow.control.history import LONGEST_REASON, write
from django_workflow.models import Run, Step
from django_workflow.presentation import values

logger = logging.getLogger("django_workflow.control")

PERMISSION = "view_payload"


@dataclass(frozen=True, slots=True)
class Revealed:
    """A run's values with nothing hidden. `results` is keyed by step number; steps without a result are left out."""

    payload: Any
    result: Any
    results: dict[int, Any]


def why_not(user: Any) -> str:
    """Why nothing can be revealed to a user; "" when it can."""
    return "" if may(user, PERMISSION) else _("You do not have the permission “%s”.") % PERMISSION


def reveal(run: Run, *, by: Any, reason: str) -> Revealed:
    """What is hidden of a run, after a note in its history of who asked for it (`by`, a user) and why.

    Raises ActionRefused without the permission `view_payload`, and without a reason.
    """
    reason = reason.strip()
    why = why_not(by) or ("" if reason else _("Say why you need to see it: the reason is noted."))
    if why:
        raise ActionRefused(why)
    write(run, by=by, message=_("Revealed payload and results."), reason=reason)
    logger.warning(
        "payload and results of run %s were revealed to %s: %s",
        run.run_id,
        by.get_username(),
        reason[:LONGEST_REASON],
        extra={"run_id": run.run_id},
    )
    steps: list[Step] = list(run.steps.order_by("step_id"))
    return Revealed(
        payload=values.payload_of(run, revealed=True),
        result=values.result_of(run, revealed=True),
        results=values.step_results(run, steps, revealed=True),
    )

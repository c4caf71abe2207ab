"""All that people can do to a run, by name: what admin, API and commands offer.

action = ACTIONS["cancel"]
why = action.why_not(run, user=request.user)     # "" when it can be done now
outcome = action.perform(run, by=request.user, reason="ordered twice")
"""

from __future__ import annotations

from collections.abc import Mapping

from django_workflow.control.action import Action, ActionRefused, Outcome, may
from django_workflow.control.again import Fork, Restart, Resume, StartSimilar
from django_workflow.control.living import Cancel, Notify, Pause, RetryNow, Unpause
from django_workflow.control.over import Delete, MarkHandled, RetryFailureFunction

__all__ = ["ACTIONS", "Action", "ActionRefused", "Outcome", "may"]

ACTIONS: Mapping[str, Action] = {
    action.name: action
    for action in (
        Cancel(),
        Pause(),
        Unpause(),
        RetryNow(),
        Notify(),
        Resume(),
        Restart(),
        Fork(),
        StartSimilar(),
        MarkHandled(),
        RetryFailureFunction(),
        Delete(),
    )
}

"""Limits of how often the API may be called: a project gives rates to scopes, and what has no rate is not limited.

    REST_FRAMEWORK = {"DEFAULT_THROTTLE_RATES": {"workflow_read": "600/min", "workflow_trigger": "60/min"}}

They come on top of the classes in DEFAULT_THROTTLE_CLASSES, which apply here as everywhere.
"""

from __future__ import annotations

from typing import cast

from rest_framework.settings import api_settings
from rest_framework.throttling import ScopedRateThrottle

READ = "workflow_read"
TRIGGER = "workflow_trigger"
ANSWER = "workflow_answer"
CONTROL = "workflow_control"


class WorkflowThrottle(ScopedRateThrottle):
    """DRF's own, with an attribute of its own on the views, and without an error for a scope that has no rate."""

    scope_attr = "workflow_throttle_scope"

    def get_rate(self) -> str | None:
        # Read late: DRF's class takes the rates when it is imported.
        return cast("str | None", (api_settings.DEFAULT_THROTTLE_RATES or {}).get(self.scope or ""))

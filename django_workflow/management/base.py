"""What the commands share."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import BaseCommand


class WorkflowCommand(BaseCommand):
    """A command that leaves colours away where the variable NO_COLOR is set. Source: no-color.org"""

    def execute(self, *args: Any, **options: Any) -> str | None:
        if os.environ.get("NO_COLOR") and not options.get("force_color"):
            options["no_color"] = True
        return super().execute(*args, **options)

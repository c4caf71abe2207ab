"""Drives a run in the caller's process when no worker is up: `workflow_trigger --wait` on a machine without one."""

from __future__ import annotations

from collections.abc import Callable

from django_workflow.conf import get_settings
from django_workflow.engine.supervisor import Supervisor
from django_workflow.models import Run


def drive_inline(run_id: str, wait: Callable[[Run], bool]) -> None:
    """Run a worker in this process until `wait(run)` says that it is enough; it is called again and again."""
    supervisor = Supervisor()
    supervisor.start()
    try:
        while not wait(Run.objects.using(get_settings().database).get(run_id=run_id)):
            pass
    finally:
        supervisor.stop()

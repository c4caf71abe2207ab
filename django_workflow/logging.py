"""Log lines that say which run they belong to: a filter for the handlers of the project's LOGGING.

    "filters": {"workflow": {"()": "django_workflow.logging.RunContextFilter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "filters": ["workflow"], …}},

It reads what is known anyway while a workflow runs, so lines of the project's own code have the fields too.
"""

from __future__ import annotations

import logging

from django_workflow.replay.instruments import current_run
from django_workflow.replay.step_call import current_step


class RunContextFilter(logging.Filter):
    """Gives every record `run_id`, `workflow`, `step` and `attempt`; empty text outside of a run. Drops none.

    `attempt` is 1 for the first one. A record that brings a field itself (`extra=`) keeps it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        call, step = current_run.get(), current_step.get()
        fields = {
            "run_id": "" if call is None else call.run_id,
            "workflow": "" if call is None else call.workflow,
            "step": "" if step is None else step.name,
            "attempt": "" if call is None else call.retried + 1,
        }
        for name, value in fields.items():
            if getattr(record, name, None) in (None, ""):
                setattr(record, name, value)
        return True

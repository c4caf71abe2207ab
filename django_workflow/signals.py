"""What happens to runs and steps, for code outside.

Sent with `send_robust` after the commit that made it true, at most once: a process that dies in between sends nothing.
All carry `run` (a Run, as committed) unless said otherwise.
"""

from __future__ import annotations

from django.dispatch import Signal

run_started = Signal()
"""The first call of a run was accepted."""

step_completed = Signal()
"""A step's result was stored. `step`: the Step."""

step_failed = Signal()
"""An attempt of a step failed. `step_name`, `error` (text), `will_retry`."""

run_finished = Signal()
"""A run reached its end: `run.status` is success, failed or canceled."""

delivery_failed = Signal()
"""A delivery will not be tried again. `delivery`: the Delivery as it was."""

channel_events_stored = Signal()
"""Events were committed. `channels`: dict of channel name -> position of its newest event."""

channel_events_committed = Signal()
"""Events of runs whose changes were committed, for a store outside the database. `events`: (channel, name, JSON)."""

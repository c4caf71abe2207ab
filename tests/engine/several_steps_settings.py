"""Settings of worker processes whose calls run several steps."""

from __future__ import annotations

from tests.settings import *  # noqa: F403

DJANGO_WORKFLOW = {"steps_per_call": 5}

"""Settings of worker processes whose deliveries go to a server of the test."""

from __future__ import annotations

from tests.settings import *  # noqa: F403

DJANGO_WORKFLOW = {"call_allow": ("127.0.0.1",)}

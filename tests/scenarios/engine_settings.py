"""Settings of an engine in a process of its own: its own database file, its API open, calls to this machine allowed."""

from __future__ import annotations

from typing import Any

from tests.settings import *  # noqa: F403 - the test project's

DJANGO_WORKFLOW: dict[str, Any] = {"engine_api": True, "call_allow": ["127.0.0.0/8"]}

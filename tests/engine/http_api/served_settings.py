"""The test project with the engine's API, for servers in processes of their own."""

from __future__ import annotations

from tests.settings import *  # noqa: F403

DJANGO_WORKFLOW = {"engine_api": True, "worker_autostart": False}

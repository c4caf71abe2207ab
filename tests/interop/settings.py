"""Settings of the server that the official clients talk to: the test project with the engine's HTTP door open."""

from __future__ import annotations

from typing import Any

from tests.settings import *  # noqa: F403 - all that the test project has

DJANGO_WORKFLOW: dict[str, Any] = {
    "engine_api": True,
    "worker_autostart": True,
    # The endpoints and the services that they call are all on this machine.
    "call_allow": ["127.0.0.0/8", "::1"],
    # Where nobody asks for another delay: milliseconds, so that no test waits for the usual twelve seconds.
    "retry_delay": "20",
    "max_result_bytes": 16 * 1024 * 1024,
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}

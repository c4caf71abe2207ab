"""A Django server for the official clients: `python -m tests.interop.server`, ended by SIGTERM or the end of its input.

It makes a database of its own, on the server that the usual variables name, opens a port that is free, and prints one
line when it answers: a JSON object with `origin`, `environment` (what `workflow_keys` prints) and `login` (of a
superuser of the REST API). The worker runs in the same process, as `workflow_application()` starts it.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
import threading
from io import StringIO

import django
import uvicorn

HOST = "127.0.0.1"


def main() -> None:
    with socket.create_server((HOST, 0)) as listener:
        origin = f"http://{HOST}:{listener.getsockname()[1]}"
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.interop.settings"
        django.setup()
        # uvicorn raises the signal again when it has shut down; the database is thrown away after that.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        threading.Thread(target=end_with_input, daemon=True).start()
        with own_database():
            from tests.asgi import application  # starts the worker, so it must not come before its database

            ready = {"origin": origin, "environment": environment_block(origin), "login": make_superuser()}
            Server(uvicorn.Config(application, log_config=None, access_log=False, ws="none"), ready).run(
                sockets=[listener]
            )


def end_with_input() -> None:
    """The tests hold the other end of our input: when they are gone, so are we."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


class own_database:
    """Makes the test database of the settings, and throws it away at the end."""

    def __enter__(self) -> None:
        from django.db import connection

        self._name = str(connection.settings_dict["NAME"])
        connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)

    def __exit__(self, *error: object) -> None:
        from django.db import connection

        connection.creation.destroy_test_db(self._name, verbosity=0)


def environment_block(origin: str) -> str:
    from django.core.management import call_command

    printed = StringIO()
    call_command("workflow_keys", url=origin, stdout=printed)
    return printed.getvalue()


def make_superuser() -> list[str]:
    """Name and password of somebody who may read everything."""
    from django.contrib.auth import get_user_model

    password = secrets.token_urlsafe()
    get_user_model().objects.create_superuser("interop", password=password)
    return ["interop", password]


class Server(uvicorn.Server):
    """Says on stdout when it has started."""

    def __init__(self, config: uvicorn.Config, ready: dict[str, object]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(json.dumps(self._ready), flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m django_workflow.dev_server`: takes what the server needs, in the order in which it may be refused.

The port first, so that a server that runs already is found at once; then a place for the data; then Django, which is
configured in code. What is taken is given back at the end, however it ends.
"""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence

from django.core.management.color import supports_color

from django_workflow.dev_server import ports, settings
from django_workflow.dev_server.errors import CannotStart
from django_workflow.dev_server.settings import ADMIN_NAME
from django_workflow.dev_server.storage import database_file
from django_workflow.dev_server.users import USERS, User
from django_workflow.management.dev_server import Options, add_options

ABOUT = """\
A server that stands in for `qstash dev`: messages, queues, schedules and workflows, for SDKs in any language.
SDKs with QSTASH_DEV=true find it by themselves; others take the variables that it prints.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is told to stop. 0: told to, or one runs already; 1: it cannot start; 2: bad options."""
    options = Options.of(vars(_parser().parse_args(arguments)))
    user = USERS[options.user]
    try:
        _serve(options, user)
    except ports.PortTaken as error:
        return _told_that_it_is_taken(options, user, error)
    except CannotStart as error:
        print(error, file=sys.stderr)
        return 1
    except _Stopped:
        pass
    return 0


def _serve(options: Options, user: User) -> None:
    signals = _Signals()
    with ports.listening(options.host, options.port) as sockets, database_file(options.database) as file:
        origin = _origin(options.host, sockets[0].getsockname()[1])
        settings.configure(options, user, origin, file)

        # These need configured settings.
        from django_workflow.dev_server import events, serving

        serving.prepare(user)
        password = serving.admin_login(public=settings.is_public(options.host)) if options.admin else ""
        color = supports_color() and "NO_COLOR" not in os.environ if options.color is None else options.color
        events.start(options.verbosity, color)
        server = serving.DevServer(sockets, admin=options.admin)
        signals.stop = server.stop
        server.run(ready=lambda: _say_ready(options, user, origin, password))


class _Signals:
    """Ctrl-C, SIGTERM and a closed terminal: each ends the server, or its start as long as there is no server."""

    def __init__(self) -> None:
        self.stop: Callable[[], None] = _leave
        for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):  # nohup
                signal.signal(number, lambda *_: self.stop())


class _Stopped(BaseException):
    """A signal came before there was a server to stop."""


def _leave() -> None:
    raise _Stopped


def _told_that_it_is_taken(options: Options, user: User, error: ports.PortTaken) -> int:
    """A second start finds the first server: that is what was asked for, unless the data had to be somewhere else."""
    host = ports.host_to_call(options.host)
    if not ports.answers_as(user, host, options.port):
        print(error, file=sys.stderr)
        return 1
    origin = _origin(options.host, options.port)
    print(f"A development server of user {options.user} is already running at {origin}; this one was not started.")
    if options.database is not None:
        print(f"Whether it keeps its data in {options.database} is not known: stop it first.", file=sys.stderr)
        return 1
    print(_variables(user, origin), flush=True)
    return 0


# What is printed


def _say_ready(options: Options, user: User, origin: str, password: str) -> None:
    """SDKs that start a server look for "running at" or "running."; people and scripts take the variables."""
    kept = (
        f"kept in {options.database}"
        if options.database
        else "in memory: gone when the server ends (--database FILE keeps it)"
    )
    lines = [
        f"The development server of django_workflow is running at {origin}",
        "",
        _variables(user, origin),
        "",
        "Sample cURL request:",
        f'curl -X POST {origin}/v2/publish/https://example.com -H "Authorization: Bearer {user.token}"',
        "",
        *([f"Admin  {origin}/admin/ ({ADMIN_NAME} / {password})"] if options.admin else []),
        f"Data   {kept}",
        "Stop   Ctrl-C",
        "",
    ]
    print("\n".join(lines), flush=True)


def _variables(user: User, origin: str) -> str:
    values = {
        "QSTASH_URL": origin,
        "QSTASH_TOKEN": user.token,
        "QSTASH_CURRENT_SIGNING_KEY": user.current_signing_key,
        "QSTASH_NEXT_SIGNING_KEY": user.next_signing_key,
    }
    return "\n".join(f"{name}={value}" for name, value in values.items())


def _origin(host: str, port: int) -> str:
    name = ports.host_to_call(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _parser() -> ArgumentParser:
    parser = ArgumentParser("python -m django_workflow.dev_server", description=ABOUT)
    add_options(parser)
    # As Django's commands have them.
    parser.add_argument(
        "-v",
        "--verbosity",
        type=int,
        choices=(0, 1, 2, 3),
        default=1,
        help="0 no events, 1 messages and runs, 2 every call",
    )
    parser.add_argument("--no-color", action="store_true", help="no colours on a terminal either")
    parser.add_argument("--force-color", action="store_true", help="colours in files and pipes as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())

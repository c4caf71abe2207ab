"""The options of the development server, for `python -m django_workflow.dev_server` and `manage.py` alike.

The command of a project only passes them on, so they stand below the server and know nothing of it.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PORT_VARIABLE = "QSTASH_DEV_PORT"
DEFAULT_PORT = 8080
DEFAULT_HOST = "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for. `verbosity`: 0 no events, 1 messages and runs, 2 every call, 3 the engine's thoughts."""

    port: int = DEFAULT_PORT
    host: str = DEFAULT_HOST
    user: int = 1
    database: Path | None = None
    admin: bool = True
    verbosity: int = 1
    color: bool | None = None

    @classmethod
    def of(cls, parsed: Mapping[str, Any]) -> Options:
        """Options from what a parser with `add_options` found, and with Django's own -v and colours."""
        color = True if parsed.get("force_color") else False if parsed.get("no_color") else None
        return cls(
            port=parsed["port"],
            host=parsed["host"],
            user=parsed["user"],
            database=Path(parsed["database"]) if parsed["database"] else None,
            admin=not parsed["no_admin"],
            verbosity=0 if parsed["quiet"] else parsed["verbosity"],
            color=color,
        )

    def arguments(self) -> list[str]:
        """The command line that says the same."""
        line = [f"--port={self.port}", f"--host={self.host}", f"--user={self.user}", f"--verbosity={self.verbosity}"]
        if self.database is not None:
            line.append(f"--database={self.database}")
        if not self.admin:
            line.append("--no-admin")
        if self.color is not None:
            line.append("--force-color" if self.color else "--no-color")
        return line


def add_options(parser: ArgumentParser) -> None:
    """The options that are the server's own."""
    parser.add_argument(
        "--port",
        "-port",  # as the flags of `qstash dev` are written
        type=_port,
        default=os.environ.get(PORT_VARIABLE) or str(DEFAULT_PORT),
        help=f"port of the API; default: the variable {PORT_VARIABLE}, else {DEFAULT_PORT}; 0: any free one",
    )
    parser.add_argument(
        "--host",
        default=DEFAULT_HOST,
        help="address to listen at; default: this machine alone. The token is public: others may then use the server",
    )
    parser.add_argument(
        "--user",
        type=int,
        choices=(1, 2, 3, 4),
        default=1,
        help="which of the four public development users; default 1",
    )
    parser.add_argument(
        "--database", metavar="FILE", help="SQLite file that keeps messages and runs; default: in memory"
    )
    parser.add_argument("--no-admin", action="store_true", help="serve no Django admin at /admin/")
    parser.add_argument("--quiet", action="store_true", help="say nothing of messages and runs; same as --verbosity 0")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is no port: give a number up to 65535")
    return int(text)

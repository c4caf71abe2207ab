"""`manage.py workflow_dev_server`: the development server, in a process that knows nothing of this project."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from django_workflow.management.dev_server import Options, add_options

SERVER = "django_workflow.dev_server"


class Command(BaseCommand):
    help = (
        "Run a server that stands in for `qstash dev`, for SDKs in any language. It is a process of its own, the same "
        f"as `python -m {SERVER}`: this project's settings and database are neither read nor changed."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        command = [sys.executable, "-m", SERVER, *Options.of(options).arguments()]
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        if os.name == "posix":
            sys.stdout.flush()
            os.execve(sys.executable, command, environment)
        # Windows has no exec that keeps the console: the parent waits. Ctrl-C reaches both, and the child ends it.
        with subprocess.Popen(command, env=environment) as server:
            while True:
                try:
                    sys.exit(server.wait())
                except KeyboardInterrupt:
                    continue

"""`manage.py workflow_worker`: a worker process of its own."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from queue import Empty, SimpleQueue
from typing import Any

from django.apps import apps
from django.core.management.base import CommandError
from django.utils import timezone
from django.utils.autoreload import run_with_reloader

from django_workflow.conf import get_settings
from django_workflow.engine.supervisor import Supervisor
from django_workflow.management.base import WorkflowCommand
from django_workflow.mirror.worker import HostedWorker

HEALTH_INTERVAL = 5.0

EPILOG = """
exit codes:
  0  drained
  1  stopped with deliveries under way, which others make again; or a bad option
  2  half of the pool was stuck in steps past request_timeout: start it again
"""


class Command(WorkflowCommand):
    help = "Run a workflow worker until SIGTERM or Ctrl-C; both drain: what runs is finished, nothing new is taken."

    as_json = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.formatter_class = RawDescriptionHelpFormatter
        parser.epilog = EPILOG
        parser.add_argument("--concurrency", type=int, metavar="N", help="deliveries in flight; default: the setting")
        parser.add_argument(
            "--metrics-port", type=int, help="serve metrics for Prometheus at this port (extra prometheus)"
        )
        parser.add_argument("--reload", action="store_true", help="restart when code changes (development)")
        parser.add_argument("--json", action="store_true", help="tell start and end as lines of JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["concurrency"] is not None and options["concurrency"] < 1:
            raise CommandError("--concurrency must be at least 1.")
        self.as_json = options["json"]
        if options["metrics_port"] is not None:
            self.serve_metrics(options["metrics_port"])
        if options["reload"]:
            run_with_reloader(self.work, options["concurrency"])
        else:
            sys.exit(self.work(options["concurrency"]))

    def serve_metrics(self, port: int) -> None:
        """Answer scrapes of this process, which has no web server, on a thread of its own."""
        if not apps.is_installed("django_workflow.contrib.prometheus"):
            raise CommandError("--metrics-port needs django_workflow.contrib.prometheus in INSTALLED_APPS.")
        from prometheus_client import start_http_server

        from django_workflow.contrib.prometheus.metrics import registry

        try:
            start_http_server(port, registry=registry())
        except (OSError, OverflowError) as error:
            raise CommandError(f"No metrics can be served at port {port}: {error}") from error

    def work(self, concurrency: int | None) -> int:
        """Run until told to stop. 0: drained; 1: deliveries were left under way; 2: the pool is stuck."""
        # Not an Event: its lock may be held by the very thread that a signal interrupts, and then nobody ever wakes up.
        told: SimpleQueue[int] = SimpleQueue()
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda number, _: told.put(number))
        except ValueError:  # under the reloader this is not the main thread; it ends us itself
            self.stderr.write("Running under the reloader: stopping abandons what runs; it is taken up again.")
        # A hosted engine makes the deliveries; its worker sends, asks and schedules.
        supervisor = HostedWorker() if get_settings().is_hosted else Supervisor(concurrency=concurrency)
        supervisor.start()
        # What is loaded by now stays: collections, which stop every thread for a tenth of a second, pass it over.
        gc.collect()
        gc.freeze()
        self.tell("started", "Worker started. Stop it with SIGTERM or Ctrl-C.")
        while not self.is_told(told):
            if not supervisor.healthy:
                self.stderr.write("Half of the pool is stuck in steps past request_timeout; leaving for a restart.")
                self.tell("stuck")
                return 2
        self.tell("draining", "Draining …")
        drained = supervisor.stop()
        self.tell("drained" if drained else "stopped")
        return 0 if drained else 1

    def is_told(self, told: SimpleQueue[int]) -> bool:
        """Wait for a signal, up to the next look at the pool's health."""
        try:
            told.get(timeout=HEALTH_INTERVAL)
        except Empty:
            return False
        return True

    def tell(self, event: str, text: str = "") -> None:
        """A line of what happens to the worker: JSON for programs, or the text, if there is any, for people."""
        if self.as_json:
            self.stdout.write(json.dumps({"event": event, "at": timezone.now().isoformat(), "pid": os.getpid()}))
            self.stdout.flush()
        elif text:
            self.stdout.write(text)

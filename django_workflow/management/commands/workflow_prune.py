"""`manage.py workflow_prune`: delete what retention no longer keeps, in batches. The worker does so by itself."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from django_workflow.conf import get_settings
from django_workflow.engine import pruner
from django_workflow.management.base import WorkflowCommand
from django_workflow.management.reports import to_json
from django_workflow.protocol.durations import parse_duration

BAD_INPUT = 2


class Command(WorkflowCommand):
    help = "Delete finished runs and messages, and old events of no run, that are older than they are kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.epilog = "exit codes: 0 done, 2 bad input"
        parser.add_argument(
            "--older-than",
            metavar="DURATION",
            help='instead of the setting and of what workflows declare: seconds, "12h", "30d"',
        )
        parser.add_argument(
            "--batch", type=int, default=pruner.BATCH, help="runs per transaction (default: %(default)s)"
        )
        parser.add_argument("--max-batches", type=int, help="stop after so many batches")
        parser.add_argument("--dry-run", action="store_true", help="only count the runs and messages")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        retention = self._retention(options["older_than"])
        own = options["older_than"] is None
        for name in ("batch", "max_batches"):
            if options[name] is not None and options[name] < 1:
                raise CommandError(f"--{name.replace('_', '-')} must be at least 1.", returncode=BAD_INPUT)
        now = timezone.now()
        if options["dry_run"]:
            counts = {
                "runs": pruner.prunable_runs(now, retention, own=own).count(),
                "messages": pruner.prunable_messages(now - retention).count(),
            }
        else:
            batches = options["max_batches"]
            counts = asdict(pruner.prune(now, retention, batch=options["batch"], batches=batches, own=own))
        if options["json"]:
            self.stdout.write(to_json(counts))
            return
        told = ", ".join(f"{name}: {number}" for name, number in counts.items())
        self.stdout.write(f"{'Would delete' if options['dry_run'] else 'Deleted'} {told}")

    def _retention(self, text: str | None) -> timedelta:
        if text is None:
            return get_settings().retention
        try:
            return parse_duration(text)
        except (ValueError, TypeError) as error:
            raise CommandError(f"--older-than: {error}", returncode=BAD_INPUT) from error

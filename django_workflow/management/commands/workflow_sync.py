"""`manage.py workflow_sync`: bring this site and its hosted engine together: outbox, runs, schedules."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from django_workflow.client.transports import current_transport
from django_workflow.conf import get_settings
from django_workflow.errors import WorkflowError
from django_workflow.management.base import WorkflowCommand
from django_workflow.management.reports import to_json
from django_workflow.mirror import backfill, outbox, schedules
from django_workflow.mirror.backfill import Checked
from django_workflow.mirror.transport import network_of
from django_workflow.models import Outbox
from django_workflow.presentation import lookup
from django_workflow.protocol.durations import parse_duration
from django_workflow.protocol.identifiers import prefixed_run_id

FAILED, BAD_INPUT = 1, 2

EXIT_CODES = """
Without options: what waits in the outbox is sent, the engine is asked about every run that is not over, and the
schedules that code declares are made. Workers do all of it by themselves.

exit codes: 0 done, 1 the engine did not answer or refused something, 2 bad input
"""


class Command(WorkflowCommand):
    help = "Send what the hosted engine has not got, and bring the rows of its runs up to date from its logs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.formatter_class = RawDescriptionHelpFormatter
        parser.epilog = EXIT_CODES
        parser.add_argument(
            "--since", metavar="WHEN", help='also runs that are not known here, made since: "2h", "7d", an ISO date'
        )
        parser.add_argument("--run", action="append", default=[], metavar="ID", help="only this run; may be repeated")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if not get_settings().is_hosted:
            raise CommandError('The engine is "embedded": its runs are rows of this database.', returncode=BAD_INPUT)
        since = self._since(options["since"])
        try:
            counts = self._runs(options["run"]) if options["run"] else self._everything(since)
        except WorkflowError as error:
            raise CommandError(str(error), returncode=FAILED) from error
        if options["json"]:
            self.stdout.write(to_json(counts))
        else:
            self.stdout.write(", ".join(f"{name.replace('_', ' ')}: {number}" for name, number in counts.items()))
        if counts["failed"] or counts.get("unsent"):
            raise CommandError("Not everything could be done; the log says what.", returncode=FAILED)

    def _since(self, text: str | None) -> datetime | None:
        if text is None:
            return None
        try:
            instant = parse_datetime(text)
            if instant is None:
                return timezone.now() - parse_duration(text)
        except (ValueError, TypeError) as error:
            raise CommandError(f"--since: {error}", returncode=BAD_INPUT) from error
        return timezone.make_aware(instant) if timezone.is_naive(instant) else instant

    def _runs(self, run_ids: list[str]) -> dict[str, int]:
        checked = Checked()
        for run_id in run_ids:
            try:
                checked += backfill.check_run(current_transport(), prefixed_run_id(run_id))
            except ValueError as error:
                raise CommandError(f"--run: {error}", returncode=BAD_INPUT) from error
        return asdict(checked)

    def _everything(self, since: datetime | None) -> dict[str, int]:
        transport = current_transport()
        network, counts = network_of(transport), {"sent": 0}
        while sent := outbox.send_due(network):
            counts["sent"] += sent
        made, removed = schedules.reconcile(transport)
        checked = Checked() if since is None else backfill.check_since(transport, since)
        for run_id in list(lookup.runs().hosted().values_list("run_id", flat=True)):
            checked += backfill.check_run(transport, run_id)
        outbox.prune(timezone.now())
        rows = Outbox.objects.using(get_settings().database)
        return {
            **counts,
            **asdict(checked),
            "schedules_made": made,
            "schedules_deleted": removed,
            "unsent": rows.unsent().count(),
            "given_up": rows.filter(given_up_at__isnull=False, sent_at=None).count(),
        }

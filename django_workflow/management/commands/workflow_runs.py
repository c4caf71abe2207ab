"""`manage.py workflow_runs`: list runs. `manage.py workflow_runs show RUN_ID`: one run with its steps, also live."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from django_workflow.management.base import WorkflowCommand
from django_workflow.management.follow import Follower, last_line
from django_workflow.management.reports import list_lines, run_detail_json, run_json, timeline_lines, to_json
from django_workflow.models import Run
from django_workflow.presentation import lookup

NOT_FOUND, FAILED, BAD_INPUT, INTERRUPTED = 1, 1, 2, 130

EXAMPLES = """
examples:
  manage.py workflow_runs --status failed --workflow fulfil_order
  manage.py workflow_runs show wfr_4SxXzP2mQ1
  manage.py workflow_runs show wfr_4SxXzP2mQ1 --watch
  manage.py workflow_runs --status active --json

exit codes:
  0    done; with --watch: the run succeeded
  1    there is no such run; with --watch: it failed or was canceled
  2    bad input
  130  --watch was interrupted; the run goes on
"""


class Command(WorkflowCommand):
    help = "List runs, newest first; or show one with a timeline of its steps."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.formatter_class = RawDescriptionHelpFormatter
        parser.epilog = EXAMPLES
        parser.add_argument(
            "action", nargs="?", choices=("list", "show"), default="list", help="list (the default) or show"
        )
        parser.add_argument("run_id", nargs="?", metavar="RUN_ID", help="for show: the run, with or without wfr_")
        parser.add_argument("--status", choices=lookup.STATUS_CHOICES, help="a status, or active, or finished")
        parser.add_argument("--workflow", metavar="NAME", help="runs of this workflow")
        parser.add_argument("--label", action="append", default=[], help="runs with this label; may be repeated")
        parser.add_argument(
            "--search", metavar="TEXT", help="runs whose id, label, summary, error or related object this is"
        )
        parser.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default: %(default)s)")
        parser.add_argument("--watch", action="store_true", help="for show: follow the run until it ends")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "show":
            self._show(options)
        else:
            self._list(options)

    def _show(self, options: dict[str, Any]) -> None:
        if not options["run_id"]:
            raise CommandError("Say which run: workflow_runs show RUN_ID.", returncode=BAD_INPUT)
        run = lookup.find_run(lookup.with_step_count(lookup.runs()), options["run_id"])
        if run is None:
            raise CommandError(f"There is no run {options['run_id']!r}.", returncode=NOT_FOUND)
        if options["watch"]:
            run = self._watch(run, quiet=options["json"])
        now = timezone.now()
        if options["json"]:
            self.stdout.write(to_json(run_detail_json(run, now)))
        else:
            for line in timeline_lines(run, now):
                self.stdout.write(line)
        if options["watch"] and run.status != Run.Status.SUCCESS:
            raise CommandError(last_line(run), returncode=FAILED)

    def _watch(self, run: Run, *, quiet: bool) -> Run:
        """Tell what happens to a run until it is over; the run as it is then."""
        follower = Follower(None if quiet else self.stdout)
        runs = lookup.with_step_count(lookup.runs())
        try:
            while not follower(run):
                found = runs.filter(pk=run.pk).first()
                if found is None:
                    raise CommandError(f"Run {run.run_id} was deleted meanwhile.", returncode=NOT_FOUND)
                run = found
        except KeyboardInterrupt:
            raise CommandError(f"Interrupted; run {run.run_id} goes on.", returncode=INTERRUPTED) from None
        if not quiet:
            self.stdout.write("")
        return run

    def _list(self, options: dict[str, Any]) -> None:
        if options["run_id"]:
            raise CommandError("list takes no run id; did you mean show?", returncode=BAD_INPUT)
        if options["watch"]:
            raise CommandError("list does not watch; did you mean show RUN_ID --watch?", returncode=BAD_INPUT)
        if options["limit"] < 1:
            raise CommandError("--limit must be at least 1.", returncode=BAD_INPUT)
        runs = lookup.with_step_count(lookup.runs()).order_by("-created_at")
        if options["status"]:
            runs = lookup.with_status(runs, options["status"])
        if options["workflow"]:
            runs = runs.filter(workflow=options["workflow"])
        for label in options["label"]:
            runs = runs.with_label(label)
        if options["search"]:
            runs = lookup.matching(runs, options["search"])
        found = list(runs.defer("payload", "result")[: options["limit"]])
        now = timezone.now()
        if options["json"]:
            self.stdout.write(to_json([run_json(run, now) for run in found]))
            return
        if not found:
            self.stderr.write("No run matches.")
            return
        head, *lines = list_lines(found, now)
        self.stdout.write(head)
        styles = {Run.Status.FAILED: self.style.ERROR, Run.Status.RETRYING: self.style.WARNING}
        styles[Run.Status.SUCCESS] = self.style.SUCCESS
        for run, line in zip(found, lines, strict=True):
            self.stdout.write(styles.get(Run.Status(run.status), str)(line))

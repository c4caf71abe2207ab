"""`manage.py workflow_forget`: erase what runs hold of people, and keep that they were and when."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import asdict
from typing import Any

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.core.management.base import CommandError

from django_workflow.control import forget
from django_workflow.errors import WorkflowError
from django_workflow.management.base import WorkflowCommand
from django_workflow.management.reports import to_json
from django_workflow.models.run import RunQuerySet
from django_workflow.presentation import lookup

REFUSED, BAD_INPUT = 1, 2

EPILOG = """
Erased are payloads, results, errors, summaries, events, answers, and the journal. What is erased cannot be brought
back, and no run be resumed. Status, times, steps' names, labels and the related object stay. Runs that were resumed
from one another are erased together. Nothing is erased in the logs of a hosted engine, in backups, in your own tables.

examples:
  manage.py workflow_forget --object shop.order:42 --dry-run
  manage.py workflow_forget --run wfr_4SxXzP2mQ1 --no-input

exit codes: 0 done, 1 refused: a run is not over, 2 bad input, or no run was meant
"""


class Command(WorkflowCommand):
    help = "Erase payloads, results and events of finished runs; their states and times stay."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.formatter_class = RawDescriptionHelpFormatter
        parser.epilog = EPILOG
        parser.add_argument("--run", metavar="RUN_ID", action="append", default=[], help="this run; may be repeated")
        parser.add_argument("--object", metavar="APP.MODEL:KEY", help="all runs of this object, such as shop.order:42")
        parser.add_argument("--label", help="all runs with this label")
        parser.add_argument("--dry-run", action="store_true", help="only tell which runs")
        parser.add_argument("--no-input", action="store_true", help="do not ask whether it is meant")
        parser.add_argument("--json", action="store_true", help="print JSON; implies --no-input")

    def handle(self, *args: Any, **options: Any) -> None:
        runs = self._runs(options)
        meant = forget.chosen(runs)
        run_ids = list(meant.order_by("created_at").values_list("run_id", flat=True))
        if not run_ids:
            raise CommandError("No run is meant, or all were erased before.", returncode=BAD_INPUT)
        if options["dry_run"]:
            self._tell({"runs": len(run_ids)}, run_ids, options, "Would erase")
            return
        if not (options["no_input"] or options["json"]):
            self._ask(len(run_ids))
        try:
            forgotten = forget.forget(runs)
        except WorkflowError as error:
            raise CommandError(str(error), returncode=REFUSED) from error
        self._tell(asdict(forgotten), run_ids, options, "Erased")

    def _runs(self, options: dict[str, Any]) -> RunQuerySet:
        """The runs that all given options mean together."""
        if not (options["run"] or options["object"] or options["label"]):
            raise CommandError("Say which runs: --run, --object or --label.", returncode=BAD_INPUT)
        runs = lookup.runs().all()
        if options["run"]:
            found = {text: lookup.find_run(lookup.runs(), text) for text in options["run"]}
            missing = [text for text, run in found.items() if run is None]
            if missing:
                raise CommandError(f"--run: there is no run {', '.join(missing)}.", returncode=BAD_INPUT)
            runs = runs.filter(pk__in=[run.pk for run in found.values() if run is not None])
        if options["object"]:
            runs = runs.filter(**_object(options["object"]))
        if options["label"]:
            runs = runs.with_label(options["label"])
        return runs

    def _ask(self, number: int) -> None:
        answer = input(f"Erase payloads and results of {number} runs for good? Type yes: ")
        if answer.strip().lower() != "yes":
            raise CommandError("Nothing was erased.", returncode=REFUSED)

    def _tell(self, counts: dict[str, int], run_ids: list[str], options: dict[str, Any], what: str) -> None:
        if options["json"]:
            self.stdout.write(to_json({**counts, "run_ids": run_ids}))
            return
        self.stdout.write(f"{what} " + ", ".join(f"{name.replace('_', ' ')}: {n}" for name, n in counts.items()))
        if options["dry_run"] or options["verbosity"] > 1:
            self.stdout.write("\n".join(run_ids))


def _object(text: str) -> dict[str, Any]:
    """`shop.order:42` -> the fields of a run that name its object."""
    name, found, key = text.partition(":")
    try:
        model = apps.get_model(name)
    except (LookupError, ValueError) as error:
        raise CommandError(f"--object: {error}", returncode=BAD_INPUT) from error
    if not found or not key:
        raise CommandError(f"--object: {text!r} names no object; write {name}:KEY.", returncode=BAD_INPUT)
    return {"content_type": ContentType.objects.get_for_model(model), "object_id": key}

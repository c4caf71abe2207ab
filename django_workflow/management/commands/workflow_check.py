"""`manage.py workflow_check`: replay the journals of live runs against this code, before it is deployed."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError

from django_workflow.authoring.registry import registry
from django_workflow.control import recorded_runs
from django_workflow.control.code_check import Break, check
from django_workflow.control.recorded_runs import FileInvalid, RecordedRun
from django_workflow.management.base import WorkflowCommand
from django_workflow.management.reports import to_json
from django_workflow.presentation import lookup

BREAKS, BAD_INPUT = 1, 2

EPILOG = """
No step's function runs and nothing is written: each run is replayed as far as it has come. What a workflow's code does
between its steps does run, as in every call.

examples:
  manage.py workflow_check                                     this code, the runs of this database
  manage.py workflow_check --export live.jsonl                 in production: write what is recorded, secrets hidden
  manage.py workflow_check --journal live.jsonl --fail-on-break      in CI: check the new code against it

exit codes: 0 checked, 1 with --fail-on-break: a run would break, 2 bad input
"""


class Command(WorkflowCommand):
    help = "Tell which live runs would break with this code: at which step, why, and what to do about it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.formatter_class = RawDescriptionHelpFormatter
        parser.epilog = EPILOG
        parser.add_argument("--workflow", metavar="NAME", help="only runs of this workflow")
        parser.add_argument("--run", metavar="RUN_ID", action="append", default=[], help="only this; may be repeated")
        files = parser.add_mutually_exclusive_group()
        files.add_argument("--journal", metavar="FILE", help='the runs of an exported file; "-" reads stdin')
        files.add_argument("--export", metavar="FILE", help='write the runs to a file instead; "-" writes to stdout')
        parser.add_argument("--fail-on-break", action="store_true", help="exit with 1 when a run would break")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        runs = self._chosen(options)
        if options["export"]:
            self._export(runs, options)
            return
        try:
            counts, breaks = self._check(runs)
        except FileInvalid as error:
            raise CommandError(f"--journal: {error}", returncode=BAD_INPUT) from error
        if options["json"]:
            self.stdout.write(to_json({**counts, "breaks": [asdict(found) for found in breaks]}))
        else:
            self._tell(counts, breaks)
        certain = sum(found.is_certain for found in breaks)
        if certain and options["fail_on_break"]:
            raise CommandError(f"{certain} of {counts['checked']} runs would break.", returncode=BREAKS)

    def _chosen(self, options: dict[str, Any]) -> Iterable[RecordedRun]:
        workflow, ids = options["workflow"], options["run"]
        if workflow and registry.find(workflow) is None and not options["journal"]:
            self.stderr.write(f"This code has no workflow {workflow!r}.")
        if options["journal"]:
            wanted = {each for text in ids for each in lookup.run_ids(text)}
            return (
                run
                for run in self._read(options["journal"])
                if (not workflow or run.workflow == workflow) and (not wanted or run.run_id in wanted)
            )
        runs = lookup.runs().active()
        if workflow:
            runs = runs.filter(workflow=workflow)
        if ids:
            found = [lookup.find_run(runs, text) for text in ids]
            missing = [text for text, run in zip(ids, found, strict=True) if run is None]
            if missing:
                raise CommandError(f"--run: no run {', '.join(missing)} is active.", returncode=BAD_INPUT)
            runs = runs.filter(pk__in=[run.pk for run in found if run is not None])
        return recorded_runs.recorded_runs(runs, hide=bool(options["export"]))

    def _read(self, path: str) -> Iterator[RecordedRun]:
        with _opened(path, "r", sys.stdin, "--journal") as file:
            yield from recorded_runs.read(file)

    def _export(self, runs: Iterable[RecordedRun], options: dict[str, Any]) -> None:
        with _opened(options["export"], "w", self.stdout, "--export") as file:
            number = recorded_runs.write(runs, file)
        told = to_json({"exported": number}) if options["json"] else f"Exported {number} runs."
        (self.stderr if options["export"] == "-" else self.stdout).write(told)

    def _check(self, runs: Iterable[RecordedRun]) -> tuple[dict[str, int], list[Break]]:
        counts, breaks = Counter(checked=0, elsewhere=0), []
        for run in runs:
            if not run.own:
                counts["elsewhere"] += 1
                continue
            counts["checked"] += 1
            found = check(run)
            if found is not None:
                breaks.append(found)
        return dict(counts), breaks

    def _tell(self, counts: dict[str, int], breaks: list[Break]) -> None:
        for found in breaks:
            at = "" if found.step is None else f" at step {found.step}"
            self.stdout.write(self.style.ERROR(f"{found.run_id}  {found.workflow}{at}"))
            if found.recorded:
                self.stdout.write(f"  recorded: {found.recorded}")
                self.stdout.write(f"  asked:    {found.asked}")
            self.stdout.write(f"  {found.problem}")
            self.stdout.write(f"  {found.remedy}")
        told = f"{counts['checked']} live runs checked, {len(breaks)} would break."
        if counts["elsewhere"]:
            told += f" {counts['elsewhere']} of other endpoints were left out."
        self.stdout.write(told if breaks else self.style.SUCCESS(told))


@contextmanager
def _opened(path: str, mode: str, standard: Any, option: str) -> Iterator[Any]:
    """A file, or a standard stream for `-`. What cannot be opened is bad input."""
    if path == "-":
        yield standard
        return
    try:
        file = open(path, mode, encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise CommandError(f"{option}: {error}", returncode=BAD_INPUT) from error
    with file:
        yield file

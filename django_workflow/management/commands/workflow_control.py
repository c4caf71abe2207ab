"""`manage.py workflow_control ACTION RUN_ID …`: do something to runs, named or chosen by filters."""

from __future__ import annotations

import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING, Any

import msgspec
from django.contrib.auth import get_user_model
from django.core.management.base import CommandError

from django_workflow.control import bulk
from django_workflow.control.actions import ACTIONS, Action, ActionRefused
from django_workflow.errors import WorkflowError
from django_workflow.management.base import WorkflowCommand
from django_workflow.management.reports import to_json
from django_workflow.models import BulkOperation, Run
from django_workflow.presentation import lookup

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet

NOT_DONE, BAD_INPUT = 1, 2
PAUSE_SECONDS = 0.2
NAMES = {name.replace("_", "-"): action for name, action in ACTIONS.items()}

EXAMPLES = """
examples:
  manage.py workflow_control cancel wfr_1 wfr_2 --reason "ordered twice"
  manage.py workflow_control resume --status failed --workflow fulfil_order
  manage.py workflow_control restart wfr_1 --payload '{"order_id": 43}'
  manage.py workflow_control fork wfr_1 --step 3
  manage.py workflow_control notify wfr_1 --event approval --data true
  manage.py workflow_control delete --status canceled --dry-run

exit codes: 0 done, 1 something could not be done, 2 bad input
"""


class Command(WorkflowCommand):
    help = "Do something to runs: named by their ids, or all that fit the filters."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.formatter_class = RawDescriptionHelpFormatter
        parser.epilog = EXAMPLES
        parser.add_argument("action", choices=sorted(NAMES), help="what to do")
        parser.add_argument("run_ids", nargs="*", metavar="RUN_ID", help="a run, with or without wfr_")
        chosen = parser.add_argument_group("which runs, when none is named")
        chosen.add_argument("--status", choices=lookup.STATUS_CHOICES, help="a status, or active, or finished")
        chosen.add_argument("--workflow", help="runs of this workflow")
        chosen.add_argument("--label", action="append", default=[], help="runs with this label; may be repeated")
        chosen.add_argument("--search", help="runs whose id, label, summary, error or related object this is")
        chosen.add_argument("--everything", action="store_true", help="all runs")
        parser.add_argument("--reason", default="", help="why; noted in the runs' history with --by")
        parser.add_argument("--by", metavar="USERNAME", help="act as this user, with his permissions")
        parser.add_argument("--payload", help="restart, start-similar, fork --step 0: another payload, as JSON")
        parser.add_argument("--step", type=int, help="fork: number of the last step that is kept, 0 for none")
        parser.add_argument("--event", help="notify: id of the event; left out when the run waits for one")
        parser.add_argument("--data", help="notify: what the event carries, as JSON")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done, and what not")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        action = NAMES[options["action"]]
        user, parameters = _user(options["by"]), _parameters(action, options)
        if options["run_ids"]:
            if any(options[name] for name in ("status", "workflow", "label", "search", "everything")):
                raise CommandError("Name runs, or choose them by filters: not both.", returncode=BAD_INPUT)
            runs = lookup.runs().filter(pk__in=[_run(text).pk for text in options["run_ids"]])
        else:
            runs = _chosen(options)
            if not action.in_bulk:
                raise CommandError(f"{options['action']} is for single runs: name them.", returncode=BAD_INPUT)
        if options["dry_run"]:
            self._preview(action, runs, user, as_json=options["json"])
        elif options["run_ids"]:
            self._one_by_one(action, options, user, parameters)
        else:
            self._in_bulk(action, runs, options, user)

    def _preview(self, action: Action, runs: RunQuerySet, user: Any, *, as_json: bool) -> None:
        seen = bulk.preview(action, runs, user=user)
        if as_json:
            refused = [{"run_id": run.run_id, "why": why} for run, why in seen.will_not]
            told = {"will_count": seen.will_count, "will_not_count": seen.will_not_count}
            self.stdout.write(to_json({**told, "will": [run.run_id for run in seen.will], "will_not": refused}))
            return
        self.stdout.write(f"Would be done to {seen.will_count} runs, not to {seen.will_not_count}.")
        for run, why in seen.will_not:
            self.stdout.write(f"{run.run_id}: {why}")

    def _one_by_one(self, action: Action, options: dict[str, Any], user: Any, parameters: dict[str, Any]) -> None:
        told, refused = [], 0
        for text in dict.fromkeys(options["run_ids"]):
            run = _run(text)
            entry: dict[str, Any] = {"run_id": run.run_id, "done": True}
            try:
                outcome = action.perform(run, by=user, reason=options["reason"], **parameters)
                entry |= {"concerns": outcome.run_id, "message": outcome.message}
            except (WorkflowError, ValueError, TypeError) as error:
                refused += 1
                entry |= {"done": False, "message": error.why if isinstance(error, ActionRefused) else str(error)}
            told.append(entry)
            if not options["json"]:
                (self.stdout if entry["done"] else self.stderr).write(f"{run.run_id}: {entry['message']}")
        if options["json"]:
            self.stdout.write(to_json(told))
        if refused:
            raise CommandError(f"{refused} of {len(told)} could not be done.", returncode=NOT_DONE)

    def _in_bulk(self, action: Action, runs: RunQuerySet, options: dict[str, Any], user: Any) -> None:
        try:
            operation = bulk.start(action, runs, by=user, reason=options["reason"])
        except ActionRefused as error:
            raise CommandError(error.why, returncode=NOT_DONE) from error
        while not operation.is_over:
            if not bulk.advance(operation):  # a worker has it just now, or the engine is away
                time.sleep(PAUSE_SECONDS)
            operation.refresh_from_db()
            if not options["json"]:
                self.stderr.write(f"{operation.tried} of {operation.total}", ending="\r")
        self._report(operation, as_json=options["json"])

    def _report(self, operation: BulkOperation, *, as_json: bool) -> None:
        errors = bulk.errors_of(operation)
        counts = {name: getattr(operation, name) for name in ("state", "total", "done", "failed", "skipped")}
        if as_json:
            sample = [{"run_id": run_id, "error": error} for run_id, error in errors]
            self.stdout.write(to_json({"id": str(operation.pk), **counts, "errors": sample}))
        else:
            told = ", ".join(f"{name}: {value}" for name, value in counts.items())
            self.stdout.write(f"{operation.name}. {told}")
            for run_id, error in errors:
                self.stderr.write(f"{run_id}: {error}")
        if operation.failed or operation.skipped or operation.state == BulkOperation.State.ABORTED:
            raise CommandError("Not all could be done.", returncode=NOT_DONE)


def _run(text: str) -> Run:
    run = lookup.find_run(lookup.runs(), text)
    if run is None:
        raise CommandError(f"There is no run {text!r}.", returncode=NOT_DONE)
    return run


def _user(name: str | None) -> Any:
    if name is None:
        return None
    model = get_user_model()
    try:
        return model._default_manager.get_by_natural_key(name)
    except model.DoesNotExist as error:
        raise CommandError(f"There is no user {name!r}.", returncode=BAD_INPUT) from error


def _chosen(options: dict[str, Any]) -> RunQuerySet:
    runs = lookup.runs()
    if not options["everything"] and not any(options[name] for name in ("status", "workflow", "label", "search")):
        raise CommandError("Name runs, choose them by filters, or say --everything.", returncode=BAD_INPUT)
    if options["status"]:
        runs = lookup.with_status(runs, options["status"])
    if options["workflow"]:
        runs = runs.filter(workflow=options["workflow"])
    for label in options["label"]:
        runs = runs.with_label(label)
    return lookup.matching(runs, options["search"]) if options["search"] else runs


def _parameters(action: Action, options: dict[str, Any]) -> dict[str, Any]:
    """What the action takes. Raises CommandError for what it does not take, and for text that is no JSON."""
    takes = {
        "payload": action.needs_payload,
        "step": action.needs_step,
        "event": action.needs_event,
        "data": action.needs_event,
    }
    for name, taken in takes.items():
        if options[name] is not None and not taken:
            raise CommandError(f"{options['action']} takes no --{name}.", returncode=BAD_INPUT)
    if action.needs_step and options["step"] is None:
        raise CommandError("Say --step: the number of the last step that is kept, 0 for none.", returncode=BAD_INPUT)
    found = {
        "payload": _json("payload", options["payload"]),
        "step": options["step"],
        "event_id": options["event"],
        "data": _json("data", options["data"]),
    }
    return {name: value for name, value in found.items() if value is not None}


def _json(name: str, text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise CommandError(f"--{name} is no JSON: {error}.", returncode=BAD_INPUT) from error
    return text.encode()

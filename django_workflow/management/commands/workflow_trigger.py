"""`manage.py workflow_trigger NAME [JSON] [--wait]`: start a run, and watch it to its end."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any, NoReturn

import msgspec
from django.core.management.base import CommandError
from django.utils import timezone

from django_workflow.authoring.registry import UnknownWorkflow, registry
from django_workflow.client.options import TriggerOptions
from django_workflow.conf import get_settings
from django_workflow.engine.inline import drive_inline
from django_workflow.errors import EngineError, PayloadInvalid
from django_workflow.management.base import WorkflowCommand
from django_workflow.management.follow import Follower, last_line
from django_workflow.management.reports import run_detail_json, to_json
from django_workflow.models import Run
from django_workflow.presentation import lookup, values
from django_workflow.protocol.durations import to_seconds

FAILED, BAD_INPUT, STILL_RUNNING, INTERRUPTED = 1, 2, 3, 130

EXIT_CODES = """
exit codes:
  0    the run was started; with --wait: it succeeded
  1    it failed or was canceled, or the engine refused it
  2    bad input: unknown workflow, a payload that does not fit, a bad option
  3    --timeout passed; the run goes on
  130  --wait was interrupted; the run goes on
"""


class Command(WorkflowCommand):
    help = "Start a run of a workflow; with --wait, follow its steps until it ends."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.formatter_class = RawDescriptionHelpFormatter
        parser.epilog = EXIT_CODES
        parser.add_argument("name", metavar="NAME", help="name of the workflow")
        parser.add_argument(
            "payload", metavar="JSON", nargs="?", default="", help='its payload; "-" reads it from stdin'
        )
        parser.add_argument("--wait", action="store_true", help="follow the run until it ends")
        parser.add_argument(
            "--timeout", metavar="DURATION", help='longest time to wait: seconds or "5m"; implies --wait'
        )
        parser.add_argument("--label", action="append", default=[], help="a label of the run; may be repeated")
        parser.add_argument(
            "--run-id", metavar="ID", help="an id of your own: a second trigger with it makes no second run"
        )
        parser.add_argument("--json", action="store_true", help="print JSON only")

    def handle(self, *args: Any, **options: Any) -> None:
        timeout = self._timeout(options["timeout"])
        run_id = self._trigger(options)
        if not (options["wait"] or options["timeout"]):
            self.stdout.write(to_json({"workflowRunId": run_id}) if options["json"] else run_id)
            if not self._has_worker():
                self.stderr.write("No worker is alive: the run waits for manage.py workflow_worker, or say --wait.")
            return
        if not options["json"]:
            self.stdout.write(f"Run {run_id} of {options['name']} was started.")
        follower = Follower(None if options["json"] else self.stdout, timeout=timeout)
        try:
            self._follow(run_id, follower)
        except KeyboardInterrupt:
            raise CommandError(f"Interrupted; run {run_id} goes on.", returncode=INTERRUPTED) from None
        run = lookup.with_step_count(lookup.runs()).filter(run_id=run_id).first()
        if run is None:  # of the hosted engine: nothing has come back from it yet
            raise CommandError(f"Run {run_id} was started; nothing is known of it yet.", returncode=STILL_RUNNING)
        self._finish(run, follower, as_json=options["json"])

    def _timeout(self, text: str | None) -> float | None:
        try:
            return None if text is None else to_seconds(text)
        except (ValueError, TypeError) as error:
            refuse(f"--timeout: {error}")

    def _trigger(self, options: dict[str, Any]) -> str:
        try:
            workflow = registry.get(options["name"])
        except UnknownWorkflow as error:
            refuse(str(error))
        body = sys.stdin.buffer.read() if options["payload"] == "-" else options["payload"].encode()
        chosen = {"label": options["label"] or None, "run_id": options["run_id"]}
        try:
            TriggerOptions.of(**chosen)
            handle = workflow.using(**chosen).trigger(workflow.decode_payload(body))
        except PayloadInvalid as error:
            refuse(f"{error}{_how_to_give(body)}")
        except (ValueError, TypeError) as error:
            refuse(str(error))
        except EngineError as error:
            raise CommandError(str(error), returncode=FAILED) from error
        if handle.deduplicated:
            self.stderr.write(f"Run {handle.id} exists already; no new one was made.")
        return str(handle.id)

    def _follow(self, run_id: str, follower: Follower) -> None:
        """Look on while a worker drives the run; drive it here when there is none, or none any more."""
        done = False
        while not done:
            if not self._has_worker():
                self.stderr.write("No worker is alive (manage.py workflow_worker): the run is driven in this process.")
                drive_inline(run_id, follower)
                return
            done = follower(lookup.runs().filter(run_id=run_id).first())

    def _has_worker(self) -> bool:
        """Whether somebody drives runs: the hosted engine does by itself."""
        return get_settings().engine != "embedded" or lookup.has_living_worker(timezone.now())

    def _finish(self, run: Run, follower: Follower, *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(to_json(run_detail_json(run, timezone.now())))
        elif run.status == Run.Status.SUCCESS:
            self.stdout.write(self.style.SUCCESS(last_line(run)))
            if run.result is not None:
                self.stdout.write(values.laid_out(values.result_of(run)))
        if follower.timed_out:
            raise CommandError(f"Still going on: {last_line(run)}", returncode=STILL_RUNNING)
        if run.status != Run.Status.SUCCESS:
            raise CommandError(last_line(run), returncode=FAILED)


def refuse(message: str) -> NoReturn:
    raise CommandError(message, returncode=BAD_INPUT)


def _how_to_give(body: bytes) -> str:
    """What to add to the refusal of a payload that was left out, or is no JSON at all: a shell takes quotes away."""
    if not body:
        return " Give it behind the name, as JSON."
    try:
        msgspec.json.decode(body)
    except msgspec.DecodeError:
        text = body.decode(errors="replace")
        return f" It has to be JSON, but is {text!r}; text has quotes of its own inside those of the shell: '\"text\"'."
    return ""

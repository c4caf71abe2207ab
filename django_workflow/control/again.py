"""New runs of old ones: gone on with where they failed, begun anew, or another run that starts like them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_workflow.authoring.registry import registry
from django_workflow.client.client import get_client
from django_workflow.client.options import Duration, TriggerOptions, run_overrides
from django_workflow.control.action import Action, ActionRefused, Outcome, dlq_id_of, is_not_over, letter_of
from django_workflow.errors import EngineError
from django_workflow.models import Run
from django_workflow.presentation import lookup
from django_workflow.protocol.bodies import raw

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet


class Resume(Action):
    name = "resume"
    permission = "resume_run"
    title = gettext_lazy("Resume from the failed step")
    verb = gettext_lazy("Resume")
    past = gettext_lazy("resumed")

    def hindrance(self, run: Run) -> str:
        if run.status != Run.Status.FAILED:
            return _("The run has not failed.")
        letter = letter_of(run)
        return "" if letter is not None and dlq_id_of(letter) else _("The failure was handled already.")

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.filter(status=Run.Status.FAILED, dead_letter__isnull=False)

    def do(self, run: Run, *, by: Any) -> Outcome:
        letter = letter_of(run)
        assert letter is not None
        return Outcome(*_said(_("Resumed as run %s."), _first(get_client().resume, dlq_id_of(letter))))


class Restart(Action):
    """`payload` is JSON as text or bytes; None: as it was. `labels` and `delay` are the new run's, None as before."""

    name = "restart"
    permission = "restart_run"
    title = gettext_lazy("Restart")
    verb = gettext_lazy("Restart")
    past = gettext_lazy("restarted")
    needs_payload = True
    needs_options = True

    def hindrance(self, run: Run) -> str:
        return is_not_over(run)

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.finished()

    def do(
        self,
        run: Run,
        *,
        by: Any,
        payload: str | bytes | None = None,
        labels: Iterable[str] | None = None,
        delay: Duration | None = None,
        run_id: str | None = None,
    ) -> Outcome:
        letter = letter_of(run)
        if payload is None and run_id is None and letter is not None and dlq_id_of(letter):
            overrides = run_overrides(label=labels, delay=delay)
            new = _first(get_client().restart, dlq_id_of(letter), overrides=overrides)
        else:
            new = start_like(
                run, payload=payload, labels=labels, delay=delay, run_id=run_id, kind=Run.TriggerKind.RESTART
            )
        return Outcome(*_said(_("Restarted as run %s."), new))


class StartSimilar(Action):
    """As `Restart`, for any run; the new one belongs to the user, and to no chain."""

    name = "start_similar"
    permission = "trigger_workflow"
    title = gettext_lazy("Start similar")
    verb = gettext_lazy("Start a run like")
    past = gettext_lazy("started again")
    needs_payload = True
    needs_options = True
    in_bulk = False

    def hindrance(self, run: Run) -> str:
        return ""

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs

    def do(
        self,
        run: Run,
        *,
        by: Any,
        payload: str | bytes | None = None,
        labels: Iterable[str] | None = None,
        delay: Duration | None = None,
        run_id: str | None = None,
    ) -> Outcome:
        new = start_like(
            run, payload=payload, labels=labels, delay=delay, run_id=run_id, owner=by, kind=Run.TriggerKind.USER
        )
        return Outcome(*_said(_("Started as run %s."), new))


def start_like(
    run: Run,
    *,
    payload: str | bytes | None,
    labels: Iterable[str] | None,
    delay: Duration | None,
    run_id: str | None,
    kind: Run.TriggerKind,
    owner: Any = None,
) -> str:
    """Trigger the workflow of a run again; the new run's id. What is None is as it was with that run.

    Raises PayloadInvalid when the payload does not fit the workflow's type, ValueError for a bad option.
    """
    body = raw(run.payload, run.payload_is_base64) if payload is None else as_bytes(payload)
    options = TriggerOptions.of(label=run.label_list if labels is None else labels, delay=delay, run_id=run_id)
    found = registry.find(run.workflow)
    if found is None:  # an endpoint elsewhere: it says itself what it takes
        handle = get_client().trigger(run.url, body, options)
    else:
        like = found.using(labels=options.labels)
        if options.delay is not None:
            like = like.using(delay=options.delay)
        if options.run_id is not None:
            like = like.using(workflow_run_id=options.run_id)
        handle = like.trigger(found.decode_payload(body))
    if handle.deduplicated:
        raise ActionRefused(_("There is a run %s already.") % handle.id)
    lookup.runs().filter(run_id=handle.id).update(
        owner=owner or run.owner_id,
        trigger_kind=kind,
        content_type=run.content_type_id,
        object_id=run.object_id,
        resumed_from=run.pk if kind == Run.TriggerKind.RESTART else None,
    )
    return handle.id


def as_bytes(payload: str | bytes) -> bytes:
    return payload.encode() if isinstance(payload, str) else payload


def _first(call: Any, dlq_id: str, **options: Any) -> str:
    """The id of the run that a dead letter was turned into. Raises ActionRefused when somebody was faster."""
    try:
        (started,) = call(dlq_id, **options).workflow_runs
    except EngineError as error:
        if error.status == 404:
            raise ActionRefused(_("The failure was handled already.")) from error
        raise
    return str(started.workflow_run_id)


def _said(words: str, run_id: str) -> tuple[str, str]:
    return run_id, words % run_id

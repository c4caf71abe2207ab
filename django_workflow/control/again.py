"""New runs of old ones: gone on with where they failed, begun anew, forked, or another run that starts like them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from django.db.models import Exists, OuterRef, Q
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_workflow.authoring.registry import registry
from django_workflow.client.client import get_client
from django_workflow.client.options import Duration, TriggerOptions, run_overrides
from django_workflow.conf import get_settings
from django_workflow.control.action import (
    Action,
    ActionRefused,
    Outcome,
    dlq_id_of,
    is_forgotten,
    is_not_over,
    letter_of,
)
from django_workflow.errors import EngineError, RunEnded
from django_workflow.models import Run
from django_workflow.presentation import lookup
from django_workflow.protocol.bodies import raw

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet


R = TypeVar("R")


class Resume(Action):
    """Of a failed run, and with the embedded engine of a canceled one: once."""

    name = "resume"
    permission = "resume_run"
    title = gettext_lazy("Resume from the failed step")
    verb = gettext_lazy("Resume")
    past = gettext_lazy("resumed")

    def hindrance(self, run: Run) -> str:
        if not run.is_finished or run.status == Run.Status.SUCCESS:
            return _("The run has not failed.")
        if run.forgotten_at is not None:
            return is_forgotten(run)
        if (follower := lookup.runs().filter(_resumed(run)).first()) is not None:
            return _("Run %s goes on in its place already.") % follower.run_id
        if not get_settings().is_hosted:
            return ""
        if run.status == Run.Status.CANCELED:
            return _("The hosted engine cannot go on with a canceled run: restart it.")
        letter = letter_of(run)
        return "" if letter is not None and dlq_id_of(letter) else _("The failure was handled already.")

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        if get_settings().is_hosted:
            return runs.filter(status=Run.Status.FAILED, dead_letter__isnull=False).exclude(dead_letter__dlq_id="")
        runs = runs.filter(forgotten_at=None)
        followers = lookup.runs().filter(_resumed(OuterRef("pk")))
        return runs.filter(~Exists(followers), status__in=(Run.Status.FAILED, Run.Status.CANCELED))

    def do(self, run: Run, *, by: Any) -> Outcome:
        client = get_client()
        if get_settings().is_hosted:
            (started,) = _asked(lambda: client.resume(_dlq_id(run))).workflow_runs
        else:
            started = _asked(lambda: client.resume_run(run.run_id))
        return Outcome(started.workflow_run_id, _("Resumed as run %s.") % started.workflow_run_id)


class Restart(Action):
    """`payload` is JSON as text or bytes; None: as it was. `labels` and `delay` are the new run's, None as before."""

    name = "restart"
    permission = "restart_run"
    title = gettext_lazy("Restart")
    verb = gettext_lazy("Restart")
    past = gettext_lazy("restarted")
    needs_payload = True

    def hindrance(self, run: Run) -> str:
        return is_not_over(run) or is_forgotten(run)

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.finished().filter(forgotten_at=None)

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
        client, overrides = get_client(), run_overrides(label=labels, delay=delay)
        if not get_settings().is_hosted:
            body = None if payload is None else checked(run, payload)
            started = _asked(
                lambda: client.restart_run(run.run_id, payload=body, new_run_id=run_id, overrides=overrides)
            )
            new = started.workflow_run_id
        elif payload is None and run_id is None and _dlq_id(run):
            (started,) = _asked(lambda: client.restart(_dlq_id(run), overrides=overrides)).workflow_runs
            new = started.workflow_run_id
        else:  # the hosted engine knows no way but a new run
            new = start_like(
                run, payload=payload, labels=labels, delay=delay, run_id=run_id, kind=Run.TriggerKind.RESTART
            )
        return Outcome(new, _("Restarted as run %s.") % new)


class Fork(Action):
    """A new run that has the results of the steps up to number `step`, and goes on from there; the run stays as it is.

    With `step` 0 the new run begins anew, and may have another `payload`.
    """

    name = "fork"
    permission = "restart_run"
    title = gettext_lazy("Fork from a step")
    verb = gettext_lazy("Fork")
    past = gettext_lazy("forked")
    needs_payload = True
    needs_step = True
    in_bulk = False

    def hindrance(self, run: Run) -> str:
        if get_settings().is_hosted:
            return _("The hosted engine cannot fork a run: restart it, or start a similar one.")
        return is_forgotten(run)

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.none() if get_settings().is_hosted else runs.filter(forgotten_at=None)

    def do(self, run: Run, *, by: Any, step: int | None = None, payload: str | bytes | None = None) -> Outcome:
        if step is None or step < 0:
            raise ActionRefused(_("Say after which step: its number, or 0 for the beginning."))
        if step and payload is not None:
            raise ActionRefused(_("Only a fork from the beginning can have another payload."))
        body = None if payload is None else checked(run, payload)
        started = _asked(lambda: get_client().fork(run.run_id, step, payload=body))
        return Outcome(started.workflow_run_id, _("Forked as run %s.") % started.workflow_run_id)


class StartSimilar(Action):
    """As `Restart`, for any run; the new one belongs to the user, and to no chain."""

    name = "start_similar"
    permission = "trigger_workflow"
    title = gettext_lazy("Start similar")
    verb = gettext_lazy("Start a run like")
    past = gettext_lazy("started again")
    needs_payload = True
    in_bulk = False

    def hindrance(self, run: Run) -> str:
        return is_forgotten(run)

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.filter(forgotten_at=None)

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
        return Outcome(new, _("Started as run %s.") % new)


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
    body = raw(run.payload, run.payload_is_base64) if payload is None else checked(run, payload)
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


def checked(run: Run, payload: str | bytes) -> bytes:
    """A payload for the workflow of a run, as JSON in its own form. Raises PayloadInvalid, which names the field."""
    body = payload.encode() if isinstance(payload, str) else payload
    found = registry.find(run.workflow)
    return body if found is None else found.encode_payload(found.decode_payload(body))


def _dlq_id(run: Run) -> str:
    letter = letter_of(run)
    return "" if letter is None else dlq_id_of(letter)


def _resumed(run: Any) -> Q:
    """Runs that go on in place of another."""
    return Q(resumed_from=run, trigger_kind=Run.TriggerKind.RESUME)


def _asked(call: Callable[[], R]) -> R:
    """What the engine answers. Raises ActionRefused when somebody was faster, or there is no such step."""
    try:
        return call()
    except RunEnded:
        raise
    except EngineError as error:
        if error.status == 404:
            raise ActionRefused(_("The failure was handled already.")) from error
        if error.status in (400, 409):
            raise ActionRefused(str(error)) from error
        raise

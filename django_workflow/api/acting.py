"""What can be done to a run: one endpoint for each action of `control`, and those for many runs at once.

Every body is a JSON object, and may be left out where nothing in it is needed. `reason` is noted in the run's history.
What cannot be done now is answered with 409 and the sentence that says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from uuid import UUID

import msgspec
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from rest_framework.exceptions import NotFound, PermissionDenied, ValidationError
from rest_framework.generics import ListAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from django_workflow.api import throttles
from django_workflow.api.bodies import read_json_body
from django_workflow.api.described import ANY, TEXT, Described
from django_workflow.api.filters import PARAMETERS, filter_runs
from django_workflow.api.pages import NewestFirst
from django_workflow.api.permissions import HasActionPermission, may
from django_workflow.api.serializers import BulkOperationSerializer, PerformedSerializer, RevealedSerializer
from django_workflow.api.views import OneRunView, WorkflowAPIView
from django_workflow.control import bulk
from django_workflow.control.actions import ACTIONS
from django_workflow.control.reveal import PERMISSION, reveal
from django_workflow.models import BulkOperation, Run
from django_workflow.presentation import lookup

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet

WRAPPING = 64 * 1024
MOST_RUN_IDS = 1000
IN_BULK = [name for name, action in ACTIONS.items() if action.in_bulk]

B = TypeVar("B", bound="Body")


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """What every action takes."""

    reason: str = ""

    def parameters(self) -> dict[str, Any]:
        """What the action's `perform` takes besides."""
        return {}


class NewRun(Body):
    """What actions take that begin anew. A payload that is left out is as it was; null is none."""

    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    labels: list[str] | None = None
    delay: str | float | None = None
    run_id: str | None = None

    def parameters(self) -> dict[str, Any]:
        given = {"payload": _payload(self.payload), "labels": self.labels, "delay": self.delay, "run_id": self.run_id}
        return {name: value for name, value in given.items() if value is not None}


class AfterStep(Body, kw_only=True):
    step: int
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    def parameters(self) -> dict[str, Any]:
        payload = _payload(self.payload)
        return {"step": self.step, **({} if payload is None else {"payload": payload})}


class ForMany(Body, kw_only=True):
    action: str
    run_ids: list[str] | None = None
    everything: bool = False
    name: str = ""


def _payload(raw: msgspec.Raw | msgspec.UnsetType) -> bytes | None:
    return None if isinstance(raw, msgspec.UnsetType) else bytes(raw)


def read(request: Request, form: type[B]) -> B:
    """The body of a request. Raises ValidationError that says what is wrong with it."""
    raw = read_json_body(request, wrapping=WRAPPING) or b"{}"
    try:
        return msgspec.json.decode(raw.decode(), type=form)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValidationError(_("The body is not understood: %s.") % error) from error


_REASON = {"reason": TEXT}
_NEW_RUN = {
    **_REASON,
    "payload": ANY,
    "labels": {"type": "array", "items": TEXT},
    "delay": {"oneOf": [{"type": "string"}, {"type": "number"}]},
    "run_id": TEXT,
}


def _body(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, "additionalProperties": False, **needed}


class RunActionView(OneRunView):
    """Base of the views that do something to one run: `POST runs/<run_id>/<action>/`, and the run that it concerns."""

    action_name: ClassVar[str]
    form: ClassVar[type[Body]] = Body
    permission_classes = (HasActionPermission,)
    workflow_throttle_scope = throttles.CONTROL

    @property
    def action_permissions(self) -> tuple[str, ...]:  # type: ignore[override]
        return (ACTIONS[self.action_name].permission,)

    def post(self, request: Request, run_id: str) -> Response:
        run, body = self.get_run(lookup.runs()), read(request, self.form)
        try:
            outcome = ACTIONS[self.action_name].perform(run, by=request.user, reason=body.reason, **body.parameters())
        except (ValueError, TypeError) as error:
            raise ValidationError(str(error)) from error
        status = lookup.runs().filter(run_id=outcome.run_id).values_list("status", flat=True).first()
        return Response(
            {"success": True, "run_id": outcome.run_id, "status": status or run.status, "message": outcome.message}
        )


def _described(action: str, summary: str, body: dict[str, Any] | None = None, *, required: bool = False) -> Described:
    return Described(
        f"workflow_run_{action}",
        summary,
        answer=PerformedSerializer,
        body=_body(_REASON) if body is None else body,
        body_is_required=required,
        problems=(404, 409, 502),
    )


class CancelView(RunActionView):
    """Canceling twice is well."""

    action_name = "cancel"
    described = _described("cancel", "Cancel a run.")

    def post(self, request: Request, run_id: str) -> Response:
        run = self.get_run(lookup.runs())
        if run.status != Run.Status.CANCELED:
            return super().post(request, run_id)
        message = _("It was canceled already.")
        return Response({"success": True, "run_id": run.run_id, "status": run.status, "message": message})


class PauseView(RunActionView):
    action_name = "pause"
    described = _described("pause", "Pause a run: no step of it starts until it goes on.")


class UnpauseView(RunActionView):
    action_name = "unpause"
    described = _described("unpause", "Let a paused run go on.")


class RetryNowView(RunActionView):
    action_name = "retry_now"
    described = _described("retry_now", "Try again now what a run would try again later.")


class ResumeView(RunActionView):
    action_name = "resume"
    described = _described("resume", "Go on with a failed or canceled run, as a new run with its finished steps.")


class RestartView(RunActionView):
    action_name = "restart"
    form = NewRun
    described = _described("restart", "Begin a run anew, as a new run.", _body(_NEW_RUN))


class ForkView(RunActionView):
    action_name = "fork"
    form = AfterStep
    described = _described(
        "fork",
        "Make a new run that has a run's results up to a step (0: none), and goes on from there.",
        _body({**_REASON, "step": {"type": "integer", "minimum": 0}, "payload": ANY}, "step"),
        required=True,
    )


class StartSimilarView(RunActionView):
    action_name = "start_similar"
    form = NewRun
    described = _described("start_similar", "Start another run with a run's payload and labels.", _body(_NEW_RUN))
    workflow_throttle_scope = throttles.TRIGGER


class MarkHandledView(RunActionView):
    action_name = "mark_handled"
    described = _described("mark_handled", "Mark the failure of a run as dealt with.")


class RetryFailureFunctionView(RunActionView):
    action_name = "retry_failure_function"
    described = _described("retry_failure_function", "Call a run's failure function again, which has failed.")


class RevealView(OneRunView):
    """`POST runs/<run_id>/reveal/` with a `reason`, which is noted in the run's history."""

    permission_classes = (HasActionPermission,)
    action_permissions = (PERMISSION,)
    workflow_throttle_scope = throttles.CONTROL
    described = Described(
        "workflow_run_reveal",
        "See what is hidden of a run's payload and results.",
        answer=RevealedSerializer,
        body=_body(_REASON, "reason"),
        body_is_required=True,
        problems=(404, 409),
    )

    def post(self, request: Request, run_id: str) -> Response:
        run, body = self.get_run(), read(request, Body)
        if not body.reason.strip():
            raise ValidationError({"reason": _("Say why you need to see it: the reason is noted.")})
        revealed = reveal(run, by=request.user, reason=body.reason)
        steps = [{"step_id": number, "result": result} for number, result in sorted(revealed.results.items())]
        return Response({"run_id": run.run_id, "payload": revealed.payload, "result": revealed.result, "steps": steps})


# Many runs


class BulkOperationListView(WorkflowAPIView, ListAPIView[BulkOperation]):
    """`GET bulk-operations/`: newest first; without `view_bulkoperation` a user's own."""

    described = Described(
        "workflow_bulk_operations", "List bulk operations.", answer=BulkOperationSerializer(many=True), problems=(404,)
    )
    permission_classes = (IsAuthenticated,)
    serializer_class = BulkOperationSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[BulkOperation]:
        return bulk.visible_to(self.request.user)


class BulkStartView(WorkflowAPIView):
    """`POST bulk-operations/start/?<filters of runs/>` with `{"action": …}`: the runs of the query, or of `run_ids`.

    Without either say `"everything": true`. Up to 200 runs are done when it answers; for more, ask how far it is.
    """

    described = Described(
        "workflow_bulk_start",
        "Do something to many runs.",
        answer=BulkOperationSerializer,
        body=_body(
            {
                **_REASON,
                "action": {"type": "string", "enum": IN_BULK},
                "run_ids": {"type": "array", "items": TEXT, "maxItems": MOST_RUN_IDS},
                "everything": {"type": "boolean"},
                "name": TEXT,
            },
            "action",
        ),
        body_is_required=True,
        query=PARAMETERS,
        problems=(404, 409, 502),
    )
    permission_classes = (IsAuthenticated,)
    workflow_throttle_scope = throttles.CONTROL

    def post(self, request: Request) -> Response:
        body = read(request, ForMany)
        if body.action not in IN_BULK:
            words = {"action": body.action, "known": ", ".join(IN_BULK)}
            raise ValidationError({"action": _("%(action)s is no action for many runs; known are %(known)s.") % words})
        action = ACTIONS[body.action]
        if not may(request.user, action.permission):
            raise PermissionDenied
        operation = bulk.start(action, self._runs(request, body), by=request.user, reason=body.reason, name=body.name)
        return Response(BulkOperationSerializer(operation).data)

    def _runs(self, request: Request, body: ForMany) -> RunQuerySet:
        runs = filter_runs(lookup.runs(), request.query_params)
        if body.run_ids is not None:
            if len(body.run_ids) > MOST_RUN_IDS:
                raise ValidationError({"run_ids": _("At most %d runs can be named.") % MOST_RUN_IDS})
            return runs.filter(run_id__in=[run_id for run_id in body.run_ids if "\0" not in run_id])
        if not body.everything and runs.query.where.children == []:
            raise ValidationError(
                {"run_ids": _('Nothing says which runs: give run_ids, a filter in the query, or "everything": true.')}
            )
        return runs


class OneBulkOperationView(WorkflowAPIView):
    permission_classes: Any = (IsAuthenticated,)

    def get_operation(self, pk: str) -> BulkOperation:
        try:
            operation = bulk.visible_to(self.request.user).filter(pk=UUID(pk)).first()
        except ValueError:
            operation = None
        if operation is None:
            raise NotFound(_("There is no such bulk operation that you may see."))
        return operation


class BulkOperationView(OneBulkOperationView):
    """`GET bulk-operations/<id>/`: how far it is. When no worker lives, asking does the next batch."""

    described = Described(
        "workflow_bulk_operation", "Show a bulk operation.", answer=BulkOperationSerializer, problems=(404,)
    )

    def get(self, request: Request, pk: str) -> Response:
        return Response(BulkOperationSerializer(bulk.follow(self.get_operation(pk))).data)


class BulkAbortView(OneBulkOperationView):
    """`POST bulk-operations/<id>/abort/`: stop before the next run. Stopping what is over is well."""

    described = Described(
        "workflow_bulk_abort", "Stop a bulk operation.", answer=BulkOperationSerializer, problems=(404,)
    )
    workflow_throttle_scope = throttles.CONTROL

    def post(self, request: Request, pk: str) -> Response:
        operation = self.get_operation(pk)
        if not may(request.user, ACTIONS[operation.action].permission):
            raise PermissionDenied
        bulk.abort(operation)
        return Response(BulkOperationSerializer(operation).data)

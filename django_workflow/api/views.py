"""The endpoints of the API. Each checks who asks, hands over to the client or reads rows, and answers with JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.db.models import Count, QuerySet
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.generics import GenericAPIView, ListAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from django_workflow.api import errors, throttles
from django_workflow.api.answers import give, is_form, read_answer, wants_json
from django_workflow.api.bodies import read_json_body
from django_workflow.api.described import ANY, Described, Query
from django_workflow.api.filters import PARAMETERS, filter_runs
from django_workflow.api.openapi import LazySchema
from django_workflow.api.pages import BySchedule, ByStep, NewestFirst, OldestFirst
from django_workflow.api.permissions import HasActionPermission, may, visible_runs
from django_workflow.api.serializers import (
    AnsweredSerializer,
    DeadLetterSerializer,
    EventPageSerializer,
    RunDetailSerializer,
    RunSerializer,
    RunWithStepsSerializer,
    ScheduleSerializer,
    StepSerializer,
    TriggeredSerializer,
    WaiterSerializer,
    WorkflowSerializer,
)
from django_workflow.api.triggers import trigger
from django_workflow.authoring.registry import UnknownWorkflow, registry
from django_workflow.client.urls import workflow_url
from django_workflow.conf import get_settings
from django_workflow.errors import RequestRejected
from django_workflow.models import DeadLetter, Run, Schedule, Step, Waiter
from django_workflow.presentation import lookup, values
from django_workflow.realtime import history
from django_workflow.realtime.forms import FormInvalid
from django_workflow.realtime.messages import BEGINNING, parse_cursor

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet

STEPS_IN_DETAIL = 200
EVENTS_PER_PAGE = 200
MOST_EVENTS_PER_PAGE = 1000


class WorkflowAPIView(GenericAPIView[Any]):
    """Base of all views: errors in one form, and limits of this API's own.

    Authentication, renderers and throttle classes are what the project's REST_FRAMEWORK setting says; versions, filters
    and pages are not, since they would change what these endpoints take and give.
    """

    described: Described
    schema = LazySchema()
    serializer_class: Any = Serializer  # none of its fields are asked for: OPTIONS and DRF's pages want to see one
    permission_classes: Any = (HasActionPermission,)
    action_permissions: tuple[str, ...] = ()
    workflow_throttle_scope = throttles.READ
    versioning_class = None
    filter_backends: Any = ()
    pagination_class: Any = None
    queryset: Any = Run.objects.none()  # DRF's pages of lists want to see one

    def get_exception_handler(self) -> Callable[..., Response | None]:
        return errors.handle

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        for name, value in (*kwargs.items(), *request.query_params.items()):
            if "\0" in str(value):  # no text in a database has it, and PostgreSQL does not even compare
                raise ValidationError({name: _("The character U+0000 is not allowed.")})

    def get_throttles(self) -> list[Any]:
        return [*super().get_throttles(), throttles.WorkflowThrottle()]

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        if getattr(response, "exception", False) and response.accepted_renderer.format == "json":
            response.content_type = errors.CONTENT_TYPE
        return response


# Workflows


class WorkflowListView(WorkflowAPIView):
    """`GET workflows/`: the workflows of this project, and how many runs of each are active."""

    described = Described("workflow_workflows", "List the workflows.", answer=WorkflowSerializer(many=True))
    action_permissions = ("view_run", "trigger_workflow")

    def get(self, request: Request) -> Response:
        counts = lookup.runs().active().order_by().values_list("workflow").annotate(number=Count("pk"))
        active: dict[str, int] = dict(counts)
        return Response([_workflow_json(workflow, active) for workflow in registry.all()])


def _workflow_json(workflow: Any, active: dict[str, int]) -> dict[str, Any]:
    return {
        "name": workflow.name,
        "aliases": list(workflow.aliases),
        "url": workflow_url(workflow.name),
        "schedule": workflow.schedule,
        "active_runs": sum(active.get(name, 0) for name in (workflow.name, *workflow.aliases)),
    }


class TriggerView(WorkflowAPIView):
    """`POST workflows/<name>/trigger/`: the body is the payload; `label`, `run_id` and `delay` come in the query."""

    described = Described(
        "workflow_trigger",
        "Start a run; the body is its payload.",
        answer=TriggeredSerializer,
        body=ANY,
        query=(
            Query("label", "A label of the run.", many=True),
            Query("run_id", "An id of your own; a second trigger with it starts nothing."),
            Query("delay", "How long to wait first: seconds, or a duration such as `1h`."),
        ),
        problems=(404, 502),
    )
    action_permissions = ("trigger_workflow",)
    workflow_throttle_scope = throttles.TRIGGER

    def post(self, request: Request, name: str) -> Response:
        try:
            workflow = registry.get(name)
        except UnknownWorkflow as error:
            raise NotFound(str(error)) from error
        handle = trigger(workflow, read_json_body(request), request.query_params, request.user)
        return Response({"workflowRunId": handle.id})


# Runs


class RunListView(WorkflowAPIView, ListAPIView[Run]):
    """`GET runs/`: newest first; without `view_run` a user's own."""

    described = Described(
        "workflow_runs", "List runs.", answer=RunSerializer(many=True), query=PARAMETERS, problems=(404,)
    )
    permission_classes = (IsAuthenticated,)
    serializer_class = RunSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> RunQuerySet:
        runs = visible_runs(self.request.user).select_related("owner", "parent", "resumed_from")
        runs = lookup.with_step_count(runs.defer("payload", "result", "config"))
        return filter_runs(runs, self.request.query_params)


class OneRunView(WorkflowAPIView):
    """Base of the views of one run. What a user may not see does not exist for him."""

    permission_classes: Any = (IsAuthenticated,)

    def get_run(self, runs: RunQuerySet | None = None) -> Run:
        if runs is None:
            runs = visible_runs(self.request.user)
        found = lookup.with_step_count(runs).select_related("owner", "parent", "resumed_from")
        run = found.filter(run_id=self.kwargs["run_id"]).first()
        if run is None:
            raise NotFound(_("There is no run “%s” that you may see.") % self.kwargs["run_id"])
        return run


class RunDetailView(OneRunView):
    """`GET runs/<run_id>/`: the run with its first 200 steps (`step_count` says how many there are) and open waits."""

    described = Described("workflow_run", "Show a run.", answer=RunWithStepsSerializer, problems=(404,))

    def get(self, request: Request, run_id: str) -> Response:
        run = self.get_run()
        steps = list(run.steps.order_by("step_id")[:STEPS_IN_DETAIL])
        waiting = run.waiters.waiting().select_related("run").order_by("created_at")[:STEPS_IN_DETAIL]
        return Response(
            {
                **RunDetailSerializer(run).data,
                "waiters": WaiterSerializer(waiting, many=True).data,
                "steps": _steps_json(run, steps),
            }
        )


class RunStepsView(OneRunView):
    """`GET runs/<run_id>/steps/`: all steps, in pages."""

    described = Described(
        "workflow_run_steps", "List a run's steps.", answer=StepSerializer(many=True), problems=(404,)
    )
    serializer_class = StepSerializer
    pagination_class = ByStep

    def get(self, request: Request, run_id: str) -> Response:
        run = self.get_run()
        page: list[Step] = list(self.paginate_queryset(run.steps.all()) or ())
        return self.get_paginated_response(_steps_json(run, page))


def _steps_json(run: Run, steps: list[Step]) -> Any:
    return StepSerializer(steps, many=True, context={"results": values.step_results(run, steps)}).data


class RunEventsView(OneRunView):
    """`GET runs/<run_id>/events/?after=<event id>&limit=`: what the run's channel keeps, oldest first."""

    described = Described(
        "workflow_run_events",
        "List a run's realtime events.",
        answer=EventPageSerializer,
        query=(
            Query("after", "Id of the event to go on after."),
            Query("limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": MOST_EVENTS_PER_PAGE}),
        ),
        problems=(404,),
    )

    def get(self, request: Request, run_id: str) -> Response:
        run = self.get_run()
        cursor = request.query_params.get("after") or BEGINNING
        limit = _limit(request.query_params.get("limit"))
        try:
            position = parse_cursor(cursor) or 0
        except RequestRejected as error:
            raise ValidationError({"after": str(error)}) from error
        events = history.page_after(run.run_id, position, limit + 1)
        page = events[:limit]
        redacted = values.is_redacted(run)
        return Response(
            {
                "results": [
                    {"id": event.id, "event": event.event, "data": values.event_data(event.data, redacted=redacted)}
                    for event in page
                ],
                "cursor": page[-1].id if page else cursor,
                "more": len(events) > limit,
            }
        )


def _limit(text: str | None) -> int:
    if not text:
        return EVENTS_PER_PAGE
    if not text.isdecimal() or not 1 <= int(text) <= MOST_EVENTS_PER_PAGE:
        raise ValidationError({"limit": _("limit is a number from 1 to %d.") % MOST_EVENTS_PER_PAGE})
    return int(text)


# Events that runs wait for


class WaiterListView(WorkflowAPIView, ListAPIView[Waiter]):
    """`GET waiters/?run=<run_id>&event=<event_id>`: what is waited for, of the runs that the user may see."""

    described = Described(
        "workflow_waiters",
        "List what runs wait for.",
        answer=WaiterSerializer(many=True),
        query=(Query("run", "Only of this run."), Query("event", "Only for this event.")),
        problems=(404,),
    )
    permission_classes = (IsAuthenticated,)
    serializer_class = WaiterSerializer
    pagination_class = OldestFirst

    def get_queryset(self) -> QuerySet[Waiter]:
        parameters = self.request.query_params
        waiters = Waiter.objects.using(get_settings().database).waiting().select_related("run")
        if not may(self.request.user, "view_run"):
            waiters = waiters.filter(run__owner=self.request.user.pk)
        if run_id := parameters.get("run"):
            waiters = waiters.filter(run__run_id=run_id)
        if event_id := parameters.get("event"):
            waiters = waiters.filter(event_id=event_id)
        return waiters


class NotifyView(WorkflowAPIView):
    """`POST events/<event_id>/notify/?run=<run_id>` with `{"eventData": …}`; forms are led back to their page.

    Open to whoever may answer a run's channel: holders of `notify_run`, the run's owner, bearers of a signed token.
    """

    described = Described(
        "workflow_notify",
        "Answer an event that runs wait for.",
        answer=AnsweredSerializer,
        body={"type": "object", "properties": {"eventData": ANY}},
        query=(Query("run", "Only this run."), Query("token", "A signed token, in the place of a user.")),
        problems=(404, 409, 502),
    )
    permission_classes = ()
    workflow_throttle_scope = throttles.ANSWER

    def post(self, request: Request, event_id: str) -> HttpResponse:
        try:
            answer = read_answer(request, event_id)
        except FormInvalid as error:
            if not is_form(request) or wants_json(request):
                raise
            return self._form_page(request, error)
        if not answer.has_proof:
            self.permission_denied(request)
        resolved = give(answer)
        if is_form(request) and not wants_json(request) and (page := _page_of(request)):
            return HttpResponseRedirect(page)
        return Response({"success": True, "resolved": resolved})

    def _form_page(self, request: Request, error: FormInvalid) -> HttpResponse:
        """The form again, on a page of its own, for browsers without JavaScript."""
        context = {"form": error.form, "back": _page_of(request), "token": request._request.POST.get("token", "")}
        return render(request._request, "django_workflow/progress/form_page.html", context, status=error.status_code)


def _page_of(request: Request) -> str:
    """The page that a form was sent from, when it is one of this site. A form that is shown again remembers it."""
    page = request._request.POST.get("back") or request.META.get("HTTP_REFERER", "")
    return page if url_has_allowed_host_and_scheme(page, {request.get_host()}, request.is_secure()) else ""


# What else there is


class ScheduleListView(WorkflowAPIView, ListAPIView[Schedule]):
    """`GET schedules/`: those of the code and those made by clients."""

    described = Described(
        "workflow_schedules", "List schedules.", answer=ScheduleSerializer(many=True), problems=(404,)
    )
    action_permissions = ("view_schedule",)
    serializer_class = ScheduleSerializer
    pagination_class = BySchedule

    def get_queryset(self) -> QuerySet[Schedule]:
        return Schedule.objects.using(get_settings().database).all()


class DeadLetterListView(WorkflowAPIView, ListAPIView[DeadLetter]):
    """`GET dead-letters/`: what failed for good, newest first."""

    described = Described(
        "workflow_dead_letters", "List dead letters.", answer=DeadLetterSerializer(many=True), problems=(404,)
    )
    action_permissions = ("view_deadletter",)
    serializer_class = DeadLetterSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[DeadLetter]:
        return DeadLetter.objects.using(get_settings().database).select_related("run")

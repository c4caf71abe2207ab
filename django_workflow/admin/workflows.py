"""The workflows of this site: what became of their runs lately, and a form that starts one.

Workflows are found in code, so there are no rows of them: the list joins the registry with the numbers of runs. Names
that only runs have are shown above it.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils import formats, timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from django_workflow.admin.base import ReadOnlyAdmin, time_cell
from django_workflow.admin.own_page import Crumb, admin_url, own_page
from django_workflow.admin.status import status_badge
from django_workflow.admin.trigger_form import FieldsForm, JsonForm, OptionsForm, fields_form
from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.payload_schema import payload_schema
from django_workflow.authoring.registry import registry
from django_workflow.client.urls import workflow_url
from django_workflow.conf import get_settings
from django_workflow.control.start import start
from django_workflow.errors import PayloadInvalid, WorkflowError
from django_workflow.models import RegisteredWorkflow, Run
from django_workflow.presentation import lookup, values
from django_workflow.presentation.words import first_line, short_run_id
from django_workflow.presentation.workflows import Numbers, gone, numbers_by_workflow
from django_workflow.protocol.identifiers import new_run_id
from django_workflow.realtime.lengths import length_text
from django_workflow.replay.values import ANY

TRIGGER_URL = "django_workflow_registeredworkflow_trigger"
RECENT_PAYLOADS = 8
LARGEST_COPIED = 64 * 1024
_SHOWN = (Run.Status.SUCCESS, Run.Status.FAILED, Run.Status.CANCELED)


@dataclass(frozen=True, slots=True)
class Count:
    """How many runs of the last day have a status: its badge, and where they are listed."""

    badge: SafeString
    number: int
    url: str


@dataclass(frozen=True, slots=True)
class Row:
    """A workflow with its numbers in words."""

    name: str
    url: str
    trigger_url: str
    runs_url: str
    function: str
    about: str
    payload: str
    counts: list[Count]
    success_rate: str
    p50: str
    p95: str
    active: int
    active_url: str
    oldest: SafeString | None


@dataclass(frozen=True, slots=True)
class RecentPayload:
    """A payload that a run had. `copy_url` is the form filled with it; "" when parts of it are hidden."""

    run_id: str
    run_url: str
    preview: str
    created: SafeString | None
    copy_url: str


@admin.register(RegisteredWorkflow)
class RegisteredWorkflowAdmin(ReadOnlyAdmin[RegisteredWorkflow]):
    # Rights: runs are seen by who sees runs, and started by who may trigger.

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("django_workflow.view_run") or self.has_trigger_permission(request))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_trigger_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("django_workflow.trigger_workflow"))

    def get_urls(self) -> list[URLPattern]:
        view: Any = self.admin_site.admin_view(self.trigger_view)
        return [path("<path:object_id>/trigger/", view, name=TRIGGER_URL), *super().get_urls()]

    # The list

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        self._check_view(request)
        now = timezone.now()
        found = numbers_by_workflow(now)
        return own_page(
            self,
            request,
            "workflows.html",
            _("Workflows"),
            is_list=True,
            rows=[self._row(workflow, _together(workflow, found)) for workflow in registry.all()],
            gone=[(one, admin_url(self, "run_changelist", query=_active(one.name))) for one in gone(found)],
            may_trigger=self.has_trigger_permission(request),
            is_hosted=get_settings().is_hosted,
            **(extra_context or {}),
        )

    def _row(self, workflow: Workflow[Any, Any], numbers: Numbers) -> Row:
        runs_url = admin_url(self, "run_changelist", query={"workflow": workflow.name})
        counts = [self._count(workflow.name, status, numbers.count(status)) for status in _SHOWN]
        rate = numbers.success_rate
        return Row(
            name=workflow.name,
            url=admin_url(self, "registeredworkflow_change", quote(workflow.name)),
            trigger_url=admin_url(self, "registeredworkflow_trigger", quote(workflow.name)),
            runs_url=runs_url,
            function=f"{workflow.function.__module__}.{workflow.function.__qualname__}",
            about=first_line(inspect.getdoc(workflow.function) or "", 120),
            payload=_type_name(workflow.payload_type),
            counts=[count for count in counts if count.number],
            success_rate="" if rate is None else _percent(rate),
            p50="" if numbers.p50 is None else length_text(numbers.p50),
            p95="" if numbers.p95 is None else length_text(numbers.p95),
            active=numbers.active,
            active_url=admin_url(self, "run_changelist", query=_active(workflow.name)),
            oldest=time_cell(numbers.oldest_active_at),
        )

    def _count(self, name: str, status: Run.Status, number: int) -> Count:
        query = {"workflow": name, "status": status.value}
        return Count(status_badge(status, str(status.label)), number, admin_url(self, "run_changelist", query=query))

    # One of them

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        self._check_view(request)
        workflow = _registered(object_id)
        found = numbers_by_workflow(timezone.now(), (workflow.name, *workflow.aliases))
        schema = payload_schema(workflow.payload_type)
        return own_page(
            self,
            request,
            "workflow.html",
            workflow.name,
            row=self._row(workflow, _together(workflow, found)),
            doc=inspect.getdoc(workflow.function) or "",
            endpoint=workflow_url(workflow.name),
            options=_options(workflow),
            schema="" if schema is None else json.dumps(schema, indent=2, ensure_ascii=False, default=str),
            may_trigger=self.has_trigger_permission(request),
            recent=self._recent(request, workflow),
            **(extra_context or {}),
        )

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        raise Http404  # runs have histories, code has none here

    # Starting one

    def trigger_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The form of a workflow's payload, and the start of a run with it."""
        if not self.has_trigger_permission(request):
            raise PermissionDenied
        workflow = _registered(object_id)
        made = fields_form(payload_schema(workflow.payload_type))
        wants_json = made is None or request.GET.get("as") == "json"
        form_class: type[FieldsForm | JsonForm] = JsonForm if wants_json or made is None else made
        data = request.POST if request.method == "POST" else None
        form = form_class(data, prefix="payload", initial=self._copied(request, workflow, form_class))
        options = OptionsForm(data, prefix="run", initial={"run_id": new_run_id()})
        if form.is_valid() & options.is_valid() and (run := self._start(request, workflow, form, options)):
            return HttpResponseRedirect(run)
        url = admin_url(self, "registeredworkflow_trigger", quote(workflow.name))
        return own_page(
            self,
            request,
            "trigger.html",
            _("Trigger %s") % workflow.name,
            crumbs=[Crumb(workflow.name, admin_url(self, "registeredworkflow_change", quote(workflow.name)))],
            form=form,
            options=options,
            wants_json=wants_json,
            other_url=("" if made is None else url if wants_json else f"{url}?as=json"),
            back_url=admin_url(self, "registeredworkflow_change", quote(workflow.name)),
            recent=self._recent(request, workflow),
            payload_type=_type_name(workflow.payload_type),
            status=200 if data is None else 400,
        )

    def _start(
        self, request: HttpRequest, workflow: Workflow[Any, Any], form: FieldsForm | JsonForm, options: OptionsForm
    ) -> str:
        """The page of the run that was started; "" when the payload does not fit or the engine refuses, which the
        forms then say."""
        reason = options.cleaned_data["reason"]
        try:
            handle = start(
                workflow,
                form.payload(),
                by=request.user,
                kind=Run.TriggerKind.USER,
                reason=reason,
                **options.options,
            )
        except PayloadInvalid as error:
            form.add_payload_error(error.field, str(error))
            return ""
        except (WorkflowError, ValueError, TypeError) as error:
            options.add_error(None, str(error))
            return ""
        if handle.deduplicated:
            text = _("There is a run %s already: no second one was started.")
            self.message_user(request, text % handle.id, messages.WARNING)
        else:
            self.message_user(request, _("Run %s was started.") % handle.id, messages.SUCCESS)
        run = lookup.runs().filter(run_id=handle.id).only("pk").first()
        if run is None or not request.user.has_perm("django_workflow.view_run"):
            return admin_url(self, "registeredworkflow_changelist")
        return admin_url(self, "run_change", run.pk)

    def _copied(
        self, request: HttpRequest, workflow: Workflow[Any, Any], form_class: type[FieldsForm | JsonForm]
    ) -> dict[str, Any]:
        """What the form starts with: the payload of the run that the address names."""
        wanted = request.GET.get("copy")
        if not wanted or not request.user.has_perm("django_workflow.view_run"):
            return {}
        names = (workflow.name, *workflow.aliases)
        run = lookup.runs().filter(run_id=wanted, workflow__in=names).first()
        if run is None or len(run.payload) > LARGEST_COPIED:
            return {}
        payload = values.payload_of(run)
        return {} if _has_hidden(payload) else form_class(prefix="payload").initial_of(payload)

    def _recent(self, request: HttpRequest, workflow: Workflow[Any, Any]) -> list[RecentPayload]:
        """Different payloads of the newest runs, for those who may see runs."""
        if not request.user.has_perm("django_workflow.view_run"):
            return []
        runs = lookup.runs().filter(workflow__in=(workflow.name, *workflow.aliases)).order_by("-created_at")
        trigger_url = admin_url(self, "registeredworkflow_trigger", quote(workflow.name))
        found: dict[str, RecentPayload] = {}
        for run in runs.defer("result", "error", "why")[: RECENT_PAYLOADS * 5]:
            if run.payload in found or len(run.payload) > LARGEST_COPIED or len(found) == RECENT_PAYLOADS:
                continue
            payload = values.payload_of(run)
            found[run.payload] = RecentPayload(
                run_id=short_run_id(run.run_id),
                run_url=admin_url(self, "run_change", run.pk),
                preview=first_line(values.on_one_line(payload), 120) if payload is not None else "",
                created=time_cell(run.created_at),
                copy_url="" if _has_hidden(payload) else f"{trigger_url}?{_query(copy=run.run_id)}",
            )
        return list(found.values())

    def _check_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied


def _registered(object_id: str) -> Workflow[Any, Any]:
    workflow = registry.find(unquote(object_id))
    if workflow is None:
        raise Http404(_("There is no workflow “%s”.") % unquote(object_id))
    return workflow


def _together(workflow: Workflow[Any, Any], found: dict[str, Numbers]) -> Numbers:
    """The numbers of a workflow, with those of runs that were started under its former names."""
    numbers = [found[name] for name in (workflow.name, *workflow.aliases) if name in found]
    if len(numbers) < 2:
        return numbers[0] if numbers else Numbers()
    first = numbers[0]
    lately: dict[str, int] = {}
    for one in numbers:
        for status, number in one.lately.items():
            lately[status] = lately.get(status, 0) + number
    oldest = [one.oldest_active_at for one in numbers if one.oldest_active_at]
    return Numbers(lately, sum(one.active for one in numbers), min(oldest, default=None), first.p50, first.p95)


def _options(workflow: Workflow[Any, Any]) -> list[tuple[str, str]]:
    """What its declaration says, besides what holds for every workflow."""
    on_failure = workflow.on_failure
    found = [
        (_("Former names"), ", ".join(workflow.aliases)),
        (_("Schedule"), f"{workflow.schedule} ({workflow.timezone})" if workflow.schedule else ""),
        (_("Retries"), "" if workflow.options.retries is None else str(workflow.options.retries)),
        (_("Failure function"), "" if on_failure is None else getattr(on_failure, "__qualname__", repr(on_failure))),
        (_("Middlewares"), ", ".join(type(one).__qualname__ for one in workflow.middlewares)),
    ]
    return [(name, text) for name, text in found if text]


def _type_name(type_: Any) -> str:
    if type_ is ANY:
        return ""
    return getattr(type_, "__qualname__", None) or str(type_)


def _percent(share: float) -> str:
    return _("%s %%") % formats.number_format(round(share * 100, 1), decimal_pos=1)


def _active(name: str) -> dict[str, str]:
    return {"workflow": name, "status": lookup.ACTIVE}


def _has_hidden(payload: Any) -> bool:
    """Whether something in it is masked: a copy would carry the mask."""
    if isinstance(payload, dict):
        return any(map(_has_hidden, payload.values()))
    if isinstance(payload, list):
        return any(map(_has_hidden, payload))
    return bool(payload == values.REDACTED)


def _query(**parameters: str) -> str:
    from django.utils.http import urlencode

    return urlencode(parameters)

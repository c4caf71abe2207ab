"""The waiting inbox: what runs ask people, for those who may answer it; and the page that takes the answer.

Whoever a form is addressed to needs no other permission. What may be answered is decided by `presentation.inbox`, the
answer is given by `control.answers`, the same as in the widget and the API.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_workflow.admin.base import ReadOnlyAdmin, object_url, time_cell
from django_workflow.admin.own_page import admin_url, own_page
from django_workflow.admin.status import status_badge
from django_workflow.control.answers import Answer, AnswerRefused
from django_workflow.control.history import write
from django_workflow.errors import WorkflowError
from django_workflow.models import Run, Waiter
from django_workflow.presentation import inbox, values
from django_workflow.presentation.inbox import Question
from django_workflow.presentation.words import first_line, short_run_id
from django_workflow.realtime.forms import FormInvalid
from django_workflow.realtime.lengths import length_text

PER_PAGE = 50
SOON = timedelta(hours=1)
_COUNTED = "_workflow_open_questions"


@dataclass(frozen=True, slots=True)
class Row:
    """A question in words. `related` is what its run is about: text and address ("" when it has no page)."""

    text: str
    url: str
    workflow: str
    run_id: str
    run_url: str
    related: tuple[str, str] | None
    since: SafeString | None
    expires: SafeString | None
    left: str
    is_urgent: bool
    assigned: str


class AnswerForm(forms.Form):
    """An answer without a form of the project: JSON."""

    answer = forms.CharField(
        label=gettext_lazy("Answer as JSON"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 5, "class": "wfa-json", "spellcheck": "false"}),
        help_text=gettext_lazy("What the run's wait returns. Empty: the event carries nothing."),
    )

    def clean_answer(self) -> str:
        text = self.cleaned_data["answer"].strip()
        if text:
            try:
                json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ValidationError(_("This is no JSON: %s.") % error) from error
        return str(text)


class ReasonForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Note"),  # the form itself may ask for a reason
        required=False,
        max_length=1000,
        help_text=gettext_lazy("Optional. It is noted in the history, with your name."),
    )


@admin.register(Waiter)
class InboxAdmin(ReadOnlyAdmin[Waiter]):
    # Rights: everybody on the staff sees what is his to answer, and nothing else.

    def has_view_permission(self, request: HttpRequest, obj: Waiter | None = None) -> bool:
        return bool(request.user.is_active and request.user.is_staff)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whether it is worth an entry in the menu: for who answers or sees runs, and who is asked something now."""
        user = request.user
        if user.has_perm("django_workflow.notify_run") or user.has_perm("django_workflow.view_run"):
            return True
        return self.has_view_permission(request) and open_questions(request) > 0

    def has_delete_permission(self, request: HttpRequest, obj: Waiter | None = None) -> bool:
        return False

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        is_shown = self.has_module_permission(request)
        return {"add": False, "change": False, "delete": False, "view": is_shown}

    # The list

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        self._check_view(request)
        shows_answered = request.GET.get("view") == "answered"
        url = admin_url(self, "waiter_changelist")
        context: dict[str, Any] = {"open_url": url, "answered_url": f"{url}?view=answered"}
        questions, is_cut = inbox.questions_for(request.user)
        if shows_answered:
            context["answered"] = [self._answered(waiter) for waiter in inbox.answered_by(request.user)[:PER_PAGE]]
        else:
            page = Paginator(questions, PER_PAGE).get_page(request.GET.get("page"))
            names = inbox.addressees(page)
            context["rows"] = [self._row(request, question, names.get(question.waiter.pk, "")) for question in page]
            context["page"] = page
        return own_page(
            self,
            request,
            "inbox.html",
            _("Waiting inbox"),
            is_list=True,
            shows_answered=shows_answered,
            number=len(questions),
            is_cut=is_cut,
            most=inbox.MOST,
            **context,
            **(extra_context or {}),
        )

    def _row(self, request: HttpRequest, question: Question, assigned: str) -> Row:
        waiter, now = question.waiter, timezone.now()
        left = None if waiter.deadline_at is None else waiter.deadline_at - now
        return Row(
            text=question.text,
            url=admin_url(self, "waiter_change", waiter.pk),
            workflow=waiter.run.workflow,
            run_id=short_run_id(waiter.run.run_id),
            run_url=self._run_url(request, waiter.run),
            related=self._related(request, waiter.run),
            since=time_cell(waiter.created_at),
            expires=time_cell(waiter.deadline_at),
            left="" if left is None else _("in %s") % length_text(left),
            is_urgent=left is not None and left < SOON,
            assigned=assigned,
        )

    def _answered(self, waiter: Waiter) -> tuple[Waiter, str, SafeString | None]:
        return waiter, admin_url(self, "waiter_change", waiter.pk), time_cell(waiter.resolved_at)

    def _run_url(self, request: HttpRequest, run: Run) -> str:
        """The run's page, for those who may see it."""
        return admin_url(self, "run_change", run.pk) if request.user.has_perm("django_workflow.view_run") else ""

    def _related(self, request: HttpRequest, run: Run) -> tuple[str, str] | None:
        about = run.related_object
        return None if about is None else (str(about), object_url(self.admin_site, request, about))

    # The answer

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        self._check_view(request)
        waiter = self._waiter(request, object_id)
        question = inbox.question_of(waiter, request.user)
        if question is None and waiter.resolved_by_id != request.user.pk:
            raise PermissionDenied
        if waiter.state != Waiter.State.WAITING or question is None:
            return self._page(request, waiter, None)
        form, data = self._read(question, request)
        reason = ReasonForm(request.POST if request.method == "POST" else None, prefix="note")
        if data is not None and reason.is_valid():
            return self._give(request, question, data, reason.cleaned_data["reason"])
        return self._page(request, waiter, question, form=form, reason_form=reason)

    def _waiter(self, request: HttpRequest, object_id: str) -> Waiter:
        rows = self.get_queryset(request).exclude(state__in=(Waiter.State.EARLY, Waiter.State.CONSUMED))
        try:
            return rows.select_related("run", "run__content_type", "resolved_by").get(pk=unquote(object_id))
        except (Waiter.DoesNotExist, ValidationError, ValueError) as error:
            raise Http404 from error

    def _read(self, question: Question, request: HttpRequest) -> tuple[Any, bytes | None]:
        """The form to show, and the answer as JSON; None when there is none yet, or the form does not take it."""
        if request.method != "POST":
            return AnswerForm(prefix="event") if question.form is None else question.form.blank(), None
        if question.form is not None:
            try:
                return question.form.blank(), question.form.clean(request.POST, request.FILES)
            except FormInvalid as error:
                return error.form, None
        form = AnswerForm(request.POST, prefix="event")
        quick = request.POST.get("quick")
        if quick in ("yes", "no"):
            return form, json.dumps({"approved": quick == "yes"}).encode()
        return form, form.cleaned_data["answer"].encode() if form.is_valid() else None

    def _give(self, request: HttpRequest, question: Question, data: bytes, reason: str) -> HttpResponse:
        waiter = question.waiter
        answer = Answer(
            event_id=waiter.event_id, data=data, run_id=waiter.run.run_id, user=request.user, form=question.form
        )
        try:
            answer.give()
        except AnswerRefused as refused:
            self.message_user(request, str(refused), messages.WARNING)
            return HttpResponseRedirect(admin_url(self, "waiter_change", waiter.pk))
        except WorkflowError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(admin_url(self, "waiter_change", waiter.pk))
        said = _("Answered “%s”.") % first_line(question.text, 100)
        write(waiter.run, by=request.user, message=said, reason=reason)
        self.message_user(request, said, messages.SUCCESS)
        return HttpResponseRedirect(admin_url(self, "waiter_changelist"))

    def _page(
        self,
        request: HttpRequest,
        waiter: Waiter,
        question: Question | None,
        form: Any = None,
        reason_form: ReasonForm | None = None,
    ) -> HttpResponse:
        shown = question or Question(waiter, None)
        names = inbox.addressees([shown])
        answer = ""
        if question is None and waiter.event_data and not values.is_redacted(waiter.run):
            answer = values.laid_out(values.waiter_answer(waiter, redacted=False))
        media = self.media + form.media if form is not None else self.media
        response = own_page(
            self,
            request,
            "answer.html",
            _("Answer"),
            waiter=waiter,
            question=shown,
            row=self._row(request, shown, names.get(waiter.pk, "")),
            badge=status_badge(waiter.state, waiter.get_state_display()),
            form=form,
            is_project_form=question is not None and question.form is not None,
            reason_form=reason_form,
            resolved=time_cell(waiter.resolved_at),
            is_own=waiter.resolved_by_id == request.user.pk,
            answer=answer,
            back_url=admin_url(self, "waiter_changelist"),
            status=400 if form is not None and form.is_bound and form.errors else 200,
        )
        assert response.context_data is not None
        response.context_data["media"] = media
        return response

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        raise Http404  # what is answered stands in the run's history

    def _check_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied


def open_questions(request: HttpRequest) -> int:
    """How many questions wait for this user; looked up once per request."""
    number: int | None = getattr(request, _COUNTED, None)
    if number is None:
        number = len(inbox.questions_for(request.user)[0])
        setattr(request, _COUNTED, number)
    return number

"""Waiting for a form: shown to whom it is addressed, validated on the server, answered once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django import forms
from django.contrib.auth.models import Group, User
from django.test import Client
from rest_framework.test import APIClient

from django_workflow import StepError, WorkflowContext, step, workflow
from django_workflow.models import InputRequest, Run, Waiter
from django_workflow.realtime.access import make_token
from tests.admin.builders import make_user
from tests.api.conftest import as_user
from tests.scenarios.conftest import Engine


class ApprovalForm(forms.Form):
    amount = forms.DecimalField(max_value=100)
    on = forms.DateField()
    note = forms.CharField(required=False, max_length=5)


@dataclass
class Approval:
    amount: Decimal
    on: date
    note: str


@workflow(name="form-approval")
def form_approval(ctx: WorkflowContext[Any]) -> Any:
    answer = ctx.wait_for_form(
        "approve",
        ApprovalForm,
        to=ctx.request_payload,
        timeout="2d",
        initial={"amount": "12.50"},
        message="How much?",
        type=Approval,
    )
    if answer.timeout:
        return "too late"
    assert isinstance(answer.values, Approval)
    return {"amount": str(answer.values.amount), "year": answer.values.on.year, "note": answer.values.note}


@workflow(name="async-form")
async def async_form(ctx: Any) -> Any:
    answer = await ctx.wait_for_form("approve", ApprovalForm)
    return answer.values


@workflow(name="two-forms")
def two_forms(ctx: WorkflowContext[None]) -> Any:
    first, second = ctx.parallel(
        step.wait_for_form("one", ApprovalForm, timeout="1h"), step.wait_for_form("two", ApprovalForm, timeout="1h")
    )
    return [first.timeout, second.timeout]


GOOD = {"amount": "7.25", "on": "2026-11-22", "note": "ok"}


def url(run: Run, event: str = "approve") -> str:
    return f"/workflows/api/events/{event}/notify/?run={run.run_id}"


def shown(client: Client, run: Run) -> str:
    return client.get(f"/workflows/realtime/run/{run.run_id}/?respond=1").content.decode()


@pytest.fixture
def answering(db: None) -> User:
    return make_user("answering", "notify_run", "view_run")


def waiting(engine: Engine, flow: Any = form_approval, payload: Any = None) -> Any:
    handle = flow.trigger(payload)
    engine.run()
    assert handle.run.status == Run.Status.WAITING
    return handle


def test_plain_values_become_cleaned_data(engine: Engine, answering: User) -> None:
    handle = waiting(engine)
    response = as_user(answering).post(url(handle.run), {"eventData": GOOD}, format="json")
    assert response.json() == {"success": True, "resolved": 1}
    assert engine.finish(handle).result == '{"amount":"7.25","year":2026,"note":"ok"}'
    request = InputRequest.objects.get()
    assert (request.answered_by, request.answer) == (answering, '{"amount":"7.25","on":"2026-11-22","note":"ok"}')


def test_async_workflows_get_plain_values(engine: Engine, answering: User) -> None:
    handle = waiting(engine, async_form)
    as_user(answering).post(url(handle.run), {"eventData": GOOD}, format="json")
    assert engine.finish(handle).result == '{"amount":"7.25","on":"2026-11-22","note":"ok"}'


def test_what_the_form_does_not_take_is_said_by_field(engine: Engine, answering: User) -> None:
    handle = waiting(engine)
    bad = {"amount": "700", "note": "too long"}
    response = as_user(answering).post(url(handle.run), {"eventData": bad}, format="json")
    assert response.status_code == 400
    assert response.json()["code"] == "form_invalid"
    assert response.json()["errors"].keys() == {"amount", "on", "note"}
    assert Waiter.objects.get().state == Waiter.State.WAITING
    assert InputRequest.objects.get().answered_at is None


def test_the_second_answer_is_a_conflict(engine: Engine, answering: User) -> None:
    handle = waiting(engine)
    for status in (200, 409):
        response = as_user(answering).post(url(handle.run), {"eventData": GOOD}, format="json")
        assert response.status_code == status
    engine.finish(handle)


def test_nobody_answers_around_the_form(engine: Engine, answering: User) -> None:
    waiting(engine)
    response = as_user(answering).post("/workflows/api/events/approve/notify/", {"eventData": 1}, format="json")
    assert (response.status_code, list(response.json()["errors"])) == (400, ["run"])


def test_an_answer_after_the_time_is_up_is_a_conflict(engine: Engine, answering: User) -> None:
    handle = waiting(engine)
    engine.clock.advance("2d")
    assert engine.finish(handle, skip_delays=False).result == '"too late"'
    assert as_user(answering).post(url(handle.run), {"eventData": GOOD}, format="json").status_code == 409


def test_the_widget_shows_the_form_with_what_it_starts_with(engine: Engine, answering: User, client: Client) -> None:
    handle = waiting(engine)
    client.force_login(answering)
    html = shown(client, handle.run)
    assert "How much?" in html
    assert 'name="wf1-amount"' in html
    assert 'value="12.50"' in html
    assert "Approve" not in html  # the buttons of plain events


def test_a_browser_without_javascript_is_led_through_the_form(engine: Engine, answering: User, client: Client) -> None:
    handle = waiting(engine)
    client.force_login(answering)
    page = "http://testserver/order/1/"
    posted = {f"wf1-{name}": value for name, value in GOOD.items()}
    again = client.post(url(handle.run), {**posted, "wf1-amount": "700"}, headers={"Referer": page})
    assert again.status_code == 400
    assert "less than or equal to 100" in again.content.decode()
    assert 'value="700"' in again.content.decode()
    done = client.post(url(handle.run), {**posted, "back": page})
    assert (done.status_code, done["Location"]) == (302, page)
    engine.finish(handle)


def test_forms_of_parallel_branches_are_told_apart(engine: Engine, answering: User) -> None:
    handle = waiting(engine, two_forms)
    for event in ("two", "one"):
        assert as_user(answering).post(url(handle.run, event), {"eventData": GOOD}, format="json").status_code == 200
    assert engine.finish(handle).result == "[false,false]"


class TestAddressees:
    def test_a_permission(self, engine: Engine, answering: User, client: Client) -> None:
        handle = waiting(engine, payload="django_workflow.cancel_run")
        other = make_user("boss", "cancel_run", "view_run")
        assert as_user(answering).post(url(handle.run), {"eventData": GOOD}, format="json").status_code == 403
        client.force_login(answering)
        assert "wf1-amount" not in shown(client, handle.run)
        client.force_login(other)
        assert "wf1-amount" in shown(client, handle.run)
        assert as_user(other).post(url(handle.run), {"eventData": GOOD}, format="json").status_code == 200

    def test_a_token_does_not_pass_for_whom_the_form_is_addressed_to(self, engine: Engine) -> None:
        handle = waiting(engine, payload="django_workflow.cancel_run")
        token = make_token([handle.id], respond=True)
        client = APIClient(headers={"X-Workflow-Token": token})
        assert client.post(url(handle.run), {"eventData": GOOD}, format="json").status_code == 403

    def test_a_token_that_may_answer_does_where_nobody_is_named(self, engine: Engine) -> None:
        handle = waiting(engine)
        client = APIClient(headers={"X-Workflow-Token": make_token([handle.id], respond=True)})
        assert client.post(url(handle.run), {"eventData": GOOD}, format="json").status_code == 200

    def test_users_and_groups(self, db: None) -> None:
        user, group = make_user("ada"), Group.objects.create(name="editors")
        member = make_user("member")
        member.groups.add(group)
        prompt = step.wait_for_form("ask", ApprovalForm, to=[user, group]).submission(1, 1).form
        assert prompt is not None
        assert prompt.to == (f"user:{user.pk}", "group:editors")


@pytest.mark.parametrize("to", ["editors", 7])
def test_an_addressee_that_means_nothing_is_refused(to: Any) -> None:
    with pytest.raises(StepError, match="to="):
        step.wait_for_form("ask", ApprovalForm, to=to).submission(1, 1)


def test_a_form_that_cannot_be_imported_is_refused() -> None:
    class Local(forms.Form):
        pass

    with pytest.raises(StepError, match="top of its module"):
        step.wait_for_form("ask", Local).submission(1, 1)

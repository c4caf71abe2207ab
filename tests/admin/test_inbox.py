from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django import forms
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from django_workflow import WorkflowContext, workflow
from django_workflow.models import InputRequest, Run, Waiter
from django_workflow.presentation import inbox
from django_workflow.protocol.waits import FormPrompt, encode_prompt
from django_workflow.testing import run_workflows
from django_workflow.testing.factories import make_run, make_waiter
from tests.admin.builders import make_user

LIST = "/admin/django_workflow/waiter/"
HOSTILE = "<script>alert(1)</script>"


class RefundInAdmin(forms.Form):
    share = forms.IntegerField(max_value=100)


@workflow(name="asked_in_admin")
def asked_in_admin(ctx: WorkflowContext[Any]) -> list[Any]:
    answer = ctx.wait_for_event("approval", "approve-1", timeout="2h", message="Shall it go out?")
    to = "auth.change_group"
    refund = ctx.wait_for_form("refund", RefundInAdmin, timeout="1d", to=to, message="How much?")
    return [answer.event_data, refund.values]


@pytest.fixture
def ann(client: Client, db: None) -> User:
    """Staff that may answer runs, and is logged in."""
    user = make_user("ann", "notify_run", "view_run")
    client.force_login(user)
    return user


def ask(event_id: str, to: tuple[str, ...] | None = None, **values: Any) -> Waiter:
    """A run that waits, for a form when it is addressed to somebody."""
    run = make_run(run_id=f"wfr_{event_id}", status=Run.Status.WAITING, **values)
    waiter = make_waiter(run, event_id=event_id, step_type="Wait", prompt=f"question {event_id}")
    if to is not None:
        form = FormPrompt(form=f"{__name__}.RefundInAdmin", to=to)
        InputRequest.objects.create(
            run=run, step_id=1, event_id=event_id, prompt=encode_prompt(form), created_at=timezone.now()
        )
    return waiter


def questions(user: User) -> set[str]:
    found, _cut = inbox.questions_for(User.objects.get(pk=user.pk))
    return {question.waiter.event_id for question in found}


def test_everybody_sees_what_is_his_to_answer(db: None) -> None:
    support = Group.objects.create(name="support")
    ann, bob, carl = make_user("ann", "notify_run"), make_user("bob"), make_user("carl")
    bob.groups.add(support)
    ask("plain")
    ask("owned", owner=carl)
    ask("for-support", to=("group:support",))
    ask("for-carl", to=(f"user:{carl.pk}", "perm:auth.change_group"))
    ask("form-for-all", to=())
    make_waiter(event_id="webhook", step_type="WaitForWebhook")
    make_waiter(event_id="over", step_type="Wait", state=Waiter.State.TIMED_OUT)
    assert questions(ann) == {"plain", "owned", "form-for-all"}
    assert questions(bob) == {"for-support"}
    assert questions(carl) == {"owned", "for-carl"}
    assert questions(make_user("root", superuser=True)) == {
        "plain",
        "owned",
        "for-support",
        "for-carl",
        "form-for-all",
    }


def test_a_projects_own_rule_decides_who_may_answer(db: None, settings: Any) -> None:
    settings.DJANGO_WORKFLOW = {"realtime_authorize": f"{__name__}.only_even"}
    ask("2"), ask("3")
    assert questions(make_user("bob")) == {"2"}


def only_even(user: Any, channel: str, scope: str) -> bool:
    return int(channel.removeprefix("wfr_")) % 2 == 0


def test_a_run_is_answered_from_the_inbox_by_json_and_by_a_form(client: Client, ann: User) -> None:
    handle = asked_in_admin.trigger(None)
    run_workflows()
    page = client.get(LIST).content.decode()
    for text in ("Shall it go out?", "asked_in_admin", "Answer…"):
        assert text in page
    first = Waiter.objects.get()
    url = f"{LIST}{first.pk}/change/"
    refused = client.post(url, {"event-answer": "{yes"})
    assert refused.status_code == 400
    assert "This is no JSON" in refused.content.decode()
    assert "{yes" in refused.content.decode()
    response = client.post(url, {"event-answer": '{"ok": true}', "note-reason": "looked at it"}, follow=True)
    assert "Answered “Shall it go out?”" in response.content.decode()
    first.refresh_from_db()
    assert (first.state, first.resolved_by) == (Waiter.State.RESOLVED, ann)
    assert LogEntry.objects.get().object_id == str(handle.run.pk)
    assert "Reason: looked at it" in LogEntry.objects.get().get_change_message()
    assert "resolved by you at" in client.get(LIST, {"view": "answered"}).content.decode()
    again = client.post(url, {"event-answer": "1"}).content.decode()
    assert "Resolved by you at" in again
    # The form is not addressed to her, but to whom has a permission.
    run_workflows()
    second = Waiter.objects.waiting().get()
    assert client.get(f"{LIST}{second.pk}/change/").status_code == 403
    assert client.post(f"{LIST}{second.pk}/change/", {"wf2-share": "50"}).status_code == 403
    bob = make_user("bob")
    bob.user_permissions.add(_permission("change_group"))
    client.force_login(bob)
    url = f"{LIST}{second.pk}/change/"
    assert "wf2-share" in client.get(url).content.decode()
    refused = client.post(url, {"wf2-share": "500"})
    assert refused.status_code == 400
    assert "less than or equal to 100" in refused.content.decode()
    client.post(url, {"wf2-share": "50"})
    run_workflows()
    assert handle.run.status == Run.Status.SUCCESS
    assert handle.wait() == [{"ok": True}, {"share": 50}]
    second.refresh_from_db()
    assert second.resolved_by == bob


def _permission(codename: str) -> Any:
    from django.contrib.auth.models import Permission

    return Permission.objects.get(codename=codename)


def test_an_approval_is_one_click(client: Client, ann: User) -> None:
    handle = asked_in_admin.trigger(None)
    run_workflows()
    client.post(f"{LIST}{Waiter.objects.get().pk}/change/", {"quick": "no", "event-answer": ""})
    run_workflows()
    assert Waiter.objects.waiting().get().event_id == "refund"
    assert handle.run.status == Run.Status.WAITING


def test_who_comes_second_is_told_who_was_faster(client: Client, ann: User) -> None:
    handle = asked_in_admin.trigger(None)
    run_workflows()
    waiter = Waiter.objects.get()
    handle_bob = Client()
    handle_bob.force_login(make_user("bob", "notify_run"))
    client.post(f"{LIST}{waiter.pk}/change/", {"event-answer": "1"})
    page = handle_bob.post(f"{LIST}{waiter.pk}/change/", {"event-answer": "2"}, follow=True).content.decode()
    assert "Resolved by ann at" in page
    assert LogEntry.objects.count() == 1
    assert handle.id


def test_the_menu_shows_the_inbox_to_whom_something_is_asked(client: Client, db: None) -> None:
    bob = make_user("bob")
    client.force_login(bob)
    assert LIST not in client.get("/admin/").content.decode()
    assert client.get(LIST).status_code == 200
    assert "Nothing waits for you." in client.get(LIST).content.decode()
    ask("for-bob", to=(f"user:{bob.pk}",))
    assert LIST in client.get("/admin/").content.decode()
    client.force_login(make_user("guest", staff=False))
    assert client.get(LIST).status_code == 302


def test_what_is_asked_is_shown_with_what_it_is_about(client: Client, ann: User) -> None:
    from django.contrib.contenttypes.models import ContentType

    group = Group.objects.create(name="Order 42")
    waiter = ask(
        "order", to=("group:support",), content_type=ContentType.objects.get_for_model(Group), object_id=str(group.pk)
    )
    Waiter.objects.update(deadline_at=timezone.now() + timedelta(minutes=30, seconds=30))
    client.force_login(make_user("root", superuser=True))
    page = client.get(LIST).content.decode()
    for text in ("Order 42", f"/admin/auth/group/{group.pk}/change/", "group support", "in 30 min", "wfa-urgent"):
        assert text in page
    assert "Order 42" in client.get(f"{LIST}{waiter.pk}/change/").content.decode()
    ann.groups.add(Group.objects.create(name="support"))
    client.force_login(ann)  # who may not see groups
    page = client.get(LIST).content.decode()
    assert "Order 42" in page
    assert "/admin/auth/group/" not in page


def test_questions_are_text_and_no_html(client: Client, ann: User) -> None:
    waiter = ask("x", workflow=HOSTILE)
    Waiter.objects.update(prompt=HOSTILE, event_id=HOSTILE, step_name=HOSTILE)
    for url in (LIST, f"{LIST}{waiter.pk}/change/"):
        page = client.get(url).content.decode()
        assert HOSTILE not in page
        assert "&lt;script&gt;" in page


def test_the_number_of_queries_does_not_grow_with_the_questions(
    client: Client, ann: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    def queries() -> int:
        with django_assert_max_num_queries(30) as captured:
            client.get(LIST)
        return len(captured)

    from django.contrib.contenttypes.models import ContentType

    kind = ContentType.objects.get_for_model(Group)

    def fill(start: int, end: int) -> None:
        for number in range(start, end):
            group = Group.objects.create(name=f"g{number}")
            ask(f"e{number}", to=(f"user:{ann.pk}",), content_type=kind, object_id=str(group.pk))

    fill(0, 2)
    first = queries()
    fill(2, 15)
    assert queries() == first
    assert first <= 13

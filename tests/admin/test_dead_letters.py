from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from django_workflow import NonRetryableError, WorkflowContext, workflow
from django_workflow.models import BulkOperation, DeadLetter, Run
from django_workflow.protocol.identifiers import uuid7
from django_workflow.testing import run_workflows
from django_workflow.testing.factories import make_run
from tests.admin.builders import make_dead_letter, make_user

LIST = "/admin/django_workflow/deadletter/"
HOSTILE = "<script>alert(1)</script>"

_broken = True


def _charge() -> str:
    if _broken:
        raise NonRetryableError("the card service is away")
    return "charged"


@workflow(name="charged_in_admin", retries=0)
def charged_in_admin(ctx: WorkflowContext[Any]) -> str:
    return ctx.run("charge card", _charge)


@pytest.fixture
def mended() -> Iterator[None]:
    yield
    _set_broken(True)


def _set_broken(value: bool) -> None:
    global _broken
    _broken = value


def failed_runs(number: int) -> list[Run]:
    handles = charged_in_admin.trigger_many([None] * number)
    run_workflows()
    return [handle.run for handle in handles]


def act(client: Client, action: str, **values: str) -> str:
    """Choose an action for all letters of the list; what the page shows then."""
    keys = [str(pk) for pk in DeadLetter.objects.values_list("pk", flat=True)]
    return client.post(LIST, {"action": action, "_selected_action": keys, **values}, follow=True).content.decode()


@pytest.fixture
def operator(client: Client, db: None) -> Client:
    permissions = ("view_deadletter", "view_run", "resume_run", "restart_run", "delete_run")
    client.force_login(make_user("operator", *permissions))
    return client


def test_like_failures_are_counted_and_shown_alone(viewing: Client) -> None:
    for number in range(3):
        run = make_run(workflow="fulfil", status=Run.Status.FAILED)
        make_dead_letter(run, error=f"ConnectionError: try {number}", error_kind="ConnectionError")
    make_dead_letter(make_run(workflow="import", status=Run.Status.FAILED), error_kind="HTTP 502", step_name="load")
    groups = viewing.get(LIST).context["groups"]
    assert [(group.number, group.kind, group.place) for group in groups] == [
        (3, "ConnectionError", "charge card"),
        (1, "HTTP 502", "load"),
    ]
    alone = viewing.get(groups[0].url)
    assert len(alone.context["cl"].result_list) == 3
    assert alone.context["groups"][0].is_chosen
    assert alone.context["groups"][0].url == LIST


def test_the_kind_of_error_is_noted_when_a_run_fails(db: None) -> None:
    failed_runs(1)
    assert DeadLetter.objects.get().error_kind == "WorkflowNonRetryableError"  # its name on the wire


def test_failed_runs_are_resumed_together_and_the_reason_is_noted(operator: Client, mended: None) -> None:
    runs = failed_runs(2)
    DeadLetter.objects.create(
        message_key=uuid7(), destination="https://away.example/", status=500, created_at=timezone.now()
    )
    asked = act(operator, "resume")
    assert "Resume 2 runs" in asked
    assert "It is a message outside workflows" in asked
    assert DeadLetter.objects.count() == 3
    _set_broken(False)
    done = act(operator, "resume", confirmed="yes", reason="the service is back")
    assert "2 runs resumed." in done
    run_workflows()
    for run in runs:
        (follower,) = run.resumed_as.all()
        assert follower.status == Run.Status.SUCCESS
    assert not DeadLetter.objects.filter(run__isnull=False).exists()
    assert LogEntry.objects.filter(object_id=str(runs[0].pk), change_message__contains="the service is back").exists()
    # A double submit resumes nothing twice.
    act(operator, "resume", confirmed="yes")
    assert Run.objects.filter(resumed_from__isnull=False).count() == 2


def test_very_many_failures_are_dealt_with_in_the_background(
    operator: Client, mended: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_workflow.admin.dead_letters.MOST_AT_ONCE", 1)
    failed_runs(3)
    assert "Mark as handled: 3 runs" in act(operator, "mark_handled")
    assert DeadLetter.objects.count() == 3
    act(operator, "mark_handled", confirmed="yes")
    operation = BulkOperation.objects.get()
    assert (operation.action, operation.total) == ("mark_handled", 3)
    assert not DeadLetter.objects.exists()


def test_the_buttons_of_a_failure_say_what_cannot_be_done(operator: Client) -> None:
    (run,) = failed_runs(1)
    page = operator.get(f"{LIST}{run.dead_letter.pk}/change/").content.decode()
    assert f'href="{LIST}run/{run.pk}/resume/"' in page
    assert 'title="The workflow has no failure function."' in page
    asked = operator.get(f"{LIST}run/{run.pk}/mark_handled/").content.decode()
    assert "Keep as it is" in asked
    assert DeadLetter.objects.exists()  # no link does anything
    response = operator.post(f"{LIST}run/{run.pk}/mark_handled/", {"confirmed": "yes", "reason": "by phone"})
    assert response.headers["Location"] == LIST
    assert not DeadLetter.objects.exists()
    assert LogEntry.objects.get().get_change_message() == "Marked as handled. Reason: by phone"


def test_a_run_is_restarted_by_its_button_and_its_page_follows(operator: Client, mended: None) -> None:
    (run,) = failed_runs(1)
    _set_broken(False)
    response = operator.post(f"{LIST}run/{run.pk}/restart/", {"confirmed": "yes"})
    (follower,) = run.resumed_as.all()
    assert response.headers["Location"] == f"/admin/django_workflow/run/{follower.pk}/change/"
    run_workflows()
    follower.refresh_from_db()
    assert follower.status == Run.Status.SUCCESS


@pytest.mark.parametrize("name", ["resume", "restart", "retry_failure_function", "mark_handled", "delete"])
def test_who_may_only_look_is_offered_nothing_and_refused(viewing: Client, name: str) -> None:
    (run,) = failed_runs(1)
    action = "delete_runs" if name == "delete" else name
    assert f'value="{action}"' not in viewing.get(LIST).content.decode()
    assert f"/{name}/" not in viewing.get(f"{LIST}{run.dead_letter.pk}/change/").content.decode()
    act(viewing, action, confirmed="yes")
    page = viewing.post(f"{LIST}run/{run.pk}/{name}/", {"confirmed": "yes"}).content.decode()
    assert "You do not have the permission" in page
    assert DeadLetter.objects.filter(run=run).exists()
    assert not LogEntry.objects.exists()


def test_what_failed_is_text_and_no_html(operator: Client) -> None:
    run = make_run(workflow=HOSTILE, status=Run.Status.FAILED, summary=HOSTILE)
    letter = make_dead_letter(run, error=HOSTILE, error_kind=HOSTILE, step_name=HOSTILE, destination=HOSTILE)
    for page in (
        operator.get(LIST).content.decode(),
        operator.get(f"{LIST}{letter.pk}/change/").content.decode(),
        act(operator, "mark_handled"),
    ):
        assert HOSTILE not in page
        assert "&lt;script&gt;" in page


def test_the_number_of_queries_does_not_grow_with_the_failures(
    operator: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    def queries(action: str = "") -> int:
        with django_assert_max_num_queries(30) as captured:
            if action:
                act(operator, action)
            else:
                operator.get(LIST)
        return len(captured)

    failed_runs(2)
    first, first_asked = queries(), queries("resume")
    failed_runs(10)
    assert (queries(), queries("resume")) == (first, first_asked)
    assert first <= 14

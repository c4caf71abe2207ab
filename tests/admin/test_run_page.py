from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from django_workflow.models import FlowKey, JournalEntry, Run, Step, Waiter
from django_workflow.testing.factories import make_delivery, make_run, make_step, make_waiter
from tests.admin.builders import (
    make_attempt,
    make_dead_letter,
    make_event,
    make_finished_run,
    make_result,
    make_user,
)

SECRETS = "sk-live-1"


def page_of(client: Client, run: Run, view: str = "steps", **query: str) -> str:
    query["view"] = view
    response = client.get(reverse("admin:django_workflow_run_change", args=[run.pk]), query)
    assert response.status_code == 200
    return response.content.decode()


def test_a_run_has_a_history(viewing: Client) -> None:
    run = make_run()
    assert viewing.get(reverse("admin:django_workflow_run_history", args=[run.pk])).status_code == 200


def test_a_run_is_found_by_its_run_id_too(viewing: Client) -> None:
    make_run(run_id="wfr_abc", workflow="fulfil_order")
    for name in ("wfr_abc", "abc"):
        assert "Run of fulfil_order" in viewing.get(f"/admin/django_workflow/run/{name}/change/").content.decode()
    assert viewing.get("/admin/django_workflow/run/nothing/change/").status_code == 302


def test_the_page_tells_the_facts_of_a_run(viewing: Client) -> None:
    about = make_user("bob", staff=False)
    run = make_finished_run(
        run_id="wfr_abc",
        workflow="fulfil_order",
        summary="Order 42",
        labels=",vip,",
        payload='{"order_id":42}',
        result='{"review":"sent"}',
        code_version="v7",
        owner=make_user("ada", staff=False),
        related_object=about,
        progress_done=120,
        progress_total=500,
    )
    page = page_of(viewing, run)
    for text in ("wfr_abc", "Order 42", "vip", "v7", "ada", "bob", "3.0 s", "Succeeded after 3", "120 of 500"):
        assert text in page
    assert "&quot;order_id&quot;: 42" in page
    assert "&quot;review&quot;: &quot;sent&quot;" in page
    assert "?workflow=fulfil_order" in page
    assert "?label=vip" in page


def test_what_a_run_is_about_is_linked_for_who_may_see_it(viewing: Client, viewer: User) -> None:
    about = make_user("bob", staff=False)
    run = make_finished_run(related_object=about)
    link = f'href="/admin/auth/user/{about.pk}/change/"'
    assert "bob" in (page := page_of(viewing, run))
    assert link not in page
    viewer.user_permissions.add(Permission.objects.get(codename="view_user"))
    assert link in page_of(viewing, run)


def test_a_step_of_which_only_its_end_was_heard_was_not_queued_after_its_start(viewing: Client) -> None:
    run, now = make_run(), timezone.now()
    make_step(run, name="heard of late", queued_at=now, started_at=now - timedelta(seconds=1))
    make_step(run, name="planned", queued_at=now - timedelta(seconds=2), started_at=now - timedelta(seconds=1))
    page = viewing.get(reverse("admin:django_workflow_run_change", args=[run.pk]), {"view": "steps"})
    rows = page.context["steps"].rows
    assert [row.queued_at for row in rows] == [None, now - timedelta(seconds=2)]


def test_a_run_tells_its_place_in_the_line_of_its_key(viewing: Client) -> None:
    FlowKey.objects.create(key="user-7", paused=True)
    make_delivery(flow_key="user-7", due_at=timezone.now() - timedelta(minutes=1))
    run = make_run()
    make_delivery(run, flow_key="user-7")
    assert "which is paused; number 2 in line" in page_of(viewing, run)


def test_related_runs_are_linked(viewing: Client) -> None:
    parent, first = make_finished_run(), make_finished_run()
    run = make_finished_run(parent=parent, resumed_from=first, first_run=first)
    child, later = make_run(parent=run, workflow="child"), make_run(resumed_from=run)
    page = page_of(viewing, run)
    for other in (parent, first, child, later):
        assert f'href="/admin/django_workflow/run/{other.pk}/change/"' in page
    assert "All children" not in page
    for _number in range(20):
        make_run(parent=run)
    assert f"?parent__id__exact={run.pk}" in page_of(viewing, run)
    assert viewing.get("/admin/django_workflow/run/", {"parent__id__exact": str(run.pk)}).status_code == 200


def test_steps_show_their_results_and_errors(viewing: Client) -> None:
    run = make_run(status=Run.Status.FAILED, error="boom", error_step="charge")
    make_result(make_step(run, name="reserve"), {"total": 1200})
    make_step(run, name="charge", status=Step.Status.FAILED, attempts=3, error="CardError: declined\nTraceback line")
    page = page_of(viewing, run)
    assert "&quot;total&quot;: 1200" in page
    assert "<summary>CardError: declined</summary>" in page
    assert "Traceback line" in page
    assert "Steps (2)" in page


def test_a_long_result_is_a_download(viewing: Client) -> None:
    run = make_finished_run(steps=0)
    make_result(make_step(run), ["x" * 100] * 1000)
    page = page_of(viewing, run)
    assert "x" * 100 + "&quot;,&quot;" * 10 not in page
    url = f"/admin/django_workflow/run/{run.pk}/values/step/1/"
    assert f'href="{url}"' in page
    response = viewing.get(url)
    assert response["Content-Disposition"] == f'attachment; filename="{run.run_id}-step-1.json"'
    assert response["X-Content-Type-Options"] == "nosniff"
    assert json.loads(response.content) == ["x" * 100] * 1000


def test_downloads_need_the_permission_and_an_existing_value(viewing: Client, client: Client) -> None:
    run = make_finished_run(payload='{"a":1}')
    assert viewing.get(f"/admin/django_workflow/run/{run.pk}/values/payload/").json() == {"a": 1}
    assert viewing.get(f"/admin/django_workflow/run/{run.pk}/values/config/").status_code == 404
    assert viewing.get(f"/admin/django_workflow/run/{run.pk}/values/step/9/").status_code == 404
    client.force_login(make_user("nobody"))
    assert client.get(f"/admin/django_workflow/run/{run.pk}/values/payload/").status_code == 403


def test_values_are_text_and_never_html(viewing: Client) -> None:
    evil = "<script>alert(1)</script>"
    run = make_run(
        workflow=evil, summary=evil, labels=f",{evil},", payload=json.dumps({"a": evil}), error=evil, error_step=evil
    )
    make_result(make_step(run, name=evil, error=evil, event_id=evil), evil)
    make_attempt(run, step_name=evil, error=evil, response_body=evil, response_headers=json.dumps({evil: [evil]}))
    make_event(run, stepName=evil, error=evil)
    make_waiter(run, event_id=evil, step_name=evil)
    for view in VIEWS:
        assert evil not in page_of(viewing, run, view)
    assert evil not in viewing.get("/admin/django_workflow/run/").content.decode()


def test_secret_headers_are_masked_wherever_they_are_stored(viewing: Client) -> None:
    run = make_run(status=Run.Status.FAILED, payload=json.dumps({"headers": {"Authorization": f"Bearer {SECRETS}"}}))
    make_result(
        make_step(run, step_type="Call"), {"status": 200, "header": {"Set-Cookie": [SECRETS], "Server": ["nginx"]}}
    )
    headers = json.dumps({"X-Api-Key": [SECRETS], "Content-Type": ["text/html"]})
    make_attempt(run, response_headers=headers)
    letter = make_dead_letter(run, response_headers=headers)
    pages = (
        page_of(viewing, run, "steps")
        + page_of(viewing, run, "attempts")
        + viewing.get(f"/admin/django_workflow/deadletter/{letter.pk}/change/").content.decode()
    )
    assert SECRETS not in pages
    assert pages.count("REDACTED") >= 5
    assert "nginx" in pages
    assert "Content-Type: text/html" in pages


def test_bodies_of_a_run_that_asked_for_it_are_hidden(viewing: Client) -> None:
    config = json.dumps({"redact": ["body"]})
    run = make_finished_run(steps=0, payload=f'{{"a":"{SECRETS}"}}', result=f'"{SECRETS}"', config=config)
    make_result(make_step(run), SECRETS)
    make_attempt(run, response_body=SECRETS)
    make_event(run, type="stepFinish", result=SECRETS)
    make_waiter(run, state=Waiter.State.RESOLVED, event_data="InNrLWxpdmUtMSI=")  # base64 of the secret in quotes
    letter = make_dead_letter(run, response_body=SECRETS)
    page = reverse("admin:django_workflow_run_change", args=[run.pk])
    urls = [
        *(f"{page}?view={view}" for view in VIEWS),
        reverse("admin:django_workflow_run_value", args=[run.pk, "payload"]),
        reverse("admin:django_workflow_run_value", args=[run.pk, "result"]),
        reverse("admin:django_workflow_run_value", args=[run.pk, "step", 1]),
        reverse("admin:django_workflow_deadletter_change", args=[letter.pk]),
    ]
    for url in urls:
        page = viewing.get(url).content.decode()
        assert SECRETS not in page
        assert "REDACTED" in page


def test_long_tables_are_paged(viewing: Client) -> None:
    run = make_finished_run(steps=0)
    Step.objects.bulk_create(
        Step(run=run, step_id=number, name=f"step-{number}-", step_type="Run", status=Step.Status.SUCCESS)
        for number in range(1, 502)
    )
    first, last = page_of(viewing, run), page_of(viewing, run, steps_page="3")
    assert "Showing 1 to 200 of 501" in first
    assert "step-200-" in first
    assert "step-201-" not in first
    assert 'href="?view=steps&amp;steps_page=2#wfa-steps"' in first
    assert "step-501-" in last
    assert "Showing 401 to 501 of 501" in last


def test_the_journal_tells_what_the_engine_was_told(viewing: Client) -> None:
    run = make_run(status=Run.Status.RUNNING)
    make_result(make_step(run, name="reserve"), {"card": SECRETS})
    plan = '{"stepId":0,"stepName":"print label","stepType":"Run","concurrent":2,"targetStep":2}'
    for position, call_type, body in ((2, "toCallback", SECRETS), (3, "fromCallback", SECRETS), (4, "step", plan)):
        JournalEntry.objects.create(
            run=run, position=position, call_type=call_type, body=body, created_at=timezone.now()
        )
    page = viewing.get(reverse("admin:django_workflow_run_change", args=[run.pk]), {"view": "attempts"})
    assert [(row.entry.position, row.kind, row.step) for row in page.context["journal"].rows] == [
        (1, "Result of a step", "reserve"),
        (2, "Call to be made", ""),
        (3, "Answer to a call", ""),
        (4, "Plan of a parallel step", "print label"),
    ]
    assert SECRETS not in page.content.decode()


def test_the_timeline_of_a_resumed_run_folds_what_the_earlier_run_did(viewing: Client) -> None:
    first = make_finished_run(status=Run.Status.FAILED)
    run = make_run(resumed_from=first, first_run=first, trigger_kind=Run.TriggerKind.RESUME)
    hour_ago = run.created_at - timedelta(hours=1)
    make_step(run, name="reserve", started_at=hour_ago, finished_at=hour_ago)
    make_step(run, name="charge", started_at=run.created_at)
    page = viewing.get(f"/admin/django_workflow/run/{run.pk}/change/", {"view": "timeline"}).content.decode()
    folded = page.partition('<details class="wfa-tl-row wfa-tl-before">')[2].partition("</ol></details>")[0]
    assert "1 step was done by an earlier run" in folded
    assert first.run_id in folded
    assert "<b>reserve</b>" in folded
    assert "<rect" not in folded
    assert "<b>charge</b>" not in folded
    assert "Resumed from" in page


VIEWS = ("timeline", "steps", "events", "attempts", "raw")


@pytest.mark.parametrize("view", VIEWS)
def test_the_page_takes_twelve_queries_with_500_steps_as_with_few(
    client: Client, db: None, view: str, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    client.force_login(make_user("root", superuser=True))
    about = make_user("bob", staff=False)
    first = make_finished_run()
    run = make_run(
        status=Run.Status.FAILED, related_object=about, owner=about, parent=first, resumed_from=first, first_run=first
    )
    make_dead_letter(run)

    def fill(steps: int) -> None:
        start = run.steps.count() + 1
        for number in range(start, start + 5):
            make_result(make_step(run, attempts=2), {"number": number})
            make_attempt(run, step_id=number)
            make_event(run, number)
            make_waiter(run)
            make_run(parent=run)
            make_delivery(run)
        Step.objects.bulk_create(
            Step(run=run, step_id=number, name="more", step_type="Run", status=Step.Status.SUCCESS, attempts=2)
            for number in range(start + 5, start + steps)
        )

    def queries() -> int:
        with django_assert_max_num_queries(100) as captured:
            page_of(client, run, view)
        other = ("django_session", '"auth_user"."id" = ')
        asked = [each["sql"].replace("`", '"') for each in captured]  # as MariaDB quotes names
        return len([sql for sql in asked if not any(word in sql for word in other)])

    page_of(client, run, view)  # remembers the view
    fill(10)
    few = queries()
    fill(490)
    assert run.steps.count() == 500
    assert queries() == few <= 12


def test_a_run_whose_values_were_erased_says_so(viewing: Client) -> None:
    run = make_finished_run(forgotten_at=datetime(2030, 5, 1, 12, tzinfo=UTC))
    page = page_of(viewing, run)
    assert "Payload and results were erased:" in page
    assert "05/01/2030" in page
    assert "erased" not in page_of(viewing, make_finished_run())


def test_the_view_is_remembered(viewing: Client) -> None:
    run = make_finished_run()
    url = reverse("admin:django_workflow_run_change", args=[run.pk])
    assert viewing.get(url).context["view"] == "timeline"
    page_of(viewing, run, "raw")
    assert viewing.get(url).context["view"] == "raw"
    assert viewing.get(url, {"view": "nonsense"}).context["view"] == "raw"
    assert '<a href="?view=raw" aria-current="page">Raw</a>' in viewing.get(url).content.decode()


def test_steps_with_errors_are_picked_and_ordered_from_the_end(viewing: Client) -> None:
    run = make_finished_run(steps=3)
    make_step(run, name="charge", attempts=2)
    for number in (1, 2):
        make_attempt(run, step_id=4, number=number, error=f"boom {number}", response_body="teapot")
    page = page_of(viewing, run)
    assert "With errors (1)" in page
    for text in ("Attempt 1: boom 1", "Attempt 2: boom 2", "teapot"):
        assert text in page
    assert page.index("step 1<") < page.index("step 3<")
    page = page_of(viewing, run, only="errors")
    assert "charge" in page
    assert "step 1<" not in page
    page = page_of(viewing, run, order="end")
    assert page.index("step 3<") < page.index("step 1<")


def test_the_run_is_shown_and_downloaded_as_json(viewing: Client) -> None:
    run = make_finished_run(run_id="wfr_abc", payload='{"headers":{"Cookie":"secret"}}')
    make_attempt(run, step_id=1)
    assert "&quot;run_id&quot;: &quot;wfr_abc&quot;" in page_of(viewing, run, "raw")
    found = viewing.get(reverse("admin:django_workflow_run_value", args=[run.pk, "run"])).json()
    assert [step["name"] for step in found["steps"]] == ["step 1", "step 2"]
    assert found["payload"] == {"headers": {"Cookie": "REDACTED"}}
    assert len(found["failed_attempts"]) == 1


@pytest.mark.parametrize(
    ("status", "values", "said"),
    [
        (Run.Status.SLEEPING, {"due_at": datetime(2030, 5, 1, 12, tzinfo=UTC)}, "Sleeps until May 1, 2030, noon"),
        (Run.Status.SCHEDULED, {"due_at": datetime(2030, 5, 1, 12, tzinfo=UTC)}, "Starts at May 1, 2030, noon"),
        (Run.Status.QUEUED, {}, "Waits for a worker"),
        (Run.Status.RUNNING, {"why": "Calling POST https://pay."}, "Calling POST https://pay."),
        (Run.Status.PAUSED, {}, "Is paused: no step starts until it goes on"),
        (Run.Status.FAILED, {"error": "boom\nline 2", "error_step": "charge"}, "Failed in charge: boom"),
        (Run.Status.CANCELED, {}, "Was canceled"),
    ],
)
def test_the_why_line_explains_every_status(viewing: Client, status: str, values: dict[str, object], said: str) -> None:
    assert f"<span>{said}</span>" in page_of(viewing, make_run(status=status, **values))


def test_the_why_line_names_the_event_and_the_retry(viewing: Client) -> None:
    due = datetime(2030, 5, 1, 12, 30, tzinfo=UTC)
    waiting = make_run(status=Run.Status.WAITING, why="engine's English")
    make_step(
        waiting, status=Step.Status.WAITING, step_type="Wait", event_id="approve-42", due_at=due, finished_at=None
    )
    assert "Waits for event “approve-42” until May 1, 2030, 12:30 p.m. (times out in " in page_of(viewing, waiting)
    retrying = make_run(status=Run.Status.RETRYING)
    make_step(retrying, status=Step.Status.RETRYING, error="ConnectionError: gone", finished_at=None)
    make_delivery(retrying, attempt=2, max_retries=5, due_at=due)
    assert "Retry 2 of 5 at May 1, 2030, 12:30 p.m., after ConnectionError: gone" in page_of(viewing, retrying)


def test_waiters_attempts_and_events_are_shown(viewing: Client) -> None:
    run = make_run(status=Run.Status.WAITING)
    make_waiter(run, event_id="approve-42", deadline_at=timezone.now() + timedelta(days=2))
    make_waiter(run, event_id="early", state=Waiter.State.RESOLVED, event_data="eyJvayI6dHJ1ZX0=")
    make_attempt(run, status=0, error="timed out")
    make_event(run, stepName="reserve")
    make_delivery(run, step_name="charge card", attempt=1, max_retries=5)
    page = page_of(viewing, run, "events") + page_of(viewing, run, "attempts")
    texts = ("approve-42", "Resolved", "&quot;ok&quot;: true", "No answer", "timed out", "stepStart", "Events (1)")
    for text in (*texts, "Calls to make (1)", "1 of 5"):
        assert text in page


def test_an_active_run_is_followed_live_and_a_finished_one_is_not(viewing: Client) -> None:
    running = make_run(status=Run.Status.RUNNING)
    event = make_event(running)
    page = page_of(viewing, running)
    assert f'data-cursor="{event.event_id}"' in page
    assert 'data-source="/workflows/realtime/"' in page
    assert 'data-wfa="live"' not in page_of(viewing, make_finished_run())


def test_the_pages_hold_nothing_that_a_strict_policy_forbids(viewing: Client) -> None:
    run = make_run(status=Run.Status.RUNNING, progress_done=1, progress_total=2)
    make_step(run)
    for page in (
        *(page_of(viewing, run, view) for view in VIEWS),
        viewing.get("/admin/django_workflow/run/").content.decode(),
    ):
        own = Policy()
        own.feed(page)
        assert own.violations == []
        assert "django_workflow/admin.css" in page


class Policy(HTMLParser):
    """Finds inline scripts, styles and handlers, which `default-src 'self'` forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.violations: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        inert = names.get("type") in ("application/json", "text/plain")
        if tag == "style" or (tag == "script" and "src" not in names and not inert):
            self.violations.append(self.get_starttag_text() or tag)
        if any(name == "style" or re.match(r"on[a-z]+$", name) for name in names):
            self.violations.append(self.get_starttag_text() or tag)

from __future__ import annotations

import json
import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest
from django.template import Context, Template, TemplateSyntaxError
from django.test import RequestFactory
from django.utils import timezone, translation
from pytest_django import DjangoAssertNumQueries

import django_workflow
from django_workflow.models import Delivery, Run, Step, Waiter
from django_workflow.realtime import access, labels, widget
from tests.realtime.helpers import CHANNEL, NOW, event_id, make_run, store

pytestmark = pytest.mark.django_db

HOSTILE = """</p><script>alert("x")</script><img src=x onerror='alert(1)'>"""


class Page(HTMLParser):
    """The elements of some HTML, with their attributes and texts; refuses what a strict CSP refuses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        attributes = {name: value or "" for name, value in attrs}
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        assert tag != "script" or attributes.get("src")
        element: tuple[str, dict[str, str], list[str]] = (tag, attributes, [])
        self.elements.append(element)
        if tag not in ("input", "link", "img"):
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _tag, _attributes, texts in self._open:
            texts.append(data)

    def all(self, tag: str = "", **attributes: str) -> list[tuple[dict[str, str], str]]:
        """Attributes and text of the elements of this tag with these attributes (`wf="x"` is `data-wf="x"`)."""
        wanted = {f"data-{name}" if name == "wf" else name: value for name, value in attributes.items()}
        return [
            (found, " ".join("".join(texts).split()))
            for name, found, texts in self.elements
            if tag in ("", name) and wanted.items() <= found.items()
        ]

    def one(self, tag: str = "", **attributes: str) -> tuple[dict[str, str], str]:
        (found,) = self.all(tag, **attributes)
        return found

    @property
    def status(self) -> str:
        return self.one(wf="status")[1]

    @property
    def root(self) -> dict[str, str]:
        return self.one("workflow-progress")[0]

    def steps(self) -> list[str]:
        """Name and state of each step; the last of all, inside <template>, is for the browser to copy."""
        return [text for attributes, text in self.all("li") if attributes["data-step"] != "0"]


def request_of(user: Any = None) -> HttpRequest:
    request = RequestFactory().get("/")
    request.user = user or AnonymousUser()
    return request


def render(run: object, arguments: str = "", user: Any = None, request: HttpRequest | None = None) -> Page:
    template = Template("{% load django_workflow %}{% workflow_progress run " + arguments + " %}")
    return Page(template.render(Context({"run": run, "request": request or request_of(user)})))


def make_step(run: Run, number: int, name: str, status: str, **values: Any) -> Step:
    return Step.objects.create(run=run, step_id=number, name=name, status=status, step_type="Run", **values)


def started(status: str = Run.Status.RUNNING, **values: Any) -> Run:
    return make_run(status=status, started_at=timezone.now(), **values)


# What each state says


def test_no_run_is_not_started() -> None:
    page = render(None)
    assert page.status == "Not started"
    assert "run" not in page.root


def test_a_new_run_waits_to_start() -> None:
    page = render(make_run())
    assert page.status == "Waiting to start"
    assert page.root["status"] == "queued"


def test_a_scheduled_run_says_when() -> None:
    due = timezone.now().replace(hour=23, minute=58)
    assert render(make_run(status="scheduled", due_at=due)).status == "Starts at 11:58 p.m."


def test_a_running_run_names_its_step() -> None:
    run = started()
    make_step(run, 1, "Reserve stock", "success")
    make_step(run, 2, "Check address", "success")
    make_step(run, 3, "Charge card", "running")
    page = render(run)
    assert page.status == "Step 3: Charge card"
    assert page.steps() == ["Reserve stock Done", "Check address Done", "Charge card Running"]
    assert [attributes["data-step"] for attributes, _text in page.all("li", **{"aria-current": "step"})] == ["3"]


def test_a_run_between_two_steps_says_how_many_are_done() -> None:
    run = started()
    make_step(run, 1, "Reserve stock", "success")
    assert render(run).status == "Steps done: 1"


def test_a_run_before_its_first_step_is_running() -> None:
    assert render(started()).status == "Running"


def test_of_parallel_steps_one_is_current() -> None:
    run = started()
    for number, status in enumerate(("queued", "running", "running"), start=1):
        make_step(run, number, f"branch {number}", status, concurrent=3)
    page = render(run)
    assert page.status == "Step 2: branch 2"
    assert len(page.all("li", **{"aria-current": "step"})) == 1


def test_a_sleeping_run_says_until_when() -> None:
    due = timezone.now().replace(hour=23, minute=59)
    run = started("sleeping", due_at=due)
    make_step(run, 1, "let it travel", "sleeping", due_at=due)
    page = render(run)
    assert page.status == "Paused until 11:59 p.m."
    assert page.one("li", **{"data-step": "1"})[0]["data-until"] == str(int(due.timestamp() * 1000))


def test_an_instant_on_another_day_has_its_date() -> None:
    due = timezone.now() + timedelta(days=40)
    assert render(started("sleeping", due_at=due)).status.startswith(f"Paused until {due:%m/%d/%Y} ")


def test_instants_are_in_the_readers_time_zone() -> None:
    with timezone.override("Asia/Kathmandu"):
        due = timezone.localtime().replace(hour=17, minute=45)
        page = render(started("sleeping", due_at=due))
        assert page.status == "Paused until 5:45 p.m."
        assert page.root["time-zone"] == "Asia/Kathmandu"


def test_a_retrying_run_counts_its_attempts() -> None:
    due = timezone.now().replace(hour=23, minute=58)
    run = started("retrying", due_at=due)
    make_step(run, 1, "Charge card", "retrying", due_at=due)
    Delivery.objects.create(
        run=run, destination="x", attempt=1, max_retries=4, due_at=due, created_at=due, step_name="Charge card"
    )
    assert render(run).status == "Problem in Charge card, trying again at 11:58 p.m. (2 of 5)"


def test_a_retrying_run_of_a_hosted_engine_does_not_count() -> None:
    due = timezone.now().replace(hour=23, minute=58)
    run = started("retrying", due_at=due)
    make_step(run, 1, "Charge card", "retrying", due_at=due)
    assert render(run).status == "Problem in Charge card, trying again at 11:58 p.m."


def test_a_paused_run_says_so() -> None:
    assert render(started("paused")).status == "Paused"


def test_a_successful_run_is_done() -> None:
    run = started("success", finished_at=timezone.now())
    make_step(run, 1, "Reserve stock", "success")
    page = render(run)
    assert page.status == "Done"
    assert page.all("li", **{"aria-current": "step"}) == []


def test_a_failed_run_names_the_step_and_the_error() -> None:
    run = started("failed", error="CardDeclined: no funds\nmore", error_step="Charge card", finished_at=timezone.now())
    page = render(run)
    assert page.status == "Failed in Charge card"
    assert page.one(wf="error")[1] == "CardDeclined: no funds"


def test_a_traceback_is_never_shown() -> None:
    error = 'Traceback (most recent call last):\n  File "/srv/secret.py", line 1\nValueError: bad'
    page = render(started("failed", error=error))
    assert page.one(wf="error")[1] == "ValueError: bad"
    assert "secret" not in page.html


def test_a_canceled_run_says_so() -> None:
    assert render(started("canceled", finished_at=timezone.now())).status == "Canceled"


def test_a_run_that_is_gone_says_so() -> None:
    run = make_run()
    Run.objects.all().delete()
    assert render(SimpleNamespace(id=run.run_id)).status == "This run no longer exists"


def test_a_resumed_run_is_followed() -> None:
    failed = started("failed", error="x")
    make_run("wfr_2", resumed_from=failed, status="success")
    page = render(failed)
    assert (page.status, page.root["run"]) == ("Done", "wfr_2")


# Progress


def test_a_known_total_is_determinate() -> None:
    bar = render(started(progress_done=120, progress_total=5000)).one("progress")
    assert (bar[0]["value"], bar[0]["max"], bar[1]) == ("120", "5000", "120 of 5000")


def test_an_unknown_total_is_indeterminate() -> None:
    bar, _text = render(started()).one("progress")
    assert "value" not in bar
    assert "hidden" not in bar
    assert bar["aria-label"] == "Progress"


@pytest.mark.parametrize("status", ["waiting", "failed", "canceled", "paused"])
def test_what_stands_still_has_no_moving_bar(status: str) -> None:
    assert "hidden" in render(started(status)).one("progress")[0]


def test_many_steps_are_cut_at_the_beginning(settings: Any) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    run = started()
    Step.objects.bulk_create(
        Step(run=run, step_id=number, name=f"s{number}", status="success", step_type="Run") for number in range(1, 1206)
    )
    page = render(run, "max_steps=3")
    assert page.steps() == ["s1203 Done", "s1204 Done", "s1205 Done"]
    assert page.one(wf="earlier")[1] == "Earlier steps: 1202"
    assert page.one("ol")[0]["start"] == "1203"


# Who sees what


def test_a_run_is_vouched_for_by_the_page(somebody: User) -> None:
    token = render(make_run(), user=somebody).root["token"]
    assert access.may(None, CHANNEL, token=token)
    assert not access.may(None, CHANNEL, "respond", token)


def test_a_handle_is_vouched_for_by_the_page() -> None:
    make_run()
    page = render(SimpleNamespace(id=CHANNEL))
    assert (page.status, "token" in page.root) == ("Waiting to start", True)


def test_an_id_shows_nothing_to_strangers() -> None:
    run = make_run()
    make_step(run, 1, "secret step", "running")
    page = render(CHANNEL)
    assert page.status == "You cannot see this run"
    assert "token" not in page.root
    assert "secret" not in page.html


def test_an_id_shows_the_run_to_its_owner(somebody: User) -> None:
    make_run(owner=somebody)
    page = render(CHANNEL, user=somebody)
    assert page.status == "Waiting to start"
    assert "token" not in page.root  # the owner's session is enough, and can be taken back


def test_the_page_may_vouch_for_an_id() -> None:
    make_run()
    assert render(CHANNEL, "grant=True").status == "Waiting to start"


def test_the_page_may_ask_the_rule_for_a_run() -> None:
    assert render(make_run(), "grant=False").status == "You cannot see this run"


def test_a_page_with_a_token_varies_by_cookie() -> None:
    request = request_of()
    render(make_run(), request=request)
    assert request.META["CSRF_COOKIE_NEEDS_UPDATE"]


def test_without_a_request_a_run_is_shown_all_the_same() -> None:
    html = Template("{% load django_workflow %}{% workflow_progress run %}").render(Context({"run": make_run()}))
    assert Page(html).status == "Waiting to start"


# Answering


def waiting(**values: Any) -> Run:
    run = started("waiting", **values)
    step = make_step(run, 1, "Ship it?", "waiting")
    Step.objects.filter(pk=step.pk).update(step_type="Wait")
    Waiter.objects.create(
        run=run,
        event_id="approve/1 & 2",
        step_id=1,
        step_name="Ship it?",
        step_type="Wait",
        created_at=timezone.now(),
    )
    return run


def test_who_may_answer_gets_a_form(superuser: User) -> None:
    page = render(waiting(), "can_respond=True", superuser)
    assert page.status == "Needs your answer"
    assert "respond" in page.root
    forms = page.all("form")
    assert {attributes["action"] for attributes, _text in forms} == {
        "/workflows/api/events/approve%2F1%20%26%202/notify/?run=wfr_1"
    }
    assert all(attributes["method"] == "post" for attributes, _text in forms)
    assert len(page.all("input", name="csrfmiddlewaretoken")) == len(forms)
    assert [attributes["value"] for attributes, _text in page.all("button", name="eventData")] == [
        '{"approved": true}',
        '{"approved": false}',
    ]


@pytest.mark.parametrize("arguments", ["", "can_respond=False"])
def test_without_can_respond_there_is_no_form(superuser: User, arguments: str) -> None:
    page = render(waiting(), arguments, superuser)
    assert page.status == "Needs your answer"
    assert page.all("form") == []


def test_who_may_not_answer_gets_no_form(somebody: User) -> None:
    page = render(waiting(), "can_respond=True", somebody)
    assert page.all("form") == []
    assert "respond" not in page.root


def test_the_owner_may_answer(somebody: User) -> None:
    assert render(waiting(owner=somebody), "can_respond=True", somebody).all("form")


def test_the_page_may_let_anybody_answer() -> None:
    page = render(waiting(), "can_respond=True grant=True")
    token = page.root["token"]
    assert access.may(None, CHANNEL, "respond", token)
    assert {attributes["value"] for attributes, _text in page.all("input", name="token")} == {token}


def test_a_wait_for_another_program_asks_nobody(superuser: User) -> None:
    run = started("waiting")
    make_step(run, 1, "payment webhook", "waiting")
    Waiter.objects.create(
        run=run, event_id="e", step_name="payment webhook", step_type="WaitForWebhook", created_at=timezone.now()
    )
    page = render(run, "can_respond=True", superuser)
    assert page.status == "Step 1: payment webhook"
    assert page.all("form") == []


# The markup


@pytest.mark.parametrize("view", ["steps", "bar", "badge"])
def test_every_view_shows_the_status(view: str) -> None:
    page = render(started(), f'view="{view}"')
    assert page.status == "Running"
    assert page.root["class"] == f"wf wf-view-{view}"
    assert (view != "badge") == bool(page.all("progress"))


@pytest.mark.parametrize("arguments", ['view="hologram"', 'transport="pigeon"'])
def test_unknown_words_are_refused(arguments: str) -> None:
    with pytest.raises(TemplateSyntaxError, match="must be one of"):
        render(None, arguments)


def test_what_is_no_run_is_refused() -> None:
    with pytest.raises(TemplateSyntaxError, match="takes a Run"):
        render(42)


def test_the_cursor_is_read_before_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    run = started()
    store(1)
    read = Run.objects.get_queryset().__class__.first

    def event_then_read(queryset: Any) -> Any:
        store(2)
        return read(queryset)

    monkeypatch.setattr(type(Run.objects.get_queryset()), "first", event_then_read)
    assert render(run).root["cursor"] == event_id(1)


def test_the_widget_is_accessible() -> None:
    run = started("failed")
    page = render(run)
    assert page.one(role="region")[0]["aria-label"] == "Progress of fulfil_order"
    assert page.one(role="status")[0]["aria-live"] == "polite"
    assert page.one(role="alert", wf="alert")


@pytest.mark.parametrize("view", ["steps", "bar", "badge"])
def test_hostile_names_stay_text(view: str, superuser: User) -> None:
    run = waiting(workflow=HOSTILE)
    Step.objects.update(name=HOSTILE)
    Waiter.objects.update(step_name=HOSTILE, event_id=HOSTILE)
    make_step(run, 2, HOSTILE, "failed", error=HOSTILE)
    for status in ("waiting", "running", "failed"):
        Run.objects.update(status=status, error=HOSTILE, error_step=HOSTILE)
        page = render(run, f"view='{view}' can_respond=True", superuser)
        assert "<img" not in page.html
        assert page.root["workflow"] == HOSTILE
        if view == "steps":
            assert " ".join(HOSTILE.split()) in page.steps()[0]


def test_hostile_run_ids_stay_attributes() -> None:
    make_run('wfr_"><img src=x>')
    page = render(SimpleNamespace(id='wfr_"><img src=x>'))
    assert page.root["run"] == 'wfr_"><img src=x>'


def test_templates_hold_no_inline_code() -> None:
    folder = Path(django_workflow.__path__[0]) / "templates/django_workflow/progress"
    texts = [path.read_text() for path in folder.glob("*.html")]
    assert len(texts) >= 6
    for text in texts:
        assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:|\|safe|autoescape off", text)
        assert not re.search(r"<script(?![^>]*\ssrc=)", text)


def test_script_and_stylesheet_are_printed_once_a_page() -> None:
    template = Template("{% load django_workflow %}{% workflow_progress run %}{% workflow_progress run view='badge' %}")
    page = Page(template.render(Context({"run": make_run(), "request": request_of()})))
    assert [attributes["src"] for attributes, _text in page.all("script")] == ["/static/django_workflow/progress.js"]
    assert [attributes["href"] for attributes, _text in page.all("link")] == ["/static/django_workflow/progress.css"]


def test_the_assets_may_stand_in_the_head() -> None:
    template = Template(
        "{% load django_workflow %}<head>{% workflow_progress_assets %}</head>{% workflow_progress run %}"
    )
    html = template.render(Context({"run": None, "request": request_of(), "csp_nonce": "n0nce"}))
    assert len(Page(html).all("script", nonce="n0nce", type="module")) == 1
    assert html.index("<script") < html.index("</head>")


def test_the_widget_speaks_the_readers_language(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"Step {number}: {name}": "Schritt {number}: {name}", "Done": "Fertig"}
    monkeypatch.setattr(labels, "gettext", lambda text: words.get(text, text))
    run = started()
    make_step(run, 1, "a {name} {time}", "running")
    with translation.override("de"):
        page = render(run)
    assert page.status == "Schritt 1: a {name} {time}"
    assert page.root["lang"] == "de"
    words_of_the_script = json.loads(page.one("script")[0]["data-labels"])
    assert words_of_the_script["running"] == "Schritt {number}: {name}"
    assert words_of_the_script["step-success"] == "Fertig"
    assert words_of_the_script["queued"] == "Waiting to start"


def test_a_widget_costs_few_queries(django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    run = started()
    for number in range(1, 30):
        make_step(run, number, "x", "success")
    with django_assert_max_num_queries(3):
        render(run)


def test_a_timeline_has_a_bar_for_each_step_that_began(superuser: User) -> None:
    run = make_run(status=Run.Status.RUNNING, started_at=NOW)
    for number, (start, end) in enumerate([(0, 30), (30, 40), (40, None), (None, None)], start=1):
        run.steps.create(
            step_id=number,
            name=f"step {number}",
            step_type="Run",
            status=Step.Status.SUCCESS if end else Step.Status.RUNNING if start else Step.Status.QUEUED,
            started_at=None if start is None else NOW + timedelta(seconds=start),
            finished_at=None if end is None else NOW + timedelta(seconds=end),
        )
    shown = widget.make_widget(run.run_id, superuser, widget.Options(view="timeline"), NOW + timedelta(seconds=100))
    bars = [(step.bar.start, step.bar.width, step.bar.text) if step.bar else None for step in shown.steps]
    assert bars == [(0, 300, "30.0 s"), (300, 100, "10.0 s"), (400, 600, "1 min"), None]
    html = widget.render_widget(shown, None)
    assert html.count("<rect") == 3
    assert "style=" not in html


def test_what_is_too_short_for_a_timeline_is_a_line(superuser: User) -> None:
    run = make_run(status=Run.Status.SUCCESS, started_at=NOW, finished_at=NOW + timedelta(days=7))
    for number, start in enumerate([timedelta(), timedelta(days=7)], start=1):
        run.steps.create(
            step_id=number,
            name="quick",
            step_type="Run",
            status=Step.Status.SUCCESS,
            started_at=NOW + start,
            finished_at=NOW + start,
        )
    shown = widget.make_widget(run.run_id, superuser, widget.Options(view="timeline"), NOW)
    assert [(step.bar.start, step.bar.width) for step in shown.steps if step.bar] == [(0, 4), (996, 4)]


def test_a_timeline_has_no_bar_for_what_an_earlier_run_did(superuser: User) -> None:
    run = make_run(status=Run.Status.RUNNING, created_at=NOW, started_at=NOW, trigger_kind=Run.TriggerKind.RESUME)
    for number, start in enumerate([timedelta(days=-7), timedelta()], start=1):
        run.steps.create(
            step_id=number,
            name="quick",
            step_type="Run",
            status=Step.Status.SUCCESS,
            started_at=NOW + start,
            finished_at=NOW + start + timedelta(seconds=5),
        )
    shown = widget.make_widget(run.run_id, superuser, widget.Options(view="timeline"), NOW + timedelta(seconds=5))
    assert [(step.bar.start, step.bar.width) if step.bar else None for step in shown.steps] == [None, (0, 1000)]

"""The progress widget in a real browser, under a strict content security policy, over a server that really serves."""

from __future__ import annotations

import gc
import json
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django import forms
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.db import connections
from django.test import Client
from django.utils import timezone
from playwright.sync_api import BrowserContext, Page, WebSocketRoute, expect

from django_workflow.models import ChannelEvent, Run, Step, Waiter
from django_workflow.protocol.waits import FormPrompt, encode_prompt
from django_workflow.realtime import sse
from django_workflow.realtime.routing import websocket_urlpatterns
from django_workflow.signals import channel_events_stored
from tests.browser import widget_site
from tests.realtime.helpers import position

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

RUN = "wfr_1"
PATIENCE = 20_000
HOSTILE = """<img src=x onerror="document.title='hacked'"><b>bold</b>"""


class Site:
    """A server in a thread, which can be stopped and started again at its address."""

    def __init__(self, with_users: bool = True) -> None:
        sockets = URLRouter(websocket_urlpatterns)
        self.application = ProtocolTypeRouter(
            {
                "http": ASGIStaticFilesHandler(get_asgi_application()),
                "websocket": AuthMiddlewareStack(sockets) if with_users else sockets,
            }
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        config = uvicorn.Config(
            self.application,
            port=self.port,
            lifespan="off",
            log_level="error",
            ws="websockets-sansio",
            timeout_graceful_shutdown=1,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        deadline = time.monotonic() + 10
        while not self.server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.server.started

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        # A server that goes away in the middle of a stream leaves Django's file of the request's body open.
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            gc.collect()


@pytest.fixture
def site(settings: Any) -> Iterator[Site]:
    settings.ROOT_URLCONF = "tests.browser.widget_site"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.browser.widget_site.strict_policy"]
    site = Site()
    yield site
    site.stop()


@pytest.fixture
def page(page: Page) -> Iterator[Page]:
    """A page that must not break its policy or throw."""
    problems: list[str] = []

    def note(message: Any) -> None:
        # Lost connections are told on the console as well; they are part of some tests.
        if message.type == "error" and not re.search("Failed to load resource|WebSocket connection", message.text):
            problems.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    yield page
    expect.set_options()
    assert problems == []


@pytest.fixture
def run() -> Run:
    return Run.objects.create(run_id=RUN, workflow="fulfil_order", url="x", created_at=timezone.now())


class Teller:
    """Stores events of a run and announces them, as the engine does."""

    def __init__(self, run_id: str = RUN) -> None:
        self.run_id = run_id
        self.number = 0

    def tell(self, kind: str, *, announce: bool = True, **fields: Any) -> None:
        self.number += 1
        now = int(time.time() * 1000)
        data = {"type": kind, "workflowRunId": self.run_id, "timestamp": now, **fields}
        ChannelEvent.objects.create(
            channel=self.run_id,
            position=position(self.number),
            event="workflow.update",
            data=json.dumps(data),
            created_at=timezone.now(),
        )
        if announce:
            channel_events_stored.send(sender="test", channels={self.run_id: position(self.number)})

    def step(self, kind: str, number: int, name: str, **fields: Any) -> None:
        self.tell(kind, stepId=number, stepName=name, stepType="Run", **{"attempt": 1, **fields})


@pytest.fixture
def teller() -> Teller:
    return Teller()


STORY: list[Callable[[Teller], None]] = [
    lambda t: t.tell("runStart"),
    lambda t: t.step("stepStart", 1, "Reserve stock"),
    lambda t: t.step("stepFinish", 1, "Reserve stock", result={"left": 3}),
    lambda t: t.step("stepStart", 2, "Charge card"),
    lambda t: t.step("stepFail", 2, "Charge card", error="no funds", willRetry=True, maxAttempts=4),
    lambda t: t.step("stepStart", 2, "Charge card", attempt=2),
    lambda t: t.step("stepFinish", 2, "Charge card", attempt=2),
    lambda t: t.tell("progress", done=2, total=3),
    lambda t: t.step("stepStart", 3, "Send mail"),
    lambda t: t.step("stepFinish", 3, "Send mail"),
    lambda t: t.tell("runFinish", status="success"),
]
END = ["Reserve stock Done", "Charge card Done", "Send mail Done"]


def steps(page: Page) -> list[str]:
    return [" ".join(text.split()) for text in page.locator("workflow-progress ol > li").all_inner_texts()]


def status(page: Page) -> Any:
    return page.locator("workflow-progress [data-wf=status]")


def connection_is(page: Page, state: str) -> None:
    """Wait until the widget reports a state of its connection."""
    page.wait_for_function("state => window.states?.includes(state)", arg=state)


@pytest.fixture(autouse=True)
def _watch_states(context: BrowserContext) -> None:
    context.add_init_script(
        """
        window.states = [];
        window.heard = [];
        addEventListener("workflow:connection", (event) => window.states.push(event.detail.state));
        for (const name of ["update", "step", "waiting", "finish"])
          addEventListener(`workflow:${name}`, (event) => window.heard.push([name, event.detail.data.type]));
        """
    )


# Live


def test_a_run_is_followed_to_its_end(page: Page, site: Site, run: Run, teller: Teller) -> None:
    page.goto(f"{site.url}/")
    expect(status(page)).to_have_text("Waiting to start")
    connection_is(page, "connected")
    teller.tell("runStart")
    expect(status(page)).to_have_text("Running")
    teller.step("stepStart", 1, "Reserve stock")
    expect(status(page)).to_have_text("Step 1: Reserve stock")
    expect(page.locator("li[aria-current=step]")).to_have_count(1)
    teller.step("stepFinish", 1, "Reserve stock")
    expect(status(page)).to_have_text("Steps done: 1")
    teller.tell("progress", done=30, total=40)
    expect(page.locator("progress")).to_have_attribute("value", "30")
    teller.step("stepStart", 2, "Charge card")
    at = int(time.time() * 1000)
    teller.step("stepFail", 2, "Charge card", error="no", willRetry=True, maxAttempts=5, nextRetryAt=at)
    expect(status(page)).to_have_text(re.compile(r"^Problem in Charge card, trying again at .+ \(2 of 5\)$"))
    teller.step("stepFail", 2, "Charge card", attempt=5, error="CardDeclined: no funds", willRetry=False)
    teller.tell("runFinish", status="failed", error="CardDeclined: no funds")
    expect(status(page)).to_have_text("Failed in Charge card")
    expect(page.locator("[data-wf=error]")).to_have_text("CardDeclined: no funds")
    expect(page.locator("[data-wf=alert]")).to_have_text("Failed in Charge card")
    assert steps(page) == ["Reserve stock Done", "Charge card Failed CardDeclined: no funds"]
    expect(page.locator("li[aria-current]")).to_have_count(0)
    heard = page.evaluate("window.heard")
    assert heard[0] == ["update", "runStart"]
    assert ["step", "stepFail"] in heard
    assert heard[-1] == ["finish", "runFinish"]


def test_nothing_falls_between_the_page_and_its_connection(page: Page, site: Site, run: Run, teller: Teller) -> None:
    teller.tell("runStart")

    def late(route: Any) -> None:
        for tell in STORY[1:]:
            tell(teller)
        connections.close_all()  # handlers run in a context of their own, with connections of their own
        route.continue_()

    page.route("**/progress.js", late)
    page.goto(f"{site.url}/")
    expect(status(page)).to_have_text("Done")
    assert steps(page) == END


def test_a_finished_run_opens_no_connection(page: Page, site: Site, run: Run) -> None:
    Run.objects.update(status="success")
    opened: list[Any] = []
    page.on("websocket", lambda socket: opened.append(socket))
    page.goto(f"{site.url}/")
    expect(status(page)).to_have_text("Done")
    page.wait_for_timeout(500)
    assert opened == []


def test_a_run_that_succeeds_may_lead_to_another_page(page: Page, site: Site, run: Run, teller: Teller) -> None:
    page.goto(f"{site.url}/?redirect=/?run=none")
    connection_is(page, "connected")
    teller.tell("runFinish", status="success")
    page.wait_for_url("**/?run=none")


@pytest.mark.parametrize("view", ["bar", "badge"])
def test_small_views_are_live_too(page: Page, site: Site, run: Run, teller: Teller, view: str) -> None:
    page.goto(f"{site.url}/?view={view}")
    connection_is(page, "connected")
    teller.tell("runStart")
    teller.step("stepStart", 1, "Reserve stock")
    expect(status(page)).to_have_text("Step 1: Reserve stock")
    teller.tell("runFinish", status="failed", error="canceled")
    expect(status(page)).to_have_text("Canceled")


def test_hostile_names_stay_text(page: Page, site: Site, run: Run, teller: Teller) -> None:
    page.goto(f"{site.url}/")
    connection_is(page, "connected")
    teller.tell("runStart")
    teller.step("stepStart", 1, HOSTILE)
    expect(status(page)).to_have_text(f"Step 1: {HOSTILE}")
    teller.step("stepFail", 1, HOSTILE, error=HOSTILE)
    teller.tell("runFinish", status="failed", error=HOSTILE)
    expect(status(page)).to_have_text(f"Failed in {HOSTILE}")
    expect(page.locator("workflow-progress :is(img, b)")).to_have_count(0)
    assert page.title() == "Widget"


def test_a_sleep_is_shown_with_its_end(page: Page, site: Site, run: Run, teller: Teller) -> None:
    page.goto(f"{site.url}/")
    connection_is(page, "connected")
    due = timezone.now().replace(hour=23, minute=59)
    Run.objects.update(status="sleeping", started_at=timezone.now(), due_at=due)
    Step.objects.create(run=run, step_id=1, name="let it travel", step_type="SleepFor", status="sleeping", due_at=due)
    teller.tell("stepFinish", stepId=1, stepName="let it travel", stepType="SleepFor", attempt=1)
    expect(status(page)).to_have_text("Paused until 11:59 p.m.")
    assert steps(page) == ["let it travel Paused"]


# When connections break


def follow_story(page: Page, teller: Teller) -> None:
    for tell in STORY:
        tell(teller)
    expect(status(page)).to_have_text("Done")
    assert steps(page) == END
    updates = [kind for name, kind in page.evaluate("window.heard") if name == "update"]
    assert len(updates) == len(STORY)  # each was handled once


def test_without_sockets_it_hears_server_sent_events(page: Page, site: Site, run: Run, teller: Teller) -> None:
    page.add_init_script("delete window.WebSocket")
    page.goto(f"{site.url}/")
    connection_is(page, "connected")
    follow_story(page, teller)


def test_a_blocked_socket_is_left_for_server_sent_events(page: Page, site: Site, run: Run, teller: Teller) -> None:
    page.route_web_socket("**/ws/", lambda socket: socket.close(code=1011))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site.url}/")
    connection_is(page, "connected")
    follow_story(page, teller)
    assert any("/realtime/sse/" in url for url in asked)
    assert not any("/realtime/poll/" in url for url in asked)


def test_blocked_streams_are_left_for_polling(page: Page, site: Site, run: Run, teller: Teller) -> None:
    page.route_web_socket("**/ws/", lambda socket: socket.close(code=1011))
    page.route("**/sse/**", lambda route: route.abort())
    page.goto(f"{site.url}/")
    connection_is(page, "polling")
    follow_story(page, teller)


def test_a_stream_that_ends_goes_on_where_it_was(
    page: Page, site: Site, run: Run, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "LIFETIME_SECONDS", 0.3)
    page.goto(f"{site.url}/?transport=sse")
    connection_is(page, "connected")
    opened: list[str] = []
    page.on("request", lambda request: opened.append(request.url))
    for tell in STORY:
        tell(teller)
        page.wait_for_timeout(80)
    expect(status(page)).to_have_text("Done")
    assert steps(page) == END
    assert sum("/realtime/sse/" in url for url in opened) >= 2
    updates = [kind for name, kind in page.evaluate("window.heard") if name == "update"]
    assert len(updates) == len(STORY)


def test_a_timeline_grows_with_the_run(page: Page, site: Site, run: Run, teller: Teller) -> None:
    page.goto(f"{site.url}/?view=timeline")
    connection_is(page, "connected")
    now = timezone.now()
    run.steps.create(
        step_id=1, name="Reserve stock", step_type="Run", status="success", started_at=now, finished_at=now
    )
    teller.step("stepFinish", 1, "Reserve stock")
    expect(page.locator("workflow-progress rect")).to_have_count(1)
    # What comes with the end is shown too.
    run.steps.create(step_id=2, name="Pack", step_type="Run", status="success", started_at=now, finished_at=now)
    Run.objects.update(status="success")
    teller.step("stepFinish", 2, "Pack")
    teller.tell("runFinish", status="success")
    expect(status(page)).to_have_text("Done")
    expect(page.locator("workflow-progress rect")).to_have_count(2)


def test_a_socket_that_breaks_at_any_frame_ends_in_the_same_state(
    page: Page, site: Site, run: Run, teller: Teller
) -> None:
    def unreliable(route: WebSocketRoute) -> None:
        """Every connection breaks one frame later than the one before."""
        server = route.connect_to_server()
        allowance = [unreliable.frames]  # type: ignore[attr-defined]
        unreliable.frames += 1  # type: ignore[attr-defined]

        def pass_on(message: str | bytes) -> None:
            if allowance[0] == 0:
                route.close(code=1011)
                server.close()
                return
            allowance[0] -= 1
            route.send(message)

        server.on_message(pass_on)

    unreliable.frames = 1  # type: ignore[attr-defined]
    page.route_web_socket("**/ws/", unreliable)
    page.add_init_script("Math.random = () => 0.02")  # short back-offs
    page.goto(f"{site.url}/")
    for tell in STORY:
        tell(teller)
        page.wait_for_timeout(30)
    expect(status(page)).to_have_text("Done")
    assert steps(page) == END
    assert unreliable.frames > 3  # type: ignore[attr-defined]
    updates = [kind for name, kind in page.evaluate("window.heard") if name == "update"]
    assert len(updates) == len(STORY)  # each was handled once


@pytest.mark.parametrize("transport", ["auto", "sse"])
def test_a_server_that_goes_away_and_comes_back(
    page: Page, site: Site, run: Run, teller: Teller, transport: str
) -> None:
    page.goto(f"{site.url}/?transport={transport}")
    connection_is(page, "connected")
    for tell in STORY[:4]:
        tell(teller)
    expect(status(page)).to_have_text("Step 2: Charge card")
    site.stop()
    note = page.locator("[data-wf=connection]")
    expect(note).to_contain_text(re.compile(r"Connection lost - showing the state of \d+:\d\d"))
    expect(status(page)).to_have_text("Step 2: Charge card")
    for tell in STORY[4:9]:
        tell(teller)
    note.get_by_role("button", name="Retry").click()
    site.start()
    expect(status(page)).to_have_text("Step 3: Send mail")
    expect(note).to_be_hidden()
    for tell in STORY[9:]:
        tell(teller)
    expect(status(page)).to_have_text("Done")
    assert steps(page) == END


def test_trimmed_history_is_healed_from_the_page(page: Page, site: Site, run: Run, teller: Teller) -> None:
    dropped: list[WebSocketRoute] = []

    def once(route: WebSocketRoute) -> None:
        route.connect_to_server()
        dropped.append(route)

    page.route_web_socket("**/ws/", once)
    page.goto(f"{site.url}/")
    connection_is(page, "connected")
    teller.tell("runStart")
    expect(status(page)).to_have_text("Running")
    # Meanwhile much happens, and what tells of it is deleted.
    Run.objects.update(status="running", started_at=timezone.now())
    Step.objects.create(run=run, step_id=1, name="Reserve stock", step_type="Run", status="success")
    teller.number += 500
    ChannelEvent.objects.all().delete()
    Step.objects.create(run=run, step_id=2, name="Charge card", step_type="Run", status="running")
    teller.step("stepStart", 2, "Charge card", announce=False)
    dropped[0].close(code=1011)
    expect(status(page)).to_have_text("Step 2: Charge card")
    expect(page.locator("workflow-progress ol > li")).to_have_count(2)
    assert steps(page) == ["Reserve stock Done", "Charge card Running"]


def test_two_widgets_share_one_socket(page: Page, site: Site, run: Run, teller: Teller) -> None:
    opened: list[Any] = []
    page.on("websocket", lambda socket: opened.append(socket))
    page.goto(f"{site.url}/")
    page.evaluate(
        """() => {
            const second = document.querySelector("workflow-progress").cloneNode(true);
            document.querySelector("main").append(second);
        }"""
    )
    connection_is(page, "connected")
    for tell in STORY:
        tell(teller)
    expect(status(page).first).to_have_text("Done")
    expect(status(page).last).to_have_text("Done")
    assert len(opened) == 1


# Who may follow


def test_a_socket_that_knows_no_users_is_left_for_polling(
    page: Page, context: BrowserContext, settings: Any, run: Run, teller: Teller
) -> None:
    settings.ROOT_URLCONF = "tests.browser.widget_site"
    site = Site(with_users=False)
    owner = User.objects.create(username="owner")
    Run.objects.update(owner=owner)
    client = Client()
    client.force_login(owner)
    name = django_settings.SESSION_COOKIE_NAME
    context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": site.url}])
    page.goto(f"{site.url}/?id=1")
    connection_is(page, "polling")
    for tell in STORY:
        tell(teller)
    expect(status(page)).to_have_text("Done")
    site.stop()


def test_who_loses_the_right_is_told(page: Page, site: Site, run: Run, teller: Teller, settings: Any) -> None:
    page.goto(f"{site.url}/")
    connection_is(page, "connected")
    # The token of the page is worth nothing any more.
    settings.SECRET_KEY = "another key for the tests, which is long enough to sign with"
    page.evaluate("document.querySelector('workflow-progress').refresh()")
    expect(status(page)).to_have_text("You cannot see this run")


def test_a_right_that_is_withdrawn_ends_the_stream(
    page: Page, site: Site, run: Run, approver: User, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "RECHECK_SECONDS", 0.1)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site.url}/?transport=sse&id=1")
    connection_is(page, "connected")
    teller.tell("runStart")
    expect(status(page)).to_have_text("Running")
    Run.objects.update(owner=None)
    expect(status(page)).to_have_text("You cannot see this run")
    asked.clear()
    teller.step("stepStart", 1, "Reserve stock")
    page.wait_for_timeout(2000)
    assert asked == []  # nobody tries again
    assert steps(page) == []


def test_a_run_that_was_deleted_is_gone(page: Page, site: Site, run: Run) -> None:
    page.goto(f"{site.url}/")
    connection_is(page, "connected")
    Run.objects.all().delete()
    page.evaluate("document.querySelector('workflow-progress').refresh()")
    expect(status(page)).to_have_text("This run no longer exists")


# Answering and starting


@pytest.fixture
def approver(context: BrowserContext, run: Run) -> User:
    """The run's owner, logged in."""
    owner = User.objects.create(username="owner")
    Run.objects.update(owner=owner)
    client = Client()
    client.force_login(owner)
    name = django_settings.SESSION_COOKIE_NAME
    context.add_cookies([{"name": name, "value": client.cookies[name].value, "domain": "127.0.0.1", "path": "/"}])
    widget_site.answers.clear()
    return owner


def ask(run: Run, teller: Teller, event_id: str = "approve") -> None:
    Run.objects.update(status="waiting", started_at=timezone.now())
    Step.objects.create(run=run, step_id=1, name="Ship it?", step_type="Wait", status="waiting")
    Waiter.objects.create(
        run=run, event_id=event_id, step_id=1, step_name="Ship it?", step_type="Wait", created_at=timezone.now()
    )
    teller.tell("stepStart", stepId=1, stepName="Ship it?", stepType="Wait")
    teller.tell("waitingForInput", eventId=event_id, message="Ship it?", stepType="Wait")


def resolve(run: Run, teller: Teller, event_id: str = "approve") -> None:
    Waiter.objects.update(state="resolved")
    Step.objects.update(status="success")
    Run.objects.update(status="running")
    teller.tell("inputResolved", eventId=event_id)
    teller.tell("stepFinish", stepId=1, stepName="Ship it?", stepType="Wait", attempt=1)


def test_a_question_is_answered_by_a_button(page: Page, site: Site, run: Run, teller: Teller, approver: User) -> None:
    page.goto(f"{site.url}/?respond=1")
    connection_is(page, "connected")
    ask(run, teller)
    expect(status(page)).to_have_text("Needs your answer")
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("[data-wf=live]")).to_have_text("Answer sent")
    expect(page.get_by_role("button", name="Decline")).to_be_disabled()
    assert widget_site.answers == [("approve", RUN, {"approved": True})]
    resolve(run, teller)
    expect(page.locator("form")).to_have_count(0)
    expect(status(page)).to_have_text("Steps done: 1")


def test_any_answer_can_be_given_as_json(page: Page, site: Site, run: Run, teller: Teller, approver: User) -> None:
    ask(run, teller)
    page.goto(f"{site.url}/?respond=1")
    page.get_by_text("Another answer").click()
    box = page.get_by_label("Answer as JSON")
    box.fill("{nonsense")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("details [data-wf=problem]")).to_contain_text("The answer was not sent")
    box.fill('{"amount": 7}')
    page.get_by_role("button", name="Send").click()
    expect(page.locator("[data-wf=live]")).to_have_text("Answer sent")
    assert widget_site.answers == [("approve", RUN, {"amount": 7})]


class AmountForm(forms.Form):
    amount = forms.IntegerField(help_text="Seven would be right.")
    kind = forms.ChoiceField(choices=[("all", "All"), ("half", "Half")], widget=forms.RadioSelect, required=False)


def ask_with_form(run: Run, teller: Teller) -> None:
    prompt = encode_prompt(FormPrompt(form=f"{__name__}.AmountForm"))
    run.input_requests.create(step_id=1, event_id="form", prompt=prompt, created_at=timezone.now())
    ask(run, teller, event_id="form")


def test_a_form_of_the_project_is_filled_in(page: Page, site: Site, run: Run, teller: Teller, approver: User) -> None:
    ask_with_form(run, teller)
    page.goto(f"{site.url}/?respond=1")
    page.get_by_label("Amount").fill("6")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("[data-wf=problem]")).to_contain_text("Enter seven.")
    expect(page.get_by_label("Amount")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Amount").fill("7")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("[data-wf=live]")).to_have_text("Answer sent")


def test_somebody_was_faster(page: Page, site: Site, run: Run, teller: Teller, approver: User) -> None:
    ask(run, teller, "refuse")
    page.goto(f"{site.url}/?respond=1")
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("[data-wf=problem]").first).to_have_text("Somebody else has answered already")


def test_an_answer_that_is_being_written_survives_a_refresh(
    page: Page, site: Site, run: Run, teller: Teller, approver: User
) -> None:
    ask(run, teller)
    page.goto(f"{site.url}/?respond=1")
    page.get_by_text("Another answer").click()
    box = page.get_by_label("Answer as JSON")
    box.fill('{"half": ')
    Step.objects.create(run=run, step_id=2, name="Pack it", step_type="Run", status="running")
    page.evaluate("document.querySelector('workflow-progress').refresh()")
    expect(page.locator("workflow-progress ol > li")).to_have_count(2)
    assert steps(page) == ["Ship it? Waiting", "Pack it Running"]
    expect(box).to_have_value('{"half": ')
    expect(box).to_be_focused()


def test_a_form_starts_a_run_and_shows_it(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?trigger=1")
    expect(status(page)).to_have_text("Not started")
    page.get_by_role("button", name="Start").click()
    expect(status(page)).to_have_text("Waiting to start")
    connection_is(page, "connected")
    teller = Teller("wfr_started")
    for tell in STORY:
        tell(teller)
    expect(status(page)).to_have_text("Done")
    assert steps(page) == END
    assert page.url.endswith("/?trigger=1")


def test_a_run_that_cannot_be_started_says_why(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?trigger=1")
    page.evaluate("document.querySelector('button').value = '2'")
    page.get_by_role("button", name="Start").click()
    expect(status(page)).to_have_text("Not started: Nothing to do.")


# For everybody


@pytest.mark.parametrize("look", ["light", "dark", "forced colors", "rtl"])
def test_the_widget_is_accessible(
    page: Page, site: Site, run: Run, teller: Teller, approver: User, look: str, tmp_path: Path
) -> None:
    if look == "forced colors":
        page.emulate_media(forced_colors="active")
    page.set_viewport_size({"width": 320, "height": 800})
    ask(run, teller)
    for number, state in enumerate(("success", "failed", "running", "retrying", "sleeping", "canceled"), start=2):
        Step.objects.create(
            run=run, step_id=number, name=f"a step that is {state}", step_type="Run", status=state, error="It broke."
        )
    direction = "rtl" if look == "rtl" else "ltr"
    page.goto(f"{site.url}/?respond=1&theme={'dark' if look == 'dark' else 'light'}&dir={direction}")
    page.get_by_text("Another answer").click()
    found = Axe().run(page)
    page.screenshot(path=tmp_path / "widget.png")
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= 320")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", ["steps", "timeline"])
def test_timelines_and_forms_are_accessible(
    page: Page, site: Site, run: Run, teller: Teller, approver: User, view: str, theme: str
) -> None:
    page.set_viewport_size({"width": 320, "height": 800})
    ask_with_form(run, teller)
    started = timezone.now() - timedelta(seconds=9)
    for number, state in enumerate(("success", "failed", "running", "retrying", "sleeping", "canceled"), start=2):
        run.steps.create(
            step_id=number, name=f"a {state} step", step_type="Run", status=state, error="It broke.", started_at=started
        )
    page.goto(f"{site.url}/?respond=1&view={view}&theme={theme}")
    expect(page.locator("workflow-progress rect")).to_have_count(6 if view == "timeline" else 0)
    page.get_by_label("Amount").fill("6")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("[data-wf=problem]")).to_contain_text("Enter seven.")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= 320")

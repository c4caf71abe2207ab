"""The admin pages in a browser, under the strictest policy: wide and narrow, light and dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin
from playwright.sync_api import Browser, Page, expect

from django_workflow.models import Run, Step
from django_workflow.testing.factories import make_delivery, make_run, make_step, make_waiter, make_worker
from tests.admin.builders import (
    make_attempt,
    make_dead_letter,
    make_event,
    make_finished_run,
    make_result,
    make_user,
)

pytestmark = pytest.mark.browser

POLICY = "default-src 'self'; frame-ancestors 'none'"


class StrictPolicy(MiddlewareMixin):
    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response["Content-Security-Policy"] = POLICY
        return response


@pytest.fixture
def paths(live_server: Any) -> dict[str, str]:
    """Addresses of the pages of runs, with everything that they can show."""
    waiting = make_run(
        run_id="wfr_waiting-with-a-long-id",
        status=Run.Status.WAITING,
        started_at=timezone.now() - timedelta(days=3),
        created_at=timezone.now() - timedelta(days=3),
        payload=json.dumps({"a": [1, 2, 3], "text": "long " * 1500}),
    )
    make_delivery(waiting)
    make_result(make_step(waiting, queued_at=waiting.created_at), {"text": "long " * 100})
    for _number in range(2):
        make_step(waiting, name="a branch with a name that is longer than its column", concurrent=2)
    make_step(waiting, name="approval", step_type="Wait", status=Step.Status.WAITING, finished_at=None)
    make_waiter(waiting, event_id="approve-a-very-long-event-id-without-any-blank-in-it")
    failed = make_finished_run(run_id="wfr_failed", status=Run.Status.FAILED, error="CardError\nTraceback")
    make_attempt(failed, step_id=2, response_body="x" * 500, retry_at=timezone.now())
    make_event(failed)
    make_dead_letter(failed)
    make_worker(heartbeat_at=timezone.now() - timedelta(hours=1))  # so there is a warning
    base = f"{live_server.url}/admin/django_workflow/run/"
    one, other = f"{base}wfr_waiting-with-a-long-id/change/", f"{base}wfr_failed/change/"
    return {
        "list": base,
        "nothing": f"{base}?q=nothing",
        "timeline": f"{one}?view=timeline",
        "logarithmic": f"{one}?view=timeline&scale=log&from=1000&to=90000000",
        "steps": f"{other}?view=steps",
        "events": f"{one}?view=events",
        "attempts": f"{other}?view=attempts",
        "raw": f"{other}?view=raw",
        "restart": f"{base}{failed.pk}/act/restart/",
    }


@pytest.fixture
def session(settings: Any, transactional_db: None) -> str:
    settings.MIDDLEWARE = [f"{__name__}.StrictPolicy", *settings.MIDDLEWARE]
    client, root = Client(), make_user("root", superuser=True)
    client.force_login(User.objects.get(pk=root.pk))
    return client.cookies[django_settings.SESSION_COOKIE_NAME].value


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_the_pages_fit_and_hold_to_policy_and_guidelines(
    browser: Browser, session: str, paths: dict[str, str], width: int, scheme: Any
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.add_cookies([{"name": django_settings.SESSION_COOKIE_NAME, "value": session, "url": paths["list"]}])
    page = context.new_page()
    blocked: list[str] = []
    page.on("console", lambda message: blocked.append(message.text) if "Security Policy" in message.text else None)
    for name, url in paths.items():
        page.goto(url)
        assert page.title()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the window"
        assert ours(page) == []
    assert blocked == []
    context.close()


def ours(page: Page) -> list[str]:
    """What axe finds in our part of a page; the rest is Django's."""
    found = Axe().run(page).response["violations"]
    nodes = [(violation["id"], node["html"]) for violation in found for node in violation["nodes"]]
    return [f"{rule}: {html}" for rule, html in nodes if "wfa-" in html or "wf-" in html]


@pytest.fixture
def page(browser: Browser, session: str, paths: dict[str, str]) -> Iterator[Page]:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.add_cookies([{"name": django_settings.SESSION_COOKIE_NAME, "value": session, "url": paths["list"]}])
    yield context.new_page()
    context.close()


def test_values_are_copied_and_searched(page: Page, paths: dict[str, str]) -> None:
    page.goto(paths["raw"])
    page.get_by_role("button", name="Copy", exact=True).first.click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "wfr_failed"
    page.goto(paths["timeline"])
    payload = page.locator("[data-wfa=value]").first
    payload.get_by_placeholder("Search").fill("long")
    expect(payload.locator("[role=status]")).to_have_text("1 of 1500")
    payload.get_by_placeholder("Search").press("Shift+Enter")
    expect(payload.locator("[role=status]")).to_have_text("1500 of 1500")
    assert payload.locator("details").get_attribute("open") is not None


def test_a_run_id_is_copied_in_a_row_of_the_list(page: Page, paths: dict[str, str]) -> None:
    page.goto(paths["list"])
    row = page.locator("tr", has_text="wfr_failed")
    row.get_by_role("button", name="Copy the run id").click()
    row.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "wfr_failed"
    expect(row.get_by_role("button", name="Copy the run id")).to_be_visible()
    row.get_by_role("link").first.click()
    page.wait_for_url("**/change/")


@pytest.mark.parametrize("width", [1280, 800, 360])
def test_the_tools_of_the_list_cover_no_warning(page: Page, paths: dict[str, str], width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(paths["list"])
    tools, bar = page.locator(".object-tools").bounding_box(), page.locator(".wfa-bar").bounding_box()
    assert tools is not None
    assert bar is not None
    assert tools["y"] + tools["height"] <= bar["y"]


def test_rows_follow_their_runs_and_newer_ones_are_offered(page: Page, paths: dict[str, str]) -> None:
    run = make_run(run_id="wfr_moving", status=Run.Status.RUNNING)
    page.goto(paths["list"])
    toggle = page.get_by_role("button", name="Live updates")
    expect(toggle).to_have_attribute("aria-pressed", "false")
    row = page.locator("tr", has_text="wfr_moving")
    expect(row).to_contain_text("Running")
    row.get_by_role("checkbox").check()
    Run.objects.filter(pk=run.pk).update(status=Run.Status.SUCCESS)
    make_run(created_at=timezone.now() + timedelta(seconds=1))
    toggle.click()
    expect(row).to_contain_text("Success", timeout=30_000)
    expect(row.get_by_role("checkbox")).to_be_checked()
    expect(page.locator("[data-wfa=new]")).to_contain_text("1 new run")
    page.reload()
    expect(toggle).to_have_attribute("aria-pressed", "true")


def test_a_run_is_followed_in_place(page: Page, paths: dict[str, str]) -> None:
    page.goto(paths["timeline"])
    run = Run.objects.get(run_id="wfr_waiting-with-a-long-id")
    bar = page.locator("[data-wfa=live]")
    expect(bar.locator("[data-wfa=indicator]")).to_have_text("Polling", timeout=30_000)
    page.locator(".wfa-tl-row summary").first.click()
    make_step(run, name="a step that came later")
    make_event(run)
    expect(page.locator(".wfa-tl")).to_contain_text("a step that came later", timeout=30_000)
    expect(page.locator("[data-part=facts]").get_by_role("button", name="Copy")).to_be_visible()
    expect(page.locator(".wfa-tl-row").first).to_have_attribute("open", "")
    assert page.evaluate("document.activeElement.localName") == "summary"
    bar.get_by_role("button", name="Pause updates").click()
    expect(bar.locator("[data-wfa=indicator]")).to_have_text("Paused")
    bar.get_by_role("button", name="Follow live").click()
    run.delete()
    make_event(run, 5)
    expect(bar).to_contain_text("This run no longer exists.", timeout=30_000)
    expect(bar.get_by_role("link", name="To the list of runs")).to_be_visible()


def test_a_part_of_the_timeline_is_looked_at(page: Page, paths: dict[str, str]) -> None:
    page.goto(paths["timeline"])
    page.locator("[data-wfa=axis]").scroll_into_view_if_needed()
    box = page.locator("[data-wfa=axis]").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 8, steps=4)
    page.mouse.up()
    page.wait_for_url("**from=*")
    page.get_by_role("link", name="Fit").click()
    page.wait_for_url("**scale=fold")


def test_a_run_is_canceled_by_the_keyboard_alone(page: Page, paths: dict[str, str]) -> None:
    page.goto(paths["timeline"])
    tab_to(page, "Cancel")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Cancel 1 run").wait_for()
    tab_to(page, "Keep as it is")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("ordered twice")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".messagelist")).to_contain_text("Canceled")
    assert Run.objects.get(run_id="wfr_waiting-with-a-long-id").status == Run.Status.CANCELED


def tab_to(page: Page, text: str) -> None:
    """Press Tab until what has this text has the focus."""
    for _press in range(150):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText?.trim()") == text:
            return
    raise AssertionError(f"{text!r} is not reached by the Tab key")

"""The admin pages in a browser, under the strictest policy: wide and narrow, light and dark."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.utils.deprecation import MiddlewareMixin
from playwright.sync_api import Browser, Page

from django_workflow.models import Run, Step
from django_workflow.testing.factories import make_run, make_step, make_waiter
from tests.admin.builders import make_attempt, make_event, make_finished_run, make_result, make_user

pytestmark = pytest.mark.browser

POLICY = "default-src 'self'; frame-ancestors 'none'"


class StrictPolicy(MiddlewareMixin):
    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response["Content-Security-Policy"] = POLICY
        return response


@pytest.fixture
def paths(live_server: Any) -> dict[str, str]:
    """Addresses of a list and of two runs that have everything a page can show."""
    waiting = make_run(run_id="wfr_waiting-with-a-long-id", status=Run.Status.WAITING, payload='{"a": [1, 2, 3]}')
    make_result(make_step(waiting), {"text": "long " * 100})
    make_step(waiting, name="approval", status=Step.Status.WAITING, finished_at=None)
    make_waiter(waiting, event_id="approve-a-very-long-event-id-without-any-blank-in-it")
    failed = make_finished_run(run_id="wfr_failed", status=Run.Status.FAILED, error="CardError\nTraceback")
    make_attempt(failed, response_body="x" * 500)
    make_event(failed)
    base = f"{live_server.url}/admin/django_workflow/run/"
    return {"list": base, "waiting": f"{base}wfr_waiting-with-a-long-id/change/", "failed": f"{base}wfr_failed/change/"}


@pytest.fixture
def session(settings: Any, transactional_db: None) -> str:
    settings.MIDDLEWARE = [f"{__name__}.StrictPolicy", *settings.MIDDLEWARE]
    client, root = Client(), make_user("root", superuser=True)
    client.force_login(User.objects.get(pk=root.pk))
    return client.cookies[django_settings.SESSION_COOKIE_NAME].value


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
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


def test_a_run_id_is_copied(browser: Browser, session: str, paths: dict[str, str]) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.add_cookies([{"name": django_settings.SESSION_COOKIE_NAME, "value": session, "url": paths["list"]}])
    page = context.new_page()
    page.goto(paths["failed"])
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "wfr_failed"
    context.close()

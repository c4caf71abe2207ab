"""The pages beside those of runs in a browser: under the strictest policy, wide and narrow, by keyboard alone."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings as django_settings
from django.utils import timezone
from playwright.sync_api import Browser, BrowserContext, Page, expect

from django_workflow.models import BulkOperation, FlowKey, Run, Schedule, Waiter
from django_workflow.realtime.channel import Realtime
from django_workflow.testing.factories import make_delivery, make_run, make_worker
from tests.admin.builders import make_dead_letter, make_schedule
from tests.admin.test_browser import ours
from tests.admin.test_browser import session as session
from tests.admin.test_inbox import ask
from tests.admin.test_workflows import parcel_in_admin

pytestmark = pytest.mark.browser


@pytest.fixture
def paths(live_server: Any) -> dict[str, str]:
    """Addresses of every page, with rows that have long names without a blank in them."""
    long = "a-very-long-name-without-any-blank-in-it-" * 3
    waiter = ask(long, to=("group:support",), workflow=long)
    letter = make_dead_letter(
        make_run(workflow=long, status=Run.Status.FAILED), error=f"{long}: {long}", error_kind="ConnectionError"
    )
    schedule = make_schedule(schedule_id="hourly", workflow=parcel_in_admin.name)
    FlowKey.objects.create(key=long, rate=5)
    make_run(workflow="gone_from_code", status=Run.Status.SLEEPING)
    make_delivery(waiter.run, worker=make_worker(host=long), step_name=long)
    BulkOperation.objects.create(name=long, action="cancel", reason=long, created_at=timezone.now())
    Realtime().channel(long).emit("tick", {"text": long})
    base = f"{live_server.url}/admin/django_workflow/"
    return {
        "index": base,
        "inbox": f"{base}waiter/",
        "answer": f"{base}waiter/{waiter.pk}/change/",
        "failed": f"{base}deadletter/",
        "letter": f"{base}deadletter/{letter.pk}/change/",
        "confirm": f"{base}deadletter/run/{letter.run_id}/mark_handled/",
        "workflows": f"{base}registeredworkflow/",
        "workflow": f"{base}registeredworkflow/parcel_5Fin_5Fadmin/change/",
        "trigger": f"{base}registeredworkflow/parcel_5Fin_5Fadmin/trigger/",
        "schedules": f"{base}schedule/",
        "add": f"{base}schedule/add/",
        "backfill": f"{base}schedule/{schedule.pk}/do/backfill/",
        "operations": f"{base}bulkoperation/",
        "keys": f"{base}flowkey/",
        "deliveries": f"{base}delivery/",
        "health": f"{base}worker/",
        "channels": f"{base}channel/",
        "channel": f"{base}channel/{long}/change/",
    }


def opened(browser: Browser, session: str, url: str, **options: Any) -> tuple[BrowserContext, Page, list[str]]:
    """A page of somebody who is logged in, and what the policy blocks or the scripts throw."""
    context = browser.new_context(**options)
    site = url.partition("/admin/")[0]  # a cookie of a deeper address would not be sent to all of the admin
    context.add_cookies([{"name": django_settings.SESSION_COOKIE_NAME, "value": session, "url": site}])
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if "Security Policy" in message.text else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    return context, page, wrong


# Wide in the dark and narrow in the light: between them every colour and every width is looked at.
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (360, "light")])
def test_every_page_fits_and_holds_to_policy_and_guidelines(
    browser: Browser,
    session: str,
    paths: dict[str, str],
    width: int,
    scheme: Any,
) -> None:
    viewport: Any = {"width": width, "height": 900}
    context, page, wrong = opened(browser, session, paths["index"], viewport=viewport, color_scheme=scheme)
    for name, url in paths.items():
        page.goto(url)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the window"
        assert wrong == [], name  # before axe, whose own styles the policy blocks
        assert ours(page) == [], name
        wrong.clear()
    context.close()


def test_on_a_phone_the_rows_of_lists_are_cards_with_headings(
    browser: Browser, session: str, paths: dict[str, str]
) -> None:
    viewport: Any = {"width": 360, "height": 900}
    context, page, wrong = opened(browser, session, paths["index"], viewport=viewport)
    for name in ("failed", "schedules", "operations", "keys", "deliveries", "health"):
        page.goto(paths[name])
        box = page.locator("#changelist .results")
        assert box.evaluate("box => box.scrollWidth <= box.clientWidth"), f"{name} scrolls inside its box"
    heading = page.locator("#result_list .field-concurrency").evaluate(
        "cell => getComputedStyle(cell, '::before').content"
    )
    assert heading == '"Concurrency"'
    assert wrong == []
    context.close()


def test_a_question_is_answered_and_a_run_started_by_keyboard_alone(
    browser: Browser,
    session: str,
    paths: dict[str, str],
) -> None:
    context, page, wrong = opened(browser, session, paths["trigger"])
    page.goto(paths["trigger"])
    page.get_by_label("number").focus()
    for text in ("7", "a@b.example", "1.5"):
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/run/*/change/")
    assert Run.objects.get(workflow=parcel_in_admin.name).payload == (
        '{"number":7,"email":"a@b.example","weight":"1.5","size":"s","express":false}'
    )
    page.goto(paths["answer"])
    page.get_by_label("share").focus()
    page.keyboard.type("40")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Answered “question")).to_be_visible()
    assert Waiter.objects.get().state == Waiter.State.RESOLVED
    assert wrong == []
    context.close()


def test_a_pause_works_without_javascript(browser: Browser, session: str, paths: dict[str, str]) -> None:
    context, page, _wrong = opened(browser, session, paths["index"], java_script_enabled=False)
    schedule = Schedule.objects.get()
    page.goto(paths["backfill"].replace("backfill", "pause"))
    page.get_by_label("Reason").fill("holidays")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("1 schedule was paused.")).to_be_visible()
    schedule.refresh_from_db()
    assert schedule.paused
    page.goto(paths["health"])
    page.get_by_role("button", name="Test realtime").click()
    expect(page.get_by_text("A test event was kept and read back")).to_be_visible()
    context.close()

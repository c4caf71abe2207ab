"""`make demo` in a real browser: a server of its own, with a worker in it, on a database of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from django.conf import settings
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from example_project.shop.data import generate

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SECONDS = 1000
# Alone on a machine a run takes about ten seconds; tests of others may be running beside it.
PATIENCE = 60 * SECONDS
OTHERS = ("DEMO_", "REDIS_URL", "DJANGO_SETTINGS_MODULE", "DJANGO_ALLOW_ASYNC_UNSAFE")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with demo(tmp_path_factory.mktemp("demo")) as origin:
        yield origin


@contextmanager
def demo(folder: Path, **changed: str) -> Iterator[str]:
    """The demo's server, on a database of its own; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
    environment |= {
        "DEMO_DB": str(folder / "demo.sqlite3"),
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        "PORT": str(port),
        **changed,
    }
    for command in ("migrate", "load_demo"):
        subprocess.run(
            [sys.executable, "manage.py", command], cwd=ROOT, env=environment, check=True, capture_output=True
        )
    daphne = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "example_project.asgi:application"]
    with (folder / "server.log").open("w+") as log:
        server = subprocess.Popen(daphne, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_for(port, server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)
            log.seek(0)
            print(log.read())


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("The demo's server did not start.")


@pytest.fixture
def page(page: Page) -> Iterator[Page]:
    """A page whose console must stay free of errors, breaches of the content security policy among them."""
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    yield page
    expect.set_options()
    assert errors == []


def mark(page: Page) -> None:
    """Leave a mark that a reload would wipe out."""
    page.evaluate("window.mark = 'still here'")


def was_reloaded(page: Page) -> bool:
    return bool(page.evaluate("window.mark !== 'still here'"))


def test_an_order_is_paid_approved_and_done_without_a_reload(page: Page, origin: str) -> None:
    page.goto(f"{origin}/orders/1/")
    mark(page)
    page.get_by_role("button", name="Fulfil the order").click()

    # The payment service refused the first attempt.
    expect(page.locator("#order")).to_contain_text("Paid after 2 attempts")
    expect(page.locator("workflow-progress")).to_contain_text("Needs your answer")
    page.get_by_role("button", name="Approve").click()

    expect(page.locator("#messages")).to_contain_text("Approved: the order goes on.")
    expect(page.locator("workflow-progress")).to_contain_text("Done")
    expect(page.locator("#order h1")).to_contain_text("Shipped")
    expect(page.locator("#order")).to_contain_text("INV-000001")
    assert not was_reloaded(page)


def test_an_import_ends_with_the_right_totals(page: Page, origin: str) -> None:
    good = [row for number, row in enumerate(generate.rows()) if number not in generate.SPOILED]
    total = sum(Decimal(row[generate.AMOUNT]) for row in good)

    page.goto(f"{origin}/import/")
    page.get_by_role("button", name="Import orders.csv").click()
    expect(page).to_have_url(re.compile(r"/import/wfr_"))
    expect(page.locator("workflow-progress")).to_contain_text("Done")
    result = page.locator("#import-result")
    expect(result).to_contain_text(f"{len(good):,}")
    expect(result).to_contain_text(f"{total:,}")
    expect(result.locator("tbody tr")).to_have_count(len(generate.SPOILED))


def test_an_import_shows_how_far_it_is(page: Page, origin: str) -> None:
    page.goto(f"{origin}/")
    widget = page.locator("section[aria-labelledby=import] workflow-progress")
    # A page that is open already misses nothing of an import that takes a second.
    page.evaluate(
        """
        window.values = [];
        const widget = document.querySelector("section[aria-labelledby=import] workflow-progress");
        new MutationObserver(() => {
          const bar = widget.querySelector("progress");
          if (bar.max === 2500) window.values.push(bar.value);
        }).observe(widget, { attributes: true, childList: true, subtree: true });
        """
    )
    before = widget.get_attribute("run") or ""
    page.get_by_role("button", name="Import orders.csv").click()
    expect(widget).not_to_have_attribute("run", before)
    expect(widget).to_have_attribute("status", "success")
    seen = page.evaluate("window.values")
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] <= 2500


def complain(page: Page, origin: str) -> None:
    page.goto(f"{origin}/complaint/?order=2")
    page.get_by_label("What is wrong").fill("The lamp is broken.")
    page.get_by_role("button", name="Complain").click()
    expect(page).to_have_url(re.compile(r"/complaint/wfr_"))


def test_a_complaint_is_settled_by_a_form_without_a_reload(page: Page, origin: str) -> None:
    complain(page, origin)
    mark(page)
    page.get_by_label("All of it").check()
    page.get_by_label("Answer to the customer").fill("We are sorry.")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("workflow-progress")).to_contain_text("Done")
    expect(page.locator("#complaint")).to_contain_text("64.80 EUR")
    expect(page.locator("#complaint")).to_contain_text("We are sorry.")
    assert not was_reloaded(page)


def test_a_complaint_is_settled_without_javascript(browser: Browser, origin: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    complain(page, origin)
    shown = page.url
    reload_until(page, "workflow-progress", "Needs your answer")
    page.get_by_label("Nothing").check()
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("heading")).to_have_text("The form has errors")
    page.get_by_label("Answer to the customer").fill("It is a candle.")
    page.get_by_role("button", name="Send").click()
    expect(page).to_have_url(shown)
    reload_until(page, "#complaint", "It is a candle.")
    context.close()


def test_a_note_grows_word_by_word(page: Page, origin: str) -> None:
    follow_a_note(page, origin)


@pytest.mark.redis
def test_a_note_grows_word_by_word_through_redis(page: Page, tmp_path: Path) -> None:
    with demo(tmp_path, REDIS_URL=str(settings.CACHES["redis"]["LOCATION"])) as origin:
        follow_a_note(page, origin)


def follow_a_note(page: Page, origin: str) -> None:
    page.add_init_script(
        """
        window.texts = new Set();
        new MutationObserver(() => window.texts.add(document.querySelector("#note")?.textContent))
          .observe(document, { childList: true, subtree: true });
        """
    )
    page.goto(f"{origin}/note/")
    page.get_by_role("button", name="Write the note").click()
    expect(page).to_have_url(re.compile(r"/note/wfr_"))
    note = page.locator("#note")
    expect(note).to_contain_text("Dear")
    page.reload()  # it comes with the words so far, and goes on from there
    expect(page.locator("workflow-progress")).to_contain_text("Done")
    expect(note).not_to_have_attribute("aria-busy", "true")
    expect(note).to_contain_text("Should anything be missing or broken, tell us")
    texts = page.evaluate("[...window.texts].filter(Boolean)")
    assert len(texts) > 10
    assert all(after.startswith(before) for before, after in pairwise(texts))
    live = note.inner_text()
    page.reload()
    expect(note).to_have_text(live)


def test_widgets_of_several_runs_share_one_connection(page: Page, origin: str) -> None:
    page.goto(f"{origin}/together/")
    opened: list[str] = []
    page.on("websocket", lambda socket: opened.append(socket.url))
    page.get_by_role("button", name="Start all four").click()
    for section in ("import", "chunks", "report", "note", "guide"):
        for widget in page.locator(f"section[aria-labelledby={section}] workflow-progress").all():
            expect(widget).to_contain_text("Done")
            expect(widget).to_have_attribute("status", "success")
    assert len(opened) == 1
    expect(page.locator("section[aria-labelledby=chunks] rect")).to_have_count(13)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_accessible_and_fit_a_phone(browser: Browser, origin: str, scheme: Any) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 360, "height": 800})
    page = context.new_page()
    complain(page, origin)
    expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=PATIENCE)
    for path in ("", "/note/", "/together/", "/import/", "/"):
        if path:
            page.goto(f"{origin}{path}")
        found = Axe().run(page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth <= 360"), path
    context.close()


def test_a_report_is_made_for_a_day(page: Page, origin: str) -> None:
    page.goto(f"{origin}/report/")
    page.get_by_label("Day").fill("2025-12-31")
    page.get_by_role("button", name="Make the report").click()
    expect(page.locator("workflow-progress")).to_contain_text("Done")
    expect(page.locator("#reports")).to_contain_text("2025-12-31")


def test_an_order_that_fails_says_why(page: Page, origin: str) -> None:
    page.goto(f"{origin}/orders/3/")
    page.get_by_role("button", name="Fulfil the order").click()
    expect(page.locator("workflow-progress")).to_contain_text("Failed in reserve stock")
    expect(page.locator("#order")).to_contain_text("only 1 are in stock")


def test_the_guides_run_goes_on_when_it_is_told_to(page: Page, origin: str) -> None:
    page.goto(f"{origin}/guide/")
    page.get_by_role("button", name="Run one that asks").click()
    expect(page).to_have_url(re.compile(r"/guide/wfr_"))
    mark(page)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("workflow-progress")).to_contain_text("Done")
    expect(page.locator("#guide-run")).to_contain_text("process done")
    assert not was_reloaded(page)


def test_the_guide_shows_what_the_failure_function_says(page: Page, origin: str) -> None:
    page.goto(f"{origin}/guide/")
    page.get_by_role("button", name="Run one that fails").click()
    expect(page.locator("workflow-progress")).to_contain_text("Failed in charge-card")
    expect(page.locator("#guide-run")).to_contain_text("The card terminal does not answer.")


def reload_until(page: Page, place: str, text: str) -> None:
    deadline = time.monotonic() + PATIENCE / SECONDS
    while text not in page.locator(place).inner_text() and time.monotonic() < deadline:
        page.wait_for_timeout(500)
        page.reload()
    expect(page.locator(place)).to_contain_text(text)


def test_an_order_goes_through_without_javascript(browser: Browser, origin: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{origin}/")
    page.get_by_label("Order", exact=True).select_option("2")
    page.get_by_role("button", name="Fulfil the order").click()
    expect(page).to_have_url(f"{origin}/orders/2/")
    reload_until(page, "workflow-progress", "Done")
    context.close()


def test_the_admin_shows_the_runs(page: Page, origin: str) -> None:
    page.goto(f"{origin}/guide/")
    page.get_by_role("button", name="Run the basic workflow").click()
    expect(page.locator("workflow-progress")).to_contain_text("Done")

    log_in(page, origin)
    page.goto(f"{origin}/admin/django_workflow/run/?workflow=basic")
    row = page.locator("#result_list tbody tr").first
    expect(row).to_contain_text("basic")
    row.get_by_role("link").first.click()
    expect(page.locator("#content")).to_contain_text("process-data")


def test_the_test_of_realtime_hears_of_its_event_by_every_transport(page: Page, origin: str) -> None:
    log_in(page, origin)
    page.goto(f"{origin}/admin/django_workflow/worker/")
    mark(page)
    button = page.get_by_role("button", name="Test realtime")
    for _time in range(2):  # the second one has an event of its own
        button.click()
        for way in ("store", "layer", "ws", "sse", "poll"):
            expect(page.locator(f"[data-probe={way}]")).to_have_text(re.compile(r"^[\d.]+ ms$"))
        expect(button).to_be_enabled()
    expect(page.locator("[data-probe=error]")).to_be_empty()
    assert not was_reloaded(page)


def log_in(page: Page, origin: str) -> None:
    page.goto(f"{origin}/admin/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill("admin")
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{origin}/admin/")

"""`make demo` in a real browser: a server of its own, with a worker in it, on a database of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
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
    folder = tmp_path_factory.mktemp("demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
    environment |= {
        "DEMO_DB": str(folder / "demo.sqlite3"),
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        "PORT": str(port),
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


def test_an_order_goes_through_without_javascript(browser: Browser, origin: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{origin}/")
    page.get_by_label("Order", exact=True).select_option("2")
    page.get_by_role("button", name="Fulfil the order").click()
    expect(page).to_have_url(f"{origin}/orders/2/")
    deadline = time.monotonic() + PATIENCE / SECONDS
    while "Done" not in page.locator("workflow-progress").inner_text() and time.monotonic() < deadline:
        page.wait_for_timeout(500)
        page.reload()
    expect(page.locator("workflow-progress")).to_contain_text("Done")
    context.close()


def test_the_admin_shows_the_runs(page: Page, origin: str) -> None:
    page.goto(f"{origin}/guide/")
    page.get_by_role("button", name="Run the basic workflow").click()
    expect(page.locator("workflow-progress")).to_contain_text("Done")

    page.goto(f"{origin}/admin/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill("admin")
    page.get_by_role("button", name="Log in").click()
    page.goto(f"{origin}/admin/django_workflow/run/?workflow=basic")
    row = page.locator("#result_list tbody tr").first
    expect(row).to_contain_text("basic")
    row.get_by_role("link").first.click()
    expect(page.locator("#content")).to_contain_text("process-data")

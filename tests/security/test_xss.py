"""No stored text becomes markup: in the admin, in the widget, in the API's pages, and in a real browser."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings as django_settings
from django.template import engines
from django.test import Client, RequestFactory

from tests.admin.builders import make_user
from tests.api.conftest import as_user
from tests.security.hostile import HOSTILE, injected
from tests.security.pages import admin_urls
from tests.security.world import RUN, make_world

PAGES = ("", "?view=timeline", "?view=steps", "?view=events", "?view=attempts", "?view=raw")
API = ("runs/", f"runs/{RUN}/", f"runs/{RUN}/steps/", f"runs/{RUN}/events/", "waiters/", "schedules/", "dead-letters/")


@pytest.fixture
def root(client: Client, db: None) -> Client:
    client.force_login(make_user("root", superuser=True))
    return client


def test_the_reader_of_pages_sees_what_a_browser_would() -> None:
    assert injected(f"<p>{HOSTILE}</p>")
    assert injected(f'<p title="{HOSTILE}"></p>')
    assert injected(f"<script>x = '{HOSTILE}'</script>")
    assert injected('<a href=" JavaScript:alert(1)">')
    assert injected("<p>&lt;xss-element data-xss=1&gt;</p>") == []


def test_no_page_of_the_admin_has_injected_markup(root: Client) -> None:
    run = make_world(hostile=True)
    arguments = {"form": "json", "name": "payload", "step_id": 1, "run_key": run.pk}
    seen = 0
    for url in admin_urls(arguments):
        for query in PAGES if f"/run/{run.pk}/change/" in url or f"{RUN}/change/" in url else ("",):
            response = root.get(url + query)
            if response.status_code == 200 and response["Content-Type"].startswith("text/html"):
                text = b"".join(response.streaming_content) if response.streaming else response.content
                assert injected(text.decode()) == [], url + query
                seen += "xss-element" in text.decode()
    assert seen >= 5  # the hostile text is there, as text


def test_searches_and_filters_are_not_echoed_as_markup(root: Client) -> None:
    make_world(hostile=True)
    for query in ("q", "label", "workflow", "status", "view", "period", "after", "before", "e", "p"):
        response = root.get("/admin/django_workflow/run/", {query: HOSTILE}, follow=True)
        assert response.status_code in (200, 400)
        assert injected(response.content.decode()) == [], query


@pytest.mark.parametrize("view", ["steps", "bar", "badge"])
def test_the_widget_has_none(root: Client, rf: RequestFactory, view: str) -> None:
    run = make_world(hostile=True)
    template = engines["django"].from_string(
        "{% load django_workflow %}{% workflow_progress run view=view can_respond=True %}"
    )
    request = rf.get("/")
    request.user = make_user("ann", superuser=True)
    html = template.render({"run": run, "view": view, "request": request}, request)
    assert injected(html) == []
    fragment = root.get(f"/workflows/realtime/run/{RUN}/", {"view": view})
    assert injected(fragment.content.decode()) == []
    assert fragment.status_code == 200


@pytest.mark.parametrize("path", API)
def test_pages_of_the_api_have_none(db: None, path: str) -> None:
    make_world(hostile=True)
    boss = as_user(make_user("boss", superuser=True))
    response = boss.get(f"/workflows/api/{path}", headers={"accept": "text/html"})
    assert response.status_code == 200
    assert injected(response.content.decode()) == []


@pytest.mark.parametrize(
    "path", ["runs/{0}/", "workflows/{0}/trigger/", "runs/?status={0}", "runs/?cursor={0}", "events/{0}/notify/"]
)
def test_refusals_repeat_no_markup(db: None, path: str) -> None:
    boss = as_user(make_user("boss", superuser=True))
    from urllib.parse import quote

    url = "/workflows/api/" + path.format(quote(HOSTILE, safe=""))
    for method in ("get", "post"):
        response = getattr(boss, method)(url, headers={"accept": "text/html"})
        assert injected(response.content.decode()) == []
        plain = getattr(boss, method)(url)
        assert "html" not in plain["Content-Type"] or plain.status_code == 404


@pytest.mark.browser
def test_no_script_runs_in_a_browser(browser: Any, live_server: Any, transactional_db: None) -> None:
    run = make_world(hostile=True)
    client, root = Client(), make_user("root", superuser=True)
    client.force_login(root)
    session = client.cookies[django_settings.SESSION_COOKIE_NAME].value
    context = browser.new_context()
    context.add_cookies([{"name": django_settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
    page = context.new_page()
    page.add_init_script("window.xss = () => { document.documentElement.dataset.xss = 1; }")
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    urls = [f"/admin/django_workflow/run/{run.pk}/change/{query}" for query in PAGES]
    urls += ["/admin/django_workflow/run/", "/admin/django_workflow/deadletter/", "/admin/django_workflow/schedule/"]
    for url in urls:
        page.goto(live_server.url + url)
        assert page.evaluate("document.documentElement.dataset.xss") is None, url
        assert page.locator("xss-element, [data-xss]").count() == 0, url
    assert dialogs == []
    context.close()

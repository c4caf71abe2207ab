"""Every page of the admin that the URLconf has, asked by those who may not: nothing is shown, and nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.test import Client

from django_workflow.models import Run
from tests.admin.builders import make_user
from tests.security.pages import admin_urls
from tests.security.world import make_world

pytestmark = pytest.mark.django_db

VIEWS = ("run", "delivery", "deadletter", "schedule", "worker", "flowkey")
INBOX = "/admin/django_workflow/waiter/"
BODY = {"action": "delete_selected", "post": "yes", "confirm": "1", "reason": "because", "select_across": "1"}


def rows() -> list[Any]:
    """All rows of the package, as values: what a request changes shows."""
    return [
        (model.__name__, list(model._base_manager.order_by("pk").values_list()))
        for model in apps.get_app_config("django_workflow").get_models()
    ]


@pytest.fixture
def urls() -> list[str]:
    run = make_world()
    found = admin_urls({"form": "json", "name": "cancel", "step_id": 1, "run_key": run.pk})
    assert len(found) > 30
    return found


def actions(url: str) -> Iterator[dict[str, Any]]:
    """Bodies to post: a confirmed form, and on lists every action by name over everything."""
    yield dict(BODY)
    if url.count("/") == 4:
        for name in (
            "cancel",
            "pause",
            "unpause",
            "resume",
            "restart",
            "retry_now",
            "delete_selected",
            "reset",
            "run_now",
        ):
            yield {**BODY, "action": name, "_selected_action": [str(row[0]) for row in run_keys()]}


def run_keys() -> Any:

    return Run.objects.values_list("pk")


def test_a_stranger_is_sent_to_the_login_page(urls: list[str]) -> None:
    before = rows()
    for url in urls:
        for response in (Client().get(url), Client().post(url, BODY)):
            assert response.status_code == 302, url
            assert "/admin/login/" in response["Location"], url
    assert rows() == before


def test_staff_without_permissions_are_refused_everywhere(urls: list[str], client: Client) -> None:
    client.force_login(make_user("nobody"))
    before = rows()
    for url in urls:
        response = client.get(url)
        if url == INBOX:  # for all staff: it shows what is addressed to whom looks
            assert "approve-42" not in response.content.decode()
        else:
            assert response.status_code in (302, 403, 404, 405), url
        for body in actions(url):
            allowed = (302, 403, 404, 405, *([200] if url == INBOX else []))
            assert client.post(url, body).status_code in allowed, (url, body["action"])
    assert rows() == before
    assert not LogEntry.objects.exists()


def test_who_may_only_look_changes_nothing_by_any_post(urls: list[str], client: Client) -> None:
    client.force_login(make_user("viewer", *(f"view_{name}" for name in VIEWS)))
    before = rows()
    for url in urls:
        if url.endswith("/worker/probe/"):  # emits an event on a channel of its own
            continue
        for body in actions(url):
            assert client.post(url, body).status_code < 500, (url, body["action"])
        assert rows() == before, url
    assert not LogEntry.objects.exists()


def test_nothing_is_done_without_a_csrf_token_whoever_asks(urls: list[str]) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user("root", superuser=True))
    before = rows()
    for url in urls:
        for body in actions(url):
            assert client.post(url, body).status_code == 403, (url, body["action"])
    assert rows() == before


def test_looking_changes_nothing(urls: list[str], client: Client) -> None:
    """No link acts: what a browser fetches ahead, or a crawler, does no harm."""
    client.force_login(make_user("root", superuser=True))
    before = rows()
    for url in urls:
        for query in ("", "?action=cancel", "?_selected_action=1&action=cancel&confirm=1&post=yes"):
            assert client.get(url + query).status_code < 500, url + query
    assert rows() == before

from __future__ import annotations

import re

from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tests.admin.builders import make_dead_letter, make_user
from tests.admin.test_inbox import ask

INDEX = "/admin/django_workflow/"


def pages(client: Client) -> dict[str, list[str]]:
    """Names of the pages by the groups that they stand in."""
    parts = re.split(r'<h2 id="wfa-group-\d+"[^>]*>([^<]+)</h2>', client.get(INDEX).content.decode())
    return {
        name: re.findall(r"<strong>([^<]+)</strong>", part) for name, part in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_the_index_groups_its_pages_and_counts_what_waits(client: Client, db: None) -> None:
    user = make_user("root", superuser=True)
    client.force_login(user)
    make_dead_letter()
    ask("one"), ask("two", to=(f"user:{user.pk}",))
    shown = pages(client)
    assert shown["To do"] == ["Waiting inbox", "Failed runs"]
    assert {"Runs", "Workflows", "Schedules"} <= set(shown["Runs"])
    assert shown["Engine"] == ["Health", "Deliveries", "Flow-control keys", "Realtime channels"]
    page = client.get(INDEX).content.decode()
    assert '<span class="wfa-badge">2</span>' in page
    assert '<span class="wfa-badge">1</span>' in page


def test_the_index_shows_what_the_user_may_open(client: Client, db: None) -> None:
    client.force_login(make_user("ann", "view_schedule"))
    assert pages(client) == {"Runs": ["Schedules"]}


def test_the_number_of_queries_does_not_grow(
    client: Client, db: None, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    client.force_login(make_user("root", superuser=True))
    for number in range(12):
        make_dead_letter()
        ask(f"e{number}", to=("user:1",))
    with django_assert_max_num_queries(9):
        client.get(INDEX)

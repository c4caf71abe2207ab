from __future__ import annotations

import pytest
from django.contrib.admin.utils import quote
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from django_workflow.models import ChannelEvent
from django_workflow.realtime.channel import Realtime
from django_workflow.testing.factories import make_run
from tests.admin.builders import make_event, make_user

LIST = "/admin/django_workflow/channel/"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def looking(client: Client, db: None) -> Client:
    client.force_login(make_user("ann", "view_channel", "view_run"))
    return client


def test_channels_are_listed_with_what_they_keep(looking: Client) -> None:
    for number in range(3):
        Realtime().channel("user-42").emit("notification.alert", {"n": number})
    Realtime().channel("shop").emit("stock.changed")
    rows = {row.name: row for row in looking.get(LIST).context["rows"]}
    assert [(name, row.kept, row.subscribers) for name, row in rows.items()] == [("shop", 1, 0), ("user-42", 3, 0)]
    page = looking.get(rows["user-42"].url).content.decode()
    assert page.count("notification.alert") == 3
    assert page.index("&quot;n&quot;: 2") < page.index("&quot;n&quot;: 0")
    assert rows["user-42"].newest_id in page
    found = looking.get(LIST, {"q": "user"}).context["rows"]
    assert [row.name for row in found] == ["user-42"]


def test_a_long_log_is_read_page_by_page(looking: Client) -> None:
    for number in range(130):
        Realtime().channel("long").emit("tick", number)
    first = looking.get(f"{LIST}long/change/")
    assert [event.data for event in first.context["events"]] == [str(n) for n in range(129, 29, -1)]
    second = looking.get(first.context["older_url"])
    assert [event.data for event in second.context["events"]] == [str(n) for n in range(29, -1, -1)]
    assert second.context["older_url"] == ""
    assert looking.get(f"{LIST}long/change/?before=nonsense").status_code == 404
    assert looking.get(f"{LIST}none/change/").status_code == 404


def test_channels_of_runs_are_for_who_may_see_runs(client: Client, db: None) -> None:
    run = make_run(run_id="wfr_abc")
    make_event(run)
    client.force_login(make_user("bob", "view_channel"))
    assert client.get(LIST).context["rows"] == []
    assert client.get(f"{LIST}{quote('wfr_abc')}/change/").status_code == 403
    client.force_login(make_user("ann", "view_channel", "view_run"))
    assert [row.name for row in client.get(LIST).context["rows"]] == ["wfr_abc"]
    assert f"/run/{run.pk}/change/" in client.get(f"{LIST}{quote('wfr_abc')}/change/").content.decode()
    client.force_login(make_user("carl", "view_run"))
    assert client.get(LIST).status_code == 403


def test_nothing_can_be_changed(looking: Client) -> None:
    Realtime().channel("shop").emit("stock.changed")
    looking.post(f"{LIST}shop/change/", {"name": "other"})
    assert looking.post(f"{LIST}shop/delete/", {"post": "yes"}).status_code in (302, 403)
    assert ChannelEvent.objects.count() == 1


def test_names_and_events_are_text_and_no_html(looking: Client) -> None:
    ChannelEvent.objects.create(
        channel=HOSTILE, position=1 << 40, event=HOSTILE, data=f'"{HOSTILE}"', created_at="2026-01-01T00:00Z"
    )
    for url in (LIST, f"{LIST}?q=%3Cscript", f"{LIST}{quote(HOSTILE)}/change/"):
        page = looking.get(url).content.decode()
        assert HOSTILE not in page
        assert "&lt;script&gt;" in page


def test_the_number_of_queries_does_not_grow_with_the_channels(
    looking: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(20):
        Realtime().channel(f"c{number}").emit("tick")
    with django_assert_max_num_queries(8):
        assert len(looking.get(LIST).context["rows"]) == 20

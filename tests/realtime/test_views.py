from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from django_workflow.models import Run
from django_workflow.realtime import access
from tests.realtime.helpers import CHANNEL, NOW, event_id, make_run, store, store_many

pytestmark = pytest.mark.django_db


@pytest.fixture
def root(client: Client, superuser: User) -> Client:
    client.force_login(superuser)
    return client


def poll(client: Client, *channels: str, headers: Any = None, **query: Any) -> Any:
    query["channel"] = list(channels or (CHANNEL,))
    return client.get(reverse("django_workflow:realtime-poll"), query, headers=headers)


def ids(response: HttpResponse) -> list[str]:
    return [message["id"] for message in response.json()["messages"]]  # type: ignore[attr-defined]


# Polling


def test_poll_gives_what_is_after_the_cursor(root: Client) -> None:
    store_many(range(1, 4))
    answer = poll(root, **{f"last_ack_{CHANNEL}": event_id(1)})
    assert answer.json() == {
        "messages": [{"data": {"n": n}, "event": "e", "channel": CHANNEL, "id": event_id(n)} for n in (2, 3)],
        "cursors": {CHANNEL: event_id(3)},
        "more": False,
        "retryAfterMs": 2000,
    }
    assert "private" in answer["Cache-Control"]
    assert "no-store" in answer["Cache-Control"]


def test_poll_without_a_cursor_starts_now(root: Client) -> None:
    store_many(range(1, 4))
    answer = poll(root)
    assert ids(answer) == []
    assert answer.json()["cursors"] == {CHANNEL: event_id(3)}


def test_poll_of_an_empty_channel_gives_a_cursor_to_go_on_from(root: Client) -> None:
    assert poll(root).json()["cursors"] == {CHANNEL: "0-0"}


def test_poll_gives_pages(root: Client) -> None:
    store_many(range(1, 6))
    store_many(range(1, 4), "wfr_2")
    cursors = {CHANNEL: "0-0", "wfr_2": "0-0"}
    found: list[str] = []
    more = True
    while more:
        answer = poll(root, *cursors, limit=3, **{f"last_ack_{name}": cursor for name, cursor in cursors.items()})
        assert len(answer.json()["messages"]) <= 3
        found += [f"{m['channel']} {m['data']['n']}" for m in answer.json()["messages"]]
        cursors, more = answer.json()["cursors"], answer.json()["more"]
    assert found == [f"{CHANNEL} {n}" for n in range(1, 6)] + [f"wfr_2 {n}" for n in range(1, 4)]


def test_poll_tells_a_gap_once(root: Client) -> None:
    store_many(range(5, 7))
    answer = poll(root, **{f"last_ack_{CHANNEL}": event_id(1)}).json()
    assert answer["messages"][0] == {
        "type": "gap",
        "channel": CHANNEL,
        "oldest": event_id(5),
        "cursor": event_id(6),
    }
    assert [message["id"] for message in answer["messages"][1:]] == [event_id(5), event_id(6)]
    again = poll(root, **{f"last_ack_{CHANNEL}": answer["cursors"][CHANNEL]}).json()
    assert again["messages"] == []


def test_poll_of_a_channel_that_lost_everything_tells_so_once(root: Client) -> None:
    answer = poll(root, **{f"last_ack_{CHANNEL}": event_id(1)}).json()
    assert [message["type"] for message in answer["messages"]] == ["gap"]
    assert poll(root, **{f"last_ack_{CHANNEL}": answer["cursors"][CHANNEL]}).json()["messages"] == []


def test_poll_is_refused_with_a_reason(client: Client) -> None:
    make_run()
    answer = poll(client)
    assert answer.status_code == 403
    assert answer.json() == {"error": "You may not see this channel.", "reason": "forbidden"}


def test_poll_reports_the_channels_that_are_refused(client: Client, somebody: User) -> None:
    make_run(owner=somebody)
    client.force_login(somebody)
    answer = poll(client, "wfr_other", CHANNEL)
    (refusal,) = answer.json()["messages"]
    assert (refusal["type"], refusal["code"], refusal["channel"]) == ("error", "forbidden", "wfr_other")
    assert list(answer.json()["cursors"]) == [CHANNEL]


@pytest.mark.parametrize("where", ["header", "query"])
def test_poll_takes_a_token(client: Client, where: str) -> None:
    store(1)
    token = access.make_token([CHANNEL])
    query = {f"last_ack_{CHANNEL}": "0-0", **({"token": token} if where == "query" else {})}
    answer = poll(client, headers={"X-Workflow-Token": token} if where == "header" else None, **query)
    assert ids(answer) == [event_id(1)]


@pytest.mark.parametrize(
    ("token", "reason"),
    [("forged", "token_invalid"), (access.make_token(["wfr_other"]), "forbidden")],
    ids=["forged", "of another run"],
)
def test_poll_refuses_a_bad_token(client: Client, token: str, reason: str) -> None:
    answer = poll(client, headers={"X-Workflow-Token": token})
    assert (answer.status_code, answer.json()["reason"]) == (403, reason)


@pytest.mark.parametrize(
    "query",
    [
        {f"last_ack_{CHANNEL}": "yesterday"},
        {"limit": "0"},
        {"limit": "501"},
        {"limit": "many"},
        {"limit": "9" * 5000},
    ],
    ids=lambda query: next(iter(query.values()))[:9],
)
def test_poll_refuses_what_it_does_not_understand(root: Client, query: dict[str, str]) -> None:
    answer = poll(root, **query)
    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_request")


@pytest.mark.parametrize("channels", [[""], [f"c{n}" for n in range(51)], ["x" * 256]], ids=["none", "51", "long"])
def test_poll_refuses_a_wrong_number_of_channels(root: Client, channels: list[str]) -> None:
    assert poll(root, *channels).status_code == 400


def test_poll_takes_get_alone(root: Client) -> None:
    assert root.post(reverse("django_workflow:realtime-poll")).status_code == 405


# The fragment


def fragment(client: Client, run_id: str = CHANNEL, headers: dict[str, str] | None = None, **query: Any) -> Any:
    return client.get(reverse("django_workflow:realtime-run", args=[run_id]), query, headers=headers)


def test_the_fragment_is_the_widget(root: Client) -> None:
    make_run(status=Run.Status.RUNNING, started_at=NOW)
    store(7)
    answer = fragment(root)
    text = answer.content.decode()
    assert text.startswith('<workflow-progress class="wf wf-view-steps" run="wfr_1"')
    assert f'cursor="{event_id(7)}"' in text
    assert "<script" not in text
    assert "private" in answer["Cache-Control"]


def test_the_fragment_has_the_view_that_is_asked_for(root: Client) -> None:
    make_run()
    assert 'class="wf wf-view-badge"' in fragment(root, view="badge").content.decode()
    assert fragment(root, view="hologram").status_code == 400


def test_the_fragment_is_refused_in_words(client: Client) -> None:
    make_run()
    answer = fragment(client)
    assert answer.status_code == 403
    assert "You cannot see this run" in answer.content.decode()
    assert "fulfil_order" not in answer.content.decode()


def test_the_fragment_does_not_tell_strangers_whether_a_run_exists(client: Client) -> None:
    make_run()
    assert fragment(client).content == fragment(client, "wfr_none").content


def test_the_fragment_of_a_run_that_is_gone(root: Client) -> None:
    answer = fragment(root, "wfr_none")
    assert answer.status_code == 404
    assert "This run no longer exists" in answer.content.decode()


def test_the_fragment_renews_its_token(client: Client) -> None:
    make_run()
    answer = fragment(client, headers={"X-Workflow-Token": access.make_token([CHANNEL])})
    token = answer.content.decode().partition('token="')[2].partition('"')[0]
    assert access.read_token(token).covers(CHANNEL, "read")
    assert not access.read_token(token).covers(CHANNEL, "respond")


def test_the_fragment_gives_no_token_to_who_may_read_anyway(root: Client) -> None:
    make_run()
    assert "token=" not in fragment(root).content.decode()


def test_the_fragment_of_a_resumed_run_is_the_later_ones(root: Client) -> None:
    failed = make_run(status=Run.Status.FAILED, finished_at=NOW)
    make_run("wfr_2", resumed_from=failed, status=Run.Status.RUNNING, started_at=NOW)
    assert 'run="wfr_2"' in fragment(root).content.decode()


# A store that is away


@pytest.fixture
def no_redis(settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}
    settings.DJANGO_WORKFLOW = {"realtime_store": "redis"}


def test_a_poll_of_a_store_that_is_away_is_told_to_come_again(root: Client, no_redis: None) -> None:
    answer = poll(root)
    assert (answer.status_code, answer.json()["reason"], answer["Retry-After"]) == (503, "store_unavailable", "2")


def test_the_widget_shows_the_run_while_the_store_is_away(root: Client, no_redis: None) -> None:
    make_run(status=Run.Status.SUCCESS, finished_at=NOW)
    answer = root.get(reverse("django_workflow:realtime-run", args=[CHANNEL]))
    assert answer.status_code == 200
    assert "Done" in answer.content.decode()

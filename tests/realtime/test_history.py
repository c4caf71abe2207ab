from __future__ import annotations

from typing import Any

import pytest

from django_workflow.realtime import history
from tests.realtime.helpers import position, store, store_many

pytestmark = pytest.mark.django_db


def test_an_empty_channel_has_no_positions() -> None:
    assert (history.newest("a"), history.oldest("a"), history.page_after("a", 0)) == (0, 0, [])


def test_a_page_starts_after_a_position_and_is_in_order() -> None:
    store_many(range(5, 0, -1), "a")
    store(9, "b")
    found = history.page_after("a", position(2), limit=2)
    assert [message.position for message in found] == [position(3), position(4)]


def test_pages_of_many_channels_start_each_at_its_own_position() -> None:
    store_many(range(4), "a")
    store_many(range(4), "b")
    store_many(range(4), "c")
    found = history.pages_after({"a": position(2), "b": position(0)})
    assert [(m.channel, m.position) for m in found] == [
        ("a", position(3)),
        ("b", position(1)),
        ("b", position(2)),
        ("b", position(3)),
    ]


def test_a_full_page_has_no_holes() -> None:
    store_many(range(4), "a")
    store_many(range(4), "b")
    found = history.pages_after({"a": 0, "b": 0}, limit=6)
    assert [(m.channel, m.position) for m in found] == [("a", position(n)) for n in range(4)] + [
        ("b", position(0)),
        ("b", position(1)),
    ]


def test_thousands_of_channels_are_read_in_few_statements(django_assert_num_queries: Any) -> None:
    store(1, "c-999")
    with django_assert_num_queries(5):
        (found,) = history.pages_after({f"c-{n}": 0 for n in range(1000)})
    assert found.channel == "c-999"


def test_no_channels_are_no_events() -> None:
    store(1)
    assert history.pages_after({}) == []


def test_a_gap_is_a_position_below_everything_kept() -> None:
    store_many(range(5, 8), "a")
    assert history.has_gap("a", position(2))
    assert not history.has_gap("a", position(5))
    assert not history.has_gap("a", position(9))
    assert not history.has_gap("a", 0)  # everything that is kept was asked for

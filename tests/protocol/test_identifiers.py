from __future__ import annotations

import os
import re
import threading
import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.protocol import identifiers
from django_workflow.protocol.identifiers import (
    message_id_of,
    message_key_of,
    new_event_id,
    new_message_id,
    new_run_id,
    new_schedule_id,
    prefixed_run_id,
    uuid7,
)


def test_uuid7_has_the_version_the_variant_and_the_time_of_rfc_9562() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000 + 1
    assert UUID(str(made)) == made


def test_uuid7_grows_with_every_call() -> None:
    made = [uuid7() for _ in range(10_000)]
    assert made == sorted(set(made))


def test_uuid7_grows_while_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = uuid7()
    monkeypatch.setattr(identifiers, "_time_ns", lambda: 1_000_000_000)
    later, latest = uuid7(), uuid7()
    assert now < later < latest


def test_uuid7_is_unique_and_ordered_across_threads() -> None:
    made: list[list[UUID]] = [[] for _ in range(4)]

    def make(into: list[UUID]) -> None:
        into.extend(uuid7() for _ in range(2_000))

    threads = [threading.Thread(target=make, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(into == sorted(into) for into in made)
    assert len({key for into in made for key in into}) == 8_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_shares_no_random_words_with_its_parent() -> None:
    uuid7()
    before = identifiers._clock
    identifiers._start_afresh()  # what the child runs
    assert identifiers._clock is not before
    assert identifiers._clock.words == []
    assert not identifiers._clock.lock.locked()


def test_message_ids_sort_like_their_keys() -> None:
    keys = [uuid7() for _ in range(1_000)]
    assert [message_id_of(key) for key in keys] == sorted(message_id_of(key) for key in keys)


@given(st.uuids(), st.uuids())
def test_message_ids_are_as_distinct_and_ordered_as_any_keys(one: UUID, other: UUID) -> None:
    assert (message_id_of(one) < message_id_of(other)) == (one < other)
    assert (message_id_of(one) == message_id_of(other)) == (one == other)
    assert message_key_of(message_id_of(one)) == one


@pytest.mark.parametrize(
    "text", ["", "msg_", "msg_" + "0" * 21, "msg_" + "z" * 22, "run_" + "0" * 22, "msg_" + "-" * 22]
)
def test_what_is_no_message_id_has_no_key(text: str) -> None:
    assert message_key_of(text) is None


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (new_message_id, r"msg_[A-Za-z0-9]{22}"),
        (new_schedule_id, r"scd_[A-Za-z0-9]{22}"),
        (new_run_id, r"wfr_[A-Za-z0-9_-]{21}"),  # as the official SDKs make them
        (new_event_id, r"evt_[A-Za-z0-9_-]{15}"),  # as the official SDKs make them
    ],
)
def test_each_kind_of_id_has_its_own_form(make: object, pattern: str) -> None:
    assert callable(make)
    made = {make() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(pattern, text) for text in made)


def test_prefixed_run_id_adds_the_prefix_once() -> None:
    assert prefixed_run_id("order-42") == "wfr_order-42"
    assert prefixed_run_id("wfr_order-42") == "wfr_order-42"


@pytest.mark.parametrize(
    "value",
    [
        "",  # would be the same for everybody
        "order 42",  # a blank does not survive a path
        "order/42",  # splits the path
        "a,b",  # splits a list of ids
        "a\nb",  # ends a header
        "größe",  # no header carries it safely
        "x" * 256,  # longer than a key can be
    ],
)
def test_prefixed_run_id_refuses_what_cannot_travel(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be a run id"):
        prefixed_run_id(value)

"""The stub against the captured traffic: it takes every request of the official SDKs, and delivers what they got."""

from __future__ import annotations

import pytest

from tests.hosted_stub.replay import Replay
from tests.vectors import exchanges, names

# Where the recorder did what no engine would, by file and number of the exchange.
OTHERWISE = {
    ("js/bad_protocol_version", 1): "a version that does not exist, to see it refused",
    ("js/lazy_fetch_callback", 4): "a callback without its body, which an engine always sends",
    ("js/lazy_fetch_callback_with_version", 3): "the same, with a header that callbacks must not have",
    ("js/lazy_fetch_callback_with_version_empty_payload", 3): "the same",
    ("py/call_get_text", 5): "the SDK gave a GET the body null, and the recorder left it out",
    ("py/fail_failure_function", 4): "the recorder did not wait for three retries",
    ("py/fail_no_failure_function", 4): "the same",
    ("py/run_text", 3): "application/json, though the message says text/plain",
}


@pytest.mark.parametrize("name", names())
def test_a_captured_file_replays(name: str) -> None:
    replay = Replay(name)
    replay.run()
    assert replay.stub.faults == []
    expected = {number for file, number in OTHERWISE if file == name}
    assert {number: texts for number, texts in replay.differences.items() if number not in expected} == {}
    assert replay.differences.keys() == expected


def test_every_captured_delivery_is_composed_and_compared() -> None:
    compared = 0
    for name in names():
        replay = Replay(name)
        replay.run()
        compared += replay.compared
    recorded = len(list(exchanges("engine->endpoint", "engine->third-party")))
    assert (recorded, recorded - compared) == (239, 2)  # the two failure callbacks that came before their time

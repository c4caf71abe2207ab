"""`/v2/flowControl` and `/v2/globalParallelism`: what clients send and read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from django_workflow.engine.leases import claim
from django_workflow.models import FlowKey
from django_workflow.protocol.identifiers import uuid7
from django_workflow.testing import WorkflowClock, workflow_clock
from django_workflow.testing.factories import make_delivery, make_worker
from tests.engine.http_api.conftest import Answer, Api

START = datetime(2026, 1, 1, tzinfo=UTC)
START_SECOND = 1_767_225_600

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clock() -> Iterator[WorkflowClock]:
    with workflow_clock(START) as clock:
        yield clock


def publish(api: Api, key: str = "shop", value: str = "parallelism=5, rate=10, period=1m", **headers: str) -> None:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    limits = {"Upstash-Flow-Control-Key": key, "Upstash-Flow-Control-Value": value}
    assert api.post("/v2/publish/https://shop.example/", headers={**limits, **named}).status == 200


def shown(api: Api, key: str = "shop") -> Any:
    answer = api.get(f"/v2/flowControl/{key}")
    assert answer.status == 200, answer.error
    return answer.json


def change(api: Api, what: str, key: str = "shop") -> Answer:
    return api.post(f"/v2/flowControl/{key}/{what}")


def begin(clock: WorkflowClock, number: int) -> None:
    assert len(claim("default", uuid7(), clock.now(), number * 2).leases) == number


class TestWhatIsShown:
    def test_a_key_is_there_right_after_its_first_message(self, api: Api) -> None:
        publish(api, upstash_delay="1h")
        assert shown(api) == {
            "flowControlKey": "shop",
            "waitListSize": 1,
            "parallelismMax": 5,
            "parallelismCount": 0,
            "rateMax": 10,
            "rateCount": 0,
            "ratePeriod": 60,
            "ratePeriodStart": 0,
            "isPaused": False,
            "isPinnedParallelism": False,
            "isPinnedRate": False,
        }

    def test_what_is_in_flight_and_what_waits(self, api: Api, clock: WorkflowClock) -> None:
        for _ in range(8):
            publish(api)
        begin(clock, 5)
        found = shown(api)
        assert (found["parallelismCount"], found["waitListSize"]) == (5, 3)
        assert (found["rateCount"], found["ratePeriodStart"]) == (5, START_SECOND)
        clock.advance("61s")
        assert shown(api)["rateCount"] == 0

    def test_a_limit_that_nobody_set_is_zero(self, api: Api) -> None:
        publish(api, value="rate=2")
        found = shown(api)
        assert (found["parallelismMax"], found["rateMax"], found["ratePeriod"]) == (0, 2, 1)

    def test_keys_are_listed_and_searched(self, api: Api, clock: WorkflowClock) -> None:
        for key in ("shop-2", "mail", "shop-1"):
            publish(api, key)
        begin(clock, 3)
        listed = api.get("/v2/flowControl").json
        assert [(item["flowControlKey"], item["parallelismCount"]) for item in listed] == [
            ("mail", 1),
            ("shop-1", 1),
            ("shop-2", 1),
        ]
        found = api.get("/v2/flowControl?search=op-").json
        assert [(item["flowControlKey"], item["parallelismCount"]) for item in found] == [("shop-1", 1), ("shop-2", 1)]
        assert api.get("/v2/flowControl?search=%25").json == []
        assert api.get("/v2/flowControl?like=x").status == 400

    def test_a_key_that_nobody_used_is_unknown(self, api: Api) -> None:
        answer = api.get("/v2/flowControl/nobody")
        assert (answer.status, answer.error) == (404, "There is no flow-control key 'nobody'.")

    @pytest.mark.parametrize(
        ("key", "path"),
        [
            ("user 1", "user%201"),
            ("user/1", "user/1"),
            ("user/1", "user%2F1"),
            ("50%", "50%"),
            ("ä+b:c@d", "%C3%A4+b:c@d"),
            ("a/pause", "a/pause"),
        ],
    )
    def test_keys_with_characters_that_paths_reserve(self, api: Api, key: str, path: str) -> None:
        FlowKey.objects.create(key=key)
        assert shown(api, path)["flowControlKey"] == key
        assert change(api, "pause", path).status == 200
        assert FlowKey.objects.get().paused

    def test_the_last_messages_limits_hold(self, api: Api) -> None:
        publish(api)
        publish(api, value="parallelism=1")
        found = shown(api)
        assert (found["parallelismMax"], found["rateMax"]) == (1, 0)


class TestByHand:
    def test_a_paused_key_needs_no_messages(self, api: Api) -> None:
        for _ in range(2):
            assert change(api, "pause").status == 200
            assert shown(api)["isPaused"] is True
        for _ in range(2):
            assert change(api, "resume").status == 200
            assert shown(api)["isPaused"] is False

    def test_a_paused_keys_messages_wait(self, api: Api, clock: WorkflowClock) -> None:
        change(api, "pause")
        publish(api)
        begin(clock, 0)
        assert shown(api)["waitListSize"] == 1
        change(api, "resume")
        begin(clock, 1)

    def test_pinned_limits_hold_against_messages_until_they_are_unpinned(self, api: Api) -> None:
        publish(api)
        assert change(api, "pin?parallelism=3&rate=20&period=120").status == 200
        publish(api)
        found = shown(api)
        assert (found["isPinnedParallelism"], found["isPinnedRate"]) == (True, True)
        assert (found["parallelismMax"], found["rateMax"], found["ratePeriod"]) == (3, 20, 120)
        assert change(api, "unpin?parallelism=true").status == 200
        publish(api)
        found = shown(api)
        assert (found["isPinnedParallelism"], found["isPinnedRate"]) == (False, True)
        assert (found["parallelismMax"], found["rateMax"], found["ratePeriod"]) == (5, 20, 120)
        assert change(api, "unpin?parallelism=true&rate=true").status == 200
        assert shown(api)["rateMax"] == 20
        publish(api)
        assert (shown(api)["rateMax"], shown(api)["ratePeriod"]) == (10, 60)

    @pytest.mark.parametrize("what", ["resetRate", "reset", "pin?rate=10&period=60"])
    def test_counters_are_reset(self, api: Api, clock: WorkflowClock, what: str) -> None:
        for _ in range(3):
            publish(api)
        begin(clock, 3)
        assert shown(api)["rateCount"] == 3
        assert change(api, what).status == 200
        assert shown(api)["rateCount"] == 0

    def test_a_reset_rate_begins_a_period_now(self, api: Api, clock: WorkflowClock) -> None:
        publish(api)
        clock.advance("10s")
        change(api, "resetRate")
        assert shown(api)["ratePeriodStart"] == START_SECOND + 10

    @pytest.mark.parametrize(
        ("what", "said"),
        [
            ("pin", "Say what to pin"),
            ("pin?period=60", "A period is that of a rate"),
            ("pin?parallelism=0", "parallelism must be from 1 to"),
            ("pin?parallelism=-1", "is no whole number"),
            ("pin?parallelism=many", "is no whole number"),
            ("pin?rate=0", "rate must be from 1 to"),
            ("pin?rate=99999999999", "rate must be from 1 to"),
            ("pin?rate=1&period=0", "from one second to seven days"),
            ("pin?rate=1&period=8d", "from one second to seven days"),
            ("pin?rate=1&period=soon", "period: 'soon'"),
            ("pin?speed=1", "There is no parameter 'speed'"),
            ("unpin", "Say what to unpin"),
            ("unpin?rate=false", "Say what to unpin"),
        ],
    )
    def test_bad_values_are_refused(self, api: Api, what: str, said: str) -> None:
        answer = change(api, what)
        assert answer.status == 400
        assert said in answer.error
        assert not FlowKey.objects.exists()

    def test_a_key_that_no_column_holds_is_refused(self, api: Api) -> None:
        assert change(api, "pause", "k" * 256).status == 400
        answer = api.post("/v2/publish/https://shop.example/", headers={"Upstash-Flow-Control-Key": "k" * 256})
        assert answer.status == 400

    def test_there_is_no_other_change(self, api: Api) -> None:
        assert change(api, "explode").status in (404, 405)


def test_all_workers_together(api: Api) -> None:
    assert api.get("/v2/globalParallelism").json == {"parallelismMax": 0, "parallelismCount": 0}
    worker = make_worker(concurrency=16)
    make_worker(concurrency=4)
    make_delivery(worker=worker)
    make_delivery()
    assert api.get("/v2/globalParallelism").json == {"parallelismMax": 20, "parallelismCount": 1}

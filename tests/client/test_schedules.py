"""Schedules as calls of the client: on the wire, and over the embedded engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_workflow.client.client import Client
from django_workflow.client.options import TriggerOptions
from django_workflow.client.transports import WireTransport
from django_workflow.engine.transport import EngineTransport
from django_workflow.errors import EngineError
from django_workflow.protocol.answers import decode_answer, encode_answer
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import EngineRequest
from django_workflow.protocol.schedules import (
    CreateSchedule,
    DeleteSchedule,
    FetchSchedule,
    ListSchedules,
    PauseSchedule,
    ResumeSchedule,
    ScheduleInfo,
)
from django_workflow.protocol.wire import decode_request, encode_request

URL = "https://shop.example/workflows/serve/report/?x=1"


@pytest.mark.parametrize(
    ("request_", "method", "path"),
    [
        (
            CreateSchedule(
                message=Message(destination=URL, body=b"{}", content_type="application/json", queue="slow"),
                cron="CRON_TZ=Europe/Berlin 0 3 * * *",
                schedule_id="nightly",
            ),
            "POST",
            f"/v2/schedules/{URL}",
        ),
        (CreateSchedule(message=Message(destination="a-url-group"), cron="* * * * *"), "POST", None),
        (ListSchedules(), "GET", "/v2/schedules"),
        (FetchSchedule(schedule_id="a b"), "GET", "/v2/schedules/a%20b"),
        (DeleteSchedule(schedule_id="nightly"), "DELETE", "/v2/schedules/nightly"),
        (PauseSchedule(schedule_id="nightly"), "PATCH", "/v2/schedules/nightly/pause"),
        (ResumeSchedule(schedule_id="nightly"), "PATCH", "/v2/schedules/nightly/resume"),
    ],
)
def test_a_call_comes_through_the_wire_as_it_was(request_: EngineRequest[Any], method: str, path: str | None) -> None:
    encoded = encode_request(request_)
    assert encoded.method == method
    assert path is None or encoded.path == path
    assert decode_request(encoded.method, encoded.path, encoded.headers, encoded.body) == request_


def test_the_documented_method_of_a_pause_is_understood_too() -> None:
    assert decode_request("POST", "/v2/schedules/nightly/pause", {}, b"") == PauseSchedule(schedule_id="nightly")


INFO = ScheduleInfo(
    schedule_id="nightly", cron="0 3 * * *", created_at=1, destination=URL, method="POST", retries=3, is_paused=True
)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (CreateSchedule(message=Message(destination=URL), cron="* * * * *"), "scd_1"),
        (ListSchedules(), (INFO,)),
        (FetchSchedule(schedule_id="nightly"), INFO),
        (PauseSchedule(schedule_id="nightly"), None),
    ],
)
def test_an_answer_comes_through_the_wire_as_it_was(request_: EngineRequest[Any], answer: object) -> None:
    assert decode_answer(request_, *encode_answer(request_, answer)) == answer


def test_what_the_hosted_engine_leaves_out_is_no_error() -> None:
    told = {"scheduleId": "s", "cron": "* * * * *", "createdAt": 1, "destination": "u", "method": "POST", "retries": 3}
    (info,) = decode_answer(ListSchedules(), 200, json.dumps([{**told, "body": None}]).encode())
    assert (info.schedule_id, info.is_paused, info.next_schedule_time) == ("s", False, None)


@pytest.mark.django_db
@pytest.mark.parametrize("wire", [False, True])
def test_a_schedule_is_made_found_paused_and_deleted(wire: bool) -> None:
    transport = EngineTransport()
    client = Client(WireTransport(transport) if wire else transport)
    options = TriggerOptions.of(headers={"X-Tenant": "7"}, label="nightly", retries=1)
    made = client.schedule(
        URL, "0 3 * * *", b'{"a":1}', options, timezone="Europe/Berlin", schedule_id="made-by-the-client"
    )
    assert made == "made-by-the-client"
    (info,) = client.schedules()
    assert (info.cron, info.destination, info.body, info.retries) == (
        "CRON_TZ=Europe/Berlin 0 3 * * *",
        URL,
        '{"a":1}',
        1,
    )
    assert info.header["X-Tenant"] == ["7"]
    client.pause_schedule("made-by-the-client")
    assert client.find_schedule("made-by-the-client").is_paused
    client.resume_schedule("made-by-the-client")
    assert not client.find_schedule("made-by-the-client").is_paused
    client.delete_schedule("made-by-the-client")
    with pytest.raises(EngineError) as caught:
        client.find_schedule("made-by-the-client")
    assert caught.value.status == 404


def test_a_bad_expression_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="every day"):
        Client(WireTransport(EngineTransport())).schedule(URL, "every day")


@pytest.mark.django_db(transaction=True)
async def test_the_async_twins_do_the_same() -> None:
    client = Client(EngineTransport())
    made = await client.aschedule(URL, "0 3 * * *", schedule_id="made-by-a-twin")
    assert [info.schedule_id for info in await client.aschedules()] == [made]
    await client.apause_schedule(made)
    assert (await client.afind_schedule(made)).is_paused
    await client.aresume_schedule(made)
    assert not (await client.afind_schedule(made)).is_paused
    await client.adelete_schedule(made)
    assert await client.aschedules() == ()

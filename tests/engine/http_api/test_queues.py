"""`/v2/queues`: what clients send and read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from django_workflow.models import MessageLog, Queue
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows, workflow_clock
from tests.engine.http_api.conftest import Api
from tests.engine.posting import post

START = datetime(2026, 1, 1, tzinfo=UTC)
START_MS = 1_767_225_600_000

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clock() -> Iterator[WorkflowClock]:
    with workflow_clock(START) as clock:
        yield clock


def test_a_queue_is_made_and_shown_with_all_that_clients_need(api: Api, clock: WorkflowClock) -> None:
    assert api.post("/v2/queues", {"queueName": "mail", "parallelism": 3}).status == 200
    clock.advance(2)
    assert api.post("/v2/queues", {"queueName": "mail", "parallelism": 5, "paused": True}).status == 200
    shown = {
        "name": "mail",
        "createdAt": START_MS,
        "updatedAt": START_MS + 2000,
        "parallelism": 5,
        "paused": True,
        "lag": 0,
    }
    assert api.get("/v2/queues/mail").json == shown
    post(queue="another")
    assert [queue["name"] for queue in api.get("/v2/queues").json] == ["another", "mail"]
    assert [queue["lag"] for queue in api.get("/v2/queues").json] == [1, 0]


def test_what_a_change_leaves_out_stays(api: Api) -> None:
    api.post("/v2/queues", {"queueName": "mail", "parallelism": 3, "paused": True})
    api.post("/v2/queues", {"queueName": "mail", "paused": False})
    assert (Queue.objects.get().parallelism, Queue.objects.get().paused) == (3, False)


def test_pause_and_resume_may_be_repeated(api: Api) -> None:
    post(queue="mail")
    with mock_calls(CallAnswer()) as network:
        for _ in range(2):
            assert api.post("/v2/queues/mail/pause").status == 200
            assert api.get("/v2/queues/mail").json["paused"] is True
        assert run_workflows() == 0
        for _ in range(2):
            assert api.post("/v2/queues/mail/resume").status == 200
        run_workflows()
    assert len(network.calls) == 1


def test_enqueue_makes_the_queue_and_answers_like_publish(api: Api) -> None:
    answer = api.post("/v2/enqueue/mail/https://hooks.example/in?x=1&qstash_token=none", b"hello")
    assert answer.status == 200
    log = MessageLog.objects.get()
    assert (answer.json, log.url, log.queue) == ({"messageId": log.message_id}, "https://hooks.example/in?x=1", "mail")
    assert api.get("/v2/queues/mail").json["parallelism"] == 1


def test_a_schedule_into_a_queue_leaves_its_parallelism(api: Api, clock: WorkflowClock) -> None:
    api.post("/v2/queues", {"queueName": "mail", "parallelism": 7})
    headers = {"Upstash-Cron": "* * * * *", "Upstash-Queue-Name": "mail"}
    assert api.post("/v2/schedules/https://hooks.example/in", b"tick", headers=headers).status == 200
    clock.advance(61)
    with mock_calls(CallAnswer()) as network:
        run_workflows()
    assert len(network.calls) == 1
    assert MessageLog.objects.get().queue == "mail"
    assert api.get("/v2/queues/mail").json["parallelism"] == 7


def test_a_deleted_queue_is_gone_with_what_waited(api: Api) -> None:
    log = post(queue="mail")
    assert api.delete("/v2/queues/mail").status == 200
    assert api.get("/v2/queues/mail").status == 404
    assert api.get(f"/v2/messages/{log.message_id}").status == 404
    assert api.delete("/v2/queues/mail").status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"queueName": "a b"}, 400),
        ({"queueName": ""}, 400),
        ({}, 400),
        ({"queueName": "mail", "parallelism": 0}, 400),
        ({"queueName": "mail", "parallelism": "2"}, 400),
        ({"queueName": "mail", "parallelism": 10_001}, 412),
    ],
)
def test_bad_settings_are_refused(api: Api, body: object, status: int) -> None:
    answer = api.post("/v2/queues", body)
    assert answer.status == status
    assert answer.error
    assert not Queue.objects.exists()


def test_bad_names_are_400_and_unknown_ones_404(api: Api) -> None:
    assert api.get("/v2/queues/none").status == 404
    assert api.get("/v2/queues/a%20b").status == 400
    assert api.post("/v2/queues/a%20b/pause").status == 400
    assert api.post("/v2/enqueue/a%20b/https://hooks.example/").status == 400

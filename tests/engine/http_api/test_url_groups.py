"""`/v2/topics`: what clients send and read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from django_workflow.models import MessageLog, Schedule, UrlGroup
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows, workflow_clock
from tests.engine.http_api.conftest import Api

START = datetime(2026, 1, 1, tzinfo=UTC)
START_MS = 1_767_225_600_000
A, B = {"url": "https://a.example/", "name": "a"}, {"url": "https://b.example/?x=1,2"}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clock() -> Iterator[WorkflowClock]:
    with workflow_clock(START) as clock:
        yield clock


@pytest.fixture
def group(api: Api) -> None:
    assert api.post("/v2/topics/news/endpoints", {"endpoints": [A, B]}).status == 200


@pytest.mark.usefixtures("group")
def test_a_group_is_shown_with_its_endpoints(api: Api) -> None:
    shown = {"name": "news", "createdAt": START_MS, "updatedAt": START_MS, "endpoints": [A, B]}
    assert api.get("/v2/topics/news").json == shown
    assert api.get("/v2/topics").json == [shown]
    assert api.get("/v2/topics/none").status == 404


@pytest.mark.usefixtures("group")
def test_endpoints_are_changed_and_removed_by_name_or_url(api: Api) -> None:
    api.post("/v2/topics/news/endpoints", {"endpoints": [{"name": "a", "url": "https://new.example/"}]})
    assert api.get("/v2/topics/news").json["endpoints"] == [{"name": "a", "url": "https://new.example/"}, B]
    assert api.delete("/v2/topics/news/endpoints", {"endpoints": [{"name": "a", "url": None}]}).status == 200
    assert api.get("/v2/topics/news").json["endpoints"] == [B]
    assert api.delete("/v2/topics/news/endpoints", {"endpoints": [B]}).status == 200
    assert api.get("/v2/topics/news").status == 404


@pytest.mark.usefixtures("group")
def test_deleting_a_group_may_be_repeated(api: Api) -> None:
    for _ in range(2):
        assert api.delete("/v2/topics/news").status == 200
    assert not UrlGroup.objects.exists()


@pytest.mark.usefixtures("group")
def test_publishing_answers_an_item_for_each_endpoint(api: Api) -> None:
    for target in ("/v2/publish/news", "/v2/enqueue/mail/news"):
        answer = api.post(target, b"hello")
        assert answer.status == 200
        assert [item["url"] for item in answer.json] == [A["url"], B["url"]]
    batch = [{"destination": "news", "body": "x"}, {"destination": "https://c.example/", "queue": None}]
    answer = api.post("/v2/batch", batch)
    assert [type(item) for item in answer.json] == [list, dict]
    assert api.post("/v2/publish/none").status == 404
    assert api.post("/v2/batch", [{"destination": "https://c.example/"}, {"destination": "none"}]).status == 404
    assert MessageLog.objects.count() == 7  # of the refused batch nothing was taken


@pytest.mark.usefixtures("group")
def test_a_schedule_publishes_to_all_of_a_group(api: Api, clock: WorkflowClock) -> None:
    headers = {"Upstash-Cron": "* * * * *", "Upstash-Schedule-Id": "s"}
    assert api.post("/v2/schedules/news", b"tick", headers=headers).status == 200
    clock.advance(61)
    with mock_calls(CallAnswer()) as network:
        run_workflows()
    assert Schedule.objects.get().error == ""
    assert sorted(call.url for call in network.calls) == [A["url"], B["url"]]
    assert {call.headers["Upstash-Schedule-Id"] for call in network.calls} == {"s"}


@pytest.mark.usefixtures("group")
def test_default_headers_may_be_texts_or_lists(api: Api) -> None:
    headers = {"Upstash-Retries": "7", "Upstash-Header-Forward": ["true"], "Upstash-Label": ["a", "b"]}
    assert api("PATCH", "/v2/topics/news", {"headers": headers}).status == 200
    shown = api.get("/v2/topics/news").json["headers"]
    assert shown == {"Upstash-Retries": "7", "Upstash-Header-Forward": "true", "Upstash-Label": "a, b"}
    api.post("/v2/publish/news", b"{}", headers={"X-Event": "push"})
    with mock_calls(CallAnswer()) as network:
        run_workflows()
    assert [call.headers["X-Event"] for call in network.calls] == ["push", "push"]
    assert not any("authorization" in map(str.lower, call.headers) for call in network.calls)
    log = MessageLog.objects.first()
    assert log is not None
    assert (log.max_retries, log.labels) == (7, ",a,b,")


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("POST", "/v2/topics/a%20b/endpoints", {"endpoints": [A]}, 400),
        ("POST", "/v2/topics/news/endpoints", {"endpoints": []}, 400),
        ("POST", "/v2/topics/news/endpoints", {"endpoints": [{"name": "a"}]}, 400),
        ("POST", "/v2/topics/news/endpoints", {"endpoints": [{"url": "a.example"}]}, 400),
        ("DELETE", "/v2/topics/news/endpoints", {"endpoints": [{}]}, 400),
        ("PATCH", "/v2/topics/none", {"headers": {}}, 404),
        ("PATCH", "/v2/topics/news", {"headers": {"Upstash-Retries": "x"}}, 400),
        ("PATCH", "/v2/topics/news", {"headers": {"Upstash-Retries": 3}}, 400),
    ],
)
@pytest.mark.usefixtures("group")
def test_what_makes_no_sense_is_refused(api: Api, method: str, target: str, body: object, status: int) -> None:
    answer = api(method, target, body)
    assert answer.status == status
    assert answer.error

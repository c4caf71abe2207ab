"""URL groups: who is in them, what their messages default to, and how a message becomes several."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from django_workflow.engine import url_groups
from django_workflow.engine.publishing import accept_all
from django_workflow.engine.url_groups import Endpoint
from django_workflow.engine.writing import write
from django_workflow.errors import EngineError, MessageInvalid, QuotaExceeded
from django_workflow.models import MessageLog, UrlGroup
from django_workflow.protocol.publish import Message
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows
from tests.engine.posting import ALIAS, DOWN, publish
from tests.engine.threads import at_once

pytestmark = pytest.mark.django_db
A, B, C = (Endpoint(f"https://{name}.example/", name) for name in "abc")


@pytest.fixture
def clock(workflow_clock: WorkflowClock) -> WorkflowClock:
    return workflow_clock


def change(what: Callable[..., object], *args: object) -> None:
    write(ALIAS, lambda unit: what(unit, *args))


def add(*endpoints: Endpoint, name: str = "news") -> None:
    change(url_groups.add_endpoints, name, endpoints)


def members(name: str = "news") -> list[Endpoint]:
    return list(url_groups.find_group(ALIAS, name).endpoints)


class TestEndpoints:
    def test_are_added_in_their_order_to_a_group_that_is_made_for_them(self, clock: WorkflowClock) -> None:
        add(A, B)
        clock.advance(5)
        add(C)
        assert members() == [A, B, C]
        row = UrlGroup.objects.get()
        assert (row.updated_at - row.created_at).total_seconds() == 5

    @pytest.mark.parametrize(
        ("new", "left"),
        [
            (Endpoint("https://new.example/", "b"), [A, Endpoint("https://new.example/", "b"), C]),
            (Endpoint("https://b.example/", "new"), [A, Endpoint("https://b.example/", "new"), C]),
            (Endpoint("https://b.example/"), [A, B, C]),  # says nothing of the name, which stays
            (Endpoint("https://a.example/", "c"), [Endpoint("https://a.example/", "c"), B]),  # was two of them
            (Endpoint("https://d.example/"), [A, B, C, Endpoint("https://d.example/")]),
        ],
    )
    def test_of_a_known_name_or_url_are_replaced_where_they_stand(
        self, clock: WorkflowClock, new: Endpoint, left: list[Endpoint]
    ) -> None:
        add(A, B, C)
        add(new)
        assert members() == left

    def test_are_removed_by_url_or_by_name_and_the_group_with_the_last_one(self, clock: WorkflowClock) -> None:
        add(A, B, C)
        change(url_groups.remove_endpoints, "news", [(A.url, None), (None, "b"), (None, "unknown")])
        assert members() == [C]
        change(url_groups.remove_endpoints, "news", [(C.url, "other name")])
        assert members() == [C]
        change(url_groups.remove_endpoints, "news", [(C.url, "c")])
        assert not UrlGroup.objects.exists()
        change(url_groups.remove_endpoints, "news", [(C.url, None)])

    @pytest.mark.parametrize(
        "bad",
        [
            Endpoint("ftp://a.example/"),
            Endpoint("https://"),
            Endpoint("https://workflow.internal/admin/"),
            Endpoint("https://a.example/", "a name"),
            Endpoint("https://a.example/", "n" * 256),
        ],
    )
    def test_that_nothing_can_be_delivered_to_are_refused(self, bad: Endpoint) -> None:
        with pytest.raises(MessageInvalid):
            add(A, bad)
        assert not UrlGroup.objects.exists()

    def test_need_a_name_or_url_to_be_removed(self) -> None:
        for wanted in ([], [(None, None)]):
            with pytest.raises(MessageInvalid, match="by its url or by its name"):
                change(url_groups.remove_endpoints, "news", wanted)

    def test_and_groups_have_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("django_workflow.engine.limits.MOST_ENDPOINTS", 2)
        monkeypatch.setattr("django_workflow.engine.limits.MOST_URL_GROUPS", 1)
        add(A, B)
        with pytest.raises(QuotaExceeded, match="3 endpoints"):
            add(C)
        with pytest.raises(QuotaExceeded, match="the most"):
            add(A, name="other")
        for name in ("", "a b", "https://a.example/", "n" * 256):
            with pytest.raises(MessageInvalid, match="URL group's name"):
                add(A, name=name)

    @pytest.mark.django_db(transaction=True)
    def test_that_are_added_at_the_same_time_all_get_in(self) -> None:
        def work(number: int) -> None:
            for turn in range(5):
                add(Endpoint(f"https://{number}.example/{turn}"))

        at_once(*(partial(work, number) for number in range(4)))
        assert len(members()) == 20


class TestPublishing:
    def test_each_endpoint_gets_a_message_of_its_own(self, clock: WorkflowClock) -> None:
        add(A, Endpoint("https://b.example/in?x=1"))
        first, second = publish("news", "hello", forward_x_trace="7")
        assert (first.url, second.url) == ("https://a.example/", "https://b.example/in?x=1")
        assert first.message_id != second.message_id
        with mock_calls(lambda call: DOWN if call.url == A.url else CallAnswer()) as network:
            run_workflows()
        assert [call.body for call in network.calls] == [b"hello", b"hello"]
        assert {call.headers["Upstash-Topic-Name"] for call in network.calls} == {"news"}
        assert all(call.headers["X-Trace"] == "7" for call in network.calls)
        logs = {log.url: log for log in MessageLog.objects.all()}
        assert {(log.topic, log.endpoint) for log in logs.values()} == {("news", "a"), ("news", "")}
        assert logs[A.url].state == MessageLog.State.RETRY  # one's failure is nobody else's
        assert logs["https://b.example/in?x=1"].state == MessageLog.State.DELIVERED

    def test_callbacks_say_through_which_group_and_endpoint(self, clock: WorkflowClock) -> None:
        add(A)
        publish("news", callback="https://told.example/")
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        body = network.calls[1].json
        assert (body["topicName"], body["endpointName"]) == ("news", "a")

    def test_a_batch_and_a_queue_take_groups_too(self, clock: WorkflowClock) -> None:
        add(A, B)
        batch = [Message(destination="news"), Message(destination="https://c.example/"), Message(destination="news")]
        answers = write(ALIAS, lambda unit: accept_all(unit, batch))
        assert [len(answer) if isinstance(answer, tuple) else 1 for answer in answers] == [2, 1, 2]
        queued = publish("news", queue="mail")
        assert MessageLog.objects.filter(queue="mail").count() == len(queued) == 2
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        assert len(network.calls) == 7

    def test_a_duplicate_is_one_for_each_endpoint(self, clock: WorkflowClock) -> None:
        add(A)
        (first,) = publish("news", "x", content_based_deduplication="true")
        add(B)
        again, new = publish("news", "x", content_based_deduplication="true")
        assert (again.message_id, again.deduplicated, again.url) == (first.message_id, True, A.url)
        assert not new.deduplicated
        add(A, name="others")
        assert not publish("others", "x", content_based_deduplication="true")[0].deduplicated
        assert [answer.deduplicated for answer in publish("news", "x", deduplication_id="1")] == [False, False]
        assert [answer.deduplicated for answer in publish("news", "y", deduplication_id="1")] == [True, True]

    def test_a_group_that_is_gone_takes_no_more(self, clock: WorkflowClock) -> None:
        add(A)
        publish("news")
        change(url_groups.delete, "news")
        with pytest.raises(EngineError, match="no URL group"):
            publish("news")
        with mock_calls(CallAnswer()) as network:  # what was taken is delivered
            run_workflows()
        assert len(network.calls) == 1


class TestDefaults:
    def test_hold_where_the_message_says_nothing(self, clock: WorkflowClock) -> None:
        add(A)
        headers = {
            "Upstash-Retries": "7",
            "Upstash-Method": "PUT",
            "upstash-label": "group",
            "Content-Type": "a/b",
        }
        change(url_groups.set_headers, "news", headers)
        publish("news")
        publish("news", retries="1", method="PATCH", label="own", headers={"Content-Type": "text/html"})
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        first, second = MessageLog.objects.order_by("pk")
        assert (first.max_retries, first.method, first.labels) == (7, "PUT", ",group,")
        assert (second.max_retries, second.method, second.labels) == (1, "PATCH", ",own,")
        types = {call.method: call.headers["Content-Type"] for call in network.calls}
        assert types == {"PUT": "a/b", "PATCH": "text/html"}

    def test_replace_those_before(self, clock: WorkflowClock) -> None:
        add(A)
        change(url_groups.set_headers, "news", {"Upstash-Retries": "7"})
        change(url_groups.set_headers, "news", {"Upstash-Timeout": "5s"})
        assert url_groups.find_group(ALIAS, "news").headers == {"Upstash-Timeout": "5s"}

    @pytest.mark.parametrize(
        "headers", [{"Upstash-Retries": "many"}, {"Upstash-Delay": "soon"}, {"X Y": "1"}, {"X-Y": "1\r\nZ: 2"}]
    )
    def test_that_cannot_be_read_are_refused(self, clock: WorkflowClock, headers: dict[str, str]) -> None:
        add(A)
        with pytest.raises(MessageInvalid):
            change(url_groups.set_headers, "news", headers)

    def test_need_a_group(self) -> None:
        with pytest.raises(EngineError, match="no URL group"):
            change(url_groups.set_headers, "news", {})

    def test_may_pass_on_every_header_of_the_publishing_request(self, clock: WorkflowClock) -> None:
        add(A)
        incoming = {"X-Event": "push", "Authorization": "Bearer engine", "Upstash-Retries": "1", "X-Own": "lost"}
        message = Message(destination="news", headers={"X-Own": "1"})
        assert url_groups.with_incoming(ALIAS, message, incoming) == message
        change(url_groups.set_headers, "news", {"Upstash-Header-Forward": "true"})
        assert url_groups.with_incoming(ALIAS, message, incoming).headers == {"X-Event": "push", "X-Own": "1"}
        assert url_groups.with_incoming(ALIAS, Message(destination="none"), incoming).headers == {}

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.errors import (
    EngineError,
    EngineUnavailable,
    InvocationInvalid,
    MessageInvalid,
    QuotaExceeded,
    RequestUnknown,
    RunEnded,
    WorkflowError,
)
from django_workflow.protocol.answers import decode_answer, encode_answer, encode_error
from django_workflow.protocol.publish import Message, WorkflowFields
from django_workflow.protocol.requests import (
    Batch,
    CancelRun,
    CancelRuns,
    EngineRequest,
    FetchRun,
    FinishRun,
    GetWaiters,
    Notified,
    Notify,
    Publish,
    Published,
    Wait,
    WaiterInfo,
)
from django_workflow.protocol.steps import JournalMessage, Step
from tests.protocol.strategies import counts, header_values, json_text, tokens, urls

STEP = Step(step_id=1, step_name="one", step_type="Wait", concurrent=1)
IN_RUN = Message(destination="https://h/", workflow=WorkflowFields(run_id="wfr_1", url="https://h/"))
NEW_RUN = Message(destination="https://h/", workflow=WorkflowFields(run_id="wfr_1", url="https://h/", init=True))
PLAIN = Message(destination="https://h/")

published = st.builds(
    Published,
    message_id=tokens,
    url=st.none() | urls,
    deduplicated=st.booleans(),
    workflow_run_id=st.none() | tokens,
    workflow_created_at=st.none() | counts,
)
header_lists = st.dictionaries(tokens, st.lists(header_values, min_size=1, max_size=2), max_size=2)
waiters = st.builds(
    WaiterInfo,
    url=urls,
    deadline=counts,
    headers=header_lists,
    timeout_url=st.none() | urls,
    timeout_body=st.none() | json_text,
    timeout_headers=header_lists,
)
notified = st.builds(
    Notified, message_id=tokens, waiter=st.none() | waiters, error=json_text, deduplicated=st.booleans()
)
answers: st.SearchStrategy[tuple[EngineRequest[Any], Any]] = st.one_of(
    st.tuples(st.just(Publish(message=PLAIN)), published),
    st.lists(published, max_size=3).map(lambda items: (Batch(messages=(PLAIN,) * len(items)), tuple(items))),
    st.tuples(st.just(Notify(event_id="e")), st.lists(notified, max_size=2).map(tuple)),
    st.tuples(st.just(GetWaiters(event_id="e")), st.lists(waiters, max_size=2).map(tuple)),
    st.tuples(st.just(CancelRuns()), counts),
    st.tuples(
        st.sampled_from(
            [FinishRun(run_id="r"), CancelRun(run_id="r"), Wait(event_id="e", message=IN_RUN, step=STEP, timeout=1)]
        ),
        st.none(),
    ),
)


@given(answers)
def test_every_answer_round_trips(pair: tuple[EngineRequest[Any], Any]) -> None:
    request, answer = pair
    assert decode_answer(request, *encode_answer(request, answer)) == answer


def ids_of(fetched: tuple[JournalMessage, ...]) -> list[str]:
    return [message.message_id for message in fetched]


@pytest.mark.parametrize(
    ("message_id", "kept"),
    [
        (None, ["m1", "m2", "m3"]),
        ("m2", ["m1", "m2"]),  # a prefix that ends with the delivered message
        ("m3", ["m1", "m2", "m3"]),
        ("m4", []),  # not there yet
    ],
)
def test_a_fetched_run_ends_with_the_delivered_message(message_id: str | None, kept: list[str]) -> None:
    journal = tuple(JournalMessage(name, "{}") for name in ("m1", "m2", "m3"))
    request = FetchRun(run_id="wfr_1", message_id=message_id)
    assert ids_of(decode_answer(request, *encode_answer(request, journal))) == kept


def test_a_list_of_one_is_used_as_it_is() -> None:
    # When a run was started by REST, the payload's message has another id than the delivery.
    request = FetchRun(run_id="wfr_1", message_id="other")
    assert ids_of(decode_answer(request, *encode_answer(request, (JournalMessage("m1", ""),)))) == ["m1"]


def test_a_deduplicated_message_is_answered_with_its_own_status() -> None:
    assert encode_answer(Publish(message=PLAIN), Published(message_id="m", deduplicated=True)) == (
        202,
        b'{"messageId":"m","deduplicated":true}',
    )


@pytest.mark.parametrize(
    ("request_", "body", "expected"),
    [
        (
            Publish(message=PLAIN),
            b'[{"messageId":"a","url":"u"},{"messageId":"b"}]',
            Published(message_id="a", url="u"),
        ),
        (Batch(messages=(PLAIN,)), b'{"messageId":"a"}', (Published(message_id="a"),)),  # a bare object
        (Batch(messages=(PLAIN,)), b'[[{"messageId":"a"},{"messageId":"b"}]]', (Published(message_id="a"),)),  # a group
        (Notify(event_id="e", run_id="r"), b'{"messageId":"a","waiter":null}', (Notified(message_id="a"),)),
        (FinishRun(run_id="r"), b"", None),  # the body is ignored
        (Wait(event_id="e", message=IN_RUN, step=STEP, timeout=1), b"not JSON", None),
    ],
)
def test_answers_are_read_in_every_documented_form(request_: EngineRequest[Any], body: bytes, expected: object) -> None:
    assert decode_answer(request_, 201, body) == expected


@pytest.mark.parametrize(
    ("request_", "status", "kind"),
    [
        (Publish(message=IN_RUN), 400, RunEnded),
        (Batch(messages=(IN_RUN,)), 400, RunEnded),
        (Wait(event_id="e", message=IN_RUN, step=STEP, timeout=1), 400, RunEnded),
        (FinishRun(run_id="wfr_1"), 400, RunEnded),
        (CancelRun(run_id="wfr_1"), 404, RunEnded),
        (FetchRun(run_id="wfr_1"), 404, RunEnded),
        (Notify(event_id="e", run_id="wfr_1"), 404, RunEnded),
        (FetchRun(run_id="wfr_1"), 400, EngineError),
        (Publish(message=PLAIN), 400, EngineError),  # a bad header, and no run that could have ended
        (Batch(messages=(NEW_RUN,)), 400, EngineError),  # a trigger that was refused
        (GetWaiters(event_id="e"), 404, EngineError),
        (Notify(event_id="e"), 404, EngineError),
        (Publish(message=IN_RUN), 412, QuotaExceeded),
        (Batch(messages=(NEW_RUN,)), 412, QuotaExceeded),
        (Publish(message=IN_RUN), 500, EngineError),
        (Publish(message=IN_RUN), 429, EngineError),
        (Publish(message=IN_RUN), 302, EngineError),
    ],
)
def test_a_refusal_is_the_error_that_its_status_means(
    request_: EngineRequest[Any], status: int, kind: type[EngineError]
) -> None:
    with pytest.raises(EngineError, match="told why") as caught:
        decode_answer(request_, status, b'{"error":"told why"}')
    assert type(caught.value) is kind
    assert caught.value.status == status
    if isinstance(caught.value, RunEnded):
        assert caught.value.run_id == "wfr_1"


@pytest.mark.parametrize("body", [b"plain text", b'{"error":{"deep":1}} plain text', b"\xff plain text"])
def test_a_refusal_without_json_keeps_its_text(body: bytes) -> None:
    with pytest.raises(EngineError, match=r"status 500: .*plain text"):
        decode_answer(GetWaiters(event_id="e"), 500, body)


def test_a_refusal_without_a_body_says_its_status() -> None:
    with pytest.raises(EngineError, match=r"refused GetWaiters with status 503\.$"):
        decode_answer(GetWaiters(event_id="e"), 503, b"")
    with pytest.raises(RunEnded, match="Run wfr_1 is over or unknown"):
        decode_answer(FetchRun(run_id="wfr_1"), 404, b"")


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (Publish(message=PLAIN), b"<html>"),
        (Publish(message=PLAIN), b"[]"),
        (Batch(messages=(PLAIN, PLAIN)), b'[{"messageId":"a"}]'),  # one answer for two messages
        (GetWaiters(event_id="e"), b"{}"),
        (FetchRun(run_id="r"), b"{}"),
        (CancelRuns(), b"{}"),
        (CancelRuns(), b"\xff"),
    ],
)
def test_an_answer_that_cannot_be_read_is_an_engine_error(request_: EngineRequest[Any], body: bytes) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        decode_answer(request_, 200, body)


@pytest.mark.parametrize(
    ("error", "request_", "status"),
    [
        (RunEnded("over"), Publish(message=IN_RUN), 400),
        (RunEnded("over"), FetchRun(run_id="r"), 404),
        (RunEnded("over", status=404), None, 404),
        (QuotaExceeded("over"), None, 412),
        (EngineUnavailable("over"), None, 503),
        (EngineError("over"), None, 500),
        (EngineError("over", status=429), None, 429),
        (MessageInvalid("over"), None, 400),
        (RequestUnknown("over"), None, 404),
        (InvocationInvalid("over"), None, 500),
        (WorkflowError("over"), None, 500),
    ],
)
def test_errors_travel_as_status_and_text(
    error: WorkflowError, request_: EngineRequest[Any] | None, status: int
) -> None:
    assert encode_error(error, request_) == (status, b'{"error":"over"}')

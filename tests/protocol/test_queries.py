"""Logs and dead letters as calls: paths, parameters, bodies of older clients, override headers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.errors import MessageInvalid, RequestUnknown
from django_workflow.protocol.publish import FlowControl
from django_workflow.protocol.requests import (
    CancelFailureCallback,
    DeleteDeadLetters,
    EngineRequest,
    FetchDeadLetter,
    FetchDeadLetters,
    FetchRunEvents,
    FetchRunLogs,
    RerunFailureCallback,
    RestartRuns,
    ResumeRuns,
    RunOverrides,
)
from django_workflow.protocol.wire import decode_request, encode_request
from tests.protocol.strategies import counts, tokens, urls

ids = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=33), min_size=1, max_size=12).map(
    lambda text: text.replace("/", "-")
)
words = st.lists(tokens.map(lambda text: text.replace(",", ".")), max_size=2).map(tuple)
places = st.lists(urls.map(lambda url: url.strip()), max_size=2).map(tuple)
chosen: dict[str, Any] = {
    "run_ids": words,
    "workflow_urls": places,
    "created_at": st.none() | counts,
    "labels": words,
    "caller_ips": words,
    "flow_control_keys": words,
    "from_date": st.none() | counts,
    "to_date": st.none() | counts,
    "count": st.none() | counts,
    "cursor": st.none() | tokens,
}
logs: dict[str, Any] = {
    **chosen,
    "states": words,
    "message_ids": words,
    "hosts": words,
    "paths": st.sampled_from([(), ("/a",), ("/a,b", "/c")]),
    "runs": st.lists(st.tuples(words.map(lambda texts: "@".join(("wfr", *texts))), counts), max_size=2).map(tuple),
    "trim_body": st.none() | counts | st.just(-1),
}
letters: dict[str, Any] = {**chosen, "failure_states": words, "response_status": st.none() | counts}
overrides = st.builds(
    RunOverrides,
    retries=st.none() | counts,
    delay=st.none() | counts.map(float),
    retry_delay=st.sampled_from([None, "1000 * (1 + retried)"]),
    flow_control=st.none() | st.builds(FlowControl, key=tokens, parallelism=st.none() | st.integers(1, 9)),
    labels=st.sampled_from([(), ("one",), ("one", "two")]),
    failure_url=st.none() | st.just("https://h/failed"),
)
actions = {**letters, "dlq_ids": words}
requests: st.SearchStrategy[EngineRequest[Any]] = st.one_of(
    st.builds(FetchRunLogs, **logs),
    st.builds(FetchRunEvents, **logs),
    st.builds(FetchDeadLetters, **letters),
    st.builds(FetchDeadLetter, dlq_id=ids),
    st.builds(DeleteDeadLetters, **actions),
    st.builds(ResumeRuns, overrides=overrides, **actions),
    st.builds(RestartRuns, overrides=overrides, **actions),
    st.builds(RerunFailureCallback, dlq_id=ids),
    st.builds(CancelFailureCallback, dlq_id=ids),
)


def decoded(method: str, path: str, body: bytes = b"", **headers: str) -> EngineRequest[Any]:
    return decode_request(method, path, {name.replace("_", "-"): value for name, value in headers.items()}, body)


@given(requests)
def test_every_request_round_trips(request: EngineRequest[Any]) -> None:
    encoded = encode_request(request)
    assert decode_request(encoded.method, encoded.path, encoded.headers, encoded.body) == request


@pytest.mark.parametrize(
    ("request_", "method", "path"),
    [
        (FetchRunLogs(), "GET", "/v2/workflows/events?groupBy=workflowRunId"),
        (FetchRunEvents(), "GET", "/v2/workflows/events"),
        (FetchRunEvents(runs=(("a", 1), ("b", 2))), "GET", "/v2/workflows/events?workflowRuns=a%401%2Cb%402"),
        (FetchDeadLetters(), "GET", "/v2/dlq?source=workflow"),
        (FetchDeadLetter(dlq_id="a/b"), "GET", "/v2/workflows/dlq/a%2Fb"),
        (DeleteDeadLetters(dlq_ids=("a", "b")), "DELETE", "/v2/workflows/dlq?dlqIds=a&dlqIds=b"),
        (ResumeRuns(count=5), "POST", "/v2/workflows/dlq/resume?count=5"),
        (RestartRuns(), "POST", "/v2/workflows/dlq/restart"),
        (RerunFailureCallback(dlq_id="a"), "POST", "/v2/workflows/dlq/callback/a"),
        (CancelFailureCallback(dlq_id="a"), "DELETE", "/v2/workflows/dlq/callback/a"),
    ],
)
def test_paths_are_those_of_the_documented_api(request_: EngineRequest[Any], method: str, path: str) -> None:
    encoded = encode_request(request_)
    assert (encoded.method, encoded.path) == (method, path)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v2/workflows/logs?groupBy=workflowRunId&qstash_token=t", FetchRunLogs()),  # the documented name
        ("GET", "/v2/workflows/logs?callerIP=1.1.1.1,2.2.2.2", FetchRunEvents(caller_ips=("1.1.1.1", "2.2.2.2"))),
        ("GET", "/v2/workflows/logs?workflowUrl=https://h/a,b", FetchRunEvents(workflow_urls=("https://h/a,b",))),
        (
            "GET",
            "/v2/workflows/logs?workflowUrl=https://h/a,http://h/b",
            FetchRunEvents(workflow_urls=("https://h/a", "http://h/b")),
        ),
        ("GET", "/v2/workflows/logs?cursor=", FetchRunEvents()),  # what hosted engines say on the last page
        ("GET", "/v2/workflows/dlq?label=a&label=b", FetchDeadLetters(labels=("a", "b"))),
        ("GET", "/v2/dlq?source=workflow&url=https://h/", FetchDeadLetters(workflow_urls=("https://h/",))),
        ("GET", "/v2/workflows/dlq?failureCallbackState=X", FetchDeadLetters(failure_states=("X",))),
        ("DELETE", "/v2/workflows/dlq/a", DeleteDeadLetters(dlq_ids=("a",))),
        ("POST", "/v2/workflows/dlq/resume/a", ResumeRuns(dlq_ids=("a",))),
        ("POST", "/v2/workflows/dlq/restart/a", RestartRuns(dlq_ids=("a",))),
    ],
)
def test_other_spellings_are_read_too(method: str, path: str, expected: EngineRequest[Any]) -> None:
    assert decoded(method, path) == expected


def test_ids_and_filters_may_come_as_json() -> None:
    body = json.dumps({"dlqIds": ["a", "b"], "label": "l"}).encode()
    assert decoded("POST", "/v2/workflows/dlq/resume", body) == ResumeRuns(dlq_ids=("a", "b"), labels=("l",))


def test_overrides_are_headers() -> None:
    request = decoded(
        "POST",
        "/v2/workflows/dlq/restart/a",
        upstash_retries="2",
        UPSTASH_DELAY="1m",
        Upstash_Flow_Control_Key="k",
        Upstash_Flow_Control_Value="parallelism=1",
        Upstash_Label="l",
        Upstash_Failure_Callback="https://h/failed",
        Upstash_Workflow_RunId="wfr_other",  # nothing that may be changed
    )
    assert request == RestartRuns(
        dlq_ids=("a",),
        overrides=RunOverrides(
            retries=2,
            delay=60,
            flow_control=FlowControl(key="k", parallelism=1),
            labels=("l",),
            failure_url="https://h/failed",
        ),
    )


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("GET", "/v2/workflows/logs?groupBy=label", "grouped by workflowRunId"),
        ("GET", "/v2/workflows/logs?colour=red", "no parameter 'colour' here; known are workflowRunId, workflowUrl"),
        ("GET", "/v2/workflows/logs?count=many", "count: 'many' is no whole number"),
        ("GET", "/v2/workflows/logs?count=1&count=2", "may be given once"),
        ("GET", "/v2/workflows/logs?workflowRuns=a", "no <run id>@<its creation"),
        ("DELETE", "/v2/workflows/dlq?dlqIds=", "names nothing"),  # nobody means all by that
        ("DELETE", "/v2/workflows/dlq?label=,", "names nothing"),
        ("POST", "/v2/workflows/dlq/resume?host=h", "no parameter 'host'"),
    ],
)
def test_a_filter_that_cannot_be_kept_is_refused(method: str, path: str, reason: str) -> None:
    with pytest.raises(MessageInvalid, match=reason):
        decoded(method, path)


def test_an_empty_list_of_ids_means_nothing_and_is_refused() -> None:
    with pytest.raises(MessageInvalid, match="dlqIds"):
        decoded("DELETE", "/v2/workflows/dlq", b'{"dlqIds":[]}')


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/dlq"),  # dead letters of messages
        ("GET", "/v2/dlq?source=message"),
        ("POST", "/v2/workflows/dlq"),
        ("GET", "/v2/workflows/dlq/"),
        ("GET", "/v2/workflows/dlq/a/b"),
        ("PUT", "/v2/workflows/dlq/a"),
        ("DELETE", "/v2/workflows/dlq/resume/a"),
        ("POST", "/v2/workflows/dlq/callback"),
        ("POST", "/v2/workflows/events"),
    ],
)
def test_other_calls_are_unknown(method: str, path: str) -> None:
    with pytest.raises(RequestUnknown):
        decoded(method, path)

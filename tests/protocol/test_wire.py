from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.errors import (
    MessageInvalid,
    RequestUnknown,
)
from django_workflow.protocol.publish import Message, WorkflowFields
from django_workflow.protocol.requests import (
    Batch,
    CancelRun,
    CancelRuns,
    EngineRequest,
    FetchRun,
    FinishRun,
    GetWaiters,
    Notify,
    Publish,
    Wait,
)
from django_workflow.protocol.steps import Step
from django_workflow.protocol.wire import decode_request, encode_request, split_destination
from tests.protocol.strategies import counts, messages, steps, tokens, urls, workflow_fields

STEP = Step(step_id=1, step_name="one", step_type="Wait", concurrent=1)
IN_RUN = Message(destination="https://h/", workflow=WorkflowFields(run_id="wfr_1", url="https://h/"))

ids = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=32), min_size=1, max_size=12)
# With a slash a run's id would end: ids of runs never hold one.
run_ids = ids.map(lambda text: text.replace("/", "-"))
bodies = st.binary(max_size=30)
waits = st.builds(
    Wait,
    event_id=ids,
    message=messages.flatmap(
        lambda message: workflow_fields.map(
            lambda workflow: msgspec.structs.replace(message, body=b"", queue=None, workflow=workflow)
        )
    ),
    step=steps,
    timeout=counts.map(float),
)
cancels = st.builds(
    CancelRuns,
    run_ids=st.lists(tokens, max_size=3).map(tuple),
    workflow_url=st.none() | urls,
    exact_url=st.booleans(),
    label=st.none() | tokens | st.just("a,b"),
    count=st.none() | counts,
    from_date=st.none() | counts,
    to_date=st.none() | counts,
    caller_ip=st.none() | st.just("1.2.3.4"),
    flow_control_key=st.none() | tokens,
)
requests: st.SearchStrategy[EngineRequest[Any]] = st.one_of(
    st.builds(Publish, message=messages),
    st.builds(Batch, messages=st.lists(messages, max_size=3).map(tuple)),
    waits,
    st.builds(Notify, event_id=ids, body=bodies, run_id=run_ids, deduplication_id=st.none() | tokens),
    # Without a run, what stands before a slash would be taken for one: it is encoded.
    st.builds(Notify, event_id=ids, body=bodies),
    st.builds(GetWaiters, event_id=ids),
    st.builds(FetchRun, run_id=run_ids, message_id=st.none() | tokens),
    st.builds(FinishRun, run_id=run_ids, result=st.none() | st.binary(min_size=1, max_size=20)),
    st.builds(CancelRun, run_id=run_ids),
    cancels,
)


@given(requests)
def test_every_request_round_trips(request: EngineRequest[Any]) -> None:
    encoded = encode_request(request)
    assert decode_request(encoded.method, encoded.path, encoded.headers, encoded.body) == request


@given(requests)
def test_servers_may_change_the_letter_case_of_names(request: EngineRequest[Any]) -> None:
    encoded = encode_request(request)
    headers = {name.upper(): value for name, value in encoded.headers.items()}
    arrived = decode_request(encoded.method.lower(), encoded.path, headers, encoded.body)
    again = encode_request(arrived)
    assert (again.method, again.path, again.body) == (encoded.method, encoded.path, encoded.body) or isinstance(
        request,
        Wait,  # its body repeats the headers
    )


def test_a_base_may_have_a_path_of_its_own() -> None:
    encoded = encode_request(GetWaiters(event_id="e"), base="https://host/qstash/")
    assert encoded.path == "https://host/qstash/v2/waiters/e"


@pytest.mark.parametrize(
    ("request_", "method", "path"),
    [
        (
            Publish(message=Message(destination="https://h/a%2Fb//c?x=1&y=%20")),
            "POST",
            "/v2/publish/https://h/a%2Fb//c?x=1&y=%20",
        ),
        (Publish(message=Message(destination="https://h/p?x=1#top")), "POST", "/v2/publish/https://h/p?x=1"),
        (Publish(message=Message(destination="https://h/", queue="a b")), "POST", "/v2/enqueue/a%20b/https://h/"),
        (Batch(messages=()), "POST", "/v2/batch"),
        (Wait(event_id="order/1", message=IN_RUN, step=STEP, timeout=20), "POST", "/v2/wait/order%2F1"),
        (Notify(event_id="a:b@c"), "POST", "/v2/notify/a:b@c"),  # left as other clients leave it
        (Notify(event_id="e?", run_id="wfr_1"), "POST", "/v2/notify/wfr_1/e%3F"),
        (GetWaiters(event_id="é"), "GET", "/v2/waiters/%C3%A9"),
        (FetchRun(run_id="wfr_1"), "GET", "/v2/workflows/runs/wfr_1"),
        (FinishRun(run_id="wfr_1"), "DELETE", "/v2/workflows/runs/wfr_1?cancel=false"),
        (CancelRun(run_id="wfr_1"), "DELETE", "/v2/workflows/runs/wfr_1?cancel=true"),
        (CancelRuns(), "DELETE", "/v2/workflows/runs"),
        (
            CancelRuns(run_ids=("a", "b"), workflow_url="https://h/", exact_url=True, label="l", count=5),
            "DELETE",
            "/v2/workflows/runs?workflowRunIds=a&workflowRunIds=b&workflowUrl=https%3A%2F%2Fh%2F"
            "&workflowUrlExactMatch=true&label=l&count=5",
        ),
    ],
)
def test_paths_are_those_of_the_documented_api(request_: EngineRequest[Any], method: str, path: str) -> None:
    encoded = encode_request(request_)
    assert (encoded.method, encoded.path) == (method, path)


def test_a_wait_says_where_to_go_when_the_time_is_up() -> None:
    encoded = encode_request(Wait(event_id="e", message=IN_RUN, step=STEP, timeout=20))
    body = json.loads(encoded.body)
    assert (body["url"], body["timeoutUrl"], body["timeout"]) == ("https://h/", "https://h/", "20s")
    assert body["timeoutHeaders"]["Upstash-Workflow-RunId"] == ["wfr_1"]
    assert encoded.headers["Upstash-Workflow-CallType"] == "step"
    assert body["step"] == {"stepId": 1, "stepName": "one", "stepType": "Wait", "concurrent": 1}


@pytest.mark.parametrize(
    ("raw", "destination", "config"),
    [
        ("https://h/a%2Fb//c?x=%26", "https://h/a%2Fb//c?x=%26", {}),  # byte for byte
        ("https://h/?", "https://h/?", {}),
        ("https://h/p?x=1&upstash-retries=3&y=2", "https://h/p?x=1&y=2", {"upstash-retries": "3"}),
        ("https://h/p?Upstash-Delay=1d%20&qstash_token=t", "https://h/p", {"upstash-delay": "1d "}),
        ("https:/h/p", "https://h/p", {}),  # a proxy merged the slashes
        ("https%3A//h/p%20q?x=%20", "https://h/p q?x=%20", {}),  # encoded as a whole, but for its query
        ("https%3A%2F%2Fh%2Fp", "https://h/p", {}),
        ("my-group", "my-group", {}),  # a URL group
    ],
)
def test_a_destination_is_taken_raw_and_freed_of_configuration(
    raw: str, destination: str, config: dict[str, str]
) -> None:
    assert split_destination(raw) == (destination, list(config.items()))


def test_configuration_in_the_query_reaches_the_message() -> None:
    request = decode_request(
        "GET", "/v2/publish/https://h/?upstash-method=GET&upstash-retries=1", {"Upstash-Retries": "2"}, b""
    )
    assert request == Publish(message=Message(destination="https://h/", method="GET", retries=2))


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v2/notify/wfr_1/a/b", Notify(event_id="a/b", run_id="wfr_1")),  # clients do not encode event ids
        ("POST", "/v2/notify/50%", Notify(event_id="50%")),
        ("DELETE", "/v2/workflows/runs/wfr_1", CancelRun(run_id="wfr_1")),  # documented for REST users
        ("DELETE", "/v2/workflows/runs?workflowRunIds=a,b", CancelRuns(run_ids=("a", "b"))),
        ("DELETE", "/v2/workflows/runs?label=a&label=b&qstash_token=t", CancelRuns(label="a,b")),
        ("DELETE", "/v2/workflows/runs?callerIP=1.2.3.4", CancelRuns(caller_ip="1.2.3.4")),
    ],
)
def test_other_spellings_are_read_too(method: str, path: str, expected: EngineRequest[Any]) -> None:
    assert decode_request(method, path, {}, b"") == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"workflowRunIds":["a","b"]}', CancelRuns(run_ids=("a", "b"))),
        (b'{"workflowUrl":"https://h/","count":5}', CancelRuns(workflow_url="https://h/", count=5)),
        (b'{"workflowUrlExactMatch":true,"label":null}', CancelRuns(exact_url=True)),
    ],
)
def test_older_clients_send_filters_as_json(body: bytes, expected: CancelRuns) -> None:
    assert decode_request("DELETE", "/v2/workflows/runs", {}, body) == expected


@pytest.mark.parametrize(
    ("query", "body", "reason"),
    [
        ("?host=h", b"", "cannot be chosen by 'host'"),  # passing a filter over would cancel more
        ("", b'{"workflowRunIds":[]}', "names no run"),  # nobody who lists runs means all of them
        ("?workflowRunIds=", b"", "names no run"),
        ("?workflowUrl=a&workflowUrl=b", b"", "given once"),
        ("?count=many", b"", "no whole number"),
        ("", b"[1]", "holds no filters"),
    ],
)
def test_a_filter_that_cannot_be_kept_is_refused(query: str, body: bytes, reason: str) -> None:
    with pytest.raises(MessageInvalid, match=reason):
        decode_request("DELETE", "/v2/workflows/runs" + query, {}, body)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/batch"),
        ("GET", "/v2/wait/e"),
        ("POST", "/v2/wait/"),
        ("POST", "/v2/publish/"),
        ("POST", "/v2/enqueue/q"),
        ("POST", "/v2/waiters/e"),
        ("DELETE", "/v2/workflows/runs/"),
        ("PUT", "/v2/workflows/runs/wfr_1"),
        ("GET", "/v2/queues"),
        ("POST", "/v1/publish/https://h/"),
        ("POST", "/publish/https://h/"),
    ],
)
def test_other_calls_are_unknown(method: str, path: str) -> None:
    with pytest.raises(RequestUnknown, match="The engine has no") as caught:
        decode_request(method, path, {}, b"")
    assert caught.value.status_code == 404


def wait_body(**changes: object) -> bytes:
    body = {
        "url": "https://h/",
        "timeout": "20s",
        "step": {"stepId": 1, "stepName": "w", "stepType": "Wait", "concurrent": 1},
    }
    return json.dumps(body | changes).encode()


@pytest.mark.parametrize(
    ("path", "headers", "body", "reason"),
    [
        ("/v2/batch", {}, b"{}", "no batch"),
        (
            "/v2/batch",
            {},
            b'[{"destination":"u","headers":{"upstash-retries":"x"}}]',
            "Message 0 of the batch: Upstash-Retries: 'x'",
        ),
        ("/v2/publish/?upstash-retries=1", {}, b"", "The engine has no"),
        ("/v2/enqueue/q/", {}, b"", "destination is empty"),
        ("/v2/wait/e", {}, wait_body(), "needs the run that waits"),
        ("/v2/wait/e", {"Upstash-Workflow-RunId": "w"}, b"{}", "no body of a wait"),
        ("/v2/wait/e", {"Upstash-Workflow-RunId": "w"}, wait_body(timeout="soon"), "timeout: 'soon' is no duration"),
        ("/v2/wait/e", {"Upstash-Workflow-RunId": "w"}, wait_body(timeoutUrl="https://x/"), "at its own URL"),
    ],
)
def test_what_cannot_be_read_is_refused(path: str, headers: dict[str, str], body: bytes, reason: str) -> None:
    with pytest.raises((MessageInvalid, RequestUnknown), match=reason):
        decode_request("POST", path, headers, body)


def test_a_run_is_finished_or_cancelled_and_nothing_else() -> None:
    with pytest.raises(MessageInvalid, match="neither true nor false"):
        decode_request("DELETE", "/v2/workflows/runs/wfr_1?cancel=maybe", {}, b"")

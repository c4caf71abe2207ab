"""Hypothesis strategies for what travels: messages and steps with every field that the wire can carry."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from django_workflow.protocol.publish import CallbackConfig, FlowControl, Message, WorkflowFields
from django_workflow.protocol.steps import CallType, Step, StepType

TOKEN = string.ascii_letters + string.digits + "-_"

tokens = st.text(TOKEN, min_size=1, max_size=12)
# What a header can hold; blanks at the ends do not survive any HTTP library.
header_values = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=20
).map(str.strip)
json_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
urls = st.builds(
    "{}://{}/{}{}".format,
    st.sampled_from(["http", "https"]),
    st.sampled_from(["host", "host:8080", "shop.example"]),
    st.sampled_from(["", "a", "a%2Fb//c", "a/b/", "caf%C3%A9"]),
    st.sampled_from(["", "?x=1&y=%20", "?q"]),
)
# Unique in any letter case: two spellings of one header are one header.
forward_headers = st.dictionaries(tokens.map(lambda name: "X-" + name.lower()), header_values, max_size=3)
counts = st.integers(0, 10**6)
seconds = st.integers(0, 10**7).map(float)

flow_controls = st.builds(
    FlowControl,
    key=tokens,
    parallelism=st.none() | st.integers(1, 1000),
    rate=st.none() | st.integers(1, 1000),
    period=st.integers(1, 604_800),
)
workflow_fields = st.builds(
    WorkflowFields,
    run_id=tokens.map("wfr_{}".format),
    url=urls,
    init=st.booleans(),
    call_type=st.sampled_from(list(CallType)).map(str),
    features=st.lists(tokens, max_size=3).map(tuple),
    sdk_version=st.none() | st.just("1"),
    invoke=st.booleans(),
    trigger_by_sdk=st.booleans(),
)
callback_configs = st.builds(
    CallbackConfig,
    url=urls,
    headers=st.fixed_dictionaries(
        {},
        optional={
            "Upstash-Retries": counts.map(str),
            "Upstash-Forward-X-Key": header_values,
            "Upstash-Workflow-RunId": tokens,
            "Upstash-Failure-Callback-Forward-X-Key": header_values,
        },
    ),
)
messages = st.builds(
    Message,
    destination=urls,
    body=json_text.map(str.encode),
    method=st.sampled_from(["POST", "GET", "PUT", "DELETE", "PATCH"]),
    content_type=st.none() | st.sampled_from(["application/json", "text/plain;charset=UTF-8"]),
    headers=forward_headers,
    delay=st.none() | seconds,
    not_before=st.none() | seconds,
    retries=st.none() | counts,
    retry_delay=st.none() | st.sampled_from(["1000", "pow(2, retried) * 1000"]),
    timeout=st.none() | seconds,
    flow_control=st.none() | flow_controls,
    labels=st.lists(tokens, max_size=3).map(tuple),
    redact=st.lists(st.sampled_from(["body", "header", "header[X-Key]"]), max_size=3).map(tuple),
    callback=st.none() | callback_configs,
    failure_callback=st.none() | callback_configs,
    deduplication_id=st.none() | tokens,
    content_based_deduplication=st.booleans(),
    queue=st.none() | tokens,
    workflow=st.none() | workflow_fields,
)

steps = st.builds(
    Step,
    step_id=st.integers(0, 10_000),
    step_name=json_text.filter(bool),
    step_type=st.sampled_from(list(StepType)).map(str),
    out=st.none() | json_text,
    concurrent=st.integers(1, 1000),
    target_step=st.none() | st.integers(1, 10_000),
    sleep_for=st.none() | st.integers(0, 10**6) | st.sampled_from(["10s", "1d"]),
    sleep_until=st.none() | st.integers(0, 2**33) | st.floats(0, 2**33),
    wait_event_id=st.none() | json_text,
    timeout=st.none() | st.sampled_from(["20s", "7d", 30]),
    wait_timeout=st.none() | st.booleans(),
)

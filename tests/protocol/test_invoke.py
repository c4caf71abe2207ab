from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.errors import MessageInvalid
from django_workflow.protocol.invoke import (
    InvokeBody,
    InvokeResult,
    decode_invoke,
    decode_invoke_result,
    encode_invoke,
    encode_invoke_result,
    invoke_result,
)
from django_workflow.protocol.steps import Step, decode_step, encode_step
from tests.protocol.strategies import json_text, steps, tokens, urls

results = st.builds(InvokeResult, body=st.none() | json_text, is_canceled=st.booleans(), is_failed=st.booleans())


@given(
    st.builds(
        InvokeBody,
        body=st.none() | json_text,
        headers=st.dictionaries(tokens, st.lists(json_text, min_size=1, max_size=2), max_size=3),
        workflow_run_id=tokens,
        workflow_run_created_at=st.integers(0, 2**53 - 1),
        workflow_url=urls,
        step=steps,
    )
)
def test_requests_round_trip(body: InvokeBody) -> None:
    assert decode_invoke(encode_invoke(body)) == body


@given(steps, results)
def test_results_travel_in_the_step(step: Step, result: InvokeResult) -> None:
    travelled = decode_step(encode_step(invoke_result(step, result)))
    assert travelled.out is not None
    assert decode_invoke_result(travelled.out) == result


def test_both_flags_are_always_written() -> None:
    assert json.loads(encode_invoke_result(InvokeResult(is_canceled=False, is_failed=True))) == {
        "isCanceled": False,
        "isFailed": True,
    }


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(MessageInvalid, match="no request to invoke"):
        decode_invoke(b"{}")
    with pytest.raises(MessageInvalid, match="no result of an invoked"):
        decode_invoke_result('{"isFailed":true}')

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.errors import MessageInvalid
from django_workflow.protocol.carried import decode_carried, encode_submitted, is_sealed, joined, seal
from django_workflow.protocol.identifiers import uuid7
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import Batch, CancelRun, FinishRun, Publish, Wait
from django_workflow.protocol.steps import Step
from django_workflow.protocol.waits import FormPrompt
from tests.protocol.strategies import messages

CURRENT, NEXT = "sig_current", "sig_next"
STEP = Step(step_id=2, step_name="wait", step_type="Wait", concurrent=1)


def assert_comes_back(submitted: list[tuple[Any, tuple[UUID, ...]]]) -> None:
    assert decode_carried(joined(encode_submitted(*one) for one in submitted)) == submitted


@given(st.lists(messages, max_size=3))
def test_messages_come_back_as_they_were(sent: list[Message]) -> None:
    assert_comes_back([(Batch(messages=tuple(sent)), tuple(uuid7() for _ in sent))])


@pytest.mark.parametrize(
    "request_",
    [
        Publish(message=Message(destination="https://a.example", body=b"\xff\x00")),
        Wait(event_id="e", message=Message(destination="https://a.example"), step=STEP, timeout=60, prompt="Well?"),
        Wait(
            event_id="e",
            message=Message(destination="https://a.example"),
            step=STEP,
            timeout=1.5,
            form=FormPrompt(form="shop.Answer", initial={"large": 1 << 60}, to=("user:1",)),
        ),
        FinishRun(run_id="wfr_1"),
        FinishRun(run_id="wfr_1", result=b""),
        CancelRun(run_id="wfr_1"),
    ],
    ids=lambda request: type(request).__name__,
)
def test_every_request_of_an_endpoint_comes_back_in_its_place(request_: Any) -> None:
    assert_comes_back([(CancelRun(run_id="wfr_0"), ()), (request_, (uuid7(),)), (FinishRun(run_id="wfr_2"), ())])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\xff",
        b'[{"keys":[]}]',
        b'[{"kind":"notify","request":{"event_id":"e"}}]',
        b'[{"kind":"finish","request":{"run_id":7}}]',
        b'[{"kind":"cancel","request":{"run_id":"a"},"keys":["no key"]}]',
        b"[" * 10_000,
    ],
)
def test_what_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_carried(body)


def test_a_seal_holds_for_its_delivery_its_body_and_its_keys() -> None:
    made = seal("a.b.c", b"body", NEXT)
    assert is_sealed(made, "a.b.c", b"body", [CURRENT, NEXT])
    assert not is_sealed(made, "a.b.d", b"body", [CURRENT, NEXT])
    assert not is_sealed(made, "a.b.c", b"body ", [CURRENT, NEXT])
    assert not is_sealed(made, "a.b.c", b"body", [CURRENT])
    assert not is_sealed(made, "a.b.c", b"body", [])


@pytest.mark.parametrize("made", [None, "", "ä", "0" * 64])
def test_a_seal_that_is_none_does_not_hold(made: str | None) -> None:
    assert not is_sealed(made, "a.b.c", b"body", [CURRENT, NEXT])

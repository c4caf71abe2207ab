from __future__ import annotations

from collections.abc import Callable

import pytest

from django_workflow.client import carried
from django_workflow.client.carried import Carried
from django_workflow.errors import EngineError
from django_workflow.protocol.carried import decode_carried
from django_workflow.protocol.identifiers import message_id_of
from django_workflow.protocol.publish import Message, WorkflowFields
from django_workflow.protocol.requests import Batch, EngineRequest, FinishRun, Notify, Publish, Wait
from django_workflow.protocol.steps import Step

URL = "https://a.example"


def message(run_id: str = "wfr_1", body: bytes = b"{}", **fields: bool) -> Message:
    return Message(destination=URL, body=body, workflow=WorkflowFields(run_id=run_id, url=URL, **fields))


def batch(*bodies: bytes) -> Batch:
    return Batch(messages=tuple(message(body=body) for body in bodies or (b"{}",)))


def wait(prompt: str) -> Wait:
    step = Step(step_id=1, step_name="wait", step_type="Wait", concurrent=1)
    return Wait(event_id="e", message=message(), step=step, timeout=1, prompt=prompt)


def test_what_is_taken_is_carried_in_its_order_with_the_ids_that_were_told() -> None:
    bag, finish = Carried("wfr_1"), FinishRun(run_id="wfr_1", result=b"1")
    told = bag.take(batch(b"1", b"2"))
    end = bag.take(finish)
    assert told is not None
    assert end is not None
    assert end.answer is None
    assert bag.body is not None
    (first, keys), second = decode_carried(bag.body)
    assert (first, second) == (batch(b"1", b"2"), (finish, ()))
    assert [answer.message_id for answer in told.answer] == [message_id_of(key) for key in keys]


@pytest.mark.parametrize(
    "request_",
    [
        Batch(messages=(message(), message("wfr_2"))),
        Batch(messages=(message(init=True),)),
        Publish(message=Message(destination=URL)),
        FinishRun(run_id="wfr_2"),
        Notify(event_id="e", run_id="wfr_1"),
    ],
    ids=lambda request: type(request).__name__,
)
def test_what_is_not_of_the_run_goes_its_own_way(request_: EngineRequest[object]) -> None:
    bag = Carried("wfr_1")
    assert bag.take(request_) is None
    assert bag.body is None
    assert bag.take(batch()) is not None


def test_what_took_long_is_written_at_once_and_so_is_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 0.2, 0.05])
    monkeypatch.setattr(carried.time, "monotonic", lambda: next(now))
    bag = Carried("wfr_1")
    assert bag.take(batch()) is None
    assert bag.take(FinishRun(run_id="wfr_1")) is None


def test_what_follows_goes_the_way_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 0.05, 5.0])
    monkeypatch.setattr(carried.time, "monotonic", lambda: next(now))
    bag = Carried("wfr_1")
    assert bag.take(batch()) is not None
    assert bag.take(batch(b"x" * carried.LARGEST_BYTES)) is not None


@pytest.mark.parametrize(
    "make",
    [batch, lambda body: Publish(message=message(body=body)), lambda body: FinishRun(run_id="wfr_1", result=body)],
    ids=["batch", "publish", "finish"],
)
def test_what_is_large_is_written_at_once(make: Callable[[bytes], EngineRequest[object]]) -> None:
    assert Carried("wfr_1").take(make(b"x" * (carried.LARGEST_BYTES // 2))) is not None
    assert Carried("wfr_1").take(make(b"x" * carried.LARGEST_BYTES)) is None


def test_what_has_no_form_in_json_is_written_at_once() -> None:
    bag = Carried("wfr_1")
    assert bag.take(wait("half of a \ud83d")) is None
    assert bag.take(batch()) is None


def test_what_has_no_form_in_json_is_refused_once_something_is_carried() -> None:
    bag = Carried("wfr_1")
    assert bag.take(batch()) is not None
    with pytest.raises(EngineError, match="cannot be sent"):
        bag.take(wait("half of a \ud83d"))

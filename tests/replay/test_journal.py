from __future__ import annotations

from typing import Any

import pytest

from django_workflow.errors import StepError
from django_workflow.protocol.steps import JournalMessage, Step, encode_step
from django_workflow.replay.journal import Journal


def result(number: int, name: str = "s", **fields: Any) -> Step:
    return Step(step_id=number, step_name=name, step_type="Run", **{"concurrent": 1, "out": "1", **fields})


def plan(target: int, concurrent: int = 2) -> Step:
    return Step(step_id=0, step_name="s", step_type="Run", concurrent=concurrent, target_step=target)


def messages(*steps: Step) -> list[JournalMessage]:
    payload = JournalMessage("msg_0", "{}")
    return [payload, *(JournalMessage(f"msg_{i}", encode_step(step).decode()) for i, step in enumerate(steps, 1))]


def test_the_payload_is_no_step() -> None:
    journal = Journal.from_messages(messages())
    assert (journal.steps, journal.last, journal.highest) == ([], None, 0)


def test_the_first_message_is_the_payload_whatever_its_call_type() -> None:
    journal = Journal.from_messages([JournalMessage("msg_0", "no JSON at all", "fromCallback")])
    assert journal.steps == []


def test_no_messages_make_an_empty_journal() -> None:
    assert Journal.from_messages([]).highest == 0


def test_calls_on_their_way_are_skipped() -> None:
    on_its_way = [JournalMessage("msg_8", "x", "toCallback"), JournalMessage("msg_9", "{}", "fromCallback")]
    journal = Journal.from_messages([*messages(result(1)), *on_its_way])
    assert [step.step_id for step in journal.steps] == [1]
    assert journal.last is not None
    assert journal.last.step_id == 1


def test_the_highest_number_counts_plans_too() -> None:
    assert Journal.from_messages(messages(result(1), plan(2), plan(3))).highest == 3


@pytest.mark.parametrize(
    ("steps", "kept", "is_last_duplicate"),
    [
        ([result(1, "a"), result(1, "b")], ["a"], True),
        ([result(1, "a"), result(1, "b"), result(2, "c")], ["a", "c"], False),
        ([result(1, "a"), result(2, "b"), result(1, "c")], ["a", "b"], True),
        # a result and the plan that it belongs to are two things
        ([plan(1), plan(2), result(1, "a")], ["s", "s", "a"], False),
        ([plan(1), plan(2), plan(1)], ["s", "s"], True),
        # number 0 without a target is the payload's slot
        ([Step(step_id=0, step_name="init", step_type="Initial", concurrent=1)], [], True),
    ],
)
def test_the_first_of_a_number_is_kept(steps: list[Step], kept: list[str], is_last_duplicate: bool) -> None:
    journal = Journal.from_messages(messages(*steps))
    assert [step.step_name for step in journal.steps] == kept
    assert journal.is_last_duplicate is is_last_duplicate


@pytest.mark.parametrize("body", ["no JSON", "[]", '{"stepId": "one"}', ""])
def test_a_message_that_is_no_step_is_an_error_with_its_id(body: str) -> None:
    with pytest.raises(StepError, match="msg_7"):
        Journal.from_messages([JournalMessage("msg_0", ""), JournalMessage("msg_7", body)])


def test_missing_and_null_are_the_same() -> None:
    body = '{"method":"POST","stepId":1,"stepName":"s","stepType":"Run","out":"1","concurrent":1,"targetStep":null}'
    (step,) = Journal.from_messages([JournalMessage("msg_0", ""), JournalMessage("msg_1", body)]).steps
    assert step == result(1)

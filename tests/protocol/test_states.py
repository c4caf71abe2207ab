from __future__ import annotations

import pytest

from django_workflow.protocol.states import FailureCallbackState, MessageState, RunState, StepState, matching_states


def test_states_are_spelt_as_clients_expect_them() -> None:
    assert list(RunState) == ["RUN_STARTED", "RUN_SUCCESS", "RUN_FAILED", "RUN_CANCELED"]
    assert list(StepState) == ["STEP_PROGRESS", "STEP_SUCCESS", "STEP_RETRY", "STEP_FAILED", "STEP_CANCELED"]
    assert list(FailureCallbackState) == [
        "CALLBACK_INPROGRESS",
        "CALLBACK_SUCCESS",
        "CALLBACK_FAIL",
        "CALLBACK_CANCELED",
    ]
    assert "CANCELED" in list(MessageState)


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("DELIVERED", {"DELIVERED"}),
        ("IN_PROGRESS", {"ACTIVE", "RETRY", "ERROR"}),  # documented as their union
        ("CANCELLED", {"CANCELED"}),  # the documentation's spelling
    ],
)
def test_a_filter_names_one_state_or_a_group(name: str, states: set[str]) -> None:
    assert matching_states(name) == states


def test_an_unknown_state_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'DONE' is no message state: CREATED, .*IN_PROGRESS"):
        matching_states("DONE")

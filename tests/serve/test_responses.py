"""Exceptions and outcomes as answers: status, headers, body."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from django_workflow.errors import NonRetryableError, RetryAfterError, StepMismatch
from django_workflow.serve import responses


def body(response: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(response.body)
    return decoded


def test_every_answer_names_the_protocol_and_the_sdk() -> None:
    for response in (
        responses.acknowledged("wfr_1"),
        responses.failure_handled(None),
        responses.not_authenticated(),
        responses.rejected(401, "SignatureInvalid", "no"),
        responses.failed(ValueError("x")),
    ):
        assert response.headers["Upstash-Workflow-Sdk-Version"] == "1"
        assert response.headers["Upstash-Workflow-Sdk"].startswith("django-workflow@v")
        assert response.headers["Content-Type"] == "application/json"


def test_acknowledged() -> None:
    response = responses.acknowledged('wfr_"1', responses.DUPLICATE_STEP)
    assert response.status == 200
    assert body(response) == {"workflowRunId": 'wfr_"1', "finishCondition": "duplicate-step"}


def test_failure_handled() -> None:
    assert body(responses.failure_handled(None)) == {}
    assert body(responses.failure_handled("told support")) == {"result": "told support"}


def test_an_exception_is_a_500_that_says_which_step() -> None:
    try:
        raise ValueError("went wrong")
    except ValueError as error:
        response = responses.failed(error, step_name="charge card", show_stack=True)
    assert response.status == 500
    assert response.headers["Upstash-Error-Step-Name"] == "charge card"
    said = body(response)
    assert said["error"] == "ValueError"
    assert said["message"] == "went wrong"
    assert "test_responses.py" in said["stack"]
    assert said["stack"].rstrip().endswith("ValueError: went wrong")


def test_a_stranger_sees_no_stack() -> None:
    assert body(responses.failed(ValueError("x")))["stack"] == ""


class PaymentRefused(NonRetryableError):
    pass


@pytest.mark.parametrize(
    ("error", "retry", "name"),
    [
        (NonRetryableError("no"), True, "WorkflowNonRetryableError"),  # the protocol's name
        (PaymentRefused("no"), True, "PaymentRefused"),  # one's own stays
        (StepMismatch("no"), False, "StepMismatch"),
    ],
)
def test_489_fails_the_run_at_once(error: Exception, retry: bool, name: str) -> None:
    response = responses.failed(error, retry=retry)
    assert response.status == 489
    assert response.headers["Upstash-NonRetryable-Error"] == "true"
    assert body(response) == {"error": name, "message": "no", "stack": ""}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (10, "10"),
        (0, "0"),
        (1.2, "2"),  # never earlier than asked for
        (timedelta(minutes=2), "120"),
        ("2m", "120"),
        (datetime(2030, 1, 1, tzinfo=UTC), "Tue, 01 Jan 2030 00:00:00 GMT"),
        (datetime(2030, 1, 1, 1, 0, 0, 5, tzinfo=timezone(timedelta(hours=1))), "Tue, 01 Jan 2030 00:00:01 GMT"),
    ],
)
def test_429_names_its_time(given: Any, sent: str) -> None:
    response = responses.failed(RetryAfterError(given, "later"))
    assert response.status == 429
    assert response.headers["Retry-After"] == sent
    assert body(response)["error"] == "WorkflowRetryAfterError"


@pytest.mark.parametrize("given", ["soon", datetime(2030, 1, 1), -5])
def test_a_retry_after_that_means_nothing_is_an_ordinary_failure(given: Any) -> None:
    response = responses.failed(RetryAfterError(given, "later"))
    assert response.status == 500
    assert "Retry-After" not in response.headers
    assert "later" in body(response)["message"]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError(), "ValueError"),
        (ValueError("\ud800"), "\\ud800"),  # no UTF-8 holds it
        (Unspeakable(), "Unspeakable (its message could not be made)"),
        (ValueError("x" * 100_000), "x" * responses.LONGEST_MESSAGE),
    ],
)
def test_any_exception_can_be_answered(error: Exception, message: str) -> None:
    assert body(responses.failed(error, show_stack=True))["message"] == message


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("plain", "plain"),
        ("  a\r\nX-Evil: 1\t\x00", "a  X-Evil: 1"),
        ("größe", "gröÃ\x9fe".replace("ö", "Ã¶")),  # UTF-8 bytes, seen as Latin-1
        ("\n", None),
    ],
)
def test_a_step_name_becomes_one_header_line(name: str, sent: str | None) -> None:
    assert responses.failed(ValueError("x"), step_name=name).headers.get("Upstash-Error-Step-Name") == sent

"""The forms in which people give trigger options, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from django_workflow.client.options import TriggerOptions
from django_workflow.protocol.publish import FlowControl


def test_nothing_said_stays_unsaid() -> None:
    assert TriggerOptions.of() == TriggerOptions()


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"delay": "1h"}, "delay", 3600.0),
        ({"delay": timedelta(minutes=2)}, "delay", 120.0),
        ({"delay": 0}, "delay", 0.0),
        ({"not_before": datetime(2030, 1, 1, tzinfo=UTC)}, "not_before", 1893456000.0),
        ({"not_before": datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))}, "not_before", 1893456000.0),
        ({"not_before": 1893456000.5}, "not_before", 1893456000.5),
        ({"retries": 0}, "retries", 0),
        ({"retry_delay": "1000 * (1 + retried)"}, "retry_delay", "1000 * (1 + retried)"),
        ({"retry_delay": timedelta(seconds=5)}, "retry_delay", "5000"),  # milliseconds on the wire
        ({"retry_delay": 0.25}, "retry_delay", "250"),
        ({"timeout": "90s"}, "timeout", 90.0),
        ({"label": "vip"}, "labels", ("vip",)),
        ({"label": ["vip", "eu-1"]}, "labels", ("vip", "eu-1")),
        ({"run_id": "my-run"}, "run_id", "wfr_my-run"),
        ({"run_id": "wfr_my-run"}, "run_id", "wfr_my-run"),  # not doubled
        ({"redact": "body, header[Authorization]"}, "redact", ("body", "header[Authorization]")),
        ({"redact": ["header"]}, "redact", ("header",)),
        ({"headers": {"X-User": "ü"}}, "headers", {"X-User": "ü"}),
        ({"flow_control": {"key": "k", "parallelism": 2}}, "flow_control", FlowControl("k", parallelism=2)),
        (
            {"flow_control": {"key": "k", "rate": 5, "period": "1m"}},
            "flow_control",
            FlowControl("k", rate=5, period=60),
        ),
        ({"flow_control": FlowControl("k", rate=1)}, "flow_control", FlowControl("k", rate=1)),
    ],
)
def test_of_takes_the_forms_that_people_write(given: dict[str, Any], field: str, value: object) -> None:
    assert getattr(TriggerOptions.of(**given), field) == value


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"delay": "soon"}, "soon"),
        ({"delay": -1}, "-1"),
        ({"not_before": datetime(2030, 1, 1)}, "time zone"),
        ({"retries": -1}, "retries is -1"),
        ({"retries": True}, "retries is True"),
        ({"retry_delay": "__import__(1)"}, "__import__"),
        ({"label": "two words"}, "two words"),
        ({"label": ""}, "label"),
        ({"run_id": "a/b"}, "a/b"),
        ({"run_id": ""}, "run id"),
        ({"redact": "payload"}, "payload"),
        ({"headers": {"Upstash-Retries": "5"}}, "engine's"),  # would overrule the engine
        ({"headers": {"X": "a\r\nY: b"}}, "one line"),  # header injection
        ({"headers": {"X Y": "a"}}, "name of a header"),
        ({"flow_control": {"key": "k"}}, "limits nothing"),
        ({"flow_control": {"key": "a b", "rate": 1}}, "a b"),
        ({"flow_control": {"key": "k", "rate": 0}}, "at least 1"),
        ({"flow_control": {"rate": 1}}, "needed"),
        ({"flow_control": "k"}, "flow_control is 'k', but must be a dict"),
        ({"flow_control": {"key": "k", "speed": 1}}, "speed"),
    ],
)
def test_of_refuses_and_names_the_value(given: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words.replace("(", r"\(")):
        TriggerOptions.of(**given)


def test_an_instant_cannot_be_text() -> None:
    with pytest.raises(TypeError, match="aware datetime"):
        TriggerOptions.of(not_before="2030-01-01")  # type: ignore[arg-type]

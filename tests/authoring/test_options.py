from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from django_workflow.authoring.middleware import Middleware
from django_workflow.authoring.options import WorkflowOptions
from django_workflow.client.options import TriggerOptions
from django_workflow.errors import Misconfigured
from django_workflow.protocol.publish import FlowControl


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"retries": 0}, "retries", 0),
        ({"retry_delay": "pow(2, retried) * 1000"}, "retry_delay", "pow(2, retried) * 1000"),
        ({"retry_delay": 1.5}, "retry_delay", "1500"),
        ({"retry_delay": dt.timedelta(minutes=1)}, "retry_delay", "60000"),
        ({"timeout": "5m"}, "timeout", 300),
        ({"delay": "1d12h"}, "delay", 129600),
        ({"delay": 90}, "delay", 90),
        ({"not_before": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}, "not_before", 1767225600),
        ({"label": "vip"}, "labels", ("vip",)),
        ({"labels": ["a", "b.c-d_1"]}, "labels", ("a", "b.c-d_1")),
        (
            {"flow_control": {"key": "k", "rate": 5, "period": "1m"}},
            "flow_control",
            FlowControl("k", rate=5, period=60),
        ),
        ({"workflow_run_id": "order-1"}, "workflow_run_id", "wfr_order-1"),
        ({"run_id": "wfr_order-1"}, "workflow_run_id", "wfr_order-1"),
        ({"redact": "body, header[Authorization]"}, "redact", ("body", "header[Authorization]")),
        ({"headers": {"X-A": "b"}}, "headers", {"X-A": "b"}),
        ({"failure_url": "https://ops.example/"}, "failure_url", "https://ops.example/"),
        ({"failure_function": print}, "on_failure", print),
        ({"steps_per_call": 5}, "steps_per_call", 5),
        ({"atomic_steps": True}, "atomic_steps", True),
    ],
)
def test_options_are_taken_in_the_forms_that_people_write(given: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(WorkflowOptions().using(**given), name) == value


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"retries": -1}, "retries is -1"),
        ({"retries": True}, "retries is True"),
        ({"retry_delay": "sin(retried)"}, "sin"),
        ({"delay": "soon"}, "'soon' is no duration"),
        ({"not_before": dt.datetime(2026, 1, 1)}, "has no time zone"),
        ({"label": "very important"}, "'very important' cannot be a label"),
        ({"label": [1]}, "1 cannot be a label"),
        ({"flow_control": {"key": "a b", "rate": 1}}, "cannot be a flow control key"),
        ({"flow_control": {"key": "k"}}, "limits nothing"),
        ({"workflow_run_id": "a b"}, "cannot be a run id"),
        ({"redact": "footer"}, "'footer' cannot be redacted"),
        ({"headers": {"Upstash-Retries": "1"}}, "'Upstash-Retries'"),
        ({"failure_url": "ops"}, "failure_url is 'ops'"),
        ({"on_failure": "alert"}, "on_failure is 'alert', but must be a function"),
        ({"on_failure": lambda ctx: None}, "on_failure takes (ctx), but is called with four arguments"),
        ({"steps_per_call": 0}, "steps_per_call is 0"),
        ({"middlewares": [print]}, "is no Middleware"),
        ({"colour": "red"}, "'colour' is no option of a workflow; known are"),
        ({"label": "a", "labels": ["b"]}, "are the same option"),
    ],
)
def test_a_bad_option_is_refused_with_its_value(given: dict[str, Any], text: str) -> None:
    with pytest.raises((ValueError, TypeError, Misconfigured)) as raised:
        WorkflowOptions().using(**given)
    assert text in str(raised.value)


def test_a_middleware_may_be_given_as_class_or_object() -> None:
    class Mine(Middleware):
        pass

    mine = Mine()
    given = WorkflowOptions().using(middlewares=[Mine, mine]).middlewares
    assert isinstance(given[0], Mine)
    assert given[1] is mine


def test_using_changes_nothing_but_what_it_says() -> None:
    before = WorkflowOptions().using(retries=1, label="a")
    after = before.using(label="b")
    assert (before.labels, after.labels, after.retries) == (("a",), ("b",), 1)


def test_what_travels_with_a_trigger() -> None:
    options = WorkflowOptions().using(
        run_id="x", delay=1, retries=2, label="l", headers={"A": "b"}, schedule="* * * * *"
    )
    assert options.for_trigger() == TriggerOptions.of(run_id="x", delay=1, retries=2, label="l", headers={"A": "b"})

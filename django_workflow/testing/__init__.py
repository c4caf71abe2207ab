"""Helpers for tests of projects that use workflows: no worker, no waiting, the test's own connection."""

from django_workflow.testing.asserts import assert_step_not_run, assert_step_ran
from django_workflow.testing.calls import CallAnswer, mock_calls
from django_workflow.testing.clock import WorkflowClock, workflow_clock
from django_workflow.testing.harness import Harness, run_workflows, send_event

__all__ = [
    "CallAnswer",
    "Harness",
    "WorkflowClock",
    "assert_step_not_run",
    "assert_step_ran",
    "mock_calls",
    "run_workflows",
    "send_event",
    "workflow_clock",
]

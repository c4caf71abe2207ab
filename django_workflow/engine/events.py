"""Workflow events as channel events, written with the change that they tell of; their forms stand in the protocol."""

from __future__ import annotations

from django_workflow.protocol.updates import LARGEST_RESULT, UPDATE, result_field, step_result, update

__all__ = ["LARGEST_RESULT", "UPDATE", "result_field", "step_result", "update"]

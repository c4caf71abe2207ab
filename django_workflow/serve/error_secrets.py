"""Secrets that an exception's text may hold: those of the run's payload, and of the results that it has so far.

Looked up when a call fails, so that neither its answer nor the log repeats them.
"""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import msgspec

from django_workflow.authoring.decorator import Workflow
from django_workflow.errors import Misconfigured
from django_workflow.protocol.invocation import Invocation
from django_workflow.protocol.invoke import decode_invoke_result
from django_workflow.protocol.secrets import PAYLOAD, WHOLE, secret_texts, within
from django_workflow.protocol.steps import CallType, Step, StepType

_WAITS = (StepType.WAIT, StepType.WAIT_FOR_WEBHOOK)


def secrets_of_call(workflow: Workflow[Any, Any], invocation: Invocation) -> set[str]:
    """Texts to keep out of what is said of a failure. A workflow that hides its bodies hides every value of them."""
    hides_all = "body" in workflow.options.redact
    try:
        paths = (WHOLE,) if hides_all else within(PAYLOAD, workflow.secret)
    except Misconfigured:  # its payload's type is nowhere, which may be the failure itself
        paths = ()
    found = _texts(invocation.payload, paths)
    if invocation.steps is not None:
        for message in invocation.steps.messages[1:]:
            if message.call_type == CallType.STEP and (step := _step(message)) is not None and step.out:
                found |= _texts(_out(step), (WHOLE,) if hides_all else step.secret)
    return found


def _step(message: Any) -> Step | None:
    try:
        step: Step = message.step
    except msgspec.MsgspecError:
        return None
    return step


def _out(step: Step) -> bytes:
    """The value that the paths of a step's secrets are about."""
    text = (step.out or "").encode()
    try:
        if step.step_type == StepType.INVOKE:
            return (decode_invoke_result(step.out or "").body or "").encode()
        return b64decode(text, validate=True) if step.step_type in _WAITS else text
    except ValueError:
        return b""


def _texts(raw: bytes, paths: tuple[str, ...]) -> set[str]:
    if not raw or not paths:
        return set()
    try:
        return secret_texts(json.loads(raw), paths)
    except (ValueError, RecursionError):
        return secret_texts(raw.decode("utf-8", "replace"), paths)

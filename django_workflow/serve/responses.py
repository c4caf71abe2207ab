"""What an endpoint answers: statuses, headers and bodies of the protocol. Source: endpoint.md section 5.

The engine reads them: 200 acknowledges a delivery, 489 fails the run at once, 429 names its own time for the next
try, any other status is tried again.
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib import metadata
from typing import Any

import msgspec

from django_workflow.errors import NonRetryableError, RetryAfterError, SignatureInvalid
from django_workflow.protocol import headers as h
from django_workflow.protocol.durations import to_seconds
from django_workflow.protocol.secrets import scrub
from django_workflow.serve.endpoint import EndpointResponse
from django_workflow.serve.stack import readable

SUCCESS = "success"
DUPLICATE_STEP = "duplicate-step"
FROM_CALLBACK = "fromCallback"
ALREADY_ENDED = "workflow-already-ended"
NO_FAILURE_FUNCTION = "failure-callback-undefined"

NO_RUN_ID = "no-workflow-id"
NOT_AUTHENTICATED = (
    "Failed to authenticate Workflow request. If this is unexpected, see the caveat "
    "https://upstash.com/docs/workflow/basics/caveats#avoid-non-deterministic-code-outside-context-run"
)

NON_RETRYABLE_STATUS = 489
LONGEST_MESSAGE = 16 * 1024
LONGEST_STACK = 64 * 1024

try:
    VERSION = metadata.version("django-durable-workflow")
except metadata.PackageNotFoundError:  # a checkout that was not installed
    VERSION = "0+unknown"

HEADERS = {
    h.WORKFLOW_SDK_VERSION: h.PROTOCOL_VERSION,
    h.WORKFLOW_SDK: f"django-workflow@v{VERSION}",
    h.CONTENT_TYPE: "application/json",
}

_NAMES_ON_THE_WIRE = {NonRetryableError: "WorkflowNonRetryableError", RetryAfterError: "WorkflowRetryAfterError"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_encode = msgspec.json.Encoder().encode


def acknowledged(run_id: str, condition: str = SUCCESS, headers: dict[str, str] | None = None) -> EndpointResponse:
    """200: the engine need not deliver this again."""
    return _response(200, {"workflowRunId": run_id, "finishCondition": condition}, headers)


def failure_handled(result: str | None) -> EndpointResponse:
    """200 to a failure callback: the failure function ran, and `result` is what it returned."""
    return _response(200, {} if result is None else {"result": _sendable(result)})


def not_authenticated() -> EndpointResponse:
    """400 to a call from outside: the function returned before a step, which is how workflows turn a request away."""
    return _response(400, {"message": NOT_AUTHENTICATED, "workflowRunId": NO_RUN_ID})


def no_step_reached(message: str, run_id: str) -> EndpointResponse:
    """400 to a call of the engine whose function returned before its first step."""
    return _response(400, {"message": message, "workflowRunId": run_id})


def rejected(status: int, error: str, message: str) -> EndpointResponse:
    """A request that no workflow has seen."""
    return _response(status, {"error": error, "message": message})


def unsigned(error: SignatureInvalid) -> EndpointResponse:
    """401: nothing was run; `reason` is the stable name of what does not hold."""
    body = {"error": type(error).__name__, "reason": error.reason, "message": str(error)}
    return _response(error.status_code, body)


def failed(
    error: BaseException,
    *,
    step_name: str | None = None,
    retry: bool = True,
    show_stack: bool = False,
    secrets: Collection[str] = (),
) -> EndpointResponse:
    """The answer for an exception: 489 when it must not be tried again, 429 when it names a time, else 500.

    `secrets` are texts that do not leave in it.
    """
    body = {
        "error": _NAMES_ON_THE_WIRE.get(type(error), type(error).__name__),
        "message": message_of(error, secrets),
        "stack": stack_of(error, secrets) if show_stack else "",
    }
    headers = {}
    if step_name and (name := header_text(step_name)):
        headers[h.ERROR_STEP_NAME] = name
    if not retry or isinstance(error, NonRetryableError):
        headers[h.NON_RETRYABLE_ERROR] = "true"
        return _response(NON_RETRYABLE_STATUS, body, headers)
    if isinstance(error, RetryAfterError):
        try:
            headers[h.RETRY_AFTER] = retry_after(error.retry_after)
            return _response(429, body, headers)
        except (ValueError, TypeError) as cause:
            body["message"] = f"{body['message']} ({message_of(cause)})"
    return _response(500, body, headers)


def retry_after(value: float | timedelta | datetime | str) -> str:
    """Whole seconds, or the HTTP date of an instant, rounded up: no clock is read here.

    Raises ValueError or TypeError for what is neither.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"RetryAfterError got {value!r}, which has no time zone.")
        instant = value.astimezone(UTC)
        if instant.microsecond:
            instant = instant.replace(microsecond=0) + timedelta(seconds=1)
        return format_datetime(instant, usegmt=True)
    return str(math.ceil(to_seconds(value)))


def header_text(text: str) -> str:
    """Text as a header's value: one line; what is not ASCII travels as UTF-8, in the Latin-1 that WSGI wants."""
    line = _CONTROL.sub(" ", text).strip()
    return line if line.isascii() else line.encode("utf-8", "replace").decode("latin-1")


def _response(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> EndpointResponse:
    return EndpointResponse(status, {**HEADERS, **headers} if headers else HEADERS, _encode(body))


def message_of(error: BaseException, secrets: Collection[str] = ()) -> str:
    """An exception's text without these secrets, cut and made sendable."""
    try:
        text = str(error) or type(error).__name__
    except Exception:  # an exception whose own text fails must not hide what happened
        text = f"{type(error).__name__} (its message could not be made)"
    return _sendable(scrub(text, secrets)[:LONGEST_MESSAGE])


def stack_of(error: BaseException, secrets: Collection[str] = ()) -> str:
    """The traceback without these secrets; of a long one the end, where the cause is."""
    try:
        lines = traceback.format_exception(type(error), error, readable(error.__traceback__))
        return _sendable(scrub("".join(lines), secrets)[-LONGEST_STACK:])
    except Exception:
        return ""


def _sendable(text: str) -> str:
    """Lone surrogates cannot be sent; they are shown as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()

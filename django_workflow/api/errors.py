"""Errors as problem details, `application/problem+json`. Source: RFC 9457.

    {"type": "urn:django-workflow:problem:not_found", "title": "Not Found", "status": 404,
     "detail": "There is no run “wfr_1” that you may see.", "code": "not_found"}

`code` is the stable name by itself; `errors` (field -> sentences) is there where values of the request are to blame.
DRF's own exceptions keep their status and headers; the package's errors get theirs here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.db import InterfaceError, OperationalError
from django.utils.translation import gettext as _
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import exception_handler

from django_workflow.control.actions import ActionRefused
from django_workflow.errors import EngineError, EngineUnavailable, PayloadInvalid, RequestRejected, RunEnded
from django_workflow.realtime.forms import FormInvalid

logger = logging.getLogger("django_workflow.api")

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:django-workflow:problem:"

FieldErrors = Mapping[str, list[str]]


class Conflict(exceptions.APIException):
    """The state of things does not allow it (any more)."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class LengthRequired(exceptions.APIException):
    status_code = status.HTTP_411_LENGTH_REQUIRED
    default_code = "length_required"


class TooLarge(exceptions.APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler of these views. None: not ours, so it is raised on."""
    if isinstance(error, PayloadInvalid):
        text = str(error)
        return _response(status.HTTP_400_BAD_REQUEST, "payload_invalid", text, {error.field: [text]})
    if isinstance(error, ActionRefused):
        return _response(status.HTTP_409_CONFLICT, "conflict", error.why)
    if isinstance(error, RunEnded):
        return _response(status.HTTP_409_CONFLICT, "run_ended", str(error))
    if isinstance(error, EngineUnavailable):
        logger.warning("the engine did not answer: %s", error)
        return _response(status.HTTP_503_SERVICE_UNAVAILABLE, "unavailable", _("The workflow engine does not answer."))
    if isinstance(error, OperationalError | InterfaceError):
        logger.error("the database did not answer: %s", error, exc_info=error)
        text = _("The database does not answer. Try again.")
        return _response(status.HTTP_503_SERVICE_UNAVAILABLE, "unavailable", text)
    if isinstance(error, EngineError):
        logger.error("the engine refused a request: %s", error)
        return _response(status.HTTP_502_BAD_GATEWAY, "engine", _("The workflow engine refused the request."))
    if isinstance(error, FormInvalid):
        return _response(error.status_code, "form_invalid", str(error), error.fields)
    if isinstance(error, RequestRejected):
        return _response(error.status_code, "rejected", str(error))
    response = exception_handler(error, context)
    if response is not None:
        response.data = _described(response)
    return response


def problem(status_code: int, code: str, detail: str, errors: FieldErrors | None = None) -> dict[str, Any]:
    """The members of one problem."""
    members = {
        "type": TYPE_PREFIX + code,
        "title": HTTPStatus(status_code).phrase,
        "status": status_code,
        "detail": detail,
        "code": code,
    }
    return {**members, "errors": dict(errors)} if errors else members


def _response(status_code: int, code: str, detail: str, errors: FieldErrors | None = None) -> Response:
    return Response(problem(status_code, code, detail, errors), status=status_code)


def _described(response: Response) -> dict[str, Any]:
    """DRF's error detail in our form: its first sentence, and all of them by field."""
    found: Any = response.data
    errors: dict[str, list[str]] = {}
    if isinstance(found, Mapping) and "detail" in found:
        first = _sentences(found["detail"])[0]
    elif isinstance(found, Mapping) and found:
        by_field = {str(name): _sentences(value) for name, value in found.items()}
        errors = {name: [str(sentence) for sentence in sentences] for name, sentences in by_field.items()}
        first = next(iter(by_field.values()))[0]
    else:
        first = _sentences(found)[0]
    code = str(getattr(first, "code", "") or "error")
    return problem(response.status_code, code, str(first), errors)


def _sentences(detail: Any) -> list[Any]:
    """All sentences of a detail, however deep; at least one."""
    if isinstance(detail, Mapping):
        detail = list(detail.values())
    if isinstance(detail, list):
        return [sentence for item in detail for sentence in _sentences(item)] or [""]
    return [detail]

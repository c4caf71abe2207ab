"""Errors as JSON: `{"error": sentence, "type": stable name}`, and `field` where one value is to blame.

DRF's own exceptions keep their status and headers; the package's errors get theirs here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import exception_handler

from django_workflow.errors import EngineError, EngineUnavailable, PayloadInvalid, RequestRejected, RunEnded
from django_workflow.realtime.forms import FormInvalid

logger = logging.getLogger("django_workflow.api")


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
        return _response(status.HTTP_400_BAD_REQUEST, str(error), "payload_invalid", error.field)
    if isinstance(error, RunEnded):
        return _response(status.HTTP_409_CONFLICT, str(error), "run_ended")
    if isinstance(error, EngineUnavailable):
        logger.warning("the engine did not answer: %s", error)
        return _response(status.HTTP_503_SERVICE_UNAVAILABLE, _("The workflow engine does not answer."), "unavailable")
    if isinstance(error, EngineError):
        logger.error("the engine refused a request: %s", error)
        return _response(status.HTTP_500_INTERNAL_SERVER_ERROR, _("The workflow engine refused the request."), "engine")
    if isinstance(error, FormInvalid):
        data = {"error": str(error), "type": "form_invalid", "fields": error.fields}
        return Response(data, status=error.status_code)
    if isinstance(error, RequestRejected):
        return _response(error.status_code, str(error), "rejected")
    response = exception_handler(error, context)
    if response is not None:
        response.data = _described(response)
    return response


def _response(status_code: int, message: str, kind: str, field: str | None = None) -> Response:
    data = {"error": message, "type": kind}
    return Response(data if field is None else {**data, "field": field}, status=status_code)


def _described(response: Response) -> dict[str, str]:
    """DRF's error detail in our form: the first message, and the field that it is about."""
    detail: Any = response.data
    field = None
    if isinstance(detail, Mapping) and "detail" in detail:
        detail = detail["detail"]
    elif isinstance(detail, Mapping) and detail:
        field, detail = next(iter(detail.items()))
    while isinstance(detail, list) and detail:
        detail = detail[0]
    described = {"error": str(detail), "type": str(getattr(detail, "code", "") or "error")}
    return described if field is None else {**described, "field": str(field)}

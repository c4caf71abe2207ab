"""Signing keys, and whether the engine can work."""

from __future__ import annotations

import logging

import msgspec
from django.db import InterfaceError, OperationalError, connections

from django_workflow.conf import get_settings
from django_workflow.engine import signing_keys
from django_workflow.engine.http_api.request import ApiRequest, ApiResponse, Route, answer
from django_workflow.errors import EngineError, Misconfigured

logger = logging.getLogger("django_workflow.engine")


class Keys(msgspec.Struct, frozen=True):
    """`current` signs deliveries; receivers accept both."""

    current: str
    next: str


class Readiness(msgspec.Struct, frozen=True):
    """Whether the database answers."""

    ready: bool


def get_keys(request: ApiRequest) -> Keys:
    pair = signing_keys.signing_pair()
    return Keys(pair.current, pair.next)


def rotate_keys(request: ApiRequest) -> Keys:
    """The next key becomes the current one. Raises EngineError (409) for keys that stand in the project's settings."""
    try:
        pair = signing_keys.rotate()
    except Misconfigured as error:
        raise EngineError(str(error), status=409) from error
    return Keys(pair.current, pair.next)


def readiness(request: ApiRequest) -> ApiResponse:
    """For load balancers and probes: 200, or 503 when the database does not answer."""
    try:
        with connections[get_settings().database].cursor() as cursor:
            cursor.execute("SELECT 1")
    except (OperationalError, InterfaceError) as error:
        logger.error("The engine is not ready: the database does not answer: %s", error)
        return answer(Readiness(ready=False), 503)
    return answer(Readiness(ready=True))


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/keys", get_keys, "The signing keys.", answer=Keys),
    Route("POST", "/v2/keys/rotate", rotate_keys, "Make the next key the current one.", answer=Keys),
    Route("GET HEAD", "/v2/readiness", readiness, "Whether the engine can work.", answer=Readiness, public=True),
)

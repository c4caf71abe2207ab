"""The engine's API as clients see it: requests through Django's handler, with the path as it was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from django.http import HttpResponse
from django.test import Client as Browser
from django.test import override_settings

from django_workflow.engine.signing_keys import engine_token

MOUNT = "/workflows/qstash"


@dataclass
class Answer:
    """What came back; `json` is its body."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


class Api:
    """Calls the API. `target` starts with `/v2` and is sent as it stands, as servers hand it on in RAW_URI."""

    def __init__(self) -> None:
        self.browser = Browser(enforce_csrf_checks=True, raise_request_exception=True)
        self.token: str | None = engine_token()

    def __call__(
        self,
        method: str,
        target: str,
        body: bytes | str | object = b"",
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> Answer:
        """`body`: bytes or text as they are, anything else as JSON. `extra` goes to the request's environ."""
        if not isinstance(body, bytes):
            body = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
        path = MOUNT + target
        sent = dict(headers or {})
        content_type = next((sent.pop(name) for name in list(sent) if name.lower() == "content-type"), "")
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        extra = {"RAW_URI": path, **extra}
        response: HttpResponse = self.browser.generic(  # type: ignore[assignment]
            method, path, body, content_type=content_type, headers=sent, **extra
        )
        return Answer(response.status_code, response.content, dict(response.items()))

    def get(self, target: str, **options: Any) -> Answer:
        return self("GET", target, **options)

    def post(self, target: str, body: bytes | str | object = b"", **options: Any) -> Answer:
        return self("POST", target, body, **options)

    def delete(self, target: str, body: bytes | str | object = b"", **options: Any) -> Answer:
        return self("DELETE", target, body, **options)


@pytest.fixture(autouse=True)
def _served() -> Iterator[None]:
    with override_settings(DJANGO_WORKFLOW={"engine_api": True}):
        yield


@pytest.fixture
def api(_served: None) -> Api:
    return Api()

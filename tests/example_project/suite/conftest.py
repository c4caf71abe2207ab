from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.core.management import call_command
from django.test import Client

from django_workflow.testing import CallAnswer, mock_calls
from django_workflow.testing.calls import Call, CallRecorder

pytest_plugins = ["django_workflow.testing.pytest_plugin"]


@pytest.fixture(autouse=True)
def _quick_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def _quick_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("example_project.shop.notes.SECONDS_PER_WORD", 0)


@pytest.fixture
def demo(db: Any) -> None:
    """The rows that `make demo` loads."""
    call_command("load_demo", stdout=io.StringIO())


@pytest.fixture
def base_url(settings: Any) -> str:
    """The site knows its own address: deliveries go there by HTTP, and webhooks have one."""
    settings.DJANGO_WORKFLOW = {**settings.DJANGO_WORKFLOW, "base_url": settings.DEMO_ORIGIN}
    return str(settings.DEMO_ORIGIN)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[CallRecorder]:
    """The demo's own services and addresses, reached without a server."""

    def answer(call: Call) -> CallAnswer:
        response = Client().generic(
            call.method, urlsplit(call.url).path, call.body, "application/json", headers=dict(call.headers)
        )
        return CallAnswer(response.status_code, response.content, dict(response.headers))

    def post(url: str, *, json: Any, timeout: float) -> httpx.Response:
        response = Client().post(urlsplit(url).path, json, "application/json")
        return httpx.Response(response.status_code, content=response.content, request=httpx.Request("POST", url))

    monkeypatch.setattr("example_project.shop.services.httpx.post", post)
    with mock_calls(answer) as recorder:
        yield recorder

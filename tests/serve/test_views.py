"""The door for Django's requests: what they may be, and what reaches the handler."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.db import OperationalError, connections
from django.http import HttpResponse
from django.test import AsyncClient, RequestFactory, override_settings
from django.test import Client as Browser

from django_workflow.authoring.decorator import workflow
from django_workflow.authoring.registry import registry
from django_workflow.client import transports
from django_workflow.client.session import SESSION_KEY
from django_workflow.machine_views import read_body
from django_workflow.protocol.signature import sign
from django_workflow.protocol.steps import JournalMessage, decode_step, encode_messages
from django_workflow.serve import keys, views
from tests.client.fakes import RecordingTransport

PATH = "/workflows/serve/checkout/"
URL = f"https://workflow.internal{PATH}"
KEY = "sig_current_0123456789abcdef0123456789"


class Session:
    run_id = "wfr_1"

    def replay(self) -> None:
        return None

    def go_on(self) -> bool:
        return False

    def step_started(self, step: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _workflow(transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(transports, "_factory", lambda: transport)
    monkeypatch.setattr(transports, "_transport", None)
    with registry.isolated(), override_settings(DJANGO_WORKFLOW={"current_signing_key": KEY}):

        @workflow
        def checkout(ctx: Any) -> None:
            ctx.run("charge", lambda: ctx.headers.get("x-user"))

        yield


def steps_delivery() -> tuple[bytes, dict[str, str]]:
    body = encode_messages([JournalMessage("msg_0", "{}")])
    return body, {"Upstash-Workflow-Sdk-Version": "1", "Upstash-Workflow-RunId": "wfr_1", "X-User": "grün"}


def signed(body: bytes, url: str = URL) -> dict[str, str]:
    return {"Upstash-Signature": sign(url, body, KEY, time.time())}


def post(body: bytes = b"{}", path: str = PATH, **options: Any) -> HttpResponse:
    browser = Browser(enforce_csrf_checks=True)
    response: Any = browser.post(path, body, content_type="application/json", **options)
    return response  # type: ignore[no-any-return]


def test_a_signed_delivery_is_served(transport: RecordingTransport) -> None:
    body, headers = steps_delivery()
    response = post(body, headers={**headers, **signed(body)})
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response["Upstash-Workflow-Sdk-Version"] == "1"
    assert json.loads(response.content) == {"workflowRunId": "wfr_1", "finishCondition": "success"}
    (message,) = transport.messages
    assert message.destination == URL  # by name and settings, whatever the Host header says
    assert decode_step(message.body).out == '"grün"'


async def test_it_is_served_under_asgi_too(transport: RecordingTransport) -> None:
    body, headers = steps_delivery()
    response = await AsyncClient().post(
        PATH, body, content_type="application/json", headers={**headers, **signed(body)}
    )
    assert response.status_code == 200
    assert len(transport.messages) == 1


@override_settings(
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ]
)
def test_neither_login_nor_csrf_token_is_asked_for() -> None:
    body, headers = steps_delivery()
    assert post(body, headers={**headers, **signed(body)}).status_code == 200
    assert Browser().get("/workflows/serve/-/ping/").status_code == 200


def test_no_database_opens_a_transaction_around_a_call() -> None:
    assert getattr(views.serve, "_non_atomic_requests", None) == set(connections)
    assert getattr(views.ping, "_non_atomic_requests", None) == set(connections)


def test_an_unsigned_request_is_a_401_with_its_reason(transport: RecordingTransport) -> None:
    response = post()
    assert response.status_code == 401
    assert json.loads(response.content)["reason"] == "missing"
    assert transport.sent == []


def test_the_query_belongs_to_the_signed_url() -> None:
    body, headers = steps_delivery()
    with override_settings(DJANGO_WORKFLOW={"current_signing_key": KEY, "base_url": "https://shop.example"}):
        url = f"https://shop.example{PATH}?a=1"
        assert post(body, f"{PATH}?a=1", headers={**headers, **signed(body, url)}).status_code == 200
        assert post(body, f"{PATH}?a=2", headers={**headers, **signed(body, url)}).status_code == 401


@pytest.mark.parametrize("method", ["get", "put", "delete", "head", "options"])
def test_other_methods_are_a_405(method: str) -> None:
    response = getattr(Browser(), method)(PATH)
    assert response.status_code == 405
    assert response["Allow"] == "POST"
    if method != "head":
        assert "Only POST" in json.loads(response.content)["message"]


def test_an_unknown_workflow_is_a_404_that_tells_an_engine_the_near_names() -> None:
    path = "/workflows/serve/chekout/"
    to_engine = post(path=path, headers=signed(b"{}", f"https://workflow.internal{path}"))
    assert to_engine.status_code == 404
    assert "Did you mean 'checkout'?" in json.loads(to_engine.content)["message"]
    to_stranger = post(path=path)
    assert to_stranger.status_code == 404
    assert "checkout" not in json.loads(to_stranger.content)["message"]


def test_an_alias_is_served_under_its_own_url(transport: RecordingTransport) -> None:
    @workflow(name="new", aliases=["old"])
    def renamed(ctx: Any) -> None:
        ctx.run("a", lambda: 1)

    path = "/workflows/serve/old/"
    body, headers = steps_delivery()
    response = post(body, path, headers={**headers, **signed(body, f"https://workflow.internal{path}")})
    assert response.status_code == 200
    assert transport.messages[0].destination == f"https://workflow.internal{path}"  # a run keeps its URL


# The session


def in_process(session: object, **meta: Any) -> Any:
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": PATH,
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "443",
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "https",
        "HTTP_UPSTASH_WORKFLOW_SDK_VERSION": "1",
        "HTTP_UPSTASH_WORKFLOW_RUNID": "wfr_1",
        SESSION_KEY: session,
        **meta,
    }
    return WSGIHandler().get_response(WSGIRequest(environ))


def test_a_delivery_with_a_session_needs_no_signature_and_no_body(transport: RecordingTransport) -> None:
    transport.journal = (JournalMessage("msg_0", "{}"),)
    assert in_process(Session()).status_code == 200
    assert len(transport.messages) == 1


@pytest.mark.parametrize("forged", ["a session", b"a session", ""])
def test_text_in_the_environ_is_no_session(forged: object, transport: RecordingTransport) -> None:
    assert in_process(forged).status_code == 401
    assert transport.sent == []


def test_no_header_makes_a_session() -> None:
    for name in (SESSION_KEY, "Django-Workflow.Session", "django_workflow_session"):
        request = RequestFactory().post(PATH, headers={name: "x"})
        assert views._session(request) is None


# Bodies


def test_a_body_above_djangos_limit_is_read(transport: RecordingTransport) -> None:
    body = json.dumps({"a": "x" * 4_000_000}).encode()
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000):
        response = post(body, headers=signed(body))
    assert response.status_code == 200
    assert transport.messages[0].body == body


@pytest.mark.parametrize("says_so", [True, False])
def test_a_body_above_our_limit_is_a_413(monkeypatch: pytest.MonkeyPatch, says_so: bool) -> None:
    monkeypatch.setattr(views, "MAX_BODY_BYTES", 10)
    assert post(b"0123456789", headers=signed(b"0123456789")).status_code != 413
    length: dict[str, Any] = {} if says_so else {"CONTENT_LENGTH": "10"}
    request = RequestFactory().post(PATH, b"0123456789a", content_type="text/plain", **length)
    if says_so:
        assert views.serve(request, "checkout").status_code == 413
    else:  # the server cuts what is longer than was said
        assert read_body(request, 10) == b"0123456789"


def test_a_chunked_body_under_wsgi_is_a_411() -> None:
    """WSGI servers hand on none of it, so it would look like an empty body."""
    request = RequestFactory().post(PATH, headers={"Transfer-Encoding": "chunked"})
    request.META["CONTENT_LENGTH"] = ""
    response = views.serve(request, "checkout")
    assert response.status_code == 411
    assert json.loads(response.content)["error"] == "LengthRequired"


def test_a_chunked_body_under_asgi_is_read() -> None:
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": [(b"transfer-encoding", b"chunked")]}
    assert read_body(ASGIRequest(scope, io.BytesIO(b"{}")), 10) == b"{}"


def test_a_client_that_goes_away_is_a_400() -> None:
    class Gone(io.BytesIO):
        def read(self, *args: Any) -> bytes:
            raise OSError("connection reset")

    request = RequestFactory().post(PATH, b"12345", content_type="text/plain")
    request._stream = Gone()
    assert views.serve(request, "checkout").status_code == 400


def test_a_body_that_a_middleware_has_read_is_still_there(transport: RecordingTransport) -> None:
    request = RequestFactory().post(PATH, b"{}", content_type="application/json", headers=signed(b"{}"))
    assert request.body == b"{}"
    assert views.serve(request, "checkout").status_code == 200


# The rest


def test_ping_answers_as_an_endpoint() -> None:
    response = Browser().post("/workflows/serve/-/ping/")
    assert response.status_code == 200
    assert json.loads(response.content) == {"ok": True}
    assert response["Upstash-Workflow-Sdk-Version"] == "1"


def test_a_failing_step_is_not_logged_as_a_broken_page(caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    def failing(ctx: Any) -> None:
        raise ValueError("no")

    body, headers = steps_delivery()
    path = "/workflows/serve/failing/"
    assert post(body, path, headers={**headers, **signed(body, URL.replace("checkout", "failing"))}).status_code == 500
    assert {record.name for record in caplog.records} == {"django_workflow.serve"}


def test_a_database_that_is_down_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here: when the engine's keys are asked for."""

    def down() -> list[str]:
        raise OperationalError("no connection")

    monkeypatch.setattr(keys, "_provider", down)
    with override_settings(DJANGO_WORKFLOW={}):
        assert post().status_code == 503

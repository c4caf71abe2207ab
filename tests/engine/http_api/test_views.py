"""The engine's door for HTTP: what reaches the API, byte for byte, and what does not."""

from __future__ import annotations

import io
import json
import logging
from typing import Any
from urllib.parse import unquote

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.db import DataError, OperationalError
from django.http import HttpRequest
from django.test import RequestFactory, override_settings

from django_workflow.engine import limits
from django_workflow.engine.http_api import routes, views
from django_workflow.engine.http_api.request import ApiRequest, Route
from django_workflow.engine.signing_keys import engine_token
from django_workflow.machine_views import undecoded
from django_workflow.models import MessageLog
from tests.engine.http_api.conftest import MOUNT, Answer, Api

RAW = "/v2/publish/https://host.example/a%2Fb//c%3Fd/%20x?x=1&y=%2F%26&x=2"
DESTINATION = RAW.removeprefix("/v2/publish/")


def published_url() -> str:
    return MessageLog.objects.get().url


# When it is served


@pytest.mark.django_db
@pytest.mark.parametrize("settings", [{}, {"engine_api": False}])
def test_nothing_is_served_unless_the_setting_is_on(api: Api, settings: dict[str, Any]) -> None:
    with override_settings(DJANGO_WORKFLOW=settings):
        answer = api.post(RAW)
    assert answer.status == 404
    assert "engine_api" in answer.error
    assert not MessageLog.objects.exists()


def test_nothing_is_served_where_a_hosted_engine_works(api: Api) -> None:
    hosted = {"engine_api": True, "engine": "qstash", "token": "t", "base_url": "https://shop.example"}
    with override_settings(DJANGO_WORKFLOW=hosted):
        assert api.get("/v2/openapi.json").status == 404


@pytest.mark.django_db
def test_the_urls_can_be_included_alone_at_the_root(api: Api) -> None:
    with override_settings(ROOT_URLCONF="django_workflow.engine.http_api.urls"):
        headers = {"Authorization": f"Bearer {api.token}"}
        response = api.browser.post(RAW, b"", content_type="text/plain", headers=headers, RAW_URI=RAW)
    assert response.status_code == 200
    assert published_url() == DESTINATION


# The path as it was sent


@pytest.mark.django_db
def test_a_raw_destination_survives_byte_for_byte(api: Api) -> None:
    assert api.post(RAW).status == 200
    assert published_url() == DESTINATION


@pytest.mark.django_db
def test_slashes_and_query_survive_where_the_server_tells_no_undecoded_path(api: Api) -> None:
    answer = api.post("/v2/publish/https://host.example/a//b%20c?x=%2F", RAW_URI="")
    assert answer.status == 200
    assert published_url() == "https://host.example/a//b%20c?x=%2F"


def asgi(target: str, body: bytes = b"", *headers: tuple[bytes, bytes]) -> ASGIRequest:
    path, _, query = target.partition("?")
    sent = [(b"authorization", f"Bearer {engine_token()}".encode()), *headers]
    scope = {"type": "http", "method": "POST", "path": unquote(path), "raw_path": path.encode(), "headers": sent}
    scope |= {"query_string": query.encode(), "server": ("testserver", 80)}
    return ASGIRequest(scope, io.BytesIO(body))


@pytest.mark.django_db
def test_it_survives_under_asgi() -> None:
    request = asgi(MOUNT + RAW)
    response = views.engine_api(request, request.path.removeprefix(MOUNT + "/"))
    assert response.status_code == 200
    assert published_url() == DESTINATION


def wsgi(path: str, **meta: str) -> HttpRequest:
    return RequestFactory().get(path, **meta)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (wsgi("/api/qstash/v2/x/a/b", RAW_URI="/api/qstash/v2/x/a%2Fb?q=1"), "v2/x/a%2Fb"),
        (wsgi("/api/qstash/v2/x/a/b", REQUEST_URI="/api/qstash/v2/x/a%2Fb?q=1"), "v2/x/a%2Fb"),
        # the absolute form of a request through a proxy
        (wsgi("/api/qstash/v2/x/a/b", RAW_URI="http://h/api/qstash/v2/x/a%2Fb"), "v2/x/a%2Fb"),
        # the prefix is sent encoded
        (wsgi("/api/qstash/v2/x/a/b", RAW_URI="/%61pi/qstash/v2/x/a%2Fb"), "v2/x/a%2Fb"),
        # a piece of the prefix looks like the call
        (wsgi("/v2/qstash/v2/x/a/b", RAW_URI="/v2/qstash/v2/x/a%2Fb"), "v2/x/a%2Fb"),
        # at the root
        (wsgi("/v2/x/a/b", RAW_URI="/v2/x/a%2Fb"), "v2/x/a%2Fb"),
        # mounted below a path, which the server leaves in the URI, or which a proxy has cut off
        (wsgi("/qstash/v2/x/a/b", SCRIPT_NAME="/shop", RAW_URI="/shop/qstash/v2/x/a%2Fb"), "v2/x/a%2Fb"),
        (wsgi("/qstash/v2/x/a/b", SCRIPT_NAME="/shop", RAW_URI="/qstash/v2/x/a%2Fb"), "v2/x/a%2Fb"),
        # nothing is told, or something else
        (wsgi("/qstash/v2/x/a%3Fb%20c//d"), "v2/x/a%3Fb%20c//d"),
        (wsgi("/qstash/v2/x/a/b", RAW_URI="*"), "v2/x/a/b"),
        # UTF-8 that was sent as it is
        (wsgi("/v2/x/%C3%BC", RAW_URI="/v2/x/Ã¼"), "v2/x/ü"),
    ],
)
def test_the_undecoded_call_is_found_behind_any_mount(request_: HttpRequest, expected: str) -> None:
    tail = request_.path_info[request_.path_info.rindex("v2/x/") :]
    assert undecoded(request_, tail) == expected


def test_a_path_of_many_slashes_is_read_in_time() -> None:
    slashes = "/" * 100_000
    assert undecoded(wsgi(f"/q/v2{slashes}", RAW_URI=f"/q/v2{slashes}"), f"v2{slashes}") == f"v2{slashes}"


def seen(monkeypatch: pytest.MonkeyPatch, path: str = "/v2/echo/{rest...}", **values: Any) -> list[ApiRequest]:
    """Serve one route that remembers its requests."""
    found: list[ApiRequest] = []
    route = Route("GET POST", path, lambda request, **pieces: found.append(request), "", **values)
    monkeypatch.setattr(routes, "routes", lambda: (route,))
    routes._patterns.cache_clear()
    return found


@pytest.fixture(autouse=True)
def _real_routes() -> Any:
    yield
    routes._patterns.cache_clear()


def test_handlers_get_the_request_as_it_was_sent(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(monkeypatch)
    headers = {"X-User": "grün".encode().decode("latin-1"), "Content-Type": "text/x"}
    answer = api.post("/v2/echo/a%2Fb?x=%41", b"\xff\0", headers=headers, REMOTE_ADDR="192.0.2.7")
    assert answer.status == 200
    (request,) = found
    assert (request.method, request.target, request.body) == ("POST", "/v2/echo/a%2Fb?x=%41", b"\xff\0")
    assert request.caller_ip == "192.0.2.7"
    assert request.base == "http://testserver/workflows/qstash"
    assert request.headers["x-user"] == "grün"
    assert request.headers["content-type"] == "text/x"


def test_no_page_of_the_project_answers_instead(api: Api) -> None:
    """APPEND_SLASH redirects what no view takes; the door takes all of `v2`."""
    for target in ("/v2", "/v2/nothing", "/v2/publish"):
        assert api.get(target).status == 404
        assert api.post(target).status in (404, 405)
    assert api.get("/v2/none%0Asuch").status == 404


# Bodies


def test_a_body_above_the_limit_is_refused_unread(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(monkeypatch)
    monkeypatch.setattr(limits, "LARGEST_MESSAGE_BYTES", 10)
    assert api.post("/v2/echo/x", b"0123456789").status == 200
    assert api.post("/v2/echo/x", b"0123456789a").status == 413
    assert len(found) == 1

    class Unreadable(io.BytesIO):
        def read(self, *args: Any) -> bytes:
            raise AssertionError("the body was read")

    environ = RequestFactory().post(f"{MOUNT}/v2/echo/x", b"0123456789a", content_type="text/plain").environ
    environ |= {"wsgi.input": Unreadable(), "HTTP_AUTHORIZATION": f"Bearer {api.token}"}
    assert views.engine_api(WSGIRequest(environ), "v2/echo/x").status_code == 413


def test_a_batch_may_be_larger(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, "/v2/batch", largest=20)
    monkeypatch.setattr(limits, "LARGEST_MESSAGE_BYTES", 10)
    assert api.post("/v2/batch", b"0123456789a").status == 200
    assert api.post("/v2/batch", b"0123456789" * 3).status == 413


def test_a_public_call_may_be_as_large_as_a_payload(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, public=True)
    with override_settings(DJANGO_WORKFLOW={"engine_api": True, "max_payload_bytes": 10}):
        assert api.post("/v2/echo/x", b"0123456789").status == 200
        assert api.post("/v2/echo/x", b"0123456789a").status == 413


def test_djangos_own_limit_does_not_hold(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    (found, body) = (seen(monkeypatch), b"x" * 5000)
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000):
        assert api.post("/v2/echo/x", body).status == 200
    assert found[0].body == body


@pytest.mark.django_db
def test_a_chunked_body_under_wsgi_is_a_411(api: Api) -> None:
    """WSGI servers hand on none of it, so it would look like an empty body."""
    answer = api.post(RAW, headers={"Transfer-Encoding": "chunked"}, CONTENT_LENGTH="")
    assert answer.status == 411
    assert not MessageLog.objects.exists()


def test_a_chunked_body_under_asgi_is_read(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(monkeypatch)
    request = asgi("/v2/echo/x", b"{}", (b"transfer-encoding", b"chunked"))
    assert views.engine_api(request, "v2/echo/x").status_code == 200
    assert found[0].body == b"{}"


# Refusals


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("method", "target", "options", "status"),
    [
        ("GET", "/v2/none/such", {}, 404),
        ("PUT", "/v2/batch", {}, 405),
        ("POST", "/v2/batch", {"body": b"{"}, 400),
        ("POST", "/v2/batch", {"body": b'[{"destination": 1}]'}, 400),
        ("POST", "/v2/batch", {"body": b"[" * 100_000}, 400),
        ("POST", "/v2/batch", {"body": b'"\\ud800"'}, 400),
        ("POST", "/v2/batch", {"body": b"\xff"}, 400),
        ("POST", "/v2/publish/https://h.example/", {"headers": {"Upstash-Retries": "9" * 50_000}}, 400),
        ("POST", "/v2/publish/https://h.example/", {"headers": {"Upstash-Delay": "x"}}, 400),
        ("POST", "/v2/publish/https://h.example/", {"headers": {"Upstash-Not-Before": "9" * 300}}, 412),
        ("POST", "/v2/publish/no-such-group", {}, 404),
        ("DELETE", "/v2/workflows/runs?nonsense=1", {}, 400),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(
    api: Api, method: str, target: str, options: dict[str, Any], status: int
) -> None:
    answer = api(method, target, **options)
    assert answer.status == status, answer.body[:300]
    assert answer.error
    assert answer.headers["Content-Type"] == "application/json"
    assert not MessageLog.objects.exists()


def test_a_wrong_method_is_told_the_right_ones(api: Api) -> None:
    answer = api("PUT", "/v2/workflows/runs/wfr_1")
    assert answer.status == 405
    assert answer.headers["Allow"] == "DELETE, GET"


@pytest.mark.parametrize(
    ("error", "status"), [(OperationalError("gone"), 503), (DataError("value too long for type varchar(255)"), 400)]
)
def test_the_databases_refusals_are_told(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fails(request: ApiRequest) -> None:
        raise error

    monkeypatch.setattr(routes, "routes", lambda: (Route("GET", "/v2/fails", fails, ""),))
    routes._patterns.cache_clear()
    answer = api.get("/v2/fails")
    assert answer.status == status
    assert answer.error


def test_a_host_that_is_not_allowed_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch)
    with override_settings(MIDDLEWARE=[]):
        api.browser = type(api.browser)()
        answer = api.get("/v2/echo/x", HTTP_HOST="evil.example")
    assert answer.status == 400
    assert "ALLOWED_HOSTS" in answer.error


@pytest.mark.django_db
def test_the_token_is_never_logged(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    secret, api.token = api.token, None
    with caplog.at_level(logging.DEBUG):
        api.post(f"/v2/publish/no-such-group?qstash_token={secret}")
        api.get(f"/v2/none?qstash_token={secret}")
        api.get("/v2/none?qstash_token=wrong-secret")
    assert caplog.records
    assert str(secret) not in caplog.text
    assert "wrong-secret" not in caplog.text


def test_it_needs_no_csrf_token_and_no_login(api: Api) -> None:
    middleware = ["django.contrib.sessions.middleware.SessionMiddleware"]
    middleware += ["django.contrib.auth.middleware.AuthenticationMiddleware"]
    middleware += ["django.contrib.auth.middleware.LoginRequiredMiddleware"]
    middleware += ["django.middleware.csrf.CsrfViewMiddleware"]
    with override_settings(MIDDLEWARE=middleware):
        fresh = Api()
        assert fresh.post("/v2/openapi.json").status == 405
        assert fresh.get("/v2/openapi.json").status == 200


def test_the_description_lists_what_is_served(api: Api) -> None:
    described: Answer = api.get("/v2/openapi.json")
    assert "/v2/publish/{destination}" in json.loads(described.body)["paths"]

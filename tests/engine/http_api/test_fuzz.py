"""Requests that the API's own description allows, and many that it does not: no 500, and a refusal writes nothing.

The cases are made by schemathesis from the OpenAPI document that is served. Each runs in a savepoint of its own.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import pytest
import schemathesis
from django.apps import apps
from django.db import transaction
from django.test import Client as Browser
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode

from django_workflow.engine.http_api.openapi import document
from django_workflow.engine.http_api.routes import routes
from django_workflow.models import UrlGroup
from tests.engine.http_api.conftest import Api

pytestmark = pytest.mark.django_db

REFUSALS = range(400, 500)

description = document(routes())
schema = schemathesis.openapi.from_dict(description)
schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])


def rows() -> dict[str, int]:
    return {
        model.__name__: model._default_manager.count() for model in apps.get_app_config("django_workflow").get_models()
    }


def text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def target_of(case: Any) -> str:
    """The path and query as a client sends them: destinations raw, where nothing ends the line."""
    path = case.path
    for name, value in (case.path_parameters or {}).items():
        path = path.replace("{" + name + "}", quote(text(value), safe="/:?=&%"))
    query = [(name, text(one)) for name, value in (case.query or {}).items() for one in _listed(value)]
    return path + ("?" + urlencode(query) if query else "")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def headers_of(case: Any) -> dict[str, str]:
    """What servers let through as a header's value."""
    sent = {name: text(value) for name, value in (case.headers or {}).items()}
    return {
        name: value
        for name, value in sent.items()
        if value.isprintable() and value.isascii() and name.lower() not in ("authorization", "content-length")
    }


def body_of(case: Any) -> Any:
    if isinstance(case.body, bytes | str):
        return case.body
    return b"" if type(case.body).__name__ == "NotSet" else case.body


@schema.parametrize()
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_no_request_breaks_the_engine_and_no_refusal_writes(case: Any) -> None:
    api = Api()
    api.browser = Browser(raise_request_exception=False)
    with transaction.atomic():
        before = rows()
        answer = api(case.method, target_of(case), body_of(case), headers=headers_of(case))
        assert answer.status < 500, answer.body
        if answer.status in REFUSALS:
            assert "error" in answer.json
            assert rows() == before
        transaction.set_rollback(True)


def test_the_description_has_every_route() -> None:
    described = sum(len(operations) for operations in description["paths"].values())
    served = {
        (route.path.replace("...}", "}"), method)
        for route in routes()
        if not route.path.startswith("/v2/openapi")
        for method in (["POST"] if route.methods == "*" else route.methods.split())
    }
    assert described == len(served)


MALFORMED = [b"{", b"[1", b'"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 20_000, b"nul", b"{'a': 1}", b'{"a": NaN}']


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: repr(body[:8]))
def test_malformed_json_in_every_call_that_reads_json_is_a_400_and_writes_nothing(api: Api, body: bytes) -> None:
    UrlGroup.objects.create(name="g", created_at="2026-01-01T00:00Z", updated_at="2026-01-01T00:00Z")
    before = rows()
    asked = 0
    for route in routes():
        if route.body is None:
            continue
        for method in route.methods.split():
            asked += 1
            path = route.path.replace("{name}", "g")
            answer = api(method, path, body)
            assert answer.status == 400, (method, path, answer.status, answer.body)
            assert rows() == before, (method, path)
    assert asked >= 5


def test_hostile_values_of_message_headers_write_nothing_or_what_they_say(api: Api) -> None:
    before = rows()
    for name, value in [
        ("Upstash-Delay", "1" * 400 + "d"),
        ("Upstash-Not-Before", "1e308"),
        ("Upstash-Not-Before", "253402300800000"),
        ("Upstash-Retries", "9" * 30),
        ("Upstash-Retry-Delay", "(" * 5000),
        ("Upstash-Retry-Delay", "pow(9,pow(9,9))" * 3),
        ("Upstash-Timeout", "-1s"),
        ("Upstash-Flow-Control-Key", "k" * 10_000),
        ("Upstash-Flow-Control-Value", "parallelism=" + "9" * 40),
        ("Upstash-Callback", "javascript:alert(1)"),
        ("Upstash-Label", "a b"),
        ("Upstash-Redact-Fields", "everything"),
        ("Upstash-Method", "CONNECT"),
        ("Upstash-Forward-X-Long", "x" * 50_000),
        ("Upstash-Deduplication-Id", "d" * 50_000),
        ("Upstash-Cron", "* * *"),
    ]:
        headers = {name: value}
        if name == "Upstash-Flow-Control-Value":
            headers["Upstash-Flow-Control-Key"] = "k"
        answer = api.post("/v2/publish/https://example.com/", b"{}", headers=headers)
        assert answer.status < 500, (name, answer.body)
        if answer.status in REFUSALS:
            assert rows() == before, name
        else:
            before = rows()

"""Bodies that are made to break who reads them: deep, huge, malformed, too large. Each is a 4xx, and writes nothing.

What a stranger may store all the same (the body of a webhook, an answer of a call) breaks no page that shows it.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from django.apps import apps
from django.test import Client
from django.urls import URLPattern

from django_workflow.api.urls import urlpatterns
from django_workflow.client.urls import workflow_url
from django_workflow.engine import signing_keys
from django_workflow.models import Run
from django_workflow.protocol.signature import sign
from django_workflow.testing.factories import make_run, make_step, make_waiter
from tests.admin.builders import make_dead_letter, make_event, make_result, make_schedule, make_user
from tests.api import samples
from tests.api.conftest import as_user

pytestmark = pytest.mark.django_db

DEEP = [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 3000 + b"]" * 3000, b'{"a":' * 3000 + b"1" + b"}" * 3000]
HUGE = [b"9" * 100_000, b"1e999999", b"-1e400", b'{"order_id": 1' + b"0" * 5000 + b', "email": "a"}']
MALFORMED = [
    b"{",
    b'"',
    b"\xff\xfe",
    b"nul",
    b"NaN",
    b"Infinity",
    b"{'a': 1}",
    b'{"a": 1,}',
    b"\x00",
    b'"\\ud800"',
    b"{}{}",
]


def rows() -> dict[str, int]:
    models = apps.get_app_config("django_workflow").get_models()
    return {model.__name__: model._base_manager.count() for model in models}


def posts() -> list[str]:
    """The address of every endpoint of the API that takes a POST."""
    known = {"run_id": "wfr_1", "name": samples.PLACE_ORDER, "event_id": "approve-42", "key": "0" * 32}
    found = []
    for pattern in urlpatterns:
        if isinstance(pattern, URLPattern) and hasattr(getattr(pattern.callback, "cls", None), "post"):
            path = str(pattern.pattern)
            for name, converter in pattern.pattern.converters.items():
                kind = type(converter).__name__.removesuffix("Converter").lower()
                value = known.get(name, "00000000-0000-0000-0000-000000000000" if kind == "uuid" else "x")
                for prefix in ("str", "path", "slug", "uuid"):
                    path = path.replace(f"<{prefix}:{name}>", value)
            found.append(f"/workflows/api/{path}")
    return found


@pytest.fixture
def boss() -> Any:
    client = as_user(make_user("boss", superuser=True))
    client.raise_request_exception = False
    return client


def test_the_posts_are_found() -> None:
    assert len(posts()) >= 3
    assert all("<" not in url for url in posts())


@pytest.mark.parametrize("body", [*DEEP, *HUGE, *MALFORMED], ids=lambda body: repr(body[:12]))
def test_no_post_of_the_api_breaks_on_it(boss: Any, body: bytes) -> None:
    make_waiter(make_run(run_id="wfr_1", status=Run.Status.WAITING), event_id="approve-42")
    for url in posts():
        before = rows()
        response = boss.generic("POST", url, body, content_type="application/json")
        assert response.status_code < 500, (url, response.content[:300])
        if response.status_code >= 400:
            assert rows() == before, url


@pytest.mark.parametrize("body", [*DEEP, *HUGE, *MALFORMED], ids=lambda body: repr(body[:12]))
def test_no_workflow_s_endpoint_breaks_on_it(body: bytes) -> None:
    url = workflow_url(samples.PLACE_ORDER)
    signature = sign(url, body, signing_keys.signing_pair().current, time.time())
    for headers in ({}, {"Upstash-Workflow-Sdk-Version": "1", "Upstash-Workflow-RunId": "wfr_x"}):
        response = Client(raise_request_exception=False).post(
            f"/workflows/serve/{samples.PLACE_ORDER}/",
            body,
            content_type="application/json",
            headers={"Upstash-Signature": signature, **headers},
        )
        # 500 is what the protocol answers to a delivery that it cannot read, so that it is tried again.
        assert response.status_code in (400, 489, 500), response.content[:300]
        assert "error" in response.json()
    assert not Run.objects.exists()


def test_of_two_keys_of_one_name_the_run_gets_what_was_checked(boss: Any) -> None:
    url = f"/workflows/api/workflows/{samples.PLACE_ORDER}/trigger/"
    for first, last, status in (("1", "7", 200), ('"no number"', "7", 400), ("7", '"no number"', 400)):
        body = f'{{"order_id": {first}, "order_id": {last}, "email": "a", "email": "b"}}'.encode()
        assert boss.generic("POST", url, body, content_type="application/json").status_code == status
    assert json.loads(Run.objects.get().payload) == {"order_id": 7, "email": "b"}


# What is stored all the same

DEPTHS = [99, 101, 500, 900, 990, 2000, 50_000]


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("depth", DEPTHS)
def test_deep_values_break_no_page(client: Client, boss: Any, depth: int) -> None:
    text = nested(depth)
    run = make_run(run_id="wfr_1", status=Run.Status.RETRYING, payload=text, result=text)
    make_result(make_step(run), [], out=text)
    make_event(run, type="stepFinish")
    run.journal.update(body=json.dumps({"stepId": 1, "stepName": "s", "stepType": "Run", "concurrent": 1, "out": text}))
    make_schedule(payload=text)
    make_dead_letter(run, response_body=text)
    check_pages(client, boss, run)


@pytest.mark.parametrize("text", ["9" * 5000, "1e400", "NaN", '{"a": 1e999}', "\x01", '"\\u0000"', '"\\ud800"'])
def test_odd_values_break_no_page(client: Client, boss: Any, text: str) -> None:
    run = make_run(run_id="wfr_1", status=Run.Status.RETRYING, payload=text, result=text)
    make_result(make_step(run), [], out=text)
    check_pages(client, boss, run)


@pytest.mark.parametrize("text", [nested(990), nested(50_000), "9" * 5000, "\x00\xff", '{"headers": 1, "status": []}'])
def test_hostile_answers_of_calls_and_webhooks_break_no_page(client: Client, boss: Any, text: str) -> None:
    run = make_run(run_id="wfr_1", status=Run.Status.RETRYING)
    out = base64.b64encode(text.encode()).decode()
    for kind, value in (("Call", text), ("Wait", out), ("WaitForWebhook", out)):
        step = make_step(run, step_type=kind)
        make_result(step, [])
        body = {"stepId": step.step_id, "stepName": "s", "stepType": kind, "concurrent": 1, "out": value}
        run.journal.filter(step_id=step.step_id).update(body=json.dumps(body))
    check_pages(client, boss, run)


def check_pages(client: Client, boss: Any, run: Run) -> None:
    client.force_login(make_user("root", superuser=True))
    client.raise_request_exception = False
    for view in ("timeline", "steps", "events", "attempts", "raw"):
        response = client.get(f"/admin/django_workflow/run/{run.pk}/change/", {"view": view})
        assert response.status_code == 200, view
    for path in ("", "steps/", "events/"):
        response = boss.get(f"/workflows/api/runs/wfr_1/{path}")
        assert response.status_code == 200, path
        json.loads(response.content)
    for path in ("schedules/", "dead-letters/"):
        assert boss.get(f"/workflows/api/{path}").status_code == 200
    for form in ("json", "csv"):
        exported = client.get(f"/admin/django_workflow/run/export.{form}")
        assert b"wfr_1" in b"".join(exported.streaming_content)  # type: ignore[attr-defined]
    assert client.get("/workflows/realtime/run/wfr_1/").status_code == 200


# Sizes


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/workflows/api/workflows/{samples.ANYTHING}/trigger/", 413),
        ("/workflows/api/events/approve-42/notify/", 413),
        ("/workflows/hooks/wfr_1/e/", 413),
        (f"/workflows/serve/{samples.ANYTHING}/", 401),  # read up to its own limit, and unsigned
    ],
)
def test_a_body_of_20_mb_is_refused(boss: Any, path: str, status: int) -> None:
    body = b'"' + b"x" * 20_000_000 + b'"'
    response = boss.generic("POST", path, body, content_type="application/json")
    assert response.status_code == status, response.content[:200]
    assert not Run.objects.exists()


def test_headers_of_50000_characters_are_borne(boss: Any) -> None:
    long = "x" * 50_000
    headers = {"X-Long": long, "X-Workflow-Token": long, "Upstash-Signature": long, "Upstash-Label": long}
    for path in ("api/runs/", "api/waiters/", "health/?check=database", "realtime/poll/?channel=wfr_1"):
        assert boss.get(f"/workflows/{path}", headers=headers).status_code < 500, path
    for path in ("api/events/e/notify/", f"serve/{samples.ANYTHING}/", "hooks/wfr_1/e/"):
        response = boss.generic("POST", f"/workflows/{path}", b"{}", content_type="application/json", headers=headers)
        assert response.status_code in (400, 401, 403, 404), path

"""Deliveries over the network: forged, altered, stale and replayed ones do nothing, at the door that engines use."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from django.apps import apps
from django.test import Client

from django_workflow import WorkflowContext, workflow
from django_workflow.authoring.registry import registry
from django_workflow.client.urls import workflow_url
from django_workflow.engine import signing_keys
from django_workflow.engine.http_api import auth
from django_workflow.engine.http_api.routes import routes
from django_workflow.models import JournalEntry, Run
from django_workflow.protocol import signature
from django_workflow.protocol.signature import body_hash, sign
from django_workflow.realtime import access
from django_workflow.testing import run_workflows

pytestmark = pytest.mark.django_db

BODY = b'{"order": 1}'
done: list[str] = []


@pytest.fixture
def url() -> Any:
    with registry.isolated():

        @workflow
        def ship(ctx: WorkflowContext[Any]) -> None:
            ctx.run("pack", lambda: done.append("packed"))

        @workflow
        def other(ctx: WorkflowContext[Any]) -> None:
            ctx.run("pack", lambda: done.append("other"))

        done.clear()
        yield workflow_url("ship")


def post(body: bytes = BODY, path: str = "/workflows/serve/ship/", **headers: str) -> Any:
    return Client(raise_request_exception=False).post(path, body, content_type="application/json", headers=headers)


def key() -> str:
    return signing_keys.signing_pair().current


def claims(url: str, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return {"iss": "Upstash", "sub": url, "exp": now + 60, "nbf": now - 60, "body": body_hash(BODY), **changes}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def made_by_hand(url: str, algorithm: str, key: bytes | None) -> str:
    """A token that PyJWT would not make: of no algorithm, or with an empty key."""
    parts = [{"alg": algorithm, "typ": "JWT"}, claims(url)]
    text = ".".join(encoded(json.dumps(part).encode()) for part in parts)
    return text + "." + ("" if key is None else encoded(hmac.digest(key, text.encode(), "sha256")))


def rows() -> dict[str, int]:
    return {
        model.__name__: model._base_manager.count() for model in apps.get_app_config("django_workflow").get_models()
    }


FORGERIES: list[tuple[str, Any]] = [
    ("no signature", lambda url: ""),
    ("another key", lambda url: sign(url, BODY, "x" * 32, time.time())),
    ("an empty key", lambda url: made_by_hand(url, "HS256", b"")),
    ("no algorithm", lambda url: made_by_hand(url, "none", None)),
    ("another algorithm", lambda url: jwt.encode(claims(url), key(), algorithm="HS512")),
    ("stale", lambda url: sign(url, BODY, key(), time.time() - 3600)),
    ("from the future", lambda url: sign(url, BODY, key(), time.time() + 3600)),
    ("for ever", lambda url: jwt.encode({k: v for k, v in claims(url).items() if k != "exp"}, key())),
    ("for another body", lambda url: sign(url, BODY + b" ", key(), time.time())),
    ("for another workflow", lambda url: sign(workflow_url("other"), BODY, key(), time.time())),
    ("of another sender", lambda url: jwt.encode(claims(url, iss="Mallory"), key())),
    ("a token of realtime", lambda url: access.make_token(["wfr_1"], respond=True)),
    ("the token of the engine's API", lambda url: signing_keys.engine_token()),
    ("two in one", lambda url: "a.b.c, " + sign(url, BODY, key(), time.time())),
    ("not ASCII", lambda url: "é" + sign(url, BODY, key(), time.time())),
    ("long", lambda url: "a." * 20_000),
]


@pytest.mark.parametrize(("name", "forge"), FORGERIES, ids=[name for name, _ in FORGERIES])
def test_a_forgery_is_refused_and_writes_nothing(url: str, name: str, forge: Any) -> None:
    before = rows()
    token = forge(url)
    response = post(**({"Upstash-Signature": token} if token else {}))
    assert response.status_code == 401, response.content
    assert rows() == before
    assert done == []


def test_the_claims_of_these_forgeries_would_hold_otherwise(url: str) -> None:
    assert post(**{"Upstash-Signature": jwt.encode(claims(url), key())}).status_code == 200


def test_a_body_that_was_altered_on_the_way_is_refused(url: str) -> None:
    token = sign(url, BODY, key(), time.time())
    assert post(b'{"order": 2}', **{"Upstash-Signature": token}).status_code == 401
    assert not Run.objects.exists()


def test_a_signature_of_the_hooks_address_or_the_query_opens_nothing(url: str) -> None:
    token = sign("https://workflow.internal/workflows/hooks/wfr_1/e/", BODY, key(), time.time())
    assert post(**{"Upstash-Signature": token}).status_code == 401
    signed = sign(url, BODY, key(), time.time())
    assert post(path=f"/workflows/serve/ship/?signature={signed}").status_code == 401


def test_a_delivery_that_is_replayed_leaves_one_result(url: str) -> None:
    """Whoever listened in may send it again while it is valid. A result counts once, whoever brings it."""
    response = post(**{"Upstash-Signature": sign(url, BODY, key(), time.time())})
    assert response.status_code == 200
    run = Run.objects.get()
    run_workflows()
    messages = list(JournalEntry.objects.filter(run=run).order_by("position"))
    before = rows()
    first = base64.b64encode(BODY).decode()
    steps = json.dumps([{"messageId": "msg_1", "body": first, "callType": "step"}]).encode()
    for _ in range(2):
        post(
            steps,
            **{
                "Upstash-Signature": sign(url, steps, key(), time.time()),
                "Upstash-Workflow-RunId": run.run_id,
                "Upstash-Workflow-Init": "false",
                "Upstash-Workflow-Sdk-Version": "1",
                "Upstash-Workflow-CallType": "step",
                "Upstash-Message-Id": "msg_1",
            },
        )
    run_workflows()
    run.refresh_from_db()
    assert run.status == "success"
    assert list(JournalEntry.objects.filter(run=run).order_by("position")) == messages
    assert rows() == before


# Comparisons of secrets


def test_tokens_and_hashes_are_compared_in_constant_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every secret that a caller brings is compared by `hmac.compare_digest`: looked at, not timed."""
    compared: list[tuple[Any, Any]] = []
    real = hmac.compare_digest

    def watch(a: Any, b: Any) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(auth.hmac, "compare_digest", watch)
    assert signature.hmac.compare_digest is watch
    write = next(route for route in routes() if not route.public and "POST" in route.methods)
    with pytest.raises(auth.Unauthorized):
        auth.check(write, "Bearer wrong", None)
    assert {b.decode() for _, b in compared} >= set(signing_keys.engine_tokens())
    compared.clear()
    signature.verify(sign(url, BODY, key(), time.time()), BODY, [key()], time.time(), url)
    assert (body_hash(BODY).encode(),) * 2 in compared  # the body's hash
    assert len(compared) >= 2  # and, inside PyJWT, the signature
    compared.clear()
    monkeypatch.setattr("django.core.signing.constant_time_compare", watch)
    access.read_token(access.make_token(["wfr_1"]))
    assert compared  # inside Django's signing


# Tokens of channels


def test_a_token_of_one_run_opens_no_other(url: str) -> None:
    token = access.make_token(["wfr_own"], respond=True)
    polled = Client().get("/workflows/realtime/poll/", {"channel": "wfr_other", "token": token})
    assert b'"forbidden"' in polled.content or polled.status_code in (401, 403), polled.content
    answer = Client().post(
        "/workflows/api/events/e/notify/?run=wfr_other",
        {"eventData": 1},
        headers={"X-Workflow-Token": token},
        content_type="application/json",
    )
    assert answer.status_code in (403, 404)
    assert Client().get("/workflows/api/runs/wfr_other/", headers={"X-Workflow-Token": token}).status_code in (401, 403)
    assert Client().get("/workflows/realtime/run/wfr_other/", {"token": token}).status_code in (403, 404)

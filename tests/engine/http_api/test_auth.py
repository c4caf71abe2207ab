"""Who may call the engine's API."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from django.test import override_settings

from django_workflow.engine.http_api import auth
from django_workflow.engine.signing_keys import engine_token, read_only_tokens
from django_workflow.models import MessageLog
from tests.engine.http_api.conftest import Api

PUBLISH = "/v2/publish/https://host.example/"

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_bearer_token_lets_pass(api: Api, scheme: str) -> None:
    assert api.post(PUBLISH, headers={"Authorization": f"{scheme} {api.token}"}).status == 200


def test_a_token_in_the_query_lets_pass_and_goes_no_further(api: Api) -> None:
    token, api.token = api.token, None
    answer = api.post(f"{PUBLISH}?a=%31&qstash_token={token}&b=&a=2&upstash-header-forward=true")
    assert answer.status == 200
    message = MessageLog.objects.get()
    assert message.url == "https://host.example/?a=%31&b=&a=2"
    assert str(token) not in message.config


def test_the_tokens_header_is_not_forwarded(api: Api) -> None:
    assert api.post(PUBLISH, headers={"Upstash-Header-Forward": "true", "X-Other": "1"}).status == 200
    config = MessageLog.objects.get().config
    assert "X-Other" in config
    assert str(api.token) not in config


def test_a_right_token_in_the_query_makes_up_for_anothers_header(api: Api) -> None:
    """Services that call webhooks may send credentials of their own."""
    answer = api.post(f"{PUBLISH}?qstash_token={api.token}", headers={"Authorization": "Basic dTpw"})
    assert answer.status == 200


@pytest.mark.parametrize(
    ("headers", "query", "said"),
    [
        ({}, "", "A token is missing"),
        ({"Authorization": ""}, "", "A token is missing"),
        ({"Authorization": "Basic dTpw"}, "", "must be `Bearer <token>`"),
        ({"Authorization": "Bearer"}, "", "must be `Bearer <token>`"),
        ({"Authorization": "Bearer wrong"}, "", "not one of this engine's"),
        ({"Authorization": "Bearer wröng"}, "", "not one of this engine's"),
        ({}, "?qstash_token=wrong", "not one of this engine's"),
        ({}, "?qstash_token=", "A token is missing"),
    ],
)
@pytest.mark.parametrize("target", [PUBLISH, "/v2/batch", "/v2/no/such/call"])
def test_without_a_right_token_there_is_a_401(
    api: Api, headers: dict[str, str], query: str, said: str, target: str
) -> None:
    api.token = None
    answer = api.post(target + query, b"[]", headers=headers)
    assert answer.status == 401
    assert said in answer.error
    assert not MessageLog.objects.exists()


def test_a_stranger_s_body_is_not_read(api: Api) -> None:
    api.token = None
    assert api.post(PUBLISH, CONTENT_LENGTH=str(10**12)).status == 401


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v2/waiters/evt", 200),
        ("GET", "/v2/workflows/runs/wfr_unknown", 404),
        ("POST", PUBLISH, 403),
        ("GET", PUBLISH, 403),  # publishes too
        ("POST", "/v2/batch", 403),
        ("POST", "/v2/notify/evt", 403),
        ("DELETE", "/v2/workflows/runs", 403),
        ("POST", "/v2/none", 404),
    ],
)
def test_a_read_only_token_reads_only(api: Api, method: str, target: str, status: int) -> None:
    (api.token,) = read_only_tokens()
    assert api(method, target, b"[]").status == status
    assert not MessageLog.objects.exists()


def test_tokens_name_a_user(api: Api) -> None:
    """SDKs take the user's id out of the token, for the addresses of webhooks."""
    tokens = [engine_token(), *read_only_tokens()]
    assert len(set(tokens)) == 2
    for token in tokens:
        assert json.loads(base64.b64decode(token))["UserID"]


def test_a_token_of_the_settings_is_the_only_one_that_writes(api: Api) -> None:
    derived = engine_token()
    with override_settings(DJANGO_WORKFLOW={"engine_api": True, "token": "mine"}):
        api.token = "mine"
        assert api.post(PUBLISH).status == 200
        api.token = derived
        assert api.post(PUBLISH).status == 401


def test_tokens_outlive_a_change_of_the_secret_key(api: Api, settings: Any) -> None:
    before = engine_token()
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "n" * 50
    assert engine_token() != before
    api.token = before
    assert api.post(PUBLISH).status == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert api.post(PUBLISH).status == 401


@pytest.mark.parametrize(
    ("query", "left", "token"),
    [
        ("", "", None),
        ("a=1&b=%26", "a=1&b=%26", None),
        ("qstash_token=t", "", "t"),
        ("a=1&qstash_token=a%2Bb&&c", "a=1&&c", "a+b"),
        ("%71stash_token=t&a", "a", "t"),
        ("QSTASH_TOKEN=t", "", "t"),
    ],
)
def test_only_the_token_is_taken_out_of_a_query(query: str, left: str, token: str | None) -> None:
    assert auth.take_token(query) == (left, token)

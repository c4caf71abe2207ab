from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_workflow.engine import signing_keys
from django_workflow.models import SigningKey

pytestmark = pytest.mark.django_db

NAMES = ["QSTASH_URL", "QSTASH_TOKEN", "QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY"]
ON: dict[str, Any] = {"engine_api": True}


def said(*arguments: str, settings: dict[str, Any] = ON) -> tuple[str, str]:
    """What was printed, and the warnings."""
    out, err = io.StringIO(), io.StringIO()
    with override_settings(DJANGO_WORKFLOW=settings):
        call_command("workflow_keys", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def values(*arguments: str, settings: dict[str, Any] = ON) -> dict[str, str]:
    lines = said(*arguments, settings=settings)[0].splitlines()
    return dict(line.split("=", 1) for line in lines)  # type: ignore[misc]


def test_it_prints_four_lines_for_an_env_file() -> None:
    out, err = said()
    lines = out.splitlines()
    assert [line.partition("=")[0] for line in lines] == NAMES
    assert all(value and " " not in value for _, value in (line.split("=", 1) for line in lines))
    assert err == ""


def test_the_token_names_a_user() -> None:
    assert json.loads(base64.b64decode(values()["QSTASH_TOKEN"]))["UserID"]


def test_the_keys_are_those_that_sign() -> None:
    pair = signing_keys.signing_pair()
    found = values()
    assert (found["QSTASH_CURRENT_SIGNING_KEY"], found["QSTASH_NEXT_SIGNING_KEY"]) == (pair.current, pair.next)


@pytest.mark.parametrize(
    ("arguments", "settings", "url"),
    [
        ([], {}, "http://127.0.0.1:8000/workflows/qstash"),
        ([], {"base_url": "https://shop.example/"}, "https://shop.example/workflows/qstash"),
        (["--url", "http://web:9000/"], {"base_url": "https://shop.example"}, "http://web:9000/workflows/qstash"),
        (["--url", "https://edge.example/engine/"], {}, "https://edge.example/engine"),
    ],
)
def test_the_url_is_where_the_api_is_served(arguments: list[str], settings: dict[str, Any], url: str) -> None:
    assert values(*arguments, settings={**ON, **settings})["QSTASH_URL"] == url


@pytest.mark.parametrize("url", ["shop.example", "ftp://shop.example", "http://"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(CommandError, match="--url") as refused:
        said("--url", url)
    assert refused.value.returncode == 2


def test_the_read_only_token_is_another() -> None:
    assert values("--read-only")["QSTASH_TOKEN"] == signing_keys.read_only_tokens()[0] != values()["QSTASH_TOKEN"]
    assert values("--read-only").keys() == {"QSTASH_URL", "QSTASH_TOKEN"}  # keys would let its owner forge deliveries


def test_it_prints_json() -> None:
    read = json.loads(said("--json")[0])
    assert read == values()
    assert list(read) == NAMES


def test_keys_are_rotated() -> None:
    before = values()
    after = values("--rotate")
    assert after["QSTASH_CURRENT_SIGNING_KEY"] == before["QSTASH_NEXT_SIGNING_KEY"]
    assert after["QSTASH_NEXT_SIGNING_KEY"] not in before.values()
    assert SigningKey.objects.count() == 1
    assert values() == after


def test_keys_of_the_settings_are_not_rotated() -> None:
    settings = {**ON, "current_signing_key": "sig_a", "next_signing_key": "sig_b"}
    with pytest.raises(CommandError, match="cannot be rotated"):
        said("--rotate", settings=settings)


def test_it_tells_when_the_api_is_off() -> None:
    out, err = said(settings={})
    assert len(out.splitlines()) == 4
    assert "engine_api" in err


@pytest.mark.parametrize("token", ["mine", "bWluZQ==", base64.b64encode(b'{"Password":"p"}').decode()])
def test_it_tells_of_a_token_that_sdks_cannot_read(token: str) -> None:
    assert "createWebhook" in said(settings={**ON, "token": token})[1]


def test_it_has_nothing_to_tell_of_the_hosted_engine() -> None:
    settings = {"engine": "qstash", "token": "t", "base_url": "https://shop.example"}
    with pytest.raises(CommandError, match="hosted"):
        said(settings=settings)


def test_urls_that_are_not_included_are_told() -> None:
    with override_settings(ROOT_URLCONF="tests.client.empty_urls"), pytest.raises(CommandError, match="not included"):
        said()

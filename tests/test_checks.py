"""System checks of the hosted mode and of the engine's API: what is missing is said at start-up."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from django_workflow.checks import check_engine_api, check_hosted

COMPLETE = {
    "engine": "qstash",
    "token": "t",
    "base_url": "https://shop.example",
    "current_signing_key": "sig_1",
    "next_signing_key": "sig_2",
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("URL", "TOKEN", "CURRENT_SIGNING_KEY", "NEXT_SIGNING_KEY", "REGION"):
        monkeypatch.delenv(f"QSTASH_{variable}", raising=False)


def ids(debug: bool = False, **values: Any) -> list[str]:
    with override_settings(DJANGO_WORKFLOW={**COMPLETE, **values}, DEBUG=debug):
        found = check_hosted(None)
    assert all(message.hint for message in found)
    return [str(message.id).removeprefix("django_workflow.") for message in found]


def test_a_complete_configuration_is_well() -> None:
    assert ids() == []


def test_the_embedded_engine_needs_none_of_it() -> None:
    with override_settings(DJANGO_WORKFLOW={}):
        assert check_hosted(None) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"token": None}, ["E007"]),
        ({"base_url": None}, ["E008"]),
        ({"current_signing_key": None, "next_signing_key": None}, ["E009"]),
        ({"next_signing_key": None}, ["W003"]),
        ({"base_url": "http://shop.example"}, ["W004"]),  # in the clear
        ({"base_url": "https://localhost:8000"}, ["W004"]),
        ({"base_url": "http://127.0.0.1:8000"}, ["W004"]),
        ({"base_url": "http://[::1]:8000"}, ["W004"]),
        ({"base_url": "https://10.1.2.3"}, ["W004"]),
        ({"base_url": "https://web"}, ["W004"]),  # a name that only one network knows
        ({"base_url": "http://web:8000", "qstash_url": "http://engine:8080"}, []),  # an engine beside this site
        ({"base_url": "http://127.0.0.1:8000", "qstash_url": "http://127.0.0.1:8080"}, []),
    ],
)
def test_what_is_missing_or_cannot_work_is_told(values: dict[str, Any], expected: list[str]) -> None:
    assert ids(**values) == expected


def test_under_debug_missing_keys_are_a_warning() -> None:
    assert ids(debug=True, current_signing_key=None, next_signing_key=None) == ["W003"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, []),
        ({"engine_api": True}, []),
        ({"engine_api": True, "token": "eyJVc2VySUQiOiJtZSIsIlBhc3N3b3JkIjoicCJ9"}, []),
        ({"engine_api": True, "token": "mine"}, ["W005"]),
        ({"token": "mine"}, []),
        ({**COMPLETE, "engine_api": True}, ["E010"]),
    ],
)
def test_an_api_that_cannot_work_is_told(values: dict[str, Any], expected: list[str]) -> None:
    with override_settings(DJANGO_WORKFLOW=values):
        found = check_engine_api(None)
    assert [str(message.id).removeprefix("django_workflow.") for message in found] == expected
    assert all(message.hint for message in found)

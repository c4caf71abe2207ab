"""Settings: where their values come from, and what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from django_workflow import conf
from django_workflow.conf import get_settings, problems
from django_workflow.errors import Misconfigured

VARIABLES = ("URL", "TOKEN", "CURRENT_SIGNING_KEY", "NEXT_SIGNING_KEY")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for prefix in ("", *(f"{region}_" for region in conf.REGIONS)):
        for variable in VARIABLES:
            monkeypatch.delenv(f"{prefix}QSTASH_{variable}", raising=False)
    monkeypatch.delenv("QSTASH_REGION", raising=False)


def variables(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def settings_of(**values: Any) -> conf.Settings:
    with override_settings(DJANGO_WORKFLOW=values):
        return get_settings()


def test_credentials_come_from_the_environment_unless_the_settings_say_them(monkeypatch: pytest.MonkeyPatch) -> None:
    variables(
        monkeypatch,
        QSTASH_URL="https://engine.example/qstash/",
        QSTASH_TOKEN="from-environment",
        QSTASH_CURRENT_SIGNING_KEY="sig_1",
        QSTASH_NEXT_SIGNING_KEY="sig_2",
    )
    credentials = settings_of(token="from-settings").credentials()
    assert (credentials.url, credentials.token) == ("https://engine.example/qstash", "from-settings")
    assert credentials.signing_keys == ("sig_1", "sig_2")


def regions(monkeypatch: pytest.MonkeyPatch) -> None:
    variables(
        monkeypatch,
        QSTASH_TOKEN="default",
        QSTASH_CURRENT_SIGNING_KEY="sig_default",
        US_EAST_1_QSTASH_URL="https://us.example",
        US_EAST_1_QSTASH_TOKEN="american",
        US_EAST_1_QSTASH_CURRENT_SIGNING_KEY="sig_us_1",
        US_EAST_1_QSTASH_NEXT_SIGNING_KEY="sig_us_2",
        EU_CENTRAL_1_QSTASH_URL="https://eu.example",
        EU_CENTRAL_1_QSTASH_TOKEN="european",
        EU_CENTRAL_1_QSTASH_CURRENT_SIGNING_KEY="sig_eu_1",
    )


@pytest.mark.parametrize("spelling", ["US_EAST_1", "us-east-1", "Us-East_1"])
def test_a_region_has_variables_of_its_own(monkeypatch: pytest.MonkeyPatch, spelling: str) -> None:
    regions(monkeypatch)
    variables(monkeypatch, QSTASH_REGION=spelling)
    settings = settings_of()
    assert settings.region == "US_EAST_1"
    assert (settings.qstash_url, settings.token) == ("https://us.example", "american")
    assert settings.credentials("eu-central-1").token == "european"
    assert settings.credentials("eu-central-1").signing_keys == ("sig_eu_1",)
    for other in (None, "", "MARS_1"):
        assert settings.credentials(other).signing_keys == ("sig_us_1", "sig_us_2")


def test_without_a_region_what_a_delivery_says_of_one_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    regions(monkeypatch)
    settings = settings_of()
    assert settings.credentials("us-east-1") == settings.credentials()
    assert settings.token == "default"


def test_half_a_regions_credentials_are_not_mixed_with_the_default_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    variables(
        monkeypatch,
        QSTASH_TOKEN="default",
        QSTASH_REGION="US_EAST_1",
        US_EAST_1_QSTASH_TOKEN="american",  # of an engine at an address that nobody told
        EU_CENTRAL_1_QSTASH_CURRENT_SIGNING_KEY="sig_eu_1",
    )
    settings = settings_of()
    assert (settings.qstash_url, settings.token) == (conf.HOSTED_URL, "default")
    european = settings.credentials("EU_CENTRAL_1")
    assert (european.url, european.token, european.signing_keys) == (conf.HOSTED_URL, "default", ("sig_eu_1",))


def test_regions_may_stand_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    variables(monkeypatch, US_EAST_1_QSTASH_TOKEN="from-environment")
    settings = settings_of(
        region="us-east-1", regions={"us-east-1": {"url": "https://us.example/", "token": "from-settings"}}
    )
    assert (settings.qstash_url, settings.token) == ("https://us.example", "from-settings")


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    regions(monkeypatch)
    variables(monkeypatch, QSTASH_REGION="US_EAST_1")
    settings = settings_of()
    for secret in ("american", "european", "sig_us_1", "sig_eu_1"):
        assert secret not in repr(settings)
        assert secret not in repr(settings.credentials())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"region": "mars-1"}, "region is 'mars-1'"),
        ({"regions": "us-east-1"}, "regions is a str"),
        ({"region": "us-east-1", "regions": {"mars-1": {}}}, "regions has 'mars-1'"),
        ({"code_version": 7}, "code_version is 7, but must be text of at most 64 characters."),
        ({"code_version": "v" * 65}, "must be text of at most 64 characters."),
        ({"region": "us-east-1", "regions": {"us-east-1": {"tokn": "secret"}}}, "regions['US_EAST_1'] must be"),
        ({"qstash_url": "qstash.upstash.io"}, "qstash_url is 'qstash.upstash.io'"),
    ],
)
def test_a_bad_value_is_told(values: dict[str, Any], said: str) -> None:
    with override_settings(DJANGO_WORKFLOW=values):
        assert any(said in problem for problem in problems())
        assert "secret" not in " ".join(problems())
        with pytest.raises(Misconfigured):
            get_settings()

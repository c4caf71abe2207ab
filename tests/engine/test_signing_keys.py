from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import connections, transaction

from django_workflow.engine import signing_keys
from django_workflow.engine.clock import use_clock
from django_workflow.engine.signing_keys import (
    KeyPair,
    derived_pair,
    engine_token,
    rotate,
    signing_pair,
    verification_keys,
)
from django_workflow.errors import Misconfigured
from django_workflow.models import SigningKey
from django_workflow.protocol.signature import sign, verify

CONFIGURED = {"current_signing_key": "sig_current", "next_signing_key": "sig_next"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY", "QSTASH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    signing_keys.forget()
    yield
    signing_keys.forget()


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


# Which pair


@pytest.mark.django_db
def test_a_new_project_has_keys(settings: Any) -> None:
    pair = signing_pair()
    assert pair == derived_pair(settings.SECRET_KEY)
    assert pair.current != pair.next
    for key in (pair.current, pair.next):
        assert key.startswith("sig_")
        assert 36 <= len(key) <= (SigningKey._meta.get_field("current").max_length or 0)
    assert settings.SECRET_KEY not in str(pair)


def test_the_derivation_does_not_change_between_releases() -> None:
    assert derived_pair("secret") == KeyPair(
        "sig_9381d91a380a37e5e048ff3b09fcd23f860d2fdf82f02b9f870f5246fa7efbe9",
        "sig_a2e76157bf0734aa94659a8f5cc51febae528a30e94cc06b1858c883fd7d0b3a",
    )


@pytest.mark.django_db
def test_the_settings_win(settings: Any) -> None:
    rotate()
    settings.DJANGO_WORKFLOW = CONFIGURED
    assert signing_pair() == KeyPair("sig_current", "sig_next")
    assert verification_keys() == ["sig_current", "sig_next"]


@pytest.mark.parametrize("name", list(CONFIGURED))
def test_one_key_in_the_settings_is_both(settings: Any, name: str) -> None:
    settings.DJANGO_WORKFLOW = {name: "sig_only"}
    assert signing_pair() == KeyPair("sig_only", "sig_only")


@pytest.mark.django_db
def test_signatures_of_the_old_secret_key_hold_on(settings: Any) -> None:
    token = sign("https://shop.example/", b"", signing_pair().current, 1000.0)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "the next secret key, as long as it should be"
    assert verification_keys()[:2] == [signing_pair().current, signing_pair().next]
    verify(token, b"", verification_keys(), 1000.0)


# Rotation


@pytest.mark.django_db
def test_rotation_makes_the_next_key_the_current_one() -> None:
    first = signing_pair()
    second = rotate()
    assert second.current == first.next
    assert second.next not in (first.current, first.next)
    assert signing_pair() == second
    third = rotate()
    assert third.current == second.next
    assert signing_pair() == third


@pytest.mark.django_db
def test_the_key_before_verifies_for_a_moment_and_no_longer() -> None:
    clock = Clock()
    with use_clock(clock):
        first = signing_pair()
        second = rotate()
        assert verification_keys() == [second.current, second.next, first.current]
        clock.time += timedelta(minutes=1)
        assert verification_keys() == [second.current, second.next]
        third = rotate()
        assert verification_keys() == [third.current, third.next, second.current]


@pytest.mark.django_db
def test_rotation_ends_the_keys_of_old_secret_keys(settings: Any) -> None:
    settings.SECRET_KEY_FALLBACKS = ["an old secret key"]
    assert len(verification_keys()) == 4
    rotate()
    assert not set(verification_keys()) & {
        derived_pair("an old secret key").current,
        derived_pair("an old secret key").next,
    }


@pytest.mark.django_db
def test_a_clock_that_was_put_back_brings_no_old_pair_back() -> None:
    clock = Clock()
    with use_clock(clock):
        rotate()
        clock.time -= timedelta(days=1)
        pair = rotate()
    assert signing_pair() == pair


@pytest.mark.django_db
def test_keys_of_the_settings_are_not_rotated(settings: Any) -> None:
    settings.DJANGO_WORKFLOW = CONFIGURED
    with pytest.raises(Misconfigured, match="cannot be rotated here"):
        rotate()
    assert not SigningKey.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rotated_before", [False, True])
def test_rotations_at_the_same_time_answer_with_the_pair_in_force(rotated_before: bool) -> None:
    if rotated_before:
        rotate()
    everybody = Barrier(4)

    def visit(_: int) -> KeyPair:
        everybody.wait(10)
        try:
            return rotate()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        pairs = list(pool.map(visit, range(4)))
    assert signing_pair() in pairs
    stored = {KeyPair(row.current, row.next) for row in SigningKey.objects.all()}
    assert set(pairs) <= stored


# How often the database is asked


@pytest.mark.django_db(transaction=True)
def test_deliveries_do_not_query(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        for _ in range(3):
            signing_pair()
            verification_keys()


@pytest.mark.django_db(transaction=True)
def test_another_process_rotation_is_seen_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    first = signing_pair()
    SigningKey.objects.create(current="sig_a", next="sig_b", created_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert signing_pair() == first
    now += signing_keys.KEEP_SECONDS
    assert signing_pair() == KeyPair("sig_a", "sig_b")


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_is_not_remembered() -> None:
    first = signing_pair()
    with transaction.atomic():
        assert rotate() == signing_pair() != first
        transaction.set_rollback(True)
    assert signing_pair() == first


def test_keys_of_the_settings_need_no_database(settings: Any) -> None:
    settings.DJANGO_WORKFLOW = CONFIGURED
    assert signing_pair().current == "sig_current"
    assert verification_keys() == ["sig_current", "sig_next"]


# The token


def test_the_token_has_the_form_that_sdks_read(settings: Any) -> None:
    token = json.loads(base64.b64decode(engine_token()))
    assert set(token) == {"UserID", "Password"}
    assert token["UserID"]
    assert len(token["Password"]) >= 32
    assert engine_token() == engine_token()
    settings.SECRET_KEY = "another"
    assert json.loads(base64.b64decode(engine_token()))["Password"] != token["Password"]


def test_the_token_of_the_settings_wins(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DJANGO_WORKFLOW = {"token": "mine"}
    assert engine_token() == "mine"

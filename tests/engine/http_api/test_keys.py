"""Signing keys, their rotation while runs are under way, and readiness."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError
from django.test import override_settings

from django_workflow import WorkflowContext, workflow
from django_workflow.engine import signing_keys
from django_workflow.engine.http_api import keys
from django_workflow.engine.signing_keys import read_only_tokens, signing_pair, verification_keys
from django_workflow.errors import SignatureInvalid
from django_workflow.models import Run
from django_workflow.protocol.signature import sign, verify
from django_workflow.testing import CallAnswer, mock_calls, run_workflows, workflow_clock
from django_workflow.testing.calls import Call
from tests.engine.http_api.conftest import Api

URL = "https://shop.example/"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)
    signing_keys.forget()
    yield
    signing_keys.forget()


def test_the_keys_are_those_that_sign(api: Api) -> None:
    pair = signing_pair()
    assert api.get("/v2/keys").json == {"current": pair.current, "next": pair.next}


def test_rotation_makes_the_next_key_the_current_one(api: Api) -> None:
    before = api.get("/v2/keys").json
    after = api.post("/v2/keys/rotate").json
    assert after["current"] == before["next"]
    assert after["next"] not in before.values()
    assert api.get("/v2/keys").json == after


def test_keys_of_the_settings_are_not_rotated(api: Api) -> None:
    mine = {"engine_api": True, "current_signing_key": "sig_1", "next_signing_key": "sig_2"}
    with override_settings(DJANGO_WORKFLOW=mine):
        answer = api.post("/v2/keys/rotate")
        assert answer.status == 409
        assert "Change them there" in answer.error
        assert api.get("/v2/keys").json == {"current": "sig_1", "next": "sig_2"}


def test_who_may_only_read_rotates_nothing(api: Api) -> None:
    api.token = read_only_tokens()[0]
    assert api.post("/v2/keys/rotate").status == 403


@pytest.mark.parametrize("rotations", [1, 2])
def test_a_run_goes_on_over_rotations(api: Api, rotations: int) -> None:
    """Each delivery goes through its signature, as over the network."""
    seen: list[str] = []

    @workflow(name="over-rotation")
    def over_rotation(ctx: WorkflowContext[None]) -> int:
        first = ctx.run("first", lambda: 1)
        ctx.sleep("a while", "1h")
        second = ctx.run("second", lambda: 2)
        return first + second

    with workflow_clock() as clock:
        handle = over_rotation.trigger()
        run_workflows(trusted=False)
        assert handle.run.status == Run.Status.SLEEPING
        for _ in range(rotations):
            seen.append(api.post("/v2/keys/rotate").json["current"])
        clock.advance("1h")
        run_workflows(trusted=False)
    assert (handle.run.status, handle.run.result) == (Run.Status.SUCCESS, "3")
    assert len(set(seen)) == rotations


def test_a_delivery_that_was_signed_before_a_rotation_is_accepted_for_a_while(api: Api) -> None:
    """It was on its way, or its sender has not heard of the rotation yet."""
    with workflow_clock() as clock:
        before = signing_pair()
        old, new = (sign(URL, b"", key, time.time()) for key in (before.current, before.next))
        api.post("/v2/keys/rotate")
        verify(old, b"", verification_keys(), time.time())
        verify(new, b"", verification_keys(), time.time())
        clock.advance(signing_keys.GRACE_SECONDS)
        signing_keys.forget()
        verify(new, b"", verification_keys(), time.time())
        with pytest.raises(SignatureInvalid):
            verify(old, b"", verification_keys(), time.time())


def test_receivers_that_know_the_pair_before_accept_what_the_new_key_signs(api: Api) -> None:
    """As an endpoint elsewhere, whose settings still have the keys of before."""
    known = list(api.get("/v2/keys").json.values())
    api.post("/v2/keys/rotate")

    def receive(call: Call) -> CallAnswer:
        verify(call.headers["Upstash-Signature"], call.body, known, time.time())
        return CallAnswer()

    api.post(f"/v2/publish/{URL}", b"x")
    with mock_calls(receive) as recorder:
        run_workflows()
    assert len(recorder.calls) == 1


def test_readiness_is_for_everybody(api: Api) -> None:
    api.token = None
    answer = api.get("/v2/readiness")
    assert (answer.status, answer.json) == (200, {"ready": True})


def test_an_engine_whose_database_does_not_answer_is_not_ready(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        def cursor(self) -> Any:
            raise OperationalError("the server is away")

    monkeypatch.setattr(keys, "connections", {"default": Away()})
    api.token = None
    answer = api.get("/v2/readiness")
    assert (answer.status, answer.json) == (503, {"ready": False})

"""Who may have sent a request: signatures, and where their keys come from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from django.test import override_settings

from django_workflow.errors import SignatureInvalid
from django_workflow.protocol.signature import sign
from django_workflow.serve import keys
from django_workflow.serve.endpoint import EndpointRequest

URL = "https://shop.example/workflows/serve/checkout/"
CURRENT = "sig_current_0123456789abcdef0123456789"
NEXT = "sig_next_0123456789abcdef0123456789"

with_keys = override_settings(
    DJANGO_WORKFLOW={"current_signing_key": CURRENT, "next_signing_key": NEXT, "base_url": "https://shop.example"}
)


@pytest.fixture(autouse=True)
def _no_provider() -> Iterator[None]:
    before = keys._provider
    keys.use_key_provider(None)
    yield
    keys.use_key_provider(before)


def request(
    *, key: str = CURRENT, body: bytes = b"[]", signed_body: bytes | None = None, signed_url: str = URL, at: float = 0
) -> EndpointRequest:
    signed = body if signed_body is None else signed_body
    token = sign(signed_url, signed, key, time.time() + at)
    return EndpointRequest("POST", URL, {"Upstash-Signature": token}, body)


@with_keys
@pytest.mark.parametrize("key", [CURRENT, NEXT])
def test_either_key_may_have_signed(key: str) -> None:
    assert keys.verify(request(key=key))


@with_keys
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda: EndpointRequest("POST", URL, {}, b"[]"), "missing"),
        (lambda: EndpointRequest("POST", URL, {"Upstash-Signature": "garbage"}, b"[]"), "malformed"),
        (lambda: request(key="sig_other_0123456789abcdef0123456789"), "bad_signature"),
        (lambda: request(signed_body=b"other"), "body_mismatch"),
        (lambda: request(at=-400), "expired"),
        (lambda: request(signed_url="https://shop.example/workflows/serve/refund/"), "wrong_url"),
        (lambda: request(signed_url="https://evil.example/workflows/serve/checkout/"), "wrong_url"),
    ],
)
def test_a_bad_signature_is_refused_by_name(bad: Callable[[], EndpointRequest], reason: str) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        keys.verify(bad())  # made now: signatures live for five minutes, and a suite may take longer
    assert caught.value.reason == reason


@override_settings(DJANGO_WORKFLOW={"current_signing_key": CURRENT})
def test_without_base_url_only_the_path_is_compared() -> None:
    assert keys.verify(request(signed_url="https://workflow.internal/workflows/serve/checkout/"))
    with pytest.raises(SignatureInvalid):
        keys.verify(request(signed_url="https://workflow.internal/workflows/serve/refund/"))


def test_the_embedded_engines_keys_come_from_the_provider() -> None:
    keys.use_key_provider(lambda: [CURRENT, NEXT])
    assert keys.verification_keys() == (CURRENT, NEXT)
    with override_settings(DJANGO_WORKFLOW={"current_signing_key": "sig_settings"}):
        assert keys.verification_keys() == ("sig_settings",)  # the settings win


HOSTED = {"engine": "qstash", "token": "t", "base_url": "https://shop.example"}


@override_settings(DJANGO_WORKFLOW=HOSTED)
def test_a_hosted_site_does_not_ask_the_embedded_engine() -> None:
    keys.use_key_provider(lambda: [CURRENT])
    assert keys.verification_keys() == ()


@override_settings(DJANGO_WORKFLOW=HOSTED)
def test_without_any_keys_nobody_is_believed() -> None:
    with pytest.raises(SignatureInvalid) as caught:
        keys.verify(request())
    assert caught.value.reason == "no_keys"
    assert "QSTASH_CURRENT_SIGNING_KEY" in str(caught.value)


@override_settings(DJANGO_WORKFLOW=HOSTED, DEBUG=True)
def test_a_developer_may_go_without_keys() -> None:
    assert keys.verify(request()) is False


@override_settings(DEBUG=True)
def test_the_embedded_engine_always_has_keys() -> None:
    with pytest.raises(SignatureInvalid):
        keys.verify(request())


@override_settings(
    DJANGO_WORKFLOW={
        **HOSTED,
        "current_signing_key": CURRENT,
        "region": "eu-central-1",
        "regions": {"US_EAST_1": {"current_signing_key": NEXT}},
    }
)
def test_a_delivery_is_checked_with_the_keys_of_its_region() -> None:
    def of_region(region: str, key: str) -> EndpointRequest:
        one = request(key=key)
        return EndpointRequest("POST", URL, {**one.headers, "Upstash-Region": region}, one.body)

    assert keys.verify(of_region("us-east-1", NEXT))
    assert keys.verify(of_region("eu-central-1", CURRENT))
    assert keys.verify(request(key=CURRENT))
    with pytest.raises(SignatureInvalid) as caught:
        keys.verify(of_region("us-east-1", CURRENT))
    assert caught.value.reason == "bad_signature"

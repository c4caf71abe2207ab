from __future__ import annotations

import base64
import hashlib
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.errors import Misconfigured, SignatureInvalid
from django_workflow.protocol import signature as signature_module
from django_workflow.protocol.signature import LIFE_SECONDS, NBF_SLACK_SECONDS, body_hash, sign, verify

CURRENT = "sig_current"  # shorter than PyJWT advises: must not warn
NEXT = "sig_next-key-that-is-longer-than-thirty-two-bytes"
URL = "https://shop.example/workflows/serve/order/"
BODY = b'{"a": 1}'
NOW = 1_760_000_000.5


def claims(**changes: Any) -> dict[str, Any]:
    hashed = base64.urlsafe_b64encode(hashlib.sha256(BODY).digest()).decode()
    made = {"iss": "Upstash", "sub": URL, "exp": NOW + 300, "nbf": NOW, "iat": NOW, "jti": "jwt_1", "body": hashed}
    return {name: value for name, value in (made | changes).items() if value is not None}


def token(key: str = NEXT, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm)


def reason_of(signature: str | None, *, body: bytes = BODY, now: float = NOW, **options: Any) -> str:
    with pytest.raises(SignatureInvalid) as caught:
        verify(signature, body, [CURRENT, NEXT], now, **options)
    assert caught.value.status_code == 401
    return caught.value.reason


def test_a_signature_holds_for_its_own_request() -> None:
    signature = sign(URL, BODY, CURRENT, NOW)
    found = verify(signature, BODY, [CURRENT, NEXT], NOW, url=URL)
    assert found.sub == URL
    assert found.exp == int(NOW) + LIFE_SECONDS
    assert jwt.get_unverified_header(signature) == {"alg": "HS256", "typ": "JWT"}


def test_every_signature_has_an_id_of_its_own() -> None:
    first, second = (verify(sign(URL, BODY, CURRENT, NOW), BODY, [CURRENT], NOW).jti for _ in range(2))
    assert first != second
    assert first.startswith("jwt_")


def test_pyjwt_itself_accepts_our_signatures() -> None:
    made = jwt.decode(sign(URL, BODY, NEXT, NOW), NEXT, ["HS256"], options={"verify_exp": False, "verify_nbf": False})
    assert set(made) == {"iss", "sub", "exp", "nbf", "iat", "jti", "body"}


def test_the_next_key_is_accepted_too() -> None:
    assert verify(sign(URL, BODY, NEXT, NOW), BODY, [CURRENT, NEXT], NOW).iss == "Upstash"


def test_our_own_signatures_are_read_without_pyjwt_and_others_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    decode = signature_module._jws.decode
    monkeypatch.setattr(signature_module._jws, "decode", lambda *args, **kw: asked.append("") or decode(*args, **kw))
    ours, theirs = sign(URL, BODY, NEXT, NOW), jwt.encode(claims(), NEXT, headers={"kid": "1"})
    assert verify(ours, BODY, [NEXT], NOW).sub == URL
    assert not asked
    assert verify(theirs, BODY, [NEXT], NOW).sub == URL
    assert asked


@given(st.data())
def test_no_changed_character_of_a_signature_is_overlooked(data: st.DataObject) -> None:
    made = sign(URL, BODY, NEXT, NOW)
    at = data.draw(st.integers(0, len(made) - 2))  # two bits of the last one say nothing
    other = data.draw(st.sampled_from("ABab01-_.=+/ ä\n").filter(lambda character: character != made[at]))
    assert reason_of(made[:at] + other + made[at + 1 :]) in {"malformed", "bad_signature"}


@pytest.mark.parametrize(
    "change", [lambda made: made[:-1], lambda made: made + ".", lambda made: "." + made, str.lower]
)
def test_a_signature_that_was_cut_or_stretched_is_refused(change: Any) -> None:
    assert reason_of(change(sign(URL, BODY, NEXT, NOW))) in {"malformed", "bad_signature"}


def test_a_signed_payload_that_holds_no_claims_is_malformed() -> None:
    for payload in (b"", b"[]", b"\xff", b'{"iss":"Upstash"}'):
        assert reason_of(signature_module._jws.encode(payload, NEXT, algorithm="HS256")) == "malformed"


@pytest.mark.parametrize("padding", ["", "="])
def test_padding_of_the_body_hash_is_optional(padding: str) -> None:
    verify(token(body=body_hash(BODY) + padding), BODY, [NEXT], NOW)


def test_an_empty_body_is_hashed_too() -> None:
    verify(sign(URL, b"", NEXT, NOW), b"", [NEXT], NOW)
    assert reason_of(sign(URL, b"", NEXT, NOW)) == "body_mismatch"


def test_bytes_that_are_no_text_are_hashed_as_they_are() -> None:
    verify(sign(URL, b"\xff\x00", NEXT, NOW), b"\xff\x00", [NEXT], NOW)


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (None, "missing"),
        ("", "missing"),
        ("nonsense", "malformed"),
        ("a.b.c", "malformed"),
        ("ä.ö.ü", "malformed"),  # a header may hold any character
        (token(exp=None), "malformed"),  # a claim that receivers need
        (token(sub=None), "malformed"),
        (token(body=None), "malformed"),
        (token(exp="soon"), "malformed"),
        (token(algorithm="HS512", key="k" * 64), "malformed"),  # not the protocol's algorithm
        (jwt.encode(claims(), "", "none"), "malformed"),  # no signature at all
        (token(key="another-key-another-key-another-key"), "bad_signature"),
        (token(exp=NOW), "expired"),
        (token(exp=NOW - 1), "expired"),
        (token(nbf=NOW + NBF_SLACK_SECONDS + 1), "not_yet_valid"),
        (token(iss="Somebody"), "wrong_issuer"),
        (token(body=body_hash(b"other")), "body_mismatch"),
        (token(body="ä"), "body_mismatch"),
    ],
)
def test_each_failure_has_a_name(signature: str | None, reason: str) -> None:
    assert reason_of(signature) == reason


def test_a_clock_that_is_a_little_early_is_forgiven() -> None:
    verify(token(nbf=NOW + NBF_SLACK_SECONDS - 1), BODY, [NEXT], NOW)
    # Other receivers forgive nothing, so our own `nbf` lies in the past already.
    assert verify(sign(URL, BODY, NEXT, NOW), BODY, [NEXT], NOW).nbf == int(NOW) - NBF_SLACK_SECONDS


@pytest.mark.parametrize(
    ("url", "path_only", "holds"),
    [
        (URL, False, True),
        ("https://other.example/workflows/serve/order/", False, False),  # another host
        ("https://other.example/workflows/serve/order/", True, True),  # … which a proxy may hide
        ("/workflows/serve/order/", True, True),
        ("/workflows/serve/refund/", True, False),
        (URL + "?x=1", False, False),
        (None, False, True),  # official endpoints do not compare
    ],
)
def test_the_url_is_compared_as_far_as_it_is_known(url: str | None, path_only: bool, holds: bool) -> None:
    signature = sign(URL, BODY, NEXT, NOW)
    if holds:
        verify(signature, BODY, [NEXT], NOW, url=url, compare_path_only=path_only)
    else:
        assert reason_of(signature, url=url, compare_path_only=path_only) == "wrong_url"


def test_an_encoded_path_equals_the_decoded_one_that_servers_show() -> None:
    signature = sign("https://shop.example/serve/caf%C3%A9/", BODY, NEXT, NOW)
    verify(signature, BODY, [NEXT], NOW, url="/serve/café/", compare_path_only=True)


def test_no_keys_are_a_mistake_of_the_project() -> None:
    with pytest.raises(Misconfigured, match="signing keys"):
        verify(token(), BODY, ["", ""], NOW)


def test_messages_say_what_to_do() -> None:
    with pytest.raises(SignatureInvalid, match=r"expired 40 s ago.*clocks"):
        verify(token(exp=NOW - 40), BODY, [NEXT], NOW)


@given(
    st.text(max_size=80), st.binary(max_size=200), st.text(min_size=1, max_size=40).filter(lambda key: key.isascii())
)
def test_what_is_signed_verifies(url: str, body: bytes, key: str) -> None:
    url = url.encode("utf-8", "replace").decode()
    assert verify(sign(url, body, key, NOW), body, [key], NOW, url=url).sub == url


@given(st.text(max_size=60))
def test_any_text_is_refused_by_name(text: str) -> None:
    assert reason_of(text) in {"missing", "malformed", "bad_signature"}

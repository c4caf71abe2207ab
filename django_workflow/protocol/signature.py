"""Signatures of deliveries: a JWT (HS256) in `Upstash-Signature` that names the sender, the address and the body.

`sign` makes one for each attempt (they live five minutes); `verify` tries the current and the next key and says by
name what does not hold. Source: QStash documentation, "Verify signatures"; receivers of the official SDKs.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import jwt
import msgspec
from jwt.algorithms import HMACAlgorithm

from django_workflow.errors import Misconfigured, SignatureInvalid
from django_workflow.protocol.identifiers import new_message_id

ISSUER = "Upstash"
LIFE_SECONDS = 300
NBF_SLACK_SECONDS = 60
"""By how much `nbf` lies before the signing, and how early a signature may come: receivers know no other tolerance."""

_HINT = {
    "missing": "Send the request through the engine instead of calling the endpoint directly.",
    "malformed": "Something on the way has cut or changed the header.",
    "bad_signature": "Compare the signing keys of endpoint and engine; after two rotations the older keys are void.",
    "expired": "Deliver within five minutes of signing, and check the clocks of both machines.",
    "not_yet_valid": "Check the clocks of both machines.",
    "wrong_issuer": "Only the engine signs with these keys.",
    "wrong_url": "A proxy may have changed the address; set base_url to the address that the engine calls.",
    "body_mismatch": "Something on the way, such as a middleware or a proxy, has changed the body.",
}


class Claims(msgspec.Struct, frozen=True):
    """What a signature says. Instants in Unix seconds, `body` is base64url(SHA-256(body)) with or without padding."""

    iss: str
    sub: str
    exp: int | float
    nbf: int | float
    body: str
    iat: int | float = 0
    jti: str = ""


class _AnyLengthHMAC(HMACAlgorithm):
    """HMAC without advice on the key: keys are the engine's to choose, and the public ones of a development server
    are short. Leaves out the test for asymmetric keys as well, which costs more than the signature."""

    def prepare_key(self, key: str | bytes) -> bytes:
        return key.encode() if isinstance(key, str) else key

    def check_key_length(self, key: Any) -> str | None:
        return None


_jws = jwt.PyJWS(algorithms=[])
_jws.register_algorithm("HS256", _AnyLengthHMAC(HMACAlgorithm.SHA256))
_OWN_HEADER = _jws.encode(b"", "", algorithm="HS256").partition(".")[0]
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Claims)


def body_hash(body: bytes) -> str:
    """base64url(SHA-256(body)) without padding; an empty body has a hash too."""
    return urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode("ascii")


def sign(url: str, body: bytes, key: str, now: float) -> str:
    """The signature of a delivery to `url`, signed at `now` (Unix seconds)."""
    issued = int(now)
    claims = Claims(
        iss=ISSUER,
        sub=url,
        exp=issued + LIFE_SECONDS,
        nbf=issued - NBF_SLACK_SECONDS,
        iat=issued,
        jti="jwt_" + new_message_id().removeprefix("msg_"),
        body=body_hash(body),
    )
    return _jws.encode(_encoder.encode(claims), key, algorithm="HS256")


def verify(
    token: str | None,
    body: bytes,
    keys: Sequence[str],
    now: float,
    url: str | None = None,
    compare_path_only: bool = False,
) -> Claims:
    """The claims of a signature that holds; `body` is the request's as it came, `now` in Unix seconds.

    `url` (a whole URL, or a path) is compared with the claim when given; with `compare_path_only` their paths are,
    which is all that can be known behind proxies. Raises SignatureInvalid with one of the reasons `missing malformed
    bad_signature expired not_yet_valid wrong_issuer wrong_url body_mismatch`, and Misconfigured without keys.
    """
    usable = [key for key in keys if key]
    if not usable:
        raise Misconfigured("There are no signing keys to verify a delivery with: set current_signing_key.")
    if not token:
        raise _invalid("missing", "The request has no Upstash-Signature header.")
    claims = _claims(token, usable)
    if claims.iss != ISSUER:
        raise _invalid("wrong_issuer", f"The signature's issuer is {claims.iss!r}, not {ISSUER!r}.")
    if now >= claims.exp:
        raise _invalid("expired", f"The signature expired {now - claims.exp:.0f} s ago.")
    if now < claims.nbf - NBF_SLACK_SECONDS:
        raise _invalid("not_yet_valid", f"The signature is valid in {claims.nbf - now:.0f} s only.")
    if url is not None and not _same_url(claims.sub, url, compare_path_only):
        raise _invalid("wrong_url", f"The signature is for {claims.sub!r}, the request came to {url!r}.")
    # Padding is optional, and both ends write ASCII; a foreign character must be a mismatch and no error.
    if not hmac.compare_digest(claims.body.rstrip("=").encode(), body_hash(body).encode()):
        raise _invalid("body_mismatch", "The signature is for another body.")
    return claims


def _claims(token: str, keys: Sequence[str]) -> Claims:
    for key in keys:
        try:
            payload = _payload_of_our_own(token, key)
            if payload is None:
                payload = _jws.decode(token, key, algorithms=["HS256"])
            return _decoder.decode(payload)
        except jwt.InvalidSignatureError:
            continue
        # UnicodeError: PyJWT reads tokens as ASCII without a look; DecodeError of msgspec: claims missing or no JSON.
        except (jwt.InvalidTokenError, msgspec.DecodeError, UnicodeError) as error:
            raise _invalid("malformed", f"The Upstash-Signature header cannot be read ({error}).") from error
    raise _invalid("bad_signature", "The signature was made with another key.")


def _payload_of_our_own(token: str, key: str) -> bytes | None:
    """The payload of a token as `sign` writes it, if its signature holds; None: PyJWT has to look.

    PyJWT looks at each character of a token by itself, which costs more than all the rest of a request's check.
    """
    signed, _, signature = token.rpartition(".")
    header, _, payload = signed.partition(".")
    if header != _OWN_HEADER or not token.isascii():
        return None
    made = urlsafe_b64encode(hmac.digest(key.encode(), signed.encode(), hashlib.sha256)).rstrip(b"=")
    if not hmac.compare_digest(made, signature.encode()):
        return None
    return urlsafe_b64decode(payload + "=" * (-len(payload) % 4))


def _same_url(signed: str, actual: str, path_only: bool) -> bool:
    if not path_only:
        return signed == actual
    # Decoded: servers show paths decoded, engines sign them as they are written.
    return unquote(urlsplit(signed).path) == unquote(urlsplit(actual).path)


def _invalid(reason: str, message: str) -> SignatureInvalid:
    return SignatureInvalid(f"{message} {_HINT[reason]}", reason=reason)

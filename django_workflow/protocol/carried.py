"""What an endpoint submits in the answer to its delivery: its requests as JSON, under a seal.

Ours, between a project's own engine and its own endpoints; other SDKs neither ask for it nor see it. `headers.CARRY` of
a delivery asks for it, the same header of an answer says that the body is this. The seal is an HMAC with a signing key
over the delivery's own signature and the body: nobody without the keys can make one, and none fits another delivery.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from django_workflow.errors import MessageInvalid
from django_workflow.protocol.requests import Batch, CancelRun, EngineRequest, FinishRun, Publish, Wait

VERSION = "1"
"""What `headers.CARRY` says in both directions; an endpoint that does not know it answers as ever."""


class _Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request, its kind, and the keys of the messages in it."""

    kind: str
    request: msgspec.Raw
    keys: tuple[UUID, ...] = ()


_KINDS: dict[type, str] = {Batch: "batch", Publish: "publish", Wait: "wait", FinishRun: "finish", CancelRun: "cancel"}
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[_Item])
_decoders: dict[str, msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(type_) for type_, kind in _KINDS.items()}


def encode_submitted(request: EngineRequest[Any], keys: tuple[UUID, ...]) -> bytes:
    """One request and its keys. Raises UnicodeError or RecursionError for what has no form in JSON."""
    return _encoder.encode(_Item(_KINDS[type(request)], msgspec.Raw(_encoder.encode(request)), keys))


def joined(encoded: Iterable[bytes]) -> bytes:
    """The body of an answer that carries these, in their order."""
    return b"[%b]" % b",".join(encoded)


def decode_carried(body: bytes) -> list[tuple[EngineRequest[Any], tuple[UUID, ...]]]:
    """The requests with their keys. Raises MessageInvalid for what it did not write."""
    try:
        return [(_decoders[item.kind].decode(item.request), item.keys) for item in _decoder.decode(body)]
    except (msgspec.DecodeError, KeyError, UnicodeError, RecursionError) as error:
        raise MessageInvalid(f"The answer carries what cannot be read ({error}).", name="body") from error


def seal(signature: str, body: bytes, key: str) -> str:
    """What proves that `body` answers the delivery with this signature, in hexadecimal digits."""
    text = b"".join((b"django_workflow carried\n", signature.encode(), b"\n", body))
    return hmac.digest(key.encode(), text, hashlib.sha256).hex()


def is_sealed(sealed: str | None, signature: str, body: bytes, keys: Sequence[str]) -> bool:
    """Whether one of the keys made this seal; compared in constant time."""
    if not sealed or not sealed.isascii():
        return False
    return any(hmac.compare_digest(sealed, seal(signature, body, key)) for key in keys)

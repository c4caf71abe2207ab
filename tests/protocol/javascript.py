"""What JavaScript makes of JSON, told by Python: an adapter of the JavaScript SDK parses a body and writes it again
before it checks the signature, so bodies that the engine composes must survive that byte for byte."""

from __future__ import annotations

import json
from typing import Any


def rewritten(body: bytes) -> bytes:
    """`JSON.stringify(JSON.parse(body))`, for whole numbers below 2^53 and text without lone surrogates."""
    return json.dumps(_ordered(json.loads(body)), separators=(",", ":"), ensure_ascii=False).encode()


def _ordered(value: Any) -> Any:
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if not isinstance(value, dict):
        return value
    indices = [key for key in value if key.isdecimal() and key.isascii() and (key == "0" or key[0] != "0")]
    indices = [key for key in indices if int(key) < 2**32 - 1]
    keys = sorted(indices, key=int) + [key for key in value if key not in indices]
    return {key: _ordered(value[key]) for key in keys}

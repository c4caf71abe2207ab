"""What may be shown of a message whose publisher hides parts of it."""

from __future__ import annotations

import hashlib

import pytest

from django_workflow.engine.redaction import redact_body, redact_headers


def digest(text: str) -> str:
    return "REDACTED:" + hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("body", "fields", "shown"),
    [
        ('{"card":"4111"}', ("body",), digest('{"card":"4111"}')),
        (b"\xff\x00", ("body",), "REDACTED:" + hashlib.sha256(b"\xff\x00").hexdigest()),
        ("ä", ("header", "body"), digest("ä")),
        ("open", ("header", "header[body]"), "open"),
        ("open", (), "open"),
        ("", ("body",), ""),  # the digest of nothing is known to everybody
    ],
)
def test_a_body_is_replaced_by_its_digest_when_it_is_to_be_hidden(
    body: str | bytes, fields: tuple[str, ...], shown: str
) -> None:
    assert redact_body(body, fields) == shown


def test_all_headers_or_those_that_are_named_lose_their_values_and_keep_their_names() -> None:
    headers = {"Authorization": "Bearer a", "X-Trace": "7"}
    assert redact_headers(headers, ("body",)) == headers
    assert redact_headers(headers, ("header[AUTHORIZATION]",)) == {"Authorization": digest("Bearer a"), "X-Trace": "7"}
    assert redact_headers(headers, ("header",)) == {"Authorization": digest("Bearer a"), "X-Trace": digest("7")}


def test_each_value_of_a_repeated_header_is_replaced() -> None:
    assert redact_headers({"X-Key": ["a", "b"]}, ("header[x-key]",)) == {"X-Key": [digest("a"), digest("b")]}

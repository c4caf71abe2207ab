"""Paths of secrets, and what they hide."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from django_workflow.protocol.publish import Message, decode_message, encode_headers
from django_workflow.protocol.secrets import (
    REDACTED,
    below,
    mask,
    mask_result,
    path_of,
    scrub,
    secret_texts,
    shown_out,
    within,
)
from django_workflow.protocol.steps import Step, decode_step, encode_step

CARD = {"card": {"number": "4111", "holder": "Ada"}, "lines": [{"note": "a"}, {"note": "b"}, 3]}


@pytest.mark.parametrize(
    ("path", "masked"),
    [
        ("card/number", {**CARD, "card": {"number": REDACTED, "holder": "Ada"}}),
        ("card", {**CARD, "card": REDACTED}),
        ("lines/*/note", {**CARD, "lines": [{"note": REDACTED}, {"note": REDACTED}, 3]}),
        ("*/number", {**CARD, "card": {"number": REDACTED, "holder": "Ada"}}),
        ("**/note", {**CARD, "lines": [{"note": REDACTED}, {"note": REDACTED}, 3]}),
        ("missing/number", CARD),
        ("card/number/deeper", CARD),
        ("$", REDACTED),
    ],
)
def test_a_path_hides_what_it_leads_to(path: str, masked: Any) -> None:
    assert mask(CARD, [path]) == masked
    assert CARD["card"] == {"number": "4111", "holder": "Ada"}  # a copy


def test_nothing_is_told_from_a_secret() -> None:
    assert mask({"pin": None}, ["pin"]) == {"pin": None}
    assert mask(None, ["$"]) is None


def test_any_depth_reaches_into_itself() -> None:
    tree = {"key": "a", "children": [{"key": "b", "children": [{"key": "c"}]}]}
    assert mask(tree, ["**/key"]) == {
        "key": REDACTED,
        "children": [{"key": REDACTED, "children": [{"key": REDACTED}]}],
    }


@pytest.mark.parametrize("key", ["a/b", "a,b", "*", "größe", "a b", "$"])
def test_keys_of_all_kinds_survive_the_header(key: str) -> None:
    path = path_of((key,)) if key != "*" else path_of(("%2A",)).replace("%252A", "%2A")
    message = Message(destination="https://shop.example/", secret=below("payload", [path]))
    back = decode_message(message.destination, encode_headers(message))
    assert back.secret == message.secret
    assert all(part.isascii() for part in encode_headers(message).values())
    assert mask({key: "x", "other": "y"}, within("payload", back.secret)) == {key: REDACTED, "other": "y"}


def test_paths_of_parts() -> None:
    assert below("payload", ["card", "$"]) == ("payload/card", "payload")
    assert within("payload", ["payload/card", "payload", "result/token", "payloads/x"]) == ("card", "$")


def test_a_text_is_scrubbed_in_each_form() -> None:
    secrets = secret_texts({"a": 'quo"te\n', "b": 12345, "c": "no", "d": True}, ["$"])
    assert secrets == {'quo"te\n', "12345"}
    text = "x 12345 " + json.dumps('quo"te\n') + " " + repr('quo"te\n') + " no"
    assert scrub(text, secrets) == f"x {REDACTED} \"{REDACTED}\" '{REDACTED}' no"


def step(out: str | None, step_type: str = "Run", *secret: str) -> Step:
    return Step(step_id=1, step_name="s", step_type=step_type, concurrent=1, out=out, secret=secret)


@pytest.mark.parametrize(
    ("made", "hide", "shown"),
    [
        (step('{"token": "t"}'), False, '{"token": "t"}'),
        (step('{"token": "t"}', "Run", "token"), False, '{"token": "REDACTED"}'),
        (step('"t"', "Run", "$"), False, '"REDACTED"'),
        (step("no json", "Run", "token"), False, '"REDACTED"'),
        (step('{"token": "t"}'), True, '"REDACTED"'),
        (step(None, "Run", "$"), True, None),
        (
            step(b64encode(b'{"pin": 1, "by": "ada"}').decode(), "Wait", "pin"),
            False,
            '{"pin": "REDACTED", "by": "ada"}',
        ),
        (step("%%%", "Wait", "pin"), False, '"REDACTED"'),
    ],
)
def test_what_is_shown_of_a_result(made: Step, hide: bool, shown: str | None) -> None:
    assert shown_out(made, hide=hide) == shown


def test_what_an_invoked_run_gave_back_is_masked_inside_its_text() -> None:
    out = {"body": '{"token":"t","n":1}', "isFailed": False}
    assert mask_result("Invoke", out, ["token"]) == {"body": '{"token": "REDACTED", "n": 1}', "isFailed": False}
    assert mask_result("Invoke", {"body": "no json"}, ["token"]) == {"body": '"REDACTED"'}


def test_a_step_carries_its_paths() -> None:
    made = step('{"token": "t"}', "Run", "token")
    assert decode_step(encode_step(made)) == made
    assert b"secret" not in encode_step(step("1"))

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from django_workflow.models import Run
from django_workflow.presentation import values
from django_workflow.presentation.values import REDACTED
from django_workflow.testing.factories import make_run, make_step
from tests.admin.builders import make_result


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("Authorization", True),
        ("Upstash-Forward-Authorization", True),
        ("Proxy-Authorization", True),
        ("cookie", True),
        ("Set-Cookie", True),
        ("X-API-Key", True),
        ("Shop-Token", True),
        ("X-Client-Secret", True),
        ("Content-Type", False),
        ("X-Request-Id", False),
    ],
)
def test_credentials_are_told_from_other_headers(name: str, secret: bool) -> None:
    assert values.is_secret_header(name) is secret


TOO_DEEP = "Nested too deeply to be shown."


@pytest.mark.parametrize(
    ("text", "is_base64", "value"),
    [
        ('{"b":1,"a":[1.5,null]}', False, {"b": 1, "a": [1.5, None]}),
        ("plain text", False, "plain text"),
        ("", False, None),
        (None, False, None),
        ("null", False, None),
        ("eyJhIjoxfQ==", True, {"a": 1}),
        ("/w==", True, {"base64": "/w=="}),
        ('{"headers":{"Cookie":"x","Host":"y"}}', False, {"headers": {"Cookie": REDACTED, "Host": "y"}}),
        ('[{"header":{"Set-Cookie":["x"]}}]', False, [{"header": {"Set-Cookie": REDACTED}}]),
        ('{"headers":"not an object"}', False, {"headers": "not an object"}),
        ("[" * 100_000, False, TOO_DEEP),  # deeper than Python reads
        ("[" * 200 + "]" * 200, False, TOO_DEEP),  # and deeper than what writes values again
        ('{"a":' * 101 + '{"headers":{"Cookie":"x"}}' + "}" * 101, False, TOO_DEEP),
        ("[NaN,1e400,-Infinity,1.5]", False, ["NaN", "1e400", "-Infinity", 1.5]),
        ('{"\\ud800":"a\\udfff","b":"\\ud83d\\ude00"}', False, {"\ufffd": "a\ufffd", "b": "😀"}),
    ],
)
def test_a_stored_body_becomes_a_value(text: str, is_base64: bool, value: Any) -> None:
    assert values.parsed(text, is_base64=is_base64) == value


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        ("", ""),
        ('{"B":["1","2"],"A":"x","Cookie":["s"]}', f"A: x\nB: 1, 2\nCookie: {REDACTED}"),
        ("Authorization: secret", REDACTED),
        ("[1]", REDACTED),
    ],
)
def test_headers_are_laid_out_one_a_line(stored: str, text: str) -> None:
    assert values.headers_text(stored) == text


@pytest.mark.django_db
def test_results_come_from_the_journal_in_one_query(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    run = make_run()
    event = base64.b64encode(b'{"approved":true}').decode()
    steps = [
        make_result(make_step(run), {"a": 1}),
        make_result(make_step(run), None),
        make_result(make_step(run, step_type="Wait"), event, waitEventId="e", waitTimeout=False),
        make_result(make_step(run, step_type="Wait"), "", waitEventId="e", waitTimeout=True),
        make_step(run),  # without a result
        make_result(make_step(run), "x" * 500),
    ]
    with django_assert_num_queries(1):
        found = values.step_results(run, steps, largest=400)
    assert found == {1: {"a": 1}, 2: None, 3: {"approved": True}, 4: None}
    assert values.step_results(run, []) == {}


def test_a_run_may_ask_to_have_its_bodies_hidden() -> None:
    hidden = Run(config=json.dumps({"redact": ["header[X]", "body"]}), payload='{"a":1}', result='"x"')
    assert values.payload_of(hidden) == REDACTED
    assert values.result_of(hidden) == REDACTED
    assert values.payload_of(Run(config="{}", payload='{"a":1}')) == {"a": 1}
    assert values.payload_of(Run(config="not json", payload="1")) == 1

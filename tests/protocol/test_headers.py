from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.protocol import headers as h
from django_workflow.protocol.headers import (
    Headers,
    any_case,
    canonical,
    context_headers,
    first_values,
    forwardable,
    header_lists,
    is_header_name,
    is_safe_value,
    utf8_value,
)


def test_every_protocol_name_is_spelt_with_the_prefix() -> None:
    names = [value for name, value in vars(h).items() if name.startswith("WORKFLOW_")]
    assert len(names) == len({name.lower() for name in names})
    assert all(name.startswith("Upstash-Workflow-") for name in names)


def test_headers_are_found_in_any_case() -> None:
    headers = Headers({"X-User": "1", "x-user": "2", "Accept": "*/*"})
    assert headers["X-USER"] == "2"
    assert "accept" in headers
    assert 3 not in headers  # type: ignore[comparison-overlap]
    assert headers.get("missing") is None
    assert (headers.get("ACCEPT"), headers.get("missing", "-"), len(headers)) == ("*/*", "-", 2)
    assert repr(headers) == "Headers({'x-user': '2', 'Accept': '*/*'})"
    assert dict(headers) == {"x-user": "2", "Accept": "*/*"}


def test_any_case_wraps_plain_dicts_only() -> None:
    plain = any_case({"X-User": "1"})
    assert plain["x-user"] == "1"
    assert any_case(plain) is plain


@pytest.mark.parametrize(
    "name",
    [
        "Host",  # names another host
        "content-length",  # of another body
        "Connection",
        "Transfer-Encoding",
        "Accept-Encoding",
        "User-Agent",  # the engine's own
        "Content-Type",  # the message's own wins
        "X-Hop",  # named by the Connection header
        "Upstash-Signature",  # of another delivery
        "upstash-message-id",
        "Upstash-Retried",
        "Upstash-Caller-Ip",
        "Upstash-Region",
        "Upstash-Retries",  # configuration is not forwarded
        "Upstash-Workflow-RunId",  # the engine says which run it is
        "Upstash-Workflow-CreatedAt",
        "Upstash-Workflow-Unknown-Sdk",
        "Django-Workflow-First-Run",
        "django-workflow-carry",
    ],
)
def test_forwardable_drops_what_a_delivery_makes_itself(name: str) -> None:
    assert forwardable({name: "v", "Connection": "close, x-hop", "X-User": "u"}) == {"X-User": "u"}


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",  # the user's own, of the workflow
        "X-User",
        "Upstash-Label",
        "Upstash-Workflow-Sdk-Version",  # marks a delivery of steps
        "upstash-workflow-invoke-count",
        "Upstash-Workflow-StepName",
        "Upstash-Workflow-Is-Failure",
        "Upstash-Workflow-Something-New",  # of a later SDK
    ],
)
def test_forwardable_keeps_what_the_endpoint_needs(name: str) -> None:
    assert forwardable({name: "v"}) == {name: "v"}


def test_context_headers_hide_the_protocol_and_proxies() -> None:
    shown = context_headers(
        {
            "Upstash-Workflow-RunId": "wfr_1",
            "X-Vercel-Id": "1",
            "x-forwarded-for": "1.2.3.4",
            "CF-Ray": "1",
            "Upstash-Region": "US_EAST_1",
            "Upstash-Label": "a",
            "Upstash-Retried": "0",
            "Django-Workflow-First-Run": "wfr_0",
            "Django-Workflow-Carry": "1",
            "X-User": "u",
        }
    )
    assert dict(shown) == {"Upstash-Label": "a", "Upstash-Retried": "0", "X-User": "u"}
    assert shown["x-user"] == "u"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("content-type", "Content-Type"),
        ("X-FOO", "X-Foo"),
        ("Upstash-Workflow-RunId", "Upstash-Workflow-Runid"),
        ("a--b", "A--B"),
        ("X_foo-BAR", "X_foo-Bar"),
        ("not a token", "not a token"),  # Go leaves it alone
        ("é", "é"),
    ],
)
def test_canonical_writes_names_as_go_does(name: str, expected: str) -> None:
    assert canonical(name) == expected


def test_header_lists_gather_repeated_names() -> None:
    assert header_lists([("set-cookie", "a"), ("Set-Cookie", "b"), ("x", "1")]) == {
        "Set-Cookie": ["a", "b"],
        "X": ["1"],
    }
    assert first_values({"Set-Cookie": ["a", "b"], "X": ["1"]}) == {"Set-Cookie": "a, b", "X": "1"}


def test_header_lists_put_index_like_names_where_javascript_puts_them() -> None:
    names = ["X", "10", "2", "02", "4294967295"]
    assert list(header_lists([(name, "") for name in names])) == ["2", "10", "X", "02", "4294967295"]


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        ("plain", "plain"),
        ("Ã¤", "ä"),  # UTF-8 that a server read as Latin-1
        ("é", "é"),  # Latin-1 that is no UTF-8
        ("日本", "日本"),  # decoded already
    ],
)
def test_utf8_values_are_recovered(wire: str, text: str) -> None:
    assert utf8_value(wire) == text


@given(st.text())
def test_utf8_value_restores_every_text_that_a_server_read_as_latin_1(text: str) -> None:
    assert utf8_value(text.encode().decode("latin-1")) == text


def test_names_and_values_are_told_from_what_would_split_a_header() -> None:
    assert is_header_name("X-User_1")
    assert not any(map(is_header_name, ["", "a b", "a:b", "ä", "a\n"]))
    assert is_safe_value("any text, ä too")
    assert not any(map(is_safe_value, ["a\r\nb", "a\nb", "a\0"]))

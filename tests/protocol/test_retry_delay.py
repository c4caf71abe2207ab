from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.protocol.retry_delay import LONGEST_DELAY_MS, check_expression, parse_expression


@pytest.mark.parametrize(
    ("text", "retried", "milliseconds"),
    [
        ("1000", 0, 1000),
        ("1.5e3", 0, 1500),
        (".5 * 100", 0, 50),
        ("5000 * retried", 0, 0),  # documented example: the first retry comes at once
        ("5000 * retried", 2, 10_000),
        ("1000 * (1 + retried)", 1, 2000),
        ("pow(2, retried) * 1000", 3, 8000),
        ("min(pow(2, retried) * 1000, 60000)", 9999, 60_000),  # a bound holds where the power overflows
        ("max(1000, 500 * retried)", 1, 1000),
        ("exp(2.5 * retried) * 1000", 1, 1000 * math.exp(2.5)),
        ("sqrt(abs(0 - 16))", 0, 4),
        ("floor(1.9) + ceil(1.1)", 0, 3),
        ("round(2.5)", 0, 3),  # away from zero, unlike Python's
        ("10 - 2 - 3", 0, 5),  # from the left
        ("2 + 3 * 4", 0, 14),
        ("100 / 10 / 5", 0, 2),
        ("7 % 4", 0, 3),
        ("-5 + 8", 0, 3),
        ("10 - -5", 0, 15),
        ("3 * -(2 - 4)", 0, 6),
        ("  1000\t*\n2 ", 0, 2000),
        ("-1000", 0, 0),  # no wait before now
        ("pow(10, 20)", 0, LONGEST_DELAY_MS),  # no wait beyond a day
    ],
)
def test_an_expression_gives_milliseconds(text: str, retried: int, milliseconds: float) -> None:
    assert parse_expression(text)(retried) == pytest.approx(milliseconds)


@pytest.mark.parametrize(
    "text",
    [
        "",  # nothing
        "1 +",  # nothing after the operator
        "* 2",  # nothing before it
        "(1",  # left open
        "1)",  # never opened
        "1 2",  # no operator
        "retries",  # another name
        "Retried",  # names are lower case
        "pow(2)",  # too few arguments
        "pow(2, 3, 4)",  # too many
        "sqrt()",  # none
        "sqrt 4",  # no parentheses
        "retried(1)",  # not a function
        "__import__('os')",  # not even Python
        "1;2",
        "1 ** 2",  # not in the documented grammar
        "٣",  # digits of another script
        "1e",  # half a number
    ],
)
def test_other_text_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ValueError, match="is no retry delay: expected"):
        parse_expression(text)


def test_an_error_says_where() -> None:
    with pytest.raises(ValueError, match="found '#' at character 4"):
        parse_expression("10 +#")


@pytest.mark.parametrize(
    ("text", "retried", "reason"),
    [
        ("1000 / retried", 0, "divides by zero"),
        ("5 % retried", 0, "no value"),
        ("sqrt(0 - 1)", 0, "no value"),
        ("pow(0 - 8, 0.5)", 0, "no value"),
        ("pow(10, retried)", 400, "too large"),
        ("exp(1000)", 0, "too large"),
        ("floor(exp(1000))", 0, "too large"),
        ("round(exp(1000))", 0, "too large"),
        ("exp(1000) - exp(1000)", 0, "no number"),
    ],
)
def test_an_expression_without_a_value_is_a_value_error(text: str, retried: int, reason: str) -> None:
    expression = parse_expression(text)
    with pytest.raises(ValueError, match=reason):
        expression(retried)


def test_check_expression_tries_the_first_retry() -> None:
    check_expression("1000 * (retried + 1)")
    with pytest.raises(ValueError, match="retried = 0 divides by zero"):
        check_expression("1000 / retried")


def test_length_and_depth_are_bounded() -> None:
    with pytest.raises(ValueError, match="512 characters"):
        parse_expression("1" * 513)
    with pytest.raises(ValueError, match="levels deep"):
        parse_expression("(" * 200 + "1" + ")" * 200)
    assert parse_expression("-" * 500 + "1")(0) == 1
    assert parse_expression("+".join("1" * 250))(0) == 250


def test_parsed_expressions_are_kept() -> None:
    assert parse_expression("1000 * 7") is parse_expression("1000 * 7")


@given(st.text(alphabet="0123456789.+-*/%(), retidpowsqabxflcun", max_size=60), st.integers(0, 1000))
def test_any_text_gives_a_delay_or_a_value_error(text: str, retried: int) -> None:
    try:
        delay = parse_expression(text)(retried)
    except ValueError:
        return
    assert 0 <= delay <= LONGEST_DELAY_MS

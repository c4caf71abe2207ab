"""Retry delays as expressions: `"min(1000 * pow(2, retried), 60000)"` -> milliseconds, without `eval`.

    sum      := product (("+" | "-") product)*
    product  := factor (("*" | "/" | "%") factor)*
    factor   := ("-" | "+") factor | number | "retried" | name "(" sum ("," sum)* ")" | "(" sum ")"

An expression comes from a user or over the network, so its length and depth are bounded and only the functions of
the table exist. Source: QStash documentation, "Retry", where `retried` is 0 before the first retry.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from functools import lru_cache

LONGEST_DELAY_MS = 86_400_000.0

_LONGEST_TEXT = 512
_DEEPEST = 32
_TOKEN_RE = re.compile(r"\s*(?:(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|([A-Za-z]+)|(.))", re.ASCII | re.DOTALL)

_Term = Callable[[float], float]


def _power(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf


def _exponential(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    # Python's floor and ceil give integers, which infinity has none of.
    return lambda value: float(function(value)) if math.isfinite(value) else value


def _round(value: float) -> float:
    """Halves away from zero, as JavaScript and Go round positive numbers (Python rounds them to even)."""
    return math.copysign(math.floor(abs(value) + 0.5), value) if math.isfinite(value) else value


_FUNCTIONS: dict[str, tuple[int, Callable[..., float]]] = {
    "pow": (2, _power),
    "sqrt": (1, math.sqrt),
    "abs": (1, abs),
    "exp": (1, _exponential),
    "floor": (1, _whole(math.floor)),
    "ceil": (1, _whole(math.ceil)),
    "round": (1, _round),
    "min": (2, min),
    "max": (2, max),
}
_SUMS = {"+": operator.add, "-": operator.sub}
_PRODUCTS = {"*": operator.mul, "/": operator.truediv, "%": math.fmod}


class Expression:
    """A parsed expression; call it with the number of retries made so far."""

    __slots__ = ("_term", "text")

    def __init__(self, text: str, term: _Term) -> None:
        self.text = text
        self._term = term

    def __call__(self, retried: int) -> float:
        """Milliseconds to wait, from 0 to one day. Raises ValueError when there is no such number."""
        try:
            value = self._term(float(retried))
        except ZeroDivisionError as error:
            raise ValueError(f"{self._where(retried)} divides by zero.") from error
        except (ValueError, OverflowError) as error:  # a root of a negative number, a remainder of zero
            raise ValueError(f"{self._where(retried)} has no value ({error}).") from error
        if not math.isfinite(value):
            raise ValueError(f"{self._where(retried)} is {'no number' if math.isnan(value) else 'too large'}.")
        return min(max(value, 0.0), LONGEST_DELAY_MS)

    def _where(self, retried: int) -> str:
        return f"The retry delay {self.text!r} with retried = {retried}"

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


@lru_cache(maxsize=512)
def parse_expression(text: str) -> Expression:
    """The expression of `text`. Raises ValueError that names the place and what is allowed there."""
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"A retry delay may have {_LONGEST_TEXT} characters, this one has {len(text)}.")
    return Expression(text, _Parser(text).parse())


def check_expression(text: str) -> None:
    """Raises ValueError when the text is no expression, or has no value at the first retry."""
    parse_expression(text)(0)


class _Parser:
    """Recursive descent over the tokens; each method returns a function of `retried`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [match for match in _TOKEN_RE.finditer(text) if match[0].strip()]
        self.index = 0
        self.depth = 0

    def parse(self) -> _Term:
        term = self.sum()
        if self.index < len(self.tokens):
            raise self.error("expected an operator or the end")
        return term

    def peek(self) -> str:
        return self.tokens[self.index][0].strip() if self.index < len(self.tokens) else ""

    def take(self, symbol: str) -> None:
        if self.peek() != symbol:
            raise self.error(f"expected {symbol!r}")
        self.index += 1

    def error(self, expectation: str) -> ValueError:
        found = self.peek()
        place = f"{found!r} at character {self.tokens[self.index].end() - len(found)}" if found else "the end"
        return ValueError(
            f"{self.text!r} is no retry delay: {expectation}, found {place}. It is a number of milliseconds made of "
            f"numbers, retried, + - * / %, parentheses and {', '.join(_FUNCTIONS)}."
        )

    def sum(self) -> _Term:
        # The only way down again, so the only place to count the depth; signs count theirs in `factor`.
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ValueError(f"The retry delay {self.text!r} is nested more than {_DEEPEST} levels deep.")
        term = self.product()
        while (symbol := self.peek()) in _SUMS:
            self.index += 1
            term = _binary(_SUMS[symbol], term, self.product())
        self.depth -= 1
        return term

    def product(self) -> _Term:
        term = self.factor()
        while (symbol := self.peek()) in _PRODUCTS:
            self.index += 1
            term = _binary(_PRODUCTS[symbol], term, self.factor())
        return term

    def factor(self) -> _Term:
        negative = False
        while (symbol := self.peek()) in _SUMS:
            negative ^= symbol == "-"
            self.index += 1
        term = self.atom()
        return (lambda retried: -term(retried)) if negative else term

    def atom(self) -> _Term:
        if self.index == len(self.tokens):
            raise self.error("expected a number, retried, a function or '('")
        number, name, symbol = self.tokens[self.index].groups()
        if number is not None:
            self.index += 1
            value = float(number)
            return lambda _retried: value
        if name == "retried":
            self.index += 1
            return lambda retried: retried
        if name in _FUNCTIONS:
            self.index += 1
            return self.call(name)
        if symbol == "(":
            self.index += 1
            term = self.sum()
            self.take(")")
            return term
        raise self.error("expected a number, retried, a function or '('")

    def call(self, name: str) -> _Term:
        count, function = _FUNCTIONS[name]
        self.take("(")
        first = self.sum()
        if count == 1:
            self.take(")")
            return lambda retried: function(first(retried))
        self.take(",")
        second = self.sum()
        self.take(")")
        return _binary(function, first, second)


def _binary(function: Callable[[float, float], float], left: _Term, right: _Term) -> _Term:
    return lambda retried: function(left(retried), right(retried))

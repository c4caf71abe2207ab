"""A workflow's code for its page, with keywords, text and comments told apart."""

from __future__ import annotations

import inspect
import io
import keyword
import tokenize
from collections.abc import Iterator
from functools import cache
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString


@cache
def highlighted(workflow: Any) -> SafeString:
    parts = _parts(inspect.getsource(workflow.function))
    return format_html_join("", "{}", ((_marked(kind, text),) for kind, text in parts))


def _marked(kind: str, text: str) -> str:
    return format_html('<span class="{}">{}</span>', kind, text) if kind else text


def _parts(source: str) -> Iterator[tuple[str, str]]:
    """Pairs of kind ("" for plain) and text that make up the source."""
    lines = source.splitlines(keepends=True)
    row, column = 1, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = _kind(token)
        if not kind or token.start < (row, column):
            continue
        yield "", _between(lines, (row, column), token.start)
        yield kind, _between(lines, token.start, token.end)
        row, column = token.end
    yield "", _between(lines, (row, column), (len(lines), len(lines[-1])))


def _kind(token: tokenize.TokenInfo) -> str:
    if token.type == tokenize.COMMENT:
        return "comment"
    if token.type == tokenize.STRING or tokenize.tok_name[token.type].startswith("FSTRING"):
        return "text"
    if token.type == tokenize.NAME and keyword.iskeyword(token.string):
        return "keyword"
    return ""


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    (first, from_column), (last, to_column) = start, end
    if first == last:
        return lines[first - 1][from_column:to_column]
    return "".join([lines[first - 1][from_column:], *lines[first : last - 1], lines[last - 1][:to_column]])

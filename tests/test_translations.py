"""Every text for people is translated, with the same placeholders, and the compiled catalogue is the one that is read.

Texts are found in the source, so a new one without a translation fails here; `make translations` takes it up.
"""

from __future__ import annotations

import ast
import gettext
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils.translation.template import templatize

PACKAGE = Path(__file__).parent.parent / "django_workflow"
LANGUAGES = sorted(folder.name for folder in (PACKAGE / "locale").iterdir())
MARKS = {f"{prefix}gettext{suffix}": prefix for prefix in ("", "n", "p", "np") for suffix in ("", "_lazy", "_noop")} | {
    "_": ""
}
PLACEHOLDER_RE = re.compile(r"%\(\w+\)[sd]|%[sd]|\{\w+\}|%%")

Text = tuple[str, ...]
"""A text as the source has it, its context before it and its plural behind it."""


def texts_of_call(call: ast.Call, names: dict[str, str]) -> Iterator[Text]:
    mark = names.get(getattr(call.func, "id", ""))
    if mark is None:
        return
    number = 1 + ("n" in mark) + ("p" in mark)
    parts = [argument.value for argument in call.args[:number] if isinstance(argument, ast.Constant)]
    if len(parts) < number:
        return  # marked where it stands, by gettext_noop
    yield tuple(parts) if "p" in mark else ("", *parts)


def texts_of_python(source: str) -> Iterator[Text]:
    tree = ast.parse(source)
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    aliases = [alias for node in imported if node.module == "django.utils.translation" for alias in node.names]
    names = {alias.asname or alias.name: MARKS[alias.name] for alias in aliases if alias.name in MARKS}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from texts_of_call(node, names)


def texts_of_template(source: str) -> Iterator[Text]:
    """Django turns a template into calls with text between them."""
    calls = templatize(source)
    for found in re.finditer(r"\b(n?p?gettext|_)\(", calls):
        yield from texts_of_call(call_at(calls, found.start()), MARKS)


def call_at(text: str, start: int) -> ast.Call:
    for end in re.finditer(r"\)", text[start:]):
        try:
            tree = ast.parse(text[start : start + end.end()], mode="eval")
        except SyntaxError:
            continue  # a bracket inside of a text
        assert isinstance(tree.body, ast.Call)
        return tree.body
    raise AssertionError(f"No call at {text[start : start + 80]!r}")


@cache
def texts() -> dict[Text, str]:
    """Every marked text of the package, and a file that has it."""
    found: dict[Text, str] = {}
    for path in sorted(PACKAGE.rglob("*")):
        read = {".py": texts_of_python, ".html": texts_of_template}.get(path.suffix)
        if read is not None:
            found |= dict.fromkeys(read(path.read_text(encoding="utf-8")), str(path.relative_to(PACKAGE)))
    return found


@cache
def catalogue(language: str) -> dict[Any, str]:
    with (PACKAGE / "locale" / language / "LC_MESSAGES" / "django.mo").open("rb") as file:
        return dict(gettext.GNUTranslations(file)._catalog)  # type: ignore[attr-defined]


def translations_of(text: Text, language: str) -> list[str]:
    """Its translation, or those of its forms; "" where there is none."""
    context, singular, *plural = text
    key = f"{context}\x04{singular}" if context else singular
    keys: list[Any] = [(key, 0), (key, 1)] if plural else [key]
    return [catalogue(language).get(key, "") for key in keys]


def test_texts_are_found_in_code_and_templates() -> None:
    assert ("", "%d run was passed over.", "%d runs were passed over.") in texts()
    assert ("of a new run", "Delay") in texts()
    assert texts()["", "Keep as it is"] == "templates/django_workflow/admin/confirm.html"
    assert ("", "%(number)s is affected", "%(number)s are affected") in texts()
    assert len(texts()) > 800


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated(language: str) -> None:
    missing = {text: file for text, file in texts().items() if not all(translations_of(text, language))}
    assert missing == {}, "`make translations` takes new texts up; translate them, and run it again."


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_the_placeholders_of_its_text(language: str) -> None:
    for text in texts():
        _context, *forms = text
        for form, translated in zip(forms, translations_of(text, language), strict=True):
            assert sorted(PLACEHOLDER_RE.findall(translated)) == sorted(PLACEHOLDER_RE.findall(form)), form


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_compiled_catalogue_is_that_of_the_source(language: str) -> None:
    source = (PACKAGE / "locale" / language / "LC_MESSAGES" / "django.po").read_text(encoding="utf-8")
    assert "fuzzy" not in source
    strings = re.findall(r'^msgstr(?:\[\d\])? ((?:"(?:[^"\\]|\\.)*"\n)+)', source, re.MULTILINE)
    written = {"".join(map(ast.literal_eval, string.splitlines())) for string in strings[1:]}
    compiled = {value for key, value in catalogue(language).items() if key}
    assert compiled == written


def test_pages_are_in_the_language_of_the_site(settings: Any, admin_client: Client) -> None:
    settings.LANGUAGE_CODE = "de"
    page = admin_client.get("/admin/django_workflow/worker/").content.decode()
    assert "Betriebszustand" in page
    assert "In den letzten Tagen hat sich kein Worker gemeldet." in page

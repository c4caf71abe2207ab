"""Messages of the checks: id, text, and a hint that ends with where the rule is told in full."""

from __future__ import annotations

from django.core.checks import Error, Warning

DOCS = "docs/reference/checks.md"


def error(id: str, text: str, hint: str) -> Error:
    """`id` without the package's name: "E001"."""
    return Error(text, id=f"django_workflow.{id}", hint=_with_page(id, hint))


def warning(id: str, text: str, hint: str) -> Warning:
    return Warning(text, id=f"django_workflow.{id}", hint=_with_page(id, hint))


def _with_page(id: str, hint: str) -> str:
    return f"{hint} See {DOCS}#{id.lower()}."

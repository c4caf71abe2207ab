"""Every URL of the admin's pages of this app, found by walking the URLconf, with rows to fill in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.urls import NoReverseMatch, URLPattern, URLResolver, reverse

from django_workflow.models import Run


def admin_patterns() -> Iterator[tuple[type[Any], URLPattern]]:
    """(model, pattern) of each named page of this app's admins."""
    for model, model_admin in admin.site._registry.items():
        if model._meta.app_label != "django_workflow":
            continue
        for pattern in _flat(model_admin.get_urls()):
            if pattern.name:
                yield model, pattern


def _flat(patterns: list[Any]) -> Iterator[URLPattern]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _flat(pattern.url_patterns)
        else:
            yield pattern


def admin_urls(arguments: dict[str, Any]) -> list[str]:
    """The pages' addresses; `arguments` fills in what a pattern wants beside the key of a row of its model."""
    urls = []
    for model, pattern in admin_patterns():
        row = model._default_manager.first()
        wanted = pattern.pattern.converters
        values = {name: arguments.get(name, row.pk if row is not None else "none") for name in wanted}
        try:
            urls.append(reverse(f"admin:{pattern.name}", kwargs=values or None))
        except NoReverseMatch:  # patterns of Django with unnamed groups
            urls.append(reverse(f"admin:{pattern.name}", args=[row.pk if row is not None else "none"]))
    return sorted(set(urls))


def run_of(run_id: str) -> Run:
    return Run.objects.get(run_id=run_id)

from __future__ import annotations

import pytest

from django_workflow.models.dead_letter import kind_of_error


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        ("ConnectionError: the card service does not answer", 500, "ConnectionError"),
        ("requests.exceptions.ReadTimeout: 10 s", 500, "ReadTimeout"),
        ("KeyError:", 500, "KeyError"),
        ("HTTP status 502: <html>", 502, "HTTP 502"),
        ("The order of ada@example.com: refused", 409, "HTTP 409"),  # a person's, so no part of it is a group's name
        ("The worker was lost 5 times.", 0, ""),
        ("", 0, ""),
    ],
)
def test_errors_are_told_apart_by_class_or_status(error: str, status: int, kind: str) -> None:
    assert kind_of_error(error, status) == kind

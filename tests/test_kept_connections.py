"""Connections of threads that have no requests: what is broken is dropped, what is closed is left alone."""

from __future__ import annotations

import pytest
from django.db import connection

from django_workflow import kept_connections
from django_workflow.kept_connections import KeptConnections

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.every_database]


@pytest.mark.parametrize("has_failed", [True, False], ids=["after an error", "after a while"])
def test_a_closed_connection_is_not_tried(has_failed: bool) -> None:
    """MySQL's backend raises an AttributeError then, and that was a failed attempt of the delivery at hand."""
    connection.close()
    connection.errors_occurred = has_failed
    KeptConnections().drop_broken()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def test_one_that_failed_and_does_not_answer_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.ensure_connection()
    connection.errors_occurred = True
    monkeypatch.setattr(connection, "is_usable", lambda: False)
    KeptConnections().drop_broken()
    assert connection.connection is None


def test_one_in_use_is_not_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptConnections()
    kept.drop_broken()
    connection.ensure_connection()
    asked: list[bool] = []
    monkeypatch.setattr(connection, "is_usable", lambda: not asked.append(True))  # type: ignore[func-returns-value]
    kept.drop_broken()
    assert not asked
    monkeypatch.setattr(kept_connections, "IDLE_SECONDS", -1.0)
    kept.drop_broken()
    assert asked

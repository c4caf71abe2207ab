"""That a process of the tests ends where it was told to: one that does not would prove nothing."""

from __future__ import annotations

import pytest
from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from tests.faults import crashes


@pytest.mark.django_db(transaction=True)
def test_an_end_after_a_commit_comes_also_when_that_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []
    monkeypatch.setattr(BaseDatabaseWrapper, "_commit", BaseDatabaseWrapper._commit)  # so that it is put back
    monkeypatch.setattr(crashes, "end", lambda: ends.append("here"))
    crashes.install("deadlock", 1)
    crashes.install("after-commit", 1)
    with pytest.raises(OperationalError), transaction.atomic():
        pass
    assert ends == ["here"]

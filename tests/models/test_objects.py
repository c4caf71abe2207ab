"""What a site keeps about a run of its own becomes columns."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from django.db import models

from django_workflow.models import Run
from django_workflow.models.objects import columns_of
from django_workflow.protocol.publish import RunAttributes

KEY = UUID("01a20219-7e98-73e9-9b68-7c655ac1c1f2")


@pytest.mark.parametrize(
    ("field", "text", "key"),
    [
        (models.BigAutoField(primary_key=True), "7", 7),
        (models.UUIDField(primary_key=True), str(KEY), KEY),  # statements for SQLite need it, not its text
        (models.CharField(primary_key=True), "ann", "ann"),
    ],
    ids=["number", "UUID", "text"],
)
def test_the_owner_gets_the_type_of_the_users_key(
    monkeypatch: pytest.MonkeyPatch, field: models.Field[Any, Any], text: str, key: Any
) -> None:
    monkeypatch.setattr(type(Run._meta.get_field("owner")), "target_field", field)
    assert columns_of(RunAttributes(owner=text), "default") == {"owner_id": key}

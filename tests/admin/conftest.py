from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.admin.builders import make_user


@pytest.fixture
def viewer(db: None) -> User:
    """Staff that may look at everything of this app, and do nothing."""
    names = ("run", "delivery", "deadletter", "schedule", "worker", "flowkey")
    return make_user("viewer", *(f"view_{name}" for name in names))


@pytest.fixture
def viewing(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    return client

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from tests.admin.builders import make_user


@pytest.fixture
def viewer(db: None) -> User:
    return make_user("viewer", "view_run", "view_schedule", "view_deadletter")


@pytest.fixture
def owner(db: None) -> User:
    """Somebody who is no staff and owns runs."""
    return make_user("owner", staff=False)


@pytest.fixture
def api(viewer: User) -> APIClient:
    """The API as seen by staff that may look at runs."""
    return as_user(viewer)


def as_user(user: User) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client

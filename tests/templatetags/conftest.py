from __future__ import annotations

import pytest
from django.contrib.auth.models import User


@pytest.fixture
def superuser(db: None) -> User:
    return User.objects.create(username="root", is_superuser=True)


@pytest.fixture
def somebody(db: None) -> User:
    return User.objects.create(username="somebody")

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connections


@pytest.fixture
def superuser(db: None) -> User:
    return User.objects.create(username="root", is_superuser=True)


@pytest.fixture
def somebody(db: None) -> User:
    return User.objects.create(username="somebody")


@pytest.fixture
async def database_thread(transactional_db: None) -> AsyncIterator[None]:
    """For tests of asynchronous code, which reads in a thread of its own: its connection ends with the test."""
    yield
    await sync_to_async(connections.close_all)()

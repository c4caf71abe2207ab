from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import override_settings

from django_workflow.client.client import Client
from tests.client.fakes import RecordingTransport


@pytest.fixture(autouse=True)
def _endpoints() -> Iterator[None]:
    with override_settings(ROOT_URLCONF="tests.serve.urls"):
        yield


@pytest.fixture
def transport() -> RecordingTransport:
    return RecordingTransport()


@pytest.fixture
def client(transport: RecordingTransport) -> Client:
    return Client(transport)

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import override_settings

from django_workflow.authoring.registry import registry
from django_workflow.client import transports
from tests.client.fakes import RecordingTransport


@pytest.fixture(autouse=True)
def _own_workflows() -> Iterator[None]:
    with registry.isolated(), override_settings(ROOT_URLCONF="tests.serve.urls"):
        yield


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> RecordingTransport:
    """What every client of the test sends through."""
    recording = RecordingTransport()
    monkeypatch.setattr(transports, "_transport", recording)
    return recording

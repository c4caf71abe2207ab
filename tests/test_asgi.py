"""What `workflow_application` does to the server that imports it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from django_workflow.asgi import lift_header_limits


def test_daphne_takes_long_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = SimpleNamespace(totalHeadersSize=16384, MAX_LENGTH=16384)
    http: Any = ModuleType("twisted.web.http")
    http.HTTPChannel = channel
    monkeypatch.setitem(sys.modules, "twisted.web.http", http)
    lift_header_limits()
    assert channel.totalHeadersSize == channel.MAX_LENGTH == 1024 * 1024


def test_other_servers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "twisted.web.http", raising=False)
    lift_header_limits()
    assert "twisted.web.http" not in sys.modules

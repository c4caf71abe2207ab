"""Which URLs are this project's own endpoints: those of its workflows, and nothing beside them."""

from __future__ import annotations

import pytest
from django.test import override_settings

from django_workflow.client.urls import INTERNAL_ORIGIN, workflow_path
from django_workflow.engine.addresses import check_destination, is_own, is_served
from django_workflow.errors import MessageInvalid

BASE = "https://10.0.0.1:8443"

BESIDE = [
    "../../admin/",
    "../../admin/?x=1",
    "a/../../../admin/",
    "%2e%2e/%2E%2e/admin/",
    "..%2f..%2fadmin/",
    "..%252f..%252fadmin/",
    "..\\..\\admin/",
    "..%5c..%5cadmin/",
    "..",
    "../",
    "./",
    ".%2e/",
    "",
    "a/b/",
    "a//",
    "?a/",
    "#a/",
]


@pytest.fixture(autouse=True)
def _base():
    with override_settings(DJANGO_WORKFLOW={"base_url": BASE}):
        yield


@pytest.mark.parametrize(
    "rest", ["orders/", "orders/?a=../x", "orders.v2/", "a..b/", "bestellung-%C3%BC/", "a%5Cb/", "-/"]
)
def test_a_workflow_is_reached_without_the_guard(rest: str) -> None:
    prefix = workflow_path("-").removesuffix("-/")
    assert is_own(f"{BASE}{prefix}{rest}")
    assert is_served(f"{INTERNAL_ORIGIN}{prefix}{rest}")


@pytest.mark.parametrize("rest", BESIDE)
def test_what_stands_beside_the_workflows_is_not(rest: str) -> None:
    """Clients, proxies and servers take dots and encoded slashes out of a path: it would lead to any page."""
    prefix = workflow_path("-").removesuffix("-/")
    assert not is_own(f"{BASE}{prefix}{rest}")
    assert not is_served(f"{INTERNAL_ORIGIN}{prefix}{rest}")
    with pytest.raises(MessageInvalid, match="nothing else is served"):
        check_destination(f"{INTERNAL_ORIGIN}{prefix}{rest}")

from __future__ import annotations

import pytest
from django.test import override_settings
from django.urls import set_script_prefix

from django_workflow.client.urls import is_internal, workflow_url
from django_workflow.errors import Misconfigured


def test_without_base_url_a_workflow_lives_at_the_internal_origin() -> None:
    assert workflow_url("checkout") == "https://workflow.internal/workflows/serve/checkout/"
    assert is_internal(workflow_url("checkout"))


@override_settings(DJANGO_WORKFLOW={"base_url": "https://shop.example/app/"})
def test_base_url_is_the_origin_and_the_mount_point() -> None:
    assert workflow_url("checkout") == "https://shop.example/app/workflows/serve/checkout/"
    assert not is_internal(workflow_url("checkout"))


def test_a_name_is_quoted() -> None:
    assert workflow_url("big order") == "https://workflow.internal/workflows/serve/big%20order/"


def test_a_url_is_a_foreign_endpoint_and_stays() -> None:
    assert workflow_url("https://other.example/flow") == "https://other.example/flow"


def test_the_mount_point_of_the_current_request_does_not_matter() -> None:
    set_script_prefix("/mounted/")
    try:
        assert workflow_url("mounted_flow") == "https://workflow.internal/workflows/serve/mounted_flow/"
    finally:
        set_script_prefix("/")


@override_settings(ROOT_URLCONF="tests.client.empty_urls")
def test_missing_urls_name_the_line_to_add() -> None:
    with pytest.raises(Misconfigured, match=r'include\("django_workflow.urls"\)'):
        workflow_url("checkout")

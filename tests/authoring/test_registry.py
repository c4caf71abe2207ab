from __future__ import annotations

from typing import Any

import pytest

from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.registry import Clash, Registry, UnknownWorkflow
from django_workflow.errors import WorkflowError


def make(name: str, module: str = "shop.workflows", **options: Any) -> Workflow[Any, Any]:
    def function(ctx: Any) -> None: ...

    function.__module__ = module
    function.__qualname__ = name
    return Workflow(function, name=name, **options)


def test_workflows_are_found_by_name_and_alias() -> None:
    registry, checkout = Registry(), make("checkout", aliases=["buy"])
    registry.register(checkout)
    assert registry.get("checkout") is registry.find("buy") is checkout
    assert registry.all() == [checkout]
    assert registry.names() == ["checkout"]
    assert registry.find("nothing") is None


def test_an_unknown_name_is_an_error_that_lists_names_that_are_near() -> None:
    registry = Registry()
    registry.register(make("checkout"))
    with pytest.raises(UnknownWorkflow, match=r"There is no workflow 'chekout'\. Did you mean 'checkout'\? "):
        registry.get("chekout")
    with pytest.raises(LookupError, match=r"There is no workflow 'xyz'\. Workflows are found in"):
        registry.get("xyz")
    assert issubclass(UnknownWorkflow, WorkflowError)


def test_the_first_of_two_keeps_the_name_and_the_clash_is_remembered() -> None:
    registry = Registry()
    first, second = make("pay", "shop.workflows"), make("pay", "billing.workflows")
    registry.register(first)
    registry.register(second)
    assert registry.get("pay") is first
    assert registry.clashes == [Clash("pay", "shop.workflows", "billing.workflows")]


def test_an_alias_can_clash_too() -> None:
    registry = Registry()
    registry.register(make("pay"))
    registry.register(make("charge", "billing.workflows", aliases=["pay"]))
    assert [clash.name for clash in registry.clashes] == ["pay"]
    assert registry.names() == ["charge", "pay"]


def test_a_module_that_is_imported_again_replaces_its_own() -> None:
    registry = Registry()
    registry.register(make("pay"))
    again = make("pay")
    registry.register(again)
    assert registry.get("pay") is again
    assert registry.clashes == []


def test_what_is_registered_in_isolation_is_forgotten() -> None:
    registry = Registry()
    registry.register(make("pay"))
    with registry.isolated():
        registry.register(make("other"))
        registry.register(make("pay", "elsewhere"))
        assert registry.names() == ["other", "pay"]
    assert registry.names() == ["pay"]
    assert registry.clashes == []

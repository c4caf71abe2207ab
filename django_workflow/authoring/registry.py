"""Which workflows there are: name -> Workflow.

`@workflow` registers, `apps` imports the `workflows.py` of every app. A second workflow of the same name is remembered
as a clash for the system check; the first one keeps the name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django_workflow.errors import WorkflowError

if TYPE_CHECKING:
    from django_workflow.authoring.decorator import Workflow


class UnknownWorkflow(WorkflowError, LookupError):
    """No workflow of this name is registered."""


@dataclass(frozen=True, slots=True)
class Clash:
    """Two workflows want one name: `first` and `second` are their modules; the first one has it."""

    name: str
    first: str
    second: str


class Registry:
    def __init__(self) -> None:
        self._workflows: dict[str, Workflow[Any, Any]] = {}
        self._by_any_name: dict[str, Workflow[Any, Any]] = {}
        self.clashes: list[Clash] = []

    def register(self, workflow: Workflow[Any, Any]) -> None:
        """Add a workflow under its name and aliases. A module that is imported again replaces its own."""
        for name in (workflow.name, *workflow.aliases):
            holder = self._by_any_name.get(name)
            if holder is not None and _origin(holder) != _origin(workflow):
                self.clashes.append(Clash(name, _origin(holder)[0], _origin(workflow)[0]))
                continue
            self._by_any_name[name] = workflow
            if name == workflow.name:
                self._workflows[name] = workflow

    def get(self, name: str) -> Workflow[Any, Any]:
        """The workflow of a name or alias. Raises UnknownWorkflow, which lists names that are near."""
        workflow = self.find(name)
        if workflow is None:
            near = difflib.get_close_matches(name, self._by_any_name, n=3)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise UnknownWorkflow(
                f"There is no workflow {name!r}.{hint} Workflows are found in the workflows.py of installed apps."
            )
        return workflow

    def find(self, name: str) -> Workflow[Any, Any] | None:
        """The workflow of a name or alias; None when there is none."""
        return self._by_any_name.get(name)

    def all(self) -> list[Workflow[Any, Any]]:
        """Every workflow, by name."""
        return [self._workflows[name] for name in sorted(self._workflows)]

    def names(self) -> list[str]:
        """The workflows' own names, without aliases."""
        return sorted(self._workflows)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Forget afterwards what is registered inside: for tests that define workflows."""
        before = dict(self._workflows), dict(self._by_any_name), list(self.clashes)
        try:
            yield
        finally:
            self._workflows, self._by_any_name, self.clashes = before


def _origin(workflow: Workflow[Any, Any]) -> tuple[str, str]:
    return workflow.function.__module__, workflow.function.__qualname__


registry = Registry()

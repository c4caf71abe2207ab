"""Log lines of the package and of the project's own code say which run, step and attempt they belong to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from django_workflow import AsyncWorkflowContext, WorkflowContext, workflow
from django_workflow.authoring.registry import registry
from django_workflow.logging import RunContextFilter
from django_workflow.testing import run_workflows, workflow_clock

own = logging.getLogger("shop")
FORMAT = "%(levelname)s %(run_id)s|%(workflow)s|%(step)s|%(attempt)s|%(message)s"


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.addFilter(RunContextFilter())
        self.setFormatter(logging.Formatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [self.format(record).removeprefix("WARNING ") for record in self.records if record.name == "shop"]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    root = logging.getLogger()
    root.addHandler(handler)
    with registry.isolated():
        yield handler
    root.removeHandler(handler)


def test_outside_of_a_run_the_fields_are_empty(lines: Lines) -> None:
    own.warning("hello")
    assert lines.texts == ["||||hello"]


@pytest.mark.django_db
def test_lines_of_a_sync_workflow_and_its_steps(lines: Lines) -> None:
    @workflow
    def ship(ctx: WorkflowContext[Any]) -> None:
        ctx.run("pack", lambda: own.warning("packing"))
        own.warning("between")

    handle = ship.trigger()
    run_workflows()
    assert lines.texts == [f"{handle.id}|ship|pack|1|packing", f"{handle.id}|ship||1|between"]
    own.warning("after")
    assert lines.texts[-1] == "||||after"


@pytest.mark.django_db
def test_lines_of_async_steps_are_told_apart(lines: Lines) -> None:
    async def work(name: str) -> None:
        await asyncio.sleep(0)
        own.warning(name)

    @workflow
    async def ship(ctx: AsyncWorkflowContext[Any]) -> None:
        await asyncio.gather(ctx.run("left", work, "l"), ctx.run("right", work, "r"))

    handle = ship.trigger()
    run_workflows()
    assert sorted(lines.texts) == [f"{handle.id}|ship|left|1|l", f"{handle.id}|ship|right|1|r"]


@pytest.mark.django_db
def test_attempts_are_counted_and_failures_of_the_package_carry_the_fields_too(lines: Lines) -> None:
    @workflow(retries=1)
    def ship(ctx: WorkflowContext[Any]) -> None:
        ctx.run("pack", pack)

    def pack() -> None:
        own.warning("try")
        raise ValueError("no box")

    with workflow_clock():
        handle = ship.trigger()
        run_workflows(skip_delays=True)
    assert lines.texts == [f"{handle.id}|ship|pack|1|try", f"{handle.id}|ship|pack|2|try"]
    failures: list[Any] = [record for record in lines.records if record.name == "django_workflow.serve"]
    assert [(record.run_id, record.workflow, record.step) for record in failures] == [(handle.id, "ship", "pack")] * 2

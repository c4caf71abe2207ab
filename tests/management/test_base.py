"""What all commands do."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, get_commands, load_command_class
from django.db import OperationalError

from django_workflow.management.base import WorkflowCommand

OURS = sorted(name for name, app in get_commands().items() if app == "django_workflow")


@pytest.mark.parametrize("name", [name for name in OURS if name != "workflow_dev_server"])  # which has no project
def test_every_command_is_one_of_these(name: str) -> None:
    assert isinstance(load_command_class("django_workflow", name), WorkflowCommand)


class Failing(WorkflowCommand):
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        raise OperationalError("no such table: django_workflow_run")


def run(command: WorkflowCommand) -> None:
    command.execute(force_color=False, no_color=True, skip_checks=True)


@pytest.mark.django_db
def test_a_failure_without_tables_says_to_migrate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django.db.migrations.executor.MigrationExecutor.migration_plan", lambda *_: [("0001", False)])
    with pytest.raises(CommandError) as raised:
        run(Failing())
    told = "Migrations of django_workflow are not applied (no such table: django_workflow_run). Run manage.py migrate."
    assert str(raised.value) == told


@pytest.mark.django_db
def test_another_failure_of_the_database_stays_what_it_is() -> None:
    with pytest.raises(OperationalError):
        run(Failing())

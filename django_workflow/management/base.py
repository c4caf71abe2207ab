"""What the commands share."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from django_workflow.conf import get_settings


class WorkflowCommand(BaseCommand):
    """A command that leaves colours away where the variable NO_COLOR is set (source: no-color.org), and says so when it
    fails because `migrate` was forgotten."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        if os.environ.get("NO_COLOR") and not options.get("force_color"):
            options["no_color"] = True
        try:
            return super().execute(*args, **options)
        except DatabaseError as error:
            alias = get_settings().database
            if not _awaits_migrations(alias):
                raise
            database = "" if alias == "default" else f" --database {alias}"
            raise CommandError(
                f"Migrations of django_workflow are not applied ({error}). Run manage.py migrate{database}."
            ) from error


def _awaits_migrations(alias: str) -> bool:
    """Whether tables or columns of this app have still to be made; False where the database does not tell."""
    try:
        executor = MigrationExecutor(connections[alias])
        ours = [node for node in executor.loader.graph.leaf_nodes() if node[0] == "django_workflow"]
        return bool(executor.migration_plan(ours))
    except DatabaseError:
        return False

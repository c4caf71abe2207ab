"""The databases: versions, encodings, SQLite's options, tables, and whether somebody works.

They connect, so Django runs them only when it is told which databases to check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.core.checks import CheckMessage, Tags, register
from django.db import connections, router
from django.utils import timezone

from django_workflow.checks.configuration import Apps
from django_workflow.checks.messages import error, warning
from django_workflow.conf import get_settings, problems
from django_workflow.models import Delivery, Run
from django_workflow.presentation.lookup import has_living_worker

SQLITE_OPTIONS = (
    '"OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 5, '
    '"init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;"}'
)
Version = tuple[int, ...]
OLDEST: dict[str, Version] = {
    "SQLite": (3, 35),
    "PostgreSQL": (14,),
    "MariaDB": (10, 6),
    "MySQL": (8, 0, 11),
}
UNWATCHED = timedelta(minutes=2)


def on_our_database(check: Callable[[str, Any], Iterator[CheckMessage]]) -> Callable[..., list[CheckMessage]]:
    """Run the check with alias and connection when our database is among those that Django may ask."""

    def run(app_configs: Apps, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
        if problems() or get_settings().database not in (databases or ()):
            return []
        alias = get_settings().database
        return list(check(alias, connections[alias]))

    return register(Tags.database)(run)


@on_our_database
def check_version(alias: str, connection: Any) -> Iterator[CheckMessage]:
    kind, version = version_of(connection)
    if kind not in OLDEST:
        text = f"The database {alias!r} is {kind}, which the engine has no statements for."
        yield error("E014", text, f"Use {', '.join(OLDEST)}; the setting `database` may name another alias.")
    elif version < OLDEST[kind]:
        text = (
            f"The database {alias!r} is {kind} {_dotted(version)}; the engine needs {_dotted(OLDEST[kind])} or newer."
        )
        yield error("E014", text, "Use a newer server, or another database by the setting `database`.")


def version_of(connection: Any) -> tuple[str, Version]:
    """The kind of a database by its usual name, and its version."""
    if connection.vendor == "sqlite":
        return "SQLite", connection.Database.sqlite_version_info
    if connection.vendor == "postgresql":
        return "PostgreSQL", (connection.pg_version // 10_000, connection.pg_version % 10_000)
    if connection.vendor == "mysql":
        return "MariaDB" if connection.mysql_is_mariadb else "MySQL", connection.mysql_version
    return str(connection.display_name), ()


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


@on_our_database
def check_sqlite(alias: str, connection: Any) -> Iterator[CheckMessage]:
    if connection.vendor != "sqlite":
        return
    if str(connection.settings_dict["NAME"]).startswith("file:memorydb_"):
        return  # that of Django's test runner, where the harness needs no worker
    if connection.is_in_memory_db():
        yield warning(
            "W010",
            f"The SQLite database {alias!r} is in memory: each thread has one of its own, so a worker finds no runs.",
            "Give it a file as NAME.",
        )
        return
    with connection.cursor() as cursor:
        (mode,) = cursor.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        yield warning(
            "W002",
            f"The SQLite database {alias!r} is in journal mode {mode!r}: readers and the worker wait for each other.",
            f"Add {SQLITE_OPTIONS} to DATABASES[{alias!r}].",
        )


@on_our_database
def check_encoding(alias: str, connection: Any) -> Iterator[CheckMessage]:
    asked = {"postgresql": ("SHOW server_encoding", "UTF8"), "mysql": ("SELECT @@character_set_database", "utf8mb4")}
    if connection.vendor not in asked:
        return
    statement, wanted = asked[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(statement)
        (found,) = cursor.fetchone()
    if found != wanted:
        yield warning(
            "W011",
            f"The database {alias!r} keeps text as {found}: payloads and results with other characters are refused.",
            f"Make the database with the encoding {wanted}.",
        )


@on_our_database
def check_router(alias: str, connection: Any) -> Iterator[CheckMessage]:
    if not router.allow_migrate_model(alias, Run):
        yield error(
            "E015",
            f"A router of DATABASE_ROUTERS keeps the tables of django_workflow away from {alias!r}, where they belong.",
            f"Let allow_migrate say True for the app django_workflow on {alias!r}, or name another alias: `database`.",
        )


@on_our_database
def check_users(alias: str, connection: Any) -> Iterator[CheckMessage]:
    """Runs refer to users and content types, and no database refers into another one."""
    for model in (get_user_model(), ContentType):
        name = model._meta.label
        if not router.allow_migrate_model(alias, model):
            yield error(
                "E016",
                f"Runs refer to {name}, whose table a router of DATABASE_ROUTERS keeps away from {alias!r}, where the "
                "runs are: the tables of django_workflow cannot be made, or not be written to.",
                "Set `database` to the alias that holds your users.",
            )
        elif (home := router.db_for_write(model)) != alias:
            yield warning(
                "W016",
                f"{name} is written to {home!r}, but runs are kept in {alias!r}: a run of a user or for an object, "
                "and whatever a user does in the admin, refers to a row that is not there.",
                f"Set `database` to {home!r}.",
            )


@on_our_database
def check_worker(alias: str, connection: Any) -> Iterator[CheckMessage]:
    """Whether somebody does the work: a process beside this one is known by its heartbeat alone."""
    if get_settings().is_hosted or Delivery._meta.db_table not in connection.introspection.table_names():
        return
    now = timezone.now()
    late = Delivery.objects.using(alias).unleased().due(now - UNWATCHED).filter(flow_key="", queue="")
    if late.exists() and not has_living_worker(now):
        yield warning(
            "W012",
            "Deliveries have been due for over two minutes, and no worker reports.",
            "Run `manage.py workflow_worker`, or an ASGI server with workflow_application() and worker_autostart.",
        )

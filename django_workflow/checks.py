"""System checks: one id per rule, each with what is wrong and what to do.

E001 settings · E002 two workflows of one name · E003 USE_TZ · E004 URLs not included · E005 a bad schedule ·
E006 call_allow ·
W001 no ASGI application · W002 SQLite options
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connections
from django.urls import NoReverseMatch, reverse

from django_workflow.authoring.registry import registry
from django_workflow.conf import get_settings, problems
from django_workflow.engine.call_guard import guard_of
from django_workflow.errors import Misconfigured
from django_workflow.protocol.cron import check_cron

DOCS = "docs/reference/checks"
SQLITE_OPTIONS = (
    '"OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 5, '
    '"init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;"}'
)


@register("django_workflow")
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(problem, id="django_workflow.E001", hint=f"Mend DJANGO_WORKFLOW in the settings; see {DOCS}.")
        for problem in problems()
    ]


@register("django_workflow")
def check_calls(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if problems():
        return []
    try:
        guard_of(get_settings().call_allow)
    except Misconfigured as error:
        hint = 'List hosts, *.suffixes and CIDRs: ["payments.internal", "10.1.0.0/16"].'
        return [Error(f"call_allow cannot be read: {error}", id="django_workflow.E006", hint=hint)]
    return []


@register("django_workflow")
def check_names(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(
            f"Two workflows are called {clash.name!r}: in {clash.first} and in {clash.second}.",
            id="django_workflow.E002",
            hint="Give one of them another name: @workflow(name=…).",
        )
        for clash in registry.clashes
    ]


@register("django_workflow")
def check_time_zone(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if django_settings.USE_TZ:
        return []
    return [
        Error("USE_TZ is off, but instants of runs are aware.", id="django_workflow.E003", hint="Set USE_TZ = True.")
    ]


@register(Tags.urls)
def check_urls(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if not getattr(django_settings, "ROOT_URLCONF", None):
        return []
    try:
        reverse("django_workflow:serve", args=["-"])
    except NoReverseMatch:
        return [
            Error(
                "The URLs of django_workflow are not included, so no workflow can be called.",
                id="django_workflow.E004",
                hint='Add path("workflows/", include("django_workflow.urls")) to your urls.py.',
            )
        ]
    return []


@register("django_workflow")
def check_schedules(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for workflow in registry.all():
        if not workflow.schedule:
            continue
        try:
            check_cron(workflow.schedule, workflow.timezone)
        except ValueError as error:
            message = f"The schedule of workflow {workflow.name!r} cannot be read: {error}"
            found.append(Error(message, id="django_workflow.E005", hint="Give five fields, such as 0 3 * * *."))
    return found


@register("django_workflow")
def check_server(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if getattr(django_settings, "ASGI_APPLICATION", None) or problems() or get_settings().engine != "embedded":
        return []
    return [
        Warning(
            "ASGI_APPLICATION is not set: no worker starts with the server, and the widget polls.",
            id="django_workflow.W001",
            hint="Use workflow_application() in asgi.py, or run `manage.py workflow_worker` beside your WSGI server.",
        )
    ]


@register(Tags.database)
def check_sqlite(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    if problems():
        return []
    alias = get_settings().database
    if alias not in (databases or ()) or connections[alias].vendor != "sqlite" or connections[alias].is_in_memory_db():  # type: ignore[attr-defined]
        return []
    with connections[alias].cursor() as cursor:
        (mode,) = cursor.execute("PRAGMA journal_mode").fetchone()
    if mode == "wal":
        return []
    return [
        Warning(
            f"The SQLite database {alias!r} is in journal mode {mode!r}: readers and the worker wait for each other.",
            id="django_workflow.W002",
            hint=f"Add {SQLITE_OPTIONS} to DATABASES[{alias!r}].",
        )
    ]

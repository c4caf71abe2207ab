"""System checks: one id per rule, each with what is wrong and what to do.

E001 settings · E002 two workflows of one name · E003 USE_TZ · E004 URLs not included · E005 a bad schedule ·
E006 call_allow · E007 hosted, no token · E008 hosted, no base_url · E009 hosted, no signing keys ·
E010 engine_api, hosted ·
W001 no ASGI application · W002 SQLite options · W003 hosted, one signing key · W004 hosted, base_url not public ·
W005 engine_api, a token that SDKs cannot read
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connections
from django.urls import NoReverseMatch, reverse

from django_workflow.authoring.registry import registry
from django_workflow.conf import Settings, get_settings, problems
from django_workflow.engine.call_guard import guard_of
from django_workflow.engine.signing_keys import engine_token, names_a_user
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
def check_engine_api(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if problems() or not get_settings().engine_api:
        return []
    if get_settings().is_hosted:
        return [
            Error(
                "engine_api is on, but the engine is the hosted one: this site has no API to serve.",
                id="django_workflow.E010",
                hint="Give clients the hosted engine's URL and token and leave engine_api away, or use the embedded "
                "engine.",
            )
        ]
    if names_a_user(engine_token()):
        return []
    return [
        Warning(
            "engine_api is on, and the token does not name a user: context.createWebhook of the JavaScript SDK fails.",
            id="django_workflow.W005",
            hint='Use base64 of {"UserID": "…", "Password": "…"}, or leave the setting token (QSTASH_TOKEN) away.',
        )
    ]


@register("django_workflow")
def check_hosted(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if problems() or not get_settings().is_hosted:
        return []
    return list(_hosted_problems(get_settings()))


def _hosted_problems(settings: Settings) -> Iterator[CheckMessage]:
    credentials = settings.credentials()
    if not credentials.token:
        yield Error(
            f"The engine is hosted at {credentials.url}, but there is no token to talk to it.",
            id="django_workflow.E007",
            hint=f"Set QSTASH_TOKEN in the environment, or token in DJANGO_WORKFLOW; see {DOCS}.",
        )
    if not settings.base_url:
        yield Error(
            "The engine is hosted, but this site does not know its own address, so no workflow can be called.",
            id="django_workflow.E008",
            hint='Set base_url in DJANGO_WORKFLOW to the public origin of this site: "https://shop.example.com".',
        )
    elif reason := _not_reachable(settings.base_url, credentials.url):
        yield Warning(
            f"base_url is {settings.base_url!r}: {reason}.",
            id="django_workflow.W004",
            hint="Give the public https:// origin of this site; in development that of a tunnel to it.",
        )
    if not credentials.signing_keys:
        message = "The engine is hosted, but there are no signing keys: nobody can tell its calls from a stranger's"
        hint = (
            "Set QSTASH_CURRENT_SIGNING_KEY and QSTASH_NEXT_SIGNING_KEY in the environment, or current_signing_key and "
            "next_signing_key in DJANGO_WORKFLOW."
        )
        if django_settings.DEBUG:
            text = f"{message}. Under DEBUG every call is believed."
            yield Warning(text, id="django_workflow.W003", hint=hint)
        else:
            yield Error(f"{message}, so every call is refused.", id="django_workflow.E009", hint=hint)
    elif len(credentials.signing_keys) == 1:
        yield Warning(
            "There is one signing key: when the engine's keys are rotated, its calls are refused.",
            id="django_workflow.W003",
            hint="Set both QSTASH_CURRENT_SIGNING_KEY and QSTASH_NEXT_SIGNING_KEY.",
        )


def _not_reachable(base_url: str, engine_url: str) -> str | None:
    """Why an engine at a public address cannot call this site safely; None when it can, or is no public one itself."""
    if _is_local(urlsplit(engine_url).hostname or ""):
        return None
    site = urlsplit(base_url)
    if _is_local(site.hostname or ""):
        return f"the engine at {engine_url} cannot reach that address from outside"
    return "payloads and results pass over the network in the clear" if site.scheme == "http" else None


def _is_local(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal")) or "." not in host


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

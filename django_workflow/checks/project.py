"""The project around the package: its URLs, hosts, apps, templates and server, and the workflows in its code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Tags, register
from django.http.request import split_domain_port, validate_host
from django.template import TemplateDoesNotExist
from django.template.exceptions import TemplateSyntaxError
from django.template.loader import get_template
from django.urls import NoReverseMatch, reverse

from django_workflow.authoring.registry import registry
from django_workflow.checks.configuration import Apps
from django_workflow.checks.messages import error, warning
from django_workflow.conf import get_settings, problems
from django_workflow.engine.dispatch import internal_host
from django_workflow.errors import Misconfigured
from django_workflow.protocol.cron import check_cron

TEMPLATES = Path(__file__).parent.parent / "templates"
ADMIN_TEMPLATES = ("admin/django_workflow", "django_workflow/admin")
LOCAL_HOSTS = (".localhost", "127.0.0.1", "[::1]")
"""What Django takes when ALLOWED_HOSTS is empty under DEBUG."""


# Code


@register("django_workflow")
def check_names(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    return [
        error(
            "E002",
            f"Two workflows are called {clash.name!r}: in {clash.first} and in {clash.second}.",
            "Give one of them another name: @workflow(name=…).",
        )
        for clash in registry.clashes
    ]


@register("django_workflow")
def check_schedules(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for workflow in registry.all():
        if not workflow.schedule:
            continue
        try:
            check_cron(workflow.schedule, workflow.timezone)
        except ValueError as failure:
            text = f"The schedule of workflow {workflow.name!r} cannot be read: {failure}"
            found.append(error("E005", text, "Give five fields, such as 0 3 * * *, and the name of a time zone."))
    return found


@register("django_workflow")
def check_payloads(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Types are looked up when they are first needed, which is when a run is triggered: too late to learn of it."""
    found: list[CheckMessage] = []
    for workflow in registry.all():
        try:
            _ = workflow.payload_type
        except Misconfigured as failure:
            text, hint = str(failure), "Mend the annotation WorkflowContext[...]"
            found.append(
                error("E017", text, f"{hint} in {workflow.function.__module__}, or give @workflow(payload=...).")
            )
    return found


# Settings of Django


@register("django_workflow")
def check_time_zone(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    if django_settings.USE_TZ:
        return []
    return [error("E003", "USE_TZ is off, but instants of runs are aware.", "Set USE_TZ = True.")]


@register(Tags.urls)
def check_urls(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    if not getattr(django_settings, "ROOT_URLCONF", None):
        return []
    try:
        reverse("django_workflow:serve", args=["-"])
    except NoReverseMatch:
        return [
            error(
                "E004",
                "The URLs of django_workflow are not included, so no workflow can be called.",
                'Add path("workflows/", include("django_workflow.urls")) to your urls.py.',
            )
        ]
    return []


@register("django_workflow")
def check_host(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Deliveries are requests like any other: Django answers 400 to a host that it does not know."""
    if problems() or get_settings().is_hosted:
        return []
    allowed = django_settings.ALLOWED_HOSTS or (LOCAL_HOSTS if django_settings.DEBUG else ())
    name = split_domain_port(internal_host())[0] or internal_host()
    if validate_host(name, allowed):
        return []
    base_url = get_settings().base_url
    text = (
        f"base_url is {base_url!r}, but ALLOWED_HOSTS does not have {name!r}"
        if base_url
        else f"ALLOWED_HOSTS has no host name that the worker could use, and not {name!r} either"
    )
    return [error("E013", f"{text}: every delivery is answered 400.", f"Add {name!r} to ALLOWED_HOSTS.")]


# What has to be installed, and what serves


@register("django_workflow")
def check_apps(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    if apps.is_installed("rest_framework"):
        return []
    return [
        warning(
            "W007",
            "rest_framework is not in INSTALLED_APPS: the API answers programs, but its pages in a browser fail.",
            'Add "rest_framework".',
        )
    ]


@register("django_workflow")
def check_server(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    if problems() or get_settings().is_hosted:
        return []
    settings = get_settings()
    if not getattr(django_settings, "ASGI_APPLICATION", None):
        return [
            warning(
                "W001",
                "ASGI_APPLICATION is not set: no worker starts with the server, and the widget polls.",
                "Use workflow_application() in asgi.py, or run `manage.py workflow_worker` beside your WSGI server.",
            )
        ]
    starts = settings.worker_autostart is True or (settings.worker_autostart == "debug" and django_settings.DEBUG)
    if django_settings.DEBUG and starts and not apps.is_installed("daphne"):
        return [
            warning(
                "W008",
                "daphne is not in INSTALLED_APPS: runserver serves WSGI, so it starts no worker and has no WebSockets.",
                'Add "daphne" before "django.contrib.staticfiles", or run `manage.py workflow_worker` beside it.',
            )
        ]
    return []


# Templates


@register(Tags.templates)
def check_templates(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    if not apps.is_installed("django.contrib.admin") or not django_settings.TEMPLATES:
        return []
    return [
        warning(
            "W009",
            f"The admin's template {name} comes from {where}, which hides the one of django_workflow.",
            f'Begin it with {{% extends "{name}" %}} and change blocks, or give it another name.',
        )
        for name, where in _shadowed()
    ]


def _shadowed() -> Iterator[tuple[str, str]]:
    for folder in ADMIN_TEMPLATES:
        for path in sorted((TEMPLATES / folder).rglob("*.html")):
            name = path.relative_to(TEMPLATES).as_posix()
            try:
                origin = getattr(get_template(name), "origin", None)
            except TemplateDoesNotExist:
                yield name, "nowhere (APP_DIRS is off, or the app is not installed)"
                continue
            except TemplateSyntaxError:  # the engine's own check tells of it
                continue
            found = Path(str(getattr(origin, "name", path)))
            if found.resolve() != path.resolve() and not _extends(found, name):
                yield name, str(found)


def _extends(path: Path, name: str) -> bool:
    """Whether a template extends the one that it stands in front of, as Django lets it."""
    return (
        path.is_file()
        and re.search(rf"{{%\s*extends\s+[\"']{re.escape(name)}[\"']", path.read_text("utf-8")) is not None
    )

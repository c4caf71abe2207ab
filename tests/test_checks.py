"""System checks: what is missing or cannot work is said at start-up, and a project that is well hears nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.utils import timezone

from django_workflow.authoring.registry import registry
from django_workflow.checks import configuration, databases, deployment, project
from django_workflow.checks.hosted import check_hosted
from django_workflow.checks.messages import DOCS
from django_workflow.models import Run
from django_workflow.testing.factories import make_delivery, make_worker

if TYPE_CHECKING:
    from nowhere import OnlyForTypeCheckers

COMPLETE = {
    "engine": "qstash",
    "token": "t",
    "base_url": "https://shop.example",
    "current_signing_key": "sig_1",
    "next_signing_key": "sig_2",
}

Check = Callable[[Any], list[CheckMessage]]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("URL", "TOKEN", "CURRENT_SIGNING_KEY", "NEXT_SIGNING_KEY", "REGION"):
        monkeypatch.delenv(f"QSTASH_{variable}", raising=False)


def told(found: list[CheckMessage]) -> list[str]:
    """The ids; each message has a hint that points to its section."""
    ids = [str(message.id).removeprefix("django_workflow.") for message in found]
    for id, message in zip(ids, found, strict=True):
        assert str(message.hint).endswith(f" See {DOCS}#{id.lower()}.")
    return ids


def ids(debug: bool = False, **values: Any) -> list[str]:
    with override_settings(DJANGO_WORKFLOW={**COMPLETE, **values}, DEBUG=debug):
        return told(check_hosted(None))


def test_a_complete_configuration_is_well() -> None:
    assert ids() == []


def test_the_embedded_engine_needs_none_of_it() -> None:
    with override_settings(DJANGO_WORKFLOW={}):
        assert check_hosted(None) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"token": None}, ["E007"]),
        ({"base_url": None}, ["E008"]),
        ({"current_signing_key": None, "next_signing_key": None}, ["E009"]),
        ({"next_signing_key": None}, ["W003"]),
        ({"base_url": "http://shop.example"}, ["W004"]),  # in the clear
        ({"base_url": "https://localhost:8000"}, ["W004"]),
        ({"base_url": "http://127.0.0.1:8000"}, ["W004"]),
        ({"base_url": "http://[::1]:8000"}, ["W004"]),
        ({"base_url": "https://10.1.2.3"}, ["W004"]),
        ({"base_url": "https://web"}, ["W004"]),  # a name that only one network knows
        ({"base_url": "http://web:8000", "qstash_url": "http://engine:8080"}, []),  # an engine beside this site
        ({"base_url": "http://127.0.0.1:8000", "qstash_url": "http://127.0.0.1:8080"}, []),
    ],
)
def test_what_is_missing_or_cannot_work_is_told(values: dict[str, Any], expected: list[str]) -> None:
    assert ids(**values) == expected


def test_under_debug_missing_keys_are_a_warning() -> None:
    assert ids(debug=True, current_signing_key=None, next_signing_key=None) == ["W003"]


TOKEN_OF_A_USER = "eyJVc2VySUQiOiJtZSIsIlBhc3N3b3JkIjoicCJ9"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, []),
        ({"engine_api": True}, []),
        ({"engine_api": True, "token": TOKEN_OF_A_USER}, []),
        ({"engine_api": True, "token": "mine"}, ["W005"]),
        ({"token": "mine"}, []),
        ({**COMPLETE, "engine_api": True}, ["E010"]),
    ],
)
def test_an_api_that_cannot_work_is_told(values: dict[str, Any], expected: list[str]) -> None:
    with override_settings(DJANGO_WORKFLOW=values):
        assert told(configuration.check_engine_api(None)) == expected


# What the project's settings say


REDIS = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}
LOCAL = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}

SETTINGS: list[tuple[Check, dict[str, Any], list[str]]] = [
    (configuration.check_settings, {"DJANGO_WORKFLOW": {"retry": 1}}, ["E001"]),
    (configuration.check_settings, {"DJANGO_WORKFLOW": "embedded"}, ["E001"]),
    (configuration.check_calls, {"DJANGO_WORKFLOW": {"call_allow": ["http://x"]}}, ["E006"]),
    (configuration.check_engine_api, {"DJANGO_WORKFLOW": {"engine_api": True}, "ASGI_APPLICATION": None}, ["W006"]),
    (configuration.check_realtime, {"DJANGO_WORKFLOW": {}}, []),
    (
        configuration.check_realtime,
        {"DJANGO_WORKFLOW": {"realtime_store": "redis"}, "CACHES": {"default": LOCAL}},
        ["E011"],
    ),
    (configuration.check_realtime, {"DJANGO_WORKFLOW": {"realtime_store": "redis"}, "CACHES": {"default": REDIS}}, []),
    (
        configuration.check_realtime,  # the one of that name is asked, and no other
        {"DJANGO_WORKFLOW": {"realtime_store": "redis"}, "CACHES": {"default": REDIS, "django_workflow": LOCAL}},
        ["E011"],
    ),
    (configuration.check_realtime, {"DJANGO_WORKFLOW": {"realtime_authorize": "shop.rules.may"}}, ["E012"]),
    (configuration.check_realtime, {"DJANGO_WORKFLOW": {"realtime_authorize": "os.name"}}, ["E012"]),
    (configuration.check_realtime, {"DJANGO_WORKFLOW": {"realtime_authorize": "os.getcwd"}}, []),
    (project.check_time_zone, {"USE_TZ": False}, ["E003"]),
    (project.check_urls, {"ROOT_URLCONF": "tests.client.empty_urls"}, ["E004"]),
    (project.check_urls, {}, []),
    (project.check_host, {"ALLOWED_HOSTS": ["shop.example"]}, []),
    (project.check_host, {"ALLOWED_HOSTS": [".shop.example"]}, []),
    (project.check_host, {"ALLOWED_HOSTS": ["*"]}, []),
    (project.check_host, {"ALLOWED_HOSTS": [], "DEBUG": True}, []),
    (project.check_host, {"ALLOWED_HOSTS": []}, ["E013"]),
    (
        project.check_host,
        {"ALLOWED_HOSTS": ["www.shop.example"], "DJANGO_WORKFLOW": {"base_url": "https://shop.example"}},
        ["E013"],
    ),
    (
        project.check_host,
        {"ALLOWED_HOSTS": ["shop.example"], "DJANGO_WORKFLOW": {"base_url": "https://shop.example:8443/a"}},
        [],
    ),
    (
        project.check_host,
        {"ALLOWED_HOSTS": ["[::1]"], "DJANGO_WORKFLOW": {"base_url": "http://[::1]:8000"}},
        [],
    ),
    (project.check_host, {"ALLOWED_HOSTS": [], "DJANGO_WORKFLOW": COMPLETE}, []),  # the hosted engine's own matter
    (project.check_server, {}, []),
    (project.check_server, {"ASGI_APPLICATION": None}, ["W001"]),
    (project.check_server, {"ASGI_APPLICATION": None, "DJANGO_WORKFLOW": COMPLETE}, []),
    (deployment.check_layer, {}, ["W013"]),
    (deployment.check_layer, {"CHANNEL_LAYERS": {}}, []),
    (deployment.check_layer, {"CHANNEL_LAYERS": {}, "DJANGO_WORKFLOW": {"realtime_store": "memory"}}, ["W014"]),
]


@pytest.mark.parametrize(("check", "values", "expected"), SETTINGS)
def test_settings_that_cannot_work_are_told(check: Check, values: dict[str, Any], expected: list[str]) -> None:
    with override_settings(**values):
        assert told(check(None)) == expected


def test_apps_that_are_missing_are_told(settings: Any) -> None:
    assert told(project.check_apps(None)) == []
    settings.DEBUG = True
    assert told(project.check_server(None)) == []
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app not in ("daphne", "rest_framework")]
    assert told(project.check_apps(None)) == ["W007"]
    assert told(project.check_server(None)) == ["W008"]
    settings.DJANGO_WORKFLOW = {"worker_autostart": False}
    assert told(project.check_server(None)) == []


def test_names_and_schedules_of_the_code_are_told() -> None:
    from django_workflow import workflow

    with registry.isolated():
        assert told([*project.check_names(None), *project.check_schedules(None)]) == []

        @workflow(name="twice")
        def one(ctx: Any) -> None: ...

        @workflow(name="twice")
        def two(ctx: Any) -> None: ...

        @workflow(schedule="whenever")
        def three(ctx: Any) -> None: ...

        assert told(project.check_names(None)) == ["E002"]
        assert told(project.check_schedules(None)) == ["E005"]


def test_payload_types_that_cannot_be_used_are_told() -> None:
    from django_workflow import WorkflowContext, workflow

    with registry.isolated():

        @workflow
        def fits(ctx: WorkflowContext[int]) -> None: ...

        @workflow
        def nowhere(ctx: WorkflowContext[OnlyForTypeCheckers]) -> None: ...

        @workflow(payload=Run)
        def a_model(ctx: Any) -> None: ...

        found = sorted(project.check_payloads(None), key=lambda message: message.msg, reverse=True)
        assert told(found) == ["E017", "E017"]
        assert "'nowhere' cannot be found: name 'OnlyForTypeCheckers' is not defined" in found[0].msg
        assert "'a_model' is declared as Run, which is a model" in found[1].msg
        assert f"in {__name__}, or give @workflow(payload=...)" in str(found[0].hint)


PAGE = "admin/django_workflow/run/change_form.html"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, []),
        ("<p>mine</p>", ["W009"]),
        (f'{{% extends "{PAGE}" %}}', []),
    ],
)
def test_admin_templates_that_are_hidden_are_told(
    tmp_path: Path, settings: Any, text: str | None, expected: list[str]
) -> None:
    if text is not None:
        (tmp_path / PAGE).parent.mkdir(parents=True)
        (tmp_path / PAGE).write_text(text)
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]
    found = project.check_templates(None)
    assert told(found) == expected
    assert all(PAGE in message.msg for message in found)


# Databases


def fake(vendor: str, **values: Any) -> Any:
    return SimpleNamespace(vendor=vendor, display_name=vendor, **values)


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        (fake("sqlite", Database=SimpleNamespace(sqlite_version_info=(3, 34, 1))), ["E014"]),
        (fake("sqlite", Database=SimpleNamespace(sqlite_version_info=(3, 35, 0))), []),
        (fake("postgresql", pg_version=130_012), ["E014"]),
        (fake("postgresql", pg_version=140_000), []),
        (fake("mysql", mysql_is_mariadb=True, mysql_version=(10, 5, 28)), ["E014"]),
        (fake("mysql", mysql_is_mariadb=True, mysql_version=(10, 6, 0)), []),
        (fake("mysql", mysql_is_mariadb=False, mysql_version=(8, 0, 4)), ["E014"]),
        (fake("mysql", mysql_is_mariadb=False, mysql_version=(8, 0, 11)), []),
        (fake("oracle"), ["E014"]),
    ],
)
def test_databases_that_are_too_old_are_told(
    monkeypatch: pytest.MonkeyPatch, connection: Any, expected: list[str]
) -> None:
    monkeypatch.setattr(databases, "connections", {"default": connection})
    assert told(databases.check_version(None, databases=["default"])) == expected


@pytest.mark.every_database
@pytest.mark.django_db
def test_the_database_of_these_tests_is_well() -> None:
    for check in (databases.check_version, databases.check_encoding, databases.check_router, databases.check_worker):
        assert told(check(None, databases=["default"])) == []


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        (fake("postgresql"), ["W011"]),
        (fake("mysql"), ["W011"]),
        (fake("sqlite"), []),
    ],
)
def test_other_encodings_are_told(monkeypatch: pytest.MonkeyPatch, connection: Any, expected: list[str]) -> None:
    class Cursor:
        def __enter__(self) -> Cursor:
            return self

        def __exit__(self, *args: object) -> None: ...

        def execute(self, statement: str) -> None: ...

        def fetchone(self) -> tuple[str]:
            return ("latin1",)

    connection.cursor = Cursor
    monkeypatch.setattr(databases, "connections", {"default": connection})
    assert told(databases.check_encoding(None, databases=["default"])) == expected


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shop.sqlite3", ["W002"]),
        (":memory:", ["W010"]),
        ("file:memorydb_default?mode=memory&cache=shared", []),  # as the test runner calls it
    ],
)
def test_sqlite_options_are_told_as_text_to_paste(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: list[str]
) -> None:
    from django.db.backends.sqlite3.base import DatabaseWrapper

    place = name if "memory" in name else str(tmp_path / name)
    options = {"NAME": place, "OPTIONS": {}, "TIME_ZONE": None, "CONN_MAX_AGE": 0, "AUTOCOMMIT": True}
    connection = DatabaseWrapper({**options, "CONN_HEALTH_CHECKS": False, "ATOMIC_REQUESTS": False}, "default")
    monkeypatch.setattr(databases, "connections", {"default": connection})
    try:
        found = databases.check_sqlite(None, databases=["default"])
    finally:
        connection.close()
    assert told(found) == expected
    assert expected != ["W002"] or databases.SQLITE_OPTIONS in str(found[0].hint)


class NotHere:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if app_label == "django_workflow" else None


def test_a_router_that_keeps_the_tables_away_is_told() -> None:
    with override_settings(DATABASE_ROUTERS=["tests.test_checks.NotHere"]):
        assert told(databases.check_router(None, databases=["default"])) == ["E015"]


class UsersElsewhere:
    """A router by which users are in a database of their own."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "accounts" if model._meta.app_label == "auth" else None


class NoUsersHere(UsersElsewhere):
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if app_label == "auth" else None


@pytest.mark.parametrize(("name", "expected"), [("UsersElsewhere", ["W016"]), ("NoUsersHere", ["E016"]), (None, [])])
def test_users_in_another_database_than_runs_are_told(name: str | None, expected: list[str]) -> None:
    with override_settings(DATABASE_ROUTERS=[f"tests.test_checks.{name}"] if name else []):
        assert told(databases.check_users(None, databases=["default"])) == expected


@pytest.mark.django_db
def test_work_that_nobody_does_is_told() -> None:
    long_ago = timezone.now() - timedelta(minutes=5)
    make_delivery(due_at=long_ago)
    assert told(databases.check_worker(None, databases=["default"])) == ["W012"]
    make_worker()
    assert told(databases.check_worker(None, databases=["default"])) == []


def test_databases_are_left_alone_unless_django_is_told_to_ask_them() -> None:
    for check in (databases.check_version, databases.check_sqlite, databases.check_worker):
        assert check(None) == []
        assert check(None, databases=["other"]) == []


# Middleware


class Wall:
    """A log-in wall."""

    def __init__(self, get_response: Any) -> None: ...

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("Please log in.", status=403)


class Broken(Wall):
    def __call__(self, request: HttpRequest) -> HttpResponse:
        raise RuntimeError("no")


def test_without_a_host_no_middleware_is_blamed() -> None:
    from django_workflow.engine import dispatch

    with override_settings(ALLOWED_HOSTS=[], DEBUG=False, MIDDLEWARE=["django.middleware.common.CommonMiddleware"]):
        dispatch.handler.cache_clear()
        try:
            assert told(project.check_host(None)) == ["E013"]
            assert told(deployment.check_middleware(None)) == []
        finally:
            dispatch.handler.cache_clear()


@pytest.mark.parametrize(
    ("middleware", "expected"),
    [([], []), (["tests.test_checks.Wall"], ["W015"]), (["tests.test_checks.Broken"], ["W015"])],
)
def test_a_middleware_that_answers_instead_is_told(middleware: list[str], expected: list[str]) -> None:
    from django_workflow.engine import dispatch

    with override_settings(MIDDLEWARE=middleware):
        dispatch.handler.cache_clear()
        try:
            assert told(deployment.check_middleware(None)) == expected
        finally:
            dispatch.handler.cache_clear()


# Whole projects


@pytest.mark.django_db
def test_this_project_is_well() -> None:
    found = [message for message in run_checks() if str(message.id).startswith("django_workflow.")]
    assert found == []


def test_a_new_project_that_follows_the_tutorial_hears_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    environment.pop("DJANGO_SETTINGS_MODULE", None)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    run("-m", "django", "startproject", "mysite", ".")
    with (tmp_path / "mysite/settings.py").open("a") as settings:
        settings.write(
            'INSTALLED_APPS = ["daphne", *INSTALLED_APPS, "channels", "rest_framework", "django_workflow"]\n'
            'ASGI_APPLICATION = "mysite.asgi.application"\n'
        )
    with (tmp_path / "mysite/urls.py").open("a") as urls:
        urls.write(
            'from django.urls import include\nurlpatterns += [path("workflows/", include("django_workflow.urls"))]\n'
        )
    assert "no issues" in run("manage.py", "check")
    told_of_the_database = run("manage.py", "check", "--database", "default")
    assert "django_workflow.W002" in told_of_the_database
    assert told_of_the_database.count("django_workflow.") == 1

"""Settings of the test project. `WORKFLOW_TEST_DATABASE` chooses the database; see `tests/services/__init__.py`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from tests.services.addresses import database_settings

DATABASE = os.environ.get("WORKFLOW_TEST_DATABASE", "sqlite")

# Several suites may share one server or temporary folder: every process (also of xdist) has databases of its own.
TEST_DATABASE_NAME = f"test_django_workflow_{os.getpid()}"


def _databases() -> dict[str, dict[str, Any]]:
    if DATABASE == "sqlite":
        # A file, not memory: worker threads and other processes open connections of their own.
        path = str(Path(tempfile.gettempdir()) / f"{TEST_DATABASE_NAME}.sqlite3")
        default = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": ":memory:",
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 5,
                "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;",
            },
            "TEST": {"NAME": path},
        }
    elif DATABASE == "postgresql":
        default = database_settings(_service_url("WORKFLOW_TEST_POSTGRESQL_URL"))
        default["TEST"] = {"NAME": TEST_DATABASE_NAME}
    elif DATABASE == "mariadb":
        _use_pymysql_without_mysqlclient()
        default = database_settings(_service_url("WORKFLOW_TEST_MARIADB_URL"))
        default["OPTIONS"] = {"charset": "utf8mb4"}
        # The usual collation, which ignores case and trailing blanks: what is not prepared for it shall fail here.
        default["TEST"] = {"NAME": TEST_DATABASE_NAME, "CHARSET": "utf8mb4", "COLLATION": "utf8mb4_general_ci"}
    else:
        raise ValueError(f"WORKFLOW_TEST_DATABASE is {DATABASE!r}. Set it to sqlite, postgresql or mariadb.")

    if name := os.environ.get("WORKFLOW_TEST_DATABASE_NAME"):
        default["NAME"] = name
    return {"default": default}


def _service_url(variable: str) -> str:
    if url := os.environ.get(variable):
        return url
    raise ValueError(
        f"WORKFLOW_TEST_DATABASE is {DATABASE!r}, but {variable} is not set. "
        "Set it, or run the command by `python -m tests.services run -- …`, which finds or starts a server."
    )


def _use_pymysql_without_mysqlclient() -> None:
    try:
        import MySQLdb  # noqa: F401
    except ImportError:
        import pymysql

        pymysql.install_as_MySQLdb()


DATABASES = _databases()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

# Long enough to derive HMAC keys from, and worth nothing.
SECRET_KEY = "the tests of django_workflow, which protect nothing at all"
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
ROOT_URLCONF = "tests.urls"
ASGI_APPLICATION = "tests.asgi.application"
STATIC_URL = "/static/"

INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "django_workflow",
    "tests.effects",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
# The default takes 0.1 s for each user that a test makes.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
CACHES: dict[str, dict[str, Any]] = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
if redis_url := os.environ.get("WORKFLOW_TEST_REDIS_URL"):
    CACHES["redis"] = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": redis_url}

DJANGO_WORKFLOW: dict[str, Any] = {}

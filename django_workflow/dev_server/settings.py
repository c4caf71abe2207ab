"""Django's settings of the development server, made in code: no project, no settings module, nothing from outside."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import django
from django.conf import settings

from django_workflow.dev_server.users import User
from django_workflow.management.dev_server import Options

CONCURRENCY = 32
ADMIN_NAME = "admin"
THIS_MACHINE = ["localhost", "127.0.0.1", "[::1]"]
CONTAINERS = ["host.docker.internal", "host.containers.internal"]

APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_workflow"]
ADMIN_APPS = [
    "django.contrib.admin",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
ADMIN_MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]


def configure(options: Options, user: User, origin: str, database: Path) -> None:
    """Configure Django for this process and load the apps."""
    for name in [name for name in os.environ if "QSTASH_" in name]:
        del os.environ[name]  # they tell the developer's application where another engine is
    settings.configure(
        SECRET_KEY=secrets.token_urlsafe(48),
        ALLOWED_HOSTS=allowed_hosts(options.host),
        INSTALLED_APPS=[*APPS, *(ADMIN_APPS if options.admin else [])],
        MIDDLEWARE=[
            "django_workflow.dev_server.middleware.tell_calls",
            "django_workflow.dev_server.middleware.refuse_strangers",
            *(ADMIN_MIDDLEWARE if options.admin else []),
        ],
        ROOT_URLCONF="django_workflow.dev_server.urls",
        TEMPLATES=[_TEMPLATES],
        STATIC_URL="/static/",
        DATABASES={"default": _database(database, kept=options.database is not None)},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        # The engine's own limits hold; Django's would refuse long histories before it sees them.
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
        # For a password that everybody may read: a slow hash would only make the start slow.
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        SESSION_COOKIE_NAME="workflow_dev_session",  # cookies do not know ports: leave those of the developer's site
        CSRF_COOKIE_NAME="workflow_dev_csrf",
        USE_TZ=True,
        TIME_ZONE="UTC",
        LOGGING=_logging(options.verbosity),
        DJANGO_WORKFLOW={
            "engine_api": True,
            "base_url": origin,
            "token": user.token,  # its keys are kept in the table, where they can be rotated
            "worker_autostart": False,
            "concurrency": CONCURRENCY,
            "call_allow": ["0.0.0.0/0", "::/0"],  # what is being developed runs on this machine
        },
    )
    django.setup()


def allowed_hosts(host: str) -> list[str]:
    """Names under which the server may be called. A web page could point a name of its own at this machine."""
    return ["*"] if is_public(host) else [*THIS_MACHINE, *CONTAINERS]


def is_public(host: str) -> bool:
    """Whether a server that listens there may be reached from other machines."""
    return host not in ("localhost", "::1") and not host.startswith("127.")


def _database(file: Path, *, kept: bool) -> dict[str, Any]:
    # Data that goes with the server need not wait for the disk.
    pragmas = f"PRAGMA journal_mode=WAL;PRAGMA synchronous={'NORMAL' if kept else 'OFF'};"
    options = {"transaction_mode": "IMMEDIATE", "timeout": 5, "init_command": pragmas}
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": file, "OPTIONS": options}


_TEMPLATES = {
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {
        "context_processors": [
            "django.template.context_processors.request",
            "django.contrib.auth.context_processors.auth",
            "django.contrib.messages.context_processors.messages",
        ],
    },
}


def _logging(verbosity: int) -> dict[str, Any]:
    engine = {0: "WARNING", 1: "WARNING", 2: "INFO"}.get(verbosity, "DEBUG")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{", "datefmt": "%H:%M:%S"}
        },
        "handlers": {"errors": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["errors"], "level": "WARNING"},
        "loggers": {
            "django_workflow": {"level": engine},
            "django": {"level": "ERROR"},  # what was refused is told by `events`
            "django.security.DisallowedHost": {"level": "CRITICAL"},
        },
    }

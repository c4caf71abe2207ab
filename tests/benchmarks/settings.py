"""Settings of the benchmarks: durable databases, a worker's defaults, no debug.

The processes of one part share a database by the variable BENCH_NAME, and know by BENCH_BASE_URL where the site is
served; `places` sets both.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.services.addresses import database_settings
from tests.settings import *  # noqa: F403

os.environ.setdefault("BENCH_NAME", f"bench_{os.getpid()}")

# Under ASGI each request has a thread of its own, and a connection that persists would outlive it.
CONN_MAX_AGE = 0 if os.environ.get("BENCH_SERVER") in ("uvicorn", "daphne") else None

if os.environ.get("BENCH_DATABASE", "sqlite") == "sqlite":
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(Path(os.environ.get("BENCH_FOLDER", ".")) / f"{os.environ['BENCH_NAME']}.sqlite3"),
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 5,
                "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;",
            },
            "CONN_MAX_AGE": CONN_MAX_AGE,
        }
    }
else:
    DATABASES = {
        "default": {
            **database_settings(os.environ["WORKFLOW_TEST_POSTGRESQL_URL"]),
            "NAME": os.environ["BENCH_NAME"],
            "CONN_MAX_AGE": CONN_MAX_AGE,
        }
    }

if os.environ.get("BENCH_LAYER") == "redis":
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [os.environ["WORKFLOW_TEST_REDIS_URL"]]},
        }
    }

DJANGO_WORKFLOW = {
    "worker_autostart": bool(os.environ.get("BENCH_WORKER")),
    "base_url": os.environ.get("BENCH_BASE_URL") or None,
}
DEBUG = False
ROOT_URLCONF = "tests.urls"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "rest_framework",
    "channels",
    "django_workflow",
    "tests.benchmarks",
]
LOGGING = {
    "version": 1,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "loggers": {"django_workflow": {"handlers": ["stderr"], "level": "WARNING"}},
}

"""Settings of the example project: a shop whose orders, imports and reports are durable workflows.

Made for `make demo` on one machine: DEBUG is on and the secret key is public. What a project of your own needs is
marked with "django_workflow:".

    PORT            port of the server, 8000; the shop calls its own payment service there
    DEMO_DB         path of the SQLite file
    DEMO_DATABASE   postgresql://user:password@host:5432/name instead of SQLite
    REDIS_URL       redis://127.0.0.1:6379/0: cache, channel layer and realtime store in Redis; unset: none of them
    DEMO_BASE_URL   the site's own address, http://127.0.0.1:8000: the engine then calls the workflows over HTTP,
                    signed, and webhooks have an address; unset: it calls them in its own process
    DEMO_HOSTS      further host names, separated by commas
    DEBUG           0 switches it off; start `manage.py workflow_worker` next to the server then
"""

from __future__ import annotations

import os
from pathlib import Path

import django

from example_project import databases

BASE_DIR = Path(__file__).resolve().parent

DEBUG = os.environ.get("DEBUG", "1").lower() not in ("0", "false", "no", "off")
SECRET_KEY = "a public key for the demo only: make one of your own"
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]", *filter(None, os.environ.get("DEMO_HOSTS", "").split(","))]

DEMO_PORT = os.environ.get("PORT", "8000")
DEMO_ORIGIN = f"http://127.0.0.1:{DEMO_PORT}"
# The token that the payment and courier services of the demo ask for.
DEMO_SERVICE_TOKEN = "demo-service-token"

INSTALLED_APPS = [
    "daphne",  # django_workflow: before staticfiles, so that `runserver` speaks WebSocket
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",  # django_workflow
    "rest_framework",  # django_workflow
    "django_workflow",
    "example_project.shop",
    "example_project.guide",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "example_project.middleware.ContentSecurityPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "example_project.urls"
ASGI_APPLICATION = "example_project.asgi.application"  # django_workflow

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
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

DEMO_DATABASE = os.environ.get("DEMO_DATABASE", "")
DATABASES = {
    "default": databases.from_url(DEMO_DATABASE)
    if DEMO_DATABASE
    else databases.sqlite(os.environ.get("DEMO_DB") or BASE_DIR / "var" / "demo.sqlite3"),
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# django_workflow: the engine lives in the database above. The shop's own services answer on this machine, which
# `ctx.call` reaches only when it is told so: by itself it goes to public addresses alone. `engine_api` serves the
# engine to SDKs of other languages, at /workflows/qstash; `manage.py workflow_keys` prints what they need.
DJANGO_WORKFLOW = {
    "engine_api": True,
    "worker_autostart": "debug",
    "call_allow": ["127.0.0.0/8", "::1"],
    "base_url": os.environ.get("DEMO_BASE_URL") or None,
}

REDIS_URL = os.environ.get("REDIS_URL", "")
if REDIS_URL:
    CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": REDIS_URL}}
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [REDIS_URL]},
        },
    }
    DJANGO_WORKFLOW["realtime_store"] = "redis"
else:
    # One server process: the layer in memory is all it takes. Without any layer the pages poll, a little later.
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.BasicAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
}

# Mail goes to the console.
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "django.core.mail.backends.console.EmailBackend"}}
else:
    EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
DEFAULT_FROM_EMAIL = "shop@example.com"

LANGUAGE_CODE = "en"
USE_I18N = True
USE_TZ = True
TIME_ZONE = "Europe/Berlin"

STATIC_URL = "static/"
X_FRAME_OPTIONS = "DENY"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{", "datefmt": "%H:%M:%S"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "django_workflow": {"handlers": ["console"], "level": "INFO", "propagate": False},
        "example_project": {"handlers": ["console"], "level": "INFO", "propagate": False},
    },
}

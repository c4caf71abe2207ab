"""DJANGO_WORKFLOW itself: keys, values, and values that do not fit one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, register
from django.utils.module_loading import import_string

from django_workflow.checks.messages import error, warning
from django_workflow.conf import get_settings, problems
from django_workflow.engine.call_guard import guard_of
from django_workflow.engine.signing_keys import engine_token, names_a_user
from django_workflow.errors import Misconfigured
from django_workflow.redis_client import PREFERRED_ALIAS, redis_alias

Apps = Sequence[AppConfig] | None


@register("django_workflow")
def check_settings(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    return [error("E001", problem, "Mend DJANGO_WORKFLOW in the settings.") for problem in problems()]


@register("django_workflow")
def check_calls(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    if problems():
        return []
    try:
        guard_of(get_settings().call_allow)
    except Misconfigured as misconfigured:
        hint = 'List hosts, *.suffixes and CIDRs: ["payments.internal", "10.1.0.0/16"].'
        return [error("E006", f"call_allow cannot be read: {misconfigured}", hint)]
    return []


@register("django_workflow")
def check_engine_api(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    if problems() or not get_settings().engine_api:
        return []
    if get_settings().is_hosted:
        return [
            error(
                "E010",
                "engine_api is on, but the engine is the hosted one: this site has no API to serve.",
                "Give clients the hosted engine's URL and token and leave engine_api away, or use the embedded engine.",
            )
        ]
    found: list[CheckMessage] = []
    if not names_a_user(engine_token()):
        found.append(
            warning(
                "W005",
                "engine_api is on, and the token does not name a user: context.createWebhook of the JavaScript SDK "
                "fails.",
                'Use base64 of {"UserID": "…", "Password": "…"}, or leave the setting token (QSTASH_TOKEN) away.',
            )
        )
    if not getattr(django_settings, "ASGI_APPLICATION", None):
        found.append(
            warning(
                "W006",
                "engine_api is on, and the site seems to be served by WSGI: granian and runserver without daphne lose "
                "%2F in destinations, and chunked bodies arrive empty everywhere (they are answered 411).",
                "Serve it by ASGI, or by gunicorn, which tells the path as it was sent; then silence this check.",
            )
        )
    return found


@register("django_workflow")
def check_realtime(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    if problems():
        return []
    settings, found = get_settings(), list[CheckMessage]()
    if settings.realtime_store == "redis" and redis_alias() is None:
        found.append(
            error(
                "E011",
                'realtime_store is "redis", but no cache of this project is django-redis: the one called '
                f"{PREFERRED_ALIAS!r} is used, or else the default one.",
                f'Add CACHES[{PREFERRED_ALIAS!r}] = {{"BACKEND": "django_redis.cache.RedisCache", "LOCATION": '
                '"redis://127.0.0.1:6379/0"}, or use realtime_store "database".',
            )
        )
    if settings.realtime_authorize is not None:
        try:
            rule = import_string(settings.realtime_authorize)
        except ImportError as failure:
            text = f"realtime_authorize is {settings.realtime_authorize!r}, which cannot be imported: {failure}."
        else:
            text = "" if callable(rule) else f"realtime_authorize is {settings.realtime_authorize!r}, no function."
        if text:
            hint = "Give the dotted path of a function (user, channel, scope) -> bool; until then nobody may follow."
            found.append(error("E012", text, hint))
    return found

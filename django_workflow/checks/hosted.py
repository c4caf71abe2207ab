"""The hosted engine: credentials, and an address that it can reach."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, register

from django_workflow.checks.configuration import Apps
from django_workflow.checks.messages import error, warning
from django_workflow.conf import Settings, get_settings, problems


@register("django_workflow")
def check_hosted(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    if problems() or not get_settings().is_hosted:
        return []
    return list(_hosted_problems(get_settings()))


def _hosted_problems(settings: Settings) -> Iterator[CheckMessage]:
    credentials = settings.credentials()
    if not credentials.token:
        yield error(
            "E007",
            f"The engine is hosted at {credentials.url}, but there is no token to talk to it.",
            "Set QSTASH_TOKEN in the environment, or token in DJANGO_WORKFLOW.",
        )
    if not settings.base_url:
        yield error(
            "E008",
            "The engine is hosted, but this site does not know its own address, so no workflow can be called.",
            'Set base_url in DJANGO_WORKFLOW to the public origin of this site: "https://shop.example.com".',
        )
    elif reason := _not_reachable(settings.base_url, credentials.url):
        yield warning(
            "W004",
            f"base_url is {settings.base_url!r}: {reason}.",
            "Give the public https:// origin of this site; in development that of a tunnel to it.",
        )
    if not credentials.signing_keys:
        text = "The engine is hosted, but there are no signing keys: nobody can tell its calls from a stranger's"
        hint = (
            "Set QSTASH_CURRENT_SIGNING_KEY and QSTASH_NEXT_SIGNING_KEY in the environment, or current_signing_key and "
            "next_signing_key in DJANGO_WORKFLOW."
        )
        if django_settings.DEBUG:
            yield warning("W003", f"{text}. Under DEBUG every call is believed.", hint)
        else:
            yield error("E009", f"{text}, so every call is refused.", hint)
    elif len(credentials.signing_keys) == 1:
        yield warning(
            "W003",
            "There is one signing key: when the engine's keys are rotated, its calls are refused.",
            "Set both QSTASH_CURRENT_SIGNING_KEY and QSTASH_NEXT_SIGNING_KEY.",
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

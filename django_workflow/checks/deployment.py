"""`check --deploy`: what works on a developer's machine, and not with several processes or behind a log-in wall."""

from __future__ import annotations

from typing import Any

from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.core.checks import CheckMessage, register

from django_workflow.checks.configuration import Apps
from django_workflow.checks.messages import warning
from django_workflow.checks.project import check_host, check_urls
from django_workflow.conf import get_settings, problems
from django_workflow.engine.dispatch import blocked_by


@register("django_workflow", deploy=True)
def check_layer(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    if problems():
        return []
    found: list[CheckMessage] = []
    if isinstance(get_channel_layer(), InMemoryChannelLayer):
        found.append(
            warning(
                "W013",
                "The channel layer is in memory: it reaches its own process alone. With more than one, a widget hears "
                "of events up to a second late.",
                "Use channels_redis.pubsub.RedisPubSubChannelLayer, or no layer at all for the same effect.",
            )
        )
    if get_settings().realtime_store == "memory":
        found.append(
            warning(
                "W014",
                'realtime_store is "memory": other processes do not see the events, and a restart forgets them.',
                'Use "database" or "redis".',
            )
        )
    return found


@register("django_workflow", deploy=True)
def check_middleware(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Makes the request that a worker makes when it starts."""
    if problems() or get_settings().is_hosted or check_host(None) or check_urls(None):
        return []  # nothing could arrive, and they say why
    try:
        reason = blocked_by()
    except Exception as failure:  # a middleware's own
        reason = f"a middleware raises {type(failure).__name__}: {failure}"
    if reason is None:
        return []
    return [
        warning(
            "W015",
            f"Deliveries do not reach the workflows: {reason}.",
            "Let requests to …/workflows/serve/ and …/workflows/hooks/ through: they are signed, or made in process.",
        )
    ]

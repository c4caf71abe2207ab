"""The project's Redis, where a cache of it is django-redis: for waking workers and for the realtime store.

Nothing here imports redis or django-redis until a client is asked for: a project without them needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings

if TYPE_CHECKING:
    import redis

PREFERRED_ALIAS = "django_workflow"
TIMEOUT_SECONDS = 1.0


def redis_alias() -> str | None:
    """The cache to use: "django_workflow", else "default", if it is django-redis; else None."""
    for alias in (PREFERRED_ALIAS, "default"):
        if alias in django_settings.CACHES:
            backend = str(django_settings.CACHES[alias].get("BACKEND", ""))
            return alias if backend.startswith("django_redis.") else None
    return None


def key_prefix(alias: str) -> str:
    """What this project puts before its keys, with a colon: others may use the same Redis. May be empty."""
    prefix = django_settings.CACHES[alias].get("KEY_PREFIX", "")
    return f"{prefix}:" if prefix else ""


def quick_client(alias: str) -> redis.Redis:
    """A client with connections of its own and short timeouts, and which does not try again by itself."""
    from django_redis import get_redis_connection
    from redis import ConnectionPool, Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    client: Redis = get_redis_connection(alias)
    pool: Any = client.connection_pool
    if not isinstance(pool, ConnectionPool) or hasattr(pool, "sentinel_manager"):
        return client
    quick = {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
    }
    return Redis(
        connection_pool=ConnectionPool(connection_class=pool.connection_class, **{**pool.connection_kwargs, **quick})
    )

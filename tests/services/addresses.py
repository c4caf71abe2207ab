"""From a database URL to the Django settings of that database. Pure; read by `tests.settings`."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

ENGINES = {
    "postgresql": "django.db.backends.postgresql",
    "mysql": "django.db.backends.mysql",
}


def database_settings(url: str) -> dict[str, Any]:
    """One entry of `DATABASES` for `url`, with ENGINE, NAME, USER, PASSWORD, HOST and PORT.

    A socket is given in the query, as PostgreSQL and MariaDB name it themselves: `host=/folder` or
    `unix_socket=/path`. Raises ValueError for a scheme that is neither postgresql nor mysql.
    """
    parts = urlsplit(url)
    if parts.scheme not in ENGINES:
        raise ValueError(f"{parts.scheme!r} is not one of {', '.join(ENGINES)}: {url}")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return {
        "ENGINE": ENGINES[parts.scheme],
        "NAME": parts.path.removeprefix("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.get("host") or query.get("unix_socket") or parts.hostname or "",
        "PORT": query.get("port") or str(parts.port or ""),
    }

"""The demo's database: a SQLite file, or what a URL names."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


def sqlite(path: str | Path) -> dict[str, Any]:
    """SQLite with the options that suit web requests and a worker writing side by side.

    IMMEDIATE takes the write lock when a transaction begins, so that none fails half-way with "database is locked";
    with WAL readers never wait for the writer, and NORMAL is the safe level of syncing for WAL.
    """
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 5,
            "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;",
        },
    }


def from_url(url: str) -> dict[str, Any]:
    """`postgresql://user:password@host:5432/name?host=/socket/folder` as an entry of DATABASES.

    Query parameters become OPTIONS, except `host`, which replaces the host (a socket's folder cannot stand in the
    place of the host). Raises ValueError for any other scheme.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(f"DEMO_DATABASE begins with {parts.scheme!r}; the demo knows postgresql:// only.")
    options = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "OPTIONS": options,
    }

from __future__ import annotations

import pytest

from tests.services.addresses import database_settings


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        # a server on the network; the password is percent-encoded
        ("postgresql://me:p%40ss@db:5433/shop", ("me", "p@ss", "db", "5433", "shop")),
        # sockets: a folder for PostgreSQL, a path for MariaDB
        ("postgresql://root@/postgres?host=/run/pg&port=5433", ("root", "", "/run/pg", "5433", "postgres")),
        ("mysql://root@/mysql?unix_socket=/run/my.sock", ("root", "", "/run/my.sock", "", "mysql")),
    ],
)
def test_a_url_becomes_django_settings(url: str, expected: tuple[str, ...]) -> None:
    settings = database_settings(url)
    assert tuple(settings[name] for name in ("USER", "PASSWORD", "HOST", "PORT", "NAME")) == expected


def test_another_scheme_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'oracle' is not one of postgresql, mysql"):
        database_settings("oracle://db/shop")

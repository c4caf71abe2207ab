"""How a test that commits leaves the database empty: `conftest.py` puts this in the place of Django's own way.

Django truncates every table after such a test, and then makes all permissions and content types anew. With the tables
of this project that takes longer than most tests. Here one query tells which tables have rows, and only those are
emptied; permissions and content types stay as the migrations made them.
"""

from __future__ import annotations

from functools import cache

from django.db import connections, transaction
from django.test import TransactionTestCase

MADE_BY_MIGRATIONS = {"django_content_type", "auth_permission"}


def empty_databases(case: TransactionTestCase) -> None:
    """Takes the place of `TransactionTestCase._fixture_teardown`."""
    for alias in case._databases_names(include_mirrors=False):
        empty(alias)


def empty(alias: str) -> None:
    """Delete all rows that tests wrote."""
    connection = connections[alias]
    with transaction.atomic(using=alias), connection.constraint_checks_disabled(), connection.cursor() as cursor:
        cursor.execute(_tables_with_rows(alias))
        # Keys between tables are checked at the commit (or not at all), so that any order will do.
        for (table,) in cursor.fetchall():
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")


@cache
def _tables_with_rows(alias: str) -> str:
    connection = connections[alias]
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    quote = connection.ops.quote_name
    return " UNION ALL ".join(
        f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {quote(table)})"
        for table in sorted(tables)
        if table not in MADE_BY_MIGRATIONS
    )

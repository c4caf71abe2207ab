from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.test import Client, override_settings

from example_project import databases

PRINT = """
import json, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "example_project.settings"
from example_project import asgi, settings
print(json.dumps({
    "layer": settings.CHANNEL_LAYERS["default"]["BACKEND"],
    "cache": getattr(settings, "CACHES", {}).get("default", {}).get("BACKEND"),
    "store": settings.DJANGO_WORKFLOW.get("realtime_store"),
    "imported": sorted(name for name in ("redis", "django_redis", "channels_redis") if name in sys.modules),
}))
"""


def settings_with(folder: Path, **environment: str) -> dict[str, Any]:
    environment = {**os.environ, "DEMO_DB": str(folder / "demo.sqlite3"), **environment}
    command = [sys.executable, "-c", PRINT]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    loaded: dict[str, Any] = json.loads(output)
    return loaded


def test_without_redis_none_of_it_is_imported(tmp_path: Path) -> None:
    assert settings_with(tmp_path) == {
        "layer": "channels.layers.InMemoryChannelLayer",
        "cache": None,
        "store": None,
        "imported": [],
    }


def test_with_redis_cache_layer_and_store_are_there(tmp_path: Path) -> None:
    loaded = settings_with(tmp_path, REDIS_URL="redis://127.0.0.1:6379/0")
    assert loaded["layer"] == "channels_redis.pubsub.RedisPubSubChannelLayer"
    assert loaded["cache"] == "django_redis.cache.RedisCache"
    assert loaded["store"] == "redis"


def test_a_url_names_a_postgresql_database() -> None:
    settings = databases.from_url("postgresql://ann:p%40ss@db.example:5433/shop?sslmode=require")
    assert settings == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "shop",
        "USER": "ann",
        "PASSWORD": "p@ss",
        "HOST": "db.example",
        "PORT": "5433",
        "OPTIONS": {"sslmode": "require"},
    }


def test_the_folder_of_a_socket_stands_in_the_query() -> None:
    assert databases.from_url("postgresql:///shop?host=/run/postgresql")["HOST"] == "/run/postgresql"


def test_another_database_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'mysql'"):
        databases.from_url("mysql://localhost/shop")


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["/", "/guide/", "/admin/login/"])
def test_pages_allow_nothing_from_elsewhere_and_nothing_inline(url: str, client: Client) -> None:
    response = client.get(url)
    assert response.status_code == 200
    assert response.headers["Content-Security-Policy"].startswith("default-src 'self'; ")
    html = response.content.decode()
    assert " style=" not in html
    assert " onclick=" not in html
    assert "<script>" not in html


@pytest.mark.django_db
@override_settings(DEBUG=True)
def test_djangos_debug_pages_are_left_readable(client: Client) -> None:
    response = client.get("/no-such-page/")
    assert response.status_code == 404
    assert "Content-Security-Policy" not in response.headers

"""The style sheets of the admin pages hold under themes that lack Django's own variables."""

from __future__ import annotations

import re

import pytest
from django.contrib.staticfiles import finders


def sheet(name: str) -> str:
    path = finders.find(f"django_workflow/{name}.css")
    assert isinstance(path, str)
    with open(path, encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("name", ["admin", "admin_pages"])
def test_every_variable_of_the_admin_has_a_value_where_a_theme_lacks_it(name: str) -> None:
    layer = re.search(r"@layer wfa-elsewhere \{\s*:root \{(.*?)\}", sheet("admin"), re.DOTALL)
    assert layer is not None
    given = set(re.findall(r"(--[\w-]+):", layer[1]))
    needed = {used for used in re.findall(r"var\((--[\w-]+)\)", sheet(name)) if not used.startswith("--wfa-")}
    assert needed <= given

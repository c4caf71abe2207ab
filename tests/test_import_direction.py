"""Imports point down the ladder, never up, and names on one line never import each other.

Every import counts: those inside functions and under `TYPE_CHECKING` too, since a name that is only needed for a type
still tells that one part knows the other.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "django_workflow"

# Highest first. A name is a file or a folder right inside the package; a folder's own files are free among themselves.
LADDER = (
    ("__init__",),  # the public names
    ("dev_server",),  # a composition root of its own: Django configured in code, with the engine alone
    ("apps", "asgi", "urls"),  # the composition root: knows every part and wires it
    ("checks",),  # registered by `apps`
    (
        "admin",
        "api",
        "health",
        "logging",
        "management",
        "migrations",
        "templatetags",
        "testing",
    ),  # what people touch
    ("control",),  # what people do to runs
    ("contrib",),  # apps that a project may add
    ("presentation",),  # how runs are found and put into words there
    ("engine", "mirror", "realtime", "serve"),
    ("authoring", "models"),
    ("client",),
    ("conf", "kept_connections", "machine_views", "redis_client", "replay", "signals"),
    ("protocol",),
    ("deprecation", "errors"),
)

# These run and are tested without Django.
THIRD_PARTY = {
    "protocol": {"cronsim", "jwt", "msgspec"},
    "errors": set[str](),
}


@dataclass(frozen=True)
class Import:
    """One import statement's target: `module` is absolute, `name` what is taken from it (None: the module)."""

    file: Path
    line: int
    module: str
    name: str | None = None


def imports_of(file: Path, package: Path) -> Iterator[Import]:
    # A relative import starts from the folder, for `__init__.py` as for its neighbours.
    folder = [package.name, *file.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), filename=str(file))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                yield Import(file, node.lineno, module, alias.name)


def violations(package: Path, ladder: tuple[tuple[str, ...], ...] = LADDER) -> list[str]:
    """Each broken rule of `package` as a sentence that starts with file and line."""
    rung_of = {name: rung for rung, names in enumerate(ladder) for name in names}
    found = []
    for file in sorted(package.rglob("*.py")):
        inside = file.relative_to(package)
        source = inside.parts[0].removesuffix(".py")
        if source not in rung_of:
            found.append(f"{inside}: {source} is not on the ladder; give it a place there")
            continue
        for it in imports_of(file, package):
            where = f"{inside}:{it.line}"
            top, _, rest = it.module.partition(".")
            if top != package.name:
                allowed = THIRD_PARTY.get(source)
                if allowed is not None and top not in sys.stdlib_module_names and top not in allowed:
                    found.append(f"{where}: {source} imports {top}, but it has to run without")
                continue
            target = rest.partition(".")[0]
            if not target and it.name is not None and is_module(package / it.name):
                target = it.name  # `from django_workflow import signals` takes a module, not a public name
            if not target:
                found.append(f"{where}: imports from the package root; import from the defining module")
            elif target not in rung_of:
                found.append(f"{where}: {target} is not on the ladder; give it a place there")
            elif target == source:
                continue
            elif rung_of[target] < rung_of[source]:
                found.append(f"{where}: {source} imports {target}, which stands above it")
            elif rung_of[target] == rung_of[source]:
                found.append(f"{where}: {source} imports {target}, which stands beside it")
    return found


def is_module(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").exists()


def test_imports_point_down_the_ladder() -> None:
    assert violations(PACKAGE) == []


def write_package(root: Path, files: dict[str, str]) -> Path:
    package = root / "django_workflow"
    for name, text in files.items():
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return package


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("client/client.py", "from django_workflow.engine.api import call", "which stands above it"),
        ("client/client.py", "import django_workflow.engine.api", "which stands above it"),
        ("client/client.py", "from ..engine import api", "which stands above it"),
        ("client/__init__.py", "from ..engine import api", "which stands above it"),
        ("client/client.py", "from django_workflow import engine", "which stands above it"),
        # inside a function, and only for a type
        ("client/client.py", "def call():\n    from django_workflow.engine import api", "client.py:2: client imports"),
        ("client/client.py", "if TYPE_CHECKING:\n    from django_workflow.models import Run", "client.py:2: client"),
        ("serve/views.py", "from django_workflow.engine import api", "which stands beside it"),
        ("conf.py", "from django_workflow.signals import run_started", "which stands beside it"),
        # the package root, by any spelling
        ("serve/views.py", "from django_workflow import workflow", "imports from the package root"),
        ("serve/views.py", "from .. import workflow", "imports from the package root"),
        ("serve/views.py", "import django_workflow", "imports from the package root"),
        # parts that run without Django
        ("protocol/publish.py", "from django.conf import settings", "imports django, but it has to run without"),
        ("errors.py", "import django.core.exceptions", "imports django, but it has to run without"),
        # a part that nobody gave a place
        ("helpers.py", "", "helpers is not on the ladder"),
        ("serve/views.py", "from django_workflow.helpers import help", "helpers is not on the ladder"),
    ],
)
def test_a_violation_is_reported(tmp_path: Path, file: str, text: str, said: str) -> None:
    package = write_package(tmp_path, {"engine/__init__.py": "", file: text})
    (violation,) = violations(package)
    assert said in violation


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("__init__.py", "from .authoring.decorator import workflow"),
        ("apps.py", "from django_workflow import checks"),
        ("engine/worker.py", "from django_workflow.engine.leases import claim\nfrom . import leases"),
        ("engine/sql/sqlite.py", "from ..leases import claim\nfrom ...models.run import Run"),
        ("serve/views.py", "from django_workflow import signals\nfrom django.http import HttpRequest"),
        ("protocol/cron.py", "import datetime\nfrom cronsim import CronSim"),
    ],
)
def test_imports_that_point_down_pass(tmp_path: Path, file: str, text: str) -> None:
    others = {"checks.py": "", "signals.py": "", "engine/leases.py": ""}
    assert violations(write_package(tmp_path, {**others, file: text})) == []


def test_an_empty_package_passes(tmp_path: Path) -> None:
    assert violations(write_package(tmp_path, {"__init__.py": ""})) == []

"""The documentation says what the code says: names, defaults, options, URLs; its code compiles and its links resolve.

That the pages build is checked by `make docs`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import httpx
import pytest
from django.core.management import load_command_class
from django.dispatch import Signal
from django.urls import URLPattern, URLResolver, get_resolver

import django_workflow
from django_workflow import AsyncWorkflowContext, Client, RunHandle, Workflow, WorkflowContext, errors, models, signals
from django_workflow.authoring import steps
from django_workflow.authoring.options import DECLARED_ONLY, WorkflowOptions
from django_workflow.authoring.registry import registry
from django_workflow.conf import Settings
from django_workflow.models import Run, Step
from django_workflow.protocol.durations import parse_duration
from django_workflow.realtime import messages
from django_workflow.replay.values import ANY
from django_workflow.testing import CallAnswer, mock_calls, run_workflows, workflow_clock

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
PAGES = [page for page in PAGES if "_build" not in page.parts]


def text_of(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def sections(text: str, level: int) -> dict[str, str]:
    """What stands below each heading of a level, up to the next heading of that or a higher one."""
    headings = list(re.finditer(rf"^(#{{1,{level}}}) (.+)$", text, re.MULTILINE))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return {
        heading[2].strip("`"): text[heading.end() : end]
        for heading, end in zip(headings, ends, strict=True)
        if len(heading[1]) == level
    }


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# Settings


def test_the_settings_page_has_a_section_for_each_setting_and_for_nothing_else() -> None:
    assert sorted(sections(text_of("settings.md"), 3)) == sorted(f.name for f in fields(Settings))


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda f: f.name)
def test_a_setting_stands_there_with_its_default(setting: Any) -> None:
    section = sections(text_of("settings.md"), 3)[setting.name]
    found = re.search(r"^Default: `(.+)`$", section, re.MULTILINE)
    assert found, f"{setting.name} has no line `Default: …`."
    told = ast.literal_eval(found[1])
    assert (parse_duration(told) if isinstance(setting.default, timedelta) else told) == setting.default


# Checks, commands, URLs


def test_each_check_has_a_section() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "django_workflow/checks").glob("*.py"))
    ids = set(re.findall(r"\b(?:error|warning)\(\s*\"([EW]\d{3})\"", sources))
    assert len(ids) > 20
    assert set(sections(text_of("checks.md"), 3)) == ids
    for id, section in sections(text_of("checks.md"), 3).items():
        assert id.lower() in anchors(REFERENCE / "checks.md")  # where the hints point
        assert len(section.split()) > 12


COMMANDS = sorted(path.stem for path in (ROOT / "django_workflow/management/commands").glob("[!_]*.py"))


def test_the_commands_page_has_a_section_for_each_command_and_for_nothing_else() -> None:
    assert sorted(sections(text_of("commands.md"), 2)) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_told_with_its_options(name: str) -> None:
    command = load_command_class("django_workflow", name)
    parser = command.create_parser("manage.py", name)
    shared = {"--version", "--verbosity", "--settings", "--pythonpath", "--traceback", "--no-color", "--force-color"}
    shared |= {"--skip-checks", "--help"}
    options = {text for action in parser._actions for text in action.option_strings if text.startswith("--")} - shared
    section = sections(text_of("commands.md"), 2)[name]
    assert set(re.findall(r"^\| `(--[\w-]+)` \|", section, re.MULTILINE)) == options


@pytest.mark.parametrize("name", COMMANDS)
def test_the_exit_codes_of_a_command_are_told(name: str) -> None:
    """Those that its help tells stand on the page, and no others."""
    section = sections(text_of("commands.md"), 2)[name]
    rows = re.findall(r"^\| (\d+) \| ", section, re.MULTILINE)
    sentence = re.search(r"^Exit codes: (.+?)\n\n", section + "\n\n", re.MULTILINE | re.DOTALL)
    told = set(rows) | set(re.findall(r"(?:^|, )(\d+) ", sentence[1] if sentence else ""))
    parser = load_command_class("django_workflow", name).create_parser("manage.py", name)
    _, found, text = (parser.epilog or "").partition("exit codes:")
    assert told, "the page tells no exit codes"
    if found:
        assert told == set(re.findall(r"(?:^|, |\s)(\d+) +(?=\S)", text, re.MULTILINE))


def routes(patterns: list[Any], prefix: str = "") -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, prefix + str(pattern.pattern))
        elif isinstance(pattern, URLPattern):
            yield prefix + str(pattern.pattern)


def test_each_url_has_a_row_with_its_name() -> None:
    resolver = get_resolver("django_workflow.urls")
    told = dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", text_of("urls.md"), re.MULTILINE))
    found = set(routes(resolver.url_patterns))
    assert set(told) == found
    assert {name for name in resolver.reverse_dict if isinstance(name, str)} == set(told.values())


# Names


def test_each_public_name_stands_in_the_api_reference() -> None:
    text = text_of("api.md")
    assert [name for name in django_workflow.__all__ if f"`{name}" not in text and f"# {name}\n" not in text] == []


@pytest.mark.parametrize("class_", [WorkflowContext, AsyncWorkflowContext, RunHandle, Workflow])
def test_each_method_and_property_stands_in_the_api_reference(class_: type) -> None:
    text = text_of("api.md")
    inside = {"encode_payload", "decode_payload", "scheduled_message"}
    options = set(WorkflowOptions.__dataclass_fields__)  # of a Workflow: shortcuts to its options
    names = {name for name in dir(class_) if not name.startswith("_")} - inside - options
    assert [name for name in sorted(names) if not re.search(rf"`{name}\b", text)] == []


def test_each_public_name_of_the_test_helpers_stands_in_the_api_reference() -> None:
    from django_workflow import testing

    assert [name for name in testing.__all__ if f"`{name}`" not in text_of("api.md")] == []


def test_each_error_stands_on_the_errors_page() -> None:
    text = text_of("errors.md")
    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    classes |= {
        name
        for name in django_workflow.__all__
        if isinstance(getattr(django_workflow, name), type)
        and issubclass(getattr(django_workflow, name), BaseException)
    }
    assert [name for name in sorted(classes) if f"`{name}" not in text] == []


def test_each_signal_has_a_row() -> None:
    found = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    assert set(re.findall(r"^\| `(\w+)` \|", text_of("signals.md"), re.MULTILINE)) == found


def test_each_model_and_status_has_a_row() -> None:
    text = text_of("models.md")
    rows = set(re.findall(r"`(\w+)`", text))
    assert set(models.__all__) - rows == set()
    assert {*Run.Status.values, *Step.Status.values, *Run.TriggerKind.values} - rows == set()
    permissions = {codename for codename, _ in Run._meta.permissions}
    assert permissions - rows == set()


def test_each_realtime_message_has_a_row() -> None:
    told = set(re.findall(r"^\| `(\w+)` \|", text_of("realtime.md"), re.MULTILINE))
    kinds = {class_.__struct_config__.tag for class_ in messages._System.__subclasses__()}
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "django_workflow/engine").glob("*.py"))
    events = set(re.findall(r'\.tell\(\s*\w+,\s*"(\w+)"', source))
    assert {"runStart", "stepStart"} <= events
    assert (kinds | events) - told == set()


def test_each_option_of_a_workflow_is_explained() -> None:
    text = (DOCS / "howto/labels-and-options.md").read_text(encoding="utf-8")
    names = {"labels": "label"}
    assert [f.name for f in fields(WorkflowOptions) if f"`{names.get(f.name, f.name)}`" not in text] == []


# Code


class Block(NamedTuple):
    page: str
    line: int
    code: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def code_blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            found.append(Block(name_of(page), text.count("\n", 0, match.start()) + 2, match[1]))
    return found


BLOCKS = code_blocks()
each_block = pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)

# The reader's project, which exists in the pages only.
READERS = ("shop", "mysite")


@each_block
def test_a_code_block_compiles_and_fits_the_page(block: Block) -> None:
    compile(block.code, block.place, "exec")
    assert [line for line in block.code.splitlines() if len(line) > 120] == []


@each_block
def test_a_code_block_imports_names_that_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.code)):
        if not isinstance(node, ast.ImportFrom) or node.module is None or node.module.split(".")[0] in READERS:
            continue
        module = importlib.import_module(node.module)
        missing = [name.name for name in node.names if not hasattr(module, name.name)]
        assert missing == [], f"{node.module} has no {missing}"
        if node.module == "django_workflow":
            assert {name.name for name in node.names} <= {*django_workflow.__all__, *SUBMODULES}


SUBMODULES = {"signals", "models", "testing"}


@each_block
def test_a_code_block_asks_for_what_there_is(block: Block) -> None:
    """Methods of contexts, steps and clients exist and take the keywords that the pages give them."""
    for node in ast.walk(ast.parse(block.code)):
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg for keyword in node.keywords if keyword.arg}
        match node.func:
            case ast.Name(id="workflow"):
                known = {*WorkflowOptions.__dataclass_fields__, "name", "aliases", "payload", "label"}
                assert keywords <= known - {"labels"}
            case ast.Attribute(attr="using"):
                known = {*WorkflowOptions.__dataclass_fields__, "label"} - set(DECLARED_ONLY)
                assert keywords <= known - {"labels"}
            case ast.Attribute(value=ast.Name(id="ctx"), attr=method):
                check_call(WorkflowContext, method, node, keywords)
            case ast.Attribute(value=ast.Name(id="step"), attr=method):
                check_call(steps, method, node, keywords, bound=True)
            case ast.Attribute(value=ast.Name(id="client") | ast.Call(func=ast.Name(id="Client")), attr=method) if (
                "from django_workflow import Client" in block.code  # and not Django's of the same name
            ):
                check_call(Client, method, node, keywords)


def check_call(owner: Any, method: str, node: ast.Call, keywords: set[str], *, bound: bool = False) -> None:
    signature = inspect.signature(getattr(owner, method))
    parameters = list(signature.parameters.values())[0 if bound else 1 :]
    if any(isinstance(argument, ast.Starred) for argument in node.args):
        return
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        assert keywords <= {parameter.name for parameter in parameters}, f"{method} at line {node.lineno}"
    if not any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        assert len(node.args) <= len(places), f"{method} at line {node.lineno}"


def is_whole(block: Block) -> bool:
    """Whether a block can be run as it stands: it makes workflows, and needs nothing of the reader's project."""
    imported = {
        (node.module or "").split(".")[0]
        for node in ast.walk(ast.parse(block.code))
        if isinstance(node, ast.ImportFrom)
    }
    return "@workflow" in block.code and not imported & set(READERS)


@pytest.mark.parametrize("block", [block for block in BLOCKS if is_whole(block)], ids=lambda block: block.place)
def test_a_code_block_declares_its_workflows(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("documentation")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where dataclasses look for their annotations
    with registry.isolated():
        exec(compile(block.code, block.place, "exec"), vars(module))
        made = [value for value in vars(module).values() if isinstance(value, Workflow)]
        assert made
        for workflow in made:
            assert registry.get(workflow.name).payload_type is not None


PAYLOADS = {int: 3, str: "x", list[str]: ["a", "b"]}
"""For payload types that have no values of their own."""

ORDER = {"order_id": 1, "email": "ada@example.com"}


# A webhook's workflow is called over the network, which tests do not use.
RUNNABLE = [block for block in BLOCKS if is_whole(block) and "create_webhook" not in block.code]


@pytest.mark.django_db
@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: block.place)
def test_the_workflows_of_a_code_block_run(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = httpx.Response(200, json={"number": "3"}, request=httpx.Request("GET", "https://example.com/"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(httpx, "get", lambda *args, **kwargs: answer)
    module = ModuleType("documentation")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with registry.isolated(), workflow_clock(), mock_calls(CallAnswer(200, {"reference": "p-1"})):
        exec(compile(block.code, block.place, "exec"), vars(module))
        made = [value for value in vars(module).values() if isinstance(value, Workflow)]
        for workflow in [workflow for workflow in made if workflow.name != "wrong"]:
            type_ = workflow.payload_type
            handle = workflow.trigger(PAYLOADS.get(type_, None if type_ in (ANY, type(None)) else ORDER))
            run_workflows(skip_delays=True)
            wanted = "canceled" if "if answer.timeout or" in block.code else "success"
            assert handle.run.status == wanted, handle.run.error


# Links


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#{1,6} (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links() -> list[tuple[Path, str]]:
    found = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        found += [(page, target) for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    return found


@pytest.mark.parametrize(
    ("page", "target"), links(), ids=lambda value: name_of(value) if isinstance(value, Path) else value
)
def test_a_relative_link_resolves(page: Path, target: str) -> None:
    if "://" in target:
        return
    file, _, anchor = target.partition("#")
    linked = (page.parent / file).resolve() if file else page
    assert linked.exists()
    assert not anchor or anchor in anchors(linked)


def test_each_page_is_in_the_table_of_contents() -> None:
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", (DOCS / "index.md").read_text(encoding="utf-8"), re.M | re.S)
    entries = {line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")}
    listed = {page for entry in entries for page in DOCS.glob(f"{entry}.md")}
    assert {page for page in PAGES if page.is_relative_to(DOCS)} - listed == {DOCS / "index.md"}


# Both sides of the protocol, row by row


def checklist(title: str) -> list[tuple[str, ...]]:
    """The cells of the table below a title of the compatibility page."""
    text = (DOCS / "reference/compatibility.md").read_text(encoding="utf-8")
    section = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if re.match(r"\| \d+ \|", line)]
    return [tuple(cell.strip() for cell in row) for row in rows]


@pytest.mark.parametrize(("title", "length"), [("The engine's API, row by row", 68), ("The endpoint, row by row", 70)])
def test_every_row_of_the_protocol_has_a_state_and_a_test_that_exists(title: str, length: int) -> None:
    rows = checklist(title)
    assert [row[0] for row in rows] == [str(number) for number in range(1, length + 1)]
    for number, _what, state, held_by in rows:
        assert state == "works" or state.startswith("left out: "), number
        file, _separator, name = held_by.strip("`").partition("::")
        assert re.search(rf"def {re.escape(name)}\(", (ROOT / file).read_text(encoding="utf-8")), held_by

"""Live runs replayed against other code: `workflow_check`."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import DjangoAssertNumQueries

from django_workflow import AsyncWorkflowContext, Client, Secret, Workflow, WorkflowContext, step, workflow
from django_workflow.models import Run
from django_workflow.testing import run_workflows
from django_workflow.testing.factories import make_run

pytestmark = pytest.mark.django_db

worked: list[str] = []


def work(name: str) -> str:
    worked.append(name)
    return name


@workflow(name="to-check")
def checked(ctx: WorkflowContext[int]) -> str:
    ctx.run("reserve", work, "reserve")
    ctx.run("charge", work, "charge")
    answer = ctx.wait_for_event("approval", f"checked-{ctx.request_payload}")
    if answer.timeout:
        raise RuntimeError("nobody answered")
    return ctx.run("ship", work, "ship")


@workflow(name="to-check-async")
async def checked_async(ctx: AsyncWorkflowContext[int]) -> str:
    await ctx.run("reserve", work, "reserve")
    await ctx.run("charge", work, "charge")
    await ctx.wait_for_event("approval", f"checked-{ctx.request_payload}")
    return await ctx.run("ship", work, "ship")


@workflow(name="to-check-group")
def checked_group(ctx: WorkflowContext[None]) -> None:
    ctx.parallel(step.run("one", work, "one"), step.run("two", work, "two"))
    ctx.parallel(step.run("label", work, "label"), step.wait_for_event("paid", "checked-paid"))


@pytest.fixture(autouse=True)
def _fresh() -> None:
    worked.clear()


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Callable[[Workflow[Any, Any], Any], None]:
    """Give a workflow other code."""

    def deploy(flow: Workflow[Any, Any], function: Any) -> None:
        assert inspect.iscoroutinefunction(function) == flow.is_async
        monkeypatch.setattr(flow, "function", function)
        worked.clear()

    return deploy


def live(flow: Workflow[Any, Any], payload: Any = 1) -> Run:
    """A run that has come to its wait."""
    handle = flow.trigger(payload)
    run_workflows()
    run = handle.run
    assert not run.is_finished, run.error
    return run


def report(*arguments: str) -> dict[str, Any]:
    out = io.StringIO()
    call_command("workflow_check", "--json", *arguments, stdout=out, stderr=io.StringIO())
    told: dict[str, Any] = json.loads(out.getvalue())
    return told


def breaks(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = report(*arguments)["breaks"]
    return found


def test_runs_go_on_with_the_code_that_they_have() -> None:
    for flow in (checked, checked_async, checked_group):
        live(flow, None if flow is checked_group else 1)
    worked.clear()
    assert report() == {"checked": 3, "elsewhere": 0, "breaks": []}
    assert worked == []


def renamed(ctx: Any) -> str:
    ctx.run("reserve", work, "reserve")
    ctx.run("charge card", work, "charge")
    return ctx.run("ship", work, "ship")


async def renamed_async(ctx: Any) -> str:
    await ctx.run("reserve", work, "reserve")
    await ctx.run("charge card", work, "charge")
    return await ctx.run("ship", work, "ship")


@pytest.mark.parametrize(("flow", "code"), [(checked, renamed), (checked_async, renamed_async)], ids=["sync", "async"])
def test_a_renamed_step_is_told_with_its_run_and_the_remedy(flow: Any, code: Any, deploy: Any) -> None:
    run = live(flow)
    deploy(flow, code)
    out = io.StringIO()
    with pytest.raises(CommandError, match="1 of 1 runs would break") as raised:
        call_command("workflow_check", "--fail-on-break", stdout=out)
    assert raised.value.returncode == 1
    told = out.getvalue()
    assert f"{run.run_id}  {flow.name} at step 2" in told
    assert "recorded: 'charge' (Run)" in told
    assert "asked:    'charge card' (Run)" in told
    assert "give it its old name 'charge' back" in told
    assert "ctx.patched" in told
    assert worked == []


def test_without_the_option_a_break_is_only_told(deploy: Any) -> None:
    live(checked)
    deploy(checked, renamed)
    assert len(breaks()) == 1


@pytest.mark.parametrize("flow", [checked, checked_async])
def test_a_file_of_another_machine_is_checked_without_its_database(
    flow: Any, deploy: Any, tmp_path: Path, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    run = live(flow)
    file = tmp_path / "live.jsonl"
    call_command("workflow_check", "--export", str(file), stdout=io.StringIO())
    Run.objects.all().delete()
    with django_assert_num_queries(0):
        assert breaks("--journal", str(file), "--fail-on-break") == []
    deploy(flow, renamed_async if flow.is_async else renamed)
    with pytest.raises(CommandError) as raised:
        call_command("workflow_check", "--journal", str(file), "--fail-on-break", stdout=io.StringIO())
    assert raised.value.returncode == 1
    assert breaks("--journal", str(file))[0]["run_id"] == run.run_id


def removed(ctx: Any) -> str:
    ctx.run("reserve", work, "reserve")
    ctx.wait_for_event("approval", "checked-1")
    return ctx.run("ship", work, "ship")


def added_behind(ctx: Any) -> str:
    ctx.run("reserve", work, "reserve")
    ctx.run("charge", work, "charge")
    ctx.wait_for_event("approval", "checked-1")
    ctx.run("pack", work, "pack")
    return ctx.run("ship", work, "ship")


def wait_renamed(ctx: Any) -> str:
    ctx.run("reserve", work, "reserve")
    ctx.run("charge", work, "charge")
    ctx.wait_for_event("approval by the boss", "checked-1")
    return ctx.run("ship", work, "ship")


def added_before(ctx: Any) -> str:
    ctx.run("reserve", work, "reserve")
    ctx.run("charge", work, "charge")
    ctx.run("check", work, "check")
    ctx.wait_for_event("approval", "checked-1")
    return ctx.run("ship", work, "ship")


def patched(ctx: Any) -> str:
    ctx.run("reserve", work, "reserve")
    if ctx.patched("charge card"):
        ctx.run("charge card", work, "charge")
    else:
        ctx.run("charge", work, "charge")
    if ctx.patched("no approval"):
        return ctx.run("ship", work, "ship")
    ctx.wait_for_event("approval", "checked-1")
    return ctx.run("ship", work, "ship")


def other_result_type(ctx: Any) -> str:
    def reserve() -> int:
        raise AssertionError("not called")

    ctx.run("reserve", reserve)
    return ctx.run("charge", work, "charge")


def crashes(ctx: Any) -> str:
    ctx.run("reserve", work, "reserve")
    raise LookupError("no such thing")


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (added_behind, None),
        (patched, None),
        (removed, (2, "Incompatible step name")),
        (wait_renamed, (3, "Incompatible step name")),  # the wait has no result yet; its answer will name it
        (added_before, (3, "Incompatible step name")),
        (other_result_type, (1, "StepError: The result of step 'reserve'")),
        (crashes, (1, "LookupError: no such thing")),
        (lambda ctx: None, (None, "returns before its first step")),
    ],
)
def test_what_breaks_and_what_does_not(code: Any, problem: tuple[int | None, str] | None, deploy: Any) -> None:
    live(checked)
    deploy(checked, code)
    found = breaks()
    if problem is None:
        assert found == []
    else:
        assert len(found) == 1
        assert found[0]["step"] == problem[0]
        assert problem[1] in found[0]["problem"]
        assert found[0]["remedy"]
    assert worked == []


@pytest.mark.parametrize(
    ("names", "index"),
    [
        (("label", "paid"), None),
        (("sticker", "paid"), 3),  # the branch that is done
        (("label", "money"), 4),  # the one that waits
        (("label",), 3),
    ],
)
def test_branches_of_an_open_group_are_all_looked_at(names: tuple[str, ...], index: int | None, deploy: Any) -> None:
    def code(ctx: Any) -> None:
        ctx.parallel(step.run("one", work, "one"), step.run("two", work, "two"))
        steps: list[Any] = [step.run(names[0], work, "label")]
        if len(names) > 1:
            steps.append(step.wait_for_event(names[1], "checked-paid"))
        ctx.parallel(*steps)

    live(checked_group, None)
    deploy(checked_group, code)
    found = breaks()
    assert [each["step"] for each in found] == ([] if index is None else [index])


def test_branches_of_tasks_are_looked_at(deploy: Any) -> None:
    async def tasks(ctx: Any) -> Any:
        return await asyncio.gather(ctx.run("one", work, "1"), ctx.wait_for_event("two", "checked-two"))

    async def changed(ctx: Any) -> Any:
        return await asyncio.gather(ctx.run("one", work, "1"), ctx.wait_for_event("second", "checked-two"))

    deploy(checked_async, tasks)
    live(checked_async)
    assert breaks() == []
    deploy(checked_async, changed)
    assert [(each["step"], each["recorded"]) for each in breaks()] == [(2, "'two' (Wait)")]


def test_calls_and_invoked_runs_under_way_are_looked_at(deploy: Any) -> None:
    @workflow(name="to-check-child")
    def child(ctx: WorkflowContext[None]) -> None:
        ctx.wait_for_event("forever", "checked-forever")

    def code(name: str) -> Any:
        return lambda ctx: ctx.invoke(name, child).body

    deploy(checked, code("ask"))
    live(checked)
    assert breaks("--workflow", "to-check") == []
    deploy(checked, code("ask again"))
    assert [each["recorded"] for each in breaks()] == ["'ask' (Invoke)"]


def test_a_payload_that_does_not_fit_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    run = live(checked)
    Run.objects.filter(pk=run.pk).update(payload='"one"')
    (found,) = breaks()
    assert "Expected `int`" in found["problem"]
    assert found["step"] is None


def test_a_workflow_that_is_gone() -> None:
    make_run(workflow="vanished", url="https://workflow.internal/workflows/serve/vanished/")
    (found,) = breaks()
    assert "no workflow 'vanished'" in found["problem"]
    assert "aliases=['vanished']" in found["remedy"]


def test_runs_of_other_endpoints_are_left_out() -> None:
    make_run(workflow="theirs", url="https://elsewhere.example/api/workflow")
    assert report() == {"checked": 0, "elsewhere": 1, "breaks": []}


def test_runs_are_chosen(deploy: Any) -> None:
    first, second = live(checked, 1), live(checked, 2)
    live(checked_async)
    deploy(checked, renamed)
    assert report("--workflow", "to-check")["checked"] == 2
    bare = second.run_id.removeprefix("wfr_")  # which may begin with a hyphen
    assert [each["run_id"] for each in breaks(f"--run={bare}")] == [second.run_id]
    Client().cancel([first.run_id])
    assert len(breaks()) == 1


def test_many_runs_take_few_queries(django_assert_max_num_queries: Any) -> None:
    for number in range(12):
        live(checked, number)
    with django_assert_max_num_queries(4):
        assert report()["checked"] == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--run", "nothing"], "no run nothing is active"),
        (["--journal", "/nowhere/at/all"], "No such file"),
        (["--export", "/nowhere/at/all"], "No such file"),
    ],
)
def test_bad_input(arguments: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said) as raised:
        report(*arguments)
    assert raised.value.returncode == 2


def test_a_file_that_is_no_export(tmp_path: Path) -> None:
    file = tmp_path / "live.jsonl"
    file.write_text('{"run_id": 3}\n')
    with pytest.raises(CommandError, match="Line 1 is no run") as raised:
        report("--journal", str(file))
    assert raised.value.returncode == 2


def test_an_exported_file_holds_no_secret_and_still_tells_what_breaks(deploy: Any, tmp_path: Path) -> None:
    @dataclass
    class Login:
        name: str
        password: Annotated[str, Secret]
        pin: Annotated[int, Secret]

    def code(ctx: Any) -> None:
        ctx.run("sign in", work, ctx.request_payload.name)
        ctx.wait_for_event("code", "to-check-code")

    @workflow(name="to-check-login", payload=Login)
    def login(ctx: WorkflowContext[Any]) -> None:
        code(ctx)

    live(login, Login("ada", "hunter22", 123456))
    file = tmp_path / "live.jsonl"
    call_command("workflow_check", "--export", str(file), stdout=io.StringIO())
    assert "ada" in file.read_text()
    assert "hunter22" not in file.read_text()
    assert "123456" not in file.read_text()
    # A number became a text, which the payload's type does not take: that says nothing about the code.
    (unsure,) = breaks("--journal", str(file), "--fail-on-break")
    assert not unsure["is_certain"]
    assert "check it in the database" in unsure["remedy"]


def test_a_renamed_step_is_found_behind_hidden_values(deploy: Any, tmp_path: Path) -> None:
    def before(ctx: Any) -> None:
        ctx.run("reserve", work, "reserve")
        ctx.run("charge", work, "charge")
        ctx.wait_for_event("approval", "to-check-token")

    @workflow(name="to-check-token", payload=Annotated[str, Secret])
    def token(ctx: WorkflowContext[Any]) -> None:
        before(ctx)

    live(token, "hunter22")
    file = tmp_path / "live.jsonl"
    call_command("workflow_check", "--export", str(file), stdout=io.StringIO())
    assert "hunter22" not in file.read_text()
    deploy(token, renamed)
    with pytest.raises(CommandError) as raised:
        call_command("workflow_check", "--journal", str(file), "--fail-on-break", stdout=io.StringIO())
    assert raised.value.returncode == 1

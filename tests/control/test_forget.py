"""Erasing what runs hold of people."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from django.urls import reverse

from django_workflow import Client, EngineError, WorkflowContext, workflow
from django_workflow.control.action import ActionRefused
from django_workflow.control.actions import ACTIONS
from django_workflow.control.forget import forget
from django_workflow.models import DeadLetter, Delivery, JournalEntry, Run, Step
from django_workflow.presentation import lookup, values
from django_workflow.realtime.stores.memory import MemoryStore
from django_workflow.testing import run_workflows, send_event, workflow_clock
from tests.api.conftest import as_user

pytestmark = pytest.mark.django_db

WORD = "countess-lovelace"


def fail(name: str) -> str:
    raise ValueError(f"no {name} here")


@workflow(name="forgettable", retries=0)
def forgettable(ctx: WorkflowContext[Any]) -> Any:
    name = ctx.request_payload["name"]
    ctx.run("greet", str, f"hello {name}")
    ctx.emit("greeted", {"name": name})
    answer = ctx.wait_for_event("reply", "forgettable-reply", message=f"{name}?")
    if ctx.request_payload.get("fails"):
        ctx.run("fail", fail, name)
    return {"name": name, "answer": answer.event_data}


def finished(*, fails: bool = False, label: str = "customer-1") -> Run:
    flow = forgettable.using(label=label, headers={"X-Name": WORD})
    handle = flow.trigger({"name": WORD, "fails": fails})
    run_workflows()
    send_event("forgettable-reply", {"by": WORD}, run=handle)
    run_workflows()
    run = handle.run
    assert run.status == (Run.Status.FAILED if fails else Run.Status.SUCCESS), run.why
    Run.objects.filter(pk=run.pk).update(summary=f"about {WORD}")
    return run


def rows_with(word: str) -> set[str]:
    """Names of this app's tables that hold the word."""
    found = set()
    for model in apps.get_app_config("django_workflow").get_models():
        if any(word in str(row) for row in model._default_manager.values()):
            found.add(model.__name__)
    return found


def command(*arguments: str) -> dict[str, Any]:
    out = io.StringIO()
    call_command("workflow_forget", "--json", *arguments, stdout=out)
    told: dict[str, Any] = json.loads(out.getvalue())
    return told


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_a_person_is_left_but_that_the_run_was(fails: bool, admin_user: User) -> None:
    run = finished(fails=fails)
    assert {"Run", "Step", "JournalEntry", "ChannelEvent", "Waiter"} <= rows_with(WORD)
    times = list(run.steps.order_by("step_id").values_list("name", "status", "started_at", "finished_at"))
    entries = JournalEntry.objects.filter(run=run).count()

    told = forget(lookup.runs().filter(pk=run.pk))

    assert told.runs == 1
    assert rows_with(WORD) == set()
    after = Run.objects.get(pk=run.pk)
    assert after.forgotten_at is not None
    assert (after.status, after.started_at, after.finished_at) == (run.status, run.started_at, run.finished_at)
    assert after.label_list == ["customer-1"]
    assert list(run.steps.order_by("step_id").values_list("name", "status", "started_at", "finished_at")) == times
    assert JournalEntry.objects.filter(run=run).count() == entries
    assert values.payload_of(after) is None
    assert set(values.step_results(after, run.steps.all()).values()) <= {None}
    # It can still be looked at.
    api = as_user(admin_user)
    assert api.get(reverse("django_workflow:run", args=[run.run_id])).status_code == 200
    client = api.__class__()
    client.force_login(admin_user)
    assert client.get(reverse("admin:django_workflow_run_change", args=[run.pk])).status_code == 200
    assert Client().logs(run_ids=[run.run_id]).runs[0].workflow_run_id == run.run_id


def test_other_runs_keep_what_they_have() -> None:
    run, other = finished(), finished()
    forget(lookup.runs().filter(pk=run.pk))
    assert values.payload_of(Run.objects.get(pk=other.pk)) == {"name": WORD, "fails": False}
    assert values.step_results(other, other.steps.all())[1] == f"hello {WORD}"


def test_a_run_that_is_not_over_is_refused_and_nothing_is_erased() -> None:
    run = finished()
    alive = forgettable.trigger({"name": WORD})
    run_workflows()
    with pytest.raises(ActionRefused, match=alive.id):
        forget(lookup.runs())
    assert values.payload_of(Run.objects.get(pk=run.pk)) is not None
    Client().cancel([alive.id])
    assert forget(lookup.runs()).runs == 2
    assert rows_with(WORD) == set()


def test_a_chain_is_forgotten_together() -> None:
    with workflow_clock():
        failed = finished(fails=True)
        resumed = Client().resume_run(failed.run_id).workflow_run_id
        run_workflows()
    assert forget(lookup.runs().filter(run_id=resumed)).runs == 2
    assert rows_with(WORD) == set()


def test_what_was_erased_cannot_be_gone_on_with() -> None:
    run = finished(fails=True)
    forget(lookup.runs().filter(pk=run.pk))
    after = Run.objects.get(pk=run.pk)
    for name in ("resume", "restart", "fork", "start_similar"):
        assert ACTIONS[name].why_not(after) == "Its payload and results were erased."
        assert not ACTIONS[name].possible(lookup.runs().filter(pk=run.pk)).exists()
    with pytest.raises(EngineError, match="were erased"):
        Client().restart_run(run.run_id)
    assert not DeadLetter.objects.exists()
    assert not Delivery.objects.exists()


def test_forgetting_twice_does_nothing_more() -> None:
    finished()
    assert forget(lookup.runs()).runs == 1
    assert forget(lookup.runs()).runs == 0


def test_a_store_elsewhere_forgets_too() -> None:
    from django_workflow.realtime.stores import RUN_HISTORY, NewEvent

    store = MemoryStore()
    store.append([NewEvent("one", "e", '"a"'), NewEvent("two", "e", '"b"')], RUN_HISTORY)
    store.forget(["one"])
    assert (store.page_after("one", 0, 9), len(store.page_after("two", 0, 9))) == ([], 1)


# The command


def test_the_command_takes_a_run_a_label_or_an_object() -> None:
    one, two, three = finished(label="a"), finished(label="b"), finished(label="b")
    user = User.objects.create_user("ada")
    content_type = ContentType.objects.get_for_model(User)
    Run.objects.filter(pk=three.pk).update(content_type=content_type, object_id=str(user.pk))
    assert command(f"--run={one.run_id.removeprefix('wfr_')}")["run_ids"] == [one.run_id]
    assert command("--object", f"auth.user:{user.pk}", "--dry-run") == {"runs": 1, "run_ids": [three.run_id]}
    assert set(command("--label", "b")["run_ids"]) == {two.run_id, three.run_id}
    assert rows_with(WORD) == set()
    assert Step.objects.exists()


def test_the_command_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished()
    monkeypatch.setattr("builtins.input", lambda prompt: "no")
    with pytest.raises(CommandError, match="Nothing was erased") as raised:
        call_command("workflow_forget", "--run", run.run_id)
    assert raised.value.returncode == 1
    assert rows_with(WORD)
    monkeypatch.setattr("builtins.input", lambda prompt: "yes")
    out = io.StringIO()
    call_command("workflow_forget", "--run", run.run_id, stdout=out)
    assert out.getvalue().startswith("Erased runs: 1, steps: 2")


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        ([], "Say which runs", 2),
        (["--run", "nothing"], "there is no run nothing", 2),
        (["--object", "shop"], "--object", 2),
        (["--object", "auth.user"], "names no object", 2),
        (["--object", "auth.nobody:1"], "--object", 2),
        (["--label", "nothing"], "No run is meant", 2),
    ],
)
def test_bad_input(arguments: list[str], said: str, code: int) -> None:
    with pytest.raises(CommandError, match=said) as raised:
        command(*arguments)
    assert raised.value.returncode == code


def test_active_runs_make_the_command_fail() -> None:
    handle = forgettable.trigger({"name": WORD})
    run_workflows()
    with pytest.raises(CommandError, match="Cancel them first") as raised:
        command("--run", handle.id)
    assert raised.value.returncode == 1

"""Secrets of payloads, results, events and errors: looked for wherever runs are shown."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Annotated, Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client as Browser
from django.urls import reverse

from django_workflow import Client, FlowControl, Secret, WorkflowContext, workflow
from django_workflow.engine import signing_keys
from django_workflow.management.commands import workflow_trigger
from django_workflow.models import ChannelEvent, Run, Step
from django_workflow.presentation import values
from django_workflow.testing import run_workflows, send_event, workflow_clock

pytestmark = pytest.mark.django_db

CARD, TOKEN, PIN, RECEIPT = "4111-2222-3333-4444", "tok-9f8e7d6c", "pin-31337", "receipt-c0ffee"
SECRETS = (CARD, TOKEN, PIN, RECEIPT)
OPEN = "ada-the-holder"


@dataclass
class Payment:
    holder: str
    card: Annotated[str, Secret]
    fails: bool = False


@dataclass
class Authorisation:
    bank: str
    token: Annotated[str, Secret]


@dataclass
class Confirmation:
    pin: Annotated[str, Secret]


@dataclass
class Receipt:
    number: Annotated[str, Secret]


def authorise(card: str) -> Authorisation:
    return Authorisation(bank="a-bank", token=TOKEN)


def charge(payment: Payment, token: str) -> Receipt:
    if payment.fails:
        raise ValueError(f"the bank refused {payment} with {token}")
    return Receipt(RECEIPT)


@workflow(name="private-child", label="private")
def private_child(ctx: WorkflowContext[Payment]) -> Receipt:
    return ctx.run("print", charge, ctx.request_payload, TOKEN)


def pay(ctx: WorkflowContext[Payment]) -> Receipt:
    payment = ctx.request_payload
    authorisation = ctx.run("authorise", authorise, payment.card)
    answer = ctx.wait_for_event("confirm", "private-confirm", type=Confirmation)
    assert answer.event_data.pin == PIN
    child = ctx.invoke("receipt", private_child, Payment(payment.holder, payment.card))
    assert child.body.number == RECEIPT
    return ctx.run("charge", charge, payment, authorisation.token)


private = workflow(name="private", retries=1, schedule=None, flow_control=FlowControl(key="private", rate=100))(pay)


@workflow(name="private-whole", retries=0, redact="body")
def private_whole(ctx: WorkflowContext[Any]) -> Any:
    payment = ctx.request_payload
    token = ctx.run("authorise", lambda: {"token": TOKEN})
    ctx.run("charge", charge, Payment(**payment), token["token"])
    return {"number": RECEIPT}


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What people were shown, each text after where it was shown."""
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    yield texts
    texts.append("log: " + caplog.text)
    texts.extend(f"log: {record.getMessage()} {record.exc_info} {record.__dict__}" for record in caplog.records)
    for text in texts:
        for secret in SECRETS:
            where = text.find(secret)
            assert where < 0, f"{secret} stands in {text[:80]!r}: …{text[max(0, where - 200) : where + 80]!r}"


def command(*arguments: str) -> str:
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command(*arguments, stdout=out, stderr=err)
    except CommandError as error:
        err.write(str(error))
    return f"{' '.join(arguments)[:60]}: {out.getvalue()} {err.getvalue()}"


def crawl(visitor: Browser) -> Iterator[str]:
    """Every page of the app's admin that a link leads to."""
    start = "/admin/django_workflow/"
    seen, waiting = set(), [start]
    while waiting and len(seen) < 80:
        url = waiting.pop(0)
        if url in seen:
            continue
        seen.add(url)
        response = visitor.get(url)
        content = b"".join(response.streaming_content) if response.streaming else response.content
        assert response.status_code < 500, url
        body = content.decode("utf-8", "replace")
        yield f"{url} ({response.status_code}): {unescape(body)}"
        for link in re.findall(r'(?:href|data-url|data-src)="([^"]+)"', body):
            target = unescape(link)
            if target.startswith("?"):
                target = url.partition("?")[0] + target
            # Orderings and filters of a list show the same rows again, scales the same steps; exports do not.
            is_list = re.fullmatch(r"/admin/django_workflow/[a-z]+/\?.*", target)
            if "scale=" not in target and target.startswith(start) and (not is_list or re.search("csv|json", target)):
                waiting.append(target.partition("#")[0])


def read_everything(told: list[str], visitor: Browser, tmp_path: Path) -> None:
    runs = list(Run.objects.all())
    told.extend(crawl(visitor))
    api = ["runs", "waiters", "schedules", "dead-letters", "workflows"]
    urls = [reverse(f"django_workflow:{name}") for name in api]
    for run in runs:
        urls += [reverse(f"django_workflow:{name}", args=[run.run_id]) for name in ("run", "run-steps", "run-events")]
        urls.append(reverse("django_workflow:realtime-run", args=[run.run_id]))
        urls.append(reverse("django_workflow:realtime-poll") + f"?channel={run.run_id}&last_ack_{run.run_id}=0-0")
    for url in urls:
        response = visitor.get(url, headers={"accept": "application/json"})
        assert response.status_code < 500
        told.append(f"{url} ({response.status_code}): {response.content.decode()}")
    told.extend(f"event: {event.data}" for event in ChannelEvent.objects.all())
    told.extend(f"row: {step.preview} {step.error}" for step in Step.objects.all())
    told.append(command("workflow_runs"))
    told.append(command("workflow_runs", "--json"))
    for run in runs:
        told.append(command("workflow_runs", "show", run.run_id))
        told.append(command("workflow_runs", "show", run.run_id, "--json"))
    file = tmp_path / "live.jsonl"
    told.append(command("workflow_check", "--export", str(file)))
    told.append("export: " + file.read_text())
    told.append(command("workflow_check", "--journal", str(file)))
    headers = {"Authorization": f"Bearer {signing_keys.engine_token()}"}
    for path in ("workflows/logs", "workflows/dlq", "workflows/events", "events", "dlq", "schedules"):
        response = visitor.get(f"/workflows/qstash/v2/{path}", headers=headers)
        told.append(f"{path} ({response.status_code}): {response.content.decode()}")


@pytest.fixture
def visitor(settings: Any, admin_user: User) -> Browser:
    settings.DJANGO_WORKFLOW = {**settings.DJANGO_WORKFLOW, "engine_api": True}
    visitor = Browser()
    visitor.force_login(admin_user)
    return visitor


def test_a_run_that_succeeds_shows_no_secret(told: list[str], visitor: Browser, tmp_path: Path) -> None:
    handle = private.trigger(Payment(OPEN, CARD))
    run_workflows()
    read_everything(told, visitor, tmp_path)  # while it waits
    send_event("private-confirm", {"pin": PIN})
    run_workflows()
    assert handle.run.status == Run.Status.SUCCESS, handle.run.error
    read_everything(told, visitor, tmp_path)
    assert sum(OPEN in text for text in told) > 5, "what is no secret is shown"
    shown = values.step_results(handle.run, list(handle.run.steps.all()))
    assert shown[1] == {"bank": "a-bank", "token": values.REDACTED}
    assert shown[2] == {"pin": values.REDACTED}
    assert values.result_of(handle.run) == {"number": values.REDACTED}


def test_a_run_that_fails_shows_no_secret(told: list[str], visitor: Browser, tmp_path: Path) -> None:
    handle = private.trigger(Payment(OPEN, CARD, fails=True))
    run_workflows()
    send_event("private-confirm", {"pin": PIN})
    with workflow_clock():
        run_workflows(skip_delays=True)
    run = handle.run
    assert run.status == Run.Status.FAILED
    assert "the bank refused Payment(holder='ada-the-holder', card='REDACTED'" in run.error
    read_everything(told, visitor, tmp_path)


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_hides_its_bodies_shows_none(told: list[str], visitor: Browser, tmp_path: Path, fails: bool) -> None:
    handle = private_whole.trigger({"holder": OPEN, "card": CARD, "fails": fails})
    run_workflows()
    assert handle.run.status == (Run.Status.FAILED if fails else Run.Status.SUCCESS)
    read_everything(told, visitor, tmp_path)
    assert not any(OPEN in text for text in told)


def test_a_trigger_on_the_command_line_shows_no_secret(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def drive(run_id: str, wait: Callable[[Run], bool]) -> None:
        while not wait(Run.objects.get(run_id=run_id)):
            run_workflows()

    monkeypatch.setattr(workflow_trigger, "drive_inline", drive)
    for payload in ({"holder": OPEN, "card": CARD}, {"holder": 3, "card": CARD}):
        told.append(command("workflow_trigger", "private-child", json.dumps(payload), "--wait"))
    assert "succe" in told[0].lower()


def test_runs_keep_their_secrets_when_the_code_forgets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = private.trigger(Payment(OPEN, CARD))
    monkeypatch.setattr(values.registry, "find", lambda name: None)
    assert values.payload_of(handle.run) == {"holder": OPEN, "card": values.REDACTED, "fails": False}


def test_a_field_that_is_marked_later_is_hidden_in_old_runs() -> None:
    handle = private.trigger(Payment(OPEN, CARD))
    Run.objects.filter(pk=handle.run.pk).update(config="{}")
    assert values.payload_of(handle.run)["card"] == values.REDACTED


def test_a_schedule_shows_no_secret(told: list[str], visitor: Browser) -> None:
    Client().schedule("private", "0 3 * * *", json.dumps({"holder": OPEN, "card": CARD}).encode(), schedule_id="p")
    told.extend(crawl(visitor))
    told.append("api: " + visitor.get(reverse("django_workflow:schedules")).content.decode())
    assert any(OPEN in text for text in told)


def test_the_crawl_comes_to_every_kind_of_row(visitor: Browser) -> None:
    pages = {page.split(" ", 1)[0] for page in crawl(visitor)}
    models = [model._meta.model_name for model in admin.site._registry if model._meta.app_label == "django_workflow"]
    assert {f"/admin/django_workflow/{name}/" for name in models} <= pages

"""Triggers of a hosted site: part of their transaction, sent after it, by whoever is there to do so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction

from django_workflow import WorkflowContext, workflow
from django_workflow.client.client import get_client
from django_workflow.errors import EngineError, QuotaExceeded
from django_workflow.mirror import outbox
from django_workflow.models import Outbox, Run
from tests.effects.models import Effect
from tests.engine.workers import ROOT
from tests.mirror.conftest import Hosted


@workflow(name="mirrored")
def mirrored(ctx: WorkflowContext[Any]) -> str:
    return ctx.run("work", lambda: "done")


def items(hosted: Hosted) -> list[dict[str, Any]]:
    """Every message that was sent in a batch, as JSON."""
    batches = [exchange for exchange in hosted.service.exchanges if exchange.request.target.endswith("/v2/batch")]
    return [item for exchange in batches for item in json.loads(exchange.request.body)]


# In a transaction


def test_a_trigger_belongs_to_its_transaction_and_its_run_is_known_at_once(hosted: Hosted) -> None:
    with transaction.atomic():
        handle = mirrored.trigger({"a": 1})
        run = handle.run
        assert (run.status, run.workflow, run.payload) == (Run.Status.QUEUED, "mirrored", '{"a":1}')
        assert run.trigger_kind == Run.TriggerKind.CODE
        assert hosted.service.exchanges == []
    (message,) = items(hosted)
    headers = {name.lower(): value for name, value in message["headers"].items()}
    assert headers["upstash-workflow-runid"] == handle.id
    row = Outbox.objects.get()
    assert headers["upstash-deduplication-id"] == f"outbox-{row.pk}"
    assert (row.is_sent, row.due_at, row.attempts) == (True, None, 1)


def test_a_run_notes_the_version_of_the_code_that_triggers_it(hosted: Hosted, settings: Any) -> None:
    settings.DJANGO_WORKFLOW = {**settings.DJANGO_WORKFLOW, "code_version": "2026.1"}
    assert mirrored.trigger().run.code_version == "2026.1"


def test_a_refusal_after_the_commit_is_noted_and_raised_by_nobody(hosted: Hosted) -> None:
    hosted.refuse(412, "quota exceeded")
    told = []
    with transaction.atomic():
        handle = mirrored.trigger()
        transaction.on_commit(lambda: told.append(1))
    assert told  # what was registered later is called all the same
    run, row = handle.run, Outbox.objects.get()
    assert (run.status, row.due_at, row.is_sent) == (Run.Status.FAILED, None, False)
    assert "quota exceeded" in row.error
    assert "quota exceeded" in run.error


def test_a_commit_by_hand_leaves_sending_to_others(hosted: Hosted) -> None:
    connection.set_autocommit(False)
    try:
        mirrored.trigger()
        connection.commit()
    finally:
        connection.set_autocommit(True)
    assert items(hosted) == []
    hosted.clock.advance(outbox.HANDOVER)
    assert hosted.run()


# Outside of one


def test_a_trigger_outside_of_a_transaction_is_sent_at_once(hosted: Hosted) -> None:
    handle = mirrored.trigger()
    assert len(items(hosted)) == 1
    hosted.run()
    assert handle.wait() == "done"


@pytest.mark.parametrize("error", [QuotaExceeded, EngineError])
def test_a_refusal_for_good_is_raised_and_kept(hosted: Hosted, error: type[EngineError]) -> None:
    hosted.refuse(412 if error is QuotaExceeded else 400, "not like this")
    with pytest.raises(error, match="not like this"):
        mirrored.using(workflow_run_id="mine").trigger()
    row = Outbox.objects.get()
    assert (row.is_sent, row.due_at) == (False, None)
    assert row.given_up_at is not None
    run = Run.objects.get(run_id="wfr_mine")
    assert (run.status, run.check_at) == (Run.Status.FAILED, None)
    assert run.error.startswith("It never reached the engine: ")


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_what_is_not_the_messages_fault_is_tried_again(hosted: Hosted, status: int) -> None:
    hosted.refuse(status, "not now")
    handle = mirrored.trigger()
    row = Outbox.objects.get()
    assert row.due_at is not None
    assert row.due_at > hosted.clock.now()
    assert "not now" in row.error
    assert handle.run.status == Run.Status.QUEUED
    assert "not now" in handle.run.why
    hosted.run()
    assert items(hosted) == []  # not before it is due
    hosted.clock.advance(outbox.FIRST_BACKOFF)
    hosted.run()
    assert (handle.run.status, handle.run.why) == (Run.Status.SUCCESS, "")


def test_the_pause_between_two_tries_grows() -> None:
    pauses = [outbox.backoff(attempt).total_seconds() for attempt in range(1, 12)]
    assert pauses[:4] == [2, 4, 8, 16]
    assert pauses[-1] == 300


def test_a_delay_counts_from_the_trigger_however_late_it_is_sent(hosted: Hosted) -> None:
    hosted.away()
    handle = mirrored.using(delay=60).trigger()
    assert handle.run.status == Run.Status.SCHEDULED
    hosted.clock.advance(20)
    hosted.run()
    (message,) = items(hosted)
    assert {name.lower(): value for name, value in message["headers"].items()}["upstash-delay"] == "40s"


def test_an_async_trigger_goes_the_same_way(hosted: Hosted) -> None:
    handle = async_to_sync(mirrored.atrigger)({"a": 1})
    assert len(items(hosted)) == 1
    assert handle.run.payload == '{"a":1}'


# Many


def test_many_triggers_are_one_request(hosted: Hosted) -> None:
    handles = mirrored.trigger_many([1, 2, 3])
    assert hosted.asked("POST", "/v2/batch") == 1
    sent = [message["headers"]["Upstash-Workflow-RunId"] for message in items(hosted)]
    assert sent == [handle.id for handle in handles]
    assert [handle.run.payload for handle in handles] == ["1", "2", "3"]


def test_many_triggers_are_refused_together(hosted: Hosted) -> None:
    hosted.refuse(400)
    with pytest.raises(EngineError):
        mirrored.trigger_many([1, 2])
    assert [run.status for run in Run.objects.all()] == [Run.Status.FAILED] * 2


# Two processes


def test_no_two_send_one_batch(hosted: Hosted) -> None:
    hosted.away()
    mirrored.trigger()
    hosted.clock.advance(outbox.FIRST_BACKOFF)
    batch, now = Outbox.objects.get().batch, hosted.clock.now()
    assert len(outbox.claim(batch, until=now)) == 1
    assert outbox.claim(batch, until=now) == []
    hosted.clock.advance(outbox.LEASE)  # whoever took it has died
    assert len(outbox.claim(batch, until=hosted.clock.now())) == 1


def test_a_writer_that_comes_late_finds_its_batch_taken(hosted: Hosted) -> None:
    with transaction.atomic():
        mirrored.trigger()
        hosted.clock.advance(outbox.HANDOVER * 2)
        row = Outbox.objects.get()
        # Another process sees the row when this one has committed, and is faster than its hook.
        transaction.on_commit(lambda: outbox.claim(row.batch, until=hosted.clock.now()) and None)
        kept = transaction.get_connection().run_on_commit
        kept.insert(0, kept.pop())
    assert items(hosted) == []
    assert Outbox.objects.get().attempts == 1


KILLED = """
import django, os
django.setup()
from django.db import transaction
from django_workflow import workflow
from tests.effects.models import Effect

@workflow(name="mirrored")
def mirrored(ctx): ...

with transaction.atomic():
    Effect.objects.create(run_id="killed", step="order", atomic=True)
    transaction.on_commit(lambda: os._exit(9))  # the power goes off between commit and send
    mirrored.using(workflow_run_id="killed").trigger()
"""


def test_a_trigger_survives_a_process_that_is_killed_between_commit_and_send(hosted: Hosted) -> None:
    settings = {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "WORKFLOW_TEST_DATABASE_NAME": str(connection.settings_dict["NAME"]),
        "PYTHONPATH": str(ROOT),
    }
    code = (
        "from django.conf import settings\n"
        "settings.DJANGO_WORKFLOW = dict(engine='qstash', token='t', base_url='https://testserver',"
        " qstash_url='http://127.0.0.1:9')\n" + KILLED
    )
    ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, **settings}, cwd=ROOT, timeout=60)
    assert ended.returncode == 9
    assert Effect.objects.filter(run_id="killed").exists()
    assert Run.objects.get(run_id="wfr_killed").status == Run.Status.QUEUED
    hosted.clock.advance(timedelta(minutes=1))  # the process had another clock
    hosted.clock.move_to(max(hosted.clock.now(), Outbox.objects.get().due_at))
    hosted.run()
    assert Run.objects.get(run_id="wfr_killed").status == Run.Status.SUCCESS
    assert len(hosted.service.runs) == 1


# Ids


def test_a_second_trigger_with_an_id_makes_no_second_run(hosted: Hosted) -> None:
    first = mirrored.using(workflow_run_id="same").trigger()
    second = mirrored.using(workflow_run_id="same").trigger()
    assert (first.deduplicated, second.deduplicated) == (False, True)
    assert len(items(hosted)) == 1


def test_an_id_whose_run_never_reached_the_engine_is_free(hosted: Hosted) -> None:
    hosted.refuse(400)
    with pytest.raises(EngineError):
        mirrored.using(workflow_run_id="same").trigger(1)
    handle = mirrored.using(workflow_run_id="same").trigger(2)
    assert not handle.deduplicated
    hosted.run()
    assert (handle.run.status, handle.run.payload) == (Run.Status.SUCCESS, "2")


# Canceling what is on its way


def test_a_run_that_waits_in_the_outbox_is_canceled_there(hosted: Hosted) -> None:
    hosted.away()
    handle = mirrored.trigger()
    assert handle.cancel()
    assert handle.run.status == Run.Status.CANCELED
    hosted.clock.advance(timedelta(hours=1))
    hosted.run()
    assert hosted.service.runs == []
    assert not handle.cancel()


def test_a_run_that_is_canceled_while_it_is_sent_is_canceled_at_the_engine(hosted: Hosted) -> None:
    def cancel(request: httpx.Request) -> None:
        hosted.network.during = lambda request: None
        assert get_client().cancel(["wfr_mine"]) == 1

    hosted.network.during = cancel
    handle = mirrored.using(workflow_run_id="mine").trigger()
    assert handle.run.status == Run.Status.CANCELED
    assert [run.state.value for run in hosted.service.runs] == ["RUN_CANCELED"]


def test_a_cancelation_in_the_transaction_of_its_trigger_takes_it_back(hosted: Hosted) -> None:
    with transaction.atomic():
        handle = mirrored.trigger()
        assert handle.cancel()
    assert handle.run.status == Run.Status.CANCELED
    assert hosted.service.runs == []


def test_cancel_by_label_reaches_both_sides(hosted: Hosted) -> None:
    there = mirrored.using(label="vip").trigger()
    hosted.away()
    here = mirrored.using(label="vip").trigger()
    other = mirrored.trigger()
    assert get_client().cancel(label="vip") == 2
    assert [handle.run.status for handle in (there, here)] == [Run.Status.CANCELED] * 2
    assert other.run.status == Run.Status.QUEUED


# Old rows


def test_old_rows_are_deleted_when_nobody_needs_them(hosted: Hosted, settings: Any) -> None:
    mirrored.trigger()
    hosted.refuse(400)
    with pytest.raises(EngineError):
        mirrored.trigger()
    hosted.away()
    mirrored.trigger()
    now = hosted.clock.now()
    assert outbox.prune(now) == 0
    assert outbox.prune(now + timedelta(days=2)) == 1  # the one that was sent
    assert outbox.prune(now + timedelta(days=31)) == 1  # the one that was given up
    assert Outbox.objects.unsent().count() == 1  # what is still to be sent is kept for ever

"""Rows as if the shop had been open for a month: thousands of runs in every state, for pages with much on them.

`manage.py load_demo --runs 10000` calls it. What is over is whole: journals, attempts and dead letters are as the
demo's workflows would have left them, so a failed run can be resumed (an import not: it has no rows in the shop). What
is not over waits, sleeps, is paused or starts later; a few runs look busy and are stuck, as after a crash, for the
filter that finds them.
"""

from __future__ import annotations

import base64
import json
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import models

from django_workflow.models import Attempt, DeadLetter, Delivery, JournalEntry, Run, Step, Waiter
from django_workflow.models.dead_letter import kind_of_error
from django_workflow.protocol.identifiers import new_run_id, uuid7
from example_project.shop.models import Order

PERIOD = timedelta(days=30)
BATCH = 500
ENDPOINT = "https://workflow.internal/workflows/serve/{}/"
HEADERS = '{"Content-Type":["application/json"],"X-Content-Type-Options":["nosniff"]}'
LABELS = ("vip", "eu", "us", "gift", "wholesale")

ERRORS = (
    ("ConnectionError: The card terminal does not answer.", 500),
    ("TimeoutError: The payment service took longer than 30 s.", 504),
    ("HTTP status 503 from the payment service: try again later.", 503),
    ("ValueError: The card has expired.", 489),
)

# name, type, seconds that it takes (least, most), result
Recipe = tuple[tuple[str, str, tuple[float, float], Any], ...]

SHORT: Recipe = (
    ("validate-data", "Run", (0.002, 0.02), {"valid": True}),
    ("wait-a-moment", "SleepFor", (1, 1), None),
    ("process-data", "Run", (0.05, 0.6), {"user_id": "user-1", "outcome": "process done"}),
    ("wait-again", "SleepFor", (1, 1), None),
    ("clean-up", "Run", (0.001, 0.01), None),
)
FAILING: Recipe = (
    ("validate-data", "Run", (0.002, 0.02), {"valid": True}),
    ("charge-card", "Run", (0.05, 2.0), None),
)
APPROVAL: Recipe = (
    ("initial-processing", "Run", (0.05, 0.4), {"user_id": "user-1", "outcome": "process done"}),
    ("approval", "Wait", (20, 4000), {"approved": True}),
    ("wait-a-moment", "SleepFor", (1, 1), None),
    ("finalize", "Run", (0.05, 0.4), {"user_id": "user-1", "outcome": "process done"}),
)
REPORT: Recipe = (
    ("choose the day", "Run", (0.001, 0.01), "2026-01-31"),
    ("look for a running import", "Run", (0.005, 0.05), False),
    ("add up the day", "Run", (0.2, 3.0), {"orders": 41, "total": "5120.40"}),
    ("mail the owners", "Invoke", (1, 6), "sent"),
)
CHUNKS = [(start, start + 50) for start in range(0, 500, 50)]
IMPORT: Recipe = (
    ("open the file", "Run", (0.02, 0.1), {"report_id": 1, "rows": 500, "chunks": CHUNKS}),
    *((f"rows {start + 1} to {end}", "Run", (0.2, 1.4), end) for start, end in CHUNKS),
    ("check the totals", "Run", (0.02, 0.1), {"rows": 500, "bad": 2}),
    ("tell who waits", "Notify", (0.001, 0.01), None),
)

# workflow -> recipe, how often, what triggers it
WORKFLOWS: dict[str, tuple[Recipe, int, str]] = {
    "basic": (SHORT, 40, Run.TriggerKind.CODE),
    "basic_with_approval": (APPROVAL, 25, Run.TriggerKind.USER),
    "basic_failing": (FAILING, 12, Run.TriggerKind.API),
    "nightly_report": (REPORT, 8, Run.TriggerKind.SCHEDULE),
    "import_orders": (IMPORT, 15, Run.TriggerKind.USER),
}

STATUSES = {
    Run.Status.SUCCESS: 860,
    Run.Status.FAILED: 60,
    Run.Status.CANCELED: 20,
    Run.Status.WAITING: 25,
    Run.Status.SLEEPING: 12,
    Run.Status.SCHEDULED: 8,
    Run.Status.PAUSED: 6,
    Run.Status.RETRYING: 3,
    Run.Status.RUNNING: 4,
    Run.Status.QUEUED: 2,
}


@dataclass(slots=True)
class Rows:
    """What is written together: a batch of runs and everything that belongs to them."""

    runs: list[Run] = field(default_factory=list)
    rows: dict[type[models.Model], list[Any]] = field(default_factory=dict)

    def add(self, row: models.Model) -> None:
        self.rows.setdefault(type(row), []).append(row)

    def write(self) -> None:
        Run.objects.bulk_create(self.runs)
        for model, rows in self.rows.items():
            model._default_manager.bulk_create(rows, batch_size=5000)


def write_runs(count: int, now: datetime, owner: Any = None, seed: int = 1) -> dict[str, int]:
    """Write `count` runs of the last month, newest last. Returns how many rows there are of each model."""
    made: dict[str, int] = {"Run": 0}
    numbers = iter(range(count))
    maker = _Maker(random.Random(seed), now, count, owner)
    while batch := list(islice(numbers, BATCH)):
        rows = Rows()
        for number in batch:
            maker.add_run(rows, number)
        rows.write()
        made["Run"] += len(rows.runs)
        for model, some in rows.rows.items():
            made[model.__name__] = made.get(model.__name__, 0) + len(some)
    return made


class _Maker:
    def __init__(self, chance: random.Random, now: datetime, count: int, owner: Any) -> None:
        self.chance, self.now, self.count, self.owner = chance, now, count, owner
        self.orders = list(Order.objects.values_list("pk", flat=True))
        self.order_type = ContentType.objects.get_for_model(Order)
        self.names = list(WORKFLOWS)
        self.weights = [often for _recipe, often, _kind in WORKFLOWS.values()]

    def add_run(self, rows: Rows, number: int) -> None:
        chance = self.chance
        (status,) = chance.choices(list(STATUSES), list(STATUSES.values()))
        (name,) = chance.choices(self.names, self.weights)
        if status in (Run.Status.WAITING, Run.Status.SLEEPING):
            name = "basic_with_approval"  # it has steps of both kinds
        elif name == "basic_failing" and status == Run.Status.SUCCESS:
            status = Run.Status.FAILED
        recipe, _often, kind = WORKFLOWS[name]
        run = self._run(name, kind, status, self._created_at(number))
        rows.runs.append(run)
        if status == Run.Status.SCHEDULED:
            run.due_at = self.now + timedelta(hours=chance.uniform(24, 400))
            rows.add(_delivery(run, run.due_at, 0, uuid7()))
        elif status != Run.Status.QUEUED:
            self._add_history(rows, run, recipe)

    def _created_at(self, number: int) -> datetime:
        """Evenly over the month, with more by day than at night."""
        share = (number + self.chance.random()) / self.count
        instant = self.now - PERIOD * (1 - share)
        if instant.hour < 6 and self.chance.random() < 0.7:
            instant += timedelta(hours=8)
        return min(instant, self.now - timedelta(seconds=2))

    def _run(self, name: str, kind: str, status: str, created_at: datetime) -> Run:
        chance = self.chance
        run = Run(
            run_id=new_run_id(),
            workflow=name,
            url=ENDPOINT.format(name),
            status=status,
            trigger_kind=kind,
            owner=self.owner if kind == Run.TriggerKind.USER else None,
            created_at=created_at,
            payload='{"user_id":"user-1","action":"process"}',
            code_version=chance.choice(("2026.1", "2026.2")),
        )
        if name in ("nightly_report", "import_orders"):
            run.payload = "{}"
        if chance.random() < 0.4:
            run.labels = f",{','.join(sorted(chance.sample(LABELS, chance.randint(1, 2))))},"
        if self.orders and name in ("basic", "basic_with_approval") and chance.random() < 0.5:
            run.content_type, run.object_id = self.order_type, str(chance.choice(self.orders))
            run.summary = f"Order {run.object_id}"
        return run

    def _add_history(self, rows: Rows, run: Run, recipe: Recipe) -> None:
        """The run's steps up to where it is, with their results; and what holds or ended it."""
        chance = self.chance
        at = run.started_at = run.created_at + timedelta(seconds=chance.uniform(0.01, 0.4))
        stop = self._last_step(run, recipe)
        for number, (name, kind, (least, most), value) in enumerate(recipe, start=1):
            parallel = name.startswith("rows ")
            length = timedelta(seconds=chance.uniform(least, most))
            step = Step(run=run, step_id=number, name=name, step_type=kind, queued_at=at, started_at=at)
            step.concurrent = 10 if parallel else 1
            if number == stop:
                self._stop_at(rows, run, step, at + length)
                rows.add(step)
                return
            step.position, step.status, step.finished_at = number, Step.Status.SUCCESS, at + length
            step.preview = json.dumps(value)[:200] if value is not None else ""
            rows.add(step)
            rows.add(_journalled(step, value))
            at += timedelta(milliseconds=30) if parallel and number < 11 else length + timedelta(milliseconds=8)
        run.result, run.finished_at = json.dumps("done"), at

    def _last_step(self, run: Run, recipe: Recipe) -> int | None:
        """The number of the step that the run is at; None for one that went through."""
        if run.status == Run.Status.SUCCESS:
            return None
        wanted = {Run.Status.WAITING: "Wait", Run.Status.SLEEPING: "SleepFor"}.get(run.status, "Run")
        found = [number for number, step in enumerate(recipe, start=1) if step[1] == wanted]
        return found[-1] if run.status == Run.Status.FAILED else self.chance.choice(found)

    def _stop_at(self, rows: Rows, run: Run, step: Step, end: datetime) -> None:
        soon = self.now + timedelta(hours=self.chance.uniform(24, 400))
        match run.status:
            case Run.Status.FAILED:
                self._fail(rows, run, step)
            case Run.Status.CANCELED:
                step.status, step.finished_at, run.finished_at = Step.Status.CANCELED, end, end
            case Run.Status.WAITING:
                step.status, step.due_at, step.event_id = Step.Status.WAITING, soon, f"approval-{run.run_id}"
                if step.step_type == "Wait":
                    rows.add(_waiter(run, step))
            case Run.Status.SLEEPING:
                step.status, step.due_at, run.due_at = Step.Status.SLEEPING, soon, soon
                rows.add(_delivery(run, soon, step.step_id, uuid7()))
            case Run.Status.PAUSED:
                step.status, step.started_at = Step.Status.QUEUED, None
                rows.add(_delivery(run, self.now + timedelta(days=3650), step.step_id - 1, uuid7()))
            case Run.Status.RETRYING:
                error, status = self.chance.choice(ERRORS)
                step.status, step.error, step.due_at, run.due_at = Step.Status.RETRYING, error, soon, soon
                rows.add(_attempt(step, 1, error, status, retry_at=soon))
                delivery = _delivery(run, soon, step.step_id - 1, uuid7())
                delivery.attempt, delivery.step_name = 1, step.name
                rows.add(delivery)
            case _stuck:
                step.status = Step.Status.RUNNING

    def _fail(self, rows: Rows, run: Run, step: Step) -> None:
        """Two attempts that are tried again, one that is not, and the dead letter."""
        error, status = self.chance.choice(ERRORS)
        assert step.started_at is not None
        at = step.started_at
        for number in (1, 2, 3):
            attempt = _attempt(step, number, error, status, at=at, retry_at=None)
            if number < 3:
                at = attempt.retry_at = attempt.finished_at + timedelta(seconds=12.2 ** (number - 1))
            rows.add(attempt)
        step.started_at, step.finished_at, step.attempts = at, attempt.finished_at, 3
        step.status, step.error = Step.Status.FAILED, error
        run.finished_at, run.error, run.error_step = step.finished_at, error, step.name
        rows.add(
            DeadLetter(
                run=run,
                message_key=uuid7(),
                step_name=step.name,
                destination=run.url,
                status=status,
                error=error,
                error_kind=kind_of_error(error, status),
                response_headers=HEADERS,
                response_body=json.dumps({"error": error.partition(":")[0], "message": error}),
                created_at=run.finished_at,
            )
        )


def _journalled(step: Step, value: Any) -> JournalEntry:
    body = {"stepId": step.step_id, "stepName": step.name, "stepType": step.step_type, "concurrent": step.concurrent}
    if step.step_type == "SleepFor":
        body["sleepFor"] = 1
    elif step.step_type == "Wait":
        data = base64.b64encode(json.dumps(value).encode()).decode()
        body |= {"out": data, "waitEventId": f"approval-{step.run.run_id}", "waitTimeout": False}
    else:
        body["out"] = json.dumps(value)
    return JournalEntry(
        run_id=step.run_id,
        position=step.position or 0,
        call_type="step",
        step_id=step.step_id,
        body=json.dumps(body),
        created_at=step.finished_at,
    )


def _attempt(
    step: Step, number: int, error: str, status: int, *, at: datetime | None = None, retry_at: datetime | None
) -> Attempt:
    started_at = at or step.started_at
    assert started_at is not None
    return Attempt(
        run_id=step.run_id,
        message_key=uuid7(),
        kind="step",
        step_id=step.step_id,
        step_name=step.name,
        number=number,
        status=status,
        error=error,
        response_headers=HEADERS,
        response_body=json.dumps({"error": error.partition(":")[0], "message": error}),
        started_at=started_at,
        finished_at=started_at + timedelta(milliseconds=640),
        retry_at=retry_at,
    )


def _delivery(run: Run, due_at: datetime, position: int, key: Any) -> Delivery:
    return Delivery(
        run=run,
        message_key=key,
        position=position,
        solo=True,
        destination=run.url,
        due_at=due_at,
        created_at=run.created_at,
    )


def _waiter(run: Run, step: Step) -> Waiter:
    described = {"stepId": step.step_id, "stepName": step.name, "stepType": "Wait", "concurrent": 1}
    return Waiter(
        run=run,
        event_id=step.event_id,
        step=json.dumps(described | {"waitEventId": step.event_id}),
        step_id=step.step_id,
        step_name=step.name,
        step_type=step.step_type,
        prompt=f"Shall order {run.object_id} go out?" if run.object_id else "",
        url=run.url,
        created_at=step.started_at,
        deadline_at=step.due_at,
    )

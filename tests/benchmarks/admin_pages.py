"""The admin on 100,000 runs: `python -m tests.benchmarks.admin_pages`.

Measured is what a page takes to be made, its statements included, without a web server in front.
"""

from __future__ import annotations

import json
import os
import random
import time
from datetime import timedelta
from typing import Any

import django
from django.utils import timezone

from tests.benchmarks.figures import percentile, row
from tests.benchmarks.places import database

RUNS, STEPS_EACH, STEPS_OF_THE_LARGE, REPEATS, BATCH = 100_000, 3, 1000, 20, 2000
WORKFLOWS = ("fulfil_order", "nightly_report", "import_rows", "approve_invoice")


def main() -> None:
    django.setup()
    with database():
        from django.contrib.auth.models import User
        from django.test import Client

        run_count = int(os.environ.get("BENCH_RUNS", str(RUNS)))
        large = make_runs(run_count)
        client = Client()
        client.force_login(User.objects.create_superuser("admin"))
        runs = "/admin/django_workflow/run/"
        pages = {
            "list": runs,
            "list, page 20": f"{runs}?p=19",
            "list, filtered by status": f"{runs}?status=failed",
            "list, filtered by workflow": f"{runs}?workflow=nightly_report",
            "list, search for a run id": f"{runs}?q={large.run_id}",
            "list, search in the texts": f"{runs}?q=order+9",
            "list, search without a match": f"{runs}?q=nowhere",
            "run of 3 steps": f"{runs}{newest_small(large).pk}/change/",
            "run of 1000 steps": f"{runs}{large.pk}/change/",
        }
        for name, url in pages.items():
            measure(client, name, url)


def measure(client: Any, name: str, url: str) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        response = client.get(url, follow=True)
    statements = len(captured)
    assert response.status_code == 200, (name, response.status_code)
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        client.get(url, follow=True)
        times.append((time.perf_counter() - started) * 1000)
    size = round(len(response.content) / 1024)
    row(f"admin, {name}, p50", percentile(times, 0.5), "ms", statements=statements, KiB=size)
    row(f"admin, {name}, p95", percentile(times, 0.95), "ms")


def make_runs(count: int) -> Any:
    """So many runs of the last 30 days, one in twenty failed, one in twenty not over; the last has 1000 steps."""
    from django_workflow.models import Run

    chance, now = random.Random(1), timezone.now()
    statuses = [Run.Status.SUCCESS] * 18 + [Run.Status.FAILED, Run.Status.SLEEPING]
    large = None
    for start in range(0, count, BATCH):
        runs = []
        for number in range(start, min(start + BATCH, count)):
            created_at = now - timedelta(days=30) * ((count - number) / count)
            status = chance.choice(statuses)
            over = status in Run.FINAL
            runs.append(
                Run(
                    run_id=f"wfr_{number:020}",
                    workflow=chance.choice(WORKFLOWS),
                    url="https://workflow.internal/workflows/serve/fulfil_order/",
                    status=status,
                    summary=f"Order {number}",
                    error="ConnectionError: the card service does not answer" if status == Run.Status.FAILED else "",
                    labels=f",customer-{number % 1000},",
                    payload=json.dumps({"order_id": number}),
                    created_at=created_at,
                    started_at=created_at,
                    finished_at=created_at + timedelta(seconds=20) if over else None,
                    due_at=None if over else now + timedelta(days=1),
                )
            )
        Run.objects.bulk_create(runs)
        make_steps(runs, STEPS_EACH)
        large = runs[-1]
    assert large is not None
    make_steps([large], STEPS_OF_THE_LARGE, first=STEPS_EACH + 1)
    return large


def make_steps(runs: list[Any], count: int, *, first: int = 1) -> None:
    from django_workflow.models import Step

    Step.objects.bulk_create(
        [
            Step(
                run=run,
                step_id=number,
                name=f"step {number}",
                step_type="Run",
                status=Step.Status.SUCCESS,
                started_at=run.created_at,
                finished_at=run.created_at + timedelta(seconds=number),
                preview=json.dumps({"i": number}),
            )
            for run in runs
            for number in range(first, first + count)
        ],
        batch_size=BATCH,
    )


def newest_small(large: Any) -> Any:
    from django_workflow.models import Run

    return Run.objects.exclude(pk=large.pk).order_by("-created_at").first()


if __name__ == "__main__":
    main()

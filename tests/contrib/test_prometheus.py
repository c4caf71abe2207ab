"""Metrics: what happens is counted from signals, what waits is read at each scrape."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from django_workflow import WorkflowContext, signals, workflow
from django_workflow.authoring.registry import registry as workflows
from django_workflow.engine.after import After
from django_workflow.engine.committer import Committer, Written
from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.meters import use_meter
from django_workflow.testing import run_workflows, workflow_clock
from django_workflow.testing.factories import make_delivery, make_run, make_worker

REASON = "prometheus-client is not installed: pip install -c constraints.txt -e '.[dev,prometheus]'"
prometheus_client = pytest.importorskip("prometheus_client", reason=REASON)

from django_workflow.contrib.prometheus import metrics  # noqa: E402
from django_workflow.contrib.prometheus.collector import DatabaseCollector  # noqa: E402

pytestmark = pytest.mark.django_db

SIGNALS = ("run_started", "run_finished", "step_completed", "step_failed", "delivery_failed")


@pytest.fixture
def counted() -> Iterator[Any]:
    """Connected as the app connects it, and let go again: counters are the process's, so tests look at differences."""
    before = {name: list(getattr(signals, name).receivers) for name in SIGNALS}
    collectors = set(prometheus_client.REGISTRY._collector_to_names)
    metrics.connect()
    with workflows.isolated():
        yield value
    use_meter(None)
    for collector in set(prometheus_client.REGISTRY._collector_to_names) - collectors:
        prometheus_client.REGISTRY.unregister(collector)
    for name, receivers in before.items():
        signal = getattr(signals, name)
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


def value(name: str, **labels: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0.0


def test_runs_and_steps_are_counted(counted: Any) -> None:
    @workflow(name="counted-well")
    def ship(ctx: WorkflowContext[Any]) -> None:
        ctx.run("pack", lambda: None)
        ctx.run("send", lambda: None)

    for _ in range(2):
        ship.trigger()
    run_workflows()
    of = {"workflow": "counted-well"}
    assert counted("workflow_runs_started_total", **of) == 2
    assert counted("workflow_runs_finished_total", **of, status="success") == 2
    assert counted("workflow_run_duration_seconds_count", **of, status="success") == 2
    assert counted("workflow_step_duration_seconds_count", **of, type="Run") == 4


def test_failures_are_counted_by_whether_they_are_the_last(counted: Any) -> None:
    @workflow(name="counted-badly", retries=1)
    def ship(ctx: WorkflowContext[Any]) -> None:
        ctx.run("pack", pack)

    def pack() -> None:
        raise ValueError("no box")

    with workflow_clock():
        ship.trigger()
        run_workflows(skip_delays=True)
    of = {"workflow": "counted-badly"}
    assert counted("workflow_step_failures_total", **of, will_retry="yes") == 1
    assert counted("workflow_step_failures_total", **of, will_retry="no") == 1
    assert counted("workflow_deliveries_failed_total", **of) == 1
    assert counted("workflow_runs_finished_total", **of, status="failed") == 1


def scraped() -> dict[tuple[str, str], float]:
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in DatabaseCollector().collect()
        for sample in family.samples
    }


@pytest.mark.sqlite
def test_the_write_lock_s_time_is_counted(counted: Any) -> None:
    before = counted("workflow_write_lock_seconds_total")
    with engine_atomic("default"):
        pass
    assert counted("workflow_write_lock_seconds_total") == before  # inside the test's transaction: no lock of its own


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_a_transaction_of_the_engine_has_the_lock_from_begin_to_commit(counted: Any) -> None:
    before = counted("workflow_write_lock_seconds_total")
    with engine_atomic("default"):
        make_worker()
    assert 0 < counted("workflow_write_lock_seconds_total") - before < 60
    with pytest.raises(ZeroDivisionError), engine_atomic("default"):
        raise ZeroDivisionError
    assert counted("workflow_write_lock_seconds_total") > before


@pytest.mark.django_db(transaction=True)
def test_the_size_of_a_worker_s_commits_is_counted(counted: Any) -> None:
    class Writer:
        alias = "default"

        def write(self, facts: Any, asked: Any = ()) -> Written:
            return Written(After())

    before = counted("workflow_commit_facts_count"), counted("workflow_commit_facts_sum")
    committer = Committer(Writer(), lambda after: None)  # type: ignore[arg-type]
    fact: Any = object()
    for _ in range(3):  # before it starts, so that they are one batch
        committer.put(fact)
    committer.start()
    assert committer.stop(30)
    assert counted("workflow_commit_facts_count") == before[0] + 1
    assert counted("workflow_commit_facts_sum") == before[1] + 3


def test_what_waits_is_read_from_the_database(django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    worker = make_worker(concurrency=8)
    run = make_run(status="running")
    make_delivery(run, worker=worker)
    make_delivery(run, due_at=timezone.now() - timedelta(minutes=5))
    make_delivery(run, due_at=timezone.now() - timedelta(minutes=5), flow_key="card")
    with django_assert_max_num_queries(8):
        found = scraped()
    assert found["workflow_database_up", ""] == 1
    assert found["workflow_runs_active", "running"] == 1
    assert found["workflow_runs_active", "sleeping"] == 0
    assert found["workflow_workers_alive", ""] == 1
    assert found["workflow_worker_slots", ""] == 8
    assert found["workflow_deliveries_in_flight", ""] == 1
    assert found["workflow_deliveries_due", ""] == 1
    assert found["workflow_deliveries_overdue", ""] == 1
    assert found["workflow_deliveries_held", ""] == 1
    assert found["workflow_delivery_lag_seconds", ""] >= 300
    assert found["workflow_outbox_unsent", ""] == 0


def test_a_scrape_without_a_database_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    def gone(now: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr("django_workflow.contrib.prometheus.collector.read_health", gone)
    assert scraped() == {("workflow_database_up", ""): 0}


def test_the_metrics_are_served(settings: Any) -> None:
    settings.ROOT_URLCONF = "django_workflow.contrib.prometheus.urls"
    response = Client().get("/")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    assert b"# TYPE workflow_runs_started_total counter" in response.content
    assert Client().post("/").status_code == 405


def test_a_worker_serves_them_only_with_the_app() -> None:
    with pytest.raises(CommandError, match=r"contrib\.prometheus in INSTALLED_APPS"):
        call_command("workflow_worker", "--metrics-port", "0", stdout=io.StringIO())


SEPARATE = """
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="x" * 50, USE_TZ=True, ROOT_URLCONF="tests.urls",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "django_workflow", *APPS],
)
django.setup()
import sys
print(sorted({name.partition(".")[0] for name in sys.modules} & {"prometheus_client", "opentelemetry"}))
from django.core.management import call_command
from django_workflow.signals import run_finished
from django_workflow.replay.instruments import instrument
print(len(run_finished.receivers), type(instrument()).__name__)
"""


@pytest.mark.parametrize(
    ("apps", "expected"),
    [
        ([], "[]\n0 NoneType"),
        (
            ["django_workflow.contrib.prometheus", "django_workflow.contrib.opentelemetry"],
            "['opentelemetry', 'prometheus_client']\n1 Tracing",
        ),
    ],
)
def test_a_project_without_the_apps_imports_none_of_it(apps: list[str], expected: str) -> None:
    code = f"APPS = {apps!r}\n{SEPARATE}"
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == expected, done.stderr

"""A hosted site and an engine that runs by itself: the development server, with its worker, in real time.

The scenarios drive their engines; here nobody does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_workflow import WorkflowContext, step, workflow
from django_workflow.models import Run, Step
from django_workflow.testing import send_event
from tests.dev_server.processes import DevServerProcess
from tests.engine.workers import eventually
from tests.scenarios.hosted_edges import configured, settings_of
from tests.scenarios.http_server import ThreadedServer, django_application

SECONDS = 60

tries: list[str] = []


@pytest.fixture
def site(settings: Any, tmp_path: Path) -> Iterator[None]:
    """This site, on the network, with an engine of its own."""
    tries.clear()
    with (
        DevServerProcess("--port=0", temporary=tmp_path) as engine,
        ThreadedServer(django_application()) as server,
    ):
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        told = engine.ready().variables
        keys = (told["QSTASH_CURRENT_SIGNING_KEY"], told["QSTASH_NEXT_SIGNING_KEY"])
        with configured(settings, **settings_of(told["QSTASH_URL"], told["QSTASH_TOKEN"], *keys, server.origin)):
            yield
        server.shutdown()


def busy_once() -> str:
    tries.append("try")
    if len(tries) == 1:
        raise ConnectionError("once")
    return "served"


@workflow(name="whole-order", retry_delay=0.05)
def whole_order(ctx: WorkflowContext[dict[str, int]]) -> list[Any]:
    served = ctx.run("serve", busy_once)
    ctx.sleep("breathe", 1)
    both = ctx.parallel(step.run("left", lambda: 1), step.run("right", lambda: 2))
    paid = ctx.wait_for_event("paid", f"paid-{ctx.request_payload['order']}", timeout="1h")
    return [served, *both, paid.event_data]


@workflow(name="hopeless-order", retries=0, on_failure=lambda ctx, status, response, headers: tries.append(response))
def hopeless_order(ctx: WorkflowContext[None]) -> None:
    ctx.run("fail", lambda: 1 / 0)


@pytest.mark.django_db(transaction=True)
@pytest.mark.sqlite
def test_a_site_and_an_engine_apart_finish_runs_by_themselves(site: None) -> None:
    good, bad = whole_order.trigger({"order": 7}), hopeless_order.trigger()
    eventually(lambda: good.run.status == Run.Status.WAITING, SECONDS)
    assert len(send_event("paid-7", {"by": "ada"})) == 1
    assert good.wait(SECONDS) == ["served", 1, 2, {"by": "ada"}]
    assert dict(good.run.steps.values_list("name", "status")) == dict.fromkeys(
        ("serve", "breathe", "left", "right", "paid"), Step.Status.SUCCESS
    )
    eventually(lambda: bad.run.status == Run.Status.FAILED, SECONDS)
    assert "division by zero" in bad.run.error
    eventually(lambda: sorted(tries) == ["division by zero", "try", "try"], SECONDS)

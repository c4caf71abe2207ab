"""The transport of a hosted site: which one the settings make, and what it leaves to the network."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from django_workflow import WorkflowContext, workflow
from django_workflow.apps import make_transport
from django_workflow.client.client import Client, get_client
from django_workflow.client.session import current_region
from django_workflow.client.transports import HttpTransport, RegionalTransport
from django_workflow.engine import cycle
from django_workflow.engine.transport import EngineTransport
from django_workflow.errors import EngineError, Misconfigured
from django_workflow.mirror.transport import HostedTransport, network_of
from django_workflow.models import Run, Schedule, Waiter
from django_workflow.protocol.publish import Message
from tests.admin.builders import make_user
from tests.api.conftest import as_user
from tests.mirror.conftest import Hosted

COMPLETE = {"engine": "qstash", "token": "t", "base_url": "https://shop.example", "qstash_url": "https://e.example/q"}


@workflow(name="by-transport")
def flow(ctx: WorkflowContext[Any]) -> Any:
    return ctx.wait_for_event("answer", "answer-me", timeout="1h", message="Well?").event_data


def made(**values: Any) -> Any:
    with override_settings(DJANGO_WORKFLOW=values):
        return make_transport()


def test_the_settings_choose() -> None:
    assert isinstance(made(), EngineTransport)
    transport = made(**COMPLETE)
    assert isinstance(transport, HostedTransport)
    network = network_of(transport)
    assert isinstance(network, HttpTransport)
    assert network.url == "https://e.example/q"
    assert network_of(made()) is not None


def test_each_region_has_a_way_of_its_own() -> None:
    regions = {"US_EAST_1": {"url": "https://us.example", "token": "american"}}
    network = network_of(made(**COMPLETE, region="eu-central-1", regions=regions))
    assert isinstance(network, RegionalTransport)
    token = current_region.set("US_EAST_1")
    try:
        assert network.chosen.url == "https://us.example"  # type: ignore[attr-defined]
    finally:
        current_region.reset(token)
    assert network.chosen.url == "https://e.example/q"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("lacks", "said"), [("token", "QSTASH_TOKEN"), ("base_url", "base_url")])
def test_what_a_hosted_site_lacks_is_told(monkeypatch: pytest.MonkeyPatch, lacks: str, said: str) -> None:
    monkeypatch.delenv("QSTASH_TOKEN", raising=False)
    with pytest.raises(Misconfigured, match=said):
        made(**{name: value for name, value in COMPLETE.items() if name != lacks})


def test_other_messages_go_over_the_network_at_once(hosted: Hosted) -> None:
    published = get_client().publish(Message(destination="https://elsewhere.example/", body=b"{}"))
    assert published.message_id
    assert hosted.asked("POST", "/v2/publish/https://elsewhere.example/") == 1


def test_a_publish_inside_an_atomic_block_is_no_result_of_a_step(hosted: Hosted) -> None:
    with hosted.transport.atomic():
        get_client().publish(Message(destination="https://elsewhere.example/", body=b"{}"))
    assert hosted.asked("POST", "/v2/publish/") == 1


def test_bodies_that_are_no_text_go_one_by_one(hosted: Hosted) -> None:
    handle = Client(hosted.transport).trigger("by-transport", b"\xff\x00")
    assert hosted.asked("POST", "/v2/publish/") == 1
    assert handle.run.payload_is_base64


# What people touch


def test_the_api_triggers_shows_answers_and_cancels_hosted_runs(hosted: Hosted) -> None:
    user = make_user("boss", "view_run", "trigger_workflow", "cancel_run", "notify_run")
    api = as_user(user)
    answer = api.post("/workflows/api/workflows/by-transport/trigger/", {"a": 1}, format="json")
    assert answer.status_code == 200, answer.content
    run_id = answer.json()["workflowRunId"]
    hosted.run()
    shown = api.get(f"/workflows/api/runs/{run_id}/").json()
    assert (shown["status"], shown["owner"], shown["trigger_kind"]) == ("waiting", "boss", "api")
    (waiter,) = shown["waiters"]
    assert (waiter["event_id"], waiter["prompt"], waiter["expires"] is not None) == ("answer-me", "Well?", True)
    url = f"/workflows/api/events/answer-me/notify/?run={run_id}"
    assert api.post(url, {"eventData": 5}, format="json").status_code == 200
    assert api.post(url, {"eventData": 6}, format="json").status_code == 409
    hosted.run()
    assert api.get(f"/workflows/api/runs/{run_id}/").json()["result"] == 5
    second = api.post("/workflows/api/workflows/by-transport/trigger/", {}, format="json").json()["workflowRunId"]
    assert api.post(f"/workflows/api/runs/{second}/cancel/").status_code == 200
    assert Run.objects.get(run_id=second).status == Run.Status.CANCELED


def test_a_refused_trigger_by_the_api_leaves_a_run_that_says_why(hosted: Hosted) -> None:
    api = as_user(make_user("boss", "trigger_workflow"))
    hosted.refuse(412, "quota exceeded")
    answer = api.post("/workflows/api/workflows/by-transport/trigger/", {}, format="json")
    assert answer.status_code == 502
    run = Run.objects.get()
    assert (run.status, "quota exceeded" in run.error) == (Run.Status.FAILED, True)


# Switching the engine


def test_an_embedded_engine_leaves_the_waits_of_hosted_runs_alone(hosted: Hosted) -> None:
    flow.trigger()
    hosted.run()
    waiter = Waiter.objects.get()
    hosted.clock.advance("2h")
    assert not Waiter.objects.overdue(hosted.clock.now()).exists()
    assert cycle.end_overdue_waits("default", hosted.clock.now()) is None
    assert cycle.next_timer("default") is None or Schedule.objects.exists()
    waiter.refresh_from_db()
    assert waiter.state == Waiter.State.WAITING


def test_errors_of_the_network_reach_who_asks(hosted: Hosted) -> None:
    hosted.refuse(429, "too many")
    with pytest.raises(EngineError, match="too many") as caught:
        get_client().waiters("answer-me")
    assert caught.value.status == 429

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, TypedDict

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from rest_framework import serializers

from django_workflow import WorkflowContext, workflow
from django_workflow.admin.trigger_form import fields_form
from django_workflow.authoring.payload_schema import payload_schema
from django_workflow.authoring.registry import registry
from django_workflow.client.urls import workflow_name
from django_workflow.engine.records import encode_config
from django_workflow.models import Run
from django_workflow.testing import run_workflows
from django_workflow.testing.factories import make_run
from tests.admin.builders import make_user

LIST = "/admin/django_workflow/registeredworkflow/"
HOSTILE = '"><script>alert(1)</script>'


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass
class Parcel:
    number: int
    email: str
    weight: Decimal
    size: Size = Size.SMALL
    day: date | None = None
    due_at: datetime | None = None
    express: bool = False
    lines: list[str] = field(default_factory=list)


@workflow(name="parcel_in_admin")
def parcel_in_admin(ctx: WorkflowContext[Parcel]) -> int:
    """Sends a parcel."""
    return ctx.run("send it", lambda: ctx.request_payload.number)


@pytest.fixture
def operator(client: Client, db: None) -> Client:
    client.force_login(make_user("operator", "view_run", "trigger_workflow"))
    return client


def trigger_url(name: str = "parcel_in_admin") -> str:
    from django.contrib.admin.utils import quote

    return f"{LIST}{quote(name)}/trigger/"


VALUES = {
    "payload-number": "7",
    "payload-email": "a@b.example",
    "payload-weight": "1.50",
    "payload-size": "0",
    "payload-day": "2026-03-01",
    "payload-due_at": "2026-03-02T10:30",
    "payload-express": "on",
    "payload-lines": '["a", "b"]',
    "run-run_id": "wfr_once",
    "run-label": "vip, eu",
    "run-reason": "asked for by phone",
}


def test_a_run_is_started_by_the_form_of_its_payload(operator: Client) -> None:
    page = operator.get(trigger_url()).content.decode()
    for name in ("payload-number", "payload-email", "payload-day", 'type="date"', "payload-lines"):
        assert name in page
    response = operator.post(trigger_url(), VALUES)
    run = Run.objects.get()
    assert response.headers["Location"] == f"/admin/django_workflow/run/{run.pk}/change/"
    assert parcel_in_admin.decode_payload(run.payload.encode()) == Parcel(
        number=7,
        email="a@b.example",
        weight=Decimal("1.50"),
        size=Size.LARGE,
        day=date(2026, 3, 1),
        due_at=datetime(2026, 3, 2, 10, 30, tzinfo=UTC),
        express=True,
        lines=["a", "b"],
    )
    assert (run.run_id, run.label_list, run.trigger_kind) == ("wfr_once", ["vip", "eu"], Run.TriggerKind.USER)
    assert run.owner is not None
    assert LogEntry.objects.get().get_change_message() == "Started by hand. Reason: asked for by phone"
    run_workflows()
    run.refresh_from_db()
    assert run.status == Run.Status.SUCCESS


def test_sending_the_form_twice_starts_one_run(operator: Client) -> None:
    operator.post(trigger_url(), VALUES)
    page = operator.post(trigger_url(), VALUES, follow=True).content.decode()
    assert "no second one was started" in page
    assert Run.objects.count() == 1


def test_what_does_not_fit_is_said_at_its_field_and_nothing_is_lost(operator: Client) -> None:
    values = {**VALUES, "payload-number": "seven", "payload-lines": "[1", "run-delay": "soon"}
    response = operator.post(trigger_url(), values)
    assert response.status_code == 400
    form, options = response.context["form"], response.context["options"]
    assert set(form.errors) == {"number", "lines"}
    assert set(options.errors) == {"delay"}
    assert "seven" in response.content.decode()
    # The workflow's own check comes back to the field too.
    response = operator.post(trigger_url(), {**VALUES, "payload-lines": "[1]"})
    assert set(response.context["form"].errors) == {"lines"}
    assert not Run.objects.exists()


def test_a_payload_may_be_written_as_json(operator: Client) -> None:
    url = f"{trigger_url()}?as=json"
    response = operator.post(url, {"payload-json": '{"number": 1}'})
    assert "missing required field `email`" in response.content.decode()
    response = operator.post(url, {"payload-json": "{number: 1}"})
    assert "This is no JSON" in response.content.decode()
    operator.post(url, {"payload-json": '{"number": 1, "email": "a", "weight": "2"}'})
    assert Run.objects.get().payload == '{"number":1,"email":"a","weight":"2"}'


def test_a_recent_payload_is_copied_unless_it_is_hidden(operator: Client) -> None:
    payload = '{"number":5,"email":"ada@example.com","weight":"3","size":"l","lines":["x"]}'
    make_run(run_id="wfr_seen", workflow="parcel_in_admin", payload=payload)
    page = operator.get(trigger_url()).content.decode()
    assert "copy=wfr_seen" in page
    form = operator.get(trigger_url(), {"copy": "wfr_seen"}).context["form"]
    assert (form["number"].value(), form["size"].value(), form["email"].value()) == (5, "0", "ada@example.com")
    Run.objects.update(config=encode_config(_redacted()))
    page = operator.get(trigger_url()).content.decode()
    assert "ada@example.com" not in page
    assert "copy=wfr_seen" not in page
    assert "REDACTED" not in str(operator.get(trigger_url(), {"copy": "wfr_seen"}).context["form"])


def _redacted() -> Any:
    handle = parcel_in_admin.using(redact="body").trigger(Parcel(1, "a", Decimal(1)))
    config = handle.run.config
    handle.run.delete()
    from django_workflow.engine.records import decode_config

    return decode_config(config)


class Address(TypedDict):
    street: str
    number: int


class ParcelSerializer(serializers.Serializer[Any]):
    number = serializers.IntegerField(min_value=1, help_text="As printed on it.")
    kind = serializers.ChoiceField(choices=["letter", "box"], required=False)
    note = serializers.CharField(required=False, allow_null=True, max_length=10)


def test_other_types_have_forms_too() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", count=(int, ...), day=(date | None, None))
    for type_, names in (
        (Address, ["street", "number"]),
        (ParcelSerializer, ["number", "kind", "note"]),
        (model, ["count", "day"]),
    ):
        form = fields_form(payload_schema(type_))
        assert form is not None
        assert sorted(form().fields) == sorted(names)
    form = fields_form(payload_schema(ParcelSerializer))
    assert form is not None
    assert form().fields["number"].help_text == "As printed on it."
    filled = form({"number": "0", "kind": "1", "note": "longer than ten"})
    assert set(filled.errors) == {"number", "note"}
    filled = form({"number": "2", "kind": "1", "note": ""})
    assert filled.is_valid()
    assert filled.payload() == {"number": 2, "kind": "box"}


@pytest.mark.parametrize("type_", [int, list[str], dict[str, int], object(), None])
def test_what_is_no_object_is_written_as_json(type_: Any) -> None:
    assert fields_form(payload_schema(type_)) is None


def test_the_list_tells_what_became_of_runs(viewing: Client) -> None:
    now = timezone.now()
    for seconds in (1, 2, 3, 4):
        started = now - timedelta(hours=1)
        make_run(
            workflow="parcel_in_admin",
            status=Run.Status.SUCCESS,
            started_at=started,
            finished_at=started + timedelta(seconds=seconds),
        )
    make_run(workflow="parcel_in_admin", status=Run.Status.FAILED)
    make_run(workflow="parcel_in_admin", status=Run.Status.FAILED, created_at=now - timedelta(days=2))
    make_run(workflow="parcel_in_admin", status=Run.Status.SLEEPING, created_at=now - timedelta(days=9))
    (row,) = [row for row in viewing.get(LIST).context["rows"] if row.name == "parcel_in_admin"]
    assert [(count.number, "status=failed" in count.url) for count in row.counts] == [(4, False), (1, True)]
    assert (row.success_rate, row.p50, row.p95, row.active) == ("80.0 %", "2.0 s", "4.0 s", 1)
    assert row.about == "Sends a parcel."


def test_runs_whose_workflow_is_gone_are_warned_of(viewing: Client) -> None:
    from django_workflow.client.urls import workflow_url

    make_run(workflow="was_here", url=workflow_url("was_here"), status=Run.Status.SLEEPING)
    make_run(workflow="abroad", url="https://other.example/abroad", status=Run.Status.SLEEPING)
    make_run(workflow="long_over", status=Run.Status.SUCCESS)
    page = viewing.get(LIST).content.decode()
    assert "was_here was removed from the code" in page
    assert "abroad lives elsewhere" in page
    assert "long_over" not in page


def test_the_number_of_queries_does_not_grow(
    viewing: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(12):
        make_run(workflow=f"w{number}", status=Run.Status.SLEEPING)
        make_run(workflow="parcel_in_admin", status=Run.Status.SUCCESS, payload=f'{{"number":{number}}}')
    with django_assert_max_num_queries(9):
        viewing.get(LIST)
    with django_assert_max_num_queries(9):
        viewing.get(f"{LIST}parcel_5Fin_5Fadmin/change/")


def test_who_may_only_look_starts_nothing(viewing: Client) -> None:
    assert "Trigger…" not in viewing.get(LIST).content.decode()
    assert viewing.get(trigger_url()).status_code == 403
    assert viewing.post(trigger_url(), VALUES).status_code == 403
    assert not Run.objects.exists()


def test_strangers_and_unknown_names_are_refused(client: Client, operator: Client) -> None:
    assert operator.get(trigger_url("nobody")).status_code == 404
    assert operator.get(f"{LIST}nobody/change/").status_code == 404
    client.force_login(make_user("stranger"))
    assert client.get(LIST).status_code == 403


def test_names_and_payloads_are_text_and_no_html(operator: Client) -> None:
    with registry.isolated():

        @workflow(name="quoted<b>")
        def quoted(ctx: WorkflowContext[dict[str, str]]) -> None:
            """<b>bold</b>"""

        make_run(workflow="quoted<b>", payload=f'{{"a": "{HOSTILE[2:]}"}}', run_id="wfr_x")
        for url in (LIST, f"{LIST}quoted_3Cb_3E/change/", f"{trigger_url('quoted<b>')}?copy=wfr_x"):
            page = operator.get(url).content.decode()
            assert "quoted&lt;b&gt;" in page, url
            for raw in ("quoted<b>", "<b>bold", "<script>alert"):
                assert raw not in page, url
        response = operator.post(trigger_url("quoted<b>"), {"payload-json": HOSTILE})
        assert HOSTILE not in response.content.decode()


def test_runs_of_endpoints_elsewhere_may_have_names_that_no_workflow_here_can_have(viewing: Client) -> None:
    url = "https://shop.example/flows/a%2Fb"
    make_run(workflow=workflow_name(url), url=url, status="running")
    page = viewing.get("/admin/django_workflow/registeredworkflow/")
    assert page.status_code == 200
    assert "a/b" in page.content.decode()

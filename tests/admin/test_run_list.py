from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from django_workflow.models import Run, Step
from django_workflow.testing.factories import make_run, make_step
from tests.admin.builders import make_finished_run, make_user

LIST = "/admin/django_workflow/run/"


def shown(client: Client, **query: str) -> list[str]:
    """Run ids in the order of the list."""
    response = client.get(LIST, query)
    assert response.status_code == 200, response
    return [run.run_id for run in response.context["cl"].result_list]


def test_the_list_shows_each_run_in_words(viewing: Client) -> None:
    owner = make_user("ada", staff=False)
    run = make_run(
        run_id="wfr_abcdefghijklmnop",
        workflow="fulfil_order",
        status=Run.Status.WAITING,
        summary="Order 42",
        labels=",vip,eu,",
        started_at=timezone.now() - timedelta(seconds=200),
        owner=owner,
        trigger_kind=Run.TriggerKind.USER,
    )
    make_step(run, name="approval", status=Step.Status.WAITING, finished_at=None)
    page = viewing.get(LIST).content.decode()
    assert "wfa-status-waiting" in page
    assert "Waiting" in page
    assert "wfr_abcdefgh…" in page
    assert "fulfil_order" in page
    assert "Order 42" in page
    assert '<span class="wfa-label">vip</span> <span class="wfa-label">eu</span>' in page
    assert "1 step, waiting: approval" in page
    assert "3 min" in page
    assert "Person: ada" in page


def test_a_failed_run_shows_the_start_of_its_error_where_it_has_no_summary(viewing: Client) -> None:
    make_run(status=Run.Status.FAILED, error="ValueError: <b>no</b> stock\nTraceback", error_step="reserve")
    page = viewing.get(LIST).content.decode()
    assert "ValueError: &lt;b&gt;no&lt;/b&gt; stock" in page
    assert "Traceback" not in page
    assert "0 steps, failed: reserve" in page


@pytest.mark.django_db
def test_the_number_of_queries_does_not_grow_with_the_runs(
    viewing: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    def fill(number: int) -> None:
        for index in range(number):
            owner = make_user(f"user {number} {index}", staff=False)
            run = make_run(owner=owner, parent=make_run(), labels=f",l{index},", workflow=f"w{number}{index}")
            make_step(run, status=Step.Status.RUNNING, finished_at=None)

    def queries() -> int:
        with django_assert_max_num_queries(100) as captured:
            assert len(shown(viewing))
        return len(captured)

    fill(2)
    first = queries()
    fill(15)
    assert queries() == first
    assert first <= 14


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("active", {"wfr_running", "wfr_sleeping"}),
        ("finished", {"wfr_success", "wfr_failed"}),
        ("failed", {"wfr_failed"}),
        ("nonsense", {"wfr_running", "wfr_sleeping", "wfr_success", "wfr_failed"}),
    ],
)
def test_statuses_are_filtered_singly_and_in_groups(viewing: Client, status: str, expected: set[str]) -> None:
    for name in ("running", "sleeping", "success", "failed"):
        make_run(run_id=f"wfr_{name}", status=name)
    assert set(shown(viewing, status=status)) == expected


def test_filters_narrow_by_workflow_label_trigger_and_error(viewing: Client) -> None:
    make_run(run_id="wfr_one", workflow="a", labels=",vip,", trigger_kind=Run.TriggerKind.API, error="boom")
    make_run(run_id="wfr_two", workflow="b", labels=",vip-2,", trigger_kind=Run.TriggerKind.CODE)
    assert shown(viewing, workflow="a") == ["wfr_one"]
    assert shown(viewing, label="vip") == ["wfr_one"]
    assert shown(viewing, trigger_kind__exact="api") == ["wfr_one"]
    assert shown(viewing, has_error="1") == ["wfr_one"]
    assert shown(viewing, has_error="0") == ["wfr_two"]


def test_a_filter_offers_what_recent_runs_have_and_keeps_what_is_chosen(viewing: Client) -> None:
    make_run(workflow="seen", labels=",recent,")
    page = viewing.get(LIST, {"workflow": "gone"}).content.decode()
    assert "?workflow=seen" in page
    assert "?workflow=gone" in page
    assert "label=recent" in page


@pytest.mark.parametrize("text", ["wfr_4SxX", "4SxX", "vip", "Order 42", "no stock"])
def test_runs_are_found_by_id_label_summary_and_error(viewing: Client, text: str) -> None:
    make_run(run_id="wfr_4SxX", labels=",vip,", summary="Order 42", error="ValueError: no stock")
    make_run(run_id="wfr_other")
    assert shown(viewing, q=text) == ["wfr_4SxX"]


def test_facets_and_the_date_hierarchy_work(viewing: Client) -> None:
    run = make_finished_run()
    assert shown(viewing, _facets="True") == [run.run_id]
    assert shown(viewing, created_at__year=str(run.created_at.year)) == [run.run_id]


def test_nothing_can_be_added_or_changed_even_by_superusers(client: Client, db: None) -> None:
    client.force_login(make_user("root", superuser=True))
    run = make_run()
    assert client.get(reverse("admin:django_workflow_run_add")).status_code == 403
    page = reverse("admin:django_workflow_run_change", args=[run.pk])
    assert client.post(page, {"workflow": "other"}).status_code == 403
    run.refresh_from_db()
    assert run.workflow == "sample"


def test_without_the_permission_nothing_is_seen(client: Client, db: None) -> None:
    client.force_login(make_user("nobody"))
    run = make_run()
    assert client.get(LIST).status_code == 403
    assert client.get(reverse("admin:django_workflow_run_change", args=[run.pk])).status_code == 403


def test_finished_runs_are_deleted_with_that_permission(client: Client, db: None) -> None:
    client.force_login(make_user("cleaner", "view_run", "delete_run"))
    run = make_finished_run()
    url = reverse("admin:django_workflow_run_delete", args=[run.pk])
    assert "Steps: 2" in client.get(url).content.decode()
    assert client.post(url, {"post": "yes"}).status_code == 302
    assert not Run.objects.exists()
    assert not Step.objects.exists()


def test_active_runs_are_not_deleted(client: Client, db: None) -> None:
    client.force_login(make_user("cleaner", "view_run", "delete_run"))
    run, finished = make_run(status=Run.Status.RUNNING), make_finished_run()
    assert client.post(reverse("admin:django_workflow_run_delete", args=[run.pk]), {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_runs", "_selected_action": [str(run.pk), str(finished.pk)]}
    page = client.post(LIST, chosen).content.decode()
    assert "The run is not over: cancel it first." in page
    assert 'value="Delete 1 run"' in page
    assert Run.objects.count() == 2
    assert client.post(LIST, {**chosen, "confirmed": "yes"}).status_code == 302
    assert list(Run.objects.all()) == [run]


def test_deleting_needs_its_permission(viewing: Client, viewer: User) -> None:
    run = make_finished_run()
    assert viewing.post(reverse("admin:django_workflow_run_delete", args=[run.pk]), {"post": "yes"}).status_code == 403
    page = viewing.get(LIST).content.decode()
    assert "delete_selected" not in page
    assert "delete_runs" not in page


def test_the_list_is_narrowed_to_a_version_of_the_code(viewing: Client) -> None:
    assert "By code version" not in viewing.get(LIST).content.decode()
    make_run(run_id="wfr_old", code_version="2026.1")
    make_run(run_id="wfr_new", code_version="2026.2")
    page = viewing.get(LIST, {"code_version": "2026.1"})
    assert [run.run_id for run in page.context["cl"].result_list] == ["wfr_old"]
    assert "By code version" in page.content.decode()

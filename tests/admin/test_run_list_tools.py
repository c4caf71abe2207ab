"""The run list's search, filters, histogram, export, live rows and warning; and what they cost."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.contenttypes.models import ContentType
from django.test import AsyncClient, Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from django_workflow.admin import run_list
from django_workflow.models import Run, Step
from django_workflow.testing.factories import make_delivery, make_run, make_step, make_waiter, make_worker
from tests.admin.builders import make_attempt, make_finished_run, make_user

pytestmark = pytest.mark.django_db

LIST = "/admin/django_workflow/run/"


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(make_user("root", superuser=True))
    return client


def shown(client: Client, **query: str) -> set[str]:
    response = client.get(LIST, query)
    assert response.status_code == 200, response
    return {run.run_id for run in response.context["cl"].result_list}


def fill(number: int) -> None:
    for index in range(number):
        run = make_run(parent=make_run(), labels=f",l{index},", workflow=f"w{index}", status=Run.Status.RUNNING)
        make_step(run, status=Step.Status.RUNNING, finished_at=None)
        make_attempt(run, retry_at=timezone.now())


def queries(client: Client, capture: DjangoAssertNumQueries, **query: str) -> int:
    with capture(100) as captured:
        assert shown(client, **query)
    return len([each for each in captured if "django_session" not in each["sql"] and "auth_user" not in each["sql"]])


def test_the_list_takes_eight_queries_and_one_per_facet(
    root: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    fill(3)
    first = queries(root, django_assert_max_num_queries)
    with_facets = queries(root, django_assert_max_num_queries, _facets="True")
    fill(12)
    assert queries(root, django_assert_max_num_queries) == first <= 8
    assert queries(root, django_assert_max_num_queries, _facets="True") == with_facets <= first + 8
    assert queries(root, django_assert_max_num_queries, q="l1") <= 9  # and one that looks for a run of that id


def test_a_search_finds_objects_events_and_keys(root: Client) -> None:
    make_waiter(make_run(run_id="wfr_waits"), event_id="approve-7")
    make_run(run_id="wfr_limited", flow_key="user-7")
    make_run(run_id="wfr_about", object_id="4711")
    make_run(run_id="wfr_other")
    for text, found in (("approve-7", "wfr_waits"), ("user-7", "wfr_limited"), ("4711", "wfr_about")):
        assert shown(root, q=text) == {found}
    assert shown(root, q="nothing of it") == set()


def test_a_search_for_words_stops_and_says_so(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_list, "MOST_FOUND", 3)
    for _number in range(5):
        make_run(error="card declined")
    page = root.get(LIST, {"q": "declined"})
    assert len(page.context["cl"].result_list) == 3
    assert "Only the first 3 matches are shown" in page.content.decode()
    assert "Only the first" not in root.get(LIST).content.decode()


def test_pages_of_a_search_keep_the_order(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_workflow.admin.runs.RunAdmin.list_per_page", 2)
    now = timezone.now()
    for number in range(5):
        make_run(run_id=f"wfr_{number}", error="declined", created_at=now - timedelta(minutes=number))
    for page, expected in (("1", ["wfr_0", "wfr_1"]), ("2", ["wfr_2", "wfr_3"]), ("3", ["wfr_4"])):
        response = root.get(LIST, {"q": "declined", "p": page})
        assert [run.run_id for run in response.context["cl"].result_list] == expected
        assert response.context["cl"].result_count == 5


def test_stuck_are_runs_that_did_not_move_for_an_hour(root: Client) -> None:
    long_ago = timezone.now() - timedelta(hours=3)
    soon = timezone.now() + timedelta(hours=1)
    stuck = make_run(run_id="wfr_stuck", status=Run.Status.RUNNING, created_at=long_ago)
    make_step(stuck, queued_at=long_ago, started_at=long_ago, finished_at=None)
    moving = make_run(run_id="wfr_moving", status=Run.Status.RUNNING, created_at=long_ago)
    make_step(moving, queued_at=long_ago, started_at=long_ago)  # finished now
    make_run(run_id="wfr_late", status=Run.Status.SLEEPING, created_at=long_ago, due_at=long_ago)
    make_run(run_id="wfr_asleep", status=Run.Status.SLEEPING, created_at=long_ago, due_at=soon)
    make_run(run_id="wfr_retrying", status=Run.Status.RETRYING, created_at=long_ago, due_at=soon)
    make_run(run_id="wfr_waiting", status=Run.Status.WAITING, created_at=long_ago)
    make_run(run_id="wfr_new", status=Run.Status.QUEUED)
    make_run(run_id="wfr_over", status=Run.Status.FAILED, created_at=long_ago)
    assert shown(root, stuck="1") == {"wfr_stuck", "wfr_late"}
    assert "Stuck for over 1 h (2)" in root.get(LIST, {"_facets": "True"}).content.decode()


def test_runs_are_filtered_by_engine_trigger_and_what_they_are_about(root: Client) -> None:
    about = make_user("ann")
    make_run(run_id="wfr_hosted", engine=Run.Engine.HOSTED, trigger_kind=Run.TriggerKind.SCHEDULE)
    make_run(run_id="wfr_about", related_object=about)
    users = str(ContentType.objects.get_for_model(about).pk)
    assert shown(root, engine="qstash") == {"wfr_hosted"}
    assert shown(root, trigger_kind="schedule") == {"wfr_hosted"}
    assert shown(root, about=users) == {"wfr_about"}
    for name in ("about", "engine", "stuck", "trigger_kind", "has_error"):
        assert shown(root, **{name: "no choice"}) == {"wfr_hosted", "wfr_about"}
    page = root.get(LIST, {"_facets": "True"}).content.decode()
    for text in ("Hosted QStash (1)", "Schedule (1)", "user (1)", "Active (2)", "Finished (0)", "With an error (0)"):
        assert text in page


def test_the_histogram_counts_by_time_and_status_and_narrows_the_list(root: Client) -> None:
    day = datetime(2030, 5, 1, 10, tzinfo=UTC)
    for number in range(4):
        make_run(run_id=f"wfr_{number}", status=Run.Status.SUCCESS, created_at=day + timedelta(days=number))
    make_run(run_id="wfr_bad", status=Run.Status.FAILED, created_at=day)
    histogram = root.get(LIST).context["cl"].histogram
    assert histogram.title == "5 runs"
    assert [(entry.label, entry.number) for entry in histogram.legend] == [("Success", 4), ("Failed", 1)]
    assert histogram.all_url == ""
    first = histogram.bars[0]
    assert first.label.endswith("2 runs, 1 success, 1 failed")
    assert [(part.status, part.top + part.height) for part in first.segments] == [("success", 1000), ("failed", 500)]
    narrowed = root.get(LIST + first.url)
    assert {run.run_id for run in narrowed.context["cl"].result_list} == {"wfr_0", "wfr_bad"}
    assert narrowed.context["cl"].histogram.all_url == "?"
    assert {run.run_id for run in root.get(LIST + histogram.legend[1].url).context["cl"].result_list} == {"wfr_bad"}


@pytest.mark.parametrize(
    ("span", "most"),
    [(timedelta(0), 1), (timedelta(minutes=50), 61), (timedelta(days=40), 61), (timedelta(days=3000), 240)],
)
def test_the_histogram_has_a_few_bars_for_minutes_and_for_years(root: Client, span: timedelta, most: int) -> None:
    start = datetime(2026, 10, 24, 9, 30, tzinfo=UTC)
    with timezone.override("Europe/Berlin"):  # where clocks change in that night
        for share in range(5):
            make_run(created_at=start + span * share / 4)
        found = root.get(LIST).context["cl"].histogram
        assert 1 <= len(found.bars) <= most
        assert sum(int(bar.label.partition(": ")[2].split()[0]) for bar in found.bars if bar.url) == 5


def test_a_search_has_its_own_histogram(root: Client) -> None:
    make_run(error="declined", status=Run.Status.FAILED)
    make_finished_run()
    assert root.get(LIST, {"q": "declined"}).context["cl"].histogram.title == "1 run"


def test_a_list_without_runs_says_how_to_trigger_one_or_to_clear_filters(root: Client) -> None:
    page = root.get(LIST).content.decode()
    assert "No run yet" in page
    assert "greet.trigger(" in page
    page = root.get(LIST, {"status": "failed"}).content.decode()
    assert "No run matches." in page
    assert '<a class="wfa-button" href="?">Clear filters</a>' in page


def test_it_warns_when_no_worker_reports(root: Client) -> None:
    assert "No worker" not in root.get(LIST).content.decode()  # nothing was ever started
    make_delivery(make_run())
    assert "No worker has reported yet; 1 step is due." in root.get(LIST).content.decode()
    worker = make_worker(heartbeat_at=timezone.now() - timedelta(minutes=5))
    assert "No worker has reported for 5 min" in root.get(LIST).content.decode()
    worker.heartbeat_at = timezone.now()
    worker.save()
    assert "No worker" not in root.get(LIST).content.decode()


def exported(client: Client, form: str, **query: str) -> str:
    response: Any = client.get(f"{LIST}export.{form}", query)
    assert response.status_code == 200
    assert f".{form}" in response["Content-Disposition"]
    return b"".join(response.streaming_content).decode()


def test_the_list_is_exported_as_filtered_masked_and_in_batches(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_workflow.admin.export.BATCH", 2)
    now = timezone.now()
    for number in range(5):
        make_finished_run(run_id=f"wfr_{number}", created_at=now, labels=",a,b,", payload='{"headers":{"Cookie":"s"}}')
    make_run(run_id="wfr_other", summary="=1+1")
    rows = json.loads(exported(root, "json", status="success"))
    assert {row["run_id"] for row in rows} == {f"wfr_{number}" for number in range(5)}
    assert rows[0]["payload"] == {"headers": {"Cookie": "REDACTED"}}
    assert rows[0]["labels"] == ["a", "b"]
    assert rows[0]["duration_seconds"] == 3
    table = list(csv.DictReader(io.StringIO(exported(root, "csv", q="wfr_other"))))
    assert [row["run_id"] for row in table] == ["wfr_other"]
    assert table[0]["summary"] == "'=1+1"  # no formula
    assert json.loads(exported(root, "json", q="nothing")) == []
    assert root.get(f"{LIST}export.xlsx").status_code == 404


def test_an_export_takes_a_query_for_each_batch(
    root: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _number in range(20):
        make_finished_run(steps=0)
    with django_assert_max_num_queries(100) as captured:
        assert len(json.loads(exported(root, "json"))) == 20
    assert len([each for each in captured if "payload" in each["sql"]]) <= 3


def test_ticked_runs_are_exported(root: Client) -> None:
    one, _other = make_finished_run(), make_finished_run()
    for form in ("csv", "json"):
        chosen = {"action": f"export_{form}", "_selected_action": [str(one.pk)]}
        response: Any = root.post(LIST, chosen)
        text = b"".join(response.streaming_content).decode()
        assert one.run_id in text
        assert _other.run_id not in text


@pytest.mark.django_db(transaction=True)
async def test_a_server_with_an_event_loop_sends_an_export_in_pieces() -> None:
    await sync_to_async(make_finished_run)(run_id="wfr_one")
    client = AsyncClient()
    await client.aforce_login(await sync_to_async(make_user)("root", superuser=True))
    response: Any = await client.get(f"{LIST}export.csv")
    pieces = [piece async for piece in response.streaming_content]
    assert len(pieces) == 2  # the names of the columns, and the batch
    assert b"wfr_one" in pieces[1]


def test_exports_and_live_rows_need_the_permission(client: Client) -> None:
    client.force_login(make_user("nobody"))
    for path in ("export.csv", "export.json", "live/"):
        assert client.get(f"{LIST}{path}").status_code == 403


def test_live_rows_are_those_that_were_asked_for_and_what_is_newer_is_counted(root: Client) -> None:
    since = timezone.now()
    old = make_run(status=Run.Status.SUCCESS, created_at=since - timedelta(hours=1))
    make_run(run_id="wfr_newer", status=Run.Status.RUNNING, created_at=since + timedelta(seconds=1))
    query = {"rows": f"{old.pk},nonsense", "since": since.isoformat(), "status": "running"}
    page = root.get(f"{LIST}live/", query).content.decode()
    assert str(old.pk) in page  # though it is not running any more
    assert "wfr_newer" not in page
    assert 'data-newer="1"' in page


def test_payloads_of_any_form_are_exported(root: Client) -> None:
    for number, payload in enumerate(['["a","b"]', '[{"a":1},2]', "[[1]]", "7", "null"]):
        make_run(run_id=f"wfr_{number}", payload=payload)
    table = {row["run_id"]: row["payload"] for row in csv.DictReader(io.StringIO(exported(root, "csv")))}
    assert table == {"wfr_0": "a,b", "wfr_1": '[{"a": 1}, 2]', "wfr_2": "[[1]]", "wfr_3": "7", "wfr_4": ""}


@pytest.mark.parametrize("path", ["export.csv", "live/"])
def test_queries_that_the_list_does_not_know_are_refused(root: Client, path: str) -> None:
    assert root.get(f"{LIST}{path}", {"colour": "red"}).status_code == 400


@pytest.mark.parametrize("since", ["2030-13-01T00:00:00Z", "soon", "0001-01-01T00:00:00+23:59", ""])
def test_live_rows_since_no_instant_are_none(root: Client, since: str) -> None:
    assert root.get(f"{LIST}live/", {"since": since}).status_code == 200

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from django_workflow import health
from django_workflow.testing.factories import make_delivery, make_run, make_worker

URL = "/workflows/health/"

pytestmark = pytest.mark.django_db


def asked(query: str = "") -> tuple[int, Any]:
    response = Client().get(URL + query)
    return response.status_code, response.json()


def test_a_site_with_a_worker_that_keeps_up_is_well(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    make_worker()
    make_delivery()  # due now, which is not late
    with django_assert_num_queries(3):
        assert asked() == (200, {"status": "pass", "checks": dict.fromkeys(health.CHECKS, "pass")})


def test_a_silent_worker_is_told(settings: Any) -> None:
    make_worker(heartbeat_at=timezone.now() - timedelta(minutes=2))
    code, found = asked()
    assert (code, found["status"]) == (503, "fail")
    assert found["checks"] == {"database": "pass", "worker": "fail", "overdue": "pass"}


def test_what_is_late_is_told_unless_a_key_holds_it() -> None:
    make_worker()
    old = timezone.now() - timedelta(minutes=5)
    make_delivery(due_at=old, flow_key="card")
    assert asked()[0] == 200
    make_delivery(due_at=old)
    code, found = asked()
    assert (code, found["checks"]["overdue"]) == (503, "fail")


def test_a_load_balancer_asks_for_what_concerns_it() -> None:
    assert asked("?check=database") == (200, {"status": "pass", "checks": {"database": "pass"}})
    assert asked("?check=database&check=worker")[0] == 503
    assert asked("?check=moon")[0] == 400


def test_without_a_database_it_answers_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(now: Any) -> bool:
        raise OperationalError("password=secret refused")

    monkeypatch.setattr(health, "CHECKS", dict.fromkeys(health.CHECKS, gone))
    code, found = asked()
    assert (code, set(found["checks"].values())) == (503, {"fail"})
    assert "secret" not in str(found)


def test_answers_are_not_kept_and_only_reading_is_allowed() -> None:
    response = Client().get(URL)
    assert "no-store" in response["Cache-Control"]
    assert Client().post(URL).status_code == 405


def test_nothing_of_a_run_is_told() -> None:
    make_worker(host="db-1.internal")
    make_run(run_id="wfr_secret", workflow="secret")
    assert "secret" not in Client().get(URL).content.decode()
    assert "internal" not in Client().get(URL).content.decode()

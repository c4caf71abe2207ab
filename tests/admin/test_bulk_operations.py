"""The list of bulk operations: what it tells, and to whom."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from django_workflow.control import bulk
from django_workflow.control.actions import ACTIONS
from django_workflow.models import BulkOperation, Run
from django_workflow.testing.factories import make_run
from tests.admin.builders import make_finished_run, make_user

LIST = "/admin/django_workflow/bulkoperation/"


@pytest.fixture
def ann(db: None) -> User:
    return make_user("ann", "view_run", "cancel_run")


def canceled_by(user: Any) -> BulkOperation:
    make_run(status=Run.Status.WAITING)
    make_finished_run()
    return bulk.start(ACTIONS["cancel"], Run.objects.all(), by=user, reason="closing down")


def names(client: Client) -> list[str]:
    return [operation.by_name for operation in client.get(LIST).context["cl"].result_list]


def test_an_operation_is_listed_with_what_came_of_it(client: Client, ann: User) -> None:
    operation = canceled_by(ann)
    client.force_login(ann)
    page = client.get(LIST).content.decode()
    for text in ("Cancel 1 run", "closing down", "1 done, 1 passed over", "2 of 2 runs", "ann", "Done"):
        assert text in page
    url = reverse("admin:django_workflow_run_operation", args=[operation.pk])
    assert url in page
    assert client.get(f"{LIST}{operation.pk}/change/")["Location"] == url
    assert LIST in client.get(url).content.decode()
    assert LIST in client.get("/admin/django_workflow/run/").content.decode()


def test_the_list_is_narrowed_to_an_action(client: Client, ann: User) -> None:
    canceled_by(ann)
    client.force_login(ann)
    assert names(client) == ["ann"]
    assert "Resume from the failed step" in client.get(LIST).content.decode()
    assert len(client.get(LIST, {"action": "cancel"}).context["cl"].result_list) == 1
    assert len(client.get(LIST, {"action": "resume"}).context["cl"].result_list) == 0


def test_those_of_others_need_a_permission(client: Client, ann: User) -> None:
    canceled_by(ann)
    foreign = canceled_by(None)
    url = reverse("admin:django_workflow_run_operation", args=[foreign.pk])
    client.force_login(ann)
    assert names(client) == ["ann"]
    assert client.get(url).status_code == 404
    client.force_login(make_user("chief", "view_run", "view_bulkoperation"))
    assert names(client) == ["", "ann"]
    assert "Code" in client.get(LIST).content.decode()
    assert client.get(url).status_code == 200
    client.force_login(make_user("stranger", "view_schedule"))
    assert client.get(LIST).status_code == 403


def test_nobody_adds_changes_or_deletes_one(client: Client, ann: User) -> None:
    operation = canceled_by(ann)
    client.force_login(make_user("root", superuser=True))
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{LIST}{operation.pk}/delete/", {"post": "yes"}).status_code == 403
    assert BulkOperation.objects.filter(pk=operation.pk).exists()


def test_the_number_of_queries_does_not_grow(
    client: Client, ann: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    client.force_login(make_user("root", superuser=True))
    for _number in range(5):
        canceled_by(ann)
    with django_assert_max_num_queries(8):
        client.get(LIST)

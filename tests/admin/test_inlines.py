"""Runs on the admin pages of other objects: the inline and the column."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.http import HttpRequest
from django.test import RequestFactory
from django.urls import path

from django_workflow.admin.inlines import SHOWN, WorkflowRunsInline, WorkflowStatusMixin
from django_workflow.admin.runs import RunAdmin
from django_workflow.engine.clock import current_clock
from django_workflow.models import Run
from django_workflow.testing.factories import make_run
from tests.admin.builders import make_user
from tests.effects.models import Effect

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


class EffectAdmin(WorkflowStatusMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("__str__", "workflow_status")
    inlines = (WorkflowRunsInline,)


site = admin.AdminSite()
site.register(Effect, EffectAdmin)
site.register(Run, RunAdmin)
urlpatterns = [path("admin/", site.urls)]


@pytest.fixture
def effects() -> list[Effect]:
    return [Effect.objects.create(run_id=str(number), step="x", atomic=False) for number in range(3)]


@pytest.fixture
def page() -> EffectAdmin:
    return EffectAdmin(Effect, site)


def make_for(effect: Effect, **values: Any) -> Run:
    kind = ContentType.objects.get_for_model(Effect)
    return make_run(content_type=kind, object_id=str(effect.pk), **values)


def asked(user: User) -> HttpRequest:
    request = RequestFactory().get("/")
    request.user = user
    return request


def shown(page: EffectAdmin, effect: Effect, user: User) -> str:
    answer = page.changeform_view(asked(user), str(effect.pk))
    return answer.render().content.decode()  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def boss() -> User:
    return make_user("boss", superuser=True)


def test_the_column_shows_the_newest_run(
    page: EffectAdmin, effects: list[Effect], boss: User, django_assert_num_queries: Any
) -> None:
    now = current_clock().now()
    make_for(effects[0], status="failed", created_at=now - timedelta(hours=1))
    newest = make_for(effects[0], status="running", created_at=now)
    make_for(effects[1], status="success")
    make_run(status="failed")
    ContentType.objects.get_for_model(Effect)
    with django_assert_num_queries(4):  # two counts, the objects, their runs
        found = {effect.pk: effect for effect in page.get_changelist_instance(asked(boss)).result_list}
    cells = [page.workflow_status(found[effect.pk]) for effect in effects]
    assert "Running" in str(cells[0])
    assert str(newest.pk) in str(cells[0])
    assert "Success" in str(cells[1])
    assert cells[2] is None


def test_the_column_is_empty_for_whom_may_not_see_runs(page: EffectAdmin, effects: list[Effect]) -> None:
    make_for(effects[0])
    user = make_user("clerk")
    assert [page.workflow_status(one) for one in page.get_changelist_instance(asked(user)).result_list] == [None] * 3


def test_the_inline_shows_an_objects_runs_and_no_way_to_change_them(
    page: EffectAdmin, effects: list[Effect], boss: User
) -> None:
    run = make_for(effects[0], status="waiting", workflow="fulfil", why="Waits for somebody")
    make_for(effects[1], workflow="of-another")
    html = shown(page, effects[0], boss)
    assert "fulfil" in html
    assert "Waits for somebody" in html
    assert f"/run/{run.pk}/change/" in html
    assert "of-another" not in html
    assert "Open the list" not in html
    assert 'name="django_workflow-run-content_type-object_id-0-DELETE"' not in html


def test_the_inline_shows_the_newest_of_many(
    page: EffectAdmin, effects: list[Effect], boss: User, django_assert_max_num_queries: Any
) -> None:
    now = current_clock().now()
    for number in range(SHOWN + 5):
        make_for(effects[0], workflow=f"number-{number:02}", created_at=now + timedelta(seconds=number))
    with django_assert_max_num_queries(12):
        html = shown(page, effects[0], boss)
    assert f"Showing {SHOWN} of {SHOWN + 5}." in html
    assert f"number-{SHOWN + 4:02}" in html
    assert "number-04" not in html
    assert f"?q={effects[0].pk}" in html


def test_the_inline_is_not_there_for_whom_may_not_see_runs(page: EffectAdmin, effects: list[Effect]) -> None:
    make_for(effects[0], workflow="fulfil")
    clerk = make_user("clerk")
    assert not page.get_inline_instances(asked(clerk), effects[0])

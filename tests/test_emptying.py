from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User

from django_workflow.models import Run
from django_workflow.testing.factories import make_run, make_step
from tests.effects.models import Effect
from tests.emptying import MADE_BY_MIGRATIONS, empty

pytestmark = [pytest.mark.every_database, pytest.mark.django_db(transaction=True)]


def test_nothing_that_was_written_is_left_and_permissions_stay() -> None:
    before = Permission.objects.count()
    user = User.objects.create(username="somebody")
    user.user_permissions.add(Permission.objects.get(codename="view_run"))  # a table without a model of its own
    make_step(make_run(status=Run.Status.RUNNING))
    Effect.objects.create(run_id="wfr_1", step="one", atomic=False)
    empty("default")
    models = [model for model in apps.get_models(include_auto_created=True) if model._meta.managed]
    full = {model._meta.db_table for model in models if model._default_manager.exists()}
    assert full <= MADE_BY_MIGRATIONS
    assert Permission.objects.count() == before > 0

"""One run that has everything which a page can show, and a row of every other model with an admin."""

from __future__ import annotations

import json
from datetime import timedelta

from django.contrib.auth.models import User
from django.utils import timezone

from django_workflow.models import FlowKey, Run, Step
from django_workflow.testing.factories import make_delivery, make_run, make_step, make_waiter, make_worker
from tests.admin.builders import make_attempt, make_dead_letter, make_event, make_result, make_schedule
from tests.security.hostile import AS_JSON, HOSTILE, SHORT, spoil

RUN = "wfr_hostile"


def make_world(owner: User | None = None, *, hostile: bool = False) -> Run:
    """With `hostile` every text that somebody outside can choose is."""
    now = timezone.now()
    run = make_run(run_id=RUN, status=Run.Status.RETRYING, payload='{"a": 1}', owner=owner, created_at=now)
    rows = [
        run,
        make_result(make_step(run, name="reserve"), {"total": 1}),
        make_step(run, name="charge", status=Step.Status.RETRYING, finished_at=None, error="boom"),
        make_step(run, name="approve", step_type="Wait", status=Step.Status.WAITING, finished_at=None),
        make_waiter(run, event_id="approve-42", step_name="approve"),
        make_attempt(run, response_body="no", response_headers='{"X": ["1"]}'),
        make_event(run, type="stepFail", stepName="charge"),
        make_delivery(run, due_at=now + timedelta(hours=1), worker=make_worker()),
        make_dead_letter(make_run(run_id="wfr_failed", status=Run.Status.FAILED, error="boom", finished_at=now)),
        make_schedule(payload='{"a": 1}'),
        FlowKey.objects.create(key="card", parallelism=1),
    ]
    if hostile:
        for row in rows:
            spoil(row)
        Run.objects.update(labels=f",{SHORT},vip,")
        entry = run.journal.get()
        entry.body = json.dumps({**json.loads(entry.body), "stepName": HOSTILE, "out": AS_JSON})
        entry.save()
        run.refresh_from_db()
    return run

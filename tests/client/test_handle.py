"""Waiting for a run: what the row says becomes a result or an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction

from django_workflow.client import handle as handle_module
from django_workflow.client.client import Client
from django_workflow.client.handle import RunFailed, RunHandle, _pauses
from django_workflow.errors import RunEnded, WorkflowError
from django_workflow.models import Run


class FakeClient:
    def __init__(self) -> None:
        self.cancelled: list[list[str]] = []

    def cancel(self, run_ids: list[str]) -> int:
        self.cancelled.append(run_ids)
        return 1

    async def acancel(self, run_ids: list[str]) -> int:
        self.cancelled.append(run_ids)
        return 0


class Rows:
    """Stands for the Run model: gives its rows one after another, the last one for ever."""

    def __init__(self, *rows: Any) -> None:
        self.rows = list(rows)
        self.looks = 0
        self._default_manager = self

    def using(self, alias: str) -> Rows:
        return self

    def filter(self, run_id: str) -> Rows:
        return self

    def get(self, run_id: str) -> Any:
        return self.first()

    def first(self) -> Any:
        self.looks += 1
        return self.rows.pop(0) if len(self.rows) > 1 else self.rows[0]


def row(status: str, *, result: str | None = None, error: str = "") -> Any:
    return SimpleNamespace(
        status=status,
        is_finished=status in ("success", "failed", "canceled"),
        result=result,
        error=error,
        workflow="checkout",
    )


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> list[Rows]:
    holder: list[Rows] = []
    monkeypatch.setattr(handle_module, "_run_model", lambda: holder[0])
    monkeypatch.setattr(handle_module, "FIRST_PAUSE_SECONDS", 0.001)
    return holder


def make_handle(**options: Any) -> RunHandle:
    return RunHandle("wfr_1", cast(Client, FakeClient()), **options)


def test_wait_gives_the_result_once_the_run_is_over(model: list[Rows]) -> None:
    model.append(Rows(row("queued"), row("running"), row("success", result='{"a":1}')))
    handle = make_handle()
    assert handle.wait(timeout=5) == {"a": 1}
    assert model[0].looks == 3
    assert handle.run.status == "success"  # the row as it is now


async def test_waiting_for_no_run_is_an_error_at_once(model: list[Rows]) -> None:
    model.append(Rows(None))
    with pytest.raises(RunEnded, match="There is no run wfr_1: its transaction was rolled back") as raised:
        make_handle().wait()
    assert raised.value.run_id == "wfr_1"
    with pytest.raises(RunEnded):
        await make_handle().await_run()


def test_the_row_of_a_hosted_run_may_come_later(model: list[Rows], settings: Any) -> None:
    settings.DJANGO_WORKFLOW = {"engine": "qstash"}
    model.append(Rows(None, row("success", result="1")))
    assert make_handle().wait(timeout=5) == 1


@pytest.mark.django_db
def test_no_run_has_no_row() -> None:
    with pytest.raises(Run.DoesNotExist, match="There is no run wfr_1"):
        _ = make_handle().run


async def test_a_handle_in_async_code_tells_its_twins() -> None:
    with pytest.raises(SynchronousOnlyOperation, match=r"await handle\.await_run\(\)"):
        make_handle().wait()


def test_wait_gives_none_for_no_result(model: list[Rows]) -> None:
    model.append(Rows(row("success")))
    assert make_handle().wait() is None


def test_the_decoder_makes_the_result(model: list[Rows]) -> None:
    model.append(Rows(row("success", result="[1]")))
    assert make_handle(decode=lambda body: ("decoded", body)).wait() == ("decoded", b"[1]")


@pytest.mark.parametrize(("status", "words"), [("failed", "failed: card refused"), ("canceled", "was canceled")])
def test_wait_raises_what_the_run_says(model: list[Rows], status: str, words: str) -> None:
    model.append(Rows(row(status, error="card refused")))
    with pytest.raises(RunFailed, match=words) as caught:
        make_handle().wait()
    assert (caught.value.run_id, caught.value.status, caught.value.error) == ("wfr_1", status, "card refused")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("sleeping", "It goes on"),
        ("queued", r"It has not started: is a worker running \(manage\.py workflow_worker\)\?"),
    ],
)
def test_wait_ends_with_its_timeout(model: list[Rows], status: str, words: str) -> None:
    model.append(Rows(row(status)))
    with pytest.raises(TimeoutError, match=r"wfr_1 was not over after 0\.02 s\. " + words):
        make_handle().wait(timeout=0.02)


def test_a_timeout_of_zero_looks_once(model: list[Rows]) -> None:
    model.append(Rows(row("success", result="1")))
    assert make_handle().wait(timeout=0) == 1


@pytest.mark.django_db
def test_wait_inside_a_transaction_is_an_error_at_once(model: list[Rows]) -> None:
    model.append(Rows(row("queued")))
    with transaction.atomic(), pytest.raises(WorkflowError, match=r"transaction\.atomic"):
        make_handle().wait(timeout=5)


async def test_await_run_is_wait_for_async_code(model: list[Rows]) -> None:
    model.append(Rows(row("queued"), row("success", result="7")))
    assert await make_handle().await_run(timeout=5) == 7
    model[:] = [Rows(row("queued"))]
    with pytest.raises(TimeoutError):
        await make_handle().await_run(timeout=0.01)


async def test_cancel_says_whether_there_was_anything_to_cancel() -> None:
    handle = make_handle()
    assert handle.cancel() is True
    assert await handle.acancel() is False
    assert cast(FakeClient, handle._client).cancelled == [["wfr_1"], ["wfr_1"]]


def test_a_handle_reads_as_its_id() -> None:
    assert str(make_handle()) == "wfr_1"
    assert repr(make_handle(deduplicated=True)) == "<RunHandle wfr_1 (deduplicated)>"


def test_pauses_grow_up_to_a_second() -> None:
    pauses = _pauses(None)
    seen = [next(pauses) for _ in range(20)]
    assert seen == sorted(seen)
    assert seen[0] == handle_module.FIRST_PAUSE_SECONDS
    assert seen[-1] == 1.0

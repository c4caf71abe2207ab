"""What both contexts share: the facts of a run. The steps are in `context` and `async_context`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from django_workflow.errors import StepError
from django_workflow.protocol.headers import context_headers
from django_workflow.replay.executor import Executor
from django_workflow.replay.port import PROGRESS_EVENT
from django_workflow.replay.step_call import StepCall

if TYPE_CHECKING:
    from django_workflow.authoring.decorator import Workflow

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetails:
    """What a delivery says about its run. `headers` are all of the request's, `created_at` is Unix milliseconds.

    `first_run_id` is the first run of a chain of resumes; empty: the run itself.
    """

    run_id: str
    url: str = ""
    payload: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    retried: int = 0
    created_at: int | None = None
    first_run_id: str = ""


class BaseContext(Generic[T]):
    """The facts of a run, the same in every call of the workflow."""

    def __init__(self, executor: Executor, workflow: Workflow[Any, Any], details: RunDetails) -> None:
        self._executor = executor
        self._workflow = workflow
        self._details = details
        self._payload: Any = _UNREAD
        self._headers: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of run {self.workflow_run_id} of {self._workflow.name!r}>"

    @property
    def request_payload(self) -> T:
        """What the run was triggered with, as the workflow's payload type. Raises PayloadInvalid if it does not fit."""
        if self._payload is _UNREAD:
            self._payload = self._workflow.decode_payload(self._details.payload)
        return self._payload  # type: ignore[no-any-return]

    @property
    def workflow_run_id(self) -> str:
        """The run's id: `wfr_...`."""
        return self._details.run_id

    @property
    def workflow_run_created_at(self) -> datetime | None:
        """When the run was created (aware, UTC); None when the engine does not say."""
        created_at = self._details.created_at
        return None if created_at is None else datetime.fromtimestamp(created_at / 1000, tz=UTC)

    @property
    def url(self) -> str:
        """The workflow's own URL, as the engine calls it."""
        return self._details.url

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that the run was triggered with, and those of this call. Names in any letter case."""
        if self._headers is None:
            self._headers = context_headers(self._details.headers)
        return self._headers

    @property
    def labels(self) -> tuple[str, ...]:
        """The run's labels."""
        return self._details.labels

    @property
    def label(self) -> str | None:
        """The run's first label; None when it has none."""
        return self._details.labels[0] if self._details.labels else None

    @property
    def retried(self) -> int:
        """How often this call was tried before: 0 on the first attempt."""
        return self._details.retried

    @property
    def idempotency_key(self) -> str:
        """A key for what the running step does elsewhere: the same on every attempt of it, and after a resume.

        Read it inside a step's function and hand it to services that know such keys. Raises StepError elsewhere.
        """
        current = self._executor.current
        if current is None:
            raise StepError(
                "ctx.idempotency_key belongs to a step: read it inside a step's function, such as "
                'ctx.run("charge", lambda: charge(order, key=ctx.idempotency_key)).'
            )
        return current.idempotency_key

    def cancel(self) -> NoReturn:
        """End the run as canceled, here and now. Works between steps and inside a step's function.

        It leaves by an exception that is no Exception (like a step does), so nothing after it runs.
        """
        self._executor.cancel()

    def _progress_event(self, done: float, total: float) -> tuple[str, dict[str, Any]]:
        data: dict[str, Any] = {"done": done, "total": total}
        if self._executor.current is not None:
            data["stepName"] = self._executor.current.name
        return PROGRESS_EVENT, data


def checked_calls(calls: tuple[Any, ...]) -> tuple[StepCall[Any], ...]:
    """Raises StepError for what is no step, such as the result of `ctx.run(...)`."""
    for call in calls:
        if not isinstance(call, StepCall):
            raise StepError(
                f"ctx.parallel() takes steps, got a {type(call).__name__}. Describe each with `step`: "
                'ctx.parallel(step.run("a", f), step.run("b", g)).'
            )
    return calls


_UNREAD = object()

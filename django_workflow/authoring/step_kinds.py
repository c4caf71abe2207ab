"""The kinds of steps: what each asks the engine for, and how its result is read.

Made by the functions of `steps` and by the methods of the context; run and read by the executor.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import datetime
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from django_workflow.authoring import reading
from django_workflow.authoring.results import (
    NotifyResult,
    WaitResult,
    Webhook,
    WebhookResult,
)
from django_workflow.authoring.secrets import return_secrets, secret_paths
from django_workflow.authoring.webhooks import webhook_url
from django_workflow.client.client import get_client
from django_workflow.client.options import Duration
from django_workflow.errors import StepError
from django_workflow.protocol.durations import format_duration, to_seconds
from django_workflow.protocol.identifiers import new_event_id
from django_workflow.protocol.steps import Step, StepType
from django_workflow.replay.outcome import StepSubmission, WaitSubmission
from django_workflow.replay.step_call import LocalCall, StepCall, check_name, check_text
from django_workflow.replay.values import (
    Decode,
    decode_json,
    decoder_for,
    encode_result,
    encode_value,
    read_result,
    return_decoder,
)

if TYPE_CHECKING:
    pass

R = TypeVar("R")
T = TypeVar("T")


class RunStep(LocalCall[R]):
    __slots__ = ("_atomic", "args", "function", "kwargs")

    step_type: ClassVar[StepType] = StepType.RUN

    def __init__(
        self,
        name: str,
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        atomic: bool | None,
    ) -> None:
        if type(name) is not str or not name:
            check_name(name)
        self.name = name
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self._atomic = atomic

    @property
    def atomic(self) -> bool | None:
        return self._atomic

    @property
    def is_async(self) -> bool:
        function = self._callable()
        return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(type(function), "__call__", None)  # noqa: B004 - not whether, but which
        )

    def work(self) -> Any:
        return self._callable()(*self.args, **self.kwargs)

    def encode(self, value: Any, limit: int | None) -> str:
        return encode_result(value, self._decoder(), f"The result of step {self.name!r}", limit).decode()

    def result_step(self, step_id: int, concurrent: int, out: str | None = None) -> Step:
        return Step(
            step_id=step_id,
            step_name=self.name,
            step_type=self.step_type,
            out=out,
            concurrent=concurrent,
            secret=return_secrets(self._callable()),
        )

    def read(self, step: Step) -> R:
        out = step.out
        if out is None:
            return None  # type: ignore[return-value]
        function = self.function
        decode = return_decoder(function) if type(function) is FunctionType else self._decoder()
        try:
            return decode(out)  # type: ignore[no-any-return]
        except (msgspec.MsgspecError, ValueError, TypeError):
            # Once more, slowly, to say what is wrong.
            return read_result(out, decode, f"The result of step {self.name!r}")  # type: ignore[no-any-return]

    def _decoder(self) -> Decode:
        return return_decoder(self._callable())

    def _callable(self) -> Callable[..., Any]:
        """The function itself. Of a task of `django.tasks` it is the one that it was made from."""
        function = self.function
        if not callable(function) and not isinstance(function, functools.partial):
            if not callable(getattr(function, "func", None)):
                raise StepError(
                    f"Step {self.name!r} was given a {type(function).__name__} ({function!r}), not a function. Write "
                    f'ctx.run("{self.name}", function, argument), without calling the function.'
                )
            if getattr(function, "takes_context", False):
                raise StepError(
                    f"Step {self.name!r} was given the task {function.name!r}, which takes a task context. Steps have "
                    "none: pass a function that does without."
                )
            function = function.func
        return function  # type: ignore[no-any-return]


class SleepStep(StepCall[None]):
    __slots__ = ("duration",)

    step_type: ClassVar[StepType] = StepType.SLEEP_FOR

    def __init__(self, name: str, duration: Duration) -> None:
        check_name(name)
        self.name = name
        self.duration = duration

    def plan(self, target: int, concurrent: int) -> StepSubmission:
        # Inside a group the plan waits; the result follows without a delay.
        return StepSubmission(self._step(0, concurrent, target), delay=self._seconds())

    def submission(self, step_id: int, concurrent: int) -> StepSubmission:
        step = self._step(step_id, concurrent)
        return StepSubmission(step, delay=self._seconds() if concurrent == 1 else None)

    def read(self, step: Step) -> None:
        return None

    def _seconds(self) -> float:
        return to_seconds(self.duration)

    def _step(self, step_id: int, concurrent: int, target: int | None = None) -> Step:
        return Step(
            step_id=step_id,
            step_name=self.name,
            step_type=self.step_type,
            concurrent=concurrent,
            target_step=target,
            sleep_for=_whole(self._seconds()),
        )


class SleepUntilStep(StepCall[None]):
    __slots__ = ("instant",)

    step_type: ClassVar[StepType] = StepType.SLEEP_UNTIL

    def __init__(self, name: str, instant: datetime | float | str) -> None:
        check_name(name)
        self.name = name
        self.instant = instant

    def plan(self, target: int, concurrent: int) -> StepSubmission:
        return StepSubmission(self._step(0, concurrent, target), not_before=self._unix_seconds())

    def submission(self, step_id: int, concurrent: int) -> StepSubmission:
        step = self._step(step_id, concurrent)
        return StepSubmission(step, not_before=self._unix_seconds() if concurrent == 1 else None)

    def read(self, step: Step) -> None:
        return None

    def _unix_seconds(self) -> float:
        return _whole(unix_seconds(self.instant))

    def _step(self, step_id: int, concurrent: int, target: int | None = None) -> Step:
        return Step(
            step_id=step_id,
            step_name=self.name,
            step_type=self.step_type,
            concurrent=concurrent,
            target_step=target,
            sleep_until=self._unix_seconds(),
        )


class AnyWait(StepCall[R]):
    """What waits for events and for webhooks share."""

    __slots__ = ("event_id", "message", "timeout")

    def __init__(self, name: str, event_id: str, timeout: Duration, message: str | None = None) -> None:
        check_name(name)
        self.name = name
        self.event_id = event_id
        self.timeout = timeout
        self.message = message

    @property
    def secret(self) -> tuple[str, ...]:
        """The paths of what is not shown of the event's data."""
        return ()

    def plan(self, target: int, concurrent: int) -> StepSubmission:
        step = Step(
            step_id=0,
            step_name=self.name,
            step_type=self.step_type,
            concurrent=concurrent,
            target_step=target,
            wait_event_id=check_id(self.event_id, "event id"),
            timeout=format_duration(to_seconds(self.timeout)),
        )
        return StepSubmission(step)

    def submission(self, step_id: int, concurrent: int) -> WaitSubmission:
        step = Step(
            step_id=step_id,
            step_name=self.name,
            step_type=self.step_type,
            concurrent=concurrent,
            secret=self.secret,
        )
        event_id = check_id(self.event_id, "event id")
        return WaitSubmission(step, event_id, to_seconds(self.timeout), self.message)


class WaitStep(AnyWait[WaitResult[Any]]):
    __slots__ = ("type",)

    step_type: ClassVar[StepType] = StepType.WAIT

    def __init__(self, name: str, event_id: str, timeout: Duration, type: Any, message: str | None) -> None:
        super().__init__(name, event_id, timeout, message)
        self.type = type

    @property
    def secret(self) -> tuple[str, ...]:
        return () if self.type is None else secret_paths(self.type)

    def read(self, step: Step) -> WaitResult[Any]:
        return reading.read_wait(step, decode_json if self.type is None else decoder_for(self.type))


class WaitForWebhookStep(AnyWait[WebhookResult]):
    __slots__ = ()

    step_type: ClassVar[StepType] = StepType.WAIT_FOR_WEBHOOK

    def read(self, step: Step) -> WebhookResult:
        return reading.read_webhook_request(step)


class NotifyStep(LocalCall[NotifyResult]):
    __slots__ = ("data", "event_id", "run_id")

    step_type: ClassVar[StepType] = StepType.NOTIFY

    def __init__(self, name: str, event_id: str, data: Any, run_id: str | None) -> None:
        check_name(name)
        self.name = name
        self.event_id = event_id
        self.data = data
        self.run_id = run_id

    def work(self) -> Any:
        check_id(self.event_id, "event id")
        if self.run_id is not None:
            check_id(self.run_id, "workflow run id")
        # The client derives the deduplication id from the step that it finds running.
        return get_client().notify(self.event_id, self.data, run_id=self.run_id)

    def encode(self, value: Any, limit: int | None) -> str:
        data = self.data.decode("utf-8", "replace") if isinstance(self.data, bytes) else self.data
        out = {"eventId": self.event_id, "eventData": data, "notifyResponse": value}
        return encode_value(out, f"The result of step {self.name!r}", limit=limit).decode()

    def read(self, step: Step) -> NotifyResult:
        return reading.read_notify(step)


class CreateWebhookStep(LocalCall[Webhook]):
    __slots__ = ("run_id",)

    step_type: ClassVar[StepType] = StepType.CREATE_WEBHOOK

    def __init__(self, name: str, run_id: str) -> None:
        check_name(name)
        self.name = name
        self.run_id = run_id

    def work(self) -> Webhook:
        event_id = new_event_id()
        return Webhook(webhook_url(self.run_id, event_id), event_id)

    def encode(self, value: Webhook, limit: int | None) -> str:
        out = {"webhookUrl": value.webhook_url, "eventId": value.event_id}
        return encode_value(out, f"The result of step {self.name!r}", limit=limit).decode()

    def read(self, step: Step) -> Webhook:
        return reading.read_webhook(step)


def check_id(value: object, what: str) -> str:
    """Raises StepError for an id that is empty, no text, or not to be stored."""
    if not isinstance(value, str) or not value:
        raise StepError(f"{what.capitalize()} cannot be empty. Received {value!r}.")
    check_text(value, what)
    return value


def unix_seconds(instant: datetime | float | str) -> float:
    """Unix seconds of an aware datetime, a number, or an ISO 8601 text with a zone. Raises StepError for others."""
    if isinstance(instant, str):
        try:
            instant = datetime.fromisoformat(instant)
        except ValueError as error:
            raise StepError(
                f"{instant!r} is no instant: give an aware datetime or ISO 8601 text with a zone."
            ) from error
    if isinstance(instant, datetime):
        if instant.tzinfo is None or instant.utcoffset() is None:
            raise StepError(
                f"{instant!r} has no time zone, so it is no certain instant. Use timezone.now() or "
                "timezone.make_aware()."
            )
        return instant.timestamp()
    if isinstance(instant, bool) or not isinstance(instant, int | float):
        raise StepError(f"An instant cannot be a {type(instant).__name__} ({instant!r}). Give an aware datetime.")
    return instant


def _whole(number: float) -> float:
    """An int when it is one: 30 is written as 30, not as 30.0."""
    return int(number) if number == int(number) else number

"""`@workflow` and the Workflow object: a function with a name, a payload type and options.

    @workflow(retries=5)
    def fulfil_order(ctx: WorkflowContext[OrderPlaced]) -> Receipt: ...

    handle = fulfil_order.trigger(OrderPlaced(42, "a@b.c"))

Triggering encodes the payload and hands it to the client. `serve` finds the workflow by name in the registry and calls
its function.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar, Unpack, get_args, get_origin, overload

from django.db.models import Model

from django_workflow.authoring.async_context import AsyncWorkflowContext
from django_workflow.authoring.context import WorkflowContext
from django_workflow.authoring.context_base import BaseContext
from django_workflow.authoring.middleware import Middleware, check_sync
from django_workflow.authoring.options import (
    DECLARED_ONLY,
    DeclaredOptions,
    FailureFunction,
    RunOptions,
    WorkflowOptions,
)
from django_workflow.authoring.payloads import PayloadCodec
from django_workflow.authoring.registry import registry
from django_workflow.authoring.secrets import return_secrets, secret_paths
from django_workflow.client.client import Trigger, get_client, with_default_retries
from django_workflow.client.handle import RunHandle
from django_workflow.client.messages import init_message
from django_workflow.client.options import TriggerOptions
from django_workflow.client.urls import workflow_url
from django_workflow.conf import get_settings
from django_workflow.errors import Misconfigured
from django_workflow.protocol.publish import Message
from django_workflow.protocol.secrets import PAYLOAD, RESULT, below
from django_workflow.replay.values import ANY, decoder_for, resolve_annotation, return_type

T = TypeVar("T")
R = TypeVar("R")

_NAME = re.compile(r"[^\s/?#%\x00-\x1f]{1,255}")


class Workflow(Generic[T, R]):
    """A workflow: `T` is its payload, `R` what it returns. Made by `@workflow`, started by `trigger`.

    `name` is its own name and the end of its URL, `aliases` are names that it had before, for runs in flight.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        aliases: Iterable[str] = (),
        payload: Any = ANY,
        options: WorkflowOptions | None = None,
    ) -> None:
        _check_function(function, name)
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name or function.__name__
        self.aliases = (aliases,) if isinstance(aliases, str) else tuple(aliases)
        self.options = options or WorkflowOptions()
        self.is_async = inspect.iscoroutinefunction(function)
        self._payload = payload
        for each in (self.name, *self.aliases):
            if not _NAME.fullmatch(each) or each == "-":
                raise Misconfigured(
                    f"Invalid workflow name found: {each!r}. It stands in a URL: use no blanks and none of / ? # %."
                )
        if not self.is_async:
            check_sync(self.options.middlewares, self.name)

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r} ({self.function.__module__})>"

    def __call__(self, context: BaseContext[Any] | None = None) -> Any:
        """Run the function inside another workflow, with its context: the steps become those of that workflow."""
        if not isinstance(context, BaseContext):
            raise TypeError(
                f"{self.name}(...) does not start a run: write {self.name}.trigger(payload). Only another workflow may "
                "call it, with its own context."
            )
        return self.function(context)

    # What it declares

    @property
    def on_failure(self) -> FailureFunction | None:
        return self.options.on_failure

    @property
    def middlewares(self) -> tuple[Middleware, ...]:
        return self.options.middlewares

    @property
    def schedule(self) -> str | None:
        return self.options.schedule

    @property
    def timezone(self) -> str:
        return self.options.timezone

    @cached_property
    def payload_type(self) -> Any:
        """The declared type of its payload; `values.ANY` when there is none.

        Looked up when first needed, so the type may be defined further down. Raises Misconfigured when it is nowhere.
        """
        found = _payload_type(self.function, self.name) if self._payload is ANY else self._payload
        if isinstance(found, type) and issubclass(found, Model):
            raise Misconfigured(
                f"The payload of workflow {self.name!r} is declared as {found.__name__}, which is a model: rows change "
                "while a run waits, and have no form in JSON. Take the primary key, and load the row in a step."
            )
        return found

    @cached_property
    def return_type(self) -> Any:
        """The declared type of its result; `values.ANY` when there is none."""
        return return_type(self.function)

    @cached_property
    def secret(self) -> tuple[str, ...]:
        """The paths of what its payload's and its result's types mark as secret, under `payload` and `result`."""
        return below(PAYLOAD, secret_paths(self.payload_type)) + below(RESULT, return_secrets(self.function))

    @cached_property
    def _codec(self) -> PayloadCodec:
        return PayloadCodec(self.payload_type, self.name)

    def encode_payload(self, payload: Any) -> bytes:
        """The payload as JSON, checked against its type and the size limit. Raises PayloadInvalid."""
        return self._codec.encode(payload, get_settings().max_payload_bytes)

    def decode_payload(self, raw: bytes) -> Any:
        """The payload as its type. Raises PayloadInvalid, whose `field` is the path of the bad value."""
        return self._codec.decode(raw)

    # Starting runs

    def using(self, **options: Unpack[RunOptions]) -> Workflow[T, R]:
        """The same workflow with other options for what it triggers: `checkout.using(delay="1h").trigger(order)`.

        Takes delay, not_before, label, workflow_run_id, retries, retry_delay, timeout, flow_control, headers, redact,
        failure_url, for_object, owner and trigger_kind.
        """
        fixed = [name for name in (*DECLARED_ONLY, "failure_function") if name in options]
        if fixed:
            raise Misconfigured(
                f"{', '.join(fixed)} of workflow {self.name!r} cannot differ from run to run: say it in @workflow()."
            )
        bound = copy.copy(self)
        bound.options = self.options.using(**options)
        return bound

    def trigger(self, payload: T | Any = None, *, for_object: Model | None = None) -> RunHandle:
        """Start a run; gives its handle (`.id .run .wait() .cancel()`).

        `payload` is an object of the payload's type, or plain data that fits it. Inside `transaction.atomic()` the run
        starts when the transaction commits, and never when it rolls back. Inside a step, a step that is tried again
        starts no second run. `for_object` is an object of yours that the run is for; it finds the run again. Raises
        PayloadInvalid before anything is written.
        """
        options = self._options(for_object)
        return get_client().trigger(self.name, self.encode_payload(payload), options, decode=self._decode)

    async def atrigger(self, payload: T | Any = None, *, for_object: Model | None = None) -> RunHandle:
        """`trigger` for async code."""
        options = self._options(for_object)
        return await get_client().atrigger(self.name, self.encode_payload(payload), options, decode=self._decode)

    def trigger_many(self, payloads: Iterable[T | Any]) -> list[RunHandle]:
        """Start a run for each payload: all of them, or none. Gives the handles in their order."""
        return get_client().trigger_many(self._triggers(payloads), decode=self._decode)

    async def atrigger_many(self, payloads: Iterable[T | Any]) -> list[RunHandle]:
        """`trigger_many` for async code."""
        return await get_client().atrigger_many(self._triggers(payloads), decode=self._decode)

    def scheduled_message(self, run_id: str) -> Message:
        """The message that starts the run `run_id` without a payload: what the workflow's schedule sends."""
        return init_message(run_id=run_id, url=workflow_url(self.name), body=b"", options=self._options())

    def _options(self, for_object: Model | None = None) -> TriggerOptions:
        options = self.options if for_object is None else self.options.using(for_object=for_object)
        return with_default_retries(replace(options.for_trigger(), secret=self.secret))

    def _triggers(self, payloads: Iterable[Any]) -> list[Trigger]:
        options = self._options()
        triggers = [Trigger(self.name, self.encode_payload(payload), options) for payload in payloads]
        if options.run_id is not None and len(triggers) > 1:
            raise Misconfigured(
                f"{len(triggers)} runs of {self.name!r} cannot share the id {options.run_id!r}: trigger them singly."
            )
        return triggers

    def _decode(self, raw: bytes) -> Any:
        return decoder_for(self.return_type)(raw)


class WorkflowDecorator(Protocol):
    """What `@workflow(...)` gives: it makes a Workflow of a function."""

    @overload
    def __call__(self, function: Callable[[AsyncWorkflowContext[T]], Coroutine[Any, Any, R]], /) -> Workflow[T, R]: ...
    @overload
    def __call__(self, function: Callable[[WorkflowContext[T]], R], /) -> Workflow[T, R]: ...


@overload
def workflow(function: Callable[[AsyncWorkflowContext[T]], Coroutine[Any, Any, R]], /) -> Workflow[T, R]: ...
@overload
def workflow(function: Callable[[WorkflowContext[T]], R], /) -> Workflow[T, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    aliases: Iterable[str] = (),
    payload: Any = ANY,
    **options: Unpack[DeclaredOptions],
) -> WorkflowDecorator: ...
def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    aliases: Iterable[str] = (),
    payload: Any = ANY,
    **options: Unpack[DeclaredOptions],
) -> Any:
    """Make a function a workflow, and register it.

    `name`: another name than the function's; it is part of the workflow's URL. `aliases`: names it had before.
    `payload`: the payload's type when the annotation `WorkflowContext[...]` does not say it, or a serializer class.
    Options: retries, retry_delay, timeout, delay, not_before, label, flow_control, headers, redact, on_failure,
    failure_url, middlewares, schedule, timezone, steps_per_call, atomic_steps, retention; see `WorkflowOptions`.
    """

    def make(function: Callable[..., Any]) -> Workflow[Any, Any]:
        made: Workflow[Any, Any] = Workflow(
            function, name=name, aliases=aliases, payload=payload, options=WorkflowOptions().using(**options)
        )
        registry.register(made)
        return made

    return make if function is None else make(function)


def _check_function(function: Any, name: str | None) -> None:
    """Raises Misconfigured for what cannot be called as a workflow, with a context and nothing else."""
    if not callable(function):
        hint = f" To name it, write @workflow(name={function!r})." if isinstance(function, str) else ""
        raise Misconfigured(f"A workflow is made of a function, not of {function!r}.{hint}")
    if not (name or getattr(function, "__name__", None)):
        raise Misconfigured(f"{function!r} has no name of its own: give one, @workflow(name=...).")
    which = repr(name or function.__name__)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise Misconfigured(
            f"Workflow {which} is a generator, so calling it would run nothing. Take out its `yield`: steps are calls "
            "of ctx, and their results are what these calls give."
        )
    try:
        # Not that of a function which a decorator has wrapped: it may be the decorator that gives the rest.
        signature = inspect.signature(function, follow_wrapped=False)
    except ValueError:  # something in C has none
        return
    try:
        signature.bind(None)
    except TypeError:
        raise Misconfigured(
            f"Workflow {which} takes {signature}, but is called with its context alone. Write a function outside of "
            "classes that takes one argument, ctx; what a run works on comes as ctx.request_payload."
        ) from None


def _payload_type(function: Callable[..., Any], name: str) -> Any:
    """`T` of the annotation `WorkflowContext[T]` of the function's first parameter."""
    parameters = list(inspect.signature(function, follow_wrapped=True).parameters.values())
    if not parameters or parameters[0].annotation is inspect.Parameter.empty:
        return ANY
    # The context is often imported for type checkers only.
    known = {"WorkflowContext": WorkflowContext, "AsyncWorkflowContext": AsyncWorkflowContext}
    try:
        annotation = resolve_annotation(parameters[0].annotation, function, known)
    except NameError as error:
        raise Misconfigured(
            f"The payload type of workflow {name!r} cannot be found: {error}. Import it outside of "
            "`if TYPE_CHECKING:`, or pass it as @workflow(payload=...)."
        ) from error
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, BaseContext):
        (argument,) = get_args(annotation)
        return ANY if argument is Any or isinstance(argument, TypeVar) else argument
    return ANY

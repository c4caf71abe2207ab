"""Hooks around a run and around its steps.

    class LogSteps(Middleware):
        def before_execution(self, ctx, step_name):
            logger.info("%s: %s", ctx.workflow_run_id, step_name)

    @workflow(middlewares=[LogSteps])

A hook runs beside the work, never in its way: what it raises is logged and told to its own `on_error`. Because a
workflow is called many times in one run, hooks that change something should bear to be called twice.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from django_workflow.errors import Misconfigured
from django_workflow.replay.port import Outside

if TYPE_CHECKING:
    from django_workflow.authoring.context_base import BaseContext

logger = logging.getLogger("django_workflow.middleware")

HOOKS = ("run_started", "before_execution", "after_execution", "run_completed", "on_error")


class Middleware:
    """Base of middlewares; override what you need. In async workflows hooks may be `async def`."""

    def run_started(self, ctx: BaseContext[Any]) -> Any:
        """The run's first call begins; again when that call is tried again."""

    def before_execution(self, ctx: BaseContext[Any], step_name: str) -> Any:
        """A step is about to run or to be handed to the engine; again on each attempt."""

    def after_execution(self, ctx: BaseContext[Any], step_name: str, result: Any) -> Any:
        """A step has its result: right after its function, or, of what the engine does, when the result came."""

    def run_completed(self, ctx: BaseContext[Any], result: Any) -> Any:
        """The workflow returned; the engine is told next."""

    def on_error(self, ctx: BaseContext[Any], error: BaseException) -> Any:
        """A call of the workflow failed (the engine may try again), or a hook of this middleware did."""


class MiddlewareHooks:
    """The middlewares of one invocation, as the executor wants them. `context` is set once that exists."""

    def __init__(self, middlewares: Sequence[Middleware]) -> None:
        self.context: Any = None
        self._hooks = {event: _overridden(middlewares, event) for event in HOOKS}

    def fire(self, event: str, *args: object) -> None:
        for middleware, hook in self._hooks[event]:
            self._call(middleware, hook, event, args)

    async def afire(self, outside: Outside, event: str, *args: object) -> None:
        for middleware, hook in self._hooks[event]:
            if inspect.iscoroutinefunction(hook):
                try:
                    await hook(self.context, *args)
                except Exception as error:
                    await self._areport(outside, middleware, event, error)
            else:
                await outside(lambda m=middleware, h=hook: self._call(m, h, event, args))  # type: ignore[misc]

    def _call(self, middleware: Middleware, hook: Callable[..., Any], event: str, args: Sequence[object]) -> None:
        try:
            hook(self.context, *args)
        except Exception as error:
            _log(middleware, event, error)
            if event != "on_error" and not inspect.iscoroutinefunction(middleware.on_error):
                self._call(middleware, middleware.on_error, "on_error", (error,))

    async def _areport(self, outside: Outside, middleware: Middleware, event: str, error: Exception) -> None:
        _log(middleware, event, error)
        if event == "on_error":
            return
        if inspect.iscoroutinefunction(middleware.on_error):
            try:
                await middleware.on_error(self.context, error)
            except Exception as second:
                _log(middleware, "on_error", second)
        else:
            await outside(lambda: self._call(middleware, middleware.on_error, "on_error", (error,)))


def check_sync(middlewares: Sequence[Middleware], workflow: str) -> None:
    """Raises Misconfigured for coroutine hooks, which a sync workflow cannot await."""
    for middleware in middlewares:
        for event in HOOKS:
            if inspect.iscoroutinefunction(getattr(middleware, event)):
                raise Misconfigured(
                    f"{type(middleware).__name__}.{event} is async, but workflow {workflow!r} is not. Make the hook "
                    "a plain function; those work in async workflows too."
                )


def _overridden(middlewares: Sequence[Middleware], event: str) -> list[tuple[Middleware, Callable[..., Any]]]:
    base = getattr(Middleware, event)
    return [(m, getattr(m, event)) for m in middlewares if getattr(type(m), event, None) is not base]


def _log(middleware: Middleware, event: str, error: BaseException) -> None:
    logger.error("%s.%s failed: %s", type(middleware).__name__, event, error, exc_info=error)

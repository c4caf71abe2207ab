"""One call of an endpoint, as `handler` has understood it: what its parts (`start`, `failure` …) work on."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django_workflow.authoring.context_base import RunDetails
from django_workflow.authoring.decorator import Workflow
from django_workflow.client.client import Client
from django_workflow.client.observer import Failure, Observer
from django_workflow.client.session import DeliverySession
from django_workflow.conf import get_settings
from django_workflow.errors import NonRetryableError, PayloadInvalid, QuotaExceeded, RetryAfterError, RunEnded
from django_workflow.protocol import headers as h
from django_workflow.protocol.invocation import Invocation
from django_workflow.serve import responses
from django_workflow.serve.endpoint import EndpointRequest, EndpointResponse
from django_workflow.serve.error_secrets import secrets_of_call
from django_workflow.serve.stack import readable
from django_workflow.serve.submit import Submitter

logger = logging.getLogger("django_workflow.serve")


@dataclass(frozen=True, slots=True)
class EndpointCall:
    """`signed`: the engine has made this call, so its answer may say where in the code an error came from."""

    workflow: Workflow[Any, Any]
    request: EndpointRequest
    invocation: Invocation
    client: Client
    session: DeliverySession | None
    signed: bool
    observer: Observer | None = None

    @property
    def run_id(self) -> str:
        return self.invocation.run_id

    def details(self, run_id: str | None = None) -> RunDetails:
        """The facts of the run, for its context; `run_id` for a run that is about to be made."""
        invocation = self.invocation
        return RunDetails(
            run_id=run_id or invocation.run_id,
            url=self.request.url,
            payload=invocation.payload,
            headers=self.request.headers,
            labels=invocation.labels,
            retried=invocation.retried,
            created_at=invocation.created_at,
            first_run_id=self._first_run_id,
        )

    @property
    def _first_run_id(self) -> str:
        """The first run of a chain of resumed ones; empty for the run itself. Callers from outside name none."""
        if self.session is not None:
            return getattr(self.session, "first_run_id", "")
        if not self.invocation.run_id:
            return ""
        told: str = h.any_case(self.request.headers).get(h.FIRST_RUN, "")
        return told or (self.observer.first_run_id if self.observer is not None else "")

    def submitter(self) -> Submitter:
        invocation = self.invocation
        return Submitter(
            self.client,
            invocation.run_id,
            self.request.url,
            session=self.session,
            observer=self.observer,
            created_at=invocation.created_at,
            invoke_count=invocation.invoke_count,
            steps_per_call=self.steps_per_call,
        )

    @property
    def steps_per_call(self) -> int:
        return self.workflow.options.steps_per_call or get_settings().steps_per_call

    def failed(
        self, error: BaseException, *, step_name: str | None = None, by_engine: bool = False
    ) -> EndpointResponse:
        """The answer for an exception. `by_engine`: the engine refused what this call submitted.

        Only then does RunEnded mean that this run is over; out of a step's own code it is an error like any other.
        """
        if by_engine and isinstance(error, RunEnded):
            logger.info("run %s ended while it was worked on", self.run_id, extra=self._extra(step_name))
            if self.observer is not None:
                self.observer.run_ended()
            return responses.acknowledged(self.run_id)
        retry = not (by_engine and isinstance(error, QuotaExceeded)) and not self._is_bad_payload(error)
        secrets = secrets_of_call(self.workflow, self.invocation)
        self._log(error, step_name, secrets)
        response = responses.failed(error, step_name=step_name, retry=retry, show_stack=self.signed, secrets=secrets)
        if self.observer is not None:
            self.observer.failed(told_failure(response, error, step_name, secrets))
        return response

    def turned_away(self) -> EndpointResponse:
        """The answer for a function that returned before its first step."""
        step = 'ctx.run("work", function)'
        remedy = f"Await its steps: await {step}." if self.workflow.is_async else f"Do its work in steps: {step}."
        message = (
            f"Workflow {self.workflow.name!r} returned before its first step, which turns the call away: it is tried "
            f"again, and fails the run in the end. {remedy}"
        )
        logger.error("%s (run %s)", message, self.run_id, extra=self._extra(None))
        response = responses.no_step_reached(message, self.run_id)
        if self.observer is not None:
            self.observer.failed(told_failure(response, message))
        return response

    def _is_bad_payload(self, error: BaseException) -> bool:
        """Whether the payload of this run does not fit. A step may meet the same error with another workflow's."""
        if not isinstance(error, PayloadInvalid):
            return False
        try:
            self.workflow.decode_payload(self.invocation.payload)
        except PayloadInvalid:
            return True
        return False

    def _log(self, error: BaseException, step_name: str | None, secrets: Collection[str]) -> None:
        where = f"step {step_name!r} of workflow" if step_name else "workflow"
        message = f"{where} %r failed in run %s: %s: %s"
        args = (self.workflow.name, self.run_id or "(new)", type(error).__name__, responses.message_of(error, secrets))
        if isinstance(error, NonRetryableError | RetryAfterError):  # raised on purpose
            logger.warning(message, *args, extra=self._extra(step_name))
        elif secrets:  # whoever formats the exception would write them out
            stack = responses.stack_of(error, secrets)
            logger.error(message + "\n%s", *args, stack, extra=self._extra(step_name))
        else:
            trace = (type(error), error, readable(error.__traceback__))
            logger.error(message, *args, exc_info=trace, extra=self._extra(step_name))

    def _extra(self, step_name: str | None) -> dict[str, Any]:
        return {"run_id": self.run_id, "workflow": self.workflow.name, "step": step_name}


def told_failure(
    response: EndpointResponse,
    error: BaseException | str,
    step_name: str | None = None,
    secrets: Collection[str] = (),
) -> Failure:
    """An answer as observers are told of it."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {responses.message_of(error, secrets)}"
    return Failure(
        status=response.status,
        error=text,
        step_name=step_name,
        final=response.status == responses.NON_RETRYABLE_STATUS,
        headers=response.headers,
        body=response.body,
    )

"""Steps that reach other endpoints: an HTTP call by the engine, and a run of another workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from django_workflow.authoring import reading
from django_workflow.authoring.options import WorkflowOptions
from django_workflow.authoring.results import CallResponse, InvokeResult
from django_workflow.client.options import Duration, as_flow_control, as_headers, as_labels, as_retries, as_retry_delay
from django_workflow.client.urls import workflow_url
from django_workflow.errors import PayloadInvalid, StepError
from django_workflow.protocol.durations import to_seconds
from django_workflow.protocol.publish import FlowControl
from django_workflow.protocol.secrets import RESULT, within
from django_workflow.protocol.steps import Step, StepType
from django_workflow.replay.outcome import CallSubmission, InvokeSubmission
from django_workflow.replay.step_call import StepCall, check_name
from django_workflow.replay.values import ANY, decoder_for, encode_value

if TYPE_CHECKING:
    from django_workflow.authoring.decorator import Workflow

R = TypeVar("R")

FlowControlLike = FlowControl | Mapping[str, Any]


class CallStep(StepCall[CallResponse]):
    """`target` is a URL, or a workflow of this project (whose payload is then checked)."""

    __slots__ = ("body", "flow_control", "headers", "method", "retries", "retry_delay", "target", "timeout")

    step_type: ClassVar[StepType] = StepType.CALL

    def __init__(
        self,
        name: str,
        target: str | Workflow[Any, Any],
        method: str,
        body: Any,
        headers: Mapping[str, str] | None,
        retries: int,
        retry_delay: Duration | None,
        timeout: Duration | None,
        flow_control: FlowControlLike | None,
    ) -> None:
        check_name(name)
        self.name = name
        self.target = target
        self.method = method
        self.body = body
        self.headers = headers
        self.retries = retries
        self.retry_delay = retry_delay
        self.timeout = timeout
        self.flow_control = flow_control

    def submission(self, step_id: int, concurrent: int) -> CallSubmission:
        if not isinstance(self.target, str):
            _check_workflow(self.target, f"Step {self.name!r} calls")
        headers = dict(self.headers or {})
        body = self._body()
        if not isinstance(self.body, str | bytes | None) and not any(n.lower() == "content-type" for n in headers):
            headers["Content-Type"] = "application/json"
        return CallSubmission(
            Step(step_id=step_id, step_name=self.name, step_type=self.step_type, concurrent=concurrent),
            url=self._url(),
            method=self.method.upper(),
            body=body,
            headers=as_headers(headers),
            retries=as_retries(self.retries) or 0,
            retry_delay=as_retry_delay(self.retry_delay),
            timeout=None if self.timeout is None else to_seconds(self.timeout),
            flow_control=as_flow_control(self.flow_control),
        )

    def read(self, step: Step) -> CallResponse:
        return reading.read_call(step)

    def _body(self) -> bytes:
        if not isinstance(self.target, str):
            return self.target.encode_payload(self.body)
        if self.body is None or isinstance(self.body, bytes):
            return self.body or b""
        if isinstance(self.body, str):
            return self.body.encode()
        return encode_value(self.body, f"The body of call {self.name!r}", error=PayloadInvalid)

    def _url(self) -> str:
        if not isinstance(self.target, str):
            return workflow_url(self.target.name)
        if not self.target.startswith(("http://", "https://")):
            raise StepError(f"Step {self.name!r} calls {self.target!r}, but a URL starts with http:// or https://.")
        return self.target


class InvokeStep(StepCall[InvokeResult[R]]):
    """`workflow` is one of this project, or the URL of an endpoint elsewhere."""

    __slots__ = ("body", "flow_control", "headers", "label", "retries", "retry_delay", "run_id", "workflow")

    step_type: ClassVar[StepType] = StepType.INVOKE

    def __init__(
        self,
        name: str,
        workflow: Workflow[Any, R] | str,
        body: Any,
        headers: Mapping[str, str] | None,
        run_id: str | None,
        retries: int | None,
        retry_delay: Duration | None,
        flow_control: FlowControlLike | None,
        label: Any,
    ) -> None:
        check_name(name)
        self.name = name
        self.workflow = workflow
        self.body = body
        self.headers = headers
        self.run_id = run_id
        self.retries = retries
        self.retry_delay = retry_delay
        self.flow_control = flow_control
        self.label = label

    def submission(self, step_id: int, concurrent: int) -> InvokeSubmission:
        name, body, kept = self._target()
        retries, retry_delay = as_retries(self.retries), as_retry_delay(self.retry_delay)
        flow_control = as_flow_control(self.flow_control)
        secret = () if isinstance(self.workflow, str) else self.workflow.secret
        return InvokeSubmission(
            Step(
                step_id=step_id,
                step_name=self.name,
                step_type=self.step_type,
                concurrent=concurrent,
                secret=within(RESULT, secret),
            ),
            workflow=name,
            body=body,
            run_id=self.run_id,
            headers={**kept.headers, **as_headers(self.headers)},
            retries=kept.retries if retries is None else retries,
            retry_delay=kept.retry_delay if retry_delay is None else retry_delay,
            flow_control=kept.flow_control if flow_control is None else flow_control,
            labels=as_labels(self.label) or kept.labels,
            secret=secret,
        )

    def _target(self) -> tuple[str, bytes | None, WorkflowOptions]:
        """Name or URL, payload, and the options that hold when the step does not say."""
        target = self.workflow
        if not isinstance(target, str):
            _check_workflow(target, f"Step {self.name!r} invokes")
            return target.name, target.encode_payload(self.body) or None, target.options
        if "://" not in target:
            raise StepError(f"Step {self.name!r} invokes {target!r}: pass the workflow, or the URL of an endpoint.")
        if self.body is None:
            return target, None, WorkflowOptions()
        return target, encode_value(self.body, f"The body of {self.name!r}", error=PayloadInvalid), WorkflowOptions()

    def read(self, step: Step) -> InvokeResult[R]:
        type_ = ANY if isinstance(self.workflow, str) else self.workflow.return_type
        return reading.read_invoke(step, decoder_for(type_))


def _check_workflow(target: object, what: str) -> None:
    """Raises StepError for a function that is no workflow, and for anything else that is none."""
    if not hasattr(target, "encode_payload"):
        raise StepError(
            f"{what} {target!r}, which is no workflow. Pass a function that @workflow stands above, or a URL; to run a "
            "plain function, use ctx.run()."
        )

"""Durable workflows for Django.

    from django_workflow import WorkflowContext, workflow

    @workflow
    def greet(ctx: WorkflowContext[str]) -> str:
        return ctx.run("say hello", say_hello, ctx.request_payload)

    greet.trigger("world")

These names and `django_workflow.testing` are the whole public interface; what stands elsewhere may change. Importing
them needs no settings and no loaded apps.
"""

from django_workflow.authoring import steps as step
from django_workflow.authoring.async_context import AsyncWorkflowContext
from django_workflow.authoring.context import WorkflowContext
from django_workflow.authoring.decorator import Workflow, workflow
from django_workflow.authoring.middleware import Middleware
from django_workflow.authoring.registry import UnknownWorkflow
from django_workflow.authoring.results import (
    CallResponse,
    FormResult,
    InvokeResult,
    NotifyResult,
    WaitResult,
    Webhook,
    WebhookRequest,
    WebhookResult,
)
from django_workflow.authoring.secrets import Secret
from django_workflow.client.client import Client, get_client
from django_workflow.client.handle import RunFailed, RunHandle
from django_workflow.errors import (
    AbortSwallowed,
    EngineError,
    EngineUnavailable,
    Misconfigured,
    NestedStep,
    NonRetryableError,
    PayloadInvalid,
    QuotaExceeded,
    ResultInvalid,
    RetryAfterError,
    RunEnded,
    SignatureInvalid,
    StepError,
    StepMismatch,
    WorkflowAbort,
    WorkflowError,
)
from django_workflow.protocol.publish import FlowControl

__version__ = "0.1.0"

__all__ = [
    "AbortSwallowed",
    "AsyncWorkflowContext",
    "CallResponse",
    "Client",
    "EngineError",
    "EngineUnavailable",
    "FlowControl",
    "FormResult",
    "InvokeResult",
    "Middleware",
    "Misconfigured",
    "NestedStep",
    "NonRetryableError",
    "NotifyResult",
    "PayloadInvalid",
    "QuotaExceeded",
    "ResultInvalid",
    "RetryAfterError",
    "RunEnded",
    "RunFailed",
    "RunHandle",
    "Secret",
    "SignatureInvalid",
    "StepError",
    "StepMismatch",
    "UnknownWorkflow",
    "WaitResult",
    "Webhook",
    "WebhookRequest",
    "WebhookResult",
    "Workflow",
    "WorkflowAbort",
    "WorkflowContext",
    "WorkflowError",
    "get_client",
    "step",
    "workflow",
]

"""The names that people import, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import django_workflow

PUBLIC = {
    # writing workflows
    "AsyncWorkflowContext",
    "Middleware",
    "Secret",
    "Workflow",
    "WorkflowContext",
    "step",
    "workflow",
    # what steps give back
    "CallResponse",
    "FlowControl",
    "InvokeResult",
    "NotifyResult",
    "FormResult",
    "WaitResult",
    "Webhook",
    "WebhookRequest",
    "WebhookResult",
    # runs and the engine
    "Client",
    "RunHandle",
    "get_client",
    # errors that people raise
    "NonRetryableError",
    "RetryAfterError",
    # errors that people catch
    "AbortSwallowed",
    "EngineError",
    "EngineUnavailable",
    "Misconfigured",
    "NestedStep",
    "PayloadInvalid",
    "QuotaExceeded",
    "ResultInvalid",
    "RunEnded",
    "RunFailed",
    "SignatureInvalid",
    "StepError",
    "StepMismatch",
    "UnknownWorkflow",
    "WorkflowAbort",
    "WorkflowError",
}


def test_the_public_names() -> None:
    assert set(django_workflow.__all__) == PUBLIC
    assert django_workflow.__all__ == sorted(django_workflow.__all__)
    for name in PUBLIC:
        assert getattr(django_workflow, name) is not None


def test_importing_them_needs_neither_settings_nor_apps() -> None:
    code = (
        "from django_workflow import *\n"
        "@workflow\n"
        "def early(ctx): ...\n"
        "from django.apps import apps\n"
        "from django.conf import settings\n"
        "assert not apps.ready and not settings.configured\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

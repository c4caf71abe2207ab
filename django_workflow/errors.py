"""Every error of the package. Each says what happened, with which values, and what to do.

    WorkflowError
    ├── Misconfigured                 the project must change something; retrying does not help
    ├── EngineError                   the engine refused or could not be reached
    │   ├── EngineUnavailable         no answer: database down, network down
    │   ├── RunEnded                  the run is finished, canceled or unknown: nothing can be appended
    │   └── QuotaExceeded             a limit of the engine
    ├── RequestRejected               a request to us cannot be served; has a status code
    │   ├── SignatureInvalid          its signature, with the reason by name
    │   ├── InvocationInvalid         a delivery that does not follow the protocol
    │   ├── MessageInvalid            a header or a body sent to the engine, with its name and value
    │   └── RequestUnknown            no such call in the engine's API
    ├── PayloadInvalid                a payload does not fit its workflow's type
    ├── ResultInvalid                 a step's or run's result cannot be stored
    ├── StepError                     the workflow's code asks for something impossible
    │   ├── StepMismatch              code and journal disagree
    │   ├── NestedStep                a step asked for inside a step
    │   └── AbortSwallowed            WorkflowAbort was caught by the workflow
    ├── NonRetryableError             raised by users: fail the run now
    └── RetryAfterError               raised by users: try again then

    WorkflowAbort (BaseException)     ends an invocation; not an error
    └── WorkflowCancelAbort           … because the workflow cancelled itself

An error's data are attributes; its text is for people and may change.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from difflib import get_close_matches

DOCS_ABORT = (
    "WorkflowAbort ends this call of the workflow after a step was handed to the engine; the next call goes on from "
    "there. It must pass through: do not catch BaseException (or use a bare `except:`) around a step."
)


def among(name: str, known: Iterable[str]) -> str:
    """What is said of a name that is not among the known ones: the one it is most like, if any, and all of them."""
    names = sorted(known)
    like = get_close_matches(name, names, n=1)
    return f"{f'did you mean {like[0]!r}? Known' if like else 'known'} are {', '.join(names)}."


class WorkflowError(Exception):
    """Base of all errors that this package raises on purpose."""


class Misconfigured(WorkflowError):
    """The project's settings or code must change; trying again does not help."""


class EngineError(WorkflowError):
    """The engine refused a request. `status` is its HTTP status, 0 when there was none."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class EngineUnavailable(EngineError):
    """The engine did not answer: nothing is known about what happened to the request."""


class RunEnded(EngineError):
    """The run is finished, canceled or unknown, so nothing can be added to it."""

    def __init__(self, message: str, *, run_id: str = "", status: int = 400) -> None:
        super().__init__(message, status=status)
        self.run_id = run_id


class QuotaExceeded(EngineError):
    """A limit of the engine was reached (its status is 412): the run fails without another try."""

    def __init__(self, message: str, *, status: int = 412) -> None:
        super().__init__(message, status=status)


class RequestRejected(WorkflowError):
    """A request to one of our views cannot be served. `status_code` is the answer's status."""

    status_code = 400


class SignatureInvalid(RequestRejected):
    """A delivery's signature does not hold. `reason` is a stable name such as `body_mismatch`."""

    status_code = 401

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvocationInvalid(RequestRejected):
    """A delivery does not follow the protocol: its version, its run id, its body. 500, so that the engine tries again
    and the run ends in the dead letters, as with the official SDKs."""

    status_code = 500


class MessageInvalid(RequestRejected, ValueError):
    """Something sent to the engine cannot be read. `name` is the header, parameter or field, `value` what it held."""

    def __init__(self, message: str, *, name: str = "", value: str = "") -> None:
        super().__init__(message)
        self.name = name
        self.value = value


class RequestUnknown(RequestRejected):
    """The engine's API has no such call."""

    status_code = 404


class PayloadInvalid(WorkflowError):
    """A payload does not fit the type that its workflow declares. `field` is the path of the bad value (`$.email`)."""

    status_code = 400

    def __init__(self, message: str, *, workflow: str = "", field: str = "$") -> None:
        super().__init__(message)
        self.workflow = workflow
        self.field = field


class ResultInvalid(WorkflowError):
    """A result cannot be stored: not JSON (with its path) or larger than the limit."""


class StepError(WorkflowError):
    """The workflow's code asks for something that steps cannot do."""


class StepMismatch(StepError):
    """The code asks for another step than the one recorded at this place."""

    def __init__(self, message: str, *, run_id: str = "", index: int = 0, recorded: str = "", asked: str = "") -> None:
        super().__init__(message)
        self.run_id = run_id
        self.index = index
        self.recorded = recorded
        self.asked = asked


class NestedStep(StepError):
    """A step was asked for while another step's function runs."""


class AbortSwallowed(StepError):
    """The workflow caught WorkflowAbort and went on."""


class NonRetryableError(WorkflowError):
    """Raise it to fail the run at once: no retry, straight to the dead letters and the failure function."""


class RetryAfterError(WorkflowError):
    """Raise it to have the step tried again then; it counts as a retry.

    `retry_after`: seconds, a timedelta, an aware datetime, or a duration such as `"2m"`.
    """

    def __init__(self, retry_after: float | timedelta | datetime | str, message: str = "") -> None:
        super().__init__(message or f"Try again after {retry_after}.")
        self.retry_after = retry_after


class WorkflowAbort(BaseException):
    """Ends an invocation after a step was submitted. From BaseException, so that `except Exception` lets it pass."""

    def __init__(self, step_name: str = "") -> None:
        super().__init__(f"{DOCS_ABORT} Step: {step_name!r}." if step_name else DOCS_ABORT)
        self.step_name = step_name


class WorkflowCancelAbort(WorkflowAbort):
    """Ends an invocation because the workflow called `ctx.cancel()`."""

"""What steps give back: one frozen object per kind of step, read from its recorded result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from django_workflow.protocol.requests import Notified
from django_workflow.replay.values import ANY, decoder_for

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CallResponse:
    """The answer to `ctx.call`. A status of 400 and above is an answer like any other: look at `ok`.

    `header` maps names as the server spelled them to lists of values; `headers` is the same with one value per
    lower-case name. `body` is the decoded JSON when the body is JSON, else its text.
    """

    status: int
    header: dict[str, list[str]]
    body: Any
    content: bytes = field(default=b"", repr=False)
    """The body as it came."""

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): ", ".join(values) for name, values in self.header.items()}

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are replaced."""
        return self.content.decode("utf-8", "replace")

    def json(self, type: Any = ANY) -> Any:
        """The body as JSON, or as a `type` (a dataclass, a TypedDict …). Raises msgspec.DecodeError when it is not."""
        return decoder_for(type)(self.content)


@dataclass(frozen=True, slots=True)
class WaitResult(Generic[T]):
    """The end of `ctx.wait_for_event`.

    `timeout`: nobody answered in time. `event_data` is what the event brought, of the step's `type` when it has one;
    None on a timeout and for events without data.
    """

    event_data: T
    timeout: bool


@dataclass(frozen=True, slots=True)
class FormResult(Generic[T]):
    """The end of `ctx.wait_for_form`.

    `values` are the form's cleaned data as JSON holds them (a date is text, a chosen object its key), or of the step's
    `type` when it has one; None on a `timeout`.
    """

    values: T
    timeout: bool


@dataclass(frozen=True, slots=True)
class NotifyResult:
    """What `ctx.notify` reached: one entry in `notified` per waiting run; empty when nobody waited."""

    event_id: str
    event_data: Any
    notified: tuple[Notified, ...]


@dataclass(frozen=True, slots=True)
class InvokeResult(Generic[T]):
    """The end of an invoked run. `body` is what it returned; None when it failed or was canceled."""

    body: T
    is_failed: bool
    is_canceled: bool


@dataclass(frozen=True, slots=True)
class Webhook:
    """A URL that the outside may call; `ctx.wait_for_webhook` waits for that."""

    webhook_url: str
    event_id: str


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """The call that a webhook got. `header` maps names to lists of values."""

    method: str
    url: str
    header: dict[str, list[str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self, type: Any = ANY) -> Any:
        """The body as JSON, or as a `type`. Raises msgspec.DecodeError when it is not."""
        return decoder_for(type)(self.body)


@dataclass(frozen=True, slots=True)
class WebhookResult:
    """The end of `ctx.wait_for_webhook`: `request` is None after a `timeout`."""

    request: WebhookRequest | None
    timeout: bool

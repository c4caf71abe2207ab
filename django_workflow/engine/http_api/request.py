"""One call of the engine's HTTP API: what comes in, what goes out, and which handler takes it.

`views` makes an ApiRequest of Django's request, `routes` finds its Route. A handler gets the request and the decoded
pieces of the path, and gives an ApiResponse or a value that becomes its JSON. Refusals are WorkflowErrors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from django_workflow.errors import MessageInvalid, RequestRejected, WorkflowError
from django_workflow.protocol import headers as h
from django_workflow.protocol.answers import encode_error
from django_workflow.protocol.queries import TOKEN_PARAMETER

T = TypeVar("T")

JSON = "application/json"


@dataclass(frozen=True)
class ApiRequest:
    """`target` is undecoded, from `/v2`, with its query; header values are text as their bytes say in UTF-8.

    `base` is what stands before the target in the URL that was called: `https://host/workflows/qstash`.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    caller_ip: str = ""
    base: str = ""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @cached_property
    def query(self) -> tuple[tuple[str, str], ...]:
        """The parameters in their order, without the token. Names keep their case."""
        pairs = parse_qsl(self.target.partition("?")[2], keep_blank_values=True)
        return tuple(pair for pair in pairs if pair[0] != TOKEN_PARAMETER)

    def header(self, name: str) -> str | None:
        """A header's value, its name in any letter case; None when it is missing or empty."""
        return h.any_case(self.headers).get(name) or None

    def json(self, kind: type[T]) -> T:
        """The body as a value of that type. Raises MessageInvalid."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MessageInvalid(f"The body cannot be read: {error}.", name="body") from error


@dataclass(frozen=True)
class ApiResponse:
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": JSON})


def answer(value: object, status: int = 200) -> ApiResponse:
    """A value as JSON: structs, dicts, lists."""
    return ApiResponse(status, msgspec.json.encode(value))


class MethodNotAllowed(RequestRejected):
    """The path is one of the API's, the method is not one of the path's."""

    status_code = 405

    def __init__(self, message: str, *, methods: Iterable[str]) -> None:
        super().__init__(message)
        self.methods = sorted(methods)


def refusal(error: WorkflowError) -> ApiResponse:
    """An error as its status and `{"error": …}`."""
    status, body = encode_error(error)
    response = ApiResponse(status, body)
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = ", ".join(error.methods)
    return response


MESSAGE_HEADERS = (
    h.METHOD,
    h.DELAY,
    h.NOT_BEFORE,
    h.RETRIES,
    h.RETRY_DELAY,
    h.TIMEOUT,
    h.CALLBACK,
    h.FAILURE_CALLBACK,
    h.DEDUPLICATION_ID,
    h.CONTENT_BASED_DEDUPLICATION,
    h.FLOW_CONTROL_KEY,
    h.FLOW_CONTROL_VALUE,
    h.LABEL,
    h.REDACT_FIELDS,
    h.HEADER_FORWARD,
)
"""Headers that configure a message, besides `Upstash-Forward-*` and those of its callbacks."""

Handler = Callable[..., Any]


@dataclass(frozen=True)
class Route:
    """`path` is a template: `{name}` stands for one piece (given decoded), `{name...}` for the undecoded rest with its
    query, or in the middle for any number of pieces (given decoded). What follows `handler` describes the call for the
    OpenAPI document: `query` and `headers` name what it reads of them (MESSAGE_HEADERS where a message is published),
    `body` and `answer` are types (None: any bytes, and no content that clients read). `public`: no token is asked for.
    `largest` is the largest body in bytes (None: one message's). `given`: a parameter and its value, without which the
    route does not fit."""

    methods: str
    path: str
    handler: Handler
    summary: str
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    body: Any = None
    answer: Any = None
    public: bool = False
    largest: int | None = None
    given: tuple[str, str] | None = None

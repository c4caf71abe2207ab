"""Every header name of the protocol, once; and what may pass from one request to another.

Names are case-insensitive everywhere: constants have the documented spelling, lookups go through a mapping that
ignores case (Django's `request.headers`, or `Headers` here for plain dicts).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

V = TypeVar("V")

PREFIX = "Upstash-"
PROTOCOL_VERSION = "1"
"""What `Upstash-Workflow-Sdk-Version` says in both directions."""

AUTHORIZATION = "Authorization"
CONTENT_TYPE = "Content-Type"
RETRY_AFTER = "Retry-After"
RETRY_AFTER_FAMILY = (RETRY_AFTER, "X-RateLimit-Reset", "X-RateLimit-Reset-Requests", "X-RateLimit-Reset-Tokens")
"""Headers of a failed answer that say when to try again, in the order in which they are looked up."""

# How a message is delivered, set by its publisher.
METHOD = "Upstash-Method"
FORWARD_PREFIX = "Upstash-Forward-"
HEADER_FORWARD = "Upstash-Header-Forward"
DELAY = "Upstash-Delay"
NOT_BEFORE = "Upstash-Not-Before"
RETRIES = "Upstash-Retries"
RETRY_DELAY = "Upstash-Retry-Delay"
TIMEOUT = "Upstash-Timeout"
FLOW_CONTROL_KEY = "Upstash-Flow-Control-Key"
FLOW_CONTROL_VALUE = "Upstash-Flow-Control-Value"
LABEL = "Upstash-Label"
REDACT_FIELDS = "Upstash-Redact-Fields"
CALLBACK = "Upstash-Callback"
FAILURE_CALLBACK = "Upstash-Failure-Callback"
DEDUPLICATION_ID = "Upstash-Deduplication-Id"
CONTENT_BASED_DEDUPLICATION = "Upstash-Content-Based-Deduplication"
CRON = "Upstash-Cron"
SCHEDULE_ID = "Upstash-Schedule-Id"
QUEUE_NAME = "Upstash-Queue-Name"
FEATURE_SET = "Upstash-Feature-Set"

# Which run a message belongs to, and what it is there.
WORKFLOW_INIT = "Upstash-Workflow-Init"
WORKFLOW_RUN_ID = "Upstash-Workflow-RunId"
WORKFLOW_URL = "Upstash-Workflow-Url"
WORKFLOW_CALL_TYPE = "Upstash-Workflow-CallType"
WORKFLOW_SDK_VERSION = "Upstash-Workflow-Sdk-Version"
WORKFLOW_INVOKE = "Upstash-Workflow-Invoke"
WORKFLOW_INVOKE_COUNT = "Upstash-Workflow-Invoke-Count"
WORKFLOW_TRIGGER_BY_SDK = "Upstash-Workflow-Trigger-By-Sdk"

# Added by the engine to its deliveries.
USER_AGENT = "User-Agent"
ENGINE_USER_AGENT = "Upstash-QStash"
SIGNATURE = "Upstash-Signature"
MESSAGE_ID = "Upstash-Message-Id"
RETRIED = "Upstash-Retried"
CALLER_IP = "Upstash-Caller-Ip"
TOPIC_NAME = "Upstash-Topic-Name"
REGION = "Upstash-Region"
WORKFLOW_CREATED_AT = "Upstash-Workflow-CreatedAt"
WORKFLOW_UNKNOWN_SDK = "Upstash-Workflow-Unknown-Sdk"

# What a delivery to an endpoint is, forwarded from the message that caused it.
WORKFLOW_CALLBACK = "Upstash-Workflow-Callback"
WORKFLOW_STEP_ID = "Upstash-Workflow-StepId"
WORKFLOW_STEP_NAME = "Upstash-Workflow-StepName"
WORKFLOW_STEP_TYPE = "Upstash-Workflow-StepType"
WORKFLOW_CONCURRENT = "Upstash-Workflow-Concurrent"
WORKFLOW_CONTENT_TYPE = "Upstash-Workflow-ContentType"
WORKFLOW_IS_FAILURE = "Upstash-Workflow-Is-Failure"
WORKFLOW_FAILURE_CALLBACK = "Upstash-Workflow-Failure-Callback"

# In the answers of an endpoint.
WORKFLOW_SDK = "Upstash-Workflow-Sdk"
NON_RETRYABLE_ERROR = "Upstash-NonRetryable-Error"
ERROR_STEP_NAME = "Upstash-Error-Step-Name"
FAILURE_CALLBACK_NOT_FOUND = "Upstash-Workflow-Failure-Callback-Notfound"

FIRST_RUN = "Django-Workflow-First-Run"
"""Ours, on deliveries of resumed runs: the first run of the chain, which idempotency keys derive from."""

SECRET = "Django-Workflow-Secret"
"""Ours, on messages that start runs: the paths of what is not shown of payload and result, joined with `,`."""

CARRY = "Django-Workflow-Carry"
"""Ours, on deliveries to this project's own endpoints: what they submit may come in the answer. See `carried`."""

SEAL = "Django-Workflow-Seal"
"""Ours, on such answers: the proof that they answer that delivery."""

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers about one connection (RFC 9110, section 7.6.1)."""

TRANSPORT = HOP_BY_HOP | {"accept-encoding", "content-length", "content-type", "expect", "host", "user-agent"}
"""Headers that a delivery makes itself: a second one breaks it (two lengths are answered with 400)."""

_OWNED_WORKFLOW = frozenset(
    name.lower()
    for name in (
        WORKFLOW_INIT,
        WORKFLOW_RUN_ID,
        WORKFLOW_URL,
        WORKFLOW_CALL_TYPE,
        WORKFLOW_INVOKE,
        WORKFLOW_TRIGGER_BY_SDK,
        WORKFLOW_CREATED_AT,
        WORKFLOW_UNKNOWN_SDK,
    )
)

_OURS = frozenset({FIRST_RUN.lower(), CARRY.lower()})
"""They say what a delivery is, and belong to that one alone."""

_HIDDEN_PREFIXES = ("upstash-workflow-", "x-vercel-", "x-forwarded-")
_HIDDEN = _OURS | {"cf-connecting-ip", "cdn-loop", "cf-ew-via", "cf-ray", "render-proxy-ttl", "upstash-region"}

_TOKEN_RE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_UNSAFE_RE = re.compile(r"[\r\n\0]")


class Headers(Mapping[str, str]):
    """Headers whose names are looked up in any letter case; iteration gives them as they came. The last of two wins."""

    __slots__ = ("_items",)

    def __init__(self, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        self._items = {name.lower(): (name, value) for name, value in pairs}

    def __getitem__(self, name: str) -> str:
        return self._items[name.lower()][1]

    def get(self, name: str, default: Any = None) -> Any:
        # Most lookups of a delivery miss; the inherited method would raise and catch for each.
        item = self._items.get(name.lower())
        return default if item is None else item[1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._items

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


def any_case(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers themselves when their lookup ignores case already, else (a plain dict) as `Headers`."""
    return Headers(headers) if isinstance(headers, dict) else headers


def forwardable(headers: Mapping[str, str]) -> dict[str, str]:
    """What a delivery may carry of a message's forward headers.

    SDKs forward a whole incoming request: its transport headers, those that its `Connection` header names, and the
    engine's own (a stale signature, another message id) would break or forge the delivery. Left are the user's
    headers, the labels, and those workflow headers that say what the delivery is.
    """
    dropped = TRANSPORT
    for name, value in headers.items():
        if name.lower() == "connection":
            dropped = dropped | {token.strip().lower() for token in value.split(",")}
    return {name: value for name, value in headers.items() if _may_pass(name.lower(), dropped)}


def _may_pass(name: str, dropped: frozenset[str]) -> bool:
    if name.startswith("upstash-"):
        return name == "upstash-label" or (name.startswith("upstash-workflow-") and name not in _OWNED_WORKFLOW)
    return name not in dropped and name not in _OURS


def context_headers(headers: Mapping[str, str]) -> Headers:
    """What a workflow sees of a delivery's headers: not the protocol's own, nor those of proxies on the way."""
    return Headers(
        (name, value)
        for name, value in headers.items()
        if not (lower := name.lower()).startswith(_HIDDEN_PREFIXES) and lower not in _HIDDEN
    )


def is_header_name(name: str) -> bool:
    """Whether this is a token of RFC 9110."""
    return _TOKEN_RE.fullmatch(name) is not None


def is_safe_value(value: str) -> bool:
    """Whether this stays one header: no line break and no NUL."""
    return _UNSAFE_RE.search(value) is None


@lru_cache(maxsize=1024)
def canonical(name: str) -> str:
    """`x-foo` -> `X-Foo`, as Go's http package writes names in resources; names that are no token stay as they are."""
    if not is_header_name(name):
        return name
    return "-".join(part.capitalize() for part in name.split("-"))


def header_lists(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """`{"Canonical-Name": [values]}`, the form of headers inside JSON bodies; names may repeat in pairs."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lists: dict[str, list[str]] = {}
    for name, value in pairs:
        lists.setdefault(canonical(name), []).append(value)
    return javascript_order(lists)


def javascript_order(mapping: dict[str, V]) -> dict[str, V]:
    """The mapping with its keys in the order in which JavaScript keeps them.

    Keys that look like array indices come first, by number; a body that an SDK parses and writes again before it
    checks the signature must come out as it went in.
    """
    indices = sorted(filter(_is_index, mapping), key=int)
    return {name: mapping[name] for name in dict.fromkeys([*indices, *mapping])} if indices else mapping


def _is_index(name: str) -> bool:
    return name.isdecimal() and name.isascii() and len(name) <= 10 and str(int(name)) == name and int(name) < 2**32 - 1


def first_values(lists: Mapping[str, list[str]]) -> dict[str, str]:
    """The way back from `header_lists`: the values of one name joined as HTTP does."""
    return {name: ", ".join(values) for name, values in lists.items()}


def utf8_value(value: str) -> str:
    """A header's value that was UTF-8 on the wire. Servers decode headers as Latin-1, which shows `ä` as `Ã¤`."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:  # not from the wire, or really Latin-1
        return value

"""Dispatch: performs one delivery. In process for this project's own endpoints, else signed over the network.

A lease comes in; out goes a `Dispatched`: the answer, and what the endpoint submitted when it ran in this process.
Nothing is written here.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, cast
from urllib.parse import unquote_to_bytes, urlsplit

from django.conf import settings as django_settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, ResolverMatch, reverse
from django.utils.translation import get_language

from django_workflow.client.session import SESSION_KEY, current_session
from django_workflow.client.urls import INTERNAL_ORIGIN
from django_workflow.conf import get_settings
from django_workflow.engine import limits, signing_keys
from django_workflow.engine.addresses import is_internal, is_own, is_served
from django_workflow.engine.after import After
from django_workflow.engine.facts import Answer, Fact, Settlement, Taken
from django_workflow.engine.journal_cache import JournalCache
from django_workflow.engine.network import Network
from django_workflow.engine.records import Lease, RunInfo, StoredMessage, raw
from django_workflow.engine.session import Session
from django_workflow.errors import MessageInvalid
from django_workflow.machine_views import meta_key
from django_workflow.models import Delivery
from django_workflow.protocol import carried
from django_workflow.protocol import headers as names
from django_workflow.protocol.signature import sign
from django_workflow.protocol.steps import CallType, JournalMessage, encode_messages

MOST_ADDRESSES = 1024

UNSEALED = (
    "The endpoint's answer carries results under a seal that does not hold, so they do not count. Something on the way "
    "has changed the answer, or the endpoint has other signing keys."
)

logger = logging.getLogger("django_workflow.engine")
# Every call that was made, at DEBUG, with its `settlement`; the development server shows them.
calls = logging.getLogger("django_workflow.deliveries")


@dataclass(frozen=True, slots=True)
class Dispatched:
    """How a delivery came back. `after` is set when an atomic step wrote its own result: nothing is left to settle."""

    settlement: Settlement
    after: After | None = None


class NotStarted(Exception):
    """It is too late for this delivery: its lease was given back."""


@dataclass(slots=True)
class Dispatcher:
    """Performs deliveries; one per worker, used by all its threads."""

    alias: str
    cache: JournalCache
    now: Callable[[], datetime]
    network: Network
    wall_time: Callable[[], float] = time.time
    """Unix seconds for signatures: whoever checks them has no other clock than the real one."""
    trusted: bool = True
    """False: in-process deliveries are signed and carry their whole journal, and nothing is handed back; each message
    then goes the way that a delivery over the network goes (the conformance run of the scenarios)."""
    may_start: Callable[[Lease], bool] = lambda lease: True
    """Asked when all is ready for the call; False: it is not made, and NotStarted is raised."""

    def dispatch(
        self,
        lease: Lease,
        report: Callable[[Fact], None],
        opened: Callable[[Session], None] | None = None,
        write: Callable[[Settlement], bool] | None = None,
    ) -> Dispatched:
        """Make the call. Never raises for what a destination does; NotStarted when `may_start` says so.

        `write` commits what an invocation has submitted so far and waits for that; False when it may not. Without it
        every call runs one step.
        """
        started_at = lease.started_at = self.now()
        session: Session | None = None
        requests: tuple[Taken, ...] = ()
        if not is_internal(lease.destination):
            answer, requests = self._over_network(lease)
        elif not is_served(lease.destination):
            answer = Answer(status=0, error=f"{lease.destination} is no workflow; nothing else is served there.")
        elif not self.may_start(lease):
            raise NotStarted
        elif lease.kind == Delivery.Kind.MESSAGE:
            answer = self._message_in_process(lease)
        else:
            session, answer = self._in_process(lease, report, opened, write)
        if session is not None:
            requests = tuple(session.requests)
        started_at = lease.started_at  # of its last step
        settlement = Settlement(lease, requests, answer, started_at, self.now())
        if calls.isEnabledFor(logging.DEBUG):
            told = answer.error or answer.status
            calls.debug("%s %s: %s", lease.method, lease.destination, told, extra={"settlement": settlement})
        return Dispatched(settlement, session.written if session else None)

    # In process

    def _in_process(
        self,
        lease: Lease,
        report: Callable[[Fact], None],
        opened: Callable[[Session], None] | None,
        write: Callable[[Settlement], bool] | None,
    ) -> tuple[Session | None, Answer]:
        assert lease.run_key is not None
        info = self.cache.info(lease.run_key)
        journal = self.cache.journal(lease.run_key, lease.position + 1)
        body = self._body(lease, journal, lazy=self.trusted)
        headers = self._headers(lease, info)
        if not self.trusted:
            headers[names.SIGNATURE] = self._signature(lease.destination, body)
            return None, self._call(internal_request(lease.destination, headers, body, None), info.run_id)
        session = Session(lease, info, journal, self.cache, self.now, report, write)
        if opened is not None:
            opened(session)
        token = current_session.set(session)
        try:
            return session, self._call(internal_request(lease.destination, headers, body, session), info.run_id)
        finally:
            current_session.reset(token)

    def _message_in_process(self, lease: Lease) -> Answer:
        """A message to one of this project's workflows: it is signed like any other, and may start a run."""
        body = self._body(lease, [], lazy=False)
        headers = {**self._headers(lease, None), names.SIGNATURE: self._signature(lease.destination, body)}
        return self._call(internal_request(lease.destination, headers, body, None, lease.method), lease.message_id)

    def _call(self, request: WSGIRequest, subject: str) -> Answer:
        try:
            response = cast(HttpResponse, handler().get_response(request))
        except Exception as error:  # a middleware that raises through the handler
            logger.exception("In-process delivery of %s failed outside the view.", subject)
            return Answer(status=500, error=f"{type(error).__name__}: {error}")
        return Answer(
            status=response.status_code,
            headers={name: [value] for name, value in response.items()},
            body=response.content,
        )

    # Over the network

    def _over_network(self, lease: Lease) -> tuple[Answer, tuple[Taken, ...]]:
        """The answer, and what an endpoint of this project submitted in it."""
        info = self.cache.info(lease.run_key) if lease.run_key is not None else None
        journal: list[JournalMessage] = []
        if lease.kind == Delivery.Kind.STEP and lease.run_key is not None:
            journal = self.cache.journal(lease.run_key, lease.position + 1)
        body = self._body(lease, journal, lazy=False)
        if len(body) > limits.LARGEST_INLINE_BYTES and _can_fetch(lease, info):
            body = b""
        headers = self._headers(lease, info)
        headers[names.USER_AGENT] = names.ENGINE_USER_AGENT
        signature = headers[names.SIGNATURE] = self._signature(lease.destination, body)
        own = is_own(lease.destination)
        if own and _may_carry(lease):
            headers[names.CARRY] = carried.VERSION
        timeout = self._timeout(lease, info)
        if not self.may_start(lease):
            raise NotStarted
        came = self.network.send(lease.method, lease.destination, headers, body, timeout, guarded=not own)
        answer = Answer(status=came.status, headers=came.headers, body=came.body, error=came.error)
        return _unpacked(answer, signature) if own and answer.header(names.CARRY) else (answer, ())

    def _timeout(self, lease: Lease, info: RunInfo | None) -> float:
        own = lease.config.timeout if lease.config is not None else None
        if own is None and info is not None and lease.kind != Delivery.Kind.CALL:
            own = info.config.timeout
        return own if own is not None else get_settings().request_timeout.total_seconds()

    def _signature(self, url: str, body: bytes) -> str:
        return sign(url, body, signing_keys.signing_pair().current, self.wall_time())

    # What is sent

    def _body(self, lease: Lease, journal: list[JournalMessage], *, lazy: bool) -> bytes:
        if lease.kind != Delivery.Kind.STEP:
            return raw(lease.body, lease.body_is_base64)
        return b"" if lazy else encode_messages(journal)

    def _headers(self, lease: Lease, info: RunInfo | None) -> dict[str, str]:
        """Headers of a delivery: the user's, then the engine's own, which win."""
        config = lease.config
        headers: dict[str, str] = {}
        if info is not None and lease.kind != Delivery.Kind.CALL and not _has_own_headers(lease):
            headers.update(_users(info.config.headers))
        if config is not None:
            headers.update(_users(config.headers))
        content_type = config.content_type if config is not None else None
        if content_type is None and lease.kind not in (Delivery.Kind.CALL, Delivery.Kind.MESSAGE):
            content_type = "application/json"
        if content_type:
            headers["Content-Type"] = content_type
        headers[names.MESSAGE_ID] = lease.message_id
        headers[names.RETRIED] = str(lease.attempt)
        if info is None and config is not None:
            _add_sender(headers, config)
        if info is None or lease.kind == Delivery.Kind.CALL:
            return headers
        headers[names.WORKFLOW_RUN_ID] = info.run_id
        headers[names.WORKFLOW_URL] = info.url
        headers[names.WORKFLOW_INIT] = "false"
        headers[names.WORKFLOW_CREATED_AT] = str(info.created_ms)
        if info.first_run_id != info.run_id:
            headers[names.FIRST_RUN] = info.first_run_id
        if info.labels:
            headers[names.LABEL] = ",".join(info.labels)
        if lease.kind == Delivery.Kind.STEP and not info.config.awaits_sdk:
            headers[names.WORKFLOW_SDK_VERSION] = "1"
            headers[names.WORKFLOW_CALL_TYPE] = CallType.STEP
            return headers
        headers.pop(names.WORKFLOW_SDK_VERSION, None)
        if lease.kind == Delivery.Kind.STEP:
            headers[names.WORKFLOW_UNKNOWN_SDK] = "true"
        return headers


def _can_fetch(lease: Lease, info: RunInfo | None) -> bool:
    """Whether the endpoint asks for the run's messages itself when a call of a step carries none.

    The Python SDK says that it does, and fails; it repeats its configuration on each step, which others do not. The
    first call tells nothing of that yet, as the client of another SDK may have sent it.
    """
    if info is None or lease.kind != Delivery.Kind.STEP or lease.position == 0 or lease.config is not None:
        return False
    return "LazyFetch" in info.config.features


def _may_carry(lease: Lease) -> bool:
    """Whether an endpoint may submit in its answer, which may be lost: only where the call is made again then, and that
    one writes down by itself what it brings. So what changes or swallows answers stops no run."""
    return lease.kind == Delivery.Kind.STEP and lease.max_retries > 0 and not lease.attempt and not lease.rescues


def _unpacked(answer: Answer, signature: str) -> tuple[Answer, tuple[Taken, ...]]:
    """An answer that says it carries submissions, and those, if it comes from who got the delivery. Its body goes no
    further: attempts and dead letters show what was answered, and results may hold what is not shown."""
    body, answer = answer.body, replace(answer, body=b"")
    if not carried.is_sealed(answer.header(names.SEAL), signature, body, signing_keys.verification_keys()):
        return replace(answer, error=UNSEALED), ()
    try:
        submitted = carried.decode_carried(body)
    except MessageInvalid as error:
        return replace(answer, error=str(error)), ()
    return answer, tuple([Taken(request, keys) for request, keys in submitted])


def _users(headers: dict[str, str]) -> dict[str, str]:
    """What is forwarded of these, in names of one spelling: `x-a` of the run and `X-A` of a step are one header."""
    return {names.canonical(name): value for name, value in names.forwardable(headers).items()}


def _has_own_headers(lease: Lease) -> bool:
    """Whether a step brought the user's headers itself: see `runs.overrides`."""
    return lease.kind == Delivery.Kind.STEP and lease.config is not None


def _add_sender(headers: dict[str, str], message: StoredMessage) -> None:
    for name, value in (
        (names.CALLER_IP, message.caller_ip),
        (names.TOPIC_NAME, message.topic),
        (names.SCHEDULE_ID, message.schedule_id),
        (names.LABEL, ",".join(message.labels)),
    ):
        if value:
            headers[name] = value


def blocked_by() -> str | None:
    """Why in-process deliveries do not reach the views of this package; None when they do.

    A middleware that answers instead (a log-in wall, a redirect, a maintenance page) would fail every delivery.
    """
    try:
        url = INTERNAL_ORIGIN + reverse("django_workflow:serve-ping")
    except NoReverseMatch:
        return "the URLs of django_workflow are not included"
    response = handler().get_response(internal_request(url, {}, b"", None))
    if names.WORKFLOW_SDK_VERSION in response:
        return None
    return (
        f"something answers {response.status_code} in their stead; middleware: {', '.join(django_settings.MIDDLEWARE)}"
    )


# In-process requests: real requests without sockets, signals or connection handling.


class _Handler(WSGIHandler):
    """Finds the view of an address once: the deliveries of a project go to a few addresses again and again."""

    def __init__(self) -> None:
        super().__init__()
        self._matches: dict[tuple[str, str | None, str], ResolverMatch] = {}

    def resolve_request(self, request: HttpRequest) -> ResolverMatch:
        if hasattr(request, "urlconf"):  # a middleware chose another one for this request
            return super().resolve_request(request)
        key = (django_settings.ROOT_URLCONF, get_language(), request.path_info)
        found = self._matches.get(key)
        if found is None:
            found = super().resolve_request(request)
            if len(self._matches) < MOST_ADDRESSES:
                self._matches[key] = found
        match = ResolverMatch.__new__(ResolverMatch)
        match.__dict__.update(found.__dict__, kwargs=dict(found.kwargs))  # middlewares may change those
        request.resolver_match = match
        return match


@cache
def handler() -> WSGIHandler:
    """The project's request handler with its middleware, loaded once per process."""
    return _Handler()


def internal_host() -> str:
    """Host header of in-process requests: `base_url`'s, else the first usable entry of ALLOWED_HOSTS."""
    base_url = get_settings().base_url
    if base_url:
        return urlsplit(base_url).netloc
    for host in django_settings.ALLOWED_HOSTS:
        usable = host.removeprefix(".")
        if usable and "*" not in usable:
            return usable
    return "localhost"


def internal_request(
    url: str, headers: dict[str, str], body: bytes, session: Session | None, method: str = "POST"
) -> WSGIRequest:
    """A request to `url` as the project's handler takes it. `session` marks it as the engine's own."""
    path_info, query = _target(url)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path_info,
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "workflow.internal",
        "SERVER_PORT": "443",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": internal_host(),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
    }
    for name, value in headers.items():
        environ[meta_key(name)] = value
    if session is not None:
        environ[SESSION_KEY] = session
    return WSGIRequest(environ)


@lru_cache(maxsize=512)
def _target(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return unquote_to_bytes(parts.path).decode("latin-1"), parts.query

"""Requests to an engine, as HTTP; their answers are in `answers`.

`encode_request` is the client's side, `decode_request` the engine's. Paths are undecoded and start at `/v2`; the token
is the caller's business on both sides. A destination stands raw in the path (`/v2/publish/https://host/path?x=1`),
other parts are percent-encoded where they need it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urlencode

import msgspec

from django_workflow.errors import (
    EngineError,
    MessageInvalid,
    RequestUnknown,
)
from django_workflow.protocol import headers as h
from django_workflow.protocol import queries, run_calls
from django_workflow.protocol.durations import format_duration, to_seconds
from django_workflow.protocol.publish import (
    BatchItem,
    Message,
    decode_message,
    encode_headers,
    from_batch_item,
    to_batch_item,
)
from django_workflow.protocol.requests import (
    Batch,
    CancelRun,
    CancelRuns,
    EngineRequest,
    FetchRun,
    FinishRun,
    GetWaiters,
    Notify,
    OwnRequest,
    Publish,
    Wait,
)
from django_workflow.protocol.schedules import (
    CreateSchedule,
    DeleteSchedule,
    FetchSchedule,
    ListSchedules,
    PauseSchedule,
    ResumeSchedule,
)
from django_workflow.protocol.steps import CallType
from django_workflow.protocol.waits import WaitBody, decode_wait, encode_wait

R = TypeVar("R")

JSON = "application/json"
TEXT = "text/plain;charset=UTF-8"

_RUNS = "/v2/workflows/runs"
_SCHEDULES = "/v2/schedules"
_SCHEDULE_SWITCHES: dict[str, type[PauseSchedule | ResumeSchedule]] = {
    "pause": PauseSchedule,
    "resume": ResumeSchedule,
}
# What may stand in a path segment as it is (RFC 3986); other clients leave it alone, so the ids are the same text.
_SEGMENT_SAFE = "!$&'()*+,;=:@~"


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """`path` begins with the base that was given and holds the query; `headers` lack the token."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


# Struct -> HTTP


def encode_request(request: EngineRequest[Any], base: str = "") -> EncodedRequest:
    """The HTTP request that asks for `request`. Raises MessageInvalid for what the wire cannot carry."""
    if isinstance(request, OwnRequest):
        raise EngineError(f"The API of hosted engines has no call for {type(request).__name__}.", status=501)
    encode = _ENCODERS[type(request)]
    encoded: EncodedRequest = encode(request)
    if not base:
        return encoded
    return EncodedRequest(encoded.method, base.rstrip("/") + encoded.path, encoded.headers, encoded.body)


def _encode_publish(request: Publish) -> EncodedRequest:
    message = request.message
    call = "publish" if message.queue is None else f"enqueue/{_segment(message.queue)}"
    # A fragment is never sent; left in, it would cut off the query of this very request.
    destination = message.destination.partition("#")[0]
    return EncodedRequest("POST", f"/v2/{call}/{destination}", encode_headers(message), message.body)


def _encode_batch(request: Batch) -> EncodedRequest:
    items = [to_batch_item(message) for message in request.messages]
    return EncodedRequest("POST", "/v2/batch", {h.CONTENT_TYPE: JSON}, msgspec.json.encode(items))


def _encode_wait(request: Wait) -> EncodedRequest:
    message = request.message
    headers = encode_headers(message)
    if message.workflow is not None and message.workflow.call_type == CallType.STEP:
        headers[h.WORKFLOW_CALL_TYPE] = CallType.STEP.value
    body = WaitBody(
        url=message.destination,
        timeout=format_duration(request.timeout),
        timeout_url=message.destination,
        timeout_headers={name: [value] for name, value in headers.items()},
        step=request.step,
        message=request.prompt,
        form=request.form,
    )
    return EncodedRequest("POST", f"/v2/wait/{_segment(request.event_id)}", headers, encode_wait(body))


def _encode_notify(request: Notify) -> EncodedRequest:
    run = "" if request.run_id is None else _segment(request.run_id) + "/"
    headers = {h.CONTENT_TYPE: TEXT} if request.body else {}
    if request.deduplication_id is not None:
        headers[h.DEDUPLICATION_ID] = request.deduplication_id
    return EncodedRequest("POST", f"/v2/notify/{run}{_segment(request.event_id)}", headers, request.body)


def _encode_get_waiters(request: GetWaiters) -> EncodedRequest:
    return EncodedRequest("GET", f"/v2/waiters/{_segment(request.event_id)}")


def _encode_fetch_run(request: FetchRun) -> EncodedRequest:
    # An engine that knows the header saves the rest of the list; the others ignore it and the answer is cut here.
    headers = {} if request.message_id is None else {h.MESSAGE_ID: request.message_id}
    return EncodedRequest("GET", f"{_RUNS}/{_segment(request.run_id)}", headers)


def _encode_finish_run(request: FinishRun) -> EncodedRequest:
    headers = {h.CONTENT_TYPE: TEXT} if request.result else {}
    return EncodedRequest("DELETE", f"{_RUNS}/{_segment(request.run_id)}?cancel=false", headers, request.result or b"")


def _encode_cancel_run(request: CancelRun) -> EncodedRequest:
    return EncodedRequest("DELETE", f"{_RUNS}/{_segment(request.run_id)}?cancel=true")


def _encode_cancel_runs(request: CancelRuns) -> EncodedRequest:
    pairs: list[tuple[str, str | int]] = [("workflowRunIds", run_id) for run_id in request.run_ids]
    if request.workflow_url is not None:
        pairs.append(("workflowUrl", request.workflow_url))
    if request.exact_url:
        pairs.append(("workflowUrlExactMatch", "true"))
    for name, value in (
        ("label", request.label),
        ("fromDate", request.from_date),
        ("toDate", request.to_date),
        ("callerIp", request.caller_ip),
        ("flowControlKey", request.flow_control_key),
        ("count", request.count),
    ):
        if value is not None:
            pairs.append((name, value))
    return EncodedRequest("DELETE", f"{_RUNS}?{urlencode(pairs)}" if pairs else _RUNS)


def _encode_run_call(request: EngineRequest[Any]) -> EncodedRequest:
    return EncodedRequest(*run_calls.ENCODERS[type(request)](request))


_ENCODERS: dict[type[EngineRequest[Any]], Callable[[Any], EncodedRequest]] = {
    Publish: _encode_publish,
    Batch: _encode_batch,
    Wait: _encode_wait,
    Notify: _encode_notify,
    GetWaiters: _encode_get_waiters,
    FetchRun: _encode_fetch_run,
    FinishRun: _encode_finish_run,
    CancelRun: _encode_cancel_run,
    CancelRuns: _encode_cancel_runs,
    **dict.fromkeys(run_calls.ENCODERS, _encode_run_call),
}


def _encode_create_schedule(request: CreateSchedule) -> EncodedRequest:
    message = request.message
    headers = {**encode_headers(message), h.CRON: request.cron}
    if request.schedule_id is not None:
        headers[h.SCHEDULE_ID] = request.schedule_id
    if message.queue is not None:
        headers[h.QUEUE_NAME] = message.queue
    return EncodedRequest("POST", f"{_SCHEDULES}/{message.destination.partition('#')[0]}", headers, message.body)


def _encode_schedule(method: str, what: str = "") -> Callable[[Any], EncodedRequest]:
    return lambda request: EncodedRequest(method, f"{_SCHEDULES}/{_segment(request.schedule_id)}{what}")


_ENCODERS |= {
    CreateSchedule: _encode_create_schedule,
    ListSchedules: lambda request: EncodedRequest("GET", _SCHEDULES),
    FetchSchedule: _encode_schedule("GET"),
    DeleteSchedule: _encode_schedule("DELETE"),
    PauseSchedule: _encode_schedule("PATCH", "/pause"),
    ResumeSchedule: _encode_schedule("PATCH", "/resume"),
}


def _segment(text: str) -> str:
    return quote(text, safe=_SEGMENT_SAFE)


# HTTP -> struct


def decode_request(method: str, path: str, headers: Mapping[str, str], body: bytes) -> EngineRequest[Any]:
    """The request that an HTTP request asks for; `path` is undecoded, from `/v2`, with its query.

    Raises RequestUnknown for a path or method without a struct here, MessageInvalid for values that cannot be read.
    """
    plain, _, query = path.partition("?")
    call, _, rest = plain.removeprefix("/v2/").partition("/")
    method = method.upper()
    if plain.startswith("/v2/"):
        # Webhooks publish with any method; `Upstash-Method` says which one the destination sees.
        if call == "publish" and rest:
            return Publish(message=_decode_publish(path.partition("/publish/")[2], headers, body))
        if call == "enqueue" and "/" in rest:
            queue, _, target = path.partition("/enqueue/")[2].partition("/")
            return Publish(message=_decode_publish(target, headers, body, unquote(queue)))
        if plain == "/v2/batch" and method == "POST":
            return Batch(messages=decode_batch(body))
        if call == "wait" and rest and method == "POST":
            return _decode_wait(unquote(rest), headers, body)
        if call == "notify" and rest and method == "POST":
            return _decode_notify(rest, headers, body)
        if call == "waiters" and rest and method == "GET":
            return GetWaiters(event_id=unquote(rest))
        if plain == _RUNS and method == "DELETE":
            return _decode_cancel_runs(query, body)
        if run_id := unquote(plain[len(_RUNS) + 1 :]) if plain.startswith(_RUNS + "/") else "":
            if method == "GET":
                return FetchRun(run_id=run_id, message_id=h.any_case(headers).get(h.MESSAGE_ID) or None)
            if method == "DELETE":
                return _decode_delete_run(run_id, query, body)
        if request := run_calls.decode(method, plain, query, headers, body):
            return request
        if call == "schedules":
            schedule = _decode_schedule(method, path, headers, body)
            if schedule is not None:
                return schedule
    raise RequestUnknown(f"The engine has no {method} {plain[:200]}.")


def _decode_schedule(method: str, path: str, headers: Mapping[str, str], body: bytes) -> EngineRequest[Any] | None:
    """A call about schedules; its path is a destination or an id, as the method says."""
    rest = path[len(_SCHEDULES) :].lstrip("/")
    if not rest.partition("?")[0]:
        return ListSchedules() if method == "GET" else None
    schedule_id, _, what = rest.partition("?")[0].partition("/")
    if what in _SCHEDULE_SWITCHES and method in ("PATCH", "POST", "PUT"):
        return _SCHEDULE_SWITCHES[what](schedule_id=unquote(schedule_id))
    if method == "POST":
        destination, config = split_destination(rest)
        said = h.Headers({**dict(config), **headers})
        queue, found = said.get(h.QUEUE_NAME) or None, said.get(h.SCHEDULE_ID) or None
        message = decode_message(destination, headers, body, config, queue)
        return CreateSchedule(message=message, cron=said.get(h.CRON, ""), schedule_id=found)
    kinds: dict[str, type[FetchSchedule | DeleteSchedule]] = {"GET": FetchSchedule, "DELETE": DeleteSchedule}
    kind = kinds.get(method)
    return None if kind is None or what else kind(schedule_id=unquote(schedule_id))


def split_destination(raw: str) -> tuple[str, list[tuple[str, str]]]:
    """A destination and the configuration in its query: `("https://host/?x=1", [("upstash-retries", "3")])`.

    `raw` is what follows `/v2/publish/`, undecoded. What is not configuration stays as it came, byte for byte; the
    token is dropped. A slash that a proxy merged is put back, and a URL that is encoded as a whole is decoded.
    """
    if _ENCODED_URL_RE.match(raw):
        url, mark, query = raw.partition("?")
        raw = unquote(url) + mark + query
    raw = _MERGED_SLASHES_RE.sub(r"\1://", raw, count=1)
    target, _, query = raw.partition("?")
    kept: list[str] = []
    config: list[tuple[str, str]] = []
    pieces = query.split("&")
    for piece in pieces:
        name, _, value = piece.partition("=")
        lower = unquote_plus(name).lower()
        if lower.startswith("upstash-"):
            config.append((lower, unquote_plus(value)))
        elif lower != queries.TOKEN_PARAMETER:
            kept.append(piece)
    if len(kept) < len(pieces):
        raw = f"{target}?{'&'.join(kept)}" if kept else target
    if not raw:
        raise MessageInvalid("The destination is empty: append a URL or the name of a URL group.", name="destination")
    return raw, config


_MERGED_SLASHES_RE = re.compile(r"^(https?):/(?!/)", re.IGNORECASE)
_ENCODED_URL_RE = re.compile(r"^https?(?:%3A|:/?%2F)", re.IGNORECASE)


def _decode_publish(raw: str, headers: Mapping[str, str], body: bytes, queue: str | None = None) -> Message:
    destination, config = split_destination(raw)
    return decode_message(destination, headers, body, config, queue)


_batch_decoder = msgspec.json.Decoder(list[BatchItem])


def decode_batch(body: bytes) -> tuple[Message, ...]:
    """The messages of a batch's body. Raises MessageInvalid, which tells the message's number."""
    try:
        items = _batch_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageInvalid(f"This is no batch, a JSON array of messages: {error}.", name="body") from error
    messages = []
    for index, item in enumerate(items):
        try:
            _refuse_cron(item)
            messages.append(from_batch_item(item))
        except MessageInvalid as error:
            raise MessageInvalid(
                f"Message {index} of the batch: {error}", name=error.name, value=error.value
            ) from error
    return tuple(messages)


def _refuse_cron(item: BatchItem) -> None:
    """A batch makes no schedules. Passing over the expression would deliver at once what was meant for later."""
    for name, value in (item.headers or {}).items():
        if value and name.lower() == h.CRON.lower():
            raise MessageInvalid(f"{h.CRON} makes a schedule, and a batch makes none: {MAKE_SCHEDULE}", name=h.CRON)


MAKE_SCHEDULE = "POST it to /v2/schedules/<destination>."


def _decode_wait(event_id: str, headers: Mapping[str, str], body: bytes) -> Wait:
    wait = decode_wait(body)
    if wait.timeout_url not in ("", wait.url):
        raise MessageInvalid(
            f"A wait goes on at its own URL ({wait.url}) when the time is up; leave timeoutUrl away.",
            name="timeoutUrl",
            value=wait.timeout_url,
        )
    message = decode_message(wait.url, headers)
    if message.workflow is None:
        raise MessageInvalid(f"A wait needs the run that waits, in {h.WORKFLOW_RUN_ID}.", name=h.WORKFLOW_RUN_ID)
    try:
        timeout = to_seconds(wait.timeout)
    except ValueError as error:
        raise MessageInvalid(f"timeout: {error}", name="timeout", value=str(wait.timeout)) from error
    return Wait(
        event_id=event_id, message=message, step=wait.step, timeout=timeout, prompt=wait.message, form=wait.form
    )


def _decode_notify(rest: str, headers: Mapping[str, str], body: bytes) -> Notify:
    first, separator, second = rest.partition("/")
    return Notify(
        # Clients do not encode event ids: slashes after the run's id belong to the event's.
        event_id=unquote(second if separator else first),
        run_id=unquote(first) if separator else None,
        body=body,
        deduplication_id=h.any_case(headers).get(h.DEDUPLICATION_ID) or None,
    )


def _decode_delete_run(run_id: str, query: str, body: bytes) -> FinishRun | CancelRun:
    cancel = dict(parse_qsl(query, keep_blank_values=True)).get("cancel", "true").lower()
    if cancel == "false":
        return FinishRun(run_id=run_id, result=body or None)
    if cancel == "true":
        return CancelRun(run_id=run_id)
    raise MessageInvalid(f"cancel: {cancel!r} is neither true nor false.", name="cancel", value=cancel)


_CANCEL_FILTERS = {
    name.lower(): name
    for name in (
        "workflowRunIds",
        "workflowUrl",
        "workflowUrlExactMatch",
        "label",
        "count",
        "fromDate",
        "toDate",
        "callerIp",
        "flowControlKey",
    )
}


def _decode_cancel_runs(query: str, body: bytes) -> CancelRuns:
    found: dict[str, list[str]] = {}
    for given, value in [*queries.query_pairs(query), *queries.body_pairs(body)]:
        name = _CANCEL_FILTERS.get(given.lower())  # callerIp is also written callerIP
        if name is None:
            # A filter that is passed over would cancel more than was asked for.
            raise MessageInvalid(
                f"Runs cannot be chosen by {given!r}; there are {', '.join(_CANCEL_FILTERS.values())}.",
                name=given,
                value=value,
            )
        found.setdefault(name, []).append(value)

    def one(name: str) -> str | None:
        values = found.get(name, [])
        if len(values) > 1:
            raise MessageInvalid(f"{name} may be given once, not {len(values)} times.", name=name, value=values[1])
        return values[0] if values else None

    def whole(name: str) -> int | None:
        text = one(name)
        if text is not None and not (text.isascii() and text.isdecimal() and len(text) < 19):
            raise MessageInvalid(f"{name}: {text!r} is no whole number.", name=name, value=text)
        return None if text is None else int(text)

    run_ids = tuple(run_id.strip() for value in found.get("workflowRunIds", []) for run_id in value.split(","))
    if not all(run_ids) or ("workflowRunIds" in found and not run_ids):
        # Nobody who names runs means all of them.
        raise MessageInvalid("workflowRunIds names no run; leave it away to cancel all runs.", name="workflowRunIds")
    return CancelRuns(
        run_ids=run_ids,
        workflow_url=one("workflowUrl"),
        exact_url=(one("workflowUrlExactMatch") or "").lower() == "true",
        label=",".join(found["label"]) if "label" in found else None,
        count=whole("count"),
        from_date=whole("fromDate"),
        to_date=whole("toDate"),
        caller_ip=one("callerIp"),
        flow_control_key=one("flowControlKey"),
    )

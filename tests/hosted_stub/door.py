"""The HTTP API: paths, tokens, queries and content types, each checked before the request means anything."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from tests.hosted_stub import documents, messaging, outcomes, resume, rules
from tests.hosted_stub.delivery import milliseconds, raw_steps
from tests.hosted_stub.messaging import Item
from tests.hosted_stub.model import DeadLetter, Message, Run, Schedule, State
from tests.hosted_stub.network import Answer, HttpRequest, header_map
from tests.hosted_stub.refusals import Fault, Refused
from tests.hosted_stub.vocabulary import TRANSPORT, Instructions, read_message

if TYPE_CHECKING:
    from tests.hosted_stub.service import HostedStub

LARGEST_BATCH = 100 * 1024 * 1024
OWN_HEADERS = TRANSPORT | {"authorization", "content-type"}


@dataclass(frozen=True)
class Call:
    """A request that found its handler. `rest` is what follows a raw destination's path, with its query."""

    stub: HostedStub
    request: HttpRequest
    parts: tuple[str, ...]
    query: list[tuple[str, str]]
    rest: str

    def one(self, name: str) -> str | None:
        return next((value for key, value in self.query if key == name), None)

    def many(self, name: str) -> list[str]:
        return [part for key, value in self.query if key == name for part in value.split(",") if part]

    def message(self) -> Instructions:
        return read_message(self.request.headers, over_http=True)


Handler = Callable[[Call], Any]


@dataclass(frozen=True)
class Route:
    """`raw`: the last piece is a destination that stands there as it is. `is_message`: it has control headers."""

    methods: tuple[str, ...]
    path: str
    handler: Handler
    query: tuple[str, ...] = ()
    raw: bool = False
    is_message: bool = False
    public: bool = False
    headers: tuple[str, ...] = ()
    body: bool = False


def answer(stub: HostedStub, request: HttpRequest) -> Answer:
    """The answer to one request. Raises Refused, and Fault for what the protocol does not know."""
    base = stub.url.rstrip("/")
    if not request.target.startswith(base + "/"):
        raise Fault(f"{request.target[:200]} is not below {base}.", 404)
    target = request.target[len(base) :]
    path, _, query = target.partition("?")
    for route in ROUTES:
        match = re.fullmatch(route.path, path)
        if match is not None and request.method in route.methods:
            break
    else:
        raise Fault(f"There is no {request.method} {path}.", 404)
    if not route.public:
        check_token(stub, request)
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    if not route.raw and (unknown := {name for name, _ in pairs} - set(route.query)):
        raise Fault(f"{request.method} {path} takes no {', '.join(sorted(unknown))}.")
    check_headers(route, request)
    rest = target[match.start(match.lastindex or 0) :] if route.raw else ""
    parts = tuple(unquote(part) for part in match.groups())
    found = route.handler(Call(stub, request, parts, pairs, rest))
    return found if isinstance(found, Answer) else json_answer(found)


def json_answer(value: Any, status: int = 200) -> Answer:
    if value is None:
        return Answer(status)
    return Answer(status, {"Content-Type": ["application/json"]}, json.dumps(value, ensure_ascii=False).encode())


def check_token(stub: HostedStub, request: HttpRequest) -> None:
    given = request.header("Authorization")
    if given != f"Bearer {stub.token}":
        raise Fault("The token is missing or wrong.", 401)


def check_headers(route: Route, request: HttpRequest) -> None:
    if not route.is_message and not route.public:
        for name, _ in request.headers:
            if name.lower() not in OWN_HEADERS and name.lower() not in route.headers:
                raise Fault(f"{request.method} {route.path} takes no header {name}.")
    if request.body and not route.body and not route.is_message and not route.public:
        raise Fault(f"{request.method} {route.path} takes no body.")


# Messages


def destination(raw: str) -> str:
    """A destination that stands raw in the path; its query is its own."""
    if not re.match(r"https?://[^/?#]+", raw):
        raise Fault(f"The destination {raw[:200]!r} is no URL; URL groups are not part of this stub.")
    if "#" in raw or re.search(r"[?&](qstash_token|upstash-[^=]*)=", raw, re.IGNORECASE):
        raise Fault(f"The destination {raw[:200]!r} has a fragment, or configuration in its query.")
    return raw


def publish(call: Call) -> Any:
    item = Item(destination(call.rest), call.message(), call.request.body)
    if item.instructions.get("cron"):
        raise Fault("Schedules are made by /v2/schedules/.")
    (published,) = messaging.accept(call.stub, [item])
    return json_answer(published, 202 if published.get("deduplicated") else 200)


def batch(call: Call) -> Any:
    if call.request.header("Content-Type") != "application/json":
        raise Fault(f"The Content-Type of a batch is application/json, not {call.request.header('Content-Type')!r}.")
    given = rules.read_json(call.request.body, "A batch")
    if not isinstance(given, list) or not given:
        raise Fault("A batch is a JSON array of messages, and not empty.")
    return messaging.accept(call.stub, [batch_item(each) for each in given])


def batch_item(given: Any) -> Item:
    item = rules.read_object(given, "An item of a batch", {"destination": str}, {"headers", "body", "queue"})
    headers, body = item.get("headers") or {}, item.get("body")
    if not isinstance(headers, dict) or not (body is None or isinstance(body, str)):
        raise Fault(f"An item of a batch has headers, an object, and a body, a text: {json.dumps(item)[:300]}.")
    if item.get("queue") is not None:
        raise Fault("Queues are not part of this stub.")
    return Item(destination(item["destination"]), read_message(headers.items(), over_http=False), (body or "").encode())


def trigger(call: Call) -> Any:
    return start_by_rest(call.stub, destination(call.rest), call.message(), call.request.body)


def batch_trigger(call: Call) -> Any:
    given = rules.read_json(call.request.body, "A batch")
    if not isinstance(given, list):
        raise Fault("A batch is a JSON array of messages.")
    items = [batch_item(each) for each in given]
    return json_answer(
        [start_by_rest(call.stub, item.destination, item.instructions, item.body) for item in items], 201
    )


def start_by_rest(stub: HostedStub, url: str, given: Instructions, body: bytes) -> dict[str, Any]:
    """The engine cannot know which SDK answers there: its first call asks."""
    run_id = given.run_id or f"wfr_rest{stub.number('rest'):04d}"
    live = stub.run(run_id)
    if live is not None and live.live:
        return {
            "workflowRunId": run_id,
            "workflowCreatedAt": milliseconds(live.created),
            "deduplicated": True,
        }
    given = replace(given, control={**given.control, "workflow-runid": run_id})
    run = messaging.new_run(stub, Item(url, given, body), body, by_rest=True)
    run.journal[0].message.unknown_sdk = True
    run.journal[0].message.config = run.config
    return {
        "workflowRunId": run_id,
        "workflowCreatedAt": milliseconds(run.created),
        "messageId": run.journal[0].message.id,
    }


def get_message(call: Call) -> Any:
    return documents.message_document(pending_message(call))


def delete_message(call: Call) -> Any:
    message = pending_message(call)
    message.state = State.CANCELED
    return {"cancelled": 1}


def pending_message(call: Call) -> Message:
    for message in call.stub.messages:
        if message.id == call.parts[0] and message.state is State.PENDING:
            return message
    raise Refused(404, f"There is no message {call.parts[0]}.")


# Runs


def wait(call: Call) -> Any:
    return messaging.wait(call.stub, call.parts[0], call.message(), call.request.body)


def notify(call: Call) -> Any:
    run_id, event_id = (None, call.parts[0]) if len(call.parts) == 1 else call.parts
    return messaging.notify(call.stub, event_id, run_id, call.request.body)


def waiters(call: Call) -> Any:
    return [messaging.waiter_document(each) for each in call.stub.waiters if each.event_id == call.parts[0]]


def hook(call: Call) -> Any:
    user_id, run_id, event_id = call.parts
    run = call.stub.run(run_id)
    if user_id != call.stub.user_id or run is None or not run.live:
        raise Refused(404, "There is no such webhook.")
    request = call.request
    scheme, _, host_and_path = request.target.partition("://")
    host, slash, path = host_and_path.partition("/")
    data: dict[str, Any] = {"method": request.method, "header": header_map(request.headers)}
    if request.body:
        data["body"] = base64.b64encode(request.body).decode()
    data.update(proto=scheme, host=host, url=slash + path)
    messaging.notify(call.stub, event_id, run_id, rules.compact(data))
    return None


def get_run(call: Call) -> Any:
    run = call.stub.run(call.parts[0])
    if run is None or not run.live:
        raise Refused(404, f"There is no run {call.parts[0]}, or it has ended.")
    return raw_steps(run)


def delete_run(call: Call) -> Any:
    run, how = call.stub.run(call.parts[0]), call.one("cancel")
    if how not in ("true", "false"):
        raise Fault(f"cancel is {how!r}, neither true nor false.")
    if run is None:
        raise Fault(f"There is no run {call.parts[0]!r}.", 404)
    if how == "true" and call.request.body:
        raise Fault("Who cancels a run has no result.")
    if call.request.body:
        rules.read_json(call.request.body, "The result of a run")
    if run.live:
        if how == "false":
            outcomes.finish_run(call.stub, run, call.request.body)
        else:
            outcomes.cancel_run(call.stub, run)
    return None


RUN_FILTERS = (
    *("workflowRunIds", "workflowUrl", "workflowUrlExactMatch", "fromDate", "toDate", "callerIp", "flowControlKey"),
    *("label", "count", "host", "path"),
)


def cancel_runs(call: Call) -> Any:
    found = [run for run in chosen_runs(call) if run.live]
    for run in found[: int(call.one("count") or 100)]:
        outcomes.cancel_run(call.stub, run)
    return {"cancelled": len(found)}


def chosen_runs(call: Call) -> list[Run]:
    """The runs that a query names, or all that its filters leave, the newest first."""
    runs = list(reversed(call.stub.runs))
    if ids := call.many("workflowRunIds") or call.many("workflowRunId"):
        return [run for run in runs if run.id in ids]
    urls, exact = call.many("workflowUrl"), call.one("workflowUrlExactMatch") == "true" or call.one("groupBy")
    labels, keys, states = call.many("label"), call.many("flowControlKey"), call.many("state")
    start, end = int(call.one("fromDate") or 0), int(call.one("toDate") or 10**15)
    return [
        run
        for run in runs
        if (not urls or any(run.url == url if exact else run.url.startswith(url) for url in urls))
        and (not labels or set(labels) & set(run.labels))
        and (not keys or (run.config.flow is not None and run.config.flow[0] in keys))
        and (not states or run.state in states)
        and start <= milliseconds(run.created) <= end
    ]


def logs(call: Call) -> Any:
    """Runs, the newest first; `cursor` is the number of those that were seen."""
    if call.one("groupBy") != "workflowRunId":
        raise Fault("The log of a run's events is not part of this stub: ask with groupBy=workflowRunId.")
    runs = chosen_runs(call)
    count, cursor = min(int(call.one("count") or 10), 10), call.one("cursor") or "0"
    seen = int(cursor) if cursor.isdecimal() else len(runs)
    found: dict[str, Any] = {"runs": [documents.run_document(call.stub, run) for run in runs[seen : seen + count]]}
    if seen + count < len(runs):
        found["cursor"] = str(seen + count)
    return found


# Dead letters

LETTER_FILTERS = (
    *("cursor", "count", "fromDate", "toDate", "workflowUrl", "workflowRunId", "workflowCreatedAt", "label"),
    *("failureFunctionState", "failureCallbackState", "callerIp", "flowControlKey", "dlqIds", "url", "responseStatus"),
)


def letters(call: Call) -> Any:
    found = chosen_letters(call)
    if call.request.target.partition("?")[0].endswith("/v2/dlq") and call.one("source") != "workflow":
        found = [letter for letter in found if letter.message.run is None]
    return {"messages": [documents.letter_document(letter) for letter in found]}


def letter(call: Call) -> Any:
    return documents.letter_document(one_letter(call))


def delete_letter(call: Call) -> Any:
    del call.stub.letters[one_letter(call).id]


def delete_letters(call: Call) -> Any:
    found = chosen_letters(call, unknown_too=True)
    for each in found:
        del call.stub.letters[each.id]
    return {"deleted": len(found)}


def one_letter(call: Call) -> DeadLetter:
    if (found := call.stub.letters.get(call.parts[0])) is None:
        raise Refused(404, f"There is no dead letter {call.parts[0]}.")
    return found


def chosen_letters(call: Call, *, unknown_too: bool = False) -> list[DeadLetter]:
    """The letters that a query names, or all that its filters leave. `unknown_too`: ids of none may be among them."""
    ids = call.many("dlqIds")
    if unknown_too:
        ids = [key for key in ids if key in call.stub.letters]
    if call.many("dlqIds"):
        if missing := [key for key in ids if key not in call.stub.letters]:
            raise Refused(404, f"There are no dead letters {', '.join(missing)}.")
        return [call.stub.letters[key] for key in ids]
    urls, run_ids = call.many("workflowUrl"), call.many("workflowRunId")
    labels, states = call.many("label"), call.many("failureFunctionState") or call.many("failureCallbackState")
    found = [
        letter
        for letter in call.stub.letters.values()
        if letter.message.run is not None
        and (not urls or letter.message.run.url in urls)
        and (not run_ids or letter.message.run.id in run_ids)
        and (not labels or set(labels) & set(letter.message.run.labels))
        and (not states or letter.failure_state in states)
    ]
    return found[: int(call.one("count") or 100)]


def revive(how: Callable[[HostedStub, DeadLetter, Instructions], Run]) -> tuple[Handler, Handler]:
    def document(call: Call, letter: DeadLetter) -> dict[str, Any]:
        run = how(call.stub, letter, call.message())
        return {"workflowRunId": run.id, "workflowCreatedAt": milliseconds(run.created)}

    def many(call: Call) -> Any:
        return {"workflowRuns": [document(call, each) for each in chosen_letters(call)[:50]]}

    def one(call: Call) -> Any:
        return document(call, one_letter(call))

    return many, one


resume_many, resume_one = revive(resume.resume)
restart_many, restart_one = revive(resume.restart)


def call_failure_again(call: Call) -> Any:
    found = one_letter(call)
    resume.call_again(call.stub, found)
    run = found.message.run
    assert run is not None
    return {"workflowRunId": run.id, "workflowCreatedAt": milliseconds(run.created)}


# Schedules, keys, flow control


def put_schedule(call: Call) -> Any:
    given, stub = call.message(), call.stub
    cron = given.get("cron")
    if cron is None:
        raise Fault("A schedule needs Upstash-Cron.")
    if given.run_id is not None or given.features:
        raise Fault("A schedule's message is a plain one: the endpoint starts the run.")
    key = given.get("schedule-id") or f"scd_{stub.number('schedule'):04d}"
    old = stub.schedules.get(key)
    stub.schedules[key] = Schedule(
        id=key,
        cron=cron,
        destination=destination(call.rest),
        instructions=given,
        body=call.request.body,
        created=stub.clock() if old is None else old.created,
        next=cron.after(stub.clock()),
    )
    return {"scheduleId": key}


def one_schedule(call: Call) -> Schedule:
    if (found := call.stub.schedules.get(call.parts[0])) is None:
        raise Refused(404, f"There is no schedule {call.parts[0]}.")
    return found


def get_schedule(call: Call) -> Any:
    return documents.schedule_document(one_schedule(call))


def get_schedules(call: Call) -> Any:
    return [documents.schedule_document(schedule) for schedule in call.stub.schedules.values()]


def delete_schedule(call: Call) -> Any:
    del call.stub.schedules[one_schedule(call).id]


def pause_schedule(call: Call) -> Any:
    one_schedule(call).paused = True


def resume_schedule(call: Call) -> Any:
    schedule = one_schedule(call)
    schedule.paused, schedule.next = False, schedule.cron.after(call.stub.clock())


def get_keys(call: Call) -> Any:
    return {"current": call.stub.keys.current, "next": call.stub.keys.next}


def get_flow_key(call: Call) -> Any:
    if (key := call.stub.flow_keys.get(call.parts[0])) is None:
        raise Refused(404, f"There is no flow control key {call.parts[0]}.")
    return documents.flow_document(call.stub, call.parts[0], key)


def get_flow_keys(call: Call) -> Any:
    return [documents.flow_document(call.stub, name, key) for name, key in call.stub.flow_keys.items()]


def pause_flow_key(call: Call) -> Any:
    if (key := call.stub.flow_keys.get(call.parts[0])) is None:
        raise Refused(404, f"There is no flow control key {call.parts[0]}.")
    key.paused = call.request.target.endswith("/pause")


GET, POST, DELETE = ("GET",), ("POST",), ("DELETE",)
ANY = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
SWITCH = ("PATCH", "POST", "PUT")
LOG_FILTERS = (
    *("groupBy", "cursor", "count", "workflowRunId", "workflowUrl", "workflowCreatedAt", "state", "label", "messageId"),
    *("fromDate", "toDate", "callerIp", "flowControlKey", "trimBody", "workflowRuns", "host", "path"),
)
ONE = "([^/]+)"

ROUTES = (
    Route(POST, "/v2/publish/(.+)", publish, raw=True, is_message=True),
    Route(POST, "/v2/batch", batch, body=True),
    Route(POST, "/v2/batch/trigger", batch_trigger, body=True),
    Route(POST, "/v2/trigger/(.+)", trigger, raw=True, is_message=True),
    Route(GET, f"/v2/messages/{ONE}", get_message),
    Route(DELETE, f"/v2/messages/{ONE}", delete_message),
    Route(POST, f"/v2/wait/{ONE}", wait, is_message=True),
    Route(POST, f"/v2/notify/{ONE}", notify, body=True, headers=("upstash-deduplication-id",)),
    Route(POST, f"/v2/notify/{ONE}/{ONE}", notify, body=True, headers=("upstash-deduplication-id",)),
    Route(GET, f"/v2/waiters/{ONE}", waiters),
    Route(ANY, f"/v2/workflows/hooks/{ONE}/{ONE}/{ONE}", hook, public=True, raw=True),
    Route(GET, f"/v2/workflows/runs/{ONE}", get_run),
    Route(DELETE, f"/v2/workflows/runs/{ONE}", delete_run, query=("cancel",), body=True),
    Route(DELETE, "/v2/workflows/runs", cancel_runs, query=RUN_FILTERS),
    Route(GET, "/v2/workflows/(?:events|logs)", logs, query=LOG_FILTERS),
    Route(GET, "/v2/dlq", letters, query=(*LETTER_FILTERS, "source")),
    Route(GET, "/v2/workflows/dlq", letters, query=LETTER_FILTERS),
    Route(GET, f"/v2/workflows/dlq/{ONE}", letter),
    Route(DELETE, f"/v2/workflows/dlq/{ONE}", delete_letter),
    Route(DELETE, "/v2/workflows/dlq", delete_letters, query=LETTER_FILTERS),
    Route(POST, f"/v2/workflows/dlq/resume/{ONE}", resume_one, is_message=True),
    Route(POST, f"/v2/workflows/dlq/restart/{ONE}", restart_one, is_message=True),
    Route(POST, "/v2/workflows/dlq/resume", resume_many, query=LETTER_FILTERS, is_message=True),
    Route(POST, "/v2/workflows/dlq/restart", restart_many, query=LETTER_FILTERS, is_message=True),
    Route(POST, f"/v2/workflows/dlq/callback/{ONE}", call_failure_again),
    Route(POST, "/v2/schedules/(https?:.+)", put_schedule, raw=True, is_message=True),
    Route(GET, "/v2/schedules", get_schedules),
    Route(GET, f"/v2/schedules/{ONE}", get_schedule),
    Route(DELETE, f"/v2/schedules/{ONE}", delete_schedule),
    Route(SWITCH, f"/v2/schedules/{ONE}/pause", pause_schedule),
    Route(SWITCH, f"/v2/schedules/{ONE}/resume", resume_schedule),
    Route(GET, "/v2/keys", get_keys),
    Route(GET, "/v2/flowControl", get_flow_keys, query=("search",)),
    Route(GET, f"/v2/flowControl/{ONE}", get_flow_key),
    Route(POST, f"/v2/flowControl/{ONE}/(?:pause|resume)", pause_flow_key),
    Route(GET, "/v2/readiness", lambda call: {"ready": True}, public=True),
)

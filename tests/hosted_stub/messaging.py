"""Messages in: starts, steps, calls, waits, invocations, schedules and plain messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.hosted_stub import rules, values
from tests.hosted_stub.model import Config, Entry, Invoker, Message, Run, Schedule, State, StepRecord, Waiter
from tests.hosted_stub.refusals import Fault, Refused
from tests.hosted_stub.vocabulary import CallbackConfig, Instructions, read_message

if TYPE_CHECKING:
    from tests.hosted_stub.service import HostedStub

DEDUPLICATION_SECONDS = 600


@dataclass(frozen=True)
class Item:
    """One message of a request, read but not taken yet."""

    destination: str
    instructions: Instructions
    body: bytes

    @property
    def method(self) -> str:
        return str(self.instructions.get("method", "POST"))

    @property
    def is_call(self) -> bool:
        return self.instructions.call_type == "toCallback"

    @property
    def is_step(self) -> bool:
        return self.instructions.run_id is not None and not self.instructions.init and not self.is_call


def accept(stub: HostedStub, items: list[Item]) -> list[dict[str, Any]]:
    """Take all of a request's messages, or refuse them together; one answer for each."""
    for item in items:
        check(stub, item)
    steps = {index: rules.read_step(item.body, item.instructions) for index, item in enumerate(items) if item.is_step}
    _accept_plans(stub, items, steps)
    return [_accept(stub, item, steps.get(index)) for index, item in enumerate(items)]


def check(stub: HostedStub, item: Item) -> None:
    """The headers of one message, and whether its run still takes messages."""
    given = item.instructions
    if given.call_type in ("fromCallback", "failureCall"):
        raise Fault(f"Upstash-Workflow-CallType {given.call_type} stands in the headers of callbacks only.")
    if given.run_id is None:
        if left := [name for name in given.control if name.startswith("workflow-")]:
            raise Fault(f"Upstash-{left[0]} without Upstash-Workflow-RunId.")
    elif item.is_call:
        rules.check_call(given)
    elif given.init:
        rules.check_init(given, item.destination, item.method)
    else:
        rules.check_step(given, item.destination)
    if (given.get("retries") or 0) > stub.most_retries:
        raise Refused(412, f"max retries exceeded: {given.get('retries')} > {stub.most_retries}")
    if given.run_id is not None and not given.init:
        stub.run_to_append(given.run_id)


def _accept_plans(stub: HostedStub, items: list[Item], steps: Mapping[int, dict[str, Any]]) -> None:
    plans: dict[str, list[dict[str, Any]]] = {}
    for index, step in steps.items():
        if step["stepId"] == 0:
            plans.setdefault(items[index].instructions.run_id or "", []).append(step)
    for run_id, group in plans.items():
        rules.accept_plans(stub.run_to_append(run_id), group, stub.clock())


def _accept(stub: HostedStub, item: Item, step: dict[str, Any] | None) -> dict[str, Any]:
    given = item.instructions
    if (known := _duplicate(stub, item)) is not None:
        return {"messageId": known.id, "deduplicated": True, "url": item.destination}
    if given.init:
        answer, message = _start(stub, item)
    elif item.is_call:
        message = _call(stub, item)
        answer = {"messageId": message.id}
    elif step is not None:
        message = _step(stub, item, step)
        answer = {"messageId": message.id}
    else:
        message = _plain(stub, item)
        answer = {"messageId": message.id, "url": item.destination}
    if (key := given.get("deduplication-id")) and message is not None:
        stub.duplicates[key] = (stub.clock(), message)
    return answer


def _duplicate(stub: HostedStub, item: Item) -> Message | None:
    key = item.instructions.get("deduplication-id")
    at, message = stub.duplicates.get(key, (0.0, None)) if key else (0.0, None)
    return message if stub.clock() < at + DEDUPLICATION_SECONDS else None


# Runs start


def _start(stub: HostedStub, item: Item) -> tuple[dict[str, Any], Message | None]:
    given = item.instructions
    live = stub.run(given.run_id or "")
    if given.get("workflow-trigger-by-sdk"):
        return _adopt(stub, item, live)
    if live is not None and live.live:
        return {"messageId": live.journal[0].message.id, "deduplicated": True, "url": item.destination}, None
    payload, invoker = item.body, None
    if given.get("workflow-invoke"):
        payload, invoker = _invoked(stub, item)
    run = new_run(stub, item, payload)
    run.invoker = invoker
    answer = {
        "messageId": run.journal[0].message.id,
        "url": item.destination,
        "workflowRunId": run.id,
        "workflowCreatedAt": round(run.created * 1000),
    }
    return answer, run.journal[0].message


def new_run(stub: HostedStub, item: Item, payload: bytes, *, by_rest: bool = False) -> Run:
    given = item.instructions
    run = Run(
        id=given.run_id or "",
        url=item.destination,
        created=stub.clock(),
        payload=payload,
        config=config_of(given),
        features=given.features,
        labels=given.get("label", ()),
        redact=given.get("redact-fields", ()),
        content_type=given.content_type,
        by_rest=by_rest,
    )
    stub.runs.append(run)
    append(stub, run, item, payload)
    return run


def _adopt(stub: HostedStub, item: Item, run: Run | None) -> tuple[dict[str, Any], Message]:
    """The endpoint's answer to a start by REST: the run goes on with what the SDK says about it."""
    if run is None or not run.live or not run.by_rest or run.adopted:
        raise Fault(f"Upstash-Workflow-Trigger-By-Sdk for {item.instructions.run_id!r}, which REST did not start.")
    given = config_of(item.instructions)
    run.adopted, run.features = True, item.instructions.features
    run.config = replace(run.config, forward=given.forward, failure=run.config.failure or given.failure)
    run.journal.clear()
    message = append(stub, run, item, item.body)
    message.config = run.config
    answer = {"messageId": message.id, "url": item.destination, "workflowRunId": run.id}
    return answer, message


def _invoked(stub: HostedStub, item: Item) -> tuple[bytes, Invoker]:
    body = rules.read_json(item.body, "An invocation")
    parent = stub.run(body.get("workflowRunId", "")) if isinstance(body, dict) else None
    invoke = rules.read_invoke(item.body, item.instructions, parent)
    assert parent is not None
    stub.run_to_append(parent.id)
    back = read_message(rules.header_pairs(invoke["headers"], "headers of an invocation"), over_http=False)
    if back.run_id != parent.id:
        raise Fault(f"headers of an invocation name the run {back.run_id!r}, not {parent.id!r}.")
    rules.check_step(back, parent.url)
    record = rules.accept_start(parent, invoke["step"], stub.clock())
    record.body = {**record.body, "invoked": item.instructions.run_id}
    return invoke.get("body", "").encode(), Invoker(parent, invoke["workflowUrl"], invoke["step"], back)


def append_invoke_result(stub: HostedStub, child: Run, *, failed: bool = False, canceled: bool = False) -> None:
    """Tell the run that invoked this one how it ended, if it is still there."""
    invoker = child.invoker
    if invoker is None or not invoker.run.live:
        return
    body = rules.invoke_appended(invoker.step, body=child.response, failed=failed, canceled=canceled)
    message = append(stub, invoker.run, Item(invoker.url, invoker.instructions, body), body)
    _done(invoker.run, invoker.step, message, body)
    invoker.run.steps[invoker.step["stepId"]].child = child


# Steps


def config_of(given: Instructions, kept: Config | None = None) -> Config:
    """How a message is delivered: by its own headers, and by what its run has `kept` from its start."""
    kept = kept or Config()
    names = {name.lower() for name in given.forward}
    forward = {name: value for name, value in kept.forward.items() if name.lower() not in names}
    failure = given.failure if given.failure is not None and given.failure.url is not None else kept.failure
    return Config(
        forward={**forward, **given.forward},
        retries=given.get("retries", kept.retries),
        retry_delay=given.get("retry-delay", kept.retry_delay),
        timeout=given.get("timeout", kept.timeout),
        flow=given.flow or kept.flow,
        failure=failure,
    )


def append(stub: HostedStub, run: Run, item: Item, body: bytes) -> Message:
    """A step message at the end of the run's journal; it is delivered when its time has come."""
    given = item.instructions
    kept = run.config if "WF_TriggerOnConfig" in given.features else None
    message = new_message(stub, item, body, "step", config_of(given, kept))
    message.run, message.features, message.labels = run, given.features, run.labels
    run.journal.append(Entry(message))
    return message


def _step(stub: HostedStub, item: Item, step: dict[str, Any]) -> Message:
    run = stub.run_to_append(item.instructions.run_id)
    record = run.steps[step["targetStep"]] if step["stepId"] == 0 else rules.accept_result(run, step, stub.clock())
    if step["stepType"] == "CreateWebhook" and step["stepId"]:
        check_webhook(stub, run, step)
    message = append(stub, run, item, item.body)
    if record.id not in run.repeated:
        record.message = message
    return message


def check_webhook(stub: HostedStub, run: Run, step: Mapping[str, Any]) -> None:
    made = rules.read_json(step["out"], "out of a webhook")
    expected = f"{stub.url}/v2/workflows/hooks/{stub.user_id}/{run.id}/{made.get('eventId')}"
    if made.get("webhookUrl") != expected:
        raise Fault(f"webhookUrl is {made.get('webhookUrl')!r}, and nobody listens there but at {expected!r}.")


def _call(stub: HostedStub, item: Item) -> Message:
    run = stub.run_to_append(item.instructions.run_id)
    if item.instructions.get("workflow-url") != run.url:
        raise Fault(f"Upstash-Workflow-Url of a call is not that of run {run.id}, {run.url!r}.")
    told = rules.check_call(item.instructions)
    step = {"stepId": told.id, "stepName": told.name, "stepType": "Call", "concurrent": told.concurrent}
    record = rules.accept_start(run, step, stub.clock())
    message = new_message(stub, item, item.body, "toCallback", config_of(item.instructions))
    message.run, message.callback, message.labels = run, item.instructions.callback, run.labels
    run.journal.append(Entry(message))
    record.call = message
    return message


def _plain(stub: HostedStub, item: Item) -> Message:
    message = new_message(stub, item, item.body, "", config_of(item.instructions))
    message.callback, message.labels = item.instructions.callback, item.instructions.get("label", ())
    return message


def new_message(stub: HostedStub, item: Item, body: bytes, call_type: str, config: Config) -> Message:
    given, now = item.instructions, stub.clock()
    until = given.get("not-before")
    due = max(now, until) if until is not None else now + (given.get("delay") or 0)
    stub.use_flow_key(config.flow)
    message = Message(
        id=stub.new_id("msg"),
        call_type=call_type,
        destination=item.destination,
        method=item.method,
        content_type=given.content_type,
        body=body,
        config=config,
        created=now,
        due=due,
        first=due,
    )
    stub.messages.append(message)
    return message


def callback_item(config: CallbackConfig, url: str, body: bytes) -> Item:
    """The message of a callback, whose headers stood in the message that it is about."""
    control = {name: value for name, value in config.control.items() if name != "failure-callback"}
    failure = config.nested_failure
    return Item(url, Instructions("application/json", control, config.forward, failure=failure), body)


# Waits


def wait(stub: HostedStub, event_id: str, given: Instructions, body: bytes) -> dict[str, Any]:
    if not event_id:
        raise Fault("A wait needs the id of an event.")
    if given.get("workflow-calltype") != "step" or given.content_type != "application/json":
        raise Fault("A wait comes with Upstash-Workflow-CallType: step and Content-Type: application/json.")
    rules.check_step(given, str(given.get("workflow-url")))
    asked = rules.read_wait(body, given)
    run = stub.run_to_append(given.run_id)
    if asked["url"] != run.url:
        raise Fault(f"url of a wait is {asked['url']!r}, but the run's {run.url!r}.")
    late = read_message(rules.header_pairs(asked["timeoutHeaders"], "timeoutHeaders"), over_http=True)
    if late.run_id != run.id:
        raise Fault(f"timeoutHeaders name the run {late.run_id!r}, not {run.id!r}.")
    rules.check_step(late, run.url)
    record = rules.accept_start(run, asked["step"], stub.clock())
    waiter = Waiter(
        event_id=event_id,
        run=run,
        step=asked["step"],
        url=asked["url"],
        headers=rules.header_pairs(asked["timeoutHeaders"], "timeoutHeaders"),
        timeout=str(asked["timeout"]),
        timeout_url=asked["timeoutUrl"],
        timeout_headers=asked["timeoutHeaders"],
        deadline=stub.clock() + values.duration_or_seconds(str(asked["timeout"])),
        instructions=given,
        timeout_instructions=late,
    )
    record.wait = waiter
    stub.waiters.append(waiter)
    answer = {"messageId": stub.new_id("msg")}
    if kept := run.kept_events.get(event_id):
        append_wait_result(stub, waiter, kept.popleft())
    return answer


def append_wait_result(stub: HostedStub, waiter: Waiter, data: bytes | None) -> Message:
    """End a wait, with an event's data or without any after its time."""
    stub.waiters.remove(waiter)
    waiter.timed_out = data is None
    given = waiter.timeout_instructions if data is None else waiter.instructions
    body = rules.waits_appended(waiter.step, waiter.event_id, data)
    message = append(stub, waiter.run, Item(waiter.url, given, body), body)
    _done(waiter.run, waiter.step, message, body)
    return message


def _done(run: Run, step: Mapping[str, Any], message: Message, body: bytes) -> None:
    record: StepRecord = run.steps[step["stepId"]]
    record.state, record.message, record.body = "done", message, rules.read_json(body, "A step")


def notify(stub: HostedStub, event_id: str, run_id: str | None, data: bytes) -> list[dict[str, Any]]:
    found = [waiter for waiter in stub.waiters if waiter.event_id == event_id]
    if run_id is None:
        return [_notified(stub, waiter, data) for waiter in found]
    run = stub.run(run_id)
    if run is None or not run.live:
        raise Refused(400, f"There is no run {run_id} that could wait for {event_id}.")
    for waiter in found:
        if waiter.run is run:
            return [_notified(stub, waiter, data)]
    run.kept_events.setdefault(event_id, deque()).append(data)
    return [_result(run, stub.new_id("msg_kept"))]


def _notified(stub: HostedStub, waiter: Waiter, data: bytes) -> dict[str, Any]:
    message = append_wait_result(stub, waiter, data)
    return {"waiter": waiter_document(waiter), **_result(waiter.run, message.id)}


def _result(run: Run, message_id: str) -> dict[str, Any]:
    return {
        "messageId": message_id,
        "error": "",
        "workflowRunId": run.id,
        "workflowCreatedAt": round(run.created * 1000),
    }


def waiter_document(waiter: Waiter) -> dict[str, Any]:
    return {
        "url": waiter.url,
        "headers": waiter.timeout_headers,
        "deadline": int(waiter.deadline),
        "timeoutUrl": waiter.timeout_url,
        "timeoutHeaders": waiter.timeout_headers,
    }


# Schedules


def publish_schedule(stub: HostedStub, schedule: Schedule, now: float) -> None:
    """A fire of a schedule: its message, once, however many fires were missed."""
    item = Item(schedule.destination, schedule.instructions, schedule.body)
    message = _plain(stub, item)
    message.schedule_id = schedule.id
    schedule.states = {**schedule.states, message.id: message}
    schedule.last, schedule.next = schedule.next, schedule.cron.after(now)


def cancel_messages(messages: Iterable[Message]) -> None:
    for message in messages:
        if message.state is State.PENDING:
            message.state = State.CANCELED

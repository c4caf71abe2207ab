"""What a workflow's endpoint may send: the combinations of headers, the bodies of steps, and their order in the run.

Each function raises Fault for what the protocol's reference does not allow.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from tests.hosted_stub import values
from tests.hosted_stub.model import Run, StepRecord
from tests.hosted_stub.refusals import Fault
from tests.hosted_stub.vocabulary import CallbackConfig, Instructions

OF_STEPS = frozenset({"LazyFetch", "InitialBody", "WF_DetectTrigger"})
OF_CALLS = frozenset({"WF_NoDelete", "InitialBody"})
OF_CALLBACKS = frozenset({"LazyFetch", "InitialBody"})

DEEPEST_INVOKE = 100
STEP_TYPES = ("Run", "SleepFor", "SleepUntil", "Call", "Wait", "Notify", "Invoke", "CreateWebhook", "WaitForWebhook")
APPENDED_BY_ENDPOINTS = ("Run", "SleepFor", "SleepUntil", "Notify", "CreateWebhook")
WAITS = ("Wait", "WaitForWebhook")

# The Python SDK writes these into every step, where they mean nothing.
OF_PYTHON = {"method", "callUrl", "callMethod", "callBody", "callHeaders"}
STEP_KEYS = OF_PYTHON | {
    *("stepId", "stepName", "stepType", "out", "concurrent", "targetStep"),
    *("sleepFor", "sleepUntil", "waitEventId", "timeout"),
}


# Headers


def check_init(message: Instructions, destination: str, method: str) -> None:
    """The message that starts a run."""
    check_run_message(message, destination)
    if method != "POST":
        raise Fault(f"A workflow is started with POST, not {method}.")
    if message.callback is not None or message.get("workflow-calltype"):
        raise Fault("The message that starts a run has neither a callback nor a call type.")
    if message.failure is not None and message.failure.url is not None:
        check_failure(message.failure, message, destination)


def check_step(message: Instructions, destination: str) -> None:
    check_run_message(message, destination)
    if message.get("workflow-invoke") or message.get("workflow-trigger-by-sdk"):
        raise Fault("Upstash-Workflow-Invoke and -Trigger-By-Sdk belong to messages that start a run.")
    if message.get("cron") or message.get("schedule-id"):
        raise Fault("A step is no schedule.")
    if message.callback is not None:
        raise Fault("A step has no callback; only calls have.")


def check_run_message(message: Instructions, destination: str) -> None:
    """What all messages to the run's own endpoint have in common."""
    if message.get("workflow-url") != destination:
        raise Fault(f"Upstash-Workflow-Url is {message.get('workflow-url')!r}, but the destination {destination!r}.")
    if missing := OF_STEPS - message.features:
        raise Fault(f"Upstash-Feature-Set lacks {', '.join(sorted(missing))}.")
    if "WF_NoDelete" in message.features:
        raise Fault("WF_NoDelete belongs to calls.")
    if forwarded(message.forward, "upstash-workflow-sdk-version") != "1":
        raise Fault("Upstash-Forward-Upstash-Workflow-Sdk-Version: 1 is missing, which marks deliveries of steps.")
    if message.content_type is None:
        raise Fault("Content-Type is missing.")
    if message.get("workflow-init") is None:
        raise Fault("Upstash-Workflow-Init is missing: true or false.")


def check_failure(failure: CallbackConfig, message: Instructions, destination: str) -> None:
    """The failure callback: to the given URL, as a failure call of this run."""
    expected = {
        "workflow-runid": message.run_id,
        "workflow-init": "false",
        "workflow-url": destination,
        "workflow-calltype": "failureCall",
    }
    check_control(failure, expected, "Upstash-Failure-Callback-")
    if not failure.control.get("feature-set", frozenset()) >= {"InitialBody"}:
        raise Fault("Upstash-Failure-Callback-Feature-Set lacks InitialBody.")
    for name in ("upstash-workflow-is-failure", "upstash-workflow-failure-callback"):
        if forwarded(failure.forward, name) != "true":
            raise Fault(f"Upstash-Failure-Callback-Forward-{name}: true is missing.")
    for name in ("retries", "retry-delay", "flow-control-key", "flow-control-value"):
        if failure.control.get(name) != message.get(name):
            raise Fault(f"Upstash-Failure-Callback-{name} differs from Upstash-{name}.")


def check_call(message: Instructions) -> StepRecord:
    """A call of `context.call`; the step that it is about."""
    if message.init or message.get("workflow-init") != "false":
        raise Fault("Upstash-Workflow-Init of a call is false.")
    if message.features != OF_CALLS:
        raise Fault(f"Upstash-Feature-Set of a call is {', '.join(sorted(OF_CALLS))}.")
    if message.get("retries") is None:
        raise Fault("Upstash-Retries is missing: a call says how often it is tried again.")
    if forwarded(message.forward, "upstash-workflow-sdk-version"):
        raise Fault("A call's target must not see Upstash-Workflow-Sdk-Version.")
    if message.content_type is None:
        raise Fault("Content-Type is missing.")
    back = message.callback
    if back is None or back.url is None:
        raise Fault("A call needs Upstash-Callback: its answer would reach nobody.")
    url = message.get("workflow-url")
    if back.url != url:
        raise Fault(f"Upstash-Callback is {back.url!r}, but the workflow's URL {url!r}.")
    expected = {
        "workflow-runid": message.run_id,
        "workflow-calltype": "fromCallback",
        "workflow-init": "false",
        "workflow-url": url,
    }
    check_control(back, expected, "Upstash-Callback-")
    if not back.control.get("feature-set", frozenset()) >= OF_CALLBACKS:
        raise Fault(f"Upstash-Callback-Feature-Set lacks one of {', '.join(sorted(OF_CALLBACKS))}.")
    told = {name: forwarded(back.forward, f"upstash-workflow-{name}") for name in CALL_FORWARDS}
    if lacking := [name for name, value in told.items() if not value]:
        raise Fault(f"Upstash-Callback-Forward-Upstash-Workflow-… lacks {', '.join(lacking)}.")
    if told["callback"] != "true" or told["steptype"] != "Call":
        raise Fault("Upstash-Callback-Forward-Upstash-Workflow-Callback is true and -StepType is Call.")
    try:
        step_id, concurrent = values.whole(told["stepid"] or ""), values.whole(told["concurrent"] or "")
    except ValueError as error:
        raise Fault(f"-StepId and -Concurrent of a call are numbers: {error}.") from error
    return StepRecord(step_id, utf8(told["stepname"] or ""), "Call", concurrent, 0.0, 0)


CALL_FORWARDS = ("callback", "stepid", "stepname", "steptype", "concurrent", "contenttype")


def check_control(config: CallbackConfig, expected: Mapping[str, Any], prefix: str) -> None:
    for name, value in expected.items():
        if config.control.get(name) != value:
            raise Fault(f"{prefix}{name} is {config.control.get(name)!r}, not {value!r}.")


def forwarded(forward: Mapping[str, str], name: str) -> str | None:
    return next((value for each, value in forward.items() if each.lower() == name), None)


def utf8(text: str) -> str:
    """A header's value as text: bytes of UTF-8 may have come as Latin-1."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


# Bodies


def read_json(body: bytes | str, what: str) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise Fault(f"{what} is no JSON: {error}.") from error


def read_object(
    body: Any, what: str, needed: Mapping[str, type | tuple[type, ...]], others: set[str]
) -> dict[str, Any]:
    """A JSON object, read or not, with the `needed` keys of these types, and no keys but those and `others`."""
    found = read_json(body, what) if isinstance(body, bytes | str) else body
    if not isinstance(found, dict):
        raise Fault(f"{what} is no JSON object.")
    for key, kind in needed.items():
        value = found.get(key)
        if isinstance(value, bool) or not isinstance(value, kind):
            raise Fault(f"{what} has {key} {value!r}, which is not as documented.")
    if unknown := found.keys() - needed.keys() - others:
        raise Fault(f"{what} has {', '.join(sorted(unknown))}, which is not documented.")
    return found


def read_step(body: bytes, message: Instructions) -> dict[str, Any]:
    """The step in a message's body, without nulls, checked against the headers that it came with."""
    step = read_object(body, "A step", STEP_FIELDS, STEP_KEYS)
    step = {key: value for key, value in step.items() if value is not None}
    if not step["stepName"]:
        raise Fault("A step has an empty name.")
    if step["stepType"] not in STEP_TYPES:
        raise Fault(f"There are no steps of type {step['stepType']!r}.")
    if step["concurrent"] < 1:
        raise Fault(f"concurrent is {step['concurrent']}.")
    is_plan = step["stepId"] == 0
    if is_plan != ("targetStep" in step):
        raise Fault("A plan, and nothing else, has the stepId 0 and a targetStep.")
    if "out" in step and (is_plan and step["out"] != "null"):
        raise Fault("A plan has no out.")
    if "out" in step and not isinstance(step["out"], str):
        raise Fault(f"out is {step['out']!r}, and not JSON in a string.")
    if not is_plan:
        check_out(step)
    check_time(step, message, is_plan)
    return step


STEP_FIELDS: dict[str, type | tuple[type, ...]] = {
    "stepId": int,
    "stepName": str,
    "stepType": str,
    "concurrent": int,
}


def check_out(step: Mapping[str, Any]) -> None:
    kind, out = step["stepType"], step.get("out")
    if kind in WAITS or kind == "Invoke":
        raise Fault(f"The engine itself appends the results of {kind} steps.")
    if out is None:
        if kind in ("Call", "Notify", "CreateWebhook"):
            raise Fault(f"A {kind} step has no out.")
        return
    result = read_json(out, f"out of the step {step['stepName']!r}")
    keys = {
        "Call": {"status", "body", "header"},
        "Notify": {"eventId", "eventData", "notifyResponse"},
        "CreateWebhook": {"webhookUrl", "eventId"},
    }.get(kind)
    if keys is not None and (not isinstance(result, dict) or not result.keys() <= keys):
        raise Fault(f"out of a {kind} step has {', '.join(sorted(keys))}, and is {out[:200]!r}.")


def check_time(step: Mapping[str, Any], message: Instructions, is_plan: bool) -> None:
    """A sleep's length stands in its message too: in the plan's, or in the step's if it has no plan."""
    kind = step["stepType"]
    if ("sleepFor" in step) != (kind == "SleepFor") or ("sleepUntil" in step) != (kind == "SleepUntil"):
        raise Fault(f"A {kind} step has the wrong sleep: {json.dumps(step)[:300]}.")
    sleeps = is_plan or step["concurrent"] == 1
    delay, until = message.get("delay"), message.get("not-before")
    if kind == "SleepFor" and sleeps:
        length = step["sleepFor"]
        seconds = values.duration(length) if isinstance(length, str) else length
        if delay is None or round(seconds) != delay:
            raise Fault(f"sleepFor is {length!r}, but Upstash-Delay {delay!r}.")
    elif kind == "SleepUntil" and sleeps:
        if until is None or abs(step["sleepUntil"] - until) > 1:
            raise Fault(f"sleepUntil is {step['sleepUntil']!r}, but Upstash-Not-Before {until!r}.")
    elif delay is not None or until is not None:
        raise Fault(f"A {kind} step {'of a group ' if not sleeps else ''}has no delay.")


def read_wait(body: bytes, message: Instructions) -> dict[str, Any]:
    wait = read_object(
        body,
        "A wait",
        {"url": str, "timeout": (str, int), "timeoutUrl": str, "timeoutHeaders": dict, "step": dict},
        {"timeoutBody"},
    )
    for key in ("url", "timeoutUrl"):
        if wait[key] != message.get("workflow-url"):
            raise Fault(f"{key} of a wait is {wait[key]!r}, but the workflow's URL {message.get('workflow-url')!r}.")
    try:
        values.duration_or_seconds(str(wait["timeout"]))
    except ValueError as error:
        raise Fault(f"timeout of a wait: {error}.") from error
    header_pairs(wait["timeoutHeaders"], "timeoutHeaders")
    read_open_step(wait["step"], WAITS)
    return wait


def read_open_step(step: Any, types: Iterable[str]) -> dict[str, Any]:
    """A step without its result, which the engine adds: of a wait or an invocation."""
    found = read_object(step, "The step", STEP_FIELDS, {"targetStep"})
    if found["stepType"] not in types:
        raise Fault(f"stepType is {found['stepType']!r}, not one of {', '.join(types)}.")
    if found["stepId"] < 1 or "targetStep" in found or not found["stepName"]:
        raise Fault(f"This is no step that waits: {json.dumps(found)[:300]}.")
    return found


def read_invoke(body: bytes, message: Instructions, parent: Run | None) -> dict[str, Any]:
    invoke = read_object(
        body,
        "An invocation",
        {"headers": dict, "workflowRunId": str, "workflowRunCreatedAt": int, "workflowUrl": str, "step": dict},
        {"body"},
    )
    if not isinstance(invoke.get("body", ""), str):
        raise Fault("The payload of an invocation is text.")
    if parent is None:
        raise Fault(f"An invocation by the run {invoke['workflowRunId']!r}, which nobody knows.")
    if round(parent.created * 1000) != invoke["workflowRunCreatedAt"]:
        raise Fault(f"workflowRunCreatedAt is {invoke['workflowRunCreatedAt']}, not {round(parent.created * 1000)}.")
    if invoke["workflowUrl"] != parent.url:
        raise Fault(f"workflowUrl is {invoke['workflowUrl']!r}, but the invoking run's {parent.url!r}.")
    count = forwarded(message.forward, "upstash-workflow-invoke-count")
    if count is None or not count.isdecimal() or int(count) < 1:
        raise Fault(f"Upstash-Forward-Upstash-Workflow-Invoke-Count is {count!r}.")
    if int(count) > DEEPEST_INVOKE:
        raise Fault(f"Workflows invoke one another {DEEPEST_INVOKE} deep at most.")
    if message.failure is None:
        raise Fault("An invocation has a failure callback, to the invoked workflow.")
    if forwarded(message.failure.forward, "upstash-workflow-invoke-count") != count:
        raise Fault("Upstash-Failure-Callback-Forward-Upstash-Workflow-Invoke-Count differs from the message's.")
    header_pairs(invoke["headers"], "headers of an invocation")
    read_open_step(invoke["step"], ("Invoke",))
    return invoke


def header_pairs(headers: Mapping[str, Any], what: str) -> list[tuple[str, str]]:
    """`{"X-Foo": ["v"]}` as pairs."""
    pairs: list[tuple[str, str]] = []
    for name, given in headers.items():
        if not isinstance(given, list) or not all(isinstance(value, str) for value in given):
            raise Fault(f"{what} has {name} {given!r}, and not a list of texts.")
        pairs.extend((name, value) for value in given)
    return pairs


# Order


def accept_plans(run: Run, plans: list[dict[str, Any]], now: float) -> None:
    """A group of parallel steps is planned by one batch, from the next free step id on."""
    check_group_is_over(run)
    count, first = len(plans), highest(run) + 1
    if count < 2:
        raise Fault("A single step is no group and has no plan.")
    run.groups += 1
    for offset, plan in enumerate(plans):
        if plan["concurrent"] != count:
            raise Fault(f"The group has {count} plans, but concurrent is {plan['concurrent']}.")
        if plan["targetStep"] != first + offset:
            raise Fault(f"targetStep is {plan['targetStep']}, but the next step is {first + offset}.")
        run.steps[plan["targetStep"]] = StepRecord(
            plan["targetStep"], plan["stepName"], plan["stepType"], count, now, run.groups, body=plan
        )


def accept_result(run: Run, step: Mapping[str, Any], now: float) -> StepRecord:
    """A step's result, by a message of the endpoint. One that came before may come again: its answer may be lost."""
    record = run.steps.get(step["stepId"])
    if record is not None and record.state == "done" and step["stepType"] not in (*WAITS, "Invoke"):
        check_same(record, step)
        run.repeated.append(record.id)
        return record
    if step["stepType"] == "Call":
        if record is None or record.state != "started" or record.type != "Call":
            raise Fault(f"A result of the call {step['stepId']}, which is not on its way.")
        check_same(record, step)
    else:
        record = _begin(run, step, now)
    record.state, record.body = "done", dict(step)
    return record


def accept_start(run: Run, step: Mapping[str, Any], now: float) -> StepRecord:
    """A call, a wait or an invocation goes out; its result comes later."""
    record = _begin(run, step, now)
    record.state, record.body = "started", dict(step)
    return record


def _begin(run: Run, step: Mapping[str, Any], now: float) -> StepRecord:
    step_id = step["stepId"]
    record = run.steps.get(step_id)
    if record is not None:
        if record.state != "planned":
            raise Fault(f"The step {step_id} of run {run.id} was submitted twice.")
        check_same(record, step)
        return record
    check_group_is_over(run)
    if step_id != highest(run) + 1:
        raise Fault(f"stepId is {step_id}, but the next step of run {run.id} is {highest(run) + 1}.")
    if step["concurrent"] != 1:
        raise Fault(f"The step {step_id} belongs to a group of {step['concurrent']} that was not planned.")
    run.groups += 1
    record = StepRecord(step_id, step["stepName"], step["stepType"], 1, now, run.groups)
    run.steps[step_id] = record
    return record


def check_same(record: StepRecord, step: Mapping[str, Any]) -> None:
    was = (record.name, record.type, record.concurrent)
    now = (step["stepName"], step["stepType"], step["concurrent"])
    if was != now:
        raise Fault(f"The step {record.id} was {was} and comes back as {now}.")


def check_group_is_over(run: Run) -> None:
    if unfinished := [record.id for record in run.steps.values() if record.state != "done"]:
        raise Fault(f"A new step of run {run.id} before the end of {unfinished}.")


def highest(run: Run) -> int:
    return max(run.steps, default=0)


def waits_appended(step: Mapping[str, Any], event_id: str, data: bytes | None) -> bytes:
    """The result of a wait, as the engine appends it; without data after its timeout."""
    result: dict[str, Any] = {**step, "waitEventId": event_id}
    if data:
        result["out"] = base64.b64encode(data).decode()
    result["waitTimeout"] = data is None
    return compact(result)


def invoke_appended(step: Mapping[str, Any], *, body: str | None, failed: bool, canceled: bool) -> bytes:
    out: dict[str, Any] = {"isCanceled": canceled, "isFailed": failed}
    if body is not None:
        out["body"] = body
    return compact({**step, "out": compact(out).decode()})


def compact(value: Any) -> bytes:
    """JSON as `JSON.stringify` writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

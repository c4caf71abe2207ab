"""Resources as JSON: runs in the logs, dead letters, schedules, messages, flow control keys."""

from __future__ import annotations

import base64
import hashlib
import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

from tests.hosted_stub.delivery import CALLER_IP, delivered_forwards, milliseconds, source_headers
from tests.hosted_stub.model import DeadLetter, FlowKey, Message, Run, RunState, Schedule, State, StepRecord
from tests.hosted_stub.network import canonical, header_map

if TYPE_CHECKING:
    from tests.hosted_stub.service import HostedStub


def run_document(stub: HostedStub, run: Run) -> dict[str, Any]:
    """A run of `GET /v2/workflows/events?groupBy=workflowRunId`."""
    document: dict[str, Any] = {
        "workflowRunId": run.id,
        "workflowUrl": run.url,
        "workflowState": run.state.value,
        "workflowRunCreatedAt": milliseconds(run.created),
        "workflowRunCallerIp": CALLER_IP,
        "steps": _groups(run),
    }
    if run.completed is not None:
        document["workflowRunCompletedAt"] = milliseconds(run.completed)
    if run.response is not None:
        document["workflowRunResponse"] = _hidden(run, run.response)
    if run.invoker is not None:
        document["invoker"] = {
            "workflowRunId": run.invoker.run.id,
            "workflowUrl": run.invoker.run.url,
            "workflowRunCreatedAt": milliseconds(run.invoker.run.created),
        }
    if run.failure_call is not None and run.letter is not None:
        document["failureFunction"] = _failure_function(run.failure_call, run.letter)
    if run.letter is not None and run.letter.id in stub.letters:
        document["dlqId"] = run.letter.id
    if run.config.flow is not None:
        document["flowControlKey"] = run.config.flow[0]
    return {**document, **_labels(run.labels)}


def _groups(run: Run) -> list[dict[str, Any]]:
    """The initial step, the others in groups, and the call that is pending, or that ended the run badly."""
    groups = [{"type": "sequential", "steps": [_init(run)]}] if run.journal else []
    records = sorted(run.steps.values(), key=lambda record: record.id)
    for _, found in groupby(records, key=lambda record: record.group):
        steps = list(found)
        kind = "parallel" if steps[0].concurrent > 1 else "sequential"
        groups.append({"type": kind, "steps": [_step(run, record) for record in steps]})
    following = _next(run)
    return [*groups, {"type": "next", "steps": [following]}] if following is not None else groups


def _init(run: Run) -> dict[str, Any]:
    message = run.journal[0].message
    return {
        "stepName": "init",
        "stepType": "Initial",
        "callType": "step",
        "messageId": message.id,
        "out": _hidden(run, run.payload.decode("utf-8", "replace")),
        "concurrent": 1,
        "state": "STEP_SUCCESS",
        "retries": run.config.retries,
        "createdAt": milliseconds(run.created),
        "headers": header_map(source_headers(message).items()),
    }


def _step(run: Run, record: StepRecord) -> dict[str, Any]:
    message = record.message or record.call
    step: dict[str, Any] = {
        "stepId": record.id,
        "stepName": record.name,
        "stepType": record.type,
        "callType": "step",
        "messageId": "" if message is None else message.id,
        "concurrent": record.concurrent,
        "state": _step_state(run, record),
        "retries": (message.config if message is not None else run.config).retries,
        "createdAt": milliseconds(record.created),
        "headers": {} if message is None else header_map(source_headers(message).items()),
    }
    if "out" in record.body:
        step["out"] = _hidden(run, record.body["out"])
    for name in ("sleepFor", "sleepUntil"):
        if name in record.body:
            step[name] = record.body[name]
    if record.state != "done" and record.message is not None and record.message.state is State.FAILED:
        step["errors"] = record.message.errors
    step.update(_call_fields(run, record))
    if record.wait is not None:
        step["waitEventId"] = record.wait.event_id
        step["waitTimeoutDuration"] = record.wait.timeout
        step["waitTimeoutDeadline"] = int(record.wait.deadline)
        step["waitTimeout"] = bool(record.wait.timed_out)
    if record.type == "Invoke" and record.child is not None:
        step["invokedWorkflowRunId"] = record.child.id
        step["invokedWorkflowUrl"] = record.child.url
        step["invokedWorkflowCreatedAt"] = milliseconds(record.child.created)
        step["invokedWorkflowRunBody"] = record.child.payload.decode("utf-8", "replace")
        step["invokedWorkflowRunHeaders"] = header_map(record.child.config.forward.items())
    return step


def _call_fields(run: Run, record: StepRecord) -> dict[str, Any]:
    call, answer = record.call, record.answer
    if call is None:
        return {}
    fields: dict[str, Any] = {
        "callUrl": call.destination,
        "callMethod": call.method,
        "callBody": _hidden(run, call.body.decode("utf-8", "replace")),
        "callHeaders": header_map(call.config.forward.items()),
    }
    if answer is not None:
        fields["callResponseStatus"] = answer.status
        fields["callResponseBody"] = _hidden(run, answer.body.decode("utf-8", "replace"))
        fields["callResponseHeaders"] = {canonical(name): values for name, values in answer.headers.items()}
    return fields


def _step_state(run: Run, record: StepRecord) -> str:
    message = record.message
    if record.state == "done":
        sleeps = record.type in ("SleepFor", "SleepUntil") and record.concurrent == 1
        if not sleeps or message is None or message.state is State.DELIVERED or run.state is RunState.SUCCESS:
            return "STEP_SUCCESS"
    if message is not None and message.state is State.FAILED:
        return "STEP_FAILED"
    if not run.live:
        return "STEP_CANCELED"
    pending = record.call if record.state == "started" and record.call is not None else message
    return (
        "STEP_RETRY" if pending is not None and pending.attempts and pending.state is State.PENDING else "STEP_PROGRESS"
    )


def _next(run: Run) -> dict[str, Any] | None:
    """The sequential call that is pending, or that failed or was canceled; a finished run has none."""
    if run.state is RunState.SUCCESS or not run.journal:
        return None
    message = run.journal[-1].message
    open_group = any(record.state != "done" and record.concurrent > 1 for record in run.steps.values())
    if open_group or message.call_type != "step" or message.state is State.DELIVERED:
        return None
    states = {State.FAILED: "STEP_FAILED", State.CANCELED: "STEP_CANCELED"}
    state = states.get(message.state, "STEP_RETRY" if message.attempts else "STEP_PROGRESS")
    found: dict[str, Any] = {"messageId": message.id, "state": state, "retries": message.config.retries}
    if message.config.retry_delay is not None:
        found["retryDelay"] = message.config.retry_delay
    if message.state is State.PENDING:
        found["nextDeliveryTime"] = milliseconds(message.due)
    if message.errors:
        found["errors"] = message.errors
    if message.failed_step:
        found["stepName"] = message.failed_step
    return found


def _failure_function(call: Message, letter: DeadLetter) -> dict[str, Any]:
    found: dict[str, Any] = {
        "messageId": call.id,
        "url": call.destination,
        "state": letter.failure_state,
        "failHeaders": {canonical(name): values for name, values in letter.answer.headers.items()},
        "failStatus": letter.answer.status,
        "failResponse": letter.answer.body.decode("utf-8", "replace"),
        "dlqId": letter.id,
        "maxRetries": call.config.retries,
    }
    if call.errors:
        found["errors"] = call.errors
        found["responseStatus"] = call.errors[-1]["status"]
        found["responseBody"] = call.errors[-1]["body"]
    return found


# Dead letters


def letter_document(letter: DeadLetter) -> dict[str, Any]:
    message, run = letter.message, letter.message.run
    document: dict[str, Any] = {
        "dlqId": letter.id,
        **message_document(message),
        "responseStatus": letter.answer.status,
        "responseHeader": {canonical(name): values for name, values in letter.answer.headers.items()},
        "responseBody": letter.answer.body.decode("utf-8", "replace"),
    }
    if run is not None:
        document["workflowRunId"] = run.id
        document["workflowCreatedAt"] = milliseconds(run.created)
        document["workflowUrl"] = run.url
    if message.config.failure is not None and message.config.failure.url is not None:
        document["failureCallback"] = message.config.failure.url
    if letter.failure_state is not None:
        document["failureCallbackInfo"] = {"state": letter.failure_state}
        document["failureFunctionState"] = letter.failure_state
    return document


def message_document(message: Message) -> dict[str, Any]:
    document: dict[str, Any] = {
        "messageId": message.id,
        "url": message.destination,
        "method": message.method,
        "header": header_map(delivered_forwards(message).items()),
        **_body(message.body),
        "maxRetries": message.config.retries,
        "notBefore": milliseconds(message.first),
        "createdAt": milliseconds(message.created),
        "callerIP": CALLER_IP,
        **_labels(message.labels),
    }
    if message.config.retry_delay is not None:
        document["retryDelayExpression"] = message.config.retry_delay
    if message.config.flow is not None:
        key, limits = message.config.flow
        document.update(flowControlKey=key, period=limits.period)
        document.update(
            {name: value for name, value in (("parallelism", limits.parallelism), ("rate", limits.rate)) if value}
        )
    if message.schedule_id is not None:
        document["scheduleId"] = message.schedule_id
    return document


def schedule_document(schedule: Schedule) -> dict[str, Any]:
    given = schedule.instructions
    words = {State.DELIVERED: "SUCCESS", State.PENDING: "IN_PROGRESS"}
    document: dict[str, Any] = {
        "scheduleId": schedule.id,
        "cron": schedule.cron.text,
        "createdAt": milliseconds(schedule.created),
        "destination": schedule.destination,
        "method": given.get("method", "POST"),
        "header": header_map(given.forward.items()),
        **_body(schedule.body),
        "retries": given.get("retries", 3),
        "callerIP": CALLER_IP,
        "isPaused": schedule.paused,
        "nextScheduleTime": milliseconds(schedule.next),
        "lastScheduleStates": {key: words.get(message.state, "FAIL") for key, message in schedule.states.items()},
        **_labels(given.get("label", ())),
    }
    if schedule.last is not None:
        document["lastScheduleTime"] = milliseconds(schedule.last)
    return document


def flow_document(stub: HostedStub, name: str, key: FlowKey) -> dict[str, Any]:
    limit = key.limit
    waiting = [m for m in stub.messages if m.state is State.PENDING and m.config.flow and m.config.flow[0] == name]
    return {
        "flowControlKey": name,
        "waitListSize": len(waiting),
        "parallelismMax": limit.parallelism or 0,
        "parallelismCount": key.in_flight,
        "rateMax": limit.rate or 0,
        "rateCount": key.window_count,
        "ratePeriod": limit.period,
        "ratePeriodStart": int(key.window_start),
        "isPaused": key.paused,
        "isPinnedParallelism": key.pinned is not None,
        "isPinnedRate": key.pinned is not None,
    }


def _labels(labels: tuple[str, ...]) -> dict[str, Any]:
    return {"label": labels[0], "labels": list(labels)} if labels else {}


def _body(body: bytes) -> dict[str, str]:
    if not body:
        return {}
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"bodyBase64": base64.b64encode(body).decode()}


def _hidden(run: Run, value: Any) -> Any:
    """What logs show of a body: the text, or its hash when the run asked to hide bodies."""
    if "body" not in run.redact:
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return f"REDACTED:{hashlib.sha256(text.encode()).hexdigest()}"

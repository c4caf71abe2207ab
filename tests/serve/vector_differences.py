"""What this package does otherwise than the official SDKs, and why: one table.

Each difference changes a captured case into what we do and says whether it had to. docs/reference/compatibility.md
holds the same list for people, by the same titles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from unittest.mock import ANY

from django_workflow.protocol.durations import to_seconds
from django_workflow.protocol.headers import TRANSPORT
from tests.serve.vector_cases import Case, Sent

FEATURES = "LazyFetch,InitialBody,WF_DetectTrigger,WF_TriggerOnConfig"


class StartsWith(str):
    """Equal to any text that starts with this."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other.startswith(str(self))

    __hash__ = str.__hash__


class Contains(str):
    """Equal to any text that holds this."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str(self) in other

    __hash__ = str.__hash__


class Difference(NamedTuple):
    title: str
    reason: str
    apply: Callable[[Case], bool]


# Messages


def _telemetry(case: Case) -> bool:
    def is_telemetry(name: str) -> bool:
        return name.startswith("upstash-telemetry-")

    found = [_drop(sent.headers, is_telemetry) for sent in case.sent]
    found += [
        _drop(sent.body[key], is_telemetry)
        for sent in case.sent
        for key in ("headers", "timeoutHeaders")
        if isinstance(sent.body, dict) and key in sent.body
    ]
    return any(found)


def _hygiene(case: Case) -> bool:
    hidden = {*TRANSPORT, "upstash-signature", "upstash-message-id", "upstash-retried"}
    prefixed = re.compile(rf"upstash-(failure-callback-)?forward-({'|'.join(map(re.escape, hidden))})")
    # The headers of a call are its author's.
    return _some(_drop(sent.headers, prefixed.fullmatch) for sent in case.sent if not sent.is_call)


def _failure_report(case: Case) -> bool:
    found = False
    for sent in case.sent:
        if not sent.starts_run or case.given.get("Upstash-Workflow-Unknown-Sdk"):
            continue
        run_id, url = sent.headers["upstash-workflow-runid"], sent.headers["upstash-workflow-url"]
        block = {
            "": url,
            "-feature-set": FEATURES,
            "-forward-upstash-workflow-failure-callback": "true",
            "-forward-upstash-workflow-is-failure": "true",
            "-workflow-calltype": "failureCall",
            "-workflow-init": "false",
            "-workflow-runid": run_id,
            "-workflow-url": url,
        }
        for name, text in sent.headers.items():
            if name.startswith("upstash-forward-") and name != "upstash-forward-upstash-workflow-sdk-version":
                block[name.removeprefix("upstash")] = text
        missing = {f"upstash-failure-callback{n}": text for n, text in block.items()}
        missing = {name: text for name, text in missing.items() if name not in sent.headers}
        sent.headers.update(missing)
        found |= bool(missing)
    return found


def _python_features(case: Case) -> bool:
    found = False
    for sent in _python(case):
        for name, text in sent.headers.items():
            if name.endswith("feature-set") and text.startswith("LazyFetch"):
                found |= _set(sent.headers, name, FEATURES)
    return found


def _python_repeats(case: Case) -> bool:
    of_calls = (
        r"upstash-(callback-)?failure-callback.*"
        r"|upstash-callback-(retries|forward-(?!upstash-workflow-).*)"
    )
    of_steps = of_calls + r"|upstash-retries|upstash-forward-(?!upstash-workflow-sdk).*"
    return _some(
        _drop(sent.headers, re.compile(of_calls if sent.is_call else of_steps).fullmatch)
        for sent in _python(case)
        if sent.headers.get("upstash-workflow-init") == "false"
    )


def _callback_retries(case: Case) -> bool:
    return _some(_set(sent.headers, "upstash-callback-retries", "3") for sent in case.sent if sent.is_call)


def _python_base(case: Case) -> bool:
    found = False
    for sent in _python(case):
        if "upstash-workflow-runid" in sent.headers:
            sent.headers.setdefault("upstash-method", "POST")
            found |= _set(sent.headers, "upstash-workflow-sdk-version", "1")
        if sent.is_step:
            found |= sent.body.pop("method", None) is not None
    return found


def _seconds(case: Case) -> bool:
    found = False
    for sent in case.sent:
        for name in ("upstash-delay", "upstash-timeout"):
            if name in sent.headers:
                found |= _set(sent.headers, name, f"{to_seconds(sent.headers[name]):.0f}s")
        if "period=1m" in (flow := sent.headers.get("upstash-flow-control-value", "")):
            found |= _set(sent.headers, "upstash-flow-control-value", flow.replace("period=1m", "period=60s"))
        if isinstance(sent.body, dict) and isinstance(sent.body.get("sleepFor"), str):
            found |= _set(sent.body, "sleepFor", int(to_seconds(sent.body["sleepFor"])))
        if isinstance(sent.body, dict) and "timeout" in sent.body:
            found |= _set(sent.body, "timeout", f"{to_seconds(sent.body['timeout']):.0f}s")
    if "retry-after" in case.headers:
        found |= _set(case.headers, "retry-after", f"{to_seconds(case.headers['retry-after']):.0f}")
    return found


def _no_undefined(case: Case) -> bool:
    found = False
    for sent in case.sent:
        if sent.is_step and sent.body["stepType"] == "Run" and sent.body["stepId"] and "out" not in sent.body:
            sent.body["out"] = None
            found = True
    return found


def _python_sleeps(case: Case) -> bool:
    found = False
    for sent in _python(case):
        if sent.is_step and sent.body["stepType"].startswith("Sleep"):
            found |= sent.body.pop("out", "") is None
        if sent.is_step and sent.body["stepName"] == "su-f":
            found |= _set(sent.body, "sleepUntil", 1760000000.6)
    return found


def _empty_payload(case: Case) -> bool:
    found = False
    for sent in _python(case):
        if (sent.starts_run or sent.is_call) and sent.body is None:
            sent.body = {"text": ""}
            found = True
    return found


def _call_bytes(case: Case) -> bool:
    found = False
    for sent in _python(case):
        if sent.is_step and sent.body["stepType"] == "Call" and "out" in sent.body:
            out = sent.body["out"]
            found |= _set(out, "body", out["body"].encode().decode("latin-1"))
    return found


def _call_content_type(case: Case) -> bool:
    calls = [sent for sent in _python(case) if sent.is_call and isinstance(sent.body, dict) and "text" not in sent.body]
    return _some(_set(sent.headers, "upstash-forward-content-type", "application/json") for sent in calls)


def _events_are_json(case: Case) -> bool:
    found = False
    for sent in case.sent:
        if sent.call.startswith("POST /v2/notify/") and sent.body == {"text": "plain"}:
            sent.body = "plain"
            found = True
        if sent.headers.get("upstash-workflow-invoke") == "true" and sent.body.get("body") == "str":
            found |= _set(sent.body, "body", '"str"')
    return found


def _events_once(case: Case) -> bool:
    found = False
    for sent in case.sent:
        if sent.call.startswith("POST /v2/notify/"):
            found |= _set(sent.headers, "upstash-deduplication-id", ANY)
        if sent.is_step and sent.body["stepType"] == "Notify":
            for notified in sent.body["out"]["notifyResponse"]:
                notified.pop("error")  # empty
    return found


def _timeout_headers(case: Case) -> bool:
    found = False
    for sent in case.sent:
        if sent.call.startswith("POST /v2/wait/"):
            found |= _set(sent.headers, "upstash-method", "POST")
            found |= _set(sent.body["timeoutHeaders"], "upstash-method", ["POST"])
    return found


def _fetch_to(case: Case) -> bool:
    fetches = [sent for sent in case.sent if sent.call.startswith("GET /v2/workflows/runs/")]
    return _some(_set(sent.headers, "upstash-message-id", case.given["Upstash-Message-Id"]) for sent in fetches)


# Answers


def _callback_run_id(case: Case) -> bool:
    return case.kind == "callback" and case.status == 200 and _set(case.body, "workflowRunId", case.run_id)


def _python_answers(case: Case) -> bool:
    found = False
    if case.sdk == "py" and case.status == 200 and case.kind != "failure":
        found |= _set(case.body, "finishCondition", "fromCallback" if case.kind == "callback" else "success")
    if case.sdk == "py":
        found |= _set(case.headers, "upstash-workflow-sdk-version", "1")
    return found


def _error_step(case: Case) -> bool:
    step = {"nonretry": "nr", "retryafter": "ra", "retryafterstr": "ra"}.get(case.path)
    if case.sdk == "py" and case.body.get("message") == "went wrong":
        step = "boom"
    return step is not None and case.status != 200 and _set(case.headers, "upstash-error-step-name", step)


def _error_names(case: Case) -> bool:
    message = case.body.get("message", "")
    for start, name in (
        ("Incompatible step name", "StepMismatch"),
        ("A step can not be run inside another step", "NestedStep"),
        ("Incompatible workflow sdk protocol version", "InvocationInvalid"),
        ("Error submitting steps to QStash in partial parallel", "StepError"),
    ):
        if message.startswith(start):
            case.body = {"error": name, "message": StartsWith(message.replace("Error: branch", "Exception: branch"))}
            return True
    for said, name in (("quota maxRetries exceeded", "QuotaExceeded"), ("oops", "EngineError")):
        if said in message:
            case.body = {"error": name, "message": Contains(said)}
            return True
    return case.body.get("error") == "Error" and _set(case.body, "error", "Exception")


def _no_step(case: Case) -> bool:
    if case.status != 400 or case.body.get("workflowRunId") in (None, "no-workflow-id"):
        return False
    return _set(case.body, "message", StartsWith(f"Workflow '{case.path}' returned before its first step"))


def _unsigned(case: Case) -> bool:
    if "Failed to verify" not in case.body.get("message", ""):
        return False
    reason = "malformed" if "Upstash-Signature" in case.given else "missing"
    case.status, case.body = 401, {"error": "SignatureInvalid", "reason": reason, "message": ANY}
    return True


def _python_failures(case: Case) -> bool:
    if case.sdk != "py" or case.kind != "failure":
        return False
    if case.status == 500:
        _acknowledge(case, "failure-callback-undefined")
        case.headers["upstash-workflow-failure-callback-notfound"] = "true"
    else:
        case.body = {"result": 'handled 500 went wrong {"in":1}'}
    return True


# What Python's SDK cannot do, and faults


def _python_ended(case: Case) -> bool:
    return _is(case, "py/submit_400_cancelled", 500) and _acknowledge(case)


def _python_duplicates(case: Case) -> bool:
    return _is(case, "py/duplicate_last", 500) and _acknowledge(case, "duplicate-step")


def _python_lazy(case: Case) -> bool:
    if not _is(case, "py/lazy_fetch_unsupported", 500):
        return False
    case.sent = [_fetch(case)]
    return _acknowledge(case, "workflow-already-ended")


def _python_parallel(case: Case) -> bool:
    if not _is(case, "py/parallel_unsupported", 500):
        return False
    for number, name in ((1, "a"), (2, "b")):
        plan = {"stepId": 0, "stepName": name, "stepType": "Run", "concurrent": 2, "targetStep": number}
        case.sent.append(Sent("batch", case.exchange.url, _base(case), plan))
    return _acknowledge(case)


def _python_nested(case: Case) -> bool:
    if not _is(case, "py/nested_step", 500):
        return False
    case.headers["upstash-error-step-name"] = "outer"
    said = "A step can not be run inside another step. Tried to run 'inner' inside 'outer'"
    case.body = {"error": "NestedStep", "message": StartsWith(said)}
    return True


def _lazy_callback(case: Case) -> bool:
    if not case.exchange.name.startswith("js/lazy_fetch_callback") or case.kind != "callback":
        return False
    case.sent = [_fetch(case)]
    if not case.answers:
        return _acknowledge(case, "workflow-already-ended")
    out = {"status": 200, "body": "big", "header": {"Content-Type": ["text/plain"]}}
    step = {"stepId": 1, "stepName": "getit", "stepType": "Call", "out": out, "concurrent": 1}
    case.sent.append(Sent("publish", case.exchange.url, _base(case), step))
    return _acknowledge(case, "fromCallback")


def _python(case: Case) -> list[Sent]:
    return case.sent if case.sdk == "py" else []


def _is(case: Case, name: str, status: int) -> bool:
    return case.exchange.name == name and case.status == status


def _drop(headers: dict[str, Any], unwanted: Callable[[str], object]) -> bool:
    names = [name for name in headers if unwanted(name)]
    for name in names:
        del headers[name]
    return bool(names)


def _set(holder: dict[str, Any], key: str, value: Any) -> bool:
    changes = key not in holder or holder[key] != value
    holder[key] = value
    return changes


def _some(found: Iterable[bool]) -> bool:
    """Whether any is true; all of them are looked at."""
    return any(list(found))


def _acknowledge(case: Case, condition: str = "success") -> bool:
    case.status, case.body = 200, {"workflowRunId": case.run_id, "finishCondition": condition}
    return True


def _fetch(case: Case) -> Sent:
    target = f"GET /v2/workflows/runs/{case.run_id}"
    return Sent(target, "", {"upstash-message-id": case.given["Upstash-Message-Id"]}, {"text": ""})


def _base(case: Case) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "upstash-feature-set": FEATURES,
        "upstash-forward-upstash-workflow-sdk-version": "1",
        "upstash-method": "POST",
        "upstash-workflow-init": "false",
        "upstash-workflow-runid": case.run_id,
        "upstash-workflow-sdk-version": "1",
        "upstash-workflow-url": case.exchange.url,
    }


DIFFERENCES = [
    Difference("No telemetry headers", "Nobody is told which framework and runtime a project uses.", _telemetry),
    Difference(
        "Transport headers are not forwarded",
        "An endpoint that starts itself passes on the user's headers; lengths and signatures belong to one request.",
        _hygiene,
    ),
    Difference(
        "Steps carry no configuration",
        "The configuration of the trigger holds for the run. As in JavaScript; Python repeats it on every message.",
        _python_repeats,
    ),
    Difference(
        "The answer of a call is brought again",
        "Callbacks have the retries of their call, usually none; a site that is away for a moment would lose the run.",
        _callback_retries,
    ),
    Difference(
        "One feature set",
        "Everything that the protocol has is announced, and works; Python announces less, and more than it can.",
        _python_features,
    ),
    Difference(
        "One set of base headers",
        "Every message names the protocol's version; steps have no keys without meaning. As in JavaScript.",
        _python_base,
    ),
    Difference(
        "Every run reports its failure",
        "A run that its endpoint started, by a request or a schedule, calls the failure function like any other.",
        _failure_report,
    ),
    Difference("Durations travel as seconds", "One form for timedeltas, numbers and text.", _seconds),
    Difference("A result is never undefined", "Python has None, which is null.", _no_undefined),
    Difference("Sleeping has no result", "As in JavaScript; and a float instant is kept.", _python_sleeps),
    Difference("No payload is an empty body", "As in JavaScript; Python makes it null.", _empty_payload),
    Difference(
        "Answers of calls keep their bytes",
        "One character per byte, as in JavaScript; Python decodes, and fails when the answer is not UTF-8.",
        _call_bytes,
    ),
    Difference("Calls with a JSON body say so", "The target gets a Content-Type.", _call_content_type),
    Difference(
        "Data is JSON, text too",
        'So "1" stays text and 1 a number. Text that is no JSON is still read.',
        _events_are_json,
    ),
    Difference(
        "A step notifies once",
        "A notify inside a step that runs again is recognised by its deduplication id.",
        _events_once,
    ),
    Difference("Waits name their method", "One set of headers for every message.", _timeout_headers),
    Difference("Fetches say how far", "An engine that knows the header sends no more than is needed.", _fetch_to),
    Difference("Call returns name their run", "The official SDKs answer with a random id.", _callback_run_id),
    Difference("Answers say how the call ended", "As in JavaScript, on errors too.", _python_answers),
    Difference("Errors name their step", "With every status.", _error_step),
    Difference(
        "Errors have names of their own",
        "The official words come first, then run, step and remedy. The two errors that users raise keep their names.",
        _error_names,
    ),
    Difference(
        "A workflow without a step is told so",
        "The engine's own call needs no authentication. A request from outside is turned away in the official words.",
        _no_step,
    ),
    Difference("A bad signature is a 401", "With the reason by name; the official SDKs answer 500.", _unsigned),
    Difference(
        "Failure callbacks are answered",
        "As in JavaScript: with the text of the failure function, or that there is none.",
        _python_failures,
    ),
    Difference("A run that is over is no error", "As in JavaScript; Python answers 500.", _python_ended),
    Difference("A step that comes twice is dropped", "As in JavaScript; Python answers 500.", _python_duplicates),
    Difference("An empty delivery is fetched", "As in JavaScript; Python answers 500.", _python_lazy),
    Difference("Parallel steps", "As in JavaScript; Python has none.", _python_parallel),
    Difference(
        "A step inside a step runs nothing", "Python submits the inner step, and blames parallelism.", _python_nested
    ),
    Difference(
        "Empty callbacks of calls are fetched",
        "The newest JavaScript SDK fails on them, or takes the payload for the answer.",
        _lazy_callback,
    ),
]

"""What an answer leads to: the next message, another attempt, a failure and what follows it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.hosted_stub import values
from tests.hosted_stub.delivery import callback_payload, failure_payload
from tests.hosted_stub.messaging import append_invoke_result, callback_item, cancel_messages, config_of, new_message
from tests.hosted_stub.model import Config, DeadLetter, Entry, Message, Run, RunState, State
from tests.hosted_stub.network import Answer, NoAnswer
from tests.hosted_stub.vocabulary import CallbackConfig

if TYPE_CHECKING:
    from tests.hosted_stub.service import HostedStub

NON_RETRYABLE = 489
RETRY_AFTER = ("Retry-After", "X-RateLimit-Reset", "X-RateLimit-Reset-Requests", "X-RateLimit-Reset-Tokens")
NOT_A_WORKFLOW = (
    "detected a non-workflow destination for trigger/invoke. "
    "make sure you are sending the request to the correct endpoint"
)
OLD_SDK = "trigger rest api is only usable with sdk versions after v1.0.0 major version"
CALLBACK_SUCCESS, CALLBACK_FAIL, CALLBACK_INPROGRESS = "CALLBACK_SUCCESS", "CALLBACK_FAIL", "CALLBACK_INPROGRESS"
CALLBACK_CANCELED = "CALLBACK_CANCELED"


def settle(stub: HostedStub, message: Message, given: Answer | NoAnswer) -> None:
    answer = given if isinstance(given, Answer) else Answer(0, {}, str(given).encode())
    message.attempts += 1
    run = message.run
    if message.state is not State.PENDING:
        return  # canceled while it was under way
    if run is not None and not run.live and message.call_type != "failureCall":
        message.state = State.DELIVERED if answer.ok else State.CANCELED
        return
    if not answer.ok:
        message.errors.append(_error(stub, answer))
        message.failed_step = answer.header("Upstash-Error-Step-Name")
    final = answer.ok or message.attempts_left < 1 or _is_final(answer)
    if message.callback is not None and message.callback.url is not None:
        _call_back(stub, message, message.callback, answer)
    if not final:
        message.due = stub.clock() + _pause(stub, message, answer)
    elif not answer.ok:
        message.state = State.FAILED
        _failed(stub, message, answer, _reason(answer))
    elif run is not None and (reason := _wrong_destination(message, run, answer)):
        message.state = State.FAILED
        message.errors[-1:] = [{**_error(stub, answer), "error": reason}]
        _failed(stub, message, answer, reason)
    else:
        message.state = State.DELIVERED
        if message.call_type == "failureCall" and message.letter is not None:
            missing = answer.header("Upstash-Workflow-Failure-Callback-Notfound") == "true"
            message.letter.failure_state = None if missing else CALLBACK_SUCCESS
            if missing and run is not None:
                run.failure_call = None
    if run is not None and message.call_type == "toCallback":
        _record_answer(run, message, answer)


def _is_final(answer: Answer) -> bool:
    return answer.status == NON_RETRYABLE and answer.header("Upstash-NonRetryable-Error") == "true"


def _pause(stub: HostedStub, message: Message, answer: Answer) -> float:
    """Seconds until the next attempt: the destination's wish, the message's own expression, or the backoff."""
    for name in RETRY_AFTER:
        if (text := answer.header(name)) is not None:
            try:
                seconds = values.retry_after(text, stub.clock())
            except ValueError:
                continue
            if seconds <= values.DAY:
                return seconds
    if message.config.retry_delay is not None:
        return values.retry_delay(message.config.retry_delay, message.attempts - 1)
    return values.default_backoff(message.attempts)


def _wrong_destination(message: Message, run: Run, answer: Answer) -> str | None:
    """Why a good answer is none: it does not come from a workflow."""
    is_first = message.call_type == "step" and run.journal[0].message is message
    if not is_first:
        return None
    if message.unknown_sdk:
        if answer.header("Upstash-Workflow-Sdk-Version") is None:
            return NOT_A_WORKFLOW
        return None if run.adopted and answer.header("Upstash-Workflow-Sdk") is not None else OLD_SDK
    if "WF_DetectTrigger" in message.features and answer.header("Upstash-Workflow-Sdk-Version") is None:
        return NOT_A_WORKFLOW
    return None


# Callbacks


def _call_back(stub: HostedStub, message: Message, callback: CallbackConfig, answer: Answer) -> None:
    """A callback follows every attempt; the receiver compares `retried` with `maxRetries`."""
    assert callback.url is not None
    body = callback_payload(message, answer)
    item = callback_item(callback, callback.url, body)
    run = message.run
    config = config_of(item.instructions)
    if run is not None:
        # The run's own headers were not repeated in the call, as the call's target must not see them.
        config = replace(config, forward={**_users_headers(run), **config.forward}, flow=config.flow or run.config.flow)
    if "retries" not in callback.control:
        config = replace(config, retries=message.config.retries)
    back = new_message(stub, item, body, "" if run is None else "fromCallback", config)
    back.run, back.source, back.features = run, message, item.instructions.features
    if run is not None:
        run.journal.append(Entry(back))


def _users_headers(run: Run) -> dict[str, str]:
    if "WF_TriggerOnConfig" not in run.features:
        return {}
    return {name: value for name, value in run.config.forward.items() if name.lower() != "upstash-workflow-sdk-version"}


def _record_answer(run: Run, message: Message, answer: Answer) -> None:
    for record in run.steps.values():
        if record.call is message:
            record.answer = answer


# Failure


def _failed(stub: HostedStub, message: Message, answer: Answer, reason: str) -> None:
    if message.call_type == "toCallback":
        return  # its callback has told the workflow
    if message.call_type == "failureCall":
        if message.letter is not None:
            message.letter.failure_state = CALLBACK_FAIL
        return
    letter = DeadLetter(f"dlq_{stub.number('dlq')}", message, answer, reason, stub.clock())
    stub.letters[letter.id] = letter
    run = message.run
    if run is not None:
        run.letter = letter
        end_run(stub, run, RunState.FAILED)
    failure = message.config.failure or (run.config.failure if run is not None else None)
    if failure is not None and failure.url is not None:
        report_failure(stub, letter, failure)
    if run is not None:
        append_invoke_result(stub, run, failed=True)


def report_failure(stub: HostedStub, letter: DeadLetter, failure: CallbackConfig) -> Message:
    """Send the failure callback of a dead letter."""
    assert failure.url is not None
    source = letter.message
    body = failure_payload(source, letter.answer, letter.id)
    item = callback_item(failure, failure.url, body)
    config = config_of(item.instructions)
    if "retries" not in failure.control:
        config = replace(config, retries=source.config.retries)
    call = new_message(stub, item, body, "" if source.run is None else "failureCall", _without_failure(config))
    call.run, call.source, call.letter = source.run, source, letter
    letter.failure_state = CALLBACK_INPROGRESS
    if source.run is not None:
        source.run.failure_call = call
    return call


def _without_failure(config: Config) -> Config:
    return replace(config, failure=None)


def end_run(stub: HostedStub, run: Run, state: RunState, response: bytes | None = None) -> None:
    """A run is over: what it still waits for and what is not delivered yet is dropped."""
    run.state, run.completed = state, stub.clock()
    run.response = response.decode() if response else None
    stub.waiters[:] = [waiter for waiter in stub.waiters if waiter.run is not run]
    kept = [entry.message for entry in run.journal if not entry.message.in_flight]
    cancel_messages(kept)


def finish_run(stub: HostedStub, run: Run, response: bytes) -> None:
    end_run(stub, run, RunState.SUCCESS, response)
    append_invoke_result(stub, run)


def cancel_run(stub: HostedStub, run: Run) -> None:
    end_run(stub, run, RunState.CANCELED)
    append_invoke_result(stub, run, canceled=True)


# Texts


def _reason(answer: Answer) -> str:
    text = answer.body.decode("utf-8", "replace")
    return text or f"{answer.status}"


def _error(stub: HostedStub, answer: Answer) -> dict[str, Any]:
    return {
        "error": _reason(answer),
        "body": answer.body.decode("utf-8", "replace"),
        "headers": dict(answer.headers),
        "status": answer.status,
        "time": round(stub.clock() * 1000),
    }

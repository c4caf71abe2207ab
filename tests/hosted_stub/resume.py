"""Dead letters come back: a failed run goes on, starts again, or has its failure told once more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.hosted_stub.messaging import Item, append
from tests.hosted_stub.model import DeadLetter, Entry, Message, Run, RunState, State, StepRecord
from tests.hosted_stub.outcomes import CALLBACK_FAIL, report_failure
from tests.hosted_stub.refusals import Refused
from tests.hosted_stub.vocabulary import Instructions

if TYPE_CHECKING:
    from tests.hosted_stub.service import HostedStub


def resume(stub: HostedStub, letter: DeadLetter, overrides: Instructions) -> Run:
    """A new run with the finished steps of the failed one; what was not delivered is delivered again."""
    failed = _failed_run(letter)
    run = _new_run(stub, failed, overrides)
    again = {id(entry.message) for entry in failed.journal if _comes_again(failed, entry.message)}
    copies: dict[int, Message] = {}
    for entry in failed.journal:
        copy = replace(entry.message, id=stub.new_id("msg"), run=run, errors=[], attempts=0, in_flight=False)
        copies[id(entry.message)] = copy
        if id(entry.message) in again:
            copy.state, copy.due = State.PENDING, max(stub.clock(), copy.first)
            copy.config = _overridden(copy.config, overrides)
            stub.messages.append(copy)
        else:
            copy.state = State.DELIVERED
        run.journal.append(Entry(copy))
    for step_id, record in failed.steps.items():
        if record.state == "done" or record.concurrent > 1:
            run.steps[step_id] = _copied(record, copies)
    run.groups = failed.groups
    del stub.letters[letter.id]
    return run


def restart(stub: HostedStub, letter: DeadLetter, overrides: Instructions) -> Run:
    """A new run with the initial payload of the failed one."""
    failed = _failed_run(letter)
    run = _new_run(stub, failed, overrides)
    item = Item(run.url, Instructions(failed.content_type, {"feature-set": failed.features}), failed.payload)
    append(stub, run, item, failed.payload).config = run.config
    del stub.letters[letter.id]
    return run


def call_again(stub: HostedStub, letter: DeadLetter) -> None:
    """Send the failure callback once more. Only of one that has failed."""
    failure = letter.message.config.failure
    if letter.failure_state != CALLBACK_FAIL or failure is None:
        raise Refused(400, f"The failure callback of {letter.id} has not failed: {letter.failure_state}.")
    report_failure(stub, letter, failure)


def _failed_run(letter: DeadLetter) -> Run:
    if letter.message.run is None or letter.message.run.state is not RunState.FAILED:
        raise Refused(404, f"{letter.id} is no failed run.")
    return letter.message.run


def _new_run(stub: HostedStub, failed: Run, overrides: Instructions) -> Run:
    run = Run(
        id=f"wfr_resumed{stub.number('resumed'):04d}",
        url=failed.url,
        created=stub.clock(),
        payload=failed.payload,
        config=_overridden(failed.config, overrides),
        features=failed.features,
        labels=overrides.get("label", failed.labels),
        redact=failed.redact,
        content_type=failed.content_type,
    )
    stub.runs.append(run)
    return run


def _overridden(config: Any, overrides: Instructions) -> Any:
    changes = {
        field: overrides.get(name)
        for field, name in (("retries", "retries"), ("retry_delay", "retry-delay"))
        if overrides.get(name) is not None
    }
    if overrides.flow is not None:
        changes["flow"] = overrides.flow
    return replace(config, **changes)


def _comes_again(run: Run, message: Message) -> bool:
    """Whether a message of a failed run is delivered again: it was not, or its plan came to nothing."""
    if message.call_type != "step":
        return False
    if message.state is not State.DELIVERED:
        return True
    return any(record.message is message and record.state != "done" for record in run.steps.values())


def _copied(record: StepRecord, copies: dict[int, Message]) -> StepRecord:
    state = "planned" if record.state == "started" else record.state
    message = None if record.message is None else copies[id(record.message)]
    return replace(record, state=state, message=message)

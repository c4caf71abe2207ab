"""Failed runs as the API shows them: which dead letters a request means, and the document of each.

Called by the resources of the HTTP API and by `transport`; `dead_letters` and `resuming` act on what is chosen here.
Dead letters of messages outside workflows are none of these.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from django.db.models import Q, QuerySet
from django.db.models.functions import Length

from django_workflow.conf import get_settings
from django_workflow.engine.cursors import cursor_of, page
from django_workflow.engine.records import RunConfig, decode_config, from_unix, milliseconds, raw
from django_workflow.engine.shown import Shown
from django_workflow.errors import EngineError
from django_workflow.models import DeadLetter, JournalEntry, Run
from django_workflow.protocol.headers import header_lists
from django_workflow.protocol.identifiers import message_id_of
from django_workflow.protocol.requests import (
    DeadLettersChosen,
    DeleteDeadLetters,
    FetchDeadLetter,
    FetchDeadLetters,
    RestartRuns,
    ResumeRuns,
    RunsChosen,
)
from django_workflow.protocol.resources import FailureCallbackInfo, RunDeadLetter, RunDeadLetters
from django_workflow.protocol.states import FailureCallbackState

LISTED_AT_ONCE = 100

LARGEST_PAGE = 32 * 1024 * 1024
"""Bodies of so many characters end a page early."""

FAILURE_STATES = {
    FailureCallbackState.IN_PROGRESS: DeadLetter.FailureState.IN_PROGRESS,
    FailureCallbackState.SUCCESS: DeadLetter.FailureState.SUCCESS,
    FailureCallbackState.FAIL: DeadLetter.FailureState.FAILED,
    FailureCallbackState.CANCELED: DeadLetter.FailureState.CANCELED,
}
_SHOWN_STATES = {ours: theirs for theirs, ours in FAILURE_STATES.items()}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Dead letters with their runs; `missing` are ids that name none, `cursor` says that there may be more."""

    letters: list[DeadLetter]
    missing: tuple[str, ...] = ()
    cursor: str | None = None


# Which are meant


def choose(alias: str, request: DeleteDeadLetters | ResumeRuns | RestartRuns, *, default: int, most: int) -> Chosen:
    """The dead letters that an action is for: those of the ids, in their order, else the newest that fit. Those that
    are to be deleted come without their runs and bodies."""
    bare = isinstance(request, DeleteDeadLetters)
    if not request.dlq_ids:
        fitting = _fitting(alias, request)
        letters, cursor = page(
            _bare(fitting) if bare else fitting, counted(request.count, default, most), request.cursor
        )
        return Chosen(letters, cursor=cursor)
    ids = tuple(dict.fromkeys(request.dlq_ids))
    if len(ids) > most:
        raise EngineError(f"{len(ids)} dead letters are named; at most {most} are taken at once.", status=400)
    keys = {dlq_id: key for dlq_id in ids if (key := key_of(dlq_id)) is not None}
    named = _letters(alias).filter(pk__in=keys.values())
    found = {letter.pk: letter for letter in (_bare(named) if bare else named)}
    known = [dlq_id for dlq_id in ids if keys.get(dlq_id) in found]
    return Chosen([found[keys[dlq_id]] for dlq_id in known], tuple(set(ids) - set(known)))


def find(alias: str, dlq_id: str) -> DeadLetter:
    """Raises EngineError with status 404."""
    key = key_of(dlq_id)
    letter = _letters(alias).filter(pk=key).first() if key is not None else None
    if letter is None:
        raise unknown((dlq_id,))
    return letter


def unknown(ids: Iterable[str]) -> EngineError:
    names = ", ".join(sorted(ids)[:5])
    return EngineError(
        f"There is no dead letter {names[:300]}: resumed, restarted and deleted ones are gone.", status=404
    )


def key_of(dlq_id: str) -> UUID | None:
    try:
        return UUID(dlq_id)
    except ValueError:
        return None


def _letters(alias: str) -> QuerySet[DeadLetter]:
    return DeadLetter.objects.using(alias).filter(run__isnull=False).select_related("run")


def _bare(letters: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
    return letters.select_related(None).only("pk", "created_at")


def _fitting(alias: str, request: DeadLettersChosen[Any]) -> QuerySet[DeadLetter]:
    letters = _letters(alias).filter(created_within(request), runs_that_fit(request, "run__"))
    if request.failure_states:
        letters = letters.filter(failure_state__in=[_failure_state(name) for name in request.failure_states])
    if request.response_status is not None:
        letters = letters.filter(status=request.response_status)
    return letters


def _failure_state(name: str) -> DeadLetter.FailureState:
    try:
        return FAILURE_STATES[FailureCallbackState(name)]
    except ValueError as error:
        known = ", ".join(FailureCallbackState)
        raise EngineError(f"failureFunctionState: {name[:50]!r} is none of {known}.", status=400) from error


def runs_that_fit(request: RunsChosen[Any], prefix: str = "") -> Q:
    """The filters that every list of runs has, on rows that reach their run by `prefix`."""
    chosen = Q()
    if request.run_ids:
        chosen &= Q(**{f"{prefix}run_id__in": request.run_ids})
    if request.workflow_urls:
        chosen &= Q(**{f"{prefix}url__in": request.workflow_urls})
    if request.created_at is not None:
        chosen &= within(f"{prefix}created_at", request.created_at, request.created_at)
    if request.labels:
        labels = Q()
        for label in request.labels:
            labels |= Q(**{f"{prefix}labels__contains": f",{label},"})
        chosen &= labels
    if request.caller_ips:
        chosen &= Q(**{f"{prefix}caller_ip__in": request.caller_ips})
    if request.flow_control_keys:
        chosen &= Q(**{f"{prefix}flow_key__in": request.flow_control_keys})
    return chosen


def created_within(request: RunsChosen[Any]) -> Q:
    return within("created_at", request.from_date, request.to_date)


def within(field: str, first: int | None, last: int | None) -> Q:
    """Instants from the first to the last millisecond, both whole. Raises EngineError for what no calendar has."""
    chosen = Q()
    if first is not None:
        chosen &= Q(**{f"{field}__gte": _instant(first)})
    if last is not None:
        chosen &= Q(**{f"{field}__lt": _instant(last) + timedelta(milliseconds=1)})
    return chosen


def _instant(ms: int) -> datetime:
    try:
        # Whole milliseconds: a float would lose some of them.
        return from_unix(ms // 1000) + timedelta(milliseconds=ms % 1000)
    except (OverflowError, ValueError, OSError) as error:
        raise EngineError(f"{ms} is no instant in Unix milliseconds.", status=400) from error


def counted(count: int | None, default: int, most: int) -> int:
    """How many are wanted: at least one. Raises EngineError with status 400 for none."""
    if count == 0:
        raise EngineError("count must be at least 1.", status=400)
    return min(default if count is None else count, most)


# How they are shown


def fetch(alias: str, request: FetchDeadLetters) -> RunDeadLetters:
    count = counted(request.count, LISTED_AT_ONCE, LISTED_AT_ONCE)
    size = Length("run__payload") + Length("response_body") + Length("failure_response")
    found, cursor = page(_bare(_fitting(alias, request)).annotate(size=size), count, request.cursor)
    kept = _within_budget(found)
    if len(kept) < len(found):
        cursor = cursor_of(kept[-1])
    whole = _letters(alias).in_bulk([letter.pk for letter in kept])
    letters = [whole[letter.pk] for letter in kept if letter.pk in whole]  # else it went meanwhile
    sent = sent_at(alias, letters)
    return RunDeadLetters(messages=tuple(_document(letter, sent[letter.pk]) for letter in letters), cursor=cursor)


def _within_budget(found: list[Any]) -> list[Any]:
    """The first of these dead letters whose bodies are not too much together; at least one."""
    total = 0
    for index, letter in enumerate(found):
        total += letter.size
        if index and total > LARGEST_PAGE:
            return found[:index]
    return found


def fetch_one(alias: str, request: FetchDeadLetter) -> RunDeadLetter:
    letter = find(alias, request.dlq_id)
    return _document(letter, sent_at(alias, [letter])[letter.pk])


def sent_at(alias: str, letters: Iterable[DeadLetter]) -> dict[UUID, datetime]:
    """When the message that was given up came, by dead letter: with its run, or when it was journalled."""
    letters = list(letters)
    entries = JournalEntry.objects.using(alias).filter(pk__in=[letter.message_key for letter in letters])
    came = dict(entries.values_list("pk", "created_at"))
    return {letter.pk: came.get(letter.message_key, _run(letter).created_at) for letter in letters}


def retries_of(run: Run, config: RunConfig | None = None) -> int:
    """How many retries a run's calls have that say nothing of their own."""
    retries = (config or decode_config(run.config)).retries
    return get_settings().retries if retries is None else retries


def _run(letter: DeadLetter) -> Run:
    assert letter.run is not None
    return letter.run


def _document(letter: DeadLetter, sent: datetime) -> RunDeadLetter:
    run = _run(letter)
    config = decode_config(run.config)
    shown = Shown(config.redact, secret=config.secret)
    text, base64 = shown.payload(raw(run.payload, run.payload_is_base64))
    failure = config.failure_callback
    state = shown_failure_state(letter)
    return RunDeadLetter(
        dlq_id=str(letter.pk),
        message_id=message_id_of(letter.message_key),
        workflow_run_id=run.run_id,
        workflow_created_at=milliseconds(run.created_at),
        workflow_url=run.url,
        url=letter.destination,
        method="POST",
        header=shown.headers(header_lists(config.headers)),
        body=text,
        body_base64=base64,
        max_retries=retries_of(run, config),
        not_before=milliseconds(sent),
        created_at=milliseconds(sent),
        caller_ip=run.caller_ip,
        label=run.label_list[0] if run.label_list else None,
        labels=tuple(run.label_list),
        flow_control_key=run.flow_key or None,
        response_status=letter.status,
        response_header=shown.answer_headers(letter.response_headers),
        response_body=shown.text(letter.response_body or letter.error) or "",
        failure_callback=failure.url if failure is not None else None,
        failure_callback_info=None if state is None else _failure_info(letter, shown, state),
        failure_function_state=state,
    )


def shown_failure_state(letter: DeadLetter) -> FailureCallbackState | None:
    """How the failure callback stands; None when there is none, or it found no failure function."""
    return _SHOWN_STATES.get(DeadLetter.FailureState(letter.failure_state))


def _failure_info(letter: DeadLetter, shown: Shown, state: FailureCallbackState) -> FailureCallbackInfo:
    if state is FailureCallbackState.IN_PROGRESS:
        return FailureCallbackInfo(state=state)
    return FailureCallbackInfo(
        state=state,
        response_status=letter.failure_status,
        response_body=shown.text(failure_result(letter.failure_response)),
        response_headers=shown.answer_headers(letter.failure_headers),
    )


def failure_result(answer: str) -> str:
    """What a failure function returned, out of its endpoint's answer; the whole answer when that says no such thing."""
    try:
        read = msgspec.json.decode(answer)
    except (msgspec.DecodeError, RecursionError):
        return answer
    result = read.get("result") if isinstance(read, dict) else None
    return result if isinstance(result, str) else answer

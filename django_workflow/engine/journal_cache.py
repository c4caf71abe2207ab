"""Journals in memory, by reference: what this worker wrote or read of its runs need not be read again.

A journal only grows, so a cached beginning stays true whoever writes; what is missing at its end is read from the
database. Bounded by the bytes of its bodies; the run used longest ago goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from uuid import UUID

from django_workflow.engine.addresses import is_own
from django_workflow.engine.records import RunInfo, decode_config, milliseconds, raw
from django_workflow.errors import StepError
from django_workflow.models import JournalEntry, Run
from django_workflow.protocol.identifiers import message_id_of
from django_workflow.protocol.steps import CallType, JournalMessage
from django_workflow.replay.journal import Journal

DEFAULT_BYTES = 64 * 1024 * 1024
MESSAGE_BYTES = 400  # what a message takes besides its body, its decoded step included


class CachedRun:
    __slots__ = ("bytes", "info", "messages", "replayed", "replayed_messages")

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        self.messages = [journal_message(info.key, info.payload, info.payload_is_base64)]
        self.bytes = len(info.payload) + 512
        self.replayed = Journal()
        self.replayed_messages = 1


class JournalCache:
    def __init__(self, alias: str, max_bytes: int = DEFAULT_BYTES) -> None:
        self.expects_deliveries = False
        """Whether a worker runs in this process; a web process has no use for the runs that it starts."""
        self._alias = alias
        self._max_bytes = max_bytes
        self._runs: OrderedDict[UUID, CachedRun] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def info(self, run_key: UUID) -> RunInfo:
        """What never changes about the run. Raises Run.DoesNotExist."""
        return self._run(run_key).info

    def journal(self, run_key: UUID, length: int) -> list[JournalMessage]:
        """The first `length` messages of the run's journal (1 is the payload alone), in order."""
        cached = self._run(run_key)
        if len(cached.messages) < length:
            self._load(cached, length)
        return cached.messages[:length]

    def replay(self, run_key: UUID, length: int) -> Journal | None:
        """The first `length` messages as the replay reads them, when that is the whole of what is known of the run.

        It is made once and grows, so it is for a run's only delivery: whoever asks next may change it. None when there
        is more or less, or something in it is no step.
        """
        with self._lock:
            cached = self._runs.get(run_key)
            if cached is None or len(cached.messages) != length or cached.replayed_messages > length:
                return None
            try:
                cached.replayed.extend(cached.messages[cached.replayed_messages :])
            except StepError:
                return None
            cached.replayed_messages = length
            return cached.replayed

    def start(self, info: RunInfo) -> None:
        """Remember a run that was committed, where its deliveries are made: its journal has only its payload."""
        if self.expects_deliveries:
            self._keep(CachedRun(info))

    def load(self, run_keys: Iterable[UUID]) -> None:
        """Read what never changes about these runs with one query, as far as it is not known."""
        with self._lock:
            missing = set(run_keys) - self._runs.keys()
        if missing:
            for run in Run.objects.using(self._alias).select_related("first_run").filter(pk__in=missing):
                self._keep(CachedRun(info_of(run)))

    def append(self, run_key: UUID, position: int, message: JournalMessage) -> None:
        """Remember a message that was committed at `position`; ignored unless it continues what is cached."""
        with self._lock:
            cached = self._runs.get(run_key)
            if cached is not None and len(cached.messages) == position:
                cached.messages.append(message)
                self._grow(cached, len(message.body) + MESSAGE_BYTES)

    def forget(self, run_key: UUID) -> None:
        with self._lock:
            cached = self._runs.pop(run_key, None)
            if cached is not None:
                self._bytes -= cached.bytes

    def _run(self, run_key: UUID) -> CachedRun:
        with self._lock:
            cached = self._runs.get(run_key)
            if cached is not None:
                self._runs.move_to_end(run_key)
                return cached
        return self._keep(CachedRun(read_info(self._alias, run_key)))

    def _keep(self, cached: CachedRun) -> CachedRun:
        if cached.info.config.awaits_sdk:  # its configuration is still to come, maybe to another process
            return cached
        with self._lock:
            winner = self._runs.setdefault(cached.info.key, cached)
            if winner is cached:
                self._grow(cached, 0, new=True)
            return winner

    def _load(self, cached: CachedRun, length: int) -> None:
        rows = (
            JournalEntry.objects.using(self._alias)
            .filter(run_id=cached.info.key, position__gte=len(cached.messages), position__lt=length)
            .order_by("position")
            .values_list("position", "pk", "body", "body_is_base64", "call_type")
        )
        for position, key, body, is_base64, call_type in rows:
            message = journal_message(key, body, is_base64, call_type)
            self.append(cached.info.key, position, message)
            if position >= len(cached.messages):  # evicted meanwhile
                cached.messages.append(message)

    def _grow(self, cached: CachedRun, size: int, *, new: bool = False) -> None:
        cached.bytes += size
        self._bytes += cached.bytes if new else size
        while self._bytes > self._max_bytes and len(self._runs) > 1:
            _, oldest = self._runs.popitem(last=False)
            self._bytes -= oldest.bytes


def journal_message(key: UUID, body: str, is_base64: bool, call_type: str = CallType.STEP) -> JournalMessage:
    """A message as endpoints get it; bytes that are no UTF-8 stand in its text as lone surrogates."""
    text = raw(body, True).decode("utf-8", "surrogateescape") if is_base64 else body
    return JournalMessage(message_id_of(key), text, call_type)


def read_info(alias: str, run_key: UUID) -> RunInfo:
    run = Run.objects.using(alias).select_related("first_run").get(pk=run_key)
    return info_of(run)


def info_of(run: Run) -> RunInfo:
    return RunInfo(
        key=run.pk,
        run_id=run.run_id,
        workflow=run.workflow,
        url=run.url,
        own=is_own(run.url),
        payload=run.payload,
        payload_is_base64=run.payload_is_base64,
        created_ms=milliseconds(run.created_at),
        labels=tuple(run.label_list),
        parent_key=run.parent_id,
        first_run_id=run.first_run.run_id if run.first_run else run.run_id,
        config=decode_config(run.config),
    )

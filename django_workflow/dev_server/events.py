"""What the development server says while it runs: one line for each call, each delivery, and each event of a run.

    12:03:41  in   POST    200     3 ms  /v2/publish/http://localhost:3000/hook
    12:03:41  out  POST    500     9 ms  http://localhost:3000/hook  attempt 1 of 4: Oh no
    12:03:44  run  success     3.2 s  wfr_9xB2  http://localhost:3000/order

Comes from `middleware` (calls), from the dispatcher's log (deliveries) and from signals (runs). All are records of one
logger; what is shown at which verbosity is a matter of their levels.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, TextIO

from django_workflow import signals
from django_workflow.engine.facts import Settlement
from django_workflow.models import Run, Step

logger = logging.getLogger("django_workflow.dev_server")

LONGEST = 300
LEVELS = {0: logging.WARNING, 1: logging.INFO}
GOOD, BAD, DIM, PLAIN = "32", "31", "2", ""


def start(verbosity: int, color: bool, stream: TextIO = sys.stdout) -> None:
    """Write events to the stream from now on. Verbosity as in `Options`."""
    handler = _Lines(stream)
    handler.setFormatter(_Formatter(color))
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(LEVELS.get(verbosity, logging.DEBUG))
    if verbosity == 0:
        return
    attempts = logging.getLogger("django_workflow.deliveries")
    attempts.handlers = [_Deliveries()]
    attempts.propagate = False
    attempts.setLevel(logging.DEBUG)
    for signal, tell in (
        (signals.run_started, _run_started),
        (signals.step_completed, _step_completed),
        (signals.step_failed, _step_failed),
        (signals.run_finished, _run_finished),
    ):
        signal.connect(tell, weak=False, dispatch_uid="django_workflow.dev_server")


# Calls of the API


def tell_call(method: str, target: str, status: int, seconds: float, error: str) -> None:
    """A call that was answered. Successful ones that clients make all the time are for higher verbosities."""
    line = f"in   {method:6} {status:4} {_length(seconds)}  {_short(target)}"
    if status >= 400:
        logger.info("%s  %s", line, _short(error), extra={"tone": BAD})
    else:
        level = logging.DEBUG if _is_routine(method, target) else logging.INFO
        logger.log(level, line, extra={"tone": PLAIN})


def _is_routine(method: str, target: str) -> bool:
    """Reading; and what a workflow's endpoint sends after each step and at its end."""
    path, _, query = target.partition("?")
    return method in ("GET", "HEAD") or path == "/v2/batch" or (method == "DELETE" and "cancel=false" in query)


# Deliveries


class _Deliveries(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        settlement: Settlement | None = getattr(record, "settlement", None)
        if settlement is not None:
            _tell_delivery(settlement)


def _tell_delivery(settlement: Settlement) -> None:
    lease, answer = settlement.lease, settlement.answer
    seconds = (settlement.finished_at - settlement.started_at).total_seconds()
    line = f"out  {lease.method:6} {answer.status or '-':>4} {_length(seconds)}  {_short(lease.destination)}"
    attempt = f"attempt {lease.attempt + 1} of {max(lease.max_retries, lease.attempt) + 1}"
    if answer.ok:
        logger.info("%s%s", line, f"  {attempt}" if lease.attempt else "", extra={"tone": GOOD})
        return
    why = answer.error or answer.body[: LONGEST * 4].decode("utf-8", "replace")
    logger.info("%s  %s%s", line, attempt, f": {_short(why)}" if why else "", extra={"tone": BAD})


# Runs


def _run_started(run: Run, **kwargs: Any) -> None:
    logger.info("run  started          %s  %s", run.run_id, _short(run.url), extra={"tone": PLAIN})


def _step_completed(run: Run, step: Step | None = None, **kwargs: Any) -> None:
    if step is not None and step.name:
        logger.info("run  step             %s  %s", run.run_id, _short(step.name), extra={"tone": PLAIN})


def _step_failed(run: Run, error: str = "", will_retry: bool = False, **kwargs: Any) -> None:
    if not will_retry:
        logger.info("run  gave up          %s  %s", run.run_id, _short(error), extra={"tone": BAD})


def _run_finished(run: Run, **kwargs: Any) -> None:
    seconds = (run.finished_at - run.created_at).total_seconds() if run.finished_at else 0.0
    tone = GOOD if run.status == Run.Status.SUCCESS else BAD
    logger.info("run  %-8s %s  %s  %s", run.status, _length(seconds), run.run_id, _short(run.url), extra={"tone": tone})


# Lines


def _length(seconds: float) -> str:
    return f"{seconds * 1000:5.0f} ms" if seconds < 1 else f"{seconds:6.1f} s"


def _short(text: str) -> str:
    """On one line, without what would move a terminal's cursor."""
    line = "".join(character if character.isprintable() else " " for character in text).strip()
    return line if len(line) <= LONGEST else line[:LONGEST] + "…"


class _Formatter(logging.Formatter):
    default_time_format = "%H:%M:%S"
    default_msec_format = ""

    def __init__(self, color: bool) -> None:
        super().__init__()
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        time, text = self.formatTime(record), record.getMessage()
        if not self._color:
            return f"{time}  {text}"
        tone = getattr(record, "tone", PLAIN)
        return f"\x1b[{DIM}m{time}\x1b[0m  " + (f"\x1b[{tone}m{text}\x1b[0m" if tone else text)


class _Lines(logging.StreamHandler[TextIO]):
    """Lines on a stream. When its reader has gone (a closed pipe), the server works on in silence."""

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], OSError):
            logger.disabled = True
            # Nor may the interpreter complain when it flushes the stream at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            return
        super().handleError(record)

"""The traceback of a failed call as its author wants to read it: without this package's own frames.

A step's exception comes up through a dozen of them, the same every time. `endpoint_call` logs what is left, and
`responses` sends it to the engine, which shows it with the failed attempt.
"""

from __future__ import annotations

from types import TracebackType

PACKAGE = "django_workflow."


def readable(trace: TracebackType | None) -> TracebackType | None:
    """The frames outside of this package, and the last one, which raised; all of them where there are no others."""
    frames: list[TracebackType] = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    if not frames:
        return None
    theirs = [each for each in frames[:-1] if not each.tb_frame.f_globals.get("__name__", "").startswith(PACKAGE)]
    found: TracebackType | None = None
    for each in reversed([*theirs, frames[-1]] if theirs else frames):
        found = TracebackType(found, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return found

"""Figures: how they are taken, printed and kept. One JSON line each: peer, metric, value, unit, and what else is known.

The lines have the form of the peers' harness, so that both stand in one table.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")


def row(metric: str, value: float, unit: str, **more: Any) -> None:
    """Print a figure, and append it to BENCH_OUT."""
    peer = f"django_workflow {os.environ.get('BENCH_PEER', 'sqlite')}"
    line = json.dumps({"peer": peer, "metric": metric, "value": round(value, 3), "unit": unit, **more})
    print(line, flush=True)
    if path := os.environ.get("BENCH_OUT"):
        with open(path, "a") as rows:
            rows.write(line + "\n")


def read_rows(path: Path, after: int = 0) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, without the first `after`."""
    return [json.loads(line) for line in path.read_text().splitlines()[after:]] if path.exists() else []


def spread(values: Iterable[float]) -> list[float]:
    ordered = sorted(values)
    return [round(ordered[0], 3), round(ordered[-1], 3)]


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


# Processes, from /proc: their children are counted with them.


def memory(pid: int | None = None) -> float:
    """Resident memory in KiB."""
    return sum(_resident(each) for each in _family(pid))


def cpu_seconds(pid: int | None = None) -> float:
    """Processor time so far, of user and system."""
    return sum(_ticks(each) for each in _family(pid)) / TICKS


def _family(pid: int | None) -> Iterable[int]:
    waiting = [os.getpid() if pid is None else pid]
    while waiting:
        each = waiting.pop()
        yield each
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            waiting += [int(child) for child in _read(task).split()]


def _resident(pid: int) -> int:
    found = (line.split()[1] for line in _read(Path(f"/proc/{pid}/status")).splitlines() if line.startswith("VmRSS:"))
    return int(next(found, 0))


def _ticks(pid: int) -> int:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) if fields else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended meanwhile
        return ""

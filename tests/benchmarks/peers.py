"""Ours and the peers in turn, in one run: `PEERS=<folder of the harness> python -m tests.benchmarks.peers`.

The harness's own scripts make its environments and servers (`setup.sh`), run its peers (`run_all.sh`) and stop what
they started (`stop.sh`). Rounds go over all entries, so that a slow stretch of the machine meets everybody; a figure is
the median of its rounds. Without PEERS only ours are measured.

    BENCH_HOME=folder      where the harness keeps its environments; its default otherwise
    BENCH_PEERS="restate"  which of its peers; BENCH_ONLY: which parts of ours
    BENCH_ROUNDS=3         at most
    BENCH_MINUTES=24       no entry begins that would not be over by then, going by how long it took before
    BENCH_OUT=rows.jsonl   keeps every row of every round
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import read_rows
from tests.benchmarks.parts import PARTS
from tests.benchmarks.targets import table

# Seconds after which the harness ends one of a peer's scripts: what it found until then is kept. Those of the targets
# come first in each script; what only takes long (a thousand steps request by request) comes later.
PEERS = {"restate": 60, "dbos": 80, "celery": 80, "procrastinate": 60, "upstash": 60}
BY_DEFAULT = ("restate", "dbos", "celery")
OURS = (
    "sqlite",
    "postgresql",
    "postgresql-2",
    "sqlite-granian",
    "postgresql-granian",
    "sqlite-few-calls",
)


@dataclass(slots=True)
class Entry:
    """One of ours or a peer; `run` appends its rows to the file."""

    name: str
    run: Callable[[Path], None]
    rounds: int = 0
    seconds: float = 0.0
    """The longest round so far."""


@dataclass(frozen=True, slots=True)
class Harness:
    folder: Path

    def script(self, name: str, **variables: str) -> bool:
        with tempfile.TemporaryFile("w+") as output:
            command = ["bash", str(self.folder / name)]
            environment = {**os.environ, **variables}
            code = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False).returncode
            if code:
                output.seek(0)
                print(f"# {name} ended with {code}:\n{output.read()[-2000:]}", file=sys.stderr, flush=True)
        return code == 0

    def measure(self, peer: str, rows_file: Path) -> None:
        self.script("run_all.sh", BENCH_ONLY=peer, BENCH_LIMIT=str(PEERS[peer]), BENCH_OUT=str(rows_file))

    def print_all(self, rows_file: Path) -> None:
        subprocess.run([sys.executable, str(self.folder / "table.py"), str(rows_file)], check=False)


@contextmanager
def harness() -> Iterator[Harness | None]:
    """The peers' harness with its servers up; None without one."""
    given = os.environ.get("PEERS")
    if not given:
        print("PEERS is not set to the folder of a harness: only ours are measured.", file=sys.stderr)
        yield None
        return
    found = Harness(Path(given).resolve())
    if missing := [name for name in ("setup.sh", "run_all.sh", "stop.sh") if not (found.folder / name).exists()]:
        raise SystemExit(f"PEERS is {given!r}, but there is no {', '.join(missing)} in it.")
    try:
        if not found.script("setup.sh"):
            raise SystemExit("The peers could not be set up; see above. BENCH_PY names a Python for them.")
        # The same server for everybody.
        port = os.environ.get("BENCH_PG_PORT", "54399")
        os.environ["WORKFLOW_TEST_POSTGRESQL_URL"] = f"postgresql://bench@127.0.0.1:{port}/postgres"
        yield found
    finally:
        found.script("stop.sh")


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # stops the harness's servers
    limit = time.monotonic() + 60 * float(os.environ.get("BENCH_MINUTES", "24"))
    with harness() as peers, tempfile.TemporaryDirectory(prefix="workflow-bench-") as folder:
        rows_file = Path(os.environ.get("BENCH_OUT") or Path(folder) / "rows.jsonl").resolve()
        before = len(read_rows(rows_file))
        entries = list(_entries(peers, Path(folder)))
        for number in range(int(os.environ.get("BENCH_ROUNDS", "3"))):
            for entry in entries:
                _measure(entry, number + 1, rows_file, limit)
        rows = read_rows(rows_file, before)
        if peers is not None:
            medians_file = Path(folder) / "medians.jsonl"
            write_medians(rows, medians_file)
            peers.print_all(medians_file)
    print(f"\nRounds: {', '.join(f'{entry.name} {entry.rounds}' for entry in entries)}\n")
    print("\n".join(table(medians(rows))))
    return 0 if all(entry.rounds for entry in entries) else 1


def _entries(peers: Harness | None, folder: Path) -> Iterator[Entry]:
    """Ours and the peers' by turns."""
    ours = [_our_entry(name, folder) for name in os.environ.get("BENCH_ONLY", "").split() or OURS]
    names = os.environ.get("BENCH_PEERS", "").split() or BY_DEFAULT
    theirs = [_peers_entry(name, peers) for name in names] if peers is not None else []
    for index in range(max(len(ours), len(theirs))):
        yield from ours[index : index + 1]
        yield from theirs[index : index + 1]


def _our_entry(name: str, folder: Path) -> Entry:
    def run(rows_file: Path) -> None:
        if PARTS[name].missing:
            print(f"# {name}: {PARTS[name].missing} is not set", file=sys.stderr)
        else:
            PARTS[name].run(folder, rows_file)

    return Entry(name, run)


def _peers_entry(name: str, peers: Harness) -> Entry:
    return Entry(name, lambda rows_file: peers.measure(name, rows_file))


def _measure(entry: Entry, number: int, rows_file: Path, limit: float) -> None:
    if time.monotonic() + entry.seconds > limit:
        print(f"# round {number}: no time left for {entry.name}", flush=True)
        return
    started, known = time.monotonic(), len(read_rows(rows_file))
    entry.run(rows_file)
    seconds = time.monotonic() - started
    entry.seconds = max(entry.seconds, seconds)
    entry.rounds += len(read_rows(rows_file)) > known
    print(f"# round {number}: {entry.name}: {seconds:.0f} s", flush=True)


def medians(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        found[row["peer"], row["metric"]].append(row["value"])
    return {key: statistics.median(values) for key, values in found.items()}


def write_medians(rows: list[dict[str, Any]], path: Path) -> None:
    """One row for each figure, as `table.py` of the harness reads it; its spread is that of the rounds."""
    import json

    values: Mapping[tuple[str, str], float] = medians(rows)
    rounds = Counter((row["peer"], row["metric"]) for row in rows)
    lines = []
    for (peer, metric), value in values.items():
        same = [row for row in rows if (row["peer"], row["metric"]) == (peer, metric)]
        spread = [min(row["value"] for row in same), max(row["value"] for row in same)]
        row = {"peer": peer, "metric": metric, "value": round(value, 3), "unit": same[0]["unit"], "spread": spread}
        lines.append(json.dumps(row | {"rounds": rounds[peer, metric]}))
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())

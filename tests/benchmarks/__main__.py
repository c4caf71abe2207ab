"""Runs each benchmark in a process of its own and prints one table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = (
    "w1-sqlite",
    "w2-sqlite",
    "w3-sqlite",
    "w4-memory",
    "w4-redis",
    "w1-postgresql",
    "w2-postgresql",
    "w3-postgresql",
)
LONGEST_SECONDS = 600


def main() -> int:
    chosen = os.environ.get("BENCH_ONLY", "").split() or [*sys.argv[1:]] or list(NAMES)
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        print(f"Unknown: {', '.join(unknown)}. There are {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    failed = []
    with tempfile.TemporaryDirectory(prefix="workflow-bench-") as folder:
        rows_file = Path(os.environ.get("BENCH_OUT") or Path(folder) / "rows.jsonl")
        before = len(rows_file.read_text().splitlines()) if rows_file.exists() else 0
        for name in chosen:
            workload, kind = name.split("-")
            database = kind if kind == "postgresql" else "sqlite"
            if kind == "redis" and not os.environ.get("WORKFLOW_TEST_REDIS_URL"):
                print(f"{name}: no Redis (WORKFLOW_TEST_REDIS_URL is not set)", file=sys.stderr)
                failed.append(name)
                continue
            if database == "postgresql" and not os.environ.get("WORKFLOW_TEST_POSTGRESQL_URL"):
                print(f"{name}: no PostgreSQL (WORKFLOW_TEST_POSTGRESQL_URL is not set)", file=sys.stderr)
                failed.append(name)
                continue
            environment = {
                **os.environ,
                "BENCH_OUT": str(rows_file),
                "BENCH_DATABASE": database,
                "BENCH_FOLDER": folder,
                "BENCH_LAYER": kind if kind == "redis" else "memory",
                "BENCH_PEER": f"{database}, layer in {kind}" if workload == "w4" else database,
                "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
            }
            module = "tests.benchmarks.sockets" if workload == "w4" else "tests.benchmarks.workloads"
            command = [sys.executable, "-m", module, workload]
            if subprocess.run(command, env=environment, timeout=LONGEST_SECONDS, check=False).returncode:
                failed.append(name)
        print_table([json.loads(line) for line in rows_file.read_text().splitlines()[before:]])
    if failed:
        print(f"Not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def print_table(rows: list[dict[str, object]]) -> None:
    print("\n| peer | metric | value | unit | spread |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['peer']} | {row['metric']} | {row['value']:g} | {row['unit']} | {row.get('spread', '')} |")


if __name__ == "__main__":
    sys.exit(main())

"""Every pass of `make test`, one after the other, and then one list: what passed, what failed, what could not run.

A pass is one pytest process on one database. Browser tests have a pass of their own, because Playwright leaves an
event loop behind in its thread, which asynchronous tests cannot share.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.services import clients, packages
from tests.services.servers import SERVERS, Services, provide

NO_TESTS = 5  # pytest's exit code when nothing was collected
MISSING_TESTS = {
    "postgresql": "the tests on PostgreSQL",
    "mariadb": "the tests on MariaDB",
    "redis": "the tests that need Redis",
    "chromium": "the browser tests",
    "node": "the tests of JavaScript",
    "clients": "the tests of other languages (each of them failed)",
}


@dataclass(frozen=True)
class Pass:
    title: str
    marks: str
    database: str = "sqlite"
    in_parallel: bool = True
    needs: str | None = None  # a service without which the whole pass is left out


PASSES = (
    Pass("SQLite", "not slow and not browser"),
    Pass("Browser", "browser and not slow", in_parallel=False, needs="chromium"),
    *(
        Pass(title, f"(every_database or {name}) and not slow and not browser", database=name, needs=name)
        for name, title in (("postgresql", "PostgreSQL"), ("mariadb", "MariaDB"))
    ),
)
SLOW_PASSES = (
    Pass("Faults on SQLite", "slow", in_parallel=False),
    *(
        Pass(f"Faults on {title}", f"(every_database or {name}) and slow", name, in_parallel=False, needs=name)
        for name, title in (("postgresql", "PostgreSQL"), ("mariadb", "MariaDB"))
    ),
)


def run_suite(passes: tuple[Pass, ...], arguments: list[str], *, durable: bool = False) -> int:
    """Run `passes` with extra pytest `arguments`; returns an exit code.

    With WORKFLOW_REQUIRE_ALL=1 a missing service is a failure.
    """
    missing = packages.install(["chromium", "node"])
    if reason := clients.install():
        missing["clients"] = reason
    with provide(list(SERVERS), durable=durable) as services:
        missing.update(services.missing)
        for name, url in services.urls.items():
            print(f"{name}: {services.origins[name]} at {url.rpartition('@')[2]}", flush=True)
        results = [(each, *_run_pass(each, services, missing, arguments)) for each in passes]
        skips = _skips(services)

    print("\nResult")
    for each, code, seconds in results:
        word = {None: "not run", 0: "passed", NO_TESTS: "has no tests"}.get(code, "FAILED")
        print(f"  {each.title:22} {word:14} {seconds:5.0f} s")
    print("\nNot run")
    for name, reason in missing.items():
        print(f"  {MISSING_TESTS[name]}: {reason}")
    for reason, count in skips.most_common():
        print(f"  {count} skipped: {reason}")
    if passes is PASSES:
        print("  the long tests (make test-faults)")
    elif not missing and not skips:
        print("  nothing was left out")

    failed = any(code not in (None, 0, NO_TESTS) for _, code, _ in results)
    if missing and os.environ.get("WORKFLOW_REQUIRE_ALL") == "1":
        print("\nServices are missing, and WORKFLOW_REQUIRE_ALL makes that a failure.")
        failed = True
    return int(failed)


def _run_pass(
    each: Pass, services: Services, missing: dict[str, str], arguments: list[str]
) -> tuple[int | None, float]:
    if each.needs in missing:
        return None, 0.0
    print(f"\n--- {each.title} ---", flush=True)
    environment = {
        **services.environment(),
        "WORKFLOW_TEST_DATABASE": each.database,
        "WORKFLOW_TEST_SKIPS": str(_skips_file(services)),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-m", each.marks]
    if each.in_parallel:
        command += ["-n", processes(), "--dist", "loadgroup"]
    started = time.monotonic()
    code = subprocess.run([*command, *arguments], env=environment, check=False).returncode
    return code, time.monotonic() - started


def processes() -> str:
    return os.environ.get("WORKFLOW_TEST_PROCESSES") or str(max(2, os.cpu_count() or 2))


def _skips_file(services: Services) -> Path:
    return services.folder / "skips"


def _skips(services: Services) -> Counter[str]:
    """How many tests were skipped for each reason, over all passes; `tests/conftest.py` wrote "COUNT x REASON"."""
    found: Counter[str] = Counter()
    if (file := _skips_file(services)).exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            count, _, reason = line.partition(" x ")
            found[reason] += int(count)
    return found

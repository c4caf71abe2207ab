"""Every pass of `make test`, and then one list: what passed, what failed, what could not run.

Browser tests have a pass of their own, because Playwright leaves an event loop behind in its thread, which
asynchronous tests cannot share. The longest pass comes first, and beside it the others one after the other.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from tests.services import clients, packages
from tests.services.pairs import newest_pass
from tests.services.passes import Pass, Result, run_passes
from tests.services.servers import SERVERS, Services, provide

MISSING_TESTS = {
    "postgresql": "the tests on PostgreSQL",
    "mariadb": "the tests on MariaDB",
    "redis": "the tests that need Redis",
    "chromium": "the browser tests",
    "node": "the tests of JavaScript",
    "clients": "the tests of other languages (each of them failed)",
}

PASSES = (
    Pass("SQLite", "not slow and not browser"),
    *(
        Pass(title, f"(every_database or {name}) and not slow and not browser", database=name, needs=name)
        for name, title in (("postgresql", "PostgreSQL"), ("mariadb", "MariaDB"))
    ),
    # A file stays in one process: the tests of one share a server.
    Pass("Browser", "browser and not slow", distribution="loadfile", needs="chromium"),
)
# One after the other and in one process: these are about what happens when, and some fill the machine.
SLOW_PASSES = (
    Pass("Faults on SQLite", "slow", distribution=None),
    *(
        Pass(f"Faults on {title}", f"(every_database or {name}) and slow", name, distribution=None, needs=name)
        for name, title in (("postgresql", "PostgreSQL"), ("mariadb", "MariaDB"))
    ),
)


def run_suite(arguments: list[str], *, slow: bool = False, newest: bool = False) -> int:
    """Run every pass with extra pytest `arguments`; returns an exit code.

    `slow` runs the long tests instead, on durable databases; `newest` adds the newest pair of Python and Django. With
    WORKFLOW_REQUIRE_ALL=1 a missing service is a failure.
    """
    passes = SLOW_PASSES if slow else PASSES
    missing = packages.install(["chromium", "node"])
    if reason := clients.install():
        missing["clients"] = reason
    if newest:
        passes = (*passes, newest_pass())
    with provide(list(SERVERS), durable=slow) as services:
        missing.update(services.missing)
        for name, url in services.urls.items():
            print(f"{name}: {services.origins[name]} at {url.rpartition('@')[2]}", flush=True)
        environment = {**services.environment(), "WORKFLOW_TEST_SKIPS": str(_skips_file(services))}
        possible = [each for each in passes if each.needs not in missing]
        results = run_passes(possible, arguments, environment, at_once=1 if slow else 2)
        results += [Result(each.title, None) for each in passes if each not in possible]
        skips = _skips(services)

    print("\nResult")
    for result in results:
        print(f"  {result}")
    print("\nNot run")
    for name, reason in missing.items():
        print(f"  {MISSING_TESTS[name]}: {reason}")
    for reason, count in skips.most_common():
        print(f"  {count} skipped: {reason}")
    if not slow:
        print("  the long tests (make test-faults)")
    elif not missing and not skips:
        print("  nothing was left out")

    failed = any(result.failed for result in results)
    if missing and os.environ.get("WORKFLOW_REQUIRE_ALL") == "1":
        print("\nServices are missing, and WORKFLOW_REQUIRE_ALL makes that a failure.")
        failed = True
    return int(failed)


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

"""A pytest plugin: lists the scenarios that ran, with the edges that each ran over.

It reads the names of finished tests alone, so it also works where other processes ran them.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

FOLDER = "tests/scenarios/"
EDGES = ("in_process", "on_the_wire", "apart", "stub")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    ran: dict[tuple[str, str], Counter[str]] = {}
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            nodeid = getattr(report, "nodeid", "")
            if nodeid.startswith(FOLDER) and (outcome == "error" or report.when == "call"):
                file, _, test = nodeid.removeprefix(FOLDER).partition("::")
                name, _, case = test.partition("[")
                edge = next((edge for edge in re.split(r"[-\]]", case) if edge in EDGES), "")
                ran.setdefault((file, name), Counter())[edge] += 1
    if not ran:
        return
    over = Counter(edge for edges in ran.values() for edge in edges)
    told = ", ".join(f"{over[edge]} {words(edge)}" for edge in EDGES if over[edge])
    terminalreporter.section(f"{len(ran)} scenarios{': ' + told if told else ''}")
    for file in sorted({file for file, _ in ran}):
        terminalreporter.write_line(words(file.removeprefix("test_").removesuffix(".py")))
        for (place, name), edges in sorted(ran.items()):
            if place == file:
                where = ", ".join(words(edge) for edge in EDGES if edges[edge]) or "by itself"
                count = max(edges.values())
                times = f" ({count} cases)" if count > 1 else ""
                told_name = ": ".join(
                    words(part.removeprefix("test_").removeprefix("Test")) for part in name.split("::")
                )
                terminalreporter.write_line(f"  {told_name}{times}: {where}")


def words(name: str) -> str:
    return name.replace("_", " ")

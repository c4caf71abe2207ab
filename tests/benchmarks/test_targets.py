"""The table of ratios says what was measured, and nothing else."""

from __future__ import annotations

from tests.benchmarks.parts import PARTS
from tests.benchmarks.peers import OURS, medians
from tests.benchmarks.profile import summary
from tests.benchmarks.targets import OURS as PREFIX
from tests.benchmarks.targets import TARGETS, table

THROUGHPUT = "W1 throughput"


def line(figures: dict[tuple[str, str], float], start: str) -> str:
    return next(text for text in table(figures) if text.startswith(start))


def test_a_target_is_met_by_the_ratio() -> None:
    figures = {(f"{PREFIX}sqlite", THROUGHPUT): 1800.0, ("restate-request_response", THROUGHPUT): 1000.0}
    start = "| sqlite | W1 throughput | 1800 | restate-request_response"
    assert line(figures, start) == f"{start} | 1000 | 1.8 | ≥ 1.8 | yes |"
    figures["restate-request_response", THROUGHPUT] = 1001.0
    assert line(figures, start).endswith("| no |")


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    figures = {(f"{PREFIX}sqlite", THROUGHPUT): 1800.0}
    assert all("not measured" in text for text in list(table(figures))[2:])


def test_a_peer_is_compared_by_the_better_of_its_modes() -> None:
    figures = {
        (f"{PREFIX}sqlite", THROUGHPUT): 1000.0,
        ("dbos-sqlite", THROUGHPUT): 100.0,
        ("dbos-sqlite", f"{THROUGHPUT}, sync functions, 1 threads"): 500.0,
        ("dbos-sqlite", f"{THROUGHPUT}, sync functions, 8 threads"): 400.0,
    }
    assert "| dbos-sqlite | 500 | 2 |" in line(figures, "| sqlite | W1 throughput | 1000 | dbos-sqlite")


def test_limits_and_shapes_need_no_peer() -> None:
    mine = f"{PREFIX}sqlite"
    figures = {(mine, "W3 1000 steps"): 3.0, (mine, "W3 500 steps"): 1.0, (mine, "W4 memory growth"): 4.0}
    assert "| 3 | ≤ 2.7 | no |" in line(figures, "| sqlite | W3 1000 steps | 3 | own")
    assert line(figures, "| sqlite | W4 memory growth | 4 | a limit").endswith("| 4 | ≤ 10 | yes |")


def test_rounds_count_by_their_median() -> None:
    rows = [{"peer": "a", "metric": "m", "value": value, "unit": "s"} for value in (1.0, 9.0, 2.0)]
    assert medians(rows) == {("a", "m"): 2.0}


def test_every_target_has_a_part_that_measures_it() -> None:
    measured = {PARTS[name].peer for name in OURS}
    assert {target.ours for target in TARGETS} <= measured


def test_the_summary_counts_the_worker_alone() -> None:
    stacks = [
        "run;_make (worker.py:1);work (a.py:3) 3",
        "run;_make (worker.py:2);rest (a.py:4) 1",
        "main (m.py:1) 9",
    ]
    text = summary(stacks)
    assert "4 samples" in text
    assert " 75.0%  work (a.py)" in text
    assert "100.0%  _make (worker.py)" in text

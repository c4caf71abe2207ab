"""What is aimed at: ratios of our figures to the peers', and limits of our own. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Figures = Mapping[tuple[str, str], float]
"""(peer, metric) -> median."""

RESTATE, BIDI, CELERY = "restate-request_response", "restate-bidi", "celery-redis"
DBOS = {"sqlite": "dbos-sqlite", "postgresql": "dbos-postgres"}
OURS = "django_workflow "


@dataclass(frozen=True, slots=True)
class Target:
    """`peer` None: an absolute limit; a metric as `peer_metric` and no peer: the ratio to our own other figure.

    `at_least`: more is better. A stretch target is one that may be missed.
    """

    ours: str
    metric: str
    peer: str | None
    limit: float
    at_least: bool = False
    peer_metric: str | None = None
    stretch: bool = False

    def ratio(self, figures: Figures) -> float | None:
        """Ours over theirs; None when one of them was not measured."""
        mine = figures.get((OURS + self.ours, self.metric))
        if self.peer is None and self.peer_metric is None:
            return mine
        theirs = figures.get((self.peer or OURS + self.ours, self.peer_metric or self.metric))
        return mine / theirs if mine is not None and theirs else None

    def is_met(self, ratio: float) -> bool:
        return ratio >= self.limit if self.at_least else ratio <= self.limit


def _targets() -> Iterator[Target]:
    one, two = "postgresql", "postgresql, 2 workers"
    w1, alone, w2, w3 = "W1 throughput", "W1 alone p50", "W2 fan-out 100", "W3 1000 steps"
    yield Target("sqlite", w1, RESTATE, 1.8, at_least=True)
    yield Target("sqlite", w1, DBOS["sqlite"], 3.5, at_least=True)
    yield Target("sqlite", w1, CELERY, 2.5, at_least=True)
    yield Target("sqlite", w1, BIDI, 1.0, at_least=True, stretch=True)
    yield Target("sqlite, steps_per_call=100", w1, BIDI, 1.0, at_least=True, stretch=True)
    yield Target(one, w1, RESTATE, 1.2, at_least=True)
    yield Target(two, w1, RESTATE, 1.6, at_least=True)
    yield Target(two, w1, DBOS["postgresql"], 3.0, at_least=True)
    yield Target("sqlite", alone, BIDI, 1.0)
    yield Target(one, alone, BIDI, 1.5)
    yield Target("sqlite", w2, CELERY, 0.4)
    yield Target("sqlite", w2, DBOS["sqlite"], 0.2)
    yield Target(one, w2, CELERY, 0.5)
    yield Target("sqlite", w3, BIDI, 1.5)
    yield Target("sqlite", w3, DBOS["sqlite"], 0.6)
    yield Target(one, w3, BIDI, 3.0)
    yield Target(one, w3, DBOS["postgresql"], 0.8)
    for database, event in (("sqlite", 0.6), (one, 0.8)):
        yield Target(database, w3, None, 2.7, peer_metric="W3 500 steps")
        yield Target(database, "W4 late p95", BIDI, 0.8)
        yield Target(database, "W4 memory growth", None, 10)
        yield Target(database, "W5 event p95", BIDI, event)
    yield Target("sqlite, granian WSGI", w1, RESTATE, 0.8, at_least=True)
    yield Target(f"{one}, granian WSGI", w1, RESTATE, 0.7, at_least=True)


TARGETS = tuple(_targets())


def with_best_of_modes(figures: Figures) -> dict[tuple[str, str], float]:
    """The figures, with the better of a peer's modes under the metric's plain name ("…, sync functions" is one)."""
    best = dict(figures)
    for (peer, metric), value in figures.items():
        plain = metric.partition(", sync functions")[0]
        known = best.get((peer, plain))
        if plain != metric:
            best[peer, plain] = value if known is None else (max if "throughput" in plain else min)(known, value)
    return best


def table(figures: Figures) -> Iterator[str]:
    """The targets as lines of a Markdown table."""
    best = with_best_of_modes(figures)
    yield "| ours | figure | ours | compared with | theirs | ratio | target | met |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for target in TARGETS:
        ratio = target.ratio(best)
        mine = best.get((OURS + target.ours, target.metric))
        other, theirs = _compared(target, best)
        sign = "≥" if target.at_least else "≤"
        met = "not measured" if ratio is None else "yes" if target.is_met(ratio) else "no"
        wanted = f"{sign} {target.limit:g}{' (stretch)' if target.stretch else ''}"
        yield (
            f"| {target.ours} | {target.metric} | {_number(mine)} | {other} | {_number(theirs)} | {_number(ratio)} "
            f"| {wanted} | {met} |"
        )


def _compared(target: Target, figures: Figures) -> tuple[str, float | None]:
    if target.peer is not None:
        return target.peer, figures.get((target.peer, target.peer_metric or target.metric))
    if target.peer_metric is not None:
        return f"own {target.peer_metric}", figures.get((OURS + target.ours, target.peer_metric))
    return "a limit of its own", None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"

"""The parts: what is measured where. Each runs in a process of its own, on a database of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

LONGEST_SECONDS = 400
ALL = ("w1", "w2", "w3", "w4", "w5")


@dataclass(frozen=True, slots=True)
class Part:
    """`peer` names its rows, `variables` are of its environment. `by_default`: `make bench` runs it unasked."""

    peer: str
    module: str
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    by_default: bool = True

    @property
    def missing(self) -> str | None:
        """The variable without which it cannot run, if that is not set."""
        needed = {
            "WORKFLOW_TEST_POSTGRESQL_URL": self.variables.get("BENCH_DATABASE") == "postgresql",
            "WORKFLOW_TEST_REDIS_URL": self.variables.get("BENCH_LAYER") == "redis",
        }
        return next((name for name, needs in needed.items() if needs and not os.environ.get(name)), None)

    def run(self, folder: Path, rows_file: Path, **variables: str) -> bool:
        """Run it to its end; False when it failed or took too long."""
        arguments = self.arguments
        if chosen := os.environ.get("BENCH_WORKLOADS", "").split():
            arguments = tuple(name for name in arguments if name in chosen)
            if self.arguments and not arguments:
                return True
        environment = {
            **os.environ,
            **self.variables,
            **variables,
            "BENCH_PEER": self.peer,
            "BENCH_OUT": str(rows_file),
            "BENCH_FOLDER": str(folder),
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
        }
        command = [sys.executable, "-m", f"tests.benchmarks.{self.module}", *arguments]
        with subprocess.Popen(command, env=environment) as running:
            try:
                return running.wait(LONGEST_SECONDS) == 0
            except BaseException as error:
                running.terminate()  # it stops what it started, and drops its database
                running.wait()
                if isinstance(error, subprocess.TimeoutExpired):
                    return False
                raise


def _parts() -> Iterator[tuple[str, Part]]:
    for database in ("sqlite", "postgresql"):
        on = {"BENCH_DATABASE": database}
        yield database, Part(database, "workloads", ALL, on)
        yield (
            f"{database}-async",
            Part(f"{database}, async", "workloads", ("w1", "w2"), on | {"BENCH_FLAVOUR": "async"}),
        )
        few = on | {"BENCH_FLAVOUR": "few-calls"}
        yield f"{database}-few-calls", Part(f"{database}, steps_per_call=100", "workloads", ("w1", "w3"), few)
        for server, title in (("granian", "granian WSGI"), ("uvicorn", "uvicorn"), ("daphne", "daphne")):
            over_http = on | {"BENCH_SERVER": server}
            by_default = database == "sqlite" or server == "granian"
            yield f"{database}-{server}", Part(f"{database}, {title}", "workloads", ("w1",), over_http, by_default)
    for count, name in ((1, "1 worker process"), (2, "2 workers")):
        apart = {"BENCH_DATABASE": "postgresql", "BENCH_WORKERS": str(count)}
        yield f"postgresql-{count}", Part(f"postgresql, {name}", "workloads", ("w1", "w5"), apart)
    yield "sqlite-load", Part("sqlite, at full load", "load", (), {"BENCH_DATABASE": "sqlite"})
    yield "postgresql-load", Part("postgresql, at full load", "load", (), {"BENCH_DATABASE": "postgresql"})
    for layer in ("memory", "redis"):
        yield f"sockets-{layer}", Part(f"uvicorn, layer in {layer}", "sockets", (), {"BENCH_LAYER": layer})
    for database in ("sqlite", "postgresql"):
        on = {"BENCH_DATABASE": database}
        yield f"{database}-admin", Part(f"{database}, 100,000 runs", "admin_pages", (), on)
    yield (
        "postgresql-sleepers",
        Part("postgresql, sleeping runs", "sleepers", (), {"BENCH_DATABASE": "postgresql"}, False),
    )
    yield "postgresql-sizes", Part("postgresql, sizes", "sizes", (), {"BENCH_DATABASE": "postgresql"}, False)


PARTS: dict[str, Part] = dict(_parts())

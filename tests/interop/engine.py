"""The Django server of these tests: its address, its block of variables, and its runs as the REST API shows them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.interop.processes import Child

FINAL = ("success", "failed", "canceled")
RUN_SECONDS = 30


@dataclass(frozen=True)
class RunRows:
    """A run and its steps, in the JSON of the REST API."""

    run: dict[str, Any]
    steps: list[dict[str, Any]]

    @property
    def status(self) -> str:
        return str(self.run["status"])

    @property
    def result(self) -> Any:
        return self.run["result"]

    @property
    def names(self) -> list[str]:
        return [step["name"] for step in self.steps]

    @property
    def results(self) -> dict[str, Any]:
        return {step["name"]: step["result"] for step in self.steps}

    def told(self, *fields: str) -> list[tuple[Any, ...]]:
        """Those fields of every step."""
        return [tuple(step[field] for field in fields) for step in self.steps]


class Engine(Child):
    """The server process. `environment` is what an endpoint or a client needs to use it."""

    def __init__(self, command: list[str], log: Path, temporary: Path) -> None:
        super().__init__(command, log=log, environment={"TMPDIR": str(temporary)})
        self.origin = self.ready["origin"]
        self.environment = variables(self.ready["environment"])
        self.http = httpx.Client(
            base_url=f"{self.origin}/workflows", auth=tuple(self.ready["login"]), timeout=30, trust_env=False
        )

    def __exit__(self, *error: Any) -> None:
        self.http.close()
        super().__exit__(*error)

    def run(self, run_id: str) -> dict[str, Any] | None:
        """The run by itself; None while there is no such run."""
        answer = self.http.get(f"api/runs/{run_id}/")
        return None if answer.status_code == 404 else dict(answer.raise_for_status().json())

    def rows(self, run_id: str) -> RunRows:
        run = self.run(run_id)
        assert run is not None, f"There is no run {run_id}."
        return RunRows(run, self.http.get(f"api/runs/{run_id}/steps/").raise_for_status().json()["results"])

    def newest(self, url: str) -> str | None:
        """The id of the newest run of the endpoint at that address."""
        listed = self.http.get("api/runs/").raise_for_status().json()["results"]
        return next((run["run_id"] for run in listed if (self.run(run["run_id"]) or {}).get("url") == url), None)

    def wait(self, run_id: str, *statuses: str) -> RunRows:
        """The rows once the run has one of the statuses (by default: is over). Fails the test when it takes too long,
        and at once when the run ended otherwise."""
        wanted = statuses or FINAL
        limit = time.monotonic() + RUN_SECONDS
        while (run := self.run(run_id)) is None or run["status"] not in wanted:
            if run is not None and run["status"] in FINAL:
                raise AssertionError(f"The run ended as {run['status']}, not {wanted}: {run['error']}")
            if time.monotonic() > limit:
                raise AssertionError(f"Not {wanted} within {RUN_SECONDS} s: {run}")
            time.sleep(0.04)
        return self.rows(run_id)


def variables(block: str) -> dict[str, str]:
    """`NAME=value` lines as they would be pasted into an environment file."""
    pairs = (line.removeprefix("export ").partition("=") for line in block.splitlines() if "=" in line)
    found = {name.strip(): value.strip().strip("\"'") for name, _, value in pairs if not name.lstrip().startswith("#")}
    # No proxy of this machine stands between processes of this machine.
    return {**found, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": os.environ.get("no_proxy", "") + ",127.0.0.1"}

"""Processes that the tests talk to: the Django server, the endpoints, and the official clients.

Each prints one line of JSON when it is ready, and what else it says goes into a log. A client reads one line of JSON
for each piece of code that it shall run, and answers with one.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import textwrap
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

START_SECONDS = 60
ANSWER_SECONDS = 60

ROOT = Path(__file__).parents[2]


class ProcessFailed(Exception):
    """A process ended, or said nothing in time; the text holds the end of its log."""


class Child:
    """A process of ours. Leaving the block ends it with SIGTERM, and with SIGKILL if that takes too long."""

    def __init__(
        self, command: Sequence[str | Path], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        self._name = " ".join(Path(part).name for part in map(str, command[-2:]))
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                cwd=ROOT,
            )
        self.ready = self.read_line(START_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def write_line(self, value: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        self._process.stdin.flush()

    def read_line(self, seconds: float) -> Any:
        """The next line of its output, decoded. Raises ProcessFailed."""
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise ProcessFailed(f"{self._name} said nothing for {seconds} s.\n{self.last_words()}")
        line = self._process.stdout.readline()
        if not line:
            raise ProcessFailed(f"{self._name} ended with code {self._process.wait()}.\n{self.last_words()}")
        return json.loads(line)

    def last_words(self, characters: int = 4000) -> str:
        return self.log.read_text(errors="replace")[-characters:]


class ClientError(Exception):
    """An exception of the code that a client ran: its class, its text, and the HTTP status when it has one."""

    def __init__(self, name: str, message: str, status: int | None) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message
        self.status = status


class Client(Child):
    """Runs code with the official client of a language: `client("return await qstash.keys…", url=…)`.

    The code is the body of a function, async in JavaScript; the arguments and the answer travel as JSON.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._lock = threading.Lock()
        super().__init__(*arguments, **options)

    def __call__(self, code: str, /, **arguments: Any) -> Any:
        """What the code returns. Raises ClientError for what it throws."""
        with self._lock:
            self.write_line({"code": textwrap.dedent(code), "arguments": arguments})
            answer = self.read_line(ANSWER_SECONDS)
        if error := answer.get("error"):
            raise ClientError(error["name"], error["message"], error.get("status"))
        return answer.get("value")

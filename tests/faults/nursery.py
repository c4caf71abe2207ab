"""Workers and web processes that start in milliseconds: forked by one process that has imported the project.

    with Nursery(log) as nursery:
        worker = nursery.worker(crash=("before-commit", 3))
        worker.wait()                    # ended by itself, or by `kill()`; `freeze()`, `thaw()`, `stop()` as well

The nursery is `python -m tests.faults.nursery`: it takes lines of JSON, forks, and tells the child's pid. Children run
on the test's database. They end with their nursery, and that with its input.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0

Crash = tuple[str, int]


# In the test's process


class Child:
    """A forked process of the tests."""

    def __init__(self, nursery: Nursery, pid: int, origin: str) -> None:
        self._nursery = nursery
        self.pid = pid
        self.origin = origin
        self.code: int | None = None

    def kill(self) -> None:
        """End it without warning."""
        self._signal(signal.SIGKILL)
        self.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> int:
        """Ask it to drain; its exit code."""
        self._signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended; its exit code, or minus the signal."""
        if self.code is None:
            self.code = self._nursery.ask(do="wait", pid=self.pid)["code"]
        return self.code

    def ended(self) -> bool:
        """Whether it has ended by itself."""
        if self.code is None:
            self.code = self._nursery.ask(do="poll", pid=self.pid)["code"]
        return self.code is not None

    def _signal(self, number: int) -> None:
        if self.code is None:  # reaped only by `wait`, so the pid is still its own
            os.kill(self.pid, number)


class Nursery:
    def __init__(self, log: Path, **environment: str) -> None:
        from django.db import connection

        self._log = log.open("ab")
        self._children: list[Child] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.settings",
                "WORKFLOW_TEST_DATABASE_NAME": str(connection.settings_dict["NAME"]),
                "PYTHONPATH": str(ROOT),
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.clear()
        finally:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(PATIENCE)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._log.close()

    def clear(self) -> None:
        """End all children."""
        for child in self._children:
            child.kill()
        self._children.clear()

    def worker(
        self,
        *,
        crash: Crash | None = None,
        refusal: Crash | None = None,
        concurrency: int = 4,
        settings: Any = None,
        patches: Any = None,
    ) -> Child:
        """A worker. `crash` and `refusal` say where it ends and what it is refused (see `crashes`).

        `settings` are of DJANGO_WORKFLOW; `patches` are attributes of modules: {"module:name": value}."""
        options = {"settings": settings, "patches": patches, "concurrency": concurrency}
        return self._fork("worker", crash, refusal=refusal, **options)

    def web(self, *, crash: Crash | None = None, settings: Any = None, port: int = 0, patches: Any = None) -> Child:
        """A web process that serves the project, at `origin`."""
        return self._fork("web", crash, settings=settings, port=port, patches=patches)

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"The nursery has ended; see {self._log.name}."
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _fork(self, role: str, crash: Crash | None, **options: Any) -> Child:
        answer = self.ask(do=role, crash=crash, **options)
        child = Child(self, answer["pid"], answer["origin"])
        self._children.append(child)
        return child


# In the nursery


def application() -> Any:
    from tests.scenarios.http_server import django_application

    return django_application()


def main() -> None:
    import django

    django.setup()
    import_all()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def import_all() -> None:
    """Import what every child needs, once."""
    import httpx
    from django.urls import get_resolver

    from django_workflow.engine.dispatch import handler
    from django_workflow.management.commands import workflow_worker  # noqa: F401
    from tests.faults import crashes  # noqa: F401
    from tests.scenarios import http_server  # noqa: F401

    # Reading the certificates takes 0.1 s.
    tls = httpx.create_ssl_context()
    httpx.create_ssl_context = lambda: tls  # type: ignore[assignment]
    assert get_resolver().url_patterns
    handler.cache_clear()


def answer(command: dict[str, Any]) -> dict[str, Any]:
    if command["do"] in ("wait", "poll"):
        pid, status = os.waitpid(command["pid"], os.WNOHANG if command["do"] == "poll" else 0)
        return {"code": os.waitstatus_to_exitcode(status) if pid else None}
    run: Callable[..., None] = {"worker": run_worker, "web": run_web}[command.pop("do")]
    server = None
    if run is run_web:
        server = bound_server(command.pop("port"))
    pid = os.fork()
    if pid:
        if server is not None:
            server.server_close()
        return {"pid": pid, "origin": server.origin if server is not None else ""}
    be_child(run, server, **command)
    raise AssertionError("A child has ended by now.")


def be_child(
    run: Callable[..., None],
    server: Any,
    *,
    crash: Crash | None,
    settings: dict[str, Any] | None,
    patches: dict[str, Any] | None = None,
    refusal: Crash | None = None,
    **options: Any,
) -> None:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, tell_later)
        die_with_parent()
        # Its own: not the pipes on which the nursery listens and answers.
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(2, 1)
        from importlib import import_module

        from django.test import override_settings

        override_settings(DJANGO_WORKFLOW=settings or {}).enable()
        for name, value in (patches or {}).items():
            module, _, attribute = name.partition(":")
            setattr(import_module(module), attribute, value)
        for disaster in filter(None, (refusal, crash)):
            from tests.faults import crashes

            crashes.install(*disaster)
        if server is not None:
            run(server, **options)
        else:
            run(**options)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def tell_later(number: int, frame: object) -> None:
    """Told to stop before the child listens: it is told again."""
    threading.Timer(0.05, os.kill, (os.getpid(), number)).start()


def die_with_parent() -> None:
    """A killed nursery leaves nobody behind."""
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run_worker(*, concurrency: int) -> None:
    from django.core.management import call_command

    call_command("workflow_worker", concurrency=concurrency)


def bound_server(port: int) -> Any:
    from tests.scenarios.http_server import ThreadedServer

    return ThreadedServer(None, port)  # type: ignore[arg-type]


def run_web(server: Any) -> None:
    server.set_app(application())
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    stopped.wait()


if __name__ == "__main__":
    from tests.faults import nursery

    nursery.main()

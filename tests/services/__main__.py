"""The command line; `tests/services/__init__.py` describes it."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from typing import NoReturn

from tests.services import clients, packages, pairs
from tests.services.servers import SERVERS, provide
from tests.services.suite import run_suite


def main(argv: list[str]) -> int:
    own, rest = _split(argv)
    parser = argparse.ArgumentParser(prog="python -m tests.services")
    commands = parser.add_subparsers(dest="command", required=True)
    install = commands.add_parser("install", help="apt-get install what is missing")
    install.add_argument("names", nargs="*", help=f"of {', '.join(packages.PROGRAMS)}; default: all")
    install.add_argument("--packages", action="store_true", help="the names are Debian packages")
    run = commands.add_parser("run", help="run a command with the services up")
    run.add_argument("--only", default=",".join(SERVERS), help="comma-separated; default: %(default)s")
    run.add_argument("--durable", action="store_true", help="databases whose commits survive a power cut")
    suite = commands.add_parser("suite", help="every pass of the tests")
    suite.add_argument("--slow", action="store_true", help="the long tests instead, on durable databases")
    suite.add_argument("--newest", action="store_true", help="the newest pair of Python and Django as well")
    commands.add_parser("install-clients", help="the official clients that tests/interop runs")
    commands.add_parser("newest", help="the unit tests on the newest pair")
    commands.add_parser("install-newest", help="make the environment of the newest pair")
    commands.add_parser("matrix", help="the unit tests on every pair that this machine has")
    options = parser.parse_args(own)

    match options.command:
        case "install" if options.packages:
            return _fail_with({"packages": packages.apt_install(options.names)})
        case "install":
            return _fail_with(packages.install(options.names or packages.PROGRAMS))
        case "install-clients":
            return _fail_with({"clients": clients.install()})
        case "run":
            return _run(options.only.split(","), options.durable, rest)
        case "suite":
            return run_suite(rest, slow=options.slow, newest=options.newest)
        case "newest":
            return pairs.test_newest(rest)
        case "install-newest":
            return pairs.install_newest()
        case _:
            return pairs.test_matrix(rest)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """What stands before `--` is ours, the rest is the command or pytest's."""
    cut = argv.index("--") if "--" in argv else len(argv)
    return argv[:cut], argv[cut + 1 :]


def _run(names: list[str], durable: bool, command: list[str]) -> int:
    with provide(names, durable=durable) as services:
        if services.missing:
            return _fail_with(dict(services.missing))
        return subprocess.run(command, env=services.environment(), check=False).returncode


def _fail_with(reasons: dict[str, str | None] | dict[str, str]) -> int:
    reasons = {name: reason for name, reason in reasons.items() if reason}
    for name, reason in reasons.items():
        print(f"{name}: {reason}", file=sys.stderr)
    return int(bool(reasons))


def _stop(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)  # so that what was started is stopped on the way out


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main(sys.argv[1:]))

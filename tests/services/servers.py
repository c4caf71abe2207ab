"""The database servers and Redis: found where they usually listen, or started for the length of one command.

Each server is a class with `find` (the URL of a running one that lets us in, or None) and `start` (a throw-away one).
`__main__` and `suite` call `provide`, which gives the URLs and stops what it started.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from tests.services import packages

START_SECONDS = 30


class CannotStart(Exception):
    """Says why a server is not there; its text is printed in the list of what could not run."""


@dataclass
class Services:
    """What `provide` brought: the URL of each service, how it was come by, and why others are missing."""

    urls: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    folder: Path = Path()

    def environment(self) -> dict[str, str]:
        """Variables for a command's environment. Its temporary files go into the folder that is removed at the end."""
        variables = {f"WORKFLOW_TEST_{name.upper()}_URL": url for name, url in self.urls.items()}
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        return {**os.environ, **variables, "TMPDIR": str(temporary)}


class Server:
    """A server in a folder of its own, as a child of this process."""

    name: str
    user: str

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self.folder = folder
        self.durable = durable
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def find(self) -> str | None:
        raise NotImplementedError

    def start(self) -> str:
        raise NotImplementedError

    def program(self) -> Path:
        path = packages.find(self.name)
        if path is None:
            raise CannotStart("it is not installed")
        return path

    def as_user(self, *, die_with_us: bool = False) -> list[str]:
        """The start of a command line: databases refuse to run as root, and none shall outlive this process."""
        options = []
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.user, self.user)
            options += ["--reuid", self.user, "--regid", self.user, "--clear-groups"]
        if die_with_us:
            options += ["--pdeathsig", "KILL"]
        return ["setpriv", *options] if options else []

    def prepare(self, *command: str | Path) -> None:
        """Run a command to its end; CannotStart with its last words when it fails."""
        line = [*self.as_user(), *map(str, command)]
        done = subprocess.run(line, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotStart(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-500:]}")

    def launch(self, *command: str | Path, url: str) -> str:
        """Start the server and wait until it answers at `url`."""
        line = [*self.as_user(die_with_us=True), *map(str, command)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(line, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT)
        limit = time.monotonic() + START_SECONDS
        while time.monotonic() < limit and self.process.poll() is None:
            if self.answers(url):
                return url
            time.sleep(0.05)
        words = self.log.read_text(errors="replace").strip()[-500:]
        self.stop()
        raise CannotStart(f"it did not start: {words}")

    def answers(self, url: str) -> bool:
        raise NotImplementedError

    def stop(self) -> None:
        # Its data is thrown away, so nothing is lost by not asking politely.
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Postgresql(Server):
    name = "postgresql"
    user = "postgres"

    def find(self) -> str | None:
        user = quote(os.environ.get("PGUSER") or _user())
        usual = (f"postgresql://{user}@/postgres?host=/var/run/postgresql", f"postgresql://{user}@127.0.0.1/postgres")
        return next((url for url in usual if self.answers(url)), None)

    def answers(self, url: str) -> bool:
        """Whether we may make databases there, and (when asked for) its commits survive a power cut."""
        import psycopg

        question = (
            "SELECT (rolsuper OR rolcreatedb), current_setting('fsync') FROM pg_roles WHERE rolname = current_user"
        )
        try:
            with psycopg.connect(url, connect_timeout=2) as connection:
                row = connection.execute(question).fetchone()
        except psycopg.Error:
            return False
        return row is not None and row[0] and (row[1] == "on" or not self.durable)

    def start(self) -> str:
        postgres = self.program()
        data = self.folder / "data"
        initdb = postgres.with_name("initdb")
        self.prepare(initdb, "-D", data, "-U", "root", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            "fsync": "on" if self.durable else "off",
        }
        arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        url = f"postgresql://root@/postgres?host={self.folder}"
        return self.launch(postgres, "-D", data, *arguments, url=url)

    def stop(self) -> None:
        # Killing would leave its children and their shared memory behind; this is its immediate shutdown.
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=10)
        super().stop()


class Mariadb(Server):
    name = "mariadb"
    user = "mysql"

    def find(self) -> str | None:
        user = quote(_user())
        usual = (f"mysql://{user}@/mysql?unix_socket=/run/mysqld/mysqld.sock", f"mysql://{user}@127.0.0.1/mysql")
        return next((url for url in usual if self.answers(url)), None)

    def answers(self, url: str) -> bool:
        """Whether it is a MariaDB where we may do everything."""
        import pymysql

        from tests.services.addresses import database_settings

        settings = database_settings(url)
        host = settings["HOST"]
        where = {"unix_socket": host} if host.startswith("/") else {"host": host, "port": int(settings["PORT"] or 3306)}
        try:
            connection = pymysql.connect(
                user=settings["USER"], password=settings["PASSWORD"], connect_timeout=2, **where
            )
        except (pymysql.Error, OSError):
            return False
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT VERSION()")
            version = str(cursor.fetchone())
            cursor.execute("SHOW GRANTS")
            grants = str(cursor.fetchall())
        return "MariaDB" in version and "GRANT ALL PRIVILEGES ON *.*" in grants

    def start(self) -> str:
        mariadbd = self.program()
        data = self.folder / "data"
        common = ("--no-defaults", f"--datadir={data}")
        self.prepare("mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db")
        return self.launch(
            mariadbd,
            *common,
            f"--socket={self.folder}/sock",
            f"--pid-file={self.folder}/pid",
            "--skip-networking",
            "--max-connections=200",
            f"--innodb-flush-log-at-trx-commit={1 if self.durable else 0}",
            url=f"mysql://root@/mysql?unix_socket={self.folder}/sock",
        )


class Redis(Server):
    name = "redis"
    user = "redis"

    def find(self) -> str | None:
        """The highest empty database of a server in the usual place: tests may empty the one they get."""
        import redis

        try:
            for number in range(15, 0, -1):
                url = f"redis://127.0.0.1:6379/{number}"
                with redis.Redis.from_url(url, socket_timeout=2) as client:
                    if client.dbsize() == 0:
                        return url
        except redis.RedisError:
            return None
        return None

    def start(self) -> str:
        path = self.folder / "sock"
        options = ("--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", self.folder)
        return self.launch(self.program(), *options, url=f"unix://{path}?db=1")

    def answers(self, url: str) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            try:
                connection.connect(urlsplit(url).path)
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
            except OSError:
                return False


SERVERS: dict[str, type[Server]] = {server.name: server for server in (Postgresql, Mariadb, Redis)}


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


@contextmanager
def provide(names: list[str], *, durable: bool = False) -> Iterator[Services]:
    """Find or start each server of `names`, and stop those that were started.

    `durable` wants commits that survive a power cut, for benchmarks and crash tests. What cannot be had is listed in
    `Services.missing`; the caller decides whether that matters.
    """
    fresh = os.environ.get("WORKFLOW_TEST_FRESH") == "1"
    with ExitStack() as stack:
        # Short, because a socket's path holds 107 bytes; open to enter, because the servers run as users of their own.
        folder = Path(tempfile.mkdtemp(prefix="workflow-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        services = Services(folder=folder)
        for name in names:
            if url := os.environ.get(f"WORKFLOW_TEST_{name.upper()}_URL"):
                services.urls[name], services.origins[name] = url, "given"
                continue
            (folder / name).mkdir()
            server = SERVERS[name](folder / name, durable=durable)
            stack.callback(server.stop)
            url = None if fresh else server.find()
            services.origins[name] = "found running" if url else "started for this run"
            try:
                if url is None:
                    if reason := packages.install([name]).get(name):
                        raise CannotStart(reason)
                    url = server.start()
                services.urls[name] = url
            except (CannotStart, OSError) as error:
                services.missing[name] = str(error)
        yield services

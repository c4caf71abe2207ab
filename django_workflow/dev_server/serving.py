"""Runs the engine in this process: tables and keys, one worker, daphne on sockets that are open already.

Imported by `__main__` after Django is configured. Ends when `stop` is called, from a signal handler or any thread.
"""

from __future__ import annotations

import secrets
import socket
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the many parts that Twisted is made of
    from daphne.server import Server
    from twisted.internet import reactor
    from twisted.logger import STDLibLogObserver, globalLogPublisher
    from twisted.web.http import HTTPChannel

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.handlers.asgi import ASGIHandler
from django.core.management import call_command

from django_workflow.conf import get_settings
from django_workflow.dev_server.errors import CannotStart
from django_workflow.dev_server.settings import ADMIN_NAME
from django_workflow.dev_server.users import User
from django_workflow.engine import signing_keys
from django_workflow.engine.clock import current_clock
from django_workflow.engine.file_lock import WorkerLock
from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.worker import Worker
from django_workflow.models import SigningKey

DRAIN_SECONDS = 1.0
LARGEST_HEAD = 1 << 20
"""Bytes of a request's headers. A destination stands in the path, and daphne hangs up on more than 16 KiB."""


def prepare(user: User) -> None:
    """Tables, and the user's documented keys as the pair in force, whatever a run before has rotated them to."""
    call_command("migrate", verbosity=0, skip_checks=True)
    alias = get_settings().database
    rows = SigningKey.objects.using(alias)
    with engine_atomic(alias):
        newest = rows.order_by("-created_at").first()
        if newest is None or (newest.current, newest.next) != (user.current_signing_key, user.next_signing_key):
            now = current_clock().now()
            if newest is not None:
                now = max(now, newest.created_at + timedelta(microseconds=1))
            rows.create(current=user.current_signing_key, next=user.next_signing_key, created_at=now)
    signing_keys.forget()


def admin_login(public: bool) -> str:
    """Make the admin's one user and return its password: "admin", and a random one when others may reach the server."""
    from django.contrib.auth.models import User as Account

    password = secrets.token_urlsafe(12) if public else ADMIN_NAME
    account, _ = Account.objects.get_or_create(username=ADMIN_NAME)
    account.is_staff = account.is_superuser = True
    account.set_password(password)
    account.save()
    return password


class DevServer:
    """The server of this process; there is one reactor, so there is one of these."""

    def __init__(self, sockets: Sequence[socket.socket], *, admin: bool) -> None:
        HTTPChannel.totalHeadersSize = HTTPChannel.MAX_LENGTH = LARGEST_HEAD
        # Not get_asgi_application(): it would set up logging again, without what `events` has added.
        application = ASGIStaticFilesHandler(ASGIHandler()) if admin else ASGIHandler()
        self._sockets = sockets
        # "-": daphne wants a description of an endpoint, but has none for an open IPv6 socket; they are taken below.
        self._server = Server(
            application,
            endpoints=["-"],
            signal_handlers=False,
            verbosity=0,
            server_name="django_workflow",
            ready_callable=self._open,
        )
        self._server.endpoints = []
        self._ready: Callable[[], None] = lambda: None

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until `stop`. `ready` is called once calls are answered and deliveries made."""
        self._ready = ready
        lock = WorkerLock(get_settings().database)
        if not lock.acquire():
            raise CannotStart(f"{lock.path}: another server works on this database. Stop it, or name another file.")
        try:
            worker = Worker()
            worker.start()
            try:
                self._server.run()
            finally:
                worker.drain(DRAIN_SECONDS)
        finally:
            lock.release()

    def stop(self) -> None:
        """End `run`. May be called from any thread, and more than once."""
        reactor.callFromThread(self._stop)

    def _open(self) -> None:
        # daphne would leave what goes wrong in Twisted unsaid.
        globalLogPublisher.addObserver(STDLibLogObserver())  # type: ignore[arg-type]
        for sock in self._sockets:
            sock.setblocking(False)  # the reactor accepts until nobody is left
            reactor.adoptStreamPort(sock.fileno(), sock.family, self._server.http_factory)
        reactor.callWhenRunning(self._ready)

    def _stop(self) -> None:
        if reactor.running:
            reactor.stop()  # type: ignore[misc]

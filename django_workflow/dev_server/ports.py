"""Taking the port, or finding out who has it. Knows sockets and one HTTP call, no Django."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException

from django_workflow.dev_server.errors import CannotStart
from django_workflow.dev_server.users import User

PROBE_SECONDS = 2.0
BACKLOG = 1024


class PortTaken(CannotStart):
    """Something else listens there."""


@contextmanager
def listening(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets that listen at every address of the host, all at one port; 0 takes any free one.

    Node.js tries `localhost` at ::1 first, others at 127.0.0.1, so a name is all of its addresses. Raises PortTaken
    or CannotStart.
    """
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        for family, address in _addresses(host, port):
            try:
                sock = _listen(family, (address, sockets[0].getsockname()[1] if sockets else port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortTaken(
                        f"Port {port} is taken by another program (address already in use). Stop that one, or choose "
                        f"another port: --port {port + 1}, and QSTASH_DEV_PORT={port + 1} for SDKs."
                    ) from error
                if sockets and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    continue  # /etc/hosts knows ::1, but this machine has no IPv6
                raise CannotStart(f"The server cannot listen at {address}, port {port}: {error.strerror}.") from error
            sockets.append(stack.enter_context(sock))
        yield sockets


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotStart(f"--host {host}: this name has no address ({error.strerror}).") from error
    pairs = dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found)
    # 127.0.0.1 first: SDKs look for the development server there, so that one has to be ours.
    return sorted(pairs, key=lambda pair: pair[0] != socket.AF_INET)


def _listen(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    # macOS and Windows let one address be taken beside a program that listens at all of them.
    if address[1] and _is_answered(host_to_call(address[0]), address[1]):
        raise OSError(errno.EADDRINUSE, "address already in use")
    return socket.create_server(address, family=family, backlog=BACKLOG)


def _is_answered(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def answers_as(user: User, host: str, port: int) -> bool:
    """Whether a development server with this user's keys answers there. SDKs ask the same before they start one.

    Source: qstash-js, src/dev-server/health.ts.
    """
    connection = HTTPConnection(host, port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/v2/keys", headers={"Authorization": f"Bearer {user.token}"})
        response = connection.getresponse()
        keys = json.loads(response.read(65536))
    except (OSError, HTTPException, ValueError):
        return False
    finally:
        connection.close()
    wanted = {"current": user.current_signing_key, "next": user.next_signing_key}
    return response.status == 200 and isinstance(keys, dict) and {name: keys.get(name) for name in wanted} == wanted


def host_to_call(host: str) -> str:
    """The address at which a server that listens at `host` is found from this machine."""
    return "127.0.0.1" if host in ("localhost", "0.0.0.0", "") else "::1" if host == "::" else host

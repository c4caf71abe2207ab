"""The guard of outgoing calls: which addresses `ctx.call` and callbacks may reach. Pure.

URLs of calls often come from data, so a call must not become a way into the network that the worker stands in (SSRF).
`network` asks for every address that a host name has, before it connects to one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from django_workflow.errors import Misconfigured

Address = IPv4Address | IPv6Address
_AnyNetwork = IPv4Network | IPv6Network

# Written out, for `ipaddress.is_global` says other things in other versions of Python.
# Source: IANA, "IPv4 / IPv6 Special-Purpose Address Registry".
_NOT_PUBLIC_4 = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # "this host": Linux connects to itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' NAT
        "127.0.0.0/8",
        "168.63.129.16/32",  # a public number, but Azure's own service inside each machine
        "169.254.0.0/16",  # link-local, metadata services of the clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
]
_UNICAST_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = [
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocols; Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
]
_NAT64 = IPv6Network("64:ff9b::/96")


class CallRefused(Exception):
    """The call goes where `call_allow` does not let it."""


def is_public(address: Address) -> bool:
    """Whether everybody on the internet could reach this address. Source: the registries above."""
    inner = _inner(address)
    if inner is not None:
        return is_public(inner)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _UNICAST_6 and not any(address in network for network in _NOT_PUBLIC_6)


@dataclass(frozen=True, slots=True)
class Guard:
    """What setting `call_allow` admits: public addresses, and the hosts and networks that it names."""

    hosts: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()
    networks: tuple[_AnyNetwork, ...] = ()

    def check(self, host: str, addresses: Iterable[Address]) -> None:
        """Raises CallRefused unless the host's name or each of its addresses is admitted."""
        name = _plain(host)
        if name in self.hosts or name.endswith(self.suffixes):
            return
        for address in addresses:
            if not is_public(address) and not self._names(address):
                which = f"{host}" if str(address) == host else f"{host} ({address})"
                raise CallRefused(
                    f"{which} is not a public address, so this call was not made. "
                    "Add its host or network to call_allow in DJANGO_WORKFLOW if calls may reach it."
                )

    def _names(self, address: Address) -> bool:
        forms = [form for form in (address, _inner(address)) if form is not None]
        return any(form in network for network in self.networks for form in forms)


def guard_of(allow: Iterable[str]) -> Guard:
    """The guard of `call_allow`: networks (`10.0.0.0/8`), addresses, host names and `*.suffix` for all names below one.

    Raises Misconfigured for anything else.
    """
    hosts, suffixes, networks = set(), [], []
    for entry in allow:
        text = _plain(entry.strip())
        try:
            networks.append(ip_network(text.strip("[]"), strict=False))
            continue
        except ValueError:
            pass
        name = text.removeprefix("*.")
        if not name or any(character in name for character in "/:*@? "):
            raise Misconfigured(
                f"call_allow has {entry!r}, which is neither a host nor a network. "
                'Write "payments.internal", "*.internal", "10.1.2.3" or "10.0.0.0/8", without scheme and port.'
            )
        if name == text:
            hosts.add(name)
        else:
            suffixes.append("." + name)
    return Guard(frozenset(hosts), tuple(suffixes), tuple(networks))


def address_of(text: str) -> Address:
    """The address that the system names; a zone (`%eth0`) says through which interface and is left out."""
    return ip_address(text.partition("%")[0])


def _plain(host: str) -> str:
    with suppress(UnicodeError):  # of what is no name that could be looked up either
        host = host.encode("idna").decode()
    return host.lower().rstrip(".")


def _inner(address: Address) -> IPv4Address | None:
    """The IPv4 address that a mapped or translated (NAT64) IPv6 address leads to."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped

from __future__ import annotations

from ipaddress import ip_address

import pytest

from django_workflow.engine.call_guard import CallRefused, address_of, guard_of, is_public
from django_workflow.errors import Misconfigured


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "100.63.255.255",  # just below carriers' NAT
        "172.32.0.1",  # just above a private network
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2001:4860:4860::8888",
        "64:ff9b::8.8.8.8",  # how networks without IPv4 reach 8.8.8.8
        "::ffff:8.8.8.8",
    ],
)
def test_public_addresses(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",  # metadata service of clouds
        "100.100.100.200",  # … of Alibaba
        "168.63.129.16",  # … of Azure
        "192.0.0.192",  # … of Oracle
        "100.64.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "192.88.99.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",  # an old way to write IPv4
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1",
        "100::1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",  # metadata service of AWS
        "ff02::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "3fff::1",
        "5f00::1",
        "4000::1",
    ],
)
def test_other_addresses(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(CallRefused, match="not a public address"):
        guard_of(()).check("example.com", [ip_address(address)])


def test_one_inner_address_is_enough_to_refuse() -> None:
    addresses = [ip_address("8.8.8.8"), ip_address("10.0.0.1")]
    with pytest.raises(CallRefused, match=r"example\.com \(10\.0\.0\.1\) is not a public address"):
        guard_of(()).check("example.com", addresses)


def test_a_refusal_says_what_to_do() -> None:
    with pytest.raises(CallRefused, match=r"^10\.0\.0\.1 is not a public address.*call_allow in DJANGO_WORKFLOW"):
        guard_of(()).check("10.0.0.1", [ip_address("10.0.0.1")])


INNER = ip_address("10.1.2.3")


@pytest.mark.parametrize(
    ("allow", "host", "admitted"),
    [
        (["payments.internal"], "payments.internal", True),
        (["payments.internal"], "PAYMENTS.Internal.", True),  # names ignore case and a last dot
        (["Payments.Internal."], "payments.internal", True),
        (["payments.internal"], "a.payments.internal", False),
        (["payments.internal"], "xpayments.internal", False),
        (["*.internal"], "payments.internal", True),
        (["*.internal"], "a.b.internal", True),
        (["*.internal"], "internal", False),
        (["*.internal"], "payments.internal.evil.example", False),
        (["bücher.internal"], "xn--bcher-kva.internal", True),
        (["10.0.0.0/8"], "anything.example", True),
        (["10.1.2.3"], "anything.example", True),
        (["10.9.9.9/8"], "anything.example", True),  # host bits do not matter
        (["10.1.2.4"], "anything.example", False),
        (["192.168.0.0/16", "::1"], "anything.example", False),
        ([" 10.0.0.0/8 "], "anything.example", True),
    ],
)
def test_call_allow_admits_hosts_and_networks(allow: list[str], host: str, admitted: bool) -> None:
    guard = guard_of(allow)
    if admitted:
        guard.check(host, [INNER])
    else:
        with pytest.raises(CallRefused):
            guard.check(host, [INNER])


def test_a_network_admits_the_other_ways_to_write_its_addresses() -> None:
    guard = guard_of(["127.0.0.0/8", "[::1]"])
    guard.check("localhost", [ip_address("::ffff:127.0.0.1"), ip_address("::1"), ip_address("64:ff9b::127.0.0.1")])


@pytest.mark.parametrize(
    "entry", ["", "*", "*.", "http://internal", "internal:8000", "a.*.b", "user@host", "10.0.0.0/33"]
)
def test_what_is_neither_host_nor_network_is_refused(entry: str) -> None:
    with pytest.raises(Misconfigured, match="neither a host nor a network"):
        guard_of([entry])


def test_a_zone_is_no_part_of_an_address() -> None:
    assert address_of("fe80::1%eth0") == ip_address("fe80::1")

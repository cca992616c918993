"""Addresses as EPICS writes them, and the interfaces of this host."""

from __future__ import annotations

import socket

import pytest

from pvafast.network import addresses, interfaces
from pvafast.network.addresses import Endpoint, without_doubles
from pvafast.network.interfaces import InterfaceAddress


@pytest.mark.parametrize(
    ("text", "endpoint", "address"),
    [
        ("10.1.2.3", Endpoint("10.1.2.3", 5076), ("10.1.2.3", 5076)),
        ("10.1.2.3:99", Endpoint("10.1.2.3", 99), ("10.1.2.3", 99)),
        ("10.1.2.3:0", Endpoint("10.1.2.3", 0), ("10.1.2.3", 0)),
        ("localhost", Endpoint("127.0.0.1", 5076), ("127.0.0.1", 5076)),
        ("localhost:1", Endpoint("127.0.0.1", 1), ("127.0.0.1", 1)),
        ("224.0.1.1,255", Endpoint("224.0.1.1", 5076, 255), ("224.0.1.1", 5076)),
        ("224.0.1.1:7,1@eth7", Endpoint("224.0.1.1", 7, 1, "eth7"), ("224.0.1.1", 7)),
        ("224.0.1.1@10.0.0.1", Endpoint("224.0.1.1", 5076, None, "10.0.0.1"), ("224.0.1.1", 5076)),
        ("[::1]", Endpoint("::1", 5076), ("::1", 5076)),
        ("::1", Endpoint("::1", 5076), ("::1", 5076)),
        ("[::1]:65535", Endpoint("::1", 65535), ("::1", 65535)),
        ("[0:0:0::1]:65535", Endpoint("::1", 65535), ("::1", 65535)),
        ("[ff02::42:1],1@eth7", Endpoint("ff02::42:1", 5076, 1, "eth7"), ("ff02::42:1", 5076)),
        ("[ff02::42:1]:9,1@[::1]", Endpoint("ff02::42:1", 9, 1, "::1"), ("ff02::42:1", 9)),
        ("[fe80::5%eth7]:9", Endpoint("fe80::5", 9, None, "eth7"), ("fe80::5%eth7", 9)),
        ("[::ffff:10.1.2.3]:9", Endpoint("10.1.2.3", 9), ("10.1.2.3", 9)),
    ],
)
def test_entries(text: str, endpoint: Endpoint, address: addresses.Address) -> None:
    assert Endpoint.parse(text, 5076) == endpoint
    assert endpoint.address == address
    assert Endpoint.parse(str(endpoint), 1) == endpoint


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no host"),
        (":5076", "no host"),
        ("10.1.2.3:", "port '' is not a number from 0 to 65535"),
        ("10.1.2.3:65536", "port '65536' is not"),
        ("10.1.2.3:-1", "port '-1' is not"),
        ("10.1.2.3:٣", "is not a number"),
        ("10.1.2.3:1:2", "no address: '10.1.2.3:1:2'"),
        ("224.0.1.1,", "TTL '' is not a number from 0 to 255"),
        ("224.0.1.1,256", "TTL '256' is not"),
        ("224.0.1.1@", "no interface behind @"),
        ("224.0.1.1@eth0,1", "the ,ttl comes before the @interface"),
        ("[::1", "no address: '[::1'"),
        ("[]", "no IPv6 address: ''"),
        ("[10.1.2.3]", "no IPv6 address: '10.1.2.3'"),
        ("[::1]x", "no address"),
        ("no.such.host.invalid", "host 'no.such.host.invalid' not found"),
        ("a" * 300, "not found"),
        ("\udc80", "not found"),
    ],
)
def test_no_entries(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as error:
        Endpoint.parse(text, 5076)
    assert reason in str(error.value)


def test_kinds() -> None:
    assert Endpoint("0.0.0.0", 1).is_any
    assert Endpoint("::", 1).is_any
    assert not Endpoint("127.0.0.1", 1).is_any
    assert Endpoint("239.1.2.3", 1).is_multicast
    assert Endpoint("ff02::1", 1).is_multicast
    assert not Endpoint("10.0.0.255", 1).is_multicast
    assert Endpoint("::1", 1).family == socket.AF_INET6
    assert Endpoint("10.0.0.1", 1).family == socket.AF_INET


def test_doubles_keep_the_longest_ttl() -> None:
    near, far = Endpoint("224.0.1.1", 5, 1, "a"), Endpoint("224.0.1.1", 5, 9, "a")
    other = Endpoint("224.0.1.1", 5, 1, "b")
    host = Endpoint("10.0.0.1", 5)
    assert without_doubles([near, host, other, far, host]) == [far, host, other]


def test_what_sockets_tell() -> None:
    assert addresses.source(("10.0.0.1", 5)) == ("10.0.0.1", 5)
    assert addresses.source(("::ffff:10.0.0.1", 5, 0, 0)) == ("10.0.0.1", 5)
    assert addresses.source(("::1", 5, 0, 0)) == ("::1", 5)
    index, name = socket.if_nameindex()[0]
    assert addresses.source(("fe80::1", 5, 0, index)) == (f"fe80::1%{name}", 5)
    assert addresses.source(("fe80::1", 5, 0, 4_000_000)) == ("fe80::1%4000000", 5)
    assert addresses.text(("::1", 5)) == "[::1]:5"
    assert Endpoint.of(("fe80::1%eth0", 5)).address == ("fe80::1%eth0", 5)


def test_loopback_is_an_interface() -> None:
    found = interfaces.interface_addresses()
    loopback = [one for one in found if one.address == "127.0.0.1"]
    assert len(loopback) == 1
    assert loopback[0].loopback
    assert loopback[0].broadcast == ""
    for one in found:
        Endpoint.of((one.address, 1)).family  # noqa: B018  all are numeric
    names = {name for _, name in socket.if_nameindex()}
    assert {one.interface for one in found} <= names
    assert interfaces.index_of("127.0.0.1") == socket.if_nametoindex(loopback[0].interface)
    assert interfaces.index_of(loopback[0].interface) == interfaces.index_of("127.0.0.1")
    assert interfaces.address_of(loopback[0].interface) == "127.0.0.1"
    assert interfaces.broadcasts("127.0.0.1") == ["127.0.0.1"]
    assert loopback[0].interface not in interfaces.external()


def test_interfaces_that_do_not_exist() -> None:
    assert interfaces.index_of("no such one") == 0
    assert interfaces.index_of("203.0.113.77") == 0
    assert interfaces.address_of("no such one") == ""


HOST = [
    InterfaceAddress("lo", "127.0.0.1", "127.255.255.255", True),
    InterfaceAddress("eth0", "10.0.1.2", "10.0.1.255"),
    InterfaceAddress("eth0", "10.0.2.2", "10.0.2.255"),
    InterfaceAddress("eth0", "fd00::2"),
    InterfaceAddress("ppp0", "10.9.9.1", "10.9.9.2"),
    InterfaceAddress("tun0", "10.7.7.1"),
]


def test_broadcast_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "interface_addresses", lambda: HOST)
    assert interfaces.broadcasts() == ["10.0.1.255", "10.0.2.255", "10.9.9.2"]
    assert interfaces.broadcasts("10.0.2.2") == ["10.0.2.255"]
    assert interfaces.broadcasts("10.7.7.1") == []
    assert interfaces.broadcasts("127.0.0.1") == ["127.0.0.1"]
    assert interfaces.external() == ["eth0", "ppp0", "tun0"]


def test_without_getifaddrs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces.ctypes, "CDLL", lambda *a, **k: object())
    monkeypatch.setattr(
        interfaces.socket, "gethostbyname_ex", lambda name: (name, [], ["127.0.1.1", "10.0.0.3"])
    )
    assert interfaces.interface_addresses() == [
        InterfaceAddress("", "127.0.0.1", "", True),
        InterfaceAddress("", "10.0.0.3", "255.255.255.255"),
    ]

"""Datagrams, targets and the shared port."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from datagrams import GUID, Udp, beacon, mapped, message, needs_multicast, response, search
from pvafast import DecodeError, messages
from pvafast.network import interfaces, udp
from pvafast.network.addresses import Endpoint
from pvafast.network.interfaces import InterfaceAddress
from pvafast.network.loop import SelectLoop

HOST = [
    InterfaceAddress("lo", "127.0.0.1", "", True),
    InterfaceAddress("eth0", "10.0.1.2", "10.0.1.255"),
    InterfaceAddress("eth1", "10.0.2.2", "10.0.2.255"),
    InterfaceAddress("eth1", "fd00::2"),
]
EVERYWHERE = [Endpoint("0.0.0.0", 0)]


@pytest.fixture
def loop() -> Iterator[SelectLoop]:
    loop = SelectLoop()
    yield loop
    loop.close()


def test_messages_as_bytes() -> None:
    assert udp.encode(messages.Beacon(guid=GUID, sequence=3, change_count=4)) == beacon(sequence=3, changes=4)
    sent = messages.Search(sequence=1, flags=0x80, zeros=True, port=5, channels=((7, "a"),))
    assert udp.encode(sent) == search((7, "a"), sequence=1, flags=0x80, address=bytes(16), port=5)
    answer = messages.SearchResponse(guid=GUID, sequence=1, address="10.0.0.1", cids=(3, 4))
    assert udp.encode(answer) == response(3, 4, sequence=1, address=mapped("10.0.0.1"))


def test_bytes_as_messages() -> None:
    # The direction bit of peers is not always right.
    data = bytearray(search((7, "a"), port=5))
    data[2] |= 0x40
    little = bytes(data) + response(3, order="<")
    found = [(at, udp.decode(one)) for at, one in udp.split(little)]
    assert found == [
        (0, messages.Search(sequence=0x66696E64, port=5, channels=((7, "a"),))),
        (len(data), messages.SearchResponse(guid=GUID, sequence=0x66696E64, cids=(3,))),
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xca\x02\x80", "a header needs 8 bytes, 3 left"),
        (b"\xcb\x02\x80\x03\0\0\0\0", "no header of a message"),
        (message(3, b"", version=0), "no header of a message"),
        (message(3, b"", flags=0x81), "control messages and segments do not travel by UDP"),
        (message(3, b"", flags=0x10), "control messages and segments do not travel by UDP"),
        (message(3, b"abc")[:-1], "a payload of 3 bytes, 2 left"),
        (b"\xca\x02\x80\x03\xff\xff\xff\xff", "a payload of 4294967295 bytes, 0 left"),
    ],
)
def test_what_is_no_datagram(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as error:
        list(udp.split(data))
    assert error.value.reason == reason
    good = message(99, b"x")
    with pytest.raises(DecodeError) as error:
        list(udp.split(good + data))
    assert error.value.offset == len(good)


def test_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "interface_addresses", lambda: HOST)
    given = [
        Endpoint("10.0.1.7", 1),
        Endpoint("224.0.1.1", 2, 3),
        Endpoint("10.0.2.255", 0),
        Endpoint("::1", 4),
    ]
    assert udp.targets(given, [], 9) == [
        udp.Target(Endpoint("10.0.1.7", 1), True),
        udp.Target(Endpoint("224.0.1.1", 2, 3), False),
        udp.Target(Endpoint("10.0.2.255", 9), False),
        udp.Target(Endpoint("::1", 4), True),
    ]
    both = [udp.Target(Endpoint("10.0.1.255", 9), False), udp.Target(Endpoint("10.0.2.255", 9), False)]
    assert udp.targets([], EVERYWHERE, 9) == both
    assert udp.targets([Endpoint("10.0.2.255", 9)], EVERYWHERE, 9) == both[::-1]
    one = [Endpoint("10.0.1.2", 5075), Endpoint("fd00::2", 5075), Endpoint("224.0.1.1", 5075)]
    assert udp.targets([], one, 9) == both[:1]
    assert udp.targets([], [Endpoint("127.0.0.1", 0)], 9) == [udp.Target(Endpoint("127.0.0.1", 9), True)]
    everyone = [udp.Target(Endpoint("255.255.255.255", 9), False)]
    assert udp.targets([Endpoint("255.255.255.255", 9)], [], 9) == everyone


def test_a_host_without_a_network_searches_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "interface_addresses", lambda: HOST[:1])
    assert udp.targets([], EVERYWHERE, 9) == [udp.Target(Endpoint("127.0.0.1", 9), True)]


@needs_multicast
def test_a_client_that_takes_unicasts_forwards_searches(loop: SelectLoop) -> None:
    """It listens for beacons on the port where servers listen for searches."""
    searches: list[messages.Search] = []
    beacons: list[tuple[messages.Beacon, udp.Arrived]] = []
    here = [Endpoint("127.0.0.1", 0)]
    server = udp.Listener(loop, here, 0, searched=lambda search, to, arrived: searches.append(search))
    client = udp.Listener(loop, here, server.port, beacon=lambda *one: beacons.append(one))
    sender = Udp()
    try:
        assert client.shares
        sender.send(search((1, "x"), flags=0x80, port=9), server.port)
        sender.send(beacon(port=77), server.port)
        assert loop.run_until(lambda: searches and beacons, 5)
        assert [one.channels for one in searches] == [((1, "x"),)]
        message, arrived = beacons[0]
        assert (message.guid, message.port) == (GUID, 77)
        assert arrived.source == ("127.0.0.1", sender.port)
        assert arrived.version == 2
    finally:
        for one in (server, client, sender):
            one.close()


def test_errors_in_callbacks_are_told(loop: SelectLoop, caplog: pytest.LogCaptureFixture) -> None:
    sender = Udp()
    listener = udp.Listener(loop, [Endpoint("127.0.0.1", 0)], 0, beacon=lambda *one: 1 / 0)
    try:
        sender.send(beacon(), listener.port)
        assert loop.run_until(lambda: caplog.records, 5)
        assert "error while handling a datagram from" in caplog.text
        assert "ZeroDivisionError" in caplog.text
    finally:
        listener.close()
        sender.close()


def test_malformed_datagrams_are_told_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    malformed = udp.Malformed()
    for _ in range(1000):
        malformed.tell(("10.0.0.1", 5), DecodeError("no header"))
    assert malformed.count == 1000
    assert [record.getMessage().split(":", 2)[1].split(", ")[1] for record in caplog.records] == [
        f"{n} so far" for n in (1, 10, 100, 1000)
    ]


def test_a_closed_socket_is_closed(loop: SelectLoop) -> None:
    sender = udp.Sender(loop, [udp.Target(Endpoint("127.0.0.1", 9), True)])
    sender.close()
    sender.close()
    sender.send(b"x", sender.targets[0])

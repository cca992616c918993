"""How a server is found: over real sockets on 127.0.0.1, with datagrams written by hand."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from datagrams import (
    ANY,
    GUID,
    Udp,
    VirtualLoop,
    gather,
    ipv6_group_interface,
    mapped,
    message,
    mutated,
    needs_ipv6,
    needs_multicast,
    nothing,
    origin_tag,
    response,
    search,
)
from pvafast import messages
from pvafast.client.search import Searcher
from pvafast.network.config import ClientConfig, ServerConfig
from pvafast.network.interfaces import interface_addresses
from pvafast.network.loop import SelectLoop
from pvafast.server.discovery import Discovery, answer, new_guid

OTHER = bytes(reversed(GUID))
TCP = 4711


@pytest.fixture
def loop() -> Iterator[SelectLoop]:
    loop = SelectLoop()
    yield loop
    loop.close()


@pytest.fixture
def client() -> Iterator[Udp]:
    sock = Udp()
    yield sock
    sock.close()


@pytest.fixture
def serve(loop: SelectLoop) -> Iterator[Callable[..., Discovery]]:
    """Makes the discovery side of a server that has the given PVs."""
    made = []

    def make(
        *names: str, guid: bytes = GUID, has: Callable[[str], bool] | None = None, **fields: object
    ) -> Discovery:
        config = ServerConfig.isolated(**fields)
        made.append(Discovery(loop, config, guid, TCP, has or set(names).__contains__))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_answer_to_a_search(loop: SelectLoop, client: Udp, serve: Callable[..., Discovery]) -> None:
    server = serve("here", "there")
    client.send(
        search((7, "here"), (8, "nowhere"), (9, "there"), sequence=55, port=client.port), server.udp_port
    )
    assert gather(loop, client, 1) == [response(7, 9, sequence=55, port=TCP)]
    little = search((0x01020304, "here"), port=client.port, sequence=0x0A0B0C0D, order="<")
    client.send(little, server.udp_port)
    assert gather(loop, client, 1) == [response(0x01020304, sequence=0x0A0B0C0D, port=TCP)]


def test_silence_unless_an_answer_is_required(
    loop: SelectLoop, client: Udp, serve: Callable[..., Discovery]
) -> None:
    server = serve("here")
    client.send(search((7, "nowhere"), port=client.port), server.udp_port)
    assert nothing(loop, client)
    client.send(search((7, "nowhere"), port=client.port, flags=1), server.udp_port)
    assert gather(loop, client, 1) == [response(port=TCP, found=0)]
    # "Who is there?"
    client.send(search(port=client.port, flags=1, protocols=()), server.udp_port)
    assert gather(loop, client, 1) == [response(port=TCP, found=0)]


def test_protocols(loop: SelectLoop, client: Udp, serve: Callable[..., Discovery]) -> None:
    server = serve("here")
    client.send(search((7, "here"), port=client.port, protocols=("tls",)), server.udp_port)
    client.send(search((7, "here"), port=client.port, flags=1, protocols=("tls", "x")), server.udp_port)
    assert nothing(loop, client)
    client.send(search((7, "here"), port=client.port, protocols=("tls", "tcp")), server.udp_port)
    client.send(search((8, "here"), port=client.port, protocols=()), server.udp_port)
    assert gather(loop, client, 2) == [response(7, port=TCP), response(8, port=TCP)]


def test_where_the_answer_goes(loop: SelectLoop, client: Udp, serve: Callable[..., Discovery]) -> None:
    server = serve("here")
    other = Udp()
    try:
        # To the port that is told, and to the address that is.
        client.send(search((1, "here"), port=other.port), server.udp_port)
        client.send(search((2, "here"), port=other.port, address=bytes(16)), server.udp_port)
        client.send(search((3, "here"), port=other.port, address=mapped("127.0.0.1")), server.udp_port)
        assert gather(loop, other, 3) == [response(n, port=TCP) for n in (1, 2, 3)]
        # To the port that it comes from, for those who ask so (version 3 of the protocol).
        client.send(search((4, "here"), port=other.port, flags=2), server.udp_port)
        assert gather(loop, client, 1) == [response(4, port=TCP)]
        # Nowhere: without a port, to a group, to what cannot be reached.
        client.send(search((5, "here"), port=0), server.udp_port)
        client.send(search((5, "here"), port=client.port, address=mapped("224.0.0.128")), server.udp_port)
        client.send(search((5, "here"), port=client.port, address=mapped("255.255.255.255")), server.udp_port)
        unreachable = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
        client.send(search((5, "here"), port=client.port, address=unreachable), server.udp_port)
        assert nothing(loop, client)
        assert not other.received()
    finally:
        other.close()


def test_several_messages_in_a_datagram(
    loop: SelectLoop, client: Udp, serve: Callable[..., Discovery]
) -> None:
    server = serve("here")
    one = search((1, "here"), port=client.port)
    two = search((2, "here"), port=client.port, order="<")
    client.send(one + message(99, b"unknown") + two, server.udp_port)
    assert gather(loop, client, 2) == [response(1, port=TCP), response(2, port=TCP)]


def test_answers_are_not_cut_into_fragments(
    loop: SelectLoop, client: Udp, serve: Callable[..., Discovery]
) -> None:
    server = serve(has=lambda name: True)
    client.send(search(*((i, "x") for i in range(1000)), port=client.port), server.udp_port)
    answers = gather(loop, client, 4)
    assert [len(one) for one in answers] == [8 + 41 + 4 * n for n in (300, 300, 300, 100)]
    assert answers[0] == response(*range(300), port=TCP)
    assert answers[3] == response(*range(900, 1000), port=TCP)
    assert max(map(len, answers)) <= 1400


def test_those_who_are_ignored(loop: SelectLoop, client: Udp, serve: Callable[..., Discovery]) -> None:
    other = Udp()
    try:
        deaf = serve("here", ignore_addr_list="10.0.0.1 127.0.0.1")
        choosy = serve("here", ignore_addr_list=f"127.0.0.1:{other.port}")
        for server in (deaf, choosy):
            for sock in (client, other):
                sock.send(search((1, "here"), port=sock.port), server.udp_port)
        assert gather(loop, client, 1) == [response(1, port=TCP)]
        assert not other.received()
    finally:
        other.close()


def test_errors_in_what_tells_the_names(
    loop: SelectLoop, client: Udp, serve: Callable[..., Discovery], caplog: pytest.LogCaptureFixture
) -> None:
    def has(name: str) -> bool:
        if name == "bad":
            raise KeyError(name)
        return name == "good"

    server = serve(has=has)
    for i in range(3):
        client.send(search((i, "bad"), (7, "good"), port=client.port), server.udp_port)
    assert gather(loop, client, 3) == [response(7, port=TCP)] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "error while looking for the PV 'bad'; further ones are not told"
    ]


@needs_multicast
def test_what_reaches_one_server_alone_is_forwarded(
    loop: SelectLoop, client: Udp, serve: Callable[..., Discovery]
) -> None:
    one = serve("one", "both")
    two = serve("two", "both", guid=OTHER, broadcast_port=one.udp_port)
    three = serve("three", guid=new_guid(), broadcast_port=one.udp_port)
    assert one.udp_port == two.udp_port == three.udp_port
    names = ((1, "one"), (2, "two"), (3, "both"), (4, "none"))
    client.send(search(*names, port=client.port, flags=0x80), one.udp_port)
    # Once from each, not twice.
    expected = [response(1, 3, port=TCP), response(2, 3, port=TCP, guid=OTHER)]
    assert sorted(gather(loop, client, 2)) == sorted(expected)
    # Not flagged as sent to one host: it is not forwarded.
    client.send(search(*names, port=client.port), one.udp_port)
    assert len(gather(loop, client, 0)) <= 1


@needs_multicast
@pytest.mark.parametrize("fields", [{}, {"intf_addr_list": "0.0.0.0"}])
def test_what_is_forwarded(
    loop: SelectLoop, client: Udp, serve: Callable[..., Discovery], fields: dict[str, str]
) -> None:
    server = serve("here", **fields)
    group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        group.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        group.bind(("224.0.0.128", server.udp_port))
        group.setsockopt(
            socket.IPPROTO_IP,
            socket.IP_ADD_MEMBERSHIP,
            socket.inet_aton("224.0.0.128") + socket.inet_aton("127.0.0.1"),
        )
        group.setblocking(False)
        for order in "><":
            asked = {"port": 999, "sequence": 5, "order": order}
            client.send(search((1, "x"), flags=0x81, **asked), server.udp_port)
            loop.run_until(lambda: False, 0.1)
            data, source = group.recvfrom(65536)
            assert data == origin_tag(mapped("127.0.0.1")) + search(
                (1, "x"), flags=0x01, address=mapped("127.0.0.1"), **asked
            )
            assert source[0] == "127.0.0.1"
        # An address that is told is left as it is. What comes by the group is not forwarded again.
        told = search((1, "x"), flags=0x80, address=mapped("10.1.2.3"), port=9)
        client.send(told, server.udp_port)
        client.send(origin_tag(mapped("127.0.0.1")) + told, server.udp_port)
        client.send(search((1, "x"), flags=0x80)[:30], server.udp_port)
        loop.run_until(lambda: False, 0.1)
        expected = search((1, "x"), address=mapped("10.1.2.3"), port=9)
        assert group.recv(65536) == origin_tag(mapped("127.0.0.1")) + expected
        with pytest.raises(BlockingIOError):
            group.recv(65536)
    finally:
        group.close()


@needs_multicast
def test_who_may_forward(
    loop: SelectLoop, client: Udp, serve: Callable[..., Discovery], monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = serve("here", intf_addr_list="0.0.0.0")
    one = search((1, "here"), port=client.port, address=mapped("127.0.0.1"))
    client.send(origin_tag(mapped("10.9.9.9")) + one, everywhere.udp_port)
    assert gather(loop, client, 1) == [response(1, port=TCP)]
    # What is for another interface is not for this server.
    here = serve("here")
    client.send(origin_tag(mapped("10.9.9.9")) + one, here.udp_port)
    assert nothing(loop, client)
    client.send(origin_tag(mapped("127.0.0.1")) + one, here.udp_port)
    assert gather(loop, client, 1) == [response(1, port=TCP)]
    # Who forwards without telling the address would have the answers.
    client.send(origin_tag(mapped("127.0.0.1")) + search((1, "here"), port=client.port), here.udp_port)
    assert nothing(loop, client)
    outside = [one.address for one in interface_addresses() if not one.loopback and not one.is_ipv6]
    if not outside:
        pytest.skip("no interface but loopback")
    stranger = Udp(outside[0])
    try:
        stranger.send(one, everywhere.udp_port, "127.0.0.1")
        assert gather(loop, client, 1) == [response(1, port=TCP)]
        # pvAccessCPP forwards from the address where it listens.
        forwarded = origin_tag(mapped("127.0.0.1")) + one
        stranger.send(forwarded, everywhere.udp_port, "127.0.0.1")
        assert gather(loop, client, 1) == [response(1, port=TCP)]
        monkeypatch.setattr("pvafast.network.udp.interface_addresses", list)  # now it is another host's
        stranger.send(forwarded, everywhere.udp_port, "127.0.0.1")
        assert nothing(loop, client)
    finally:
        stranger.close()


def test_broadcasts_reach_all_servers_and_are_not_forwarded(
    loop: SelectLoop, serve: Callable[..., Discovery]
) -> None:
    net = next((one for one in interface_addresses() if one.broadcast and not one.loopback), None)
    if net is None:
        pytest.skip("no interface with a broadcast address")
    one = serve("one", intf_addr_list="0.0.0.0")
    two = serve("two", intf_addr_list=net.address, broadcast_port=one.udp_port, guid=OTHER)
    client = Udp(net.address)
    try:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        # Even if the client forgets that it is no unicast.
        for flags in (0, 0x80):
            names = ((1, "one"), (2, "two"))
            client.send(search(*names, port=client.port, flags=flags), two.udp_port, net.broadcast)
            answers = gather(loop, client, 2)
            assert sorted(answers) == sorted([response(1, port=TCP), response(2, port=TCP, guid=OTHER)])
    finally:
        client.close()


@needs_ipv6
def test_ipv6(loop: SelectLoop, serve: Callable[..., Discovery]) -> None:
    server = serve("here", intf_addr_list="[::1]")
    client = Udp("::1")
    try:
        client.send(search((1, "here"), port=client.port, flags=0x80), server.udp_port)
        assert gather(loop, client, 1) == [response(1, port=TCP)]
    finally:
        client.close()


@needs_ipv6
def test_all_interfaces_are_those_of_both_families(
    loop: SelectLoop, client: Udp, serve: Callable[..., Discovery]
) -> None:
    server = serve("here", intf_addr_list="")
    six = Udp("::1")
    try:
        for sock in (client, six):
            sock.send(search((1, "here"), port=sock.port), server.udp_port)
            assert gather(loop, sock, 1) == [response(1, port=TCP)]
    finally:
        six.close()


@needs_multicast
@pytest.mark.parametrize("interfaces", ["224.0.1.77,1@127.0.0.1", "0.0.0.0 224.0.1.77@127.0.0.1"])
def test_groups(loop: SelectLoop, client: Udp, serve: Callable[..., Discovery], interfaces: str) -> None:
    server = serve("here", intf_addr_list=interfaces)
    sender = Udp()
    try:
        sender.sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sender.send(search((1, "here"), port=client.port), server.udp_port, "224.0.1.77")
        assert gather(loop, client, 1) == [response(1, port=TCP)]
        # The interface of a group is listened on, too.
        sender.send(search((2, "here"), port=client.port), server.udp_port)
        assert gather(loop, client, 1) == [response(2, port=TCP)]
    finally:
        sender.close()


def test_groups_of_ipv6(loop: SelectLoop, serve: Callable[..., Discovery]) -> None:
    """A whole round: a search to a group, an answer from a link-local address, a beacon to the group."""
    name = ipv6_group_interface()
    if not name:
        pytest.skip("no IPv6 multicast")
    group = f"[ff02::42:1],1@{name}"
    server = serve("here", intf_addr_list=group, beacon_addr_list=group, beacon_period=0.2)
    group = f"[ff02::42:1]:{server.udp_port},1@{name}"
    searcher = Searcher(
        loop, ClientConfig(addr_list=group, broadcast_port=server.udp_port, intf_addr_list=group)
    )
    found: list[tuple[str, int]] = []
    beacons: list[object] = []
    try:
        searcher.find("here", lambda address, guid: found.append(address))
        searcher.beacons(beacons.append)
        assert loop.run_until(lambda: found and beacons, 10)
        assert found[0][1] == TCP
        assert found[0][0].endswith(f"%{name}")
    finally:
        searcher.close()


def beacon_bytes(sequence: int, changes: int) -> bytes:
    """WIRE 7.1, by hand."""
    return (
        bytes.fromhex("ca02c000")
        + (12 + 4 + 16 + 2 + 4 + 1).to_bytes(4, "big")
        + GUID
        + bytes((0, sequence))
        + changes.to_bytes(2, "big")
        + ANY
        + TCP.to_bytes(2, "big")
        + b"\x03tcp\xff"
    )


def test_beacons() -> None:
    """Ten quick ones after the first, then slow ones; the clock is the test's."""
    loop = VirtualLoop()
    listener = Udp()
    config = ServerConfig.isolated(beacon_addr_list=f"127.0.0.1:{listener.port}")
    discovery = Discovery(loop, config, GUID, TCP, lambda name: False)
    try:
        times: list[float] = []
        beacons: list[bytes] = []

        def look() -> None:
            for data in listener.received():
                times.append(loop.now)
                beacons.append(data)

        loop.advance(0, look)
        discovery.changed()
        loop.advance(1000, look)
        assert [b - a for a, b in pairwise(times)] == [15.0] * 10 + [180.0] * 4
        assert beacons == [beacon_bytes(i, int(i > 0)) for i in range(15)]
    finally:
        discovery.close()
        listener.close()
    assert not loop.pending


def test_beacons_cannot_be_sent(loop: SelectLoop, caplog: pytest.LogCaptureFixture) -> None:
    """One line for each address, and no end of the others."""
    listener = Udp()
    config = ServerConfig.isolated(
        beacon_addr_list=f"127.0.0.1:{listener.port} 224.0.1.1@nosuch", beacon_period=0.1
    )
    discovery = Discovery(loop, config, GUID, TCP, lambda name: False)
    try:
        assert len(gather(loop, listener, 3)) >= 3
        told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert told == [
            f"UDP to 224.0.1.1:{discovery.udp_port}@nosuch: no interface 'nosuch' with an IPv4 address"
        ]
    finally:
        discovery.close()
        listener.close()


def test_hostile_datagrams(
    loop: SelectLoop, client: Udp, serve: Callable[..., Discovery], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing raises, nothing fills the log, and the server still answers."""
    caplog.set_level(logging.INFO)
    names: list[str] = []

    def has(name: str) -> bool:
        names.append(name)
        return name == "here"

    server = serve(has=has)
    seeds = [
        search((1, "here"), (2, "x" * 300), port=client.port, flags=0x81),
        search((1, "here"), port=client.port, order="<"),
        response(1, 2),
        beacon_bytes(1, 2),
        origin_tag(mapped("127.0.0.1")) + search((1, "here"), port=client.port, address=mapped("127.0.0.1")),
        b"",
        b"\xca",
        message(3, b""),
        message(3, bytes(26) + b"\xfe\xff\xff\xff\xff"),
        message(3, bytes(26) + b"\x00\xff\xff"),
        message(22, b""),
        message(0, bytes(200), flags=0xC0),
        message(3, b"x", flags=0x91),
        message(3, b"x", version=0),
    ]
    sent = 0
    for i, data in enumerate([*seeds, *mutated(seeds, 3000, seed=5)]):
        try:
            client.send(data, server.udp_port)
            sent += 1
        except OSError:
            pass
        if i % 20 == 0:
            loop.run_until(lambda: False, 0.001)
            client.received()
    loop.run_until(lambda: False, 0.1)
    client.received()
    client.send(search((77, "here"), port=client.port), server.udp_port)
    assert gather(loop, client, 1) == [response(77, port=TCP)]
    assert names.count("here") > 100  # they did come
    told = [record for record in caplog.records if record.name.startswith("pvafast")]
    assert all(record.levelno == logging.INFO for record in told), told
    assert 1 <= len(told) <= 4


def test_answer() -> None:
    """What a session answers to a search over TCP."""
    asked = messages.Search(sequence=3, channels=((1, "a"), (2, "b"), (3, "")))
    found = answer(asked, guid=GUID, tcp_port=5, has=lambda name: name != "b")
    assert found == messages.SearchResponse(guid=GUID, sequence=3, port=5, cids=(1,))
    assert answer(asked, guid=GUID, tcp_port=5, has=lambda name: False) is None
    required = messages.Search(sequence=3, flags=messages.REPLY_REQUIRED)
    assert answer(required, guid=GUID, tcp_port=5, has=lambda name: False) == messages.SearchResponse(
        guid=GUID, sequence=3, port=5, found=False
    )


def test_guids_differ() -> None:
    guids = {new_guid() for _ in range(100)}
    assert len(guids) == 100
    assert {len(one) for one in guids} == {12}


def test_nowhere_to_listen(loop: SelectLoop) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))  # for itself alone
        config = ServerConfig.isolated(broadcast_port=held.getsockname()[1])
        with pytest.raises(OSError):
            Discovery(loop, config, GUID, TCP, lambda name: False)
    with pytest.raises(OSError):
        Discovery(loop, ServerConfig(intf_addr_list="203.0.113.9"), GUID, TCP, lambda name: False)


def test_on_asyncio(client: Udp) -> None:
    async def main() -> list[bytes]:
        server = Discovery(
            asyncio.get_running_loop(), ServerConfig.isolated(), GUID, TCP, lambda name: name == "here"
        )
        try:
            client.send(search((1, "here"), port=client.port), server.udp_port)
            for _ in range(200):
                await asyncio.sleep(0.01)
                answers = client.received()
                if answers:
                    return answers
        finally:
            server.close()
        return []

    assert asyncio.run(main()) == [response(1, port=TCP)]

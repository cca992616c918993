"""Search: what is sent and when, on a clock of the test's own; what becomes of answers and beacons."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from datagrams import (
    FIND,
    GUID,
    Udp,
    VirtualLoop,
    beacon,
    mapped,
    message,
    mutated,
    needs_ipv6,
    response,
    search,
    searched,
)
from pvafast import EncodeError, ServerConnection, messages
from pvafast.client import servers
from pvafast.client.search import Search, Searcher
from pvafast.client.servers import BeaconEvent, ServerEvent
from pvafast.connection import Credentials, Received
from pvafast.network.config import ClientConfig, ServerConfig
from pvafast.network.loop import SelectLoop
from pvafast.network.stream import Stream
from pvafast.server.discovery import Discovery, answer

OTHER = bytes(reversed(GUID))


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Bench:
    """A Searcher on a virtual loop, and a plain socket in the place of a server: what came there, and when."""

    def __init__(self, **fields: Any) -> None:
        self.loop = VirtualLoop()
        self.server = Udp()
        self.server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.port = free_udp_port()
        config = ClientConfig(
            **{
                "addr_list": f"127.0.0.1:{self.server.port}",
                "auto_addr_list": False,
                "broadcast_port": self.port,
                "intf_addr_list": "127.0.0.1",
                **fields,
            }
        )
        self.searcher = Searcher(self.loop, config)
        self.sent: list[tuple[float, bytes]] = []
        self.found: list[tuple[str, Any, bytes]] = []
        self.start = self.loop.now
        self.reply_port = 0

    def find(self, name: str, **options: Any) -> Search:
        return self.searcher.find(name, lambda *told: self.found.append((name, *told)), **options)

    def collect(self) -> None:
        self.sent += [(round(self.loop.now - self.start, 3), data) for data in self.server.received()]

    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds, self.collect)

    def times(self) -> list[float]:
        return [at for at, _ in self.sent]

    def names(self) -> list[str]:
        return [name for _, data in self.sent for _, name in searched(data)[3]]

    def reply(self, data: bytes, port: int | None = None) -> None:
        """To where searches say that answers go; or to the port of beacons."""
        self.server.send(data, searched(self.sent[0][1])[1] if port is None else port)
        self.loop.poll()

    def beacon(self, **fields: Any) -> None:
        self.reply(beacon(**fields), self.port)

    def close(self) -> None:
        self.searcher.close()
        self.server.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()
    bench.loop.advance(0)
    assert not bench.loop.pending  # timers end with the searcher


def test_a_search_in_bytes(bench: Bench) -> None:
    one = bench.find("ab")
    bench.advance(0)
    ((_, data),) = bench.sent
    port = searched(data)[1]
    expected = (
        "ca028003" + "00000028"  # SEARCH, 40 bytes
        + "66696e64" + "80000000"  # "find"; to one host
        + "00" * 16 + f"{port:04x}"
        + "01" + "03746370"  # tcp
        + "0001" + f"{one.cid:08x}" + "026162"
    )  # fmt: skip
    assert data.hex() == expected
    assert port != bench.port


def test_names_asked_for_together_share_datagrams(bench: Bench) -> None:
    searches = [bench.find(f"pv{i:02}") for i in range(30)]
    assert len({one.cid for one in searches}) == 30
    assert bench.searcher.searching == 30
    bench.advance(0)
    assert len(bench.sent) == 1
    assert searched(bench.sent[0][1])[3] == [(one.cid, one.name) for one in searches]
    # What comes a little later waits for others.
    bench.find("late")
    bench.find("later")
    bench.advance(0.009)
    assert len(bench.sent) == 1
    bench.advance(0.002)
    assert [name for _, name in searched(bench.sent[1][1])[3]] == ["late", "later"]


def test_the_schedule_of_a_name_that_nobody_has(bench: Bench) -> None:
    one = bench.find("nobody")
    bench.advance(600)
    times = bench.times()
    steps = [round(b - a, 2) for a, b in pairwise(times)]
    assert times[0] == 0
    assert steps[:31] == [1, 1, *range(2, 31)]
    assert set(steps[31:]) == {30}
    assert one.tries == len(times)
    assert bench.searcher.searching == 1
    assert not bench.found


def test_an_idle_searcher_does_nothing(bench: Bench) -> None:
    bench.find("a").cancel()
    bench.advance(10)
    calls = bench.loop.calls
    bench.advance(10_000)
    assert bench.loop.calls == calls
    assert bench.searcher.searching == 0


def test_ten_thousand_names(bench: Bench) -> None:
    """In datagrams that are not cut, never many at once; and all of them, again and again."""
    names = [f"area{i % 50:02}:device{i:05}:value" for i in range(10_000)]
    searches = [bench.find(name) for name in names]
    bench.advance(0.5)
    assert bench.names() == names
    a_name = len(names[0]) + 5
    fewest = math.ceil(10_000 / ((1400 - 41) // (a_name + 4)))  # a name's size is reckoned as four bytes more
    assert len(bench.sent) <= fewest
    assert all(len(data) <= 1400 for _, data in bench.sent)

    def most_at_once(times: list[float]) -> int:
        return max(sum(at <= other < at + 0.0099 for other in times) for at in times)

    assert most_at_once(bench.times()) <= 8
    first = len(bench.sent)
    bench.advance(119.5)
    assert set(bench.names()[10_000:20_000]) == set(names)
    assert most_at_once(bench.times()[first:]) <= 8
    # Ten thousand names took part 17 or 18 times (0, 1, 2, 4, 7, 11, 16, 22, 29, ... 106, and the next at 121).
    counts = {one.tries for one in searches}
    assert counts <= set(range(14, 18))
    # In the long run they are spread: less than a thousand names in most seconds.
    bench.sent.clear()
    bench.advance(600)
    assert len(bench.names()) <= 10_000 * 600 / 20
    for one in searches:
        one.cancel()
    assert bench.searcher.searching == 0
    assert not any([*bench.searcher._ring, bench.searcher._due, bench.searcher._searches])


def test_long_names(bench: Bench) -> None:
    """A name that no datagram has room for beside others has one of its own, cut or not."""
    long = "x" * 3000
    for name in ("a", long, "b" * 1300, "c" * 1300, "ä" * 126, "é" * 127):
        bench.find(name)
    bench.advance(0.1)
    assert [[name for _, name in searched(data)[3]] for _, data in bench.sent] == [
        ["a"], [long], ["b" * 1300], ["c" * 1300], ["ä" * 126, "é" * 127]
    ]  # fmt: skip
    for name in ("", "\ud800", "x" * 60_001):
        with pytest.raises(EncodeError):
            bench.find(name)
    assert bench.searcher.searching == 6


def test_found(bench: Bench) -> None:
    one, two, three = bench.find("one"), bench.find("two"), bench.find("three")
    bench.advance(0)
    # Over and over, also for what nobody asked for.
    for _ in range(3):
        bench.reply(response(one.cid, 999, port=1234))
    assert bench.found == [("one", ("127.0.0.1", 1234), GUID)]
    assert (one.address, one.guid) == (("127.0.0.1", 1234), GUID)
    assert bench.searcher.searching == 2
    bench.reply(response(two.cid, three.cid, port=5, address=mapped("10.0.0.1"), order="<", sequence=0))
    assert bench.found[1:] == [(name, ("10.0.0.1", 5), GUID) for name in ("two", "three")]
    assert bench.searcher.searching == 0
    bench.advance(100)
    assert len(bench.sent) == 1


def test_what_is_no_answer(bench: Bench) -> None:
    one = bench.find("one")
    bench.advance(0)
    for data in (
        response(one.cid, found=0),
        response(one.cid, protocol="tls"),
        response(one.cid, port=0),
        response(one.cid ^ 1),
        response(),
        search((one.cid, "one"), port=5),
        beacon(),
        message(99, b""),
    ):
        bench.reply(data)
    assert not bench.found
    # One message behind another is read.
    bench.reply(message(99, b"") + response(one.cid))
    assert len(bench.found) == 1


def test_two_servers_with_one_name(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    one = bench.find("one")
    bench.advance(0)
    bench.reply(response(one.cid, port=1))
    # The same server by another interface is no other server.
    bench.reply(response(one.cid, port=1, address=mapped("10.0.0.1")))
    assert not caplog.records
    for _ in range(3):
        bench.reply(response(one.cid, port=2, guid=OTHER))
    assert [record.getMessage() for record in caplog.records] == [
        "two servers have the PV 'one': 127.0.0.1:1, which is used, and 127.0.0.1:2"
    ]
    assert bench.found == [("one", ("127.0.0.1", 1), GUID)]
    assert one.guid == GUID


def test_a_server_that_restarts_is_no_second_one(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    one = bench.find("one")
    bench.advance(0)
    bench.reply(response(one.cid, port=1))
    bench.reply(response(one.cid, port=1, guid=OTHER))
    assert not caplog.records


def test_a_server_that_was_started_twice(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """All PVs are doubled: the log is not filled with that."""
    cids = [bench.find(f"pv{i}").cid for i in range(100)]
    bench.advance(0.1)
    for cid in cids:
        bench.reply(response(cid, port=1))
        bench.reply(response(cid, port=2, guid=OTHER))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 20
    assert told[-1].endswith("and 127.0.0.1:2; further ones are not told of")


def test_again(bench: Bench) -> None:
    one = bench.find("one")
    bench.advance(0)
    bench.reply(response(one.cid, port=1))
    bench.advance(100)
    # Lost: at the next tick.
    one.again()
    assert (one.address, one.guid, one.tries) == (None, None, 0)
    assert bench.searcher.searching == 1
    bench.advance(1.01)
    assert len(bench.sent) == 2
    bench.reply(response(one.cid, port=2, guid=OTHER))
    assert bench.found == [("one", ("127.0.0.1", 1), GUID), ("one", ("127.0.0.1", 2), OTHER)]
    # Refused: not before the delay is over, even if a late answer comes.
    one.again(10)
    bench.reply(response(one.cid, port=1))
    bench.advance(8.9)
    assert len(bench.sent) == 2
    assert len(bench.found) == 2
    bench.advance(2)
    assert len(bench.sent) >= 3
    bench.reply(response(one.cid, port=1))
    assert bench.found[2:] == [("one", ("127.0.0.1", 1), GUID)]


def test_again_while_searching(bench: Bench) -> None:
    """It starts from the beginning, and nothing is sent twice."""
    one = bench.find("one")
    bench.advance(29)
    before = len(bench.sent)
    one.again(5)
    bench.advance(100)
    assert [round(b - a) for a, b in pairwise(bench.times()[before:])][:5] == [1, 1, 2, 3, 4]


def test_a_first_search_with_a_delay(bench: Bench) -> None:
    bench.find("one", delay=3)
    bench.advance(2)
    assert not bench.sent
    bench.advance(2)
    assert len(bench.sent) >= 1


def test_cancelled(bench: Bench) -> None:
    one, two = bench.find("one"), bench.find("two")
    one.cancel()
    bench.advance(0)
    assert bench.names() == ["two"]
    bench.reply(response(one.cid))
    two.cancel()
    two.cancel()
    bench.reply(response(two.cid))
    one.again()
    bench.advance(10)
    assert not bench.found
    assert len(bench.sent) == 1
    assert bench.searcher.searching == 0


def test_callbacks_may_do_anything(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Also raise, cancel others of the same answer, search again and close."""
    searches: list[Search] = []

    def first(*told: object) -> None:
        searches[1].cancel()
        bench.find("new")
        raise KeyError("first")

    def last(*told: object) -> None:
        bench.searcher.close()

    searches += [
        bench.searcher.find("a", first),
        bench.find("b"),
        bench.searcher.find("c", last),
        bench.find("d"),
    ]
    bench.advance(0)
    bench.reply(response(*(one.cid for one in searches)))
    assert "error in what is called when 'a' is found" in caplog.text
    assert not bench.found
    for one in searches:
        one.again()
        one.cancel()
    bench.advance(10)
    assert len(bench.sent) == 1
    with pytest.raises(RuntimeError):
        bench.find("e")
    bench.searcher.close()


def test_a_beacon_of_a_new_server_is_hope(bench: Bench) -> None:
    """Everything is searched for within six seconds, once; and not again for every beacon."""
    for i in range(100):
        bench.find(f"pv{i}")
    bench.advance(200)
    bench.sent.clear()
    bench.beacon()
    bench.advance(6.1)
    assert sorted(bench.names()) == sorted(f"pv{i}" for i in range(100))
    for i in range(50):
        bench.beacon(port=i + 1)
    bench.sent.clear()
    bench.advance(20)
    assert len(bench.names()) <= 100
    # The same server, again and again: no hope in that.
    bench.advance(60)
    bench.sent.clear()
    bench.beacon()
    bench.advance(6.1)
    assert len(bench.names()) <= 100 * 7 / 30 + 100 * 0.5
    # Another one at its place, as after a restart.
    bench.advance(60)
    bench.sent.clear()
    bench.beacon(guid=OTHER)
    bench.advance(6.1)
    assert set(bench.names()) == {f"pv{i}" for i in range(100)}


def test_beacons(bench: Bench) -> None:
    told: list[BeaconEvent] = []
    subscription = bench.searcher.beacons(told.append)
    bench.beacon(sequence=7, changes=300, port=88)
    bench.beacon(address=mapped("10.0.0.1"), protocol="tls")
    assert told == [
        BeaconEvent(
            guid=GUID,
            address=("127.0.0.1", 88),
            protocol="tcp",
            version=2,
            sequence=7,
            change_count=300,
            sender=("127.0.0.1", bench.server.port),
            time=told[0].time,
        ),
        replace(told[1], address=("10.0.0.1", 5075), protocol="tls", sequence=0, change_count=0),
    ]
    subscription.cancel()
    subscription.cancel()
    bench.beacon()
    assert len(told) == 2


def test_servers_come_and_go(bench: Bench) -> None:
    told: list[ServerEvent] = []
    bench.searcher.discover(told.append)
    here = ("127.0.0.1", bench.server.port)
    bench.beacon(port=1)
    bench.beacon(port=1)
    bench.beacon(port=2, protocol="tls")
    online = ServerEvent(kind="online", guid=GUID, address=("127.0.0.1", 1), sender=here)
    assert told == [online]
    bench.advance(100)
    bench.beacon(port=1, guid=OTHER)
    changed = replace(online, kind="changed", guid=OTHER)
    assert told == [online, changed]
    # Who comes later is told of what is there.
    late: list[ServerEvent] = []
    subscription = bench.searcher.discover(late.append)
    cancelled = bench.searcher.discover(lambda event: 1 / 0)
    cancelled.cancel()
    bench.advance(0)
    assert late == [replace(changed, kind="online")]
    subscription.cancel()
    bench.advance(359)
    bench.beacon(port=1, guid=OTHER)
    bench.advance(359)
    assert len(told) == 2
    bench.advance(200)
    assert told[2:] == [replace(changed, kind="offline")]
    assert len(late) == 1
    bench.beacon(port=1)
    assert told[3:] == [online]


def test_discovery_asks(bench: Bench) -> None:
    told: list[ServerEvent] = []
    bench.searcher.discover(told.append)
    bench.advance(0)
    ((_, data),) = bench.sent
    flags, port, protocols, channels = searched(data)
    assert (flags, protocols, channels) == (0x81, 0, [])
    bench.reply(response(found=0, port=77, sequence=1), port)  # to something else
    bench.reply(response(found=0, port=77), port)
    bench.reply(response(found=0, port=77), port)
    bench.reply(response(found=1, port=78), port)  # spvirit
    assert [(one.kind, one.address[1]) for one in told] == [("online", 77), ("online", 78)]


def test_more_servers_than_can_be(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(servers, "_MOST", 10)
    told: list[ServerEvent] = []
    bench.searcher.discover(told.append)
    for i in range(30):
        bench.beacon(port=i + 1)
    assert len(told) == 10
    assert [record.getMessage() for record in caplog.records] == [
        "more than 10 servers: 127.0.0.1:11 and further ones are not told of"
    ]


def test_hostile_answers(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    one = bench.find("one")
    bench.searcher.discover(lambda event: None)
    bench.searcher.beacons(lambda event: None)
    bench.advance(0)
    reply_port = searched(bench.sent[0][1])[1]
    seeds = [
        response(one.cid ^ 1, 2, 3),
        beacon(),
        search((1, "x")),
        response(found=0),
        response(1, order="<"),
        b"\xca",
    ]
    for data in mutated(seeds, 2000, seed=11):
        for port in (reply_port, bench.port):
            bench.server.send(data, port)
        bench.loop.poll()
    told = [record for record in caplog.records if record.levelno > logging.INFO]
    # A lucky one may have named the PV, and a second one another server.
    assert all("two servers have the PV" in record.getMessage() for record in told)
    assert len([r for r in caplog.records if "malformed" in r.getMessage()]) in range(2, 9)
    two = bench.find("two")
    bench.advance(0.1)
    bench.reply(response(two.cid, port=1))
    assert bench.found[-1] == ("two", ("127.0.0.1", 1), GUID)


def test_nowhere_to_search(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(addr_list="")
    try:
        bench.find("a")
        bench.find("b")
        assert [record.getMessage() for record in caplog.records] == [
            "nowhere to search: no addresses, no name servers"
        ]
        bench.advance(3)
    finally:
        bench.close()


def test_the_port_of_beacons_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    """By a program that does not share it: no beacons, but searches."""
    caplog.set_level(logging.INFO)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        bench = Bench(broadcast_port=held.getsockname()[1])
        try:
            one = bench.find("one")
            assert "no beacons: UDP port" in caplog.text
            bench.advance(0)
            bench.reply(response(one.cid, port=1))
            assert len(bench.found) == 1
        finally:
            bench.close()


def test_sending_that_fails_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(addr_list="224.0.1.1@nosuch")
    try:
        bench.find("one")
        bench.advance(100)
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == 1
        assert told[0].endswith("no interface 'nosuch' with an IPv4 address")
    finally:
        bench.close()


def test_flags_for_each_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what goes to one host is told to be so."""
    bench = Bench(addr_list="")
    other = Udp("127.0.0.2")
    monkeypatch.setattr("pvafast.network.udp.broadcasts", lambda *host: ["127.0.0.2"])
    config = ClientConfig(
        addr_list=f"127.0.0.1:{bench.server.port} 127.0.0.2:{other.port}",
        auto_addr_list=False,
        broadcast_port=9,
    )
    bench.searcher = Searcher(bench.loop, config)
    try:
        bench.find("a")
        bench.advance(0)
        assert searched(bench.sent[0][1])[0] == 0x80
        assert [searched(data)[0] for data in other.received()] == [0]
    finally:
        bench.close()
        other.close()


@needs_ipv6
def test_both_families() -> None:
    six = Udp("::1")
    bench = Bench()
    bench.searcher = Searcher(
        bench.loop,
        ClientConfig(
            addr_list=f"127.0.0.1:{bench.server.port} [::1]:{six.port}",
            auto_addr_list=False,
            broadcast_port=bench.port,
        ),
    )
    try:
        one = bench.find("one")
        bench.advance(0)
        (data,) = six.received()
        flags, port, _, channels = searched(data)
        assert (flags, channels) == (0x80, [(one.cid, "one")])
        six.send(response(one.cid, port=7), port)
        bench.loop.poll()
        assert bench.found == [("one", ("::1", 7), GUID)]
    finally:
        bench.close()
        six.close()


# -- over real sockets and time


@pytest.fixture
def loop() -> Iterator[SelectLoop]:
    loop = SelectLoop()
    yield loop
    loop.close()


def test_a_searcher_finds_what_discovery_offers(loop: SelectLoop) -> None:
    server_config = ServerConfig.isolated()
    server = Discovery(loop, server_config, GUID, 4711, lambda name: name.startswith("here"))
    config = replace(server_config, server_port=4711, broadcast_port=server.udp_port).client_config()
    searcher = Searcher(loop, config)
    found: dict[str, object] = {}
    told: list[ServerEvent] = []
    try:
        searcher.discover(told.append)
        for i in range(2000):
            searcher.find(f"here{i}", lambda address, guid, i=i: found.update({f"here{i}": (address, guid)}))
        searcher.find("nowhere", lambda *told: found.update(nowhere=told))
        assert loop.run_until(lambda: len(found) == 2000 and told, 10)
        assert set(found.values()) == {(("127.0.0.1", 4711), GUID)}
        assert "nowhere" not in found
        assert [(one.kind, one.guid, one.address) for one in told] == [("online", GUID, ("127.0.0.1", 4711))]
    finally:
        searcher.close()
        server.close()


class TcpServer:
    """A name server: answers searches for the names it has; counts its connections."""

    def __init__(self, loop: SelectLoop, *names: str, port: int = 0) -> None:
        self.loop = loop
        self.names = names
        self.sock = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]
        self.streams: list[Stream] = []
        self.accepted = 0
        self.searches: list[messages.Search] = []
        self.silent = False
        self.held: list[socket.socket] = []
        loop.add_reader(self.sock.fileno(), self._accept)

    def _accept(self) -> None:
        sock, _ = self.sock.accept()
        self.accepted += 1
        if self.silent:
            self.held.append(sock)
            return
        connection = ServerConnection()

        def received(events: Iterator[Any]) -> None:
            for event in events:
                if isinstance(event, Credentials):
                    stream.send(messages.ConnectionValidated())
                elif isinstance(event, Received) and isinstance(event.message, messages.Search):
                    self.searches.append(event.message)
                    reply = answer(event.message, guid=GUID, tcp_port=self.port, has=self.names.__contains__)
                    if reply is not None:
                        stream.send(reply)

        stream = Stream(self.loop, sock, connection, received=received, closed=lambda error: None)
        self.streams.append(stream)

    def drop(self) -> None:
        for stream in self.streams:
            stream.close()
        self.streams.clear()

    def close(self) -> None:
        self.drop()
        for sock in self.held:
            sock.close()
        self.loop.remove_reader(self.sock.fileno())
        self.sock.close()


@pytest.fixture
def name_server(loop: SelectLoop) -> Iterator[Callable[..., TcpServer]]:
    made = []

    def make(*names: str, port: int = 0) -> TcpServer:
        made.append(TcpServer(loop, *names, port=port))
        return made[-1]

    yield make
    for one in made:
        if one.sock.fileno() >= 0:
            one.close()


def only_tcp(port: int, **fields: Any) -> ClientConfig:
    return ClientConfig(
        name_servers=f"127.0.0.1:{port}", auto_addr_list=False, broadcast_port=free_udp_port(), **fields
    )


def test_a_name_server(
    loop: SelectLoop, name_server: Callable[..., TcpServer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = name_server("a", "b")
    searcher = Searcher(loop, only_tcp(server.port))
    found: list[object] = []
    told: list[ServerEvent] = []
    try:
        # Before there is a connection, and after.
        searcher.find("a", lambda *one: found.append(one))
        searcher.find("nowhere", lambda *one: found.append(one))
        searcher.discover(told.append)
        assert loop.run_until(lambda: found and told, 5)
        searcher.find("b", lambda *one: found.append(one))
        assert loop.run_until(lambda: len(found) == 2, 5)
        assert found == [(("127.0.0.1", server.port), GUID)] * 2
        assert [one.address for one in told] == [("127.0.0.1", server.port)]
        assert server.accepted == 1
        asked = server.searches[-1]
        assert (asked.sequence, asked.flags, asked.port, asked.protocols) == (FIND, 0x80, 0, ("tcp",))
        assert [record.getMessage() for record in caplog.records if record.name == "pvafast.search"] == [
            f"name server 127.0.0.1:{server.port}: connected"
        ]
    finally:
        searcher.close()
    assert loop.run_until(lambda: all(one.is_closed for one in server.streams), 5)


def test_a_name_server_that_comes_late_and_goes(
    loop: SelectLoop, name_server: Callable[..., TcpServer], caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again and again, ever more slowly, with one line in the log; then it is asked for all names."""
    caplog.set_level(logging.INFO)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    searcher = Searcher(loop, only_tcp(port))
    found: list[object] = []
    try:
        one = searcher.find("a", lambda *told: found.append(told))
        assert loop.run_until(lambda: caplog.records, 5)
        loop.run_until(lambda: False, 0.1)
        server = name_server("a", port=port)
        assert loop.run_until(lambda: found, 5)
        server.drop()
        one.again()
        assert loop.run_until(lambda: len(found) == 2, 8)
        assert server.accepted == 2
        told = [record.getMessage() for record in caplog.records if record.name == "pvafast.search"]
        where = f"name server 127.0.0.1:{port}: "
        assert [line.removeprefix(where) for line in told] == [
            told[0].removeprefix(where),
            "connected",
            "the other side closed the connection; trying again",
            "connected",
        ]
        assert "refused" in told[0]
    finally:
        searcher.close()


def test_a_name_server_that_says_nothing_is_given_up(
    loop: SelectLoop, name_server: Callable[..., TcpServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = name_server("a")
    server.silent = True
    searcher = Searcher(loop, only_tcp(server.port, conn_tmo=0.1))  # 2 s is the least
    found: list[object] = []
    try:
        searcher.find("a", lambda *told: found.append(told))
        assert loop.run_until(lambda: server.accepted == 1, 5)
        server.silent = False
        assert loop.run_until(lambda: found, 10)
        assert server.accepted == 2
        assert "nothing received for " in caplog.records[0].getMessage()
        assert len(caplog.records) == 1
    finally:
        searcher.close()


def test_a_connection_is_kept_alive(loop: SelectLoop, name_server: Callable[..., TcpServer]) -> None:
    server = name_server("a")
    searcher = Searcher(loop, only_tcp(server.port, conn_tmo=0.1))
    found: list[object] = []
    try:
        searcher.find("a", lambda *told: found.append(told))
        assert loop.run_until(lambda: found, 5)
        loop.run_until(lambda: False, 3.5)
        assert server.accepted == 1
        assert not server.streams[0].is_closed
    finally:
        searcher.close()


def test_a_name_server_that_lies(loop: SelectLoop, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are no PVA: the connection is closed, tried again later, told once."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as sock:

        def accept() -> None:
            accepted.append(sock.accept()[0])
            accepted[-1].sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        loop.add_reader(sock.fileno(), accept)
        searcher = Searcher(loop, only_tcp(sock.getsockname()[1]))
        try:
            searcher.find("a", lambda *told: None)
            assert loop.run_until(lambda: len(accepted) == 2, 5)
            loop.run_until(lambda: False, 0.1)
            assert [one.recv(1) for one in accepted] == [b"", b""]
            told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
            assert len(told) == 1
            assert "offset 0" in told[0]
        finally:
            searcher.close()
            loop.remove_reader(sock.fileno())
            for one in accepted:
                one.close()

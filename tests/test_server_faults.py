"""What clients do to a server by accident or on purpose: it stays within its limits, says so in the log, and serves the others."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pvafast import PV, Limits, RemoteError, Server, Value, messages, normative
from pvafast.connection import ChannelOpened, Received
from pvafast.network.config import ServerConfig
from pvafast.server import Call, Peer, Provider
from pvafast.server import session as session_module
from rawclient import RawClient
from test_server import NTD, until

CONFIG = ServerConfig.isolated()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    ends: list[Any] = []

    def start(pvs: dict[str, Any], **options: Any) -> Server:
        server = Server(pvs, **({"config": CONFIG} | options))
        context = server.running()
        context.__enter__()
        ends.append(context)
        return server

    yield start
    for context in reversed(ends):
        context.__exit__(None, None, None)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_requests_of_a_client_that_reads_nothing_wait(serve: Callable[..., Server]) -> None:
    """20,000 GETs of 40 kB would be 800 MB of answers: the server stops reading, and goes on when the client reads."""
    pv = PV("uint8[]", np.zeros(40_000, np.uint8))
    server = serve({"x": pv})
    with RawClient(server.port, rcvbuf=1 << 16) as client:
        sid, ioid = client.begin(messages.GetInit, "x")
        request = b"".join(client.conn.send(messages.Get(sid=sid, ioid=ioid)))
        gets, sent = request * 20_000, 0
        client.sock.settimeout(1)
        try:
            while sent < len(gets):
                sent += client.sock.send(gets[sent : sent + 100_000])
        except TimeoutError:
            pass
        [info] = server.connections
        assert info.unsent < (1 << 20) + 100_000
        with RawClient(server.port) as other:  # the others do not notice
            assert len(other.get("x")[""]) == 40_000
        assert server.connections[0].unsent < (1 << 20) + 100_000
        # The client reads on. A second GET before the answer to the first is an error, so there is one reply for each.
        client.sock.settimeout(10)
        reader = Reader(client.sock, len(gets) // len(request))
        client.sock.settimeout(10)
        while sent < len(gets):
            sent += client.sock.send(gets[sent : sent + 100_000])
        reader.join(30)
        assert reader.messages == 20_000


def test_echoes_of_a_client_that_reads_nothing_wait(serve: Callable[..., Server]) -> None:
    """The connection answers them by itself: these answers count, too."""
    server = serve({"x": 1.0})
    with RawClient(server.port, rcvbuf=1 << 16) as client:
        echoes = b"".join(client.conn.send(messages.Echo(payload=b"x" * 1000))) * 50_000
        sent = 0
        client.sock.settimeout(1)
        try:
            while sent < len(echoes):
                sent += client.sock.send(echoes[sent : sent + 100_000])
        except TimeoutError:
            pass
        assert sent < len(echoes)
        assert server.connections[0].unsent < 4 << 20
        client.sock.settimeout(10)
        reader = Reader(client.sock, 50_000)
        while sent < len(echoes):
            sent += client.sock.send(echoes[sent : sent + 100_000])
        reader.join(30)
        assert reader.messages == 50_000


class Reader(threading.Thread):
    """Counts so many whole messages."""

    def __init__(self, sock: socket.socket, count: int) -> None:
        super().__init__(daemon=True)
        self.sock = sock
        self.count = count
        self.messages = 0
        self.start()

    def run(self) -> None:
        data = bytearray()
        while self.messages < self.count:
            got = self.sock.recv(1 << 20)
            if not got:
                return
            data += got
            pos = 0
            while len(data) - pos >= 8:
                size = 8 + struct.unpack_from("<I", data, pos + 4)[0]
                if len(data) - pos < size:
                    break
                pos += size
                self.messages += 1
            del data[:pos]


def test_a_client_that_reads_no_answers_is_dropped(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(
        {"x": PV("uint8[]", np.zeros(40_000, np.uint8))}, config=ServerConfig.isolated(conn_tmo=1.5)
    )
    with RawClient(server.port, rcvbuf=1 << 16) as client:
        sid, ioid = client.begin(messages.GetInit, "x")
        gets = b"".join(client.conn.send(messages.Get(sid=sid, ioid=ioid))) * 20_000
        client.sock.settimeout(15)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sock.sendall(gets * 100)
    until(lambda: not server.connections)
    until(lambda: "the client reads no answers" in caplog.text)


def test_silent_clients_are_dropped(serve: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    """One that never says a word, one that stops in the handshake; one that sends echoes stays."""
    server = serve({"x": 1.0}, config=ServerConfig.isolated(conn_tmo=1.5))
    mute = socket.create_connection(("127.0.0.1", server.port))
    half = RawClient(server.port, validate=False)
    with RawClient(server.port) as alive:
        alive.monitor("x")
        begun = time.monotonic()
        while len(server.connections) > 1:
            alive.sync()
            time.sleep(0.1)
            assert time.monotonic() < begun + 10
        assert time.monotonic() > begun + 1.5
        assert server.connections[0].subscriptions == 1
        alive.sync()
    mute.close()
    half.sock.close()
    until(lambda: caplog.text.count("nothing was received") == 2)
    said = [r for r in caplog.records if "nothing was received for 2 s" in r.getMessage()]
    assert len(said) == 2
    assert all(record.levelno == logging.WARNING for record in said)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "magic 0xca expected"),
        (b"\xca\x02\x00\x01\xff\xff\xff\xff", "message of 4294967295 bytes, 1073741824 allowed"),
        (b"\xca\x02\x40\x02\x00\x00\x00\x00", "message of the client expected"),
        (b"\xca\x02\x00\x07\x06\x00\x00\x00\x02\x00\x01\x00\x00\x00", "channels need at least"),
        (b"\xca\x02\x20\x0a\x00\x00\x00\x00", "first segment of command 10 expected"),
    ],
)
def test_malformed(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture, data: bytes, text: str
) -> None:
    server = serve({"x": 1.0})
    with RawClient(server.port) as good, RawClient(server.port) as bad:
        bad.sock.sendall(data)
        with pytest.raises(ConnectionError):
            bad.sync()
        until(lambda: len(server.connections) == 1)
        assert good.get("x")["value"] == 1.0
    until(lambda: "breaks the protocol" in caplog.text)
    [record] = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "tester@127.0.0.1" in record.getMessage()
    assert "breaks the protocol" in record.getMessage()
    assert text in record.getMessage()


def test_limits_of_a_client(serve: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    server = serve({"x": 1.0}, limits=Limits(channels=10, operations=5))
    with RawClient(server.port) as client:
        for _ in range(10):
            client.open("x")
        client.send(messages.CreateChannel(channels=((client.conn.new_cid(), "x"),)))
        with pytest.raises(ConnectionError):
            client.sync()
    until(lambda: "more than 10 channels at offset 0 (Limits.channels)" in caplog.text)
    with RawClient(server.port) as client:
        sid = client.open("x")
        for ioid in range(1, 6):
            client.ask(messages.MonitorInit(sid=sid, ioid=ioid, request=Value({"field": {}})))
        client.send(messages.MonitorInit(sid=sid, ioid=6, request=Value({"field": {}})))
        with pytest.raises(ConnectionError):
            client.sync()
    until(lambda: "more than 5 operations at offset 0 (Limits.operations)" in caplog.text)


def test_clients_beyond_the_most(serve: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    server = serve({"x": 1.0}, max_connections=2)
    with RawClient(server.port) as client:
        for _ in range(2):
            with RawClient(server.port) as second:
                for _ in range(3):
                    with pytest.raises(ConnectionError):
                        RawClient(server.port)
                assert second.get("x")["value"] == client.get("x")["value"] == 1.0
            until(lambda: len(server.connections) == 1)
    # Once each time that it came to that.
    assert caplog.text.count("2 clients are connected, more are turned away") == 2
    with pytest.raises(ValueError, match="max_connections"):
        Server(max_connections=0)


def test_channels_without_end_do_not_keep_others_waiting(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message asks for 5,000 channels; another client asks for one while the first of them is opened."""
    monkeypatch.setattr(session_module, "_TURN", 0.0)
    opened: list[str] = []
    asked = threading.Event()

    class Everything(Provider):
        def open(self, name: str, peer: Peer) -> PV | None:
            if not opened:
                asked.wait(10)  # the first: until both have asked
            opened.append(name)
            return pv

    pv = PV("double", 1.0)
    server = serve({}, providers=[Everything()])
    with RawClient(server.port) as greedy, RawClient(server.port) as other:
        channels = [(greedy.conn.new_cid(), f"many{i}") for i in range(5_000)]
        greedy.send(messages.CreateChannel(channels=tuple(channels)))
        other.send(messages.CreateChannel(channels=((other.conn.new_cid(), "one"),)))
        asked.set()
        other.until(ChannelOpened)
        for _ in channels:
            greedy.until(ChannelOpened)
    assert [name for name in opened if name != "one"] == [name for _, name in channels]
    assert opened.index("one") < 1_000


def test_handlers_that_never_end(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """So many run for a client, one more is refused; they end with the client."""
    monkeypatch.setattr(session_module, "_RUNNING", 10)
    running = 0

    async def call(call: Call) -> None:
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(0 if call.arguments else 60)
        finally:
            running -= 1

    class Slow(Provider):
        async def open(self, name: str, peer: Peer) -> PV | None:
            return pv

    pv = PV(rpc=call)
    server = serve({"x": pv}, providers=[Slow()])
    with RawClient(server.port) as client:
        sids = [client.begin(messages.RpcInit, "other") for _ in range(11)]
        for sid, ioid in sids[:10]:
            client.send(messages.Rpc(sid=sid, ioid=ioid, value=None))
        sid, ioid = sids[10]
        with pytest.raises(RemoteError, match="10 requests of this client are being worked on"):
            client.ask(messages.Rpc(sid=sid, ioid=ioid, value=None))
        with pytest.raises(ConnectionError, match="10 requests"):
            client.open("another")
        with RawClient(server.port) as other:
            assert other.rpc("x", Value({"a": "int32"})) is None
        client.send(messages.CancelRequest(sid=sids[0][0], ioid=sids[0][1]))
        assert client.ask(messages.Rpc(sid=sid, ioid=ioid, value=Value({"a": "int32"}))).value is None
        until(lambda: running == 9)
    until(lambda: running == 0 and not server.connections)


def test_requests_that_wait_are_bounded(serve: Callable[..., Server]) -> None:
    """On a PV that is closed, a client can begin and end operations for ever: nothing of them stays."""
    pv = PV()
    server = serve({"x": pv})
    with RawClient(server.port) as client:
        sid = client.open("x")
        for ioid in range(1, 201):
            client.send(messages.GetInit(sid=sid, ioid=ioid, request=Value({"field": {}})))
            client.send(messages.DestroyRequest(sid=sid, ioid=ioid))
        client.sync()
        [session] = server._sessions
        [served] = session._served.values()
        assert not served.waiting
        assert not served.operations
        assert server.connections[0].operations == 0
        pv.open(NTD, 1.0)
        assert client.get("x")["value"] == 1.0


def test_errors_of_a_provider(serve: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Provider):
        def has(self, name: str) -> bool:
            raise RuntimeError("out of order")

        def open(self, name: str, peer: Peer) -> Any:
            return "no PV"

    server = serve({"x": 1.0}, providers=[Broken()])
    with RawClient(server.port) as client:
        for _ in range(3):
            client.send(messages.Search(sequence=1, channels=((1, "a"), (2, "x"))))
            assert client.until(Received).message.cids == (2,)
        assert caplog.text.count("RuntimeError: out of order") == 1  # said once, not for each search
        with pytest.raises(ConnectionError, match="a provider gave a str for 'a', a PV is needed"):
            client.open("a")


def test_names_of_clients_in_the_log(serve: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a client calls itself, it writes one line, and a short one."""
    server = serve({"x": PV(rpc=lambda call: 1 / 0)})
    with RawClient(server.port, user="root\nERROR all is lost " + "x" * 1000) as client:
        with pytest.raises(RemoteError):
            client.rpc("x")
        [record] = caplog.records
        assert "\n" not in record.getMessage()
        assert len(record.getMessage()) < 200


def test_an_error_in_each_handler(serve: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    """The client gets the text, the log the traceback, the server lives on."""

    def fail(*_: object) -> Any:
        raise ZeroDivisionError("of all things")

    pv = PV(NTD, 1.0, put=fail, rpc=fail, process=fail)
    denied = PV(NTD, 1.0, access=fail)
    odd = PV(rpc=lambda call: object())
    server = serve({"x": pv, "denied": denied, "odd": odd})
    pv.on_first(fail)
    pv.on_last(fail)
    with RawClient(server.port) as client:
        for work in (
            lambda: client.put("x", {"value": 1.0}),
            lambda: client.rpc("x"),
            lambda: client.get("x", "record[process=true]"),
            lambda: client.get("denied"),
        ):
            caplog.clear()
            with pytest.raises(RemoteError, match=r"^ERROR: of all things$"):
                work()
            assert "ZeroDivisionError: of all things" in caplog.text
            assert "by tester@127.0.0.1" in caplog.text
        with pytest.raises(RemoteError, match="no pvData type is evident"):
            client.rpc("odd")
        assert client.get("x")["value"] == 1.0
    until(lambda: not server.connections)
    assert pv.channels == 0


def test_a_half_open_client_under_a_monitor(serve: Callable[..., Server]) -> None:
    """A client whose host is gone: nothing comes any more, also no FIN; it costs its queue until it is dropped."""
    pv = PV("uint8[]", np.zeros(100_000, np.uint8))
    server = serve({"x": pv}, config=ServerConfig.isolated(conn_tmo=1.5))
    client = RawClient(server.port, rcvbuf=1 << 16)
    client.monitor("x")
    until(lambda: pv.subscriptions == 1)
    begun = time.monotonic()
    while server.connections:
        pv.post(np.zeros(100_000, np.uint8))
        time.sleep(0.005)
        assert sum(info.unsent + info.queued for info in server.connections) < 1_000_000
        assert time.monotonic() < begun + 10
    assert pv.subscriptions == pv.channels == 0
    client.sock.close()


def test_a_client_that_resets_in_the_middle(serve: Callable[..., Server]) -> None:
    pv = PV(NTD, 0.0)
    server = serve({"x": pv})
    for i in range(20):
        client = RawClient(server.port)
        client.monitor("x")
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        pv.post(float(i))
        client.sock.close()  # RST
        pv.post(float(i))
    until(lambda: not server.connections)
    assert pv.subscriptions == 0


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_no_descriptors_left(serve: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    """The server says so once a second, does not spin, and goes on when there are some again."""
    import resource

    server = serve({"x": 1.0})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = [socket.socket() for _ in range(3)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() - 1, hard))
    try:
        for sock in waiting:
            sock.connect(("127.0.0.1", server.port))
        until(lambda: "cannot take more clients for now" in caplog.text)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.25
        assert caplog.text.count("cannot take more clients") <= 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: len(server.connections) == 3)
    for sock in waiting:
        sock.close()


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_nothing_is_left_of_many_clients(serve: Callable[..., Server]) -> None:
    """Descriptors, objects and threads after 500 clients are those after 100."""
    pv = PV(NTD, 1.0, writable=True)

    @pv.on_rpc
    async def call(call: Call) -> float:
        return 1.0

    server = serve({"x": pv})

    def clients(n: int) -> tuple[int, int, int]:
        for _ in range(n):
            with RawClient(server.port) as client:
                client.put("x", {"value": 2.0})
                client.rpc("x")
                client.monitor("x", "field(value)")
                client.update()
                client.begin(messages.GetInit, "x")
        until(lambda: not server.connections)
        gc.collect()
        return descriptors(), len(gc.get_objects()), threading.active_count()

    first, second = clients(100), clients(400)
    assert second[0] == first[0]
    assert abs(second[1] - first[1]) < 300
    assert second[2] == first[2]


def test_many_channels(serve: Callable[..., Server]) -> None:
    """10,000 channels of one client, all with a monitor."""
    pvs = {f"pv{i}": PV(NTD, float(i)) for i in range(10_000)}
    server = serve(pvs)
    with RawClient(server.port) as client:
        opened: list[bytes] = []
        for i in range(10_000):
            opened += client.conn.send(messages.CreateChannel(channels=((client.conn.new_cid(), f"pv{i}"),)))
        threading.Thread(target=client.sock.sendall, args=(b"".join(opened),)).start()
        sids = [client.until(ChannelOpened).channel.sid for _ in range(10_000)]
        out: list[bytes] = []
        for ioid, sid in enumerate(sids, 1):
            request = Value({"field": {}})
            out += client.conn.send(messages.MonitorInit(sid=sid, ioid=ioid, request=request))
        threading.Thread(target=client.sock.sendall, args=(b"".join(out),)).start()
        for ioid in range(1, 10_001):
            client.reply(ioid)
        out = []
        for ioid, sid in enumerate(sids, 1):
            out += client.conn.send(messages.MonitorStart(sid=sid, ioid=ioid))
        threading.Thread(target=client.sock.sendall, args=(b"".join(out),)).start()
        assert sorted(client.update().value["value"] for _ in range(10_000)) == [
            float(i) for i in range(10_000)
        ]
        assert server.connections[0].subscriptions == 10_000
        pvs["pv77"].post(-1.0)
        assert client.update().value["value"] == -1.0
    until(lambda: not server.connections)
    assert not any(pv.channels for pv in pvs.values())


def test_it_sleeps_when_nothing_is_to_be_done(serve: Callable[..., Server]) -> None:
    server = serve({f"x{i}": normative.NTScalar("double").wrap(1.0) for i in range(10)})
    clients = [RawClient(server.port) for _ in range(10)]
    for i, client in enumerate(clients):
        client.monitor(f"x{i}")
        client.update()
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1
    for client in clients:
        client.sock.close()

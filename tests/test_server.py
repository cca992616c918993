"""The server over real sockets on 127.0.0.1, by a client that takes one step at a time."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

import pvafast.sync
from pvafast import (
    PV,
    AnyValue,
    BitSet,
    Client,
    EncodeError,
    FieldDesc,
    LocalProtocolError,
    RemoteError,
    Server,
    Value,
    messages,
    ndarray,
    normative,
)
from pvafast.connection import Received
from pvafast.network.config import ServerConfig
from pvafast.server import Call, Peer, Process, Provider, Put, Refused
from rawclient import RawClient

CONFIG = ServerConfig.isolated()
NTD = normative.NTScalar("double", display=True)


@pytest.fixture(params=["thread", "asyncio"])
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """Servers, each in a thread: on the library's loop, and on asyncio's."""
    ends: list[Callable[[], object]] = []

    def in_thread(server: Server) -> None:
        context = server.running()
        context.__enter__()
        ends.append(lambda: context.__exit__(None, None, None))

    def under_asyncio(server: Server) -> None:
        ready = threading.Event()
        loops: list[asyncio.AbstractEventLoop] = []

        async def main() -> None:
            async with server:
                loops.append(asyncio.get_running_loop())
                ready.set()
                await server.serve_forever()

        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        assert ready.wait(10)
        ends.extend((thread.join, lambda: loops[0].call_soon_threadsafe(server.stop)))

    def start(pvs: dict[str, Any], **options: Any) -> Server:
        server = Server(pvs, **({"config": CONFIG} | options))
        (in_thread if request.param == "thread" else under_asyncio)(server)
        return server

    yield start
    for end in reversed(ends):
        end()


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until it is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.002)


# -- reading


def test_get(serve: Callable[..., Server]) -> None:
    server = serve({"x": PV(NTD, 4.25, severity=1, timestamp=(5, 6), units="C"), "s": "text"})
    with RawClient(server.port) as client:
        value = client.get("x")
        assert value.type == NTD.type
        assert value["value"] == 4.25
        assert (value["alarm.severity"], value["display.units"]) == (1, "C")
        assert (value["timeStamp.secondsPastEpoch"], value["timeStamp.nanoseconds"]) == (5, 6)
        assert value.changed == BitSet((0,))
        before = time.time()
        text = normative.read(client.get("s"))
        assert text == "text"
        assert abs(text.timestamp - before) < 60  # a time stamp of now was added


def test_fields_that_are_selected(serve: Callable[..., Server]) -> None:
    server = serve({"x": PV(NTD, 4.25, severity=1)})
    with RawClient(server.port) as client:
        value = client.get("x", "field(value,alarm.severity)")
        assert value.changed_names() == ["value", "alarm.severity"]
        assert (value["value"], value["alarm.severity"]) == (4.25, 1)
        assert value["timeStamp.secondsPastEpoch"] == 0  # was not sent
        with pytest.raises(RemoteError, match="pvRequest must select at least one field"):
            client.get("x", "field(nothing)")
        assert client.get("x", "field(value,nothing)").changed_names() == ["value"]


def test_a_get_is_repeated(serve: Callable[..., Server]) -> None:
    pv = PV(NTD, 1.0)
    server = serve({"x": pv})
    with RawClient(server.port) as client:
        sid, ioid = client.begin(messages.GetInit, "x")
        for x in (2.0, 3.0):
            pv.post(x)
            assert client.ask(messages.Get(sid=sid, ioid=ioid)).value["value"] == x


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_every_kind_of_value(serve: Callable[..., Server], byteorder: str) -> None:
    fd = FieldDesc.structure(
        "my_t",
        {
            "b": "bool", "i": "int8", "text": "string", "texts": "string[]", "numbers": "uint16[]", "bounded": "int32<4>",
            "any": "any", "union": FieldDesc.union("", {"one": "double", "two": "string"}),
            "rows": FieldDesc.structure("", {"a": "int32"}).array(), "inner": {"deep": {"x": "float"}},
        },
    )  # fmt: skip
    value = Value(
        fd,
        {
            "b": True, "i": -3, "text": "é", "texts": ["a", ""], "numbers": [1, 65535], "bounded": [1, 2],
            "any": AnyValue("double[]", [0.5]), "union": "x", "rows": [{"a": 1}, None],
            "inner.deep.x": 1.5,
        },
    )  # fmt: skip
    server = serve({"x": PV(value)}, byteorder=byteorder)
    with RawClient(server.port) as client:
        assert client.get("x") == value
        _, ioid = client.monitor("x")
        assert client.update(ioid).value == value


def test_a_pv_that_is_no_structure(serve: Callable[..., Server]) -> None:
    pv = PV("int32[]", [1, 2, 3])
    server = serve({"x": pv})
    with RawClient(server.port) as client:
        assert client.get("x")[""].tolist() == [1, 2, 3]
        _, ioid = client.monitor("x")
        assert client.update(ioid).value[""].tolist() == [1, 2, 3]
        pv.post([4])
        assert client.update(ioid).value[""].tolist() == [4]


def test_the_type(serve: Callable[..., Server]) -> None:
    server = serve({"x": PV(NTD, access=lambda peer, action: False), "calls": PV(rpc=lambda call: None)})
    with RawClient(server.port) as client:
        sid = client.open("x")
        for field, fd in (("", NTD.type), ("alarm", NTD.type["alarm"]), ("value", FieldDesc.of("double"))):
            assert client.ask(messages.GetField(sid=sid, ioid=client.conn.new_ioid(), field=field)).type == fd
        assert client.ask(messages.GetField(sid=client.open("calls"), ioid=9)).type == FieldDesc.structure("")
        with pytest.raises(RemoteError, match="x has no field 'y'"):
            client.ask(messages.GetField(sid=sid, ioid=client.conn.new_ioid(), field="y"))
        assert not client.conn.operations


def test_a_request_that_is_no_structure(serve: Callable[..., Server]) -> None:
    server = serve({"x": PV(NTD, 1.0)})
    with RawClient(server.port) as client:
        sid = client.open("x")
        with pytest.raises(RemoteError, match="a structure is needed"):
            client.ask(messages.GetInit(sid=sid, ioid=1, request=AnyValue("int32", 5)))
        assert client.ask(messages.GetInit(sid=sid, ioid=2, request=None)).type == NTD.type


# -- monitors


def test_monitor(serve: Callable[..., Server]) -> None:
    pv = PV(NTD, 1.0, units="C")
    server = serve({"x": pv})
    with RawClient(server.port) as client:
        _, ioid = client.monitor("x")
        first = client.update(ioid)
        assert first.value.changed == BitSet((0,))
        assert (first.value["value"], first.value["display.units"]) == (1.0, "C")
        pv.post(2.0, timestamp=(7, 8), severity=2)
        second = client.update(ioid)
        assert second.value.changed_names() == [
            *("value", "alarm.severity", "timeStamp.secondsPastEpoch", "timeStamp.nanoseconds"),
        ]
        assert (second.value["value"], second.value["display.units"]) == (2.0, "C")
        assert not second.overrun
        pv.post({"alarm.message": "hot"}, stamp=False)
        assert client.update(ioid).value.changed_names() == ["alarm.message"]
        pv.post(Value(NTD.type, {"value": 3.0}))
        assert client.update(ioid).value.changed_names() == ["value"]  # a Value goes as it is


def test_monitor_of_some_fields(serve: Callable[..., Server]) -> None:
    pv = PV(NTD, 1.0)
    server = serve({"x": pv})
    with RawClient(server.port) as client:
        _, ioid = client.monitor("x", "field(value,alarm)")
        first = client.update(ioid).value
        assert first.changed_names() == ["value", "alarm.severity", "alarm.status", "alarm.message"]
        pv.post({"timeStamp.userTag": 5})  # not selected: no update
        pv.post(2.0)
        second = client.update(ioid).value
        assert second.changed_names() == ["value"]
        assert second["value"] == 2.0


def test_many_subscribers_get_the_same(serve: Callable[..., Server]) -> None:
    pv = PV(NTD, 0.0)
    server = serve({"x": pv, "alias": pv})
    clients = [RawClient(server.port) for _ in range(5)]
    ioids = [client.monitor("alias" if i % 2 else "x")[1] for i, client in enumerate(clients)]
    for client, ioid in zip(clients, ioids, strict=True):
        assert client.update(ioid).value["value"] == 0.0
    assert pv.subscriptions == pv.channels == 5
    for x in range(1, 50):
        pv.post(float(x))
        for client, ioid in zip(clients, ioids, strict=True):
            assert client.update(ioid).value["value"] == x
    for client in clients:
        client.sock.close()
    until(lambda: not server.connections)
    assert pv.subscriptions == pv.channels == 0


def test_who_starts_late_gets_the_same(serve: Callable[..., Server]) -> None:
    """Several INITs before any START, some that are never started."""
    pv = PV(NTD, 0.0)
    server = serve({"x": pv})
    with RawClient(server.port) as one, RawClient(server.port) as other:
        (a, first), (b, second) = (client.begin(messages.MonitorInit, "x") for client in (one, other))
        other.begin(messages.MonitorInit, "x")
        for client, sid, ioid in ((one, a, first), (other, b, second)):
            client.send(messages.MonitorStart(sid=sid, ioid=ioid))
            assert client.update(ioid).value["value"] == 0.0
        pv.post(1.0)
        assert one.update(first).value["value"] == other.update(second).value["value"] == 1.0
        one.send(messages.MonitorDestroy(sid=a, ioid=first))
        one.sync()
        pv.post(2.0)
        assert other.update(second).value["value"] == 2.0
        assert one.nothing()


def test_stop_and_start(serve: Callable[..., Server]) -> None:
    pv = PV(NTD, 1.0)
    server = serve({"x": pv})
    with RawClient(server.port) as client:
        sid, ioid = client.monitor("x")
        client.update(ioid)
        client.send(messages.MonitorStop(sid=sid, ioid=ioid))
        client.sync()
        pv.post(2.0)
        client.sync()
        assert client.nothing()
        client.send(messages.MonitorStart(sid=sid, ioid=ioid))
        again = client.update(ioid).value
        assert (again["value"], again.changed) == (2.0, BitSet((0,)))
        client.send(messages.MonitorDestroy(sid=sid, ioid=ioid))
        client.sync()
        assert pv.subscriptions == 0
        pv.post(3.0)
        assert client.nothing()


def test_a_window_that_is_full(serve: Callable[..., Server]) -> None:
    """Two updates, then the client must acknowledge; four wait, later ones are merged, with their overrun bits."""
    pv = PV(NTD, 0.0)
    server = serve({"x": pv})
    with RawClient(server.port) as client:
        _, ioid = client.monitor("x", "record[pipeline=true,queueSize=4]", nfree=2)
        assert client.update(ioid).value["value"] == 0.0
        client.sync()
        pv.post(Value(NTD.type, {"value": 1.0}))
        assert client.update(ioid).value["value"] == 1.0
        for x in (2.0, 3.0, 4.0):  # these wait
            pv.post(Value(NTD.type, {"value": x}))
        pv.post({"alarm.severity": 1}, stamp=False)  # joins the last place of the queue
        pv.post(Value(NTD.type, {"value": 6.0}))
        pv.post(Value(NTD.type, {"value": 7.0, "alarm.status": 3}))
        client.sync()
        assert client.nothing()
        [info] = server.connections
        assert (info.subscriptions, info.dropped, info.unsent) == (1, 2, 0)
        client.send(messages.MonitorAck(sid=1, ioid=ioid, nfree=2))
        value = NTD.type.index("value")
        got = [client.acknowledged(ioid) for _ in range(4)]
        assert [(u.value["value"], u.value.changed_names(), set(u.overrun)) for u in got] == [
            (2.0, ["value"], set()),
            (3.0, ["value"], set()),
            (4.0, ["value"], set()),
            (7.0, ["value", "alarm.severity", "alarm.status"], {value}),
        ]
        pv.post(8.0)
        assert client.update(ioid).value["value"] == 8.0
        assert server.connections[0].queued == 0


def test_a_client_that_reads_nothing(serve: Callable[..., Server]) -> None:
    """It costs no more than its queue, others get everything, and what it gets in the end is right."""
    pv = PV("uint32[]", np.zeros(100_000, np.uint32))
    server = serve({"x": pv})
    with RawClient(server.port, rcvbuf=1 << 16) as slow, RawClient(server.port) as quick:
        _, lazy = slow.monitor("x", "record[queueSize=3]")
        slow.update(lazy)
        _, ioid = quick.monitor("x")
        quick.update(ioid)
        for i in range(1, 101):
            pv.post(np.full(100_000, i, np.uint32))
            assert quick.update(ioid).value[""][-1] == i
        held = max(info.queued + info.unsent for info in server.connections)
        assert held <= 4 * 400_000 + 10_000
        assert max(info.dropped for info in server.connections) > 50
        numbers, overruns = [], []
        while not numbers or numbers[-1] < 100:
            update = slow.update(lazy)
            assert len(set(update.value[""].tolist())) == 1
            numbers.append(int(update.value[""][0]))
            overruns.append(bool(update.overrun))
        assert numbers == sorted(set(numbers))
        assert overruns[-1]
        assert not any(overruns[:2])


def test_queues_are_bounded_in_bytes(serve: Callable[..., Server]) -> None:
    pv = PV("uint8[]", np.zeros(100_000, np.uint8))
    server = serve({"x": pv}, queue_bytes=250_000)
    with RawClient(server.port) as client:
        sid, ioid = client.monitor("x", "record[pipeline=true,queueSize=1000]", nfree=1)
        client.update(ioid)
        client.sync()
        for i in range(1, 11):
            pv.post(np.full(100_000, i, np.uint8))
        client.sync()
        assert 0 < server.connections[0].queued <= 250_000
        client.send(messages.MonitorAck(sid=sid, ioid=ioid, nfree=1))
        updates = [client.acknowledged(ioid) for _ in range(3)]
        assert [u.value[""][0] for u in updates] == [1, 2, 10]
        assert [set(u.overrun) for u in updates] == [set(), set(), {0}]


def test_posts_from_many_threads(serve: Callable[..., Server]) -> None:
    """Each thread's updates come in its order, none is lost without being told, and the last state is everyone's."""
    fd = FieldDesc.structure("", {f"f{i}": "int32" for i in range(4)})
    pv = PV(fd)
    server = serve({"x": pv})
    with RawClient(server.port) as client:
        _, ioid = client.monitor("x", "record[queueSize=64]")
        client.update(ioid)

        def post(i: int) -> None:
            for n in range(1, 501):
                pv.post({f"f{i}": n})

        threads = [threading.Thread(target=post, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        last = [0] * 4
        seen = dropped = 0
        while last != [500] * 4:
            update = client.update(ioid)
            for i in range(4):
                x = update.value[f"f{i}"]
                if 1 + i in update.value.changed:
                    seen += 1
                    assert x == last[i] + 1 or (x > last[i] and 1 + i in update.overrun)
                    dropped += x - last[i] - 1
                    last[i] = x
                else:
                    assert x == last[i]
        for thread in threads:
            thread.join()
        assert seen + dropped == 2000
        assert pv.raw.to_dict() == {f"f{i}": 500 for i in range(4)}


def test_frames_are_not_copied() -> None:
    """What is handed to the socket is the memory that was posted."""
    from pvafast.connection import EncodedUpdate

    pixels = np.zeros((512, 512), np.uint16)
    pv = PV(ndarray.NTNDArray(), pixels)
    large = [b for b in EncodedUpdate(pv.raw).buffers if len(b) > 100_000]
    assert len(large) == 1
    assert np.shares_memory(np.frombuffer(large[0], np.uint16), pixels)
    pv.post(pixels, copy=True)
    assert not np.shares_memory(pv.raw["value"].value, pixels)


def test_segments_if_asked(serve: Callable[..., Server]) -> None:
    pv = PV("uint8[]", np.arange(1000) % 251)
    server = serve({"x": pv}, segment_size=100)
    with RawClient(server.port) as client:
        assert client.get("x")[""].tolist() == pv.raw[""].tolist()
        _, ioid = client.monitor("x")
        client.update(ioid)
        pv.post(np.ones(2000, np.uint8))
        assert client.update(ioid).value[""].tolist() == [1] * 2000


def test_a_source_that_waits(serve: Callable[..., Server]) -> None:
    """After drain() nobody has missed anything."""
    pv = PV("uint8[]", np.zeros(500_000, np.uint8))
    server = serve({"x": pv})
    with RawClient(server.port, rcvbuf=1 << 16) as client:
        _, ioid = client.monitor("x", "record[queueSize=2]")
        client.update(ioid)
        assert pv.wait_drained(10)
        got: list[int] = []

        def post() -> None:
            for i in range(1, 51):
                pv.post(np.full(500_000, i, np.uint8))
                assert pv.wait_drained(10)

        async def apost() -> None:
            for i in range(51, 101):
                pv.post(np.full(500_000, i, np.uint8))
                await pv.drain()

        def both() -> None:
            post()
            asyncio.run(apost())

        thread = threading.Thread(target=both)
        thread.start()
        while len(got) < 100:
            update = client.update(ioid)
            assert not update.overrun
            got.append(int(update.value[""][-1]))
        thread.join()
        assert got == list(range(1, 101))
        while pv.wait_drained(0.1):  # the client reads no more
            pv.post(np.zeros(500_000, np.uint8))
    assert pv.wait_drained(10)  # and is gone


# -- a PV that is closed, opened, removed


@pytest.mark.parametrize("more", [{"put": lambda put: None}, {"writable": True}])
def test_never_opened(serve: Callable[..., Server], more: dict[str, Any]) -> None:
    """What can be put will have a value, also where calls are answered before: who asks for it waits."""
    pv = PV(rpc=lambda call: 2.5, **more)
    server = serve({"x": pv, "calls": PV(rpc=lambda call: 3.5)})
    with RawClient(server.port) as client:
        sid = client.open("x")
        client.send(messages.GetInit(sid=sid, ioid=100, request=Value({"field": {}})))
        assert normative.read(client.rpc("x")) == 2.5
        client.sync()
        assert client.nothing()
        pv.open(NTD, 1.0)
        assert client.reply(100).type == NTD.type
        with pytest.raises(RemoteError, match="calls has no value, it answers calls"):
            client.get("calls")


def test_closed_under_a_monitor(serve: Callable[..., Server]) -> None:
    """The client is told, comes back, and its requests wait until the PV is open: with another type."""
    pv = PV(NTD, 1.0)
    server = serve({"x": pv})
    with RawClient(server.port) as client:
        sid, ioid = client.monitor("x")
        client.update(ioid)
        pv.post(2.0)
        pv.close()
        assert client.update(ioid).value["value"] == 2.0
        assert [o.ioid for o in client.closed(sid).operations] == [ioid]
        with pytest.raises(LocalProtocolError, match="closed"):
            pv.post(3.0)
        assert not pv.is_open
        sid = client.open("x")
        client.send(messages.MonitorInit(sid=sid, ioid=100, request=Value({"field": {}})))
        client.send(messages.GetField(sid=sid, ioid=101))
        client.sync()
        assert client.nothing()
        pv.open(normative.NTScalar("string"), "new")
        fd = normative.NTScalar("string").type
        assert client.reply(100).type == client.reply(101).type == fd
        client.send(messages.MonitorStart(sid=sid, ioid=100))
        assert client.update(100).value["value"] == "new"
        pv.open(normative.NTScalar("int32"), 5)  # while it is open
        client.closed(sid)
        assert client.get("x")["value"] == 5


def test_what_waits_is_sent_before_a_pv_closes(serve: Callable[..., Server]) -> None:
    pv = PV("int32", 0)
    server = serve({"x": pv})
    with RawClient(server.port) as client:
        sid, ioid = client.monitor("x", "record[pipeline=true,queueSize=2]", nfree=2)
        client.update(ioid)
        pv.post(1)
        client.update(ioid)
        for x in (2, 3, 4):
            pv.post(x)
        client.sync()
        [session] = server._sessions
        with pv.lock:  # the server cannot act on the acknowledgement before the PV is closed
            client.send(messages.MonitorAck(sid=sid, ioid=ioid, nfree=2))
            until(lambda: session.connection.operations[ioid].window == 2)
            pv.close()
        got = [client.update(ioid) for _ in range(2)]
        assert [(u.value[""], set(u.overrun)) for u in got] == [(2, set()), (4, {0})]
        client.closed(sid)


def test_removed(serve: Callable[..., Server]) -> None:
    server = serve({"x": 1.0, "y": 2.0})
    with RawClient(server.port) as client:
        sid = client.open("x")
        pv = server.remove("x")
        client.closed(sid)
        with pytest.raises(ConnectionError, match="no PV is named 'x'"):
            client.open("x")
        assert pv.channels == 0
        server.add("z", pv)
        assert client.get("z")["value"] == 1.0
        assert server.names() == ["y", "z"]
        with pytest.raises(ValueError, match="there is a PV named 'y'"):
            server.add("y", 1)
        for name in ("", "server"):
            with pytest.raises(ValueError, match="no name for a PV"):
                server.add(name, 1)


# -- writing


def test_read_only_by_default(serve: Callable[..., Server]) -> None:
    server = serve({"x": PV(NTD, 1.0)})
    with RawClient(server.port) as client:
        with pytest.raises(RemoteError, match=r"^ERROR: x is read-only$"):
            client.put("x", {"value": 2.0})
        assert client.get("x")["value"] == 1.0


def test_writable(serve: Callable[..., Server]) -> None:
    pv = PV(NTD, 1.0, writable=True, timestamp=(1, 2))
    server = serve({"x": pv})
    with RawClient(server.port) as client:
        _, ioid = client.monitor("x")
        client.update(ioid)
        client.put("x", {"value": 2.0, "display.units": "K"})
        update = client.update(ioid).value
        assert (update["value"], update["display.units"]) == (2.0, "K")
        assert update["timeStamp.secondsPastEpoch"] > 1_600_000_000
        client.put("x", {"timeStamp.secondsPastEpoch": 5})
        assert client.update(ioid).value.changed_names() == ["timeStamp.secondsPastEpoch"]


def test_put_handlers(serve: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    pv = PV(NTD, 1.0, units="C")
    asked: list[Put] = []

    @pv.on_put
    def put(put: Put) -> None:
        asked.append(put)
        if put.value > 10:
            raise ValueError("too hot")
        if put.value < 0:
            raise Refused("too cold")
        put.post(message="by hand")

    server = serve({"x": pv})
    with RawClient(server.port) as client:
        client.put("x", {"value": 5.0}, "record[process=true]")
        [one] = asked
        assert (one.name, one.pv, one.value, one.value.units) == ("x", pv, 5.0, "C")
        assert one.raw.changed_names() == ["value"]
        assert one.request.options == {"process": "true"}
        assert (one.peer.user, one.peer.method, one.peer.host) == ("tester", "ca", "127.0.0.1")
        assert one.peer.claimed_host == "here"
        assert (pv.value, pv.value.message) == (5.0, "by hand")
        with caplog.at_level(logging.ERROR, "pvafast.server"):
            with pytest.raises(RemoteError, match=r"^ERROR: too cold$"):
                client.put("x", {"value": -1.0})
            assert not caplog.records
            with pytest.raises(RemoteError, match=r"^ERROR: too hot$"):
                client.put("x", {"value": 11.0})
        [record] = caplog.records
        assert "error in Put of 'x' by tester@127.0.0.1" in record.getMessage()
        assert "ValueError: too hot" in caplog.text  # with its traceback
        assert pv.value == 5.0
        client.put("x", {"value": 6.0})  # and it lives on


def test_coroutines_as_handlers(serve: Callable[..., Server]) -> None:
    pv = PV(NTD, 1.0)

    @pv.on_put
    async def put(put: Put) -> None:
        await asyncio.sleep(0.01)
        if put.value > 10:
            raise ValueError("too hot")
        put.post()

    @pv.on_rpc
    async def call(call: Call) -> float:
        await asyncio.sleep(0.01)
        return float(call.arguments["a"] * 2)

    server = serve({"x": pv})
    with RawClient(server.port) as client:
        client.put("x", {"value": 5.0})
        assert pv.value == 5.0
        with pytest.raises(RemoteError, match="too hot"):
            client.put("x", {"value": 11.0})
        assert client.rpc("x", Value({"a": "double"}, {"a": 4.0}))["value"] == 8.0


def test_cancel_a_coroutine(serve: Callable[..., Server]) -> None:
    """CANCEL, DESTROY, a closed channel and a lost client end it."""
    started = threading.Semaphore(0)
    ended = threading.Semaphore(0)

    async def call(call: Call) -> None:
        started.release()
        try:
            await asyncio.sleep(60)
        finally:
            ended.release()

    server = serve({"x": PV(rpc=call), "y": 1.0})
    client = RawClient(server.port)

    def begin() -> tuple[int, int]:
        sid, ioid = client.begin(messages.RpcInit, "x")
        client.send(messages.Rpc(sid=sid, ioid=ioid, value=None))
        assert started.acquire(timeout=10)
        return sid, ioid

    sid, ioid = begin()
    client.send(messages.CancelRequest(sid=sid, ioid=ioid))
    assert ended.acquire(timeout=10)
    client.sync()
    client.send(messages.Rpc(sid=sid, ioid=ioid, value=None))  # the operation lives on
    assert started.acquire(timeout=10)
    client.send(messages.DestroyRequest(sid=sid, ioid=ioid))
    assert ended.acquire(timeout=10)
    sid, _ = begin()
    client.send(messages.DestroyChannel(sid=sid, cid=client.conn.operations[_].channel.cid))
    assert ended.acquire(timeout=10)
    begin()
    client.sock.close()
    assert ended.acquire(timeout=10)
    until(lambda: not server.connections)


def test_a_handler_that_is_cancelled_from_within(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    """What a handler awaited was cancelled: the client is told, and nothing of the request is left."""

    class Cancelled(Provider):
        def has(self, name: str) -> bool:
            return name == "y"

        async def open(self, name: str, peer: Peer) -> PV:
            raise asyncio.CancelledError

    async def call(call: Call) -> None:
        inner = asyncio.ensure_future(asyncio.sleep(60))
        inner.cancel()
        await inner

    server = serve({"x": PV(rpc=call)}, providers=[Cancelled()])
    with RawClient(server.port) as client:
        sid, ioid = client.begin(messages.RpcInit, "x")
        for _ in range(2):
            with pytest.raises(RemoteError, match="cancelled"):
                client.ask(messages.Rpc(sid=sid, ioid=ioid, value=None))
        with pytest.raises(ConnectionError, match="cancelled"):
            client.open("y")
        assert [session.running for session in server._sessions] == [0]
    assert [record.getMessage().split(" by ")[0].split(" for ")[0] for record in caplog.records] == [
        "error in Rpc of 'x'",
        "error in Rpc of 'x'",
        "error while 'y' was opened",
    ]


def test_read_back_and_put_get(serve: Callable[..., Server]) -> None:
    pv = PV(NTD, 1.0)

    @pv.on_put
    def put(put: Put) -> None:
        pv.post(put.value * 2)

    server = serve({"x": pv})
    with RawClient(server.port) as client:
        sid, ioid = client.begin(messages.PutInit, "x", "field(value)")
        back = client.ask(messages.PutGetBack(sid=sid, ioid=ioid)).value
        assert (back["value"], back.changed_names()) == (1.0, ["value"])
        sid, ioid = client.begin(messages.PutGetInit, "x", "putField(value)getField(value,alarm)")
        answer = client.ask(messages.PutGet(sid=sid, ioid=ioid, value=Value(NTD.type, {"value": 4.0}))).value
        assert answer["value"] == 8.0
        assert answer.changed_names() == ["value", "alarm.severity", "alarm.status", "alarm.message"]
        assert client.ask(messages.PutGetGetGet(sid=sid, ioid=ioid)).value["value"] == 8.0
        assert client.ask(messages.PutGetGetPut(sid=sid, ioid=ioid)).value.changed_names() == ["value"]


def test_process(serve: Callable[..., Server]) -> None:
    pv = PV(NTD, 0.0)

    @pv.on_process
    def process(process: Process) -> None:
        pv.post(pv.value + 1)

    server = serve({"x": pv, "y": 1.0})
    with RawClient(server.port) as client:
        sid, ioid = client.begin(messages.ProcessInit, "x")
        for _ in range(2):
            client.ask(messages.Process(sid=sid, ioid=ioid))
        assert pv.value == 2.0
        assert client.get("x", "record[process=true]")["value"] == 3.0
        with pytest.raises(RemoteError, match="y cannot be processed"):
            client.begin(messages.ProcessInit, "y")


def test_arrays(serve: Callable[..., Server]) -> None:
    pv = PV(normative.NTScalar("int32[]"), [0, 1, 2, 3, 4], writable=True)
    names = PV(normative.NTScalar("string[]"), ["a", "b"], writable=True)
    server = serve({"x": pv, "s": names, "read": [1.5], "scalar": 1.0})
    with RawClient(server.port) as client:
        sid = client.open("x")
        reply = client.ask(messages.ArrayInit(sid=sid, ioid=1, request=Value({"field": {"value": {}}})))
        assert reply.type == FieldDesc.of("int32[]")

        def get(**how: int) -> list[int]:
            found: list[int] = client.ask(messages.ArrayGet(sid=sid, ioid=1, **how)).value.value.tolist()
            return found

        assert get() == [0, 1, 2, 3, 4]
        assert get(offset=1, count=2) == [1, 2]
        assert get(offset=1, stride=2) == [1, 3]
        assert get(offset=5) == []
        assert client.ask(messages.ArrayGetLength(sid=sid, ioid=1)).length == 5
        client.ask(messages.ArrayPut(sid=sid, ioid=1, offset=4, value=AnyValue("int32[]", [9, 10])))
        assert get() == [0, 1, 2, 3, 9, 10]
        client.ask(messages.ArrayPut(sid=sid, ioid=1, stride=3, value=AnyValue("int32[]", [-1, -2])))
        assert get() == [-1, 1, 2, -2, 9, 10]
        client.ask(messages.ArrayPut(sid=sid, ioid=1, value=AnyValue("int32[]", [])))
        client.ask(messages.ArraySetLength(sid=sid, ioid=1, length=2))
        assert pv.value.tolist() == [-1, 1]
        for wrong, text in (
            (messages.ArrayGet(sid=sid, ioid=1, offset=6), "offset 6 of an array of 2"),
            (messages.ArrayGet(sid=sid, ioid=1, stride=0), "stride 0"),
            (messages.ArraySetLength(sid=sid, ioid=1, length=1 << 31), "Limits.message"),
            (
                messages.ArrayPut(sid=sid, ioid=1, offset=1 << 31, value=AnyValue("int32[]", [1])),
                "Limits.message",
            ),
        ):
            with pytest.raises(RemoteError, match=text):
                client.ask(wrong)
        sid, ioid = client.begin(messages.ArrayInit, "s")
        client.ask(messages.ArrayPut(sid=sid, ioid=ioid, offset=3, value=AnyValue("string[]", ["d"])))
        assert names.raw["value"] == ["a", "b", "", "d"]
        sid, ioid = client.begin(messages.ArrayInit, "read")
        with pytest.raises(RemoteError, match="read is read-only"):
            client.ask(messages.ArraySetLength(sid=sid, ioid=ioid, length=3))
        with pytest.raises(RemoteError, match="one field that is an array"):
            client.begin(messages.ArrayInit, "scalar")


# -- calls


def test_rpc(serve: Callable[..., Server]) -> None:
    results: dict[str, Any] = {
        "none": None,
        "number": 1.5,
        "array": np.arange(3),
        "structure": {"a": 1, "b": "x"},
        "value": Value({"z": "int32"}, {"z": 3}),
        "any": AnyValue("string", "s"),
    }
    asked: list[Call] = []

    def answer(call: Call) -> Any:
        asked.append(call)
        return results[call.arguments["what"]]

    server = serve({"x": PV(rpc=answer)})
    with RawClient(server.port) as client:

        def call(what: str) -> Any:
            return client.rpc("x", normative.NTURI.of("x", {"what": what}))

        assert call("none") is None
        assert normative.read(call("number")) == 1.5
        assert normative.read(call("array")).tolist() == [0, 1, 2]
        assert call("structure").to_dict() == {"a": 1, "b": "x"}
        assert call("value") == results["value"]
        assert call("any") == results["any"]
        assert asked[0].arguments == {"what": "none"}
        with pytest.raises(RemoteError, match="KeyError: 'other'"):
            call("other")
        with pytest.raises(RemoteError, match="answers calls"):
            client.get("x")
        with pytest.raises(RemoteError, match="KeyError: 'what'"):
            client.rpc("x", None)


def test_the_channel_server(serve: Callable[..., Server]) -> None:
    server = serve({"b": 1, "a": 2})
    with RawClient(server.port) as client:

        def ask(**query: str) -> Any:
            return client.rpc("server", normative.NTURI.of("server", query))

        assert ask(op="channels")["value"] == ["a", "b"]
        assert client.rpc("server", Value({"op": "string"}, {"op": "channels"}))["value"] == ["a", "b"]
        info = ask(op="info")
        assert info["implLang"] == "Python"
        assert info["version"].startswith("pvafast ")
        assert "op=channels" in ask(help="")["value"]
        with pytest.raises(RemoteError, match="no such op: 'x'"):
            ask(op="x")
        with pytest.raises(RemoteError, match="op is missing"):
            ask()
        with pytest.raises(RemoteError, match="calls"):
            client.get("server")


# -- access, providers


def test_access(serve: Callable[..., Server]) -> None:
    def rule(peer: Peer, action: str) -> bool | str:
        if action == "read":
            return True
        if peer.user == "operator":
            return peer.host == "127.0.0.1"
        return "only the operator" if peer.user else False

    pv = PV(NTD, 1.0, writable=True, access=rule, rpc=lambda call: None)
    hidden = PV(NTD, 1.0, access=lambda peer, action: False)
    server = serve({"x": pv, "hidden": hidden})
    with RawClient(server.port, user="operator") as client:
        client.put("x", {"value": 2.0})
        assert client.rpc("x") is None
        for init in (messages.GetInit, messages.MonitorInit, messages.ArrayInit):
            with pytest.raises(RemoteError, match=r"operator at 127.0.0.1 may not read hidden"):
                client.begin(init, "hidden")
    with RawClient(server.port, user="guest") as client:
        assert client.get("x")["value"] == 2.0
        for init in (messages.PutInit, messages.PutGetInit, messages.RpcInit):
            with pytest.raises(RemoteError, match=r"^ERROR: only the operator$"):
                client.begin(init, "x")
    with (
        RawClient(server.port, user="") as client,
        pytest.raises(RemoteError, match=r"anonymous at 127.0.0.1 may not write x"),
    ):
        client.put("x", {"value": 2.0})


def test_providers(serve: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []

    class Squares(Provider):
        def has(self, name: str) -> bool:
            return name.startswith("square:")

        def open(self, name: str, peer: Peer) -> PV | None:
            if name == "square:secret":
                raise Refused(f"not for {peer.user}")
            if not self.has(name):
                return None
            pv = PV.of(float(name.removeprefix("square:")) ** 2)
            pv.on_last(lambda pv: closed.append(name))
            return pv

        def names(self) -> Iterable[str] | None:
            return ["square:2"]

    class Slow(Provider):
        async def open(self, name: str, peer: Peer) -> PV | None:
            await asyncio.sleep(0.01)
            if name == "broken":
                raise RuntimeError("out of order")
            return PV.of(name) if name.startswith("slow:") else None

    server = serve({"x": 1.0}, providers=[Squares(), Slow()])
    assert server.has("square:3")
    assert not server.has("cube:3")
    with RawClient(server.port) as client:
        assert client.get("square:3")["value"] == 9.0
        assert client.get("slow:x")["value"] == "slow:x"
        assert client.get("x")["value"] == 1.0
        with pytest.raises(ConnectionError, match="no PV is named 'other'"):
            client.open("other")
        with pytest.raises(ConnectionError, match="not for tester"):
            client.open("square:secret")
        with pytest.raises(ConnectionError, match="out of order"):
            client.open("broken")
        with pytest.raises(ConnectionError, match="could not convert"):
            client.open("square:x")
        names = client.rpc("server", Value({"op": "string"}, {"op": "channels"}))["value"]
        assert names == ["square:2", "x"]
        assert not closed
    until(lambda: closed == ["square:3"])
    assert [r.levelname for r in caplog.records if "opened for" in r.getMessage()] == ["ERROR"] * 2


def test_the_first_and_the_last_channel(serve: Callable[..., Server]) -> None:
    told: list[str] = []
    pv = PV()

    @pv.on_first
    def first(pv: PV) -> None:
        told.append("first")
        pv.open(NTD, 5.0)

    @pv.on_last
    def last(pv: PV) -> None:
        told.append("last")
        pv.close()

    server = serve({"x": pv})
    for _ in range(2):
        with RawClient(server.port) as one, RawClient(server.port) as other:
            assert one.get("x")["value"] == other.get("x")["value"] == 5.0
        until(lambda: pv.channels == 0 and not pv.is_open)
    assert told == ["first", "last"] * 2


# -- search


def test_search_over_tcp(serve: Callable[..., Server]) -> None:
    server = serve({"x": 1.0, "y": 2.0})
    with RawClient(server.port) as client:
        client.send(
            messages.Search(
                sequence=7, protocols=("tcp",), channels=((1, "x"), (2, "none"), (3, "y"), (4, "server"))
            )
        )
        reply = client.until(Received).message
        assert (reply.sequence, reply.found, reply.cids) == (7, True, (1, 3))
        assert (reply.port, reply.guid) == (server.port, server.guid)


# -- the program's side


def test_posts_that_do_not_fit() -> None:
    pv = PV(NTD, 1.0)
    with pytest.raises(EncodeError, match="value"):
        pv.post("text")
    with pytest.raises(EncodeError, match="no field"):
        pv.post({"nothing": 1})
    with pytest.raises(EncodeError, match="the PV is another type"):
        pv.post(Value({"value": "double"}, {"value": 1.0}))
    with pytest.raises(EncodeError, match="without a field `value`"):
        PV({"x": "int32"}).post(1)
    assert pv.value == 1.0
    with pytest.raises(TypeError, match="without a type"):
        PV(initial=1.0)
    with pytest.raises(LocalProtocolError, match="closed"):
        PV().post(1)


@pytest.mark.parametrize(
    ("x", "id", "field"),
    [
        (1.5, "epics:nt/NTScalar:1.0", "double"),
        (7, "epics:nt/NTScalar:1.0", "int64"),
        (True, "epics:nt/NTScalar:1.0", "bool"),
        ("x", "epics:nt/NTScalar:1.0", "string"),
        (np.float32(2), "epics:nt/NTScalar:1.0", "float"),
        ([1.0, 2.0], "epics:nt/NTScalarArray:1.0", "double[]"),
        (["a"], "epics:nt/NTScalarArray:1.0", "string[]"),
        (np.zeros(3, np.uint8), "epics:nt/NTScalarArray:1.0", "uint8[]"),
    ],
)
def test_the_type_of_a_plain_value(x: Any, id: str, field: str) -> None:
    pv = PV.of(x)
    assert pv.type is not None
    assert pv.type.id == id
    assert pv.type["value"] == FieldDesc.of(field)
    assert np.array_equal(pv.value, x)
    pv.post(x)


def test_other_plain_values() -> None:
    frame = np.arange(12, dtype=np.uint8).reshape(3, 4)
    pv = PV.of(frame)
    assert pv.type == ndarray.NTNDArray().type
    assert np.array_equal(pv.value.data, frame)
    pv.post(frame + 1)
    assert np.array_equal(pv.value.data, frame + 1)
    again = PV.of(pv.value)
    assert again.raw == pv.raw
    assert PV.of({"a": 1, "b": [1.5]}, writable=True).writable
    shown = PV.of(1.5, units="mm", control={"limitHigh": 5.0}, value_alarm={"highAlarmLimit": 4.0}).raw
    assert (shown["display.units"], shown["control.limitHigh"], shown["valueAlarm.highAlarmLimit"]) == (
        "mm",
        5.0,
        4.0,
    )
    assert "display" not in PV.of(1.5).raw.type
    choice = PV.of(PV(normative.NTEnum(["off", "on"]), "on").value)
    assert choice.value.choice == "on"
    choice.post("off")
    choice.post(0)
    assert choice.value.choice == "off"
    with pytest.raises(EncodeError, match="none of the choices"):
        choice.post("red")
    with pytest.raises(EncodeError, match="no pvData type is evident"):
        PV.of(None)
    table = PV(normative.NTTable({"a": "int32", "b": "string"}))
    assert table.raw["labels"] == ["a", "b"]
    table.post({"a": [1], "b": ["x"]})
    assert table.raw["value.b"] == ["x"]


def test_snapshots_stay_as_they_are() -> None:
    pv = PV(NTD, 1.0)
    raw, value = pv.raw, pv.value
    pv.post(2.0)
    raw["value"] = 7.0
    assert (value, pv.value, pv.raw["value"]) == (1.0, 2.0, 2.0)


def test_life(caplog: pytest.LogCaptureFixture) -> None:
    pv = PV(NTD, 1.0)
    server = Server({"x": pv}, config=CONFIG)
    with pytest.raises(LocalProtocolError, match="not running"):
        _ = server.port
    for _ in range(2):  # it can run again
        with server.running() as running:
            assert running is server
            assert server.udp_port > 0
            with pytest.raises(LocalProtocolError, match="is running"), server.running():
                pass
            client = RawClient(server.port)
            assert client.get("x")["value"] == 1.0
            client.open("x")
        with pytest.raises(ConnectionError):
            client.sync()
        client.sock.close()
        assert pv.channels == 0
        pv.post(2.0)
        pv.post(1.0)
    with pytest.raises(TypeError, match="config and settings"):
        Server(config=CONFIG, server_port=0)
    with pytest.raises(ValueError, match="byteorder"):
        Server(config=CONFIG, byteorder="middle")


def test_a_post_while_it_stops() -> None:
    """A thread posts between stop() and the next pass of the loop: what threads post after the next start is sent."""
    pv = PV(NTD, 0.0)

    def post(x: float) -> None:
        thread = threading.Thread(target=pv.post, args=(x,))
        thread.start()
        thread.join()

    async def main() -> None:
        server = Server({"x": pv}, config=CONFIG)
        for first in (0.0, 5.0):
            async with server, Client(server=f"127.0.0.1:{server.port}") as client:
                subscription = client.monitor("x")
                assert (await subscription.next(10)).value == first
                post(first + 1)
                assert (await subscription.next(10)).value == first + 1
                server.stop()
                post(5.0)

    asyncio.run(main())


def test_a_port_that_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    """Another server has it: a free one is taken, and the log says so."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = ServerConfig.isolated(server_port=port)
        with (
            caplog.at_level(logging.WARNING, "pvafast.server"),
            Server({"x": 1.5}, config=config).running() as server,
        ):
            found = server.port
            assert found not in (0, port)
            with pvafast.sync.Client(server=f"127.0.0.1:{server.port}") as client:
                assert client.get("x") == 1.5
        assert f"TCP port {port} is taken: listening on {found}" in caplog.text


def test_losses_of_a_subscription() -> None:
    """Frames 3 and 4 were never posted, 5 came twice: the client's subscription says so."""
    pv = PV(ndarray.NTNDArray(), np.zeros((2, 2)), unique_id=1)
    with (
        Server({"cam": pv}, config=ServerConfig.isolated()).running() as server,
        pvafast.sync.Client(server=f"127.0.0.1:{server.port}") as client,
        client.monitor("cam") as readings,
    ):
        assert readings.next(timeout=10).value.unique_id == 1
        for number in (2, 5, 5, 6):
            pv.post(np.zeros((2, 2)), unique_id=number, timestamp=1000 + number)
            assert readings.next(timeout=10).value.unique_id == number
        found = readings.losses
        assert (found.updates, found.frames, found.missing, found.duplicates) == (5, 5, 2, 1)

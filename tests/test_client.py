"""The client, both faces, against a server that does what the test says (livepeer.py)."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pvafast
import pvafast.sync
from livepeer import NT_DOUBLE, NT_LONG, LiveServer, nt_double, until
from pvafast import (
    AnyValue,
    BitSet,
    ClientClosed,
    Disconnected,
    EncodeError,
    FieldDesc,
    LocalProtocolError,
    OperationTimeout,
    RemoteError,
    Value,
    client,
    messages,
    ndarray,
    normative,
)
from pvafast.connection import ChannelRequested, Credentials, OperationRequest
from pvafast.errors import NormativeError
from pvafast.messages import Status, StatusType


class Aio:
    """pvafast.Client with blocking methods: its loop runs in a thread."""

    def __init__(self, **settings: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.client = pvafast.Client(**settings)

    def wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        async def run(*args: Any, **options: Any) -> Any:
            found = method(*args, **options)
            return await found if inspect.isawaitable(found) else found

        def call(*args: Any, **options: Any) -> Any:
            found = self.wait(run(*args, **options))
            return (
                Monitored(self, found)
                if isinstance(found, client.AsyncSubscription | client.AsyncWatch)
                else found
            )

        return call

    def end(self) -> None:
        self.wait(self.client.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Monitored:
    """A subscription of Aio."""

    def __init__(self, face: Aio, subscription: Any) -> None:
        self.face = face
        self.subscription = subscription

    def next(self, timeout: float | None = None) -> Any:
        async def one() -> Any:
            try:
                return await self.subscription.next(timeout)
            except StopAsyncIteration:
                return StopIteration

        found = self.face.wait(one())
        if found is StopIteration:
            raise StopIteration
        return found

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.subscription, name)
        if not callable(found):
            return found

        async def run() -> Any:
            return found()

        return lambda: self.face.wait(run())


class Sync:
    """pvafast.sync.Client."""

    def __init__(self, **settings: Any) -> None:
        self.client = pvafast.sync.Client(**settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def end(self) -> None:
        self.client.close()


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with LiveServer({"x": nt_double(1.5), "y": nt_double(2.5)}) as server:
        yield server


@pytest.fixture(params=[Aio, Sync], ids=["aio", "sync"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def face(kind: Any, server: LiveServer) -> Iterator[Any]:
    face = kind(server=server.address, timeout=10)
    yield face
    face.end()


# -- requests


def test_get(face: Any, server: LiveServer) -> None:
    x = face.get("x")
    assert (x, type(x)) == (1.5, normative.Float)
    raw = face.get("x", nt=False)
    assert isinstance(raw, Value)
    assert raw["value"] == 1.5
    # One connection, one channel; the second get of the same request needed no INIT.
    assert server.connections == 1
    assert len([e for e in server.events if isinstance(e, ChannelRequested)]) == 1
    assert len(server.asked(messages.GetInit)) == 1
    assert len(server.asked(messages.Get)) == 2


def test_get_with_a_request(face: Any, server: LiveServer) -> None:
    face.get("x", "field(value)")
    face.get("x", pvafast.request.Request.parse("field(value)"))
    face.get("x", pvafast.request.parse("field(value)"))
    asked = [pvafast.request.format(m.request) for m in server.asked(messages.GetInit)]
    # A Value is not kept: it could be changed.
    assert asked == ["field(value)", "field(value)"]
    assert until(lambda: len(server.asked(messages.DestroyRequest)) == 1)
    with pytest.raises(EncodeError, match="column 7"):
        face.get("x", "field(")
    with pytest.raises(TypeError):
        face.get("x", 3)


def test_some_fields_of_a_normative_type(face: Any, server: LiveServer) -> None:
    """pvAccessCPP and spvirit make a type of the fields that were asked for, and may keep its id."""
    type = FieldDesc.structure("epics:nt/NTScalar:1.0", {"alarm": pvafast.alarm_t})
    server.pvs["part"] = Value(type, {"alarm.severity": 2})
    assert face.get("part", "field(alarm)")["alarm.severity"] == 2
    assert face.monitor("part").next(5).value["alarm.severity"] == 2
    broken = FieldDesc.structure("epics:nt/NTScalar:1.0", {"value": "any"})
    server.pvs["broken"] = Value(broken)
    with pytest.raises(NormativeError, match="`value`"):
        face.get("broken")
    assert face.get("broken", nt=False)["value"] is None


def test_get_of_many(face: Any, server: LiveServer) -> None:
    assert face.get(["x", "y", "x"]) == [1.5, 2.5, 1.5]
    assert face.get([]) == []
    found = face.get(["x", "nope", "y"], return_exceptions=True)
    assert found[0] == 1.5
    assert found[2] == 2.5
    assert isinstance(found[1], RemoteError)
    assert found[1].message == "no such PV"
    with pytest.raises(RemoteError, match="no such PV") as error:
        face.get(["x", "nope", "y"])
    assert (error.value.severity, error.value.stack) == ("ERROR", "here")


def test_get_of_many_of_which_one_does_not_answer(face: Any, server: LiveServer) -> None:
    """The others are not late with it."""
    server.handle = lambda peer, event: (
        isinstance(event, OperationRequest) and event.operation.channel.name == "y"
    )
    found = face.get(["x", "y"], timeout=0.5, return_exceptions=True)
    assert found[0] == 1.5
    assert isinstance(found[1], OperationTimeout)
    assert (found[1].name, found[1].state) == ("y", "waiting")


def test_what_changed_is_laid_over_what_was_kept(face: Any, server: LiveServer) -> None:
    """pvAccessCPP sends everything once, then only what changed (WIRE 9)."""
    count = 0

    def handle(peer: Any, event: Any) -> bool:
        nonlocal count
        if isinstance(event, OperationRequest) and isinstance(event.message, messages.Get):
            count += 1
            value = Value(NT_DOUBLE)
            if count == 1:
                value = Value(NT_DOUBLE, {"value": 7.0, "alarm.severity": 2, "timeStamp.userTag": 5})
            elif count == 2:
                value["value"] = 8.0
            peer.send(messages.GetReply(ioid=event.message.ioid, value=value))
            return True
        return False

    server.handle = handle
    for value in (7.0, 8.0, 8.0):
        found = face.get("x", nt=False)
        assert (found["value"], found["alarm.severity"], found["timeStamp.userTag"]) == (value, 2, 5)
        # It is the whole that was asked for.
        assert found.changed_names() == ["value", "alarm.severity", "timeStamp.userTag"]


def test_put(face: Any, server: LiveServer) -> None:
    face.put("x", 3.25)
    face.put("x", {"value": 4.5, "alarm.severity": 1})
    face.put("x", {"alarm": {"message": "no"}})
    face.put("x", Value(NT_DOUBLE, {"value": 6.0}))
    face.put("x", Value("struct{double value, int32 other}", {"value": 7.0}))
    face.put("x", np.float64(8.0))
    face.put("x", 9)
    assert [(v.changed_names(), v["value"]) for _, v in server.puts] == [
        (["value"], 3.25),
        (["value", "alarm.severity"], 4.5),
        (["alarm.message"], 0.0),
        (["value"], 6.0),
        (["value"], 7.0),
        (["value"], 8.0),
        (["value"], 9.0),
    ]
    assert face.get("x") == 9.0
    assert len(server.asked(messages.PutInit)) == 1
    face.put(["x", "y"], [1.0, 2.0])
    assert face.get(["x", "y"]) == [1.0, 2.0]


def test_put_of_what_does_not_fit(face: Any, server: LiveServer) -> None:
    for wrong in (
        "text",
        {"nope": 1},
        {"value.nope": 1},
        [1.0, 2.0],
        Value("struct{double nope}", {"nope": 1.0}),
    ):
        with pytest.raises(EncodeError):
            face.put("x", wrong)
    with pytest.raises(OverflowError):
        face.put("x", {"alarm.severity": 2**40})
    with pytest.raises(EncodeError, match="1 values for 2 names"):
        face.put(["x", "y"], [1.0])
    with pytest.raises(ValueError, match="process"):
        face.put("x", 1.0, process="perhaps")
    assert server.puts == []
    assert face.get("x") == 1.5  # the connection is as it was


def test_put_options(face: Any, server: LiveServer) -> None:
    face.put("x", 1.0, wait=True, process="passive")
    face.put("x", 1.0, "field(value)record[a=b]", wait=False, process=True)
    asked = [pvafast.request.format(m.request) for m in server.asked(messages.PutInit)]
    assert asked == [
        "field()record[block=true,process=passive]",
        "field(value)record[a=b,block=false,process=true]",
    ]


def test_put_with_what_is_there(face: Any, server: LiveServer) -> None:
    face.put("x", lambda current: current["value"] + 1)
    assert server.puts[0][1]["value"] == 2.5
    face.put("x", lambda current: {"alarm.status": int(current["value"])})
    assert server.puts[1][1].changed_names() == ["alarm.status"]
    assert server.puts[1][1]["alarm.status"] == 2
    face.put("x", 5.0, get=True)
    assert len(server.asked(messages.PutGetBack)) == 3

    def wrong(current: Value) -> Any:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        face.put("x", wrong)
    assert len(server.puts) == 3


def test_put_of_an_enum(face: Any, server: LiveServer) -> None:
    server.pvs["e"] = normative.NTEnum().wrap(0, ["off", "on", "7"])
    face.put("e", "on")
    assert server.pvs["e"]["value.index"] == 1
    assert repr(face.get("e")) == "Choice(1, 'on')"
    face.put("e", 2)
    face.put("e", "off")
    face.put("e", face.get("e"))
    face.put("e", "1")
    assert [v["value.index"] for _, v in server.puts] == [1, 2, 0, 0, 1]
    assert all(v.changed_names() == ["value.index"] for _, v in server.puts)
    with pytest.raises(EncodeError, match="'open' is none of the choices 'off', 'on', '7'"):
        face.put("e", "open")


def test_put_of_arrays_frames_and_tables(face: Any, server: LiveServer) -> None:
    server.pvs["a"] = normative.NTScalarArray("double").wrap([1.0])
    server.pvs["image"] = ndarray.NTNDArray().wrap(np.zeros((2, 3), np.uint8))
    server.pvs["t"] = normative.NTTable({"a": "double", "b": "string"}).wrap({"a": [], "b": []})
    face.put("a", np.arange(4.0))
    assert face.get("a").tolist() == [0.0, 1.0, 2.0, 3.0]
    pixels = np.arange(12, dtype=np.uint16).reshape(4, 3)
    face.put("image", pixels)
    frame = face.get("image")
    assert frame.data.dtype == np.uint16
    assert np.array_equal(frame.data, pixels)
    face.put("image", frame)
    assert np.array_equal(face.get("image").data, pixels)
    face.put("t", {"a": [1.0, 2.0], "b": ["p", "q"]})
    assert face.get("t")["b"] == ["p", "q"]
    assert face.get("t")["a"].tolist() == [1.0, 2.0]
    face.put("t", {"labels": ["A", "B"]})
    assert face.get("t").labels == ("A", "B")


def test_a_type_that_is_no_structure(face: Any, server: LiveServer) -> None:
    server.pvs["bare"] = Value("double", 2.5)
    assert face.get("bare", nt=False)[""] == 2.5
    face.put("bare", 3.5)
    assert server.pvs["bare"][""] == 3.5


def test_put_get_process_info(face: Any, server: LiveServer) -> None:
    assert face.put_get("x", 12.5) == 12.5
    face.process("y")
    assert server.puts == [("y", "process")]
    assert face.info("x") == NT_DOUBLE
    assert face.info("x", "alarm") == pvafast.alarm_t
    assert face.info("x", "value") == FieldDesc.of("double")


def test_rpc(face: Any, server: LiveServer) -> None:
    argument = Value("struct{int32 a}", {"a": 3})
    assert face.rpc("x", argument) == argument
    uri = face.rpc("x", a=1, b="two", c=[1.0, 2.0])
    assert isinstance(uri, normative.URI)
    assert uri.path == "x"
    assert uri.query["a"] == 1
    assert uri.query["b"] == "two"
    assert uri.query["c"].tolist() == [1.0, 2.0]
    assert face.rpc("x", {"name": 1}).query == {"name": 1}
    assert face.rpc("x") is None
    assert face.rpc("x", AnyValue("int32", 5)) == 5
    assert face.rpc("x", AnyValue("int32", 5), nt=False) == AnyValue("int32", 5)
    with pytest.raises(TypeError):
        face.rpc("x", 5)
    with pytest.raises(TypeError):
        face.rpc("x", argument, a=1)


def test_arrays(face: Any, server: LiveServer) -> None:
    held = np.arange(10.0)

    def handle(peer: Any, event: Any) -> bool:
        nonlocal held
        if not isinstance(event, OperationRequest):
            return False
        m = event.message
        match m:
            case messages.ArrayGet():
                end = None if not m.count else m.offset + m.count * m.stride
                part = AnyValue("double[]", held[m.offset : end : m.stride])
                peer.send(messages.ArrayGetReply(ioid=m.ioid, value=part))
            case messages.ArrayPut():
                held = held.copy()
                held[m.offset :: m.stride][: len(m.value.value)] = m.value.value
                peer.send(messages.ArrayPutReply(ioid=m.ioid))
            case messages.ArrayGetLength():
                peer.send(messages.ArrayGetLengthReply(ioid=m.ioid, length=len(held)))
            case messages.ArraySetLength():
                held = np.resize(held, m.length)
                peer.send(messages.ArraySetLengthReply(ioid=m.ioid))
            case _:
                return False
        return True

    server.pvs["a"] = normative.NTScalarArray("double").wrap(held)
    server.handle = handle
    assert face.array_get("a").tolist() == list(range(10))
    assert face.array_get("a", 2, 3, 2).tolist() == [2, 4, 6]
    face.array_put("a", [-1.0, -2.0], 5)
    assert face.array_get("a", 4, 4).tolist() == [4, -1, -2, 7]
    face.array_set_length("a", 3)
    assert face.array_length("a") == 3
    assert len(server.asked(messages.ArrayInit)) == 1


def test_what_servers_say_of_themselves(face: Any, server: LiveServer) -> None:
    def handle(peer: Any, event: Any) -> bool:
        if isinstance(event, OperationRequest) and isinstance(event.message, messages.Rpc):
            op = event.message.value["query.op"]
            if op == "channels":
                value = normative.NTScalarArray("string").wrap(["x", "y"])
            else:
                value = Value("struct{string implLang, string version}", {"implLang": "py", "version": "1"})
            peer.send(messages.RpcReply(ioid=event.message.ioid, value=value))
            return True
        return False

    server.handle = handle
    assert face.list_pvs(server.address) == ["x", "y"]
    assert face.list_pvs(("127.0.0.1", server.port)) == ["x", "y"]
    assert face.server_info(server.address)["version"] == "1"
    assert server.connections == 1


# -- errors


def test_errors_of_the_server(face: Any, server: LiveServer) -> None:
    def handle(peer: Any, event: Any) -> bool:
        if isinstance(event, OperationRequest):
            m = event.message
            if isinstance(m, messages.PutInit):
                peer.send(
                    messages.PutInitReply(ioid=m.ioid, status=Status(StatusType.FATAL, "never", "at 3"))
                )
                return True
            if isinstance(m, messages.Get):
                peer.send(messages.GetReply(ioid=m.ioid, status=Status(StatusType.ERROR, "not now")))
                return True
        return False

    server.handle = handle
    with pytest.raises(RemoteError, match="FATAL: never") as error:
        face.put("x", 1.0)
    assert error.value.stack == "at 3"
    for _ in range(2):
        with pytest.raises(RemoteError, match="ERROR: not now"):
            face.get("x")
    server.handle = lambda peer, event: False
    assert face.get("x") == 1.5


def test_refused_channels(face: Any, server: LiveServer) -> None:
    with pytest.raises(RemoteError, match="no such PV"):
        face.get("nope")
    server.pvs["nope"] = nt_double(1.0)
    assert face.get("nope") == 1.0
    with pytest.raises(ValueError, match="name"):
        face.get("")


def test_no_answer(face: Any, server: LiveServer) -> None:
    server.handle = lambda peer, event: isinstance(event, OperationRequest)
    for call, name in (
        (lambda: face.get("x", timeout=0.1), "get"),
        (lambda: face.info("x", timeout=0.1), "info"),
        (lambda: face.rpc("x", timeout=0.1, a=1), "rpc"),
        (lambda: face.get(["x", "y"], timeout=0.1), "get"),
    ):
        with pytest.raises(OperationTimeout) as error:
            call()
        assert isinstance(error.value, TimeoutError)
        assert (error.value.operation, error.value.state) == (name, "waiting")
        assert str(error.value) == (
            f"{name} of 'x': {server.address} is connected, but does not answer within 0.1 s"
        )
    # The server is told to forget what nobody waits for.
    assert until(lambda: len(server.asked(messages.DestroyRequest)) == 5)


def test_no_answer_to_the_name(face: Any, server: LiveServer) -> None:
    server.handle = lambda peer, event: isinstance(event, ChannelRequested)
    with pytest.raises(OperationTimeout, match="does not answer to the channel's name") as error:
        face.get("x", timeout=0.1)
    assert error.value.state == "opening"


def test_no_handshake(face: Any, server: LiveServer) -> None:
    server.handle = lambda peer, event: isinstance(event, Credentials)
    with pytest.raises(OperationTimeout, match="no connection to") as error:
        face.get("x", timeout=0.1)
    assert error.value.state == "connecting"


def test_no_server(kind: Any) -> None:
    with LiveServer({}) as server:
        pass
    face = kind(server=server.address)
    with pytest.raises(OperationTimeout, match="Connection refused") as error:
        face.get("x", timeout=0.2)
    assert error.value.state == "connecting"
    face.end()


def test_a_server_that_comes_later(kind: Any, server: LiveServer) -> None:
    with LiveServer({}) as gone:
        pass
    face = kind(server=gone.address)
    threading.Timer(0.3, lambda: late.append(LiveServer({"x": nt_double(4.0)}, port=gone.port))).start()
    late: list[LiveServer] = []
    assert face.get("x", timeout=10) == 4.0
    face.end()
    late[0].close()


def test_a_refused_client(face: Any, server: LiveServer) -> None:
    def handle(peer: Any, event: Any) -> bool:
        if isinstance(event, Credentials):
            peer.send(messages.ConnectionValidated(status=Status(StatusType.ERROR, "who are you")))
            return True
        return False

    server.handle = handle
    with pytest.raises(OperationTimeout, match="who are you"):
        face.get("x", timeout=0.3)


def test_who_one_is(kind: Any, server: LiveServer) -> None:
    face = kind(server=server.address, user="me", host="here")
    face.get("x")
    offers = [e for e in server.events if isinstance(e, Credentials)]
    assert (offers[0].method, offers[0].user, offers[0].host) == ("ca", "me", "here")
    face.end()


def test_closed(kind: Any, server: LiveServer) -> None:
    face = kind(server=server.address)
    face.get("x")
    face.end()
    assert until(lambda: not server.peers)
    if kind is Sync:
        with pytest.raises(ClientClosed):
            face.get("x")


def test_connect_and_channels(face: Any, server: LiveServer) -> None:
    face.connect(["x", "y"])
    assert [(c.name, c.state, c.server) for c in face.channels()] == [
        ("x", "open", server.address),
        ("y", "open", server.address),
    ]


# -- connections that are lost


def test_get_is_asked_again_when_the_connection_was_lost(face: Any, server: LiveServer) -> None:
    dropped = []

    def handle(peer: Any, event: Any) -> bool:
        if isinstance(event, OperationRequest) and isinstance(event.message, messages.Get) and not dropped:
            dropped.append(peer)
            peer.close()
            return True
        return False

    server.handle = handle
    assert face.get("x") == 1.5
    assert server.connections == 2


@pytest.mark.parametrize("what", ["put", "rpc", "process"])
def test_what_may_have_been_done_is_not_asked_again(face: Any, server: LiveServer, what: str) -> None:
    def handle(peer: Any, event: Any) -> bool:
        if isinstance(event, OperationRequest) and isinstance(
            event.message, messages.Put | messages.Rpc | messages.Process
        ):
            peer.close()
            return True
        return False

    server.handle = handle
    with pytest.raises(Disconnected) as error:
        {
            "put": lambda: face.put("x", 1.0),
            "rpc": lambda: face.rpc("x", a=1),
            "process": lambda: face.process("x"),
        }[what]()
    assert error.value.name == "x"
    assert isinstance(error.value, ConnectionError)
    server.handle = lambda peer, event: False
    assert face.get("x") == 1.5


def test_a_malformed_server(face: Any, server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    with LiveServer({"x": nt_double(9.0)}) as other:
        healthy = type(face)(server=other.address)
        assert healthy.get("x") == 9.0
        broken = []

        def handle(peer: Any, event: Any) -> bool:
            if isinstance(event, OperationRequest) and not broken:
                broken.append(event)
                peer.raw(
                    b"\xca\x02\x40\x0a\x06\0\0\0" + event.message.ioid.to_bytes(4, "little") + b"\x08\x07"
                )
                return True
            return False

        server.handle = handle
        with caplog.at_level(logging.WARNING):
            assert face.get("x") == 1.5  # on the next connection
        assert server.connections == 2
        assert "breaks the protocol" in caplog.text
        assert server.address in caplog.text
        assert healthy.get("x") == 9.0
        assert other.connections == 1
        healthy.end()


def test_a_server_that_is_killed_in_the_middle_of_a_message(
    face: Any, server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = face.monitor("x", events=True)
    assert isinstance(subscription.next(5), client.Connected)
    assert until(lambda: server.monitors("x"))
    server.peers[0].raw(b"\xca\x02\x40\x0d\xff\0\0\0abc")
    server.drop()
    assert subscription.next(5).value == 1.5
    lost = subscription.next(5)
    assert "closed the connection: message of 255 bytes expected, 3 before the end" in lost.reason
    assert isinstance(subscription.next(5), client.Connected)
    assert "breaks the protocol" not in caplog.text


def test_garbage_does_not_make_a_busy_loop(kind: Any) -> None:
    with LiveServer({"x": nt_double(1.0)}) as server:
        server.handle = lambda peer, event: peer.raw(b"garbage!") or True
        face = kind(server=server.address)
        with pytest.raises(OperationTimeout, match="magic"):
            face.get("x", timeout=1.0)
        # At once, and after 0.05, 0.1, 0.2, 0.4 s and the time that each takes.
        assert 3 <= server.connections <= 5
        face.end()


# -- subscriptions


def test_monitor(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x", "field(value)")
    first = subscription.next(5)
    assert (first.value, first.name, first.dropped) == (1.5, "x", 0)
    assert abs(first.received - time.time_ns()) < 60e9
    server.post("x", Value(NT_DOUBLE, {"value": 2.0}), Value(NT_DOUBLE, {"alarm.severity": 1}))
    second, third = subscription.next(5), subscription.next(5)
    assert (second.value, second.value.severity, second.changed_names()) == (2.0, 0, ["value"])
    assert (third.value, third.value.severity, third.changed_names()) == (2.0, 1, ["alarm.severity"])
    assert isinstance(third.value, normative.Float)
    assert isinstance(third.raw, Value)
    assert third.type == NT_DOUBLE == subscription.type
    assert (subscription.received, subscription.dropped, subscription.overruns) == (3, 0, 0)
    with pytest.raises(TimeoutError):
        subscription.next(0.05)
    subscription.close()
    with pytest.raises(StopIteration):
        subscription.next(5)
    assert until(lambda: server.asked(messages.DestroyRequest))
    assert pvafast.request.format(server.asked(messages.MonitorInit)[0].request) == "field(value)"


def test_what_the_program_changes_is_not_in_the_next_update(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x", nt=False)
    first = subscription.next(5).raw
    first["value"] = 77.0
    first.alarm.message = "mine"
    server.post("x", Value(NT_DOUBLE, {"alarm.severity": 1}))
    second = subscription.next(5).raw
    assert (second["value"], second["alarm.message"], second["alarm.severity"]) == (1.5, "", 1)
    assert (first["value"], first["alarm.severity"]) == (77.0, 0)


def test_what_the_program_changes_is_not_in_the_next_answer(face: Any, server: LiveServer) -> None:
    """As servers of pvapy do: only what changed since the last answer."""

    def answer(value: Value) -> None:
        def handle(peer: Any, event: Any) -> bool:
            if not (isinstance(event, OperationRequest) and isinstance(event.message, messages.Get)):
                return False
            peer.send(messages.GetReply(ioid=event.message.ioid, value=value))
            return True

        server.handle = handle

    answer(Value(NT_DOUBLE, {"value": 1.0, "alarm.message": "theirs"}))
    first = face.get("x", nt=False)
    first["value"] = 77.0
    answer(Value(NT_DOUBLE, {"alarm.severity": 1}))
    second = face.get("x", nt=False)
    assert (second["value"], second["alarm.message"], second["alarm.severity"]) == (1.0, "theirs", 1)
    second["alarm.message"] = "mine"
    third = face.get("x", nt=False)
    assert (third["value"], third["alarm.message"], third["alarm.severity"]) == (1.0, "theirs", 1)


def test_monitor_of_raw_values(face: Any, server: LiveServer) -> None:
    reading = face.monitor("x", nt=False).next(5)
    assert reading.value is reading.raw


def test_overruns_of_the_server(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x")
    subscription.next(5)
    server.post("x", Value(NT_DOUBLE, {"value": 2.0}), overrun=BitSet([1]))
    reading = subscription.next(5)
    assert list(reading.overrun) == [1]
    assert subscription.overruns == 1


def test_a_full_queue_merges_and_counts(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x", queue_size=2)
    assert subscription.next(5).value == 1.5
    server.post(
        "x",
        *(Value(NT_DOUBLE, {"value": float(i)}) for i in range(10, 15)),
        Value(NT_DOUBLE, {"alarm.severity": 2}),
    )
    assert until(lambda: subscription.received == 7)
    first, second = subscription.next(5), subscription.next(5)
    assert (first.value, first.dropped, list(first.overrun)) == (10.0, 0, [])
    assert (second.value, second.value.severity, second.dropped) == (14.0, 2, 4)
    # What came more than once is an overrun; what came in any of them has changed.
    assert list(second.overrun) == [1]
    assert second.changed_names() == ["value", "alarm.severity"]
    assert subscription.dropped == 4
    assert subscription.waiting == 0
    assert "queueSize=2" in pvafast.request.format(server.asked(messages.MonitorInit)[0].request)


def test_merging_over_a_whole_value(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x", queue_size=1)
    assert until(lambda: server.monitors("x"))
    server.post("x", Value(NT_DOUBLE, {"value": 2.0}))
    assert until(lambda: subscription.received == 2)
    reading = subscription.next(5)
    # The first had the bit of the root, which stands for `value`, too.
    assert (reading.value, reading.dropped, list(reading.overrun)) == (2.0, 1, [1])
    assert 0 in reading.changed


def test_pipeline(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x", pipeline=True, queue_size=4)
    assert until(lambda: server.monitors("x"))
    init = server.asked(messages.MonitorInit)[0]
    assert init.nfree == 4
    assert pvafast.request.format(init.request) == "field()record[pipeline=true,queueSize=4]"
    peer, ioid = server.monitors("x")[0]
    assert until(lambda: peer.conn.operations[ioid].window == 3)
    server.post("x", *(Value(NT_DOUBLE, {"value": float(i)}) for i in range(3)))
    assert not peer.conn.may_send(ioid)
    time.sleep(0.1)
    assert server.asked(messages.MonitorAck) == []  # nothing was taken yet
    assert [subscription.next(5).value for _ in range(2)] == [1.5, 0.0]
    assert until(lambda: [m.nfree for m in server.asked(messages.MonitorAck)] == [2])
    assert [subscription.next(5).value for _ in range(2)] == [1.0, 2.0]
    assert until(lambda: [m.nfree for m in server.asked(messages.MonitorAck)] == [2, 2])
    assert subscription.dropped == 0


def test_ack_any(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x", pipeline=True, queue_size=4, ack_any=1)
    subscription.next(5)
    assert until(lambda: [m.nfree for m in server.asked(messages.MonitorAck)] == [1])
    assert "ackAny=1" in pvafast.request.format(server.asked(messages.MonitorInit)[0].request)


def test_pause_and_resume(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x")
    subscription.next(5)
    subscription.pause()
    assert until(lambda: server.asked(messages.MonitorStop) and not server.monitors("x"))
    server.pvs["x"]["value"] = 3.5
    subscription.resume()
    assert subscription.next(5).value == 3.5


def test_a_callback(face: Any, server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    got: list[Any] = []

    def callback(item: Any) -> None:
        got.append(item)
        if len(got) == 2:
            raise ZeroDivisionError("mine")

    subscription = face.monitor("x", callback=callback, events=True)
    assert until(lambda: server.monitors("x"))
    server.post("x", Value(NT_DOUBLE, {"value": 2.0}), Value(NT_DOUBLE, {"value": 3.0}))
    assert until(lambda: len(got) == 4)
    assert isinstance(got[0], client.Connected)
    assert [item.value for item in got[1:]] == [1.5, 2.0, 3.0]
    # The connection lives on; the error is in the log.
    assert "mine" in caplog.text
    assert "'x'" in caplog.text
    assert face.get("x") == 1.5
    assert server.connections == 1
    assert subscription.waiting == 0


def test_disconnect_reconnect_and_another_type(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x", events=True)
    quiet = face.monitor("x")
    connected = subscription.next(5)
    assert connected == client.Connected(name="x", server=server.address, type=NT_DOUBLE)
    assert subscription.next(5).value == 1.5
    assert quiet.next(5).value == 1.5
    server.pvs["x"] = Value(NT_LONG, {"value": 7})
    server.drop()
    lost = subscription.next(5)
    assert isinstance(lost, client.Disconnected)
    assert lost.name == "x"
    assert "closed the connection" in lost.reason
    assert subscription.next(5) == client.Connected(name="x", server=server.address, type=NT_LONG)
    assert subscription.next(5) == client.TypeChanged(name="x", old=NT_DOUBLE, new=NT_LONG)
    reading = subscription.next(5)
    assert (reading.value, type(reading.value)) == (7, normative.Int)
    assert quiet.next(5).value == 7


def test_a_channel_closed_by_the_server(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x", events=True)
    assert isinstance(subscription.next(5), client.Connected)
    subscription.next(5)
    peer = server.peers[0]
    held = server.pvs.pop("x")
    channel = next(iter(peer.conn.channels.values()))
    peer.send(messages.DestroyChannel(sid=channel.sid, cid=channel.cid))
    assert isinstance(subscription.next(5), client.Disconnected)
    server.pvs["x"] = held
    assert isinstance(subscription.next(20), client.Connected)
    assert subscription.next(5).value == 1.5


def test_the_end_of_a_subscription(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x", events=True)
    assert until(lambda: server.monitors("x"))
    peer, ioid = server.monitors("x")[0]
    peer.send(messages.MonitorFinal(ioid=ioid, value=Value(NT_DOUBLE, {"value": 99.0})))
    assert isinstance(subscription.next(5), client.Connected)
    assert [subscription.next(5).value for _ in range(2)] == [1.5, 99.0]
    assert subscription.next(5) == client.Finished(name="x")
    with pytest.raises(StopIteration):
        subscription.next(5)


@pytest.mark.parametrize("where", ["init", "start", "final"])
def test_a_subscription_that_fails(face: Any, server: LiveServer, where: str) -> None:
    status = Status(StatusType.ERROR, "no more", "deep")

    def handle(peer: Any, event: Any) -> bool:
        if not isinstance(event, OperationRequest):
            return False
        ioid = event.message.ioid
        match event.message:
            case messages.MonitorInit() if where == "init":
                peer.send(messages.MonitorInitReply(ioid=ioid, status=status))
                return True
            case messages.MonitorStart() if where == "start":
                # As pvAccessCPP does it: the sub byte of the request, and a status (WIRE 9).
                peer.send(messages.MonitorError(ioid=ioid, status=status))
                return True
            case messages.MonitorStart():
                peer.send(messages.MonitorFinal(ioid=ioid, status=status))
                return True
        return False

    server.handle = handle
    subscription = face.monitor("x")
    with pytest.raises(RemoteError, match="no more") as error:
        subscription.next(5)
    assert error.value.stack == "deep"
    with pytest.raises(StopIteration):
        subscription.next(5)
    server.handle = lambda peer, event: False
    assert face.get("x") == 1.5


def test_who_forgets_a_subscription_closes_it(face: Any, server: LiveServer) -> None:
    got: list[Any] = []
    face.monitor("y", callback=got.append)  # a callback keeps it
    subscription = face.monitor("x")
    assert subscription.next(5).value == 1.5
    del subscription
    gc.collect()
    assert until(lambda: not server.monitors("x"))
    assert until(lambda: server.monitors("y"))
    server.post("y", Value(NT_DOUBLE, {"value": 3.0}))
    assert until(lambda: [reading.value for reading in got] == [2.5, 3.0])


def test_what_subscriptions_are_not_asked_for(face: Any) -> None:
    with pytest.raises(ValueError, match="queue"):
        face.monitor("x", queue_size=0)
    with pytest.raises(EncodeError):
        face.monitor("x", "field(")


def test_messages_of_the_server(face: Any, server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    face.get("x")
    with caplog.at_level(logging.INFO):
        server.peers[0].send(
            messages.RemoteMessage(ioid=1, severity=messages.Severity.WARNING, text="too hot")
        )
        assert until(lambda: f"{server.address} says: too hot" in caplog.text)
    assert [r.levelno for r in caplog.records if "too hot" in r.message] == [logging.WARNING]


# -- Columns and frames


def test_columns(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x", columns=["value", "alarm.severity"])
    assert until(lambda: server.monitors("x"))
    server.post(
        "x",
        Value(NT_DOUBLE, {"value": 2.0}),
        Value(NT_DOUBLE, {"alarm.severity": 1}),
        Value(NT_DOUBLE, {"value": 3.0, "timeStamp.secondsPastEpoch": 5, "timeStamp.nanoseconds": 7}),
    )
    assert until(lambda: subscription.received == 4)
    batch = subscription.next(5)
    assert isinstance(batch, pvafast.Columns)
    assert batch["value"].tolist() == [1.5, 2.0, 2.0, 3.0]
    assert batch["alarm.severity"].tolist() == [0, 0, 1, 1]
    assert batch.changed("value").tolist() == [True, True, False, True]
    assert batch.time.tolist() == [0, 0, 0, 5_000_000_007]
    assert np.abs(batch.received - time.time_ns()).max() < 60e9
    # The next batch takes over what the last row had; what was handed out stays as it is.
    server.post("x", Value(NT_DOUBLE, {"alarm.severity": 2}))
    following = subscription.next(5)
    assert (following["value"].tolist(), following["alarm.severity"].tolist()) == ([3.0], [2])
    assert batch["value"].tolist() == [1.5, 2.0, 2.0, 3.0]
    assert subscription.dropped == 0


def test_columns_over_a_reconnect_with_another_type(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x", columns=["value"], events=True)
    assert isinstance(subscription.next(5), client.Connected)
    assert until(lambda: subscription.received == 1)
    server.pvs["x"] = Value(NT_LONG, {"value": 7})
    server.drop()
    assert until(lambda: subscription.received == 2)
    batch = subscription.next(5)
    assert (batch["value"].tolist(), batch.type) == ([1.5], NT_DOUBLE)
    kinds = [type(subscription.next(5)) for _ in range(3)]
    assert kinds == [client.Disconnected, client.Connected, client.TypeChanged]
    batch = subscription.next(5)
    assert (batch["value"].tolist(), batch["value"].dtype, batch.type) == ([7], np.int64, NT_LONG)


def test_columns_that_nobody_takes(face: Any, server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    subscription = face.monitor("x", columns=[], queue_size=3)
    assert until(lambda: server.monitors("x"))
    for i in range(2, 7):
        server.post("x", Value(NT_DOUBLE, {"value": float(i)}))
        assert until(lambda n=i: subscription.received == n)
    batch = subscription.next(5)
    # 1.5, 2, 3 and 4 were more than three: they went. Then came 5 and 6.
    assert batch["value"].tolist() == [5.0, 6.0]
    assert subscription.dropped == 4
    assert "rows are dropped" in caplog.text
    assert batch.fields == tuple(name for name in NT_DOUBLE.names if not NT_DOUBLE[name].is_structure)


def test_columns_to_a_callback_and_pipelined(face: Any, server: LiveServer) -> None:
    got: list[Any] = []
    face.monitor("x", columns=["value"], callback=got.append, pipeline=True, queue_size=4)
    assert until(lambda: server.monitors("x"))
    peer, ioid = server.monitors("x")[0]
    for i in range(20):
        assert until(lambda: peer.conn.may_send(ioid))
        server.post("x", Value(NT_DOUBLE, {"value": float(i)}))
    assert until(lambda: sum(map(len, got)) == 21)
    assert np.concatenate([batch["value"] for batch in got]).tolist() == [1.5, *range(20)]


def test_columns_that_are_not_there(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x", columns=["value", "nope"])
    with pytest.raises(EncodeError, match="'nope'"):
        subscription.next(5)
    with pytest.raises(TypeError):
        face.monitor("x", columns="value")


def test_the_last_rows(face: Any, server: LiveServer) -> None:
    subscription = face.monitor("x", columns=["value"])
    assert until(lambda: server.monitors("x"))
    peer, ioid = server.monitors("x")[0]
    peer.send(messages.MonitorFinal(ioid=ioid, value=Value(NT_DOUBLE, {"value": 99.0})))
    rows: list[float] = []
    with pytest.raises(StopIteration):  # noqa: PT012
        while True:
            rows += subscription.next(5)["value"].tolist()
    assert rows == [1.5, 99.0]


def frame(number: int, side: int = 200, codec: str = "") -> Value:
    return ndarray.NTNDArray().wrap(np.full((side, side), number, np.uint16), unique_id=number, codec=codec)


@pytest.mark.parametrize("codec", ["", "zlib"])
def test_frames_in_a_pool(face: Any, server: LiveServer, codec: str) -> None:
    server.pvs["image"] = frame(1, codec=codec)
    with ndarray.FramePool(3, 200 * 200 * 2) as pool:
        subscription = face.monitor("image", pool=pool)
        first = subscription.next(5)
        assert isinstance(first.value, ndarray.Frame)
        assert (first.value.unique_id, first.value.data.shape) == (1, (200, 200))
        assert first.value.data.ctypes.data % 64 == 0
        assert pool.statistics.in_use == 1
        server.post("image", frame(2, codec=codec), frame(3, codec=codec), frame(4, codec=codec))
        assert until(lambda: subscription.received == 4)
        held = [subscription.next(5).value, subscription.next(5).value]
        assert [int(one.data[0, 0]) for one in held] == [2, 3]
        # There is no fourth buffer.
        assert (subscription.dropped, pool.statistics.dropped) == (1, 1)
        with pytest.raises(TimeoutError):
            subscription.next(0.05)
        held.clear()
        server.post("image", frame(5, codec=codec))
        assert subscription.next(5).value.data[0, 0] == 5
        assert first.value.data[0, 0] == 1


@pytest.mark.parametrize("how", ["in a message", "between two", "unsubscribed"])
def test_a_pool_gets_back_what_has_ended(face: Any, server: LiveServer, how: str) -> None:
    """A lost connection, or a subscription that is closed, keeps no buffer: not even until the garbage collector comes."""
    server.pvs["image"] = frame(1)
    with ndarray.FramePool(4, 200 * 200 * 2) as pool:
        gc.collect()
        gc.disable()
        try:
            subscription = face.monitor("image", pool=pool, events=True)
            connected, reading = subscription.next(5), subscription.next(5)
            assert (type(connected), reading.value.unique_id) == (client.Connected, 1)
            reading = None
            assert pool.statistics.in_use == 1  # what the next update is laid over
            if how == "unsubscribed":
                subscription.close()
            else:
                peer, ioid = server.monitors("image")[0]
                if how == "in a message":
                    update = peer.conn.send(messages.MonitorUpdate(ioid=ioid, value=frame(2)))
                    peer.raw(b"".join(map(bytes, update))[:50_000])
                    assert until(lambda: pool.statistics.in_use == 2)
                del server.pvs["image"]
                server.drop()
                assert isinstance(subscription.next(5), client.Disconnected)
            assert until(lambda: pool.statistics.in_use == 0)
        finally:
            gc.enable()


def test_what_pools_are_not_for(face: Any, server: LiveServer) -> None:
    with ndarray.FramePool(2, 1000) as pool:
        with pytest.raises(ValueError, match="columns"):
            face.monitor("x", pool=pool, columns=["value"])
        # What is no frame comes as it is.
        assert face.monitor("x", pool=pool).next(5).value == 1.5
    with ndarray.FramePool(2, 1000, on_full="block") as pool, pytest.raises(ValueError, match="block"):
        face.monitor("x", pool=pool)


# -- what cannot be sent, and hostile servers


def test_names_that_cannot_be(face: Any, server: LiveServer) -> None:
    with pytest.raises(EncodeError, match="no name of a channel"):
        face.get("bad\ud800")
    assert face.get("x") == 1.5
    assert server.connections == 1


def test_more_than_the_limits_allow(kind: Any, server: LiveServer) -> None:
    face = kind(server=server.address, timeout=10, limits=pvafast.Limits(operations=2, channels=2))
    server.pvs["z"] = nt_double(3.5)
    first, second = face.monitor("x"), face.monitor("x")
    assert [first.next(5).value, second.next(5).value] == [1.5, 1.5]
    with pytest.raises(LocalProtocolError, match=r"Limits\.operations"):
        face.get("x")
    with pytest.raises(LocalProtocolError, match=r"Limits\.operations"):
        face.monitor("x").next(5)
    first.close()
    assert face.get("y", "field(value)") == 2.5
    with pytest.raises(LocalProtocolError, match=r"Limits\.channels"):
        face.get("z")
    assert server.connections == 1
    face.end()


def test_a_server_beyond_the_limits(kind: Any, server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    server.pvs["s"] = normative.NTScalar("string").wrap("long" * 100)
    face = kind(server=server.address, limits=pvafast.Limits(string=200))
    with pytest.raises(OperationTimeout, match=r"400.*Limits\.string"):
        face.get("s", timeout=0.4)
    assert face.get("x") == 1.5
    face.end()

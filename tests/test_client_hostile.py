"""Servers that send anything: one conversation, damaged in many ways, without sockets. Nothing but ProtocolError may come of it."""

from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import pytest

from livepeer import LiveServer, Peer, nt_double, whole
from pvafast import ProtocolError, PvaError, Value, messages, ndarray, normative
from pvafast.client import link as link_module
from pvafast.client.engine import Engine, prepared
from pvafast.client.operations import Get, Info, Put, Rpc
from pvafast.client.subscription import Options, Subscription
from pvafast.network.config import ClientConfig
from pvafast.network.loop import SelectLoop

PVS = {
    "x": nt_double(1.5),
    "image": ndarray.NTNDArray().wrap(np.arange(12, dtype=np.uint8).reshape(3, 4), attributes={"a": 1}),
    "table": normative.NTTable({"a": "double", "b": "string"}).wrap({"a": [1.0], "b": ["x"]}),
}


class Wire:
    """In place of a Stream: what is sent is kept."""

    last: Wire

    def __init__(self, loop: Any, sock: Any, connection: Any, *, received: Any, closed: Any) -> None:
        self.connection = connection
        self.received = received
        self.closed = closed
        self.sent = b""
        self.last_received = 0.0
        self.is_closed = False
        Wire.last = self

    def send(self, message: Any) -> None:
        if not self.is_closed:
            self.write(self.connection.send(message))

    def write(self, buffers: Any) -> None:
        if not self.is_closed:
            self.sent += b"".join(map(bytes, [*self.connection.data_to_send(), *buffers]))

    def close(self, error: Exception | None = None) -> None:
        self.is_closed = True

    def feed(self, data: bytes) -> None:
        """As a Stream does it."""
        self.connection.receive_data(data, 1)
        self.received(self.connection.events())
        self.write(())


class Never:
    """In place of Connecting: the test says when."""

    def __init__(self, loop: Any, address: Any, done: Any, **options: Any) -> None:
        self.done = done

    def cancel(self) -> None:
        pass


class Collector:
    """In place of a socket: what the server sends."""

    def __init__(self) -> None:
        self.data = b""

    def setsockopt(self, *ignored: Any) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        self.data += data

    def take(self) -> bytes:
        data, self.data = self.data, b""
        return data


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "Stream", Wire)
    monkeypatch.setattr(link_module, "Connecting", Never)
    monkeypatch.setattr(SelectLoop, "call_later", lambda self, delay, callback, *args: NO_CALL)


class NoCall:
    def cancel(self) -> None:
        pass


NO_CALL = NoCall()


class Conversation:
    """A client that does some of everything, and its server."""

    def __init__(self) -> None:
        self.loop = SelectLoop()
        self.engine = Engine(self.loop, ClientConfig(), server=("192.0.2.1", 5075))
        self.server = LiveServer.__new__(LiveServer)
        self.server.pvs = {name: value.copy() for name, value in PVS.items()}
        self.server.events, self.server.puts, self.server.peers = [], [], []
        self.server.handle = lambda peer, event: False
        self.sock = Collector()
        self.peer = Peer(self.server, self.sock)  # type: ignore[arg-type]
        self.ended: list[Any] = []
        channel = self.engine.channel
        key = prepared("")
        for operation in (
            Get(channel("x"), *key),
            Get(channel("image"), *key),
            Put(channel("x"), *key, 4.0, True),
            Rpc(channel("x"), *key, Value("struct{int32 a}", {"a": 1})),
            Info(channel("table"), ""),
        ):
            operation.done = self.ended.append
            self.engine.run(operation, None)
        self.subscriptions = [
            Subscription(channel("x"), "", Options(events=True)),
            Subscription(channel("x"), "", Options(columns=("value",))),
            Subscription(channel("image"), "", Options(pipeline=True, queue_size=4)),
            Subscription(channel("table"), "", Options(callback=self.ended.append)),
        ]
        link = next(iter(self.engine._links.values()))
        link._connected(self.sock)  # type: ignore[arg-type]
        self.wire = Wire.last
        self.posts = 3

    def from_server(self) -> bytes:
        """What the server sends to what the client has sent; updates when nothing else is left."""
        sent, self.wire.sent = self.wire.sent, b""
        if sent:
            self.peer.conn.receive_data(sent)
            for event in self.peer.conn.events():
                self.peer.usual(event)
        self.peer.flush()
        data = self.sock.take()
        if not data and self.posts:
            self.posts -= 1
            for ioid, operation in list(self.peer.conn.operations.items()):
                if operation.started and self.peer.conn.may_send(ioid):
                    value = whole(self.server.pvs[operation.channel.name])
                    self.peer.send(messages.MonitorUpdate(ioid=ioid, value=value))
            data = self.sock.take()
        return data

    def close(self) -> None:
        self.engine.close()
        self.loop.close()


def test_undamaged(wired: None) -> None:
    conversation = Conversation()
    while data := conversation.from_server():
        conversation.wire.feed(data)
    assert [one.error for one in conversation.ended if hasattr(one, "error")] == [None] * 5
    assert [one.received for one in conversation.subscriptions] == [4] * 4
    conversation.close()


def damage(data: bytes, random: random.Random) -> bytes:
    """Bytes changed, cut out, put in, or a piece twice."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 3))):
        at = random.randrange(len(changed))
        match random.randrange(6):
            case 0 | 1 | 2:
                changed[at] = random.choice((0, 1, 0x80, 0xFF, 0xFE, random.randrange(256)))
            case 3:
                del changed[at : at + random.choice((1, 4, 8, 20))]
            case 4:
                changed[at:at] = random.randbytes(random.choice((1, 4, 8)))
            case 5:
                changed[at:at] = changed[at : at + random.choice((8, 20, 100))]
        if not changed:
            return b""
    return bytes(changed)


@pytest.mark.parametrize("seed", range(40))
def test_damaged(wired: None, caplog: pytest.LogCaptureFixture, seed: int) -> None:
    caplog.set_level(logging.CRITICAL)
    source = random.Random(seed)
    for _ in range(15):
        conversation = Conversation()
        step = 0
        when = source.randrange(9)
        while data := conversation.from_server():
            if step >= when:
                data = damage(data, source)
            step += 1
            try:
                conversation.wire.feed(data)
            except ProtocolError as error:
                conversation.wire.closed(error)
                break
            if step > 30:
                break
        # Whoever waits gets an end, or goes on waiting for the server to come back.
        conversation.close()
        for one in conversation.ended:
            if hasattr(one, "error"):
                assert one.error is None or isinstance(one.error, PvaError)
        for subscription in conversation.subscriptions:
            while subscription.waiting:
                subscription._take()

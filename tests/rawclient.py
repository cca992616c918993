"""A blocking client on a ClientConnection, for tests of servers: one step at a time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from pvafast import ClientConnection, Update, Value, messages, request
from pvafast.connection import (
    ChannelClosed,
    ChannelFailed,
    ChannelOpened,
    EchoReply,
    Greeted,
    OperationReply,
    Validated,
)


class RawClient:
    """Connected to a port of 127.0.0.1. `seen`: the events that nobody has asked for yet."""

    def __init__(
        self, port: int, *, validate: bool = True, rcvbuf: int | None = None, **options: Any
    ) -> None:
        deadline = time.monotonic() + 10
        while True:
            self.sock = socket.socket()
            self.sock.settimeout(10)
            if rcvbuf is not None:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            try:
                self.sock.connect(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                self.sock.close()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        self.conn = ClientConnection(**({"user": "tester", "host": "here"} | options))
        self.seen: list[Any] = []
        if validate:
            try:
                self.until(Greeted)
                self.until(Validated)
            except BaseException:
                self.sock.close()
                raise

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def until(self, *kinds: type, such: Callable[[Any], bool] = lambda event: True) -> Any:
        """The next event of a kind, those that came before first."""
        for event in self.seen:
            if isinstance(event, kinds) and such(event):
                self.seen.remove(event)
                return event
        while True:
            for event in self.conn.events():
                if isinstance(event, kinds) and such(event):
                    self.flush()
                    return event
                self.seen.append(event)
            self.flush()
            n = self.sock.recv_into(self.conn.get_buffer())
            if not n:
                raise ConnectionError("the server closed the connection")
            self.conn.buffer_updated(n)

    def nothing(self, seconds: float = 0.1) -> bool:
        """Nothing comes for a while, and nothing has come."""
        if self.seen or list(self.conn.events()):
            return False
        self.sock.settimeout(seconds)
        try:
            n = self.sock.recv_into(self.conn.get_buffer())
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(10)
        self.conn.buffer_updated(n)
        return False

    def flush(self) -> None:
        for buffer in self.conn.data_to_send():
            self.sock.sendall(buffer)

    def send(self, message: Any) -> None:
        for buffer in self.conn.send(message):
            self.sock.sendall(buffer)

    def open(self, name: str) -> int:
        """A channel; its sid."""
        cid = self.conn.new_cid()
        self.send(messages.CreateChannel(channels=((cid, name),)))
        event = self.until(ChannelOpened, ChannelFailed, such=lambda e: e.channel.cid == cid)
        if isinstance(event, ChannelFailed):
            raise ConnectionError(event.status.message)
        sid: int = event.channel.sid
        return sid

    def ask(self, message: Any) -> Any:
        """The reply to a message; RemoteError if that says so."""
        self.send(message)
        return self.reply(message.ioid)

    def reply(self, ioid: int) -> Any:
        """The next reply of an operation; RemoteError if that says so."""
        reply = self.until(OperationReply, such=lambda e: e.message.ioid == ioid).message
        reply.status.raise_for_status()
        return reply

    def begin(self, init: type, name: str, fields: str = "", **more: Any) -> tuple[int, int]:
        """(sid, ioid) of an operation, on a channel of its own."""
        sid, ioid = self.open(name), self.conn.new_ioid()
        self.ask(init(sid=sid, ioid=ioid, request=request.parse(fields), **more))
        return sid, ioid

    def get(self, name: str, fields: str = "") -> Value:
        sid, ioid = self.begin(messages.GetInit, name, fields)
        value: Value = self.ask(messages.Get(sid=sid, ioid=ioid, destroy=True)).value
        return value

    def put(self, name: str, fields: Any, wanted: str = "") -> None:
        sid, ioid = self.begin(messages.PutInit, name, wanted)
        type = self.conn.operations[ioid].type
        assert type is not None
        self.ask(messages.Put(sid=sid, ioid=ioid, value=Value(type, fields), destroy=True))

    def rpc(self, name: str, argument: Any = None) -> Any:
        sid, ioid = self.begin(messages.RpcInit, name)
        return self.ask(messages.Rpc(sid=sid, ioid=ioid, value=argument, destroy=True)).value

    def monitor(self, name: str, fields: str = "", nfree: int | None = None) -> tuple[int, int]:
        """(sid, ioid) of a started monitor."""
        sid, ioid = self.begin(messages.MonitorInit, name, fields, nfree=nfree)
        self.send(messages.MonitorStart(sid=sid, ioid=ioid))
        return sid, ioid

    def update(self, ioid: int | None = None) -> Update:
        """The next update."""
        found: Update = self.until(Update, such=lambda e: ioid in (None, e.operation.ioid))
        return found

    def acknowledged(self, ioid: int) -> Update:
        """The next update of a pipelined monitor, which may then send one more."""
        found = self.update(ioid)
        sid = self.conn.operations[ioid].channel.sid
        assert sid is not None
        self.send(messages.MonitorAck(sid=sid, ioid=ioid, nfree=1))
        return found

    def closed(self, sid: int) -> ChannelClosed:
        """That the server closes a channel."""
        found: ChannelClosed = self.until(ChannelClosed, such=lambda e: e.channel.sid == sid)
        return found

    def sync(self) -> None:
        """What was sent before has been handled by the server."""
        self.send(messages.Echo(payload=b"here"))
        self.until(EchoReply)

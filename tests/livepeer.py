"""A server for tests of the client: plain, blocking, a thread a connection, and it does what a test tells it to.

It stands on ServerConnection; a test changes its PVs, hears what clients asked, and takes over where it wants: `handle(peer, event)`
gets every event first, and returns True where the server is not to do the usual.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from pvafast import FieldDesc, PvaError, ServerConnection, Value, alarm_t, messages, time_t
from pvafast.connection import ChannelClosed, ChannelRequested, Credentials, OperationRequest
from pvafast.messages import Status, StatusType

NT_DOUBLE = FieldDesc.structure(
    "epics:nt/NTScalar:1.0", {"value": "double", "alarm": alarm_t, "timeStamp": time_t}
)
NT_LONG = FieldDesc.structure(
    "epics:nt/NTScalar:1.0", {"value": "int64", "alarm": alarm_t, "timeStamp": time_t}
)


def nt_double(x: float) -> Value:
    return Value(NT_DOUBLE, {"value": x})


def whole(value: Value) -> Value:
    """The value with everything marked."""
    made = value.copy()
    made.mark("")
    return made


class Peer:
    """One connection of the server."""

    def __init__(self, server: LiveServer, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.conn = ServerConnection()
        self.lock = threading.RLock()
        self.names: dict[int, str] = {}  # by sid
        self.user = ""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self) -> None:
        with contextlib.suppress(OSError, PvaError):
            self.flush()
            while data := self.sock.recv(65536):
                with self.lock:
                    self.conn.receive_data(data)
                    for event in self.conn.events():
                        self.server.events.append(event)
                        if not self.server.handle(self, event):
                            self.usual(event)
                    self.flush()
        self.close()

    def flush(self) -> None:
        self.raw(b"".join(map(bytes, self.conn.data_to_send())))

    def send(self, *sent: messages.PvaMessage, segment_size: int | None = None) -> None:
        with self.lock:
            out = list(self.conn.data_to_send())
            for message in sent:
                out += self.conn.send(message, segment_size=segment_size)
            self.raw(b"".join(map(bytes, out)))

    def raw(self, data: bytes) -> None:
        if data:
            self.sock.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        if self in self.server.peers:
            self.server.peers.remove(self)

    def usual(self, event: Any) -> None:
        server = self.server
        if isinstance(event, Credentials):
            self.user = event.user
            self.send(messages.ConnectionValidated(status=Status.OK))
        elif isinstance(event, ChannelRequested):
            sid = self.conn.new_sid()
            if event.name in server.pvs or event.name == "server":
                self.names[sid] = event.name
                self.send(messages.CreateChannelReply(cid=event.cid, sid=sid))
            else:
                status = Status(StatusType.ERROR, "no such PV", "here")
                self.send(messages.CreateChannelReply(cid=event.cid, sid=messages.NO_CHANNEL, status=status))
        elif isinstance(event, OperationRequest):
            self.answer(event.operation, event.message)
        elif isinstance(event, ChannelClosed):
            self.names.pop(event.channel.sid or 0, None)

    def answer(self, operation: Any, message: Any) -> None:
        server = self.server
        name = self.names[operation.channel.sid]
        value = server.pvs.get(name)
        ioid = message.ioid
        match message:
            case messages.GetInit():
                self.send(messages.GetInitReply(ioid=ioid, type=value.type))
            case messages.Get():
                self.send(messages.GetReply(ioid=ioid, value=whole(value), destroy=message.destroy))
            case messages.PutInit():
                self.send(messages.PutInitReply(ioid=ioid, type=value.type))
            case messages.PutGetBack():
                self.send(messages.PutGetBackReply(ioid=ioid, value=whole(value)))
            case messages.Put():
                value.overlay(message.value)
                server.puts.append((name, message.value))
                self.send(messages.PutReply(ioid=ioid, destroy=message.destroy))
            case messages.PutGetInit():
                self.send(messages.PutGetInitReply(ioid=ioid, put_type=value.type, get_type=value.type))
            case messages.PutGet():
                value.overlay(message.value)
                self.send(messages.PutGetReply(ioid=ioid, value=whole(value)))
            case messages.ProcessInit():
                self.send(messages.ProcessInitReply(ioid=ioid))
            case messages.Process():
                server.puts.append((name, "process"))
                self.send(messages.ProcessReply(ioid=ioid))
            case messages.RpcInit():
                self.send(messages.RpcInitReply(ioid=ioid))
            case messages.Rpc():
                self.send(messages.RpcReply(ioid=ioid, value=message.value))
            case messages.GetField():
                self.send(messages.GetFieldReply(ioid=ioid, type=value.type[message.field]))
            case messages.ArrayInit():
                self.send(messages.ArrayInitReply(ioid=ioid, type=value.type["value"]))
            case messages.MonitorInit():
                self.send(messages.MonitorInitReply(ioid=ioid, type=value.type))
            case messages.MonitorStart():
                self.send(messages.MonitorUpdate(ioid=ioid, value=whole(value)))


class LiveServer:
    """Listens on 127.0.0.1. pvs: name to Value. events: all that clients asked. puts: (name, Value) in order."""

    def __init__(
        self, pvs: dict[str, Value], handle: Callable[[Peer, Any], object] | None = None, port: int = 0
    ) -> None:
        self.pvs = pvs
        self.handle: Callable[[Peer, Any], object] = handle or (lambda peer, event: False)
        self.events: list[Any] = []
        self.puts: list[tuple[str, Any]] = []
        self.peers: list[Peer] = []
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        self.threads.append(thread)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.connections += 1
                peer = Peer(self, sock)
                self.peers.append(peer)
                self._spawn(peer.run)

    def asked(self, kind: type[Any]) -> list[Any]:
        """The requests of a class that came so far."""
        return [
            e.message for e in self.events if isinstance(e, OperationRequest) and isinstance(e.message, kind)
        ]

    def monitors(self, name: str) -> list[tuple[Peer, int]]:
        """The started monitors of a PV: (peer, ioid)."""
        found = []
        for peer in list(self.peers):
            for ioid, operation in dict(peer.conn.operations).items():
                if operation.command == 13 and operation.started and operation.channel.name == name:
                    found.append((peer, ioid))
        return found

    def post(self, name: str, *updates: Value, overrun: Any = None) -> None:
        """Send updates to all monitors of a PV."""
        for peer, ioid in self.monitors(name):
            more = {} if overrun is None else {"overrun": overrun}
            peer.send(*(messages.MonitorUpdate(ioid=ioid, value=update, **more) for update in updates))

    def drop(self) -> None:
        """Close all connections."""
        for peer in list(self.peers):
            peer.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.drop()
        for thread in self.threads:
            thread.join(5)

    def __enter__(self) -> LiveServer:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()


def until(true: Callable[[], Any], timeout: float = 5.0) -> Any:
    """Wait for it; what it is in the end."""
    end = time.monotonic() + timeout
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.002)
    return found

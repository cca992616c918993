"""One connection for many threads, over a plain socket: `python examples/threads_get.py HOST:PORT PV...`."""

import socket
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pvafast import ClientConnection, messages, request
from pvafast.connection import ChannelFailed, ChannelOpened, OperationReply, Validated

ECHO = 15.0  # seconds: servers hang up on clients that say nothing for 40 or so
TIMEOUT = 5.0


class Link:
    """A connection to a server. A thread reads; any thread may ask, and waits for its answer."""

    def __init__(self, host: str, port: int) -> None:
        self.conn = ClientConnection()
        self.lock = threading.Lock()  # a connection is for one thread at a time
        self.waiting: dict[Any, Future[Any]] = {"validated": Future()}
        self.closed = threading.Event()
        validated = self.waiting["validated"]
        self.sock = socket.create_connection((host, port), timeout=TIMEOUT)
        self.sock.settimeout(None)
        for loop in (self.read, self.echo):
            threading.Thread(target=loop, daemon=True).start()
        validated.result(TIMEOUT).status.raise_for_status()

    def open(self, name: str) -> int:
        """A channel; returns its sid."""
        with self.lock:
            cid = self.conn.new_cid()
            answer = self.ask(("channel", cid), messages.CreateChannel(channels=((cid, name),)))
        event = answer.result(TIMEOUT)
        if isinstance(event, ChannelFailed):
            event.status.raise_for_status()
        sid: int = event.channel.sid
        return sid

    def get(self, sid: int, fields: str = "field()") -> Any:
        """The value of a channel. Channels stay open: open one once, and get often."""
        with self.lock:
            ioid = self.conn.new_ioid()
            init = messages.GetInit(sid=sid, ioid=ioid, request=request.parse(fields))
            answer = self.ask(("operation", ioid), init)
        answer.result(TIMEOUT).message.status.raise_for_status()
        with self.lock:
            answer = self.ask(("operation", ioid), messages.Get(sid=sid, ioid=ioid, destroy=True))
        reply = answer.result(TIMEOUT).message
        reply.status.raise_for_status()
        return reply.value

    def ask(self, key: Any, message: Any) -> Future[Any]:
        """Send a message; under the lock."""
        if self.closed.is_set():
            raise ConnectionError("the connection is closed")
        answer: Future[Any] = Future()
        self.waiting[key] = answer
        self.send(self.conn.send(message))
        return answer

    def send(self, buffers: list[Any]) -> None:
        for buffer in self.conn.data_to_send() + buffers:  # what the connection itself wants sent comes first
            self.sock.sendall(buffer)

    def read(self) -> None:
        try:
            while True:
                with self.lock:
                    buffer = self.conn.get_buffer()
                n = self.sock.recv_into(buffer)  # waits, without the lock
                if not n:
                    break
                with self.lock:
                    self.conn.buffer_updated(n)
                    for event in self.conn.events():
                        self.told(event)
                    self.send([])
        finally:
            with self.lock:
                self.closed.set()
                for answer in self.waiting.values():
                    answer.set_exception(ConnectionError("the connection is closed"))

    def told(self, event: Any) -> None:
        """Hand an event to the thread that waits for it."""
        match event:
            case Validated():
                key: Any = "validated"
            case ChannelOpened() | ChannelFailed():
                key = "channel", event.channel.cid
            case OperationReply():
                key = "operation", event.message.ioid
            case _:
                return
        if key in self.waiting:
            self.waiting.pop(key).set_result(event)

    def echo(self) -> None:
        while not self.closed.wait(ECHO):
            with self.lock:
                self.send(self.conn.send(messages.Echo()))

    def close(self) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)  # read() ends
        self.closed.wait()
        self.sock.close()


def main(server: str, names: list[str]) -> None:
    host, _, port = server.partition(":")
    link = Link(host, int(port or 5075))
    with ThreadPoolExecutor(8) as pool:
        sids = pool.map(link.open, names)
        for name, value in zip(names, pool.map(link.get, sids), strict=True):
            print(name, value["value"])
    link.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

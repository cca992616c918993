"""The loop and the TCP streams: on asyncio's loop and on ours, over real sockets on 127.0.0.1."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pvafast import ClientConnection, ProtocolError, ServerConnection, messages
from pvafast.connection import ChannelRequested, Credentials, EchoReply, Validated
from pvafast.network.loop import SelectLoop
from pvafast.network.stream import Connecting, Stream

WAIT = 10.0


class Runner:
    """A loop, and how to run it until something is true."""

    def __init__(self, kind: str) -> None:
        self.loop: Any = SelectLoop() if kind == "select" else asyncio.new_event_loop()

    def until(self, done: Callable[[], object], timeout: float = WAIT) -> bool:
        if isinstance(self.loop, SelectLoop):
            return self.loop.run_until(done, timeout)

        async def poll() -> bool:
            end = self.loop.time() + timeout
            while not done():
                if self.loop.time() > end:
                    return False
                await asyncio.sleep(0.001)
            return True

        return bool(self.loop.run_until_complete(poll()))


@pytest.fixture(params=["select", "asyncio"])
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    runner = Runner(request.param)
    yield runner
    runner.loop.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


class End:
    """One end of a connection: what it received, and how it was closed."""

    def __init__(self, runner: Runner, sock: socket.socket, connection: Any) -> None:
        self.events: list[Any] = []
        self.closed: list[Exception | None] = []
        self.drained = 0
        self.answer: Callable[[Any], None] = lambda event: None
        self.stream = Stream(
            runner.loop,
            sock,
            connection,
            received=self._received,
            closed=self.closed.append,
            drained=self._drained,
        )

    def _received(self, events: Iterator[Any]) -> None:
        for event in events:
            self.events.append(event)
            self.answer(event)

    def _drained(self) -> None:
        self.drained += 1

    def has(self, kind: type) -> bool:
        return any(isinstance(event, kind) for event in self.events)


def pair(runner: Runner, listener: socket.socket) -> tuple[End, End]:
    """A client and a server that have shaken hands."""
    client_sock = socket.create_connection(listener.getsockname())
    server_sock, _ = listener.accept()
    server = End(runner, server_sock, ServerConnection())

    def answer(event: Any) -> None:
        if isinstance(event, Credentials):
            server.stream.send(messages.ConnectionValidated())
        elif isinstance(event, ChannelRequested):
            server.stream.send(messages.CreateChannelReply(cid=event.cid, sid=event.cid + 100))

    server.answer = answer
    client = End(runner, client_sock, ClientConnection(user="u", host="h"))
    assert runner.until(lambda: client.has(Validated))
    return client, server


def close(runner: Runner, *ends: End) -> None:
    for end in ends:
        end.stream.close()
    assert runner.until(lambda: all(end.closed for end in ends))


def test_calls_come_in_order(runner: Runner) -> None:
    seen: list[int] = []
    runner.loop.call_later(0.02, seen.append, 3)
    runner.loop.call_later(0.01, seen.append, 2)
    runner.loop.call_soon(seen.append, 1)
    runner.loop.call_soon(seen.append, 7).cancel()
    runner.loop.call_later(0.001, seen.append, 8).cancel()
    threading.Timer(0.05, lambda: runner.loop.call_soon_threadsafe(seen.append, 4)).start()
    assert runner.until(lambda: 4 in seen)
    assert seen == [1, 2, 3, 4]


def test_a_call_from_another_thread_wakes_the_loop() -> None:
    loop = SelectLoop()
    seen: list[float] = []
    threading.Timer(0.05, loop.call_soon_threadsafe, [lambda: seen.append(time.monotonic())]).start()
    begun = time.monotonic()
    assert loop.run_until(lambda: seen, 60)
    assert seen[0] - begun < 30
    loop.close()


def test_run_until_gives_up() -> None:
    loop = SelectLoop()
    assert not loop.run_until(lambda: False, 0.01)
    assert loop.run_until(lambda: True, 0)
    loop.close()


def test_stop() -> None:
    loop = SelectLoop()
    seen: list[int] = []

    def stop() -> None:
        seen.append(1)
        loop.stop()

    threading.Timer(0.02, stop).start()
    loop.run_forever()
    assert seen == [1]
    loop.close()


def test_an_error_in_a_callback_is_logged_and_the_loop_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    loop = SelectLoop()
    seen: list[int] = []
    loop.call_soon(lambda: 1 // 0)
    loop.call_soon(seen.append, 1)
    with caplog.at_level(logging.ERROR, "pvafast.network"):
        loop.run_once(0)
    assert seen == [1]
    assert "ZeroDivisionError" in caplog.text
    loop.close()


def test_readers_and_writers_are_replaced_and_removed() -> None:
    loop = SelectLoop()
    one, other = socket.socketpair()
    seen: list[str] = []
    with one, other:
        assert not loop.remove_reader(one.fileno())
        loop.add_reader(one.fileno(), seen.append, "old")
        loop.add_reader(one.fileno(), lambda: seen.append(f"read {len(one.recv(10))}"))
        loop.add_writer(one.fileno(), lambda: (seen.append("write"), loop.remove_writer(one.fileno())))
        other.send(b"ab")
        assert loop.run_until(lambda: len(seen) == 2, WAIT)
        assert sorted(seen) == ["read 2", "write"]
        assert loop.remove_reader(one.fileno())
        assert not loop.remove_writer(one.fileno())
        other.send(b"c")
        assert not loop.run_until(lambda: len(seen) > 2, 0.01)
    loop.close()


def test_connect(runner: Runner, listener: socket.socket) -> None:
    got: list[Any] = []
    Connecting(runner.loop, listener.getsockname(), got.append, timeout=5)
    assert runner.until(lambda: got)
    assert got[0].getpeername() == listener.getsockname()
    got[0].close()
    address = listener.getsockname()
    listener.close()
    Connecting(runner.loop, address, got.append, timeout=5)
    assert runner.until(lambda: len(got) == 2)
    assert isinstance(got[1], ConnectionRefusedError)
    Connecting(runner.loop, address, got.append, timeout=5).cancel()
    assert not runner.until(lambda: len(got) == 3, 0.05)


def test_connecting_gives_up(runner: Runner) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # A full backlog: further connections hang.
        taken: list[Any] = []
        held = [Connecting(runner.loop, full.getsockname(), taken.append, timeout=60) for _ in range(4)]
        got: list[Any] = []
        Connecting(runner.loop, full.getsockname(), got.append, timeout=0.05)
        assert runner.until(lambda: got)
        for connecting in held:
            connecting.cancel()
        for sock in taken:
            sock.close()
        assert isinstance(got[0], TimeoutError)
        assert "within 0.05 s" in str(got[0])


def test_handshake_and_echo(runner: Runner, listener: socket.socket) -> None:
    client, server = pair(runner, listener)
    client.stream.send(messages.Echo(payload=b"x"))
    client.stream.send(messages.Echo(payload=b"y"))
    assert runner.until(lambda: sum(isinstance(event, EchoReply) for event in client.events) == 2)
    assert [event.payload for event in client.events if isinstance(event, EchoReply)] == [b"x", b"y"]
    close(runner, client, server)
    assert client.closed == [None]


def test_much_that_is_not_read(runner: Runner, listener: socket.socket) -> None:
    """More than the sockets hold waits, is sent when there is room, whole and in order."""
    client, server = pair(runner, listener)
    server.stream.pause()
    payload = bytes(range(256)) * 4096
    for _ in range(64):
        client.stream.send(messages.Echo(payload=payload))
    assert runner.until(lambda: client.stream.unsent > 0)
    assert not client.has(EchoReply)
    server.stream.resume()
    assert runner.until(lambda: sum(isinstance(event, EchoReply) for event in client.events) == 64)
    assert all(event.payload == payload for event in client.events if isinstance(event, EchoReply))
    assert client.stream.unsent == 0
    assert client.drained >= 1
    close(runner, client, server)


def test_what_waits_for_its_turn_is_told_too(runner: Runner, listener: socket.socket) -> None:
    """Written in one pass: the first at once, the others in the next one, and then `drained` is called."""
    client, server = pair(runner, listener)
    before = client.drained
    for _ in range(3):
        client.stream.send(messages.Echo(payload=b"x"))
    assert client.stream.unsent > 0
    assert client.drained == before
    assert runner.until(lambda: client.drained == before + 1)
    assert client.stream.unsent == 0
    # Answers that are written while something is received go out together behind it.
    told = server.drained
    server.answer = lambda event: server.stream.send(messages.Echo(payload=b"y"))
    client.stream.send(messages.Search(sequence=1, channels=((1, "x"),)))
    assert runner.until(lambda: server.drained == told + 1)
    close(runner, client, server)


def test_many_small_buffers_go_out_together(runner: Runner, listener: socket.socket) -> None:
    client, server = pair(runner, listener)
    for number in range(3000):
        client.stream.send(messages.Echo(payload=b"%d" % number))
    assert runner.until(lambda: sum(isinstance(event, EchoReply) for event in client.events) == 3000)
    replies = [event.payload for event in client.events if isinstance(event, EchoReply)]
    assert replies == [b"%d" % number for number in range(3000)]
    close(runner, client, server)


def test_the_other_side_closes(runner: Runner, listener: socket.socket) -> None:
    client, server = pair(runner, listener)
    server.stream.close()
    assert runner.until(lambda: client.closed)
    assert isinstance(client.closed[0], ConnectionResetError)
    assert client.stream.is_closed
    client.stream.send(messages.Echo())  # into the void, without an error
    assert runner.until(lambda: server.closed)
    assert (len(client.closed), server.closed) == (1, [None])


def test_what_waits_is_sent_before_closing(runner: Runner, listener: socket.socket) -> None:
    client, server = pair(runner, listener)
    for _ in range(3):
        client.stream.send(messages.CreateChannel(channels=((len(server.events) + 900 + _, "pv"),)))
    client.stream.close()
    assert runner.until(lambda: sum(isinstance(event, ChannelRequested) for event in server.events) == 3)
    close(runner, server)


def test_a_peer_that_breaks_the_rules(runner: Runner, listener: socket.socket) -> None:
    client_sock = socket.create_connection(listener.getsockname())
    raw, _ = listener.accept()
    client = End(runner, client_sock, ClientConnection())
    raw.sendall(b"HTTP/1.1 400 Bad Request\r\n")
    assert runner.until(lambda: client.closed)
    assert isinstance(client.closed[0], ProtocolError)
    raw.close()


def test_an_error_in_the_program_closes_the_stream(
    runner: Runner, listener: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    client, server = pair(runner, listener)

    def fail(event: Any) -> None:
        raise RuntimeError("a mistake")

    client.answer = fail
    client.stream.send(messages.Echo())
    with caplog.at_level(logging.ERROR, "pvafast.network"):
        assert runner.until(lambda: client.closed and server.closed)
    assert isinstance(client.closed[0], RuntimeError)
    assert "a mistake" in caplog.text


def test_a_cut_message(runner: Runner, listener: socket.socket) -> None:
    """The stream ends in the middle of a message, as that of a program that was killed: the error says so."""
    client_sock = socket.create_connection(listener.getsockname())
    raw, _ = listener.accept()
    client = End(runner, client_sock, ClientConnection())
    raw.sendall(bytes.fromhex("ca024001 ff000000 0102"))
    raw.close()
    assert runner.until(lambda: client.closed)
    assert isinstance(client.closed[0], ConnectionResetError)
    assert "message of 255 bytes expected, 2 before the end of the stream" in str(client.closed[0])

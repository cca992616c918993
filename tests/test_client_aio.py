"""What only the asyncio client has: cancellation, iteration, event loops, no tasks of its own."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from livepeer import NT_DOUBLE, LiveServer, nt_double
from pvafast import Client, ClientClosed, OperationTimeout, RemoteError, Server, Value, client, messages
from pvafast.client.link import Link
from pvafast.connection import ChannelRequested, Credentials, OperationRequest
from pvafast.messages import Status, StatusType
from pvafast.network import ServerConfig
from pvafast.network.stream import Stream


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with LiveServer({f"pv{i}": nt_double(float(i)) for i in range(100)}) as server:
        yield server


def run(main: Callable[[Client], Coroutine[Any, Any, Any]], server: LiveServer, **settings: Any) -> None:
    """Run it with a client; no task may be left behind, and nothing raised in a callback."""
    problems: list[Any] = []

    async def whole() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        async with Client(server=server.address, timeout=10, **settings) as c:
            await asyncio.wait_for(main(c), 30)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())
    assert problems == []


async def soon(true: Callable[[], object]) -> None:
    """Wait for it, without blocking the loop."""
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


def test_requests_need_no_tasks(server: LiveServer) -> None:
    async def main(c: Client) -> None:
        names = [f"pv{i}" for i in range(100)]
        before = asyncio.all_tasks()
        pending = asyncio.ensure_future(c.get(names))
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == len(before) + 1
        assert await pending == list(range(100))
        assert await asyncio.gather(*(c.get(name) for name in names)) == list(range(100))
        assert server.connections == 1

    run(main, server)


@pytest.mark.parametrize("bad", [False, True])
def test_texts_of_servers_in_the_log(caplog: pytest.LogCaptureFixture, bad: bool) -> None:
    """Whatever a server says, it writes one line, and none that a terminal obeys."""
    evil = "no\n2026-01-01 00:00:00 forged \x1b[2J"

    def handle(peer: Any, event: Any) -> bool:
        if isinstance(event, ChannelRequested):
            peer.send(messages.RemoteMessage(ioid=0, severity=messages.Severity.WARNING, text=evil))
            status = Status(StatusType.ERROR, evil, "")
            peer.send(messages.CreateChannelReply(cid=event.cid, sid=messages.NO_CHANNEL, status=status))
        elif isinstance(event, Credentials):
            peer.send(
                messages.ConnectionValidated(status=Status(StatusType.ERROR, evil, "") if bad else Status.OK)
            )
        return True

    with LiveServer({}, handle) as server:

        async def main(c: Client) -> None:
            subscription = c.monitor("x")
            await soon(lambda: len(caplog.records) >= 2)
            subscription.close()

        run(main, server)
    said = [record.getMessage() for record in caplog.records if "forged" in record.getMessage()]
    assert len(said) >= 2
    assert all(line.isprintable() and "no\\n2026" in line and "\\x1b[2J" in line for line in said)


@pytest.mark.parametrize("phase", ["init", "asked", "opening", "many"])
def test_cancelling(server: LiveServer, phase: str) -> None:
    held: list[Any] = []

    def handle(peer: Any, event: Any) -> bool:
        wanted = messages.GetInit if phase == "init" else messages.Get
        if isinstance(event, OperationRequest) and isinstance(event.message, wanted):
            held.append((peer, event.message.ioid))
            return True
        return False

    async def main(c: Client) -> None:
        server.handle = handle
        if phase == "opening":
            task = asyncio.ensure_future(c.get("pv1"))
            await asyncio.sleep(0)
        else:
            task = asyncio.ensure_future(c.get("pv1") if phase != "many" else c.get(["pv1", "pv2"]))
            await soon(lambda: len(held) == (2 if phase == "many" else 1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        count = len(held)
        await soon(lambda: len(server.asked(messages.DestroyRequest)) == count)
        # The answers that come nevertheless hurt nobody.
        for peer, ioid in held:
            if phase == "init":
                peer.send(messages.Echo(payload=b"late"))
            elif ioid in peer.conn.operations:
                peer.send(messages.GetReply(ioid=ioid, value=nt_double(0.0)))
        server.handle = lambda peer, event: False
        assert await c.get("pv1") == 1.0

    run(main, server)


def test_timeouts_of_asyncio(server: LiveServer) -> None:
    async def main(c: Client) -> None:
        server.handle = lambda peer, event: isinstance(event, OperationRequest)
        with pytest.raises(TimeoutError) as error:
            async with asyncio.timeout(0.05):
                await c.get("pv1")
        assert not isinstance(error.value, OperationTimeout)
        with pytest.raises(OperationTimeout):
            await c.get("pv1", timeout=0.05)

    run(main, server)


def test_iterating(server: LiveServer) -> None:
    async def main(c: Client) -> None:
        got = []
        async with c.monitor("pv1") as subscription:
            async for reading in subscription:
                got.append(reading.value)
                if len(got) == 1:
                    server.post("pv1", *(Value(NT_DOUBLE, {"value": float(i)}) for i in range(1000)))
                elif len(got) == 1001:
                    break
        assert got == [1.0, *range(1000)]
        assert subscription.dropped == 0
        async for _ in subscription:
            pytest.fail("it was closed")
        await soon(lambda: not server.monitors("pv1"))

    run(main, server)


def test_leaving_the_loop_closes_the_subscription(server: LiveServer) -> None:
    async def main(c: Client) -> None:
        async for reading in c.monitor("pv1"):
            assert reading.value == 1.0
            break
        await soon(lambda: not server.monitors("pv1"))

    run(main, server)


def test_a_burst_of_more_than_the_queue_holds_is_read_in_time(server: LiveServer) -> None:
    """The program gets its turn before the queue is full, when it is ready."""

    async def main(c: Client) -> None:
        subscription = c.monitor("pv1")
        assert (await subscription.next()).value == 1.0
        peer, ioid = server.monitors("pv1")[0]
        update = messages.MonitorUpdate(ioid=ioid, value=Value(NT_DOUBLE, {"value": 2.0}))
        (one,) = peer.conn.send(update)
        count = 100_000
        sender = asyncio.to_thread(peer.raw, bytes(one) * count)
        task = asyncio.ensure_future(sender)
        for _ in range(count):
            await subscription.next(10)
        await task
        assert (subscription.received, subscription.dropped) == (count + 1, 0)

    run(main, server)


def test_two_readers_of_one_subscription(server: LiveServer) -> None:
    async def main(c: Client) -> None:
        subscription = c.monitor("pv1")
        await subscription.next()
        task = asyncio.ensure_future(subscription.next())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="two tasks"):
            await subscription.next(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.post("pv1", Value(NT_DOUBLE, {"value": 2.0}))
        assert (await subscription.next(5)).value == 2.0

    run(main, server)


def test_closing_under_requests_and_subscriptions(server: LiveServer) -> None:
    async def main(c: Client) -> None:
        server.handle = lambda peer, event: (
            isinstance(event, OperationRequest)
            and not isinstance(event.message, messages.MonitorInit | messages.MonitorStart)
        )
        subscription = c.monitor("pv1")
        await subscription.next()
        waiting = asyncio.ensure_future(c.get("pv2"))
        reading = asyncio.ensure_future(subscription.__anext__())
        await asyncio.sleep(0.05)
        await c.close()
        with pytest.raises(ClientClosed):
            await waiting
        with pytest.raises(StopAsyncIteration):
            await reading
        with pytest.raises(ClientClosed):
            await c.get("pv1")
        await c.close()

    run(main, server)


def test_a_client_belongs_to_one_loop(server: LiveServer) -> None:
    c = Client(server=server.address)

    async def get() -> None:
        assert await c.get("pv1") == 1.0

    async def other() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await c.get("pv1")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(get())
    asyncio.run(other())
    loop.run_until_complete(c.close())
    loop.close()


def test_the_loop_of_windows_is_refused_in_words(server: LiveServer) -> None:
    class ProactorEventLoop(asyncio.SelectorEventLoop):
        pass

    async def get() -> None:
        with pytest.raises(RuntimeError, match="SelectorEventLoop"):
            await Client(server=server.address).get("pv1")
        with pytest.raises(RuntimeError, match="SelectorEventLoop"):
            await Server({}, config=ServerConfig.isolated()).__aenter__()

    with asyncio.Runner(loop_factory=ProactorEventLoop) as runner:
        runner.run(get())


def test_errors_end_the_iterator(server: LiveServer) -> None:
    async def main(c: Client) -> None:
        def handle(peer: Any, event: Any) -> bool:
            if isinstance(event, OperationRequest) and isinstance(event.message, messages.MonitorInit):
                status = messages.Status(messages.StatusType.ERROR, "no fields")
                peer.send(messages.MonitorInitReply(ioid=event.message.ioid, status=status))
                return True
            return False

        server.handle = handle
        subscription = c.monitor("pv1")
        with pytest.raises(RemoteError, match="no fields"):
            await anext(subscription)
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)

    run(main, server)


def test_channels_that_nobody_uses_are_closed(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvafast.client.engine._IDLE_TIME", 0.1)
    monkeypatch.setattr("pvafast.client.engine._SWEEP", 0.05)

    async def main(c: Client) -> None:
        subscription = c.monitor("pv1")
        await c.get(["pv2", "pv3"])
        assert len(c.channels()) == 3
        await soon(lambda: [one.name for one in c.channels()] == ["pv1"])
        await soon(lambda: [e.name for e in server.peers[0].conn.channels.values()] == ["pv1"])
        subscription.close()
        # The last one takes the connection with it.
        await soon(lambda: not server.peers)
        assert await c.get("pv2") == 2.0
        assert server.connections == 2

    run(main, server)


def test_a_name_that_nobody_waits_for_is_forgotten(server: LiveServer) -> None:
    async def main(c: Client) -> None:
        server.handle = lambda peer, event: not isinstance(event, OperationRequest)
        for _ in range(2):
            with pytest.raises(OperationTimeout):
                await c.get("pv1", timeout=0.05)
            assert c.channels() == []

    run(main, server)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_nothing_is_left_of_lost_connections(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvafast.client.channel._STABLE", 0.0)  # no back-off, though it is lost at once

    async def main(c: Client) -> None:
        subscription = c.monitor("pv1", events=True)
        counts = []
        for i in range(60):
            while not isinstance(await subscription.next(5), client.Reading):
                pass
            assert await c.get("pv2") == 2.0
            server.drop()
            if i % 20 == 10:
                await soon(lambda: not server.peers)
                server.events.clear()
                gc.collect()
                ours = [type(o) for o in gc.get_objects() if str(type(o).__module__).startswith("pvafast.")]
                counts.append((descriptors(), ours.count(Link), ours.count(Stream), len(ours)))
        for count in zip(*counts, strict=True):
            assert max(count) - min(count) <= 4, counts

    run(main, server)


def test_echoes_and_half_open_connections(server: LiveServer) -> None:
    """conn_tmo 1.5: an echo each second; not a byte for 2 s: the connection is given up."""

    async def main(c: Client) -> None:
        subscription = c.monitor("pv1", events=True)
        assert isinstance(await subscription.next(5), client.Connected)
        await subscription.next(5)
        await asyncio.sleep(2.5)  # kept alive by echoes
        assert server.connections == 1
        # From now on the server reads nothing, and says nothing.
        peer = server.peers[0]
        peer.lock.acquire()
        try:
            lost = await subscription.next(6)
            assert isinstance(lost, client.Disconnected)
            assert "not a byte" in lost.reason
        finally:
            peer.lock.release()
        assert isinstance(await subscription.next(5), client.Connected)

    run(main, server, conn_tmo=1.5)


def test_many_channels(server: LiveServer) -> None:
    server.pvs |= {f"n{i}": nt_double(float(i)) for i in range(3000)}

    async def main(c: Client) -> None:
        names = [f"n{i}" for i in range(3000)]
        assert await c.get(names, timeout=30) == list(range(3000))
        assert server.connections == 1

    run(main, server)

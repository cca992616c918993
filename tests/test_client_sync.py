"""What only the blocking client has: threads, the daemon thread, fork, the end of the interpreter."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from livepeer import NT_DOUBLE, LiveServer, nt_double, until
from pvafast import ClientClosed, OperationTimeout, Value, messages
from pvafast.connection import OperationRequest
from pvafast.sync import Client, runner


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with LiveServer({f"pv{i}": nt_double(float(i)) for i in range(20)}) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[Client]:
    with Client(server=server.address, timeout=10) as client:
        yield client


def in_threads(count: int, target: Any) -> None:
    """Run target(i) in threads; errors in them fail the test."""
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            target(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []


def test_many_threads(client: Client, server: LiveServer) -> None:
    def work(i: int) -> None:
        for j in range(50):
            name = f"pv{(i + j) % 20}"
            assert client.get(name) == float(name[2:])

    in_threads(8, work)
    assert server.connections == 1


def test_threads_that_wait_do_not_hold_up_others(client: Client, server: LiveServer) -> None:
    """One waits for a subscription, one for an answer that does not come; a third one goes on."""
    subscription = client.monitor("pv1")
    subscription.next(5)
    server.handle = lambda peer, event: (
        isinstance(event, OperationRequest) and event.operation.channel.name == "pv2"
    )
    got: list[Any] = []

    def wait_in_vain() -> None:
        with pytest.raises(OperationTimeout):
            client.get("pv2", timeout=5.0)

    waits = [
        threading.Thread(target=lambda: got.append(subscription.next(10)), daemon=True),
        threading.Thread(target=wait_in_vain, daemon=True),
    ]
    for thread in waits:
        thread.start()
    time.sleep(0.05)
    start = time.monotonic()
    assert [client.get("pv3") for _ in range(20)] == [3.0] * 20
    assert time.monotonic() - start < 4.5
    server.post("pv1", Value(NT_DOUBLE, {"value": 8.0}))
    assert until(lambda: got)
    assert got[0].value == 8.0
    waits[1].join(5)
    assert not waits[1].is_alive()


def test_two_threads_iterate(client: Client, server: LiveServer) -> None:
    subscriptions = [client.monitor("pv1"), client.monitor("pv2")]
    for subscription in subscriptions:
        subscription.next(5)

    def work(i: int) -> None:
        if i == 2:
            for j in range(100):
                server.post("pv1", Value(NT_DOUBLE, {"value": float(j)}))
                server.post("pv2", Value(NT_DOUBLE, {"value": float(-j)}))
        else:
            got = [subscriptions[i].next(10).value for _ in range(100)]
            assert got == [float(j if i == 0 else -j) for j in range(100)]

    in_threads(3, work)


def test_a_waiting_thread_closed_under(server: LiveServer) -> None:
    client = Client(server=server.address)
    server.handle = lambda peer, event: isinstance(event, OperationRequest)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            client.get("pv1", timeout=20)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert until(lambda: server.asked(messages.GetInit))
    client.close()
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(errors[0], ClientClosed)
    client.close()
    with pytest.raises(ClientClosed):
        client.monitor("pv1")


def test_the_daemon_thread_keeps_connections_alive(client: Client, server: LiveServer) -> None:
    client.get("pv1")
    assert [t.daemon for t in threading.enumerate() if t.name == "pvafast-client"] == [True]
    server.drop()
    subscription = client.monitor("pv1")
    # While no one calls, it connects again, and updates are taken.
    assert until(lambda: server.monitors("pv1"))
    server.post("pv1", Value(NT_DOUBLE, {"value": 5.0}))
    assert until(lambda: subscription.received == 2)
    # And after a while without calls a get is as good as ever.
    time.sleep(0.6)
    assert client.get("pv1") == 1.0


def test_a_callback_that_waits_for_its_client(client: Client, server: LiveServer) -> None:
    errors: list[BaseException] = []
    done = threading.Event()

    def callback(reading: Any) -> None:
        try:
            client.get("pv2")
        except RuntimeError as error:
            errors.append(error)
        more.append(client.monitor("pv3"))  # what does not wait may be done
        done.set()

    more: list[Any] = []

    client.monitor("pv1", callback=callback)
    assert done.wait(5)
    assert "callback" in str(errors[0])
    assert client.get("pv2") == 2.0
    assert until(lambda: server.monitors("pv3"))


def test_an_interrupt_while_waiting(client: Client, server: LiveServer) -> None:
    client.get("pv1")
    unanswered = iter([True])

    def handle(peer: Any, event: Any) -> bool:
        if not (isinstance(event, OperationRequest) and isinstance(event.message, messages.Get)):
            return False
        if next(unanswered):  # the last one that the client sends
            os.kill(os.getpid(), signal.SIGINT)
        return True

    server.handle = handle
    # What a shell starts in the background ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for names, last in (("pv1", [True]), (["pv1", "pv2"], [False, True])):
            unanswered = iter(last)
            with pytest.raises(KeyboardInterrupt):
                client.get(names)
    finally:
        signal.signal(signal.SIGINT, before)
    server.handle = lambda peer, event: False
    assert until(lambda: len(server.asked(messages.DestroyRequest)) == 3)
    assert client.get("pv1") == 1.0


class Busy:
    """A callback of a monitor that keeps the thread which runs the client until release()."""

    def __init__(self, client: Client) -> None:
        self._entered = threading.Event()
        self._go = threading.Event()
        self._subscription = client.monitor("pv0", callback=self._stay)
        assert self._entered.wait(5)

    def _stay(self, reading: Any) -> None:
        self._entered.set()
        self._go.wait(30)

    def release(self) -> None:
        self._go.set()
        self._subscription.close()


def test_what_timed_out_before_it_began_is_not_done_later(client: Client, server: LiveServer) -> None:
    client.get("pv1")
    busy = Busy(client)
    calls: list[Callable[[], Any]] = [
        lambda: client.put("pv1", 99.0, timeout=0.05),
        lambda: client.put_get("pv1", 99.0, timeout=0.05),
        lambda: client.get(["nobody", "pv1"], timeout=0.05),
        lambda: client.get("nobody", timeout=0.05),
    ]
    for call in calls:
        with pytest.raises(OperationTimeout, match="another thread runs the client"):
            call()
    busy.release()
    assert client.get("pv2") == 2.0  # asked for after them, and answered
    assert server.asked(messages.PutInit) == server.asked(messages.PutGetInit) == server.puts == []
    assert "nobody" not in [channel.name for channel in client.channels()]


def test_what_was_interrupted_before_it_began_is_not_done_later(client: Client, server: LiveServer) -> None:
    client.get("pv1")
    busy = Busy(client)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            client.put("pv1", 99.0, timeout=20)
    finally:
        signal.signal(signal.SIGINT, before)
    busy.release()
    assert client.get("pv2") == 2.0
    assert server.asked(messages.PutInit) == server.puts == []


@pytest.mark.parametrize("other", [False, True])
def test_an_interrupt_at_any_place(server: LiveServer, other: bool) -> None:
    """Interrupts come where a function begins, and after a call: at each such place in turn. The client can be used afterwards.

    other: another thread runs it meanwhile.
    """
    asked = threading.Event()

    def handle(peer: Any, event: Any) -> bool:
        if not isinstance(event, OperationRequest) or event.operation.channel.name != "pv2":
            return False
        asked.set()
        return True

    def interrupt(frame: Any, what: str, argument: Any) -> None:
        nonlocal left
        if what in ("call", "c_return") and frame.f_code.co_filename == runner.__file__:
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

    def wait() -> None:
        with pytest.raises(ClientClosed):
            client.get("pv2", timeout=None)
        ended.append(True)

    server.handle = handle
    ended: list[bool] = []
    with Client(server=server.address, timeout=10) as client:
        client.get("pv1")
        thread = threading.Thread(target=wait, daemon=True)
        if other:
            thread.start()
            assert asked.wait(5)
        for place in range(200):
            left = place
            sys.setprofile(interrupt)
            try:
                client.get("pv1")
                break
            except KeyboardInterrupt:
                pass
            finally:
                sys.setprofile(None)
            assert client.get("pv1") == 1.0
        assert 5 < place < 199
    if other:
        thread.join(5)
        assert ended == [True]


def gets(client: Client, server: LiveServer) -> None:
    """Run the client in this thread, with updates of a PV, until an exception."""
    while True:
        server.post("pv1", Value(NT_DOUBLE, {"value": 2.0}))
        client.get("pv2")


def test_closed_in_a_callback(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the thread that leads: the daemon thread can close only when that is gone, so it is not waited for."""
    client = Client(server=server.address, timeout=10)
    joined: list[Any] = []

    def callback(reading: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "join", lambda *args: joined.append(args))
                client.close()

    subscription = client.monitor("pv1", callback=callback)
    with pytest.raises(ClientClosed):
        gets(client, server)
    assert joined == []
    assert until(lambda: not server.peers)
    subscription.close()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_callback_that_ends_the_thread(
    client: Client, server: LiveServer, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    """The daemon thread goes on, and says so; out of the program's own it comes as it is."""
    got: list[Any] = []

    def end(reading: Any) -> None:
        if calm.is_set():
            return
        if threading.current_thread() is threading.main_thread():
            calm.set()
        raise kind

    calm = threading.Event()
    client.monitor("pv1", callback=end)
    assert until(
        lambda: (
            "a callback must not end the thread" in caplog.text
            or server.post("pv1", Value(NT_DOUBLE, {"value": 1.0}))
        )
    )
    client.monitor("pv2", callback=lambda reading: got.append(reading.value))
    assert until(lambda: 9.0 in got or server.post("pv2", Value(NT_DOUBLE, {"value": 9.0})))
    with pytest.raises(kind):
        gets(client, server)
    client.close()
    assert until(lambda: not server.peers)


def test_a_client_that_is_forgotten(server: LiveServer) -> None:
    client = Client(server=server.address)
    client.get("pv1")
    del client
    gc.collect()
    assert until(lambda: not server.peers)
    assert until(lambda: not [t for t in threading.enumerate() if t.name == "pvafast-client"])


@pytest.mark.parametrize("how", ["closed", "left open", "monitor", "callback"])
def test_the_end_of_the_interpreter_is_silent(server: LiveServer, how: str) -> None:
    program = f"""
import pvafast.sync, time
client = pvafast.sync.Client(server={server.address!r})
print(client.get("pv1"))
how = {how!r}
if how == "closed":
    client.close()
elif how == "monitor":
    subscription = client.monitor("pv2")
    print(next(subscription).value)
elif how == "callback":
    subscription = client.monitor("pv2", callback=lambda reading: print(reading.value, flush=True))
    time.sleep(0.5)
"""
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == "1.0\n" + ("2.0\n" if how in ("monitor", "callback") else "")
    assert until(lambda: not server.peers)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork(server: LiveServer) -> None:
    program = f"""
import os, pvafast, pvafast.sync
client = pvafast.sync.Client(server={server.address!r})
client.get("pv1")
child = os.fork()
if not child:
    try:
        client.get("pv1")
    except pvafast.ClientClosed:
        with pvafast.sync.Client(server={server.address!r}) as mine:
            os._exit(7 if mine.get("pv2") == 2.0 else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print(client.get("pv1"))
"""
    # Python 3.12 warns of the threads that numpy's BLAS may have; they have no part in this.
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "1.0\n", "")


def test_a_burst_of_more_than_the_queue_holds_is_read_in_time(client: Client, server: LiveServer) -> None:
    subscription = client.monitor("pv1")
    subscription.next(5)
    peer, ioid = server.monitors("pv1")[0]
    (one,) = peer.conn.send(messages.MonitorUpdate(ioid=ioid, value=Value(NT_DOUBLE, {"value": 2.0})))
    count = 100_000
    threading.Thread(target=lambda: peer.raw(bytes(one) * count), daemon=True).start()
    for _ in range(count):
        subscription.next(10)
    assert (subscription.received, subscription.dropped) == (count + 1, 0)

"""The event loop that client and server run on: asyncio's, or a small one for programs without asyncio."""

from __future__ import annotations

import heapq
import logging
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol, final

_log = logging.getLogger("pvafast.network")


class Handle(Protocol):
    """Of a callback that is to come."""

    def cancel(self) -> None:
        """It is not to come any more."""


class Loop(Protocol):
    """The part of asyncio's event loops that is used. For one thread at a time, but for call_soon_threadsafe."""

    def time(self) -> float:
        """The loop's clock, in seconds."""
        ...

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> Handle:
        """Call in the next pass."""
        ...

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: Any) -> Handle:
        """The same from any thread."""
        ...

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> Handle:
        """Call when `delay` seconds are over."""
        ...

    def add_reader(self, fd: int, callback: Callable[..., object], /, *args: Any) -> Any:
        """Call whenever there is something to read; replaces an earlier callback."""
        ...

    def remove_reader(self, fd: int, /) -> bool:
        """No longer; whether there was one."""
        ...

    def add_writer(self, fd: int, callback: Callable[..., object], /, *args: Any) -> Any:
        """Call whenever there is room to write; replaces an earlier callback."""
        ...

    def remove_writer(self, fd: int, /) -> bool:
        """No longer; whether there was one."""
        ...


def refuse_proactor(loop: Loop) -> None:
    """RuntimeError for the event loop of asyncio on Windows that cannot watch sockets, and is the default there."""
    if type(loop).__name__ == "ProactorEventLoop":
        raise RuntimeError(
            "on Windows asyncio.SelectorEventLoop is needed: asyncio.Runner(loop_factory=...) takes it"
        )


@final
class _Call:
    __slots__ = ("args", "callback")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args

    def cancel(self) -> None:
        self.callback = None
        self.args = ()


@final
class SelectLoop:
    """A loop for programs without asyncio: it runs in whichever thread calls it, one at a time, while that waits.

    An exception out of a callback is logged, and the loop goes on.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._ready: deque[_Call] = deque()
        # A number breaks ties: calls of the same time come in the order in which they were asked for.
        self._timers: list[tuple[float, int, _Call]] = []
        self._numbers = count()
        self._stopping = False
        self._waker, self._wake_end = socket.socketpair()
        self._waker.setblocking(False)
        self._wake_end.setblocking(False)
        self._selector.register(self._wake_end, selectors.EVENT_READ, (_Call(self._drain, ()), None))

    def time(self) -> float:
        """The loop's clock, in seconds."""
        return time.monotonic()

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> Handle:
        """Call in the next pass."""
        call = _Call(callback, args)
        self._ready.append(call)
        return call

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: Any) -> Handle:
        """Call in the next pass, and wake the loop for it. From any thread."""
        call = _Call(callback, args)
        self._ready.append(call)
        self._wake()
        return call

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> Handle:
        """Call when `delay` seconds are over."""
        call = _Call(callback, args)
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._numbers), call))
        return call

    def add_reader(self, fd: int, callback: Callable[..., object], /, *args: Any) -> None:
        """Call whenever there is something to read; replaces an earlier callback."""
        self._set(fd, selectors.EVENT_READ, _Call(callback, args))

    def remove_reader(self, fd: int, /) -> bool:
        """No longer; whether there was one."""
        return self._set(fd, selectors.EVENT_READ, None)

    def add_writer(self, fd: int, callback: Callable[..., object], /, *args: Any) -> None:
        """Call whenever there is room to write; replaces an earlier callback."""
        self._set(fd, selectors.EVENT_WRITE, _Call(callback, args))

    def remove_writer(self, fd: int, /) -> bool:
        """No longer; whether there was one."""
        return self._set(fd, selectors.EVENT_WRITE, None)

    def run_once(self, timeout: float | None = None) -> None:
        """One pass: wait until something is due, `timeout` seconds at most, and make the calls."""
        timers = self._timers
        if self._ready or self._stopping:
            timeout = 0
        elif timers:
            until = timers[0][0] - time.monotonic()
            if timeout is None or until < timeout:
                timeout = max(until, 0)
        ready = self._ready
        for key, mask in self._selector.select(timeout):
            reader, writer = key.data
            if reader is not None and mask & selectors.EVENT_READ:
                ready.append(reader)
            if writer is not None and mask & selectors.EVENT_WRITE:
                ready.append(writer)
        if timers:
            now = time.monotonic()
            while timers and timers[0][0] <= now:
                ready.append(heapq.heappop(timers)[2])
        # Calls that are added meanwhile are for the next pass.
        for _ in range(len(ready)):
            call = ready.popleft()
            if call.callback is None:
                continue
            try:
                call.callback(*call.args)
            except Exception:
                _log.exception("error in %r", call.callback)

    def run_until(self, done: Callable[[], object], timeout: float | None = None) -> bool:
        """Run until `done()` is true (True), or `timeout` seconds are over (False)."""
        if done():
            return True
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return False
            self.run_once(left)
            if done():
                return True

    def run_forever(self) -> None:
        """Run until stop()."""
        while not self._stopping:
            self.run_once()
        self._stopping = False

    def stop(self) -> None:
        """Let run_forever() return. From any thread."""
        self._stopping = True
        self._wake()

    def close(self) -> None:
        """Close what the loop itself has open; not the sockets that were given to it."""
        self._selector.close()
        self._waker.close()
        self._wake_end.close()
        self._ready.clear()
        self._timers.clear()

    def _wake(self) -> None:
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            pass  # it is awake, or will be
        except OSError:
            pass  # closed

    def _set(self, fd: int, event: int, call: _Call | None) -> bool:
        """Set the callback of an event on a descriptor, or remove it; whether there was one."""
        selector = self._selector
        try:
            key = selector.get_key(fd)
        except KeyError:
            if call is not None:
                selector.register(fd, event, (call, None) if event == selectors.EVENT_READ else (None, call))
            return False
        reader, writer = key.data
        old: _Call | None = reader if event == selectors.EVENT_READ else writer
        if old is not None:
            old.cancel()  # it may be waiting in this very pass
        if event == selectors.EVENT_READ:
            reader = call
        else:
            writer = call
        events = (selectors.EVENT_READ if reader else 0) | (selectors.EVENT_WRITE if writer else 0)
        if events:
            selector.modify(fd, events, (reader, writer))
        else:
            selector.unregister(fd)
        return old is not None

    def _drain(self) -> None:
        try:
            while self._wake_end.recv(4096):
                pass
        except BlockingIOError:
            pass

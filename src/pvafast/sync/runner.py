"""Who runs the loop of a client that threads call: whichever of them waits, or a daemon thread."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar, final

from ..errors import ClientClosed
from ..network.loop import SelectLoop

_T = TypeVar("_T")

# After so many seconds without a call the daemon thread takes the loop.
_IDLE: Final = 0.25
# How long close() waits for that thread.
_CLOSING: Final = 5.0


@final
class Waiter:
    """A thread that waits for something. The call itself, made in the thread that runs the loop, says that it is there."""

    __slots__ = ("_event", "done", "promoted")

    def __init__(self) -> None:
        self.done = False
        self.promoted = False
        self._event: threading.Event | None = None

    def __call__(self, *ignored: Any) -> None:
        self.done = True
        if self._event is not None:
            self._event.set()

    def follow(self) -> None:
        """Another thread runs the loop: sleep() is possible now."""
        self._event = threading.Event()

    def promote(self) -> None:
        """It is this thread's turn to run the loop."""
        self.promoted = True
        assert self._event is not None
        self._event.set()

    def sleep(self, timeout: float | None) -> None:
        """Until it is there, or this thread's turn, or the time is over."""
        assert self._event is not None
        self._event.wait(timeout)


@final
class Runner:
    """Who runs the loop: one thread at a time, the leader. Others that wait are woken when what they wait for is there.

    A leader that has what it waited for hands over to one of them. With no one waiting the daemon thread leads, once there was
    no call for a while, or the last one did not wait, until there is one.
    """

    def __init__(self) -> None:
        self.loop = SelectLoop()
        self.closed = False
        self.at_end: Callable[[], object] = _nothing
        self._mutex = threading.Lock()
        self._leader = 0  # the thread
        self._followers: deque[Waiter] = deque()
        self._calls = 0
        self._bell = threading.Event()
        self._thread = threading.Thread(target=self._mind, name="pvafast-client", daemon=True)
        self._thread.start()
        _runners.add(self)

    def call(self, function: Callable[..., _T], *args: Any, flush: bool = True) -> _T:
        """Call a function as if from the loop, and give what it gives. flush: what it sends goes out at once."""
        me = threading.get_ident()
        if self._leader == me:
            return function(*args)
        found: list[_T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                found.append(function(*args))
            except BaseException as error:
                failed.append(error)
            waiter()

        waiter = Waiter()
        self.wait(waiter, run, None, flush)
        if failed:
            raise failed[0]
        return found[0]

    def wait(
        self,
        waiter: Waiter,
        start: Callable[[], object] | None,
        timeout: float | None,
        flush: bool = True,
    ) -> bool:
        """Call `start` as if from the loop, and wait until the waiter is called: True; False when the time is over."""
        if self.closed:
            raise ClientClosed("the client is closed")
        me = threading.get_ident()
        loop = self.loop
        with self._mutex:
            leads = not self._leader
            if leads:
                self._leader = me
            elif self._leader == me:
                raise RuntimeError(
                    "a callback of the client waits for the client, which waits for the callback"
                )
            else:
                waiter.follow()
                self._followers.append(waiter)
        if leads:
            try:
                if start is not None:
                    start()
                if waiter.done:
                    if flush:
                        loop.run_once(0)
                        self._bell.set()  # nobody waits for what it asked for
                    return True
                self._calls += 1
                return self._run(waiter, timeout)
            finally:
                self._leave()
        end = None if timeout is None else loop.time() + timeout
        loop.call_soon_threadsafe(_nothing if start is None else start)
        try:
            waiter.sleep(timeout)
        finally:
            with self._mutex:
                if waiter.promoted:
                    self._leader = me
                else:
                    self._followers.remove(waiter)
        if not waiter.promoted:
            return waiter.done
        try:
            return self._run(waiter, None if end is None else max(end - loop.time(), 0))
        finally:
            self._leave()

    def _run(self, waiter: Waiter, timeout: float | None) -> bool:
        """Run the loop for a waiter."""
        self.loop.run_until(lambda: waiter.done or self.closed, timeout)
        if self.closed and not waiter.done:
            raise ClientClosed("the client was closed")
        return waiter.done

    def _leave(self) -> None:
        """The leader goes: the next one that waits leads."""
        with self._mutex:
            if self._followers:
                self._leader = -1  # it is taken
                self._followers.popleft().promote()
            else:
                self._leader = 0

    def _mind(self) -> None:
        """The daemon thread."""
        me = threading.get_ident()
        loop = self.loop
        seen = -1
        while True:
            asked = self._bell.wait(_IDLE)
            if not self.closed:
                self._bell.clear()
            with self._mutex:
                quiet = asked or seen == self._calls
                seen = self._calls
                if not quiet or self._leader:
                    if self.closed:  # whoever leads is about to leave
                        time.sleep(0.001)
                    continue
                self._leader = me
            try:
                while not (self._followers or self.closed):
                    loop.run_once()
                if self.closed:
                    self.at_end()
                    loop.run_once(0)
                    loop.run_once(0)
                    loop.close()
                    return
            finally:
                self._leave()

    def close(self, wait: bool = True) -> None:
        """Let the daemon thread call `at_end`, close the loop and end."""
        self.closed = True
        self._bell.set()
        self.loop.call_soon_threadsafe(_nothing)
        if wait and threading.current_thread() is not self._thread:
            self._thread.join(_CLOSING)

    def forked(self) -> None:
        """In the child of a fork: the sockets are the parent's."""
        self.closed = True


# For what is to be done after a fork.
_runners: weakref.WeakSet[Runner] = weakref.WeakSet()


def _forked() -> None:
    for runner in list(_runners):
        runner.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _nothing() -> None:
    """To wake the loop."""

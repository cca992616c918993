"""Who runs the loop of a client that threads call: whichever of them waits, or a daemon thread."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeVar, final

from ..errors import ClientClosed
from ..network.loop import SelectLoop

_T = TypeVar("_T")
_A = TypeVar("_A")

# After so many seconds without a call the daemon thread takes the loop.
_IDLE: Final = 0.25
# How long close() waits for that thread.
_CLOSING: Final = 5.0


@final
class Waiter:
    """A thread that waits for something. The call itself, made in the thread that runs the loop, says that it is there.

    begun: what it asks for was called. gone: the thread waits no more.
    """

    __slots__ = ("_event", "begun", "done", "gone")

    def __init__(self) -> None:
        self.done = False
        self.begun = False
        self.gone = False
        self._event: threading.Event | None = None

    def __call__(self, *ignored: Any) -> None:
        self.done = True
        self.wake()

    def follow(self) -> None:
        """Another thread runs the loop: sleep() is possible, until wake()."""
        if self._event is None:
            self._event = threading.Event()
        self._event.clear()

    def wake(self) -> None:
        """Let it look whether it is there, or whether it can run the loop."""
        if self._event is not None:
            self._event.set()

    def sleep(self, timeout: float | None) -> None:
        """Until it is woken, or the time is over."""
        assert self._event is not None
        self._event.wait(timeout)


@final
class Runner:
    """Who runs the loop: one thread at a time, the leader. Others that wait are woken when what they wait for is there.

    A leader that has what it waited for wakes one of them, to lead if none does by then. With no one waiting the daemon thread
    leads, once there was no call for a while, or the last one did not wait, until there is one.

    An interrupt (KeyboardInterrupt) may come in any call: so who leads, or waits, gives that up by a plain assignment, the first
    thing in a `finally`. Followers that nobody woke then are woken by the daemon thread.
    """

    def __init__(self) -> None:
        self.loop = SelectLoop()
        self.closed = False
        self.at_end: Callable[[], object] = _nothing
        self._mutex = threading.Lock()
        self._leader = 0  # the thread
        self._followers: dict[Waiter, None] = {}
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
        start: Callable[[], object],
        timeout: float | None,
        flush: bool = True,
    ) -> bool:
        """Call `start` as if from the loop, and wait until the waiter is called: True; False when the time is over.

        What was not begun by the end is not called any more.
        """
        if self.closed:
            raise ClientClosed("the client is closed")
        me = threading.get_ident()
        if self._leader == me:
            raise RuntimeError("a callback of the client waits for the client, which waits for the callback")
        loop = self.loop
        end = None if timeout is None else loop.time() + timeout
        try:
            with self._mutex:
                if not self._leader:
                    self._leader = me
                else:
                    self._followers[waiter] = None
            if self._leader == me:
                waiter.begun = True
                start()
                if waiter.done:
                    if flush:
                        loop.run_once(0)
                        self._bell.set()  # nobody waits for what it asked for
                    return True
                self._calls += 1
            else:
                loop.call_soon_threadsafe(self._begin, waiter, start)
                self._follow(waiter, end)
            if self._leader == me:
                left = None if end is None else max(end - loop.time(), 0)
                loop.run_until(lambda: waiter.done or self.closed, left)
            if self.closed and not waiter.done:
                raise ClientClosed("the client was closed")
            return waiter.done
        finally:
            waiter.gone = True
            if self._leader == me:
                self._leader = 0
            self._leave(waiter)

    def _begin(self, waiter: Waiter, start: Callable[[], object]) -> None:
        """In the loop: do what a follower asks for, if it still waits."""
        with self._mutex:
            if waiter.gone:
                return
            waiter.begun = True
        start()

    def _follow(self, waiter: Waiter, end: float | None) -> None:
        """Sleep until it is there, or this thread leads, or the time is over."""
        while not waiter.done:
            left = None if end is None else end - self.loop.time()
            if left is not None and left <= 0:
                return
            with self._mutex:
                if not self._leader:
                    self._leader = threading.get_ident()
                    return
                waiter.follow()
            if waiter.done:  # since before follow()
                return
            waiter.sleep(left)

    def _leave(self, waiter: Waiter | None = None) -> None:
        """A thread leads or waits no more: where none leads, the next one that waits is woken."""
        with self._mutex:
            followers = self._followers
            if waiter is not None:
                followers.pop(waiter, None)
            while followers and not self._leader:
                first = next(iter(followers))
                if not first.gone:
                    first.wake()
                    break
                del followers[first]

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
                self._leader = 0
                self._leave()

    def shielded(self, callback: Callable[[_A], object] | None) -> Callable[[_A], object] | None:
        """The program's callback, which does not end the daemon thread: SystemExit there is an error as others are."""
        if callback is None:
            return None

        def call(item: _A) -> None:
            try:
                callback(item)
            except Exception:
                raise
            except BaseException as error:
                if threading.current_thread() is not self._thread:
                    raise
                raise RuntimeError("a callback must not end the thread of the client") from error

        return call

    def close(self, wait: bool = True) -> None:
        """Let the daemon thread call `at_end`, close the loop and end."""
        self.closed = True
        self._bell.set()
        self.loop.call_soon_threadsafe(_nothing)
        # Not in a callback: the daemon thread waits for it.
        if wait and threading.get_ident() not in (self._thread.ident, self._leader):
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

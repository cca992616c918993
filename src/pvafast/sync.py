"""The client for programs without asyncio: the same methods, and each waits for its answer.

The thread that calls runs the client's loop while it waits: an answer is in its hands without another thread in between.
While no one calls, a daemon thread does, so that connections live and callbacks are called.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, final, overload

from . import _backend
from .client.base import DEFAULT, BaseClient, ChannelStatus, ServerInfo, Timeout, names_of, pairs
from .client.engine import Engine
from .client.feed import Feed
from .client.feed import Watch as _Watch
from .client.operations import Request
from .client.servers import BeaconEvent, ServerEvent
from .client.subscription import Connected, Disconnected, Event, Finished, Readable, Reading, TypeChanged
from .client.subscription import Subscription as _Subscription
from .errors import ClientClosed, OperationTimeout
from .network.loop import SelectLoop

if TYPE_CHECKING:
    from .ndarray import FramePool

__all__ = [
    "DEFAULT",
    "ChannelStatus",
    "BeaconEvent",
    "Client",
    "Connected",
    "Disconnected",
    "Event",
    "Finished",
    "Reading",
    "ServerEvent",
    "ServerInfo",
    "Subscription",
    "TypeChanged",
    "Watch",
]

FieldDesc = _backend.introspection.FieldDesc
_T = TypeVar("_T")

# After so many seconds without a call the daemon thread takes the loop.
_IDLE: Final = 0.25
# How long close() waits for that thread.
_CLOSING: Final = 5.0


@final
class _Waiter:
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
class _Runner:
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
        self._minding = False  # the leader is the daemon thread
        self._followers: deque[_Waiter] = deque()
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

        waiter = _Waiter()
        self.wait(waiter, run, None, flush)
        if failed:
            raise failed[0]
        return found[0]

    def wait(
        self,
        waiter: _Waiter,
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

    def _run(self, waiter: _Waiter, timeout: float | None) -> bool:
        """Run the loop for a waiter."""
        self.loop.run_until(lambda: waiter.done or self.closed, timeout)
        if self.closed and not waiter.done:
            raise ClientClosed("the client was closed")
        return waiter.done

    def _leave(self) -> None:
        """The leader goes: the next one that waits leads."""
        with self._mutex:
            self._minding = False
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
                self._minding = True
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
_runners: weakref.WeakSet[_Runner] = weakref.WeakSet()


def _forked() -> None:
    for runner in list(_runners):
        runner.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _nothing() -> None:
    """To wake the loop."""


class _SyncFeed:
    """An iterator of what a Feed holds. For one thread at a time. Who forgets it closes it."""

    def __init__(self, feed: Feed, runner: _Runner, *, kept: bool, at_once: int = 1) -> None:
        """kept: it goes on when it is forgotten, for it has a callback. at_once: so many are taken from the queue."""
        self._feed: Any = feed
        self._runner = runner
        self._kept = kept
        self._at_once = at_once
        # Taken from the queue already.
        self._mine: deque[Any] = deque()

    @property
    def name(self) -> str:
        """Of the channel."""
        return str(self._feed.name)

    @property
    def waiting(self) -> int:
        """How many items wait to be taken."""
        return int(self._feed.waiting) + len(self._mine)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next item. TimeoutError if none comes in time, StopIteration at the end."""
        mine = self._mine
        if not mine:
            self._fetch(timeout)
        if mine:
            return mine.popleft()
        feed = self._feed
        error, feed._error = feed._error, None
        if error is not None:
            raise error
        raise StopIteration

    def _fetch(self, timeout: float | None) -> None:
        """Take some items from the queue, when there are any, or it is the end."""
        feed, runner = self._feed, self._runner
        if not feed._queue and not feed._ended:
            waiter = _Waiter()

            def woken() -> None:
                feed._wake = None
                self._grab()
                waiter()

            def watch() -> None:
                feed._wake = woken
                if feed._queue or feed._ended:
                    woken()

            try:
                if not runner.wait(waiter, watch, timeout):
                    raise TimeoutError(f"nothing of {self.name!r} within {timeout:g} s")
            except ClientClosed:
                feed._ended = True
            finally:
                feed._wake = None
        if feed._queue and not self._mine and not runner.closed:
            runner.call(self._grab, flush=False)

    def _grab(self) -> None:
        feed = self._feed
        for _ in range(min(len(feed._queue), self._at_once)):
            self._mine.append(feed._take())

    def close(self) -> None:
        """End it. What waits can still be taken."""
        if not self._feed._ended and not self._runner.closed:
            self._runner.call(self._feed.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # From whatever thread; nothing to do where __init__ failed.
        if not getattr(self, "_kept", True) and not self._feed._ended and not self._runner.closed:
            self._runner.loop.call_soon_threadsafe(self._feed.close)


@final
class Subscription(_SyncFeed, Readable):
    """The updates of a channel: an iterator of Reading, made by Client.monitor. For one thread at a time.

    It ends when it is closed, or forgotten, or when the server ends it; RemoteError where the server says that it failed. A lost
    connection does not end it: it goes on, with the whole value first, when the channel is found again. What waits is
    taken before the end is told.
    """

    def pause(self) -> None:
        """Let the server send nothing until resume()."""
        self._runner.call(self._feed.pause)

    def resume(self) -> None:
        """Let it send again."""
        self._runner.call(self._feed.resume)


@final
class Watch(_SyncFeed):
    """What servers tell of themselves: an iterator, made by Client.beacons and Client.servers. For one thread at a time."""

    @property
    def dropped(self) -> int:
        """How many events were lost because nobody took them."""
        return int(self._feed.dropped)


@final
class Client(BaseClient):
    """A PVAccess client for programs without asyncio: as pvafast.Client, and each method waits for its answer.

    From any thread. Several may wait at the same time: one of them runs the loop for all. Callbacks are called in the thread that
    runs it, or in a daemon thread while none does; they must not wait for the client themselves. Not to be used in
    the child of a fork: make a new one there. Use it with `with`, or call close().
    """

    def __init__(self, config: Any = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._runner = runner = _Runner()
        self._core = runner.call(self._new_engine, runner.loop)
        self._engine = self._core
        runner.at_end = self._core.close
        # Also when it is forgotten, or the interpreter ends.
        self._finalizer = weakref.finalize(self, runner.close)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all channels and connections. What is under way ends in ClientClosed."""
        self._finalizer()

    def _started(self) -> Engine:
        if self._runner.closed:
            raise ClientClosed("the client is closed")
        return self._core

    def channels(self) -> list[ChannelStatus]:
        """The channels that are open, or wanted, and what they are doing."""
        return self._runner.call(super().channels)

    def _run(self, timeout: Timeout, make: Callable[..., Request], *args: Any) -> Any:
        """Make a request, and wait for it."""
        runner = self._runner
        time = self._time(timeout)
        waiter = _Waiter()
        operation: Any = None
        failed: BaseException | None = None

        def start() -> None:
            nonlocal operation, failed
            try:
                operation = make(*args)
                operation.done = waiter
                self._core.run(operation, None)
            except BaseException as error:
                failed = error
                waiter()

        in_time = True
        try:
            in_time = runner.wait(waiter, start, time)
        finally:
            if operation is not None and (failed is not None or not waiter.done) and not runner.closed:
                runner.call(self._give_up, [operation], None if in_time else time)
        if failed is not None:
            raise failed
        if operation is None:
            raise _never_started(time)
        if operation.error is not None:
            raise operation.error
        return operation.result

    @staticmethod
    def _give_up(operations: list[Request], time: float | None) -> None:
        """Cancel what is not done. time: because it was over."""
        for operation in operations:
            if time is not None:
                operation.error = operation.late(time)
            operation.cancel()

    def _run_all(
        self,
        timeout: Timeout,
        wanted: list[tuple[Callable[..., Request], tuple[Any, ...]]],
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Make requests, and wait for all of them; or until one fails."""
        runner = self._runner
        time = self._time(timeout)
        waiter = _Waiter()
        operations: list[Request] = []
        failed: list[BaseException] = []
        unanswered: dict[Request, None] = {}
        left = len(wanted)

        def done(operation: Request) -> None:
            nonlocal left
            left -= 1
            unanswered.pop(operation, None)
            if not left or (operation.error is not None and not return_exceptions):
                waiter()

        def start() -> None:
            try:
                engine = self._core
                for make, args in wanted:
                    operation = make(*args)
                    operation.done = done
                    operations.append(operation)
                    unanswered[operation] = None
                    engine.run(operation, None)
            except BaseException as error:
                failed.append(error)
                waiter()

        if not wanted:
            return []
        in_time = True
        try:
            in_time = runner.wait(waiter, start, time)
        finally:
            if unanswered and not runner.closed:
                runner.call(self._give_up, list(unanswered), None if in_time else time)
        if failed:
            raise failed[0]
        if not in_time and not operations:
            raise _never_started(time)
        if not return_exceptions:
            for operation in operations:
                if operation.error is not None:
                    raise operation.error
        return [one.result if one.error is None else one.error for one in operations]

    @overload
    def get(
        self, name: str, request: Any = "", *, timeout: Timeout = DEFAULT, nt: bool | None = None
    ) -> Any: ...
    @overload
    def get(
        self,
        name: Iterable[str],
        request: Any = "",
        *,
        timeout: Timeout = DEFAULT,
        nt: bool | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]: ...
    def get(
        self,
        name: str | Iterable[str],
        request: Any = "",
        *,
        timeout: Timeout = DEFAULT,
        nt: bool | None = None,
        return_exceptions: bool = False,
    ) -> Any:
        """The value of a channel; of several, a list of values, asked for at the same time.

        return_exceptions: of several, errors stand in the list; else the first one is raised.
        """
        if isinstance(name, str):
            return self._shown(self._run(timeout, self._get, name, request), nt)
        wanted: Any = [(self._get, (one, request)) for one in name]
        return [self._shown(one, nt) for one in self._run_all(timeout, wanted, return_exceptions)]

    def put(
        self,
        name: str | Iterable[str],
        value: Any,
        request: Any = "",
        *,
        wait: bool | None = None,
        process: bool | str | None = None,
        get: bool | None = None,
        timeout: Timeout = DEFAULT,
    ) -> None:
        """Write a value; with a list of names a list of values, at the same time. Arguments as of pvafast.Client.put."""
        many = [(name, value)] if isinstance(name, str) else pairs(name, value)
        wanted: Any = [(self._put, (one, x, request, wait, process, get)) for one, x in many]
        self._run_all(timeout, wanted)

    def put_get(
        self, name: str, value: Any, request: Any = "", *, timeout: Timeout = DEFAULT, nt: bool | None = None
    ) -> Any:
        """Write a value, let the server process it, and read what came of it. pvxs servers do not answer to this."""
        return self._shown(self._run(timeout, self._put_get, name, value, request), nt)

    def rpc(
        self,
        name: str,
        argument: Any = None,
        *,
        request: Any = "",
        timeout: Timeout = DEFAULT,
        nt: bool | None = None,
        **query: Any,
    ) -> Any:
        """Call a channel. argument: a Value or AnyValue; or a dict, or keywords, that become the query of an NTURI."""
        return self._shown(self._run(timeout, self._rpc, name, argument, request, query), nt)

    def process(self, name: str, request: Any = "", *, timeout: Timeout = DEFAULT) -> None:
        """Process a record. pvxs servers do not answer to this: put with process=True there."""
        self._run(timeout, self._process, name, request)

    def info(self, name: str, field: str = "", *, timeout: Timeout = DEFAULT) -> FieldDesc:
        """The type of a channel, or of a field of it (pvxs servers tell the whole in any case)."""
        found: FieldDesc = self._run(timeout, self._info, name, field)
        return found

    def array_get(
        self,
        name: str,
        offset: int = 0,
        count: int = 0,
        stride: int = 1,
        *,
        request: Any = "field(value)",
        timeout: Timeout = DEFAULT,
    ) -> Any:
        """Part of an array: `count` elements (0: to the end) from `offset` on, each `stride`-th. pvxs servers do not answer."""
        return self._run(timeout, self._array_get, name, offset, count, stride, request)

    def array_put(
        self,
        name: str,
        values: Any,
        offset: int = 0,
        stride: int = 1,
        *,
        request: Any = "field(value)",
        timeout: Timeout = DEFAULT,
    ) -> None:
        """Write part of an array, from `offset` on, each `stride`-th element. pvxs servers do not answer."""
        self._run(timeout, self._array_put, name, values, offset, stride, request)

    def array_length(self, name: str, *, request: Any = "field(value)", timeout: Timeout = DEFAULT) -> int:
        """The length of an array. pvxs servers do not answer."""
        return int(self._run(timeout, self._array_length, name, request))

    def array_set_length(
        self, name: str, length: int, *, request: Any = "field(value)", timeout: Timeout = DEFAULT
    ) -> None:
        """Set the length of an array. pvxs servers do not answer."""
        self._run(timeout, self._array_set_length, name, length, request)

    def connect(self, name: str | Iterable[str], *, timeout: Timeout = DEFAULT) -> None:
        """Wait until a channel, or several, are open."""
        wanted: Any = [(self._connect, (one,)) for one in ([name] if isinstance(name, str) else name)]
        self._run_all(timeout, wanted)

    def list_pvs(self, server: Any, *, timeout: Timeout = DEFAULT) -> list[str]:
        """The names of the channels of a server, "host[:port]" or an address, as far as it tells."""
        return names_of(self._run(timeout, self._server_rpc, server, "channels"))

    def server_info(self, server: Any, *, timeout: Timeout = DEFAULT) -> Any:
        """What a server says of itself: a Value with implLang and version."""
        return self._run(timeout, self._server_rpc, server, "info")

    def monitor(
        self,
        name: str,
        request: Any = "",
        *,
        queue_size: int | None = None,
        pipeline: bool = False,
        ack_any: int | str | None = None,
        events: bool = False,
        nt: bool | None = None,
        callback: Callable[[Any], object] | None = None,
        columns: Iterable[str] | None = None,
        pool: FramePool | None = None,
    ) -> Subscription:
        """Subscribe to a channel: an iterator of Reading. It begins at once, and goes on until it is closed.

        Arguments as of pvafast.Client.monitor. callback: called in whichever thread runs the client's loop.
        """
        options = self._options(
            nt,
            queue_size=queue_size,
            pipeline=pipeline,
            ack_any=ack_any,
            events=events,
            callback=callback,
            columns=columns,
            pool=pool,
        )

        feed = self._runner.call(lambda: _Subscription(self._started().channel(name), request, options))
        # Few enough that queue_size stays what it says.
        at_once = max(1, feed.limit // 8)
        return Subscription(feed, self._runner, kept=callback is not None, at_once=at_once)

    def search(self, name: str, *, timeout: Timeout = DEFAULT) -> ServerInfo:
        """The server that answers to the name of a channel: (address, guid)."""
        found: ServerInfo = self._run(timeout, self._search, name)
        return found

    def list_servers(self, timeout: float = 2.0) -> list[ServerInfo]:
        """The servers that answer within `timeout` seconds, by their addresses."""
        found: list[ServerInfo] = self._run(None, self._census, timeout)
        return found

    def servers(self, callback: Callable[[ServerEvent], object] | None = None) -> Watch:
        """Follow which servers there are: an iterator of ServerEvents, or callback(event). close() it."""
        feed = self._runner.call(lambda: _Watch("servers", self._started().searcher, callback))
        return Watch(feed, self._runner, kept=callback is not None)

    def beacons(self, callback: Callable[[BeaconEvent], object] | None = None) -> Watch:
        """Follow the beacons of servers: an iterator of BeaconEvents, or callback(event). close() it."""
        feed = self._runner.call(lambda: _Watch("beacons", self._started().searcher, callback))
        return Watch(feed, self._runner, kept=callback is not None)


def _never_started(time: float | None) -> OperationTimeout:
    return OperationTimeout("", "a call", time or 0, "another thread runs the client, and did not come to it")

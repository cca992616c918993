"""The client for asyncio: futures and async iterators on the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, Unpack, final, overload

from .. import _backend
from ..errors import ClientClosed
from ..network.loop import refuse_proactor
from .base import DEFAULT, BaseClient, ServerInfo, Timeout, names_of, pairs
from .engine import Engine
from .feed import Feed, Watch
from .operations import Request
from .servers import BeaconEvent, ServerEvent
from .subscription import Event, MonitorOptions, Readable, Reading, Subscription

if TYPE_CHECKING:
    from ..ndarray import FramePool

Columns = _backend.columns.Columns
FieldDesc = _backend.introspection.FieldDesc

Item = TypeVar("Item")


class AsyncFeed(Generic[Item]):
    """An async iterator of what a Feed holds. Who forgets it closes it: `async for ... in client.monitor(...)` may be left."""

    def __init__(self, feed: Feed, loop: asyncio.AbstractEventLoop, *, kept: bool) -> None:
        """kept: it goes on when it is forgotten, for it has a callback."""
        self._feed: Any = feed
        self._loop = loop
        self._kept = kept
        self._future: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        """Of the channel."""
        return str(self._feed.name)

    @property
    def waiting(self) -> int:
        """How many items wait to be taken."""
        return int(self._feed.waiting)

    def close(self) -> None:
        """End it. What waits can still be taken."""
        self._feed.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        feed = self._feed
        while not feed._queue:
            if feed._ended:
                if feed._error is not None:
                    error, feed._error = feed._error, None
                    raise error
                raise StopAsyncIteration
            await self._something(feed)
        item: Item = feed._take()
        return item

    async def next(self, timeout: float | None = None) -> Item:
        """The next item. TimeoutError if none comes in time, StopAsyncIteration at the end."""
        async with asyncio.timeout(timeout):
            return await self.__anext__()

    async def _something(self, feed: Feed) -> None:
        """Until something comes, or the end."""
        if self._future is not None:
            raise RuntimeError(f"two tasks read {self.name!r}")
        self._future = future = asyncio.get_running_loop().create_future()

        def woken() -> None:
            feed._wake = None
            if not future.done():
                future.set_result(None)

        feed._wake = woken
        try:
            await future
        finally:
            self._future = None
            feed._wake = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # From whatever thread; nothing to do where __init__ failed.
        if not getattr(self, "_kept", True) and not self._feed._ended:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._feed.close)


@final
class AsyncSubscription(AsyncFeed[Item], Readable):
    """The updates of a channel: an async iterator of Reading (or as Client.monitor says, which makes it).

    It ends when it is closed, or forgotten, or when the server ends it; RemoteError where the server says that it failed. A lost
    connection does not end it: it goes on, with the whole value first, when the channel is found again. What waits is
    taken before the end is told.
    """

    def pause(self) -> None:
        """Let the server send nothing until resume()."""
        self._feed.pause()

    def resume(self) -> None:
        """Let it send again."""
        self._feed.resume()


@final
class AsyncWatch(AsyncFeed[Item]):
    """What servers tell of themselves: an async iterator, made by Client.beacons and Client.servers."""

    @property
    def dropped(self) -> int:
        """How many events were lost because nobody took them."""
        return int(self._feed.dropped)


class _All:
    """Requests that are waited for together."""

    __slots__ = ("future", "left")

    def __init__(self, future: asyncio.Future[None], left: int) -> None:
        self.future = future
        self.left = left

    def __call__(self, operation: Request) -> None:
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(None)


class _Any(_All):
    """The same, given up at the first error."""

    __slots__ = ()

    def __call__(self, operation: Request) -> None:
        self.left -= 1
        if (not self.left or operation.error is not None) and not self.future.done():
            self.future.set_result(None)


@final
class Client(BaseClient):
    """A PVAccess client for asyncio: channels by name, found, kept open and found again behind the scenes.

    config: which servers to search where; None: of the environment (EPICS_PVA_ADDR_LIST...), with `settings` (addr_list=,
    name_servers=...: fields of ClientConfig) in place of it. server: "host[:port]", the one server that has every
    channel: no search. timeout: seconds, of all methods that do not say otherwise; None: for ever. nt: give results as the
    normative types read (a float with .timestamp, a Frame...), not as Values. limits: of what a server can cause.
    user, host: who one says to be (method "ca"); None: login and host name. rcvbuf: SO_RCVBUF of the connections.

    All methods raise OperationTimeout, RemoteError (of the server's status), Disconnected where a request may or may not have
    been carried out, ClientClosed. pvRequests (`request`) are text ("field(value)record[process=true]"), or a Value.
    Use it from one event loop only, `async with`, or call close().
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _done = False

    async def __aenter__(self) -> Client:
        self._started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all channels and connections. What is under way ends in ClientClosed."""
        self._done = True
        if self._engine is not None:
            self._engine.close()
            await asyncio.sleep(0)  # for what the loop is to do at the end

    def _started(self) -> Engine:
        loop = asyncio.get_running_loop()
        if self._engine is None:
            if self._done:
                raise ClientClosed("the client is closed")
            refuse_proactor(loop)
            self._engine = self._new_engine(loop)
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("the client belongs to another event loop")
        return self._engine

    async def _run(self, operation: Request, timeout: Timeout) -> Any:
        """Wait for a request."""
        future = asyncio.get_running_loop().create_future()
        operation.done = _All(future, 1)
        self._started().run(operation, self._time(timeout))
        try:
            await future
        except asyncio.CancelledError:
            operation.cancel()
            raise
        if operation.error is not None:
            raise operation.error
        return operation.result

    async def _run_all(
        self, operations: list[Any], timeout: Timeout, return_exceptions: bool = False
    ) -> list[Any]:
        """Wait for requests that run at the same time."""
        if not operations:
            return []
        engine = self._started()
        future = asyncio.get_running_loop().create_future()
        done = (_All if return_exceptions else _Any)(future, len(operations))
        time = self._time(timeout)
        for operation in operations:
            operation.done = done
            engine.run(operation, time)
        try:
            await future
        finally:
            if done.left:
                for operation in operations:
                    operation.cancel()
        if not return_exceptions:
            for operation in operations:
                if operation.error is not None:
                    raise operation.error
        return [one.result if one.error is None else one.error for one in operations]

    @overload
    async def get(
        self, name: str, request: Any = "", *, timeout: Timeout = DEFAULT, nt: bool | None = None
    ) -> Any: ...
    @overload
    async def get(
        self,
        name: Iterable[str],
        request: Any = "",
        *,
        timeout: Timeout = DEFAULT,
        nt: bool | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]: ...
    async def get(
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
            return self._shown(await self._run(self._get(name, request), timeout), nt)
        operations = [self._get(one, request) for one in name]
        found = await self._run_all(operations, timeout, return_exceptions)
        return [self._shown(one, nt) for one in found]

    async def put(
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
        """Write a value; with a list of names a list of values, at the same time.

        value: for the field `value` (of an NTEnum the index or the name of a choice, of an NTNDArray an array), a dict of
        fields (dotted names may be used), a Value, of which the marked fields are written, or a function of the Value that is there, which
        returns one of these. wait: the answer comes when the record has been processed (record[block=...]). process: True,
        False, "passive". get: read the value that is there first; None: only where it is needed.
        """
        if isinstance(name, str):
            await self._run(self._put(name, value, request, wait, process, get), timeout)
            return
        operations = [self._put(one, x, request, wait, process, get) for one, x in pairs(name, value)]
        await self._run_all(operations, timeout)

    async def put_get(
        self, name: str, value: Any, request: Any = "", *, timeout: Timeout = DEFAULT, nt: bool | None = None
    ) -> Any:
        """Write a value, let the server process it, and read what came of it. pvxs servers do not answer to this."""
        return self._shown(await self._run(self._put_get(name, value, request), timeout), nt)

    async def rpc(
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
        return self._shown(await self._run(self._rpc(name, argument, request, query), timeout), nt)

    async def process(self, name: str, request: Any = "", *, timeout: Timeout = DEFAULT) -> None:
        """Process a record. pvxs servers do not answer to this: put with process=True there."""
        await self._run(self._process(name, request), timeout)

    async def info(self, name: str, field: str = "", *, timeout: Timeout = DEFAULT) -> FieldDesc:
        """The type of a channel, or of a field of it (pvxs servers tell the whole in any case)."""
        found: FieldDesc = await self._run(self._info(name, field), timeout)
        return found

    async def array_get(
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
        return await self._run(self._array_get(name, offset, count, stride, request), timeout)

    async def array_put(
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
        await self._run(self._array_put(name, values, offset, stride, request), timeout)

    async def array_length(
        self, name: str, *, request: Any = "field(value)", timeout: Timeout = DEFAULT
    ) -> int:
        """The length of an array. pvxs servers do not answer."""
        return int(await self._run(self._array_length(name, request), timeout))

    async def array_set_length(
        self, name: str, length: int, *, request: Any = "field(value)", timeout: Timeout = DEFAULT
    ) -> None:
        """Set the length of an array. pvxs servers do not answer."""
        await self._run(self._array_set_length(name, length, request), timeout)

    async def connect(self, name: str | Iterable[str], *, timeout: Timeout = DEFAULT) -> None:
        """Wait until a channel, or several, are open."""
        names = [name] if isinstance(name, str) else name
        await self._run_all([self._connect(one) for one in names], timeout)

    async def list_pvs(self, server: Any, *, timeout: Timeout = DEFAULT) -> list[str]:
        """The names of the channels of a server, "host[:port]" or an address, as far as it tells."""
        return names_of(await self._run(self._server_rpc(server, "channels"), timeout))

    async def server_info(self, server: Any, *, timeout: Timeout = DEFAULT) -> Any:
        """What a server says of itself: a Value with implLang and version."""
        return await self._run(self._server_rpc(server, "info"), timeout)

    async def search(self, name: str, *, timeout: Timeout = DEFAULT) -> ServerInfo:
        """The server that answers to the name of a channel: (address, guid)."""
        found: ServerInfo = await self._run(self._search(name), timeout)
        return found

    async def list_servers(self, timeout: float = 2.0) -> list[ServerInfo]:
        """The servers that answer within `timeout` seconds, by their addresses."""
        found: list[ServerInfo] = await self._run(self._census(timeout), None)
        return found

    def servers(self, callback: Callable[[ServerEvent], object] | None = None) -> AsyncWatch[ServerEvent]:
        """Follow which servers there are: an async iterator of ServerEvents, or callback(event). close() it."""
        feed = Watch("servers", self._started().searcher, callback)
        return AsyncWatch(feed, asyncio.get_running_loop(), kept=callback is not None)

    def beacons(self, callback: Callable[[BeaconEvent], object] | None = None) -> AsyncWatch[BeaconEvent]:
        """Follow the beacons of servers: an async iterator of BeaconEvents, or callback(event). close() it."""
        feed = Watch("beacons", self._started().searcher, callback)
        return AsyncWatch(feed, asyncio.get_running_loop(), kept=callback is not None)

    @overload
    def monitor(
        self,
        name: str,
        request: Any = "",
        *,
        events: Literal[False] = False,
        columns: None = None,
        callback: Callable[[Reading], object] | None = None,
        **options: Unpack[MonitorOptions],
    ) -> AsyncSubscription[Reading]: ...
    @overload
    def monitor(
        self,
        name: str,
        request: Any = "",
        *,
        events: Literal[True],
        columns: None = None,
        callback: Callable[[Reading | Event], object] | None = None,
        **options: Unpack[MonitorOptions],
    ) -> AsyncSubscription[Reading | Event]: ...
    @overload
    def monitor(
        self,
        name: str,
        request: Any = "",
        *,
        events: Literal[False] = False,
        columns: Iterable[str],
        callback: Callable[[Columns], object] | None = None,
        **options: Unpack[MonitorOptions],
    ) -> AsyncSubscription[Columns]: ...
    @overload
    def monitor(
        self,
        name: str,
        request: Any = "",
        *,
        events: Literal[True],
        columns: Iterable[str],
        callback: Callable[[Columns | Event], object] | None = None,
        **options: Unpack[MonitorOptions],
    ) -> AsyncSubscription[Columns | Event]: ...
    @overload
    def monitor(
        self,
        name: str,
        request: Any = "",
        *,
        events: bool = False,
        columns: Iterable[str] | None = None,
        callback: Callable[[Any], object] | None = None,
        **options: Unpack[MonitorOptions],
    ) -> AsyncSubscription[Any]: ...
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
    ) -> AsyncSubscription[Any]:
        """Subscribe to a channel: an async iterator of Reading. It begins at once, and goes on until it is closed.

        queue_size: how many updates may wait, at the server (record[queueSize=...]) and here; by default as the server has
        it, and 16,384 here (of large ones 64 MiB). When more come than are taken, updates are merged into the last that waits and counted,
        see Reading.dropped and Reading.overrun. pipeline: the server sends only as many as were taken: it merges, this end loses
        nothing. ack_any: after how many taken to tell it, a number or "50%". events: also give Connected, Disconnected,
        TypeChanged and Finished. callback: called in the loop with each item, in place of the queue.

        columns: names of fields, () all: it is an iterator of pvafast.Columns, each with the updates since the one before, a
        row each; queue_size: 1,000,000 rows by default (or 256 MiB), and when it is exceeded the rows that wait are dropped and counted.
        pool: of frames; reading.value is a Frame in the pool's memory, received in place where it can be; when the pool is full, updates
        are dropped and counted.
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
        feed = Subscription(self._started().channel(name), request, options)
        return AsyncSubscription(feed, asyncio.get_running_loop(), kept=callback is not None)

"""The client for programs without asyncio."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Unpack, final, overload

from .. import _backend
from ..client.base import DEFAULT, BaseClient, ChannelStatus, ServerInfo, Timeout, names_of, pairs
from ..client.engine import Engine
from ..client.feed import Watch as _Watch
from ..client.operations import Request
from ..client.servers import BeaconEvent, ServerEvent
from ..client.subscription import Event, MonitorOptions, Reading
from ..client.subscription import Subscription as _Subscription
from ..errors import ClientClosed, OperationTimeout
from .feed import Subscription, Watch
from .runner import Runner, Waiter

if TYPE_CHECKING:
    from ..ndarray import FramePool

Columns = _backend.columns.Columns
FieldDesc = _backend.introspection.FieldDesc


@final
class Client(BaseClient):
    """A PVAccess client for programs without asyncio: as pvafast.Client, and each method waits for its answer.

    From any thread. Several may wait at the same time: one of them runs the loop for all. Callbacks are called in the thread that
    runs it, or in a daemon thread while none does; they must not wait for the client themselves. Not to be used in
    the child of a fork: make a new one there. Use it with `with`, or call close().
    """

    def __init__(self, config: Any = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._runner = runner = Runner()
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
        waiter = Waiter()
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

        def give_up() -> None:
            if operation is not None and (failed is not None or not waiter.done):
                self._give_up([operation], None if in_time else time)

        in_time = True
        try:
            in_time = runner.wait(waiter, start, time)
        finally:
            if waiter.begun and (failed is not None or not waiter.done) and not runner.closed:
                runner.call(give_up)
        if failed is not None:
            raise failed
        if not waiter.begun:
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
        waiter = Waiter()
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

        def give_up() -> None:
            self._give_up(list(unanswered), None if in_time else time)

        if not wanted:
            return []
        in_time = True
        try:
            in_time = runner.wait(waiter, start, time)
        finally:
            if waiter.begun and (unanswered or not waiter.done) and not runner.closed:
                runner.call(give_up)
        if failed:
            raise failed[0]
        if not waiter.begun:
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
    ) -> Subscription[Reading]: ...
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
    ) -> Subscription[Reading | Event]: ...
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
    ) -> Subscription[Columns]: ...
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
    ) -> Subscription[Columns | Event]: ...
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
    ) -> Subscription[Any]: ...
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
    ) -> Subscription[Any]:
        """Subscribe to a channel: an iterator of Reading. It begins at once, and goes on until it is closed.

        Arguments as of pvafast.Client.monitor. callback: called in whichever thread runs the client's loop.
        """
        options = self._options(
            nt,
            queue_size=queue_size,
            pipeline=pipeline,
            ack_any=ack_any,
            events=events,
            callback=self._runner.shielded(callback),
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

    def servers(self, callback: Callable[[ServerEvent], object] | None = None) -> Watch[ServerEvent]:
        """Follow which servers there are: an iterator of ServerEvents, or callback(event). close() it."""
        shielded = self._runner.shielded(callback)
        feed = self._runner.call(lambda: _Watch("servers", self._started().searcher, shielded))
        return Watch(feed, self._runner, kept=callback is not None)

    def beacons(self, callback: Callable[[BeaconEvent], object] | None = None) -> Watch[BeaconEvent]:
        """Follow the beacons of servers: an iterator of BeaconEvents, or callback(event). close() it."""
        shielded = self._runner.shielded(callback)
        feed = self._runner.call(lambda: _Watch("beacons", self._started().searcher, shielded))
        return Watch(feed, self._runner, kept=callback is not None)


def _never_started(time: float | None) -> OperationTimeout:
    return OperationTimeout("", "a call", time or 0, "another thread runs the client, and did not come to it")

"""A subscription: the updates of a channel, queued for whoever reads them, over disconnects and new types."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict, final

from .. import _backend, messages, normative
from ..connection import Update
from ..errors import EncodeError, NormativeError
from ..request import Request
from .channel import CLOSED, OPEN
from .feed import Feed
from .operations import remote_error

if TYPE_CHECKING:
    from ..connection import ConnectionOperation
    from ..ndarray import FramePool
    from .channel import Channel

BitSet = _backend.bitset.BitSet
Codec = _backend.codec.Codec
Columns = _backend.columns.Columns
Losses = _backend.losses.Losses
FieldDesc = _backend.introspection.FieldDesc
Value = _backend.value.Value

_log = logging.getLogger("pvafast.client")

# Updates that wait for the program, unless it says how many; and of large ones, so many bytes at most.
_QUEUE: Final = 16_384
# When so many wait, nothing more is read before the program had its turn. What one read brings fits behind them.
_CROWD: Final = _QUEUE // 4
_QUEUE_BYTES: Final = 64 << 20
_CROWD_BYTES: Final = 1 << 19
# The same of rows in Columns.
_ROWS: Final = 1_000_000
_ROWS_BYTES: Final = 256 << 20
# Messages from this size on are counted by their bytes, too.
_LARGE: Final = 1 << 16
# The window of a pipelined monitor, unless the program says how large: pvxs refuses one below 2.
_WINDOW: Final = 16


@lru_cache(maxsize=256)
def _in_both(type: FieldDesc, first: BitSet, second: BitSet) -> BitSet:
    """The leaves that both updates carry."""
    return BitSet(set(first.expand(type)).intersection(second.expand(type)))


def shown(value: Value) -> Any:
    """What the normative type holds; the Value itself where it is none, or only some fields without `value` were asked for."""
    try:
        return normative.read(value)
    except NormativeError:
        if "value" in value.type:
            raise
        return value


@final
class Reading:
    """An update of a channel.

    raw: the Value, laid over the one before. overrun: the fields that changed more than once, of which older values are lost.
    received: when it came, in ns since 1970, by this computer's clock. dropped: how many updates were merged into this one
    because the program was too slow for its queue. name: of the channel.
    """

    __slots__ = ("_nt", "_value", "dropped", "name", "overrun", "raw", "received")

    raw: Value
    overrun: BitSet
    received: int
    dropped: int
    name: str
    _value: Any

    def __init__(
        self, name: str, raw: Value, overrun: BitSet, received: int, dropped: int = 0, nt: bool = True
    ) -> None:
        self.name = name
        self.raw = raw
        self.overrun = overrun
        self.received = received
        self.dropped = dropped
        self._nt = nt

    @property
    def value(self) -> Any:
        """What the normative type holds (as of pvafast.normative.read); the raw Value of any other type, or with nt=False."""
        if not self._nt:
            return self.raw
        try:
            return self._value
        except AttributeError:
            self._value = found = shown(self.raw)
            return found

    @property
    def type(self) -> FieldDesc:
        """The type of the value."""
        return self.raw.type

    @property
    def changed(self) -> BitSet:
        """The bits of the fields that came with it."""
        return self.raw.changed

    def changed_names(self) -> list[str]:
        """The dotted names of the fields that came with it."""
        return self.raw.changed_names()

    def __repr__(self) -> str:
        overrun = f", overrun={self.overrun!r}" if self.overrun else ""
        dropped = f", dropped={self.dropped}" if self.dropped else ""
        return f"<Reading {self.name!r} {self.raw!r}{overrun}{dropped}>"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """The subscription is open on a server; its first update, with everything, comes next."""

    name: str
    server: str
    type: FieldDesc


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected:
    """The channel is gone; it is searched for, and the subscription goes on when it is found."""

    name: str
    reason: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TypeChanged:
    """The channel came back with another type. It is told after Connected, before the first update."""

    name: str
    old: FieldDesc
    new: FieldDesc


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The server has ended the subscription: nothing comes after it."""

    name: str


Event: TypeAlias = Connected | Disconnected | TypeChanged | Finished


class MonitorOptions(TypedDict, total=False):
    """The arguments of Client.monitor that do not say what it is an iterator of."""

    queue_size: int | None
    pipeline: bool
    ack_any: int | str | None
    nt: bool | None
    pool: FramePool | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a program wants a subscription; as of Client.monitor. ValueError for what does not go together."""

    queue_size: int | None = None
    pipeline: bool = False
    ack_any: int | str | None = None
    events: bool = False
    nt: bool = True
    callback: Callable[[Any], object] | None = None
    columns: tuple[str, ...] | None = None
    pool: FramePool | None = None

    def __post_init__(self) -> None:
        if self.queue_size is not None and self.queue_size < 1:
            raise ValueError(f"a queue of {self.queue_size}")
        if self.pool is not None and self.columns is not None:
            raise ValueError("columns have no frames: give columns or pool")
        if self.pool is not None and self.pool.on_full == "block":
            raise ValueError("a pool that blocks would stop the client: use on_full='drop' or 'allocate'")


class Subscription(Feed):
    """The updates of a channel, as a queue of at most `limit` items.

    name: of the channel. type: of its values, None before it was first open. received: updates that came. dropped: updates
    that were merged into the one before, because the queue was full. overruns: updates that came with overruns: values lost
    at the server. For the loop's thread only.
    """

    def __init__(self, channel: Channel, request: Any, options: Options) -> None:
        super().__init__(channel.name)
        self.type: FieldDesc | None = None
        self.received = 0
        self.dropped = 0
        self.overruns = 0
        self.losses = Losses()
        self.connected = False
        self._channel = channel
        self._options = options
        self._nt = options.nt
        self._callback = options.callback
        self._pool = options.pool
        self._paused = False
        self._handle: ConnectionOperation | None = None
        self._waiting_bytes = 0
        wanted = self._wanted(Request.of(request), options)
        self._request = wanted.to_value()
        size = wanted.queue_size
        self._window = (size or _WINDOW) if wanted.pipeline else None
        self._ack_at = 0 if self._window is None else wanted.ack_at(self._window)
        self._taken = 0
        # An explicit size is what the program is ready to fall behind.
        default = _QUEUE if options.columns is None else _ROWS
        self.limit = max(size or 0, self._window or 0) or default
        self._columns: Columns | None = None
        channel.subscribe(self)

    @staticmethod
    def _wanted(request: Request, options: Options) -> Request:
        """The pvRequest with the options in it."""
        more: dict[str, str] = {}
        if options.queue_size is not None:
            more["queueSize"] = str(options.queue_size)
        if options.pipeline or request.pipeline:
            more["pipeline"] = "true"
            if options.queue_size is None and request.queue_size is None:
                more["queueSize"] = str(_WINDOW)
        if options.ack_any is not None:
            more["ackAny"] = str(options.ack_any)
        return request.with_options(more) if more else request

    # -- what the program does

    def pause(self) -> None:
        """Let the server send nothing until resume()."""
        if not self._paused:
            self._paused = True
            self._send(messages.MonitorStop)

    def resume(self) -> None:
        """Let it send again."""
        if self._paused:
            self._paused = False
            self._send(messages.MonitorStart)

    def close(self) -> None:
        """End it. What waits can still be taken."""
        if self._ended:
            return
        self.end(None)

    # -- what the channel does

    def begin(self) -> None:
        """The channel is open."""
        link = self._channel.link
        assert link is not None
        ioid = link.connection.new_ioid()
        link.stream.send(
            messages.MonitorInit(sid=self._channel.sid, ioid=ioid, request=self._request, nfree=self._window)
        )
        self._handle = handle = link.connection.operations[ioid]
        handle.owner = self
        self._taken = 0
        if self._pool is not None:
            link.connection.allocate = self._pool.allocate

    def lost(self, reason: str, was_open: bool) -> None:
        """The channel is gone for now."""
        self._handle = None
        self.losses.gap()
        if self.connected:
            self.connected = False
            self._happened(Disconnected(name=self.name, reason=reason))

    def replied(self, message: Any) -> None:
        """The answer to the INIT, or the end."""
        if isinstance(message, messages.MonitorInitReply):
            if message.status.ok:
                self._opened(message.type)
            else:
                self._handle = None
                self.end(remote_error(message.status))
        elif isinstance(message, messages.MonitorFinal):
            handle, self._handle = self._handle, None
            if message.value is not None and handle is not None:
                self._last(message.value, message.overrun)
            if message.status.ok:
                self._happened(Finished(name=self.name))
            self.end(None if message.status.ok else remote_error(message.status))
        elif not message.status.ok:
            self.end(remote_error(message.status))

    def update(self, update: Update) -> None:
        """An update has come."""
        self.received += 1
        self.losses.add(update)
        if update.overrun:
            self.overruns += 1
        if self._pool is not None:
            self._pooled(update)
            return
        if self._callback is not None:
            self._call(self._reading(update), 1)
            return
        queue = self._queue
        size = update.frame.end - update.frame.start
        if size >= _LARGE:
            self._waiting_bytes += size
        if len(queue) < self.limit and (self._waiting_bytes <= _QUEUE_BYTES or not queue):
            queue.append(update)
            if len(queue) >= _CROWD or self._waiting_bytes > _CROWD_BYTES:
                self._crowded()
        else:
            self._merge(update, size)
        if self._wake is not None:
            self._wake()

    def collected(self, rows: int, nbytes: int) -> None:
        """So many rows have come into the Columns."""
        self.received += rows
        columns = self._columns
        assert columns is not None
        if self._callback is not None:
            self._call(columns.take(), rows)
            return
        queue = self._queue
        if not queue or queue[-1] is not columns:
            queue.append(columns)
            self._waiting_bytes = 0
        self._waiting_bytes += nbytes
        if len(columns) > self.limit or self._waiting_bytes > _ROWS_BYTES:
            if not self.dropped:
                _log.warning("%r: the program is too slow: rows are dropped", self.name)
            self.dropped += len(columns)
            columns.clear()
            queue.pop()
        elif len(columns) > self.limit // 4 or self._waiting_bytes > _ROWS_BYTES // 4:
            self._crowded()
        self._ring()

    # -- inside

    def _crowded(self) -> None:
        """Let nothing more be read before the program had its turn."""
        link = self._channel.link
        if link is not None:
            link.crowded = True

    def _pooled(self, update: Update) -> None:
        """An update whose frame belongs into the pool."""
        reading = self._reading(update)
        assert self._pool is not None
        try:
            frame = self._pool.frame(update.value)
        except NormativeError:
            pass  # the program meets it when it looks at the value
        else:
            if frame is None:
                self.dropped += 1
                return
            reading._value = frame
        if self._callback is not None:
            self._call(reading, 1)
        elif len(self._queue) < self.limit:
            self._queue.append(reading)
            waiting = len(self._queue)
            if (
                2 * waiting >= self._pool.count
                or waiting * (update.frame.end - update.frame.start) > _CROWD_BYTES
            ):
                self._crowded()
            self._ring()
        else:
            # The newest frame in place of the last that waits.
            self.dropped += 1
            last = self._queue[-1]
            if type(last) is Reading:
                reading.dropped = last.dropped + 1
                self._queue.pop()
            self._queue.append(reading)

    def _opened(self, type: FieldDesc | None) -> None:
        assert type is not None
        old, self.type = self.type, type
        self.connected = True
        self._happened(Connected(name=self.name, server=self._channel.server_name, type=type))
        if old is not None and old != type:
            _log.warning("%r has another type now: %s", self.name, type.format("short"))
            self._happened(TypeChanged(name=self.name, old=old, new=type))
        if self._options.columns is not None:
            assert self._handle is not None
            link = self._channel.link
            assert link is not None
            try:
                self._columns = link.connection.collect(self._handle.ioid, self._options.columns or None)
            except KeyError as error:
                self.end(EncodeError(f"{self.name!r} has no field {error}"))
                return
        if not self._paused:
            self._send(messages.MonitorStart)

    def _send(self, message: Any) -> None:
        """Send a request of this subscription, if it is open."""
        handle, link = self._handle, self._channel.link
        if handle is not None and handle.ready and link is not None:
            link.stream.send(message(sid=handle.sid, ioid=handle.ioid))

    def _happened(self, event: Event) -> None:
        if not self._options.events:
            return
        if self._callback is not None:
            self._call(event)
            return
        if len(self._queue) >= 2 * self.limit:
            # A channel that comes and goes while nobody looks.
            self._queue.pop()
        self._queue.append(event)
        self._ring()

    def _call(self, item: Any, count: int = 0) -> None:
        """Hand over to the callback. count: how many updates that is."""
        assert self._callback is not None
        try:
            self._callback(item)
        except Exception:
            _log.exception("error in the callback of %r", self.name)
        if self._ack_at and count:
            self._acknowledge(count)

    def _last(self, value: Value, overrun: BitSet) -> None:
        """The value that came with the end."""
        if self._columns is not None:
            self._columns.add_update(Codec().encode_update(value), received=time.time_ns())
            self.collected(1, 0)
            return
        self.received += 1
        reading = Reading(self.name, value, overrun, time.time_ns(), 0, self._nt)
        if self._callback is not None:
            self._call(reading, 1)
        else:
            self._queue.append(reading)

    def _reading(self, update: Update) -> Reading:
        return Reading(self.name, update.value, update.overrun, update.time, 0, self._nt)

    def _merge(self, update: Update, size: int) -> None:
        """The queue is full: lay the update over the last one that waits."""
        queue = self._queue
        last = queue[-1]
        if type(last) is Update:
            if size >= _LARGE:
                self._waiting_bytes -= min(size, last.frame.end - last.frame.start)
            last = self._reading(last)
            last.raw = last.raw.copy()
        elif type(last) is not Reading or last.raw.type != update.value.type:
            queue.append(update)
            return
        elif size >= _LARGE:
            self._waiting_bytes -= size
        self.dropped += 1
        last.dropped += 1
        last.overrun |= update.overrun | _in_both(last.raw.type, last.raw.changed, update.value.changed)
        last.received = update.time
        last.raw.overlay(update.value)
        queue[-1] = last

    def _take(self) -> Any:
        """The next item of the queue, which is not empty."""
        item = self._queue.popleft()
        if type(item) is Update:
            if self._waiting_bytes:
                size = item.frame.end - item.frame.start
                if size >= _LARGE:
                    self._waiting_bytes -= size
            item = Reading(self.name, item.value, item.overrun, item.time, 0, self._nt)
        elif type(item) is Columns:
            item = item.take()
            if self._ack_at:
                self._acknowledge(len(item))
            return item
        elif type(item) is not Reading:
            return item
        if self._ack_at:
            self._acknowledge(1)
        return item

    def _acknowledge(self, count: int) -> None:
        """Updates were taken: let the server send as many more, now and then."""
        self._taken += count
        handle, link = self._handle, self._channel.link
        if self._taken < self._ack_at or handle is None or link is None or handle.window is None:
            return
        nfree = min(self._taken, handle.queue - handle.window)
        self._taken = 0
        if nfree:
            link.stream.send(messages.MonitorAck(sid=handle.sid, ioid=handle.ioid, nfree=nfree))

    def end(self, error: Exception | None) -> None:
        """Nothing comes any more."""
        self._ended = True
        self._error = error
        self.connected = False
        handle, self._handle = self._handle, None
        channel = self._channel
        link = channel.link
        if self._pool is not None and link is not None and link.connection.allocate == self._pool.allocate:
            link.connection.allocate = None
        if handle is not None:
            handle.owner = None
            if channel.state == OPEN:
                channel.destroy(handle)
        if channel.state != CLOSED:
            channel.unsubscribe(self)
        self._ring()


class Readable:
    """What the faces show of a subscription."""

    _feed: Subscription

    @property
    def type(self) -> FieldDesc | None:
        """Of the values; None before it was first open."""
        return self._feed.type

    @property
    def connected(self) -> bool:
        """Whether the channel is open, and the subscription on it."""
        return self._feed.connected

    @property
    def received(self) -> int:
        """How many updates came."""
        return self._feed.received

    @property
    def dropped(self) -> int:
        """How many updates were merged into the one before, or dropped, because the queue, or the pool, was full."""
        return self._feed.dropped

    @property
    def losses(self) -> Losses:
        """What was lost on the way: overruns by field, frames missing, doubled or late, rates. Not of updates in Columns."""
        return self._feed.losses

    @property
    def overruns(self) -> int:
        """How many updates came with overruns: values that were lost at the server. Of updates in Columns: see Columns.overrun."""
        return self._feed.overruns

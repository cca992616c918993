"""What both ends of a connection share: the stream, the codecs of both directions, channels and operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from .. import messages
from .._backend import codec, columns, framing, value
from .._types import ANY, ANY_ARRAY
from ..errors import DecodeError, LimitExceeded, LocalProtocolError, ProtocolError
from ..limits import Limits
from ..messages.core import FieldDesc
from .events import ConnectionEnded, Event, Update

_DEFAULT_LIMITS: Final = Limits()
# Operations that have ended are kept for messages on their way: those may define type ids that later ones use.
_FORGOTTEN: Final = 1024
# The class of the answer, by the class of the request.
ANSWERS: Final[Mapping[type, type[messages.Reply]]] = {
    getattr(messages, name): getattr(messages, f"{name}Reply")
    for name in messages.__all__
    if f"{name}Reply" in messages.__all__ and issubclass(getattr(messages, name), messages.Request)
}


class Channel:
    """A channel of a connection. sid: None until the server has opened it."""

    __slots__ = ("cid", "closing", "ioids", "name", "sid")

    def __init__(self, cid: int, name: str) -> None:
        self.cid = cid
        self.name = name
        # Any in place of None: those who are told of a channel that was opened need not ask.
        self.sid: int | Any = None
        # Client: DestroyChannel was sent, the server has not confirmed it yet.
        self.closing = False
        # Of the operations alive; not they themselves, which refer to their channel: a cycle would keep their last values, maybe in a
        # pool, until the garbage collector comes.
        self.ioids: set[int] = set()

    def __repr__(self) -> str:
        return f"<Channel {self.name!r} cid={self.cid} sid={self.sid}>"


class ConnectionOperation(messages.Operation):
    """An operation of a connection.

    channel: its channel. ready: its INIT was answered well. busy: a request of it waits for its answer. started: of a
    monitor, updates may flow. window: of a pipelined monitor, how many updates may still be sent before the client
    acknowledges some; None for others. queue: client: what the window was at first. owner: for the program, to find again what
    the operation is for. columns: of a monitor of a client, what its updates go into (ClientConnection.collect).
    """

    __slots__ = (
        "ack_at", "again", "asked", "busy", "cancelled", "channel", "columns", "destroyed", "expects", "handed", "kept", "owner",
        "plain", "queue", "ready", "started", "window",
    )  # fmt: skip

    def __init__(self, command: int, ioid: int, channel: Channel, request: messages.AnyBody = None) -> None:
        super().__init__(command, ioid, sid=channel.sid or 0, pv=channel.name, request=request)
        self.channel = channel
        self.ready = False
        self.busy = False
        # The class of the answer that is due.
        self.expects: type[messages.Reply] | None = None
        self.cancelled = False
        self.started = False
        # The next answer is the last: the operation was to be destroyed after it.
        self.destroyed = False
        self.window: int | None = None
        self.queue = 0
        # Client, acknowledging by itself: how many updates were handed out since the last time, and when it is time.
        self.handed = 0
        self.ack_at = 0
        self.owner: Any = None
        self.columns: columns.Columns | None = None
        # Server: what the pvRequest weighs, and the request that waits for its answer.
        self.kept = 0
        self.asked = 0
        # Client, of a GET: the request, encoded.
        self.again = b""
        # Client, of a monitor: its type holds no any. None: nobody has looked.
        self.plain: bool | None = None
        # No one asks which fields were ever seen.
        self.seen = None

    @property
    def channel_cid(self) -> int | None:
        """The client's number of the channel."""
        return self.channel.cid

    def ask(self, message: messages.Request) -> None:
        """A request that will be answered is under way."""
        self.busy = True
        self.expects = ANSWERS[type(message)]
        self.destroyed = isinstance(message, messages.SubRequest) and message.destroy

    def answered(self) -> None:
        """Nothing is under way."""
        self.busy = False
        self.expects = None


class Connection(ABC):
    """The stream of one end: bytes in, events out, buffers to send. For one thread at a time."""

    _is_server = False

    def __init__(self, limits: Limits | None) -> None:
        self._limits = limits = _DEFAULT_LIMITS if limits is None else limits
        self._framer = framing.Framer(limits=limits, from_server=not self._is_server)
        self._in = codec.Codec(limits=limits)
        self._out = codec.Codec(limits=limits)
        self._byteorder = "little"
        self._outbox: list[Any] = []
        self._batch: list[framing.Message] = []
        self._at = 0
        self._ready: deque[Event | Update] = deque()
        self._time: Any = None
        # What is wrong behind the events that are ready; what is called with each event that is handed out.
        self._error: ProtocolError | None = None
        self._handed: Callable[[Any], None] | None = None
        self._eof = False
        self._failed = False
        self._ended = False
        self._operations: dict[int, ConnectionOperation] = {}
        self._forgotten: dict[int, ConnectionOperation] = {}

    @property
    def byteorder(self) -> str:
        """The byte order in which this end sends, "little" or "big"."""
        return self._byteorder

    @property
    def closed(self) -> bool:
        """Nothing more can be received or sent: the stream has ended, or an error was raised."""
        return self._failed or self._ended

    @property
    def allocate(self) -> Callable[[int], Any] | None:
        """Where large messages are received: `allocate(nbytes)` gives a writable buffer of so many bytes or more, or None.

        None, as it is at first: memory of the library's own. May be set at any time, to a FramePool's `allocate` for one.
        The last value of each monitor is kept, updates are laid over it: so one buffer for each monitor stays in use.
        """
        return self._framer.allocate

    @allocate.setter
    def allocate(self, allocate: Callable[[int], Any] | None) -> None:
        self._framer.allocate = allocate

    @property
    def operations(self) -> Mapping[int, ConnectionOperation]:
        """The operations that are alive, by ioid: what they are now, not a copy."""
        return MappingProxyType(self._operations)

    def receive_data(self, data: Any, time: Any = None) -> None:
        """The next bytes of the stream. `bytes` are kept (arrays are views of them), anything else is copied.

        time: comes back in the updates of monitors. LocalProtocolError once the connection is closed.
        """
        self._open()
        self._time = time
        self._framer.receive_data(data)

    def get_buffer(self, hint: int = -1) -> memoryview:
        """Memory to receive into, for recv_into() or asyncio's BufferedProtocol; call buffer_updated() afterwards."""
        self._open()
        return self._framer.get_buffer(hint)

    def buffer_updated(self, nbytes: int, time: Any = None) -> None:
        """So many bytes were received into the last get_buffer()."""
        self._open()
        self._time = time
        self._framer.buffer_updated(nbytes)

    def receive_eof(self) -> None:
        """The stream has ended: events() tells what is left, then ConnectionEnded."""
        self._open()
        self._eof = True

    def data_to_send(self) -> list[Any]:
        """Buffers that the connection itself wants sent (handshake, answers to echoes), in order, before all others."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def events(self) -> Iterator[Any]:
        """What has come, in its order. The iterator can be dropped and a new one taken at any time.

        DecodeError (its offset counts from the start of the stream) or ProtocolError, once, for a peer that breaks the
        rules; the connection is closed then, and further use of it is a LocalProtocolError.
        """
        self._usable()
        ready = self._ready
        handed = self._handed
        while True:
            while ready:
                event = ready.popleft()
                if handed is not None:
                    handed(event)
                yield event
            try:
                if self._error is not None:
                    raise self._error
                if self._at < len(self._batch):
                    self._step()
                    continue
                self._batch = self._framer.messages()
                self._at = 0
                if self._batch:
                    continue
                if self._eof and not self._ended:
                    self._framer.receive_eof()
                    self._ended = True
                    yield ConnectionEnded()
                return
            except ProtocolError:
                self._failed = True
                raise

    def _step(self) -> None:
        """Take the next message, or several of the plainest, into `_ready`."""
        frame = self._batch[self._at]
        self._at += 1
        try:
            message = messages.decode(
                frame, codec=self._in, operations=self._known, from_server=not self._is_server
            )
        except DecodeError as error:
            error.offset += frame.offset + 8
            raise
        self._ready.extend(self._handle(message, frame))

    def _known(self, ioid: int) -> messages.Operation | None:
        return self._operations.get(ioid) or self._forgotten.get(ioid)

    @abstractmethod
    def _handle(self, message: messages.PvaMessage, frame: framing.Message) -> list[Any]:
        """The events of a message."""

    def _open(self) -> None:
        self._usable()
        if self._eof:
            raise LocalProtocolError("the stream has ended")

    def _usable(self) -> None:
        if self._failed:
            raise LocalProtocolError("the connection is closed after an error")

    def _encode(self, message: messages.PvaMessage, segment_size: int | None = None) -> list[Any]:
        return messages.encode(
            message,
            codec=self._out,
            byteorder=self._byteorder,
            from_server=self._is_server,
            segment_size=segment_size,
        )

    def _post(self, message: messages.PvaMessage) -> None:
        """Send a message of the connection's own."""
        self._outbox += self._encode(message)

    def _add(self, operation: ConnectionOperation) -> None:
        self._operations[operation.ioid] = operation
        operation.channel.ioids.add(operation.ioid)

    def _forget(self, operation: ConnectionOperation) -> None:
        """An operation has ended at the wish of this end: what is on its way for it is still to be decoded."""
        self._remove(operation)
        operation.value = operation.put_value = None
        self._forgotten.pop(operation.ioid, None)
        self._forgotten[operation.ioid] = operation
        if len(self._forgotten) > _FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]

    def _of(self, channel: Channel) -> tuple[ConnectionOperation, ...]:
        """The operations of a channel that are alive."""
        return tuple(self._operations[ioid] for ioid in sorted(channel.ioids))

    def _remove(self, operation: ConnectionOperation) -> None:
        self._operations.pop(operation.ioid, None)
        operation.channel.ioids.discard(operation.ioid)
        operation.steady = None


@lru_cache(maxsize=1024)
def without_any(type: FieldDesc) -> bool:
    """Whether nothing in a type is an any: its values then mean the same without the type ids of their connection."""
    return type.code not in (ANY, ANY_ARRAY) and all(without_any(member) for member in type.members.values())


def name_of(message: messages.PvaMessage) -> str:
    """What a message is called in error texts."""
    return type(message).__name__


def check_type(message: messages.PvaMessage, type: FieldDesc | None) -> None:
    """LocalProtocolError for data of a message that is not of the type that the operation has."""
    data = getattr(message, "value", None)
    if isinstance(data, value.Value | value.AnyValue) and type is not None and data.type != type:
        raise LocalProtocolError(
            f"{name_of(message)} with a {data.type.format('short')}; that of the operation is another type, "
            f"{type.format('short')}"
        )


def next_number(last: int, used: Mapping[int, object], more: Mapping[int, object]) -> int:
    """The next number that is not in use: 1 to 2**32 - 2."""
    while True:
        last = last % 0xFFFFFFFE + 1
        if last not in used and last not in more:
            return last


def exceeded(what: str, limit: str, limits: Limits) -> LimitExceeded:
    """The error for a peer that opens too much."""
    return LimitExceeded(f"more than {getattr(limits, limit)} {what}", limit=limit)

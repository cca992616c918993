"""Update: a MONITOR update as connections hand it out at full rate, and the straight way from messages to it."""

from __future__ import annotations

from typing import Any, Final, final

from ..errors import DecodeError, LocalProtocolError
from .bitset import BitSet
from .buffer import _U32
from .codec import Codec
from .framing import Framer, Message
from .introspection import FieldDesc
from .value import Value

_MONITOR: Final = 13
_FROM_SERVER: Final = 0x40
_CONTROL: Final = 0x01
_NO_BITS: Final = BitSet()


@final
class Update:
    """A monitor update.

    operation: what the connection knows of the subscription. frame: the message. value: laid over the one before;
    `value.changed` are the fields that came. overrun: fields that changed more than once, of which older values are
    lost. time: what the connection was given with the bytes. seen: of an observed conversation, the fields that ever
    came; note: what is not known of it.
    """

    __slots__ = ("frame", "note", "operation", "overrun", "seen", "time", "value")

    operation: Any
    frame: Message
    value: Value
    overrun: BitSet
    time: Any
    seen: BitSet
    note: str

    def __init__(
        self,
        operation: Any,
        frame: Message,
        value: Value,
        overrun: BitSet = _NO_BITS,
        time: Any = None,
        seen: BitSet = _NO_BITS,
        note: str = "",
    ) -> None:
        self.operation = operation
        self.frame = frame
        self.value = value
        self.overrun = overrun
        self.time = time
        self.seen = seen
        self.note = note

    @property
    def direction(self) -> str:
        """Who sent it: "server"."""
        return "server"

    @property
    def offset(self) -> int:
        """Of its header in the stream."""
        return self.frame.offset

    @property
    def ioid(self) -> int:
        """The number of the operation."""
        return int(self.operation.ioid)

    @property
    def command(self) -> int:
        """MONITOR."""
        return _MONITOR

    @property
    def message(self) -> Any:
        """The same as a pvafast.messages.MonitorUpdate, made when asked for."""
        return self.operation.update_message(self)

    @property
    def sid(self) -> int | None:
        """The server's number of the channel, where it is known."""
        sid: int | None = self.operation.channel_sid
        return sid

    @property
    def cid(self) -> int | None:
        """The client's number of the channel, where it is known."""
        cid: int | None = self.operation.channel_cid
        return cid

    @property
    def status(self) -> None:
        """An update has none."""
        return None

    @property
    def pv(self) -> str:
        """The name of the channel."""
        return str(self.operation.pv)

    @property
    def payload(self) -> memoryview:
        """The bytes of the update as they came, in the order `frame.byteorder`: BitSet, changed fields, BitSet of overruns.

        An any in them may refer to type ids of the connection.
        """
        return self.frame.payload[5:]

    @property
    def type(self) -> FieldDesc:
        """The type of the value."""
        return self.value.type

    def __repr__(self) -> str:
        overrun = f", overrun={self.overrun!r}" if self.overrun else ""
        note = f" ({self.note})" if self.note else ""
        return f"<Update {self.pv!r} {self.value!r}{overrun}{note}>"


Update.__module__ = "pvafast"


def receive_updates(
    framer: Framer,
    chunks: list[bytes],
    times: list[Any],
    first: int,
    operations: dict[int, Any],
    codec: Codec,
    found: list[Any],
) -> tuple[int, list[Message] | None]:
    """Feed chunks[first:] to the framer and append the updates in them to `found`, as long as all messages are plain.

    Returns how many chunks were fed, and None if there was nothing else; otherwise the messages of the last one that follow
    its updates, behind which `framer.messages` may have more to say. times: of each chunk, and so of the updates whose
    last byte is in it. What is plain `read_updates` tells.
    """
    for at in range(first, len(chunks)):
        time = times[at]
        framer.receive_data(chunks[at])
        try:
            messages = framer.messages()
        except DecodeError:  # raised once more when the caller asks
            return at + 1, []
        updates = read_updates(messages, 0, operations, codec, time) if messages else []
        found += updates
        if len(updates) < len(messages) or framer._error is not None:
            return at + 1, messages[len(updates) :]
    return len(chunks), None


def read_updates(
    messages: list[Message], first: int, operations: dict[int, Any], codec: Codec, time: Any = None
) -> list[Update]:
    """The updates that `messages[first:]` begin with, up to the first message that is not plain.

    Plain is a MONITOR update without bytes left over whose operation is in `operations` and has a type, or a Projection of one,
    in its attribute `steady`, which must hold no any: a second attempt at it could not tell. The operation's `value` is the base of the
    update, and becomes the value of it. Its `seen` goes into the Update, and an update with bits that are not in it is
    not plain (None: any is). What is damaged is not plain: nothing is raised.
    """
    found: list[Update] = []
    for message in messages[first:] if first else messages:
        flags = message.flags
        start = message.start
        if (
            message.command != _MONITOR
            or flags & _CONTROL
            or not flags & _FROM_SERVER
            or message.end - start < 5
        ):
            break
        if message.data[start + 4]:
            break
        operation: Any = operations.get(_U32[flags >> 7].unpack_from(message.data, start)[0])
        type = None if operation is None else operation.steady
        if type is None:
            break
        try:
            base = operation.value
            value, overrun, end = codec.decode_monitor(
                type, message, None if base is None else base._received_()
            )
        except (DecodeError, LocalProtocolError):
            break
        seen = operation.seen
        if end != message.end or not (seen is None or value.changed <= seen):
            break
        operation.value = value
        found.append(Update(operation, message, value, overrun, time, _NO_BITS if seen is None else seen))
    return found


def run_length(messages: list[Message], first: int) -> int:
    """How many of `messages[first:]` are, one after the other, updates of the same subscription, in the same byte order; 0 if the
    first is no MONITOR update.
    """
    found = 0
    ioid = b""
    flags = 0
    for message in messages[first:] if first else messages:
        start = message.start
        if (
            message.command != _MONITOR
            or message.flags & _CONTROL
            or message.end - start < 5
            or message.data[start + 4]
        ):
            break
        if not found:
            ioid = bytes(message.data[start : start + 4])
            flags = message.flags
        elif message.flags != flags or message.data[start : start + 4] != ioid:
            break
        found += 1
    return found

"""What connections tell: one class an event. Frozen and keyword-only, but for the two that come at full rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, final

from .. import messages
from .._backend import bitset, framing, introspection, monitor
from ..messages import PvaMessage, Status

if TYPE_CHECKING:
    from .conversation import ObservedOperation
    from .shared import Channel, ConnectionOperation

# A monitor update: of a connection of one's own, and of an observed one.
Update: TypeAlias = monitor.Update
Role: TypeAlias = Literal["client", "server"]
NO_BITS: Final = bitset.BitSet()
ROOT_BIT: Final = bitset.BitSet((0,))


class Event:
    """The root of the events of ClientConnection and ServerConnection, all but Update."""

    __slots__ = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Greeted(Event):
    """Client: the server offers these authentication methods; `method` is the one that the connection answers with."""

    methods: tuple[str, ...]
    method: str
    buffer_size: int
    registry_size: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Validated(Event):
    """Client: the handshake is over. Unless `status.ok` the connection is of no use and is to be closed."""

    status: Status


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials(Event):
    """Server: who the client says it is; answer with ConnectionValidated.

    user, host: of the method "ca", "" where the client does not tell; host is what the client says of itself.
    offered: the method is one of those that this server offered. data: the whole authentication data.
    """

    method: str
    user: str
    host: str
    offered: bool
    data: messages.AnyBody


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRequested(Event):
    """Server: the client asks for a channel; answer with CreateChannelReply, of which `sid` is a new number."""

    cid: int
    name: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOpened(Event):
    """Client: the server has opened the channel."""

    channel: Channel


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFailed(Event):
    """Client: the server did not open the channel."""

    channel: Channel
    status: Status


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelClosed(Event):
    """The channel is closed and `operations` ended with it.

    by_peer: at the wish of the other side. False: client only, the server confirms what the client asked for.
    """

    channel: Channel
    operations: tuple[ConnectionOperation, ...]
    by_peer: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRequest(Event):
    """Server: `message` (a messages.Request) asks something of `operation`.

    An INIT or GET_FIELD request begins the operation. After a DestroyRequest, a MonitorDestroy or a request with
    `destroy` (once answered) it is no longer one of the connection's.
    """

    operation: ConnectionOperation
    message: messages.Request


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OperationReply(Event):
    """Client: `message` answers `operation`, or ends it; `message.status` says how. Monitor updates come as Update."""

    operation: ConnectionOperation
    message: messages.InitReply | messages.StatusReply | messages.GetFieldReply


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Collected(Event):
    """Client: so many updates of the monitor `operation` went into its Columns, in place of Updates. nbytes: they had so many."""

    operation: ConnectionOperation
    rows: int
    nbytes: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(Event):
    """Client: the request that CancelRequest was sent for is out of the way; the operation can be used again."""

    operation: ConnectionOperation


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EchoReply(Event):
    """The other side answers an Echo: it is alive."""

    payload: bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Received(Event):
    """A message that does not touch the state: Search, RemoteMessage, Authnz, AclChange, Unknown and so on."""

    message: PvaMessage


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionEnded(Event):
    """The stream has ended between two messages. Nothing comes after it."""


class _Observed(NamedTuple):
    direction: Role
    offset: int
    time: Any
    frame: framing.Message
    pv: str | tuple[str, ...]
    operation: ObservedOperation | None
    value: Any
    seen: bitset.BitSet
    overrun: bitset.BitSet
    note: str
    decoded: PvaMessage | None


@final
class Observed(_Observed):
    """A message of an observed conversation.

    direction: who sent it. offset: of its header in that stream. time: what `receive_data` was given with its last
    byte. frame: header and payload. pv: its channel's name, "" if not known; names in SEARCH, SEARCH_RESPONSE and
    where CREATE_CHANNEL asks for several.
    operation: the operation that it belongs to; goes on living, so its fields tell of later messages too.
    value: the data in it, as the receiver holds it after this message: a Value for all but ARRAY (the array) and RPC
    (an AnyBody); None if there is none. seen: the bits of the fields that `value` has ever had from the sender.
    overrun: of a monitor update. note: what could not be known, "" if nothing.
    """

    __slots__ = ()

    @property
    def message(self) -> PvaMessage | None:
        """The message, decoded."""
        return self.decoded

    @property
    def command(self) -> int:
        """Of the header; says nothing without `frame.is_control`."""
        return self.frame.command

    @property
    def type(self) -> introspection.FieldDesc | None:
        """The type that the message tells of, or that of its value."""
        type: introspection.FieldDesc | None = getattr(self.decoded, "type", None)
        if type is None and self.value is not None:
            type = getattr(self.value, "type", None)
        return type

    @property
    def ioid(self) -> int | None:
        """The number of the operation, None in other messages."""
        found: int | None = getattr(self.decoded, "ioid", None)
        if found is None and self.operation is not None:
            return int(self.operation.ioid)
        return found

    @property
    def sid(self) -> int | None:
        """The server's number of the channel, where it is known."""
        sid: int | None = getattr(self.decoded, "sid", None)
        return self.operation.channel_sid if sid is None and self.operation is not None else sid

    @property
    def cid(self) -> int | None:
        """The client's number of the channel, where it is known."""
        cid: int | None = getattr(self.decoded, "cid", None)
        return self.operation.channel_cid if cid is None and self.operation is not None else cid

    @property
    def status(self) -> Status | None:
        """The status in it, if it has one."""
        status: Status | None = getattr(self.decoded, "status", None)
        return status

    def __repr__(self) -> str:
        pv = f" {self.pv!r}" if self.pv else ""
        note = f" ({self.note})" if self.note else ""
        what = self.message
        return f"<Observed {self.direction}@{self.offset}{pv} {what if what is not None else self.frame!r}{note}>"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """Bytes of an observed conversation that are not what they should be, or a gap in them. It goes on behind.

    offset: in that stream, of the header where trouble began. reason, path: as in a DecodeError. lost: how many bytes
    were received and not decoded. missing: how many bytes of a gap were never received.
    frame, operation, pv: where the header was right and the payload was not.
    """

    direction: Role | None
    offset: int
    path: str = ""
    reason: str
    lost: int
    missing: int = 0
    time: Any = None
    frame: framing.Message | None = None
    pv: str | tuple[str, ...] = ""
    operation: ObservedOperation | None = None

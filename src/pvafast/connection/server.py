"""ServerConnection: the server's end of a connection, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from types import MappingProxyType
from typing import Any, Final, final

from .. import messages
from .._backend import bitset, buffer, codec, framing, value
from ..errors import LocalProtocolError, ProtocolError
from ..limits import Limits
from ..messages import Command, PvaMessage, Status, StatusType
from .events import NO_BITS, ChannelClosed, ChannelRequested, Credentials, OperationRequest, Received
from .shared import (
    ANSWERS,
    Channel,
    Connection,
    ConnectionOperation,
    check_type,
    exceeded,
    name_of,
    next_number,
)

# Requests that fit operations of any command.
_OF_ANY: Final = (Command.DESTROY_REQUEST, Command.CANCEL_REQUEST)
# Bits of the sub byte of MONITOR requests.
_DESTROY: Final = 0x10
_STOP: Final = 0x04
_START: Final = 0x44
# What a node of the type of a kept value weighs, beside the bytes of its message: types come as ids of three bytes, too.
_NODE_WEIGHT: Final = 128
# Names and requests of a connection may weigh so much more than a message, that small limits leave room for usual ones.
_ROOM: Final = 1 << 20
# What goes before a pre-encoded update, by byte order: the header, ioid, sub byte.
_HEADS: Final = {"little": Struct("<BBBBIIB"), "big": Struct(">BBBBIIB")}
_FLAGS: Final = {"little": 0x40, "big": 0xC0}
_PLAIN: Final = codec.Codec()  # writes types in full: what it writes can go over any connection


@final
class EncodedUpdate:
    """The changed fields of a Value, encoded once for any number of subscriptions: see ServerConnection.send_update.

    type: of the Value. changed: its bits. byteorder: of the bytes. size: how many. buffers: they themselves; large arrays are not copied.
    """

    __slots__ = ("buffers", "byteorder", "changed", "size", "type")

    def __init__(self, update: value.Value, byteorder: str = "little") -> None:
        writer = buffer.Writer(byteorder)
        _PLAIN.write_update(update, writer)
        self.type = update.type
        self.changed = update.changed
        self.byteorder = byteorder
        self.size = len(writer)
        self.buffers: list[Any] = writer.buffers()

    def __repr__(self) -> str:
        return f"<EncodedUpdate of {self.type.format('short')}, {self.size} bytes, {self.changed!r}>"


@final
class ServerConnection(Connection):
    """The server's end of a connection: feed it what the client sends, send what it hands out.

    byteorder: in which it sends; requests are read in that of their own flag. methods: authentication methods that it
    offers, the preferred one last. It greets by itself: send `data_to_send()` at once, and after each `events()`;
    echoes are answered there, too, and so are requests that the client may not make now (with pvAccessCPP's words).

    Events: Credentials (answer with ConnectionValidated), ChannelRequested (with CreateChannelReply and a `new_sid()`),
    OperationRequest (with the reply of the message's kind), ChannelClosed, Received, ConnectionEnded.
    """

    _is_server = True

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        byteorder: str = "little",
        methods: tuple[str, ...] = ("anonymous", "ca"),
        buffer_size: int = 0x10000,
    ) -> None:
        super().__init__(limits)
        if byteorder not in ("little", "big"):
            raise ValueError(f"byteorder must be 'little' or 'big', not {byteorder!r}")
        self._byteorder = byteorder
        self._methods = tuple(methods)
        self._channels: dict[int, Channel] = {}
        self._asked: dict[int, Channel] = {}
        self._last_sid = 0
        # What the names of channels, the pvRequests and the requests that wait for an answer weigh.
        self._held = 0
        self._validated = False
        # Credentials that wait for a ConnectionValidated.
        self._waiting = 0
        self._post(messages.SetByteOrder(byteorder=byteorder))
        self._post(messages.ConnectionValidationRequest(buffer_size=buffer_size, methods=self._methods))

    @property
    def validated(self) -> bool:
        """The last ConnectionValidated said OK. Clients may, but should not, open channels before."""
        return self._validated

    @property
    def channels(self) -> Mapping[int, Channel]:
        """The open channels, by sid: what they are now, not a copy."""
        return MappingProxyType(self._channels)

    def new_sid(self) -> int:
        """A number for a channel that is not in use."""
        self._last_sid = next_number(self._last_sid, self._channels, {})
        return self._last_sid

    def may_send(self, ioid: int) -> bool:
        """Whether a monitor may be sent an update: it is started, and its window, where it has one, is open."""
        operation = self._operations.get(ioid)
        return operation is not None and operation.started and operation.window != 0

    def send(self, message: PvaMessage, *, segment_size: int | None = None) -> list[Any]:
        """The buffers of a message, to be sent after data_to_send(). segment_size: cut it into segments of that size.

        LocalProtocolError for what the protocol does not allow now, EncodeError for what cannot be encoded; either
        leaves the connection as it was.
        """
        self._open()
        operation = self._allowed(message)
        buffers = self._encode(message, segment_size)
        self._sent(message, operation)
        return buffers

    def send_update(
        self,
        ioid: int,
        update: EncodedUpdate,
        overrun: bitset.BitSet = NO_BITS,
        *,
        segment_size: int | None = None,
    ) -> list[Any]:
        """The buffers of a MonitorUpdate that is encoded already; as `send` otherwise."""
        self._open()
        byteorder = self._byteorder
        operation = self._operations.get(ioid)
        if operation is None or operation.command != Command.MONITOR or not operation.ready:
            raise LocalProtocolError(f"an update for ioid {ioid}, which is no open monitor")
        self._may_update(operation)
        if update.byteorder != byteorder:
            raise LocalProtocolError(
                f"a {update.byteorder}-endian update for a {byteorder}-endian connection"
            )
        if update.type is not operation.type and update.type != operation.type:
            raise LocalProtocolError(f"an update of another type than that of the monitor {ioid}")
        tail = overrun.encode(byteorder=byteorder) if overrun else b"\0"
        size = 5 + update.size + len(tail)
        head, flags = _HEADS[byteorder], _FLAGS[byteorder]
        if segment_size is not None or size > 0xFFFFFFFF:
            start = head.pack(0, 0, 0, 0, 0, ioid, 0)[8:]
            buffers: list[Any] = framing.frame(
                Command.MONITOR,
                [start, *update.buffers, tail],
                flags=0x40,
                byteorder=byteorder,
                segment_size=segment_size,
            )
        else:
            start = head.pack(0xCA, 2, flags, Command.MONITOR, size, ioid, 0)
            first, *rest = update.buffers
            buffers = [b"".join((start, first)), *rest, tail] if rest else [b"".join((start, first, tail))]
        if operation.window is not None:
            operation.window -= 1
        return buffers

    # -- sending

    def _allowed(self, message: PvaMessage) -> ConnectionOperation | None:
        """Whether the message may be sent now; its operation."""
        if isinstance(message, messages.CreateChannelReply):
            if message.cid not in self._asked:
                raise LocalProtocolError(f"no channel was asked for with the cid {message.cid}")
            if message.status.ok and (message.sid in self._channels or message.sid == messages.NO_CHANNEL):
                raise LocalProtocolError(f"the sid {message.sid} is in use, or none")
            return None
        if isinstance(message, messages.ConnectionValidated):
            if not self._waiting:
                raise LocalProtocolError("ConnectionValidated before the client has told who it is")
            return None
        if isinstance(message, messages.DestroyChannel):
            channel = self._channels.get(message.sid)
            if channel is None or channel.cid != message.cid:
                raise LocalProtocolError(f"no open channel with sid {message.sid} and cid {message.cid}")
            return None
        if not isinstance(message, messages.Reply):
            return None
        operation = self._operations.get(message.ioid)
        if operation is None:
            raise LocalProtocolError(f"{name_of(message)} for ioid {message.ioid}, which is no operation")
        if operation.command != message.command:
            raise LocalProtocolError(
                f"{name_of(message)} for ioid {message.ioid}, which is a {Command(operation.command).name}"
            )
        if isinstance(message, messages.InitReply):
            if operation.ready:
                raise LocalProtocolError(f"the INIT of ioid {message.ioid} was answered before")
            return operation
        if isinstance(message, messages.GetFieldReply):
            return operation
        if not operation.ready:
            raise LocalProtocolError(
                f"{name_of(message)} before the answer to the INIT of ioid {message.ioid}"
            )
        if isinstance(message, messages.MonitorUpdate):
            self._may_update(operation)
        elif message.command != Command.MONITOR and type(message) is not operation.expects:
            raise LocalProtocolError(f"{name_of(message)} for ioid {message.ioid}, which did not ask for it")
        if not isinstance(message, messages.RpcReply):
            put = isinstance(message, messages.PutGetGetPutReply)
            check_type(message, operation.put_type if put else operation.type)
        return operation

    @staticmethod
    def _may_update(operation: ConnectionOperation) -> None:
        if not operation.started:
            raise LocalProtocolError(f"the monitor {operation.ioid} is not started")
        if operation.window == 0:
            raise LocalProtocolError(
                f"the window of the monitor {operation.ioid} is closed: the client must acknowledge"
            )

    def _sent(self, message: PvaMessage, operation: ConnectionOperation | None) -> None:
        """Take note of what was sent."""
        if isinstance(message, messages.CreateChannelReply):
            channel = self._asked.pop(message.cid)
            if message.status.ok:
                channel.sid = message.sid
                self._channels[message.sid] = channel
            else:
                self._held -= len(channel.name)
        elif isinstance(message, messages.ConnectionValidated):
            self._waiting -= 1
            self._validated = message.status.ok
        elif isinstance(message, messages.DestroyChannel):
            self._close(self._channels[message.sid])
        if operation is None:
            return
        if isinstance(message, messages.InitReply):
            if message.status.ok:
                messages.learn(operation, message)
                operation.ready = True
                self._answered(operation)
            else:
                self._remove(operation)
        elif isinstance(message, messages.MonitorUpdate):
            if operation.window is not None:
                operation.window -= 1
        elif isinstance(message, messages.MonitorFinal):
            self._remove(operation)
        elif not isinstance(message, messages.MonitorError):
            self._answered(operation)
            if operation.destroyed or isinstance(message, messages.GetFieldReply):
                self._remove(operation)

    def _close(self, channel: Channel) -> tuple[ConnectionOperation, ...]:
        """Close a channel; its operations end with it."""
        if channel.sid is not None:
            self._channels.pop(channel.sid, None)
        self._held -= len(channel.name)
        ended = self._of(channel)
        for operation in ended:
            self._forget(operation)
            operation.request = None
        return ended

    # -- what is held for the client

    def _hold(self, weight: int) -> bool:
        """Whether so much more may be held: a client could open operations without end, each with a large request."""
        if self._held + weight > self._limits.message + _ROOM:
            return False
        self._held += weight
        return True

    def _answered(self, operation: ConnectionOperation) -> None:
        """Nothing is under way."""
        operation.answered()
        self._held -= operation.asked
        operation.asked = 0

    def _remove(self, operation: ConnectionOperation) -> None:
        super()._remove(operation)
        self._held -= operation.kept + operation.asked
        operation.kept = operation.asked = 0

    # -- receiving

    def _handle(self, message: PvaMessage, frame: framing.Message) -> list[Any]:
        if isinstance(message, messages.Request):
            return self._request(message, frame.size)
        if isinstance(message, messages.Echo):
            self._post(messages.Echo(payload=message.payload))
            return []
        if isinstance(message, messages.Control):
            return []
        if isinstance(message, messages.ConnectionValidationResponse):
            return [self._credentials(message)]
        if isinstance(message, messages.CreateChannel):
            return self._create(message)
        if isinstance(message, messages.DestroyChannel):
            return self._destroy(message)
        return [Received(message=message)]

    def _credentials(self, message: messages.ConnectionValidationResponse) -> Credentials:
        self._waiting += 1
        data = message.data if isinstance(message.data, value.Value) else None
        user, host = (
            str(data[name]) if data is not None and name in data and isinstance(data[name], str) else ""
            for name in ("user", "host")
        )
        offered = message.method in self._methods
        return Credentials(method=message.method, user=user, host=host, offered=offered, data=message.data)

    def _create(self, message: messages.CreateChannel) -> list[Any]:
        found = []
        for cid, name in message.channels:
            if cid in self._asked:
                raise ProtocolError(f"the client asks for two channels with the cid {cid}")
            if len(self._channels) + len(self._asked) >= self._limits.channels:
                raise exceeded("channels", "channels", self._limits)
            if not self._hold(len(name)):
                raise exceeded("bytes in names and requests", "message", self._limits)
            self._asked[cid] = Channel(cid, name)
            found.append(ChannelRequested(cid=cid, name=name))
        return found

    def _destroy(self, message: messages.DestroyChannel) -> list[Any]:
        channel = self._channels.get(message.sid)
        if channel is None or channel.cid != message.cid:
            # Clients of pvAccessCPP before 7.1.1 swap the two.
            channel = self._channels.get(message.cid)
            if channel is None or channel.cid != message.sid:
                return []
        self._post(messages.DestroyChannel(sid=message.sid, cid=message.cid))
        return [ChannelClosed(channel=channel, operations=self._close(channel), by_peer=True)]

    def _request(self, message: messages.Request, size: int) -> list[Any]:
        operation = self._operations.get(message.ioid)
        if isinstance(message, messages.InitRequest | messages.GetField):
            return self._begin(message, operation, size)
        if operation is None or message.command not in (operation.command, *_OF_ANY):
            return []  # of an operation that has ended meanwhile
        if isinstance(message, messages.DestroyRequest):
            self._remove(operation)
        elif isinstance(message, messages.CancelRequest):
            if operation.ready:
                self._answered(operation)
            operation.started = operation.destroyed = False
        elif isinstance(message, messages.SubRequest):
            if message.command == Command.MONITOR:
                self._steer(operation, message)
            elif operation.busy or not operation.ready:
                self._refuse(message, "other request pending")
                return []
            elif not self._hold(weight := _weight(size, getattr(message, "value", None))):
                self._refuse(message, self._too_much())
                return []
            else:
                operation.ask(message)
                operation.asked = weight
        return [OperationRequest(operation=operation, message=message)]

    def _steer(self, operation: ConnectionOperation, message: messages.SubRequest) -> None:
        """A request of a monitor; one message may ask for several things, as pvxs takes it."""
        if not operation.ready and not message.destroy:
            raise ProtocolError(f"{name_of(message)} for ioid {message.ioid} before its INIT was answered")
        if isinstance(message, messages.MonitorAck) and operation.window is not None:
            operation.window = min(operation.window + message.nfree, 0xFFFFFFFF)
        if message.sub & _DESTROY:
            self._remove(operation)
        elif message.sub & _STOP:
            operation.started = message.sub & _START == _START

    def _begin(
        self, message: messages.InitRequest | messages.GetField, known: ConnectionOperation | None, size: int
    ) -> list[Any]:
        """The first request of an operation."""
        if known is not None:
            raise ProtocolError(f"the client uses the ioid {message.ioid} twice")
        channel = self._channels.get(message.sid)
        if channel is None:
            # It may have been closed while the request was on its way.
            self._refuse(message, "bad channel id")
            return []
        if len(self._operations) >= self._limits.operations:
            raise exceeded("operations", "operations", self._limits)
        request = message.request if isinstance(message, messages.InitRequest) else None
        if not self._hold(weight := _weight(size, request)):
            self._refuse(message, self._too_much())
            return []
        operation = ConnectionOperation(message.command, message.ioid, channel, request)
        operation.kept = weight
        operation.ask(message)
        operation.destroyed = False
        if isinstance(message, messages.MonitorInit) and message.nfree is not None:
            operation.window = operation.queue = message.nfree
            operation.pipelined = True
        self._add(operation)
        return [OperationRequest(operation=operation, message=message)]

    def _refuse(self, message: messages.Request, text: str) -> None:
        """Answer with an error, in pvAccessCPP's words."""
        more: dict[str, Any] = {}
        if isinstance(message, messages.SubRequest) and not isinstance(message, messages.InitRequest):
            more = {"bits": message.bits, "destroy": message.destroy}
        answer: Any = ANSWERS[type(message)]
        self._post(answer(ioid=message.ioid, status=Status(StatusType.ERROR, text), **more))

    def _too_much(self) -> str:
        return f"requests of more than {self._limits.message} bytes are open (Limits.message)"


def _weight(size: int, body: messages.AnyBody) -> int:
    """What a request weighs that is held: the bytes of its message, and the nodes of what it brought."""
    return size + (0 if body is None else _NODE_WEIGHT * body.type.count)

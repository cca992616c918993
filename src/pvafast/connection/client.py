"""ClientConnection: the client's end of a connection, without I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, final

from .. import messages
from .._backend import columns, framing, introspection, monitor, value
from ..errors import DecodeError, LocalProtocolError, ProtocolError
from ..limits import Limits
from ..messages import Command, PvaMessage, StatusType
from ..request import Request
from .events import (
    Cancelled,
    ChannelClosed,
    ChannelFailed,
    ChannelOpened,
    Collected,
    EchoReply,
    Greeted,
    OperationReply,
    Received,
    Update,
    Validated,
)
from .shared import Channel, Connection, ConnectionOperation, check_type, name_of, next_number, without_any

_FIELDS: Final = introspection.FieldDesc.structure("", {"user": "string", "host": "string"})


# What comes at a high rate; the status that most answers have.
_STRAIGHT: Final = frozenset((Command.MONITOR, Command.GET))
_OK: Final = 0xFF


@final
class ClientConnection(Connection):
    """The client's end of a connection: feed it what the server sends, send what it hands out.

    user, host: for the authentication "ca", which is chosen where the server offers it and a user is given;
    "anonymous" otherwise. The handshake goes by itself: send `data_to_send()` after each `events()`. When Validated
    has come, open channels with `send(CreateChannel(...))`, then operations on them. Messages are sent in the byte order
    that the server asks for, and read in that of their own flag.

    auto_ack: updates of pipelined monitors are acknowledged as events() hands them out, when as many came as the
    pvRequest's option ackAny says (half the queue by default); send `data_to_send()` then, too.

    Of the data of an operation only some fields are decoded where `operations[ioid].fields` names them.

    Events: Greeted, Validated, ChannelOpened, ChannelFailed, ChannelClosed, OperationReply, Update (of monitors), Collected,
    Cancelled, EchoReply, Received, ConnectionEnded.
    """

    def __init__(
        self, *, limits: Limits | None = None, user: str = "", host: str = "", auto_ack: bool = False
    ) -> None:
        super().__init__(limits)
        if auto_ack:
            self._handed = self._acknowledge
        self._user = user
        self._host = host
        self._greeted = False
        self._validated = False
        self._channels: dict[int, Channel] = {}
        self._sids: dict[int, Channel] = {}
        self._last_cid = 0
        self._last_ioid = 0
        # Whether any monitor was ever pipelined.
        self._pipelined = False
        # Echoes on their way: None, or the operation whose cancelling is over when the answer comes.
        self._echoes: deque[ConnectionOperation | None] = deque()

    @property
    def validated(self) -> bool:
        """The handshake is over, and the server took the client."""
        return self._validated

    @property
    def channels(self) -> Mapping[int, Channel]:
        """The channels asked for, open or closing, by cid: what they are now, not a copy."""
        return MappingProxyType(self._channels)

    def new_cid(self) -> int:
        """A number for a channel that is not in use."""
        self._last_cid = next_number(self._last_cid, self._channels, {})
        return self._last_cid

    def new_ioid(self) -> int:
        """A number for an operation that is not in use."""
        self._last_ioid = next_number(self._last_ioid, self._operations, self._forgotten)
        return self._last_ioid

    def send(self, message: PvaMessage, *, segment_size: int | None = None) -> list[Any]:
        """The buffers of a message, to be sent after data_to_send(). segment_size: cut it into segments of that size.

        LocalProtocolError for what the protocol does not allow now, EncodeError for what cannot be encoded; either
        leaves the connection as it was.
        """
        self._open()
        operation = self._allowed(message)
        # pvAccessCPP cannot put together an Echo in segments.
        buffers = self._encode(message, None if isinstance(message, messages.Echo) else segment_size)
        self._sent(message, operation)
        if isinstance(message, messages.CancelRequest) and operation is not None and operation.cancelled:
            # No answer is due: what was on its way has come when the answer to this has.
            buffers += self._encode(messages.Echo())
        return buffers

    def get_again(self, ioid: int) -> list[Any]:
        """As send(Get(...)) for an operation that is open; for programs that get at a high rate."""
        operation = self._operations.get(ioid)
        if (
            operation is None
            or operation.command != Command.GET
            or not operation.ready
            or operation.busy
            or operation.cancelled
            or operation.channel.closing
            or self._eof
            or self._failed
        ):
            # It says what is wrong.
            return self.send(messages.Get(sid=0 if operation is None else operation.sid, ioid=ioid))
        if not operation.again:
            operation.again = b"".join(self._encode(messages.Get(sid=operation.sid, ioid=ioid)))
        operation.busy = True
        operation.expects = messages.GetReply
        operation.destroyed = False
        return [operation.again]

    def collect(self, ioid: int, fields: Iterable[str | tuple[str, ...]] | None = None) -> columns.Columns:
        """Let the updates of a monitor go into Columns: events() tells of them as Collected, not as Updates.

        fields: as of Columns. Take rows out with `take()` or `clear()` between two events; they have the time that the connection
        was given, where that is an int. LocalProtocolError unless the INIT was answered and no update has come yet.
        """
        operation = self._operations.get(ioid)
        if operation is None or operation.command != Command.MONITOR or operation.type is None:
            raise LocalProtocolError(f"ioid {ioid} is no monitor that is open")
        if operation.value is not None:
            raise LocalProtocolError(f"updates of ioid {ioid} have come already")
        operation.columns = made = columns.Columns(operation.type, fields, codec=self._in)
        return made

    # -- sending

    def _allowed(self, message: PvaMessage) -> ConnectionOperation | None:
        """Whether the message may be sent now; its operation."""
        if isinstance(message, messages.Echo | messages.Control | messages.Search | messages.Authnz):
            return None
        if not self._validated:
            raise LocalProtocolError(f"{name_of(message)} before the connection is validated")
        if isinstance(message, messages.CreateChannel):
            self._may_create(message)
            return None
        if isinstance(message, messages.DestroyChannel):
            channel = self._channels.get(message.cid)
            if channel is None or channel.sid != message.sid or channel.closing:
                raise LocalProtocolError(f"no open channel with sid {message.sid} and cid {message.cid}")
            return None
        if not isinstance(message, messages.Request):
            return None
        channel = self._sids.get(message.sid)
        if channel is None or channel.closing:
            raise LocalProtocolError(f"{name_of(message)} on sid {message.sid}, which is no open channel")
        if isinstance(message, messages.InitRequest | messages.GetField):
            return self._may_begin(message, channel)
        operation = self._operations.get(message.ioid)
        if operation is None or operation.channel is not channel:
            raise LocalProtocolError(
                f"{name_of(message)} for ioid {message.ioid}, which is no operation of the channel"
            )
        if isinstance(message, messages.DestroyRequest | messages.CancelRequest):
            return operation
        if operation.command != message.command:
            raise LocalProtocolError(
                f"{name_of(message)} for ioid {message.ioid}, which is a {Command(operation.command).name}"
            )
        if not operation.ready:
            raise LocalProtocolError(
                f"{name_of(message)} before the answer to the INIT of ioid {message.ioid}"
            )
        if isinstance(message, messages.MonitorAck):
            if operation.window is None:
                raise LocalProtocolError(f"the monitor {message.ioid} is not pipelined")
            if operation.window + message.nfree > operation.queue:
                raise LocalProtocolError(
                    f"{message.nfree} updates of ioid {message.ioid} acknowledged, "
                    f"{operation.queue - operation.window} received"
                )
        elif message.command != Command.MONITOR:
            if operation.cancelled:
                raise LocalProtocolError(
                    f"{name_of(message)} for ioid {message.ioid} before its Cancelled has come"
                )
            if operation.busy:
                raise LocalProtocolError(
                    f"{name_of(message)} before the answer to the last request of ioid {message.ioid}"
                )
        if not isinstance(message, messages.Rpc):
            check_type(message, operation.put_type if message.command == Command.PUT_GET else operation.type)
        return operation

    def _may_create(self, message: messages.CreateChannel) -> None:
        cids = set()
        for cid, name in message.channels:
            if cid in self._channels or cid in cids:
                raise LocalProtocolError(f"the cid {cid} is in use")
            if not name:
                raise LocalProtocolError("a channel without a name")
            cids.add(cid)
        if len(self._channels) + len(cids) > self._limits.channels:
            raise LocalProtocolError(f"more than {self._limits.channels} channels (Limits.channels)")

    def _may_begin(
        self, message: messages.InitRequest | messages.GetField, channel: Channel
    ) -> ConnectionOperation:
        if message.ioid in self._operations or message.ioid in self._forgotten or not message.ioid:
            raise LocalProtocolError(f"the ioid {message.ioid} is in use, or zero")
        if len(self._operations) >= self._limits.operations:
            raise LocalProtocolError(f"more than {self._limits.operations} operations (Limits.operations)")
        request = message.request if isinstance(message, messages.InitRequest) else None
        operation = ConnectionOperation(message.command, message.ioid, channel, request)
        if isinstance(message, messages.MonitorInit) and message.nfree is not None:
            operation.window = operation.queue = message.nfree
            operation.pipelined = True
            if self._handed is not None:
                operation.ack_at = _ack_at(operation)
        return operation

    def _sent(self, message: PvaMessage, operation: ConnectionOperation | None) -> None:
        """Take note of what was sent."""
        if isinstance(message, messages.Echo):
            self._echoes.append(None)
        elif isinstance(message, messages.CreateChannel):
            for cid, name in message.channels:
                self._channels[cid] = Channel(cid, name)
        elif isinstance(message, messages.DestroyChannel):
            channel = self._channels[message.cid]
            channel.closing = True
            for mine in self._of(channel):
                self._forget(mine)
        if operation is None or not isinstance(message, messages.Request):
            return
        if isinstance(message, messages.InitRequest | messages.GetField):
            self._add(operation)
            operation.ask(message)
            self._pipelined = self._pipelined or operation.pipelined
        elif isinstance(message, messages.DestroyRequest):
            self._forget(operation)
        elif isinstance(message, messages.CancelRequest):
            # Nothing that is on its way for a monitor could be taken for something else.
            if operation.command != Command.MONITOR:
                operation.cancelled = True
                self._echoes.append(operation)
        elif message.command == Command.MONITOR:
            if isinstance(message, messages.MonitorAck):
                assert operation.window is not None
                operation.window += message.nfree
            if isinstance(message, messages.SubRequest) and message.destroy:
                self._forget(operation)
        else:
            operation.ask(message)

    def _acknowledge(self, event: Any) -> None:
        """An event is handed out: acknowledge updates when there are enough."""
        if type(event) is not Update:
            return
        operation: ConnectionOperation = event.operation
        if not operation.ack_at or self._operations.get(operation.ioid) is not operation or self._eof:
            return
        operation.handed += 1
        if operation.handed >= operation.ack_at and operation.window is not None:
            # The program may have acknowledged some by itself.
            nfree = min(operation.handed, operation.queue - operation.window)
            operation.handed = 0
            if nfree:
                operation.window += nfree
                self._post(messages.MonitorAck(sid=operation.sid, ioid=operation.ioid, nfree=nfree))

    # -- receiving

    def _step(self) -> None:
        plain = monitor.read_updates(self._batch, self._at, self._operations, self._in, self._time)
        if plain:
            self._at += len(plain)
            self._ready.extend(self._counted(plain) if self._pipelined else plain)
        elif not self._straight():
            super()._step()

    def _straight(self) -> bool:
        """Take the next message if it is what comes at a high rate: an update of a monitor, or a value that was got."""
        frame = self._batch[self._at]
        command, start = frame.command, frame.start
        if command not in _STRAIGHT or frame.is_control or frame.end - start < 6:
            return False
        data = frame.data
        ioid = int.from_bytes(data[start : start + 4], "big" if frame.flags & 0x80 else "little")
        operation = self._operations.get(ioid)
        if data[start + 4] or operation is None or operation.command != command or not operation.ready:
            return False
        return self._updated(operation, frame) if command == Command.MONITOR else self._got(operation, frame)

    def _got(self, operation: ConnectionOperation, frame: framing.Message) -> bool:
        """Take a value that was got; not if there is anything special about it."""
        start, reads = frame.start, operation.reads
        if (
            frame.data[start + 5] != _OK
            or operation.expects is not messages.GetReply
            or operation.cancelled
            or operation.destroyed
            or reads is None
        ):
            return False
        try:
            got, end = self._in.decode_update(
                reads, frame.data, start + 6, end=frame.end, base=operation.base, byteorder=frame.byteorder
            )
        except DecodeError as error:
            error.within("value")
            error.offset += frame.offset + 8 - start
            raise
        self._at += 1
        operation.value = got
        operation.answered()
        trailing = b"" if end == frame.end else bytes(frame.data[end : frame.end])
        reply = messages.GetReply(ioid=operation.ioid, value=got, trailing=trailing)
        self._ready.append(OperationReply(operation=operation, message=reply))
        return True

    def _updated(self, operation: ConnectionOperation, frame: framing.Message) -> bool:
        """Take an update of a monitor."""
        reads = operation.reads
        if operation.columns is not None:
            self._collect(operation, operation.columns)
            return True
        assert reads is not None
        try:
            update, overrun, _ = self._in.decode_monitor(reads, frame, operation.base)
        except DecodeError as error:
            error.offset += frame.offset + 8
            raise
        self._at += 1
        operation.value = update
        self._count(operation)
        if operation.plain is None:
            operation.plain = operation.type is not None and without_any(operation.type)
        if operation.plain:
            operation.steady = reads
        self._ready.append(Update(operation, frame, update, overrun, self._time))
        return True

    def _collect(self, operation: ConnectionOperation, into: columns.Columns) -> None:
        """Take the next messages, updates of a monitor, into its Columns."""
        batch, at = self._batch, self._at
        rows = monitor.run_length(batch, at)
        if operation.window is not None:
            rows = min(rows, operation.window)
            if not rows:
                self._count(operation)  # raises
            operation.window -= rows
        received = self._time if isinstance(self._time, int) else 0
        before = len(into)
        try:
            into.add(batch[at : at + rows] if len(batch) != rows else batch, received)
        except DecodeError as error:
            rows = len(into) - before
            error.offset += batch[at + rows].offset + 8
            if not rows:
                raise
            self._error = error  # behind what came well
        self._at += rows
        last = batch[at + rows - 1]
        nbytes = last.offset + 8 + last.size - batch[at].offset
        self._ready.append(Collected(operation=operation, rows=rows, nbytes=nbytes))

    def _counted(self, updates: list[Update]) -> list[Update]:
        """Take updates off the windows of pipelined monitors, up to the first that is too many."""
        for i, update in enumerate(updates):
            try:
                self._count(update.operation)
            except ProtocolError as error:
                self._error = error
                return updates[:i]
        return updates

    def _handle(self, message: PvaMessage, frame: framing.Message) -> list[Any]:
        if isinstance(message, messages.Reply):
            return self._reply(message, frame)
        if isinstance(message, messages.SetByteOrder):
            self._byteorder = message.byteorder
            return []
        if isinstance(message, messages.ConnectionValidationRequest):
            return self._greet(message)
        if isinstance(message, messages.ConnectionValidated):
            if not self._greeted:
                raise ProtocolError("the server validates before it asks who the client is")
            self._validated = message.status.ok
            return [Validated(status=message.status)]
        if isinstance(message, messages.CreateChannelReply):
            return self._created(message)
        if isinstance(message, messages.DestroyChannel):
            return self._destroyed(message)
        if isinstance(message, messages.MultipleData):
            return [event for reply in message.replies for event in self._reply(reply, frame)]
        if isinstance(message, messages.Echo):
            return self._echoed(message)
        if isinstance(message, messages.Control):
            return []
        return [Received(message=message)]

    def _greet(self, message: messages.ConnectionValidationRequest) -> list[Any]:
        if self._greeted:
            raise ProtocolError("the server asks twice who the client is")
        self._greeted = True
        if "ca" in message.methods and self._user:
            method, data = "ca", value.Value(_FIELDS, {"user": self._user, "host": self._host})
        else:
            method, data = "anonymous", None
        self._post(messages.ConnectionValidationResponse(method=method, data=data))
        return [
            Greeted(
                methods=message.methods,
                method=method,
                buffer_size=message.buffer_size,
                registry_size=message.registry_size,
            )
        ]

    def _echoed(self, message: messages.Echo) -> list[Any]:
        """The answers to echoes come in the order of those; servers of version 1 do not repeat the payload."""
        cancelled = self._echoes.popleft() if self._echoes else None
        if cancelled is None:
            return [EchoReply(payload=message.payload)]
        cancelled.cancelled = False
        if cancelled.ready:
            cancelled.answered()
        return [] if self._forgotten.get(cancelled.ioid) is cancelled else [Cancelled(operation=cancelled)]

    def _created(self, message: messages.CreateChannelReply) -> list[Any]:
        channel = self._channels.get(message.cid)
        if channel is None or channel.sid is not None:
            return [Received(message=message)]
        refused = not message.status.ok or message.sid == messages.NO_CHANNEL
        # spvirit refuses with a warning and the sid 0.
        if refused or (message.status.type == StatusType.WARNING and not message.sid):
            del self._channels[message.cid]
            return [ChannelFailed(channel=channel, status=message.status)]
        if message.sid in self._sids:
            raise ProtocolError(f"the server opens two channels with the sid {message.sid}")
        channel.sid = message.sid
        self._sids[message.sid] = channel
        return [ChannelOpened(channel=channel)]

    def _destroyed(self, message: messages.DestroyChannel) -> list[Any]:
        channel = self._channels.get(message.cid)
        if channel is None or channel.sid != message.sid:
            channel = self._sids.get(message.sid)
        if channel is None:
            return [Received(message=message)]
        del self._channels[channel.cid]
        if channel.sid is not None:
            self._sids.pop(channel.sid, None)
        ended = self._of(channel)
        for operation in ended:
            self._forget(operation)
        return [ChannelClosed(channel=channel, operations=ended, by_peer=not channel.closing)]

    def _reply(self, message: messages.Reply, frame: framing.Message) -> list[Any]:
        operation = self._operations.get(message.ioid)
        if operation is None or operation.command != message.command:
            forgotten = self._forgotten.get(message.ioid)
            if forgotten is None:
                return [Received(message=message)]
            if forgotten.command == message.command:
                messages.learn(forgotten, message)
                forgotten.value = forgotten.put_value = None
            return []
        if isinstance(message, messages.MonitorUpdate):
            return [self._update(operation, message, frame)]
        if isinstance(message, messages.InitReply):
            return [self._opened(operation, message)]
        assert isinstance(message, messages.StatusReply | messages.GetFieldReply)
        if isinstance(message, messages.GetFieldReply):
            self._remove(operation)
        elif not operation.ready:
            if message.status.ok:
                raise ProtocolError(
                    f"{name_of(message)} for ioid {message.ioid} before its INIT was answered"
                )
            # That is how its INIT was answered.
            self._remove(operation)
        elif isinstance(message, messages.MonitorFinal):
            messages.learn(operation, message)
            self._remove(operation)
        elif not isinstance(message, messages.MonitorError):
            return self._answer(operation, message)
        return [OperationReply(operation=operation, message=message)]

    def _answer(self, operation: ConnectionOperation, message: messages.StatusReply) -> list[Any]:
        """The answer to a request."""
        messages.learn(operation, message)
        if not operation.busy:
            return [Received(message=message)]
        if type(message) is not operation.expects:
            raise ProtocolError(f"{name_of(message)} for ioid {message.ioid}, which asked for something else")
        operation.answered()
        if operation.destroyed:
            self._remove(operation)
        return [] if operation.cancelled else [OperationReply(operation=operation, message=message)]

    def _update(
        self, operation: ConnectionOperation, message: messages.MonitorUpdate, frame: framing.Message
    ) -> Update:
        if message.value is None:
            raise ProtocolError(f"a MONITOR update for ioid {message.ioid} before its INIT was answered")
        messages.learn(operation, message)
        self._count(operation)
        return Update(operation, frame, message.value, message.overrun, self._time)

    def _opened(self, operation: ConnectionOperation, message: messages.InitReply) -> OperationReply:
        """The answer to an INIT."""
        if operation.ready:
            raise ProtocolError(f"a second answer to the INIT of ioid {message.ioid}")
        if message.status.ok:
            names = ("type", "put_type", "get_type")
            if None in [getattr(message, name) for name in names if hasattr(message, name)]:
                raise ProtocolError(f"{name_of(message)} for ioid {message.ioid} without a type")
            messages.learn(operation, message)
            operation.ready = True
            operation.answered()
        else:
            self._remove(operation)
        return OperationReply(operation=operation, message=message)

    def _count(self, operation: ConnectionOperation) -> None:
        """Take an update off the window of a pipelined monitor."""
        if operation.window is None:
            return
        if not operation.window:
            raise ProtocolError(f"the server sends more updates of ioid {operation.ioid} than it was allowed")
        operation.window -= 1


def _ack_at(operation: ConnectionOperation) -> int:
    """After how many updates to acknowledge."""
    try:
        request = Request.read(operation.request)
    except (DecodeError, TypeError):
        request = Request.read(None)
    return request.ack_at(operation.queue) if operation.queue else 0

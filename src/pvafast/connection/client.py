"""ClientConnection: the client's end of a connection, without I/O."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, final

from .. import messages
from .._backend import framing, introspection, monitor, value
from .._types import ANY, ANY_ARRAY
from ..errors import LocalProtocolError, ProtocolError
from ..limits import Limits
from ..messages import Command, PvaMessage
from .events import (
    Cancelled,
    ChannelClosed,
    ChannelFailed,
    ChannelOpened,
    EchoReply,
    Greeted,
    OperationReply,
    Received,
    Update,
    Validated,
)
from .shared import Channel, Connection, ConnectionOperation

_FIELDS: Final = introspection.FieldDesc.structure("", {"user": "string", "host": "string"})
# Operations that have ended are kept for replies on their way: those may define type ids that later messages use.
_FORGOTTEN: Final = 1024
_ERROR_BITS: Final = 0x44


def _without_any(type: introspection.FieldDesc) -> bool:
    return type.code not in (ANY, ANY_ARRAY) and all(_without_any(member) for member in type.members.values())


@final
class ClientConnection(Connection):
    """The client's end of a connection: feed it what the server sends, send what it hands out.

    user, host: for the authentication "ca", which is chosen where the server offers it and a user is given;
    "anonymous" otherwise. The handshake goes by itself: send `data_to_send()` after each `events()`. When Validated
    has come, open channels with `send(CreateChannel(...))`, then operations on them. Messages are sent in the byte order
    that the server asks for, and read in that of their own flag.

    Events: Greeted, Validated, ChannelOpened, ChannelFailed, ChannelClosed, OperationReply, Update (of monitors),
    Cancelled, EchoReply, Received, ConnectionEnded.
    """

    def __init__(self, *, limits: Limits | None = None, user: str = "", host: str = "") -> None:
        super().__init__(limits)
        self._user = user
        self._host = host
        self._validated = False
        self._channels: dict[int, Channel] = {}
        self._sids: dict[int, Channel] = {}
        self._last_cid = 0
        self._last_ioid = 0
        self._forgotten: dict[int, ConnectionOperation] = {}
        # Echoes on their way: None, or the operation whose cancelling is over when the answer comes.
        self._echoes: deque[ConnectionOperation | None] = deque()

    @property
    def validated(self) -> bool:
        """The handshake is over, and the server took the client."""
        return self._validated

    @property
    def channels(self) -> dict[int, Channel]:
        """The channels asked for or open, by cid; a copy."""
        return dict(self._channels)

    def new_cid(self) -> int:
        """A number for a channel that is not in use."""
        self._last_cid += 1
        return self._last_cid

    def new_ioid(self) -> int:
        """A number for an operation that is not in use."""
        self._last_ioid += 1
        return self._last_ioid

    def send(self, message: PvaMessage, *, segment_size: int | None = None) -> list[Any]:
        """The buffers of a message, to be sent after data_to_send(). segment_size: cut it into segments of that size.

        LocalProtocolError for what the protocol does not allow now, EncodeError for what cannot be encoded; either
        leaves the connection as it was.
        """
        self._open()
        operation = self._allowed(message)
        buffers = self._encode(message, segment_size)
        self._sent(message, operation)
        if isinstance(message, messages.CancelRequest):
            # No answer is due: what was on its way has come when the answer to this has.
            buffers += self._encode(messages.Echo())
        return buffers

    # -- sending

    def _allowed(self, message: PvaMessage) -> ConnectionOperation | None:
        """Whether the message may be sent now; its operation."""
        if isinstance(message, messages.Echo | messages.Control | messages.Search | messages.Authnz):
            return None
        if not self._validated:
            raise LocalProtocolError(f"{_name(message)} before the connection is validated")
        if isinstance(message, messages.CreateChannel):
            for cid, name in message.channels:
                if cid in self._channels:
                    raise LocalProtocolError(f"the cid {cid} is in use")
                if not name:
                    raise LocalProtocolError("a channel without a name")
            if len(self._channels) + len(message.channels) > self._limits.channels:
                raise LocalProtocolError(f"more than {self._limits.channels} channels (Limits.channels)")
            return None
        if isinstance(message, messages.DestroyChannel):
            channel = self._channels.get(message.cid)
            if channel is None or channel.sid != message.sid:
                raise LocalProtocolError(f"no open channel with sid {message.sid} and cid {message.cid}")
            return None
        if not isinstance(message, messages.Request):
            return None
        channel = self._sids.get(message.sid)
        if channel is None:
            raise LocalProtocolError(f"{_name(message)} on sid {message.sid}, which is no open channel")
        operation = self._operations.get(message.ioid)
        if isinstance(message, messages.InitRequest | messages.GetField):
            if operation is not None or message.ioid in self._forgotten or not message.ioid:
                raise LocalProtocolError(f"the ioid {message.ioid} is in use, or zero")
            if len(self._operations) >= self._limits.operations:
                raise LocalProtocolError(
                    f"more than {self._limits.operations} operations (Limits.operations)"
                )
            request = message.request if isinstance(message, messages.InitRequest) else None
            operation = ConnectionOperation(message.command, message.ioid, channel, request)
            if isinstance(message, messages.MonitorInit) and message.nfree is not None:
                operation.window = message.nfree
                operation.pipelined = True
            return operation
        if operation is None or operation.channel is not channel:
            raise LocalProtocolError(
                f"{_name(message)} for ioid {message.ioid}, which is no operation of the channel"
            )
        if isinstance(message, messages.DestroyRequest | messages.CancelRequest):
            return operation
        if operation.command != message.command:
            raise LocalProtocolError(
                f"{_name(message)} for ioid {message.ioid}, which is a {Command(operation.command).name}"
            )
        if not operation.ready:
            raise LocalProtocolError(f"{_name(message)} before the answer to the INIT of ioid {message.ioid}")
        if isinstance(message, messages.MonitorAck):
            if operation.window is None:
                raise LocalProtocolError(f"the monitor {message.ioid} is not pipelined")
        elif message.command != Command.MONITOR and operation.busy:
            raise LocalProtocolError(
                f"{_name(message)} before the answer to the last request of ioid {message.ioid}"
            )
        return operation

    def _sent(self, message: PvaMessage, operation: ConnectionOperation | None) -> None:
        """Take note of what was sent."""
        if isinstance(message, messages.Echo):
            self._echoes.append(None)
        elif isinstance(message, messages.CreateChannel):
            for cid, name in message.channels:
                self._channels[cid] = Channel(cid, name)
        elif isinstance(message, messages.DestroyChannel):
            for mine in list(self._channels[message.cid].operations.values()):
                self._forget(mine)
        if operation is None:
            return
        if isinstance(message, messages.InitRequest | messages.GetField):
            self._add(operation)
            operation.busy = True
        elif isinstance(message, messages.DestroyRequest | messages.MonitorDestroy):
            self._forget(operation)
        elif isinstance(message, messages.CancelRequest):
            operation.cancelled = True
            self._echoes.append(operation)
        elif isinstance(message, messages.MonitorAck):
            assert operation.window is not None
            operation.window += message.nfree
        elif message.command != Command.MONITOR:
            operation.busy = True
            operation.destroyed = getattr(message, "destroy", False)

    def _forget(self, operation: ConnectionOperation) -> None:
        """An operation has ended at the client's wish: answers on their way are still to be decoded."""
        self._remove(operation)
        self._forgotten[operation.ioid] = operation
        while len(self._forgotten) > _FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]

    # -- receiving

    def _step(self) -> None:
        plain = monitor.read_updates(self._batch, self._at, self._operations, self._in, self._time)
        if plain:
            self._at += len(plain)
            self._ready.extend(plain)
        else:
            super()._step()

    def _known(self, ioid: int) -> messages.Operation | None:
        return self._operations.get(ioid) or self._forgotten.get(ioid)

    def _handle(self, message: PvaMessage, frame: framing.Message) -> list[Any]:
        if isinstance(message, messages.Reply):
            return self._reply(message, frame)
        if isinstance(message, messages.SetByteOrder):
            self._byteorder = message.byteorder
            return []
        if isinstance(message, messages.ConnectionValidationRequest):
            return self._greeted(message)
        if isinstance(message, messages.ConnectionValidated):
            self._validated = message.status.ok
            return [Validated(status=message.status)]
        if isinstance(message, messages.CreateChannelReply):
            return self._created(message)
        if isinstance(message, messages.DestroyChannel):
            return self._destroyed(message)
        if isinstance(message, messages.Echo):
            cancelled = self._echoes.popleft() if self._echoes else None
            if cancelled is None:
                return [EchoReply(payload=message.payload)]
            cancelled.cancelled = cancelled.busy = False
            return [Cancelled(operation=cancelled)] if cancelled.ioid in self._operations else []
        if isinstance(message, messages.Control):
            return []
        return [Received(message=message)]

    def _greeted(self, message: messages.ConnectionValidationRequest) -> list[Any]:
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

    def _created(self, message: messages.CreateChannelReply) -> list[Any]:
        channel = self._channels.get(message.cid)
        if channel is None or channel.sid is not None:
            return [Received(message=message)]
        if not message.status.ok or message.sid == messages.NO_CHANNEL:
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
        ended = tuple(channel.operations.values())
        for operation in ended:
            self._forget(operation)
        # Whoever asked for it has ended the operations before.
        return [ChannelClosed(channel=channel, operations=ended, by_peer=True)]

    def _reply(self, message: messages.Reply, frame: framing.Message) -> list[Any]:
        operation = self._operations.get(message.ioid)
        if operation is None or operation.command != message.command:
            forgotten = self._forgotten.get(message.ioid)
            if forgotten is not None:
                messages.learn(forgotten, message)
                return []
            return [Received(message=message)]
        if isinstance(message, messages.MonitorUpdate):
            if not operation.ready:
                raise ProtocolError(f"a MONITOR update for ioid {message.ioid} before its INIT was answered")
            if message.value is None:
                raise ProtocolError(
                    f"a MONITOR update for ioid {message.ioid} cannot be decoded: {message.reason}"
                )
            messages.learn(operation, message)
            self._count(operation)
            if operation.type is not None and operation.window is None and _without_any(operation.type):
                operation.steady = operation.type
            return [Update(operation, frame, message.value, message.overrun, self._time)]
        messages.learn(operation, message)
        if operation.cancelled and not isinstance(message, messages.InitReply | messages.MonitorFinal):
            return []
        operation.busy = False
        if isinstance(message, messages.InitReply):
            if operation.ready:
                raise ProtocolError(f"a second answer to the INIT of ioid {message.ioid}")
            operation.ready = message.status.ok
            if not message.status.ok:
                self._remove(operation)
        elif operation.destroyed or isinstance(message, messages.GetFieldReply | messages.MonitorFinal):
            self._remove(operation)
        return [OperationReply(operation=operation, message=message)]

    def _count(self, operation: ConnectionOperation) -> None:
        """Take an update off the window of a pipelined monitor."""
        if operation.window is None:
            return
        operation.window -= 1
        if operation.window < 0:
            raise ProtocolError(f"the server sends more updates of ioid {operation.ioid} than it was allowed")


def _name(message: PvaMessage) -> str:
    return type(message).__name__

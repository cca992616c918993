"""ServerConnection: the server's end of a connection, without I/O."""

from __future__ import annotations

from typing import Any, Final, final

from .. import messages
from .._backend import framing, value
from ..errors import LocalProtocolError, ProtocolError
from ..limits import Limits
from ..messages import Command, PvaMessage, Status, StatusType
from .events import ChannelClosed, ChannelRequested, Credentials, OperationRequest, Received
from .shared import Channel, Connection, ConnectionOperation, exceeded

# Requests that fit operations of any command.
_OF_ANY: Final = (Command.DESTROY_REQUEST, Command.CANCEL_REQUEST)
_INIT_REPLIES: Final[dict[int, type[messages.InitReply]]] = {
    Command.GET: messages.GetInitReply,
    Command.PUT: messages.PutInitReply,
    Command.PUT_GET: messages.PutGetInitReply,
    Command.MONITOR: messages.MonitorInitReply,
    Command.ARRAY: messages.ArrayInitReply,
    Command.PROCESS: messages.ProcessInitReply,
    Command.RPC: messages.RpcInitReply,
}


@final
class ServerConnection(Connection):
    """The server's end of a connection: feed it what the client sends, send what it hands out.

    byteorder: in which it sends; requests are read in that of their own flag. methods: authentication methods that it
    offers, the preferred one last. It greets by itself: send `data_to_send()` at once, and after each `events()`;
    echoes are answered there, too.

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
        self._post(messages.SetByteOrder(byteorder=byteorder))
        self._post(messages.ConnectionValidationRequest(buffer_size=buffer_size, methods=self._methods))

    @property
    def channels(self) -> dict[int, Channel]:
        """The open channels, by sid; a copy."""
        return dict(self._channels)

    def new_sid(self) -> int:
        """A number for a channel that is not in use."""
        self._last_sid += 1
        return self._last_sid

    def may_send(self, ioid: int) -> bool:
        """Whether a monitor may be sent an update: it is alive, and its window, where it has one, is open."""
        operation = self._operations.get(ioid)
        return operation is not None and operation.ready and operation.window != 0

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

    # -- sending

    def _allowed(self, message: PvaMessage) -> ConnectionOperation | None:
        """Whether the message may be sent now; its operation."""
        if isinstance(message, messages.CreateChannelReply):
            if message.cid not in self._asked:
                raise LocalProtocolError(f"no channel was asked for with the cid {message.cid}")
            if message.status.ok and (message.sid in self._channels or message.sid == messages.NO_CHANNEL):
                raise LocalProtocolError(f"the sid {message.sid} is in use, or none")
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
            raise LocalProtocolError(f"{_name(message)} for ioid {message.ioid}, which is no operation")
        if operation.command != message.command:
            raise LocalProtocolError(
                f"{_name(message)} for ioid {message.ioid}, which is a {Command(operation.command).name}"
            )
        if isinstance(message, messages.InitReply):
            if operation.ready:
                raise LocalProtocolError(f"the INIT of ioid {message.ioid} was answered before")
        elif not operation.ready and not isinstance(message, messages.GetFieldReply):
            raise LocalProtocolError(f"{_name(message)} before the answer to the INIT of ioid {message.ioid}")
        if isinstance(message, messages.MonitorUpdate) and operation.window == 0:
            raise LocalProtocolError(
                f"the window of the monitor {message.ioid} is closed: the client must acknowledge"
            )
        return operation

    def _sent(self, message: PvaMessage, operation: ConnectionOperation | None) -> None:
        """Take note of what was sent."""
        if isinstance(message, messages.CreateChannelReply):
            channel = self._asked.pop(message.cid)
            if message.status.ok:
                channel.sid = message.sid
                self._channels[message.sid] = channel
        elif isinstance(message, messages.DestroyChannel):
            self._close(self._channels[message.sid])
        if operation is None:
            return
        if isinstance(message, messages.InitReply):
            operation.ready = message.status.ok
            if message.status.ok:
                messages.learn(operation, message)
            else:
                self._remove(operation)
        elif isinstance(message, messages.MonitorUpdate):
            if operation.window is not None:
                operation.window -= 1
        else:
            operation.busy = False
            if operation.destroyed or isinstance(message, messages.GetFieldReply | messages.MonitorFinal):
                self._remove(operation)

    def _close(self, channel: Channel) -> tuple[ConnectionOperation, ...]:
        """Close a channel; its operations end with it."""
        if channel.sid is not None:
            self._channels.pop(channel.sid, None)
        ended = tuple(channel.operations.values())
        for operation in ended:
            self._remove(operation)
        return ended

    # -- receiving

    def _handle(self, message: PvaMessage, frame: framing.Message) -> list[Any]:
        if isinstance(message, messages.Request):
            return self._request(message)
        if isinstance(message, messages.Echo):
            self._post(messages.Echo(payload=message.payload))
            return []
        if isinstance(message, messages.Control):
            return []
        if isinstance(message, messages.ConnectionValidationResponse):
            data = message.data if isinstance(message.data, value.Value) else None
            user, host = (
                str(data[name]) if data is not None and name in data and isinstance(data[name], str) else ""
                for name in ("user", "host")
            )
            return [
                Credentials(
                    method=message.method,
                    user=user,
                    host=host,
                    offered=message.method in self._methods,
                    data=message.data,
                )
            ]
        if isinstance(message, messages.CreateChannel):
            return self._create(message)
        if isinstance(message, messages.DestroyChannel):
            channel = self._channels.get(message.sid)
            if channel is None:
                return []
            self._post(messages.DestroyChannel(sid=message.sid, cid=message.cid))
            return [ChannelClosed(channel=channel, operations=self._close(channel), by_peer=True)]
        return [Received(message=message)]

    def _create(self, message: messages.CreateChannel) -> list[Any]:
        found = []
        for cid, name in message.channels:
            if len(self._channels) + len(self._asked) >= self._limits.channels:
                raise exceeded("channels", "channels", self._limits)
            self._asked[cid] = Channel(cid, name)
            found.append(ChannelRequested(cid=cid, name=name))
        return found

    def _request(self, message: messages.Request) -> list[Any]:
        operation = self._operations.get(message.ioid)
        if isinstance(message, messages.InitRequest | messages.GetField):
            return self._begin(message, operation)
        if operation is None or message.command not in (operation.command, *_OF_ANY):
            return []  # of an operation that has ended meanwhile
        if _ends(message):
            self._remove(operation)
        elif isinstance(message, messages.MonitorAck):
            if operation.window is not None:
                operation.window = min(operation.window + message.nfree, 0xFFFFFFFF)
        elif isinstance(message, messages.SubRequest) and message.command != Command.MONITOR:
            operation.busy = True
            operation.destroyed = operation.destroyed or message.destroy
        return [OperationRequest(operation=operation, message=message)]

    def _begin(
        self, message: messages.InitRequest | messages.GetField, known: ConnectionOperation | None
    ) -> list[Any]:
        """The first request of an operation."""
        if known is not None:
            raise ProtocolError(f"the client uses the ioid {message.ioid} twice")
        channel = self._channels.get(message.sid)
        if channel is None:
            # It may have been closed while the request was on its way: pvAccessCPP's words.
            self._refuse(message, Status(StatusType.ERROR, "bad channel id"))
            return []
        if len(self._operations) >= self._limits.operations:
            raise exceeded("operations", "operations", self._limits)
        request = message.request if isinstance(message, messages.InitRequest) else None
        operation = ConnectionOperation(message.command, message.ioid, channel, request)
        operation.busy = True
        if isinstance(message, messages.MonitorInit) and message.nfree is not None:
            operation.window = message.nfree
            operation.pipelined = True
        self._add(operation)
        return [OperationRequest(operation=operation, message=message)]

    def _refuse(self, message: messages.InitRequest | messages.GetField, status: Status) -> None:
        if isinstance(message, messages.GetField):
            self._post(messages.GetFieldReply(ioid=message.ioid, status=status))
        else:
            self._post(_INIT_REPLIES[message.command](ioid=message.ioid, status=status))


def _ends(message: messages.Request) -> bool:
    return isinstance(message, messages.DestroyRequest | messages.MonitorDestroy)


def _name(message: PvaMessage) -> str:
    return type(message).__name__

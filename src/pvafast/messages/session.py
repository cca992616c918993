"""The life of a connection and of its channels (WIRE 3 and 8), and what is not known."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Final

from .core import (
    AnyBody,
    Command,
    ControlCommand,
    PvaMessage,
    Status,
    message,
)
from .fields import (
    ANY,
    CHANNELS,
    OPTIONAL_ANY,
    REST,
    STATUS,
    STRING,
    STRINGS,
    U8,
    U16,
    U32,
    Field,
    wire,
)


@message
class ConnectionValidationRequest(PvaMessage):
    """The server opens the handshake. `methods`: authentication methods that it offers, the preferred one last."""

    command = Command.CONNECTION_VALIDATION
    from_server = True
    layout = wire(buffer_size=U32, registry_size=U16, methods=STRINGS)

    buffer_size: int = 0x10000
    registry_size: int = 0x7FFF
    methods: tuple[str, ...] = ("anonymous", "ca")


@message
class ConnectionValidationResponse(PvaMessage):
    """The client answers with its choice. `data`: for "ca" a structure of user and host, for "anonymous" None."""

    command = Command.CONNECTION_VALIDATION
    from_server = False
    layout = wire(buffer_size=U32, registry_size=U16, qos=U16, method=STRING, data=OPTIONAL_ANY)

    buffer_size: int = 0x10000
    registry_size: int = 0x7FFF
    # Bits 0 to 6: priority; 8 low latency, 9 throughput, 10 compression. Servers ignore it.
    qos: int = 0
    method: str = "anonymous"
    data: AnyBody = None


@message
class ConnectionValidated(PvaMessage):
    """The server accepts the client, or not."""

    command = Command.CONNECTION_VALIDATED
    from_server = True
    layout = wire(status=STATUS)

    status: Status = Status.OK


@message
class Echo(PvaMessage):
    """Are you there? The answer is an Echo with the same payload (from version 1 servers: with none)."""

    command = Command.ECHO
    layout = wire(payload=REST)

    payload: bytes = b""


@message
class Authnz(PvaMessage):
    """A step of an authentication in several steps; nobody uses it."""

    command = Command.AUTHNZ
    layout = wire(data=ANY)

    data: AnyBody = None


@message
class AclChange(PvaMessage):
    """The rights to a channel changed: 1 PUT, 2 PUT_GET, 4 RPC. Only phoebus knows it."""

    command = Command.ACL_CHANGE
    from_server = True
    layout = wire(cid=U32, rights=U8)

    cid: int
    rights: int


@message
class CreateChannel(PvaMessage):
    """Open channels: (cid, name) pairs. pvAccessCPP closes the connection on anything but one."""

    command = Command.CREATE_CHANNEL
    from_server = False
    layout = wire(channels=CHANNELS)

    channels: tuple[tuple[int, str], ...]


# The sid of a channel that could not be opened.
NO_CHANNEL: Final = 0xFFFFFFFF


@message
class CreateChannelReply(PvaMessage):
    """One channel is open, or could not be opened (`sid` then says nothing)."""

    command = Command.CREATE_CHANNEL
    from_server = True
    layout = wire(cid=U32, sid=U32, status=STATUS)

    cid: int
    sid: int = NO_CHANNEL
    status: Status = Status.OK


@message
class DestroyChannel(PvaMessage):
    """Close a channel, or: it is closed. A server may send it unasked."""

    command = Command.DESTROY_CHANNEL
    layout = wire(sid=U32, cid=U32)

    sid: int
    cid: int


class Severity(IntEnum):
    """Of a RemoteMessage."""

    INFO = 0
    WARNING = 1
    ERROR = 2
    FATAL = 3


@message
class RemoteMessage(PvaMessage):
    """MESSAGE: a text for the log, about the operation `ioid`, which goes on. A severity above 3 reads as FATAL."""

    command = Command.MESSAGE
    layout = wire(
        ioid=U32,
        severity=Field(lambda c: Severity(min(c.r.u8(), 3)), lambda c, x: c.w.u8(x)),
        text=STRING,
    )

    ioid: int
    severity: Severity = Severity.INFO
    text: str = ""


@message
class Unknown(PvaMessage):
    """An application message that pvafast does not know, or a MONITOR request that asks for nothing."""

    layout = wire(payload=REST)

    command: int
    payload: bytes = b""


@message
class Control(PvaMessage):
    """A control message: it has no payload, and `value` in the header's place for the size."""

    value: int = 0


@message
class Mark(Control):
    """`value`: bytes sent so far. Nobody sends it."""

    command: ClassVar[int] = ControlCommand.MARK


@message
class AckMark(Control):
    """`value`: bytes received so far. Nobody sends it."""

    command: ClassVar[int] = ControlCommand.ACK_MARK


@message
class SetByteOrder(Control):
    """The byte order in which the receiver shall send from now on: bit 7 of the header. `value` is ignored by all."""

    command: ClassVar[int] = ControlCommand.SET_BYTE_ORDER

    byteorder: str = "little"


@message
class EchoRequest(Control):
    """Nobody sends it, nobody answers it."""

    command: ClassVar[int] = ControlCommand.ECHO_REQUEST


@message
class EchoResponse(Control):
    """Nobody sends it."""

    command: ClassVar[int] = ControlCommand.ECHO_RESPONSE


@message
class UnknownControl(Control):
    """A control message that pvafast does not know."""

    command: int

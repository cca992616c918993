"""Channel operations (WIRE 9): requests by the client, replies by the server.

All requests name the channel (sid) and the operation (ioid), all replies the ioid. Most have a sub byte, which says what
is asked: 08 INIT, 10 this is the last request, further bits by command. Here each of these is a class of its own.
"""

from __future__ import annotations

from typing import ClassVar, Final

from .core import (
    AnyBody,
    Command,
    FieldDesc,
    PvaMessage,
    Status,
    Value,
    message,
)
from .fields import (
    ANY,
    NEW_PUT_UPDATE,
    NEW_UPDATE,
    PUT_UPDATE,
    STATUS,
    STRING,
    TYPE,
    U8,
    U32,
    UPDATE,
    wire,
)

# Bits of the sub byte.
INIT: Final = 0x08
DESTROY: Final = 0x10


@message
class Request(PvaMessage):
    """A client asks something of the channel `sid`, by the operation `ioid`."""

    from_server = False
    head = wire(sid=U32, ioid=U32)

    sid: int
    ioid: int


@message
class Reply(PvaMessage):
    """A server answers, by the operation `ioid`."""

    from_server = True
    head = wire(ioid=U32)

    ioid: int


@message
class SubRequest(Request):
    """A request with a sub byte. `destroy`: the operation is done with after this. `bits`: further bits, without effect."""

    head = wire(sid=U32, ioid=U32, sub=U8)
    base_sub: ClassVar[int] = 0x00
    # The bits of the sub byte that fields tell; `bits` are the others.
    own_bits: ClassVar[int] = DESTROY

    destroy: bool = False
    bits: int = 0

    @property
    def sub(self) -> int:
        """The sub byte."""
        return self.base_sub | self.bits | (DESTROY if self.destroy else 0)


@message
class SubReply(Reply):
    """A reply with a sub byte, which repeats that of the request."""

    head = wire(ioid=U32, sub=U8)
    base_sub: ClassVar[int] = 0x00
    # The bits of the sub byte that fields tell; `bits` are the others.
    own_bits: ClassVar[int] = DESTROY

    destroy: bool = False
    bits: int = 0

    @property
    def sub(self) -> int:
        """The sub byte."""
        return self.base_sub | self.bits | (DESTROY if self.destroy else 0)


@message
class InitRequest(SubRequest):
    """Open an operation. `request`: the pvRequest, a Value; peers break on None and on what is not a structure."""

    base_sub = INIT
    layout = wire(request=ANY)

    request: AnyBody


@message
class InitReply(SubReply):
    """The operation is open, or `status` says why not."""

    base_sub = INIT
    layout = wire(status=STATUS)

    status: Status = Status.OK


@message
class TypedInitReply(InitReply):
    """An InitReply that tells the type of the data to come."""

    layout = wire(status=STATUS, type=TYPE)

    type: FieldDesc | None = None


@message
class StatusReply(SubReply):
    """Done, or `status` says why not."""

    layout = wire(status=STATUS)

    status: Status = Status.OK


@message
class ValueReply(StatusReply):
    """Done, and here is the data, unless `status` says why not.

    `value`: laid over the value of the reply before, where the operation has one; `value.changed` are the bits of this
    message. When the type is not known it is None.
    """

    layout = wire(status=STATUS, value=UPDATE)

    value: Value | None = None


@message
class GetInit(InitRequest):
    """Open a GET."""

    command = Command.GET


@message
class GetInitReply(TypedInitReply):
    """GET is open; `type` is the whole PV's (pvxs), or that of the selected fields (pvAccessCPP)."""

    command = Command.GET


@message
class Get(SubRequest):
    """Read."""

    command = Command.GET


@message
class GetReply(ValueReply):
    """What was read; pvAccessCPP sends only what changed since the last reply."""

    command = Command.GET


@message
class PutInit(InitRequest):
    """Open a PUT."""

    command = Command.PUT


@message
class PutInitReply(TypedInitReply):
    """PUT is open."""

    command = Command.PUT


@message
class Put(SubRequest):
    """Write the changed fields of `value`."""

    command = Command.PUT
    layout = wire(value=NEW_UPDATE)

    value: Value | None


@message
class PutReply(StatusReply):
    """Written."""

    command = Command.PUT


@message
class PutGetBack(SubRequest):
    """Read back what a PUT would change."""

    command = Command.PUT
    base_sub = 0x40


@message
class PutGetBackReply(ValueReply):
    """What was read back."""

    command = Command.PUT
    base_sub = 0x40


@message
class PutGetInit(InitRequest):
    """Open a PUT_GET."""

    command = Command.PUT_GET


@message
class PutGetInitReply(InitReply):
    """PUT_GET is open: types of the data put and of the data got."""

    command = Command.PUT_GET
    layout = wire(status=STATUS, put_type=TYPE, get_type=TYPE)

    put_type: FieldDesc | None = None
    get_type: FieldDesc | None = None


@message
class PutGet(SubRequest):
    """Write the changed fields of `value`, process, read."""

    command = Command.PUT_GET
    layout = wire(value=NEW_PUT_UPDATE)

    value: Value | None


@message
class PutGetReply(ValueReply):
    """What was read, of the get type."""

    command = Command.PUT_GET


@message
class PutGetGetGet(SubRequest):
    """Read only."""

    command = Command.PUT_GET
    base_sub = 0x40


@message
class PutGetGetGetReply(ValueReply):
    """What was read, of the get type."""

    command = Command.PUT_GET
    base_sub = 0x40


@message
class PutGetGetPut(SubRequest):
    """Read what was put last."""

    command = Command.PUT_GET
    base_sub = 0x80


@message
class PutGetGetPutReply(ValueReply):
    """What was put last, of the put type."""

    command = Command.PUT_GET
    base_sub = 0x80
    layout = wire(status=STATUS, value=PUT_UPDATE)


@message
class ProcessInit(InitRequest):
    """Open a PROCESS."""

    command = Command.PROCESS


@message
class ProcessInitReply(InitReply):
    """PROCESS is open."""

    command = Command.PROCESS


@message
class Process(SubRequest):
    """Process the record."""

    command = Command.PROCESS


@message
class ProcessReply(StatusReply):
    """Processed."""

    command = Command.PROCESS


@message
class RpcInit(InitRequest):
    """Open an RPC."""

    command = Command.RPC


@message
class RpcInitReply(InitReply):
    """RPC is open."""

    command = Command.RPC


@message
class Rpc(SubRequest):
    """Call with the argument `value`."""

    command = Command.RPC
    layout = wire(value=ANY)

    value: AnyBody


@message
class RpcReply(StatusReply):
    """The result of the call."""

    command = Command.RPC
    layout = wire(status=STATUS, value=ANY)

    value: AnyBody = None


@message
class GetField(Request):
    """The type of the field `field`; "": of the whole PV. pvxs always answers with the whole."""

    command = Command.GET_FIELD
    layout = wire(field=STRING)

    field: str = ""


@message
class GetFieldReply(Reply):
    """The type."""

    command = Command.GET_FIELD
    layout = wire(status=STATUS, type=TYPE)

    status: Status = Status.OK
    type: FieldDesc | None = None


@message
class DestroyRequest(Request):
    """Forget the operation. No reply; replies on their way may still come."""

    command = Command.DESTROY_REQUEST


@message
class CancelRequest(Request):
    """Stop what the operation is doing, but keep it."""

    command = Command.CANCEL_REQUEST


@message
class MultipleData(PvaMessage):
    """Replies of several operations in one message; nobody sends it.

    From the first reply on whose operation is not known, `raw` holds the bytes and `reason` says so.
    """

    command = Command.MULTIPLE_DATA
    from_server = True

    replies: tuple[Reply, ...] = ()

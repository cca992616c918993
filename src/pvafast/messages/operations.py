"""Channel operations (WIRE 9): requests by the client, replies by the server.

All requests name the channel (sid) and the operation (ioid), all replies the ioid. Most have a sub byte, which says what
is asked: 08 INIT, 10 this is the last request, further bits by command. Here each of these is a class of its own.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, TypeVar

import numpy as np

from .._backend import bitset
from .._types import CODE_OF_DTYPE, VARIABLE, short_name
from ..errors import EncodeError
from .core import (
    ANY,
    BITSET,
    NEW_PUT_UPDATE,
    NEW_UPDATE,
    PUT_UPDATE,
    SIZE,
    STATUS,
    STRING,
    TYPE,
    U8,
    U32,
    UPDATE,
    AnyBody,
    Command,
    Field,
    FieldDesc,
    In,
    Out,
    PvaMessage,
    Status,
    Value,
    known_type,
    message,
    wire,
)

_M = TypeVar("_M", bound=PvaMessage)

# Bits of the sub byte.
INIT: Final = 0x08
DESTROY: Final = 0x10

NO_BITS: Final = bitset.BitSet()


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


def _read_free(c: In) -> int | None:
    return c.r.u32() if c.sub & 0x80 else None


def _write_free(c: Out, x: int | None) -> None:
    if x is not None:
        c.w.u32(x)


@message
class MonitorInit(InitRequest):
    """Open a subscription. `nfree`: with flow control (pipeline), so many updates may come before the first MonitorAck.

    Flow control also needs the option record._options.pipeline = "true" in the pvRequest.
    """

    command = Command.MONITOR
    layout = wire(request=ANY, nfree=Field(_read_free, _write_free))

    own_bits = DESTROY | 0x80
    nfree: int | None = None

    @property
    def sub(self) -> int:
        """The sub byte."""
        return INIT | self.bits | (DESTROY if self.destroy else 0) | (0 if self.nfree is None else 0x80)


@message
class MonitorInitReply(TypedInitReply):
    """The subscription is open; updates flow once it is started."""

    command = Command.MONITOR


@message
class MonitorStart(SubRequest):
    """Let updates flow."""

    command = Command.MONITOR
    base_sub = 0x44


@message
class MonitorStop(SubRequest):
    """Let no more updates flow."""

    command = Command.MONITOR
    base_sub = 0x04


@message
class MonitorAck(SubRequest):
    """Flow control: `nfree` more updates may come. pvAccessCPP ignores other bits beside it."""

    command = Command.MONITOR
    base_sub = 0x80
    layout = wire(nfree=U32)

    nfree: int


@message
class MonitorDestroy(SubRequest):
    """End the subscription."""

    command = Command.MONITOR
    base_sub = DESTROY

    destroy: bool = True


@message
class MonitorUpdate(SubReply):
    """The fields that changed. `overrun`: those that changed more than once, of which older values are lost.

    `value` is laid over the value of the update before; `value.changed` are the bits of this message. When the type is
    not known it is None.
    """

    command = Command.MONITOR
    layout = wire(value=UPDATE, overrun=BITSET)

    value: Value | None
    overrun: bitset.BitSet = NO_BITS


def _read_last(c: In) -> Value | None:
    last: Value | None = UPDATE.read(c) if c.r.left else None
    return last


def _write_last(c: Out, x: Value | None) -> None:
    if x is not None:
        UPDATE.write(c, x)


def _read_last_overrun(c: In) -> bitset.BitSet:
    return NO_BITS if c.values["value"] is None else bitset.BitSet.read(c.r)


def _write_last_overrun(c: Out, x: bitset.BitSet) -> None:
    if c.message.value is not None:
        BITSET.write(c, x)
    elif x:
        raise EncodeError("overrun bits without a value")


@message
class MonitorFinal(StatusReply):
    """The server ends the subscription, perhaps with a last update (`value` is None if not)."""

    command = Command.MONITOR
    base_sub = DESTROY
    layout = wire(
        status=STATUS,
        value=Field(_read_last, _write_last),
        overrun=Field(_read_last_overrun, _write_last_overrun),
    )

    destroy: bool = True
    value: Value | None = None
    overrun: bitset.BitSet = NO_BITS


@message
class MonitorError(StatusReply):
    """A request on a subscription failed: pvAccessCPP repeats the sub byte of the request, 44 or 04."""

    command = Command.MONITOR

    bits: int = 0x44


@message
class ArrayInit(InitRequest):
    """Open an ARRAY: slices of an array PV."""

    command = Command.ARRAY


@message
class ArrayInitReply(TypedInitReply):
    """ARRAY is open; `type` is that of the array."""

    command = Command.ARRAY


def _type_of(x: Any) -> FieldDesc:
    if isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.newbyteorder("=") in CODE_OF_DTYPE:
        return FieldDesc.of(short_name(CODE_OF_DTYPE[x.dtype.newbyteorder("=")] | VARIABLE, 0))
    if isinstance(x, list | tuple) and x and all(isinstance(item, str) for item in x):
        return FieldDesc.of("string[]")
    raise EncodeError("array or strings expected, or anything else with its type")


def _write_array(c: Out, x: Any) -> None:
    c.codec.write(x, c.w, c.message.type or _type_of(x))


# The type of an array is not sent along with it: this field takes no bytes.
_ARRAY_TYPE: Final = Field(known_type, lambda c, x: None)
_ARRAY: Final = Field(lambda c: c.codec.read(known_type(c), c.r), _write_array)


@message
class ArrayPut(SubRequest):
    """Write `value` from element `offset` on, to every `stride`-th element.

    `type` is needed where `value` is neither a numeric array nor a list of strings, and for fixed-size arrays. On
    decoding, see ValueReply for `raw` and `reason`.
    """

    command = Command.ARRAY
    layout = wire(offset=SIZE, stride=SIZE, type=_ARRAY_TYPE, value=_ARRAY)

    offset: int = 0
    stride: int = 1
    type: FieldDesc | None = None
    value: Any


@message
class ArrayPutReply(StatusReply):
    """Written."""

    command = Command.ARRAY


@message
class ArrayGet(SubRequest):
    """Read `count` elements (0: all to the end), from `offset` on, every `stride`-th."""

    command = Command.ARRAY
    base_sub = 0x40
    layout = wire(offset=SIZE, count=SIZE, stride=SIZE)

    offset: int = 0
    count: int = 0
    stride: int = 1


@message
class ArrayGetReply(StatusReply):
    """The elements. For `type` see ArrayPut."""

    command = Command.ARRAY
    base_sub = 0x40
    layout = wire(status=STATUS, type=_ARRAY_TYPE, value=_ARRAY)

    type: FieldDesc | None = None
    value: Any = None


@message
class ArraySetLength(SubRequest):
    """Make the array so long."""

    command = Command.ARRAY
    base_sub = 0x80
    layout = wire(length=SIZE)

    length: int


@message
class ArraySetLengthReply(StatusReply):
    """Done."""

    command = Command.ARRAY
    base_sub = 0x80


@message
class ArrayGetLength(SubRequest):
    """How long is the array?"""

    command = Command.ARRAY
    base_sub = 0x04


@message
class ArrayGetLengthReply(StatusReply):
    """So long."""

    command = Command.ARRAY
    base_sub = 0x04
    layout = wire(status=STATUS, length=SIZE)

    length: int = 0


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


def by_sub(*rows: tuple[int, type[_M]]) -> tuple[type[_M] | None, ...]:
    """Which class each of the 256 sub bytes makes: the first row whose bits are all set in it."""
    return tuple(next((cls for bits, cls in rows if sub & bits == bits), None) for sub in range(256))


# command -> sub byte -> class.
REQUESTS: Final[dict[int, tuple[type[SubRequest] | None, ...]]] = {
    Command.GET: by_sub((INIT, GetInit), (0, Get)),
    Command.PUT: by_sub((INIT, PutInit), (0x40, PutGetBack), (0, Put)),
    Command.PUT_GET: by_sub((INIT, PutGetInit), (0x40, PutGetGetGet), (0x80, PutGetGetPut), (0, PutGet)),
    Command.MONITOR: by_sub(
        (INIT, MonitorInit),
        (0x80, MonitorAck),
        (0x44, MonitorStart),
        (0x04, MonitorStop),
        (DESTROY, MonitorDestroy),
    ),
    Command.ARRAY: by_sub(
        (INIT, ArrayInit), (0x40, ArrayGet), (0x80, ArraySetLength), (0x04, ArrayGetLength), (0, ArrayPut)
    ),
    Command.PROCESS: by_sub((INIT, ProcessInit), (0, Process)),
    Command.RPC: by_sub((INIT, RpcInit), (0, Rpc)),
}
REPLIES: Final[dict[int, tuple[type[SubReply] | None, ...]]] = {
    Command.GET: by_sub((INIT, GetInitReply), (0, GetReply)),
    Command.PUT: by_sub((INIT, PutInitReply), (0x40, PutGetBackReply), (0, PutReply)),
    Command.PUT_GET: by_sub(
        (INIT, PutGetInitReply), (0x40, PutGetGetGetReply), (0x80, PutGetGetPutReply), (0, PutGetReply)
    ),
    Command.MONITOR: by_sub(
        (INIT, MonitorInitReply),
        (0x40, MonitorError),
        (0x04, MonitorError),
        (DESTROY, MonitorFinal),
        (0, MonitorUpdate),
    ),
    Command.ARRAY: by_sub(
        (INIT, ArrayInitReply),
        (0x40, ArrayGetReply),
        (0x80, ArraySetLengthReply),
        (0x04, ArrayGetLengthReply),
        (0, ArrayPutReply),
    ),
    Command.PROCESS: by_sub((INIT, ProcessInitReply), (0, ProcessReply)),
    Command.RPC: by_sub((INIT, RpcInitReply), (0, RpcReply)),
}

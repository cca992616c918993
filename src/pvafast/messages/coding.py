"""Payload to message and back: which class a payload makes, by direction, command and sub byte."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from .._backend import bitset, buffer, framing
from ..errors import DecodeError, EncodeError, LimitExceeded, LocalProtocolError, RangeError
from .array import (
    ArrayGet,
    ArrayGetLength,
    ArrayGetLengthReply,
    ArrayGetReply,
    ArrayInit,
    ArrayInitReply,
    ArrayPut,
    ArrayPutReply,
    ArraySetLength,
    ArraySetLengthReply,
)
from .core import (
    Command,
    ControlCommand,
    Operation,
    Operations,
    PvaMessage,
)
from .fields import (
    U8,
    U32,
    In,
    Layout,
    Out,
    read_fields,
    unknown_id,
    wire,
    write_fields,
)
from .monitor import (
    MonitorAck,
    MonitorDestroy,
    MonitorError,
    MonitorFinal,
    MonitorInit,
    MonitorInitReply,
    MonitorStart,
    MonitorStop,
    MonitorUpdate,
)
from .operations import (
    DESTROY,
    INIT,
    CancelRequest,
    DestroyRequest,
    Get,
    GetField,
    GetFieldReply,
    GetInit,
    GetInitReply,
    GetReply,
    MultipleData,
    Process,
    ProcessInit,
    ProcessInitReply,
    ProcessReply,
    Put,
    PutGet,
    PutGetBack,
    PutGetBackReply,
    PutGetGetGet,
    PutGetGetGetReply,
    PutGetGetPut,
    PutGetGetPutReply,
    PutGetInit,
    PutGetInitReply,
    PutGetReply,
    PutInit,
    PutInitReply,
    PutReply,
    Reply,
    Rpc,
    RpcInit,
    RpcInitReply,
    RpcReply,
    SubReply,
    SubRequest,
    TypedInitReply,
    ValueReply,
)
from .session import (
    AckMark,
    AclChange,
    Authnz,
    ConnectionValidated,
    ConnectionValidationRequest,
    ConnectionValidationResponse,
    Control,
    CreateChannel,
    CreateChannelReply,
    DestroyChannel,
    Echo,
    EchoRequest,
    EchoResponse,
    Mark,
    RemoteMessage,
    SetByteOrder,
    Unknown,
    UnknownControl,
)
from .udp import Beacon, OriginTag, Search, SearchResponse

if TYPE_CHECKING:
    from .._backend import codec

_M = TypeVar("_M", bound=PvaMessage)

# Messages that only one class can be, whoever sends them: a wrong direction bit does no harm.
_EITHER: Final[tuple[tuple[Command, type[PvaMessage]], ...]] = (
    (Command.BEACON, Beacon),
    (Command.ECHO, Echo),
    (Command.SEARCH, Search),
    (Command.SEARCH_RESPONSE, SearchResponse),
    (Command.AUTHNZ, Authnz),
    (Command.ACL_CHANGE, AclChange),
    (Command.DESTROY_CHANNEL, DestroyChannel),
    (Command.CONNECTION_VALIDATED, ConnectionValidated),
    (Command.DESTROY_REQUEST, DestroyRequest),
    (Command.MESSAGE, RemoteMessage),
    (Command.CANCEL_REQUEST, CancelRequest),
    (Command.ORIGIN_TAG, OriginTag),
)
_CLIENT: Final[dict[int, type[PvaMessage]]] = {
    **dict(_EITHER),
    Command.CONNECTION_VALIDATION: ConnectionValidationResponse,
    Command.CREATE_CHANNEL: CreateChannel,
    Command.GET_FIELD: GetField,
}
_SERVER: Final[dict[int, type[PvaMessage]]] = {
    **dict(_EITHER),
    Command.CONNECTION_VALIDATION: ConnectionValidationRequest,
    Command.CREATE_CHANNEL: CreateChannelReply,
    Command.GET_FIELD: GetFieldReply,
}
_CONTROL: Final[dict[int, type[Control]]] = {
    ControlCommand.MARK: Mark,
    ControlCommand.ACK_MARK: AckMark,
    ControlCommand.ECHO_REQUEST: EchoRequest,
    ControlCommand.ECHO_RESPONSE: EchoResponse,
}


def _classes(*rows: tuple[int, type[_M]]) -> tuple[type[_M] | None, ...]:
    """Which class each of the 256 sub bytes makes: the first row whose bits are all set in it."""
    return tuple(next((cls for bits, cls in rows if sub & bits == bits), None) for sub in range(256))


# command -> sub byte -> class.
_REQUESTS: Final[dict[int, tuple[type[SubRequest] | None, ...]]] = {
    Command.GET: _classes((INIT, GetInit), (0, Get)),
    Command.PUT: _classes((INIT, PutInit), (0x40, PutGetBack), (0, Put)),
    Command.PUT_GET: _classes((INIT, PutGetInit), (0x40, PutGetGetGet), (0x80, PutGetGetPut), (0, PutGet)),
    Command.MONITOR: _classes(
        (INIT, MonitorInit),
        (0x80, MonitorAck),
        (0x44, MonitorStart),
        (0x04, MonitorStop),
        (DESTROY, MonitorDestroy),
    ),
    Command.ARRAY: _classes(
        (INIT, ArrayInit), (0x40, ArrayGet), (0x80, ArraySetLength), (0x04, ArrayGetLength), (0, ArrayPut)
    ),
    Command.PROCESS: _classes((INIT, ProcessInit), (0, Process)),
    Command.RPC: _classes((INIT, RpcInit), (0, Rpc)),
}
_REPLIES: Final[dict[int, tuple[type[SubReply] | None, ...]]] = {
    Command.GET: _classes((INIT, GetInitReply), (0, GetReply)),
    Command.PUT: _classes((INIT, PutInitReply), (0x40, PutGetBackReply), (0, PutReply)),
    Command.PUT_GET: _classes(
        (INIT, PutGetInitReply), (0x40, PutGetGetGetReply), (0x80, PutGetGetPutReply), (0, PutGetReply)
    ),
    Command.MONITOR: _classes(
        (INIT, MonitorInitReply),
        (0x40, MonitorError),
        (0x04, MonitorError),
        (DESTROY, MonitorFinal),
        (0, MonitorUpdate),
    ),
    Command.ARRAY: _classes(
        (INIT, ArrayInitReply),
        (0x40, ArrayGetReply),
        (0x80, ArraySetLengthReply),
        (0x04, ArrayGetLengthReply),
        (0, ArrayPutReply),
    ),
    Command.PROCESS: _classes((INIT, ProcessInitReply), (0, ProcessReply)),
    Command.RPC: _classes((INIT, RpcInitReply), (0, RpcReply)),
}

_REQUEST_HEAD: Final = wire(sid=U32, ioid=U32, sub=U8)
_REPLY_HEAD: Final = wire(ioid=U32, sub=U8)
_IOID: Final = wire(ioid=U32)
_SUB: Final = wire(sub=U8)

# What the objects of one reply inside MULTIPLE_DATA weigh in memory, and those of an update in it beside its leaves.
_REPLY_WEIGHT: Final = 128
_UPDATE_WEIGHT: Final = 288
_SLOT_WEIGHT: Final = 8
# For the first replies, whose weight the bytes behind them have yet to pay for.
_FREE_WEIGHT: Final = 65_536

# Reads the payload of a message.
_Decoder: TypeAlias = Callable[[In, framing.Message], PvaMessage]


def _rest(cls: type[PvaMessage], fields: Layout, c: In) -> PvaMessage:
    """A message whose `fields` come next, and what is left of the payload behind them."""
    read_fields(fields, c)
    if c.r.left:
        c.values["trailing"] = c.r.bytes(c.r.left)
    return _made(cls, c)


def _made(cls: type[_M], c: In) -> _M:
    if "raw" in c.values and issubclass(cls, SubRequest | SubReply):
        # No field was read that could tell of a bit.
        c.values["bits"] = c.sub & ~(cls.base_sub | DESTROY)
    return cls(**c.values)


def _plain(cls: type[PvaMessage]) -> _Decoder:
    fields = cls.head + cls.layout
    return lambda c, message: _rest(cls, fields, c)


def _unknown(c: In, message: framing.Message) -> PvaMessage:
    return Unknown(command=message.command, payload=c.r.bytes(c.r.left))


def _enter(cls: type[SubRequest] | type[SubReply], c: In, sub: int) -> None:
    """What the sub byte and the ioid say, before the layout of `cls` is read."""
    c.sub = sub
    c.values["destroy"] = sub & 0x10 != 0
    c.values["bits"] = sub & ~(cls.base_sub | cls.own_bits)
    c.operation = c.operations(c.values["ioid"])


def _sub_decoder(head: Layout, classes: tuple[Any, ...]) -> _Decoder:
    def decoder(c: In, message: framing.Message) -> PvaMessage:
        start = c.r.pos
        read_fields(head, c)
        sub: int = c.values.pop("sub")
        cls = classes[sub]
        if cls is None:
            c.r.pos = start
            return _unknown(c, message)
        _enter(cls, c, sub)
        return _rest(cls, cls.layout, c)

    return decoder


_monitor_reply: Final = _sub_decoder(_REPLY_HEAD, _REPLIES[Command.MONITOR])


def _monitor(c: In, message: framing.Message) -> PvaMessage:
    """A MONITOR reply: the hot one of all messages, so the update takes the straight way."""
    r = c.r
    start = r.pos
    if r.left >= 5:
        ioid = r.u32()
        operation = None if r.u8() else c.operations(ioid)
        if operation is not None and operation.reads is not None:
            try:
                value = c.codec.read_update(operation.reads, r, operation.base)
            except (DecodeError, LocalProtocolError) as error:
                if c.lenient:
                    reason = unknown_id(error)
                    if reason:
                        r.pos = start + 5
                        return MonitorUpdate(ioid=ioid, value=None, raw=r.bytes(r.left), reason=reason)
                if isinstance(error, DecodeError):
                    error.within("value")
                raise
            try:
                overrun = bitset.BitSet.read(r)
            except DecodeError as error:
                error.within("overrun")
                raise
            trailing = r.bytes(r.left) if r.left else b""
            return MonitorUpdate(ioid=ioid, value=value, overrun=overrun, trailing=trailing)
        r.pos = start
    return _monitor_reply(c, message)


def learn(operation: Operation, reply: PvaMessage) -> None:
    """Keep what a reply tells of its operation: types, and the value that the next update is laid over."""
    if isinstance(reply, MonitorUpdate | ValueReply | MonitorFinal):
        if reply.value is not None:
            if isinstance(reply, PutGetGetPutReply):
                operation.put_value = reply.value
            else:
                operation.value = reply.value
    elif isinstance(reply, TypedInitReply):
        if reply.status.ok:
            operation.type = reply.type
    elif isinstance(reply, PutGetInitReply) and reply.status.ok:
        operation.put_type = reply.put_type
        operation.type = reply.get_type


def _multiple(c: In, message: framing.Message) -> PvaMessage:
    """MULTIPLE_DATA: replies without a command of their own, up to the ioid 0.

    An update of seven bytes makes a Value with a slot for each of perhaps 16,384 leaves: one half of what
    Limits.expansion allows is for that, the other for what the updates hold.
    """
    limits = c.codec.limits
    half = replace(limits, expansion=max(1, limits.expansion // 2))
    r = buffer.Reader(
        message.data, message.start, message.end, message.byteorder, limits=half, aligned=c.r.aligned
    )
    weight = _FREE_WEIGHT + half.expansion * r.left
    replies: list[Reply] = []
    # Operations as the replies before leave them.
    touched: dict[int, Operation] = {}
    while True:
        start = r.pos
        try:
            one = In(r, c.codec, c.operations, c.lenient)
            read_fields(_IOID, one)
            ioid = one.values["ioid"]
            if not ioid:
                break
            operation = touched.get(ioid) or c.operations(ioid)
            if operation is None or (
                operation.command != Command.GET_FIELD and operation.command not in _REPLIES
            ):
                r.pos = start
                reason = "the operation of this ioid is not known"
                return MultipleData(replies=tuple(replies), raw=r.bytes(r.left), reason=reason)
            weight -= _REPLY_WEIGHT
            if operation.type is not None:
                weight -= _UPDATE_WEIGHT + _SLOT_WEIGHT * len(operation.type)
            if weight < 0:
                what = "objects that weigh too much for the bytes of the message"
                raise LimitExceeded(what, start, limit="expansion")
            reply = _one_reply(one, operation)
            replies.append(reply)
            if reply.reason:
                return MultipleData(replies=tuple(replies), reason=reply.reason)
            touched[ioid] = operation = copy(operation)
            learn(operation, reply)
        except DecodeError as error:
            error.within(f"replies[{len(replies)}]")
            raise
    return MultipleData(replies=tuple(replies), trailing=r.bytes(r.left))


def _one_reply(c: In, operation: Operation) -> Reply:
    if operation.command == Command.GET_FIELD:
        read_fields(GetFieldReply.layout, c)
        return _made(GetFieldReply, c)
    read_fields(_SUB, c)
    sub: int = c.values.pop("sub")
    cls = _REPLIES[operation.command][sub]
    assert cls is not None  # replies have a class for every sub byte
    _enter(cls, c, sub)
    c.operation = operation
    read_fields(cls.layout, c)
    return _made(cls, c)


def _table(special: dict[int, _Decoder]) -> tuple[_Decoder, ...]:
    return tuple(special.get(command, _unknown) for command in range(256))


# By direction (client, server) and command.
_DECODERS: Final[tuple[tuple[_Decoder, ...], tuple[_Decoder, ...]]] = (
    _table(
        {command: _plain(cls) for command, cls in _CLIENT.items()}
        | {command: _sub_decoder(_REQUEST_HEAD, classes) for command, classes in _REQUESTS.items()}
    ),
    _table(
        {command: _plain(cls) for command, cls in _SERVER.items()}
        | {command: _sub_decoder(_REPLY_HEAD, classes) for command, classes in _REPLIES.items()}
        | {Command.MONITOR: _monitor, Command.MULTIPLE_DATA: _multiple}
    ),
)


def _control(message: framing.Message) -> PvaMessage:
    if message.command == ControlCommand.SET_BYTE_ORDER:
        return SetByteOrder(value=message.size, byteorder=message.byteorder)
    cls = _CONTROL.get(message.command)
    return (
        UnknownControl(command=message.command, value=message.size)
        if cls is None
        else cls(value=message.size)
    )


def _none(ioid: int) -> None:
    return None


def decode(
    message: framing.Message,
    *,
    codec: codec.Codec,
    operations: Operations | None = None,
    from_server: bool | None = None,
    aligned: bool = False,
    lenient: bool = False,
) -> PvaMessage:
    """The payload of `message` as an object of its class.

    codec: that of the direction in which the message travels; nothing but its type ids is changed. A UDP message needs
    a fresh one, for it may not refer to ids.
    operations: mapping of ioid to Operation, or a function that finds one: gives the types of data. A message whose type
    is not known has None for its value, the bytes in `raw` and the cause in `reason`.
    from_server: who sent it; None: as the direction bit says.
    aligned: copy arrays that do not lie at a multiple of their element size.
    lenient: for an Observer that came late: a type id that was defined before, or a codec whose ids are unknown, leaves
    `raw` bytes instead of an error.

    DecodeError: `offset` counts from the first byte of the payload, `path` begins with the name of the message's field.
    """
    if message.is_control:
        return _control(message)
    if from_server is None:
        from_server = message.from_server
    r = buffer.Reader(
        message.data, message.start, message.end, message.byteorder, limits=codec.limits, aligned=aligned
    )
    if operations is None:
        operations = _none
    c = In(r, codec, operations if callable(operations) else operations.get, lenient)
    try:
        return _DECODERS[from_server][message.command](c, message)
    except DecodeError as error:
        error.offset -= message.start
        raise


def _class_of(message: PvaMessage, from_server: bool) -> type[PvaMessage] | None:
    """The class that a receiver would make of the message: it must be its own."""
    command = message.command
    if isinstance(message, SubRequest | SubReply):
        classes = (_REPLIES if from_server else _REQUESTS).get(command)
        return None if classes is None else classes[message.sub & 0xFF]
    if isinstance(message, MultipleData):
        return MultipleData if from_server else None
    if isinstance(message, Unknown):
        return Unknown
    return (_SERVER if from_server else _CLIENT).get(command)


def _write(message: PvaMessage, from_server: bool, w: buffer.Writer, codec: codec.Codec) -> None:
    """The payload."""
    if _class_of(message, from_server) is not type(message):
        name = type(message).__name__
        if isinstance(message, SubRequest | SubReply) and message.from_server is from_server:
            raise EncodeError(f"the sub byte {message.sub:#04x} is not that of {name}", "bits")
        raise LocalProtocolError(f"{name} is not sent by the {'server' if from_server else 'client'}")
    if message.raw or message.reason:
        raise EncodeError(f"{len(message.raw)} undecoded bytes cannot be encoded", "raw")
    c = Out(w, codec, message)
    if isinstance(message, MultipleData):
        for i, reply in enumerate(message.replies):
            try:
                if not reply.ioid:
                    raise EncodeError("0 would end the list", "ioid")
                _write(reply, True, w, codec)
            except EncodeError as error:
                error.within(f"replies[{i}]")
                raise
        w.u32(0)
        return
    write_fields(message.head, c)
    write_fields(message.layout, c)


def encode(
    message: PvaMessage,
    *,
    codec: codec.Codec,
    byteorder: str = "little",
    version: int = 2,
    from_server: bool | None = None,
    segment_size: int | None = None,
) -> list[Any]:
    """Header and payload as a list of buffers, for writelines or sendmsg; arrays of 64 KiB and more are not copied.

    codec: that of the direction in which the message travels.
    byteorder: of the message; a SetByteOrder has its own.
    from_server: who sends it; may be None where only one side sends such a message.
    segment_size: cut the payload into segments of at most so many bytes.

    EncodeError (with the path of the field) for what cannot be encoded, LocalProtocolError for a message of the other
    direction; either leaves the codec as it was. `trailing` is not encoded.
    """
    if from_server is None:
        from_server = message.from_server
        if from_server is None:
            raise LocalProtocolError(f"{type(message).__name__} goes both ways: from_server must say which")
    flags = 0x40 if from_server else 0
    command = message.command
    if not isinstance(command, int) or not 0 <= command <= 0xFF:
        raise RangeError(f"uint8 cannot hold {command!r}", "command")
    if isinstance(message, Control):
        if not isinstance(message.value, int) or not 0 <= message.value <= 0xFFFFFFFF:
            raise RangeError(f"uint32 cannot hold {message.value!r}", "value")
        if isinstance(message, SetByteOrder):
            byteorder = message.byteorder
        return [framing.control(command, message.value, flags=flags, byteorder=byteorder, version=version)]
    w = buffer.Writer(byteorder)
    before = codec.numbered
    try:
        _write(message, from_server, w, codec)
        return framing.frame(
            command, w.buffers(), flags=flags, byteorder=byteorder, version=version, segment_size=segment_size
        )
    except BaseException:
        codec.forget(before)
        raise

"""What all messages share: command numbers, Status, the base class and the fields that layouts are made of.

A message class says its fields twice: as annotated attributes, for people and type checkers, and as `layout`, the
order and the encoding on the wire. Reading and writing both follow `layout`, so they cannot drift apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import IntEnum
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    NamedTuple,
    TypeAlias,
    TypeVar,
    dataclass_transform,
    final,
)

from .._backend import bitset, introspection, value
from ..errors import DecodeError, EncodeError, LimitExceeded, LocalProtocolError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._backend import buffer, codec

# Under names that no attribute of a message hides from annotations.
Value: TypeAlias = value.Value
AnyValue: TypeAlias = value.AnyValue
FieldDesc: TypeAlias = introspection.FieldDesc
# An Any* of a message: a structure is its Value, anything else an AnyValue, the null type None.
AnyBody: TypeAlias = Value | AnyValue | None
# How decode() finds the operation of an ioid.
Operations: TypeAlias = "Mapping[int, Operation] | Callable[[int], Operation | None]"


class Command(IntEnum):
    """Application messages (WIRE 7 to 9)."""

    BEACON = 0
    CONNECTION_VALIDATION = 1
    ECHO = 2
    SEARCH = 3
    SEARCH_RESPONSE = 4
    AUTHNZ = 5
    ACL_CHANGE = 6
    CREATE_CHANNEL = 7
    DESTROY_CHANNEL = 8
    CONNECTION_VALIDATED = 9
    GET = 10
    PUT = 11
    PUT_GET = 12
    MONITOR = 13
    ARRAY = 14
    DESTROY_REQUEST = 15
    PROCESS = 16
    GET_FIELD = 17
    MESSAGE = 18
    MULTIPLE_DATA = 19
    RPC = 20
    CANCEL_REQUEST = 21
    ORIGIN_TAG = 22


class ControlCommand(IntEnum):
    """Control messages (WIRE 3): a header, and 32 bits in place of the size."""

    MARK = 0
    ACK_MARK = 1
    SET_BYTE_ORDER = 2
    ECHO_REQUEST = 3
    ECHO_RESPONSE = 4


class StatusType(IntEnum):
    """How an operation ended."""

    OK = 0
    WARNING = 1
    ERROR = 2
    FATAL = 3


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """The outcome of a request. A type above 3 on the wire reads as FATAL."""

    type: StatusType = StatusType.OK
    message: str = ""
    stack: str = ""

    OK: ClassVar[Status]

    @property
    def ok(self) -> bool:
        """The operation was done: OK or WARNING."""
        return self.type <= StatusType.WARNING

    def raise_for_status(self) -> None:
        """RemoteError if the operation failed."""
        if self.type > StatusType.WARNING:
            raise RemoteError(self.type.name, self.message, self.stack)

    def __repr__(self) -> str:
        if not self.message and not self.stack:
            return f"Status({self.type.name})"
        stack = f", stack={self.stack!r}" if self.stack else ""
        return f"Status({self.type.name}, {self.message!r}{stack})"


Status.OK = Status()


class Operation:
    """What one end knows of a channel operation, by ioid: decoding a reply, or a PUT, needs the type of its INIT reply.

    decode() reads it and never writes it: the connection sets `type` and `put_type` from the INIT reply, and `value`
    and `put_value` from each message that carries data. Setting a type forgets the value that was of the old one.
    """

    __slots__ = (
        "_put_type",
        "_type",
        "command",
        "ioid",
        "pipelined",
        "put_value",
        "pv",
        "request",
        "sid",
        "value",
    )

    def __init__(
        self,
        command: int,
        ioid: int,
        *,
        sid: int = 0,
        pv: str = "",
        request: AnyBody = None,
        type: FieldDesc | None = None,
        put_type: FieldDesc | None = None,
        pipelined: bool = False,
    ) -> None:
        self.command = command
        self.ioid = ioid
        self.sid = sid
        self.pv = pv
        self.request = request
        # The values as they stood after the last message: the bases that the next update is laid over.
        self.value: Value | None = None
        self.put_value: Value | None = None
        self._type = type
        self._put_type = put_type
        self.pipelined = pipelined

    @property
    def type(self) -> FieldDesc | None:
        """Type of the data; of PUT_GET: of the data got. None: not known."""
        return self._type

    @type.setter
    def type(self, type: FieldDesc | None) -> None:
        self._type = type
        self.value = None

    @property
    def put_type(self) -> FieldDesc | None:
        """PUT_GET: type of the data put."""
        return self._put_type

    @put_type.setter
    def put_type(self, type: FieldDesc | None) -> None:
        self._put_type = type
        self.put_value = None

    @property
    def get_type(self) -> FieldDesc | None:
        """PUT_GET: type of the data got; the same as `type`."""
        return self._type

    def __repr__(self) -> str:
        name = Command(self.command).name if self.command in Command._value2member_map_ else str(self.command)
        pv = f" {self.pv!r}" if self.pv else ""
        return f"<Operation {name}{pv} ioid={self.ioid} sid={self.sid}>"


_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def message(cls: type[_T]) -> type[_T]:
    """Make a message class: frozen, slotted, keyword-only, with the repr of PvaMessage."""
    return dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)(cls)


# Longer byte strings are cut in a repr.
_REPR_BYTES: Final = 24


@message
class PvaMessage:
    """One message.

    trailing: payload bytes behind what the layout tells of; never encoded.
    raw: payload bytes that could not be decoded because a type is not known: the field that they begin with is None and
    those behind it have their defaults. reason: why. A message with raw bytes cannot be encoded.
    """

    # Who sends it: True the server, False the client, None both.
    from_server: ClassVar[bool | None] = None
    # The payload: what comes before the class is known (ids and sub byte of operations), and the rest.
    head: ClassVar[Layout] = ()
    layout: ClassVar[Layout] = ()

    trailing: bytes = b""
    raw: bytes = b""
    reason: str = ""

    @property
    def command(self) -> int:
        """The number of the message in the header."""
        raise NotImplementedError

    def __repr__(self) -> str:
        shown = []
        for field in dataclasses.fields(self):
            x = getattr(self, field.name)
            if (
                field.default is not dataclasses.MISSING
                and type(x) is type(field.default)
                and x == field.default
            ):
                continue
            if isinstance(x, bytes) and len(x) > _REPR_BYTES:
                shown.append(f"{field.name}=<{len(x)} bytes {x[:_REPR_BYTES].hex()}...>")
            else:
                shown.append(f"{field.name}={x!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


class In:
    """A payload being read."""

    __slots__ = ("codec", "lenient", "operation", "operations", "r", "sub", "values")

    def __init__(
        self,
        r: buffer.Reader,
        codec: codec.Codec,
        operations: Callable[[int], Operation | None],
        lenient: bool,
    ) -> None:
        self.r = r
        self.codec = codec
        self.lenient = lenient
        self.operations = operations
        self.operation: Operation | None = None
        self.sub = 0
        # The fields read so far.
        self.values: dict[str, Any] = {}


class Out:
    """A payload being written, of `message`."""

    __slots__ = ("codec", "message", "w")

    def __init__(self, w: buffer.Writer, codec: codec.Codec, message: Any) -> None:
        self.w = w
        self.codec = codec
        self.message = message


class UnknownType(Exception):
    """What follows cannot be read, because the type of the operation is not known. Never leaves decode()."""


# How the reason of a DecodeError for a reference to an unknown type id begins.
UNKNOWN_ID: Final = "unknown type id"


class Field(NamedTuple):
    """One field of a layout: how it is read, how it is written."""

    read: Callable[[In], Any]
    write: Callable[[Out, Any], None]


Layout: TypeAlias = tuple[tuple[str, Field], ...]


def wire(**fields: Field) -> Layout:
    """The fields of a payload, in wire order."""
    return tuple(fields.items())


def read_fields(fields: Layout, c: In) -> None:
    """Read `fields` into c.values. A failed status ends the payload; an unknown type leaves the rest in `raw`."""
    for name, field in fields:
        start = c.r.pos
        try:
            x = field.read(c)
        except DecodeError as error:
            if not c.lenient or not error.reason.startswith(UNKNOWN_ID):
                error.within(name)
                raise
            _give_up(name, start, error.reason, c)
            return
        except UnknownType as error:
            _give_up(name, start, str(error), c)
            return
        except LocalProtocolError as error:
            if not c.lenient:
                raise
            _give_up(name, start, str(error), c)
            return
        c.values[name] = x
        if field is STATUS and not x.ok:
            return


def _give_up(name: str, start: int, reason: str, c: In) -> None:
    c.r.pos = start
    c.values[name] = None
    c.values["raw"] = c.r.bytes(c.r.left)
    c.values["reason"] = reason


def write_fields(fields: Layout, c: Out) -> None:
    """Write the `fields` of c.message; behind a failed status nothing is written."""
    for name, field in fields:
        x = getattr(c.message, name)
        try:
            field.write(c, x)
        except EncodeError as error:
            error.within(name)
            raise
        if field is STATUS and not x.ok:
            return


def _write_size(c: Out, x: int) -> None:
    if not isinstance(x, int):
        raise EncodeError(f"int expected, {type(x).__name__} found")
    c.w.size(x)


def _write_bytes(c: Out, x: bytes) -> None:
    if not isinstance(x, bytes | bytearray | memoryview):
        raise EncodeError(f"bytes expected, {type(x).__name__} found")
    c.w.bytes(x)


def _write_guid(c: Out, x: bytes) -> None:
    if isinstance(x, bytes | bytearray | memoryview) and len(x) != 12:
        raise EncodeError(f"12 bytes expected, {len(x)} found")
    _write_bytes(c, x)


U8: Final = Field(lambda c: c.r.u8(), lambda c, x: c.w.u8(x))
U16: Final = Field(lambda c: c.r.u16(), lambda c, x: c.w.u16(x))
U32: Final = Field(lambda c: c.r.u32(), lambda c, x: c.w.u32(x))
SIZE: Final = Field(lambda c: c.r.size(), _write_size)
BOOL: Final = Field(lambda c: c.r.boolean(), lambda c, x: c.w.boolean(x))
STRING: Final = Field(lambda c: c.r.string(), lambda c, x: c.w.string(x))
GUID: Final = Field(lambda c: c.r.bytes(12), _write_guid)
REST: Final = Field(lambda c: c.r.bytes(c.r.left), _write_bytes)


def _read_list(c: In, n: int, what: str, least: int, one: Callable[[buffer.Reader], _T]) -> tuple[_T, ...]:
    """n items of at least `least` bytes each, counted against the bytes left before a list is made."""
    r = c.r
    if n * least > r.left:
        raise DecodeError(f"{n} {what} need at least {n * least} bytes, {r.left} left", r.pos)
    if n > r.limits.elements:
        raise LimitExceeded(f"{n} {what}", r.pos, limit="elements")
    items = []
    for i in range(n):
        try:
            items.append(one(r))
        except DecodeError as error:
            error.within(f"[{i}]")
            raise
    return tuple(items)


def _check_list(x: object, what: str) -> None:
    if not isinstance(x, tuple | list):
        raise EncodeError(f"tuple of {what} expected, {type(x).__name__} found")


def _write_list(x: tuple[_T, ...], one: Callable[[_T], None]) -> None:
    for i, item in enumerate(x):
        try:
            one(item)
        except EncodeError as error:
            error.within(f"[{i}]")
            raise


def _read_strings(c: In) -> tuple[str, ...]:
    return _read_list(c, c.r.size(), "strings", 1, lambda r: r.string())


def _write_strings(c: Out, x: tuple[str, ...]) -> None:
    _check_list(x, "strings")
    c.w.size(len(x))
    _write_list(x, c.w.string)


def _read_ids(c: In) -> tuple[int, ...]:
    return _read_list(c, c.r.u16(), "channel ids", 4, lambda r: r.u32())


def _write_ids(c: Out, x: tuple[int, ...]) -> None:
    _check_list(x, "channel ids")
    c.w.u16(len(x))
    _write_list(x, c.w.u32)


def _read_channel(r: buffer.Reader) -> tuple[int, str]:
    name = "cid"
    try:
        cid = r.u32()
        name = "name"
        return cid, r.string()
    except DecodeError as error:
        error.within(name)
        raise


def _read_channels(c: In) -> tuple[tuple[int, str], ...]:
    return _read_list(c, c.r.u16(), "channels", 5, _read_channel)


def _write_channels(c: Out, x: tuple[tuple[int, str], ...]) -> None:
    def one(channel: tuple[int, str]) -> None:
        if not isinstance(channel, tuple | list) or len(channel) != 2:
            raise EncodeError(f"(cid, name) expected, {channel!r} found")
        name = "cid"
        try:
            c.w.u32(channel[0])
            name = "name"
            c.w.string(channel[1])
        except EncodeError as error:
            error.within(name)
            raise

    _check_list(x, "(cid, name)")
    c.w.u16(len(x))
    _write_list(x, one)


STRINGS: Final = Field(_read_strings, _write_strings)
IDS: Final = Field(_read_ids, _write_ids)
CHANNELS: Final = Field(_read_channels, _write_channels)


def read_status(c: In) -> Status:
    """A Status (WIRE 5)."""
    r = c.r
    name = "type"
    try:
        type = r.u8()
        if type == 0xFF:
            return Status.OK
        name = "message"
        message = r.string()
        name = "stack"
        return Status(StatusType(min(type, 3)), message, r.string())
    except DecodeError as error:
        error.within(name)
        raise


def write_status(c: Out, x: Status) -> None:
    """A Status: FF for an OK that says nothing."""
    if not isinstance(x, Status):
        raise EncodeError(f"Status expected, {type(x).__name__} found")
    if x == Status.OK:
        c.w.u8(0xFF)
        return
    name = "type"
    try:
        c.w.u8(x.type)
        name = "message"
        c.w.string(x.message)
        name = "stack"
        c.w.string(x.stack)
    except EncodeError as error:
        error.within(name)
        raise


STATUS: Final = Field(read_status, write_status)


def read_any(c: In) -> AnyBody:
    """An Any* (type and value): the Value of a structure, an AnyValue of anything else, None for the null type."""
    any = c.codec.read_any(c.r)
    if any is not None and isinstance(any.value, Value):
        return any.value
    return any


def write_any(c: Out, x: AnyBody) -> None:
    """An Any*."""
    if isinstance(x, Value):
        c.codec.write_type(x.type, c.w)
        c.codec.write(x, c.w)
    elif x is None or isinstance(x, AnyValue):
        c.codec.write_any(x, c.w)
    else:
        raise EncodeError(f"Value, AnyValue or None expected, {type(x).__name__} found")


ANY: Final = Field(read_any, write_any)
# An Any* that some senders leave out.
OPTIONAL_ANY: Final = Field(lambda c: read_any(c) if c.r.left else None, write_any)


def _write_type(c: Out, x: FieldDesc | None) -> None:
    if x is not None and not isinstance(x, FieldDesc):
        raise EncodeError(f"FieldDesc expected, {type(x).__name__} found")
    c.codec.write_type(x, c.w)


TYPE: Final = Field(lambda c: c.codec.read_type(c.r), _write_type)


def known_type(c: In) -> FieldDesc:
    """The type of the operation's data; UnknownType where its INIT reply was not seen."""
    if c.operation is None:
        raise UnknownType("the operation of this ioid is not known")
    if c.operation.type is None:
        raise UnknownType("the type of this operation is not known")
    return c.operation.type


def _known_put_type(c: In) -> FieldDesc:
    if c.operation is None:
        raise UnknownType("the operation of this ioid is not known")
    if c.operation.put_type is None:
        raise UnknownType("the type of this operation is not known")
    return c.operation.put_type


def _read_update(c: In) -> Value:
    type = known_type(c)
    assert c.operation is not None
    return c.codec.read_update(type, c.r, c.operation.value)


def _read_put_update(c: In) -> Value:
    type = _known_put_type(c)
    assert c.operation is not None
    return c.codec.read_update(type, c.r, c.operation.put_value)


def _write_update(c: Out, x: Value) -> None:
    if not isinstance(x, Value):
        raise EncodeError(f"Value expected, {type(x).__name__} found")
    c.codec.write_update(x, c.w)


# A BitSet and the fields it names. From a server, laid over the value of the last reply, of the type got or put:
UPDATE: Final = Field(_read_update, _write_update)
PUT_UPDATE: Final = Field(_read_put_update, _write_update)
# From a client:
NEW_UPDATE: Final = Field(lambda c: c.codec.read_update(known_type(c), c.r), _write_update)
NEW_PUT_UPDATE: Final = Field(lambda c: c.codec.read_update(_known_put_type(c), c.r), _write_update)


def _write_bitset(c: Out, x: bitset.BitSet) -> None:
    if not isinstance(x, bitset.BitSet):
        raise EncodeError(f"BitSet expected, {type(x).__name__} found")
    x.write(c.w)


BITSET: Final = Field(lambda c: bitset.BitSet.read(c.r), _write_bitset)

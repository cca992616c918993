"""The fields that layouts are made of: each knows how it is read and how it is written.

Errors leave a field with its name in front of their path: "channels[1].name", "status.message", "value.alarm.severity".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

from .._backend import bitset
from ..errors import DecodeError, EncodeError, LimitExceeded, LocalProtocolError
from .core import AnyBody, AnyValue, FieldDesc, Operation, Status, StatusType, Value

if TYPE_CHECKING:
    from .._backend import buffer, codec

_T = TypeVar("_T")


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


def unknown_id(error: DecodeError | LocalProtocolError) -> str:
    """Why types cannot be told, if that is what the error says: an id defined earlier, or a codec that lost its ids."""
    if isinstance(error, LocalProtocolError):
        return str(error)
    return error.reason if error.reason.startswith("unknown type id") else ""


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
        except UnknownType as error:
            _give_up(name, start, str(error), c)
            return
        except (DecodeError, LocalProtocolError) as error:
            reason = unknown_id(error) if c.lenient else ""
            if reason:
                _give_up(name, start, reason, c)
                return
            if isinstance(error, DecodeError):
                error.within(name)
            raise
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
    known_type(c)
    assert c.operation is not None
    assert c.operation.reads is not None
    return c.codec.read_update(c.operation.reads, c.r, c.operation.base)


def _read_put_update(c: In) -> Value:
    type = _known_put_type(c)
    assert c.operation is not None
    before = c.operation.put_value
    return c.codec.read_update(type, c.r, None if before is None else before._received_())


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

"""ARRAY: slices of an array PV (WIRE 9)."""

from __future__ import annotations

from typing import Final

from ..errors import EncodeError
from .core import AnyValue, Command, message
from .fields import SIZE, STATUS, Field, In, Out, known_type, wire
from .operations import InitRequest, StatusReply, SubRequest, TypedInitReply


@message
class ArrayInit(InitRequest):
    """Open an ARRAY: slices of an array PV."""

    command = Command.ARRAY


@message
class ArrayInitReply(TypedInitReply):
    """ARRAY is open; `type` is that of the array."""

    command = Command.ARRAY


def _read_array(c: In) -> AnyValue:
    type = known_type(c)
    return AnyValue(type, c.codec.read(type, c.r))


def _write_array(c: Out, x: AnyValue) -> None:
    if not isinstance(x, AnyValue):
        raise EncodeError(f"AnyValue expected, {type(x).__name__} found")
    c.codec.write(x.value, c.w, x.type)


# The type is not sent along: it is that of the INIT reply.
_ARRAY: Final = Field(_read_array, _write_array)


@message
class ArrayPut(SubRequest):
    """Write `value` from element `offset` on, to every `stride`-th element.

    `type` is needed where `value` is neither a numeric array nor a list of strings, and for fixed-size arrays. On
    decoding, see ValueReply for `raw` and `reason`.
    """

    command = Command.ARRAY
    layout = wire(offset=SIZE, stride=SIZE, value=_ARRAY)

    offset: int = 0
    stride: int = 1
    value: AnyValue | None


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
    """The elements: an array with its type."""

    command = Command.ARRAY
    base_sub = 0x40
    layout = wire(status=STATUS, value=_ARRAY)

    value: AnyValue | None = None


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

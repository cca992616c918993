"""ARRAY: slices of an array PV (WIRE 9)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from .._types import CODE_OF_DTYPE, VARIABLE, short_name
from ..errors import EncodeError
from .core import (
    Command,
    FieldDesc,
    message,
)
from .fields import (
    SIZE,
    STATUS,
    Field,
    Out,
    known_type,
    wire,
)
from .operations import InitRequest, StatusReply, SubRequest, TypedInitReply


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

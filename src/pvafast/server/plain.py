"""Plain Python values as pvData: the normative type that a value has, and values for a given type."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from .._backend import bitset, introspection, value
from ..errors import EncodeError
from ..messages.core import AnyBody
from ..ndarray import Frame, NTNDArray
from ..normative import (
    Builder,
    Choice,
    Meta,
    Metadata,
    NTEnum,
    NTMultiChannel,
    NTNameValue,
    NTScalar,
    NTTable,
    kind,
)
from ..normative.annotate import annotate
from ..normative.types import infer, plain
from ..request.selection import shared

BitSet = bitset.BitSet
FieldDesc = introspection.FieldDesc
Value = value.Value
AnyValue = value.AnyValue

# Their `wrap` takes a mapping for their value.
_OF_MAPPINGS = (NTTable, NTNameValue, NTMultiChannel)


def known(type: Any) -> tuple[Builder | None, FieldDesc]:
    """What `PV.open` takes for a type: the builder, if there is one, and the type."""
    if isinstance(type, Builder):
        return type, type.type
    fd = FieldDesc.of(type)
    if kind(fd.id) == "NTNDArray":
        for style in ("pvxs", "pvdata"):
            builder = NTNDArray(style=style)
            if builder.type == fd:
                return builder, fd
    return None, fd


def wrapped(x: Any, meta: Metadata) -> tuple[Builder | None, Value]:
    """The normative type that a plain value has, and the value in it. Raises EncodeError where none is evident."""
    if isinstance(x, Meta) and x.raw is not None:
        x = x.raw
    if isinstance(x, Value):
        return None, annotate(shared(x), meta) if meta else x
    builder: Any
    if isinstance(x, Mapping):
        fd = FieldDesc.structure("", {str(name): infer(member) for name, member in x.items()})
        return None, annotate(Value(fd, x), meta)
    if isinstance(x, Choice):
        builder = NTEnum(x.choices)
    elif hasattr(x, "columns"):
        builder = NTTable({str(name): infer(np.asarray(x[name])) for name in x.columns})
    elif isinstance(x, Frame) or (isinstance(x, np.ndarray) and x.ndim in (2, 3)):
        builder = NTNDArray()
    else:
        builder = NTScalar(
            infer(x),
            display=bool(meta.keys() & {"units", "display"}),
            control="control" in meta,
            value_alarm="value_alarm" in meta,
            descriptor="descriptor" in meta,
        )
    return builder, builder.wrap(x, **meta)


def body(x: Any) -> AnyBody:
    """What an RPC handler returns, as it is sent."""
    return x if x is None or isinstance(x, Value | AnyValue) else stamp(wrapped(x, {})[1])


def update(builder: Builder | None, type: FieldDesc, current: Value, x: Any, meta: Metadata) -> Value:
    """A Value of a type, with what `x` sets marked in it."""
    if isinstance(x, Value):
        if x.type != type:
            raise EncodeError(
                f"a {x.type.format('short')} was given, the PV is another type, {type.format('short')}"
            )
        if not meta:
            return x
        made = Value(type)
        made.overlay(x)
        return annotate(made, meta)
    if builder is not None and (
        isinstance(x, float) or not isinstance(x, Mapping) or isinstance(builder, _OF_MAPPINGS)
    ):
        wrap: Any = builder.wrap  # type: ignore[attr-defined]
        found: Value = wrap(x, **meta)
        return found
    if isinstance(x, Mapping) or not type.is_structure:
        return annotate(Value(type, x), meta)
    if kind(type.id) == "NTEnum":
        if isinstance(x, str):
            choices = current["value.choices"]
            if x not in choices:
                raise EncodeError(f"{x!r} is none of the choices {choices}", "value.index")
            x = choices.index(x)
        return annotate(Value(type, {"value.index": x}), meta)
    if ("value",) not in type:
        raise EncodeError("a structure without a field `value`: give a mapping of fields, or a Value")
    return annotate(Value(type, {"value": plain(x)}), meta)


def blank(builder: Builder | None, type: FieldDesc) -> Value:
    """The value of a PV before anything is set."""
    made = Value(type)
    if isinstance(builder, NTEnum):
        made["value.choices"] = builder.choices
    elif isinstance(builder, NTTable):
        made["labels"] = builder.labels
    return made


@lru_cache(maxsize=1024)
def _time(type: FieldDesc) -> BitSet | None:
    """The bits that set the time stamp; None where there is none."""
    if ("timeStamp", "nanoseconds") not in type or ("timeStamp", "secondsPastEpoch") not in type:
        return None
    i = type.index("timeStamp")
    return BitSet((0, i, type.index("timeStamp.secondsPastEpoch"), type.index("timeStamp.nanoseconds")))


def timeless(x: Value) -> bool:
    """There is a time stamp, and it is not set."""
    bits = _time(x.type)
    return bits is not None and bits.isdisjoint(x.changed)


def set_time(x: Value) -> None:
    """Set the time stamp to now."""
    x["timeStamp.secondsPastEpoch"], x["timeStamp.nanoseconds"] = divmod(time.time_ns(), 1_000_000_000)


def stamp(x: Value) -> Value:
    """The same Value, with a time stamp of now where it has one that is not set."""
    if timeless(x):
        set_time(x)
    return x

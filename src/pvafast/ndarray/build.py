"""The way back: an NTNDArray of any numpy array, compressed or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, Unpack

import numpy as np

from .. import _backend
from ..errors import EncodeError
from ..normative import Attribute, Builder, Metadata, NTAttribute
from ..normative.annotate import Time, annotate, split_time
from ..normative.types import Fields, Style, alarm_t, common, plain, time_t
from . import codecs
from .colour import ColorMode, axes_of, guess

FieldDesc = _backend.introspection.FieldDesc
Value = _backend.value.Value
UnionValue = _backend.value.UnionValue
AnyValue = _backend.value.AnyValue

# pvData's ScalarType, by its numbers.
SCALAR_TYPES: Final = tuple(np.dtype(c) for c in ("?", "b", "h", "i", "q", "B", "H", "I", "Q", "f", "d"))
_NAMES: Final = (
    *("boolean", "byte", "short", "int", "long", "ubyte", "ushort", "uint", "ulong", "float", "double"),
)
# dtype -> the member of the union; by kind and size, since numpy has two types of 8 bytes on some machines.
_MEMBERS: Final = {
    (dtype.kind, dtype.itemsize): f"{name}Value" for dtype, name in zip(SCALAR_TYPES, _NAMES, strict=True)
}
_union: Final = FieldDesc.union("", [(f"{name}Value", f"{name}[]") for name in _NAMES])
_codec: Final = FieldDesc.structure("codec_t", name="string", parameters="any")
_dimension: Final = FieldDesc.structure(
    "dimension_t", size="int32", offset="int32", fullSize="int32", binning="int32", reverse="bool"
)
_UNSET: Final[Any] = object()


class Dimension(NamedTuple):
    """A dimension_t. size: elements. offset, full_size, binning, reverse: relative to the original image."""

    size: int
    offset: int = 0
    full_size: int = 0
    binning: int = 1
    reverse: bool = False


class NTNDArray(Builder):
    """NTNDArray. style: whose order of members: "pvxs" (and p4p) or "pvdata" (areaDetector's NDPluginPva)."""

    __slots__ = ()

    def __init__(self, *, style: Style = "pvxs", extra: Fields = ()) -> None:
        attribute = NTAttribute(source=True, style=style).type
        head: list[tuple[str, Any]] = [("value", _union), ("codec", _codec)]
        sizes: list[tuple[str, Any]] = [("compressedSize", "int64"), ("uncompressedSize", "int64")]
        dimension, attributes = ("dimension", _dimension.array()), ("attribute", attribute.array())
        ids: list[tuple[str, Any]] = [("uniqueId", "int32"), ("dataTimeStamp", time_t)]
        if style == "pvdata":
            members = [*head, *sizes, dimension, *ids, attributes, *common().items()]
        else:
            tail = [("alarm", alarm_t), ("timeStamp", time_t), dimension, attributes]
            members = [*head, *sizes, *ids, *tail]
        more = list(extra.items() if isinstance(extra, Mapping) else extra)
        super().__init__(FieldDesc.structure("epics:nt/NTNDArray:1.0", [*members, *more]))

    def wrap(
        self,
        array: Any,
        *,
        codec: str = "",
        options: Mapping[str, Any] | None = None,
        color_mode: int | None = _UNSET,
        attributes: Mapping[str, Any] | None = None,
        unique_id: int = 0,
        data_timestamp: Time | None = None,
        dimensions: Iterable[Dimension] | None = None,
        **meta: Unpack[Metadata],
    ) -> Value:
        """A Value of an array-like of bool, integers or floats; raw it is not copied if it is C-contiguous and native.

        codec: "", "jpeg", "zlib", "blosc", "lz4", "lz4hdf5" or "bslz4", with `options` as `codecs.compress` takes them.
        color_mode: the attribute ColorMode; if not given, one in `attributes`, else what the shape suggests; None: none.
        attributes: name to plain value, or to a normative.Attribute. dimensions: offset and so on, in the order of the wire (x first).

        Raises EncodeError for what is no frame, FrameError for a codec that cannot take it.
        """
        data = np.asarray(array)
        member = _MEMBERS.get((data.dtype.kind, data.dtype.itemsize))
        if member is None:
            raise EncodeError(f"an NTNDArray holds no {data.dtype}", "value")
        data = np.ascontiguousarray(data, data.dtype.newbyteorder("="))
        if not np.ndim(array):
            raise EncodeError("an array without axes", "dimension")
        sizes = _dimensions(data.shape, dimensions)
        given = dict(attributes or {})
        if color_mode is _UNSET:
            color_mode = None if "ColorMode" in given else guess(data.shape)
        if color_mode is not None:
            given["ColorMode"] = int(color_mode)
        fields: dict[str, Any] = {
            "uncompressedSize": data.nbytes,
            "uniqueId": unique_id,
            "dimension": sizes,
            "codec.name": codec,
        }
        if codec:
            mode = _mode(given)
            axes = axes_of(mode, data.ndim) if mode in _JPEG_MODES else ""
            packed = codecs.compress(codec, data, options or {}, axes)
            number = _NAMES.index(member.removesuffix("Value"))
            fields |= {
                "value": UnionValue("ubyteValue", packed),
                "compressedSize": packed.nbytes,
                "codec.parameters": AnyValue("int32", number),
            }
        else:
            fields |= {"value": UnionValue(member, data.reshape(-1)), "compressedSize": data.nbytes}
        element = self.type["attribute"].element
        assert element is not None
        fields["attribute"] = [
            _attribute(element, name, x)
            if name != "ColorMode" or color_mode is None
            else _color_mode(element, int(color_mode)).copy()
            for name, x in given.items()
        ]
        made = annotate(Value(self.type, fields), meta)
        if data_timestamp is not None:
            seconds, nanoseconds = split_time(data_timestamp)
            made["dataTimeStamp.secondsPastEpoch"], made["dataTimeStamp.nanoseconds"] = seconds, nanoseconds
        return made


_JPEG_MODES: Final = (ColorMode.MONO, ColorMode.BAYER, ColorMode.RGB1, ColorMode.RGB2, ColorMode.RGB3)


def _mode(attributes: Mapping[str, Any]) -> int:
    found = attributes.get("ColorMode", 0)
    found = found.value if isinstance(found, Attribute) else found
    return int(found) if isinstance(found, int | np.integer) else 0


def _dimensions(shape: tuple[int, ...], given: Iterable[Dimension] | None) -> list[Any]:
    """The dimension_t structures, fastest first."""
    if given is None:
        return [one.copy() for one in _whole(shape)]
    sizes = [Dimension(*one) for one in given]
    if tuple(one.size for one in reversed(sizes)) != shape:
        raise EncodeError(f"sizes {[one.size for one in sizes]} for an array of shape {shape}", "dimension")
    return [_fields_of(one) for one in sizes]


@lru_cache(maxsize=64)
def _whole(shape: tuple[int, ...]) -> tuple[Value, ...]:
    """The dimensions of an image of which nothing was cut off: a camera sends the same ones all day."""
    return tuple(Value(_dimension, _fields_of(Dimension(size, full_size=size))) for size in reversed(shape))


def _fields_of(one: Dimension) -> dict[str, Any]:
    return {
        "size": one.size,
        "offset": one.offset,
        "fullSize": one.full_size,
        "binning": one.binning,
        "reverse": one.reverse,
    }


@lru_cache(maxsize=64)
def _color_mode(type: FieldDesc, mode: int) -> Value:
    """The attribute ColorMode."""
    return _attribute(type, "ColorMode", Attribute(name="ColorMode", value=mode, descriptor="Color mode"))


def _attribute(type: FieldDesc, name: str, x: Any) -> Value:
    """An element of the attributes; of a result of `normative.read` with its alarm and time."""
    if not isinstance(x, Attribute):
        x = Attribute(name=name, value=x, source_type=0, raw=getattr(x, "raw", None))
    value = plain(x.value)
    # A ColorMode must be an int32: readers of areaDetector take nothing else.
    if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 31) <= value < 1 << 31:
        boxed = value
    else:
        boxed = AnyValue("int32", value)
    fields: dict[str, Any] = {
        "name": name,
        "value": boxed,
        "tags": list(x.tags),
        "descriptor": x.descriptor,
        "sourceType": x.source_type or 0,
        "source": x.source,
    }
    if x.raw is not None:
        for field in ("alarm", "timeStamp"):
            if field in x.raw.type and x.raw.type[field] == type[field]:
                fields[field] = x.raw[field]
    return Value(type, fields)


def encode(array: Any, *, codec: str = "", **options: Any) -> Value:
    """An NTNDArray Value of an array: `NTNDArray().wrap`, which see."""
    return NTNDArray().wrap(array, codec=codec, **options)

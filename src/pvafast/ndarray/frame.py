"""NTNDArray -> Frame: the shaped array, and what came with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, Final, Literal, TypeAlias, final

import numpy as np

from .. import _backend, _memory
from .._memory import NDArray
from ..errors import FrameError, NormativeError
from ..limits import Limits
from ..normative import READERS, Attribute, Meta
from ..normative.meta import fetch, stamp_ns, stamp_s, text, whole
from ..normative.readers import attribute
from . import codecs
from .build import SCALAR_TYPES, Dimension, NTNDArray
from .colour import BayerPattern, ColorMode, YUVOrder, axes_of, to_mono, to_rgb

Value = _backend.value.Value
UnionValue = _backend.value.UnionValue
AnyValue = _backend.value.AnyValue

ByteOrder: TypeAlias = Literal["little", "big"]

# numpy 1.26 has no more axes; areaDetector has 10.
_MAX_AXES: Final = 32
# A few bytes of LZ4 or zstd can claim any size: what is not in the message itself is bounded as a message is.
MAX_BYTES: Final = Limits().message
_SSIZE_MAX: Final = sys.maxsize

# areaDetector's NDDataType_t, by its numbers.
_ND_TYPES: Final = tuple(np.dtype(c) for c in ("b", "B", "h", "H", "i", "I", "q", "Q", "f", "d"))
_INT64: Final = 0x23
# kDLCPU, device 0. ndarray.__dlpack__ takes more than a stream, and exports read-only arrays, from numpy 2.1 on.
_CPU: Final = (1, 0)
_DLPACK_1: Final = np.lib.NumpyVersion(np.__version__) >= "2.1.0"
_WRITABLE: Final = 1  # PyBUF_WRITABLE


@final
class Attributes(Mapping[str, Any]):
    """The attributes of a frame: name to plain value. Of a name that comes twice the last counts.

    `info(name)` is the whole: descriptor, source, time and alarm.
    """

    __slots__ = ("_found",)

    def __init__(self, elements: Any) -> None:
        self._found: dict[str, Value] = {}
        for one in elements if isinstance(elements, list) else ():
            # Null elements name nothing.
            name = fetch(one, "name") if isinstance(one, Value) else None
            if isinstance(name, str):
                self._found[name] = one

    def info(self, name: str) -> Attribute:
        """The attribute with all that came with it. Raises KeyError."""
        return attribute(self._found[name])

    def __getitem__(self, name: str) -> Any:
        return attribute(self._found[name]).value

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __repr__(self) -> str:
        return f"<Attributes {', '.join(self._found)}>"


@final
class Frame(Meta):
    """A frame of an NTNDArray (areaDetector, p4p, pvapy).

    shape: of the array, slowest axis first: the dimensions of the wire reversed. dtype: native byte order. codec: "" if raw.
    raw: the Value. Time, alarm and the rest as of all normative types; the time of the data itself is `data_timestamp`.

    dtype: that of the elements of a compressed frame whose codec.parameters do not tell. byteorder: of the elements inside of
    compressed data, which does not tell it. max_bytes: the most that decompressing may make. aligned: `data` begins at a multiple of
    64 bytes: where a raw frame does not lie so, it is copied. (What decompressing makes always does; frames received in place
    do too, but for those below 64 KiB and what comes together with small messages.)

    A frame is an array to numpy (np.asarray(frame)), a buffer (Python 3.12 and later), and an array to all that take DLPack
    (torch.from_dlpack(frame)): without a copy.

    Raises FrameError for dimensions and sizes that do not fit, and for unknown codecs and types; damaged data show when they are
    decompressed. Nothing of the size of the frame is made before `data` or `decode` are asked for.
    """

    __slots__ = ("_attributes", "_data", "_payload", "aligned", "byteorder", "codec", "dtype", "raw", "shape")

    raw: Value
    codec: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    byteorder: ByteOrder
    aligned: bool

    def __init__(
        self,
        value: Value,
        /,
        *,
        dtype: Any = None,
        byteorder: ByteOrder = "little",
        max_bytes: int = MAX_BYTES,
        aligned: bool = False,
    ) -> None:
        if byteorder not in ("little", "big"):
            raise ValueError(f"byteorder must be 'little' or 'big', not {byteorder!r}")
        self.raw = value
        self.byteorder = byteorder
        self.aligned = aligned
        self.codec = codec = text(value, "codec.name")
        self._attributes: Attributes | None = None
        self._data: NDArray | None = None
        try:
            boxed = value["value"]
            shape = _shape(value["dimension"])
        except KeyError as error:
            raise FrameError(f"{value.type.id}: no field {error}") from None
        payload = boxed.value if isinstance(boxed, UnionValue | AnyValue) else boxed
        if payload is None:
            payload = np.empty(0, np.uint8)
        if not isinstance(payload, np.ndarray):
            raise FrameError(f"{value.type.id}: no numeric array in `value`")
        self._payload = payload
        if not codec:
            count = len(payload)
            if not shape:
                shape = (count,)
            # The standard allows more elements than the dimensions need.
            if (count if 0 in shape else prod(shape)) > count:
                raise FrameError(f"dimensions {_times(shape)} need {prod(shape)} elements, {count} found")
            self.shape = shape
            self.dtype = payload.dtype
            return
        if codec not in codecs.DECODERS:
            raise FrameError(f"unknown codec {codecs.shown(codec)}: {', '.join(codecs.DECODERS)} are known")
        self.shape = shape or (0,)
        self.dtype = self._element_type(dtype)
        self._payload = self._compressed(codecs.flat(payload))
        if self.nbytes > max_bytes:
            raise FrameError(
                f"dimensions {_times(shape)} of {self.dtype} need {self.nbytes} bytes: more than max_bytes, {max_bytes}"
            )

    def _element_type(self, wanted: Any) -> np.dtype[Any]:
        """The dtype before compression: what codec.parameters mean that the sizes allow."""
        count = prod(self.shape)
        size = whole(self.raw, "uncompressedSize")
        if size < 0:
            raise FrameError(f"uncompressedSize {size}")
        if wanted is not None:
            candidates: list[np.dtype[Any]] = [np.dtype(wanted).newbyteorder("=")]
            if candidates[0] not in SCALAR_TYPES:
                raise ValueError(f"frames have no elements of {candidates[0]}")
        else:
            candidates = _candidates(self.raw)
            if not candidates and self.codec == "jpeg":
                candidates = [np.dtype(np.uint8)]
        if not candidates:
            raise FrameError(
                f"codec.parameters do not tell the element type of the {self.codec} data: give dtype"
            )
        if not size or not count:
            return candidates[0]
        for one in candidates:
            if count * one.itemsize == size:
                return one
        raise FrameError(
            f"uncompressedSize {size} for dimensions {_times(self.shape)} of {' or '.join(map(str, candidates))}"
        )

    def _compressed(self, payload: codecs.Bytes) -> codecs.Bytes:
        size = whole(self.raw, "compressedSize")
        if not 0 <= size <= len(payload):
            raise FrameError(f"compressedSize {size}, but {len(payload)} bytes")
        # Servers leave it 0 that do not know of it.
        return payload[:size] if size else payload

    @property
    def data(self) -> NDArray:
        """The array: of a raw frame a view of what was received, decompressed once otherwise. Read-only. Raises FrameError."""
        found = self._data
        if found is None:
            if self.codec:
                return self._keep(self.decode())
            found = self._view()
            if self.aligned and not _memory.is_aligned(found):
                found = self.decode()
            return self._keep(found)
        return found

    def _keep(self, array: NDArray) -> NDArray:
        self._data = found = array.view()
        found.flags.writeable = False
        return found

    def decode(self, out: NDArray | None = None, *, keep: bool = False) -> NDArray:
        """The array decompressed, or copied, into `out`, or into a new array; that is writable.

        out: C-contiguous and writable, of the frame's dtype and number of elements (ValueError if not); it is returned in the frame's
        shape, and holds anything after a FrameError. keep: `data` is from now on (a read-only view of) this array.
        """
        if out is None:
            if self.codec:
                # Before anything of the size of the frame is made.
                codecs.check(self.codec, self._payload, self.shape, self.dtype)
            made = _memory.empty(self.shape, self.dtype)
        else:
            if out.dtype != self.dtype or out.size != prod(self.shape):
                raise ValueError(
                    f"out of {out.size} {out.dtype} for a frame of {prod(self.shape)} {self.dtype}"
                )
            if not (out.flags.c_contiguous and out.flags.writeable):
                raise ValueError("out must be C-contiguous and writable")
            made = out.reshape(self.shape)
        if not self.codec:
            made[...] = self._view()
        else:
            codecs.decompress(self.codec, self._payload, made)
            if self.byteorder != sys.byteorder and self.dtype.itemsize > 1:
                made.byteswap(inplace=True)
        if keep:
            self._keep(made)
        return made

    def writable(self, *, copy: bool | None = False) -> NDArray:
        """The array, to write to.

        False: the memory of `data` itself, without a copy: what is written shows in `data`, `raw` and all other arrays of this frame.
        There is such where the pixels lie in memory of the library's own or of a pool: received in place (get_buffer), decompressed,
        or brought into the host's byte order. ValueError where they do not: in `bytes` that were given to receive_data, in an array
        or buffer of the caller. None: a copy only there. True: always a copy. Raises FrameError as `data` does.
        """
        if copy:
            return self.decode()
        found = _memory.writable(self.data)
        if found is not None:
            return found
        if copy is False:
            raise ValueError("the pixels lie in memory that is not the library's: writable(copy=None) copies")
        return self.decode()

    def _view(self) -> NDArray:
        count = prod(self.shape)
        payload = self._payload if count == len(self._payload) else self._payload[:count]
        return payload.reshape(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        data = self.data
        if dtype is not None and np.dtype(dtype) != data.dtype:
            if copy is False:
                raise ValueError("another dtype needs a copy")
            return data.astype(dtype)
        return data.copy() if copy else data

    def __buffer__(self, flags: int, /) -> memoryview:
        try:
            data: Any = self.writable() if flags & _WRITABLE else self.data
            return memoryview(data)
        except ValueError as error:
            raise BufferError(str(error)) from None

    def __dlpack_device__(self) -> tuple[int, int]:
        """The CPU."""
        return _CPU

    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule of `writable()`, as the array API standard has it.

        Where that needs a copy and copy is not True, consumers of DLPack 1.0 get `data` itself, marked read-only; others get a
        copy, with copy=False BufferError.
        """
        if dl_device is not None and tuple(dl_device) != _CPU:
            raise BufferError(f"a frame lies in the memory of the CPU, not of device {dl_device}")
        if copy:
            array = self.decode()
        else:
            found = _memory.writable(self.data)
            if found is None and _DLPACK_1 and max_version is not None and tuple(max_version) >= (1, 0):
                found = self.data
            if found is None and copy is False:
                raise BufferError(
                    "the pixels lie in memory that is not the library's, and must not be copied"
                )
            array = self.decode() if found is None else found
        if _DLPACK_1:
            return array.__dlpack__(stream=stream, max_version=max_version)
        return array.__dlpack__(stream=stream)

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def compressed_nbytes(self) -> int:
        """Bytes as they were sent."""
        return self._payload.nbytes

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The dimensions in the order of the wire, fastest first: x, y, ..."""
        return tuple(
            Dimension(
                size=whole(one, "size"),
                offset=whole(one, "offset"),
                full_size=whole(one, "fullSize"),
                binning=whole(one, "binning", 1),
                reverse=bool(whole(one, "reverse")),
            )
            for one in self.raw["dimension"]
        )

    @property
    def offset(self) -> tuple[int, ...]:
        """Where the frame begins in the original image, an int an axis, in the order of `shape`."""
        return tuple(one.offset for one in reversed(self.dimensions))

    @property
    def full_size(self) -> tuple[int, ...]:
        """The size of the original image, in the order of `shape`."""
        return tuple(one.full_size for one in reversed(self.dimensions))

    @property
    def binning(self) -> tuple[int, ...]:
        """How many pixels of the original make one, in the order of `shape`."""
        return tuple(one.binning for one in reversed(self.dimensions))

    @property
    def reverse(self) -> tuple[bool, ...]:
        """Whether an axis runs against that of the original, in the order of `shape`."""
        return tuple(one.reverse for one in reversed(self.dimensions))

    @property
    def unique_id(self) -> int:
        """uniqueId: counts the frames of the source."""
        return whole(self.raw, "uniqueId")

    @property
    def data_timestamp(self) -> float:
        """Seconds since 1970 of the data (dataTimeStamp); `timestamp` is that of the PV. 0.0 if not sent."""
        return stamp_s(self.raw, "dataTimeStamp")

    @property
    def data_timestamp_ns(self) -> int:
        """The same in ns, exactly."""
        return stamp_ns(self.raw, "dataTimeStamp")

    @property
    def attributes(self) -> Attributes:
        """The attributes."""
        found = self._attributes
        if found is None:
            found = self._attributes = Attributes(fetch(self.raw, "attribute"))
        return found

    @property
    def color_mode(self) -> int:
        """The attribute ColorMode: a ColorMode, an int if it is unknown; Mono if there is none, as areaDetector has it."""
        mode = _integer(self.attributes, "ColorMode")
        return ColorMode(mode) if mode in list(ColorMode) else mode

    @property
    def bayer_pattern(self) -> int:
        """The attribute BayerPattern: a BayerPattern, an int if it is unknown; RGGB if there is none."""
        pattern = _integer(self.attributes, "BayerPattern")
        return BayerPattern(pattern) if pattern in list(BayerPattern) else pattern

    @property
    def axes(self) -> str:
        """The axes of the array, a letter each: "yx", "yxc" (RGB1), "ycx" (RGB2), "cyx" (RGB3), "yb" and "yxb" (bytes of YUV)..."""
        return axes_of(self.color_mode, len(self.shape))

    def to_rgb(self, *, yuv: YUVOrder = "uyvy") -> NDArray:
        """(y, x, 3), dtype as the frame's; of Mono and RGB a view. Bayer is interpolated bilinearly, YUV is 8-bit BT.601 at full range.

        yuv: how YUV lies in the bytes: "uyvy" (UYV, UYVY, UYYVYY: IIDC, GigE Vision) or "yuyv". Raises FrameError where shape and
        colour mode do not go together.
        """
        return to_rgb(self.data, self.color_mode, self.bayer_pattern, yuv)

    def to_mono(
        self, *, weights: tuple[float, float, float] | None = None, yuv: YUVOrder = "uyvy"
    ) -> NDArray:
        """(y, x), dtype as the frame's: the array itself of Mono, Y of YUV, else the mean of R, G and B as areaDetector takes it.

        weights: of R, G and B instead. Raises FrameError as `to_rgb` does.
        """
        return to_mono(self.data, self.color_mode, self.bayer_pattern, yuv, weights)

    def to_value(self, *, codec: str = "", options: Mapping[str, Any] | None = None) -> Value:
        """An NTNDArray of the same frame, with all that came with it; raw, or compressed as `NTNDArray.wrap` takes it."""
        made = NTNDArray().wrap(
            self.data,
            codec=codec,
            options=options,
            color_mode=None,
            attributes={name: self.attributes.info(name) for name in self.attributes},
            unique_id=self.unique_id,
            dimensions=self.dimensions or None,
        )
        for field in ("dataTimeStamp", "timeStamp", "alarm"):
            if field in self.raw.type and self.raw.type[field] == made.type[field]:
                made[field] = self.raw[field]
        return made

    def __repr__(self) -> str:
        mode = self.color_mode
        name = mode.name if isinstance(mode, ColorMode) else f"colour mode {mode}"
        codec = f" {self.codec}" if self.codec else ""
        return f"<Frame {self.unique_id}: {_times(self.shape)} {self.dtype} {name}{codec}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (
            self.raw,
            self.dtype if self.codec else None,
            self.byteorder,
            max(self.nbytes, MAX_BYTES),
            self.aligned,
        )


def _again(value: Value, dtype: Any, byteorder: ByteOrder, max_bytes: int, aligned: bool) -> Frame:
    return Frame(value, dtype=dtype, byteorder=byteorder, max_bytes=max_bytes, aligned=aligned)


def _shape(dimension: Any) -> tuple[int, ...]:
    """The sizes, slowest first; such that numpy can make an array of them."""
    if not isinstance(dimension, list):
        raise FrameError("`dimension` is no array of structures")
    if len(dimension) > _MAX_AXES:
        raise FrameError(f"{len(dimension)} dimensions: more than {_MAX_AXES}")
    sizes = []
    for one in reversed(dimension):
        size = fetch(one, "size") if isinstance(one, Value) else None
        if not isinstance(size, int):
            raise FrameError(f"a dimension without a size among the {len(dimension)}")
        if size < 0:
            raise FrameError(f"a dimension of size {size}")
        sizes.append(size)
    # numpy counts empty axes as well.
    if prod(size or 1 for size in sizes) > _SSIZE_MAX // 8:
        raise FrameError(f"dimensions {_times(sizes)} are too large")
    return tuple(sizes)


def _times(shape: Any) -> str:
    """A shape in the order of the wire."""
    return " × ".join(map(str, reversed(shape)))


def _candidates(value: Value) -> list[np.dtype[Any]]:
    """What codec.parameters can mean, the likeliest first.

    It is an int32 with pvData's number of the type. ADCore's first converter on pvxs sent an int64 with areaDetector's own (ADCore #562).
    """
    parameters = fetch(value, "codec.parameters")
    if not isinstance(parameters, AnyValue) or not isinstance(parameters.value, int):
        return []
    tables = (SCALAR_TYPES, _ND_TYPES)
    if parameters.type.code == _INT64:
        tables = (_ND_TYPES, SCALAR_TYPES)
    n = parameters.value
    return [table[n] for table in tables if 0 <= n < len(table)]


def _integer(attributes: Attributes, name: str) -> int:
    """An integer attribute, of whatever integer type; 0 if there is none."""
    try:
        found = attributes.get(name)
    except NormativeError:
        return 0
    return int(found) if isinstance(found, int) else 0


READERS["NTNDArray"] = Frame

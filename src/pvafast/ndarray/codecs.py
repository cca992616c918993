"""The codecs of areaDetector (NDPluginCodec): decompressing straight into the target, never more than fits; compressing.

All but zlib need the library imagecodecs: ``pip install 'pvafast[codecs]'``. What a peer sent can cause FrameError only.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from importlib import import_module
from math import prod
from struct import Struct
from typing import Any, Final, TypeAlias

import numpy as np

from ..errors import FrameError

# One dimension, uint8, C-contiguous.
Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

# As bitshuffle chooses it when it is not told: elements in a block.
_BLOCK_BYTES: Final = 8192
_BLOCK_MULTIPLE: Final = 8
_BLOCK_LEAST: Final = 128
# Bytes of bslz4 that are decompressed in one call.
_RUN: Final = 1 << 19
# The head of a Blosc 1 buffer.
_BLOSC_VERSION: Final = 2
_BLOSC_LZ4: Final = 1
_BLOSC_BITSHUFFLE_LZ4_UNSPLIT: Final = 0x04 | 1 << 5 | 0x10
_U32: Final = Struct(">I").unpack_from
# The most that a byte of LZ4 and of deflate can expand to. What claims more is no such stream: refused before anything is made.
_LZ4_RATIO: Final = 256
_DEFLATE_RATIO: Final = 1040
_H5_BLOCK: Final = 1 << 22
# Blocks of a byte would keep the interpreter busy for minutes.
_H5_BLOCK_LEAST: Final = 512


def library(codec: str) -> Any:
    """The module imagecodecs. Raises FrameError with the command that installs it."""
    try:
        return import_module("imagecodecs")
    except ImportError as error:
        raise FrameError(f"codec {codec!r} needs imagecodecs: pip install 'pvafast[codecs]'") from error


def check(codec: str, data: Bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise FrameError if `data` cannot be what it says, as far as its head and its length tell. Makes nothing, reads a few bytes."""
    if codec not in DECODERS:
        raise FrameError(f"unknown codec {shown(codec)}: {', '.join(DECODERS)} are known")
    size = prod(shape) * dtype.itemsize
    if size:
        CHECKS[codec](data, size, shape, dtype)


def decompress(codec: str, data: Bytes, out: np.ndarray[Any, np.dtype[Any]]) -> None:
    """Decompress `data` into `out`, a C-contiguous array of the shape and dtype of the frame.

    The bytes come as they were compressed: their order is the caller's affair. Raises FrameError; `out` may then hold anything.
    """
    check(codec, data, out.shape, out.dtype)
    if not out.nbytes:
        return
    try:
        DECODERS[codec](data, out)
    except FrameError:
        raise
    except ImportError as error:
        raise FrameError(f"codec {codec!r} is missing in this imagecodecs: {error}") from error
    except Exception as error:  # the libraries raise RuntimeError, ValueError, TypeError... for damaged data
        raise FrameError(f"{codec}: {error}") from error


def compress(
    codec: str, array: np.ndarray[Any, np.dtype[Any]], options: Mapping[str, Any], axes: str = ""
) -> Bytes:
    """`array`, C-contiguous, compressed as areaDetector does it; axes as of `Frame.axes`, for jpeg.

    Options: jpeg `quality` (1 to 100, 85); zlib `level`; blosc `compressor` ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd"),
    `level` (0 to 9), `shuffle` ("none", "byte", "bit"); lz4hdf5 `block` (bytes). Raises FrameError, TypeError for other options.
    """
    encoder = ENCODERS.get(codec)
    if encoder is None:
        raise FrameError(f"unknown codec {shown(codec)}: {', '.join(ENCODERS)} are known")
    if not array.nbytes:
        return np.empty(0, np.uint8)
    return np.frombuffer(encoder(array, axes, **options), np.uint8)


def shown(name: str) -> str:
    """A name that a peer chose, for an error text."""
    return repr(name if len(name) <= 40 else f"{name[:40]}...")


def flat(array: np.ndarray[Any, np.dtype[Any]]) -> Bytes:
    """The bytes of a C-contiguous array, a view."""
    return array.reshape(-1).view(np.uint8)


def _left(codec: str, data: Bytes, pos: int, size: int) -> None:
    if size > len(data) - pos:
        raise FrameError(f"{codec}: {size} bytes expected at byte {pos}, {len(data) - pos} left")


def _big(data: Bytes, pos: int, size: int) -> int:
    return int.from_bytes(data[pos : pos + size].tobytes(), "big")


def _little(data: Bytes, pos: int, size: int) -> int:
    return int.from_bytes(data[pos : pos + size].tobytes(), "little")


def _whole(codec: str, got: Any, out: Any) -> None:
    _same(codec, len(got), len(out))


def _same(codec: str, found: int, size: int) -> None:
    if found != size:
        raise FrameError(f"{codec}: {found} bytes where the dimensions need {size}")


# --- checking: what the first bytes, and their number, tell ---------------------------------------------------------

Check: TypeAlias = "Callable[[Bytes, int, tuple[int, ...], np.dtype[Any]], None]"


def _ratio(codec: str, most: int) -> Check:
    def check(data: Bytes, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if len(data) * most < size:
            raise FrameError(f"{codec}: {len(data)} bytes cannot hold the {size} that the dimensions need")

    return check


def _check_blosc(data: Bytes, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    _left("blosc", data, 0, 16)
    if data[0] not in (1, 2):
        raise FrameError(f"blosc: format {data[0]} is not of Blosc 1")
    _same("blosc", _little(data, 4, 4), size)
    _left("blosc", data, 0, _little(data, 12, 4))


def _check_lz4hdf5(data: Bytes, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    _left("lz4hdf5", data, 0, 12)
    _same("lz4hdf5", _big(data, 0, 8), size)
    block = _big(data, 8, 4)
    if block < min(_H5_BLOCK_LEAST, size):
        raise FrameError(f"lz4hdf5: blocks of {block} bytes")
    _ratio("lz4hdf5", _LZ4_RATIO)(data, size, shape, dtype)


def _check_jpeg(data: Bytes, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.itemsize != 1:
        raise FrameError(f"jpeg: 8-bit elements expected, {dtype} found")
    _jpeg_axes(data, shape)


# --- decompressing ------------------------------------------------------------------------------------------------


def _from_zlib(data: Bytes, array: np.ndarray[Any, np.dtype[Any]]) -> None:
    out = flat(array)
    try:
        direct = library("zlib").zlib_decode
    except FrameError:
        stream = zlib.decompressobj()
        got = stream.decompress(data.data, len(out) + 1)
        _whole("zlib", got, out)
        if not stream.eof:
            raise FrameError("zlib: the stream does not end") from None
        out[:] = np.frombuffer(got, np.uint8)
        return
    _whole("zlib", direct(data, out=out), out)


def _from_blosc(data: Bytes, array: np.ndarray[Any, np.dtype[Any]]) -> None:
    out = flat(array)
    _whole("blosc", library("blosc").blosc_decode(data[: _little(data, 12, 4)], out=out), out)


def _from_lz4(data: Bytes, array: np.ndarray[Any, np.dtype[Any]]) -> None:
    out = flat(array)
    # Chunks passed on from HDF5 files keep the header of its filter. No LZ4 block begins with a byte 0: that would be a
    # match before there is anything to match.
    if len(data) >= 12 and _big(data, 0, 8) == len(out):
        check("lz4hdf5", data, array.shape, array.dtype)
        _from_lz4hdf5(data, array)
        return
    _whole("lz4", library("lz4").lz4_decode(data, header=False, out=out), out)


def _from_lz4hdf5(data: Bytes, array: np.ndarray[Any, np.dtype[Any]]) -> None:
    out = flat(array)
    codec = "lz4hdf5"
    total, block = len(out), _big(data, 8, 4)
    decode = library(codec).lz4_decode
    pos, at = 12, 0
    while at < total:
        size = min(block, total - at)
        _left(codec, data, pos, 4)
        packed = _big(data, pos, 4)
        pos += 4
        _left(codec, data, pos, packed)
        target = out[at : at + size]
        if packed == size:
            target[:] = data[pos : pos + packed]
        else:
            _whole(codec, decode(data[pos : pos + packed], header=False, out=target), target)
        pos += packed
        at += size


def _block(itemsize: int) -> int:
    """Elements in a block, as bitshuffle chooses it."""
    return max(_BLOCK_BYTES // itemsize // _BLOCK_MULTIPLE * _BLOCK_MULTIPLE, _BLOCK_LEAST)


def _from_bslz4(data: Bytes, array: np.ndarray[Any, np.dtype[Any]]) -> None:
    out = flat(array)
    codec, itemsize = "bslz4", array.dtype.itemsize
    decode = library(codec).blosc_decode
    block, pos = _block(itemsize), 0
    # Detectors pass on chunks with the header of the HDF5 filter; its first four bytes cannot be the length of a block.
    if len(data) >= 12 and _big(data, 0, 8) == len(out):
        stored, rest = divmod(_big(data, 8, 4), itemsize)
        if rest or stored % _BLOCK_MULTIPLE or (0 < stored < _BLOCK_LEAST):
            raise FrameError(f"{codec}: blocks of {_big(data, 8, 4)} bytes")
        block, pos = stored or block, 12
    tail = array.size % _BLOCK_MULTIPLE * itemsize
    body, step = len(out) - tail, block * itemsize
    run = max(_RUN // step, 1) * step
    for at in range(0, body, run):
        target = out[at : min(at + run, body)]
        packed, pos = _as_blosc(data, pos, len(target), step, itemsize)
        _whole(codec, decode(packed, out=target), target)
        del packed  # before the next is made
    _left(codec, data, pos, tail)
    out[body:] = data[pos : pos + tail]


def _as_blosc(data: Bytes, pos: int, size: int, step: int, itemsize: int) -> tuple[Bytes, int]:
    """The blocks of bitshuffle's LZ4 that hold the next `size` bytes, as one Blosc 1 buffer; where they end.

    Blosc shuffles bits as bitshuffle does, and keeps its blocks likewise: the length, there little-endian, then LZ4. With a table of
    them in front it decompresses all in one call.
    """
    view, end, begin = data.data, len(data), pos
    starts = []
    for _ in range(-(-size // step)):
        if end - pos < 4:
            _left("bslz4", data, pos, 4)
        starts.append(pos)
        length = _U32(view, pos)[0]
        pos += 4
        if length > end - pos:
            _left("bslz4", data, pos, length)
        pos += length
    head = 16 + 4 * len(starts)
    made = np.empty(head + pos - begin, np.uint8)
    made[head:] = data[begin:pos]
    places = np.array(starts, np.int64) + (head - begin)
    digits = places[:, None] + np.arange(4)
    made[digits] = made[digits[:, ::-1]]
    # What is as long as its block would be taken for stored as it is; so it is stored as it is.
    lengths = np.diff(places, append=len(made)) - 4
    plain = np.minimum(size - step * np.arange(len(starts)), step)
    for i in np.flatnonzero(lengths == plain):
        stored = made[places[i] + 4 : places[i] + 4 + lengths[i]]
        found = library("bslz4").lz4_decode(
            stored.tobytes(), header=False, out=np.empty(len(stored), np.uint8)
        )
        _whole("bslz4", found, stored)
        stored[:] = found
    made[:4] = _BLOSC_VERSION, _BLOSC_LZ4, _BLOSC_BITSHUFFLE_LZ4_UNSPLIT, itemsize
    made[4:16] = np.array([size, min(step, size), len(made)], "<i4").view(np.uint8)
    made[16:head] = places.astype("<i4").view(np.uint8)
    return made, pos


def jpeg_shape(data: Bytes) -> tuple[int, int, int]:
    """Height, width and components that a JPEG file announces. Raises FrameError for what is no 8-bit JPEG."""
    _left("jpeg", data, 0, 4)
    if data[0] != 0xFF or data[1] != 0xD8:
        raise FrameError("jpeg: no JPEG file")
    pos = 2
    while True:
        _left("jpeg", data, pos, 4)
        if data[pos] != 0xFF:
            raise FrameError(f"jpeg: marker expected at byte {pos}")
        marker = int(data[pos + 1])
        if marker == 0xFF:  # filling
            pos += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # alone, without a length
            pos += 2
            continue
        if marker in (0xD9, 0xDA):
            raise FrameError("jpeg: no size before the data")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            _left("jpeg", data, pos, 10)
            if data[pos + 4] != 8:
                raise FrameError(f"jpeg: {data[pos + 4]} bits a sample")
            return _big(data, pos + 5, 2), _big(data, pos + 7, 2), int(data[pos + 9])
        pos += 2 + _big(data, pos + 2, 2)


def _jpeg_axes(data: Bytes, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Which axes of the array are height, width and colour of the file. Raises FrameError if the sizes differ."""
    height, width, components = jpeg_shape(data)
    # The pixels of RGB2 and RGB3 are interleaved in the file; the dimensions stay what they were.
    where = {
        (height, width): (0, 1),
        (height, width, 3): (0, 1, 2),
        (height, 3, width): (0, 2, 1),
        (3, height, width): (1, 2, 0),
    }
    order = where.get(shape)
    if order is None or len(order) != {1: 2, 3: 3}.get(components):
        raise FrameError(f"jpeg: {width} × {height} × {components} where the dimensions are {shape[::-1]}")
    return order


def _from_jpeg(data: Bytes, array: np.ndarray[Any, np.dtype[Any]]) -> None:
    target = array.view(np.uint8).transpose(_jpeg_axes(data, array.shape))
    decode = library("jpeg").jpeg8_decode
    if target.flags.c_contiguous:
        decode(data, out=target)
    else:
        target[...] = decode(data)


CHECKS: Final[dict[str, Check]] = {
    "jpeg": _check_jpeg,
    "zlib": _ratio("zlib", _DEFLATE_RATIO),
    "blosc": _check_blosc,
    "lz4": _ratio("lz4", _LZ4_RATIO),
    "lz4hdf5": _check_lz4hdf5,
    "bslz4": _ratio("bslz4", _LZ4_RATIO),
}
Decoder: TypeAlias = "Callable[[Bytes, np.ndarray[Any, np.dtype[Any]]], None]"
DECODERS: Final[dict[str, Decoder]] = {
    "jpeg": _from_jpeg,
    "zlib": _from_zlib,
    "blosc": _from_blosc,
    "lz4": _from_lz4,
    "lz4hdf5": _from_lz4hdf5,
    "bslz4": _from_bslz4,
}


# --- compressing --------------------------------------------------------------------------------------------------


def _to_zlib(array: np.ndarray[Any, np.dtype[Any]], axes: str, level: int = 6) -> bytes:
    return zlib.compress(flat(array).data, level)


# imagecodecs shuffles elements of one byte whatever `typesize` says: valid Blosc, but with "bit" it is that compresses well.
_SHUFFLES: Final = {"none": 0, "byte": 1, "bit": 2}


def _to_blosc(
    array: np.ndarray[Any, np.dtype[Any]],
    axes: str,
    compressor: str = "lz4",
    level: int = 5,
    shuffle: str = "bit",
) -> bytes:
    if shuffle not in _SHUFFLES:
        raise ValueError(f"shuffle must be one of {', '.join(_SHUFFLES)}, not {shuffle!r}")
    made: bytes = library("blosc").blosc_encode(
        flat(array),
        level=level,
        compressor=compressor,
        shuffle=_SHUFFLES[shuffle],
    )
    return made


def _to_lz4(array: np.ndarray[Any, np.dtype[Any]], axes: str) -> bytes:
    made: bytes = library("lz4").lz4_encode(flat(array), header=False)
    return made


def _to_lz4hdf5(array: np.ndarray[Any, np.dtype[Any]], axes: str, block: int = _H5_BLOCK) -> bytes:
    data = flat(array)
    encode = library("lz4hdf5").lz4_encode
    block = max(1, min(block, len(data)))
    parts = [len(data).to_bytes(8, "big"), block.to_bytes(4, "big")]
    for at in range(0, len(data), block):
        plain = data[at : at + block]
        packed = encode(plain, header=False)
        if len(packed) >= len(plain):
            packed = plain.tobytes()
        parts += [len(packed).to_bytes(4, "big"), packed]
    return b"".join(parts)


def _to_bslz4(array: np.ndarray[Any, np.dtype[Any]], axes: str) -> bytes:
    data, itemsize = flat(array), array.dtype.itemsize
    imagecodecs = library("bslz4")
    block = _block(itemsize)
    body = len(data) - array.size % _BLOCK_MULTIPLE * itemsize
    shuffled = np.frombuffer(
        imagecodecs.bitshuffle_encode(data[:body].data, itemsize=itemsize, blocksize=block), np.uint8
    )
    parts = []
    for at in range(0, body, block * itemsize):
        packed = imagecodecs.lz4_encode(shuffled[at : at + block * itemsize], header=False)
        parts += [len(packed).to_bytes(4, "big"), packed]
    return b"".join([*parts, data[body:].tobytes()])


def _to_jpeg(array: np.ndarray[Any, np.dtype[Any]], axes: str, quality: int = 85) -> bytes:
    if array.dtype.itemsize != 1 or axes not in ("yx", "yxc", "ycx", "cyx"):
        raise FrameError(
            f"jpeg takes 8-bit Mono and RGB images, not {array.dtype} of {axes or array.ndim} axes"
        )
    image = array.view(np.uint8).transpose([axes.index(axis) for axis in "yxc" if axis in axes])
    made: bytes = library("jpeg").jpeg8_encode(np.ascontiguousarray(image), level=quality)
    return made


Encoder: TypeAlias = "Callable[..., bytes]"
ENCODERS: Final[dict[str, Encoder]] = {
    "jpeg": _to_jpeg,
    "zlib": _to_zlib,
    "blosc": _to_blosc,
    "lz4": _to_lz4,
    "lz4hdf5": _to_lz4hdf5,
    "bslz4": _to_bslz4,
}

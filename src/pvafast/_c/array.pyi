"""Scalar and string arrays <-> numpy: views of the received bytes where the byte order is the host's, one copy otherwise."""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np

from .. import _memory
from .._types import DTYPES, SCALARS
from ..errors import EncodeError, LimitExceeded
from .buffer import Reader, Writer

_HOST_IS_BIG: Final = sys.byteorder == "big"
_BOOL: Final = np.dtype("?")
_BYTE: Final = np.dtype("B")
# A view keeps all received bytes alive: an array that is smaller than this part of them is copied.
_PINNED: Final = 8
# Copies above this size are placed as received ones are.
_LARGE: Final = 65_536


def _copied(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """A copy in native byte order."""
    if array.nbytes <= _LARGE:
        return array.astype(dtype)
    made = _memory.empty(array.shape, dtype)
    made[...] = array
    return made


def _frozen(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.flags.writeable = False
    return array


_EMPTY: Final = {code: _frozen(np.empty(0, dtype)) for code, dtype in DTYPES.items()}


def _read_numbers(r: Reader, code: int, n: int) -> np.ndarray[Any, Any]:
    """The next n elements of a scalar code: a read-only array in native byte order, C-contiguous.

    A view of the bytes where they can be used as they lie and the array is not a small part of them, else a copy.
    """
    if n == 0:
        return _EMPTY[code]
    name, _, _, _, size = SCALARS[code]
    pos = r.pos
    if n * size > r.end - pos:
        raise r._short(f"array of {n} {name}", n * size)
    data = r.data
    dtype = DTYPES[code]
    r.pos = pos + n * size
    if dtype is _BOOL or dtype == _BOOL:
        raw = np.frombuffer(data, _BYTE, n, pos)
        if int(raw.max()) > 1:
            return _frozen(raw != 0)
        array = raw.view(_BOOL)
    elif r.big != _HOST_IS_BIG and size > 1:
        swapped = np.frombuffer(data, dtype.newbyteorder("S"), n, pos)
        return _frozen(_copied(swapped, dtype))
    else:
        array = np.frombuffer(data, dtype, n, pos)
    if n * size * _PINNED < len(data) or (r.aligned and not array.flags.aligned):
        array = _copied(array, dtype)
    return _frozen(array)


def _read_strings(r: Reader, n: int) -> list[str]:
    """The next n strings."""
    pos = r.pos
    if n > r.end - pos:
        raise r._short(f"array of {n} string", n)
    if n > r.limits.elements:
        raise LimitExceeded(f"array of {n} string", pos, limit="elements")
    data = r.data
    end = r.end
    found = []
    # Short strings, which nearly all are, are read without a call.
    quick = r.limits.string >= 0xFE
    for i in range(n):
        if quick and pos < end:
            size = data[pos]
            stop = pos + 1 + size
            if size < 0xFE and stop <= end:
                found.append(str(data[pos + 1 : stop], "utf-8", "surrogateescape"))
                pos = stop
                continue
        r.pos = pos
        try:
            found.append(r.string())
        except Exception as error:
            error.within(f"[{i}]")  # type: ignore[attr-defined]
            raise
        pos = r.pos
    r.pos = pos
    return found


def _write_numbers(w: Writer, array: np.ndarray[Any, Any]) -> None:
    """The elements of a native, C-contiguous array, in the byte order of the writer."""
    if w.big != _HOST_IS_BIG and array.dtype.itemsize > 1:
        array = array.byteswap()
    if len(array):
        w.bytes(array.view(_BYTE))


def _write_strings(w: Writer, strings: list[str]) -> None:
    """The strings, back to back."""
    for i, text in enumerate(strings):
        try:
            w.string(text)
        except EncodeError as error:
            error.within(f"[{i}]")
            raise

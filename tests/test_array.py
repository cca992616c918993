"""Arrays: views of the bytes where they can be, read-only always."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

NAMES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float", "double")
DTYPES = {name: np.dtype({"float": "f4", "double": "f8"}.get(name, name)) for name in NAMES}
HOST, OTHER = ("little", "big") if sys.byteorder == "little" else ("big", "little")
pytestmark = pytest.mark.parametrize("name", NAMES)


def encoded(array: Any, order: str) -> bytes:
    n = len(array)
    prefix = bytes([n]) if n < 254 else b"\xfe" + n.to_bytes(4, order)  # type: ignore[arg-type]
    return prefix + array.astype(array.dtype.newbyteorder("<" if order == "little" else ">")).tobytes()


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def decoded(backend: SimpleNamespace, name: str, data: Any, order: str, **options: Any) -> Any:
    fd = backend.introspection.FieldDesc.of(f"{name}[]")
    array, end = backend.codec.Codec().decode(fd, data, byteorder=order, **options)
    assert end == len(data)
    assert array.dtype == DTYPES[name]
    assert array.dtype.isnative
    assert array.flags.c_contiguous
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0
    return array


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("n", [1, 3, 253, 254, 1000, 40_000])
def test_values(backend: SimpleNamespace, name: str, order: str, n: int) -> None:
    array = (np.arange(n) % 120).astype(DTYPES[name])
    data = encoded(array, order)
    assert np.array_equal(decoded(backend, name, data, order), array)
    fd = backend.introspection.FieldDesc.of(f"{name}[]")
    assert backend.codec.Codec().encode(array, fd, byteorder=order) == data


def test_views(backend: SimpleNamespace, name: str) -> None:
    array = (np.arange(100) % 120).astype(DTYPES[name])
    data = encoded(array, HOST)
    start = address(np.frombuffer(data, np.uint8)) + 1
    assert address(decoded(backend, name, data, HOST)) == start
    held = bytearray(data)
    start = address(np.frombuffer(held, np.uint8)) + 1
    assert address(decoded(backend, name, memoryview(held), HOST)) == start


def test_copies_of_the_other_order(backend: SimpleNamespace, name: str) -> None:
    array = (np.arange(100) % 120).astype(DTYPES[name])
    data = encoded(array, OTHER)
    found = decoded(backend, name, data, OTHER)
    start = address(np.frombuffer(data, np.uint8)) + 1
    assert (address(found) == start) == (array.itemsize == 1)
    assert np.array_equal(found, array)


def test_aligned_on_request(backend: SimpleNamespace, name: str) -> None:
    array = (np.arange(100) % 120).astype(DTYPES[name])
    data = encoded(array, HOST)
    found = decoded(backend, name, data, HOST, aligned=True)
    assert found.flags.aligned
    assert np.array_equal(found, array)


def test_a_small_array_does_not_pin_a_large_buffer(backend: SimpleNamespace, name: str) -> None:
    array = (np.arange(100) % 120).astype(DTYPES[name])
    raw = encoded(array, HOST)
    fd = backend.introspection.FieldDesc.of(f"{name}[]")
    for times, viewed in ((8, True), (9, False)):
        data = raw + bytes(array.nbytes * times - len(raw))
        found, _ = backend.codec.Codec().decode(fd, data)
        start = address(np.frombuffer(data, np.uint8)) + 1
        assert (address(found) == start) == viewed
        assert np.array_equal(found, array)


def test_empty(backend: SimpleNamespace, name: str) -> None:
    fd = backend.introspection.FieldDesc.of(f"{name}[]")
    array, end = backend.codec.Codec().decode(fd, b"\x00")
    assert (array.size, array.dtype, end) == (0, DTYPES[name], 1)
    assert not array.flags.writeable


def test_bounded_and_fixed(backend: SimpleNamespace, name: str) -> None:
    of = backend.introspection.FieldDesc.of
    array = np.arange(3).astype(DTYPES[name])
    raw = array.astype(DTYPES[name].newbyteorder("<")).tobytes()
    codec = backend.codec.Codec()
    assert codec.decode(of(f"{name}<3>"), b"\x03" + raw)[0].tolist() == [0, 1, 2]
    assert codec.decode(of(f"{name}[3]"), raw)[0].tolist() == [0, 1, 2]
    assert codec.encode([0, 1, 2], of(f"{name}<3>")) == b"\x03" + raw
    assert codec.encode([0, 1, 2], of(f"{name}[3]")) == raw
    with pytest.raises(Exception, match=f"array of 3 {name} over its bound of 2"):
        codec.decode(of(f"{name}<2>"), b"\x03" + raw)
    with pytest.raises(Exception, match="where 3 are fixed"):
        codec.encode([0, 1], of(f"{name}[3]"))
    with pytest.raises(Exception, match=f"array of 3 {name} needs {len(raw)} bytes, {len(raw) - 1} left"):
        codec.decode(of(f"{name}[3]"), raw[:-1])


def test_large_arrays_are_buffers_of_their_own(backend: SimpleNamespace, name: str) -> None:
    array = np.zeros(65_536 // DTYPES[name].itemsize, DTYPES[name])
    w = backend.buffer.Writer(HOST)
    backend.codec.Codec().write(array, w, backend.introspection.FieldDesc.of(f"{name}[]"))
    head, pixels = w.buffers()
    assert len(head) == (5 if len(array) > 253 else 1)
    assert address(np.frombuffer(pixels, np.uint8)) == address(array)

"""Arrays of bools and strings, and what a view keeps alive. (Numbers: test_array.)"""

from __future__ import annotations

import gc
import sys
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import wire
from pvafast.errors import DecodeError, LimitExceeded
from pvafast.limits import Limits


def decode(backend: SimpleNamespace, spec: str, data: Any, **options: Any) -> Any:
    found, end = backend.codec.Codec().decode(backend.introspection.FieldDesc.of(spec), data, **options)
    assert end == len(data)
    return found


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.mark.parametrize("order", wire.ORDERS)
@pytest.mark.parametrize("n", [1, 2, 100, 70_000])
def test_bools(backend: SimpleNamespace, order: str, n: int) -> None:
    """A view where every byte is 0 or 1; otherwise a copy, any nonzero byte being true."""
    raw = bytes(i % 3 == 0 for i in range(n))
    data = wire.size(n, order) + raw
    array = decode(backend, "bool[]", data, byteorder=order)
    assert array.dtype == bool
    assert not array.flags.writeable
    assert array.tobytes() == raw
    assert address(array) == address(np.frombuffer(data, np.uint8)) + len(data) - n
    for odd in (2, 255):
        other = bytes(x * odd for x in raw[:-1]) + bytes([odd])
        data = wire.size(n, order) + other
        array = decode(backend, "bool[]", data, byteorder=order)
        assert array.dtype == bool
        assert not array.flags.writeable
        assert array.tolist() == [x != 0 for x in other]
        assert set(array.tobytes()) <= {0, 1}  # numpy takes nothing else for a bool
        assert address(array) != address(np.frombuffer(data, np.uint8)) + len(data) - n
    again = backend.codec.Codec().encode(array, backend.introspection.FieldDesc.of("bool[]"), byteorder=order)
    assert again == wire.size(n, order) + bytes(x != 0 for x in other)


@pytest.mark.parametrize("order", wire.ORDERS)
def test_strings(backend: SimpleNamespace, order: str) -> None:
    texts = ["", "a", "é" * 200, "\udcff\udc80", "x" * 253, "y" * 254, "z\0"]
    data = wire.value("string[]", texts, order)
    assert decode(backend, "string[]", data, byteorder=order) == texts
    fd = backend.introspection.FieldDesc.of("string[]")
    assert backend.codec.Codec().encode(texts, fd, byteorder=order) == data
    # Null elements, and the long form of a short one.
    long = b"\xfe" + wire.pack("I", 1, order) + b"q"
    assert decode(backend, "string[]", b"\x03\xff" + long + b"\xff", byteorder=order) == ["", "q", ""]
    assert decode(backend, "string[2]", b"\x01a\xff", byteorder=order) == ["a", ""]
    assert decode(backend, "string<2>", b"\x01\x01a", byteorder=order) == ["a"]
    with pytest.raises(DecodeError, match=r"array of 3 string over its bound of 2 at offset 0"):
        decode(backend, "string<2>", b"\x03\x00\x00\x00", byteorder=order)
    with pytest.raises(DecodeError, match=r"string of 5 bytes needs 5 bytes, 1 left at `\[1\]`, offset 3"):
        decode(backend, "string[]", b"\x02\x00\x05a", byteorder=order)
    with pytest.raises(DecodeError, match=r"array of 2 string needs 2 bytes, 0 left at offset 0"):
        decode(backend, "string[2]", b"", byteorder=order)
    with pytest.raises(DecodeError, match=r"Size needs 1 bytes, 0 left at `\[1\]`, offset 2"):
        decode(backend, "string[2]", b"\x01a", byteorder=order)


def test_string_limits(backend: SimpleNamespace) -> None:
    fd = backend.introspection.FieldDesc.of("string[]")
    with pytest.raises(LimitExceeded) as caught:
        backend.codec.Codec(limits=Limits(string=3)).decode(fd, b"\x02\x03abc\x04abcd")
    assert (caught.value.limit, caught.value.path, caught.value.offset) == ("string", "[1]", 6)
    with pytest.raises(LimitExceeded) as caught:
        backend.codec.Codec(limits=Limits(elements=1)).decode(fd, b"\x02\x00\x00")
    assert caught.value.limit == "elements"


def test_a_view_keeps_its_bytes(backend: SimpleNamespace) -> None:
    class Bytes(bytearray):
        pass

    data = Bytes(wire.size(1000) + bytes(range(250)) * 4)
    gone = weakref.ref(data)
    array = decode(backend, "uint8[]", data)
    with pytest.raises(BufferError):
        data.append(1)
    del data
    gc.collect()
    assert gone() is not None
    assert array.tolist() == list(range(250)) * 4
    del array
    gc.collect()
    assert gone() is None


def test_a_copy_lets_them_go(backend: SimpleNamespace) -> None:
    class Bytes(bytearray):
        pass

    fd = backend.introspection.FieldDesc.of({"a": "uint8[]", "b": "string", "c": "double[]", "d": "bool[]"})
    data = Bytes(b"\x02\x07\x08" + b"\x01s" + b"\x01" + bytes(8) + b"\x02\x01\x05" + bytes(100))
    v, _ = backend.codec.Codec().decode(fd, data)
    data.append(1)  # nothing looks at it any more
    gone = weakref.ref(data)
    del data
    gc.collect()
    assert gone() is None
    assert (v["a"].tolist(), v["b"], v["c"].tolist(), v["d"].tolist()) == ([7, 8], "s", [0.0], [True, True])


def test_references_are_balanced(backend: SimpleNamespace) -> None:
    """Decoding, failing to decode and encoding leave no reference to the bytes behind."""
    fd = backend.introspection.FieldDesc.of(
        {
            "a": "uint8[]",
            "s": "string[]",
            "n": "any[]",
            "q": backend.introspection.FieldDesc.of({"z": "int16[]"}).array(),
        }
    )
    good = (
        wire.size(300) + bytes(300) + b"\x01\x01t" + b"\x02\x00\x01\x28\x01\x05" + b"\x02\x01\x01\x00\x00\x00"
    )
    codec = backend.codec.Codec()
    v, end = codec.decode(fd, good)
    assert end == len(good)
    assert codec.encode(v) == good
    del v
    before = sys.getrefcount(good)
    for _ in range(50):
        v, _ = codec.decode(fd, good)
        v["a"], v["q"]
        codec.encode(v)
        del v
        for n in range(0, len(good), 7):
            with pytest.raises(DecodeError):
                codec.decode(fd, good, end=n)
            codec = backend.codec.Codec()
    gc.collect()
    assert sys.getrefcount(good) == before


def test_offsets_into_any_buffer(backend: SimpleNamespace) -> None:
    """Views of all kinds of buffers, at any offset, aligned or not."""
    values = np.arange(50, dtype="<i4")
    for lead in range(9):
        data = bytes(lead) + b"\x32" + values.tobytes() + b"end"
        for buffer in (
            data,
            bytearray(data),
            memoryview(data),
            np.frombuffer(data, np.uint8),
            memoryview(b"??" + data)[2:],
        ):
            fd = backend.introspection.FieldDesc.of("int32[]")
            for aligned in (False, True):
                array, end = backend.codec.Codec().decode(fd, buffer, lead, aligned=aligned)
                assert end == lead + 201
                assert np.array_equal(array, values)
                assert not array.flags.writeable
                start = address(np.frombuffer(buffer, np.uint8)) + lead + 1
                if sys.byteorder == "little":
                    assert (address(array) == start) == (not aligned or start % 4 == 0)
                assert not aligned or array.flags.aligned

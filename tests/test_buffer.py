"""Reader and Writer: the elementary encodings (WIRE 5)."""

from __future__ import annotations

import math
import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pvafast.errors import DecodeError, EncodeError, LimitExceeded, RangeError
from pvafast.limits import Limits

INTEGERS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i8": "b", "i16": "h", "i32": "i", "i64": "q"}
WORDS = {name: ("u" if name[0] == "u" else "") + f"int{name[1:]}" for name in INTEGERS}
ORDERS = {"little": "<", "big": ">"}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", INTEGERS)
def test_integers(backend: SimpleNamespace, name: str, order: str) -> None:
    size = struct.calcsize(INTEGERS[name])
    bits = 8 * size
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if name[0] == "i" else (0, (1 << bits) - 1)
    for number in (low, high, 1, 0x12 if size == 1 else 0x1234):
        raw = struct.pack(ORDERS[order] + INTEGERS[name], number)
        w = backend.buffer.Writer(order)
        getattr(w, name)(number)
        assert w.take() == raw
        r = backend.buffer.Reader(b"\xee" + raw + b"\xee", 1, byteorder=order)
        assert getattr(r, name)() == number
        assert (r.pos, r.left) == (1 + size, 1)
    for number in (low - 1, high + 1):
        with pytest.raises(RangeError, match=f"{WORDS[name]} cannot hold {number}"):
            getattr(backend.buffer.Writer(order), name)(number)
    with pytest.raises(EncodeError, match=f"{WORDS[name]} expected, str found"):
        getattr(backend.buffer.Writer(order), name)("1")
    with pytest.raises(DecodeError) as caught:
        getattr(backend.buffer.Reader(raw[:-1], byteorder=order), name)()
    assert str(caught.value) == f"{WORDS[name]} needs {size} bytes, {size - 1} left at offset 0"


@pytest.mark.parametrize("order", ORDERS)
def test_floats_and_bool(backend: SimpleNamespace, order: str) -> None:
    w = backend.buffer.Writer(order)
    for number in (0.5, -math.inf, -0.0):
        w.f32(number)
        w.f64(number)
    w.boolean(True)
    w.boolean(False)
    mark = ORDERS[order]
    assert w.take() == b"".join(struct.pack(f"{mark}fd", x, x) for x in (0.5, -math.inf, -0.0)) + b"\x01\x00"
    r = backend.buffer.Reader(struct.pack(f"{mark}fd", 0.5, 0.25) + b"\x05\x00", byteorder=order)
    assert (r.f32(), r.f64(), r.boolean(), r.boolean()) == (0.5, 0.25, True, False)
    with pytest.raises(RangeError, match="float cannot hold 1e"):
        w.f32(1e39)


def test_sizes(backend: SimpleNamespace) -> None:
    for number, raw in ((0, "00"), (253, "fd"), (254, "fefe000000"), (65536, "fe00000100"), (None, "ff")):
        w = backend.buffer.Writer()
        w.size(number)
        assert w.take().hex() == raw
        assert backend.buffer.Reader(bytes.fromhex(raw)).nullable_size() == number
    assert backend.buffer.Reader(bytes.fromhex("fe05000000")).size() == 5  # five bytes for a small one
    assert backend.buffer.Reader(bytes.fromhex("fe00000005"), byteorder="big").size() == 5
    for raw, text in (
        ("", "Size needs 1 bytes, 0 left"),
        ("fe0000", "Size needs 5 bytes, 3 left"),
        ("ff", "null Size where a count is needed"),
    ):
        r = backend.buffer.Reader(bytes.fromhex(raw))
        with pytest.raises(DecodeError, match=text):
            r.size()
        assert r.pos == 0


def test_strings(backend: SimpleNamespace) -> None:
    for text, raw in (
        ("", b"\x00"),
        ("é", b"\x02\xc3\xa9"),
        ("\udcff", b"\x01\xff"),
        ("x" * 300, b"\xfe\x2c\x01\x00\x00" + b"x" * 300),
    ):
        w = backend.buffer.Writer()
        w.string(text)
        assert w.take() == raw
        assert backend.buffer.Reader(raw).string() == text
    assert backend.buffer.Reader(b"\xff").string() == ""
    with pytest.raises(EncodeError, match="lone surrogate in string at index 1"):
        backend.buffer.Writer().string("a\ud800")
    with pytest.raises(DecodeError, match="string of 5 bytes needs 5 bytes, 1 left at offset 1"):
        backend.buffer.Reader(b"\x05a").string()
    with pytest.raises(LimitExceeded) as caught:
        backend.buffer.Reader(b"\x05abcde", limits=Limits(string=4)).string()
    assert caught.value.limit == "string"


def test_addresses(backend: SimpleNamespace) -> None:
    for text, raw in (
        ("127.0.0.1", bytes(10) + b"\xff\xff\x7f\x00\x00\x01"),
        ("", bytes(10) + b"\xff\xff" + bytes(4)),
        ("fe80::1", b"\xfe\x80" + bytes(13) + b"\x01"),
    ):
        w = backend.buffer.Writer("big")
        w.address(text)
        assert w.take() == raw
        assert backend.buffer.Reader(raw).address() == text
    assert backend.buffer.Reader(bytes(16)).address() == ""
    with pytest.raises(EncodeError, match="no IP address"):
        backend.buffer.Writer().address("localhost")


@pytest.mark.parametrize(
    "make",
    [
        bytes,
        bytearray,
        memoryview,
        lambda b: np.frombuffer(b, np.uint8),
        lambda b: np.frombuffer(b, np.uint16),
    ],
)
def test_any_buffer(backend: SimpleNamespace, make: Any) -> None:
    r = backend.buffer.Reader(make(b"\x01\x02\x03\x04"), 1, 3)
    assert (r.u8(), r.u8(), r.left) == (2, 3, 0)
    assert backend.buffer.Reader(make(b"\x01\x02\x03\x04")).bytes(4) == b"\x01\x02\x03\x04"


def test_bounds(backend: SimpleNamespace) -> None:
    for start, end in ((-1, None), (5, None), (3, 2), (0, 5), (0, -1)):
        with pytest.raises(ValueError, match="do not lie in 4 bytes"):
            backend.buffer.Reader(b"abcd", start, end)
    with pytest.raises(ValueError, match="byteorder"):
        backend.buffer.Reader(b"", byteorder="<")
    r = backend.buffer.Reader(b"abcd")
    r.skip(3)
    with pytest.raises(DecodeError, match="2 bytes needs 2 bytes, 1 left at offset 3"):
        r.skip(2)
    with pytest.raises(ValueError, match="no -1 bytes"):
        r.bytes(-1)
    assert r.bytes(1) == b"d"


def test_patches_and_buffers(backend: SimpleNamespace) -> None:
    w = backend.buffer.Writer("big")
    w.u32(0)
    w.bytes(b"xyz")
    w.patch_u32(0, 7)
    assert len(w) == 7
    assert w.take() == b"\x00\x00\x00\x07xyz"
    assert len(w) == 0
    large = bytearray(65_536)
    w.u8(1)
    w.bytes(large)
    w.u8(2)
    first, second, third = w.buffers()
    assert (bytes(first), bytes(third)) == (b"\x01", b"\x02")
    large[5] = 9
    assert second[5] == 9  # not a copy
    with pytest.raises(ValueError, match="no four bytes"):
        w.patch_u32(0, 1)


@pytest.mark.parametrize("n", [10, 100_000])
def test_memory_in_any_layout(backend: SimpleNamespace, n: int) -> None:
    """What is written is the elements in their order, wherever they lie."""
    square = np.arange(2 * n, dtype=np.uint16).reshape(2, n)
    for given in (
        np.arange(2 * n, dtype=np.uint8)[::2],
        np.arange(2.0 * n)[::-2],
        square,
        square.T,
        memoryview(bytes(range(256)) * (n // 128 + 1))[::2],
    ):
        w = backend.buffer.Writer()
        w.bytes(given)
        assert w.take() == given.tobytes()


def test_patches_in_range(backend: SimpleNamespace) -> None:
    w = backend.buffer.Writer()
    w.u32(0)
    for bad in (-1, 2**32):
        with pytest.raises(RangeError, match=f"uint32 cannot hold {bad}"):
            w.patch_u32(0, bad)

"""Bytes made to harm: refused by the limit that stops them, within 128 times their size and 1 MiB."""

from __future__ import annotations

import struct
import tracemalloc
from types import SimpleNamespace
from typing import Any

import pytest

from pvafast.errors import DecodeError, LimitExceeded
from pvafast.limits import Limits

MIB = 1 << 20


def size(n: int) -> bytes:
    return bytes([n]) if n < 254 else b"\xfe" + struct.pack("<I", n)


def text(s: bytes) -> bytes:
    return size(len(s)) + s


def nested(levels: int) -> bytes:
    """That many structures in each other, an int32 in the innermost."""
    return b"\x80\x00\x01\x01a" * levels + b"\x22"


def refused(work: Any, data: bytes) -> DecodeError:
    """The error, raised within the memory that the bytes allow."""
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError) as caught:
            work()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 128 * len(data) + MIB
    return caught.value


def limit_of(work: Any, data: bytes) -> str:
    error = refused(work, data)
    assert isinstance(error, LimitExceeded), error
    return error.limit


@pytest.mark.parametrize("code", [0x08, 0x28, 0x4B, 0x68, 0x8A], ids=hex)
@pytest.mark.parametrize("count", [1 << 31, 0xFFFFFFFE, 0x7FFFFFFF, 1 << 20])
def test_counts_without_the_bytes(backend: SimpleNamespace, code: int, count: int) -> None:
    data = bytes([code]) + size(count) + bytes(20)
    error = refused(lambda: backend.codec.Codec().decode_any(data), data)
    assert "needs" in error.reason
    assert error.offset == 6


@pytest.mark.parametrize(
    "element", [b"\x88\x80\x00\x00", b"\x89\x81\x00\x01\x01a\x22"], ids=["structure", "union"]
)
def test_counts_of_elements_without_the_bytes(backend: SimpleNamespace, element: bytes) -> None:
    data = element + size(1 << 31) + bytes(20)
    assert "needs 2147483648 bytes" in refused(lambda: backend.codec.Codec().decode_any(data), data).reason


def test_string_and_bitset_without_the_bytes(backend: SimpleNamespace) -> None:
    for data in (b"\x60" + size(1 << 31) + b"abc", b"\x80" + size(0xFFFFFFF0) + b"abc"):
        assert "needs" in refused(lambda data=data: backend.codec.Codec().decode_any(data), data).reason
    data = size(1 << 31) + b"abc"
    assert "BitSet" in refused(lambda: backend.bitset.BitSet.decode(data), data).reason


def test_nesting_of_types(backend: SimpleNamespace) -> None:
    assert backend.codec.Codec().decode_type(nested(20))[0] is not None
    for levels in (21, 1_000, 100_000):
        data = nested(levels)
        assert limit_of(lambda data=data: backend.codec.Codec().decode_type(data), data) == "depth"


def test_nesting_of_anys(backend: SimpleNamespace) -> None:
    # Each any holds an any: its description is one byte.
    assert backend.codec.Codec().decode_any(b"\x82" * 20 + b"\xff")[0] is not None
    data = b"\x82" * 50_000
    assert limit_of(lambda: backend.codec.Codec().decode_any(data), data) == "depth"


def test_types_and_values_are_counted_together(backend: SimpleNamespace) -> None:
    """Structures around an any around structures."""

    def data(outer: int, inner: int) -> bytes:
        return b"\x80\x00\x01\x01a" * outer + b"\x82" + nested(inner) + bytes(4)

    assert backend.codec.Codec().decode_any(data(10, 9))[0] is not None
    bad = data(12, 12)
    assert limit_of(lambda: backend.codec.Codec().decode_any(bad), bad) == "depth"


def test_chains_of_references(backend: SimpleNamespace) -> None:
    """Each type holds the one before twice: 65,000 nodes in some 240 bytes."""
    data = b"\xfd\x01\x00\x80\x00\x02\x01a\x22\x01b\x22"
    for i in range(2, 16):
        reference = b"\xfe" + struct.pack("<H", i - 1)
        data += b"\xfd" + struct.pack("<H", i) + b"\x80\x00\x02\x01a" + reference + b"\x01b" + reference
    assert len(data) < 870

    def work() -> None:
        codec = backend.codec.Codec()
        at = 0
        while at < len(data):
            _, at = codec.decode_type(data, at)

    assert limit_of(work, data) == "type_nodes"


def many_ids(count: int, step: int) -> bytes:
    """Ids, each of a type of 17 nodes."""
    names = [text(b"%d" % i) + b"\x22" for i in range(16 + step * count)]
    return b"".join(
        b"\xfd" + struct.pack("<H", i) + b"\x80\x00\x10" + b"".join(names[step * i : step * i + 16])
        for i in range(count)
    )


# Of ever new types fewer, as the memory is counted object by object.
@pytest.mark.parametrize(("count", "step", "nodes"), [(65_535, 0, 1_000_000), (6_000, 1, 100_000)])
def test_many_ids(backend: SimpleNamespace, count: int, step: int, nodes: int) -> None:
    """A type under every id there is, a million nodes; and ids of ever new types."""
    data = many_ids(count, step)
    seen = 0

    def work() -> None:
        nonlocal seen
        codec = backend.codec.Codec(limits=Limits(registry_nodes=nodes))
        at = seen = 0
        while at < len(data):
            _, at = codec.decode_type(data, at)
            seen += 1

    assert limit_of(work, data) == "registry_nodes"
    assert seen == nodes // 17


def test_many_ids_in_one_message(backend: SimpleNamespace) -> None:
    """Anys that each bring a type under an id of its own, and a value of it."""
    one = b"\x80\x00\x10" + b"".join(text(b"%d" % i) + b"\x22" for i in range(16))
    data = b"\x8a" + size(2000)
    data += b"".join(b"\x01\xfd" + struct.pack("<H", i) + one + bytes(64) for i in range(2000))
    codec = backend.codec.Codec(limits=Limits(registry_nodes=20_000))
    error = refused(lambda: codec.decode_any(data), data)
    assert isinstance(error, LimitExceeded)
    assert (error.limit, error.path) == ("registry_nodes", f"[{20_000 // 17}]")


def test_wide_types(backend: SimpleNamespace) -> None:
    data = b"\x80\x00" + size(20_000) + b"".join(text(b"%d" % i) + b"\x22" for i in range(20_000))
    assert limit_of(lambda: backend.codec.Codec().decode_type(data), data) == "type_nodes"
    data = b"\x80\x00" + size(1 << 31) + bytes(50)
    assert "members need" in refused(lambda: backend.codec.Codec().decode_type(data), data).reason


@pytest.mark.parametrize(
    "type",
    [b"\x88\x80\x00\x00", b"\x8a", b"\x89\x81\x00\x01\x01a\x22", b"\x68"],
    ids=["structure", "any", "union", "string"],
)
def test_a_million_elements(backend: SimpleNamespace, type: bytes) -> None:
    data = type + size(1_000_000) + bytes(1_000_000)
    assert limit_of(lambda: backend.codec.Codec().decode_any(data), data) == "elements"


def test_a_structure_array_of_empty_structures(backend: SimpleNamespace) -> None:
    """One byte each on the wire, an object each here."""
    data = b"\x88\x80\x00\x00" + size(262_144) + b"\x01" * 262_144
    assert limit_of(lambda: backend.codec.Codec().decode_any(data), data) == "expansion"
    roomy = Limits(expansion=100_000)
    assert len(backend.codec.Codec(limits=roomy).decode_any(data)[0].value) == 262_144


def test_elements_of_no_bytes(backend: SimpleNamespace) -> None:
    """16,000 fixed arrays of no elements: an element takes one byte on the wire."""
    n = 16_000
    element = b"\x80\x00" + size(n) + b"".join(text(b"%d" % i) + b"\x38\x00" for i in range(n))
    codec = backend.codec.Codec()
    fd, _ = codec.decode_type(b"\x88" + element)
    data = size(60) + b"\x01" * 60
    assert limit_of(lambda: codec.decode(fd, data), data) in ("expansion", "value_nodes")


@pytest.mark.parametrize("type", [b"\x3b", b"\x5b", b"\x53", b"\x83", b"\x78"], ids=bytes.hex)
def test_bounds_in_types(backend: SimpleNamespace, type: bytes) -> None:
    data = type + size(0xFFFFFFFE)
    assert limit_of(lambda: backend.codec.Codec().decode_type(data), data) in ("message", "elements")


def test_long_strings(backend: SimpleNamespace) -> None:
    data = b"\x60" + size(17 * MIB) + bytes(17 * MIB)
    assert limit_of(lambda: backend.codec.Codec().decode_any(data), data) == "string"


def test_a_bitset_of_a_megabyte(backend: SimpleNamespace) -> None:
    fd = backend.introspection.FieldDesc.of({"a": "int8"})
    data = size(MIB) + b"\xff" * MIB + b"\x05"
    value, end = backend.codec.Codec().decode_update(fd, data)
    assert end == len(data)
    assert list(value.changed) == [0, 1]


def test_limits_are_those_given(backend: SimpleNamespace) -> None:
    few = Limits(type_nodes=3, elements=2, string=5, value_nodes=4)
    deep = nested(3)
    shallow = backend.codec.Codec(limits=Limits(depth=2))
    assert limit_of(lambda: shallow.decode_type(deep), deep) == "depth"
    for data, limit in ((b"\x80\x00\x03\x01a\x22\x01b\x22\x01c\x22", "type_nodes"),):
        assert limit_of(lambda data=data: backend.codec.Codec(limits=few).decode_type(data), data) == limit
    for data, limit in (
        (b"\x68\x03\x00\x00\x00", "elements"),
        (b"\x60\x06abcdef", "string"),
        (b"\x8a\x02" + b"\x01\x82\x20\x01" * 2, "value_nodes"),
    ):
        assert limit_of(lambda data=data: backend.codec.Codec(limits=few).decode_any(data), data) == limit

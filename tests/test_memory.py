"""Memory for one message: at most 128 times its bytes and 1 MiB, whatever small objects it is made of.

Each case packs one kind of object as densely as the wire allows; it may be refused, but by Limits.expansion only.
"""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import pytest

import wire
from pvafast.errors import LimitExceeded
from pvafast.limits import Limits

N = 12_000
EMPTY = wire.structure()
NESTED = wire.Compound("union", "", (("x", EMPTY),))
UNION = wire.Compound(
    "union", "", (("a", "int8"), ("b", NESTED), ("c", EMPTY), ("d", "string[0]"), ("e", "int8[0]"))
)


def many(spec: Any, count: int = 20) -> Any:
    return wire.Compound("struct", "", tuple((str(i), spec) for i in range(count)))


def array_of(spec: Any) -> Any:
    return spec._replace(kind=f"{spec.kind}[]")


def number(i: int) -> bytes:
    return wire.pack("H", i, "little")


# What, its type, the bytes of one element of an array of it, how many elements.
VALUES: list[tuple[str, Any, bytes, int]] = [
    ("empty structures", array_of(EMPTY), b"\x01", N),
    ("null structures", array_of(EMPTY), b"\x00", N),
    ("small integers", array_of(many("int8", 1)), b"\x01\x80", N),
    ("one-byte strings", array_of(many("string", 1)), b"\x01\x01\x80", N),
    ("empty arrays", array_of(many("int8[]", 1)), b"\x01\x00", N),
    ("one-byte arrays", array_of(many("int8[]", 1)), b"\x01\x01\x80", N),
    ("one-bool arrays", array_of(many("bool[]", 1)), b"\x01\x01\x02", N),
    ("empty lists", array_of(many("string[]", 1)), b"\x01\x00", N),
    ("one-string lists", array_of(many("string[]", 1)), b"\x01\x01\x00", N),
    ("20 strings each", array_of(many("string")), b"\x01" + b"\x01\x80" * 20, N // 10),
    ("20 arrays each", array_of(many("int8[]")), b"\x01" + b"\x01\x80" * 20, N // 10),
    ("20 lists each", array_of(many("string[]")), b"\x01" + b"\x01\x00" * 20, N // 10),
    ("20 null anys each", array_of(many("any")), b"\x01" + b"\xff" * 20, N // 10),
    ("20 structure arrays each", array_of(many(array_of(EMPTY))), b"\x01" + b"\x01\x00" * 20, N // 10),
    ("20 unions each", array_of(many(UNION)), b"\x01" + b"\x00\x80" * 20, N // 10),
    ("20 unions of nothing each", array_of(many(UNION)), b"\x01" + b"\x02" * 20, N // 10),
    ("unions", array_of(UNION), b"\x01\x00\x80", N),
    ("unions in unions", array_of(UNION), b"\x01\x01\xff", N),
    ("unions of structures", array_of(UNION), b"\x01\x02", N),
    ("unions of fixed lists", array_of(UNION), b"\x01\x03", N),
    ("unions of fixed arrays", array_of(UNION), b"\x01\x04", N),
    ("anys", "any[]", b"\x01\x20\x80", N),
    ("anys of arrays", "any[]", b"\x01\x28\x01\x80", N),
    ("anys in anys", "any[]", b"\x01\x82\xff", N),
    ("anys of bounded types", "any[]", b"\x01\x30\x05\x00", N),
    ("anys of structures", "any[]", b"\x01\x80\x00\x00", N),
    ("anys of nested structures", "any[]", b"\x01\x80\x00\x01\x01a\x80\x00\x00", N),
    ("anys of structure arrays", "any[]", b"\x01\x88\x80\x00\x00\x01\x01", N),
    ("anys of unions", "any[]", b"\x01\x81\x00\x00\xff", N),
    ("strings", "string[]", b"\x01\x80", N),
    ("empty strings", "string[]", b"\x00", N),
    ("wide strings", "string[]", b"\x05\xf0\x9f\x98\x80\x80", N),
]


def held(work: Any, data: bytes) -> None:
    """Run within the memory that the bytes allow."""
    tracemalloc.start()
    try:
        try:
            work()
        except LimitExceeded as error:
            assert error.limit == "expansion"  # noqa: PT017 - it may pass, too
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 128 * len(data) + (1 << 20)


@pytest.mark.parametrize(
    ("spec", "element", "n"), [case[1:] for case in VALUES], ids=[case[0] for case in VALUES]
)
def test_small_objects(backend: SimpleNamespace, spec: Any, element: bytes, n: int) -> None:
    fd = wire.build(backend, spec)
    data = wire.size(n) + element * n
    limits = Limits(value_nodes=100_000_000)
    backend.codec.Codec().decode(fd, b"\x00")
    held(lambda: backend.codec.Codec(limits=limits).decode(fd, data), data)
    typed = wire.desc(spec) + data
    held(lambda: backend.codec.Codec(limits=limits).decode_any(typed), typed)


@pytest.mark.parametrize(
    ("type", "value"),
    [(b"\x20", b"\x00"), (b"\x80\x00\x00", b""), (b"\x80\x00\x01\x01a\x80\x00\x00", b"")],
    ids=["scalar", "structure", "nested"],
)
@pytest.mark.parametrize("ids", [1, 16])
def test_type_ids(backend: SimpleNamespace, type: bytes, value: bytes, ids: int) -> None:
    fd = backend.introspection.FieldDesc.of("any[]")
    n = N // ids
    elements = [
        b"\x01" + b"".join(b"\xfd" + number(i * ids + k) for k in range(ids)) + type + value for i in range(n)
    ]
    defining = wire.size(n) + b"".join(elements)
    held(lambda: backend.codec.Codec().decode(fd, defining), defining)
    referring = wire.size(n) + elements[0] + (b"\x01\xfe\x00\x00" + value) * (n - 1)
    held(lambda: backend.codec.Codec().decode(fd, referring), referring)


@pytest.mark.parametrize("code", [b"\x80", b"\x81"], ids=["structure", "union"])
@pytest.mark.parametrize(
    "member",
    [b"\x20", b"\x82", b"\x30\x05", b"\x80\x00\x00", b"\x81\x00\x00", b"\x88\x80\x00\x00"],
    ids=bytes.hex,
)
def test_types(backend: SimpleNamespace, code: bytes, member: bytes) -> None:
    """Described, laid out and used."""
    n = 8_000
    data = code + b"\x00" + wire.size(n) + b"".join(wire.string(str(i)) + member for i in range(n))

    def work() -> None:
        codec = backend.codec.Codec()
        fd, _ = codec.decode_type(data)
        codec.decode_update(fd, b"\x00")

    held(work, data)


def test_structures_that_all_have_a_plan(backend: SimpleNamespace) -> None:
    n = 7_000
    names = [wire.string(str(i)) for i in range(n)]
    inside = b"\x80\x00" + wire.size(n) + b"".join(name + b"\x88\x80\x00\x00" for name in names)
    for data in (
        inside + b"\x01\x01" * n,
        b"\x89\x81"
        + inside[1:].replace(b"\x88\x80", b"\x80")
        + wire.size(n)
        + b"".join(b"\x01" + wire.size(i) for i in range(n)),
    ):
        held(lambda data=data: backend.codec.Codec().decode_any(data), data)


def test_references_that_describe_much(backend: SimpleNamespace) -> None:
    """Types of 16,000 nodes of no bytes, a few bytes each."""
    data = b"\xfd\x01\x00\x80\x00\x02\x01a\x38\x00\x01b\x38\x00"
    for i in range(2, 14):
        data = b"\xfd" + number(i) + b"\x80\x00\x02\x01a" + data + b"\x01b\xfe" + number(i - 1)
    for tail in (b"", b"\x00" * 100):
        held(lambda tail=tail: backend.codec.Codec().decode_any(data + tail), data + tail)
    several = wire.size(2) + b"\x01" + data + b"\x01\xfe\x0d\x00"
    held(lambda: backend.codec.Codec().decode(backend.introspection.FieldDesc.of("any[]"), several), several)


def test_long_names(backend: SimpleNamespace) -> None:
    """19 levels of long names, and 1,000 leaves whose dotted names would repeat them all."""
    name = wire.string("x" * 10_000)
    leaves = b"\x80\x00" + wire.size(1_000) + b"".join(wire.string(str(i)) + b"\x20" for i in range(1_000))
    data = (b"\x80\x00\x01" + name) * 19 + leaves
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceeded) as caught:
            backend.codec.Codec().decode_type(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.limit == "string"
    assert peak <= 128 * len(data) + (1 << 20)


@pytest.mark.parametrize("order", wire.ORDERS)
def test_long_bitsets(backend: SimpleNamespace, order: str) -> None:
    n = 1 << 20
    data = wire.size(n, order) + b"\xff" * n + b"\x00"
    fd = backend.introspection.FieldDesc.of({"a": "int8"})
    held(lambda: backend.bitset.BitSet.decode(data, byteorder=order), data)
    held(lambda: backend.codec.Codec().decode_update(fd, data, byteorder=order), data)


def test_what_is_usual_is_not_refused(backend: SimpleNamespace) -> None:
    """Large tables, attributes and arrays of structures, as servers send them."""
    of = backend.introspection.FieldDesc
    dimension = of.of(
        {"size": "int32", "offset": "int32", "fullSize": "int32", "binning": "int32", "reverse": "bool"}
    )
    attribute = of.of(
        {"name": "string", "value": "any", "descriptor": "string", "sourceType": "int32", "source": "string"}
    )
    codec = backend.codec.Codec()
    for fd, item in (
        (dimension, {"size": 5}),
        (attribute, {"name": "ColorMode", "value": 2, "descriptor": "d", "source": "s"}),
        (of.of({"x": "int8"}), {"x": -100}),
        (of.of({"x": "string"}), {"x": ""}),
        (of.of({"x": "double[]"}), {"x": [1.5]}),
    ):
        raw = codec.encode([item] * 20_000, fd.array())
        made, end = codec.decode(fd.array(), raw)
        assert (len(made), end) == (20_000, len(raw))

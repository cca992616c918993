"""Values on the wire, full and masked, in all the forms that peers send, and the canonical ones that we send (WIRE 6.3, 6.4)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import wire
from pvafast.errors import DecodeError, EncodeError, LocalProtocolError

POINT = wire.structure("p", x="int8", y="int8")
CHOICE = wire.Compound("union", "", (("n", "int16"), ("t", "string"), ("p", POINT)))
CHOICES = CHOICE._replace(kind="union[]")
POINTS = POINT._replace(kind="struct[]")


def decode(backend: SimpleNamespace, spec: Any, raw: str, order: str = "little") -> Any:
    data = bytes.fromhex(raw)
    made, end = backend.codec.Codec().decode(wire.build(backend, spec), data, byteorder=order)
    assert end == len(data)
    return made


# What is not canonical: how it may come, what it means, how it goes out.
FORMS = [
    ("bool", "02", True, "01"),
    ("bool", "ff", True, "01"),
    ("string", "ff", "", "00"),
    ("string", "fe0100000061", "a", "0161"),
    ("int8[]", "fe020000000102", [1, 2], "020102"),
    ("bool[]", "020002", [False, True], "020001"),
    ("string[]", "02ffff", ["", ""], "020000"),
    (CHOICE, "ff", None, "ff"),
    (CHOICE, "fe000000000500", wire.Chosen("n", 5), "000500"),
    (CHOICES, "03" + "00" + "01ff" + "05010161", [None, None, wire.Chosen("t", "a")], "030000" + "01010161"),
    (POINTS, "0200" + "070102", [None, {"x": 1, "y": 2}], "0200" + "010102"),
    ("any", "ff", None, "ff"),
    ("any", "20" + "05", wire.Typed("int8", 5), "2005"),
    ("any[]", "03" + "00" + "01ff" + "0282ff", [None, None, wire.Typed("any", None)], "030000" + "0182ff"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "raw", "x", "canonical"), FORMS)
def test_forms(backend: SimpleNamespace, spec: Any, raw: str, x: Any, canonical: str) -> None:
    made = decode(backend, spec, raw)
    assert wire.plain(made) == wire.expected(backend, spec, x)
    assert backend.codec.Codec().encode(made, wire.build(backend, spec)).hex() == canonical
    assert wire.value(spec, x).hex() == canonical


def test_selectors(backend: SimpleNamespace) -> None:
    fd = wire.build(backend, CHOICE)
    with pytest.raises(DecodeError, match="union selector 3 of 3 members at offset 0"):
        backend.codec.Codec().decode(fd, b"\x03\x00\x00\x00")
    with pytest.raises(DecodeError, match=r"int8 needs 1 bytes, 0 left at `p\.y`, offset 2"):
        backend.codec.Codec().decode(fd, b"\x02\x01")
    none = backend.introspection.FieldDesc.union()
    assert backend.codec.Codec().decode(none, b"\xff") == (None, 1)
    with pytest.raises(DecodeError, match="union selector 0 of 0 members"):
        backend.codec.Codec().decode(none, b"\x00")
    wide = backend.introspection.FieldDesc.union("", {str(i): "int8" for i in range(300)})
    for order in wire.ORDERS:
        raw = wire.size(299, order) + b"\x07"
        made, end = backend.codec.Codec().decode(wide, raw, byteorder=order)
        assert (made, end) == (backend.value.UnionValue("299", 7), 6)
        assert backend.codec.Codec().encode(made, wide, byteorder=order) == raw


def test_where_a_fault_lies(backend: SimpleNamespace) -> None:
    """Path and offset of the item at fault, through every kind of nesting."""
    rows = wire.Compound("struct[]", "", (("u", wire.Compound("union[]", "", CHOICE.members)), ("a", "any")))
    spec = wire.structure(top=wire.structure(n="int8", rows=rows))
    fd = wire.build(backend, spec)
    # n, 2 rows: null; one of a union array with a point that lacks its y.
    with pytest.raises(DecodeError) as caught:
        backend.codec.Codec().decode(
            fd, bytes.fromhex("05" + "02" + "00" + "01" + "02" + "00" + "01" + "02" + "01")
        )
    assert str(caught.value) == "int8 needs 1 bytes, 0 left at `top.rows[1].u[1].p.y`, offset 9"
    # n, 1 row: no unions, an any of a structure array whose second element has a bad selector.
    inner = wire.desc(wire.structure(q=wire.Compound("struct[]", "", (("w", CHOICE),))))
    raw = bytes.fromhex("05" + "01" + "01" + "00") + inner + bytes.fromhex("02" + "01ff" + "0105")
    with pytest.raises(DecodeError) as caught:
        backend.codec.Codec().decode(fd, raw)
    assert (
        str(caught.value) == f"union selector 5 of 3 members at `top.rows[0].a.q[1].w`, offset {len(raw) - 1}"
    )
    # The type inside of an any.
    with pytest.raises(DecodeError) as caught:
        backend.codec.Codec().decode(
            fd, bytes.fromhex("05" + "01" + "01" + "00" + "80000201" + "6d" + "20" + "016e" + "07")
        )
    assert str(caught.value) == "unknown type code 0x07 at `top.rows[0].a.n`, offset 12"


TREE = wire.structure(a="int8", s=wire.structure(b="int8", t=wire.structure(c="int8", d="int8")), e="int8")
# 0 root, 1 a, 2 s, 3 b, 4 t, 5 c, 6 d, 7 e


@pytest.mark.parametrize(
    ("bits", "data", "seen"),
    [
        ([], "", {}),
        ([0], "0102030405", {"a": 1, "s.b": 2, "s.t.c": 3, "s.t.d": 4, "e": 5}),
        ([0, 1, 5, 7], "0102030405", {"a": 1, "s.b": 2, "s.t.c": 3, "s.t.d": 4, "e": 5}),
        ([2], "020304", {"s.b": 2, "s.t.c": 3, "s.t.d": 4}),
        ([2, 3, 6], "020304", {"s.b": 2, "s.t.c": 3, "s.t.d": 4}),
        ([4, 7], "030405", {"s.t.c": 3, "s.t.d": 4, "e": 5}),
        ([1, 6], "0104", {"a": 1, "s.t.d": 4}),
        ([3, 4, 5], "020304", {"s.b": 2, "s.t.c": 3, "s.t.d": 4}),
    ],
)
def test_masks(backend: SimpleNamespace, bits: list[int], data: str, seen: dict[str, int]) -> None:
    fd = wire.build(backend, TREE)
    raw = wire.bitset(bits) + bytes.fromhex(data)
    codec = backend.codec.Codec()
    made, end = codec.decode_update(fd, raw + b"\x63")
    assert end == len(raw)
    leaves = ("a", "s.b", "s.t.c", "s.t.d", "e")
    assert {name: made[name] for name in leaves} == {**dict.fromkeys(leaves, 0), **seen}
    assert made.changed_names() == list(seen)
    assert list(made.changed) == bits
    assert codec.encode_update(made) == raw
    # Over a base: the others are those of the base.
    base = backend.value.Value(fd, {"a": 91, "s": {"b": 92, "t": {"c": 93, "d": 94}}, "e": 95})
    was = wire.plain(base)
    over, _ = codec.decode_update(fd, raw, base=base)
    assert {name: over[name] for name in leaves} == {
        "a": 91,
        "s.b": 92,
        "s.t.c": 93,
        "s.t.d": 94,
        "e": 95,
        **seen,
    }
    assert list(over.changed) == bits
    assert wire.plain(base) == was
    over["s.t.d"] = 7
    assert wire.plain(base) == was


def test_bits_beyond_and_untrimmed(backend: SimpleNamespace) -> None:
    fd = wire.build(backend, TREE)
    for order, raw in (
        ("little", "03" + "82ff00" + "0105"),
        ("little", "09" + "82" + "ff" * 8 + "0105"),
        ("big", "08" + "ff" * 7 + "82" + "0105"),
        ("big", "02" + "82ff" + "0105"),
        ("big", "fe00000009" + "00" * 7 + "82" + "ff" + "0105"),
    ):
        made, end = backend.codec.Codec().decode_update(fd, bytes.fromhex(raw), byteorder=order)
        assert end == len(raw) // 2
        assert list(made.changed) == [1, 7]
        assert (made["a"], made["e"]) == (1, 5)
        assert backend.codec.Codec().encode_update(made, byteorder=order).hex() == "0182" + "0105"


@pytest.mark.parametrize("order", wire.ORDERS)
@pytest.mark.parametrize("count", [62, 63, 64, 65, 127, 128, 129, 300])
def test_wide_structures(backend: SimpleNamespace, order: str, count: int) -> None:
    """Words and their ends: with `count` leaves there are count + 1 bits."""
    spec = wire.structure(**{f"m{i}": "uint16" for i in range(count)})
    fd = wire.build(backend, spec)
    x = {f"m{i}": 1000 + i for i in range(count)}
    for bits in (
        {count},
        {1, count},
        set(range(1, count + 1)),
        set(range(1, count + 1, 3)),
        {63, 64} & set(range(count + 1)),
    ):
        raw = wire.update(spec, x, bits, order)
        made, end = backend.codec.Codec().decode_update(fd, raw, byteorder=order)
        assert end == len(raw)
        assert set(made.changed) == bits
        assert {i: made[f"m{i - 1}"] for i in bits} == {i: 999 + i for i in bits}
        assert backend.codec.Codec().encode_update(made, byteorder=order) == raw
        fresh = backend.value.Value(fd, {f"m{i - 1}": 999 + i for i in bits})
        assert backend.codec.Codec().encode_update(fresh, byteorder=order) == raw


def test_the_redundant_bits_of_qsrv(backend: SimpleNamespace) -> None:
    """WIRE 6.4: `04 81 FB 32 1E`, then one full structure."""
    spec = wire.structure(**{f"m{i}": "int8" for i in range(30)})
    raw = bytes.fromhex("0481fb321e") + bytes(range(30))
    made, end = backend.codec.Codec().decode_update(wire.build(backend, spec), raw)
    assert end == len(raw)
    assert [made[f"m{i}"] for i in range(30)] == list(range(30))
    assert made.changed.encode().hex() == "0481fb321e"
    assert len(made.changed_names()) == 30


def test_updates_of_leaves_that_travel_whole(backend: SimpleNamespace) -> None:
    spec = wire.structure(
        u=CHOICE, n="any", s=wire.Compound("struct[]", "", POINT.members), e=wire.structure()
    )
    # 0 root, 1 u, 2 n, 3 s, 4 e: neither the union nor the array is entered.
    fd = wire.build(backend, spec)
    assert len(fd) == 5
    x = {
        "u": wire.Chosen("p", {"x": 1, "y": 2}),
        "n": wire.Typed(POINT, {"x": 3, "y": 4}),
        "s": [None, {"x": 5, "y": 6}],
        "e": {},
    }
    for bits in ({1}, {2}, {3}, {4}, {1, 2, 3, 4}, {0}):
        raw = wire.update(spec, x, bits)
        made, end = backend.codec.Codec().decode_update(fd, raw)
        assert end == len(raw)
        assert backend.codec.Codec().encode_update(made) == raw
    assert wire.plain(made) == wire.expected(backend, spec, x)
    # An empty structure has a bit but no data.
    assert backend.codec.Codec().decode_update(fd, b"\x01\x10")[1] == 2


def test_a_root_that_is_no_structure(backend: SimpleNamespace) -> None:
    codec = backend.codec.Codec()
    for spec, x in (
        ("int16", 5),
        ("double[]", [1.0, 2.0]),
        (CHOICE, wire.Chosen("t", "a")),
        ("any", wire.Typed("int8", 5)),
    ):
        fd = wire.build(backend, spec)
        raw = b"\x01\x01" + wire.value(spec, x)
        made, end = codec.decode_update(fd, raw)
        assert end == len(raw)
        assert wire.plain(made[""]) == wire.expected(backend, spec, x)
        assert (list(made.changed), made.changed_names()) == ([0], [""])
        assert (list(made), len(made), bool(made)) == ([], 0, True)
        assert codec.encode_update(made) == raw
        assert codec.encode(made) == wire.value(spec, x)
        assert made == made.copy()
        kept, _ = codec.decode_update(fd, b"\x00", base=made)
        assert wire.plain(kept[""]) == wire.plain(made[""])
        assert not kept.changed
    with pytest.raises(DecodeError) as caught:
        codec.decode_update(wire.build(backend, CHOICE), b"\x01\x01\x02\x01")
    assert caught.value.path == "p.y"


def test_faults_in_a_mask(backend: SimpleNamespace) -> None:
    fd = wire.build(backend, TREE)
    for raw, text in (
        ("", "Size needs 1 bytes, 0 left at `changed`, offset 0"),
        ("ff", "null Size where a count is needed at `changed`, offset 0"),
        ("0201", "BitSet of 2 bytes needs 2 bytes, 1 left at `changed`, offset 1"),
        ("0140", "int8 needs 1 bytes, 0 left at `s.t.d`, offset 2"),
        ("0104" + "02", "int8 needs 1 bytes, 0 left at `s.t.c`, offset 3"),
    ):
        with pytest.raises(DecodeError) as caught:
            backend.codec.Codec().decode_update(fd, bytes.fromhex(raw))
        assert str(caught.value) == text


def test_parts_of_an_update(backend: SimpleNamespace) -> None:
    """A sub-structure of an update is one in its own numbering; what is around it counts for it."""
    fd = wire.build(backend, TREE)
    codec = backend.codec.Codec()
    whole, _ = codec.decode_update(fd, bytes.fromhex("0101" + "0102030405"))
    part = whole["s"]
    assert list(part.changed) == [0]
    assert part.changed_names() == ["b", "t.c", "t.d"]
    assert codec.encode_update(part).hex() == "0101" + "020304"
    assert codec.encode(part).hex() == "020304"
    target = backend.value.Value(fd)
    target["s"].overlay(part)
    assert target.changed_names() == ["s.b", "s.t.c", "s.t.d"]
    assert target["s"] == part
    assert list(part.copy().changed) == [0]
    some, _ = codec.decode_update(fd, bytes.fromhex("0142" + "0104"))
    assert list(some["s"].changed) == [4]
    assert some["s"].changed_names() == ["t.d"]
    assert codec.encode_update(some["s"]).hex() == "0110" + "04"
    assert codec.encode_update(some["s.t"]).hex() == "0104" + "04"
    # A base may be a part, too.
    made, _ = codec.decode_update(fd["s"], b"\x01\x02\x09", base=part)
    assert made.to_dict() == {"b": 9, "t": {"c": 3, "d": 4}}
    assert part["b"] == 2


def test_what_is_refused(backend: SimpleNamespace) -> None:
    fd = wire.build(backend, TREE)
    codec = backend.codec.Codec()
    with pytest.raises(LocalProtocolError, match="base is a Value of another type"):
        codec.decode_update(fd, b"\x00", base=backend.value.Value(fd["s"]))
    with pytest.raises(EncodeError, match="structure of another type"):
        codec.encode(backend.value.Value(fd["s"]), fd)
    assert codec.decode_update(fd, b"\x00", base=None)[1] == 1
    again = wire.build(backend, TREE)  # equal, another object
    assert codec.decode_update(again, b"\x00", base=backend.value.Value(fd, {"a": 5}))[0]["a"] == 5


def test_every_parameter_by_name(backend: SimpleNamespace) -> None:
    codec = backend.codec.Codec()
    of = backend.introspection.FieldDesc.of
    fd = of({"a": "int16"})
    data = b"??\x01\x02\x01\x00??"
    made, end = codec.decode_update(
        type=fd, data=data, offset=2, end=6, base=None, byteorder="little", aligned=False
    )
    assert (made["a"], end) == (1, 6)
    assert codec.decode(type=fd, data=data, offset=4, end=6, byteorder="big", aligned=True)[0]["a"] == 256
    assert codec.decode_type(data=b"?\x22", offset=1, end=2, byteorder="big") == (of("int32"), 2)
    assert codec.decode_any(data=b"?\x20\x05", offset=1, end=3, byteorder="big", aligned=True)[0].value == 5
    assert codec.encode_type(type=of("int32"), byteorder="big") == b"\x22"
    assert codec.encode(value=5, type=of("int16"), byteorder="big") == b"\x00\x05"
    assert codec.encode_update(value=made, byteorder="big") == b"\x01\x02\x00\x01"
    assert codec.encode_any(value=backend.value.AnyValue("int8", 5), byteorder="big") == b"\x20\x05"
    w = backend.buffer.Writer("big")
    codec.write_type(type=fd, writer=w)
    codec.write(value=made, writer=w, type=None)
    codec.write_update(value=made, writer=w)
    codec.write_any(value=None, writer=w)
    raw = w.take()
    assert raw == wire.desc(wire.structure(a="int16")) + b"\x00\x01" + b"\x01\x02\x00\x01" + b"\xff"
    r = backend.buffer.Reader(raw, byteorder="big")
    assert codec.read_type(reader=r) == fd
    assert codec.read(type=fd, reader=r)["a"] == 1
    assert codec.read_update(type=fd, reader=r, base=None)["a"] == 1
    assert codec.read_any(reader=r) is None
    assert r.left == 0

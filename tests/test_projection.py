"""Projection: the fields named are those of decoding the whole; the rest is skipped, and checked all the same."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pvafast
import strategies
import wire
from pvafast import ElementColumns
from pvafast._valuejson import Form
from pvafast._valuetext import delta_lines, format_tree, text_of
from pvafast.errors import DecodeError, EncodeError, LimitExceeded, LocalProtocolError
from pvafast.limits import Limits
from test_properties import LIMITS, TAIL, cut_points

NT = wire.structure(
    "epics:nt/NTScalar:1.0",
    value="double",
    alarm=wire.structure("alarm_t", severity="int32", status="int32", message="string"),
    timeStamp=wire.structure("time_t", secondsPastEpoch="int64", nanoseconds="int32", userTag="int32"),
)
# 0 root, 1 value, 2 alarm, 3..5 its members, 6 timeStamp, 7..9 its members.
FULL = struct.pack("<dii", 1.5, 2, 3) + b"\x02hi" + struct.pack("<qii", 1_700_000_000, 5, 6)
POINT = (("id", "int32"), ("x", "double"), ("ok", "bool"), ("name", "string"), ("w", "uint16[]"))
POINTS = wire.structure(n="int16", data=wire.Compound("struct[]", "", POINT), tail="string")


def projected(backend: SimpleNamespace, spec: Any, *fields: Any) -> Any:
    return backend.projection.Projection(wire.build(backend, spec), fields)


def test_a_full_value(backend: SimpleNamespace) -> None:
    p = projected(backend, NT, "value", "alarm.severity", "timeStamp")
    assert p.fields == (
        *("value", "alarm.severity"),
        *(f"timeStamp.{name}" for name in ("secondsPastEpoch", "nanoseconds", "userTag")),
    )
    made, end = backend.codec.Codec().decode(p, FULL)
    assert end == len(FULL)
    assert type(made) is backend.value.Value
    assert made.type is p.type
    assert made.to_dict() == {
        "value": 1.5,
        "alarm": {"severity": 2, "status": 0, "message": ""},
        "timeStamp": {"secondsPastEpoch": 1_700_000_000, "nanoseconds": 5, "userTag": 6},
    }


def test_updates(backend: SimpleNamespace) -> None:
    p = projected(backend, NT, "value", "alarm.message")
    codec = backend.codec.Codec()
    first, end = codec.decode_update(p, b"\x01\x01" + FULL)
    assert end == 2 + len(FULL)
    assert (first["value"], first["alarm.message"], first["alarm.severity"]) == (1.5, "hi", 0)
    assert list(first.changed) == [1, 5]
    # severity and nanoseconds: nothing that is named.
    second, end = codec.decode_update(p, bytes.fromhex("020801 09000000 0a000000"), base=first)
    assert end == 11
    assert (second["value"], second["alarm.message"], second["alarm.severity"]) == (1.5, "hi", 0)
    assert list(second.changed) == []
    third, _ = codec.decode_update(p, b"\x02\x02\x03" + struct.pack("<dqii", 2.5, 7, 8, 9), base=second)
    assert (third["value"], list(third.changed), third.changed_names()) == (2.5, [1], ["value"])
    assert codec.encode_update(third).hex() == "0102" + struct.pack("<d", 2.5).hex()
    # Fields of a base that are not named are not taken over, nor is it touched.
    whole, _ = codec.decode_update(p.type, b"\x01\x01" + FULL)
    kept, _ = codec.decode_update(p, b"\x00", base=whole)
    assert (kept["value"], kept["alarm.severity"], kept["timeStamp.userTag"]) == (1.5, 0, 0)
    assert whole["alarm.severity"] == 2
    with pytest.raises(LocalProtocolError, match="base is a Value of another type"):
        codec.decode_update(p, b"\x00", base=backend.value.Value({"a": "int8"}))


def test_a_monitor_update(backend: SimpleNamespace) -> None:
    p = projected(backend, NT, "alarm")
    data = b"????" + struct.pack("<IB", 7, 0) + b"\x01\x01" + FULL + b"\x01\x02"
    message = backend.framing.Message(flags=0x40, command=13, data=data, start=4)
    update, overrun, end = backend.codec.Codec().decode_monitor(p, message)
    assert update["alarm"].to_dict() == {"severity": 2, "status": 3, "message": "hi"}
    assert (list(update.changed), list(overrun), end) == ([3, 4, 5], [1], len(data))
    cut = backend.framing.Message(flags=0x40, command=13, data=data[:20], start=4)
    with pytest.raises(DecodeError) as caught:
        backend.codec.Codec().decode_monitor(p, cut)
    assert str(caught.value) == "int32 needs 4 bytes, 1 left at `value.alarm.severity`, offset 15"


def test_a_reader(backend: SimpleNamespace) -> None:
    p = projected(backend, NT, "value")
    r = backend.buffer.Reader(FULL + b"\x01\x01" + FULL + b"?")
    codec = backend.codec.Codec()
    assert codec.read(p, r)["value"] == codec.read_update(p, r)["value"] == 1.5
    assert r.left == 1


def points(order: str = "little") -> tuple[list[Any], bytes]:
    rows: list[Any] = [
        {"id": 1, "x": 0.5, "ok": True, "name": "a", "w": [1]},
        None,
        {"id": -3, "x": -1.5, "ok": False, "name": "ccc", "w": []},
    ]
    return rows, wire.value(POINTS, {"n": 7, "data": rows, "tail": "end"}, order)


@pytest.mark.parametrize("order", wire.ORDERS)
def test_columns(backend: SimpleNamespace, order: str) -> None:
    _, raw = points(order)
    p = projected(backend, POINTS, "data.id", "data.x", "data.ok", "data.name", "data.w", "tail")
    assert p.fields == ("data.id", "data.x", "data.ok", "data.name", "data.w", "tail")
    made, end = backend.codec.Codec().decode(p, raw, byteorder=order)
    assert end == len(raw)
    assert (made["n"], made["tail"]) == (0, "end")
    data = made["data"]
    assert type(data) is ElementColumns
    assert len(data) == 3
    assert data.fields == data.keys() == ("id", "x", "ok", "name", "w")
    assert data.present.tolist() == [True, False, True]
    for name, dtype, column in (
        ("id", "i4", [1, 0, -3]),
        ("x", "f8", [0.5, 0.0, -1.5]),
        ("ok", "?", [True, False, False]),
    ):
        assert data[name].dtype == np.dtype(dtype)
        assert data[name].tolist() == column
    assert data["name"] == ["a", None, "ccc"]
    assert [None if w is None else (w.dtype.str, w.tolist()) for w in data["w"]] == [
        ("<u2", [1]),
        None,
        ("<u2", []),
    ]
    for column in (data.present, data["x"]):
        assert column.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0
    assert list(dict(data)) == list(data.fields)
    # The array named itself comes as ever, also beside its members.
    for fields in (("data",), ("data.x", "data"), ("",)):
        whole, _ = backend.codec.Codec().decode(projected(backend, POINTS, *fields), raw, byteorder=order)
        assert [item and item["x"] for item in whole["data"]] == [0.5, None, -1.5]


@pytest.mark.parametrize("order", wire.ORDERS)
@pytest.mark.parametrize("n", [0, 1, 2, 3000])
@pytest.mark.parametrize("null", [False, True])
def test_columns_of_numbers(backend: SimpleNamespace, order: str, n: int, null: bool) -> None:
    """Elements of nothing but numbers, which are read by strides where none is null."""
    kinds = tuple((name, name) for name in wire.NUMBERS)
    spec = wire.Compound("struct[]", "", kinds)
    rng = np.random.default_rng(n)
    columns = {
        name: np.frombuffer(rng.bytes(8 * n), np.dtype(format).newbyteorder("<"), n)
        if name != "bool"
        else rng.integers(0, 2, n).astype(bool)
        for name, format in wire.NUMBERS.items()
    }
    gone = [null and i % 3 == 1 for i in range(n)]
    raw = wire.size(n, order)
    for i in range(n):
        packed = b"".join(columns[name][i].tobytes()[:: -1 if order == "big" else 1] for name, _ in kinds)
        raw += b"\x00" if gone[i] else bytes([1 + i % 255]) + packed
    p = backend.projection.Projection(wire.build(backend, spec), [name for name, _ in kinds])
    made, end = backend.codec.Codec().decode(p, raw + b"?", byteorder=order)
    assert end == len(raw)
    assert made.present.tolist() == [not it for it in gone]
    for name in columns:
        assert made[name].dtype == columns[name].dtype.newbyteorder("=")
        expected = np.where(gone, np.zeros(n, columns[name].dtype), columns[name]).astype(made[name].dtype)
        assert made[name].tobytes() == expected.tobytes(), name
    some, _ = backend.codec.Codec().decode(
        backend.projection.Projection(wire.build(backend, spec), ["float", "int8"]), raw, byteorder=order
    )
    assert some.fields == ("int8", "float")
    assert some["float"].tobytes() == made["float"].tobytes()


def test_what_columns_are(backend: SimpleNamespace) -> None:
    _, raw = points()
    codec = backend.codec.Codec()
    p = projected(backend, POINTS, "data.x", "data.name", "n")
    made, _ = codec.decode(p, raw)
    again, _ = codec.decode(p, raw)
    data = made["data"]
    assert made == again
    assert made != codec.decode(projected(backend, POINTS, "data.x", "n"), raw)[0]
    assert data != 5
    assert "x" in data and "id" not in data  # noqa: PT018
    with pytest.raises(KeyError):
        data["id"]
    with pytest.raises(TypeError):
        iter(data)
    with pytest.raises(AttributeError, match="frozen"):
        data.present = None
    with pytest.raises(AttributeError, match="frozen"):
        del data.fields
    with pytest.raises(TypeError):
        hash(data)
    assert bool(codec.decode(p, wire.value(POINTS, {"n": 1, "data": [], "tail": ""}))[0]["data"]) is True
    assert repr(data) == "<ElementColumns of 3: x, name>"
    assert str(made).splitlines()[2:6] == [
        "    struct[] data = {3} columns {",
        "        double x = {3}[0.5, 0, -1.5]",
        "        string name = {3}['a', None, 'ccc']",
        "    }",
    ]
    assert format_tree(made, 2).splitlines()[3].strip() == "double x = {3}[0.5, 0, ...]"
    fd = made.type
    assert list(map(text_of, delta_lines(made, backend.bitset.BitSet([fd.index("data")])))) == [
        "double data[].x = {3}[0.5, 0, -1.5]",
        "string data[].name = {3}['a', None, 'ccc']",
    ]
    assert Form().leaf(data) == {
        "present": [True, False, True],
        "columns": {"x": [0.5, 0.0, -1.5], "name": ["a", None, "ccc"]},
    }
    copied = made.copy()
    copied["data"]["name"][0] = "changed"
    assert data["name"][0] == "a"
    assert made.to_dict()["data"] == data
    if backend.value.Value is pvafast.Value:
        back = pickle.loads(pickle.dumps(made))
        assert back == made
        assert pickle.loads(pickle.dumps(p)).fields == p.fields
    # Columns are no list of structures: nothing half is sent.
    with pytest.raises(EncodeError, match="array of structure expected, ElementColumns found at `data`"):
        codec.encode(made)
    with pytest.raises(EncodeError, match="array of structure expected, ElementColumns found at `data`"):
        backend.value.Value(p.type)["data"] = data


def test_names(backend: SimpleNamespace) -> None:
    fd = wire.build(backend, POINTS)
    projection = backend.projection.Projection
    for wrong in ("nothing", "data.nothing", "n.x", "data.w.x", "tail.", ("data", "x", "y")):
        with pytest.raises(KeyError):
            projection(fd, [wrong])
    assert projection(fd, ["n", "nothing", ("data", "x")], strict=False).fields == ("n", "data.x")
    assert projection(fd, []).fields == ()
    with pytest.raises(TypeError, match="fields are a list of names, not 'n'"):
        projection(fd, "n")
    # One structure array on the way; those inside come whole.
    deep = backend.introspection.FieldDesc.structure("", {"rows": fd.array()})
    assert projection(deep, ["rows.data"]).fields == ("rows.data",)
    with pytest.raises(KeyError):
        projection(deep, ["rows.data.x"])
    odd = wire.structure(**{"a.b": wire.Compound("struct[]", "", (("c.d", "int8"), ("e", "int8")))})
    made = projection(wire.build(backend, odd), ["a.b.c.d"])
    assert made.fields == ("a.b.c.d",)
    assert projection(made.type, [("a.b", "e")]).fields == ("a.b.e",)
    got, _ = backend.codec.Codec().decode(made, b"\x01\x01\x05\x06")
    assert got[("a.b",)]["c.d"].tolist() == [5]
    assert repr(projection(fd, ["n", "data.x"])) == f"<Projection of {fd.format('short')!r}: n, data.x>"
    assert repr(projected(backend, NT, "value")) == "<Projection of 'epics:nt/NTScalar:1.0': value>"
    with pytest.raises(AttributeError, match="frozen"):
        made.fields = ()
    with pytest.raises(AttributeError, match="frozen"):
        del made.type


def test_only_projections_and_types(backend: SimpleNamespace) -> None:
    codec = backend.codec.Codec()
    empty = backend.projection.Projection.__new__(backend.projection.Projection)
    for wrong in (None, "double", 5, empty):
        with pytest.raises((TypeError, AttributeError)):
            codec.decode(wrong, FULL)
        with pytest.raises((TypeError, AttributeError)):
            codec.decode_update(wrong, b"\x00")


def test_roots_that_are_no_structure(backend: SimpleNamespace) -> None:
    codec = backend.codec.Codec()
    p = projected(backend, "double", "")
    assert codec.decode(p, struct.pack("<d", 2.5)) == (2.5, 8)
    assert codec.decode(projected(backend, "double"), struct.pack("<d", 2.5)) == (0.0, 8)
    points = backend.projection.Projection(wire.build(backend, POINTS)["data"], ["x"])
    assert points.fields == ("x",)
    raw = wire.size(1) + b"\x01" + struct.pack("<id?", 1, 2.5, True) + b"\0\0"
    made, end = codec.decode(points, raw)
    assert (made["x"].tolist(), end) == ([2.5], len(raw))
    update, end = codec.decode_update(points, b"\x01\x01" + raw)
    assert (update[""]["x"].tolist(), list(update.changed), end) == ([2.5], [0], 2 + len(raw))


def test_skipped_anys_define_ids(backend: SimpleNamespace) -> None:
    """What a skipped any defines is known afterwards."""
    spec = wire.structure(a="any", b="any[]", n="int8")
    p = projected(backend, spec, "n")
    inner = wire.desc(wire.structure("t", x="int16"))
    raw = b"\xfd\x05\x00" + inner + b"\1\0" + b"\x02\x01\xfd\x06\x00" + inner + b"\2\0" + b"\x00" + b"\x07"
    codec = backend.codec.Codec()
    assert codec.decode(p, raw)[0]["n"] == 7
    for number in (5, 6):
        assert codec.decode_type(bytes([0xFE, number, 0]))[0].format("short") == "t{int16 x}"
    # And damage inside of a skipped description spoils the codec as ever.
    with pytest.raises(DecodeError, match="unknown type code 0x07 at `a`"):
        codec.decode(p, b"\x07")
    with pytest.raises(LocalProtocolError, match="its type ids are unknown"):
        codec.decode(p, raw)


def test_long_sizes_are_skipped(backend: SimpleNamespace) -> None:
    """Strings and arrays whose Size takes five bytes, also of a small number, and the null string."""
    spec = wire.structure(s="string", t="string", u="string", a="int32[]", b="string[]", n="int8")
    for order in wire.ORDERS:
        raw = wire.string("x" * 300, order) + b"\xff" + b"\xfe" + wire.pack("I", 1, order) + b"y"
        raw += wire.value("int32[]", list(range(300)), order)
        raw += b"\xfe" + wire.pack("I", 2, order) + wire.string("z" * 254, order) + b"\xff" + b"\x05"
        made, end = backend.codec.Codec().decode(projected(backend, spec, "n"), raw + b"?", byteorder=order)
        assert (made["n"], end) == (5, len(raw))


# --- properties ------------------------------------------------------------------------------------------------------


@st.composite
def chosen(draw: Any, spec: Any) -> list[tuple[str, ...]]:
    """Exact paths of some nodes, also of the elements of structure arrays."""
    paths = []
    for path, at, _ in wire.nodes(spec):
        paths.append(path)
        if isinstance(at, wire.Compound) and at.kind == "struct[]":
            paths += [path + inner for inner, _, _ in wire.nodes(at.element) if inner]
    # Of two fields that have the same dotted name only one is chosen.
    unique = list({".".join(path): path for path in paths}.values())
    return draw(st.lists(st.sampled_from(unique), max_size=6))


def check(backend: SimpleNamespace, spec: Any, paths: Any, made: Any, whole: Any, came: set[int]) -> set[int]:
    """That `made` holds what `whole` holds in the fields named, of the nodes `came`, and zeros elsewhere; the leaves named."""
    zero = backend.value.Value(whole.type)
    found = set()
    for i, (path, at, _) in enumerate(wire.nodes(spec)):
        if isinstance(at, wire.Compound) and at.kind == "struct":
            continue
        inner = [it[len(path) :] for it in paths if it[: len(path)] == path and len(it) > len(path)]
        if any(it == path[: len(it)] for it in paths):
            found.add(i)
            assert wire.plain(made[path]) == wire.plain(whole[path])
        elif inner:
            found.add(i)
            if i in came:
                check_columns(at.element, inner, made[path], whole[path])
            else:
                assert made[path] == []
        else:
            assert wire.plain(made[path]) == wire.plain(zero[path])
    return found


def check_columns(spec: Any, paths: Any, made: Any, rows: Any) -> None:
    assert made.present.tolist() == [row is not None for row in rows]
    named = [
        (path, at)
        for path, at, _ in wire.nodes(spec)
        if not (isinstance(at, wire.Compound) and at.kind == "struct")
        and any(it == path[: len(it)] for it in paths)
    ]
    assert made.fields == tuple(".".join(path) for path, _ in named)
    for path, at in named:
        column = made[".".join(path)]
        if isinstance(at, str) and at in wire.NUMBERS:
            assert column.dtype == np.dtype(wire.NUMBERS[at])
            expected = np.array([0 if row is None else row[path] for row in rows], column.dtype)
            assert column.tobytes() == expected.tobytes()
        else:
            assert wire.plain(column) == [wire.plain(None if row is None else row[path]) for row in rows]


# Structures in which structure arrays are common.
ROWS = strategies.compounds(st.just("struct[]"), strategies.LEAVES)
STRUCTURES = strategies.STRUCTURES | strategies.compounds(
    st.just("struct"), ROWS | ROWS | strategies.LEAVES | strategies.compounds(st.just("struct"), ROWS)
)


@given(spec=STRUCTURES, order=strategies.ORDERS, data=st.data())
def test_full_values(backend: SimpleNamespace, spec: Any, order: str, data: Any) -> None:
    raw = wire.value(spec, data.draw(strategies.values(spec)), order)
    paths = data.draw(chosen(spec))
    p = projected(backend, spec, *paths)
    codec = backend.codec.Codec()
    whole, _ = codec.decode(p.type, raw, byteorder=order)
    made, end = codec.decode(p, TAIL + raw + TAIL, len(TAIL), byteorder=order)
    assert end == len(TAIL) + len(raw)
    assert not made.changed
    check(backend, spec, paths, made, whole, set(range(len(p.type))))


@given(spec=STRUCTURES, order=strategies.ORDERS, data=st.data())
def test_updates_over_a_base(backend: SimpleNamespace, spec: Any, order: str, data: Any) -> None:
    paths = data.draw(chosen(spec))
    p = projected(backend, spec, *paths)
    codec = backend.codec.Codec()
    numbered = wire.nodes(spec)
    whole = made = None
    came: set[int] = set()
    for _ in range(2):
        bits = data.draw(st.sets(st.integers(0, len(numbered) - 1)))
        raw = wire.update(spec, data.draw(strategies.values(spec)), bits, order)
        whole, _ = codec.decode_update(p.type, raw, base=whole, byteorder=order)
        made, end = codec.decode_update(p, raw + TAIL, base=made, byteorder=order)
        assert end == len(raw)
        now = {k for i in bits for k in range(i, numbered[i][2])}
        came |= now
        assert set(made.changed) == check(backend, spec, paths, made, whole, came) & now


@given(spec=STRUCTURES, order=strategies.ORDERS, limits=LIMITS, data=st.data())
def test_errors_are_those_of_the_whole(
    backend: SimpleNamespace, spec: Any, order: str, limits: Limits, data: Any
) -> None:
    """Of damaged and of truncated bytes: the same error, or none."""
    x = data.draw(strategies.values(spec))
    bits = data.draw(st.sets(st.integers(0, len(wire.nodes(spec)) - 1)))
    p = projected(backend, spec, *data.draw(chosen(spec)))

    def fault(type: Any, raw: bytes, update: bool) -> Any:
        """All that the error says, or where the value ends; and whether type ids are known afterwards."""
        codec = backend.codec.Codec(limits=limits)
        found: Any
        try:
            _, found = (codec.decode_update if update else codec.decode)(type, raw, byteorder=order)
        except DecodeError as error:
            limit = error.limit if isinstance(error, LimitExceeded) else None
            found = str(error), error.reason, error.offset, error.path, limit
        try:
            return found, codec.decode_type(b"\xff")[1]
        except LocalProtocolError:
            return found, None

    for raw, update in ((wire.value(spec, x, order), False), (wire.update(spec, x, bits, order), True)):
        bad = data.draw(strategies.damaged(raw))
        for damaged in (bad, *(raw[:n] for n in cut_points(len(raw)))):
            assert fault(p, damaged, update) == fault(p.type, damaged, update)


# --- limits ----------------------------------------------------------------------------------------------------------


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


def test_null_elements_in_many_columns(backend: SimpleNamespace) -> None:
    """A byte each on the wire, 8,000 in columns."""
    n = 200_000
    spec = wire.Compound("struct[]", "", tuple((str(i), "double") for i in range(1000)))
    fd = wire.build(backend, spec)
    data = wire.size(n) + bytes(n)
    codec = backend.codec.Codec()
    assert codec.decode(fd, data)[0] == [None] * n
    few = backend.projection.Projection(fd, [str(i) for i in range(10)])
    held(lambda: codec.decode(few, data), data)
    assert codec.decode(few, data)[0]["5"].tolist() == [0.0] * n
    every = backend.projection.Projection(fd, [str(i) for i in range(1000)])
    held(lambda: codec.decode(every, data), data)
    with pytest.raises(LimitExceeded, match="objects that weigh too much") as caught:
        codec.decode(every, data)
    # 1 MiB less 64 KiB, and 128 a byte; a list of null elements takes 16 each and 40; a row 8,001 - 16.
    left = (1 << 20) - (1 << 16) + 128 * len(data) - 40 - 16 * n
    assert (caught.value.path, caught.value.offset) == (f"[{left // 7985}]", 5 + left // 7985)


@pytest.mark.parametrize("member", ["double", "string", "int8[]", "any"])
@pytest.mark.parametrize("element", [b"\1", b"\0"], ids=["present", "null"])
def test_memory(backend: SimpleNamespace, member: str, element: bytes) -> None:
    """20 columns, of elements as small as can be."""
    small = {"double": bytes(8), "string": b"\0", "int8[]": b"\0", "any": b"\xff"}[member]
    n = 10_000
    spec = wire.Compound("struct[]", "", tuple((str(i), member) for i in range(20)))
    data = wire.size(n) + (element + small * 20 if element == b"\1" else element) * n
    p = backend.projection.Projection(wire.build(backend, spec), [str(i) for i in range(20)])
    codec = backend.codec.Codec(limits=Limits(value_nodes=100_000_000))
    codec.decode(p, b"\0")
    held(lambda: codec.decode(p, data), data)


def test_no_object_for_an_element(backend: SimpleNamespace) -> None:
    """27,000 elements of six numbers into columns: nothing is allocated but these (and, by the Python twin, a few helpers)."""
    kinds = (
        ("id", "int32"),
        ("x", "double"),
        ("y", "double"),
        ("t", "int64"),
        ("s", "int16"),
        ("ok", "bool"),
    )
    n = 27_000
    spec = wire.Compound("struct[]", "", kinds)
    raw = wire.size(n) + (b"\1" + struct.pack("<iddqh?", 1, 2.0, 3.0, 4, 5, True)) * n
    p = backend.projection.Projection(wire.build(backend, spec), [name for name, _ in kinds])
    codec = backend.codec.Codec()
    codec.decode(p, raw)
    tracemalloc.start()
    try:
        made, _ = codec.decode(p, raw)
        size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    columns = n * (4 + 8 + 8 + 8 + 2 + 1 + 1)
    assert made["x"].tolist() == [2.0] * n
    assert columns <= size <= columns + 10_000
    assert peak <= columns + 64_000

"""Columns: a row for each update, carried forward where nothing came."""

from __future__ import annotations

import gc
import random
import struct
import sys
import threading
import time
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
import wire
from pvafast.errors import DecodeError, LimitExceeded, LocalProtocolError
from pvafast.limits import Limits
from wire import plain

NT = {
    "value": "double",
    "alarm": {"severity": "int32", "status": "int32", "message": "string"},
    "timeStamp": {"secondsPastEpoch": "int64", "nanoseconds": "int32", "userTag": "int32"},
}
# Numbers of its nodes: 0 root, 1 value, 2 alarm, 3..5 its members, 6 timeStamp, 7..9 its members.


def monitor(backend: SimpleNamespace, body: bytes, *, big: bool = False, lead: bytes = b"") -> Any:
    """A MONITOR update message; `lead` are other bytes in front of it in the same buffer."""
    data = lead + struct.pack(">IB" if big else "<IB", 7, 0) + body
    return backend.framing.Message(
        flags=0x40 | (0x80 if big else 0), command=13, data=data, start=len(lead), end=len(data)
    )


def update(changed: int, data: bytes = b"", overrun: bytes = b"\0") -> bytes:
    """The body of an update whose bits fit in one byte or two."""
    raw = changed.to_bytes(2, "little").rstrip(b"\0")
    return bytes([len(raw)]) + raw + data + overrun


@pytest.fixture
def nt(backend: SimpleNamespace) -> Any:
    return backend.introspection.FieldDesc.of(NT)


def value_and_time(value: float, seconds: int, nanoseconds: int) -> bytes:
    """value, secondsPastEpoch and nanoseconds changed."""
    return update(1 << 1 | 1 << 7 | 1 << 8, struct.pack("<dqi", value, seconds, nanoseconds))


def test_rows(backend: SimpleNamespace, nt: Any) -> None:
    columns = backend.columns.Columns(nt)
    whole = struct.pack("<dii", 1.0, 2, 3) + b"\x02hi" + struct.pack("<qii", 1_700_000_000, 5, 6)
    rows = [
        monitor(backend, update(1 << 0, whole)),
        monitor(backend, value_and_time(-2.5, 1_700_000_001, 7), lead=b"xyz"),
        monitor(backend, update(1 << 2, struct.pack("<ii", 4, 5) + b"\0", overrun=b"\x01\x02")),
        monitor(backend, update(0)),
    ]
    assert columns.add(rows, received=[10, 20, 30, 40]) == 4
    assert len(columns) == 4
    assert columns["value"].tolist() == [1.0, -2.5, -2.5, -2.5]
    assert columns["alarm.severity"].tolist() == [2, 2, 4, 4]
    assert columns["alarm.message"] == ["hi", "hi", "", ""]
    assert columns["timeStamp.userTag"].tolist() == [6] * 4
    assert columns.time.tolist() == [1_700_000_000_000_000_005] + [1_700_000_001_000_000_007] * 3
    assert columns.received.tolist() == [10, 20, 30, 40]
    assert columns.changed("value").tolist() == [True, True, False, False]
    assert columns.changed("alarm.message").tolist() == [True, False, True, False]
    assert columns.overrun("value").tolist() == [False, False, True, False]
    assert columns.changed_bits(1) == [1, 7, 8]


def test_which_of_many_fields_came(backend: SimpleNamespace) -> None:
    """One field an update, of more than bits in a word: each row tells of its own."""
    names = [f"f{i}" for i in range(70)]
    columns = backend.columns.Columns(backend.introspection.FieldDesc.of(dict.fromkeys(names, "int8")))
    for node in range(1, 71):
        bits = b"\x09" + (1 << node).to_bytes(9, "little")
        columns.add_update(bits + b"\x01" + bits)
    for row, name in enumerate(names):
        assert np.flatnonzero(columns.changed(name)).tolist() == [row]
        assert np.flatnonzero(columns.overrun(name)).tolist() == [row]


def test_dtypes_and_read_only(backend: SimpleNamespace) -> None:
    names = (
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float",
        "double",
    )
    fd = backend.introspection.FieldDesc.of({name: name for name in names})
    columns = backend.columns.Columns(fd)
    little = struct.pack("<BbhiqBHIQfd", 2, -1, -2, -3, -4, 5, 6, 7, 2**64 - 1, 0.5, 0.25)
    big = struct.pack(">BbhiqBHIQfd", 1, -1, -2, -3, -4, 5, 6, 7, 2**64 - 1, 0.5, 0.25)
    columns.add([monitor(backend, update(1, little)), monitor(backend, update(1, big), big=True)])
    expected = (True, -1, -2, -3, -4, 5, 6, 7, 2**64 - 1, 0.5, 0.25)
    for name, number in zip(names, expected, strict=True):
        column = columns[name]
        assert column.dtype == np.dtype({"float": "f4", "double": "f8"}.get(name, name)), name
        assert column.tolist() == [number, number], name
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0


def test_chosen_fields(backend: SimpleNamespace, nt: Any) -> None:
    columns = backend.columns.Columns(nt, ["alarm", "value"])
    assert columns.fields == ("alarm.severity", "alarm.status", "alarm.message", "value")
    columns.add([monitor(backend, value_and_time(3.0, 5, 6))])
    assert columns["value"].tolist() == [3.0]
    assert columns.time.tolist() == [5_000_000_006]  # the time stamp is always there
    with pytest.raises(KeyError):
        columns["nothing"]
    with pytest.raises(KeyError):
        backend.columns.Columns(nt, ["nothing"])


def test_arrays(backend: SimpleNamespace) -> None:
    fd = backend.introspection.FieldDesc.of({"a": "int16[]", "s": "string[]", "f": "double[2]"})

    def row(*a: int) -> Any:
        return monitor(backend, update(1 << 1, bytes([len(a)]) + struct.pack(f"<{len(a)}h", *a)))

    columns = backend.columns.Columns(fd)
    columns.add([row(1, 2), row(3, 4)])
    assert columns["a"].dtype == np.int16
    assert columns["a"].tolist() == [[1, 2], [3, 4]]
    columns.add([row(5)])
    assert [a.tolist() for a in columns["a"]] == [[1, 2], [3, 4], [5]]
    values, offsets = columns.offsets("a")
    assert values.tolist() == [1, 2, 3, 4, 5]
    assert offsets.tolist() == [0, 2, 4, 5]
    assert columns["s"] == [[], [], []]
    assert columns["f"].tolist() == [[0.0, 0.0]] * 3
    columns.add([monitor(backend, update(1 << 2 | 1 << 3, b"\x02\x01a\xff" + struct.pack("<dd", 1, 2)))])
    assert columns["s"][-1] == ["a", ""]
    assert columns["f"][-1].tolist() == [1.0, 2.0]


def test_unions_and_anys(backend: SimpleNamespace) -> None:
    fd = backend.introspection.FieldDesc.structure(
        "",
        {
            "n": "int32",
            "u": backend.introspection.FieldDesc.union("", {"x": "int8", "y": "string"}),
            "v": "any",
        },
    )
    columns = backend.columns.Columns(fd)
    columns.add(
        [
            monitor(backend, update(1 << 1, struct.pack("<i", 9))),
            monitor(backend, update(1 << 2, b"\x01\x02ab")),
            monitor(backend, update(1 << 3, b"\x43" + struct.pack("<d", 4.0))),
            monitor(backend, update(1 << 2, b"\xff")),
        ]
    )
    union = backend.value.UnionValue("y", "ab")
    assert columns["n"].tolist() == [9, 9, 9, 9]
    assert columns["u"] == [None, union, union, None]
    assert columns["v"] == [None, None, *[backend.value.AnyValue("double", 4.0)] * 2]
    only = backend.columns.Columns(fd, ["n"])
    only.add([monitor(backend, update(1, struct.pack("<i", 1) + b"\x00\x05\x22" + struct.pack("<i", 3)))])
    assert only["n"].tolist() == [1]


@pytest.mark.parametrize(
    "types", [("string", "int32"), ("int64[]", "any"), ("uint64", "string"), ("double", "bool")]
)
def test_time_stamps_of_other_types(backend: SimpleNamespace, types: tuple[str, str]) -> None:
    """Those that are no integers tell no time."""
    fd = backend.introspection.FieldDesc.of(
        {"timeStamp": {"secondsPastEpoch": types[0], "nanoseconds": types[1]}}
    )
    columns = backend.columns.Columns(fd)
    value = backend.value.Value(fd)
    for name, type in zip(("secondsPastEpoch", "nanoseconds"), types, strict=True):
        if type in ("uint64", "double", "int32", "bool"):
            value[f"timeStamp.{name}"] = 1
    columns.add_update(backend.codec.Codec().encode_update(value))
    expected = {"string": 1, "int64[]": 0, "uint64": 10**9, "double": 0}
    assert columns.time.tolist() == [expected[types[0]]]


def test_clear_carries_on(backend: SimpleNamespace, nt: Any) -> None:
    columns = backend.columns.Columns(nt)
    columns.add([monitor(backend, value_and_time(1.5, 1, 2))] * 3)
    before = columns["value"]
    columns.clear()
    assert len(columns) == 0
    assert columns["value"].tolist() == []
    assert columns["alarm.message"] == []
    columns.add([monitor(backend, update(1 << 3, struct.pack("<i", 2)))])
    assert columns["value"].tolist() == [1.5]
    assert columns.changed("value").tolist() == [False]
    assert before.tolist() == [1.5] * 3


def test_take(backend: SimpleNamespace, nt: Any) -> None:
    columns = backend.columns.Columns(nt, ["value", "alarm"])
    columns.add(
        [monitor(backend, value_and_time(1.5, 1, 2)), monitor(backend, value_and_time(2.5, 3, 4))], [7, 8]
    )
    taken = columns.take()
    assert (len(taken), len(columns)) == (2, 0)
    assert (taken.type, taken.fields) == (nt, columns.fields)
    assert taken["value"].tolist() == [1.5, 2.5]
    assert taken.received.tolist() == [7, 8]
    assert taken.time.tolist() == [1_000_000_002, 3_000_000_004]
    assert taken["alarm.message"] == ["", ""]
    columns.add([monitor(backend, update(1 << 3, struct.pack("<i", 2)))], 9)
    # Each goes on with what the last row held.
    taken.add([monitor(backend, update(1 << 4, struct.pack("<i", 3)))], 10)
    for one, rows, severity, status in (
        (columns, [2.5], [2], [0]),
        (taken, [1.5, 2.5, 2.5], [0] * 3, [0, 0, 3]),
    ):
        assert one["value"].tolist() == rows
        assert one["alarm.severity"].tolist() == severity
        assert one["alarm.status"].tolist() == status
        assert one.time[-1] == 3_000_000_004
    assert len(columns.take()) == 1
    assert len(columns.take()) == 0
    columns.add([monitor(backend, update(1 << 4, struct.pack("<i", 1)))])
    assert columns["alarm.severity"].tolist() == [2]


def test_rows_can_be_taken_when_the_codec_is_broken(backend: SimpleNamespace, nt: Any) -> None:
    codec = backend.codec.Codec()
    columns = backend.columns.Columns(nt, ["value"], codec=codec)
    columns.add([monitor(backend, value_and_time(1.5, 1, 2))])
    with pytest.raises(DecodeError):
        codec.decode_type(b"\xfc")
    with pytest.raises(LocalProtocolError):
        columns.add([monitor(backend, value_and_time(1.5, 1, 2))])
    taken = columns.take()
    assert taken["value"].tolist() == [1.5]
    columns.clear()
    assert len(columns) == 0


def test_take_of_strings_and_arrays(backend: SimpleNamespace) -> None:
    columns = backend.columns.Columns({"s": "string", "a": "int32[]"})
    columns.add([monitor(backend, update(1, b"\x02hi\x01" + struct.pack("<i", 4)))])
    taken = columns.take()
    columns.add([monitor(backend, update(0))])
    for one in (taken, columns):
        assert one["s"] == ["hi"]
        assert one["a"].tolist() == [[4]]


def test_what_was_handed_out_stays(backend: SimpleNamespace, nt: Any) -> None:
    columns = backend.columns.Columns(nt)
    columns.add([monitor(backend, value_and_time(0.0, 0, 0))])
    first = columns["value"]
    for i in range(5000):
        columns.add([monitor(backend, value_and_time(float(i + 1), i, 0))])
    assert first.tolist() == [0.0]
    assert np.array_equal(columns["value"], np.arange(5001.0))


def test_add_update(backend: SimpleNamespace, nt: Any) -> None:
    columns = backend.columns.Columns(nt)
    body = value_and_time(8.0, 1, 0)
    assert columns.add_update(b"??" + body, 2, received=5) == 2 + len(body)
    assert columns.add_update(bytearray(body[:-1])) == len(body) - 1  # a reply of GET has no overruns
    assert columns["value"].tolist() == [8.0, 8.0]


def test_structured_array(backend: SimpleNamespace, nt: Any) -> None:
    columns = backend.columns.Columns(nt, ["value", "alarm.message"])
    columns.add([monitor(backend, value_and_time(1.0, 0, 0)), monitor(backend, update(1 << 5, b"\x01x"))])
    table = columns.to_numpy()
    assert table.dtype.names == ("value", "alarm.message")
    assert table["value"].tolist() == [1.0, 1.0]
    assert table["alarm.message"].tolist() == ["", "x"]


def test_damage_keeps_the_rows_before(backend: SimpleNamespace, nt: Any) -> None:
    columns = backend.columns.Columns(nt)
    good = monitor(backend, value_and_time(1.0, 0, 0))
    bad = monitor(backend, update(1 << 1, b"\0\0\0", overrun=b""), lead=b"12345678")
    with pytest.raises(DecodeError) as caught:
        columns.add([good, good, bad, good])
    # ioid, sub byte, two bytes of BitSet: the double begins at 7 of its payload.
    assert str(caught.value) == "double needs 8 bytes, 3 left at `value`, offset 7"
    assert columns["value"].tolist() == [1.0, 1.0]
    assert columns.add([good]) == 1
    assert len(columns) == 3


def test_only_updates(backend: SimpleNamespace, nt: Any) -> None:
    columns = backend.columns.Columns(nt)
    good = monitor(backend, value_and_time(1.0, 0, 0))
    for wrong in (
        backend.framing.Message(flags=0x40, command=10, data=bytes(good.data)),
        backend.framing.Message(flags=0x40, command=13, data=b"\1\0\0\0\x08\xff\x43"),
        backend.framing.Message(flags=0x40, command=13, data=b"\1\0\0\0"),
    ):
        with pytest.raises(LocalProtocolError, match="no MONITOR update"):
            columns.add([good, wrong])
    assert len(columns) == 3
    with pytest.raises(ValueError, match="2 receive times for 1 messages"):
        columns.add([good], received=[1, 2])


@st.composite
def streams(draw: Any) -> tuple[Any, list[Any]]:
    """A structure, and updates of it: (bits, value, overruns, byte order); bits come again, as they do in life."""
    spec = draw(strategies.STRUCTURES)
    numbers = st.sets(st.integers(0, len(wire.nodes(spec)) - 1))
    shapes = draw(st.lists(numbers, min_size=1, max_size=3))
    one = st.tuples(
        st.sampled_from(shapes),
        strategies.values(spec),
        st.sampled_from([set(), set(), set()]) | numbers,
        strategies.ORDERS,
    )
    return spec, draw(st.lists(one, min_size=1, max_size=8))


@given(stream=streams(), cut=st.integers(0, 8))
def test_rows_are_what_one_update_after_the_other_says(
    backend: SimpleNamespace, stream: Any, cut: int
) -> None:
    spec, came = stream
    fd = wire.build(backend, spec)
    columns = backend.columns.Columns(fd)
    messages = [
        monitor(
            backend,
            wire.update(spec, x, bits, order) + wire.bitset(overrun, order),
            big=order == "big",
            lead=bytes(i),
        )
        for i, (bits, x, overrun, order) in enumerate(came)
    ]
    assert columns.add(messages[:cut]) + columns.add(messages[cut:], range(len(messages[cut:]))) == len(came)
    nodes = wire.nodes(spec)

    def told_by(node: int) -> set[int]:
        return {i for i, (_, _, end) in enumerate(nodes) if i <= node < end}

    for node, (path, at, _) in enumerate(nodes):
        if isinstance(at, wire.Compound) and at.kind == "struct":
            continue
        held: Any = plain(backend.value.Value(fd)[path] if path else backend.value.Value(fd)[""])
        changed = []
        column = columns[path]
        for i, (bits, x, _, _) in enumerate(came):
            changed.append(bool(bits & told_by(node)))
            if changed[-1]:
                held = wire.expected(backend, at, wire.pick(x, path))
            cell = column[i]
            assert plain(cell.item() if isinstance(cell, np.generic) else cell) == held, (path, i)
        assert columns.changed(path).tolist() == changed
        assert columns.overrun(path).tolist() == [bool(overrun & told_by(node)) for _, _, overrun, _ in came]
    assert columns.received.tolist() == [0] * min(cut, len(came)) + list(range(len(came) - cut))


def test_types_that_are_too_deep_or_large(backend: SimpleNamespace) -> None:
    fd = backend.introspection.FieldDesc.of({"a": {"b": {"c": "int8"}}, "d": "int8"})
    # The BitSet begins at 5 in the payload, the fields at 7.
    for limits, reason, at in (
        (Limits(depth=2), "depth", 5),
        (Limits(type_nodes=3), "type_nodes", 5),
        (Limits(value_nodes=1), "value_nodes", 7),
    ):
        columns = backend.columns.Columns(fd, codec=backend.codec.Codec(limits=limits))
        with pytest.raises(LimitExceeded) as caught:
            columns.add([monitor(backend, update(1, b"\1\2"), lead=b"??")] * 2)
        assert (caught.value.limit, caught.value.offset) == (reason, at)
        assert len(columns) == 0


def test_overruns_that_come_late_and_go_again(backend: SimpleNamespace, nt: Any) -> None:
    columns = backend.columns.Columns(nt)
    plain_row = monitor(backend, value_and_time(1.0, 0, 0))
    lost = monitor(backend, update(1 << 1, struct.pack("<d", 2.0), overrun=b"\x01\x02"))
    columns.add([plain_row] * 700 + [lost] + [plain_row] * 700)
    columns.add([lost, plain_row])
    expected = [False] * 700 + [True] + [False] * 700 + [True, False]
    assert columns.overrun("value").tolist() == expected
    assert columns.overrun("alarm.severity").tolist() == [False] * 1403
    taken = columns.take()
    assert taken.overrun("value").tolist() == expected
    columns.add([plain_row, lost])
    assert columns.overrun("value").tolist() == [False, True]
    assert taken.overrun("value").tolist() == expected


def test_an_update_of_numbers_alone_that_breaks_off(backend: SimpleNamespace, nt: Any) -> None:
    """Its shape is known by then."""
    good = value_and_time(1.5, 7, 8)
    for cut in range(len(good) - 1):
        columns = backend.columns.Columns(nt)
        rows = [monitor(backend, raw, lead=b"..") for raw in (good, good, good[:cut])]
        with pytest.raises(DecodeError, match="left"):
            columns.add(rows)
        assert columns["value"].tolist() == [1.5, 1.5]
    whole = [monitor(backend, raw) for raw in (good, good[:-1], good)]  # without overruns, as a GET
    assert columns.add(whole) == 3


def test_twins_agree_on_mutated_updates(twins: tuple[SimpleNamespace, SimpleNamespace]) -> None:
    rng = random.Random(3)
    whole = struct.pack("<dii", 1.0, 2, 3) + b"\x02hi" + struct.pack("<qii", 1_700_000_000, 5, 6)
    bodies = [update(1, whole, b"\x01\x02"), value_and_time(1.0, 2, 3), update(1 << 2 | 1 << 6, whole[8:])]
    for _ in range(3000):
        batch = []
        for _ in range(6):
            raw = bytearray(rng.choice(bodies))
            for _ in range(rng.choice((0, 0, 0, 1, 2))):
                raw[rng.randrange(len(raw))] = rng.choice((0, 1, 0x7F, 0xFD, 0xFE, 0xFF, rng.randrange(256)))
            batch.append(bytes(raw[: rng.randrange(1, len(raw) + 1)] if rng.random() < 0.1 else raw))
        outcomes = []
        for twin in twins:
            columns = twin.columns.Columns(twin.introspection.FieldDesc.of(NT))
            try:
                columns.add([monitor(twin, raw, big=len(raw) & 1 == 1) for raw in batch])
                error = None
            except DecodeError as raised:
                error = (str(raised), raised.path)
            cells = [columns[name] for name in columns.fields]
            outcomes.append(
                (
                    error,
                    [cell.tobytes() if isinstance(cell, np.ndarray) else cell for cell in cells],
                    [columns.changed_bits(i) for i in range(len(columns))],
                    columns.overrun("value").tolist(),
                )
            )
        assert outcomes[0] == outcomes[1]


def test_the_gil_is_released(backend: SimpleNamespace, nt: Any) -> None:
    """Another thread gets on while rows are added, though the interpreter never lets it by itself."""
    if backend.name == "py":
        pytest.skip("the Python twin is Python")
    rows = [monitor(backend, value_and_time(1.0, 0, 0))] * 100_000
    columns = backend.columns.Columns(nt)
    gate, went = threading.Lock(), threading.Event()
    gate.acquire()

    def other() -> None:
        with gate:
            went.set()

    thread = threading.Thread(target=other)
    thread.start()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        gate.release()
        deadline = time.monotonic() + 20
        while not went.is_set() and time.monotonic() < deadline:
            columns.clear()
            columns.add(rows)
        assert went.is_set()
    finally:
        sys.setswitchinterval(before)
        thread.join()


# -- Arrow

MIXED = {
    "value": "double", "ok": "bool", "n": "uint16", "s": "string", "same": "int32[]", "var": "float[]", "flags": "bool[]",
    "names": "string[]", "timeStamp": {"secondsPastEpoch": "int64", "nanoseconds": "int32", "userTag": "int32"},
}  # fmt: skip


def mixed(backend: SimpleNamespace, rows: int = 5) -> Any:
    """Columns of every kind that Arrow has, by way of the encoder."""
    fd = backend.introspection.FieldDesc.of(MIXED)
    columns = backend.columns.Columns(fd)
    for i in range(rows):
        value = backend.value.Value(
            fd,
            {
                "value": i / 2, "ok": bool(i % 2), "n": i, "s": "é" * i, "same": [i, -i], "var": [0.5] * i,
                "flags": [True, False][: i % 3], "names": [f"a{i}", ""][: i % 3],
                "timeStamp": {"secondsPastEpoch": 1_700_000_000 + i, "nanoseconds": 5},
            },
        )  # fmt: skip
        columns.add_update(backend.codec.Codec().encode_update(value), received=1000 + i)
    return columns


def test_arrow(backend: SimpleNamespace) -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("nanoarrow")
    columns = mixed(backend)
    batch = pa.record_batch(columns.to_arrow())
    batch.validate(full=True)
    assert batch.schema.field("time").type == pa.timestamp("ns", "UTC")
    assert batch.schema.field("same").type == pa.large_list(pa.int32())
    assert batch.schema.field("var").type == pa.large_list(pa.float32())
    assert batch.column("time").cast(pa.int64()).to_pylist() == [
        1_700_000_000_000_000_005 + i * 10**9 for i in range(5)
    ]
    assert batch.column("received").cast(pa.int64()).to_pylist() == [1000, 1001, 1002, 1003, 1004]
    assert batch.column("value").to_pylist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert batch.column("ok").to_pylist() == [False, True, False, True, False]
    assert batch.column("n").to_pylist() == [0, 1, 2, 3, 4]
    assert batch.column("s").to_pylist() == ["", "é", "éé", "ééé", "éééé"]
    assert batch.column("same").to_pylist() == [[0, 0], [1, -1], [2, -2], [3, -3], [4, -4]]
    assert batch.column("var").to_pylist() == [[0.5] * i for i in range(5)]
    assert batch.column("flags").to_pylist() == [[], [True], [True, False], [], [True]]
    assert batch.column("names").to_pylist() == [[], ["a1"], ["a2", ""], [], ["a4"]]
    assert batch.column("timeStamp.nanoseconds").to_pylist() == [5] * 5


def test_arrow_does_not_copy_and_outlives_the_columns(backend: SimpleNamespace) -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("nanoarrow")
    columns = mixed(backend, 200)
    made = columns.to_arrow()
    address = (
        columns["value"].ctypes.data if backend.name == "c" else None
    )  # of lists arrays are made each time
    first, second = pa.record_batch(made), pa.record_batch(made)
    del made
    columns.clear()
    del columns
    found = {batch.column("value").buffers()[1].address for batch in (first, second)}
    assert len(found) == 1
    assert address is None or found == {address}
    for batch in (first, second):
        assert batch.column("value").to_pylist() == [i / 2 for i in range(200)]


def test_arrow_memory_lives_as_long_as_anyone_has_it(backend: SimpleNamespace) -> None:
    """Exported twice, handed on, sliced; given back when the last holder is gone."""
    pa = pytest.importorskip("pyarrow")
    na = pytest.importorskip("nanoarrow")
    columns = mixed(backend, 300)
    whole = columns["value"].base if backend.name == "c" else None
    memory = None if whole is None else weakref.ref(whole)
    del whole
    exported = [columns.to_arrow() for _ in range(2)]
    batches = [pa.record_batch(made) for made in exported for _ in range(2)]
    again = na.Array(batches[0])
    part = batches[1].column("value")[100:110]
    texts = batches[2].column("s")
    del exported, batches, columns
    gc.collect()
    assert memory is None or memory() is not None
    assert part.to_pylist() == [i / 2 for i in range(100, 110)]
    assert texts[7].as_py() == "é" * 7
    assert len(again) == 300
    del part, texts, again
    gc.collect()
    assert memory is None or memory() is None


def test_arrow_in_polars(backend: SimpleNamespace) -> None:
    polars = pytest.importorskip("polars")
    pytest.importorskip("nanoarrow")
    frame = polars.DataFrame(mixed(backend).to_arrow())
    assert frame.schema["time"] == polars.Datetime("ns", "UTC")
    assert frame["value"].to_list() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert frame["ok"].to_list() == [False, True, False, True, False]
    assert frame["s"].to_list() == ["", "é", "éé", "ééé", "éééé"]
    assert frame["flags"].to_list() == [[], [True], [True, False], [], [True]]
    assert frame["names"].to_list() == [[], ["a1"], ["a2", ""], [], ["a4"]]
    assert frame["time"].cast(polars.Int64).to_list()[1] == 1_700_000_001_000_000_005
    assert len(polars.DataFrame(backend.columns.Columns(MIXED).to_arrow())) == 0


def test_arrow_in_nanoarrow(backend: SimpleNamespace) -> None:
    pytest.importorskip("nanoarrow")
    made = mixed(backend).to_arrow()
    names = [field.name for field in made.schema.fields]
    cells = {name: made.child(i) for i, name in enumerate(names)}
    assert cells["value"].to_pylist()[3] == 1.5
    assert cells["same"].to_pylist()[3] == [3, -3]
    assert cells["s"].to_pylist()[3] == "ééé"
    assert cells["timeStamp.secondsPastEpoch"].to_pylist()[3] == 1_700_000_003


LENGTHS = {
    "pair": "double[2]",
    "bits": "bool[9]",
    "words": "string[2]",
    "few": "int8<3>",
    "short": "string(4)",
}


def test_arrow_of_lengths_that_are_told_by_the_type(backend: SimpleNamespace) -> None:
    """The same types whether or not there are rows, and however long the arrays happen to be."""
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("nanoarrow")
    columns = backend.columns.Columns(LENGTHS)
    types = [
        pa.timestamp("ns", "UTC"), pa.timestamp("ns", "UTC"), pa.list_(pa.float64(), 2), pa.list_(pa.bool_(), 9),
        pa.list_(pa.large_string(), 2), pa.large_list(pa.int8()), pa.large_string(),
    ]  # fmt: skip
    assert pa.record_batch(columns.to_arrow()).schema.types == types
    bits = [bool(i % 3) for i in range(9)]
    # pair, bits, words (sizes of strings), few (a size), short: none but the first row has them all.
    row = struct.pack("<dd", 1.0, 2.0) + bytes(bits) + b"\x01a\x00" + b"\x01\x07" + b"\x02\xc3\xa9"
    columns.add([monitor(backend, update(1, row)), monitor(backend, update(1 << 4, b"\x01\x05"))])
    batch = pa.record_batch(columns.to_arrow())
    batch.validate(full=True)
    assert batch.schema.types == types
    assert batch.column("pair").to_pylist() == [[1.0, 2.0]] * 2
    assert batch.column("bits").to_pylist() == [bits] * 2
    assert batch.column("words").to_pylist() == [["a", ""]] * 2
    assert batch.column("few").to_pylist() == [[7], [5]]
    assert batch.column("short").to_pylist() == ["é"] * 2


def test_arrow_has_null_where_no_time_was_told(backend: SimpleNamespace, nt: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("nanoarrow")
    columns = backend.columns.Columns(nt, ["value"])
    rows = [
        monitor(backend, update(1 << 1, struct.pack("<d", 1.0))),
        monitor(backend, value_and_time(2.0, 7, 8)),
    ]
    columns.add(rows, received=[5, 0])
    batch = pa.record_batch(columns.to_arrow())
    batch.validate(full=True)
    assert batch.column("time").cast(pa.int64()).to_pylist() == [None, 7_000_000_008]
    assert batch.column("received").cast(pa.int64()).to_pylist() == [5, None]
    pandas = pytest.importorskip("pandas")
    index = columns.to_pandas().index
    assert index.name == "time"
    assert index[0] is pandas.NaT
    assert index[1].value == 7_000_000_008


ENUM = {"value": {"index": "int32", "choices": "string[]"}, "index": "int32"}
# 1 value, 2 value.index, 3 value.choices, 4 index.


def test_enums_are_their_choices(backend: SimpleNamespace) -> None:
    """Choices may change; an index beyond them has none."""
    columns = backend.columns.Columns(ENUM)
    on_off = b"\x02\x03off\x02on"
    columns.add(
        [
            monitor(backend, update(1 << 1, struct.pack("<i", 1) + on_off)),
            monitor(backend, update(1 << 2, struct.pack("<i", 0))),
            monitor(backend, update(1 << 2, struct.pack("<i", 2))),
            monitor(backend, update(1 << 3, b"\x03\x01a\x01b\x01c")),
            monitor(backend, update(1 << 2, struct.pack("<i", -1))),
        ]
    )
    expected = ["on", "off", None, "c", None]
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("nanoarrow")
    batch = pa.record_batch(columns.to_arrow())
    batch.validate(full=True)
    assert batch.schema.names == ["time", "received", "value.index", "value", "index"]
    assert batch.column("value").to_pylist() == expected
    assert batch.column("value.index").to_pylist() == [1, 0, 2, 2, -1]
    parts = backend.columns.Columns(ENUM, ["value.index"])
    assert pa.record_batch(parts.to_arrow()).schema.names == ["time", "received", "value.index"]
    pandas = pytest.importorskip("pandas")
    frame = columns.to_pandas()
    assert list(frame) == ["value.index", "value", "index"]
    assert [None if pandas.isna(x) else x for x in frame["value"]] == expected
    assert list(frame["value"].cat.categories) == ["c", "off", "on"]


def test_pandas_of_bytes_that_are_no_text(backend: SimpleNamespace) -> None:
    """They are kept, in strings, names and choices."""
    pytest.importorskip("pandas")
    fd = backend.introspection.FieldDesc.structure(
        "", {"s": "string", "t\udcff": "string", "e": {"index": "int32", "choices": "string[]"}}
    )
    columns = backend.columns.Columns(fd)
    # 0 root, 1 s, 2 t, 3 e, 4 index, 5 choices
    columns.add([monitor(backend, update(1, b"\x01\xff\x01a" + bytes(4) + b"\x01\x02b\xff"))] * 2)
    frame = columns.to_pandas()
    assert list(frame) == ["s", "t\udcff", "e.index", "e"]
    assert [frame[name].tolist() for name in frame] == [["\udcff"] * 2, ["a"] * 2, [0] * 2, ["b\udcff"] * 2]


def test_arrow_of_bytes_that_are_no_text(backend: SimpleNamespace, nt: Any) -> None:
    """Arrow has UTF-8 only: what is none becomes U+FFFD."""
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("nanoarrow")
    columns = backend.columns.Columns(nt, ["alarm.message"])
    columns.add([monitor(backend, update(1 << 5, b"\x04\xc3\xa9\xff!")), monitor(backend, update(0))])
    batch = pa.record_batch(columns.to_arrow())
    batch.validate(full=True)
    assert batch.column("alarm.message").to_pylist() == ["é\ufffd!"] * 2


@given(stream=streams())
def test_arrow_holds_what_the_columns_hold(backend: SimpleNamespace, stream: Any) -> None:
    """Any type that has an Arrow type, whatever came."""
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("nanoarrow")
    spec, came = stream
    fd = wire.build(backend, spec)
    leaves = [
        path
        for path, at, _ in wire.nodes(spec)
        if path and not isinstance(at, wire.Compound) and not at.startswith("any")
    ]
    names = {".".join(path): path for path in leaves if all(map(str.isidentifier, path))}
    columns = backend.columns.Columns(fd, list(names.values()))
    columns.add(
        [
            monitor(backend, wire.update(spec, x, bits, order) + b"\0", big=order == "big")
            for bits, x, _, order in came
        ]
    )
    batch = pa.record_batch(columns.to_arrow())
    batch.validate(full=True)
    assert batch.num_rows == len(came)
    for name, path in names.items():
        if name in ("time", "received"):
            continue
        cells = batch.column(name).to_pylist()
        for cell, held in zip(cells, columns[path], strict=True):
            wanted = held.tolist() if isinstance(held, np.ndarray | np.generic) else held
            assert comparable(cell) == comparable(wanted), name


def comparable(x: Any) -> Any:
    if isinstance(x, list):
        return [comparable(item) for item in x]
    if isinstance(x, str):
        return x.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return struct.pack("<d", x) if isinstance(x, float) else x


def test_arrow_of_no_rows(backend: SimpleNamespace) -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("nanoarrow")
    batch = pa.record_batch(backend.columns.Columns(MIXED).to_arrow())
    assert batch.num_rows == 0
    assert batch.schema.names[:3] == ["time", "received", "value"]


def test_arrow_refuses_what_it_has_no_type_for(backend: SimpleNamespace) -> None:
    pytest.importorskip("nanoarrow")
    fd = backend.introspection.FieldDesc.of({"value": "double", "what": "any"})
    with pytest.raises(TypeError, match=r"a any has no Arrow type, at `what`: name the fields"):
        backend.columns.Columns(fd).to_arrow()
    assert len(backend.columns.Columns(fd, ["value"]).to_arrow()) == 0


def test_pandas(backend: SimpleNamespace) -> None:
    pandas = pytest.importorskip("pandas")
    frame = mixed(backend).to_pandas()
    assert frame["value"].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert frame["names"].tolist() == [[], ["a1"], ["a2", ""], [], ["a4"]]
    assert frame.index[1] == pandas.Timestamp(1_700_000_001_000_000_005, unit="ns", tz="UTC")

"""Archives: what goes in comes out, bit for bit; what a crash or damage leaves is told."""

from __future__ import annotations

import random
import struct
import tracemalloc
import zlib
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import corpus
import strategies
import wire
from pvafast import (
    AnyValue,
    BitSet,
    Codec,
    DecodeError,
    EncodeError,
    FieldDesc,
    LimitExceeded,
    Limits,
    LocalProtocolError,
    RangeError,
    Value,
    _backend,
    archive,
    messages,
    time_t,
)
from pvafast.connection import Observer, Update
from test_connection_observer import Talk, hear

NT = FieldDesc.structure("epics:nt/NTScalar:1.0", {"value": "double", "timeStamp": time_t})


def updates_of(session: corpus.Session) -> list[Update]:
    """The monitor updates of a recorded session."""
    found = []
    for talk in session.talks:
        watch = Observer()
        for direction, chunk in talk.chunks:
            watch.receive_data(direction, chunk, 5)
            found += [event for event in watch.events() if isinstance(event, Update)]
    return found


def test_recorded_sessions(tmp_path: Path) -> None:
    """Every update of every recorded session, as the observer holds it after that update."""
    seen = kept = 0
    for name, session in corpus.sessions().items():
        updates = updates_of(session)
        if not updates:
            continue
        path = tmp_path / f"{name}.pva"
        with archive.Writer(path) as writer:
            for time, update in enumerate(updates):
                # A subscription of its own for each operation: they are not laid over each other.
                writer.add(f"{update.pv}#{update.ioid}", update, time=time)
        entries = list(archive.read(path))
        assert len(entries) == len(updates)
        for time, (entry, update) in enumerate(zip(entries, updates, strict=True)):
            assert (entry.name, entry.time) == (f"{update.pv}#{update.ioid}", time)
            assert entry.value == update.value, name
            assert entry.value.changed == update.value.changed
            assert entry.overrun == update.overrun
            if entry.byteorder == update.frame.byteorder and entry.payload == update.payload:
                kept += 1
        seen += len(updates)
    assert seen > 100
    assert kept > seen * 0.8  # others hold anys, whose types may be ids of their connection


def some(path: Path, count: int = 5) -> list[Value]:
    """An archive of two PVs; the values, as they are after each update."""
    held = []
    with archive.Writer(path) as writer:
        base = Value(NT, {"value": 0.5, "timeStamp.nanoseconds": 9})
        base.unmark()
        for i in range(count):
            value = base.copy()
            value["value"] = float(i)
            writer.add_value("a:ä", value, 1000 + i, overrun=BitSet([1] if i % 2 else []))
            held.append(value)
            writer.add_value("b", Value(FieldDesc.of({"s": "string"}), {"s": "x" * i}), 1000 + i)
    return held


def test_values(tmp_path: Path) -> None:
    path = tmp_path / "x.pva"
    held = some(path)
    entries = [entry for entry in archive.read(path) if entry.name == "a:ä"]
    assert [entry.value for entry in entries] == held
    assert [entry.value["timeStamp.nanoseconds"] for entry in entries] == [
        9
    ] * 5  # held before, never changed
    assert [entry.value.changed_names() for entry in entries] == [["value"]] * 5
    assert [list(entry.overrun) for entry in entries] == [[], [1], [], [1], []]
    assert [entry.time for entry in entries] == list(range(1000, 1005))
    assert [bytes(entry.payload).hex() for entry in entries][1] == "0102" + struct.pack(
        "<d", 1.0
    ).hex() + "0102"


def test_the_bytes_of_a_file(tmp_path: Path) -> None:
    """As the module's text says."""
    path = tmp_path / "x.pva"
    with archive.Writer(path) as writer:
        writer.add_value("p", Value(FieldDesc.of({"v": "int8"}), {"v": 7}), -2)
    first = b"\1" + struct.pack("<IH", 0, 1) + b"p" + bytes.fromhex("80 00 01 01 76 20") + b"\x07"
    second = b"\2" + struct.pack("<IqB", 0, -2, 0) + bytes.fromhex("01 02 07 00")
    records = b"".join(struct.pack("<II", len(body), zlib.crc32(body)) + body for body in (first, second))
    assert path.read_bytes() == b"PVAFAST\1" + records


def test_anys_are_kept_with_their_types(tmp_path: Path) -> None:
    fd = FieldDesc.of({"value": "any"})
    value = Value(fd, {"value": AnyValue(NT, Value(NT, {"value": 2.5}))})
    with archive.Writer(tmp_path / "x.pva") as writer:
        writer.add_value("p", value, 1)
        writer.add_value("p", value, 2)
    assert [entry.value for entry in archive.read(tmp_path / "x.pva")] == [value, value]


def test_scalars_at_the_root(tmp_path: Path) -> None:
    value = Value(FieldDesc.of("int32[]"), [1, 2, 3])
    with archive.Writer(tmp_path / "x.pva") as writer:
        writer.add_value("p", value, 1)
    [entry] = archive.read(tmp_path / "x.pva")
    assert entry.value == value


def test_append(tmp_path: Path) -> None:
    path = tmp_path / "x.pva"
    some(path, 2)
    whole = path.read_bytes()
    with pytest.raises(FileExistsError):
        archive.Writer(path)
    for cut in (len(whole), len(whole) - 1, len(whole) - 3):
        path.write_bytes(whole[:cut])
        before = len(list(archive.read(path)))
        with archive.Writer(path, append=True) as writer:
            writer.add_value("a:ä", Value(NT, {"value": 7.5}), 5)
        reader = archive.read(path)
        entries = list(reader)
        assert reader.truncated is None
        assert len(entries) == before + 1
        assert entries[-1].value["value"] == 7.5
        torn = tmp_path / "x.pva.torn"
        assert torn.exists() == (cut < len(whole))
        if torn.exists():  # nothing is thrown away
            assert whole[:cut].endswith(torn.read_bytes())
            torn.unlink()
    new = tmp_path / "new.pva"
    with archive.Writer(new, append=True) as writer:
        writer.add_value("p", Value(NT), 5)
    assert len(list(archive.read(new))) == 1


def test_every_cut(tmp_path: Path) -> None:
    """Whatever a crash leaves: the whole records come, and the reader tells where it stopped."""
    path = tmp_path / "x.pva"
    some(path, 3)
    whole = path.read_bytes()
    entries = list(archive.read(path))
    ends = [entry.offset + 8 + 14 + len(entry.payload) for entry in entries]
    for cut in range(8, len(whole)):
        path.write_bytes(whole[:cut])
        reader = archive.read(path)
        found = list(reader)
        assert [entry.value for entry in found] == [
            entry.value for entry, end in zip(entries, ends, strict=True) if end <= cut
        ]
        assert reader.truncated is not None or cut in (8, *ends) or whole[cut + 8 : cut + 9] == b"\2"
    for cut in range(8):
        path.write_bytes(whole[:cut])
        with pytest.raises(DecodeError, match="no archive"):
            list(archive.read(path))


def sealed(*bodies: bytes) -> bytes:
    return b"PVAFAST\1" + b"".join(struct.pack("<II", len(body), zlib.crc32(body)) + body for body in bodies)


@pytest.mark.parametrize(
    ("bodies", "text", "offset"),
    [
        ((b"", b"\3"), "a record of no bytes", 8),
        ((b"\3",), "a record of kind 3", 16),
        ((b"\1abc",), "a subscription of 4 bytes", 16),
        ((b"\1" + struct.pack("<IH", 0, 99) + b"p",), "a name of 99 bytes, 1 left", 23),
        ((b"\1" + struct.pack("<IH", 0, 1) + b"p\xff",), "a subscription without a type", 25),
        ((b"\1" + struct.pack("<IH", 0, 1) + b"p\xfe\1\0",), "unknown type id 1", 24),
        ((b"\2abc",), "an update of 4 bytes", 16),
        ((b"\2" + struct.pack("<IqB", 5, 0, 0) + b"\0",), "an update of subscription 5, which is not there", 17),
    ],
)  # fmt: skip
def test_damage(tmp_path: Path, bodies: tuple[bytes, ...], text: str, offset: int) -> None:
    path = tmp_path / "x.pva"
    path.write_bytes(sealed(*bodies))
    with pytest.raises(DecodeError) as caught:
        list(archive.read(path))
    assert (text in str(caught.value), caught.value.offset) == (True, offset), caught.value


def test_mutations(tmp_path: Path) -> None:
    """Damaged bytes do not have their checksum; with one, they are read as bytes from anywhere are."""
    path = tmp_path / "x.pva"
    some(path, 3)
    whole = path.read_bytes()
    rng = random.Random(1)
    refused = 0
    for _ in range(400):
        bad = bytearray(whole)
        bad[rng.randrange(8, len(bad))] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        try:
            reader = archive.read(path)
            assert len(list(reader)) < 6
            assert reader.truncated is not None
        except DecodeError:
            refused += 1
    assert refused > 300
    bodies: list[bytes] = []
    at = 8
    while at < len(whole):
        (size,) = struct.unpack_from("<I", whole, at)
        bodies.append(whole[at + 8 : at + 8 + size])
        at += 8 + size
    refused = 0
    for _ in range(400):
        bent = [bytearray(body) for body in bodies]
        chosen = rng.choice(bent)
        chosen[rng.randrange(len(chosen))] = rng.randrange(256)
        path.write_bytes(sealed(*map(bytes, bent)))
        try:
            for entry in archive.read(path):
                repr(entry)
        except DecodeError:
            refused += 1
    assert refused > 50


def test_limits(tmp_path: Path) -> None:
    path = tmp_path / "x.pva"
    some(path, 3)
    with pytest.raises(LimitExceeded, match=r"Limits\.message"):
        list(archive.read(path, limits=Limits(message=20)))


def test_what_has_no_time_is_refused(tmp_path: Path) -> None:
    class Held:
        raw = Value(NT)
        overrun = BitSet()
        received: Any = None

    with archive.Writer(tmp_path / "x.pva") as writer, pytest.raises(TypeError, match="say time="):
        writer.add("p", Held())


def told(talk: Talk) -> list[Update]:
    """The updates of a conversation."""
    return [event for event in hear(Observer(), talk.chunks) if isinstance(event, Update)]


@pytest.mark.parametrize("order", wire.ORDERS)
def test_payloads(order: str) -> None:
    fd = FieldDesc.of({"v": "any", "n": "int8"})
    inner = FieldDesc.structure("t", {"x": "int16"})

    def updates(ids: str) -> list[Update]:
        talk = Talk(ids=ids, byteorder=order).open()
        talk.add(
            messages.MonitorInit(sid=11, ioid=5, request=Value({"field": {}})),
            messages.MonitorInitReply(ioid=5, type=fd),
            messages.MonitorStart(sid=11, ioid=5),
        )
        for x in (1, 2):
            held = Value(fd, {"v": AnyValue(inner, {"x": x}), "n": x})
            talk.add(messages.MonitorUpdate(ioid=5, value=held, overrun=BitSet((2,))))
        return told(talk)

    for update in updates("none"):
        data, byteorder = archive.payload(update)
        assert (bytes(data), byteorder) == (bytes(update.frame.payload[5:]), order)
        assert np.shares_memory(np.frombuffer(data, "u1"), np.frombuffer(update.frame.data, "u1"))
    first, second = updates("pvaccess")
    # The first defines the type in it, the second refers to that, which is of no use elsewhere.
    assert archive.payload(first)[1] == order
    data, byteorder = archive.payload(second)
    assert byteorder == "little"
    assert data == b"\1\6" + wire.desc(wire.structure("t", x="int16")) + b"\2\0\2" + b"\1\4"
    value, end = Codec().decode_update(FieldDesc.from_bytes(second.type.to_bytes()), data)
    assert (value, end) == (second.value, len(data) - 2)
    # Of an operation that was told its fields: what was decoded.
    second.operation.fields = ["n"]
    part, _ = Codec().decode_update(second.operation.reads, data)
    assert archive.payload(Update(second.operation, second.frame, part)) == (b"\1\4\2\0", "little")
    # Of one of several in a message: that is not cut out.
    frame = _backend.framing.Message(flags=0x40, command=19, data=b"??????????")
    second.operation.fields = None
    assert archive.payload(Update(second.operation, frame, second.value))[0] == data[:-2] + b"\0"


def test_updates_left_out(tmp_path: Path) -> None:
    """A program may add only some of them: the values are right all the same."""
    talk = Talk().open().monitor()
    rng = random.Random(1)
    for i in range(60):
        talk.update(**{rng.choice(["value", "count"]): i, **({"note": str(i)} if i % 7 == 0 else {})})
    some = [update for update in told(talk) if rng.random() < 0.5]
    with archive.Writer(tmp_path / "x.pva") as writer:
        for update in some:
            writer.add("p", update, time=0)
    entries = list(archive.read(tmp_path / "x.pva"))
    assert [entry.value for entry in entries] == [update.value for update in some]
    assert [entry.value.changed for entry in entries] == [update.value.changed for update in some]


def test_what_the_program_changes_afterwards(tmp_path: Path) -> None:
    fd = FieldDesc.of({"a": "double[]", "s": "string[]"})
    value = Value(fd, {"a": np.zeros(3), "s": ["x"]})
    with archive.Writer(tmp_path / "x.pva") as writer:
        writer.add_value("p", value, 0)
        value.unmark()
        value["a"][1] = 5.0
        value["s"].append("y")
        writer.add_value("p", value, 0)
    assert [(entry.value["a"].tolist(), entry.value["s"]) for entry in archive.read(tmp_path / "x.pva")] == [
        ([0.0, 0.0, 0.0], ["x"]),
        ([0.0, 5.0, 0.0], ["x", "y"]),
    ]


def test_some_names_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "x.pva"
    some(path, 3)
    assert [entry.value["s"] for entry in archive.read(path, names=["b", "c"])] == ["", "x", "xx"]
    entries = list(archive.read(path, fields=["timeStamp.nanoseconds", "s", "other"]))
    assert [entry.value.to_dict().get("value") for entry in entries] == [0.0, None] * 3
    assert [entry.value["timeStamp.nanoseconds"] for entry in entries if entry.name != "b"] == [9] * 3
    assert [list(entry.value.changed) for entry in entries] == [[], [1]] * 3
    for wrong in ({"names": "b"}, {"fields": "s"}):
        with pytest.raises(TypeError, match="lists of names"):
            archive.read(path, **wrong)  # type: ignore[arg-type]


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pva"
    value = Value(NT, {"value": 1.0})
    with archive.Writer(path) as writer:
        for time in (1 << 63, -(1 << 63) - 1):
            with pytest.raises(RangeError, match="int64 cannot hold"):
                writer.add_value("p", value, time)
        with pytest.raises(EncodeError, match="lone surrogate in a name at index 1"):
            writer.add_value("p\ud800", value, 0)
        with pytest.raises(EncodeError, match="a name of 65536 bytes"):
            writer.add_value("p" * 65_536, value, 0)
        with pytest.raises(EncodeError, match="lone surrogate"):
            writer.add_value("p", Value(FieldDesc.of({"s": "string"}), {"s": "\ud800"}), 0)
        writer.flush()
        assert path.read_bytes() == b"PVAFAST\1"
        writer.add_value("p", value, 1)
        writer.sync()
        size = path.stat().st_size
        with monkeypatch.context() as patch:
            patch.setattr(writer, "_file", SimpleNamespace(write=lambda data: 1 / 0))
            with pytest.raises(ZeroDivisionError):
                writer.add_value("p", value, 2)
        with pytest.raises(LocalProtocolError, match="open the archive again"):
            writer.add_value("p", value, 2)
    assert path.stat().st_size == size
    assert [entry.time for entry in archive.read(path)] == [1]


def test_what_a_crash_leaves(tmp_path: Path) -> None:
    """A beginning that was not written whole, zeros, a last record without its checksum."""
    path = tmp_path / "x.pva"
    some(path, 3)
    whole = path.read_bytes()
    for tail in (b"\0", bytes(8), bytes(100_000), whole[8:-1][:50], whole[8:42] + b"\xff", b"\xff" * 100):
        path.write_bytes(whole + tail)
        reader = archive.read(path)
        assert len(list(reader)) == 6
        assert reader.truncated == len(whole)
        with archive.Writer(path, append=True):
            pass
        assert path.read_bytes() == whole
    for cut in range(8):
        path.write_bytes(whole[:cut])
        with archive.Writer(path, append=True) as writer:
            writer.add_value("p", Value(NT), 5)
        assert len(list(archive.read(path))) == 1
    # What is not of a crash is left alone.
    for raw in (b"x", b"PVAFAST\2" + whole[8:], whole + bytes(8) + whole[8:], bytes(50)):
        path.write_bytes(raw)
        with pytest.raises(DecodeError, match=r"no archive|no bytes"):
            archive.Writer(path, append=True)
        assert path.read_bytes() == raw


def test_a_record_does_not_refer_to_another(tmp_path: Path) -> None:
    """Each has type ids of its own."""
    path = tmp_path / "x.pva"
    subscription = b"\1" + struct.pack("<IH", 0, 1) + b"p" + b"\x82\xff"
    head = b"\2" + struct.pack("<IqB", 0, 0, 0) + b"\1\1"
    path.write_bytes(sealed(subscription, head + b"\xfd\1\0\x20\5\0", head + b"\xfe\1\0\5\0"))
    with archive.read(path) as reader:
        entries = iter(reader)
        assert next(entries).value[""] == AnyValue("int8", 5)
        with pytest.raises(DecodeError, match="unknown type id 1"):
            next(entries)


def test_limits_of_subscriptions(tmp_path: Path) -> None:
    path = tmp_path / "x.pva"
    described = wire.desc(wire.structure("", **{f"m{i}": "int8" for i in range(5)})) + bytes(5)

    def subscriptions(*numbers: int) -> None:
        path.write_bytes(sealed(*(b"\1" + struct.pack("<IH", i, 1) + b"p" + described for i in numbers)))

    subscriptions(*range(20))
    for limits, limit in ((Limits(channels=19), "channels"), (Limits(registry_nodes=119), "registry_nodes")):
        with pytest.raises(LimitExceeded) as caught:
            list(archive.read(path, limits=limits))
        assert caught.value.limit == limit
    assert list(archive.read(path, limits=Limits(channels=20, registry_nodes=120))) == []
    # A number that is defined again takes no more.
    subscriptions(*[3] * 20)
    assert list(archive.read(path, limits=Limits(channels=1, registry_nodes=6))) == []
    # A length of a GiB, and nothing behind it.
    path.write_bytes(b"PVAFAST\1" + struct.pack("<II", 1 << 30, 0) + bytes(50))
    tracemalloc.start()
    try:
        reader = archive.read(path)
        assert list(reader) == []
        assert reader.truncated == 8
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_hostile_archives(tmp_path: Path) -> None:
    """Damaged anywhere, with checksums made anew: a documented error or none, also where it is continued."""
    path = tmp_path / "x.pva"
    some(path, 2)
    with archive.Writer(path, append=True) as writer:
        writer.add_value("c", Value(FieldDesc.of({"v": "any"}), {"v": AnyValue("int8", 5)}), 5)
    whole = path.read_bytes()
    ends = [8]
    while ends[-1] < len(whole):
        ends.append(ends[-1] + 8 + struct.unpack_from("<I", whole, ends[-1])[0])
    rng = random.Random(7)
    for _ in range(600):
        bodies = []
        for start, end in pairwise(ends):
            body = bytearray(whole[start + 8 : end])
            for _ in range(rng.choice((0, 0, 0, 1, 2))):
                body[rng.randrange(len(body))] = rng.choice(
                    (0, 1, 0x80, 0xFD, 0xFE, 0xFF, rng.randrange(256))
                )
            if rng.random() < 0.05:
                del body[rng.randrange(len(body)) :]
            bodies.append(bytes(body))
        path.write_bytes(sealed(*bodies))
        for options in ({}, {"names": ["b", "c"]}, {"fields": ["value", "s", "v"]}):
            try:
                for entry in archive.read(path, **options):  # type: ignore[arg-type]
                    repr(entry)
            except DecodeError:
                pass
        try:
            with archive.Writer(path, append=True) as writer:
                writer.add_value("p", Value(NT), 0)
        except DecodeError:
            pass


ACTIVE = SimpleNamespace(**{word: getattr(_backend, word) for word in ("introspection", "value", "codec")})


@given(data=st.data())
def test_any_values(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Values of any types under any names, some fields of them marked, come back as they were."""
    path = tmp_path_factory.getbasetemp() / "any.pva"
    path.unlink(missing_ok=True)
    specs = data.draw(st.lists(strategies.TYPES, min_size=1, max_size=3))
    written = []
    with archive.Writer(path) as writer:
        for _ in range(data.draw(st.integers(1, 5))):
            spec = data.draw(st.sampled_from(specs))
            fd = wire.build(ACTIVE, spec)
            raw = b"\1\1" + wire.value(spec, data.draw(strategies.values(spec)))
            made, _ = Codec().decode_update(fd, raw)
            made.unmark()
            for i in data.draw(st.sets(st.integers(0, len(fd) - 1))):
                made.mark(wire.nodes(spec)[i][0])
            name = data.draw(st.sampled_from(["x", "y", "", "\udcff\0"]))
            time = data.draw(st.integers(-(1 << 63), (1 << 63) - 1))
            overrun = BitSet(data.draw(st.sets(st.integers(0, 100))))
            writer.add_value(name, made, time, overrun=overrun)
            written.append((name, time, wire.plain(made), list(made.changed), overrun))
    assert [
        (entry.name, entry.time, wire.plain(entry.value), list(entry.value.changed), entry.overrun)
        for entry in archive.read(path)
    ] == written

"""Archives: what goes in comes out, bit for bit; what a crash or damage leaves is told."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

import corpus
from pvafast import AnyValue, BitSet, DecodeError, FieldDesc, LimitExceeded, Limits, Value, archive, time_t
from pvafast.connection import Observer, Update

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
        ((b"",), "a record of kind none", 16),
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

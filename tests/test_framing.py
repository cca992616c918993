"""Framing: whatever the chunks, the same messages, errors and offsets; large payloads where they were received."""

from __future__ import annotations

import gc
import gzip
import inspect
import itertools
import json
import os
import struct
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvafast.errors import DecodeError, EncodeError, LimitExceeded
from pvafast.limits import Limits

DATA = Path(__file__).parent / "data"
LARGE = 65_536
# The first bytes of a large payload, that are waited for.
LOOK = 2048
GIB = 1 << 30


def header(command: int, size: int, flags: int = 0, version: int = 2, magic: int = 0xCA) -> bytes:
    return struct.pack(">4BI" if flags & 0x80 else "<4BI", magic, version, flags, command, size)


def message(command: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return header(command, len(payload), flags) + payload


def session() -> bytes:
    """What a pvAccessCPP server sent: 46 messages, then a 512×512 frame of uint16 in three segments."""
    return gzip.decompress((DATA / "pvapy_ndarray" / "s2c.bin.gz").read_bytes())


def seen(m: Any) -> tuple[Any, ...]:
    return m.version, m.flags, m.command, m.size, m.offset, bytes(m.payload)


def receive(framer: Any, data: bytes) -> None:
    framer.receive_data(data)


def receive_in_place(framer: Any, data: bytes) -> None:
    while data:
        view = framer.get_buffer(len(data))
        n = min(len(view), len(data))
        view[:n] = data[:n]
        framer.buffer_updated(n)
        data = data[n:]


WAYS = pytest.mark.parametrize("way", [receive, receive_in_place])


def outcome(framer: Any, data: bytes, way: Any = receive, size: int = 0) -> tuple[list[Any], Any]:
    """Messages of `data` in chunks of `size`, and the error at their end: (class, reason, offset)."""
    out: list[Any] = []
    for at in range(0, len(data), size or len(data) or 1):
        way(framer, data[at : at + (size or len(data))])
        try:
            out += [seen(m) for m in framer.messages()]
            out += [seen(m) for m in framer.messages()]
        except DecodeError as error:
            return out, (type(error), error.reason, error.offset)
    return out, None


SMALL = b"".join(
    [
        header(2, 0, 0x41),
        message(1, b"abc", 0x40),
        header(3, 0xFFFFFFFF, 0xC1),
        message(2, b"", 0x40),
        message(10, b"0123", 0x50),
        header(0, 77, 0x41),
        message(10, b"", 0x70),
        message(10, b"45", 0x70),
        message(10, b"", 0x60),
        message(200, b"unknown", 0xC0),
    ]
)
SMALL_SEEN = [
    (2, 0x41, 2, 0, 0, b""),
    (2, 0x40, 1, 3, 8, b"abc"),
    (2, 0xC1, 3, 0xFFFFFFFF, 19, b""),
    (2, 0x40, 2, 0, 27, b""),
    (2, 0x41, 0, 77, 47, b""),
    (2, 0x40, 10, 6, 35, b"012345"),
    (2, 0xC0, 200, 7, 81, b"unknown"),
]


@WAYS
def test_every_split(backend: SimpleNamespace, way: Any) -> None:
    for cut in range(len(SMALL) + 1):
        framer = backend.framing.Framer(from_server=True)
        got = []
        for chunk in (SMALL[:cut], SMALL[cut:]):
            way(framer, chunk)
            got += [seen(m) for m in framer.messages()]
        assert got == SMALL_SEEN
        assert (framer.offset, framer.pending, framer.dropped) == (len(SMALL), 0, 0)
        framer.receive_eof()


@WAYS
@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 0])
def test_every_chunk_size(backend: SimpleNamespace, way: Any, size: int) -> None:
    assert outcome(backend.framing.Framer(), SMALL, way, size) == (SMALL_SEEN, None)


def test_control_messages_do_not_wait_for_the_segments_around_them(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer()
    framer.receive_data(message(10, b"a", 0x10) + header(0, 5, 0x01) + message(10, b"b", 0x30))
    assert [(m.is_control, m.size) for m in framer.messages()] == [(True, 5)]
    framer.receive_data(message(10, b"c", 0x20))
    assert [bytes(m.payload) for m in framer.messages()] == [b"abc"]


def vectors() -> list[Any]:
    folder = os.environ.get("PVAFAST_VECTORS")
    if not folder:
        return []
    return [
        pytest.param(vector, id=vector["id"])
        for vector in json.loads((Path(folder) / "stream.json").read_text())
    ]


@pytest.mark.skipif(not os.environ.get("PVAFAST_VECTORS"), reason="PVAFAST_VECTORS is not set")
@pytest.mark.parametrize("vector", vectors())
@WAYS
def test_vectors(backend: SimpleNamespace, vector: dict[str, Any], way: Any) -> None:
    data = bytes.fromhex(vector["bytes_hex"])
    behind = message(2, b"behind")
    for size in (0, 1, 3):
        for more in (b"", behind):
            got, error = outcome(backend.framing.Framer(), data + more, way, size)
            if "error" in vector["value"]:
                assert error is not None
            else:
                assert error is None
                if more:
                    assert got.pop()[-1] == b"behind"
                assert [
                    {"control": m[2], "value": m[3]} if m[1] & 1 else {"cmd": m[2], "payload": m[5].hex()}
                    for m in got
                ] == vector["value"]


# Errors: the same class, text and offset from both twins, however the bytes come.

GOOD = message(1, b"ab")  # 10 bytes before the fault
ERRORS = [
    (header(1, 0, magic=0), {}, DecodeError, "magic 0xca expected, 0x00 found", 10),
    (header(1, 0, version=0), {}, DecodeError, "version 1 or above expected, 0 found", 10),
    (
        message(1, b"", 0x40),
        {"from_server": False},
        DecodeError,
        "message of the client expected, flags 0x40 found",
        10,
    ),
    (
        header(0, 0, 0x41),
        {"from_server": False},
        DecodeError,
        "message of the client expected, flags 0x41 found",
        10,
    ),
    (message(10, b"a", 0x30), {}, DecodeError, "first segment of command 10 expected, middle found", 10),
    (message(10, b"", 0x20), {}, DecodeError, "first segment of command 10 expected, last found", 10),
    (
        message(10, b"a", 0x10) + message(10, b"b", 0x10),
        {},
        DecodeError,
        "next segment of command 10 expected, first segment of command 10 found",
        19,
    ),
    (
        message(10, b"a", 0x10) + message(10, b"b"),
        {},
        DecodeError,
        "next segment of command 10 expected, whole message of command 10 found",
        19,
    ),
    (
        message(10, b"a", 0x10) + message(11, b"b", 0x30),
        {},
        DecodeError,
        "next segment of command 10 expected, middle segment of command 11 found",
        19,
    ),
    (
        message(10, b"a", 0x10) + message(11, b"b", 0x20),
        {},
        DecodeError,
        "next segment of command 10 expected, last segment of command 11 found",
        19,
    ),
    (
        message(10, b"a", 0x10) + message(10, b"b", 0xA0),
        {},
        DecodeError,
        "little-endian segment expected, big-endian found",
        19,
    ),
    (
        message(10, b"a", 0x90) + message(10, b"b", 0x20),
        {},
        DecodeError,
        "big-endian segment expected, little-endian found",
        19,
    ),
    (header(1, 0xFFFFFFFF), {}, LimitExceeded, "message of 4294967295 bytes, 1073741824 allowed", 10),
    (header(10, GIB + 1, 0x80), {}, LimitExceeded, "message of 1073741825 bytes, 1073741824 allowed", 10),
    (
        message(10, b"abc", 0x10) + message(10, b"abc", 0x20),
        {"limits": Limits(message=5)},
        LimitExceeded,
        "message of 6 bytes, 5 allowed",
        21,
    ),
    (
        message(10, b"", 0x10) + 2 * message(10, b"", 0x30),
        {"limits": Limits(segments=2)},
        LimitExceeded,
        "message of more than 2 segments",
        26,
    ),
]


@WAYS
@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize(("data", "options", "kind", "reason", "offset"), ERRORS)
def test_errors(
    backend: SimpleNamespace,
    data: bytes,
    options: dict[str, Any],
    kind: type[DecodeError],
    reason: str,
    offset: int,
    way: Any,
    size: int,
) -> None:
    framer = backend.framing.Framer(**options)
    got, error = outcome(framer, GOOD + data + GOOD, way, size)
    assert got == [(2, 0, 1, 2, 0, b"ab")]
    assert error == (kind, reason, offset)
    assert framer.failed
    assert framer.offset == offset
    way(framer, GOOD)  # waits
    with pytest.raises(kind) as again:
        framer.messages()
    assert (again.value.reason, again.value.offset, again.value.path) == (reason, offset, "")
    if kind is LimitExceeded:
        assert again.value.limit in ("message", "segments")
        assert f"(Limits.{again.value.limit})" in str(again.value)
    with pytest.raises(kind):
        framer.receive_eof()


def test_a_wrong_message_is_an_error_once_what_came_before_is_handed_out(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer(from_server=True)
    framer.receive_data(message(1, b"", 0x40) + message(2))
    assert not framer.failed
    assert len(framer.messages()) == 1
    assert not framer.failed
    with pytest.raises(DecodeError, match=r"^message of the server expected, flags 0x00 found at offset 8$"):
        framer.messages()
    assert framer.failed


@WAYS
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", None),
        (GOOD, None),
        (GOOD + b"\xca\x02\x00", "header needs 8 bytes, 3 before the end of the stream at offset 10"),
        (
            GOOD + message(1, b"abcd")[:-1],
            "message of 4 bytes expected, 3 before the end of the stream at offset 10",
        ),
        (
            GOOD + header(13, LARGE) + bytes(LARGE - 1),
            "message of 65536 bytes expected, 65535 before the end of the stream at offset 10",
        ),
        (
            message(10, b"abc", 0x10) + header(10, LARGE, 0x30) + bytes(5),
            "message of 65536 bytes expected, 5 before the end of the stream at offset 11",
        ),
        (
            GOOD + message(10, b"", 0x10),
            "more segments of command 10 expected, end of the stream found at offset 18",
        ),
    ],
)
def test_eof(backend: SimpleNamespace, way: Any, data: bytes, text: str | None) -> None:
    framer = backend.framing.Framer()
    way(framer, data)
    if text is None:
        framer.receive_eof()
    else:
        with pytest.raises(DecodeError) as error:
            framer.receive_eof()
        assert str(error.value) == text
    assert len(framer.messages()) == (data[:10] == GOOD)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@WAYS
@pytest.mark.parametrize("segment", [0, 0x10])
def test_a_header_that_announces_1_gib_takes_no_memory(
    backend: SimpleNamespace, way: Any, segment: int
) -> None:
    before = resident()
    framers = [backend.framing.Framer() for _ in range(8)]
    for framer in framers:
        way(framer, header(13, GIB - SLACK if segment else GIB, segment) + b"abc")
        assert framer.pending == 11
    assert resident() - before < 4 << 20


SLACK = 1 << 15


@WAYS
@pytest.mark.parametrize("segment", [0, 0x10, 0x20])
def test_no_memory_is_an_error_of_the_stream(
    backend: SimpleNamespace, way: Any, segment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = backend.framing._allocate

    def allocate(size: int) -> Any:
        if size > 1 << 20:
            raise MemoryError
        return real(size)

    monkeypatch.setattr(backend.framing, "_allocate", allocate)
    framer = backend.framing.Framer()
    if segment == 0x20:
        way(framer, message(13, b"", 0x10))
    way(framer, header(13, GIB - LARGE, segment) + bytes(LOOK))
    with pytest.raises(LimitExceeded, match="no memory for a buffer of 1073") as error:
        framer.messages()
    assert error.value.limit == "message"


def test_endless_empty_segments(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer()
    chunk = message(10, b"", 0x30) * 1000
    tracemalloc.start()
    try:
        framer.receive_data(message(10, b"", 0x10))
        for _ in range(65):
            framer.receive_data(chunk)
            assert framer.messages() == []
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    framer.receive_data(chunk)
    with pytest.raises(LimitExceeded, match="more than 65536 segments"):
        framer.messages()


def test_segments_do_not_keep_the_chunks_they_came_in(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer()
    framer.receive_data(message(10, b"", 0x10))
    tracemalloc.start()
    try:
        for _ in range(50):
            framer.receive_data(header(0, 0, 0x01) * 10_000 + message(10, b"x", 0x30))
            framer.messages()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()


# Where the bytes lie.


def address(data: Any) -> int:
    """Of the first byte of a buffer."""
    return int(np.frombuffer(data, np.uint8).__array_interface__["data"][0])


def test_bytes_are_kept_without_a_copy(backend: SimpleNamespace) -> None:
    chunk = message(13, bytes(100_000)) + message(1, b"x") + header(0, 0, 1)
    framer = backend.framing.Framer()
    framer.receive_data(chunk)
    large, small, _ = framer.messages()
    assert large.data is chunk
    assert small.data is chunk
    assert (large.start, large.end) == (8, 100_008)
    assert bytes(small.payload) == b"x"


@pytest.mark.parametrize(
    "kind", [bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8), lambda b: np.frombuffer(b, ">u2")]
)
def test_other_buffers_are_copied(backend: SimpleNamespace, kind: Any) -> None:
    source = bytearray(SMALL + b"\xca" * (2 - len(SMALL) % 2))
    framer = backend.framing.Framer()
    framer.receive_data(kind(source))
    source[:] = bytes(len(source))
    assert [seen(m) for m in framer.messages()] == SMALL_SEEN


@pytest.mark.parametrize("wrong", [None, "text", 5, [1, 2]])
def test_what_is_no_buffer(backend: SimpleNamespace, wrong: Any) -> None:
    framer = backend.framing.Framer()
    with pytest.raises(TypeError):
        framer.receive_data(wrong)
    assert framer.pending == 0


@WAYS
def test_payloads_are_read_only(backend: SimpleNamespace, way: Any) -> None:
    framer = backend.framing.Framer()
    for chunk in (
        message(13, bytes(LARGE)),
        message(1, b"ab"),
        message(13, b"a", 0x10),
        message(13, bytes(LARGE), 0x20),
    ):
        for part in (chunk[:9], chunk[9:]):
            way(framer, part)
    got = framer.messages()
    assert len(got) == 3
    for m in got:
        assert m.payload.readonly
        assert not np.frombuffer(m.data, np.uint8).flags.writeable
        with pytest.raises(TypeError):
            m.payload[0] = 1


def placed(framer: Any, data: bytes, most: int = 1 << 20) -> tuple[list[Any], dict[int, int]]:
    """Receive in place, `most` bytes at a time: the messages, and for each index of the stream where it was put."""
    places = {}
    out = []
    at = 0
    while at < len(data):
        view = framer.get_buffer()
        n = min(len(view), len(data) - at, most)
        view[:n] = data[at : at + n]
        places[at] = address(view)
        framer.buffer_updated(n)
        at += n
        out += framer.messages()
    return out, places


@pytest.mark.parametrize("most", [1 << 20, 10_000, 9])
def test_a_large_payload_is_received_where_it_stays(backend: SimpleNamespace, most: int) -> None:
    payload = np.arange(300_000, dtype="<u4").tobytes()
    before = message(1, b"before")
    framer = backend.framing.Framer()
    out, places = placed(framer, before + message(13, payload) + message(1, b"behind"), most)
    assert [bytes(m.payload) for m in out] == [b"before", payload, b"behind"]
    large = out[1]
    begin = len(before) + 8
    home = address(large.payload)
    ends = sorted(places)[1:] + [begin + len(payload) + 14]
    here = [
        (at, place, end) for (at, place), end in zip(sorted(places.items()), ends, strict=True) if at >= begin
    ]
    # But for the first bytes, which tell where the array begins.
    inside = [(at, place) for at, place, end in here if begin + LOOK <= at < begin + len(payload)]
    assert inside
    assert inside[0][0] - begin <= LOOK + min(most, 1 << 18)
    assert all(place == home + at - begin for at, place in inside)
    assert begin + len(payload) in places  # the next header was received elsewhere
    assert len(large.data) == len(payload)  # a buffer of its own, of exactly its size


@pytest.mark.parametrize("most", [1 << 20, 50_000])
def test_the_pixels_of_a_segmented_frame_are_received_where_they_stay(
    backend: SimpleNamespace, most: int
) -> None:
    data = session()
    begin, pixels, rest = 5447 + 8 + 14 + 8, 524_288, 193
    framer = backend.framing.Framer(from_server=True)
    out, places = placed(framer, data, most)
    frame = out[-1]
    assert len(out) == 47
    assert (frame.command, frame.flags, frame.offset, frame.size) == (10, 0x40, 5447, 14 + pixels + rest)
    parts = data[5455:5469] + data[begin : begin + pixels] + data[begin + pixels + 8 :]
    assert bytes(frame.payload) == parts
    home = address(frame.payload) + 14
    inside = [(at, place) for at, place in sorted(places.items()) if begin <= at < begin + pixels]
    assert all(place == home + at - begin for at, place in inside)
    # Only what came together with the header was copied: at most one receive of 256 KiB, the first of all.
    assert inside[0][0] - begin <= min(most, 1 << 18)
    assert begin + pixels in places
    assert len(frame.data) <= frame.size + (1 << 15)


def test_frame_after_frame_little_is_copied(backend: SimpleNamespace) -> None:
    """Behind a large payload only a little is asked for, so that little comes together with the next header."""
    data = session()[5447:]
    framer = backend.framing.Framer()
    out, places = placed(framer, data * 10)
    assert [m.size for m in out] == [524_495] * 10
    for k, m in enumerate(out[1:], 1):
        begin = k * len(data) + 30
        first = min(at for at in places if at >= begin)
        assert first - begin <= 4096
        assert places[first] == address(m.payload) + 14 + first - begin


# --- where large arrays are placed


def count(n: int, order: str) -> bytes:
    return b"\xfe" + n.to_bytes(4, order)  # type: ignore[arg-type]


def laid_out(order: Any, width: int, before: bytes, n: int, behind: int) -> tuple[bytes, int]:
    """A payload with one large array, and where that begins."""
    array = np.random.default_rng(n).integers(0, 256, n * width, np.uint8).tobytes()
    return before + count(n, order) + array + bytes(behind), len(before) + 5


UPDATE = bytes.fromhex(
    "2a000000 00 02 fe01 07"
)  # ioid, subcommand, a BitSet that looks like a long count, selector
HEADS = [
    b"",
    UPDATE,
    bytes.fromhex("05000000 00 01 01 05"),
    UPDATE + count(20_000, "little") + bytes(20),  # what claims less
    UPDATE + b"\xfe\xff\xff\xff\xff",  # what claims more than there is
    bytes(range(256)) * 6,  # a description of types
]


def feed(framer: Any, data: bytes, way: Any, size: int) -> list[Any]:
    out = []
    for at in range(0, len(data), size):
        way(framer, data[at : at + size])
        out += framer.messages()
    return out


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("before", HEADS, ids=range(len(HEADS)))
@pytest.mark.parametrize("width", [1, 2, 4, 8])
@WAYS
def test_large_arrays_begin_at_a_multiple_of_64(
    backend: SimpleNamespace, way: Any, width: int, before: bytes, order: Any
) -> None:
    payload, at = laid_out(order, width, before, 100_003, 700)
    data = message(13, payload, 0xC0 if order == "big" else 0x40)
    for size in (1000, 4096, 60_000):
        framer = backend.framing.Framer()
        for m in feed(framer, data * 3, way, size):
            assert m.payload == payload
            assert (address(m.payload) + at) % 64 == 0


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("cut", ["pixels", "all of 90,000", "in the middle"])
@WAYS
def test_large_arrays_in_segments_do_too(backend: SimpleNamespace, way: Any, cut: str, order: Any) -> None:
    payload, at = laid_out(order, 2, UPDATE, 90_001, 500)
    cuts = {
        "pixels": [0, at, len(payload) - 500, len(payload)],  # pvAccessCPP
        "all of 90,000": [*range(0, len(payload), 90_000), len(payload)],
        "in the middle": [0, 3, at - 2, at + 70_000, at + 90_000, len(payload)],
    }[cut]
    pieces = [payload[a:b] for a, b in itertools.pairwise(cuts)]
    kinds = [0x10, *[0x30] * (len(pieces) - 2), 0x20]
    side = 0xC0 if order == "big" else 0x40
    data = b"".join(message(13, piece, kind | side) for piece, kind in zip(pieces, kinds, strict=True))
    for size in (1000, 4096, 60_000):
        for m in feed(backend.framing.Framer(), data * 3, way, size):
            assert m.payload == payload
            # Of an array that is cut itself, how long the message is comes too late.
            assert cut != "pixels" or (address(m.payload) + at) % 64 == 0


def test_a_header_alone_places_the_array_too(backend: SimpleNamespace) -> None:
    """However the bytes come: 8, then one at a time, then what there is room for."""
    payload, at = laid_out("little", 1, UPDATE, 300_000, 100)
    framer = backend.framing.Framer()
    data = message(13, payload)
    receive_in_place(framer, data[:8])
    assert len(framer.get_buffer()) == LOOK
    for pos in range(8, 8 + LOOK):
        receive_in_place(framer, data[pos : pos + 1])
    assert len(framer.get_buffer()) == len(payload) - LOOK
    receive_in_place(framer, data[8 + LOOK :])
    (m,) = framer.messages()
    assert m.payload == payload
    assert (address(m.payload) + at) % 64 == 0


def test_no_array_no_matter(backend: SimpleNamespace) -> None:
    for payload in (bytes(LARGE), b"\xfe" * LARGE, b"\xff" * (LARGE + 1), b"\xfe\0\0\0\0" * LARGE):
        for way in (receive, receive_in_place):
            (m,) = feed(backend.framing.Framer(), message(13, payload), way, 5000)
            assert m.payload == payload


# --- memory of someone else


@pytest.mark.parametrize(
    "kind", [bytearray, lambda n: np.empty((n + 7) // 8), lambda n: memoryview(bytearray(n + 5))]
)
@WAYS
def test_large_payloads_are_received_into_what_allocate_gives(
    backend: SimpleNamespace, way: Any, kind: Any
) -> None:
    lent: list[Any] = []

    def allocate(n: int) -> Any:
        lent.append(kind(n))
        return lent[-1]

    payload, at = laid_out("little", 2, UPDATE, 100_000, 700)
    segments = (
        message(13, payload[:at], 0x10) + message(13, payload[at:-9], 0x30) + message(13, payload[-9:], 0x20)
    )
    framer = backend.framing.Framer(allocate=allocate)
    assert framer.allocate is allocate
    out = feed(framer, message(1, b"small") * 9 + message(13, payload) + segments, way, 10_000)
    assert [m.size for m in out] == [5] * 9 + [len(payload)] * 2
    assert len(lent) == 2
    for m, memory in zip(out[-2:], lent, strict=True):
        assert m.payload == payload
        assert m.payload.readonly
        first, begin = address(memory), address(m.payload)
        assert first <= begin
        assert begin + len(payload) <= first + memoryview(memory).nbytes
        assert (begin + at) % 64 == 0


@WAYS
def test_allocate_may_have_nothing(backend: SimpleNamespace, way: Any) -> None:
    asked = []
    framer = backend.framing.Framer()
    assert framer.allocate is None
    framer.allocate = asked.append
    payload, at = laid_out("little", 2, UPDATE, 100_000, 700)
    (m,) = feed(framer, message(13, payload), way, 10_000)
    assert m.payload == payload
    assert (address(m.payload) + at) % 64 == 0
    assert len(asked) == 1
    assert len(payload) <= asked[0] < len(payload) + 64
    framer.allocate = None
    feed(framer, message(13, payload), way, 10_000)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (bytes, ValueError),
        (lambda n: bytearray(n - 1), ValueError),
        (lambda n: bytearray(), ValueError),
        (lambda n: np.empty(2 * n, np.uint8)[::2], TypeError),
        (lambda n: np.empty((n, 2), np.uint8).T, TypeError),
        (lambda n: 5, TypeError),
    ],
)
def test_what_allocate_must_not_give(backend: SimpleNamespace, kind: Any, error: Any) -> None:
    framer = backend.framing.Framer(allocate=kind)
    with pytest.raises(error):
        feed(framer, message(13, bytes(LARGE)), receive, 10_000)


def test_segments_that_outgrow_the_slack(backend: SimpleNamespace) -> None:
    parts = [
        bytes([k]) * n for k, n in enumerate([14, LARGE, 30_000, 17_000, 3 * LARGE, 0, 17_000, 1, 2 * LARGE])
    ]
    stream = b"".join(
        message(13, part, 0x10 if k == 0 else 0x20 if k == len(parts) - 1 else 0x30)
        for k, part in enumerate(parts)
    )
    for way in (receive, receive_in_place):
        for size in (0, 1000, 100_000):
            got, error = outcome(backend.framing.Framer(), stream, way, size)
            assert error is None
            assert [m[-1] for m in got] == [b"".join(parts)]


def test_bytes_handed_out_are_never_written_again(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer()
    rng = np.random.default_rng(1)
    sizes = rng.integers(0, 3000, 1500).tolist() + [70_000, 5, 200_000, 17, 17]
    parts = [rng.bytes(int(n)) for n in sizes]
    out, _ = placed(framer, b"".join(message(13, part) for part in parts), 5000)
    assert [bytes(m.payload) for m in out] == parts


def test_blocks_are_given_back(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer()
    chunk = message(13, bytes(52)) * 4000
    tracemalloc.start()
    try:
        for _ in range(50):
            receive_in_place(framer, chunk)
            assert len(framer.messages()) == 4000
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


@WAYS
def test_a_large_message_in_small_chunks_takes_its_size_once(backend: SimpleNamespace, way: Any) -> None:
    n = 1 << 20
    framer = backend.framing.Framer()
    tracemalloc.start()
    try:
        way(framer, header(13, n))
        piece = bytes(64)
        for _ in range(n // 64):
            way(framer, piece)
        assert tracemalloc.get_traced_memory()[1] < n + 400_000
    finally:
        tracemalloc.stop()
    assert framer.messages()[0].size == n


def test_ways_may_be_mixed(backend: SimpleNamespace) -> None:
    data = message(1, b"small") * 3 + message(13, bytes(100_000)) + SMALL
    for size in (1, 5, 20_000):
        framer = backend.framing.Framer()
        got = []
        for k, at in enumerate(range(0, len(data), size)):
            (receive, receive_in_place)[k % 2](framer, data[at : at + size])
            got += framer.messages()
        assert [m.size for m in got] == [5, 5, 5, 100_000] + [m[3] for m in SMALL_SEEN]


def test_get_buffer_twice_is_the_same_place(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer()
    assert address(framer.get_buffer()) == address(framer.get_buffer(10))
    framer.get_buffer()[:8] = header(13, LARGE)
    framer.buffer_updated(8)
    first, second = framer.get_buffer(), framer.get_buffer(1)
    assert address(first) == address(second)
    assert len(first) == len(second) == LOOK
    framer.buffer_updated(LOOK)
    first, second = framer.get_buffer(), framer.get_buffer(1)
    assert address(first) == address(second)
    assert len(first) == len(second) == LARGE - LOOK
    assert not first.readonly


def test_buffer_updated_holds_the_caller_to_the_view(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer()
    with pytest.raises(ValueError, match="1 bytes received into a buffer of 0"):
        framer.buffer_updated(1)
    n = len(framer.get_buffer())
    for wrong in (-1, n + 1, 1 << 70):
        with pytest.raises(ValueError, match="received into a buffer of"):
            framer.buffer_updated(wrong)
    framer.get_buffer()
    framer.receive_data(GOOD)  # the view is not asked for any more
    with pytest.raises(ValueError, match="received into a buffer of 0"):
        framer.buffer_updated(1)
    framer.get_buffer()
    framer.buffer_updated(0)
    assert len(framer.messages()) == 1


def test_views_outlive_the_framer(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer()
    receive_in_place(framer, header(13, LARGE) + bytes(LOOK))
    view = framer.get_buffer()
    del framer
    gc.collect()
    view[:] = b"\x07" * (LARGE - LOOK)
    assert view[-1] == 7


# After damage.


def balance(framer: Any, data: bytes, got: list[Any]) -> None:
    """Every byte is in a message, pending or dropped."""
    assert sum(8 + (0 if m.is_control else m.size) for m in got) + framer.pending + framer.dropped == len(
        data
    )


@WAYS
@pytest.mark.parametrize("size", [0, 1, 5, 13])
def test_resync_skips_to_the_next_header(backend: SimpleNamespace, way: Any, size: int) -> None:
    garbage = b"\xca\xca\x02 garbage \xca\x02\x00\x63\x00\x00\x00\x00 \xca\x02\x0e\x01 \xca\x02\x00\x03\xff\xff\xff\x7f"
    data = GOOD + b"!" + garbage + message(3, b"next") + header(2, 0, 0x41) + message(13, b"123456789\x00", 0)
    framer = backend.framing.Framer()
    got: list[Any] = []
    errors = []
    dropped = 0
    for at in range(0, len(data), size or len(data)):
        way(framer, data[at : at + (size or len(data))])
        while True:
            try:
                more = framer.messages()
            except DecodeError as error:
                errors.append((error.reason, error.offset))
                dropped += framer.resync()
                assert not framer.failed
                continue
            got += more
            if not more:
                break
    assert errors == [("magic 0xca expected, 0x21 found", 10)]
    assert [(m.command, m.offset) for m in got] == [
        (1, 0),
        (3, 11 + len(garbage)),
        (2, 23 + len(garbage)),
        (13, 31 + len(garbage)),
    ]
    assert framer.dropped == 1 + len(garbage) >= dropped > 0
    balance(framer, data, got)


@WAYS
def test_a_conversation_taken_up_in_its_middle(backend: SimpleNamespace, way: Any) -> None:
    data = session()
    whole = [seen(m) for m in map_messages(backend, data)]
    for start in (1, 7, 100, 804, 805, 5447, 5450, 5469, 5480, 529_000):
        framer = backend.framing.Framer(from_server=True)
        framer.resync()
        got = []
        for at in range(start, len(data), 1400):
            way(framer, data[at : at + 1400])
            got += [(*m[:4], m[4] + start, m[5]) for m in map(seen, framer.messages())]
        expected = [m for m in whole if m[4] >= start]
        assert got == expected
        framer.receive_eof()
        assert framer.offset == len(data) - start


def map_messages(backend: SimpleNamespace, data: bytes) -> list[Any]:
    framer = backend.framing.Framer()
    framer.receive_data(data)
    return list(framer.messages())


def test_a_well_formed_header_at_the_wrong_time_is_gone_on_with(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer()
    data = message(10, b"lost", 0x10) + message(1, b"whole") + message(10, b"orphan", 0x30) + message(1, b"a")
    framer.receive_data(data)
    with pytest.raises(DecodeError, match="whole message of command 1 found"):
        framer.messages()
    assert framer.pending == len(data)
    assert framer.resync() == 12  # the first segment
    got = framer.messages()
    assert [bytes(m.payload) for m in got] == [b"whole"]
    with pytest.raises(DecodeError, match="first segment of command 10 expected, middle found"):
        framer.messages()
    assert framer.resync() == 14  # the orphan
    got += framer.messages()
    assert [bytes(m.payload) for m in got] == [b"whole", b"a"]
    balance(framer, data, got)


def test_garbage_that_never_ends(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer()
    for chunk in (b"\xca" * 1_000_000, b"\xca\x02\x00" * 300_000, np.random.default_rng(2).bytes(3_000_000)):
        framer.receive_data(chunk)
        try:
            framer.messages()
        except DecodeError:
            framer.resync()
        assert framer.pending < 8
    framer.receive_eof()
    assert framer.dropped == framer.offset


@WAYS
def test_a_gap_inside_a_payload_ends_where_the_payload_does(backend: SimpleNamespace, way: Any) -> None:
    # The pixels are full of what looks like headers: only the known size leads on.
    for n in (1000, 200_000):
        data = GOOD + message(13, header(3, 0) * (n // 8)) + message(1, b"next")
        for cut, missing in ((18 + 5, 100), (18 + 8, n - 8), (18, n)):
            framer = backend.framing.Framer()
            way(framer, data[:cut])
            assert framer.gap(missing) == cut - 10
            way(framer, data[cut + missing :])
            got = framer.messages()
            assert [(m.command, m.offset) for m in got] == [(1, 0), (1, 18 + n)]
            assert framer.offset == len(data)
            assert framer.pending == 0
            assert framer.dropped == 8 + n - missing


@WAYS
def test_a_gap_beyond_the_payload(backend: SimpleNamespace, way: Any) -> None:
    data = GOOD + message(13, bytes(100)) + message(3, b"x" * 30) + message(1, b"next")
    framer = backend.framing.Framer()
    way(framer, data[:50])
    framer.gap(100)
    way(framer, data[150:])
    assert [(m.command, m.offset) for m in framer.messages()] == [(1, 0), (1, 10 + 108 + 38)]
    assert framer.dropped == 40 + 6


def test_a_gap_in_the_skipped_rest(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer()
    framer.receive_data(message(13, bytes(500))[:100])
    assert framer.gap(100) == 100
    framer.receive_data(bytes(100))
    assert framer.gap(100) == 0
    framer.receive_data(bytes(108) + GOOD)
    assert [m.offset for m in framer.messages()] == [508]


def test_a_gap_between_segments(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer()
    framer.receive_data(message(13, b"first", 0x10))
    assert framer.gap(20) == 13
    framer.receive_data(message(13, b"123456789", 0x30) + message(13, b"last", 0x20) + message(1, b"next"))
    assert [bytes(m.payload) for m in framer.messages()] == [b"next"]
    assert framer.messages() == []
    framer.receive_data(message(13, b"", 0x20))  # an orphan after a good message is an error again
    with pytest.raises(DecodeError, match="first segment"):
        framer.messages()


def test_a_gap_of_nothing_and_less(backend: SimpleNamespace) -> None:
    framer = backend.framing.Framer()
    framer.receive_data(GOOD[:9])
    assert framer.gap(0) == 0
    with pytest.raises(ValueError, match="a gap of -1 bytes"):
        framer.gap(-1)
    framer.receive_data(GOOD[9:])
    assert len(framer.messages()) == 1


# Both twins, any bytes, any chunks, the Observer's way.

FRAGMENTS = st.one_of(
    st.binary(max_size=20),
    st.builds(
        lambda c, f, n, v, m: header(c, n, f, v, m),
        st.sampled_from([0, 1, 2, 10, 13, 20, 22, 23]),
        st.sampled_from([0, 0x10, 0x20, 0x30, 0x40, 0x80, 0x90, 0xA0, 0xB0, 0x01, 0x31, 0x81, 0x02]),
        st.sampled_from([0, 1, 5, 20, 300, LARGE, LARGE + 1, 1 << 21, GIB, GIB + 1, 0xFFFFFFFF]),
        st.sampled_from([2, 2, 2, 1, 0, 9]),
        st.sampled_from([0xCA, 0xCA, 0xCA, 0xCA, 0xCB]),
    ),
    st.builds(
        message,
        st.sampled_from([1, 10, 13]),
        st.one_of(st.binary(max_size=30), st.sampled_from([bytes(LARGE), bytes(70_000), bytes(300)])),
        st.sampled_from([0, 0, 0x10, 0x30, 0x20, 0x80, 0x90, 0xA0]),
    ),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("data"), st.integers(1, 200)),
        st.tuples(st.just("data"), st.just(1 << 20)),
        st.tuples(st.just("place"), st.integers(1, 100_000)),
        st.tuples(st.just("gap"), st.sampled_from([0, 1, 8, 100, LARGE])),
        st.tuples(st.just("resync"), st.just(0)),
    ),
    min_size=1,
    max_size=40,
)


def story(framer: Any, data: bytes, steps: list[tuple[str, int]]) -> list[Any]:
    """Everything that can be seen while the steps consume the data, again and again."""
    log: list[Any] = []
    at = fed = handed = 0
    step = 0
    while at < len(data):
        what, n = steps[step % len(steps)] if step < 500 else ("data", 1 << 20)
        step += 1
        if what == "data":
            framer.receive_data(data[at : at + n])
            fed += len(data[at : at + n])
            at += n
        elif what == "place":
            view = framer.get_buffer()
            n = min(n, len(view), len(data) - at)
            log.append(len(view))
            view[:n] = data[at : at + n]
            framer.buffer_updated(n)
            at += n
            fed += n
        else:
            log.append((what, getattr(framer, what)(*([n] if what == "gap" else []))))
        try:
            got = framer.messages()
            log += [seen(m) for m in got]
            handed += sum(8 + (0 if m.is_control else m.size) for m in got)
        except DecodeError as error:
            log.append((type(error), str(error), error.offset, framer.failed, framer.pending))
            if step % 3:
                log.append(framer.resync())
        log.append((framer.offset, framer.pending, framer.dropped))
        assert framer.pending >= 0
        # Segments have a header each, so that what was handed out is at least what was taken.
        assert handed + framer.pending + framer.dropped <= fed
    try:
        framer.receive_eof()
    except DecodeError as error:
        log.append(str(error))
    return log


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(FRAGMENTS, max_size=12).map(b"".join), STEPS, st.sampled_from([None, True, False]), st.booleans()
)
def test_the_twins_agree(
    twins: tuple[SimpleNamespace, SimpleNamespace],
    data: bytes,
    steps: list[tuple[str, int]],
    from_server: bool | None,
    tight: bool,
) -> None:
    limits = Limits(message=100_000, segments=3) if tight else Limits()
    first, second = (
        story(twin.framing.Framer(from_server=from_server, limits=limits), data, steps) for twin in twins
    )
    assert first == second


PAYLOADS = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.integers(0, 5).map(lambda k: bytes([k]) * (LARGE - 1 + k)),
        st.integers(0, 5).map(lambda k: np.full(20_000 + k, k, ">u4")),
    ),
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 255),
            PAYLOADS,
            st.sampled_from([0, 0x40]),
            st.sampled_from(["little", "big"]),
            st.sampled_from([None, 7, 100, 5000, LARGE, 100_000]),
        ),
        max_size=5,
    ),
    st.lists(
        st.tuples(st.booleans(), st.one_of(st.integers(1, 50), st.integers(50, 200_000))),
        min_size=1,
        max_size=20,
    ),
)
def test_round_trip(backend: SimpleNamespace, sent: list[Any], chunks: list[tuple[bool, int]]) -> None:
    stream = b""
    expected = []
    for command, parts, flags, byteorder, segment_size in sent:
        if segment_size is not None and sum(memoryview(p).nbytes for p in parts) // segment_size > 5000:
            segment_size = None
        offset = len(stream)
        buffers = backend.framing.frame(
            command, parts, flags=flags, byteorder=byteorder, segment_size=segment_size
        )
        stream += b"".join(buffers)
        payload = b"".join(bytes(memoryview(part)) for part in parts)
        flags |= 0x80 if byteorder == "big" else 0
        expected.append((2, flags, command, len(payload), offset, payload))
    framer = backend.framing.Framer()
    got = []
    at = k = 0
    while at < len(stream):
        in_place, n = chunks[k % len(chunks)]
        if k > 2000:
            n = 1 << 20
        k += 1
        chunk = stream[at : at + n]
        (receive_in_place if in_place else receive)(framer, chunk)
        at += len(chunk)
        got += [seen(m) for m in framer.messages()]
    assert got == expected
    assert (framer.offset, framer.pending, framer.dropped) == (len(stream), 0, 0)
    framer.receive_eof()


# Sending.


def test_frame_joins_small_buffers_and_passes_large_ones_on(backend: SimpleNamespace) -> None:
    frame = backend.framing.frame
    large = bytes(LARGE)
    pixels = np.arange(LARGE, dtype=">u2").reshape(256, 256)
    out = frame(13, [b"ab", bytearray(b"cd"), large, memoryview(b"ef"), b"", pixels, np.zeros(0)], flags=0x40)
    assert [len(part) for part in out] == [12, LARGE, 2, 2 * LARGE]
    assert out[0] == message(13, b"", 0x40)[:4] + struct.pack("<I", 6 + 3 * LARGE) + b"abcd"
    assert out[1] is large
    assert address(out[3]) == pixels.__array_interface__["data"][0]
    assert frame(2, []) == [message(2)]
    assert frame(2, iter([b"x"]), byteorder="big", version=1) == [b"\xca\x01\x80\x02\0\0\0\x01x"]


def test_frame_in_segments(backend: SimpleNamespace) -> None:
    frame = backend.framing.frame
    assert frame(10, [b"abcde", b"fg"], segment_size=3) == [
        message(10, b"abc", 0x10) + message(10, b"def", 0x30) + message(10, b"g", 0x20)
    ]
    assert frame(10, [b"abc"], segment_size=3) == [message(10, b"abc")]
    assert frame(10, [], segment_size=1) == [message(10)]
    pixels = np.zeros(100_000, np.uint8)
    out = frame(10, [b"head", pixels, b"tail"], flags=0x40, byteorder="big", segment_size=50_000)
    assert [len(part) for part in out] == [12, 49_996, 8, 50_000, 8 + 0, 8][:4] + [
        len(part) for part in out[4:]
    ]
    here = pixels.__array_interface__["data"][0]
    assert [address(part) - here for part in out if isinstance(part, memoryview)] == [0, 49_996]
    framer = backend.framing.Framer()
    for part in out:
        framer.receive_data(part)
    assert [seen(m) for m in framer.messages()] == [
        (2, 0xC0, 10, 100_008, 0, b"head" + bytes(100_000) + b"tail")
    ]


def test_frame_above_4_gib(backend: SimpleNamespace) -> None:
    gib = np.zeros(GIB, np.uint8)  # reserved, not touched
    with pytest.raises(EncodeError, match="payload of 4294967296 bytes, 4294967295 fit a message"):
        backend.framing.frame(13, [gib] * 4)
    out = backend.framing.frame(13, [gib] * 4, segment_size=0xFFFFFFFF)
    assert [len(part) for part in out] == [8, GIB, GIB, GIB, GIB - 1, 9]


@pytest.mark.parametrize(
    ("error", "text", "arguments", "options"),
    [
        (ValueError, "control and segment bits", (1, []), {"flags": 0x01}),
        (ValueError, "control and segment bits", (1, []), {"flags": 0x10}),
        (ValueError, "flags must be 0 to 255, not 256", (1, []), {"flags": 256}),
        (ValueError, "command must be 0 to 255, not -1", (-1, []), {}),
        (ValueError, "command must be 0 to 255", (1 << 80, []), {}),
        (ValueError, "version must be 0 to 255", (1, []), {"version": 256}),
        (ValueError, "byteorder must be 'little' or 'big', not 'native'", (1, []), {"byteorder": "native"}),
        (ValueError, "segment_size must be 1 to 4294967295, not 0", (1, [b"a"]), {"segment_size": 0}),
        (TypeError, ".", ("1", []), {}),
        (TypeError, ".", (1.5, []), {}),
        (TypeError, ".", (1, [5]), {}),
        (TypeError, ".", (1, 5), {}),
        (ValueError, "contiguous", (1, [np.zeros((4, 4))[:, 1]]), {}),
    ],
)
def test_frame_refuses(backend: SimpleNamespace, error: Any, text: str, arguments: Any, options: Any) -> None:
    with pytest.raises(error, match=text):
        backend.framing.frame(*arguments, **options)


def test_control(backend: SimpleNamespace) -> None:
    control = backend.framing.control
    assert control(2) == header(2, 0, 0x01)
    assert control(2, 0xFFFFFFFF, flags=0x40, byteorder="big") == b"\xca\x02\xc1\x02\xff\xff\xff\xff"
    assert (
        control(command=3, value=1, flags=0, byteorder="little", version=1) == b"\xca\x01\x01\x03\x01\0\0\0"
    )
    for wrong in (-1, 1 << 32):
        with pytest.raises(ValueError, match="value must be 0 to 4294967295"):
            control(2, wrong)


# The classes themselves.


def test_message(backend: SimpleNamespace) -> None:
    make = backend.framing.Message
    m = make()
    assert (m.version, m.flags, m.command, m.data, m.start, m.end, m.offset, m.size) == (
        2,
        0,
        0,
        b"",
        0,
        0,
        0,
        0,
    )
    m = make(version=1, flags=0xC0, command=13, data=b"abcdef", start=1, end=4, offset=99, size=3)
    assert (m.version, m.flags, m.command, m.data, m.start, m.end, m.offset, m.size) == (
        *(1, 0xC0, 13, b"abcdef"),
        *(1, 4, 99, 3),
    )
    assert (bytes(m.payload), m.byteorder, m.from_server, m.is_control) == (b"bcd", "big", True, False)
    assert repr(m) == "Message(command 13, size 3, flags 0xc0, version 1, offset 99)"
    control = make(2, 0x01, 2, size=7)
    assert (control.byteorder, control.from_server, control.is_control) == ("little", False, True)
    assert repr(control) == "Message(control 2, size 7, flags 0x01, version 2, offset 0)"
    assert bytes(make(data=np.arange(3, dtype=">u2"), start=1).payload) == b"\0\0\x01\0\x02"


def test_messages_are_frozen(backend: SimpleNamespace) -> None:
    m = backend.framing.Message()
    for name in ("version", "flags", "command", "data", "start", "end", "offset", "size", "payload", "other"):
        with pytest.raises(AttributeError):
            setattr(m, name, 1)
    assert not hasattr(m, "__dict__")


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 256},
        {"flags": -1},
        {"command": 256},
        {"offset": -1},
        {"offset": 1 << 63},
        {"size": 1 << 63},
        {"start": 1},
        {"end": 1},
        {"data": b"abc", "start": 2, "end": 1},
        {"data": b"abc", "start": -1},
    ],
)
def test_messages_stay_inside_their_data(backend: SimpleNamespace, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|outside"):
        backend.framing.Message(**wrong)


def test_framer_constructor(backend: SimpleNamespace) -> None:
    make = backend.framing.Framer
    framer = make(limits=Limits(), from_server=None)
    assert (framer.offset, framer.pending, framer.dropped, framer.failed) == (0, 0, 0, False)
    with pytest.raises(TypeError):
        make(Limits())
    make(limits=Limits(message=1 << 80, segments=1 << 80)).receive_data(header(13, 0xFFFFFFFF))


def test_the_twins_have_the_same_names(twins: tuple[SimpleNamespace, SimpleNamespace]) -> None:
    for name in ("Framer", "Message"):
        c, py = ({n for n in dir(getattr(t.framing, name)) if not n.startswith("_")} for t in twins)
        assert c == py
        for method in c:
            compiled, plain = (getattr(getattr(t.framing, name), method) for t in twins)
            assert inspect.getdoc(compiled) == inspect.getdoc(plain) or not callable(compiled)


def test_two_threads_in_one_framer_do_not_crash(twins: tuple[SimpleNamespace, SimpleNamespace]) -> None:
    """It is forbidden, and the compiled twin says so; what came of the bytes is anybody's guess."""
    from concurrent.futures import ThreadPoolExecutor

    framer = twins[0].framing.Framer()
    chunk = (header(13, 8_000_000) + bytes(8_000_000))[:-100]

    def work(_: int) -> None:
        for at in range(0, len(chunk), 1_000_000):
            try:
                framer.receive_data(chunk[at : at + 1_000_000])
                framer.messages()
                framer.resync()
            except (RuntimeError, DecodeError):
                pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(12)))

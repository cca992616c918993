"""capture/files.py: every kind of capture file, whole, cut off at every byte, and damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import random
import struct
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from captures import NOW, block, enhanced, interface, option, pcap, section
from pvafast.capture import Capture, Clock
from pvafast.errors import DecodeError

FRAMES = [bytes([n]) * (n * 7 % 61) for n in range(20)]

Flat = tuple[str, int, bytes, int]


class Pipe:
    """A stream that cannot seek and hands over little at a time."""

    def __init__(self, data: bytes, most: int = 7) -> None:
        self.data, self.most = data, most

    def read(self, size: int, /) -> bytes:
        size = min(size, self.most)
        out, self.data = self.data[:size], self.data[size:]
        return out


def read(source: Any) -> tuple[list[Flat], tuple[int, str, bool] | None]:
    """([(time as text, link, bytes, length on the wire)], damage)."""
    with Capture(io.BytesIO(source) if isinstance(source, bytes) else source) as capture:
        found = [
            (interface.clock.text(time), interface.link, data[start:end], length)
            for interface, time, data, start, end, length in capture.packets()
        ]
        return found, capture.damage


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("exponent", [6, 9])
@pytest.mark.parametrize("link", [0, 1, 276])
def test_pcap(order: str, exponent: int, link: int) -> None:
    unit = 10**exponent
    file = pcap(
        [(NOW * unit + n, frame, 100) for n, frame in enumerate(FRAMES)],
        order=order,
        exponent=exponent,
        link=link,
    )
    found, damaged = read(file)
    assert damaged is None
    assert found == [(f"{NOW}.{n:0{exponent}d}", link, frame, 100) for n, frame in enumerate(FRAMES)]
    assert read(Pipe(file)) == (found, None)
    assert read(Pipe(gzip.compress(file))) == (found, None)


def test_pcap_link_flags_are_not_part_of_the_type() -> None:
    assert read(pcap([(5, b"x")], link=0x1400_0001))[0] == [("0.000005", 1, b"x", 1)]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("resolution", "base", "exponent"),
    [(None, 10, 6), (0, 10, 0), (3, 10, 3), (9, 10, 9), (12, 10, 12), (0x80 | 10, 2, 10), (0xA0, 2, 32)],
)
@pytest.mark.parametrize("offset", [0, 1_000_000_000, -86_400])
def test_pcapng_resolutions(
    order: str, resolution: int | None, base: int, exponent: int, offset: int
) -> None:
    options = option(2, b"eth0", order)
    if resolution is not None:
        options += option(9, bytes([resolution]), order)
    if offset:
        options += option(14, struct.pack(order + "q", offset), order)
    options += option(0, b"", order)
    unit = base**exponent
    ticks = [5 * 86_400 * unit, 5 * 86_400 * unit + 1, 6 * 86_400 * unit - 1]
    file = section(order) + interface(options=options, order=order)
    file += b"".join(enhanced(b"abcde", t, order=order) for t in ticks)
    found, damaged = read(file)
    assert damaged is None
    scale = 10**exponent // unit if base == 10 else 5**exponent
    wanted = []
    for t in ticks:
        digits = str((t + offset * unit) * scale).rjust(exponent + 1, "0")
        wanted.append(f"{digits[:-exponent]}.{digits[-exponent:]}" if exponent else digits)
    assert [time for time, *_ in found] == wanted
    clock = Clock(10 if base == 10 else 2, exponent, offset)
    for t in ticks:
        assert clock.nanoseconds(t) == (t + offset * unit) * 10**9 // unit
    assert clock.ticks(clock.nanoseconds(ticks[0])) == ticks[0]


def test_clock_before_1970() -> None:
    assert Clock(10, 6, -1).text(250_000) == "-0.750000"
    assert Clock(10, 0, -5).text(2) == "-3"


def several_sections() -> tuple[bytes, list[Flat]]:
    """Two sections of different byte order, each with interfaces of its own, every kind of packet block, unknown blocks."""
    nano = option(9, b"\x09") + option(0, b"")
    file = section("<") + block(0x0000_0BAD, b"custom", "<")
    file += interface(1) + interface(101, options=nano)
    file += enhanced(b"first", 1_000_001) + block(4, bytes(40)) + enhanced(b"second", 2_000_000_002, 1, 99)
    file += block(2, struct.pack("<HHIIII", 1, 77, 0, 3_000_000_003, 5, 6) + b"third" + bytes(3))
    file += block(3, struct.pack("<I", 6) + b"fourth")
    file += block(5, bytes(24))
    file += section(">") + interface(113, 4, order=">")
    file += enhanced(b"fifth", (1 << 32) + 5, order=">") + block(3, struct.pack(">I", 60) + b"sixt", ">")
    file += block(2, struct.pack(">HHIIII", 0, 9, 0, 6, 1, 1) + b"7", ">")
    return file, [
        ("1.000001", 1, b"first", 5),
        ("2.000000002", 101, b"second", 99),
        ("3.000000003", 101, b"third", 6),
        ("3.000000003", 1, b"fourth", 6),
        ("4294.967301", 113, b"fifth", 5),
        ("4294.967301", 113, b"sixt", 60),
        ("0.000006", 113, b"7", 1),
    ]


def test_pcapng_sections_interfaces_blocks() -> None:
    file, wanted = several_sections()
    assert read(file) == (wanted, None)
    assert read(Pipe(file)) == (wanted, None)
    with Capture(io.BytesIO(file)) as capture:
        assert [interface.index for interface, *_ in capture.packets()] == [0, 1, 1, 0, 2, 2, 2]


def test_a_huge_block_is_skipped_in_little_memory() -> None:
    size = 64 << 20
    head = section() + interface() + struct.pack("<II", 0x8000_0001, size + 12)

    class Long:
        def __init__(self) -> None:
            self.parts = iter(
                [head, *[bytes(1 << 20)] * 64, struct.pack("<I", size + 12) + enhanced(b"x", 1)]
            )
            self.rest = b""

        def read(self, n: int, /) -> bytes:
            self.rest = self.rest or next(self.parts, b"")
            out, self.rest = self.rest[:n], self.rest[n:]
            return out

    tracemalloc.start()
    try:
        assert read(Long()) == ([("0.000001", 1, b"x", 1)], None)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


PACKETS = [(NOW * 10**6 + n, frame) for n, frame in enumerate(FRAMES[:6])]
FILES = [pcap(PACKETS), pcap(PACKETS, order=">"), several_sections()[0]]


@pytest.mark.parametrize("file", FILES, ids=["little", "big", "pcapng"])
@pytest.mark.parametrize("packed", [False, True])
def test_cut_off_at_every_byte(file: bytes, packed: bool) -> None:
    whole, _ = read(file)
    if packed:
        file = gzip.compress(file, mtime=0)
    seen = set()
    for cut in range(len(file)):
        try:
            found, damaged = read(file[:cut])
        except DecodeError:
            assert cut == 0 or packed, "only an empty file is no capture"
            continue
        assert found == whole[: len(found)]
        seen.add(len(found))
        if damaged is None:
            assert not packed  # between two packets: nothing can tell
        else:
            assert damaged[2]
            assert damaged[1] == ("the gzip data are cut off" if packed else "the file is cut off")
    # Every packet before the cut is there (deflate tells late where it is).
    assert seen == set(range(len(whole))) or packed


def test_gzip_members_and_padding() -> None:
    file = pcap([(n, frame) for n, frame in enumerate(FRAMES)])
    packed = gzip.compress(file[:33]) + gzip.compress(b"") + gzip.compress(file[33:]) + bytes(100)
    assert read(Pipe(packed)) == read(file)


def test_gzip_garbage_behind() -> None:
    file = pcap([(n, frame) for n, frame in enumerate(FRAMES)])
    found, damaged = read(gzip.compress(file) + b"garbage")
    assert found == read(file)[0]
    assert damaged is not None
    assert not damaged[2]
    assert "gzip" in damaged[1]


def test_a_gzip_bomb_takes_little_memory() -> None:
    bomb = gzip.compress(pcap([]) + bytes(200 << 20), 9)  # packets of no bytes
    capture = Capture(io.BytesIO(bomb))
    tracemalloc.start()
    try:
        assert next(capture.packets())[5] == 0
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b"\xca\x02\x41\x02" + bytes(30), "it begins with ca 02 41 02"),
        (b"hello, world, this is text", "it begins with 68 65 6c 6c"),
        (gzip.compress(b"hello, world, this is text"), "it begins with 68 65 6c 6c"),
        (gzip.compress(b""), "it is empty"),
        (b"\x1f\x8b", "the gzip data are cut off"),
        (b"\x1f\x8bnot gzip at all", "the gzip data are damaged"),
        (bz2.compress(b"x"), "it is compressed; unpack it with bzip2"),
        (b"\x28\xb5\x2f\xfd" + bytes(30), "unpack it with zstd"),
        (b"x", "it begins with 78"),
        (struct.pack("<IHH", 0xA1B2C3D4, 3, 1) + bytes(16), "pcap version 3.1 is unknown"),
        (b"\x0a\x0d\x0d\x0a" + bytes(24), "the byte order magic of pcapng is wrong"),
    ],
)
def test_no_capture(data: bytes, words: str) -> None:
    with pytest.raises(DecodeError) as error:
        Capture(io.BytesIO(data))
    assert "is no pcap or pcapng capture" in str(error.value)
    assert words in str(error.value)


SHB, IDB = section(), interface()


@pytest.mark.parametrize(
    ("file", "words", "offset"),
    [
        (pcap([(1, b"x")]) + struct.pack("<IIII", 1, 1, 1 << 31, 5), f"a packet of {1 << 31} bytes", 24 + 17),
        (SHB + IDB + struct.pack("<III", 6, 8, 8), "a block of 8 bytes", 48),
        (SHB + IDB + struct.pack("<III", 6, 33, 0), "a block of 33 bytes", 48),
        (SHB + IDB + struct.pack("<III", 6, 1 << 30, 0), f"a block of {1 << 30} bytes", 48),
        (SHB + IDB + enhanced(b"x", 1, number=1), "no interface 1", 48),
        (SHB + enhanced(b"x", 1), "no interface 0", 28),
        (SHB + block(3, bytes(4)), "a simple packet", 28),
        (SHB + IDB + block(6, struct.pack("<IIIII", 0, 0, 0, 99, 99) + b"x"), "cannot hold 99 bytes", 48),
        (SHB + IDB + block(6, bytes(16)), "a packet block of 28 bytes", 48),
        (SHB + IDB[:-4] + struct.pack("<I", 24), "the two lengths of a block differ", 28),
        (SHB + block(1, b""), "an interface too small", 28),
        (SHB + section(version=2), "pcapng version 2.0", 28),
        (SHB + b"\x0a\x0d\x0d\x0a" + bytes(24), "byte order magic of a section", 28),
        (SHB + block(0x0A0D0D0A, struct.pack("<I", 0x1A2B3C4D)), "a section header of 16 bytes", 28),
    ],
)
def test_damaged(file: bytes, words: str, offset: int) -> None:
    _, damaged = read(file)
    assert damaged is not None
    assert words in damaged[1]
    assert damaged[0] == offset
    assert not damaged[2]
    assert read(Pipe(file))[1] == damaged


def test_interfaces_are_bounded() -> None:
    _, damaged = read(SHB + IDB * 70_000)
    assert damaged is not None
    assert "too many" in damaged[1]


@pytest.mark.parametrize("file", FILES, ids=["little", "big", "pcapng"])
def test_mutated(file: bytes) -> None:
    rng = random.Random(2)
    for _ in range(3000):
        bad = bytearray(file)
        for _ in range(rng.randint(1, 4)):
            bad[rng.randrange(len(bad))] = rng.choice([0, 1, 255, rng.randrange(256)])
        try:
            found, _ = read(bytes(bad))
        except DecodeError:
            continue
        assert sum(len(data) for _, _, data, _ in found) <= len(file)


def test_path_gzip_name_size_progress(tmp_path: Path) -> None:
    file = pcap([(n, frame) for n, frame in enumerate(FRAMES)])
    for name, data in (("a.pcap", file), ("b.anything", gzip.compress(file))):
        path = tmp_path / name
        path.write_bytes(data)
        with Capture(path) as capture:
            assert capture.name == str(path)
            assert capture.size == len(data)
            assert len(list(capture.packets())) == len(FRAMES)
            assert capture.consumed == len(data)
    with pytest.raises(FileNotFoundError):
        Capture(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        Capture(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a pipe as the standard input")
@pytest.mark.parametrize("packed", [False, True])
def test_standard_input(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pcap([(n, frame) for n, frame in enumerate(FRAMES)])
    data = gzip.compress(file) if packed else file
    receive, send = os.pipe()

    def write() -> None:
        with open(send, "wb", buffering=0) as out:
            for byte in data:
                out.write(bytes([byte]))

    thread = threading.Thread(target=write)
    with open(receive, encoding="latin-1") as text:
        monkeypatch.setattr(sys, "stdin", text)
        thread.start()
        with Capture("-") as capture:
            assert capture.name == "standard input"
            assert capture.size is None
            assert len(list(capture.packets())) == len(FRAMES)
        thread.join()
        assert not text.closed


def test_packets_of_a_live_pipe_come_at_once(tmp_path: Path) -> None:
    """A packet is handed on before the next one is written."""
    receive, send = os.pipe()
    with open(receive, "rb") as stream, open(send, "wb", buffering=0) as out:
        out.write(pcap([(1, b"one")]))
        packets = Capture(stream).packets()
        assert next(packets)[1] == 1
        out.write(pcap([(2, b"two")])[24:])
        assert next(packets)[1] == 2

"""Framing: what a chunk of a stream costs on its way to messages, and a message on its way to buffers.

1,000 monitor updates of an NTScalar in one chunk (kept, or received in place), the same in chunks of a network packet;
frames of a camera in three segments, received in place; the way out. spvirit takes one whole frame a call: it has no
framing to compare with.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from .messages import DATA, update
from .subjects import Work, repeated

COUNT = 1000
PACKET = 1448


def segmented_frame() -> bytes:
    """512×512 uint16 of a pvAccessCPP server: 14 bytes, 524,288 bytes, 193 bytes."""
    return gzip.decompress((DATA / "pvapy_ndarray" / "s2c.bin.gz").read_bytes())[5447:]


def receive_in_place(framer: Any, data: memoryview) -> list[Any]:
    """As a socket's recv_into would."""
    out = []
    at = 0
    while at < len(data):
        view = framer.get_buffer()
        n = min(len(view), len(data) - at)
        view[:n] = data[at : at + n]
        framer.buffer_updated(n)
        at += n
        out += framer.messages()
    return out


def check(messages: list[Any], one: bytes) -> None:
    assert len(messages) == COUNT
    assert all(m.payload == one[8:] for m in messages)


def in_a_chunk(subject: Any) -> Work:
    one = update("nts.vt")
    chunk = one * COUNT
    framer = subject.framing.Framer(from_server=True)

    def run() -> list[Any]:
        framer.receive_data(chunk)
        return framer.messages()  # type: ignore[no-any-return]

    check(run(), one)
    return Work(run, COUNT)


def in_packets(subject: Any) -> Work:
    one = update("nts.vt")
    chunk = one * COUNT
    packets = [chunk[at : at + PACKET] for at in range(0, len(chunk), PACKET)]
    framer = subject.framing.Framer(from_server=True)

    def run() -> list[Any]:
        out = []
        for packet in packets:
            framer.receive_data(packet)
            out += framer.messages()
        return out

    check(run(), one)
    return Work(run, COUNT)


def in_place(subject: Any) -> Work:
    one = update("nts.vt")
    chunk = memoryview(one * COUNT)
    framer = subject.framing.Framer(from_server=True)
    check(receive_in_place(framer, chunk), one)
    return Work(lambda: receive_in_place(framer, chunk), COUNT)


def segmented(subject: Any) -> Work:
    """A frame in three segments, in place; what the socket does, copying, included."""
    data = segmented_frame()
    framer = subject.framing.Framer(from_server=True)
    payload = data[8:22] + data[30 : 30 + 524_288] + data[-193:]
    for _ in range(3):
        (frame,) = receive_in_place(framer, memoryview(data))
        assert frame.payload == payload
    return Work(lambda: receive_in_place(framer, memoryview(data)))


def out(subject: Any) -> Work:
    """One message a call."""
    one = update("nts.vt")
    parts = [one[8:20], one[20:]]
    assert subject.framing.frame(one[3], parts, flags=0x40) == [one]
    return repeated(COUNT, subject.framing.frame, one[3], parts, flags=0x40)


@pytest.mark.subjects("c", "py", "caproto", remote=["caproto"])
def test_1000_updates_in_a_chunk(timed: Callable[..., None]) -> None:
    timed(in_a_chunk)


@pytest.mark.subjects("c", "py")
def test_1000_updates_in_packets(timed: Callable[..., None]) -> None:
    timed(in_packets)


@pytest.mark.subjects("c", "py")
def test_1000_updates_in_place(timed: Callable[..., None]) -> None:
    timed(in_place)


@pytest.mark.subjects("c", "py")
def test_segmented_frame_in_place(timed: Callable[..., None]) -> None:
    timed(segmented)


@pytest.mark.subjects("c", "py")
def test_1000_updates_out(timed: Callable[..., None]) -> None:
    timed(out)


def test_copy_of_the_same_bytes(benchmark: Any) -> None:
    """The floor under the frame: what the socket does."""
    data = segmented_frame()
    target = memoryview(bytearray(len(data)))

    def run() -> None:
        target[:] = data

    benchmark(run)

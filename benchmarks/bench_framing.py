"""Framing: what a chunk of a stream costs on its way to messages, and a message on its way to buffers.

1,000 monitor updates of an NTScalar in one chunk (kept, or received in place), the same in chunks of a network packet;
frames of a camera in three segments, received in place; the way out. caproto, where it is installed, cuts the same
chunk by its own headers. spvirit takes one whole frame a call: it has no framing to compare with.
"""

from __future__ import annotations

import gzip
import importlib
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[1] / "tests" / "data"
COUNT = 1000

pytestmark = pytest.mark.benchmark(group="framing")


@pytest.fixture(params=["c", "py"])
def framing(request: pytest.FixtureRequest) -> Any:
    try:
        return importlib.import_module(f"pvafast._{request.param}.framing")
    except ImportError:
        pytest.skip("the compiled twin is not installed")


def update() -> bytes:
    return (DATA / "bench_messages" / "nts.vt.msg").read_bytes()


def segmented_frame() -> bytes:
    """512×512 uint16 of a pvAccessCPP server: 14 bytes, 524,288 bytes, 193 bytes."""
    return gzip.decompress((DATA / "pvapy_ndarray" / "s2c.bin.gz").read_bytes())[5447:]


def in_place(framer: Any, data: memoryview) -> list[Any]:
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


def check(messages: list[Any], one: bytes, count: int = COUNT) -> None:
    assert len(messages) == count
    assert all(m.payload == one[8:] for m in messages)


def test_1000_updates_in_a_chunk(framing: Any, benchmark: Any) -> None:
    one = update()
    chunk = one * COUNT
    framer = framing.Framer(from_server=True)

    def run() -> list[Any]:
        framer.receive_data(chunk)
        return framer.messages()  # type: ignore[no-any-return]

    check(run(), one)
    benchmark(run)


def test_1000_updates_in_packets(framing: Any, benchmark: Any) -> None:
    one = update()
    chunk = one * COUNT
    packets = [chunk[at : at + 1448] for at in range(0, len(chunk), 1448)]
    framer = framing.Framer(from_server=True)

    def run() -> list[Any]:
        out = []
        for packet in packets:
            framer.receive_data(packet)
            out += framer.messages()
        return out

    check(run(), one)
    benchmark(run)


def test_1000_updates_in_place(framing: Any, benchmark: Any) -> None:
    one = update()
    chunk = memoryview(one * COUNT)
    framer = framing.Framer(from_server=True)
    check(in_place(framer, chunk), one)
    benchmark(in_place, framer, chunk)


def test_segmented_frame_in_place(framing: Any, benchmark: Any) -> None:
    data = segmented_frame()
    framer = framing.Framer(from_server=True)
    payload = data[8:22] + data[30 : 30 + 524_288] + data[-193:]
    for _ in range(3):
        (frame,) = in_place(framer, memoryview(data))
        assert frame.payload == payload
    benchmark(in_place, framer, memoryview(data))


def test_copy_of_the_same_bytes(benchmark: Any) -> None:
    """The floor under the frame: what the socket does."""
    data = segmented_frame()
    target = memoryview(bytearray(len(data)))

    def run() -> None:
        target[:] = data

    benchmark(run)


def test_1000_updates_out(framing: Any, benchmark: Any) -> None:
    one = update()
    parts = [one[8:20], one[20:]]

    def run() -> list[Any]:
        frame = framing.frame
        return [frame(one[3], parts, flags=0x40) for _ in range(COUNT)]

    assert run() == [[one]] * COUNT
    benchmark(run)


def test_caproto_1000_updates_in_a_chunk(benchmark: Any) -> None:
    pva = pytest.importorskip("caproto.pva")
    from caproto.pva._messages import bytes_needed_for_command

    one = update()
    chunk = memoryview(bytearray(one * COUNT))  # it wants a writable one
    cache = pva.CacheContext()

    def run() -> list[Any]:
        out = []
        left = chunk
        while left:
            header, _, _ = bytes_needed_for_command(
                left, pva.MessageFlags.FROM_SERVER, cache=cache, byte_order=pva.LITTLE_ENDIAN
            )
            end = 8 + header.payload_size
            out.append((header, left[8:end]))
            left = left[end:]
        return out

    assert [bytes(payload) for _, payload in run()] == [one[8:]] * COUNT
    benchmark(run)

"""Frames: from the stream through framing, message, value and Frame to the array; decompressing.

A ClientConnection that monitors the recorded NTNDArray receives frames in place, as from a socket: what a socket would write is
copied into `get_buffer`. memcpy is that copy alone. Each subject is a process of its own, with the twin that it names.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .bench_connection import CID, SID, from_server
from .messages import init, ramp, update
from .rows import CODECS
from .subjects import Work

# Frames in a run.
COUNT = {512: 10_000, 2048: 100}
BUFFERS = 4
IOID = int.from_bytes(init("nd.512")[8:12], "little")  # as recorded
READ = 262_144  # bytes that a socket gives at once, at the most


def subscribed(pvafast: Any) -> Any:
    """A connection whose monitor of the recorded NTNDArray has been answered."""
    messages = pvafast.messages
    conn = pvafast.ClientConnection()
    conn.receive_data(b"\xca\x02\x41\x02\0\0\0\0")
    conn.receive_data(from_server(1, struct.pack("<IH", 87_040, 32_767) + b"\x01\x09anonymous"))
    conn.receive_data(from_server(9, b"\xff"))
    list(conn.events())
    conn.send(messages.CreateChannel(channels=((CID, "nd"),)))
    conn.receive_data(from_server(7, struct.pack("<II", CID, SID) + b"\xff"))
    list(conn.events())
    conn.send(messages.MonitorInit(sid=SID, ioid=IOID, request=pvafast.request.parse("")))
    conn.receive_data(init("nd.512"))
    list(conn.events())
    conn.send(messages.MonitorStart(sid=SID, ioid=IOID))
    return conn


def stream(subject: Any, n: int, way: str, count: int | None = None) -> Work:
    """n × n frames, received in place. pool: into a FramePool; copied: elsewhere, and copied into one; views: no pool."""
    import pvafast
    import pvafast.messages
    import pvafast.request
    from pvafast import ndarray

    assert subject.name == pvafast.BACKEND
    conn = subscribed(pvafast)
    pool = ndarray.FramePool(BUFFERS, n * n * 2)
    if way == "pool":
        conn.allocate = pool.allocate
    make = ndarray.Frame if way == "views" else pool.frame
    source = memoryview(update(f"nd.{n}"))
    size = len(source)
    count = COUNT[n] if count is None else count
    last: list[Any] = [None]

    def run() -> int:
        get_buffer, buffer_updated, events = conn.get_buffer, conn.buffer_updated, conn.events
        found = 0
        for _ in range(count):
            at = 0
            while at < size:
                view = get_buffer()
                k = min(len(view), size - at, READ)
                view[:k] = source[at : at + k]
                buffer_updated(k)
                at += k
                for event in events():
                    last[0] = make(event.value).data
                    found += 1
        return found

    image = np.frombuffer(ramp(n), "<u2").reshape(n, n)
    asked, count = count, BUFFERS + 2  # all buffers are touched
    assert run() == count
    assert np.array_equal(last[0], image)
    assert last[0].__array_interface__["data"][0] % 64 == 0
    taken = pool.statistics
    assert (taken.taken, taken.dropped) == (0 if way == "views" else count, 0)
    count = asked
    return Work(run, count)


def memcpy(subject: Any, n: int, count: int | None = None) -> Work:
    """The same bytes, in the same pieces, into as many buffers."""
    source = memoryview(update(f"nd.{n}"))
    size = len(source)
    count = COUNT[n] if count is None else count
    buffers = [memoryview(np.zeros(size, np.uint8)) for _ in range(BUFFERS)]

    def run() -> None:
        for i in range(count):
            view = buffers[i % BUFFERS]
            for at in range(0, size, READ):
                view[at : at + READ] = source[at : at + READ]

    run()
    assert all(view == source for view in buffers)
    return Work(run, count)


def value_to_array(subject: Any, n: int) -> Work:
    """A Value that was received already: the Frame and its array."""
    import pvafast
    from pvafast import ndarray

    codec = pvafast.Codec()
    found, _ = codec.decode_update(codec.decode_type(init("nd.512"), 14)[0], update(f"nd.{n}"), 13)

    def run() -> None:
        for _ in range(100):
            ndarray.Frame(found).data  # noqa: B018

    assert np.array_equal(ndarray.Frame(found).data, np.frombuffer(ramp(n), "<u2").reshape(n, n))
    return Work(run, 100)


def picture(n: int) -> np.ndarray:
    """A diffraction pattern: few photons, more of them in the middle."""
    y, x = np.mgrid[:n, :n] - n / 2
    return np.random.default_rng(1).poisson(200 / (1 + np.hypot(x, y))).astype(np.uint16)


def packed(codec: str, n: int) -> tuple[Any, np.ndarray]:
    from pvafast import ndarray

    image = picture(n)
    if codec == "jpeg":
        image = np.minimum(image, 255).astype(np.uint8)
    return ndarray.encode(image, codec=codec), image


def decompress(subject: Any, codec: str, n: int) -> Work:
    """Frame.decode into a buffer."""
    from pvafast import ndarray

    value, image = packed(codec, n)
    frame = ndarray.Frame(value)
    out = np.empty_like(image)
    frame.decode(out)
    assert codec == "jpeg" or np.array_equal(out, image)
    return Work(lambda: frame.decode(out), out.nbytes)


def library(subject: Any, codec: str, n: int) -> Work | None:
    """What the library needs for the same pixels: one call, into the same buffer where it can."""
    import imagecodecs

    value, image = packed(codec, n)
    data = value["value"].value
    out = np.empty_like(image)
    flat = out.reshape(-1).view(np.uint8)
    if codec == "bslz4":
        # Of another library, as pvapy calls it. It makes the array, and takes all cores if OpenMP is not told otherwise.
        try:
            import bitshuffle
        except ImportError:
            return None
        found = bitshuffle.decompress_lz4(data, image.shape, image.dtype, 0)
        assert np.array_equal(found, image)
        return Work(lambda: bitshuffle.decompress_lz4(data, image.shape, image.dtype, 0), out.nbytes)
    if codec == "lz4hdf5":  # in one block
        data = imagecodecs.lz4_encode(image.view(np.uint8).reshape(-1), header=False)
    call: dict[str, Callable[[], object]] = {
        "zlib": lambda: imagecodecs.zlib_decode(data, out=flat),
        "lz4": lambda: imagecodecs.lz4_decode(data, header=False, out=flat),
        "lz4hdf5": lambda: imagecodecs.lz4_decode(data, header=False, out=flat),
        "blosc": lambda: imagecodecs.blosc_decode(data, out=flat),
        "jpeg": lambda: imagecodecs.jpeg8_decode(data, out=out),
    }
    call[codec]()
    assert codec == "jpeg" or np.array_equal(out, image)
    return Work(call[codec], out.nbytes)


@pytest.mark.subjects("c", "py", remote=["c", "py"])
@pytest.mark.parametrize("way", ["pool", "copied", "views"])
def test_stream(timed: Callable[..., None], way: str) -> None:
    timed(stream, 512, way, 50)


@pytest.mark.subjects("c", remote=["c"])
def test_memcpy(timed: Callable[..., None]) -> None:
    timed(memcpy, 512, 50)


@pytest.mark.subjects("c", "py", "p4p", remote=["c", "py", "p4p"])
def test_value_to_array(timed: Callable[..., None]) -> None:
    timed(value_to_array, 512)


@pytest.mark.subjects("c", remote=["c"])
@pytest.mark.parametrize("codec", CODECS)
def test_decompress(timed: Callable[..., None], codec: str) -> None:
    pytest.importorskip("imagecodecs")
    timed(decompress, codec, 1024)


@pytest.mark.subjects("c", remote=["c"])
@pytest.mark.parametrize("codec", CODECS)
def test_library(timed: Callable[..., None], codec: str) -> None:
    pytest.importorskip("imagecodecs")
    timed(library, codec, 1024)

"""FramePool: buffers that are used again; shared memory; frames to write to, and for those who take DLPack and buffers."""

from __future__ import annotations

import gc
import os
import pickle
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import corpus
from pvafast import Codec, Update, Value, connection, messages, request
from pvafast._memory import NDArray, address
from pvafast.errors import FrameError
from pvafast.ndarray import Frame, FrameHandle, FramePool, NTNDArray, PoolStatistics, encode
from test_connection_sessions import Puppets
from told import values as told_values

SHM = Path("/dev/shm")


def image(seed: int = 0, shape: tuple[int, ...] = (60, 80), dtype: Any = "<u2") -> NDArray:
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def received(array: NDArray, **options: Any) -> Value:
    """An NTNDArray as it comes in: its arrays are views of bytes."""
    value = encode(array, **options)
    return Codec().decode(value.type, Codec().encode(value))[0]


def statistics(pool: FramePool) -> tuple[int, ...]:
    return tuple(pool.statistics)


# --- frames into buffers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["", "zlib", "lz4", "bslz4"])
def test_frames_come_into_the_buffers(codec: str) -> None:
    if codec:
        pytest.importorskip("imagecodecs")
    pool = FramePool(2, 60 * 80 * 2)
    for seed in range(5):
        frame = pool.frame(received(image(seed), codec=codec, unique_id=seed))
        assert frame is not None
        assert np.array_equal(frame.data, image(seed))
        assert (frame.data.shape, frame.data.dtype, frame.unique_id) == ((60, 80), np.uint16, seed)
        assert not frame.data.flags.writeable
        assert address(frame.data) % 64 == 0
        assert pool.statistics.in_use == 1
        del frame
    assert pool.statistics == PoolStatistics(taken=5, returned=5, dropped=0, blocked=0, allocated=0, in_use=0)


def test_the_ring_goes_round() -> None:
    pool = FramePool(3, 100)
    places = []
    for _ in range(6):
        array = pool.take(100)
        assert array is not None
        places.append(address(array))
        del array
    assert len(set(places[:3])) == 3
    assert places[3:] == places[:3]


def test_nothing_of_the_size_of_a_frame_is_made() -> None:
    pytest.importorskip("imagecodecs")
    picture = image(shape=(512, 512))
    raw, packed = received(picture), received(picture, codec="lz4")
    pool = FramePool(2, picture.nbytes)
    for value in (raw, packed):
        assert pool.frame(value) is not None  # what is made once
        tracemalloc.start()
        for _ in range(10):
            frame = pool.frame(value)
            assert frame is not None
            assert frame.data[3, 4] == picture[3, 4]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 30_000
    assert pool.statistics.taken == 22
    assert pool.statistics.allocated == 0


def test_drop() -> None:
    pool = FramePool(2, 9600)
    value = received(image())
    held = [pool.frame(value), pool.frame(value)]
    assert pool.frame(value) is None
    assert pool.take(1) is None
    assert statistics(pool) == (2, 0, 2, 0, 0, 2)
    held.pop()
    assert pool.frame(value) is not None
    assert statistics(pool) == (3, 2, 2, 0, 0, 1)


def test_allocate() -> None:
    pool = FramePool(1, 9600, on_full="allocate")
    value = received(image())
    held = pool.frame(value)
    more = pool.frame(value)
    assert held is not None
    assert more is not None
    assert np.array_equal(more.data, image())
    assert address(more.data) % 64 == 0
    assert statistics(pool) == (1, 0, 0, 0, 1, 1)
    larger = pool.frame(received(image(shape=(100, 100))))
    assert larger is not None
    assert larger.data.shape == (100, 100)
    assert statistics(pool) == (1, 0, 0, 0, 2, 1)


def test_block() -> None:
    pool = FramePool(1, 9600, on_full="block")
    value = received(image())
    held = [pool.frame(value)]
    timer = threading.Timer(0.05, held.clear)
    timer.start()
    frame = pool.frame(value)
    timer.join()
    assert frame is not None
    assert not held
    assert statistics(pool) == (2, 1, 0, 1, 0, 1)


def test_block_for_a_time() -> None:
    pool = FramePool(1, 9600, on_full="block", timeout=0.01)
    held = pool.take(9600)
    assert held is not None
    assert pool.take(9600) is None
    assert statistics(pool) == (1, 0, 1, 1, 0, 1)


def test_what_does_not_fit() -> None:
    pool = FramePool(1, 9600)
    with pytest.raises(FrameError, match="a frame of 20000 bytes, the buffers of the pool have 9600"):
        pool.frame(received(image(shape=(100, 100))))
    with pytest.raises(ValueError, match="an array of 9601 bytes"):
        pool.take(9601)
    with pytest.raises(ValueError, match="an array of 9608 bytes"):
        pool.take((1201,), "float64")
    assert statistics(pool) == (0, 0, 0, 0, 0, 0)


def test_a_damaged_frame_gives_its_buffer_back() -> None:
    value = received(image(), codec="zlib")
    value["value"] = type(value["value"])("ubyteValue", value["value"].value[::-1].copy())
    pool = FramePool(1, 9600)
    for _ in range(3):
        with pytest.raises(FrameError):
            pool.frame(value)
    assert pool.statistics.in_use == 0


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((0, 10), {}, "a pool of 0 buffers of 10 bytes"),
        ((1, 0), {}, "a pool of 1 buffers of 0 bytes"),
        ((1, 1), {"on_full": "wait"}, "on_full must be 'drop', 'block' or 'allocate', not 'wait'"),
    ],
)
def test_no_pool(arguments: tuple[int, int], options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as error:
        FramePool(*arguments, **options)
    assert str(error.value) == text


# --- who holds a buffer -----------------------------------------------------------------------------------------------


def capsule(array: NDArray) -> Any:
    return array.__dlpack__()


@pytest.mark.parametrize(
    "holder",
    [
        lambda array: array,
        lambda array: array[3:5, ::-2].T,
        lambda array: array.view(np.uint8)[1:].reshape(-1)[7:9],
        lambda array: memoryview(array),
        lambda array: memoryview(array).cast("B")[5:9],
        lambda array: np.frombuffer(memoryview(array).cast("B"), np.uint8)[3:4],
        lambda array: np.lib.stride_tricks.as_strided(array, (2,), (4,)),
        lambda array: [array[:, :1]],
        capsule,
    ],
)
def test_a_buffer_comes_back_with_its_last_view(holder: Any) -> None:
    pool = FramePool(1, 9600)
    array = pool.take((60, 80), "u2")
    assert array is not None
    held = holder(array)
    del array
    gc.collect()
    assert pool.statistics.in_use == 1
    assert pool.take(1) is None
    del held
    assert pool.statistics == PoolStatistics(1, 1, 1, 0, 0, 0)
    assert pool.take(1) is not None


def test_what_is_held_is_not_written_over() -> None:
    pool = FramePool(2, 9600)
    held = pool.frame(received(image(1)))
    assert held is not None
    corner = held.data[10:20, 10:20]
    del held
    for seed in range(2, 9):
        assert pool.frame(received(image(seed))) is not None
    assert np.array_equal(corner, image(1)[10:20, 10:20])


def test_arrays_outlive_the_pool() -> None:
    pool = FramePool(2, 9600)
    frame = pool.frame(received(image()))
    assert frame is not None
    del pool
    gc.collect()
    assert np.array_equal(frame.data, image())
    del frame


def test_buffers_in_cycles_come_back() -> None:
    """The collector may run while the pool is at work, in the same thread: no lock can be waited for then."""
    pool = FramePool(4, 100, on_full="block", timeout=10)
    gc.collect()
    old = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(100):
            array = pool.take(100)
            assert array is not None
            ring: list[Any] = [array]
            ring.append(ring)
            del array, ring
            if pool.statistics.in_use == pool.count:
                gc.collect()
    finally:
        gc.set_threshold(*old)
    gc.collect()
    assert pool.statistics.taken == pool.statistics.returned == 100


def test_many_threads() -> None:
    """No two arrays have a buffer at the same time: what each thread wrote is what it reads."""
    pool = FramePool(3, 4096, on_full="block")
    wrong = []

    def work(mark: int) -> None:
        for _ in range(300):
            array = pool.take(512, np.int64)
            assert array is not None
            array[:] = mark
            view = array[100:400]
            del array
            if not (view == mark).all():
                wrong.append(mark)
            del view

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert pool.statistics[:3] == (1800, 1800, 0)
    assert pool.statistics.in_use == 0


# --- closing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_close(shared: bool) -> None:
    with FramePool(2, 9600, shared=shared) as pool:
        frame = pool.frame(received(image()))
        assert not pool.closed
    assert pool.closed
    pool.close()
    with pytest.raises(ValueError, match="the pool is closed"):
        pool.take(1)
    assert pool.allocate(1) is None
    assert pool.statistics == PoolStatistics(1, 0, 0, 0, 0, 1)
    assert frame is not None
    assert np.array_equal(frame.data, image())
    del frame
    assert pool.statistics == PoolStatistics(1, 1, 0, 0, 0, 0)


def test_closing_wakes_all_who_wait() -> None:
    pool = FramePool(1, 10, on_full="block")
    held = pool.take(10)
    ended = []

    def wait() -> None:
        with pytest.raises(ValueError, match="closed"):
            pool.take(10)
        ended.append(True)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    while pool.statistics.blocked < 3:
        pass
    pool.close()
    for thread in threads:
        thread.join()
    assert len(ended) == 3
    assert held is not None


# --- shared memory ----------------------------------------------------------------------------------------------------


def again(handle: FrameHandle) -> FrameHandle:
    """As another process gets it."""
    data = pickle.dumps(handle)
    assert len(data) < 500
    found = pickle.loads(data)
    assert isinstance(found, FrameHandle)
    return found


@pytest.mark.parametrize("cut", [lambda a: a, lambda a: a[5:50, 3:70], lambda a: a[::-1, ::3], lambda a: a.T])
def test_a_handle_opens_the_same_memory(cut: Any) -> None:
    pool = FramePool(2, 9600, shared=True)
    assert pool.shared
    frame = pool.frame(received(image()))
    assert frame is not None
    whole = again(pool.handle(frame)).open()
    part = again(pool.handle(cut(frame.data))).open()
    for found, array in ((whole, frame.data), (part, cut(frame.data))):
        assert np.array_equal(found, array)
        assert (found.dtype, found.strides) == (array.dtype, array.strides)
        with pytest.raises(ValueError):
            found[0, 0] = 1
        with pytest.raises(ValueError):
            found.flags.writeable = True
    frame.writable()[7, 9] = 54321
    assert whole[7, 9] == 54321


def test_a_reader_sees_that_a_buffer_was_used_again() -> None:
    pool = FramePool(1, 9600, shared=True)
    frame = pool.frame(received(image(1)))
    assert frame is not None
    handle = again(pool.handle(frame))
    view = handle.open()
    assert handle.current
    del frame
    assert handle.current  # free, not used
    frame = pool.frame(received(image(2)))
    assert frame is not None
    assert not handle.current
    assert np.array_equal(view, image(2))
    assert again(pool.handle(frame)).current


def test_a_name_that_is_used_again_is_another_segment() -> None:
    name = f"pvafast-test-{os.getpid()}"
    handles = []
    for seed in range(3):
        pool = FramePool(1, 9600, name=name)
        assert pool.shared
        assert pool.name == name
        frame = pool.frame(received(image(seed)))
        assert frame is not None
        handles.append(pool.handle(frame))
        assert np.array_equal(handles[-1].open(), image(seed))
        for old in handles[:-1]:
            assert not old.current
            with pytest.raises(FileNotFoundError):
                old.open()
        pool.close()


def segments() -> set[str]:
    return {path.name for path in SHM.iterdir()}


@pytest.mark.skipif(not SHM.exists(), reason="needs /dev/shm")
def test_segments_go_with_their_pools() -> None:
    before = segments()
    pool = FramePool(2, 9600, shared=True)
    assert segments() - before == {pool.name}
    frame = pool.frame(received(image()))
    assert frame is not None
    handle = pool.handle(frame)
    view = handle.open()
    other = FramePool(2, 9600, shared=True)
    unseen = other.handle(other.take(10))  # type: ignore[arg-type]
    del pool, other
    gc.collect()
    assert segments() <= before
    # What is mapped stays.
    assert np.array_equal(frame.data, image())
    assert np.array_equal(view, image())
    assert handle.current
    with pytest.raises(FileNotFoundError):
        unseen.open()
    assert not unseen.current


def test_segments_are_unmapped() -> None:
    """By the pool's process when the last array is gone, by readers when they open a frame of another pool."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    pool = FramePool(1, 9600, shared=True)
    name = pool.name
    assert name is not None
    array = pool.take(10)
    assert array is not None
    view: Any = pool.handle(array).open()
    del pool
    assert maps.read_text().count(name) == 2
    del array
    assert maps.read_text().count(name) == 1
    other = FramePool(1, 9600, shared=True)
    pool_array = other.take(10)
    assert pool_array is not None
    other.handle(pool_array).open()
    assert maps.read_text().count(name) == 1
    del view
    assert maps.read_text().count(name) == 0


def test_handles_of_what_is_not_shared() -> None:
    pool = FramePool(1, 9600)
    assert not pool.shared
    assert pool.name is None
    array = pool.take(10)
    assert array is not None
    with pytest.raises(ValueError, match="not in shared memory"):
        pool.handle(array)
    shared = FramePool(1, 9600, shared=True)
    for other in (array, np.zeros(10), np.zeros(0)):
        with pytest.raises(ValueError, match="does not lie in this pool"):
            shared.handle(other)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="reserved where the system can")
@pytest.mark.skipif(not SHM.exists(), reason="needs /dev/shm")
def test_more_than_there_is() -> None:
    before = segments()
    space = os.statvfs(SHM)
    with pytest.raises(OSError):
        FramePool(1, space.f_frsize * space.f_bavail + (1 << 30), shared=True)
    assert segments() <= before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_take_what_is_shared() -> None:
    code = """
import os, gc, warnings
from pvafast.ndarray import FramePool
warnings.simplefilter("ignore")
pool = FramePool(2, 100, shared=True)
array = pool.take(10)
array[:] = 7
child = os.fork()
if not child:
    try:
        pool.take(10)
    except RuntimeError:
        seen = pool.handle(array).open()[0] == 7
        del pool, array
        gc.collect()
        os._exit(0 if seen else 1)
    os._exit(2)
assert os.waitpid(child, 0)[1] == 0
assert pool.handle(array).open()[0] == 7
print(pool.statistics)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "in_use=1" in done.stdout


def test_a_process_that_ends_cleans_up() -> None:
    """With frames and handles still about, as globals."""
    code = """
from pvafast.ndarray import FramePool
pool = FramePool(2, 100, shared=True)
array = pool.take(10)
view = pool.handle(array).open()
cycle = [array]; cycle.append(cycle)
print(pool.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    if SHM.exists():
        assert done.stdout.strip() not in segments()


# --- writable, DLPack, buffers ----------------------------------------------------------------------------------------


def test_frames_to_write_to() -> None:
    """What was decompressed, swapped or lies in a pool."""
    pool = FramePool(1, 9600)
    pooled = pool.frame(received(image()))
    assert pooled is not None
    for frame in (Frame(received(image(), codec="zlib")), pooled):
        array = frame.writable()
        assert address(array) == address(frame.data)
        array[3, 4] = 999
        assert frame.data[3, 4] == 999
        copy = frame.writable(copy=True)
        copy[3, 4] = 5
        assert address(copy) != address(array)


def test_frames_not_to_write_to() -> None:
    own = image()
    for frame in (Frame(received(image())), Frame(encode(own))):
        with pytest.raises(ValueError, match="not the library's"):
            frame.writable()
        for copy in (None, True):
            array = frame.writable(copy=copy)
            array[:] = 0
            assert np.array_equal(frame.data, image())
    assert np.array_equal(own, image())


def test_aligned() -> None:
    data = Codec().encode(encode(image()))
    type = encode(image()).type
    seen = set()
    for shift in range(64):
        value, _ = Codec().decode(type, bytes(shift) + data, shift)
        seen.add(address(Frame(value).data) % 64)
        frame = Frame(value, aligned=True)
        assert address(frame.data) % 64 == 0
        assert np.array_equal(frame.data, image())
        assert frame.data is frame.data
        # What lies well is not copied.
        assert (address(Frame(value).data) == address(frame.data)) == (address(Frame(value).data) % 64 == 0)
    assert len(seen) > 8


def test_dlpack() -> None:
    raw = Frame(received(image()))
    packed = Frame(received(image(), codec="zlib"))
    assert raw.__dlpack_device__() == packed.__dlpack_device__() == (1, 0)
    for frame in (raw, packed):
        found = np.from_dlpack(frame)
        assert np.array_equal(found, image())
        if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
            assert address(found) == address(frame.data)
            assert address(np.from_dlpack(frame, copy=True)) != address(frame.data)
    assert address(np.from_dlpack(packed)) == address(packed.data)


class Consumer:
    """One that asks in a way of its own."""

    def __init__(self, frame: Frame, **how: Any) -> None:
        self.frame = frame
        self.how = how

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.frame.__dlpack_device__()

    def __dlpack__(self, **_: Any) -> Any:
        return self.frame.__dlpack__(**self.how)


def test_dlpack_as_consumers_ask_for_it() -> None:
    raw = Frame(received(image()))
    packed = Frame(received(image(), codec="zlib"))
    # Of before DLPack 1.0, where nothing could be read-only.
    old = np.from_dlpack(Consumer(raw))
    assert np.array_equal(old, image())
    assert address(old) != address(raw.data)
    with pytest.raises(BufferError, match="must not be copied"):
        raw.__dlpack__(copy=False)
    assert address(np.from_dlpack(Consumer(packed, copy=False))) == address(packed.data)
    assert address(np.from_dlpack(Consumer(packed, dl_device=(1, 0)))) == address(packed.data)
    with pytest.raises(BufferError, match="not of device"):
        raw.__dlpack__(dl_device=(2, 0))


def frames_of_all_kinds(pool: FramePool) -> list[Frame]:
    pooled = pool.frame(received(image()))
    assert pooled is not None
    return [Frame(received(image())), Frame(received(image(), codec="zlib")), pooled]


def test_array_api_strict() -> None:
    strict = pytest.importorskip("array_api_strict")
    for frame in frames_of_all_kinds(FramePool(1, 9600)):
        found = strict.from_dlpack(frame)
        assert found.dtype == strict.uint16
        assert int(strict.sum(found, dtype=strict.uint64)) == int(image().sum())
        if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
            assert address(np.asarray(found._array)) == address(frame.data)


def test_jax() -> None:
    jax = pytest.importorskip("jax")
    pool = FramePool(1, 9600)
    for frame in frames_of_all_kinds(pool):
        found = jax.numpy.from_dlpack(frame)
        assert np.array_equal(found, image())
        # It takes what lies at a multiple of 64 as it is.
        assert (found.unsafe_buffer_pointer() == address(frame.data)) == (address(frame.data) % 64 == 0)
    del frame
    assert pool.statistics.in_use == 1
    del found
    gc.collect()
    assert pool.statistics.in_use == 0


def test_a_capsule_holds_the_buffer() -> None:
    pool = FramePool(1, 9600)
    frame: Any = pool.frame(received(image()))
    array: Any = np.from_dlpack(frame)
    del frame
    assert pool.take(1) is None
    assert np.array_equal(array, image())
    del array
    assert pool.take(1) is not None


def test_a_frame_is_a_buffer() -> None:
    raw = Frame(received(image()))
    packed = Frame(received(image(), codec="zlib"))
    for frame in (raw, packed):
        view = frame.__buffer__(0)
        assert (view.shape, view.format, view.readonly) == ((60, 80), "H", True)
        assert view.tobytes() == image().tobytes()
    assert not packed.__buffer__(1).readonly
    with pytest.raises(BufferError, match="not the library's"):
        raw.__buffer__(1)
    if sys.version_info >= (3, 12):
        assert memoryview(raw).tobytes() == image().tobytes()  # type: ignore[arg-type]


# --- received in place ------------------------------------------------------------------------------------------------


class Stream:
    """A client with a monitor of an NTNDArray, and what its server sends."""

    def __init__(self, byteorder: str = "little") -> None:
        self.client = connection.ClientConnection()
        self.server = connection.ServerConnection(byteorder=byteorder)
        self.type = NTNDArray().type
        self.settle()
        self.tell(messages.ConnectionValidated())
        self.ask(messages.CreateChannel(channels=((1, "frames"),)))
        self.tell(messages.CreateChannelReply(cid=1, sid=1))
        self.ask(messages.MonitorInit(sid=1, ioid=5, request=request.parse("field()")))
        self.tell(messages.MonitorInitReply(ioid=5, type=self.type))
        self.ask(messages.MonitorStart(sid=1, ioid=5))

    def settle(self) -> None:
        for sender, receiver in ((self.server, self.client), (self.client, self.server)) * 2:
            receiver.receive_data(b"".join(sender.data_to_send()))
            list(receiver.events())

    def ask(self, message: Any) -> None:
        self.server.receive_data(b"".join(self.client.send(message)))
        list(self.server.events())
        self.settle()

    def tell(self, message: Any) -> None:
        self.client.receive_data(b"".join(self.server.send(message)))
        list(self.client.events())
        self.settle()

    def update(self, value: Value, segmented: bool = False) -> bytes:
        """The bytes of an update; segmented: as pvAccessCPP does it, the pixels in a segment of their own."""
        message = messages.MonitorUpdate(ioid=5, value=value)
        data = b"".join(self.server.send(message))
        if not segmented:
            return data
        pixels = value["value"].value
        at = data.index(
            pixels.astype(pixels.dtype.newbyteorder("<" if not data[2] & 0x80 else ">")).tobytes()
        )
        order = ">" if data[2] & 0x80 else "<"
        pieces = data[8:at], data[at : at + pixels.nbytes], data[at + pixels.nbytes :]
        return b"".join(
            struct.pack(f"{order}4BI", 0xCA, 2, data[2] | kind, data[3], len(piece)) + piece
            for kind, piece in zip((0x10, 0x30, 0x20), pieces, strict=True)
        )

    def receive(self, data: bytes, most: int = 1 << 20) -> Iterator[Update]:
        """In place, up to `most` bytes at a time."""
        yield from in_place(self.client, data, most)


def in_place(client: Any, data: bytes, most: int = 1 << 20) -> Iterator[Any]:
    """The events of the next bytes, which are received into `get_buffer`."""
    whole = memoryview(data)
    while whole:
        view = client.get_buffer()
        n = min(len(view), len(whole), most)
        view[:n] = whole[:n]
        client.buffer_updated(n)
        whole = whole[n:]
        yield from client.events()


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("most", [1 << 20, 65536, 1448])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f8"])
def test_frames_received_in_place_are_views_that_begin_at_a_multiple_of_64(
    dtype: str, most: int, segmented: bool
) -> None:
    stream = Stream()
    seen = 0
    for seed in range(5):
        picture = image(seed, (300, 400), dtype)
        # The first is whole, later ones bring other fields: other BitSets, so that the pixels begin elsewhere.
        value = encode(picture, unique_id=seed)
        if seed:
            value.unmark()
            for name in ("value", "uniqueId", "alarm.severity", "display.units")[: seed + 1]:
                if name in value.type:
                    value.mark(name)
        for update in stream.receive(stream.update(value, segmented), most):
            frame = Frame(update.value)
            assert np.array_equal(frame.data, picture)
            # The first may come whole with what was small until then.
            assert address(frame.data) % 64 == 0 or seed == 0
            assert np.shares_memory(frame.data, np.frombuffer(update.frame.payload, np.uint8))
            assert address(frame.writable()) == address(frame.data)
            seen += 1
    assert seen == 5


def test_frames_of_the_other_byte_order_are_swapped_to_where_they_suit() -> None:
    stream = Stream("big")
    for seed in range(3):
        picture = image(seed, (300, 400), "u2")
        for update in stream.receive(stream.update(encode(picture))):
            frame = Frame(update.value)
            assert np.array_equal(frame.data, picture)
            assert address(frame.data) % 64 == 0
            assert frame.writable().flags.writeable


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_frames_received_into_a_pool(shared: bool, segmented: bool) -> None:
    """Nothing is copied, nothing of the size of a frame is made: the bytes are in the pool as they come."""
    stream = Stream()
    pool = FramePool(3, 1024 * 1024 * 2, shared=shared)
    stream.client.allocate = pool.allocate
    pictures = [image(seed, (1024, 1024)) for seed in range(3)]
    data = [stream.update(encode(picture), segmented) for picture in pictures]

    def take(stream: Stream, k: int) -> int:
        seen = 0
        for update in stream.receive(data[k % 3]):
            frame = pool.frame(update.value)
            assert frame is not None
            assert pool.statistics.taken == k + 1
            assert np.shares_memory(frame.data, np.frombuffer(update.frame.payload, np.uint8))
            assert address(frame.data) % 64 == 0
            assert np.array_equal(frame.data[::16], pictures[k % 3][::16])
            if shared:
                assert np.array_equal(pool.handle(frame).open()[::16], pictures[k % 3][::16])
            seen += 1
        return seen

    assert take(stream, 0) == 1
    tracemalloc.start()
    assert sum(take(stream, k) for k in range(1, 10)) == 9
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 700_000  # two receive blocks of 256 KiB, and what comparing makes
    # The last value stays with its monitor: updates are laid over it.
    assert pool.statistics == PoolStatistics(10, 9, 0, 0, 0, 1)
    del stream
    gc.collect()
    assert pool.statistics.in_use == 0


@pytest.mark.parametrize("segmented", [False, True])
def test_frames_that_find_the_pool_full(segmented: bool) -> None:
    """They are received into other memory, and dropped by `frame`; later ones are in the pool again."""
    stream = Stream()
    pool = FramePool(2, 512 * 512 * 2)
    stream.client.allocate = pool.allocate
    held: list[Frame] = []
    found = []
    for seed in range(8):
        if seed == 5:
            held.clear()
        picture = image(seed, (512, 512))
        for update in stream.receive(stream.update(encode(picture, unique_id=seed), segmented)):
            frame = pool.frame(update.value)
            del update
            if frame is not None:
                assert np.array_equal(frame.data, picture)
                found.append(frame.unique_id)
                held.append(frame)
    assert found == [0, 1, 5, 6]
    assert pool.statistics.dropped == 4


def test_frames_that_are_received_elsewhere_are_copied() -> None:
    """Small ones, larger ones than the pool's, compressed ones, ones that lie badly: all end in the pool, aligned."""
    stream = Stream()
    pool = FramePool(6, 512 * 512 * 2)
    stream.client.allocate = pool.allocate
    for picture, options in (
        (image(1, (60, 80)), {}),
        (image(2, (512, 500)), {"codec": "zlib", "options": {"level": 0}}),
    ):
        (update,) = stream.receive(stream.update(encode(picture, **options)))
        frame = pool.frame(update.value)
        assert frame is not None
        assert np.array_equal(frame.data, picture)
        assert address(frame.data) % 64 == 0
        assert not np.shares_memory(frame.data, np.frombuffer(update.frame.payload, np.uint8))
    big = image(3, (1000, 1000))
    (update,) = stream.receive(stream.update(encode(big)))
    assert np.array_equal(Frame(update.value).data, big)
    with pytest.raises(FrameError, match="2000000 bytes"):
        pool.frame(update.value)
    # In the pool, but not at a multiple of 64.
    memory = pool.allocate(500_000)
    assert memory is not None
    payload = Codec().encode(encode(image(4, (512, 480))))
    for shift in (0, 1):
        memory[shift : shift + len(payload)] = np.frombuffer(payload, np.uint8)
        value, _ = Codec().decode(NTNDArray().type, memory.data, shift)
        frame = pool.frame(value)
        assert frame is not None
        assert np.array_equal(frame.data, image(4, (512, 480)))
        assert address(frame.data) % 64 == 0


class InPlace(Puppets):
    """The client receives in place, and into a pool; its frames."""

    def __init__(self, talk: corpus.Talk) -> None:
        self.pool = FramePool(8, 1 << 20)
        self.frames: list[tuple[Value, bool]] = []
        super().__init__(talk)

    def hear(self, listener: Any, data: bytes) -> Iterator[Any]:
        if listener is not self.client:
            yield from super().hear(listener, data)
            return
        listener.allocate = self.pool.allocate
        for event in in_place(listener, data):
            value = getattr(event, "value", getattr(getattr(event, "message", None), "value", None))
            if value is not None and value["value"] is not None:
                taken = self.pool.statistics.taken
                frame = self.pool.frame(value)
                assert frame is not None
                assert np.array_equal(frame.data, Frame(value).data)
                assert address(frame.data) % 64 == 0
                self.frames.append((value, self.pool.statistics.taken == taken))
            yield event


@pytest.mark.parametrize(
    ("name", "count"),
    [("pvapy_ndarray", 1), ("p4p_monitor_nd", 6), ("bench_nd512", 1), ("p4p_ndarray_types", 0)],
)
def test_frames_of_recorded_sessions(name: str, count: int) -> None:
    """pvAccessCPP sends them in segments, pvxs whole; later updates are other BitSets. All large ones are received in the pool."""
    (talk,) = corpus.sessions()[name].talks
    frames = InPlace(talk).frames
    told = told_values(name, messages.GetReply, messages.MonitorUpdate)
    assert [value for value, _ in frames] == [value for _, value in told if value["value"] is not None]
    assert sum(in_pool for _, in_pool in frames) == count
    assert all(in_pool == (value["value"].value.nbytes > 65_536) for value, in_pool in frames)


# --- the example ------------------------------------------------------------------------------------------------------


def test_two_worker_processes_see_the_frames() -> None:
    example = Path(__file__).parents[1] / "examples" / "shared_frames.py"
    before = segments() if SHM.exists() else set()
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    *answers, statistics = done.stdout.splitlines()
    # Every other line of frame k is k + 3, the others are k; each worker has every other frame, in order.
    assert sorted(answers) == sorted(f"worker {k % 2}: frame {k}, mean {k + 1.5}" for k in range(20))
    assert statistics == str(
        PoolStatistics(taken=20, returned=20, dropped=0, blocked=0, allocated=0, in_use=0)
    )
    if SHM.exists():
        assert segments() <= before

"""FramePool: frames in a ring of buffers that are used again and again, in shared memory if other processes want to see them.

A buffer belongs to the arrays over it, however they were cut, passed on or exported: it is free again when the last one is gone,
in whatever thread, also after the pool itself.
"""

from __future__ import annotations

import threading
import weakref
from math import prod
from queue import Empty, SimpleQueue
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias, final

import numpy as np

from .. import _backend, _memory
from .._memory import ALIGNMENT, NDArray, address, extent
from ..errors import FrameError
from .frame import MAX_BYTES, ByteOrder, Frame
from .shared import PAGE, FrameHandle, Segment

Value = _backend.value.Value

OnFull: TypeAlias = Literal["drop", "block", "allocate"]

# What a message has beside its pixels, and what receiving it in place takes: 32 KiB behind segments, up to 64 bytes before.
_ROOM: Final = 1 << 16


class PoolStatistics(NamedTuple):
    """What a pool has done. All count buffers, from its beginning on.

    taken: handed out; of these `returned` are free again and `in_use` are not. dropped: frames that found none free and were
    given up. blocked: how often one was waited for. allocated: frames that got memory outside of the ring.
    """

    taken: int
    returned: int
    dropped: int
    blocked: int
    allocated: int
    in_use: int


@final
class FramePool:
    """A ring of `count` buffers for frames of up to `nbytes` bytes, which begin at multiples of 64 bytes. Thread-safe.

    on_full: what a frame does that finds no buffer free: "drop": it is given up. "block": it waits, for at most `timeout` seconds
    (None: for ever), and is then given up. "allocate": it gets memory outside of the ring. All are counted: `statistics`.

    shared: the buffers lie in shared memory, named `name` or by chance; `handle` tells other processes where a frame lies. The name
    is gone when the pool is closed or dropped or its process exits; what is mapped stays valid. A shared pool belongs to the process
    that made it: a forked one gets RuntimeError.

    Memory is reserved for the buffers, and 64 KiB more for each, and is taken from the system as they are used.
    """

    __slots__ = (
        "__weakref__",
        "_close",
        "_counts",
        "_lock",
        "_ring",
        "count",
        "nbytes",
        "on_full",
        "timeout",
    )

    count: int
    nbytes: int
    on_full: OnFull
    timeout: float | None

    def __init__(
        self,
        count: int,
        nbytes: int,
        *,
        on_full: OnFull = "drop",
        timeout: float | None = None,
        shared: bool = False,
        name: str | None = None,
    ) -> None:
        if count < 1 or nbytes < 1:
            raise ValueError(f"a pool of {count} buffers of {nbytes} bytes")
        if on_full not in ("drop", "block", "allocate"):
            raise ValueError(f"on_full must be 'drop', 'block' or 'allocate', not {on_full!r}")
        self.count = count
        self.nbytes = nbytes
        self.on_full = on_full
        self.timeout = timeout
        # taken, dropped, blocked, allocated.
        self._counts = [0, 0, 0, 0]
        self._lock = threading.Lock()
        self._ring = ring = _Ring(count, nbytes, shared or name is not None, name)
        self._close = weakref.finalize(self, ring.close)

    @property
    def shared(self) -> bool:
        """Whether other processes can see the frames."""
        return self._ring.segment is not None

    @property
    def name(self) -> str | None:
        """Of the shared memory."""
        segment = self._ring.segment
        return None if segment is None else segment.name

    @property
    def closed(self) -> bool:
        """Whether no frames are taken any more."""
        return not self._close.alive

    @property
    def statistics(self) -> PoolStatistics:
        """What the pool has done so far."""
        with self._lock:
            taken, dropped, blocked, allocated = self._counts
            in_use = max(0, min(self._ring.in_use(), taken))
        return PoolStatistics(taken, taken - in_use, dropped, blocked, allocated, in_use)

    def frame(
        self,
        value: Value,
        /,
        *,
        dtype: Any = None,
        byteorder: ByteOrder = "little",
        max_bytes: int = MAX_BYTES,
    ) -> Frame | None:
        """The frame of an NTNDArray, its `data` in a buffer of the pool; None if it was given up for want of one.

        It is decompressed into the buffer, or copied; one that was received into the pool (see `allocate`) stays where it lies, if
        that is at a multiple of 64. Options as of Frame. Raises FrameError as Frame and its `data` do, and for a frame that is larger
        than a buffer (unless on_full is "allocate").
        """
        frame = Frame(value, dtype=dtype, byteorder=byteorder, max_bytes=max_bytes)
        if not frame.codec:
            start = address(frame.data)
            if start % ALIGNMENT == 0 and self._ring.number(start, start + frame.data.nbytes) is not None:
                return frame
        if frame.nbytes > self.nbytes and self.on_full != "allocate":
            raise FrameError(f"a frame of {frame.nbytes} bytes, the buffers of the pool have {self.nbytes}")
        out = self.take(frame.shape, frame.dtype)
        if out is None:
            return None
        frame.decode(out, keep=True)
        return frame

    def take(self, shape: int | tuple[int, ...], dtype: Any = np.uint8) -> NDArray | None:
        """A writable array in a free buffer, not initialized; None where on_full says so.

        Raises ValueError if it is larger than a buffer (unless on_full is "allocate"), and when the pool is closed.
        """
        shape = shape if isinstance(shape, tuple) else (shape,)
        dtype = np.dtype(dtype)
        nbytes = prod(shape) * dtype.itemsize
        if nbytes > self.nbytes:
            if self.on_full != "allocate":
                raise ValueError(f"an array of {nbytes} bytes, the buffers of the pool have {self.nbytes}")
            number = None
        else:
            number = self._number()
        if number is not None:
            return np.ndarray(shape, dtype, self._lend(number))
        if self.on_full != "allocate":
            self._counted(_DROPPED)
            return None
        self._counted(_ALLOCATED)
        return _memory.empty(shape, dtype)

    def allocate(self, nbytes: int) -> NDArray | None:
        """Bytes in a free buffer, for a message with a frame in it; None at once if none is free or so many do not fit.

        For `allocate` of a connection or framer: large messages are then received into the pool, and `frame` need not copy.
        """
        ring = self._ring
        if nbytes > ring.capacity or ring.closed:
            return None
        try:
            number = ring.free.get_nowait()
        except Empty:
            return None
        if number is None:  # closed meanwhile
            ring.free.put(None)
            return None
        return self._lend(number)[:nbytes]

    def handle(self, array: NDArray | Frame) -> FrameHandle:
        """Where an array of this pool lies, for other processes. Raises ValueError if the pool is not shared, or not the array's."""
        segment = self._ring.segment
        if segment is None:
            raise ValueError("the pool is not in shared memory: FramePool(..., shared=True)")
        data = array.data if isinstance(array, Frame) else array
        number = self._ring.number(*extent(data))
        if number is None:
            raise ValueError("the array does not lie in this pool")
        return segment.handle(data, number)

    def close(self) -> None:
        """Take no more frames; who waits for a buffer gets ValueError. Frames that are out stay valid, also in other processes."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        where = f" in {self.name}" if self.shared else ""
        return f"<FramePool {self.count} × {self.nbytes} bytes{where}, {self._ring.in_use()} in use>"

    def _number(self) -> int | None:
        """Of a free buffer. ValueError when the pool is closed."""
        ring = self._ring
        number = None
        if not ring.closed:
            try:
                number = ring.free.get_nowait()
            except Empty:
                if self.on_full != "block":
                    return None
                self._counted(_BLOCKED)
                try:
                    number = ring.free.get(timeout=self.timeout)
                except Empty:
                    return None
            if number is not None:
                return number
            ring.free.put(None)  # for the others who wait
        raise ValueError("the pool is closed")

    def _lend(self, number: int) -> NDArray:
        self._counted(_TAKEN)
        return self._ring.lend(number)

    def _counted(self, what: int) -> None:
        with self._lock:
            self._counts[what] += 1


_TAKEN, _DROPPED, _BLOCKED, _ALLOCATED = range(4)


@final
class _Ring:
    """The memory of a pool, and which buffers are free. Lives as long as the pool or any array in it."""

    def __init__(self, count: int, nbytes: int, shared: bool, name: str | None) -> None:
        self.count = count
        self.capacity = -(-nbytes // PAGE) * PAGE + _ROOM
        # Numbers of free buffers, the one that has been free for longest first; None: the pool is closed.
        # put() may be called by finalisers, whatever the thread is doing: that is what SimpleQueue promises.
        self.free: SimpleQueue[int | None] = SimpleQueue()
        self.closed = False
        self.segment: Segment | None = None
        total = count * self.capacity
        if shared:
            self.segment = Segment(count, total, name)
            self.start = self.segment.start
        else:
            self.memory = _memory.allocate(total + ALIGNMENT - 1)
            self.start = address(self.memory) + _memory.align(self.memory)
        for number in range(count):
            self.free.put(number)

    def lend(self, number: int) -> NDArray:
        """The bytes of a buffer that was free."""
        lease = _memory.Lease(self.start + number * self.capacity, self.capacity, self.give_back, number)
        if self.segment is not None:
            self.segment.take(number)
        return np.asarray(lease)

    def give_back(self, number: int) -> None:
        """Nobody holds the buffer any more. Called by finalisers."""
        self.free.put(number)

    def number(self, start: int, stop: int) -> int | None:
        """Of the buffer that holds the bytes at these addresses; None if they are none, or lie elsewhere."""
        number = (start - self.start) // self.capacity
        if start < stop and 0 <= number < self.count and stop <= self.start + (number + 1) * self.capacity:
            return number
        return None

    def in_use(self) -> int:
        return self.count - self.free.qsize() + self.closed

    def close(self) -> None:
        self.closed = True
        self.free.put(None)
        if self.segment is not None:
            self.segment.unlink()

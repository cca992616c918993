"""Shared memory for the frames of a pool: segments, and the handles by which other processes find a frame in them.

A segment begins with eight-byte words: magic, token (chance: of this segment, of whatever name), whether its pool is closed, and
the generation of each buffer, which counts how often it was taken. The buffers begin at a page.
"""

from __future__ import annotations

import mmap
import os
import secrets
import sys
import threading
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from struct import Struct
from typing import Any, Final, final

import numpy as np

from .._memory import NDArray, address

if sys.platform != "win32":
    # What multiprocessing.shared_memory is made of. It has no way to map for reading only, and until Python 3.13 none
    # to map without telling the resource tracker, which then would unlink what belongs to another process.
    import _posixshmem  # type: ignore[import-not-found]

PAGE: Final = 4096
_MAGIC: Final = 0x4C4F4F5046415650
_TOKEN, _CLOSED, _GENERATIONS = 8, 16, 24
_WORD: Final = Struct("=Q")
# How many segments a process keeps mapped for the handles that it opens: mapping one for each frame would cost a page fault a page.
_KEPT: Final = 8


@final
class Segment:
    """The shared memory of a pool, for the process that made it. nbytes: for the buffers, from `start` (an address) on."""

    def __init__(self, count: int, nbytes: int, name: str | None) -> None:
        """OSError if there is not so much shared memory, or the name is taken."""
        first = -(-(_GENERATIONS + count * _WORD.size) // PAGE) * PAGE
        self._memory = memory = SharedMemory(name, create=True, size=first + nbytes)
        self.name = memory.name
        self.process = os.getpid()
        self.token = secrets.randbits(64)
        self.generations = [0] * count
        try:
            _reserve(self.name, first + nbytes)
        except OSError:
            memory.close()
            memory.unlink()
            raise
        # The address alone: a view would keep the segment from being closed.
        self.base = address(np.frombuffer(self._words(), np.uint8))
        self.start = self.base + first
        self._put(0, _MAGIC)
        self._put(_TOKEN, self.token)

    def take(self, buffer: int) -> None:
        """The buffer is used again. RuntimeError in a process that did not make the segment."""
        if os.getpid() != self.process:
            raise RuntimeError("a shared pool belongs to the process that made it")
        self.generations[buffer] += 1
        self._put(_GENERATIONS + buffer * _WORD.size, self.generations[buffer])

    def handle(self, array: NDArray, buffer: int) -> FrameHandle:
        """Where an array in that buffer lies."""
        return FrameHandle(
            name=self.name,
            token=self.token,
            offset=address(array) - self.base,
            shape=array.shape,
            strides=array.strides,
            dtype=array.dtype.str,
            buffer=buffer,
            generation=self.generations[buffer],
        )

    def unlink(self) -> None:
        """The name is gone; what is mapped stays."""
        if os.getpid() == self.process:
            self._put(_CLOSED, 1)
            self._memory.unlink()

    def _put(self, place: int, word: int) -> None:
        _WORD.pack_into(self._words(), place, word)

    def _words(self) -> memoryview:
        found = self._memory.buf
        assert found is not None  # it is open
        return found


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHandle:
    """Where a frame lies in the shared memory of a pool: small, to be pickled and sent to other processes.

    name: of the segment; token: of what it is now. offset, strides: in bytes. buffer, generation: which use of which buffer.
    """

    name: str
    token: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    buffer: int
    generation: int

    def open(self) -> NDArray:
        """The frame, without a copy: a read-only array of the memory that the other process wrote it to.

        It changes when the buffer is used again, which is when no array over it is left in the process of the pool: see `current`.
        The segment stays mapped while there are arrays of it, and for handles to come, up to eight of them, until its pool is
        closed. FileNotFoundError once the pool is closed, and this process has not mapped it yet.
        """
        found: NDArray = np.ndarray(
            self.shape, self.dtype, np.frombuffer(_mapped(self), np.uint8), self.offset, self.strides
        )
        found.flags.writeable = False
        return found

    @property
    def current(self) -> bool:
        """Whether the buffer still holds the frame. Ask after reading: True means that what was read was the frame, whole."""
        try:
            memory = _mapped(self)
        except FileNotFoundError:
            return False
        return _word(memory, _GENERATIONS + self.buffer * _WORD.size) == self.generation


_segments: dict[str, Any] = {}
_lock: Final = threading.Lock()


def _mapped(handle: FrameHandle) -> Any:
    """The segment, as a buffer."""
    name = handle.name
    with _lock:
        found = _segments.get(name)
        if found is None or _word(found, _TOKEN) != handle.token:
            for old in [old for old, memory in _segments.items() if _word(memory, _CLOSED) or old == name]:
                del _segments[old]
            while len(_segments) >= _KEPT:
                del _segments[next(iter(_segments))]
            found = _map(name)
            if len(found) < _GENERATIONS or _word(found, 0) != _MAGIC or _word(found, _TOKEN) != handle.token:
                raise FileNotFoundError(f"shared memory {name!r} is not that of the frame any more")
            _segments[name] = found
    return found


def _word(memory: Any, place: int) -> int:
    found: int = _WORD.unpack_from(memory, place)[0]
    return found


if sys.platform == "win32":

    def _reserve(name: str, size: int) -> None:
        """Windows has it when it has made it."""

    def _map(name: str) -> Any:
        return SharedMemory(name).buf

else:

    def _reserve(name: str, size: int) -> None:
        """OSError if there is not so much shared memory: without this, the first write beyond it would end the process."""
        if hasattr(os, "posix_fallocate"):
            file = _posixshmem.shm_open(f"/{name}", os.O_RDWR, mode=0o600)
            try:
                os.posix_fallocate(file, 0, size)
            finally:
                os.close(file)

    def _map(name: str) -> Any:
        file = _posixshmem.shm_open(f"/{name}", os.O_RDONLY, mode=0o600)
        try:
            return mmap.mmap(file, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(file)

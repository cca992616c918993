"""Byte stream -> whole messages, and back: header, segments, control messages (WIRE 1, 3, 4).

Where the bytes of a message lie:

* `bytes` given to `receive_data` are kept, and the messages inside them are views of them. A message that
  straddles chunks is joined in a buffer of its own, once.
* `get_buffer` hands out the free end of a receive block. Blocks are only ever appended to: bytes that a message
  may view are never written again. A full block is left to its messages, and what is unparsed moves to a new one.
* Either way the payload of a large message (64 KiB and more) that has not come whole is received into a buffer of
  exactly its size, from `allocate` if that gives one. The pieces of a segmented message share one buffer, with slack
  behind a large segment, so that the pixels of a camera frame (first segment: a few bytes, middle: the pixels, last:
  the rest) stay where they were received.
* Such a buffer is placed so that the array that fills the message begins at a multiple of 64 bytes. Where it begins is
  seen in the first bytes, which are waited for: the one long count that accounts for most of the message.

What the protocol leaves open is ruled here: the header of the first segment describes the reassembled message, with
the segment bits cleared; all its segments have one byte order; segment bits of a control message mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from operator import index
from struct import Struct
from typing import Any, Final, NoReturn, final

import numpy as np

from .._memory import ALIGNMENT, address
from .._memory import allocate as _allocate
from ..errors import DecodeError, EncodeError, LimitExceeded
from ..limits import Limits

_MAGIC: Final = 0xCA
_DEFAULT_LIMITS: Final = Limits()

# Payloads from this size on are received into, and sent from, a buffer of their own.
_LARGE: Final = 65_536
# Slices of a large buffer from this size on are sent from where they are; below, one more buffer costs more.
_SLICE_MIN: Final = 4_096
# Room behind a large segment: pvAccessCPP sends the rest of a message in segments of 17 KB.
_SLACK: Final = 32_768
# A receive block, the free end below which a new one is begun, and the first size of a buffer for segments.
_BLOCK: Final = 262_144
_BLOCK_MIN: Final = 16_384
_JOIN_MIN: Final = 1_024
# After a large payload the next one is likely: what comes with its header is copied, so little is asked for at first.
_WINDOW: Final = 4_096
# The first bytes of a large payload: its array begins here. Descriptions of types may stand before it.
_LOOK: Final = 2_048
# Before a count of 254 and more.
_LONG: Final = 0xFE

# Applications send these with values in them, so that they can have any size; others stay below _SMALL_MAX.
_BULK: Final = frozenset({10, 11, 12, 13, 14, 19, 20})
_SMALL_MAX: Final = 1 << 20
# ioid (behind the sid, from a client), then a subcommand made of these bits only.
_WITH_SUBCOMMAND: Final = frozenset({10, 11, 12, 13, 14, 16, 20})
_NO_SUBCOMMAND_BITS: Final = 0x23
_SHAPE: Final = re.compile(
    rb"\xca[\x01-\x03](?:[\x00\x10\x20\x30\x40\x50\x60\x70\x80\x90\xa0\xb0\xc0\xd0\xe0\xf0][\x00-\x16]"
    rb"|[\x01\x41\x81\xc1][\x00-\x04])",
    re.DOTALL,
)

_LITTLE: Final = Struct("<4BI")
_BIG: Final = Struct(">4BI")
_LITTLE_COUNT: Final = Struct("<I").unpack_from
_BIG_COUNT: Final = Struct(">I").unpack_from
_SEGMENT_NAMES: Final = {0x10: "first", 0x20: "last", 0x30: "middle"}


@final
class Message:
    """One whole message: its header and where its payload lies, `data[start:end]`. Read-only.

    version, flags, command: as in the header; of a segmented message as if it had been sent whole.
    size: bytes of the payload; of a control message its 32 bits of data. offset: of its header in the stream.
    data: bytes, or a read-only memoryview of what was received; other messages may lie in it too.
    """

    __slots__ = ("_command", "_data", "_end", "_flags", "_offset", "_size", "_start", "_version")

    _version: int
    _flags: int
    _command: int
    _data: Any
    _start: int
    _end: int
    _offset: int
    _size: int

    def __init__(
        self,
        version: int = 2,
        flags: int = 0,
        command: int = 0,
        data: Any = b"",
        start: int = 0,
        end: int | None = None,
        offset: int = 0,
        size: int | None = None,
    ) -> None:
        """`end` None: to the end of data; `size` None: the size of the payload. ValueError outside of `data`."""
        total = len(data) if type(data) is bytes else memoryview(data).nbytes
        if end is None:
            end = total
        if not 0 <= start <= end <= total:
            raise ValueError(f"payload [{start}:{end}] outside of {total} bytes")
        if size is None:
            size = end - start
        self._version = _within("version", version, 0xFF)
        self._flags = _within("flags", flags, 0xFF)
        self._command = _within("command", command, 0xFF)
        self._data = data
        self._start = start
        self._end = end
        self._offset = _within("offset", offset, 2**63 - 1)
        self._size = _within("size", size, 2**63 - 1)

    @property
    def version(self) -> int:
        """Protocol version of the sender."""
        return self._version

    @property
    def flags(self) -> int:
        """Flags of the header."""
        return self._flags

    @property
    def command(self) -> int:
        """Number of the command: of an application message or, where `is_control`, of a control message."""
        return self._command

    @property
    def data(self) -> Any:
        """The buffer that the payload lies in."""
        return self._data

    @property
    def start(self) -> int:
        """Where the payload begins in `data`."""
        return self._start

    @property
    def end(self) -> int:
        """Where the payload ends in `data`."""
        return self._end

    @property
    def offset(self) -> int:
        """Where the header began in the stream."""
        return self._offset

    @property
    def size(self) -> int:
        """Bytes of the payload; the data word of a control message."""
        return self._size

    @property
    def is_control(self) -> bool:
        """A control message: no payload, `size` is its data."""
        return self._flags & 0x01 != 0

    @property
    def from_server(self) -> bool:
        """The direction bit."""
        return self._flags & 0x40 != 0

    @property
    def byteorder(self) -> str:
        """By the flag of this message: "little" or "big"."""
        return "big" if self._flags & 0x80 else "little"

    @property
    def payload(self) -> memoryview:
        """The payload, as a view."""
        return _flat(self._data)[self._start : self._end]

    def __repr__(self) -> str:
        kind = "control" if self._flags & 0x01 else "command"
        return (
            f"Message({kind} {self._command}, size {self._size}, flags 0x{self._flags:02x}, "
            f"version {self._version}, offset {self._offset})"
        )


def _message(
    version: int, flags: int, command: int, data: Any, start: int, end: int, offset: int, size: int
) -> Message:
    """A Message from values known to be right: three times as fast as the constructor."""
    message = Message.__new__(Message)
    message._version = version
    message._flags = flags
    message._command = command
    message._data = data
    message._start = start
    message._end = end
    message._offset = offset
    message._size = size
    return message


def _flat(buffer: Any) -> memoryview:
    """The bytes of any C-contiguous buffer."""
    view = memoryview(buffer)
    if (view.format == "B" and view.ndim == 1 and view.c_contiguous) or not view.nbytes:
        return view if view.nbytes else memoryview(b"")
    return np.frombuffer(buffer, np.uint8).data


def _array_at(head: bytes, size: int, big: bool) -> int:
    """Where the large array begins in a payload of `size` bytes that begins with `head`: behind the long count that accounts best for
    the bytes behind it, for half of them at least; 0 if there is none.

    Types are not known here, so that it may be wrong: then the array lies as it would have lain by chance.
    """
    count_at = _BIG_COUNT if big else _LITTLE_COUNT
    best, found = -1, 0
    pos = head.find(_LONG)
    while 0 <= pos <= len(head) - 5:
        count = count_at(head, pos + 1)[0]
        rest = size - pos - 5
        for width in (1, 2, 4, 8):
            left = rest - count * width
            if 0 <= left <= rest // 2 and (best < 0 or left < best):
                best, found = left, pos + 5
        pos = head.find(_LONG, pos + 1)
    return found


@final
class _Store:
    """A buffer to receive into: `writable` for the framer, `view` for messages, which may outlive it."""

    __slots__ = ("capacity", "view", "writable")

    def __init__(self, capacity: int, at: int = -1, allocate: Callable[[int], Any] | None = None) -> None:
        """at: the byte of it that lies at a multiple of 64; -1: any. allocate: where the memory comes from first."""
        memory: Any = None
        if at < 0:
            memory = _allocate(capacity)
            whole = memoryview(memory)
        else:
            need = capacity + ALIGNMENT - 1
            if allocate is not None:
                memory = allocate(need)
            if memory is None:
                memory = _allocate(need)
            whole = memoryview(memory).cast("B")
            if len(whole) < need or whole.readonly:
                raise ValueError(f"allocate({need}) must return as many writable bytes, or None")
            start = -(address(np.frombuffer(whole, np.uint8)) + at) % ALIGNMENT
            whole = whole[start : start + capacity]
        self.writable = whole
        self.view = whole.toreadonly()
        self.capacity = capacity


def _possible(data: Any, pos: int, end: int) -> bool:
    """Whether data[pos:end], as far as it is there, can be the first four bytes of a header."""
    n = end - pos
    if n <= 0:
        return True
    if n >= 4:
        return _SHAPE.match(data, pos, pos + 4) is not None
    if data[pos] != _MAGIC or (n > 1 and not 1 <= data[pos + 1] <= 3):
        return False
    return n < 3 or (data[pos + 2] & 0x0E == 0 and data[pos + 2] & 0x31 not in (0x11, 0x21, 0x31))


@final
class Framer:
    """Cuts one direction of a TCP stream into messages, however it is chunked. For one thread at a time.

    from_server: True or False: a message with the other direction bit is an error; None: either is accepted.

    Bytes come in through `receive_data`, or in place through `get_buffer` and `buffer_updated`, also mixed;
    `messages` hands out what is whole. After an error nothing more comes, until `resync`.
    Every byte received is in a message handed out, or counted in `pending` or in `dropped`.

    allocate: may be set at any time: `allocate(nbytes)` gives the memory for a large payload, a writable C-contiguous buffer
    of so many bytes or more, or None. ValueError or TypeError for what is no such buffer; it must not raise itself.
    """

    __slots__ = (
        "_block",
        "_block_end",
        "_block_pos",
        "_count",
        "_direction",
        "_dropped",
        "_error",
        "_failed",
        "_filled",
        "_goal",
        "_header",
        "_held",
        "_intact",
        "_join",
        "_joined",
        "_lent",
        "_need",
        "_offset",
        "_open",
        "_open_bytes",
        "_orphans",
        "_ready",
        "_searching",
        "_segments_max",
        "_size_max",
        "_skip",
        "_tail",
        "_target",
        "_window",
        "allocate",
    )

    allocate: Callable[[int], Any] | None

    def __init__(
        self,
        *,
        limits: Limits = _DEFAULT_LIMITS,
        from_server: bool | None = None,
        allocate: Callable[[int], Any] | None = None,
    ) -> None:
        self.allocate = allocate
        self._size_max = limits.message
        self._segments_max = limits.segments
        self._direction = None if from_server is None else 0x40 if from_server else 0
        self._ready: list[Message] = []
        self._offset = 0
        self._dropped = 0
        # Unparsed bytes are in the tail (they came through receive_data) or in the block (get_buffer), never both.
        # They begin with a header that is not whole (`_need` is 8), or with a message of `_need` bytes that is not.
        self._tail = bytearray()
        self._need = 8
        self._block: _Store | None = None
        self._block_pos = 0
        self._block_end = 0
        self._lent = 0
        self._window = _BLOCK
        # A large payload on its way: target[filled:goal] is still to come.
        self._target: _Store | None = None
        self._filled = 0
        self._goal = 0
        self._header: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
        # The open segmented message: (version, flags, command, offset) of its first segment; its payload so far
        # is join[:joined]; `_open_bytes` is what it has taken of the stream.
        self._open: tuple[int, int, int, int] | None = None
        self._join: _Store | None = None
        self._joined = 0
        self._count = 0
        self._open_bytes = 0
        # After an error: what it was, whether the header at fault is well formed, and what has come behind it.
        self._error: tuple[bool, str, int, str] | None = None
        self._intact = False
        self._failed = False
        self._held: list[tuple[Any, int, int]] = []
        # After damage: bytes to throw away, whether a header is to be looked for, whether to let orphans pass.
        self._skip = 0
        self._searching = False
        self._orphans = False

    @property
    def offset(self) -> int:
        """Position in the stream of the first byte that belongs to no whole message or segment yet."""
        return self._offset

    @property
    def pending(self) -> int:
        """Bytes held: of messages that are not whole yet, and behind an error."""
        held = sum(end - pos for _, pos, end in self._held)
        return held + self._open_bytes + self._partial()

    @property
    def dropped(self) -> int:
        """Bytes received so far of which no message was made, because of `resync` and `gap`."""
        return self._dropped

    @property
    def failed(self) -> bool:
        """Whether `messages` has raised: nothing more comes until `resync`."""
        return self._failed

    def receive_data(self, data: Any) -> None:
        """Take the next bytes of the stream. `bytes` are kept without a copy; any other buffer is copied."""
        if type(data) is not bytes:
            data = bytes(memoryview(data))
        self._lent = 0
        if self._block_pos < self._block_end:
            assert self._block is not None
            self._tail = bytearray(self._block.view[self._block_pos : self._block_end])
            self._block_pos = self._block_end
        self._chunk(data, 0, len(data))

    def get_buffer(self, hint: int = -1) -> memoryview:
        """A writable view, never empty, to receive the next bytes of the stream into; then call `buffer_updated`.

        Inside a large payload it ends where that ends. `hint` is what asyncio passes: the size it would like.
        """
        target = self._target
        if target is not None:
            view = target.writable[self._filled : self._goal]
        else:
            block = self._block
            waiting = len(self._tail) + self._block_end - self._block_pos
            want = max(self._enough() - waiting, 0)
            free = block.capacity - self._block_end if block is not None else 0
            if block is None or free < len(self._tail) + max(want, _BLOCK_MIN):
                fresh = _Store(_BLOCK)
                fill = 0
                if block is not None and self._block_pos < self._block_end:
                    fill = self._block_end - self._block_pos
                    fresh.writable[:fill] = block.view[self._block_pos : self._block_end]
                self._block = block = fresh
                self._block_pos = 0
                self._block_end = fill
            if self._tail:
                fill = self._block_end + len(self._tail)
                block.writable[self._block_end : fill] = self._tail
                self._block_end = fill
                self._tail = bytearray()
            # Of a large payload that is not placed yet no more than that takes: the rest would be copied.
            most = want if self._need >= 8 + _LARGE and want else max(self._window, want)
            view = block.writable[self._block_end : self._block_end + most]
        self._lent = len(view)
        return view

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` were received into the view that `get_buffer` returned last."""
        if not 0 <= nbytes <= self._lent:
            raise ValueError(f"{nbytes} bytes received into a buffer of {self._lent}")
        if nbytes == self._lent:
            self._window = min(2 * self._window, _BLOCK)
        self._lent = 0
        target = self._target
        if target is not None:
            self._filled += nbytes
            if self._filled == self._goal:
                self._target_full()
            return
        block = self._block
        if block is None:
            return
        self._block_end += nbytes
        if self._error is not None:
            if nbytes:
                self._held.append((block.view, self._block_end - nbytes, self._block_end))
            self._block_pos = self._block_end
            return
        if self._block_end - self._block_pos < self._enough() and not self._skip:
            return
        end = self._block_end
        stop = self._parse(block.view, self._block_pos, end)
        if self._error is not None and stop < end:
            self._held.append((block.view, stop, end))
            stop = end
        self._block_pos = stop

    def receive_eof(self) -> None:
        """The stream has ended: DecodeError when that is inside a message. Messages that came are still handed out."""
        if self._error is not None:
            self._raise()
        if self._searching:
            self._forget_partial()
        have = self._partial()
        if have:
            if self._need == 8 and self._target is None:
                raise DecodeError(f"header needs 8 bytes, {have} before the end of the stream", self._offset)
            need = self._header[4] if self._target is not None else self._need - 8
            raise DecodeError(
                f"message of {need} bytes expected, {have - 8} before the end of the stream", self._offset
            )
        if self._open is not None:
            raise DecodeError(
                f"more segments of command {self._open[2]} expected, end of the stream found", self._offset
            )

    def messages(self) -> list[Message]:
        """All messages that are whole now, in the order of the stream; a segmented one where its last segment is.

        DecodeError (its offset is that of the header in the stream), once what came before is handed out.
        """
        ready = self._ready
        if ready:
            self._ready = []
            return ready
        if self._error is not None:
            self._failed = True
            self._raise()
        return []

    def resync(self) -> int:
        """Go on behind damage; also how to take up a conversation in its middle. Returns how many bytes were dropped.

        Open segments are forgotten. When the header at fault is well formed (it only came at the wrong time) reading
        goes on with it. Otherwise bytes are dropped up to the next plausible header: magic, version 1 to 3, flag bits
        1 to 3 clear, a command that the specification knows, a size within the limits and usual for the command (1 MiB
        at most where no values are sent), a subcommand made of known bits, and behind it, as far as that has come,
        another such header or nothing. Bytes that cannot be judged yet are kept; the search goes on with the bytes
        that come, see `dropped`. Segments whose first one was lost are dropped in silence.
        """
        before = self._dropped
        self._forget_open()
        held = self._held
        self._held = []
        self._orphans = True
        if self._error is None:
            partial = self._unparsed()
            if partial is not None:
                held.insert(0, partial)
            self._searching = True
        elif not self._intact:
            data, pos, end = held[0]
            held[0] = (data, pos + 1, end)
            self._drop(1)
            self._searching = True
        self._error = None
        self._failed = False
        self._need = 8
        for data, pos, end in held:
            self._chunk(data, pos, end)
        return self._dropped - before

    def gap(self, nbytes: int) -> int:
        """`nbytes` of the stream are lost at this point. Returns how many bytes were dropped.

        The message they were in is dropped. When its end is known to lie behind the gap, reading goes on there; otherwise
        at the next plausible header, as `resync` does.
        """
        if nbytes < 0:
            raise ValueError(f"a gap of {nbytes} bytes")
        before = self._dropped
        while self._error is not None:
            self.resync()
        if nbytes:
            self._lent = 0
            have = self._partial()
            if self._skip:
                rest = self._skip
            elif self._target is not None:
                rest = self._goal - self._filled
            else:
                rest = self._need - have if self._need > 8 else 0
            self._forget_open()
            self._forget_partial()
            self._orphans = True
            self._offset += nbytes
            self._skip = max(rest - nbytes, 0)
            if nbytes > rest:
                self._searching = True
        return self._dropped - before

    def _enough(self) -> int:
        """How many of the unparsed bytes must be there before it is worth looking at them."""
        return self._need if self._need < 8 + _LARGE else 8 + _LOOK

    def _partial(self) -> int:
        """Bytes of the message or segment that is coming."""
        if self._target is not None:
            return 8 + self._header[4] - (self._goal - self._filled)
        return len(self._tail) + self._block_end - self._block_pos

    def _unparsed(self) -> tuple[Any, int, int] | None:
        """Take out what came of the message or segment that is coming: (data, pos, end)."""
        found: tuple[Any, int, int] | None = None
        if self._target is not None:
            version, flags, command, _, size = self._header
            head = (_BIG if flags & 0x80 else _LITTLE).pack(_MAGIC, version, flags, command, size)
            data = head + bytes(self._target.view[self._goal - size : self._filled])
            found = data, 0, len(data)
            self._target = None
        elif self._tail:
            found = bytes(self._tail), 0, len(self._tail)
            self._tail = bytearray()
        elif self._block is not None and self._block_pos < self._block_end:
            found = self._block.view, self._block_pos, self._block_end
            self._block_pos = self._block_end
        self._need = 8
        return found

    def _forget_partial(self) -> None:
        self._drop(self._partial())
        self._target = None
        self._tail = bytearray()
        self._block_pos = self._block_end
        self._need = 8

    def _forget_open(self) -> None:
        self._dropped += self._open_bytes
        self._open_bytes = 0
        self._open = None
        self._join = None
        self._joined = 0
        self._count = 0

    def _drop(self, n: int) -> None:
        self._dropped += n
        self._offset += n

    def _raise(self) -> NoReturn:
        assert self._error is not None
        limited, reason, offset, limit = self._error
        if limited:
            raise LimitExceeded(reason, offset, limit=limit)
        raise DecodeError(reason, offset)

    def _fail(self, reason: str, offset: int, *, limit: str = "", intact: bool = False) -> None:
        self._error = (limit != "", reason, offset, limit)
        self._intact = intact

    def _chunk(self, data: Any, pos: int, end: int) -> None:
        """The next bytes, the block holding none: complete what the tail begins, then take the rest."""
        if self._searching and self._tail:
            # A header is judged together with what follows it. The tail has at most seven bytes now.
            data = b"".join((self._tail, memoryview(data)[pos:end]))
            pos = 0
            end = len(data)
            self._tail = bytearray()
        tail = self._tail
        while tail and pos < end:
            enough = self._enough()
            k = min(enough - len(tail), end - pos)
            tail += data[pos : pos + k]
            pos += k
            if len(tail) < enough:
                return
            self._tail = bytearray()
            self._take(bytes(tail), 0, len(tail))
            tail = self._tail
        self._take(data, pos, end)

    def _take(self, data: Any, pos: int, end: int) -> None:
        """The next bytes, the tail being empty: into the target first, then parsed, the rest into the tail."""
        while pos < end:
            if self._error is not None:
                self._held.append((data, pos, end))
                return
            target = self._target
            if target is None:
                stop = self._parse(data, pos, end)
                if stop < end and self._error is None:
                    self._tail = bytearray(memoryview(data)[stop:end])
                    return
                pos = stop
            else:
                k = min(self._goal - self._filled, end - pos)
                target.writable[self._filled : self._filled + k] = memoryview(data)[pos : pos + k]
                pos += k
                self._filled += k
                if self._filled == self._goal:
                    self._target_full()

    def _parse(self, data: Any, pos: int, end: int) -> int:
        """Whole messages of data[pos:end], the tail and the target being empty. Returns where it stopped.

        Before the end it stops at an error, or at what needs more bytes to be parsed, see `_enough`.
        """
        if self._skip:
            k = min(self._skip, end - pos)
            self._skip -= k
            self._drop(k)
            pos += k
        base = self._offset - pos
        ready = self._ready
        direction = self._direction
        size_max = self._size_max
        unpack = _LITTLE.unpack_from
        self._need = 8
        while end - pos >= 8:
            if self._searching:
                found = self._find(data, pos, end)
                self._dropped += found - pos
                pos = found
                if self._searching:
                    break
            magic, version, flags, command, size = unpack(data, pos)
            if magic != _MAGIC:
                self._fail(f"magic 0xca expected, 0x{magic:02x} found", base + pos)
                break
            if version == 0:
                self._fail("version 1 or above expected, 0 found", base + pos)
                break
            if direction is not None and flags & 0x40 != direction:
                sender = "server" if direction else "client"
                self._fail(f"message of the {sender} expected, flags 0x{flags:02x} found", base + pos)
                break
            if flags & 0x80:
                size = _BIG.unpack_from(data, pos)[4]
            if flags & 0x01:
                pos += 8
                ready.append(_message(version, flags, command, b"", 0, 0, base + pos - 8, size))
                continue
            if size > size_max:
                self._fail(f"message of {size} bytes, {size_max} allowed", base + pos, limit="message")
                break
            segment = flags & 0x30
            if segment or self._open is not None:
                if self._open is None and segment != 0x10 and self._orphans:
                    # Its first segment was lost.
                    k = min(8 + size, end - pos)
                    self._dropped += k
                    self._skip = 8 + size - k
                    pos += k
                    continue
                if not self._admit(flags, command, size, base + pos):
                    break
            start = pos + 8
            if size > end - start:
                if size < _LARGE or end - start < _LOOK:
                    self._need = 8 + size
                    break
                head = memoryview(data)[start:end]
                if not self._target_begin(version, flags, command, base + pos, size, head):
                    break
                assert self._target is not None
                k = end - start
                self._target.writable[self._filled : self._filled + k] = head
                self._filled += k
                self._offset = base + pos
                return end
            self._orphans = False
            if size >= _LARGE:
                self._window = _WINDOW
            if segment or self._open is not None:
                head = memoryview(data)[start : start + size]
                if not self._reserve(flags, size, base + pos, head):
                    break
                assert self._join is not None
                self._join.writable[self._joined : self._joined + size] = head
                self._append(version, flags, command, base + pos, size)
            else:
                ready.append(_message(version, flags, command, data, start, start + size, base + pos, size))
            pos = start + size
        self._offset = base + pos
        return pos

    def _admit(self, flags: int, command: int, size: int, offset: int) -> bool:
        """Whether a segment, or a message inside segments, may come now."""
        segment = flags & 0x30
        if self._open is None:
            if segment != 0x10:
                name = _SEGMENT_NAMES[segment]
                self._fail(f"first segment of command {command} expected, {name} found", offset, intact=True)
                return False
        else:
            _, opened_flags, opened, _ = self._open
            if segment in (0, 0x10) or command != opened:
                what = f"{_SEGMENT_NAMES[segment]} segment" if segment else "whole message"
                self._fail(
                    f"next segment of command {opened} expected, {what} of command {command} found",
                    offset,
                    intact=True,
                )
                return False
            if (flags ^ opened_flags) & 0x80:
                order, other = ("big", "little") if opened_flags & 0x80 else ("little", "big")
                self._fail(f"{order}-endian segment expected, {other}-endian found", offset, intact=True)
                return False
            if self._count >= self._segments_max:
                self._fail(
                    f"message of more than {self._segments_max} segments",
                    offset,
                    limit="segments",
                    intact=True,
                )
                return False
        total = self._joined + size
        if total > self._size_max:
            self._fail(
                f"message of {total} bytes, {self._size_max} allowed", offset, limit="message", intact=True
            )
            return False
        return True

    def _append(self, version: int, flags: int, command: int, offset: int, size: int) -> None:
        """The segment join[joined:joined + size] is there."""
        if self._open is None:
            self._open = (version, flags & ~0x30, command, offset)
        self._joined += size
        self._count += 1
        self._open_bytes += 8 + size
        if flags & 0x30 == 0x20:
            version, flags, command, offset = self._open
            assert self._join is not None
            view = self._join.view
            total = self._joined
            self._open_bytes = 0
            self._forget_open()
            self._ready.append(_message(version, flags, command, view, 0, total, offset, total))

    def _reserve(self, flags: int, size: int, offset: int, head: memoryview) -> bool:
        """Make room for a segment of `size` bytes, which begins with `head`, behind what was joined."""
        join = self._join
        total = self._joined + size
        if join is None or join.capacity < total:
            capacity = max(total, _JOIN_MIN)
            if size >= _LARGE and flags & 0x30 != 0x20:
                capacity += _SLACK
            if join is not None:
                # Doubled, so that any number of segments costs linear time.
                capacity = max(capacity, min(2 * join.capacity, self._size_max))
            fresh = self._store(flags, capacity, total, offset, head)
            if fresh is None:
                return False
            if join is not None:
                fresh.writable[: self._joined] = join.view[: self._joined]
            self._join = fresh
        return True

    def _store(self, flags: int, capacity: int, size: int, offset: int, head: memoryview) -> _Store | None:
        """A buffer for a payload of `size` bytes, as far as is known: what was joined, then what begins with `head`."""
        try:
            if capacity < _LARGE:
                return _Store(capacity)
            first = b"" if self._join is None else bytes(self._join.view[: min(self._joined, _LOOK)])
            first += head[: _LOOK - len(first)]
            return _Store(capacity, _array_at(first, size, flags & 0x80 != 0), self.allocate)
        except MemoryError:
            self._fail(f"no memory for a buffer of {capacity} bytes", offset, limit="message")
            return None

    def _target_begin(
        self, version: int, flags: int, command: int, offset: int, size: int, head: memoryview
    ) -> bool:
        if flags & 0x30 or self._open is not None:
            if not self._reserve(flags, size, offset, head):
                return False
            self._target = self._join
            self._filled = self._joined
        else:
            self._target = self._store(flags, size, size, offset, head)
            if self._target is None:
                return False
            self._filled = 0
        self._goal = self._filled + size
        self._header = (version, flags, command, offset, size)
        return True

    def _target_full(self) -> None:
        """The large payload is there."""
        version, flags, command, offset, size = self._header
        target = self._target
        assert target is not None
        self._target = None
        self._need = 8
        self._window = _WINDOW
        self._orphans = False
        self._offset = offset + 8 + size
        if flags & 0x30:
            self._append(version, flags, command, offset, size)
        else:
            self._ready.append(_message(version, flags, command, target.view, 0, size, offset, size))

    def _find(self, data: Any, pos: int, end: int) -> int:
        """The next plausible header in data[pos:end]; ends the search, or returns from where on bytes must be kept."""
        for match in _SHAPE.finditer(data, pos, end):
            at = match.start()
            if end - at < 8:
                return at
            if self._plausible(data, at, end):
                self._searching = False
                return at
        for at in range(max(pos, end - 3), end):
            if _possible(data, at, end):
                return at
        return end

    def _plausible(self, data: Any, pos: int, end: int) -> bool:
        """Whether a header begins at `pos`: the four bytes that _SHAPE matched are there, and four more."""
        _, _, flags, command, size = _LITTLE.unpack_from(data, pos)
        if self._direction is not None and flags & 0x40 != self._direction:
            return False
        if flags & 0x80:
            size = _BIG.unpack_from(data, pos)[4]
        follow = pos + 8
        if flags & 0x01:
            if command == 2 and size not in (0, 0xFFFFFFFF):
                return False
        else:
            if size > self._size_max or (size > _SMALL_MAX and command not in _BULK):
                return False
            if command in _WITH_SUBCOMMAND and not flags & 0x20:
                at = 4 if flags & 0x40 else 8
                if size <= at and not flags & 0x10:
                    return False
                if size > at and follow + at < end and data[follow + at] & _NO_SUBCOMMAND_BITS:
                    return False
            follow += size
        return _possible(data, follow, end)


def _within(name: str, value: int, top: int) -> int:
    if not 0 <= index(value) <= top:
        raise ValueError(f"{name} must be 0 to {top}, not {value}")
    return value


def _pack(version: int, flags: int, command: int, size: int, byteorder: str) -> bytes:
    _within("version", version, 0xFF)
    _within("flags", flags, 0xFF)
    _within("command", command, 0xFF)
    if byteorder == "little":
        return _LITTLE.pack(_MAGIC, version, flags & 0x7F, command, size)
    if byteorder == "big":
        return _BIG.pack(_MAGIC, version, flags | 0x80, command, size)
    raise ValueError(f"byteorder must be 'little' or 'big', not {byteorder!r}")


def control(
    command: int, value: int = 0, *, flags: int = 0, byteorder: str = "little", version: int = 2
) -> bytes:
    """A control message with its 32 bits of data. flags: 0x40 from a server; the others are set here."""
    return _pack(version, flags | 0x01, command, _within("value", value, 0xFFFFFFFF), byteorder)


def frame(
    command: int,
    buffers: Iterable[Any],
    *,
    flags: int = 0,
    byteorder: str = "little",
    version: int = 2,
    segment_size: int | None = None,
) -> list[Any]:
    """An application message whose payload is the joined `buffers`: the buffers to send, in order.

    flags: 0x40 from a server; byte order and segmentation are set here. Buffers of 64 KiB and more are passed on
    without a copy (bytes as they are, others as flat memoryviews), smaller ones are joined with the headers.
    segment_size: a payload above it is sent in segments of that many bytes (the last one: of what is left).
    EncodeError when a single message would be above 4 GiB - 1.
    """
    if flags & 0x31:
        raise ValueError(f"flags 0x{flags:02x}: control and segment bits are set by the framing")
    if segment_size is not None and not 1 <= index(segment_size) <= 0xFFFFFFFF:
        raise ValueError(f"segment_size must be 1 to 4294967295, not {segment_size}")
    pieces: list[Any] = []
    total = 0
    for buffer in buffers:
        piece = buffer if type(buffer) is bytes else _flat(buffer)
        if piece:
            pieces.append(piece)
            total += len(piece)
    if segment_size is None or total <= segment_size:
        if total > 0xFFFFFFFF:
            raise EncodeError(f"payload of {total} bytes, 4294967295 fit a message: segment_size= splits it")
        segment_size = total
    out: list[Any] = []
    small: list[Any] = []  # waits to be joined
    pieces.reverse()
    at = 0  # of the last piece
    left = total
    while True:
        size = min(segment_size, left)
        kind = (0x10 if size < left else 0) if left == total else 0x30 if size < left else 0x20
        small.append(_pack(version, flags | kind, command, size, byteorder))
        left -= size
        while size:
            piece = pieces[-1]
            k = min(size, len(piece) - at)
            part = piece if k == len(piece) else memoryview(piece)[at : at + k]
            if len(piece) < _LARGE or k < _SLICE_MIN:
                small.append(part)
            else:
                if small:
                    out.append(b"".join(small))
                    small = []
                out.append(part)
            size -= k
            at += k
            if at == len(piece):
                pieces.pop()
                at = 0
        if not left:
            break
    if small:
        out.append(b"".join(small))
    return out

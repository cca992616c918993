"""Byte stream -> whole messages, and back. The contract is told in `_py/framing.py`."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.stdint cimport SIZE_MAX, uint32_t
from libc.string cimport memchr, memcpy

from operator import index as _index

import numpy as _np

from .._memory import allocate as _allocate
from ..errors import DecodeError, EncodeError, LimitExceeded
from ..limits import Limits

cdef object _DEFAULT_LIMITS = Limits()

# See the Python twin for what these are for.
cdef enum:
    HEADER = 8
    MAGIC = 0xCA
    LARGE = 65536
    SLICE_MIN = 4096
    SLACK = 32768
    BLOCK = 262144
    BLOCK_MIN = 16384
    JOIN_MIN = 1024
    WINDOW = 4096
    LOOK = 2048
    LONG = 0xFE
    ALIGNMENT = 64
    SMALL_MAX = 1048576
    NO_SUBCOMMAND_BITS = 0x23

    CONTROL = 0x01
    FIRST = 0x10
    LAST = 0x20
    SEGMENT = 0x30
    FROM_SERVER = 0x40
    BIG_ENDIAN = 0x80

# Sizes are sums of at most 2**32 and a limit; limits are clamped so that no sum wraps.
cdef unsigned long long LIMIT_TOP = <unsigned long long>1 << 62


@cython.final
@cython.freelist(1024)
@cython.no_gc
cdef class Message:
    """One whole message: its header and where its payload lies, `data[start:end]`. Read-only.

    version, flags, command: as in the header; of a segmented message as if it had been sent whole.
    size: bytes of the payload; of a control message its 32 bits of data. offset: of its header in the stream.
    data: bytes, or a read-only memoryview of what was received; other messages may lie in it too.
    """

    def __init__(self, version=2, flags=0, command=0, data=b"", start=0, end=None, offset=0, size=None):
        """`end` None: to the end of data; `size` None: the size of the payload. ValueError outside of `data`."""
        total = len(data) if type(data) is bytes else memoryview(data).nbytes
        if end is None:
            end = total
        if not 0 <= start <= end <= total:
            raise ValueError(f"payload [{start}:{end}] outside of {total} bytes")
        if size is None:
            size = end - start
        self.version = _within("version", version, 0xFF)
        self.flags = _within("flags", flags, 0xFF)
        self.command = _within("command", command, 0xFF)
        self.data = data
        self.start = start
        self.end = end
        self.offset = _within("offset", offset, 2**63 - 1)
        self.size = _within("size", size, 2**63 - 1)

    @property
    def is_control(self):
        """A control message: no payload, `size` is its data."""
        return self.flags & CONTROL != 0

    @property
    def from_server(self):
        """The direction bit."""
        return self.flags & FROM_SERVER != 0

    @property
    def byteorder(self):
        """By the flag of this message: "little" or "big"."""
        return "big" if self.flags & BIG_ENDIAN else "little"

    @property
    def payload(self):
        """The payload, as a view."""
        return _flat(self.data)[self.start : self.end]

    def __repr__(self):
        kind = "control" if self.flags & CONTROL else "command"
        return (
            f"Message({kind} {self.command}, size {self.size}, flags 0x{self.flags:02x}, "
            f"version {self.version}, offset {self.offset})"
        )


cdef inline Message _message(
    unsigned char version, unsigned char flags, unsigned char command,
    object data, size_t start, size_t end, unsigned long long offset, unsigned long long size,
):
    """A Message from values known to be right."""
    cdef Message message = Message.__new__(Message)
    message.version = version
    message.flags = flags
    message.command = command
    message.data = data
    message.start = <Py_ssize_t>start
    message.end = <Py_ssize_t>end
    message.offset = <long long>offset
    message.size = <long long>size
    return message


cdef object _flat(object buffer):
    """The bytes of any C-contiguous buffer, as a memoryview that nobody else holds."""
    view = memoryview(buffer)
    if not view.nbytes:
        return memoryview(b"")
    if view.format == "B" and view.ndim == 1 and view.c_contiguous:
        return view
    return _np.frombuffer(buffer, _np.uint8).data


cdef inline uint32_t _word_at(const unsigned char *p, bint big) noexcept nogil:
    if big:
        return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | <uint32_t>p[3]
    return <uint32_t>p[3] << 24 | <uint32_t>p[2] << 16 | <uint32_t>p[1] << 8 | <uint32_t>p[0]


cdef inline uint32_t _size_at(const unsigned char *p, unsigned char flags) noexcept nogil:
    """The size field of the header at `p`."""
    return _word_at(p + 4, flags & BIG_ENDIAN)


cdef size_t _array_at(const unsigned char *p, size_t n, size_t size, bint big) noexcept nogil:
    """Where the large array begins in a payload of `size` bytes that begins with the n at `p`; see the Python twin."""
    cdef size_t pos, rest, count, width, spare
    cdef size_t best = SIZE_MAX, found = 0
    cdef const unsigned char *q
    pos = 0
    while pos + 5 <= n:
        q = <const unsigned char *>memchr(p + pos, LONG, n - pos)
        if q == NULL:
            break
        pos = <size_t>(q - p)
        if n - pos < 5:
            break
        count = _word_at(q + 1, big)
        rest = size - pos - 5
        width = 1
        while width <= 8:
            # No product wraps: size is a size of memory, count below 2**32.
            if count <= rest // width:
                spare = rest - count * width
                if spare <= rest // 2 and spare < best:
                    best = spare
                    found = pos + 5
            width *= 2
        pos += 1
    return found


@cython.final
cdef class _Store:
    """A buffer to receive into: `writable` for the framer, `view` for messages, which may outlive it."""

    cdef object writable  # owns the memory
    cdef object view
    cdef unsigned char *ptr  # valid while self.writable is held
    cdef size_t capacity


cdef _Store _new_store(size_t capacity, bint placed, size_t at, object allocate):
    """placed: byte `at` of it lies at a multiple of 64, and the memory comes from `allocate` first."""
    cdef _Store made = _Store.__new__(_Store)
    cdef size_t need, start
    cdef object memory = None
    cdef object whole
    cdef Py_buffer *buffer
    if not placed:
        whole = memoryview(_allocate(capacity))
    else:
        need = capacity + (ALIGNMENT - 1)
        if allocate is not None:
            memory = allocate(need)
        if memory is None:
            memory = _allocate(need)
        whole = memoryview(memory).cast("B")  # TypeError if it is not contiguous
        buffer = PyMemoryView_GET_BUFFER(whole)
        if <size_t>buffer.len < need or buffer.readonly:
            raise ValueError(f"allocate({need}) must return as many writable bytes, or None")
        start = (-(<size_t>buffer.buf + at)) % ALIGNMENT
        whole = whole[start : start + capacity]
    made.writable = whole
    made.view = whole.toreadonly()
    made.ptr = <unsigned char *>PyMemoryView_GET_BUFFER(whole).buf
    # What there is, not what was asked for: bounds are checked against this.
    made.capacity = <size_t>PyMemoryView_GET_BUFFER(whole).len
    return made


cdef bint _possible(const unsigned char *p, size_t n) noexcept nogil:
    """Whether the n bytes at `p` can be the beginning of a header (its first four bytes are looked at)."""
    if n == 0:
        return True
    if p[0] != MAGIC:
        return False
    if n == 1:
        return True
    if not 1 <= p[1] <= 3:
        return False
    if n == 2:
        return True
    if p[2] & 0x0E or (p[2] & CONTROL and p[2] & SEGMENT):
        return False
    return n == 3 or p[3] <= (4 if p[2] & CONTROL else 22)


cdef inline bint _is_bulk(unsigned char command) noexcept nogil:
    return 10 <= command <= 14 or command == 19 or command == 20


cdef inline bint _has_subcommand(unsigned char command) noexcept nogil:
    return 10 <= command <= 14 or command == 16 or command == 20


cdef int _copy(unsigned char *target, const unsigned char *source, size_t n) except -1:
    """Copy n bytes; the caller holds both buffers and has counted the bytes as there already."""
    if n < LARGE:
        memcpy(target, source, n)
    else:
        with nogil:
            memcpy(target, source, n)
    return 0


@cython.final
cdef class Framer:
    """Cuts one direction of a TCP stream into messages, however it is chunked. For one thread at a time.

    from_server: True or False: a message with the other direction bit is an error; None: either is accepted.

    Bytes come in through `receive_data`, or in place through `get_buffer` and `buffer_updated`, also mixed;
    `messages` hands out what is whole. After an error nothing more comes, until `resync`.
    Every byte received is in a message handed out, or counted in `pending` or in `dropped`.

    allocate: may be set at any time: `allocate(nbytes)` gives the memory for a large payload, a writable C-contiguous buffer
    of so many bytes or more, or None. ValueError or TypeError for what is no such buffer; it must not raise itself.
    """

    cdef public object allocate

    cdef unsigned long long size_max
    cdef unsigned long long segments_max
    cdef int direction  # -1: either
    cdef bint busy
    cdef list ready
    cdef unsigned long long stream  # offset of the next unparsed byte
    cdef unsigned long long lost

    # Unparsed bytes are in the tail (they came through receive_data) or in the block (get_buffer), never both.
    # They begin with a header that is not whole (`need` is 8), or with a message of `need` bytes that is not.
    cdef bytes tail  # of `_enough` bytes, of which `tail_have` are there; it is ours alone until it is full
    cdef size_t tail_have
    cdef size_t need
    cdef _Store block
    cdef size_t block_pos
    cdef size_t block_end
    cdef size_t lent
    cdef size_t window

    # A large payload on its way: target[filled:goal] is still to come.
    cdef _Store target
    cdef size_t filled
    cdef size_t goal
    cdef unsigned char head_version
    cdef unsigned char head_flags
    cdef unsigned char head_command
    cdef unsigned long long head_offset
    cdef size_t head_size

    # The open segmented message: header of its first segment, its payload join[:joined], bytes of the stream in it.
    cdef bint is_open
    cdef unsigned char open_version
    cdef unsigned char open_flags
    cdef unsigned char open_command
    cdef unsigned long long open_offset
    cdef _Store join
    cdef size_t joined
    cdef unsigned long long count
    cdef unsigned long long open_bytes

    # After an error: what it was, whether the header at fault is well formed, and what has come behind it.
    cdef object error  # (reason, offset, limit), or None
    cdef bint intact
    cdef bint has_failed
    cdef list held  # of (bytes or _Store, pos, end)

    # After damage: bytes to throw away, whether a header is to be looked for, whether to let orphans pass.
    cdef unsigned long long skip
    cdef bint searching
    cdef bint orphans

    def __cinit__(self):
        self.direction = -1
        self.ready = []
        self.held = []
        self.need = HEADER
        self.window = BLOCK

    def __init__(self, *, limits=_DEFAULT_LIMITS, from_server=None, allocate=None):
        self.allocate = allocate
        self.size_max = min(limits.message, LIMIT_TOP)
        self.segments_max = min(limits.segments, LIMIT_TOP)
        self.direction = -1 if from_server is None else FROM_SERVER if from_server else 0

    @property
    def offset(self):
        """Position in the stream of the first byte that belongs to no whole message or segment yet."""
        return self.stream

    @property
    def pending(self):
        """Bytes held: of messages that are not whole yet, and behind an error."""
        held = sum([end - pos for _, pos, end in self.held])
        return held + self.open_bytes + self._partial()

    @property
    def dropped(self):
        """Bytes received so far of which no message was made, because of `resync` and `gap`."""
        return self.lost

    @property
    def failed(self):
        """Whether `messages` has raised: nothing more comes until `resync`."""
        return self.has_failed

    def receive_data(self, data):
        """Take the next bytes of the stream. `bytes` are kept without a copy; any other buffer is copied."""
        cdef size_t n
        if not PyBytes_CheckExact(data):
            data = bytes(memoryview(data))
        self._enter()
        try:
            self.lent = 0
            if self.block_pos < self.block_end:
                n = self.block_end - self.block_pos
                self._tail_begin(self.block.ptr + self.block_pos, n)
                self.block_pos = self.block_end
            self._chunk(data, 0, <size_t>PyBytes_GET_SIZE(data))
        finally:
            self.busy = False

    def get_buffer(self, hint=-1):
        """A writable view, never empty, to receive the next bytes of the stream into; then call `buffer_updated`.

        Inside a large payload it ends where that ends. `hint` is what asyncio passes: the size it would like.
        """
        cdef _Store fresh
        cdef size_t want, waiting, fill, most
        self._enter()
        try:
            if self.target is not None:
                view = self.target.writable[self.filled : self.goal]
            else:
                waiting = self.tail_have + self.block_end - self.block_pos
                want = self._enough()
                want = want - waiting if want > waiting else 0
                if (
                    self.block is None
                    or self.block.capacity - self.block_end < self.tail_have + max(want, <size_t>BLOCK_MIN)
                ):
                    fresh = _new_store(BLOCK, False, 0, None)
                    fill = self.block_end - self.block_pos
                    if fill:
                        memcpy(fresh.ptr, self.block.ptr + self.block_pos, fill)
                    self.block = fresh
                    self.block_pos = 0
                    self.block_end = fill
                if self.tail_have:
                    memcpy(
                        self.block.ptr + self.block_end,
                        <const unsigned char *>PyBytes_AS_STRING(self.tail),
                        self.tail_have,
                    )
                    self.block_end += self.tail_have
                    self._tail_clear()
                # Of a large payload that is not placed yet no more than that takes: the rest would be copied.
                most = want if want and self.need >= HEADER + LARGE else max(self.window, want)
                fill = min(self.block.capacity - self.block_end, most)
                view = self.block.writable[self.block_end : self.block_end + fill]
            self.lent = <size_t>PyMemoryView_GET_BUFFER(view).len
            return view
        finally:
            self.busy = False

    def buffer_updated(self, nbytes):
        """`nbytes` were received into the view that `get_buffer` returned last."""
        cdef size_t n, end, stop
        if not 0 <= _index(nbytes) <= self.lent:
            raise ValueError(f"{nbytes} bytes received into a buffer of {self.lent}")
        n = nbytes
        self._enter()
        try:
            if n == self.lent:
                self.window = min(2 * self.window, <size_t>BLOCK)
            self.lent = 0
            if self.target is not None:
                self.filled += n
                if self.filled == self.goal:
                    self._target_full()
                return
            if self.block is None:
                return
            self.block_end += n
            end = self.block_end
            if self.error is not None:
                if n:
                    self.held.append((self.block, end - n, end))
                self.block_pos = end
                return
            if end - self.block_pos < self._enough() and not self.skip:
                return
            stop = self._parse(self.block, self.block_pos, end)
            if self.error is not None and stop < end:
                self.held.append((self.block, stop, end))
                stop = end
            self.block_pos = stop
        finally:
            self.busy = False

    def receive_eof(self):
        """The stream has ended: DecodeError when that is inside a message. Messages that came are still handed out."""
        cdef size_t have, need
        if self.error is not None:
            self._raise()
        if self.searching:
            self._forget_partial()
        have = self._partial()
        if have:
            if self.need == HEADER and self.target is None:
                raise DecodeError(f"header needs 8 bytes, {have} before the end of the stream", self.stream)
            need = self.head_size if self.target is not None else self.need - HEADER
            raise DecodeError(
                f"message of {need} bytes expected, {have - HEADER} before the end of the stream", self.stream
            )
        if self.is_open:
            raise DecodeError(
                f"more segments of command {self.open_command} expected, end of the stream found", self.stream
            )

    def messages(self):
        """All messages that are whole now, in the order of the stream; a segmented one where its last segment is.

        DecodeError (its offset is that of the header in the stream), once what came before is handed out.
        """
        cdef list ready = self.ready
        if ready:
            self.ready = []
            return ready
        if self.error is not None:
            self.has_failed = True
            self._raise()
        return []

    def resync(self):
        """Go on behind damage; also how to take up a conversation in its middle. Returns how many bytes were dropped.

        Open segments are forgotten. When the header at fault is well formed (it only came at the wrong time) reading
        goes on with it. Otherwise bytes are dropped up to the next plausible header: magic, version 1 to 3, flag bits
        1 to 3 clear, a command that the specification knows, a size within the limits and usual for the command (1 MiB
        at most where no values are sent), a subcommand made of known bits, and behind it, as far as that has come,
        another such header or nothing. Bytes that cannot be judged yet are kept; the search goes on with the bytes
        that come, see `dropped`. Segments whose first one was lost are dropped in silence.
        """
        self._enter()
        try:
            return self._resync()
        finally:
            self.busy = False

    def gap(self, nbytes):
        """`nbytes` of the stream are lost at this point. Returns how many bytes were dropped.

        The message they were in is dropped. When its end is known to lie behind the gap, reading goes on there; otherwise
        at the next plausible header, as `resync` does.
        """
        cdef unsigned long long before, missing, rest, have
        if _index(nbytes) < 0:
            raise ValueError(f"a gap of {nbytes} bytes")
        missing = nbytes
        self._enter()
        try:
            before = self.lost
            while self.error is not None:
                self._resync()
            if missing:
                self.lent = 0
                have = self._partial()
                if self.skip:
                    rest = self.skip
                elif self.target is not None:
                    rest = self.goal - self.filled
                else:
                    rest = self.need - have if self.need > HEADER else 0
                self._forget_open()
                self._forget_partial()
                self.orphans = True
                self.stream += missing
                if missing > rest:
                    self.skip = 0
                    self.searching = True
                else:
                    self.skip = rest - missing
            return self.lost - before
        finally:
            self.busy = False

    cdef int _enter(self) except -1:
        """Two threads in one framer would be memory corruption: copies are made without the GIL."""
        if self.busy:
            raise RuntimeError("a Framer belongs to one thread at a time")
        self.busy = True
        return 0

    cdef inline size_t _enough(self) noexcept:
        """How many of the unparsed bytes must be there before it is worth looking at them."""
        return self.need if self.need < HEADER + LARGE else HEADER + LOOK

    cdef size_t _partial(self) noexcept:
        """Bytes of the message or segment that is coming."""
        if self.target is not None:
            return HEADER + self.head_size - (self.goal - self.filled)
        return self.tail_have + self.block_end - self.block_pos

    cdef object _unparsed(self):
        """Take out what came of the message or segment that is coming: (bytes or _Store, pos, end), or None."""
        cdef object found = None
        cdef bytes data
        cdef unsigned char *p
        cdef size_t n
        if self.target is not None:
            n = self.head_size - (self.goal - self.filled)
            data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(HEADER + n))
            p = <unsigned char *>PyBytes_AS_STRING(data)
            _write_header(p, self.head_version, self.head_flags, self.head_command, <uint32_t>self.head_size)
            memcpy(p + HEADER, self.target.ptr + (self.filled - n), n)
            found = (data, 0, HEADER + n)
            self.target = None
        elif self.tail_have:
            data = PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.tail), <Py_ssize_t>self.tail_have)
            found = (data, 0, self.tail_have)
            self._tail_clear()
        elif self.block_pos < self.block_end:
            found = (self.block, self.block_pos, self.block_end)
            self.block_pos = self.block_end
        self.need = HEADER
        return found

    cdef int _forget_partial(self) noexcept:
        cdef size_t n = self._partial()
        self.lost += n
        self.stream += n
        self.target = None
        self._tail_clear()
        self.block_pos = self.block_end
        self.need = HEADER
        return 0

    cdef int _forget_open(self) noexcept:
        self.lost += self.open_bytes
        self.open_bytes = 0
        self.is_open = False
        self.join = None
        self.joined = 0
        self.count = 0
        return 0

    cdef object _resync(self):
        cdef unsigned long long before = self.lost
        cdef list held = self.held
        cdef object owner, partial
        self._forget_open()
        self.held = []
        self.orphans = True
        if self.error is None:
            partial = self._unparsed()
            if partial is not None:
                held.insert(0, partial)
            self.searching = True
        elif not self.intact:
            owner, pos, end = held[0]
            held[0] = (owner, pos + 1, end)
            self.lost += 1
            self.stream += 1
            self.searching = True
        self.error = None
        self.has_failed = False
        self.need = HEADER
        for owner, pos, end in held:
            self._chunk(owner, pos, end)
        return self.lost - before

    cdef int _raise(self) except -1:
        reason, offset, limit = self.error
        if limit:
            raise LimitExceeded(reason, offset, limit=limit)
        raise DecodeError(reason, offset)

    cdef int _fail(self, str reason, unsigned long long offset, str limit="", bint intact=False) except -1:
        self.error = (reason, offset, limit)
        self.intact = intact
        return 0

    cdef int _tail_clear(self) noexcept:
        self.tail = None
        self.tail_have = 0
        return 0

    cdef int _tail_begin(self, const unsigned char *p, size_t n) except -1:
        """The tail is the n bytes at `p`, fewer than `_enough`."""
        cdef bytes tail = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>max(self._enough(), n))
        memcpy(PyBytes_AS_STRING(tail), p, n)
        self.tail = tail
        self.tail_have = n
        return 0

    cdef int _chunk(self, object owner, size_t pos, size_t end) except -1:
        """The next bytes, the block holding none: complete what the tail begins, then take the rest."""
        cdef const unsigned char *p = _bytes_of(owner)  # valid while owner is held
        cdef bytes tail, joined
        cdef size_t n, k, enough
        if self.searching and self.tail_have and self.error is None:
            # A header is judged together with what follows it. The tail has at most seven bytes now.
            n = self.tail_have
            joined = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(n + (end - pos)))
            memcpy(PyBytes_AS_STRING(joined), PyBytes_AS_STRING(self.tail), n)
            _copy(<unsigned char *>PyBytes_AS_STRING(joined) + n, p + pos, end - pos)
            self._tail_clear()
            return self._take(joined, 0, n + (end - pos))
        while self.tail_have and pos < end:
            tail = self.tail
            enough = self._enough()
            k = min(enough - self.tail_have, end - pos)
            memcpy(<unsigned char *>PyBytes_AS_STRING(tail) + self.tail_have, p + pos, k)
            self.tail_have += k
            pos += k
            if self.tail_have < enough:
                return 0
            n = self.tail_have
            self._tail_clear()
            self._take(tail, 0, n)
        return self._take(owner, pos, end)

    cdef int _take(self, object owner, size_t pos, size_t end) except -1:
        """The next bytes, the tail being empty: into the target first, then parsed, the rest into the tail."""
        cdef const unsigned char *p = _bytes_of(owner)  # valid while owner is held
        cdef _Store target
        cdef size_t k, at
        while pos < end:
            if self.error is not None:
                self.held.append((owner, pos, end))
                return 0
            target = self.target
            if target is None:
                pos = self._parse(owner, pos, end)
                if pos < end and self.error is None:
                    return self._tail_begin(p + pos, end - pos)
            else:
                at = self.filled
                k = min(self.goal - at, end - pos)
                self.filled += k
                _copy(target.ptr + at, p + pos, k)
                pos += k
                if self.filled == self.goal:
                    self._target_full()
        return 0

    cdef Py_ssize_t _parse(self, object owner, size_t pos, size_t end) except -1:
        """Whole messages of owner[pos:end], the tail and the target being empty. Returns where it stopped.

        Before the end it stops at an error, or at what needs more bytes to be parsed, see `_enough`.
        """
        cdef const unsigned char *p = _bytes_of(owner)  # valid while owner is held
        cdef object data = owner if PyBytes_CheckExact(owner) else (<_Store>owner).view
        cdef list ready = self.ready
        cdef unsigned char version, flags, command, segment
        cdef unsigned long long base
        cdef size_t start, size, k, at
        cdef const unsigned char *h
        if self.skip:
            k = <size_t>min(self.skip, <unsigned long long>(end - pos))
            self.skip -= k
            self.lost += k
            self.stream += k
            pos += k
        base = self.stream - pos  # modulo 2**64: of the byte at index 0
        self.need = HEADER
        while end - pos >= HEADER:
            if self.searching:
                start = self._find(p, pos, end)
                self.lost += start - pos
                pos = start
                if self.searching:
                    break
            h = p + pos
            version = h[1]
            flags = h[2]
            command = h[3]
            if h[0] != MAGIC:
                self._fail(f"magic 0xca expected, 0x{h[0]:02x} found", base + pos)
                break
            if version == 0:
                self._fail("version 1 or above expected, 0 found", base + pos)
                break
            if self.direction >= 0 and flags & FROM_SERVER != self.direction:
                sender = "server" if self.direction else "client"
                self._fail(f"message of the {sender} expected, flags 0x{flags:02x} found", base + pos)
                break
            size = _size_at(h, flags)
            if flags & CONTROL:
                ready.append(_message(version, flags, command, b"", 0, 0, base + pos, size))
                pos += HEADER
                continue
            if size > self.size_max:
                self._fail(f"message of {size} bytes, {self.size_max} allowed", base + pos, "message")
                break
            segment = flags & SEGMENT
            if segment or self.is_open:
                if not self.is_open and segment != FIRST and self.orphans:
                    # Its first segment was lost.
                    k = min(size, end - pos - HEADER) + HEADER
                    self.lost += k
                    self.skip = HEADER + <unsigned long long>size - k
                    pos += k
                    continue
                if not self._admit(flags, command, size, base + pos):
                    break
            start = pos + HEADER
            if size > end - start:
                k = end - start
                if size < LARGE or k < LOOK:
                    self.need = HEADER + <size_t>size
                    break
                if not self._target_begin(version, flags, command, base + pos, size, p + start, k):
                    break
                at = self.filled
                self.filled += k
                self.stream = base + pos
                _copy(self.target.ptr + at, p + start, k)
                return <Py_ssize_t>end
            self.orphans = False
            if size >= LARGE:
                self.window = WINDOW
            if segment:
                if not self._reserve(flags, size, base + pos, p + start, size):
                    break
                _copy(self.join.ptr + self.joined, p + start, size)
                self._append(version, flags, command, base + pos, size)
            else:
                ready.append(_message(version, flags, command, data, start, start + size, base + pos, size))
            pos = start + size
        self.stream = base + pos
        return <Py_ssize_t>pos

    cdef int _admit(
        self, unsigned char flags, unsigned char command, size_t size, unsigned long long offset
    ) except -1:
        """Whether a segment, or a message inside segments, may come now."""
        cdef unsigned char segment = flags & SEGMENT
        cdef unsigned long long total
        if not self.is_open:
            if segment != FIRST:
                name = "last" if segment == LAST else "middle"
                self._fail(f"first segment of command {command} expected, {name} found", offset, "", True)
                return 0
        else:
            if segment == 0 or segment == FIRST or command != self.open_command:
                what = (
                    "whole message" if segment == 0
                    else "first segment" if segment == FIRST
                    else "last segment" if segment == LAST
                    else "middle segment"
                )
                self._fail(
                    f"next segment of command {self.open_command} expected, {what} of command {command} found",
                    offset, "", True,
                )
                return 0
            if (flags ^ self.open_flags) & BIG_ENDIAN:
                order, other = ("big", "little") if self.open_flags & BIG_ENDIAN else ("little", "big")
                self._fail(f"{order}-endian segment expected, {other}-endian found", offset, "", True)
                return 0
            if self.count >= self.segments_max:
                self._fail(f"message of more than {self.segments_max} segments", offset, "segments", True)
                return 0
        total = <unsigned long long>self.joined + size
        if total > self.size_max:
            self._fail(f"message of {total} bytes, {self.size_max} allowed", offset, "message", True)
            return 0
        return 1

    cdef int _append(
        self, unsigned char version, unsigned char flags, unsigned char command,
        unsigned long long offset, size_t size,
    ) except -1:
        """The segment join[joined:joined + size] is there."""
        if not self.is_open:
            self.is_open = True
            self.open_version = version
            self.open_flags = flags & ~SEGMENT
            self.open_command = command
            self.open_offset = offset
        self.joined += size
        self.count += 1
        self.open_bytes += HEADER + size
        if flags & SEGMENT == LAST:
            self.ready.append(
                _message(
                    self.open_version, self.open_flags, self.open_command,
                    self.join.view, 0, self.joined, self.open_offset, self.joined,
                )
            )
            self.open_bytes = 0
            self._forget_open()
        return 0

    cdef int _reserve(
        self, unsigned char flags, size_t size, unsigned long long offset, const unsigned char *p, size_t n
    ) except -1:
        """Make room for a segment of `size` bytes, which begins with the n at `p`, behind what was joined; 0 after a failure."""
        cdef size_t total = self.joined + size
        cdef unsigned long long capacity
        cdef _Store fresh
        if self.join is None or self.join.capacity < total:
            capacity = max(total, <size_t>JOIN_MIN)
            if size >= LARGE and flags & SEGMENT != LAST:
                capacity += SLACK
            if self.join is not None:
                # Doubled, so that any number of segments costs linear time.
                capacity = max(capacity, min(2 * <unsigned long long>self.join.capacity, self.size_max))
            fresh = self._store(flags, capacity, total, offset, p, n)
            if fresh is None:
                return 0
            if self.join is not None:
                _copy(fresh.ptr, self.join.ptr, self.joined)
            self.join = fresh
        return 1

    cdef _Store _store(
        self, unsigned char flags, unsigned long long capacity, size_t size, unsigned long long offset,
        const unsigned char *p, size_t n,
    ):
        """A buffer for a payload of `size` bytes, as far as is known: what was joined, then what begins with the n at `p`."""
        cdef unsigned char head[LOOK]
        cdef size_t have = 0
        try:
            if capacity < LARGE:
                return _new_store(capacity, False, 0, None)
            if self.join is not None:
                have = min(self.joined, <size_t>LOOK)
                memcpy(head, self.join.ptr, have)
            n = min(n, LOOK - have)
            memcpy(head + have, p, n)
            return _new_store(
                capacity, True, _array_at(head, have + n, size, flags & BIG_ENDIAN), self.allocate
            )
        except (MemoryError, OverflowError):
            self._fail(f"no memory for a buffer of {capacity} bytes", offset, "message")
            return None

    cdef int _target_begin(
        self, unsigned char version, unsigned char flags, unsigned char command,
        unsigned long long offset, size_t size, const unsigned char *p, size_t n,
    ) except -1:
        """Begin to receive a large payload, of which the n bytes at `p` are there; 0 after a failure."""
        cdef _Store target
        if flags & SEGMENT:
            if not self._reserve(flags, size, offset, p, n):
                return 0
            target = self.join
            self.filled = self.joined
        else:
            target = self._store(flags, size, size, offset, p, n)
            if target is None:
                return 0
            self.filled = 0
        self.target = target
        self.goal = self.filled + size
        self.head_version = version
        self.head_flags = flags
        self.head_command = command
        self.head_offset = offset
        self.head_size = size
        return 1

    cdef int _target_full(self) except -1:
        """The large payload is there."""
        cdef _Store target = self.target
        self.target = None
        self.need = HEADER
        self.window = WINDOW
        self.orphans = False
        self.stream = self.head_offset + HEADER + self.head_size
        if self.head_flags & SEGMENT:
            self._append(self.head_version, self.head_flags, self.head_command, self.head_offset, self.head_size)
        else:
            self.ready.append(
                _message(
                    self.head_version, self.head_flags, self.head_command,
                    target.view, 0, self.head_size, self.head_offset, self.head_size,
                )
            )
        return 0

    cdef size_t _find(self, const unsigned char *p, size_t pos, size_t end) noexcept:
        """The next plausible header in p[pos:end]; ends the search, or returns from where on bytes must be kept."""
        cdef const unsigned char *found
        while pos < end:
            found = <const unsigned char *>memchr(p + pos, MAGIC, end - pos)
            if found == NULL:
                return end
            pos = <size_t>(found - p)
            if _possible(found, end - pos):
                if end - pos < HEADER:
                    return pos
                if self._plausible(p, pos, end):
                    self.searching = False
                    return pos
            pos += 1
        return end

    cdef bint _plausible(self, const unsigned char *p, size_t pos, size_t end) noexcept:
        """Whether a header begins at `pos`: eight bytes are there, and `_possible` has seen four."""
        cdef unsigned char flags = p[pos + 2]
        cdef unsigned char command = p[pos + 3]
        cdef size_t size = _size_at(p + pos, flags)
        cdef size_t left = end - pos - HEADER
        cdef size_t at
        if self.direction >= 0 and flags & FROM_SERVER != self.direction:
            return False
        if flags & CONTROL:
            if command == 2 and size != 0 and size != 0xFFFFFFFF:
                return False
            size = 0
        else:
            if size > self.size_max or (size > SMALL_MAX and not _is_bulk(command)):
                return False
            if _has_subcommand(command) and not flags & LAST:
                at = 4 if flags & FROM_SERVER else 8
                if size <= at and not flags & FIRST:
                    return False
                if size > at and at < left and p[pos + HEADER + at] & NO_SUBCOMMAND_BITS:
                    return False
        return size >= left or _possible(p + pos + HEADER + size, left - size)


cdef list receive(object framer, object data, bint *damaged):
    """`receive_data`, then the `messages`; damaged: whether an error waits behind them."""
    cdef Framer self = <Framer?>framer
    cdef list ready
    self.receive_data(data)
    ready = self.ready
    if ready:
        self.ready = []
    damaged[0] = self.error is not None
    return ready


cdef const unsigned char *_bytes_of(object owner) except NULL:
    """Of bytes or a _Store: valid while the owner is held."""
    if PyBytes_CheckExact(owner):
        return <const unsigned char *>PyBytes_AS_STRING(owner)
    return (<_Store?>owner).ptr


cdef object _within(str name, object value, object top):
    if not 0 <= _index(value) <= top:
        raise ValueError(f"{name} must be 0 to {top}, not {value}")
    return value


cdef void _write_header(
    unsigned char *p, unsigned char version, unsigned char flags, unsigned char command, uint32_t size
) noexcept nogil:
    p[0] = MAGIC
    p[1] = version
    p[2] = flags
    p[3] = command
    if flags & BIG_ENDIAN:
        p[4] = size >> 24
        p[5] = size >> 16 & 0xFF
        p[6] = size >> 8 & 0xFF
        p[7] = size & 0xFF
    else:
        p[4] = size & 0xFF
        p[5] = size >> 8 & 0xFF
        p[6] = size >> 16 & 0xFF
        p[7] = size >> 24


cdef inline unsigned char _octet(str name, object value) except? 0xFF:
    cdef int overflow = 0
    cdef long long number
    if PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if not overflow and 0 <= number <= 0xFF:
            return <unsigned char>number
    return _within(name, value, 0xFF)


cdef int _big(object byteorder) except -1:
    if byteorder == "little":
        return 0
    if byteorder == "big":
        return 1
    raise ValueError(f"byteorder must be 'little' or 'big', not {byteorder!r}")


cdef bytes _pack(unsigned char version, unsigned char flags, unsigned char command, uint32_t size, bint big):
    cdef unsigned char head[HEADER]
    _write_header(head, version, flags | BIG_ENDIAN if big else flags & 0x7F, command, size)
    return PyBytes_FromStringAndSize(<char *>head, HEADER)


def control(command, value=0, *, flags=0, byteorder="little", version=2):
    """A control message with its 32 bits of data. flags: 0x40 from a server; the others are set here."""
    cdef uint32_t word = _within("value", value, 0xFFFFFFFF)
    cdef unsigned char number = _octet("version", version)
    cdef unsigned char bits = _octet("flags", flags | CONTROL)
    return _pack(number, bits, _octet("command", command), word, _big(byteorder))


def frame(command, buffers, *, flags=0, byteorder="little", version=2, segment_size=None):
    """An application message whose payload is the joined `buffers`: the buffers to send, in order.

    flags: 0x40 from a server; byte order and segmentation are set here. Buffers of 64 KiB and more are passed on
    without a copy (bytes as they are, others as flat memoryviews), smaller ones are joined with the headers.
    segment_size: a payload above it is sent in segments of that many bytes (the last one: of what is left).
    EncodeError when a single message would be above 4 GiB - 1.
    """
    cdef unsigned char number, bits, code, kind
    cdef unsigned char *p
    cdef bint big, large = False
    cdef unsigned long long total = 0
    cdef unsigned long long left, most
    cdef size_t size, k, at = 0, length
    cdef list pieces = []
    cdef list out = []
    cdef list small = []
    if flags & 0x31:
        raise ValueError(f"flags 0x{flags:02x}: control and segment bits are set by the framing")
    if segment_size is not None and not 1 <= _index(segment_size) <= 0xFFFFFFFF:
        raise ValueError(f"segment_size must be 1 to 4294967295, not {segment_size}")
    for buffer in buffers:
        piece = buffer if PyBytes_CheckExact(buffer) else _flat(buffer)
        length = len(piece)
        if length:
            pieces.append(piece)
            total += length
            large |= length >= LARGE
    if segment_size is None or total <= segment_size:
        if total > 0xFFFFFFFF:
            raise EncodeError(f"payload of {total} bytes, 4294967295 fit a message: segment_size= splits it")
        most = total
    else:
        most = segment_size
    number = _octet("version", version)
    bits = _octet("flags", flags)
    code = _octet("command", command)
    big = _big(byteorder)
    if not large and most == total:
        joined = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(HEADER + total))
        p = <unsigned char *>PyBytes_AS_STRING(joined)  # valid while joined is held
        _write_header(p, number, bits | BIG_ENDIAN if big else bits & 0x7F, code, <uint32_t>total)
        p += HEADER
        for piece in pieces:
            length = len(piece)
            if PyBytes_CheckExact(piece):
                memcpy(p, PyBytes_AS_STRING(piece), length)
            else:
                memcpy(p, PyMemoryView_GET_BUFFER(piece).buf, length)
            p += length
        return [joined]
    pieces.reverse()
    left = total
    while True:
        size = <size_t>min(most, left)
        if left == total:
            kind = FIRST if size < left else 0
        else:
            kind = SEGMENT if size < left else LAST
        small.append(_pack(number, bits | kind, code, <uint32_t>size, big))
        left -= size
        while size:
            piece = pieces[len(pieces) - 1]
            length = len(piece)
            k = min(size, length - at)
            part = piece if k == length else memoryview(piece)[at : at + k]
            if length < LARGE or k < SLICE_MIN:
                small.append(part)
            else:
                if small:
                    out.append(b"".join(small))
                    small = []
                out.append(part)
            size -= k
            at += k
            if at == length:
                pieces.pop()
                at = 0
        if not left:
            break
    if small:
        out.append(b"".join(small))
    return out

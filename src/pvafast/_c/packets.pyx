"""The plain case of captured packets, in bulk. The contract is told in `_py/packets.py`."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(object, object) except? NULL

cdef enum:
    TCP = 6
    SPECIAL = 0x17
    ACK = 0x10
    PACKET = 6
    MOST_BYTES = 8192
    MONITOR = 13
    ETHERNET = 1
    TAG = 0x8100
    IPV4 = 0x0800
    IPV6 = 0x86DD


cdef class Flow:
    """One direction of a TCP connection, as far as the plain case needs it.

    fast: the segment that begins at `next` can be taken without further thought. next: sequence number of the next byte.
    acked: the latest acknowledgement of its receiver. touched: number of its latest packet. peer: the other direction.
    run: the one that is being made.
    """

    cdef public object connection
    cdef public object peer
    cdef public object run
    cdef public int side
    cdef public bint fast
    cdef public long long next
    cdef public long long acked
    cdef public long long touched

    def __init__(self, connection, side):
        self.connection = connection
        self.side = side
        self.peer = None
        self.run = None
        self.fast = False
        self.next = -1
        self.acked = -1
        self.touched = 0


@cython.final
@cython.freelist(64)
cdef class Run:
    """What plain packets of one flow brought: chunks, the time of each, and their size together."""

    cdef public object flow
    cdef public object clock
    cdef public list times
    cdef public list chunks
    cdef public Py_ssize_t size

    def __init__(self, flow, clock):
        self.flow = flow
        self.clock = clock
        self.times = []
        self.chunks = []
        self.size = 0


cdef inline uint32_t _get32(const unsigned char *p, bint big) noexcept nogil:
    if big:
        return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | <uint32_t>p[3]
    return <uint32_t>p[3] << 24 | <uint32_t>p[2] << 16 | <uint32_t>p[1] << 8 | <uint32_t>p[0]


cdef inline uint32_t _get16(const unsigned char *p) noexcept nogil:
    return <uint32_t>p[0] << 8 | <uint32_t>p[1]


cdef bint _is_big(str order) except -1:
    if order == "<":
        return False
    if order == ">":
        return True
    raise KeyError(order)


@cython.final
cdef class Plain:
    """Takes plain packets out of the window of a capture file.

    flows: by their key, source and destination (4 or 16 bytes each) and their ports (2 each). together: a chunk of whole
    monitor updates of PVA and nothing else is put to those of its flow, past chunks of other connections (updates are nearly
    all that there is, and a run costs more than an update). count: packets so far; ticks, clock: the time of the latest.
    Whoever takes the other packets keeps these up, too.
    """

    cdef public dict flows
    cdef public object clock
    cdef public long long count
    cdef public unsigned long long ticks
    cdef public bint together
    cdef list runs
    cdef Run last  # of the runs
    # Of the interface that was looked at last: see _LINKS of the Python twin. A mark of 0 bytes fits everything.
    cdef object interface
    cdef object its_clock
    cdef int link
    cdef bint known
    cdef size_t skip
    cdef size_t mark_at
    cdef size_t mark_size
    cdef uint32_t mark

    def __init__(self, dict flows not None, clock, together=False):
        self.flows = flows
        self.together = together
        self.count = 0
        self.ticks = 0
        self.clock = clock
        self.runs = []
        self.link = -1
        self.known = False

    def pcap(self, bytes data not None, Py_ssize_t position, str order not None, interface):
        """The runs of the plain records of a pcap file that data[position:] begins with, and where they end.

        order: "<" or ">". interface: has `link`, its LINKTYPE, and `clock`, with `per_second`. What is not whole is not plain.
        """
        cdef const unsigned char *p = <const unsigned char *>PyBytes_AS_STRING(data)  # valid while data is held
        cdef size_t size = <size_t>PyBytes_GET_SIZE(data)
        cdef size_t at = self._start(position, size)
        cdef size_t captured
        cdef unsigned long long per_second = interface.clock.per_second
        cdef bint big = _is_big(order)
        self._look(interface)
        while size - at >= 16:
            captured = _get32(p + at + 8, big)
            if captured > size - at - 16:
                break
            if not self._take(
                p + at + 16, captured, _get32(p + at, big) * per_second + _get32(p + at + 4, big)
            ):
                break
            at += 16 + captured
        return self._finish(), <Py_ssize_t>at

    def pcapng(self, bytes data not None, Py_ssize_t position, str order not None, list interfaces not None):
        """The same of a pcapng file: its enhanced packet blocks."""
        cdef const unsigned char *p = <const unsigned char *>PyBytes_AS_STRING(data)  # valid while data is held
        cdef size_t size = <size_t>PyBytes_GET_SIZE(data)
        cdef size_t at = self._start(position, size)
        cdef size_t block, captured, number
        cdef const unsigned char *h
        cdef bint big = _is_big(order)
        while size - at >= 32:
            h = p + at
            block = _get32(h + 4, big)
            number = _get32(h + 8, big)
            captured = _get32(h + 20, big)
            if (
                _get32(h, big) != PACKET
                or block & 3
                or block < 32
                or block > size - at
                or captured > block - 32
                or number >= <size_t>len(interfaces)
                or _get32(h + block - 4, big) != block
            ):
                break
            interface = interfaces[<Py_ssize_t>number]
            if interface is not self.interface:
                self._look(interface)
            if not self._take(
                h + 28, captured, <unsigned long long>_get32(h + 12, big) << 32 | _get32(h + 16, big)
            ):
                break
            at += block
        return self._finish(), <Py_ssize_t>at

    cdef Py_ssize_t _start(self, Py_ssize_t position, size_t size) except -1:
        if not 0 <= position <= <Py_ssize_t>size:
            raise ValueError(f"position {position} outside of {size} bytes")
        self.runs = []
        self.last = None
        self.interface = None
        return position

    cdef list _finish(self):
        cdef list runs = self.runs
        for run in runs:
            (<Flow>(<Run>run).flow).run = None
        self.runs = []
        self.last = None
        return runs

    cdef int _look(self, object interface) except -1:
        self.interface = interface
        self.its_clock = interface.clock
        self.link = interface.link
        self.known = True
        self.mark_size = 0
        self.mark_at = 0
        self.mark = 0
        if self.link == ETHERNET:
            self.skip, self.mark_at, self.mark_size, self.mark = 14, 12, 2, IPV4
        elif self.link == 113:
            self.skip, self.mark_at, self.mark_size, self.mark = 16, 14, 2, IPV4
        elif self.link == 276:
            self.skip, self.mark_at, self.mark_size, self.mark = 20, 0, 2, IPV4
        elif self.link == 0:
            self.skip, self.mark_size, self.mark = 4, 4, 0x02000000
        elif self.link == 108:
            self.skip, self.mark_size, self.mark = 4, 4, 0x00000002
        elif self.link in (12, 14, 101, 228, 229):
            self.skip = 0
        else:
            self.known = False
        return 0

    cdef bint _take(self, const unsigned char *p, size_t size, unsigned long long ticks) except -1:
        """Whether the frame p[:size] is plain; then it is counted, and its payload put into a run."""
        cdef size_t first = self.skip
        cdef size_t stop, key_size
        cdef uint32_t kind, sequence
        cdef const unsigned char *mark
        cdef const unsigned char *ip
        cdef const unsigned char *tcp
        cdef const unsigned char *key
        cdef PyObject *hit
        cdef Flow flow, peer
        cdef Run run
        if not self.known or size < first + 40:
            return False
        mark = p + self.mark_at
        kind = _get16(mark) if self.mark_size == 2 else _get32(mark, True) if self.mark_size else 0
        if kind == TAG and self.link == ETHERNET and size >= first + 44:
            first += 4
            kind = _get16(mark + 4)
        ip = p + first
        if ip[0] == 0x45 and ip[9] == TCP and kind == self.mark and not _get16(ip + 6) & 0x3FFF:
            stop = first + _get16(ip + 2)
            first += 20
            key = ip + 12
            key_size = 12
        elif kind == IPV6 and self.mark_size == 2 and size >= first + 60:
            if ip[0] >> 4 != 6 or ip[6] != TCP or not _get16(ip + 4):
                return False
            stop = first + 40 + _get16(ip + 4)
            first += 40
            key = ip + 8
            key_size = 36
        else:
            return False
        tcp = p + first
        sequence = _get32(tcp + 4, True)
        hit = PyDict_GetItemWithError(self.flows, PyBytes_FromStringAndSize(<const char *>key, key_size))
        if hit == NULL:
            return False
        flow = <Flow?><object>hit
        if flow.next != sequence or not flow.fast or tcp[13] & SPECIAL != ACK:
            return False
        first += (tcp[12] >> 4) * 4
        if tcp[12] < 0x50 or first > stop or stop > size:
            return False
        peer = <Flow?>flow.peer
        self.count += 1
        self.ticks = ticks
        self.clock = self.its_clock
        flow.touched = self.count
        peer.acked = _get32(tcp + 8, True)
        if first == stop:
            return True
        flow.next = <uint32_t>(sequence + (stop - first))
        peer.run = None
        run = <Run?>flow.run if flow.run is not None else None
        if (
            run is None
            or run.size >= MOST_BYTES
            or run.clock is not self.its_clock
            or (run is not self.last and not (self.together and _is_updates(p + first, stop - first)))
        ):
            if flow.connection.ignored:
                return True
            run = Run(flow, self.its_clock)
            self.runs.append(run)
            self.last = run
            flow.run = run
        run.times.append(ticks)
        run.chunks.append(PyBytes_FromStringAndSize(<const char *>p + first, <Py_ssize_t>(stop - first)))
        run.size += <Py_ssize_t>(stop - first)
        return True


cdef bint _is_updates(const unsigned char *p, size_t n) noexcept nogil:
    """Whether these are whole messages of a server, and each a MONITOR update."""
    cdef size_t size
    while n:
        if n < 13 or p[0] != 0xCA or p[2] & 0x7F != 0x40 or p[3] != MONITOR:
            return False
        size = _get32(p + 4, p[2] & 0x80 != 0)
        if size < 5 or size > n - 8 or p[12]:
            return False
        p += 8 + size
        n -= 8 + size
    return True

"""BitSet: which nodes of a structure an update carries (WIRE 5 and 6.4)."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport Py_EQ, Py_LE, Py_NE, PyTypeObject
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from .buffer cimport (
    HOST_IS_BIG,
    Caps,
    Cursor,
    Reader,
    Writer,
    bits64,
    ctz64,
    get32,
    is_big,
    left,
    load_caps,
    owner_of,
    put_bytes,
    put_size,
    raise_short,
    read_size,
    start_cursor,
    swap64,
)

from operator import index

from ..limits import Limits

cdef enum:
    MAX_BITS = 1 << 24

cdef Caps DEFAULT_CAPS
load_caps(Limits(), &DEFAULT_CAPS)


cdef inline uint64_t word_at(const uint8_t* p, bint big) noexcept nogil:
    """A complete group of eight bytes, a u64 in message order."""
    cdef uint64_t x
    memcpy(&x, p, 8)
    return x if big == HOST_IS_BIG else swap64(x)


cdef inline uint64_t tail_at(const uint8_t* p, size_t n) noexcept nogil:
    """The last 1 to 7 bytes, least significant first whatever the order."""
    cdef uint64_t x = 0
    cdef size_t i
    for i in range(n):
        x |= <uint64_t>p[i] << (8 * i)
    return x


cdef const uint8_t* bytes_of(Cursor* c, size_t* n) except NULL:
    """The bytes of a set on the wire, which are then read."""
    cdef const uint8_t* start = c.pos
    n[0] = <size_t>read_size(c)
    cdef const uint8_t* found
    if n[0] > left(c):
        try:
            raise_short(c, f"BitSet of {n[0]} bytes", n[0])
        finally:
            c.pos = start
    found = c.pos
    c.pos += n[0]
    # No structure has so many nodes: bits from there on are ignored.
    if n[0] > MAX_BITS // 8:
        n[0] = MAX_BITS // 8
    return found


cdef bint quick_words(Cursor* c, uint64_t* words, size_t count) noexcept nogil:
    cdef const uint8_t* p = c.pos
    cdef size_t n
    cdef size_t i
    if p >= c.end or p[0] == 0xFF or (p[0] == 0xFE and left(c) < 5):
        return False
    if p[0] == 0xFE:
        n = get32(p + 1, c.swap)
        p += 5
    else:
        n = p[0]
        p += 1
    if n > <size_t>(c.end - p):
        return False
    c.pos = p + n
    if n > count * 8:
        n = count * 8
    for i in range(n // 8):
        words[i] = word_at(p + 8 * i, c.big)
    memset(words + n // 8, 0, (count - n // 8) * 8)
    if n % 8:
        words[n // 8] = tail_at(p + n - n % 8, n % 8)
    return True


cdef int read_words(Cursor* c, uint64_t* words, size_t count) except -1:
    cdef size_t n = 0
    if not quick_words(c, words, count):
        bytes_of(c, &n)  # raises
    return 0


cdef BitSet read_bitset(Cursor* c):
    cdef size_t n = 0
    cdef const uint8_t* p = bytes_of(c, &n)
    cdef BitSet made = BitSet.__new__(BitSet)
    cdef size_t i
    made.reserve((n + 7) // 8)
    for i in range(n // 8):
        made.words[i] = word_at(p + 8 * i, c.big)
    if n % 8:
        made.words[n // 8] = tail_at(p + n - n % 8, n % 8)
    made.trim()
    return made


cdef int write_words(Writer w, const uint64_t* words, size_t count) except -1:
    cdef size_t n, i, k
    cdef uint64_t word
    cdef uint8_t[8] raw
    while count and words[count - 1] == 0:
        count -= 1
    if not count:
        return put_size(w, 0)
    n = count * 8
    word = words[count - 1]
    while not word >> 56:
        word <<= 8
        n -= 1
    put_size(w, n)
    for i in range(n // 8):
        word = words[i]
        if w.big != HOST_IS_BIG:
            word = swap64(word)
        put_bytes(w, &word, 8)
    if n % 8:
        word = words[n // 8]
        for k in range(n % 8):
            raw[k] = <uint8_t>(word >> (8 * k))
        put_bytes(w, raw, n % 8)
    return 0


cdef BitSet from_words(const uint64_t* words, size_t count):
    cdef BitSet made = BitSet.__new__(BitSet)
    made.reserve(count)
    memcpy(made.words, words, count * 8)
    made.trim()
    return made


@cython.final
@cython.freelist(16)
cdef class BitSet:
    """An immutable set of bit numbers: the nodes of a structure, depth first, 0 being the root."""

    def __cinit__(self, *args):
        self.words = self.small
        self.count = 0

    def __init__(self, bits=(), /):
        cdef size_t highest = 0
        cdef size_t bit
        numbers = []
        for number in bits:
            if not 0 <= number < MAX_BITS:
                raise ValueError(f"bit numbers lie in 0 to {MAX_BITS - 1}, not {number}")
            numbers.append(index(number))
        for number in numbers:
            bit = number
            highest = max(highest, bit + 1)
        if self.count:
            raise TypeError("BitSet is immutable")
        self.reserve((highest + 63) // 64)
        for number in numbers:
            bit = number
            self.words[bit // 64] |= <uint64_t>1 << (bit % 64)

    def __dealloc__(self):
        if self.words != self.small:
            PyMem_Free(self.words)

    cdef int reserve(self, size_t count) except -1:
        """Room for so many words, all zero. Once, on a new object."""
        if count > 2:
            self.words = <uint64_t*>PyMem_Malloc(count * 8)
            if self.words == NULL:
                self.words = self.small
                raise MemoryError()
        self.count = count
        memset(self.words, 0, count * 8)
        return 0

    cdef void trim(self) noexcept:
        while self.count and self.words[self.count - 1] == 0:
            self.count -= 1

    @classmethod
    def read(cls, reader):
        """Read the wire form: a Size, then that many bytes."""
        cdef Reader r = reader
        return read_bitset(&r.c)

    @classmethod
    def decode(cls, data, offset=0, *, end=None, byteorder="little"):
        """Decode the wire form at `data[offset:end]`; returns the set and the offset behind it."""
        cdef Cursor c
        cdef object owner = owner_of(data)
        cdef bint big = is_big(byteorder)
        cdef Py_ssize_t stop = -1
        if end is not None:
            stop = end
            if stop < 0:
                raise ValueError(f"start {offset} and end {end} do not lie in {len(owner)} bytes")
        start_cursor(&c, owner, offset, stop, big, False, &DEFAULT_CAPS)
        made = read_bitset(&c)
        return made, <Py_ssize_t>(c.pos - c.base)

    def write(self, writer):
        """Write the wire form."""
        cdef Writer w = writer
        write_words(w, self.words, self.count)

    def encode(self, *, byteorder="little"):
        """The wire form, trailing zero bytes trimmed."""
        cdef Writer w = Writer(byteorder)
        write_words(w, self.words, self.count)
        return w.joined()

    def expand(self, type):
        """The leaves of `type` that an update with these bits carries, ascending.

        The bit of a structure stands for all leaves below it. Bits beyond the structure are ignored.
        """
        return type._expand_(self)

    def isdisjoint(self, other):
        """True if no bit is in both."""
        cdef BitSet theirs = other
        cdef size_t i
        for i in range(min(self.count, theirs.count)):
            if self.words[i] & theirs.words[i]:
                return False
        return True

    def __iter__(self):
        return iter(numbers_of(self))

    def __contains__(self, bit, /):
        cdef size_t n
        if not isinstance(bit, int) or not 0 <= bit < self.count * 64:
            return False
        n = bit
        return bool(self.words[n // 64] >> (n % 64) & 1)

    def __len__(self):
        cdef Py_ssize_t n = 0
        cdef size_t i
        for i in range(self.count):
            n += bits64(self.words[i])
        return n

    def __bool__(self):
        return self.count != 0

    def __richcmp__(self, other, int op):
        if not isinstance(other, BitSet) or op not in (Py_EQ, Py_NE, Py_LE):
            return NotImplemented
        cdef BitSet theirs = <BitSet>other
        cdef size_t i
        if op == Py_LE:
            if self.count > theirs.count:
                return False
            for i in range(self.count):
                if self.words[i] & ~theirs.words[i]:
                    return False
            return True
        equal = self.count == theirs.count
        if equal:
            for i in range(self.count):
                if self.words[i] != theirs.words[i]:
                    equal = False
                    break
        return equal == (op == Py_EQ)

    def __hash__(self):
        cdef uint64_t mixed = 0x9E3779B97F4A7C15
        cdef uint64_t prime = 0x100000001B3  # a literal of more than 32 bits would be a Python int
        cdef size_t i
        for i in range(self.count):
            mixed = (mixed ^ self.words[i]) * prime
            mixed ^= mixed >> 29
        cdef Py_hash_t found = <Py_hash_t>mixed
        return -2 if found == -1 else found

    def __or__(self, other, /):
        return combined(self, other, 0)

    def __and__(self, other, /):
        return combined(self, other, 1)

    def __xor__(self, other, /):
        return combined(self, other, 2)

    def __sub__(self, other, /):
        return combined(self, other, 3)

    def __repr__(self):
        return f"BitSet({{{', '.join(map(str, numbers_of(self)))}}})" if self.count else "BitSet()"

    def __reduce__(self):
        return BitSet, (numbers_of(self),)


cdef list numbers_of(BitSet bits):
    cdef list found = []
    cdef uint64_t word
    cdef size_t i
    for i in range(bits.count):
        word = bits.words[i]
        while word:
            found.append(i * 64 + <size_t>ctz64(word))
            word &= word - 1
    return found


cdef object combined(object left_side, object right_side, int how):
    """or, and, xor, difference."""
    if not isinstance(left_side, BitSet) or not isinstance(right_side, BitSet):
        return NotImplemented
    cdef BitSet a = <BitSet>left_side
    cdef BitSet b = <BitSet>right_side
    cdef BitSet made = BitSet.__new__(BitSet)
    cdef size_t i
    cdef uint64_t x, y
    made.reserve(max(a.count, b.count))
    for i in range(made.count):
        x = a.words[i] if i < a.count else 0
        y = b.words[i] if i < b.count else 0
        if how == 0:
            made.words[i] = x | y
        elif how == 1:
            made.words[i] = x & y
        elif how == 2:
            made.words[i] = x ^ y
        else:
            made.words[i] = x & ~y
    made.trim()
    return made


(<PyTypeObject*>BitSet).tp_name = "pvafast.BitSet"

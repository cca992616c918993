"""Cursor and Out: the elementary encodings as inline functions on bare pointers (WIRE 5)."""

from cpython.object cimport PyObject
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #if defined(_MSC_VER)
      #include <stdlib.h>
      #include <intrin.h>
      #define PVA_SWAP16 _byteswap_ushort
      #define PVA_SWAP32 _byteswap_ulong
      #define PVA_SWAP64 _byteswap_uint64
      static __inline int PVA_CTZ64(unsigned __int64 x) { unsigned long i; _BitScanForward64(&i, x); return (int)i; }
      static __inline int PVA_BITS64(unsigned __int64 x) { int n = 0; while (x) { x &= x - 1; n++; } return n; }
    #else
      #define PVA_SWAP16 __builtin_bswap16
      #define PVA_SWAP32 __builtin_bswap32
      #define PVA_SWAP64 __builtin_bswap64
      #define PVA_CTZ64(x) __builtin_ctzll(x)
      #define PVA_BITS64(x) __builtin_popcountll(x)
    #endif
    #if defined(PY_BIG_ENDIAN) && PY_BIG_ENDIAN
      #define PVA_HOST_BIG 1
    #else
      #define PVA_HOST_BIG 0
    #endif
    """
    uint16_t swap16 "PVA_SWAP16"(uint16_t) noexcept nogil
    uint32_t swap32 "PVA_SWAP32"(uint32_t) noexcept nogil
    uint64_t swap64 "PVA_SWAP64"(uint64_t) noexcept nogil
    int ctz64 "PVA_CTZ64"(uint64_t) noexcept nogil
    int bits64 "PVA_BITS64"(uint64_t) noexcept nogil
    const bint HOST_IS_BIG "PVA_HOST_BIG"

# What Limits says, read once for a codec.
cdef struct Caps:
    size_t message
    size_t depth
    size_t type_nodes
    size_t value_nodes
    size_t elements
    size_t string
    size_t registry_nodes
    size_t expansion

# A place in the bytes of one message. All pointers lie in the memory that `owner` keeps.
cdef struct Cursor:
    const uint8_t* base  # where offset 0 is; valid while `owner` is held by who made the cursor
    const uint8_t* pos
    const uint8_t* end
    PyObject* owner  # borrowed: bytes, or a memoryview of anything else; the base of the arrays that view it
    size_t total  # bytes that a view keeps alive
    bint swap  # the bytes are not in the host's order
    bint big
    bint aligned
    Py_ssize_t nodes  # left of Limits.value_nodes
    Py_ssize_t weight  # left of the memory that Limits.expansion allows
    const Caps* caps

cdef Py_ssize_t FREE_WEIGHT
cdef size_t OWN_BUFFER

cdef int load_caps(object limits, Caps* caps) except -1
cdef int start_cursor(Cursor* c, object data, Py_ssize_t start, Py_ssize_t end, bint big, bint aligned, const Caps* caps) except -1
cdef object owner_of(object data)
cdef bint is_big(object byteorder) except -1
cdef int raise_short(const Cursor* c, object what, size_t n) except -1
cdef int raise_at(const Cursor* c, const uint8_t* pos, object reason) except -1
cdef int raise_limit(const Cursor* c, const uint8_t* pos, object reason, object limit) except -1
cdef PyObject* read_string(Cursor* c) except NULL

cdef extern from *:
    """
    /* A new str of n bytes of UTF-8; other bytes are kept by surrogateescape. What is ASCII and short, as nearly all is,
       needs no decoder; nor memcpy, which compilers make of slow string instructions where they know that n is small. */
    static CYTHON_INLINE PyObject* PVA_TEXT(const char* p, size_t n) {
        unsigned long long x, seen;
        unsigned int low, high;
        size_t i;
        PyObject* made;
        char* to;
        if (n < 4 || n > 64) return PyUnicode_DecodeUTF8(p, (Py_ssize_t)n, "surrogateescape");
        if (n < 8) {
            memcpy(&low, p, 4);
            memcpy(&high, p + n - 4, 4);
            seen = low | high;
        } else {
            memcpy(&seen, p + n - 8, 8);
            for (i = 0; i < n - 8; i += 8) { memcpy(&x, p + i, 8); seen |= x; }
        }
        if (seen & 0x8080808080808080ULL) return PyUnicode_DecodeUTF8(p, (Py_ssize_t)n, "surrogateescape");
        made = PyUnicode_New((Py_ssize_t)n, 127);
        if (made == NULL) return NULL;
        to = (char*)PyUnicode_1BYTE_DATA(made);
        if (n < 8) {
            memcpy(to, &low, 4);
            memcpy(to + n - 4, &high, 4);
            return made;
        }
        memcpy(&x, p + n - 8, 8);
        memcpy(to + n - 8, &x, 8);
        for (i = 0; i < n - 8; i += 8) { memcpy(&x, p + i, 8); memcpy(to + i, &x, 8); }
        return made;
    }
    """
    PyObject* text_of "PVA_TEXT"(const char*, size_t) noexcept  # a new reference; NULL: an error is set
    PyObject* raised_text "PVA_TEXT"(const char*, size_t) except NULL

cdef inline size_t left(const Cursor* c) noexcept nogil:
    return <size_t>(c.end - c.pos)

cdef inline uint16_t get16(const uint8_t* p, bint swap) noexcept nogil:
    cdef uint16_t x
    memcpy(&x, p, 2)
    return swap16(x) if swap else x

cdef inline uint32_t get32(const uint8_t* p, bint swap) noexcept nogil:
    cdef uint32_t x
    memcpy(&x, p, 4)
    return swap32(x) if swap else x

cdef inline uint64_t get64(const uint8_t* p, bint swap) noexcept nogil:
    cdef uint64_t x
    memcpy(&x, p, 8)
    return swap64(x) if swap else x

cdef inline float get_float(const uint8_t* p, bint swap) noexcept nogil:
    cdef uint32_t bits = get32(p, swap)
    cdef float x
    memcpy(&x, &bits, 4)
    return x

cdef inline double get_double(const uint8_t* p, bint swap) noexcept nogil:
    cdef uint64_t bits = get64(p, swap)
    cdef double x
    memcpy(&x, &bits, 8)
    return x

# The Size at the cursor; -1 for the null.
cdef inline Py_ssize_t read_size_or_null(Cursor* c) except -2:
    cdef uint8_t first
    if c.pos >= c.end:
        raise_short(c, "Size", 1)
    first = c.pos[0]
    if first < 0xFE:
        c.pos += 1
        return first
    if first == 0xFF:
        c.pos += 1
        return -1
    if left(c) < 5:
        raise_short(c, "Size", 5)
    c.pos += 5
    return <Py_ssize_t>get32(c.pos - 4, c.swap)

cdef inline Py_ssize_t read_size(Cursor* c) except -2:
    cdef const uint8_t* start = c.pos
    cdef Py_ssize_t n = read_size_or_null(c)
    if n == -1:
        c.pos = start
        raise_at(c, start, "null Size where a count is needed")
    return n

# A Size and so many items of a size, gone past; False, and nothing read, where that raises or the count exceeds `most`.
cdef inline bint skip_items(Cursor* c, size_t size, size_t most, size_t* count) noexcept nogil:
    cdef size_t n
    cdef size_t head = 1
    if c.pos >= c.end:
        return False
    n = c.pos[0]
    if n >= 0xFE:
        if n == 0xFF or left(c) < 5:
            return False
        n = get32(c.pos + 1, c.swap)
        head = 5
    if n > most or n > (left(c) - head) // size:
        return False
    c.pos += head + n * size
    count[0] = n
    return True

# As read_string; short strings, which nearly all are, without a call.
cdef inline PyObject* read_text(Cursor* c) except NULL:
    cdef size_t n
    if c.pos < c.end and c.pos[0] < left(c) and c.pos[0] < 0xFE <= c.caps.string:
        n = c.pos[0]
        c.pos += 1 + n
        return raised_text(<const char*>(c.pos - n), n)
    return read_string(c)

# The bytes that a Writer has collected since its last large buffer.
cdef struct Out:
    uint8_t* data
    size_t size
    size_t room
    bint swap

cdef class Reader:
    cdef Cursor c
    cdef Caps caps
    cdef readonly object data
    cdef object owner  # keeps the memory of `c`
    cdef readonly object limits

cdef class Writer:
    cdef Out out
    cdef readonly bint big
    cdef list parts  # finished buffers, in order
    cdef uint8_t[256] small
    cdef int grow(self, size_t n) except -1
    cdef int cut(self) except -1
    cdef bytes joined(self)
    cdef int put_string(self, object s) except -1
    cdef int put_buffer(self, object b) except -1

# Room for n more bytes: where they go.
cdef inline uint8_t* room(Writer w, size_t n) except NULL:
    cdef uint8_t* p
    if n > w.out.room - w.out.size:
        w.grow(n)
    p = w.out.data + w.out.size
    w.out.size += n
    return p

cdef inline int put8(Writer w, uint8_t x) except -1:
    room(w, 1)[0] = x
    return 0

cdef inline int put16(Writer w, uint16_t x) except -1:
    if w.out.swap:
        x = swap16(x)
    memcpy(room(w, 2), &x, 2)
    return 0

cdef inline int put32(Writer w, uint32_t x) except -1:
    if w.out.swap:
        x = swap32(x)
    memcpy(room(w, 4), &x, 4)
    return 0

cdef inline int put64(Writer w, uint64_t x) except -1:
    if w.out.swap:
        x = swap64(x)
    memcpy(room(w, 8), &x, 8)
    return 0

cdef inline int put_bytes(Writer w, const void* p, size_t n) except -1:
    if n:
        memcpy(room(w, n), p, n)
    return 0

cdef inline int put_size(Writer w, size_t n) except -1:
    if n < 0xFE:
        return put8(w, <uint8_t>n)
    put8(w, 0xFE)
    return put32(w, <uint32_t>n)

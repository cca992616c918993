from libc.stdint cimport uint64_t

from .buffer cimport Cursor, Writer

cdef class BitSet:
    cdef uint64_t[2] small
    cdef uint64_t* words  # `small`, or memory of its own
    cdef size_t count  # words; the last is not zero
    cdef int reserve(self, size_t count) except -1
    cdef void trim(self) noexcept

cdef BitSet from_words(const uint64_t* words, size_t count)
cdef BitSet read_bitset(Cursor* c)
# As read_words; False, and nothing read, where that would raise.
cdef bint quick_words(Cursor* c, uint64_t* words, size_t count) noexcept nogil
# The first `count` words of a set on the wire; bits beyond them are left out.
cdef int read_words(Cursor* c, uint64_t* words, size_t count) except -1
cdef int write_words(Writer w, const uint64_t* words, size_t count) except -1

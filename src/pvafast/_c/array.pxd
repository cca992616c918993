from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from .buffer cimport Cursor, Writer

# The size in bytes of an element of a numeric scalar code.
cdef inline size_t size_of(uint8_t code) noexcept nogil:
    return 4 if code == 0x42 else 8 if code == 0x43 else 1 if code == 0 else <size_t>1 << (code & 3)

# New references.
cdef PyObject* read_numbers(Cursor* c, uint8_t code, size_t n) except NULL
cdef PyObject* read_strings(Cursor* c, size_t n) except NULL
cdef object empty_numbers(uint8_t code)
cdef object zero_numbers(uint8_t code, size_t n, uint8_t** data)
cdef bint is_numbers(object array, uint8_t code) noexcept
cdef size_t count_numbers(object array) noexcept
cdef int write_numbers(Writer w, object array, uint8_t code) except -1
cdef int write_strings(Writer w, list strings) except -1

from .buffer cimport Caps, Cursor, Writer
from .introspection cimport FieldDesc, _TypeIds
from .value cimport Value

cdef class Codec:
    cdef readonly object limits
    cdef readonly str ids
    cdef Caps caps
    cdef _TypeIds known
    cdef dict numbers
    cdef int usable(self) except -1
    cdef int fits(self, FieldDesc type, Cursor* c) except -1
    cdef object value(self, object type, Cursor* c)
    cdef Value update(self, object type, Cursor* c, Value base)
    cdef int put_type(self, FieldDesc type, Writer w) except -1
    cdef int put(self, object value, Writer w, FieldDesc type) except -1
    cdef int put_update(self, Value value, Writer w) except -1
    cdef int put_any(self, object value, Writer w) except -1
    cdef Py_ssize_t given(self) except -1
    cdef int withdraw(self, Py_ssize_t before) except -1

cdef FieldDesc type_of(object type)

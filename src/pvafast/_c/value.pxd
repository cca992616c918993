from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

from .buffer cimport Cursor, Writer
from .introspection cimport FieldDesc, Plan, _TypeIds

cdef class Value:
    cdef FieldDesc fd
    cdef Plan* plan  # of fd
    cdef PyObject** slots  # by leaf; NULL: never set. The owner's memory for a view
    cdef uint64_t* words  # changed bits; of a view: NULL
    cdef uint64_t word  # the memory of `words` where one is enough
    cdef Value owner  # None, or the Value that this one is a view of
    cdef uint32_t node  # the number of this view's root in the owner
    cdef int allot(self, FieldDesc fd) except -1

cdef class UnionValue:
    cdef readonly str name
    cdef readonly object value

cdef class AnyValue:
    cdef readonly FieldDesc type
    cdef readonly object value

cdef object coercion

cdef object zero(FieldDesc type)
cdef PyObject* read_leaf(FieldDesc fd, Cursor* c, _TypeIds ids, size_t depth) except NULL
cdef PyObject* read_full(FieldDesc fd, Cursor* c, _TypeIds ids, size_t depth) except NULL
cdef Value read_update(FieldDesc fd, Cursor* c, _TypeIds ids, Value base)
cdef object read_any(Cursor* c, _TypeIds ids, Py_ssize_t depth)
cdef int write_full(FieldDesc fd, object leaf, Writer w, dict ids) except -1
cdef int write_update(Value v, Writer w, dict ids) except -1
cdef int write_any(object leaf, Writer w, dict ids) except -1

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from .buffer cimport Cursor
from .introspection cimport FieldDesc, Plan, _TypeIds
from .value cimport Value

cdef class Projection:
    cdef readonly FieldDesc type
    cdef readonly tuple fields
    cdef Plan* plan  # of type
    cdef uint8_t* takes  # by slot: what is done with the leaf
    cdef uint32_t* slots  # those that are not skipped
    cdef size_t count  # of them
    cdef uint64_t* mask  # the bits of their nodes
    cdef dict columns  # by slot: the Projection of the elements
    cdef tuple names  # of the slots that are not skipped

cdef object read_projected(Projection p, Cursor* c, _TypeIds ids)
cdef Value read_projected_update(Projection p, Cursor* c, _TypeIds ids, Value base)

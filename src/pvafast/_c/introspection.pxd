from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from .buffer cimport Cursor, Writer

# What a leaf is: how its bytes are read and written.
cdef enum Kind:
    KIND_BOOL
    KIND_INT8
    KIND_INT16
    KIND_INT32
    KIND_INT64
    KIND_UINT8
    KIND_UINT16
    KIND_UINT32
    KIND_UINT64
    KIND_FLOAT
    KIND_DOUBLE
    KIND_STRING
    KIND_NUMBERS  # a variable-size array
    KIND_OTHER

cdef extern from *:
    """
    static CYTHON_INLINE const unsigned char* PVA_SIZES(void) {
        static const unsigned char sizes[] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8};
        return sizes;
    }
    """
    const uint8_t* SIZES "PVA_SIZES()"  # the bytes of a number, by kind

cdef struct Leaf:
    uint8_t kind
    uint8_t code
    uint16_t depth  # below the root
    uint32_t node
    PyObject* type  # borrowed: the root type keeps it

# A structure laid out flat, depth first. Valid while its FieldDesc is held.
cdef struct Plan:
    uint32_t nodes
    uint32_t leaves
    size_t words  # of a BitSet of all nodes
    uint32_t* next  # by node: the number after its subtree
    uint32_t* first  # by node, and one more: the first leaf of its subtree
    PyObject** types  # by node; borrowed: the root type keeps them
    Leaf* leaf

# What a type is asked by name, each made when first used.
cdef class _Lookups:
    cdef tuple names  # dotted, by node
    cdef dict by_name
    cdef dict by_member
    cdef dict by_attribute  # what Value's attribute access finds
    cdef object mapping

cdef class FieldDesc:
    cdef readonly int code
    cdef readonly str id
    cdef readonly Py_ssize_t bound
    cdef readonly FieldDesc element
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t height
    cdef readonly Py_ssize_t bits
    cdef readonly Py_ssize_t text
    cdef tuple member_names
    cdef tuple member_types
    cdef Plan* plan  # made when first used
    cdef _Lookups lookups  # made when first used
    cdef Py_hash_t hashed

cdef class _TypeIds:
    cdef dict known
    cdef Py_ssize_t nodes
    cdef bint broken
    cdef int define(self, object number, FieldDesc type, Cursor* c, const uint8_t* pos) except -1

cdef Plan* make_plan(FieldDesc type) except NULL
cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
      #define PVA_LOAD(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
      #define PVA_STORE(p, x) __atomic_store_n(p, x, __ATOMIC_RELEASE)
    #else
      #define PVA_LOAD(p) (*(p))
      #define PVA_STORE(p, x) (*(p) = (x))
    #endif
    """
    Plan* load_plan "PVA_LOAD"(Plan**) noexcept nogil
    void store_plan "PVA_STORE"(Plan**, Plan*) noexcept nogil

cdef inline Plan* plan_of(FieldDesc type) except NULL:
    cdef Plan* plan = load_plan(&type.plan)
    return plan if plan != NULL else make_plan(type)

cdef _Lookups lookups_of(FieldDesc type)
cdef dict by_name(FieldDesc type)
cdef dict by_member(FieldDesc type)
cdef object name_of(FieldDesc type, uint32_t node)
cdef Py_ssize_t index_of(FieldDesc type, object name) except -1
cdef bint same_type(FieldDesc a, FieldDesc b) except -1
cdef FieldDesc read_desc(Cursor* c, _TypeIds ids, size_t depth)
cdef int write_desc(FieldDesc type, Writer w, dict ids) except -1
cdef int raise_too_deep(Cursor* c, const uint8_t* pos) except -1
cdef int raise_too_heavy(Cursor* c, const uint8_t* pos) except -1

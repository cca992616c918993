from cpython.object cimport PyObject
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from .buffer cimport Cursor, Writer, get16, get32, get64, get_double, get_float
from .introspection cimport (
    KIND_BOOL,
    KIND_DOUBLE,
    KIND_FLOAT,
    KIND_INT8,
    KIND_INT16,
    KIND_INT32,
    KIND_INT64,
    KIND_UINT8,
    KIND_UINT16,
    KIND_UINT32,
    FieldDesc,
    Plan,
    _TypeIds,
    raise_too_heavy,
)

# What objects weigh in memory, charged against Limits.expansion: a Value; a UnionValue or AnyValue; what a leaf holds,
# be it a number or a short string (the longer ones weigh what they do on the wire); what an array weighs on top of that;
# a place in a list.
cdef enum:
    VALUE_WEIGHT = 144
    BOX_WEIGHT = 64
    LEAF_WEIGHT = 88
    ARRAY_WEIGHT = 40
    PLACE_WEIGHT = 16

cdef class Value:
    cdef FieldDesc fd
    cdef Plan* plan  # of fd
    cdef PyObject** slots  # by leaf; NULL: never set. The owner's memory for a view
    cdef uint64_t* words  # changed bits; of a view: NULL
    cdef uint64_t word  # the memory of `words` where one is enough
    cdef Value owner  # None, or the Value that this one is a view of
    cdef uint32_t node  # the number of this view's root in the owner
    cdef bint received  # from an update, and not changed since
    cdef PyObject* origin  # the Value that it was when it was received, once it is changed; or NULL
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
cdef Py_ssize_t count_elements(int code, Cursor* c) except -1
cdef int blame_leaf(FieldDesc fd, Plan* plan, uint32_t slot, object error) except -1
cdef int raise_too_many(const Cursor* c, const uint8_t* pos) except -1

cdef extern from "Python.h":
    PyObject* PyFloat_FromDouble(double) noexcept
    PyObject* PyLong_FromLong(long) noexcept
    PyObject* PyLong_FromLongLong(long long) noexcept
    PyObject* PyLong_FromUnsignedLongLong(unsigned long long) noexcept
    void Py_INCREF(PyObject*) noexcept
    PyObject* Py_True
    PyObject* Py_False

cdef extern from *:
    """
    static CYTHON_INLINE PyObject* pva_checked(PyObject* o) { return o; }
    """
    PyObject* checked "pva_checked"(PyObject*) except NULL  # raises the error that made it NULL

cdef inline int charge(Cursor* c, size_t nodes, Py_ssize_t weight, const uint8_t* pos) except -1:
    """Count what is about to be made against Limits.value_nodes and Limits.expansion."""
    c.nodes -= <Py_ssize_t>nodes
    if c.nodes < 0:
        raise_too_many(c, pos)
    c.weight -= weight
    if c.weight < 0:
        raise_too_heavy(c, pos)
    return 0


cdef inline PyObject* number_of(uint8_t kind, const uint8_t* p, bint swap) noexcept:
    """A new reference to the number at p; NULL with an error set where memory is short."""
    cdef PyObject* truth
    if kind == KIND_DOUBLE:
        return PyFloat_FromDouble(get_double(p, swap))
    if kind == KIND_INT32:
        return PyLong_FromLong(<int32_t>get32(p, swap))
    if kind == KIND_INT64:
        return PyLong_FromLongLong(<int64_t>get64(p, swap))
    if kind == KIND_BOOL:
        truth = Py_True if p[0] else Py_False
        Py_INCREF(truth)
        return truth
    if kind == KIND_FLOAT:
        return PyFloat_FromDouble(get_float(p, swap))
    if kind == KIND_INT8:
        return PyLong_FromLong(<int8_t>p[0])
    if kind == KIND_INT16:
        return PyLong_FromLong(<int16_t>get16(p, swap))
    if kind == KIND_UINT8:
        return PyLong_FromLong(p[0])
    if kind == KIND_UINT16:
        return PyLong_FromLong(get16(p, swap))
    if kind == KIND_UINT32:
        return PyLong_FromLongLong(get32(p, swap))
    return PyLong_FromUnsignedLongLong(get64(p, swap))

"""Scalar and string arrays <-> numpy: views of the received bytes where the byte order is the host's, one copy otherwise."""

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .buffer cimport (
    OWN_BUFFER,
    Cursor,
    Writer,
    left,
    put_bytes,
    raise_limit,
    raise_short,
    read_string,
    room,
    swap16,
    swap32,
    swap64,
    text_of,
)

from .._memory import empty as _empty
from .._types import DTYPES, SCALARS
from ..errors import EncodeError

cnp.import_array()

cdef extern from "Python.h":
    PyObject* PyList_New(Py_ssize_t) except NULL
    void PyList_SET_ITEM "PyList_SET_ITEM"(PyObject*, Py_ssize_t, PyObject*) noexcept
    void Py_DECREF(PyObject*) noexcept
    void Py_INCREF_ "Py_INCREF"(PyObject*) noexcept

cdef extern from *:
    """
    #define PVA_ARRAY(o) ((PyArrayObject*)(o))
    #define PVA_NEW_ARRAY(descr, dims, data) \
        PyArray_NewFromDescr(&PyArray_Type, (PyArray_Descr*)(descr), 1, dims, NULL, data, 0, NULL)
    #define PVA_NEW_ZEROS(descr, dims) PyArray_Zeros(1, dims, (PyArray_Descr*)(descr), 0)
    #define PVA_SET_BASE(array, base) PyArray_SetBaseObject(PVA_ARRAY(array), base)
    #define PVA_NDIM(o) PyArray_NDIM(PVA_ARRAY(o))
    #define PVA_DATA(o) PyArray_DATA(PVA_ARRAY(o))
    #define PVA_COUNT(o) PyArray_SIZE(PVA_ARRAY(o))
    #define PVA_CONTIGUOUS(o) PyArray_IS_C_CONTIGUOUS(PVA_ARRAY(o))
    #define PVA_READ_ONLY(o) PyArray_CLEARFLAGS(PVA_ARRAY(o), NPY_ARRAY_WRITEABLE)
    #define PVA_DESCR(o) ((PyObject*)PyArray_DESCR(PVA_ARRAY(o)))
    """
    # A new reference; takes the reference to descr.
    PyObject* new_array "PVA_NEW_ARRAY"(PyObject* descr, cnp.npy_intp* dims, void* data) noexcept
    PyObject* new_zeros "PVA_NEW_ZEROS"(PyObject* descr, cnp.npy_intp* dims) noexcept  # the same, of zeros
    int set_base "PVA_SET_BASE"(PyObject* array, PyObject* base) except -1  # takes the reference to base
    int dimensions_of "PVA_NDIM"(PyObject*) noexcept
    void* data_of "PVA_DATA"(PyObject*) noexcept
    cnp.npy_intp count_of "PVA_COUNT"(PyObject*) noexcept
    bint is_contiguous "PVA_CONTIGUOUS"(PyObject*) noexcept
    void make_read_only "PVA_READ_ONLY"(PyObject*) noexcept
    PyObject* descr_of "PVA_DESCR"(PyObject*) noexcept
    bint PyArray_CheckExact(object) noexcept

# A view keeps all received bytes alive: an array that is smaller than this part of them is copied.
cdef size_t PINNED = 8
# Work above this size lets other threads run.
cdef size_t LONG_WORK = 65_536

# By scalar code: native descriptors and empty arrays, which live as long as the module.
cdef PyObject* DESCRS[256]
cdef PyObject* EMPTIES[256]
_kept = []


cdef int _prepare() except -1:
    for code, dtype in DTYPES.items():
        empty = new_numbers(code, dtype, 0)
        _kept.append((dtype, empty))
        DESCRS[code] = <PyObject*>dtype
        EMPTIES[code] = <PyObject*>empty
    return 0


cdef object new_numbers(int code, object dtype, Py_ssize_t n):
    cdef cnp.npy_intp[1] dims
    cdef PyObject* made
    dims[0] = n
    Py_INCREF(dtype)
    made = new_array(<PyObject*>dtype, dims, NULL)
    if made != NULL:
        make_read_only(made)
    return take(made)


cdef extern from *:
    """
    static CYTHON_INLINE PyObject* pva_take(PyObject* o) { return o; }
    """
    object take "pva_take"(PyObject*)  # a new reference becomes an object; NULL is the error that is set


_prepare()


cdef void swap_into(void* target, const uint8_t* source, size_t n, size_t size) noexcept nogil:
    """Copy n elements with their bytes reversed."""
    cdef size_t i
    cdef uint16_t a
    cdef uint32_t b
    cdef uint64_t d
    if size == 2:
        for i in range(n):
            memcpy(&a, source + 2 * i, 2)
            (<uint16_t*>target)[i] = swap16(a)
    elif size == 4:
        for i in range(n):
            memcpy(&b, source + 4 * i, 4)
            (<uint32_t*>target)[i] = swap32(b)
    else:
        for i in range(n):
            memcpy(&d, source + 8 * i, 8)
            (<uint64_t*>target)[i] = swap64(d)


cdef void copy_elements(void* target, const uint8_t* source, size_t n, size_t size, bint swap) noexcept nogil:
    if swap and size > 1:
        swap_into(target, source, n, size)
    else:
        memcpy(target, source, n * size)


cdef bint all_bools(const uint8_t* p, size_t n) noexcept nogil:
    """True if every byte is 0 or 1."""
    cdef size_t i
    cdef uint8_t seen = 0
    for i in range(n):
        seen |= p[i]
    return seen <= 1


cdef PyObject* read_numbers(Cursor* c, uint8_t code, size_t n) except NULL:
    """The next n elements of a scalar code: a read-only array in native byte order, C-contiguous.

    A view of the bytes where they can be used as they lie and the array is not a small part of them, else a copy.
    """
    cdef size_t size, bytes, i
    cdef const uint8_t* source
    cdef PyObject* made
    cdef PyObject* descr = DESCRS[code]
    cdef cnp.npy_intp[1] dims
    cdef bint good_bools = True
    cdef void* target
    if n == 0:
        Py_INCREF_(EMPTIES[code])
        return EMPTIES[code]
    size = size_of(code)
    if n > left(c) // size:
        raise_short(c, f"array of {n} {SCALARS[code][0]}", n * size)
    bytes = n * size
    source = c.pos
    dims[0] = <cnp.npy_intp>n
    if code == 0:
        if bytes > LONG_WORK:
            with nogil:
                good_bools = all_bools(source, n)
        else:
            good_bools = all_bools(source, n)
    Py_INCREF_(descr)  # the array takes it
    if (
        good_bools
        and (not c.swap or size == 1)
        and bytes * PINNED >= c.total
        and not (c.aligned and <size_t>source % size)
    ):
        made = new_array(descr, dims, <void*>source)
        if made == NULL:
            return NULL
        Py_INCREF_(c.owner)  # the array takes it
        set_base(made, c.owner)
        c.pos += bytes
        return made
    if bytes > LONG_WORK:
        # Placed as received ones are.
        Py_DECREF(descr)
        large = _empty((n,), <object>descr)
        Py_INCREF(large)
        made = <PyObject*>large
    else:
        made = new_array(descr, dims, NULL)
        if made == NULL:
            return NULL
    target = data_of(made)
    if not good_bools:
        for i in range(n):
            (<uint8_t*>target)[i] = source[i] != 0
    elif bytes > LONG_WORK:
        with nogil:
            copy_elements(target, source, n, size, c.swap)
    else:
        copy_elements(target, source, n, size, c.swap)
    make_read_only(made)
    c.pos += bytes
    return made


cdef PyObject* read_strings(Cursor* c, size_t n) except NULL:
    """The next n strings, a list."""
    cdef PyObject* made
    cdef PyObject* text
    cdef size_t i, size
    cdef bint quick = c.caps.string >= 0xFE
    if n > left(c):
        raise_short(c, f"array of {n} string", n)
    if n > c.caps.elements:
        raise_limit(c, c.pos, f"array of {n} string", "elements")
    made = PyList_New(<Py_ssize_t>n)
    for i in range(n):
        # Short strings, which nearly all are, are read without a call.
        if quick and c.pos < c.end and c.pos[0] < 0xFE and c.pos[0] < left(c):
            size = c.pos[0]
            text = text_of(<const char*>(c.pos + 1), size)
            if text == NULL:
                Py_DECREF(made)
                return NULL
            c.pos += 1 + size
        else:
            try:
                text = read_string(c)
            except BaseException as error:
                Py_DECREF(made)
                if hasattr(error, "within"):
                    error.within(f"[{i}]")
                raise
        PyList_SET_ITEM(made, <Py_ssize_t>i, text)
    return made


cdef object empty_numbers(uint8_t code):
    """The one empty array of a scalar code."""
    return <object>EMPTIES[code]


cdef object zero_numbers(uint8_t code, size_t n, uint8_t** data):
    """n zeros of a scalar code, read-only but for who takes `data`, where they lie."""
    cdef cnp.npy_intp[1] dims
    cdef PyObject* made
    dims[0] = <cnp.npy_intp>n
    Py_INCREF_(DESCRS[code])  # the array takes it
    made = new_zeros(DESCRS[code], dims)
    if made != NULL:
        make_read_only(made)
        data[0] = <uint8_t*>data_of(made)
    return take(made)


cdef bint is_numbers(object array, uint8_t code) noexcept:
    """True for a one-dimensional, C-contiguous, native ndarray of exactly the dtype of a scalar code."""
    cdef PyObject* a = <PyObject*>array
    return (
        PyArray_CheckExact(array)
        and descr_of(a) == DESCRS[code]
        and dimensions_of(a) == 1
        and is_contiguous(a)
    )


cdef size_t count_numbers(object array) noexcept:
    """The elements of an array that is_numbers() accepted."""
    return <size_t>count_of(<PyObject*>array)


cdef int write_numbers(Writer w, object array, uint8_t code) except -1:
    """The elements of an array that is_numbers() accepted, in the byte order of the writer."""
    cdef size_t size = size_of(code)
    cdef size_t n = count_numbers(array)
    cdef size_t bytes = n * size
    cdef const uint8_t* source = <const uint8_t*>data_of(<PyObject*>array)
    cdef uint8_t* target
    if not n:
        return 0
    if w.out.swap and size > 1:
        if bytes < OWN_BUFFER:
            target = room(w, bytes)
            swap_into_unaligned(target, source, n, size)
            return 0
        array = array.byteswap()
        return w.put_buffer(array)
    if bytes < OWN_BUFFER:
        return put_bytes(w, source, bytes)
    return w.put_buffer(array)


cdef void swap_into_unaligned(uint8_t* target, const uint8_t* source, size_t n, size_t size) noexcept nogil:
    """As swap_into, where the target may lie anywhere."""
    cdef size_t i
    cdef uint16_t a
    cdef uint32_t b
    cdef uint64_t d
    if size == 2:
        for i in range(n):
            memcpy(&a, source + 2 * i, 2)
            a = swap16(a)
            memcpy(target + 2 * i, &a, 2)
    elif size == 4:
        for i in range(n):
            memcpy(&b, source + 4 * i, 4)
            b = swap32(b)
            memcpy(target + 4 * i, &b, 4)
    else:
        for i in range(n):
            memcpy(&d, source + 8 * i, 8)
            d = swap64(d)
            memcpy(target + 8 * i, &d, 8)


cdef int write_strings(Writer w, list strings) except -1:
    """The strings, back to back."""
    cdef Py_ssize_t i
    for i in range(len(strings)):
        try:
            w.put_string(strings[i])
        except EncodeError as error:
            error.within(f"[{i}]")
            raise
    return 0

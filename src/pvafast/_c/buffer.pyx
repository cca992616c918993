"""Reader and Writer: the elementary encodings (WIRE 5) over a buffer, in either byte order."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from libc.string cimport memcpy

from ipaddress import IPv6Address, ip_address

from ..errors import DecodeError, EncodeError, LimitExceeded, RangeError
from ..limits import Limits

cdef extern from "Python.h":
    Py_buffer* PyMemoryView_GET_BUFFER(PyObject*) noexcept
    object PyMemoryView_FromObject(object)
    PyObject* PyUnicode_DecodeUTF8(const char*, Py_ssize_t, const char*) noexcept
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) noexcept
    void PyErr_Clear() noexcept

cdef object DEFAULT_LIMITS = Limits()
# What decoding may weigh beyond `Limits.expansion` times the bytes of the message: 1 MiB, less what one message always takes.
FREE_WEIGHT = (1 << 20) - (1 << 16)
# Arrays from this size on leave a Writer as buffers of their own, uncopied.
OWN_BUFFER = 65_536


cdef int load_caps(object limits, Caps* caps) except -1:
    """Read the numbers of a Limits."""
    caps.message = limits.message
    caps.depth = limits.depth
    caps.type_nodes = limits.type_nodes
    caps.value_nodes = limits.value_nodes
    caps.elements = limits.elements
    caps.string = limits.string
    caps.registry_nodes = limits.registry_nodes
    caps.expansion = limits.expansion
    return 0


cdef bint is_big(object byteorder) except -1:
    """True for "big", False for "little", ValueError for anything else."""
    if byteorder == "little":
        return False
    if byteorder == "big":
        return True
    raise ValueError(f"byteorder must be 'little' or 'big', not {byteorder!r}")


cdef object owner_of(object data):
    """The object that keeps the memory of `data` in place: itself if it is bytes, else a memoryview of it."""
    if PyBytes_CheckExact(data):
        return data
    cdef object view = PyMemoryView_FromObject(data)
    cdef Py_buffer* buffer = PyMemoryView_GET_BUFFER(<PyObject*>view)
    if buffer.ndim != 1 or buffer.itemsize != 1 or (buffer.strides != NULL and buffer.strides[0] != 1):
        view = view.cast("B")  # TypeError where the memory is not contiguous
    return view


cdef int start_cursor(
    Cursor* c, object data, Py_ssize_t start, Py_ssize_t end, bint big, bint aligned, const Caps* caps
) except -1:
    """Set a cursor on owner_of()'s result, bytes start to end (-1: to the end)."""
    cdef Py_ssize_t size
    cdef Py_buffer* buffer
    if PyBytes_CheckExact(data):
        c.base = <const uint8_t*>PyBytes_AS_STRING(data)
        size = PyBytes_GET_SIZE(data)
    else:
        buffer = PyMemoryView_GET_BUFFER(<PyObject*>data)
        c.base = <const uint8_t*>buffer.buf
        size = buffer.len
    if end == -1:
        end = size
    if not 0 <= start <= end <= size:
        raise ValueError(f"start {start} and end {end} do not lie in {size} bytes")
    c.pos = c.base + start
    c.end = c.base + end
    c.owner = <PyObject*>data
    c.total = <size_t>size
    c.big = big
    c.swap = big != HOST_IS_BIG
    c.aligned = aligned
    c.nodes = <Py_ssize_t>caps.value_nodes
    # No overflow: a message of 2**62 / expansion bytes does not exist.
    c.weight = FREE_WEIGHT + <Py_ssize_t>(caps.expansion * <size_t>(end - start))
    c.caps = caps
    return 0


cdef int raise_at(const Cursor* c, const uint8_t* pos, object reason) except -1:
    raise DecodeError(reason, <Py_ssize_t>(pos - c.base))


cdef int raise_short(const Cursor* c, object what, size_t n) except -1:
    raise DecodeError(f"{what} needs {n} bytes, {left(c)} left", <Py_ssize_t>(c.pos - c.base))


cdef int raise_limit(const Cursor* c, const uint8_t* pos, object reason, object limit) except -1:
    raise LimitExceeded(reason, <Py_ssize_t>(pos - c.base), limit=limit)


cdef PyObject* read_string(Cursor* c) except NULL:
    """A new reference to a str."""
    cdef const uint8_t* start = c.pos
    cdef Py_ssize_t n = read_size_or_null(c)
    cdef PyObject* made
    if n < 0:
        n = 0
    if <size_t>n > left(c):
        try:
            raise_short(c, f"string of {n} bytes", n)
        finally:
            c.pos = start
    if <size_t>n > c.caps.string:
        try:
            raise_limit(c, c.pos, f"string of {n} bytes", "string")
        finally:
            c.pos = start
    made = PyUnicode_DecodeUTF8(<const char*>c.pos, n, "surrogateescape")
    if made != NULL:
        c.pos += n
    return made


@cython.final
@cython.no_gc
cdef class Reader:
    """Reads elementary items from `data[start:end]`; keeps no copy, so `data` must not change while it is read.

    Every read that finds too few bytes raises DecodeError and leaves `pos` where it was.
    """

    def __cinit__(self, *args, **kwargs):
        self.c.caps = &self.caps

    def __init__(self, data, start=0, end=None, byteorder="little", *, limits=DEFAULT_LIMITS, aligned=False):
        cdef object owner = owner_of(data)
        cdef bint big = is_big(byteorder)
        cdef Py_ssize_t stop = -1
        if end is not None:
            stop = end
            if stop < 0:
                raise ValueError(f"start {start} and end {end} do not lie in {len(owner)} bytes")
        load_caps(limits, &self.caps)
        # Only now is the memory that an earlier call set let go: the cursor moves at once with its owner.
        start_cursor(&self.c, owner, start, stop, big, aligned, &self.caps)
        self.owner = owner
        self.data = owner
        self.limits = limits

    @property
    def pos(self):
        return <Py_ssize_t>(self.c.pos - self.c.base)

    @pos.setter
    def pos(self, Py_ssize_t pos):
        if not 0 <= pos <= <Py_ssize_t>(self.c.end - self.c.base):
            raise ValueError(f"no byte {pos}")
        self.c.pos = self.c.base + pos

    @property
    def end(self):
        return <Py_ssize_t>(self.c.end - self.c.base)

    @property
    def left(self):
        """Bytes not read yet."""
        return left(&self.c)

    @property
    def big(self):
        return bool(self.c.big)

    @property
    def aligned(self):
        return bool(self.c.aligned)

    @property
    def byteorder(self):
        """ "little" or "big"."""
        return "big" if self.c.big else "little"

    def boolean(self):
        """One byte; any nonzero value is true."""
        if left(&self.c) < 1:
            raise_short(&self.c, "bool", 1)
        self.c.pos += 1
        return (self.c.pos - 1)[0] != 0

    def u8(self):
        """An unsigned 8-bit integer."""
        if left(&self.c) < 1:
            raise_short(&self.c, "uint8", 1)
        self.c.pos += 1
        return (self.c.pos - 1)[0]

    def u16(self):
        """An unsigned 16-bit integer."""
        if left(&self.c) < 2:
            raise_short(&self.c, "uint16", 2)
        self.c.pos += 2
        return get16(self.c.pos - 2, self.c.swap)

    def u32(self):
        """An unsigned 32-bit integer."""
        if left(&self.c) < 4:
            raise_short(&self.c, "uint32", 4)
        self.c.pos += 4
        return get32(self.c.pos - 4, self.c.swap)

    def u64(self):
        """An unsigned 64-bit integer."""
        if left(&self.c) < 8:
            raise_short(&self.c, "uint64", 8)
        self.c.pos += 8
        return get64(self.c.pos - 8, self.c.swap)

    def i8(self):
        """A signed 8-bit integer."""
        if left(&self.c) < 1:
            raise_short(&self.c, "int8", 1)
        self.c.pos += 1
        return <int8_t>(self.c.pos - 1)[0]

    def i16(self):
        """A signed 16-bit integer."""
        if left(&self.c) < 2:
            raise_short(&self.c, "int16", 2)
        self.c.pos += 2
        return <int16_t>get16(self.c.pos - 2, self.c.swap)

    def i32(self):
        """A signed 32-bit integer."""
        if left(&self.c) < 4:
            raise_short(&self.c, "int32", 4)
        self.c.pos += 4
        return <int32_t>get32(self.c.pos - 4, self.c.swap)

    def i64(self):
        """A signed 64-bit integer."""
        if left(&self.c) < 8:
            raise_short(&self.c, "int64", 8)
        self.c.pos += 8
        return <int64_t>get64(self.c.pos - 8, self.c.swap)

    def f32(self):
        """An IEEE 754 single."""
        if left(&self.c) < 4:
            raise_short(&self.c, "float", 4)
        self.c.pos += 4
        return <double>get_float(self.c.pos - 4, self.c.swap)

    def f64(self):
        """An IEEE 754 double."""
        if left(&self.c) < 8:
            raise_short(&self.c, "double", 8)
        self.c.pos += 8
        return get_double(self.c.pos - 8, self.c.swap)

    def nullable_size(self):
        """A Size (WIRE 5); None for the null (FF)."""
        cdef Py_ssize_t n = read_size_or_null(&self.c)
        return None if n == -1 else n

    def size(self):
        """A Size that must not be null."""
        return read_size(&self.c)

    def string(self):
        """A String: UTF-8, other bytes kept by surrogateescape; null reads as ""."""
        cdef PyObject* made = read_string(&self.c)
        return take(made)

    def bytes(self, n):
        """A copy of the next n bytes."""
        cdef size_t count
        if n < 0:
            raise ValueError(f"no {n} bytes")
        count = n
        if count > left(&self.c):
            raise_short(&self.c, f"{n} bytes", count)
        self.c.pos += count
        return PyBytes_FromStringAndSize(<const char*>(self.c.pos - count), count)

    def skip(self, n):
        """Leave n bytes out."""
        cdef size_t count
        if n < 0:
            raise ValueError(f"no {n} bytes")
        count = n
        if count > left(&self.c):
            raise_short(&self.c, f"{n} bytes", count)
        self.c.pos += count

    def address(self):
        """A 16-byte address as text, IPv4 dotted; "" for any (all zero or ::ffff:0.0.0.0)."""
        if left(&self.c) < 16:
            raise_short(&self.c, "address", 16)
        self.c.pos += 16
        address = IPv6Address(PyBytes_FromStringAndSize(<const char*>(self.c.pos - 16), 16))
        mapped = address.ipv4_mapped
        if mapped is not None:
            return str(mapped) if int(mapped) else ""
        return str(address) if int(address) else ""


cdef extern from *:
    """
    static CYTHON_INLINE PyObject* pva_take(PyObject* o) { return o; }
    """
    object take "pva_take"(PyObject*)  # a new reference becomes an object


@cython.final
@cython.freelist(16)
cdef class Writer:
    """Collects bytes in one byte order. A large array becomes a buffer of its own, uncopied."""

    def __cinit__(self):
        self.out.data = self.small
        self.out.room = sizeof(self.small)
        self.out.size = 0
        self.out.swap = HOST_IS_BIG
        self.big = False

    def __init__(self, byteorder="little"):
        self.big = is_big(byteorder)
        self.out.swap = self.big != HOST_IS_BIG
        self.out.size = 0
        self.parts = None

    def __dealloc__(self):
        if self.out.data != self.small:
            PyMem_Free(self.out.data)

    cdef int grow(self, size_t n) except -1:
        cdef size_t wanted = self.out.room
        cdef uint8_t* data
        while wanted - self.out.size < n:
            wanted *= 2
        if self.out.data == self.small:
            data = <uint8_t*>PyMem_Malloc(wanted)
            if data == NULL:
                raise MemoryError()
            memcpy(data, self.small, self.out.size)
        else:
            data = <uint8_t*>PyMem_Realloc(self.out.data, wanted)
            if data == NULL:
                raise MemoryError()
        self.out.data = data
        self.out.room = wanted
        return 0

    cdef int cut(self) except -1:
        """What was collected becomes a finished buffer."""
        if self.parts is None:
            self.parts = []
        if self.out.size:
            self.parts.append(PyBytes_FromStringAndSize(<const char*>self.out.data, self.out.size))
            self.out.size = 0
        return 0

    cdef bytes joined(self):
        if self.parts is not None:
            self.cut()
            parts, self.parts = self.parts, None
            return b"".join(parts)
        made = PyBytes_FromStringAndSize(<const char*>self.out.data, self.out.size)
        self.out.size = 0
        return made

    cdef int put_string(self, object s) except -1:
        cdef Py_ssize_t n
        cdef const char* p
        if not isinstance(s, str):
            raise EncodeError(f"string expected, {type(s).__name__} found")
        p = PyUnicode_AsUTF8AndSize(s, &n)
        if p == NULL:
            PyErr_Clear()
            try:
                raw = s.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError as error:
                raise EncodeError(f"lone surrogate in string at index {error.start}") from error
            n = PyBytes_GET_SIZE(raw)
            p = PyBytes_AS_STRING(raw)
            put_size(self, n)
            return put_bytes(self, p, n)
        if <size_t>n >= 0xFFFFFFFF:
            raise RangeError(f"Size cannot hold {n}")
        put_size(self, n)
        return put_bytes(self, p, n)

    cdef int put_buffer(self, object b) except -1:
        cdef object view = PyMemoryView_FromObject(b)
        cdef Py_buffer* buffer = PyMemoryView_GET_BUFFER(<PyObject*>view)
        if <size_t>buffer.len < OWN_BUFFER:
            # The iterator of bytes() copes with any layout; contiguous memory is copied at once.
            if buffer.ndim == 1 and (buffer.strides == NULL or buffer.strides[0] == buffer.itemsize):
                return put_bytes(self, buffer.buf, buffer.len)
            view = bytes(view)
            return put_bytes(self, PyBytes_AS_STRING(view), PyBytes_GET_SIZE(view))
        if not view.c_contiguous:
            view = PyMemoryView_FromObject(bytes(view))
        elif buffer.ndim != 1 or buffer.itemsize != 1:
            view = view.cast("B")
        self.cut()
        self.parts.append(view)
        return 0

    @property
    def byteorder(self):
        """ "little" or "big"."""
        return "big" if self.big else "little"

    def __len__(self):
        cdef size_t n = self.out.size
        if self.parts is not None:
            for part in self.parts:
                n += <size_t>len(part)
        return n

    def boolean(self, x):
        """One byte, 0 or 1."""
        put8(self, 1 if x else 0)

    def u8(self, x):
        """An unsigned 8-bit integer."""
        put8(self, <uint8_t>unsigned(x, 0xFF, "uint8"))

    def u16(self, x):
        """An unsigned 16-bit integer."""
        put16(self, <uint16_t>unsigned(x, 0xFFFF, "uint16"))

    def u32(self, x):
        """An unsigned 32-bit integer."""
        put32(self, <uint32_t>unsigned(x, 0xFFFFFFFF, "uint32"))

    def u64(self, x):
        """An unsigned 64-bit integer."""
        put64(self, unsigned(x, 0xFFFFFFFFFFFFFFFF, "uint64"))

    def i8(self, x):
        """A signed 8-bit integer."""
        put8(self, <uint8_t>signed(x, -0x80, 0x7F, "int8"))

    def i16(self, x):
        """A signed 16-bit integer."""
        put16(self, <uint16_t>signed(x, -0x8000, 0x7FFF, "int16"))

    def i32(self, x):
        """A signed 32-bit integer."""
        put32(self, <uint32_t>signed(x, -0x80000000, 0x7FFFFFFF, "int32"))

    def i64(self, x):
        """A signed 64-bit integer."""
        put64(self, <uint64_t>signed(x, -0x7FFFFFFFFFFFFFFF - <int64_t>1, 0x7FFFFFFFFFFFFFFF, "int64"))

    def f32(self, x):
        """An IEEE 754 single."""
        cdef double wide = real(x, "float")
        cdef float single = <float>wide
        cdef uint32_t bits
        if single - single != 0 and wide - wide == 0:
            raise RangeError(f"float cannot hold {x}")
        memcpy(&bits, &single, 4)
        put32(self, bits)

    def f64(self, x):
        """An IEEE 754 double."""
        cdef double wide = real(x, "double")
        cdef uint64_t bits
        memcpy(&bits, &wide, 8)
        put64(self, bits)

    def size(self, n):
        """A Size; None is the null."""
        if n is None:
            put8(self, 0xFF)
            return
        if not 0 <= n < 0xFFFFFFFF:
            raise RangeError(f"Size cannot hold {n}")
        put_size(self, n)

    def string(self, s):
        """A String in UTF-8; bytes that surrogateescape kept come out as they were."""
        self.put_string(s)

    def bytes(self, b):
        """Any buffer, as it is; from 64 KiB on it is not copied."""
        self.put_buffer(b)

    def address(self, text):
        """An IPv4 or IPv6 address in 16 bytes; "" is ::ffff:0.0.0.0, any."""
        try:
            address = ip_address(text or "0.0.0.0")
        except ValueError as error:
            raise EncodeError(f"no IP address: {text!r}") from error
        raw = address.packed
        if address.version == 4:
            raw = b"\0" * 10 + b"\xff\xff" + raw
        put_bytes(self, PyBytes_AS_STRING(raw), 16)

    def patch_u32(self, pos, x):
        """Overwrite four bytes already written, which no large buffer precedes."""
        cdef Py_ssize_t at = pos
        cdef uint32_t number = <uint32_t>unsigned(x, 0xFFFFFFFF, "uint32")
        if self.parts is not None:
            raise ValueError("patch_u32 after a large buffer")
        if at < 0 or self.out.size < 4 or <size_t>at > self.out.size - 4:
            raise ValueError(f"no four bytes at {pos}")
        if self.out.swap:
            number = swap32(number)
        memcpy(self.out.data + at, &number, 4)

    def buffers(self):
        """What was written as a list of buffers; the writer is empty afterwards."""
        self.cut()
        parts, self.parts = self.parts, None
        return parts or [b""]

    def take(self):
        """What was written, joined; the writer is empty afterwards."""
        return self.joined()


cdef uint64_t unsigned(object x, uint64_t high, object what) except? 0:
    if not isinstance(x, int):
        if not hasattr(type(x), "__index__"):
            raise EncodeError(f"{what} expected, {type(x).__name__} found")
        x = x.__index__()
    if not 0 <= x <= high:
        raise RangeError(f"{what} cannot hold {x}")
    return x


cdef int64_t signed(object x, int64_t low, int64_t high, object what) except? -1:
    if not isinstance(x, int):
        if not hasattr(type(x), "__index__"):
            raise EncodeError(f"{what} expected, {type(x).__name__} found")
        x = x.__index__()
    if not low <= x <= high:
        raise RangeError(f"{what} cannot hold {x}")
    return x


cdef double real(object x, object what) except? -1.0:
    try:
        return x
    except TypeError as error:
        raise EncodeError(f"{what} expected, {type(x).__name__} found") from error
    except OverflowError as error:
        raise RangeError(f"{what} cannot hold {x}") from error

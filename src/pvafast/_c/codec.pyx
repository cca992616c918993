"""Codec: the types and values of one direction of a connection, from bytes and to bytes."""

cimport cython
from cpython.object cimport PyObject, PyTypeObject

from .bitset cimport BitSet, read_bitset
from .buffer cimport Cursor, Reader, Writer, is_big, load_caps, owner_of, put8, raise_limit, start_cursor, HOST_IS_BIG
from .framing cimport Message
from .introspection cimport FieldDesc, _TypeIds, raise_too_deep, read_desc, same_type, write_desc
from .projection cimport Projection, read_projected, read_projected_update
from .value cimport Value, coercion, read_any, read_full, read_update, write_any, write_full, write_update

from ..errors import DecodeError, EncodeError, LocalProtocolError
from ..limits import Limits

cdef extern from *:
    """
    static CYTHON_INLINE PyObject* pva_take(PyObject* o) { return o; }
    """
    object take "pva_take"(PyObject*)  # a new reference becomes an object

cdef enum:
    STRUCTURE = 0x80
    BIG_ENDIAN = 0x80  # of a message's flags

cdef BitSet NO_BITS = BitSet()

cdef object DEFAULT_LIMITS = Limits()


@cython.final
cdef class Codec:
    """Decodes, or encodes, ONE direction of a connection: it holds the type ids of that direction.

    limits: caps on what is decoded. ids: how types are numbered when they are encoded, "none" (as pvxs: each in
    full) or "pvaccess" (as pvAccessCPP: FD at the first use, FE afterwards; WIRE 6.2). Decoding takes either.
    One thread at a time. After an error inside a type description the ids are unknown: any further use of the codec
    is a LocalProtocolError. Where data is decoded, a Projection can stand in place of the type.

    `offset` and `end` bound the bytes used of `data`; each decode method returns what it read and the offset behind
    it. Arrays are read-only views of `data` where that is possible: data other than bytes must then stay unchanged.
    Raises DecodeError (LimitExceeded) whose offset counts from the start of `data`.
    """

    def __cinit__(self, *args, **kwargs):
        self.known = _TypeIds.__new__(_TypeIds)

    def __init__(self, *, limits=DEFAULT_LIMITS, ids="none"):
        if ids not in ("none", "pvaccess"):
            raise ValueError(f"ids must be 'none' or 'pvaccess', not {ids!r}")
        load_caps(limits, &self.caps)
        self.limits = limits
        self.ids = ids
        self.known = _TypeIds.__new__(_TypeIds)
        self.numbers = {} if ids == "pvaccess" else None

    cdef int usable(self) except -1:
        if self.known.broken:
            raise LocalProtocolError("this codec met an error inside a type description: its type ids are unknown")
        return 0

    cdef int fits(self, FieldDesc type, Cursor* c) except -1:
        if <size_t>type.height > c.caps.depth:
            raise_too_deep(c, c.pos)
        if <size_t>type.count > c.caps.type_nodes:
            raise_limit(c, c.pos, f"type of {type.count} nodes", "type_nodes")
        return 0

    cdef object value(self, object type, Cursor* c):
        """A full value."""
        cdef FieldDesc fd = type_of(type)
        self.usable()
        self.fits(fd, c)
        if type is fd:
            return take(read_full(fd, c, self.known, 0))
        return read_projected(<Projection>type, c, self.known)

    cdef Value update(self, object type, Cursor* c, Value base):
        """An update."""
        cdef FieldDesc fd = type_of(type)
        self.usable()
        self.fits(fd, c)
        if base is not None and not (base.fd is not None and same_type(base.fd, fd)):
            raise LocalProtocolError("base is a Value of another type")
        if type is fd:
            return read_update(fd, c, self.known, base)
        return read_projected_update(<Projection>type, c, self.known, base)

    def decode_type(self, data, offset=0, *, end=None, byteorder="little"):
        """Decode a type description; None for the null type."""
        cdef Cursor c
        cdef object owner = owner_of(data)
        start_cursor(&c, owner, offset, -1 if end is None else stop_of(end), is_big(byteorder), False, &self.caps)
        self.usable()
        found = read_desc(&c, self.known, 0)
        return found, <Py_ssize_t>(c.pos - c.base)

    def decode(self, type, data, offset=0, *, end=None, byteorder="little", aligned=False):
        """Decode a full value: a Value for a structure, otherwise what a leaf of the type holds."""
        cdef Cursor c
        cdef object owner = owner_of(data)
        start_cursor(&c, owner, offset, -1 if end is None else stop_of(end), is_big(byteorder), aligned, &self.caps)
        found = self.value(type, &c)
        return found, <Py_ssize_t>(c.pos - c.base)

    def decode_update(
        self, type, data, offset=0, *, end=None, Value base=None, byteorder="little", aligned=False
    ):
        """Decode a BitSet and the data of the fields in it. Other fields are those of `base`, which stays as it is.

        A base of another type is a LocalProtocolError.
        """
        cdef Cursor c
        cdef object owner = owner_of(data)
        start_cursor(&c, owner, offset, -1 if end is None else stop_of(end), is_big(byteorder), aligned, &self.caps)
        found = self.update(type, &c, base)
        return found, <Py_ssize_t>(c.pos - c.base)

    def decode_monitor(self, type, Message message not None, Value base=None, /):
        """Decode a MONITOR update (sub byte 00) as it comes: the value laid over `base`, the overruns, the offset behind.

        The straight way for what comes at full rate; `type` and `base` as in decode_update. The paths of errors begin
        with "value" or "overrun", their offsets count from the start of the payload.
        """
        cdef Cursor c
        cdef object owner = owner_of(message.data)
        cdef Py_ssize_t start = min(message.start + 5, message.end)
        cdef Value update
        cdef BitSet overrun
        cdef bint second = False
        start_cursor(&c, owner, start, message.end, (message.flags & BIG_ENDIAN) != 0, False, &self.caps)
        try:
            update = self.update(type, &c, base)
            second = True
            if c.pos < c.end and c.pos[0] == 0:
                c.pos += 1
                overrun = NO_BITS
            else:
                overrun = read_bitset(&c)
        except DecodeError as error:
            error.within("overrun" if second else "value")
            error.offset -= message.start
            raise
        return update, overrun, <Py_ssize_t>(c.pos - c.base)

    def decode_any(self, data, offset=0, *, end=None, byteorder="little", aligned=False):
        """Decode a type description and a value of it; None for the null."""
        cdef Cursor c
        cdef object owner = owner_of(data)
        start_cursor(&c, owner, offset, -1 if end is None else stop_of(end), is_big(byteorder), aligned, &self.caps)
        self.usable()
        found = read_any(&c, self.known, -1)
        return found, <Py_ssize_t>(c.pos - c.base)

    def encode_type(self, type, *, byteorder="little"):
        """A type description; None is the null type."""
        cdef Writer w = writer_in(byteorder)
        self.put_type(type, w)
        return w.joined()

    def encode(self, value, type=None, *, byteorder="little"):
        """A full value. A plain value, converted to it, needs the type."""
        cdef Writer w = writer_in(byteorder)
        self.put(value, w, type)
        return w.joined()

    def encode_update(self, Value value not None, *, byteorder="little"):
        """The changed bits of a Value, then the fields that they stand for."""
        cdef Writer w = writer_in(byteorder)
        self.put_update(value, w)
        return w.joined()

    def encode_any(self, value, *, byteorder="little"):
        """A type description and a value of it."""
        cdef Writer w = writer_in(byteorder)
        self.put_any(value, w)
        return w.joined()

    def read_type(self, Reader reader not None):
        """`decode_type` at the place of a Reader."""
        self.usable()
        return read_desc(&reader.c, self.known, 0)

    def read(self, type, Reader reader not None):
        """`decode` at the place of a Reader."""
        return self.value(type, &reader.c)

    def read_update(self, type, Reader reader not None, Value base=None):
        """`decode_update` at the place of a Reader."""
        return self.update(type, &reader.c, base)

    def read_any(self, Reader reader not None):
        """`decode_any` at the place of a Reader."""
        self.usable()
        return read_any(&reader.c, self.known, -1)

    def write_type(self, type, Writer writer not None):
        """`encode_type` into a Writer."""
        self.put_type(type, writer)

    def write(self, value, Writer writer not None, type=None):
        """`encode` into a Writer."""
        self.put(value, writer, type)

    def write_update(self, Value value not None, Writer writer not None):
        """`encode_update` into a Writer."""
        self.put_update(value, writer)

    def write_any(self, value, Writer writer not None):
        """`encode_any` into a Writer."""
        self.put_any(value, writer)

    cdef int put_type(self, FieldDesc type, Writer w) except -1:
        cdef Py_ssize_t before = self.given()
        if type is None:
            return put8(w, 0xFF)
        try:
            return write_desc(type, w, self.numbers)
        except BaseException:
            self.withdraw(before)
            raise

    cdef int put(self, object value, Writer w, FieldDesc type) except -1:
        cdef Py_ssize_t before = self.given()
        if type is None:
            if not isinstance(value, Value):
                raise EncodeError(f"the type of a {value.__class__.__name__} must be given")
            type = (<Value>value).type
        if isinstance(value, Value) and type.code != STRUCTURE and same_type((<Value>value).type, type):
            value = value[""]
        if type.code != STRUCTURE or not isinstance(value, Value):
            value = coercion.leaf(type, value)
        try:
            return write_full(type, value, w, self.numbers)
        except BaseException:
            self.withdraw(before)
            raise

    cdef int put_update(self, Value value, Writer w) except -1:
        cdef Py_ssize_t before = self.given()
        try:
            return write_update(value, w, self.numbers)
        except BaseException:
            self.withdraw(before)
            raise

    cdef int put_any(self, object value, Writer w) except -1:
        cdef Py_ssize_t before = self.given()
        try:
            return write_any(value, w, self.numbers)
        except BaseException:
            self.withdraw(before)
            raise

    @property
    def numbered(self):
        """How many types the encoding side has given an id."""
        return self.given()

    def forget(self, Py_ssize_t before):
        """Take back the ids that were given since `numbered` was `before`: what defines them will never be sent."""
        self.withdraw(before)

    cdef Py_ssize_t given(self) except -1:
        return 0 if self.numbers is None else len(self.numbers)

    cdef int withdraw(self, Py_ssize_t before) except -1:
        while self.given() > before:
            self.numbers.popitem()
        return 0


cdef FieldDesc type_of(object type):
    """The type that is decoded by: of a Projection, that of what it projects."""
    if isinstance(type, FieldDesc):
        return <FieldDesc>type
    if not isinstance(type, Projection) or (<Projection>type).type is None:
        raise TypeError(f"a FieldDesc or a Projection is needed, not {type!r}")
    return (<Projection>type).type


cdef Py_ssize_t stop_of(object end) except -1:
    """An end that was given: a number that start_cursor checks."""
    if end < 0:
        raise ValueError(f"end {end} is negative")
    return end


cdef Writer writer_in(object byteorder):
    cdef Writer w = Writer.__new__(Writer)
    w.big = is_big(byteorder)
    w.out.swap = w.big != HOST_IS_BIG
    return w


(<PyTypeObject*>Codec).tp_name = "pvafast.Codec"

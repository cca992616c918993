"""Value, UnionValue, AnyValue: full values and BitSet-masked updates, read and written along a flat plan (WIRE 6.3, 6.4)."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_RawFree, PyMem_RawRealloc
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from .array cimport (
    count_numbers,
    empty_numbers,
    is_numbers,
    read_numbers,
    read_strings,
    write_numbers,
    write_strings,
    zero_numbers,
)
from .bitset cimport BitSet, from_words, read_words, write_words
from .buffer cimport (
    Cursor,
    Writer,
    ctz64,
    left,
    put8,
    put16,
    put32,
    put64,
    put_bytes,
    put_size,
    raise_at,
    raise_limit,
    raise_short,
    read_size,
    read_size_or_null,
    read_text,
)
from .introspection cimport (
    KIND_BOOL,
    KIND_DOUBLE,
    KIND_FLOAT,
    KIND_NUMBERS,
    KIND_STRING,
    KIND_UINT64,
    SIZES,
    FieldDesc,
    Leaf,
    _Lookups,
    Plan,
    _TypeIds,
    by_member,
    index_of,
    lookups_of,
    name_of,
    plan_of,
    raise_too_deep,
    read_desc,
    same_type,
    write_desc,
)

from collections.abc import Mapping
from struct import pack

import numpy as np

from .._coerce import Coercion
from .._elements import ElementColumns
from .._types import SCALAR_FORMS, SCALARS
from .._valuetext import format_repr, format_tree
from ..errors import DecodeError, EncodeError, RangeError

cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(object, object) except? NULL
    Py_ssize_t PyLong_AsSsize_t(object) except? -1
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object) except? 0xFFFFFFFFFFFFFFFF
    double PyFloat_AS_DOUBLE(object) noexcept
    bint PyFloat_CheckExact(object) noexcept
    bint PyLong_CheckExact(object) noexcept
    bint PyUnicode_CheckExact(object) noexcept
    object PyObject_GenericGetAttr(object, object)
    void Py_XINCREF(PyObject*) noexcept
    void Py_XDECREF(PyObject*) noexcept
    int Py_EnterRecursiveCall(const char*) except -1
    void Py_LeaveRecursiveCall() noexcept

cdef extern from *:
    """
    static CYTHON_INLINE PyObject* pva_take(PyObject* o) { return o; }
    static CYTHON_INLINE PyObject* pva_give(PyObject* o) { Py_INCREF(o); return o; }
    /* Recursion over values that hold others, one a thread. levels: of all but dropping. depth, later: of dropping, how deep
       it is, and what waits until it is not. */
    typedef struct { size_t depth, n, room; PyObject** later; size_t levels; } pva_drops_t;
    #if defined(_MSC_VER)
    static __declspec(thread) pva_drops_t pva_drops;
    #else
    static __thread pva_drops_t pva_drops;
    #endif
    """
    object take "pva_take"(PyObject*)  # a new reference becomes an object
    PyObject* give "pva_give"(object) noexcept  # an object becomes a new reference
    ctypedef struct Drops "pva_drops_t":
        size_t levels
        size_t depth
        size_t n
        size_t room
        PyObject** later
    Drops drops "pva_drops"

cdef enum:
    STRING = 0x60
    STRUCTURE = 0x80
    UNION = 0x81
    ANY = 0x82
    BOUNDED_STRING = 0x83
    STRUCTURE_ARRAY = 0x88
    UNION_ARRAY = 0x89
    ANY_ARRAY = 0x8A
    BOUNDED = 0x10
    FIXED = 0x18
    ARRAY_BITS = 0x18

cdef enum:
    DROP_LEVELS = 64  # anys and unions that are dropped inside each other; what lies deeper waits
    # Values, lists, anys and unions that are compared, copied, shown or written inside each other. What can be decoded lies
    # some 200 deep at most (Limits.depth); CPython's own limit may be more than the stack of a thread.
    MOST_LEVELS = 256

cdef uint8_t[256] IS_SCALAR
cdef uint8_t[256] IS_FORM
for _code in SCALARS:
    IS_SCALAR[<int>_code] = 1
for _code in SCALAR_FORMS:
    IS_FORM[<int>_code] = 1


@cython.final
@cython.no_gc  # a value lies in another only by copy or by a tree built bottom up; a cycle takes a list changed on purpose
@cython.freelist(256)
cdef class Value:
    """A value of a structure type; its leaves are slots, its sub-structures views with numbering of their own.

    `v["alarm.severity"]` reads a field by its dotted path, `v[("a.b",)]` by exact names, `v[""]` the whole;
    `v.alarm.severity` reaches the fields whose names are none of the methods: changed, changed_names, copy, mark,
    overlay, to_dict, type, unmark. Setting a field converts what is given to the field's type (EncodeError,
    RangeError) and marks it changed. A field that was never set reads as zero, "", an empty array or None.

    `Value(type, fields)`: type as `FieldDesc.of` takes it; fields a mapping of dotted names, or the value itself for
    a type that is not a structure. Numeric arrays are kept, not copied, where they already have the right dtype.
    """

    def __cinit__(self, *args):
        self.plan = NULL
        self.slots = NULL
        self.words = NULL
        self.node = 0
        self.received = False
        self.origin = NULL

    def __init__(self, type, fields=None, /):
        if self.fd is not None:
            raise TypeError("a Value is made once")
        self.allot(FieldDesc.of(type))
        if fields is not None:
            if self.fd.code == STRUCTURE:
                assign(self, 0, fields)
            else:
                self[""] = fields

    def __dealloc__(self):
        cdef uint32_t i
        if self.owner is None and self.slots != NULL:
            for i in range(self.plan.leaves):
                Py_XDECREF(self.slots[i])
            PyMem_Free(self.slots)
        Py_XDECREF(self.origin)

    cdef int allot(self, FieldDesc fd) except -1:
        """Slots and changed bits for a new Value."""
        cdef Plan* plan = plan_of(fd)
        cdef size_t size = plan.leaves * sizeof(PyObject*)
        cdef size_t bits = plan.words * 8 if plan.words > 1 else 0
        # One byte at least: a structure may have no leaf.
        self.slots = <PyObject**>PyMem_Malloc(size + bits + 1)
        if self.slots == NULL:
            raise MemoryError()
        memset(self.slots, 0, size + bits)
        self.word = 0
        self.words = <uint64_t*>(self.slots + plan.leaves) if bits else &self.word
        self.plan = plan
        self.fd = fd
        return 0

    @property
    def type(self):
        """The type."""
        return typed(self)

    @property
    def changed(self):
        """The bits of the nodes marked changed; of a decoded update, those received that lie in the structure."""
        return changed_of(self)

    def changed_names(self):
        """The dotted names of the leaves that the changed bits stand for, depth first."""
        cdef BitSet bits = changed_of(self)
        names = self.fd.names
        return [names[i] for i in self.fd._expand_(bits)]

    def mark(self, *names):
        """Mark fields as changed; "" is the whole. A structure is marked by its own bit."""
        typed(self)
        found = [index_of(self.fd, name) for name in names]
        before_change(self)
        for i in found:
            set_bit(self, <size_t>i)

    def unmark(self, *names):
        """Take back the marks of fields and all below them; without a name of all fields."""
        cdef Value root = self if self.owner is None else self.owner
        cdef size_t i, k
        typed(self)
        found = [index_of(self.fd, name) for name in (names or ("",))]
        before_change(self)
        for number in found:
            i = number
            for k in range(self.node + i, self.node + self.plan.next[i]):
                root.words[k // 64] &= ~(<uint64_t>1 << (k % 64))

    def overlay(self, other, /):
        """Lay the changed fields of `other`, a Value of the same type, over this one; they are marked here, too."""
        cdef Value theirs
        cdef BitSet bits
        cdef uint32_t slot
        cdef PyObject* old
        if not isinstance(other, Value):
            raise TypeError(f"overlay takes a Value, not {other.__class__.__name__}")
        theirs = <Value>other
        typed(self)
        if not same_type(typed(theirs), self.fd):
            raise EncodeError("overlay with a Value of another type")
        bits = changed_of(theirs)
        before_change(self)
        for i in self.fd._expand_(bits):
            slot = self.plan.first[<size_t>i]
            old = self.slots[slot]
            Py_XINCREF(theirs.slots[slot])
            self.slots[slot] = theirs.slots[slot]
            Py_XDECREF(old)
        for i in bits:
            set_bit(self, <size_t>i)

    def to_dict(self):
        """All fields as nested dicts; arrays stay numpy arrays, unions and anys UnionValue and AnyValue."""
        if typed(self).code != STRUCTURE:
            return {"": plain(self[""])}
        return {name: plain(get(self, i)) for name, i in by_member(self.fd).items()}

    def copy(self):
        """A Value with the same fields and marks that shares nothing that can be changed."""
        cdef Value made = Value.__new__(Value)
        cdef uint32_t i
        cdef BitSet bits
        made.allot(typed(self))
        for i in range(self.plan.leaves):
            if self.slots[i] != NULL:
                made.slots[i] = give(copied(<object>self.slots[i]))
        bits = changed_of(self)
        memcpy(made.words, bits.words, bits.count * 8)
        return made

    def _received_(self):
        """What came with the update, if this is one, whatever was changed in it since: what the next one is laid over."""
        return self if self.origin == NULL else <object>self.origin

    def __getitem__(self, name, /):
        cdef PyObject* found
        if (
            self.fd is not None
            and self.fd.lookups is not None
            and self.fd.lookups.by_name is not None
            and PyUnicode_CheckExact(name)
        ):
            found = PyDict_GetItemWithError(self.fd.lookups.by_name, name)
            if found != NULL:
                return get(self, <uint32_t>PyLong_AsSsize_t(<object>found))
        return get(self, <uint32_t>index_of(typed(self), name))

    def __setitem__(self, name, obj, /):
        cdef uint32_t i = <uint32_t>index_of(typed(self), name)
        before_change(self)
        try:
            assign(self, i, obj)
        except EncodeError as error:
            if i:
                error.within(name_of(self.fd, i))
            raise

    def __delitem__(self, name, /):
        raise TypeError("a field cannot be taken out of a Value")

    def __getattribute__(self, name, /):
        cdef PyObject* found
        if self.fd is not None:
            found = PyDict_GetItemWithError(attributes(self.fd), name)
            if found != NULL:
                return get(self, <uint32_t>PyLong_AsSsize_t(<object>found))
        try:
            return PyObject_GenericGetAttr(self, name)
        except AttributeError:
            typed(self)
            raise AttributeError(f"no field {name!r}") from None

    def __setattr__(self, name, obj, /):
        if hasattr(Value, name):
            raise AttributeError(f'{name} is a method of Value: the field is v["{name}"]')
        if name not in by_member(typed(self)):
            raise AttributeError(f"no field {name!r}")
        self[(name,)] = obj

    def __delattr__(self, name, /):
        raise AttributeError("a field cannot be taken out of a Value")

    def __iter__(self):
        return iter(fields_of(self))

    def __contains__(self, name, /):
        return name in typed(self)

    def __len__(self):
        return len(fields_of(self))

    def __bool__(self):
        return True

    def __eq__(self, other, /):
        cdef Value theirs
        cdef uint32_t i
        if not isinstance(other, Value):
            return NotImplemented
        theirs = <Value>other
        if not same_type(typed(self), typed(theirs)):
            return False
        for i in range(self.plan.leaves):
            if self.slots[i] != theirs.slots[i] and not same(leaf_of(self, i), leaf_of(theirs, i)):
                return False
        return True

    __hash__ = None

    def __repr__(self):
        typed(self)
        enter_level()
        try:
            return format_repr(self)
        finally:
            leave_level()

    def __str__(self):
        typed(self)
        measure(self)
        return format_tree(self)

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo, /):
        return self.copy()

    def __dir__(self):
        return [*object.__dir__(self), *fields_of(self)]

    def __reduce__(self):
        cdef uint32_t i
        slots = []
        typed(self)
        measure(self)
        for i in range(self.plan.leaves):
            slots.append(None if self.slots[i] == NULL else <object>self.slots[i])
        return Value, (self.fd,), (slots, list(changed_of(self)))

    def __setstate__(self, state, /):
        cdef uint32_t i
        slots, bits = state
        typed(self)
        if len(slots) != self.plan.leaves:
            raise ValueError("the state is not of this type")
        for i in range(self.plan.leaves):
            leaf = slots[i]
            if leaf is not None and not isinstance(leaf, ElementColumns):
                leaf = coercion.leaf(<FieldDesc>self.plan.leaf[i].type, leaf)
            put_leaf(self, i, leaf)
        self.unmark()
        for bit in bits:
            if bit < self.plan.nodes:
                set_bit(self, <size_t>bit)


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class UnionValue:
    """The selected member of a union: its name and value. Frozen. A null union is None."""

    def __init__(self, name, value):
        if not isinstance(name, str):
            raise EncodeError(f"a member name is a str, not {name!r}")
        if self.name is not None:
            raise TypeError("UnionValue is frozen")
        self.name = str.__str__(name)
        self.value = value

    def __dealloc__(self):
        cdef PyObject* held = give(self.value)
        self.value = None
        drop(held)

    def __setattr__(self, name, value, /):
        raise AttributeError("UnionValue is frozen")

    def __delattr__(self, name, /):
        raise AttributeError("UnionValue is frozen")

    def __eq__(self, other, /):
        if not isinstance(other, UnionValue):
            return NotImplemented
        return self.name == (<UnionValue>other).name and same(self.value, (<UnionValue>other).value)

    __hash__ = None

    def __repr__(self):
        enter_level()
        try:
            return f"UnionValue({self.name!r}, {self.value!r})"
        finally:
            leave_level()

    def __reduce__(self):
        measure(self)
        return UnionValue, (self.name, self.value)


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class AnyValue:
    """What an any holds: a type and a value of it (converted to the type, with EncodeError). Frozen. A null any is None."""

    def __init__(self, type, value):
        if self.type is not None:
            raise TypeError("AnyValue is frozen")
        fd = FieldDesc.of(type)
        self.value = coercion.leaf(fd, value)
        self.type = fd

    def __dealloc__(self):
        cdef PyObject* held = give(self.value)
        self.value = None
        drop(held)

    def __setattr__(self, name, value, /):
        raise AttributeError("AnyValue is frozen")

    def __delattr__(self, name, /):
        raise AttributeError("AnyValue is frozen")

    def __eq__(self, other, /):
        if not isinstance(other, AnyValue):
            return NotImplemented
        return self.type == (<AnyValue>other).type and same(self.value, (<AnyValue>other).value)

    __hash__ = None

    def __repr__(self):
        enter_level()
        try:
            return f"AnyValue({self.type.format('short')!r}, {self.value!r})"
        finally:
            leave_level()

    def __reduce__(self):
        measure(self)
        return AnyValue, (self.type, self.value)


(<PyTypeObject*>Value).tp_name = "pvafast.Value"
(<PyTypeObject*>UnionValue).tp_name = "pvafast.UnionValue"
(<PyTypeObject*>AnyValue).tp_name = "pvafast.AnyValue"

coercion = Coercion(FieldDesc, Value, UnionValue, AnyValue)


cdef int enter_level() except -1:
    """Go into a value: a program may nest them without end."""
    if drops.levels >= MOST_LEVELS:
        raise RecursionError(f"a value of more than {MOST_LEVELS} levels")
    Py_EnterRecursiveCall(" in a value")
    drops.levels += 1
    return 0


cdef void leave_level() noexcept:
    drops.levels -= 1
    Py_LeaveRecursiveCall()


cdef int measure(object leaf) except -1:
    """RecursionError where a value has too many levels: for what goes into it by itself, as pickle does."""
    cdef Value v
    cdef uint32_t i
    if not isinstance(leaf, (Value, list, UnionValue, AnyValue)):
        return 0
    enter_level()
    try:
        if isinstance(leaf, Value):
            v = <Value>leaf
            for i in range(v.plan.leaves if v.fd is not None else 0):
                if v.slots[i] != NULL:
                    measure(<object>v.slots[i])
        elif isinstance(leaf, list):
            for item in leaf:
                measure(item)
        elif isinstance(leaf, UnionValue):
            measure((<UnionValue>leaf).value)
        else:
            measure((<AnyValue>leaf).value)
    finally:
        leave_level()
    return 0


cdef void drop(PyObject* held) noexcept:
    """Drop what an any or a union held, in bounded recursion: a program may nest them without end.

    Not CPython's trashcan: it takes garbage-collected types, and allows 10,000 levels in 3.13, too many for the stack
    of a thread.
    """
    cdef PyObject** more
    if drops.depth == DROP_LEVELS:
        if drops.n == drops.room:
            more = <PyObject**>PyMem_RawRealloc(drops.later, (2 * drops.room + 16) * sizeof(PyObject*))
            if more == NULL:
                return  # better lost than a crash
            drops.later = more
            drops.room = 2 * drops.room + 16
        drops.later[drops.n] = held
        drops.n += 1
        return
    drops.depth += 1
    Py_XDECREF(held)
    if drops.depth == 1 and drops.later != NULL:
        while drops.n:
            drops.n -= 1
            Py_XDECREF(drops.later[drops.n])
        PyMem_RawFree(drops.later)
        drops.later = NULL
        drops.room = 0
    drops.depth -= 1


cdef FieldDesc typed(Value v):
    """The type of a Value that was initialised."""
    if v.fd is None:
        raise AttributeError("a Value without a type: use Value(type)")
    return v.fd


cdef tuple fields_of(Value v):
    """The names of the members; of a type that is not a structure there are none."""
    return typed(v).member_names if v.fd.code == STRUCTURE else ()


cdef dict attributes(FieldDesc fd):
    """Name to node, of the members that attribute access finds."""
    cdef _Lookups lookups = lookups_of(fd)
    if lookups.by_attribute is None:
        lookups.by_attribute = {name: i for name, i in by_member(fd).items() if not hasattr(Value, name)}
    return lookups.by_attribute


cdef Value view(Value v, uint32_t i):
    """The sub-structure at node i."""
    cdef Value made = Value.__new__(Value)
    cdef FieldDesc fd = <FieldDesc>v.plan.types[i]
    made.plan = plan_of(fd)
    # The owner is set before the slots: what is freed are an owner's own slots.
    made.owner = v if v.owner is None else v.owner
    made.slots = v.slots + v.plan.first[i]
    made.node = v.node + i
    made.fd = fd
    return made


cdef int set_bit(Value v, size_t i) except -1:
    """Mark node i of v."""
    cdef Value root = v if v.owner is None else v.owner
    i += v.node
    root.words[i // 64] |= <uint64_t>1 << (i % 64)
    return 0


cdef BitSet changed_of(Value v):
    """The changed bits in the numbering of v."""
    cdef Value root
    cdef size_t i, k
    typed(v)
    if v.owner is None:
        return from_words(v.words, v.plan.words)
    root = v.owner
    found = []
    for i in range(v.node, v.node + v.plan.nodes):
        if root.words[i // 64] >> (i % 64) & 1:
            found.append(i - v.node)
    # The bit of a structure around this one stands for the whole of it.
    for k in range(v.node):
        if root.words[k // 64] >> (k % 64) & 1 and root.plan.next[k] > v.node:
            found.append(0)
            break
    return BitSet(found)


cdef object zero(FieldDesc type):
    """What a leaf reads as before it is set."""
    cdef int code = type.code
    cdef int element
    cdef Py_ssize_t n
    cdef uint8_t* data
    if code == 0x00:
        return False
    if code == 0x42 or code == 0x43:
        return 0.0
    if code == STRING or code == BOUNDED_STRING:
        return ""
    if IS_SCALAR[code]:
        return 0
    if IS_FORM[code]:
        element = code & ~ARRAY_BITS
        n = type.bound if code & ARRAY_BITS == FIXED else 0
        if element == STRING:
            return [""] * n
        return zero_numbers(<uint8_t>element, <size_t>n, &data) if n else empty_numbers(<uint8_t>element)
    if code == STRUCTURE:
        return Value(type)
    return None if code == UNION or code == ANY else []


cdef object leaf_of(Value v, uint32_t slot):
    cdef PyObject* leaf = v.slots[slot]
    if leaf == NULL:
        return zero(<FieldDesc>v.plan.leaf[slot].type)
    return <object>leaf


cdef object get(Value v, uint32_t i):
    cdef PyObject* leaf
    if (<FieldDesc>v.plan.types[i]).code == STRUCTURE:
        return view(v, i) if i else v
    leaf = v.slots[v.plan.first[i]]
    if leaf == NULL:
        return zero(<FieldDesc>v.plan.types[i])
    return <object>leaf


cdef int before_change(Value v) except -1:
    """Keep what was received, the leaves being shared: the next update is laid over that."""
    cdef Value root = v if v.owner is None else v.owner
    cdef Value made
    cdef uint32_t i
    if root.received:
        made = Value.__new__(Value)
        made.allot(root.fd)
        for i in range(root.plan.leaves):
            Py_XINCREF(root.slots[i])
            made.slots[i] = root.slots[i]
        memcpy(made.words, root.words, root.plan.words * 8)
        root.origin = give(made)
        root.received = False
    return 0


cdef int put_leaf(Value v, uint32_t slot, object leaf) except -1:
    """Set a slot; None is the leaf that was never set, and the null."""
    cdef PyObject* old = v.slots[slot]
    v.slots[slot] = NULL if leaf is None else give(leaf)
    Py_XDECREF(old)
    return 0


cdef object coerced(FieldDesc type, object obj):
    """What a leaf of this type holds, made of what a user passes: the common cases at once."""
    cdef int code = type.code
    cdef int overflow = 0
    cdef long long number
    if code == 0x43:
        if PyFloat_CheckExact(obj):
            return obj
    elif code == STRING:
        if PyUnicode_CheckExact(obj):
            return obj
    elif 0x20 <= code <= 0x23:
        if PyLong_CheckExact(obj):
            number = PyLong_AsLongLongAndOverflow(obj, &overflow)
            if not overflow and (
                code == 0x23
                or -(<long long>1 << ((8 << (code & 3)) - 1)) <= number < (<long long>1 << ((8 << (code & 3)) - 1))
            ):
                return obj
    elif IS_FORM[code] and code & ARRAY_BITS == 0x08 and code != 0x68:
        if is_numbers(obj, <uint8_t>(code & ~ARRAY_BITS)):
            return obj
    return coercion.leaf(type, obj)


cdef int assign(Value v, uint32_t i, object obj) except -1:
    """Set node i of v, and mark what was given."""
    cdef FieldDesc type = <FieldDesc>v.plan.types[i]
    cdef Value target, source
    cdef uint32_t slot
    cdef PyObject* old
    if type.code != STRUCTURE:
        put_leaf(v, v.plan.first[i], coerced(type, obj))
        return set_bit(v, i)
    target = view(v, i) if i else v
    if isinstance(obj, Value):
        source = <Value>obj
        if not same_type(typed(source), type):
            raise EncodeError(f"structure of another type found (id {source.fd.id!r}, {type.id!r} expected)")
        for slot in range(target.plan.leaves):
            old = target.slots[slot]
            Py_XINCREF(source.slots[slot])
            target.slots[slot] = source.slots[slot]
            Py_XDECREF(old)
        return set_bit(target, 0)
    if not isinstance(obj, Mapping):
        raise EncodeError(f"structure expected, {obj.__class__.__name__} found")
    for name in obj:
        if name not in type:
            raise EncodeError(f"no field {name!r}")
    for name, item in obj.items():
        target[name] = item
    return 0


cdef object plain(object leaf):
    if not isinstance(leaf, (Value, list, UnionValue, AnyValue)):
        return leaf
    enter_level()
    try:
        if isinstance(leaf, Value):
            return leaf.to_dict() if (<Value>leaf).fd.code == STRUCTURE else leaf[""]
        if isinstance(leaf, list):
            return [plain(item) for item in leaf]
        if isinstance(leaf, UnionValue):
            return union_of((<UnionValue>leaf).name, plain((<UnionValue>leaf).value))
        if (<AnyValue>leaf).type is None or IS_FORM[(<AnyValue>leaf).type.code]:
            return leaf
        return any_of((<AnyValue>leaf).type, plain((<AnyValue>leaf).value))
    finally:
        leave_level()


cdef object copied(object leaf):
    if isinstance(leaf, np.ndarray):
        return leaf.copy() if leaf.flags.writeable else leaf
    if isinstance(leaf, ElementColumns):
        return leaf.copy()
    if not isinstance(leaf, (Value, list, UnionValue, AnyValue)):
        return leaf
    enter_level()
    try:
        if isinstance(leaf, Value):
            return (<Value>leaf).copy()
        if isinstance(leaf, list):
            return [copied(item) for item in leaf]
        if isinstance(leaf, UnionValue):
            return union_of((<UnionValue>leaf).name, copied((<UnionValue>leaf).value))
        return any_of((<AnyValue>leaf).type, copied((<AnyValue>leaf).value))
    finally:
        leave_level()


cdef bint same(object a, object b) except -1:
    """Equality of leaves: of type, and of floats bit by bit."""
    if isinstance(a, float):
        return isinstance(b, float) and pack("<d", a) == pack("<d", b)
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        )
    if a.__class__ is not b.__class__:
        return False
    if not isinstance(a, (Value, list, UnionValue, AnyValue)):
        return bool(a == b)
    enter_level()
    try:
        if not isinstance(a, list):
            return bool(a == b)
        if len(a) != len(b):
            return False
        for x, y in zip(a, b):
            if not same(x, y):
                return False
        return True
    finally:
        leave_level()


cdef UnionValue union_of(str name, object value):
    cdef UnionValue made = UnionValue.__new__(UnionValue)
    made.name = name
    made.value = value
    return made


cdef AnyValue any_of(FieldDesc type, object value):
    cdef AnyValue made = AnyValue.__new__(AnyValue)
    made.type = type
    made.value = value
    return made


# --- reading ---------------------------------------------------------------------------------------------------------


cdef int raise_too_many(const Cursor* c, const uint8_t* pos) except -1:
    raise_limit(c, pos, f"more than {c.caps.value_nodes} nodes in a message", "value_nodes")


cdef int read_leaves(
    Plan* plan, uint32_t* slot, uint32_t stop, PyObject** slots, Cursor* c, _TypeIds ids, size_t depth
) except -1:
    """Read the leaves slot[0] to stop of a structure; where it fails slot[0] tells the leaf."""
    cdef Leaf* leaf
    cdef uint8_t kind
    cdef PyObject* made
    cdef PyObject* old
    while slot[0] < stop:
        leaf = &plan.leaf[slot[0]]
        kind = leaf.kind
        if kind < KIND_STRING and SIZES[kind] <= left(c):
            made = number_of(kind, c.pos, c.swap)
            c.pos += SIZES[kind]
        elif kind == KIND_STRING:
            made = read_text(c)
        else:
            made = read_leaf(<FieldDesc>leaf.type, c, ids, depth + leaf.depth)
        old = slots[slot[0]]
        slots[slot[0]] = checked(made)
        Py_XDECREF(old)
        slot[0] += 1
    return 0


cdef int blame_leaf(FieldDesc fd, Plan* plan, uint32_t slot, object error) except -1:
    """Put the name of a leaf in front of an error's path."""
    name = name_of(fd, plan.leaf[slot].node)
    if name:
        error.within(name)
    return 0


cdef PyObject* read_full(FieldDesc fd, Cursor* c, _TypeIds ids, size_t depth) except NULL:
    """Read a full value of any type, a new reference; `depth` is how deep it lies."""
    cdef Plan* plan
    cdef Value made
    cdef uint32_t slot = 0
    if fd.code != STRUCTURE:
        charge(c, 1, LEAF_WEIGHT, c.pos)
        return read_leaf(fd, c, ids, depth)
    plan = plan_of(fd)
    charge(c, <size_t>plan.leaves + 1, VALUE_WEIGHT + LEAF_WEIGHT * <Py_ssize_t>plan.leaves, c.pos)
    made = Value.__new__(Value)
    made.allot(fd)
    try:
        read_leaves(plan, &slot, plan.leaves, made.slots, c, ids, depth)
    except DecodeError as error:
        blame_leaf(fd, plan, slot, error)
        raise
    return give(made)


cdef Value read_update(FieldDesc fd, Cursor* c, _TypeIds ids, Value base):
    """Read a BitSet and the data of the nodes in it; other fields are those of base."""
    cdef Plan* plan = plan_of(fd)
    cdef Value made = Value.__new__(Value)
    cdef uint64_t word
    cdef uint32_t i, stop, slot
    cdef size_t w
    cdef bint reading = False
    made.allot(fd)
    if base is not None:
        for i in range(plan.leaves):
            Py_XINCREF(base.slots[i])
            made.slots[i] = base.slots[i]
    try:
        read_words(c, made.words, plan.words)
    except DecodeError as error:
        error.within("changed")
        raise
    if plan.nodes % 64:
        made.words[plan.words - 1] &= (<uint64_t>1 << (plan.nodes % 64)) - 1
    stop = slot = 0
    try:
        for w in range(plan.words):
            word = made.words[w]
            while word:
                i = <uint32_t>(w * 64) + <uint32_t>ctz64(word)
                word &= word - 1
                if i >= stop:
                    stop = plan.next[i]
                    slot = plan.first[i]
                    reading = False
                    charge(c, plan.first[stop] - slot, LEAF_WEIGHT * <Py_ssize_t>(plan.first[stop] - slot), c.pos)
                    reading = True
                    read_leaves(plan, &slot, plan.first[stop], made.slots, c, ids, 0)
    except DecodeError as error:
        if reading:
            blame_leaf(fd, plan, slot, error)
        raise
    made.received = True
    return made


cdef PyObject* read_leaf(FieldDesc fd, Cursor* c, _TypeIds ids, size_t depth) except NULL:
    """Read a leaf of any type, at this depth; a new reference."""
    cdef int code = fd.code
    cdef uint8_t kind
    cdef const uint8_t* pos
    cdef PyObject* made
    cdef size_t size
    if code == STRING:
        return read_text(c)
    if IS_SCALAR[code]:
        kind = plan_of(fd).leaf[0].kind
        if SIZES[kind] > left(c):
            raise_short(c, SCALARS[code][0], SIZES[kind])
        made = number_of(kind, c.pos, c.swap)
        c.pos += SIZES[kind]
        return made
    if IS_FORM[code]:
        return read_array(<uint8_t>(code & ~ARRAY_BITS), code & ARRAY_BITS, fd.bound, c)
    if code == UNION:
        return read_union(fd, c, ids, depth)
    if code == ANY:
        return give(read_any(c, ids, <Py_ssize_t>depth))
    if code == BOUNDED_STRING:
        pos = c.pos
        made = read_text(c)
        text = take(made)
        size = <size_t>(c.pos - pos) - (5 if pos[0] == 0xFE else 1)
        if size > <size_t>fd.bound:
            raise_at(c, pos, f"string of {size} bytes over its bound of {fd.bound}")
        return give(text)
    return read_elements(fd, c, ids, depth)


cdef PyObject* read_array(uint8_t element, int form, Py_ssize_t bound, Cursor* c) except NULL:
    cdef const uint8_t* pos = c.pos
    cdef Py_ssize_t n
    if form == FIXED:
        n = bound
    else:
        n = read_size(c)
        if form == BOUNDED and n > bound:
            raise_at(c, pos, f"array of {n} {SCALARS[element][0]} over its bound of {bound}")
    if element == STRING:
        made = take(read_strings(c, <size_t>n))
        charge(c, 0, ARRAY_WEIGHT + LEAF_WEIGHT * n if n else 0, pos)
        return give(made)
    charge(c, 0, ARRAY_WEIGHT if n else 0, pos)
    return read_numbers(c, element, <size_t>n)


cdef PyObject* read_union(FieldDesc fd, Cursor* c, _TypeIds ids, size_t depth) except NULL:
    cdef const uint8_t* pos = c.pos
    cdef Py_ssize_t selector = read_size_or_null(c)
    cdef str name
    if selector < 0:
        return give(None)
    if selector >= len(fd.member_names):
        raise_at(c, pos, f"union selector {selector} of {len(fd.member_names)} members")
    name = <str>fd.member_names[selector]
    charge(c, 1, BOX_WEIGHT, pos)
    try:
        value = take(read_full(<FieldDesc>fd.member_types[selector], c, ids, depth + 1))
    except DecodeError as error:
        error.within(name)
        raise
    return give(union_of(name, value))


cdef object read_any(Cursor* c, _TypeIds ids, Py_ssize_t depth):
    """Read a type description and a full value of it; depth -1 where no value is around it."""
    cdef const uint8_t* pos = c.pos
    cdef FieldDesc fd
    if depth >= <Py_ssize_t>c.caps.depth:
        raise_too_deep(c, pos)
    fd = read_desc(c, ids, <size_t>(depth + 1))
    if fd is None:
        return None
    charge(c, 1, BOX_WEIGHT, pos)
    return any_of(fd, take(read_full(fd, c, ids, <size_t>(depth + 1))))


cdef Py_ssize_t count_elements(int code, Cursor* c) except -1:
    """How many elements of a structure, union or any array come."""
    cdef const uint8_t* pos = c.pos
    cdef Py_ssize_t n = read_size(c)
    name = "structure" if code == STRUCTURE_ARRAY else "union" if code == UNION_ARRAY else "any"
    if <size_t>n > left(c):
        raise_short(c, f"array of {n} {name}", n)
    if <size_t>n > c.caps.elements:
        raise_limit(c, pos, f"array of {n} {name}", "elements")
    charge(c, 0, ARRAY_WEIGHT + PLACE_WEIGHT * n if n else 0, pos)
    return n


cdef PyObject* read_elements(FieldDesc fd, Cursor* c, _TypeIds ids, size_t depth) except NULL:
    """A structure, union or any array."""
    cdef int code = fd.code
    cdef Py_ssize_t n = count_elements(code, c)
    cdef Py_ssize_t i = 0
    cdef object found = [None] * n
    try:
        for i in range(n):
            if c.pos >= c.end:
                raise_short(c, "presence byte", 1)
            c.pos += 1
            if not (c.pos - 1)[0]:
                continue
            if code == STRUCTURE_ARRAY:
                found[i] = take(read_full(fd.element, c, ids, depth + 1))
            elif code == UNION_ARRAY:
                found[i] = take(read_union(fd.element, c, ids, depth + 1))
            else:
                found[i] = read_any(c, ids, <Py_ssize_t>depth)
    except DecodeError as error:
        error.within(f"[{i}]")
        raise
    return give(found)


# --- writing ---------------------------------------------------------------------------------------------------------


cdef int write_full(FieldDesc fd, object leaf, Writer w, dict ids) except -1:
    """Write a full value of any type; `leaf` is what a Value holds for it."""
    # A program can put any into any without end.
    enter_level()
    try:
        if fd.code != STRUCTURE:
            return write_leaf(fd, leaf, w, ids)
        if not isinstance(leaf, Value) or not same_type(typed(<Value>leaf), fd):
            leaf = coercion.structure(fd, leaf)
        return write_leaves(<Value>leaf, 0, (<Value>leaf).plan.leaves, w, ids)
    finally:
        leave_level()


cdef int write_update(Value v, Writer w, dict ids) except -1:
    """Write the changed bits of v, then the data that they stand for."""
    cdef Plan* plan
    cdef BitSet bits
    cdef uint64_t* words
    cdef uint64_t word
    cdef uint32_t i
    cdef uint32_t stop = 0
    cdef size_t count, k
    typed(v)
    plan = v.plan
    if v.owner is None:
        words = v.words
        count = plan.words
    else:
        bits = changed_of(v)
        words = bits.words
        count = bits.count
    write_words(w, words, count)
    for k in range(count):
        word = words[k]
        while word:
            i = <uint32_t>(k * 64) + <uint32_t>ctz64(word)
            word &= word - 1
            if i >= stop:
                stop = plan.next[i]
                write_leaves(v, plan.first[i], plan.first[stop], w, ids)
    return 0


cdef int write_leaves(Value v, uint32_t slot, uint32_t stop, Writer w, dict ids) except -1:
    cdef Leaf* leaf
    cdef PyObject* held
    cdef double number
    cdef uint64_t bits
    while slot < stop:
        leaf = &v.plan.leaf[slot]
        held = v.slots[slot]
        if held == NULL and leaf.kind <= KIND_NUMBERS:
            write_zero(leaf.kind, w)
        elif leaf.kind == KIND_DOUBLE and PyFloat_CheckExact(<object>held):
            number = PyFloat_AS_DOUBLE(<object>held)
            memcpy(&bits, &number, 8)
            put64(w, bits)
        elif leaf.kind < KIND_STRING:
            write_number(leaf.kind, <object>held, w)
        else:
            try:
                if leaf.kind == KIND_STRING:
                    w.put_string(<object>held)
                else:
                    write_leaf(<FieldDesc>leaf.type, leaf_of(v, slot), w, ids)
            except EncodeError as error:
                name = name_of(v.fd, leaf.node)
                if name:
                    error.within(name)
                raise
        slot += 1
    return 0


cdef int write_zero(uint8_t kind, Writer w) except -1:
    """Of a number, a string, or an empty array."""
    cdef uint64_t nothing = 0
    return put_bytes(w, &nothing, SIZES[kind] if kind < KIND_STRING else 1)


cdef int write_number(uint8_t kind, object x, Writer w) except -1:
    """A number that a slot holds, which lies in the range of its type."""
    cdef uint64_t bits
    cdef uint32_t half
    cdef float single
    cdef double number
    if kind == KIND_BOOL:
        return put8(w, 1 if x else 0)
    if kind == KIND_FLOAT:
        single = <float>x
        memcpy(&half, &single, 4)
        return put32(w, half)
    if kind == KIND_DOUBLE:
        number = x
        memcpy(&bits, &number, 8)
        return put64(w, bits)
    if kind == KIND_UINT64:
        return put64(w, PyLong_AsUnsignedLongLong(x))
    bits = <uint64_t><long long>x
    if SIZES[kind] == 4:
        return put32(w, <uint32_t>bits)
    if SIZES[kind] == 8:
        return put64(w, bits)
    if SIZES[kind] == 2:
        return put16(w, <uint16_t>bits)
    return put8(w, <uint8_t>bits)


cdef int write_leaf(FieldDesc fd, object leaf, Writer w, dict ids) except -1:
    cdef int code = fd.code
    cdef uint8_t element
    if code == STRING or code == BOUNDED_STRING:
        return w.put_string(leaf)
    if IS_SCALAR[code]:
        return write_number(plan_of(fd).leaf[0].kind, leaf, w)
    if IS_FORM[code]:
        element = <uint8_t>(code & ~ARRAY_BITS)
        # Arrays and lists are kept as they were given: shape, dtype and length can have been set since.
        if code & ARRAY_BITS == BOUNDED or code & ARRAY_BITS == FIXED:
            leaf = coercion.leaf(fd, leaf)
        if element == STRING:
            if not isinstance(leaf, list):
                leaf = coercion.leaf(fd, leaf)
            if code & ARRAY_BITS != FIXED:
                put_count(w, <size_t>len(leaf))
            return write_strings(w, <list>leaf)
        if not is_numbers(leaf, element):
            leaf = coercion.leaf(fd, leaf)
        if code & ARRAY_BITS != FIXED:
            put_count(w, count_numbers(leaf))
        return write_numbers(w, leaf, element)
    if code == UNION:
        return write_union(fd, leaf, w, ids)
    if code == ANY:
        return write_any(leaf, w, ids)
    return write_elements(fd, leaf, w, ids)


cdef int put_count(Writer w, size_t n) except -1:
    if n >= 0xFFFFFFFF:
        raise RangeError(f"array of {n} elements: the protocol counts to {0xFFFFFFFE}")
    return put_size(w, n)


cdef int write_union(FieldDesc fd, object leaf, Writer w, dict ids) except -1:
    cdef FieldDesc type
    cdef Py_ssize_t selector
    cdef str name
    if leaf is None:
        return put8(w, 0xFF)
    if not isinstance(leaf, UnionValue):
        leaf = coercion.union(fd, leaf)
    name = (<UnionValue>leaf).name
    for selector in range(len(fd.member_names)):
        if <str>fd.member_names[selector] == name:
            break
    else:
        raise EncodeError(f"union has no member {name!r}")
    put_size(w, <size_t>selector)
    type = <FieldDesc>fd.member_types[selector]
    try:
        return write_full(type, coerced(type, (<UnionValue>leaf).value), w, ids)
    except EncodeError as error:
        error.within(name)
        raise


cdef int write_any(object leaf, Writer w, dict ids) except -1:
    """Write a type description and a full value of it."""
    if leaf is None:
        return put8(w, 0xFF)
    if not isinstance(leaf, AnyValue) or (<AnyValue>leaf).type is None:
        raise EncodeError(f"AnyValue or None expected, {leaf.__class__.__name__} found")
    write_desc((<AnyValue>leaf).type, w, ids)
    return write_full((<AnyValue>leaf).type, (<AnyValue>leaf).value, w, ids)


cdef int write_elements(FieldDesc fd, object leaf, Writer w, dict ids) except -1:
    cdef int code = fd.code
    cdef Py_ssize_t i = 0
    if not isinstance(leaf, list):
        leaf = coercion.leaf(fd, leaf)
    put_count(w, <size_t>len(leaf))
    try:
        for i in range(len(leaf)):
            item = leaf[i]
            if item is None:
                put8(w, 0)
                continue
            put8(w, 1)
            if code == STRUCTURE_ARRAY:
                write_full(fd.element, item, w, ids)
            elif code == UNION_ARRAY:
                write_union(fd.element, item, w, ids)
            else:
                write_any(item, w, ids)
    except EncodeError as error:
        error.within(f"[{i}]")
        raise
    return 0

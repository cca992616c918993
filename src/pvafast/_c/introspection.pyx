"""FieldDesc: a pvData type, its nodes numbered depth first; its wire form with ids; the introspection cache (WIRE 6.1, 6.2)."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from .bitset cimport BitSet
from .buffer cimport (
    Cursor,
    Reader,
    Writer,
    ctz64,
    get16,
    left,
    put8,
    put16,
    put_size,
    raise_at,
    raise_limit,
    raise_short,
    read_size,
    read_text,
)

from collections.abc import Mapping
from types import MappingProxyType

from .._types import DTYPES, SCALAR_FORMS, SCALARS, parse_short, short_name
from .._typetext import format_pvinfo, format_pvxs, format_short, parse
from ..errors import DecodeError, EncodeError
from ..limits import Limits

cdef extern from "Python.h":
    tuple PyTuple_New(Py_ssize_t)
    void PyTuple_SET_ITEM(object, Py_ssize_t, PyObject*) noexcept
    PyObject* PyTuple_GET_ITEM(tuple, Py_ssize_t) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject*) noexcept
    void Py_INCREF(PyObject*) noexcept
    void Py_DECREF(PyObject*) noexcept
    void PyObject_GC_UnTrack(object) noexcept

cdef enum:
    STRING = 0x60
    STRUCTURE = 0x80
    UNION = 0x81
    ANY = 0x82
    BOUNDED_STRING = 0x83
    STRUCTURE_ARRAY = 0x88
    UNION_ARRAY = 0x89
    ANY_ARRAY = 0x8A
    TAGGED_ID = 0xFC
    ID_DEFINITION = 0xFD
    ID_REFERENCE = 0xFE
    NULL_TYPE = 0xFF
    VARIABLE = 0x08
    BOUNDED = 0x10
    FIXED = 0x18
    ARRAY_BITS = 0x18

# A type built by the program may be deeper than Limits.depth, but recursion over it must not reach the stack's end.
cdef Py_ssize_t MAX_HEIGHT = 100
# FieldDesc.array() and shared members let a small program describe an endless type.
cdef Py_ssize_t MAX_COUNT = 1 << 20
# Memory that types take, charged against Limits.expansion: a node that is described, with its name; a type id;
# and the plan of a structure, by which its values are read, with each node of it (those that FE stands for, too).
cdef Py_ssize_t NODE_WEIGHT = 240
cdef Py_ssize_t ID_WEIGHT = 128
cdef Py_ssize_t PLAN_WEIGHT = 640
cdef Py_ssize_t PLANNED_WEIGHT = 36

# By code: 1 for a scalar or an array of scalars.
cdef uint8_t[256] IS_SCALAR_FORM
cdef uint8_t[256] ITEM_SIZE
# By code: the one FieldDesc of a type without bound; held by _kept.
cdef PyObject* SIMPLE[256]
_kept = []


@cython.final
@cython.no_gc
cdef class _Lookups:
    pass


@cython.final
@cython.no_gc  # types do not refer to values, and to no type around them
@cython.freelist(64)
cdef class FieldDesc:
    """A pvData type. Frozen, hashable, compared by structure; made by `of`, `structure`, `union`, `array` and `parse`.

    The nodes of a structure are numbered depth first, 0 being the root: these are the bits of an update's BitSet.
    Anything but a structure is one node.
    """

    def __cinit__(self):
        # A bool, so that nothing else can be made of one that is not filled.
        self.plan = NULL
        self.bits = 1
        self.count = 1
        self.hashed = -1
        self.id = ""
        self.member_names = ()
        self.member_types = ()

    def __init__(self):
        raise TypeError("use FieldDesc.of, .structure, .union or .parse")

    def __dealloc__(self):
        if self.plan != NULL:
            PyMem_Free(self.plan)

    @classmethod
    def of(cls, spec):
        """The type that a text ("double", "int32[]", "int8<16>", "string(8)", "any", ...) or a mapping of members means.

        Raises EncodeError (a ValueError) for a text that is no type.
        """
        return of(spec)

    @classmethod
    def structure(cls, id="", members=(), /, **fields):
        """A structure; members from a mapping or pairs of name and type (as `of` takes them), then keywords."""
        return built(STRUCTURE, id, members, fields)

    @classmethod
    def union(cls, id="", members=(), /, **fields):
        """A union; members as for `structure`."""
        return built(UNION, id, members, fields)

    @classmethod
    def parse(cls, text):
        """Read a type printed by pvxs, by pvinfo or by `format("short")`. Raises EncodeError with line and column."""
        return from_tree(parse(text))

    @classmethod
    def from_bytes(cls, data, byteorder="little"):
        """Decode one type description without ids that fills `data`; it may be as large as the program can make one."""
        cdef Reader r = Reader(data, 0, None, byteorder, limits=ANY_SIZE)
        made = read_desc(&r.c, _TypeIds.__new__(_TypeIds), 0)
        if made is None:
            raise DecodeError("null type where a type is needed", 0)
        if left(&r.c):
            raise DecodeError(f"{left(&r.c)} bytes after the type", r.pos)
        return made

    def to_bytes(self, byteorder="little"):
        """The wire form, without ids."""
        cdef Writer w = Writer(byteorder)
        write_desc(self, w, None)
        return w.joined()

    def array(self):
        """The variable-size array of this type. Raises EncodeError for an array or a bounded string."""
        if self.code == STRUCTURE or self.code == UNION:
            return array_of(self)
        if self.code == ANY:
            return simple(ANY_ARRAY, 0)
        if self.code in SCALARS:
            return simple(self.code | VARIABLE, 0)
        raise EncodeError(f"there are no arrays of {self.format('short')}")

    def format(self, style="pvxs"):
        """The type as text: "pvxs" (as pvxs prints it), "pvinfo" (as pvinfo does) or "short" (one line)."""
        if style == "pvxs":
            return format_pvxs(self)
        if style == "pvinfo":
            return format_pvinfo(self)
        if style == "short":
            return format_short(self)
        raise ValueError(f"style must be 'pvxs', 'pvinfo' or 'short', not {style!r}")

    def _expand_(self, BitSet bits not None):
        """The leaves that an update with these bits carries."""
        cdef Plan* plan = plan_of(self)
        cdef list found = []
        cdef uint64_t word
        cdef size_t i, slot
        cdef size_t stop = 0
        cdef size_t w
        for w in range(min(bits.count, plan.words)):
            word = bits.words[w]
            while word:
                i = w * 64 + <size_t>ctz64(word)
                word &= word - 1
                if i >= plan.nodes:
                    break
                if i >= stop:
                    stop = plan.next[i]
                    for slot in range(plan.first[i], plan.first[stop]):
                        found.append(plan.leaf[slot].node)
        return found

    @property
    def is_structure(self):
        """True for a structure (not for a structure array)."""
        return self.code == STRUCTURE

    @property
    def dtype(self):
        """The numpy dtype of a numeric scalar or of the elements of a numeric array, otherwise None."""
        return DTYPES.get(self.code & ~ARRAY_BITS) if IS_SCALAR_FORM[self.code] else None

    @property
    def members(self):
        """Name to type: of a structure or union, or of the elements of their arrays; empty for others."""
        source = self if self.element is None else self.element
        found = lookups_of(source)
        if found.mapping is None:
            found.mapping = MappingProxyType(dict(zip(source.member_names, source.member_types)))
        return found.mapping

    @property
    def names(self):
        """The dotted names of all nodes, depth first; names[0] is "", the root."""
        return names_of(self)

    def index(self, name, /):
        """The number of the node with a dotted name, or with a path of exact names. Raises KeyError."""
        return index_of(self, name)

    def node(self, i, /):
        """The type of node i."""
        return <FieldDesc>plan_of(self).types[numbered(self, i)]

    def end(self, i, /):
        """The number after the subtree of node i."""
        return plan_of(self).next[numbered(self, i)]

    def is_leaf(self, i, /):
        """True if node i is not a structure."""
        return (<FieldDesc>plan_of(self).types[numbered(self, i)]).code != STRUCTURE

    def __getitem__(self, name, /):
        return <FieldDesc>plan_of(self).types[index_of(self, name)]

    def __contains__(self, name, /):
        try:
            index_of(self, name)
        except (KeyError, TypeError):
            return False
        return True

    def __len__(self):
        return self.bits

    def __bool__(self):
        return True

    def __iter__(self):
        return iter(names_of(self))

    def __eq__(self, other, /):
        if not isinstance(other, FieldDesc):
            return NotImplemented
        return same_type(self, <FieldDesc>other)

    def __hash__(self):
        if self.hashed == -1:
            self.hashed = hash(
                (self.code, self.bound, self.id, self.member_names, self.member_types, self.element)
            )
        return self.hashed

    def __setattr__(self, name, value, /):
        raise AttributeError(f"FieldDesc is frozen: {name}")

    def __delattr__(self, name, /):
        raise AttributeError(f"FieldDesc is frozen: {name}")

    def __str__(self):
        return format_pvxs(self)

    def __repr__(self):
        return f"FieldDesc.parse({format_short(self)!r})"

    def __reduce__(self):
        return FieldDesc.from_bytes, (self.to_bytes(),)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo, /):
        return self


cdef size_t numbered(FieldDesc type, object i) except? 0:
    if not 0 <= i < type.bits:
        raise IndexError(f"no node {i}: there are {type.bits}")
    return i


cdef bint same_type(FieldDesc a, FieldDesc b) except -1:
    if a is b:
        return True
    if a.code != b.code or a.bound != b.bound or a.count != b.count or a.text != b.text:
        return False
    return (
        hash(a) == hash(b)
        and a.id == b.id
        and a.member_names == b.member_names
        and a.member_types == b.member_types
        and a.element == b.element
    )


# --- the plan --------------------------------------------------------------------------------------------------------


cdef uint8_t kind_of(int code) noexcept:
    if code == 0x00:
        return KIND_BOOL
    if 0x20 <= code <= 0x23:
        return <uint8_t>(KIND_INT8 + code - 0x20)
    if 0x24 <= code <= 0x27:
        return <uint8_t>(KIND_UINT8 + code - 0x24)
    if code == 0x42:
        return KIND_FLOAT
    if code == 0x43:
        return KIND_DOUBLE
    if code == STRING:
        return KIND_STRING
    if IS_SCALAR_FORM[code] and code & ARRAY_BITS == VARIABLE and code & ~ARRAY_BITS != STRING:
        return KIND_NUMBERS
    return KIND_OTHER


cdef size_t count_leaves(FieldDesc type) noexcept:
    cdef size_t n = 0
    cdef Py_ssize_t i
    if type.code != STRUCTURE:
        return 1
    for i in range(len(type.member_types)):
        n += count_leaves(<FieldDesc>type.member_types[i])
    return n


cdef void lay_out(FieldDesc type, Plan* plan, uint16_t depth) noexcept:
    cdef uint32_t i = plan.nodes
    cdef Leaf* leaf
    cdef Py_ssize_t m
    plan.nodes += 1
    plan.types[i] = <PyObject*>type
    plan.first[i] = plan.leaves
    if type.code == STRUCTURE:
        for m in range(len(type.member_types)):
            lay_out(<FieldDesc>type.member_types[m], plan, depth + 1)
    else:
        leaf = &plan.leaf[plan.leaves]
        plan.leaves += 1
        leaf.kind = kind_of(type.code)
        leaf.code = <uint8_t>type.code
        leaf.depth = depth
        leaf.node = i
        leaf.type = <PyObject*>type
    plan.next[i] = plan.nodes


cdef Plan* make_plan(FieldDesc type) except NULL:
    """Lay a type out; once, also where several threads ask at the same time."""
    cdef size_t nodes = <size_t>type.bits
    cdef size_t leaves = count_leaves(type)
    # In the order of falling alignment.
    cdef size_t size = (
        sizeof(Plan) + nodes * sizeof(PyObject*) + leaves * sizeof(Leaf) + (2 * nodes + 1) * sizeof(uint32_t)
    )
    cdef Plan* plan
    with cython.critical_section(type):
        if type.plan == NULL:
            plan = <Plan*>PyMem_Malloc(size)
            if plan == NULL:
                raise MemoryError()
            plan.types = <PyObject**>(plan + 1)
            plan.leaf = <Leaf*>(plan.types + nodes)
            plan.next = <uint32_t*>(plan.leaf + leaves)
            plan.first = plan.next + nodes
            plan.nodes = 0
            plan.leaves = 0
            plan.words = (nodes + 63) // 64
            lay_out(type, plan, 0)
            plan.first[plan.nodes] = plan.leaves
            store_plan(&type.plan, plan)
    return type.plan


cdef _Lookups lookups_of(FieldDesc type):
    if type.lookups is None:
        with cython.critical_section(type):
            if type.lookups is None:
                type.lookups = _Lookups.__new__(_Lookups)
    return type.lookups


cdef tuple names_of(FieldDesc type):
    """The dotted names of all nodes."""
    cdef Plan* plan = plan_of(type)
    cdef uint32_t i, child
    cdef list found
    cdef FieldDesc node
    cdef _Lookups lookups = lookups_of(type)
    if lookups.names is None:
        found = [""] * plan.nodes
        for i in range(plan.nodes):
            node = <FieldDesc>plan.types[i]
            if node.code == STRUCTURE:
                child = i + 1
                for name in node.member_names:
                    found[child] = f"{found[i]}.{name}" if i else name
                    child = plan.next[child]
        lookups.names = tuple(found)
    return lookups.names


cdef object name_of(FieldDesc type, uint32_t node):
    """The dotted name of one node."""
    cdef Plan* plan = plan_of(type)
    cdef uint32_t at = 0
    cdef uint32_t child
    parts = []
    while at != node:
        child = at + 1
        for name in (<FieldDesc>plan.types[at]).member_names:
            if node < plan.next[child]:
                parts.append(name)
                break
            child = plan.next[child]
        at = child
    return ".".join(parts)


cdef dict by_name(FieldDesc type):
    """Dotted name to number. A name with a dot in it is found so only where no path means the same."""
    cdef Plan* plan
    cdef uint32_t i, child
    cdef FieldDesc node
    cdef _Lookups lookups = lookups_of(type)
    if lookups.by_name is not None:
        return lookups.by_name
    plan = plan_of(type)
    names = names_of(type)
    found = {"": 0}
    odd = bytearray(len(names))
    for i in range(plan.nodes):
        node = <FieldDesc>plan.types[i]
        if node.code == STRUCTURE:
            child = i + 1
            for name in node.member_names:
                odd[child] = odd[i] or not name or "." in name
                if not odd[child]:
                    found[names[child]] = child
                child = plan.next[child]
    for i in range(plan.nodes):
        if odd[i]:
            found.setdefault(names[i], i)
    lookups.by_name = found
    return found


cdef dict by_member(FieldDesc type):
    """Exact name to number, of the members of the root."""
    cdef Plan* plan
    cdef uint32_t child = 1
    cdef _Lookups lookups = lookups_of(type)
    if lookups.by_member is not None:
        return lookups.by_member
    plan = plan_of(type)
    found = {}
    if type.code == STRUCTURE:
        for name in type.member_names:
            found[name] = child
            child = plan.next[child]
    lookups.by_member = found
    return found


cdef Py_ssize_t index_of(FieldDesc type, object name) except -1:
    cdef FieldDesc at = type
    cdef Py_ssize_t i = 0
    if isinstance(name, str):
        return by_name(type)[name]
    for part in name:
        step = by_member(at).get(part)
        if step is None:
            raise KeyError(name)
        i += <Py_ssize_t>step
        at = <FieldDesc>plan_of(at).types[<size_t>step]
    return i


# --- made by the program ---------------------------------------------------------------------------------------------


cdef FieldDesc make(int code, Py_ssize_t bound, object id, tuple names, tuple types, FieldDesc element):
    """A FieldDesc of parts that have been checked.

    count: its nodes, with those of unions and of structure and union arrays (the elements of scalar arrays are none).
    bits: the nodes that an update numbers. text: how many characters their dotted names take. height: its nesting.
    """
    cdef FieldDesc made = FieldDesc.__new__(FieldDesc)
    cdef PyObject* member  # borrowed, as counting references would take longer than all else here
    cdef Py_ssize_t i
    made.code = code
    made.bound = bound
    made.id = id
    made.member_names = names
    made.member_types = types
    made.element = element
    for i in range(len(types)):
        member = PyTuple_GET_ITEM(types, i)
        made.count += (<FieldDesc>member).count
        if (<FieldDesc>member).height >= made.height:
            made.height = (<FieldDesc>member).height + 1
        if code == STRUCTURE:
            made.bits += (<FieldDesc>member).bits
            made.text += (<FieldDesc>member).text
            made.text += (<FieldDesc>member).bits * (PyUnicode_GET_LENGTH(PyTuple_GET_ITEM(names, i)) + 1)
    if element is not None and (code == STRUCTURE_ARRAY or code == UNION_ARRAY):
        made.count += element.count
        made.height = 1 + element.height
    return made


cdef object prepare():
    """The FieldDesc of each scalar, scalar array and any type."""
    cdef int code
    for code in SCALAR_FORMS:
        IS_SCALAR_FORM[code] = 1
    for code in [*sorted(SCALARS), ANY]:
        ITEM_SIZE[code] = 1 if code == ANY else SCALARS[code][4] or 1
        one = make(code, 0, "", (), (), None)
        many = make(code | VARIABLE, 0, "", (), (), one)
        _kept.append((one, many))
        SIMPLE[code] = <PyObject*>one
        SIMPLE[code | VARIABLE] = <PyObject*>many


prepare()

# What a type made by the program may be; its description is still held to the memory that its bytes allow.
cdef object ANY_SIZE = Limits(depth=MAX_HEIGHT, type_nodes=MAX_COUNT)


cdef FieldDesc simple(int code, object bound):
    """The type of a scalar, scalar array, bounded string or any code."""
    if not bound and SIMPLE[code] != NULL:
        return <FieldDesc>SIMPLE[code]
    if not 0 <= bound < 1 << 32:
        raise EncodeError(f"a bound lies in 0 to {(1 << 32) - 1}, not {bound}")
    element = None if code == BOUNDED_STRING else <FieldDesc>SIMPLE[code & ~ARRAY_BITS]
    return make(code, bound, "", (), (), element)


cdef FieldDesc array_of(FieldDesc element):
    """The structure or union array with these elements."""
    checked(element.count + 1, element.height + 1)
    return make(STRUCTURE_ARRAY if element.code == STRUCTURE else UNION_ARRAY, 0, element.id, (), (), element)


cdef int checked(object count, object height) except -1:
    """Refuse types whose layout would not end."""
    if count > MAX_COUNT:
        raise EncodeError(f"a type of {count} nodes; the most is {MAX_COUNT}")
    if height > MAX_HEIGHT:
        raise EncodeError(f"a type nested {height} deep; the most is {MAX_HEIGHT}")
    return 0


cdef FieldDesc composite(int code, object id, tuple names, tuple types):
    """A structure or union of checked parts."""
    if not isinstance(id, str):
        raise EncodeError(f"a type id is a str, not {id!r}")
    seen = set()
    for name in names:
        if not isinstance(name, str):
            raise EncodeError(f"a member name is a str, not {name!r}")
        if name in seen:
            raise EncodeError(f"duplicate member name {name!r}")
        seen.add(name)
    count, height = 1, 0
    for type in types:
        count += (<FieldDesc>type).count
        height = max(height, (<FieldDesc>type).height)
    checked(count, 1 + height)
    # Names are kept as plain str: a subclass could change under us.
    return make(code, 0, str.__str__(id), tuple([str.__str__(name) for name in names]), types, None)


cdef FieldDesc built(int code, object id, object members, object fields):
    """A structure or union from what `FieldDesc.structure` takes."""
    pairs = list(members.items() if isinstance(members, Mapping) else members) + list(fields.items())
    return composite(code, id, tuple([name for name, _ in pairs]), tuple([of(spec) for _, spec in pairs]))


cdef FieldDesc of(object spec):
    if isinstance(spec, FieldDesc):
        return <FieldDesc>spec
    if isinstance(spec, str):
        short = parse_short(spec)
        return simple(short[0], short[1]) if short is not None else from_tree(parse(spec))
    if isinstance(spec, Mapping):
        return built(STRUCTURE, "", spec, {})
    raise EncodeError(f"a type is a text, a FieldDesc or a mapping, not {spec!r}")


cdef FieldDesc from_tree(object tree):
    """The type that the tree of a parsed text describes: (code, bound, id, ((name, tree), ...))."""
    code, bound, id, members = tree
    if code not in (STRUCTURE, UNION, STRUCTURE_ARRAY, UNION_ARRAY):
        return simple(code, bound)
    one = UNION if code in (UNION, UNION_ARRAY) else STRUCTURE
    made = composite(
        one, id, tuple([name for name, _ in members]), tuple([from_tree(sub) for _, sub in members])
    )
    return made if code == one else array_of(made)


# --- the wire form ---------------------------------------------------------------------------------------------------


cdef enum:
    # Known descriptions are found by their first bytes. Shorter ones are parsed: that takes no longer.
    HEAD = 24
    # Types that begin alike (NTScalar of each type, with and without display...) share a set of places.
    SETS = 32
    PLACES = 16
    # Descriptions from this size on are parsed: a peer that sends ever new ones must not fill the memory.
    LONG = 65_536
    # A node and 16 bytes of a description count one each.
    MAX_SIZE = 262_144
    # Structures and unions of one description that are remembered on their own.
    PARTS = 24

# A structure or union that was read: itself, or inside of another one.
cdef struct Part:
    uint64_t head
    const uint8_t* start
    size_t size  # of its bytes
    Py_ssize_t weight  # what it was charged, but for a plan of its own
    size_t longest  # the most characters of dotted names of a structure in it
    PyObject* type  # borrowed: the type being read holds it

# One that came before.
cdef struct Place:
    const uint8_t* start  # valid while `owner` is held
    PyObject* owner  # bytes of the whole description; a reference
    PyObject* type  # a reference
    size_t size
    Py_ssize_t weight
    size_t longest
    Py_ssize_t load

cdef struct Set:
    uint64_t[PLACES] heads  # 0: nothing in this place
    Place[PLACES] places
    uint32_t next  # the place that is overwritten next


# What a description is found by: its first bytes, mixed. HEAD bytes must be there.
cdef inline uint64_t head_of(const uint8_t* p) noexcept nogil:
    cdef uint64_t[3] x
    cdef uint64_t mixed
    memcpy(x, p, HEAD)
    mixed = x[0] * 0x9E3779B97F4A7C15ULL
    mixed = (mixed ^ (mixed >> 29) ^ x[1]) * 0xBF58476D1CE4E5B9ULL
    mixed = (mixed ^ (mixed >> 32) ^ x[2]) * 0x94D049BB133111EBULL
    return mixed ^ (mixed >> 31) | 1


@cython.final
@cython.no_gc
cdef class _Cache:
    """Structures and unions free of ids that came before, by their bytes: the same bytes give the identical FieldDesc.

    A description ends where its own bytes say, so one that starts with all the bytes of a known one is that one.
    Whether a description is known never shows but in speed: what any limit could refuse is parsed (again).
    """

    cdef Set* sets  # made when first used
    cdef Py_ssize_t size

    def __cinit__(self):
        self.sets = NULL

    def __dealloc__(self):
        self.clear()
        PyMem_Free(self.sets)

    cdef void clear(self) noexcept:
        cdef size_t i, k
        if self.sets != NULL:
            for i in range(SETS):
                for k in range(PLACES):
                    self.drop(&self.sets[i], k)

    cdef void drop(self, Set* set, size_t k) noexcept:
        """Forget what is in a place."""
        cdef Place* place = &set.places[k]
        if set.heads[k]:
            set.heads[k] = 0
            self.size -= place.load
            Py_DECREF(place.owner)
            Py_DECREF(place.type)

    cdef FieldDesc find(self, Cursor* c, Parse* state, uint64_t head, size_t depth, bint planned):
        """The known type whose description comes next, which is then read and charged."""
        cdef Set* set
        cdef Place* place
        cdef size_t k
        cdef FieldDesc type = None
        if self.sets == NULL:
            return None
        with cython.critical_section(self):
            set = &self.sets[head >> 59]
            for k in range(PLACES):
                if set.heads[k] == head:
                    place = &set.places[k]
                    if place.size <= left(c) and memcmp(c.pos, place.start, place.size) == 0:
                        if grant(c, state, <FieldDesc>place.type, place.weight, place.longest, depth, planned):
                            c.pos += place.size
                            type = <FieldDesc>place.type
                        break
        return type

    cdef int keep(self, const Part* parts, size_t count, const uint8_t* start, size_t n) except -1:
        """Remember the parts of a description of n bytes."""
        cdef Set* set
        cdef Place* place
        cdef const Part* part
        cdef size_t i, k
        cdef bytes owner = PyBytes_FromStringAndSize(<const char*>start, <Py_ssize_t>n)
        with cython.critical_section(self):
            if self.sets == NULL:
                self.sets = <Set*>PyMem_Calloc(SETS, sizeof(Set))
                if self.sets == NULL:
                    raise MemoryError()
            for i in range(count):
                part = &parts[i]
                set = &self.sets[part.head >> 59]
                k = set.next
                set.next = (set.next + 1) % PLACES
                self.drop(set, k)
                place = &set.places[k]
                place.owner = <PyObject*>owner
                place.type = part.type
                Py_INCREF(place.owner)
                Py_INCREF(place.type)
                place.start = <const uint8_t*>PyBytes_AS_STRING(owner) + (part.start - start)
                place.size = part.size
                place.weight = part.weight
                place.longest = part.longest
                # A part keeps the bytes of the whole.
                place.load = (<FieldDesc>part.type).count + <Py_ssize_t>(n >> 4)
                self.size += place.load
                set.heads[k] = part.head
            if self.size > MAX_SIZE:
                self.clear()
        return 0


cdef _Cache LITTLE = _Cache.__new__(_Cache)
cdef _Cache BIG = _Cache.__new__(_Cache)


@cython.final
@cython.no_gc
cdef class _TypeIds:
    """The types that one direction of a connection has numbered; the last definition of an id wins.

    broken: an error inside a type description may have hidden definitions.
    """

    def __cinit__(self):
        self.known = {}

    cdef int define(self, object number, FieldDesc type, Cursor* c, const uint8_t* pos) except -1:
        """Keep a type under its id."""
        cdef Py_ssize_t nodes = self.nodes + type.count
        old = self.known.get(number)
        if old is not None:
            nodes -= (<FieldDesc>old).count
        if <size_t>nodes > c.caps.registry_nodes:
            raise_limit(c, pos, f"type ids that hold {nodes} nodes", "registry_nodes")
        self.known[number] = type
        self.nodes = nodes
        return 0


cdef int raise_too_deep(Cursor* c, const uint8_t* pos) except -1:
    return raise_limit(c, pos, f"nesting deeper than {c.caps.depth}", "depth")


cdef int raise_too_heavy(Cursor* c, const uint8_t* pos) except -1:
    return raise_limit(c, pos, "objects that weigh too much for the bytes of the message", "expansion")


# The state of reading one description: its nodes counted expanded. plain: in the structure or union that is being read
# there were neither ids nor anything that limits other than those of depth, nodes, names and weight could refuse.
cdef struct Parse:
    size_t count
    bint plain
    size_t longest  # the most characters of dotted names so far
    size_t parts
    Part[PARTS] part  # that were read and could be remembered


cdef FieldDesc read_desc(Cursor* c, _TypeIds ids, size_t depth):
    """Read a type description; definitions in it are added to `ids`. None for the null type."""
    cdef const uint8_t* start = c.pos
    cdef Parse state
    cdef FieldDesc made
    state.count = 0
    state.plain = True
    state.longest = 0
    state.parts = 0
    try:
        made = read_node(c, ids, &state, depth, True, True)
    except DecodeError:
        ids.broken = True
        raise
    if state.parts and c.pos - start < LONG:
        (BIG if c.big else LITTLE).keep(state.part, state.parts, start, <size_t>(c.pos - start))
    return made


cdef bint grant(
    Cursor* c, Parse* state, FieldDesc type, Py_ssize_t weight, size_t longest, size_t depth, bint planned
) noexcept:
    """Charge for a known type as reading it would; False, and nothing charged, where a limit could refuse a part of it."""
    if planned and type.code == STRUCTURE:
        weight += PLAN_WEIGHT + PLANNED_WEIGHT * type.bits
    if (
        <size_t>type.height + depth > c.caps.depth
        or state.count + <size_t>type.count > c.caps.type_nodes
        or longest > c.caps.string
        or weight > c.weight
    ):
        return False
    state.longest = max(state.longest, longest)
    state.count += <size_t>type.count
    c.weight -= weight
    return True


cdef FieldDesc read_composite(Cursor* c, _TypeIds ids, Parse* state, size_t depth, bint planned):
    """A structure or union: known ones by a look-up, also where an id is given to them."""
    cdef const uint8_t* pos = c.pos
    cdef Py_ssize_t weight = c.weight
    cdef uint64_t head = 0
    cdef size_t longest = state.longest
    cdef bint plain = state.plain
    cdef FieldDesc made
    cdef Part* part
    cdef size_t i
    if c.caps.string >= 0xFE and left(c) >= HEAD:
        head = head_of(pos)
        made = (BIG if c.big else LITTLE).find(c, state, head, depth, planned)
        if made is not None:
            return made
        for i in range(state.parts):
            part = &state.part[i]
            if part.head == head and part.size <= left(c) and memcmp(pos, part.start, part.size) == 0:
                if not grant(c, state, <FieldDesc>part.type, part.weight, part.longest, depth, planned):
                    break
                c.pos += part.size
                return <FieldDesc>part.type
    charge(c, state, 1, NODE_WEIGHT, pos)
    c.pos += 1
    state.longest = 0
    state.plain = True
    made = read_members(c, ids, state, pos[0], depth)
    state.longest = max(state.longest, <size_t>made.text)
    if head and state.plain and c.pos - pos >= HEAD:
        # Where there are too many, the one around the others replaces the last of them.
        part = &state.part[min(state.parts, <size_t>(PARTS - 1))]
        state.parts = min(state.parts + 1, <size_t>PARTS)
        part.head = head
        part.start = pos
        part.size = <size_t>(c.pos - pos)
        part.weight = weight - c.weight
        part.longest = state.longest
        part.type = <PyObject*>made
    state.longest = max(state.longest, longest)
    state.plain = state.plain and plain
    if planned and made.code == STRUCTURE:
        charge(c, state, 0, PLAN_WEIGHT + PLANNED_WEIGHT * made.bits, pos)
    return made


cdef inline int charge(Cursor* c, Parse* state, size_t nodes, Py_ssize_t weight, const uint8_t* pos) except -1:
    """Count nodes against Limits.type_nodes, and weight against Limits.expansion."""
    state.count += nodes
    if state.count > c.caps.type_nodes:
        raise_limit(c, pos, f"type of more than {c.caps.type_nodes} nodes", "type_nodes")
    c.weight -= weight
    if c.weight < 0:
        raise_too_heavy(c, pos)
    return 0


cdef FieldDesc read_node(
    Cursor* c, _TypeIds ids, Parse* state, size_t depth, bint planned, bint null_allowed
):
    """One type; None for the null type, where it is allowed. planned: a structure here has a plan of its own."""
    cdef const uint8_t* pos = c.pos
    cdef const uint8_t* at
    cdef const uint8_t* last
    cdef uint8_t code
    cdef FieldDesc made
    cdef int number, wanted
    if depth > c.caps.depth:
        raise_too_deep(c, pos)
    if pos >= c.end:
        raise_short(c, "type code", 1)
    code = pos[0]
    c.pos += 1
    if SIMPLE[code] != NULL:
        charge(c, state, 1, 0 if null_allowed else NODE_WEIGHT, pos)  # as a member it has a name
        return <FieldDesc>SIMPLE[code]
    if code == STRUCTURE or code == UNION:
        c.pos = pos
        return read_composite(c, ids, state, depth, planned)
    if IS_SCALAR_FORM[code] or code == BOUNDED_STRING:
        charge(c, state, 1, NODE_WEIGHT, pos)
        return read_bounded(c, state, code, pos)
    if code == STRUCTURE_ARRAY or code == UNION_ARRAY:
        charge(c, state, 1, NODE_WEIGHT, pos)
        at = c.pos
        made = read_node(c, ids, state, depth + 1, True, False)
        wanted = STRUCTURE if code == STRUCTURE_ARRAY else UNION
        if made.code != wanted:
            name = "structure" if wanted == STRUCTURE else "union"
            raise_at(c, at, f"{name} array of something else (code 0x{made.code:02x})")
        return make(code, 0, made.id, (), (), made)
    if code == ID_REFERENCE:
        state.plain = False
        number = read_id(c)
        known = ids.known.get(number)
        if known is None:
            raise_at(c, pos, f"unknown type id {number}")
        made = <FieldDesc>known
        charge(c, state, <size_t>made.count, 0, pos)
        if <size_t>made.height + depth > c.caps.depth:
            raise_too_deep(c, pos)
        return made
    if code == ID_DEFINITION:
        state.plain = False
        charge(c, state, 0, ID_WEIGHT, pos)
        number = read_id(c)
        at = c.pos
        while c.pos < c.end and c.pos[0] == ID_DEFINITION:
            charge(c, state, 0, ID_WEIGHT, c.pos)
            c.pos += 1
            read_id(c)
        last = c.pos
        made = read_node(c, ids, state, depth, True, False)
        state.plain = False
        while last > at:  # the innermost first
            last -= 3
            ids.define(get16(last + 1, c.swap), made, c, pos)
        ids.define(number, made, c, pos)
        return made
    c.pos = pos
    if code == NULL_TYPE:
        if null_allowed:
            c.pos = pos + 1
            return None
        raise_at(c, pos, "null type where a type is needed")
    if code == TAGGED_ID:
        raise_at(c, pos, "tagged type id (code 0xfc)")
    raise_at(c, pos, f"unknown type code 0x{code:02x}")


cdef int read_id(Cursor* c) except -1:
    """The id of a definition or reference."""
    if left(c) < 2:
        raise_short(c, "type id", 2)
    c.pos += 2
    return get16(c.pos - 2, c.swap)


cdef FieldDesc read_bounded(Cursor* c, Parse* state, uint8_t code, const uint8_t* pos):
    """A bounded or fixed array, or a bounded string: its Size follows."""
    cdef size_t bound, limit, item
    state.plain = False
    bound = <size_t>read_size(c)
    item = 1 if code == BOUNDED_STRING else ITEM_SIZE[code & ~ARRAY_BITS]
    limit, limit_name = c.caps.message, "message"
    if code != BOUNDED_STRING and code & ~ARRAY_BITS == STRING:
        limit, limit_name = c.caps.elements, "elements"
    if bound * item > limit:  # below 2**35
        raise_limit(c, pos, f"{short_name(code, bound)} in a type", limit_name)
    return simple(code, bound)


cdef str read_label(Cursor* c, Parse* state):
    """An id or a name."""
    if c.pos < c.end and c.pos[0] >= 0xFE:
        state.plain = False
    return <str>take(read_text(c))


cdef extern from *:
    """
    static CYTHON_INLINE PyObject* pva_take(PyObject* o) { return o; }
    static CYTHON_INLINE PyObject* pva_give(PyObject* o) { Py_INCREF(o); return o; }
    """
    object take "pva_take"(PyObject*)  # a new reference becomes an object
    PyObject* give "pva_give"(object) noexcept  # an object becomes a new reference


# Members up to which names are compared with each other one by one.
cdef enum:
    FEW = 32


cdef FieldDesc read_members(Cursor* c, _TypeIds ids, Parse* state, int code, size_t depth):
    """The rest of a structure or union: its id and its members."""
    cdef const uint8_t* start = c.pos - 1
    cdef const uint8_t* pos
    cdef const uint8_t* ends[FEW]  # of the names: their last bytes
    cdef size_t sizes[FEW]
    cdef size_t n, i, k, size, alike
    cdef uint64_t met = 0  # a bit each for what sizes and bytes there were
    cdef uint64_t bit
    cdef FieldDesc made
    cdef PyObject* name
    cdef PyObject* member
    cdef tuple names
    cdef tuple types
    cdef set seen = None
    id = read_label(c, state)
    pos = c.pos
    n = <size_t>read_size(c)
    # A member takes at least two bytes: an empty name and a code.
    if n * 2 > left(c):
        raise_at(c, pos, f"{n} members need {2 * n} bytes, {left(c)} left")
    if state.count + n > c.caps.type_nodes:
        raise_limit(c, pos, f"type of more than {c.caps.type_nodes} nodes", "type_nodes")
    names = PyTuple_New(<Py_ssize_t>n)
    types = PyTuple_New(<Py_ssize_t>n)
    if n > FEW:
        seen = set()
    for i in range(n):
        pos = c.pos
        if pos < c.end and pos[0] >= 0xFE:
            state.plain = False
        name = read_text(c)
        PyTuple_SET_ITEM(names, <Py_ssize_t>i, name)  # takes the reference
        if seen is not None:
            k = <size_t>len(seen)
            seen.add(<object>name)
            if <size_t>len(seen) == k:
                raise_at(c, pos, f"duplicate member name {<object>name!r}")
        else:
            size = <size_t>(c.pos - pos)
            size -= 5 if pos[0] == 0xFE else 1
            # An empty name has three forms on the wire, and no last byte.
            alike = size * 29 + (c.pos - 1)[0] * 7 + (c.pos - 1 - size // 2)[0] if size else 0
            bit = <uint64_t>1 << (alike & 63)
            if met & bit:
                for k in range(i):
                    if sizes[k] == size and memcmp(ends[k] - size, c.pos - size, size) == 0:
                        raise_at(c, pos, f"duplicate member name {<object>name!r}")
            met |= bit
            sizes[i] = size
            ends[i] = c.pos
        if (
            c.pos < c.end
            and SIMPLE[c.pos[0]] != NULL
            and depth < c.caps.depth
            and state.count < c.caps.type_nodes
            and c.weight >= NODE_WEIGHT
        ):
            # What most members are, where no limit is in reach.
            state.count += 1
            c.weight -= NODE_WEIGHT
            member = SIMPLE[c.pos[0]]
            Py_INCREF(member)
            c.pos += 1
        else:
            member = read_member(c, ids, state, depth + 1, code == UNION, name)
        PyTuple_SET_ITEM(types, <Py_ssize_t>i, member)
    if n:
        # They refer to nothing that the garbage collector knows.
        PyObject_GC_UnTrack(names)
        PyObject_GC_UnTrack(types)
    made = make(code, 0, id, names, types, None)
    # A long name costs its bytes once on the wire, and here once in the dotted name of each node below it.
    if <size_t>made.text > c.caps.string:
        raise_limit(c, start, f"dotted names of {made.text} characters", "string")
    return made


cdef PyObject* read_member(
    Cursor* c, _TypeIds ids, Parse* state, size_t depth, bint planned, PyObject* name
) except NULL:
    try:
        return give(read_node(c, ids, state, depth, planned, False))
    except DecodeError as error:
        error.within(<object>name)
        raise


cdef int write_desc(FieldDesc type, Writer w, dict ids) except -1:
    """Write a type description; with `ids`, number the types as pvAccessCPP does."""
    cdef int code = type.code
    cdef Py_ssize_t i
    if ids is not None and not IS_SCALAR_FORM[code] and code != BOUNDED_STRING:
        number = ids.get(type)
        if number is not None:
            put8(w, ID_REFERENCE)
            return put16(w, number)
        if len(ids) < 0xFFFF:
            number = len(ids) + 1
            ids[type] = number
            put8(w, ID_DEFINITION)
            put16(w, number)
    put8(w, <uint8_t>code)
    if code == STRUCTURE or code == UNION:
        w.put_string(type.id)
        put_size(w, <size_t>len(type.member_names))
        for i in range(len(type.member_names)):
            w.put_string(type.member_names[i])
            write_desc(<FieldDesc>type.member_types[i], w, ids)
    elif code == STRUCTURE_ARRAY or code == UNION_ARRAY:
        write_desc(type.element, w, ids)
    elif code == BOUNDED_STRING or (IS_SCALAR_FORM[code] and code & ARRAY_BITS in (BOUNDED, FIXED)):
        put_size(w, <size_t>type.bound)
    return 0


(<PyTypeObject*>FieldDesc).tp_name = "pvafast.FieldDesc"

alarm_t = FieldDesc.structure("alarm_t", severity="int32", status="int32", message="string")
time_t = FieldDesc.structure("time_t", secondsPastEpoch="int64", nanoseconds="int32", userTag="int32")
enum_t = FieldDesc.structure("enum_t", index="int32", choices="string[]")

"""Projection: some fields of a type are decoded, the rest is skipped without making objects of it."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from .array cimport size_of, zero_numbers
from .bitset cimport read_words
from .buffer cimport Cursor, ctz64, get16, get32, get64, left, raise_short, read_size_or_null, read_text, skip_items
from .introspection cimport (
    KIND_BOOL,
    KIND_NUMBERS,
    KIND_OTHER,
    KIND_STRING,
    SIZES,
    FieldDesc,
    Leaf,
    Plan,
    _TypeIds,
    index_of,
    plan_of,
    raise_too_deep,
    read_desc,
)
from .value cimport (
    ARRAY_WEIGHT,
    BOX_WEIGHT,
    LEAF_WEIGHT,
    PLACE_WEIGHT,
    VALUE_WEIGHT,
    Value,
    blame_leaf,
    charge,
    checked,
    count_elements,
    number_of,
    read_leaf,
    zero,
)

from .._elements import ElementColumns
from ..errors import DecodeError

cdef extern from "Python.h":
    void Py_XINCREF(PyObject*) noexcept
    void Py_XDECREF(PyObject*) noexcept

cdef extern from *:
    """
    static CYTHON_INLINE PyObject* pva_take(PyObject* o) { return o; }
    static CYTHON_INLINE PyObject* pva_give(PyObject* o) { Py_INCREF(o); return o; }
    """
    object take "pva_take"(PyObject*)  # a new reference becomes an object
    PyObject* give "pva_give"(object) noexcept  # an object becomes a new reference

cdef enum:
    STRING = 0x60
    STRUCTURE = 0x80
    UNION = 0x81
    ANY = 0x82
    STRUCTURE_ARRAY = 0x88
    UNION_ARRAY = 0x89
    ANY_ARRAY = 0x8A
    STRING_ARRAY = 0x68

# What is done with a leaf.
cdef enum:
    SKIP = 0
    READ = 1
    COLUMNS = 2  # a structure array of which members are named

# Work above this size lets other threads run.
cdef size_t LONG_WORK = 65_536


@cython.final
cdef class Projection:
    """Some fields of a type: given to a Codec in place of the type, they are decoded and the rest is skipped. Frozen.

    type: as `FieldDesc.of` takes it. fields: dotted names, or tuples of exact names; afterwards those of the leaves. A
    structure stands for all in it; unions, anys and arrays are taken whole. A path may lead through one structure array
    ("dimension.size"): its elements then come as an ElementColumns, with one numpy array for each number that is named and
    no object for an element. A structure array that is itself named ("dimension") comes as ever, a list of Value or None.
    strict: a name that the type does not have is a KeyError; else it counts for nothing.

    What is decoded is a Value of the same type. Fields left out are never set, so they read as zero, "", None or an empty
    array, and `changed` tells of the named ones only. What is skipped is checked all the same: the errors are those of
    decoding the whole, in text and offset. One can come on top: a null element takes room in each column, so very many
    of them in very many columns exceed Limits.expansion.
    """

    def __cinit__(self, *args, **kwargs):
        self.takes = NULL
        self.slots = NULL
        self.mask = NULL

    def __init__(self, type, fields, *, strict=True):
        cdef FieldDesc fd = FieldDesc.of(type)
        cdef Plan* plan = plan_of(fd)
        cdef uint32_t slot, node
        cdef dict inner = {}
        if self.takes != NULL:
            raise TypeError("a Projection is frozen")
        if isinstance(fields, str):
            raise TypeError(f"fields are a list of names, not {fields!r}")
        self.takes = <uint8_t*>PyMem_Malloc(plan.leaves + 1)
        self.slots = <uint32_t*>PyMem_Malloc((plan.leaves + 1) * sizeof(uint32_t))
        self.mask = <uint64_t*>PyMem_Malloc(plan.words * sizeof(uint64_t))
        if self.takes == NULL or self.slots == NULL or self.mask == NULL:
            raise MemoryError()
        memset(self.takes, SKIP, plan.leaves)
        memset(self.mask, 0, plan.words * sizeof(uint64_t))
        for name in fields:
            found = find(fd, name)
            if found is None:
                if strict:
                    raise KeyError(name)
                continue
            at, rest = found
            node = at
            if rest is None:
                for slot in range(plan.first[node], plan.first[plan.next[node]]):
                    self.takes[slot] = READ
            else:
                inner.setdefault(plan.first[node], []).append(rest)
        self.columns = {}
        for at, parts in inner.items():
            slot = at
            if self.takes[slot] == SKIP:
                self.takes[slot] = COLUMNS
                self.columns[at] = Projection((<FieldDesc>plan.leaf[slot].type).element, parts)
        names = fd.names
        taken = []
        leaves = []
        for slot in range(plan.leaves):
            if self.takes[slot] == SKIP:
                continue
            self.slots[self.count] = slot
            self.count += 1
            node = plan.leaf[slot].node
            self.mask[node // 64] |= <uint64_t>1 << (node % 64)
            name = names[node]
            taken.append(name)
            if self.takes[slot] == COLUMNS:
                leaves += [f"{name}.{part}" if name else part for part in (<Projection>self.columns[slot]).fields]
            else:
                leaves.append(name)
        self.names = tuple(taken)
        self.fields = tuple(leaves)
        self.plan = plan
        self.type = fd

    def __dealloc__(self):
        PyMem_Free(self.takes)
        PyMem_Free(self.slots)
        PyMem_Free(self.mask)

    def __setattr__(self, name, value, /):
        raise AttributeError(f"Projection is frozen: {name}")

    def __delattr__(self, name, /):
        raise AttributeError(f"Projection is frozen: {name}")

    def __repr__(self):
        if self.type is None:
            return "<Projection of nothing>"
        return f"<Projection of {self.type.id or self.type.format('short')!r}: {', '.join(self.fields)}>"

    def __reduce__(self):
        return Projection, (self.type, self.fields)


(<PyTypeObject*>Projection).tp_name = "pvafast.Projection"


cdef object find(FieldDesc type, object name):
    """The node that a name means, and what it names in the elements if that is a structure array; None: no such field."""
    if name in type:
        return index_of(type, name), None
    splits = [("", name)]
    if isinstance(name, str):
        splits += [(name[:at], name[at + 1:]) for at, letter in enumerate(name) if letter == "."]
    else:
        splits += [(name[:at], name[at:]) for at in range(1, len(name))]
    for outer, rest in splits:
        if outer in type and type[outer].code == STRUCTURE_ARRAY and rest in type[outer].element:
            return index_of(type, outer), rest
    return None


# --- reading ---------------------------------------------------------------------------------------------------------


cdef object read_projected(Projection p, Cursor* c, _TypeIds ids):
    """Read a full value."""
    cdef Plan* plan = p.plan
    cdef bint whole = p.type.code == STRUCTURE
    cdef uint32_t slot = 0
    cdef Value made
    if whole:
        charge(c, <size_t>plan.leaves + 1, VALUE_WEIGHT + LEAF_WEIGHT * <Py_ssize_t>plan.leaves, c.pos)
    else:
        charge(c, 1, LEAF_WEIGHT, c.pos)
    made = Value.__new__(Value)
    made.allot(p.type)
    try:
        read_some(p, &slot, plan.leaves, made.slots, c, ids)
    except DecodeError as error:
        blame_leaf(p.type, plan, slot, error)
        raise
    if whole:
        return made
    return zero(p.type) if made.slots[0] == NULL else <object>made.slots[0]


cdef Value read_projected_update(Projection p, Cursor* c, _TypeIds ids, Value base):
    """Read a BitSet and the data of the nodes in it; named fields that did not come are those of base."""
    cdef Plan* plan = p.plan
    cdef Value made = Value.__new__(Value)
    cdef uint64_t word, covered
    cdef uint32_t i, slot
    cdef uint32_t stop = 0
    cdef size_t w, k
    cdef bint reading = False
    made.allot(p.type)
    if base is not None:
        for k in range(p.count):
            slot = p.slots[k]
            Py_XINCREF(base.slots[slot])
            made.slots[slot] = base.slots[slot]
    try:
        read_words(c, made.words, plan.words)
    except DecodeError as error:
        error.within("changed")
        raise
    if plan.nodes % 64:
        made.words[plan.words - 1] &= (<uint64_t>1 << (plan.nodes % 64)) - 1
    slot = 0
    try:
        for w in range(plan.words):
            word = made.words[w]
            covered = below(stop, w)
            while word:
                i = <uint32_t>(w * 64) + <uint32_t>ctz64(word)
                word &= word - 1
                if i >= stop:
                    stop = plan.next[i]
                    slot = plan.first[i]
                    covered |= below(stop, w) & ~below(i, w)
                    reading = False
                    charge(c, plan.first[stop] - slot, LEAF_WEIGHT * <Py_ssize_t>(plan.first[stop] - slot), c.pos)
                    reading = True
                    read_some(p, &slot, plan.first[stop], made.slots, c, ids)
            made.words[w] = covered & p.mask[w]
    except DecodeError as error:
        if reading:
            blame_leaf(p.type, plan, slot, error)
        raise
    made.received = True
    return made


cdef inline uint64_t below(uint32_t stop, size_t w) noexcept:
    """Of word w, the bits of the nodes before stop."""
    if stop <= w * 64:
        return 0
    if stop - w * 64 >= 64:
        return ~<uint64_t>0
    return (<uint64_t>1 << (stop - w * 64)) - 1


cdef int read_some(Projection p, uint32_t* slot, uint32_t stop, PyObject** slots, Cursor* c, _TypeIds ids) except -1:
    """Read the leaves slot[0] to stop that are named, skip the others; where it fails slot[0] tells the leaf."""
    cdef Plan* plan = p.plan
    cdef Leaf* leaf
    cdef uint8_t kind, taken
    cdef size_t n
    cdef PyObject* made
    cdef PyObject* old
    while slot[0] < stop:
        leaf = &plan.leaf[slot[0]]
        kind = leaf.kind
        taken = p.takes[slot[0]]
        if taken == SKIP:
            if kind < KIND_STRING and SIZES[kind] <= left(c):
                c.pos += SIZES[kind]
            elif kind != KIND_STRING or not skip_items(c, 1, c.caps.string, &n):
                skip_leaf(<FieldDesc>leaf.type, c, ids, leaf.depth)
            slot[0] += 1
            continue
        if taken == COLUMNS:
            made = give(read_columns(<Projection>p.columns[slot[0]], c, ids, leaf.depth))
        elif kind < KIND_STRING and SIZES[kind] <= left(c):
            made = number_of(kind, c.pos, c.swap)
            c.pos += SIZES[kind]
        elif kind == KIND_STRING:
            made = read_text(c)
        else:
            made = read_leaf(<FieldDesc>leaf.type, c, ids, leaf.depth)
        old = slots[slot[0]]
        slots[slot[0]] = checked(made)
        Py_XDECREF(old)
        slot[0] += 1
    return 0


cdef object read_columns(Projection p, Cursor* c, _TypeIds ids, size_t depth):
    """Read a structure array as columns; p is of its elements."""
    cdef Plan* plan = p.plan
    cdef Py_ssize_t n = count_elements(STRUCTURE_ARRAY, c)
    cdef Py_ssize_t row = 1
    cdef Py_ssize_t more
    cdef size_t k
    cdef uint32_t slot
    cdef uint8_t kind
    cdef uint8_t* present
    cdef uint8_t** targets
    cdef list columns = []
    cdef dict lists = {}
    for k in range(p.count):
        kind = plan.leaf[p.slots[k]].kind
        row += SIZES[kind] if kind < KIND_STRING else 8
    # What a null element takes in columns, beyond the place in a list that was charged for it.
    more = max(<Py_ssize_t>0, row - PLACE_WEIGHT)
    if more * n > c.weight:
        each_element(p.type, n, more, None, NULL, NULL, None, c, ids, depth)  # raises: no element weighs less
    mask = zero_numbers(0, <size_t>n, &present)
    targets = <uint8_t**>PyMem_Malloc((plan.leaves + 1) * sizeof(uint8_t*))
    if targets == NULL:
        raise MemoryError()
    try:
        memset(targets, 0, plan.leaves * sizeof(uint8_t*))
        for k in range(p.count):
            slot = p.slots[k]
            if plan.leaf[slot].kind < KIND_STRING:
                columns.append(zero_numbers(plan.leaf[slot].code, <size_t>n, &targets[slot]))
            else:
                lists[slot] = [None] * n
                columns.append(lists[slot])
        each_element(p.type, n, more, p, targets, present, lists, c, ids, depth)
    finally:
        PyMem_Free(targets)
    return ElementColumns(mask, dict(zip(p.names, columns)))


cdef int each_element(
    FieldDesc type,
    Py_ssize_t n,
    Py_ssize_t more,
    Projection p,
    uint8_t** targets,
    uint8_t* present,
    dict lists,
    Cursor* c,
    _TypeIds ids,
    size_t depth,
) except -1:
    """Read n elements into columns, or (p None) skip them; a null one weighs so much more."""
    cdef Plan* plan = plan_of(type)
    cdef bint plain = not lists
    cdef bint reading = False
    cdef Py_ssize_t i = 0
    cdef uint32_t slot = 0
    cdef uint8_t size
    cdef Leaf* leaf
    cdef const uint8_t* pos
    for slot in range(plan.leaves):
        plain = plain and plan.leaf[slot].kind != KIND_OTHER
    try:
        while i < n:
            if plain:
                if left(c) > LONG_WORK:
                    with nogil:
                        i = walk(plan, i, n, more, targets, present, c)
                else:
                    i = walk(plan, i, n, more, targets, present, c)
                if i == n:
                    break
            reading = False
            pos = c.pos
            if pos >= c.end:
                raise_short(c, "presence byte", 1)
            c.pos += 1
            if not pos[0]:
                charge(c, 0, more, pos)
                i += 1
                continue
            charge(c, <size_t>plan.leaves + 1, VALUE_WEIGHT + LEAF_WEIGHT * <Py_ssize_t>plan.leaves, c.pos)
            if present != NULL:
                present[i] = 1
            reading = True
            slot = 0
            while slot < plan.leaves:
                leaf = &plan.leaf[slot]
                if leaf.kind < KIND_STRING and SIZES[leaf.kind] <= left(c):
                    size = SIZES[leaf.kind]
                    if targets != NULL and targets[slot] != NULL:
                        store(targets[slot] + i * size, c.pos, leaf.kind, c.swap)
                    c.pos += size
                elif p is None or p.takes[slot] == SKIP:
                    skip_leaf(<FieldDesc>leaf.type, c, ids, depth + 1 + leaf.depth)
                elif leaf.kind == KIND_STRING:
                    (<list>lists[slot])[i] = take(read_text(c))
                else:
                    made = take(read_leaf(<FieldDesc>leaf.type, c, ids, depth + 1 + leaf.depth))
                    (<list>lists[slot])[i] = made
                slot += 1
            i += 1
    except DecodeError as error:
        if reading:
            blame_leaf(type, plan, slot, error)
        error.within(f"[{i}]")
        raise
    return 0


cdef Py_ssize_t walk(
    Plan* plan, Py_ssize_t i, Py_ssize_t n, Py_ssize_t more, uint8_t** targets, uint8_t* present, Cursor* c
) noexcept nogil:
    """Elements i to n of numbers, strings and arrays of numbers; returns the first that is not plainly there, or n."""
    cdef Py_ssize_t least = VALUE_WEIGHT + LEAF_WEIGHT * <Py_ssize_t>plan.leaves
    cdef Py_ssize_t weight
    cdef const uint8_t* start
    cdef Leaf* leaf
    cdef uint32_t slot
    cdef uint8_t size
    cdef size_t count
    if not i and pass_records(plan, <size_t>n, targets, present, c):
        return n
    while i < n and c.pos < c.end:
        start = c.pos
        c.pos += 1
        if not start[0]:
            weight = more
        else:
            weight = least
            for slot in range(plan.leaves):
                leaf = &plan.leaf[slot]
                if leaf.kind < KIND_STRING:
                    size = SIZES[leaf.kind]
                    if size > left(c):
                        break
                    if targets != NULL and targets[slot] != NULL:
                        store(targets[slot] + i * size, c.pos, leaf.kind, c.swap)
                    c.pos += size
                elif leaf.kind == KIND_STRING:
                    if not skip_items(c, 1, c.caps.string, &count):
                        break
                else:
                    if not skip_items(c, size_of(leaf.code & 0xE7), ~<size_t>0, &count):
                        break
                    if count:
                        weight += ARRAY_WEIGHT
            else:
                slot = plan.leaves
            if slot < plan.leaves or c.nodes <= <Py_ssize_t>plan.leaves:
                c.pos = start
                return i
        if weight > c.weight:
            c.pos = start
            return i
        c.weight -= weight
        if start[0]:
            c.nodes -= <Py_ssize_t>plan.leaves + 1
            if present != NULL:
                present[i] = 1
        i += 1
    return i


cdef bint pass_records(Plan* plan, size_t n, uint8_t** targets, uint8_t* present, Cursor* c) noexcept nogil:
    """Elements of nothing but numbers that are all there, none of them null; False, and nothing read, where that is not so."""
    cdef size_t step = 1
    cdef size_t weight = VALUE_WEIGHT + LEAF_WEIGHT * <size_t>plan.leaves
    cdef size_t i
    cdef uint32_t slot
    for slot in range(plan.leaves):
        if plan.leaf[slot].kind >= KIND_STRING:
            return False
        step += SIZES[plan.leaf[slot].kind]
    # n is at most the bytes left: the products stay small.
    if n > left(c) // step or n * (plan.leaves + 1) > <size_t>c.nodes or n * weight > <size_t>c.weight:
        return False
    for i in range(n):
        if not c.pos[i * step]:
            return False
    c.nodes -= <Py_ssize_t>(n * (plan.leaves + 1))
    c.weight -= <Py_ssize_t>(n * weight)
    if present != NULL:
        memset(present, 1, n)
    if targets != NULL:
        step_through(plan, n, step, targets, c.pos + 1, c.swap)
    c.pos += n * step
    return True


cdef void step_through(
    Plan* plan, size_t n, size_t step, uint8_t** targets, const uint8_t* source, bint swap
) noexcept nogil:
    """The columns of elements that lie `step` bytes apart."""
    cdef size_t i
    cdef uint32_t slot
    cdef uint8_t kind
    cdef uint8_t* target
    for slot in range(plan.leaves):
        kind = plan.leaf[slot].kind
        target = targets[slot]
        if target != NULL:
            if SIZES[kind] == 8:
                for i in range(n):
                    store8(target + 8 * i, source + step * i, swap)
            elif SIZES[kind] == 4:
                for i in range(n):
                    store4(target + 4 * i, source + step * i, swap)
            else:
                for i in range(n):
                    store(target + SIZES[kind] * i, source + step * i, kind, swap)
        source += SIZES[kind]


cdef inline void store8(uint8_t* target, const uint8_t* source, bint swap) noexcept nogil:
    cdef uint64_t x = get64(source, swap)
    memcpy(target, &x, 8)


cdef inline void store4(uint8_t* target, const uint8_t* source, bint swap) noexcept nogil:
    cdef uint32_t x = get32(source, swap)
    memcpy(target, &x, 4)


cdef inline void store(uint8_t* target, const uint8_t* source, uint8_t kind, bint swap) noexcept nogil:
    """A number in the host's order."""
    cdef uint16_t x
    if SIZES[kind] == 8:
        store8(target, source, swap)
    elif SIZES[kind] == 4:
        store4(target, source, swap)
    elif SIZES[kind] == 2:
        x = get16(source, swap)
        memcpy(target, &x, 2)
    else:
        target[0] = source[0] != 0 if kind == KIND_BOOL else source[0]


# --- skipping: whatever is not plainly there is read, which raises what reading raises -------------------------------


cdef int skip_full(FieldDesc fd, Cursor* c, _TypeIds ids, size_t depth) except -1:
    """Go past a full value of any type."""
    cdef Plan* plan
    cdef Leaf* leaf
    cdef uint32_t slot = 0
    if fd.code != STRUCTURE:
        charge(c, 1, LEAF_WEIGHT, c.pos)
        return skip_leaf(fd, c, ids, depth)
    plan = plan_of(fd)
    charge(c, <size_t>plan.leaves + 1, VALUE_WEIGHT + LEAF_WEIGHT * <Py_ssize_t>plan.leaves, c.pos)
    try:
        while slot < plan.leaves:
            leaf = &plan.leaf[slot]
            if leaf.kind < KIND_STRING and SIZES[leaf.kind] <= left(c):
                c.pos += SIZES[leaf.kind]
            else:
                skip_leaf(<FieldDesc>leaf.type, c, ids, depth + leaf.depth)
            slot += 1
    except DecodeError as error:
        blame_leaf(fd, plan, slot, error)
        raise
    return 0


cdef int skip_leaf(FieldDesc fd, Cursor* c, _TypeIds ids, size_t depth) except -1:
    """Go past a leaf of any type."""
    cdef int code = fd.code
    cdef const uint8_t* start = c.pos
    cdef size_t n
    cdef Py_ssize_t count
    if code == STRING:
        if skip_items(c, 1, c.caps.string, &n):
            return 0
    elif code == UNION:
        return skip_union(fd, c, ids, depth)
    elif code == ANY:
        return skip_any(c, ids, depth)
    elif code == STRUCTURE_ARRAY:
        count = count_elements(code, c)
        return each_element(fd.element, count, 0, None, NULL, NULL, None, c, ids, depth)
    elif code == UNION_ARRAY or code == ANY_ARRAY:
        return skip_boxes(fd, c, ids, depth)
    elif code == STRING_ARRAY:
        if skip_strings(c, &n):
            charge(c, 0, ARRAY_WEIGHT + LEAF_WEIGHT * <Py_ssize_t>n if n else 0, start)
            return 0
    elif plan_of(fd).leaf[0].kind == KIND_NUMBERS:
        if skip_items(c, size_of(<uint8_t>(code & 0xE7)), ~<size_t>0, &n):
            charge(c, 0, ARRAY_WEIGHT if n else 0, start)
            return 0
    take(read_leaf(fd, c, ids, depth))
    return 0


cdef bint skip_strings(Cursor* c, size_t* count) noexcept:
    """An array of strings; False, and nothing read, where that raises or needs a closer look."""
    cdef const uint8_t* start = c.pos
    cdef size_t _i, n
    if c.pos >= c.end or c.pos[0] == 0xFF or (c.pos[0] == 0xFE and left(c) < 5):
        return False
    if c.pos[0] == 0xFE:
        count[0] = get32(c.pos + 1, c.swap)
        c.pos += 5
    else:
        count[0] = c.pos[0]
        c.pos += 1
    if count[0] <= c.caps.elements:
        for _i in range(count[0]):
            if not skip_items(c, 1, c.caps.string, &n):
                break
        else:
            return True
    c.pos = start
    return False


cdef int skip_union(FieldDesc fd, Cursor* c, _TypeIds ids, size_t depth) except -1:
    cdef const uint8_t* pos = c.pos
    cdef Py_ssize_t selector = read_size_or_null(c)
    if selector < 0:
        return 0
    if selector >= len(fd.member_names):
        c.pos = pos
        take(read_leaf(fd, c, ids, depth))
    charge(c, 1, BOX_WEIGHT, pos)
    try:
        return skip_full(<FieldDesc>fd.member_types[selector], c, ids, depth + 1)
    except DecodeError as error:
        error.within(fd.member_names[selector])
        raise


cdef int skip_any(Cursor* c, _TypeIds ids, size_t depth) except -1:
    """A type description, whose ids are kept as ever, and a value."""
    cdef const uint8_t* pos = c.pos
    cdef FieldDesc fd
    if depth >= c.caps.depth:
        raise_too_deep(c, pos)
    fd = read_desc(c, ids, depth + 1)
    if fd is None:
        return 0
    charge(c, 1, BOX_WEIGHT, pos)
    return skip_full(fd, c, ids, depth + 1)


cdef int skip_boxes(FieldDesc fd, Cursor* c, _TypeIds ids, size_t depth) except -1:
    """An array of unions or anys."""
    cdef Py_ssize_t n = count_elements(fd.code, c)
    cdef Py_ssize_t i = 0
    try:
        while i < n:
            if c.pos >= c.end:
                raise_short(c, "presence byte", 1)
            c.pos += 1
            if (c.pos - 1)[0]:
                if fd.code == ANY_ARRAY:
                    skip_any(c, ids, depth)
                else:
                    skip_union(fd.element, c, ids, depth + 1)
            i += 1
    except DecodeError as error:
        error.within(f"[{i}]")
        raise
    return 0

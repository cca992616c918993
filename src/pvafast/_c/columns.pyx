"""Columns: many updates of one subscription -> one numpy array a field, one row an update."""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from .array cimport size_of
from .bitset cimport quick_words, read_words
from .buffer cimport FREE_WEIGHT, HOST_IS_BIG, Cursor, ctz64, get16, get32, get64, is_big, left, owner_of, start_cursor
from .codec cimport Codec
from .framing cimport Message
from .introspection cimport KIND_BOOL, KIND_NUMBERS, KIND_STRING, FieldDesc, Leaf, Plan, index_of, plan_of
from .value cimport Value, read_leaf, read_update, zero

import numpy as np

from .._columntext import INTEGERS, as_arrow, as_numpy, as_pandas, offsets_of, stacked
from ..errors import DecodeError, LocalProtocolError

cnp.import_array()

cdef extern from *:
    """
    static CYTHON_INLINE PyObject* pva_take(PyObject* o) { return o; }
    """
    object take "pva_take"(PyObject*)  # a new reference becomes an object

cdef extern from *:
    """
    #define PVA_COLUMN(o) PyArray_DATA((PyArrayObject*)(o))
    """
    void* data_of "PVA_COLUMN"(PyObject*) noexcept

cdef enum:
    MONITOR = 13
    CONTROL = 0x01
    BIG_ENDIAN = 0x80
    BATCH = 512  # messages that are walked at a time, without the GIL
    SHAPES = 8
    COLUMNS = 64  # at the most, where one word holds all bits
    ABSENT = 0xFFFF

# Spreads the bits of a word over its upper ones.
cdef uint64_t MIX = 0x9E3779B97F4A7C15

cdef uint8_t[11] SIZES
SIZES[:] = [1, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8]

# A column of numbers: `size` bytes a row.
cdef struct Numbers:
    uint8_t* data  # valid while `arrays` holds its array
    uint32_t slot
    uint8_t size
    bint is_bool
    uint8_t[8] last  # what the first row takes over

# The changed fields of a message, and what stands behind them; valid while the batch holds its owner.
cdef struct Span:
    const uint8_t* pos
    const uint8_t* end
    uint32_t owner  # its number among the owners of the batch
    bint big

# Updates with the same bits have their numbers at the same places, if nothing but numbers is among their fields.
cdef struct Shape:
    uint64_t word  # the bits
    bint known  # `word` has been met
    bint fixed  # the rest is valid
    uint16_t size  # of the fields, in bytes
    uint16_t[COLUMNS] at  # by column: where its number is, or ABSENT


cdef bint quick_size(Cursor* c, size_t* n) noexcept nogil:
    """The Size at the cursor; False, and nothing read, for the null and where bytes are missing."""
    if c.pos >= c.end or c.pos[0] == 0xFF or (c.pos[0] == 0xFE and left(c) < 5):
        return False
    if c.pos[0] == 0xFE:
        n[0] = get32(c.pos + 1, c.swap)
        c.pos += 5
    else:
        n[0] = c.pos[0]
        c.pos += 1
    return True


cdef inline uint64_t bits_at(const uint8_t* p, size_t n, bint big) noexcept nogil:
    """A BitSet of up to eight bytes."""
    cdef uint64_t x = 0
    cdef size_t i
    if n == 8:
        return get64(p, big != HOST_IS_BIG)
    for i in range(n):
        x |= <uint64_t>p[i] << (8 * i)
    return x


cdef inline void store(uint8_t* target, const uint8_t* source, uint8_t size, bint swap) noexcept nogil:
    """A number in the host's order."""
    cdef uint16_t a
    cdef uint32_t b
    cdef uint64_t d
    if size == 8:
        d = get64(source, swap)
        memcpy(target, &d, 8)
    elif size == 4:
        b = get32(source, swap)
        memcpy(target, &b, 4)
    elif size == 2:
        a = get16(source, swap)
        memcpy(target, &a, 2)
    else:
        target[0] = source[0]


@cython.final
cdef class Columns:
    """Collects MONITOR updates of one subscription into numpy arrays, one a field; an update is a row.

    A field that did not come in an update keeps the value of the row before (zero, "" or an empty array before the first).

    type: of the subscription, as `FieldDesc.of` takes it. fields: dotted names; a structure stands for all its leaves,
    None for all there are.
    codec: of the direction that the updates come in, needed where fields hold an any; its limits hold.
    One thread at a time.
    """

    cdef readonly FieldDesc type
    cdef readonly tuple fields
    cdef tuple names  # as they were given
    cdef Codec codec
    cdef Plan* plan  # of type
    cdef Numbers* numbers
    cdef size_t number_count
    cdef int32_t* places  # by leaf slot: the number of its column among the numbers or the objects, or -1
    cdef list arrays  # of the numbers, `room` rows each
    cdef list objects  # of the other columns: lists
    cdef list lasts  # of the other columns: what the next row takes over
    cdef size_t object_count
    cdef size_t* object_slots
    cdef dict slot_of  # node -> leaf slot
    cdef tuple stamps  # the nodes of the time stamp, or -1
    cdef object changes  # uint64, (room, words): the bits received
    cdef uint64_t* change_data
    cdef object overruns  # the same of the overruns; None before the first
    cdef uint64_t* overrun_data
    cdef object times  # int64, (room,)
    cdef int64_t* time_data
    cdef size_t rows
    cdef size_t room
    cdef Span* spans  # BATCH
    cdef Shape* shapes  # SHAPES, or NULL where a word does not hold all bits
    cdef uint64_t last_bits  # of the bits in the last word that there are
    cdef const uint8_t** found  # BATCH * object_count: where the field of a row begins, NULL if it did not come
    cdef bint busy

    def __cinit__(self, *args, **kwargs):
        self.numbers = NULL
        self.places = NULL
        self.spans = NULL
        self.shapes = NULL
        self.overrun_data = NULL
        self.found = NULL
        self.object_slots = NULL

    def __init__(self, type, fields=None, *, Codec codec=None):
        cdef FieldDesc fd = FieldDesc.of(type)
        cdef Plan* plan = plan_of(fd)
        cdef size_t i, slot, node
        cdef Leaf* leaf
        if self.type is not None:
            raise TypeError("Columns are made once")
        chosen = {}
        self.names = ("",) if fields is None else tuple(fields)
        for name in self.names:
            node = <size_t>index_of(fd, name)
            for slot in range(plan.first[node], plan.first[plan.next[node]]):
                chosen[plan.leaf[slot].node] = slot
        names = fd.names
        self.fields = tuple([names[node] for node in chosen])
        stamps = []
        for name in ("timeStamp.secondsPastEpoch", "timeStamp.nanoseconds"):
            stamp = index_of(fd, name) if name in fd else -1
            if stamp >= 0 and fd.node(stamp).code not in INTEGERS:
                stamp = -1
            stamps.append(stamp)
            if stamp >= 0:
                chosen[stamp] = plan.first[<size_t>stamp]
        self.stamps = tuple(stamps)
        self.slot_of = chosen
        self.codec = Codec() if codec is None else codec
        self.arrays = []
        self.objects = []
        self.lasts = []
        self.numbers = <Numbers*>PyMem_Malloc(sizeof(Numbers) * (len(chosen) + 1))
        self.places = <int32_t*>PyMem_Malloc(sizeof(int32_t) * (plan.leaves + 1))
        self.spans = <Span*>PyMem_Malloc(sizeof(Span) * BATCH)
        self.last_bits = ((<uint64_t>1 << (plan.nodes % 64)) - 1) if plan.nodes % 64 else ~<uint64_t>0
        if plan.words == 1:
            self.shapes = <Shape*>PyMem_Malloc(sizeof(Shape) * SHAPES)
            if self.shapes == NULL:
                raise MemoryError()
            memset(self.shapes, 0, sizeof(Shape) * SHAPES)
        self.object_slots = <size_t*>PyMem_Malloc(sizeof(size_t) * (len(chosen) + 1))
        if self.numbers == NULL or self.places == NULL or self.spans == NULL or self.object_slots == NULL:
            raise MemoryError()
        for i in range(plan.leaves):
            self.places[i] = -1
        for slot in chosen.values():
            leaf = &plan.leaf[slot]
            if leaf.kind < KIND_STRING:
                self.places[slot] = <int32_t>self.number_count
                self.numbers[self.number_count].slot = <uint32_t>slot
                self.numbers[self.number_count].size = SIZES[leaf.kind]
                self.numbers[self.number_count].is_bool = leaf.kind == KIND_BOOL
                memset(self.numbers[self.number_count].last, 0, 8)
                self.number_count += 1
            else:
                self.places[slot] = <int32_t>self.object_count
                self.object_slots[self.object_count] = slot
                self.object_count += 1
                self.objects.append([])
                self.lasts.append(zero(<FieldDesc>leaf.type))
        self.found = <const uint8_t**>PyMem_Malloc(sizeof(uint8_t*) * BATCH * (self.object_count + 1))
        if self.found == NULL:
            raise MemoryError()
        self.plan = plan
        self.type = fd

    def __dealloc__(self):
        PyMem_Free(self.numbers)
        PyMem_Free(self.places)
        PyMem_Free(self.spans)
        PyMem_Free(self.shapes)
        PyMem_Free(self.object_slots)
        PyMem_Free(<void*>self.found)

    cdef int reserve(self, size_t more) except -1:
        """Memory for more rows. Arrays that were handed out keep theirs."""
        cdef size_t room = self.room
        cdef size_t k
        if self.rows + more <= room:
            return 0
        room = max(2 * room, self.rows + more, 1024)
        arrays = [
            self.grown(self.arrays[k] if self.rows else None, (<FieldDesc>self.plan.leaf[self.numbers[k].slot].type).dtype, room)
            for k in range(self.number_count)
        ]
        # numpy asks for large pages where that pays: to move what is there costs less than to grow it where it is.
        changes = self.grown(self.changes, np.uint64, room, self.plan.words)
        times = self.grown(self.times, np.int64, room)
        overruns = None
        if self.overruns is not None:
            overruns = self.grown(self.overruns, np.uint64, room, self.plan.words)
        for k in range(self.number_count):
            self.numbers[k].data = <uint8_t*>data_of(<PyObject*>arrays[k])
        self.change_data = <uint64_t*>data_of(<PyObject*>changes)
        self.time_data = <int64_t*>data_of(<PyObject*>times)
        if overruns is not None:
            self.overrun_data = <uint64_t*>data_of(<PyObject*>overruns)
        self.arrays, self.changes, self.overruns, self.times, self.room = arrays, changes, overruns, times, room
        return 0

    cdef object grown(self, object old, object dtype, size_t room, size_t width=0):
        """An array of `room` rows, of so many numbers if not one each, that begins with the rows so far."""
        cdef object shape = room
        if width:
            shape = (room, width)
        made = np.empty(shape, dtype)
        if self.rows:
            made[: self.rows] = old[: self.rows]
        return made

    cdef int keep_overruns(self) except -1:
        """From here on there is a place for overruns."""
        if self.overruns is None:
            self.overruns = np.zeros((self.room, self.plan.words), np.uint64)
            self.overrun_data = <uint64_t*>data_of(<PyObject*>self.overruns)
        return 0

    cdef inline Shape* shape_of(self, uint64_t word) noexcept nogil:
        return &self.shapes[(word * MIX) >> 61]

    cdef bint quick(self, const Span* span, size_t row) noexcept nogil:
        """Read a row of a shape that was met before. False: it was not, or there is more to it; nothing is lost then."""
        cdef const uint8_t* p = span.pos
        cdef size_t n, k
        cdef uint64_t word
        cdef Shape* shape
        cdef Numbers* column
        cdef uint8_t* target
        cdef uint8_t size
        cdef bint swap = span.big != HOST_IS_BIG
        if p >= span.end or p[0] > 8 or p[0] >= <size_t>(span.end - p):
            return False
        n = p[0]
        word = bits_at(p + 1, n, span.big) & self.last_bits
        p += 1 + n
        shape = self.shape_of(word)
        # Behind the fields stands the empty set of overruns.
        if shape.word != word or not shape.fixed or shape.size >= <size_t>(span.end - p) or p[shape.size]:
            return False
        self.change_data[row] = word
        if self.overrun_data != NULL:
            self.overrun_data[row] = 0
        for k in range(self.number_count):
            column = &self.numbers[k]
            size = column.size
            target = column.data + row * size
            if shape.at[k] != ABSENT:
                if column.is_bool:
                    target[0] = p[shape.at[k]] != 0
                else:
                    store(target, p + shape.at[k], size, swap)
            else:
                store(target, target - size if row else column.last, size, False)
        return True

    cdef bint walk(self, const Span* span, size_t row, const uint8_t** found) noexcept nogil:
        """Read a row's numbers, and find its other fields. False: damage, or a field that only objects can be made of."""
        cdef Plan* plan = self.plan
        cdef uint64_t* words = self.change_data + row * plan.words
        cdef uint64_t word
        cdef size_t w, k, n, size
        cdef uint32_t i, slot, last
        cdef uint32_t stop = 0
        cdef int32_t place
        cdef Leaf* leaf
        cdef uint8_t* target
        cdef Cursor c
        cdef const uint8_t* start
        cdef Shape* shape = NULL
        self.cursor(&c, span)
        if not quick_words(&c, words, plan.words):
            return False
        words[plan.words - 1] &= self.last_bits
        start = c.pos
        if self.shapes != NULL:
            shape = self.shape_of(words[0])
            if shape.known and shape.word == words[0]:
                shape = NULL
            else:
                shape.word = words[0]
                shape.known = True
                shape.fixed = False
                memset(shape.at, 0xFF, sizeof(shape.at))
        for k in range(self.number_count):
            size = self.numbers[k].size
            target = self.numbers[k].data + row * size
            store(target, target - size if row else self.numbers[k].last, <uint8_t>size, False)
        for k in range(self.object_count):
            found[k] = NULL
        for w in range(plan.words):
            word = words[w]
            while word:
                i = <uint32_t>(w * 64) + <uint32_t>ctz64(word)
                word &= word - 1
                if i < stop:
                    continue
                stop = plan.next[i]
                slot = plan.first[i]
                last = plan.first[stop]
                c.nodes -= last - slot
                # No array of numbers weighs more than this and its bytes.
                c.weight -= 128 * <Py_ssize_t>(last - slot)
                if c.nodes < 0 or c.weight < 0:
                    return False
                while slot < last:
                    leaf = &plan.leaf[slot]
                    place = self.places[slot]
                    slot += 1
                    if leaf.kind < KIND_STRING:
                        size = SIZES[leaf.kind]
                        if size > left(&c):
                            return False
                        if place >= 0:
                            target = self.numbers[place].data + row * size
                            if leaf.kind == KIND_BOOL:
                                target[0] = c.pos[0] != 0
                            else:
                                store(target, c.pos, <uint8_t>size, c.swap)
                            if shape != NULL:
                                shape.at[place] = <uint16_t>(c.pos - start)
                        c.pos += size
                        continue
                    shape = NULL  # the next ones may have it elsewhere
                    if place >= 0:
                        found[place] = c.pos
                    if leaf.kind == KIND_STRING:
                        if not quick_size(&c, &n) or n > left(&c) or n > c.caps.string:
                            return False
                        c.pos += n
                    elif leaf.kind == KIND_NUMBERS:
                        size = size_of(leaf.code & 0xE7)
                        if not quick_size(&c, &n) or n > left(&c) // size:
                            return False
                        c.pos += n * size
                    else:
                        return False
        if shape != NULL:
            shape.fixed = True
            shape.size = <uint16_t>(c.pos - start)
        if c.pos < c.end and c.pos[0]:
            if self.overrun_data == NULL:
                return False
            words = self.overrun_data + row * plan.words
            if not quick_words(&c, words, plan.words):
                return False
            words[plan.words - 1] &= self.last_bits
        elif self.overrun_data != NULL:
            memset(self.overrun_data + row * plan.words, 0, plan.words * 8)
        return True

    cdef void cursor(self, Cursor* c, const Span* span) noexcept nogil:
        """A cursor on a message, for what needs no objects."""
        c.base = c.pos = span.pos
        c.end = span.end
        c.owner = NULL
        c.total = 0
        c.big = span.big
        c.swap = span.big != HOST_IS_BIG
        c.aligned = False
        c.caps = &self.codec.caps
        c.nodes = <Py_ssize_t>c.caps.value_nodes
        c.weight = FREE_WEIGHT + <Py_ssize_t>(c.caps.expansion * (5 + left(c)))

    cdef int take_objects(self, size_t rows, list owners) except -1:
        """Make the fields that walk() found in so many rows; the others take over what there was."""
        cdef size_t k, slot
        cdef size_t j = 0
        cdef const uint8_t* at
        cdef const Span* span
        cdef Cursor c
        cdef list column
        cdef list lasts = list(self.lasts)
        cdef object last
        try:
            for j in range(self.object_count):
                column = <list>self.objects[<Py_ssize_t>j]
                last = lasts[<Py_ssize_t>j]
                slot = self.object_slots[j]
                for k in range(rows):
                    at = self.found[k * self.object_count + j]
                    if at != NULL:
                        span = &self.spans[k]
                        start_cursor(&c, owners[<Py_ssize_t>span.owner], 0, -1, span.big, False, &self.codec.caps)
                        c.pos = at
                        c.end = span.end
                        last = take(read_leaf(<FieldDesc>self.plan.leaf[slot].type, &c, self.codec.known, 0))
                    column.append(last)
                lasts[<Py_ssize_t>j] = last
        except BaseException:
            for column in self.objects:
                del column[<Py_ssize_t>self.rows :]
            raise
        self.lasts = lasts
        return 0

    cdef int slow(self, Cursor* c, size_t row) except -1:
        """Read a row by way of a Value: raises what is to be raised."""
        cdef uint64_t* words
        cdef Value update
        cdef size_t slot, k
        cdef Numbers* column
        cdef Py_ssize_t j
        update = read_update(self.type, c, self.codec.known, None)
        if c.pos < c.end and c.pos[0]:
            self.keep_overruns()
            words = self.overrun_data + row * self.plan.words
            try:
                read_words(c, words, self.plan.words)
            except DecodeError as error:
                error.within("overrun")
                raise
            words[self.plan.words - 1] &= self.last_bits
        else:
            c.pos += c.pos < c.end
            if self.overrun_data != NULL:
                memset(self.overrun_data + row * self.plan.words, 0, self.plan.words * 8)
        memcpy(self.change_data + row * self.plan.words, update.words, self.plan.words * 8)
        for k in range(self.number_count):
            column = &self.numbers[k]
            if update.slots[column.slot] != NULL:
                self.arrays[k][row] = <object>update.slots[column.slot]
            elif row:
                memcpy(column.data + row * column.size, column.data + (row - 1) * column.size, column.size)
            else:
                memcpy(column.data, column.last, column.size)
        made = list(self.lasts)
        for item in self.slot_of.values():
            slot = item
            if self.plan.leaf[slot].kind >= KIND_STRING and update.slots[slot] != NULL:
                made[self.places[slot]] = <object>update.slots[slot]
        self.lasts = made
        for j in range(len(made)):
            (<list>self.objects[j]).append(made[j])
        return 0

    cdef int made(self) except -1:
        if self.plan == NULL:
            raise TypeError("Columns without a type: use Columns(type)")
        return 0

    cdef int alone(self) except -1:
        """Before rows are added or taken: one thread."""
        self.made()
        if self.busy:
            raise RuntimeError("Columns are used by another thread")
        return 0

    cdef int enter(self) except -1:
        """Before rows are added: one thread, and a codec whose ids are known."""
        self.alone()
        self.codec.usable()
        return 0

    def add(self, messages, received=0):
        """Add a row for each MONITOR update; returns how many.

        messages: framing.Message of MONITOR with sub byte 00, anything else is a LocalProtocolError.
        received: when they came, in ns since 1970: one number, or one for each. Raises DecodeError for bytes that do
        not follow the rules (offset in that message's payload); the rows before it are kept.
        """
        cdef list items = list(messages)
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t n = len(items)
        cdef int64_t once = 0
        cdef const int64_t* each = NULL  # valid while `times` is held
        times = None
        if isinstance(received, int):
            once = received
        else:
            times = np.array(list(received), np.int64).reshape(-1)
            each = <const int64_t*>data_of(<PyObject*>times)
            if len(times) != n:
                raise ValueError(f"{len(times)} receive times for {n} messages")
        self.enter()
        self.busy = True
        try:
            self.reserve(<size_t>n)
            while start < n:
                start = self.batch(items, start, each, once)
        finally:
            self.busy = False
        return n

    cdef Py_ssize_t batch(self, list items, Py_ssize_t start, const int64_t* each, int64_t once) except -1:
        """Add up to BATCH rows; returns the first message that is not a row yet."""
        cdef Py_ssize_t n = min(<Py_ssize_t>BATCH, len(items) - start)
        cdef Py_ssize_t k
        cdef Py_ssize_t good = 0
        cdef Py_ssize_t ready = 0
        cdef size_t row
        cdef Message message
        cdef Span* span
        cdef Cursor c
        cdef list owners = []
        cdef object data = None
        wrong = None
        for k in range(n):
            message = items[start + k]
            if message.data is not data:
                owners.append(owner_of(message.data))
                data = message.data
                start_cursor(&c, owners[len(owners) - 1], 0, -1, False, False, &self.codec.caps)
            if not 0 <= message.start <= message.end <= <Py_ssize_t>c.total:
                start_cursor(&c, owners[len(owners) - 1], message.start, message.end, False, False, &self.codec.caps)  # raises
            span = &self.spans[k]
            span.pos = c.base + message.start + 5
            span.end = c.base + message.end
            if (
                message.command != MONITOR
                or message.flags & CONTROL
                or message.end - message.start < 5
                or c.base[message.start + 4]
            ):
                wrong = message
                break
            span.owner = <uint32_t>(len(owners) - 1)
            span.big = (message.flags & BIG_ENDIAN) != 0
            ready += 1
        if ready:
            self.cursor(&c, &self.spans[0])
            c.base -= 5
            self.codec.fits(self.type, &c)
        with nogil:
            while good < ready:
                span = &self.spans[good]
                row = self.rows + <size_t>good
                if self.shapes == NULL or not self.quick(span, row):
                    if not self.walk(span, row, self.found + <size_t>good * self.object_count):
                        break
                elif self.object_count:
                    memset(self.found + <size_t>good * self.object_count, 0, self.object_count * sizeof(uint8_t*))
                self.time_data[row] = once if each == NULL else each[start + good]
                good += 1
        if good:
            self.take_objects(<size_t>good, owners)
            self.rows += <size_t>good
        if good < ready:
            message = items[start + good]
            start_cursor(
                &c, owners[<Py_ssize_t>self.spans[good].owner], message.start + 5, message.end,
                (message.flags & BIG_ENDIAN) != 0, False, &self.codec.caps,
            )
            try:
                self.slow(&c, self.rows)
            except DecodeError as error:
                error.offset -= message.start
                raise
            self.time_data[self.rows] = once if each == NULL else each[start + good]
            self.rows += 1
            return start + good + 1
        if wrong is not None:
            raise LocalProtocolError(f"no MONITOR update: {wrong!r}")
        return start + good

    def add_update(self, data, offset=0, *, end=None, byteorder="little", received=0):
        """Add one row: `data[offset:end]` is a BitSet, the changed fields, and the BitSet of overruns, if it is there.

        Returns the offset behind it.
        """
        cdef Cursor c
        cdef object owner = owner_of(data)
        cdef Py_ssize_t stop = -1
        cdef int64_t time = received
        self.made()
        if end is not None:
            stop = end
            if stop < 0:
                raise ValueError(f"end {end} is negative")
        start_cursor(&c, owner, offset, stop, is_big(byteorder), False, &self.codec.caps)
        self.enter()
        self.codec.fits(self.type, &c)
        self.busy = True
        try:
            self.reserve(1)
            self.slow(&c, self.rows)
            self.time_data[self.rows] = time
            self.rows += 1
        finally:
            self.busy = False
        return <Py_ssize_t>(c.pos - c.base)

    def clear(self):
        """Forget the rows, but for what the next row takes over from the last."""
        self.alone()
        self.carry()
        self.renew()

    def take(self):
        """The rows so far as Columns of their own; this one goes on without rows, as after clear()."""
        cdef Columns taken
        self.alone()
        taken = Columns(self.type, self.names, codec=Codec(limits=self.codec.limits))
        taken.arrays, taken.objects, taken.times = self.arrays, self.objects, self.times
        taken.changes, taken.overruns = self.changes, self.overruns
        taken.change_data, taken.overrun_data, taken.time_data = self.change_data, self.overrun_data, self.time_data
        taken.rows, taken.room = self.rows, self.room
        taken.lasts = self.lasts
        self.carry()
        memcpy(taken.numbers, self.numbers, sizeof(Numbers) * self.number_count)
        self.renew()
        return taken

    cdef void carry(self) noexcept:
        """What the last row holds is what the next takes over."""
        cdef size_t k
        if self.rows:
            for k in range(self.number_count):
                memcpy(
                    self.numbers[k].last,
                    self.numbers[k].data + (self.rows - 1) * self.numbers[k].size,
                    self.numbers[k].size,
                )

    cdef int renew(self) except -1:
        """No rows. Arrays that were handed out keep their memory: it is not written again."""
        self.objects = [[] for _ in self.objects]
        self.arrays = []
        self.changes = self.overruns = self.times = None
        self.overrun_data = NULL
        self.rows = self.room = 0
        return 0

    def __len__(self):
        return self.rows

    def __getitem__(self, name, /):
        """The column of a leaf.

        A number: ndarray of shape (rows,) and the dtype of the field. A numeric array: shape (rows, n) where all have the
        same length, otherwise a list of arrays. Anything else: a list.
        """
        self.made()
        slot = self.slot_of.get(index_of(self.type, name))
        if slot is None:
            raise KeyError(name)
        return self.column(slot)

    cdef object column(self, size_t slot):
        cdef FieldDesc type = <FieldDesc>self.plan.leaf[slot].type
        if self.plan.leaf[slot].kind >= KIND_STRING:
            return stacked(list(self.objects[self.places[slot]]), type)
        if not self.rows:
            made = np.empty(0, type.dtype)
        else:
            made = self.arrays[self.places[slot]][: self.rows]
        made.flags.writeable = False
        return made

    def offsets(self, name, /):
        """A column of numeric arrays as (values, offsets): row i is values[offsets[i]:offsets[i + 1]]."""
        column = self[name]
        return offsets_of(column, self.type[name])

    def changed(self, name, /):
        """Of each row: whether the field came in it; bool, shape (rows,)."""
        return self.mask(name, 0)

    def overrun(self, name, /):
        """Of each row: whether the field changed more than once since the row before, so that values were lost."""
        return self.mask(name, 1)

    cdef object mask(self, object name, int which):
        cdef size_t node, i
        self.made()
        node = <size_t>index_of(self.type, name)
        if node not in self.slot_of:
            raise KeyError(name)
        # The bits that tell of a field: its own and those of the structures around it.
        tell = [0] * self.plan.words
        for i in range(node + 1):
            if node < self.plan.next[i]:
                tell[i // 64] |= <uint64_t>1 << (i % 64)
        found = self.overruns if which else self.changes
        if not self.rows or found is None:
            made = np.zeros(self.rows, np.bool_)
        else:
            made = (found[: self.rows] & np.array(tell, np.uint64)).any(axis=1)
        made.flags.writeable = False
        return made

    def changed_bits(self, row, /):
        """The numbers of the bits received with a row."""
        cdef object rows = self.rows
        self.made()
        if not -rows <= row < rows:
            raise IndexError(f"no row {row}")
        bits = int.from_bytes(self.changes[row % rows].astype("<u8").tobytes(), "little")
        return [i for i in range(self.plan.nodes) if bits >> i & 1]

    @property
    def time(self):
        """The time stamps of the rows, int64 ns since 1970; zeros where the type has none."""
        self.made()
        seconds, nanoseconds = self.stamps
        made = np.zeros(self.rows, np.int64)
        if seconds >= 0:
            np.multiply(self.column(self.slot_of[seconds]), 1_000_000_000, out=made, dtype=np.int64, casting="unsafe")
        if nanoseconds >= 0:
            np.add(made, self.column(self.slot_of[nanoseconds]), out=made, dtype=np.int64, casting="unsafe")
        made.flags.writeable = False
        return made

    @property
    def received(self):
        """When the rows came, as `add` was told, int64 ns since 1970."""
        made = self.times[: self.rows] if self.rows else np.empty(0, np.int64)
        made.flags.writeable = False
        return made

    def to_numpy(self):
        """A structured array, one record a row, one field a column."""
        return as_numpy(self)

    def to_arrow(self):
        """A nanoarrow.Array of structures, for anything that takes the Arrow C data interface. Needs nanoarrow, not pyarrow.

        One structure a row: `time` and `received` (timestamp[ns, UTC]; null where they are 0), then the fields by their dotted
        names. The types follow from those of the fields: numbers, which are not copied, booleans, large strings, fixed-size
        lists of arrays whose type has a length, large lists of the others. An enum is a string by its own name, its choice, and
        its index. TypeError for structure arrays, unions and anys, which have no Arrow type: name the fields that you want.
        Hand it on: ``pyarrow.record_batch(x)``, ``polars.DataFrame(x)``, ``pandas.DataFrame.from_arrow(x)``.
        """
        return as_arrow(self)

    def to_pandas(self):
        """A pandas.DataFrame with the time stamps in UTC as its index (NaT where they are 0). Needs pandas.

        Arrays and lists are objects in it; an enum is a Categorical by its own name, and its index.
        """
        return as_pandas(self)


(<PyTypeObject*>Columns).tp_name = "pvafast.Columns"

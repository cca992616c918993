"""Losses: what the updates of a subscription tell of what did not come, or came wrong."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memset

from .bitset cimport BitSet
from .introspection cimport KIND_INT8, KIND_UINT64, FieldDesc, Plan, index_of, plan_of
from .monitor cimport Update
from .value cimport Value

from .._losstext import repr_of, text_of

cdef extern from "Python.h":
    bint PyLong_Check(object) noexcept
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1

# Numbers of frames that are remembered as missing, for those that come late.
cdef enum:
    WINDOW = 64
# No numbers are left out further than that: the source began to number anew.
cdef int64_t JUMP = 1 << 24
# areaDetector's data time where no one sets it: EPICS began in 1990.
cdef int64_t EPICS_EPOCH = 631_152_000 * <int64_t>1_000_000_000
# Seconds of a time stamp whose ns fit into 64 bits.
cdef int64_t SECONDS = 9_000_000_000
# A peer could send types with ever new names.
cdef Py_ssize_t NAMES = 16_384

# The slots of the two fields of a time stamp, or -1.
cdef struct Stamp:
    int32_t seconds
    int32_t nanoseconds


@cython.final
cdef class Losses:
    """Accounts for the losses of ONE subscription: `add` every Update of it, then read the counts, or print it.

    updates: added. overruns: of how many updates the server had dropped older values, by the name of the field.
    time_back: time stamps (`timeStamp`) older than the one before; furthest_back: by how much at the most, ns.
    Of an NTNDArray: frames: updates with a uniqueId; missing: numbers left out; duplicates: frames that came again;
    late: behind a later one (they are not missing any more); restarts: the source began to number anew (it went back with
    newer data, or jumped by more than 2**24). Counters may wrap at 2**31 or 2**32; a number that is always 0 tells nothing.

    per_second: of the times in the updates, what the connection was given with the bytes; ns unless told otherwise.
    One thread at a time.
    """

    cdef readonly long long updates
    cdef readonly long long time_back
    cdef readonly long long furthest_back
    cdef readonly long long frames
    cdef readonly long long missing
    cdef readonly long long duplicates
    cdef readonly long long late
    cdef readonly long long restarts
    cdef object per_second
    cdef dict fields
    cdef int64_t first
    cdef int64_t last
    cdef int64_t timed
    cdef int64_t first_frame
    cdef int64_t last_frame
    cdef int64_t timed_frames
    cdef int64_t first_stamp
    cdef int64_t stamp
    cdef int64_t stamped
    # The latest frame: its number, its time, and which of the numbers before it are missing, a bit each.
    cdef int64_t number
    cdef int64_t frame_stamp
    cdef uint64_t absent
    cdef bint numbered
    # Where the fields are that are looked at: slots, and the bits that tell of them, `words` each.
    cdef FieldDesc type
    cdef int32_t id
    cdef Stamp time
    cdef Stamp data_time
    cdef size_t words
    cdef uint64_t* id_mask
    cdef uint64_t* time_mask

    def __cinit__(self, *args, **kwargs):
        self.id_mask = NULL
        self.time_mask = NULL
        self.per_second = 1_000_000_000
        self.fields = {}

    def __init__(self, *, per_second=1_000_000_000):
        if per_second < 1:
            raise ValueError(f"per_second {per_second}")
        self.per_second = per_second

    def __dealloc__(self):
        PyMem_Free(self.id_mask)
        PyMem_Free(self.time_mask)

    def add(self, Update update not None, /):
        """Account for an update."""
        cdef Value value
        cdef int64_t time = 0
        cdef int64_t stamp, number
        cdef int overflow = 0
        cdef bint timed = False
        if not isinstance(update.value, Value):
            raise TypeError(f"an update of a Value is needed, not {update.value.__class__.__name__}")
        value = <Value>update.value
        if value.owner is not None:
            value = value.copy()
        if value.fd is not self.type:
            self.learn(value.fd)
        self.updates += 1
        if PyLong_Check(update.time):
            time = PyLong_AsLongLongAndOverflow(update.time, &overflow)
            timed = not overflow
        if timed:
            if not self.timed:
                self.first = time
            self.last = time
            self.timed += 1
        if (<BitSet?>update.overrun).count:
            self.overrun(<BitSet>update.overrun, value.fd)
        if meets(value.words, self.time_mask, self.words):
            self.stamp_came(stamp_of(value, self.time))
        if meets(value.words, self.id_mask, self.words):
            self.frames += 1
            if timed:
                if not self.timed_frames:
                    self.first_frame = time
                self.last_frame = time
                self.timed_frames += 1
            stamp = stamp_of(value, self.data_time)
            if stamp <= EPICS_EPOCH:
                stamp = stamp_of(value, self.time)
            if integer(value, self.id, &number):
                self.frame_came(number, stamp)

    def gap(self):
        """What comes next follows on nothing: updates were lost on this side, or the subscription begins anew.

        The next frame is compared with none before it.
        """
        self.numbered = False

    @property
    def overruns(self):
        """Updates with which older values of a field were lost, by its name."""
        return dict(self.fields)

    @property
    def rate(self):
        """Updates a second, by the times that they came; None where these do not tell."""
        return rate_of(self.timed, <object>self.last - self.first, self.per_second)

    @property
    def frame_rate(self):
        """Frames a second, by the times that they came; None where these do not tell."""
        return rate_of(self.timed_frames, <object>self.last_frame - self.first_frame, self.per_second)

    @property
    def stamp_rate(self):
        """Updates a second, by their time stamps; None where these do not tell, or went back."""
        return rate_of(self.stamped, 0 if self.time_back else <object>self.stamp - self.first_stamp, 1_000_000_000)

    cdef int learn(self, FieldDesc type) except -1:
        """Where the fields are that are looked at."""
        cdef Plan* plan
        cdef size_t size
        if type is None:
            raise TypeError("a Value without a type: use Value(type)")
        plan = plan_of(type)
        size = plan.words * 8
        self.type = None
        PyMem_Free(self.id_mask)
        PyMem_Free(self.time_mask)
        self.id_mask = <uint64_t*>PyMem_Malloc(size + 1)
        self.time_mask = <uint64_t*>PyMem_Malloc(size + 1)
        if self.id_mask == NULL or self.time_mask == NULL:
            raise MemoryError()
        memset(self.id_mask, 0, size)
        memset(self.time_mask, 0, size)
        self.words = plan.words
        self.id = place(type, "uniqueId", self.id_mask)
        self.time.seconds = place(type, "timeStamp.secondsPastEpoch", self.time_mask)
        self.time.nanoseconds = place(type, "timeStamp.nanoseconds", self.time_mask)
        self.data_time.seconds = place(type, "dataTimeStamp.secondsPastEpoch", NULL)
        self.data_time.nanoseconds = place(type, "dataTimeStamp.nanoseconds", NULL)
        self.type = type
        return 0

    cdef int overrun(self, BitSet bits, FieldDesc type) except -1:
        names = type.names
        for node in bits.expand(type):
            name = names[node]
            if name in self.fields or len(self.fields) < NAMES:
                self.fields[name] = self.fields.get(name, 0) + 1
        return 0

    cdef void stamp_came(self, int64_t stamp) noexcept:
        if not stamp:
            return  # it is not set
        if not self.stamped:
            self.first_stamp = stamp
        elif stamp < self.stamp:
            self.time_back += 1
            self.furthest_back = max(self.furthest_back, self.stamp - stamp)
        self.stamped += 1
        self.stamp = stamp

    cdef void frame_came(self, int64_t number, int64_t stamp) noexcept:
        # Beyond 64 bits it is neither a small step nor one back.
        cdef int64_t step = <int64_t>(<uint64_t>number - <uint64_t>self.number)
        cdef uint64_t bit
        if (step < 0) != (number < self.number):
            step = JUMP + 1
        if self.numbered:
            if not step and not number:
                return  # nobody numbers them
            if step < 0:
                if 0 < step + (<int64_t>1 << 31) <= JUMP:
                    step += <int64_t>1 << 31
                elif 0 < step + (<int64_t>1 << 32) <= JUMP:
                    step += <int64_t>1 << 32
            if 0 < step <= JUMP:
                self.missing += step - 1
                if step < WINDOW:
                    bit = <uint64_t>1 << step
                    self.absent = self.absent << step | (bit - 2 if step > 1 else 0)
                else:
                    self.absent = ~<uint64_t>1
            elif -WINDOW < step <= 0 and self.is_old(number, stamp):
                bit = <uint64_t>1 << -step
                if self.absent & bit:
                    self.absent &= ~bit
                    self.missing -= 1
                    self.late += 1
                else:
                    self.duplicates += 1
                return
            else:
                self.restarts += 1
                self.absent = 0
        else:
            self.numbered = True
            self.absent = 0
        self.number = number
        self.frame_stamp = stamp

    cdef bint is_old(self, int64_t number, int64_t stamp) noexcept:
        """Whether a frame whose number has gone back is one of those before: its time tells, or else whether numbers begin there."""
        if stamp and self.frame_stamp:
            return stamp <= self.frame_stamp
        return number == self.number or number > 1

    def __str__(self):
        return text_of(self)

    def __repr__(self):
        return repr_of(self)


cdef bint meets(const uint64_t* words, const uint64_t* mask, size_t count) noexcept:
    cdef size_t w
    for w in range(count):
        if words[w] & mask[w]:
            return True
    return False


cdef object rate_of(object count, object span, object per_second):
    return (count - 1) * per_second / span if count > 1 and span > 0 else None


cdef int32_t place(FieldDesc type, str name, uint64_t* mask) except -2:
    """The slot of an integer; -1 if the type has none of that name. The bits that tell of it are added to a mask."""
    cdef Plan* plan = plan_of(type)
    cdef size_t node, i
    cdef uint8_t kind
    if name not in type:
        return -1
    node = <size_t>index_of(type, name)
    if plan.first[node + 1] - plan.first[node] != 1 or plan.leaf[plan.first[node]].node != node:
        return -1
    kind = plan.leaf[plan.first[node]].kind
    if not KIND_INT8 <= kind <= KIND_UINT64:
        return -1
    if mask != NULL:
        for i in range(node + 1):
            if node < plan.next[i]:
                mask[i // 64] |= <uint64_t>1 << (i % 64)
    return <int32_t>plan.first[node]


cdef bint integer(Value value, int32_t slot, int64_t* number) except -1:
    """A field that has come, or 0; False for what does not fit into 64 bits with a sign."""
    cdef PyObject* held = value.slots[slot]
    cdef int overflow = 0
    number[0] = 0
    if held != NULL:
        number[0] = PyLong_AsLongLongAndOverflow(<object>held, &overflow)
    return not overflow


cdef int64_t stamp_of(Value value, Stamp places) except? -1:
    """A time stamp in ns; 0 if there is none."""
    cdef int64_t seconds = 0
    cdef int64_t nanoseconds = 0
    if places.seconds >= 0 and not integer(value, places.seconds, &seconds):
        return 0
    if places.nanoseconds >= 0 and not integer(value, places.nanoseconds, &nanoseconds):
        return 0
    if not -SECONDS < seconds < SECONDS or not -SECONDS < nanoseconds < SECONDS:
        return 0
    return seconds * 1_000_000_000 + nanoseconds


(<PyTypeObject*>Losses).tp_name = "pvafast.Losses"

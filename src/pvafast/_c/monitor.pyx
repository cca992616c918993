"""Update: a MONITOR update as connections hand it out at full rate, and the straight way from messages to it."""

cimport cython
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint8_t, uint32_t

from .bitset cimport BitSet, read_bitset
from .buffer cimport Caps, Cursor, get32, left, load_caps, owner_of, start_cursor
from .codec cimport Codec, type_of
from .framing cimport Message, receive
from .introspection cimport FieldDesc, same_type
from .projection cimport Projection, read_projected_update
from .value cimport Value, read_update

from ..errors import DecodeError
from ..limits import Limits

cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(object, object) except? NULL

cdef enum:
    MONITOR = 13
    CONTROL = 0x01
    FROM_SERVER = 0x40
    BIG_ENDIAN = 0x80

cdef BitSet NO_BITS = BitSet()
cdef Caps CAPS
load_caps(Limits(), &CAPS)


@cython.final
@cython.freelist(256)
cdef class Update:
    """A monitor update.

    operation: what the connection knows of the subscription. frame: the message. value: laid over the one before;
    `value.changed` are the fields that came. overrun: fields that changed more than once, of which older values are
    lost. time: what the connection was given with the bytes. seen: of an observed conversation, the fields that ever
    came; note: what is not known of it.
    """

    def __init__(self, operation, frame, value, overrun=NO_BITS, time=None, seen=NO_BITS, note=""):
        self.operation = operation
        self.frame = frame
        self.value = value
        self.overrun = overrun
        self.time = time
        self.seen = seen
        self.note = note

    @property
    def direction(self):
        """Who sent it: "server"."""
        return "server"

    @property
    def offset(self):
        """Of its header in the stream."""
        return self.frame.offset

    @property
    def ioid(self):
        """The number of the operation."""
        return self.operation.ioid

    @property
    def command(self):
        """MONITOR."""
        return MONITOR

    @property
    def message(self):
        """The same as a pvafast.messages.MonitorUpdate, made when asked for."""
        return self.operation.update_message(self)

    @property
    def sid(self):
        """The server's number of the channel, where it is known."""
        return self.operation.channel_sid

    @property
    def cid(self):
        """The client's number of the channel, where it is known."""
        return self.operation.channel_cid

    @property
    def status(self):
        """An update has none."""
        return None

    @property
    def pv(self):
        """The name of the channel."""
        return self.operation.pv

    @property
    def payload(self):
        """The bytes of the update as they came, in the order `frame.byteorder`: BitSet, changed fields, BitSet of overruns.

        An any in them may refer to type ids of the connection.
        """
        return self.frame.payload[5:]

    @property
    def type(self):
        """The type of the value."""
        return self.value.type

    def __repr__(self):
        overrun = f", overrun={self.overrun!r}" if self.overrun else ""
        note = f" ({self.note})" if self.note else ""
        return f"<Update {self.pv!r} {self.value!r}{overrun}{note}>"


def receive_updates(
    framer not None, list chunks not None, list times not None, Py_ssize_t first, dict operations not None, Codec codec not None,
    list found not None,
):
    """Feed chunks[first:] to the framer and append the updates in them to `found`, as long as all messages are plain.

    Returns how many chunks were fed, and None if there was nothing else; otherwise the messages of the last one that follow
    its updates, behind which `framer.messages` may have more to say. times: of each chunk, and so of the updates whose
    last byte is in it. What is plain `read_updates` tells.
    """
    cdef list messages
    cdef Py_ssize_t at, taken
    cdef bint damaged = False
    for at in range(first, len(chunks)):
        time = times[at]
        messages = receive(framer, chunks[at], &damaged)
        taken = _read(messages, 0, operations, codec, time, found) if messages else 0
        if taken < len(messages) or damaged:
            return at + 1, messages[taken:]
    return len(chunks), None


def read_updates(list messages not None, Py_ssize_t first, dict operations not None, Codec codec not None, time=None):
    """The updates that `messages[first:]` begin with, up to the first message that is not plain.

    Plain is a MONITOR update without bytes left over whose operation is in `operations` and has a type, or a Projection of one,
    in its attribute `steady`, which must hold no any: a second attempt at it could not tell. The operation's `value` is the base of the
    update, and becomes the value of it. Its `seen` goes into the Update, and an update with bits that are not in it is
    not plain (None: any is). What is damaged is not plain: nothing is raised.
    """
    cdef list found = []
    _read(messages, first, operations, codec, time, found)
    return found


cdef Py_ssize_t _read(
    list messages, Py_ssize_t first, dict operations, Codec codec, object time, list found
) except -1:
    """`read_updates`, which are appended to `found`; returns how many there were."""
    cdef Py_ssize_t i, before = len(found)
    cdef Message message
    cdef Cursor c
    cdef object data = None
    cdef object owner = None
    cdef object base, steady
    cdef PyObject* hit
    cdef FieldDesc type = None
    cdef Value value
    cdef BitSet overrun
    cdef Update update
    cdef object operation = None
    if codec.known.broken:
        return 0
    for i in range(first, len(messages)):
        message = messages[i]
        if message.command != MONITOR or message.flags & CONTROL or not message.flags & FROM_SERVER:
            break
        if message.data is not data:
            data = message.data
            owner = owner_of(data)
        start_cursor(
            &c, owner, message.start, message.end, (message.flags & BIG_ENDIAN) != 0, False, &codec.caps
        )
        if left(&c) < 5 or c.pos[4]:
            break
        hit = PyDict_GetItemWithError(operations, get32(c.pos, c.swap))
        if hit == NULL:
            break
        operation = <object>hit
        steady = operation.steady
        if steady is None:
            break
        type = type_of(steady)
        c.pos += 5
        base = operation.value
        if base is not None:
            if not (isinstance(base, Value) and same_type((<Value>base).type, type)):
                break
            if (<Value>base).origin != NULL:
                base = <object>(<Value>base).origin
        try:
            codec.fits(type, &c)
            if steady is type:
                value = read_update(type, &c, codec.known, <Value>base)
            else:
                value = read_projected_update(<Projection>steady, &c, codec.known, <Value>base)
            if c.pos < c.end and c.pos[0] == 0:
                c.pos += 1
                overrun = NO_BITS
            else:
                overrun = read_bitset(&c)
        except DecodeError:
            break
        if c.pos != c.end:
            break
        seen = operation.seen
        if seen is not None and not within(value, <BitSet?>seen):
            break
        operation.value = value
        update = Update.__new__(Update)
        update.operation = operation
        update.frame = message
        update.value = value
        update.overrun = overrun
        update.time = time
        update.seen = NO_BITS if seen is None else seen
        update.note = ""
        found.append(update)
    return len(found) - before


def run_length(list messages not None, Py_ssize_t first):
    """How many of `messages[first:]` are, one after the other, updates of the same subscription, in the same byte order; 0 if the
    first is no MONITOR update.
    """
    cdef Py_ssize_t found = 0
    cdef Py_ssize_t i
    cdef Message message
    cdef Cursor c
    cdef const uint8_t* pos
    cdef uint32_t ioid = 0
    cdef uint8_t flags = 0
    cdef object data = None
    cdef object owner = None
    for i in range(first, len(messages)):
        message = messages[i]
        if message.command != MONITOR or message.flags & CONTROL or message.end - message.start < 5:
            break
        if message.data is not data:
            data = message.data
            owner = owner_of(data)
            start_cursor(&c, owner, 0, -1, False, False, &CAPS)
        if <size_t>message.end > c.total:
            break
        pos = c.base + message.start
        if pos[4]:
            break
        if not found:
            ioid = get32(pos, False)
            flags = message.flags
        elif message.flags != flags or get32(pos, False) != ioid:
            break
        found += 1
    return found


cdef bint within(Value value, BitSet seen) noexcept:
    """Whether the changed bits are all in `seen`."""
    cdef size_t w
    for w in range(value.plan.words):
        if value.words[w] & ~(seen.words[w] if w < seen.count else 0):
            return False
    return True


(<PyTypeObject*>Update).tp_name = "pvafast.Update"

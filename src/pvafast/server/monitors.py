"""Subscriptions: what is posted, encoded once for all that get the same; queues that stay bounded whoever reads slowly."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

from .._backend import bitset, value
from ..connection import EncodedUpdate
from ..connection.events import NO_BITS
from ..request import Selection

if TYPE_CHECKING:
    from .pv import PV
    from .session import Session

Value = value.Value
BitSet = bitset.BitSet

# A client may ask for a queue of 2**32 updates of a megabyte each: Server(queue_bytes=) bounds them, and this the objects.
QUEUE_MAX: Final = 65_536
# As pvxs.
QUEUE_DEFAULT: Final = 4
# What other threads post waits here until the loop has its turn: that is not yet a slow client.
_SOON: Final = 1 << 18


@final
class Group:
    """The subscriptions of a PV that get the same bytes: they select the same, in the same byte order."""

    __slots__ = ("byteorder", "pv", "selection", "subscriptions")

    def __init__(self, pv: PV, selection: Selection, byteorder: str) -> None:
        self.pv = pv
        self.selection = selection
        self.byteorder = byteorder
        self.subscriptions: dict[Subscription, None] = {}

    @property
    def key(self) -> tuple[tuple[str, ...], str]:
        """What those have in common that get the same bytes, as long as the type stays."""
        return self.selection.names(), self.byteorder

    def post(self, update: Value, thread: int) -> None:
        """Send or queue an update, under the lock of the PV, in the thread of this number."""
        if not self.selection.is_all:
            update = self.selection.masked(update)
            if not update.changed:
                return
        encoded = EncodedUpdate(update, self.byteorder)
        for subscription in self.subscriptions:
            subscription.push(encoded, thread)

    def whole(self) -> EncodedUpdate:
        """All that is selected, as it is now."""
        return EncodedUpdate(self.selection.whole(self.pv.current()), self.byteorder)

    def rest(self, bits: BitSet) -> EncodedUpdate:
        """Some fields, as they are now."""
        return EncodedUpdate(self.selection.update(self.pv.current(), bits), self.byteorder)

    def leaves(self, bits: BitSet) -> BitSet:
        """The selected fields that bits stand for, each by its own bit."""
        return BitSet(bits.expand(self.selection.full)) & self.selection.mask


@final
class Subscription:
    """One monitor of one client.

    Updates that the client is not ready for wait in `queue`. When that is full, only the bits of later ones are kept, in
    `late`, and those among them that changed more than once in `overrun`: their fields are taken from the PV when the client
    is ready, so that a slow client costs no more than its queue. All but flush() belongs under the lock of the PV.
    """

    __slots__ = (
        "_session", "dropped", "group", "ioid", "late", "overrun", "queue", "size", "waking", "whole"
    )  # fmt: skip

    def __init__(self, session: Session, ioid: int, group: Group, size: int) -> None:
        self._session = session
        self.ioid = ioid
        self.group = group
        self.size = size
        self.queue: deque[EncodedUpdate] = deque()
        self.late: BitSet | None = None
        self.overrun = NO_BITS
        # The first update is due: everything.
        self.whole = False
        # The loop was asked to flush.
        self.waking = False
        # Updates that were merged into others.
        self.dropped = 0

    def push(self, update: EncodedUpdate, thread: int) -> None:
        """An update was posted, in the thread of this number."""
        session = self._session
        if self.whole:
            return  # will be in the first one
        if self.late is not None:
            more = self.group.leaves(update.changed)
            self.overrun |= self.late & more
            self.late |= more
            self.dropped += 1
            return
        ready = session.ready(self.ioid)
        queue = self.queue
        if thread == session.thread:
            if ready and not queue:
                session.send_update(self.ioid, update)
                return
            session.block(self)
        elif not self.waking:
            self.waking = True
            session.wake(self)
        self.group.pv.fell_behind(self)
        some = len(queue) + 1 < self.size or (ready and len(queue) < QUEUE_MAX and session.queued < _SOON)
        if some and session.queued + update.size <= session.queue_bytes:
            queue.append(update)
            session.count(update.size)
        else:
            self.late = self.group.leaves(update.changed)

    @property
    def started(self) -> bool:
        """Updates may flow."""
        return self in self.group.subscriptions

    def start(self) -> None:
        """Updates may flow: the first one holds everything."""
        self.group = self.group.pv.join(self.group)
        self.group.subscriptions[self] = None
        self.whole = True
        self.group.pv.fell_behind(self)

    def stop(self) -> None:
        """No more updates; what waits is dropped."""
        self.group.subscriptions.pop(self, None)
        self.group.pv.leave(self.group)
        self._session.count(-sum(update.size for update in self.queue))
        self.queue.clear()
        self.late = None
        self.overrun = NO_BITS
        self.whole = False
        self.group.pv.caught_up(self)

    def seal(self) -> None:
        """The PV is about to lose its value: what was to be taken from it is taken now."""
        if self.whole:
            self.queue.append(self.group.whole())
        elif self.late is not None:
            self.queue.append(self.group.rest(self.late))
        else:
            return
        self._session.count(self.queue[-1].size)
        self.whole = False
        self.late = None

    def flush(self) -> None:
        """Send what the client is ready for. In the thread of the loop."""
        session = self._session
        with self.group.pv.lock:
            self.waking = False
            while self.whole or self.queue or self.late is not None:
                if not session.ready(self.ioid):
                    session.block(self)
                    return
                if self.whole:
                    self.whole = False
                    session.send_update(self.ioid, self.group.whole())
                elif self.queue:
                    update = self.queue.popleft()
                    session.count(-update.size)
                    # Without `late` the overrun bits are those of the last one: seal().
                    last = not self.queue and self.late is None
                    session.send_update(self.ioid, update, self.overrun if last else NO_BITS)
                else:
                    assert self.late is not None
                    late, overrun = self.late, self.overrun
                    self.late, self.overrun = None, NO_BITS
                    session.send_update(self.ioid, self.group.rest(late), overrun)
            self.group.pv.caught_up(self)

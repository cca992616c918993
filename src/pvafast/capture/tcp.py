"""TCP segments -> the streams of connections, in bounded memory.

What the two ends of a connection saw is put together again: segments that come twice, late, overlapping or out of
order. Bytes that are in no packet become an explicit Gap: at once where the snap length cut them; otherwise when their
receiver has acknowledged them and a few packets later they are still missing, or after 5 s, or when too much waits
behind them, or at the close.

A sequence number is compared modulo 2**32: up to 2**31 ahead is future, the rest is past.
"""

from __future__ import annotations

import heapq
from typing import Final, Literal, final

from .._backend import packets
from .events import Clock, Closed, Connection, Data, Event, Gap, Opened
from .links import address

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

# A connection costs about 1.5 KB here, and whatever the reader of the events keeps for it until Closed.
CONNECTIONS_LIMIT: Final = 65_536
# A SYN costs an attacker 40 bytes. Connections without data are forgotten first, and silently.
EMBRYOS_LIMIT: Final = 16_384
# Closed connections are remembered for a while, so that a late segment does not appear as a new connection.
GRAVES_LIMIT: Final = 16_384
# What waits behind a hole: as much as the largest windows of a tuned Linux, for one direction and for all.
HELD_LIMIT: Final = 16 << 20
HELD_LIMIT_ALL: Final = 64 << 20
_HELD_COST: Final = 256  # bytes of memory besides its data
_HOLE_AGE: Final = 5_000_000_000
# Network cards with several queues hand over packets a little out of order: an acknowledged hole is given up after
# this many packets of its connection, or this long.
_PATIENCE: Final = 16
_ACKED_AGE: Final = 100_000_000
# Further apart than any window: such segments belong to another life of the ports. So many of them in a row are believed.
_FAR: Final = 64 << 20
_STRAYS: Final = 8
# So long after the close a segment can be a late one of the old connection.
_LINGER: Final = 2_000_000_000

_MASK: Final = 0xFFFFFFFF
_HALF: Final = 1 << 31
_EMBRYO, _OPEN, _CLOSED = 0, 1, 2


@final
class Half(packets.Flow):
    """One direction of a connection.

    fast: nothing is out of the ordinary. next, acked: -1 before the first. isn: sequence number of its SYN, -1 where that
    was not seen. fin: of its FIN.
    held: a heap of (position, order, payload, missing, time, clock) behind a hole; position counts from `base`, which
    moves with `next`.
    """

    __slots__ = (
        "base",
        "done",
        "fin",
        "held",
        "held_cost",
        "hole_since",
        "isn",
        "patience",
        "stray_at",
        "strays",
    )

    connection: Connection
    peer: Half

    def __init__(self, connection: Connection, side: int) -> None:
        super().__init__(connection, side)
        self.isn = self.fin = self.stray_at = -1
        self.done = False
        self.held: list[tuple[int, int, bytes, int, int, Clock]] = []
        self.held_cost = 0
        self.base = 0
        self.hole_since = 0
        self.patience = _PATIENCE
        self.strays = 0


def reverse(key: bytes) -> bytes:
    """The key of the other direction. A key is source, destination (4 or 16 bytes each) and their ports (2 each)."""
    size = (len(key) - 4) // 2
    return key[size : 2 * size] + key[:size] + key[-2:] + key[-4:-2]


def ends(key: bytes) -> tuple[str, str]:
    """(source, destination) of a key as text."""
    size = (len(key) - 4) // 2
    source, target = int.from_bytes(key[-4:-2], "big"), int.from_bytes(key[-2:], "big")
    return address(key[:size], source), address(key[size : 2 * size], target)


@final
class Streams:
    """All connections of a capture. `flows` maps the key of a direction to its Half."""

    def __init__(
        self,
        *,
        connections: int = CONNECTIONS_LIMIT,
        embryos: int = EMBRYOS_LIMIT,
        held: int = HELD_LIMIT,
        held_all: int = HELD_LIMIT_ALL,
    ) -> None:
        self.flows: dict[bytes, Half] = {}
        self.duplicates = 0  # segments that brought nothing new
        self.held_cost = 0
        self._limit, self._embryos_limit = connections, embryos
        self._held_limit, self._held_limit_all = held, held_all
        self._open: dict[Connection, None] = {}
        self._embryos: dict[Connection, None] = {}
        self._graves: dict[Connection, int] = {}  # -> nanoseconds of the close
        self._holes: dict[Half, None] = {}
        # Both sides sent FIN, but bytes before it are missing: -> nanoseconds since.
        self._ending: dict[Connection, int] = {}
        self._number = 0
        self._order = 0
        self._packets = 0
        self._events: list[Event] = []

    def segment(
        self,
        key: bytes,
        sequence: int,
        ack: int,
        flags: int,
        payload: bytes,
        missing: int,
        time: int,
        clock: Clock,
        packet: int,
    ) -> list[Event]:
        """What one segment changes. packet: a number that grows with each packet."""
        self._packets = packet
        events = self._events = []
        half = self.flows.get(key)
        if flags & RST:
            if half is not None and half.connection._state != _CLOSED:
                self._reset(half, sequence, flags, time, clock)
            return events
        if flags & SYN:
            half = self._syn(half, key, sequence, ack, flags, time, clock)
            sequence = (sequence + 1) & _MASK
        size = len(payload) + missing
        if half is None or half.connection._state == _CLOSED:
            if not size or (half is not None and self._late(half, sequence, time, clock)):
                return events
            half = self._new(key, opener_known=False)
        half.touched = packet
        if flags & ACK:
            half.peer.acked = ack
        if half.next < 0 and size == 1 and not flags & (PSH | SYN | FIN):
            # A keep-alive probe: the byte was sent before, or is none at all.
            half.next = (sequence + 1) & _MASK
            size = 0
        if half.next < 0 and size:
            half.next = sequence
        if flags & FIN and half.fin < 0:
            fin = (sequence + size) & _MASK
            if half.next < 0:
                half.next = fin
            if (fin - half.next) & _MASK < _FAR:
                half.fin = fin
                if half.peer.fin >= 0:
                    self._ending[half.connection] = clock.nanoseconds(time)
        if half.next >= 0:
            if size and not half.done:
                self._take(half, sequence, payload, missing, time, clock)
            if half.held:
                self._consider(half, time, clock)
            if half.peer.held:
                self._consider(half.peer, time, clock)
            self._finish(half, time, clock)
            self._finish(half.peer, time, clock)
        connection = half.connection
        if connection._state == _OPEN:
            for each in (half, half.peer):
                each.fast = each.next >= 0 and each.fin < 0 and not each.held and not each.peer.held
        return events

    def sweep(self, time: int, clock: Clock) -> list[Event]:
        """Give up the holes that are too old in connections that have gone silent. Called now and then."""
        self._events = []
        now = clock.nanoseconds(time)
        for half in list(self._holes):
            # With one direction the other may have been closed.
            if half in self._holes and now - half.hole_since > _HOLE_AGE:
                self._give_up(half)
                self._finish(half, time, clock)
        for connection, since in list(self._ending.items()):
            if now - since > _HOLE_AGE:
                self._close(connection, "fin", time, clock)
        return self._events

    def end(self, time: int, clock: Clock) -> list[Event]:
        """The capture ends: whatever is held, and Closed for every connection that is open."""
        self._events = []
        for connection in list(self._open):
            self._close(connection, "fin" if connection in self._ending else "end", time, clock)
        self.flows.clear()
        self._embryos.clear()
        self._graves.clear()
        return self._events

    # -- connections

    def _new(self, key: bytes, *, opener_known: bool, flip: bool = False) -> Half:
        """A new connection, whose Half for `key` is returned; flip: the other side opened it."""
        back = reverse(key)
        keys = (back, key) if flip else (key, back)
        connection = Connection(ends(keys[0]), opener_known=opener_known)
        halves = Half(connection, 0), Half(connection, 1)
        halves[0].peer, halves[1].peer = halves[1], halves[0]
        halves[0].touched = halves[1].touched = self._packets
        connection._keys, connection._halves = keys, halves
        self._forget(self.flows.get(key))
        self.flows[keys[0]], self.flows[keys[1]] = halves
        self._embryos[connection] = None
        if len(self._embryos) > self._embryos_limit:
            self._forget(next(iter(self._embryos))._halves[0])
        return halves[1] if flip else halves[0]

    def _forget(self, half: Half | None) -> None:
        """Drop a connection without data, or one that is closed, from all tables."""
        if half is None:
            return
        connection = half.connection
        self._embryos.pop(connection, None)
        self._graves.pop(connection, None)
        self._ending.pop(connection, None)
        for key, each in zip(connection._keys, connection._halves, strict=True):
            if self.flows.get(key) is each:
                del self.flows[key]
        connection._state = _CLOSED

    def _opened(self, connection: Connection, time: int, clock: Clock) -> None:
        if len(self._open) >= self._limit:
            self._evict(time, clock)
        del self._embryos[connection]
        self._open[connection] = None
        connection._state = _OPEN
        connection.number = self._number
        self._number += 1
        connection.started[:] = [half.isn >= 0 for half in connection._halves]
        self._events.append(Opened(connection, time, clock))

    def _evict(self, time: int, clock: Clock) -> None:
        """Close those that have been silent longest, an eighth of all: sorting costs little then."""
        by_age = sorted(self._open, key=lambda c: max(c._halves[0].touched, c._halves[1].touched))
        for connection in by_age[: max(len(by_age) // 8, 1)]:
            self._close(connection, "idle", time, clock)
            self._forget(connection._halves[0])

    def _close(
        self,
        connection: Connection,
        reason: Literal["fin", "reset", "refused", "reused", "idle", "end"],
        time: int,
        clock: Clock,
    ) -> None:
        for half in connection._halves:
            while half.held:
                self._give_up(half)
            self._tail(half, time, clock)
            half.fast = False
        self._ending.pop(connection, None)
        if connection._state == _OPEN:
            del self._open[connection]
            self._events.append(Closed(connection, time, clock, reason))
        else:
            self._embryos.pop(connection, None)
        connection._state = _CLOSED
        self._graves[connection] = clock.nanoseconds(time)
        if len(self._graves) > GRAVES_LIMIT:
            self._forget(next(iter(self._graves))._halves[0])

    def _tail(self, half: Half, time: int, clock: Clock) -> None:
        """Report what was acknowledged, or came before a FIN, but is in no packet."""
        if half.next < 0 or half.done or half.connection.ignored:
            return
        until = half.fin if half.fin >= 0 else half.acked
        if until < 0:
            return
        lost = (until - half.next) & _MASK
        if half.fin < 0 and lost == 1:
            lost = 0  # the acknowledgement of a FIN that was not captured
        if 0 < lost < _FAR:
            self._emit(half, b"", lost, "lost", time, clock)

    def _late(self, half: Half, sequence: int, time: int, clock: Clock) -> bool:
        """Whether data on a closed connection are a late segment of it, not a new connection whose SYN is not there."""
        near = half.next < 0 or min((sequence - half.next) & _MASK, (half.next - sequence) & _MASK) < _FAR
        return near and abs(clock.nanoseconds(time) - self._graves.get(half.connection, 0)) < _LINGER

    def _syn(
        self, half: Half | None, key: bytes, sequence: int, ack: int, flags: int, time: int, clock: Clock
    ) -> Half:
        answer = bool(flags & ACK)
        if half is not None:
            peer = half.peer
            if half.isn == sequence:
                return half  # sent or captured again
            fresh = half.isn < 0 and half.connection._state != _CLOSED
            if fresh and half.next >= 0:
                if (half.next - sequence - 1) & _MASK < _FAR:
                    half.isn = sequence  # captured later than the first data
                    return half
                fresh = False
            if fresh and (_acknowledges(ack, peer) if answer else peer.isn >= 0):
                half.isn, half.next = sequence, (sequence + 1) & _MASK
                half.connection.started[half.side] = True
                return half
            if half.connection._state != _CLOSED:
                self._close(half.connection, "reused", time, clock)
        half = self._new(key, opener_known=True, flip=answer)
        half.isn, half.next = sequence, (sequence + 1) & _MASK
        if answer:  # tells where the other direction begins, too
            half.peer.isn, half.peer.next = (ack - 1) & _MASK, ack
        return half

    def _reset(self, half: Half, sequence: int, flags: int, time: int, clock: Clock) -> None:
        connection = half.connection
        if connection._state == _EMBRYO:
            if half.isn < 0 <= half.peer.isn and flags & ACK:
                self._opened(connection, time, clock)
                self._close(connection, "refused", time, clock)
            else:
                self._close(connection, "reset", time, clock)
            return
        ahead = (sequence - half.next) & _MASK
        if half.next < 0 or ahead < _FAR or ahead > _MASK - _FAR:
            self._close(connection, "reset", time, clock)

    def _finish(self, half: Half, time: int, clock: Clock) -> None:
        if half.next >= 0 and half.fin == half.next and not half.done:
            half.done = True
            half.next = (half.next + 1) & _MASK
            if half.peer.done and half.connection._state != _CLOSED:
                self._close(half.connection, "fin", time, clock)

    # -- bytes

    def _emit(
        self,
        half: Half,
        payload: bytes,
        missing: int,
        reason: Literal["lost", "cut"],
        time: int,
        clock: Clock,
    ) -> None:
        """Hand on the bytes at `next`."""
        size = len(payload) + missing
        half.next = (half.next + size) & _MASK
        half.base += size
        connection = half.connection
        if connection._state == _EMBRYO:
            self._opened(connection, time, clock)
        if connection.ignored:
            return
        if payload:
            self._events.append(Data(connection, half.side, time, clock, payload))
        if missing:
            self._events.append(Gap(connection, half.side, time, clock, missing, reason))

    def _take(self, half: Half, sequence: int, payload: bytes, missing: int, time: int, clock: Clock) -> None:
        """Bytes that may lie before, at or behind `next`."""
        ahead = (sequence - half.next) & _MASK
        size = len(payload) + missing
        if ahead >= _HALF:
            behind = _MASK + 1 - ahead
            if behind >= size:
                if behind <= _FAR:
                    self.duplicates += 1
                    return
                half.strays = half.strays + 1 if half.stray_at == half.next else 1
                half.stray_at = half.next
                if half.strays < _STRAYS:
                    return
                # The capture lost over 2 GiB, or the SYN of a new connection: go on here.
                while half.held:
                    self._give_up(half)
                self._emit(half, b"", (sequence - half.next) & _MASK, "lost", time, clock)
                half.fin = -1
            else:
                payload, missing = _behind(payload, missing, behind)
        elif ahead and not half.connection.ignored:
            self._hold(half, ahead, payload, missing, time, clock)
            return
        elif ahead:
            self._emit(half, b"", ahead, "lost", time, clock)
        self._emit(half, payload, missing, "cut", time, clock)
        if half.held:
            self._release(half)

    def _hold(self, half: Half, ahead: int, payload: bytes, missing: int, time: int, clock: Clock) -> None:
        if half.connection._state == _EMBRYO:
            self._opened(half.connection, time, clock)
        if not half.held:
            half.base = 0
            half.hole_since = clock.nanoseconds(time)
            half.patience = _PATIENCE
            self._holes[half] = None
        self._order += 1
        heapq.heappush(half.held, (half.base + ahead, self._order, payload, missing, time, clock))
        cost = len(payload) + _HELD_COST
        half.held_cost += cost
        self.held_cost += cost
        while half.held_cost > self._held_limit:
            self._give_up(half)
        while self.held_cost > self._held_limit_all:
            self._give_up(next(iter(self._holes)))

    def _release(self, half: Half) -> None:
        """Hand on what is held and has come in reach."""
        held = half.held
        progress = False
        while held and held[0][0] <= half.base:
            position, _, payload, missing, time, clock = heapq.heappop(held)
            cost = len(payload) + _HELD_COST
            half.held_cost -= cost
            self.held_cost -= cost
            progress = True
            behind = half.base - position
            if behind >= len(payload) + missing:
                self.duplicates += 1
                continue
            payload, missing = _behind(payload, missing, behind)
            self._emit(half, payload, missing, "cut", time, clock)
        if not held:
            self._holes.pop(half, None)
        elif progress:
            half.hole_since = held[0][5].nanoseconds(held[0][4])  # another hole
            half.patience = _PATIENCE
            self._holes[half] = self._holes.pop(half)

    def _consider(self, half: Half, time: int, clock: Clock) -> None:
        """Give up the first hole if nobody will fill it any more."""
        age = abs(clock.nanoseconds(time) - half.hole_since)
        hole = half.held[0][0] - half.base
        if half.acked >= 0 and hole <= (half.acked - half.next) & _MASK < _HALF:
            half.patience -= 1
            if half.patience <= 0 or age > _ACKED_AGE:
                self._give_up(half)
        elif age > _HOLE_AGE:
            self._give_up(half)

    def _give_up(self, half: Half) -> None:
        position, _, _, _, time, clock = half.held[0]
        if position > half.base:
            self._emit(half, b"", position - half.base, "lost", time, clock)
        self._release(half)


def _behind(payload: bytes, missing: int, count: int) -> tuple[bytes, int]:
    """(payload, missing) without their first `count` bytes."""
    return (payload[count:], missing) if count <= len(payload) else (b"", missing - (count - len(payload)))


def _acknowledges(ack: int, half: Half) -> bool:
    """Whether `ack`, of an answer to a SYN, fits what is known of the direction: its SYN, with or without data."""
    if half.next < 0:
        return False
    back = (half.next - ack) & _MASK
    return back < _FAR if half.isn < 0 else back <= (half.next - half.isn - 1) & _MASK

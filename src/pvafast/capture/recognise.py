"""Whether a TCP connection is PVA, told from its bytes: on any port, from either side, also in the middle of the stream.

A stream that is seen from its first byte begins with a header or is not PVA. In the middle of a stream one header may be
chance, so it has to lead to the next one: where that must be is remembered, however far it is, while the bytes between are
let go. So a camera's frames of many megabytes are recognised, too, in little memory.
"""

from __future__ import annotations

import re
from heapq import heappop, heappush
from typing import Final, NamedTuple, final

from .events import Connection, Data, Gap

# How far into one direction of a stream that is joined in its middle PVA is looked for: two of the largest frames.
_LOOK: Final = 64 << 20
# Bytes kept meanwhile for one connection, so that little is lost once it is recognised; 65,536 connections can wait at once.
_KEPT: Final = 16_384
# Headers that wait for the next one: chance makes two or three in 64 MiB.
_CANDIDATES: Final = 64
# Sizes above are usual in commands that carry values alone.
_VALUES: Final = frozenset({10, 11, 12, 13, 14, 19, 20})
_USUAL: Final = 1 << 20
_MOST: Final = 1 << 30
# Magic, version 1 to 3, flag bits 1 to 3 clear, a command of the specification.
_HEADER: Final = re.compile(
    rb"\xca[\x01-\x03]["
    + b"".join(re.escape(bytes([flags])) for flags in range(256) if not flags & 0x0E)
    + rb"][\x00-\x16]",
    re.DOTALL,
)


def plausible(data: bytes, at: int) -> int:
    """Where the message whose header may be at `at` ends; -1 if that is no header. Eight bytes must be there."""
    if data[at] != 0xCA or not data[at + 1]:
        return -1
    flags, command = data[at + 2], data[at + 3]
    if flags & 0x0E or command > 22 or (flags & 0x01 and command > 4):
        return -1
    if flags & 0x01:
        return at + 8
    return at + 8 + int.from_bytes(data[at + 4 : at + 8], "big" if flags & 0x80 else "little")


class _Candidate(NamedTuple):
    """A header that may be one; the next has to be at `due`, of the same version and sender."""

    due: int
    start: int
    version: int
    sender: int


class _Side:
    """One direction of the stream. Offsets count from its first byte in the capture."""

    __slots__ = ("_tail", "_waiting", "at", "looked", "whole")

    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self.at = 0
        self.looked = 0
        self._tail = b""
        self._waiting: list[_Candidate] = []

    def gap(self, size: int) -> None:
        self.whole = False
        self.at += size
        self._tail = b""

    def look(self, data: bytes) -> tuple[int, int] | bool | None:
        """(where the first header is, where the next one is) if this is PVA; False if not; None: not known yet."""
        buffer = self._tail + data
        end = self.at + len(data)
        base = end - len(buffer)
        self.at = end
        if self.whole:
            if len(buffer) < 8:
                self._tail = buffer
                return None if buffer[0] == 0xCA else False
            return (0, 0) if plausible(buffer, 0) >= 0 else False
        waiting = self._waiting
        while waiting and waiting[0].due + 8 <= end:
            found = heappop(waiting)
            at = found.due - base
            if at >= 0 and plausible(buffer, at) >= 0 and self._same(buffer, at, found):
                return found.start, found.due
        for match in _HEADER.finditer(buffer):
            at = match.start()
            if at + 8 > len(buffer):
                break
            stop = plausible(buffer, at)
            size = stop - at - 8
            if size < 0 or size > _MOST or (size > _USUAL and buffer[at + 3] not in _VALUES):
                continue
            found = _Candidate(base + stop, base + at, buffer[at + 1], buffer[at + 2] & 0x40)
            if stop + 8 <= len(buffer):
                if plausible(buffer, stop) >= 0 and self._same(buffer, stop, found):
                    return found.start, found.due
            elif len(waiting) < _CANDIDATES:
                heappush(waiting, found)
        if waiting and waiting[0].due == end:
            return waiting[0].start, end  # with a message a packet ends
        self._tail = buffer[-7:]
        self.looked += len(data)
        return None if self.looked < _LOOK or waiting else False

    @staticmethod
    def _same(data: bytes, at: int, header: _Candidate) -> bool:
        return data[at + 1] == header.version and data[at + 2] & 0x40 == header.sender


@final
class Recogniser:
    """Give it the events of a connection, until it knows.

    verdict: True, PVA; False, something else; None, not known yet. Of PVA, `pieces` are the events that were kept, cut to
    begin with a header; joined: of each direction, whether it does not begin with its first byte; skipped: of each
    direction, how many bytes came before the first header.
    """

    __slots__ = ("_connection", "_pieces", "_sides", "_size", "joined", "skipped", "verdict")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sides: tuple[_Side, _Side] | None = None
        self._pieces: list[tuple[Data | Gap, int]] = []
        self._size = 0
        self.verdict: bool | None = None
        self.joined = [False, False]
        self.skipped = [0, 0]

    def add(self, event: Data | Gap) -> bool | None:
        """The next event; returns the verdict."""
        if self._sides is None:
            started = self._connection.started
            self._sides = _Side(started[0]), _Side(started[1])
            self.joined = [not started[0], not started[1]]
        direction = event.direction
        side = self._sides[direction]
        self._pieces.append((event, side.at))
        if isinstance(event, Gap):
            side.gap(event.size)
            return None
        found = side.look(event.data)
        self._size += len(event.data)
        if found is None:
            self._let_go()
        elif found is False:
            self.verdict = False
        else:
            assert found is not True
            self.verdict = True
            self._begin(direction, *found)
        return self.verdict

    @property
    def pieces(self) -> list[Data | Gap]:
        """The events kept, in order."""
        return [event for event, _ in self._pieces]

    def _let_go(self) -> None:
        """Keep no more than the limit; what is seen from its first byte is short as long as it is not known."""
        drop = 0
        while self._size > _KEPT:
            event, _ = self._pieces[drop]
            self.joined[event.direction] = True
            self.skipped[event.direction] += len(event.data) if isinstance(event, Data) else 0
            self._size -= len(event.data) if isinstance(event, Data) else 0
            drop += 1
        del self._pieces[:drop]

    def _begin(self, direction: int, start: int, due: int) -> None:
        """Cut what was kept of a direction to begin with the first header, or with the next if that is gone."""
        first = next((at for event, at in self._pieces if event.direction == direction), 0)
        begin = start if start >= first else due
        kept: list[tuple[Data | Gap, int]] = []
        for event, at in self._pieces:
            if event.direction == direction and at < begin:
                if isinstance(event, Gap):
                    continue
                cut = min(begin - at, len(event.data))
                self.skipped[direction] += cut
                if cut == len(event.data):
                    continue
                event = event._replace(data=event.data[cut:])
            kept.append((event, at))
        self._pieces = kept

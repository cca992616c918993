"""Packets -> events: the loop that everything in a capture goes through.

The plain case (IP without options or fragments, TCP, the next segment of a stream) is handled in line, for about 1 µs a
packet; everything else goes through links.py and tcp.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, final

from .events import Clock, Damage, Data, Datagram, Event
from .files import Capture, Interface
from .links import ETHERNET, IPV6, PLAIN, SUPPORTED, TAG, TCP, Internet, Transport, network
from .tcp import ACK, FIN, RST, SYN, Streams, ends

# IPv6 and TCP: first byte, length, protocol, key, sequence, acknowledgement, header length, flags.
_plain6 = struct.Struct(">B3xHBx36sIIBB").unpack_from

_MASK: Final = 0xFFFFFFFF
_SPECIAL: Final = FIN | SYN | RST | ACK
_SWEEP: Final = 32_768
_NAMES_LIMIT: Final = 65_536
# Datagrams to remember, so that one which two interfaces saw is told of once.
_RECENT: Final = 256
_RECENT_AGE: Final = 1_000_000_000


@final
class Statistics:
    """What `Traffic` saw and left out, in packets. unsupported: {LINKTYPE number: packets}."""

    __slots__ = ("duplicates", "fragments_dropped", "malformed", "other", "packets", "unsupported")

    def __init__(self) -> None:
        self.packets = 0
        self.other = 0  # neither TCP nor UDP over IP, or a fragment
        self.malformed = 0
        self.duplicates = 0
        self.fragments_dropped = 0  # datagrams
        self.unsupported: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"Statistics({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


@final
class Traffic:
    """Iterate it once: the events of a capture, see events.py. `statistics` is complete at the end of it."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._internet = Internet()
        self._streams = Streams()
        self._names: dict[bytes, tuple[str, str]] = {}
        self._recent: dict[tuple[bytes, int, bytes], tuple[int, tuple[int, bytes]]] = {}
        self._statistics = Statistics()

    @property
    def statistics(self) -> Statistics:
        found = self._statistics
        found.malformed = self._internet.malformed
        found.fragments_dropped = self._internet.fragments_dropped
        return found

    def __iter__(self) -> Iterator[Event]:
        streams = self._streams
        find = streams.flows.get
        make = tuple.__new__
        statistics = self._statistics
        special = _SPECIAL
        current: Interface | None = None
        link, skip, expected = -1, 0, b""
        unpack = struct.Struct(">40x").unpack_from
        count = 0
        sweep = _SWEEP
        time, clock = 0, Clock()
        for interface, time, data, start, end, length in self._capture.packets():
            count += 1
            if interface is not current:
                current = interface
                clock = interface.clock
                link = interface.link
                # A link type without a plain case never has the 2**62 bytes asked for here.
                skip, picture, expected = PLAIN.get(link, (1 << 62, "0s", b""))
                unpack = struct.Struct(f">{picture}BxHxxHxB2x12sIIBB").unpack_from
            first = start + skip
            if first + 40 <= end:
                kind, version, total, fragment, protocol, key, sequence, ack, header, flags = unpack(
                    data, start
                )
                if kind == TAG and link == ETHERNET and first + 44 <= end:
                    first += 4
                    kind, version, total, fragment, protocol, key, sequence, ack, header, flags = unpack(
                        data, start + 4
                    )
                if version == 0x45 and protocol == TCP and kind == expected and not fragment & 0x3FFF:
                    stop = first + total
                    first += 20
                elif kind == IPV6 and first + 60 <= end:
                    version, total, protocol, key, sequence, ack, header, flags = _plain6(data, first)
                    stop = first + 40 + total if version >> 4 == 6 and protocol == TCP and total else 0
                    first += 40
                else:
                    stop = 0
                half = find(key) if stop else None
                if half is not None and half.next == sequence and half.fast and flags & special == ACK:
                    first += (header >> 4) * 4
                    if first < stop <= end and header >= 0x50:
                        half.next = (sequence + stop - first) & _MASK
                        half.touched = count
                        half.peer.acked = ack
                        connection = half.connection
                        if not connection.ignored:
                            yield make(Data, (connection, half.side, time, clock, data[first:stop]))
                        continue
                    if first == stop <= end and header >= 0x50:
                        half.touched = count
                        half.peer.acked = ack
                        continue
            statistics.packets = count
            yield from self._slow(interface, link, time, clock, data, start, end, length, count)
            if count >= sweep:
                sweep = count + _SWEEP
                yield from streams.sweep(time, clock)
        statistics.packets = count
        yield from streams.end(time, clock)
        if self._capture.damage:
            yield Damage(*self._capture.damage)

    def _slow(
        self,
        interface: Interface,
        link: int,
        time: int,
        clock: Clock,
        data: bytes,
        start: int,
        end: int,
        length: int,
        count: int,
    ) -> list[Event]:
        version, at = network(link, data, start, end)
        if not version:
            if link in SUPPORTED:
                self._statistics.other += 1
            else:
                self._statistics.unsupported[link] = self._statistics.unsupported.get(link, 0) + 1
            return []
        now = clock.nanoseconds(time)
        found = self._internet.transport(version, data, at, end, length - (at - start), now)
        if found is None:
            self._statistics.other += 1
            return []
        if found.protocol == TCP:
            return self._segment(found, time, clock, count)
        return self._datagram(found, time, clock, now, (interface.index, data[start:at]))

    def _segment(self, found: Transport, time: int, clock: Clock, count: int) -> list[Event]:
        _, addresses, data, at, end, missing, _ = found
        if end - at < 20:
            self._internet.malformed += 1
            return []
        ports, sequence, ack, header, flags = struct.unpack_from(">4sIIBB", data, at)
        first = at + (header >> 4) * 4
        if header < 0x50 or first > end + missing:
            self._internet.malformed += 1
            return []
        if first > end:  # cut inside of the options
            missing -= first - end
            first = end
        before = self._streams.duplicates
        events = self._streams.segment(
            addresses + ports, sequence, ack, flags, data[first:end], missing, time, clock, count
        )
        self._statistics.duplicates += self._streams.duplicates - before
        return events

    def _datagram(
        self, found: Transport, time: int, clock: Clock, now: int, source: tuple[int, bytes]
    ) -> list[Event]:
        _, addresses, data, at, end, missing, ident = found
        if end - at < 8:
            self._internet.malformed += 1
            return []
        ports, size = struct.unpack_from(">4sH", data, at)
        if size:  # 0: a super-frame, or over 64 KiB
            if size < 8 or size > end + missing - at:
                self._internet.malformed += 1
                return []
            missing = max(at + size - end, 0)
            end = min(at + size, end)
        payload = data[at + 8 : end]
        key = addresses + ports
        # Two interfaces saw the same datagram if its number is the same or, where it has none, if it came from another one.
        mark = (key, ident, payload)
        seen = self._recent.get(mark)
        if seen is not None and abs(now - seen[0]) < _RECENT_AGE and (ident or seen[1] != source):
            self._statistics.duplicates += 1
            return []
        self._recent[mark] = now, source
        if len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]
        names = self._names.get(key)
        if names is None:
            if len(self._names) >= _NAMES_LIMIT:
                self._names.clear()
            names = self._names[key] = ends(key)
        return [Datagram(names[0], names[1], time, clock, payload, missing)]

"""Packets -> events: the loop that everything in a capture goes through.

The plain case (IP without options or fragments, TCP, the next segment of a stream) comes in runs of packets, made by a
compiled word; everything else goes through links.py and tcp.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, final

from .._backend import packets
from .events import Clock, Damage, Data, Datagram, Event
from .files import Capture, Interface
from .links import SUPPORTED, TCP, Internet, Transport, network
from .tcp import Streams, ends

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
        for found in self.runs():
            if not isinstance(found, list):
                yield found
                continue
            for run in found:
                flow, clock = run.flow, run.clock
                for time, data in zip(run.times, run.chunks, strict=True):
                    if flow.connection.ignored:
                        break
                    yield Data(flow.connection, flow.side, time, clock, data)

    def runs(self, together: bool = False) -> Iterator[Event | list[packets.Run]]:
        """The same, but plain packets come as lists of runs, in place of many Data; together: see packets.Plain.

        Connections that are `ignored` can be among them.
        """
        streams = self._streams
        statistics = self._statistics
        plain = packets.Plain(streams.flows, Clock(), together)
        sweep = _SWEEP
        for item in self._capture.runs(plain):
            if isinstance(item, list):
                yield item
                continue
            interface, time, data, start, end, length = item
            statistics.packets = plain.count = count = plain.count + 1
            plain.ticks = time
            plain.clock = clock = interface.clock
            yield from self._slow(interface, interface.link, time, clock, data, start, end, length, count)
            if count >= sweep:
                sweep = count + _SWEEP
                yield from streams.sweep(time, clock)
        statistics.packets = plain.count
        yield from streams.end(plain.ticks, plain.clock)
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

"""The plain case of captured packets, in bulk: the next segment of a TCP stream, over IP without options or fragments.

Nearly all packets of a capture are plain. What is not is left to the reader of the capture, who knows every case.
"""

from __future__ import annotations

import struct
from typing import Any, Final, final

_MASK: Final = 0xFFFFFFFF
_TCP: Final = 6
# FIN, SYN, RST, ACK: only the last one may be set.
_SPECIAL: Final = 0x17
_ACK: Final = 0x10
_MONITOR: Final = 13
_PACKET: Final = 6  # the usual block of pcapng

# A run ends after so many bytes: what they are made into stays in the caches of the processor, and dies before the garbage
# collector looks at it.
_MOST_BYTES: Final = 8192

_ETHERNET: Final = 1
_IPV4, _IPV6, _TAG = b"\x08\x00", b"\x86\xdd", b"\x81\x00"
# By LINKTYPE: bytes before the IP header, where among them it is told what follows, and how IPv4 is told.
_LINKS: Final[dict[int, tuple[int, int, bytes]]] = {
    _ETHERNET: (14, 12, _IPV4),
    113: (16, 14, _IPV4),  # Linux cooked, 1 and 2
    276: (20, 0, _IPV4),
    0: (4, 0, b"\x02\0\0\0"),  # loopback, of the BSDs and of OpenBSD
    108: (4, 0, b"\0\0\0\x02"),
    **dict.fromkeys((12, 14, 101, 228, 229), (0, 0, b"")),  # raw IP
}
# A link type that is not known: no packet is so long.
_UNKNOWN: Final = (1 << 62, 0, b"")

_RECORDS: Final = {order: struct.Struct(order + "III").unpack_from for order in "<>"}
_BLOCKS: Final = {order: struct.Struct(order + "IIIIII").unpack_from for order in "<>"}
# IP and TCP: version, length, fragment, protocol, key, sequence, acknowledgement, header length, flags.
_ip4: Final = struct.Struct(">BxHxxHxB2x12sIIBB").unpack_from
_ip6: Final = struct.Struct(">B3xHBx36sIIBB").unpack_from


class Flow:
    """One direction of a TCP connection, as far as the plain case needs it.

    fast: the segment that begins at `next` can be taken without further thought. next: sequence number of the next byte.
    acked: the latest acknowledgement of its receiver. touched: number of its latest packet. peer: the other direction.
    run: the one that is being made.
    """

    __slots__ = ("acked", "connection", "fast", "next", "peer", "run", "side", "touched")

    connection: Any
    peer: Any
    run: Run | None

    def __init__(self, connection: Any, side: int) -> None:
        self.connection = connection
        self.side = side
        self.peer = None
        self.run = None
        self.fast = False
        self.next = -1
        self.acked = -1
        self.touched = 0


@final
class Run:
    """What plain packets of one flow brought: chunks, the time of each, and their size together."""

    __slots__ = ("chunks", "clock", "flow", "size", "times")

    def __init__(self, flow: Flow, clock: Any) -> None:
        self.flow = flow
        self.clock = clock
        self.times: list[int] = []
        self.chunks: list[bytes] = []
        self.size = 0


@final
class Plain:
    """Takes plain packets out of the window of a capture file.

    flows: by their key, source and destination (4 or 16 bytes each) and their ports (2 each). together: a chunk of whole
    monitor updates of PVA and nothing else is put to those of its flow, past chunks of other connections (updates are nearly
    all that there is, and a run costs more than an update). count: packets so far; ticks, clock: the time of the latest.
    Whoever takes the other packets keeps these up, too.
    """

    __slots__ = (
        "_clock", "_interface", "_link", "_mark", "_mark_at", "_runs", "_skip", "clock", "count", "flows", "ticks", "together",
    )  # fmt: skip

    def __init__(self, flows: dict[bytes, Any], clock: Any, together: bool = False) -> None:
        self.flows = flows
        self.together = together
        self.count = 0
        self.ticks = 0
        self.clock = clock
        # Of the interface that was looked at last.
        self._interface: Any = None
        self._clock: Any = None
        self._link = -1
        self._skip, self._mark_at, self._mark = _UNKNOWN
        self._runs: list[Run] = []

    def pcap(self, data: bytes, position: int, order: str, interface: Any) -> tuple[list[Run], int]:
        """The runs of the plain records of a pcap file that data[position:] begins with, and where they end.

        order: "<" or ">". interface: has `link`, its LINKTYPE, and `clock`, with `per_second`. What is not whole is not plain.
        """
        self._start(data, position, interface)
        unpack = _RECORDS[order]
        per_second = interface.clock.per_second
        size = len(data)
        while position + 16 <= size:
            start = position + 16
            seconds, ticks, captured = unpack(data, position)
            end = start + captured
            if end > size or not self._take(data, start, end, seconds * per_second + ticks):
                break
            position = end
        return self._finish(), position

    def pcapng(self, data: bytes, position: int, order: str, interfaces: list[Any]) -> tuple[list[Run], int]:
        """The same of a pcapng file: its enhanced packet blocks."""
        self._start(data, position, None)
        unpack = _BLOCKS[order]
        size = len(data)
        while position + 32 <= size:
            kind, block, number, high, low, captured = unpack(data, position)
            end = position + block
            start = position + 28
            stop = start + captured
            if (
                kind != _PACKET
                or block & 3
                or stop + 4 > end
                or number >= len(interfaces)
                or data[end - 4 : end] != data[position + 4 : position + 8]
            ):
                break
            interface = interfaces[number]
            if interface is not self._interface:
                self._look(interface)
            if not self._take(data, start, stop, high << 32 | low):
                break
            position = end
        return self._finish(), position

    def _start(self, data: bytes, position: int, interface: Any) -> None:
        if not 0 <= position <= len(data):
            raise ValueError(f"position {position} outside of {len(data)} bytes")
        self._runs = []
        self._interface = None
        if interface is not None:
            self._look(interface)

    def _finish(self) -> list[Run]:
        for run in self._runs:
            run.flow.run = None
        return self._runs

    def _look(self, interface: Any) -> None:
        self._interface = interface
        self._clock = interface.clock
        self._link = interface.link
        self._skip, self._mark_at, self._mark = _LINKS.get(self._link, _UNKNOWN)

    def _take(self, data: bytes, start: int, end: int, ticks: int) -> bool:
        """Whether the frame data[start:end] is plain; then it is counted, and its payload put into a run."""
        first = start + self._skip
        if first + 40 > end:
            return False
        at = start + self._mark_at
        kind = data[at : at + len(self._mark)]
        if kind == _TAG and self._link == _ETHERNET and first + 44 <= end:
            first += 4
            kind = data[at + 4 : at + 6]
        version, total, fragment, protocol, key, sequence, ack, header, flags = _ip4(data, first)
        if version == 0x45 and protocol == _TCP and kind == self._mark and not fragment & 0x3FFF:
            stop = first + total
            first += 20
        elif kind == _IPV6 and first + 60 <= end:
            version, total, protocol, key, sequence, ack, header, flags = _ip6(data, first)
            if version >> 4 != 6 or protocol != _TCP or not total:
                return False
            stop = first + 40 + total
            first += 40
        else:
            return False
        flow = self.flows.get(key)
        if flow is None or flow.next != sequence or not flow.fast or flags & _SPECIAL != _ACK:
            return False
        first += (header >> 4) * 4
        if header < 0x50 or not first <= stop <= end:
            return False
        self.count += 1
        self.ticks = ticks
        self.clock = self._clock
        flow.touched = self.count
        flow.peer.acked = ack
        if first == stop:
            return True
        flow.next = (sequence + stop - first) & _MASK
        flow.peer.run = None
        chunk = data[first:stop]
        run = flow.run
        if (
            run is None
            or run.size >= _MOST_BYTES
            or run.clock is not self._clock
            or (run is not self._runs[-1] and not (self.together and _is_updates(chunk)))
        ):
            if flow.connection.ignored:
                return True
            run = flow.run = Run(flow, self._clock)
            self._runs.append(run)
        run.times.append(ticks)
        run.chunks.append(chunk)
        run.size += len(chunk)
        return True


def _is_updates(chunk: bytes) -> bool:
    """Whether these are whole messages of a server, and each a MONITOR update."""
    at = 0
    while at < len(chunk):
        if (
            len(chunk) - at < 13
            or chunk[at] != 0xCA
            or chunk[at + 2] & 0x7F != 0x40
            or chunk[at + 3] != _MONITOR
        ):
            return False
        size = int.from_bytes(chunk[at + 4 : at + 8], "big" if chunk[at + 2] & 0x80 else "little")
        if size < 5 or chunk[at + 12]:
            return False
        at += 8 + size
    return at == len(chunk)

"""Writers of packets and capture files, for the tests: as plain as they can be, so that they show what is expected."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence

from pvafast.capture import Capture, Closed, Connection, Damage, Data, Datagram, Event, Gap, Opened, Traffic

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
A4, B4 = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
A6, B6 = bytes.fromhex("fe80" + "00" * 13 + "01"), bytes.fromhex("fd00" + "00" * 13 + "02")
NOW = 1_795_299_155


def tcp(
    sport: int, dport: int, seq: int, ack: int = 0, flags: int = ACK, data: bytes = b"", options: bytes = b""
) -> bytes:
    assert len(options) % 4 == 0
    offset = (20 + len(options)) // 4 << 4
    fixed = struct.pack(
        ">HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, offset, flags, 512, 0, 0
    )
    return fixed + options + data


def udp(sport: int, dport: int, data: bytes, size: int | None = None) -> bytes:
    return struct.pack(">HHHH", sport, dport, 8 + len(data) if size is None else size, 0) + data


def ip4(
    payload: bytes,
    protocol: int = 6,
    *,
    src: bytes = A4,
    dst: bytes = B4,
    ident: int = 0,
    offset: int = 0,
    more: bool = False,
    options: bytes = b"",
    total: int | None = None,
) -> bytes:
    assert len(options) % 4 == 0
    assert offset % 8 == 0
    size = 20 + len(options)
    fragment = offset // 8 | (0x2000 if more else 0)
    total = size + len(payload) if total is None else total
    return (
        struct.pack(">BBHHHBBH4s4s", 0x40 | size // 4, 0, total, ident, fragment, 64, protocol, 0, src, dst)
        + options
        + payload
    )


def ip6(
    payload: bytes, following: int = 6, *, src: bytes = A6, dst: bytes = B6, size: int | None = None
) -> bytes:
    size = len(payload) if size is None else size
    return struct.pack(">IHBB16s16s", 6 << 28, size, following, 64, src, dst) + payload


def fragment6(payload: bytes, following: int, ident: int, offset: int, more: bool) -> bytes:
    return struct.pack(">BBHI", following, 0, offset | more, ident) + payload


def ethernet(payload: bytes, kind: int = 0, tags: Sequence[int] = (), mac: int = 0) -> bytes:
    kind = kind or (0x86DD if payload[:1] and payload[0] >> 4 == 6 else 0x0800)
    head = bytes(11) + bytes([mac])
    for tag in tags:
        head += struct.pack(">HH", tag, 7)
    return head + struct.pack(">H", kind) + payload


def pcap(
    packets: Iterable[tuple[int, bytes] | tuple[int, bytes, int]],
    *,
    order: str = "<",
    exponent: int = 6,
    link: int = 1,
    snap: int = 262_144,
) -> bytes:
    """packets: (ticks since 1970, captured bytes[, length on the wire])."""
    magic = {6: 0xA1B2C3D4, 9: 0xA1B23C4D}[exponent]
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap, link)]
    for time, data, *length in packets:
        seconds, rest = divmod(time, 10**exponent)
        out.append(struct.pack(order + "IIII", seconds, rest, len(data), length[0] if length else len(data)))
        out.append(data)
    return b"".join(out)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str = "<", version: int = 1) -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, version, 0, -1), order)


def interface(link: int = 1, snap: int = 0, options: bytes = b"", order: str = "<") -> bytes:
    return block(1, struct.pack(order + "HHI", link, 0, snap) + options, order)


def enhanced(data: bytes, ticks: int, number: int = 0, length: int | None = None, order: str = "<") -> bytes:
    size = len(data) if length is None else length
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), size)
    return block(6, head + data + bytes(-len(data) % 4) + option(0, b"", order), order)


class Talk:
    """A TCP conversation, packet by packet, over Ethernet and IPv4: `packets` is what a capture would hold."""

    def __init__(
        self, a: int = 40_000, b: int = 5075, isn: tuple[int, int] = (1000, 2000), step: int = 1000
    ) -> None:
        self.ports = (a, b)
        self.next = list(isn)
        self.time = NOW * 1_000_000
        self.step = step
        self.packets: list[tuple[int, bytes]] = []

    def frame(
        self, side: int, flags: int, data: bytes = b"", seq: int | None = None, ack: int | None = None
    ) -> bytes:
        seq = self.next[side] if seq is None else seq
        ack = self.next[1 - side] if ack is None else ack
        ports = self.ports if side == 0 else self.ports[::-1]
        ends = (A4, B4) if side == 0 else (B4, A4)
        return ethernet(ip4(tcp(*ports, seq, ack, flags, data), src=ends[0], dst=ends[1]))

    def put(
        self, side: int, flags: int, data: bytes = b"", seq: int | None = None, ack: int | None = None
    ) -> Talk:
        self.time += self.step
        self.packets.append((self.time, self.frame(side, flags, data, seq, ack)))
        return self

    def open(self) -> Talk:
        self.put(0, SYN, ack=0)
        self.next[0] += 1
        self.put(1, SYN | ACK)
        self.next[1] += 1
        return self.put(0, ACK)

    def say(self, side: int, data: bytes, *, captured: bool = True, acked: bool = True) -> Talk:
        if captured:
            self.put(side, PSH | ACK, data)
        self.next[side] += len(data)
        return self.put(1 - side, ACK) if acked else self

    def close(self) -> Talk:
        for side in (0, 1):
            self.put(side, FIN | ACK)
            self.next[side] += 1
        return self.put(0, ACK)


def events(file: bytes | Iterable[tuple[int, bytes]]) -> list[Event]:
    """The events of a capture file, or of (µs, Ethernet frame) pairs."""
    return list(Traffic(Capture(io.BytesIO(file if isinstance(file, bytes) else pcap(file)))))


Piece = bytes | tuple[str, int]


def streams(found: Iterable[Event]) -> list[tuple[tuple[str, str], list[Piece], list[Piece], str]]:
    """(addresses, what side 0 said, what side 1 said, why closed) of each connection; a gap is (reason, size).

    Checks on the way that each connection is opened first, closed last, and that no event has nothing in it.
    """
    talks: dict[Connection, tuple[list[Piece], list[Piece]]] = {}
    reasons: dict[Connection, str] = {}
    for event in found:
        match event:
            case Opened(connection=connection):
                assert connection not in talks
                assert connection.number == len(talks)
                talks[connection] = ([], [])
            case Data():
                assert event.data
                assert event.connection not in reasons
                pieces = talks[event.connection][event.direction]
                if pieces and isinstance(pieces[-1], bytes):
                    pieces[-1] += event.data
                else:
                    pieces.append(event.data)
            case Gap():
                assert event.size > 0
                assert event.connection not in reasons
                talks[event.connection][event.direction].append((event.reason, event.size))
            case Closed():
                assert event.connection not in reasons
                reasons[event.connection] = event.reason
            case Datagram() | Damage():
                pass
    assert talks.keys() == reasons.keys()
    return [(c.addresses, *pieces, reasons[c]) for c, pieces in talks.items()]


def datagrams(found: Iterable[Event]) -> list[tuple[str, str, bytes, int]]:
    return [(e.src, e.dst, e.data, e.missing) for e in found if isinstance(e, Datagram)]


def damage(found: Sequence[Event]) -> Damage | None:
    last = found[-1] if found else None
    return last if isinstance(last, Damage) else None

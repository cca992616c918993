"""Captured frames -> TCP segments and UDP datagrams: link layers, VLAN tags, IPv4 and IPv6, fragments put together."""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple, final

TCP: Final = 6
UDP: Final = 17

ETHERNET, NULL, LOOP, COOKED, COOKED2 = 1, 0, 108, 113, 276
RAW: Final = frozenset({12, 14, 101, 228, 229})
SUPPORTED: Final = frozenset({ETHERNET, NULL, LOOP, COOKED, COOKED2}) | RAW

# 802.1Q, 802.1ad and the numbers used for the outer tag before there was a standard.
_TAGS: Final = frozenset({b"\x81\x00", b"\x88\xa8", b"\x91\x00", b"\x92\x00", b"\x93\x00"})
# A tag costs four bytes: this stops nothing but nonsense.
_TAG_LIMIT: Final = 8
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
# The family number of IPv6 is 24, 28 or 30 on the BSDs and macOS, 10 on Linux; of IPv4 it is 2 on all of them.
_FAMILIES_6: Final = frozenset(n.to_bytes(4, order) for n in (10, 24, 28, 30) for order in ("little", "big"))
_FAMILIES_4: Final = frozenset({b"\x02\0\0\0", b"\0\0\0\x02"})

# A fragment can be eight bytes of a datagram that never becomes whole.
_DATAGRAMS_LIMIT: Final = 256
_BYTES_LIMIT: Final = 4 << 20
_FRAGMENT_COST: Final = 256  # bytes of memory besides its data
_TIMEOUT: Final = 30_000_000_000


class Transport(NamedTuple):
    """What an IP packet carries: data[start:end], and `missing` more bytes that the snap length cut.

    addresses: source and destination, as they lie in the packet (8 or 32 bytes). ident: IPv4's identification, otherwise 0.
    """

    protocol: int
    addresses: bytes
    data: bytes
    start: int
    end: int
    missing: int
    ident: int


def network(link: int, data: bytes, start: int, end: int) -> tuple[int, int]:
    """(4 or 6, where that IP header starts) for the frame data[start:end]; (0, 0) if it holds no IP."""
    if link == ETHERNET:
        kind, at = data[start + 12 : start + 14], start + 14
    elif link == COOKED:
        kind, at = data[start + 14 : start + 16], start + 16
    elif link == COOKED2:
        kind, at = data[start : start + 2], start + 20
    elif link in (NULL, LOOP):
        family, at = data[start : start + 4], start + 4
        if at <= end:
            if family in _FAMILIES_4:
                return 4, at
            if family in _FAMILIES_6:
                return 6, at
        return 0, 0
    elif link in RAW and start < end:
        version = data[start] >> 4
        return (version, start) if version in (4, 6) else (0, 0)
    else:
        return 0, 0
    for _ in range(_TAG_LIMIT):
        if kind not in _TAGS:
            break
        kind, at = data[at + 2 : at + 4], at + 4
    if at > end:
        return 0, 0
    return (4, at) if kind == _IPV4 else (6, at) if kind == _IPV6 else (0, 0)


@final
class _Pieces:
    """The fragments of one datagram so far: {offset: bytes}."""

    __slots__ = ("cost", "found", "head", "parts", "since", "total")

    def __init__(self, since: int) -> None:
        self.since = since
        self.parts: dict[int, bytes] = {}
        self.found = 0  # bytes
        self.total = -1  # known with the last fragment
        self.head = -1  # the protocol, which only the first fragment of IPv6 tells for sure
        self.cost = _FRAGMENT_COST


@final
class Internet:
    """IP packets -> transports; holds the fragments that are not yet whole, in bounded memory.

    A datagram whose fragments overlap is dropped (RFC 5722): it comes from an attack, never from a stack.
    """

    def __init__(self) -> None:
        self.malformed = 0
        self.fragments_dropped = 0
        self._pieces: dict[tuple[bytes, int, int], _Pieces] = {}
        self._cost = 0

    def transport(
        self, version: int, data: bytes, start: int, end: int, length: int, now: int
    ) -> Transport | None:
        """The transport in the IP packet at data[start:end]; None if there is none, or not yet.

        length: of the packet on the wire, where the IP header (a super-frame's is 0) does not tell. now: nanoseconds.
        """
        found = (
            self._ipv4(data, start, end, length, now)
            if version == 4
            else self._ipv6(data, start, end, length, now)
        )
        return found if found is not None and found.protocol in (TCP, UDP) else None

    def _ipv4(self, data: bytes, start: int, end: int, length: int, now: int) -> Transport | None:
        if end - start < 20:
            self.malformed += 1
            return None
        first, total, ident, fragment, protocol, addresses = struct.unpack_from(">BxHHHxBxx8s", data, start)
        header = (first & 15) * 4
        total = total or length
        if first >> 4 != 4 or header < 20 or total < header or header > end - start:
            self.malformed += 1
            return None
        stop = start + total
        missing = max(stop - end, 0)
        if fragment & 0x3FFF:
            return self._fragment(
                (addresses, protocol, ident),
                (fragment & 0x1FFF) * 8,
                bool(fragment & 0x2000),
                protocol,
                data[start + header : min(stop, end)],
                missing,
                now,
            )
        return Transport(protocol, addresses, data, start + header, min(stop, end), missing, ident)

    def _ipv6(self, data: bytes, start: int, end: int, length: int, now: int) -> Transport | None:
        if end - start < 40 or data[start] >> 4 != 6:
            self.malformed += 1
            return None
        size, protocol, addresses = struct.unpack_from(">4xHBx32s", data, start)
        stop = start + (40 + size if size else length)
        missing = max(stop - end, 0)
        stop = min(stop, end)
        at = start + 40
        while protocol not in (TCP, UDP):
            if stop - at < 8:
                return None
            if protocol in (0, 43, 60, 135, 139, 140):
                protocol, at = data[at], at + (data[at + 1] + 1) * 8
            elif protocol == 51:
                protocol, at = data[at], at + (data[at + 1] + 2) * 4
            elif protocol == 44:
                protocol, fragment, ident = struct.unpack_from(">BxHI", data, at)
                at += 8
                if fragment & 0xFFF9 == 0:
                    continue  # "atomic": the whole datagram
                whole = self._fragment(
                    (addresses, 44, ident),
                    fragment & 0xFFF8,
                    bool(fragment & 1),
                    protocol,
                    data[at:stop],
                    missing,
                    now,
                )
                if whole is None:
                    return None
                protocol, _, data, at, stop, missing, _ = whole
            else:
                return None
        if at > stop:
            self.malformed += 1
            return None
        return Transport(protocol, addresses, data, at, stop, missing, 0)

    def _fragment(
        self,
        key: tuple[bytes, int, int],
        offset: int,
        more: bool,
        protocol: int,
        part: bytes,
        missing: int,
        now: int,
    ) -> Transport | None:
        pieces = self._pieces.get(key)
        if pieces is not None and abs(now - pieces.since) > _TIMEOUT:
            self._drop(key)
            pieces = None
        if pieces is None:
            pieces = self._pieces[key] = _Pieces(now)
            self._cost += pieces.cost
        if pieces.parts.get(offset) == part:
            return None  # seen by a second interface
        stop = offset + len(part)
        bad = (
            missing
            or not part
            or stop > 65_535
            or (more and len(part) & 7)
            or (not more and pieces.total >= 0)
            or (pieces.total >= 0 and stop > pieces.total)
        )
        if bad:
            self._drop(key)
            return None
        pieces.parts[offset] = part
        pieces.found += len(part)
        pieces.cost += len(part) + _FRAGMENT_COST
        self._cost += len(part) + _FRAGMENT_COST
        if not more:
            pieces.total = stop
        if offset == 0:
            pieces.head = protocol
        if pieces.total >= 0 and pieces.found >= pieces.total:
            return self._join(key, pieces)
        while len(self._pieces) > _DATAGRAMS_LIMIT or self._cost > _BYTES_LIMIT:
            self._drop(next(iter(self._pieces)))
        return None

    def _join(self, key: tuple[bytes, int, int], pieces: _Pieces) -> Transport | None:
        at = 0
        parts = []
        for offset, part in sorted(pieces.parts.items()):
            if offset != at:
                self._drop(key)
                return None
            parts.append(part)
            at += len(part)
        if at != pieces.total:
            self._drop(key)
            return None
        del self._pieces[key]
        self._cost -= pieces.cost
        return Transport(pieces.head, key[0], b"".join(parts), 0, at, 0, key[2] if key[1] != 44 else 0)

    def _drop(self, key: tuple[bytes, int, int]) -> None:
        self._cost -= self._pieces.pop(key).cost
        self.fragments_dropped += 1


def address(raw: bytes, port: int) -> str:
    """ "10.0.0.1:5075" or "[fe80::1]:5075" for the 4 or 16 bytes of an address."""
    if len(raw) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, raw)}:{port}"
    return f"[{socket.inet_ntop(socket.AF_INET6, raw)}]:{port}"

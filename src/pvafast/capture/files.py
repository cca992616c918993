"""Capture files -> packets: pcap and pcapng, plain or gzip, from a path or a stream that cannot seek.

Own reader, because no library was good enough. 100 MB of packets of 126 bytes, µs a packet as pcap and as pcapng, on one
core: this reader 0.26 and 0.7 (in runs 0.1); dpkt 1.9.8 (last release 2022; floats for times, one section and interface) 1.2 and 2.1;
scapy 2.8.0 (raw readers; 20 MB installed) 1.0 and 2.2; python-pcapng 2.1.1 (last release 2022; no pcap) 13.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, final

from .._backend import packets
from ..errors import DecodeError
from .events import Clock

CHUNK: Final = 1 << 20
# A record can announce 4 GiB, which would be held as a whole. Sane captures end at 256 KiB (a super-frame of a network card).
RECORD_LIMIT: Final = 16 << 20
# An interface description costs 20 bytes in the file and 200 here.
INTERFACE_LIMIT: Final = 65_536

_PCAP_MAGICS: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", 6),
    b"\xa1\xb2\xc3\xd4": (">", 6),
    b"\x4d\x3c\xb2\xa1": ("<", 9),
    b"\xa1\xb2\x3c\x4d": (">", 9),
}
_SECTION_MAGIC: Final = b"\x0a\x0d\x0d\x0a"
_ORDERS: Final = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_COMPRESSED: Final = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "unzip",
}


class Stream(Protocol):
    """What a capture can be read from besides a path: any binary file."""

    def read(self, size: int, /) -> bytes | None: ...


@final
class Interface:
    """Where packets were captured. index: counted over all sections; link: LINKTYPE number; snap: 0 is unlimited."""

    __slots__ = ("clock", "index", "link", "snap")

    def __init__(self, index: int, link: int, clock: Clock, snap: int = 0) -> None:
        self.index = index
        self.link = link
        self.clock = clock
        self.snap = snap


class Packet(NamedTuple):
    """One captured packet is data[start:end]; it had `length` bytes on the wire. time: ticks of interface.clock."""

    interface: Interface
    time: int
    data: bytes
    start: int
    end: int
    length: int


Plain: TypeAlias = packets.Plain
Run: TypeAlias = packets.Run
# What `Capture.packets` yields is a plain tuple of these: a named one would cost 0.1 µs a packet.
RawPacket = tuple[Interface, int, bytes, int, int, int]


class _DamageError(Exception):
    def __init__(self, offset: int, reason: str, truncated: bool) -> None:
        super().__init__(reason)
        self.offset, self.reason, self.truncated = offset, reason, truncated


@final
class _Plain:
    """The bytes of a file as they come; the first ones can be looked at."""

    def __init__(self, stream: Any, head: bytes = b"") -> None:
        # read1 hands over what a pipe has, without waiting for more: packets show as they are captured.
        self._read = getattr(stream, "read1", None) or stream.read
        self._head = head
        self.consumed = 0

    def peek(self, size: int) -> bytes:
        while len(self._head) < size:
            more = self._fetch(size - len(self._head))
            if not more:
                break
            self._head += more
        return self._head[:size]

    def _fetch(self, size: int) -> bytes:
        more: bytes = self._read(size) or b""
        self.consumed += len(more)
        return more

    def read(self, size: int) -> bytes:
        """At most `size` bytes, b"" at the end."""
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._fetch(size)


@final
class _Gunzip:
    """The members of a gzip file one after the other; a file cut off gives every byte before the cut."""

    def __init__(self, source: _Plain) -> None:
        self._source = source
        self._inflate = zlib.decompressobj(31)
        self._input = b""
        self._started = False
        self._fault = ""
        self.truncated = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes, however many a compressed byte stands for; b"" at the end. ValueError: not gzip any more."""
        while not self._fault:
            if self._inflate.eof:
                self._input = (self._inflate.unused_data or self._source.read(65_536)).lstrip(b"\0")
                self._inflate = zlib.decompressobj(31)
                self._started = False
            if not self._input:
                self._input = self._source.read(65_536)
                if not self._started:
                    self._input = self._input.lstrip(b"\0")
            if not self._input and not self._started:
                return b""
            end = not self._input
            self._started = True
            try:
                out = self._inflate.decompress(self._input, size)
            except zlib.error as error:
                self._fault = f"the gzip data are damaged: {error}"
                break
            self._input = self._inflate.unconsumed_tail
            if out:
                return out
            if end and not self._inflate.eof:
                self._fault = "the gzip data are cut off"
                self.truncated = True
        raise ValueError(self._fault)


@final
class Capture:
    """An open capture file: iterate `packets` once.

    consumed: bytes read so far of the file as it lies on the disk; size: of the same, None where it cannot be known.
    damage: (offset, reason, truncated) once `packets` has ended too early, otherwise None.

    Raises DecodeError if it is no capture, OSError as the file does.
    """

    def __init__(self, path: str | os.PathLike[str] | Stream) -> None:
        self._close = None
        self.size: int | None = None
        stream: Any
        if isinstance(path, (str, os.PathLike)):
            if os.fspath(path) == "-":
                stream = sys.stdin.buffer
                self.name = "standard input"
            else:
                stream = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
                self._close = stream.close
                self.name = os.fspath(path)
        else:
            stream = path
            self.name = str(getattr(path, "name", "stream"))
        try:
            if self._close or stream is sys.stdin.buffer:
                status = os.fstat(stream.fileno())
                self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
            self.damage: tuple[int, str, bool] | None = None
            self._plain = _Plain(stream)
            self._source: _Plain | _Gunzip = self._plain
            if self._plain.peek(2) == b"\x1f\x8b":
                self._source = _Gunzip(self._plain)
            # A window over the file: `_data` holds what was read and not yet used, `_base` is the offset of its first byte.
            self._data = b""
            self._base = 0
            self._magic = self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> bytes:
        try:
            self._fill(0, 24)
        except EOFError:
            pass
        except _DamageError as damage:
            self.damage = (damage.offset, damage.reason, damage.truncated)
        head = self._data[:12]
        magic = head[:4]
        if not head:
            why = self.damage[1] if self.damage else "it is empty"
        elif magic in _PCAP_MAGICS:
            order = _PCAP_MAGICS[magic][0]
            if len(self._data) < 24:
                return b""
            major, minor = struct.unpack_from(order + "HH", self._data, 4)
            if major == 2:
                return magic
            why = f"pcap version {major}.{minor} is unknown"
        elif magic == _SECTION_MAGIC:
            if len(head) < 12:
                return b""
            if head[8:12] in _ORDERS:
                return magic
            why = "the byte order magic of pcapng is wrong"
        elif len(head) < 4 and any(known.startswith(head) for known in (*_PCAP_MAGICS, _SECTION_MAGIC)):
            return b""
        else:
            why = f"it begins with {magic.hex(' ')}"
            for start, program in _COMPRESSED.items():
                if head.startswith(start):
                    why = f"it is compressed; unpack it with {program} and pipe it in"
        raise DecodeError(f"{self.name} is no pcap or pcapng capture: {why}")

    def close(self) -> None:
        if self._close:
            self._close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    @property
    def consumed(self) -> int:
        return self._plain.consumed

    def _fill(self, position: int, need: int) -> None:
        """Drop the window before `position`; afterwards it holds at least `need` bytes. _DamageError if there are none."""
        data = self._data[position:] if position else self._data
        self._base += position
        fault, truncated = "", True
        if len(data) < need:
            parts = [data]
            have = len(data)
            while have < need:
                try:
                    more = self._source.read(max(CHUNK, need - have))
                except ValueError as error:
                    fault = str(error)
                    truncated = isinstance(self._source, _Gunzip) and self._source.truncated
                    break
                if not more:
                    break
                parts.append(more)
                have += len(more)
            data = b"".join(parts)
        self._data = data
        if len(data) < need:
            if fault or data:
                raise _DamageError(self._base, fault or "the file is cut off", truncated)
            raise EOFError

    def packets(self) -> Iterator[RawPacket]:
        """(interface, time, data, start, end, length): see `Packet`. Never raises for bytes: sees to `damage`."""
        for item in self.runs(None):
            assert not isinstance(item, list)
            yield item

    def runs(self, plain: Plain | None) -> Iterator[RawPacket | list[Run]]:
        """The same, but what is plain comes in lists of runs, in its place among the other packets."""
        if not self._magic:
            self.damage = self.damage or (0, "the file is cut off", True)
            return
        try:
            if self._magic == _SECTION_MAGIC:
                yield from self._pcapng(plain)
            else:
                yield from self._pcap(plain)
        except EOFError:
            pass
        except _DamageError as damage:
            self.damage = (damage.offset, damage.reason, damage.truncated)

    def _pcap(self, plain: Plain | None) -> Iterator[RawPacket | list[Run]]:
        order, exponent = _PCAP_MAGICS[self._magic]
        clock = Clock(10, exponent)
        snap, link = struct.unpack_from(order + "II", self._data, 16)
        interface = Interface(0, link & 0xFFFF, clock, snap)  # above are the length of checksums and flags
        unpack = struct.Struct(order + "IIII").unpack_from
        per_second = clock.per_second
        data, position = self._data, 24
        size = len(data)
        while True:
            if plain is not None:
                runs, position = plain.pcap(data, position, order, interface)
                if runs:
                    yield runs
                    continue
            start = position + 16
            if start > size:
                self._fill(position, 16)
                data, position, start = self._data, 0, 16
                size = len(data)
            seconds, ticks, captured, length = unpack(data, position)
            end = start + captured
            if end > size:
                if captured > RECORD_LIMIT:
                    raise self._bad(position, f"a packet of {captured} bytes cannot be")
                self._fill(position, 16 + captured)
                data, position, start = self._data, 0, 16
                size = len(data)
                end = start + captured
            yield interface, seconds * per_second + ticks, data, start, end, length
            position = end

    def _pcapng(self, plain: Plain | None) -> Iterator[RawPacket | list[Run]]:
        order = "<"
        interfaces: list[Interface] = []
        ticks, latest = 0, Clock()  # of the latest packet
        count = 0
        position = 0
        header = struct.Struct("<II").unpack_from
        packet = struct.Struct("<IIIIIII").unpack_from
        while True:
            data = self._data
            if plain is not None:
                taken = plain.count
                runs, position = plain.pcapng(data, position, order, interfaces)
                if plain.count != taken:
                    ticks, latest = plain.ticks, plain.clock
                if runs:
                    yield runs
                    continue
            if len(data) - position < 12:
                self._fill(position, 12)
                data, position = self._data, 0
            if data.startswith(_SECTION_MAGIC, position):
                order = _ORDERS.get(data[position + 8 : position + 12], "")
                if not order:
                    raise self._bad(position, "the byte order magic of a section is wrong")
                header = struct.Struct(order + "II").unpack_from
                packet = struct.Struct(order + "IIIIIII").unpack_from
            kind, size = header(data, position)
            if size < 12 or size & 3:
                raise self._bad(position, f"a block of {size} bytes cannot be")
            end = position + size
            if end > len(data):
                if kind not in (_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET):
                    self._skip(position, size)
                    position = 0
                    continue
                if size > RECORD_LIMIT:
                    raise self._bad(position, f"a block of {size} bytes cannot be")
                self._fill(position, size)
                data, position, end = self._data, 0, size
            if data[end - 4 : end] != data[position + 4 : position + 8]:
                raise self._bad(position, "the two lengths of a block differ")
            if kind in (_PACKET, _OLD_PACKET):
                if size < 32:
                    raise self._bad(position, f"a packet block of {size} bytes cannot be")
                _, _, number, high, low, captured, length = packet(data, position)
                if kind == _OLD_PACKET:
                    number = number & 0xFFFF if order == "<" else number >> 16  # the other half counts drops
                if number >= len(interfaces):
                    raise self._bad(position, f"no interface {number} is described")
                if captured > size - 32:
                    raise self._bad(
                        position, f"a block of {size} bytes cannot hold {captured} bytes of packet"
                    )
                interface = interfaces[number]
                ticks, latest = high << 32 | low, interface.clock
                start = position + 28
                yield interface, ticks, data, start, start + captured, length
            elif kind == _SIMPLE_PACKET:
                if size < 16 or not interfaces:
                    raise self._bad(position, "a simple packet without length or interface")
                (length,) = struct.unpack_from(order + "I", data, position + 8)
                interface = interfaces[0]
                captured = min(length, interface.snap or length, size - 16)
                # It has no time of its own: it came after the packet before it.
                borrowed = Interface(interface.index, interface.link, latest, interface.snap)
                yield borrowed, ticks, data, position + 12, position + 12 + captured, length
            elif kind == _INTERFACE:
                if size < 20 or len(interfaces) >= INTERFACE_LIMIT:
                    raise self._bad(position, "an interface too small, or too many of them")
                link, snap = struct.unpack_from(order + "HxxI", data, position + 8)
                clock = _clock(data, position + 16, end - 4, order)
                interfaces.append(Interface(count, link, clock, snap))
                count += 1
            elif kind == _SECTION:
                if size < 28:
                    raise self._bad(position, f"a section header of {size} bytes cannot be")
                major, minor = struct.unpack_from(order + "HH", data, position + 12)
                if major != 1:
                    raise self._bad(position, f"pcapng version {major}.{minor} is unknown")
                interfaces = []
            position = end

    def _bad(self, position: int, reason: str) -> _DamageError:
        return _DamageError(self._base + position, reason, False)

    def _skip(self, position: int, size: int) -> None:
        """Drop a block that nobody wants, however large, without holding it."""
        offset = self._base + position
        left = size - (len(self._data) - position)
        self._base += len(self._data)
        self._data = b""
        while left > 0:
            try:
                more = self._source.read(min(CHUNK, left))
            except ValueError as error:
                raise _DamageError(offset, str(error), True) from None
            if not more:
                raise _DamageError(offset, "the file is cut off", True)
            left -= len(more)
            self._base += len(more)


def _clock(data: bytes, position: int, end: int, order: str) -> Clock:
    """The clock that the options of an interface description tell; one that they tell badly is the default."""
    base, exponent, offset = 10, 6, 0
    while end - position >= 4:
        code, size = struct.unpack_from(order + "HH", data, position)
        position += 4
        if code == 0 or size > end - position:
            break
        if code == 9 and size == 1:
            base, exponent = 2 if data[position] & 0x80 else 10, data[position] & 0x7F
        elif code == 14 and size == 8:
            (offset,) = struct.unpack_from(order + "q", data, position)
        position += size + (-size & 3)
    return Clock(2 if base == 2 else 10, exponent, offset)

"""Updates in a file: each subscription's type once, then the payloads as they came. Nothing is lost, bit for bit.

The file begins with ``PVAFAST\\1``. Records follow, all numbers little-endian::

    u32 length of the body   u32 CRC-32 of the body   body

A body begins with a byte that tells what it is:

==  ======================================================================================================
 1  a subscription: u32 number, u16 length of the name, name (UTF-8), then in PVAccess encoding, little-endian and without
    ids, the type description and a full value: what was held before the first update
 2  an update: u32 number of the subscription, i64 time (ns since 1970), u8 byte order (0 little, 1 big), then the payload of a
    MONITOR update: BitSet, the changed fields, BitSet of overruns
==  ======================================================================================================

A number may be defined again: it is another subscription from there on. A record that is cut off at the end of the file is what a
crash leaves: a reader stops there and says so, a writer that appends removes it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Final, final

from ._backend import bitset, codec, introspection, monitor, value
from .connection.shared import without_any
from .errors import DecodeError, EncodeError, LimitExceeded
from .limits import Limits

FieldDesc = introspection.FieldDesc
Value = value.Value
BitSet = bitset.BitSet
Update = monitor.Update

_MAGIC: Final = b"PVAFAST\1"
_HEAD: Final = struct.Struct("<II")
_SUBSCRIPTION: Final = struct.Struct("<BIH")
_UPDATE: Final = struct.Struct("<BIqB")
_NO_BITS: Final = BitSet()
_ORDERS: Final = ("little", "big")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An update of an archive.

    name: of the PV. time: ns since 1970, as the writer was told. value: laid over the one before; `value.changed` are the
    fields that came. overrun: those that changed more than once. payload, byteorder: the bytes of the update. offset: of
    its record in the file.
    """

    name: str
    time: int
    value: Value
    overrun: BitSet
    payload: memoryview
    byteorder: str
    offset: int


@final
class Writer:
    """Writes an archive. One thread at a time.

    path: of a new file; append: an archive that may be there is continued, a record that a crash cut off removed.
    FileExistsError for a file that is there without append, DecodeError for one that is no archive.
    """

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        self._numbers: dict[tuple[str, FieldDesc], int] = {}
        # By number: whether the payloads that came can be kept.
        self._plain: list[bool] = []
        self._codec = codec.Codec()
        if append and os.path.exists(path) and os.path.getsize(path):
            end = _whole(path)
            self._file: IO[bytes] = open(path, "r+b")  # noqa: SIM115 - closed by close()
            self._file.truncate(end)
            self._file.seek(end)
        else:
            self._file = open(path, "wb" if append else "xb")  # noqa: SIM115 - closed by close()
            self._file.write(_MAGIC)

    def add(self, name: str, update: Any, *, time: int | None = None) -> None:
        """Add an update of a PV: an Update of a connection, or what has `raw`, `overrun` and `received` (a Reading of a client).

        time: ns since 1970; without it, what the update says.
        """
        if time is None:
            time = getattr(update, "received", None) or getattr(update, "time", None)
        if not isinstance(time, int):
            raise TypeError(f"an update of {name!r} without a time in ns: say time=")
        held = getattr(update, "raw", None)
        if held is None:
            held = update.value
        number = self._number(name, held)
        if self._plain[number] and isinstance(update, Update):
            self._update(number, time, update.frame.byteorder, update.payload)
        else:
            self._update(number, time, "little", self._encoded(held, update.overrun))

    def add_value(self, name: str, held: Value, time: int, *, overrun: BitSet = _NO_BITS) -> None:
        """Add a Value of a PV, its changed fields as an update. time: ns since 1970."""
        self._update(self._number(name, held), time, "little", self._encoded(held, overrun))

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encoded(self, held: Value, overrun: BitSet) -> bytes:
        return self._codec.encode_update(held) + overrun.encode()

    def _number(self, name: str, held: Value) -> int:
        """The number of a subscription; what it holds goes before its first update."""
        number = self._numbers.get((name, held.type))
        if number is None:
            raw = name.encode("utf-8", "surrogateescape")
            if len(raw) > 0xFFFF:
                raise EncodeError(f"a name of {len(raw)} bytes")
            number = len(self._plain)
            body = self._codec.encode_type(held.type) + self._codec.encode(held)
            self._record(_SUBSCRIPTION.pack(1, number, len(raw)) + raw + body)
            self._numbers[name, held.type] = number
            self._plain.append(without_any(held.type))
        return number

    def _update(self, number: int, time: int, byteorder: str, payload: Any) -> None:
        self._record(_UPDATE.pack(2, number, time, byteorder == "big"), payload)

    def _record(self, head: bytes, rest: Any = b"") -> None:
        size = len(head) + len(rest)
        if size > 0xFFFFFFFF:
            raise EncodeError(f"a record of {size} bytes")
        self._file.write(_HEAD.pack(size, zlib.crc32(rest, zlib.crc32(head))) + head)
        self._file.write(rest)


@final
class Reader:
    """Iterate it once: the updates of an archive, in their order.

    DecodeError, with its offset in the file, for what is no archive, or damaged. truncated: afterwards, the offset of a record
    that was cut off at the end; None if there was none. limits: for each record, as for a message.
    """

    def __init__(self, path: str | os.PathLike[str], *, limits: Limits | None = None) -> None:
        self.truncated: int | None = None
        self._limits = Limits() if limits is None else limits
        self._file: IO[bytes] = open(path, "rb")  # noqa: SIM115 - closed by close()

    def close(self) -> None:
        """Close the file. Iterating to the end does so, too."""
        self._file.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Entry]:
        with self._file:
            decoder = codec.Codec(limits=self._limits)
            held: dict[int, tuple[str, Value]] = {}
            for offset, body in self._bodies():
                at = offset + _HEAD.size
                try:
                    if body[:1] == b"\1":
                        number, name, first = _subscription(body, decoder)
                        held[number] = name, first
                    elif body[:1] == b"\2":
                        entry = _entry(body, decoder, held, offset)
                        held[_UPDATE.unpack_from(body)[1]] = entry.name, entry.value
                        yield entry
                    else:
                        raise DecodeError(f"a record of kind {body[0] if body else 'none'}")
                except DecodeError as error:
                    error.offset += at
                    raise

    def _bodies(self) -> Iterator[tuple[int, bytes]]:
        """(offset of the record, its body), as far as they are whole."""
        file = self._file
        left = os.fstat(file.fileno()).st_size
        if file.read(len(_MAGIC)) != _MAGIC:
            raise DecodeError("no archive of pvafast", 0)
        offset = len(_MAGIC)
        while offset < left:
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                self.truncated = offset
                return
            size, crc = _HEAD.unpack(head)
            if size > left - offset - _HEAD.size:
                self.truncated = offset
                return
            if size > self._limits.message:
                raise LimitExceeded(f"a record of {size} bytes", offset, limit="message")
            body = file.read(size)
            if zlib.crc32(body) != crc:
                raise DecodeError("a record that does not have its checksum", offset)
            yield offset, body
            offset += _HEAD.size + size


def read(path: str | os.PathLike[str], *, limits: Limits | None = None) -> Reader:
    """The updates of an archive: ``for entry in pvafast.archive.read(path): ...``."""
    return Reader(path, limits=limits)


def _subscription(body: bytes, decoder: codec.Codec) -> tuple[int, str, Value]:
    """(number, name, what was held before the first update)."""
    if len(body) < _SUBSCRIPTION.size:
        raise DecodeError(f"a subscription of {len(body)} bytes")
    _, number, size = _SUBSCRIPTION.unpack_from(body)
    at = _SUBSCRIPTION.size + size
    if at > len(body):
        raise DecodeError(
            f"a name of {size} bytes, {len(body) - _SUBSCRIPTION.size} left", _SUBSCRIPTION.size
        )
    name = body[_SUBSCRIPTION.size : at].decode("utf-8", "surrogateescape")
    # Ids would live as long as the archive is read: each type stands for itself.
    fd, at = codec.Codec(limits=decoder.limits).decode_type(body, at)
    if fd is None:
        raise DecodeError("a subscription without a type", at)
    held, _ = decoder.decode(fd, body, at)
    if not isinstance(held, Value):
        made = Value(fd)
        made[""] = held
        held = made
    held.unmark()
    return number, name, held


def _entry(body: bytes, decoder: codec.Codec, held: dict[int, tuple[str, Value]], offset: int) -> Entry:
    if len(body) < _UPDATE.size:
        raise DecodeError(f"an update of {len(body)} bytes")
    _, number, time, big = _UPDATE.unpack_from(body)
    if number not in held:
        raise DecodeError(f"an update of subscription {number}, which is not there", 1)
    name, base = held[number]
    byteorder = _ORDERS[bool(big)]
    found, at = decoder.decode_update(base.type, body, _UPDATE.size, base=base, byteorder=byteorder)
    overrun = _NO_BITS
    if at < len(body):
        overrun, _ = BitSet.decode(body, at, byteorder=byteorder)
    return Entry(
        name=name,
        time=time,
        value=found,
        overrun=overrun,
        payload=memoryview(body)[_UPDATE.size :],
        byteorder=byteorder,
        offset=offset,
    )


def _whole(path: str | os.PathLike[str]) -> int:
    """The length of an archive without what a crash left at its end."""
    with Reader(path, limits=Limits(message=0xFFFFFFFF)) as reader:
        for _ in reader._bodies():
            pass
        return os.path.getsize(path) if reader.truncated is None else reader.truncated


__all__ = ["Entry", "Reader", "Writer", "read"]

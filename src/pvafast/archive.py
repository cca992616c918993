"""Updates in a file: each subscription's type once, then the payloads as they came. Nothing is lost, bit for bit.

The file begins with ``PVAFAST\\1``. Records follow, all numbers little-endian::

    u32 length of the body   u32 CRC-32 of the body   body

A body begins with a byte that tells what it is:

==  ======================================================================================================
 1  a subscription: u32 number, u16 length of the name, name (UTF-8), then in PVAccess encoding, little-endian and without
    ids, the type description and a full value: what the next update is laid over
 2  an update: u32 number of the subscription, i64 time (ns since 1970), u8 byte order (0 little, 1 big), then the payload of a
    MONITOR update: BitSet, the changed fields, BitSet of overruns
==  ======================================================================================================

A number may be defined again: it is another subscription from there on, or the same with another value. That is done where an
update does not lead from the value before to its own, because updates between them were not written. A record at the end of
the file that is cut off or does not have its checksum, or zeros there, are what a crash leaves: a reader stops there and says so,
a writer that appends moves it to a file beside, PATH.torn.
"""

from __future__ import annotations

import logging
import os
import shutil
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Final, final

from ._backend import bitset, codec, introspection, monitor, projection, value
from .connection.shared import without_any
from .errors import DecodeError, EncodeError, LimitExceeded, LocalProtocolError, RangeError
from .limits import Limits

FieldDesc = introspection.FieldDesc
Value = value.Value
BitSet = bitset.BitSet
Update = monitor.Update

_log = logging.getLogger("pvafast.archive")
_MAGIC: Final = b"PVAFAST\1"
_HEAD: Final = struct.Struct("<II")
_SUBSCRIPTION: Final = struct.Struct("<BIH")
_UPDATE: Final = struct.Struct("<BIqB")
_MONITOR: Final = 13
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
    """Writes an archive. One thread at a time, one Writer a file.

    path: of a new file; append: an archive that may be there is continued, a record that a crash cut off moved to PATH.torn.
    FileExistsError for a file that is there without append, DecodeError for one that is no archive.
    What was added is certain to be in the file after flush(), and on the disk after sync(). The last value of each subscription
    is kept in memory.
    """

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        # Number and what a reader holds, by name and type.
        self._held: dict[tuple[str, FieldDesc], tuple[int, Value]] = {}
        self._codec = codec.Codec()
        self._torn = False
        end = _whole(path) if append and os.path.exists(path) else 0
        self._file: IO[bytes] = open(path, "r+b" if end else "wb" if append else "xb")  # noqa: SIM115 - closed by close()
        if end:
            self._keep_torn(path, end)
            self._file.truncate(end)
            self._file.seek(end)
        else:
            self._file.write(_MAGIC)

    def _keep_torn(self, path: str | os.PathLike[str], end: int) -> None:
        """What is behind the last whole record goes to a file beside: it might be more than a crash leaves."""
        if self._file.seek(0, os.SEEK_END) > end:
            self._file.seek(end)
            with open(f"{os.fspath(path)}.torn", "ab") as kept:
                shutil.copyfileobj(self._file, kept)
            _log.warning("%s: cut off behind %d bytes; what was there is in %s.torn", path, end, path)

    def add(self, name: str, update: Any, *, time: int | None = None) -> None:
        """Add an update of a PV: an Update of a connection, or what has `raw`, `overrun` and `received` (a Reading of a client).

        time: ns since 1970; without it, what the update says.
        """
        if time is None:
            time = getattr(update, "received", None) or getattr(update, "time", None)
        if not isinstance(time, int):
            raise TypeError(f"an update of {name!r} without a time in ns: say time=")
        if isinstance(update, Update):
            self._add(name, update.value._received_(), time, *payload(update))
        else:
            self.add_value(name, update.raw, time, overrun=update.overrun)

    def add_value(self, name: str, held: Value, time: int, *, overrun: BitSet = _NO_BITS) -> None:
        """Add a Value of a PV, its changed fields as an update. time: ns since 1970."""
        held = held.copy()  # the program may go on changing it
        self._add(name, held, time, _encoded(held, overrun), "little")

    def _add(self, name: str, held: Value, time: int, data: memoryview | bytes, byteorder: str) -> None:
        if self._torn:
            raise LocalProtocolError("a record was not written whole: open the archive again")
        if not -(1 << 63) <= time < 1 << 63:
            raise RangeError(f"int64 cannot hold {time}", "time")
        number, last = self._held.get((name, held.type), (len(self._held), None))
        records: list[tuple[bytes, memoryview | bytes]] = []
        # What a reader makes of the update: the value before, and its changed fields laid over.
        read, _ = self._codec.decode_update(held.type, b"\0", base=last)
        read.overlay(held)
        if last is None or read != held:
            read, _ = self._codec.decode_update(held.type, b"\0", base=held)
            records.append(self._subscription(number, name, held))
        records.append((_UPDATE.pack(2, number, time, byteorder == "big"), data))
        for head, rest in records:
            if len(head) + len(rest) > 0xFFFFFFFF:
                raise EncodeError(f"a record of {len(head) + len(rest)} bytes")
        self._torn = True
        for head, rest in records:
            self._file.write(_HEAD.pack(len(head) + len(rest), zlib.crc32(rest, zlib.crc32(head))) + head)
            self._file.write(rest)
        self._torn = False
        self._held[name, held.type] = number, read

    def _subscription(self, number: int, name: str, held: Value) -> tuple[bytes, bytes]:
        try:
            raw = name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise EncodeError(f"lone surrogate in a name at index {error.start}") from None
        if len(raw) > 0xFFFF:
            raise EncodeError(f"a name of {len(raw)} bytes")
        body = self._codec.encode_type(held.type) + self._codec.encode(held)
        return _SUBSCRIPTION.pack(1, number, len(raw)) + raw, body

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._file.flush()

    def sync(self) -> None:
        """Have everything on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@final
class Reader:
    """Iterate it once: the updates of an archive, in their order.

    names: of the PVs wanted, None: all. fields: of their values, as a Projection takes them; names that a type does not have count
    for nothing. limits: for each record, as for a message; channels and registry_nodes for the subscriptions.

    DecodeError, with its offset in the file, for what is no archive, or damaged. truncated: afterwards, the offset of a record
    that a crash left at the end; None if there was none.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        names: Collection[str] | None = None,
        fields: Collection[str | tuple[str, ...]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        if isinstance(names, str) or isinstance(fields, str):
            raise TypeError("names and fields are lists of names, not one")
        self.truncated: int | None = None
        self._names = None if names is None else frozenset(names)
        self._fields = fields
        self._limits = Limits() if limits is None else limits
        self._codec = codec.Codec(limits=self._limits)
        self._held: dict[int, _Held] = {}
        self._nodes = 0
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
            for offset, body in self._bodies():
                try:
                    if body[0] == 1:
                        self._subscription(body)
                    elif body[0] == 2:
                        entry = self._entry(body, offset)
                        if entry is not None:
                            yield entry
                    else:
                        raise DecodeError(f"a record of kind {body[0]}")
                except DecodeError as error:
                    error.offset += offset + _HEAD.size
                    raise

    def _bodies(self) -> Iterator[tuple[int, bytes]]:
        """(offset of the record, its body), as far as they are whole."""
        file = self._file
        end = os.fstat(file.fileno()).st_size
        if file.read(len(_MAGIC)) != _MAGIC:
            raise DecodeError("no archive of pvafast", 0)
        offset = len(_MAGIC)
        while offset < end:
            head = _head(file, offset, end)
            if head is None:
                self.truncated = offset
                return
            size, crc = head
            if size > self._limits.message:
                raise LimitExceeded(f"a record of {size} bytes", offset, limit="message")
            body = file.read(size)
            if zlib.crc32(body) != crc:
                if offset + _HEAD.size + size == end:
                    self.truncated = offset
                    return
                raise DecodeError("a record that does not have its checksum", offset)
            yield offset, body
            offset += _HEAD.size + size

    def _subscription(self, body: bytes) -> None:
        """Take note of the name and the type, and of the value that the next update is laid over."""
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
        type, end = codec.Codec(limits=self._limits).decode_type(body, at)
        if type is None:
            raise DecodeError("a subscription without a type", end)
        old = self._held.pop(number, None)
        self._nodes += type.count - (0 if old is None else old.type.count)
        if self._nodes > self._limits.registry_nodes:
            raise LimitExceeded(f"types of {self._nodes} nodes", at, limit="registry_nodes")
        if len(self._held) >= self._limits.channels:
            raise LimitExceeded(f"more than {self._limits.channels} subscriptions", limit="channels")
        held = _Held(name, type)
        if self._names is None or name in self._names:
            held.reads = type
            if self._fields is not None:
                held.reads = projection.Projection(type, self._fields, strict=False)
            # As an update of the root: so it is laid out and projected as they are.
            whole = b"\1\1" + body[end:]
            try:
                held.value, _ = self._decoder(held).decode_update(held.reads, whole)
            except DecodeError as error:
                error.offset += end - 2
                raise
        self._held[number] = held

    def _entry(self, body: bytes, offset: int) -> Entry | None:
        """The update; None where nobody wants it."""
        if len(body) < _UPDATE.size:
            raise DecodeError(f"an update of {len(body)} bytes")
        _, number, time, big = _UPDATE.unpack_from(body)
        held = self._held.get(number)
        if held is None:
            raise DecodeError(f"an update of subscription {number}, which is not there", 1)
        if held.reads is None:
            return None
        byteorder = _ORDERS[bool(big)]
        found, at = self._decoder(held).decode_update(
            held.reads,
            body,
            _UPDATE.size,
            base=None if held.value is None else held.value._received_(),
            byteorder=byteorder,
        )
        overrun = _NO_BITS
        if at < len(body):
            try:
                overrun, _ = BitSet.decode(body, at, byteorder=byteorder)
            except DecodeError as error:
                error.within("overrun")
                raise
        held.value = found
        return Entry(
            name=held.name,
            time=time,
            value=found,
            overrun=overrun,
            payload=memoryview(body)[_UPDATE.size :],
            byteorder=byteorder,
            offset=offset,
        )

    def _decoder(self, held: _Held) -> codec.Codec:
        """No record refers to type ids of another."""
        return self._codec if held.plain else codec.Codec(limits=self._limits)


class _Held:
    """A subscription, as it is read. reads: the type or a Projection; None: nobody asked for it."""

    __slots__ = ("name", "plain", "reads", "type", "value")

    def __init__(self, name: str, type: FieldDesc) -> None:
        self.name = name
        self.type = type
        self.plain = without_any(type)
        self.reads: FieldDesc | projection.Projection | None = None
        self.value: Value | None = None


def read(
    path: str | os.PathLike[str],
    *,
    names: Collection[str] | None = None,
    fields: Collection[str | tuple[str, ...]] | None = None,
    limits: Limits | None = None,
) -> Reader:
    """The updates of an archive: ``for entry in pvafast.archive.read(path): ...``. Arguments as for Reader."""
    return Reader(path, names=names, fields=fields, limits=limits)


def payload(update: Update) -> tuple[memoryview | bytes, str]:
    """The bytes of an update for any storage, and their byte order: BitSet, changed fields, BitSet of overruns.

    They are those that came, but for an any in them that refers to type ids of the connection, and for an update of which only
    some fields were decoded: then the value is encoded. Together with `update.type.to_bytes()` they say all:
    `Codec().decode_update(FieldDesc.from_bytes(...), payload, base=the value before, byteorder=...)`.
    """
    type = update.value.type
    # Several updates in one MULTIPLE_DATA are not told apart here.
    if update.frame.command == _MONITOR and not isinstance(update.operation.reads, projection.Projection):
        try:
            if not without_any(type):
                codec.Codec().decode_monitor(type, update.frame)
        except DecodeError:
            pass  # an id, most likely; whatever it is, the value is known
        else:
            return update.payload, update.frame.byteorder
    return _encoded(update.value._received_(), update.overrun), "little"


def _encoded(held: Value, overrun: BitSet) -> bytes:
    return codec.Codec().encode_update(held) + overrun.encode()


def _head(file: IO[bytes], offset: int, end: int) -> tuple[int, int] | None:
    """(length, checksum) of the body of the record that begins here; None if it is not all there, or never was written."""
    if end - offset < _HEAD.size:
        return None
    size, crc = _HEAD.unpack(file.read(_HEAD.size))
    if size:
        return (size, crc) if size <= end - offset - _HEAD.size else None
    # Zeros to the end are what a file system leaves of pages that were not on the disk yet.
    if crc or any(any(piece) for piece in iter(lambda: file.read(65_536), b"")):
        raise DecodeError("a record of no bytes", offset)
    return None


def _whole(path: str | os.PathLike[str]) -> int:
    """The length of an archive without what a crash left at its end; 0 if not even its beginning was written."""
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        begin = file.read(len(_MAGIC))
        if not _MAGIC.startswith(begin):
            raise DecodeError("no archive of pvafast", 0)
        if begin != _MAGIC:
            return 0
        last, offset = 0, len(_MAGIC)
        # Lengths are followed, and the last checksum compared: what is damaged before that, a Reader tells.
        while (head := _head(file, offset, end)) is not None:
            last, offset = offset, offset + _HEAD.size + head[0]
            file.seek(offset)
        file.seek(last)
        head = _head(file, last, end) if last else None
        if head is not None and zlib.crc32(file.read(head[0])) != head[1]:
            return last
    return offset


__all__ = ["Entry", "Reader", "Writer", "payload", "read"]

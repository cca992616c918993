"""Codec: the types and values of one direction of a connection, from bytes and to bytes."""

from __future__ import annotations

from typing import Any, final

from .._types import STRUCTURE
from ..errors import DecodeError, EncodeError, LimitExceeded, LocalProtocolError
from ..limits import Limits
from .bitset import BitSet
from .buffer import _DEFAULT_LIMITS, Reader, Writer
from .framing import Message
from .introspection import FieldDesc, _read_desc, _too_deep, _TypeIds, _write_desc
from .projection import Projection, _read_projected, _read_projected_update
from .value import (
    AnyValue,
    Value,
    _coercion,
    _read_any,
    _read_full,
    _read_update,
    _write_any,
    _write_full,
    _write_update,
)


@final
class Codec:
    """Decodes, or encodes, ONE direction of a connection: it holds the type ids of that direction.

    limits: caps on what is decoded. ids: how types are numbered when they are encoded, "none" (as pvxs: each in
    full) or "pvaccess" (as pvAccessCPP: FD at the first use, FE afterwards; WIRE 6.2). Decoding takes either.
    One thread at a time. After an error inside a type description the ids are unknown: any further use of the codec
    is a LocalProtocolError. Where data is decoded, a Projection can stand in place of the type.

    `offset` and `end` bound the bytes used of `data`; each decode method returns what it read and the offset behind
    it. Arrays are read-only views of `data` where that is possible: data other than bytes must then stay unchanged.
    Raises DecodeError (LimitExceeded) whose offset counts from the start of `data`.
    """

    __slots__ = ("_ids", "_numbers", "ids", "limits")

    limits: Limits
    ids: str

    def __init__(self, *, limits: Limits = _DEFAULT_LIMITS, ids: str = "none") -> None:
        if ids not in ("none", "pvaccess"):
            raise ValueError(f"ids must be 'none' or 'pvaccess', not {ids!r}")
        self.limits = limits
        self.ids = ids
        self._ids = _TypeIds()
        self._numbers: dict[FieldDesc, int] | None = {} if ids == "pvaccess" else None

    def _usable(self) -> None:
        if self._ids.broken:
            raise LocalProtocolError(
                "this codec met an error inside a type description: its type ids are unknown"
            )

    def decode_type(
        self, data: Any, offset: int = 0, *, end: int | None = None, byteorder: str = "little"
    ) -> tuple[FieldDesc | None, int]:
        """Decode a type description; None for the null type."""
        r = Reader(data, offset, end, byteorder, limits=self.limits)
        return self.read_type(r), r.pos

    def decode(
        self,
        type: FieldDesc | Projection,
        data: Any,
        offset: int = 0,
        *,
        end: int | None = None,
        byteorder: str = "little",
        aligned: bool = False,
    ) -> tuple[Any, int]:
        """Decode a full value: a Value for a structure, otherwise what a leaf of the type holds."""
        r = Reader(data, offset, end, byteorder, limits=self.limits, aligned=aligned)
        return self.read(type, r), r.pos

    def decode_update(
        self,
        type: FieldDesc | Projection,
        data: Any,
        offset: int = 0,
        *,
        end: int | None = None,
        base: Value | None = None,
        byteorder: str = "little",
        aligned: bool = False,
    ) -> tuple[Value, int]:
        """Decode a BitSet and the data of the fields in it. Other fields are those of `base`, which stays as it is.

        A base of another type is a LocalProtocolError.
        """
        r = Reader(data, offset, end, byteorder, limits=self.limits, aligned=aligned)
        return self.read_update(type, r, base), r.pos

    def decode_monitor(
        self, type: FieldDesc | Projection, message: Message, base: Value | None = None, /
    ) -> tuple[Value, BitSet, int]:
        """Decode a MONITOR update (sub byte 00) as it comes: the value laid over `base`, the overruns, the offset behind.

        The straight way for what comes at full rate; `type` and `base` as in decode_update. The paths of errors begin
        with "value" or "overrun", their offsets count from the start of the payload.
        """
        start = message.start
        r = Reader(
            message.data, min(start + 5, message.end), message.end, message.byteorder, limits=self.limits
        )
        path = "value"
        try:
            update = self.read_update(type, r, base)
            path = "overrun"
            overrun = BitSet.read(r)
        except DecodeError as error:
            error.within(path)
            error.offset -= start
            raise
        return update, overrun, r.pos

    def decode_any(
        self,
        data: Any,
        offset: int = 0,
        *,
        end: int | None = None,
        byteorder: str = "little",
        aligned: bool = False,
    ) -> tuple[AnyValue | None, int]:
        """Decode a type description and a value of it; None for the null."""
        r = Reader(data, offset, end, byteorder, limits=self.limits, aligned=aligned)
        return self.read_any(r), r.pos

    def encode_type(self, type: FieldDesc | None, *, byteorder: str = "little") -> bytes:
        """A type description; None is the null type."""
        w = Writer(byteorder)
        self.write_type(type, w)
        return w.take()

    def encode(self, value: Any, type: FieldDesc | None = None, *, byteorder: str = "little") -> bytes:
        """A full value. A plain value, converted to it, needs the type."""
        w = Writer(byteorder)
        self.write(value, w, type)
        return w.take()

    def encode_update(self, value: Value, *, byteorder: str = "little") -> bytes:
        """The changed bits of a Value, then the fields that they stand for."""
        w = Writer(byteorder)
        self.write_update(value, w)
        return w.take()

    def encode_any(self, value: AnyValue | None, *, byteorder: str = "little") -> bytes:
        """A type description and a value of it."""
        w = Writer(byteorder)
        self.write_any(value, w)
        return w.take()

    def read_type(self, reader: Reader) -> FieldDesc | None:
        """`decode_type` at the place of a Reader."""
        self._usable()
        return _read_desc(reader, self._ids, 0)

    def read(self, type: FieldDesc | Projection, reader: Reader) -> Any:
        """`decode` at the place of a Reader."""
        self._usable()
        if isinstance(type, Projection):
            self._fits(type.type, reader)
            return _read_projected(type, reader, self._ids)
        self._fits(type, reader)
        return _read_full(type, reader, self._ids)

    def read_update(self, type: FieldDesc | Projection, reader: Reader, base: Value | None = None) -> Value:
        """`decode_update` at the place of a Reader."""
        self._usable()
        fd = type.type if isinstance(type, Projection) else type
        self._fits(fd, reader)
        if base is not None and base._fd_ != fd:
            raise LocalProtocolError("base is a Value of another type")
        if isinstance(type, Projection):
            return _read_projected_update(type, reader, self._ids, base)
        return _read_update(fd, reader, self._ids, base)

    def read_any(self, reader: Reader) -> AnyValue | None:
        """`decode_any` at the place of a Reader."""
        self._usable()
        return _read_any(reader, self._ids, -1)

    def _fits(self, type: FieldDesc, reader: Reader) -> None:
        if type.height > reader.limits.depth:
            raise _too_deep(reader.pos, reader.limits.depth)
        if type.count > reader.limits.type_nodes:
            raise LimitExceeded(f"type of {type.count} nodes", reader.pos, limit="type_nodes")

    def write_type(self, type: FieldDesc | None, writer: Writer) -> None:
        """`encode_type` into a Writer."""
        if type is None:
            writer.u8(0xFF)
            return
        before = self.numbered
        try:
            _write_desc(type, writer, self._numbers)
        except BaseException:
            self.forget(before)
            raise

    def write(self, value: Any, writer: Writer, type: FieldDesc | None = None) -> None:
        """`encode` into a Writer."""
        if type is None:
            if not isinstance(value, Value):
                raise EncodeError(f"the type of a {value.__class__.__name__} must be given")
            type = value._fd_
        if isinstance(value, Value) and type.code != STRUCTURE and value._fd_ == type:
            value = value[""]
        value = _coercion.leaf(type, value)
        before = self.numbered
        try:
            _write_full(type, value, writer, self._numbers)
        except BaseException:
            self.forget(before)
            raise

    def write_update(self, value: Value, writer: Writer) -> None:
        """`encode_update` into a Writer."""
        before = self.numbered
        try:
            _write_update(value, writer, self._numbers)
        except BaseException:
            self.forget(before)
            raise

    def write_any(self, value: AnyValue | None, writer: Writer) -> None:
        """`encode_any` into a Writer."""
        before = self.numbered
        try:
            _write_any(value, writer, self._numbers)
        except BaseException:
            self.forget(before)
            raise

    @property
    def numbered(self) -> int:
        """How many types the encoding side has given an id."""
        return len(self._numbers or ())

    def forget(self, before: int) -> None:
        """Take back the ids that were given since `numbered` was `before`: what defines them will never be sent."""
        while self.numbered > before:
            assert self._numbers is not None
            self._numbers.popitem()


Codec.__module__ = "pvafast"

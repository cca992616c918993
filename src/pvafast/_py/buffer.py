"""Reader and Writer: the elementary encodings (WIRE 5) over a buffer, in either byte order."""

from __future__ import annotations

import builtins
import struct
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, final

from ..errors import DecodeError, EncodeError, LimitExceeded, RangeError
from ..limits import Limits

_DEFAULT_LIMITS: Final = Limits()
# What decoding may weigh beyond `Limits.expansion` times the bytes of the message: 1 MiB, less what one message always takes.
_FREE_WEIGHT: Final = (1 << 20) - (1 << 16)
# Arrays from this size on leave a Writer as buffers of their own, uncopied.
_OWN_BUFFER: Final = 65_536


def _pair(format: str) -> tuple[struct.Struct, struct.Struct]:
    return struct.Struct("<" + format), struct.Struct(">" + format)


_U16: Final = _pair("H")
_U32: Final = _pair("I")
_NUMBERS: Final = {format: _pair(format) for format in "?bBhHiIqQfd"}


def _is_big(byteorder: str) -> bool:
    """True for "big", False for "little", ValueError for anything else."""
    if byteorder == "little":
        return False
    if byteorder == "big":
        return True
    raise ValueError(f"byteorder must be 'little' or 'big', not {byteorder!r}")


@final
class Reader:
    """Reads elementary items from `data[start:end]`; keeps no copy, so `data` must not change while it is read.

    Every read that finds too few bytes raises DecodeError and leaves `pos` where it was. `nodes` and `weight` are
    what is left of `Limits.value_nodes` and of the memory that `Limits.expansion` allows for these bytes.
    """

    __slots__ = ("aligned", "big", "data", "end", "limits", "nodes", "pos", "weight")

    def __init__(
        self,
        data: Any,
        start: int = 0,
        end: int | None = None,
        byteorder: str = "little",
        *,
        limits: Limits = _DEFAULT_LIMITS,
        aligned: bool = False,
    ) -> None:
        self.big = _is_big(byteorder)
        if type(data) is not bytes:
            view = memoryview(data)
            data = view if view.format == "B" and view.ndim == 1 else view.cast("B")
        size = len(data)
        if end is None:
            end = size
        if not 0 <= start <= end <= size:
            raise ValueError(f"start {start} and end {end} do not lie in {size} bytes")
        self.data: Any = data
        self.pos = start
        self.end = end
        self.limits = limits
        self.aligned = aligned
        self.nodes = limits.value_nodes
        self.weight = _FREE_WEIGHT + limits.expansion * (end - start)

    @property
    def byteorder(self) -> str:
        """ "little" or "big"."""
        return "big" if self.big else "little"

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self.end - self.pos

    def _short(self, what: str, n: int) -> DecodeError:
        """The error for an item of n bytes that are not there."""
        return DecodeError(f"{what} needs {n} bytes, {self.end - self.pos} left", self.pos)

    def _number(self, format: str, what: str) -> Any:
        packed = _NUMBERS[format][self.big]
        pos = self.pos
        if packed.size > self.end - pos:
            raise self._short(what, packed.size)
        self.pos = pos + packed.size
        return packed.unpack_from(self.data, pos)[0]

    def boolean(self) -> bool:
        """One byte; any nonzero value is true."""
        return bool(self._number("?", "bool"))

    def u8(self) -> int:
        """An unsigned 8-bit integer."""
        return int(self._number("B", "uint8"))

    def u16(self) -> int:
        """An unsigned 16-bit integer."""
        return int(self._number("H", "uint16"))

    def u32(self) -> int:
        """An unsigned 32-bit integer."""
        return int(self._number("I", "uint32"))

    def u64(self) -> int:
        """An unsigned 64-bit integer."""
        return int(self._number("Q", "uint64"))

    def i8(self) -> int:
        """A signed 8-bit integer."""
        return int(self._number("b", "int8"))

    def i16(self) -> int:
        """A signed 16-bit integer."""
        return int(self._number("h", "int16"))

    def i32(self) -> int:
        """A signed 32-bit integer."""
        return int(self._number("i", "int32"))

    def i64(self) -> int:
        """A signed 64-bit integer."""
        return int(self._number("q", "int64"))

    def f32(self) -> float:
        """An IEEE 754 single."""
        return float(self._number("f", "float"))

    def f64(self) -> float:
        """An IEEE 754 double."""
        return float(self._number("d", "double"))

    def nullable_size(self) -> int | None:
        """A Size (WIRE 5); None for the null (FF)."""
        pos = self.pos
        if pos >= self.end:
            raise self._short("Size", 1)
        first: int = self.data[pos]
        if first < 0xFE:
            self.pos = pos + 1
            return first
        if first == 0xFF:
            self.pos = pos + 1
            return None
        if self.end - pos < 5:
            raise self._short("Size", 5)
        self.pos = pos + 5
        return int(_U32[self.big].unpack_from(self.data, pos + 1)[0])

    def size(self) -> int:
        """A Size that must not be null."""
        pos = self.pos
        n = self.nullable_size()
        if n is None:
            self.pos = pos
            raise DecodeError("null Size where a count is needed", pos)
        return n

    def string(self) -> str:
        """A String: UTF-8, other bytes kept by surrogateescape; null reads as ""."""
        start = self.pos
        n = self.nullable_size()
        if not n:
            return ""
        pos = self.pos
        if n > self.end - pos:
            error = self._short(f"string of {n} bytes", n)
            self.pos = start
            raise error
        if n > self.limits.string:
            self.pos = start
            raise LimitExceeded(f"string of {n} bytes", pos, limit="string")
        self.pos = pos + n
        return str(self.data[pos : pos + n], "utf-8", "surrogateescape")

    def bytes(self, n: int) -> builtins.bytes:
        """A copy of the next n bytes."""
        pos = self.pos
        if n < 0:
            raise ValueError(f"no {n} bytes")
        if n > self.end - pos:
            raise self._short(f"{n} bytes", n)
        self.pos = pos + n
        return builtins.bytes(self.data[pos : pos + n])

    def skip(self, n: int) -> None:
        """Leave n bytes out."""
        if n < 0:
            raise ValueError(f"no {n} bytes")
        if n > self.end - self.pos:
            raise self._short(f"{n} bytes", n)
        self.pos += n

    def address(self) -> str:
        """A 16-byte address as text, IPv4 dotted; "" for any (all zero or ::ffff:0.0.0.0)."""
        if self.end - self.pos < 16:
            raise self._short("address", 16)
        raw = bytes(self.data[self.pos : self.pos + 16])
        self.pos += 16
        address = IPv6Address(raw)
        mapped = address.ipv4_mapped
        if mapped is not None:
            return str(mapped) if int(mapped) else ""
        return str(address) if int(address) else ""


@final
class Writer:
    """Collects bytes in one byte order. A large array becomes a buffer of its own, uncopied."""

    __slots__ = ("_buffers", "_tail", "big")

    def __init__(self, byteorder: str = "little") -> None:
        self.big = _is_big(byteorder)
        self._buffers: list[Any] = []
        self._tail = bytearray()

    @property
    def byteorder(self) -> str:
        """ "little" or "big"."""
        return "big" if self.big else "little"

    def __len__(self) -> int:
        return len(self._tail) + sum(len(buffer) for buffer in self._buffers)

    def _number(self, format: str, what: str, x: Any) -> None:
        try:
            self._tail += _NUMBERS[format][self.big].pack(x)
        except struct.error as error:
            if isinstance(x, int):
                raise RangeError(f"{what} cannot hold {x}") from error
            raise EncodeError(f"{what} expected, {type(x).__name__} found") from error
        except OverflowError as error:
            raise RangeError(f"{what} cannot hold {x}") from error

    def boolean(self, x: bool) -> None:
        """One byte, 0 or 1."""
        self._tail.append(1 if x else 0)

    def u8(self, x: int) -> None:
        """An unsigned 8-bit integer."""
        self._number("B", "uint8", x)

    def u16(self, x: int) -> None:
        """An unsigned 16-bit integer."""
        self._number("H", "uint16", x)

    def u32(self, x: int) -> None:
        """An unsigned 32-bit integer."""
        self._number("I", "uint32", x)

    def u64(self, x: int) -> None:
        """An unsigned 64-bit integer."""
        self._number("Q", "uint64", x)

    def i8(self, x: int) -> None:
        """A signed 8-bit integer."""
        self._number("b", "int8", x)

    def i16(self, x: int) -> None:
        """A signed 16-bit integer."""
        self._number("h", "int16", x)

    def i32(self, x: int) -> None:
        """A signed 32-bit integer."""
        self._number("i", "int32", x)

    def i64(self, x: int) -> None:
        """A signed 64-bit integer."""
        self._number("q", "int64", x)

    def f32(self, x: float) -> None:
        """An IEEE 754 single."""
        self._number("f", "float", x)

    def f64(self, x: float) -> None:
        """An IEEE 754 double."""
        self._number("d", "double", x)

    def size(self, n: int | None) -> None:
        """A Size; None is the null."""
        if n is None:
            self._tail.append(0xFF)
        elif 0 <= n < 0xFE:
            self._tail.append(n)
        elif 0 <= n < 0xFFFFFFFF:
            self._tail.append(0xFE)
            self._tail += _U32[self.big].pack(n)
        else:
            raise RangeError(f"Size cannot hold {n}")

    def string(self, s: str) -> None:
        """A String in UTF-8; bytes that surrogateescape kept come out as they were."""
        try:
            raw = s.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise EncodeError(f"lone surrogate in string at index {error.start}") from error
        except AttributeError as error:
            raise EncodeError(f"string expected, {type(s).__name__} found") from error
        self.size(len(raw))
        self._tail += raw

    def bytes(self, b: Any) -> None:
        """Any buffer, as it is; from 64 KiB on it is not copied."""
        view = memoryview(b)
        if not view.c_contiguous:
            view = memoryview(view.tobytes())
        if view.nbytes >= _OWN_BUFFER:
            if self._tail:
                self._buffers.append(bytes(self._tail))
                self._tail.clear()
            self._buffers.append(view.cast("B") if view.format != "B" or view.ndim != 1 else view)
        else:
            self._tail += view

    def address(self, text: str) -> None:
        """An IPv4 or IPv6 address in 16 bytes; "" is ::ffff:0.0.0.0, any."""
        try:
            address = ip_address(text or "0.0.0.0")
        except ValueError as error:
            raise EncodeError(f"no IP address: {text!r}") from error
        if address.version == 4:
            self._tail += b"\0" * 10 + b"\xff\xff" + address.packed
        else:
            self._tail += address.packed

    def patch_u32(self, pos: int, x: int) -> None:
        """Overwrite four bytes already written, which no large buffer precedes."""
        if self._buffers:
            raise ValueError("patch_u32 after a large buffer")
        if not 0 <= pos <= len(self._tail) - 4:
            raise ValueError(f"no four bytes at {pos}")
        if not 0 <= x <= 0xFFFFFFFF:
            raise RangeError(f"uint32 cannot hold {x}")
        _U32[self.big].pack_into(self._tail, pos, x)

    def buffers(self) -> list[Any]:
        """What was written as a list of buffers; the writer is empty afterwards."""
        buffers = self._buffers
        if self._tail or not buffers:
            buffers.append(bytes(self._tail))
        self._buffers = []
        self._tail = bytearray()
        return buffers

    def take(self) -> builtins.bytes:
        """What was written, joined; the writer is empty afterwards."""
        if self._buffers:
            return b"".join(self.buffers())
        joined = bytes(self._tail)
        self._tail.clear()
        return joined

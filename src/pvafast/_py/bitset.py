"""BitSet: which nodes of a structure an update carries (WIRE 5 and 6.4)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from operator import index
from typing import TYPE_CHECKING, Any, Final, final

from .buffer import Reader, Writer

if TYPE_CHECKING:
    from .introspection import FieldDesc


# No structure has so many nodes: bits from here on are ignored.
_MAX_BITS: Final = 1 << 24


def _reversed_words(raw: bytes) -> bytes:
    """The bytes of each complete group of eight the other way round, for big-endian; what remains as it is."""
    whole = len(raw) & ~7
    words = array("Q", raw[:whole])
    words.byteswap()
    return words.tobytes() + raw[whole:]


def _read_bits(r: Reader) -> int:
    """The wire form as an int, bit n of it being bit n of the set."""
    pos = r.pos
    n = r.size()
    if n > r.end - r.pos:
        error = r._short(f"BitSet of {n} bytes", n)
        r.pos = pos
        raise error
    start = r.pos
    r.pos = start + n
    raw = bytes(r.data[start : start + min(n, _MAX_BITS // 8)])
    # Complete groups of eight bytes are words in the order of the message; what remains is least significant byte first.
    return int.from_bytes(_reversed_words(raw) if r.big else raw, "little")


def _write_bits(bits: int, w: Writer) -> None:
    """The wire form of an int, trailing zero bytes trimmed."""
    n = (bits.bit_length() + 7) >> 3
    raw = bits.to_bytes(n, "little")
    w.size(n)
    w.bytes(_reversed_words(raw) if w.big else raw)


def _iterate(bits: int) -> Iterator[int]:
    """The numbers of the bits set, ascending; linear in the length of the set."""
    for i, byte in enumerate(bits.to_bytes((bits.bit_length() + 7) >> 3, "little")):
        if byte:
            for k in range(8):
                if byte >> k & 1:
                    yield i * 8 + k


@final
class BitSet:
    """An immutable set of bit numbers: the nodes of a structure, depth first, 0 being the root."""

    __slots__ = ("_bits_",)

    _bits_: int

    def __init__(self, bits: Iterable[int] = (), /) -> None:
        number = 0
        for bit in bits:
            if not 0 <= bit < _MAX_BITS:
                raise ValueError(f"bit numbers lie in 0 to {_MAX_BITS - 1}, not {bit}")
            number |= 1 << index(bit)
        self._bits_ = number

    @classmethod
    def read(cls, reader: Reader) -> BitSet:
        """Read the wire form: a Size, then that many bytes."""
        return _from_int(_read_bits(reader))

    @classmethod
    def decode(
        cls, data: Any, offset: int = 0, *, end: int | None = None, byteorder: str = "little"
    ) -> tuple[BitSet, int]:
        """Decode the wire form at `data[offset:end]`; returns the set and the offset behind it."""
        r = Reader(data, offset, end, byteorder)
        return _from_int(_read_bits(r)), r.pos

    def write(self, writer: Writer) -> None:
        """Write the wire form."""
        _write_bits(self._bits_, writer)

    def encode(self, *, byteorder: str = "little") -> bytes:
        """The wire form, trailing zero bytes trimmed."""
        w = Writer(byteorder)
        _write_bits(self._bits_, w)
        return w.take()

    def expand(self, type: FieldDesc) -> list[int]:
        """The leaves of `type` that an update with these bits carries, ascending.

        The bit of a structure stands for all leaves below it. Bits beyond the structure are ignored.
        """
        return type._plan_().expand(self._bits_)

    def isdisjoint(self, other: BitSet) -> bool:
        """True if no bit is in both."""
        return not self._bits_ & other._bits_

    def __iter__(self) -> Iterator[int]:
        return _iterate(self._bits_)

    def __contains__(self, bit: object, /) -> bool:
        return isinstance(bit, int) and bit >= 0 and bool(self._bits_ >> bit & 1)

    def __len__(self) -> int:
        return self._bits_.bit_count()

    def __bool__(self) -> bool:
        return self._bits_ != 0

    def __eq__(self, other: object, /) -> bool:
        return self._bits_ == other._bits_ if isinstance(other, BitSet) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._bits_)

    def __or__(self, other: BitSet, /) -> BitSet:
        return _from_int(self._bits_ | other._bits_) if isinstance(other, BitSet) else NotImplemented

    def __and__(self, other: BitSet, /) -> BitSet:
        return _from_int(self._bits_ & other._bits_) if isinstance(other, BitSet) else NotImplemented

    def __xor__(self, other: BitSet, /) -> BitSet:
        return _from_int(self._bits_ ^ other._bits_) if isinstance(other, BitSet) else NotImplemented

    def __sub__(self, other: BitSet, /) -> BitSet:
        return _from_int(self._bits_ & ~other._bits_) if isinstance(other, BitSet) else NotImplemented

    def __le__(self, other: BitSet, /) -> bool:
        return not self._bits_ & ~other._bits_ if isinstance(other, BitSet) else NotImplemented

    def __repr__(self) -> str:
        return f"BitSet({{{', '.join(map(str, self))}}})" if self._bits_ else "BitSet()"

    def __reduce__(self) -> tuple[object, ...]:
        return BitSet, (list(self),)


def _from_int(bits: int) -> BitSet:
    """A BitSet of the bits of an int."""
    made = BitSet.__new__(BitSet)
    made._bits_ = bits
    return made


BitSet.__module__ = "pvafast"

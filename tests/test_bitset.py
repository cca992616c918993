"""BitSet: the wire form in both byte orders, set algebra, expansion (WIRE 5 and 6.4)."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from pvafast.errors import DecodeError


@pytest.mark.parametrize(
    ("bits", "order", "raw"),
    [
        ((), "little", "00"),
        ((), "big", "00"),
        ((0,), "little", "0101"),
        ((8,), "big", "020001"),
        # WIRE 5: complete groups of eight bytes are words in message order, the rest is least significant first.
        ((1, 63), "big", "088000000000000002"),
        ((1, 55), "big", "0702000000000080"),
        ((1, 8, 63, 64), "big", "09800000000000010201"),
        ((1, 63), "little", "080200000000000080"),
        ((64,), "little", "09000000000000000001"),
        ((64,), "big", "09000000000000000001"),
    ],
)
def test_wire_form(backend: SimpleNamespace, bits: tuple[int, ...], order: str, raw: str) -> None:
    made = backend.bitset.BitSet(bits)
    assert made.encode(byteorder=order).hex() == raw
    assert backend.bitset.BitSet.decode(bytes.fromhex(raw), byteorder=order) == (made, len(raw) // 2)
    found, end = backend.bitset.BitSet.decode(b"??" + bytes.fromhex(raw) + b"?", 2, byteorder=order)
    assert (list(found), end) == (list(bits), 2 + len(raw) // 2)


def test_untrimmed_and_short(backend: SimpleNamespace) -> None:
    assert backend.bitset.BitSet.decode(b"\x03\x02\x00\x00")[0] == backend.bitset.BitSet((1,))
    with pytest.raises(DecodeError, match="BitSet of 3 bytes needs 3 bytes, 2 left"):
        backend.bitset.BitSet.decode(b"\x03\x02\x00")
    with pytest.raises(DecodeError, match="null Size"):
        backend.bitset.BitSet.decode(b"\xff")


def test_algebra(backend: SimpleNamespace) -> None:
    rng = random.Random(5)
    make = backend.bitset.BitSet
    for _ in range(200):
        a = {rng.randrange(200) for _ in range(rng.randrange(12))}
        b = {rng.randrange(200) for _ in range(rng.randrange(12))}
        x, y = make(a), make(b)
        assert set(x | y) == a | b
        assert set(x & y) == a & b
        assert set(x ^ y) == a ^ b
        assert set(x - y) == a - b
        assert list(x) == sorted(a)
        assert (len(x), bool(x)) == (len(a), bool(a))
        assert (x == y, x <= y, x.isdisjoint(y)) == (a == b, a <= b, a.isdisjoint(b))
        assert all((i in x) == (i in a) for i in range(210))
        assert (x | y, hash(x | y)) == (make(a | b), hash(make(a | b)))
    assert make((1,)) != {1}
    assert -1 not in make((1,))
    assert "a" not in make((1,))
    with pytest.raises(TypeError):
        make((1,)) | {2}


def test_refusals_and_forms(backend: SimpleNamespace) -> None:
    make = backend.bitset.BitSet
    for bad in (-1, 1 << 24):
        with pytest.raises(ValueError, match="bit numbers lie in 0 to 16777215"):
            make((bad,))
    assert repr(make((1, 5))) == "BitSet({1, 5})"
    assert repr(make()) == "BitSet()"
    assert make.__module__ == "pvafast"


def test_expansion(backend: SimpleNamespace) -> None:
    fd = backend.introspection.FieldDesc.of(
        {"a": "int8", "s": {"b": "int8", "t": {"c": "int8", "d": "int8"}}, "e": "any"}
    )
    # 0 root, 1 a, 2 s, 3 b, 4 t, 5 c, 6 d, 7 e
    for bits, leaves in (
        ((), []),
        ((0,), [1, 3, 5, 6, 7]),
        ((0, 3, 7), [1, 3, 5, 6, 7]),
        ((2,), [3, 5, 6]),
        ((2, 5, 7), [3, 5, 6, 7]),
        ((4, 6), [5, 6]),
        ((1, 6, 99), [1, 6]),
    ):
        assert backend.bitset.BitSet(bits).expand(fd) == leaves

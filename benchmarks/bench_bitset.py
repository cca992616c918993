"""BitSets: from and to bytes, their algebra, and the leaves that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from operator import or_
from typing import Any

import pytest

from .messages import body, described
from .subjects import Work, repeated

# By name: the set, and as bytes. Both bits and bytes are known from WIRE: the lowest bit is the lowest of the first byte.
NTS_ALL = [1, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 17, 18, 19, 21, *range(22, 31)]
THIRDS = range(1, 1001, 3)  # of the 1,001 nodes of a wide structure
SETS = {
    "nts.all": (NTS_ALL, body("nts.all")[0]),
    "wide": ([*THIRDS], b"\x7e" + sum(1 << n for n in THIRDS).to_bytes(126, "little")),
}
BATCH = 100  # sets a run


def wide() -> bytes:
    """A structure of 1,000 doubles, described."""
    members = b"".join(b"\x04%04d\x43" % n for n in range(1000))
    return b"\x80\x00\xfe" + (1000).to_bytes(4, "little") + members


def decode(subject: Any, name: str) -> Work:
    """BitSet.decode."""
    bits, raw = SETS[name]
    BitSet = subject.bitset.BitSet  # noqa: N806
    found, end = BitSet.decode(raw)
    assert list(found) == bits
    assert end == len(raw)
    return repeated(BATCH, BitSet.decode, raw)


def encode(subject: Any, name: str) -> Work:
    """BitSet.encode."""
    bits, raw = SETS[name]
    found = subject.bitset.BitSet(bits)
    assert found.encode() == raw
    return repeated(BATCH, found.encode)


def expand(subject: Any, name: str) -> Work:
    """BitSet.expand: the leaves."""
    bits, _ = SETS[name]
    fd, _ = subject.codec.Codec().decode_type(wide() if name == "wide" else described(name))
    found = subject.bitset.BitSet(bits)
    assert found.expand(fd) == bits  # every one of them is a leaf
    structures = {0} if name == "wide" else {0, 2, 6, 10, 16, 20}
    assert subject.bitset.BitSet([0]).expand(fd) == [i for i in range(len(fd)) if i not in structures]
    return repeated(BATCH, found.expand, fd)


def union(subject: Any, name: str) -> Work:
    """a | b."""
    bits, _ = SETS[name]
    BitSet = subject.bitset.BitSet  # noqa: N806
    a, b = BitSet(bits[::2]), BitSet(bits[1::2])
    assert a | b == BitSet(bits)
    return repeated(BATCH, or_, a, b)


@pytest.mark.subjects("c", "py", "caproto", remote=["caproto"])
@pytest.mark.parametrize("name", SETS)
def test_decode(name: str, timed: Callable[..., None]) -> None:
    timed(decode, name)


@pytest.mark.subjects("c", "py", "caproto", remote=["caproto"])
@pytest.mark.parametrize("name", SETS)
def test_encode(name: str, timed: Callable[..., None]) -> None:
    timed(encode, name)


@pytest.mark.subjects("c", "py")
@pytest.mark.parametrize("name", SETS)
def test_expand(name: str, timed: Callable[..., None]) -> None:
    timed(expand, name)


@pytest.mark.subjects("c", "py")
@pytest.mark.parametrize("name", SETS)
def test_union(name: str, timed: Callable[..., None]) -> None:
    timed(union, name)

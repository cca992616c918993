"""A structure of n doubles: what a value costs by the number of its fields."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from .subjects import Work, repeated

NUMBERS = (1, 3, 10, 30, 100, 300, 1000)
_NAMES = [f"{i:04d}" for i in range(max(NUMBERS))]


def described(n: int) -> bytes:
    size = bytes([n]) if n < 254 else b"\xfe" + n.to_bytes(4, "little")
    return b"\x80\0" + size + b"".join(b"\x04" + name.encode() + b"\x43" for name in _NAMES[:n])


def encoded(n: int) -> bytes:
    return struct.pack(f"<{n}d", *(i * 0.5 for i in range(n)))


def check(found: Any, n: int) -> None:
    """`found` has the values, by the names."""
    assert [found[name] for name in _NAMES[:n]] == [i * 0.5 for i in range(n)]


def batch(n: int) -> int:
    return 100 if n <= 100 else 10


def structure(subject: Any, n: int) -> Work:
    """A full value."""
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(described(n))
    raw = encoded(n)
    value, end = codec.decode(fd, raw)
    assert end == len(raw)
    check(value, n)
    return repeated(batch(n), codec.decode, fd, raw)


@pytest.mark.subjects("c", "py", "spvirit", "caproto", remote=["caproto"])
@pytest.mark.parametrize("n", NUMBERS)
def test_structure(n: int, timed: Callable[..., None]) -> None:
    timed(structure, n)

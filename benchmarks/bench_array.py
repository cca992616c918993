"""Arrays from and to bytes in both byte orders: the only member of a structure, so that every codec can take part."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .subjects import Work, repeated

# By name: code of the array, letter of struct.
ELEMENTS = {"double": (0x4B, "d"), "uint16": (0x2D, "H"), "bool": (0x08, "?"), "string": (0x68, "")}
LENGTHS = (10, 1000, 1_000_000)
CASES = [(element, n) for element in ELEMENTS for n in LENGTHS if element != "string" or n <= 1000]
ORDERS = ("little", "big")


def items(element: str, n: int) -> list[Any]:
    if element == "string":
        return [f"item {i}" for i in range(n)]
    make = {"double": lambda i: i * 0.5, "uint16": lambda i: i & 0xFFFF, "bool": lambda i: bool(i & 1)}[
        element
    ]
    return [make(i) for i in range(n)]


def encoded(element: str, n: int, order: str) -> bytes:
    mark = "<" if order == "little" else ">"
    size = bytes([n]) if n < 254 else b"\xfe" + struct.pack(mark + "I", n)
    if element == "string":
        return size + b"".join(bytes([len(text)]) + text.encode() for text in items(element, n))
    return size + struct.pack(f"{mark}{n}{ELEMENTS[element][1]}", *items(element, n))


def described(element: str) -> bytes:
    return b"\x80\x00\x01\x05value" + bytes([ELEMENTS[element][0]])


def batch(n: int) -> int:
    """How many arrays a run takes."""
    return 100 if n <= 100 else 10 if n <= 1000 else 1


def unpack(subject: Any, element: str, n: int, order: str) -> Work:
    """Bytes to array: a view or a copy in native order."""
    data = encoded(element, n, order)
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(described(element))
    value, end = codec.decode(fd, data, byteorder=order)
    assert end == len(data)
    found = value["value"]
    if element != "string":
        assert found.dtype == np.dtype(ELEMENTS[element][1])
        found = found.tolist()
    assert found == items(element, n)
    work = repeated(batch(n), codec.decode, fd, data, byteorder=order)
    return work._replace(kept=lambda: codec.decode(fd, data, byteorder=order)[0])


def pack(subject: Any, element: str, n: int, order: str) -> Work:
    """A Value with an array (list of str) to bytes."""
    data = encoded(element, n, order)
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(described(element))
    given = items(element, n)
    if element != "string":
        given = np.array(given, ELEMENTS[element][1])
    value = subject.value.Value(fd, {"value": given})
    assert codec.encode(value, byteorder=order) == data
    return repeated(batch(n), codec.encode, value, byteorder=order)


@pytest.mark.subjects("c", "py", "spvirit", "caproto", remote=["caproto"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("element", "n"), CASES)
def test_unpack(element: str, n: int, order: str, timed: Callable[..., None]) -> None:
    timed(unpack, element, n, order)


@pytest.mark.subjects("c", "py")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("element", "n"), CASES)
def test_pack(element: str, n: int, order: str, timed: Callable[..., None]) -> None:
    timed(pack, element, n, order)

"""Sizes, 1,000 a batch: one call each, as Python sees them, and inside of one call."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any

import pytest

from .subjects import Work

COUNT = 1000
# In one byte, and in five.
FORMS = {"short": [n % 254 for n in range(COUNT)], "long": [300 + 70_000 * n for n in range(COUNT)]}
# A structure of a string array, and the value of 1,000 empty ones.
STRINGS = b"\x80\x00\x01\x05value\x68"
EMPTY = b"\xfe" + COUNT.to_bytes(4, "little") + bytes(COUNT)


def encoded(form: str) -> bytes:
    return b"".join(bytes([n]) if n < 254 else b"\xfe" + n.to_bytes(4, "little") for n in FORMS[form])


def read_sizes(subject: Any, form: str) -> Work:
    """1,000 calls of Reader.size()."""
    reader = subject.buffer.Reader(encoded(form))

    def run() -> None:
        reader.pos = 0
        size = reader.size
        for _ in repeat(None, COUNT):
            size()

    reader.pos = 0
    assert [reader.size() for _ in range(COUNT)] == FORMS[form]
    return Work(run, COUNT)


def write_sizes(subject: Any, form: str) -> Work:
    """1,000 calls of Writer.size(), and take()."""
    numbers = FORMS[form]

    def run() -> bytes:
        writer = subject.buffer.Writer()
        size = writer.size
        for n in numbers:
            size(n)
        return writer.take()  # type: ignore[no-any-return]

    assert run() == encoded(form)
    return Work(run, COUNT)


def empty_strings(subject: Any) -> Work:
    """1,000 empty strings in a value: nothing but Sizes, in one call."""
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(STRINGS)
    value, end = codec.decode(fd, EMPTY)
    assert value["value"] == [""] * COUNT
    assert end == len(EMPTY)
    return Work(lambda: codec.decode(fd, EMPTY), COUNT)


@pytest.mark.subjects("c", "py", "caproto", remote=["caproto"])
@pytest.mark.parametrize("form", FORMS)
def test_read_sizes(form: str, timed: Callable[..., None]) -> None:
    timed(read_sizes, form)


@pytest.mark.subjects("c", "py", "caproto", remote=["caproto"])
@pytest.mark.parametrize("form", FORMS)
def test_write_sizes(form: str, timed: Callable[..., None]) -> None:
    timed(write_sizes, form)


@pytest.mark.subjects("c", "py", "spvirit", "caproto", remote=["caproto"])
def test_empty_strings(timed: Callable[..., None]) -> None:
    timed(empty_strings)

"""Projection: some fields of an update, the rest skipped; an array of 27,000 structures as columns, and whole."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from .bench_value import batch
from .messages import HOLDS, UPDATE_AT, described, frame, ramp, update
from .subjects import Work, repeated

# 27,000 elements at 10 Hz: https://github.com/epics-base/pvaPy/issues/75
ROWS = 27_000
MEMBERS = ("id", "x", "y", "time", "severity", "ok")
# The elements end in a string where they are "named".
KINDS = ("numbers", "named")
_CODES = b"\x22\x43\x43\x23\x21\x00"


def _text(s: str) -> bytes:
    return bytes([len(s)]) + s.encode()


@cache
def rows_described(kind: str) -> bytes:
    """The type: {double value, {...}[] data}."""
    members = [_text(name) + bytes([code]) for name, code in zip(MEMBERS, _CODES, strict=True)]
    if kind == "named":
        members.append(_text("name") + b"\x60")
    element = b"\x80\0" + bytes([len(members)]) + b"".join(members)
    return b"\x80\0\2" + _text("value") + b"\x43" + _text("data") + b"\x88" + element


def row(i: int) -> tuple[Any, ...]:
    """The numbers of an element."""
    return i, i * 0.5, -i * 0.25, 1_700_000_000_000_000_000 + i, i % 4, bool(i % 3)


@cache
def rows_encoded(kind: str) -> bytes:
    """A full value, little-endian."""
    out = [struct.pack("<dBI", 1.5, 0xFE, ROWS)]
    for i in range(ROWS):
        out.append(b"\1" + struct.pack("<iddqh?", *row(i)))
        if kind == "named":
            out.append(_text(f"BPM:{i}"))
    return b"".join(out)


def check_columns(get: Callable[[str], Any]) -> None:
    """Assert that get("x") and so on are the columns."""
    expected = list(zip(*(row(i) for i in range(ROWS)), strict=True))
    for name, column in zip(MEMBERS, expected, strict=True):
        assert np.array_equal(get(name), np.array(column)), name


def rows_whole(subject: Any, kind: str) -> Work:
    """decode of the whole: a Value for each element."""
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(rows_described(kind))
    raw = rows_encoded(kind)
    value, end = codec.decode(fd, raw)
    assert end == len(raw)
    check_columns(lambda name: [element[name] for element in value["data"]])
    return repeated(1, codec.decode, fd, raw)


def rows_to_columns(subject: Any, kind: str, *members: str) -> Work:
    """decode to the six numbers as columns, or to some of the members."""
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(rows_described(kind))
    raw = rows_encoded(kind)
    projection = subject.projection.Projection(fd, [f"data.{name}" for name in members or MEMBERS])
    value, end = codec.decode(projection, raw)
    assert end == len(raw)
    if not members:
        check_columns(value["data"].__getitem__)
    else:
        assert value["data"].fields == members
    return repeated(1, codec.decode, projection, raw)


def rows_skipped(subject: Any, kind: str) -> Work:
    """decode of the value in front of the array, which is skipped."""
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(rows_described(kind))
    raw = rows_encoded(kind)
    projection = subject.projection.Projection(fd, ["value"])
    value, end = codec.decode(projection, raw)
    assert (value["value"], end) == (1.5, len(raw))
    return repeated(1, codec.decode, projection, raw)


def some_fields(subject: Any, name: str, *fields: str) -> Work:
    """decode_update of an NTScalar, some fields of it."""
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(described(name))
    projection = subject.projection.Projection(fd, fields)
    raw = update(name)
    value, end = codec.decode_update(projection, raw, UPDATE_AT)
    assert end == len(raw) - 1
    for field in projection.fields:
        assert value[field] == HOLDS[name][field]
    assert value.changed_names() == list(projection.fields)
    return repeated(batch(name), codec.decode_update, projection, raw, UPDATE_AT)


def some_of_a_frame(subject: Any, name: str) -> Work:
    """An NTNDArray to a shaped array, its attributes, time stamps and alarm skipped."""
    n = int(name[3:])
    raw = frame(n)
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(described(name))
    projection = subject.projection.Projection(fd, ["value", "dimension.size", "uniqueId"])

    def run() -> Any:
        value, _ = codec.decode_update(projection, raw, UPDATE_AT)
        return value["value"].value.reshape(value["dimension"]["size"][::-1])

    found = run()
    assert np.array_equal(found, np.frombuffer(ramp(n), "<u2").reshape(n, n))
    assert np.shares_memory(found, np.frombuffer(raw, np.uint8))
    return Work(run)


@pytest.mark.subjects("c", "py", "spvirit")
@pytest.mark.parametrize("kind", KINDS)
def test_rows_whole(kind: str, timed: Callable[..., None]) -> None:
    timed(rows_whole, kind)


@pytest.mark.subjects("c", "py", "spvirit", "p4p", "pvapy", remote=["p4p", "pvapy"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_to_columns(kind: str, timed: Callable[..., None]) -> None:
    timed(rows_to_columns, kind)


@pytest.mark.subjects("c", "py", "spvirit")
@pytest.mark.parametrize("members", [("x",), ("x", "name")])
def test_some_columns(members: tuple[str, ...], timed: Callable[..., None]) -> None:
    timed(rows_to_columns, "named", *members)


@pytest.mark.subjects("c", "py")
@pytest.mark.parametrize("kind", KINDS)
def test_rows_skipped(kind: str, timed: Callable[..., None]) -> None:
    timed(rows_skipped, kind)


@pytest.mark.subjects("c", "py")
@pytest.mark.parametrize("name", ["nts.full", "nts.all"])
@pytest.mark.parametrize("fields", [("value",), ("value", "alarm.severity", "timeStamp")])
def test_some_fields(name: str, fields: tuple[str, ...], timed: Callable[..., None]) -> None:
    timed(some_fields, name, *fields)


@pytest.mark.subjects("c", "py")
def test_some_of_a_frame(timed: Callable[..., None]) -> None:
    timed(some_of_a_frame, "nd.512")

"""Columns: updates of one subscription into numpy arrays, a field each; a batch of 1,000, and a stream of a million.

spvirit knows no updates: it decodes full values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .messages import described, stream
from .subjects import Work

COUNT = 1000
MANY = {"c": 1_000_000, "py": 20_000, "caproto": 2_000}
PIECE = 65_536


def value_and_time(subject: Any) -> Work:
    """clear(), and add() of framed messages: rows of value and time stamp."""
    framer = subject.framing.Framer(from_server=True)
    framer.receive_data(stream(COUNT))
    messages = framer.messages()
    fd, _ = subject.codec.Codec().decode_type(described("nts.vt"))
    columns = subject.columns.Columns(fd, ["value", "timeStamp"])

    def run() -> int:
        columns.clear()
        return columns.add(messages)  # type: ignore[no-any-return]

    for _ in range(2):
        assert run() == len(columns) == COUNT
        assert columns["value"].tolist() == [i * 0.5 for i in range(COUNT)]
        assert columns.time.astype("int64").tolist() == [1700000001_123456789] * COUNT
    return Work(run, COUNT)


def stream_of_many(subject: Any) -> Work:
    """A million updates (20,000 for the slower ones) in pieces of 64 KiB: framing, then rows of value and time stamp."""
    count = MANY[subject.name]
    chunks = pieces(count)
    fd, _ = subject.codec.Codec().decode_type(described("nts.vt"))
    columns = subject.columns.Columns(fd, ["value", "timeStamp"])

    def run() -> Any:
        framer = subject.framing.Framer(from_server=True)
        columns.clear()
        for chunk in chunks:
            framer.receive_data(chunk)
            columns.add(framer.messages())
        return columns["value"], columns.time

    value, time = run()
    assert len(columns) == count
    check(value, time, count)
    return Work(run, count)


def pieces(count: int) -> list[bytes]:
    """A stream of updates of value and time, as it is received."""
    data = stream(count)
    return [data[at : at + PIECE] for at in range(0, len(data), PIECE)]


def check(value: np.ndarray, time: np.ndarray, count: int) -> None:
    assert np.array_equal(value, np.arange(count) * 0.5)
    assert np.array_equal(time, np.full(count, 1700000001_123456789))


def read(subject: Any) -> Work:
    """The arrays of values and of times, of 1,000 rows."""
    framer = subject.framing.Framer(from_server=True)
    framer.receive_data(stream(COUNT))
    fd, _ = subject.codec.Codec().decode_type(described("nts.vt"))
    columns = subject.columns.Columns(fd, ["value", "timeStamp"])
    columns.add(framer.messages())

    def run() -> tuple[Any, Any]:
        return columns["value"], columns.time

    value, time = run()
    assert value.tolist() == [i * 0.5 for i in range(COUNT)]
    assert time.astype("int64").tolist() == [1700000001_123456789] * COUNT
    return Work(run)


@pytest.mark.subjects("c", "py")
def test_value_and_time(timed: Callable[..., None]) -> None:
    timed(value_and_time)


@pytest.mark.subjects("c", "py", "caproto", remote=["caproto"])
def test_stream_of_many(timed: Callable[..., None]) -> None:
    timed(stream_of_many)


@pytest.mark.subjects("c", "py")
def test_read(timed: Callable[..., None]) -> None:
    timed(read)

"""Columns: a batch of 1,000 updates of one subscription into numpy arrays, a field each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .messages import described, stream
from .subjects import Work

COUNT = 1000


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


@pytest.mark.subjects("c", "py")
def test_read(timed: Callable[..., None]) -> None:
    timed(read)

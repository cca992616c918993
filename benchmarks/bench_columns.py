"""Columns: a batch of 1,000 updates of one subscription into numpy arrays, a field each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .messages import described, stream
from .subjects import Work

COUNT = 1000


def value_and_time(subject: Any) -> Work:
    """Framed messages into a new Columns of value and time stamp; both columns are read."""
    framer = subject.framing.Framer(from_server=True)
    framer.receive_data(stream(COUNT))
    messages = framer.messages()
    fd, _ = subject.codec.Codec().decode_type(described("nts.vt"))
    Columns = subject.columns.Columns  # noqa: N806

    def run() -> tuple[Any, Any]:
        columns = Columns(fd, ["value", "timeStamp"])
        columns.add(messages)
        return columns["value"], columns.time

    value, time = run()
    assert value.tolist() == [i * 0.5 for i in range(COUNT)]
    assert time.astype("int64").tolist() == [1700000001_123456789] * COUNT
    return Work(run, COUNT)


@pytest.mark.subjects("c", "py")
def test_value_and_time(timed: Callable[..., None]) -> None:
    timed(value_and_time)

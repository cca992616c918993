"""Losses: what it costs to account for an update: of value and time, and of a frame with its number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .messages import described, update
from .subjects import Work

COUNT = 1000


def scalars(subject: Any) -> Work:
    """The recorded update of value and time, again and again."""
    return accounted(subject, "nts.vt", ())


def frames(subject: Any) -> Work:
    """The recorded frame; every tenth number is left out."""
    return accounted(subject, "nd.512", [i for i in range(COUNT * 10 // 9 + 1) if i % 10])


def accounted(subject: Any, name: str, numbers: Any) -> Work:
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(described(name))
    message = subject.framing.Message(
        flags=0x40, command=13, data=update(name), start=8, end=len(update(name))
    )
    updates = []
    for i in range(COUNT):
        value, overrun, _ = codec.decode_monitor(fd, message)
        if numbers:
            value["uniqueId"] = numbers[i]
        updates.append(subject.monitor.Update(None, message, value, overrun, i * 10**6))
    losses = subject.losses.Losses()

    def run() -> None:
        add = losses.add
        for one in updates:
            add(one)

    run()
    assert losses.updates == COUNT
    assert losses.rate == 1000
    assert losses.frames == (COUNT if numbers else 0)
    assert losses.missing == (numbers[-1] - numbers[0] + 1 - COUNT if numbers else 0)
    return Work(run, COUNT)


@pytest.mark.subjects("c", "py")
def test_scalars(timed: Callable[..., None]) -> None:
    timed(scalars)


@pytest.mark.subjects("c", "py")
def test_frames(timed: Callable[..., None]) -> None:
    timed(frames)

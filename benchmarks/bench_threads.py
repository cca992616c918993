"""Threads: each decodes updates with a codec of its own, or decompresses frames into a buffer of its own.

With the global interpreter lock the first cannot scale; the second can as far as the library lets go of the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .messages import UPDATE_AT, check, described, update
from .subjects import Work

UPDATES = 10_000  # a thread
FRAMES = 10
SIDE = 1024


def together(n: int, call: Callable[[], object], per: int) -> Work:
    """`call` in n threads at a time; it does `per` things."""

    def run() -> None:
        threads = [threading.Thread(target=call) for _ in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return Work(run, n * per)


def updates(subject: Any, n: int) -> Work:
    raw = update("nts.full")
    fd, _ = subject.codec.Codec().decode_type(described("nts.full"))
    count = UPDATES if subject.name == "c" else UPDATES // 20

    def call() -> Any:
        decode = subject.codec.Codec().decode_update
        for _ in range(count):
            value, _ = decode(fd, raw, UPDATE_AT)
        return value

    check("nts.full", call().__getitem__)
    return together(n, call, count)


def frames(subject: Any, n: int) -> Work:
    from pvafast import ndarray

    image = (np.arange(SIDE * SIDE) % 7).astype(np.uint16).reshape(SIDE, SIDE)
    value = ndarray.encode(image, codec="lz4")

    def call() -> np.ndarray:
        out = np.empty_like(image)
        for _ in range(FRAMES):
            ndarray.Frame(value).decode(out)
        return out

    assert np.array_equal(call(), image)
    return together(n, call, FRAMES)


@pytest.mark.subjects("c", "py")
@pytest.mark.parametrize("n", [1, 2])
def test_updates(n: int, timed: Callable[..., None]) -> None:
    timed(updates, n)


@pytest.mark.subjects("c", "py", remote=["c", "py"])
@pytest.mark.parametrize("n", [1, 2])
def test_frames(n: int, timed: Callable[..., None]) -> None:
    pytest.importorskip("imagecodecs")
    timed(frames, n)

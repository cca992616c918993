"""Values: monitor updates decoded and encoded, leaves made, nothing read afterwards; frames; item access."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any

import numpy as np
import pytest

from .messages import HOLDS, UPDATE_AT, body, check, described, frame, ramp, update
from .subjects import Work, repeated

FRAMES = ("nd.512", "nd.2048")
# A full value: what a codec without BitSets can decode.
FULL = ("ntsmin.full", "nts.all", "ntsa.1000", "ntsas.1000", "tbl.upd")
ACCESS = 1000


def batch(name: str) -> int:
    """How many updates a run takes: what a call of the run costs shall not count."""
    return 100 if len(update(name)) < 1000 else 1


def decode_update(subject: Any, name: str) -> Work:
    """The payload of a monitor update."""
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(described(name))
    raw = update(name)
    value, end = codec.decode_update(fd, raw, UPDATE_AT)
    assert end == len(raw) - 1
    assert value.changed_names() == list(HOLDS[name])
    check(name, value.__getitem__)
    work = repeated(batch(name), codec.decode_update, fd, raw, UPDATE_AT)
    return work._replace(kept=lambda: codec.decode_update(fd, raw, UPDATE_AT)[0])


def decode_frame(subject: Any, name: str) -> Work:
    """An NTNDArray to a shaped array: decode_update, the sizes of its dimensions, reshape."""
    n = int(name[3:])
    raw = frame(n)
    pixels = np.frombuffer(ramp(n), "<u2").reshape(n, n)
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(described(name))

    def run() -> Any:
        value, _ = codec.decode_update(fd, raw, UPDATE_AT)
        shape = [dimension["size"] for dimension in value["dimension"]]
        return value["value"].value.reshape(shape[::-1])

    found = run()
    assert found.dtype == np.uint16
    assert np.array_equal(found, pixels)
    assert np.shares_memory(found, np.frombuffer(raw, np.uint8))
    return Work(run, kept=run)


def encode_update(subject: Any, name: str) -> Work:
    """A Value with its marks, as it was decoded, to BitSet and data."""
    raw = b"".join(body(name))
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(described(name))
    value, _ = codec.decode_update(fd, update(name), UPDATE_AT)
    assert codec.encode_update(value) == raw
    return repeated(batch(name), codec.encode_update, value)


def access(subject: Any, how: str) -> Work:
    """1,000 times the same field, in a loop."""
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(described("nts.full"))
    v, _ = codec.decode_update(fd, update("nts.full"), UPDATE_AT)
    assert v["value"] == v.value == 1.25
    assert v["alarm.status"] == v["alarm"]["status"] == v.alarm.status == 3

    def item() -> None:
        for _ in repeat(None, ACCESS):
            v["value"]

    def attribute() -> None:
        for _ in repeat(None, ACCESS):
            v.value  # noqa: B018

    def item_path() -> None:
        for _ in repeat(None, ACCESS):
            v["alarm.status"]

    def attribute_path() -> None:
        for _ in repeat(None, ACCESS):
            v.alarm.status  # noqa: B018

    ways = {
        'v["value"]': item,
        "v.value": attribute,
        'v["alarm.status"]': item_path,
        "v.alarm.status": attribute_path,
    }
    return Work(ways[how], ACCESS)


WAYS = ('v["value"]', "v.value", 'v["alarm.status"]', "v.alarm.status")


@pytest.mark.subjects("c", "py", "spvirit", "caproto", remote=["caproto"])
@pytest.mark.parametrize("name", HOLDS)
def test_decode_update(name: str, timed: Callable[..., None]) -> None:
    timed(decode_update, name)


@pytest.mark.subjects("c", "py", "spvirit", "caproto", remote=["caproto"])
@pytest.mark.parametrize("name", FRAMES)
def test_decode_frame(name: str, timed: Callable[..., None]) -> None:
    timed(decode_frame, name)


@pytest.mark.subjects("c", "py", "spvirit", "caproto", remote=["caproto"])
@pytest.mark.parametrize("name", HOLDS)
def test_encode_update(name: str, timed: Callable[..., None]) -> None:
    timed(encode_update, name)


@pytest.mark.subjects("c", "py")
@pytest.mark.parametrize("how", WAYS)
def test_access(how: str, timed: Callable[..., None]) -> None:
    timed(access, how)

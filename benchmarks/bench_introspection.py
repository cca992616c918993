"""Type descriptions: met for the first time, met again, and written.

First met: a type that is not in the introspection cache. Twice: with an id that never came before around parts of
which most did (alarm_t, time_t), as when a server's first channels are opened; and with nothing in it that came before.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest

from .messages import TYPES, described, strangers, variants
from .subjects import Work, repeated

NAMES = ("nts.vt", "nd.512")
BATCH = 400  # types a run
LOOK_UPS = 1000


def check(subject: Any, raw: bytes, text: str) -> None:
    """The description `raw` is that of the type `text`."""
    fd, end = subject.codec.Codec().decode_type(raw)
    assert end == len(raw)
    assert fd.format("short") == text


def top_names(text: str) -> list[str]:
    """The names of a structure's members, of its text in one line."""
    depth = 0
    found = [""]
    for letter in text[text.index("{") + 1 : -1]:
        depth += (letter in "{[") - (letter in "}]")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [member.split(" ")[-1] for member in found]


def one_by_one(decode: Callable[[bytes], object], descriptions: list[bytes]) -> Work:
    """A batch of the descriptions a run. All come before one comes again: by then the cache has forgotten it."""
    assert len(set(descriptions)) == len(descriptions)
    batches = cycle([descriptions[i : i + BATCH] for i in range(0, len(descriptions), BATCH)])

    def run() -> None:
        for raw in next(batches):
            decode(raw)

    return Work(run, BATCH)


def _new(subject: Any, name: str, descriptions: list[bytes]) -> Work:
    text = TYPES[name.split(".")[0]]
    check(subject, described(name), text)
    codec = subject.codec.Codec()
    fd, end = codec.decode_type(descriptions[0])
    assert end == len(descriptions[0])
    assert len(fd.members) == len(top_names(text))
    return one_by_one(codec.decode_type, descriptions)


def first_met(subject: Any, name: str) -> Work:
    """Types under ids that never came before."""
    return _new(subject, name, variants(name))


def stranger(subject: Any, name: str) -> Work:
    """Types of which no id and no member name came before."""
    return _new(subject, name, strangers(name))


def met_again(subject: Any, name: str) -> Work:
    """1,000 times a type that came before: a look-up in the introspection cache."""
    raw = described(name)
    check(subject, raw, TYPES[name.split(".")[0]])
    codec = subject.codec.Codec()
    fd, _ = codec.decode_type(raw)
    assert codec.decode_type(raw)[0] is fd
    assert subject.codec.Codec().decode_type(raw)[0] is fd
    return repeated(LOOK_UPS, codec.decode_type, raw)


def encode(subject: Any, name: str) -> Work:
    """A type to bytes."""
    raw = described(name)
    codec = subject.codec.Codec()
    fd = subject.introspection.FieldDesc.parse(TYPES[name.split(".")[0]])
    assert codec.encode_type(fd) == raw
    return repeated(100, codec.encode_type, fd)


@pytest.mark.subjects("c", "py", "spvirit", "caproto", remote=["caproto"])
@pytest.mark.parametrize("name", NAMES)
def test_first_met(name: str, timed: Callable[..., None]) -> None:
    timed(first_met, name)


@pytest.mark.subjects("c", "py", "spvirit", "caproto", remote=["caproto"])
@pytest.mark.parametrize("name", NAMES)
def test_stranger(name: str, timed: Callable[..., None]) -> None:
    timed(stranger, name)


@pytest.mark.subjects("c", "py")
@pytest.mark.parametrize("name", NAMES)
def test_met_again(name: str, timed: Callable[..., None]) -> None:
    timed(met_again, name)


@pytest.mark.subjects("c", "py")
@pytest.mark.parametrize("name", NAMES)
def test_encode(name: str, timed: Callable[..., None]) -> None:
    timed(encode, name)

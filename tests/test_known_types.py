"""The introspection cache: that a type or a part of it came before shows in nothing but speed and identity."""

from __future__ import annotations

import random
import struct
from types import SimpleNamespace
from typing import Any

import pytest

from pvafast.errors import LimitExceeded, PvaError
from pvafast.limits import Limits

LONG = "aNameSoLongThatFewOfThemReachTheLimitOfAString" * 2
NAMES = [name.encode() for name in ("value", "alarm", "x", "yy", "zzz", "limitLow", "é", LONG)]
NAMES += [b"n%d" % i for i in range(20)]


def text(raw: bytes) -> bytes:
    return bytes([len(raw)]) + raw


def composite(choose: random.Random, depth: int, code: int, pool: list[bytes]) -> bytes:
    """A description of a structure or union, now and then one with faults; parts come again from the pool."""
    names = choose.sample(NAMES, choose.choice([1, 2, 3, 5]))
    if choose.random() < 0.03:
        names.append(names[0])
    out = bytes([code]) + text(choose.choice(NAMES)) + bytes([len(names)])
    out += b"".join(text(name) + node(choose, depth, pool) for name in names)
    pool.append(out)
    del pool[:-30]
    return out


def node(choose: random.Random, depth: int, pool: list[bytes]) -> bytes:
    kind = choose.random()
    if depth == 0 or kind < 0.4:
        return bytes([choose.choice([0x00, 0x22, 0x43, 0x60, 0x68, 0x4B, 0x82, 0x8A])])
    if kind < 0.45:
        return bytes([choose.choice([0x83, 0x53, 0x5B]), choose.randrange(200)])
    if kind < 0.6 and pool:
        return choose.choice(pool)
    number = bytes([choose.randrange(4), 0])
    if kind > 0.97:
        return b"\xfe" + number
    if kind > 0.9:
        inner = choose.choice(pool) if pool and choose.random() < 0.6 else node(choose, depth, pool)
        return b"\xfd" + number + inner
    code = 0x80 if choose.random() < 0.75 else 0x81
    array = bytes([code | 0x08]) if choose.random() < 0.2 else b""
    return array + composite(choose, depth - 1, code, pool)


def outcome(backend: SimpleNamespace, raw: bytes, limits: Limits) -> Any:
    codec = backend.codec.Codec(limits=limits)
    try:
        fd, end = codec.decode_type(raw)
    except PvaError as error:
        return type(error), str(error), error.offset
    return end, fd.to_bytes(), fd.count, fd.height, fd.bits, fd.text


@pytest.mark.parametrize("seed", range(4))
def test_both_twins_alike_under_any_limits(twins: tuple[Any, Any], seed: int) -> None:
    choose = random.Random(seed)
    pool: list[bytes] = []
    for _ in range(600):
        raw = composite(choose, choose.randrange(1, 5), 0x80, pool)
        if choose.random() < 0.2:
            raw = b"\xfd\1\0" * choose.randrange(1, 3) + raw
        if choose.random() < 0.1:
            raw = raw[: choose.randrange(len(raw))]
        tight = Limits(
            depth=choose.randrange(1, 8),
            type_nodes=choose.randrange(1, 60),
            string=choose.choice([100, 253, 254, 400, 1 << 20]),
        )
        for limits in (tight, Limits(), tight):
            compiled, python = (outcome(twin, raw, limits) for twin in twins)
            assert compiled == python, raw.hex()


@pytest.mark.parametrize("expansion", [1, 2, 4, 128])
@pytest.mark.parametrize("code", [0x80, 0x81])
def test_known_parts_are_charged(twins: tuple[Any, Any], code: int, expansion: int) -> None:
    part = bytes([code]) + text(b"parts are known by their beginning") + b"\x02\x01a\x43\x01b\x60"
    array = bytes([code | 0x08]) + part
    members = b"".join(text(b"%04d" % i) + (array if i % 3 else part) for i in range(1500))
    raw = b"\x80\x00\xfe" + struct.pack("<I", 1500) + members
    for limits in (Limits(), Limits(expansion=expansion), Limits(expansion=expansion, type_nodes=2000)):
        compiled, python = (outcome(twin, raw, limits) for twin in twins)
        assert compiled == python


def test_names_inside_of_a_known_union_count(backend: SimpleNamespace) -> None:
    inner = b"\x80\x00\x03" + b"".join(text(name) + b"\x43" for name in (b"a" * 120, b"b" * 120, b"c" * 120))
    raw = b"\x80" + text(b"around a union") + b"\x01\x01u\x81\x00\x01\x01s" + inner
    first, _ = backend.codec.Codec().decode_type(raw)
    again, _ = backend.codec.Codec().decode_type(raw)
    assert again is first
    with pytest.raises(LimitExceeded) as caught:
        backend.codec.Codec(limits=Limits(string=300)).decode_type(raw)
    assert (caught.value.limit, caught.value.path) == ("string", "u.s")


def test_one_object_for_the_same_bytes(backend: SimpleNamespace) -> None:
    raw = b"\x80" + text(b"a structure with an id of more than some length") + b"\x01\x05value\x43"
    first, end = backend.codec.Codec().decode_type(raw)
    assert end == len(raw)
    assert backend.codec.Codec().decode_type(raw + b"behind")[0] is first
    other, _ = backend.codec.Codec().decode_type(raw[:-1] + b"\x42")
    assert other is not first
    assert other["value"].format("short") == "float"
    # Also where ids are given to it.
    for before in (b"\xfd\7\0", b"\xfd\7\0\xfd\x08\0"):
        assert backend.codec.Codec().decode_type(before + raw)[0] is first
    swapped, _ = backend.codec.Codec().decode_type(raw, byteorder="big")
    assert swapped == first
    # What is kept for later survives everything that comes after it.
    for i in range(5000):
        backend.codec.Codec().decode_type(raw[:10] + b"%05d" % i + raw[15:])
    assert first["value"].format("short") == "double"
    assert backend.codec.Codec().decode_type(raw)[0] == first

"""read_updates: the straight way from messages to monitor updates."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from pvafast.errors import DecodeError


class Subscription:
    """What read_updates() needs of an operation."""

    def __init__(self, backend: SimpleNamespace, type: Any) -> None:
        self.ioid = 7
        self.pv = "x"
        self.steady = type
        self.value: Any = None
        self.seen: Any = backend.bitset.BitSet(range(4))


def message(
    backend: SimpleNamespace,
    body: bytes,
    *,
    ioid: int = 7,
    sub: int = 0,
    flags: int = 0x40,
    command: int = 13,
) -> Any:
    order = ">" if flags & 0x80 else "<"
    data = struct.pack(f"{order}IB", ioid, sub) + body
    return backend.framing.Message(flags=flags, command=command, data=data)


@pytest.fixture
def fd(backend: SimpleNamespace) -> Any:
    return backend.introspection.FieldDesc.of({"a": "int32", "b": "double", "s": "string"})


def test_updates_are_laid_over_each_other(backend: SimpleNamespace, fd: Any) -> None:
    operation = Subscription(backend, fd)
    batch = [
        message(backend, b"\x01\x01" + struct.pack("<id", 1, 2.0) + b"\x02hi\x00"),
        message(backend, b"\x01\x02" + struct.pack(">i", 5) + b"\x01\x02", flags=0xC0),
    ]
    found = backend.monitor.read_updates(batch, 0, {7: operation}, backend.codec.Codec(), 3.5)
    assert [list(update.value.changed) for update in found] == [[0], [1]]
    assert [update.value["a"] for update in found] == [1, 5]
    assert [update.value["b"] for update in found] == [2.0, 2.0]
    assert [list(update.overrun) for update in found] == [[], [1]]
    assert [update.time for update in found] == [3.5, 3.5]
    assert [update.frame for update in found] == batch
    assert operation.value is found[1].value
    assert found[0].operation is operation
    assert found[0].seen is operation.seen


@pytest.mark.parametrize(
    "odd",
    [
        {"command": 10},
        {"flags": 0x00},
        {"flags": 0x41},
        {"ioid": 8},
        {"sub": 0x10},
        {"body": b"\x01\x02\x00"},  # too short
        {"body": b"\x01\x02" + bytes(4) + b"\x00\x00"},  # a byte too many
        {"body": b"\x01\x10\x00"},  # a bit that was not seen, of no node: fine
    ],
)
def test_stops_at_what_is_not_plain(backend: SimpleNamespace, fd: Any, odd: dict[str, Any]) -> None:
    good = message(backend, b"\x01\x02" + bytes(4) + b"\x00")
    other = message(backend, **{"body": b"\x01\x02" + bytes(4) + b"\x00", **odd})
    found = backend.monitor.read_updates(
        [good, good, other, good], 1, {7: Subscription(backend, fd)}, backend.codec.Codec()
    )
    assert len(found) == (3 if odd.get("body") == b"\x01\x10\x00" else 1)


def test_bits_not_seen_are_not_plain(backend: SimpleNamespace, fd: Any) -> None:
    operation = Subscription(backend, fd)
    operation.seen = backend.bitset.BitSet((1,))
    batch = [message(backend, b"\x01\x04" + bytes(8) + b"\x00")]
    assert backend.monitor.read_updates(batch, 0, {7: operation}, backend.codec.Codec()) == []
    assert operation.value is None
    operation.seen = None
    assert len(backend.monitor.read_updates(batch, 0, {7: operation}, backend.codec.Codec())) == 1


def test_not_steady(backend: SimpleNamespace, fd: Any) -> None:
    operation = Subscription(backend, None)
    batch = [message(backend, b"\x00\x00")]
    assert backend.monitor.read_updates(batch, 0, {7: operation}, backend.codec.Codec()) == []
    broken = backend.codec.Codec()
    with pytest.raises(DecodeError, match="unknown type code"):
        broken.decode_type(b"\x11")
    operation.steady = fd
    assert backend.monitor.read_updates(batch, 0, {7: operation}, broken) == []


def test_the_length_of_a_run(backend: SimpleNamespace) -> None:
    def run(*batch: Any, first: int = 0) -> int:
        return int(backend.monitor.run_length(list(batch), first))

    one = message(backend, b"\0\0")
    other = message(backend, b"\0\0", ioid=8)
    assert run() == 0
    assert run(one) == 1
    assert run(one, message(backend, b""), one, other, one) == 3
    assert run(one, other, other, first=1) == 2
    assert run(one, first=1) == 0
    for no_update in (
        message(backend, b"", sub=8),
        message(backend, b"", command=10),
        message(backend, b"", flags=0x41),
        backend.framing.Message(flags=0x40, command=13, data=b"\7\0\0\0"),
    ):
        assert run(no_update, one) == 0
        assert run(one, no_update, one) == 1
    # The same number in the other byte order is another message's.
    assert run(one, message(backend, b"", flags=0xC0)) == 1
    big = message(backend, b"", flags=0xC0, ioid=7)
    assert run(big, big) == 2
    # Several in one buffer, as they are received.
    framer = backend.framing.Framer(from_server=True)
    whole = struct.pack("<BBBBIIB", 0xCA, 2, 0x40, 13, 7, 7, 0) + b"\0\0"
    framer.receive_data(bytearray(whole * 3 + whole.replace(b"\7\0\0\0\0\0\0", b"\x09\0\0\0\0\0\0")))
    assert run(*framer.messages()) == 3

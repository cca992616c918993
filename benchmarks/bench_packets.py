"""Captures: updates of an NTScalar, each in a TCP packet of its own, over Ethernet and IPv4.

`runs` is the compiled word alone: packets into runs. `summed` is the whole way of `pvafast decode --summary`, and takes the
twin that the process runs on. No other codec here reads captures.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from .messages import init, stream, update
from .subjects import Work

COUNT = 10_000
KEY = bytes([10, 0, 0, 1, 10, 0, 0, 2]) + struct.pack(">HH", 5075, 40_000)
SYN, ACK = 2, 16
FILE = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)


def packet(number: int, sequence: int, data: bytes, flags: int = ACK) -> bytes:
    """From the server; one a millisecond."""
    frame = (
        bytes(12)
        + b"\x08\x00"
        + struct.pack(">BBHIBBH", 0x45, 0, 40 + len(data), 0, 64, 6, 0)
        + KEY
        + struct.pack(">IIBBHI", sequence, 0, 0x50, flags, 512, 0)
        + data
    )
    return (
        struct.pack("<IIII", 1_700_000_000 + number // 1000, number % 1000 * 1000, len(frame), len(frame))
        + frame
    )


def updates(first: int) -> bytes:
    """COUNT packets of an update each."""
    size = len(update("nts.vt"))
    said = stream(COUNT)
    return b"".join(packet(i + 1, first + size * i, said[size * i : size * (i + 1)]) for i in range(COUNT))


def runs(subject: Any) -> Work:
    lan = SimpleNamespace(link=1, clock=SimpleNamespace(per_second=1_000_000))
    connection = SimpleNamespace(ignored=False)
    flow, peer = (subject.packets.Flow(connection, side) for side in (0, 1))
    flow.peer, peer.peer = peer, flow
    flow.fast = True
    file = FILE + updates(100)

    def run() -> list[Any]:
        flow.next = 100
        found, end = subject.packets.Plain({KEY: flow}, None, True).pcap(file, len(FILE), "<", lan)
        assert end == len(file)
        return found  # type: ignore[no-any-return]

    found = run()
    assert b"".join(chunk for one in found for chunk in one.chunks) == stream(COUNT)
    assert [time for one in found for time in one.times][-1] == 1_700_000_000 * 10**6 + COUNT * 1000
    return Work(run, COUNT)


def summed(subject: Any) -> Work:
    """The server's side of a conversation: its first words, the reply that brings the type, updates."""
    import pvafast
    from pvafast.capture import read
    from pvafast.capture.summary import Summary

    assert subject.name == pvafast.BACKEND
    hello = b"\xca\x02\x41\x02\0\0\0\0" + init("nts.vt")
    file = FILE + packet(0, 99, b"", SYN | ACK) + packet(0, 100, hello) + updates(100 + len(hello))

    def run() -> Any:
        summary = Summary()
        for batch in read(io.BytesIO(file)).batches(together=True):
            summary.add_batch(batch)
        return summary

    [pv] = run().pvs.values()
    assert (pv.updates, pv.bytes) == (COUNT, len(stream(COUNT)))
    assert pv.rate == 1000
    return Work(run, COUNT)


@pytest.mark.subjects("c", "py")
def test_runs(timed: Callable[..., None]) -> None:
    timed(runs)


@pytest.mark.subjects("c", "py", remote=["c", "py"])
def test_summed(timed: Callable[..., None]) -> None:
    timed(summed)

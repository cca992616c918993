"""Captures: updates of an NTScalar, each in a TCP packet of its own, over Ethernet and IPv4.

`runs` is the compiled word alone: packets into runs. `summed` is the whole way of `pvafast decode --summary`, and takes the
twin that the process runs on. No other codec here reads captures.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from .capture import ACK, FILE, HELLO, NOW, SYN, key, packet
from .messages import init, stream, update
from .subjects import Work

COUNT = 10_000
PORT = 40_000


def updates(first: int) -> bytes:
    """COUNT packets of an update each, one a millisecond."""
    size = len(update("nts.vt"))
    said = stream(COUNT)
    return b"".join(
        packet(i + 1, PORT, first + size * i, said[size * i : size * (i + 1)]) for i in range(COUNT)
    )


def runs(subject: Any) -> Work:
    lan = SimpleNamespace(link=1, clock=SimpleNamespace(per_second=1_000_000))
    connection = SimpleNamespace(ignored=False)
    flow, peer = (subject.packets.Flow(connection, side) for side in (0, 1))
    flow.peer, peer.peer = peer, flow
    flow.fast = True
    file = FILE + updates(100)

    def run() -> list[Any]:
        flow.next = 100
        found, end = subject.packets.Plain({key(PORT): flow}, None, True).pcap(file, len(FILE), "<", lan)
        assert end == len(file)
        return found  # type: ignore[no-any-return]

    found = run()
    assert b"".join(chunk for one in found for chunk in one.chunks) == stream(COUNT)
    assert [time for one in found for time in one.times][-1] == NOW * 10**6 + COUNT * 1000
    return Work(run, COUNT)


def summed(subject: Any) -> Work:
    """The server's side of a conversation: its first words, the reply that brings the type, updates."""
    import pvafast
    from pvafast.capture import read
    from pvafast.capture.summary import Summary

    assert subject.name == pvafast.BACKEND
    hello = HELLO + init("nts.vt")
    file = (
        FILE + packet(0, PORT, 99, b"", SYN | ACK) + packet(0, PORT, 100, hello) + updates(100 + len(hello))
    )

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

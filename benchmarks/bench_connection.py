"""The whole way: a chunk of a stream into a connection, events out of it.

A ClientConnection that monitors the recorded NTScalar gets 1,000 updates of value and time in one chunk; each comes out as
an Update whose value is laid over the one before. Connections use the twin that the process runs on, so each subject
is a process of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from .messages import TYPE_AT, init, stream
from .subjects import Work

COUNT = 1000
CID, SID = 1, 7
IOID = int.from_bytes(init("nts.vt")[8:12], "little")  # as recorded


def from_server(command: int, payload: bytes) -> bytes:
    return b"\xca\x02\x40" + bytes([command]) + struct.pack("<I", len(payload)) + payload


def subscribed(pvafast: Any) -> Any:
    """A connection whose monitor of the recorded channel has been answered."""
    messages = pvafast.messages
    conn = pvafast.ClientConnection()
    conn.receive_data(b"\xca\x02\x41\x02\0\0\0\0")
    conn.receive_data(from_server(1, struct.pack("<IH", 87_040, 32_767) + b"\x01\x09anonymous"))
    conn.receive_data(from_server(9, b"\xff"))
    list(conn.events())
    assert conn.validated
    conn.send(messages.CreateChannel(channels=((CID, "nts"),)))
    conn.receive_data(from_server(7, struct.pack("<II", CID, SID) + b"\xff"))
    list(conn.events())
    conn.send(messages.MonitorInit(sid=SID, ioid=IOID, request=pvafast.request.parse("")))
    assert init("nts.vt")[TYPE_AT - 2 : TYPE_AT] == b"\x08\xff"
    conn.receive_data(init("nts.vt"))
    list(conn.events())
    conn.send(messages.MonitorStart(sid=SID, ioid=IOID))
    return conn


def updates_in_a_chunk(subject: Any) -> Work:
    """receive_data, and a loop over events() that does nothing."""
    import pvafast
    import pvafast.messages
    import pvafast.request

    assert subject.name == pvafast.BACKEND
    conn = subscribed(pvafast)
    chunk = stream(COUNT)

    def run() -> None:
        conn.receive_data(chunk)
        for _ in conn.events():
            pass

    for _ in range(2):
        conn.receive_data(chunk)
        events = list(conn.events())
        assert [event.value["value"] for event in events] == [i * 0.5 for i in range(COUNT)]
        for event in events:
            assert isinstance(event, pvafast.Update)
            assert event.ioid == IOID
            assert event.value["timeStamp.nanoseconds"] == 123456789
            assert list(event.value.changed) == [1, 7, 8]
            assert not event.overrun
    return Work(run, COUNT)


@pytest.mark.subjects("c", "py", remote=["c", "py"])
def test_updates_in_a_chunk(timed: Callable[..., None]) -> None:
    timed(updates_in_a_chunk)

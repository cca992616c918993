"""Inputs for tests/fuzz.py to start from: what servers send to midway's client, and clients to its server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import corpus
from midway import (
    ALL,
    ARRAYS,
    COLLECT,
    DROP,
    IMAGE,
    INITS,
    KINDS,
    LATER,
    MEMORY,
    MONITORS,
    PENDING,
    POOL,
    RECORDS,
    SCALAR,
    SOME,
    STEPS,
    WINDOW,
    filled,
    first,
    opening,
)
from pvafast import AnyValue, UnionValue, Value, messages
from pvafast._backend import codec, framing
from pvafast.messages import Command


def record(frame: Any, order: str, body: bytes | None = None, pad: int = 0, where: int = 0) -> bytes:
    """A message as a record."""
    body = bytes(frame.payload) if body is None else body
    head = frame.command & 0x1F | (0x80 if frame.byteorder != order else 0)
    return bytes([head]) + len(body).to_bytes(2, "little") + bytes([pad]) + where.to_bytes(2, "little") + body


def client_seeds() -> Iterator[tuple[bytes, bool]]:
    """What servers send to a client, and whether it is big-endian."""
    for order in ("little", "big"):
        back = opening(order)[0]
        streams = [b"".join(back[STEPS:])]
        streams += [encoded(one, order, True) for one in replies()]
        yield from inputs(streams, order, True)
        yield from large(order)
    ioids = {init.command: first(init) + PENDING for init, _ in INITS} | {Command.GET_FIELD: PENDING - 1}
    yield from recorded("server", lambda frame, data: renumbered(frame, data, 0, ioids))


def server_seeds() -> Iterator[tuple[bytes, bool]]:
    """What clients send to a server, and whether it is big-endian."""
    for order in ("little", "big"):
        there = opening(order)[1]
        streams = [b"".join(there[STEPS:])]
        streams += [encoded(one, order, False) for one in further()]
        yield from inputs(streams, order, False)
    yield from recorded("client", lambda frame, data: renumbered(frame, data, 4, {}))


def replies() -> Iterator[list[messages.PvaMessage]]:
    """What a server may send next."""
    monitors = MONITORS
    for i in range(3):
        value = filled(KINDS[i])
        for ioid in (monitors[i], monitors[3 + i], monitors[6 + i]):
            update = messages.MonitorUpdate(ioid=ioid, value=value)
            yield [update] * 3
            yield [update] * (WINDOW + 2)
            yield [update, messages.MonitorFinal(ioid=ioid, value=value)]
            yield [update, messages.MonitorError(ioid=ioid, status=FAILED), update]
        at = first(messages.GetInit) + i
        yield [messages.GetReply(ioid=at, value=value)] * 2
        yield [messages.GetReply(ioid=at, status=FAILED), messages.GetReply(ioid=at, value=value)]
        yield [
            messages.MultipleData(
                replies=tuple(
                    messages.MonitorUpdate(ioid=one, value=value) for one in (monitors[i], monitors[i])
                )
            )
        ]
        for make, pending in (
            (messages.GetInitReply, first(messages.GetInit)),
            (messages.PutInitReply, first(messages.PutInit)),
            (messages.MonitorInitReply, first(messages.MonitorInit)),
            (messages.ArrayInitReply, first(messages.ArrayInit)),
        ):
            ioid = pending + PENDING
            type = ARRAYS[i] if make is messages.ArrayInitReply else KINDS[i]
            opened = make(ioid=ioid, type=type)
            more: list[messages.PvaMessage] = []
            if make is messages.GetInitReply:
                more = [messages.GetReply(ioid=ioid, value=value)]
            elif make is messages.PutInitReply:
                more = [messages.PutReply(ioid=ioid), messages.PutGetBackReply(ioid=ioid, value=value)]
            elif make is messages.MonitorInitReply:
                more = [messages.MonitorUpdate(ioid=ioid, value=value)] * 3
            yield [opened, *more]
            yield [opened, opened]
            yield [make(ioid=ioid, status=FAILED)]
        both = messages.PutGetInitReply(
            ioid=first(messages.PutGetInit) + PENDING, put_type=KINDS[i], get_type=KINDS[i - 1]
        )
        yield [both]
        yield [messages.RpcReply(ioid=first(messages.RpcInit), value=value)]
        yield [messages.RpcReply(ioid=first(messages.RpcInit), value=AnyValue(ARRAYS[i], []))]
        yield [messages.GetFieldReply(ioid=2 * PENDING - 1, type=KINDS[i])]
    yield [messages.GetReply(ioid=1, value=filled(SCALAR)), messages.PutReply(ioid=first(messages.GetInit))]
    yield [messages.CreateChannelReply(cid=3, sid=9), messages.DestroyChannel(sid=9, cid=3)]
    yield [messages.CreateChannelReply(cid=3, status=FAILED)]
    yield [messages.CreateChannelReply(cid=3, sid=1)]
    yield [messages.DestroyChannel(sid=2, cid=2), messages.DestroyChannel(sid=1, cid=1)]
    yield [messages.Echo(), messages.Echo(payload=b"alive")]
    yield [
        messages.RemoteMessage(ioid=first(messages.GetInit), text="x"),
        messages.AclChange(cid=1, rights=3),
    ]
    yield [messages.SetByteOrder(byteorder="big"), messages.ConnectionValidated(status=FAILED)]


FAILED = messages.Status(messages.StatusType.ERROR, "no", "at")


def further() -> Iterator[list[messages.PvaMessage]]:
    """What a client may send next."""
    for i in range(3):
        value = filled(KINDS[i])
        put, both = first(messages.PutInit) + i, first(messages.PutGetInit) + i
        yield [messages.Put(sid=1, ioid=put, value=value), messages.PutGetBack(sid=1, ioid=put)]
        yield [messages.Put(sid=1, ioid=put, value=value, destroy=True)] * 2
        yield [messages.PutGet(sid=1, ioid=both, value=value), messages.PutGetGetPut(sid=1, ioid=both)]
        yield [messages.Rpc(sid=1, ioid=first(messages.RpcInit), value=value)]
        yield [messages.ArrayPut(sid=1, ioid=first(messages.ArrayInit) + i, value=AnyValue(ARRAYS[i], []))]
        yield [messages.GetInit(sid=1, ioid=1000 + i, request=value), messages.Get(sid=1, ioid=1000 + i)]
        for ioid in (MONITORS[i], MONITORS[3 + i]):
            yield [
                messages.MonitorStart(sid=1, ioid=ioid),
                messages.MonitorAck(sid=1, ioid=ioid, nfree=2),
                messages.MonitorStop(sid=1, ioid=ioid),
                messages.MonitorDestroy(sid=1, ioid=ioid),
            ]
    yield [messages.CreateChannel(channels=((20, "a"), (21, "b"))), messages.DestroyChannel(sid=4, cid=20)]
    yield [messages.CreateChannel(channels=((20, LATER), (20, "b")))]
    yield [messages.DestroyChannel(sid=1, cid=1), messages.Get(sid=1, ioid=first(messages.GetInit))]
    yield [
        messages.ConnectionValidationResponse(method="ca", data=filled(SCALAR)),
        messages.Echo(payload=b"x"),
    ]
    yield [
        messages.CancelRequest(sid=1, ioid=first(messages.GetInit)),
        messages.DestroyRequest(sid=1, ioid=4),
    ]
    yield [
        messages.GetInit(sid=99, ioid=2000, request=ALL),
        messages.GetField(sid=1, ioid=2001, field="value"),
    ]
    yield [messages.GetInit(sid=1, ioid=first(messages.GetInit), request=ALL)]


def encoded(said: list[messages.PvaMessage], order: str, from_server: bool) -> bytes:
    """Messages, by a codec of their own."""
    writer = codec.Codec()
    return b"".join(
        bytes(buffer)
        for one in said
        for buffer in messages.encode(one, codec=writer, byteorder=order, from_server=from_server)
    )


CUTS = (b"", b"\x9f\x13\x80", b"\xff\x82\x07\xc0\x20")


def inputs(streams: list[bytes], order: str, from_server: bool) -> Iterator[tuple[bytes, bool]]:
    """Streams with options, as they are and as records."""
    for i, stream in enumerate(streams):
        options, cut = i * 14 & 0x7E, CUTS[i % 3]
        head = bytes([len(cut)]) + cut
        yield bytes([options]) + head + stream, order == "big"
        yield (
            bytes([options ^ (RECORDS | DROP | POOL | SOME)]) + head + records(stream, order),
            order == "big",
        )


def records(stream: bytes, order: str) -> bytes:
    """The messages of a stream as records; control messages, which cannot be, are left out."""
    framer = framing.Framer()
    framer.receive_data(stream)
    return b"".join(record(frame, order) for frame in framer.messages() if not frame.is_control)


def large(order: str) -> Iterator[tuple[bytes, bool]]:
    """Images that are received in place, into the pool."""
    image = Value(IMAGE)
    image["value"] = UnionValue("ubyteValue", np.zeros(100 * 1024, np.uint8))
    marks = np.arange(100, dtype=np.uint8)
    image["value"].value[:100] = marks
    for ioid in (MONITORS[1], MONITORS[4], MONITORS[7], first(messages.GetInit) + 1):
        make = messages.MonitorUpdate if ioid in MONITORS else messages.GetReply
        framer = framing.Framer()
        framer.receive_data(encoded([make(ioid=ioid, value=image)], order, True))
        frame = framer.messages()[0]
        whole = bytes(frame.payload)
        where = whole.index(marks.tobytes()) + 100
        short = whole[:where] + whole[where + 99 * 1024 :]
        one = record(frame, order, short, 99, where)
        split = bytes([one[0] | 0x40]) + one[1:]
        for options in (RECORDS, RECORDS | POOL, RECORDS | POOL | DROP, RECORDS | DROP | MEMORY):
            yield bytes([options, 1, 0xFF]) + one * 2, order == "big"
            yield bytes([options, 2, 0xFF, 0x7F]) + one + split, order == "big"


def renumbered(frame: Any, data: bytearray, at: int, ioids: dict[int, int]) -> bool:
    """Give a recorded message the numbers of this connection; False for one that is not to be sent."""
    if frame.is_control or frame.command in (Command.CONNECTION_VALIDATION, Command.CONNECTION_VALIDATED):
        return False
    if Command.GET <= frame.command <= Command.RPC and len(data) >= at + 4:
        ioid = int.from_bytes(data[at : at + 4], frame.byteorder)  # type: ignore[arg-type]
        new = ioids.get(frame.command, ioid + 0x1000)
        data[at : at + 4] = new.to_bytes(4, frame.byteorder)  # type: ignore[arg-type]
        if at:
            data[:4] = (1).to_bytes(4, frame.byteorder)  # type: ignore[arg-type]
    return True


def recorded(role: str, number: Callable[[Any, bytearray], bool]) -> Iterator[tuple[bytes, bool]]:
    """Recorded conversations, as far as they fit."""
    for session in corpus.sessions().values():
        for talk in session.talks:
            framer = framing.Framer()
            framer.receive_data(talk.streams[role])
            body, big = bytearray(), bool(talk.streams["server"][2] & 0x80)
            order = "big" if big else "little"
            for frame in framer.messages():
                data = bytearray(frame.payload)
                if len(data) < 3000 and len(body) < 5000 and number(frame, data):
                    body += record(frame, order, bytes(data))
            if body:
                yield bytes([RECORDS | COLLECT, 1, 0xC0]) + bytes(body), big

"""Connections in the middle of their work, for tests/fuzz.py: a client whose operations run, and a server that answers.

An input of their targets: a byte of options, a byte that tells how many bytes of sizes follow, these, and what the other side sends:
as it is, or as records of which messages are made. It is received twice, in one piece and in pieces; both must come to the same.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from pvafast import AnyValue, Limits, UnionValue, Value, messages, ndarray, request
from pvafast._backend import framing, introspection
from pvafast._elements import ElementColumns
from pvafast._types import ARRAY_BITS, STRUCTURE, VARIABLE
from pvafast.connection import (
    ChannelRequested,
    ClientConnection,
    Collected,
    Credentials,
    OperationReply,
    OperationRequest,
    ServerConnection,
    Update,
)
from pvafast.connection.shared import ANSWERS
from pvafast.errors import LocalProtocolError, ProtocolError
from pvafast.messages import Command
from pvafast.ndarray import FramePool

LIMITS = Limits(message=1 << 20)
TIME = 1_700_000_000_000_000_000
# The options of an input.
RECORDS, DROP, POOL, ACKNOWLEDGE, MEMORY, SOME, COLLECT = (1 << i for i in range(7))

_of = introspection.FieldDesc.parse
SCALAR = _of(
    'struct "epics:nt/NTScalar:1.0" { double value; struct "alarm_t" { int32 severity; int32 status; string message } alarm; '
    'struct "time_t" { int64 secondsPastEpoch; int32 nanoseconds; int32 userTag } timeStamp }'
)
IMAGE = ndarray.NTNDArray().type
MIXED = _of(
    "struct { any a; any[] b; union { int8[] bytes; double d; string s } u; union[] { int8 x; string y } v; "
    "struct[] { string name; any value } s; string(5) t; double[3] f; bool[] g }"
)
KINDS = (SCALAR, IMAGE, MIXED)
ARRAYS = (_of("double[]"), _of("string[]"), _of("any[]"))
PENDING, LATER = (
    0x80,
    "later",
)  # operations from this ioid on, and channels of this name, wait for their answer
WINDOW = 6
REQUESTS: dict[int, tuple[type[messages.Request], ...]] = {
    Command.GET: (messages.Get,),
    Command.PUT: (messages.PutGetBack, messages.Put),
    Command.PUT_GET: (messages.PutGet, messages.PutGetGetGet, messages.PutGetGetPut),
    Command.PROCESS: (messages.Process,),
    Command.RPC: (messages.Rpc,),
    Command.ARRAY: (messages.ArrayGet, messages.ArrayPut, messages.ArraySetLength, messages.ArrayGetLength),
}
INITS: tuple[tuple[type[messages.InitRequest], int], ...] = (  # how many of each
    (messages.GetInit, 3),
    (messages.PutInit, 3),
    (messages.PutGetInit, 3),
    (messages.MonitorInit, 9),  # three plain ones, three pipelined, three that are collected
    (messages.RpcInit, 1),
    (messages.ArrayInit, 3),
    (messages.ProcessInit, 1),
)


def first(init: type[messages.InitRequest]) -> int:
    """The ioid of the first operation of a kind: a multiple of three, so that the types go round."""
    return next(3 + 12 * i for i, (one, _) in enumerate(INITS) if one is init)


MONITORS = range(first(messages.MonitorInit), first(messages.MonitorInit) + 9)


def kind(ioid: int, of: tuple[Any, ...] = KINDS) -> Any:
    """The type of an operation."""
    return of[ioid % len(of)]


def filled(type: Any) -> Value:
    """A value of a type, with something in it."""
    value = Value(type)
    if type == SCALAR:
        value["value"], value["alarm"], value["timeStamp.nanoseconds"] = (
            1.5,
            {"severity": 2, "message": "high"},
            7,
        )
    elif type == IMAGE:
        value["value"] = UnionValue("ushortValue", np.arange(12, dtype="<u2"))
        value["dimension"] = [{"size": 4, "fullSize": 4, "binning": 1}, {"size": 3}]
        value["attribute"] = [{"name": "gain", "value": AnyValue("double", 2.5), "descriptor": "g"}]
    elif type == MIXED:
        value["a"] = AnyValue(SCALAR, filled(SCALAR))
        value["b"] = [AnyValue("string[]", ["x", ""]), None]
        value["u"] = UnionValue("bytes", np.arange(5, dtype=np.int8))
        value["v"] = [UnionValue("y", "yes"), None, UnionValue("x", 3)]
        value["s"] = [{"name": "n", "value": AnyValue("int32", 5)}, None]
        value["t"], value["f"], value["g"] = "five", np.arange(3.0), np.ones(3, bool)
    return value


# -- the two sides


def asked(operation: Any) -> messages.PvaMessage | None:
    """The next request of an operation that is open, each of its kind in turn."""
    more: dict[str, Any] = {}
    if operation.command == Command.MONITOR:
        return messages.MonitorStart(sid=operation.sid, ioid=operation.ioid)
    kinds = REQUESTS[operation.command]
    operation.owner = turn = (operation.owner or 0) + 1
    make = kinds[turn % len(kinds)]
    type = operation.put_type if operation.command == Command.PUT_GET else operation.type
    if make is messages.Put or make is messages.PutGet:
        if type.code != STRUCTURE:  # an INIT may be answered so; there is no Value of it
            return None
        more["value"] = Value(type)
    elif make is messages.Rpc:
        more["value"] = filled(SCALAR)
    elif make is messages.ArrayPut:
        if type.code & ARRAY_BITS != VARIABLE:
            return None
        more["value"] = AnyValue(type, [])
    elif make is messages.ArraySetLength:
        more["length"] = 3
    return make(sid=operation.sid, ioid=operation.ioid, **more)


def client_goes_on(client: ClientConnection, event: Any, options: int) -> messages.PvaMessage | None:
    """What a client says to an event: it asks again."""
    if not isinstance(event, OperationReply) or not client.validated:  # a server may take that back
        return None
    operation = event.operation
    if client.operations.get(operation.ioid) is not operation or not operation.ready or operation.busy:
        return None
    if operation.cancelled or operation.channel.closing:
        return None
    if operation.command == Command.MONITOR and not isinstance(event.message, messages.MonitorInitReply):
        return None
    if operation.command == Command.MONITOR and options & COLLECT and operation.ioid >= PENDING:
        client.collect(operation.ioid)
    return asked(operation)


def server_goes_on(server: ServerConnection, event: Any, options: int) -> messages.PvaMessage | None:
    """What a server says to an event: it grants what is asked for."""
    match event:
        case Credentials():
            return messages.ConnectionValidated()
        case ChannelRequested() if event.name != LATER:
            return messages.CreateChannelReply(cid=event.cid, sid=server.new_sid())
        case OperationRequest() if event.operation.ioid < PENDING or event.operation.ioid >= 2 * PENDING:
            return granted(server, event.operation, event.message)
    return None


def granted(
    server: ServerConnection, operation: Any, message: messages.Request
) -> messages.PvaMessage | None:
    """The answer to a request."""
    ioid = operation.ioid
    more: dict[str, Any] = {}
    if isinstance(message, messages.PutGetInit):
        more = {"put_type": kind(ioid), "get_type": kind(ioid + 1)}
    elif isinstance(message, messages.ArrayInit):
        more["type"] = kind(ioid, ARRAYS)
    elif isinstance(message, messages.GetInit | messages.PutInit | messages.MonitorInit | messages.GetField):
        more["type"] = kind(ioid)
    elif message.command == Command.MONITOR:
        if not server.may_send(ioid):
            return None
        return messages.MonitorUpdate(ioid=ioid, value=filled(operation.type))
    elif isinstance(message, messages.Rpc):
        more["value"] = message.value
    elif isinstance(message, messages.ArrayGet):
        more["value"] = AnyValue(operation.type, [])
    elif isinstance(message, messages.PutGetGetPut):
        more["value"] = filled(operation.put_type)
    elif isinstance(message, messages.Get | messages.PutGetBack | messages.PutGet | messages.PutGetGetGet):
        more["value"] = filled(operation.type)
    answer: Any = ANSWERS.get(type(message))
    return None if answer is None else answer(ioid=ioid, **more)


# What a client says at first, after the handshake, up to the next answer.
CHANNELS = [messages.CreateChannel(channels=((i + 1, name),)) for i, name in enumerate(("one", "two", LATER))]


def inits() -> Iterator[messages.PvaMessage]:
    """Operations of every kind; those that wait for the answer to their INIT."""
    for init, count in INITS:
        for i in range(count):
            yield begin(init, first(init) + i)
        yield begin(init, first(init) + PENDING)
        yield begin(init, first(init) + PENDING + 1)
    yield messages.GetField(sid=1, ioid=PENDING - 1, field="")
    yield messages.GetField(sid=1, ioid=2 * PENDING - 1, field="")


def begin(init: type[messages.InitRequest], ioid: int) -> messages.PvaMessage:
    """An INIT."""
    more: dict[str, Any] = {}
    if init is messages.MonitorInit and ioid in MONITORS[3:6]:
        more["nfree"] = WINDOW
    return init(sid=1, ioid=ioid, request=QUEUE if more else ALL, **more)


ALL = request.parse("field()")
QUEUE = request.parse(f"record[queueSize={WINDOW},pipeline=true,ackAny=2]field()")


def work(client: ClientConnection, exchange: Callable[[list[Any]], bytes], options: int = 0) -> list[Any]:
    """Bring a client to where its operations run; what it then says. exchange: sends buffers, returns what came."""

    def step(*said: messages.PvaMessage) -> None:
        sent = client.data_to_send()
        for message in said:
            sent += client.send(message)
        client.receive_data(exchange(sent), TIME)
        for _ in client.events():
            pass

    step()
    step()
    step(*CHANNELS)
    step(*inits())
    said: list[messages.PvaMessage] = []
    for operation in client.operations.values():
        if not operation.ready:
            continue
        if options & SOME:
            operation.fields = ("value", "alarm.severity", "u", "b", "attribute.name", "dimension.size")
        if operation.ioid in MONITORS[6:]:
            client.collect(operation.ioid)
        if (message := asked(operation)) is not None:
            said.append(message)
    said += [
        messages.CancelRequest(sid=1, ioid=first(messages.GetInit) + 2),
        messages.DestroyRequest(sid=1, ioid=first(messages.PutInit) + 2),
        messages.DestroyChannel(sid=2, cid=2),
        messages.Echo(payload=b"alive"),
    ]
    return [buffer for message in said for buffer in client.send(message)]


@cache
def opening(order: str) -> tuple[list[bytes], list[bytes]]:
    """What a server and a client say up to there, step by step; and then, a few times more."""
    server, there, back = ServerConnection(byteorder=order, limits=LIMITS), [], []
    client = ClientConnection(user="me", host="here", limits=LIMITS)

    def exchange(sent: list[Any]) -> bytes:
        there.append(b"".join(sent))
        back.append(b"".join([*server.data_to_send(), *said(server, there[-1], server_goes_on)]))
        return back[-1]

    sent = work(client, exchange)
    for _ in range(5):
        sent = said(client, exchange(sent), client_goes_on)
    return back, there


def said(end: Any, data: bytes, goes_on: Any) -> list[Any]:
    """What one end says to what came."""
    end.receive_data(data, TIME)
    sent = []
    for event in end.events():
        sent += end.data_to_send()
        message = goes_on(end, event, 0)
        sent += [] if message is None else end.send(message)
    return sent + end.data_to_send()


STEPS = 4  # of the opening


def busy_client(order: str, options: int) -> ClientConnection:
    """A client whose operations run."""
    answers = iter(opening(order)[0])
    client = ClientConnection(user="me", host="here", limits=LIMITS, auto_ack=bool(options & ACKNOWLEDGE))
    work(client, lambda sent: next(answers), options)
    return client


def busy_server(order: str, options: int) -> ServerConnection:
    """A server whose client has operations of every kind open."""
    server = ServerConnection(byteorder=order, limits=LIMITS)
    for came in opening(order)[1][:STEPS]:
        said(server, came, server_goes_on)
    return server


# -- what came, in a form that can be compared


def tried(work: Callable[[], Any]) -> Any:
    """What it gives, or KeyError: of two members that share a dotted name ('a.b'), one cannot be named."""
    try:
        return work()
    except KeyError as error:
        return repr(error)


def plain(cell: Any) -> Any:
    """A cell or a column."""
    if isinstance(cell, np.ndarray):
        return cell.dtype.str, cell.shape, cell.tobytes()
    if isinstance(cell, list | tuple):
        return [plain(one) for one in cell]
    if isinstance(cell, ElementColumns):
        return plain(cell.present), [(name, plain(cell[name])) for name in cell.fields]
    return repr(cell)


def contents(kept: Any) -> Any:
    """All that Columns hold."""
    cells = [plain(tried(lambda name=name: kept[name])) for name in kept.fields]
    came = [plain(tried(lambda name=name: (kept.changed(name), kept.overrun(name)))) for name in kept.fields]
    bits = [kept.changed_bits(i) for i in range(len(kept))]
    return len(kept), cells, came, bits, plain(kept.time), plain(kept.received)


def held(value: Any) -> Any:
    """A value: which fields it has, and all their bytes."""
    if isinstance(value, Value):
        names = [name for i, name in enumerate(value.type.names) if value.type.is_leaf(i)]
        return (
            list(value.changed),
            repr(value),
            [bytes_of(tried(lambda name=name: value[name])) for name in names],
        )
    return repr(value), bytes_of(value)


def bytes_of(value: Any) -> Any:
    """What a repr would cut."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, UnionValue | AnyValue):
        return bytes_of(value.value)
    return repr(value)


def told(event: Any) -> Any:
    """An event."""
    if isinstance(event, Update):
        frame = event.frame
        head = frame.offset, frame.size, bytes(frame.payload), event.time, list(event.overrun)
        return "Update", event.ioid, head, held(event.value)
    if isinstance(event, Collected):
        return ["Collected", event.operation.ioid, event.rows, event.nbytes]
    message = getattr(event, "message", None)
    return repr(event), held(getattr(message, "value", None)), held(getattr(event, "data", None))


def joined(events: list[Any]) -> list[Any]:
    """Runs that were collected in one go or in several are the same."""
    found: list[Any] = []
    for event in events:
        if found and event[0] == "Collected" == found[-1][0] and event[1] == found[-1][1]:
            found[-1] = ["Collected", event[1], found[-1][2] + event[2], found[-1][3] + event[3]]
        else:
            found.append(event)
    return found


# -- feeding them


def hear(end: Any, stream: Iterator[tuple[bytes, bool]], goes_on: Any, options: int) -> Any:
    """Feed one end and go on as its program would: what it tells, what it sends, how it ends."""
    events: list[Any] = []
    sent: list[Any] = []
    watched = [one for one in end.operations.values() if one.columns is not None]

    def take() -> None:
        for event in end.events():
            sent.extend(end.data_to_send())
            message = goes_on(end, event, options)
            if message is not None:
                sent.extend(end.send(message))
                operation = getattr(event, "operation", None)
                if operation is not None and operation.columns is not None and operation not in watched:
                    watched.append(operation)
            events.append(told(event) if options & DROP else event)
        sent.extend(end.data_to_send())

    ending: Any = None
    try:
        for piece, inside in stream:
            if inside:
                at = 0
                while at < len(piece):
                    room = end.get_buffer(len(piece) - at)
                    size = min(len(room), len(piece) - at)
                    room[:size] = piece[at : at + size]
                    del room
                    end.buffer_updated(size, TIME)
                    at += size
                    take()
            else:
                end.receive_data(piece, TIME)
                if isinstance(piece, bytearray):
                    piece[:] = b"\xa5" * len(piece)  # it was copied
                take()
        end.receive_eof()
        take()
    except ProtocolError as error:
        sent.extend(end.data_to_send())  # answers to what came before
        ending = type(error).__name__, str(error), getattr(error, "offset", None)
        refuses(end)
    return events, sent, ending, watched


def refuses(end: Any) -> None:
    """After an error, nothing goes on."""
    for work in (
        lambda: end.receive_data(b""),
        lambda: end.get_buffer(),
        lambda: end.buffer_updated(0),
        lambda: list(end.events()),
        lambda: end.send(messages.Echo()),
        lambda: end.receive_eof(),
    ):
        try:
            work()
        except LocalProtocolError:
            continue
        raise AssertionError(f"{end!r} goes on after an error")
    if not end.closed:
        raise AssertionError(f"{end!r} is not closed after an error")


def summary(heard: Any) -> Any:
    """The outcome of hear()."""
    events, sent, ending, watched = heard
    events = joined([event if isinstance(event, list | tuple) else told(event) for event in events])
    return events, b"".join(sent), ending, [contents(operation.columns) for operation in watched]


@cache
def pool() -> FramePool:
    """Where large messages are received."""
    return FramePool(2, 1 << 18)


def pieces(stream: bytes, sizes: bytes) -> Iterator[tuple[Any, bool]]:
    """A stream cut as the input says; one bit of a size says whether it is received in place."""
    at = i = 0
    least = len(stream) // 128
    while at < len(stream):
        one = sizes[i % len(sizes)] if sizes else 0x8F
        low, i = one & 0x7F, i + 1
        step = max(low + 1 if low < 64 else (low - 62) * 64, least)
        yield bytearray(stream[at : at + step]), bool(one & 0x80)
        at += step


def assembled(data: bytes, order: str, direction: int) -> bytes:
    """Records as messages: command and flags, length, how many times 1024 zeros to put in, and where; the body."""
    found, at, room = [], 0, 256
    while at + 6 <= len(data):
        head = data[at]
        size = int.from_bytes(data[at + 1 : at + 3], "little")
        pad = min(data[at + 3], room)
        where = int.from_bytes(data[at + 4 : at + 6], "little")
        body = data[at + 6 : at + 6 + size]
        at, room = at + 6 + size, room - pad
        body = body[:where] + bytes(1024 * pad) + body[where:]
        big = (order == "big") != bool(head & 0x80)
        flags = direction | (0x80 if big else 0)
        step = max(len(body) // 3, 1) if head & 0x40 else None
        made = framing.frame(
            head & 0x1F, [body], flags=flags, byteorder="big" if big else "little", segment_size=step
        )
        found += [bytes(one) for one in made]
    return b"".join(found)


def compare(make: Any, goes_on: Any, direction: int, data: bytes, order: str) -> None:
    """Receive an input in one piece and in pieces; both must come to the same."""
    if len(data) < 2:
        return
    options, many = data[0], data[1] % 16
    sizes, stream = data[2 : 2 + many], data[2 + many :]
    if options & RECORDS:
        stream = assembled(stream, order, direction)
    end = make(order, options)
    if options & POOL:
        end.allocate = pool().allocate
    if options & MEMORY:
        tracemalloc.start()
    try:
        heard = hear(end, pieces(stream, sizes), goes_on, options)
        peak = tracemalloc.get_traced_memory()[1] if options & MEMORY else 0
    finally:
        tracemalloc.stop()
    if peak > 128 * len(stream) + (4 << 20):
        raise AssertionError(f"{peak} bytes for {len(stream)}")
    parts = summary(heard)
    whole = summary(hear(make(order, options), iter([(stream, False)]), goes_on, options & ~DROP))
    # What is acknowledged in time depends on when it came.
    if parts != whole and not options & ACKNOWLEDGE:
        raise AssertionError(difference(parts, whole))


def difference(parts: Any, whole: Any, where: str = "") -> str:
    """Where two outcomes part."""
    if isinstance(parts, list | tuple) and isinstance(whole, list | tuple):
        for i, (one, other) in enumerate(zip(parts, whole, strict=False)):
            if one != other:
                return difference(one, other, f"{where}[{i}]")
        if len(parts) != len(whole):
            return f"{where}: {len(parts)} in pieces, {len(whole)} in one"
    return f"{where}: in pieces {parts!r}, in one {whole!r}"


def open_client(data: bytes, order: str) -> None:
    """What a server sends to a client that has operations of every kind open, in one piece and in pieces: the same must come."""
    compare(busy_client, client_goes_on, 0x40, data, order)


def open_server(data: bytes, order: str) -> None:
    """What a client sends to a server that grants everything, in one piece and in pieces: the same must come, and be answered."""
    compare(busy_server, server_goes_on, 0, data, order)

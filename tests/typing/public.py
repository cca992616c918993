"""What type checkers see of the public interface: read by mypy --strict and pyright, not run.

`assert_type` fails where an expression has another type than the one that a user relies on.
"""

from typing import Any, Literal, assert_type

import numpy as np

import pvafast
import pvafast.archive
import pvafast.capture
import pvafast.sync
from pvafast import messages, ndarray, normative, request
from pvafast.client import AsyncSubscription, AsyncWatch, BeaconEvent, Event, Reading, ServerEvent
from pvafast.connection import (
    Channel,
    ChannelOpened,
    ConnectionOperation,
    EncodedUpdate,
    Malformed,
    Observed,
    ObservedChannel,
    ObservedOperation,
    OperationReply,
)
from pvafast.messages import Status
from pvafast.sync import Subscription, Watch

assert_type(pvafast.BACKEND, str)
assert_type(pvafast.__version__, str)

fd = pvafast.FieldDesc.structure("", {"value": "double", "alarm": pvafast.alarm_t})
assert_type(fd, pvafast.FieldDesc)
assert_type(fd.index("value"), int)
assert_type(fd.names, tuple[str, ...])
assert_type(fd["alarm"], pvafast.FieldDesc)
assert_type(fd.array(), pvafast.FieldDesc)

for standard in (pvafast.alarm_t, pvafast.enum_t, pvafast.time_t):
    assert_type(standard, pvafast.FieldDesc)

value = pvafast.Value(fd, {"value": 1.5})
assert_type(value.type, pvafast.FieldDesc)
assert_type(value.changed, pvafast.BitSet)
assert_type(value.changed_names(), list[str])
assert_type(value.copy(), pvafast.Value)
assert_type(value.to_dict(), dict[str, Any])

codec = pvafast.Codec(limits=pvafast.Limits(string=100), ids="pvaccess")
assert_type(codec.decode_type(b""), tuple[pvafast.FieldDesc | None, int])
assert_type(codec.decode_update(fd, b""), tuple[pvafast.Value, int])
assert_type(codec.encode_update(value), bytes)
assert_type(codec.encode_type(fd, byteorder="big"), bytes)

union = pvafast.UnionValue("x", 1.5)
assert_type(union.name, str)
assert_type(union.value, Any)
held = pvafast.AnyValue("double", 1.5)
assert_type(held.type, pvafast.FieldDesc)
assert_type(held.value, Any)

projection = pvafast.Projection(fd, ["value", ("alarm", "severity")], strict=False)
assert_type(projection.type, pvafast.FieldDesc)
assert_type(projection.fields, tuple[str, ...])
assert_type(codec.decode(projection, b""), tuple[Any, int])
assert_type(codec.decode_update(projection, b""), tuple[pvafast.Value, int])


def columns_of(elements: pvafast.ElementColumns) -> None:
    assert_type(elements.fields, tuple[str, ...])
    assert_type(elements.keys(), tuple[str, ...])
    assert_type(elements.present, np.ndarray[Any, np.dtype[np.bool_]])
    assert_type(elements["x"], Any)
    assert_type(elements.copy(), pvafast.ElementColumns)
    assert_type(len(elements), int)
    assert_type("x" in elements, bool)


conn = pvafast.ClientConnection(user="me")
assert_type(conn.get_buffer(), memoryview)
assert_type(conn.validated, bool)
assert_type(conn.new_cid(), int)
assert_type(conn.send(messages.Echo()), list[Any])
for number, channel in conn.channels.items():
    assert_type(number, int)
    assert_type(channel, Channel)
for operation in conn.operations.values():
    assert_type(operation, ConnectionOperation)


def told(event: ChannelOpened | OperationReply) -> messages.Request | None:
    match event:
        case ChannelOpened(channel=channel):
            return messages.GetInit(sid=channel.sid, ioid=conn.new_ioid(), request=request.parse("field()"))
        case OperationReply(message=message):
            assert_type(message.status, Status)
            assert_type(message.ioid, int)
    return None


served = pvafast.ServerConnection(byteorder="big", methods=("anonymous",), limits=pvafast.Limits())
assert_type(served.new_sid(), int)
assert_type(served.validated, bool)
assert_type(served.may_send(1), bool)
assert_type(served.data_to_send(), list[Any])
assert_type(served.send(messages.Echo(), segment_size=1000), list[Any])
assert_type(served.send_update(1, EncodedUpdate(value), pvafast.BitSet()), list[Any])
for channel in served.channels.values():
    assert_type(channel, Channel)

observer = pvafast.Observer(limits=pvafast.Limits())
observer.receive_data("client", b"", time=1)
observer.receive_gap(1, 10)
for seen_channel in observer.channels.values():
    assert_type(seen_channel, ObservedChannel)
for seen_operation in observer.operations.values():
    assert_type(seen_operation, ObservedOperation)
for event in observer.events():
    assert_type(event, Observed | pvafast.Update | Malformed)
    if isinstance(event, Observed):
        assert_type(event.direction, Literal["client", "server"])
        assert_type(event.type, pvafast.FieldDesc | None)
        assert_type(event.status, Status | None)
    elif isinstance(event, Malformed):
        assert_type(event.reason, str)
        assert_type(event.lost, int)


def updated(update: pvafast.Update, losses: pvafast.Losses) -> None:
    assert_type(update.pv, str)
    assert_type(update.value, pvafast.Value)
    assert_type(update.overrun, pvafast.BitSet)
    assert_type(update.type, pvafast.FieldDesc)
    assert_type(update.payload, memoryview)
    assert_type(columns.add([update.frame], received=[1]), int)
    losses.add(update)
    assert_type(losses.missing, int)
    assert_type(losses.overruns, dict[str, int])
    assert_type(losses.frame_rate, float | None)
    assert_type(pvafast.archive.payload(update), tuple[memoryview | bytes, str])


assert_type(request.parse("field(value)"), pvafast.Value)

columns = pvafast.Columns(fd, ["value"])
assert_type(columns.fields, tuple[str, ...])
assert_type(columns.add([]), int)
assert_type(columns.take(), pvafast.Columns)
assert_type(len(columns), int)

frame = ndarray.Frame(value)
assert_type(frame.unique_id, int)
pool = ndarray.FramePool(2, 100)
assert_type(pool.frame(value), ndarray.Frame | None)
assert_type(normative.NTScalar("double").wrap(1.5), pvafast.Value)
assert_type(ndarray.encode(np.zeros((2, 2))), pvafast.Value)

for record in pvafast.capture.read("x.pcap"):
    assert_type(record.pv, str | tuple[str, ...])
    assert_type(record.command, str)
    if isinstance(record.event, pvafast.Update):
        assert_type(record.event.pv, str)
        assert_type(columns.add([record.event.frame], received=record.ns), int)


with pvafast.archive.Writer("run.pva", append=True) as writer:
    assert_type(writer, pvafast.archive.Writer)
    writer.add("x", value, time=1)
    writer.add_value("x", value, 1, overrun=pvafast.BitSet())
entries = pvafast.archive.read("run.pva", names=["x"], fields=["value"])
assert_type(entries, pvafast.archive.Reader)
assert_type(entries.truncated, int | None)
for entry in entries:
    assert_type(entry.name, str)
    assert_type(entry.time, int)
    assert_type(entry.value, pvafast.Value)
    assert_type(entry.payload, memoryview)


def failing() -> None:
    try:
        blocking()
    except pvafast.LimitExceeded as error:
        assert_type(error.limit, str)
    except pvafast.DecodeError as error:
        assert_type(error.offset, int)
        assert_type(error.path, str)
    except (pvafast.RangeError, pvafast.EncodeError) as error:
        assert_type(error.path, str)
    except pvafast.OperationTimeout as error:
        assert_type(error.state, str)
        assert_type(error.timeout, float)
    except pvafast.RemoteError as error:
        assert_type(error.severity, str)
        assert_type(error.message, str)
    except pvafast.Disconnected as error:
        assert_type(error.reason, str)


protocol: list[type[pvafast.ProtocolError]] = [pvafast.DecodeError, pvafast.LimitExceeded]
builtin: list[type[OSError]] = [pvafast.OperationTimeout, pvafast.Disconnected]
values: list[type[ValueError]] = [pvafast.EncodeError, pvafast.RangeError]
others: list[type[pvafast.PvaError]] = [
    pvafast.ClientClosed,
    pvafast.LocalProtocolError,
    pvafast.RemoteError,
    pvafast.errors.NormativeError,
    pvafast.errors.FrameError,
]


def seen(reading: Reading) -> None: ...


def filled(columns: pvafast.Columns) -> None: ...


def blocking() -> None:
    with pvafast.sync.Client(addr_list="10.0.0.255", timeout=3) as client:
        client.put("x", 1)
        assert_type(client.info("x"), pvafast.FieldDesc)
        assert_type(client.list_pvs("10.0.0.1"), list[str])
        with client.monitor("x") as readings:
            assert_type(readings, Subscription[Reading])
            assert_type(readings.losses, pvafast.Losses)
            reading = readings.next(timeout=5)
            assert_type(reading, Reading)
            assert_type(reading.received, int)
            assert_type(reading.raw, pvafast.Value)
            for reading in readings:
                assert_type(reading, Reading)
        for item in client.monitor("x", events=True):
            assert_type(item, Reading | Event)
        for batch in client.monitor("x", "field(value)", columns=["value"], queue_size=10):
            assert_type(batch, pvafast.Columns)
        assert_type(client.monitor("x", columns=(), events=True), Subscription[pvafast.Columns | Event])
        assert_type(client.monitor("x", pool=pool, nt=None), Subscription[Reading])
        assert_type(client.monitor("x", callback=seen), Subscription[Reading])
        assert_type(client.servers(), Watch[ServerEvent])
        for beacon in client.beacons():
            assert_type(beacon, BeaconEvent)


def either(client: pvafast.sync.Client, events: bool, columns: list[str] | None) -> None:
    assert_type(client.monitor("x", events=events, columns=columns), Subscription[Any])


async def asynchronous() -> None:
    async with pvafast.Client() as client:
        await client.put("x", 1)
        assert_type(await client.info("x"), pvafast.FieldDesc)
        async for reading in client.monitor("x"):
            assert_type(reading, Reading)
            assert_type(reading.changed_names(), list[str])
            assert_type(reading.overrun, pvafast.BitSet)
        async for item in client.monitor("x", events=True, pipeline=True):
            assert_type(item, Reading | Event)
        async for batch in client.monitor("x", columns=["value"]):
            assert_type(batch, pvafast.Columns)
        readings = client.monitor("x", ack_any="50%")
        assert_type(readings, AsyncSubscription[Reading])
        assert_type(await readings.next(timeout=5), Reading)
        assert_type(client.monitor("x", columns=(), events=True), AsyncSubscription[pvafast.Columns | Event])
        assert_type(client.monitor("x", columns=[], callback=filled), AsyncSubscription[pvafast.Columns])
        assert_type(client.beacons(), AsyncWatch[BeaconEvent])
        async for server in client.servers():
            assert_type(server, ServerEvent)


pv = pvafast.PV.of(1.5)
assert_type(pv, pvafast.PV)
assert_type(pv.is_open, bool)


@pv.on_put
def check(put: pvafast.server.Put) -> None:
    assert_type(put.raw, pvafast.Value)
    assert_type(put.peer.user, str)


with pvafast.Server({"x": pv}).running() as server:
    assert_type(server.port, int)
    assert_type(server.names(), list[str])

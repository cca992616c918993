"""What type checkers see of the public interface: read by mypy --strict and pyright, not run.

`assert_type` fails where an expression has another type than the one that a user relies on.
"""

from typing import Any, assert_type

import numpy as np

import pvafast
import pvafast.capture
import pvafast.sync
from pvafast import messages, ndarray, normative, request
from pvafast.client import Reading
from pvafast.connection import Channel, ConnectionOperation

fd = pvafast.FieldDesc.structure("", {"value": "double", "alarm": pvafast.alarm_t})
assert_type(fd, pvafast.FieldDesc)
assert_type(fd.index("value"), int)
assert_type(fd.names, tuple[str, ...])
assert_type(fd["alarm"], pvafast.FieldDesc)
assert_type(fd.array(), pvafast.FieldDesc)

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


def blocking() -> None:
    with pvafast.sync.Client(addr_list="10.0.0.255", timeout=3) as client:
        client.put("x", 1)
        assert_type(client.info("x"), pvafast.FieldDesc)
        assert_type(client.list_pvs("10.0.0.1"), list[str])
        with client.monitor("x") as readings:
            reading: Reading = readings.next(timeout=5)
            assert_type(reading.received, int)
            assert_type(reading.raw, pvafast.Value)


async def asynchronous() -> None:
    async with pvafast.Client() as client:
        await client.put("x", 1)
        assert_type(await client.info("x"), pvafast.FieldDesc)
        reading: Reading
        async for reading in client.monitor("x"):
            assert_type(reading.changed_names(), list[str])
            assert_type(reading.overrun, pvafast.BitSet)


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

"""ClientConnection against ServerConnection in memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pvafast import (
    AnyValue,
    BitSet,
    Codec,
    DecodeError,
    FieldDesc,
    LimitExceeded,
    Limits,
    LocalProtocolError,
    ProtocolError,
    RemoteError,
    Update,
    Value,
    messages,
    time_t,
)
from pvafast import connection as c
from pvafast._backend import framing
from pvafast.messages import Status, StatusType
from pvafast.request import parse

NT = FieldDesc.structure("epics:nt/NTScalar:1.0", {"value": "double", "timeStamp": time_t})
REQUEST = Value({"field": {}})


class Pair:
    """A client and a server whose bytes go over at once, in pieces of `step` bytes (0: as they are)."""

    def __init__(
        self, byteorder: str = "little", step: int = 0, segment_size: int | None = None, **options: Any
    ) -> None:
        self.client = c.ClientConnection(user="me", host="here")
        self.server = c.ServerConnection(byteorder=byteorder, **options)
        self.step = step
        self.segment_size = segment_size
        self.told: list[Any] = []  # to the client
        self.asked: list[Any] = []  # of the server

    def carry(self, buffers: list[Any], receiver: Any) -> None:
        data = b"".join(buffers)
        for i in range(0, len(data), self.step or len(data) or 1):
            receiver.receive_data(data[i : i + self.step] if self.step else data)
            found = self.told if receiver is self.client else self.asked
            found += receiver.events()

    def settle(self) -> None:
        """Let everything that the connections want to send go over."""
        while True:
            to_client, to_server = self.server.data_to_send(), self.client.data_to_send()
            if not to_client and not to_server:
                return
            self.carry(to_client, self.client)
            self.carry(to_server, self.server)

    def from_client(self, message: Any) -> None:
        self.carry(self.client.send(message, segment_size=self.segment_size), self.server)
        self.settle()

    def from_server(self, message: Any) -> None:
        self.carry(self.server.send(message, segment_size=self.segment_size), self.client)
        self.settle()

    def open(self, name: str = "x") -> tuple[int, int]:
        """Handshake and one channel: (sid, cid)."""
        self.settle()
        if not self.client.validated:
            self.from_server(messages.ConnectionValidated())
        cid, sid = self.client.new_cid(), self.server.new_sid()
        self.from_client(messages.CreateChannel(channels=((cid, name),)))
        self.from_server(messages.CreateChannelReply(cid=cid, sid=sid))
        return sid, cid


@pytest.fixture(params=[("little", 0, None), ("big", 1, None), ("little", 3, 5), ("big", 0, 16)], ids=str)
def pair(request: pytest.FixtureRequest) -> Pair:
    byteorder, step, segment_size = request.param
    return Pair(byteorder, step, segment_size)


def test_handshake(pair: Pair) -> None:
    pair.settle()
    assert [type(event) for event in pair.told] == [c.Greeted]
    assert pair.told[0].methods == ("anonymous", "ca")
    credentials = pair.asked.pop()
    assert (credentials.method, credentials.user, credentials.host, credentials.offered) == (
        "ca",
        "me",
        "here",
        True,
    )
    assert not pair.client.validated
    with pytest.raises(LocalProtocolError, match="before the connection is validated"):
        pair.client.send(messages.CreateChannel(channels=((1, "x"),)))
    pair.from_server(messages.ConnectionValidated())
    assert pair.client.validated
    assert pair.client.byteorder == pair.server.byteorder


def test_anonymous() -> None:
    pair = Pair(methods=("anonymous",))
    pair.settle()
    assert pair.told[0].method == "anonymous"
    assert (pair.asked[0].method, pair.asked[0].user, pair.asked[0].data) == ("anonymous", "", None)


def test_refused() -> None:
    pair = Pair()
    pair.settle()
    pair.from_server(messages.ConnectionValidated(status=Status(StatusType.ERROR, "no")))
    assert pair.told[-1] == c.Validated(status=Status(StatusType.ERROR, "no"))
    assert not pair.client.validated


def test_channels(pair: Pair) -> None:
    sid, cid = pair.open("the:pv")
    assert pair.asked[-1] == c.ChannelRequested(cid=cid, name="the:pv")
    channel = pair.told[-1].channel
    assert (channel.name, channel.cid, channel.sid) == ("the:pv", cid, sid)
    other = pair.client.new_cid()
    pair.from_client(messages.CreateChannel(channels=((other, "no:pv"),)))
    pair.from_server(messages.CreateChannelReply(cid=other, status=Status(StatusType.FATAL, "no such")))
    assert pair.told[-1].channel.name == "no:pv"
    assert pair.told[-1].status.message == "no such"
    pair.from_client(messages.DestroyChannel(sid=sid, cid=cid))
    assert isinstance(pair.asked[-1], c.ChannelClosed)
    assert isinstance(pair.told[-1], c.ChannelClosed)
    assert pair.client.channels == pair.server.channels == {}


def test_server_closes_a_channel(pair: Pair) -> None:
    sid, cid = pair.open()
    pair.from_client(messages.MonitorInit(sid=sid, ioid=1, request=REQUEST))
    pair.from_server(messages.MonitorInitReply(ioid=1, type=NT))
    pair.from_server(messages.DestroyChannel(sid=sid, cid=cid))
    closed = pair.told[-1]
    assert isinstance(closed, c.ChannelClosed)
    assert closed.by_peer
    assert [operation.ioid for operation in closed.operations] == [1]
    assert pair.client.operations == pair.server.operations == {}


def started(pair: Pair, ask: type, reply: type, ioid: int = 5, **more: Any) -> int:
    sid, _ = pair.open()
    pair.from_client(ask(sid=sid, ioid=ioid, request=REQUEST))
    event = pair.asked[-1]
    assert isinstance(event, c.OperationRequest)
    assert event.message.request == REQUEST
    pair.from_server(reply(ioid=ioid, **more))
    assert isinstance(pair.told[-1], c.OperationReply)
    return sid


def test_get_and_merging(pair: Pair) -> None:
    sid = started(pair, messages.GetInit, messages.GetInitReply, type=NT)
    assert pair.told[-1].message.type == NT
    pair.from_client(messages.Get(sid=sid, ioid=5))
    value = Value(NT, {"value": 2.5, "timeStamp.userTag": 7})
    pair.from_server(messages.GetReply(ioid=5, value=value))
    assert pair.told[-1].message.value == value
    # A server of pvAccessCPP sends only what changed since the last time.
    pair.from_client(messages.Get(sid=sid, ioid=5, destroy=True))
    pair.from_server(messages.GetReply(ioid=5, value=Value(NT, {"value": 3.5}), destroy=True))
    merged = pair.told[-1].message.value
    assert (merged["value"], merged["timeStamp.userTag"], merged.changed_names()) == (3.5, 7, ["value"])
    assert pair.client.operations == pair.server.operations == {}


def test_put(pair: Pair) -> None:
    sid = started(pair, messages.PutInit, messages.PutInitReply, type=NT)
    pair.from_client(messages.Put(sid=sid, ioid=5, value=Value(NT, {"value": 9.0})))
    assert pair.asked[-1].message.value.changed_names() == ["value"]
    assert pair.asked[-1].message.value["value"] == 9.0
    pair.from_server(messages.PutReply(ioid=5, status=Status(StatusType.ERROR, "read only", "at x")))
    assert pair.told[-1].message.status == Status(StatusType.ERROR, "read only", "at x")


def test_put_get(pair: Pair) -> None:
    sid = started(pair, messages.PutGetInit, messages.PutGetInitReply, put_type=NT, get_type=time_t)
    pair.from_client(messages.PutGet(sid=sid, ioid=5, value=Value(NT, {"value": 1.0})))
    assert pair.asked[-1].message.value["value"] == 1.0
    pair.from_server(messages.PutGetReply(ioid=5, value=Value(time_t, {"userTag": 3})))
    assert pair.told[-1].message.value["userTag"] == 3


def test_rpc_process_array_and_type(pair: Pair) -> None:
    sid = started(pair, messages.RpcInit, messages.RpcInitReply)
    pair.from_client(messages.Rpc(sid=sid, ioid=5, value=Value({"a": "int32"}, {"a": 1})))
    assert pair.asked[-1].message.value["a"] == 1
    pair.from_server(messages.RpcReply(ioid=5, value=AnyValue("string", "done")))
    assert pair.told[-1].message.value == AnyValue("string", "done")
    pair.from_client(messages.ProcessInit(sid=sid, ioid=6, request=REQUEST))
    pair.from_server(messages.ProcessInitReply(ioid=6))
    pair.from_client(messages.Process(sid=sid, ioid=6))
    pair.from_server(messages.ProcessReply(ioid=6))
    pair.from_client(messages.ArrayInit(sid=sid, ioid=7, request=REQUEST))
    pair.from_server(messages.ArrayInitReply(ioid=7, type=FieldDesc.of("int16[]")))
    pair.from_client(messages.ArrayGet(sid=sid, ioid=7, offset=1, count=2, stride=1))
    pair.from_server(messages.ArrayGetReply(ioid=7, value=AnyValue("int16[]", [4, 5])))
    assert pair.told[-1].message.value.value.tolist() == [4, 5]
    pair.from_client(messages.GetField(sid=sid, ioid=8, field="value"))
    assert pair.asked[-1].message.field == "value"
    pair.from_server(messages.GetFieldReply(ioid=8, type=FieldDesc.of("double")))
    assert pair.told[-1].message.type == FieldDesc.of("double")
    assert sorted(pair.client.operations) == [5, 6, 7]


def test_monitor(pair: Pair) -> None:
    sid = started(pair, messages.MonitorInit, messages.MonitorInitReply, type=NT)
    pair.from_client(messages.MonitorStart(sid=sid, ioid=5))
    whole = Value(NT, {"value": 1.0, "timeStamp": {"secondsPastEpoch": 5, "nanoseconds": 6, "userTag": 7}})
    pair.from_server(messages.MonitorUpdate(ioid=5, value=whole))
    pair.from_server(messages.MonitorUpdate(ioid=5, value=Value(NT, {"value": 2.0}), overrun=BitSet((1,))))
    first, second = pair.told[-2:]
    assert isinstance(second, c.Update)
    assert first.value == whole
    assert (second.value["value"], second.value["timeStamp.nanoseconds"]) == (2.0, 6)
    assert second.value.changed_names() == ["value"]
    assert second.overrun == BitSet((1,))
    assert second.operation.pv == "x"
    pair.from_server(messages.MonitorFinal(ioid=5))
    assert isinstance(pair.told[-1].message, messages.MonitorFinal)
    assert pair.client.operations == pair.server.operations == {}


def test_pipeline(pair: Pair) -> None:
    sid, _ = pair.open()
    pair.from_client(messages.MonitorInit(sid=sid, ioid=5, request=REQUEST, nfree=2))
    pair.from_server(messages.MonitorInitReply(ioid=5, type=NT))
    pair.from_client(messages.MonitorStart(sid=sid, ioid=5))
    update = messages.MonitorUpdate(ioid=5, value=Value(NT, {"value": 1.0}))
    pair.from_server(update)
    pair.from_server(update)
    assert not pair.server.may_send(5)
    with pytest.raises(LocalProtocolError, match="window"):
        pair.server.send(update)
    assert pair.client.operations[5].window == 0
    pair.from_client(messages.MonitorAck(sid=sid, ioid=5, nfree=1))
    assert pair.server.may_send(5)
    pair.from_server(update)
    assert [type(event) for event in pair.told[-3:]] == [c.Update] * 3


def monitor(pair: Pair, type: FieldDesc, nfree: int | None = None, ioid: int = 5) -> None:
    """An open and started monitor."""
    sid, _ = pair.open(f"x{ioid}")
    pair.from_client(messages.MonitorInit(sid=sid, ioid=ioid, request=REQUEST, nfree=nfree))
    pair.from_server(messages.MonitorInitReply(ioid=ioid, type=type))
    pair.from_client(messages.MonitorStart(sid=sid, ioid=ioid))


def test_encoded_updates(pair: Pair) -> None:
    """The bytes are those of MonitorUpdate; the client sees what was encoded once, for each of its monitors."""
    fd = FieldDesc.structure("", {"before": "string", "pixels": "uint16[]", "after": "any"})
    value = Value(fd, {"before": "é", "pixels": range(40_000), "after": AnyValue("int32", -1)})
    for ioid in (5, 6):
        monitor(pair, fd, ioid=ioid)
    update = c.EncodedUpdate(value, pair.server.byteorder)
    assert update.type == fd
    assert update.changed == value.changed
    assert update.size == sum(memoryview(buffer).nbytes for buffer in update.buffers)
    for overrun in (BitSet(), BitSet((2,))):
        for ioid in (5, 6):
            known = pair.server.send(messages.MonitorUpdate(ioid=ioid, value=value, overrun=overrun))
            sent = pair.server.send_update(ioid, update, overrun)
            assert b"".join(sent) == b"".join(known)
            pair.carry(
                pair.server.send_update(ioid, update, overrun, segment_size=pair.segment_size), pair.client
            )
            told = pair.told[-1]
            assert told.value == value
            assert told.value.changed == BitSet((1, 2, 3))
            assert told.overrun == overrun
            assert told.operation.ioid == ioid


def test_encoded_updates_are_not_copied() -> None:
    fd = FieldDesc.structure("", {"pixels": "uint8[]", "after": "int32"})
    value = Value(fd, {"pixels": np.zeros(1 << 20, np.uint8), "after": 7})
    pair = Pair()
    monitor(pair, fd)
    buffers = pair.server.send_update(5, c.EncodedUpdate(value))
    assert len(buffers) == 4  # with the header, the pixels, what follows, the overrun bits
    assert np.shares_memory(np.frombuffer(buffers[1], np.uint8), value["pixels"])


def test_encoded_updates_and_the_window() -> None:
    pair = Pair()
    monitor(pair, NT, nfree=2)
    update = c.EncodedUpdate(Value(NT, {"value": 1.0}))
    for left in (1, 0):
        pair.carry(pair.server.send_update(5, update), pair.client)
        assert pair.server.operations[5].window == left
    with pytest.raises(LocalProtocolError, match="window of the monitor 5 is closed"):
        pair.server.send_update(5, update)
    pair.from_client(messages.MonitorAck(sid=1, ioid=5, nfree=1))
    pair.carry(pair.server.send_update(5, update), pair.client)
    pair.from_client(messages.MonitorStop(sid=1, ioid=5))
    with pytest.raises(LocalProtocolError, match="not started"):
        pair.server.send_update(5, update)
    assert [event.value["value"] for event in pair.told if isinstance(event, Update)] == [1.0] * 3


def test_encoded_updates_that_do_not_fit() -> None:
    pair = Pair()
    update = c.EncodedUpdate(Value(NT, {"value": 1.0}))
    with pytest.raises(LocalProtocolError, match="no open monitor"):
        pair.server.send_update(5, update)
    monitor(pair, NT)
    with pytest.raises(LocalProtocolError, match="big-endian update for a little-endian connection"):
        pair.server.send_update(5, c.EncodedUpdate(Value(NT, {"value": 1.0}), "big"))
    with pytest.raises(LocalProtocolError, match="another type"):
        pair.server.send_update(5, c.EncodedUpdate(Value({"value": "double"}, {"value": 1.0})))
    same = FieldDesc.structure("epics:nt/NTScalar:1.0", {"value": "double", "timeStamp": time_t})
    assert pair.server.send_update(5, c.EncodedUpdate(Value(same, {"value": 1.0})))


def test_a_server_beyond_the_window() -> None:
    pair = Pair()
    sid, _ = pair.open()
    pair.from_client(messages.MonitorInit(sid=sid, ioid=5, request=REQUEST, nfree=1))
    pair.from_server(messages.MonitorInitReply(ioid=5, type=NT))
    pair.from_client(messages.MonitorStart(sid=sid, ioid=5))
    update = messages.MonitorUpdate(ioid=5, value=Value(NT, {"value": 1.0}))
    raw = b"".join(pair.server.send(update))
    pair.client.receive_data(raw + raw)
    events = pair.client.events()
    assert isinstance(next(events), c.Update)
    with pytest.raises(ProtocolError, match="more updates of ioid 5 than it was allowed"):
        next(events)


def test_cancel(pair: Pair) -> None:
    sid = started(pair, messages.GetInit, messages.GetInitReply, type=NT)
    pair.from_client(messages.Get(sid=sid, ioid=5))
    with pytest.raises(LocalProtocolError, match="before the answer"):
        pair.client.send(messages.Get(sid=sid, ioid=5))
    pair.from_client(messages.CancelRequest(sid=sid, ioid=5))
    assert any(
        isinstance(event.message, messages.CancelRequest)
        for event in pair.asked
        if isinstance(event, c.OperationRequest)
    )
    assert isinstance(pair.told[-1], c.Cancelled)
    pair.from_client(messages.Get(sid=sid, ioid=5))
    pair.from_server(messages.GetReply(ioid=5, value=Value(NT, {"value": 4.0})))
    assert pair.told[-1].message.value["value"] == 4.0


def test_destroyed_operations_still_define_types() -> None:
    """The answer to a forgotten request may define type ids that later messages use (WIRE 6.2)."""
    pair = Pair()
    sid = started(pair, messages.RpcInit, messages.RpcInitReply)
    pair.from_client(messages.Rpc(sid=sid, ioid=5, value=None))
    pair.carry(pair.client.send(messages.DestroyRequest(sid=sid, ioid=5)), pair.server)
    server = Codec(ids="pvaccess")
    late = messages.RpcReply(ioid=5, value=Value(NT, {"value": 1.0}))
    pair.carry(messages.encode(late, codec=server), pair.client)
    pair.from_client(messages.GetInit(sid=sid, ioid=6, request=REQUEST))
    pair.carry(messages.encode(messages.GetInitReply(ioid=6, type=NT), codec=server), pair.client)
    assert pair.told[-1].message.type == NT


def test_echo(pair: Pair) -> None:
    pair.open()
    pair.from_client(messages.Echo(payload=b"are you there"))
    assert pair.told[-1] == c.EchoReply(payload=b"are you there")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (lambda sid: messages.Get(sid=sid, ioid=9), "ioid 9, which is no operation"),
        (lambda sid: messages.GetInit(sid=sid + 1, ioid=9, request=REQUEST), "which is no open channel"),
        (lambda sid: messages.GetInit(sid=sid, ioid=0, request=REQUEST), "ioid 0 is in use, or zero"),
        (lambda sid: messages.GetInit(sid=sid, ioid=5, request=REQUEST), "ioid 5 is in use"),
        (lambda sid: messages.Put(sid=sid, ioid=5, value=Value(NT)), "which is a GET"),
        (lambda sid: messages.MonitorAck(sid=sid, ioid=5, nfree=1), "which is a GET"),
        (lambda sid: messages.DestroyChannel(sid=sid, cid=77), "no open channel"),
        (lambda sid: messages.CreateChannel(channels=((1, "again"),)), "the cid 1 is in use"),
        (lambda sid: messages.GetReply(ioid=5, value=Value(NT)), "GetReply"),
    ],
)
def test_misuse_by_the_client(message: Callable[[int], Any], text: str) -> None:
    pair = Pair()
    sid = started(pair, messages.GetInit, messages.GetInitReply, type=NT)
    before = repr(pair.client.operations)
    with pytest.raises(LocalProtocolError, match=text):
        pair.client.send(message(sid))
    assert repr(pair.client.operations) == before
    assert not pair.client.closed


def test_misuse_by_the_server() -> None:
    pair = Pair()
    sid, _ = pair.open()
    pair.from_client(messages.GetInit(sid=sid, ioid=5, request=REQUEST))
    for message, text in (
        (messages.GetReply(ioid=5, value=Value(NT)), "before the answer to the INIT"),
        (messages.GetReply(ioid=6, value=Value(NT)), "no operation"),
        (messages.PutInitReply(ioid=5, type=NT), "which is a GET"),
        (messages.CreateChannelReply(cid=44, sid=9), "no channel was asked for"),
        (messages.DestroyChannel(sid=44, cid=1), "no open channel"),
        (messages.Get(sid=sid, ioid=5), "Get"),
    ):
        with pytest.raises(LocalProtocolError, match=text):
            pair.server.send(message)


def test_a_failed_init_frees_the_ioid(pair: Pair) -> None:
    sid, _ = pair.open()
    pair.from_client(messages.GetInit(sid=sid, ioid=5, request=REQUEST))
    pair.from_server(messages.GetInitReply(ioid=5, status=Status(StatusType.ERROR, "no")))
    assert pair.told[-1].message.status.message == "no"
    pair.from_client(messages.GetInit(sid=sid, ioid=5, request=REQUEST))
    assert list(pair.server.operations) == [5]


def test_update_before_the_init_reply() -> None:
    pair = Pair()
    sid, _ = pair.open()
    pair.from_client(messages.MonitorInit(sid=sid, ioid=5, request=REQUEST))
    pair.client.receive_data(b"".join(framing.frame(13, [b"\x05\0\0\0\0\0\0"], flags=0x40)))
    with pytest.raises(ProtocolError, match="before its INIT was answered"):
        list(pair.client.events())
    assert pair.client.closed
    with pytest.raises(LocalProtocolError):
        list(pair.client.events())
    with pytest.raises(LocalProtocolError):
        pair.client.receive_data(b"x")


def test_unknown_channel_is_refused_by_the_server() -> None:
    pair = Pair()
    sid, cid = pair.open()
    raw = b"".join(pair.client.send(messages.GetInit(sid=sid, ioid=5, request=REQUEST)))
    pair.server.send(messages.DestroyChannel(sid=sid, cid=cid))
    pair.carry([raw], pair.server)
    pair.settle()
    assert pair.told[-1].message.status == Status(StatusType.ERROR, "bad channel id")


def test_what_came_before_an_error_is_told() -> None:
    client = c.ClientConnection()
    server = c.ServerConnection()
    client.receive_data(b"".join(server.data_to_send()) + b"garbage!")
    events = client.events()
    assert isinstance(next(events), c.Greeted)
    with pytest.raises(DecodeError, match="magic"):
        next(events)


def test_end_of_the_stream() -> None:
    pair = Pair()
    pair.open()
    pair.client.receive_eof()
    assert list(pair.client.events()) == [c.ConnectionEnded()]
    assert pair.client.closed
    pair.server.receive_data(b"\xca\x02")
    pair.server.receive_eof()
    with pytest.raises(DecodeError):
        list(pair.server.events())


def test_limits() -> None:
    server = c.ServerConnection(limits=Limits(channels=2, operations=1))
    client = Pair()
    client.open()
    many = messages.CreateChannel(channels=tuple((i, f"pv{i}") for i in range(3)))
    server.receive_data(b"".join(messages.encode(many, codec=Codec(), from_server=False)))
    with pytest.raises(DecodeError, match="more than 2 channels"):
        list(server.events())


def test_in_place() -> None:
    """A large array comes as a view of the buffer that the connection handed out."""
    fd = FieldDesc.of({"value": "uint16[]"})
    pair = Pair()
    sid, _ = pair.open()
    pair.from_client(messages.MonitorInit(sid=sid, ioid=5, request=REQUEST))
    pair.from_server(messages.MonitorInitReply(ioid=5, type=fd))
    pair.from_client(messages.MonitorStart(sid=sid, ioid=5))
    import numpy as np

    pixels = np.arange(200_000, dtype=np.uint16)
    raw = b"".join(pair.server.send(messages.MonitorUpdate(ioid=5, value=Value(fd, {"value": pixels}))))
    at, places = 0, []
    while at < len(raw):
        place = pair.client.get_buffer()
        n = min(len(place), len(raw) - at)
        place[:n] = raw[at : at + n]
        start = np.frombuffer(place, np.uint8).__array_interface__["data"][0]
        places.append((start, start + n))
        pair.client.buffer_updated(n)
        at += n
    (update,) = pair.client.events()
    array = update.value["value"]
    assert np.array_equal(array, pixels)
    first = array.__array_interface__["data"][0]
    assert any(start <= first + 390_000 < stop for start, stop in places)
    assert not array.flags.writeable


def monitored(pair: Pair, nfree: int | None = None, request: Value = REQUEST, type: FieldDesc = NT) -> int:
    """A monitor with the ioid 5 that is started; its sid."""
    sid, _ = pair.open()
    pair.from_client(messages.MonitorInit(sid=sid, ioid=5, request=request, nfree=nfree))
    pair.from_server(messages.MonitorInitReply(ioid=5, type=type))
    pair.from_client(messages.MonitorStart(sid=sid, ioid=5))
    return sid


def update(x: float) -> Any:
    return messages.MonitorUpdate(ioid=5, value=Value(NT, {"value": x}))


@pytest.mark.parametrize("early", [True, False], ids=["before the type is known", "afterwards"])
def test_some_fields(pair: Pair, early: bool) -> None:
    """What comes for an operation that was told its fields: no others are decoded, by whichever way."""
    names = ["value", "timeStamp.nanoseconds", "nothing"]
    sid, _ = pair.open()
    pair.from_client(messages.MonitorInit(sid=sid, ioid=5, request=REQUEST))
    operation = pair.client.operations[5]
    assert operation.fields is operation.reads is None
    if early:
        operation.fields = names
        assert operation.reads is None
    pair.from_server(messages.MonitorInitReply(ioid=5, type=NT))
    operation.fields = names
    assert operation.type == NT
    assert operation.reads.fields == ("value", "timeStamp.nanoseconds")
    pair.from_client(messages.MonitorStart(sid=sid, ioid=5))
    whole = Value(NT, {"value": 1.0, "timeStamp": {"secondsPastEpoch": 5, "nanoseconds": 6, "userTag": 7}})
    pair.from_server(messages.MonitorUpdate(ioid=5, value=whole))
    for x in (2.0, 3.0, 4.0):
        fields = {"value": x, "timeStamp.userTag": 9}
        pair.from_server(messages.MonitorUpdate(ioid=5, value=Value(NT, fields), overrun=BitSet((5,))))
    first, *others = pair.told[-4:]
    assert first.value.to_dict() == {
        "value": 1.0,
        "timeStamp": {"secondsPastEpoch": 0, "nanoseconds": 6, "userTag": 0},
    }
    assert first.value.changed_names() == ["value", "timeStamp.nanoseconds"]
    assert [(one.value["value"], one.value["timeStamp.nanoseconds"]) for one in others] == [
        (x, 6) for x in (2.0, 3.0, 4.0)
    ]
    for one in others:
        assert one.value.changed_names() == ["value"]
        assert one.value["timeStamp.userTag"] == 0
        assert one.overrun == BitSet((5,))
    # From now on all of them; those that were left out so far read as zero until they come.
    operation.fields = None
    assert operation.reads is operation.type
    pair.from_server(messages.MonitorUpdate(ioid=5, value=Value(NT, {"timeStamp.secondsPastEpoch": 8})))
    assert pair.told[-1].value.to_dict() == {
        "value": 4.0,
        "timeStamp": {"secondsPastEpoch": 8, "nanoseconds": 6, "userTag": 0},
    }
    with pytest.raises(TypeError, match="fields are a list of names"):
        operation.fields = "value"


def test_some_fields_of_a_get(pair: Pair) -> None:
    sid = started(pair, messages.GetInit, messages.GetInitReply, type=NT)
    pair.client.operations[5].fields = [("timeStamp", "userTag")]
    pair.from_client(messages.Get(sid=sid, ioid=5))
    pair.from_server(messages.GetReply(ioid=5, value=Value(NT, {"value": 1.0, "timeStamp.userTag": 3})))
    value = pair.told[-1].message.value
    assert (value["value"], value["timeStamp.userTag"]) == (0.0, 3)
    assert value.changed_names() == ["timeStamp.userTag"]


def test_damage_in_fields_left_out(pair: Pair) -> None:
    """It is told as ever: the update is decoded to its end."""
    monitored(pair)
    pair.client.operations[5].fields = ["timeStamp"]
    pair.from_server(update(1.0))
    pair.from_server(update(2.0))
    # BitSet of two nodes, and a double of three bytes.
    payload = b"\x05\0\0\0\0" + b"\x01\x02" + b"abc"
    order = pair.client.byteorder
    if order == "big":
        payload = payload[3::-1] + payload[4:]
    raw = framing.frame(13, [payload], flags=0x40, byteorder=order)
    pair.client.receive_data(b"".join(raw))
    with pytest.raises(DecodeError, match=r"double needs 8 bytes, 3 left at `value\.value`"):
        list(pair.client.events())


def test_updates_wait_for_the_start() -> None:
    pair = Pair()
    sid, _ = pair.open()
    pair.from_client(messages.MonitorInit(sid=sid, ioid=5, request=REQUEST))
    pair.from_server(messages.MonitorInitReply(ioid=5, type=NT))
    with pytest.raises(LocalProtocolError, match="the monitor 5 is not started"):
        pair.server.send(update(1.0))
    pair.from_client(messages.MonitorStart(sid=sid, ioid=5))
    assert pair.server.may_send(5)
    pair.from_server(update(1.0))
    pair.from_client(messages.MonitorStop(sid=sid, ioid=5))
    assert not pair.server.may_send(5)
    pair.from_client(messages.MonitorStart(sid=sid, ioid=5))
    pair.from_client(messages.MonitorDestroy(sid=sid, ioid=5))
    assert not pair.server.may_send(5)
    assert pair.client.operations == pair.server.operations == {}


def test_acknowledging_too_much() -> None:
    pair = Pair()
    sid = monitored(pair, nfree=3)
    pair.from_server(update(1.0))
    with pytest.raises(LocalProtocolError, match="2 updates of ioid 5 acknowledged, 1 received"):
        pair.client.send(messages.MonitorAck(sid=sid, ioid=5, nfree=2))
    pair.from_client(messages.MonitorAck(sid=sid, ioid=5, nfree=1))
    assert pair.client.operations[5].window == pair.server.operations[5].window == 3


@pytest.mark.parametrize(("options", "at"), [("", 2), (",ackAny=1", 1), (",ackAny=75%", 3)])
def test_acknowledging_by_itself(options: str, at: int) -> None:
    pair = Pair()
    pair.client = c.ClientConnection(auto_ack=True)
    monitored(pair, nfree=4, request=parse(f"record[pipeline=true,queueSize=4{options}]"))
    for i in range(1, 13):
        pair.carry(pair.server.send(update(i)), pair.client)
        acknowledged = pair.client.data_to_send()
        assert bool(acknowledged) == (i % at == 0)
        pair.carry(acknowledged, pair.server)
    assert [event.message.nfree for event in pair.asked[-1:]] == [at]


def test_many_updates_at_once_are_counted() -> None:
    """Those within the window are told, then the connection fails."""
    pair = Pair()
    monitored(pair, nfree=2)
    raw = b"".join(pair.server.send(update(1.0)))
    pair.client.receive_data(raw * 2)
    assert [event.value["value"] for event in pair.client.events()] == [1.0, 1.0]
    pair = Pair()
    sid = monitored(pair, nfree=5)
    pair.from_server(update(0.0))  # from here on they go the straight way
    pair.client.receive_data(raw * 6)
    events = pair.client.events()
    assert [next(events).value["value"] for _ in range(4)] == [1.0] * 4
    with pytest.raises(ProtocolError, match="more updates of ioid 5"):
        next(events)
    with pytest.raises(LocalProtocolError):
        pair.client.send(messages.MonitorStop(sid=sid, ioid=5))


def test_one_request_at_a_time() -> None:
    pair = Pair()
    sid = started(pair, messages.GetInit, messages.GetInitReply, type=NT)
    raw = b"".join(pair.client.send(messages.Get(sid=sid, ioid=5)))
    pair.carry([raw + raw], pair.server)
    assert sum(isinstance(event, c.OperationRequest) for event in pair.asked) == 2  # INIT and the first
    pair.settle()
    assert pair.told[-1].message.status == Status(StatusType.ERROR, "other request pending")
    pair.server.send(messages.GetReply(ioid=5, value=Value(NT)))
    with pytest.raises(LocalProtocolError, match="did not ask for it"):
        pair.server.send(messages.GetReply(ioid=5, value=Value(NT)))


def test_answers_fit_requests_and_types() -> None:
    pair = Pair()
    sid = started(pair, messages.PutInit, messages.PutInitReply, type=NT)
    with pytest.raises(LocalProtocolError, match="that of the operation is another type"):
        pair.client.send(messages.Put(sid=sid, ioid=5, value=Value(time_t, {"userTag": 1})))
    pair.from_client(messages.PutGetBack(sid=sid, ioid=5))
    with pytest.raises(LocalProtocolError, match="did not ask for it"):
        pair.server.send(messages.PutReply(ioid=5))
    with pytest.raises(LocalProtocolError, match="that of the operation is another type"):
        pair.server.send(messages.PutGetBackReply(ioid=5, value=Value(time_t)))
    with pytest.raises(ProtocolError, match="which asked for something else"):
        pair.carry(messages.encode(messages.PutReply(ioid=5), codec=Codec()), pair.client)


def test_a_late_answer_is_no_answer() -> None:
    """The answer to a cancelled request is not told, and does not pass for that to the next one."""
    pair = Pair()
    sid = started(pair, messages.GetInit, messages.GetInitReply, type=NT)
    told = len(pair.told)
    ask, cancel = (
        b"".join(pair.client.send(message))
        for message in (messages.Get(sid=sid, ioid=5), messages.CancelRequest(sid=sid, ioid=5))
    )
    pair.carry([ask], pair.server)
    pair.from_server(messages.GetReply(ioid=5, value=Value(NT, {"value": 1.0})))
    assert pair.told[told:] == []
    with pytest.raises(LocalProtocolError, match="before its Cancelled has come"):
        pair.client.send(messages.Get(sid=sid, ioid=5))
    pair.carry([cancel], pair.server)
    pair.settle()
    assert pair.told[told:] == [c.Cancelled(operation=pair.client.operations[5])]
    pair.from_client(messages.Get(sid=sid, ioid=5))
    pair.from_server(messages.GetReply(ioid=5, value=Value(NT, {"value": 2.0})))
    assert pair.told[-1].message.value["value"] == 2.0


def test_a_channel_that_is_closing() -> None:
    pair = Pair()
    sid = started(pair, messages.GetInit, messages.GetInitReply, type=NT)
    (cid,) = pair.client.channels
    operation = pair.client.operations[5]
    raw = pair.client.send(messages.DestroyChannel(sid=sid, cid=cid))
    assert pair.client.operations == {}
    for message in (
        messages.GetInit(sid=sid, ioid=6, request=REQUEST),
        messages.DestroyChannel(sid=sid, cid=cid),
        messages.CreateChannel(channels=((cid, "x"),)),
    ):
        with pytest.raises(LocalProtocolError):
            pair.client.send(message)
    pair.carry(raw, pair.server)
    assert pair.asked[-1].operations[0].ioid == operation.ioid
    pair.settle()
    assert isinstance(pair.told[-1], c.ChannelClosed)
    assert not pair.told[-1].by_peer
    pair.client.send(messages.CreateChannel(channels=((cid, "x"),)))


def test_numbers_in_the_wrong_order() -> None:
    """Clients of pvAccessCPP before 7.1.1 swap sid and cid."""
    server = c.ServerConnection()
    server.receive_data(
        b"".join(
            messages.encode(messages.CreateChannel(channels=((70, "x"),)), codec=Codec(), from_server=False)
        )
    )
    assert list(server.events()) == [c.ChannelRequested(cid=70, name="x")]
    server.send(messages.CreateChannelReply(cid=70, sid=3))
    swapped = messages.encode(messages.DestroyChannel(sid=70, cid=3), codec=Codec(), from_server=False)
    server.receive_data(b"".join(swapped))
    (closed,) = server.events()
    assert closed.channel.name == "x"


def test_several_replies_in_one_message() -> None:
    """Each update is laid over the one before, within the message, too."""
    pair = Pair()
    monitored(pair)
    replies = tuple(
        messages.MonitorUpdate(ioid=5, value=Value(NT, fields))
        for fields in ({"value": 1.0}, {"timeStamp.userTag": 4}, {"value": 2.0})
    )
    pair.carry(messages.encode(messages.MultipleData(replies=replies), codec=Codec()), pair.client)
    found = [(event.value["value"], event.value["timeStamp.userTag"]) for event in pair.told[-3:]]
    assert found == [(1.0, 0), (1.0, 4), (2.0, 4)]
    pair.from_server(messages.MonitorUpdate(ioid=5, value=Value(NT, {"timeStamp.nanoseconds": 9})))
    assert pair.told[-1].value["value"] == 2.0


def test_echoes_are_not_cut() -> None:
    pair = Pair()
    pair.open()
    assert pair.client.send(messages.Echo(payload=b"x" * 20), segment_size=4) == [
        b"\xca\x02\x00\x02\x14\0\0\0" + b"x" * 20
    ]


def test_where_an_error_lies() -> None:
    """Its offset counts from the start of the stream."""
    client, server = c.ClientConnection(), c.ServerConnection()
    greeting = b"".join(server.data_to_send())
    client.receive_data(greeting + b"\xca\x02\x40\x09\x03\0\0\0\x02\x05a")
    events = client.events()
    next(events)
    with pytest.raises(DecodeError) as caught:
        next(events)
    # Behind the status type and the length of the text.
    assert (caught.value.path, caught.value.offset) == ("status.message", len(greeting) + 8 + 2)


def test_numbers_in_use_are_left_out() -> None:
    pair = Pair()
    sid, cid = pair.open()
    pair.from_client(messages.GetInit(sid=sid, ioid=1, request=REQUEST))
    pair.from_client(messages.GetInit(sid=sid, ioid=2, request=REQUEST))
    pair.from_client(messages.DestroyRequest(sid=sid, ioid=2))
    assert pair.client.new_ioid() == 3
    assert pair.client.new_cid() != cid
    pair.client._last_ioid = 0xFFFFFFFE
    assert pair.client.new_ioid() == 3


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        ([messages.ConnectionValidated()], "validates before it asks"),
        ([messages.ConnectionValidationRequest()] * 2, "asks twice"),
    ],
    ids=["order", "twice"],
)
def test_a_server_that_greets_wrongly(broken: list[Any], text: str) -> None:
    client = c.ClientConnection()
    client.receive_data(b"".join(b"".join(messages.encode(m, codec=Codec())) for m in broken))
    with pytest.raises(ProtocolError, match=text):
        list(client.events())


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (messages.GetInitReply(ioid=5), "without a type"),
        (messages.GetReply(ioid=5, value=Value(NT)), "before its INIT was answered"),
        (messages.CreateChannelReply(cid=2, sid=1), "two channels with the sid 1"),
    ],
    ids=["type", "order", "sid"],
)
def test_a_server_that_answers_wrongly(reply: Any, text: str) -> None:
    pair = Pair()
    sid, _ = pair.open()
    pair.client.send(messages.GetInit(sid=sid, ioid=5, request=REQUEST))
    pair.client.send(messages.CreateChannel(channels=((2, "y"),)))
    with pytest.raises(ProtocolError, match=text):
        pair.carry(messages.encode(reply, codec=Codec()), pair.client)


def test_an_init_refused_with_another_sub_byte() -> None:
    """pvAccessCPP: a MONITOR error has the sub byte 44."""
    pair = Pair()
    sid, _ = pair.open()
    pair.client.send(messages.MonitorInit(sid=sid, ioid=5, request=REQUEST))
    refused = messages.MonitorError(ioid=5, status=Status(StatusType.ERROR, "bad request id"))
    pair.carry(messages.encode(refused, codec=Codec()), pair.client)
    assert pair.told[-1].message == refused
    assert pair.client.operations == {}


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (lambda sid: [messages.CreateChannel(channels=((9, "a"), (9, "b")))], "two channels with the cid 9"),
        (lambda sid: [messages.GetInit(sid=sid, ioid=5, request=REQUEST)] * 2, "the ioid 5 twice"),
        (
            lambda sid: [
                messages.MonitorInit(sid=sid, ioid=5, request=REQUEST),
                messages.MonitorStart(sid=sid, ioid=5),
            ],
            "before its INIT was answered",
        ),
    ],
    ids=["cid", "ioid", "order"],
)
def test_a_client_that_asks_wrongly(broken: Callable[[int], list[Any]], text: str) -> None:
    pair = Pair()
    sid, _ = pair.open()
    raw = [b"".join(messages.encode(m, codec=Codec(), from_server=False)) for m in broken(sid)]
    with pytest.raises(ProtocolError, match=text):
        pair.carry(raw, pair.server)


def test_requests_of_a_channel_that_was_closed_define_types() -> None:
    """They were on their way when the server closed the channel: what they define is known afterwards (WIRE 6.2)."""
    fd = FieldDesc.of({"value": "any"})
    held = AnyValue(FieldDesc.structure("held", a="int32"), {"a": 1})
    pair = Pair()
    sid, cid = pair.open()
    other, _ = pair.open("y")
    for at, ioid in ((sid, 5), (other, 6)):
        pair.from_client(messages.PutInit(sid=at, ioid=ioid, request=REQUEST))
        pair.from_server(messages.PutInitReply(ioid=ioid, type=fd))
    pair.server.send(messages.DestroyChannel(sid=sid, cid=cid))
    told, numbering = len(pair.asked), Codec(ids="pvaccess")
    for at, ioid in ((sid, 5), (other, 6)):
        put = messages.Put(sid=at, ioid=ioid, value=Value(fd, {"value": held}))
        pair.carry(messages.encode(put, codec=numbering), pair.server)
    (event,) = pair.asked[told:]
    assert event.message.value["value"] == held


def test_who_the_client_is_comes_first() -> None:
    server = c.ServerConnection()
    with pytest.raises(LocalProtocolError, match="before the client has told who it is"):
        server.send(messages.ConnectionValidated())
    assert not server.validated


def test_mutated_streams_raise_only_what_is_documented() -> None:
    pair = Pair()
    sid = started(pair, messages.MonitorInit, messages.MonitorInitReply, type=NT)
    to_server = b"".join(
        b"".join(messages.encode(message, codec=Codec(), from_server=False))
        for message in (
            messages.ConnectionValidationResponse(method="ca", data=Value({"user": "string"}, {"user": "u"})),
            messages.CreateChannel(channels=((1, "x"),)),
            messages.GetInit(sid=sid, ioid=5, request=REQUEST),
            messages.Echo(payload=b"abc"),
        )
    )
    to_client = b"".join(
        b"".join(messages.encode(message, codec=Codec(), from_server=True))
        for message in (
            messages.SetByteOrder(byteorder="little"),
            messages.ConnectionValidationRequest(),
            messages.ConnectionValidated(),
            messages.CreateChannelReply(cid=1, sid=2),
            messages.MonitorUpdate(ioid=5, value=Value(NT, {"value": 1.0})),
            messages.Echo(payload=b"abc"),
        )
    )
    rng = random.Random(7)
    for _ in range(2000):
        for raw, end in ((to_server, c.ServerConnection()), (to_client, c.ClientConnection())):
            data = bytearray(raw)
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0xFE, 0xFF, rng.randrange(256)))
            try:
                end.receive_data(bytes(data))
                for _ in end.events():
                    pass
            except ProtocolError:
                assert end.closed


def test_collecting(pair: Pair) -> None:
    sid, _ = pair.open()
    pair.from_client(messages.MonitorInit(sid=sid, ioid=5, request=REQUEST))
    with pytest.raises(LocalProtocolError, match="no monitor that is open"):
        pair.client.collect(5)
    pair.from_server(messages.MonitorInitReply(ioid=5, type=NT))
    columns = pair.client.collect(5, ["value"])
    pair.from_client(messages.MonitorStart(sid=sid, ioid=5))
    pair.told.clear()
    for i in range(3):
        pair.from_server(update(float(i)))
    assert [type(event) for event in pair.told] == [c.Collected] * 3
    assert sum(event.rows for event in pair.told) == 3
    assert all(event.operation is pair.client.operations[5] for event in pair.told)
    assert columns["value"].tolist() == [0.0, 1.0, 2.0]
    pair.from_server(messages.MonitorFinal(ioid=5))
    assert isinstance(pair.told[-1], c.OperationReply)
    with pytest.raises(LocalProtocolError, match="no monitor that is open"):
        pair.client.collect(5)


def test_collecting_many_at_once() -> None:
    """In one chunk, with updates of another monitor between; the time of the chunk, and the bytes, are told."""
    pair = Pair()
    sid = monitored(pair)
    with pytest.raises(LocalProtocolError, match="no monitor"):
        pair.client.collect(6)
    columns = pair.client.collect(5, ["value"])
    monitor(pair, NT, ioid=6)
    ours = b"".join(pair.server.send(update(1.0)))
    others = b"".join(pair.server.send(messages.MonitorUpdate(ioid=6, value=Value(NT, {"value": 9.0}))))
    pair.client.receive_data(ours * 3 + others + ours * 2, 77)
    events = list(pair.client.events())
    assert [type(event) for event in events] == [c.Collected, c.Update, c.Collected]
    assert [(event.rows, event.nbytes) for event in events[::2]] == [(3, 3 * len(ours)), (2, 2 * len(ours))]
    assert columns["value"].tolist() == [1.0] * 5
    assert columns.received.tolist() == [77] * 5
    pair.from_client(messages.MonitorDestroy(sid=sid, ioid=5))
    pair.client.receive_data(ours)  # on its way
    assert list(pair.client.events()) == []


def test_collecting_after_updates() -> None:
    pair = Pair()
    monitored(pair)
    pair.from_server(update(1.0))
    with pytest.raises(LocalProtocolError, match="updates of ioid 5 have come already"):
        pair.client.collect(5)


def test_collecting_within_the_window() -> None:
    pair = Pair()
    monitored(pair, nfree=4)
    columns = pair.client.collect(5)
    raw = b"".join(pair.server.send(update(1.0)))
    pair.client.receive_data(raw * 6)
    events = pair.client.events()
    assert next(events).rows == 4
    with pytest.raises(ProtocolError, match="more updates of ioid 5"):
        next(events)
    assert len(columns) == 4


def test_collecting_damage() -> None:
    """The rows before it are kept, and told; the offset is that in the stream."""
    pair = Pair()
    monitored(pair)
    columns = pair.client.collect(5)
    monitor(pair, NT, ioid=6)
    pair.from_server(messages.MonitorUpdate(ioid=6, value=Value(NT, {"value": 9.0})))
    frame = pair.told[-1].frame
    raw = b"".join(pair.server.send(update(1.0)))
    # Header, ioid, sub byte, BitSet of one byte, and of the double four bytes.
    damaged = raw[:4] + (11).to_bytes(4, "little") + raw[8:19]
    pair.client.receive_data(raw * 2 + damaged)
    events = pair.client.events()
    collected = next(events)
    assert (collected.operation.ioid, collected.rows, collected.nbytes) == (5, 2, 2 * len(raw))
    with pytest.raises(DecodeError, match="8 bytes, 4 left") as error:
        next(events)
    assert len(columns) == 2
    assert pair.client.closed
    assert error.value.path == "value"
    assert error.value.offset == frame.offset + 8 + frame.size + 2 * len(raw) + 15


def test_getting_again(pair: Pair) -> None:
    sid = started(pair, messages.GetInit, messages.GetInitReply, type=NT)
    for i in range(3):
        pair.carry(pair.client.get_again(5), pair.server)
        assert pair.asked[-1].message == messages.Get(sid=sid, ioid=5)
        with pytest.raises(LocalProtocolError, match="before the answer"):
            pair.client.get_again(5)
        value = Value(NT, {"value": float(i)} if i else {"value": 0.0, "timeStamp.userTag": 7})
        pair.from_server(messages.GetReply(ioid=5, value=value))
        got = pair.told[-1].message
        assert isinstance(got, messages.GetReply)
        assert (got.value["value"], got.value["timeStamp.userTag"]) == (float(i), 7)
        assert got.value.changed == value.changed
    with pytest.raises(LocalProtocolError, match="no open channel"):
        pair.client.get_again(6)
    pair.from_client(messages.DestroyRequest(sid=sid, ioid=5))
    with pytest.raises(LocalProtocolError, match="no open channel"):
        pair.client.get_again(5)


def test_damage_in_what_was_got() -> None:
    pair = Pair()
    started(pair, messages.GetInit, messages.GetInitReply, type=NT)
    pair.carry(pair.client.get_again(5), pair.server)
    raw = b"".join(pair.server.send(messages.GetReply(ioid=5, value=Value(NT, {"value": 1.0}))))
    # Of the double four bytes.
    size = 4 + 1 + 1 + 2 + 4
    pair.client.receive_data(raw[:4] + size.to_bytes(4, "little") + raw[8 : 8 + size])
    with pytest.raises(DecodeError, match="8 bytes, 4 left") as error:
        list(pair.client.events())
    assert error.value.path == "value.value"


def test_what_is_behind_a_value_that_was_got() -> None:
    pair = Pair()
    started(pair, messages.GetInit, messages.GetInitReply, type=NT)
    pair.carry(pair.client.get_again(5), pair.server)
    raw = b"".join(pair.server.send(messages.GetReply(ioid=5, value=Value(NT, {"value": 1.0}))))
    pair.client.receive_data(raw[:4] + (len(raw) - 8 + 3).to_bytes(4, "little") + raw[8:] + b"abc")
    (event,) = pair.client.events()
    assert (event.message.value["value"], event.message.trailing) == (1.0, b"abc")


def small_pair() -> Pair:
    """The server takes messages of 1 MiB."""
    return Pair(limits=Limits(message=1 << 20))


def test_what_a_client_makes_the_server_hold_is_bounded() -> None:
    """pvRequests and requests that wait: as much as Limits.message and 1 MiB; more is refused, and what has ended makes room."""
    pair = small_pair()
    sid, cid = pair.open()
    large = Value(FieldDesc.structure("", {"x": "string"}), {"x": "y" * 600_000})

    def accepted(message: Any) -> bool:
        before = len(pair.asked)
        pair.from_client(message)
        if len(pair.asked) > before:
            return True
        text = r"^ERROR: requests of more than 1048576 bytes are open \(Limits.message\)$"
        with pytest.raises(RemoteError, match=text):
            pair.told[-1].message.status.raise_for_status()
        return False

    def get(ioid: int) -> messages.GetInit:
        return messages.GetInit(sid=sid, ioid=ioid, request=large)

    assert [accepted(get(ioid)) for ioid in (1, 2, 3, 4)] == [True, True, True, False]
    pair.from_client(messages.DestroyRequest(sid=sid, ioid=2))
    assert [accepted(get(ioid)) for ioid in (5, 6)] == [True, False]
    for ioid in (7, 8):
        assert accepted(messages.RpcInit(sid=sid, ioid=ioid, request=None))  # there is room for small ones
        pair.from_server(messages.RpcInitReply(ioid=ioid))
    call = messages.Rpc(sid=sid, ioid=7, value=large)
    assert not accepted(call)
    pair.from_client(messages.DestroyRequest(sid=sid, ioid=3))
    assert accepted(call)
    other = messages.Rpc(sid=sid, ioid=8, value=large)
    assert not accepted(other)
    pair.from_server(messages.RpcReply(ioid=7))
    assert accepted(other)
    pair.from_client(messages.CancelRequest(sid=sid, ioid=8))
    assert accepted(get(9))
    # Nothing is left of a channel that is closed.
    pair.from_server(messages.DestroyChannel(sid=sid, cid=cid))
    assert pair.server._held == 0


def test_names_of_channels_are_held() -> None:
    pair = small_pair()
    pair.open()

    def create() -> int:
        cid = pair.client.new_cid()
        pair.from_client(messages.CreateChannel(channels=((cid, "n" * 600_000),)))
        return cid

    for _ in range(5):
        pair.from_server(messages.CreateChannelReply(cid=create(), status=Status(StatusType.ERROR, "no")))
    assert pair.server._held == 1  # that of the open one, "x"
    for _ in range(3):
        create()
    text = r"more than 1048576 bytes in names and requests .*\(Limits.message\)"
    with pytest.raises(LimitExceeded, match=text):
        create()

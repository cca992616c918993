"""The connections against real peers on 127.0.0.1: p4p (pvxs), pvapy (pvAccessCPP) and spvirit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pvafast import (
    ClientConnection,
    FieldDesc,
    ServerConnection,
    Value,
    alarm_t,
    messages,
    request,
    time_t,
)
from pvafast.connection import (
    ChannelFailed,
    ChannelOpened,
    ChannelRequested,
    Credentials,
    OperationReply,
    OperationRequest,
    Received,
    Update,
    Validated,
)

pytestmark = pytest.mark.interop

P4P_SERVER = """
import sys, time
import numpy as np
from p4p.nt import NTScalar, NTNDArray
from p4p.server import Server
from p4p.server.thread import SharedPV
double = SharedPV(nt=NTScalar("d", display=True), initial=4.25)
frame = SharedPV(nt=NTNDArray(), initial=np.arange(400 * 600, dtype=np.uint16).reshape(400, 600))
count = SharedPV(nt=NTScalar("i"), initial=0)
@double.put
def put(pv, op):
    pv.post(op.value())
    op.done()
conf = {"EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_PVAS_SERVER_PORT": sys.argv[1],
        "EPICS_PVAS_BROADCAST_PORT": sys.argv[2], "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO"}
with Server(providers=[{"double": double, "frame": frame, "count": count}], conf=conf, useenv=False):
    print("ready", flush=True)
    for i in range(2000):
        time.sleep(0.02)
        count.post(i)
"""
PVAPY_SERVER = """
import sys, time
import pvaccess as pva
server = pva.PvaServer()
pv = pva.PvObject({"value": pva.DOUBLE, "big": [pva.DOUBLE]}, {"value": 4.25, "big": [float(i) for i in range(30000)]})
server.addRecord("double", pv)
print("ready", flush=True)
time.sleep(40)
"""


SPVIRIT_SERVER = """
import sys, time
import spvirit
x = spvirit.scalar("x", 1.5, type="double", writable=True)
server = spvirit.Server(pvs=[x], port=int(sys.argv[1]), udp_port=int(sys.argv[2]), listen_ip="127.0.0.1")
server.start_background()
print("ready", flush=True)
time.sleep(40)
"""


def free_ports(n: int) -> list[int]:
    """Ports of which nobody listens now."""
    held = [socket.socket() for _ in range(n)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def start(script: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={
            **os.environ,
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            "EPICS_PVA_ADDR_LIST": "127.0.0.1",
            **environment,
        },
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


@pytest.fixture(scope="module")
def p4p_server() -> Iterator[int]:
    tcp, udp = free_ports(2)
    process = start(P4P_SERVER, tcp, udp)
    yield tcp
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def pvapy_server() -> Iterator[int]:
    tcp, udp = free_ports(2)
    process = start(
        PVAPY_SERVER,
        EPICS_PVAS_SERVER_PORT=str(tcp),
        EPICS_PVA_SERVER_PORT=str(tcp),
        EPICS_PVAS_BROADCAST_PORT=str(udp),
        EPICS_PVAS_INTF_ADDR_LIST="127.0.0.1",
    )
    yield tcp
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def spvirit_server() -> Iterator[int]:
    tcp, udp = free_ports(2)
    process = start(SPVIRIT_SERVER, tcp, udp)
    yield tcp
    process.kill()
    process.communicate()


class Client:
    """A blocking client, received in place."""

    def __init__(self, port: int) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        self.conn = ClientConnection(user="tester", host="here")
        self.until(Validated)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def until(self, *kinds: type) -> Any:
        """The next event of a kind."""
        while True:
            for event in self.conn.events():
                if isinstance(event, kinds):
                    self.flush()
                    return event
            self.flush()
            n = self.sock.recv_into(self.conn.get_buffer())
            assert n, "the server closed the connection"
            self.conn.buffer_updated(n)

    def flush(self) -> None:
        for buffer in self.conn.data_to_send():
            self.sock.sendall(buffer)

    def send(self, message: Any) -> None:
        for buffer in self.conn.send(message):
            self.sock.sendall(buffer)

    def open(self, name: str) -> int:
        self.send(messages.CreateChannel(channels=((self.conn.new_cid(), name),)))
        event = self.until(ChannelOpened, ChannelFailed)
        if isinstance(event, ChannelFailed):
            raise ConnectionError(event.status.message)
        sid: int = event.channel.sid
        return sid

    def ask(self, message: Any) -> Any:
        self.send(message)
        reply = self.until(OperationReply).message
        reply.status.raise_for_status()
        return reply

    def get(self, name: str, fields: str = "field()") -> Value:
        sid, ioid = self.open(name), self.conn.new_ioid()
        self.ask(messages.GetInit(sid=sid, ioid=ioid, request=request.parse(fields)))
        value: Value = self.ask(messages.Get(sid=sid, ioid=ioid, destroy=True)).value
        return value


def test_get_from_p4p(p4p_server: int) -> None:
    with Client(p4p_server) as client:
        value = client.get("double")
        assert value.type.id == "epics:nt/NTScalar:1.0"
        assert "display.limitLow" in value
        frame = client.get("frame")
        assert np.array_equal(frame["value"].value, np.arange(400 * 600, dtype=np.uint16))
        assert [item["size"] for item in frame["dimension"]] == [600, 400]
        with pytest.raises(ConnectionError, match="Refused to create Channel"):
            client.open("nothing")


def test_put_to_p4p(p4p_server: int) -> None:
    with Client(p4p_server) as client:
        sid, ioid = client.open("double"), client.conn.new_ioid()
        type = client.ask(messages.PutInit(sid=sid, ioid=ioid, request=request.parse("field()"))).type
        client.ask(messages.Put(sid=sid, ioid=ioid, value=Value(type, {"value": -7.5})))
        assert client.get("double")["value"] == -7.5


def test_monitor_of_p4p(p4p_server: int) -> None:
    with Client(p4p_server) as client:
        sid, ioid = client.open("count"), client.conn.new_ioid()
        client.ask(
            messages.MonitorInit(
                sid=sid, ioid=ioid, request=request.parse("field()record[pipeline=true,queueSize=4]"), nfree=4
            )
        )
        client.send(messages.MonitorStart(sid=sid, ioid=ioid))
        seen = []
        while len(seen) < 20:
            update = client.until(Update)
            seen.append(update.value["value"])
            client.send(messages.MonitorAck(sid=sid, ioid=ioid, nfree=1))
        assert seen == sorted(seen)
        assert len(set(seen)) >= 19


def test_get_from_pvapy(pvapy_server: int) -> None:
    with Client(pvapy_server) as client:
        value = client.get("double")
        assert value["value"] == 4.25
        # 240 kB: pvAccessCPP sends it in segments.
        assert np.array_equal(value["big"], np.arange(30000.0))
        with pytest.raises(ConnectionError, match="pv not found"):
            client.open("nothing")
        sid, ioid = client.open("double"), client.conn.new_ioid()
        assert client.ask(messages.GetField(sid=sid, ioid=ioid, field="value")).type == FieldDesc.of("double")


def test_get_and_put_of_spvirit(spvirit_server: int) -> None:
    with Client(spvirit_server) as client:
        assert client.get("x")["value"] == 1.5
        sid, ioid = client.open("x"), client.conn.new_ioid()
        type = client.ask(messages.PutInit(sid=sid, ioid=ioid, request=request.parse("field()"))).type
        client.ask(messages.Put(sid=sid, ioid=ioid, value=Value(type, {"value": 2.5})))
        assert client.get("x")["value"] == 2.5
        with pytest.raises(ConnectionError):
            client.open("nothing")


NT = FieldDesc.structure("epics:nt/NTScalar:1.0", {"value": "double", "alarm": alarm_t, "timeStamp": time_t})


class Server(threading.Thread):
    """Serves one PV, "x", to whoever connects: get, put and three monitor updates; found by TCP search."""

    def __init__(self, byteorder: str) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.byteorder = byteorder
        self.value = Value(NT, {"value": 1.5, "alarm.message": "fine"})
        self.accounts: list[str] = []
        self.problems: list[BaseException] = []

    def run(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock: socket.socket) -> None:
        conn = ServerConnection(byteorder=self.byteorder)
        try:
            while True:
                for buffer in conn.data_to_send():
                    sock.sendall(buffer)
                data = sock.recv(65536)
                if not data:
                    return
                conn.receive_data(data)
                for event in conn.events():
                    for answer in self.answers(conn, event):
                        for buffer in [*conn.data_to_send(), *conn.send(answer)]:
                            sock.sendall(buffer)
        except ConnectionError:
            return
        except BaseException as error:
            self.problems.append(error)
            raise
        finally:
            sock.close()

    def answers(self, conn: ServerConnection, event: Any) -> Iterator[Any]:
        if isinstance(event, Credentials):
            self.accounts.append(event.user)
            yield messages.ConnectionValidated()
        elif isinstance(event, Received) and isinstance(event.message, messages.Search):
            search = event.message
            cids = tuple(cid for cid, name in search.channels if name == "x")
            yield messages.SearchResponse(
                guid=b"pvafast-test", sequence=search.sequence, address="127.0.0.1", port=self.port,
                protocol="tcp", found=bool(cids), cids=cids,
            )  # fmt: skip
        elif isinstance(event, ChannelRequested):
            yield messages.CreateChannelReply(cid=event.cid, sid=conn.new_sid())
        elif isinstance(event, OperationRequest):
            yield from self.replies(event.message)

    def replies(self, message: Any) -> Iterator[Any]:
        ioid = message.ioid
        whole = self.value.copy()
        whole.mark("")
        match message:
            case messages.GetInit():
                yield messages.GetInitReply(ioid=ioid, type=NT)
            case messages.Get():
                yield messages.GetReply(ioid=ioid, value=whole, destroy=message.destroy)
            case messages.PutInit():
                yield messages.PutInitReply(ioid=ioid, type=NT)
            case messages.PutGetBack():
                yield messages.PutGetBackReply(ioid=ioid, value=whole)
            case messages.Put():
                self.value.overlay(message.value)
                yield messages.PutReply(ioid=ioid, destroy=message.destroy)
            case messages.MonitorInit():
                yield messages.MonitorInitReply(ioid=ioid, type=NT)
            case messages.MonitorStart():
                yield messages.MonitorUpdate(ioid=ioid, value=whole)
                for x in (10.0, 11.0):
                    yield messages.MonitorUpdate(ioid=ioid, value=Value(NT, {"value": x}))
            case messages.GetField():
                yield messages.GetFieldReply(ioid=ioid, type=NT)


@pytest.fixture(params=["little", "big"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(request.param)
    server.start()
    yield server
    server.listener.close()
    assert server.problems == []


P4P_CLIENT = """
import sys, threading
from p4p.client.thread import Context
conf = {"EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{sys.argv[1]}", "EPICS_PVA_AUTO_ADDR_LIST": "NO", "EPICS_PVA_ADDR_LIST": "127.0.0.1:9"}
with Context("pva", conf=conf, useenv=False) as context:
    print("ready", flush=True)
    value = context.get("x", timeout=10)
    print(float(value), value.raw.alarm.message)
    context.put("x", 2.5, timeout=10)
    print(float(context.get("x", timeout=10)))
    seen, done = [], threading.Event()
    def got(value):
        if value is not None:
            seen.append(float(value))
            if value == 11.0:
                done.set()
    subscription = context.monitor("x", got)
    done.wait(10)
    subscription.close()
    print(seen[-1])
"""


def test_p4p_client(server: Server) -> None:
    process = start(P4P_CLIENT, server.port)
    out, _ = process.communicate(timeout=40)
    assert out.splitlines() == ["1.5 fine", "2.5", "11.0"]
    assert server.value["value"] == 2.5
    assert server.accounts

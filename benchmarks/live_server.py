"""What servers send a second: `python -m benchmarks.live_server`.

A server and a receiver on 127.0.0.1, each in a process of its own. The server posts as fast as it gets rid of updates; the
receiver opens one monitor and counts the bytes that a bare socket hands it, so that only the server is measured. A bare
socket that sends the same bytes is the measure of all; the medians of some rounds in which all take turns.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Container, Iterator
from contextlib import closing
from functools import partial
from typing import Any

from pvafast import ClientConnection, PvaError, messages, normative, request
from pvafast.connection import ChannelOpened, OperationReply, Update, Validated

from .children import ROOT, Failed, in_turns, installed
from .live_client import PORT

# What each server posts: "scalar", or the side of a square frame of uint16.
PVAFAST = """
import asyncio, sys
import numpy as np
from pvafast import PV, Server, ndarray, normative
from pvafast.network.config import ServerConfig
what, mode = sys.argv[1:]
burst = 100 if what == "scalar" else 1
if what == "scalar":
    pv = PV(normative.NTScalar("double"), 0.0)
    values = [float(i) for i in range(100)]
else:
    shape = int(what), int(what)
    values = [np.full(shape, i, np.uint16) for i in range(4)]
    pv = PV(ndarray.NTNDArray(), values[0])
server = Server({"x": pv}, config=ServerConfig.isolated())
async def main():
    async with server:
        print(server.port, flush=True)
        i = 0
        while True:
            for _ in range(burst):
                i += 1
                pv.post(values[i % len(values)])
            await pv.drain()
            if not pv.subscriptions:
                await asyncio.sleep(0.01)
if mode == "asyncio":
    asyncio.run(main())
import time
with server.running():
    print(server.port, flush=True)
    i = 0
    while True:
        for _ in range(burst):
            i += 1
            pv.post(values[i % len(values)])
        pv.wait_drained()
        if not pv.subscriptions:
            time.sleep(0.01)
"""
P4P = """
import sys, time
import numpy as np
from p4p.nt import NTNDArray, NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV
what = sys.argv[1]
if what == "scalar":
    pv, values = SharedPV(nt=NTScalar("d"), initial=0.0), [float(i) for i in range(100)]
else:
    values = [np.full((int(what), int(what)), i, np.uint16) for i in range(4)]
    pv = SharedPV(nt=NTNDArray(), initial=values[0])
with Server(providers=[{"x": pv}], isolate=True) as server:
    print(server.conf()["EPICS_PVAS_SERVER_PORT"], flush=True)
    i = 0
    while True:
        i += 1
        pv.post(values[i % len(values)], timestamp=time.time())
"""
# The object that is posted is not the one that is served: what is set of that one is sent at once, field by field.
PVAPY = (
    PORT
    + """
import os, sys, time
import numpy as np
os.environ |= {
    "EPICS_PVAS_SERVER_PORT": str(port),
    "EPICS_PVAS_BROADCAST_PORT": str(port),
    "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
    "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
}
import pvaccess
what = sys.argv[1]
def stamp():
    now = time.time()
    return {"secondsPastEpoch": int(now), "nanoseconds": int(now % 1 * 1e9), "userTag": 0}
if what == "scalar":
    INT, LONG = pvaccess.INT, pvaccess.LONG
    alarm = {"severity": INT, "status": INT, "message": pvaccess.STRING}
    time_t = {"secondsPastEpoch": LONG, "nanoseconds": INT, "userTag": INT}
    fields = {"value": pvaccess.DOUBLE, "alarm": alarm, "timeStamp": time_t}
    served, pv = (pvaccess.PvObject(fields, "epics:nt/NTScalar:1.0") for _ in range(2))
    values = [float(i) for i in range(100)]
else:
    side = int(what)
    served, pv = pvaccess.NtNdArray(), pvaccess.NtNdArray()
    for one in served, pv:
        one["dimension"] = [pvaccess.PvDimension(side, 0, side, 1, False)] * 2
        one["compressedSize"] = one["uncompressedSize"] = side * side * 2
    values = [{"ushortValue": np.full(side * side, i, np.uint16)} for i in range(4)]
served["value"] = values[0]
server = pvaccess.PvaServer()
server.addRecord("x", served)
print(port, flush=True)
i = 0
while True:
    i += 1
    pv["value"] = values[i % len(values)]
    pv["timeStamp"] = stamp()
    server.update("x", pv)
"""
)
BARE = """
import socket, sys
size = int(sys.argv[1])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sock, _ = listener.accept()
data = memoryview(bytes(size * max(1, (1 << 20) // size)))
while True:
    sock.sendall(data)
"""
SUBJECTS = {
    "pvafast, asyncio": (PVAFAST, "asyncio"),
    "pvafast, thread": (PVAFAST, "thread"),
    "p4p": (P4P,),
    "pvapy": (PVAPY,),
}
GROUPS = {"scalar updates": "scalar"} | {f"frames of {n}×{n} uint16": str(n) for n in (512, 2048)}
SCALAR_BYTES = 37  # an update of NTScalar: value, seconds and nanoseconds
SEGMENTED, LAST_SEGMENT = 0x30, 0x20  # of the flags in a header
EXTRA_BYTES = 161  # what is about the pixels of a frame


class Receiver:
    """A monitor on a bare socket."""

    def __init__(self, port: int, *, bare: bool) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.buffer = memoryview(bytearray(4 << 20))
        self.connection = ClientConnection(user="bench", host="here")
        if not bare:
            self._subscribe()

    def _subscribe(self) -> None:
        connection = self.connection

        def until(kind: type) -> Any:
            while True:
                for event in connection.events():
                    if isinstance(event, kind):
                        return event
                for buffer in connection.data_to_send():
                    self.sock.sendall(buffer)
                connection.receive_data(self.sock.recv(4096))

        def send(message: Any) -> None:
            for buffer in [*connection.data_to_send(), *connection.send(message)]:
                self.sock.sendall(buffer)

        until(Validated)
        send(messages.CreateChannel(channels=((1, "x"),)))
        sid = until(ChannelOpened).channel.sid
        send(messages.MonitorInit(sid=sid, ioid=1, request=request.parse("record[queueSize=4]")))
        until(OperationReply)
        send(messages.MonitorStart(sid=sid, ioid=1))

    def rate(self, size: int, seconds: float) -> float:
        """Updates a second, of this size."""
        self.sock.settimeout(None)
        self._count(0.3)  # caches and windows find their size
        return self._count(seconds) / size

    def _count(self, seconds: float) -> float:
        start = time.perf_counter()
        count = 0
        while (now := time.perf_counter()) < start + seconds:
            count += self.sock.recv_into(self.buffer)
        return count / (now - start)

    def size(self, what: str) -> int:
        """Bytes of the fifth update; asserts that the first ones are of what was posted."""
        data = b""
        ends: list[int] = []  # of whole updates: pvapy sends them in segments
        while len(ends) < 6:
            more = self.sock.recv(1 << 20)
            assert more, "the server has gone"
            data += more
            pos, ends = 0, []
            while len(data) >= pos + 8:
                segment = data[pos + 2] & SEGMENTED
                pos += 8 + struct.unpack_from("<I", data, pos + 4)[0]
                if segment in (0, LAST_SEGMENT) and pos <= len(data):
                    ends.append(pos)
        self.connection.receive_data(data)
        updates = [event for event in self.connection.events() if isinstance(event, Update)]
        assert len(updates) == len(ends)
        for event in updates:
            check(what, normative.read(event.value))
        return ends[4] - ends[3]


def check(what: str, value: Any) -> None:
    """Servers post 0 to 99, or frames all of 0, of 1, of 2 and of 3."""
    if what == "scalar":
        assert value in range(100)
    else:
        pixels = value.data
        assert pixels.shape == (int(what), int(what))
        assert pixels[0, 0] in range(4)
        assert (pixels == pixels[0, 0]).all()


def sink(port: int) -> None:
    """Receive what a server on that port posts, until it goes; tells the port once the monitor has begun."""
    receiver = Receiver(port, bare=False)
    receiver.sock.settimeout(None)
    print(port, flush=True)
    while receiver.sock.recv_into(receiver.buffer):
        pass


def measure(script: str, what: str, *arguments: str, seconds: float) -> float:
    """Updates a second. Raises Failed."""
    bare = script == BARE
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(size_of(what)) if bare else what, *arguments],
        cwd=ROOT,
        env=os.environ | {"PVAFAST_BACKEND": "c"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise Failed("its server does not start; the error is above")
        receiver = Receiver(int(port), bare=bare)
        with closing(receiver.sock):
            rate = receiver.rate(size_of(what) if bare else receiver.size(what), seconds)
            process.kill()  # or it complains of the socket
        return rate
    except (OSError, PvaError, AssertionError) as error:
        raise Failed(f"{what}: {error!r}") from error
    finally:
        process.kill()
        process.communicate()


def subject_of(name: str) -> str:
    first = name.partition(", ")[0]
    return {"pvafast": "c", "bare socket": "socket"}.get(first, first)


def size_of(what: str) -> int:
    """Bytes of an update of pvafast's server."""
    return SCALAR_BYTES if what == "scalar" else int(what) ** 2 * 2 + EXTRA_BYTES


def rates(group: str, rounds: int, seconds: float, subjects: Container[str]) -> dict[str, list[float]]:
    """Updates a second, by names and rounds."""
    what = GROUPS[group]
    works = {
        name: partial(measure, script, what, *arguments, seconds=seconds)
        for name, (script, *arguments) in {"bare socket": (BARE,), **SUBJECTS}.items()
        if subject_of(name) in subjects
    }
    return in_turns(works, rounds)


def figures(group: str, rounds: int, subjects: Container[str]) -> Iterator[tuple[str, str, list[float]]]:
    """For `python -m benchmarks`: what, subject, ns of one update by rounds; none where it failed."""
    for name, found in rates(group, rounds, 1.0, subjects).items():
        text = ": ".join(filter(None, [f"server, {group}", name.partition(", ")[2]]))
        yield text, subject_of(name), [1e9 / rate for rate in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    options = parser.parse_args()
    there = {"socket", *filter(installed, map(subject_of, SUBJECTS))}
    for group, what in GROUPS.items():
        found = rates(group, options.rounds, options.seconds, there)
        most = statistics.median(found["bare socket"])
        for name, values in found.items():
            if not values:
                continue
            rate, size = statistics.median(values), size_of(what)
            print(
                f"{what:8}{name:20}{rate:12,.0f} /s {rate * size / 1e9:8.2f} GB/s {rate / most:8.3f} × bare"
            )


if __name__ == "__main__":
    main()

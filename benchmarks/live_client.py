"""What the client receives a second, beside others: `python -m benchmarks.live_client`.

A server and a client on 127.0.0.1, each in a process of its own; the medians of some rounds in which all take turns. Frames and
scalar updates come from a socket that replays recorded messages (live_replay.py), and a bare socket receives the same
bytes; gets and 1,000 PVs at 10 Hz from a p4p server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Container, Iterator
from functools import partial
from typing import Any

import numpy as np

from .children import ROOT, Failed, in_turns, installed
from .live_replay import IOID_AT, per_piece, recorded
from .messages import ramp

# In a script: a free port. Servers take it for TCP and for searches by UDP, so that an address is one.
PORT = """
import socket
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
"""
P4P_SERVER = f"""{PORT}
import sys, time
from p4p.nt import NTScalar
from p4p.server import Server, StaticProvider
from p4p.server.thread import SharedPV
provider = StaticProvider("pvs")
pvs = [SharedPV(nt=NTScalar("d", display=True), initial=float(i)) for i in range(1000)]
for i, pv in enumerate(pvs):
    provider.add(f"pv{{i}}", pv)
conf = {{"INTF_ADDR_LIST": "127.0.0.1", "SERVER_PORT": port, "BROADCAST_PORT": port, "AUTO_BEACON_ADDR_LIST": "NO"}}
conf = {{f"EPICS_PVAS_{{name}}": str(value) for name, value in conf.items()}}
server = Server(providers=[provider], conf=conf, useenv=False)
print(port, flush=True)
due, i = time.monotonic(), 0
while True:
    due += 0.1
    time.sleep(max(0, due - time.monotonic()))
    if sys.argv[1] == "post":
        i += 1
        for pv in pvs:
            pv.post(float(i))
"""
GETS = 3000
MANY = 1000
LONGEST = 120  # seconds, of one measurement
held: list[Any] = []  # until the process ends: pvapy crashes where a channel goes while it is called back


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# --- one measurement, in a process of its own: what happens a second ----------------------------------------------------


def bare(address: str, name: str, count: int) -> float:
    """Updates a second that come through a socket into the same buffer again and again."""
    host, port = address.split(":")
    one = recorded(name, 1)
    buffer = bytearray(max(len(one), 1 << 18))
    left = len(one) * (count - 1)
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(f"b{name}:{count}\n".encode())
        assert sock.recv_into(buffer, len(one), socket.MSG_WAITALL) == len(one)
        assert buffer[IOID_AT + 4 : len(one)] == one[IOID_AT + 4 :]
        start = time.perf_counter()
        while left:
            left -= sock.recv_into(buffer)
        return (count - 1) / (time.perf_counter() - start)


def blocking(address: str, name: str, count: int) -> float:
    import pvafast.sync

    with pvafast.sync.Client(server=address) as client:
        subscription = client.monitor(f"{name}:{count}")
        check(name, 0, subscription.next().value)
        start = time.perf_counter()
        for _ in range(count - 1):
            value = subscription.next().value
        seconds = time.perf_counter() - start
        check(name, count - 1, value)
        assert subscription.dropped == 0
    return (count - 1) / seconds


def in_asyncio(address: str, name: str, count: int) -> float:
    import pvafast

    async def main() -> float:
        async with pvafast.Client(server=address) as client:
            subscription = client.monitor(f"{name}:{count}")
            check(name, 0, (await anext(subscription)).value)
            start = time.perf_counter()
            left = count - 1
            async for reading in subscription:
                value = reading.value
                left -= 1
                if not left:
                    break
            seconds = time.perf_counter() - start
            check(name, count - 1, value)
            assert subscription.dropped == 0
            return (count - 1) / seconds

    return asyncio.run(main())


def check(name: str, i: int, value: Any) -> None:
    """It is what the replay sends as update i."""
    if name.startswith("nd."):
        side = int(name[3:])
        assert np.array_equal(value.data, np.frombuffer(ramp(side), "<u2").reshape(side, side))
    else:
        assert value == expected(i)


def expected(i: int | np.ndarray) -> Any:
    """The replay's scalar updates i."""
    return i % per_piece("nts.vt") * 0.5


def into_columns(address: str, name: str, count: int) -> float:
    import pvafast.sync

    with pvafast.sync.Client(server=address) as client:
        subscription = client.monitor(f"{name}:{count}", columns=["value"])
        batch = subscription.next()
        first = got = len(batch)
        assert np.array_equal(batch["value"], expected(np.arange(first)))
        start = time.perf_counter()
        while got < count:
            batch = subscription.next()
            got += len(batch)
        seconds = time.perf_counter() - start
        assert np.array_equal(batch["value"], expected(np.arange(got - len(batch), got)))
        assert subscription.dropped == 0
    return (count - first) / seconds


def get_blocking(address: str) -> float:
    import pvafast.sync

    with pvafast.sync.Client(server=address) as client:
        return a_second(lambda: client.get("pv7"), 7.0)


def get_in_asyncio(address: str) -> float:
    import pvafast

    async def main() -> float:
        async with pvafast.Client(server=address) as client:
            assert await client.get("pv7") == 7.0
            start = time.perf_counter()
            for _ in range(GETS):
                await client.get("pv7")
            return GETS / (time.perf_counter() - start)

    return asyncio.run(main())


def get_many(address: str) -> float:
    import pvafast

    async def main() -> float:
        async with pvafast.Client(server=address) as client:
            names = [f"pv{i}" for i in range(MANY)]
            assert await client.get(names) == list(range(MANY))
            start = time.perf_counter()
            for _ in range(5):
                await client.get(names)
            return 5 * MANY / (time.perf_counter() - start)

    return asyncio.run(main())


def a_second(get: Callable[[], Any], expected: float) -> float:
    assert get() == expected
    start = time.perf_counter()
    for _ in range(GETS):
        get()
    return GETS / (time.perf_counter() - start)


def p4p_context(address: str) -> Any:
    from p4p.client.thread import Context

    conf = {"EPICS_PVA_NAME_SERVERS": address, "EPICS_PVA_AUTO_ADDR_LIST": "NO"}
    return Context("pva", conf=conf, useenv=False)


def get_by_p4p(address: str) -> float:
    context = p4p_context(address)
    try:
        return a_second(lambda: context.get("pv7"), 7.0)
    finally:
        context.close()


def get_by_spvirit(address: str) -> float:
    import spvirit

    channel = spvirit.lowlevel.Channel.connect("pv7", address, 5.0)
    return a_second(lambda: channel.get().value["value"], 7.0)


def pvapy_channel(name: str, address: str) -> Any:
    """The address is that of all channels of this process: what its environment says when the first one is made.

    They are searched for by UDP: a name server of p4p's does not understand pvapy when it asks for a thousand.
    """
    import pvaccess

    os.environ |= {"EPICS_PVA_ADDR_LIST": address, "EPICS_PVA_AUTO_ADDR_LIST": "NO"}
    return pvaccess.Channel(name)


def get_by_pvapy(address: str) -> float:
    channel = pvapy_channel("pv7", address)
    return a_second(lambda: channel.get("field()")["value"], 7.0)


class Monitored:
    """The updates of 1,000 PVs that count up together, as they come."""

    def __init__(self) -> None:
        self.got = 0
        self.last: dict[int, float] = {}

    def callback(self, i: int, value: Callable[[Any], float]) -> Callable[[Any], None]:
        """For PV i: `value` takes a number out of what the client hands over."""

        def called(update: Any) -> None:
            self.got += 1
            self.last[i] = value(update)

        return called

    def busy(self, get: Callable[[], float]) -> float:
        """CPU seconds a second; `get` gets one of the PVs."""
        time.sleep(3)
        served, found = get(), sorted(self.last.values())
        assert len(found) == MANY
        assert served - found[0] < 10
        assert found[-1] - served < 10
        assert all(value.is_integer() for value in found)
        before, used, start = self.got, cpu(), time.perf_counter()
        time.sleep(4)
        seconds = time.perf_counter() - start
        assert (self.got - before) / seconds > 9 * MANY, "the server does not keep up"
        return (cpu() - used) / seconds


def monitors(address: str) -> float:
    """CPU seconds a second, for 1,000 PVs at 10 Hz, in a callback each."""
    import pvafast.sync

    monitored = Monitored()
    with pvafast.sync.Client(server=address) as client:
        for i in range(MANY):
            client.monitor(f"pv{i}", callback=monitored.callback(i, lambda reading: float(reading.value)))
        return monitored.busy(lambda: float(client.get("pv7")))


def monitors_by_p4p(address: str) -> float:
    monitored = Monitored()
    context = p4p_context(address)
    for i in range(MANY):
        held.append(context.monitor(f"pv{i}", monitored.callback(i, float)))
    return monitored.busy(lambda: float(context.get("pv7")))


def monitors_by_pvapy(address: str) -> float:
    monitored = Monitored()
    held.extend(pvapy_channel(f"pv{i}", address) for i in range(MANY))
    for i, channel in enumerate(held):
        channel.monitor(monitored.callback(i, lambda value: float(value["value"])), "field()")
    return monitored.busy(lambda: float(held[7].get()["value"]))


# --- all of them ---------------------------------------------------------------------------------------------------------

# group: the server, its arguments, what is measured and how often: name -> (function, arguments).
FRAMES = {"bare socket": bare, "blocking": blocking, "asyncio": in_asyncio}
GROUPS: dict[str, tuple[list[str], dict[str, tuple[Callable[..., float], tuple[Any, ...]]]]] = {
    "frames of 512×512 uint16": (
        ["-m", "benchmarks.live_replay"],
        {name: (function, ("nd.512", 3000)) for name, function in FRAMES.items()},
    ),
    "frames of 2048×2048 uint16": (
        ["-m", "benchmarks.live_replay"],
        {name: (function, ("nd.2048", 200)) for name, function in FRAMES.items()},
    ),
    "scalar updates": (
        ["-m", "benchmarks.live_replay"],
        {
            "blocking": (blocking, ("nts.vt", 300_000)),
            "asyncio": (in_asyncio, ("nts.vt", 300_000)),
            "into columns": (into_columns, ("nts.vt", 3_000_000)),
        },
    ),
    "gets": (
        ["-c", P4P_SERVER, "quiet"],
        {
            "blocking": (get_blocking, ()),
            "asyncio": (get_in_asyncio, ()),
            "asyncio, 1,000 in flight": (get_many, ()),
            "spvirit": (get_by_spvirit, ()),
            "p4p": (get_by_p4p, ()),
            "pvapy": (get_by_pvapy, ()),
        },
    ),
    "CPU for 1,000 PVs at 10 Hz": (
        ["-c", P4P_SERVER, "post"],
        {
            "blocking, callbacks": (monitors, ()),
            "p4p": (monitors_by_p4p, ()),
            "pvapy": (monitors_by_pvapy, ()),
        },
    ),
}


# Who is not pvafast's client.
OTHERS = {"bare socket": "socket", "p4p": "p4p", "pvapy": "pvapy", "spvirit": "spvirit"}


def child(group: str, name: str, address: str) -> float:
    """One measurement. Raises Failed."""
    command = [sys.executable, "-m", "benchmarks.live_client", "--one", group, name, address]
    environment = os.environ | {"PVAFAST_BACKEND": "c"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=LONGEST, check=True
        )
    except subprocess.CalledProcessError as error:
        raise Failed(f"{group}: exit status {error.returncode}; its error is above") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{group}: no answer in {LONGEST} s") from None
    return float(json.loads(done.stdout.splitlines()[-1]))


def started(server: list[str]) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, which prints its port; and its address. Raises Failed."""
    process = subprocess.Popen(
        [sys.executable, *server], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    if not port:
        process.communicate()
        raise Failed("its server does not start; the error is above")
    return process, f"127.0.0.1:{port}"


def measure(group: str, rounds: int, subjects: Container[str]) -> dict[str, list[float]]:
    """By names. Raises Failed, and ImportError where there is no server."""
    server, works = GROUPS[group]
    if P4P_SERVER in server and not installed("p4p"):
        raise ImportError("its server, p4p, is not installed")
    process, address = started(server)
    try:
        names = [name for name in works if OTHERS.get(name, "c") in subjects]
        return in_turns({name: partial(child, group, name, address) for name in names}, rounds)
    finally:
        process.kill()
        process.communicate()


def figures(group: str, rounds: int, subjects: Container[str]) -> Iterator[tuple[str, str, list[float]]]:
    """For `python -m benchmarks`: what, subject, ns of one (of CPU time where it says so) by rounds; none where it failed."""
    for name, values in measure(group, rounds, subjects).items():
        subject, _, way = OTHERS.get(name, f"c: {name}").partition(": ")
        busy = group.startswith("CPU")
        ns = [1e9 * value / (10 * MANY) if busy else 1e9 / value for value in values]
        yield ": ".join(filter(None, [f"client, {group}", way])), subject, ns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("groups", nargs="*", help=f"of: {'; '.join(GROUPS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=3, metavar=("GROUP", "NAME", "ADDRESS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        group, name, address = args.one
        function, arguments = GROUPS[group][1][name]
        print(json.dumps(function(address, *arguments)), flush=True)
        os._exit(0)  # closing 1,000 subscriptions of p4p may take for ever
    print("| | | median | lowest to highest | of the first |\n|---|---|---|---|---|")
    for group in args.groups or GROUPS:
        there = {"socket", *filter(installed, ["c", *OTHERS.values()])}
        found = {name: values for name, values in measure(group, args.rounds, there).items() if values}
        first = 0.0
        for name, values in found.items():
            median = statistics.median(values)
            first = first or median
            if group.startswith("CPU"):
                shown = [f"{100 * x:.1f} %" for x in (median, min(values), max(values))]
            elif group == "gets" and median < 30_000:
                shown = [f"{x:,.0f}/s" for x in (median, min(values), max(values))]
                shown[0] += f" ({1e6 / median:.0f} µs)"
            else:
                shown = [f"{x:,.0f}/s" for x in (median, min(values), max(values))]
            print(
                f"| {group} | {name} | {shown[0]} | {shown[1]} to {shown[2]} | {median / first:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

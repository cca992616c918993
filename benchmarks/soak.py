"""The soak: `python -m benchmarks.soak [--minutes 30] [--restart 60]`.

A server of ours in a process of its own sends 512×512 frames at full rate and is killed and started again every minute; a client
monitors it all the time, into a pool. What may not happen: memory or descriptors that grow, frames damaged, or missing while connected,
a buffer of the pool that does not come back, a minute without frames. Exit status 1 if it did. Frames for which no buffer was free,
because this process was not given the time to look at them, are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import pvafast
from pvafast import PV, Server, ndarray
from pvafast.client import Disconnected, Reading
from pvafast.network import ServerConfig

SHAPE = (512, 512)
# What memory and descriptors may grow by after the first restart.
GROWTH_MB = 40
GROWTH_FDS = 5


def serve(port: int) -> None:
    """The camera, until it is killed: every pixel of a frame is its number."""

    async def run() -> None:
        pv = PV(ndarray.NTNDArray(), np.zeros(SHAPE, np.uint16))
        config = ServerConfig.isolated(server_port=port, intf_addr_list=f"127.0.0.1:{port}")
        async with Server({"soak:camera": pv}, config=config):
            number = 0
            while True:
                number += 1
                pv.post(np.full(SHAPE, number % 65536, np.uint16), unique_id=number)
                await pv.drain()

    asyncio.run(run())


def resident() -> float:
    """MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def soak(minutes: float, restart: float) -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.soak", "--serve", str(port)]
    server = subprocess.Popen(command)
    frames = damaged = disconnects = restarts = before = barren = 0
    end = time.monotonic() + minutes * 60
    next_restart = time.monotonic() + restart
    first: tuple[float, int] | None = None
    peak = 0.0
    pool = ndarray.FramePool(16, SHAPE[0] * SHAPE[1] * 2)
    try:
        async with pvafast.Client(server=f"127.0.0.1:{port}") as client:
            items = client.monitor("soak:camera", pool=pool, events=True)
            while time.monotonic() < end:
                if time.monotonic() > next_restart:
                    server.send_signal(signal.SIGKILL)
                    server.wait()
                    server = subprocess.Popen(command)
                    next_restart += restart
                    restarts += 1
                    barren += frames == before
                    before = frames
                    found = resident(), descriptors()
                    if restarts == 1:
                        first = found
                    peak = max(peak, found[0])
                    print(
                        f"{restarts} restarts, {frames:,} frames, {damaged} damaged, {disconnects} disconnects, "
                        f"{found[0]:.1f} MB, {found[1]} descriptors; {pool.statistics}",
                        flush=True,
                    )
                try:
                    item = await items.next(timeout=10)
                except TimeoutError:
                    continue
                if isinstance(item, Disconnected):
                    disconnects += 1
                elif isinstance(item, Reading):
                    frame = item.value
                    frames += 1
                    if frame.unique_id:
                        data = frame.data
                        damaged += not (data == frame.unique_id % 65536).all()
    finally:
        server.kill()
        server.wait()
        item = frame = data = None
        held = pool.statistics.in_use
    losses = items.losses
    last = resident(), descriptors()
    seconds = minutes * 60
    print(
        f"{frames:,} frames in {seconds:,.0f} s: {frames / seconds:,.0f} a second, {damaged} damaged; {restarts} restarts"
    )
    print(losses)
    print(
        f"{pool.statistics.dropped:,} found no buffer free; {held} buffers in use at the end; {barren} restarts without a frame"
    )
    if first is not None:
        print(
            f"memory {first[0]:.1f} MB after the first restart, {last[0]:.1f} at the end, {peak:.1f} at the most"
        )
        print(f"descriptors {first[1]} after the first restart, {last[1]} at the end")
    grown = first is not None and (last[0] - first[0] > GROWTH_MB or last[1] - first[1] > GROWTH_FDS)
    wrong = damaged or losses.missing or grown or held or barren or not frames or disconnects < restarts - 1
    return int(bool(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--restart", type=float, default=60, help="seconds between restarts of the server")
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    return asyncio.run(soak(options.minutes, options.restart))


if __name__ == "__main__":
    sys.exit(main())

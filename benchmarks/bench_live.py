"""Live, on 127.0.0.1: what one get costs, one update of a monitor, one post of a server.

Each subject is a process of its own, and so is who is at the other end: a server of pvafast's for gets, live_replay.py for
monitors, a bare socket for posts. They are small works of what live_client.py and live_server.py measure at length.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from . import messages
from .live_client import PORT, started
from .subjects import Work

GETS = 100
SERVER = f"""{PORT}
from pvafast import PV, Server
from pvafast.network.config import ServerConfig
config = ServerConfig.isolated(server_port=port, broadcast_port=port)
server = Server({{f"pv{{i}}": PV.of(float(i)) for i in range({GETS})}}, config=config)
with server.running():
    print(port, flush=True)
    input()
"""
SINK = "import sys; from benchmarks.live_server import sink; sink(int(sys.argv[1]))"
UPDATES = 10_000
FRAMES = 200
SIDE = 512
QUEUE = 4  # so many updates the bare socket's monitor lets a server hold

# What the works of this process hold open: peers, clients, servers.
held = ExitStack()
atexit.register(held.close)


@functools.cache
def peer(*command: str) -> str:
    """The address of a server that lives as long as this process."""
    process, address = started(list(command))
    held.callback(process.wait)
    held.callback(process.kill)
    return address


def pvs() -> str:
    """The address of a server whose pv0, pv1... are 0, 1..."""
    return peer("-c", SERVER)


def replay() -> str:
    return peer("-m", "benchmarks.live_replay")


def repeated_gets(get: Callable[[], object]) -> Work:
    assert get() == 7.0

    def run() -> None:
        for _ in range(GETS):
            get()

    return Work(run, GETS)


def blocking_client(address: str) -> Any:
    import pvafast.sync

    return held.enter_context(pvafast.sync.Client(server=address))


def asyncio_client(address: str) -> tuple[asyncio.Runner, Any]:
    import pvafast

    runner = held.enter_context(asyncio.Runner())
    client = pvafast.Client(server=address)

    async def enter() -> None:
        await client.__aenter__()

    async def leave() -> None:
        await client.__aexit__(None, None, None)

    runner.run(enter())
    held.callback(lambda: runner.run(leave()))
    return runner, client


# --- gets ----------------------------------------------------------------------------------------------------------------


def get(subject: Any) -> Work:
    """A blocking get, one after the other."""
    client = blocking_client(pvs())
    return repeated_gets(lambda: client.get("pv7"))


def get_in_asyncio(subject: Any) -> Work:
    runner, client = asyncio_client(pvs())

    async def gets() -> None:
        for _ in range(GETS):
            await client.get("pv7")

    assert runner.run(client.get("pv7")) == 7.0
    return Work(lambda: runner.run(gets()), GETS)


def get_many(subject: Any) -> Work:
    """Of as many PVs, all in flight at once."""
    runner, client = asyncio_client(pvs())
    names = [f"pv{i}" for i in range(GETS)]
    assert runner.run(client.get(names)) == list(range(GETS))
    return Work(lambda: runner.run(client.get(names)), GETS)


# --- monitors: a run subscribes anew, and the replay sends all updates at once ---------------------------------------------


def received(client: Any, name: str, count: int) -> list[Any]:
    with client.monitor(f"{name}:{count}") as subscription:
        values = [subscription.next().value for _ in range(count)]
        assert subscription.dropped == 0
    return values


def updates(subject: Any) -> Work:
    client = blocking_client(replay())
    assert received(client, "nts.vt", UPDATES) == [i * 0.5 for i in range(UPDATES)]

    def run() -> None:
        with client.monitor(f"nts.vt:{UPDATES}") as subscription:
            for _ in range(UPDATES):
                subscription.next().value  # noqa: B018

    return Work(run, UPDATES)


def updates_in_asyncio(subject: Any) -> Work:
    runner, client = asyncio_client(replay())

    async def all_of_them(take: Callable[[Any], object]) -> None:
        async with client.monitor(f"nts.vt:{UPDATES}") as subscription:
            left = UPDATES
            async for reading in subscription:
                take(reading.value)
                left -= 1
                if not left:
                    break

    values: list[Any] = []
    runner.run(all_of_them(values.append))
    assert values == [i * 0.5 for i in range(UPDATES)]
    return Work(lambda: runner.run(all_of_them(lambda value: None)), UPDATES)


def updates_into_columns(subject: Any) -> Work:
    client = blocking_client(replay())

    def run(keep: Callable[[Any], object] = lambda batch: None) -> None:
        with client.monitor(f"nts.vt:{UPDATES}", columns=["value"]) as subscription:
            left = UPDATES
            while left:
                batch = subscription.next()
                keep(batch)
                left -= len(batch)

    values: list[Any] = []
    run(lambda batch: values.append(np.array(batch["value"])))
    assert np.array_equal(np.concatenate(values), np.arange(UPDATES) * 0.5)
    return Work(run, UPDATES)


def frames(subject: Any) -> Work:
    client = blocking_client(replay())
    image = np.frombuffer(messages.ramp(SIDE), "<u2").reshape(SIDE, SIDE)

    def run(take: Callable[[Any], object] = lambda image: None) -> None:
        with client.monitor(f"nd.{SIDE}:{FRAMES}") as subscription:
            for _ in range(FRAMES):
                take(subscription.next().value.data)

    right: list[bool] = []
    run(lambda data: right.append(np.array_equal(data, image)))
    assert right == [True] * FRAMES
    return Work(run, FRAMES)


# --- posts: of a server in a thread, to one monitor ------------------------------------------------------------------------


def posts(pv: Any, values: list[Any], same: Callable[[Any, Any], bool]) -> Work:
    """As many at a time as the monitor's queue takes, so that each is sent; then the server has to be rid of them."""
    import pvafast.sync
    from pvafast import Server
    from pvafast.network.config import ServerConfig

    server = Server({"x": pv}, config=ServerConfig.isolated())
    held.enter_context(server.running())
    with pvafast.sync.Client(server=f"127.0.0.1:{server.port}") as client:
        subscription = client.monitor("x")
        subscription.next()
        for value in values:
            pv.post(value)
            assert same(subscription.next().value, value)
    process, _ = started(["-c", SINK, str(server.port)])  # it tells when its monitor has begun
    held.callback(process.wait)
    held.callback(process.kill)

    def run() -> None:
        for value in values:
            pv.post(value)
        assert pv.wait_drained(10)

    return Work(run, len(values))


def post(subject: Any) -> Work:
    from pvafast import PV, normative

    pv = PV(normative.NTScalar("double"), 0.0)
    return posts(pv, [float(i) for i in range(1, 1 + QUEUE)], lambda got, sent: got == sent)


def post_frames(subject: Any) -> Work:
    from pvafast import PV, ndarray

    images = [np.full((SIDE, SIDE), i, np.uint16) for i in range(QUEUE)]
    pv = PV(ndarray.NTNDArray(), images[0])
    return posts(pv, images[1:], lambda got, sent: np.array_equal(got.data, sent))


TWINS = pytest.mark.subjects("c", "py", remote=["c", "py"])
CLIENTS = ["c", "py", "spvirit", "p4p", "pvapy"]


@pytest.mark.subjects(*CLIENTS, remote=CLIENTS)
def test_get(timed: Callable[..., None]) -> None:
    timed(get)


@TWINS
@pytest.mark.parametrize("way", [get_in_asyncio, get_many])
def test_get_in_asyncio(timed: Callable[..., None], way: Callable[..., Work]) -> None:
    timed(way)


@TWINS
@pytest.mark.parametrize("way", [updates, updates_in_asyncio, updates_into_columns, frames])
def test_monitor(timed: Callable[..., None], way: Callable[..., Work]) -> None:
    timed(way)


@TWINS
@pytest.mark.parametrize("way", [post, post_frames])
def test_post(timed: Callable[..., None], way: Callable[..., Work]) -> None:
    timed(way)

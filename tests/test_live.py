"""Our client against our server, both in one asyncio loop: what peers lack, in both byte orders."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pvafast import PV, Client, RemoteError, Server, Value, ndarray, normative
from pvafast.client import Connected, Disconnected, TypeChanged
from pvafast.network.config import ServerConfig
from pvafast.server import Call, Process, Put


def live(byteorder: str, work: Callable[[Server, Client], Awaitable[None]], pvs: dict[str, Any]) -> None:
    """Run `work` with a server of these PVs and a client that finds them over UDP."""

    async def main() -> None:
        async with Server(pvs, config=ServerConfig.isolated(), byteorder=byteorder) as server:
            found = replace(server.config, server_port=server.port, broadcast_port=server.udp_port)
            async with Client(found.client_config(), timeout=10) as client:
                await asyncio.wait_for(work(server, client), 30)

    asyncio.run(main())


order = pytest.mark.parametrize("byteorder", ["little", "big"])


@order
def test_operations(byteorder: str) -> None:
    pv = PV(normative.NTScalar("double", display=True), 1.0, units="C")

    @pv.on_put
    async def put(put: Put) -> None:
        await asyncio.sleep(0)
        if put.value < 0:
            raise ValueError("below zero")
        put.post()

    @pv.on_process
    def process(process: Process) -> None:
        pv.post(pv.value + 100)

    @pv.on_rpc
    def call(call: Call) -> Any:
        return np.arange(call.arguments["n"])

    array = PV(normative.NTScalar("int32[]"), range(10), writable=True)

    async def work(server: Server, client: Client) -> None:
        got = await client.get("x")
        assert (got, got.units) == (1.0, "C")
        await client.put("x", 5.0)
        assert await client.get("x") == 5.0
        with pytest.raises(RemoteError, match=r"^ERROR: below zero$"):
            await client.put("x", -1.0)
        assert await client.put_get("x", 7.0, "putField(value)getField(value,timeStamp)") == 7.0
        await client.process("x")
        assert await client.get("x") == 107.0
        assert (await client.rpc("x", n=4)).tolist() == [0, 1, 2, 3]
        assert await client.info("x") == pv.type
        assert (await client.array_get("a", 2, 3, 2)).tolist() == [2, 4, 6]
        await client.array_put("a", [-1, -2], 8)
        await client.array_set_length("a", 12)
        assert await client.array_length("a") == 12
        assert array.value.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, -1, -2, 0, 0]
        assert await client.list_pvs(f"127.0.0.1:{server.port}") == ["a", "x"]
        info = await client.server_info(f"127.0.0.1:{server.port}")
        assert info["implLang"] == "Python"
        assert await client.get(["x", "a"] * 20, return_exceptions=True) is not None

    live(byteorder, work, {"x": pv, "a": array})


@order
def test_monitors(byteorder: str) -> None:
    pv = PV(normative.NTScalar("int64"), 0)

    async def work(server: Server, client: Client) -> None:
        plain = client.monitor("x")
        some = client.monitor("x", "field(value)", pipeline=True, queue_size=8)
        for sub in (plain, some):
            assert (await sub.next()).value == 0

        async def post() -> None:
            for i in range(1, 501):
                pv.post(i)
                await pv.drain()  # waits for the pipelined one, which acknowledges what was taken of it

        posting = asyncio.create_task(post())
        for sub in (some, plain):
            got = [(await sub.next()) for _ in range(500)]
            assert [reading.value for reading in got] == list(range(1, 501))
            assert not any(reading.overrun or reading.dropped for reading in got)
            assert got[-1].changed_names()[0] == "value"
            assert (len(got[-1].changed) == 1) is (sub is some)
        await posting
        plain.close()
        some.close()

    live(byteorder, work, {"x": pv})


@order
def test_frames(byteorder: str) -> None:
    """Every pixel of every frame, at the pace of the client."""
    frames = [np.arange(i, i + 300 * 500, dtype=np.uint16).reshape(300, 500) for i in range(5)]
    pv = PV(ndarray.NTNDArray(), frames[0])

    async def work(server: Server, client: Client) -> None:
        sub = client.monitor("x")
        assert np.array_equal((await sub.next()).value.data, frames[0])

        async def post() -> None:
            for i in range(1, 50):
                pv.post(frames[i % 5], unique_id=i)
                await pv.drain()

        posting = asyncio.create_task(post())
        for i in range(1, 50):
            frame = (await sub.next()).value
            assert frame.unique_id == i
            assert np.array_equal(frame.data, frames[i % 5])
        await posting
        sub.close()

    live(byteorder, work, {"x": pv})


def test_another_type() -> None:
    pv = PV(normative.NTScalar("double"), 1.0)

    async def work(server: Server, client: Client) -> None:
        sub = client.monitor("x", events=True)
        seen: list[Any] = []
        while not seen or getattr(seen[-1], "value", None) != "text":
            item = await sub.next()
            seen.append(item)
            if getattr(item, "value", None) == 1.0:
                pv.open(normative.NTScalar("string"), "text")
        kinds = [type(item) for item in seen]
        assert kinds.count(Connected) == 2
        assert kinds.count(Disconnected) == kinds.count(TypeChanged) == 1
        sub.close()
        value = await client.get("x", nt=False)
        assert isinstance(value, Value)
        assert value["value"] == "text"

    live("little", work, {"x": pv})

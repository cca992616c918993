"""A gateway: the PVs of one server, served again by this program. Each is followed by one monitor, however many clients it has.

python examples/gateway.py HOST[:PORT]
"""

import asyncio
import sys

import pvafast
from pvafast.client import Disconnected, Reading
from pvafast.server import Provider


class Gateway(Provider):
    def __init__(self, client: pvafast.Client, names: list[str]) -> None:
        self.client = client
        self.known = dict.fromkeys(names)
        self.pvs: dict[str, asyncio.Task[pvafast.PV]] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def has(self, name: str) -> bool:
        return name in self.known

    def names(self) -> list[str]:
        return list(self.known)

    async def open(self, name: str, peer: object) -> pvafast.PV:
        if name not in self.pvs:
            self.pvs[name] = asyncio.create_task(self.start(name))
        return await self.pvs[name]

    async def start(self, name: str) -> pvafast.PV:
        pv = pvafast.PV(
            put=lambda put: self.client.put(name, put.raw),
            rpc=lambda call: self.client.rpc(name, call.raw, nt=False),
        )
        items = self.client.monitor(name, nt=False, events=True)
        ready = asyncio.Event()
        task = asyncio.create_task(self.follow(items, pv, ready))
        self.tasks.add(task)
        await asyncio.wait_for(ready.wait(), 5)
        return pv

    async def follow(self, items: pvafast.client.Subscription, pv: pvafast.PV, ready: asyncio.Event) -> None:
        async for item in items:
            if isinstance(item, Disconnected):
                pv.close()
            elif isinstance(item, Reading) and pv.is_open and pv.type == item.raw.type:
                pv.post(item.raw)
            elif isinstance(item, Reading):
                pv.open(item.raw)
                ready.set()


async def main(upstream: str) -> None:
    async with pvafast.Client(server=upstream) as client:
        gateway = Gateway(client, await client.list_pvs(upstream))
        async with pvafast.Server(providers=[gateway]) as server:
            print(f"{len(gateway.known)} PVs of {upstream} on port {server.port}", flush=True)
            await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

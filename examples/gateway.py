"""A gateway: the PVs of a server, served again. `python examples/gateway.py HOST[:PORT]`"""

import asyncio
import sys

from pvafast import PV, Client, Server
from pvafast.client import Disconnected, Reading


def mirror(client: Client, name: str) -> PV:
    """A PV that is as another server has it: it follows that by one monitor, while any client has it open."""
    pv = PV(put=lambda put: client.put(name, put.raw), rpc=lambda call: client.rpc(name, call.raw, nt=False))

    def follow(item: object) -> None:
        if isinstance(item, Disconnected):
            pv.close()  # its clients are disconnected, too; they come back, and wait until it is open
        elif isinstance(item, Reading):
            (pv.post if pv.is_open else pv.open)(item.raw)

    @pv.on_first
    def begin(pv: PV) -> None:
        monitor = client.monitor(name, nt=False, events=True, callback=follow)

        @pv.on_last
        def end(pv: PV) -> None:
            monitor.close()
            pv.close()

    return pv


async def main(upstream: str) -> None:
    async with Client(server=upstream) as client:
        pvs = {name: mirror(client, name) for name in await client.list_pvs(upstream)}
        async with Server(pvs) as server:
            print(f"{len(pvs)} PVs of {upstream} on port {server.port}", flush=True)
            await server.serve_forever()


asyncio.run(main(sys.argv[1]))

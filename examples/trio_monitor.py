"""A monitor under trio: `python examples/trio_monitor.py HOST:PORT PV COUNT`."""

import sys
from typing import Any

import trio

from pvafast import ClientConnection, messages, request
from pvafast.connection import ChannelClosed, ChannelFailed, ChannelOpened, OperationReply, Update, Validated

ECHO = 15.0  # seconds: servers hang up on clients that say nothing for 40 or so


async def monitor(host: str, port: int, name: str, updates: Any) -> None:
    """Send the updates of a PV into a memory channel, until it is cancelled or something fails."""
    conn = ClientConnection()
    lock = trio.Lock()  # two tasks send

    async def send(message: Any = None) -> None:
        async with lock:
            for buffer in conn.data_to_send() + ([] if message is None else conn.send(message)):
                await stream.send_all(buffer)

    async def echo() -> None:
        while True:
            await trio.sleep(ECHO)
            await send(messages.Echo())

    async with await trio.open_tcp_stream(host, port) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        async for chunk in stream:
            conn.receive_data(chunk)  # `bytes` are kept: large arrays are views of them
            for event in conn.events():
                match event:
                    case Validated(status=status):
                        status.raise_for_status()
                        await send(messages.CreateChannel(channels=((conn.new_cid(), name),)))
                    case ChannelFailed(status=status):
                        status.raise_for_status()
                    case ChannelOpened(channel=channel):
                        init = request.parse("field()")
                        await send(messages.MonitorInit(sid=channel.sid, ioid=conn.new_ioid(), request=init))
                    case OperationReply(operation=operation, message=message):
                        message.status.raise_for_status()
                        if isinstance(message, messages.MonitorInitReply):
                            await send(messages.MonitorStart(sid=operation.sid, ioid=operation.ioid))
                    case Update(value=value):
                        await updates.send(
                            value
                        )  # waits while it is full: then nothing is read, and the server merges
                    case ChannelClosed():
                        raise ConnectionError(f"{name} is gone")
            await send()  # what the connection itself has to say
        raise ConnectionError("the server hung up")


async def main(server: str, name: str, count: int) -> None:
    host, _, port = server.partition(":")
    into, out = trio.open_memory_channel[Any](100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(monitor, host, int(port or 5075), name, into)
        for _ in range(count):
            value = await out.receive()
            print(value["value"], ", ".join(value.changed_names()))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))

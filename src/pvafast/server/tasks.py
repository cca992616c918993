"""Coroutines of handlers, whichever loop the server runs on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Protocol, final

from ..network.loop import Loop


class Task(Protocol):
    """An awaitable that is run."""

    def cancel(self) -> object:
        """Give it up; `done` is told CancelledError if it was not over."""


# What is called with the outcome: (result, None) or (None, error).
Done = Callable[[Any, "BaseException | None"], object]


@final
class Tasks:
    """Runs awaitables: in the server's own loop if that is asyncio's, else in one of a thread of its own."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._own: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, awaitable: Awaitable[Any], done: Done) -> Task:
        """Run it; `done` is called in the server's loop."""
        loop = self._loop
        if isinstance(loop, asyncio.AbstractEventLoop):
            task = asyncio.ensure_future(awaitable, loop=loop)
            task.add_done_callback(lambda task: _told(task, done))
            return task
        if self._own is None:
            self._own = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._own.run_forever, name="pvafast-handlers", daemon=True
            )
            self._thread.start()
        future = asyncio.run_coroutine_threadsafe(_awaited(awaitable), self._own)
        future.add_done_callback(lambda future: loop.call_soon_threadsafe(_told, future, done))
        return future

    def close(self) -> None:
        """Cancel what runs in the thread, and end it, if there is one."""
        if self._own is not None and self._thread is not None:
            asyncio.run_coroutine_threadsafe(_end_all(), self._own)
            self._thread.join()
            self._own.close()
            self._own = self._thread = None


async def _end_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    asyncio.get_running_loop().stop()


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _told(task: asyncio.Future[Any] | Future[Any], done: Done) -> None:
    error = asyncio.CancelledError("the request was cancelled") if task.cancelled() else task.exception()
    done(None if error is not None else task.result(), error)

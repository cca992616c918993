"""Subscriptions and what servers tell, for programs without asyncio: iterators that wait."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, final

from ..client.feed import Feed
from ..client.subscription import Readable
from ..errors import ClientClosed
from .runner import Runner, Waiter

Item = TypeVar("Item")


class _SyncFeed(Generic[Item]):
    """An iterator of what a Feed holds. For one thread at a time. Who forgets it closes it."""

    def __init__(self, feed: Feed, runner: Runner, *, kept: bool, at_once: int = 1) -> None:
        """kept: it goes on when it is forgotten, for it has a callback. at_once: so many are taken from the queue."""
        self._feed: Any = feed
        self._runner = runner
        self._kept = kept
        self._at_once = at_once
        # Taken from the queue already.
        self._mine: deque[Item] = deque()

    @property
    def name(self) -> str:
        """Of the channel."""
        return str(self._feed.name)

    @property
    def waiting(self) -> int:
        """How many items wait to be taken."""
        return int(self._feed.waiting) + len(self._mine)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        return self.next()

    def next(self, timeout: float | None = None) -> Item:
        """The next item. TimeoutError if none comes in time, StopIteration at the end."""
        mine = self._mine
        if not mine:
            self._fetch(timeout)
        if mine:
            return mine.popleft()
        feed = self._feed
        error, feed._error = feed._error, None
        if error is not None:
            raise error
        raise StopIteration

    def _fetch(self, timeout: float | None) -> None:
        """Take some items from the queue, when there are any, or it is the end."""
        feed, runner = self._feed, self._runner
        if not feed._queue and not feed._ended:
            waiter = Waiter()

            def woken() -> None:
                feed._wake = None
                self._grab()
                waiter()

            def watch() -> None:
                feed._wake = woken
                if feed._queue or feed._ended:
                    woken()

            try:
                if not runner.wait(waiter, watch, timeout):
                    raise TimeoutError(f"nothing of {self.name!r} within {timeout:g} s")
            except ClientClosed:
                feed._ended = True
            finally:
                feed._wake = None
        if feed._queue and not self._mine and not runner.closed:
            runner.call(self._grab, flush=False)

    def _grab(self) -> None:
        feed = self._feed
        for _ in range(min(len(feed._queue), self._at_once)):
            self._mine.append(feed._take())

    def close(self) -> None:
        """End it. What waits can still be taken."""
        if not self._feed._ended and not self._runner.closed:
            self._runner.call(self._feed.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # From whatever thread; nothing to do where __init__ failed.
        if not getattr(self, "_kept", True) and not self._feed._ended and not self._runner.closed:
            self._runner.loop.call_soon_threadsafe(self._feed.close)


@final
class Subscription(_SyncFeed[Item], Readable):
    """The updates of a channel: an iterator of Reading (or as Client.monitor says, which makes it). For one thread at a time.

    It ends when it is closed, or forgotten, or when the server ends it; RemoteError where the server says that it failed. A lost
    connection does not end it: it goes on, with the whole value first, when the channel is found again. What waits is
    taken before the end is told.
    """

    def pause(self) -> None:
        """Let the server send nothing until resume()."""
        self._runner.call(self._feed.pause)

    def resume(self) -> None:
        """Let it send again."""
        self._runner.call(self._feed.resume)


@final
class Watch(_SyncFeed[Item]):
    """What servers tell of themselves: an iterator, made by Client.beacons and Client.servers. For one thread at a time."""

    @property
    def dropped(self) -> int:
        """How many events were lost because nobody took them."""
        return int(self._feed.dropped)

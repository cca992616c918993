"""What a program reads item by item: a queue that the loop fills."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from .search import Searcher

# Beacons and servers that wait to be taken.
_WATCHED: Final = 10_000


class Feed:
    """Items that wait to be taken, and an end. The faces of the client make iterators of it. For the loop's thread only."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._queue: deque[Any] = deque()
        self._ended = False
        self._error: Exception | None = None
        # Called when there is something to take, or the end.
        self._wake: Callable[[], object] | None = None

    @property
    def waiting(self) -> int:
        """How many items wait to be taken."""
        return len(self._queue)

    def close(self) -> None:
        """End it. What waits can still be taken."""
        raise NotImplementedError

    def _take(self) -> Any:
        """The next item of the queue, which is not empty."""
        return self._queue.popleft()

    def _ring(self) -> None:
        if self._wake is not None:
            self._wake()


class Watch(Feed):
    """What servers tell of themselves: BeaconEvents, or ServerEvents. Nobody else waits for them: the oldest are lost in the end.

    dropped: how many were.
    """

    _callback: Callable[[Any], object] | None

    def __init__(self, name: str, searcher: Searcher, callback: Callable[[Any], object] | None) -> None:
        super().__init__(name)
        self.dropped = 0
        self._callback = callback
        follow = searcher.beacons if name == "beacons" else searcher.discover
        self._following = follow(self._heard)

    def close(self) -> None:
        """End it. What waits can still be taken."""
        self._ended = True
        self._following.cancel()
        self._ring()

    def _heard(self, event: Any) -> None:
        if self._callback is not None:
            self._callback(event)
            return
        if len(self._queue) >= _WATCHED:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(event)
        self._ring()

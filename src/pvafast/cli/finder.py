"""What commands that look for servers share: a Searcher without a client."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from ..client.search import Searcher
from ..network.loop import SelectLoop
from .session import client_config, complain


class Finder:
    """A Searcher on a loop of its own, whose news are put into `queue` and taken with `news`."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.queue: deque[Any] = deque()
        self._loop = SelectLoop()
        self.config = client_config(arguments)
        self.searcher = Searcher(self._loop, self.config)

    def news(self, wait: float) -> Iterator[Any]:
        """What comes into the queue, until so many seconds are over (0: for ever)."""
        loop, queue = self._loop, self.queue
        end = loop.time() + wait
        while True:
            left = end - loop.time() if wait else None
            if (left is not None and left <= 0) or not loop.run_until(lambda: queue, left):
                return
            yield queue.popleft()

    def deaf(self) -> bool:
        """Whether no beacons can come; says so."""
        if self.searcher.hears_beacons:
            return False
        complain("", f"beacons cannot be received: UDP port {self.config.broadcast_port} cannot be had")
        return True

    def __enter__(self) -> Finder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.searcher.close()
        self._loop.close()

"""Questions to the network that need no channel: where a name is, and which servers there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, final

from ..errors import OperationTimeout
from .link import text_of
from .operations import Request

if TYPE_CHECKING:
    from ..network.loop import Handle
    from .engine import Engine
    from .servers import ServerEvent


@final
class ServerInfo(NamedTuple):
    """A server that answered. address: (host, port...), as a socket takes it. guid: 12 bytes, new at each of its starts."""

    address: Any
    guid: bytes

    def __str__(self) -> str:
        return f"{text_of(self.address)} {self.guid.hex()}"


@final
class Lookup(Request):
    """Where a name is: the ServerInfo that answers first."""

    __slots__ = ("_engine", "_name", "_search", "_timeout", "_timer")

    def __init__(self, engine: Engine, name: str) -> None:
        super().__init__()
        self._engine = engine
        self._name = name
        self._search: Any = None
        self._timer: Handle | None = None
        self._timeout = 0.0

    def start(self, timeout: float | None) -> None:
        """Search."""
        self._search = self._engine.searcher.find(self._name, self._found)
        if timeout is not None:
            self._timeout = timeout
            self._timer = self._engine.loop.call_later(timeout, self._expire)

    def _found(self, address: Any, guid: bytes) -> None:
        self.result = ServerInfo(address, guid)
        self._stop()
        self.done(self)

    def _expire(self) -> None:
        self.error = self.late(self._timeout)
        self._stop()
        self.done(self)

    def _stop(self) -> None:
        if self._search is not None:
            self._search.cancel()
            self._search = None
        if self._timer is not None:
            self._timer.cancel()

    def late(self, timeout: float) -> OperationTimeout:
        """No server has the name."""
        return OperationTimeout(self._name, "search", timeout, "searching")

    def cancel(self) -> None:
        """Search no more."""
        self._stop()


@final
class Census(Request):
    """Which servers answer within some seconds: a list of ServerInfo, by address."""

    __slots__ = ("_engine", "_found", "_seconds", "_timer", "_watching")

    def __init__(self, engine: Engine, seconds: float) -> None:
        super().__init__()
        self._engine = engine
        self._seconds = seconds
        self._found: dict[Any, ServerInfo] = {}
        self._watching: Any = None
        self._timer: Handle | None = None

    def start(self, timeout: float | None) -> None:
        """Ask all servers."""
        self._watching = self._engine.searcher.discover(self._heard)
        self._timer = self._engine.loop.call_later(self._seconds, self._finish)

    def _heard(self, event: ServerEvent) -> None:
        if event.kind == "offline":
            self._found.pop(event.address, None)
        else:
            self._found[event.address] = ServerInfo(event.address, event.guid)

    def _finish(self) -> None:
        self.cancel()
        self.result = [self._found[address] for address in sorted(self._found)]
        self.done(self)

    def cancel(self) -> None:
        """Listen no more."""
        if self._watching is not None:
            self._watching.cancel()
        if self._timer is not None:
            self._timer.cancel()

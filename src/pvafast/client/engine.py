"""The engine under both faces of the client: channels by name, connections by address, one loop."""

from __future__ import annotations

import getpass
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from .. import _backend
from ..errors import ClientClosed, EncodeError
from ..limits import Limits
from ..messages import AnyBody
from ..network.config import ClientConfig
from ..network.loop import Handle, Loop
from ..request import Request
from . import operations
from .channel import Channel
from .link import Link
from .search import Searcher

if TYPE_CHECKING:
    pass

Value = _backend.value.Value

# A channel of which nothing was wanted for so long is closed; how often to look, in seconds.
_IDLE_TIME: Final = 60.0
_SWEEP: Final = 15.0


@lru_cache(maxsize=512)
def _parsed(text: str) -> Value:
    """A pvRequest as the Value to send: it is never changed."""
    return Request.parse(text).to_value()


def prepared(request: Any) -> tuple[AnyBody, str | None]:
    """A pvRequest as the Value to send, and the text by which operations with it are kept."""
    if isinstance(request, str):
        return _parsed(request), request
    if isinstance(request, Request):
        text = str(request)
        return _parsed(text), text
    if isinstance(request, Value):
        return request, None
    raise TypeError(f"a pvRequest is a str, a Request or a Value, not {type(request).__name__}")


class Engine:
    """Channels, connections and search of one client, on one loop. For the loop's thread only.

    server: the address of the one server that has all channels: there is no search. closed: called once, at the end.
    """

    def __init__(
        self,
        loop: Loop,
        config: ClientConfig,
        *,
        server: Any = None,
        limits: Limits | None = None,
        user: str | None = None,
        host: str | None = None,
        rcvbuf: int | None = None,
    ) -> None:
        self.loop = loop
        self.config = config
        self.server = server
        self.limits = limits if limits is not None else Limits()
        self.user = _user() if user is None else user
        self.host = socket.gethostname() if host is None else host
        self.rcvbuf = rcvbuf
        # By name; those of which the program names the server by name and address.
        self.channels: dict[Any, Channel] = {}
        # Addresses to which no connection could be made, since the log was told so.
        self.away: set[Any] = set()
        self._links: dict[Any, Link] = {}
        self._searcher: Searcher | None = None
        self._sweep: Handle | None = None
        self._closed = False

    @property
    def searcher(self) -> Searcher:
        """What searches; made when first needed."""
        if self._searcher is None:
            self._searcher = Searcher(
                self.loop, self.config, user=self.user, host=self.host, limits=self.limits
            )
        return self._searcher

    def channel(self, name: str, address: Any = None) -> Channel:
        """The channel of a name. address: of its server; None: of the one server, or found by search."""
        key = name if address is None else (name, address)
        found = self.channels.get(key)
        if found is None:
            if self._closed:
                raise ClientClosed("the client is closed")
            if not isinstance(name, str) or not name:
                raise ValueError(f"a channel has a name, not {name!r}")
            try:
                name.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError as error:
                raise EncodeError(f"{name!r} is no name of a channel: {error.reason}") from None
            found = self.channels[key] = Channel(self, key, name, address or self.server)
            if self._sweep is None:
                self._sweep = self.loop.call_later(_SWEEP, self._swept)
        return found

    def link(self, address: Any) -> Link:
        """The connection to a server, made if there is none."""
        found = self._links.get(address)
        if found is None:
            found = self._links[address] = Link(self, address)
        return found

    def unlink(self, link: Link) -> None:
        """A connection is gone."""
        if self._links.get(link.address) is link:
            del self._links[link.address]

    def drop(self, channel: Channel) -> None:
        """Nothing is wanted of a channel."""
        if self.channels.get(channel.key) is channel:
            del self.channels[channel.key]
        channel.close()

    def run(self, operation: operations.Request, timeout: float | None) -> None:
        """Start a request."""
        if self._closed:
            raise ClientClosed("the client is closed")
        operation.start(timeout)

    def _swept(self) -> None:
        """Close what was not used for a while."""
        before = self.loop.time() - _IDLE_TIME
        for channel in list(self.channels.values()):
            if channel.last_used < before and not channel.wanted:
                self.drop(channel)
        self._sweep = self.loop.call_later(_SWEEP, self._swept) if self.channels else None

    def close(self) -> None:
        """Close channels and connections; requests under way fail with ClientClosed, subscriptions end."""
        if self._closed:
            return
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        error = ClientClosed("the client was closed")
        for channel in list(self.channels.values()):
            for operation in [*channel.waiting, *channel.asking]:
                operation.fail(error)
            for subscription in list(channel.subscriptions):
                subscription.end(None)
            channel.close(tell=False)
        self.channels.clear()
        for link in list(self._links.values()):
            link.close("the client was closed")
        if self._searcher is not None:
            self._searcher.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this number
        return "nobody"

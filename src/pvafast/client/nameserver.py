"""Name servers: searches over TCP, on connections that are kept."""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final, final

from .. import messages
from .._valuetext import printable
from ..connection import ClientConnection, Received, Validated
from ..errors import ProtocolError
from ..limits import Limits
from ..network.addresses import Endpoint
from ..network.config import ClientConfig
from ..network.loop import Handle, Loop
from ..network.stream import Connecting, Stream

_log = logging.getLogger("pvafast.search")

# Seconds between attempts to connect: at first, and at most. A connection that lived so long was a good one.
_SOON: Final = 1.0
_LATE: Final = 30.0
# With so many bytes waiting, a name server is too slow for further searches: those come again by themselves.
_WAITING: Final = 65_536


@final
class NameServer:
    """A connection to a name server: made, kept and made again until close().

    ready: called with this when searches can be sent. answered: called with each answer, and this.
    """

    def __init__(
        self,
        loop: Loop,
        endpoint: Endpoint,
        config: ClientConfig,
        *,
        user: str,
        host: str,
        limits: Limits | None,
        ready: Callable[[NameServer], object],
        answered: Callable[[messages.SearchResponse, NameServer], object],
    ) -> None:
        self.endpoint = endpoint
        self._loop = loop
        self._config = config
        self._user = user
        self._host = host
        self._limits = limits
        self._ready = ready
        self._answered = answered
        self._delay = _SOON
        self._told = False  # in the log, that it cannot be reached
        self._connecting: Connecting | None = None
        self._stream: Stream | None = None
        self._validated: float | None = None
        self._timer: Handle | None = None
        self._closed = False
        self._connect()

    def close(self) -> None:
        """Close the connection for good."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._stream is not None:
            self._stream.close()

    def ask(self, search: messages.Search, *, however_slow: bool = False) -> None:
        """Send a search, if there is a connection, and room for it."""
        stream = self._stream
        if stream is None or self._validated is None:
            return
        if however_slow or stream.unsent < _WAITING:
            stream.send(search)

    def _connect(self) -> None:
        self._timer = None
        self._connecting = Connecting(
            self._loop, self.endpoint.address, self._connected, timeout=self._config.tcp_timeout
        )

    def _connected(self, result: socket.socket | OSError) -> None:
        self._connecting = None
        if isinstance(result, OSError):
            self._lost(result)
            return
        connection = ClientConnection(limits=self._limits, user=self._user, host=self._host)
        try:
            self._stream = Stream(self._loop, result, connection, received=self._received, closed=self._lost)
        except OSError as error:  # it was closed at once
            result.close()
            self._lost(error)
            return
        self._timer = self._loop.call_later(self._config.echo_interval, self._alive)

    def _lost(self, error: Exception | None) -> None:
        """There is no connection, or no longer: try again later."""
        now = self._loop.time()
        if self._validated is not None and now - self._validated > _LATE:
            self._delay = _SOON
        self._stream = self._validated = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed:
            return
        if not self._told:
            self._told = True
            _log.warning("name server %s: %s; trying again", self.endpoint, printable(str(error)))
        # Not all clients of a server that was restarted come at the same time.
        self._timer = self._loop.call_later(self._delay * random.uniform(0.75, 1.0), self._connect)
        self._delay = min(_LATE, self._delay * 2)

    def _alive(self) -> None:
        """Send an echo, or give the connection up if nothing came for long."""
        self._timer = None
        stream = self._stream
        if stream is None or stream.is_closed:
            return
        silent = self._loop.time() - stream.last_received
        if silent > self._config.tcp_timeout:
            stream.close(TimeoutError(f"nothing received for {silent:.0f} s"))
            return
        if self._validated is not None:
            stream.send(messages.Echo())
        self._timer = self._loop.call_later(self._config.echo_interval, self._alive)

    def _received(self, events: Iterator[Any]) -> None:
        for event in events:
            if self._closed:
                return
            if isinstance(event, Validated):
                if not event.status.ok:
                    raise ProtocolError(f"refused: {event.status.message}")
                self._validated = self._loop.time()
                self._told = False
                _log.info("name server %s: connected", self.endpoint)
                self._ready(self)
            elif isinstance(event, Received) and isinstance(event.message, messages.SearchResponse):
                self._answered(event.message, self)

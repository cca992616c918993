"""A connection to one server: shared by all channels there, kept alive, given up when it is dead."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from .. import messages
from .._valuetext import printable
from ..connection import (
    ChannelClosed,
    ChannelFailed,
    ChannelOpened,
    ClientConnection,
    Collected,
    OperationReply,
    Received,
    Update,
    Validated,
)
from ..errors import ProtocolError
from ..network.stream import Connecting, Stream

if TYPE_CHECKING:
    from ..network.loop import Handle
    from .channel import Channel
    from .engine import Engine

_log = logging.getLogger("pvafast.client")

# For the TCP connection, and for the handshake behind it: in seconds.
_CONNECT_TIME: Final = 5.0
# So many servers that are away are remembered.
_AWAY: Final = 1000
_LEVELS: Final = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


def text_of(address: Any) -> str:
    """host:port, with brackets around an IPv6 address."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Link:
    """TCP, handshake and life signs of one connection, and its channels by cid."""

    def __init__(self, engine: Engine, address: Any) -> None:
        self.engine = engine
        self.address = address
        self.name = text_of(address)
        self.ready = False
        # A subscription has much waiting: the program is to have its turn before more is read.
        self.crowded = False
        self.channels: dict[int, Channel] = {}
        self.connection = ClientConnection(limits=engine.limits, user=engine.user, host=engine.host)
        # Channels that wait for the connection.
        self._waiting: dict[Channel, None] = {}
        self._stream: Stream | None = None
        self._timer: Handle | None = None
        self._due = 0.0  # when it was to go off
        self._closed = False
        self._connecting: Connecting | None = Connecting(
            engine.loop, address, self._connected, timeout=_CONNECT_TIME, rcvbuf=engine.rcvbuf
        )

    @property
    def stream(self) -> Stream:
        """The stream, once there is one."""
        assert self._stream is not None
        return self._stream

    def attach(self, channel: Channel) -> None:
        """Open a channel as soon as the connection is ready."""
        if self.ready:
            channel.open(self)
        else:
            self._waiting[channel] = None

    def detach(self, channel: Channel) -> None:
        """The channel is none of this connection any more; the last one closes it."""
        self._waiting.pop(channel, None)
        if self.channels.get(channel.cid) is channel:
            del self.channels[channel.cid]
        if not self.channels and not self._waiting:
            self.close("no channel is left")

    def destroy(self, channel: Channel) -> None:
        """Close an open channel."""
        self.stream.send(messages.DestroyChannel(sid=channel.sid, cid=channel.cid))

    def close(self, reason: str) -> None:
        """Close the connection; its channels are told."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._stream is not None:
            self._stream.close()
        self._gone(reason)

    # -- from the loop

    def _connected(self, sock: socket.socket | OSError) -> None:
        self._connecting = None
        if isinstance(sock, OSError):
            self._gone(f"no connection to {self.name}: {sock}", failed=True)
            return
        try:
            self._stream = Stream(
                self.engine.loop, sock, self.connection, received=self._received, closed=self._on_closed
            )
        except OSError as error:  # reset already
            sock.close()
            self._gone(f"no connection to {self.name}: {error}", failed=True)
            return
        self._timer = self.engine.loop.call_later(_CONNECT_TIME, self._unanswered)

    def _unanswered(self) -> None:
        self._timer = None
        self.stream.close(TimeoutError(f"no handshake within {_CONNECT_TIME:g} s"))

    def _received(self, events: Iterator[Any]) -> bool:
        """The events of what was just read; whatever comes at full rate comes first. Whether the program is to have its turn."""
        for event in events:
            kind = type(event)
            if kind is Update:
                owner = event.operation.owner
                if owner is not None:
                    owner.update(event)
            elif kind is OperationReply:
                owner = event.operation.owner
                if owner is not None:
                    owner.replied(event.message)
            elif kind is Collected:
                owner = event.operation.owner
                if owner is not None:
                    owner.collected(event.rows, event.nbytes)
            else:
                self._happened(event)
            if self._closed:
                return True
        crowded, self.crowded = self.crowded, False
        return crowded

    def _happened(self, event: Any) -> None:
        if isinstance(event, ChannelOpened):
            channel = self.channels.get(event.channel.cid)
            if channel is not None and event.channel.sid is not None:
                channel.opened(event.channel.sid)
        elif isinstance(event, ChannelFailed):
            channel = self.channels.pop(event.channel.cid, None)
            if channel is not None:
                channel.refused(event.status)
        elif isinstance(event, ChannelClosed):
            channel = self.channels.pop(event.channel.cid, None)
            if channel is not None and event.by_peer:
                _log.info("%r: closed by %s", channel.name, self.name)
                channel.lost(f"{self.name} closed the channel")
                self._leave()
        elif isinstance(event, Validated):
            self._validated(event)
        elif isinstance(event, Received) and isinstance(event.message, messages.RemoteMessage):
            text = event.message
            _log.log(_LEVELS[text.severity], "%s says: %s", self.name, printable(text.text))

    def _validated(self, event: Validated) -> None:
        if not event.status.ok:
            raise ProtocolError(f"the server refuses the client: {event.status.message}")
        if self.ready:
            return
        self.ready = True
        if self._timer is not None:
            self._timer.cancel()
        self._wait_alive()
        away = self.address in self.engine.away
        self.engine.away.discard(self.address)
        _log.log(logging.INFO if away else logging.DEBUG, "%s: connected", self.name)
        waiting, self._waiting = self._waiting, {}
        for channel in waiting:
            channel.open(self)

    def _alive(self) -> None:
        """Time for a sign of life; and whether the server gave one."""
        config, loop, stream = self.engine.config, self.engine.loop, self.stream
        now = loop.time()
        silent = now - stream.last_received
        # Where this computer slept, or the program did not let the loop run, what came is not read yet.
        if silent > config.tcp_timeout and now - self._due < config.echo_interval:
            stream.close(TimeoutError(f"not a byte for {silent:.0f} s"))
            return
        # Also while the server sends: it drops clients from whom nothing comes.
        stream.send(messages.Echo())
        self._wait_alive()

    def _wait_alive(self) -> None:
        interval = self.engine.config.echo_interval
        self._due = self.engine.loop.time() + interval
        self._timer = self.engine.loop.call_later(interval, self._alive)

    def _on_closed(self, error: Exception | None) -> None:
        broken = isinstance(error, ProtocolError)
        if broken:
            _log.error("%s breaks the protocol: %s", self.name, printable(str(error)))
        reason = f"{self.name}: {error}" if error is not None else f"{self.name} was closed"
        self._gone(reason, failed=broken or not self.ready)

    def _leave(self) -> None:
        if not self.channels and not self._waiting:
            self.close("no channel is left")

    def _gone(self, reason: str, *, failed: bool = False) -> None:
        """There is no connection any more."""
        if self._closed:
            return
        self._closed = True
        self.ready = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.engine.unlink(self)
        channels = [*self.channels.values(), *self._waiting]
        self.channels, self._waiting = {}, {}
        if channels:
            # A server that is away is told of once.
            level = logging.DEBUG if failed and self.address in self.engine.away else logging.WARNING
            _log.log(level, "%s (%d channels)", printable(reason), len(channels))
            if failed and len(self.engine.away) < _AWAY:
                self.engine.away.add(self.address)
        for channel in channels:
            channel.lost(reason, failed=failed)

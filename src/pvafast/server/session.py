"""Session: one connected client."""

from __future__ import annotations

import inspect
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, final

from .. import messages
from .._backend import bitset
from ..connection import (
    ChannelClosed,
    ChannelRequested,
    ConnectionOperation,
    Credentials,
    EncodedUpdate,
    OperationRequest,
    Received,
    ServerConnection,
)
from ..connection.events import NO_BITS
from ..connection.shared import Channel
from ..errors import EncodeError, LocalProtocolError, ProtocolError, RemoteError
from ..messages import Status, StatusType
from ..network.stream import Stream
from .discovery import answer
from .monitors import Subscription
from .operations import Operation
from .pv import PV
from .requests import Peer, Refused, status_of
from .tasks import Done, Task

if TYPE_CHECKING:
    from .server import Server

_log = logging.getLogger("pvafast.server")
BitSet = bitset.BitSet
# Updates are given to the stream while less than this waits there: enough that the socket never runs dry.
_ROOM: Final = 1 << 18
# A client can send a million requests and read no answer: with so many bytes unread, its requests wait.
_UNREAD: Final = 1 << 20
# One message can open 100,000 channels: after so many events and seconds the other clients have their turn.
_EVENTS: Final = 32
_TURN: Final = 0.01
# A client can ask for what takes for ever, again and again: so many handlers run for it at once.
_RUNNING: Final = 10_000


@final
class Served:
    """A channel of a client. operations: by ioid. waiting: what was asked before the PV had a value."""

    __slots__ = ("channel", "name", "operations", "pv", "session", "waiting")

    def __init__(self, session: Session, channel: Channel, pv: PV) -> None:
        self.session = session
        self.channel = channel
        self.name = channel.name
        self.pv = pv
        self.operations: dict[int, Operation] = {}
        self.waiting: dict[int, tuple[Operation, messages.Request]] = {}

    def opened(self) -> None:
        """The PV has got a value; from any thread."""
        self.session.soon(self.session.resume, self)

    def closed(self) -> None:
        """The PV has lost its value, or was removed; from any thread."""
        self.session.soon(self.session.disconnect, self)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionInfo:
    """A client as it is now. unsent: bytes that it has not taken yet. queued: bytes of updates that wait for it."""

    peer: Peer
    channels: int
    operations: int
    subscriptions: int
    unsent: int
    queued: int
    dropped: int


@final
class Session:
    """A connected client: answers what it asks, in the thread of the server's loop."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self._server = server
        self._loop = server.loop
        self.thread = server.thread
        self.queue_bytes = server.queue_bytes
        self.limits = server.limits
        self.connection = ServerConnection(limits=server.limits, byteorder=server.byteorder)
        self._served: dict[int, Served] = {}
        self._operations: dict[int, Operation] = {}
        # Subscriptions that wait for room in the stream, in turn.
        self._blocked: dict[Subscription, None] = {}
        self._lock = Lock()
        self.queued = 0
        self.running = 0
        self._opening: set[Task] = set()
        self._holding = False
        self._resumed = 0.0
        # For the timer: while requests wait, what was unsent when bytes last went out, and when.
        self._progress = (0, self._loop.time())
        self.stream = Stream(
            self._loop,
            sock,
            self.connection,
            received=self._received,
            closed=self._closed,
            drained=self._drained,
        )
        address = self.stream.peer
        host = str(address[0]).removeprefix("::ffff:")
        self.peer = Peer(address=(host, *address[1:]), host=host)

    def __repr__(self) -> str:
        return f"<Session {self.peer}>"

    @property
    def info(self) -> ConnectionInfo:
        """How it stands."""
        subscriptions = [
            o.subscription for o in list(self._operations.values()) if o.subscription is not None
        ]
        return ConnectionInfo(
            peer=self.peer,
            channels=len(self._served),
            operations=len(self._operations),
            subscriptions=len(subscriptions),
            unsent=self.stream.unsent,
            queued=self.queued,
            dropped=sum(one.dropped for one in subscriptions),
        )

    # -- the stream

    def _received(self, events: Iterator[Any]) -> None:
        until = self._loop.time() + _TURN
        others = False
        for n, event in enumerate(events, 1):
            if type(event) is OperationRequest:
                self._requested(event.operation, event.message)
            elif type(event) is ChannelRequested:
                self._channel_requested(event)
            elif type(event) is ChannelClosed:
                self._end_channel(self._served.pop(event.channel.sid or 0))
            elif type(event) is Credentials:
                self._credentials(event)
            elif type(event) is Received and type(event.message) is messages.Search:
                self._search(event.message)
            if self.stream.is_closed:
                return
            if self.stream.unsent > _UNREAD:
                break
            if not n % _EVENTS and self._loop.time() > until:
                others = True
                break
        self.stream.write(())  # what the connection answers by itself, echoes for one
        if self.stream.unsent > _UNREAD:
            self._holding = True
            self.stream.pause()
        elif others:
            self.stream.pause()
            self._loop.call_soon(self._take_up)

    def _go_on(self) -> None:
        """Take the requests that waited, if it is time."""
        if not self._holding or self.stream.is_closed or self.stream.unsent > _UNREAD:
            return
        self._holding = False
        self._resumed = self._loop.time()
        self._take_up()

    def _take_up(self) -> None:
        """Read again, and take what was left of what has come."""
        if self.stream.is_closed:
            return
        self.stream.resume()
        try:
            self._received(self.connection.events())
        except ProtocolError as error:
            self.stream.close(error)
        except Exception as error:
            _log.exception("error while serving %s", self.peer)
            self.stream.close(error)

    def _drained(self) -> None:
        while self._blocked and self.stream.unsent < _ROOM:
            subscription = next(iter(self._blocked))
            del self._blocked[subscription]
            subscription.flush()
        self._go_on()

    def check_time(self, now: float, timeout: float) -> None:
        """Close it if the client is silent, or takes no answers."""
        stream = self.stream
        if not self._holding:
            # While requests were held back nothing was read.
            if now - max(stream.last_received, self._resumed) > timeout:
                stream.close(TimeoutError(f"nothing was received for {timeout:g} s"))
        elif stream.unsent != self._progress[0]:
            self._progress = stream.unsent, now
        elif now - self._progress[1] > timeout:
            stream.close(
                TimeoutError(f"the client reads no answers: {stream.unsent} bytes wait for {timeout:g} s")
            )

    def close(self) -> None:
        """Hang up."""
        self.stream.close()

    def _closed(self, error: Exception | None) -> None:
        if isinstance(error, ProtocolError):
            _log.warning("closed the connection of %s, which breaks the protocol: %s", self.peer, error)
        elif isinstance(error, TimeoutError):
            _log.warning("closed the connection of %s: %s", self.peer, error)
        else:
            _log.debug("%s is gone%s", self.peer, "" if error is None else f": {error}")
        for task in self._opening:
            task.cancel()
        self._opening.clear()
        for served in list(self._served.values()):
            self._end_channel(served)
        self._served.clear()
        self._blocked.clear()
        self._server.forget(self)

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call in the loop, from any thread."""
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # asyncio's loop is closed, and all is over
            pass

    def send(self, message: messages.PvaMessage) -> None:
        """Send a message, if anyone is there."""
        if not self.stream.is_closed:
            self.stream.send(message, segment_size=self._server.segment_size)

    # -- the connection

    def _credentials(self, event: Credentials) -> None:
        status = Status.OK
        if event.offered:
            known = event.method != "anonymous"
            self.peer = replace(
                self.peer,
                method=event.method,
                user=event.user if known else "",
                claimed_host=event.host if known else "",
            )
        else:
            status = Status(StatusType.ERROR, f"the method {event.method!r} was not offered")
        _log.debug("%s is connected", self.peer)
        self.send(messages.ConnectionValidated(status=status))

    def _search(self, message: messages.Search) -> None:
        server = self._server
        found = answer(message, guid=server.guid, tcp_port=self.stream.local[1], has=server.has)
        if found is not None:
            self.send(found)

    # -- channels

    def _channel_requested(self, event: ChannelRequested) -> None:
        self._find(event.cid, event.name, self._server.sources(event.name))

    def _find(self, cid: int, name: str, sources: Iterator[Callable[[Peer], Any]]) -> None:
        """Ask one after the other for the PV; any of them may take its time."""
        try:
            for source in sources:
                found = source(self.peer)
                if inspect.isawaitable(found):
                    self._await_channel(cid, name, sources, found)
                    return
                if found is not None:
                    self._open_channel(cid, name, found)
                    return
            raise Refused(f"no PV is named {name!r}")
        except Exception as error:
            self._refuse_channel(cid, name, error)

    def _await_channel(
        self, cid: int, name: str, sources: Iterator[Callable[[Peer], Any]], found: Awaitable[Any]
    ) -> None:
        def done(result: Any, error: BaseException | None) -> None:
            if task not in self._opening:
                return
            self._opening.discard(task)
            self.running -= 1
            if error is None:
                self._find(cid, name, chain([lambda peer: result], sources))
            else:
                self._refuse_channel(cid, name, error)

        task = self.run(found, done)
        self._opening.add(task)

    def _refuse_channel(self, cid: int, name: str, error: BaseException) -> None:
        if not isinstance(error, RemoteError):
            _log.error("error while %r was opened for %s", name, self.peer, exc_info=error)
        self.send(messages.CreateChannelReply(cid=cid, status=status_of(error)))

    def _open_channel(self, cid: int, name: str, pv: PV) -> None:
        if not isinstance(pv, PV):
            raise TypeError(f"a provider gave a {pv.__class__.__name__} for {name!r}, a PV is needed")
        if self.stream.is_closed:
            return
        sid = self.connection.new_sid()
        self.send(messages.CreateChannelReply(cid=cid, sid=sid))
        served = Served(self, self.connection.channels[sid], pv)
        self._served[sid] = served
        self._server.quietly(pv.attach, served)

    def _end_channel(self, served: Served) -> None:
        """The channel is closed already."""
        for operation in list(served.operations.values()):
            self.end(operation)
        self._server.quietly(served.pv.detach, served)

    def disconnect(self, served: Served) -> None:
        """Close a channel of the client's, for its PV is gone."""
        sid, cid = served.channel.sid, served.channel.cid
        if sid is None or self._served.get(sid) is not served or self.stream.is_closed:
            return
        for operation in list(served.operations.values()):
            if operation.subscription is not None:
                operation.subscription.flush()
        del self._served[sid]
        self.send(messages.DestroyChannel(sid=sid, cid=cid))
        self._end_channel(served)

    def disconnect_name(self, name: str) -> None:
        """Close the client's channels of a name."""
        for served in list(self._served.values()):
            if served.name == name:
                self.disconnect(served)

    def resume(self, served: Served) -> None:
        """Do what had to wait for the PV to open."""
        waiting, served.waiting = served.waiting, {}
        for operation, message in waiting.values():
            operation.begin(message)

    # -- operations

    def _requested(self, of: ConnectionOperation, message: messages.Request) -> None:
        ioid = message.ioid
        if isinstance(message, messages.InitRequest | messages.GetField):
            served = self._served[of.channel.sid or 0]
            operation = self._operations[ioid] = served.operations[ioid] = Operation(of, served)
            operation.begin(message)
            return
        known = self._operations.get(ioid)
        if known is not None and known.of is of:
            known.request(message)

    def end(self, operation: Operation) -> None:
        """The connection has forgotten it, or is about to."""
        ioid = operation.of.ioid
        if self._operations.get(ioid) is operation:
            del self._operations[ioid]
        operation.served.operations.pop(ioid, None)
        operation.served.waiting.pop(ioid, None)
        operation.cancel()

    def run(self, awaitable: Awaitable[Any], done: Done) -> Task:
        """Run what a handler or a provider returned; Refused if too many run already. Whoever ends it counts `running` down."""
        if self.running >= _RUNNING:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            raise Refused(f"{_RUNNING} requests of this client are being worked on")
        task = self._server.tasks.run(awaitable, done)
        self.running += 1
        return task

    # -- updates

    def ready(self, ioid: int) -> bool:
        """An update may be sent now. Also a hint for other threads."""
        return self.stream.unsent < _ROOM and self.connection.may_send(ioid)

    def block(self, subscription: Subscription) -> None:
        """To be flushed when there is room again."""
        if self.stream.unsent >= _ROOM:
            self._blocked[subscription] = None

    def unblock(self, subscription: Subscription) -> None:
        """Not any more."""
        self._blocked.pop(subscription, None)

    def wake(self, subscription: Subscription) -> None:
        """To be flushed by the loop; from any thread."""
        self._server.wake(subscription)

    def count(self, size: int) -> None:
        """So many bytes more are queued."""
        with self._lock:
            self.queued += size

    def send_update(self, ioid: int, update: EncodedUpdate, overrun: BitSet = NO_BITS) -> None:
        """Send an update that may be sent."""
        try:
            buffers = self.connection.send_update(
                ioid, update, overrun, segment_size=self._server.segment_size
            )
        except (LocalProtocolError, EncodeError) as error:
            _log.debug("update for %s: %s", self.peer, error)
            return
        self.stream.write(buffers)

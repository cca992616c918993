"""A channel: a name that is searched for, and open on some server; found again when it was lost."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from .. import messages
from .._valuetext import printable
from ..errors import EncodeError, LocalProtocolError
from ..messages import Status
from .operations import Operation, remote_error

if TYPE_CHECKING:
    from ..connection import ConnectionOperation
    from .engine import Engine
    from .link import Link
    from .subscription import Subscription

_log = logging.getLogger("pvafast.client")

# What a channel is doing.
IDLE: Final = "idle"
SEARCHING: Final = "searching"
CONNECTING: Final = "connecting"  # to the server
OPENING: Final = "opening"  # CREATE_CHANNEL was sent
OPEN: Final = "open"
CLOSED: Final = "closed"

# Operations of one kind that are kept open for the next request.
_KEPT: Final = 16
# Before it is tried again: doubled up to the last, until it was open for a while.
_FIRST_DELAY: Final = 0.05
_LAST_DELAY: Final = 15.0
_STABLE: Final = 5.0
# As pvxs: after a server that was found refused, or could not be reached.
_HOLD_OFF: Final = 10.0


class Channel:
    """A name, and what is wanted of it: requests on their way, subscriptions, operations kept open.

    It is found and opened when something is wanted of it first, and stays open until the engine drops it.
    """

    def __init__(self, engine: Engine, key: Any, name: str, address: Any = None) -> None:
        self.engine = engine
        self.key = key  # among the channels of the engine
        self.name = name
        # Of the server, where the program says which: there is no search.
        self.address = address
        self.state = IDLE
        self.link: Link | None = None
        self.cid = 0
        self.sid = 0
        # What went wrong last; "" when the channel is open.
        self.reason = ""
        # It was open once, and its server then.
        self.was_open = False
        self.server_name = ""
        self.subscriptions: dict[Subscription, None] = {}
        # Requests that wait for the channel, and those that wait for an answer.
        self.waiting: dict[Operation, None] = {}
        self.asking: dict[Operation, None] = {}
        self.last_used = 0.0
        self._kept: dict[tuple[int, str], list[ConnectionOperation]] = {}
        self._search: Any = None
        self._retry: Any = None
        self._delay = _FIRST_DELAY
        self._opened = 0.0  # when

    @property
    def waits_for(self) -> str:
        """What a request that waits for the channel waits for, as an OperationTimeout says it."""
        if self.state in (OPEN, OPENING, CONNECTING):
            return "waiting" if self.state == OPEN else self.state
        return "disconnected" if self.was_open else "connecting" if self.server_name else "searching"

    # -- what is wanted

    def start(self, operation: Operation) -> None:
        """Begin a request as soon as the channel is open."""
        if self.state == OPEN:
            self._begin(operation)
        else:
            self.wait(operation)

    def _begin(self, operation: Operation) -> None:
        self.asking[operation] = None
        try:
            operation.begin()
        except (
            EncodeError,
            LocalProtocolError,
        ) as error:  # too many operations, or a pvRequest that cannot be sent
            operation.fail(error)

    def wait(self, operation: Operation) -> None:
        """Let a request wait for the channel."""
        self.asking.pop(operation, None)
        self.waiting[operation] = None
        self.find()

    def ended(self, operation: Operation) -> None:
        """A request has ended."""
        if self.asking.pop(operation, self) is self:
            self.waiting.pop(operation, None)
        self.last_used = self.engine.loop.time()
        if self.state != OPEN and not self.wanted:
            self.engine.drop(self)

    def subscribe(self, subscription: Subscription) -> None:
        """Serve a subscription whenever the channel is open."""
        self.subscriptions[subscription] = None
        if self.state == OPEN:
            self._resume(subscription)
        else:
            self.find()

    def unsubscribe(self, subscription: Subscription) -> None:
        """No longer."""
        self.subscriptions.pop(subscription, None)
        self.last_used = self.engine.loop.time()
        if self.state != OPEN and not self.wanted:
            self.engine.drop(self)

    @property
    def wanted(self) -> bool:
        """Whether anything is wanted of it now."""
        return bool(self.subscriptions or self.waiting or self.asking)

    # -- operations kept open

    def take(self, command: int, key: str | None) -> ConnectionOperation | None:
        """An operation that was kept open for this request."""
        kept = None if key is None else self._kept.get((command, key))
        return kept.pop() if kept else None

    def keep(self, command: int, key: str | None, handle: ConnectionOperation) -> None:
        """An operation is free: keep it for the next request, or let the server forget it."""
        if key is None:
            self.destroy(handle)
            return
        kept = self._kept.setdefault((command, key), [])
        if len(kept) < _KEPT and self.state == OPEN:
            kept.append(handle)
        else:
            self.destroy(handle)

    def destroy(self, handle: ConnectionOperation) -> None:
        """Let the server forget an operation."""
        if self.link is not None and self.link.connection.operations.get(handle.ioid) is handle:
            self.link.stream.send(messages.DestroyRequest(sid=handle.sid, ioid=handle.ioid))

    def forget(self) -> None:
        """Let the server forget the operations that are kept open."""
        for kept in self._kept.values():
            for handle in kept:
                self.destroy(handle)
        self._kept.clear()

    # -- finding it

    def find(self) -> None:
        """Search for it, unless it is being searched for."""
        if self.state != IDLE:
            return
        if self.address is not None:
            self.state = SEARCHING
            self.found(self.address, b"")
        else:
            try:
                self._search = self.engine.searcher.find(self.name, self.found)
            except EncodeError as error:  # longer than a datagram
                self.impossible(error)
                return
            self.state = SEARCHING

    def found(self, address: Any, guid: bytes) -> None:
        """This server has it."""
        if self.state != SEARCHING:
            return
        self.state = CONNECTING
        self.link = link = self.engine.link(address)
        self.server_name = link.name
        link.attach(self)

    def open(self, link: Link) -> None:
        """The connection is ready: ask for the channel."""
        self.cid = cid = link.connection.new_cid()
        try:
            link.stream.send(messages.CreateChannel(channels=((cid, self.name),)))
        except (EncodeError, LocalProtocolError) as error:  # too many channels
            self.impossible(error)
            return
        self.state = OPENING
        link.channels[cid] = self

    def impossible(self, error: Exception) -> None:
        """There will never be such a channel."""
        for operation in list(self.waiting):
            operation.fail(error)
        for subscription in list(self.subscriptions):
            subscription.end(error)

    def opened(self, sid: int) -> None:
        """The server has opened it."""
        self.state = OPEN
        self.sid = sid
        self.reason = ""
        self.was_open = True
        self.last_used = self._opened = self.engine.loop.time()
        _log.debug("%r is open on %s", self.name, self.server_name)
        for subscription in list(self.subscriptions):
            self._resume(subscription)
        for operation in list(self.waiting):
            if self.state == OPEN and self.waiting.pop(operation, self) is None:
                self._begin(operation)

    def _resume(self, subscription: Subscription) -> None:
        if self.state != OPEN:
            return
        try:
            subscription.begin()
        except (EncodeError, LocalProtocolError) as error:
            subscription.end(error)

    def refused(self, status: Status) -> None:
        """The server does not open it: requests fail, subscriptions wait for a better day."""
        if self.link is not None:
            self.link.detach(self)
            self.link = None
        error = remote_error(status)
        self.reason = f"{self.server_name} refuses it: {error}"
        # Requests fail with it.
        level = logging.WARNING if self.subscriptions else logging.DEBUG
        _log.log(level, "%r: %s", self.name, printable(self.reason))
        self.state = SEARCHING
        for operation in list(self.waiting):
            operation.fail(error)
        self._again(refused=True)

    def lost(self, reason: str, *, failed: bool = False) -> None:
        """It is closed, by the server or with its connection; failed: the connection could not be made at all."""
        was_open = self.state == OPEN
        if was_open and self.engine.loop.time() - self._opened > _STABLE:
            self._delay = _FIRST_DELAY
        self.link = None
        self.state = SEARCHING  # what is told of it below need not ask for that
        self.reason = reason
        self._kept.clear()
        for subscription in list(self.subscriptions):
            subscription.lost(reason, was_open)
        for operation in list(self.asking):
            operation.lost(reason)
        self._again(refused=failed)

    def _again(self, *, refused: bool) -> None:
        """Search once more, after a while, if anything is still wanted. refused: the server that was found is of no use."""
        if self.state == CLOSED:
            return
        if not self.wanted:
            self.engine.drop(self)
            return
        delay = self._delay
        self._delay = min(2 * delay, _LAST_DELAY)
        if self._search is not None:
            self._search.again(delay=_HOLD_OFF if refused else delay)
        else:
            self._retry = self.engine.loop.call_later(delay, self.found, self.address, b"")

    def close(self, *, tell: bool = True) -> None:
        """Nothing is wanted any more: give it back to the server; not where its connection is closed anyway (tell=False)."""
        if self.state == CLOSED:
            return
        if self._search is not None:
            self._search.cancel()
        if self._retry is not None:
            self._retry.cancel()
        link, self.link = self.link, None
        was_open, self.state = self.state == OPEN, CLOSED
        self._kept.clear()
        if link is not None:
            if was_open and tell:
                link.destroy(self)
            link.detach(self)

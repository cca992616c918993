"""PV: a process variable, its value, its handlers, and who is connected to it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, final

from .. import normative
from .._backend import introspection, value
from ..errors import LocalProtocolError, NormativeError
from ..normative import Builder, Metadata
from ..normative.annotate import annotate
from ..request.selection import shared
from . import plain
from .monitors import Group, Subscription
from .requests import Action, Call, Peer, Process, Put, Refused

if TYPE_CHECKING:
    from .session import Served

FieldDesc = introspection.FieldDesc
Value = value.Value
AnyValue = value.AnyValue
UnionValue = value.UnionValue

What = Literal["read", "write", "process", "call"]
Access = Callable[[Peer, Action], "bool | str"]
_Handler = TypeVar("_Handler", bound=Callable[..., Any])


@final
class PV:
    """A process variable: a value with a type, for any number of clients, of any number of servers, under any names.

    type: a builder (``normative.NTScalar("double")``), a FieldDesc or what `FieldDesc.of` takes, or a Value, which is type
    and first value at once; None: closed until `open`. initial, meta: as `post` takes them.

    Clients can read it, and write it if `writable` (what they put is posted) or if there is a handler for puts. Handlers are
    functions or coroutine functions of one argument, given here or by the decorators `on_put`, `on_rpc`, `on_process`; what they
    raise is told to the client. They are called in the server's loop: what takes long is for a coroutine.
    access: ``f(peer, action)``, action "read", "write" (also to process) or "call" (RPC), is asked first: True, False, or a
    text for the refusal.

    All methods can be called from any thread.
    """

    def __init__(
        self,
        type: Any = None,
        initial: Any = None,
        *,
        writable: bool = False,
        put: Callable[[Put], Any] | None = None,
        rpc: Callable[[Call], Any] | None = None,
        process: Callable[[Process], Any] | None = None,
        access: Access | None = None,
        **meta: Unpack[Metadata],
    ) -> None:
        # Held while the value changes, and while updates are queued or sent.
        self.lock = RLock()
        self.writable = writable
        self.access = access
        self.put_handler = put
        self.rpc_handler = rpc
        self.process_handler = process
        self._first: Callable[[PV], object] | None = None
        self._last: Callable[[PV], object] | None = None
        self._builder: Builder | None = None
        self._current: Value | None = None
        self._opened = False
        self._groups: dict[tuple[tuple[str, ...], str], Group] = {}
        self._served: dict[Served, None] = {}
        # Subscriptions with updates queued, and who waits until there are none.
        self._behind: set[Subscription] = set()
        self._waiting: list[Callable[[], object]] = []
        if type is not None:
            self.open(type, initial, **meta)
        elif initial is not None or meta:
            raise TypeError("an initial value without a type: PV.of() finds one")

    @classmethod
    def of(cls, x: Any, /, **options: Any) -> PV:
        """A PV of the normative type that a plain value has. options: those of PV, and metadata.

        Numbers and text: NTScalar; lists and arrays of one axis: NTScalarArray; arrays of two and three axes and Frames: NTNDArray; a
        DataFrame: NTTable; a mapping: a structure; what a client has read, and a Value: its own type. Raises EncodeError for others.
        """
        meta: Metadata = {name: options.pop(name) for name in Metadata.__annotations__ if name in options}  # type: ignore[assignment]
        builder, found = plain.wrapped(x, meta)
        made = cls(**options)
        made.open(
            found.type if builder is None else builder, found if isinstance(x, Value) else plain.stamp(found)
        )
        return made

    # -- the value

    def open(self, type: Any, initial: Any = None, **meta: Unpack[Metadata]) -> None:
        """Give it a type and a value. One that is open is closed first: its clients come back and see the new type."""
        if isinstance(type, Value):
            if initial is None:
                initial = type
            type = type.type
        builder, fd = plain.known(type)
        current = plain.blank(builder, fd)
        if initial is not None:
            current.overlay(_stamped(plain.update(builder, fd, current, initial, meta), initial))
        else:
            annotate(current, meta)
        with self.lock:
            self.close()
            self._builder, self._current, self._opened = builder, current, True
            for served in self._served:
                served.opened()

    def close(self) -> None:
        """Take the value away. Clients are told what was posted, then disconnected; requests of those that come back wait."""
        with self.lock:
            if self._current is None:
                return
            for group in self._groups.values():
                for subscription in group.subscriptions:
                    subscription.seal()
            self._groups = {}
            self._current = None
            for served in self._served:
                served.closed()

    def post(
        self, value: Any, *, copy: bool = False, stamp: bool | None = None, **meta: Unpack[Metadata]
    ) -> None:
        """Change the value and tell the clients what changed.

        value: with a builder what its `wrap` takes; else a plain value for the field `value`; a mapping of dotted fields; a Value, whose
        changed fields count. Only what it sets is sent, also if it is equal to what was before.
        copy: of arrays; otherwise they are kept, and must not be changed afterwards.
        stamp: with the time of now unless a time is set; None: yes, but not for a Value.

        Raises EncodeError for what does not fit the type, LocalProtocolError when the PV is closed.
        """
        with self.lock:
            current = self.current()
            update = plain.update(self._builder, current.type, current, value, meta)
            if copy:
                update = update.copy()
            update = _stamped(update, value, stamp)
            if not update.changed:
                return
            current.overlay(update)
            thread = get_ident()
            for group in self._groups.values():
                group.post(update, thread)

    async def drain(self) -> None:
        """Wait until nothing is queued for any subscriber, so that none of them misses the next update; under asyncio.

        For sources that can wait, such as files: the slowest client sets the pace, and one that reads nothing stops it until it is dropped.
        """
        await asyncio.sleep(0)  # or a source that never has to wait would never let the loop have its turn
        loop, thread = asyncio.get_running_loop(), get_ident()
        drained = asyncio.Event()

        def tell() -> None:
            if get_ident() == thread:
                drained.set()
            else:
                loop.call_soon_threadsafe(drained.set)

        while self._when_drained(tell):
            await drained.wait()
            drained.clear()

    def wait_drained(self, timeout: float | None = None) -> bool:
        """The same for threads other than the server's; False after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        drained = threading.Event()
        while self._when_drained(drained.set):
            if not drained.wait(None if end is None else end - time.monotonic()):
                return False
            drained.clear()
        return True

    def _when_drained(self, callback: Callable[[], object]) -> bool:
        """Call it when nothing is queued; False where nothing is queued now."""
        with self.lock:
            if self._behind:
                self._waiting.append(callback)
                return True
        return False

    @property
    def is_open(self) -> bool:
        """It has a value."""
        return self._current is not None

    @property
    def type(self) -> FieldDesc | None:
        """The type; None while it is closed."""
        current = self._current
        return None if current is None else current.type

    @property
    def raw(self) -> Value:
        """The value as it is now: fields can be set in it, arrays, lists and anys are the PV's own: post() changed copies of them.

        LocalProtocolError when the PV is closed.
        """
        with self.lock:
            current = self.current()
            return shared(current)

    @property
    def value(self) -> Any:
        """`raw` as `normative.read` reads it: a number with its time and alarm, a Frame; other types as they are."""
        raw = self.raw
        try:
            return normative.read(raw)
        except NormativeError:
            return raw

    @property
    def channels(self) -> int:
        """How many channels clients have open."""
        return len(self._served)

    @property
    def subscriptions(self) -> int:
        """How many monitors are started."""
        with self.lock:
            return sum(len(group.subscriptions) for group in self._groups.values())

    def __repr__(self) -> str:
        type = self.type
        what = "closed" if type is None else type.format("short")
        return f"<PV {what}, {self.channels} channels>"

    # -- handlers

    def on_put(self, handler: _Handler, /) -> _Handler:
        """Decorator: called with a Put. Nothing is posted but what the handler posts: ``put.post()``."""
        self.put_handler = handler
        return handler

    def on_rpc(self, handler: _Handler, /) -> _Handler:
        """Decorator: called with a Call; returns the result: a Value, an AnyValue, None, or a plain value as PV.of takes it."""
        self.rpc_handler = handler
        return handler

    def on_process(self, handler: _Handler, /) -> _Handler:
        """Decorator: called with a Process."""
        self.process_handler = handler
        return handler

    def on_first(self, handler: _Handler, /) -> _Handler:
        """Decorator: called with the PV in the server's loop when the first channel is opened."""
        self._first = handler
        return handler

    def on_last(self, handler: _Handler, /) -> _Handler:
        """Decorator: called with the PV in the server's loop when the last channel is closed."""
        self._last = handler
        return handler

    # -- for the server

    def current(self) -> Value:
        """The value itself; under the lock."""
        if self._current is None:
            raise LocalProtocolError("the PV is closed")
        return self._current

    def laid_over(self, update: Value) -> Value:
        """What the value would be with an update, which is what is marked in it."""
        with self.lock:
            made = shared(self.current())
        made.unmark()
        made.overlay(update)
        return made

    @property
    def calls_only(self) -> bool:
        """It answers calls, was never opened, and nothing can be put into it."""
        if self._opened or self.writable or self.put_handler is not None:
            return False
        return self.rpc_handler is not None

    def check(self, peer: Peer, what: What, name: str) -> None:
        """Refused where the PV, or the access check, does not allow a client to do this."""
        if what == "write" and not self.writable and self.put_handler is None:
            raise Refused(f"{name} is read-only")
        if what == "process" and self.process_handler is None:
            raise Refused(f"{name} cannot be processed")
        if what == "call" and self.rpc_handler is None:
            raise Refused(f"{name} answers no calls (RPC)")
        if self.access is not None:
            action: Action = "write" if what == "process" else what
            allowed = self.access(peer, action)
            if isinstance(allowed, str):
                raise Refused(allowed)
            if not allowed:
                raise Refused(f"{peer.user or 'anonymous'} at {peer.host} may not {what} {name}")

    def join(self, group: Group) -> Group:
        """The group of those that get the same bytes, which may be that one; under the lock."""
        return self._groups.setdefault(group.key, group)

    def leave(self, group: Group) -> None:
        """Someone has left a group; under the lock."""
        if not group.subscriptions and self._groups.get(group.key) is group:
            del self._groups[group.key]

    def fell_behind(self, subscription: Subscription) -> None:
        """Updates are queued for it; under the lock."""
        self._behind.add(subscription)

    def caught_up(self, subscription: Subscription) -> None:
        """None are; under the lock."""
        self._behind.discard(subscription)
        if not self._behind and self._waiting:
            waiting, self._waiting = self._waiting, []
            for callback in waiting:
                callback()

    def attach(self, served: Served) -> None:
        """A channel was opened."""
        with self.lock:
            first = not self._served
            self._served[served] = None
        if first and self._first is not None:
            self._first(self)

    def detach(self, served: Served) -> None:
        """A channel was closed."""
        with self.lock:
            known = self._served.pop(served, self) is None
            last = known and not self._served
        if last and self._last is not None:
            self._last(self)


def _stamped(update: Value, given: Any, stamp: bool | None = None) -> Value:
    """With the time of now where that is wanted."""
    if stamp is None:
        stamp = not isinstance(given, Value)
    if not stamp or not plain.timeless(update):
        return update
    if update is given:
        update = Value(given.type)
        update.overlay(given)
    plain.set_time(update)
    return update

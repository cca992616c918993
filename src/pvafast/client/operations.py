"""Requests on channels: each an object that ends in a result or an error, and then calls back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, final

from .. import _backend, messages
from ..errors import Disconnected, OperationTimeout, PvaError, RemoteError
from ..messages import AnyBody, Status
from .putting import needs_current, to_put

if TYPE_CHECKING:
    from ..connection import ConnectionOperation
    from ..network.loop import Handle
    from .channel import Channel

AnyValue = _backend.value.AnyValue

# What a request is doing.
WAITING: Final = 0  # for its channel
OPENING: Final = 1  # for the answer to its INIT
ASKING: Final = 2  # for the answer to the request itself
ENDED: Final = 3


def remote_error(status: Status) -> RemoteError:
    """A status that is not OK as the error to raise."""
    return RemoteError(status.type.name, status.message, status.stack)


class Request:
    """Something that ends: `done` is called once, with this, then; `error` is None, or what to raise, `result` what was asked for."""

    __slots__ = ("done", "error", "result")

    def __init__(self) -> None:
        self.done: Callable[[Any], object] = _nobody
        self.result: Any = None
        self.error: Exception | None = None

    def start(self, timeout: float | None) -> None:
        """Set out. timeout: after how many seconds to give up; None: never."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Nobody waits for it any more: `done` is not called."""
        raise NotImplementedError

    def late(self, timeout: float) -> OperationTimeout:
        """The error that says what was waited for."""
        raise NotImplementedError


class Operation(Request):
    """One request on a channel: waits for the channel, opens an operation of the connection, asks, takes the answer.

    An operation that the channel has kept open from an earlier request with the same text (`key`, None: do not keep) is
    used again: one round trip instead of two. One that may safely be asked twice (`repeatable`) waits for the channel
    again when the connection is lost.
    """

    __slots__ = (
        "channel", "handle", "key", "phase", "request", "timeout", "timer"
    )  # fmt: skip

    name: ClassVar[str]
    command: ClassVar[int]
    init: ClassVar[type[messages.InitRequest]]
    repeatable: ClassVar[bool] = False

    def __init__(self, channel: Channel, request: AnyBody, key: str | None) -> None:
        super().__init__()
        self.channel = channel
        self.request = request
        self.key = key
        self.phase = WAITING
        self.handle: ConnectionOperation | None = None
        self.timer: Handle | None = None
        self.timeout = 0.0

    def start(self, timeout: float | None) -> None:
        """Set out. timeout: after how many seconds to give up; None: never."""
        channel = self.channel
        if timeout is not None:
            self.timeout = timeout
            self.timer = channel.engine.loop.call_later(timeout, self.expire)
        channel.start(self)

    def begin(self) -> None:
        """The channel is open: open the operation, or take one that is open."""
        channel = self.channel
        handle = channel.take(self.command, self.key)
        if handle is None:
            link = channel.link
            assert link is not None
            self.phase = OPENING
            ioid = link.connection.new_ioid()
            link.stream.send(self.init(sid=channel.sid, ioid=ioid, request=self.request))
            self.handle = handle = link.connection.operations[ioid]
            handle.owner = self
        else:
            self.handle = handle
            handle.owner = self
            self._execute()

    def replied(self, message: Any) -> None:
        """The server has answered."""
        if self.phase == ASKING:
            if message.status.ok:
                self.answered(message)
            else:
                self.fail(remote_error(message.status))
        elif message.status.ok:
            self._execute()
        else:
            self.handle = None  # it is gone
            self.fail(remote_error(message.status))

    def _execute(self) -> None:
        self.phase = ASKING
        try:
            self.execute()
        except Exception as error:  # what cannot be sent, or out of a function that the program gave
            self.fail(error)

    def execute(self) -> None:
        """Send the request itself."""
        raise NotImplementedError

    def answered(self, message: Any) -> None:
        """Take the answer."""
        self.finish(getattr(message, "value", None))

    def send(self, kind: Callable[..., messages.Request], **fields: Any) -> None:
        """Send a request of this operation."""
        handle, link = self.handle, self.channel.link
        assert handle is not None
        assert link is not None
        link.stream.send(kind(sid=handle.sid, ioid=handle.ioid, **fields))

    def finish(self, result: Any) -> None:
        """It has ended well."""
        self.result = result
        handle, self.handle = self.handle, None
        if handle is not None:
            handle.owner = None
            self.channel.keep(self.command, self.key, handle)
        self._end()

    def fail(self, error: Exception) -> None:
        """It has ended in an error."""
        if self.phase == ENDED:
            return
        self.error = error
        self._release()
        self._end()

    def expire(self) -> None:
        """The time is over."""
        self.fail(self.late(self.timeout))

    def late(self, timeout: float) -> OperationTimeout:
        """The error that says what was waited for."""
        channel = self.channel
        state = "waiting" if self.phase in (OPENING, ASKING) else channel.waits_for
        return OperationTimeout(channel.name, self.name, timeout, state, channel.server_name, channel.reason)

    def cancel(self) -> None:
        """Nobody waits for it any more: tell the server so; `done` is not called."""
        if self.phase != ENDED:
            self.done = _nobody
            self._release()
            self._end()

    def lost(self, reason: str) -> None:
        """The channel, or its connection, is gone."""
        self.handle = None
        if self.phase == ASKING and not self.repeatable:
            self.fail(Disconnected(self.channel.name, reason))
        elif self.phase != ENDED:
            self.phase = WAITING
            self.channel.wait(self)

    def _release(self) -> None:
        """Let the server forget the operation."""
        handle, self.handle = self.handle, None
        if handle is not None:
            handle.owner = None
            self.channel.destroy(handle)

    def _end(self) -> None:
        self.phase = ENDED
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.channel.ended(self)
        self.done(self)


def _nobody(operation: Request) -> None:
    """Nobody waits."""


@final
class Get(Operation):
    """The value. The server may send only what changed since the last answer: the connection lays it over that."""

    __slots__ = ("_before",)

    name = "get"
    command = messages.Command.GET
    init = messages.GetInit
    repeatable = True

    def execute(self) -> None:
        """Ask for the value."""
        handle, link = self.handle, self.channel.link
        assert handle is not None
        assert link is not None
        self._before = handle.base
        link.stream.write(link.connection.get_again(handle.ioid))

    def answered(self, message: Any) -> None:
        """Take the value. Whoever got it asked for all of it: what came with earlier answers is marked, too."""
        value, before = message.value, self._before
        if before is not None and not before.changed <= value.changed:
            whole = before.copy()
            whole.overlay(value)
            assert self.handle is not None
            self.handle.value = whole
            value = whole.copy()  # that the program may change
        self.finish(value)


class _WithValue(Operation):
    """What sends a value of the type that the INIT told. value: anything that `to_put` takes. read: read first."""

    __slots__ = ("read", "value")

    def __init__(
        self,
        channel: Channel,
        request: AnyBody,
        key: str | None,
        value: Any,
        read: bool | None = None,
    ) -> None:
        super().__init__(channel, request, key)
        self.value = value
        self.read = read


@final
class Put(_WithValue):
    """Write a value."""

    __slots__ = ()

    name = "put"
    command = messages.Command.PUT
    init = messages.PutInit

    def execute(self) -> None:
        """Write, or read what is there first where that is needed."""
        assert self.handle is not None
        assert self.handle.type is not None
        wanted = needs_current(self.handle.type, self.value) if self.read is None else self.read
        if wanted:
            self.send(messages.PutGetBack)
        else:
            self.send(messages.Put, value=to_put(self.handle.type, self.value, None))

    def answered(self, message: Any) -> None:
        """Written; or here is what is there."""
        if not isinstance(message, messages.PutGetBackReply):
            self.finish(None)
            return
        assert self.handle is not None
        assert self.handle.type is not None
        try:
            value = to_put(self.handle.type, self.value, message.value)
            self.send(messages.Put, value=value)
        except Exception as error:  # also out of a function that the program gave
            self.fail(error)


@final
class PutGet(_WithValue):
    """Write a value, process, and read."""

    __slots__ = ()

    name = "put_get"
    command = messages.Command.PUT_GET
    init = messages.PutGetInit

    def execute(self) -> None:
        """Write, or read what was put last first where that is needed."""
        assert self.handle is not None
        assert self.handle.put_type is not None
        wanted = needs_current(self.handle.put_type, self.value) if self.read is None else self.read
        if wanted:
            self.send(messages.PutGetGetPut)
        else:
            self.send(messages.PutGet, value=to_put(self.handle.put_type, self.value, None))

    def answered(self, message: Any) -> None:
        """Done; or here is what was put last."""
        if not isinstance(message, messages.PutGetGetPutReply):
            self.finish(message.value)
            return
        assert self.handle is not None
        assert self.handle.put_type is not None
        try:
            value = to_put(self.handle.put_type, self.value, message.value)
            self.send(messages.PutGet, value=value)
        except Exception as error:
            self.fail(error)


@final
class Rpc(_WithValue):
    """Call. value: the argument."""

    __slots__ = ()

    name = "rpc"
    command = messages.Command.RPC
    init = messages.RpcInit

    def execute(self) -> None:
        """Call."""
        self.send(messages.Rpc, value=self.value)


@final
class Process(Operation):
    """Process the record."""

    __slots__ = ()

    name = "process"
    command = messages.Command.PROCESS
    init = messages.ProcessInit

    def execute(self) -> None:
        """Process."""
        self.send(messages.Process)


@final
class Array(Operation):
    """One of the requests on a part of an array: a message of the class `kind` with these fields; `values`: to write."""

    __slots__ = ("fields", "kind", "label", "values")

    command = messages.Command.ARRAY
    init = messages.ArrayInit

    def __init__(
        self,
        channel: Channel,
        request: AnyBody,
        key: str | None,
        label: str,
        kind: Callable[..., messages.Request],
        fields: dict[str, int],
        values: Any = None,
    ) -> None:
        super().__init__(channel, request, key)
        self.label = label
        self.kind = kind
        self.fields = fields
        self.values = values

    @property
    def name(self) -> str:  # type: ignore[override]
        """What it is called in errors."""
        return self.label

    @property
    def repeatable(self) -> bool:  # type: ignore[override]
        """Reading may be asked twice."""
        return self.kind in (messages.ArrayGet, messages.ArrayGetLength)

    def execute(self) -> None:
        """Ask."""
        assert self.handle is not None
        assert self.handle.type is not None
        more = {} if self.values is None else {"value": AnyValue(self.handle.type, self.values)}
        self.send(self.kind, **self.fields, **more)

    def answered(self, message: Any) -> None:
        """Take the elements, or the length."""
        if isinstance(message, messages.ArrayGetLengthReply):
            self.finish(message.length)
        else:
            value = getattr(message, "value", None)
            self.finish(None if value is None else value.value)


@final
class Info(Operation):
    """The type of a field, "" for the whole: GET_FIELD has no INIT."""

    __slots__ = ("field",)

    name = "info"
    command = messages.Command.GET_FIELD
    repeatable = True

    def __init__(self, channel: Channel, field: str) -> None:
        super().__init__(channel, None, None)
        self.field = field

    def begin(self) -> None:
        """Ask."""
        link = self.channel.link
        assert link is not None
        self.phase = ASKING
        ioid = link.connection.new_ioid()
        link.stream.send(messages.GetField(sid=self.channel.sid, ioid=ioid, field=self.field))
        self.handle = link.connection.operations[ioid]
        self.handle.owner = self

    def answered(self, message: Any) -> None:
        """Take the type."""
        self.handle = None  # it is gone with its answer
        if message.type is None:
            self.fail(PvaError(f"{self.channel.name!r} has no type"))
        else:
            self.finish(message.type)


@final
class Connect(Operation):
    """Wait until the channel is open."""

    __slots__ = ()

    name = "connect"
    repeatable = True

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel, None, None)

    def begin(self) -> None:
        """It is open."""
        self.finish(None)

"""Session: one connected client."""

from __future__ import annotations

import inspect
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, final

from .. import messages
from .._backend import bitset, introspection, value
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
from ..connection.shared import ANSWERS, Channel
from ..errors import EncodeError, LocalProtocolError, ProtocolError, PvaError, RemoteError
from ..messages import Command, Status, StatusType
from ..network.stream import Stream
from ..request import Request, Selection, select
from . import arrays, plain
from .discovery import answer
from .monitors import QUEUE_DEFAULT, QUEUE_MAX, Subscription
from .requests import Call, Peer, Process, Put, Refused, status_of

if TYPE_CHECKING:
    from .pv import PV
    from .server import Server
    from .tasks import Task

_log = logging.getLogger("pvafast.server")
BitSet = bitset.BitSet
FieldDesc = introspection.FieldDesc
Value = value.Value
# Updates are given to the stream while less than this waits there: enough that the socket never runs dry.
_ROOM: Final = 1 << 18
# A client can send a million requests and read no answer: with so many bytes unread, its requests wait.
_UNREAD: Final = 1 << 20
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
        self.operations: dict[int, _Operation] = {}
        self.waiting: list[tuple[_Operation, messages.Request]] = []

    def opened(self) -> None:
        """The PV has got a value; from any thread."""
        self.session.soon(self.session.resume, self)

    def closed(self) -> None:
        """The PV has lost its value, or was removed; from any thread."""
        self.session.soon(self.session.disconnect, self)


class _Operation:
    """What the server keeps of an operation. type: that of the PV at the INIT; None before, and for RPC and PROCESS."""

    __slots__ = (
        "array",
        "of",
        "put_selection",
        "request",
        "selection",
        "served",
        "subscription",
        "task",
        "type",
    )

    def __init__(self, of: ConnectionOperation, served: Served) -> None:
        self.of = of
        self.served = served
        self.type: FieldDesc | None = None
        self.request = Request({}, {})
        self.selection: Selection | None = None
        self.put_selection: Selection | None = None
        self.subscription: Subscription | None = None
        self.array: tuple[str, ...] = ()
        self.task: Task | None = None


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
        self.connection = ServerConnection(limits=server.limits, byteorder=server.byteorder)
        self._served: dict[int, Served] = {}
        self._operations: dict[int, _Operation] = {}
        # Subscriptions that wait for room in the stream, in turn.
        self._blocked: dict[Subscription, None] = {}
        self._lock = Lock()
        self.queued = 0
        self._running = 0
        self._opening: set[Task] = set()
        self._holding = False
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
        for event in events:
            if type(event) is OperationRequest:
                self._requested(event.operation, event.message)
            elif type(event) is ChannelRequested:
                self._channel_requested(event)
            elif type(event) is ChannelClosed:
                for served in [self._served.pop(event.channel.sid or 0, None)]:
                    if served is not None:
                        self._end_channel(served)
            elif type(event) is Credentials:
                self._credentials(event)
            elif type(event) is Received and type(event.message) is messages.Search:
                self._search(event.message)
            if self.stream.is_closed:
                return
            if self._busy():
                self._holding = True
                self.stream.pause()
                return

    def _busy(self) -> bool:
        return self.stream.unsent > _UNREAD

    def _go_on(self) -> None:
        """Take the requests that waited, if it is time."""
        if not self._holding or self.stream.is_closed or self._busy():
            return
        self._holding = False
        self.stream.resume()
        try:
            self._received(self.connection.events())
        except ProtocolError as error:
            self.stream.close(error)
        except Exception as error:
            _log.exception("error while serving %s", self.peer)
            self.stream.close(error)
        self.stream.write(())

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
            if now - stream.last_received > timeout:
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

    def _send(self, message: messages.PvaMessage) -> None:
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
        self._send(messages.ConnectionValidated(status=status))

    def _search(self, message: messages.Search) -> None:
        server = self._server
        found = answer(message, guid=server.guid, tcp_port=self.stream.local[1], has=server.has)
        if found is not None:
            self._send(found)

    # -- channels

    def _channel_requested(self, event: ChannelRequested) -> None:
        self._find(event.cid, event.name, self._server.sources(event.name))

    def _find(self, cid: int, name: str, sources: Iterator[Callable[[Peer], Any]]) -> None:
        """Ask one after the other for the PV; any of them may take its time."""
        for source in sources:
            try:
                found = source(self.peer)
            except Exception as error:
                self._refuse_channel(cid, name, error)
                return
            if inspect.isawaitable(found):
                if self._running >= _RUNNING:
                    self._refuse_channel(cid, name, _too_many(found))
                    return
                self._await_channel(cid, name, sources, found)
                return
            if found is not None:
                self._open_channel(cid, name, found)
                return
        self._send(
            messages.CreateChannelReply(cid=cid, status=Status(StatusType.ERROR, f"no PV is named {name!r}"))
        )

    def _await_channel(
        self, cid: int, name: str, sources: Iterator[Callable[[Peer], Any]], found: Any
    ) -> None:
        def done(result: Any, error: BaseException | None) -> None:
            if task in self._opening:
                self._opening.discard(task)
                self._running -= 1
                if error is not None:
                    self._refuse_channel(cid, name, error)
                elif result is not None:
                    self._open_channel(cid, name, result)
                else:
                    self._find(cid, name, sources)

        task = self._server.tasks.run(found, done)
        self._opening.add(task)
        self._running += 1

    def _refuse_channel(self, cid: int, name: str, error: BaseException) -> None:
        if not isinstance(error, RemoteError):
            _log.error("error while %r was opened for %s", name, self.peer, exc_info=error)
        self._send(messages.CreateChannelReply(cid=cid, status=status_of(error)))

    def _open_channel(self, cid: int, name: str, pv: PV) -> None:
        if self.stream.is_closed:
            return
        sid = self.connection.new_sid()
        self._send(messages.CreateChannelReply(cid=cid, sid=sid))
        served = Served(self, self.connection.channels[sid], pv)
        self._served[sid] = served
        self._server.quietly(pv.attach, served)

    def _end_channel(self, served: Served) -> None:
        """The channel is closed already."""
        for ioid in list(served.operations):
            self._end(ioid)
        served.waiting.clear()
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
        self._send(messages.DestroyChannel(sid=sid, cid=cid))
        self._end_channel(served)

    def disconnect_name(self, name: str) -> None:
        """Close the client's channels of a name."""
        for served in list(self._served.values()):
            if served.name == name:
                self.disconnect(served)

    def resume(self, served: Served) -> None:
        """Do what had to wait for the PV to open."""
        waiting, served.waiting = served.waiting, []
        for operation, message in waiting:
            if self._operations.get(message.ioid) is operation:
                self._begin(operation, message)

    # -- operations

    def _requested(self, of: ConnectionOperation, message: messages.Request) -> None:
        ioid = message.ioid
        if isinstance(message, messages.InitRequest | messages.GetField):
            served = self._served[of.channel.sid or 0]
            operation = self._operations[ioid] = served.operations[ioid] = _Operation(of, served)
            self._begin(operation, message)
            return
        known = self._operations.get(ioid)
        if known is None or known.of is not of:
            return
        if message.command == Command.MONITOR:
            self._steer(known)
        elif isinstance(message, messages.CancelRequest):
            self._cancel(known)
        elif not isinstance(message, messages.DestroyRequest):
            try:
                _EXECUTE[type(message)](self, known, message)
            except Exception as error:
                self._fail(known, message, error)
        if ioid not in self.connection.operations:
            self._end(ioid)

    def _begin(self, operation: _Operation, message: messages.Request) -> None:
        """An INIT or a GET_FIELD."""
        served = operation.served
        try:
            if isinstance(message, messages.InitRequest):
                operation.request = Request.read(message.request)
            valueless = isinstance(message, messages.RpcInit | messages.ProcessInit)
            if served.pv.calls_only:
                if not valueless and not isinstance(message, messages.GetField):
                    raise Refused(f"{served.name} has no value, it answers calls (RPC) only")
            elif not valueless and not served.pv.is_open:
                served.waiting.append((operation, message))
                return
            _INIT[type(message)](self, operation, message)
        except PvaError as error:  # of the pvRequest, or a refusal
            self._reply(operation, message, status=status_of(error))
        except Exception as error:
            self._fail(operation, message, error)
        if operation.of.ioid not in self.connection.operations:
            self._end(operation.of.ioid)

    def _end(self, ioid: int) -> None:
        """The connection has forgotten the operation."""
        operation = self._operations.pop(ioid, None)
        if operation is not None:
            operation.served.operations.pop(ioid, None)
            self._cancel(operation)

    def _cancel(self, operation: _Operation) -> None:
        if operation.task is not None:
            operation.task.cancel()
            operation.task = None
            self._running -= 1
        if operation.subscription is not None:
            self._blocked.pop(operation.subscription, None)
            with operation.served.pv.lock:
                operation.subscription.stop()

    def _reply(self, operation: _Operation, message: messages.Request, **fields: Any) -> None:
        """Answer a request, if it still waits for it."""
        of = operation.of
        if self.stream.is_closed or self.connection.operations.get(of.ioid) is not of or not of.busy:
            return
        answer: Any = ANSWERS[type(message)]
        if isinstance(message, messages.SubRequest):
            fields["bits"] = message.bits
            fields["destroy"] = message.destroy and not isinstance(message, messages.InitRequest)
        self._send(answer(ioid=of.ioid, **fields))

    def _fail(self, operation: _Operation, message: messages.Request, error: BaseException) -> None:
        """Answer with an error, and log what is a fault of the program's."""
        if not isinstance(error, RemoteError):
            _log.error(
                "error in %s of %r by %s",
                type(message).__name__,
                operation.served.name,
                self.peer,
                exc_info=error,
            )
        self._reply(operation, message, status=status_of(error))

    def _run(
        self,
        operation: _Operation,
        message: messages.Request,
        handler: Callable[[Any], Any],
        argument: Any,
        done: Callable[[Any], object],
    ) -> None:
        """Call a handler, which may be a coroutine function; `done` with what it returns answers."""

        def finished(result: Any, error: BaseException | None) -> None:
            if operation.task is not task:
                return
            operation.task = None
            self._running -= 1
            if error is None:
                try:
                    done(result)
                except Exception as failure:
                    error = failure
            if error is not None:
                self._fail(operation, message, error)
            if operation.of.ioid not in self.connection.operations:
                self._end(operation.of.ioid)

        result = handler(argument)
        if inspect.isawaitable(result):
            if self._running >= _RUNNING:
                raise _too_many(result)
            task = operation.task = self._server.tasks.run(result, finished)
            self._running += 1
        else:
            done(result)

    def _check(self, operation: _Operation, action: Any) -> None:
        served = operation.served
        served.pv.check(self.peer, action, served.name)

    def _select(self, operation: _Operation, message: messages.InitRequest) -> FieldDesc:
        """What the client wants to see of the value; its type."""
        fd = operation.served.pv.type
        if fd is None:
            raise Refused(f"{operation.served.name} is closed")
        operation.selection = select(fd, operation.request)
        operation.type = fd
        return fd

    def _now(self, operation: _Operation, selection: Selection | None) -> Value:
        """The value as the client wants to see it; an error if the PV has got another type since."""
        assert selection is not None
        pv = operation.served.pv
        with pv.lock:
            if not pv.is_open or pv.type is not operation.type:
                raise Refused(f"{operation.served.name} is closed")
            return pv.snapshot(selection)

    # GET, and the type

    def _init_get(self, operation: _Operation, message: messages.InitRequest) -> None:
        self._check(operation, "read")
        self._reply(operation, message, type=self._select(operation, message))

    def _get(self, operation: _Operation, message: messages.Request) -> None:
        pv = operation.served.pv

        def done(_: object = None) -> None:
            self._reply(operation, message, value=self._now(operation, operation.selection))

        if operation.request.process and pv.process_handler is not None:
            self._run(operation, message, pv.process_handler, self._asked(Process, operation), done)
        else:
            done()

    def _get_field(self, operation: _Operation, message: messages.GetField) -> None:
        # The type is no secret: clients of pvAccessCPP ask for it before they read, and crash where it is refused.
        pv = operation.served.pv
        found = FieldDesc.structure("", {}) if pv.calls_only else pv.type
        if found is None:
            raise Refused(f"{operation.served.name} is closed")
        if message.field:
            if message.field not in found:
                raise Refused(f"{operation.served.name} has no field {message.field!r}")
            found = found[message.field]
        self._reply(operation, message, type=found)

    # PUT, PUT_GET

    def _asked(self, cls: Any, operation: _Operation, **more: Any) -> Any:
        served = operation.served
        return cls(pv=served.pv, name=served.name, peer=self.peer, request=operation.request, **more)

    def _init_put(self, operation: _Operation, message: messages.InitRequest) -> None:
        self._check(operation, "write")
        self._reply(operation, message, type=self._select(operation, message))

    def _write(
        self, operation: _Operation, message: messages.Request, update: Value, done: Callable[[Any], object]
    ) -> None:
        """Put an update by the handler, or post it."""
        pv = operation.served.pv
        self._check(operation, "write")
        with pv.lock:
            if pv.type is not operation.type:
                raise Refused(f"{operation.served.name} is closed")
            put = self._asked(Put, operation, raw=pv.laid_over(update))
        if pv.put_handler is not None:
            self._run(operation, message, pv.put_handler, put, done)
        else:
            put.post()
            done(None)

    def _put(self, operation: _Operation, message: messages.Put) -> None:
        assert message.value is not None
        self._write(operation, message, message.value, lambda _: self._reply(operation, message))

    def _read_back(self, operation: _Operation, message: messages.Request) -> None:
        operation.served.pv.check_access(self.peer, "read", operation.served.name)
        self._reply(operation, message, value=self._now(operation, operation.selection))

    def _init_put_get(self, operation: _Operation, message: messages.InitRequest) -> None:
        self._check(operation, "write")
        self._check(operation, "read")
        fd = self._select(operation, message)
        operation.selection = select(fd, operation.request, "getField")
        operation.put_selection = select(fd, operation.request, "putField")
        self._reply(operation, message, put_type=fd, get_type=fd)

    def _put_get(self, operation: _Operation, message: messages.PutGet) -> None:
        assert message.value is not None

        def done(_: object) -> None:
            self._reply(operation, message, value=self._now(operation, operation.selection))

        self._write(operation, message, message.value, done)

    def _get_put(self, operation: _Operation, message: messages.Request) -> None:
        self._reply(operation, message, value=self._now(operation, operation.put_selection))

    # MONITOR

    def _init_monitor(self, operation: _Operation, message: messages.MonitorInit) -> None:
        self._check(operation, "read")
        pv = operation.served.pv
        with pv.lock:
            fd = self._select(operation, message)
            assert operation.selection is not None
            group = pv.group(operation.selection, self.connection.byteorder)
            size = min(operation.request.queue_size or QUEUE_DEFAULT, QUEUE_MAX)
            operation.subscription = Subscription(self, message.ioid, group, size)
        self._reply(operation, message, type=fd)

    def _steer(self, operation: _Operation) -> None:
        """START, STOP, ACK: the connection has taken note of it."""
        subscription, pv = operation.subscription, operation.served.pv
        if subscription is None:
            return
        with pv.lock:
            if pv.type is not operation.type:
                return
            if not operation.of.started:
                subscription.stop()
            elif not subscription.started:
                subscription.start()
        if operation.of.started:
            subscription.flush()

    @property
    def blocked(self) -> bool:
        """Updates wait for room in the stream."""
        return bool(self._blocked)

    def ready(self, ioid: int) -> bool:
        """An update may be sent now. Also a hint for other threads."""
        return self.stream.unsent < _ROOM and self.connection.may_send(ioid)

    def block(self, subscription: Subscription) -> None:
        """To be flushed when there is room again."""
        if self.stream.unsent >= _ROOM:
            self._blocked[subscription] = None

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

    # PROCESS, RPC, ARRAY

    def _init_process(self, operation: _Operation, message: messages.InitRequest) -> None:
        pv, name = operation.served.pv, operation.served.name
        if pv.process_handler is None:
            raise Refused(f"{name} cannot be processed")
        pv.check_access(self.peer, "write", name)
        self._reply(operation, message)

    def _process(self, operation: _Operation, message: messages.Request) -> None:
        handler = operation.served.pv.process_handler
        assert handler is not None
        argument = self._asked(Process, operation)
        self._run(operation, message, handler, argument, lambda _: self._reply(operation, message))

    def _init_rpc(self, operation: _Operation, message: messages.InitRequest) -> None:
        self._may_call(operation)
        self._reply(operation, message)

    def _may_call(self, operation: _Operation) -> Callable[[Call], Any]:
        pv, name = operation.served.pv, operation.served.name
        if pv.rpc_handler is None:
            raise Refused(f"{name} answers no calls (RPC)")
        pv.check_access(self.peer, "call", name)
        return pv.rpc_handler

    def _rpc(self, operation: _Operation, message: messages.Rpc) -> None:
        argument = self._asked(Call, operation, raw=message.value)

        def done(result: Any) -> None:
            self._reply(operation, message, value=plain.body(result))

        self._run(operation, message, self._may_call(operation), argument, done)

    def _init_array(self, operation: _Operation, message: messages.InitRequest) -> None:
        self._check(operation, "read")
        self._select(operation, message)
        assert operation.selection is not None
        operation.array = arrays.field_of(operation.selection)
        self._reply(operation, message, type=operation.selection.full[operation.array])

    def _array(self, operation: _Operation) -> Any:
        return self._now(operation, operation.selection)[operation.array]

    def _array_get(self, operation: _Operation, message: messages.ArrayGet) -> None:
        assert operation.type is not None
        elements = arrays.part(self._array(operation), message.offset, message.count, message.stride)
        found = value.AnyValue(operation.type[operation.array], elements)
        self._reply(operation, message, value=found)

    def _array_length(self, operation: _Operation, message: messages.Request) -> None:
        self._reply(operation, message, length=len(self._array(operation)))

    def _array_put(self, operation: _Operation, message: messages.ArrayPut) -> None:
        assert message.value is not None
        most = self._server.limits.message
        changed = arrays.laid_over(
            self._array(operation), message.value.value, message.offset, message.stride, most
        )
        self._write_array(operation, message, changed)

    def _array_set_length(self, operation: _Operation, message: messages.ArraySetLength) -> None:
        changed = arrays.resized(self._array(operation), message.length, self._server.limits.message)
        self._write_array(operation, message, changed)

    def _write_array(self, operation: _Operation, message: messages.Request, array: Any) -> None:
        assert operation.type is not None
        update = Value(operation.type)
        try:
            update[operation.array] = array
        except EncodeError as error:  # longer than the type allows
            raise Refused(str(error)) from error
        self._write(operation, message, update, lambda _: self._reply(operation, message))


def _too_many(coroutine: Any) -> Refused:
    """The error for one more handler; it is not run."""
    if inspect.iscoroutine(coroutine):
        coroutine.close()
    return Refused(f"{_RUNNING} requests of this client are being worked on")


_INIT: Final[dict[type, Callable[[Session, _Operation, Any], None]]] = {
    messages.GetInit: Session._init_get,
    messages.PutInit: Session._init_put,
    messages.PutGetInit: Session._init_put_get,
    messages.MonitorInit: Session._init_monitor,
    messages.ProcessInit: Session._init_process,
    messages.RpcInit: Session._init_rpc,
    messages.ArrayInit: Session._init_array,
    messages.GetField: Session._get_field,
}
_EXECUTE: Final[dict[type, Callable[[Session, _Operation, Any], None]]] = {
    messages.Get: Session._get,
    messages.Put: Session._put,
    messages.PutGetBack: Session._read_back,
    messages.PutGet: Session._put_get,
    messages.PutGetGetGet: Session._read_back,
    messages.PutGetGetPut: Session._get_put,
    messages.Process: Session._process,
    messages.Rpc: Session._rpc,
    messages.ArrayGet: Session._array_get,
    messages.ArrayPut: Session._array_put,
    messages.ArraySetLength: Session._array_set_length,
    messages.ArrayGetLength: Session._array_length,
}

"""What a server does with the requests of one operation of a client."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from .. import messages
from .._backend import introspection, value
from ..connection import ConnectionOperation
from ..connection.shared import ANSWERS
from ..errors import EncodeError, PvaError, RemoteError
from ..messages import Command
from ..request import Request, Selection, select
from . import arrays, plain
from .monitors import QUEUE_DEFAULT, QUEUE_MAX, Group, Subscription
from .pv import What
from .requests import Call, Process, Put, Refused, status_of

if TYPE_CHECKING:
    from .session import Served
    from .tasks import Task

_log = logging.getLogger("pvafast.server")
FieldDesc = introspection.FieldDesc
Value = value.Value
AnyValue = value.AnyValue
_Argument = TypeVar("_Argument", Put, Call, Process)
# Those that need no value of the PV.
_VALUELESS: Final = (messages.RpcInit, messages.ProcessInit)


@final
class Operation:
    """An operation of a client, from its INIT to its end; a GET_FIELD is one, too.

    of: what the connection knows of it. served: its channel. type: that of the PV at the INIT; None before, and for RPC
    and PROCESS.
    """

    __slots__ = (
        "_array", "_put_selection", "_request", "_selection", "_task", "of", "pv", "served", "session", "subscription",
        "type",
    )  # fmt: skip

    def __init__(self, of: ConnectionOperation, served: Served) -> None:
        self.of = of
        self.served = served
        self.session = served.session
        self.pv = served.pv
        self.type: FieldDesc | None = None
        self.subscription: Subscription | None = None
        self._request = Request({}, {})
        self._selection: Selection | None = None
        self._put_selection: Selection | None = None
        self._array: tuple[str, ...] = ()
        self._task: Task | None = None

    # -- requests

    def begin(self, message: messages.Request) -> None:
        """An INIT or a GET_FIELD; it waits where the PV has no value yet."""
        name, pv = self.served.name, self.pv
        try:
            if isinstance(message, messages.InitRequest):
                self._request = Request.read(message.request)
            if pv.calls_only:
                if not isinstance(message, (*_VALUELESS, messages.GetField)):
                    raise Refused(f"{name} has no value, it answers calls (RPC) only")
            elif not isinstance(message, _VALUELESS) and not pv.is_open:
                self.served.waiting[message.ioid] = self, message
                return
            _BEGIN[type(message)](self, message)
        except PvaError as error:  # of the pvRequest, or a refusal
            self._reply(message, status=status_of(error))
        except Exception as error:
            self._fail(message, error)
        self.end_if_over()

    def request(self, message: messages.Request) -> None:
        """Any later request; the connection has taken note of it."""
        if message.command == Command.MONITOR:
            self._steer()
        elif isinstance(message, messages.CancelRequest):
            self.cancel()
        elif not isinstance(message, messages.DestroyRequest):
            try:
                _EXECUTE[type(message)](self, message)
            except Exception as error:
                self._fail(message, error)
        self.end_if_over()

    def end_if_over(self) -> None:
        """The session forgets what the connection has forgotten."""
        if self.session.connection.operations.get(self.of.ioid) is not self.of:
            self.session.end(self)

    def cancel(self) -> None:
        """Stop whatever it does."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self.session.running -= 1
        if self.subscription is not None:
            self.session.unblock(self.subscription)
            with self.pv.lock:
                self.subscription.stop()

    def _reply(self, message: messages.Request, **fields: Any) -> None:
        """Answer a request, if it still waits for it."""
        of = self.of
        if self.session.connection.operations.get(of.ioid) is not of or not of.busy:
            return
        answer: Any = ANSWERS[type(message)]
        if isinstance(message, messages.SubRequest):
            fields["bits"] = message.bits
            fields["destroy"] = message.destroy and not isinstance(message, messages.InitRequest)
        self.session.send(answer(ioid=of.ioid, **fields))

    def _fail(self, message: messages.Request, error: BaseException) -> None:
        """Answer with an error, and log what is a fault of the program's."""
        if not isinstance(error, RemoteError):
            what, name, peer = type(message).__name__, self.served.name, self.session.peer
            _log.error("error in %s of %r by %s", what, name, peer, exc_info=error)
        self._reply(message, status=status_of(error))

    def _run(
        self,
        message: messages.Request,
        handler: Callable[[_Argument], Any],
        argument: _Argument,
        done: Callable[[Any], object],
    ) -> None:
        """Call a handler, which may be a coroutine function; `done` with what it returns answers."""

        def finished(result: Any, error: BaseException | None) -> None:
            if self._task is not task:
                return
            self._task = None
            self.session.running -= 1
            if error is None:
                try:
                    done(result)
                except Exception as failure:
                    error = failure
            if error is not None:
                self._fail(message, error)
            self.end_if_over()

        result = handler(argument)
        if inspect.isawaitable(result):
            task: Task = self.session.run(result, finished)
            self._task = task
        else:
            done(result)

    def _asked(self, cls: type[_Argument], **more: Any) -> _Argument:
        return cls(pv=self.pv, name=self.served.name, peer=self.session.peer, request=self._request, **more)

    def _check(self, what: What) -> None:
        self.pv.check(self.session.peer, what, self.served.name)

    def _select(self) -> FieldDesc:
        """What the client wants to see of the value; its type."""
        fd = self.pv.type
        if fd is None:
            raise self._closed()
        self._selection = select(fd, self._request)
        self.type = fd
        return fd

    def _closed(self) -> Refused:
        return Refused(f"{self.served.name} is closed")

    def _now(self, selection: Selection | None) -> Value:
        """The value as the client wants to see it; Refused if the PV has got another type since."""
        assert selection is not None
        with self.pv.lock:
            if self.pv.type is not self.type:
                raise self._closed()
            return selection.whole(self.pv.current())

    # -- GET, and the type

    def _init_get(self, message: messages.InitRequest) -> None:
        self._check("read")
        self._reply(message, type=self._select())

    def _get(self, message: messages.Request) -> None:
        def done(_: object = None) -> None:
            self._reply(message, value=self._now(self._selection))

        handler = self.pv.process_handler
        if self._request.process and handler is not None:
            self._check("process")
            self._run(message, handler, self._asked(Process), done)
        else:
            done()

    def _get_field(self, message: messages.GetField) -> None:
        # The type is no secret: clients of pvAccessCPP ask for it before they read, and crash where it is refused.
        found = FieldDesc.structure("") if self.pv.calls_only else self.pv.type
        if found is None:
            raise self._closed()
        if message.field:
            if message.field not in found:
                raise Refused(f"{self.served.name} has no field {message.field!r}")
            found = found[message.field]
        self._reply(message, type=found)

    # -- PUT, PUT_GET

    def _init_put(self, message: messages.InitRequest) -> None:
        self._check("write")
        self._reply(message, type=self._select())

    def _write(self, message: messages.Request, update: Value, done: Callable[[Any], object]) -> None:
        """Put an update by the handler, or post it."""
        self._check("write")
        with self.pv.lock:
            if self.pv.type is not self.type:
                raise self._closed()
            put = self._asked(Put, raw=self.pv.laid_over(update))
        if self.pv.put_handler is not None:
            self._run(message, self.pv.put_handler, put, done)
        else:
            put.post()
            done(None)

    def _put(self, message: messages.Put) -> None:
        assert message.value is not None
        self._write(message, message.value, lambda _: self._reply(message))

    def _read_back(self, message: messages.Request) -> None:
        self._check("read")
        self._reply(message, value=self._now(self._selection))

    def _init_put_get(self, message: messages.InitRequest) -> None:
        self._check("write")
        self._check("read")
        fd = self._select()
        self._selection = select(fd, self._request, "getField")
        self._put_selection = select(fd, self._request, "putField")
        self._reply(message, put_type=fd, get_type=fd)

    def _put_get(self, message: messages.PutGet) -> None:
        assert message.value is not None
        self._write(message, message.value, lambda _: self._reply(message, value=self._now(self._selection)))

    def _get_put(self, message: messages.Request) -> None:
        self._check("read")
        self._reply(message, value=self._now(self._put_selection))

    # -- MONITOR

    def _init_monitor(self, message: messages.MonitorInit) -> None:
        self._check("read")
        fd = self._select()
        assert self._selection is not None
        group = Group(self.pv, self._selection, self.session.connection.byteorder)
        size = min(self._request.queue_size or QUEUE_DEFAULT, QUEUE_MAX)
        self.subscription = Subscription(self.session, message.ioid, group, size)
        self._reply(message, type=fd)

    def _steer(self) -> None:
        """START, STOP, ACK."""
        subscription = self.subscription
        if subscription is None:
            return
        with self.pv.lock:
            if self.pv.type is not self.type:
                return
            if not self.of.started:
                subscription.stop()
            elif not subscription.started:
                subscription.start()
        if self.of.started:
            subscription.flush()

    # -- PROCESS, RPC

    def _init_process(self, message: messages.InitRequest) -> None:
        self._check("process")
        self._reply(message)

    def _process(self, message: messages.Request) -> None:
        self._check("process")
        handler = self.pv.process_handler
        assert handler is not None
        self._run(message, handler, self._asked(Process), lambda _: self._reply(message))

    def _init_rpc(self, message: messages.InitRequest) -> None:
        self._check("call")
        self._reply(message)

    def _rpc(self, message: messages.Rpc) -> None:
        self._check("call")
        handler = self.pv.rpc_handler
        assert handler is not None
        self._run(
            message,
            handler,
            self._asked(Call, raw=message.value),
            lambda result: self._reply(message, value=plain.body(result)),
        )

    # -- ARRAY

    def _init_array(self, message: messages.InitRequest) -> None:
        self._check("read")
        fd = self._select()
        assert self._selection is not None
        self._array = arrays.field_of(self._selection)
        self._reply(message, type=fd[self._array])

    def _elements(self) -> Any:
        return self._now(self._selection)[self._array]

    def _array_get(self, message: messages.ArrayGet) -> None:
        assert self.type is not None
        elements = arrays.part(self._elements(), message.offset, message.count, message.stride)
        self._reply(message, value=AnyValue(self.type[self._array], elements))

    def _array_length(self, message: messages.Request) -> None:
        self._reply(message, length=len(self._elements()))

    def _array_put(self, message: messages.ArrayPut) -> None:
        assert message.value is not None
        elements, most = message.value.value, self.session.limits.message
        self._write_array(
            message, arrays.laid_over(self._elements(), elements, message.offset, message.stride, most)
        )

    def _array_set_length(self, message: messages.ArraySetLength) -> None:
        self._write_array(
            message, arrays.resized(self._elements(), message.length, self.session.limits.message)
        )

    def _write_array(self, message: messages.Request, array: Any) -> None:
        assert self.type is not None
        update = Value(self.type)
        try:
            update[self._array] = array
        except EncodeError as error:  # longer than the type allows
            raise Refused(str(error)) from error
        self._write(message, update, lambda _: self._reply(message))


_BEGIN: Final[dict[type, Callable[[Operation, Any], None]]] = {
    messages.GetInit: Operation._init_get,
    messages.PutInit: Operation._init_put,
    messages.PutGetInit: Operation._init_put_get,
    messages.MonitorInit: Operation._init_monitor,
    messages.ProcessInit: Operation._init_process,
    messages.RpcInit: Operation._init_rpc,
    messages.ArrayInit: Operation._init_array,
    messages.GetField: Operation._get_field,
}
_EXECUTE: Final[dict[type, Callable[[Operation, Any], None]]] = {
    messages.Get: Operation._get,
    messages.Put: Operation._put,
    messages.PutGetBack: Operation._read_back,
    messages.PutGet: Operation._put_get,
    messages.PutGetGetGet: Operation._read_back,
    messages.PutGetGetPut: Operation._get_put,
    messages.Process: Operation._process,
    messages.Rpc: Operation._rpc,
    messages.ArrayGet: Operation._array_get,
    messages.ArrayPut: Operation._array_put,
    messages.ArraySetLength: Operation._array_set_length,
    messages.ArrayGetLength: Operation._array_length,
}

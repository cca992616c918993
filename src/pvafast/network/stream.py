"""TCP under a sans-I/O connection: received in place, sent without copies."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, final

from ..connection import ClientConnection, ServerConnection
from ..errors import ProtocolError
from ..messages import PvaMessage
from .addresses import Address
from .loop import Handle, Loop

_log = logging.getLogger("pvafast.network")
# So much is read before others get their turn.
_BURST: Final = 8 << 20
# And for so many seconds: small messages take far longer, byte for byte, than large ones.
_TURN: Final = 0.01
# So much does not wait for more to go out with it.
_LARGE: Final = 1 << 16
# So many buffers go into one sendmsg(): IOV_MAX is 1,024 on Linux and macOS.
_BUFFERS: Final = 512


def _nothing(_: Any) -> None:
    """What a closed stream does."""


@final
class Connecting:
    """A TCP connection on its way; `cancel()` gives up, and `done` is not called any more."""

    def __init__(
        self,
        loop: Loop,
        address: Address,
        done: Callable[[socket.socket | OSError], object],
        *,
        timeout: float,
        rcvbuf: int | None = None,
    ) -> None:
        self._loop = loop
        self._done = done
        self._timer: Handle | None = None
        self._soon: Handle | None = None
        self._address = address
        self._sock: socket.socket | None = None
        try:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            self._sock = sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            if rcvbuf is not None:  # before connecting: the window's scale is agreed then
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            code = sock.connect_ex(address)
        except OSError as error:
            self._soon = loop.call_soon(self._finish, error)
            return
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            loop.add_writer(sock.fileno(), self._writable)
            self._timer = loop.call_later(timeout, self._late, timeout)
        else:
            self._soon = loop.call_soon(self._finish, OSError(code, os.strerror(code)) if code else None)

    def cancel(self) -> None:
        """Give up."""
        self._stop()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _stop(self) -> None:
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._soon = None
        if self._sock is not None:
            self._loop.remove_writer(self._sock.fileno())

    def _writable(self) -> None:
        assert self._sock is not None
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._finish(OSError(code, os.strerror(code)) if code else None)

    def _late(self, timeout: float) -> None:
        host, port = self._address[:2]
        self._finish(TimeoutError(f"no TCP connection to {host}:{port} within {timeout:g} s"))

    def _finish(self, error: OSError | None) -> None:
        self._stop()
        sock, self._sock = self._sock, None
        if error is not None:
            if sock is not None:
                sock.close()
            self._done(error)
        elif sock is not None:
            self._done(sock)


@final
class Stream:
    """A TCP socket under a connection.

    sock: connected; the stream owns it from now on. received: called with `connection.events()` after each read; it returns
    True where others are to have their turn before more is read.
    closed: called once, from the loop, when the stream is closed: with None where `close()` was called without an error,
    a ConnectionError where the peer closed it, or what went wrong. drained: called from the
    loop when everything has been sent that had to wait, for room or for its turn; not where a write went out at once. Updates
    carry time.time_ns() of the read that brought their last byte.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        connection: ClientConnection | ServerConnection,
        *,
        received: Callable[[Iterator[Any]], object],
        closed: Callable[[Exception | None], object],
        drained: Callable[[], object] | None = None,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._connection = connection
        self._received = received
        self._on_closed = closed
        self._drained = drained
        self._queue: deque[memoryview] = deque()
        self._unsent = 0
        self._waiting = False  # for room in the socket's buffer
        self._reading = False
        self._in_read = False
        self._flush_soon: Handle | None = None
        # The next write is the first since something came: it goes out at once. Others are gathered.
        self._prompt = True
        self._closed = False
        self.last_received = loop.time()
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer: Any = sock.getpeername()
        self.local: Any = sock.getsockname()
        self.resume()
        self.write(())

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return self._unsent

    @property
    def is_closed(self) -> bool:
        """Nothing is received or sent any more."""
        return self._closed

    def send(self, message: PvaMessage, *, segment_size: int | None = None) -> None:
        """Encode and send a message. LocalProtocolError and EncodeError as of `connection.send`."""
        if not self._closed:
            self.write(self._connection.send(message, segment_size=segment_size))

    def write(self, buffers: Iterable[Any]) -> None:
        """Send buffers, after what the connection itself wants sent. They must not change until they are sent."""
        if self._closed:
            return
        for buffer in self._connection.data_to_send():
            self._append(buffer)
        for buffer in buffers:
            self._append(buffer)
        if self._in_read or self._waiting or not self._queue or self._flush_soon is not None:
            return
        if self._prompt or self._unsent >= _LARGE:
            self._prompt = False
            self._flush()
        else:
            self._flush_soon = self._loop.call_soon(self._gathered)

    def pause(self) -> None:
        """Read nothing until resume()."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Read again."""
        if not self._reading and not self._closed:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def close(self, error: Exception | None = None) -> None:
        """Close the socket; what waits is sent as far as there is room for it at once."""
        if self._closed:
            return
        if error is None and self._queue and not self._waiting:
            self._flush()
            if self._closed:
                return
        self._closed = True
        self.pause()
        if self._waiting:
            self._loop.remove_writer(self._fd)
        if self._flush_soon is not None:
            self._flush_soon.cancel()
        self._queue.clear()
        self._unsent = 0
        self._sock.close()
        self._loop.call_soon(self._let_go, error)

    def _let_go(self, error: Exception | None) -> None:
        """Tell the owner, and refer to it no more: a message half received, maybe in a pool, does not wait for the garbage collector."""
        closed = self._on_closed
        self._received = self._on_closed = _nothing
        self._drained = None
        closed(error)

    # -- reading

    def _readable(self) -> None:
        connection = self._connection
        left, until = _BURST, self._loop.time() + _TURN
        self._in_read = True
        try:
            while left > 0 and self._reading:
                buffer = connection.get_buffer()
                try:
                    count = self._sock.recv_into(buffer)
                except (BlockingIOError, InterruptedError):
                    break
                if not count:
                    self.close(self._ended())
                    break
                connection.buffer_updated(count, time.time_ns())
                if self._received(connection.events()) or count < len(buffer):
                    break
                left -= count
                if self._loop.time() > until:
                    break
            self.last_received = self._loop.time()
        except (ProtocolError, OSError) as error:
            self.close(error)
        except Exception as error:
            _log.exception("error while handling what %s sent", self.peer)
            self.close(error)
        finally:
            self._in_read = False
            self._prompt = True
        if not self._closed:
            waited = bool(self._queue)
            self.write(())
            if waited:
                self._tell()

    def _ended(self) -> ConnectionError:
        """The other side has closed the connection: between two messages or, as one that is killed, in the middle of one."""
        where = ""
        self._connection.receive_eof()
        try:
            self._received(self._connection.events())
        except ProtocolError as error:
            where = f": {error}"
        return ConnectionResetError(f"the other side closed the connection{where}")

    # -- writing

    def _append(self, buffer: Any) -> None:
        view = memoryview(buffer)
        if view.nbytes:
            self._queue.append(view if view.format == "B" and view.ndim == 1 else view.cast("B"))
            self._unsent += view.nbytes

    def _gathered(self) -> None:
        self._flush_soon = None
        if not self._closed and not self._waiting:
            self._flush()
            self._tell()

    def _writable(self) -> None:
        self._flush()
        self._tell()

    def _tell(self) -> None:
        """If all is sent that had to wait, say so."""
        if self._drained is not None and not self._queue and not self._closed:
            self._drained()

    def _flush(self) -> None:
        """Send what there is room for."""
        queue = self._queue
        try:
            full = False
            while queue and not full:
                sent = self._send_some()  # BlockingIOError when there is no room
                self._unsent -= sent
                while sent:
                    size = len(queue[0])
                    if size > sent:
                        queue[0] = queue[0][sent:]
                        full = True  # there was no room for the rest of it
                        break
                    sent -= size
                    queue.popleft()
        except (BlockingIOError, InterruptedError):
            full = True
        except OSError as error:
            self.close(error)
            return
        if full:
            if not self._waiting:
                self._waiting = True
                self._loop.add_writer(self._fd, self._writable)
        elif self._waiting:
            self._waiting = False
            self._loop.remove_writer(self._fd)

    if hasattr(socket.socket, "sendmsg"):

        def _send_some(self) -> int:
            queue = self._queue
            if len(queue) == 1:
                return self._sock.send(queue[0])
            return self._sock.sendmsg(islice(queue, _BUFFERS))

    else:  # Windows

        def _send_some(self) -> int:
            return self._sock.send(self._queue[0])

"""Server: PVs on the network."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Final, final

from ..errors import LocalProtocolError
from ..limits import Limits
from ..network.addresses import Endpoint
from ..network.config import ServerConfig
from ..network.loop import Handle, Loop, SelectLoop, refuse_proactor
from .discovery import Discovery, new_guid
from .monitors import Subscription
from .pv import PV
from .requests import Peer
from .serverchannel import NAME, server_channel
from .session import ConnectionInfo, Session
from .tasks import Tasks

_log = logging.getLogger("pvafast.server")
# So many clients are taken before others get their turn.
_ACCEPT: Final = 64
# Seconds until the next try where no descriptor was left for a client.
_PAUSE: Final = 1.0


class Provider:
    """PVs whose names are not known in advance: override `has` and `open`, perhaps `names`."""

    def has(self, name: str) -> bool:
        """There is such a PV: called in the loop for every name that anyone searches, so it must be quick."""
        return False

    def open(self, name: str, peer: Peer) -> PV | Awaitable[PV | None] | None:
        """The PV for a client, None if there is none. May be a coroutine function. A RemoteError's text is told to the client."""
        return None

    def names(self) -> Iterable[str] | None:
        """For those who list what there is; None: not known."""
        return None


@final
class Server:
    """Serves PVs: answers searches, lets clients connect, tells of itself by beacons.

    pvs: by name; what is no PV becomes one by PV.of(). providers: asked in turn for names that are not there.
    config: addresses, ports and times; by default from the environment (``EPICS_PVAS_...``); `settings` are fields of it.
    limits: of what one client can cause. byteorder: in which it sends. segment_size: cut messages in pieces; clients need
    no such thing. queue_bytes: the most that the updates may have which wait for one client; frames are counted in full, though
    they are shared. max_connections: those of more clients are closed at once.

    Under asyncio ``async with Server(...)``; in a thread of its own ``with Server(...).running()``; in this one ``Server(...).run()``.
    `add`, `remove` and all that PVs can do may be done in any thread.
    """

    def __init__(
        self,
        pvs: Mapping[str, Any] | None = None,
        *,
        providers: Iterable[Provider] = (),
        config: ServerConfig | None = None,
        limits: Limits | None = None,
        byteorder: str = "little",
        segment_size: int | None = None,
        queue_bytes: int = 256 << 20,
        max_connections: int = 10_000,
        **settings: Any,
    ) -> None:
        if config is None:
            config = ServerConfig.from_env(**settings)
        elif settings:
            raise TypeError("config and settings: give one of them")
        if byteorder not in ("little", "big"):
            raise ValueError(f"byteorder must be 'little' or 'big', not {byteorder!r}")
        self.config = config
        self.limits = limits or Limits()
        self.byteorder = byteorder
        self.segment_size = segment_size
        if max_connections < 1:
            raise ValueError(f"max_connections must be positive, not {max_connections}")
        self.queue_bytes = queue_bytes
        self.max_connections = max_connections
        self._full = False
        self.guid = new_guid()
        self.providers = tuple(providers)
        self._pvs: dict[str, PV] = {}
        self._failed: set[Provider] = set()
        self._own = server_channel(self.names)
        self._loop: Loop | None = None
        self._tasks: Tasks | None = None
        self._discovery: Discovery | None = None
        self._sockets: list[socket.socket] = []
        self._sessions: dict[Session, None] = {}
        self._dirty: deque[Subscription] = deque()
        # The loop that is to flush what is dirty.
        self._woken: Loop | None = None
        self._timer: Handle | None = None
        self._stopped: Callable[[], object] | None = None
        self.thread = 0
        for name, pv in (pvs or {}).items():
            self.add(name, pv)

    # -- what is served

    def add(self, name: str, pv: Any) -> PV:
        """Serve a PV under a name. ValueError if the name is taken, or none."""
        if not isinstance(name, str) or not name or name == NAME:
            raise ValueError(f"{name!r} is no name for a PV")
        if name in self._pvs:
            raise ValueError(f"there is a PV named {name!r}")
        self._pvs[name] = made = pv if isinstance(pv, PV) else PV.of(pv)
        self._changed()
        return made

    def remove(self, name: str) -> PV:
        """Serve a PV no more: clients are disconnected. KeyError if there is none."""
        pv = self._pvs.pop(name)
        for session in list(self._sessions):
            session.soon(session.disconnect_name, name)
        self._changed()
        return pv

    @property
    def pvs(self) -> Mapping[str, PV]:
        """The PVs by name, as they are now."""
        return MappingProxyType(self._pvs)

    def names(self) -> list[str]:
        """All names that are known, sorted."""
        found = set(self._pvs)
        for provider in self.providers:
            found.update(provider.names() or ())
        return sorted(found)

    def has(self, name: str) -> bool:
        """Is there such a PV?"""
        return name in self._pvs or any(self._provides(provider, name) for provider in self.providers)

    def _provides(self, provider: Provider, name: str) -> bool:
        try:
            return bool(provider.has(name))
        except Exception:
            if provider not in self._failed:  # it is asked for every name that is searched: once is enough
                self._failed.add(provider)
                _log.exception("error in %r.has(%r); later ones are not logged", provider, name)
            return False

    def sources(self, name: str) -> Iterator[Callable[[Peer], Any]]:
        """What may know a PV, in turn."""
        if name == NAME:
            yield lambda peer: self._own
            return
        pv = self._pvs.get(name)
        if pv is not None:
            yield lambda peer: pv
            return
        for provider in self.providers:
            yield partial(provider.open, name)

    def _changed(self) -> None:
        discovery, loop = self._discovery, self._loop
        if discovery is not None and loop is not None:
            loop.call_soon_threadsafe(discovery.changed)

    # -- life

    def start(self, loop: Loop) -> None:
        """Serve on a loop, in the thread that calls. OSError if no address can be had."""
        if self._loop is not None:
            raise LocalProtocolError("the server is running")
        self._loop = loop
        self.thread = threading.get_ident()
        self._tasks = Tasks(loop)
        try:
            self._listen()
            self._discovery = Discovery(loop, self.config, self.guid, self.port, self.has)
        except BaseException:
            self.stop()
            raise
        for listener in self._sockets:
            loop.add_reader(listener.fileno(), self._accept, listener)
        self._look()
        _log.info("serving %d PVs on %s", len(self._pvs), ", ".join(f"{a[0]}:{a[1]}" for a in self.addresses))

    def stop(self) -> None:
        """Hang up on all clients and close. In the thread of the loop."""
        if self._loop is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for listener in self._sockets:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        self._sockets.clear()
        if self._discovery is not None:
            self._discovery.close()
            self._discovery = None
        for session in list(self._sessions):
            session.close()
        if self._tasks is not None:
            self._tasks.close()
            self._tasks = None
        self._loop = None
        self._dirty.clear()
        if self._stopped is not None:
            self._stopped()

    async def __aenter__(self) -> Server:
        loop = asyncio.get_running_loop()
        refuse_proactor(loop)
        self.start(loop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        await asyncio.sleep(0)  # what was closed is told in the next pass

    async def serve_forever(self) -> None:
        """Wait until the server is stopped."""
        stopped = asyncio.Event()
        self._stopped = stopped.set
        if self._loop is not None:
            await stopped.wait()

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Serve in a thread of its own while the block lasts."""
        loop = self._own_loop()
        thread = threading.Thread(target=self._run, args=(loop,), name="pvafast-server", daemon=True)
        started = threading.Event()
        loop.call_soon(self._here, started)
        thread.start()
        started.wait()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(self._end, loop)
            thread.join()

    def run(self) -> None:
        """Serve in this thread until KeyboardInterrupt."""
        loop = self._own_loop()
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            pass
        finally:
            self._end(loop)
            loop.run_once(0)
            loop.close()

    def _own_loop(self) -> SelectLoop:
        loop = SelectLoop()
        try:
            self.start(loop)
        except BaseException:
            loop.close()
            raise
        return loop

    def _here(self, started: threading.Event) -> None:
        self.thread = threading.get_ident()
        started.set()

    def _run(self, loop: SelectLoop) -> None:
        loop.run_forever()
        loop.run_once(0)
        loop.close()

    def _end(self, loop: SelectLoop) -> None:
        self.stop()
        loop.stop()

    # -- the network

    @property
    def loop(self) -> Loop:
        """The loop that it runs on."""
        if self._loop is None:
            raise LocalProtocolError("the server is not running")
        return self._loop

    @property
    def tasks(self) -> Tasks:
        """Where coroutines run."""
        if self._tasks is None:
            raise LocalProtocolError("the server is not running")
        return self._tasks

    @property
    def addresses(self) -> list[Any]:
        """Where it listens, as sockets name it."""
        return [listener.getsockname() for listener in self._sockets]

    @property
    def port(self) -> int:
        """The TCP port."""
        if not self._sockets:
            raise LocalProtocolError("the server is not running")
        port: int = self._sockets[0].getsockname()[1]
        return port

    @property
    def udp_port(self) -> int:
        """The UDP port of searches."""
        if self._discovery is None:
            raise LocalProtocolError("the server is not running")
        return self._discovery.udp_port

    @property
    def connections(self) -> list[ConnectionInfo]:
        """The clients, as they are now."""
        return [session.info for session in list(self._sessions)]

    def _listen(self) -> None:
        """Listen on the port of the configuration or, where another has taken that, on a free one, as pvxs does."""
        endpoints = self.config.tcp_endpoints()
        try:
            self._bind(endpoints)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not endpoints[0].port:
                raise
            while self._sockets:
                self._sockets.pop().close()
            self._bind([replace(endpoint, port=0) for endpoint in endpoints])
            _log.warning("TCP port %d is taken: listening on %d", endpoints[0].port, self.port)

    def _bind(self, endpoints: list[Endpoint]) -> None:
        """All on one port: what the first got, where it asked for any."""
        for endpoint in endpoints:
            try:
                listener = socket.socket(endpoint.family, socket.SOCK_STREAM)
            except OSError:
                if endpoint.is_any and self._sockets:
                    continue  # a host without IPv6
                raise
            self._sockets.append(listener)
            if endpoint.family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if sys.platform != "win32":  # there it would take the port of another
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            first = self._sockets[0]
            port = endpoint.port or (first.getsockname()[1] if listener is not first else 0)
            try:
                listener.bind(replace(endpoint, port=port).address)
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL or not endpoint.is_any or listener is first:
                    raise
                self._sockets.pop().close()  # IPv6 is switched off
                continue
            listener.listen(512)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPT):
            try:
                sock, _address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                _log.warning("cannot take more clients for now: %s", error)
                self.loop.remove_reader(listener.fileno())
                self.loop.call_later(_PAUSE, self._accept_again, listener)
                return
            if len(self._sessions) >= self.max_connections:
                sock.close()
                if not self._full:
                    self._full = True
                    _log.warning("%d clients are connected, more are turned away", self.max_connections)
                continue
            try:
                self._sessions[Session(self, sock)] = None
            except OSError as error:  # it is gone again
                _log.debug("a client left at once: %s", error)
                sock.close()

    def _accept_again(self, listener: socket.socket) -> None:
        if self._loop is not None and listener.fileno() >= 0:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _look(self) -> None:
        """Look after clients that say nothing, from time to time."""
        timeout = self.config.tcp_timeout
        now = self.loop.time()
        for session in list(self._sessions):
            session.check_time(now, timeout)
        self._timer = self.loop.call_later(max(timeout / 8, 0.25), self._look)

    # -- for sessions

    def forget(self, session: Session) -> None:
        """It is closed."""
        self._sessions.pop(session, None)
        if self._full and len(self._sessions) < self.max_connections * 0.9:
            self._full = False  # the next time is told of again

    def wake(self, subscription: Subscription) -> None:
        """To be flushed by the loop; from any thread."""
        loop = self._loop
        if loop is None:
            return
        self._dirty.append(subscription)
        if self._woken is not loop:
            self._woken = loop
            try:
                loop.call_soon_threadsafe(self._flush)
            except RuntimeError:  # asyncio's loop is closed, and all is over
                pass

    def _flush(self) -> None:
        self._woken = None
        while self._dirty:
            self._dirty.popleft().flush()

    def quietly(self, callback: Callable[..., object], *args: Any) -> None:
        """Call what belongs to the program; its errors are logged."""
        try:
            callback(*args)
        except Exception:
            _log.exception("error in %r", callback)

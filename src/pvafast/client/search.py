"""Search: which server has a PV? Over UDP and name servers, again and again, but never in bursts."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar, final

from .. import messages
from ..errors import DecodeError, EncodeError
from ..limits import Limits
from ..messages import Command
from ..network import udp
from ..network.addresses import Address, Endpoint, text
from ..network.config import ClientConfig
from ..network.loop import Handle, Loop
from .nameserver import NameServer
from .servers import BeaconEvent, ServerEvent, Servers

_log = logging.getLogger("pvafast.search")
_E = TypeVar("_E", ServerEvent, BeaconEvent)

# As pvxs: it is the channel ids that tell answers apart.
_SEQUENCE: Final = 0x66696E64  # "find"
# A name is searched again after 1 tick, then 1, 2, 3 and so on up to 30: the ring has a bucket for each tick to come.
_BUCKETS: Final = 30
_TICK: Final = 1.0
# When there is hope, a ring of ticks is gone through in six seconds; and not more often than this.
_FAST_TICK: Final = 0.2
_HURRY_AGAIN: Final = 30.0
# Of two buckets that are next, the one is not to have so many names more than the other.
_UNEVEN: Final = 100
# So many datagrams to each target go out at once, and no others for so many seconds: what is sent faster is lost in
# the buffers of servers. 10,000 names take 0.3 s.
_BURST: Final = 8
_PACE: Final = 0.01
# Bytes of a datagram with no names in it, and of a name beside its text.
_EMPTY: Final = 41
_BESIDE: Final = 9
# What no datagram could hold.
_LONGEST_NAME: Final = 60_000
_FORGET_EVERY: Final = 180.0
# A server that was started twice has all of its PVs twice.
_MOST_DOUBLES: Final = 20

Found = Callable[[Address, bytes], object]


@final
class Search:
    """A name that is, or was, searched for. It stays known to its Searcher until cancel().

    cid: its number in searches. address, guid: of the server that answered; None while it is searched. tries: how many
    datagrams with it were sent, since find() or again().
    """

    __slots__ = ("_found", "_place", "_searcher", "_told", "address", "cid", "guid", "name", "size", "tries")

    def __init__(self, searcher: Searcher, cid: int, name: str, size: int, found: Found) -> None:
        self.name = name
        self.cid = cid
        self.address: Address | None = None
        self.guid: bytes | None = None
        self.tries = 0
        self.size = size
        self._searcher = searcher
        self._found = found
        # Where it waits: a bucket of the ring, or what is due.
        self._place: dict[int, Search] | None = None
        self._told = False  # that two servers have it

    def __repr__(self) -> str:
        where = "searching" if self.address is None else text(self.address)
        return f"<Search {self.name!r} {where}>"

    def again(self, delay: float = 0.0) -> None:
        """Search once more, in `delay` seconds (30 at most) or at the next tick: the server was lost, or refused."""
        self._searcher._again(self, delay)

    def cancel(self) -> None:
        """Search no more."""
        self._searcher._cancel(self)


@final
class Subscription:
    """To what servers do. `cancel()` ends it."""

    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel

    def cancel(self) -> None:
        """Nothing is called any more."""
        self._cancel()


@final
class Searcher:
    """Finds servers by the names of PVs. For the thread of its loop only.

    The schedule is that of pvxs. Sockets are opened when they are first needed. user, host, limits: of the connections
    to name servers.
    """

    def __init__(
        self,
        loop: Loop,
        config: ClientConfig,
        *,
        user: str = "",
        host: str = "",
        limits: Limits | None = None,
    ) -> None:
        self._loop = loop
        self._config = config
        self._user = user
        self._host = host
        self._limits = limits
        self._opened = False
        self._closed = False
        self._sender: udp.Sender | None = None
        self._listener: udp.Listener | None = None
        self._name_servers: list[NameServer] = []
        self._malformed = udp.Malformed()
        # By cid: all; those without an answer. In the ring: `_at` is the bucket of the last tick.
        self._searches: dict[int, Search] = {}
        self._searching: dict[int, Search] = {}
        self._ring: list[dict[int, Search]] = [{} for _ in range(_BUCKETS)]
        self._at = 0
        self._due: dict[int, Search] = {}
        self._last_cid = random.getrandbits(31)
        self._tick_timer: Handle | None = None
        self._send_timer: Handle | None = None
        self._quiet_until = -math.inf
        # Fast ticks that are left, and when the last began.
        self._hurried = 0
        self._last_hurry = -math.inf
        self._doubles = 0
        self._servers = Servers(self._server_changed)
        self._expire_timer: Handle | None = None
        self._watchers: dict[Subscription, Callable[[ServerEvent], object]] = {}
        self._listeners: dict[Subscription, Callable[[BeaconEvent], object]] = {}

    @property
    def searching(self) -> int:
        """How many names have no answer yet."""
        return len(self._searching)

    @property
    def hears_beacons(self) -> bool:
        """Whether beacons come here: whether their port could be bound, once the first search or subscription was begun."""
        return self._listener is not None

    def find(self, name: str, found: Found, *, delay: float = 0.0) -> Search:
        """Search for a PV. found(address, guid): called from the loop when a server has it, once for each search.

        Names asked for at about the same time share datagrams. delay: seconds before the first of them, 30 at most.
        EncodeError for what cannot be the name of a PV.
        """
        size = _size(name)
        self._open()
        search = Search(self, self._new_cid(), name, size, found)
        self._searches[search.cid] = search
        self._begin(search, math.ceil(delay))
        return search

    def discover(self, callback: Callable[[ServerEvent], object]) -> Subscription:
        """Ask all servers to answer, and follow their beacons. Those that are known are told of at first, from the loop."""
        self._open()
        subscription = Subscription(lambda: self._watchers.pop(subscription, None))
        self._watchers[subscription] = callback
        for event in self._servers:
            self._loop.call_soon(self._tell, subscription, event)
        self._loop.call_soon(self._ask, (), messages.REPLY_REQUIRED, ())
        return subscription

    def beacons(self, callback: Callable[[BeaconEvent], object]) -> Subscription:
        """Call back for every beacon."""
        self._open()
        subscription = Subscription(lambda: self._listeners.pop(subscription, None))
        self._listeners[subscription] = callback
        return subscription

    def hurry(self) -> None:
        """Search for all names once within six seconds, at most every 30 s. New servers cause it, too."""
        now = self._loop.time()
        if self._closed or not self._searching or now - self._last_hurry < _HURRY_AGAIN:
            return
        _log.debug("searching %d names again", len(self._searching))
        self._last_hurry = now
        self._hurried = _BUCKETS
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        self._tick_timer = self._loop.call_soon(self._tick)

    def close(self) -> None:
        """Close all sockets and connections. Nothing is called any more."""
        self._closed = True
        for timer in (self._tick_timer, self._send_timer, self._expire_timer):
            if timer is not None:
                timer.cancel()
        for closing in (self._sender, self._listener, *self._name_servers):
            if closing is not None:
                closing.close()
        for table in (self._searches, self._searching, self._due, *self._ring):
            table.clear()
        self._watchers.clear()
        self._listeners.clear()

    # -- what is open

    def _open(self) -> None:
        if self._closed:
            raise RuntimeError("the Searcher is closed")
        if self._opened:
            return
        self._opened = True
        loop, config = self._loop, self._config
        interfaces = config.intf_addr_list or (Endpoint("0.0.0.0", 0),)
        targets = udp.targets(
            config.addr_list, interfaces if config.auto_addr_list else (), config.broadcast_port
        )
        self._sender = udp.Sender(loop, targets, self._datagram)
        port = config.broadcast_port
        try:
            self._listener = udp.Listener(loop, config.udp_endpoints(), port, beacon=self._beacon)
        except OSError as error:
            _log.info("no beacons: UDP port %d: %s", port, error)
        else:
            if not self._listener.shares:
                # It could take searches away from the servers on this host.
                _log.info("no beacons: %s cannot be joined on loopback", udp.GROUP)
                self._listener.close()
                self._listener = None
        self._name_servers = [
            NameServer(
                loop,
                endpoint,
                config,
                user=self._user,
                host=self._host,
                limits=self._limits,
                ready=self._name_server_ready,
                answered=self._name_server_answered,
            )
            for endpoint in config.name_servers
        ]
        if not targets and not self._name_servers:
            _log.warning("nowhere to search: no addresses, no name servers")
        else:
            where = [*map(str, targets), *(f"tcp {one}" for one in config.name_servers)]
            _log.debug("searching at %s", ", ".join(where))

    # -- the schedule

    def _new_cid(self) -> int:
        while True:
            self._last_cid = self._last_cid % 0xFFFFFFFE + 1
            if self._last_cid not in self._searches:
                return self._last_cid

    def _begin(self, search: Search, ticks: int) -> None:
        """Search from now on (0), or from that tick on."""
        search.tries = 0
        self._searching[search.cid] = search
        if ticks <= 0:
            self._put(search, self._due)
            self._send_soon()
        else:
            self._put(search, self._bucket(min(ticks, _BUCKETS)))
        if self._tick_timer is None:
            self._tick_timer = self._loop.call_later(_TICK, self._tick)

    def _again(self, search: Search, delay: float) -> None:
        if self._searches.get(search.cid) is search:
            self._leave(search)
            search.address = search.guid = None
            search._told = False
            self._begin(search, max(1, math.ceil(delay)))

    def _cancel(self, search: Search) -> None:
        if self._searches.get(search.cid) is search:
            del self._searches[search.cid]
            self._searching.pop(search.cid, None)
            self._leave(search)

    def _put(self, search: Search, place: dict[int, Search]) -> None:
        search._place = place
        place[search.cid] = search

    def _leave(self, search: Search) -> None:
        if search._place is not None:
            search._place.pop(search.cid, None)
            search._place = None

    def _bucket(self, ticks: int) -> dict[int, Search]:
        """The bucket of a tick to come, or its neighbour if that has far fewer names."""
        bucket = self._ring[(self._at + ticks) % _BUCKETS]
        beside = self._ring[(self._at + (ticks + 1 if ticks < _BUCKETS else ticks - 1)) % _BUCKETS]
        return beside if len(bucket) > len(beside) + _UNEVEN else bucket

    def _tick(self) -> None:
        self._tick_timer = None
        if not self._searching:
            self._hurried = 0
            return
        self._at = (self._at + 1) % _BUCKETS
        bucket = self._ring[self._at]
        for search in bucket.values():
            self._put(search, self._due)
        bucket.clear()
        if self._due:
            self._send_soon()
        if self._hurried:
            self._hurried -= 1
        self._tick_timer = self._loop.call_later(_FAST_TICK if self._hurried else _TICK, self._tick)

    def _send_soon(self) -> None:
        if self._send_timer is None:
            wait = self._quiet_until - self._loop.time()
            if wait <= 0:
                self._send_timer = self._loop.call_soon(self._send)
            else:
                self._send_timer = self._loop.call_later(wait, self._send)

    def _send(self) -> None:
        """Send datagrams with the names that are due: some now, the rest soon."""
        self._send_timer = None
        due = self._due
        for _ in range(_BURST):
            if not due:
                break
            names: list[Search] = []
            left = udp.MAX_PAYLOAD - _EMPTY
            for search in due.values():
                left -= search.size
                if left < 0 and names:
                    break
                names.append(search)
            for search in names:
                del due[search.cid]
                hurried = self._hurried and search.tries
                self._put(search, self._bucket(_BUCKETS if hurried else max(1, min(_BUCKETS, search.tries))))
                search.tries += 1
            self._ask(names, 0, ("tcp",))
        self._quiet_until = self._loop.time() + _PACE
        if due:
            self._send_soon()

    def _ask(self, names: Iterable[Search], flags: int, protocols: tuple[str, ...]) -> None:
        """Send a search to all targets and name servers."""
        if self._closed or self._sender is None:
            return
        channels = tuple((search.cid, search.name) for search in names)
        datagrams: dict[tuple[int, int], bytes] = {}
        for target in self._sender.targets:
            key = (flags | messages.UNICAST if target.unicast else flags, self._sender.port(target))
            if key not in datagrams:
                datagrams[key] = udp.encode(_search(channels, *key, protocols))
            self._sender.send(datagrams[key], target)
        if self._name_servers:
            search = _search(channels, flags | messages.UNICAST, 0, protocols)
            for server in self._name_servers:
                server.ask(search)

    def _name_server_ready(self, server: NameServer) -> None:
        """What is searched for is news to a name server that is newly connected."""
        names = [search for search in self._searching.values() if search.tries]
        for i in range(0, len(names), 50):
            channels = tuple((search.cid, search.name) for search in names[i : i + 50])
            server.ask(_search(channels, messages.UNICAST, 0, ("tcp",)), however_slow=True)
        if self._watchers:
            server.ask(_search((), messages.UNICAST | messages.REPLY_REQUIRED, 0, ()))

    # -- answers

    def _datagram(self, data: bytes, source: Address, destination: str | None, sock: udp.UdpSocket) -> None:
        try:
            for _, message in udp.split(data):
                if message.command == Command.SEARCH_RESPONSE:
                    response = udp.decode(message)
                    assert isinstance(response, messages.SearchResponse)
                    if response.port:
                        self._answered(response, _located(response, source), source, message.version)
        except DecodeError as error:
            self._malformed.tell(source, error)

    def _name_server_answered(self, response: messages.SearchResponse, server: NameServer) -> None:
        source = server.endpoint.address
        self._answered(response, _located(response, source) if response.port else source, source, 2)

    def _answered(
        self, response: messages.SearchResponse, address: Address, source: Address, version: int
    ) -> None:
        if response.protocol != "tcp":
            return
        if not response.found or not response.cids:
            # An answer to "who is there?"; some say that nothing was found, some that something was.
            if self._watchers and response.sequence == _SEQUENCE:
                self._servers.seen(response.guid, address, version, source, self._loop.time())
            return
        for cid in response.cids:
            search = self._searches.get(cid)
            if search is None:
                continue
            if search.address is None:
                if not search.tries:
                    continue  # it is not searched for yet: an answer to what was asked before again()
                self._leave(search)
                self._searching.pop(cid, None)
                search.address, search.guid = address, response.guid
                try:
                    search._found(address, response.guid)
                except Exception:
                    _log.exception("error in what is called when %r is found", search.name)
            elif search.guid != response.guid and search.address != address and not search._told:
                search._told = True
                self._doubled(search, address)

    def _doubled(self, search: Search, address: Address) -> None:
        """A second server has a PV."""
        assert search.address is not None
        self._doubles += 1
        if self._doubles <= _MOST_DOUBLES:
            _log.warning(
                "two servers have the PV %r: %s, which is used, and %s%s",
                search.name,
                text(search.address),
                text(address),
                "; further ones are not told of" if self._doubles == _MOST_DOUBLES else "",
            )

    # -- servers

    def _beacon(self, beacon: messages.Beacon, arrived: udp.Arrived) -> None:
        address = _located(beacon, arrived.source)
        if beacon.protocol == "tcp" and beacon.port:
            self._servers.seen(beacon.guid, address, arrived.version, arrived.source, self._loop.time())
        if self._listeners:
            event = BeaconEvent(
                guid=beacon.guid,
                address=address,
                protocol=beacon.protocol,
                version=arrived.version,
                sequence=beacon.sequence,
                change_count=beacon.change_count,
                sender=arrived.source,
                time=time.time_ns(),
            )
            _call(self._listeners, event)

    def _server_changed(self, event: ServerEvent) -> None:
        if event.kind != "offline":
            self.hurry()
            if self._expire_timer is None and not self._closed:
                self._expire_timer = self._loop.call_later(_FORGET_EVERY, self._expire)
        _call(self._watchers, event)

    def _expire(self) -> None:
        self._expire_timer = None
        self._servers.expire(self._loop.time())
        if len(self._servers) and self._expire_timer is None and not self._closed:
            self._expire_timer = self._loop.call_later(_FORGET_EVERY, self._expire)

    def _tell(self, subscription: Subscription, event: ServerEvent) -> None:
        if subscription in self._watchers:
            _call({subscription: self._watchers[subscription]}, event)


def _search(
    channels: tuple[tuple[int, str], ...], flags: int, port: int, protocols: tuple[str, ...]
) -> messages.Search:
    return messages.Search(
        sequence=_SEQUENCE, flags=flags, zeros=True, port=port, protocols=protocols, channels=channels
    )


def _located(message: messages.SearchResponse | messages.Beacon, source: Address) -> Address:
    """The address of a server that a message tells; "" is where it came from."""
    host, zone = message.address, source[0].partition("%")[2]
    if not host:
        host = source[0]
    elif zone and host.startswith("fe8"):
        host = f"{host}%{zone}"
    return (host, message.port)


def _size(name: str) -> int:
    """Bytes of a name in a datagram, at most. EncodeError for what cannot be the name of a PV."""
    try:
        size = len(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise EncodeError(f"the name {name!r} is not Unicode: {error.reason}") from None
    if not 0 < size <= _LONGEST_NAME:
        raise EncodeError(f"a name of {size} bytes: 1 to {_LONGEST_NAME} are possible")
    return size + _BESIDE


def _call(callbacks: Mapping[Subscription, Callable[[_E], object]], event: _E) -> None:
    for callback in list(callbacks.values()):
        try:
            callback(event)
        except Exception:
            _log.exception("error in what is called with %r", event)

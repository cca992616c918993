"""What a capture tells, summed up: what went wrong, the PVs, who asks whom for what, how long answers took."""

from __future__ import annotations

import math
from heapq import heappush, heapreplace
from typing import Any, Final, NamedTuple, final

import numpy as np

from .. import messages
from .._backend import introspection, losses, value
from .._types import STRUCTURE, UNION
from ..connection import Update
from ..errors import PvaError
from ..ndarray import Frame
from . import report
from .events import Clock
from .records import Batch, Record
from .report import host_of

# What is kept of anything that a peer can make endless; what does not fit is counted.
_MOST: Final = 100_000
# Small things that belong to those (the clients of a name, the fields of a PV): of one thing, and of all together.
_OF_ONE: Final = 100_000
_OF_ALL: Final = 500_000
# Requests of a connection whose numbers were used again before it was heard of.
_DOUBTFUL: Final = 64
# A peer can make texts long, too.
_CHARACTERS: Final = 300
# Bins of latencies: so many a decade, from 1 ns to 10,000 s.
_DECADE: Final = 20
_BINS: Final = 13 * _DECADE
# A name that was answered once is lost when as many searches, over as long, bring no answer (more than one address is searched at once).
_LOST_ASKED: Final = 3
_LOST_NS: Final = 1_000_000_000
# Where servers of a host pass searches on to one another (WIRE 7.2).
_FORWARDED: Final = "224.0.0.128"
_ASKS: Final = frozenset({"GET", "PUT", "PUT_GET", "MONITOR", "ARRAY", "PROCESS", "RPC", "GET_FIELD"})
_VARIANTS: Final = {
    ("PUT", 0x40): "PUT readback",
    ("PUT_GET", 0x40): "PUT_GET get",
    ("PUT_GET", 0x80): "PUT_GET get put",
    ("ARRAY", 0x40): "ARRAY get",
    ("ARRAY", 0x80): "ARRAY set length",
    ("ARRAY", 0x04): "ARRAY get length",
}
_VARIANT: Final = 0xC4
_NO_CLOCK: Final = Clock()


@final
class Latency:
    """How long answers took, in seconds: count, the longest and its PV exactly, quantiles to within 6 %."""

    __slots__ = ("_bins", "count", "longest", "slowest")

    def __init__(self) -> None:
        # Few of them are ever used, and every PV has some of these objects.
        self._bins: dict[int, int] = {}
        self.count = 0
        self.longest = 0.0
        self.slowest = ""

    def add(self, seconds: float, pv: str = "") -> None:
        """One answer."""
        self.count += 1
        if seconds > self.longest:
            self.longest = seconds
            self.slowest = pv
        place = int(_DECADE * math.log10(seconds * 1e9)) if seconds > 1e-9 else 0
        place = min(place, _BINS - 1)
        self._bins[place] = self._bins.get(place, 0) + 1

    def quantile(self, part: float) -> float:
        """The middle of the bin in which a part of the answers is reached; never above the longest."""
        wanted = part * self.count
        reached = 0
        for place in sorted(self._bins):
            reached += self._bins[place]
            if reached >= wanted:
                return float(min(10 ** ((place + 0.5) / _DECADE - 9), self.longest))
        return self.longest


class Subscription(NamedTuple):
    """A monitor of a PV: who has it of whom, and what was lost of it."""

    client: str
    server: str
    losses: losses.Losses


@final
class Pv:
    """What a PV did.

    updates: of monitors, all subscribers together; bytes: of their messages; first, last: ns of the updates. subscriptions:
    each with its losses. frames: of an NTNDArray, also those that were got; pixels: their bytes as sent; unpacked: as they
    are decompressed; shape: of the last, "uint16 512×512", and codec. commands: requests by name, subscriptions under
    MONITOR. latencies: of answers, by command. started: when a monitor was started first, ns, or 0.
    """

    __slots__ = (
        "began", "bytes", "clock", "codec", "commands", "first", "frames", "is_image", "latencies", "name", "pixels",
        "shape", "shapes", "started", "subscriptions", "ticks", "type", "unpacked", "updates",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.type = ""
        self.updates = 0
        self.bytes = 0
        self.first = 0
        # Of the first update and of the last one, as the capture counts.
        self.began = 0
        self.ticks = 0
        self.clock = _NO_CLOCK
        self.is_image = False
        self.frames = 0
        self.pixels = 0
        self.unpacked = 0
        self.shape = ""
        # How often the shape changed, plus one.
        self.shapes = 0
        self.codec = ""
        self.started = 0
        self.commands: dict[str, int] = {}
        self.latencies: dict[str, Latency] = {}
        self.subscriptions: list[Subscription] = []

    @property
    def overruns(self) -> dict[str, int]:
        """Updates with which older values of a field were lost, by its name; all subscribers together."""
        found: dict[str, int] = {}
        for subscription in self.subscriptions:
            for name, n in subscription.losses.overruns.items():
                found[name] = found.get(name, 0) + n
        return found

    @property
    def frame_rate(self) -> float | None:
        """Frames a second of the subscriber that got the most; None where nobody got two."""
        rates = [subscription.losses.frame_rate for subscription in self.subscriptions]
        return max((rate for rate in rates if rate is not None), default=None)

    @property
    def last(self) -> int:
        return self.clock.nanoseconds(self.ticks) if self.updates else 0

    def _per_second(self, total: float) -> float | None:
        span = self.last - self.first
        return total * 1e9 / span if self.updates > 1 and span > 0 else None

    @property
    def rate(self) -> float | None:
        """Updates a second, between the first and the last; None where there are fewer than two."""
        return self._per_second(self.updates - 1)

    @property
    def byte_rate(self) -> float | None:
        """Bytes a second of their messages, over the same time; the first, with which it begins, is left out in the mean."""
        return self._per_second(self.bytes * (self.updates - 1) / self.updates) if self.updates else None


@final
class End:
    """A client or a server: its address, and what it said of itself and did.

    peers: connections by the address of the other end. asked: of a client: operations by name. names: PVs that it asked
    for. bytes: of the messages of all its connections, in both directions, once `Summary.settle` was called.
    """

    __slots__ = ("accounts", "address", "asked", "bytes", "connections", "guid", "names", "notes", "peers")

    def __init__(self, address: str) -> None:
        self.address = address
        self.connections = 0
        self.bytes = 0
        self.guid = b""
        self.accounts: dict[str, None] = {}
        self.notes: dict[str, None] = {}
        self.peers: dict[str, int] = {}
        self.asked: dict[str, int] = {}
        self.names: dict[str, None] = {}


@final
class Asker:
    """A client that searches for a name. asked: datagrams or messages; since: those after the last answer."""

    __slots__ = ("answered", "asked", "forwarded", "last", "since", "since_ns")

    def __init__(self) -> None:
        self.asked = 0
        # Copies that a server passed on to others of its host.
        self.forwarded = 0
        self.answered = False
        self.last = 0
        self.since = 0
        self.since_ns = 0


@final
class Search:
    """What is known of a name that is searched for.

    clients: by "address:port" that the answers go to. answers: servers and their GUIDs. connected: hosts that opened the
    channel, whether or not the capture holds the answer that told them where.
    """

    __slots__ = ("answers", "clients", "connected")

    def __init__(self) -> None:
        self.clients: dict[str, Asker] = {}
        self.answers: dict[str, bytes] = {}
        self.connected: dict[str, None] = {}

    @property
    def asked(self) -> int:
        return sum(max(asker.asked, asker.forwarded) for asker in self.clients.values())

    def unanswered(self) -> dict[str, int]:
        """How often the hosts asked that were never answered."""
        # A client asks from each of its addresses and is answered at one.
        ports = {address.rpartition(":")[2] for address, asker in self.clients.items() if asker.answered}
        found: dict[str, int] = {}
        for address, asker in self.clients.items():
            host, _, port = address.rpartition(":")
            if port not in ports and host not in self.connected:
                found[host] = found.get(host, 0) + max(asker.asked, asker.forwarded)
        return found


@final
class Beacons:
    """The beacons of a server's address. changes: of its PVs; missing: numbers left out; back: numbers that went back."""

    __slots__ = ("back", "change", "changes", "count", "first", "guid", "last", "missing", "sequence")

    def __init__(self, guid: bytes, sequence: int, change: int, now: int) -> None:
        self.guid = guid
        self.sequence = sequence
        self.change = change
        self.first = self.last = now
        self.count = 1
        self.missing = self.back = self.changes = 0


class _Waiting(NamedTuple):
    """A request that is not yet answered."""

    since: int
    command: str
    what: str
    pv: str


@final
class _Connection:
    """heard, asks: something came from the server, and from the client; gaps: not all that the client said is known.

    opened: the names of its channels. closing: cids, and sids, that the client closes. doubtful: requests whose number was used
    again, and when: the answer may stand behind a gap that is still to be told. subscribed: PVs and losses by ioid.
    """

    __slots__ = (
        "asks", "bytes", "client", "clock", "closing", "doubtful", "first", "gaps", "heard", "opened", "server",
        "subscribed", "ticks", "waiting",
    )  # fmt: skip

    def __init__(self, client: str, server: str, first: int, ticks: int, clock: Clock) -> None:
        self.client = client
        self.server = server
        self.first = first
        self.ticks = ticks
        self.clock = clock
        self.bytes = 0
        self.heard = self.asks = self.gaps = False
        self.waiting: dict[int | str, _Waiting] = {}
        self.doubtful: list[tuple[_Waiting, int]] = []
        self.opened: dict[str, None] = {}
        self.closing: dict[int, None] = {}
        self.subscribed: dict[int, tuple[Pv, losses.Losses]] = {}


class Unanswered(NamedTuple):
    """Requests without an answer. seconds: how long the longest waited, to the end or until its number was used again."""

    command: str
    pv: str
    client: str
    server: str
    times: int
    seconds: float


class Reconnect(NamedTuple):
    """A host that connected to a server again after an earlier connection was silent. times: ns, of those still known."""

    client: str
    server: str
    connections: int
    again: int
    times: tuple[int, ...]


@final
class Summary:
    """Add records, then print `text()`. Everything is bounded; `dropped` counts what was too much to be kept.

    pvs: by name. servers, clients: by address. latencies: by (server, command). searches: by name. beacons: by address.
    statuses: how often, by (PV or ends, command, type, message). lost: [times, bytes, the first reason] by (direction,
    what, reason without its numbers). unread: messages whose content is not known. restarts: (address, ns) of new
    GUIDs. closed, reopened: how often, by (PV, server), a server closed a channel unasked, and a client opened it again.
    """

    def __init__(self) -> None:
        self.records = 0
        self.bytes = 0
        self.first = 0
        # Without the updates, whose times their PVs have.
        self._last = 0
        self.dropped = 0
        self.pvs: dict[str, Pv] = {}
        self.servers: dict[str, End] = {}
        self.clients: dict[str, End] = {}
        self.latencies: dict[tuple[str, str], Latency] = {}
        self.searches: dict[str, Search] = {}
        self.beacons: dict[str, Beacons] = {}
        self.statuses: dict[tuple[str, str, str, str], int] = {}
        self.lost: dict[tuple[str, str, str], tuple[int, int, str]] = {}
        self.unread: dict[tuple[str, str, str], int] = {}
        self.restarts: list[tuple[str, int]] = []
        self.closed: dict[tuple[str, str], int] = {}
        self.reopened: dict[tuple[str, str], int] = {}
        self._guids: dict[bytes, dict[str, None]] = {}
        self._given_up: dict[tuple[str, str, str, str], tuple[int, int]] = {}
        self._connections: dict[int, _Connection] = {}
        self._ended: dict[tuple[str, str], int] = {}
        # Numbers of connections up to which they may have been forgotten.
        self._forgotten = -1
        self._waits = 0
        self._room = _OF_ALL

    @property
    def last(self) -> int:
        """Nanoseconds of the latest record."""
        return max(self._last, max((pv.last for pv in self.pvs.values()), default=0))

    def add(self, record: Record) -> None:
        """Take a record in."""
        event = record.event
        if event.__class__ is Update:
            _, src, dst, transport, number, _, clock = record
            self.add_batch(Batch([event], src, dst, transport, number, clock))
        else:
            self._add(record)

    def add_batch(self, batch: Batch) -> None:
        """Take in what a packet brought."""
        events, src, dst, transport, number, clock = batch
        operation: Any = None
        pv: Pv | None = None
        lost: losses.Losses | None = None
        updates = size = ticks = 0
        event: Any
        for event in events:
            if event.__class__ is not Update:
                self._add(Record(event, src, dst, transport, number, event.time, clock))
                continue
            # Nearly all that there is.
            if event.operation is not operation:
                if updates:
                    self._count(pv, number, updates, size, ticks, clock)
                    updates = size = 0
                operation = event.operation
                pv = self.pvs.get(operation.pv)
                if pv is None or not pv.updates or number not in self._connections:
                    pv = self._first_update(Record(event, src, dst, transport, number, event.time, clock))
                elif event.time < pv.began:
                    # Those of another subscriber can be told of before.
                    pv.began = event.time
                    pv.first = min(pv.first, clock.nanoseconds(event.time))
                lost = self._subscription(number, operation.ioid, pv, clock)
            updates += 1
            size += event.frame.size
            ticks = event.time
            if lost is not None:
                if event.overrun:
                    self._overrun(lost, event)
                else:
                    lost.add(event)
            if pv is not None and pv.is_image:
                self._frame(pv, event.value)
        if updates:
            self._count(pv, number, updates, size, ticks, clock)

    def _count(
        self, pv: Pv | None, number: int | None, updates: int, size: int, ticks: int, clock: Clock
    ) -> None:
        """Take in updates of one subscription that came together."""
        size += 8 * updates
        self.records += updates
        self.bytes += size
        if pv is not None:
            # Later ones of another subscriber can have been told of before.
            if ticks >= pv.ticks if clock is pv.clock else clock.nanoseconds(ticks) >= pv.last:
                pv.ticks = ticks
                pv.clock = clock
            pv.updates += updates
            pv.bytes += size
        connection = self._connections.get(number)  # type: ignore[arg-type]
        if connection is not None:
            connection.bytes += size
            connection.ticks = ticks
            connection.clock = clock
            connection.heard = True

    def _add(self, record: Record) -> None:
        now = record.ns
        self._moment(now)
        if record.damage is not None:
            self.records += 1
            self._damage(record, record.command)
            return
        connection = self._connected(record)
        if connection is not None:
            if record.direction == "server":
                connection.heard = True
                if connection.doubtful:
                    self._give_up(connection)
            else:
                connection.asks = True
        message = record.message
        command = record.command
        if isinstance(message, messages.MonitorUpdate):
            # One that is not like the others, or of a type that is not known.
            pv = self._pv(record)
            if pv is not None and not pv.updates:
                pv.first = now
                pv.began = record.ticks
            if record.frame is not None:
                self._count(pv, record.connection, 1, record.frame.size, record.ticks, record.clock)
            if connection is not None and message.ioid in connection.subscribed:
                connection.subscribed[message.ioid][1].gap()
            self._note(record, command)
            return
        size = record.size
        self.records += 1
        self.bytes += size
        if connection is not None:
            connection.bytes += size
            connection.ticks = record.ticks
            connection.clock = record.clock
        self._note(record, command)
        status = record.status
        if status is not None and status.type:
            self._status(record, command, status.type.name, status.message)
        if command in _ASKS:
            self._operation(record, connection, command, now)
        elif isinstance(message, messages.RemoteMessage):
            if message.severity >= messages.Severity.WARNING:
                self._status(record, command, message.severity.name, message.text)
        elif isinstance(message, messages.Search):
            self._search(record, message, now)
        elif isinstance(message, messages.SearchResponse):
            self._answer(record, message, now)
        elif isinstance(message, messages.Beacon):
            self._beacon(record, message, now)
        elif connection is not None:
            self._session(record, connection, now)

    def _moment(self, now: int) -> None:
        if not self.first or now < self.first:
            self.first = now
        if now > self._last:
            self._last = now

    # -- tables that are bounded

    def _keep(self, table: dict[Any, Any], key: Any, content: Any = None) -> bool:
        """Put something into one of the small tables; whether it is there."""
        if key in table:
            table[key] = content
            return True
        if len(table) >= _OF_ONE or self._room <= 0:
            self.dropped += 1
            return False
        self._room -= 1
        table[key] = content
        return True

    def _tally(self, table: dict[Any, int], key: Any) -> None:
        """Count something in one of the large tables."""
        n = table.get(key)
        if n is None and len(table) >= _MOST:
            self.dropped += 1
        else:
            table[key] = (n or 0) + 1

    def _pv(self, record: Record) -> Pv | None:
        name = _one(record.pv)
        if not name:
            if record.ioid is None or record.connection is None:
                return None
            # Of a conversation that was joined later, or heard from one side.
            ends = (record.src, record.dst) if record.direction == "server" else (record.dst, record.src)
            name = f"? ioid {record.ioid}, {ends[0]} → {ends[1]}"
        pv = self.pvs.get(name)
        if pv is None:
            if len(self.pvs) >= _MOST:
                self.dropped += 1
                return None
            pv = self.pvs[name] = Pv(name)
        return pv

    def _end(self, table: dict[str, End], address: str) -> End | None:
        end = table.get(address)
        if end is None:
            if len(table) >= _MOST:
                self.dropped += 1
                return None
            end = table[address] = End(address)
        return end

    # -- what came

    def _first_update(self, record: Record) -> Pv | None:
        """The first update of a PV, or of a connection."""
        self._connected(record)
        now = record.ns
        self._moment(now)
        pv = self._pv(record)
        if pv is not None and not pv.updates:
            pv.first = now
            pv.began = record.ticks
            _learn(pv, record.value.type)
        return pv

    def _subscription(
        self, number: int | None, ioid: int, pv: Pv | None, clock: Clock
    ) -> losses.Losses | None:
        """The losses of a subscription; None if there is no room for them."""
        connection = self._connections.get(number)  # type: ignore[arg-type]
        if connection is None or pv is None:
            return None
        known = connection.subscribed.get(ioid)
        if known is not None and known[0] is pv:
            return known[1]
        if self._room <= 0:
            self.dropped += 1
            return None
        self._room -= 1
        lost = losses.Losses(per_second=clock.per_second)
        connection.subscribed[ioid] = pv, lost
        pv.subscriptions.append(Subscription(connection.client, connection.server, lost))
        return lost

    def _overrun(self, lost: losses.Losses, update: Update) -> None:
        """Take an update with overruns in; their names take room."""
        if self._room <= 0:
            self.dropped += 1
            lost.add(Update(update.operation, update.frame, update.value, time=update.time))
            return
        before = len(lost.overruns)
        lost.add(update)
        self._room -= len(lost.overruns) - before

    def _frame(self, pv: Pv, held: value.Value) -> None:
        """A frame, if the pixels are among what came."""
        type = held.type
        if "value" not in held or "dimension" not in held:
            return
        changed = held.changed
        if 0 not in changed and type.index("value") not in changed:
            return
        array = getattr(held["value"], "value", None)
        if not isinstance(array, np.ndarray):
            return
        pv.frames += 1
        pv.pixels += array.nbytes
        try:
            frame = Frame(held)
        except PvaError:
            # Its sizes are wrong, or its codec is not known: what it says of itself.
            sizes = held["dimension"] if isinstance(held["dimension"], list) else []
            shown = [item["size"] for item in reversed(sizes) if item is not None and "size" in item]
            codec = str(held["codec.name"]) if "codec.name" in type else ""
            dtype = "" if codec else array.dtype.name
        else:
            codec, dtype, shown = frame.codec, frame.dtype.name, list(frame.shape)
            pv.unpacked += frame.nbytes
        shape = f"{dtype} {'×'.join(map(str, shown))}".strip()[:_CHARACTERS]
        if shape != pv.shape:
            pv.shape = shape
            pv.shapes += 1
        pv.codec = codec[:_CHARACTERS]

    def _operation(self, record: Record, connection: _Connection | None, command: str, now: int) -> None:
        """A request, which waits for its answer, or an answer."""
        pv = self._pv(record)
        sub = record.subcommand or 0
        type = record.type
        if pv is not None and type is not None:
            _learn(pv, type)
        ioid = record.ioid
        if record.direction == "client":
            what = f"{command} INIT" if sub & 0x08 else _VARIANTS.get((command, sub & _VARIANT), command)
            self._asks(record, command, what, pv)
            if command == "MONITOR" and not sub & 0x08:
                # Start, stop, ack and destroy are not answered.
                if pv is not None and not pv.started and isinstance(record.message, messages.MonitorStart):
                    pv.started = now
            elif connection is not None and ioid is not None:
                self._wait(connection, ioid, _Waiting(now, command, what, pv.name if pv is not None else ""))
            return
        held = record.value
        if pv is not None and isinstance(held, value.Value) and command != "RPC":
            _learn(pv, held.type)
            if pv.is_image and command != "MONITOR":
                self._frame(pv, held)
        if connection is None or ioid is None:
            return
        if command == "MONITOR" and sub & 0x08:
            connection.subscribed.pop(ioid, None)  # of a subscription before it
        asked = connection.waiting.get(ioid)
        if asked is not None and asked.command == command and (command != "MONITOR" or sub & 0x08):
            self._answered(connection, ioid, now, pv)

    def _asks(self, record: Record, command: str, what: str, pv: Pv | None) -> None:
        first = what.endswith(" INIT")
        subscribes = first and command == "MONITOR"
        if pv is not None and (subscribes if command == "MONITOR" else not first):
            name = command if subscribes else what
            pv.commands[name] = pv.commands.get(name, 0) + 1
        client = self._end(self.clients, record.src)
        if client is not None and (first or command == "GET_FIELD"):
            client.asked[command] = client.asked.get(command, 0) + 1
            if pv is not None:
                self._keep(client.names, pv.name)

    def _wait(self, connection: _Connection, key: int | str, request: _Waiting) -> None:
        """A request waits for its answer. Another one of the same number, before it, will get none."""
        waiting = connection.waiting
        old = waiting.pop(key, None)
        if old is None and self._waits < _MOST:
            self._waits += 1
        elif old is None and not waiting:
            self.dropped += 1
            return
        else:
            connection.doubtful.append((old or waiting.pop(next(iter(waiting))), request.since))
            if len(connection.doubtful) >= _DOUBTFUL:
                self._give_up(connection)
        waiting[key] = request

    def _answered(self, connection: _Connection, key: int | str, now: int, pv: Pv | None = None) -> None:
        asked = connection.waiting.pop(key, None)
        if asked is None:
            return
        self._waits -= 1
        seconds = (now - asked.since) / 1e9
        if seconds < 0:
            return  # told of late, behind a gap
        self._latency(connection.server, asked.what, seconds, asked.pv)
        if pv is not None:
            latency = pv.latencies.get(asked.what) or Latency()
            if latency.count or self._keep(pv.latencies, asked.what, latency):
                latency.add(seconds, pv.name)

    def _give_up(self, connection: _Connection) -> None:
        """The doubtful requests of a connection have no answer."""
        requests, connection.doubtful = connection.doubtful, []
        if not connection.heard:
            return  # nothing of the server is in the capture: it may have answered
        for request, until in requests:
            key = (request.what, request.pv, connection.client, connection.server)
            found = self._given_up.get(key)
            if found is None and len(self._given_up) >= _MOST:
                self.dropped += 1
                continue
            count, longest = found or (0, 0)
            self._given_up[key] = count + 1, max(longest, until - request.since)

    def _latency(self, server: str, what: str, seconds: float, pv: str) -> None:
        key = (server, what)
        latency = self.latencies.get(key)
        if latency is None:
            if len(self.latencies) >= _MOST:
                self.dropped += 1
                return
            latency = self.latencies[key] = Latency()
        latency.add(seconds, pv)

    def _status(self, record: Record, command: str, kind: str, text: str) -> None:
        where = _one(record.pv) or f"{record.src} → {record.dst}"
        self._tally(self.statuses, (where, command, kind, text[:_CHARACTERS]))

    def _note(self, record: Record, command: str) -> None:
        """What could not be understood of a message; that values are out of date follows from losses, which are told."""
        message = record.message
        if message is None or message.reason:
            self._tally(self.unread, (f"{record.src} → {record.dst}", command, _same(record.note)))

    # -- connections and channels

    def _connected(self, record: Record) -> _Connection | None:
        number = record.connection
        if number is None:
            return None
        found = self._connections.get(number)
        return self._connect(record, number) if found is None else found

    def _connect(self, record: Record, number: int) -> _Connection:
        """The first message of a connection."""
        client, server = (
            (record.dst, record.src) if record.direction == "server" else (record.src, record.dst)
        )
        if len(self._connections) >= _MOST:
            oldest = next(iter(self._connections))
            self._forget(oldest, self._connections.pop(oldest), record.ns)
        connection = _Connection(client, server, record.ns, record.ticks, record.clock)
        self._connections[number] = connection
        again = number <= self._forgotten
        for table, address, other in ((self.servers, server, client), (self.clients, client, server)):
            end = self._end(table, address)
            if end is not None and not again:
                end.connections += 1
                self._keep(end.peers, other, end.peers.get(other, 0) + 1)
        return connection

    def _forget(self, number: int, connection: _Connection, now: int) -> None:
        """Make room for a newer connection."""
        self._forgotten = max(self._forgotten, number)
        self._waits -= len(connection.waiting)
        connection.doubtful += [(request, now) for request in connection.waiting.values()]
        self._give_up(connection)
        self._room += len(connection.opened) + len(connection.closing)
        self._settle(connection)
        self._tally(self._ended, (host_of(connection.client), connection.server))

    def _settle(self, connection: _Connection) -> None:
        for table, address in ((self.servers, connection.server), (self.clients, connection.client)):
            end = table.get(address)
            if end is not None:
                end.bytes += connection.bytes
        connection.bytes = 0

    def settle(self) -> None:
        """Add what the connections carried to their ends' `bytes`. More records can be added afterwards."""
        for connection in self._connections.values():
            self._settle(connection)

    def _session(self, record: Record, connection: _Connection, now: int) -> None:
        """The handshake, channels opened and closed, echoes."""
        message = record.message
        frame = record.frame
        if isinstance(message, messages.CreateChannel):
            for cid, name in message.channels:
                name = name[:_CHARACTERS]
                if name in connection.opened:
                    self._tally(self.reopened, (name, connection.server))
                self._wait(connection, ~cid, _Waiting(now, record.command, record.command, name))
        elif isinstance(message, messages.CreateChannelReply):
            self._answered(connection, ~message.cid, now)
            name = _one(record.pv)
            if message.status.ok and message.sid != messages.NO_CHANNEL and name:
                self._keep(connection.opened, name)
                search = self.searches.get(name)
                if search is not None:
                    self._keep(search.connected, host_of(connection.client))
        elif isinstance(message, messages.DestroyChannel):
            # Old clients of pvAccessCPP swap the two numbers.
            ids = (message.cid, ~message.sid)
            if record.direction == "client":
                for number in ids:
                    self._keep(connection.closing, number)
            elif any(number in connection.closing for number in ids):
                for number in ids:
                    if connection.closing.pop(number, 0) is None:
                        self._room += 1
            elif connection.asks and not connection.gaps:
                where = _one(record.pv) or f"channel {message.cid} of {record.dst}"
                self._tally(self.closed, (where, record.src))
        elif isinstance(message, messages.Echo):
            if record.direction == "client":
                self._wait(connection, "ECHO", _Waiting(now, "ECHO", "ECHO", ""))
            else:
                self._answered(connection, "ECHO", now)
        elif isinstance(message, messages.ConnectionValidationResponse):
            self._wait(connection, "", _Waiting(now, record.command, record.command, ""))
            self._account(record, message)
        elif isinstance(message, messages.ConnectionValidated):
            self._answered(connection, "", now)
        elif isinstance(message, messages.ConnectionValidationRequest) and frame is not None:
            end = self._end(self.servers, record.src)
            if end is not None:
                self._keep(end.notes, f"version {frame.version}")
                self._keep(end.notes, "big-endian" if frame.byteorder == "big" else "little-endian")

    def _account(self, record: Record, message: messages.ConnectionValidationResponse) -> None:
        end = self._end(self.clients, record.src)
        frame = record.frame
        if end is None or frame is None:
            return
        data = message.data
        held = data if isinstance(data, value.Value) else getattr(data, "value", None)
        who = ""
        if isinstance(held, value.Value) and "user" in held:
            who = f"{held['user']}@{held['host']}" if "host" in held else str(held["user"])
        if message.method != "ca" or not who:
            who = f"{message.method} {who}".strip()
        self._keep(end.accounts, who[:_CHARACTERS])
        self._keep(end.notes, f"version {frame.version}")
        self._keep(end.notes, "big-endian" if frame.byteorder == "big" else "little-endian")

    # -- search and beacons

    def _search(self, record: Record, message: messages.Search, now: int) -> None:
        if record.transport == "udp":
            client = f"{_bracketed(message.address) or host_of(record.src)}:{message.port}"
        else:
            client = record.src
        forwarded = host_of(record.dst) == _FORWARDED and message.address != ""
        for _, name in message.channels:
            name = name[:_CHARACTERS]
            search = self.searches.get(name)
            if search is None:
                if len(self.searches) >= _MOST:
                    self.dropped += 1
                    continue
                search = self.searches[name] = Search()
            asker = search.clients.get(client)
            if asker is None:
                asker = Asker()
                if not self._keep(search.clients, client, asker):
                    continue
            if forwarded:
                asker.forwarded += 1
                if asker.asked:
                    continue  # seen already
            else:
                asker.asked += 1
            asker.last = now
            if not asker.since:
                asker.since_ns = now
            asker.since += 1

    def _answer(self, record: Record, message: messages.SearchResponse, now: int) -> None:
        address = f"{_bracketed(message.address) or host_of(record.src)}:{message.port}"
        self._guid(message.guid, address, now)
        if not message.found:
            return
        for name in record.pv if isinstance(record.pv, tuple) else ():
            search = self.searches.get(name[:_CHARACTERS])
            if search is None:
                continue
            self._keep(search.answers, address, message.guid)
            asker = search.clients.get(record.dst)
            # It may be answered at another port than it asked to be.
            host = host_of(record.dst)
            askers = (
                [asker] if asker else [a for client, a in search.clients.items() if host_of(client) == host]
            )
            for asker in askers:
                if asker.since and now >= asker.last:
                    self._latency(address, "SEARCH", (now - asker.last) / 1e9, name)
                asker.answered = True
                asker.since = 0

    def _guid(self, guid: bytes, address: str, now: int) -> None:
        """A server tells its GUID: a new one at the same address is a new server."""
        known = self._guids.get(guid)
        if known is None:
            if len(self._guids) >= _MOST:
                self.dropped += 1
                return
            known = self._guids[guid] = {}
        end = self._end(self.servers, address)
        if end is not None and end.guid != guid:
            if end.guid and address not in known and len(self.restarts) < _MOST:
                self.restarts.append((address, now))
            end.guid = guid
        self._keep(known, address)

    def _beacon(self, record: Record, message: messages.Beacon, now: int) -> None:
        address = f"{_bracketed(message.address) or host_of(record.src)}:{message.port}"
        self._guid(message.guid, address, now)
        known = self.beacons.get(address)
        if known is None:
            if len(self.beacons) >= _MOST:
                self.dropped += 1
                return
            self.beacons[address] = Beacons(message.guid, message.sequence, message.change_count, now)
            return
        if message.guid == known.guid:
            step = (message.sequence - known.sequence) & 0xFF
            if not step:
                return  # the same beacon, sent to several addresses
            if step < 0x80:
                known.missing += step - 1
            else:
                known.back += 1
            known.changes += message.change_count != known.change
        known.guid, known.sequence, known.change = message.guid, message.sequence, message.change_count
        known.count += 1
        known.last = now

    # -- losses

    def _damage(self, record: Record, command: str) -> None:
        damage = record.damage
        assert damage is not None
        self.bytes += damage.lost
        what = "missing" if damage.missing else "not decoded"
        reason = damage.reason if not damage.missing or damage.lost else "bytes of the stream are missing"
        if damage.frame is not None:
            reason = f"{command}: {reason}"
        key = (f"{record.src} → {record.dst}", what, _same(reason))
        found = self.lost.get(key)
        if found is None and len(self.lost) >= _MOST:
            self.dropped += 1
        else:
            times, size, why = found or (0, 0, reason[:_CHARACTERS])
            self.lost[key] = times + 1, size + (damage.missing or damage.lost), why
        number = record.connection
        connection = None if number is None else self._connections.get(number)
        if connection is None:
            return
        if damage.direction != "server":
            connection.gaps = True
        if damage.direction != "client":
            # The answers, and updates, may have been in what is lost.
            connection.doubtful.clear()
            operation = damage.operation
            for ioid, (_, lost) in connection.subscribed.items():
                if operation is None or operation.ioid == ioid:
                    lost.gap()
            answered: list[int | str] = list(connection.waiting) if operation is None else [operation.ioid]
            for request in answered:
                if connection.waiting.pop(request, None) is not None:
                    self._waits -= 1

    # -- what it comes to

    def reconnects(self) -> list[Reconnect]:
        """Hosts that connected to a server again when an earlier connection had come to its end, the most first.

        Connections that say something at the same time are of several clients.
        """
        pairs: dict[tuple[str, str], list[tuple[int, int]]] = {pair: [] for pair in self._ended}
        for connection in self._connections.values():
            pair = (host_of(connection.client), connection.server)
            span = (connection.first, connection.clock.nanoseconds(connection.ticks))
            pairs.setdefault(pair, []).append(span)
        found = []
        for (client, server), spans in pairs.items():
            ended = self._ended.get((client, server), 0)
            free: list[int] = []
            times = []
            for first, last in sorted(spans):
                if free and free[0] < first:
                    heapreplace(free, last)
                    times.append(first)
                else:
                    heappush(free, last)
            if times or ended:
                again = len(times) + (ended if spans else ended - 1)
                if again:
                    found.append(Reconnect(client, server, len(spans) + ended, again, tuple(times)))
        return sorted(found, key=lambda item: -item.again)

    def one_sided(self) -> list[tuple[str, str]]:
        """(client, server) of the connections of which only the client's direction is in the capture."""
        return [(c.client, c.server) for c in self._connections.values() if not c.heard]

    def unanswered_searches(self) -> list[tuple[str, int, list[str]]]:
        """(name, how often it was searched, by which hosts) of the names that were never answered, the most first.

        Of hosts that were not, where others were.
        """
        found = [(name, search.unanswered()) for name, search in self.searches.items()]
        listed = [(name, sum(hosts.values()), list(hosts)) for name, hosts in found if hosts]
        return sorted(listed, key=lambda item: (-item[1], item[0]))

    def lost_searches(self) -> list[tuple[str, int, list[str]]]:
        """The same of names that were answered at first and are searched for again without an answer."""
        found = []
        for name, search in self.searches.items():
            hosts: dict[str, int] = {}
            for client, asker in search.clients.items():
                if asker.answered and asker.since >= _LOST_ASKED and asker.last - asker.since_ns >= _LOST_NS:
                    hosts[host_of(client)] = hosts.get(host_of(client), 0) + asker.since
            if hosts:
                found.append((name, sum(hosts.values()), list(hosts)))
        return sorted(found, key=lambda item: (-item[1], item[0]))

    def answered_twice(self) -> list[tuple[str, list[str]]]:
        """(name, addresses) of the names that several servers claim. One of several addresses has one GUID."""
        return [
            (name, list(search.answers))
            for name, search in self.searches.items()
            if len(search.answers) > 1 and len(set(search.answers.values())) > 1
        ]

    def duplicate_guids(self) -> list[tuple[str, list[str]]]:
        """(GUID, addresses) of GUIDs that were seen at several addresses: a copied one, or a server of several networks.

        A loopback address is no other one than that of the same port.
        """
        found = []
        for guid, known in self._guids.items():
            ports = {a.rpartition(":")[2] for a in known if not _is_loopback(a)}
            addresses = [a for a in known if not _is_loopback(a) or a.rpartition(":")[2] not in ports]
            if len(addresses) > 1:
                found.append((guid.hex(), addresses))
        return found

    def unanswered(self) -> list[Unanswered]:
        """Requests that were not answered, those that waited longest first.

        Where answers may have been lost, or are of the direction that the capture does not hold, nothing is said.
        """
        found = dict(self._given_up)
        end = self.last
        for connection in self._connections.values():
            if not connection.heard:
                continue
            for request, until in (
                *connection.doubtful,
                *((waiting, end) for waiting in connection.waiting.values()),
            ):
                key = (request.what, request.pv, connection.client, connection.server)
                count, longest = found.get(key, (0, 0))
                found[key] = count + 1, max(longest, until - request.since)
        listed = [Unanswered(*key, count, ns / 1e9) for key, (count, ns) in found.items()]
        return sorted(listed, key=lambda item: (-item.seconds, item.pv))

    def silent(self) -> list[tuple[str, float]]:
        """(PV, seconds until the end) of the monitors that were started and of which no update came, the longest first."""
        end = self.last
        found = [
            (pv.name, (end - pv.started) / 1e9) for pv in self.pvs.values() if pv.started and not pv.updates
        ]
        return sorted(found, key=lambda item: -item[1])

    def problems(self) -> list[tuple[str, list[str]]]:
        """(heading, lines) of all that is wrong."""
        return report.problems(self)

    def text(self, width: int | None = None) -> str:
        """The report; lines are cut at `width` characters."""
        return report.text(self, width)


def type_name(type: introspection.FieldDesc | None) -> str:
    """A type in a few words: "NTScalar double", "NTNDArray", or its id."""
    if type is None:
        return ""
    if type.code != STRUCTURE:
        return type.format("short")
    name = type.id
    if name.startswith("epics:nt/"):
        name = name.removeprefix("epics:nt/").partition(":")[0]
    name = name[:_CHARACTERS] or "structure"
    held = type.members.get("value")
    if held is None or held.code in (UNION, STRUCTURE):
        return name
    short = held.format("short")
    return f"{name} {short}" if len(short) < 30 else name


def _learn(pv: Pv, type: introspection.FieldDesc) -> None:
    """The type of a PV: the first told of it, but the whole type rather than a part that someone selected of it."""
    if pv.type and (pv.type.startswith("NT") or not type.id.startswith("epics:nt/")):
        return
    pv.type = type_name(type)
    pv.is_image = pv.type.startswith("NTNDArray")


def _one(pv: str | tuple[str, ...]) -> str:
    return (pv if isinstance(pv, str) else ", ".join(name for name in pv if name))[:_CHARACTERS]


def _same(reason: str) -> str:
    """A reason without the numbers in it, by which many are one."""
    return "".join("#" if c.isdigit() else c for c in reason[:_CHARACTERS])


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _is_loopback(address: str) -> bool:
    return address.startswith(("127.", "[::1]"))

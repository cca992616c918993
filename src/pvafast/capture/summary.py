"""What a capture tells, summed up: what went wrong, the PVs, who asks whom for what, how long answers took."""

from __future__ import annotations

from typing import Any, Final, final

import numpy as np

from .. import messages
from .._backend import bitset, introspection, value
from .._types import STRUCTURE, UNION
from ..connection import Update
from .events import Clock
from .records import Batch, Record

# What is kept of anything that a peer can make endless; what does not fit is counted.
_MOST: Final = 100_000
_WAITING_MOST: Final = 100_000
# Lines of a section.
_LINES: Final = 20
# Latencies are counted in bins a twentieth of a decade wide, from 1 ns to 10,000 s.
_BINS: Final = 13 * 20
_ASKS: Final = frozenset({"GET", "PUT", "PUT_GET", "MONITOR", "ARRAY", "PROCESS", "RPC", "GET_FIELD"})


@final
class Latency:
    """How long answers took: count, and quantiles to within 6 % of bins; the longest exactly. Seconds."""

    __slots__ = ("_bins", "count", "longest")

    def __init__(self) -> None:
        self._bins = [0] * _BINS
        self.count = 0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """One answer."""
        self.count += 1
        self.longest = max(self.longest, seconds)
        place = int(20 * (np.log10(max(seconds, 1e-9)) + 9))
        self._bins[min(max(place, 0), _BINS - 1)] += 1

    def quantile(self, part: float) -> float:
        """The middle of the bin in which a part of the answers is reached; never above the longest."""
        wanted = part * self.count
        reached = 0
        for place, n in enumerate(self._bins):
            reached += n
            if n and reached >= wanted:
                return min(10 ** ((place + 0.5) / 20 - 9), self.longest)
        return self.longest


@final
class Pv:
    """What a PV did. updates: of monitors; bytes: of their messages; first, last: ns of the updates."""

    __slots__ = (
        "bytes", "clock", "commands", "first", "frames", "is_image", "name", "overruns", "pixels", "shape", "ticks", "type",
        "updates",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.type = ""
        self.updates = 0
        self.bytes = 0
        self.first = 0
        # Of the last update, as the capture counts.
        self.ticks = 0
        self.clock = Clock()
        self.is_image = False
        self.frames = 0
        self.pixels = 0
        self.shape = ""
        self.commands: dict[str, int] = {}
        self.overruns: dict[str, int] = {}

    @property
    def last(self) -> int:
        return self.clock.nanoseconds(self.ticks) if self.updates else 0

    @property
    def rate(self) -> float | None:
        """Updates a second, between the first and the last; None where there are fewer than two."""
        span = self.last - self.first
        return (self.updates - 1) * 1e9 / span if self.updates > 1 and span > 0 else None


@final
class End:
    """A client or a server: its address, and what it said of itself and did."""

    __slots__ = ("address", "asked", "connections", "guid", "names", "notes", "peers")

    def __init__(self, address: str) -> None:
        self.address = address
        self.connections = 0
        self.guid = b""
        self.notes: dict[str, None] = {}
        self.peers: dict[str, int] = {}
        self.asked: dict[str, int] = {}
        self.names: dict[str, None] = {}


class _Names:
    """What is known of a name that is searched for."""

    __slots__ = ("answers", "asked", "clients", "since")

    def __init__(self, since: int) -> None:
        self.asked = 0
        self.since = since
        self.clients: dict[str, None] = {}
        self.answers: dict[str, None] = {}


class _Beacons:
    __slots__ = ("change", "count", "guid", "sequence")

    def __init__(self) -> None:
        self.guid = b""
        self.sequence = -1
        self.change = -1
        self.count = 0


def _keep(table: dict[Any, None], key: Any) -> None:
    if len(table) < _LINES * 50:
        table[key] = None


@final
class Summary:
    """Add records, then print `text()`. Everything is bounded; `dropped` counts what was too much to be kept.

    pvs: by name. servers, clients: by address. latencies: by (server, command). problems(): lines.
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
        self.searches: dict[str, _Names] = {}
        self.statuses: dict[tuple[str, str, str, str], int] = {}
        self.lost: dict[tuple[str, str, str], list[int]] = {}
        self._guids: dict[bytes, dict[str, None]] = {}
        self._beacons: dict[str, _Beacons] = {}
        self._jumps: dict[str, int] = {}
        self._waiting: dict[tuple[int | None, int | None, str], tuple[int, str, str]] = {}
        self._connections: dict[int, tuple[str, str]] = {}
        self._pairs: dict[tuple[str, str], int] = {}
        self._channels: dict[tuple[str, str, str], int] = {}
        self._asked_channels: dict[tuple[int | None, int], int] = {}

    @property
    def last(self) -> int:
        """Nanoseconds of the latest record."""
        return max(self._last, max((pv.last for pv in self.pvs.values()), default=0))

    def add(self, record: Record) -> None:
        """Take a record in."""
        if record.event.__class__ is Update:
            event, src, dst, transport, number, _, clock = record
            self.add_batch(Batch([event], src, dst, transport, number, clock))
        else:
            self._add(record)

    def add_batch(self, batch: Batch) -> None:
        """Take in what a packet brought."""
        events, src, dst, transport, number, clock = batch
        operation: Any = None
        pv: Pv | None = None
        updates = size = 0
        event: Any
        for event in events:
            if event.__class__ is not Update:
                self._add(Record(event, src, dst, transport, number, event.time, clock))
                continue
            # Nearly all that there is.
            if event.operation is not operation:
                self._count(pv, updates, size, event.time, clock)
                updates = size = 0
                operation = event.operation
                pv = self.pvs.get(operation.pv)
                if pv is None or not pv.updates or number not in self._connections:
                    pv = self._first_update(Record(event, src, dst, transport, number, event.time, clock))
            updates += 1
            size += event.frame.size
            if pv is not None:
                if pv.is_image:
                    self._frame(pv, event.value)
                if event.overrun:
                    self._overrun(pv, event.value, event.overrun)
        if updates:
            self._count(pv, updates, size, events[-1].time, clock)

    def _count(self, pv: Pv | None, updates: int, size: int, ticks: int, clock: Clock) -> None:
        """Take in updates of one subscription that came together."""
        size += 8 * updates
        self.records += updates
        self.bytes += size
        if pv is not None and updates:
            pv.updates += updates
            pv.bytes += size
            pv.ticks = ticks
            pv.clock = clock

    def _add(self, record: Record) -> None:
        self.records += 1
        self.bytes += record.size
        command = record.command
        now = record.ns
        if not self.first:
            self.first = now
        if now > self._last:
            self._last = now
        if record.damage is not None:
            self._damage(record, command)
            return
        if record.connection is not None and record.connection not in self._connections:
            self._connect(record)
        status = record.status
        if status is not None and not status.ok:
            key = (_one(record.pv), command, status.type.name, status.message)
            if key in self.statuses or len(self.statuses) < _MOST:
                self.statuses[key] = self.statuses.get(key, 0) + 1
            else:
                self.dropped += 1
        if command in _ASKS:
            self._operation(record, command, now)
        elif command == "CREATE_CHANNEL":
            self._channel(record, now)
        elif command == "CONNECTION_VALIDATION":
            self._validation(record)
        elif command == "SEARCH":
            self._search(record, now)
        elif command == "SEARCH_RESPONSE":
            self._answer(record)
        elif command == "BEACON":
            self._beacon(record)

    # -- what came

    def _pv(self, record: Record) -> Pv | None:
        name = _one(record.pv)
        if not name:
            return None
        pv = self.pvs.get(name)
        if pv is None:
            if len(self.pvs) >= _MOST:
                self.dropped += 1
                return None
            pv = self.pvs[name] = Pv(name)
        return pv

    def _first_update(self, record: Record) -> Pv | None:
        """The first update of a PV, or of a connection."""
        if record.connection is not None and record.connection not in self._connections:
            self._connect(record)
        now = record.ns
        self.first = self.first or now
        pv = self._pv(record)
        if pv is not None and not pv.updates:
            pv.first = now
            pv.type = pv.type or type_name(record.value.type)
            pv.is_image = pv.type.startswith("NTNDArray")
        return pv

    def _overrun(self, pv: Pv, held: value.Value, overrun: bitset.BitSet) -> None:
        names = held.type.names
        for i in overrun.expand(held.type):
            if names[i] in pv.overruns or len(pv.overruns) < 1000:
                pv.overruns[names[i]] = pv.overruns.get(names[i], 0) + 1

    def _frame(self, pv: Pv, held: value.Value) -> None:
        if "value" not in held or "dimension" not in held:
            return
        pixels = held["value"]
        array = getattr(pixels, "value", None)
        if not isinstance(array, np.ndarray):
            return
        pv.frames += 1
        pv.pixels += array.nbytes
        try:
            sizes = [int(item["size"]) for item in reversed(held["dimension"]) if item is not None]
            codec = str(held["codec.name"]) if "codec.name" in held else ""
        except (KeyError, TypeError, AttributeError):
            return
        kind = codec if codec else array.dtype.name
        pv.shape = f"{kind} {'×'.join(map(str, sizes))}"

    def _operation(self, record: Record, command: str, now: int) -> None:
        """A request, which waits for its answer, or an answer."""
        pv = self._pv(record)
        key = (record.connection, record.ioid, command)
        if record.type is not None and pv is not None and not pv.type:
            pv.type = type_name(record.type)
        if record.direction == "client":
            self._asks(record, command, pv)
            if command == "MONITOR" and not (record.subcommand or 0) & 0x08:
                return  # start, stop, ack and destroy are not answered
            if len(self._waiting) >= _WAITING_MOST:
                del self._waiting[next(iter(self._waiting))]
                self.dropped += 1
            self._waiting[key] = (now, _one(record.pv), record.src)
            return
        if pv is not None and not pv.type and record.value is not None:
            pv.type = type_name(getattr(record.value, "type", None))
        if pv is not None and pv.type.startswith("NTNDArray") and isinstance(record.value, value.Value):
            self._frame(pv, record.value)
        asked = self._waiting.pop(key, None)
        if asked is not None:
            self._latency(record.src, command, now - asked[0])

    def _asks(self, record: Record, command: str, pv: Pv | None) -> None:
        client = self._end(self.clients, record.src)
        if pv is not None and not (record.subcommand or 0) & 0x08 and command != "MONITOR":
            pv.commands[command] = pv.commands.get(command, 0) + 1
        if client is not None:
            if command not in client.asked:
                client.asked[command] = 0
            if (record.subcommand or 0) & 0x08 or command == "GET_FIELD":
                client.asked[command] += 1
                if pv is not None:
                    _keep(client.names, pv.name)

    def _latency(self, server: str, command: str, ns: int) -> None:
        key = (server, command)
        latency = self.latencies.get(key)
        if latency is None:
            if len(self.latencies) >= _MOST:
                self.dropped += 1
                return
            latency = self.latencies[key] = Latency()
        latency.add(ns / 1e9)

    def _channel(self, record: Record, now: int) -> None:
        message = record.message
        if isinstance(message, messages.CreateChannel):
            for cid, name in message.channels:
                key = (record.src.rpartition(":")[0], record.dst, name)
                if len(self._channels) < _MOST or key in self._channels:
                    self._channels[key] = self._channels.get(key, 0) + 1
                if len(self._asked_channels) >= _WAITING_MOST:
                    del self._asked_channels[next(iter(self._asked_channels))]
                self._asked_channels[record.connection, cid] = now
        elif isinstance(message, messages.CreateChannelReply):
            asked = self._asked_channels.pop((record.connection, message.cid), None)
            if asked is not None:
                self._latency(record.src, "CREATE_CHANNEL", now - asked)

    def _connect(self, record: Record) -> None:
        """The first message of a connection."""
        assert record.connection is not None
        client, server = (
            (record.dst, record.src) if record.direction == "server" else (record.src, record.dst)
        )
        if len(self._connections) >= _MOST:
            self.dropped += 1
            return
        self._connections[record.connection] = client, server
        pair = (client.rpartition(":")[0], server)
        self._pairs[pair] = self._pairs.get(pair, 0) + 1
        for table, address, other in ((self.servers, server, client), (self.clients, client, server)):
            end = self._end(table, address)
            if end is not None:
                end.connections += 1
                if other in end.peers or len(end.peers) < 1000:
                    end.peers[other] = end.peers.get(other, 0) + 1
        frame = record.frame
        end = self.servers.get(server)
        if end is not None and frame is not None:
            end.notes["big-endian" if frame.byteorder == "big" else "little-endian"] = None

    def _end(self, table: dict[str, End], address: str) -> End | None:
        end = table.get(address)
        if end is None:
            if len(table) >= _MOST:
                self.dropped += 1
                return None
            end = table[address] = End(address)
        return end

    def _validation(self, record: Record) -> None:
        message = record.message
        frame = record.frame
        if isinstance(message, messages.ConnectionValidationResponse):
            end = self._end(self.clients, record.src)
            if end is not None:
                data = message.data
                who = message.method
                if isinstance(data, value.Value) and "user" in data:
                    who = f"{data['user']}@{data['host']}" if "host" in data else str(data["user"])
                _keep(end.notes, who)
        elif isinstance(message, messages.ConnectionValidationRequest) and frame is not None:
            end = self._end(self.servers, record.src)
            if end is not None:
                _keep(end.notes, f"protocol version {frame.version}")

    def _search(self, record: Record, now: int) -> None:
        message = record.message
        if not isinstance(message, messages.Search):
            return
        for _, name in message.channels:
            found = self.searches.get(name)
            if found is None:
                if len(self.searches) >= _MOST:
                    self.dropped += 1
                    continue
                found = self.searches[name] = _Names(now)
            found.asked += 1
            _keep(found.clients, record.src.rpartition(":")[0])

    def _answer(self, record: Record) -> None:
        message = record.message
        if not isinstance(message, messages.SearchResponse):
            return
        host = record.src.rpartition(":")[0]
        address = f"{message.address or host}:{message.port}"
        self._guid(message.guid, address)
        if not message.found:
            return
        for name in record.pv if isinstance(record.pv, tuple) else ():
            found = self.searches.get(name)
            if found is not None:
                _keep(found.answers, address)

    def _guid(self, guid: bytes, address: str) -> None:
        known = self._guids.get(guid)
        if known is None:
            if len(self._guids) >= _MOST:
                self.dropped += 1
                return
            known = self._guids[guid] = {}
        _keep(known, address)

    def _beacon(self, record: Record) -> None:
        message = record.message
        if not isinstance(message, messages.Beacon):
            return
        address = f"{message.address or record.src.rpartition(':')[0]}:{message.port}"
        self._guid(message.guid, address)
        known = self._beacons.get(address)
        if known is None:
            if len(self._beacons) >= _MOST:
                self.dropped += 1
                return
            known = self._beacons[address] = _Beacons()
        elif message.guid != known.guid:
            self._jump(f"{address}: a new GUID: the server was restarted")
        else:
            step = (message.sequence - known.sequence) & 0xFF
            # The same beacon, seen on several interfaces or sent to several addresses, is none.
            if step > 1:
                self._jump(f"{address}: beacons are missing or jumped")
            if message.change_count != known.change:
                self._jump(f"{address}: its PVs changed")
        known.guid, known.sequence, known.change = message.guid, message.sequence, message.change_count
        known.count += 1

    def _jump(self, text: str) -> None:
        if text in self._jumps or len(self._jumps) < _MOST:
            self._jumps[text] = self._jumps.get(text, 0) + 1

    def _damage(self, record: Record, command: str) -> None:
        damage = record.damage
        assert damage is not None
        what = "missing" if damage.missing else "not decoded"
        reason = damage.reason if not damage.missing else "bytes of the stream are missing"
        key = (
            f"{record.src} → {record.dst}",
            what,
            f"{command}: {reason}" if damage.frame is not None else reason,
        )
        tally = self.lost.get(key)
        if tally is None:
            if len(self.lost) >= _MOST:
                self.dropped += 1
                return
            tally = self.lost[key] = [0, 0]
        tally[0] += 1
        tally[1] += damage.missing or damage.lost

    # -- what it comes to

    def reconnects(self) -> list[tuple[str, str, int]]:
        """(client's host, server, connections) where there was more than one, the most first."""
        return sorted(
            ((client, server, n) for (client, server), n in self._pairs.items() if n > 1),
            key=lambda found: -found[2],
        )

    def unanswered_searches(self) -> list[tuple[str, int, list[str]]]:
        """(name, how often it was searched, by which hosts) of the names that nobody answered, the most first."""
        found = [
            (name, search.asked, list(search.clients))
            for name, search in self.searches.items()
            if not search.answers
        ]
        return sorted(found, key=lambda item: -item[1])

    def answered_twice(self) -> list[tuple[str, list[str]]]:
        """(name, servers) of the names that several servers claim."""
        return [
            (name, list(search.answers)) for name, search in self.searches.items() if len(search.answers) > 1
        ]

    def duplicate_guids(self) -> list[tuple[str, list[str]]]:
        """(GUID, addresses) of GUIDs that were seen at several ports of several hosts."""
        return [
            (guid.hex(), list(addresses))
            for guid, addresses in self._guids.items()
            if len({address.rpartition(":")[2] for address in addresses}) > 1
        ]

    def unanswered(self) -> list[tuple[str, str, str, float]]:
        """(command, PV, client, age in seconds at the end) of the requests without an answer, the oldest first."""
        found = [
            (command, pv, client, (self.last - since) / 1e9)
            for (_, _, command), (since, pv, client) in self._waiting.items()
        ]
        return sorted(found, key=lambda item: -item[3])

    def problems(self) -> list[tuple[str, list[str]]]:
        """(heading, lines) of all that is wrong."""
        found: list[tuple[str, list[str]]] = []
        lost = sorted(self.lost.items(), key=lambda item: -item[1][1])
        found.append(
            ("lost or damaged", [f"{where}: {n} bytes {what} in {times} place{_s(times)}: {why}"
                                 for (where, what, why), (times, n) in lost])
        )  # fmt: skip
        statuses = sorted(self.statuses.items(), key=lambda item: -item[1])
        found.append(
            (
                "errors from servers",
                [
                    f"{pv or '?'}: {command} {kind} {text!r}{_times(n)}"
                    for (pv, command, kind, text), n in statuses
                ],
            )
        )
        found.append(
            (
                "never answered",
                [
                    f"{command} {pv or '?'} by {client}, {_time(age)} before the end"
                    for command, pv, client, age in self.unanswered()
                ],
            )
        )
        found.append(
            (
                "searches never answered",
                [f"{name}{_times(n)}, by {_list(hosts)}" for name, n, hosts in self.unanswered_searches()],
            )
        )
        found.append(
            (
                "names that several servers answer",
                [f"{name}: {_list(servers)}" for name, servers in self.answered_twice()],
            )
        )
        found.append(
            (
                "GUIDs of several servers",
                [f"{guid}: {_list(where)}" for guid, where in self.duplicate_guids()],
            )
        )
        found.append(
            (
                "reconnects",
                [f"{client} → {server}: {n} connections" for client, server, n in self.reconnects()],
            )
        )
        found.append(("beacons", [f"{text}{_times(n)}" for text, n in self._jumps.items()]))
        overruns = [
            f"{pv.name}: {', '.join(f'{name}{_times(n)}' for name, n in sorted(pv.overruns.items(), key=lambda item: -item[1])[:6])}"
            for pv in self.pvs.values()
            if pv.overruns
        ]
        found.append(("overruns: older values lost by the server", overruns))
        return [(heading, lines) for heading, lines in found if lines]

    def text(self) -> str:
        """The report."""
        out: list[str] = []
        span = (self.last - self.first) / 1e9
        out.append(
            f"{self.records} message{_s(self.records)}, {_size(self.bytes)} in {_time(span)}; "
            f"{len(self.pvs)} PV{_s(len(self.pvs))}, {len(self.servers)} server{_s(len(self.servers))}, "
            f"{len(self.clients)} client{_s(len(self.clients))}"
        )
        for heading, lines in self.problems():
            out += ["", f"! {heading}"]
            out += _cut([f"  {_clean(line)}" for line in lines])
        if self.pvs:
            out += ["", "PVs"]
            out += _table(
                ["name", "type", "updates", "rate", "data", "frames", "other requests"],
                [_pv_row(pv) for pv in sorted(self.pvs.values(), key=lambda pv: (-pv.bytes, pv.name))],
            )
        if self.servers:
            out += ["", "servers"]
            guids = {address: guid.hex() for guid, known in self._guids.items() for address in known}
            out += _table(
                ["address", "connections", "clients", "of itself", "GUID"],
                [
                    [
                        end.address,
                        str(end.connections),
                        str(len(end.peers)),
                        ", ".join(end.notes),
                        guids.get(end.address, ""),
                    ]
                    for end in self.servers.values()
                ],
            )
        if self.clients:
            out += ["", "clients"]
            out += _table(
                ["address", "account", "servers", "asks for"],
                [
                    [end.address, ", ".join(end.notes), _list(list(end.peers)), _asked(end)]
                    for end in self.clients.values()
                ],
            )  # fmt: skip
        if self.latencies:
            out += ["", "answers"]
            out += _table(
                ["server", "command", "count", "median", "99 %", "longest"],
                [
                    [server, command, str(latency.count)]
                    + [_time(seconds) for seconds in (latency.quantile(0.5), latency.quantile(0.99), latency.longest)]
                    for (server, command), latency in sorted(self.latencies.items(), key=lambda item: -item[1].count)
                ],
            )  # fmt: skip
        if self.dropped:
            out += ["", f"{self.dropped} entries were too many to be kept: the tables above are incomplete"]
        return "\n".join(out)


def _pv_row(pv: Pv) -> list[str]:
    rate = pv.rate
    span = (pv.last - pv.first) / 1e9
    data = _size(pv.bytes) if pv.updates else ""
    if rate is not None and pv.frames > 1 and span > 0:
        data += f" ({_size(pv.pixels * (pv.updates - 1) / pv.updates / span)}/s)"
    frames = f"{pv.frames} × {pv.shape}" if pv.frames else ""
    return [
        _clean(pv.name), pv.type, str(pv.updates) if pv.updates else "", f"{rate:.4g} Hz" if rate is not None else "", data, frames,
        ", ".join(f"{n} {command}" for command, n in pv.commands.items()),
    ]  # fmt: skip


def _asked(end: End) -> str:
    """What a client asked for."""
    what = ", ".join(f"{n} {command}" for command, n in end.asked.items() if n)
    return f"{what} of {_list(list(end.names))}" if end.names else what


def type_name(type: introspection.FieldDesc | None) -> str:
    """A type in a few words: "NTScalar double", "NTNDArray", or its id."""
    if type is None:
        return ""
    if type.code != STRUCTURE:
        return type.format("short")
    name = type.id
    if name.startswith("epics:nt/"):
        name = name.removeprefix("epics:nt/").partition(":")[0]
    held = type.members.get("value")
    if held is None or held.code == UNION:
        return name or "structure"
    if held.code == STRUCTURE:
        return name if name else "structure"
    return f"{name or 'structure'} {held.format('short')}" if len(held.format("short")) < 30 else name


def _one(pv: str | tuple[str, ...]) -> str:
    return pv if isinstance(pv, str) else ", ".join(name for name in pv if name)


def _s(n: int) -> str:
    return "" if n == 1 else "s"


def _times(n: int) -> str:
    return "" if n == 1 else f" ×{n}"


def _list(items: list[str], most: int = 3) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() and not 0xD800 <= ord(c) < 0xE000 else ascii(c)[1:-1] for c in text)


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.3g} {unit}"
        n /= 1000
    raise AssertionError("unreachable")


def _time(seconds: float) -> str:
    if seconds >= 1 or seconds <= 0:
        return f"{seconds:.3g} s"
    for unit, scale in (("ms", 1e3), ("µs", 1e6), ("ns", 1e9)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.1g} ns"


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _LINES else [*lines[:_LINES], f"  ... and {len(lines) - _LINES} more"]


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Aligned columns; those with nothing in them are left out."""
    used = [k for k in range(len(heads)) if any(row[k] for row in rows)]
    shown = rows[:_LINES]
    widths = {k: max(len(heads[k]), *(len(row[k]) for row in shown)) for k in used}
    lines = ["  " + "  ".join(heads[k].ljust(widths[k]) for k in used).rstrip()]
    lines += ["  " + "  ".join(row[k].ljust(widths[k]) for k in used).rstrip() for row in shown]
    return lines + ([f"  ... and {len(rows) - _LINES} more"] if len(rows) > _LINES else [])

"""What a capture tells, summed up: what went wrong, the PVs, who asks whom for what, how long answers took."""

from __future__ import annotations

from heapq import heappush, heapreplace
from typing import Any, Final, final

from ... import messages
from ..._backend import losses, value
from ...connection import Update
from ..events import Clock
from ..records import Batch, Record
from . import report
from .kept import Connection, End, Latency, Pv, Reconnect, Subscription, Unanswered, Waiting, host_of
from .room import CHARACTERS, Room
from .searches import Searches

# Requests of a connection whose numbers were used again before it was heard of.
_DOUBTFUL: Final = 64
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


@final
class Summary:
    """Add records, then print `text()`. Everything is bounded; `dropped` counts what was too much to be kept.

    pvs: by name. servers, clients: by address. latencies: by (server, command). searches: with the beacons. statuses: how
    often, by (PV or ends, command, type, message). lost: [times, bytes, the first reason] by (direction, what, reason
    without its numbers). unread: messages whose content is not known. closed, reopened: how often, by (PV, server), a
    server closed a channel unasked, and a client opened it again.
    """

    def __init__(self) -> None:
        self._room = Room()
        self.records = 0
        self.bytes = 0
        self.first = 0
        # Without the updates, whose times their PVs have.
        self._last = 0
        self.pvs: dict[str, Pv] = {}
        self.servers: dict[str, End] = {}
        self.clients: dict[str, End] = {}
        self.latencies: dict[tuple[str, str], Latency] = {}
        self.searches = Searches(self._room, self.servers, self.latencies)
        self.statuses: dict[tuple[str, str, str, str], int] = {}
        self.lost: dict[tuple[str, str, str], tuple[int, int, str]] = {}
        self.unread: dict[tuple[str, str, str], int] = {}
        self.closed: dict[tuple[str, str], int] = {}
        self.reopened: dict[tuple[str, str], int] = {}
        self._given_up: dict[tuple[str, str, str, str], tuple[int, int]] = {}
        self._connections: dict[int, Connection] = {}
        self._ended: dict[tuple[str, str], int] = {}
        # Numbers of connections up to which they may have been forgotten.
        self._forgotten = -1
        self._waits = 0

    @property
    def last(self) -> int:
        """Nanoseconds of the latest record."""
        return max(self._last, max((pv.last for pv in self.pvs.values()), default=0))

    @property
    def dropped(self) -> int:
        return self._room.dropped

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
                pv.add_frame(event.value)
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
            self.searches.search(record, message, now)
        elif isinstance(message, messages.SearchResponse):
            self.searches.answer(record, message, now)
        elif isinstance(message, messages.Beacon):
            self.searches.beacon(record, message, now)
        elif connection is not None:
            self._session(record, connection, now)

    def _moment(self, now: int) -> None:
        if not self.first or now < self.first:
            self.first = now
        if now > self._last:
            self._last = now

    def _pv(self, record: Record) -> Pv | None:
        name = _one(record.pv)
        if not name:
            if record.ioid is None or record.connection is None:
                return None
            # Of a conversation that was joined later, or heard from one side.
            ends = (record.src, record.dst) if record.direction == "server" else (record.dst, record.src)
            name = f"? ioid {record.ioid}, {ends[0]} → {ends[1]}"
        return self._room.find(self.pvs, name, Pv, name)

    def _end(self, table: dict[str, End], address: str) -> End | None:
        return self._room.find(table, address, End, address)

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
            pv.learn(record.value.type)
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
        if not self._room.take():
            return None
        lost = losses.Losses(per_second=clock.per_second)
        connection.subscribed[ioid] = pv, lost
        pv.subscriptions.append(Subscription(connection.client, connection.server, lost))
        return lost

    def _overrun(self, lost: losses.Losses, update: Update) -> None:
        """Take an update with overruns in; their names take room."""
        if not self._room.any():
            lost.add(Update(update.operation, update.frame, update.value, time=update.time))
            return
        before = len(lost.overruns)
        lost.add(update)
        self._room.left -= len(lost.overruns) - before

    def _operation(self, record: Record, connection: Connection | None, command: str, now: int) -> None:
        """A request, which waits for its answer, or an answer."""
        pv = self._pv(record)
        sub = record.subcommand or 0
        type = record.type
        if pv is not None and type is not None:
            pv.learn(type)
        ioid = record.ioid
        if record.direction == "client":
            what = f"{command} INIT" if sub & 0x08 else _VARIANTS.get((command, sub & _VARIANT), command)
            self._asks(record, command, what, pv)
            if command == "MONITOR" and not sub & 0x08:
                # Start, stop, ack and destroy are not answered.
                if pv is not None and not pv.started and isinstance(record.message, messages.MonitorStart):
                    pv.started = now
            elif connection is not None and ioid is not None:
                self._wait(connection, ioid, Waiting(now, command, what, pv.name if pv is not None else ""))
            return
        held = record.value
        if pv is not None and isinstance(held, value.Value) and command != "RPC":
            pv.learn(held.type)
            if pv.is_image and command != "MONITOR":
                pv.add_frame(held)
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
                self._room.keep(client.names, pv.name)

    def _wait(self, connection: Connection, key: int | str, request: Waiting) -> None:
        """A request waits for its answer. Another one of the same number, before it, will get none."""
        waiting = connection.waiting
        old = waiting.pop(key, None)
        if old is None and self._waits < self._room.MOST:
            self._waits += 1
        elif old is None and not waiting:
            self._room.dropped += 1
            return
        else:
            connection.doubtful.append((old or waiting.pop(next(iter(waiting))), request.since))
            if len(connection.doubtful) >= _DOUBTFUL:
                self._give_up(connection)
        waiting[key] = request

    def _answered(self, connection: Connection, key: int | str, now: int, pv: Pv | None = None) -> None:
        asked = connection.waiting.pop(key, None)
        if asked is None:
            return
        self._waits -= 1
        seconds = (now - asked.since) / 1e9
        if seconds < 0:
            return  # told of late, behind a gap
        total = self._room.find(self.latencies, (connection.server, asked.what), Latency)
        if total is not None:
            total.add(seconds, asked.pv)
        if pv is not None:
            latency = pv.latencies.get(asked.what) or Latency()
            if latency.count or self._room.keep(pv.latencies, asked.what, latency):
                latency.add(seconds, pv.name)

    def _give_up(self, connection: Connection) -> None:
        """The doubtful requests of a connection have no answer."""
        requests, connection.doubtful = connection.doubtful, []
        if not connection.heard:
            return  # nothing of the server is in the capture: it may have answered
        for request, until in requests:
            key = (request.what, request.pv, connection.client, connection.server)
            if self._room.fits(self._given_up, key):
                count, longest = self._given_up.get(key, (0, 0))
                self._given_up[key] = count + 1, max(longest, until - request.since)

    def _status(self, record: Record, command: str, kind: str, text: str) -> None:
        where = _one(record.pv) or f"{record.src} → {record.dst}"
        self._room.tally(self.statuses, (where, command, kind, text[:CHARACTERS]))

    def _note(self, record: Record, command: str) -> None:
        """What could not be understood of a message; that values are out of date follows from losses, which are told."""
        message = record.message
        if message is None or message.reason:
            self._room.tally(self.unread, (f"{record.src} → {record.dst}", command, _same(record.note)))

    # -- connections and channels

    def _connected(self, record: Record) -> Connection | None:
        number = record.connection
        if number is None:
            return None
        found = self._connections.get(number)
        return self._connect(record, number) if found is None else found

    def _connect(self, record: Record, number: int) -> Connection:
        """The first message of a connection."""
        client, server = (
            (record.dst, record.src) if record.direction == "server" else (record.src, record.dst)
        )
        if len(self._connections) >= self._room.MOST:
            oldest = next(iter(self._connections))
            self._forget(oldest, self._connections.pop(oldest), record.ns)
        connection = Connection(client, server, record.ns, record.ticks, record.clock)
        self._connections[number] = connection
        again = number <= self._forgotten
        for table, address, other in ((self.servers, server, client), (self.clients, client, server)):
            end = self._end(table, address)
            if end is not None and not again:
                end.connections += 1
                self._room.keep(end.peers, other, end.peers.get(other, 0) + 1)
        return connection

    def _forget(self, number: int, connection: Connection, now: int) -> None:
        """Make room for a newer connection."""
        self._forgotten = max(self._forgotten, number)
        self._waits -= len(connection.waiting)
        connection.doubtful += [(request, now) for request in connection.waiting.values()]
        self._give_up(connection)
        self._room.clear(connection.opened)
        self._room.clear(connection.closing)
        self._settle(connection)
        self._room.tally(self._ended, (host_of(connection.client), connection.server))

    def _settle(self, connection: Connection) -> None:
        for table, address in ((self.servers, connection.server), (self.clients, connection.client)):
            end = table.get(address)
            if end is not None:
                end.bytes += connection.bytes
        connection.bytes = 0

    def settle(self) -> None:
        """Add what the connections carried to their ends' `bytes`. More records can be added afterwards."""
        for connection in self._connections.values():
            self._settle(connection)

    def _session(self, record: Record, connection: Connection, now: int) -> None:
        """The handshake, channels opened and closed, echoes."""
        message = record.message
        frame = record.frame
        if isinstance(message, messages.CreateChannel):
            for cid, name in message.channels:
                name = name[:CHARACTERS]
                if name in connection.opened:
                    self._room.tally(self.reopened, (name, connection.server))
                self._wait(connection, ~cid, Waiting(now, record.command, record.command, name))
        elif isinstance(message, messages.CreateChannelReply):
            self._answered(connection, ~message.cid, now)
            name = _one(record.pv)
            if message.status.ok and message.sid != messages.NO_CHANNEL and name:
                self._room.keep(connection.opened, name)
                self.searches.connected(name, host_of(connection.client))
        elif isinstance(message, messages.DestroyChannel):
            # Old clients of pvAccessCPP swap the two numbers.
            ids = (message.cid, ~message.sid)
            if record.direction == "client":
                for number in ids:
                    self._room.keep(connection.closing, number)
            elif any(number in connection.closing for number in ids):
                for number in ids:
                    self._room.remove(connection.closing, number)
            elif connection.asks and not connection.gaps:
                where = _one(record.pv) or f"channel {message.cid} of {record.dst}"
                self._room.tally(self.closed, (where, record.src))
        elif isinstance(message, messages.Echo):
            if record.direction == "client":
                self._wait(connection, "ECHO", Waiting(now, "ECHO", "ECHO", ""))
            else:
                self._answered(connection, "ECHO", now)
        elif isinstance(message, messages.ConnectionValidationResponse):
            self._wait(connection, "", Waiting(now, record.command, record.command, ""))
            self._account(record, message)
        elif isinstance(message, messages.ConnectionValidated):
            self._answered(connection, "", now)
        elif isinstance(message, messages.ConnectionValidationRequest) and frame is not None:
            end = self._end(self.servers, record.src)
            if end is not None:
                self._room.keep(end.notes, f"version {frame.version}")
                self._room.keep(end.notes, "big-endian" if frame.byteorder == "big" else "little-endian")

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
        self._room.keep(end.accounts, who[:CHARACTERS])
        self._room.keep(end.notes, f"version {frame.version}")
        self._room.keep(end.notes, "big-endian" if frame.byteorder == "big" else "little-endian")

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
        if self._room.fits(self.lost, key):
            times, size, why = self.lost.get(key, (0, 0, reason[:CHARACTERS]))
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


def _one(pv: str | tuple[str, ...]) -> str:
    return (pv if isinstance(pv, str) else ", ".join(name for name in pv if name))[:CHARACTERS]


def _same(reason: str) -> str:
    """A reason without the numbers in it, by which many are one."""
    return "".join("#" if c.isdigit() else c for c in reason[:CHARACTERS])

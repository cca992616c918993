"""Records: the PVA messages of a capture, one by one, each with who sent it, when, and what is known of its channel.

PVA is recognised by its bytes, on any port and from either side, also where the capture begins in the middle of a
conversation; everything else is left out. What is lost or damaged is a record, too (`record.damage`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, Any, Final, NamedTuple, final

from .. import messages
from .._backend import bitset, codec, framing, introspection, value
from ..connection import Malformed, Observed, Observer, Update
from ..connection.events import Role
from ..errors import DecodeError
from ..limits import Limits
from ..messages import Command, ControlCommand, PvaMessage, Status
from .events import Clock, Closed, Connection, Damage, Data, Datagram, Gap, Opened
from .files import Capture
from .recognise import Recogniser, plausible
from .traffic import Statistics, Traffic

# Searches whose answer is still awaited; the oldest are forgotten.
_SEARCHED: Final = 262_144
_COMMANDS: Final = {int(command): command.name for command in Command}
_CONTROLS: Final = {int(command): command.name for command in ControlCommand}
_NO_BITS: Final = bitset.BitSet()
_UDP: Final = frozenset({Command.BEACON, Command.SEARCH, Command.SEARCH_RESPONSE, Command.ORIGIN_TAG})


class _Record(NamedTuple):
    event: Observed | Update | Malformed
    src: str
    dst: str
    transport: str
    connection: int | None
    ticks: int
    clock: Clock


@final
class Record(_Record):
    """A PVA message of a capture, or damage in it.

    event: what the Observer said of it. src, dst: "address:port". transport: "tcp" or "udp". connection: the number of
    the TCP connection, None over UDP. ticks, clock: its time as the capture counts it.
    """

    __slots__ = ()

    @property
    def time(self) -> str:
        """Epoch seconds with every digit of the capture."""
        return self.clock.text(self.ticks)

    @property
    def ns(self) -> int:
        """Nanoseconds since 1970, rounded down."""
        return self.clock.nanoseconds(self.ticks)

    @property
    def direction(self) -> str:
        """The sender's role: "client" or "server"; "" where damage leaves it open."""
        return self.event.direction or ""

    @property
    def offset(self) -> int:
        """Of the message's header in its direction of the stream, or in the datagram."""
        return self.event.offset

    @property
    def damage(self) -> Malformed | None:
        """What is lost or damaged; None for a message."""
        event = self.event
        return event if isinstance(event, Malformed) else None

    @property
    def frame(self) -> framing.Message | None:
        """Header and payload; None where there is none."""
        return self.event.frame

    @property
    def message(self) -> PvaMessage | None:
        """The decoded message; None where it cannot be decoded."""
        event = self.event
        return None if isinstance(event, Malformed) else event.message

    @property
    def command(self) -> str:
        """The specification's name of the command, in capitals; "MALFORMED" or "LOST" for damage without a header."""
        frame = self.event.frame
        if frame is None:
            return "LOST" if isinstance(self.event, Malformed) and self.event.missing else "MALFORMED"
        names = _CONTROLS if frame.is_control else _COMMANDS
        return names.get(frame.command) or f"{'CONTROL' if frame.is_control else 'COMMAND'}_{frame.command}"

    @property
    def subcommand(self) -> int | None:
        """The sub byte of an operation's message."""
        event = self.event
        if isinstance(event, Malformed):
            return None
        if isinstance(event, Update):
            return 0
        sub: int | None = getattr(event.decoded, "sub", None)
        return sub

    @property
    def sid(self) -> int | None:
        """The server's number of the channel."""
        return None if isinstance(self.event, Malformed) else self.event.sid

    @property
    def cid(self) -> int | None:
        """The client's number of the channel."""
        return None if isinstance(self.event, Malformed) else self.event.cid

    @property
    def ioid(self) -> int | None:
        """The number of the operation."""
        return None if isinstance(self.event, Malformed) else self.event.ioid

    @property
    def pv(self) -> str | tuple[str, ...]:
        """The name of the channel, "" where it is not known; of a search or its answer all names."""
        return self.event.pv

    @property
    def status(self) -> Status | None:
        """The status in it, if it has one."""
        return self.event.status if isinstance(self.event, Observed) else None

    @property
    def type(self) -> introspection.FieldDesc | None:
        """The type that the message brings (INIT and GET_FIELD replies)."""
        event = self.event
        found = getattr(event.decoded, "type", None) if isinstance(event, Observed) else None
        return found if isinstance(found, introspection.FieldDesc) else None

    @property
    def value(self) -> Any:
        """The value as the receiver holds it after this message, merged with earlier updates; None if there is none."""
        return None if isinstance(self.event, Malformed) else self.event.value

    @property
    def seen(self) -> bitset.BitSet:
        """The bits of the fields that `value` has ever had from the sender."""
        return _NO_BITS if isinstance(self.event, Malformed) else self.event.seen

    @property
    def changed(self) -> bitset.BitSet | None:
        """The bits that came with the message; None where it carries none."""
        held = self.value
        event = self.event
        if isinstance(held, value.Value):
            if isinstance(event, Observed) and isinstance(event.decoded, messages.Rpc | messages.RpcReply):
                return None
            return held.changed
        return None

    @property
    def overrun(self) -> bitset.BitSet:
        """The fields of which older values are lost."""
        return _NO_BITS if isinstance(self.event, Malformed) else self.event.overrun

    @property
    def size(self) -> int:
        """Bytes of the message with its header; of damage, the bytes not decoded and those missing."""
        event = self.event
        if isinstance(event, Malformed):
            return event.lost + event.missing
        return 8 if event.frame.is_control else 8 + event.frame.size

    @property
    def note(self) -> str:
        """What could not be known, or what is damaged; "" if nothing."""
        event = self.event
        if not isinstance(event, Malformed):
            return event.note
        return f"{event.reason} at `{event.path}`" if event.path else event.reason

    def __repr__(self) -> str:
        return f"<Record {self.time} {self.src} -> {self.dst} {self.command} {self.pv!r}>"


class Batch(NamedTuple):
    """What packets that follow each other brought: events, and what their records have in common."""

    events: list[Observed | Update | Malformed]
    src: str
    dst: str
    transport: str
    connection: int | None
    clock: Clock


class _Conversation:
    """What is kept of a TCP connection: until it is known to be PVA the Recogniser, afterwards the Observer."""

    __slots__ = ("ends", "number", "observer", "recogniser")

    def __init__(self, connection: Connection, number: int) -> None:
        self.number = number
        self.observer: Observer | None = None
        self.recogniser = Recogniser(connection)
        # (source, destination) of either direction.
        self.ends = (connection.addresses, connection.addresses[::-1])


@final
class Records:
    """Iterate it once: the records of a capture.

    `damage` afterwards tells where the file could not be read further, None if it was read to its end; `statistics`
    are those of the packets. connections: the number that the next connection will get.
    """

    def __init__(self, capture: Capture, limits: Limits, connections: int = 0) -> None:
        self.capture = capture
        self.connections = connections
        self._limits = limits
        self._traffic = Traffic(capture)
        self._searched: dict[tuple[str, int], str] = {}
        self.damage: Damage | None = None
        # Bytes of streams and datagrams that were PVA.
        self.bytes = 0

    @property
    def statistics(self) -> Statistics:
        """What the packets were, and which were left out."""
        return self._traffic.statistics

    def close(self) -> None:
        """Close the file, if it was opened by its path. Iterating to the end does so, too."""
        self.capture.close()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Record]:
        make = tuple.__new__
        for told, src, dst, transport, number, clock in self.batches():
            for event in told:
                yield make(Record, (event, src, dst, transport, number, event.time, clock))

    def batches(self, *, together: bool = False) -> Iterator[Batch]:
        """Iterate these instead to save time: what packets brought, before records are made of it.

        together: monitor updates may overtake messages of other connections in what is read at a time, 1 MiB. That makes large
        batches of what many servers send in turn, and takes a fraction of the time.
        """
        try:
            yield from self._batches(together)
        finally:
            self.close()

    def _batches(self, together: bool) -> Iterator[Batch]:
        make = tuple.__new__
        for event in self._traffic.runs(together):
            if isinstance(event, list):
                for run in event:
                    flow = run.flow
                    kept = flow.connection.user
                    if kept is not None and kept.observer is not None:
                        self.bytes += run.size
                        told = kept.observer.observe(flow.side, run.chunks, run.times)
                        if told:
                            src, dst = kept.ends[flow.side]
                            yield make(Batch, (told, src, dst, "tcp", kept.number, run.clock))
                    else:
                        for ticks, data in zip(run.times, run.chunks, strict=True):
                            yield from self._data(Data(flow.connection, flow.side, ticks, run.clock, data))
            elif isinstance(event, Data):
                yield from self._data(event)
            elif isinstance(event, Gap):
                kept = event.connection.user
                if kept is not None and kept.observer is not None:
                    kept.observer.receive_gap(event.direction, event.size, event.time)
                    yield from self._told(kept, event.direction, event.clock)
                else:
                    yield from self._recognise(event.connection, event)
            elif isinstance(event, Datagram):
                yield from self._datagram(event)
            elif isinstance(event, Opened):
                event.connection.user = _Conversation(event.connection, self.connections)
                self.connections += 1
            elif isinstance(event, Closed):
                kept = event.connection.user
                event.connection.user = None
                if kept is not None and kept.observer is not None:
                    for side in (0, 1):
                        kept.observer.receive_eof(side, event.time)
                        yield from self._told(kept, side, event.clock)
            elif isinstance(event, Damage):
                self.damage = event

    def _data(self, event: Data) -> Iterator[Batch]:
        kept = event.connection.user
        if kept is not None and kept.observer is not None:
            self.bytes += len(event.data)
            kept.observer.receive_data(event.direction, event.data, event.time)
            yield from self._told(kept, event.direction, event.clock)
        else:
            yield from self._recognise(event.connection, event)

    def _told(self, kept: _Conversation, side: int, clock: Clock) -> Iterator[Batch]:
        src, dst = kept.ends[side]
        assert kept.observer is not None
        told = list(kept.observer.events())
        if told:
            yield Batch(told, src, dst, "tcp", kept.number, clock)

    def _recognise(self, connection: Connection, event: Data | Gap) -> Iterator[Batch]:
        """An event of a connection that is not yet known to be PVA."""
        kept = connection.user
        if kept is None:
            return
        found = kept.recogniser
        verdict = found.add(event)
        if verdict is False:
            connection.ignored = True
            connection.user = None
        if not verdict:
            return
        observer = kept.observer = Observer(limits=self._limits)
        kept.recogniser = None
        for side in (0, 1):
            if found.joined[side]:
                observer.receive_gap(side, 0, event.time)
            if found.skipped[side]:
                lost = Malformed(
                    direction=None,
                    offset=0,
                    reason="joined in the middle of a message",
                    lost=found.skipped[side],
                    time=event.time,
                )
                src, dst = kept.ends[side]
                yield Batch([lost], src, dst, "tcp", kept.number, event.clock)
        for piece in found.pieces:
            if isinstance(piece, Data):
                self.bytes += len(piece.data)
                observer.receive_data(piece.direction, piece.data, piece.time)  # type: ignore[arg-type]
            else:
                observer.receive_gap(piece.direction, piece.size, piece.time)
            yield from self._told(kept, piece.direction, piece.clock)

    def _datagram(self, event: Datagram) -> Iterator[Batch]:
        data = event.data
        at = 0
        while at + 8 <= len(data):
            stop = plausible(data, at)
            if stop < 0 or data[at + 3] not in _UDP:
                return
            flags = data[at + 2]
            frame = framing.Message(
                version=data[at + 1], flags=flags, command=data[at + 3], data=data, start=at + 8,
                end=min(stop, len(data)), offset=at, size=stop - at - 8,
            )  # fmt: skip
            role: Role = "server" if flags & 0x40 else "client"
            self.bytes += frame.end - at
            told: Observed | Update | Malformed
            try:
                decoded = messages.decode(
                    frame, codec=codec.Codec(limits=self._limits), from_server=bool(flags & 0x40)
                )
            except DecodeError as error:
                reason = error.reason
                if event.missing and stop > len(data):
                    reason = f"datagram cut by the snap length, {event.missing} bytes missing"
                told = Malformed(
                    direction=role,
                    offset=at,
                    path=error.path,
                    reason=reason,
                    lost=frame.end - at,
                    missing=event.missing,
                    time=event.time,
                    frame=frame,
                )
            else:
                pv = self._names(decoded, event)
                told = Observed(
                    role, at, event.time, frame, pv, None, None, _NO_BITS, _NO_BITS, decoded.reason, decoded
                )
            yield Batch([told], event.src, event.dst, "udp", None, event.clock)
            at = stop

    def _names(self, decoded: PvaMessage, event: Datagram) -> str | tuple[str, ...]:
        """The names of a search or of its answer; the former are kept for the latter."""
        if isinstance(decoded, messages.Search):
            host = event.src.rpartition(":")[0]
            askers = {f"{_bracketed(decoded.address) or host}:{decoded.port}"}
            if decoded.flags & messages.REPLY_TO_SOURCE_PORT:
                askers.add(event.src)
            for cid, name in decoded.channels:
                for asker in askers:
                    self._searched.pop((asker, cid), None)
                    self._searched[asker, cid] = name
            while len(self._searched) > _SEARCHED:
                del self._searched[next(iter(self._searched))]
            return tuple(name for _, name in decoded.channels)
        if isinstance(decoded, messages.SearchResponse):
            return tuple(self._searched.get((event.dst, cid), "") for cid in decoded.cids)
        return ""


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def read(
    source: str | os.PathLike[str] | IO[bytes], *, limits: Limits | None = None, connections: int = 0
) -> Records:
    """The records of a capture: pcap or pcapng, also compressed with gzip.

    source: a path, "-" for standard input, or a binary file. connections: the number that its first connection gets,
    to read several captures as one. Raises DecodeError for what is no capture, OSError for
    what cannot be read. Memory is bounded by `limits` and by what the streams of the capture hold open.
    """
    return Records(Capture(source), Limits() if limits is None else limits, connections)

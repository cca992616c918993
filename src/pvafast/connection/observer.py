"""Observer: someone else's conversation, decoded message by message, whatever is missing or broken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, final

from .. import messages
from .._backend import codec, framing, introspection, monitor, value
from ..errors import DecodeError, LocalProtocolError
from ..limits import Limits
from ..messages import Command, PvaMessage
from .conversation import Conversation, Name, ObservedChannel, ObservedOperation
from .events import NO_BITS, ROOT_BIT, Malformed, Observed, Role
from .shared import without_any

Update: TypeAlias = monitor.Update
read_updates: Final = monitor.read_updates
receive_updates: Final = monitor.receive_updates
FieldDesc: TypeAlias = introspection.FieldDesc
# A stream of the conversation: who sends it; 0 or 1 where that shall be learnt from it; None for both directions in one.
Stream: TypeAlias = Role | Literal[0, 1] | None

# So many messages with the same direction bit tell who sends a stream.
_CERTAIN: Final = 3
_WITH_IOID: Final = frozenset({10, 11, 12, 13, 14, 15, 16, 17, 20, 21})


class _Side:
    """What one role sends."""

    __slots__ = ("begun", "codec", "from_server", "role", "unknown")

    def __init__(self, role: Role, limits: Limits) -> None:
        self.role = role
        self.from_server = role == "server"
        self.codec = codec.Codec(limits=limits)
        self.begun = False
        # Why a type id may be unknown without anything being wrong.
        self.unknown = ""


class _Damage:
    """Damage or a gap, until the stream goes on behind it."""

    __slots__ = ("before", "missing", "offset", "path", "reason", "time")

    def __init__(self, offset: int, reason: str, path: str, time: Any, before: int) -> None:
        self.offset = offset
        self.reason = reason
        self.path = path
        self.time = time
        self.before = before
        self.missing = 0


class _Stream:
    """One of the streams. side: who sends it, once that is known; likely, likely_count: what its last messages say."""

    __slots__ = ("damage", "framer", "key", "likely", "likely_count", "side")

    def __init__(self, key: Stream, framer: framing.Framer, side: _Side | None) -> None:
        self.key = key
        self.framer = framer
        self.side = side
        self.likely = side
        self.likely_count = 0
        self.damage: _Damage | None = None

    @property
    def role(self) -> Role | None:
        """Who sends it, as far as one can tell."""
        return None if self.likely is None else self.likely.role


class _Batch:
    """Messages of a stream that came together; those before `at` have been told of."""

    __slots__ = ("at", "messages", "stream", "time")

    def __init__(self, stream: _Stream, messages: list[framing.Message], time: Any) -> None:
        self.stream = stream
        self.messages = messages
        self.time = time
        self.at = 0


@final
class Observer:
    """Decodes both directions of a conversation between others, or one of them, from its start or from its middle.

    It never raises for bytes: what cannot be decoded is a Malformed event, and what cannot be known is told in the
    `note` of an Observed. Feed it in the order of time: replies are understood by the requests before them (where they
    come in the wrong order or one direction is missing, less is known). Memory is bounded by `limits`: of channels and
    operations the oldest are forgotten. For one thread at a time. Of the data of an operation only some fields are decoded
    where its `fields` (that of an event's `operation`, say) names them.
    """

    def __init__(self, *, limits: Limits | None = None) -> None:
        self._limits = limits = Limits() if limits is None else limits
        self._server = _Side("server", limits)
        self._client = _Side("client", limits)
        self._streams: dict[Stream, _Stream] = {}
        # Messages in the order in which they came, and events between them.
        self._work: deque[_Batch | Malformed | Iterator[Update]] = deque()
        self._known = Conversation(limits)

    @property
    def operations(self) -> Mapping[int, ObservedOperation]:
        """The operations known now, by ioid."""
        return MappingProxyType(self._known.operations)

    @property
    def channels(self) -> Mapping[int, ObservedChannel]:
        """The channels known now, by sid."""
        return MappingProxyType(self._known.sids)

    def learn_name(self, cid: int, name: str) -> None:
        """Tell the name of a channel that is known from elsewhere: cids are those of the client's UDP searches."""
        self._known.learn_name(cid, name)

    def receive_data(self, direction: Stream, data: Any, time: Any = None) -> None:
        """The next bytes of a stream; `time` comes back in the events.

        direction: "client" or "server", who sends it; or 0 and 1, when that is to be learnt from the direction bit of
        what comes first; or None, for one stream of messages of both.
        """
        stream = self._streams.get(direction) or self._open(direction)
        stream.framer.receive_data(data)
        self._drain(stream, time)

    def observe(
        self, direction: Stream, chunks: list[bytes], times: list[Any]
    ) -> list[Observed | Update | Malformed]:
        """`receive_data` and all `events` in one, of many chunks: far faster where they bring updates, however small."""
        stream = self._streams.get(direction) or self._open(direction)
        server = self._server
        found: list[Observed | Update | Malformed] = []
        at = 0
        while at < len(chunks):
            if stream.side is server and server.begun and stream.damage is None and not self._work:
                at, rest = receive_updates(
                    stream.framer, chunks, times, at, self._known.operations, server.codec, found
                )
                if rest is None:
                    break
                if rest:
                    self._work.append(_Batch(stream, rest, times[at - 1]))
            else:
                stream.framer.receive_data(chunks[at])
                at += 1
            self._drain(stream, times[at - 1])
            found += self.events()
        return found

    def receive_gap(self, direction: Stream, nbytes: int, time: Any = None) -> None:
        """`nbytes` of a stream are missing here. 0: how many is not known, or the stream is joined in its middle."""
        stream = self._streams.get(direction) or self._open(direction)
        framer = stream.framer
        damage = stream.damage
        if damage is None:
            reason = (
                f"{nbytes} bytes of the stream are missing"
                if nbytes
                else "joined in the middle of the stream"
            )
            damage = stream.damage = _Damage(framer.offset, reason, "", time, framer.dropped)
        damage.missing += nbytes
        if nbytes:
            framer.gap(nbytes)
        else:
            framer.resync()
        self._blind(stream, "bytes before this message are missing: type ids may have been defined in them")
        self._drain(stream, time)

    def receive_eof(self, direction: Stream, time: Any = None) -> None:
        """A stream has ended."""
        stream = self._streams.get(direction) or self._open(direction)
        self._recovered(stream)
        framer = stream.framer
        pending = framer.pending
        try:
            framer.receive_eof()
        except DecodeError as error:
            self._work.append(
                Malformed(
                    direction=stream.role, offset=error.offset, reason=error.reason, lost=pending, time=time
                )
            )

    def events(self) -> Iterator[Observed | Update | Malformed]:
        """What has come, in its order. The iterator can be dropped and a new one taken at any time."""
        work = self._work
        server = self._server
        while work:
            item = work[0]
            if not isinstance(item, _Batch):
                if isinstance(item, Malformed):
                    work.popleft()
                    yield item
                else:
                    yield from item
                    work.popleft()
                continue
            stream, pending, time = item.stream, item.messages, item.time
            if stream.side is not self._client and server.begun:
                # Updates of monitors are nearly all that there is: they take the straight way.
                plain = read_updates(pending, item.at, self._known.operations, server.codec, time)
                if plain:
                    item.at += len(plain)
                    if item.at == len(pending):
                        work[0] = iter(plain)
                    else:
                        work.appendleft(iter(plain))
                    continue
            if item.at == len(pending):
                work.popleft()
                continue
            message = pending[item.at]
            item.at += 1
            yield self._observe(stream.side or self._side(stream, message), message, time)

    # -- streams

    def _open(self, key: Stream) -> _Stream:
        if key not in ("client", "server", 0, 1, None):
            raise ValueError(f"direction must be 'client', 'server', 0, 1 or None, not {key!r}")
        side = self._client if key == "client" else self._server if key == "server" else None
        stream = self._streams[key] = _Stream(key, framing.Framer(limits=self._limits), side)
        return stream

    def _side(self, stream: _Stream, message: framing.Message) -> _Side:
        """Who has sent the message, the stream not being known as anybody's."""
        side = self._server if message.from_server else self._client
        if stream.key is not None:
            # What looks like a message, where a stream is joined in its middle or behind damage, may be none.
            stream.likely_count = stream.likely_count + 1 if side is stream.likely else 1
            stream.likely = side
            if stream.likely_count >= _CERTAIN:
                stream.side = side
                other = self._streams.get(1 - int(stream.key))  # type: ignore[call-overload]
                if other is not None and other.side is None:
                    other.side = other.likely = self._client if side is self._server else self._server
        return side

    def _drain(self, stream: _Stream, time: Any) -> None:
        """Take the messages that are whole out of the framer, past any damage."""
        framer = stream.framer
        while True:
            try:
                found = framer.messages()
            except DecodeError as error:
                if stream.damage is None:
                    stream.damage = _Damage(error.offset, error.reason, error.path, time, framer.dropped)
                framer.resync()
                self._blind(stream, "the stream was damaged before this message: type ids may have been lost")
                continue
            if not found:
                return
            if stream.damage is not None:
                self._recovered(stream)
            self._work.append(_Batch(stream, found, time))

    def _recovered(self, stream: _Stream) -> None:
        """The stream goes on, or has ended: say what was lost."""
        damage = stream.damage
        if damage is None:
            return
        stream.damage = None
        lost = stream.framer.dropped - damage.before
        if not lost and not damage.missing and not damage.path and damage.reason.startswith("joined"):
            return
        self._work.append(
            Malformed(
                direction=stream.role,
                offset=damage.offset,
                path=damage.path,
                reason=damage.reason,
                lost=lost,
                missing=damage.missing,
                time=damage.time,
            )
        )

    def _blind(self, stream: _Stream, reason: str) -> None:
        """Something of the stream was lost."""
        for side in (self._client, self._server) if stream.side is None else (stream.side,):
            side.unknown = reason
            if side is self._server:
                self._known.gap()

    # -- messages

    def _observe(self, side: _Side, message: framing.Message, time: Any) -> Observed | Update | Malformed:
        """Any message."""
        if not side.begun:
            self._begin(side, message)
        try:
            decoded = messages.decode(
                message,
                codec=side.codec,
                operations=self._known.operations,
                from_server=side.from_server,
                lenient=bool(side.unknown),
            )
        except DecodeError as error:
            return self._malformed(side, message, time, error)
        note = self._reason(side, decoded)
        operation: ObservedOperation | None = None
        data: Any = None
        seen = overrun = NO_BITS
        pv: Name = ""
        if isinstance(decoded, messages.Reply):
            operation, data, seen, stale = self._known.reply(decoded)
            overrun = getattr(decoded, "overrun", NO_BITS)
            note = note or stale
        elif isinstance(decoded, messages.Request):
            operation = self._known.request(decoded)
            pv = self._known.channel(decoded.sid).name
            data = getattr(decoded, "value", None)
            if data is not None:
                seen = data.changed if isinstance(data, value.Value) else ROOT_BIT
            if isinstance(decoded, messages.Rpc):
                seen = ROOT_BIT
        else:
            pv = self._known.other(decoded)
        if operation is not None:
            pv = self._known.pv(operation) or pv
        if operation is not None and isinstance(decoded, messages.MonitorUpdate):
            if decoded.value is None:
                operation.gaps = -1
                operation.fresh = NO_BITS
            elif not decoded.trailing:
                # The next ones can take the straight way, unless they bring types along or more than was seen so far.
                if not note and operation.gaps == self._known.gaps and without_any(data.type):
                    self._known.steady(operation)
                return Update(operation, message, data, overrun, time, seen, note)
        return Observed(
            side.role, message.offset, time, message, pv, operation, data, seen, overrun, note, decoded
        )

    def _begin(self, side: _Side, message: framing.Message) -> None:
        """The first message of a side: whether it is the first of the connection."""
        side.begun = True
        if not message.is_control and message.command != Command.CONNECTION_VALIDATION and not side.unknown:
            side.unknown = "the conversation was not seen from its start"

    def _reason(self, side: _Side, decoded: PvaMessage) -> str:
        """What could not be decoded of a message, and why."""
        reason = decoded.reason
        if not reason:
            return ""
        self._renew(side)
        # That of an unknown operation or type says all; that of an unknown id wants the cause.
        return f"{reason} ({side.unknown})" if "id" in reason.split() and side.unknown else reason

    def _renew(self, side: _Side) -> None:
        """Take a new codec when the old one has met an error inside a type description."""
        try:
            side.codec.decode_type(b"\xff")
        except LocalProtocolError:
            side.codec = codec.Codec(limits=self._limits)

    def _malformed(self, side: _Side, message: framing.Message, time: Any, error: DecodeError) -> Malformed:
        """A payload that cannot be decoded: what it would have told is not known from here on."""
        side.unknown = "a message before this one could not be decoded: type ids may have been defined in it"
        self._renew(side)
        operation, pv = self._where(side, message)
        if operation is not None and side.from_server:
            operation.gaps = -1
            operation.steady = None
            operation.fresh = NO_BITS
            if self._sub(side, message) & 0x08:
                # The type would have been in it.
                operation.type = None
                operation.put_type = None
        return Malformed(
            direction=side.role,
            offset=message.offset,
            path=error.path,
            reason=error.reason,
            lost=8 + message.size,
            time=time,
            frame=message,
            pv=pv,
            operation=operation,
        )

    def _sub(self, side: _Side, message: framing.Message) -> int:
        at = message.start + (4 if side.from_server else 8)
        return int(message.data[at]) if at < message.end else 0

    def _where(self, side: _Side, message: framing.Message) -> tuple[ObservedOperation | None, str]:
        """The operation and the PV of a message that cannot be decoded."""
        if message.is_control or message.command not in _WITH_IOID:
            return None, ""
        head = bytes(message.data[message.start : min(message.start + 8, message.end)])
        order: Literal["little", "big"] = "big" if message.flags & 0x80 else "little"
        ids = [int.from_bytes(head[i : i + 4], order) for i in range(0, len(head) - 3, 4)]
        if side.from_server:
            operation = self._known.operations.get(ids[0]) if ids else None
            return operation, self._known.pv(operation) if operation is not None else ""
        channel = self._known.sids.get(ids[0]) if ids else None
        operation = self._known.operations.get(ids[1]) if len(ids) > 1 else None
        return operation, channel.name if channel is not None else ""

"""What is known of a conversation between others: its channels and operations, by their numbers, and their values."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, TypeAlias, final

from .. import messages
from .._backend import bitset
from ..limits import Limits
from ..messages import Command, PvaMessage
from .events import NO_BITS, ROOT_BIT

Name: TypeAlias = "str | tuple[str, ...]"

_STALE: Final = "messages before this one were lost: fields may be out of date"
# Operations that have ended are kept for replies on their way, so many of them.
_ENDED_KEPT: Final = 64
# Where only the server is heard, GETs never end: so many of them keep their last value.
_VALUES_KEPT: Final = 1024


@final
class ObservedChannel:
    """A channel, as far as it is known. cid, sid: None, name: "" where it is not."""

    __slots__ = ("cid", "ioids", "name", "sid")

    def __init__(self, cid: int | None = None, sid: int | None = None, name: str = "") -> None:
        self.cid = cid
        self.sid = sid
        self.name = name
        # Of its operations, for when it closes.
        self.ioids: dict[int, None] = {}

    def __repr__(self) -> str:
        return f"<ObservedChannel {self.name!r} cid={self.cid} sid={self.sid}>"


@final
class ObservedOperation(messages.Operation):
    """An operation, as far as it is known.

    channel: None if no request of it was seen. seen, put_seen: the fields that `value` and `put_value` ever had.
    requested, replied: its INIT (or GET_FIELD) was seen. ended: nothing but late replies is to come.
    """

    __slots__ = ("channel", "ended", "fresh", "gaps", "put_seen", "replied", "requested")

    def __init__(self, command: int, ioid: int, gaps: int) -> None:
        super().__init__(command, ioid)
        self.channel: ObservedChannel | None = None
        self.put_seen = NO_BITS
        self.requested = False
        self.replied = False
        self.ended = False
        # How many gaps its value has made up for; what came since the last one.
        self.gaps = gaps
        self.fresh = NO_BITS

    @property
    def channel_sid(self) -> int | None:
        """The server's number of its channel."""
        return None if self.channel is None else self.channel.sid

    @property
    def channel_cid(self) -> int | None:
        """The client's number of its channel."""
        return None if self.channel is None else self.channel.cid


def _trim(table: dict[Any, Any], limit: int) -> None:
    """Forget the oldest entries above the limit."""
    while len(table) > limit:
        del table[next(iter(table))]


@final
class Conversation:
    """Told of the messages of both directions in the order of time. Memory is bounded by `limits`: the oldest are forgotten.

    operations: by ioid. sids: channels by the server's number. gaps: how often something of what the server sends was lost.
    """

    __slots__ = ("_cids", "_ended", "_limits", "_names", "_steady", "_valued", "gaps", "operations", "sids")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.gaps = 0
        self.operations: dict[int, ObservedOperation] = {}
        self.sids: dict[int, ObservedChannel] = {}
        self._cids: dict[int, ObservedChannel] = {}
        # Names by cid, from SEARCH or learn_name().
        self._names: dict[int, str] = {}
        self._ended: deque[ObservedOperation] = deque()
        self._valued: dict[int, ObservedOperation] = {}
        # Those whose updates take the straight way.
        self._steady: dict[int, ObservedOperation] = {}

    def gap(self) -> None:
        """Something of what the server sends was lost."""
        self.gaps += 1
        for operation in self._steady.values():
            operation.steady = None
        self._steady.clear()

    def steady(self, operation: ObservedOperation) -> None:
        """The next updates can take the straight way, until the next gap."""
        operation.steady = operation.reads
        self._steady[operation.ioid] = operation

    def learn_name(self, cid: int, name: str) -> None:
        """Tell the name of a channel that is known from elsewhere: cids are those of the client's UDP searches."""
        self._names.pop(cid, None)
        self._names[cid] = name
        _trim(self._names, self._limits.channels)
        channel = self._cids.get(cid)
        if channel is not None and not channel.name:
            self._call(channel, name)

    # -- channels

    def channel(self, sid: int) -> ObservedChannel:
        """That of the server's number, which may be heard of for the first time."""
        channel = self.sids.get(sid)
        if channel is None:
            channel = self.sids[sid] = ObservedChannel(sid=sid)
            _trim(self.sids, self._limits.channels)
        return channel

    def _call(self, channel: ObservedChannel, name: str) -> None:
        """The name of a channel has become known: also to the operations that it has by now."""
        channel.name = name
        for ioid in channel.ioids:
            operation = self.operations.get(ioid)
            if operation is not None and operation.channel is channel:
                operation.pv = name

    def pv(self, operation: ObservedOperation) -> str:
        """The name of the operation's channel, which may have become known after the operation."""
        if not operation.pv and operation.channel is not None:
            operation.pv = operation.channel.name
        return operation.pv

    def other(self, decoded: PvaMessage) -> Name:
        """A message that belongs to no operation; its PV."""
        if isinstance(decoded, messages.CreateChannel):
            for cid, name in decoded.channels:
                self._asked(cid, name)
            names = tuple(name for _, name in decoded.channels)
            return names[0] if len(names) == 1 else names
        if isinstance(decoded, messages.CreateChannelReply):
            return self._created(decoded)
        if isinstance(decoded, messages.DestroyChannel):
            channel = self._destroyed(decoded)
            return "" if channel is None else channel.name
        if isinstance(decoded, messages.Search):
            for cid, name in decoded.channels:
                self.learn_name(cid, name)
            return tuple(name for _, name in decoded.channels)
        if isinstance(decoded, messages.SearchResponse):
            return tuple(self._name(cid) for cid in decoded.cids)
        if isinstance(decoded, messages.AclChange):
            return self._name(decoded.cid)
        if isinstance(decoded, messages.RemoteMessage):
            operation = self.operations.get(decoded.ioid)
            return "" if operation is None else self.pv(operation)
        if isinstance(decoded, messages.MultipleData):
            return tuple(self.pv(self.reply(reply)[0]) for reply in decoded.replies)
        return ""

    def _name(self, cid: int) -> str:
        name = self._names.get(cid, "")
        if not name and cid in self._cids:
            name = self._cids[cid].name
        return name

    def _asked(self, cid: int, name: str) -> None:
        """A client asks for a channel. Its reply may have been seen before, when directions come out of step."""
        channel = self._cids.get(cid)
        if channel is None or channel.name not in ("", name):
            channel = ObservedChannel(cid)
        self._cids.pop(cid, None)
        self._cids[cid] = channel
        self._call(channel, name)
        _trim(self._cids, self._limits.channels)

    def _created(self, decoded: messages.CreateChannelReply) -> str:
        cid, sid = decoded.cid, decoded.sid
        asked = self._cids.get(cid)
        name = asked.name if asked is not None and asked.name else self._names.get(cid, "")
        if decoded.reason or not decoded.status.ok or sid == messages.NO_CHANNEL:
            return name
        channel = self.sids.get(sid)
        if channel is None or channel.cid is not None:
            # New, or a number used again. Otherwise only requests of it have been seen so far.
            if asked is not None and asked.sid in (None, sid):
                channel = asked
            else:
                channel = ObservedChannel()
        channel.cid = cid
        channel.sid = sid
        if name:
            self._call(channel, name)
        self.sids.pop(sid, None)
        self.sids[sid] = channel
        self._cids[cid] = channel
        _trim(self.sids, self._limits.channels)
        _trim(self._cids, self._limits.channels)
        return name

    def _destroyed(self, decoded: messages.DestroyChannel) -> ObservedChannel | None:
        channel = self.sids.get(decoded.sid)
        if channel is None or channel.cid not in (None, decoded.cid):
            # Clients of pvAccessCPP before 7.1.1 swap the two.
            swapped = self.sids.get(decoded.cid)
            if swapped is not None and swapped.cid == decoded.sid:
                channel = swapped
            elif channel is None:
                channel = self._cids.get(decoded.cid)
        if channel is not None:
            for ioid in list(channel.ioids):
                operation = self.operations.get(ioid)
                if operation is not None and operation.channel is channel:
                    self._end(operation)
            channel.ioids.clear()
        return channel

    # -- operations

    def _new(self, command: int, ioid: int) -> ObservedOperation:
        old = self.operations.pop(ioid, None)
        if old is not None:
            self._forget(old)
        operation = self.operations[ioid] = ObservedOperation(command, ioid, self.gaps)
        while len(self.operations) > self._limits.operations:
            oldest = next(iter(self.operations))
            self._forget(self.operations.pop(oldest))
        return operation

    def _forget(self, operation: ObservedOperation) -> None:
        operation.ended = True
        if operation.channel is not None:
            operation.channel.ioids.pop(operation.ioid, None)
        for table in (self._valued, self._steady):
            if table.get(operation.ioid) is operation:
                del table[operation.ioid]

    def _end(self, operation: ObservedOperation) -> None:
        if operation.ended:
            return
        operation.ended = True
        self._ended.append(operation)
        if len(self._ended) > _ENDED_KEPT:
            oldest = self._ended.popleft()
            if self.operations.get(oldest.ioid) is oldest:
                del self.operations[oldest.ioid]
                self._forget(oldest)

    def _attach(self, operation: ObservedOperation, sid: int) -> None:
        channel = self.channel(sid)
        operation.channel = channel
        operation.sid = sid
        channel.ioids[operation.ioid] = None
        self.pv(operation)

    def request(self, decoded: messages.Request) -> ObservedOperation | None:
        """The operation of a request; None for the end of one that is not known."""
        ioid, command = decoded.ioid, decoded.command
        operation = self.operations.get(ioid)
        if isinstance(decoded, messages.InitRequest | messages.GetField):
            # Its reply may have been seen before, when directions come out of step.
            if (
                operation is None
                or operation.command != command
                or operation.requested
                or operation.channel is not None
            ):
                operation = self._new(command, ioid)
            operation.requested = True
            if isinstance(decoded, messages.InitRequest):
                operation.request = decoded.request
            if isinstance(decoded, messages.MonitorInit):
                operation.pipelined = decoded.nfree is not None
        elif isinstance(decoded, messages.DestroyRequest | messages.CancelRequest):
            if operation is None:
                return None
        elif (
            operation is None
            or operation.command != command
            or operation.channel_sid not in (None, decoded.sid)
        ):
            operation = self._new(command, ioid)
        if operation.channel is None:
            self._attach(operation, decoded.sid)
        if isinstance(decoded, messages.DestroyRequest) or (
            command == Command.MONITOR and isinstance(decoded, messages.SubRequest) and decoded.destroy
        ):
            self._end(operation)
        return operation

    def reply(self, decoded: messages.Reply) -> tuple[ObservedOperation, Any, bitset.BitSet, str]:
        """The operation of a reply, the value in it with the fields ever seen, and what is to be said of that."""
        ioid, command = decoded.ioid, decoded.command
        operation = self.operations.get(ioid)
        first = isinstance(decoded, messages.InitReply | messages.GetFieldReply)
        if operation is None or operation.command != command or (first and operation.replied):
            operation = self._new(command, ioid)
        if first:
            operation.replied = True
        messages.learn(operation, decoded)
        data = getattr(decoded, "value", None)
        seen = NO_BITS
        note = ""
        if isinstance(decoded, messages.PutGetGetPutReply):
            if data is not None:
                operation.put_seen = operation.put_seen | data.changed
            seen = operation.put_seen
        elif isinstance(decoded, messages.MonitorUpdate | messages.ValueReply | messages.MonitorFinal):
            if data is not None:
                operation.seen = operation.seen | data.changed
                if operation.gaps != self.gaps:
                    note = self._stale(operation, data.changed)
                if command != Command.MONITOR:
                    self._keep(operation)
            seen = operation.seen
        elif data is not None:
            seen = ROOT_BIT
        if (
            isinstance(decoded, messages.GetFieldReply | messages.MonitorFinal)
            or (isinstance(decoded, messages.SubReply) and decoded.destroy)
            or (isinstance(decoded, messages.InitReply) and not decoded.status.ok)
        ):
            self._end(operation)
        return operation, data, seen, note

    def _keep(self, operation: ObservedOperation) -> None:
        """It has a value now; the one that got its value longest ago may have to give it up."""
        self._valued.pop(operation.ioid, None)
        self._valued[operation.ioid] = operation
        if len(self._valued) > _VALUES_KEPT:
            oldest = self._valued.pop(next(iter(self._valued)))
            oldest.value = None
            oldest.seen = NO_BITS

    def _stale(self, operation: ObservedOperation, changed: bitset.BitSet) -> str:
        """After a gap: "" once every field has come again."""
        operation.fresh = operation.fresh | changed
        if operation.seen <= operation.fresh or 0 in operation.fresh:
            operation.fresh = NO_BITS
            operation.gaps = self.gaps
            return ""
        return _STALE

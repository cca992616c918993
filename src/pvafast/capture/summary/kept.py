"""What a summary keeps of PVs, servers and clients, connections, and searches."""

from __future__ import annotations

import math
from typing import Final, NamedTuple, final

import numpy as np

from ..._backend import introspection, losses, value
from ..._types import STRUCTURE, UNION
from ...errors import PvaError
from ...ndarray import Frame
from ..events import Clock
from .room import CHARACTERS

# Bins of latencies: so many a decade, from 1 ns to 10,000 s.
_DECADE: Final = 20
_BINS: Final = 13 * _DECADE
_NO_CLOCK: Final = Clock()


def host_of(address: str) -> str:
    """The host of an "address:port"."""
    return address.rpartition(":")[0]


def type_name(type: introspection.FieldDesc | None) -> str:
    """A type in a few words: "NTScalar double", "NTNDArray", or its id."""
    if type is None:
        return ""
    if type.code != STRUCTURE:
        return type.format("short")
    name = type.id
    if name.startswith("epics:nt/"):
        name = name.removeprefix("epics:nt/").partition(":")[0]
    name = name[:CHARACTERS] or "structure"
    held = type.members.get("value")
    if held is None or held.code in (UNION, STRUCTURE):
        return name
    short = held.format("short")
    return f"{name} {short}" if len(short) < 30 else name


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

    def learn(self, type: introspection.FieldDesc) -> None:
        """Its type: the first told of it, but the whole type rather than a part that someone selected of it."""
        if self.type and (self.type.startswith("NT") or not type.id.startswith("epics:nt/")):
            return
        self.type = type_name(type)
        self.is_image = self.type.startswith("NTNDArray")

    def add_frame(self, held: value.Value) -> None:
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
        self.frames += 1
        self.pixels += array.nbytes
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
            self.unpacked += frame.nbytes
        shape = f"{dtype} {'×'.join(map(str, shown))}".strip()[:CHARACTERS]
        if shape != self.shape:
            self.shape = shape
            self.shapes += 1
        self.codec = codec[:CHARACTERS]

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


class Waiting(NamedTuple):
    """A request that is not yet answered."""

    since: int
    command: str
    what: str
    pv: str


@final
class Connection:
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
        self.waiting: dict[int | str, Waiting] = {}
        self.doubtful: list[tuple[Waiting, int]] = []
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

"""What a capture holds once packets are put together: connections, pieces of their streams, datagrams, damage.

Events are named tuples (30 ns to make, where an object costs 300). `time` counts ticks of `clock`, which turns them
into exact text (`clock.text(time)`) or nanoseconds (`clock.nanoseconds(time)`). `direction` is 0 for what
`connection.addresses[0]` sent, 1 for what `connection.addresses[1]` sent.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, final


@final
class Clock:
    """A way to count time: `per_second` ticks a second since 1970, and `offset` seconds.

    per_second is a power of ten or of two; a power of two needs as many decimals as its exponent.
    """

    __slots__ = ("_per_ns", "_scale", "digits", "offset", "per_second")

    def __init__(self, base: Literal[2, 10] = 10, exponent: int = 6, offset: int = 0) -> None:
        self.per_second = int(base**exponent)
        self.offset = offset
        self.digits = exponent
        self._scale = int(5**exponent) if base == 2 else 1
        self._per_ns = 10**9 // self.per_second if base == 10 and exponent <= 9 else 0

    def text(self, ticks: int) -> str:
        """Epoch seconds with every digit: "1795299155.179635"."""
        ticks += self.offset * self.per_second
        sign, ticks = ("-", -ticks) if ticks < 0 else ("", ticks)
        seconds, rest = divmod(ticks, self.per_second)
        if not self.digits:
            return f"{sign}{seconds}"
        return f"{sign}{seconds}.{rest * self._scale:0{self.digits}d}"

    def nanoseconds(self, ticks: int) -> int:
        """Nanoseconds since 1970, rounded down: for comparing and subtracting, also across clocks."""
        if self._per_ns:
            return ticks * self._per_ns + self.offset * 1_000_000_000
        return ticks * 1_000_000_000 // self.per_second + self.offset * 1_000_000_000

    def ticks(self, nanoseconds: int) -> int:
        """The inverse of `nanoseconds`, rounded down."""
        return (nanoseconds - self.offset * 1_000_000_000) * self.per_second // 1_000_000_000

    def __repr__(self) -> str:
        return f"Clock(per_second={self.per_second}, offset={self.offset})"


@final
class Connection:
    """One TCP connection.

    number: 0, 1, ... in the order of opening. addresses: "address:port" of the side that opened it, then of the other; in the
    order of appearance where the handshake was not seen (`opener_known` is False). started: for each direction, whether
    its stream is known from the first byte. ignored: set it to True, and no more data of the connection is
    kept or reported. user: free for whoever reads the events.
    """

    __slots__ = (
        "_halves",
        "_keys",
        "_state",
        "addresses",
        "ignored",
        "number",
        "opener_known",
        "started",
        "user",
    )

    def __init__(self, addresses: tuple[str, str], *, opener_known: bool = False) -> None:
        self.number = -1
        self.addresses = addresses
        self.opener_known = opener_known
        self.started = [False, False]
        self.ignored = False
        self.user: Any = None
        # of tcp.py alone
        self._keys: tuple[bytes, bytes] = (b"", b"")
        self._halves: Any = None
        self._state = 0

    def __repr__(self) -> str:
        return f"Connection({self.number}, {self.addresses[0]} -> {self.addresses[1]})"


class Opened(NamedTuple):
    """The first byte of a connection is about to be told of, or it was refused. Always before its other events."""

    connection: Connection
    time: int
    clock: Clock


class Data(NamedTuple):
    """The next bytes of one direction's stream; `time` is that of the packet that brought them."""

    connection: Connection
    direction: int
    time: int
    clock: Clock
    data: bytes


class Gap(NamedTuple):
    """`size` bytes of one direction's stream are not in the capture.

    reason: "lost" (no packet has them) or "cut" (by the snap length). The size of what was lost is modulo 2**32.
    """

    connection: Connection
    direction: int
    time: int
    clock: Clock
    size: int
    reason: Literal["lost", "cut"]


class Closed(NamedTuple):
    """The last event of a connection.

    reason: "fin" (both sides), "reset", "refused" (reset in answer to its SYN), "reused" (its ports serve a new connection),
    "idle" (forgotten, because too many other connections came) or "end" (of the capture).
    """

    connection: Connection
    time: int
    clock: Clock
    reason: Literal["fin", "reset", "refused", "reused", "idle", "end"]


class Datagram(NamedTuple):
    """One UDP datagram, put together from its fragments; `missing` bytes at its end were cut by the snap length."""

    src: str
    dst: str
    time: int
    clock: Clock
    data: bytes
    missing: int


class Damage(NamedTuple):
    """The file could not be read further: the last event of all.

    offset: in the (uncompressed) file. truncated: the file merely ends too early.
    """

    offset: int
    reason: str
    truncated: bool


Event = Opened | Data | Gap | Closed | Datagram | Damage

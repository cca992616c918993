"""Losses: what the updates of a subscription tell of what did not come, or came wrong."""

from __future__ import annotations

from typing import Final, final

from .._losstext import repr_of, text_of
from .introspection import FieldDesc
from .monitor import Update
from .value import Value

# Numbers of frames that are remembered as missing, for those that come late.
_WINDOW: Final = 64
# No numbers are left out further than that: the source began to number anew.
_JUMP: Final = 1 << 24
# Where counters of 32 bits, or of their positive half, begin again.
_MODULI: Final = (1 << 31, 1 << 32)
# areaDetector's data time where no one sets it: EPICS began in 1990.
_EPICS_EPOCH: Final = 631_152_000 * 10**9
# Seconds of a time stamp whose ns fit into 64 bits.
_SECONDS: Final = 9_000_000_000
# A peer could send types with ever new names.
_NAMES: Final = 16_384
_INT64: Final = 1 << 63


@final
class Losses:
    """Accounts for the losses of ONE subscription: `add` every Update of it, then read the counts, or print it.

    updates: added. overruns: of how many updates the server had dropped older values, by the name of the field.
    time_back: time stamps (`timeStamp`) older than the one before; furthest_back: by how much at the most, ns.
    Of an NTNDArray: frames: updates with a uniqueId; missing: numbers left out; duplicates: frames that came again;
    late: behind a later one (they are not missing any more); restarts: the source began to number anew (it went back with
    newer data, or jumped by more than 2**24). Counters may wrap at 2**31 or 2**32; a number that is always 0 tells nothing.

    per_second: of the times in the updates, what the connection was given with the bytes; ns unless told otherwise.
    One thread at a time.
    """

    __slots__ = (
        "_absent",
        "_data_stamp",
        "_first",
        "_first_frame",
        "_first_stamp",
        "_frame_stamp",
        "_id",
        "_id_mask",
        "_last",
        "_last_frame",
        "_number",
        "_numbered",
        "_overruns",
        "_per_second",
        "_stamp",
        "_stamped",
        "_time",
        "_time_mask",
        "_timed",
        "_timed_frames",
        "_type",
        "duplicates",
        "frames",
        "furthest_back",
        "late",
        "missing",
        "restarts",
        "time_back",
        "updates",
    )

    updates: int
    time_back: int
    furthest_back: int
    frames: int
    missing: int
    duplicates: int
    late: int
    restarts: int

    def __init__(self, *, per_second: int = 1_000_000_000) -> None:
        if per_second < 1:
            raise ValueError(f"per_second {per_second}")
        self._per_second = per_second
        self._overruns: dict[str, int] = {}
        self.updates = self.time_back = self.furthest_back = 0
        self.frames = self.missing = self.duplicates = self.late = self.restarts = 0
        self._first = self._last = self._timed = 0
        self._first_frame = self._last_frame = self._timed_frames = 0
        self._first_stamp = self._stamp = self._stamped = 0
        # The latest frame: its number, its time, and which of the numbers before it are missing, a bit each.
        self._numbered = False
        self._number = self._frame_stamp = self._absent = 0
        self._type: FieldDesc | None = None

    def add(self, update: Update, /) -> None:
        """Account for an update."""
        if not isinstance(update, Update):
            raise TypeError(f"an Update is needed, not {update.__class__.__name__}")
        value = update.value
        if not isinstance(value, Value):
            raise TypeError(f"an update of a Value is needed, not {value.__class__.__name__}")
        if value._root_ is not None:
            value = value.copy()
        if value._fd_ is not self._type:
            self._learn(value._fd_)
        self.updates += 1
        time = update.time
        timed = isinstance(time, int) and -_INT64 <= time < _INT64
        if timed:
            if not self._timed:
                self._first = time
            self._last = time
            self._timed += 1
        if update.overrun:
            names = value._fd_.names
            for node in update.overrun.expand(value._fd_):
                name = names[node]
                if name in self._overruns or len(self._overruns) < _NAMES:
                    self._overruns[name] = self._overruns.get(name, 0) + 1
        bits = value._bits_
        if bits & self._time_mask:
            self._stamp_came(_stamp(value, self._time))
        if bits & self._id_mask:
            self.frames += 1
            if timed:
                if not self._timed_frames:
                    self._first_frame = time
                self._last_frame = time
                self._timed_frames += 1
            stamp = _stamp(value, self._data_stamp)
            if stamp <= _EPICS_EPOCH:
                stamp = _stamp(value, self._time)
            number = _integer(value, self._id)
            if number is not None:
                self._frame_came(number, stamp)

    def gap(self) -> None:
        """What comes next follows on nothing: updates were lost on this side, or the subscription begins anew.

        The next frame is compared with none before it.
        """
        self._numbered = False

    @property
    def overruns(self) -> dict[str, int]:
        """Updates with which older values of a field were lost, by its name."""
        return dict(self._overruns)

    @property
    def rate(self) -> float | None:
        """Updates a second, by the times that they came; None where these do not tell."""
        return self._rate(self._timed, self._last - self._first, self._per_second)

    @property
    def frame_rate(self) -> float | None:
        """Frames a second, by the times that they came; None where these do not tell."""
        return self._rate(self._timed_frames, self._last_frame - self._first_frame, self._per_second)

    @property
    def stamp_rate(self) -> float | None:
        """Updates a second, by their time stamps; None where these do not tell, or went back."""
        span = 0 if self.time_back else self._stamp - self._first_stamp
        return self._rate(self._stamped, span, 1_000_000_000)

    @staticmethod
    def _rate(count: int, span: int, per_second: int) -> float | None:
        return (count - 1) * per_second / span if count > 1 and span > 0 else None

    def _learn(self, type: FieldDesc) -> None:
        """Where the fields are that are looked at."""
        self._type = type
        self._id = _place(type, "uniqueId")
        self._time, self._data_stamp = (
            (_place(type, f"{name}.secondsPastEpoch"), _place(type, f"{name}.nanoseconds"))
            for name in ("timeStamp", "dataTimeStamp")
        )
        self._id_mask = _mask(type, "uniqueId") if self._id >= 0 else 0
        self._time_mask = 0
        if self._time[0] >= 0:
            self._time_mask = _mask(type, "timeStamp.secondsPastEpoch")
        if self._time[1] >= 0:
            self._time_mask |= _mask(type, "timeStamp.nanoseconds")

    def _stamp_came(self, stamp: int) -> None:
        if not stamp:
            return  # it is not set
        if not self._stamped:
            self._first_stamp = stamp
        elif stamp < self._stamp:
            self.time_back += 1
            self.furthest_back = max(self.furthest_back, self._stamp - stamp)
        self._stamped += 1
        self._stamp = stamp

    def _frame_came(self, number: int, stamp: int) -> None:
        step = number - self._number
        if self._numbered:
            if not step and not number:
                return  # nobody numbers them
            for modulus in _MODULI:
                if step < 0 < step + modulus <= _JUMP:
                    step += modulus
            if 0 < step <= _JUMP:
                self.missing += step - 1
                absent = (self._absent << step | (1 << step) - 2) if step < _WINDOW else -2
                self._absent = absent & ((1 << _WINDOW) - 1)
            elif -_WINDOW < step <= 0 and self._is_old(number, stamp):
                bit = 1 << -step
                if self._absent & bit:
                    self._absent &= ~bit
                    self.missing -= 1
                    self.late += 1
                else:
                    self.duplicates += 1
                return
            else:
                self.restarts += 1
                self._absent = 0
        else:
            self._numbered = True
            self._absent = 0
        self._number = number
        self._frame_stamp = stamp

    def _is_old(self, number: int, stamp: int) -> bool:
        """Whether a frame whose number has gone back is one of those before: its time tells, or else whether numbers begin there."""
        if stamp and self._frame_stamp:
            return stamp <= self._frame_stamp
        return number == self._number or number > 1

    def __str__(self) -> str:
        return text_of(self)

    def __repr__(self) -> str:
        return repr_of(self)


Losses.__module__ = "pvafast"


def _place(type: FieldDesc, name: str) -> int:
    """The slot of an integer; -1 if the type has none of that name."""
    if name not in type:
        return -1
    node = type.index(name)
    if not 0x20 <= type.node(node).code <= 0x27:
        return -1
    return type._plan_().first[node]


def _mask(type: FieldDesc, name: str) -> int:
    """The bits that tell of a field: its own and those of the structures around it."""
    node = type.index(name)
    nexts = type._plan_().nexts
    return sum(1 << i for i in range(node + 1) if node < nexts[i])


def _integer(value: Value, slot: int) -> int | None:
    """A field that has come, or 0; None for what does not fit into 64 bits with a sign."""
    held: int | None = value._slots_[slot]
    if held is None:
        return 0
    return held if held < _INT64 else None


def _stamp(value: Value, places: tuple[int, int]) -> int:
    """A time stamp in ns; 0 if there is none."""
    seconds, nanoseconds = (0 if slot < 0 else _integer(value, slot) for slot in places)
    if seconds is None or nanoseconds is None:
        return 0
    if not -_SECONDS < seconds < _SECONDS or not -_SECONDS < nanoseconds < _SECONDS:
        return 0
    return seconds * 1_000_000_000 + nanoseconds

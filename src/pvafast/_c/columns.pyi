"""Columns: many updates of one subscription -> one numpy array a field, one row an update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, final

import numpy as np

from .._columntext import INTEGERS, as_arrow, as_numpy, as_pandas, offsets_of, stacked
from .._types import DTYPES
from ..errors import DecodeError, LocalProtocolError
from .bitset import _iterate, _read_bits
from .buffer import Reader
from .codec import Codec
from .framing import Message
from .introspection import FieldDesc
from .value import _zero

_MONITOR: Final = 13


@final
class Columns:
    """Collects MONITOR updates of one subscription into numpy arrays, one a field; an update is a row.

    A field that did not come in an update keeps the value of the row before (zero, "" or an empty array before the first).

    type: of the subscription, as `FieldDesc.of` takes it. fields: dotted names; a structure stands for all its leaves,
    None for all there are.
    codec: of the direction that the updates come in, needed where fields hold an any; its limits hold.
    One thread at a time.
    """

    __slots__ = (
        "_bits",
        "_codec",
        "_lists",
        "_masks",
        "_names",
        "_nodes",
        "_rows",
        "_stamps",
        "_times",
        "fields",
        "type",
    )

    type: FieldDesc
    fields: tuple[str, ...]

    def __init__(
        self,
        type: FieldDesc | str | Mapping[str, Any],
        fields: Iterable[str | tuple[str, ...]] | None = None,
        *,
        codec: Codec | None = None,
    ) -> None:
        type = FieldDesc.of(type)
        plan = type._plan_()
        chosen: dict[int, None] = {}
        self._names = ("",) if fields is None else tuple(fields)
        for name in self._names:
            i = type.index(name)
            for node in plan.nodes[slice(*plan.slots(i))]:
                chosen[node] = None
        self.type = type
        self.fields = tuple(plan.names[node] for node in chosen)
        self._codec = Codec() if codec is None else codec
        self._stamps = [
            type.index(name) if name in type and type[name].code in INTEGERS else -1
            for name in ("timeStamp.secondsPastEpoch", "timeStamp.nanoseconds")
        ]
        for node in self._stamps:
            if node >= 0:
                chosen[node] = None
        self._nodes = list(chosen)
        # The bits that tell of a field: its own and those of the structures around it.
        self._masks = {
            node: sum(1 << i for i in range(node + 1) if i <= node < plan.nexts[i]) for node in self._nodes
        }
        self._bits: list[tuple[int, int]] = []
        self._times: list[int] = []
        self._rows = 0
        self._lists: dict[int, list[Any]] = {node: [] for node in self._nodes}

    def add(self, messages: Iterable[Message], received: int | Sequence[int] = 0) -> int:
        """Add a row for each MONITOR update; returns how many.

        messages: framing.Message of MONITOR with sub byte 00, anything else is a LocalProtocolError.
        received: when they came, in ns since 1970: one number, or one for each. Raises DecodeError for bytes that do
        not follow the rules (offset in that message's payload); the rows before it are kept.
        """
        rows = list(messages)
        times = [received] * len(rows) if isinstance(received, int) else list(received)
        if len(times) != len(rows):
            raise ValueError(f"{len(times)} receive times for {len(rows)} messages")
        for message, time in zip(rows, times, strict=True):
            data, start = message.data, message.start
            if (
                message.command != _MONITOR
                or message.is_control
                or message.end - start < 5
                or data[start + 4]
            ):
                raise LocalProtocolError(f"no MONITOR update: {message!r}")
            r = Reader(data, start + 5, message.end, message.byteorder, limits=self._codec.limits)
            try:
                self._row(r, time)
            except DecodeError as error:
                error.offset -= start
                raise
        return len(rows)

    def add_update(
        self,
        data: Any,
        offset: int = 0,
        *,
        end: int | None = None,
        byteorder: str = "little",
        received: int = 0,
    ) -> int:
        """Add one row: `data[offset:end]` is a BitSet, the changed fields, and the BitSet of overruns, if it is there.

        Returns the offset behind it.
        """
        r = Reader(data, offset, end, byteorder, limits=self._codec.limits)
        self._row(r, received)
        return r.pos

    def _row(self, r: Reader, received: int) -> None:
        plan = self.type._plan_()
        update = self._codec.read_update(self.type, r)
        overrun = 0
        if r.left:
            try:
                overrun = _read_bits(r) & plan.mask
            except DecodeError as error:
                error.within("overrun")
                raise
        changed = update._bits_
        for node, column in self._lists.items():
            if changed & self._masks[node]:
                column.append(update._slots_[plan.first[node]])
            else:
                column.append(column[-1] if column else None)
        self._bits.append((changed, overrun))
        self._times.append(received)
        self._rows += 1

    def clear(self) -> None:
        """Forget the rows, but for what the next row takes over from the last."""
        for column in self._lists.values():
            del column[:-1]  # what is taken over stands before the first row
        self._bits.clear()
        self._times.clear()
        self._rows = 0

    def take(self) -> Columns:
        """The rows so far as Columns of their own; this one goes on without rows, as after clear()."""
        taken = Columns(self.type, self._names, codec=Codec(limits=self._codec.limits))
        taken._lists = self._lists
        taken._bits, self._bits = self._bits, taken._bits
        taken._times, self._times = self._times, taken._times
        taken._rows, self._rows = self._rows, 0
        self._lists = {node: column[-1:] for node, column in taken._lists.items()}
        return taken

    def __len__(self) -> int:
        return self._rows

    def _column(self, node: int) -> Any:
        type = self.type.node(node)
        column = self._lists[node][len(self._lists[node]) - self._rows :]
        items = [_zero(type) if item is None else item for item in column]
        if type.code in DTYPES:
            made = np.array(items, type.dtype)
            made.flags.writeable = False
            return made
        return stacked(items, type)

    def __getitem__(self, name: str | tuple[str, ...], /) -> Any:
        """The column of a leaf.

        A number: ndarray of shape (rows,) and the dtype of the field. A numeric array: shape (rows, n) where all have the
        same length, otherwise a list of arrays. Anything else: a list.
        """
        node = self.type.index(name)
        if node not in self._lists:
            raise KeyError(name)
        return self._column(node)

    def offsets(self, name: str | tuple[str, ...], /) -> tuple[Any, Any]:
        """A column of numeric arrays as (values, offsets): row i is values[offsets[i]:offsets[i + 1]]."""
        column = self[name]
        return offsets_of(column, self.type[name])

    def changed(self, name: str | tuple[str, ...], /) -> Any:
        """Of each row: whether the field came in it; bool, shape (rows,)."""
        return self._mask(name, 0)

    def overrun(self, name: str | tuple[str, ...], /) -> Any:
        """Of each row: whether the field changed more than once since the row before, so that values were lost."""
        return self._mask(name, 1)

    def _mask(self, name: str | tuple[str, ...], which: int) -> Any:
        node = self.type.index(name)
        if node not in self._masks:
            raise KeyError(name)
        mask = self._masks[node]
        made = np.array([bool(bits[which] & mask) for bits in self._bits], np.bool_)
        made.flags.writeable = False
        return made

    def changed_bits(self, row: int, /) -> list[int]:
        """The numbers of the bits received with a row."""
        if not -self._rows <= row < self._rows:
            raise IndexError(f"no row {row}")
        return list(_iterate(self._bits[row][0]))

    @property
    def time(self) -> Any:
        """The time stamps of the rows, int64 ns since 1970; zeros where the type has none."""
        seconds, nanoseconds = (
            np.zeros(self._rows, np.int64) if node < 0 else self._column(node).astype(np.int64)
            for node in self._stamps
        )
        made = seconds * 1_000_000_000 + nanoseconds
        made.flags.writeable = False
        return made

    @property
    def received(self) -> Any:
        """When the rows came, as `add` was told, int64 ns since 1970."""
        made = np.array(self._times, np.int64)
        made.flags.writeable = False
        return made

    def to_numpy(self) -> Any:
        """A structured array, one record a row, one field a column."""
        return as_numpy(self)

    def to_arrow(self) -> Any:
        """A nanoarrow.Array of structures, for anything that takes the Arrow C data interface. Needs nanoarrow, not pyarrow.

        One structure a row: `time` and `received` (timestamp[ns, UTC]; null where they are 0), then the fields by their dotted
        names. The types follow from those of the fields: numbers, which are not copied, booleans, large strings, fixed-size
        lists of arrays whose type has a length, large lists of the others. An enum is a string by its own name, its choice, and
        its index. TypeError for structure arrays, unions and anys, which have no Arrow type: name the fields that you want.
        Hand it on: ``pyarrow.record_batch(x)``, ``polars.DataFrame(x)``, ``pandas.DataFrame.from_arrow(x)``.
        """
        return as_arrow(self)

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with the time stamps in UTC as its index (NaT where they are 0). Needs pandas.

        Arrays and lists are objects in it; an enum is a Categorical by its own name, and its index.
        """
        return as_pandas(self)


Columns.__module__ = "pvafast"

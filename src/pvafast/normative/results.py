"""What the normative types are read as: numbers, strings, arrays, dicts and small frozen objects, with their metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlencode

import numpy as np

from .. import _backend
from .._columntext import pandas_frame, pandas_texts, valid
from ..errors import NormativeError
from .meta import Meta, number, stamp_ns, stamp_s, whole

Value = _backend.value.Value
NDArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_NS: Final = 1_000_000_000


class Float(Meta, float):
    """NTScalar of float or double: a float."""

    def __init__(self, value: Any = 0.0, raw: Value | None = None, /) -> None:
        self.raw = raw

    def __new__(cls, value: Any = 0.0, raw: Value | None = None, /) -> Float:
        return super().__new__(cls, value)


class Int(Meta, int):
    """NTScalar of any integer type: an int."""

    def __init__(self, value: Any = 0, raw: Value | None = None, /) -> None:
        self.raw = raw

    def __new__(cls, value: Any = 0, raw: Value | None = None, /) -> Int:
        return super().__new__(cls, value)


class Bool(Meta, int):
    """NTScalar of bool: the int 0 or 1 (bool has no subclasses), shown as False and True."""

    def __init__(self, value: Any = False, raw: Value | None = None, /) -> None:
        self.raw = raw

    def __new__(cls, value: Any = False, raw: Value | None = None, /) -> Bool:
        return super().__new__(cls, bool(value))

    def __repr__(self) -> str:
        return repr(bool(self))

    __str__ = __repr__


class Text(Meta, str):
    """NTScalar of string: a str."""

    def __init__(self, value: str = "", raw: Value | None = None, /) -> None:
        self.raw = raw

    def __new__(cls, value: str = "", raw: Value | None = None, /) -> Text:
        return super().__new__(cls, value)


class Array(Meta, np.ndarray[Any, np.dtype[Any]]):
    """NTScalarArray of numbers, or NTMatrix: a numpy array, a read-only view of the received bytes where it can be.

    Slices carry the metadata on; what is calculated is a plain numpy array.
    """

    def __new__(cls, value: Any, raw: Value | None = None, /) -> Array:
        made = np.asarray(value).view(cls)
        made.raw = raw
        return made

    def __array_finalize__(self, source: Any, /) -> None:
        self.raw = getattr(source, "raw", None)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False, /) -> Any:
        # Sums and products would hold the received message, and claim its time and alarm.
        plain = np.asarray(array)
        return plain[()] if plain.ndim == 0 else plain

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (np.asarray(self), self.raw)


class Texts(Meta, list[str]):
    """NTScalarArray of strings: a list of str."""

    def __init__(self, value: Any = (), raw: Value | None = None, /) -> None:
        super().__init__(value)
        self.raw = raw


class Choice(Meta, int):
    """NTEnum: the int index, which shows as its choice.

    choice: the str chosen, None if the index is not one of the choices. choices: all of them.
    """

    choices: tuple[str, ...]

    def __init__(self, value: int = 0, choices: tuple[str, ...] = (), raw: Value | None = None, /) -> None:
        self.choices = choices
        self.raw = raw

    def __new__(cls, value: int = 0, choices: tuple[str, ...] = (), raw: Value | None = None, /) -> Choice:
        return super().__new__(cls, value)

    @property
    def index(self) -> int:
        """The index as a plain int."""
        return int(self)

    @property
    def choice(self) -> str | None:
        """The choice that the index means."""
        return self.choices[self] if 0 <= self < len(self.choices) else None

    def __str__(self) -> str:
        choice = self.choice
        return int.__repr__(self) if choice is None else choice

    def __repr__(self) -> str:
        return f"Choice({int(self)}, {self.choice!r})"


class Table(Meta, dict[str, Any]):
    """NTTable: column name to column, a numpy array or a list of str.

    labels: the headings, as many as there are columns (else the column names stand in).
    """

    labels: tuple[str, ...]

    def __init__(
        self, columns: Mapping[str, Any], labels: tuple[str, ...] = (), raw: Value | None = None, /
    ) -> None:
        super().__init__(columns)
        self.labels = labels if len(labels) == len(self) else tuple(self)
        self.raw = raw

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), self.labels, self.raw)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows, each a dict. Raises NormativeError if the columns differ in length."""
        self._checked()
        columns = [c.tolist() if isinstance(c, np.ndarray) else c for c in self.values()]
        return (dict(zip(self, row, strict=True)) for row in zip(*columns, strict=True))

    def to_pandas(self, *, labels: bool = True) -> Any:
        """A pandas.DataFrame; its columns are named by the labels, or by the fields.

        Raises NormativeError if the columns differ in length, ImportError where pandas is not installed.
        """
        columns = [pandas_texts(column) if isinstance(column, list) else column for column in self._checked()]
        return pandas_frame(columns, list(self.labels if labels else self))

    def to_arrow(self, *, labels: bool = True) -> Any:
        """A pyarrow.Table, as for `to_pandas`; needs pyarrow. Bytes of strings that are not UTF-8 become U+FFFD."""
        pyarrow: Any = import_module("pyarrow")
        columns = [
            pyarrow.array(map(valid, column), pyarrow.string())
            if isinstance(column, list)
            else pyarrow.array(column)
            for column in self._checked()
        ]
        return pyarrow.table(columns, names=[valid(name) for name in (self.labels if labels else self)])

    def _checked(self) -> list[Any]:
        if len({len(column) for column in self.values()}) > 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in self.items())
            raise NormativeError(f"the columns of the table differ in length: {lengths}")
        return list(self.values())


class NameValue(Meta, dict[str, Any]):
    """NTNameValue: name to number or str. Of a name that comes twice the last counts; `raw` has all."""

    def __init__(self, pairs: Any = (), raw: Value | None = None, /) -> None:
        super().__init__(pairs)
        self.raw = raw

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), self.raw)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class URI(Meta):
    """NTURI: what an RPC is asked. query: name to value. str() is the text of it."""

    scheme: str
    authority: str
    path: str
    query: Mapping[str, Any]
    raw: Value | None = field(default=None, repr=False)

    def __str__(self) -> str:
        scheme = f"{self.scheme}:" if self.scheme else ""
        authority = f"//{self.authority}/" if self.authority else ""
        query = f"?{urlencode(self.query, errors='surrogateescape')}" if self.query else ""
        return f"{scheme}{authority}{quote(self.path, '/:;', 'utf-8', 'surrogateescape')}{query}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attribute(Meta):
    """NTAttribute: a named value of any type; of NTNDArray also where it comes from.

    source_type: 0 driver, 1 asyn parameter, 2 EPICS PV (`source` is its name), 3 function, 4 constant; None if not sent.
    """

    name: str
    value: Any
    tags: tuple[str, ...] = ()
    descriptor: str = ""
    source_type: int | None = None
    source: str = ""
    raw: Value | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Union(Meta):
    """NTUnion: the value in its union or any. member: the name of the selected member, "" for an any. A null is None."""

    value: Any
    member: str = ""
    raw: Value | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One channel of an NTMultiChannel; what was not sent is None."""

    name: str
    value: Any
    severity: int | None = None
    status: int | None = None
    message: str | None = None
    timestamp_ns: int | None = None
    user_tag: int | None = None
    connected: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Channels(Meta, Mapping[str, Channel]):
    """NTMultiChannel and NTScalarMultiChannel: name to Channel; or, for all channels at once, the columns.

    names: list of str. value: numpy array, or list. Per channel, None if not sent: severities, statuses, user_tags (int32),
    timestamps_ns (int64), connected (bool), messages (list of str). Of a name that comes twice, [name] is the last.
    """

    names: list[str]
    value: Any
    severities: NDArray | None = None
    statuses: NDArray | None = None
    messages: list[str] | None = None
    timestamps_ns: NDArray | None = None
    user_tags: NDArray | None = None
    connected: NDArray | None = None
    raw: Value | None = field(default=None, repr=False)
    _places: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {name: i for i, name in enumerate(self.names)})

    def __getitem__(self, name: str) -> Channel:
        i = self._places[name]
        value = self.value[i]
        return Channel(
            name=name,
            value=value.item() if isinstance(value, np.generic) else value,
            severity=_at(self.severities, i),
            status=_at(self.statuses, i),
            message=_at(self.messages, i),
            timestamp_ns=_at(self.timestamps_ns, i),
            user_tag=_at(self.user_tags, i),
            connected=_at(self.connected, i),
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _at(column: Any, i: int) -> Any:
    if column is None:
        return None
    return column[i].item() if isinstance(column, np.ndarray) else column[i]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Continuum(Meta):
    """NTContinuum: points in time or frequency. base: float64 (n,). value: float64 (n, m), m values a point.

    value_units: of the m values and the base, as sent.
    """

    base: NDArray
    value: NDArray
    value_units: tuple[str, ...]
    raw: Value | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram(Meta):
    """NTHistogram. counts: int16, int32 or int64 (n,). ranges: float64 (n + 1,), the edges of the bins.

    Bin i goes from ranges[i], included, to ranges[i + 1], which only the last bin includes: as numpy.histogram's.
    """

    counts: NDArray
    ranges: NDArray
    raw: Value | None = field(default=None, repr=False)


class Aggregate(Float):
    """NTAggregate: the centre of N observations, a float. What was not sent is None, a time 0."""

    @property
    def count(self) -> int:
        """N, how many observations."""
        return whole(self.raw, "N")

    @property
    def dispersion(self) -> float | None:
        """Standard deviation or RMS: the descriptor should say."""
        return self._optional("dispersion")

    @property
    def first(self) -> float | None:
        """The first observation."""
        return self._optional("first")

    @property
    def last(self) -> float | None:
        """The last observation."""
        return self._optional("last")

    @property
    def max(self) -> float | None:
        """The largest observation."""
        return self._optional("max")

    @property
    def min(self) -> float | None:
        """The smallest observation."""
        return self._optional("min")

    @property
    def first_timestamp(self) -> float:
        """Seconds since 1970 of the first observation."""
        return stamp_s(self.raw, "firstTimeStamp")

    @property
    def first_timestamp_ns(self) -> int:
        """Nanoseconds since 1970 of the first observation."""
        return stamp_ns(self.raw, "firstTimeStamp")

    @property
    def last_timestamp(self) -> float:
        """Seconds since 1970 of the last observation."""
        return stamp_s(self.raw, "lastTimeStamp")

    @property
    def last_timestamp_ns(self) -> int:
        """Nanoseconds since 1970 of the last observation."""
        return stamp_ns(self.raw, "lastTimeStamp")

    def _optional(self, name: str) -> float | None:
        found = number(self.raw, name, None)
        return None if found is None else float(found)

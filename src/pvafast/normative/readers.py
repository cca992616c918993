"""Value -> what a scientist wants. Fields are found by name; optional ones may be missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any, Final

import numpy as np

from .. import _backend
from ..errors import NormativeError
from .meta import fetch, text, whole
from .results import (
    _NS,
    URI,
    Aggregate,
    Array,
    Attribute,
    Bool,
    Channels,
    Choice,
    Continuum,
    Float,
    Histogram,
    Int,
    NameValue,
    Table,
    Text,
    Texts,
    Union,
)

Value = _backend.value.Value
UnionValue = _backend.value.UnionValue
AnyValue = _backend.value.AnyValue

Reader = Callable[[Value], Any]

# Minor versions add fields; a major one may mean something else.
_ID: Final = re.compile(r"epics:nt/(\w+):1\.\d+")


# Ids come from the peer: the cache is bounded.
@lru_cache(maxsize=256)
def kind(id: str) -> str:
    """The normative type that a type id names ("NTScalar"), whichever the minor version; "" if it names none."""
    match = _ID.fullmatch(id)
    return match.group(1) if match is not None else ""


def read(value: Value, /) -> Any:
    """What a normative type holds, with its metadata as attributes; a Value of any other type itself.

    NTScalar: Float, Int, Bool, Text. NTScalarArray, NTMatrix: Array, Texts. NTEnum: Choice. NTTable: Table.
    NTNameValue: NameValue. NTURI: URI. NTAttribute: Attribute. NTUnion: Union. NTMultiChannel, NTScalarMultiChannel:
    Channels. NTContinuum: Continuum. NTHistogram: Histogram. NTAggregate: Aggregate. NTNDArray: pvafast.ndarray.Frame.

    The types are known by their ids ("epics:nt/NTScalar:1.0"; any 1.x). Raises NormativeError if the structure is not what its
    id says: a field is missing, or is of another type.
    """
    reader = READERS.get(kind(value.type.id)) if value.type.is_structure else None
    return value if reader is None else reader(value)


def _reader(*names: str) -> Callable[[Reader], Reader]:
    def enter(reader: Reader) -> Reader:
        READERS.update(dict.fromkeys(names, reader))
        return reader

    return enter


# Name of the normative type -> its reader. `pvafast.ndarray` adds its own.
READERS: Final[dict[str, Reader]] = {}


def _wrong(value: Value, name: str, wanted: str) -> NormativeError:
    found = value.type[name].format("short") if name in value.type else "nothing"
    return NormativeError(f"{value.type.id}: {wanted} expected in `{name}`, {found} found")


def _need(value: Value, name: str, wanted: type | tuple[type, ...], what: str) -> Any:
    found = fetch(value, name)
    if not isinstance(found, wanted):
        raise _wrong(value, name, what)
    return found


def _array(value: Value, name: str) -> Any:
    """A numeric array."""
    return _need(value, name, np.ndarray, "a numeric array")


def _strings(value: Value, name: str) -> list[str]:
    found: list[str] = _need(value, name, list, "an array of string")
    if found and not isinstance(found[0], str):
        raise _wrong(value, name, "an array of string")
    return found


def _optional_array(value: Value, name: str, length: int) -> Any:
    """A column of `length`; None if it is missing, or empty, as servers send what they do not fill."""
    column = fetch(value, name)
    if not isinstance(column, np.ndarray | list) or not len(column):
        return None
    if len(column) != length:
        raise NormativeError(f"{value.type.id}: {len(column)} elements in `{name}` for {length} channels")
    return column


def opened(boxed: Any) -> Any:
    """What a union or an any holds; a normative type in it is read, too."""
    if isinstance(boxed, UnionValue | AnyValue):
        boxed = boxed.value
    return read(boxed) if isinstance(boxed, Value) else boxed


# bool before int: a bool is an int.
_SCALARS: Final[tuple[tuple[type, Callable[[Any, Value], Any]], ...]] = (
    (float, Float),
    (bool, Bool),
    (int, Int),
    (str, Text),
    (np.ndarray, Array),
)


@_reader("NTScalar", "NTScalarArray")
def _scalar(value: Value) -> Any:
    found = fetch(value, "value")
    for of, make in _SCALARS:
        if isinstance(found, of):
            return make(found, value)
    if isinstance(found, list):
        return Texts(_strings(value, "value"), value)
    raise _wrong(value, "value", "a scalar or an array of scalars")


@_reader("NTEnum")
def _enum(value: Value) -> Choice:
    index = _need(value, "value.index", int, "an index")
    choices = fetch(value, "value.choices")
    return Choice(index, tuple(choices) if isinstance(choices, list) else (), value)


@_reader("NTTable")
def _table(value: Value) -> Table:
    columns = _need(value, "value", Value, "a structure of columns")
    found = {}
    for name in columns:
        column = columns[(name,)]
        if not isinstance(column, np.ndarray | list) or (
            isinstance(column, list) and column and not isinstance(column[0], str)
        ):
            raise NormativeError(f"{value.type.id}: column `{name}` is no array of scalars")
        found[name] = column
    labels = fetch(value, "labels")
    return Table(found, tuple(labels) if isinstance(labels, list) else (), value)


@_reader("NTMatrix")
def _matrix(value: Value) -> Array:
    found = _array(value, "value")
    dim = fetch(value, "dim")
    # An empty dim is what a server sends that has none.
    if isinstance(dim, np.ndarray) and len(dim):
        shape = tuple(dim.tolist())
        if len(shape) > 2 or min(shape) < 0 or prod(shape) != len(found):
            raise NormativeError(f"{value.type.id}: {len(found)} elements for a matrix of dim {list(shape)}")
        found = found.reshape(shape)
    return Array(found, value)


@_reader("NTURI")
def _uri(value: Value) -> URI:
    query = fetch(value, "query")
    return URI(
        scheme=text(value, "scheme"),
        authority=text(value, "authority"),
        path=_need(value, "path", str, "a string"),
        query={name: opened(query[(name,)]) for name in query} if isinstance(query, Value) else {},
        raw=value,
    )


@_reader("NTNameValue")
def _name_value(value: Value) -> NameValue:
    names = _strings(value, "name")
    found = _need(value, "value", (np.ndarray, list), "an array of scalars")
    if len(found) != len(names):
        raise NormativeError(f"{value.type.id}: {len(names)} names for {len(found)} values")
    return NameValue(
        zip(names, found.tolist() if isinstance(found, np.ndarray) else found, strict=True), value
    )


def attribute(value: Value) -> Attribute:
    """An NTAttribute, or an element of the attributes of an NTNDArray, whichever id it has."""
    tags = fetch(value, "tags")
    source_type = whole(value, "sourceType", -1)
    return Attribute(
        name=_need(value, "name", str, "a string"),
        value=opened(fetch(value, "value")),
        tags=tuple(tags) if isinstance(tags, list) else (),
        descriptor=text(value, "descriptor"),
        source_type=None if source_type < 0 else source_type,
        source=text(value, "source"),
        raw=value,
    )


READERS["NTAttribute"] = attribute


@_reader("NTUnion")
def _union(value: Value) -> Union:
    if "value" not in value.type:
        raise _wrong(value, "value", "a union or an any")
    boxed = value["value"]
    return Union(value=opened(boxed), member=boxed.name if isinstance(boxed, UnionValue) else "", raw=value)


@_reader("NTMultiChannel", "NTScalarMultiChannel")
def _channels(value: Value) -> Channels:
    names = _strings(value, "channelName")
    n = len(names)
    found = _need(value, "value", (np.ndarray, list), "an array")
    if len(found) != n:
        raise NormativeError(f"{value.type.id}: {n} channel names for {len(found)} values")
    seconds = _optional_array(value, "secondsPastEpoch", n)
    nanoseconds = _optional_array(value, "nanoseconds", n)
    times = None
    if seconds is not None:
        times = seconds.astype(np.int64) * _NS
        if nanoseconds is not None:
            times += nanoseconds
    return Channels(
        names=names,
        value=[opened(one) for one in found] if isinstance(found, list) else found,
        severities=_optional_array(value, "severity", n),
        statuses=_optional_array(value, "status", n),
        messages=_optional_array(value, "message", n),
        timestamps_ns=times,
        user_tags=_optional_array(value, "userTag", n),
        connected=_optional_array(value, "isConnected", n),
        raw=value,
    )


@_reader("NTContinuum")
def _continuum(value: Value) -> Continuum:
    base, found = _array(value, "base"), _array(value, "value")
    n = len(base)
    if (n == 0 and len(found)) or (n and len(found) % n):
        raise NormativeError(f"{value.type.id}: {len(found)} values for {n} points")
    units = fetch(value, "units")
    return Continuum(
        base=base,
        value=found.reshape(n, len(found) // n if n else 0),
        value_units=tuple(units) if isinstance(units, list) else (),
        raw=value,
    )


@_reader("NTHistogram")
def _histogram(value: Value) -> Histogram:
    counts, ranges = _array(value, "value"), _array(value, "ranges")
    # A server that has nothing yet sends both empty.
    if len(ranges) != len(counts) + 1 and (len(ranges) or len(counts)):
        raise NormativeError(f"{value.type.id}: {len(ranges)} edges for {len(counts)} bins")
    return Histogram(counts=counts, ranges=ranges, raw=value)


@_reader("NTAggregate")
def _aggregate(value: Value) -> Aggregate:
    return Aggregate(_need(value, "value", (int, float), "a number"), value)

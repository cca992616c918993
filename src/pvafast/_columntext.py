"""What Columns of either twin turn their columns into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ._types import SCALARS, STRING

# Of type codes: which kind of array, if any.
_ARRAY_BITS: Final = 0x18
NUMBERS: Final = frozenset(SCALARS) - {STRING}
INTEGERS: Final = frozenset(range(0x20, 0x28))

if TYPE_CHECKING:
    from ._py.columns import Columns
    from ._py.introspection import FieldDesc


def stacked(items: list[Any], type: FieldDesc) -> Any:
    """A column of leaves that are not numbers: arrays of one length as a 2-D array, anything else as a list."""
    if type.dtype is None or not items or len({len(item) for item in items}) > 1:
        return items
    made = np.stack(items)
    made.flags.writeable = False
    return made


def offsets_of(column: Any, type: FieldDesc) -> tuple[Any, Any]:
    """A column of numeric arrays, back to back, and where each begins (int64, one more than there are rows)."""
    if type.dtype is None or type.code in SCALARS:
        raise TypeError(f"a column of {type.format('short')} has no offsets")
    values = np.concatenate(list(column)) if len(column) else np.empty(0, type.dtype)
    return values, _ends(column)


def as_numpy(columns: Columns) -> Any:
    """A structured array of all columns."""
    made: list[tuple[Any, ...]] = []
    found = {name: columns[name] for name in columns.fields}
    for name, column in found.items():
        if isinstance(column, np.ndarray):
            made.append((name, column.dtype, column.shape[1:]))
        else:
            made.append((name, np.dtype(object)))
    table = np.empty(len(columns), made)
    for name, column in found.items():
        if isinstance(column, np.ndarray):
            table[name] = column
        else:
            for i, item in enumerate(column):
                table[name][i] = item
    return table


def as_pandas(columns: Columns) -> Any:
    """A pandas.DataFrame of all columns; arrays are objects in it."""
    import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]

    found = {}
    for name in columns.fields:
        column = columns[name]
        found[name] = column if isinstance(column, np.ndarray) and column.ndim == 1 else list(column)
    return pandas.DataFrame(found, index=pandas.to_datetime(columns.time, unit="ns", utc=True))


def as_arrow(columns: Columns) -> Any:
    """A nanoarrow.Array of structures, one a row: `time`, `received`, and the fields."""
    try:
        import nanoarrow as na  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise ImportError("to_arrow() needs nanoarrow: pip install 'pvafast[arrow]'") from None

    def array(schema: Any, length: int, buffers: list[Any], *children: Any) -> Any:
        # Without validity bitmaps: nothing is null.
        return na.c_array_from_buffers(schema, length, [None, *buffers], null_count=0, children=children)

    def numbers(values: Any) -> Any:
        if values.dtype == np.bool_:
            return array(na.bool_(), len(values), [np.packbits(values, bitorder="little")])
        return array(getattr(na, values.dtype.name)(), len(values), [np.ascontiguousarray(values)])

    def texts(items: list[str]) -> Any:
        raw = [item.encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode() for item in items]
        return array(na.large_string(), len(raw), [_ends(raw), b"".join(raw)])

    def lists(items: list[Any], made: Any) -> Any:
        return array(na.large_list(made.schema), len(items), [_ends(items)], made)

    def stamps(values: Any) -> Any:
        return array(na.timestamp("ns", "UTC"), len(values), [values])

    def made_of(name: str) -> Any:
        type, column = columns.type[name], columns[name]
        if type.code in SCALARS:
            return texts(column) if type.code == STRING else numbers(column)
        if isinstance(column, np.ndarray):
            child = numbers(column.reshape(-1))
            schema = na.fixed_size_list(child.schema, column.shape[1])
            return array(schema, len(column), [], child)
        if type.dtype is not None:
            return lists(column, numbers(offsets_of(column, type)[0]))
        if type.code & ~_ARRAY_BITS == STRING:
            return lists(column, texts([text for item in column for text in item]))
        raise TypeError(
            f"a {type.format('short')} has no Arrow type, at `{name}`: name the fields that you want"
        )

    found = {"time": stamps(columns.time), "received": stamps(columns.received)}
    found |= {name: made_of(name) for name in columns.fields}
    schema = na.struct({name: made.schema for name, made in found.items()})
    return na.Array(array(schema, len(columns), [], *found.values()))


def _ends(items: list[Any]) -> Any:
    """Where each item begins when they stand back to back, and where the last ends."""
    ends = np.zeros(len(items) + 1, np.int64)
    np.cumsum([len(item) for item in items], out=ends[1:])
    return ends

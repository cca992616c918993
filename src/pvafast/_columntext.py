"""What Columns of either twin turn their columns into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._types import SCALARS

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
    offsets = np.zeros(len(column) + 1, np.int64)
    np.cumsum([len(item) for item in column], out=offsets[1:])
    values = np.concatenate(list(column)) if len(column) else np.empty(0, type.dtype)
    return values, offsets


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
    return pandas.DataFrame(found, index=pandas.to_datetime(columns.time, unit="ns"))

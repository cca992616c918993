"""Updates as columns, in a file that numpy.load reads (.npz)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import _backend
from .._valuejson import Form, encode

Columns = _backend.columns.Columns
UnionValue = _backend.value.UnionValue


class Recording:
    """Collects Columns of PVs, and writes them into one file. OSError where the file cannot be written.

    PV/FIELD: the column of a leaf, a row an update. Numbers and strings: (rows,). Arrays: (rows, n) where all have one length, else
    all back to back, and PV/FIELD.offsets (rows + 1,): where each begins. A union of arrays, as an NTNDArray has, is these
    arrays. Anything else: JSON, a string a row. PV/time: the time stamps, PV/received: when the rows came, int64 ns since 1970;
    PV/overrun: the server had dropped older values. When a PV changes its type, it goes on as PV@2, and so on.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with open(path, "wb"):  # now, rather than in an hour
            pass
        self._batches: dict[str, list[list[Any]]] = {}

    def add(self, name: str, columns: Columns) -> None:
        """Keep a batch of a PV."""
        parts = self._batches.setdefault(name, [])
        if not parts or parts[-1][-1].type != columns.type:
            parts.append([])
        parts[-1].append(columns)

    def told(self) -> Iterator[tuple[str, int, int]]:
        """Of each PV: name, rows, rows with overruns."""
        for name, parts in self._batches.items():
            batches = [columns for part in parts for columns in part]
            overruns = sum(int(_overrun(columns).sum()) for columns in batches)
            yield name, sum(map(len, batches)), overruns

    def write(self) -> None:
        """Write the file."""
        arrays: dict[str, Any] = {}
        for name, parts in self._batches.items():
            for i, batches in enumerate(parts):
                prefix = f"{name}@{i + 1}" if i else name
                for field in batches[0].fields:
                    key = f"{prefix}/{field or 'value'}"
                    column, offsets = _joined([columns[field] for columns in batches])
                    arrays[key] = column
                    if offsets is not None:
                        arrays[f"{key}.offsets"] = offsets
                arrays[f"{prefix}/time"] = np.concatenate([columns.time for columns in batches])
                arrays[f"{prefix}/received"] = np.concatenate([columns.received for columns in batches])
                arrays[f"{prefix}/overrun"] = np.concatenate([_overrun(columns) for columns in batches])
        with open(self.path, "wb") as file:
            np.savez(file, **arrays)


def _overrun(columns: Columns) -> Any:
    """Whether any field of a row was overrun."""
    found = np.zeros(len(columns), np.bool_)
    for field in columns.fields:
        found |= columns.overrun(field)
    return found


def _joined(batches: list[Any]) -> tuple[Any, Any]:
    """A column of several batches as one array, and offsets if its rows are arrays of different lengths."""
    if all(isinstance(batch, np.ndarray) for batch in batches) and len({b.shape[1:] for b in batches}) == 1:
        return np.concatenate(batches), None
    rows = [row for batch in batches for row in batch]
    rows = [row.value if isinstance(row, UnionValue) else row for row in rows]
    if all(isinstance(row, str) for row in rows):
        return np.array(rows, np.str_), None
    if all(isinstance(row, np.ndarray) for row in rows) and len({row.dtype for row in rows}) == 1:
        if len({len(row) for row in rows}) == 1:
            return np.stack(rows), None
        return np.concatenate(rows), _offsets(rows)
    if all(isinstance(row, list) and all(isinstance(item, str) for item in row) for row in rows):
        return np.array([item for row in rows for item in row], np.str_), _offsets(rows)
    form = Form()
    return np.array([encode(form.leaf(row)) for row in rows], np.str_), None


def _offsets(rows: list[Any]) -> Any:
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return offsets

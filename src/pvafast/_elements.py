"""ElementColumns: what a structure array becomes where a Projection names members of it. One class for both twins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np


@final
class ElementColumns:
    """The elements of a structure array as columns, one a member: no object for an element. Frozen.

    fields: the dotted names of the members. `c["x"]`: of a number an ndarray of its dtype and shape (n,), read-only; of
    anything else a list of what a leaf of the type holds. present: bool, shape (n,): False where the element is null; its row reads as
    zero in arrays, as None in lists. `len(c)` is n. `dict(c)` and `pandas.DataFrame(dict(c))` work.
    """

    __slots__ = ("_columns", "fields", "present")

    fields: tuple[str, ...]
    present: np.ndarray[Any, np.dtype[np.bool_]]
    _columns: dict[str, Any]

    def __init__(self, present: np.ndarray[Any, np.dtype[np.bool_]], columns: Mapping[str, Any]) -> None:
        object.__setattr__(self, "present", present)
        object.__setattr__(self, "fields", tuple(columns))
        object.__setattr__(self, "_columns", dict(columns))

    def keys(self) -> tuple[str, ...]:
        """The same as `fields`."""
        return self.fields

    def __getitem__(self, name: str, /) -> Any:
        return self._columns[name]

    def __contains__(self, name: object, /) -> bool:
        return name in self._columns

    def __len__(self) -> int:
        return len(self.present)

    def __bool__(self) -> bool:
        return True

    # Neither rows nor names: what is meant has to be said.
    __iter__ = None

    def copy(self) -> ElementColumns:
        """The same, with lists of its own."""
        return ElementColumns(
            self.present,
            {name: list(c) if isinstance(c, list) else c for name, c in self._columns.items()},
        )

    def __setattr__(self, name: str, value: object, /) -> None:
        raise AttributeError("ElementColumns is frozen")

    def __delattr__(self, name: str, /) -> None:
        raise AttributeError("ElementColumns is frozen")

    def __eq__(self, other: object, /) -> bool:
        if not isinstance(other, ElementColumns):
            return NotImplemented
        return (
            self.fields == other.fields
            and _same(self.present, other.present)
            and all(_same(self[name], other[name]) for name in self.fields)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<ElementColumns of {len(self)}: {', '.join(self.fields)}>"

    def __reduce__(self) -> tuple[object, ...]:
        return ElementColumns, (self.present, self._columns)


ElementColumns.__module__ = "pvafast"


def _same(a: Any, b: Any) -> bool:
    """Equality of columns and of what lists hold; of numbers bit by bit."""
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.tobytes() == b.tobytes()
        )
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(_same, a, b))
    return a.__class__ is b.__class__ and bool(a == b)

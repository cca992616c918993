"""What Columns of either twin turn their columns into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ._types import ARRAY_BITS, BOUNDED_STRING, DTYPES, FIXED, SCALARS, STRING

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
    return _joined(column, type), _ends(column)


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


def valid(text: str) -> str:
    """A string that can be UTF-8: other bytes, which surrogateescape kept, become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def pandas_texts(texts: list[Any], index: Any = None) -> Any:
    """Strings and None as a pandas.Series: of str, or where one is not UTF-8, which pandas 3 cannot hold in it, of objects."""
    import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]

    try:
        return pandas.Series(texts, index, dtype="str")
    except UnicodeEncodeError:
        return pandas.Series(texts, index, dtype=object)


def pandas_frame(columns: list[Any], names: list[str], index: Any = None) -> Any:
    """A pandas.DataFrame of columns under these names, which can be the same, or not UTF-8."""
    import pandas

    frame = pandas.DataFrame(dict(enumerate(columns)), index=index)
    frame.columns = pandas.Index(names, dtype=pandas_texts(names).dtype)
    return frame


def as_pandas(columns: Columns) -> Any:
    """A pandas.DataFrame of all columns by time: arrays are objects in it, enums a Categorical."""
    import pandas

    found = {}
    index = _index(pandas, columns)
    for name in columns.fields:
        enum = _enum(columns, name)
        if enum == name:
            continue  # its choice stands for both
        column = columns[name]
        if columns.type[name].code in (STRING, BOUNDED_STRING):
            found[name] = pandas_texts(column, index)
        else:
            found[name] = column if isinstance(column, np.ndarray) and column.ndim == 1 else list(column)
        if enum:
            found[enum.rpartition(".")[0]] = pandas.Categorical(pandas_texts(_choices(columns, name, enum)))
    return pandas_frame(list(found.values()), list(found), index)


def _index(pandas: Any, columns: Columns) -> Any:
    """The time stamps; those that were not set are NaT."""
    time = columns.time.view("datetime64[ns]").copy()
    time[time == np.datetime64(0, "ns")] = np.datetime64("NaT", "ns")
    return pandas.DatetimeIndex(time, name="time").tz_localize("UTC")


def as_arrow(columns: Columns) -> Any:
    """A nanoarrow.Array of structures, one a row: `time`, `received`, and the fields."""
    try:
        import nanoarrow as na  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise ImportError("to_arrow() needs nanoarrow: pip install 'pvafast[arrow]'") from None

    def array(schema: Any, length: int, buffers: list[Any], *children: Any, there: Any = None) -> Any:
        nulls = 0 if there is None else length - int(there.sum())
        bits = np.packbits(there, bitorder="little") if nulls else None
        return na.c_array_from_buffers(schema, length, [bits, *buffers], null_count=nulls, children=children)

    def numbers(values: Any) -> Any:
        if values.dtype == np.bool_:
            return array(na.bool_(), len(values), [np.packbits(values, bitorder="little")])
        return array(getattr(na, values.dtype.name)(), len(values), [np.ascontiguousarray(values)])

    def texts(items: list[str], there: Any = None) -> Any:
        raw = [valid(item).encode() for item in items]
        return array(na.large_string(), len(raw), [_ends(raw), b"".join(raw)], there=there)

    def stamps(values: Any) -> Any:
        return array(na.timestamp("ns", "UTC"), len(values), [values], there=values != 0)

    def made_of(name: str) -> Any:
        type, column = columns.type[name], columns[name]
        if type.code in DTYPES:
            return numbers(column)
        if type.code in (STRING, BOUNDED_STRING):
            return texts(column)
        element = type.code & ~ARRAY_BITS
        if element not in SCALARS:
            raise TypeError(
                f"a {type.format('short')} has no Arrow type, at `{name}`: name the fields that you want"
            )
        if element == STRING:
            child = texts([text for item in column for text in item])
        else:
            child = numbers(_joined(column, type))
        if type.code & ARRAY_BITS == FIXED:
            return array(na.fixed_size_list(child.schema, type.bound), len(column), [], child)
        return array(na.large_list(child.schema), len(column), [_ends(column)], child)

    found = {"time": stamps(columns.time), "received": stamps(columns.received)}
    for name in columns.fields:
        enum = _enum(columns, name)
        if enum != name:
            found[name] = made_of(name)
        if enum and enum != name:
            chosen = _choices(columns, name, enum)
            there = np.array([choice is not None for choice in chosen], np.bool_)
            found[enum.rpartition(".")[0]] = texts([choice or "" for choice in chosen], there)
    schema = na.struct({valid(name): made.schema for name, made in found.items()})
    return na.Array(array(schema, len(columns), [], *found.values()))


def _enum(columns: Columns, name: str) -> str:
    """Of a part of an enum whose other part is there, too: the name of its choices; "" of anything else."""
    parent, _, leaf = name.rpartition(".")
    if not parent or leaf not in ("index", "choices"):
        return ""
    type = columns.type[parent]
    if set(type.members) != {"index", "choices"}:
        return ""
    if type.members["index"].code not in INTEGERS or type.members["choices"].code & ~ARRAY_BITS != STRING:
        return ""
    fields = columns.fields
    both = f"{parent}.index" in fields and f"{parent}.choices" in fields
    return f"{parent}.choices" if both else ""


def _choices(columns: Columns, index: str, choices: str) -> list[str | None]:
    """The choice of each row; None where the index has none."""
    return [
        texts[i] if 0 <= i < len(texts) else None
        for i, texts in zip(columns[index].tolist(), columns[choices], strict=True)
    ]


def _joined(column: Any, type: FieldDesc) -> Any:
    """Numeric arrays back to back."""
    if isinstance(column, np.ndarray):
        return column.reshape(-1)
    return np.concatenate(column) if column else np.empty(0, type.dtype)


def _ends(items: Any) -> Any:
    """Where each item begins when they stand back to back, and where the last ends."""
    if isinstance(items, np.ndarray):
        return np.arange(len(items) + 1, dtype=np.int64) * items.shape[1]
    ends = np.zeros(len(items) + 1, np.int64)
    np.cumsum([len(item) for item in items], out=ends[1:])
    return ends

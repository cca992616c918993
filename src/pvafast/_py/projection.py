"""Projection: some fields of a type are decoded, the rest is skipped without making objects of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, final

import numpy as np

from .._elements import ElementColumns
from .._types import (
    ANY,
    ANY_ARRAY,
    ARRAY_BITS,
    BOOL,
    BOUNDED_STRING,
    DTYPES,
    SCALAR_FORMS,
    SCALARS,
    STRING,
    STRUCTURE,
    STRUCTURE_ARRAY,
    UNION,
    VARIABLE,
)
from ..errors import DecodeError
from .array import _BYTE, _frozen
from .bitset import _read_bits
from .buffer import Reader
from .introspection import _NUMBER, FieldDesc, _Plan, _read_desc, _too_deep, _TypeIds
from .value import (
    _ARRAY_WEIGHT,
    _BOX_WEIGHT,
    _LEAF_WEIGHT,
    _PLACE_WEIGHT,
    _VALUE_WEIGHT,
    Value,
    _charge,
    _count_elements,
    _made,
    _read_leaf,
    _zero,
)

_Name: TypeAlias = "str | tuple[str, ...]"

# What is done with a leaf.
_SKIP: Final = 0
_READ: Final = 1
_COLUMNS: Final = 2  # a structure array of which members are named


@final
class Projection:
    """Some fields of a type: given to a Codec in place of the type, they are decoded and the rest is skipped. Frozen.

    type: as `FieldDesc.of` takes it. fields: dotted names, or tuples of exact names; afterwards those of the leaves. A
    structure stands for all in it; unions, anys and arrays are taken whole. A path may lead through one structure array
    ("dimension.size"): its elements then come as an ElementColumns, with one numpy array for each number that is named and
    no object for an element. A structure array that is itself named ("dimension") comes as ever, a list of Value or None.
    strict: a name that the type does not have is a KeyError; else it counts for nothing.

    What is decoded is a Value of the same type. Fields left out are never set, so they read as zero, "", None or an empty
    array, and `changed` tells of the named ones only. What is skipped is checked all the same: the errors are those of
    decoding the whole, in text and offset. One can come on top: a null element takes room in each column, so very many
    of them in very many columns exceed Limits.expansion.
    """

    __slots__ = ("_columns", "_mask", "_slots", "_takes", "fields", "type")

    type: FieldDesc
    fields: tuple[str, ...]
    # By slot: what is done with the leaf; for those that become columns, the projection of the elements.
    _takes: bytearray
    _columns: dict[int, Projection]
    # The slots that are not skipped, and the bits of their nodes.
    _slots: list[int]
    _mask: int

    def __init__(
        self, type: FieldDesc | str | Mapping[str, Any], fields: Iterable[_Name], *, strict: bool = True
    ) -> None:
        fd = FieldDesc.of(type)
        plan = fd._plan_()
        if isinstance(fields, str):
            raise TypeError(f"fields are a list of names, not {fields!r}")
        takes = bytearray(len(plan.nodes))
        inner: dict[int, list[_Name]] = {}
        for name in fields:
            found = _find(fd, name)
            if found is None:
                if strict:
                    raise KeyError(name)
                continue
            node, rest = found
            if rest is None:
                for slot in range(*plan.slots(node)):
                    takes[slot] = _READ
            else:
                inner.setdefault(plan.first[node], []).append(rest)
        columns = {}
        for slot, names in inner.items():
            if takes[slot] == _SKIP:
                takes[slot] = _COLUMNS
                element = plan.types[plan.nodes[slot]].element
                assert element is not None
                columns[slot] = Projection(element, names)
        _set_type(self, fd)
        _set_takes(self, takes)
        _set_columns(self, columns)
        _set_slots(self, [slot for slot, take in enumerate(takes) if take])
        _set_mask(self, sum(1 << plan.nodes[slot] for slot in self._slots))
        _set_fields(self, tuple(_names(self)))

    def __setattr__(self, name: str, value: object, /) -> None:
        raise AttributeError(f"Projection is frozen: {name}")

    def __delattr__(self, name: str, /) -> None:
        raise AttributeError(f"Projection is frozen: {name}")

    def __repr__(self) -> str:
        return f"<Projection of {self.type.id or self.type.format('short')!r}: {', '.join(self.fields)}>"

    def __reduce__(self) -> tuple[object, ...]:
        return Projection, (self.type, self.fields)


Projection.__module__ = "pvafast"

# A frozen class is filled through its slots.
_set_type, _set_takes, _set_columns, _set_slots, _set_mask, _set_fields = (
    getattr(Projection, slot).__set__ for slot in ("type", "_takes", "_columns", "_slots", "_mask", "fields")
)


def _find(type: FieldDesc, name: _Name) -> tuple[int, _Name | None] | None:
    """The node that a name means, and what it names in the elements if that is a structure array; None: no such field."""
    if name in type:
        return type.index(name), None
    splits: list[tuple[_Name, _Name]] = [("", name)]
    if isinstance(name, str):
        splits += [(name[:at], name[at + 1 :]) for at, letter in enumerate(name) if letter == "."]
    else:
        splits += [(name[:at], name[at:]) for at in range(1, len(name))]
    for outer, rest in splits:
        if outer in type and type[outer].code == STRUCTURE_ARRAY and rest in type[outer].element:  # type: ignore[operator]
            return type.index(outer), rest
    return None


def _names(p: Projection) -> Iterable[str]:
    """The dotted names of the leaves that are not skipped."""
    plan = p.type._plan_()
    for slot in p._slots:
        name = plan.names[plan.nodes[slot]]
        if slot in p._columns:
            yield from (f"{name}.{inner}" if name else inner for inner in p._columns[slot].fields)
        else:
            yield name


# --- reading -------------------------------------------------------------------------------------------------------


def _read_projected(p: Projection, r: Reader, ids: _TypeIds) -> Any:
    """Read a full value."""
    fd = p.type
    count = len(fd._plan_().nodes)
    slots: list[Any] = [None] * count
    if fd.code != STRUCTURE:
        _charge(r, 1, _LEAF_WEIGHT, r.pos)
        _read_some(p, 0, 1, slots, r, ids)
        return slots[0] if p._takes[0] else _zero(fd)
    _charge(r, count + 1, _VALUE_WEIGHT + _LEAF_WEIGHT * count, r.pos)
    _read_some(p, 0, count, slots, r, ids)
    return _made(fd, slots, 0)


def _read_projected_update(p: Projection, r: Reader, ids: _TypeIds, base: Value | None) -> Value:
    """Read a BitSet and the data of the nodes in it; named fields that did not come are those of base."""
    plan = p.type._plan_()
    try:
        bits = _read_bits(r) & plan.mask
    except DecodeError as error:
        error.within("changed")
        raise
    slots: list[Any] = [None] * len(plan.nodes)
    if base is not None:
        for slot in p._slots:
            slots[slot] = base._slots_[base._first_ + slot]
    came = bits
    nexts, first = plan.nexts, plan.first
    while bits:
        i = (bits & -bits).bit_length() - 1
        stop = nexts[i]
        leaves = first[stop] - first[i]
        _charge(r, leaves, _LEAF_WEIGHT * leaves, r.pos)
        _read_some(p, first[i], first[stop], slots, r, ids)
        if stop > i + 1:
            came |= (1 << stop) - (1 << i)
        bits = bits >> stop << stop
    return _made(p.type, slots, came & p._mask, received=True)


def _read_some(p: Projection, slot: int, stop: int, slots: list[Any], r: Reader, ids: _TypeIds) -> None:
    """Read the leaves slot to stop that are named, and skip the others."""
    plan = p.type._plan_()
    data, end, big = r.data, r.end, r.big
    takes, kinds, packed, nodes = p._takes, plan.kinds, plan.packed, plan.nodes
    pos = r.pos
    try:
        while slot < stop:
            take = takes[slot]
            if kinds[slot] == _NUMBER and packed[slot][big].size <= end - pos:  # type: ignore[index]
                form = packed[slot][big]  # type: ignore[index]
                if take:
                    slots[slot] = form.unpack_from(data, pos)[0]
                pos += form.size
            else:
                r.pos = pos
                type, depth = plan.types[nodes[slot]], plan.depths[slot]
                if take == _SKIP:
                    _skip_leaf(type, r, ids, depth)
                elif take == _READ:
                    slots[slot] = _read_leaf(type, r, ids, depth)
                else:
                    slots[slot] = _read_columns(p._columns[slot], r, ids, depth)
                pos = r.pos
            slot += 1
    except DecodeError as error:
        if name := plan.name(nodes[slot]):
            error.within(name)
        raise
    r.pos = pos


@final
class _Run:
    """Numbers of an element that lie one behind the other, and the bytes of those of the elements read so far."""

    __slots__ = ("chunks", "offsets", "size", "taken")

    def __init__(self) -> None:
        self.size = 0
        # By slot: where it lies in the run.
        self.offsets: dict[int, int] = {}
        self.taken = False
        self.chunks: list[bytes] = []


def _steps(plan: _Plan, p: Projection | None) -> list[tuple[int, _Run | None]]:
    """What an element is made of: runs of numbers, and other leaves (None) by slot."""
    steps: list[tuple[int, _Run | None]] = []
    run: _Run | None = None
    for slot, kind in enumerate(plan.kinds):
        if kind != _NUMBER:
            steps.append((slot, None))
            run = None
            continue
        if run is None:
            run = _Run()
            steps.append((slot, run))
        run.offsets[slot] = run.size
        run.size += _size(plan, slot)
        run.taken = run.taken or (p is not None and p._takes[slot] != _SKIP)
    return steps


def _size(plan: _Plan, slot: int) -> int:
    """The bytes of a number on the wire."""
    return SCALARS[plan.types[plan.nodes[slot]].code][4]


def _read_columns(p: Projection, r: Reader, ids: _TypeIds, depth: int) -> ElementColumns:
    """Read a structure array as columns; p is of its elements."""
    plan = p.type._plan_()
    n = _count_elements(STRUCTURE_ARRAY, r)
    # What a null element takes in columns, beyond the place in a list that was charged for it.
    row = 1 + sum(_size(plan, slot) if plan.kinds[slot] == _NUMBER else 8 for slot in p._slots)
    more = max(0, row - _PLACE_WEIGHT)
    if more * n > r.weight:
        _each_element(plan, n, more, None, r, ids, depth)  # raises: no element weighs less
    start = r.pos
    found: dict[int, Any]
    if _pass_records(plan, n, r):
        present = np.ones(n, np.bool_)
        [(_, run)] = _steps(plan, p) or [(0, None)]
        found = {} if run is None else _numbers(p, run, r.data, start, 1, present, r.big)
    else:
        present, found = _each_element(plan, n, more, p, r, ids, depth)
    names = plan.names
    return ElementColumns(_frozen(present), {names[plan.nodes[slot]]: found[slot] for slot in p._slots})


def _each_element(
    plan: _Plan, n: int, more: int, p: Projection | None, r: Reader, ids: _TypeIds, depth: int
) -> tuple[np.ndarray[Any, Any], dict[int, Any]]:
    """Read n elements; which are present, and by slot the columns that p names (None: none). A null one weighs `more`."""
    data, leaves = r.data, len(plan.nodes)
    weight = _VALUE_WEIGHT + _LEAF_WEIGHT * leaves
    steps = _steps(plan, p)
    present = bytearray(n)
    columns: dict[int, Any] = {}
    for slot, run in steps:
        if run is None and p is not None and p._takes[slot] != _SKIP:
            columns[slot] = [None] * n
    for i in range(n):
        slot = -1
        try:
            pos = r.pos
            if pos >= r.end:
                raise r._short("presence byte", 1)
            r.pos = pos + 1
            if not data[pos]:
                _charge(r, 0, more, pos)
                continue
            _charge(r, leaves + 1, weight, r.pos)
            present[i] = 1
            for slot, run in steps:
                if run is not None:
                    pos = r.pos
                    while run.size > r.end - pos:  # one of these is not there
                        _skip_leaf(plan.types[plan.nodes[slot]], r, ids, depth)
                        slot += 1
                    r.pos = pos + run.size
                    if run.taken:
                        run.chunks.append(bytes(data[pos : r.pos]))
                    continue
                type = plan.types[plan.nodes[slot]]
                if slot in columns:
                    columns[slot][i] = _read_leaf(type, r, ids, depth + 1 + plan.depths[slot])
                else:
                    _skip_leaf(type, r, ids, depth + 1 + plan.depths[slot])
        except DecodeError as error:
            if slot >= 0 and (name := plan.name(plan.nodes[slot])):
                error.within(name)
            error.within(f"[{i}]")
            raise
    mask = np.array(present, np.uint8).view(np.bool_)
    for _, run in steps:
        if run is not None and run.taken:
            assert p is not None
            columns |= _numbers(p, run, b"".join(run.chunks), 0, 0, mask, r.big)
    return mask, columns


def _numbers(
    p: Projection, run: _Run, data: Any, start: int, gap: int, present: np.ndarray[Any, Any], big: bool
) -> dict[int, np.ndarray[Any, Any]]:
    """By slot, the columns of a run of numbers; data: those of the elements present, from `start`, so many bytes in front of each."""
    plan = p.type._plan_()
    codes = {slot: plan.types[plan.nodes[slot]].code for slot in run.offsets if p._takes[slot] != _SKIP}
    record: np.dtype[Any] = np.dtype(
        {
            "names": [str(slot) for slot in codes],
            "formats": [
                _BYTE if code == BOOL else DTYPES[code].newbyteorder(">" if big else "<")
                for code in codes.values()
            ],
            "offsets": [gap + run.offsets[slot] for slot in codes],
            "itemsize": gap + run.size,
        }
    )
    count = int(np.count_nonzero(present))
    records = np.frombuffer(data, record, count, start) if count else np.empty(0, record)
    columns = {}
    for slot, code in codes.items():
        raw = records[str(slot)]
        column = np.zeros(len(present), DTYPES[code])
        column[present] = raw != 0 if code == BOOL else raw
        columns[slot] = _frozen(column)
    return columns


def _pass_records(plan: _Plan, n: int, r: Reader) -> bool:
    """Go past n elements of nothing but numbers that are all there, none of them null; False: that is not what comes."""
    leaves = len(plan.nodes)
    weight = _VALUE_WEIGHT + _LEAF_WEIGHT * leaves
    if any(plan.kinds) or n * (leaves + 1) > r.nodes or n * weight > r.weight:
        return False
    step = 1 + sum(_size(plan, slot) for slot in range(leaves))
    stop = r.pos + n * step
    if stop > r.end or not all(r.data[r.pos : stop : step]):
        return False
    r.nodes -= n * (leaves + 1)
    r.weight -= n * weight
    r.pos = stop
    return True


# --- skipping: whatever is not plainly there is read, which raises what reading raises -------------------------------


def _skip_full(fd: FieldDesc, r: Reader, ids: _TypeIds, depth: int) -> None:
    """Go past a full value of any type."""
    if fd.code != STRUCTURE:
        _charge(r, 1, _LEAF_WEIGHT, r.pos)
        _skip_leaf(fd, r, ids, depth)
        return
    plan = fd._plan_()
    leaves = len(plan.nodes)
    _charge(r, leaves + 1, _VALUE_WEIGHT + _LEAF_WEIGHT * leaves, r.pos)
    slot = 0
    try:
        for slot in range(leaves):
            _skip_leaf(plan.types[plan.nodes[slot]], r, ids, depth + plan.depths[slot])
    except DecodeError as error:
        if name := plan.name(plan.nodes[slot]):
            error.within(name)
        raise


def _skip_leaf(fd: FieldDesc, r: Reader, ids: _TypeIds, depth: int) -> None:
    """Go past a leaf of any type."""
    code = fd.code
    if code == STRING:
        _skip_string(r)
    elif code in SCALARS:
        size = SCALARS[code][4]
        if size > r.end - r.pos:
            _read_leaf(fd, r, ids, depth)
        r.pos += size
    elif code in SCALAR_FORMS:
        _skip_array(fd, r, ids, depth)
    elif code == UNION:
        _skip_union(fd, r, ids, depth)
    elif code == ANY:
        _skip_any(r, ids, depth)
    elif code == BOUNDED_STRING:
        _read_leaf(fd, r, ids, depth)
    elif code == STRUCTURE_ARRAY:
        n = _count_elements(code, r)
        assert fd.element is not None
        plan = fd.element._plan_()
        if not _pass_records(plan, n, r):
            _each_element(plan, n, 0, None, r, ids, depth)
    else:
        _skip_boxes(fd, r, ids, depth)


def _skip_string(r: Reader) -> None:
    start = r.pos
    n = r.nullable_size() or 0
    if n > r.end - r.pos or n > r.limits.string:
        r.pos = start
        r.string()
    r.pos += n


def _skip_array(fd: FieldDesc, r: Reader, ids: _TypeIds, depth: int) -> None:
    """A scalar array."""
    element, form, start = fd.code & ~ARRAY_BITS, fd.code & ARRAY_BITS, r.pos
    if form == VARIABLE:
        n = r.size()
        if element != STRING and n * SCALARS[element][4] <= r.end - r.pos:
            _charge(r, 0, _ARRAY_WEIGHT if n else 0, start)
            r.pos += n * SCALARS[element][4]
            return
        if element == STRING and n <= r.end - r.pos and n <= r.limits.elements:
            try:
                for _ in range(n):
                    _skip_string(r)
            except DecodeError:
                pass
            else:
                _charge(r, 0, _ARRAY_WEIGHT + _LEAF_WEIGHT * n if n else 0, start)
                return
        r.pos = start
    _read_leaf(fd, r, ids, depth)


def _skip_union(fd: FieldDesc, r: Reader, ids: _TypeIds, depth: int) -> None:
    pos = r.pos
    selector = r.nullable_size()
    if selector is None:
        return
    if selector >= len(fd._names_):
        r.pos = pos
        _read_leaf(fd, r, ids, depth)
    _charge(r, 1, _BOX_WEIGHT, pos)
    try:
        _skip_full(fd._types_[selector], r, ids, depth + 1)
    except DecodeError as error:
        error.within(fd._names_[selector])
        raise


def _skip_any(r: Reader, ids: _TypeIds, depth: int) -> None:
    """A type description, whose ids are kept as ever, and a value."""
    pos = r.pos
    if depth >= r.limits.depth:
        raise _too_deep(pos, r.limits.depth)
    fd = _read_desc(r, ids, depth + 1)
    if fd is not None:
        _charge(r, 1, _BOX_WEIGHT, pos)
        _skip_full(fd, r, ids, depth + 1)


def _skip_boxes(fd: FieldDesc, r: Reader, ids: _TypeIds, depth: int) -> None:
    """An array of unions or anys."""
    for i in range(_count_elements(fd.code, r)):
        try:
            if r.pos >= r.end:
                raise r._short("presence byte", 1)
            r.pos += 1
            if not r.data[r.pos - 1]:
                continue
            if fd.code == ANY_ARRAY:
                _skip_any(r, ids, depth)
            else:
                assert fd.element is not None
                _skip_union(fd.element, r, ids, depth + 1)
        except DecodeError as error:
            error.within(f"[{i}]")
            raise

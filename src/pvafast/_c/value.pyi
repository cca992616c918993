"""Value, UnionValue, AnyValue: full values and BitSet-masked updates, read and written along a flat plan (WIRE 6.3, 6.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from struct import pack
from typing import Any, Final, final

import numpy as np

from .._coerce import Coercion
from .._elements import ElementColumns
from .._types import (
    ANY,
    ARRAY_BITS,
    BOUNDED,
    BOUNDED_STRING,
    DTYPES,
    FIXED,
    SCALAR_FORMS,
    SCALARS,
    STRING,
    STRUCTURE,
    STRUCTURE_ARRAY,
    UNION,
    UNION_ARRAY,
)
from .._valuetext import format_repr, format_tree
from ..errors import DecodeError, EncodeError, LimitExceeded, RangeError
from .array import _EMPTY, _read_numbers, _read_strings, _write_numbers, _write_strings
from .bitset import BitSet, _from_int, _iterate, _read_bits, _write_bits
from .buffer import _NUMBERS, Reader, Writer
from .introspection import (
    _NUMBER,
    _TEXT,
    FieldDesc,
    _Plan,
    _read_desc,
    _too_deep,
    _too_heavy,
    _TypeIds,
    _write_desc,
)

# What objects weigh in memory, charged against Limits.expansion: a Value; a UnionValue or AnyValue; what a leaf holds,
# be it a number or a short string (the longer ones weigh what they do on the wire); what an array weighs on top of that;
# a place in a list.
_VALUE_WEIGHT: Final = 144
_BOX_WEIGHT: Final = 64
_LEAF_WEIGHT: Final = 88
_ARRAY_WEIGHT: Final = 40
_PLACE_WEIGHT: Final = 16


@final
class Value:
    """A value of a structure type; its leaves are slots, its sub-structures views with numbering of their own.

    `v["alarm.severity"]` reads a field by its dotted path, `v[("a.b",)]` by exact names, `v[""]` the whole;
    `v.alarm.severity` reaches the fields whose names are none of the methods: changed, changed_names, copy, mark,
    overlay, to_dict, type, unmark. Setting a field converts what is given to the field's type (EncodeError,
    RangeError) and marks it changed. A field that was never set reads as zero, "", an empty array or None.

    `Value(type, fields)`: type as `FieldDesc.of` takes it; fields a mapping of dotted names, or the value itself for
    a type that is not a structure. Numeric arrays are kept, not copied, where they already have the right dtype.
    """

    __slots__ = ("_bits_", "_fd_", "_first_", "_node_", "_origin_", "_root_", "_slots_")

    _fd_: FieldDesc
    _slots_: list[Any]
    _first_: int
    _node_: int
    _root_: Value | None
    _bits_: int
    # True: from an update, and not changed since; then what it was when it was received.
    _origin_: Value | bool

    def __init__(self, type: FieldDesc | str | Mapping[str, Any], fields: Any = None, /) -> None:
        fd = FieldDesc.of(type)
        plan = fd._plan_()
        _set_fd(self, fd)
        _set_slots(self, [None] * len(plan.nodes))
        _set_first(self, 0)
        _set_node(self, 0)
        _set_root(self, None)
        _set_bits(self, 0)
        _set_origin(self, False)
        if fields is not None:
            if fd.code == STRUCTURE:
                _assign(self, plan, 0, fields)
            else:
                self[""] = fields

    @property
    def type(self) -> FieldDesc:
        """The type."""
        return self._fd_

    @property
    def changed(self) -> BitSet:
        """The bits of the nodes marked changed; of a decoded update, those received that lie in the structure."""
        return _from_int(_bits(self))

    def changed_names(self) -> list[str]:
        """The dotted names of the leaves that the changed bits stand for, depth first."""
        plan = self._fd_._plan_()
        return [plan.names[i] for i in plan.expand(_bits(self))]

    def mark(self, *names: str | tuple[str, ...]) -> None:
        """Mark fields as changed; "" is the whole. A structure is marked by its own bit."""
        bits = 0
        for name in names:
            bits |= 1 << self._fd_.index(name)
        _before_change(self)
        root = self._root_ or self
        _set_bits(root, root._bits_ | bits << self._node_)

    def unmark(self, *names: str | tuple[str, ...]) -> None:
        """Take back the marks of fields and all below them; without a name of all fields."""
        plan = self._fd_._plan_()
        mask = 0
        for name in names or ("",):
            i = self._fd_.index(name)
            mask |= (1 << plan.nexts[i]) - (1 << i)
        _before_change(self)
        root = self._root_ or self
        _set_bits(root, root._bits_ & ~(mask << self._node_))

    def overlay(self, other: Value, /) -> None:
        """Lay the changed fields of `other`, a Value of the same type, over this one; they are marked here, too."""
        if not isinstance(other, Value):
            raise TypeError(f"overlay takes a Value, not {other.__class__.__name__}")
        if other._fd_ != self._fd_:
            raise EncodeError("overlay with a Value of another type")
        plan = self._fd_._plan_()
        bits = _bits(other)
        mine, theirs = self._first_, other._first_
        _before_change(self)
        for i in plan.expand(bits):
            slot = plan.first[i]
            self._slots_[mine + slot] = other._slots_[theirs + slot]
        root = self._root_ or self
        _set_bits(root, root._bits_ | bits << self._node_)

    def to_dict(self) -> dict[str, Any]:
        """All fields as nested dicts; arrays stay numpy arrays, unions and anys UnionValue and AnyValue."""
        if self._fd_.code != STRUCTURE:
            return {"": _plain(self[""])}
        return {name: _plain(self[(name,)]) for name in self._fd_._names_}

    def copy(self) -> Value:
        """A Value with the same fields and marks that shares nothing that can be changed."""
        count = len(self._fd_._plan_().nodes)
        slots = [_copied(leaf) for leaf in self._slots_[self._first_ : self._first_ + count]]
        return _made(self._fd_, slots, _bits(self))

    def _received_(self) -> Value:
        """What came with the update, if this is one, whatever was changed in it since: what the next one is laid over."""
        return self if isinstance(self._origin_, bool) else self._origin_

    def __getitem__(self, name: str | tuple[str, ...], /) -> Any:
        return _get(self, self._fd_.index(name))

    def __setitem__(self, name: str | tuple[str, ...], obj: Any, /) -> None:
        i = self._fd_.index(name)
        _before_change(self)
        try:
            _assign(self, self._fd_._plan_(), i, obj)
        except EncodeError as error:
            if i:
                error.within(self._fd_._plan_().name(i))
            raise

    def __getattr__(self, name: str, /) -> Any:
        if name == "_fd_":
            raise AttributeError("a Value without a type: use Value(type)")
        try:
            return _get(self, self._fd_.index((name,)))
        except KeyError:
            raise AttributeError(f"no field {name!r}") from None

    def __setattr__(self, name: str, obj: Any, /) -> None:
        if hasattr(Value, name):
            raise AttributeError(f'{name} is a method of Value: the field is v["{name}"]')
        if (name,) not in self._fd_:
            raise AttributeError(f"no field {name!r}")
        self[(name,)] = obj

    def __delitem__(self, name: str | tuple[str, ...], /) -> None:
        raise TypeError("a field cannot be taken out of a Value")

    def __delattr__(self, name: str, /) -> None:
        raise AttributeError("a field cannot be taken out of a Value")

    def __iter__(self) -> Iterator[str]:
        return iter(_fields_of(self))

    def __contains__(self, name: object, /) -> bool:
        return name in self._fd_

    def __len__(self) -> int:
        return len(_fields_of(self))

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object, /) -> bool:
        if not isinstance(other, Value):
            return NotImplemented
        if self._fd_ != other._fd_:
            return False
        nodes = self._fd_._plan_().nodes
        types = self._fd_._plan_().types
        for slot, i in enumerate(nodes):
            mine = self._slots_[self._first_ + slot]
            theirs = other._slots_[other._first_ + slot]
            if mine is not theirs:
                type = types[i]
                mine = _zero(type) if mine is None else mine
                theirs = _zero(type) if theirs is None else theirs
                if not _same(mine, theirs):
                    return False
        return True

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return format_repr(self)

    def __str__(self) -> str:
        return format_tree(self)

    def __copy__(self) -> Value:
        return self.copy()

    def __deepcopy__(self, memo: object, /) -> Value:
        return self.copy()

    def __dir__(self) -> list[str]:
        return [*object.__dir__(self), *_fields_of(self)]

    def __reduce__(self) -> tuple[object, ...]:
        count = len(self._fd_._plan_().nodes)
        slots = self._slots_[self._first_ : self._first_ + count]
        return Value, (self._fd_,), (slots, list(_iterate(_bits(self))))

    def __setstate__(self, state: tuple[list[Any], list[int]], /) -> None:
        slots, bits = state
        if len(slots) != len(self._slots_):
            raise ValueError("the state is not of this type")
        types, nodes = self._fd_._plan_().types, self._fd_._plan_().nodes
        for slot, leaf in enumerate(slots):
            keep = leaf is None or isinstance(leaf, ElementColumns)
            self._slots_[slot] = leaf if keep else _coercion.leaf(types[nodes[slot]], leaf)
        _set_bits(self, _from_ints(bits) & self._fd_._plan_().mask)


# Value.__setattr__ sets fields: its own slots are set through these.
_set_fd, _set_slots, _set_first, _set_node, _set_root, _set_bits, _set_origin = (
    getattr(Value, slot).__set__
    for slot in ("_fd_", "_slots_", "_first_", "_node_", "_root_", "_bits_", "_origin_")
)


@final
class UnionValue:
    """The selected member of a union: its name and value. Frozen. A null union is None."""

    __slots__ = ("name", "value")

    name: str
    value: Any

    def __init__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise EncodeError(f"a member name is a str, not {name!r}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "value", value)

    def __setattr__(self, name: str, value: object, /) -> None:
        raise AttributeError("UnionValue is frozen")

    def __delattr__(self, name: str, /) -> None:
        raise AttributeError("UnionValue is frozen")

    def __eq__(self, other: object, /) -> bool:
        if not isinstance(other, UnionValue):
            return NotImplemented
        return self.name == other.name and _same(self.value, other.value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"UnionValue({self.name!r}, {self.value!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return UnionValue, (self.name, self.value)


@final
class AnyValue:
    """What an any holds: a type and a value of it (converted to the type, with EncodeError). Frozen. A null any is None."""

    __slots__ = ("type", "value")

    type: FieldDesc
    value: Any

    def __init__(self, type: FieldDesc | str | Mapping[str, Any], value: Any) -> None:
        fd = FieldDesc.of(type)
        object.__setattr__(self, "type", fd)
        object.__setattr__(self, "value", _coercion.leaf(fd, value))

    def __setattr__(self, name: str, value: object, /) -> None:
        raise AttributeError("AnyValue is frozen")

    def __delattr__(self, name: str, /) -> None:
        raise AttributeError("AnyValue is frozen")

    def __eq__(self, other: object, /) -> bool:
        if not isinstance(other, AnyValue):
            return NotImplemented
        return self.type == other.type and _same(self.value, other.value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"AnyValue({self.type.format('short')!r}, {self.value!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return AnyValue, (self.type, self.value)


for _class in (Value, UnionValue, AnyValue):
    _class.__module__ = "pvafast"

_coercion: Final = Coercion(FieldDesc, Value, UnionValue, AnyValue)


def _from_ints(bits: list[int]) -> int:
    """The int that has these bits."""
    return BitSet(bits)._bits_


def _made(fd: FieldDesc, slots: list[Any], bits: int, received: bool = False) -> Value:
    made = Value.__new__(Value)
    _set_fd(made, fd)
    _set_slots(made, slots)
    _set_first(made, 0)
    _set_node(made, 0)
    _set_root(made, None)
    _set_bits(made, bits)
    _set_origin(made, received)
    return made


def _before_change(v: Value) -> None:
    """Keep what was received, the leaves being shared: the next update is laid over that."""
    root = v._root_ or v
    if root._origin_ is True:
        _set_origin(root, _made(root._fd_, list(root._slots_), root._bits_))


def _view(v: Value, fd: FieldDesc, i: int) -> Value:
    made = Value.__new__(Value)
    _set_fd(made, fd)
    _set_slots(made, v._slots_)
    _set_first(made, v._first_ + v._fd_._plan_().first[i])
    _set_node(made, v._node_ + i)
    _set_root(made, v._root_ or v)
    _set_bits(made, 0)
    _set_origin(made, False)
    return made


def _fields_of(v: Value) -> tuple[str, ...]:
    """The names of the members; of a type that is not a structure there are none."""
    return v._fd_._names_ if v._fd_.code == STRUCTURE else ()


def _bits(v: Value) -> int:
    """The changed bits in the numbering of v."""
    root = v._root_
    if root is None:
        return v._bits_
    bits = root._bits_ >> v._node_ & v._fd_._plan_().mask
    # The bit of a structure around this one stands for the whole of it.
    above = root._bits_ & (1 << v._node_) - 1
    nexts = root._fd_._plan_().nexts
    while above:
        i = above.bit_length() - 1
        if nexts[i] > v._node_:
            return bits | 1
        above ^= 1 << i
    return bits


def _zero(type: FieldDesc) -> Any:
    """What a leaf reads as before it is set."""
    code = type.code
    if code in SCALARS:
        return "" if code == STRING else _NUMBERS[SCALARS[code][3]][0].unpack(bytes(SCALARS[code][4]))[0]
    if code in SCALAR_FORMS:
        element = code & ~ARRAY_BITS
        n = type.bound if code & ARRAY_BITS == FIXED else 0
        if element == STRING:
            return [""] * n
        if not n:
            return _EMPTY[element]
        made = np.zeros(n, type.dtype)
        made.flags.writeable = False
        return made
    if code == BOUNDED_STRING:
        return ""
    if code == STRUCTURE:
        return Value(type)
    return None if code in (UNION, ANY) else []


def _get(v: Value, i: int) -> Any:
    plan = v._fd_._plan_()
    type = plan.types[i]
    if type.code == STRUCTURE:
        return _view(v, type, i) if i else v
    leaf = v._slots_[v._first_ + plan.first[i]]
    return _zero(type) if leaf is None else leaf


def _assign(v: Value, plan: _Plan, i: int, obj: Any) -> None:
    """Set node i of v, and mark what was given."""
    type = plan.types[i]
    root = v._root_ or v
    if type.code != STRUCTURE:
        v._slots_[v._first_ + plan.first[i]] = _coercion.leaf(type, obj)
        _set_bits(root, root._bits_ | 1 << (v._node_ + i))
        return
    target = _view(v, type, i) if i else v
    if isinstance(obj, Value):
        if obj._fd_ != type:
            raise EncodeError(f"structure of another type found (id {obj._fd_.id!r}, {type.id!r} expected)")
        first, stop = plan.slots(i)
        source = obj._slots_[obj._first_ : obj._first_ + stop - first]
        v._slots_[v._first_ + first : v._first_ + stop] = source
        target.mark("")
        return
    if not isinstance(obj, Mapping):
        raise EncodeError(f"structure expected, {obj.__class__.__name__} found")
    for name in obj:
        if name not in type:
            raise EncodeError(f"no field {name!r}")
    for name, item in obj.items():
        target[name] = item


def _plain(leaf: Any) -> Any:
    if isinstance(leaf, Value):
        return leaf.to_dict() if leaf._fd_.code == STRUCTURE else leaf[""]
    if isinstance(leaf, list):
        return [_plain(item) for item in leaf]
    if isinstance(leaf, UnionValue):
        return UnionValue(leaf.name, _plain(leaf.value))
    if isinstance(leaf, AnyValue) and leaf.type.code not in SCALAR_FORMS:
        return _any(leaf.type, _plain(leaf.value))
    return leaf


def _copied(leaf: Any) -> Any:
    if isinstance(leaf, Value):
        return leaf.copy()
    if isinstance(leaf, list):
        return [_copied(item) for item in leaf]
    if isinstance(leaf, UnionValue):
        return UnionValue(leaf.name, _copied(leaf.value))
    if isinstance(leaf, AnyValue):
        return _any(leaf.type, _copied(leaf.value))
    if isinstance(leaf, ElementColumns) or (isinstance(leaf, np.ndarray) and leaf.flags.writeable):
        return leaf.copy()
    return leaf


def _same(a: Any, b: Any) -> bool:
    """Equality of leaves: of type, and of floats bit by bit."""
    if isinstance(a, float):
        return isinstance(b, float) and pack("<d", a) == pack("<d", b)
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


def _any(type: FieldDesc, value: Any) -> AnyValue:
    made = AnyValue.__new__(AnyValue)
    object.__setattr__(made, "type", type)
    object.__setattr__(made, "value", value)
    return made


def _union(name: str, value: Any) -> UnionValue:
    made = UnionValue.__new__(UnionValue)
    object.__setattr__(made, "name", name)
    object.__setattr__(made, "value", value)
    return made


# --- reading -------------------------------------------------------------------------------------------------------


def _charge(r: Reader, nodes: int, weight: int, pos: int) -> None:
    """Count what is about to be made against Limits.value_nodes and Limits.expansion."""
    r.nodes -= nodes
    if r.nodes < 0:
        raise LimitExceeded(f"more than {r.limits.value_nodes} nodes in a message", pos, limit="value_nodes")
    r.weight -= weight
    if r.weight < 0:
        raise _too_heavy(pos)


def _read_full(fd: FieldDesc, r: Reader, ids: _TypeIds, depth: int = 0) -> Any:
    """Read a full value of any type; `depth` is how deep it lies."""
    if fd.code != STRUCTURE:
        _charge(r, 1, _LEAF_WEIGHT, r.pos)
        return _read_leaf(fd, r, ids, depth)
    plan = fd._plan_()
    count = len(plan.nodes)
    _charge(r, count + 1, _VALUE_WEIGHT + _LEAF_WEIGHT * count, r.pos)
    slots: list[Any] = [None] * count
    _read_leaves(plan, 0, count, slots, r, ids, depth)
    return _made(fd, slots, 0)


def _read_update(fd: FieldDesc, r: Reader, ids: _TypeIds, base: Value | None) -> Value:
    """Read a BitSet and the data of the nodes in it; other fields are those of base."""
    plan = fd._plan_()
    try:
        bits = _read_bits(r) & plan.mask
    except DecodeError as error:
        error.within("changed")
        raise
    count = len(plan.nodes)
    if base is None:
        slots: list[Any] = [None] * count
    else:
        slots = base._slots_[base._first_ : base._first_ + count]
    todo = bits
    nexts, first = plan.nexts, plan.first
    while todo:
        i = (todo & -todo).bit_length() - 1
        stop = nexts[i]
        leaves = first[stop] - first[i]
        _charge(r, leaves, _LEAF_WEIGHT * leaves, r.pos)
        _read_leaves(plan, first[i], first[stop], slots, r, ids, 0)
        todo = todo >> stop << stop
    return _made(fd, slots, bits, received=True)


def _read_leaves(
    plan: _Plan, slot: int, stop: int, slots: list[Any], r: Reader, ids: _TypeIds, depth: int
) -> None:
    """Read the leaves slot to stop of a structure."""
    data, end, big = r.data, r.end, r.big
    kinds, packed, nodes = plan.kinds, plan.packed, plan.nodes
    pos = r.pos
    try:
        while slot < stop:
            kind = kinds[slot]
            if kind == _NUMBER:
                form = packed[slot][big]  # type: ignore[index]
                if form.size > end - pos:
                    r.pos = pos
                    raise r._short(SCALARS[plan.types[nodes[slot]].code][0], form.size)
                slots[slot] = form.unpack_from(data, pos)[0]
                pos += form.size
            else:
                r.pos = pos
                slots[slot] = _read_leaf(plan.types[nodes[slot]], r, ids, depth + plan.depths[slot])
                pos = r.pos
            slot += 1
    except DecodeError as error:
        if name := plan.name(nodes[slot]):
            error.within(name)
        raise
    r.pos = pos


def _read_leaf(fd: FieldDesc, r: Reader, ids: _TypeIds, depth: int) -> Any:
    """Read a leaf of any type, at this depth."""
    code = fd.code
    if code == STRING:
        return r.string()
    if code in SCALARS:
        return r._number(SCALARS[code][3], SCALARS[code][0])
    if code in SCALAR_FORMS:
        return _read_array(code, fd.bound, r)
    if code == UNION:
        return _read_union(fd, r, ids, depth)
    if code == ANY:
        return _read_any(r, ids, depth)
    if code == BOUNDED_STRING:
        pos = r.pos
        text = r.string()
        size = r.pos - pos - (5 if r.data[pos] == 0xFE else 1)
        if size > fd.bound:
            raise DecodeError(f"string of {size} bytes over its bound of {fd.bound}", pos)
        return text
    return _read_elements(fd, r, ids, depth)


def _read_array(code: int, bound: int, r: Reader) -> Any:
    element, form = code & ~ARRAY_BITS, code & ARRAY_BITS
    pos = r.pos
    if form == FIXED:
        n = bound
    else:
        n = r.size()
        if form == BOUNDED and n > bound:
            raise DecodeError(f"array of {n} {SCALARS[element][0]} over its bound of {bound}", pos)
    if element == STRING:
        made = _read_strings(r, n)
        _charge(r, 0, _ARRAY_WEIGHT + _LEAF_WEIGHT * n if n else 0, pos)
        return made
    _charge(r, 0, _ARRAY_WEIGHT if n else 0, pos)
    return _read_numbers(r, element, n)


def _read_union(fd: FieldDesc, r: Reader, ids: _TypeIds, depth: int) -> UnionValue | None:
    pos = r.pos
    selector = r.nullable_size()
    if selector is None:
        return None
    if selector >= len(fd._names_):
        raise DecodeError(f"union selector {selector} of {len(fd._names_)} members", pos)
    name = fd._names_[selector]
    _charge(r, 1, _BOX_WEIGHT, pos)
    try:
        return _union(name, _read_full(fd._types_[selector], r, ids, depth + 1))
    except DecodeError as error:
        error.within(name)
        raise


def _read_any(r: Reader, ids: _TypeIds, depth: int) -> AnyValue | None:
    """Read a type description and a full value of it."""
    pos = r.pos
    if depth >= r.limits.depth:
        raise _too_deep(pos, r.limits.depth)
    fd = _read_desc(r, ids, depth + 1)
    if fd is None:
        return None
    _charge(r, 1, _BOX_WEIGHT, pos)
    return _any(fd, _read_full(fd, r, ids, depth + 1))


def _count_elements(code: int, r: Reader) -> int:
    """How many elements of a structure, union or any array come."""
    pos = r.pos
    n = r.size()
    name = "structure" if code == STRUCTURE_ARRAY else "union" if code == UNION_ARRAY else "any"
    if n > r.end - r.pos:
        raise r._short(f"array of {n} {name}", n)
    if n > r.limits.elements:
        raise LimitExceeded(f"array of {n} {name}", pos, limit="elements")
    _charge(r, 0, _ARRAY_WEIGHT + _PLACE_WEIGHT * n if n else 0, pos)
    return n


def _read_elements(fd: FieldDesc, r: Reader, ids: _TypeIds, depth: int) -> list[Any]:
    """A structure, union or any array."""
    code, element = fd.code, fd.element
    n = _count_elements(code, r)
    assert element is not None
    data = r.data
    found: list[Any] = []
    for i in range(n):
        try:
            if r.pos >= r.end:
                raise r._short("presence byte", 1)
            present = data[r.pos]
            r.pos += 1
            if not present:
                found.append(None)
            elif code == STRUCTURE_ARRAY:
                found.append(_read_full(element, r, ids, depth + 1))
            elif code == UNION_ARRAY:
                found.append(_read_union(element, r, ids, depth + 1))
            else:
                found.append(_read_any(r, ids, depth))
        except DecodeError as error:
            error.within(f"[{i}]")
            raise
    return found


# --- writing -------------------------------------------------------------------------------------------------------


def _write_full(fd: FieldDesc, leaf: Any, w: Writer, ids: dict[FieldDesc, int] | None) -> None:
    """Write a full value of any type; `leaf` is what a Value holds for it."""
    if fd.code == STRUCTURE:
        if not isinstance(leaf, Value) or leaf._fd_ != fd:
            leaf = _coercion.structure(fd, leaf)
        plan = fd._plan_()
        _write_leaves(plan, 0, len(plan.nodes), leaf, w, ids)
    else:
        _write_leaf(fd, leaf, w, ids)


def _write_update(v: Value, w: Writer, ids: dict[FieldDesc, int] | None) -> None:
    """Write the changed bits of v, then the data that they stand for."""
    plan = v._fd_._plan_()
    bits = _bits(v)
    _write_bits(bits, w)
    while bits:
        i = (bits & -bits).bit_length() - 1
        stop = plan.nexts[i]
        _write_leaves(plan, plan.first[i], plan.first[stop], v, w, ids)
        bits = bits >> stop << stop


def _write_leaves(
    plan: _Plan, slot: int, stop: int, v: Value, w: Writer, ids: dict[FieldDesc, int] | None
) -> None:
    slots, offset = v._slots_, v._first_
    big = w.big
    while slot < stop:
        i = plan.nodes[slot]
        leaf = slots[offset + slot]
        try:
            if plan.kinds[slot] == _NUMBER:
                w._tail += plan.packed[slot][big].pack(0 if leaf is None else leaf)  # type: ignore[index]
            elif plan.kinds[slot] == _TEXT:
                w.string(leaf or "")
            else:
                _write_leaf(plan.types[i], _zero(plan.types[i]) if leaf is None else leaf, w, ids)
        except EncodeError as error:
            if name := plan.name(i):
                error.within(name)
            raise
        slot += 1


def _write_leaf(fd: FieldDesc, leaf: Any, w: Writer, ids: dict[FieldDesc, int] | None) -> None:
    code = fd.code
    if code == STRING or code == BOUNDED_STRING:
        w.string(leaf)
    elif code in SCALARS:
        w._number(SCALARS[code][3], SCALARS[code][0], leaf)
    elif code in SCALAR_FORMS:
        element = code & ~ARRAY_BITS
        form = code & ARRAY_BITS
        # Arrays and lists are kept as they were given: shape, dtype and length can have been set since.
        if form in (BOUNDED, FIXED) or (
            element != STRING and (leaf.ndim != 1 or leaf.dtype != DTYPES[element])
        ):
            leaf = _coercion.leaf(fd, leaf)
        if form != FIXED:
            _count(w, len(leaf))
        if element == STRING:
            _write_strings(w, leaf)
        else:
            _write_numbers(w, leaf)
    elif code == UNION:
        _write_union(fd, leaf, w, ids)
    elif code == ANY:
        _write_any(leaf, w, ids)
    else:
        _write_elements(fd, leaf, w, ids)


def _count(w: Writer, n: int) -> None:
    if n >= 0xFFFFFFFF:
        raise RangeError(f"array of {n} elements: the protocol counts to {0xFFFFFFFE}")
    w.size(n)


def _write_union(fd: FieldDesc, leaf: Any, w: Writer, ids: dict[FieldDesc, int] | None) -> None:
    if leaf is None:
        w.size(None)
        return
    leaf = _coercion.union(fd, leaf) if not isinstance(leaf, UnionValue) else leaf
    if leaf.name not in fd._names_:
        raise EncodeError(f"union has no member {leaf.name!r}")
    selector = fd._names_.index(leaf.name)
    w.size(selector)
    type = fd._types_[selector]
    try:
        _write_full(type, _coercion.leaf(type, leaf.value), w, ids)
    except EncodeError as error:
        error.within(leaf.name)
        raise


def _write_any(leaf: AnyValue | None, w: Writer, ids: dict[FieldDesc, int] | None) -> None:
    """Write a type description and a full value of it."""
    if leaf is None:
        w.u8(0xFF)
        return
    if not isinstance(leaf, AnyValue):
        raise EncodeError(f"AnyValue or None expected, {leaf.__class__.__name__} found")
    _write_desc(leaf.type, w, ids)
    _write_full(leaf.type, leaf.value, w, ids)


def _write_elements(fd: FieldDesc, leaf: Any, w: Writer, ids: dict[FieldDesc, int] | None) -> None:
    code, element = fd.code, fd.element
    assert element is not None
    if not isinstance(leaf, list):
        leaf = _coercion.leaf(fd, leaf)
    w.size(len(leaf))
    for i, item in enumerate(leaf):
        if item is None:
            w.u8(0)
            continue
        w.u8(1)
        try:
            if code == STRUCTURE_ARRAY:
                _write_full(element, item, w, ids)
            elif code == UNION_ARRAY:
                _write_union(element, item, w, ids)
            else:
                _write_any(item, w, ids)
        except EncodeError as error:
            error.within(f"[{i}]")
            raise

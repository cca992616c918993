"""FieldDesc: a pvData type, its nodes numbered depth first; its wire form with ids; the introspection cache (WIRE 6.1, 6.2)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from struct import Struct
from types import MappingProxyType
from typing import Any, Final, final

import numpy as np

from .._types import (
    ANY,
    ANY_ARRAY,
    ARRAY_BITS,
    BOUNDED,
    BOUNDED_STRING,
    DTYPES,
    FIXED,
    ID_DEFINITION,
    ID_REFERENCE,
    NULL,
    SCALAR_FORMS,
    SCALARS,
    STRING,
    STRUCTURE,
    STRUCTURE_ARRAY,
    TAGGED_ID,
    UNION,
    UNION_ARRAY,
    VARIABLE,
    parse_short,
    short_name,
)
from .._typetext import format_pvinfo, format_pvxs, format_short, parse
from ..errors import DecodeError, EncodeError, LimitExceeded
from ..limits import Limits
from .bitset import _iterate
from .buffer import _NUMBERS, _U16, Reader, Writer

# A type built by the program may be deeper than Limits.depth, but recursion over it must not reach the stack's end.
_MAX_HEIGHT: Final = 100
# FieldDesc.array() and shared members let a small program describe an endless type.
_MAX_COUNT: Final = 1 << 20
# Memory that types take, charged against Limits.expansion: a node that is described, with its name; a type id;
# and the plan of a structure, by which its values are read, with each node of it (those that FE stands for, too).
_NODE_WEIGHT: Final = 240
_ID_WEIGHT: Final = 128
_PLAN_WEIGHT: Final = 640
_PLANNED_WEIGHT: Final = 36

# What a leaf is: how its bytes are read and written.
_NUMBER: Final = 0
_TEXT: Final = 1
_NUMBERS_ARRAY: Final = 2
_TEXT_ARRAY: Final = 3
_OTHER: Final = 4


@final
class _Plan:
    """A structure laid out flat, depth first: what an update is decoded by.

    Of node i: `types[i]`, `nexts[i]` the number after its subtree, `first[i]` its first leaf slot.
    Of leaf slot s: `nodes[s]` its node, `kinds[s]`, `packed[s]` (little, big) for numbers, `depths[s]` its depth below the root.
    `names[i]` and what finds nodes by name are made when first asked for: names within names can be many times as long
    as the description.
    """

    __slots__ = (
        "_children",
        "_index",
        "_names",
        "depths",
        "first",
        "kinds",
        "mask",
        "nexts",
        "nodes",
        "packed",
        "types",
    )

    def __init__(self, root: FieldDesc) -> None:
        self.types: list[FieldDesc] = []
        self.nexts = array("I")
        self.first = array("I")
        self.nodes = array("I")
        self.kinds = bytearray()
        self.depths = bytearray()
        self.packed: list[tuple[Struct, Struct] | None] = []
        self._names: list[str] | None = None
        self._index: dict[str, int] | None = None
        self._children: dict[str, int] | None = None
        self._add(root, 0)
        self.first.append(len(self.nodes))
        self.mask = (1 << len(self.types)) - 1

    def _add(self, type: FieldDesc, depth: int) -> None:
        i = len(self.types)
        self.types.append(type)
        self.nexts.append(0)
        self.first.append(len(self.nodes))
        if type.code == STRUCTURE:
            for member in type._types_:
                self._add(member, depth + 1)
        else:
            self.nodes.append(i)
            self.depths.append(depth)
            kind = _kind_of(type.code)
            self.kinds.append(kind)
            self.packed.append(_NUMBERS[SCALARS[type.code][3]] if kind == _NUMBER else None)
        self.nexts[i] = len(self.types)

    @property
    def names(self) -> list[str]:
        """The dotted names of all nodes."""
        found = self._names
        if found is None:
            found = [""] * len(self.types)
            for i, type in enumerate(self.types):
                child = i + 1
                for name in type._names_ if type.code == STRUCTURE else ():
                    found[child] = f"{found[i]}.{name}" if i else name
                    child = self.nexts[child]
            self._names = found
        return found

    def name(self, i: int) -> str:
        """The dotted name of one node."""
        parts = []
        at = 0
        while at != i:
            child = at + 1
            for name in self.types[at]._names_:
                if i < self.nexts[child]:
                    parts.append(name)
                    break
                child = self.nexts[child]
            at = child
        return ".".join(parts)

    @property
    def index(self) -> dict[str, int]:
        """Dotted name to number. A name with a dot in it is found so only where no path means the same."""
        found = self._index
        if found is None:
            names = self.names
            found = {"": 0}
            odd = bytearray(len(names))
            for i, type in enumerate(self.types):
                child = i + 1
                for name in type._names_ if type.code == STRUCTURE else ():
                    odd[child] = odd[i] or not name or "." in name
                    if not odd[child]:
                        found[names[child]] = child
                    child = self.nexts[child]
            for i, is_odd in enumerate(odd):
                if is_odd:
                    found.setdefault(names[i], i)
            self._index = found
        return found

    @property
    def children(self) -> dict[str, int]:
        """Exact name to number, of the members of the root."""
        found = self._children
        if found is None:
            found = {}
            child = 1
            for name in self.types[0]._names_ if self.types[0].code == STRUCTURE else ():
                found[name] = child
                child = self.nexts[child]
            self._children = found
        return found

    def slots(self, i: int) -> tuple[int, int]:
        """The leaf slots of the subtree of node i: first, and one after the last."""
        return self.first[i], self.first[self.nexts[i]]

    def expand(self, bits: int) -> list[int]:
        """The leaves that an update with these bits carries."""
        found: list[int] = []
        stop = 0
        for i in _iterate(bits & self.mask):
            if i >= stop:
                stop = self.nexts[i]
                found += self.nodes[self.first[i] : self.first[stop]]
        return found


def _kind_of(code: int) -> int:
    """NUMBER, _TEXT, ... for the code of a leaf."""
    if code in (STRING, BOUNDED_STRING):
        return _TEXT
    if code in SCALARS:
        return _NUMBER
    if code not in SCALAR_FORMS:
        return _OTHER
    return _TEXT_ARRAY if code & ~ARRAY_BITS == STRING else _NUMBERS_ARRAY


@final
class FieldDesc:
    """A pvData type. Frozen, hashable, compared by structure; made by `of`, `structure`, `union`, `array` and `parse`.

    The nodes of a structure are numbered depth first, 0 being the root: these are the bits of an update's BitSet.
    Anything but a structure is one node.
    """

    __slots__ = (
        "_hash_",
        "_made_",
        "_names_",
        "_types_",
        "bits",
        "bound",
        "code",
        "count",
        "element",
        "height",
        "id",
        "text",
    )

    code: int
    id: str
    bound: int
    element: FieldDesc | None
    count: int
    height: int
    bits: int
    text: int
    _names_: tuple[str, ...]
    _types_: tuple[FieldDesc, ...]
    _made_: _Plan | None
    _hash_: int

    def __init__(self) -> None:
        raise TypeError("use FieldDesc.of, .structure, .union or .parse")

    @classmethod
    def of(cls, spec: str | FieldDesc | Mapping[str, Any]) -> FieldDesc:
        """The type that a text ("double", "int32[]", "int8<16>", "string(8)", "any", ...) or a mapping of members means.

        Raises EncodeError (a ValueError) for a text that is no type.
        """
        if isinstance(spec, FieldDesc):
            return spec
        if isinstance(spec, str):
            short = parse_short(spec)
            return _simple(*short) if short is not None else cls.parse(spec)
        if isinstance(spec, Mapping):
            return cls.structure("", spec)
        raise EncodeError(f"a type is a text, a FieldDesc or a mapping, not {spec!r}")

    @classmethod
    def structure(
        cls, id: str = "", members: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **fields: Any
    ) -> FieldDesc:
        """A structure; members from a mapping or pairs of name and type (as `of` takes them), then keywords."""
        return _built(STRUCTURE, id, members, fields)

    @classmethod
    def union(
        cls, id: str = "", members: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **fields: Any
    ) -> FieldDesc:
        """A union; members as for `structure`."""
        return _built(UNION, id, members, fields)

    @classmethod
    def parse(cls, text: str) -> FieldDesc:
        """Read a type printed by pvxs, by pvinfo or by `format("short")`. Raises EncodeError with line and column."""
        return _from_tree(parse(text))

    @classmethod
    def from_bytes(cls, data: Any, byteorder: str = "little") -> FieldDesc:
        """Decode one type description without ids that fills `data`; it may be as large as the program can make one."""
        r = Reader(data, 0, None, byteorder, limits=_ANY_SIZE)
        made = _read_desc(r, _TypeIds(), 0)
        if made is None:
            raise DecodeError("null type where a type is needed", 0)
        if r.left:
            raise DecodeError(f"{r.left} bytes after the type", r.pos)
        return made

    def to_bytes(self, byteorder: str = "little") -> bytes:
        """The wire form, without ids."""
        w = Writer(byteorder)
        _write_desc(self, w)
        return w.take()

    def array(self) -> FieldDesc:
        """The variable-size array of this type. Raises EncodeError for an array or a bounded string."""
        if self.code == STRUCTURE or self.code == UNION:
            return _array_of(self)
        if self.code == ANY:
            return _simple(ANY_ARRAY, 0)
        if self.code in SCALARS:
            return _simple(self.code | VARIABLE, 0)
        raise EncodeError(f"there are no arrays of {self.format('short')}")

    def format(self, style: str = "pvxs") -> str:
        """The type as text: "pvxs" (as pvxs prints it), "pvinfo" (as pvinfo does) or "short" (one line)."""
        if style == "pvxs":
            return format_pvxs(self)
        if style == "pvinfo":
            return format_pvinfo(self)
        if style == "short":
            return format_short(self)
        raise ValueError(f"style must be 'pvxs', 'pvinfo' or 'short', not {style!r}")

    def _plan_(self) -> _Plan:
        plan = self._made_
        if plan is None:
            plan = _Plan(self)
            object.__setattr__(self, "_made_", plan)
        return plan

    @property
    def is_structure(self) -> bool:
        """True for a structure (not for a structure array)."""
        return self.code == STRUCTURE

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """The numpy dtype of a numeric scalar or of the elements of a numeric array, otherwise None."""
        return DTYPES.get(self.code & ~ARRAY_BITS) if self.code in SCALAR_FORMS else None

    @property
    def members(self) -> Mapping[str, FieldDesc]:
        """Name to type: of a structure or union, or of the elements of their arrays; empty for others."""
        source = self if self.element is None else self.element
        return MappingProxyType(dict(zip(source._names_, source._types_, strict=True)))

    @property
    def names(self) -> tuple[str, ...]:
        """The dotted names of all nodes, depth first; names[0] is "", the root."""
        return tuple(self._plan_().names)

    def index(self, name: str | tuple[str, ...], /) -> int:
        """The number of the node with a dotted name, or with a path of exact names. Raises KeyError."""
        if isinstance(name, str):
            return self._plan_().index[name]
        type, i = self, 0
        for part in name:
            step = type._plan_().children.get(part)
            if step is None:
                raise KeyError(name)
            i += step
            type = type._plan_().types[step]
        return i

    def node(self, i: int, /) -> FieldDesc:
        """The type of node i."""
        return self._plan_().types[self._number(i)]

    def end(self, i: int, /) -> int:
        """The number after the subtree of node i."""
        return self._plan_().nexts[self._number(i)]

    def is_leaf(self, i: int, /) -> bool:
        """True if node i is not a structure."""
        return self._plan_().types[self._number(i)].code != STRUCTURE

    def _number(self, i: int) -> int:
        if not 0 <= i < self.bits:
            raise IndexError(f"no node {i}: there are {self.bits}")
        return i

    def __getitem__(self, name: str | tuple[str, ...], /) -> FieldDesc:
        return self._plan_().types[self.index(name)]

    def __contains__(self, name: object, /) -> bool:
        try:
            self.index(name)  # type: ignore[arg-type]
        except (KeyError, TypeError):
            return False
        return True

    def __len__(self) -> int:
        return self.bits

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Any:
        return iter(self.names)

    def __eq__(self, other: object, /) -> bool:
        if self is other:
            return True
        if not isinstance(other, FieldDesc):
            return NotImplemented
        return (
            self.code == other.code
            and self.bound == other.bound
            and self.count == other.count
            and hash(self) == hash(other)
            and self.id == other.id
            and self._names_ == other._names_
            and self._types_ == other._types_
            and self.element == other.element
        )

    def __hash__(self) -> int:
        found = self._hash_
        if found == -1:
            found = hash((self.code, self.bound, self.id, self._names_, self._types_, self.element))
            object.__setattr__(self, "_hash_", found)
        return found

    def __setattr__(self, name: str, value: object, /) -> None:
        raise AttributeError(f"FieldDesc is frozen: {name}")

    def __delattr__(self, name: str, /) -> None:
        raise AttributeError(f"FieldDesc is frozen: {name}")

    def __str__(self) -> str:
        return format_pvxs(self)

    def __repr__(self) -> str:
        return f"FieldDesc.parse({format_short(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return FieldDesc.from_bytes, (self.to_bytes(),)

    def __copy__(self) -> FieldDesc:
        return self

    def __deepcopy__(self, memo: object, /) -> FieldDesc:
        return self


FieldDesc.__module__ = "pvafast"

# A frozen class is filled through its slots.
(
    _set_code,
    _set_bound,
    _set_id,
    _set_names,
    _set_types,
    _set_element,
    _set_count,
    _set_height,
    _set_bits,
    _set_text,
    _set_hash,
    _set_made,
) = (
    getattr(FieldDesc, slot).__set__
    for slot in (
        "code",
        "bound",
        "id",
        "_names_",
        "_types_",
        "element",
        "count",
        "height",
        "bits",
        "text",
        "_hash_",
        "_made_",
    )
)


def _make(
    code: int,
    bound: int = 0,
    id: str = "",
    names: tuple[str, ...] = (),
    types: tuple[FieldDesc, ...] = (),
    element: FieldDesc | None = None,
) -> FieldDesc:
    """A FieldDesc of parts that have been checked.

    count: its nodes, with those of unions and of structure and union arrays (the elements of scalar arrays are none).
    bits: the nodes that an update numbers. text: how many characters their dotted names take. height: its nesting.
    """
    made = FieldDesc.__new__(FieldDesc)
    count = bits = 1
    height = text = 0
    if names:
        count += sum([type.count for type in types])
        height = 1 + max([type.height for type in types])
        if code == STRUCTURE:
            bits += sum([type.bits for type in types])
            for name, type in zip(names, types, strict=True):
                text += type.text + type.bits * (len(name) + 1)
    elif element is not None and code in (STRUCTURE_ARRAY, UNION_ARRAY):
        count += element.count
        height = 1 + element.height
    _set_code(made, code)
    _set_bound(made, bound)
    _set_id(made, id)
    _set_names(made, names)
    _set_types(made, types)
    _set_element(made, element)
    _set_count(made, count)
    _set_height(made, height)
    _set_bits(made, bits)
    _set_text(made, text)
    _set_hash(made, -1)
    _set_made(made, None)
    return made


# One FieldDesc for each scalar, scalar array and any type; the elements of scalar arrays are these, too.
_SIMPLE: Final[dict[int, FieldDesc]] = {}
for _code in sorted(SCALARS) + [ANY]:
    _SIMPLE[_code] = _make(_code)
for _code in sorted(SCALARS):
    _SIMPLE[_code | VARIABLE] = _make(_code | VARIABLE, element=_SIMPLE[_code])
_SIMPLE[ANY_ARRAY] = _make(ANY_ARRAY, element=_SIMPLE[ANY])

# What a type made by the program may be; its description is still held to the memory that its bytes allow.
_ANY_SIZE: Final = Limits(depth=_MAX_HEIGHT, type_nodes=_MAX_COUNT)


def _simple(code: int, bound: int) -> FieldDesc:
    """The type of a scalar, scalar array, bounded string or any code."""
    if not bound and code in _SIMPLE:
        return _SIMPLE[code]
    if not 0 <= bound < 1 << 32:
        raise EncodeError(f"a bound lies in 0 to {(1 << 32) - 1}, not {bound}")
    element = None if code == BOUNDED_STRING else _SIMPLE[code & ~ARRAY_BITS]
    return _make(code, bound, element=element)


def _array_of(element: FieldDesc) -> FieldDesc:
    """The structure or union array with these elements."""
    _checked(element.count + 1, element.height + 1)
    return _make(
        STRUCTURE_ARRAY if element.code == STRUCTURE else UNION_ARRAY, id=element.id, element=element
    )


def _checked(count: int, height: int) -> None:
    """Refuse types whose layout would not end."""
    if count > _MAX_COUNT:
        raise EncodeError(f"a type of {count} nodes; the most is {_MAX_COUNT}")
    if height > _MAX_HEIGHT:
        raise EncodeError(f"a type nested {height} deep; the most is {_MAX_HEIGHT}")


def _composite(code: int, id: str, names: tuple[str, ...], types: tuple[FieldDesc, ...]) -> FieldDesc:
    """A structure or union of checked parts."""
    if not isinstance(id, str):
        raise EncodeError(f"a type id is a str, not {id!r}")
    seen = set()
    for name in names:
        if not isinstance(name, str):
            raise EncodeError(f"a member name is a str, not {name!r}")
        if name in seen:
            raise EncodeError(f"duplicate member name {name!r}")
        seen.add(name)
    _checked(1 + sum(type.count for type in types), 1 + max((type.height for type in types), default=0))
    return _make(code, 0, id, names, types)


def _built(code: int, id: str, members: Any, fields: Mapping[str, Any]) -> FieldDesc:
    """A structure or union from what `FieldDesc.structure` takes."""
    pairs = list(members.items() if isinstance(members, Mapping) else members) + list(fields.items())
    return _composite(
        code, id, tuple(name for name, _ in pairs), tuple(FieldDesc.of(spec) for _, spec in pairs)
    )


def _from_tree(tree: Any) -> FieldDesc:
    """The type that the tree of a parsed text describes: (code, bound, id, ((name, tree), ...))."""
    code, bound, id, members = tree
    if code not in (STRUCTURE, UNION, STRUCTURE_ARRAY, UNION_ARRAY):
        return _simple(code, bound)
    one = UNION if code in (UNION, UNION_ARRAY) else STRUCTURE
    made = _composite(
        one, id, tuple(name for name, _ in members), tuple(_from_tree(sub) for _, sub in members)
    )
    return made if code == one else _array_of(made)


# --- the wire form -------------------------------------------------------------------------------------------------


class _Cache:
    """Descriptors free of ids that came before, by their bytes: the same bytes give the identical FieldDesc.

    A description ends where its own bytes say, so one that starts with all the bytes of a known one is that one.
    Known ones are found by their first bytes. Entries are replaced, never changed: safe without the GIL.
    Whether a description is known never shows but in speed: what any limit could refuse is parsed (again).
    """

    __slots__ = ("known", "size")

    # Descriptors shorter than this are parsed: that takes no longer.
    PREFIX: Final = 48
    # Types that begin alike (NTScalar of each type, with and without display...) share a place.
    PLACES: Final = 16
    # Descriptors from this size on are parsed: a peer that sends ever new ones must not fill the memory.
    LONG: Final = 65_536
    # A node and 16 bytes of a description count one each.
    MAX_SIZE: Final = 262_144

    def __init__(self) -> None:
        self.known: dict[bytes, tuple[tuple[bytes, FieldDesc, int, int], ...]] = {}
        self.size = 0

    def find(self, r: Reader, depth: int) -> FieldDesc | None:
        """The known type whose description comes next, which is then read."""
        pos = r.pos
        limits = r.limits
        if r.end - pos < self.PREFIX or limits.string < 0xFE:
            return None
        data = r.data
        for raw, type, weight, longest in self.known.get(bytes(data[pos : pos + self.PREFIX]), ()):
            stop = pos + len(raw)
            if stop <= r.end and data[pos:stop] == raw:
                if (
                    type.height + depth > limits.depth
                    or type.count > limits.type_nodes
                    or longest > limits.string
                    or weight > r.weight
                ):
                    return None
                r.weight -= weight
                r.pos = stop
                return type
        return None

    def keep(self, raw: bytes, type: FieldDesc, weight: int, longest: int) -> None:
        """Remember a type by its description, what it was charged, and the most characters of dotted names in it."""
        if not self.PREFIX <= len(raw) < self.LONG:
            return
        size = type.count + (len(raw) >> 4)
        self.size += size
        if self.size > self.MAX_SIZE:
            self.known = {}
            self.size = size
        prefix = raw[: self.PREFIX]
        self.known[prefix] = ((raw, type, weight, longest), *self.known.get(prefix, ())[: self.PLACES - 1])


_CACHES: Final = (_Cache(), _Cache())  # little-endian, big-endian


@final
class _TypeIds:
    """The types that one direction of a connection has numbered; the last definition of an id wins.

    broken: an error inside a type description may have hidden definitions.
    """

    __slots__ = ("broken", "known", "nodes")

    def __init__(self) -> None:
        self.broken = False
        self.known: dict[int, FieldDesc] = {}
        self.nodes = 0

    def define(self, number: int, type: FieldDesc, r: Reader, pos: int) -> None:
        """Keep a type under its id."""
        old = self.known.get(number)
        nodes = self.nodes + type.count - (old.count if old is not None else 0)
        if nodes > r.limits.registry_nodes:
            raise LimitExceeded(f"type ids that hold {nodes} nodes", pos, limit="registry_nodes")
        self.known[number] = type
        self.nodes = nodes


def _too_deep(pos: int, depth: int) -> LimitExceeded:
    """The error for a type or value nested deeper than Limits.depth."""
    return LimitExceeded(f"nesting deeper than {depth}", pos, limit="depth")


def _too_many(pos: int, nodes: int) -> LimitExceeded:
    """The error for a type of more nodes than Limits.type_nodes."""
    return LimitExceeded(f"type of more than {nodes} nodes", pos, limit="type_nodes")


def _too_heavy(pos: int) -> LimitExceeded:
    """The error for bytes that make more objects than Limits.expansion allows."""
    return LimitExceeded("objects that weigh too much for the bytes of the message", pos, limit="expansion")


def _read_desc(r: Reader, ids: _TypeIds, depth: int) -> FieldDesc | None:
    """Read a type description; definitions in it are added to `ids`. None for the null type."""
    try:
        return _DescParser(r, ids).whole(depth, True)
    except DecodeError:
        ids.broken = True
        raise


@final
class _DescParser:
    """Reads one type description, counting its nodes expanded.

    longest: the most characters of dotted names of a structure in it, be it inside of a union or an array.
    plain: neither ids nor anything that limits other than those of depth, nodes, names and weight could refuse.
    """

    __slots__ = ("count", "ids", "limits", "longest", "plain", "r")

    def __init__(self, r: Reader, ids: _TypeIds) -> None:
        self.r = r
        self.ids = ids
        self.limits = r.limits
        self.count = 0
        self.longest = 0
        self.plain = True

    def whole(self, depth: int, null_allowed: bool = False) -> FieldDesc | None:
        """All of a description, or all but the ids that it begins with: a look-up where that is known."""
        r = self.r
        cache = _CACHES[r.big]
        start, weight = r.pos, r.weight
        if start < r.end and r.data[start] == STRUCTURE:
            known = cache.find(r, depth)
            if known is not None:
                return known
        self.plain = True
        made = self.node(depth, True, null_allowed)
        if made is not None and made.code == STRUCTURE and self.plain:
            cache.keep(bytes(r.data[start : r.pos]), made, weight - r.weight, self.longest)
        return made

    def charge(self, nodes: int, weight: int, pos: int) -> None:
        """Count nodes against Limits.type_nodes, and weight against Limits.expansion."""
        self.count += nodes
        if self.count > self.limits.type_nodes:
            raise _too_many(pos, self.limits.type_nodes)
        self.r.weight -= weight
        if self.r.weight < 0:
            raise _too_heavy(pos)

    def string(self) -> str:
        """An id or a name."""
        if self.r.pos < self.r.end and self.r.data[self.r.pos] >= 0xFE:
            self.plain = False
        return self.r.string()

    def node(self, depth: int, planned: bool, null_allowed: bool = False) -> FieldDesc | None:
        """One type; None for the null type, where it is allowed. planned: a structure here has a plan of its own."""
        r = self.r
        pos = r.pos
        if depth > self.limits.depth:
            raise _too_deep(pos, self.limits.depth)
        if pos >= r.end:
            raise r._short("type code", 1)
        code: int = r.data[pos]
        r.pos = pos + 1
        if code == STRUCTURE or code == UNION:
            self.charge(1, _NODE_WEIGHT, pos)
            made = self.members(code, depth)
            if planned and code == STRUCTURE:
                self.charge(0, _PLAN_WEIGHT + _PLANNED_WEIGHT * made.bits, pos)
            return made
        if code in _SIMPLE:
            self.charge(1, 0 if null_allowed else _NODE_WEIGHT, pos)  # as a member it has a name
            return _SIMPLE[code]
        if code in SCALAR_FORMS or code == BOUNDED_STRING:
            self.charge(1, _NODE_WEIGHT, pos)
            return self.bounded(code, pos)
        if code == STRUCTURE_ARRAY or code == UNION_ARRAY:
            self.charge(1, _NODE_WEIGHT, pos)
            at = r.pos
            element = self.node(depth + 1, True)
            assert element is not None
            wanted = STRUCTURE if code == STRUCTURE_ARRAY else UNION
            if element.code != wanted:
                name = "structure" if wanted == STRUCTURE else "union"
                raise DecodeError(f"{name} array of something else (code 0x{element.code:02x})", at)
            return _make(code, id=element.id, element=element)
        if code == ID_REFERENCE:
            self.plain = False
            number = self.number()
            known = self.ids.known.get(number)
            if known is None:
                raise DecodeError(f"unknown type id {number}", pos)
            self.charge(known.count, 0, pos)
            if known.height + depth > self.limits.depth:
                raise _too_deep(pos, self.limits.depth)
            return known
        if code == ID_DEFINITION:
            self.charge(0, _ID_WEIGHT, pos)
            numbers = [self.number()]
            while r.pos < r.end and r.data[r.pos] == ID_DEFINITION:
                self.charge(0, _ID_WEIGHT, r.pos)
                r.pos += 1
                numbers.append(self.number())
            defined = self.node(depth, True) if self.count else self.whole(depth)
            assert defined is not None
            self.plain = False
            for number in reversed(numbers):
                self.ids.define(number, defined, r, pos)
            return defined
        r.pos = pos
        if code == NULL:
            if null_allowed:
                r.pos = pos + 1
                return None
            raise DecodeError("null type where a type is needed", pos)
        if code == TAGGED_ID:
            raise DecodeError("tagged type id (code 0xfc)", pos)
        raise DecodeError(f"unknown type code 0x{code:02x}", pos)

    def number(self) -> int:
        """The id of a definition or reference."""
        r = self.r
        if r.end - r.pos < 2:
            raise r._short("type id", 2)
        number: int = _U16[r.big].unpack_from(r.data, r.pos)[0]
        r.pos += 2
        return number

    def bounded(self, code: int, pos: int) -> FieldDesc:
        """A bounded or fixed array, or a bounded string: its Size follows."""
        r = self.r
        self.plain = False
        bound = r.size()
        item = 1 if code == BOUNDED_STRING else SCALARS[code & ~ARRAY_BITS][4] or 1
        limit, limit_name = self.limits.message, "message"
        if code & ~ARRAY_BITS == STRING and code != BOUNDED_STRING:
            limit, limit_name = self.limits.elements, "elements"
        if bound * item > limit:
            raise LimitExceeded(f"{short_name(code, bound)} in a type", pos, limit=limit_name)
        return _simple(code, bound)

    def members(self, code: int, depth: int) -> FieldDesc:
        """The rest of a structure or union: its id and its members."""
        r = self.r
        start = r.pos - 1
        id = self.string()
        pos = r.pos
        n = r.size()
        # A member takes at least two bytes: an empty name and a code.
        if n * 2 > r.end - r.pos:
            raise DecodeError(f"{n} members need {2 * n} bytes, {r.end - r.pos} left", pos)
        if self.count + n > self.limits.type_nodes:
            raise _too_many(pos, self.limits.type_nodes)
        names: dict[str, None] = {}
        types: list[FieldDesc] = []
        for _ in range(n):
            pos = r.pos
            name = self.string()
            if name in names:
                raise DecodeError(f"duplicate member name {name!r}", pos)
            names[name] = None
            try:
                member = self.node(depth + 1, code == UNION)
            except DecodeError as error:
                error.within(name)
                raise
            assert member is not None
            types.append(member)
        made = _make(code, 0, id, tuple(names), tuple(types))
        # A long name costs its bytes once on the wire, and here once in the dotted name of each node below it.
        if made.text > self.limits.string:
            raise LimitExceeded(f"dotted names of {made.text} characters", start, limit="string")
        self.longest = max(self.longest, made.text)
        return made


def _write_desc(type: FieldDesc, w: Writer, ids: dict[FieldDesc, int] | None = None) -> None:
    """Write a type description; with `ids`, number the types as pvAccessCPP does."""
    code = type.code
    if ids is not None and code not in SCALAR_FORMS and code != BOUNDED_STRING:
        number = ids.get(type)
        if number is not None:
            w.u8(ID_REFERENCE)
            w.u16(number)
            return
        if len(ids) < 0xFFFF:
            number = len(ids) + 1
            ids[type] = number
            w.u8(ID_DEFINITION)
            w.u16(number)
    w.u8(code)
    if code == STRUCTURE or code == UNION:
        w.string(type.id)
        w.size(len(type._names_))
        for name, member in zip(type._names_, type._types_, strict=True):
            w.string(name)
            _write_desc(member, w, ids)
    elif code == STRUCTURE_ARRAY or code == UNION_ARRAY:
        assert type.element is not None
        _write_desc(type.element, w, ids)
    elif code == BOUNDED_STRING or (code in SCALAR_FORMS and code & ARRAY_BITS in (BOUNDED, FIXED)):
        w.size(type.bound)


alarm_t: Final = FieldDesc.structure("alarm_t", severity="int32", status="int32", message="string")
time_t: Final = FieldDesc.structure("time_t", secondsPastEpoch="int64", nanoseconds="int32", userTag="int32")
enum_t: Final = FieldDesc.structure("enum_t", index="int32", choices="string[]")

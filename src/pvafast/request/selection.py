"""Selection: which fields of a type a request selects, and values moved between the whole and the part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, final

from .. import _backend
from .._types import STRUCTURE
from .._typetext import shown
from ..errors import EncodeError
from .request import Request
from .structure import FieldDesc, Value
from .text import Node, Path, Which, dotted

BitSet = _backend.bitset.BitSet


class _Chosen(NamedTuple):
    """A node of the full type that belongs to the selection."""

    path: Path
    full: int  # its bit in the full type
    type: FieldDesc
    members: tuple[_Chosen, ...] | None  # None: the whole of it


def _choose(
    type: FieldDesc, start: int, end: Callable[[int], int], node: Node, path: Path, missing: list[Path]
) -> tuple[_Chosen, ...]:
    """The members of `type`, a structure whose bit is `start`, that `node` asks for, in the order of the request."""
    bits: dict[str, int] = {}
    bit = start + 1
    members = type.members
    for name in members:
        bits[name] = bit
        bit = end(bit)
    chosen: list[_Chosen] = []
    for name, inner in node.members:
        here = (*path, name)
        member = members.get(name)
        if member is None:
            missing.append(here)
        elif not inner.members:
            chosen.append(_Chosen(here, bits[name], member, None))
        elif member.code != STRUCTURE:
            # Members of what has none: both models select the field itself.
            missing.extend(inner.leaves(here))
            chosen.append(_Chosen(here, bits[name], member, None))
        else:
            below = _choose(member, bits[name], end, inner, here, missing)
            if below:
                chosen.append(_Chosen(here, bits[name], member, below))
    return tuple(chosen)


@final
class Selection:
    """The fields of a type that a pvRequest selects, in both ways of the protocol.

    pvxs keeps the full type and sends the bits in `mask` only: `masked`, `mask`. pvAccessCPP makes a type of the
    selected fields, in the order of the request, and numbers that: `type`, `to_sub`, `from_sub`. Made by `select`.
    """

    __slots__ = (
        "_bits_",
        "_full_paths_",
        "_paths_",
        "_sub_paths_",
        "_subs_",
        "full",
        "mask",
        "missing",
        "type",
    )

    #: The type that was selected from.
    full: FieldDesc
    #: The type of the selected fields; `full` itself if everything is selected. Incomplete structures have id "".
    type: FieldDesc
    #: Bits of `full`: the selected fields with all below them, the structures above them, the root.
    mask: BitSet
    #: Dotted names that were asked for and do not exist.
    missing: tuple[str, ...]
    _paths_: tuple[Path, ...]
    _subs_: Mapping[int, int]
    _bits_: tuple[tuple[int, ...], ...]
    _full_paths_: tuple[Path, ...]
    _sub_paths_: tuple[Path, ...]

    def __init__(
        self, full: FieldDesc, chosen: tuple[_Chosen, ...] | None, missing: list[Path], keep_ids: bool
    ) -> None:
        subs: dict[int, int] = {}  # bit in full -> bit in type
        bits: list[tuple[int, ...]] = []  # bit in type -> bits in full
        paths: list[Path] = []  # of what is selected as a whole

        def add(node: _Chosen) -> FieldDesc:
            sub = len(bits)
            if node.members is None:
                paths.append(node.path)
                for bit in range(node.full, full.end(node.full)):
                    subs[bit] = sub + bit - node.full
                    bits.append((bit,))
                return node.type
            subs[node.full] = sub
            bits.append(())
            types: list[tuple[str, FieldDesc]] = []
            below: list[int] = []
            for member in node.members:
                first = len(bits)
                types.append((member.path[-1], add(member)))
                below += bits[first]
            # The bit of an incomplete structure stands for what is selected of it.
            bits[sub] = tuple(below)
            return FieldDesc.structure(node.type.id if keep_ids else "", types)

        type = add(_Chosen((), 0, full, chosen))
        set_ = object.__setattr__
        set_(self, "full", full)
        set_(self, "type", type)
        set_(self, "mask", BitSet(subs))
        set_(self, "missing", tuple(map(dotted, missing)))
        set_(self, "_paths_", tuple(paths))
        set_(self, "_subs_", subs)
        set_(self, "_bits_", tuple(bits))
        set_(self, "_full_paths_", _paths(full))
        set_(self, "_sub_paths_", self._full_paths_ if type is full else _paths(type))

    @property
    def is_all(self) -> bool:
        """Is everything selected?"""
        return self.type is self.full

    def names(self) -> tuple[str, ...]:
        """Dotted names of what is selected as a whole; ("",) if that is everything."""
        return tuple(map(dotted, self._paths_))

    def to_sub_bits(self, bits: BitSet, /) -> BitSet:
        """Bits of `full` as bits of `type`; what is not selected falls away."""
        subs = self._subs_
        return BitSet([subs[bit] for bit in bits if bit in subs])

    def from_sub_bits(self, bits: BitSet, /) -> BitSet:
        """Bits of `type` as bits of `full`; the bit of an incomplete structure becomes those of its selected members."""
        known = self._bits_
        return BitSet([full for bit in bits if bit < len(known) for full in known[bit]])

    def masked(self, value: Value, /) -> Value:
        """An update of the full type with those of the changed fields that are selected; arrays are shared, not copied.

        What is not marked in it is not meant. A value is given back as it is where everything is selected.
        """
        self._check(value, self.full)
        if self.is_all:
            return value
        return self.update(value, value.changed)

    def update(self, value: Value, bits: BitSet, /) -> Value:
        """An update of the full type with those fields of `value` that `bits` stand for and that are selected.

        What is not marked in it is not meant; arrays are shared, not copied.
        """
        self._check(value, self.full)
        mask = self.mask
        marks = [bit for bit in bits.expand(self.full) if bit in mask]
        return self._marked(shared(value), marks, self._full_paths_)

    def whole(self, value: Value, /) -> Value:
        """An update of the full type with all selected fields of `value`, each marked as a whole; arrays are shared."""
        self._check(value, self.full)
        made = shared(value)
        made.unmark()
        made.mark(*self._paths_)
        return made

    def to_sub(self, value: Value, /) -> Value:
        """The Value of `type` with the selected fields of a Value of the full type, and the changed bits among them."""
        self._check(value, self.full)
        return self._moved(value, self.type, self.to_sub_bits(value.changed), self._sub_paths_)

    def from_sub(self, value: Value, /) -> Value:
        """The Value of the full type with the fields of a Value of `type`, and its changed bits."""
        self._check(value, self.type)
        return self._moved(value, self.full, self.from_sub_bits(value.changed), self._full_paths_)

    def _moved(self, value: Value, type: FieldDesc, bits: Iterable[int], paths: tuple[Path, ...]) -> Value:
        if self.is_all:
            return value
        made = Value(type)
        for path in self._paths_:
            made[path] = value[path]
        return self._marked(made, list(bits), paths)

    @staticmethod
    def _marked(value: Value, bits: list[int], paths: tuple[Path, ...]) -> Value:
        value.unmark()
        if bits:  # mark() would mean the root
            value.mark(*[paths[bit] for bit in bits])
        return value

    @staticmethod
    def _check(value: Value, type: FieldDesc) -> None:
        if value.type != type:
            raise EncodeError(f"a Value of another type (id {value.type.id!r}, {type.id!r} expected)")

    def __setattr__(self, name: str, value: object, /) -> None:
        raise AttributeError(f"Selection is frozen: {name}")

    def __delattr__(self, name: str, /) -> None:
        raise AttributeError(f"Selection is frozen: {name}")

    def __repr__(self) -> str:
        return f"<Selection of {', '.join(self.names()) or 'everything'}>"


def shared(value: Value) -> Value:
    """A Value with the same leaves, not copied, marked as a whole."""
    return Value(value.type, value if value.type.is_structure else value[""])


def _paths(type: FieldDesc) -> tuple[Path, ...]:
    """The path of every node of a type, by its bit."""
    paths: list[Path] = []

    def add(type: FieldDesc, path: Path) -> None:
        paths.append(path)
        if type.code == STRUCTURE:
            for name, member in type.members.items():
                add(member, (*path, name))

    add(type, ())
    return tuple(paths)


def select(type: FieldDesc, request: Any = None, which: Which = "field") -> Selection:
    """What a pvRequest (text, Value, AnyValue, None, Request) selects of a type. `which`: the part for PUT_GET.

    A part that was not named, or is empty, selects everything. Fields that do not exist are left out and listed in
    `missing`; EncodeError, with the words of pvxs's error status, if nothing is left.
    """
    wanted = Request.of(request)
    node = wanted.node(which)
    missing: list[Path] = []
    if node is None or not node.members:
        return Selection(type, None, missing, False)
    chosen: tuple[_Chosen, ...] = ()
    if type.code == STRUCTURE:
        chosen = _choose(type, 0, type.end, node, (), missing)
    else:
        missing.extend(node.leaves())
    if not chosen:
        names = ", ".join(shown(dotted(path)) for path in missing[:8]) + (", ..." if len(missing) > 8 else "")
        of = (
            shown(type.id) if type.id else "the structure" if type.code == STRUCTURE else type.format("short")
        )
        raise EncodeError(f"pvRequest must select at least one field: {of} has no {names}")
    return Selection(type, chosen, missing, wanted.keep_ids)

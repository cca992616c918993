"""pvRequest: which fields and options a client asks for, as text and as the structure on the wire; selecting fields.

The text is what pvxs and pvDataCPP's CreateRequest read, each of them a part of it::

    field(value,alarm.severity)record[queueSize=10,pipeline=true]
    field(value[array=0:10],alarm{severity,status})        options of a field, several members of one
    field[algorithm=x](value)                              options of the whole (in neither model's text, but legal)
    putField(setpoint)getField(readback,alarm)             PUT_GET
    value,alarm                                            short for field(value,alarm)

White space and commas part the fields. A name with other characters than letters, digits, ``_`` and ``-``, or a value with
commas, brackets, quotes or white space, is put in quotes, with the escapes ``\\" \\\\ \\n \\t \\r \\xHH \\uHHHH \\UHHHHHHHH``.
Where the two models disagree: fields and options named twice are merged, so that ``a,a.b`` is ``a.b``, and the last value
counts, as in pvxs; a field without members of its own is selected as a whole, its options notwithstanding, as in pvDataCPP.
pvDataCPP takes quotes around a value for a part of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, final

from . import _backend
from ._types import SCALARS, STRING, STRUCTURE
from ._typetext import quoted, shown, unescaped
from .errors import DecodeError, EncodeError
from .limits import Limits

BitSet = _backend.bitset.BitSet
FieldDesc = _backend.introspection.FieldDesc
Value = _backend.value.Value
AnyValue = _backend.value.AnyValue

Order = Literal["pvxs", "pvaccess"]
Which = Literal["field", "putField", "getField"]
Path = tuple[str, ...]

# The parts that select fields, in the order in which pvDataCPP writes them.
PARTS: Final[tuple[Which, ...]] = ("field", "getField", "putField")
OPTIONS: Final = "_options"

__all__ = ["Request", "Selection", "format", "parse", "select"]


class Node(NamedTuple):
    """A field that is asked for, or the whole of a part: its options, and those of its members that are selected."""

    options: tuple[tuple[str, str], ...] = ()
    members: tuple[tuple[str, Node], ...] = ()

    def leaves(self, path: Path = ()) -> Iterator[Path]:
        """The paths of the fields below that are selected as a whole."""
        for name, member in self.members:
            if member.members:
                yield from member.leaves((*path, name))
            else:
                yield (*path, name)

    def key(self) -> tuple[object, ...]:
        """For comparison: options in any order."""
        return frozenset(self.options), tuple((name, member.key()) for name, member in self.members)

    def nodes(self, path: Path = ()) -> Iterator[tuple[Path, Node]]:
        """This one and all below, with their paths."""
        yield path, self
        for name, member in self.members:
            yield from member.nodes((*path, name))


# --- text -> nodes ----------------------------------------------------------------------------------------------------


class _Draft:
    """A Node while the text is read: the same field may come again."""

    __slots__ = ("members", "options")

    def __init__(self) -> None:
        self.options: dict[str, str] = {}
        self.members: dict[str, _Draft] = {}

    def node(self) -> Node:
        members = tuple((name, member.node()) for name, member in self.members.items())
        return Node(tuple(self.options.items()), members)


_SPACE: Final = re.compile(r"\s*")
_SEPARATORS: Final = re.compile(r"[\s,]*")
_WORD: Final = re.compile(r"[\w-]+")
_KEY: Final = re.compile(r"[^\s=,\[\](){}\"]+")
_RAW: Final = re.compile(r"[^\s,\[\]\"][^\s,\[\]]*|")
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


class _Parser:
    def __init__(self, text: str, limits: Limits) -> None:
        self.text = text
        self.limits = limits
        self.pos = 0
        self.nodes = 1
        self.parts: dict[str, _Draft] = {}
        self.record: dict[str, str] = {}

    def fail(self, expected: str) -> EncodeError:
        found = shown(self.text[self.pos]) if self.pos < len(self.text) else "the end"
        return self.error(self.pos, f"expected {expected}, found {found}")

    @staticmethod
    def error(pos: int, reason: str) -> EncodeError:
        return EncodeError(f"pvRequest, column {pos + 1}: {reason}")

    def count(self, start: int, depth: int) -> None:
        """One more node of the structure, at this depth below its root."""
        self.nodes += 1
        if self.nodes > self.limits.type_nodes:
            raise self.error(start, f"more than {self.limits.type_nodes} nodes (Limits.type_nodes)")
        if depth > self.limits.depth:
            raise self.error(start, f"nested deeper than {self.limits.depth} (Limits.depth)")

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.pos)
        if found is not None:
            self.pos = found.end()
        return found

    def skip(self, pattern: re.Pattern[str] = _SPACE) -> bool:
        """Skip white space, or separators; was there any?"""
        start = self.pos
        self.match(pattern)
        return self.pos > start

    def accept(self, character: str) -> bool:
        self.skip()
        if self.text.startswith(character, self.pos):
            self.pos += 1
            return True
        return False

    def word(self, pattern: re.Pattern[str], what: str) -> str:
        """A bare word or a quoted string."""
        start = self.pos
        found = self.match(_STRING)
        if found is not None:

            def fail(reason: str) -> EncodeError:
                return self.error(start, reason)

            return unescaped(found[1], fail)
        if self.text.startswith('"', self.pos):
            raise self.error(start, "a string without its closing quote")
        found = self.match(pattern)
        if found is None:
            raise self.fail(what)
        return found[0]

    def parse(self) -> Request:
        self.skip(_SEPARATORS)
        while self.pos < len(self.text):
            start = self.pos
            found = self.match(_WORD)
            name = found[0] if found is not None else ""
            if name in PARTS:
                part = self.part(start, name)
                if self.accept("["):
                    self.options(part.options, 2)
                if not self.accept("("):
                    raise self.fail(f"`(` behind {name}")
                self.fields(part, ")", 1)
            elif name == "record":
                if not self.accept("["):
                    raise self.fail("`[` behind record")
                if not self.accept("]"):
                    self.options(self.record, 2)
            else:
                self.pos = start
                self.field(self.part(start, "field"), 1)
                if not self.skip(_SEPARATORS) and self.pos < len(self.text):
                    raise self.fail("`,`")
            self.skip(_SEPARATORS)
        parts: dict[str, Node] = {name: self.parts[name].node() for name in PARTS if name in self.parts}
        return Request(parts, self.record)

    def part(self, start: int, name: str) -> _Draft:
        if name not in self.parts:
            self.count(start, 1)
            self.parts[name] = _Draft()
        return self.parts[name]

    def fields(self, parent: _Draft, closing: str, depth: int) -> None:
        """The fields up to the closing bracket. pvxs lets commas stand alone; braces must not be empty."""
        self.skip(_SEPARATORS)
        while not self.accept(closing):
            self.field(parent, depth)
            if not self.skip(_SEPARATORS) and not self.text.startswith(closing, self.pos):
                raise self.fail(f"`,` or `{closing}`")

    def field(self, parent: _Draft, depth: int) -> None:
        """One field: a path, options behind any of its names, members in braces."""
        node = parent
        while True:
            self.skip()
            start = self.pos
            name = self.word(_WORD, "a field name")
            depth += 1
            if name == OPTIONS:
                raise self.error(start, f"{OPTIONS} is no field: options stand in brackets")
            if name not in node.members:
                self.count(start, depth)
                node.members[name] = _Draft()
            node = node.members[name]
            before = self.pos
            if self.accept("["):
                self.options(node.options, depth + 1)
                before = self.pos
            if not self.accept("."):
                break
        if self.accept("{"):
            self.skip(_SEPARATORS)
            if self.text.startswith("}", self.pos):
                raise self.fail("a field name")
            self.fields(node, "}", depth)
        else:
            self.pos = before  # white space behind a field parts it from the next

    def options(self, options: dict[str, str], depth: int) -> None:
        """key=value,... and the closing bracket."""
        while True:
            self.skip()
            start = self.pos
            key = self.word(_KEY, "an option")
            if not self.accept("="):
                raise self.fail("`=`")
            self.skip()
            value = self.word(_RAW, "a value")
            if key not in options:
                if not options:
                    self.count(start, depth)
                self.count(start, depth + 1)
            options[key] = value
            if self.accept("]"):
                return
            if not self.accept(","):
                raise self.fail("`,` or `]` (a value with white space or brackets is put in quotes)")
            if self.accept("]"):  # as in pvxs: record[a=b,]
                return


# --- structure -> nodes -----------------------------------------------------------------------------------------------


def _option_text(type: FieldDesc, value: Any) -> str | None:
    """An option of any scalar type, as text; None for what is no scalar."""
    if type.code == STRING or isinstance(value, str):
        return str(value)
    if type.code not in SCALARS:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))  # queueSize as a double
    return repr(value)


def _read_options(value: Value, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, type in value.type.members.items():
        if type.code == STRUCTURE:
            yield from _read_options(value[(name,)], f"{prefix}{name}.")
        else:
            text = _option_text(type, value[(name,)])
            if text is not None:
                yield prefix + name, text


def _read_node(value: Value) -> Node:
    """The selection that a structure stands for. Members that are no structures select nothing, as in pvxs."""
    options: tuple[tuple[str, str], ...] = ()
    members: list[tuple[str, Node]] = []
    for name, type in value.type.members.items():
        if type.code == STRUCTURE:
            if name == OPTIONS:
                options = tuple(dict(_read_options(value[(name,)])).items())
            else:
                members.append((name, _read_node(value[(name,)])))
    return Node(options, tuple(members))


# --- nodes -> structure -----------------------------------------------------------------------------------------------


def _structure(node: Node, path: Path, order: Order, found: list[tuple[Path, str]]) -> FieldDesc:
    """The structure of a node; `found` collects where its options go."""
    pairs: list[tuple[str, FieldDesc]] = []
    if node.options:
        options = sorted(node.options) if order == "pvxs" else node.options
        pairs.append((OPTIONS, FieldDesc.structure("", [(key, "string") for key, _ in options])))
        found += [((*path, OPTIONS, key), text) for key, text in options]
    pairs += [(name, _structure(member, (*path, name), order, found)) for name, member in node.members]
    return FieldDesc.structure("", pairs)


# --- nodes -> text ----------------------------------------------------------------------------------------------------


def _text(text: str, pattern: re.Pattern[str]) -> str:
    return text if pattern.fullmatch(text) and text.isprintable() else quoted(text)


def _options_text(options: tuple[tuple[str, str], ...]) -> str:
    return ",".join(f"{_text(key, _KEY)}={_text(value, _RAW)}" for key, value in options)


def _fields_text(node: Node) -> str:
    """By dotted names, as pvxs can read it; with braces where there are options, which only pvDataCPP reads."""
    if any(path and inner.options for path, inner in node.nodes()):
        return ",".join(_braced(name, member) for name, member in node.members)
    return ",".join(".".join(_text(name, _WORD) for name in path) for path in node.leaves())


def _braced(name: str, node: Node) -> str:
    text = _text(name, _WORD)
    if node.options:
        text += f"[{_options_text(node.options)}]"
    members = [_braced(name, member) for name, member in node.members]
    if len(members) == 1:
        return f"{text}.{members[0]}"
    return f"{text}{{{','.join(members)}}}" if members else text


# --- Request ----------------------------------------------------------------------------------------------------------


def _number(text: str | None) -> int | None:
    """A positive decimal count, otherwise None."""
    text = "" if text is None else text.strip()
    if not text.isascii() or not text.isdecimal() or len(text) > 10:
        return None
    return int(text) or None


def _truth(text: str | None) -> bool | None:
    """ "true" or "false", or a number that stands for it; otherwise None."""
    text = "" if text is None else text.strip().lower()
    if text in ("true", "1", "yes"):
        return True
    return False if text in ("false", "0", "no") else None


def _dotted(path: Path) -> str:
    return ".".join(path)


@final
class Request:
    """What a pvRequest asks for. Frozen and hashable; made by `parse` (of text), `read` (of a received value), `of`."""

    __slots__ = ("_parts_", "options")

    #: The options of record[...]: name to text.
    options: Mapping[str, str]
    _parts_: Mapping[str, Node]

    def __init__(self, parts: Mapping[str, Node], options: Mapping[str, str], /) -> None:
        object.__setattr__(self, "_parts_", MappingProxyType(dict(parts)))
        object.__setattr__(self, "options", MappingProxyType(dict(options)))

    @classmethod
    def parse(cls, text: str, *, limits: Limits | None = None) -> Request:
        """Read the text form; "" asks for everything. EncodeError with the column where the text breaks the rules."""
        return _Parser(text, limits or Limits()).parse()

    @classmethod
    def read(cls, value: Any) -> Request:
        """What a received pvRequest asks for: a Value, an AnyValue that holds one, or None, which asks for everything.

        DecodeError for what is no structure, or has a `field`, `putField`, `getField` that is none.
        """
        if isinstance(value, AnyValue):
            type, value = value.type, value.value
        elif isinstance(value, Value):
            type = value.type
        elif value is None:
            return cls({}, {})
        else:
            raise TypeError(f"a pvRequest is a Value or None, not {value.__class__.__name__}")
        if type.code != STRUCTURE:
            raise DecodeError(f"pvRequest is {type.format('short')}, a structure is needed")
        parts: dict[str, Node] = {}
        for name in PARTS:
            if (name,) in type:
                if type[(name,)].code != STRUCTURE:
                    raise DecodeError(f"{type[(name,)].format('short')} where a structure is needed", 0, name)
                parts[name] = _read_node(value[(name,)])
        options: dict[str, str] = {}
        if ("record", OPTIONS) in type and type[("record", OPTIONS)].code == STRUCTURE:
            options.update(_read_options(value[("record", OPTIONS)]))
        return cls(parts, options)

    @classmethod
    def of(cls, request: Any, /) -> Request:
        """A Request from any form: text, Value, AnyValue, None (everything), Request."""
        if isinstance(request, Request):
            return request
        return cls.parse(request) if isinstance(request, str) else cls.read(request)

    def to_value(self, order: Order = "pvxs") -> Value:
        """The structure to send: members and options in the order of pvxs or of pvAccessCPP ("pvaccess").

        pvxs: field (always, unless only putField or getField are asked for), getField, putField, record; the options
        sorted. pvAccessCPP: record, field, getField, putField, of these what was named; the options as typed.
        """
        if order not in ("pvxs", "pvaccess"):
            raise ValueError(f"order must be 'pvxs' or 'pvaccess', not {order!r}")
        parts = dict(self._parts_)
        if order == "pvxs" and not parts:
            parts["field"] = Node()
        found: list[tuple[Path, str]] = []
        pairs: list[tuple[str, FieldDesc]] = [
            (name, _structure(parts[name], (name,), order, found)) for name in PARTS if name in parts
        ]
        if self.options:
            # The record has options only: it is a node without members.
            record = ("record", _structure(Node(tuple(self.options.items())), ("record",), order, found))
            pairs.insert(len(pairs) if order == "pvxs" else 0, record)
        made = Value(FieldDesc.structure("", pairs))
        for path, text in found:
            made[path] = text
        made.unmark()
        return made

    def with_options(self, options: Mapping[str, str], /) -> Request:
        """The same with these options of record[...] added, or in place of those of the same names."""
        return Request(self._parts_, {**self.options, **options})

    def node(self, which: Which = "field") -> Node | None:
        """What is asked for in field(...), putField(...) or getField(...); None if that was not named."""
        return self._parts_.get(which)

    def names(self, which: Which = "field") -> tuple[str, ...]:
        """Dotted names of what field(...), putField(...) or getField(...) asks for; () means everything."""
        node = self._parts_.get(which)
        return () if node is None else tuple(map(_dotted, node.leaves()))

    @property
    def fields(self) -> tuple[str, ...]:
        """Dotted names of the fields asked for; () means all."""
        return self.names()

    @property
    def field_options(self) -> Mapping[str, Mapping[str, str]]:
        """The options of single fields, by dotted name: {"value": {"array": "0:10"}}."""
        node = self._parts_.get("field", Node())
        return {
            _dotted(path): MappingProxyType(dict(inner.options))
            for path, inner in node.nodes()
            if inner.options
        }

    @property
    def pipeline(self) -> bool:
        """Does the client acknowledge updates (it must set bit 80 of the subcommand as well)?"""
        return bool(_truth(self.options.get("pipeline")))

    @property
    def queue_size(self) -> int | None:
        """queueSize, a positive number; None if it is missing or something else (pvxs then takes 4, pvAccessCPP 2)."""
        return _number(self.options.get("queueSize"))

    @property
    def ack_any(self) -> str | None:
        """ackAny as it came: a number of updates or a percentage of the queue; `ack_at` works it out."""
        return self.options.get("ackAny")

    def ack_at(self, queue_size: int) -> int:
        """After how many updates a client of this queue size acknowledges: 1 to queue_size, by default half of it."""
        text = (self.ack_any or "").strip()
        count = _number(text)
        if count is None and text.endswith("%"):
            try:
                percent = float(text[:-1])
            except ValueError:
                percent = 0.0
            if 0.0 < percent <= 100.0:
                count = int(queue_size * percent / 100.0)
        return max(1, min(queue_size // 2 if count is None else count, queue_size))

    @property
    def process(self) -> bool | None:
        """process: True, False; None for "passive" or if it is missing: the server decides."""
        return _truth(self.options.get("process"))

    @property
    def block(self) -> bool:
        """block: is the reply to wait until processing has ended?"""
        return bool(_truth(self.options.get("block")))

    @property
    def atomic(self) -> bool | None:
        """atomic: are the fields to be handled under one lock? None if the client leaves it to the server."""
        return _truth(self.options.get("atomic"))

    @property
    def keep_ids(self) -> bool:
        """keepIDs: do structures of which only a part is selected keep their ids (pvAccessCPP)?"""
        return bool(_truth(self.options.get("keepIDs")))

    def __eq__(self, other: object, /) -> bool:
        if not isinstance(other, Request):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        """What makes two of them equal: the order of options does not count."""
        return frozenset((name, node.key()) for name, node in self._parts_.items()), frozenset(
            self.options.items()
        )

    def __setattr__(self, name: str, value: object, /) -> None:
        raise AttributeError(f"Request is frozen: {name}")

    def __delattr__(self, name: str, /) -> None:
        raise AttributeError(f"Request is frozen: {name}")

    def __str__(self) -> str:
        texts = []
        for name in ("field", "putField", "getField"):
            node = self._parts_.get(name)
            if node is not None:
                options = f"[{_options_text(node.options)}]" if node.options else ""
                texts.append(f"{name}{options}({_fields_text(node)})")
        if self.options:
            texts.append(f"record[{_options_text(tuple(self.options.items()))}]")
        return "".join(texts)

    def __repr__(self) -> str:
        return f"Request.parse({str(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return Request, (dict(self._parts_), dict(self.options))


def parse(text: str, *, order: Order = "pvxs", limits: Limits | None = None) -> Value:
    """The pvRequest structure of a text, as pvxs builds it or ("pvaccess") as pvAccessCPP does; "" is everything.

    EncodeError with the column where the text breaks the rules.
    """
    return Request.parse(text, limits=limits).to_value(order)


def format(request: Any) -> str:
    """The text of a pvRequest: a Value received from any client, an AnyValue that holds one, None or a Request.

    What `parse` reads back to the same fields and options, these as strings.
    """
    return str(Request.of(request))


# --- Selection --------------------------------------------------------------------------------------------------------


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
        set_(self, "missing", tuple(map(_dotted, missing)))
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
        return tuple(map(_dotted, self._paths_))

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
        names = ", ".join(shown(_dotted(path)) for path in missing[:8]) + (
            ", ..." if len(missing) > 8 else ""
        )
        of = (
            shown(type.id) if type.id else "the structure" if type.code == STRUCTURE else type.format("short")
        )
        raise EncodeError(f"pvRequest must select at least one field: {of} has no {names}")
    return Selection(type, chosen, missing, wanted.keep_ids)

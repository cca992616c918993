"""Request: what a client asks for, read from text or a structure, and its options by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, final

from .. import _backend
from .._types import STRUCTURE
from ..errors import DecodeError
from ..limits import Limits
from .structure import FieldDesc, Order, Value, read_node, read_options, structure
from .text import OPTIONS, PARTS, Node, Path, Which, dotted, fields_text, options_text, read

AnyValue = _backend.value.AnyValue


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
        return cls(*read(text, limits or Limits()))

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
                parts[name] = read_node(value[(name,)])
        options: dict[str, str] = {}
        if ("record", OPTIONS) in type and type[("record", OPTIONS)].code == STRUCTURE:
            options.update(read_options(value[("record", OPTIONS)]))
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
            (name, structure(parts[name], (name,), order, found)) for name in PARTS if name in parts
        ]
        if self.options:
            # The record has options only: it is a node without members.
            record = ("record", structure(Node(tuple(self.options.items())), ("record",), order, found))
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
        return () if node is None else tuple(map(dotted, node.leaves()))

    @property
    def fields(self) -> tuple[str, ...]:
        """Dotted names of the fields asked for; () means all."""
        return self.names()

    @property
    def field_options(self) -> Mapping[str, Mapping[str, str]]:
        """The options of single fields, by dotted name: {"value": {"array": "0:10"}}."""
        node = self._parts_.get("field", Node())
        return {
            dotted(path): MappingProxyType(dict(inner.options))
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
                options = f"[{options_text(node.options)}]" if node.options else ""
                texts.append(f"{name}{options}({fields_text(node)})")
        if self.options:
            texts.append(f"record[{options_text(tuple(self.options.items()))}]")
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

"""What is asked for, as nodes, and the text of it: the package's docstring has the rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from .._typetext import quoted, shown, unescaped
from ..errors import EncodeError
from ..limits import Limits

Which = Literal["field", "putField", "getField"]
Path = tuple[str, ...]

# The parts that select fields, in the order in which pvDataCPP writes them.
PARTS: Final[tuple[Which, ...]] = ("field", "getField", "putField")
OPTIONS: Final = "_options"


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


def read(text: str, limits: Limits) -> tuple[dict[str, Node], dict[str, str]]:
    """The parts of a text, by name, and its record options. EncodeError with the column where it breaks the rules."""
    return _Parser(text, limits).parse()


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

    def parse(self) -> tuple[dict[str, Node], dict[str, str]]:
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
        return {name: self.parts[name].node() for name in PARTS if name in self.parts}, self.record

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


def _text(text: str, pattern: re.Pattern[str]) -> str:
    return text if pattern.fullmatch(text) and text.isprintable() else quoted(text)


def options_text(options: tuple[tuple[str, str], ...]) -> str:
    return ",".join(f"{_text(key, _KEY)}={_text(value, _RAW)}" for key, value in options)


def fields_text(node: Node) -> str:
    """By dotted names, as pvxs can read it; with braces where there are options, which only pvDataCPP reads."""
    if any(path and inner.options for path, inner in node.nodes()):
        return ",".join(_braced(name, member) for name, member in node.members)
    return ",".join(".".join(_text(name, _WORD) for name in path) for path in node.leaves())


def _braced(name: str, node: Node) -> str:
    text = _text(name, _WORD)
    if node.options:
        text += f"[{options_text(node.options)}]"
    members = [_braced(name, member) for name, member in node.members]
    if len(members) == 1:
        return f"{text}.{members[0]}"
    return f"{text}{{{','.join(members)}}}" if members else text


def dotted(path: Path) -> str:
    """A path as people write it."""
    return ".".join(path)

"""Types as text: printed as pvxs does, as pvinfo does, on one line; and all of them read back.

The three forms of one type::

    struct "epics:nt/NTScalar:1.0" {      epics:nt/NTScalar:1.0         epics:nt/NTScalar:1.0{double value,
        double value                          double value               alarm_t{int32 severity} alarm}
        struct "alarm_t" {                    alarm_t alarm
            int32_t severity                      int severity
        } alarm
    }

Where the forms differ from their models, and what they cannot say:

* An id or a member name with white space, quotes, brackets, commas or unprintable characters is written as a
  quoted string with escapes (the models print it raw), so that it can be read back. So are, in pvinfo's form, ids
  that spell another type, such as "double".
* pvinfo prints neither "structure" nor "union" before an id. A union with an id of its own therefore reads back
  as a structure; a structure with a plain id and no members cannot be told from a misspelt type and is refused; and
  the default ids "structure" and "union" read back as "", which is what pvAccessCPP sends for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, Protocol

from ._types import (
    ANY,
    ANY_ARRAY,
    ARRAY_BITS,
    BOUNDED,
    BOUNDED_STRING,
    FIXED,
    SPELLINGS,
    STRING,
    STRUCTURE,
    STRUCTURE_ARRAY,
    UNION,
    UNION_ARRAY,
    VARIABLE,
    short_name,
)
from .errors import EncodeError
from .limits import Limits


class TypeLike(Protocol):
    """What is read of a FieldDesc, of either twin."""

    @property
    def code(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def bound(self) -> int: ...
    @property
    def members(self) -> Mapping[str, TypeLike]: ...


class Spec(NamedTuple):
    """A type as plain data. members: of the structure or union, or of the element of an array of them."""

    code: int
    bound: int = 0
    id: str = ""
    members: tuple[tuple[str, Spec], ...] = ()


_COMPOUND: Final = frozenset((STRUCTURE, UNION, STRUCTURE_ARRAY, UNION_ARRAY))
_ARRAY_OF: Final = {STRUCTURE: STRUCTURE_ARRAY, UNION: UNION_ARRAY}
_KIND_WORDS: Final = {"struct": STRUCTURE, "structure": STRUCTURE, "union": UNION}
_RESERVED: Final = frozenset((*_KIND_WORDS, *SPELLINGS, "any"))
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_ESCAPED: Final = {character: "\\" + letter for letter, character in _ESCAPES.items()}
# Not in a bare id or member name; nor is white space or what does not print.
_SPECIAL: Final = frozenset('"\\{}[]<>(),;')


# Printing.


def _is_bare(text: str) -> bool:
    return bool(text) and text.isprintable() and not any(c in _SPECIAL or c.isspace() for c in text)


def _escape(character: str) -> str:
    if character in _ESCAPED:
        return _ESCAPED[character]
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def shown(text: str) -> str:
    """A part of a text, for an error message."""
    start = "".join(map(_escape, text[:60]))
    return f"`{start}...`" if len(text) > 60 else f"`{start}`"


def quoted(text: str) -> str:
    """A text in quotes, escaped where needed: it is printable then."""
    return '"' + "".join(map(_escape, text)) + '"'


def _word(text: str) -> str:
    return text if _is_bare(text) else quoted(text)


def format_pvxs(fd: TypeLike, name: str = "", indent: int = 0) -> str:
    """The type as pvxs prints a TypeDef, without the last newline.

    name: of the field, printed behind it. indent: levels of four spaces.
    """
    lines: list[str] = []
    _pvxs(fd, name or None, indent, lines)
    return "\n".join(lines)


def _pvxs(fd: TypeLike, name: str | None, level: int, lines: list[str]) -> None:
    tail = "" if name is None else " " + _word(name)
    if fd.code not in _COMPOUND:
        lines.append("    " * level + short_name(fd.code, fd.bound, 1) + tail)
        return
    head = "    " * level + ("struct" if fd.code in (STRUCTURE, STRUCTURE_ARRAY) else "union")
    if fd.code in (STRUCTURE_ARRAY, UNION_ARRAY):
        head += "[]"
    if fd.id:
        head += " " + quoted(fd.id)
    if not fd.members:
        # A quoted name right behind would read as the id.
        lines.append(head + (" {}" if tail.startswith(' "') else "") + tail)
        return
    lines.append(head + " {")
    for member, type in fd.members.items():
        _pvxs(type, member, level + 1, lines)
    lines.append("    " * level + "}" + tail)


def format_pvinfo(fd: TypeLike, name: str = "", indent: int = 0) -> str:
    """The type as pvinfo (pvDataCPP) prints it, without the last newline.

    name: of the field, printed behind it. indent: levels of four spaces.
    """
    lines: list[str] = []
    _pvinfo(fd, name or None, indent, lines, False)
    return "\n".join(lines)


def _pvinfo(fd: TypeLike, name: str | None, level: int, lines: list[str], in_union: bool) -> None:
    is_array = fd.code in (STRUCTURE_ARRAY, UNION_ARRAY, ANY_ARRAY)
    if fd.code == ANY_ARRAY:
        element = "any"
    elif fd.code not in _COMPOUND:
        element = short_name(fd.code, fd.bound, 2)
    else:
        default = "structure" if fd.code in (STRUCTURE, STRUCTURE_ARRAY) else "union"
        element = fd.id or default
        if not _is_bare(element) or (element in _RESERVED and element != default):
            element = quoted(element)
    lines.append(
        "    " * level + element + ("[]" if is_array else "") + ("" if name is None else " " + _word(name))
    )
    if is_array:
        # The element has a line of its own, and in a union the array has one more before it.
        level += 1
        if in_union:
            lines.append("    " * level + element + "[]")
            level += 1
        lines.append("    " * level + element)
    is_union = fd.code in (UNION, UNION_ARRAY)
    for member, type in fd.members.items():
        _pvinfo(type, member, level + 1, lines, is_union)


def format_short(fd: TypeLike) -> str:
    """The type on one line: `double[]`, `union{int32 a, string b}`, `dimension_t{int32 size}[]`."""
    if fd.code not in _COMPOUND:
        return short_name(fd.code, fd.bound)
    is_union = fd.code in (UNION, UNION_ARRAY)
    if not fd.id:
        head = "union" if is_union else "struct"
    elif not _is_bare(fd.id) or fd.id in _RESERVED:
        head = ("union " if is_union else "struct ") + quoted(fd.id)
    else:
        head = ("union " if is_union else "") + fd.id
    members = ", ".join(f"{format_short(type)} {_word(name)}" for name, type in fd.members.items())
    return f"{head}{{{members}}}" + ("[]" if fd.code in (STRUCTURE_ARRAY, UNION_ARRAY) else "")


# Reading.


class _Token(NamedTuple):
    kind: str  # word, string, array ("[]"), fixed, bounded, length, {, }, separator, end
    text: str
    number: int
    line: int
    column: int
    indent: int  # of the first token of a line, otherwise -1


_TOKEN: Final = re.compile(
    r"""(?P<space>[^\S\n]+) | (?P<newline>\n)
      | (?P<string>"(?:[^"\\\n]|\\.)*") | (?P<open>\{) | (?P<close>\}) | (?P<separator>[,;])
      | (?P<array>\[\s*\]) | \[\s*(?P<fixed>[0-9]+)\s*\] | <\s*(?P<bounded>[0-9]+)\s*>
      | \(\s*(?P<length>[0-9]+)\s*\)
      | (?P<word>[^\s"{}\[\]<>(),;]+)""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))")
_SUFFIX_BITS: Final = {"array": VARIABLE, "fixed": FIXED, "bounded": BOUNDED}


def _fail(line: int, column: int, reason: str) -> EncodeError:
    return EncodeError(f"type text, line {line}, column {column}: {reason}")


def unescaped(text: str, fail: Callable[[str], EncodeError]) -> str:
    """What `quoted` made text of, without its quotes; `fail` makes the error of a reason."""

    def replace(match: re.Match[str]) -> str:
        *numbers, letter = match.groups()
        if letter is not None:
            if letter not in _ESCAPES:
                raise fail(f"unknown escape `\\{letter}`")
            return _ESCAPES[letter]
        number = int(next(filter(None, numbers)), 16)
        # Surrogates stand for undecodable bytes, U+DC80 to U+DCFF; any other has no bytes.
        if number > 0x10FFFF or (0xD800 <= number < 0xE000 and not 0xDC80 <= number <= 0xDCFF):
            raise fail(f"`{match[0]}` is no character")
        return chr(number)

    return _ESCAPE.sub(replace, text) if "\\" in text else text


def _tokens(text: str, limits: Limits) -> list[_Token]:
    tokens: list[_Token] = []
    position = line_start = 0
    line = 1
    indent = 0  # columns in front of the first token of this line; -1 behind it
    while position < len(text):
        match = _TOKEN.match(text, position)
        column = position - line_start + 1
        if match is None:
            if text[position] == '"':
                raise _fail(line, column, "a string without its closing quote")
            raise _fail(line, column, f"unexpected {shown(text[position])}")
        kind = match.lastgroup or ""
        position = match.end()
        if kind == "newline":
            line, line_start, indent = line + 1, position, 0
            continue
        if kind == "space":
            if indent >= 0:
                indent = len(match[0].expandtabs(8))
            continue
        content = match[kind]
        number = 0
        if kind in ("fixed", "bounded", "length"):
            # int() of a long text is slow, and refused by Python above 4,300 digits.
            if len(content) > 12 or int(content) > limits.message:
                raise _fail(line, column, f"a length above {limits.message} (Limits.message)")
            number = int(content)
        elif kind == "string":
            content = unescaped(content[1:-1], partial(_fail, line, column))
        elif kind in ("open", "close"):
            kind = content
        if len(tokens) > 8 * limits.type_nodes:
            raise _fail(line, column, f"more than {limits.type_nodes} nodes (Limits.type_nodes)")
        tokens.append(_Token(kind, content, number, line, column, indent))
        line += (breaks := match[0].count("\n"))
        if breaks:
            line_start = match.start() + match[0].rindex("\n") + 1
        indent = -1
    tokens.append(_Token("end", "", 0, line, position - line_start + 1, -1))
    return tokens


class _Parser:
    """One text. `type` reads pvxs's and the one-line form, which have braces, and `line` pvinfo's, which has none."""

    def __init__(self, text: str, limits: Limits) -> None:
        self.tokens = _tokens(text, limits)
        self.limits = limits
        self.next = 0
        self.nodes = 0

    def fail(self, token: _Token, expected: str) -> EncodeError:
        if token.kind == "end":
            found = "the end"
        elif token.kind in ("fixed", "bounded", "length"):
            found = f"a length of {token.number}"
        else:
            found = shown(token.text)
        return _fail(token.line, token.column, f"expected {expected}, found {found}")

    def unknown(self, token: _Token) -> EncodeError:
        if token.kind in ("word", "string"):
            return _fail(token.line, token.column, f"unknown type {shown(token.text)}")
        return self.fail(token, "a type")

    def enter(self, token: _Token, depth: int) -> None:
        """Count one node; the root has depth 0, the element of an array is a node, too."""
        self.nodes += 1
        if self.nodes > self.limits.type_nodes:
            reason = f"more than {self.limits.type_nodes} nodes (Limits.type_nodes)"
            raise _fail(token.line, token.column, reason)
        if depth > self.limits.depth:
            raise _fail(token.line, token.column, f"nested deeper than {self.limits.depth} (Limits.depth)")

    def peek(self, ahead: int = 0) -> _Token:
        return self.tokens[min(self.next + ahead, len(self.tokens) - 1)]

    def take(self) -> _Token:
        token = self.peek()
        self.next += 1
        return token

    def accept(self, kind: str) -> _Token | None:
        return self.take() if self.peek().kind == kind else None

    def suffix(self, kind: str) -> bool:
        """Take a suffix of this kind, if it stands on the same line."""
        return self.peek().indent < 0 and self.accept(kind) is not None

    def parse(self) -> Spec:
        if any(token.kind == "{" for token in self.tokens):
            spec = self.type(0)
        else:
            spec = self.lines()
        if self.peek().kind != "end":
            raise self.fail(self.peek(), "the end of the type")
        return spec

    def scalar(self, word: _Token) -> Spec | None:
        """The scalar, array or any type that begins with `word`, which has been taken."""
        if word.kind != "word":
            return None
        if word.text == "any":
            return Spec(ANY_ARRAY if self.suffix("array") else ANY)
        code = SPELLINGS.get(word.text)
        if code is None:
            return None
        suffix = self.peek()
        if any(map(self.suffix, _SUFFIX_BITS)):
            return Spec(code | _SUFFIX_BITS[suffix.kind], suffix.number)
        if self.suffix("length"):
            if code != STRING:
                raise _fail(
                    suffix.line, suffix.column, f"only a string has a length in parentheses, not {word.text}"
                )
            return Spec(BOUNDED_STRING, suffix.number)
        return Spec(code)

    def name(self, members: dict[str, Spec]) -> str:
        token = self.take()
        if token.kind not in ("word", "string"):
            raise self.fail(token, "a member name")
        if token.text in members:
            raise _fail(token.line, token.column, f"member {shown(token.text)} a second time")
        return token.text

    # Braces.

    def type(self, depth: int) -> Spec:
        word = self.take()
        self.enter(word, depth)
        code = _KIND_WORDS.get(word.text) if word.kind == "word" else None
        id = ""
        is_array = False
        if word.kind in ("word", "string") and self.peek().kind == "{":
            # An id in front of its members, whatever else the word means: `alarm_t{int severity}`.
            if code is None:
                code, id = STRUCTURE, word.text
        elif code is None:
            scalar = self.scalar(word)
            if scalar is None:
                raise self.unknown(word)
            return scalar
        else:
            is_array = self.accept("array") is not None
            # A word behind `struct` is its id when members follow, otherwise the name of an empty structure.
            if self.peek().kind == "string" or (self.peek().kind == "word" and self.peek(1).kind == "{"):
                id = self.take().text
        if is_array:
            depth += 1
            self.enter(word, depth)
        members: dict[str, Spec] = {}
        if self.accept("{"):
            while not self.accept("}"):
                member = self.type(depth + 1)
                members[self.name(members)] = member
                self.accept("separator")
        if not is_array and self.accept("array"):
            is_array = True
            self.enter(
                word, depth + 1
            )  # known only now, behind the members: their depth is counted as in a structure
        return Spec(_ARRAY_OF[code] if is_array else code, 0, id, tuple(members.items()))

    # Lines: what belongs to a line is indented below it.

    def lines(self) -> Spec:
        first = self.peek()
        if first.kind == "end":
            raise self.fail(first, "a type")
        return self.line(0, None)

    def below(self, indent: int) -> bool:
        """Does a line begin here that belongs to the one indented by `indent`?"""
        return self.peek().indent > indent

    def ends_line(self, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token.kind == "end" or token.indent >= 0

    def line(self, depth: int, members: dict[str, Spec] | None) -> Spec:
        """One line with what is indented below it. A line in front of which `members` stand has a name: it joins them."""
        word = self.take()
        if word.kind not in ("word", "string"):
            raise self.fail(word, "a type")
        self.enter(word, depth)
        kind = _KIND_WORDS.get(word.text) if word.kind == "word" else None
        scalar = self.scalar(word) if kind is None else None
        is_array = scalar is None and self.suffix("array")
        id = ""
        if kind is None:
            id = word.text
        elif (
            self.peek().kind == "string"
            and not self.ends_line()
            and (members is None or not self.ends_line(1))
        ):
            id = self.take().text  # pvxs's empty structures: `struct "id" name`
        name = None
        if members is not None:
            if self.ends_line():
                raise self.fail(self.peek(), f"the name of the {shown(word.text)} above")
            name = self.name(members)
        if not self.ends_line():
            raise self.fail(self.peek(), "the end of the line")
        spec = self.body(word, kind, scalar, id, is_array, depth)
        if members is not None and name is not None:
            members[name] = spec
        return spec

    def body(
        self, word: _Token, kind: int | None, scalar: Spec | None, id: str, is_array: bool, depth: int
    ) -> Spec:
        """The type of a line whose own tokens have been read: what is indented below it decides."""
        indent = word.indent
        if scalar is not None:
            if (
                not self.below(indent)
                or scalar.code == BOUNDED_STRING
                or scalar.code & ARRAY_BITS in (BOUNDED, FIXED)
            ):
                return scalar
            is_array = scalar.code == ANY_ARRAY or scalar.code & ARRAY_BITS == VARIABLE
        has_element = False
        if is_array:
            # pvinfo gives the element a line without a name, in a union another one before that for the array.
            element = self.peek()
            if (
                self.below(indent)
                and element.text == word.text
                and self.peek(1).kind == "array"
                and self.ends_line(2)
            ):
                self.next += 2
                indent, element = element.indent, self.peek()
            if self.below(indent) and element.text == word.text and self.ends_line(1):
                self.next += 1
                indent, has_element = element.indent, True
            depth += 1
            self.enter(word, depth)
        if not self.below(indent):
            if scalar is not None and scalar.code == ANY_ARRAY:
                return scalar
            if word.kind == "word" and kind is None and not has_element:
                raise self.unknown(word)
        members: dict[str, Spec] = {}
        inner = self.peek().indent
        while self.below(indent):
            if self.peek().indent != inner:
                raise _fail(self.peek().line, self.peek().column, "indented unlike the members above")
            self.line(depth + 1, members)
        code = STRUCTURE if kind is None else kind
        return Spec(_ARRAY_OF[code] if is_array else code, 0, id, tuple(members.items()))


def parse(text: str, *, limits: Limits | None = None) -> Spec:
    """The type that a text describes, in any of the three forms.

    Every spelling of the scalars is read, white space is free (but for the indentation of pvinfo's form),
    members may be parted by commas or semicolons. EncodeError with line and column when the text is none of
    these, or asks for more than `limits` allow.
    """
    return _Parser(text, limits or Limits()).parse()

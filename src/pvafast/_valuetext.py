"""Values as text: on one line for repr, as a tree for str, the changed fields as pvxs's tools show them.

Works on the Value of either twin. Where the tree and the changed fields differ from what pvxs 1.5 prints: floats are as short as
they can be told apart, not cut to six digits; elements of boolean arrays are true and false; strings show what can be printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from ._elements import ElementColumns
from ._types import (
    ANY,
    ANY_ARRAY,
    SCALAR_FORMS,
    SCALARS,
    STRUCTURE,
    STRUCTURE_ARRAY,
    UNION,
    UNION_ARRAY,
    short_name,
)

if TYPE_CHECKING:
    from ._py.bitset import BitSet
    from ._py.introspection import FieldDesc
    from ._py.value import Value

# Elements of an array that are shown, as pvxs's tools do.
SHOWN: Final = 20


class Part(NamedTuple):
    """A piece of a line, which a terminal may show in a colour of its own. kind: "type", "name", "value" or "" for the rest."""

    kind: str
    text: str


Line = list[Part]
_OPEN: Final = Part("", " {")


def format_repr(value: Value) -> str:
    """One line: the id and the fields that are marked changed, or all if none is."""
    type = value.type
    if type.code != STRUCTURE:
        return f"Value({type.format('short')!r}, {_short(value[''])})"
    leaves = value.changed.expand(type) or [i for i in range(len(type)) if type.is_leaf(i)]
    shown = []
    for leaf in leaves[:8]:
        path = _path(type, leaf)
        shown.append(f"{'.'.join(path)}={_short(value[path])}")
    if len(leaves) > 8:
        shown.append(f"{len(leaves) - 8} more")
    return f"Value({type.id!r}: {', '.join(shown)})"


def _path(type: FieldDesc, leaf: int) -> tuple[str, ...]:
    """The exact names that lead to a node."""
    path: list[str] = []
    at = 0
    while at != leaf:
        at += 1
        for name in type[tuple(path)].members:
            if leaf < type.end(at):
                path.append(name)
                break
            at = type.end(at)
    return tuple(path)


@lru_cache(maxsize=1024)  # updates bring the same again and again
def leaf_paths(type: FieldDesc, bits: BitSet) -> tuple[tuple[str, ...], ...]:
    """The exact names that lead to the leaves of the bits, in order."""
    return tuple(path for leaf, path in _marked(type, bits) if leaf)


@lru_cache(maxsize=1024)
def _marked(type: FieldDesc, bits: BitSet) -> tuple[tuple[bool, tuple[str, ...]], ...]:
    """What is shown of changes: the paths of leaves (True), and of structures that have a bit of their own (False)."""
    leaves, own = frozenset(bits.expand(type)), frozenset(bits)
    return tuple((at in leaves, path) for at, path in _walk(type, 0, ()) if at in leaves or at in own)


def _walk(type: FieldDesc, at: int, path: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """All nodes: their numbers, and the exact names that lead to them."""
    yield at, path
    if type.code == STRUCTURE:
        at += 1
        for name, member in type.members.items():
            yield from _walk(member, at, (*path, name))
            at += len(member)


def _short(leaf: Any) -> str:
    if isinstance(leaf, np.ndarray):
        return f"<{len(leaf)} {leaf.dtype}>" if len(leaf) > 4 else str(leaf.tolist())
    if isinstance(leaf, list):
        return f"<list of {len(leaf)}>" if len(leaf) > 4 else f"[{', '.join(map(_short, leaf))}]"
    text = repr(leaf)
    return text if len(text) <= 60 else text[:57] + "..."


def format_tree(value: Value, shown: int = SHOWN) -> str:
    """The value as a tree, one field a line; at most `shown` elements of an array (0: all)."""
    return "\n".join(map(text_of, tree_lines(value, shown)))


def text_of(line: Line) -> str:
    """A line without its kinds."""
    return "".join([part.text for part in line])


def tree_lines(value: Value, shown: int = SHOWN) -> Iterator[Line]:
    """The lines of `format_tree`."""
    return _node([], 0, value.type, "", _whole(value), shown)


def delta_lines(value: Value, changed: BitSet, shown: int = SHOWN) -> Iterator[Line]:
    """The fields of `changed`, a line a leaf with its path, and one for each structure that has a bit of its own.

    Elements of structures and unions have lines of their own; of an array at most `shown` elements are shown (0: all).
    """
    type = value.type
    if type.code != STRUCTURE:
        yield from _field("", type, value[""], shown)
        return
    for leaf, path in _marked(type, changed):
        if leaf:
            yield from _field(".".join(path), type[path], value[path], shown)
        else:
            head = Part("type", _head(type[path]))
            yield [Part("name", ".".join(path)), Part("", " "), head] if path else [head]


def _whole(value: Value) -> Any:
    return value if value.type.code == STRUCTURE else value[""]


def _head(type: FieldDesc) -> str:
    code = type.code
    if code in (STRUCTURE_ARRAY, UNION_ARRAY):
        return "struct[]" if code == STRUCTURE_ARRAY else "union[]"
    if code not in (STRUCTURE, UNION):
        return short_name(code, type.bound, 1)
    word = "struct" if code == STRUCTURE else "union"
    return f"{word} {_quoted(type.id)}" if type.id else word


def _node(lead: Line, level: int, type: FieldDesc, name: str, leaf: Any, shown: int) -> Iterator[Line]:
    """lead: what stands before it on its line: of an any, or of a union."""
    pad = "    " * level
    code = type.code
    line = [*(lead or [Part("", pad)]), Part("type", _head(type))]
    label = [Part("", " "), Part("name", name)] if name else []
    if code == STRUCTURE:
        if leaf is None:
            yield [*line, *label, Part("value", " null")]
            return
        yield [*line, _OPEN]
        for member, member_type in type.members.items():
            yield from _node([], level + 1, member_type, member, leaf[(member,)], shown)
        yield [Part("", f"{pad}}}"), *label]
    elif code in (UNION, ANY):
        if leaf is None:
            yield [*line, *label, Part("value", " null")]
            return
        if code == UNION:
            label.append(Part("name", f".{leaf.name}"))
        inner = type.members[leaf.name] if code == UNION else leaf.type
        yield from _node([*line, *label, Part("", " ")], level, inner, "", leaf.value, shown)
    elif isinstance(leaf, ElementColumns):
        yield [*line, *label, Part("", f" = {{{len(leaf)}}} columns {{")]
        for column in leaf.fields:
            yield [Part("", f"{pad}    "), *_column(type, column, column, leaf, shown)]
        yield [Part("", f"{pad}}}")]
    elif code in (STRUCTURE_ARRAY, UNION_ARRAY, ANY_ARRAY):
        line = [*line, *label, Part("", f" = {{{len(leaf)}}}[")]
        if not leaf:
            yield [*line, Part("", "]")]
            return
        yield line
        element = type.element
        assert element is not None
        for item in leaf[: shown or None]:
            if code == ANY_ARRAY and item is not None:
                yield from _node([], level + 1, item.type, "", item.value, shown)
            else:
                yield from _node([], level + 1, element, "", item, shown)
        if shown and len(leaf) > shown:
            yield [Part("", f"{pad}    ...")]
        yield [Part("", f"{pad}]")]
    else:
        yield [*line, *label, *_plain(code, leaf, shown)]


def _field(path: str, type: FieldDesc, leaf: Any, shown: int) -> Iterator[Line]:
    """A changed field, or an element of one."""
    code = type.code
    line = [Part("name", path), Part("", " ")] if path else []
    if leaf is None and code in (STRUCTURE, UNION, ANY):
        yield [*line, Part("type", _head(type)), Part("value", " null")]
        return
    line.append(Part("type", _head(type)))
    if code == STRUCTURE:
        yield line
        for member, member_type in type.members.items():
            yield from _member(f"{path}.{member}" if path else member, member_type, leaf[(member,)], shown)
    elif code in (UNION, ANY):
        yield line
        inner = type.members[leaf.name] if code == UNION else leaf.type
        yield from _field(f"{path}->{leaf.name if code == UNION else ''}", inner, leaf.value, shown)
    elif isinstance(leaf, ElementColumns):
        for column in leaf.fields:
            yield _column(type, column, f"{path}[].{column}", leaf, shown)
    elif code in (STRUCTURE_ARRAY, UNION_ARRAY, ANY_ARRAY):
        yield line
        element = type.element
        assert element is not None
        for i, item in enumerate(leaf[: shown or None]):
            if code == ANY_ARRAY and item is not None:
                yield from _field(f"{path}[{i}]", item.type, item.value, shown)
            elif code == UNION_ARRAY and item is not None:
                yield from _field(f"{path}[{i}]->{item.name}", element.members[item.name], item.value, shown)
            else:
                yield from _field(f"{path}[{i}]", element, item, shown)
        if shown and len(leaf) > shown:
            yield [Part("name", f"{path}[{shown}]"), Part("", " ...")]
    else:
        yield [*line, *_plain(code, leaf, shown)]


def _column(type: FieldDesc, column: str, name: str, columns: ElementColumns, shown: int) -> Line:
    """A column of the elements of a structure array."""
    assert type.element is not None
    items = columns[column][: shown or None]
    texts = [format_scalar(item) if isinstance(items, np.ndarray) else _short(item) for item in items]
    if len(columns) > len(texts):
        texts.append("...")
    line = [Part("type", _head(type.element[column])), Part("", " "), Part("name", name)]
    return [*line, Part("", f" = {{{len(columns)}}}["), Part("value", ", ".join(texts)), Part("", "]")]


def _member(path: str, type: FieldDesc, leaf: Any, shown: int) -> Iterator[Line]:
    """A member of a structure that is shown whole: of structures in it only the leaves have lines."""
    if type.code == STRUCTURE and leaf is not None and type.members:
        for member, member_type in type.members.items():
            yield from _member(f"{path}.{member}", member_type, leaf[(member,)], shown)
    else:
        yield from _field(path, type, leaf, shown)


def _plain(code: int, leaf: Any, shown: int) -> Line:
    """A scalar, or an array of them."""
    if code in SCALARS or code not in SCALAR_FORMS:
        return [Part("", " = "), Part("value", format_scalar(leaf))]
    items = [format_scalar(item) for item in (leaf[:shown] if shown else leaf)]
    if len(leaf) > len(items):
        items.append("...")
    return [Part("", f" = {{{len(leaf)}}}["), Part("value", ", ".join(items)), Part("", "]")]


def _quoted(text: str) -> str:
    escaped = (
        text.replace("\\", "\\\\")
        .replace('"', '\\"')
        .replace("\n", "\\n")
        .replace("\r", "\\r")
        .replace("\t", "\\t")
    )
    return f'"{escaped}"'


def format_scalar(leaf: Any) -> str:
    """A scalar as pvxs shows it: strings quoted, floats as short as they can be told apart."""
    if isinstance(leaf, str):
        return _quoted(leaf)
    if isinstance(leaf, bool | np.bool_):
        return "true" if leaf else "false"
    if isinstance(leaf, np.floating):
        return str(leaf).removesuffix(".0")
    if isinstance(leaf, float):
        return str(int(leaf)) if leaf.is_integer() and abs(leaf) < 1e15 else repr(leaf)
    return str(leaf)


def printable(text: str) -> str:
    """A line that can do no harm to a terminal: what is not to be printed is escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printable_tree(text: str) -> str:
    """The same of several lines."""
    return "\n".join(map(printable, text.split("\n")))

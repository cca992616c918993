"""Values as text: on one line for repr, as a tree (in the manner of pvxs) for str. Works on the Value of either twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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
    from ._py.introspection import FieldDesc
    from ._py.value import Value

# Elements of an array that are shown, as pvxs's tools do.
SHOWN = 20


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


def _short(leaf: Any) -> str:
    if isinstance(leaf, np.ndarray):
        return f"<{len(leaf)} {leaf.dtype}>" if len(leaf) > 4 else str(leaf.tolist())
    if isinstance(leaf, list):
        return f"<list of {len(leaf)}>" if len(leaf) > 4 else f"[{', '.join(map(_short, leaf))}]"
    text = repr(leaf)
    return text if len(text) <= 60 else text[:57] + "..."


def format_tree(value: Value, shown: int = SHOWN) -> str:
    """The value as a tree, one field a line; at most `shown` elements of an array (0: all)."""
    lines: list[str] = []
    type = value.type
    _node(lines, type, "", value if type.code == STRUCTURE else value[""], 0, shown)
    return "\n".join(lines)


def _quoted(text: str) -> str:
    escaped = (
        text.replace("\\", "\\\\")
        .replace('"', '\\"')
        .replace("\n", "\\n")
        .replace("\r", "\\r")
        .replace("\t", "\\t")
    )
    return f'"{escaped}"'


def _head(type: FieldDesc) -> str:
    code = type.code
    if code in (STRUCTURE, STRUCTURE_ARRAY):
        word = "struct" if code == STRUCTURE else "struct[]"
    elif code in (UNION, UNION_ARRAY):
        word = "union" if code == UNION else "union[]"
    else:
        return short_name(code, type.bound, 1)
    return f"{word} {_quoted(type.id)}" if type.id else word


def _node(lines: list[str], type: FieldDesc, name: str, leaf: Any, indent: int, shown: int) -> None:
    pad = "    " * indent
    code = type.code
    head = f"{pad}{_head(type)}"
    label = f" {name}" if name else ""
    if code == STRUCTURE:
        if leaf is None:
            lines.append(f"{head}{label} null")
            return
        lines.append(f"{head} {{")
        for member, member_type in type.members.items():
            _node(lines, member_type, member, leaf[(member,)], indent + 1, shown)
        lines.append(f"{pad}}}{label}")
    elif code == UNION:
        if leaf is None:
            lines.append(f"{head}{label} null")
        else:
            lines.append(f"{head}{label}.{leaf.name}")
            _node(lines, type.members[leaf.name], "", leaf.value, indent + 1, shown)
    elif code == ANY:
        if leaf is None:
            lines.append(f"{head}{label} null")
        else:
            lines.append(f"{head}{label}")
            _node(lines, leaf.type, "", leaf.value, indent + 1, shown)
    elif code in (STRUCTURE_ARRAY, UNION_ARRAY, ANY_ARRAY):
        lines.append(f"{head}{label} = {{{len(leaf)}}}[")
        element = type.element
        assert element is not None
        for item in leaf[: shown or None]:
            _node(lines, element, "", item, indent + 1, shown)
        if shown and len(leaf) > shown:
            lines.append(f"{pad}    ...")
        lines.append(f"{pad}]")
    elif code in SCALARS or code not in SCALAR_FORMS:
        lines.append(f"{head}{label} = {format_scalar(leaf)}")
    else:
        items = [format_scalar(item) for item in (leaf[:shown] if shown else leaf)]
        if len(leaf) > len(items):
            items.append("...")
        lines.append(f"{head}{label} = {{{len(leaf)}}}[{', '.join(items)}]")


def format_scalar(leaf: Any) -> str:
    """A scalar as pvxs shows it: strings quoted, floats as short as they can be told apart."""
    if isinstance(leaf, str):
        return _quoted(leaf)
    if isinstance(leaf, bool | np.bool_):
        return "true" if leaf else "false"
    if isinstance(leaf, np.floating):
        return str(leaf)
    if isinstance(leaf, float):
        return str(int(leaf)) if leaf.is_integer() and abs(leaf) < 1e15 else repr(leaf)
    return str(leaf)

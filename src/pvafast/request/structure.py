"""The structure on the wire that stands for what is asked for: from it, and to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from .. import _backend
from .._types import SCALARS, STRING, STRUCTURE
from .text import OPTIONS, Node, Path

FieldDesc = _backend.introspection.FieldDesc
Value = _backend.value.Value

Order = Literal["pvxs", "pvaccess"]


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


def read_options(value: Value, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, type in value.type.members.items():
        if type.code == STRUCTURE:
            yield from read_options(value[(name,)], f"{prefix}{name}.")
        else:
            text = _option_text(type, value[(name,)])
            if text is not None:
                yield prefix + name, text


def read_node(value: Value) -> Node:
    """The selection that a structure stands for. Members that are no structures select nothing, as in pvxs."""
    options: tuple[tuple[str, str], ...] = ()
    members: list[tuple[str, Node]] = []
    for name, type in value.type.members.items():
        if type.code == STRUCTURE:
            if name == OPTIONS:
                options = tuple(dict(read_options(value[(name,)])).items())
            else:
                members.append((name, read_node(value[(name,)])))
    return Node(options, tuple(members))


def structure(node: Node, path: Path, order: Order, found: list[tuple[Path, str]]) -> FieldDesc:
    """The structure of a node; `found` collects where its options go."""
    pairs: list[tuple[str, FieldDesc]] = []
    if node.options:
        options = sorted(node.options) if order == "pvxs" else node.options
        pairs.append((OPTIONS, FieldDesc.structure("", [(key, "string") for key, _ in options])))
        found += [((*path, OPTIONS, key), text) for key, text in options]
    pairs += [(name, structure(member, (*path, name), order, found)) for name, member in node.members]
    return FieldDesc.structure("", pairs)

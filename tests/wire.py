"""A second, slow and plain, encoder: what WIRE says, written for the tests only. The codec is compared with it.

A type is a text ("double", "int8<16>", ...) or a `Compound`; a value is plain Python: dict for a structure, None or
`Chosen` for a union, None or `Typed` for an any, list for an array.
"""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

# name -> (type code, struct format)
SCALARS = {
    "bool": (0x00, "?"),
    "int8": (0x20, "b"),
    "int16": (0x21, "h"),
    "int32": (0x22, "i"),
    "int64": (0x23, "q"),
    "uint8": (0x24, "B"),
    "uint16": (0x25, "H"),
    "uint32": (0x26, "I"),
    "uint64": (0x27, "Q"),
    "float": (0x42, "f"),
    "double": (0x43, "d"),
    "string": (0x60, ""),
}
NUMBERS = {name: format for name, (_, format) in SCALARS.items() if format}
ORDERS = ("little", "big")


class Compound(NamedTuple):
    """kind: "struct", "union", "struct[]" or "union[]"; members of it or of its elements."""

    kind: str
    id: str
    members: tuple[tuple[str, Any], ...]

    @property
    def element(self) -> Compound:
        return Compound(self.kind[:-2], self.id, self.members)


class Chosen(NamedTuple):
    name: str
    value: Any


class Typed(NamedTuple):
    spec: Any
    value: Any


def structure(id: str = "", **members: Any) -> Compound:
    return Compound("struct", id, tuple(members.items()))


def split(spec: str) -> tuple[str, str, int]:
    """("int8", "<", 16) of "int8<16>"; the form is "", "[]", "<", "[" or "("."""
    if spec.endswith("[]"):
        return spec[:-2], "[]", 0
    for form in "<[(":
        if form in spec:
            name, _, bound = spec[:-1].partition(form)
            return name, form, int(bound)
    return spec, "", 0


def pack(format: str, x: Any, order: str) -> bytes:
    return struct.pack((">" if order == "big" else "<") + format, x)


def size(n: int | None, order: str = "little") -> bytes:
    if n is None:
        return b"\xff"
    return bytes([n]) if n < 254 else b"\xfe" + pack("I", n, order)


def string(text: str, order: str = "little") -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return size(len(raw), order) + raw


def bitset(bits: Any, order: str = "little") -> bytes:
    """Each complete group of 8 bytes is a word in the order of the message, the rest is least significant byte first."""
    number = sum(1 << bit for bit in set(bits))
    raw = number.to_bytes((number.bit_length() + 7) // 8, "little")
    out = size(len(raw), order)
    for at in range(0, len(raw), 8):
        group = raw[at : at + 8]
        out += group[::-1] if order == "big" and len(group) == 8 else group
    return out


def desc(spec: Any, order: str = "little") -> bytes:
    if isinstance(spec, Compound):
        code = {"struct": 0x80, "union": 0x81, "struct[]": 0x88, "union[]": 0x89}[spec.kind]
        if spec.kind.endswith("[]"):
            return bytes([code]) + desc(spec.element, order)
        out = bytes([code]) + string(spec.id, order) + size(len(spec.members), order)
        return out + b"".join(string(name, order) + desc(member, order) for name, member in spec.members)
    if spec in ("any", "any[]"):
        return b"\x82" if spec == "any" else b"\x8a"
    name, form, bound = split(spec)
    if form == "(":
        return b"\x83" + size(bound, order)
    code = SCALARS[name][0] | {"": 0, "[]": 0x08, "<": 0x10, "[": 0x18}[form]
    return bytes([code]) + (size(bound, order) if form in ("<", "[") else b"")


def value(spec: Any, x: Any, order: str = "little") -> bytes:
    """A full value."""
    if isinstance(spec, Compound):
        if spec.kind == "struct":
            return b"".join(value(member, x[name], order) for name, member in spec.members)
        if spec.kind == "union":
            if x is None:
                return b"\xff"
            names = [name for name, _ in spec.members]
            at = names.index(x.name)
            return size(at, order) + value(spec.members[at][1], x.value, order)
        return elements([spec.element], x, order)
    if spec == "any":
        return b"\xff" if x is None else desc(x.spec, order) + value(x.spec, x.value, order)
    if spec == "any[]":
        return elements(["any"], x, order)
    name, form, _ = split(spec)
    if form == "" or form == "(":
        return string(x, order) if name == "string" else pack(SCALARS[name][1], x, order)
    out = b"" if form == "[" else size(len(x), order)
    return out + b"".join(value(name, item, order) for item in x)


def elements(spec: list[Any], items: list[Any], order: str) -> bytes:
    return size(len(items), order) + b"".join(
        b"\x00" if item is None else b"\x01" + value(spec[0], item, order) for item in items
    )


def nodes(spec: Any) -> list[tuple[tuple[str, ...], Any, int]]:
    """(path, type, number after its subtree) of each node, depth first."""
    out: list[Any] = []

    def add(path: tuple[str, ...], at: Any) -> None:
        i = len(out)
        out.append(None)
        if isinstance(at, Compound) and at.kind == "struct":
            for name, member in at.members:
                add((*path, name), member)
        out[i] = (path, at, len(out))

    add((), spec)
    return out


def pick(x: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        x = x[name]
    return x


def update(spec: Any, x: Any, bits: Any, order: str = "little") -> bytes:
    """A BitSet and the data that it stands for: a node whose bit is set travels whole, bits below it are redundant."""
    out = bitset(bits, order)
    stop = 0
    for i, (path, at, end) in enumerate(nodes(spec)):
        if i >= stop and i in bits:
            out += value(at, pick(x, path), order)
            stop = end
    return out


def build(backend: SimpleNamespace, spec: Any) -> Any:
    """The FieldDesc of a type."""
    of = backend.introspection.FieldDesc
    if not isinstance(spec, Compound):
        return of.of(spec)
    make = of.structure if spec.kind.startswith("struct") else of.union
    made = make(spec.id, [(name, build(backend, member)) for name, member in spec.members])
    return made.array() if spec.kind.endswith("[]") else made


def pythonic(backend: SimpleNamespace, spec: Any, x: Any) -> Any:
    """What a user would pass for a plain value: `Value`s, UnionValues and AnyValues, lists for arrays."""
    if isinstance(spec, Compound):
        if spec.kind == "struct":
            made = backend.value.Value(build(backend, spec))
            for name, member in spec.members:
                made[(name,)] = pythonic(backend, member, x[name])
            return made
        if spec.kind == "union":
            if x is None:
                return None
            member = dict(spec.members)[x.name]
            return backend.value.UnionValue(x.name, pythonic(backend, member, x.value))
        return [None if item is None else pythonic(backend, spec.element, item) for item in x]
    if spec == "any":
        if x is None:
            return None
        return backend.value.AnyValue(build(backend, x.spec), pythonic(backend, x.spec, x.value))
    if spec == "any[]":
        return [None if item is None else pythonic(backend, "any", item) for item in x]
    return x


def plain(x: Any) -> Any:
    """A decoded value of either twin as comparable plain data: floats as their bits, arrays with their dtype."""
    kind = type(x).__name__
    if kind == "Value":
        if not x.type.is_structure:
            return ("root", str(x.type), plain(x[""]))
        return ("struct", str(x.type), {name: plain(x[(name,)]) for name in x.type.members})
    if kind == "UnionValue":
        return ("union", x.name, plain(x.value))
    if kind == "AnyValue":
        return ("any", str(x.type), plain(x.value))
    if isinstance(x, np.ndarray):
        return (x.dtype.str, x.shape, x.tobytes())
    if isinstance(x, list):
        return [plain(item) for item in x]
    if type(x) is float:
        return ("float", struct.pack("<d", x))
    return (kind, x)


def expected(backend: SimpleNamespace, spec: Any, x: Any) -> Any:
    """plain() of what decoding must give for a plain value."""
    if isinstance(spec, Compound):
        if spec.kind == "struct":
            fields = {name: expected(backend, member, x[name]) for name, member in spec.members}
            return ("struct", str(build(backend, spec)), fields)
        if spec.kind == "union":
            if x is None:
                return ("NoneType", None)
            return ("union", x.name, expected(backend, dict(spec.members)[x.name], x.value))
        return [("NoneType", None) if item is None else expected(backend, spec.element, item) for item in x]
    if spec == "any":
        if x is None:
            return ("NoneType", None)
        return ("any", str(build(backend, x.spec)), expected(backend, x.spec, x.value))
    if spec == "any[]":
        return [expected(backend, "any", item) for item in x]
    name, form, _ = split(spec)
    if form in ("", "("):
        return plain({"bool": bool, "string": str, "float": float, "double": float}.get(name, int)(x))
    if name == "string":
        return [("str", item) for item in x]
    return plain(np.array(x, NUMBERS[name]))

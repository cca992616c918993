"""Types and values as the JSON of the test vectors writes them (see tests/vectors/README.md)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pvafast import AnyValue, FieldDesc, UnionValue, Value

ARRAY_FORMS = ("struct[]", "union[]")


def type_of(spec: Any) -> FieldDesc:
    """ "int32[]", {"struct": id, "fields": [[name, type], ...]}, "union", "struct[]", "union[]" -> FieldDesc."""
    if isinstance(spec, str):
        return FieldDesc.of(spec)
    (kind,) = set(spec) - {"fields"}
    members = [(name, type_of(member)) for name, member in spec["fields"]]
    made = (FieldDesc.structure if kind.startswith("struct") else FieldDesc.union)(spec[kind] or "", members)
    return made.array() if kind in ARRAY_FORMS else made


def spec_of(type: FieldDesc | None) -> Any:
    """The other way."""
    if type is None:
        return None
    kinds = {0x80: "struct", 0x81: "union", 0x88: "struct[]", 0x89: "union[]"}
    if type.code in kinds:
        fields = [[name, spec_of(member)] for name, member in type.members.items()]
        return {kinds[type.code]: type.id, "fields": fields}
    text = type.format("short")
    return text.replace("float", "float32").replace("double", "float64")


def plain(x: Any) -> Any:
    """A decoded value as JSON: structures as objects, unions {"sel", "value"}, anys {"type", "value"}."""
    if isinstance(x, Value):
        return {name: plain(x[(name,)]) for name in x} if x.type.is_structure else plain(x[""])
    if isinstance(x, UnionValue):
        return {"sel": x.name, "value": plain(x.value)}
    if isinstance(x, AnyValue):
        return {"type": spec_of(x.type), "value": plain(x.value)}
    if isinstance(x, np.ndarray):
        return [plain(item) for item in x.tolist()]
    if isinstance(x, list | tuple):
        return [plain(item) for item in x]
    if isinstance(x, float) and not math.isfinite(x):
        return str(x)
    return x


def partial(v: Value) -> dict[str, Any]:
    """An update: the bits that came, and the fields that came with them by their outermost bit."""
    fields = {}
    covered = -1
    for bit in v.changed:
        if bit >= covered:
            fields[v.type.names[bit]] = plain(v[v.type.names[bit]])
            covered = v.type.end(bit)
    return {"changed": list(v.changed), "fields": fields}


def whole(x: Any) -> Any:
    """An Any* of a message: {"type", "value"}, both null where there is none."""
    if x is None:
        return {"type": None, "value": None}
    if isinstance(x, Value):
        return {"type": spec_of(x.type), "value": plain(x)}
    return plain(x)

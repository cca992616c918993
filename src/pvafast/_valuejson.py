"""Values as JSON and back, in the forms of `pvafast decode --json` and of every other command's --json.

A structure is an object, a union {"union": name, "value": ...}, an any {"any": type, "value": ...}, a null null; floats that are
not finite are "NaN", "Infinity" and "-Infinity". A numeric array of more than max_elements is {"dtype", "shape", "sha256"} over
its little-endian elements, dtype as numpy spells that ("<f8"); a string array {"strings": n, "sha256"} over the strings in
UTF-8, each behind its length as a little-endian uint32; any other list {"length", "sha256"} over its JSON as json.dumps writes
it. A structure array of which a Projection took members is {"present": [...], "columns": {name: [...]}}. Bytes of a string
that are not UTF-8 are lone surrogates (PEP 383), in hashes the bytes that they were.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from typing import Any, Final

import numpy as np

from ._backend import bitset, introspection, value
from ._elements import ElementColumns
from ._types import ANY, STRUCTURE, UNION

_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_AS_THEY_ARE: Final = frozenset({int, str, bool, type(None)})
# One line of pure ASCII.
encode: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode


def leaf_names(type: introspection.FieldDesc, bits: bitset.BitSet) -> list[str]:
    """The dotted names of the leaves of the bits."""
    names = type.names
    return [names[i] for i in bits.expand(type)]


class Form:
    """Values as what `encode` takes. max_elements: longer arrays are shortened; 0: never."""

    def __init__(self, max_elements: int = 0) -> None:
        self.most = max_elements if max_elements > 0 else 1 << 62

    def leaf(self, leaf: Any) -> Any:
        """Any value."""
        if leaf.__class__ in _AS_THEY_ARE:
            return leaf
        if isinstance(leaf, float):
            if math.isfinite(leaf):
                return leaf
            return "NaN" if leaf != leaf else "Infinity" if leaf > 0 else "-Infinity"
        if isinstance(leaf, np.ndarray):
            return self._array(leaf)
        if isinstance(leaf, value.Value):
            if leaf.type.code != STRUCTURE:
                return self.leaf(leaf[""])
            return {name: self.leaf(leaf[(name,)]) for name in leaf.type.members}
        if isinstance(leaf, list):
            return self._list(leaf)
        if isinstance(leaf, ElementColumns):
            columns = {name: self.leaf(leaf[name]) for name in leaf.fields}
            return {"present": self.leaf(leaf.present), "columns": columns}
        if isinstance(leaf, value.UnionValue):
            return {"union": leaf.name, "value": self.leaf(leaf.value)}
        if isinstance(leaf, value.AnyValue):
            return {"any": leaf.type.format("short"), "value": self.leaf(leaf.value)}
        return leaf

    def _array(self, array: np.ndarray[Any, Any]) -> Any:
        if array.size > self.most:
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest = hashlib.sha256(little.tobytes()).hexdigest()
            return {"dtype": little.dtype.str, "shape": list(array.shape), "sha256": digest}
        if array.dtype.kind == "f":
            return [self.leaf(item) for item in array.tolist()]
        return array.tolist()

    def _list(self, items: list[Any]) -> Any:
        if len(items) <= self.most:
            return [self.leaf(item) for item in items]
        if all(isinstance(item, str) for item in items):
            digest = hashlib.sha256()
            for item in items:
                raw = item.encode("utf-8", "surrogateescape")
                digest.update(struct.pack("<I", len(raw)) + raw)
            return {"strings": len(items), "sha256": digest.hexdigest()}
        text = encode([self.leaf(item) for item in items])
        return {"length": len(items), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def parse(type: introspection.FieldDesc, x: Any) -> Any:
    """What `json.loads` gave, as a field of this type takes it: the forms above, but for arrays that were shortened.

    A union and an any also take a plain value. Nothing is checked that the field checks itself.
    """
    if isinstance(x, dict):
        if type.code == UNION and x.keys() == {"union", "value"} and x["union"] in type.members:
            return value.UnionValue(x["union"], parse(type.members[x["union"]], x["value"]))
        if type.code == ANY and x.keys() == {"any", "value"} and isinstance(x["any"], str):
            held = introspection.FieldDesc.parse(x["any"])
            return value.AnyValue(held, parse(held, x["value"]))
        if type.code == STRUCTURE:
            members = type.members
            return {name: parse(members[name], item) if name in members else item for name, item in x.items()}
    elif isinstance(x, list):
        element = type.element
        return x if element is None else [parse(element, item) for item in x]
    elif isinstance(x, str) and type.dtype is not None and type.dtype.kind == "f":
        return _NOT_FINITE.get(x, x)
    return x

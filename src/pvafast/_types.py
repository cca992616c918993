"""The table of pvData type codes, and the short text form of types: "double", "int32[]", "int8<16>", "string(8)".

Both twins, the text forms and the coercion of Python values read it.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

# Type codes on the wire.
BOOL: Final = 0x00
STRING: Final = 0x60
STRUCTURE: Final = 0x80
UNION: Final = 0x81
ANY: Final = 0x82
BOUNDED_STRING: Final = 0x83
STRUCTURE_ARRAY: Final = 0x88
UNION_ARRAY: Final = 0x89
ANY_ARRAY: Final = 0x8A
ID_REFERENCE: Final = 0xFE
ID_DEFINITION: Final = 0xFD
TAGGED_ID: Final = 0xFC
NULL: Final = 0xFF

# Bits 3 and 4 of a scalar code make an array of it.
VARIABLE: Final = 0x08
BOUNDED: Final = 0x10
FIXED: Final = 0x18
ARRAY_BITS: Final = 0x18

# code -> (canonical name, pvxs's name, pvinfo's name, struct format, size in bytes)
SCALARS: Final[dict[int, tuple[str, str, str, str, int]]] = {
    0x00: ("bool", "bool", "boolean", "?", 1),
    0x20: ("int8", "int8_t", "byte", "b", 1),
    0x21: ("int16", "int16_t", "short", "h", 2),
    0x22: ("int32", "int32_t", "int", "i", 4),
    0x23: ("int64", "int64_t", "long", "q", 8),
    0x24: ("uint8", "uint8_t", "ubyte", "B", 1),
    0x25: ("uint16", "uint16_t", "ushort", "H", 2),
    0x26: ("uint32", "uint32_t", "uint", "I", 4),
    0x27: ("uint64", "uint64_t", "ulong", "Q", 8),
    0x42: ("float", "float", "float", "f", 4),
    0x43: ("double", "double", "double", "d", 8),
    0x60: ("string", "string", "string", "", 0),
}

# Numeric scalar code -> dtype, native byte order.
DTYPES: Final[dict[int, np.dtype[np.generic]]] = {
    code: np.dtype(format) for code, (_, _, _, format, _) in SCALARS.items() if format
}
CODE_OF_DTYPE: Final[dict[np.dtype[np.generic], int]] = {dtype: code for code, dtype in DTYPES.items()}

# Every accepted spelling of a scalar type.
SPELLINGS: Final[dict[str, int]] = {
    **{name: code for code, names in SCALARS.items() for name in names[:3]},
    "float32": 0x42,
    "float64": 0x43,
}

# Codes that may stand in a type description besides structure, union and any forms.
SCALAR_FORMS: Final[frozenset[int]] = frozenset(
    code | bits for code in SCALARS for bits in (0, VARIABLE, BOUNDED, FIXED)
)

_SHORT = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:(\[\s*(\d*)\s*\])|<\s*(\d+)\s*>|\(\s*(\d+)\s*\))?\s*")


def parse_short(text: str) -> tuple[int, int] | None:
    """(code, bound) of a scalar, array or any type in the short text form; None if it is none of these.

    bound: the n of "int8<n>", "int8[n]" and "string(n)", otherwise 0.
    """
    match = _SHORT.fullmatch(text)
    if match is None:
        return None
    name, brackets, fixed, bounded, length = match.groups()
    if name == "any":
        if brackets is None and bounded is None and length is None:
            return ANY, 0
        return (ANY_ARRAY, 0) if brackets is not None and not fixed else None
    code = SPELLINGS.get(name)
    if code is None:
        return None
    if brackets is not None:
        return (code | FIXED, int(fixed)) if fixed else (code | VARIABLE, 0)
    if bounded is not None:
        return code | BOUNDED, int(bounded)
    if length is not None:
        return (BOUNDED_STRING, int(length)) if code == STRING else None
    return code, 0


def short_name(code: int, bound: int, style: int = 0) -> str:
    """The short text form of a scalar, array or any type. style: 0 canonical, 1 pvxs's names, 2 pvinfo's."""
    if code == ANY:
        return "any"
    if code == ANY_ARRAY:
        return "any[]"
    if code == BOUNDED_STRING:
        return f"string({bound})"
    name = SCALARS[code & ~ARRAY_BITS][:3][style]
    form = code & ARRAY_BITS
    if form == VARIABLE:
        return f"{name}[]"
    if form == BOUNDED:
        return f"{name}<{bound}>"
    return f"{name}[{bound}]" if form == FIXED else name

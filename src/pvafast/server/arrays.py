"""ARRAY operations: parts of the array field that a client has opened."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._backend import introspection
from .._types import ARRAY_BITS, SCALAR_FORMS
from ..errors import RemoteError
from ..request import Selection
from .requests import Refused

FieldDesc = introspection.FieldDesc


def field_of(selection: Selection) -> tuple[str, ...]:
    """The one array that is selected, or `value` of all; Refused if there is none."""
    names = selection.names()
    name = "value" if names == ("",) and selection.full.is_structure else names[0]
    if len(names) != 1 or name not in selection.full or not _is_array(selection.full[name]):
        raise Refused("an array operation needs one field that is an array of numbers or strings")
    return tuple(name.split(".")) if name else ()


def _is_array(type: FieldDesc) -> bool:
    return type.code in SCALAR_FORMS and bool(type.code & ARRAY_BITS)


def part(array: Any, offset: int, count: int, stride: int) -> Any:
    """`count` elements (0: all) from `offset` on, every `stride`-th."""
    _check(stride)
    if offset > len(array):
        raise Refused(f"offset {offset} of an array of {len(array)} elements")
    found = array[offset::stride]
    return found[:count] if count else found


def laid_over(array: Any, elements: Any, offset: int, stride: int, most: int) -> Any:
    """The array with elements from `offset` on, every `stride`-th, replaced; longer if that needs it, at most `most` bytes."""
    _check(stride)
    count = len(elements)
    needed = offset + (count - 1) * stride + 1 if count else 0
    changed = resized(array, max(len(array), needed), most)
    changed[offset : needed if count else offset : stride] = elements
    return changed


def resized(array: Any, length: int, most: int) -> Any:
    """A copy of the array of so many elements, filled up with zeros or empty strings; Refused above `most` bytes."""
    size = array.itemsize if isinstance(array, np.ndarray) else 8
    if length * size > most:
        raise RemoteError(
            "ERROR", f"an array of {length} elements is longer than {most} bytes (Limits.message)"
        )
    if not isinstance(array, np.ndarray):
        return list(array[:length]) + [""] * (length - len(array))
    changed = np.zeros(length, array.dtype)
    kept = min(length, len(array))
    changed[:kept] = array[:kept]
    return changed


def _check(stride: int) -> None:
    if stride < 1:
        raise Refused(f"stride {stride}: 1 or more is needed")

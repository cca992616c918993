"""What a program gives to put, as a Value of the type that the server told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import _backend, ndarray, normative
from ..errors import EncodeError
from ..normative.types import plain

FieldDesc = _backend.introspection.FieldDesc
Value = _backend.value.Value

# The fields of an NTNDArray that an array fills.
_FRAME = ("value", "codec", "compressedSize", "uncompressedSize", "dimension")


def is_enum(type: FieldDesc) -> bool:
    """Whether `value` is an enum_t: an index and its choices."""
    return (
        "value" in type
        and type["value"].is_structure
        and "index" in type["value"]
        and "choices" in type["value"]
    )


def needs_current(type: FieldDesc, given: Any) -> bool:
    """Whether the value that is there must be known: for a function of it, and for an enum's choice by name."""
    return callable(given) or (
        isinstance(given, str) and not isinstance(given, normative.Choice) and is_enum(type)
    )


def to_put(type: FieldDesc, given: Any, current: Value | None) -> Value:
    """The Value to send, with the fields to write marked. EncodeError for what does not fit.

    given: a Value (its marked fields, by name where it is of another type), a mapping of fields, a plain value for the
    field `value` (of an enum an index or a choice, of an NTNDArray an array), or a function of `current` that returns
    one of these.
    """
    if callable(given) and not isinstance(given, Value):
        given = given(current)
    if isinstance(given, Value):
        return _of_value(type, given)
    made = Value(type)
    if isinstance(given, ndarray.Frame):
        _frame(made, given.data)
    elif isinstance(given, Mapping) and type.is_structure and not isinstance(given, normative.Channels):
        _fields(made, given)
    elif not type.is_structure:
        made[""] = plain(given)
    elif "value" not in type:
        raise EncodeError(f"{type.format('short')} has no field `value`: give a dict of its fields")
    elif is_enum(type):
        made["value.index"] = _index(given, current) if isinstance(given, str) else int(given)
    elif normative.kind(type.id) == "NTNDArray":
        _frame(made, given)
    else:
        try:
            made["value"] = plain(given)
        except EncodeError as error:
            if not error.path:
                error.within("value")
            raise
    return made


def _of_value(type: FieldDesc, given: Value) -> Value:
    if given.type == type:
        if not given.changed:
            given = given.copy()
            given.mark("")
        return given
    made = Value(type)
    for name in given.changed_names() or [n for n in given.type.names if n]:
        if name not in type:
            raise EncodeError(f"{type.format('short')} has no such field", name)
        if not type[name].is_structure:
            made[name] = given[name]
    return made


def _fields(made: Value, given: Mapping[str, Any]) -> None:
    type = made.type
    columns = normative.kind(type.id) == "NTTable" and not any(name in type for name in given)
    for name, x in given.items():
        path = f"value.{name}" if columns else name
        if path not in type:
            raise EncodeError(f"{type.format('short')} has no such field", path)
        made[path] = plain(x)


def _index(choice: str, current: Value | None) -> int:
    choices = [] if current is None else list(current["value.choices"])
    if choice in choices:
        return choices.index(choice)
    if choice.strip().isdecimal():
        return int(choice)
    raise EncodeError(f"{choice!r} is none of the choices {', '.join(map(repr, choices))}", "value")


def _frame(made: Value, array: Any) -> None:
    frame = ndarray.NTNDArray().wrap(array)
    for name in _FRAME:
        if name not in made.type:
            continue
        if made.type[name] == frame.type[name] or not made.type[name].is_structure:
            made[name] = frame[name]
        else:
            made[f"{name}.name"] = frame[f"{name}.name"]

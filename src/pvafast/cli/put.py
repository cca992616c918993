"""`pvafast put`: write a PV, or some of its fields."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any, Final

from .. import _backend
from .._types import BOUNDED_STRING, STRING
from .._valuejson import parse
from ..errors import EncodeError, PvaError
from . import options, session

FieldDesc = _backend.introspection.FieldDesc
Value = _backend.value.Value

_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Write the value of a PV, or some of its fields. Numbers, texts and choices are written as they are; arrays, "
        "structures, unions and anys as JSON."
    )
    parser.add_argument("pv", metavar="PV")
    parser.add_argument(
        "given", nargs="+", metavar="VALUE | FIELD=VALUE | JSON",
        help="the value; or fields with theirs, 'alarm.severity=2'; or an object of fields, '{\"value\": [1, 2.5]}'",
    )  # fmt: skip
    options.add_request(parser)
    parser.add_argument(
        "--wait",
        dest="block",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="wait until the record is processed",
    )
    parser.add_argument(
        "--process",
        choices=("true", "false", "passive"),
        default=None,
        help="whether the record is processed",
    )
    options.add_connection(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write; returns the exit status."""
    try:
        given = assignments(arguments.given)
    except ValueError as error:
        session.complain(arguments.pv, error)
        return 2
    process = {"true": True, "false": False}.get(arguments.process, arguments.process)
    with session.client(arguments) as client:
        try:
            client.put(arguments.pv, given, arguments.request, wait=arguments.block, process=process)
        except PvaError as error:
            session.complain(arguments.pv, error)
            return 1
    return 0


def assignments(given: list[str]) -> Callable[[Value], Any]:
    """What to write, as a function of what is there. ValueError where several are given and one has no field."""
    if len(given) == 1 and ("=" not in given[0] or given[0].lstrip().startswith(("{", "["))):
        return lambda current: of_text(current, given[0])
    fields = {}
    for text in given:
        field, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"FIELD=VALUE is needed, not {text!r}")
        if field in fields:
            raise ValueError(f"{field!r} is given twice")
        fields[field] = value
    return lambda current: {name: of_field(current, name, text) for name, text in fields.items()}


def of_text(current: Value, text: str) -> Any:
    """What the only text means: an object of fields, or the value."""
    type = current.type
    if not type.is_structure:
        return read(type, text)
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        # A string may look like this as well.
        if isinstance(found, dict) and all(name in type for name in found):
            return {name: parse(type[name], x) for name, x in found.items()}
    if "value" not in type:
        raise EncodeError(f"{type.format('short')} has no field `value`: name the fields")
    return {"value": of_field(current, "value", text)}


def of_field(current: Value, name: str, text: str) -> Any:
    """What a text means for a field."""
    type = current.type
    if name not in type:
        raise EncodeError(f"{type.id or type.format('short')} has no such field", name)
    if type[name].is_structure and "choices" in type[name] and "index" in type[name]:
        return {"index": choice(list(current[f"{name}.choices"]), text, name)}
    try:
        return read(type[name], text)
    except EncodeError as error:
        error.within(name)
        raise


def choice(choices: list[str], text: str, name: str) -> int:
    """The index of a choice that is given by its text, or its number."""
    if text in choices:
        return choices.index(text)
    try:
        return int(text)
    except ValueError:
        raise EncodeError(f"{text!r} is none of the choices {', '.join(map(repr, choices))}", name) from None


def read(type: FieldDesc, text: str) -> Any:
    """A text as a value of the type."""
    if type.code in (STRING, BOUNDED_STRING):
        return text
    kind = "" if type.dtype is None or type.element is not None else type.dtype.kind
    try:
        if kind == "b":
            return _TRUTH[text.strip().lower()]
        if kind == "f":
            return float(text)
        if kind:
            return int(text, 0)
        return parse(type, json.loads(text))
    except (ValueError, KeyError):
        what = type.format("short") if kind else f"JSON of {type.format('short')}"
        raise EncodeError(f"{text!r} is no {what}") from None

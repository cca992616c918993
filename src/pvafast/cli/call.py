"""`pvafast call`: call a PV (RPC)."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .. import normative
from ..errors import PvaError
from . import options, session
from .output import Output


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Call a PV with arguments (as an NTURI), and show the result."
    parser.add_argument("pv", metavar="PV")
    parser.add_argument(
        "given", nargs="*", type=assignment, metavar="NAME=VALUE | NAME:=JSON",
        help="an argument: a string, or of the type that the JSON has",
    )  # fmt: skip
    options.add_request(parser)
    options.add_format(parser, default="tree")
    options.add_connection(parser)


def assignment(text: str) -> tuple[str, Any]:
    """An argument of the call."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"NAME=VALUE is needed, not {text!r}")
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], json.loads(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{name[:-1]}: {value!r} is no JSON: {error}") from None


def run(arguments: argparse.Namespace) -> int:
    """Call; returns the exit status."""
    try:
        argument = normative.NTURI.of(arguments.pv, dict(arguments.given))
    except PvaError as error:
        session.complain(arguments.pv, error)
        return 2
    with session.client(arguments) as client:
        try:
            result = client.rpc(arguments.pv, argument, request=arguments.request)
        except PvaError as error:
            session.complain(arguments.pv, error)
            return 1
    output = Output.of(arguments)
    if result is not None or arguments.json:
        output.value(arguments.pv if arguments.json else "", result)
    return 0

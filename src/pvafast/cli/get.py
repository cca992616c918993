"""`pvafast get`: the values of PVs."""

from __future__ import annotations

import argparse

from . import options, session
from .output import Output


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Read PVs, all at once, and show what their servers sent."
    parser.add_argument("pvs", nargs="+", metavar="PV")
    options.add_request(parser)
    options.add_format(parser)
    options.add_connection(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read; returns the exit status."""
    output = Output.of(arguments)
    status = 0
    with session.client(arguments) as client:
        answers = client.get(arguments.pvs, arguments.request, return_exceptions=True)
    for name, answer in zip(arguments.pvs, answers, strict=True):
        if isinstance(answer, BaseException):
            session.complain(name, answer)
            status = 1
        else:
            output.value(name, answer)
    return status

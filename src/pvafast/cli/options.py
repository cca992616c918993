"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import math
import re
from typing import Final

from ..network.config import ClientConfig
from ..request import Request

# Values such as -1e3 are not options.
_NEGATIVE: Final = re.compile(r"-(\d|\.\d|inf\b|nan\b)", re.IGNORECASE)


def add_connection(parser: argparse.ArgumentParser, *, wait: str = "seconds to wait for an answer") -> None:
    """-w, --server, -v, -d."""
    parser._negative_number_matcher = _NEGATIVE
    add_wait(parser, wait)
    parser.add_argument(
        "--server", type=server, metavar="HOST[:PORT]",
        help="ask this server, without a search (default: search as the EPICS_PVA_* variables tell)",
    )  # fmt: skip
    add_noise(parser)


def add_wait(parser: argparse.ArgumentParser, help: str, default: float = 5.0) -> None:
    """-w."""
    parser.add_argument(
        "-w", dest="wait", type=seconds, default=default, metavar="SEC",
        help=f"{help} (default: {default:g}; 0: for ever)" if default else f"{help} (default: for ever)",
    )  # fmt: skip


def add_noise(parser: argparse.ArgumentParser) -> None:
    """-v, -d."""
    parser.add_argument(
        "-v", dest="verbose", action="store_true", help="say more: the configuration, connections"
    )
    parser.add_argument("-d", dest="debug", action="store_true", help="log everything that happens")


def add_request(parser: argparse.ArgumentParser) -> None:
    """-r."""
    parser.add_argument(
        "-r", dest="request", type=request, default="", metavar="REQUEST",
        help="pvRequest: 'field(value,alarm)', 'value', 'record[process=true]field()'",
    )  # fmt: skip


def add_format(parser: argparse.ArgumentParser, default: str = "delta") -> None:
    """-F, -#, --json."""
    parser.add_argument(
        "-F", dest="format", choices=("delta", "tree"), default=default,
        help=f"what changed, a line a field, or all as a tree (default: {default})",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a line, pure ASCII")
    parser.add_argument(
        "-#", dest="shown", type=count, default=None, metavar="N",
        help="show at most N elements of an array (default: 20, with --json all; 0: all)",
    )  # fmt: skip


def seconds(text: str) -> float:
    """A number of seconds."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(text)
    return number


def count(text: str) -> int:
    """A number of things."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def server(text: str) -> str:
    """A server's address."""
    try:
        ClientConfig().server(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def request(text: str) -> str:
    """A pvRequest that can be read."""
    try:
        Request.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text

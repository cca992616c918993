"""`pvafast search`: which server has a PV?"""

from __future__ import annotations

import argparse
from functools import partial

from .._valuetext import printable
from ..errors import PvaError
from ..network.addresses import Address, text
from . import options, session
from .finder import Finder
from .output import Output


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Search for PVs, over UDP and name servers, and show the server that answers first, and its GUID. "
        "Nothing is connected to."
    )
    parser.add_argument("pvs", nargs="+", metavar="PV")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options.add_wait(parser, "seconds to wait for an answer")
    options.add_noise(parser)


def run(arguments: argparse.Namespace) -> int:
    """Search; returns the exit status."""
    output = Output()
    status = 0
    missing: list[str] = []
    with Finder(arguments) as finder:

        def found(name: str, address: Address, guid: bytes) -> None:
            finder.queue.append((name, text(address), guid.hex()))

        for name in dict.fromkeys(arguments.pvs):
            try:
                finder.searcher.find(name, partial(found, name))
                missing.append(name)
            except PvaError as error:
                session.complain(name, error)
                status = 1
        for name, server, guid in finder.news(arguments.wait) if missing else ():
            if arguments.json:
                output.object({"pv": name, "server": server, "guid": guid})
            else:
                output.line(f"{output.paint(printable(name), 'pv')}  {server}  guid {guid}")
            missing.remove(name)
            if not missing:
                break
    for name in missing:
        session.complain(name, f"no server answered within {arguments.wait:g} s")
        status = 1
    return status

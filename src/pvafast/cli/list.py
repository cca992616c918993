"""`pvafast list`: the servers there are, the PVs of some, or what they are."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .._valuetext import printable
from ..errors import PvaError
from ..network.addresses import text
from . import options, session
from .finder import Finder
from .output import Output

if TYPE_CHECKING:
    from ..sync import Client


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Find servers; with servers, list their PVs, or show what they are."
    parser.add_argument("servers", nargs="*", type=options.server, metavar="HOST[:PORT]")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "-A", dest="passive", action="store_false", help="ask all servers, then listen to beacons (default)"
    )
    how.add_argument("-p", dest="passive", action="store_true", help="only listen to beacons")
    parser.add_argument("-i", dest="info", action="store_true", help="show what the servers named are")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options.add_wait(parser, "seconds to look for servers, or to wait for an answer")
    options.add_noise(parser)
    parser.set_defaults(passive=False, server=None)


def run(arguments: argparse.Namespace) -> int:
    """Find or list; returns the exit status."""
    if arguments.servers:
        return ask(arguments)
    if arguments.info:
        print("pvafast list: -i needs servers", file=sys.stderr)
        return 2
    return discover(arguments)


def discover(arguments: argparse.Namespace) -> int:
    """Show each server once; with -v all that becomes of them."""
    output = Output()
    found = set()
    with Finder(arguments) as finder:
        if arguments.passive:
            finder.searcher.beacons(finder.queue.append)
        else:
            finder.searcher.discover(finder.queue.append)
        if finder.deaf() and arguments.passive:
            return 1
        for event in finder.news(arguments.wait):
            server, guid = text(event.address), event.guid.hex()
            kind = getattr(event, "kind", "online")  # a beacon has none
            new = (server, guid) not in found
            found.add((server, guid))
            if arguments.json and (new or not arguments.passive):
                output.object(
                    {"server": server, "guid": guid, "event": kind, "protocol": event.protocol, "version": event.version}
                )  # fmt: skip
            elif arguments.verbose and (new or not arguments.passive):
                said = f"{printable(event.protocol)} version {event.version}"
                output.line(f"{output.paint(server, 'pv')}  {kind}  guid {guid}  {said}")
            elif new and kind != "offline":
                output.line(server)
    if not found:
        session.complain("", f"no server was found within {arguments.wait:g} s")
    return 0 if found else 1


def ask(arguments: argparse.Namespace) -> int:
    """Ask servers for their PVs, or what they are."""
    output = Output()
    status = 0
    show = info if arguments.info else names
    with session.client(arguments) as client:
        for server in arguments.servers:
            try:
                show(client, server, arguments, output)
            except PvaError as error:
                session.complain(server, error)
                status = 1
    return status


def info(client: Client, server: str, arguments: argparse.Namespace, output: Output) -> None:
    """Show what a server is."""
    value = client.server_info(server)
    found = {
        label: str(value[name])
        for name, label in (("version", "version"), ("implLang", "lang"))
        if name in value.type
    }
    if arguments.json:
        output.object({"server": server, **found})
    else:
        output.line(printable(" ".join([server, *(f'{label}="{text}"' for label, text in found.items())])))


def names(client: Client, server: str, arguments: argparse.Namespace, output: Output) -> None:
    """List the PVs of a server."""
    found = client.list_pvs(server)
    if arguments.json:
        output.object({"server": server, "pvs": found})
        return
    if arguments.verbose:
        output.line(f"# from {server}")
    for name in found:
        output.line(printable(name))

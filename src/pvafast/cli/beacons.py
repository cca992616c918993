"""`pvafast beacons`: what servers say of themselves, now and then."""

from __future__ import annotations

import argparse
from datetime import datetime

from .._valuetext import printable
from ..network.addresses import text
from . import options
from .finder import Finder
from .output import Output


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Show beacons as they come: when, the server's address and GUID, the number of the beacon, and how often the list of "
        "its PVs has changed. A server sends them often at first, later every three minutes or so."
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "-n", dest="count", type=options.count, default=0, metavar="N", help="stop after N beacons"
    )
    options.add_wait(parser, "stop after so many seconds", default=0.0)
    options.add_noise(parser)


def run(arguments: argparse.Namespace) -> int:
    """Listen; returns the exit status."""
    output = Output()
    changes: dict[bytes, int] = {}
    count = 0
    with Finder(arguments) as finder:
        finder.searcher.beacons(finder.queue.append)
        if finder.deaf():
            return 1
        for beacon in finder.news(arguments.wait):
            count += 1
            before = changes.get(beacon.guid)
            changes[beacon.guid] = beacon.change_count
            note = "new" if before is None else "PVs changed" if before != beacon.change_count else ""
            server, guid = text(beacon.address), beacon.guid.hex()
            if arguments.json:
                output.object(
                    {
                        "server": server, "guid": guid, "protocol": beacon.protocol, "version": beacon.version,
                        "sequence": beacon.sequence, "change_count": beacon.change_count, "sender": text(beacon.sender),
                    },
                    beacon.time,
                )  # fmt: skip
            else:
                moment = datetime.fromtimestamp(beacon.time // 10**9).astimezone()
                said = f"guid {guid}  {printable(beacon.protocol)}  beacon {beacon.sequence}  change {beacon.change_count}"
                words = [f"{moment:%Y-%m-%d %H:%M:%S}", output.paint(server, "pv"), said]
                output.line("  ".join([*words, output.paint(note, "note")] if note else words))
            if count == arguments.count:
                break
    return 0

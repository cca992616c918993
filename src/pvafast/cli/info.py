"""`pvafast info`: the types of PVs; or what this computer looks like to EPICS."""

from __future__ import annotations

import argparse
import platform
import sys

import numpy as np

from .._backend import BACKEND
from .._valuetext import printable_tree
from .._version import __version__
from ..errors import PvaError
from ..network import udp
from ..network.config import ClientConfig, ServerConfig
from ..network.interfaces import interface_addresses
from . import options, session
from .output import Output


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Show the types of PVs, as their servers describe them."
    parser.add_argument("pvs", nargs="*", metavar="PV")
    parser.add_argument(
        "--field", default="", help="the type of this field alone (pvxs servers tell the whole)"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, with the type on one line"
    )
    parser.add_argument(
        "-D", dest="host", action="store_true", help="show versions, interfaces and configuration"
    )
    options.add_connection(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask for the types; returns the exit status."""
    if arguments.host:
        session.noise(arguments)
        print("\n".join(host()))
        return 0
    if not arguments.pvs:
        print("pvafast info: name a PV, or -D", file=sys.stderr)
        return 2
    status = 0
    output = Output()
    with session.client(arguments) as client:
        for name in arguments.pvs:
            try:
                type = client.info(name, arguments.field)
            except PvaError as error:
                session.complain(name, error)
                status = 1
                continue
            if arguments.json:
                output.object({"pv": name, "type": type.format("short")})
            else:
                output.heading(name)
                print(printable_tree(str(type)))
    return status


def host() -> list[str]:
    """What somebody who is to help would ask first."""
    lines = [
        f"pvafast {__version__} ({BACKEND}), numpy {np.__version__}",
        f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}",
        "interfaces",
    ]
    for one in interface_addresses():
        broadcast = f" broadcast {one.broadcast}" if one.broadcast else ""
        lines.append(f"    {one.interface} {one.address}{broadcast}")
    client, server = ClientConfig.from_env(), ServerConfig.from_env()
    lines += ["client configuration", *(f"    {line}" for line in session.settings(client))]
    targets = udp.targets(
        client.addr_list, client.udp_endpoints() if client.auto_addr_list else (), client.broadcast_port
    )
    lines += ["searches go to", *(f"    {one}" for one in [*targets, *client.name_servers])]
    lines += ["server configuration", *(f"    {line}" for line in session.settings(server))]
    lines += ["a server would listen on", *(f"    {one}" for one in server.tcp_endpoints())]
    return lines

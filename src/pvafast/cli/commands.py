"""The commands of `pvafast`, and what they have in common: arguments, exit status, how they end early.

Each command's module has `describe(parser)`, which adds its arguments, and `run(arguments)`, which returns the exit status. Only the
module of the command that is called is imported: a `get` should not wait for what a `decode` needs.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

# In the order of the help.
COMMANDS: Final = {
    "demo": "a camera and its client on this computer: frame rate, losses, every frame checked",
    "get": "read PVs",
    "put": "write a PV",
    "monitor": "show updates of PVs as they come; their rates; or save them",
    "call": "call a PV (RPC)",
    "info": "show the types of PVs",
    "list": "find servers; list their PVs",
    "search": "find the servers of PVs",
    "beacons": "show what servers say of themselves",
    "serve": "serve PVs that a file describes",
    "decode": "decode captured traffic (pcap, pcapng)",
}
EPILOG: Final = "Exit status: 0 done; 1 failed: no answer, or an error; 2 wrong usage; 130 interrupted."


class _Version(argparse.Action):
    """--version: the backend is loaded for it alone."""

    def __call__(self, parser: argparse.ArgumentParser, *ignored: Any) -> None:
        from .._backend import BACKEND
        from .._version import __version__

        print(f"pvafast {__version__} ({'compiled' if BACKEND == 'c' else 'plain Python'})")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed, or done as far as it went, 2 wrong usage, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        arguments = parse(argv)
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A PV's name, or the arrow, may have no place in the terminal's encoding: escaped, it can still be read.
            sys.stdout.reconfigure(errors="backslashreplace")
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read the output has enough. The interpreter must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return status


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments, with the command's function as `run`."""
    parser = argparse.ArgumentParser(
        prog="pvafast", description="EPICS PVAccess on the command line.", epilog=EPILOG
    )
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, help in COMMANDS.items():
        of_command = commands.add_parser(name, help=help, epilog=EPILOG)
        if name in argv:
            module = import_module(f".{name}", __package__)
            of_command.set_defaults(run=module.run)
            module.describe(of_command)
    return parser.parse_args(argv)

"""The command line: `pvafast COMMAND ...`, one file a command."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from .._backend import BACKEND
from .._version import __version__
from . import decode

_TWINS = {"c": "compiled", "py": "plain Python"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 done as far as it went, 2 wrong usage or unreadable input."""
    parser = argparse.ArgumentParser(prog="pvafast", description="EPICS PVAccess: decode captured traffic.")
    parser.add_argument("--version", action="version", version=f"pvafast {__version__} ({_TWINS[BACKEND]})")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    decode.add(commands)
    arguments = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A PV's name, or the arrow, may have no place in the terminal's encoding: escaped, it can still be read.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read the output has enough. The interpreter must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return status

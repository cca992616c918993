"""The command line: `pvafast COMMAND ...`, one file a command; commands.py starts them."""

from .commands import main

__all__ = ["main"]

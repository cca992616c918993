"""The error paths of test_leaks.py, once each, on the compiled twin: what `make valgrind` runs, and how it is judged.

    python tests/errorpaths.py                          runs them
    python tests/errorpaths.py build/valgrind.xml       exits with 1 if memory that a function of pvafast asked for was lost

CPython itself loses some memory at its end; only a leak with a frame of pvafast's extension modules counts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

OURS = "/pvafast/_c/"


def run() -> None:
    """Every test of test_leaks.py, each round once."""
    import pytest

    import conftest
    import test_leaks

    errors = 0

    def once(work: Any) -> tuple[int, int]:
        nonlocal errors
        found: int = work()
        errors += found
        return 0, found

    test_leaks.grows = once
    backend: SimpleNamespace = conftest.load("c")
    for name, test in vars(test_leaks).items():
        if not name.startswith("test_"):
            continue
        marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
        given = [{"name": value} for mark in marks for value in mark.args[1]] or [{}]
        takes = test.__code__.co_varnames[: test.__code__.co_argcount]
        for arguments in given:
            test(**arguments, **({"backend": backend} if "backend" in takes else {}))
    print(f"{errors} errors met, pytest {pytest.__version__}")


def judge(report: Path) -> int:
    """The number of losses that are ours, each shown."""
    root = ElementTree.parse(report).getroot()
    if root.find("status[last()]/state") is None or not root.findall(".//errorcounts"):
        sys.exit(f"{report} is not whole")
    lost = [error for error in root.findall("error") if error.findtext("kind") == "Leak_DefinitelyLost"]
    ours = 0
    for error in lost:
        frames = [(frame.findtext("obj") or "", frame.findtext("fn") or "?") for frame in error.iter("frame")]
        if any(OURS in place for place, _ in frames):
            ours += 1
            print(error.findtext("xwhat/text"), *(f"    {fn}  {place}" for place, fn in frames), sep="\n")
    print(f"{len(lost)} definite losses, {ours} of them with a frame of pvafast")
    return ours


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(judge(Path(sys.argv[1])) > 0)
    run()

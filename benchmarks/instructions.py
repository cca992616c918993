"""Instructions instead of time: the works of a twin under callgrind. They are the same on a busy machine.

The worker calls getpgrp, which it needs for nothing else, before and after the runs that count; callgrind writes down what it
counted up to there whenever that happens, and begins anew.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from .children import Child, Failed
from .rows import Row


def counted(twin: str, rows: Iterable[Row]) -> Iterator[tuple[Row, float]]:
    """Instructions of one message. Raises Failed, without valgrind too."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise Failed("valgrind is not installed")
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        options = ["-q", "--tool=callgrind", "--dump-before=getpgrp", f"--callgrind-out-file={out}"]
        # Hashes and so the order of dictionaries are the same each time.
        child = Child(twin, [valgrind, *options], PYTHONHASHSEED="0", PYTHONMALLOC="pymalloc")
        try:
            for row in rows:
                per = child.prepare(row.module, row.function, row.args)
                if per is not None:
                    runs = child.ask(instructions=True)["runs"]
                    yield row, summary(newest(out)) / (runs * per)
        finally:
            child.close()


def newest(out: Path) -> Path:
    """The last of out.1, out.2..."""
    return max(out.parent.glob(f"{out.name}.*"), key=lambda path: int(path.suffix[1:]))


def summary(path: Path) -> int:
    """The instructions that a file of callgrind has counted."""
    for line in path.read_text().splitlines():
        word, _, number = line.partition(":")
        if word in ("summary", "totals"):
            return int(number)
    raise ValueError(f"{path} has no summary")

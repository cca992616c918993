"""Times the works of one subject in a process of its own: `python -m benchmarks.worker SUBJECT`.

One JSON object a line, a request and its answer:

{"module", "function", "args"}  prepare (and assert) a work   {"per"}: messages in one run; null: it cannot do this
{"seconds"}                     run it for about so long      {"ns"}: of one run
{"memory": true}                what it allocates             {"peak", "blocks", "bytes"}
{"instructions": true}          run it, for callgrind         {"runs"}
{"facts": true}                 versions                      {"python", ...}
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import sys
import tracemalloc
from collections.abc import Callable
from itertools import repeat
from time import perf_counter_ns
from typing import Any

from .subjects import TWINS, Work, prepare

KEPT = 2000  # messages, for the memory that they take
MOST = 64_000_000  # bytes; fewer messages where they would take more
COUNTED = 5  # runs, for instructions


def measure(work: Work, seconds: float) -> float:
    """Nanoseconds of one run, over runs that take about so long together. Garbage collection is on, as it is in programs."""
    run = work.run
    number = 1
    while True:
        start = perf_counter_ns()
        for _ in repeat(None, number):
            run()
        taken = perf_counter_ns() - start
        if taken > 1e9 * seconds / 2:
            return taken / number
        number = max(number * 2, int(number * 1e9 * seconds / max(taken, 1)))


def kept(make: Callable[[], object]) -> tuple[float, float]:
    """Blocks and bytes that what `make` returns takes while it is kept. The list that keeps is made before, and not counted."""
    tracemalloc.start()
    one = [make()]
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    one.clear()
    number = max(1, min(KEPT, MOST // max(size, 1)))
    held: list[object] = [make() for _ in range(number)]  # free lists are used up, caches filled
    more: list[object] = [None] * number
    tracemalloc.start()
    before = sys.getallocatedblocks(), tracemalloc.get_traced_memory()[0]
    for i in range(number):
        more[i] = make()
    after = sys.getallocatedblocks(), tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(held) == len(more)
    return (after[0] - before[0]) / number, (after[1] - before[1]) / number


class Timer:
    """The works of one subject, prepared by name."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.work: Work | None = None

    def prepare(self, module: str, function: str, args: list[Any]) -> dict[str, Any]:
        self.work = prepare(self.subject, module, function, args)
        return {"per": None if self.work is None else self.work.per}

    def time(self, seconds: float) -> dict[str, Any]:
        assert self.work is not None
        return {"ns": measure(self.work, seconds)}

    def memory(self) -> dict[str, float | None]:
        """peak: the most that a run has allocated at a time, of Python's and numpy's memory; what there was before is not
        counted. blocks, bytes: what is kept of one message; null where nothing is.
        """
        assert self.work is not None
        tracemalloc.start()
        self.work.run()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        blocks, size = kept(self.work.kept) if self.work.kept else (None, None)
        return {"peak": most, "blocks": blocks, "bytes": size}

    def instructions(self) -> dict[str, int]:
        """For a worker under callgrind, which writes down its counts whenever getpgrp is called: see instructions.py."""
        assert self.work is not None
        for _ in repeat(None, 3):  # caches are filled
            self.work.run()
        os.getpgrp()
        for _ in repeat(None, COUNTED):
            self.work.run()
        os.getpgrp()
        return {"runs": COUNTED}

    def facts(self) -> dict[str, Any]:
        found = {"python": platform.python_version(), "numpy": importlib.metadata.version("numpy")}
        if self.subject in TWINS:
            found["pvafast"] = importlib.import_module("pvafast").__version__
        else:
            found[self.subject] = importlib.metadata.version(self.subject)
        return found

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if "module" in request:
            return self.prepare(request["module"], request["function"], request["args"])
        if "seconds" in request:
            return self.time(request["seconds"])
        if "memory" in request:
            return self.memory()
        if "instructions" in request:
            return self.instructions()
        return self.facts()


def main() -> None:
    timer = Timer(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(timer.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

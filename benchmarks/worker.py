"""Times the works of one subject in a process of its own: `python -m benchmarks.worker SUBJECT`.

One JSON object a line, a request and its answer:

{"module", "function", "args"}  prepare (and assert) a work   {"per"}: messages in one run; null: it cannot do this
{"seconds"}                     run it for about so long      {"ns"}: of one run
{"allocated": update}           memory it takes               {"blocks", "bytes"}
{"peak": true}                  memory that a run takes       {"bytes"}
{"facts": true}                 versions                      {"python", ...}
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import sys
import tracemalloc
from itertools import repeat
from time import perf_counter_ns
from typing import Any

from .subjects import TWINS, Work, prepare

KEPT = 20_000  # updates, for the memory that they take


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

    def allocated(self, name: str) -> dict[str, float]:
        """Blocks and bytes that a decoded update takes while it is kept; `held` is made before, to be not counted."""
        work = prepare(self.subject, "bench_value", "decoded", [name])
        assert work is not None
        held: list[object] = [None] * KEPT
        for i in range(KEPT):  # free lists are used up, caches filled
            held[i] = work.run()
        tracemalloc.start()
        before = sys.getallocatedblocks(), tracemalloc.get_traced_memory()[0]
        more: list[object] = [None] * KEPT
        for i in range(KEPT):
            more[i] = work.run()
        after = sys.getallocatedblocks(), tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        size = sys.getsizeof(more)
        return {"blocks": (after[0] - before[0]) / KEPT, "bytes": (after[1] - before[1] - size) / KEPT}

    def peak(self) -> dict[str, int]:
        """The most that a run has allocated at a time, of Python's and numpy's memory; what there was before is not counted."""
        assert self.work is not None
        tracemalloc.start()
        self.work.run()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return {"bytes": most}

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
        if "peak" in request:
            return self.peak()
        if "allocated" in request:
            return self.allocated(request["allocated"])
        return self.facts()


def main() -> None:
    timer = Timer(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(timer.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

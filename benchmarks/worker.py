"""Times the works of one subject in a process of its own: `python -m benchmarks.worker SUBJECT`.

One JSON object a line, a request and its answer:

{"module", "function", "args"}  prepare (and assert) a work   {"per"}: messages in one run; null: it cannot do this
{"seconds"}                     run it for about so long      {"ns"}: of one run
{"facts": true}                 versions                      {"python", ...}
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import sys
from itertools import repeat
from time import perf_counter_ns
from typing import Any

from .subjects import TWINS, Work, prepare


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
        return self.facts()


def main() -> None:
    timer = Timer(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(timer.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

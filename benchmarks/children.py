"""Subjects in processes of their own: started here, asked line by line (see worker.py)."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import caproto_env
from .subjects import TWINS

ROOT = Path(__file__).parents[1]

# Seconds that children spent on the runs they were asked for one at a time.
spent = 0.0


def clock() -> float:
    """A timer for pytest-benchmark that stands still but while a child works."""
    return spent


class Child:
    """One subject's process."""

    def __init__(self, subject: str, under: Iterable[str] = (), **settings: str) -> None:
        """`under`: a command that runs the interpreter; `settings`: of its environment."""
        interpreter = sys.executable
        environment = os.environ | settings
        if subject == "caproto":
            found = caproto_env.python()
            if found is None:
                raise ImportError("no environment of caproto: python -m benchmarks.caproto_env makes it")
            interpreter = found
            environment.pop("PYTHONPATH", None)
        elif subject in TWINS:
            environment["PVAFAST_BACKEND"] = subject
        elif importlib.util.find_spec(subject) is None:
            raise ImportError(f"{subject} is not installed")
        environment.setdefault("OMP_NUM_THREADS", "1")  # one core each
        self.subject = subject
        self.process = subprocess.Popen(
            [*under, interpreter, "-m", "benchmarks.worker", subject],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.subject} failed; its error is above")
        return json.loads(line)  # type: ignore[no-any-return]

    def prepare(self, module: str, function: str, args: tuple[object, ...]) -> int | None:
        """How many messages one run takes; None for what the subject cannot do."""
        return self.ask(module=module, function=function, args=list(args)).get("per")

    def time(self, seconds: float) -> float:
        """Nanoseconds of one run."""
        return float(self.ask(seconds=seconds)["ns"])

    def once(self) -> None:
        """Advance the clock by the time of one run, as measured over some."""
        global spent
        spent += self.time(0.01) / 1e9

    def facts(self) -> dict[str, str]:
        return self.ask(facts=True)

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait(30)
        self.process.stdout.close()  # type: ignore[union-attr]

"""Subjects in processes of their own: started here, asked line by line (see worker.py)."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import caproto_env
from .subjects import TWINS

ROOT = Path(__file__).parents[1]
LONGEST = 600.0  # seconds: who does not answer in that time has failed; under valgrind, ten times that

# Seconds that children spent on the runs they were asked for one at a time.
spent = 0.0


def clock() -> float:
    """A timer for pytest-benchmark that stands still but while a child works."""
    return spent


class Failed(Exception):
    """A subject that is there, and does not do what it was asked for."""


def without(what: str, why: object) -> None:
    print(f"without {what}: {why}", file=sys.stderr)


def installed(subject: str) -> bool:
    return subject in TWINS or importlib.util.find_spec(subject) is not None


def in_turns(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each has measured, by rounds in which all take turns. Who fails is named on standard error, and has nothing."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    failed = set()
    for _ in range(rounds):
        for name, measure in measures.items():
            if name not in failed:
                try:
                    found[name].append(measure())
                except Failed as error:
                    without(name, error)
                    failed.add(name)
                    found[name].clear()
    return found


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
        elif not installed(subject):
            raise ImportError(f"{subject} is not installed")
        environment.setdefault("OMP_NUM_THREADS", "1")  # one core each
        self.subject = subject
        self.longest = 10 * LONGEST if under else LONGEST
        command = [*under, interpreter, "-m", "benchmarks.worker", subject]
        try:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise ImportError(f"{interpreter}: {error.strerror}") from None

    def ask(self, **request: Any) -> dict[str, Any]:
        """Raises Failed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        late = threading.Timer(self.longest, self.process.kill)
        late.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        finally:
            late.cancel()
        try:
            return json.loads(line)  # type: ignore[no-any-return]
        except ValueError:
            raise Failed(f"it answered {line!r}" if line else "it stopped; its error is above") from None

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
        try:
            self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

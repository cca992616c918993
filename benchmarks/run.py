"""Every subject does the same work in turns, each in its own process: figures, for a result file.

A figure is what one subject needed for one row: {"group", "text", "goal", "x", "subject", "ns": one message, of each round;
"peak": bytes of a run; "blocks", "bytes": kept of a message; "instructions"}; what was not measured is left out.

The file is written after each group. A subject that is not there, or fails, is named on standard error and left out.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import caproto_env
from .children import ROOT, Child, Failed, without
from .instructions import counted
from .rows import GROUPS, Row
from .subjects import SUBJECTS, works

Figure = dict[str, Any]
FORMAT = 1
PEERS = ("p4p", "pvapy", "spvirit", "imagecodecs", "bitshuffle")
# Groups whose works never leave the codec: their instructions are counted.
CODEC = ("decode", "encode", "columns", "sizes", "fields")
LIVE_ROUNDS = 5  # at the most, of live_*.py: theirs are long


def processor() -> str:
    try:
        for text in Path("/proc/cpuinfo").read_text().splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """What is measured: the commit, and whether the sources differ from it."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "no checkout"
    return found.stdout.strip()


def machine() -> dict[str, Any]:
    """Where and when."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions(children: Iterable[Child]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    for child in children:
        found = child.facts() | found
    return {"python": platform.python_version()} | found


def rounded(number: float) -> float:
    return float(f"{number:.4g}")


def shown(figures: list[Figure]) -> str:
    return ", ".join(f"{figure['subject']} {min(figure['ns']):,.4g} ns" for figure in figures)


class Run:
    """One run: its subjects, its result, and what failed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.groups = options.groups or list(GROUPS)
        self.children: dict[str, Child] = {}
        self.figures: list[Figure] = []
        self.failed: list[str] = []
        self.result: dict[str, Any] = {
            "format": FORMAT,
            **machine(),
            "versions": {},
            "rounds": options.rounds,
            "whole": False,  # all rows and subjects, of the groups that were asked for
            "failed": self.failed,
            "figures": self.figures,
        }

    def __call__(self) -> dict[str, Any]:
        """Measure; returns the result, which is in the file, too."""
        self.start()
        try:
            self.result["versions"] = versions(self.children.values())
            for group in self.groups:
                for row in GROUPS[group]:
                    if self.options.only in row.text:
                        self.measure(group, row)
                self.save()
        finally:
            for child in self.children.values():
                child.close()
        if self.options.instructions is not None:
            for twin in self.options.instructions or ["c"]:
                self.count(twin)
                self.save()
        if "live" in self.groups and not self.options.only:
            self.live()
        there = all(name in self.children for name in SUBJECTS if works(name))
        self.result["whole"] = there and not self.options.only and not self.failed
        self.save()
        return self.result

    def save(self) -> None:
        save(self.result, self.options.output)

    def fail(self, what: str, error: Exception) -> None:
        """It is left out; `what` begins with the subject."""
        self.failed.append(f"{what}: {error}")
        without(what, error)

    def start(self) -> None:
        for name in self.options.subjects:
            if works(name):
                try:
                    if name == "caproto":
                        caproto_env.make()
                    self.children[name] = child = Child(name)
                except ImportError as error:
                    without(name, error)
                    continue
                try:
                    child.facts()
                except Failed as error:
                    child.close()
                    del self.children[name]
                    self.fail(name, error)

    def measure(self, group: str, row: Row) -> None:
        """A figure of each subject that can do the work. Whoever fails has none, and begins anew with the next row."""
        figures: dict[str, Figure] = {}
        per: dict[str, int] = {}

        def ask(name: str, **request: Any) -> dict[str, Any] | None:
            """The subject's answer; None where it failed."""
            try:
                return self.children[name].ask(**request)
            except Failed as error:
                figures.pop(name, None)
                self.fail(f"{name}, {row.text}", error)
                self.children[name].close()
                self.children[name] = Child(name)
                return None

        for name in self.children:
            if not row.subjects or name in row.subjects:
                answer = ask(name, module=row.module, function=row.function, args=list(row.args))
                if answer and answer["per"] is not None:
                    per[name] = answer["per"]
                    head = {"group": group, "text": row.text, "goal": row.goal, "x": row.x, "subject": name}
                    figures[name] = {key: value for key, value in head.items() if value is not None}
                    figures[name]["ns"] = []
        for _ in range(self.options.rounds):
            for name, figure in list(figures.items()):
                if answer := ask(name, seconds=self.options.seconds):
                    figure["ns"].append(rounded(answer["ns"] / per[name]))
        for name, figure in list(figures.items()):
            if answer := ask(name, memory=True):
                figure |= {key: rounded(value) for key, value in answer.items() if value is not None}
        self.take(row.text, figures.values())

    def take(self, text: str, figures: Iterable[Figure]) -> None:
        found = list(figures)
        print(f"{text}: {shown(found)}", file=sys.stderr)
        self.figures += found

    def count(self, twin: str) -> None:
        """Instructions, into the figures of a twin."""
        figures = {figure["text"]: figure for figure in self.figures if figure["subject"] == twin}
        rows = [
            row for group in self.groups if group in CODEC for row in GROUPS[group] if row.text in figures
        ]
        try:
            for row, number in counted(twin, rows):
                print(f"{row.text}: {twin} {number:,.0f} instructions", file=sys.stderr)
                figures[row.text]["instructions"] = rounded(number)
        except Failed as error:
            self.fail(f"{twin}, instructions", error)

    def live(self) -> None:
        """The figures of live_*.py. Each has GROUPS, and figures(group, rounds, subjects): text, subject, ns of one message by
        rounds, or none where the subject failed."""
        subjects = {"socket", *self.children}
        for path in sorted(Path(__file__).parent.glob("live_*.py")):
            module = importlib.import_module(f"benchmarks.{path.stem}")
            for group in getattr(module, "GROUPS", ()):
                try:
                    found = list(module.figures(group, min(self.options.rounds, LIVE_ROUNDS), subjects))
                except ImportError as error:
                    without(group, error)
                except Failed as error:
                    self.fail(group, error)
                else:
                    for text, subject, ns in found:
                        if ns:
                            head = {"group": "live", "text": text, "subject": subject}
                            self.take(text, [head | {"ns": [rounded(one) for one in ns]}])
                        else:
                            self.failed.append(f"{subject}, {text}")
                self.save()


def save(result: dict[str, Any], path: Path) -> None:
    """JSON, a line a figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({key: value for key, value in result.items() if key != "figures"}, indent=1)
    lines = ",\n".join("  " + json.dumps(figure, ensure_ascii=False) for figure in result["figures"])
    path.write_text(f'{head[:-2]},\n "figures": [\n{lines}\n ]\n}}\n')


def load(path: Path) -> dict[str, Any]:
    """Raises ValueError for what is no result file."""
    result = json.loads(path.read_text())
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise ValueError(f"{path} is no result of `python -m benchmarks run`")
    return result

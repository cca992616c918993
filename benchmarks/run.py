"""Every subject does the same work in turns, each in its own process: figures, for a result file.

A figure is what one subject needed for one row: {"group", "text", "goal", "x", "subject", "ns": one message, of each round;
"peak": bytes of a run; "blocks", "bytes": kept of a message; "instructions"}; what was not measured is left out.
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
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import caproto_env
from .children import ROOT, Child
from .instructions import counted
from .rows import GROUPS, Row
from .subjects import SUBJECTS, works

Figure = dict[str, Any]
FORMAT = 1
PEERS = ("p4p", "pvapy", "spvirit", "imagecodecs", "bitshuffle")
# Groups whose works never leave the codec: their instructions are counted.
CODEC = ("decode", "encode", "columns", "sizes", "fields")


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


def versions(children: dict[str, Child]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    for child in children.values():
        found = child.facts() | found
    return found


def start(names: Iterable[str]) -> dict[str, Child]:
    children = {}
    for name in names:
        try:
            children[name] = Child(name)
            children[name].facts()
        except (ImportError, RuntimeError) as error:
            children.pop(name, None)
            print(f"without {name}: {error}", file=sys.stderr)
    return children


def measured(children: dict[str, Child], group: str, row: Row, rounds: int, seconds: float) -> list[Figure]:
    """A figure of each subject that can do the work."""
    found: list[tuple[Child, int, Figure]] = []
    for name, child in children.items():
        if row.subjects and name not in row.subjects:
            continue
        per = child.prepare(row.module, row.function, row.args)
        if per is not None:
            figure = {
                "group": group,
                "text": row.text,
                "goal": row.goal,
                "x": row.x,
                "subject": name,
                "ns": [],
            }
            found.append((child, per, {key: value for key, value in figure.items() if value is not None}))
    for _ in range(rounds):
        for child, per, figure in found:
            figure["ns"].append(rounded(child.time(seconds) / per))
    for child, _, figure in found:
        memory = child.ask(memory=True)
        figure |= {key: rounded(value) for key, value in memory.items() if value is not None}
    return [figure for _, _, figure in found]


def rounded(number: float) -> float:
    return float(f"{number:.4g}")


def live(rounds: int) -> Iterator[Figure]:
    """Those of live_*.py: each has figures(rounds), of (text, subject, ns of one message by rounds)."""
    for path in sorted(Path(__file__).parent.glob("live_*.py")):
        module = importlib.import_module(f"benchmarks.{path.stem}")
        if hasattr(module, "figures"):
            for text, subject, ns in module.figures(rounds):
                yield {
                    "group": "live",
                    "text": text,
                    "subject": subject,
                    "ns": [rounded(one) for one in ns],
                }


def shown(figures: list[Figure]) -> str:
    return ", ".join(f"{figure['subject']} {min(figure['ns']):,.4g} ns" for figure in figures)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The result."""
    groups = options.groups or list(GROUPS)
    if "caproto" in options.subjects:
        caproto_env.make()
    facts = machine()
    children = start([name for name in options.subjects if works(name)])
    figures: list[Figure] = []
    try:
        for group in groups:
            for row in GROUPS[group]:
                if options.only in row.text:
                    found = measured(children, group, row, options.rounds, options.seconds)
                    print(f"{row.text}: {shown(found)}", file=sys.stderr)
                    figures += found
        facts["versions"] = versions(children)
    finally:
        for child in children.values():
            child.close()
    if options.instructions:
        rows = [
            row for group in groups if group in CODEC for row in GROUPS[group] if options.only in row.text
        ]
        for row, number in counted(rows):
            print(f"{row.text}: {number:,.0f} instructions", file=sys.stderr)
            for figure in figures:
                if (figure["text"], figure["subject"]) == (row.text, "c"):
                    figure["instructions"] = rounded(number)
    if "live" in groups and not options.only:
        for figure in live(min(options.rounds, 5)):
            print(f"{figure['text']}: {shown([figure])}", file=sys.stderr)
            figures.append(figure)
    return {
        "format": FORMAT,
        **facts,
        "rounds": options.rounds,
        "whole": not options.only and all(name in children for name in SUBJECTS if works(name)),
        "figures": figures,
    }


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

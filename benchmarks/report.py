"""The comparison: every subject does the same work in turns, in one run, each in its own process.

`python -m benchmarks` prints the tables as Markdown, and writes them between the markers in README.md where they stand.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from . import caproto_env, frame_report
from .children import ROOT, Child
from .subjects import SUBJECTS

BEGIN = "<!-- {}:begin -->"
END = "<!-- {}:end -->"
# What the report is made of, each between markers of its name: `python -m benchmarks frames` makes one part of it.
PARTS = ("benchmarks", "frames")


class Row(NamedTuple):
    text: str
    goal: int | None  # ns, of the compiled twin
    module: str
    function: str
    args: tuple[object, ...] = ()


ROWS = [
    Row("decode: NTScalar, value + time changed", 240, "bench_value", "decode_update", ("nts.vt",)),
    Row("decode: NTScalar, value + alarm + time", 300, "bench_value", "decode_update", ("nts.full",)),
    Row("decode: small NTScalar, the same", 280, "bench_value", "decode_update", ("ntsmin.full",)),
    Row("decode: NTScalar, every field", 650, "bench_value", "decode_update", ("nts.all",)),
    Row("the whole way: an update of a chunk of 1,000", 1000, "bench_connection", "updates_in_a_chunk"),
    Row("into columns: an update of a batch of 1,000, `add`", 45, "bench_columns", "value_and_time"),
    Row("a capture summed up: an update in a packet of its own", None, "bench_packets", "summed"),
    Row("a million updates, framing and columns: an update", None, "bench_columns", "stream_of_many"),
    Row("losses accounted: an update, `add`", None, "bench_losses", "frames"),
    Row("decode: 1,000 doubles", 400, "bench_value", "decode_update", ("ntsa.1000",)),
    Row("decode: 1,000 strings", 45_000, "bench_value", "decode_update", ("ntsas.1000",)),
    Row(
        "decode: 1,000,000 doubles, the other byte order",
        None,
        "bench_array",
        "unpack",
        ("double", 1_000_000, "big"),
    ),
    Row("decode: NTTable, 4 columns of 100", 2500, "bench_value", "decode_update", ("tbl.upd",)),
    Row("NTNDArray → shaped array, 512×512", 3500, "bench_value", "decode_frame", ("nd.512",)),
    Row("NTNDArray → shaped array, 2048×2048", 3500, "bench_value", "decode_frame", ("nd.2048",)),
    Row(
        "decode: NTScalar, every field, projected to `value`",
        None,
        "bench_projection",
        "some_fields",
        ("nts.all", "value"),
    ),
    Row("decode: 27,000 structures of 6 numbers", None, "bench_projection", "rows_whole", ("numbers",)),
    Row("the same, projected to 6 columns", None, "bench_projection", "rows_to_columns", ("numbers",)),
    Row("type first met: NTScalar", 2100, "bench_introspection", "first_met", ("nts.vt",)),
    Row("the same, nothing in it known", 2100, "bench_introspection", "stranger", ("nts.vt",)),
    Row("type first met: NTNDArray", 3800, "bench_introspection", "first_met", ("nd.512",)),
    Row("the same, nothing in it known", 3800, "bench_introspection", "stranger", ("nd.512",)),
    Row("type met again: a look-up in the cache", 400, "bench_introspection", "met_again", ("nts.vt",)),
    Row("encode: NTScalar, value + alarm + time", 200, "bench_value", "encode_update", ("nts.full",)),
    Row("encode: small NTScalar, the same", None, "bench_value", "encode_update", ("ntsmin.full",)),
    Row("encode: an array of 1,000 doubles", None, "bench_array", "pack", ("double", 1000, "little")),
    Row('`v["value"]`', 40, "bench_value", "access", ('v["value"]',)),
    Row("`v.value`", 60, "bench_value", "access", ("v.value",)),
    Row("framing: a message of a chunk of 1,000", None, "bench_framing", "in_a_chunk"),
    Row("framing: a message out", None, "bench_framing", "out"),
    Row("BitSet decoded", None, "bench_bitset", "decode", ("nts.all",)),
    Row("BitSet expanded to 24 leaves", None, "bench_bitset", "expand", ("nts.all",)),
    Row("a Size, `Reader.size()`", None, "bench_buffer", "read_sizes", ("short",)),
    Row("a Size inside of a value (an empty string)", None, "bench_buffer", "empty_strings"),
]

Times = dict[str, float | None]


def compare(children: dict[str, Child], row: Row, rounds: int, seconds: float) -> Times:
    """ns of one message by subject, the median of the rounds; None for what a subject cannot do."""
    per = {}
    for name, child in children.items():
        found = child.prepare(row.module, row.function, row.args)
        if found is not None:
            per[name] = found
    taken: dict[str, list[float]] = {name: [] for name in per}
    for _ in range(rounds):
        for name, count in per.items():
            taken[name].append(children[name].time(seconds) / count)
    return {name: median(taken[name]) if name in taken else None for name in children}


def number(ns: float | None) -> str:
    if ns is None:
        return "–"
    if ns < 100:
        return f"{ns:.1f}"
    return f"{float(f'{ns:.3g}'):,.0f}"


def ratio(slow: float | None, fast: float | None) -> str:
    if slow is None or fast is None:
        return "–"
    return f"{slow / fast:.2g}" if slow < 10 * fast else f"{slow / fast:,.0f}"


def line(row: Row, times: Times) -> str:
    ours, theirs = times.get("c"), times.get("py")
    goal = "" if row.goal is None else f"≤ {row.goal:,}"
    if row.goal is not None and ours is not None and ours > row.goal:
        goal = f"**{goal}**"
    cells = [
        row.text,
        goal,
        *(number(times.get(name)) for name in SUBJECTS),
        ratio(theirs, ours),
        ratio(times.get("spvirit"), ours),
        ratio(times.get("caproto"), theirs),
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = [
    "| ns | goal | compiled | fallback | spvirit | caproto | fallback ÷ compiled | spvirit ÷ compiled | caproto ÷ fallback |",
    "|---|---|---|---|---|---|---|---|---|",
]


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


def conditions(facts: dict[str, dict[str, str]]) -> str:
    ours = next(iter(facts.values()))
    others = [f"{name} {found[name]}" for name, found in facts.items() if name in found]
    return (
        f"{date.today().isoformat()}, commit {commit()}, {processor()}, {platform.system()} {platform.machine()}, "
        f"Python {ours['python']}, numpy {ours['numpy']}, pvafast {ours['pvafast']}, {', '.join(others)}."
    )


def explained(rounds: int) -> str:
    return (
        "Messages: tests/data/bench_messages. "
        f"ns for one message (type, Size...), called from Python; medians of {rounds} rounds in which all took turns. "
        "A goal in bold was missed. spvirit gets the data as that of a full value, and makes dicts and lists of it."
    )


def allocations(children: dict[str, Child]) -> list[str]:
    """What one decoded update of an NTScalar allocates and keeps."""
    out = []
    for name, label in (("c", "compiled"), ("py", "fallback")):
        if name in children:
            found = children[name].ask(allocated="nts.full")
            out.append(f"{label} {found['blocks']:.0f} blocks, {found['bytes']:.0f} bytes")
    return [
        f"Memory that an update of value + alarm + time allocates, and its Value keeps: {'; '.join(out)}."
    ]


def facts_of(children: dict[str, Child]) -> dict[str, dict[str, str]]:
    return {name: child.facts() for name, child in children.items()}


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


def write(part: str, report: str, path: Path) -> bool:
    """Put a part of the report between its markers in a file; False where there are none."""
    text = path.read_text() if path.exists() else ""
    before, begin, rest = text.partition(BEGIN.format(part))
    _, end, after = rest.partition(END.format(part))
    if not begin or not end:
        return False
    path.write_text(f"{before}{begin}\n{report}\n{end}{after}")
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all of them")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.03, help="of one round of one subject")
    parser.add_argument("--only", default="", help="rows of the first part whose text contains this")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=SUBJECTS)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--print", action="store_true", help="leave README.md as it is")
    options = parser.parse_args(arguments)
    parts = options.parts or PARTS
    if not set(parts) <= set(PARTS):
        parser.error(f"a part is one of {', '.join(PARTS)}")
    if "caproto" in options.subjects:
        caproto_env.make()
    children = start(options.subjects)
    reports = {}
    figures: list[dict[str, Any]] = []
    if "benchmarks" in parts:
        lines = [*HEAD]
        for row in ROWS:
            if options.only in row.text:
                times = compare(children, row, options.rounds, options.seconds)
                lines.append(line(row, times))
                print(lines[-1], file=sys.stderr)
                figures.append({**row._asdict(), "ns": times})
        lines += ["", *allocations(children), ""]
        reports["benchmarks"] = "\n".join(
            [*lines, f"{conditions(facts_of(children))} {explained(options.rounds)}"]
        )
    whole = not options.only and all(name in children for name in SUBJECTS)
    if "frames" in parts:
        children |= start(frame_report.MORE)
        reports["frames"] = "\n".join([*frame_report.lines(children), "", conditions(facts_of(children))])
    facts = facts_of(children)
    for child in children.values():
        child.close()
    for part, report in reports.items():
        print(report)
        if whole and not options.print:
            found = write(part, report, ROOT / "README.md")
            print("written to README.md" if found else "README.md has no markers for it", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps({"facts": facts, "rows": figures}, indent=1))
    return 0

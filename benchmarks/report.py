"""A result as tables (Markdown) and charts (SVG).

Tables go between the markers of their names in README.md and docs/benchmarks.md, charts into docs/charts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

from . import charts
from .children import ROOT

BEGIN = "<!-- {}:begin -->"
END = "<!-- {}:end -->"
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
CHARTS = ROOT / "docs" / "charts"

NAMES = {"c": "compiled", "py": "fallback"}
LIVE = {"c": "pvafast", "py": "pvafast's fallback", "socket": "bare socket"}
COLUMNS = ("c", "py", "spvirit", "caproto")  # of the tables; others are told below
HEAD = [
    "| ns | goal | compiled | fallback | spvirit | caproto | fallback ÷ compiled | spvirit ÷ compiled | caproto ÷ fallback |",
    "|---|---|---|---|---|---|---|---|---|",
]
# Of the chart of ratios: label, text of the row.
RATIOS = {
    "update: value + time": "decode: NTScalar, value + time changed",
    "update: every field of an NTScalar": "decode: NTScalar, every field",
    "update: 1,000 doubles": "decode: 1,000 doubles",
    "update: 1,000 strings": "decode: 1,000 strings",
    "update: NTTable, 4 columns of 100": "decode: NTTable, 4 columns of 100",
    "camera frame 512×512 → array": "NTNDArray → shaped array, 512×512",
    "1,000,000 doubles, byte order swapped": "decode: 1,000,000 doubles, the other byte order",
    "type met, known parts": "type first met: NTScalar",
    "type met, nothing known": "the same, nothing in it known",
    "small NTScalar encoded": "encode: small NTScalar, the same",
}

Figure = dict[str, Any]
Row = dict[str, Figure]  # by subject


def rows_of(result: dict[str, Any], *groups: str) -> dict[str, Row]:
    """The figures of the groups by text, and of these by subject."""
    found: dict[str, Row] = {}
    for figure in result["figures"]:
        if figure["group"] in groups:
            found.setdefault(figure["text"], {})[figure["subject"]] = figure
    return found


def ns(row: Row, subject: str) -> float | None:
    """The fastest of the rounds: what disturbs a round makes it slower, never faster."""
    return min(row[subject]["ns"]) if subject in row else None


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


def conditions(result: dict[str, Any]) -> str:
    found = dict(result["versions"])
    python = found.pop("python")
    others = ", ".join(f"{name} {version}" for name, version in found.items())
    load = f", load {result['load'][0]} at the start" if result.get("load") else ""
    return (
        f"{result['date'][:10]}, commit {result['commit']}, {result['processor']}, {result['cores']} cores{load}, "
        f"{result['system']}, Python {python}, {others}."
    )


# --- tables ---------------------------------------------------------------------------------------------------------------


def line(text: str, row: Row) -> str:
    ours, theirs = ns(row, "c"), ns(row, "py")
    goal = next((figure["goal"] for figure in row.values() if "goal" in figure), None)
    told = "" if goal is None else f"≤ {goal:,}"
    if goal is not None and ours is not None and ours > goal:
        told = f"**{told}**"
    cells = [
        text,
        told,
        *(number(ns(row, name)) for name in COLUMNS),
        ratio(theirs, ours),
        ratio(ns(row, "spvirit"), ours),
        ratio(ns(row, "caproto"), theirs),
    ]
    return "| " + " | ".join(cells) + " |"


def codec_table(result: dict[str, Any]) -> Iterable[str]:
    rows = rows_of(result, "decode", "encode", "columns")
    yield from HEAD
    for text, row in rows.items():
        yield line(text, row)
    others = [
        f"{text}: {name} {number(ns(row, name))} ns"
        for text, row in rows.items()
        for name in row
        if name not in COLUMNS
    ]
    if others:
        yield ""
        yield f"Others: {'; '.join(others)}."
    yield ""
    full = rows.get("decode: NTScalar, value + alarm + time", {})
    kept = [
        f"{NAMES[name]} {full[name]['blocks']:.0f} blocks, {full[name]['bytes']:.0f} bytes"
        for name in NAMES
        if "blocks" in full.get(name, {})
    ]
    if kept:
        yield f"Memory that an update of value + alarm + time allocates, and its Value keeps: {'; '.join(kept)}."
        yield ""
    yield (
        f"{conditions(result)} Messages: tests/data/bench_messages. "
        f"ns for one message (type, Size...), called from Python; the fastest of {result['rounds']} rounds in which all took turns. "
        "A goal in bold was missed. spvirit gets the data as that of a full value, and makes dicts and lists of it."
    )


def frames_table(result: dict[str, Any]) -> Iterable[str]:
    yield "| frames of uint16 | messages/s | GB/s | time ÷ memcpy | peak MB |"
    yield "|---|---|---|---|---|"
    rows = rows_of(result, "frames")
    for text, row in rows.items():
        side, _, way = text.partition(": ")
        copied = ns(rows.get(f"{side}: memcpy of the same bytes", {}), "c")
        size = 2 * int(side.split("×")[0]) ** 2
        for name, figure in row.items():
            time = min(figure["ns"])
            who = "" if way.startswith("memcpy") else f"{NAMES.get(name, name)}, "
            peak = f"{figure['peak'] / 1e6:.1f}" if who and "peak" in figure else "–"
            rate = f"{float(f'{1e9 / time:.3g}'):,.0f}"
            against = f"{time / copied:.2f}" if copied else "–"
            yield f"| {side}: {who}{way} | {rate} | {size / time:.2f} | {against} | {peak} |"
    yield ""
    yield (
        "10,000 frames of 512×512, 100 of 2048×2048 in a run (spvirit and caproto: one): "
        "what a socket would write is copied to where the connection receives, then framing, message, value, Frame, array. "
        "memcpy: the same copies alone, into 4 buffers in turn. "
        "Peak: the most that a run has allocated at a time; the pool's 4 buffers were there before. "
        "spvirit and caproto have the payload in memory already."
    )
    for text, row in rows_of(result, "access").items():
        told = [f"{NAMES.get(name, name)} {number(ns(row, name))} ns" for name in row]
        yield ""
        yield f"{text[0].upper()}{text[1:]}: {', '.join(told)}."
    rows = rows_of(result, "decompress")
    if rows:
        yield ""
        yield "| decompression, GB/s of pixels | pvafast | the library's own call | ratio |"
        yield "|---|---|---|---|"
        for codec in dict.fromkeys(text.partition(": ")[0] for text in rows):
            ours, theirs = (
                ns(rows.get(f"{codec}: {way}", {}), "c") for way in ("pvafast", "the library's own call")
            )
            if ours is not None:
                own = "–" if theirs is None else f"{1 / theirs:.2f}"
                against = "–" if theirs is None else f"{theirs / ours:.2f}"
                yield f"| {codec} | {1 / ours:.2f} | {own} | {against} |"
        yield ""
        yield (
            "A pattern of few photons, 2048×2048 uint16 (jpeg: uint8). The library is imagecodecs, for bslz4 the package bitshuffle "
            "(OMP_NUM_THREADS=1); lz4hdf5 beside LZ4 in one block."
        )
    yield ""
    yield conditions(result)


def memory_table(result: dict[str, Any]) -> Iterable[str]:
    """What is kept of a decoded message."""
    yield "| blocks, bytes kept | " + " | ".join(NAMES.get(name, name) for name in COLUMNS) + " |"
    yield "|---" * (1 + len(COLUMNS)) + "|"
    for text, row in rows_of(result, "decode").items():
        cells = [
            f"{row[name]['blocks']:,.0f}, {row[name]['bytes']:,.0f}" if "blocks" in row.get(name, {}) else "–"
            for name in COLUMNS
        ]
        if set(cells) != {"–"}:
            yield f"| {text} | " + " | ".join(cells) + " |"


def live_table(result: dict[str, Any]) -> Iterable[str]:
    """A second, and beside the first of each kind. Medians: of two processes, either can make a round fast by chance, too."""
    yield "| on 127.0.0.1 | | a second | µs each | rate ÷ the first |"
    yield "|---|---|---|---|---|"
    first: dict[str, float] = {}
    for text, row in rows_of(result, "live").items():
        kind, _, way = text.partition(": ")
        for name, figure in row.items():
            time = median(figure["ns"])
            first.setdefault(kind, time)
            who = ", ".join(filter(None, [LIVE.get(name, name), way]))
            rate = "–" if "CPU" in kind else f"{float(f'{1e9 / time:.3g}'):,.0f}"
            yield f"| {kind} | {who} | {rate} | {float(f'{time / 1000:.3g}'):,.6g} | {first[kind] / time:.2g} |"
    yield ""
    yield (
        "Server and client are processes of their own. Frames and scalar updates to clients come from a socket that replays recorded "
        "messages; gets, where it does not say pvafast's server, and 1,000 PVs at 10 Hz (CPU time of an update) from a p4p server; "
        'what servers send is counted by a bare socket. Rows that begin with "one" are small works (benchmarks/bench_live.py): to '
        "subscribe, or to wait until a server is rid of its posts, is in their time. "
        f"The median of {result['rounds']} rounds of these, of {min(result['rounds'], 5)} of the others."
    )
    yield ""
    yield conditions(result)


# By the names of their markers; and the groups whose figures are in them.
TABLES: dict[str, tuple[Callable[[dict[str, Any]], Iterable[str]], tuple[str, ...]]] = {
    "benchmarks": (codec_table, ("decode", "encode", "columns")),
    "frames": (frames_table, ("frames", "access", "decompress")),
    "memory": (memory_table, ("decode",)),
    "live": (live_table, ("live",)),
}


def tables(result: dict[str, Any], *, whole: bool = False) -> dict[str, str]:
    """By the names of their markers: those for which there are figures; `whole`: of all their groups."""
    groups = {figure["group"] for figure in result["figures"]}
    enough = all if whole else any
    return {
        name: "\n".join(make(result))
        for name, (make, of) in TABLES.items()
        if enough(g in groups for g in of)
    }


# --- charts ---------------------------------------------------------------------------------------------------------------


def series(result: dict[str, Any], group: str) -> dict[str, list[tuple[float, float]]]:
    """(x, ns) of each subject."""
    found: dict[str, list[tuple[float, float]]] = {}
    for figure in result["figures"]:
        if figure["group"] == group:
            name = NAMES.get(figure["subject"], figure["subject"])
            found.setdefault(name, []).append((figure["x"], min(figure["ns"])))
    return found


def ratio_chart(result: dict[str, Any]) -> str:
    rows = rows_of(result, "decode", "encode")
    found = []
    for label, text in RATIOS.items():
        row = rows.get(text, {})
        ours = ns(row, "c")
        if ours is not None:
            others = {NAMES.get(name, name): (ns(row, name) or ours) / ours for name in row if name != "c"}
            found.append((label, {name: value for name, value in others.items() if name in charts.COLOURS}))
    return charts.bars("Time ÷ that of the compiled twin", found)


def size_chart(result: dict[str, Any]) -> str:
    rates = {
        name: [(x, 1e9 / time) for x, time in points] for name, points in series(result, "sizes").items()
    }
    return charts.lines(
        "An array of doubles decoded", "bytes of the array in a message", "messages a second", rates
    )


def field_chart(result: dict[str, Any]) -> str:
    return charts.lines(
        "A structure of doubles decoded", "fields", "ns for a message", series(result, "fields")
    )


def thread_chart(result: dict[str, Any]) -> str:
    found: dict[str, list[tuple[float, float]]] = {}
    for figure in result["figures"]:
        if figure["group"] == "threads":
            kind = figure["text"].rpartition(",")[0]
            name = f"{kind}, {NAMES[figure['subject']]}"
            found.setdefault(name, []).append((figure["x"], min(figure["ns"])))
    faster = {name: [(x, points[0][1] / time) for x, time in points] for name, points in found.items()}
    return charts.lines(
        f"Threads on {result['cores']} cores, Python {result['versions']['python']}",
        "threads",
        "rate ÷ that of one thread",
        faster,
        logarithmic=False,
    )


CHARTS_OF = {
    "ratios": (ratio_chart, {"decode", "encode"}),
    "sizes": (size_chart, {"sizes"}),
    "fields": (field_chart, {"fields"}),
    "threads": (thread_chart, {"threads"}),
}


def drawn(result: dict[str, Any]) -> dict[str, str]:
    """SVG by the names of files, without .svg; where there are figures of all groups."""
    groups = {figure["group"] for figure in result["figures"]}
    return {name: make(result) for name, (make, of) in CHARTS_OF.items() if of <= groups}


# --- where they go --------------------------------------------------------------------------------------------------------


def placed(text: str, name: str, table: str) -> str:
    """A page with a table between the markers of its name, where there are any."""
    before, begin, rest = text.partition(BEGIN.format(name))
    _, end, after = rest.partition(END.format(name))
    return f"{before}{begin}\n{table}\n{end}{after}" if begin and end else text


def write(result: dict[str, Any], pages: Iterable[Path] = PAGES, into: Path = CHARTS) -> list[Path]:
    """Put the tables into the pages and the charts into the directory; returns what was written.

    A table or chart of several groups stays as it is where the result has some of them alone.
    """
    found = tables(result, whole=True)
    written = []
    for page in pages:
        old = text = page.read_text()
        for name, table in found.items():
            text = placed(text, name, table)
        if text != old:
            page.write_text(text)
            written.append(page)
    into.mkdir(parents=True, exist_ok=True)
    for name, chart in drawn(result).items():
        path = into / f"{name}.svg"
        path.write_text(chart)
        written.append(path)
    return written

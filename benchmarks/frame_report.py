"""The comparison of frames, a part of the report: streams of them, and decompressing."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from .bench_frames import BUFFERS, CODECS, COUNT
from .children import Child

# p4p is asked for one thing only, and is no subject of the other tables.
MORE = ("p4p",)
ROUNDS = 3
PIXELS = 2048


class Stream(NamedTuple):
    text: str
    subject: str
    function: str
    args: tuple[object, ...] = ()


STREAMS = [
    Stream("memcpy of the same bytes", "c", "memcpy"),
    Stream("compiled, received into a pool", "c", "stream", ("pool",)),
    Stream("compiled, no pool", "c", "stream", ("views",)),
    Stream("compiled, copied into a pool", "c", "stream", ("copied",)),
    Stream("fallback, received into a pool", "py", "stream", ("pool",)),
    Stream("fallback, no pool", "py", "stream", ("views",)),
    Stream("spvirit, payload → list → array", "spvirit", "decode_frame"),
    Stream("caproto, payload → array", "caproto", "decode_frame"),
]


def lines(children: dict[str, Child]) -> Iterable[str]:
    """Markdown."""
    yield from streams(children)
    yield ""
    yield from access(children)
    if "c" in children:
        yield ""
        yield from decompression(children["c"])


def turns(works: list[tuple[Child, str, str, tuple[object, ...]]], seconds: float) -> list[float | None]:
    """ns of what each counts, by rounds in which all take turns; None for what cannot be done."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for found, (child, module, function, args) in zip(taken, works, strict=True):
            per = child.prepare(module, function, args)
            if per is not None:
                found.append(child.time(seconds) / per)
    return [median(found) if found else None for found in taken]


def streams(children: dict[str, Child]) -> Iterable[str]:
    yield "| frames of uint16 | messages/s | GB/s | time ÷ memcpy | peak MB |"
    yield "|---|---|---|---|---|"
    for n in COUNT:
        rows = [row for row in STREAMS if row.subject in children]
        works = []
        for row in rows:
            if row.function == "decode_frame":
                works.append((children[row.subject], "bench_value", "decode_frame", (f"nd.{n}",)))
            else:
                works.append((children[row.subject], "bench_frames", row.function, (n, *row.args)))
        times = turns(works, 0.1)
        for row, (child, *work), ns in zip(rows, works, times, strict=True):
            if ns is None or times[0] is None:
                continue
            peak = "–" if row.function == "memcpy" else megabytes(child, *work)
            size = 2 * n * n
            found = (
                f"| {n}×{n}: {row.text} | {float(f'{1e9 / ns:.3g}'):,.0f} | {size / ns:.2f} "
                f"| {ns / times[0]:.2f} | {peak} |"
            )
            print(found, file=sys.stderr)
            yield found
    yield ""
    yield (
        f"{COUNT[512]:,} frames of 512×512, {COUNT[2048]} of 2048×2048 in a run (spvirit and caproto: as many as take 0.1 s): "
        "what a socket would write is copied to where the connection receives, then framing, message, value, Frame, array. "
        f"memcpy: the same copies alone, into {BUFFERS} buffers in turn. "
        f"Peak: the most that a run has allocated at a time; the pool's {BUFFERS} buffers were there before. "
        "spvirit and caproto have the payload in memory already."
    )


def megabytes(child: Child, module: str, function: str, args: tuple[object, ...]) -> str:
    child.prepare(module, function, args)
    return f"{child.ask(peak=True)['bytes'] / 1e6:.1f}"


def access(children: dict[str, Child]) -> Iterable[str]:
    names = {"c": "compiled", "py": "fallback", "p4p": "p4p (`NTNDArray.unwrap`)"}
    works = {
        name: (children[name], "p4p_works" if name == "p4p" else "bench_frames", "value_to_array", (512,))
        for name in names
        if name in children
    }
    found = turns(list(works.values()), 0.03)
    told = [f"{names[name]} {ns:,.0f} ns" for name, ns in zip(works, found, strict=True) if ns is not None]
    yield f"Of a Value that was received, the shaped array: {', '.join(told)}."


def decompression(child: Child) -> Iterable[str]:
    yield "| decompression, GB/s of pixels | pvafast | the library's own call | ratio |"
    yield "|---|---|---|---|"
    for codec in CODECS:
        ours, theirs = turns(
            [(child, "bench_frames", way, (codec, PIXELS)) for way in ("decompress", "library")], 0.03
        )
        assert ours is not None
        own = "–" if theirs is None else f"{1 / theirs:.2f}"
        ratio = "–" if theirs is None else f"{theirs / ours:.2f}"
        found = f"| {codec} | {1 / ours:.2f} | {own} | {ratio} |"
        print(found, file=sys.stderr)
        yield found
    yield ""
    yield (
        f"A pattern of few photons, {PIXELS}×{PIXELS} uint16 (jpeg: uint8). The library is imagecodecs, for bslz4 the package bitshuffle "
        "(OMP_NUM_THREADS=1); lz4hdf5 beside LZ4 in one block."
    )

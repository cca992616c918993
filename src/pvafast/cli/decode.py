"""`pvafast decode`: the PVA messages of a capture, as lines, as JSON, or summed up."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final

from .. import messages
from .._backend import bitset, introspection, value
from .._types import STRUCTURE
from .._valuetext import format_scalar, format_tree
from ..capture import Record, Records, read
from ..capture.jsonform import dumps
from ..capture.summary import Summary
from ..errors import DecodeError
from ..request import format as format_request

_SHOWN: Final = 20
_PROGRESS_AFTER: Final = 1.0


def add(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "decode",
        help="decode captured traffic (pcap, pcapng)",
        description="Decode the PVA messages of captures (pcap or pcapng, also .gz; - is standard input): one line a message.",
        epilog="Exit status: 0 all was read; 1 a file ended too early or is damaged; 2 wrong usage, or a file cannot be read.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="capture; - is standard input")
    parser.add_argument("--values", action="store_true", help="show the changed fields and their values, too")
    parser.add_argument("--types", action="store_true", help="show the types that messages bring, too")
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--summary", action="store_true", help="sum up: PVs, rates, who asks for what, what went wrong"
    )
    output.add_argument("--json", action="store_true", help="one JSON object a line, pure ASCII")
    parser.add_argument(
        "--max-elements", type=int, default=None, metavar="N",
        help=f"longer arrays are shortened (--json: 64, otherwise {_SHOWN}; 0: never)",
    )  # fmt: skip
    chosen = parser.add_argument_group("only messages", "of an option given several times any one has to fit")
    chosen.add_argument("--pv", action="append", metavar="GLOB", help="of these PVs: 'BL1:*'")
    chosen.add_argument(
        "--command", action="append", metavar="NAME", help="of these commands: MONITOR, GET, SEARCH..."
    )
    chosen.add_argument("--host", action="append", metavar="ADDRESS", help="from or to these addresses")
    chosen.add_argument("--port", action="append", type=int, metavar="N", help="from or to these ports")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Decode all files; returns the exit status."""
    status = 0
    wanted = chosen(arguments)
    summary = Summary() if arguments.summary else None
    show = shown(arguments)
    for name in arguments.files:
        try:
            records = read(name)
            damage = decode(records, wanted, show, summary)
        except DecodeError as error:
            print(f"pvafast: {error.reason}", file=sys.stderr)
            status = 2
        except BrokenPipeError:
            raise
        except OSError as error:
            print(f"pvafast: {name}: {error.strerror or error}", file=sys.stderr)
            status = 2
        else:
            if damage:
                sys.stdout.flush()
                print(f"pvafast: {name}: {damage}", file=sys.stderr)
                status = max(status, 1)
    if summary is not None:
        print(summary.text())
    return status


def decode(
    records: Records,
    wanted: Callable[[Record], bool] | None,
    show: Callable[[Record], None],
    summary: Summary | None,
) -> str:
    """Decode one file; returns what is wrong with it, "" if nothing."""
    told: Iterator[Record] = iter(records)
    if sys.stderr.isatty():
        told = progress(told, records)
    if wanted is not None:
        told = filter(wanted, told)
    if summary is not None:
        for record in told:
            summary.add(record)
    else:
        for record in told:
            show(record)
    damage = records.damage
    return "" if damage is None else f"{damage.reason}, at byte {damage.offset}; decoded up to there"


def progress(told: Iterator[Record], records: Records) -> Iterator[Record]:
    """Show on a terminal how far a long file is."""
    start = last = time.monotonic()
    count = 0
    drawn = False
    capture = records.capture
    try:
        for record in told:
            count += 1
            if not count & 0x3FF:
                now = time.monotonic()
                if now - last >= 0.2 and now - start >= _PROGRESS_AFTER:
                    last = now
                    done = capture.consumed
                    rate = done / (now - start) / 1e6
                    if capture.size:
                        part = min(done / capture.size, 1.0)
                        bar = ("#" * int(part * 30)).ljust(30)
                        line = f"[{bar}] {part:4.0%} {rate:.0f} MB/s"
                    else:
                        line = f"{done / 1e6:.0f} MB {rate:.0f} MB/s"
                    print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
                    drawn = True
            yield record
    finally:
        if drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def chosen(arguments: argparse.Namespace) -> Callable[[Record], bool] | None:
    """What the filters let through; None: everything."""
    tests: list[Callable[[Record], bool]] = []
    if arguments.command:
        commands = {name.upper() for name in arguments.command}
        tests.append(lambda record: record.command in commands)
    if arguments.pv:
        globs = list(arguments.pv)

        def by_pv(record: Record) -> bool:
            pv = record.pv
            names = pv if isinstance(pv, tuple) else (pv,)
            return any(name and fnmatchcase(name, glob) for name in names for glob in globs)

        tests.append(by_pv)
    if arguments.host:
        hosts = {host.strip("[]") for host in arguments.host}
        tests.append(
            lambda record: any(
                end.rpartition(":")[0].strip("[]") in hosts for end in (record.src, record.dst)
            )
        )
    if arguments.port:
        ports = {str(port) for port in arguments.port}
        tests.append(lambda record: any(end.rpartition(":")[2] in ports for end in (record.src, record.dst)))
    if not tests:
        return None
    return lambda record: all(test(record) for test in tests)


def shown(arguments: argparse.Namespace) -> Callable[[Record], None]:
    """How a record is shown."""
    write = sys.stdout.write
    if arguments.json:
        most = 64 if arguments.max_elements is None else arguments.max_elements
        return lambda record: void(write(dumps(record, most) + "\n"))
    most = _SHOWN if arguments.max_elements is None else arguments.max_elements

    def show(record: Record) -> None:
        write(printable(line(record)) + "\n")
        if arguments.types and record.type is not None:
            write(printable(indented(record.type.format("pvxs"))) + "\n")
        if arguments.values and record.value is not None:
            for text in fields(record, most):
                write(printable(indented(text)) + "\n")

    return show


def void(_: object) -> None:
    """Nothing."""


def printable(text: str) -> str:
    """Text of which nothing can harm a terminal or an encoding."""
    return "".join(
        c if c == "\n" or (c.isprintable() and not 0xD800 <= ord(c) < 0xE000) else ascii(c)[1:-1]
        for c in text
    )


def indented(text: str) -> str:
    """Text set off from the line that it belongs to."""
    return "    " + text.replace("\n", "\n    ")


def line(record: Record) -> str:
    """The record in one line."""
    ticks = record.ns
    when = datetime.fromtimestamp(ticks // 1_000_000_000, UTC).strftime("%H:%M:%S")
    digits = record.time.rpartition(".")[2] if "." in record.time else ""
    clock = f"{when}.{digits}" if digits else when
    arrow = f"{record.src} → {record.dst}"
    pv = record.pv
    names = (
        ", ".join(name or "?" for name in pv[:8]) + (f", {len(pv) - 8} more" if len(pv) > 8 else "")
        if isinstance(pv, tuple)
        else pv
    )
    parts = [clock, arrow, record.command, names, said(record)]
    return "  ".join(part for part in parts if part)


def said(record: Record) -> str:
    """What a message says, in a few words."""
    damage = record.damage
    if damage is not None:
        lost = f", {damage.lost} bytes not decoded" if damage.lost else ""
        return f"!! {record.note} (stream offset {damage.offset}{lost})"
    message = record.message
    note = f" [{record.note}]" if record.note else ""
    words = [about(message)] if message is not None else []
    status = record.status
    if status is not None and (not status.ok or status.message):
        words.append(f"{status.type.name} {status.message!r}" if status.message else status.type.name)
    if record.type is not None:
        words.append(name_of(record.type))
    changed = record.changed
    held = record.value
    if changed is not None:
        leaves = changed.expand(held.type)
        words.append(f"{len(leaves)} field{'' if len(leaves) == 1 else 's'}")
        if len(leaves) <= 3 and held.type.code == STRUCTURE:
            names = held.type.names
            words.append(", ".join(f"{names[i]}={short(held, names[i])}" for i in leaves))
    if record.overrun:
        words.append(f"overrun of {len(record.overrun.expand(held.type))}")
    return " ".join(word for word in words if word) + note


def name_of(type: introspection.FieldDesc) -> str:
    """A type in a word or two."""
    if type.code != STRUCTURE:
        return type.format("short")
    return type.id or f"structure of {len(type.members)}"


def short(held: value.Value, name: str) -> str:
    """A leaf in a few characters."""
    try:
        leaf = held[name]
    except KeyError:
        return "..."
    if hasattr(leaf, "dtype") and hasattr(leaf, "shape") and leaf.shape:
        return f"{leaf.dtype}[{len(leaf)}]"
    if isinstance(leaf, list):
        return f"[{len(leaf)}]"
    text = (
        format_scalar(leaf)
        if not isinstance(leaf, value.UnionValue | value.AnyValue)
        else type(leaf).__name__
    )
    return text if len(text) <= 40 else text[:37] + "..."


def about(message: messages.PvaMessage) -> str:
    """What is special of a message: its subcommand, and its own fields."""
    words: list[str] = []
    sub = getattr(message, "sub", None)
    if sub is not None and sub & 0x08:
        words.append("INIT")
    elif isinstance(message, messages.SubRequest) and message.command == messages.Command.MONITOR:
        words.append(type(message).__name__.removeprefix("Monitor").upper())
    if sub is not None and sub & 0x10:
        words.append("DESTROY")
    if sub is not None and not sub & 0x08 and sub & 0xC0 and message.command != messages.Command.MONITOR:
        words.append(type(message).__name__)
    request = getattr(message, "request", None)
    if isinstance(request, value.Value):
        words.append(format_request(request) or "all fields")
    for name in ("nfree", "channels", "cids", "protocol", "protocols", "address", "port", "sequence", "guid", "found",
                 "methods", "method", "data", "severity", "text", "byteorder", "change_count", "path", "payload"):  # fmt: skip
        item = getattr(message, name, None)
        if item is None or item == "" or item == () or item == b"":
            continue
        if name == "channels":
            words.append(f"{len(item)} name{'' if len(item) == 1 else 's'}")
        elif name == "cids":
            words.append(f"{len(item)} found" if item else "none found")
        elif isinstance(item, value.Value):
            words.append(", ".join(f"{key}={short(item, key)}" for key in item))
        elif isinstance(item, bytes):
            words.append(f"{name}={item.hex() if len(item) <= 16 else f'{len(item)} bytes'}")
        elif isinstance(item, tuple):
            words.append(f"{name}={','.join(map(str, item))}")
        elif hasattr(item, "name") and name == "severity":
            words.append(str(item.name))
        else:
            words.append(f"{name}={item}")
    return " ".join(words)


def fields(record: Record, most: int) -> Iterator[str]:
    """The changed fields of a value, a line each; all of it where it is not known what changed."""
    held = record.value
    changed: bitset.BitSet | None = record.changed
    if changed is None or held.type.code != STRUCTURE:
        if isinstance(held, value.Value):
            yield format_tree(held, most)
        else:
            yield str(held)
        return
    names = held.type.names
    for i in changed.expand(held.type):
        leaf = held.type.node(i)
        try:
            found = held[names[i]]
        except KeyError:
            continue
        yield from leaf_lines(names[i], leaf, found, most)


def leaf_lines(name: str, leaf: introspection.FieldDesc, found: Any, most: int) -> Iterator[str]:
    """One field: on a line where it fits, as a tree otherwise."""
    text = format_tree(value.Value(leaf, found), most)
    yield f"{name}: {text}"

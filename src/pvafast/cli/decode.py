"""`pvafast decode`: the PVA messages of a capture, as lines, as JSON, or summed up."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Final, TypeVar

from .._losstext import counted
from .._valuetext import printable, printable_tree
from ..capture import Record, Records, read
from ..capture.frames import FrameFiles
from ..capture.jsonform import dumps
from ..capture.summary import Summary
from ..capture.textform import fields, line
from ..errors import DecodeError
from ..messages import Command, ControlCommand
from .options import count

# Elements of an array that are shown, unless told otherwise.
_T = TypeVar("_T")
_SHOWN: Final = 20
_SHOWN_JSON: Final = 64
_NAMES: Final = frozenset({*Command.__members__, *ControlCommand.__members__, "MALFORMED", "LOST"})
# Seconds: files that are read in less have no progress bar; between two states of it.
_PROGRESS_AFTER: Final = 1.0
_PROGRESS_EVERY: Final = 0.2


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Decode the PVA messages of captures, on whatever port they are: one line a message, with its time (UTC), "
        "source and destination, command, PV and what it says."
    )
    parser.epilog = (
        "Exit status: 0 all was read; 1 a file is cut off or damaged, and was decoded up to there, or a frame could not be "
        "written; 2 wrong usage, or a file cannot be read."
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="pcap or pcapng, also .gz; - is standard input"
    )
    parser.add_argument("--values", action="store_true", help="show the changed fields and their values, too")
    parser.add_argument("--types", action="store_true", help="show the types that messages bring, too")
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--summary", action="store_true", help="sum up: PVs, rates, who asks for what, what went wrong"
    )
    output.add_argument("--json", action="store_true", help="one JSON object a line, pure ASCII")
    parser.add_argument(
        "--frames", metavar="DIR",
        help="write the frames (NTNDArray) into this new or empty directory, too: a file each, and index.csv",
    )  # fmt: skip
    parser.add_argument(
        "--frames-format", choices=("npy", "tiff"), default="npy",
        help="of these files: npy (numpy.load), or tiff, for which tifffile is needed: pip install 'pvafast[tiff]'",
    )  # fmt: skip
    parser.add_argument(
        "--max-elements", type=count, default=None, metavar="N",
        help=f"longer arrays are shortened (--json: {_SHOWN_JSON}, --values: {_SHOWN}; 0: never)",
    )  # fmt: skip
    chosen = parser.add_argument_group("only messages", "of an option given several times any one has to fit")
    chosen.add_argument("--pv", action="append", metavar="GLOB", help="of these PVs: 'BL1:*'")
    chosen.add_argument(
        "--command", action="append", type=command, metavar="NAME",
        help="of these commands: MONITOR, GET, SEARCH..., as they are shown; MALFORMED and LOST for damage",
    )  # fmt: skip
    chosen.add_argument("--host", action="append", metavar="ADDRESS", help="from or to these addresses")
    chosen.add_argument("--port", action="append", type=int, metavar="N", help="from or to these ports")


def command(text: str) -> str:
    """The name of a command, in any case."""
    name = text.upper()
    if name not in _NAMES and not name.startswith(("COMMAND_", "CONTROL_")):
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(sorted(_NAMES))}")
    return name


def run(arguments: argparse.Namespace) -> int:
    """Decode all files; returns the exit status."""
    if arguments.frames is None:
        return decode_all(arguments, None)
    try:
        files = FrameFiles(arguments.frames, arguments.frames_format)
    except (OSError, ImportError) as error:
        print(f"pvafast: {error}", file=sys.stderr)
        return 2
    with files:
        status = decode_all(arguments, files)
    sys.stdout.flush()
    print(f"pvafast: {counted(files.written, 'frame')} in {files.folder}", file=sys.stderr)
    for (pv, why), n in files.failed.items():
        print(
            f"pvafast: {printable(pv)}: {counted(n, 'frame')} not written: {printable(why)}", file=sys.stderr
        )
    return max(status, 1) if files.failed else status


def decode_all(arguments: argparse.Namespace, frames: FrameFiles | None) -> int:
    """Decode all files; returns the exit status."""
    status = 0
    wanted = chosen(arguments)
    summary = Summary() if arguments.summary else None
    show = summary.add if summary is not None else shown(arguments)
    tell = show
    if frames is not None:
        write = frames.add

        def tell(record: Record) -> None:
            write(record)
            show(record)

    connections = 0
    for name in arguments.files:
        try:
            records = read(name, connections=connections)
            whole = summary if wanted is None and frames is None else None
            damage = decode(records, wanted, tell, whole, quiet=summary is not None)
            connections = records.connections
        except DecodeError as error:
            print(f"pvafast: {error.reason}", file=sys.stderr)
            status = 2
        except BrokenPipeError:
            raise
        except OSError as error:
            print(f"pvafast: {error.filename or name}: {error.strerror or error}", file=sys.stderr)
            status = 2
        else:
            if damage:
                sys.stdout.flush()
                print(f"pvafast: {name}: {damage}", file=sys.stderr)
                status = max(status, 1)
    if summary is not None and (summary.records or status != 2):
        print(summary.text())
    return status


def decode(
    records: Records,
    wanted: Callable[[Record], bool] | None,
    tell: Callable[[Record], object],
    summary: Summary | None,
    quiet: bool,
) -> str:
    """Decode one file; returns what is wrong with it, "" if nothing. With a summary, which takes all, nothing is told."""
    # Lines on the same terminal say better how far it is.
    shows = sys.stderr.isatty() and (quiet or not sys.stdout.isatty())
    if summary is not None:
        batches = records.batches(together=True)
        for batch in progress(batches, records) if shows else batches:
            summary.add_batch(batch)
    else:
        told: Iterator[Record] = progress(iter(records), records) if shows else iter(records)
        for record in told if wanted is None else filter(wanted, told):
            tell(record)
    damage = records.damage
    if damage is not None:
        return f"{damage.reason}, at byte {damage.offset}; decoded up to there"
    return "; ".join(
        f"{packets} packets of link type {link} are not understood"
        for link, packets in records.statistics.unsupported.items()
    )


def progress(told: Iterator[_T], records: Records) -> Iterator[_T]:
    """Show on a terminal how far a long file is."""
    start = last = time.monotonic()
    before = 0
    drawn = False
    capture = records.capture
    try:
        for record in told:
            done = capture.consumed
            if done != before:
                before = done
                now = time.monotonic()
                if now - last >= _PROGRESS_EVERY and now - start >= _PROGRESS_AFTER:
                    last = now
                    speed = f"{done / 1e6:.0f} MB, {done / (now - start) / 1e6:.0f} MB/s"
                    if capture.size:
                        part = min(done / capture.size, 1.0)
                        speed = f"[{'#' * int(part * 30):30}] {part:4.0%} {speed}"
                    print(f"\r{speed}\x1b[K", end="", file=sys.stderr, flush=True)
                    drawn = True
            yield record
    finally:
        if drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def chosen(arguments: argparse.Namespace) -> Callable[[Record], bool] | None:
    """What the filters let through; None: everything."""
    tests: list[Callable[[Record], bool]] = []
    if arguments.command:
        commands = frozenset(arguments.command)
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
        most = _SHOWN_JSON if arguments.max_elements is None else arguments.max_elements

        def show_json(record: Record) -> None:
            write(dumps(record, most) + "\n")

        return show_json
    most = _SHOWN if arguments.max_elements is None else arguments.max_elements

    def show(record: Record) -> None:
        write(line(record) + "\n")
        if arguments.types and record.type is not None:
            write(indented(printable_tree(str(record.type))))
        if arguments.values and record.value is not None:
            for text in fields(record, most):
                write(indented(text))

    return show


def indented(text: str) -> str:
    """Text set off from the line that it belongs to."""
    return "    " + text.replace("\n", "\n    ") + "\n"

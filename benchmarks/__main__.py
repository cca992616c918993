"""`python -m benchmarks`: run, report, compare; without a word, run and report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import report
from .children import ROOT
from .compare import compare
from .rows import GROUPS
from .run import Run, load
from .subjects import SUBJECTS, TWINS

RESULT = ROOT / "build" / "benchmarks.json"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Without a word: run, then report."
    )
    words = top.add_subparsers(dest="word", required=True)

    one = words.add_parser("run", help="measure; makes a result file; exit status 1 where a subject failed")
    one.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all of them")
    one.add_argument("-o", "--output", type=Path, default=RESULT, help="build/benchmarks.json")
    one.add_argument("--rounds", type=int, default=9)
    one.add_argument("--seconds", type=float, default=0.03, help="of one round of one subject; 0.03")
    one.add_argument("--only", default="", help="rows whose text contains this")
    one.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=SUBJECTS)
    one.add_argument(
        "--instructions",
        nargs="*",
        choices=TWINS,
        help="of the codec, too, under callgrind: of these twins; of c (minutes; py takes much longer)",
    )

    two = words.add_parser("report", help="tables and charts of a result file")
    two.add_argument("result", type=Path, nargs="?", default=RESULT)
    two.add_argument("--print", action="store_true", help="tables on standard output; no file is changed")

    three = words.add_parser("compare", help="what got slower; exit status 1 where something did")
    three.add_argument("before", type=Path)
    three.add_argument("after", type=Path)
    return top


def main(arguments: list[str]) -> int:
    try:
        return done(arguments)
    except (FileNotFoundError, ValueError) as error:  # of a result file
        print(error, file=sys.stderr)
        return 2


def done(arguments: list[str]) -> int:
    options = parser().parse_args(arguments or ["run"])
    if options.word == "run":
        unknown = set(options.groups) - set(GROUPS)
        if unknown:
            parser().error(f"a group is one of {', '.join(GROUPS)}; not {', '.join(sorted(unknown))}")
        failed = Run(options)()["failed"]
        print(options.output)
        reported = 0 if arguments else main(["report"])
        return 1 if failed else reported
    if options.word == "report":
        result = load(options.result)
        if options.print:
            print("\n\n".join(report.tables(result).values()))
        elif not result["whole"]:
            print("a part of the rows or subjects is missing: --print shows what there is", file=sys.stderr)
            for one in result.get("failed", []):
                print(f"failed: {one}", file=sys.stderr)
            return 1
        else:
            for path in report.write(result):
                print(path)
        return 0
    found = compare(load(options.before), load(options.after))
    print("\n".join(found.lines()))
    return 1 if found.slower else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Copy the typed interface: `_c/x.pyi` is the text of `_py/x.py`, so that no hand-written stub can lie.

python tools/sync_stubs.py          copy
python tools/sync_stubs.py --check  only compare; exit status 1 when a stub is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "pvafast"


def wanted(source: Path = SOURCE) -> dict[Path, str]:
    """Each stub that must exist, with its text."""
    return {
        source / "_c" / f"{module.stem}.pyi": module.read_text(encoding="utf-8")
        for module in sorted((source / "_py").glob("*.py"))
        if module.stem != "__init__"
    }


def stale(source: Path = SOURCE) -> list[Path]:
    """The stubs that are missing, differ, or belong to no module any more."""
    stubs = wanted(source)
    outdated = [
        path for path, text in stubs.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    return outdated + sorted(set((source / "_c").glob("*.pyi")) - stubs.keys())


def sync(source: Path = SOURCE) -> None:
    stubs = wanted(source)
    for path in stale(source):
        if path in stubs:
            path.write_text(stubs[path], encoding="utf-8")
        else:
            path.unlink()


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    changed = stale()
    for path in changed:
        print(path.relative_to(SOURCE.parents[1]))
    if arguments:
        return 1 if changed else 0
    sync()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

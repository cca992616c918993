"""Values on standard output: what changed, as a tree, or as JSON; in colour on a terminal."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, Final, TextIO

from .. import _backend
from .._valuejson import Form, encode, leaf_names
from .._valuetext import SHOWN, Line, delta_lines, printable, tree_lines

BitSet = _backend.bitset.BitSet
Value = _backend.value.Value
AnyValue = _backend.value.AnyValue

# Of the parts of a line, of what stands around them, and of the values of alarm.severity.
_COLOURS: Final = {
    "name": "36", "type": "2", "pv": "1", "note": "33", "severity 1": "33", "severity 2": "31", "severity 3": "35",
}  # fmt: skip


def colourful(stream: TextIO) -> bool:
    """Whether to write in colour: to a terminal that can, unless NO_COLOR is set (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return False
    return os.name != "nt" or "WT_SESSION" in os.environ


class Output:
    """Writes values: json, or format "delta" or "tree"; shown: elements of arrays, None for the usual, 0 for all."""

    def __init__(self, *, json: bool = False, format: str = "delta", shown: int | None = None) -> None:
        self.json = json
        self._tree = format == "tree"
        self._shown = SHOWN if shown is None else shown
        self._form = Form(shown or 0)
        self._write = sys.stdout.write
        self._colour = colourful(sys.stdout)

    def value(self, name: str, value: Any, note: str = "", time: int | None = None, **more: Any) -> None:
        """Show the value of a PV: a Value, an AnyValue or None. time, more: further members of the JSON object."""
        if isinstance(value, AnyValue):
            value = value.value if isinstance(value.value, Value) else Value(value.type, value.value)
        if self.json:
            self._json(name, value, time, more)
            return
        self.heading(name, note)
        if value is None:
            return
        lines = (
            tree_lines(value, self._shown) if self._tree else delta_lines(value, value.changed, self._shown)
        )
        for line in lines:
            self._write(self._line(line) + "\n")

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Output:
        """As the arguments of `options.add_format` tell."""
        return cls(json=arguments.json, format=arguments.format, shown=arguments.shown)

    def line(self, text: str) -> None:
        """Write a line, at once: there may be none behind it for a while."""
        self._write(f"{text}\n")
        sys.stdout.flush()

    def heading(self, name: str, note: str = "") -> None:
        """Write the name of a PV; none if it is "". note: what is to be known of what follows."""
        if name:
            head = self.paint(printable(name), "pv")
            self._write(f"{head}  {self.paint(printable(note), 'note')}\n" if note else f"{head}\n")

    def _json(self, name: str, value: Any, time: int | None, more: dict[str, Any]) -> None:
        found = {"pv": name, **more}
        if isinstance(value, Value) and value.type.is_structure:
            found["changed"] = leaf_names(value.type, value.changed)
        self.object(found | {"value": self._form.leaf(value)}, time)

    def object(self, found: dict[str, Any], time: int | None = None) -> None:
        """Write a JSON object. time: when it came, in ns since 1970: its first member, in seconds with all digits."""
        head = "{" if time is None else f'{{"time": {time // 10**9}.{time % 10**9:09}, '
        self._write(f"{head}{encode(found)[1:]}\n")

    def _line(self, line: Line) -> str:
        parts = [printable(part.text) for part in line]
        if self._colour:
            severity = any(p.kind == "name" and p.text.rpartition(".")[2] == "severity" for p in line)
            kinds = [f"severity {p.text}" if severity and p.kind == "value" else p.kind for p in line]
            parts = list(map(self.paint, parts, kinds))
        return "".join(parts)

    def paint(self, text: str, kind: str) -> str:
        """The text in the colour of its kind."""
        colour = _COLOURS.get(kind) if self._colour else None
        return text if colour is None else f"\x1b[{colour}m{text}\x1b[0m"

"""The table of errors is whole: every `raise` of the twins is reached, and both twins raise the same."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

import conftest
import errorcases
import pvafast._py

WORDS = sorted(Path(pvafast._py.__file__).parent.glob("*.py"))

# What no case reaches, and why.
BEYOND = {
    (
        "value",
        'raise RangeError(f"array of {n} elements: the protocol counts to {0xFFFFFFFE}")',
    ): "an array of 4 GiB",
}


def raises(path: Path) -> dict[int, str]:
    """Line number -> text of the `raise` statements of a file."""
    text = path.read_text()
    lines = text.splitlines()
    found = [node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Raise)]
    return {line: lines[line - 1].strip() for line in found}


def reached(cases: list[errorcases.Case]) -> set[tuple[str, int]]:
    """(file, line) of all lines of the Python twin that the cases run through."""
    files = {str(path) for path in WORDS}
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for case in cases:
            with pytest.raises(case.error):
                case.call()
    finally:
        sys.settrace(before)
    return seen


def test_every_raise_is_reached() -> None:
    """One that is new needs a case in errorcases.py, or a reason here."""
    seen = reached(errorcases.cases(conftest.load("py")))
    missing = [
        f"{path.stem}:{line}: {text}"
        for path in WORDS
        for line, text in raises(path).items()
        if (str(path), line) not in seen and (path.stem, text) not in BEYOND
    ]
    assert not missing


def test_reasons_are_needed() -> None:
    known = {(path.stem, text) for path in WORDS for text in raises(path).values()}
    assert set(BEYOND) <= known


def test_names_are_distinct(backend: SimpleNamespace) -> None:
    names = Counter(case.name for case in errorcases.cases(backend))
    assert not [name for name, count in names.items() if count > 1]


def told(case: errorcases.Case) -> tuple[str, type[BaseException], str, object]:
    """What is raised, with its text; a TypeError can be of Python's own words."""
    with pytest.raises(case.error) as caught:
        case.call()
    text = "" if caught.type is TypeError else str(caught.value)
    return case.name, caught.type, text, getattr(caught.value, "limit", None)


def test_twins_raise_the_same(twins: tuple[SimpleNamespace, SimpleNamespace]) -> None:
    compiled, plain = ([told(case) for case in errorcases.cases(twin)] for twin in twins)
    different = [pair for pair in zip(compiled, plain, strict=True) if pair[0] != pair[1]]
    assert not different

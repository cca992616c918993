"""Imports point one way: from the command line down to the bytes, never back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "pvafast"
WORDS = (
    *("buffer", "framing", "bitset", "introspection", "array", "value", "projection", "codec"),
    *("columns", "monitor", "losses", "packets"),
)
# A room may import from the rooms to its left. In each twin the words stand in order, where _py is named.
ORDER = (
    *(
        "_lazy",
        "errors",
        "limits",
        "_version",
        "_memory",
        "_types",
        "_elements",
        "_typetext",
        "_valuetext",
        "_coerce",
        "_columntext",
        "_losstext",
    ),
    *("_py", "_backend", "_valuejson"),
    *("messages", "request", "normative", "ndarray", "connection", "archive", "network"),
    *(("client", "server", "capture"), "sync", "cli", "__main__"),
)
RANK = {
    room: rank for rank, rooms in enumerate(ORDER) for room in ([rooms] if isinstance(rooms, str) else rooms)
}
TWINS = ("_py", "_c")
SHARED = (
    "_typetext",
    "_valuetext",
    "_coerce",
    "_columntext",
    "_losstext",
)  # one text for both twins, on their types


def python_imports(text: str, package: str) -> Iterator[tuple[str, bool]]:
    """What a module in `package` imports from pvafast, wherever in the text: (dotted name, whether for types only)."""
    tree = ast.parse(text)
    typed = {inner for node in ast.walk(tree) if for_types_only(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names if alias.name.split(".")[0] == "pvafast"]
        elif isinstance(node, ast.ImportFrom):
            found = list(names(node.module or "", node.level, [alias.name for alias in node.names], package))
        else:
            continue
        yield from ((name, node in typed) for name in found)


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def cython_imports(text: str, package: str) -> Iterator[tuple[str, bool]]:
    """The same of a .pyx or .pxd, whose syntax ast does not know: of its import and cimport statements."""
    pattern = r"^[ \t]*from[ \t]+(\.*)([\w.]*)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n#]*)"
    for dots, module, listed in re.findall(pattern, text, re.MULTILINE):
        imported = [name.split()[0] for name in re.sub(r"#.*|[()]", "", listed).split(",") if name.strip()]
        yield from ((name, False) for name in names(module, len(dots), imported, package))
    yield from (
        (name, False) for name in re.findall(r"^[ \t]*c?import[ \t]+(pvafast[\w.]*)", text, re.MULTILINE)
    )


def names(module: str, level: int, imported: list[str], package: str) -> Iterator[str]:
    if level:
        base = package.split(".")
        module = ".".join([*base[: len(base) - level + 1], *([module] if module else [])])
    if module.split(".")[0] == "pvafast":
        yield from (f"{module}.{name}" for name in imported)


def offence(importer: str, imported: str, for_types: bool = False) -> str | None:
    """What is wrong with it that module `importer` imports `imported`; None if nothing is. Dotted names."""
    _, room, *rest = importer.split(".")
    _, target, *inner = imported.split(".")
    if for_types and ((room in SHARED and target == "_py") or (room in TWINS and target == room)):
        return None  # annotations in and below the twins name the types of the twins; at run time the order holds
    if room in TWINS:
        if target == room:
            word, other = rest[0], inner[0] if inner else ""
            if other not in WORDS:
                return f"{other or target} is no word of the twins"
            allowed = WORDS[: WORDS.index(word) + 1]
            return (
                None if other in allowed or other == word else f"{word} may only import {', '.join(allowed)}"
            )
        if target in TWINS:
            return "the twins do not know each other"
        room = "_py"
    elif target in TWINS:
        return None if room == "_backend" else "only _backend imports a twin"
    if target not in RANK:
        return f"{target} has no place in the order of the rooms"
    if room == target and rest:
        return None  # within a room
    return None if RANK[target] < RANK[room] else f"{target} is not to the left of {room}"


def modules() -> Iterator[tuple[str, Path]]:
    """(dotted name, path) of each source file below the rooms; pvafast/__init__.py stands above them all."""
    for path in sorted(SOURCE.rglob("*.py*")):
        relative = path.relative_to(SOURCE)
        if path.suffix in (".py", ".pyi", ".pyx", ".pxd") and relative != Path("__init__.py"):
            yield ".".join(["pvafast", *relative.with_suffix("").parts]), path


def imports(name: str, path: Path) -> Iterator[tuple[str, bool]]:
    package = name.rpartition(".")[0]
    read = cython_imports if path.suffix in (".pyx", ".pxd") else python_imports
    return read(path.read_text(encoding="utf-8"), package)


def test_imports_point_left() -> None:
    found = [
        f"{path.relative_to(SOURCE)} imports {imported}: {problem}"
        for name, path in modules()
        for imported, for_types in imports(name, path)
        if (problem := offence(name, imported, for_types))
    ]
    assert not found, "\n".join(found)


def test_every_module_has_a_place() -> None:
    rooms = {name.split(".")[1] for name, _ in modules()}
    assert rooms - RANK.keys() - set(TWINS) == set()
    for name, _ in modules():
        if name.split(".")[1] in TWINS and not name.endswith("__init__"):
            assert name.split(".")[2] in WORDS


def test_the_twins_have_the_same_words() -> None:
    for suffix, twin in ((".py", "_py"), (".pyx", "_c"), (".pyi", "_c")):
        assert {path.stem for path in (SOURCE / twin).glob(f"*{suffix}")} - {"__init__"} == set(WORDS), (
            twin,
            suffix,
        )


@pytest.mark.parametrize(
    ("importer", "text", "problem"),
    [
        ("pvafast.errors", "from . import limits", "not to the left"),
        ("pvafast._types", "def f():\n    from .messages import Command", "not to the left"),
        ("pvafast.messages", "from ._py.codec import Codec", "only _backend"),
        ("pvafast.messages", "from ._py import codec", "only _backend"),
        ("pvafast.messages", "import pvafast._c.codec", "only _backend"),
        ("pvafast.messages", "if TYPE_CHECKING:\n    from .connection import Observer", "not to the left"),
        ("pvafast.messages", "from pvafast import Value", "no place"),
        ("pvafast.client.search", "from ..server import pv", "not to the left"),
        ("pvafast.client.search", "from ..cli import main", "not to the left"),
        ("pvafast._py.buffer", "from .codec import Codec", "may only import"),
        ("pvafast._py.framing", "from .codec import Codec", "may only import buffer"),
        ("pvafast._py.codec", "from .._backend import value", "not to the left"),
        ("pvafast._py.codec", "from .._c import value", "do not know each other"),
        ("pvafast._py.codec", "from .helpers import x", "no word"),
        (
            "pvafast.cli.decode",
            "from ..capture import read\nfrom . import table\nfrom ..messages import x",
            None,
        ),
        ("pvafast._py.bitset", "from .introspection import FieldDesc", "may only import"),
        ("pvafast._py.bitset", "if TYPE_CHECKING:\n    from .introspection import FieldDesc", None),
        ("pvafast._py.bitset", "if TYPE_CHECKING:\n    from ..messages import Status", "not to the left"),
        ("pvafast._coerce", "if TYPE_CHECKING:\n    from ._py.value import Value", None),
        ("pvafast._coerce", "from ._py.value import Value", "only _backend"),
        ("pvafast.messages.core", "if TYPE_CHECKING:\n    from .._py.value import Value", "only _backend"),
        ("pvafast._py.codec", "from .value import Value\nfrom ..errors import DecodeError", None),
        ("pvafast._backend", "from ._c import codec", None),
        ("pvafast.client.search", "from .channel import Channel\nimport asyncio", None),
    ],
)
def test_the_checker_sees(importer: str, text: str, problem: str | None) -> None:
    found = [offence(importer, *imported) for imported in python_imports(text, importer.rpartition(".")[0])]
    if problem is None:
        assert not any(found)
    else:
        assert any(problem in text for text in found if text), found


@pytest.mark.parametrize(
    ("text", "imported"),
    [
        (
            "from .buffer cimport Reader, take  # fast\n",
            ["pvafast._c.buffer.Reader", "pvafast._c.buffer.take"],
        ),
        (
            "    from ..errors import (\n    A,  # why\n    B as C,\n)\n",
            ["pvafast.errors.A", "pvafast.errors.B"],
        ),
        ("from . cimport value\nfrom libc.string cimport memcpy\n", ["pvafast._c.value"]),
        ("cimport numpy as cnp\nimport pvafast.codec\n", ["pvafast.codec"]),
        ("from pvafast._c.value cimport Value as V\n", ["pvafast._c.value.Value"]),
    ],
)
def test_the_checker_reads_cython(text: str, imported: list[str]) -> None:
    assert [name for name, _ in cython_imports(text, "pvafast._c")] == imported

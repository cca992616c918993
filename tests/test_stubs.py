"""The stubs of the compiled twin are the text of the Python twin; and what stubtest cannot see: the constructors."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pvafast
from pvafast import Limits

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "sync_stubs.py"))


def test_the_stubs_are_up_to_date() -> None:
    assert TOOL["stale"]() == [], "run: python tools/sync_stubs.py"


def test_syncing_copies_and_removes(tmp_path: Path) -> None:
    for twin in ("_py", "_c"):
        (tmp_path / twin).mkdir()
        (tmp_path / twin / "__init__.py").touch()
    (tmp_path / "_py" / "value.py").write_text("x: int = 1  # µ\n", encoding="utf-8")
    (tmp_path / "_py" / "codec.py").write_text("y: int = 1\n", encoding="utf-8")
    (tmp_path / "_c" / "value.pyi").write_text("x: str\n", encoding="utf-8")
    (tmp_path / "_c" / "gone.pyi").touch()
    stubs = {name: tmp_path / "_c" / f"{name}.pyi" for name in ("codec", "value", "gone")}

    assert TOOL["stale"](tmp_path) == list(stubs.values())
    TOOL["sync"](tmp_path)
    assert stubs["value"].read_text(encoding="utf-8") == "x: int = 1  # µ\n"
    assert stubs["codec"].read_text(encoding="utf-8") == "y: int = 1\n"
    assert not stubs["gone"].exists()
    assert TOOL["stale"](tmp_path) == []


# Each constructor with a value, other than the default, for each of its parameters.
CONSTRUCTORS: dict[str, dict[str, Any]] = {
    "buffer.Reader": {
        "data": bytes(64),
        "start": 8,
        "end": 32,
        "byteorder": "big",
        "limits": Limits(depth=3),
        "aligned": True,
    },
    "buffer.Writer": {"byteorder": "big"},
    "bitset.BitSet": {"bits": [1, 5]},
    "value.Value": {"type": "double", "fields": 1.5},
    "value.UnionValue": {"name": "x", "value": 1},
    "value.AnyValue": {"type": "double", "value": 1.5},
    "codec.Codec": {"limits": Limits(depth=3), "ids": "pvaccess"},
    # A codec is of one twin: None, the default, stands for it.
    "columns.Columns": {"type": {"a": "double", "b": "int8"}, "fields": ["b"], "codec": None},
    "monitor.Update": {
        "operation": SimpleNamespace(ioid=7, pv="x"),
        "frame": SimpleNamespace(offset=9),
        "value": 1.5,
        "overrun": 2,
        "time": 3.5,
        "seen": 4,
        "note": "why",
    },
    "losses.Losses": {"per_second": 1000},
    "projection.Projection": {"type": "struct{int8 a, int8 b}", "fields": ["b"], "strict": False},
    "packets.Flow": {"connection": 1, "side": 1},
    "packets.Run": {"flow": 1, "clock": 2},
    "packets.Plain": {"flows": {b"key": 1}, "clock": 2, "together": True},
    "framing.Framer": {"limits": Limits(depth=3), "from_server": True, "allocate": None},
    "framing.Message": {
        "version": 1,
        "flags": 0x40,
        "command": 2,
        "data": bytes(64),
        "start": 8,
        "end": 32,
        "offset": 100,
        "size": 24,
    },
}
# What can be read back; of the others their repr says it.
READ = {
    "buffer.Reader": ("pos", "end", "byteorder", "left", "limits"),
    "buffer.Writer": ("byteorder",),
    "codec.Codec": ("limits", "ids"),
    "columns.Columns": ("fields",),
    "projection.Projection": ("type", "fields"),
    "monitor.Update": ("ioid", "pv", "offset", "direction", "value", "overrun", "time", "seen", "note"),
    "packets.Flow": ("connection", "side", "peer", "run", "fast", "next", "acked", "touched"),
    "packets.Run": ("flow", "clock", "times", "chunks", "size"),
    "packets.Plain": ("flows", "clock", "together", "count", "ticks"),
    "framing.Framer": ("offset", "pending"),
    "framing.Message": tuple(CONSTRUCTORS["framing.Message"]),
}


def constructor(twin: SimpleNamespace, name: str) -> Any:
    word, _, kind = name.partition(".")
    return getattr(getattr(twin, word), kind)


def state(name: str, made: Any) -> Any:
    return [repr(getattr(made, attribute)) for attribute in READ[name]] if name in READ else repr(made)


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_constructors_obey_the_stub(name: str, twins: tuple[SimpleNamespace, SimpleNamespace]) -> None:
    compiled, plain = (constructor(twin, name) for twin in twins)
    values = CONSTRUCTORS[name]
    parameters = inspect.signature(plain).parameters
    assert list(parameters) == list(values)
    required = {key for key, parameter in parameters.items() if parameter.default is parameter.empty}
    nameless = {key for key, parameter in parameters.items() if parameter.kind is parameter.POSITIONAL_ONLY}
    keyword = {key for key, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}

    def made(kind: Any, given: set[str], by_position: set[str], **more: Any) -> Any:
        listed = [values[key] for key in values if key in given & by_position]
        return state(
            name, kind(*listed, **{key: values[key] for key in values if key in given - by_position}, **more)
        )

    for given in (set(values), required):
        for by_position in (nameless, set(values) - keyword):
            assert made(compiled, given, by_position) == made(plain, given, by_position)
    for kind in (compiled, plain):
        with pytest.raises(TypeError):
            made(kind, set(values), nameless, unheard_of=1)
        if keyword:
            with pytest.raises(TypeError):
                made(kind, set(values), set(values))
        if nameless:
            with pytest.raises(TypeError):
                made(kind, set(values), set())


def test_every_public_constructor_is_tried() -> None:
    public = {name for name in pvafast.__all__ if inspect.isclass(getattr(pvafast, name))}
    ours = {name for name in public if getattr(pvafast, name).__module__ == "pvafast"}
    # FieldDesc is made by functions, ElementColumns is one class for both twins.
    assert ours - {"FieldDesc", "ElementColumns"} <= {name.partition(".")[2] for name in CONSTRUCTORS}

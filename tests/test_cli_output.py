"""What commands write of values: changes, trees, JSON; colours on a terminal alone."""

from __future__ import annotations

import io
import json
import math
import sys
from typing import Any

import numpy as np
import pytest

import pvafast
from pvafast.cli.output import Output, colourful

NT_SCALAR = pvafast.FieldDesc.structure(
    "epics:nt/NTScalar:1.0", {"value": "double", "alarm": pvafast.alarm_t, "timeStamp": pvafast.time_t}
)


@pytest.fixture
def value() -> pvafast.Value:
    made = pvafast.Value(NT_SCALAR)
    made["value"] = 1.5
    made["alarm.severity"] = 2
    return made


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """terminal(): from now on standard output is one."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def begin() -> Terminal:
        made = Terminal()
        monkeypatch.setattr(sys, "stdout", made)
        return made

    return begin


def lines(capfd: Any) -> list[str]:
    return capfd.readouterr().out.splitlines()


def test_changes(capfd: Any, value: pvafast.Value) -> None:
    Output().value("x", value)
    assert lines(capfd) == ["x", "value double = 1.5", "alarm.severity int32_t = 2"]


def test_a_tree(capfd: Any, value: pvafast.Value) -> None:
    Output(format="tree").value("x", value)
    shown = lines(capfd)
    assert shown[:3] == ["x", 'struct "epics:nt/NTScalar:1.0" {', "    double value = 1.5"]
    assert shown[-1] == "}"


def test_a_note_stands_behind_the_name(capfd: Any, value: pvafast.Value) -> None:
    Output().value("x", value, "overrun of value")
    assert lines(capfd)[0] == "x  overrun of value"


def test_no_name_no_value(capfd: Any) -> None:
    Output().value("", pvafast.AnyValue("double[]", [1.0, 2.0]))
    Output().value("x", None)
    assert lines(capfd) == ["double[] = {2}[1, 2]", "x"]


def test_long_arrays_are_cut(capfd: Any) -> None:
    value = pvafast.Value("int32[]", np.arange(30, dtype=np.int32))
    for shown in (None, 3, 0):
        Output(shown=shown).value("", value)
    first, second, third = lines(capfd)
    assert first.endswith("18, 19, ...]")
    assert second == "int32_t[] = {30}[0, 1, 2, ...]"
    assert third.endswith("28, 29]")


def test_json(capfd: Any, value: pvafast.Value) -> None:
    value["value"] = math.nan
    Output(json=True).value("x", value, time=1_700_000_000_000_000_007, dropped=0)
    (line,) = lines(capfd)
    assert line.startswith('{"time": 1700000000.000000007, "pv": "x", ')
    found = json.loads(line)
    assert found["changed"] == ["value", "alarm.severity"]
    assert found["value"]["value"] == "NaN"
    assert found["value"]["timeStamp"] == {"secondsPastEpoch": 0, "nanoseconds": 0, "userTag": 0}
    assert found["dropped"] == 0


def test_json_shows_all_of_an_array_unless_told(capfd: Any) -> None:
    value = pvafast.Value("int32[]", np.arange(100, dtype=np.int32))
    Output(json=True).value("x", value)
    Output(json=True, shown=10).value("x", value)
    whole, short = map(json.loads, lines(capfd))
    assert whole == {"pv": "x", "value": list(range(100))}
    assert short["value"]["dtype"] == "<i4"
    assert short["value"]["shape"] == [100]


def test_what_a_server_sends_can_do_no_harm_to_a_terminal(capfd: Any) -> None:
    type = pvafast.FieldDesc.structure("", {"value": "string"})
    Output().value("evil\x1b[2J", pvafast.Value(type, {"value": "a\x1b]0;title\x07b"}))
    assert lines(capfd) == [r"evil\x1b[2J", r'value string = "a\x1b]0;title\x07b"']


def test_colours_on_a_terminal(terminal: Any, value: pvafast.Value) -> None:
    out = terminal()
    Output().value("x", value)
    name, first, severity = out.getvalue().splitlines()
    assert name == "\x1b[1mx\x1b[0m"
    assert first == "\x1b[36mvalue\x1b[0m \x1b[2mdouble\x1b[0m = 1.5"
    assert severity.endswith(" = \x1b[31m2\x1b[0m")  # MAJOR is red


def test_json_has_no_colours(terminal: Any, value: pvafast.Value) -> None:
    out = terminal()
    Output(json=True).value("x", value)
    assert out.getvalue().startswith("{")
    assert "\x1b" not in out.getvalue()


def test_no_color_is_honoured(terminal: Any, value: pvafast.Value, monkeypatch: pytest.MonkeyPatch) -> None:
    out = terminal()
    assert colourful(out)
    monkeypatch.setenv("NO_COLOR", "1")
    Output().value("x", value)
    assert out.getvalue().startswith("x\nvalue double")
    monkeypatch.setenv("NO_COLOR", "")  # set to nothing is not set
    assert colourful(out)
    monkeypatch.setenv("TERM", "dumb")
    assert not colourful(out)
    assert not colourful(io.StringIO())

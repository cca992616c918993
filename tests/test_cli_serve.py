"""The command line: serve."""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pvafast.sync
from clitools import interrupt, started
from pvafast import RemoteError, Server
from pvafast.cli.serve import EXAMPLE, load

# On this host alone, on ports of its own.
ISOLATED = """
[server]
intf_addr_list = "127.0.0.1"
server_port = 0
broadcast_port = 0
auto_beacon_addr_list = false
"""


@pytest.fixture
def serving(loopback: pytest.MonkeyPatch) -> Iterator[Any]:
    """serving(text): a client of a server of such a file."""
    opened: list[Any] = []

    def serve(text: str) -> pvafast.sync.Client:
        server = load(tomllib.loads(text + ISOLATED))
        running = server.running()
        running.__enter__()
        client = pvafast.sync.Client(server=f"127.0.0.1:{server.port}", timeout=5)
        opened.extend((client.close, lambda: running.__exit__(None, None, None)))
        return client

    yield serve
    for close in opened:
        close()


def test_the_example(run: Any, loopback: pytest.MonkeyPatch) -> None:
    status, out, err = run("serve", "--example")
    assert (status, err) == (0, [])
    assert "\n".join(out) + "\n" == EXAMPLE
    server = load(tomllib.loads(EXAMPLE))
    assert isinstance(server, Server)
    assert server.names() == ["demo:motor:name", "demo:shutter", "demo:spectrum", "demo:temperature"]
    assert server.config.intf_addr_list[0].host == "127.0.0.1"


def test_values_and_what_they_carry(serving: Any) -> None:
    client = serving(re.sub(r"\[server\][^\[]*", "", EXAMPLE))
    x = client.get("demo:temperature")
    assert (x, x.units, x.severity) == (21.4, "C", 0)
    raw = x.raw
    assert raw["display.description"] == "in the hutch"
    assert raw["display.precision"] == 1
    assert (raw["display.limitLow"], raw["display.limitHigh"]) == (-20, 60)
    assert (raw["control.limitLow"], raw["control.limitHigh"]) == (-20, 60)
    alarm = raw["valueAlarm"]
    assert [alarm[f"{side}Limit"] for side in ("lowAlarm", "lowWarning", "highWarning", "highAlarm")] == [
        5,
        15,
        30,
        40,
    ]
    assert [alarm[f"{side}Severity"] for side in ("lowAlarm", "lowWarning", "highWarning", "highAlarm")] == [
        2,
        1,
        1,
        2,
    ]
    assert abs(x.timestamp - time.time()) < 60
    shutter = client.get("demo:shutter")
    assert (shutter.index, shutter.choice) == (0, "closed")
    spectrum = client.get("demo:spectrum")
    assert spectrum.dtype == "float32"
    assert spectrum.tolist() == [0.0, 1.5, 2.25, 1.0]
    assert client.get("demo:motor:name") == "theta"


def test_puts(serving: Any) -> None:
    client = serving(re.sub(r"\[server\][^\[]*", "", EXAMPLE))
    for x, severity in ((20, 0), (30, 0), (30.5, 1), (40.5, 2), (14, 1), (-20, 2), (15, 0)):
        client.put("demo:temperature", x)
        found = client.get("demo:temperature")
        assert (found, found.severity) == (x, severity)
    for x in (60.5, -21, float("nan")):
        with pytest.raises(RemoteError, match="is outside of the limits, -20 to 60"):
            client.put("demo:temperature", x)
    client.put("demo:temperature", {"display.units": "K"})
    assert client.get("demo:temperature").units == "K"
    assert client.get("demo:temperature") == 15
    client.put("demo:shutter", "open")
    assert client.get("demo:shutter").choice == "open"
    with pytest.raises(RemoteError, match="2 is none of 2 choices"):
        client.put("demo:shutter", 2)
    for name, x in (("demo:spectrum", [1.0]), ("demo:motor:name", "phi")):
        with pytest.raises(RemoteError, match="read-only"):
            client.put(name, x)


def test_limits_of_arrays(serving: Any) -> None:
    client = serving('[pv.x]\ntype = "int16[]"\nlimits = [0, 9]\nalarm = [1, 8]\nwritable = true\n')
    client.put("x", [1, 8])
    assert client.get("x").severity == 0
    client.put("x", [1, 9])
    assert client.get("x").severity == 2
    client.put("x", [])
    with pytest.raises(RemoteError, match="outside"):
        client.put("x", [1, 10])


@pytest.mark.parametrize(
    ("described", "type", "x"),
    [
        ("value = 5", "int64", 5),
        ("value = 1.5", "double", 1.5),
        ("value = true", "bool", True),
        ('value = "a"', "string", "a"),
        ('value = ["a", "b"]', "string[]", ["a", "b"]),
        ("value = [1, 2]", "int64[]", [1, 2]),
        ('type = "uint8"', "uint8", 0),
        ('type = "string[]"', "string[]", []),
        ('type = "float"\nvalue = nan', "float", "nan"),
        ('type = "double"\nvalue = 3', "double", 3.0),
        ('choices = ["a", "b"]\nvalue = 1', None, 1),
        ('choices = ["a", "b"]', None, 0),
    ],
)
def test_types(serving: Any, described: str, type: str | None, x: Any) -> None:
    found = serving(f"[pv.x]\n{described}\n").get("x")
    if type is not None:
        assert found.raw.type["value"].format("short") == type
    shown = found.tolist() if hasattr(found, "tolist") else found
    assert str(shown) == "nan" if x == "nan" else shown == x


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no PVs in it: [pv.NAME]"),
        ("[pv]\n", "no PVs in it: [pv.NAME]"),
        ("[pv.x]\n", "pv.x: a type, a value or choices are needed"),
        ("[pv.x]\nvalue = 1\nunit = 'm'\n", "pv.x: 'unit' is no key of a PV: alarm, choices, description, "),
        ("[pv.x]\ntype = 'real'\n", "pv.x: "),
        ("[pv.x]\ntype = 'int8'\nvalue = 200\n", "pv.x: int8 cannot hold 200"),
        ("[pv.x]\ntype = 'int8'\nvalue = 'a'\n", "pv.x: int8 expected, str found"),
        ("[pv.x]\ntype = 'int8'\nlimits = [1]\n", "pv.x: limits must be [low, high], not [1]"),
        ("[pv.x]\ntype = 'int8'\nwarning = [2, 1]\n", "pv.x: warning must be [low, high], not [2, 1]"),
        (
            "[pv.x]\ntype = 'int8'\nwarning = ['a', 'b']\n",
            "pv.x: warning must be [low, high], not ['a', 'b']",
        ),
        ("[pv.x]\ntype = 'string'\nlimits = [1, 2]\n", "pv.x: limits are for numbers"),
        ("[pv.x]\nchoices = ['a']\nvalue = 'b'\n", "pv.x: 'b' is none of the choices"),
        ("[pv.x]\nchoices = ['a']\nunits = 'm'\n", "pv.x: 'units' is no key of a PV with choices: "),
        ("[pv.x]\nchoices = 'ab'\n", "pv.x: choices must be a list of strings, not 'ab'"),
        ("[pv.x]\nvalue = 1979-05-27\n", "pv.x: "),
        ("[pv.x]\nvalue = 1\nwritable = 'yes'\n", "pv.x: writable must be true or false, not 'yes'"),
        ("pv = 5\n", "pv must be a table, not 5"),
        ("prefix = 5\n", "prefix must be a string, not 5"),
        ("[pv]\nx = 5\n", "pv.x: it must be a table, not 5"),
        ("[PV.x]\nvalue = 1\n", "'PV' is no key of the file: prefix, pv, server"),
        ("[server]\nport = 5\n", "'port' is no key of [server]: "),
        ("[server]\nserver_port = 99999\n", "server_port: 99999 is not a port from 0 to 65535"),
        ("[pv.server]\nvalue = 1\n", "'server' is no name for a PV"),
        ("[pv.x]\nvalue = \n", "Invalid value (at line 2, column 9)"),
        ("[pv.x]\nvalue = '\udcff'\n", ""),
    ],
)
def test_what_is_wrong_with_a_file_is_told(
    run: Any, loopback: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    status, out, err = run("serve", str(path))
    assert (status, out) == (2, [])
    assert err[-1].startswith(f"pvafast: {path}: {message}")


def test_wrong_usage(run: Any, tmp_path: Path) -> None:
    assert run("serve")[0] == 2
    status, out, err = run("serve", str(tmp_path / "no.toml"))
    assert (status, out, err) == (2, [], [f"pvafast: {tmp_path}/no.toml: No such file or directory"])


def test_serve(loopback: pytest.MonkeyPatch, run: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[pv."a:b"]\nvalue = 1.5\nwritable = true\n[pv.c]\nvalue = "x"\n' + ISOLATED)
    with started("serve", str(path), "-v") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"serving 2 PVs on (127\.0\.0\.1:\d+); Ctrl-C ends it\n", line)
        assert found
        assert [process.stdout.readline() for _ in range(2)] == ["a:b\n", "c\n"]
        assert run("list", found[1]) == (0, ["a:b", "c"], [])
        assert run("put", "a:b", "2.5", "--server", found[1]) == (0, [], [])
        status, out, _ = run("get", "a:b", "-r", "value", "--server", found[1])
        assert (status, out[-1]) == (0, "value double = 2.5")
        status, out, err = interrupt(process)
        assert status == 130
        assert out == ""
        assert "EPICS_PVAS_AUTO_BEACON_ADDR_LIST=NO" in err.splitlines()

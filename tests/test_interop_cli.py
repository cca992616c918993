"""The command line against real peers on 127.0.0.1: servers of p4p (pvxs), pvapy and spvirit, and their clients."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clitools import interrupt, started
from test_interop import SPVIRIT_SERVER, free_ports, start

pytestmark = pytest.mark.interop

# What it has is such that pvxs, which shows six digits, shows all of them.
P4P_SERVER = """
import sys, time
import numpy as np
from p4p import Type, Value
from p4p.nt import NTEnum, NTNDArray, NTScalar, NTTable
from p4p.server import Server
from p4p.server.thread import SharedPV
pvs = {}
for name, code, value in [
    ("double", "d", 4.25), ("tiny", "d", 1e-07), ("float", "f", 0.5), ("int", "i", -5), ("ulong", "L", 2**64 - 1),
    ("byte", "b", -3), ("bool", "?", True), ("string", "s", 'a "q" b'), ("doubles", "ad", [1.5, 2.25, 1e300]),
    ("ints", "ai", list(range(30))), ("strings", "as", ["a", 'b"c']), ("empty", "ad", []),
]:
    pvs[name] = SharedPV(nt=NTScalar(code, display=code in "df"), initial=value, timestamp=1700000000.25)
pvs["enum"] = SharedPV(nt=NTEnum(), initial={"index": 1, "choices": ["OFF", "ON"]})
pvs["table"] = SharedPV(nt=NTTable([("a", "i"), ("b", "s")]), initial=[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}])
pvs["frame"] = SharedPV(nt=NTNDArray(), initial=np.arange(40, dtype=np.uint16).reshape(5, 8))
all_t = Type([
    ("u", ("U", None, [("x", "i"), ("st", ("S", "inner", [("p", "d")]))])), ("un", ("U", None, [("x", "i")])),
    ("a", "v"), ("an", "v"), ("sa", ("aS", "elem", [("q", "i"), ("r", "as")])), ("aa", "av"),
    ("st", ("S", None, [("deep", ("S", "deep_t", [("z", "d")]))])),
], id="all_t")
pvs["all"] = SharedPV(initial=Value(all_t, {
    "u": ("st", {"p": 1.5}), "a": Value(Type([("m", "s")], id="any_t"), {"m": "hello"}),
    "sa": [{"q": 1, "r": ["a", "b"]}, {"q": 2}], "aa": [5, "six"], "st": {"deep": {"z": 2.5}},
}))
def put(pv, op):
    if op.name() == "string" and op.value().raw.value == "no":
        op.done(error="not that one")
        return
    pv.post(op.value())
    op.done()
for name in ("double", "int", "string", "ints", "strings", "bool", "all"):
    pvs[name].put(put)
@pvs["enum"].put
def put_enum(pv, op):
    value = pv.current().raw
    value["value.index"] = op.value().raw["value.index"]
    pv.post(value)
    op.done()
add = pvs["add"] = SharedPV(nt=NTScalar("i"), initial=0)
@add.rpc
def rpc(pv, op):
    query = op.value().query
    op.done(NTScalar("d").wrap(float(query.a) + float(query.b)))
count = pvs["count"] = SharedPV(nt=NTScalar("i"), initial=0)
conf = {"EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_PVAS_SERVER_PORT": sys.argv[1],
        "EPICS_PVAS_BROADCAST_PORT": sys.argv[2], "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1:" + sys.argv[3]}
with Server(providers=[pvs], conf=conf, useenv=False):
    print("ready", flush=True)
    for i in range(1, 10000):
        time.sleep(0.02)
        count.post(i)
"""
# Names, and what p4p shows of their values: the text of pvxs.
P4P_READER = """
import sys
from p4p.client.thread import Context
conf = {"EPICS_PVA_ADDR_LIST": "127.0.0.1", "EPICS_PVA_AUTO_ADDR_LIST": "NO", "EPICS_PVA_BROADCAST_PORT": sys.argv[1]}
import json
with Context("pva", conf=conf, useenv=False, nt=False) as context:
    print("ready", flush=True)
    print(json.dumps({name: context.get(name).tostr(0) for name in sys.argv[2:]}), flush=True)
"""
NAMES = (
    *(
        "double",
        "tiny",
        "float",
        "int",
        "ulong",
        "byte",
        "bool",
        "string",
        "doubles",
        "ints",
        "strings",
        "empty",
    ),
    *("enum", "table", "frame", "all"),
)


@pytest.fixture(scope="module")
def p4p() -> Iterator[tuple[int, int, int]]:
    """The ports of a server: TCP, UDP, and where its beacons go."""
    tcp, udp, beacons = free_ports(3)
    process = start(P4P_SERVER, tcp, udp, beacons)
    yield tcp, udp, beacons
    process.kill()
    process.communicate()


@pytest.fixture
def pvs(p4p: tuple[int, int, int], loopback: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """The same, and commands find it."""
    loopback.setenv("EPICS_PVA_BROADCAST_PORT", str(p4p[1]))
    return p4p


# -- a server of p4p


def test_values_are_shown_as_pvxs_does(run: Any, pvs: tuple[int, int, int]) -> None:
    process = start(P4P_READER, pvs[1], *NAMES)
    out, _ = process.communicate(timeout=60)
    expected = json.loads(out)
    for name in NAMES:
        status, lines, err = run("get", "-F", "tree", "-#", "0", name)
        assert (status, err) == (0, [])
        assert lines == [name, *expected[name].rstrip("\n").split("\n")]


def test_get(run: Any, pvs: tuple[int, int, int]) -> None:
    status, out, err = run("get", "int", "strings", "nowhere", "-w", "2")
    assert status == 1
    assert "value int32_t = -5" in out
    assert r'value string[] = {2}["a", "b\"c"]' in out
    assert err == ["pvafast: nowhere: no server answers to the name within 2 s"]


@pytest.mark.parametrize(
    ("pv", "given", "shown"),
    [
        ("double", ["-2.5"], "value double = -2.5"),
        ("double", ["value=3.5", "alarm.severity=1"], "value double = 3.5"),
        ("int", ["0x10"], "value int32_t = 16"),
        ("string", ["5"], 'value string = "5"'),
        ("bool", ["false"], "value bool = false"),
        ("ints", ["[1, 2]"], "value int32_t[] = {2}[1, 2]"),
        ("strings", ['["x", ""]'], 'value string[] = {2}["x", ""]'),
        ("enum", ["OFF"], "value.index int32_t = 0"),
        (
            "all",
            ['{"st": {"deep": {"z": 7.5}}, "a": {"any": "int8[]", "value": [1]}}'],
            "st.deep.z double = 7.5",
        ),
        ("all", ['u={"union": "x", "value": 4}'], "u->x int32_t = 4"),
        ("all", ['sa=[{"q": 8, "r": ["z"]}]'], "sa[0].q int32_t = 8"),
    ],
)
def test_put(run: Any, pvs: tuple[int, int, int], pv: str, given: list[str], shown: str) -> None:
    assert run("put", pv, *given) == (0, [], [])
    assert shown in run("get", pv)[1]


def test_a_put_that_is_refused(run: Any, pvs: tuple[int, int, int]) -> None:
    assert run("put", "string", "no") == (1, [], ["pvafast: string: ERROR: not that one"])
    status, _, err = run("put", "table", "1")
    assert status == 1
    assert err[-1].startswith("pvafast: table: ")


def test_monitor(run: Any, pvs: tuple[int, int, int]) -> None:
    status, out, _ = run("monitor", "--json", "-n", "5", "count")
    assert status == 0
    values = [json.loads(line)["value"]["value"] for line in out]
    assert values == list(range(values[0], values[0] + 5))
    status, out, _ = run("monitor", "-r", "record[pipeline=true,queueSize=4]", "-n", "20", "count")
    assert status == 0
    assert sum(line == "count" for line in out) == 20


def test_rates_and_a_file(run: Any, pvs: tuple[int, int, int], tmp_path: Path) -> None:
    status, out, _ = run("monitor", "--rate", "--json", "--seconds", "1.1", "count")
    assert status == 0
    assert 25 < json.loads(out[0])["rate"] < 60  # it posts every 20 ms
    path = str(tmp_path / "x.npz")
    assert run("monitor", "--save", path, "-n", "10", "count", "frame")[0] == 0
    with np.load(path) as found:
        assert set(np.diff(found["count/value"])) == {1}
        assert found["frame/value"].tolist() == [list(range(40))]


def test_call(run: Any, pvs: tuple[int, int, int]) -> None:
    status, out, err = run("call", "add", "a=1.5", "b:=2")
    assert (status, err) == (0, [])
    assert out[:2] == ['struct "epics:nt/NTScalar:1.0" {', "    double value = 3.5"]
    assert run("call", "add", "a=1.5", "b=x")[2] == [
        "pvafast: add: ERROR: could not convert string to float: 'x'"
    ]


def test_info(run: Any, pvs: tuple[int, int, int]) -> None:
    status, out, _ = run("info", "all")
    assert status == 0
    assert out[:3] == ["all", 'struct "all_t" {', "    union {"]


def test_search_and_list(run: Any, pvs: tuple[int, int, int]) -> None:
    tcp = pvs[0]
    status, (line,), _ = run("search", "double")
    assert status == 0
    guid = re.fullmatch(rf"double  127\.0\.0\.1:{tcp}  guid ([0-9a-f]{{24}})", line)
    assert guid
    assert run("list", "-w", "1") == (0, [f"127.0.0.1:{tcp}"], [])
    status, (line,), _ = run("list", "-w", "1", "--json")
    assert status == 0
    assert json.loads(line)["guid"] == guid[1]
    status, out, _ = run("list", f"127.0.0.1:{tcp}")
    assert status == 0
    assert {*NAMES, "add", "count"} <= set(out)
    status, (line,), _ = run("list", "-i", f"127.0.0.1:{tcp}")
    assert status == 0
    assert re.fullmatch(rf'127\.0\.0\.1:{tcp} version="PVXS .*" lang="cpp"', line)


def test_beacons(run: Any, pvs: tuple[int, int, int], loopback: pytest.MonkeyPatch) -> None:
    guid = json.loads(run("search", "--json", "double")[1][0])["guid"]
    loopback.setenv("EPICS_PVA_BROADCAST_PORT", str(pvs[2]))
    status, (line,), _ = run("beacons", "--json", "-n", "1", "-w", "40")
    assert status == 0
    found = json.loads(line)
    assert (found["server"], found["guid"]) == (f"127.0.0.1:{pvs[0]}", guid)


# -- servers of others


def test_a_server_of_pvapy(run: Any, loopback: pytest.MonkeyPatch) -> None:
    tcp, udp = free_ports(2)
    script = """
import time
import pvaccess as pva
server = pva.PvaServer()
fields = {"value": pva.DOUBLE, "names": [pva.STRING], "sub": {"x": pva.INT}}
server.addRecord("x", pva.PvObject(fields, {"value": 4.25, "names": ["a", "b"], "sub": {"x": 7}}, "my_t"))
print("ready", flush=True)
time.sleep(60)
"""
    ports = {"SERVER_PORT": tcp, "BROADCAST_PORT": udp}
    environment = {f"EPICS_PVA{s}_{name}": str(port) for name, port in ports.items() for s in ("", "S")}
    process = start(script, **environment, EPICS_PVAS_INTF_ADDR_LIST="127.0.0.1")
    at = ("--server", f"127.0.0.1:{tcp}")
    try:
        status, out, _ = run("get", "x", *at)
        assert status == 0
        assert out[1:] == [
            'struct "my_t"',
            "value double = 4.25",
            'names string[] = {2}["a", "b"]',
            "sub.x int32_t = 7",
        ]
        assert run("put", "x", "value=1.5", "sub.x=8", *at) == (0, [], [])
        status, (line,), _ = run("monitor", "--json", "-n", "1", "x", *at)
        assert status == 0
        assert json.loads(line)["value"] == {"names": ["a", "b"], "sub": {"x": 8}, "value": 1.5}
        assert "x" in run("list", at[1])[1]
        assert run("info", "x", *at)[1][1] == 'struct "my_t" {'
    finally:
        process.kill()
        process.communicate()


def test_a_server_of_spvirit(run: Any, loopback: pytest.MonkeyPatch) -> None:
    tcp, udp = free_ports(2)
    process = start(SPVIRIT_SERVER, tcp, udp)
    loopback.setenv("EPICS_PVA_BROADCAST_PORT", str(udp))
    # It takes no searches from others: they must not come to the client first.
    loopback.delenv("EPICS_PVA_INTF_ADDR_LIST")
    try:
        assert "value double = 1.5" in run("get", "x")[1]
        assert run("put", "x", "2.5") == (0, [], [])
        status, (line,), _ = run("monitor", "--json", "-n", "1", "x")
        assert status == 0
        assert json.loads(line)["value"]["value"] == 2.5
        assert "x" in run("list", f"127.0.0.1:{tcp}")[1]
        assert run("search", "x")[1][0].startswith(f"x  127.0.0.1:{tcp}  guid ")
    finally:
        process.kill()
        process.communicate()


# -- clients of others


PVS = """
[server]
intf_addr_list = "127.0.0.1"
server_port = {tcp}
broadcast_port = {udp}
auto_beacon_addr_list = false

[pv.temperature]
value = 21.5
writable = true
units = "C"
limits = [0, 50]
alarm = [5, 40]

[pv.mode]
choices = ["idle", "run"]
writable = true

[pv.names]
value = ["a", "b"]
"""


@pytest.fixture
def serving(tmp_path: Path, loopback: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """The ports of `pvafast serve`: TCP and UDP."""
    tcp, udp = free_ports(2)
    (tmp_path / "pvs.toml").write_text(PVS.format(tcp=tcp, udp=udp))
    with started("serve", str(tmp_path / "pvs.toml")) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("serving 3 PVs")
        yield tcp, udp
        assert interrupt(process)[::2] == (130, "")


def script(text: str, *arguments: object, **environment: str) -> list[str]:
    """What a program prints."""
    run = subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_p4p_reads_and_writes_what_is_served(serving: tuple[int, int]) -> None:
    text = """
import sys
from p4p.client.thread import Context
conf = {"EPICS_PVA_ADDR_LIST": "127.0.0.1", "EPICS_PVA_AUTO_ADDR_LIST": "NO", "EPICS_PVA_BROADCAST_PORT": sys.argv[1]}
with Context("pva", conf=conf, useenv=False) as context:
    x = context.get("temperature")
    print(float(x), x.raw.display.units, x.raw.control.limitHigh, x.severity)
    context.put("temperature", 45.0)
    x = context.get("temperature")
    print(float(x), x.severity)
    try:
        context.put("temperature", 51.0)
    except Exception as error:
        print(error)
    context.put("mode", "run")
    print(int(context.get("mode")), list(context.get("names")))
"""
    shown = script(text, serving[1])
    assert shown[0] == "21.5 C 50.0 0"
    assert shown[1] == "45.0 2"
    assert "51.0 is outside of the limits, 0 to 50" in shown[2]
    assert shown[3] == "1 ['a', 'b']"


def test_spvirit_reads_what_is_served(serving: tuple[int, int]) -> None:
    text = """
import sys
import spvirit
client = spvirit.Client.builder().server_addr("127.0.0.1:" + sys.argv[1]).build()
print(client.get("temperature").value["value"])
client.put("temperature", 20.5)
print(client.get("temperature").value["value"])
"""
    assert script(text, serving[0]) == ["21.5", "20.5"]


def test_pvapy_reads_what_is_served(serving: tuple[int, int]) -> None:
    text = """
import pvaccess as pva
channel = pva.Channel("temperature")
print(channel.get("")["value"])
channel.put(20.5)
print(channel.get("")["value"])
"""
    environment = {"EPICS_PVA_SERVER_PORT": str(serving[0]), "EPICS_PVA_BROADCAST_PORT": str(serving[1])}
    assert script(text, **environment) == ["21.5", "20.5"]


def test_nothing_listens_any_more(serving: tuple[int, int]) -> None:
    """The ports are those that were asked for."""
    with socket.create_connection(("127.0.0.1", serving[0]), timeout=5):
        pass

"""Clients of p4p (pvxs), pvapy (pvAccessCPP) and spvirit against our server, on 127.0.0.1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pvafast import PV, AnyValue, FieldDesc, Server, UnionValue, Value, ndarray, normative
from pvafast.network.config import ServerConfig
from pvafast.server import Call, Peer, Provider, Put

pytestmark = pytest.mark.interop

SCALARS: dict[str, Any] = {
    "bool": True, "int8": -128, "int16": -32768, "int32": -(2**31), "int64": -(2**63), "uint8": 255, "uint16": 65535,
    "uint32": 2**32 - 1, "uint64": 2**64 - 1, "float": 0.5, "double": -1.5e300, "string": "äé€",
}  # fmt: skip
ARRAYS: dict[str, list[Any]] = {
    name: [x, type(x)(), x] if not isinstance(x, str) else [x, "", "b"] for name, x in SCALARS.items()
}
FRAME = np.arange(300 * 400, dtype=np.uint16).reshape(300, 400)
BIG = np.arange(500_000, dtype=np.float64)
ROWS = FieldDesc.structure("row_t", {"a": "int32", "b": "string"})
ODD = FieldDesc.structure(
    "odd_t",
    {
        "rows": ROWS.array(),
        "union": FieldDesc.union("", {"number": "double", "text": "string"}),
        "any": "any",
        "inner": FieldDesc.structure("inner_t", {"x": "double", "deep": {"y": "int32[]"}}),
    },
)


class Squares(Provider):
    def has(self, name: str) -> bool:
        return name.startswith("square:")

    def open(self, name: str, peer: Peer) -> PV | None:
        return PV.of(float(name.removeprefix("square:")) ** 2) if self.has(name) else None

    def names(self) -> list[str]:
        return ["square:2"]


def pvs() -> dict[str, PV]:
    """One of everything."""
    found = {f"scalar:{name}": PV(normative.NTScalar(name), x, writable=True) for name, x in SCALARS.items()}
    found |= {
        f"array:{name}": PV(normative.NTScalar(f"{name}[]"), x, writable=True) for name, x in ARRAYS.items()
    }
    meta: Any = {"severity": 2, "status": 3, "message": "hot", "timestamp": (1_700_000_000, 5)}
    found["meta"] = PV(
        normative.NTScalar("double", display=True, control=True, value_alarm=True), 4.25, units="C", **meta
    )
    found["enum"] = PV(normative.NTEnum(["off", "on"]), "on", writable=True)
    found["table"] = PV(
        normative.NTTable({"a": "int32", "b": "string"}), {"a": [1, 2], "b": ["x", "y"]}, writable=True
    )
    found["frame"] = PV(ndarray.NTNDArray(), FRAME, unique_id=7)
    found["rgb"] = PV(ndarray.NTNDArray(), np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    found["big"] = PV(normative.NTScalar("double[]"), BIG)
    found["odd"] = PV(
        Value(
            ODD,
            {
                "rows": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
                "union": UnionValue("text", "chosen"),
                "any": AnyValue("int32[]", [1, 2]),
                "inner.x": 0.5,
                "inner.deep.y": [7, 8],
            },
        )
    )
    found["readonly"] = PV(normative.NTScalar("double"), 1.0)
    checked = found["checked"] = PV(normative.NTScalar("double"), 1.0)

    @checked.on_put
    async def put(put: Put) -> None:
        if put.value > 10:
            raise ValueError("too hot")
        put.post()

    def add(call: Call) -> Any:
        if "fail" in call.arguments:
            raise ValueError("as you wish")
        return call.arguments["a"] + call.arguments["b"]

    found["add"] = PV(rpc=add)

    def whoami(call: Call) -> str:
        return f"{call.peer.user} {call.peer.host} {call.peer.method}"

    found["whoami"] = PV(rpc=whoami)
    found["secret"] = PV(
        normative.NTScalar("double"), 1.0, access=lambda peer, action: f"not for {peer.user or 'strangers'}"
    )
    found["count"] = PV(normative.NTScalar("int32"), 0)
    return found


@pytest.fixture(scope="module", params=["little", "big"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(pvs(), providers=[Squares()], config=ServerConfig.isolated(), byteorder=request.param)
    with server.running():
        yield server


def environment(server: Server, *, name_server: bool = False) -> dict[str, str]:
    """What a peer's client needs to find the server."""
    found = {**os.environ, "EPICS_PVA_AUTO_ADDR_LIST": "NO", "EPICS_PVA_BROADCAST_PORT": str(server.udp_port)}
    if name_server:
        return found | {"EPICS_PVA_ADDR_LIST": "", "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{server.port}"}
    return found | {"EPICS_PVA_ADDR_LIST": "127.0.0.1"}


def run(server: Server, script: str, *arguments: object, **more: Any) -> Any:
    """What a script prints as JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment(server, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# What a peer's client prints.
P4P = """
import json, sys, time
import numpy as np
from p4p.client.thread import Context
from p4p.nt import NTURI
from p4p import Value, Type
def plain(x):
    if isinstance(x, Value):
        return {k: plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return dict(x) if x and isinstance(x[0], tuple) else [plain(v) for v in x]
    if isinstance(x, np.ndarray):
        return x.tolist()
    return x.item() if isinstance(x, np.generic) else x
def attempt(f, *args, **more):
    try:
        return plain(f(*args, **more))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
out = {}
raw = Context("pva", nt=False)
nt = Context("pva")
"""
LAST = """
print(json.dumps(out, default=lambda x: x.item()))
"""


def test_p4p_reads_everything(server: Server) -> None:
    script = (
        P4P
        + """
names = json.loads(sys.argv[1])
out["values"] = {name: plain(raw.get(name)["value"]) for name in names}
out["meta"] = plain(raw.get("meta"))
out["some"] = raw.get("meta", request="field(value,alarm.severity)").changedSet()
out["some"] = sorted(out["some"])
out["enum"] = str(nt.get("enum"))
out["table"] = plain(raw.get("table")["value"])
frame = nt.get("frame")
out["frame"] = [list(frame.shape), str(frame.dtype), int(np.asarray(frame, np.uint64).sum()), frame.raw.uniqueId]
out["rgb"] = plain(nt.get("rgb"))
big = nt.get("big")
out["big"] = [len(big), float(big.sum())]
out["odd"] = plain(raw.get("odd"))
out["square"] = nt.get("square:3")
"""
        + LAST
    )
    names = [f"{kind}:{name}" for kind in ("scalar", "array") for name in SCALARS]
    got = run(server, script, json.dumps(names))
    assert got["values"] == {f"scalar:{n}": x for n, x in SCALARS.items()} | {
        f"array:{n}": x for n, x in ARRAYS.items()
    }
    assert got["meta"]["alarm"] == {"severity": 2, "status": 3, "message": "hot"}
    assert got["meta"]["timeStamp"] == {"secondsPastEpoch": 1_700_000_000, "nanoseconds": 5, "userTag": 0}
    assert got["meta"]["display"]["units"] == "C"
    assert got["some"] == ["alarm.severity", "value"]
    assert got["enum"] == "on"
    assert got["table"] == {"a": [1, 2], "b": ["x", "y"]}
    assert got["frame"] == [[300, 400], "uint16", int(FRAME.sum(dtype=np.uint64)), 7]
    assert got["rgb"] == np.arange(24).reshape(2, 4, 3).tolist()
    assert got["big"] == [len(BIG), float(BIG.sum())]
    assert got["odd"]["rows"] == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert got["odd"]["union"] == "chosen"
    assert got["odd"]["any"] == [1, 2]
    assert got["odd"]["inner"] == {"x": 0.5, "deep": {"y": [7, 8]}}
    assert got["square"] == 9.0


def test_p4p_writes(server: Server) -> None:
    script = (
        P4P
        + """
values = json.loads(sys.argv[1])
for name, x in values.items():
    nt.put(name, x)
out["back"] = {name: plain(raw.get(name)["value"]) for name in values}
nt.put("enum", 0)
out["enum"] = str(nt.get("enum"))
raw.put("table", {"value": {"a": [5], "b": ["z"]}})
out["table"] = plain(raw.get("table")["value"])
nt.put("checked", 5.0)
out["checked"] = nt.get("checked")
out["stamp"] = nt.get("checked").timestamp
out["refused"] = [attempt(nt.put, "checked", 11.0), attempt(nt.put, "readonly", 2.0)]
out["many"] = plain(nt.put(["scalar:int32", "scalar:double"], [5, 6]))
"""
        + LAST
    )
    values: dict[str, Any] = {
        "scalar:int8": 5, "scalar:uint64": 2**63, "scalar:double": 2.5, "scalar:string": "new", "scalar:bool": False,
        "array:int16": [1, 2, 3, 4], "array:double": [], "array:string": ["a", "", "ü"],
    }  # fmt: skip
    got = run(server, script, json.dumps(values))
    assert got["back"] == values
    assert got["enum"] == "off"
    assert got["table"] == {"a": [5], "b": ["z"]}
    assert got["checked"] == 5.0
    assert abs(got["stamp"] - time.time()) < 60
    assert got["refused"] == ["RemoteError: too hot", "RemoteError: readonly is read-only"]
    assert server.pvs["scalar:int32"].value == 5
    assert server.pvs["scalar:double"].value == 6.0


def test_p4p_calls_and_errors(server: Server) -> None:
    script = (
        P4P
        + """
def call(name, **kws):
    spec = [(k, "d" if isinstance(v, float) else "s") for k, v in kws.items()]
    return nt.rpc(name, NTURI(spec).wrap(name, kws=kws), timeout=5)
out["sum"] = plain(call("add", a=1.5, b=2.0))
out["fail"] = attempt(call, "add", fail="x")
out["bare"] = plain(nt.rpc("add", Value(Type([("a", "d"), ("b", "d")]), {"a": 1.0, "b": 1.0})))
out["who"] = plain(call("whoami"))
out["secret"] = attempt(nt.get, "secret")
out["none"] = attempt(nt.get, "no:such", timeout=0.5)
out["fields"] = attempt(nt.get, "meta", request="field(nothing)")
out["norpc"] = attempt(call, "meta")
out["rpconly"] = attempt(nt.get, "add")
"""
        + LAST
    )
    got = run(server, script)
    assert got["sum"] == 3.5
    assert got["fail"] == "RemoteError: as you wish"
    assert got["bare"] == 2.0
    user, host, method = got["who"].split()
    assert user
    assert (host, method) == ("127.0.0.1", "ca")
    assert got["secret"] == f"RemoteError: not for {user}"
    assert got["none"].startswith("TimeoutError")
    assert "must select at least one field" in got["fields"]
    assert got["norpc"] == "RemoteError: meta answers no calls (RPC)"
    assert got["rpconly"] == "RemoteError: add has no value, it answers calls (RPC) only"


P4P_MONITOR = (
    P4P
    + """
import threading
seen, changed, done = [], [], threading.Event()
def show(value):
    if isinstance(value, Exception):
        seen.append(type(value).__name__)
    else:
        seen.append(plain(value["value"]))
        changed.append(sorted(value.changedSet()))
    if seen[-1] == 1000:
        done.set()
sub = raw.monitor("count", show, request=sys.argv[1] or None, notify_disconnect=True)
while not seen or seen[-1] == "Disconnected":
    time.sleep(0.01)
print("ready", flush=True)
done.wait(20)
out = [seen, changed]
"""
    + LAST
)


def watch(server: Server, script: str, *arguments: object, work: Callable[[], object]) -> Any:
    """What a script prints that is told to be ready first; `work` is done then."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment(server),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    work()
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(rest.splitlines()[-1])


@pytest.mark.parametrize("request_", ["", "record[pipeline=true,queueSize=8]", "field(value)"])
def test_p4p_monitors(server: Server, request_: str) -> None:
    pv = server.pvs["count"]
    pv.post(0)

    def work() -> None:
        for i in range(1, 101):
            pv.post(i)
            time.sleep(0.002)
        pv.post(1000)

    seen, changed = watch(server, P4P_MONITOR, request_, work=work)
    seen = [x for x in seen if x != "Disconnected"]
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1000)
    assert len(seen) > 50
    if request_ == "field(value)":
        assert changed[-1] == ["value"]
    else:
        assert changed[-1] == [
            "timeStamp",
            "timeStamp.nanoseconds",
            "timeStamp.secondsPastEpoch",
            "value",
        ] or set(changed[-1]) >= {"value", "timeStamp.nanoseconds"}


def test_p4p_sees_a_pv_close_and_open(server: Server) -> None:
    pv = server.pvs["count"]
    pv.post(0)

    def work() -> None:
        pv.close()
        time.sleep(0.3)
        pv.open(normative.NTScalar("double"), 7.0)
        while pv.subscriptions == 0:
            time.sleep(0.01)
        pv.post(1000.0)

    try:
        seen, _ = watch(server, P4P_MONITOR, "", work=work)
    finally:
        pv.open(normative.NTScalar("int32"), 0)
    assert [x for i, x in enumerate(seen) if i == 0 or x != seen[i - 1]][-4:] == [
        0,
        "Disconnected",
        7.0,
        1000.0,
    ]


def test_p4p_sees_the_server_go_and_come() -> None:
    """A server that is killed and started again on its port."""
    pv = PV(normative.NTScalar("int32"), 0)
    first = Server({"count": pv}, config=ServerConfig.isolated())
    context = first.running()
    context.__enter__()
    tcp, udp = first.port, first.udp_port
    again = ServerConfig.isolated(server_port=tcp, broadcast_port=udp)

    def work() -> None:
        context.__exit__(None, None, None)
        time.sleep(0.2)
        second = Server({"count": pv}, config=again).running()
        second.__enter__()
        ends.append(second)
        while pv.subscriptions == 0:
            time.sleep(0.01)
        pv.post(1000)

    ends: list[Any] = []
    seen, _ = watch(first, P4P_MONITOR, "", work=work)
    ends[0].__exit__(None, None, None)
    assert "Disconnected" in seen
    assert seen[-1] == 1000


def test_p4p_by_a_name_server(server: Server) -> None:
    got = run(server, P4P + 'out["x"] = nt.get("meta")' + LAST, name_server=True)
    assert got["x"] == 4.25


PVAPY = """
import json, sys, time
import pvaccess as pva
def attempt(f, *args):
    try:
        return f(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
def get(name, request="field()"):
    return pva.Channel(name).get(request).toDict()
out = {}
"""


def test_pvapy_reads_everything(server: Server) -> None:
    script = (
        PVAPY
        + """
names = json.loads(sys.argv[1])
out["values"] = {}
for name in names:
    x = get(name)["value"]
    out["values"][name] = x.tolist() if hasattr(x, "tolist") else x
out["meta"] = get("meta")
out["some"] = get("meta", "field(value,alarm.severity)")
out["enum"] = get("enum")["value"]
out["table"] = {k: list(v) for k, v in get("table")["value"].items()}
frame = pva.Channel("frame").get("field()")
d = frame.toDict()
pixels = d["value"][0]["ushortValue"]
out["frame"] = [len(pixels), int(sum(int(p) for p in pixels)), [x["size"] for x in d["dimension"]], d["uniqueId"]]
big = get("big")["value"]
out["big"] = [len(big), float(sum(big))]
odd = get("odd")
out["odd"] = [odd["rows"], odd["union"][0], [int(x) for x in odd["inner"]["deep"]["y"]]]
channel = pva.Channel("meta")
out["again"] = [channel.get("field()")["value"] for _ in range(3)]
out["square"] = get("square:3")["value"]
"""
        + LAST
    )
    names = [f"{kind}:{name}" for kind in ("scalar", "array") for name in SCALARS]
    names.remove("scalar:int8")  # pvapy makes a character of it
    got = run(server, script, json.dumps(names))
    assert got["values"] == {name: np.asarray(server.pvs[name].raw["value"]).tolist() for name in names}
    assert got["meta"]["alarm"] == {"severity": 2, "status": 3, "message": "hot"}
    assert got["meta"]["timeStamp"] == {"secondsPastEpoch": 1_700_000_000, "nanoseconds": 5, "userTag": 0}
    assert got["some"]["value"] == 4.25
    assert got["some"]["alarm"]["severity"] == 2
    assert got["enum"]["choices"] == ["off", "on"]
    table = server.pvs["table"].raw["value"]
    assert got["table"] == {"a": table["a"].tolist(), "b": table["b"]}
    assert got["frame"] == [120_000, int(FRAME.sum(dtype=np.uint64)), [400, 300], 7]
    assert got["big"] == [len(BIG), float(BIG.sum())]
    assert got["odd"] == [[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], {"text": "chosen"}, [7, 8]]
    assert got["again"] == [4.25] * 3
    assert got["square"] == 9.0


def test_pvapy_writes_calls_and_errors(server: Server) -> None:
    script = (
        PVAPY
        + """
c = pva.Channel("scalar:double")
c.put(8.5)
out["double"] = c.get()["value"]
c = pva.Channel("scalar:string")
c.put("text")
out["string"] = c.get()["value"]
c = pva.Channel("array:int32")
c.put([5, 6, 7])
out["array"] = [int(x) for x in c.get()["value"]]
c = pva.Channel("checked")
c.put(6.0)
out["checked"] = c.get()["value"]
out["refused"] = [attempt(c.put, 11.0), attempt(pva.Channel("readonly").put, 2.0)]
out["putget"] = pva.Channel("scalar:double").putGet(9.5)["value"]
arguments = pva.PvObject({"a": pva.DOUBLE, "b": pva.DOUBLE}, {"a": 1.0, "b": 2.0})
out["sum"] = pva.RpcClient("add").invoke(arguments)["value"]
out["fail"] = attempt(pva.RpcClient("add").invoke, pva.PvObject({"fail": pva.STRING}, {"fail": "x"}))
out["secret"] = attempt(pva.Channel("secret").get)
out["types"] = pva.Channel("meta").getIntrospectionDict()["alarm"]
"""
        + LAST
    )
    got = run(server, script)
    assert (got["double"], got["string"], got["array"], got["checked"]) == (8.5, "text", [5, 6, 7], 6.0)
    assert "too hot" in got["refused"][0]
    assert "readonly is read-only" in got["refused"][1]
    assert got["putget"] == 9.5
    assert got["sum"] == 3.0
    assert "as you wish" in got["fail"]
    assert "not for" in got["secret"]
    assert set(got["types"]) == {"severity", "status", "message"}


@pytest.mark.parametrize("request_", ["field()", "field(value)", "record[pipeline=true,queueSize=8]field()"])
def test_pvapy_monitors(server: Server, request_: str) -> None:
    script = (
        PVAPY
        + """
import threading
seen, done = [], threading.Event()
def show(value):
    seen.append(value["value"])
    if len(seen) == 1:
        print("ready", flush=True)
    if seen[-1] == 1000:
        done.set()
c = pva.Channel("count")
c.monitor(show, sys.argv[1])
done.wait(20)
c.stopMonitor()
out = seen
"""
        + LAST
    )
    pv = server.pvs["count"]
    pv.post(0)

    def work() -> None:
        for i in range(1, 101):
            pv.post(i)
            time.sleep(0.002)
        pv.post(1000)

    seen = watch(server, script, request_, work=work)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1000)
    assert len(seen) > 50


SPVIRIT = """
import json, sys, time
import spvirit
client = (spvirit.Client.builder().udp_port(int(sys.argv[1])).search_addr("127.0.0.1").timeout(5.0).build())
def attempt(f, *args):
    try:
        return f(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
out = {}
"""


def test_spvirit(server: Server) -> None:
    script = (
        SPVIRIT
        + """
names = json.loads(sys.argv[3])
out["values"] = {}
for name in names:
    x = client.get(name).value
    out["values"][name] = x["value"]
client.put("scalar:double", 3.25)
out["put"] = client.get("scalar:double").value["value"]
out["refused"] = attempt(client.put, "readonly", 2.0)
out["list"] = spvirit.lowlevel.pvlist(sys.argv[2])[0]
seen = []
def show(*args):
    seen.append(args[-1])
    return len(seen) < 1
client.monitor("meta", show)
out["monitor"] = len(seen)
out["info"] = str(client.info("meta"))
"""
        + LAST
    )
    names = [f"scalar:{name}" for name in SCALARS] + ["array:int32", "array:string"]
    expected = {n: server.pvs[n].raw["value"] for n in names}
    got = run(server, script, server.udp_port, f"127.0.0.1:{server.port}", json.dumps(names))
    for name in names:
        assert got["values"][name] == (
            expected[name].tolist() if isinstance(expected[name], np.ndarray) else expected[name]
        )
    assert got["put"] == 3.25
    assert "readonly is read-only" in str(got["refused"])
    assert got["list"] == server.names()
    assert got["monitor"] == 1

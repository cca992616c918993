"""The client against real servers on 127.0.0.1: p4p (pvxs), pvapy (pvAccessCPP) and spvirit. Both faces."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pvafast
from pvafast import FieldDesc, OperationTimeout, RemoteError, UnionValue, Value, client, ndarray, normative
from test_client import Aio, Sync
from test_interop import free_ports, start

pytestmark = pytest.mark.interop

P4P = """
import sys, time
import numpy as np
from p4p import Type, Value
from p4p.nt import NTEnum, NTNDArray, NTScalar, NTTable
from p4p.server import Server, StaticProvider
from p4p.server.thread import SharedPV

class Handler:
    def put(self, pv, op):
        if pv is pvs["scalard"] and op.value() == 13.0:
            op.done(error="unlucky")
        else:
            pv.post(op.value())
            op.done()

    def rpc(self, pv, op):
        asked = op.value()
        if asked.query.get("fail") is not None:
            op.done(error="as you wish")
        else:
            op.done(NTScalar("d").wrap(asked.query.a + asked.query.b))

pvs = {}
for code in "?bBhHiIlLfds":
    initial = {"?": True, "s": "text"}.get(code, 5)
    pvs["scalar" + code] = SharedPV(handler=Handler(), nt=NTScalar(code), initial=initial)
    pvs["array" + code] = SharedPV(handler=Handler(), nt=NTScalar("a" + code), initial=[initial] * 3)
pvs["enum"] = SharedPV(handler=Handler(), nt=NTEnum(), initial={"index": 1, "choices": ["off", "on"]})
table = NTTable([("a", "d"), ("b", "s")])
pvs["table"] = SharedPV(handler=Handler(), nt=table, initial=[{"a": 1.0, "b": "x"}, {"a": 2.0, "b": "y"}])
frame = np.arange(400 * 600, dtype=np.uint16).reshape(400, 600)
pvs["image"] = SharedPV(handler=Handler(), nt=NTNDArray(), initial=frame)
pvs["big"] = SharedPV(handler=Handler(), nt=NTScalar("ad"), initial=np.arange(1_000_000.0))
odd = Type([("value", ("U", None, [("i", "i"), ("s", "s")])), ("any", "v"),
            ("list", ("aS", None, [("x", "d")])), ("in", ("S", "my_t", [("deep", "i")]))])
pvs["odd"] = SharedPV(handler=Handler(), initial=Value(odd, {"value": ("s", "hi"), "any": 2.5,
                                                             "list": [{"x": 1.0}, {"x": 2.0}], "in.deep": 7}))
pvs["count"] = SharedPV(nt=NTScalar("i"), initial=0)
pvs["closing"] = SharedPV(nt=NTScalar("i"), initial=0)
provider = StaticProvider("pvs")
for name, pv in pvs.items():
    provider.add(name, pv)
conf = {"EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_PVAS_SERVER_PORT": sys.argv[1],
        "EPICS_PVAS_BROADCAST_PORT": sys.argv[2], "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO"}
with Server(providers=[provider], conf=conf, useenv=False):
    print("ready", flush=True)
    for i in range(100_000):
        time.sleep(0.02)
        pvs["count"].post(i)
        if i % 50 == 25:
            pvs["closing"].close()
        if i % 50 == 35:
            pvs["closing"].open(i)
"""

PVAPY = """
import time
import numpy as np
import pvaccess as pva
server = pva.PvaServer()
types = {"boolean": (pva.BOOLEAN, True), "short": (pva.SHORT, -300), "int": (pva.INT, -70000), "long": (pva.LONG, -2**40),
         "ubyte": (pva.UBYTE, 200), "ushort": (pva.USHORT, 60000), "uint": (pva.UINT, 4000000000), "ulong": (pva.ULONG, 2**63),
         "float": (pva.FLOAT, 1.5), "double": (pva.DOUBLE, 2.5), "string": (pva.STRING, "text")}
for name, (type, value) in types.items():
    server.addRecord("scalar" + name, pva.PvObject({"value": type}, {"value": value}))
    server.addRecord("array" + name, pva.PvObject({"value": [type]}, {"value": [value] * 3}))
server.addRecord("struct", pva.PvObject({"value": pva.INT, "in": {"a": pva.DOUBLE, "b": [pva.STRING]}},
                                        {"value": 1, "in": {"a": 2.5, "b": ["x", "y"]}}))
server.addRecord("union", pva.PvObject({"value": ({"i": pva.INT, "s": pva.STRING},)}))
server.addRecord("list", pva.PvObject({"value": [{"a": pva.INT}]}, {"value": [{"a": 1}, {"a": 2}]}))
server.addRecord("big", pva.PvObject({"value": [pva.DOUBLE]}, {"value": [float(i) for i in range(200_000)]}))
image = pva.NtNdArray()
image["uniqueId"] = 3
image["dimension"] = [pva.PvDimension(80, 0, 80, 1, False), pva.PvDimension(100, 0, 100, 1, False)]
image["uncompressedSize"] = image["compressedSize"] = 16000
image["value"] = {"ushortValue": np.arange(8000, dtype=np.uint16)}
server.addRecord("image", image)
server.addRecord("count", pva.PvObject({"value": pva.INT}, {"value": 0}))
print("ready", flush=True)
for i in range(100_000):
    time.sleep(0.02)
    server.update("count", pva.PvObject({"value": pva.INT}, {"value": i}))
"""

SPVIRIT = """
import sys, time
import spvirit
pvs = [spvirit.scalar("x", 1.5, type="double", writable=True), spvirit.scalar("fixed", 2.5, type="double"),
       spvirit.scalar("text", "hi", type="string", writable=True), spvirit.waveform("wave", [1.0, 2.0, 3.0]),
       spvirit.scalar("count", 0, type="int")]
server = spvirit.Server(pvs=pvs, port=int(sys.argv[1]), udp_port=int(sys.argv[2]), listen_ip="127.0.0.1")
server.start_background()
print("ready", flush=True)
for i in range(100_000):
    time.sleep(0.02)
    pvs[-1].set(i)
"""


def stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def p4p_server() -> Iterator[str]:
    tcp, udp = free_ports(2)
    process = start(P4P, tcp, udp)
    yield f"127.0.0.1:{tcp}"
    stop(process)


@pytest.fixture(scope="module")
def pvapy_server() -> Iterator[str]:
    tcp, udp = free_ports(2)
    process = start(
        PVAPY,
        EPICS_PVAS_SERVER_PORT=str(tcp),
        EPICS_PVA_SERVER_PORT=str(tcp),
        EPICS_PVAS_BROADCAST_PORT=str(udp),
        EPICS_PVAS_INTF_ADDR_LIST="127.0.0.1",
    )
    yield f"127.0.0.1:{tcp}"
    stop(process)


@pytest.fixture(scope="module")
def spvirit_server() -> Iterator[str]:
    tcp, udp = free_ports(2)
    process = start(SPVIRIT, tcp, udp)
    yield f"127.0.0.1:{tcp}"
    stop(process)


@pytest.fixture(params=[Aio, Sync], ids=["aio", "sync"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def p4p(kind: Any, p4p_server: str) -> Iterator[Any]:
    face = kind(server=p4p_server, timeout=10)
    yield face
    face.end()


@pytest.fixture
def pvapy(kind: Any, pvapy_server: str) -> Iterator[Any]:
    face = kind(server=pvapy_server, timeout=10)
    yield face
    face.end()


@pytest.fixture
def spvirit(kind: Any, spvirit_server: str) -> Iterator[Any]:
    face = kind(server=spvirit_server, timeout=10)
    yield face
    face.end()


# -- p4p

NUMPY = {
    "b": "i1",
    "B": "u1",
    "h": "i2",
    "H": "u2",
    "i": "i4",
    "I": "u4",
    "l": "i8",
    "L": "u8",
    "f": "f4",
    "d": "f8",
}


@pytest.mark.parametrize("code", [*NUMPY, "?", "s"])
def test_p4p_scalars_and_arrays(p4p: Any, code: str) -> None:
    first, second = {"?": (True, False), "s": ("text", "other")}.get(code, (5, 7))
    for value in (second, first):
        p4p.put(f"scalar{code}", value)
        assert p4p.get(f"scalar{code}") == value
        p4p.put(f"array{code}", [value] * 4)
        found = p4p.get(f"array{code}")
        assert list(found) == [value] * 4
    if code in NUMPY:
        assert found.dtype == NUMPY[code]


def test_p4p_get(p4p: Any) -> None:
    whole = p4p.get("scalard", nt=False)
    part = p4p.get("scalard", "field(value)", nt=False)
    # pvxs keeps the whole type.
    assert part.type == whole.type == p4p.info("scalard")
    assert part.changed_names() == ["value"]
    assert len(whole.changed_names()) > 1
    assert p4p.get(["scalard", "scalari"] * 50) == [p4p.get("scalard"), p4p.get("scalari")] * 50
    assert p4p.get("big").tolist() == list(range(1_000_000))


def test_p4p_enum_table_image(p4p: Any) -> None:
    p4p.put("enum", "off")
    assert repr(p4p.get("enum")) == "Choice(0, 'off')"
    p4p.put("enum", 1)
    assert p4p.get("enum").choice == "on"
    p4p.put("table", {"a": [3.0], "b": ["z"]})
    assert p4p.get("table")["a"].tolist() == [3.0]
    assert p4p.get("table")["b"] == ["z"]
    pixels = np.arange(35, dtype=np.float32).reshape(5, 7)
    p4p.put("image", pixels)
    found = p4p.get("image")
    assert isinstance(found, ndarray.Frame)
    assert found.data.dtype == np.float32
    assert np.array_equal(found.data, pixels)


def test_p4p_odd_types(p4p: Any) -> None:
    def held() -> tuple[Any, ...]:
        value = p4p.get("odd")
        return value["value"], value["any"].value, [one["x"] for one in value["list"]], value["in.deep"]

    p4p.put(
        "odd",
        {
            "value": UnionValue("s", "hi"),
            "any": pvafast.AnyValue("double", 2.5),
            "list": [{"x": 1.0}, {"x": 2.0}],
            "in.deep": 7,
        },
    )
    assert held() == (UnionValue("s", "hi"), 2.5, [1.0, 2.0], 7)
    p4p.put("odd", {"value": UnionValue("i", 3), "in.deep": 8})
    assert held() == (UnionValue("i", 3), 2.5, [1.0, 2.0], 8)
    p4p.put("odd", {"any": pvafast.AnyValue("string[]", ["a", "b"]), "list": [{"x": 9.0}]})
    assert held() == (UnionValue("i", 3), ["a", "b"], [9.0], 8)


def test_p4p_errors(p4p: Any) -> None:
    with pytest.raises(RemoteError, match="unlucky"):
        p4p.put("scalard", 13.0)
    with pytest.raises(RemoteError, match="Refused"):
        p4p.get("nope")
    with pytest.raises(RemoteError, match="must select at least one field"):
        p4p.get("scalard", "field(nope)")
    with pytest.raises(RemoteError, match="Monitor Create implied error"):
        p4p.monitor("scalard", "field(nope)").next(5)
    # pvxs does not answer to these at all.
    for call in (
        p4p.process,
        p4p.array_length,
        lambda name, timeout: p4p.put_get(name, 1.0, timeout=timeout),
    ):
        with pytest.raises(OperationTimeout, match="does not answer"):
            call("scalard", timeout=0.2)
    assert p4p.get("scalard") == p4p.get("scalard")


def test_p4p_rpc(p4p: Any) -> None:
    assert p4p.rpc("scalard", a=1.5, b=2.0) == 3.5
    assert [p4p.rpc("scalard", {"a": float(i), "b": 1.0}) for i in range(5)] == [1.0, 2.0, 3.0, 4.0, 5.0]
    with pytest.raises(RemoteError, match="as you wish"):
        p4p.rpc("scalard", fail=1, a=1.0, b=1.0)


def test_p4p_says_of_itself(p4p: Any, p4p_server: str) -> None:
    assert {"scalard", "enum", "count"} <= set(p4p.list_pvs(p4p_server))
    assert "PVXS" in p4p.server_info(p4p_server)["version"]


@pytest.mark.parametrize("pipeline", [False, True])
def test_p4p_monitor(p4p: Any, pipeline: bool) -> None:
    subscription = p4p.monitor("count", pipeline=pipeline, queue_size=4 if pipeline else None, events=True)
    assert isinstance(subscription.next(5), client.Connected)
    values = [int(subscription.next(5).value) for _ in range(30)]
    assert values == list(range(values[0], values[0] + 30))
    assert subscription.dropped == 0


def test_p4p_monitor_of_a_pv_that_is_closed(p4p: Any) -> None:
    subscription = p4p.monitor("closing", events=True)
    seen: list[type] = []
    while client.Disconnected not in seen or client.Reading not in seen[seen.index(client.Disconnected) :]:
        seen.append(type(subscription.next(30)))
    after = seen[seen.index(client.Disconnected) :]
    assert after[:3] == [client.Disconnected, client.Connected, client.Reading]


def test_p4p_columns(p4p: Any) -> None:
    subscription = p4p.monitor("count", columns=["value"])
    rows: list[int] = []
    while len(rows) < 20:
        rows += subscription.next(5)["value"].tolist()
    assert rows == list(range(rows[0], rows[0] + len(rows)))


def test_p4p_frames_in_a_pool(p4p: Any) -> None:
    with ndarray.FramePool(4, 400 * 600 * 2) as pool:
        subscription = p4p.monitor("image", pool=pool)
        subscription.next(5)
        for i in range(5):
            pixels = np.full((400, 600), i, np.uint16)
            p4p.put("image", pixels)
            assert np.array_equal(subscription.next(5).value.data, pixels)


# -- pvapy


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("boolean", True, False),
        ("short", -300, 301),
        ("int", -70000, 70001),
        ("long", -(2**40), 2**41),
        ("ubyte", 200, 201),
        ("ushort", 60000, 60001),
        ("uint", 4000000000, 4000000001),
        ("ulong", 2**63, 2**63 + 1),
        ("float", 1.5, -2.5),
        ("double", 2.5, -3.5),
        ("string", "text", "other"),
    ],
)
def test_pvapy_scalars_and_arrays(pvapy: Any, name: str, value: Any, other: Any) -> None:
    for x in (other, value):
        pvapy.put(f"scalar{name}", x)
        assert pvapy.get(f"scalar{name}")["value"] == x
        pvapy.put(f"array{name}", [x] * 4)
        assert list(pvapy.get(f"array{name}")["value"]) == [x] * 4


def test_pvapy_structures(pvapy: Any) -> None:
    pvapy.put("struct", {"value": 1, "in.a": 2.5, "in.b": ["x", "y"]})
    assert pvapy.get("struct").to_dict() == {"value": 1, "in": {"a": 2.5, "b": ["x", "y"]}}
    pvapy.put("struct", {"in.a": 9.0})
    # The server sends what changed since the last get; the whole is given.
    found = pvapy.get("struct")
    assert found.to_dict() == {"value": 1, "in": {"a": 9.0, "b": ["x", "y"]}}
    assert found.changed_names() == ["value", "in.a", "in.b"]
    part = pvapy.get("struct", "field(in.b)")
    assert part.to_dict() == {"in": {"b": ["x", "y"]}}
    pvapy.put("union", {"value": UnionValue("i", 4)})
    assert pvapy.get("union")["value"] == UnionValue("i", 4)
    pvapy.put("list", {"value": [{"a": 5}, {"a": 6}, {"a": 7}]})
    assert [one["a"] for one in pvapy.get("list")["value"]] == [5, 6, 7]


def test_pvapy_large_and_in_segments(pvapy: Any) -> None:
    assert pvapy.get("big")["value"].tolist() == list(range(200_000))
    turned = np.arange(200_000.0)[::-1].copy()
    pvapy.put("big", turned)
    assert np.array_equal(pvapy.get("big")["value"], turned)
    pvapy.put("big", np.arange(200_000.0))
    frame = pvapy.get("image")
    assert (frame.unique_id, frame.data.shape, frame.data.dtype) == (3, (100, 80), np.uint16)
    assert np.array_equal(frame.data.ravel(), np.arange(8000))


def test_pvapy_put_get_process_info(pvapy: Any) -> None:
    pv = pvapy.put_get("scalarint", 5, "putField(value)getField(value)")
    assert pv["value"] == 5
    pvapy.process("scalarint")
    assert pvapy.info("struct") == FieldDesc.of("struct{int32 value, struct{double a, string[] b} in}")
    assert pvapy.info("struct", "in.a") == FieldDesc.of("double")
    with pytest.raises(RemoteError, match="illegal field"):
        pvapy.info("struct", "nope")


def test_pvapy_parts_of_arrays(pvapy: Any) -> None:
    assert pvapy.array_get("big", 2, 3, 2).tolist() == [2.0, 4.0, 6.0]
    pvapy.put("arrayint", [1, 2, 3, 4])
    assert pvapy.array_length("arrayint") == 4
    pvapy.array_put("arrayint", [9, 8], 1)
    assert pvapy.array_get("arrayint").tolist() == [1, 9, 8, 4]


def test_pvapy_errors(pvapy: Any) -> None:
    with pytest.raises(RemoteError, match="pv not found"):
        pvapy.get("nope")
    with pytest.raises(RemoteError, match="no fields from the following request were found"):
        pvapy.get("struct", "field(nope)")
    with pytest.raises(RemoteError, match="no fields from the following request were found"):
        pvapy.monitor("struct", "field(nope)").next(5)
    with pytest.raises(RemoteError, match="not supported"):
        pvapy.rpc("struct", a=1)
    assert pvapy.get("scalarstring")["value"] == "text"


def test_pvapy_says_of_itself(pvapy: Any, pvapy_server: str) -> None:
    assert {"scalarint", "struct", "count"} <= set(pvapy.list_pvs(pvapy_server))
    assert pvapy.server_info(pvapy_server)["implLang"] == "cpp"


def test_pvapy_monitor(pvapy: Any) -> None:
    subscription = pvapy.monitor("count", queue_size=8)
    values = [subscription.next(5).value["value"] for _ in range(30)]
    assert values == list(range(values[0], values[0] + 30))


def test_pvapy_monitor_pipelined(pvapy: Any) -> None:
    """pvDatabase fills the window with what it has sent already, to its own client, too."""
    subscription = pvapy.monitor("count", pipeline=True, queue_size=4)
    values = [subscription.next(5).value["value"] for _ in range(60)]
    assert len(set(values)) > 5
    assert (subscription.received >= 60, subscription.dropped) == (True, 0)


def test_pvapy_columns(pvapy: Any) -> None:
    subscription = pvapy.monitor("count", columns=["value"])
    rows: list[int] = []
    while len(rows) < 20:
        rows += subscription.next(5)["value"].tolist()
    assert rows == list(range(rows[0], rows[0] + len(rows)))


# -- spvirit


def test_spvirit(spvirit: Any, spvirit_server: str) -> None:
    for x in (7.25, 1.5):
        spvirit.put("x", x)
        assert [spvirit.get("x") for _ in range(3)] == [x] * 3
    assert spvirit.get("text") == "hi"
    spvirit.put("wave", [5.0, 6.0])
    assert spvirit.get("wave").tolist() == [5.0, 6.0]
    assert spvirit.put_get("x", 2.0) == 2.0
    assert normative.kind(spvirit.info("x").id) == "NTScalar"
    with pytest.raises(RemoteError, match="Write access denied"):
        spvirit.put("fixed", 3.0)
    with pytest.raises(RemoteError, match="not found"):
        spvirit.get("nope")
    with pytest.raises(RemoteError, match="RPC not supported"):
        spvirit.rpc("x", a=1)
    assert {"x", "wave", "count"} <= set(spvirit.list_pvs(spvirit_server))


@pytest.mark.parametrize("pipeline", [False, True])
def test_spvirit_monitor(spvirit: Any, pipeline: bool) -> None:
    subscription = spvirit.monitor("count", pipeline=pipeline, queue_size=8)
    values = [int(subscription.next(5).value) for _ in range(20)]
    assert values == sorted(set(values))
    rows: list[int] = []
    columns = spvirit.monitor("count", columns=["value"])
    while len(rows) < 10:
        rows += columns.next(5)["value"].tolist()
    assert rows == sorted(set(rows))


# -- servers that go away


def test_a_server_that_is_killed_and_started_again(kind: Any) -> None:
    tcp, udp = free_ports(2)
    process = start(P4P, tcp, udp)
    face = kind(server=f"127.0.0.1:{tcp}", timeout=20)
    try:
        subscription = face.monitor("count", events=True)
        assert isinstance(subscription.next(10), client.Connected)
        assert isinstance(subscription.next(10), client.Reading)
        stop(process)
        while not isinstance(item := subscription.next(10), client.Disconnected):
            pass
        assert item.name == "count"
        process = start(P4P, tcp, udp)
        assert isinstance(subscription.next(20), client.Connected)
        reading = subscription.next(10)
        assert isinstance(reading.raw, Value)
        assert reading.value < 1000
        assert face.get("scalarL") == 5
    finally:
        face.end()
        stop(process)

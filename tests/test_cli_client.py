"""The command line: get, put, call, info and list, against a server that does what the test says (livepeer.py)."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pvafast
from clitools import interrupt, started
from livepeer import LiveServer, nt_double, until
from pvafast import FieldDesc, Value, messages, normative
from pvafast.connection import OperationRequest
from pvafast.messages import Status, StatusType

ALL = FieldDesc.parse(
    "all_t{int32 i, bool b, string s, float f, double[] d, string[] names, any a, union{int32 x, string y} u, "
    "elem{int32 q}[] parts, inner{double z} in}"
)


@pytest.fixture
def server(loopback: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    pvs = {
        "x": nt_double(1.5),
        "y": nt_double(2.5),
        "text": normative.NTScalar("string").wrap("hello"),
        "wave": normative.NTScalar("int32[]").wrap(np.arange(30, dtype=np.int32)),
        "mode": normative.NTEnum(["idle", "run"]).wrap(0),
        "all": Value(ALL),
        "bare": Value("int16", 7),
    }
    with LiveServer(pvs) as made:
        loopback.setenv("EPICS_PVA_BROADCAST_PORT", "1")  # where nobody answers
        yield made


def at(server: LiveServer) -> tuple[str, str]:
    return "--server", server.address


# -- get


def test_get(run: Any, server: LiveServer) -> None:
    status, out, err = run("get", "x", *at(server))
    assert status == 0
    assert err == []
    assert out == [
        "x",
        'struct "epics:nt/NTScalar:1.0"',
        "value double = 1.5",
        "alarm.severity int32_t = 0",
        "alarm.status int32_t = 0",
        'alarm.message string = ""',
        "timeStamp.secondsPastEpoch int64_t = 0",
        "timeStamp.nanoseconds int32_t = 0",
        "timeStamp.userTag int32_t = 0",
    ]


def test_get_several_in_the_order_asked_for(run: Any, server: LiveServer) -> None:
    status, out, _ = run("get", "y", "x", "y", *at(server))
    assert status == 0
    assert [line for line in out if line in "xy"] == ["y", "x", "y"]
    assert [line for line in out if line.startswith("value ")] == [
        f"value double = {x}" for x in (2.5, 1.5, 2.5)
    ]


def test_get_of_which_one_fails(run: Any, server: LiveServer) -> None:
    status, out, err = run("get", "x", "nope", "y", *at(server))
    assert status == 1
    assert [line for line in out if line in "xy"] == ["x", "y"]
    assert err[-1] == "pvafast: nope: ERROR: no such PV"


def test_get_of_which_one_is_not_answered(run: Any, server: LiveServer) -> None:
    server.handle = lambda peer, event: (
        isinstance(event, OperationRequest) and event.operation.channel.name == "y"
    )
    status, out, err = run("get", "x", "y", "-w", "0.3", *at(server))
    assert status == 1
    assert out[::2][:2] == ["x", "value double = 1.5"]
    assert err == [f"pvafast: y: {server.address} is connected, but does not answer within 0.3 s"]


def test_get_of_what_no_server_has(run: Any, server: LiveServer) -> None:
    status, out, err = run("get", "x", "-w", "0.3")
    assert (status, out) == (1, [])
    assert err == ["pvafast: x: no server answers to the name within 0.3 s"]


def test_get_as_a_tree(run: Any, server: LiveServer) -> None:
    status, out, _ = run("get", "-F", "tree", "x", *at(server))
    assert status == 0
    assert out[:3] == ["x", 'struct "epics:nt/NTScalar:1.0" {', "    double value = 1.5"]
    assert out[-1] == "}"


def test_get_some_elements(run: Any, server: LiveServer) -> None:
    _, usual, _ = run("get", "wave", *at(server))
    _, few, _ = run("get", "-#", "2", "wave", *at(server))
    _, all, _ = run("get", "-#", "0", "wave", *at(server))
    assert usual[2].endswith(", 18, 19, ...]")
    assert few[2] == "value int32_t[] = {30}[0, 1, ...]"
    assert all[2].endswith(", 28, 29]")


def test_get_as_json(run: Any, server: LiveServer) -> None:
    status, out, _ = run("get", "--json", "x", "wave", "bare", *at(server))
    assert status == 0
    x, wave, bare = map(json.loads, out)
    assert x["pv"] == "x"
    assert x["changed"][0] == "value"
    assert x["value"]["value"] == 1.5
    assert wave["value"]["value"] == list(range(30))
    assert bare == {"pv": "bare", "value": 7}


def test_get_with_a_request(run: Any, server: LiveServer) -> None:
    assert run("get", "-r", "field(value)record[process=true]", "x", *at(server))[0] == 0
    (asked,) = server.asked(messages.GetInit)
    assert pvafast.request.format(asked.request) == "field(value)record[process=true]"
    status, out, err = run("get", "-r", "field(", "x", *at(server))
    assert (status, out) == (2, [])
    assert "column 7" in err[-1]


def test_a_name_can_do_no_harm_to_a_terminal(run: Any, server: LiveServer) -> None:
    server.pvs["evil\x1b[2J"] = nt_double(1)
    assert run("get", "evil\x1b[2J", *at(server))[1][0] == r"evil\x1b[2J"
    status, _, err = run("get", "worse\x1b[2J", *at(server))
    assert status == 1
    assert err[-1] == r"pvafast: worse\x1b[2J: ERROR: no such PV"


def test_wrong_servers(run: Any, server: LiveServer) -> None:
    for wrong in ("", "host:port", "0.0.0.0", "127.0.0.1:99999"):
        status, out, err = run("get", "x", "--server", wrong)
        assert (status, out) == (2, [])
        assert err[-1].startswith("pvafast get: error: argument --server: ")


def test_a_server_that_is_not_there(run: Any, server: LiveServer) -> None:
    with socket.socket() as sock:  # bound, but nobody listens
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        status, out, err = run("get", "x", "-w", "0.5", "--server", address)
    assert (status, out) == (1, [])
    assert err[-1].startswith(f"pvafast: x: no connection to {address} within 0.5 s")


def test_the_configuration_is_shown(run: Any, server: LiveServer) -> None:
    status, out, err = run("get", "-v", "x", *at(server))
    assert status == 0
    assert out[0] == "x"
    assert "EPICS_PVA_AUTO_ADDR_LIST=NO" in err


def test_ctrl_c_is_quiet(server: LiveServer) -> None:
    server.handle = lambda peer, event: isinstance(event, OperationRequest)
    with started("get", "x", "-w", "0", *at(server)) as process:
        assert until(lambda: server.asked(messages.GetInit), 20)
        assert interrupt(process) == (130, "", "")


# -- put


def put_value(server: LiveServer, *given: str, run: Any) -> Any:
    """What a put writes to the PV `all`: its marked fields."""
    status, out, err = run("put", "all", *given, *at(server))
    assert (status, out, err) == (0, [], [])
    (_, value), *_ = server.puts[-1:]
    return {name: value[name] for name in value.changed_names()}


def test_put_a_value(run: Any, server: LiveServer) -> None:
    for text, x in (("2.5", 2.5), ("-1e3", -1000.0), ("-.5", -0.5), ("-inf", float("-inf")), ("7", 7.0)):
        assert run("put", "x", text, *at(server)) == (0, [], [])
        assert server.pvs["x"]["value"] == x
        name, value = server.puts[-1]
        assert (name, value.changed_names()) == ("x", ["value"])


def test_put_texts_as_they_are(run: Any, server: LiveServer) -> None:
    for text in ("5", "true", '"quoted"', "[1, 2]", '{"no": "field of it"}', "", "a b", "value = 5"):
        given = f"value={text}" if "=" in text or text.startswith("{") else text
        assert run("put", "text", given, *at(server)) == (0, [], [])
        assert server.pvs["text"]["value"] == text


def test_put_a_choice(run: Any, server: LiveServer) -> None:
    for text, index in (
        ("run", 1),
        ("0", 0),
        ("value=run", 1),
        ("value.index=0", 0),
        ('{"value.index": 1}', 1),
    ):
        assert run("put", "mode", text, *at(server)) == (0, [], [])
        assert server.pvs["mode"]["value.index"] == index
        assert server.puts[-1][1].changed_names() == ["value.index"]
    status, _, err = run("put", "mode", "jump", *at(server))
    assert status == 1
    assert err == ["pvafast: mode: 'jump' is none of the choices 'idle', 'run' at `value`"]


def test_put_an_array(run: Any, server: LiveServer) -> None:
    assert run("put", "wave", "[1, -2, 3]", *at(server)) == (0, [], [])
    assert server.pvs["wave"]["value"].tolist() == [1, -2, 3]


def test_put_a_value_without_fields(run: Any, server: LiveServer) -> None:
    assert run("put", "bare", "0x10", *at(server)) == (0, [], [])
    assert server.puts[-1][1][""] == 16


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (["i=5"], {"i": 5}),
        (["i=-0x10", "s=a=b", "b=TRUE"], {"i": -16, "s": "a=b", "b": True}),
        (["b=0", "f=nan"], {"b": False, "f": "nan"}),
        (['d=[1, "NaN", "-Infinity"]'], {"d": "[1.0, nan, -inf]"}),
        (['names=["a", ""]'], {"names": ["a", ""]}),
        (["a=5"], {"a": pvafast.AnyValue("int64", 5)}),
        (['a={"any": "int8[]", "value": [1, 2]}'], {"a": "int8[] [1, 2]"}),
        (['u={"union": "y", "value": "5"}'], {"u": pvafast.UnionValue("y", "5")}),
        (["u=5"], {"u": pvafast.UnionValue("x", 5)}),
        (["in.z=1.5"], {"in.z": 1.5}),
        (['in={"z": "Infinity"}'], {"in.z": float("inf")}),
        (['{"i": 1, "in": {"z": 2}, "s": "x"}'], {"i": 1, "s": "x", "in.z": 2.0}),
        (['{"in.z": 3}'], {"in.z": 3.0}),
        (['parts=[{"q": 1}, null]'], {"parts": "1, null"}),
    ],
)
def test_put_fields(run: Any, server: LiveServer, given: list[str], written: dict[str, Any]) -> None:
    found = put_value(server, *given, run=run)
    if "f" in found:
        found["f"] = str(found["f"])
    if "d" in found:
        found["d"] = str(found["d"].tolist())
    if "parts" in found:
        found["parts"] = ", ".join("null" if part is None else str(part["q"]) for part in found["parts"])
    if isinstance(written.get("a"), str):
        found["a"] = f"{found['a'].type.format('short')} {found['a'].value.tolist()}"
    assert found == written


def test_what_get_shows_as_json_can_be_put(run: Any, server: LiveServer) -> None:
    value = server.pvs["all"]
    value["d"] = [1.0, float("nan")]
    value["a"] = pvafast.AnyValue("double[]", [1.0, float("inf")])
    value["u"] = pvafast.UnionValue("y", "text")
    value["parts"] = [Value(ALL["parts"].element, {"q": 1}), None]
    value["in.z"] = -2.5
    before = value.copy()
    _, (line,), _ = run("get", "--json", "all", *at(server))
    server.pvs["all"] = Value(ALL)
    assert run("put", "all", json.dumps(json.loads(line)["value"]), *at(server)) == (0, [], [])
    assert server.pvs["all"] == before


@pytest.mark.parametrize(
    ("pv", "given", "message"),
    [
        ("x", ["five"], "x: 'five' is no double at `value`"),
        ("x", ["value=1", "nope=2"], "x: epics:nt/NTScalar:1.0 has no such field at `nope`"),
        ("all", ["1"], "all: "),
        ("all", ["i=1.5"], "all: '1.5' is no int32 at `i`"),
        ("all", ["i=3000000000"], "all: int32 cannot hold 3000000000 at `i`"),
        ("all", ["b=maybe"], "all: 'maybe' is no bool at `b`"),
        ("all", ["d=1, 2"], "all: '1, 2' is no JSON of double[] at `d`"),
        ("all", ['d=["x"]'], "all: double expected, str found at `d[0]`"),
        ("all", ["in=5"], "all: structure expected, int found at `in`"),
        ("wave", ["5"], "wave: array of int32 expected, int found at `value`"),
        ("nope", ["5"], "nope: ERROR: no such PV"),
    ],
)
def test_put_what_does_not_fit(run: Any, server: LiveServer, pv: str, given: list[str], message: str) -> None:
    status, out, err = run("put", pv, *given, *at(server))
    assert (status, out) == (1, [])
    assert err[-1].startswith(f"pvafast: {message}")
    assert server.puts == []


@pytest.mark.parametrize("given", [["1", "2"], ["i=1", "i=2"], ["i=1", "2"], []])
def test_put_wrongly(run: Any, server: LiveServer, given: list[str]) -> None:
    status, out, err = run("put", "all", *given, *at(server))
    assert (status, out) == (2, [])
    assert err[-1].startswith("pvafast")
    assert server.events == []


def test_put_options(run: Any, server: LiveServer) -> None:
    assert run("put", "x", "1", "--wait", "--process", "passive", *at(server))[0] == 0
    assert run("put", "x", "1", "--no-wait", "-r", "field(value)", *at(server))[0] == 0
    first, second = [pvafast.request.format(m.request) for m in server.asked(messages.PutInit)]
    assert "block=true" in first
    assert "process=passive" in first
    assert second == "field(value)record[block=false]"


@pytest.mark.parametrize("command", [["get"], ["put", "x"], ["call"], ["info"]])
def test_every_command_gives_up(run: Any, server: LiveServer, command: list[str]) -> None:
    status, out, err = run(command[0], "nowhere", *command[1:], "-w", "0.2")
    assert (status, out) == (1, [])
    assert err == ["pvafast: nowhere: no server answers to the name within 0.2 s"]


# -- call


def test_call(run: Any, server: LiveServer) -> None:
    status, out, err = run("call", "x", "a=1", "b=x=y", "c:=2.5", "d:=[1, 2]", *at(server))
    assert (status, err) == (0, [])
    (asked,) = server.asked(messages.Rpc)
    uri = normative.read(asked.value)
    assert (uri.scheme, uri.path) == ("pva", "x")
    assert asked.value.type["query"].format("short") == "struct{string a, string b, double c, int64[] d}"
    assert dict(uri.query) | {"d": uri.query["d"].tolist()} == {"a": "1", "b": "x=y", "c": 2.5, "d": [1, 2]}
    # The server gives back what it got.
    assert out[0] == 'struct "epics:nt/NTURI:1.0" {'
    assert '        string a = "1"' in out


def test_call_without_arguments(run: Any, server: LiveServer) -> None:
    assert run("call", "x", *at(server))[0] == 0
    (asked,) = server.asked(messages.Rpc)
    assert asked.value.type["query"].format("short") == "struct{}"


def test_what_a_call_gives(run: Any, server: LiveServer) -> None:
    results = iter([None, pvafast.AnyValue("int32", 5), None, pvafast.AnyValue("int32", 5)])

    def handle(peer: Any, event: Any) -> bool:
        if isinstance(event, OperationRequest) and isinstance(event.message, messages.Rpc):
            peer.send(messages.RpcReply(ioid=event.message.ioid, value=next(results)))
            return True
        return False

    server.handle = handle
    assert run("call", "x", *at(server)) == (0, [], [])
    assert run("call", "x", *at(server)) == (0, ["int32_t = 5"], [])
    assert run("call", "--json", "x", *at(server)) == (0, ['{"pv": "x", "value": null}'], [])
    assert run("call", "--json", "x", *at(server)) == (0, ['{"pv": "x", "value": 5}'], [])


def test_a_call_that_fails(run: Any, server: LiveServer) -> None:
    def handle(peer: Any, event: Any) -> bool:
        if isinstance(event, OperationRequest) and isinstance(event.message, messages.Rpc):
            status = Status(StatusType.ERROR, "not\ntoday", "at noon")
            peer.send(messages.RpcReply(ioid=event.message.ioid, status=status, value=None))
            return True
        return False

    server.handle = handle
    assert run("call", "x", *at(server)) == (1, [], ["pvafast: x: ERROR: not today"])


def test_call_wrongly(run: Any, server: LiveServer) -> None:
    for given in (["a"], ["a:=x"], ["a:=null"], []):
        status, out, err = run("call", *(["x", *given] if given else []), *at(server))
        assert (status, out) == (2, [])
        assert err[-1].startswith("pvafast")
    assert server.asked(messages.Rpc) == []


# -- info


def test_info(run: Any, server: LiveServer) -> None:
    status, out, err = run("info", "x", "bare", *at(server))
    assert (status, err) == (0, [])
    assert out == ["x", *str(server.pvs["x"].type).splitlines(), "bare", "int16_t"]
    assert out[1:3] == ['struct "epics:nt/NTScalar:1.0" {', "    double value"]


def test_info_as_json(run: Any, server: LiveServer) -> None:
    status, (line,), _ = run("info", "--json", "all", *at(server))
    assert status == 0
    found = json.loads(line)
    assert found["pv"] == "all"
    assert FieldDesc.parse(found["type"]) == ALL


def test_info_of_a_field(run: Any, server: LiveServer) -> None:
    assert run("info", "x", "--field", "alarm.severity", *at(server)) == (0, ["x", "int32_t"], [])


def test_info_of_what_is_not_there(run: Any, server: LiveServer) -> None:
    status, out, err = run("info", "nope", "bare", *at(server))
    assert (status, out) == (1, ["bare", "int16_t"])
    assert err[-1] == "pvafast: nope: ERROR: no such PV"


def test_info_of_nothing(run: Any, loopback: pytest.MonkeyPatch) -> None:
    assert run("info")[0] == 2


def test_info_of_this_host(run: Any, loopback: pytest.MonkeyPatch) -> None:
    loopback.setenv("EPICS_PVA_ADDR_LIST", "10.1.2.3 10.1.2.4:77")
    loopback.setenv("EPICS_PVA_NAME_SERVERS", "10.1.2.5")
    loopback.setenv("EPICS_PVAS_SERVER_PORT", "4711")
    loopback.setenv("EPICS_PVA_SERVER_PORT", "5075")
    status, out, err = run("info", "-D")
    assert (status, err) == (0, [])
    assert out[0].startswith(f"pvafast {pvafast.__version__} (")
    assert any(re.fullmatch(r"    \S+ 127\.0\.0\.1", line) for line in out)
    assert "    EPICS_PVA_ADDR_LIST=10.1.2.3:5076 10.1.2.4:77" in out
    where = out.index("searches go to")
    assert out[where + 1 : where + 4] == ["    10.1.2.3:5076", "    10.1.2.4:77", "    10.1.2.5:5075"]
    assert "    EPICS_PVAS_SERVER_PORT=4711" in out


# -- list


def with_channel(server: LiveServer, **answers: Value) -> None:
    """The server answers calls of its channel `server`: op to result."""

    def handle(peer: Any, event: Any) -> bool:
        if isinstance(event, OperationRequest) and isinstance(event.message, messages.Rpc):
            op = event.message.value["query.op"]
            peer.send(messages.RpcReply(ioid=event.message.ioid, value=answers[op]))
            return True
        return False

    server.handle = handle


def test_list(run: Any, server: LiveServer) -> None:
    with_channel(server, channels=normative.NTScalar("string[]").wrap(["a", "b\x1b[2J"]))
    assert run("list", server.address) == (0, ["a", r"b\x1b[2J"], [])
    status, (line,), _ = run("list", "--json", server.address)
    assert status == 0
    assert json.loads(line) == {"server": server.address, "pvs": ["a", "b\x1b[2J"]}
    assert run("list", "-v", server.address, server.address)[1][::3] == [f"# from {server.address}"] * 2


def test_list_what_a_server_is(run: Any, server: LiveServer) -> None:
    type = FieldDesc.structure("", {"version": "string", "implLang": "string"})
    with_channel(server, info=Value(type, {"version": "X 1.2", "implLang": "cpp"}))
    assert run("list", "-i", server.address) == (0, [f'{server.address} version="X 1.2" lang="cpp"'], [])
    status, (line,), _ = run("list", "-i", "--json", server.address)
    assert status == 0
    assert json.loads(line) == {"server": server.address, "version": "X 1.2", "lang": "cpp"}


def test_list_of_a_server_that_does_not_answer(run: Any, server: LiveServer) -> None:
    server.handle = lambda peer, event: isinstance(event, OperationRequest)
    status, out, err = run("list", "-w", "0.3", server.address)
    assert (status, out) == (1, [])
    assert err == [
        f"pvafast: {server.address}: {server.address} is connected, but does not answer within 0.3 s"
    ]


def test_list_wrongly(run: Any, loopback: pytest.MonkeyPatch) -> None:
    assert run("list", "-i")[0] == 2
    assert run("list", "-A", "-p")[0] == 2
    assert run("list", "nowhere:x")[0] == 2

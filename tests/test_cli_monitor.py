"""The command line: monitor, against a server that does what the test says (livepeer.py)."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pvafast
from clitools import interrupt, started
from livepeer import NT_DOUBLE, NT_LONG, LiveServer, nt_double, until
from pvafast import BitSet, Value, messages, ndarray, normative
from pvafast.cli.recording import Recording
from pvafast.connection import OperationRequest
from pvafast.messages import Status, StatusType


@pytest.fixture
def server(loopback: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    with LiveServer({"x": nt_double(1.5), "y": nt_double(2.5)}) as made:
        loopback.setenv("EPICS_PVA_BROADCAST_PORT", "1")  # where nobody answers
        yield made


def at(server: LiveServer) -> tuple[str, str]:
    return "--server", server.address


def posting(server: LiveServer, name: str, *actions: Callable[[], Any] | Value) -> threading.Thread:
    """When a PV is subscribed to: send Values, or do what a function does, one after the other."""

    def run() -> None:
        assert until(lambda: server.monitors(name))
        time.sleep(0.05)  # the first update is on its way
        for action in actions:
            if isinstance(action, Value):
                server.post(name, action)
            else:
                action()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def final(server: LiveServer, name: str, status: Status = Status.OK) -> None:
    """End the subscriptions to a PV."""
    for peer, ioid in server.monitors(name):
        peer.send(messages.MonitorFinal(ioid=ioid, status=status))


# -- updates


def test_updates(run: Any, server: LiveServer) -> None:
    thread = posting(
        server, "x", nt_double(7), Value(NT_DOUBLE, {"alarm.severity": 2, "alarm.message": "HIHI"})
    )
    status, out, err = run("monitor", "x", "-n", "3", *at(server))
    thread.join()
    assert status == 0
    assert out[:3] == ["x", 'struct "epics:nt/NTScalar:1.0"', "value double = 1.5"]
    assert len(out) == 1 + 8 + 2 + 3
    assert out[9:] == [
        "x",
        "value double = 7",
        "x",
        "alarm.severity int32_t = 2",
        'alarm.message string = "HIHI"',
    ]
    assert err == [f"pvafast: x: connected to {server.address}"]


def test_updates_of_several(run: Any, server: LiveServer) -> None:
    status, out, err = run("monitor", "x", "y", "x", "-n", "2", *at(server))
    assert status == 0
    assert sorted(line for line in out if line in "xy") == ["x", "y"]
    assert len(err) == 2


def test_updates_as_trees(run: Any, server: LiveServer) -> None:
    thread = posting(server, "x", nt_double(7))
    status, out, _ = run("monitor", "-F", "tree", "x", "-n", "2", *at(server))
    thread.join()
    assert status == 0
    assert out.count('struct "epics:nt/NTScalar:1.0" {') == 2
    assert "    double value = 7" in out


def test_updates_as_json(run: Any, server: LiveServer) -> None:
    before = time.time()
    lost = BitSet([NT_DOUBLE.index("value")])
    thread = posting(server, "x", lambda: server.post("x", nt_double(7), overrun=lost))
    status, out, _ = run("monitor", "--json", "x", "-n", "2", *at(server))
    thread.join()
    assert status == 0
    first, second = map(json.loads, out)
    assert before - 1 < first["time"] < second["time"] < time.time() + 1
    assert (first["pv"], first["overrun"], first["merged"]) == ("x", [], 0)
    assert second["changed"] == ["value"]
    assert second["overrun"] == ["value"]
    assert second["value"]["value"] == 7.0


def test_what_the_server_dropped_is_told(run: Any, server: LiveServer) -> None:
    lost = BitSet([NT_DOUBLE.index("value")])
    thread = posting(server, "x", lambda: server.post("x", nt_double(7), overrun=lost))
    _, out, _ = run("monitor", "x", "-n", "2", *at(server))
    thread.join()
    assert out[9] == "x  overrun of value"


def test_a_request_and_a_pipeline(run: Any, server: LiveServer) -> None:
    request = "field(value)record[pipeline=true,queueSize=10]"
    thread = posting(server, "x", *(nt_double(i) for i in range(9)))
    status, _, _ = run("monitor", "-r", request, "x", "-n", "10", *at(server))
    thread.join()
    assert status == 0
    (init,) = server.asked(messages.MonitorInit)
    assert init.nfree == 10
    assert pvafast.request.format(init.request) == request
    acks = until(lambda: server.asked(messages.MonitorAck))
    assert acks[0].nfree == 5  # half of the queue


def test_it_ends_after_a_time(run: Any, server: LiveServer) -> None:
    begin = time.monotonic()
    status, out, _ = run("monitor", "x", "--seconds", "0.3", *at(server))
    assert status == 0
    assert out[0] == "x"
    assert time.monotonic() - begin >= 0.3


def test_it_ends_when_the_server_ends_it(run: Any, server: LiveServer) -> None:
    thread = posting(server, "x", nt_double(7), lambda: final(server, "x"))
    status, out, err = run("monitor", "-v", "x", *at(server))
    thread.join()
    assert status == 0
    assert out[-2:] == ["x", "value double = 7"]
    assert err[-1] == "pvafast: x: the server has ended the subscription"


def test_a_subscription_that_fails(run: Any, server: LiveServer) -> None:
    thread = posting(server, "x", lambda: final(server, "x", Status(StatusType.ERROR, "enough", "")))
    status, out, err = run("monitor", "x", *at(server))
    thread.join()
    assert status == 1
    assert out[0] == "x"
    assert err[-1] == "pvafast: x: ERROR: enough"


def test_a_subscription_that_is_refused(run: Any, server: LiveServer) -> None:
    def handle(peer: Any, event: Any) -> bool:
        if isinstance(event, OperationRequest) and isinstance(event.message, messages.MonitorInit):
            status = Status(StatusType.ERROR, "not for you", "")
            peer.send(messages.MonitorInitReply(ioid=event.message.ioid, status=status))
            return True
        return False

    server.handle = handle
    assert run("monitor", "x", *at(server)) == (1, [], ["pvafast: x: ERROR: not for you"])


def test_a_connection_that_is_lost(run: Any, server: LiveServer) -> None:
    thread = posting(server, "x", server.drop)
    status, out, err = run("monitor", "x", "-n", "2", *at(server))
    thread.join()
    assert status == 0
    assert [line for line in out if line.startswith("value")] == ["value double = 1.5"] * 2
    mine = [line for line in err if line.startswith("pvafast: x: ")]
    assert mine[0] == mine[2] == f"pvafast: x: connected to {server.address}"
    assert mine[1].startswith("pvafast: x: disconnected: ")


def test_a_pv_that_is_not_there(run: Any, server: LiveServer) -> None:
    status, out, err = run("monitor", "x", "-w", "0.2", "--seconds", "0.5")
    assert (status, out) == (1, [])
    assert err == ["pvafast: x: no server answers to the name within 0.2 s"]


def test_ctrl_c(server: LiveServer) -> None:
    with started("monitor", "x", *at(server)) as process:
        assert until(lambda: server.monitors("x"), 20)
        time.sleep(0.2)
        status, out, err = interrupt(process)
        assert status == 130
        assert out.splitlines()[:3:2] == ["x", "value double = 1.5"]
        assert err == f"pvafast: x: connected to {server.address}\n"


def test_a_broken_pipe_is_quiet(server: LiveServer) -> None:
    with started("monitor", "x", *at(server)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "x\n"
        process.stdout.close()
        with contextlib.suppress(OSError):  # it hangs up meanwhile
            until(lambda: server.post("x", nt_double(7)) or process.poll() is not None, 20)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == f"pvafast: x: connected to {server.address}\n"


# -- rates


def frame(number: int) -> Value:
    image = np.full((4, 6), number, np.uint16)
    return ndarray.NTNDArray().wrap(image, unique_id=number)


def test_rates(run: Any, server: LiveServer) -> None:
    server.pvs["cam"] = frame(1)
    lost = BitSet([server.pvs["cam"].type.index("uniqueId")])
    thread = posting(
        server, "cam", frame(2), frame(5), lambda: server.post("cam", frame(6), overrun=lost), frame(6)
    )
    status, out, _ = run("monitor", "--rate", "cam", "x", "-n", "6", *at(server))
    thread.join()
    assert status == 0
    cam, x = out[:2]
    number = r"[0-9.e+]+"
    tail = r"2 missing \(33 %\), 1 duplicate, 1 overrun"
    assert re.fullmatch(rf"cam +{number} Hz +{number} k?B/s  5 updates  {tail}", cam)
    assert re.fullmatch(rf"x   +{number} Hz +{number} B/s  1 update  ", x)
    assert out[2] == "cam"
    assert out[3].startswith("5 updates, ")
    assert out[4] == "5 frames: 2 missing (33 %), 1 duplicate"
    assert out[5] == "overruns: uniqueId"
    assert out[6:] == ["x", "1 update"]


def test_rates_as_json(run: Any, server: LiveServer) -> None:
    thread = posting(server, "x", *(nt_double(i) for i in range(9)))
    status, (line,), _ = run("monitor", "--rate", "--json", "x", "-n", "10", *at(server))
    thread.join()
    assert status == 0
    found = json.loads(line)
    assert (found["pv"], found["updates"], found["overruns"], found["missing"]) == ("x", 10, 0, 0)
    assert 5 < found["rate"] <= 10.1
    # An update of a double has a header, ioid, sub, two BitSets and 8 bytes; the first has all fields.
    assert found["bytes_per_second"] > 9 * 16 * 0.5


def test_rates_of_a_connection_that_is_lost(run: Any, server: LiveServer) -> None:
    server.pvs["cam"] = frame(10)
    thread = posting(server, "cam", server.drop)
    status, out, _ = run("monitor", "--rate", "cam", "-n", "2", *at(server))
    thread.join()
    assert status == 0
    assert out[-1] == "2 frames: none missing"  # the same number again is none that was doubled


# -- files


def test_save(run: Any, server: LiveServer, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    before = time.time_ns()
    lost = BitSet([NT_DOUBLE.index("value")])
    thread = posting(
        server,
        "x",
        Value(
            NT_DOUBLE, {"value": 7.0, "timeStamp.secondsPastEpoch": 1_700_000_000, "timeStamp.nanoseconds": 5}
        ),
        lambda: server.post("x", nt_double(8), overrun=lost),
    )
    status, out, err = run("monitor", "--save", str(path), "x", "y", "-n", "4", *at(server))
    thread.join()
    assert (status, out) == (0, [])
    assert set(err[2:]) == {"pvafast: x: 3 updates saved, 1 with overruns", "pvafast: y: 1 update saved"}
    with np.load(path) as found:
        assert found["x/value"].tolist() == [1.5, 7.0, 8.0]
        assert found["x/value"].dtype == np.float64
        assert found["x/time"].tolist() == [0, 1_700_000_000_000_000_005, 1_700_000_000_000_000_005]
        assert found["x/overrun"].tolist() == [False, False, True]
        assert found["x/alarm.message"].tolist() == ["", "", ""]
        assert found["y/value"].tolist() == [2.5]
        received = found["x/received"]
        assert received.dtype == np.int64
        assert before - 10**9 < received[0] <= received[-1] < time.time_ns() + 10**9


def test_save_when_interrupted(server: LiveServer, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with started("monitor", "--save", str(path), "x", *at(server)) as process:
        assert until(lambda: server.monitors("x"), 20)
        server.post("x", nt_double(7))
        time.sleep(0.3)
        status, _, err = interrupt(process)
        assert status == 130
        assert err.splitlines()[-1] == "pvafast: x: 2 updates saved"
        with np.load(path) as found:
            assert found["x/value"].tolist() == [1.5, 7.0]


def test_save_where_nothing_can_be_written(run: Any, server: LiveServer, tmp_path: Path) -> None:
    status, out, err = run("monitor", "--save", str(tmp_path / "no" / "x.npz"), "x", *at(server))
    assert (status, out) == (2, [])
    assert err == [f"pvafast: {tmp_path}/no/x.npz: No such file or directory"]
    assert server.events == []


def columns(type: str | pvafast.FieldDesc, *rows: dict[str, Any]) -> pvafast.Columns:
    made = pvafast.Columns(type)
    for i, row in enumerate(rows):
        made.add_update(pvafast.Codec().encode_update(Value(made.type, row)) + b"\0", received=i)
    return made


def test_what_is_in_a_file(tmp_path: Path) -> None:
    type = pvafast.FieldDesc.parse(
        "struct{int16 i, string s, float[] same, int8[] ragged, string[] names, any a, union{double[] d, int32[] i} u}"
    )
    recording = Recording(str(tmp_path / "x.npz"))
    first = {"i": 1, "s": "é", "same": [1, 2], "ragged": [1], "names": ["a", "b"], "a": 5}
    second = {"i": 2, "s": "", "same": [3, 4], "ragged": [], "names": [], "a": "text"}
    third = {"i": 3, "s": "x", "same": [5, 6], "ragged": [2, 3], "names": ["c"], "a": None}
    for row, u in ((first, [1.0, 2.0]), (second, [3.0]), (third, [])):
        row["u"] = pvafast.UnionValue("d", u)
    recording.add("p", columns(type, first, second))
    recording.add("p", columns(type, third))
    recording.add("q", columns(normative.NTScalar("double").type, {"value": 1.0}))
    recording.add("q", columns("struct{int64 value}", {"value": 2}))  # another type
    recording.write()
    assert list(recording.told()) == [("p", 3, 0), ("q", 2, 0)]
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert found["p/i"].dtype == np.int16
        assert found["p/i"].tolist() == [1, 2, 3]
        assert found["p/s"].tolist() == ["é", "", "x"]
        assert found["p/same"].tolist() == [[1, 2], [3, 4], [5, 6]]
        assert found["p/ragged"].tolist() == [1, 2, 3]
        assert found["p/ragged.offsets"].tolist() == [0, 1, 1, 3]
        assert found["p/names"].tolist() == ["a", "b", "c"]
        assert found["p/names.offsets"].tolist() == [0, 2, 2, 3]
        assert [json.loads(text) for text in found["p/a"]] == [
            {"any": "int64", "value": 5},
            {"any": "string", "value": "text"},
            None,
        ]
        assert found["p/u"].tolist() == [1.0, 2.0, 3.0]
        assert found["p/u.offsets"].tolist() == [0, 2, 3, 3]
        assert found["p/received"].tolist() == [0, 1, 0]
        assert found["q/value"].tolist() == [1.0]
        assert found["q@2/value"].tolist() == [2]
        assert found["q@2/value"].dtype == np.int64


def test_frames_in_a_file(run: Any, server: LiveServer, tmp_path: Path) -> None:
    server.pvs["cam"] = frame(1)
    thread = posting(server, "cam", frame(2), frame(3))
    path = str(tmp_path / "cam.npz")
    assert run("monitor", "--save", path, "cam", "-n", "3", *at(server))[0] == 0
    thread.join()
    with np.load(path) as found:
        assert found["cam/value"].shape == (3, 24)
        assert found["cam/value"].dtype == np.uint16
        assert found["cam/value"][:, 0].tolist() == found["cam/uniqueId"].tolist() == [1, 2, 3]


def test_a_type_that_changes(run: Any, server: LiveServer, tmp_path: Path) -> None:
    def change() -> None:
        server.pvs["x"] = Value(NT_LONG, {"value": 5})
        server.drop()

    thread = posting(server, "x", change)
    path = str(tmp_path / "x.npz")
    assert run("monitor", "--save", path, "x", "-n", "2", *at(server))[0] == 0
    thread.join()
    with np.load(path) as found:
        assert found["x/value"].tolist() == [1.5]
        assert found["x@2/value"].tolist() == [5]


def test_wrong_usage(run: Any, server: LiveServer) -> None:
    for wrong in (["--rate", "--save", "f", "x"], ["-n", "-1", "x"], []):
        status, out, err = run("monitor", *wrong, *at(server))
        assert (status, out) == (2, [])
        assert err[-1].startswith("pvafast monitor: error: ")

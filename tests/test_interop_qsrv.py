"""Records and groups as QSRV sends them: that of EPICS 7 (pvAccessCPP) and that of pvxs, in soft IOCs on 127.0.0.1."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pvafast.sync
from pvafast import ndarray, normative
from test_interop import free_ports

pytestmark = pytest.mark.interop

DATABASE = """
record(ai, "ai") {
    field(VAL, "21.5") field(EGU, "C") field(PREC, "3") field(DESC, "temperature") field(HOPR, "100") field(LOPR, "-10")
    field(HIHI, "90") field(HIGH, "20") field(HHSV, "MAJOR") field(HSV, "MINOR") field(PINI, "YES")
}
record(ao, "ao") { field(VAL, "2") field(DRVH, "10") field(DRVL, "-5") field(PINI, "YES") }
record(int64in, "i64") { field(VAL, "9007199254740993") field(EGU, "n") field(PINI, "YES") }
record(bi, "bi") { field(ZNAM, "off") field(ONAM, "on") field(VAL, "1") field(OSV, "MAJOR") field(PINI, "YES") }
record(stringin, "si") { field(VAL, "hello") field(DESC, "a text") field(PINI, "YES") }
record(waveform, "wf") { field(FTVL, "FLOAT") field(NELM, "10") field(EGU, "mm") field(INP, [1, 2, 3.5]) }
record(waveform, "texts") { field(FTVL, "STRING") field(NELM, "10") field(INP, ["a", "b"]) }
record(aai, "t:labels") {
    field(FTVL, "STRING") field(NELM, "2") field(INP, ["A label", "B label"])
    info(Q:group, {"table": {"+id": "epics:nt/NTTable:1.0", "labels": {"+type": "plain", "+channel": "VAL"}}})
}
record(waveform, "t:a") {
    field(FTVL, "DOUBLE") field(NELM, "9") field(INP, [1, 2])
    info(Q:group, {"table": {"value.A": {"+type": "plain", "+channel": "VAL"}, "": {"+type": "meta", "+channel": "VAL"}}})
}
record(waveform, "t:b") {
    field(FTVL, "LONG") field(NELM, "9") field(INP, [10, 20])
    info(Q:group, {"table": {"value.B": {"+type": "plain", "+channel": "VAL"}}})
}
record(waveform, "i:data") {
    field(FTVL, "USHORT") field(NELM, "12") field(INP, [1, 2, 3, 4, 5, 6])
    info(Q:group, {"image": {
        "+id": "epics:nt/NTNDArray:1.0",
        "value": {"+type": "any", "+channel": "VAL"}, "": {"+type": "meta", "+channel": "SEVR"}
    }})
}
record(longin, "i:width") {
    field(VAL, "3") field(PINI, "YES")
    info(Q:group, {"image": {"dimension[0].size": {"+type": "plain", "+channel": "VAL"}}})
}
record(longin, "i:height") {
    field(VAL, "2") field(PINI, "YES")
    info(Q:group, {"image": {"dimension[1].size": {"+type": "plain", "+channel": "VAL"}}})
}
"""
STYLES = {"epicscorelibs.ioc": "qsrv", "pvxslibs.ioc": "pvxs"}


@pytest.fixture(scope="module", params=STYLES)
def ioc(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """(style of the builders, a client of the IOC)."""
    pytest.importorskip(request.param.partition(".")[0])
    path: Path = tmp_path_factory.mktemp("ioc") / "records.db"
    path.write_text(DATABASE)
    tcp, udp, ca = map(str, free_ports(3))
    environment = {
        **os.environ,
        **dict.fromkeys(("EPICS_PVA_SERVER_PORT", "EPICS_PVAS_SERVER_PORT"), tcp),
        **dict.fromkeys(("EPICS_PVA_BROADCAST_PORT", "EPICS_PVAS_BROADCAST_PORT"), udp),
        **dict.fromkeys(("EPICS_PVAS_INTF_ADDR_LIST", "EPICS_CAS_INTF_ADDR_LIST"), "127.0.0.1"),
        **dict.fromkeys(("EPICS_PVA_AUTO_ADDR_LIST", "EPICS_CA_AUTO_ADDR_LIST"), "NO"),
        "EPICS_CA_SERVER_PORT": ca,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", request.param, "-d", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        # pvAccessCPP serves nobody any more when a connection is closed before the handshake: its port is not tried.
        assert process.stderr is not None
        assert any("IOC Running" in line for line in process.stderr)
        with pvafast.sync.Client(server=f"127.0.0.1:{tcp}") as client:
            yield STYLES[request.param], client
    finally:
        process.kill()
        process.communicate()


def test_the_builders_make_their_types(ioc: Any) -> None:
    style, client = ioc
    scalar = {"display": True, "form": True, "control": True, "value_alarm": True, "style": style}
    assert normative.NTScalar("double", **scalar).type == client.info("ai")
    assert normative.NTScalar("int64", **scalar).type == client.info("i64")
    assert normative.NTScalarArray("float", **scalar).type == client.info("wf")
    text = scalar | {"value_alarm": False}
    assert normative.NTScalar("string", **text).type == client.info("si")
    assert normative.NTScalarArray("string", **text).type == client.info("texts")
    assert normative.NTEnum(display=style == "pvxs", style=style).type == client.info("bi")


def test_scalars(ioc: Any) -> None:
    _, client = ioc
    ai = client.get("ai")
    assert (ai, ai.units, ai.description, ai.severity) == (21.5, "C", "temperature", 1)
    assert abs(ai.timestamp - time.time()) < 3600
    assert (ai.display.limit_low, ai.display.limit_high) == (-10, 100)
    assert (ai.display.precision, ai.display.form) == (3, "Default")
    assert (ai.value_alarm.high_alarm_limit, ai.value_alarm.high_warning_limit) == (90, 20)
    ao = client.get("ao")
    assert (ao.control.limit_low, ao.control.limit_high) == (-5, 10)
    i64 = client.get("i64")
    assert (i64, type(i64), i64.units) == (9007199254740993, normative.Int, "n")
    text = client.get("si")
    assert (text, text.description) == ("hello", "a text")
    choice = client.get("bi")
    assert (choice.index, choice.choice, choice.choices, choice.severity) == (1, "on", ("off", "on"), 2)


def test_arrays(ioc: Any) -> None:
    _, client = ioc
    array = client.get("wf")
    assert (array.dtype, array.tolist(), array.units) == (np.dtype("f4"), [1.0, 2.0, 3.5], "mm")
    assert client.get("texts") == ["a", "b"]


def test_groups(ioc: Any) -> None:
    _, client = ioc
    table = client.get("table")
    assert {name: column.tolist() for name, column in table.items()} == {"A": [1.0, 2.0], "B": [10, 20]}
    assert table.labels == ("A label", "B label")
    frame = client.get("image")
    assert isinstance(frame, ndarray.Frame)
    assert frame.data.tolist() == [[1, 2, 3], [4, 5, 6]]

"""The example programs, which are the how-to pages of the documentation, do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import pvafast.sync
from pvafast import PV, RemoteError, Server
from pvafast.network import ServerConfig

EXAMPLES = Path(__file__).parents[1] / "examples"


@contextmanager
def started(example: str, *arguments: object, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    """An example in a process of its own. Its clients find the server of that port; its servers are found by nobody."""
    environment = {
        **os.environ, "PYTHONPATH": str(Path(pvafast.__file__).parents[1]), "PYTHONUNBUFFERED": "1",
        "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{port}" if port else "", "EPICS_PVA_ADDR_LIST": "",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO", "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
    }  # fmt: skip
    if not port:
        environment |= {"EPICS_PVAS_SERVER_PORT": "0", "EPICS_PVAS_BROADCAST_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / example), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], status: int = 0) -> list[str]:
    """The lines of a program that ends by itself."""
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, ""), out + err
    return out.splitlines()


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until it is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.002)


# --- docs/howto/gateway.md --------------------------------------------------------------------------------------------


def test_gateway() -> None:
    """Values, puts, calls and updates go through it."""
    value, frame, adder = PV.of(1.5, writable=True, units="mm"), PV.of(np.ones((4, 5), np.uint16)), PV.of(0.0)
    adder.on_rpc(lambda call: call.arguments["a"] + 1)
    calls = PV(rpc=lambda call: call.arguments["a"] + 2)
    pvs = {"x": value, "frame": frame, "add": adder, "calls": calls}
    with Server(pvs, config=ServerConfig.isolated()).running() as server:
        upstream = f"127.0.0.1:{server.port}"
        with started("gateway.py", upstream) as gateway:
            assert gateway.stdout is not None
            line = gateway.stdout.readline()
            found = re.fullmatch(rf"4 PVs of {upstream} on port (\d+)\n", line)
            assert found, line
            address = f"127.0.0.1:{found[1]}"
            assert value.channels == 0
            with pvafast.sync.Client(server=address) as client:
                assert sorted(client.list_pvs(address)) == ["add", "calls", "frame", "x"]
                assert client.get("x") == 1.5
                assert client.get("x").units == "mm"
                client.put("x", 2.5)
                assert value.value == 2.5
                assert client.get("frame").data.tolist() == [[1] * 5] * 4
                with pytest.raises(RemoteError, match="frame is read-only"):
                    client.put("frame", np.zeros((4, 5), np.uint16))
                assert client.rpc("add", a=4) == 5
                assert client.rpc("calls", a=4) == 6
                with client.monitor("x") as readings:
                    assert readings.next(timeout=10).value == 2.5
                    value.post(3.5)
                    assert readings.next(timeout=10).value == 3.5
                    with pvafast.sync.Client(server=address) as another:
                        assert another.get("x") == 3.5
                        assert value.subscriptions == 1
            # Nobody has it open any more: it is not followed. Later it is again, and what was missed is seen.
            until(lambda: value.subscriptions == 0)
            value.post(4.5)
            with pvafast.sync.Client(server=address) as client:
                assert client.get("x") == 4.5


def test_gateway_when_its_server_comes_back() -> None:
    """Clients are disconnected with the server, and go on with it, even where the type is another one."""
    with Server({"x": 1.5}, config=ServerConfig.isolated()).running() as server:
        port = server.port
        with started("gateway.py", f"127.0.0.1:{port}") as gateway:
            assert gateway.stdout is not None
            address = "127.0.0.1:" + gateway.stdout.readline().split()[-1]
            client = pvafast.sync.Client(server=address)
            readings = client.monitor("x", events=True)
            assert type(readings.next(timeout=10)).__name__ == "Connected"
            assert readings.next(timeout=10).value == 1.5
            server.loop.call_soon_threadsafe(server.stop)
            assert type(readings.next(timeout=10)).__name__ == "Disconnected"
            with Server({"x": "text"}, config=ServerConfig.isolated(server_port=port)).running() as again:
                assert again.port == port
                names = [type(readings.next(timeout=20)).__name__ for _ in range(2)]
                assert names == ["Connected", "TypeChanged"]
                assert readings.next(timeout=20).value == "text"
                client.close()


# --- docs/howto/server.md ---------------------------------------------------------------------------------------------


def test_ioc() -> None:
    """Limits, alarms, choices, and a call that takes its time."""
    with started("ioc.py") as ioc:
        assert ioc.stdout is not None
        line = ioc.stdout.readline()
        names = [f"furnace:{name}" for name in ("heater", "note", "setpoint", "settle", "temperature")]
        found = re.fullmatch(rf"{', '.join(names)} on port (\d+)\n", line)
        assert found, line
        with pvafast.sync.Client(server=f"127.0.0.1:{found[1]}", timeout=20) as client:
            t = client.get("furnace:temperature")
            assert (t, t.units, t.severity, t.display.precision) == (20.0, "C", 0, 1)
            for wrong in (100.5, float("nan")):
                with pytest.raises(RemoteError, match=f"{wrong:g} is outside of 10 to 100"):
                    client.put("furnace:setpoint", wrong)
            # Not even where a client says that it has other limits.
            client.put("furnace:setpoint", {"value": 97, "control.limitHigh": 1000})
            setpoint = client.get("furnace:setpoint")
            assert (setpoint, setpoint.control.limit_high) == (97, 100)
            with pytest.raises(RemoteError, match="7 is none of off, on"):
                client.put("furnace:heater", {"value.index": 7})
            client.put("furnace:note", "heating")
            assert client.get("furnace:note") == "heating"
            with client.monitor("furnace:temperature") as readings:
                client.put("furnace:heater", "on")
                seen = []
                for reading in readings:
                    x = reading.value
                    if (x.severity, x.message) not in seen:
                        seen.append((x.severity, x.message))
                    expected = (2, "HIHI") if x >= 95 else (1, "HIGH") if x >= 90 else (0, "")
                    assert (x.severity, x.message) == expected
                    if x.severity == 2:
                        break
            assert seen == [(0, ""), (1, "HIGH"), (2, "HIHI")]
            assert client.rpc("furnace:settle", within=0.5) >= 96.5

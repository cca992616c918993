"""The example programs do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import pvafast.sync
from pvafast import PV, Server
from pvafast.network import ServerConfig

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_gateway() -> None:
    """Values, puts, calls and updates go through it."""
    value, frame, adder = PV.of(1.5, writable=True, units="mm"), PV.of(np.ones((4, 5), np.uint16)), PV.of(0.0)
    adder.on_rpc(lambda call: call.arguments["a"] + 1)
    config = ServerConfig.isolated()
    with Server({"x": value, "frame": frame, "add": adder}, config=config).running() as server:
        environment = {
            **os.environ, "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        }  # fmt: skip
        gateway = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "gateway.py"), f"127.0.0.1:{server.port}"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            assert gateway.stdout is not None
            line = gateway.stdout.readline()
            found = re.fullmatch(r"3 PVs of 127\.0\.0\.1:\d+ on port (\d+)\n", line)
            assert found, line
            address = f"127.0.0.1:{found[1]}"
            with pvafast.sync.Client(server=address) as client:
                assert sorted(client.list_pvs(address)) == ["add", "frame", "x"]
                assert client.get("x") == 1.5
                assert client.get("x").units == "mm"
                client.put("x", 2.5)
                assert value.value == 2.5
                assert client.get("frame").data.tolist() == [[1] * 5] * 4
                assert client.rpc("add", a=4) == 5
                with client.monitor("x") as readings:
                    assert readings.next(timeout=10).value == 2.5
                    value.post(3.5)
                    assert readings.next(timeout=10).value == 3.5
        finally:
            gateway.terminate()
            gateway.wait(10)
            gateway.stdout.close()

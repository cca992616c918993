"""The client finds servers: UDP search and beacons over sockets on 127.0.0.1, both faces."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from livepeer import LiveServer, nt_double, until
from pvafast import OperationTimeout, client
from pvafast.network.config import ClientConfig, ServerConfig
from pvafast.network.loop import SelectLoop
from pvafast.server.discovery import Discovery
from test_client import Aio, Sync

GUID = bytes(range(12))


class Found:
    """A LiveServer that answers to searches."""

    def __init__(self, pvs: dict[str, Any], config: ServerConfig | None = None, port: int = 0) -> None:
        self.server = LiveServer(pvs, port=port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            self.beacon_port = sock.getsockname()[1]
        self.loop = SelectLoop()
        self.config = config or ServerConfig.isolated(
            beacon_addr_list=f"127.0.0.1:{self.beacon_port}", beacon_period=0.1
        )
        self.discovery = Discovery(
            self.loop, self.config, GUID, self.server.port, lambda name: name in self.server.pvs
        )
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def client_config(self) -> ClientConfig:
        real = replace(self.config, server_port=self.server.port, broadcast_port=self.discovery.udp_port)
        return replace(real.client_config(), broadcast_port=self.beacon_port)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.discovery.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        self.server.close()


@pytest.fixture
def found() -> Iterator[Found]:
    found = Found({"x": nt_double(1.5), "y": nt_double(2.5)})
    yield found
    found.close()


@pytest.fixture(params=[Aio, Sync], ids=["aio", "sync"])
def face(request: pytest.FixtureRequest, found: Found) -> Iterator[Any]:
    face = request.param(config=found.client_config(), timeout=10)
    yield face
    face.end()


def test_a_name_is_found(face: Any, found: Found) -> None:
    assert face.get(["x", "y"]) == [1.5, 2.5]
    assert face.channels()[0].server == found.server.address
    address, guid = face.search("x")
    assert (address, guid) == (("127.0.0.1", found.server.port), GUID)
    assert str(face.search("x")) == f"{found.server.address} {GUID.hex()}"


def test_a_name_that_nobody_has(face: Any) -> None:
    for call, what in ((face.get, "get"), (face.search, "search")):
        with pytest.raises(OperationTimeout) as error:
            call("nope", timeout=0.2)
        assert (error.value.state, error.value.operation) == ("searching", what)
        assert str(error.value) == f"{what} of 'nope': no server answers to the name within 0.2 s"


def test_found_again(face: Any, found: Found) -> None:
    subscription = face.monitor("x", events=True)
    assert isinstance(subscription.next(10), client.Connected)
    assert subscription.next(5).value == 1.5
    found.server.drop()
    assert isinstance(subscription.next(5), client.Disconnected)
    assert isinstance(subscription.next(20), client.Connected)
    assert subscription.next(5).value == 1.5


def test_a_time_out_while_disconnected(face: Any, found: Found) -> None:
    face.connect("x")
    subscription = face.monitor("x", events=True)
    subscription.next(5), subscription.next(5)
    found.server.pvs.clear()
    found.server.drop()
    assert isinstance(subscription.next(5), client.Disconnected)
    with pytest.raises(OperationTimeout, match="was lost and has not come back") as error:
        face.get("x", timeout=0.2)
    assert error.value.state == "disconnected"


def test_servers_and_beacons(face: Any, found: Found) -> None:
    servers = face.list_servers(0.5)
    assert servers == [(("127.0.0.1", found.server.port), GUID)]
    watch = face.servers()
    event = watch.next(5)
    assert (event.kind, event.address, event.guid) == ("online", servers[0].address, GUID)
    watch.close()
    with pytest.raises(StopIteration):
        watch.next(1)
    got: list[Any] = []
    watch = face.beacons(got.append)
    assert until(lambda: got)
    assert (got[0].address, got[0].guid) == (servers[0].address, GUID)
    watch.close()


def test_nobody_is_told_too_often(face: Any, found: Found, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pvafast"):
        assert face.get("x") == 1.5
        with pytest.raises(OperationTimeout):
            face.get("nope", timeout=0.2)
    assert caplog.records == []

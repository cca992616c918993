"""Search and discovery against real peers on 127.0.0.1: p4p (pvxs), pvapy (pvAccessCPP) and spvirit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from datagrams import GUID, needs_multicast
from pvafast.client.search import Searcher
from pvafast.client.servers import BeaconEvent, ServerEvent
from pvafast.network.addresses import Endpoint
from pvafast.network.config import ClientConfig, ServerConfig
from pvafast.network.interfaces import InterfaceAddress, interface_addresses
from pvafast.network.loop import SelectLoop
from pvafast.server.discovery import Discovery
from test_interop import free_ports, start

pytestmark = pytest.mark.interop

P4P_SERVER = """
import sys, time
from p4p.nt import NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV
pvs = {name: SharedPV(nt=NTScalar("d"), initial=1.5) for name in ("p4p:a", "p4p:b", *(f"p4p:{i}" for i in range(500)))}
conf = dict(zip(("EPICS_PVAS_SERVER_PORT", "EPICS_PVAS_BROADCAST_PORT", "EPICS_PVAS_INTF_ADDR_LIST",
                 "EPICS_PVAS_BEACON_ADDR_LIST"), sys.argv[1:]))
with Server(providers=[pvs], conf=conf | {"EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO"}, useenv=False):
    print("ready", flush=True)
    time.sleep(60)
"""
PVAPY_SERVER = """
import time
import pvaccess as pva
server = pva.PvaServer()
for name in ("pvapy:a", "pvapy:b"):
    server.addRecord(name, pva.PvObject({"value": pva.DOUBLE}, {"value": 1.5}))
print("ready", flush=True)
time.sleep(60)
"""
SPVIRIT_SERVER = """
import sys, time
import spvirit
pvs = [spvirit.scalar(name, 1.5, type="double") for name in ("spvirit:a", "spvirit:b")]
server = spvirit.Server(pvs=pvs, port=int(sys.argv[1]), udp_port=int(sys.argv[2]), listen_ip="127.0.0.1")
server.start_background()
print("ready", flush=True)
time.sleep(60)
"""
P4P_CLIENT = """
import sys
from p4p.client.thread import Context
with Context("pva") as client:
    for name in sys.argv[2:]:
        try:
            print(name, float(client.get(name, timeout=8)), flush=True)
        except Exception as error:
            print(name, repr(error), flush=True)
"""
PVAPY_CLIENT = """
import sys
import pvaccess as pva
for name in sys.argv[2:]:
    channel = pva.Channel(name)
    channel.setTimeout(8)
    try:
        print(name, channel.get()["value"], flush=True)
    except Exception as error:
        print(name, repr(error), flush=True)
"""
SPVIRIT_CLIENT = """
import sys
import spvirit
client = spvirit.Client.builder().search_addr("127.0.0.1").udp_port(int(sys.argv[1])).timeout(8.0).build()
for name in sys.argv[2:]:
    try:
        print(name, client.get(name).value["value"], flush=True)
    except Exception as error:
        print(name, repr(error), flush=True)
"""
CLIENTS = {"p4p": P4P_CLIENT, "pvapy": PVAPY_CLIENT, "spvirit": SPVIRIT_CLIENT}


def serve(
    kind: str, tcp: int, udp: int, interface: str = "127.0.0.1", beacons: str = "127.0.0.1"
) -> subprocess.Popen[str]:
    if kind == "p4p":
        return start(P4P_SERVER, tcp, udp, interface, beacons)
    if kind == "spvirit":
        return start(SPVIRIT_SERVER, tcp, udp)
    return start(
        PVAPY_SERVER,
        EPICS_PVAS_SERVER_PORT=str(tcp),
        EPICS_PVA_SERVER_PORT=str(tcp),
        EPICS_PVAS_BROADCAST_PORT=str(udp),
        EPICS_PVA_BROADCAST_PORT=str(udp),
        EPICS_PVAS_INTF_ADDR_LIST=interface,
        EPICS_PVAS_BEACON_ADDR_LIST=beacons,
        EPICS_PVAS_AUTO_BEACON_ADDR_LIST="NO",
    )


def ask(kind: str, udp: int, *names: str, where: str = "127.0.0.1") -> subprocess.Popen[str]:
    """A client of a peer that gets these PVs, and prints what it got."""
    environment = {
        "EPICS_PVA_BROADCAST_PORT": str(udp),
        "EPICS_PVA_ADDR_LIST": where,
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    }
    return subprocess.Popen(
        [sys.executable, "-c", CLIENTS[kind], str(udp), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )


def got(loop: SelectLoop, client: subprocess.Popen[str]) -> str:
    """What a client printed."""
    ended = loop.run_until(lambda: client.poll() is not None, 15)
    client.kill()
    told = client.communicate()[0]
    assert ended, told
    return told


def network() -> InterfaceAddress:
    net = next((one for one in interface_addresses() if one.broadcast and not one.loopback), None)
    if net is None:
        pytest.skip("no interface with a broadcast address")
    return net


class Peer:
    """A server of a peer in a process of its own."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.kind = kind
        self.tcp, self.udp = free_ports(2)
        self.options = options
        self.process = serve(kind, self.tcp, self.udp, **options)

    def restart(self) -> None:
        self.stop()
        self.process = serve(self.kind, self.tcp, self.udp, **self.options)

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module", params=["p4p", "pvapy", "spvirit"])
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    peer = Peer(request.param)
    yield peer
    peer.stop()


@pytest.fixture
def loop() -> Iterator[SelectLoop]:
    loop = SelectLoop()
    yield loop
    loop.close()


def config_for(peer: Peer, **fields: Any) -> ClientConfig:
    return ClientConfig(**{"auto_addr_list": False, "broadcast_port": peer.udp, **fields})


@pytest.mark.parametrize("how", ["udp", "tcp"])
def test_finds(peer: Peer, loop: SelectLoop, how: str) -> None:
    where = {"addr_list": "127.0.0.1"} if how == "udp" else {"name_servers": f"127.0.0.1:{peer.tcp}"}
    searcher = Searcher(loop, config_for(peer, **where))
    found: dict[str, tuple[Any, bytes]] = {}
    told: list[ServerEvent] = []
    try:
        for name in ("a", "b", "none"):
            searcher.find(f"{peer.kind}:{name}", lambda *one, name=name: found.update({name: one}))
        assert loop.run_until(lambda: len(found) == 2, 10), found
        assert set(found) == {"a", "b"}
        assert {address for address, _ in found.values()} == {("127.0.0.1", peer.tcp)}
        assert len({guid for _, guid in found.values()}) == 1
        searcher.discover(told.append)
        assert loop.run_until(lambda: told, 5)
        assert (told[0].kind, told[0].guid, told[0].address) == (
            "online",
            found["a"][1],
            ("127.0.0.1", peer.tcp),
        )
        assert searcher.searching == 1
    finally:
        searcher.close()


def test_is_found(loop: SelectLoop, peer: Peer) -> None:
    """A client of the peer asks, is told the TCP port, and connects to it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        tcp = sock.getsockname()[1]
        asked: list[str] = []
        discovery = Discovery(
            loop, ServerConfig.isolated(), GUID, tcp, lambda name: bool(asked.append(name)) or True
        )
        process = ask(peer.kind, discovery.udp_port, "ours:x")
        try:

            def connected() -> bool:
                try:
                    sock.accept()[0].close()
                except BlockingIOError:
                    return False
                return True

            deadline = time.monotonic() + 15
            while not connected():
                assert time.monotonic() < deadline, asked
                loop.run_once(0.05)
            assert set(asked) == {"ours:x"}
        finally:
            process.kill()
            process.communicate()
            discovery.close()


@needs_multicast
@pytest.mark.parametrize("kind", ["p4p", "pvapy"])
@pytest.mark.parametrize("interface", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("ours_first", [True, False])
def test_one_port_for_theirs_and_ours(loop: SelectLoop, kind: str, interface: str, ours_first: bool) -> None:
    """Whoever gets what is sent to the host forwards it to the other."""
    tcp, udp = free_ports(2)
    # pvAccessCPP on all interfaces does not listen on loopback.
    where = network().address if (kind, interface) == ("pvapy", "0.0.0.0") else "127.0.0.1"
    config = ServerConfig.isolated(broadcast_port=udp, intf_addr_list=interface)

    def ours() -> Discovery:
        return Discovery(loop, config, GUID, 4711, lambda name: name == "ours")

    discovery = ours() if ours_first else None
    process = serve(kind, tcp, udp, interface)
    discovery = discovery or ours()
    searcher = Searcher(loop, ClientConfig(addr_list=where, auto_addr_list=False, broadcast_port=udp))
    found: dict[str, Any] = {}
    try:
        for name in ("ours", f"{kind}:a"):
            searcher.find(name, lambda address, guid, name=name: found.update({name: address}))
        assert loop.run_until(lambda: len(found) == 2, 10), found
        assert {name: port for name, (_, port) in found.items()} == {"ours": 4711, f"{kind}:a": tcp}
        # Their clients find theirs, too.
        assert got(loop, ask(kind, udp, f"{kind}:a", where=where)) == f"{kind}:a 1.5\n"
    finally:
        searcher.close()
        discovery.close()
        process.kill()
        process.communicate()


def test_a_client_of_ours_on_the_host_of_a_server(peer: Peer, loop: SelectLoop) -> None:
    """It does not take searches away from it, not even from one that cannot be forwarded to (spvirit)."""
    searchers = [Searcher(loop, config_for(peer, addr_list="127.0.0.1")) for _ in range(3)]
    found: list[object] = []
    try:
        for searcher in searchers:
            searcher.find(f"{peer.kind}:a", lambda address, guid: found.append(address))
        assert loop.run_until(lambda: len(found) == 3, 10)
        assert got(loop, ask(peer.kind, peer.udp, f"{peer.kind}:b")) == f"{peer.kind}:b 1.5\n"
    finally:
        for searcher in searchers:
            searcher.close()


def test_by_broadcast(loop: SelectLoop) -> None:
    net = network()
    peer = Peer("p4p", interface="0.0.0.0")
    discovery = Discovery(
        loop,
        ServerConfig.isolated(broadcast_port=peer.udp, intf_addr_list=""),
        GUID,
        4711,
        lambda name: name == "ours",
    )
    searcher = Searcher(loop, ClientConfig(broadcast_port=peer.udp))
    found: dict[str, Any] = {}
    try:
        for name in ("ours", "p4p:a"):
            searcher.find(name, lambda address, guid, name=name: found.update({name: address}))
        assert loop.run_until(lambda: len(found) == 2, 10)
        assert found == {"ours": (net.address, 4711), "p4p:a": (net.address, peer.tcp)}
    finally:
        searcher.close()
        discovery.close()
        peer.stop()


@pytest.mark.parametrize("kind", ["p4p", "pvapy"])
def test_beacons_and_a_restart(loop: SelectLoop, kind: str) -> None:
    net = network()
    peer = Peer(kind, interface="0.0.0.0", beacons=net.broadcast)
    searcher = Searcher(loop, config_for(peer, addr_list=net.address))
    beacons: list[BeaconEvent] = []
    told: list[ServerEvent] = []
    found: list[tuple[Any, bytes]] = []
    here = (net.address, peer.tcp)
    try:
        searcher.beacons(beacons.append)
        searcher.discover(told.append)
        search = searcher.find(f"{kind}:a", lambda *one: found.append(one))
        assert loop.run_until(lambda: found and told, 10)
        peer.restart()
        search.again()
        assert loop.run_until(lambda: len(found) == 2 and beacons, 15)
        assert [address for address, _ in found] == [here, here]
        assert found[0][1] != found[1][1]
        assert [(one.kind, one.guid) for one in told] == [("online", found[0][1]), ("changed", found[1][1])]
        assert (beacons[-1].address, beacons[-1].guid) == (here, found[1][1])
        assert beacons[-1].protocol == "tcp"
    finally:
        searcher.close()
        peer.stop()


def test_many_names_at_p4p(loop: SelectLoop) -> None:
    peer = Peer("p4p")
    searcher = Searcher(loop, config_for(peer, addr_list=[Endpoint("127.0.0.1", peer.udp)]))
    found: set[str] = set()
    try:
        for i in range(500):
            searcher.find(f"p4p:{i}", lambda address, guid, i=i: found.add(f"p4p:{i}"))
        assert loop.run_until(lambda: len(found) == 500, 10)
        assert searcher.searching == 0
    finally:
        searcher.close()
        peer.stop()

"""The command line: search and beacons, against the discovery side of a server on 127.0.0.1."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from datagrams import GUID, beacon
from pvafast.network.config import ServerConfig
from pvafast.network.loop import SelectLoop
from pvafast.server.discovery import Discovery

TCP = 4711
WHERE = f"127.0.0.1:{TCP}"


@pytest.fixture
def loop() -> Iterator[SelectLoop]:
    """A loop that runs in a thread of its own."""
    loop = SelectLoop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


@pytest.fixture
def server(loop: SelectLoop, loopback: pytest.MonkeyPatch) -> Iterator[Discovery]:
    """It has the PVs `here` and `there`."""
    config = ServerConfig.isolated()
    made = Discovery(loop, config, GUID, TCP, {"here", "there"}.__contains__)
    loopback.setenv("EPICS_PVA_BROADCAST_PORT", str(made.udp_port))
    yield made
    closed = threading.Event()
    loop.call_soon_threadsafe(lambda: (made.close(), closed.set()))
    assert closed.wait(5)


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def send_beacons(port: int, *fields: dict[str, Any]) -> threading.Thread:
    """Send beacons, again and again as long as nobody listens; one after the other."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(40):
                time.sleep(0.05)
                for one in fields:
                    sock.sendto(beacon(**one), ("127.0.0.1", port))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


# -- search


def test_search(run: Any, server: Discovery) -> None:
    status, out, err = run("search", "here", "there", "here")
    assert status == 0
    assert sorted(out) == [f"{name}  {WHERE}  guid {GUID.hex()}" for name in ("here", "there")]
    assert err == []


def test_search_for_what_is_not_there(run: Any, server: Discovery) -> None:
    begin = time.monotonic()
    status, out, err = run("search", "-w", "0.5", "nowhere", "here")
    assert status == 1
    assert out == [f"here  {WHERE}  guid {GUID.hex()}"]
    assert err == ["pvafast: nowhere: no server answered within 0.5 s"]
    assert time.monotonic() - begin >= 0.5


def test_search_as_json(run: Any, server: Discovery) -> None:
    status, out, _ = run("search", "--json", "here")
    assert status == 0
    assert [json.loads(line) for line in out] == [{"pv": "here", "server": WHERE, "guid": GUID.hex()}]


def test_search_for_what_no_pv_can_be_called(run: Any, server: Discovery) -> None:
    status, out, err = run("search", "here", "")
    assert status == 1
    assert len(out) == 1
    assert len(err) == 1
    assert err[0].startswith("pvafast: ")


def test_the_configuration_is_shown(run: Any, server: Discovery) -> None:
    _, _, err = run("search", "-v", "here")
    assert err[2:4] == [f"EPICS_PVA_ADDR_LIST=127.0.0.1:{server.udp_port}", "EPICS_PVA_AUTO_ADDR_LIST=NO"]


def test_everything_is_logged(run: Any, server: Discovery) -> None:
    _, _, err = run("search", "-d", "here")
    assert any(re.match(r"\d{4}-\d\d-\d\d \S+ DEBUG pvafast\.search: searching at ", line) for line in err)


def test_wrong_usage(run: Any, loopback: pytest.MonkeyPatch) -> None:
    for arguments in (
        ["search"],
        ["search", "-w", "-1", "x"],
        ["search", "-w", "nan", "x"],
        ["find", "x"],
        [],
    ):
        status, out, err = run(*arguments)
        assert status == 2
        assert out == []
        assert err[-1].startswith("pvafast")


def test_a_wrong_variable_is_told(run: Any, server: Discovery, loopback: pytest.MonkeyPatch) -> None:
    loopback.setenv("EPICS_PVA_CONN_TMO", "soon")
    status, out, err = run("search", "here")
    assert status == 0
    assert len(out) == 1
    assert err == ["pvafast: EPICS_PVA_CONN_TMO: 'soon' is ignored: not a number of seconds"]


# -- beacons


def test_beacons(run: Any, loopback: pytest.MonkeyPatch) -> None:
    port = free_udp_port()
    loopback.setenv("EPICS_PVA_BROADCAST_PORT", str(port))
    sender = send_beacons(port, {"sequence": 7, "changes": 1}, {"sequence": 8, "changes": 2})
    status, out, err = run("beacons", "-n", "2", "-w", "10")
    sender.join()
    assert status == 0
    assert err == []
    first, second = out
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"{stamp}  127\.0\.0\.1:\d+  guid {GUID.hex()}  tcp  beacon 7  change 1  new", first)
    assert re.fullmatch(
        rf"{stamp}  127\.0\.0\.1:\d+  guid {GUID.hex()}  tcp  beacon 8  change 2  PVs changed", second
    )


def test_beacons_as_json(run: Any, loopback: pytest.MonkeyPatch) -> None:
    port = free_udp_port()
    loopback.setenv("EPICS_PVA_BROADCAST_PORT", str(port))
    sender = send_beacons(port, {"sequence": 7, "changes": 1, "port": TCP})
    before = time.time()
    status, (line,), _ = run("beacons", "-n", "1", "-w", "10", "--json")
    sender.join()
    assert status == 0
    found = json.loads(line)
    assert before - 1 < found.pop("time") < time.time() + 1
    assert found.pop("sender").startswith("127.0.0.1:")
    expected = {"protocol": "tcp", "version": 2, "sequence": 7, "change_count": 1}
    assert found == {"server": WHERE, "guid": GUID.hex(), **expected}


def test_no_beacons(run: Any, loopback: pytest.MonkeyPatch) -> None:
    assert run("beacons", "-w", "0.2") == (0, [], [])


def test_beacons_cannot_be_received(run: Any, loopback: pytest.MonkeyPatch) -> None:
    """Another program has the port, and does not share it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        loopback.setenv("EPICS_PVA_BROADCAST_PORT", str(port))
        status, out, err = run("beacons", "-w", "5")
    assert status == 1
    assert out == []
    assert err == [f"pvafast: beacons cannot be received: UDP port {port} cannot be had"]


# -- list


def test_list_finds_servers(run: Any, server: Discovery) -> None:
    assert run("list", "-w", "0.5") == (0, [WHERE], [])
    status, (line,), _ = run("list", "-w", "0.5", "--json")
    assert status == 0
    expected = {"event": "online", "protocol": "tcp", "version": 2}
    assert json.loads(line) == {"server": WHERE, "guid": GUID.hex(), **expected}
    status, (line,), _ = run("list", "-w", "0.5", "-v")
    assert status == 0
    assert line == f"{WHERE}  online  guid {GUID.hex()}  tcp version 2"


def test_list_listens_to_beacons(run: Any, loopback: pytest.MonkeyPatch) -> None:
    """A server that restarts has another guid. Passively each is listed once."""
    port = free_udp_port()
    loopback.setenv("EPICS_PVA_BROADCAST_PORT", str(port))
    other = bytes(reversed(GUID))
    fields = ({"port": TCP}, {"port": TCP + 1}, {"port": TCP, "guid": other})
    sender = send_beacons(port, *fields)
    status, out, err = run("list", "-p", "-w", "1")
    sender.join()
    assert (status, err) == (0, [])
    assert sorted(out) == [WHERE, WHERE, f"127.0.0.1:{TCP + 1}"]
    sender = send_beacons(port, {"port": TCP})
    status, (line,), _ = run("list", "-p", "-v", "-w", "1")
    sender.join()
    assert status == 0
    assert line == f"{WHERE}  online  guid {GUID.hex()}  tcp version 2"


def test_list_finds_no_server(run: Any, loopback: pytest.MonkeyPatch) -> None:
    loopback.setenv("EPICS_PVA_BROADCAST_PORT", str(free_udp_port()))
    message = "pvafast: no server was found within 0.2 s"
    assert run("list", "-w", "0.2") == (1, [], [message])
    assert run("list", "-p", "-w", "0.2") == (1, [], [message])

"""The variables of EPICS, and the same as arguments. Defaults and meanings are those of pvxs."""

from __future__ import annotations

import dataclasses
import logging
import pickle

import pytest

from pvafast.network import config as module
from pvafast.network.addresses import Endpoint
from pvafast.network.config import ClientConfig, ServerConfig

HERE = Endpoint("127.0.0.1", 5076)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged, as a list that grows."""
    caplog.set_level(logging.DEBUG, "pvafast")
    told: list[str] = []
    monkeypatch.setattr(caplog.handler, "emit", lambda record: told.append(record.getMessage()))
    return told


def test_defaults(warnings: list[str]) -> None:
    client = ClientConfig.from_env({})
    assert client == ClientConfig()
    assert client.addr_list == client.name_servers == client.intf_addr_list == ()
    assert client.auto_addr_list is True
    assert (client.broadcast_port, client.server_port, client.conn_tmo) == (5076, 5075, 30.0)
    server = ServerConfig.from_env({})
    assert server == ServerConfig()
    assert server.intf_addr_list == server.beacon_addr_list == server.ignore_addr_list == ()
    assert server.auto_beacon_addr_list is True
    assert (server.broadcast_port, server.server_port, server.conn_tmo) == (5076, 5075, 30.0)
    assert server.beacon_period == 15.0
    assert not warnings


def test_client_variables(warnings: list[str]) -> None:
    client = ClientConfig.from_env(
        {
            "EPICS_PVA_ADDR_LIST": " 10.0.0.1\t10.0.0.2:7\n10.0.0.1 ",
            "EPICS_PVA_AUTO_ADDR_LIST": "no",
            "EPICS_PVA_NAME_SERVERS": "10.0.0.3 10.0.0.4:8",
            "EPICS_PVA_BROADCAST_PORT": "6076",
            "EPICS_PVA_SERVER_PORT": "6075",
            "EPICS_PVA_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_PVA_CONN_TMO": "12.5",
            "EPICS_PVAS_INTF_ADDR_LIST": "10.9.9.9",
        }
    )
    assert client == ClientConfig(
        addr_list=[Endpoint("10.0.0.1", 6076), Endpoint("10.0.0.2", 7)],
        auto_addr_list=False,
        name_servers=[Endpoint("10.0.0.3", 6075), Endpoint("10.0.0.4", 8)],
        broadcast_port=6076,
        server_port=6075,
        intf_addr_list=[Endpoint("127.0.0.1", 6076)],
        conn_tmo=12.5,
    )
    assert not warnings


def test_server_variables(warnings: list[str]) -> None:
    server = ServerConfig.from_env(
        {
            "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1 127.0.0.2:99",
            "EPICS_PVAS_SERVER_PORT": "0",
            "EPICS_PVAS_BROADCAST_PORT": "6076",
            "EPICS_PVAS_BEACON_ADDR_LIST": "10.0.0.5",
            "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
            "EPICS_PVAS_IGNORE_ADDR_LIST": "10.0.0.6 10.0.0.7:77",
            "EPICS_PVAS_BEACON_PERIOD": "3",
        }
    )
    assert server.intf_addr_list == (Endpoint("127.0.0.1", 0), Endpoint("127.0.0.2", 99))
    assert (server.server_port, server.broadcast_port) == (0, 6076)
    assert server.beacon_addr_list == (Endpoint("10.0.0.5", 6076),)
    assert server.auto_beacon_addr_list is False
    assert server.ignore_addr_list == (Endpoint("10.0.0.6", 0), Endpoint("10.0.0.7", 77))
    assert server.beacon_period == 3.0
    assert not warnings


def test_a_server_falls_back_to_what_clients_are_told() -> None:
    client = {
        "EPICS_PVA_SERVER_PORT": "1",
        "EPICS_PVA_BROADCAST_PORT": "2",
        "EPICS_PVA_ADDR_LIST": "10.0.0.1",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_CONN_TMO": "60",
        "EPICS_PVA_BEACON_PERIOD": "5",
        "EPICS_PVA_INTF_ADDR_LIST": "10.0.0.2",
    }
    server = ServerConfig.from_env(client)
    assert (server.server_port, server.broadcast_port) == (1, 2)
    assert server.beacon_addr_list == (Endpoint("10.0.0.1", 2),)
    assert server.auto_beacon_addr_list is False
    assert (server.conn_tmo, server.beacon_period) == (60.0, 5.0)
    assert server.intf_addr_list == ()
    # Set to nothing is not the same as not set.
    own = {"EPICS_PVAS_BEACON_ADDR_LIST": "", "EPICS_PVAS_SERVER_PORT": "3"}
    server = ServerConfig.from_env(client | own)
    assert server.beacon_addr_list == ()
    assert server.server_port == 3


def test_any_port_of_servers_tells_a_client_nothing(warnings: list[str]) -> None:
    assert ClientConfig.from_env({"EPICS_PVAS_SERVER_PORT": "0"}).server_port == 5075
    assert not warnings


def test_a_client_falls_back_to_the_port_of_servers() -> None:
    assert ClientConfig.from_env({"EPICS_PVAS_SERVER_PORT": "1"}).server_port == 1
    both = {"EPICS_PVAS_SERVER_PORT": "1", "EPICS_PVA_SERVER_PORT": "2"}
    assert ClientConfig.from_env(both).server_port == 2


@pytest.mark.parametrize(
    ("text", "value"), [("YES", True), ("Yes", True), ("1", True), ("NO", False), ("no", False), ("0", False)]
)
def test_yes_and_no(text: str, value: bool) -> None:
    assert ClientConfig.from_env({"EPICS_PVA_AUTO_ADDR_LIST": text}).auto_addr_list is value


@pytest.mark.parametrize(
    ("name", "entry", "reason"),
    [
        ("EPICS_PVA_AUTO_ADDR_LIST", "maybe", "neither YES nor NO"),
        ("EPICS_PVA_AUTO_ADDR_LIST", "", "neither YES nor NO"),
        ("EPICS_PVA_BROADCAST_PORT", "0", "0 is not a port from 1 to 65535"),
        ("EPICS_PVA_BROADCAST_PORT", "70000", "not a port number"),
        ("EPICS_PVA_SERVER_PORT", "x", "not a port number"),
        ("EPICS_PVA_SERVER_PORT", "", "not a port number"),
        ("EPICS_PVA_CONN_TMO", "soon", "not a number of seconds"),
        ("EPICS_PVA_CONN_TMO", "-1", "not a number of seconds"),
        ("EPICS_PVA_CONN_TMO", "nan", "not a number of seconds"),
        ("EPICS_PVA_CONN_TMO", "inf", "not a number of seconds"),
        ("EPICS_PVA_ADDR_LIST", "10.0.0.1:x", "port 'x' is not a number from 0 to 65535"),
        ("EPICS_PVA_ADDR_LIST", "0.0.0.0", "nothing can be sent to 0.0.0.0:5076"),
        ("EPICS_PVA_NAME_SERVERS", "224.0.1.1", "224.0.1.1:5075 is not a server to connect to"),
        ("EPICS_PVA_NAME_SERVERS", "10.0.0.1,3", "10.0.0.1:5075,3 is not a server to connect to"),
        ("EPICS_PVA_INTF_ADDR_LIST", "[::1", "no address: '[::1'"),
    ],
)
def test_a_bad_variable_is_named_and_left_out(
    name: str, entry: str, reason: str, warnings: list[str]
) -> None:
    assert ClientConfig.from_env({name: entry}) == ClientConfig()
    assert warnings == [f"{name}: {entry!r} is ignored: {reason}"]


def test_the_good_entries_beside_a_bad_one_stay(warnings: list[str]) -> None:
    client = ClientConfig.from_env({"EPICS_PVA_ADDR_LIST": "127.0.0.1 10.0.0.1,x ,, 10.0.0.2"})
    assert client.addr_list == (HERE, Endpoint("10.0.0.2", 5076))
    assert [one.split(" is ignored")[0] for one in warnings] == [
        "EPICS_PVA_ADDR_LIST: '10.0.0.1,x'",
        "EPICS_PVA_ADDR_LIST: ',,'",
    ]


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("addr_list", "127.0.0.1:x", "addr_list: '127.0.0.1:x': port 'x' is not"),
        ("addr_list", ["0.0.0.0"], "addr_list: '0.0.0.0': nothing can be sent"),
        ("name_servers", [Endpoint("224.0.1.1", 5)], "name_servers: '224.0.1.1:5': "),
        ("broadcast_port", 0, "broadcast_port: 0 is not a port from 1 to 65535"),
        ("server_port", 65536, "server_port: 65536 is not a port"),
        ("server_port", "5075", "server_port: '5075' is not a port"),
    ],
)
def test_a_bad_argument_is_an_error(field: str, value: object, text: str) -> None:
    with pytest.raises(ValueError) as error:
        ClientConfig(**{field: value})
    assert str(error.value).startswith(text)
    with pytest.raises(ValueError):
        ClientConfig.from_env({}, **{field: value})


def test_arguments_come_before_the_environment() -> None:
    environ = {
        "EPICS_PVA_ADDR_LIST": "10.0.0.1",
        "EPICS_PVA_BROADCAST_PORT": "1",
        "EPICS_PVA_CONN_TMO": "9",
    }
    client = ClientConfig.from_env(environ, addr_list="127.0.0.1", broadcast_port=2, conn_tmo=None)
    assert client == ClientConfig(addr_list=[Endpoint("127.0.0.1", 2)], broadcast_port=2, conn_tmo=9.0)
    # The entries of a variable take the port that was given.
    assert ClientConfig.from_env(environ, broadcast_port=3).addr_list == (Endpoint("10.0.0.1", 3),)


def test_configurations_are_values() -> None:
    client = ClientConfig(addr_list="127.0.0.1 10.0.0.1:1", conn_tmo=5)
    assert pickle.loads(pickle.dumps(client)) == client
    assert dataclasses.replace(client, conn_tmo=6).addr_list == client.addr_list
    assert hash(client) == hash(ClientConfig(addr_list=["127.0.0.1", Endpoint("10.0.0.1", 1)], conn_tmo=5))
    with pytest.raises(dataclasses.FrozenInstanceError):
        client.addr_list = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("conn_tmo", "timeout", "echo"),
    [(30, 40, 15), (60, 80, 15), (15, 20, 7.5), (3, 4, 1.5), (1, 2, 1), (0.1, 2, 1), (0, 40, 15)],
)
def test_timeouts_are_four_thirds(conn_tmo: float, timeout: float, echo: float) -> None:
    for config in (ClientConfig(conn_tmo=conn_tmo), ServerConfig(conn_tmo=conn_tmo)):
        assert config.tcp_timeout == pytest.approx(timeout)
        assert config.echo_interval == pytest.approx(echo)
    assert ClientConfig(conn_tmo=float("inf")).tcp_timeout == 40
    assert ClientConfig(conn_tmo=float("nan")).tcp_timeout == 40


def test_where_a_server_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "external", lambda: ["eth0", "eth1"])
    monkeypatch.setattr(module, "address_of", {"eth0": "10.0.0.1", "127.0.0.1": "127.0.0.1"}.get)
    everywhere = [Endpoint("0.0.0.0", 5075), Endpoint("::", 5075)]
    assert ServerConfig().udp_endpoints() == ServerConfig().tcp_endpoints() == everywhere
    one = ServerConfig(intf_addr_list="10.0.0.1:6000")
    assert one.udp_endpoints() == one.tcp_endpoints() == [Endpoint("10.0.0.1", 6000)]
    # A group is joined on its interface; connections come in there, too.
    group = ServerConfig(intf_addr_list="224.0.1.1,1@eth0")
    assert group.udp_endpoints() == [Endpoint("224.0.1.1", 5075, 1, "eth0"), Endpoint("10.0.0.1", 5075)]
    assert group.tcp_endpoints() == [Endpoint("10.0.0.1", 5075)]
    group = ServerConfig(intf_addr_list="[ff02::42:1],1")
    assert group.tcp_endpoints() == everywhere
    # Groups that beacons go to are groups that searches come from.
    beacons = ServerConfig(beacon_addr_list="224.0.1.1,3 224.0.1.2@eth1 10.0.0.9")
    assert beacons.udp_endpoints() == [
        *everywhere,
        Endpoint("224.0.1.1", 5076, 3, "eth0"),
        Endpoint("224.0.1.1", 5076, 3, "eth1"),
        Endpoint("224.0.1.2", 5076, None, "eth1"),
    ]
    assert beacons.tcp_endpoints() == everywhere
    beacons = dataclasses.replace(beacons, auto_beacon_addr_list=False)
    assert beacons.udp_endpoints() == everywhere


def test_isolated() -> None:
    server = ServerConfig.isolated(conn_tmo=5)
    assert server.tcp_endpoints() == [Endpoint("127.0.0.1", 0)]
    assert (server.server_port, server.broadcast_port, server.conn_tmo) == (0, 0, 5)
    assert server.auto_beacon_addr_list is False
    real = dataclasses.replace(server, server_port=1, broadcast_port=2)
    client = real.client_config(conn_tmo=7)
    assert client.addr_list == (Endpoint("127.0.0.1", 2),)
    assert client.auto_addr_list is False
    assert (client.broadcast_port, client.server_port, client.conn_tmo) == (2, 1, 7)
    assert server.client_config(broadcast_port=9).addr_list == (Endpoint("127.0.0.1", 9),)
    anywhere = ServerConfig(broadcast_port=2).client_config()
    assert anywhere.addr_list == (Endpoint("127.0.0.1", 2),)
    assert ServerConfig(intf_addr_list="[::1]").client_config().addr_list == (Endpoint("::1", 5076),)


def test_a_server_given_by_hand() -> None:
    client = ClientConfig(server_port=77)
    assert client.server("10.0.0.1") == Endpoint("10.0.0.1", 77)
    assert client.server("[::1]:5").address == ("::1", 5)
    for text in ("224.0.1.1", "0.0.0.0", "10.0.0.1:0", "10.0.0.1,3", "x:y:z"):
        with pytest.raises(ValueError):
            client.server(text)

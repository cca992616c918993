"""How client and server find each other: the EPICS_PVA_* and EPICS_PVAS_* variables, or the same as arguments."""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias, TypeVar, final

from .addresses import Endpoint, without_doubles
from .interfaces import address_of, broadcasts, external

_log = logging.getLogger("pvafast.network")
_C = TypeVar("_C", "ClientConfig", "ServerConfig")

BROADCAST_PORT: Final = 5076
SERVER_PORT: Final = 5075
# As given: "10.0.0.255 host:5076", or such entries one by one.
AddressList: TypeAlias = str | Iterable[str | Endpoint]


@final
class _Addresses:
    """A field that is given as an AddressList and read as endpoints. port: the field that has the port of entries without one, ""
    for 0.
    """

    def __init__(self, port: str = "", check: Callable[[Endpoint], None] | None = None) -> None:
        self._port = port
        self._check = check
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, config: Any, owner: type | None = None) -> tuple[Endpoint, ...]:
        return () if config is None else config.__dict__[self._name]  # (): the default

    def __set__(self, config: Any, given: AddressList) -> None:
        port = getattr(config, self._port) if self._port else 0
        found = []
        for entry in given.split() if isinstance(given, str) else given:
            try:
                endpoint = entry if isinstance(entry, Endpoint) else Endpoint.parse(entry, port)
                if self._check is not None:
                    self._check(endpoint)
            except ValueError as error:
                raise ValueError(f"{self._name}: {str(entry)!r}: {error}") from None
            found.append(endpoint)
        config.__dict__[self._name] = tuple(without_doubles(found))


def _destination(endpoint: Endpoint) -> None:
    if endpoint.is_any:
        raise ValueError(f"nothing can be sent to {endpoint}")


def _host(endpoint: Endpoint) -> None:
    if not endpoint.port or endpoint.is_any or endpoint.is_multicast or endpoint.ttl is not None:
        raise ValueError(f"{endpoint} is not a server to connect to")


# pvAccessJava sent its echoes every CONN_TMO seconds: to drop a connection after just that time would be a race.
_SCALE: Final = 4 / 3
_DEFAULT_TIMEOUT: Final = 40.0
_LONGEST: Final = 1e9


@final
@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """Where a client looks for PVs. Each field is named after its variable, EPICS_PVA_ADDR_LIST and so on.

    addr_list: where searches are sent over UDP, "host[:port]", "[ipv6][:port]", "group[:port],ttl@interface".
    auto_addr_list: and to the broadcast addresses of all interfaces (of those in intf_addr_list, where it is given).
    name_servers: "host[:port]", searched over TCP. broadcast_port: of searches and beacons, UDP. server_port: where an
    entry of name_servers has none. intf_addr_list: addresses of the interfaces where beacons are listened for; none:
    what is broadcast on all of them. conn_tmo: seconds, see tcp_timeout.

    ValueError for what cannot be understood.
    """

    # The ports come first: lists are read with them.
    broadcast_port: int = BROADCAST_PORT
    server_port: int = SERVER_PORT
    addr_list: _Addresses = _Addresses("broadcast_port", _destination)
    auto_addr_list: bool = True
    name_servers: _Addresses = _Addresses("server_port", _host)
    intf_addr_list: _Addresses = _Addresses("broadcast_port")
    conn_tmo: float = 30.0

    def __post_init__(self) -> None:
        _check_ports(self, broadcast_port=1, server_port=1)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, **fields: Any) -> ClientConfig:
        """What the environment says; `fields` that are not None are taken instead.

        A variable that is set to nothing is an empty list. What cannot be understood is left out, with a warning.
        """
        if environ.get("EPICS_PVAS_SERVER_PORT", "").strip() == "0":
            # Any port, for servers; it tells a client nothing.
            environ = {name: text for name, text in environ.items() if name != "EPICS_PVAS_SERVER_PORT"}
        return _from_env(cls, _CLIENT, environ, fields)

    def udp_endpoints(self) -> list[Endpoint]:
        """Where beacons are listened for: interfaces, broadcast addresses and groups.

        Where intf_addr_list is empty, what is broadcast is enough: who listens to all that comes to the host takes
        searches away from servers on it that do not know how to forward them.
        """
        groups = self.addr_list if self.auto_addr_list else ()
        port = self.broadcast_port
        interfaces: Iterable[Endpoint] = self.intf_addr_list
        if not interfaces and sys.platform != "win32":  # there nothing can be bound to such an address
            interfaces = [Endpoint(host, port) for host in (*broadcasts(), "255.255.255.255")]
        return without_doubles(_udp_endpoints(interfaces, groups, port))

    @property
    def tcp_timeout(self) -> float:
        """Seconds without a received byte after which a connection is dropped: 4/3 of conn_tmo, 2 at least."""
        return _tcp_timeout(self.conn_tmo)

    @property
    def echo_interval(self) -> float:
        """Seconds between the echoes that keep a connection alive."""
        return _echo_interval(self.conn_tmo)

    def server(self, text: str) -> Endpoint:
        """The "host[:port]" of a server that is given by hand. ValueError as of Endpoint.parse."""
        endpoint = Endpoint.parse(text, self.server_port)
        _host(endpoint)
        return endpoint


@final
@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Where a server is found. Each field is named after its variable, EPICS_PVAS_INTF_ADDR_LIST and so on.

    intf_addr_list: addresses of the interfaces to listen on, "address[:port]", and groups, "group,ttl@interface"; none:
    all interfaces. server_port: TCP; 0: any that is free. broadcast_port: UDP; 0: any that is free. beacon_addr_list:
    where beacons are sent; auto_beacon_addr_list: and to the broadcast addresses of the interfaces listened on.
    ignore_addr_list: "address[:port]" of clients whose searches are not answered. conn_tmo: seconds, see tcp_timeout.
    beacon_period: seconds between the first ten beacons.

    ValueError for what cannot be understood.
    """

    # The ports come first: lists are read with them.
    server_port: int = SERVER_PORT
    broadcast_port: int = BROADCAST_PORT
    intf_addr_list: _Addresses = _Addresses("server_port")
    beacon_addr_list: _Addresses = _Addresses("broadcast_port", _destination)
    auto_beacon_addr_list: bool = True
    ignore_addr_list: _Addresses = _Addresses()
    conn_tmo: float = 30.0
    beacon_period: float = 15.0

    def __post_init__(self) -> None:
        _check_ports(self, broadcast_port=0, server_port=0)
        if not 0.1 <= self.beacon_period <= _LONGEST:
            raise ValueError(f"beacon_period: {self.beacon_period!r} is not a number of seconds from 0.1 on")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, **fields: Any) -> ServerConfig:
        """What the environment says; `fields` that are not None are taken instead.

        EPICS_PVAS_X comes before EPICS_PVA_X, also where it is set to nothing. What cannot be understood is left out, with
        a warning.
        """
        return _from_env(cls, _SERVER, environ, fields)

    @classmethod
    def isolated(cls, **fields: Any) -> ServerConfig:
        """A server for this host alone, on free ports: for tests."""
        isolated: dict[str, Any] = {
            "intf_addr_list": "127.0.0.1",
            "server_port": 0,
            "broadcast_port": 0,
            "auto_beacon_addr_list": False,
        }
        return cls(**(isolated | fields))

    def client_config(self, **fields: Any) -> ClientConfig:
        """What a client on this host needs to find a server of this configuration; its ports must be the real ones."""
        hosts = ["127.0.0.1" if one.is_any else one.host for one in self.tcp_endpoints()]
        bracketed = [f"[{host}]" if ":" in host else host for host in hosts]
        found: dict[str, Any] = {
            "addr_list": bracketed,
            "auto_addr_list": False,
            "broadcast_port": self.broadcast_port,
            "server_port": self.server_port or SERVER_PORT,
            "intf_addr_list": self.intf_addr_list,
            "conn_tmo": self.conn_tmo,
        }
        return ClientConfig(**(found | fields))

    def tcp_endpoints(self) -> list[Endpoint]:
        """Where to listen for connections. All interfaces are 0.0.0.0 and ::, each for its own family."""
        return [one for one in self.udp_endpoints() if not one.is_multicast]

    def udp_endpoints(self) -> list[Endpoint]:
        """Where searches are listened for, at broadcast_port: interfaces (0.0.0.0 and ::, all of them) and groups."""
        groups = self.beacon_addr_list if self.auto_beacon_addr_list else ()
        found = _udp_endpoints(self.intf_addr_list, groups, self.server_port)
        everywhere = next((one for one in found if one.is_any), None)
        if everywhere is not None:
            both = [replace(everywhere, host="0.0.0.0"), replace(everywhere, host="::")]
            found = both + [one for one in found if not one.is_any]
        return without_doubles(found)

    @property
    def tcp_timeout(self) -> float:
        """Seconds without a received byte after which a connection is dropped: 4/3 of conn_tmo, 2 at least."""
        return _tcp_timeout(self.conn_tmo)

    @property
    def echo_interval(self) -> float:
        """Seconds between the echoes of a client."""
        return _echo_interval(self.conn_tmo)


def _tcp_timeout(conn_tmo: float) -> float:
    timeout = conn_tmo * _SCALE
    return max(2.0, timeout) if 0 < timeout < _LONGEST else _DEFAULT_TIMEOUT


def _echo_interval(conn_tmo: float) -> float:
    return max(1.0, min(15.0, _tcp_timeout(conn_tmo) * 3 / 8))


# -- lists of addresses


def _udp_endpoints(interfaces: Iterable[Endpoint], groups: Iterable[Endpoint], port: int) -> list[Endpoint]:
    """Interfaces and groups to listen on; the interface of a group is listened on, too.

    groups: where this end sends to; what others send to the groups among them is for this end as well.
    """
    found = list(interfaces) or [Endpoint("0.0.0.0", port)]
    for one in list(found):
        if one.is_multicast:
            v4 = one.family == socket.AF_INET
            host = address_of(one.interface) if v4 and one.interface else "0.0.0.0" if v4 else "::"
            if host:
                found.append(Endpoint(host, port))
    for one in groups:
        if one.is_multicast:
            found += [one] if one.interface else [replace(one, interface=name) for name in external()]
    return found


# -- variables


def _bool(text: str) -> bool:
    if text.upper() in ("YES", "1"):
        return True
    if text.upper() in ("NO", "0"):
        return False
    raise ValueError("neither YES nor NO")


def _port(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= 0xFFFF):
        raise ValueError("not a port number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError("not a number of seconds")
    return seconds


def _period(text: str) -> float:
    seconds = _seconds(text)
    if seconds < 0.1:
        raise ValueError("shorter than 0.1 s")
    return seconds


# Field -> how it is read (None: a list of addresses), and the variables that tell it: the first that is set.
_Variables: TypeAlias = Mapping[str, tuple[Callable[[str], Any] | None, tuple[str, ...]]]

_CLIENT: Final[_Variables] = {
    "broadcast_port": (_port, ("EPICS_PVA_BROADCAST_PORT",)),
    "server_port": (_port, ("EPICS_PVA_SERVER_PORT", "EPICS_PVAS_SERVER_PORT")),
    "addr_list": (None, ("EPICS_PVA_ADDR_LIST",)),
    "name_servers": (None, ("EPICS_PVA_NAME_SERVERS",)),
    "auto_addr_list": (_bool, ("EPICS_PVA_AUTO_ADDR_LIST",)),
    "intf_addr_list": (None, ("EPICS_PVA_INTF_ADDR_LIST",)),
    "conn_tmo": (_seconds, ("EPICS_PVA_CONN_TMO",)),
}
_SERVER: Final[_Variables] = {
    "server_port": (_port, ("EPICS_PVAS_SERVER_PORT", "EPICS_PVA_SERVER_PORT")),
    "broadcast_port": (_port, ("EPICS_PVAS_BROADCAST_PORT", "EPICS_PVA_BROADCAST_PORT")),
    "intf_addr_list": (None, ("EPICS_PVAS_INTF_ADDR_LIST",)),
    "ignore_addr_list": (None, ("EPICS_PVAS_IGNORE_ADDR_LIST",)),
    "beacon_addr_list": (None, ("EPICS_PVAS_BEACON_ADDR_LIST", "EPICS_PVA_ADDR_LIST")),
    "auto_beacon_addr_list": (_bool, ("EPICS_PVAS_AUTO_BEACON_ADDR_LIST", "EPICS_PVA_AUTO_ADDR_LIST")),
    "conn_tmo": (_seconds, ("EPICS_PVA_CONN_TMO",)),
    "beacon_period": (_period, ("EPICS_PVAS_BEACON_PERIOD", "EPICS_PVA_BEACON_PERIOD")),
}


def _from_env(
    cls: type[_C], variables: _Variables, environ: Mapping[str, str], given: Mapping[str, Any]
) -> _C:
    make: Any = cls
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for field, (read, names) in variables.items():
        name = next((name for name in names if name in environ), None)
        if field in fields or name is None:
            continue
        # The ports are told before the lists: a list is read with the port of entries without one.
        ports = {port: fields[port] for port in ("server_port", "broadcast_port") if port in fields}
        for entry in environ[name].split() if read is None else (environ[name],):
            try:
                if read is None:
                    fields[field] = fields.get(field, ()) + getattr(make(**ports, **{field: entry}), field)
                else:
                    value = read(entry)
                    make(**{field: value})
                    fields[field] = value
            except ValueError as error:
                reason = str(error).removeprefix(f"{field}: ").removeprefix(f"{entry!r}: ")
                _log.warning("%s: %r is ignored: %s", name, entry, reason)
    return cls(**fields)


def _check_ports(config: Any, **least: int) -> None:
    for field, low in least.items():
        port = getattr(config, field)
        if not isinstance(port, int) or isinstance(port, bool) or not low <= port <= 0xFFFF:
            raise ValueError(f"{field}: {port!r} is not a port from {low} to 65535")

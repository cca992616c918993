"""Addresses as EPICS writes them: "host", "host:5076", "[::1]:5076", "224.0.1.1:5076,ttl@interface"."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, TypeAlias, final

# Numeric host, with "%interface" behind it where the address is of a link, and port. IPv4 is never written as IPv6.
Address: TypeAlias = tuple[str, int]

_ENTRY: Final = re.compile(r"(?P<host>[^,@]*)(,(?P<ttl>[^@]*))?(@(?P<interface>[^,]*))?")
_HOST: Final = re.compile(r"(\[(?P<v6>[^\]]*)\]|(?P<host>[^:\[\]]*))(:(?P<port>[^:]*))?")


@final
@dataclass(frozen=True)
class Endpoint:
    """An entry of an address list. host: numeric. ttl, interface: for multicast; None and "" leave them to the system."""

    host: str
    port: int
    ttl: int | None = None
    interface: str = ""

    @classmethod
    def parse(cls, text: str, port: int) -> Endpoint:
        """Read an entry; `port` is that of an entry without one. Names of hosts are looked up.

        ValueError for what is no address, and for a host that is not found.
        """
        entry = _ENTRY.fullmatch(text)
        if entry is None:
            raise ValueError("the ,ttl comes before the @interface")
        ttl = None if entry["ttl"] is None else _number("TTL", entry["ttl"], 255)
        interface = entry["interface"] or ""
        if entry["interface"] == "":
            raise ValueError("no interface behind @")
        if interface.startswith("[") and interface.endswith("]"):
            interface = interface[1:-1]
        try:
            host = f"[{IPv6Address(entry['host'])}]"  # without brackets, and so without a port
        except ValueError:
            host = entry["host"]
        found = _HOST.fullmatch(host)
        if found is None:
            raise ValueError(f"no address: {host!r}")
        if found["port"] is not None:
            port = _number("port", found["port"], 0xFFFF)
        if found["v6"] is not None:
            host, zone = _numeric_v6(found["v6"])
            if zone and not interface:
                interface = zone
        else:
            host = resolve(found["host"])
        return cls(host, port, ttl, interface)

    @classmethod
    def of(cls, address: Address) -> Endpoint:
        """The host that has an address."""
        host, _, interface = address[0].partition("%")
        return cls(host, address[1], None, interface)

    @cached_property
    def _ip(self) -> IPv4Address | IPv6Address:
        return ip_address(self.host)

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6."""
        return socket.AF_INET if self._ip.version == 4 else socket.AF_INET6

    @property
    def is_any(self) -> bool:
        """0.0.0.0 or ::, which mean all interfaces."""
        return self._ip.is_unspecified

    @property
    def is_multicast(self) -> bool:
        """A group, not a host."""
        return self._ip.is_multicast

    @property
    def address(self) -> Address:
        """Where to connect or send to."""
        if self._ip.is_link_local and self._ip.version == 6 and self.interface:
            return (f"{self.host}%{self.interface}", self.port)
        return (self.host, self.port)

    def __str__(self) -> str:
        host = self.host if self._ip.version == 4 else f"[{self.host}]"
        ttl = "" if self.ttl is None else f",{self.ttl}"
        return f"{host}:{self.port}{ttl}" + (f"@{self.interface}" if self.interface else "")


def resolve(host: str) -> str:
    """The numeric address of a host, IPv4 if it has one. ValueError if it is not found."""
    if not host:
        raise ValueError("no host")
    try:
        return numeric(str(ip_address(host)))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"host {host!r} not found: {error}") from None
    found.sort(key=lambda one: one[0] != socket.AF_INET)
    return numeric(str(found[0][4][0]))


def numeric(host: str) -> str:
    """An address without what an address can be written in two ways for: IPv4 as IPv6."""
    if ":" in host:
        mapped = IPv6Address(host).ipv4_mapped
        if mapped is not None:
            return str(mapped)
    return host


def source(sockaddr: Any) -> Address:
    """The address that a socket tells, of a peer or of its own."""
    host, port = sockaddr[:2]
    if ":" not in host:
        return (host, port)
    if len(sockaddr) > 3 and sockaddr[3] and "%" not in host:
        try:
            return (f"{host}%{socket.if_indextoname(sockaddr[3])}", port)
        except OSError:
            return (f"{host}%{sockaddr[3]}", port)
    return (numeric(host), port)


def text(address: Address) -> str:
    """As people write it: "127.0.0.1:5075", "[::1]:5075"."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def without_doubles(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Each address and interface once, at its first place, with the longest TTL."""
    found: dict[tuple[Address, str], Endpoint] = {}
    for one in endpoints:
        key = ((one.host, one.port), one.interface)
        old = found.get(key)
        if old is None:
            found[key] = one
        elif (one.ttl or 0) > (old.ttl or 0):
            found[key] = replace(old, ttl=one.ttl)
    return list(found.values())


def _numeric_v6(text: str) -> tuple[str, str]:
    """(address, interface) of what stands in brackets."""
    try:
        address = IPv6Address(text)
    except ValueError:
        raise ValueError(f"no IPv6 address: {text!r}") from None
    host, _, zone = str(address).partition("%")
    return numeric(host), zone


def _number(what: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= most):
        raise ValueError(f"{what} {text!r} is not a number from 0 to {most}")
    return int(text)

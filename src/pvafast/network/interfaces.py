"""The network interfaces of this host, with the standard library alone."""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, final

_log = logging.getLogger("pvafast.network")

_UP: Final = 0x1
_BROADCAST: Final = 0x2
_LOOPBACK: Final = 0x8
_POINT_TO_POINT: Final = 0x10
_BSD: Final = sys.platform != "linux"


@final
@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address of an interface that is up. broadcast: of IPv4, the other end's of a point-to-point link; "": none."""

    interface: str
    address: str
    broadcast: str = ""
    loopback: bool = False

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.address


class _IfAddrs(ctypes.Structure):
    pass


_IfAddrs._fields_ = [
    ("next", ctypes.POINTER(_IfAddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
    ("netmask", ctypes.c_void_p),
    ("broadcast", ctypes.c_void_p),
    ("data", ctypes.c_void_p),
]


def interface_addresses() -> list[InterfaceAddress]:
    """The addresses of all interfaces that are up: asked anew each time, for interfaces come and go."""
    try:
        library: Any = ctypes.CDLL(None, use_errno=True)
        first = ctypes.POINTER(_IfAddrs)()
        if library.getifaddrs(ctypes.byref(first)):
            raise OSError(ctypes.get_errno(), "getifaddrs")
    except (OSError, TypeError, AttributeError) as error:  # Windows has no such library
        _log.debug("no getifaddrs: %r", error)
        return _without_getifaddrs()
    try:
        return list(_walk(first))
    finally:
        library.freeifaddrs(first)


def _walk(entry: Any) -> Iterable[InterfaceAddress]:
    while entry:
        one = entry.contents
        entry = one.next
        address = _text(one.address)
        if not address or not one.flags & _UP:
            continue
        broadcast = ""
        if ":" not in address and one.flags & (_BROADCAST | _POINT_TO_POINT):
            broadcast = _text(one.broadcast)
            if broadcast == "0.0.0.0":
                broadcast = ""
        yield InterfaceAddress(
            one.name.decode(errors="surrogateescape"), address, broadcast, bool(one.flags & _LOOPBACK)
        )


def _text(sockaddr: int | None) -> str:
    """The address in a C sockaddr; "" for none and for other families."""
    if not sockaddr:
        return ""
    head = ctypes.string_at(sockaddr, 2)
    family = head[1] if _BSD else int.from_bytes(head, sys.byteorder)
    if family == socket.AF_INET:
        return str(IPv4Address(ctypes.string_at(sockaddr + 4, 4)))
    if family == socket.AF_INET6:
        raw = bytearray(ctypes.string_at(sockaddr + 8, 16))
        if raw[0] == 0xFE and raw[1] & 0xC0 == 0x80:
            raw[2:4] = b"\0\0"  # where BSD keeps the scope
        return str(IPv6Address(bytes(raw)))
    return ""


def _without_getifaddrs() -> list[InterfaceAddress]:
    """What the resolver knows of this host. The broadcast address of no net: the system sends it where it thinks best."""
    found = [InterfaceAddress("", "127.0.0.1", "", True)]
    try:
        addresses = socket.gethostbyname_ex(socket.gethostname())[2]
    except OSError:
        addresses = []
    found += [
        InterfaceAddress("", address, "255.255.255.255")
        for address in addresses
        if not ip_address(address).is_loopback
    ]
    return found


def broadcasts(host: str = "0.0.0.0") -> list[str]:
    """The IPv4 broadcast addresses of the interface with the address `host`, or of all but loopback ("0.0.0.0").

    Of 127.0.0.1 it is 127.0.0.1 itself: loopback has none.
    """
    if ip_address(host).is_loopback:
        return [host]
    found = [
        one.broadcast
        for one in interface_addresses()
        if one.broadcast and not one.loopback and host in ("0.0.0.0", one.address)
    ]
    return list(dict.fromkeys(found))


def address_of(interface: str) -> str:
    """The IPv4 address of an interface given by its name or by that address; "" if there is none."""
    try:
        return str(IPv4Address(interface))
    except ValueError:
        for one in interface_addresses():
            if one.interface == interface and not one.is_ipv6:
                return one.address
        return ""


def index_of(interface: str) -> int:
    """The number of an interface given by its name, its number or one of its addresses; 0 if there is none."""
    if interface.isascii() and interface.isdigit():
        return int(interface)
    name = interface
    try:
        wanted = str(ip_address(interface.partition("%")[0]))
    except ValueError:
        pass
    else:
        name = next((one.interface for one in interface_addresses() if one.address == wanted), "")
    try:
        return socket.if_nametoindex(name) if name else 0
    except OSError:
        return 0


def external() -> list[str]:
    """The names of the interfaces that are up, but for loopback."""
    return list(dict.fromkeys(one.interface for one in interface_addresses() if not one.loopback))

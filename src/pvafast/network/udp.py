"""UDP (WIRE 7): datagrams of PVA messages, the targets that they are sent to, and the port that a host's processes share."""

from __future__ import annotations

import logging
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, final

from .. import messages
from .._backend import codec, framing
from ..errors import DecodeError
from ..messages import Command, PvaMessage
from . import addresses
from .addresses import Address, Endpoint, without_doubles
from .interfaces import address_of, broadcasts, index_of, interface_addresses
from .loop import Loop

_log = logging.getLogger("pvafast.network")

# Datagrams are kept below this size, so that no router cuts them into fragments: 1,500 less headers and tunnels.
MAX_PAYLOAD: Final = 1400
# Of datagrams that came, so many are read before others get their turn: a flood must not starve the loop.
_BURST: Final = 32
# Answers to a search of 10,000 names come faster than Python reads them; the system keeps as much of this as it allows.
_RECEIVE_BUFFER: Final = 1 << 20
# Where a search that only one process of this host received is sent again, for the others.
GROUP: Final = "224.0.0.128"
_LOOPBACK: Final = "127.0.0.1"
_LARGEST: Final = 65_536

_HEADER: Final = 8
# In the payload of a SEARCH: its flags, the address for the answer, and where the list of protocols begins.
_FLAGS: Final = _HEADER + 4
_REPLY: Final = _HEADER + 8
_SEARCH_MIN: Final = _REPLY + 16 + 2
_ANY: Final = (bytes(16), bytes(10) + b"\xff\xff" + bytes(4))

# The socket module does not know all of these.
_PKTINFO: Final = getattr(socket, "IP_PKTINFO", {"linux": 8, "darwin": 26}.get(sys.platform))
_ENTRIES: Final = struct.Struct("=I4s4s")  # of in_pktinfo: interface, local address, address in the header


# -- messages in datagrams


def encode(message: PvaMessage) -> bytes:
    """A datagram with one message: big-endian, as pvxs sends all of its own."""
    one_way = codec.Codec()
    buffers = messages.encode(
        message, codec=one_way, byteorder="big", from_server=message.from_server or False
    )
    return b"".join(buffers)


def split(data: bytes) -> Iterator[tuple[int, framing.Message]]:
    """The messages of a datagram, each with the place of its header. DecodeError for what does not follow the rules."""
    at = 0
    while at < len(data):
        if len(data) - at < _HEADER:
            raise DecodeError(f"a header needs {_HEADER} bytes, {len(data) - at} left", at)
        magic, version, flags, command = data[at : at + 4]
        if magic != 0xCA or not version:
            raise DecodeError("no header of a message", at)
        if flags & 0x31:
            raise DecodeError("control messages and segments do not travel by UDP", at)
        size = int.from_bytes(data[at + 4 : at + 8], "big" if flags & 0x80 else "little")
        start = at + _HEADER
        if size > len(data) - start:
            raise DecodeError(f"a payload of {size} bytes, {len(data) - start} left", at)
        yield at, framing.Message(version, flags, command, data, start, start + size, at)
        at = start + size


def decode(message: framing.Message) -> PvaMessage:
    """The message in a datagram. Peers differ in the direction bit: the command says who sent it."""
    from_server = message.command != Command.SEARCH
    return messages.decode(message, codec=codec.Codec(), from_server=from_server)


@final
class Malformed:
    """Counts datagrams that are no messages. The first, tenth, hundredth and so on are told in the log: nobody fills it."""

    def __init__(self) -> None:
        self.count = 0

    def tell(self, source: Address, error: DecodeError) -> None:
        """One came."""
        self.count += 1
        if str(self.count).rstrip("0") == "1":
            _log.info("malformed datagram from %s, %d so far: %s", addresses.text(source), self.count, error)


# -- targets


@final
@dataclass(frozen=True, slots=True)
class Target:
    """Where datagrams are sent to. unicast: a single host gets them."""

    endpoint: Endpoint
    unicast: bool

    def __str__(self) -> str:
        return str(self.endpoint)


def targets(entries: Iterable[Endpoint], automatic: Iterable[Endpoint], port: int) -> list[Target]:
    """The entries of an address list, and the broadcast addresses of the `automatic` interfaces. port: of those without one.

    On a host without a network, where nothing has a broadcast address, the host itself stands for all of them.
    """
    found = [replace(one, port=one.port or port) for one in entries]
    interfaces = [one for one in automatic if one.family == socket.AF_INET and not one.is_multicast]
    if interfaces:
        hosts = [host for one in interfaces for host in broadcasts(one.host)]
        found += [Endpoint(host, port) for host in hosts or [_LOOPBACK]]
    everyone = everyones()
    return [Target(one, not one.is_multicast and one.host not in everyone) for one in without_doubles(found)]


def everyones() -> set[str]:
    """The addresses at which all hosts of a net are reached."""
    return {*broadcasts(), "255.255.255.255"}


# -- sockets


def udp_socket(family: int, *, shared: bool = False) -> socket.socket:
    """A socket, not bound yet. shared: other processes may bind the same port, too."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT") and sys.platform != "linux":  # BSD and macOS ask for it
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        except OSError:
            pass  # the system's own size, then
    except BaseException:
        sock.close()
        raise
    return sock


class _Received(Protocol):
    def __call__(
        self, data: bytes, source: Address, destination: str | None, sock: UdpSocket, /
    ) -> object: ...


@final
class UdpSocket:
    """A bound socket on a loop.

    received: called with each datagram, where it came from, which address of this host it was sent to ("": broadcast, or
    to a group; None: the system does not tell), and the socket. destination: what all of them are sent to, where
    the socket is bound so; None: ask for each.
    """

    def __init__(
        self, loop: Loop, sock: socket.socket, received: _Received, *, destination: str | None = None
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._received = received
        self.destination = destination
        self._asks = False
        self._closed = False
        # The interface and TTL that a group was last sent to with.
        self._prepared: tuple[str, int | None] | None = None
        self.family = sock.family
        self.address = addresses.source(sock.getsockname())
        if destination is None and sock.family == socket.AF_INET and _PKTINFO and hasattr(sock, "recvmsg"):
            try:
                sock.setsockopt(socket.IPPROTO_IP, _PKTINFO, 1)
                self._asks = True
            except OSError:
                pass
        loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """Close the socket; nothing is received any more."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def join(self, group: Endpoint) -> None:
        """Receive what is sent to a group, on its interface. OSError where that is not possible."""
        if group.family == socket.AF_INET:
            request = socket.inet_aton(group.host) + _interface_v4(group)
            self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        else:
            request = socket.inet_pton(socket.AF_INET6, group.host) + struct.pack("@I", _interface_v6(group))
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)

    def send(self, data: bytes, endpoint: Endpoint) -> None:
        """Send a datagram; it is lost where the system has no room for it. OSError if it cannot be sent there."""
        if self._closed:
            return
        if endpoint.is_multicast:
            self.prepare(endpoint)
        try:
            self._sock.sendto(data, endpoint.address)
        except (BlockingIOError, InterruptedError):
            pass

    def prepare(self, group: Endpoint) -> None:
        """Set the interface and the TTL of what is sent to groups. OSError where that is not possible."""
        if self._prepared == (group.interface, group.ttl):
            return
        self._prepared = None
        sock = self._sock
        ttl = 1 if group.ttl is None else group.ttl
        if group.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _interface_v4(group))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, _interface_v6(group))
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
        self._prepared = (group.interface, group.ttl)

    def _readable(self) -> None:
        for _ in range(_BURST):
            if self._closed:
                return
            try:
                data, sockaddr, destination = self._receive()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # of an earlier datagram, on Windows: nobody listens there
                _log.debug("UDP: %s", error)
                continue
            try:
                self._received(data, addresses.source(sockaddr), destination, self)
            except Exception:
                # Hostile bytes cause none: this is an error in the program. The socket goes on.
                _log.exception("error while handling a datagram from %s", sockaddr)

    def _receive(self) -> tuple[bytes, Any, str | None]:
        if not self._asks:
            data, sockaddr = self._sock.recvfrom(_LARGEST)
            return data, sockaddr, self.destination
        data, ancillary, _, sockaddr = self._sock.recvmsg(_LARGEST, 64)
        for level, kind, content in ancillary:
            if level == socket.IPPROTO_IP and kind == _PKTINFO and len(content) >= _ENTRIES.size:
                _, local, wanted = _ENTRIES.unpack_from(content)
                # Of broadcasts and groups the two differ.
                return data, sockaddr, socket.inet_ntoa(local) if local == wanted else ""
        return data, sockaddr, None


def _interface_v4(group: Endpoint) -> bytes:
    local = address_of(group.interface) if group.interface else "0.0.0.0"
    if not local:
        raise OSError(f"no interface {group.interface!r} with an IPv4 address")
    return socket.inet_aton(local)


def _interface_v6(group: Endpoint) -> int:
    index = index_of(group.interface) if group.interface else 0
    if group.interface and not index:
        raise OSError(f"no interface {group.interface!r}")
    return index


@final
class Sender:
    """What targets are sent to from, a socket for each family, on ports that are free. received: as of UdpSocket.

    A family that the system does not have is left out: with its targets, if it has any.
    """

    def __init__(self, loop: Loop, targets: Iterable[Target], received: _Received | None = None) -> None:
        self._sockets: dict[int, UdpSocket] = {}
        # By target: one line for each error in the log, until it works again.
        self._failed: dict[Target, str] = {}
        self.targets: list[Target] = []
        for target in targets:
            family = target.endpoint.family
            try:
                if family not in self._sockets:
                    self._sockets[family] = free_socket(loop, family, received or _ignore)
            except OSError as error:
                _log.warning("UDP to %s: %s", target, error)
            else:
                self.targets.append(target)

    def port(self, target: Target) -> int:
        """Where answers from a target come in."""
        return self._sockets[target.endpoint.family].address[1]

    def send(self, message: PvaMessage | bytes, target: Target) -> None:
        """Send a message, or one that is encoded. What goes wrong is told in the log."""
        data = message if isinstance(message, bytes) else encode(message)
        try:
            self._sockets[target.endpoint.family].send(data, target.endpoint)
        except OSError as error:
            if self._failed.get(target) != str(error):
                self._failed[target] = str(error)
                _log.warning("UDP to %s: %s", target, error)
        else:
            if self._failed.pop(target, None) is not None:
                _log.info("UDP to %s works again", target)

    def close(self) -> None:
        """Close the sockets."""
        for sock in self._sockets.values():
            sock.close()


def free_socket(loop: Loop, family: int, received: _Received, host: str = "") -> UdpSocket:
    """A socket on a port that is free. OSError if the system has no such family or address."""
    sock = udp_socket(family)
    try:
        sock.bind((host or ("::" if family == socket.AF_INET6 else "0.0.0.0"), 0))
        return UdpSocket(loop, sock, received, destination="")
    except OSError:
        sock.close()
        raise


def _ignore(data: bytes, source: Address, destination: str | None, sock: UdpSocket) -> None:
    pass


# -- the port that processes share


@final
@dataclass(frozen=True, slots=True)
class Arrived:
    """How a message came: where from, in which version of the protocol, and the socket that got it."""

    source: Address
    version: int
    socket: UdpSocket


@final
class Listener:
    """The port for searches and beacons, which all processes of a host share.

    What is broadcast reaches them all, but what is sent to this host alone reaches one of them. That one sends a search
    again to the group 224.0.0.128 on loopback, behind an OriginTag. So all that listen do, clients for servers, too.

    endpoints: interfaces and groups. port: 0: any that is free. searched: called with a search, where to answer, and how
    it came. beacon: called with a beacon and how it came. Bytes that are no messages are counted, and told in
    the log now and then. OSError if it can listen nowhere.
    """

    def __init__(
        self,
        loop: Loop,
        endpoints: Iterable[Endpoint],
        port: int,
        *,
        searched: Callable[[messages.Search, Address, Arrived], object] | None = None,
        beacon: Callable[[messages.Beacon, Arrived], object] | None = None,
    ) -> None:
        self._loop = loop
        self._searched = searched
        self._beacon = beacon
        self._malformed = Malformed()
        self.port = port
        # By the address that it is bound to; and those of them that answers can be sent from.
        self._sockets: dict[str, UdpSocket] = {}
        self._hosts: list[UdpSocket] = []
        self._forwarder: UdpSocket | None = None
        # Whether searches that come to this process alone can be sent to the others of this host.
        self.shares = True
        self._everyone = everyones()
        endpoints = list(endpoints)
        error = OSError("no interface to listen on")
        for one in endpoints:
            if not one.is_multicast:
                try:
                    self._listen(one)
                except OSError as failed:
                    _log.debug("UDP port %d on %s: %s", port, one.host, failed)
                    error = failed
        if not self._hosts:
            self.close()
            raise error
        for one in endpoints:
            if one.is_multicast:
                try:
                    self._join(one)
                except OSError as failed:
                    _log.debug("%s: %s", one, failed)
        self._group = Endpoint(GROUP, self.port, 1, _LOOPBACK)
        if any(one.family == socket.AF_INET and one.destination != "" for one in self._hosts):
            try:
                # With a port of its own, so that this process knows what it sent itself.
                self._forwarder = free_socket(loop, socket.AF_INET, _ignore, _LOOPBACK)
                self._forwarder.prepare(self._group)
                self._join(self._group)
            except OSError as failed:
                _log.debug("%s: %s", self._group, failed)
                self.shares = False

    def close(self) -> None:
        """Listen no more."""
        for one in (*self._sockets.values(), self._forwarder):
            if one is not None:
                one.close()

    def answer(self, message: PvaMessage, to: Address, arrived: Arrived) -> None:
        """Send a message to where something came from, from the address that it had been sent to. OSError if that fails."""
        endpoint = Endpoint.of(to)
        if endpoint.is_multicast or endpoint.host in self._everyone:
            raise OSError("one search would be answered to many")
        fitting = [one for one in self._hosts if one.family == endpoint.family]
        if not fitting:
            raise OSError(f"no socket for {endpoint}")
        (arrived.socket if arrived.socket in fitting else fitting[0]).send(encode(message), endpoint)

    def _listen(self, interface: Endpoint) -> None:
        host = interface.host
        if interface.family == socket.AF_INET6:
            self._hosts.append(self._bind(host, host))
        elif interface.is_any:
            self._hosts.append(self._bind(host, None))
        else:
            self._hosts.append(self._bind(host, "" if host in self._everyone else host))
            # What is bound to an address does not get what is broadcast, but on Windows.
            for broadcast in broadcasts(host) if sys.platform != "win32" else ():
                try:
                    self._bind(broadcast, "")
                except OSError as error:
                    _log.debug("UDP port %d on %s: %s", self.port, broadcast, error)

    def _bind(self, host: str, destination: str | None) -> UdpSocket:
        if host not in self._sockets:
            sock = udp_socket(socket.AF_INET6 if ":" in host else socket.AF_INET, shared=True)
            try:
                sock.bind((host, self.port))
                self._sockets[host] = UdpSocket(self._loop, sock, self._received, destination=destination)
            except OSError:
                sock.close()
                raise
            self.port = self._sockets[host].address[1]
        return self._sockets[host]

    def _join(self, group: Endpoint) -> None:
        """Receive what is sent to a group, on the socket of all interfaces or, without such, on one of its own."""
        sock = self._sockets.get("0.0.0.0" if group.family == socket.AF_INET else "::")
        if sock is None:
            # On Windows nothing is bound to a group, but what is bound to an address gets what groups are sent.
            sock = self._bind(group.host if sys.platform != "win32" else self._hosts[0].address[0], "")
        sock.join(group)

    def _received(self, data: bytes, source: Address, destination: str | None, sock: UdpSocket) -> None:
        if self._forwarder is not None and source == self._forwarder.address:
            return
        try:
            self._read(data, source, destination, sock)
        except DecodeError as error:
            self._malformed.tell(source, error)

    def _read(self, data: bytes, source: Address, destination: str | None, sock: UdpSocket) -> None:
        tagged = False
        for at, message in split(data):
            arrived = Arrived(source, message.version, sock)
            if message.command == Command.SEARCH:
                if not tagged and message.end - at >= _SEARCH_MIN and data[at + _FLAGS] & messages.UNICAST:
                    self._forward(data[at : message.end], source, destination)
                if self._searched is not None:
                    self._search(decode(message), arrived, tagged)
            elif message.command == Command.BEACON:
                if self._beacon is not None:
                    self._beaconed(decode(message), arrived)
            elif message.command == Command.ORIGIN_TAG:
                if not self._accepts(decode(message), source):
                    return
                tagged = True

    def _search(self, search: PvaMessage, arrived: Arrived, tagged: bool) -> None:
        assert isinstance(search, messages.Search)
        assert self._searched is not None
        host, port = search.address, search.port
        if not host:
            if tagged:
                return  # its source is the process that sent it again
            host = arrived.source[0]
            if search.flags & messages.REPLY_TO_SOURCE_PORT:
                port = arrived.source[1]
        if port:
            self._searched(search, (host, port), arrived)

    def _beaconed(self, beacon: PvaMessage, arrived: Arrived) -> None:
        assert isinstance(beacon, messages.Beacon)
        assert self._beacon is not None
        self._beacon(beacon, arrived)

    def _accepts(self, tag: PvaMessage, source: Address) -> bool:
        """Whether what follows an OriginTag is for this end. Only processes of this host may send one."""
        assert isinstance(tag, messages.OriginTag)
        if not source[0].startswith("127.") and all(
            source[0] != one.address for one in interface_addresses()
        ):
            return False
        hosts = {one.address[0] for one in self._hosts}
        return not tag.address or "0.0.0.0" in hosts or tag.address in hosts

    def _forward(self, data: bytes, source: Address, destination: str | None) -> None:
        """Send a search that this process alone received to the others of this host."""
        if destination == "" or self._forwarder is None or ":" in source[0]:
            return
        search = bytearray(data)
        search[_FLAGS] &= ~messages.UNICAST & 0xFF
        if bytes(search[_REPLY : _REPLY + 16]) in _ANY:
            search[_REPLY : _REPLY + 16] = bytes(10) + b"\xff\xff" + socket.inet_aton(source[0])
        if destination is None:
            destination = _LOOPBACK if source[0].startswith("127.") else ""
        try:
            self._forwarder.send(encode(messages.OriginTag(address=destination)) + search, self._group)
        except OSError as error:
            _log.debug("UDP to %s: %s", self._group, error)

"""Datagrams as the wire reference has them (WIRE 7), by hand; sockets to send and receive them; a loop with a clock of its own."""

from __future__ import annotations

import heapq
import random
import socket
import struct
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from pvafast.network.loop import SelectLoop

GUID = bytes(range(12))
ANY = bytes(10) + b"\xff\xff" + bytes(4)
FIND = 0x66696E64


def mapped(host: str) -> bytes:
    """An IPv4 address in sixteen bytes."""
    return bytes(10) + b"\xff\xff" + socket.inet_aton(host)


def message(command: int, payload: bytes, *, flags: int = 0x80, version: int = 2) -> bytes:
    size = len(payload).to_bytes(4, "big" if flags & 0x80 else "little")
    return bytes((0xCA, version, flags, command)) + size + payload


def search(
    *names: tuple[int, str],
    sequence: int = FIND,
    flags: int = 0,
    address: bytes = ANY,
    port: int = 0,
    protocols: tuple[str, ...] = ("tcp",),
    order: str = ">",
) -> bytes:
    text = struct.pack(order + "IBxxx", sequence, flags) + address + struct.pack(order + "H", port)
    text += bytes((len(protocols),)) + b"".join(bytes((len(one),)) + one.encode() for one in protocols)
    text += struct.pack(order + "H", len(names))
    for cid, name in names:
        raw = name.encode()
        text += struct.pack(order + "I", cid)
        text += bytes((len(raw),)) if len(raw) < 254 else b"\xfe" + struct.pack(order + "I", len(raw))
        text += raw
    return message(3, text, flags=0x80 if order == ">" else 0)


def response(
    *cids: int,
    guid: bytes = GUID,
    sequence: int = FIND,
    address: bytes = ANY,
    port: int = 5075,
    protocol: str = "tcp",
    found: int = 1,
    order: str = ">",
) -> bytes:
    text = guid + struct.pack(order + "I", sequence) + address + struct.pack(order + "H", port)
    text += bytes((len(protocol),)) + protocol.encode() + bytes((found,))
    text += struct.pack(order + f"H{len(cids)}I", len(cids), *cids)
    return message(4, text, flags=0xC0 if order == ">" else 0x40)


def beacon(
    *,
    guid: bytes = GUID,
    sequence: int = 0,
    changes: int = 0,
    address: bytes = ANY,
    port: int = 5075,
    protocol: str = "tcp",
) -> bytes:
    text = guid + struct.pack(">BBH", 0, sequence, changes) + address + struct.pack(">H", port)
    return message(0, text + bytes((len(protocol),)) + protocol.encode() + b"\xff", flags=0xC0)


def origin_tag(address: bytes) -> bytes:
    return message(22, address)


def searched(data: bytes) -> tuple[int, int, int, list[tuple[int, str]]]:
    """(flags, port, number of protocols, channels) of a big-endian search."""
    assert data[:4] == b"\xca\x02\x80\x03"
    assert len(data) == 8 + int.from_bytes(data[4:8], "big")
    port = int.from_bytes(data[32:34], "big")
    at = 35
    for _ in range(data[34]):
        at += 1 + data[at]
    n = int.from_bytes(data[at : at + 2], "big")
    at += 2
    channels = []
    for _ in range(n):
        cid, size = int.from_bytes(data[at : at + 4], "big"), data[at + 4]
        at += 5
        if size == 0xFE:
            size = int.from_bytes(data[at : at + 4], "big")
            at += 4
        channels.append((cid, data[at : at + size].decode()))
        at += size
    assert at == len(data)
    return data[12], port, data[34], channels


def mutated(seeds: list[bytes], times: int, seed: int) -> Iterator[bytes]:
    """Datagrams with bytes changed, left out and put in; cut ones; noise."""
    dice = random.Random(seed)
    for _ in range(times):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 4)):
            kind = dice.randrange(5)
            at = dice.randrange(len(data) + 1)
            if kind == 0 and at < len(data):
                data[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFD, 0xFE, 0xFF, dice.randrange(256)))
            elif kind == 1:
                data[at : at + dice.randint(1, 8)] = b""
            elif kind == 2:
                data[at:at] = dice.randbytes(dice.randint(1, 8))
            elif kind == 3:
                del data[at:]
            else:
                data += dice.choice(seeds)
        yield bytes(data)


class Udp:
    """A plain socket on 127.0.0.1 (or another address): what it sends, and what came to it."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((host, 0))
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]

    def send(self, data: bytes, port: int, host: str | None = None) -> None:
        self.sock.sendto(data, (host or self.sock.getsockname()[0], port))

    def received(self) -> list[bytes]:
        return [data for data, _ in self.received_from()]

    def received_from(self) -> list[tuple[bytes, Any]]:
        found = []
        while True:
            try:
                found.append(self.sock.recvfrom(65536))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self.sock.close()


def gather(loop: SelectLoop, sock: Udp, n: int, timeout: float = 5.0) -> list[bytes]:
    """The n datagrams that come next; and those that come at once behind them, which should not be there."""
    found: list[bytes] = []

    def enough() -> bool:
        found.extend(sock.received())
        return len(found) >= n

    assert loop.run_until(enough, timeout), f"{len(found)} of {n} datagrams: {found}"
    loop.run_until(lambda: False, 0.05)
    return found + sock.received()


def nothing(loop: SelectLoop, sock: Udp, seconds: float = 0.1) -> bool:
    """Whether no datagram comes."""
    loop.run_until(lambda: False, seconds)
    return not sock.received()


def loopback_multicast() -> bool:
    """Whether a group can be joined on loopback, and what is sent to it comes."""
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            here = socket.inet_aton("127.0.0.1")
            sock.bind(("0.0.0.0", 0))
            sock.settimeout(1)
            sock.setsockopt(
                socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("224.0.0.128") + here
            )
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
            sender.sendto(b"x", ("224.0.0.128", sock.getsockname()[1]))
            return sock.recv(1) == b"x"
    except OSError:
        return False


def ipv6() -> bool:
    """Whether there is IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def ipv6_group_interface(group: str = "ff02::42:1") -> str:
    """The name of an interface on which an IPv6 group can be joined, and what is sent to it comes; "" if there is none."""
    for index, name in socket.if_nameindex():
        try:
            with (
                socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock,
                socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender,
            ):
                sock.bind(("::", 0))
                sock.settimeout(0.5)
                request = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
                sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
                sender.sendto(b"x", (group, sock.getsockname()[1]))
                if sock.recv(1) == b"x":
                    return name
        except OSError:
            continue
    return ""


needs_multicast = pytest.mark.skipif(not loopback_multicast(), reason="no multicast on loopback")
needs_ipv6 = pytest.mark.skipif(not ipv6(), reason="no IPv6")


class VirtualLoop:
    """A loop whose clock stands still but for `advance`. Readers are called when `poll` is."""

    class Call:
        def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
            self.callback: Callable[..., object] | None = callback
            self.args = args

        def cancel(self) -> None:
            self.callback = None

    def __init__(self) -> None:
        self.now = 1000.0
        self.calls = 0
        self._timers: list[tuple[float, int, VirtualLoop.Call]] = []
        self._numbers = count()
        self._readers: dict[int, Callable[[], object]] = {}

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> Call:
        return self.call_later(0, callback, *args)

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> Call:
        call = self.Call(callback, args)
        heapq.heappush(self._timers, (self.now + delay, next(self._numbers), call))
        return call

    def add_reader(self, fd: int, callback: Callable[..., object], /, *args: Any) -> None:
        self._readers[fd] = lambda: callback(*args)

    def remove_reader(self, fd: int, /) -> bool:
        return self._readers.pop(fd, None) is not None

    def add_writer(self, fd: int, callback: Callable[..., object], /, *args: Any) -> None:
        raise AssertionError("no TCP on this loop")

    def remove_writer(self, fd: int, /) -> bool:
        return False

    def poll(self) -> None:
        """Let sockets read what has come."""
        for reader in list(self._readers.values()):
            reader()

    def advance(self, seconds: float, after: Callable[[], object] = lambda: None) -> None:
        """Let time pass, timer by timer; `after` is called after each."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            at, _, call = heapq.heappop(self._timers)
            self.now = max(self.now, at)
            if call.callback is not None:
                self.calls += 1
                call.callback(*call.args)
                after()
        self.now = end

    @property
    def pending(self) -> int:
        """Calls that are to come."""
        return sum(call.callback is not None for _, _, call in self._timers)

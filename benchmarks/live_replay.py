"""A server that replays recorded updates as fast as its socket takes them: `python -m benchmarks.live_replay`.

It speaks just enough PVA for one channel with one monitor, and prints its port. A channel's name is "UPDATE:COUNT": when
its monitor is started, COUNT updates are sent, and the connection stays open. Whose first byte is a "b" wants the same
bytes bare: of "bUPDATE:COUNT" and a line feed.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from functools import cache

import numpy as np

from .messages import TYPE_AT, described, stream, update

HELLO = (
    bytes.fromhex("ca02410200000000")
    + b"\xca\x02\x40\x01\x11\0\0\0"
    + bytes.fromhex("00000100ff7f")
    + b"\x01\x09anonymous"
)
# About so many bytes are handed to the kernel at a time.
PIECE = 1 << 20
IOID_AT = 8


def reply(command: int, payload: bytes) -> bytes:
    return b"\xca\x02\x40" + bytes([command]) + struct.pack("<I", len(payload)) + payload


def per_piece(name: str) -> int:
    """How many updates are handed to the kernel at a time; the scalar ones begin anew after so many."""
    return max(1, PIECE // len(recorded(name, 1)))


def recorded(name: str, count: int) -> bytes:
    """Updates as they were recorded."""
    return stream(count) if name == "nts.vt" else update(name) * count


@cache
def piece(name: str, ioid: bytes) -> bytes:
    """A piece of updates, of an operation. It is in the time of a client's first update, so it has to be quick."""
    count = per_piece(name)
    patched = np.frombuffer(whole_piece(name), np.uint8).reshape(count, -1).copy()
    patched[:, IOID_AT : IOID_AT + 4] = np.frombuffer(ioid, np.uint8)
    return patched.tobytes()


@cache
def whole_piece(name: str) -> bytes:
    return recorded(name, per_piece(name))


def send(sock: socket.socket, name: str, count: int, ioid: bytes) -> None:
    raw, per = piece(name, ioid), per_piece(name)
    size = len(raw) // per
    while count:
        part = min(count, per)
        sock.sendall(memoryview(raw)[: part * size])
        count -= part


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def serve(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        if sock.recv(1, socket.MSG_PEEK) == b"b":
            name, _, count = sock.makefile().readline()[1:].strip().partition(":")
            send(sock, name, int(count), b"\1\0\0\0")
            return
        name, total = "", 0
        while True:
            header = exactly(sock, 8)
            payload = exactly(sock, struct.unpack("<I", header[4:])[0])
            match header[3]:
                case 1:
                    sock.sendall(reply(9, b"\xff"))
                case 2:
                    sock.sendall(reply(2, payload))
                case 7:
                    name, _, count = payload[7:].decode().partition(":")
                    total = int(count)
                    sock.sendall(reply(7, payload[2:6] + b"\1\0\0\0\xff"))
                case 13 if payload[8] & 8:
                    sock.sendall(reply(13, payload[4:8] + b"\x08\xff" + described(name)))
                case 13 if payload[8] == 0x44:
                    send(sock, name, total, payload[4:8])
    except (OSError, EOFError):
        pass
    finally:
        sock.close()


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        sock, _ = listener.accept()
        sock.setblocking(True)
        # PVA's server speaks first; who wants bare bytes asks at once, and does not mind.
        threading.Thread(target=greet, args=(sock,), daemon=True).start()


def greet(sock: socket.socket) -> None:
    sock.settimeout(0.02)
    try:
        first = sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        first = b""
    sock.settimeout(None)
    if first != b"b":
        sock.sendall(HELLO)
    serve(sock)


if __name__ == "__main__":
    assert TYPE_AT == 14
    sys.exit(main())

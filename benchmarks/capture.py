"""Captures to measure `pvafast decode` by: `python -m benchmarks.capture small.pcap` writes 200 MB of small updates.

Servers of the recorded NTScalar (or of frames of 512×512 uint16), heard from their side alone, over Ethernet and IPv4.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Iterator

from .messages import init, update

FILE = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)
NOW = 1_700_000_000
SYN, ACK = 2, 16
HELLO = b"\xca\x02\x41\x02\0\0\0\0"


def key(port: int) -> bytes:
    """Addresses and ports: from the server to the client with that port."""
    return bytes([10, 0, 0, 1, 10, 0, 0, 2]) + struct.pack(">HH", 5075, port)


def packet(ms: int, port: int, sequence: int, data: bytes, flags: int = ACK) -> bytes:
    """A record of the file."""
    frame = (
        bytes(12)
        + b"\x08\x00"
        + struct.pack(">BBHIBBH", 0x45, 0, 40 + len(data), 0, 64, 6, 0)
        + key(port)
        + struct.pack(">IIBBHI", sequence & 0xFFFFFFFF, 0, 0x50, flags, 512, 0)
        + data
    )
    return struct.pack("<IIII", NOW + ms // 1000, ms % 1000 * 1000, len(frame), len(frame)) + frame


def records(name: str, connections: int, updates: int, most: int) -> Iterator[bytes]:
    """Without end: each connection begins, then they send in turn, that many updates a millisecond."""
    hello = HELLO + init(name)
    said = update(name) * updates
    pieces = [said[at : at + most] for at in range(0, len(said), most)]
    ports = range(10_000, 10_000 + connections)
    for port in ports:
        yield packet(0, port, 99, b"", SYN | ACK)
        yield packet(0, port, 100, hello)
    sequence = 100 + len(hello)
    ms = 0
    while True:
        for port in ports:
            ms += 1
            at = sequence
            for piece in pieces:
                yield packet(ms, port, at, piece)
                at += len(piece)
        sequence += len(said)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capture", description=__doc__.split(":")[0])  # type: ignore[union-attr]
    parser.add_argument("file")
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument(
        "--update", default="nts.vt",
        help="nts.vt: 37 bytes, nts.full: 60, nts.all: 183, nd.512: a frame of 524,764 (default: nts.vt)",
    )  # fmt: skip
    parser.add_argument("--updates", type=int, default=1, metavar="N", help="so many at a time, in a packet")
    parser.add_argument(
        "--packet",
        type=int,
        default=1448,
        metavar="N",
        help="a packet has at most so many bytes of them (default: 1448)",
    )
    parser.add_argument("--connections", type=int, default=1, metavar="N", help="that send in turn")
    arguments = parser.parse_args()
    left = arguments.mb * 1_000_000 - len(FILE)
    with open(arguments.file, "wb") as out:
        out.write(FILE)
        for record in records(arguments.update, arguments.connections, arguments.updates, arguments.packet):
            left -= out.write(record)
            if left <= 0:
                break


if __name__ == "__main__":
    main()

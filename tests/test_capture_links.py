"""capture/links.py: link layers, VLAN tags, IPv4 and IPv6, fragments; UDP as the witness of what comes out."""

from __future__ import annotations

import io
import itertools
import random
import struct
import tracemalloc
from collections.abc import Iterable

import pytest

from captures import (
    A4,
    A6,
    ACK,
    B4,
    B6,
    NOW,
    PSH,
    SYN,
    datagrams,
    enhanced,
    ethernet,
    events,
    fragment6,
    interface,
    ip4,
    ip6,
    pcap,
    section,
    streams,
    tcp,
    udp,
)
from pvafast.capture import Capture, Datagram, Traffic

UDP4 = ip4(udp(1234, 5076, b"search"), 17)
UDP6 = ip6(udp(1234, 5076, b"search"), 17)
WANTED4 = [("10.0.0.1:1234", "10.0.0.2:5076", b"search", 0)]
WANTED6 = [("[fe80::1]:1234", "[fd00::2]:5076", b"search", 0)]


def frames(link: int, packet: bytes) -> list[bytes]:
    """The packet as frames of a link type, in all its ways."""
    kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    if link == 1:
        return [
            ethernet(packet),
            ethernet(packet) + bytes(18),
            *(
                ethernet(packet, kind, tags)
                for tags in ([0x8100], [0x88A8, 0x8100], [0x9100, 0x8100], [0x8100] * 3)
            ),
        ]
    if link == 113:
        head = struct.pack(">HHH8s", 0, 1, 6, bytes(8))
        return [head + struct.pack(">H", kind) + packet, head + struct.pack(">HHH", 0x8100, 7, kind) + packet]
    if link == 276:
        return [
            struct.pack(">HHIHBB8s", kind, 0, 3, 1, 0, 6, bytes(8)) + packet,
            struct.pack(">HHIHBB8sHH", 0x8100, 0, 3, 1, 0, 6, bytes(8), 7, kind) + packet,
        ]
    if link in (0, 108):
        families = [2] if kind == 0x0800 else [10, 24, 28, 30]
        return [struct.pack(order + "I", family) + packet for order in "<>" for family in families]
    return [packet]


@pytest.mark.parametrize("link", [0, 1, 12, 14, 101, 108, 113, 228, 229, 276])
@pytest.mark.parametrize(("packet", "wanted"), [(UDP4, WANTED4), (UDP6, WANTED6)], ids=["ipv4", "ipv6"])
def test_link_types(link: int, packet: bytes, wanted: list[tuple[str, str, bytes, int]]) -> None:
    for n, frame in enumerate(frames(link, packet)):
        assert datagrams(events(pcap([(n, frame)], link=link))) == wanted


@pytest.mark.parametrize("link", [0, 1, 12, 14, 101, 108, 113, 228, 229, 276])
@pytest.mark.parametrize("version", [4, 6])
def test_tcp_on_every_link(link: int, version: int) -> None:
    """The stream runs through the plain case of the link type as well as through the other frames."""

    def wrap(segment: bytes) -> bytes:
        return ip4(segment) if version == 4 else ip6(segment)

    packets = [wrap(tcp(9, 5075, 99, flags=SYN))]
    wanted = b""
    for n in range(20):
        packets.append(wrap(tcp(9, 5075, 100 + len(wanted), flags=ACK | PSH, data=b"message %d" % n)))
        wanted += b"message %d" % n
    ways = len(frames(link, packets[0]))
    for way in range(ways):
        found = events(pcap([(n, frames(link, p)[way]) for n, p in enumerate(packets)], link=link))
        assert [talk[1] for talk in streams(found)] == [[wanted]]
    mixed = events(pcap([(n, frames(link, p)[n % ways]) for n, p in enumerate(packets)], link=link))
    assert [talk[1] for talk in streams(mixed)] == [[wanted]]


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(13),
        ethernet(UDP4, 0x0806),
        ethernet(UDP4, 60),
        ethernet(UDP4)[:20],
        ethernet(UDP6)[:50],
        ethernet(UDP4, tags=[0x8100] * 9),
        ethernet(b"\x44" + UDP4[1:]),
        ethernet(b"\x55" + UDP4[1:]),
        ethernet(ip4(udp(1, 2, b"x"), 17, total=19)),
        ethernet(ip4(udp(1, 2, b"x"), 17, total=27)),
        ethernet(ip4(udp(1, 2, b"x", 7), 17)),
        ethernet(ip4(udp(1, 2, b"x", 10), 17)),
        ethernet(ip4(b"x" * 20, 1)),
        ethernet(ip6(b"x" * 20, 59)),
        ethernet(ip6(b"\x11\xff" + bytes(6) + udp(1, 2, b"x"), 0)),
        ethernet(ip4(tcp(1, 2, 3, data=b"data")[:12] + b"\x40" + bytes(11))),
        ethernet(ip4(tcp(1, 2, 3, data=b"data")[:12] + b"\xf0" + bytes(11))),
        ethernet(ip4(bytes(19))),
    ],
)
def test_nothing_to_see(frame: bytes) -> None:
    capture = Traffic(Capture(io.BytesIO(pcap([(1, frame)]))))
    assert list(capture) == []
    assert capture.statistics.packets == 1
    assert capture.statistics.other + capture.statistics.malformed > 0


def test_unsupported_links_are_counted() -> None:
    capture = Traffic(Capture(io.BytesIO(pcap([(1, UDP4), (2, UDP4)], link=105))))
    assert list(capture) == []
    assert capture.statistics.unsupported == {105: 2}


def test_ipv4_options_and_padding() -> None:
    for size in (4, 8, 40):
        packet = ip4(udp(1234, 5076, b"search"), 17, options=bytes(size))
        assert datagrams(events([(1, ethernet(packet) + b"padding!")])) == WANTED4


def test_super_frames_have_no_ip_length() -> None:
    data = bytes(range(256)) * 300
    for packet in (
        ip4(tcp(9, 5075, 5, flags=PSH | ACK, data=data), total=0),
        ip6(tcp(9, 5075, 5, flags=PSH | ACK, data=data), size=0),
    ):
        assert streams(events([(1, ethernet(packet))]))[0][1] == [data]


def test_ipv6_extension_headers() -> None:
    inner = udp(1234, 5076, b"search")
    options = struct.pack(">BB", 17, 1) + bytes(14)
    routing = struct.pack(">BB", 60, 0) + bytes(6) + options
    hop = struct.pack(">BB", 43, 2) + bytes(22) + routing
    authentication = struct.pack(">BB", 17, 4) + bytes(22)
    atomic = fragment6(b"", 17, 77, 0, False)
    for following, head in ((60, options), (43, routing), (0, hop), (51, authentication), (44, atomic)):
        assert datagrams(events([(1, ethernet(ip6(head + inner, following)))])) == WANTED6


def pieces4(payload: bytes, cuts: Iterable[int], ident: int = 7, protocol: int = 17) -> list[bytes]:
    edges = [0, *cuts, len(payload)]
    return [
        ethernet(ip4(payload[a:b], protocol, ident=ident, offset=a, more=b < len(payload)))
        for a, b in itertools.pairwise(edges)
    ]


def pieces6(payload: bytes, cuts: Iterable[int], ident: int = 7) -> list[bytes]:
    edges = [0, *cuts, len(payload)]
    return [
        ethernet(ip6(fragment6(payload[a:b], 17, ident, a, b < len(payload)), 44))
        for a, b in itertools.pairwise(edges)
    ]


@pytest.mark.parametrize("make", [pieces4, pieces6])
def test_fragments_in_any_order(make: object) -> None:
    data = bytes(range(200))
    parts = (pieces4 if make is pieces4 else pieces6)(udp(1234, 5076, data), [8, 96, 160])
    for order in itertools.permutations(parts):
        found = datagrams(events([(n, part) for n, part in enumerate(order)]))
        assert [(payload, missing) for _, _, payload, missing in found] == [(data, 0)]
    twice = [part for part in parts for _ in range(2)]  # two interfaces
    assert [payload for *_, payload, _ in datagrams(events(list(enumerate(twice))))] == [data]
    for left_out in range(len(parts)):
        some = parts[:left_out] + parts[left_out + 1 :]
        assert datagrams(events(list(enumerate(some)))) == []


def test_fragmented_tcp() -> None:
    parts = pieces4(tcp(9, 5075, 1, flags=PSH | ACK, data=b"v" * 3000), [1480, 2960], protocol=6)
    assert streams(events(list(enumerate(parts))))[0][1] == [b"v" * 3000]


def test_fragments_of_two_datagrams_mixed() -> None:
    one = pieces4(udp(1, 5076, b"a" * 100), [8, 56], 1)
    two = pieces4(udp(2, 5076, b"b" * 100), [8, 56], 2)
    mixed = [part for pair in zip(one, two, strict=True) for part in pair]
    assert [payload for *_, payload, _ in datagrams(events(list(enumerate(mixed))))] == [
        b"a" * 100,
        b"b" * 100,
    ]


def test_overlapping_fragments_are_dropped() -> None:
    payload = udp(1, 5076, b"x" * 92)
    good = pieces4(payload, [48])
    evil = ethernet(ip4(b"E" * 24, 17, ident=7, offset=32, more=True))
    for order in itertools.permutations([*good, evil]):
        # What comes once the datagram is whole comes too late to harm it.
        late = order[-1] is evil
        assert len(datagrams(events(list(enumerate(order))))) == late


def test_fragments_time_out() -> None:
    first, last = pieces4(udp(1, 5076, b"x" * 92), [48])
    assert len(datagrams(events([(0, first), (29_000_000, last)]))) == 1
    assert datagrams(events([(0, first), (31_000_000, last)])) == []


@pytest.mark.parametrize("size", [8, 1400, 60_000])
def test_a_flood_of_fragments_takes_little_memory(size: int) -> None:
    rng = random.Random(1)
    packets = [
        (
            n,
            ethernet(
                ip4(
                    bytes(size),
                    17,
                    ident=rng.randrange(65_536),
                    offset=rng.choice([0, 8, 2000, 4000]),
                    more=True,
                )
            ),
        )
        for n in range(3000 if size > 50_000 else 20_000)
    ]
    file = io.BytesIO(pcap(packets))
    tracemalloc.start()
    try:
        traffic = Traffic(Capture(file))
        assert list(traffic) == []
        assert tracemalloc.get_traced_memory()[1] < 14 << 20
    finally:
        tracemalloc.stop()
    assert traffic.statistics.fragments_dropped > 0


def test_datagram_cut_by_the_snap_length() -> None:
    frame = ethernet(ip4(udp(1234, 5076, b"0123456789"), 17))
    assert datagrams(events(pcap([(1, frame[:-4], len(frame))]))) == [
        ("10.0.0.1:1234", "10.0.0.2:5076", b"012345", 4)
    ]
    part = pieces4(udp(1, 5076, b"x" * 92), [48])[1]
    assert datagrams(events(pcap([(1, part[:-4], len(part))]))) == []


def test_udp_length_within_the_packet() -> None:
    assert (
        datagrams(events([(1, ethernet(ip4(udp(1234, 5076, b"search") + b"behind", 17, total=0)))]))
        == WANTED4
    )
    whole = udp(1234, 5076, b"search", 0)
    assert datagrams(events([(1, ethernet(ip4(whole, 17)))])) == WANTED4


def test_datagrams_from_two_interfaces() -> None:
    def seen(*packets: tuple[int, bytes, int]) -> int:
        file = section() + interface() + interface(113)
        for time, data, number in packets:
            file += enhanced(data, NOW * 10**6 + time, number)
        return sum(isinstance(event, Datagram) for event in events(file))

    def on(number: int, ident: int, data: bytes = b"beacon") -> bytes:
        packet = ip4(udp(1, 5076, data), 17, ident=ident)
        return frames(113, packet)[0] if number else ethernet(packet)

    assert seen((0, on(0, 5), 0), (9, on(1, 5), 1)) == 1
    assert seen((0, on(0, 0), 0), (9, on(1, 0), 1)) == 1
    assert seen((0, on(0, 0), 0), (5, on(0, 0), 0), (9, on(1, 0), 1), (12, on(1, 0), 1)) == 2
    assert seen((0, on(0, 5), 0), (9, on(0, 5), 0)) == 1
    # The same words said again.
    assert seen((0, on(0, 5), 0), (9, on(0, 6), 0)) == 2
    assert seen((0, on(0, 0), 0), (9, on(0, 0), 0)) == 2
    assert seen((0, on(0, 0), 0), (2_000_000, on(1, 0), 1)) == 2
    assert seen((0, on(0, 5), 0), (9, on(1, 5, b"others"), 1)) == 2


def test_two_copies_on_one_cooked_interface() -> None:
    """Multicast that this host sends and receives: once as outgoing, once as incoming."""
    packet = ip4(udp(1, 5076, b"beacon"), 17)
    for link, at in ((113, 1), (276, 10)):
        frame = frames(link, packet)[0]
        copy = frame[:at] + b"\x04" + frame[at + 1 :]
        assert len(datagrams(events(pcap([(1, copy), (2, frame)], link=link)))) == 1


@pytest.mark.parametrize("link", [0, 1, 101, 113, 276])
def test_mutated_packets(link: int) -> None:
    rng = random.Random(link)
    seeds = [
        UDP4,
        UDP6,
        ip4(tcp(9, 5075, 5, flags=PSH | ACK, data=b"v" * 30, options=bytes(12))),
        ip6(
            struct.pack(">BB", 43, 0)
            + bytes(6)
            + struct.pack(">BB", 44, 0)
            + bytes(6)
            + fragment6(bytes(24), 17, 3, 0, True),
            0,
        ),
        ip4(bytes(64), 17, ident=3, more=True, options=bytes(8)),
    ]
    packets = []
    for n in range(8000):
        frame = bytearray(rng.choice(frames(link, rng.choice(seeds))))
        for _ in range(rng.randint(0, 3)):
            frame[rng.randrange(min(len(frame), 70))] = rng.choice([0, 1, 255, rng.randrange(256)])
        packets.append(
            (n, bytes(frame[: rng.choice([len(frame), rng.randrange(len(frame) + 1)])]), rng.randrange(200))
        )
    found = events(pcap(packets, link=link))
    assert sum(isinstance(event, Datagram) for event in found) > 500
    streams(found)


def test_addresses() -> None:
    mapped = bytes(10) + b"\xff\xff" + A4
    assert (
        datagrams(events([(1, ethernet(ip6(udp(1, 2, b"x"), 17, src=mapped, dst=B6)))]))[0][0]
        == "[::ffff:10.0.0.1]:1"
    )
    assert A6 != B6
    assert A4 != B4

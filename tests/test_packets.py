"""Plain: packets of the plain case, taken out of capture files in runs; and what it has to leave to others."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from captures import (
    A4,
    A6,
    ACK,
    B4,
    B6,
    FIN,
    PSH,
    RST,
    SYN,
    block,
    enhanced,
    ethernet,
    fragment6,
    interface,
    ip4,
    ip6,
    pcap,
    section,
    tcp,
    udp,
)

HEADER = 24  # of a pcap file
KEY4 = A4 + B4 + struct.pack(">HH", 1000, 2000)
KEY6 = A6 + B6 + struct.pack(">HH", 1000, 2000)
CLOCK = SimpleNamespace(per_second=1_000_000)
LAN = SimpleNamespace(link=1, clock=CLOCK)


def back(key: bytes) -> bytes:
    size = (len(key) - 4) // 2
    return key[size : 2 * size] + key[:size] + key[-2:] + key[-4:-2]


def flows(backend: SimpleNamespace, *keys: bytes, next: int = 100) -> dict[bytes, Any]:
    """Both directions of open connections, whose next bytes have the number `next`."""
    found = {}
    for key in keys:
        connection = SimpleNamespace(ignored=False)
        there, here = (backend.packets.Flow(connection, side) for side in (0, 1))
        there.peer, here.peer = here, there
        for each in (there, here):
            each.fast = True
            each.next = next
        found[key], found[back(key)] = there, here
    return found


def segment(data: bytes = b"x", seq: int = 100, ack: int = 7, flags: int = ACK, key: bytes = KEY4) -> bytes:
    ports = struct.unpack(">HH", key[-4:])
    size = (len(key) - 4) // 2
    body = tcp(*ports, seq, ack, flags, data)
    make: Any = ip4 if size == 4 else ip6
    return make(body, src=key[:size], dst=key[size : 2 * size])  # type: ignore[no-any-return]


def take(
    backend: SimpleNamespace,
    frames: Iterable[bytes | tuple[int, bytes]],
    table: dict[bytes, Any],
    *,
    lan: Any = LAN,
    together: bool = False,
) -> tuple[list[tuple[Any, list[int], list[bytes]]], int, Any]:
    """([(flow, times, chunks) of each run], packets taken, the Plain)."""
    packets = [frame if isinstance(frame, tuple) else (i, frame) for i, frame in enumerate(frames)]
    plain = backend.packets.Plain(table, None, together)
    runs, end = plain.pcap(pcap(packets, link=lan.link), HEADER, "<", lan)
    for run in runs:
        assert run.clock is lan.clock
        assert run.size == sum(map(len, run.chunks))
        assert run.flow.run is None
    taken = plain.count
    assert end == HEADER + sum(16 + len(frame) for _, frame in packets[:taken])
    return [(run.flow, run.times, run.chunks) for run in runs], taken, plain


@pytest.mark.parametrize("key", [KEY4, KEY6])
@pytest.mark.parametrize("tags", [(), (0x8100,)])
def test_segments_of_a_stream(backend: SimpleNamespace, key: bytes, tags: tuple[int, ...]) -> None:
    table = flows(backend, key, next=0xFFFFFFFE)
    frames = [
        ethernet(segment(b"ab", 0xFFFFFFFE, key=key), tags=tags),
        ethernet(segment(b"", 0xFFFFFFFE, ack=1, key=back(key)), tags=tags),
        ethernet(segment(b"cde", 0, flags=ACK | PSH, ack=8, key=key), tags=tags) + bytes(6),
    ]
    times = [5, 1_000_006, 4_294_967_295_999_999]
    runs, taken, plain = take(backend, list(zip(times, frames, strict=True)), table)
    flow = table[key]
    assert runs == [(flow, [times[0], times[2]], [b"ab", b"cde"])]
    assert taken == 3
    assert (flow.next, flow.touched, flow.acked, flow.peer.acked, flow.peer.touched) == (3, 3, 1, 8, 2)
    assert (plain.ticks, plain.clock) == (times[2], CLOCK)


def test_options_of_tcp(backend: SimpleNamespace) -> None:
    """Time stamps, as nearly every segment has them; up to the 40 bytes that there can be."""
    table = flows(backend, KEY4)
    frames = [
        ethernet(ip4(tcp(1000, 2000, 100 + i, data=b"%d" % i, options=b"\x01" * size)))
        for i, size in enumerate((12, 40, 0))
    ]
    runs, taken, _ = take(backend, frames, table)
    assert taken == 3
    assert runs == [(table[KEY4], [0, 1, 2], [b"0", b"1", b"2"])]


LINKS = {
    1: ethernet(b"", kind=0x0800),
    113: bytes(14) + b"\x08\x00",
    276: b"\x08\x00" + bytes(18),
    0: b"\x02\0\0\0",
    108: b"\0\0\0\x02",
    **dict.fromkeys((12, 14, 101, 228, 229), b""),
}


@pytest.mark.parametrize("link", [*LINKS, 105, 147])
def test_link_types(backend: SimpleNamespace, link: int) -> None:
    lan = SimpleNamespace(link=link, clock=CLOCK)
    frames = [head + segment(b"x", 100) for head in (LINKS.get(link, b""),)]
    _, taken, _ = take(backend, frames, flows(backend, KEY4), lan=lan)
    assert taken == (link in LINKS)
    if LINKS.get(link):  # marked as something else
        other = bytes(len(LINKS[link])) + segment(b"x", 100)
        assert take(backend, [other], flows(backend, KEY4), lan=lan)[1] == 0


NOT_PLAIN = {
    "a SYN": ethernet(segment(flags=SYN | ACK)),
    "a FIN": ethernet(segment(flags=FIN | ACK)),
    "a RST": ethernet(segment(flags=RST | ACK)),
    "no ACK": ethernet(segment(flags=PSH)),
    "sent again": ethernet(segment(seq=99)),
    "behind a hole": ethernet(segment(seq=101)),
    "an unknown flow": ethernet(segment(key=A4 + A4 + KEY4[-4:])),
    "UDP": ethernet(ip4(udp(1000, 2000, bytes(20)), 17)),
    "UDP over IPv6": ethernet(ip6(udp(1000, 2000, bytes(20)), 17)),
    "IPv4 options": ethernet(ip4(tcp(1000, 2000, 100), options=bytes(4))),
    "a first fragment": ethernet(ip4(tcp(1000, 2000, 100), more=True)),
    "a later fragment": ethernet(ip4(tcp(1000, 2000, 100), offset=8)),
    "a fragment of IPv6": ethernet(ip6(fragment6(tcp(1000, 2000, 100), 6, 1, 0, False), 44)),
    "cut by the snap length": ethernet(segment(bytes(20)))[:-1],
    "cut in the headers": ethernet(segment())[:53],
    "cut in the headers of IPv6": ethernet(segment(key=KEY6))[:73],
    "a super-frame": ethernet(ip4(tcp(1000, 2000, 100), total=0)),
    "a super-frame of IPv6": ethernet(ip6(tcp(1000, 2000, 100), size=0)),
    "IP shorter than TCP": ethernet(ip4(tcp(1000, 2000, 100), total=39)),
    "TCP options beyond the packet": ethernet(ip4(struct.pack(">HHIIBBHHH", 1000, 2000, 100, 7, 0x60, ACK, 0, 0, 0))),
    "a TCP header too short": ethernet(ip4(struct.pack(">HHIIBBHHH", 1000, 2000, 100, 7, 0x40, ACK, 0, 0, 0))),
    "version 5": ethernet(b"\x55" + segment()[1:], kind=0x0800),
    "version 4 said to be 6": ethernet(segment(bytes(20)), kind=0x86DD),
    "two tags": ethernet(segment(), tags=(0x8100, 0x8100)),
    "a tag of another kind": ethernet(segment(), tags=(0x88A8,)),
    "ARP": ethernet(bytes(46), kind=0x0806),
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("what", NOT_PLAIN)
def test_what_is_not_plain(backend: SimpleNamespace, what: str) -> None:
    table = flows(backend, KEY4, KEY6)
    good = ethernet(segment(b"good", 96))
    for flow in table.values():
        flow.next = 96
    runs, taken, _ = take(backend, [good, NOT_PLAIN[what], ethernet(segment(b"later"))], table)
    assert taken == 1
    assert [chunks for _, _, chunks in runs] == [[b"good"]]
    assert (table[KEY4].next, table[KEY4].touched) == (100, 1)


def test_flows_that_are_not_fast(backend: SimpleNamespace) -> None:
    table = flows(backend, KEY4)
    table[KEY4].fast = False
    assert take(backend, [ethernet(segment())], table)[1] == 0
    assert table[KEY4].next == 100


def test_what_is_ignored_is_taken_and_dropped(backend: SimpleNamespace) -> None:
    table = flows(backend, KEY4, KEY6)
    table[KEY4].connection.ignored = True
    frames = [segment(b"a", 100, key=KEY6), segment(b"b"), segment(b"c", 101, key=KEY6)]
    runs, taken, _ = take(backend, map(ethernet, frames), table)
    assert taken == 3
    assert runs == [(table[KEY6], [0, 2], [b"a", b"c"])]
    assert table[KEY4].next == 101


def message(
    payload: bytes = bytes(7), command: int = 13, flags: int = 0x40, size: int | None = None
) -> bytes:
    """A monitor update by default: ioid 0, subcommand 0, no fields, no overrun."""
    size = len(payload) if size is None else size
    return bytes([0xCA, 2, flags, command]) + size.to_bytes(4, "big" if flags & 0x80 else "little") + payload


# Chunks that may overtake those of other connections, and chunks that may not.
UPDATES = {
    "one": message(),
    "big-endian": message(flags=0xC0),
    "two": message() + message(bytes(300)),
    "the shortest": message(bytes(5)),
}
OTHERS = {
    "of a client": message(flags=0),
    "control": message(flags=0x41),
    "a segment": message(flags=0x50),
    "GET": message(command=10),
    "INIT": message(b"\0\0\0\0\x08\0\0"),
    "too short": message(bytes(4)),
    "not whole": message(size=8),
    "the rest of one": message()[1:],
    "a second one of another kind": message() + message(command=10),
    "a second one that is not whole": message() + message()[:-1],
    "size of 4 GiB": message(size=0xFFFFFFFF),
    "twelve bytes": message()[:12],
}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("what", [*UPDATES, *OTHERS])
def test_runs(backend: SimpleNamespace, what: str, together: bool) -> None:
    """Three connections in turn: only updates go to those of their flow, and only if that is wanted."""
    chunk = UPDATES.get(what) or OTHERS[what]
    keys = [A4 + B4 + struct.pack(">HH", port, 5075) for port in (1, 2, 3)]
    table = flows(backend, *keys)
    a, b, c = (table[key] for key in keys)
    order = [keys[0], keys[0], keys[1], keys[2], keys[1], keys[1], keys[0]]
    frames = []
    nexts = dict.fromkeys(keys, 100)
    for key in order:
        frames.append(ethernet(segment(chunk, nexts[key], key=key)))
        nexts[key] += len(chunk)
    runs, taken, _ = take(backend, frames, table, together=together)
    assert taken == len(order)
    assert all(chunk == one for _, _, chunks in runs for one in chunks)
    if together and what in UPDATES:
        assert [(flow, times) for flow, times, _ in runs] == [(a, [0, 1, 6]), (b, [2, 4, 5]), (c, [3])]
    else:
        assert [(flow, times) for flow, times, _ in runs] == [
            (a, [0, 1]), (b, [2]), (c, [3]), (b, [4, 5]), (a, [6]),
        ]  # fmt: skip


def test_what_is_no_update_keeps_its_place(backend: SimpleNamespace) -> None:
    """Among those of other connections, and in its own one; an update goes behind the latest of its flow."""
    keys = [A4 + B4 + struct.pack(">HH", port, 5075) for port in (1, 2)]
    table = flows(backend, *keys)
    a, b = (table[key] for key in keys)
    update, other = message(), message(command=10)
    said = [(0, update), (1, update), (0, other), (1, other), (0, update), (1, update)]
    nexts = [100, 100]
    frames = []
    for who, chunk in said:
        frames.append(ethernet(segment(chunk, nexts[who], key=keys[who])))
        nexts[who] += len(chunk)
    runs, _, _ = take(backend, frames, table, together=True)
    assert [(flow, times) for flow, times, _ in runs] == [(a, [0]), (b, [1]), (a, [2, 4]), (b, [3, 5])]


def test_the_two_directions_keep_their_order(backend: SimpleNamespace) -> None:
    table = flows(backend, KEY4)
    update = message()
    n = len(update)
    frames = [
        segment(update), segment(update, key=back(KEY4)), segment(update, 100 + n), segment(b"", 100 + n, key=back(KEY4)),
        segment(update, 100 + 2 * n),
    ]  # fmt: skip
    runs, _, _ = take(backend, map(ethernet, frames), table, together=True)
    there, here = table[KEY4], table[back(KEY4)]
    assert [(flow, times) for flow, times, _ in runs] == [(there, [0]), (here, [1]), (there, [2, 4])]


@pytest.mark.parametrize("together", [False, True])
def test_a_run_is_of_some_kilobytes(backend: SimpleNamespace, together: bool) -> None:
    table = flows(backend, KEY4)
    chunk = message(bytes(992))
    frames = [ethernet(segment(chunk, 100 + 1000 * i)) for i in range(40)]
    runs, taken, _ = take(backend, frames, table, together=together)
    assert taken == 40
    assert [time for _, times, _ in runs for time in times] == list(range(40))
    assert all(len(times) <= 10 for _, times, _ in runs)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng(backend: SimpleNamespace, order: str) -> None:
    table = flows(backend, KEY4)
    nano = SimpleNamespace(per_second=10**9)
    raw = SimpleNamespace(link=101, clock=nano)
    head = section(order) + interface(1, order=order) + interface(101, order=order)
    ticks = (1 << 60) + 1
    file = (
        head
        + enhanced(ethernet(segment(b"a")), 3, order=order)
        + enhanced(segment(b"bcd", 101), ticks, 1, order=order)
        + enhanced(segment(b"", 100, key=back(KEY4)), ticks + 1, 1, order=order)
    )
    plain = backend.packets.Plain(table, None)
    runs, end = plain.pcapng(file + block(5, bytes(8), order), len(head), order, [LAN, raw])
    assert [(run.flow, run.clock, run.times, run.chunks) for run in runs] == [
        (table[KEY4], CLOCK, [3], [b"a"]),
        (table[KEY4], nano, [ticks], [b"bcd"]),
    ]
    assert end == len(file)
    assert (plain.count, plain.ticks, plain.clock) == (3, ticks + 1, nano)


def fields(frame: bytes, **changed: int) -> bytes:
    """An enhanced packet block of the frame, with some of its numbers changed."""
    names = ("kind", "size", "number", "high", "low", "captured", "length")
    good = bytearray(enhanced(frame, 1))
    for name, x in changed.items():
        at = len(good) - 4 if name == "size_again" else 4 * names.index(name)
        struct.pack_into("<I", good, at, x)
    return bytes(good)


FRAME = ethernet(segment())


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": 2},
        {"kind": 0x0A0D0D0A},
        {"number": 1},
        {"number": 0xFFFFFFFF},
        {"size": 16},
        {"size": 0},
        {"size": 0xFFFFFFFC},
        {"size_again": 4},
        {"captured": 0xFFFFFFFF},
        {"captured": 1 << 31},
        {"captured": len(FRAME) + 16},
    ],
)
def test_blocks_that_are_not_plain(backend: SimpleNamespace, changed: dict[str, int]) -> None:
    head = section() + interface()
    good = fields(FRAME)
    assert backend.packets.Plain(flows(backend, KEY4), None).pcapng(head + good, len(head), "<", [LAN])[
        1
    ] == len(head + good)
    plain = backend.packets.Plain(flows(backend, KEY4), None)
    assert plain.pcapng(head + fields(FRAME, **changed), len(head), "<", [LAN]) == ([], len(head))
    assert plain.count == 0


@pytest.mark.parametrize("size", [0xFFFFFFFF, 1 << 31, len(FRAME) + 1])
def test_records_that_are_not_whole(backend: SimpleNamespace, size: int) -> None:
    file = pcap([]) + struct.pack("<IIII", 1, 2, size, size) + FRAME
    assert backend.packets.Plain(flows(backend, KEY4), None).pcap(file, HEADER, "<", LAN) == ([], HEADER)


@pytest.mark.parametrize("format", ["pcap", "pcapng"])
def test_a_window_that_ends_anywhere(backend: SimpleNamespace, format: str) -> None:
    frames = [ethernet(segment(b"ab", 100 + 2 * i)) for i in range(3)]
    head = pcap([]) if format == "pcap" else section() + interface()
    records = [pcap([(i, f)])[HEADER:] if format == "pcap" else enhanced(f, i) for i, f in enumerate(frames)]
    file = head + b"".join(records)
    ends = [len(head + b"".join(records[:n])) for n in range(4)]
    for cut in range(len(head), len(file) + 1):
        plain = backend.packets.Plain(flows(backend, KEY4), None)
        found = (
            plain.pcap(file[:cut], len(head), "<", LAN)
            if format == "pcap"
            else plain.pcapng(file[:cut], len(head), "<", [LAN])
        )
        assert found[1] == max(end for end in ends if end <= cut)
        assert plain.count == ends.index(found[1])


def test_wrong_use(backend: SimpleNamespace) -> None:
    plain = backend.packets.Plain({}, None)
    for position in (-1, 25):
        with pytest.raises(ValueError, match=f"position {position} outside of 24 bytes"):
            plain.pcap(bytes(24), position, "<", LAN)
        with pytest.raises(ValueError, match=f"position {position} outside of 24 bytes"):
            plain.pcapng(bytes(24), position, "<", [LAN])
    with pytest.raises(KeyError):
        plain.pcap(bytes(24), 24, "=", LAN)
    with pytest.raises(KeyError):
        plain.pcapng(bytes(24), 24, "=", [LAN])
    assert plain.pcap(b"", 0, "<", LAN) == ([], 0)


def state(table: dict[bytes, Any]) -> list[tuple[Any, ...]]:
    return [(key, flow.next, flow.acked, flow.touched) for key, flow in table.items()]


@pytest.mark.parametrize("seed", range(8))
def test_twins_agree_on_damaged_files(twins: tuple[SimpleNamespace, SimpleNamespace], seed: int) -> None:
    rng = random.Random(seed)
    keys = [KEY4, KEY6, A4 + B4 + struct.pack(">HH", 1, 5075)]
    update = message()
    records = 0
    for _ in range(300):
        nexts: dict[bytes, int] = {}
        frames = []
        for _ in range(rng.randint(1, 30)):
            key = rng.choice(keys)
            key = back(key) if rng.random() < 0.3 else key
            data = rng.choice([b"", b"some", update, update, update * 3, message(command=10)])
            frame = ethernet(
                segment(data, nexts.setdefault(key, 100), key=key), tags=rng.choice([(), (0x8100,)])
            )
            nexts[key] += len(data)
            frames.append(frame + bytes(rng.choice([0, 0, 6])))
        ng = seed % 2
        order = rng.choice("<>")
        head = section(order) + interface(order=order) if ng else pcap([], order=order)
        body = bytearray(
            b"".join(enhanced(f, i, order=order) for i, f in enumerate(frames))
            if ng
            else pcap(list(enumerate(frames)), order=order)[HEADER:]
        )
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            body[rng.randrange(len(body))] = rng.choice([0, 1, 0x45, 0xFF, rng.randrange(256)])
        file = head + bytes(body)[: rng.choice([len(body), rng.randrange(len(body) + 1)])]
        together = rng.random() < 0.5
        found = []
        for backend in twins:
            table = flows(backend, *keys)
            plain = backend.packets.Plain(table, None, together)
            runs, end = (plain.pcapng if ng else plain.pcap)(file, len(head), order, [LAN] if ng else LAN)
            names = {id(flow): key for key, flow in table.items()}
            found.append(
                (
                    [(names[id(run.flow)], run.times, run.chunks, run.size) for run in runs],
                    end,
                    plain.count,
                    plain.ticks,
                    state(table),
                )
            )
        assert found[0] == found[1]
        records += found[0][2]
    assert records > 1000

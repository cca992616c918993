"""capture/tcp.py: streams put together from segments that are lost, late, doubled, cut, wrapped round or forged."""

from __future__ import annotations

import io
import itertools
import random
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from captures import (
    A4,
    ACK,
    B4,
    FIN,
    NOW,
    PSH,
    RST,
    SYN,
    Talk,
    damage,
    ethernet,
    events,
    ip4,
    pcap,
    streams,
    tcp,
)
from pvafast.capture import Capture, Clock, Closed, Data, Event, Gap, Opened, Traffic
from pvafast.capture.tcp import Streams, reverse

SIDES = ("10.0.0.1:40000", "10.0.0.2:5075")
BACK = ("10.0.0.2:5075", "10.0.0.1:40000")
Packet = tuple[int, bytes]


def usual(n: int = 6, isn: tuple[int, int] = (1000, 2000), size: int = 50) -> tuple[Talk, bytes, bytes]:
    """A whole conversation, and what was said."""
    talk = Talk(isn=isn).open()
    rng = random.Random(n)
    said = [b"", b""]
    for k in range(n):
        for side in (0, 1):
            data = rng.randbytes(size + k)
            said[side] += data
            talk.say(side, data)
    talk.close()
    return talk, said[0], said[1]


def restamp(packets: list[bytes]) -> list[Packet]:
    return [(NOW * 10**6 + 1000 * n, data) for n, data in enumerate(packets)]


def test_a_conversation() -> None:
    talk, a, b = usual()
    found = events(talk.packets)
    assert streams(found) == [(SIDES, [a], [b], "fin")]
    opened, closed = found[0], found[-1]
    assert isinstance(opened, Opened)
    assert isinstance(closed, Closed)
    assert opened.connection.opener_known
    assert opened.connection.started == [True, True]
    # Each piece has the time of its packet: the first is the fourth packet.
    first = found[1]
    assert isinstance(first, Data)
    assert first.clock.text(first.time) == f"{NOW}.004000"
    assert repr(opened.connection) == "Connection(0, 10.0.0.1:40000 -> 10.0.0.2:5075)"


@pytest.mark.parametrize("behind", [0, 1, 25, 49, 50, 51, 100, 333, 2**31 - 1, 2**31])
def test_sequence_wrap(behind: int) -> None:
    """The 32 bits overflow before, in and after the first bytes."""
    for isn in ((-behind - 1, 5), (5, -behind - 1), (-behind, -behind - 1)):
        talk, a, b = usual(isn=(isn[0] % 2**32, isn[1] % 2**32))
        assert streams(events(talk.packets)) == [(SIDES, [a], [b], "fin")]
        shuffled = swapped(talk.packets, random.Random(behind), 4)
        assert streams(events(restamp([data for _, data in shuffled]))) == [(SIDES, [a], [b], "fin")]


def swapped(packets: list[Packet], rng: random.Random, reach: int) -> list[Packet]:
    """Packets out of order by less than `reach` places; the SYNs stay first."""
    start = next(n for n, packet in enumerate(packets) if packet[1][47] == ACK)
    keyed = [(n + rng.random() * reach, packet) for n, packet in enumerate(packets[start:])]
    return packets[:start] + [packet for _, packet in sorted(keyed)]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.floats(0, 0.5))
def test_reordered_and_doubled(seed: int, reach: int, doubled: float) -> None:
    rng = random.Random(seed)
    talk, a, b = usual(n=8)
    packets = [p for p in talk.packets for _ in range(1 + (rng.random() < doubled))]
    packets = swapped(packets, rng, reach)
    found = streams(events(restamp([data for _, data in packets])))
    # A FIN of both sides may overtake the data before it; then they come before Closed nevertheless.
    assert [(sides, one, two) for sides, one, two, _ in found] == [(SIDES, [a], [b])]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_overlapping_retransmissions(seed: int) -> None:
    """The stream cut into segments anew, again and again, in any order within a window."""
    rng = random.Random(seed)
    data = rng.randbytes(rng.randint(1, 400))
    talk = Talk().open()
    base = talk.next[0]
    edges = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(rng.randint(0, 12)))})
    spans = list(itertools.pairwise(edges))
    spans += [tuple(sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))) for _ in range(8)]  # type: ignore[misc]
    rng.shuffle(spans)
    for a, b in spans:
        talk.put(0, ACK, data[a:b], seq=base + a)
    talk.next[0] += len(data)
    talk.close()
    assert [(one, two) for _, one, two, _ in streams(events(talk.packets))] == [([data], [])]


@pytest.mark.parametrize("start", ["head", "middle", "tail"])
@pytest.mark.parametrize("acked", [True, False])
def test_loss(start: str, acked: bool) -> None:
    """Loss at any place of the stream is one gap of exactly its size, whether the other direction is there or not."""
    words = [bytes([65 + n]) * (10 + n) for n in range(60)]
    lost = {"head": range(2), "middle": range(20, 23), "tail": range(57, 60)}[start]
    talk = Talk().open()
    for n, word in enumerate(words):
        talk.say(0, word, captured=n not in lost, acked=acked)
    talk.close()
    pieces: list[bytes | tuple[str, int]] = [
        b"".join(words[: lost.start]),
        ("lost", sum(len(words[n]) for n in lost)),
        b"".join(words[lost.stop :]),
    ]
    wanted = [piece for piece in pieces if piece]
    assert streams(events(talk.packets)) == [(SIDES, wanted, [], "fin")]


def test_lost_without_fin() -> None:
    """Only the acknowledgement tells that there was more, when the capture ends."""
    talk = Talk().open().say(0, b"seen").say(0, b"not seen", captured=False)
    assert streams(events(talk.packets)) == [(SIDES, [b"seen", ("lost", 8)], [], "end")]
    # That a FIN was acknowledged, which was not captured, is no loss.
    talk = Talk().open().say(0, b"seen")
    talk.next[0] += 1
    assert streams(events(talk.put(1, ACK).packets)) == [(SIDES, [b"seen"], [], "end")]


def when(found: list[Event], data: bytes) -> int:
    return next(n for n, event in enumerate(found) if isinstance(event, Data) and event.data == data)


def test_an_acknowledged_hole_is_given_up_soon() -> None:
    talk = Talk(step=1).open().say(0, b"first").say(0, b"lost", captured=False)
    for n in range(30):
        talk.say(0, b"%d" % n)
    found = events(talk.packets)
    gap = next(n for n, event in enumerate(found) if isinstance(event, Gap))
    assert streams(found)[0][1] == [b"first", ("lost", 4), b"".join(b"%d" % n for n in range(30))]
    # It comes well before the end: data of the ninth packet after it are still held, those of the 20th are not.
    assert gap < when(found, b"20")
    live = [event for event in found if isinstance(event, Data) and event.data == b"29"]
    assert live[0].time == talk.packets[-2][0]


def test_an_acknowledged_hole_is_given_up_after_a_while() -> None:
    """Slow traffic: 0.1 s is enough, the 16 packets need not come."""
    talk = (
        Talk(step=60_000)
        .open()
        .say(0, b"lost", captured=False)
        .say(0, b"one")
        .say(0, b"two")
        .say(1, b"answer")
    )
    found = events(talk.packets)
    assert when(found, b"two") < when(found, b"answer")


def test_a_retransmission_after_a_second_is_waited_for() -> None:
    """A hole that nobody has acknowledged is loss on the network: the bytes will come again."""
    talk = Talk(step=10_000).open()
    base = talk.next[0]
    talk.next[0] += 4
    for n in range(100):
        talk.put(0, PSH | ACK, b"%02d" % n)
        talk.next[0] += 2
        talk.put(1, ACK, ack=base)
    talk.put(0, ACK, b"late", seq=base)
    assert streams(events(talk.packets))[0][1] == [b"late" + b"".join(b"%02d" % n for n in range(100))]


def test_an_unacknowledged_hole_is_given_up_after_five_seconds() -> None:
    talk = Talk(step=1_000_000).open().say(0, b"lost", captured=False, acked=False)
    for n in range(8):
        talk.say(0, b"%d" % n, acked=False)
    found = events(talk.packets)
    assert isinstance(found[1], Gap)
    assert found[1].size == 4
    assert when(found, b"7") == len(found) - 2


def test_a_silent_connection_is_swept() -> None:
    """Its hole is given up though no packet of it comes any more."""
    talk = Talk().open().say(0, b"lost", captured=False, acked=False).say(0, b"held", acked=False)
    other = Talk(a=50_000)
    other.time += 10_000_000
    for n in range(40_000):
        other.put(
            0, PSH | ACK, b"%d" % (n % 10), seq=7 * n
        )  # each leaves a hole, so that the loop is the slow one
    found = events(talk.packets + other.packets)
    held = next(event for event in found if isinstance(event, Data) and event.data == b"held")
    assert found.index(held) < next(n for n, event in enumerate(found) if isinstance(event, Closed))


def streams_of(packets: list[tuple[int, int, bytes]], **limits: int) -> tuple[Streams, list[Event]]:
    """(sequence, flags, payload) of one direction, right into Streams."""
    made = Streams(**limits)
    key = A4 + B4 + b"\x9c\x40\x13\xd3"
    found = []
    for n, (sequence, flags, payload) in enumerate(packets):
        found += made.segment(key, sequence, 0, flags, payload, 0, n, Clock(), n)
        assert made.held_cost >= 0
    return made, found


def test_what_is_held_is_bounded() -> None:
    packets = [(0, SYN, b"")] + [(2 + 2000 * n, PSH, bytes(1000)) for n in range(50)]
    made, found = streams_of(packets, held=20_000)
    assert made.held_cost <= 20_000
    gaps = [event.size for event in found if isinstance(event, Gap)]
    assert gaps == [1] + [1000] * (len(gaps) - 1)
    assert 30 < len(gaps) < 40
    found += made.end(0, Clock())
    assert [event.size for event in found if isinstance(event, Gap)] == [1] + [1000] * 49
    assert made.held_cost == 0


def test_what_all_connections_hold_is_bounded() -> None:
    made = Streams(held=10_000, held_all=50_000)
    found: list[Event] = []
    for n in range(300):
        key = A4 + B4 + n.to_bytes(2, "big") + b"\x13\xd3"
        found += made.segment(key, 0, 0, SYN, b"", 0, n, Clock(), 2 * n)
        found += made.segment(key, 100, 0, PSH, bytes(1000), 0, n, Clock(), 2 * n + 1)
        assert made.held_cost <= 50_000
    # The oldest holes were given up.
    given_up = [event.connection.number for event in found if isinstance(event, Gap)]
    assert given_up == list(range(len(given_up)))
    assert 250 < len(given_up) < 300
    found += made.end(0, Clock())
    assert [talk[1:] for talk in streams(found)] == [([("lost", 99), bytes(1000)], [], "end")] * 300


def test_tiny_segments_behind_a_hole_take_linear_time() -> None:
    """65,000 of them in reverse order, twice: a list that is searched would take minutes."""
    count = 30_000
    data = [(2 + n, PSH, b"%d" % (n % 10)) for n in range(1, count)]
    made, found = streams_of([(0, SYN, b""), *reversed(data), *data, (1, PSH, b"ab")])
    assert made.held_cost == 0
    found += made.end(0, Clock())
    assert [talk[1] for talk in streams(found)] == [
        [b"ab" + b"".join(b"%d" % (n % 10) for n in range(1, count))]
    ]


def test_mid_stream() -> None:
    """Without the handshake, from either side, whatever comes first."""
    for cut in range(3, 12):
        talk, _, _ = usual()
        rest = talk.packets[cut:]
        ((sides, one, two, reason),) = streams(found := events(rest))
        opened = found[0]
        assert isinstance(opened, Opened)
        assert not opened.connection.opener_known
        assert opened.connection.started == [False, False]
        assert reason == "fin"
        said = {SIDES: (one, two), BACK: (two, one)}[sides]
        for pieces, whole in zip(said, usual()[1:], strict=True):
            assert len(pieces) == 1
            assert isinstance(pieces[0], bytes)
            assert whole.endswith(pieces[0])
            assert len(pieces[0]) >= len(whole) - 120


def test_lost_syn() -> None:
    """The answer to it tells who opened and where both directions begin."""
    talk, a, b = usual()
    found = events(talk.packets[1:])
    assert streams(found) == [(SIDES, [a], [b], "fin")]
    opened = found[0]
    assert isinstance(opened, Opened)
    assert opened.connection.opener_known
    assert opened.connection.started == [True, True]
    # Only one direction captured.
    ours = [packet for packet in talk.packets if packet[1][26:30] == A4]
    assert streams(events(ours)) == [(SIDES, [a], [], "end")]
    theirs = [packet for packet in talk.packets if packet[1][26:30] == B4]
    assert streams(events(theirs))[0][2] == [b]


def test_syn_after_the_first_data() -> None:
    talk, a, b = usual()
    packets = [*talk.packets[1:4], talk.packets[0], *talk.packets[4:]]
    assert streams(events(packets)) == [(SIDES, [a], [b], "fin")]
    packets = [*talk.packets[2:4], talk.packets[0], talk.packets[1], *talk.packets[4:]]
    assert streams(events(packets)) == [(SIDES, [a], [b], "fin")]


def test_simultaneous_open() -> None:
    talk = Talk()
    talk.put(0, SYN, ack=0).put(1, SYN, ack=0)
    talk.next = [1001, 2001]
    talk.put(0, SYN | ACK, seq=1000).put(1, SYN | ACK, seq=2000)
    talk.say(0, b"from a").say(1, b"from b").close()
    assert streams(events(talk.packets)) == [(SIDES, [b"from a"], [b"from b"], "fin")]


def test_data_with_the_syn_and_the_fin() -> None:
    talk = Talk().put(0, SYN, b"fast open", ack=0)
    talk.next[0] += 10
    talk.put(1, SYN | ACK)
    talk.next[1] += 1
    talk.put(1, FIN | PSH | ACK, b"and away")
    talk.next[1] += 9
    talk.put(0, FIN | ACK)
    assert streams(events(talk.packets)) == [(SIDES, [b"fast open"], [b"and away"], "fin")]


def test_half_closed() -> None:
    talk = Talk().open().say(0, b"question").put(0, FIN | ACK)
    talk.next[0] += 1
    for n in range(5):
        talk.say(1, b"%d" % n)
    assert streams(events(talk.packets)) == [(SIDES, [b"question"], [b"01234"], "end")]
    talk.put(1, FIN | ACK)
    assert streams(events(talk.packets)) == [(SIDES, [b"question"], [b"01234"], "fin")]


@pytest.mark.parametrize("gap", [0, 10_000_000])
@pytest.mark.parametrize("how", ["fin", "reset", "reused"])
def test_port_reuse(how: str, gap: int) -> None:
    one = Talk().open().say(0, b"one").say(1, b"eins")
    if how == "fin":
        one.close()
    elif how == "reset":
        one.put(0, RST | ACK)
    two = Talk(isn=(5_000_000, 9_000_000))
    two.time = one.time + gap
    two.open().say(0, b"two").say(1, b"zwei").close()
    assert streams(events(one.packets + two.packets)) == [
        (SIDES, [b"one"], [b"eins"], how),
        (SIDES, [b"two"], [b"zwei"], "fin"),
    ]


def test_ports_reused_the_other_way_round() -> None:
    one = Talk().open().say(0, b"one")
    two = Talk(a=5075, b=40_000, isn=(77, 99))
    two.time = one.time
    two.packets.clear()
    frames = []
    for side, flags, seq, data in (
        (1, SYN, 77, b""),
        (0, SYN | ACK, 99, b""),
        (1, PSH | ACK, 78, b"two"),
    ):
        frames.append(one.frame(side, flags, data, seq=seq, ack=78))
    packets = one.packets + [(one.time + n, data) for n, data in enumerate(frames)]
    assert [talk[0] for talk in streams(events(packets))] == [SIDES, BACK]
    assert [talk[1] for talk in streams(events(packets))] == [[b"one"], [b"two"]]


def test_late_segments_of_a_closed_connection() -> None:
    talk, a, b = usual()
    talk.put(0, FIN | PSH | ACK, b"again", seq=talk.next[0] - 6).put(1, ACK)
    talk.put(0, RST, seq=talk.next[0]).put(1, FIN | ACK)
    talk.packets += [(talk.time, data) for _, data in talk.packets[:3]]
    assert streams(events(talk.packets)) == [(SIDES, [a], [b], "fin")]


def test_new_data_long_after_the_close() -> None:
    """The SYN of the next connection was lost."""
    talk = Talk().open().say(0, b"one").close()
    talk.time += 5_000_000
    talk.next = [50, 60]
    talk.say(0, b"two")
    assert [talk[1] for talk in streams(events(talk.packets))] == [[b"one"], [b"two"]]


def test_reset() -> None:
    talk = Talk().open().say(0, b"question")
    for seq, reason in ((None, "reset"), (talk.next[1] + 200_000, "reset"), (talk.next[1] + 2**30, "end")):
        packets = [
            *talk.packets,
            (talk.time + 1, talk.frame(1, RST, seq=seq)),
            (talk.time + 2, talk.frame(1, RST, seq=seq)),
        ]
        assert streams(events(packets)) == [(SIDES, [b"question"], [], reason)]


def test_refused() -> None:
    talk = Talk().put(0, SYN, ack=0)
    talk.put(1, RST | ACK, seq=0, ack=1001).put(1, RST | ACK, seq=0, ack=1001)
    assert streams(events(talk.packets)) == [(SIDES, [], [], "refused")]
    again = Talk(isn=(7777, 0))
    again.put(0, SYN, ack=0).put(1, RST | ACK, seq=0, ack=7778)
    assert [talk[3] for talk in streams(events(talk.packets + again.packets))] == ["refused", "refused"]


def test_connections_without_data_are_not_told_of() -> None:
    assert events(Talk().open().close().packets) == []
    assert events(Talk().open().put(0, RST | ACK).packets) == []
    assert events(Talk().put(0, ACK).put(1, FIN | ACK).put(0, RST).packets) == []


def test_keep_alive_probes() -> None:
    """One byte before the next, which is none of the stream; first of all packets as well."""
    talk = Talk().open().say(0, b"question").say(1, b"answer")
    for _ in range(3):
        talk.put(0, ACK, b"\0", seq=talk.next[0] - 1).put(1, ACK)
        talk.put(1, ACK, b"", seq=talk.next[1] - 1).put(0, ACK)
    talk.say(0, b" and more")
    assert streams(events(talk.packets))[0][1:3] == ([b"question and more"], [b"answer"])
    assert streams(events(talk.packets[7:]))[0][1:3] == ([b" and more"], [])


def test_zero_window_probe_with_the_next_byte() -> None:
    talk = Talk().open().say(0, b"abc").put(0, ACK, b"d").put(1, ACK).put(0, PSH | ACK, b"defg")
    assert streams(events(talk.packets))[0][1] == [b"abcdefg"]


def test_packets_from_two_interfaces() -> None:
    talk, a, b = usual()
    assert streams(events([packet for packet in talk.packets for _ in range(2)])) == [
        (SIDES, [a], [b], "fin")
    ]
    later = sorted(
        talk.packets + [(time + 2500, data) for time, data in talk.packets], key=lambda packet: packet[0]
    )
    traffic = Traffic(capture(pcap(later)))
    assert streams(list(traffic)) == [(SIDES, [a], [b], "fin")]
    assert traffic.statistics.duplicates == 12


def capture(file: bytes) -> Capture:
    return Capture(io.BytesIO(file))


@pytest.mark.parametrize("snap", [54, 60, 100, 150])
def test_cut_by_the_snap_length(snap: int) -> None:
    """The gap is known at once, and the stream goes on behind it; also out of order, doubled, and when held."""
    data = [bytes([n]) * (20 * n) for n in range(1, 9)]
    talk = Talk().open()
    for piece in data:
        talk.say(0, piece)
    talk.close()
    room = snap - 54
    wanted: list[bytes | tuple[str, int]] = []
    for piece in data:
        if room:
            if wanted and isinstance(wanted[-1], bytes):
                wanted[-1] += piece[:room]
            else:
                wanted.append(piece[:room])
        if len(piece) > room:
            wanted.append(("cut", len(piece) - room))
    cut = [(time, frame[:snap], len(frame)) for time, frame in talk.packets]
    assert streams(events(pcap(cut))) == [(SIDES, wanted, [], "fin")]
    mixed = [*cut[:3], cut[5], cut[3], cut[3], cut[7], cut[9], *cut[4:]]
    assert streams(events(pcap(mixed))) == [(SIDES, wanted, [], "fin")]


def test_cut_inside_of_the_tcp_options() -> None:
    frame = ethernet(ip4(tcp(40_000, 5075, 7, 1, PSH | ACK, b"data", options=bytes(12))))
    assert streams(events(pcap([(1, frame[:60], len(frame))])))[0][1] == [("cut", 4)]
    assert events(pcap([(1, frame[:50], len(frame))])) == []


def test_loss_of_more_than_half_the_sequence_numbers() -> None:
    """What follows looks like the past: eight such segments in a row are believed."""
    talk = Talk().open().say(0, b"before")
    talk.next[0] += 3 << 30
    for n in range(20):
        talk.say(0, b"%02d" % n)
    one, gap, rest = streams(events(talk.packets))[0][1]
    assert one == b"before"
    assert gap == ("lost", (3 << 30) + 14)
    assert rest == b"".join(b"%02d" % n for n in range(7, 20))


def test_single_stray_segments_do_no_harm() -> None:
    talk = Talk().open()
    wanted = b""
    for n in range(40):
        talk.put(0, ACK, b"stray", seq=talk.next[0] - (1 << 30) - n)
        talk.say(0, b"%02d" % n)
        wanted += b"%02d" % n
    assert streams(events(talk.packets))[0][1] == [wanted]


def test_a_fin_far_away_does_no_harm() -> None:
    talk = Talk().open().say(0, b"one").put(0, FIN | ACK, seq=1 << 30).say(0, b"two").close()
    assert streams(events(talk.packets)) == [(SIDES, [b"onetwo"], [], "fin")]


def test_ignored() -> None:
    talk, _, _ = usual()
    other = Talk(a=50_000).open()
    for n in range(20):
        other.say(0, b"%02d" % n)
    seen: list[Event] = []
    for event in Traffic(capture(pcap(sorted(talk.packets + other.packets)))):
        seen.append(event)
        if isinstance(event, Opened):
            event.connection.ignored = event.connection.addresses == SIDES
            event.connection.user = "mine"
    first = [event for event in seen if not isinstance(event, (Opened, Closed)) and not_other(event)]
    assert len(first) <= 1
    assert {type(event) for event in seen if isinstance(event, Closed)} == {Closed}
    assert sum(isinstance(event, Closed) for event in seen) == 2


def not_other(event: Event) -> bool:
    return isinstance(event, (Data, Gap)) and event.connection.addresses == SIDES


def test_a_connection_with_itself() -> None:
    """Source and destination are the same: legal (both open at once), and the oldest attack of all (LAND)."""
    packets = [
        ethernet(ip4(tcp(5075, 5075, seq, 100, flags, data), src=A4, dst=A4))
        for seq, flags, data in (
            (99, SYN, b""),
            (99, SYN | ACK, b""),
            (100, ACK, b"hello"),
            (105, FIN | ACK, b""),
            (106, ACK, b""),
        )
    ]
    found = streams(events(restamp(packets)))
    assert all(talk[0] == ("10.0.0.1:5075", "10.0.0.1:5075") for talk in found)
    said = [piece for talk in found for pieces in talk[1:3] for piece in pieces]
    assert b"hello" in said


def flood(kind: str, count: int) -> Iterator[bytes]:
    rng = random.Random(4)
    for n in range(count):
        address = rng.randbytes(4)
        port = rng.randrange(65_536)
        if kind == "syn":
            yield ethernet(ip4(tcp(port, 5075, rng.randrange(2**32), 0, SYN), src=address))
        elif kind == "data":
            yield ethernet(
                ip4(tcp(port, 5075, rng.randrange(2**32), 9, PSH | ACK, b"one packet"), src=address)
            )
        elif kind == "fin":
            yield ethernet(ip4(tcp(port, 5075, n, 9, FIN | PSH | ACK, b"x"), src=address))
            yield ethernet(ip4(tcp(5075, port, n, 9, FIN | PSH | ACK, b"y"), src=B4, dst=address))
        elif kind == "refused":
            yield ethernet(ip4(tcp(port, 5075, n, 0, SYN), src=address))
            yield ethernet(ip4(tcp(5075, port, 0, n + 1, RST | ACK), src=B4, dst=address))
        else:
            yield ethernet(ip4(tcp(port, 5075, n, 9, SYN, b"x"), src=address))
            yield ethernet(ip4(tcp(port, 5075, n + 1000, 9, ACK, bytes(1000)), src=address))


@pytest.mark.parametrize("kind", ["syn", "data", "fin", "refused", "hole"])
def test_floods_take_little_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A twentieth of the limits, several times overrun; what is kept is bounded by them, not by the file."""
    monkeypatch.setattr("pvafast.capture.tcp.GRAVES_LIMIT", 800)
    monkeypatch.setattr(
        "pvafast.capture.traffic.Streams",
        lambda: Streams(connections=3200, embryos=800, held=1 << 20, held_all=4 << 20),
    )
    count = {"syn": 6_000, "fin": 4_000, "refused": 4_000}.get(kind, 10_000)
    file = pcap([(n, data) for n, data in enumerate(flood(kind, count))])
    traffic = Traffic(capture(file))
    opened = closed = 0
    tracemalloc.start()
    try:
        for event in traffic:
            opened += isinstance(event, Opened)
            closed += isinstance(event, Closed)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert opened == closed == (0 if kind == "syn" else count)


def test_active_connections_survive_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvafast.capture.traffic.Streams", lambda: Streams(connections=100, embryos=20))
    talk = Talk().open()
    wanted = b""
    packets = list(talk.packets)
    talk.packets.clear()
    for n, data in enumerate(flood("data", 3000)):
        if n % 20 == 0:
            talk.say(0, b"%04d" % n)
            wanted += b"%04d" % n
            packets += talk.packets
            talk.packets.clear()
        packets.append((talk.time, data))
    found = streams(events(packets))
    assert [talk[1] for talk in found if talk[0] == SIDES] == [[wanted]]
    assert sum(talk[3] == "idle" for talk in found) > 2800


def mutated(packets: list[Packet], rng: random.Random) -> list[Packet]:
    out = []
    for time, data in packets:
        if rng.random() < 0.15:
            bad = bytearray(data)
            bad[rng.randrange(34, min(len(bad), 54))] ^= 1 << rng.randrange(8)
            data = bytes(bad)
        if rng.random() < 0.95:
            out.append((time + rng.choice([0, 0, -(10**7), 10**7]), data))
        if rng.random() < 0.1:
            out.insert(rng.randrange(len(out) + 1), (time, data))
    return out


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_hostile_segments(seed: int) -> None:
    """Anything goes in the TCP header: events stay well formed, no byte is told of more often than captured."""
    rng = random.Random(seed)
    talk, _, _ = usual(n=10)
    second = (
        Talk(isn=(rng.randrange(2**32), rng.randrange(2**32))).open().say(1, b"more").say(0, b"yet").close()
    )
    packets = mutated(talk.packets + second.packets, rng)
    found = events(packets)
    assert damage(found) is None
    total = sum(
        len(piece)
        for talk in streams(found)
        for pieces in talk[1:3]
        for piece in pieces
        if isinstance(piece, bytes)
    )
    assert total <= sum(len(data) for _, data in packets)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
@example(114095)  # a sweep that closes a connection with holes in both directions
def test_random_segments(seed: int) -> None:
    """Segments of two ports around a few sequence numbers, with any flags: the tables stay consistent."""
    rng = random.Random(seed)
    made = Streams(connections=3, embryos=3, held=2000, held_all=3000)
    keys: list[bytes] = [A4 + B4 + bytes([0, n, 0, 9]) for n in range(6)]
    keys += [reverse(key) for key in keys]
    places = [0, 1, 50, 2**31, 2**32 - 20, 1 << 26]
    found: list[Event] = []
    time = 0
    for n in range(300):
        sequence = (rng.choice(places) + rng.randrange(60)) % 2**32
        payload = bytes(rng.choice([0, 0, 1, 5, 40, 300]))
        missing = rng.choice([0, 0, 0, 7])
        time += rng.choice([0, 10, 100_000, 6_000_000])
        flags = rng.choice([ACK, ACK | PSH, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, rng.randrange(256)])
        ack = (rng.choice(places) + rng.randrange(60)) % 2**32
        found += made.segment(rng.choice(keys), sequence, ack, flags, payload, missing, time, Clock(), n)
        if n % 50 == 0:
            found += made.sweep(time, Clock())
        assert 0 <= made.held_cost <= 3000
        assert len(made.flows) <= 2 * (3 + 3 + 1 + 300)
    found += made.end(time, Clock())
    assert made.held_cost == 0
    assert not made.flows
    streams(found)

"""The capture layer on recorded sessions: exactly the streams and datagrams, also after the packets went through the mangle."""

from __future__ import annotations

import io
import itertools
import random
import struct
from collections.abc import Callable, Iterator

import pytest

from captures import datagrams as datagrams_of
from captures import enhanced, events, interface, option, pcap, section
from captures import streams as streams_of
from corpus import Session, sessions
from pvafast.capture import Capture

Packet = tuple[int, bytes]
SESSIONS = [session for session in sessions().values() if "capture.pcap" in session.files]
# Mangled once more for each way: those of moderate size.
SMALL = [session for session in SESSIONS if session.talks and len(session.files["capture.pcap"]) < 100_000][
    ::4
]
LARGE = [
    session
    for session in SESSIONS
    if session.name in ("pvapy_ndarray", "p4p_monitor_nd", "caprotocli_p4psrv_get")
]


def packets_of(session: Session) -> list[Packet]:
    with Capture(io.BytesIO(session.files["capture.pcap"])) as capture:
        found = [(time, data[start:end]) for _, time, data, start, end, _ in capture.packets()]
        assert capture.damage is None
        return found


def said(session: Session) -> list[tuple[bytes, bytes]]:
    return sorted((talk.streams["client"], talk.streams["server"]) for talk in session.talks)


def heard(file: bytes | list[Packet]) -> list[tuple[bytes, bytes]]:
    """What both sides of each connection said; not one byte lost."""
    found = []
    for _, *both, reason in streams_of(events(file)):
        assert reason == "fin"
        assert all(len(pieces) <= 1 and all(isinstance(piece, bytes) for piece in pieces) for pieces in both)
        found.append((b"".join(both[0]), b"".join(both[1])))  # type: ignore[arg-type]
    return sorted(found)


@pytest.mark.parametrize("session", SESSIONS, ids=repr)
def test_streams_and_datagrams(session: Session) -> None:
    file = session.files["capture.pcap"]
    if session.talks:
        assert heard(file) == said(session)
    captured = [
        (src, dst, data.hex()) for src, dst, data, missing in datagrams_of(events(file)) if not missing
    ]
    if "datagrams.json" in session.files:
        recorded = session.json("datagrams.json")["datagrams"]
        assert captured == [
            ("{}:{}".format(*d["src"]), "{}:{}".format(*d["dst"]), d["hex"]) for d in recorded
        ]
    else:
        assert sorted(data for _, _, data in captured) == sorted(data for *_, data in session.meta["udp"])


def is_tcp(frame: bytes) -> bool:
    return frame[23] == 6


def flags(frame: bytes) -> int:
    return frame[47]


def shuffled(packets: list[Packet], rng: random.Random) -> Iterator[Packet]:
    """Out of order by up to six places (and milliseconds), but for the handshakes, and three packets in ten twice."""
    keyed: list[tuple[float, Packet]] = []
    for n, packet in enumerate(packets):
        early = not is_tcp(packet[1]) or flags(packet[1]) & 2
        keyed.append((n if early else n + rng.random() * 6, packet))
        if rng.random() < 0.3:
            keyed.append((n + rng.random() * 6, packet))
    return ((packets[0][0] + 1000 * n, frame) for n, (_, (_, frame)) in enumerate(sorted(keyed)))


def wrapped(packets: list[Packet], rng: random.Random) -> Iterator[Packet]:
    """The sequence numbers of each direction moved, so that they overflow within its first 100 bytes."""
    shift: dict[bytes, int] = {}
    for time, frame in packets:
        if is_tcp(frame):
            ends, back = frame[26:38], frame[30:34] + frame[26:30] + frame[36:38] + frame[34:36]
            sequence, ack = struct.unpack_from(">II", frame, 38)
            if flags(frame) & 2:
                shift[ends] = 2**32 - rng.randrange(100) - sequence
            moved = struct.pack(">II", (sequence + shift[ends]) % 2**32, (ack + shift.get(back, 0)) % 2**32)
            frame = frame[:38] + moved + frame[46:]
        yield time, frame


def split(packets: list[Packet], rng: random.Random) -> Iterator[Packet]:
    """Each IP packet in fragments, in any order."""
    for n, (time, frame) in enumerate(packets):
        body = frame[34:]
        if len(body) < 16:
            yield time, frame
            continue
        cuts = sorted({0, len(body), *(8 * rng.randrange(len(body) // 8 + 1) for _ in range(2))})
        parts = []
        for a, b in itertools.pairwise(cuts):
            size, fragment = 20 + b - a, a // 8 | (0x2000 if b < len(body) else 0)
            parts.append(frame[:16] + struct.pack(">HHH", size, n, fragment) + frame[22:34] + body[a:b])
        rng.shuffle(parts)
        yield from ((time, part) for part in parts)


def resent(packets: list[Packet], rng: random.Random) -> Iterator[Packet]:
    """What two segments of a direction said, said once more in one."""
    before: dict[bytes, tuple[int, bytes]] = {}
    for time, frame in packets:
        yield time, frame
        if not is_tcp(frame):
            continue
        start = 34 + (frame[46] >> 4) * 4
        (sequence,) = struct.unpack_from(">I", frame, 38)
        payload = frame[start:]
        ends = frame[26:38]
        if ends in before and payload and len(before[ends][1]) + len(payload) < 65_000 and rng.random() < 0.3:
            earlier, said = before[ends]
            if (earlier + len(said)) % 2**32 == sequence:
                total = struct.pack(">H", start - 14 + len(said) + len(payload))
                head = frame[:16] + total + frame[18:38] + struct.pack(">I", earlier) + frame[42:start]
                yield time, head + said + payload
        if payload:
            before[ends] = sequence, payload


@pytest.mark.parametrize("mangle", [shuffled, wrapped, split, resent], ids=lambda mangle: mangle.__name__)
@pytest.mark.parametrize("session", [*SMALL, *LARGE], ids=repr)
def test_mangled(session: Session, mangle: Callable[[list[Packet], random.Random], Iterator[Packet]]) -> None:
    packets = packets_of(session)
    rng = random.Random(session.name)
    assert heard(list(mangle(packets, rng))) == said(session)


@pytest.mark.parametrize("session", SMALL, ids=repr)
def test_other_files(session: Session) -> None:
    """The same packets as big-endian pcap in nanoseconds, and as pcapng of two interfaces and sections with a VLAN tag."""
    packets = packets_of(session)
    assert heard(pcap([(time * 1000, data) for time, data in packets], order=">", exponent=9)) == said(
        session
    )
    half = len(packets) // 2
    nano = option(9, b"\x09", ">") + option(0, b"", ">")
    file = section() + interface()
    file += b"".join(enhanced(data, time) for time, data in packets[:half])
    file += section(">") + interface(101, order=">") + interface(1, options=nano, order=">")
    for time, data in packets[half:]:
        file += enhanced(data[:12] + b"\x81\0\0\7" + data[12:], time * 1000, 1, order=">")
    assert heard(file) == said(session)


@pytest.mark.parametrize("session", SMALL, ids=repr)
@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_lost_packets(session: Session, rate: float) -> None:
    """Gaps and data add up to what was said, byte by byte, wherever a direction's start was seen."""
    rng = random.Random(session.name)
    packets = [
        packet
        for packet in packets_of(session)
        if not is_tcp(packet[1]) or flags(packet[1]) & 7 or rng.random() >= rate
    ]
    found = streams_of(events(packets))
    wanted = said(session)
    assert len(found) == len(wanted)
    for _, *both, reason in found:
        assert reason == "fin"
        fitting = [
            talk
            for talk in wanted
            if all(covers(pieces, whole) for pieces, whole in zip(both, talk, strict=True))
        ]
        assert fitting


def covers(pieces: list[bytes | tuple[str, int]], whole: bytes) -> bool:
    at = 0
    for piece in pieces:
        if isinstance(piece, bytes):
            if whole[at : at + len(piece)] != piece:
                return False
            at += len(piece)
        else:
            at += piece[1]
    return at == len(whole)

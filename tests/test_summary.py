"""What `pvafast decode --summary` finds: in conversations made by hand, whose numbers are known, and in recorded ones."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

import corpus
import pvafast
from captures import ACK, NOW, PSH, Talk, ethernet, ip4, ip6, pcap, udp
from pvafast import BitSet, Codec, FieldDesc, Value, messages, ndarray
from pvafast.capture import read
from pvafast.capture.summary import Latency, Summary, report, type_name
from pvafast.capture.summary.room import Room
from pvafast.messages import Severity, Status, StatusType

NT = FieldDesc.structure(
    "epics:nt/NTScalar:1.0", {"value": "double", "alarm": pvafast.alarm_t, "timeStamp": pvafast.time_t}
)
GUIDS = [bytes([n]) * 12 for n in range(1, 10)]


class Chat:
    """A TCP conversation of PVA messages, each in a packet at a time of its own: seconds since the start."""

    def __init__(self, client: int = 40_000, server: int = 5075) -> None:
        self.talk = Talk(client, server)
        self.codecs = (Codec(), Codec())
        self.ends = (f"10.0.0.1:{client}", f"10.0.0.2:{server}")

    def say(self, side: int, at: float, *said: messages.PvaMessage | bytes, captured: bool = True) -> Chat:
        """side: 0 the client, 1 the server."""
        codec = self.codecs[side]
        data = b"".join(
            one
            if isinstance(one, bytes)
            else b"".join(messages.encode(one, codec=codec, from_server=side == 1))
            for one in said
        )
        talk = self.talk
        if captured:
            frame = talk.frame(side, PSH | ACK, data)
            talk.packets.append((NOW * 10**6 + round(at * 10**6), frame))
        talk.next[side] += len(data)
        return self

    def open(self, at: float = 0.0, user: str = "ada") -> Chat:
        """Connect and shake hands within 4 ms; the server takes 2 ms for the client's answer."""
        talk = self.talk
        talk.time = NOW * 10**6 + round(at * 10**6) - 3 * talk.step
        talk.open()
        who = Value(
            FieldDesc.structure("", {"user": "string", "host": "string"}), {"user": user, "host": "lab"}
        )
        self.say(1, at + 0.001, messages.SetByteOrder(), messages.ConnectionValidationRequest())
        self.say(0, at + 0.002, messages.ConnectionValidationResponse(method="ca", data=who))
        return self.say(1, at + 0.004, messages.ConnectionValidated())

    def create(self, name: str, cid: int = 1, at: float = 0.01, took: float = 0.003) -> Chat:
        self.say(0, at, messages.CreateChannel(channels=((cid, name),)))
        return self.say(1, at + took, messages.CreateChannelReply(cid=cid, sid=cid + 100))

    def subscribe(
        self, ioid: int = 1, cid: int = 1, type: FieldDesc = NT, at: float = 0.02, took: float = 0.001
    ) -> Chat:
        sid = cid + 100
        self.say(0, at, messages.MonitorInit(sid=sid, ioid=ioid, request=Value(FieldDesc.structure("", {}))))
        self.say(1, at + took, messages.MonitorInitReply(ioid=ioid, type=type))
        return self.say(0, at + took, messages.MonitorStart(sid=sid, ioid=ioid))

    def update(self, at: float, value: Value, ioid: int = 1, overrun: Iterable[int] = ()) -> Chat:
        return self.say(1, at, messages.MonitorUpdate(ioid=ioid, value=value, overrun=BitSet(overrun)))

    def get(
        self,
        at: float,
        took: float | None,
        ioid: int = 1,
        cid: int = 1,
        status: Status = Status.OK,
        value: Value | None = None,
        lost: bool = False,
    ) -> Chat:
        """A GET that is executed at a time, and answered after another; its INIT is before it, at once."""
        sid = cid + 100
        value = Value(NT, {"value": 1.5}) if value is None else value
        self.say(
            0, at - 0.002, messages.GetInit(sid=sid, ioid=ioid, request=Value(FieldDesc.structure("", {})))
        )
        self.say(1, at - 0.001, messages.GetInitReply(ioid=ioid, type=value.type))
        self.say(0, at, messages.Get(sid=sid, ioid=ioid))
        if took is not None:
            reply = messages.GetReply(ioid=ioid, status=status, value=value if status.ok else None)
            self.say(1, at + took, reply, captured=not lost)
        return self


def datagram(
    at: float, *said: messages.PvaMessage, src: str = "10.0.0.1:6000", dst: str = "10.0.0.255:5076"
) -> tuple[int, bytes]:
    data = b"".join(
        b"".join(messages.encode(one, codec=Codec(), from_server=bool(one.from_server))) for one in said
    )
    (source, sport), (target, dport) = (end.rsplit(":", 1) for end in (src, dst))
    hosts = [bytes(map(int, host.split("."))) for host in (source, target)]
    packet = ip4(udp(int(sport), int(dport), data), 17, src=hosts[0], dst=hosts[1])
    return NOW * 10**6 + round(at * 10**6), ethernet(packet)


def search(at: float, *names: str, src: str = "10.0.0.1:6000", **options: Any) -> tuple[int, bytes]:
    port = int(src.rpartition(":")[2])
    channels = tuple(enumerate(names, 1))
    return datagram(at, messages.Search(sequence=1, port=port, channels=channels), src=src, **options)


def response(
    at: float,
    *cids: int,
    guid: bytes = GUIDS[0],
    host: str = "10.0.0.2",
    to: str = "10.0.0.1:6000",
    port: int = 5075,
    found: bool = True,
) -> tuple[int, bytes]:
    told = messages.SearchResponse(guid=guid, sequence=1, port=port, cids=cids, found=found)
    return datagram(at, told, src=f"{host}:5076", dst=to)


def beacon(
    at: float,
    sequence: int,
    change: int = 0,
    guid: bytes = GUIDS[0],
    host: str = "10.0.0.2",
    port: int = 5075,
) -> tuple[int, bytes]:
    told = messages.Beacon(guid=guid, sequence=sequence & 0xFF, change_count=change, port=port)
    return datagram(at, told, src=f"{host}:5077")


def capture(*parts: Chat | tuple[int, bytes]) -> bytes:
    packets: list[tuple[int, bytes]] = []
    for part in parts:
        packets += part.talk.packets if isinstance(part, Chat) else [part]
    return pcap(sorted(packets, key=lambda packet: packet[0]))


def summed(*parts: Chat | tuple[int, bytes]) -> Summary:
    return of(capture(*parts))


def of(file: bytes, *, batches: bool = True) -> Summary:
    summary = Summary()
    records = read(io.BytesIO(file))
    if batches:
        for batch in records.batches(together=True):
            summary.add_batch(batch)
    else:
        for record in records:
            summary.add(record)
    return summary


def recorded(name: str, *, batches: bool = True) -> Summary:
    return of(corpus.sessions()[name].files["capture.pcap"], batches=batches)


def section(summary: Summary, heading: str) -> list[str]:
    """The lines of a section of the text, without their indentation; problems by the start of their heading."""
    lines = iter(summary.text().split("\n"))
    for line in lines:
        if line == heading or line.startswith(f"! {heading}"):
            break
    found = []
    for line in lines:
        if not line:
            break
        found.append(line.removeprefix("  "))
    return found


def rows(summary: Summary, heading: str) -> list[dict[str, str]]:
    """The rows of a table, by the headings of its columns, which begin or end where the cells do."""
    head, *lines = section(summary, heading)
    titles = [title for title in head.split("  ") if title.strip()]
    spans: list[tuple[int, int]] = []
    at = 0
    for title in titles:
        start = head.index(title.strip(), at)
        at = start + len(title.strip())
        spans.append((start, at))
    found = []
    for line in lines:
        cells: dict[str, str] = {}
        for cell, start, end in words(line):
            for title, (first, last) in zip(titles, spans, strict=True):
                if start == first or end == last:
                    cells[title.strip()] = cell
        found.append(cells)
    return found


def words(line: str) -> Iterator[tuple[str, int, int]]:
    at = 0
    for part in line.split("  "):
        if part.strip():
            start = at + len(part) - len(part.lstrip())
            yield part.strip(), start, start + len(part.strip())
        at += len(part) + 2


# -- PVs


def test_updates_and_rates() -> None:
    """101 updates in 10 ms steps: 100 Hz, of 8 + 4 + 1 + 2 + 8 + 1 = 24 bytes each."""
    chat = Chat().open().create("A:B").subscribe()
    for i in range(101):
        chat.update(1 + i / 100, Value(NT, {"value": float(i)}))
    summary = summed(chat)
    pv = summary.pvs["A:B"]
    assert (pv.type, pv.updates, pv.bytes, pv.frames) == ("NTScalar double", 101, 101 * 24, 0)
    assert (pv.first, pv.last) == (NOW * 10**9 + 10**9, NOW * 10**9 + 2 * 10**9)
    assert pv.rate == pytest.approx(100)
    assert pv.byte_rate == pytest.approx(2400)
    assert rows(summary, "PVs") == [
        {"name": "A:B", "type": "NTScalar double", "updates": "101", "rate": "100 Hz", "data": "2.42 kB",
         "data rate": "2.4 kB/s", "asked": "1 MONITOR"}
    ]  # fmt: skip
    assert summary.problems() == []


def test_several_pvs_in_one_packet_and_two_subscriptions() -> None:
    chat = Chat().open().create("A").create("B", cid=2)
    chat.subscribe(1, 1).subscribe(2, 2).subscribe(3, 1)
    codec = chat.codecs[1]

    def one(ioid: int) -> bytes:
        update = messages.MonitorUpdate(ioid=ioid, value=Value(NT, {"value": 1.0}), overrun=BitSet())
        return b"".join(messages.encode(update, codec=codec, from_server=True))

    for i in range(1, 12):
        chat.say(1, float(i), one(1), one(1), one(2), one(3))
    summary = summed(chat)
    assert {name: (pv.updates, pv.bytes) for name, pv in summary.pvs.items()} == {
        "A": (33, 33 * 24), "B": (11, 11 * 24),
    }  # fmt: skip
    assert summary.pvs["B"].rate == pytest.approx(1)
    assert summary.pvs["A"].commands == {"MONITOR": 2}
    assert [row["name"] for row in rows(summary, "PVs")] == ["A", "B"]  # the one with most data first


def frames(chat: Chat, codec: str = "") -> Chat:
    chat.open().create("CAM").subscribe(type=image(1).type)
    for i in range(5):
        chat.update(1 + i / 10, image(i + 1, codec))
    return chat


def image(number: int, codec: str = "", at: float = 0.0) -> Value:
    """A frame with a uniqueId, and a time stamp so many seconds after NOW."""
    pixels = np.arange(24, dtype=np.uint16).reshape(4, 6)
    return ndarray.encode(pixels, codec=codec, unique_id=number, timestamp=NOW + (at or number / 10))


def test_frames() -> None:
    """5 frames of 48 bytes at 10 Hz."""
    summary = summed(frames(Chat()))
    pv = summary.pvs["CAM"]
    assert (pv.frames, pv.pixels, pv.shape, pv.codec) == (5, 240, "uint16 4×6", "")
    assert pv.rate == pytest.approx(10)
    (row,) = rows(summary, "PVs")
    assert (row["type"], row["updates"], row["rate"]) == ("NTNDArray", "5", "10 Hz")
    assert rows(summary, "frames") == [
        {"PV": "CAM", "array": "uint16 4×6", "frames": "5", "rate": "10 Hz", "data": "240 B", "data rate": "480 B/s"}
    ]  # fmt: skip


def test_compressed_frames() -> None:
    """What was compressed, and how; the bytes are those on the wire."""
    pv = summed(frames(Chat(), "zlib")).pvs["CAM"]
    assert (pv.frames, pv.shape, pv.codec) == (5, "uint16 4×6", "zlib")
    assert 0 < pv.pixels < 1000
    (row,) = rows(summed(frames(Chat(), "zlib")), "frames")
    assert (row["array"], row["codec"]) == ("uint16 4×6", "zlib")
    assert float(row["ratio"]) == pytest.approx(240 / pv.pixels, rel=0.01)


def test_updates_without_pixels_are_no_frames() -> None:
    chat = frames(Chat())
    value = image(1)
    value.unmark()
    value["uniqueId"] = 9
    chat.update(2, value)
    pv = summed(chat).pvs["CAM"]
    assert (pv.updates, pv.frames) == (6, 5)


def test_frames_whose_sizes_are_wrong_or_change() -> None:
    right, wrong, unknown = image(1), image(2), image(3)
    wrong["dimension"][0]["size"] = 7000
    unknown["codec.name"] = "rot13"
    chat = Chat().open().create("CAM").subscribe(type=right.type)
    for i, value in enumerate((right, wrong, unknown)):
        value.mark()
        chat.update(1 + i, value)
    pv = summed(chat).pvs["CAM"]
    assert (pv.frames, pv.shapes, pv.codec) == (3, 3, "rot13")
    assert "(varies)" in rows(summed(chat), "frames")[0]["array"]


def test_frames_that_were_got() -> None:
    """The members of the NTNDArray union."""
    pvs = recorded("p4p_ndarray_types").pvs
    assert len(pvs) == 11
    assert {pv.frames for pv in pvs.values()} == {1}
    assert pvs["nd:ushortValue"].shape == "uint16 6×8"


@pytest.mark.parametrize(
    ("type", "name"),
    [
        (NT, "NTScalar double"),
        (FieldDesc.structure("epics:nt/NTScalarArray:1.0", {"value": "int32[]"}), "NTScalarArray int32[]"),
        (FieldDesc.structure("epics:nt/NTTable:1.0", {"value": FieldDesc.structure("", {})}), "NTTable"),
        (FieldDesc.structure("mine", {"x": "int32"}), "mine"),
        (FieldDesc.structure("", {"value": "string"}), "structure string"),
        (FieldDesc.of("double[]"), "double[]"),
        (None, ""),
    ],
)  # fmt: skip
def test_names_of_types(type: FieldDesc | None, name: str) -> None:
    assert type_name(type) == name


def test_the_type_is_that_of_the_whole() -> None:
    """A client of pvAccessCPP that selects a field gets a type without a name; another one gets all."""
    chat = Chat().open().create("A")
    chat.get(0.1, 0.001, ioid=1, value=Value(FieldDesc.structure("", {"value": "double"}), {"value": 1.0}))
    chat.get(0.2, 0.001, ioid=2)
    assert summed(chat).pvs["A"].type == "NTScalar double"


# -- clients and servers


def test_who_asks_for_what() -> None:
    chats = [
        Chat(40_000 + i).open(user=user).create(pv)
        for i, (user, pv) in enumerate([("ada", "A"), ("bob", "B")])
    ]
    chats[0].get(0.1, 0.001)
    chats[1].get(0.1, 0.001).subscribe(ioid=2, at=0.2).update(0.3, Value(NT, {"value": 1.0}), ioid=2)
    summary = summed(*chats, beacon(0.1, 1), beacon(15.1, 2), beacon(30.1, 3))
    server = summary.servers["10.0.0.2:5075"]
    assert (server.connections, server.guid) == (2, GUIDS[0])
    assert server.peers == {"10.0.0.1:40000": 1, "10.0.0.1:40001": 1}
    assert list(summary.clients["10.0.0.1:40000"].accounts) == ["ada@lab"]
    assert summary.clients["10.0.0.1:40001"].asked == {"GET": 1, "MONITOR": 1}
    (row,) = rows(summary, "servers")
    assert row["address"] == "10.0.0.2:5075"
    assert (row["connections"], row["clients"], row["beacons"]) == ("2", "2", "3, every 15 s")
    assert row["of itself"] == "version 2, little-endian"
    assert row["GUID"] == "01" * 12
    assert {row["account"]: row["asks for"] for row in rows(summary, "clients")} == {
        "ada@lab": "1 GET of A", "bob@lab": "1 GET, 1 MONITOR of B",
    }  # fmt: skip
    assert server.bytes == sum(end.bytes for end in summary.clients.values()) > 0


def test_bytes_of_ends_are_added_once() -> None:
    summary = summed(Chat().open().create("A"))
    assert summary.text() == summary.text()
    assert summary.servers["10.0.0.2:5075"].bytes == summary.bytes


def test_a_program_started_again_and_again_is_one_line() -> None:
    chats = [Chat(40_000 + i).open(at=i).create("A", at=i + 0.1) for i in range(30)]
    summary = summed(*chats)
    assert len(summary.clients) == 30
    assert [row["address"] for row in rows(summary, "clients")] == ["10.0.0.1, 30 ports"]


def test_servers_that_only_beacons_tell_of() -> None:
    summary = summed(beacon(0, 1), response(1, 1, host="10.0.0.3", guid=GUIDS[1], port=6000))
    assert {address: end.guid for address, end in summary.servers.items()} == {
        "10.0.0.2:5075": GUIDS[0], "10.0.0.3:6000": GUIDS[1],
    }  # fmt: skip
    assert len(rows(summary, "servers")) == 2


def test_ipv6() -> None:
    """A server is the same over UDP and over TCP: its address is written with brackets."""
    told = messages.Beacon(guid=GUIDS[0], sequence=1, address="fd00::2")
    data = b"".join(messages.encode(told, codec=Codec(), from_server=True))
    summary = summed((NOW * 10**6, ethernet(ip6(udp(5077, 5076, data), 17))))
    assert list(summary.servers) == ["[fd00::2]:5075"]


# -- answers


def test_latencies() -> None:
    """GETs that take 1 to 100 ms."""
    chat = Chat().open(user="ada").create("A", took=0.25)
    for i in range(1, 101):
        chat.get(float(i), i / 1000, ioid=i)
    summary = summed(chat)
    latency = summary.latencies["10.0.0.2:5075", "GET"]
    assert latency.count == 100
    assert latency.longest == pytest.approx(0.1)
    # Bins are a twentieth of a decade wide.
    assert latency.quantile(0.5) == pytest.approx(0.050, rel=0.13)
    assert latency.quantile(0.99) == pytest.approx(0.099, rel=0.13)
    assert latency.slowest == "A"
    init = summary.latencies["10.0.0.2:5075", "GET INIT"]
    assert (init.count, init.longest) == (100, pytest.approx(0.001))
    assert summary.latencies["10.0.0.2:5075", "CREATE_CHANNEL"].longest == pytest.approx(0.25)
    assert summary.latencies["10.0.0.2:5075", "CONNECTION_VALIDATION"].longest == pytest.approx(0.002)
    assert summary.pvs["A"].latencies["GET"].longest == pytest.approx(0.1)
    assert [row["command"] for row in rows(summary, "answers")][:2] == [
        "CREATE_CHANNEL",
        "GET",
    ]  # the slowest first
    (row,) = (row for row in rows(summary, "answers") if row["command"] == "GET")
    assert (row["count"], row["longest"], row["slowest PV"]) == ("100", "100 ms", "A")


@pytest.mark.parametrize("seed", range(3))
def test_quantiles(seed: int) -> None:
    chance = random.Random(seed)
    times = sorted(10 ** chance.uniform(-7, 1) for _ in range(1000))
    latency = Latency()
    for seconds in times:
        latency.add(seconds)
    for part in (0.1, 0.5, 0.9, 0.99):
        assert latency.quantile(part) == pytest.approx(times[round(part * 1000) - 1], rel=0.065)
    assert latency.quantile(1) == pytest.approx(times[-1], rel=0.065)


def test_odd_latencies() -> None:
    latency = Latency()
    for seconds in (0.0, 1e-12, 1e9):
        latency.add(seconds)
    assert latency.count == 3
    assert latency.quantile(0.5) <= 1e-9 * 1.13
    assert latency.longest == 1e9


def test_searches_and_echoes_take_time_too() -> None:
    chat = Chat().open()
    chat.say(0, 1, messages.Echo()).say(1, 1.005, messages.Echo())
    summary = summed(chat, search(0.1, "A"), response(0.102, 1), response(0.3, 1))
    assert summary.latencies["10.0.0.2:5075", "ECHO"].longest == pytest.approx(0.005)
    found = summary.latencies["10.0.0.2:5075", "SEARCH"]
    assert (found.count, found.longest) == (1, pytest.approx(0.002))  # the second answer answers nothing new


# -- operations never answered


def test_requests_never_answered() -> None:
    chat = Chat().open().create("A").get(1.0, None).say(0, 6.0, messages.Echo()).say(1, 6.5, messages.Echo())
    (one,) = summed(chat).unanswered()
    assert one[:5] == ("GET", "A", "10.0.0.1:40000", "10.0.0.2:5075", 1)
    assert one.seconds == pytest.approx(5.5)
    assert section(summed(chat), "never answered") == ["GET A by 10.0.0.1:40000, waited 5.5 s"]


def test_a_number_used_again_gives_the_request_up() -> None:
    chat = Chat().open().create("A").get(1.0, None).get(4.002, None).get(5.002, 0.001)
    (one,) = summed(chat).unanswered()
    assert (one.command, one.times) == ("GET", 2)
    assert one.seconds == pytest.approx(3)


def test_a_request_at_the_end_says_so() -> None:
    chat = Chat().open().create("A").get(1.0, None)
    assert section(summed(chat), "never answered") == ["GET A by 10.0.0.1:40000, where the capture ends"]


def test_answers_that_were_lost_are_not_missed() -> None:
    """The capture lacks the packet with the answer: nothing can be said of the request."""
    chat = Chat().open().create("A").get(1.0, 0.001, lost=True)
    for i in range(40):
        chat.say(0, 2 + i, messages.Echo()).say(1, 2.1 + i, messages.Echo())
    summary = summed(chat)
    assert summary.unanswered() == []
    assert len(section(summary, "lost or damaged")) == 1


def test_only_one_side_in_the_capture() -> None:
    chat = Chat()
    for i in range(5):
        chat.create("A", cid=i, at=i).get(i + 0.5, 0.001, ioid=i + 1, cid=i)
    both = chat.talk.packets
    chat.talk.packets = [packet for packet in both if packet[1][26:30] == bytes([10, 0, 0, 1])]
    summary = summed(chat)
    assert summary.unanswered() == []
    assert summary.one_sided() == [("10.0.0.1:40000", "10.0.0.2:5075")]
    assert section(summary, "only the client is heard") == ["10.0.0.1:40000 → 10.0.0.2:5075"]


def test_updates_of_many_connections_in_turn() -> None:
    """Two subscribers of each PV: updates are added up run by run, and first and last are those of all the same."""
    chats = [Chat(40_000 + i).open().create("A", cid=1).create("B", cid=2) for i in range(2)]
    for chat in chats:
        chat.subscribe(ioid=1, cid=1).subscribe(ioid=2, cid=2, at=0.03)
    #        second, connection, ioid: B of the first comes before A of the other; the first A of all is the other's
    said = [(1, 0, 2), (2, 1, 1), (3, 0, 1), (4, 1, 2), (5, 0, 1), (6, 1, 1), (7, 0, 2)]
    for at, which, ioid in said:
        chats[which].update(at, Value(NT, {"value": float(at)}), ioid=ioid)
    chats[1].update(8, Value(NT, {"value": 8.0}), ioid=2).update(9, Value(NT, {"value": 9.0}), ioid=1)
    chats[0].update(10, Value(NT, {"value": 10.0}), ioid=2)
    file = capture(*chats)
    for batches in (True, False):
        pvs = of(file, batches=batches).pvs
        assert {name: (pv.updates, (pv.first - NOW * 10**9) / 1e9, (pv.last - NOW * 10**9) / 1e9) for name, pv in pvs.items()} == {
            "A": (5, 2, 9),
            "B": (5, 1, 10),
        }  # fmt: skip
    assert of(file).text() == of(file, batches=False).text()


def test_updates_of_which_only_the_servers_side_is_known() -> None:
    """The name is in what the client said; the updates are shown under their operation."""
    chat = Chat().open().create("A").subscribe(ioid=7)
    for i in range(1, 6):
        chat.update(i, Value(NT, {"value": float(i)}), ioid=7)
    chat.talk.packets = [packet for packet in chat.talk.packets if packet[1][26:30] == bytes([10, 0, 0, 2])]
    summary = summed(chat)
    (pv,) = summary.pvs.values()
    assert pv.name == "? ioid 7, 10.0.0.2:5075 → 10.0.0.1:40000"
    assert (pv.type, pv.updates, pv.rate) == ("NTScalar double", 5, pytest.approx(1))


def test_joined_in_the_middle() -> None:
    """Updates of an unknown type count, and it is said that they were not understood."""
    chat = Chat().open().create("A").subscribe(ioid=7)
    chat.talk.packets.clear()
    for i in range(1, 31):
        chat.update(i, Value(NT, {"value": float(i)}), ioid=7)
    summary = summed(chat)
    (pv,) = summary.pvs.values()
    assert pv.updates == 30
    assert sum(summary.unread.values()) == 30
    assert section(summary, "not understood")[0] == (
        "10.0.0.2:5075 → 10.0.0.1:40000: 29 MONITOR: the type of this operation is not known"
    )


def test_a_monitor_without_updates() -> None:
    chat = Chat().open().create("A").subscribe(at=1.0, took=0.0)
    chat.say(0, 4, messages.Echo()).say(1, 4, messages.Echo())
    assert section(summed(chat), "never answered") == ["MONITOR A: started, no update in 3 s"]
    assert summed(chat.update(5, Value(NT, {"value": 1.0}))).silent() == []


@pytest.mark.parametrize(
    ("name", "what", "pv", "seconds"),
    [
        ("pvapycli_p4psrv_putget_unsupported", "PUT_GET INIT", "put:double", 11.4),
        ("p4pcli_caprotosrv_get", "GET", "c:nt_bool", 30),
    ],
)
def test_recorded_requests_never_answered(name: str, what: str, pv: str, seconds: float) -> None:
    """WIRE 9: servers of pvxs do not answer PUT_GET. README of the corpus: p4p waits in vain for a GET of caproto."""
    one = recorded(name).unanswered()[0]
    assert (one.command, one.pv, one.times) == (what, pv, 1)
    assert one.seconds == pytest.approx(seconds, rel=0.02)


# -- errors


def test_statuses_are_counted() -> None:
    chat = Chat().open().create("A")
    for i in range(3):
        chat.get(1.0 + i, 0.001, ioid=i + 1, status=Status(StatusType.ERROR, "no\nway", "stack"))
    chat.get(5, 0.001, ioid=9, status=Status(StatusType.WARNING, "hm"))
    chat.say(1, 6, messages.RemoteMessage(ioid=9, severity=Severity.ERROR, text="bad request id"))
    chat.say(1, 6, messages.RemoteMessage(ioid=9, severity=Severity.INFO, text="hello"))
    summary = summed(chat)
    assert summary.statuses == {
        ("A", "GET", "ERROR", "no\nway"): 3,
        ("A", "GET", "WARNING", "hm"): 1,
        ("A", "MESSAGE", "ERROR", "bad request id"): 1,
    }
    assert section(summary, "errors and warnings") == [
        "A: GET ERROR 'no way' ×3", "A: GET WARNING 'hm'", "A: MESSAGE ERROR 'bad request id'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "key", "times"),
    [
        # WIRE 8: how pvAccessCPP and pvxs refuse a name; WIRE 13: spvirit's server does it with a warning.
        ("pvapy_fail", ("no:such:pv", "CREATE_CHANNEL", "ERROR", "pv not found"), 1),
        ("p4p_create_fail", ("no:such:pv", "CREATE_CHANNEL", "FATAL", "Refused to create Channel"), 2),
        ("p4pcli_spviritsrv_fail", ("no:such", "CREATE_CHANNEL", "WARNING", "PV not found"), 1),
        ("p4p_put_errors", ("put:nohandler", "PUT", "ERROR", "Put not supported"), 1),
    ],
)
def test_recorded_errors(name: str, key: tuple[str, str, str, str], times: int) -> None:
    assert recorded(name).statuses[key] == times


# -- searches


def test_a_search_that_nobody_answers() -> None:
    summary = summed(
        search(0, "A", "B"), response(0.001, 1), search(1, "B"), search(3, "B"), search(3, "B", src="10.0.0.9:7000"),
        response(3.1, found=False),
    )  # fmt: skip
    assert summary.searches.unanswered() == [("B", 4, ["10.0.0.1", "10.0.0.9"])]
    assert section(summary, "searches never answered") == ["B ×4, by 10.0.0.1, 10.0.0.9"]
    assert summary.searches.names["A"].answers == {"10.0.0.2:5075": GUIDS[0]}


def test_recorded_searches() -> None:
    """The client timed out on this name (expected.json). Its searches are passed on on the loopback: that is not another one."""
    for name, times in (("udp_p4pcli_p4psrv", 3), ("udp_p4pcli_pvapysrv", 3), ("tcpsearch_p4pcli_p4psrv", 2)):
        assert recorded(name).searches.unanswered() == [("no:such:pv", times, ["127.0.0.1"])]


def test_a_host_that_is_not_answered_where_another_one_is() -> None:
    summary = summed(search(0, "A"), response(0.001, 1), search(1, "A", src="10.0.0.9:7000"))
    assert section(summary, "searches never answered") == ["A, by 10.0.0.9 (answered to 10.0.0.1)"]


def test_a_client_of_two_networks() -> None:
    """It searches in both from the same port and is answered in one."""
    summary = summed(search(0, "A"), search(0, "A", src="10.9.0.1:6000"), response(0.001, 1))
    assert summary.searches.unanswered() == []


def test_an_answer_that_is_not_in_the_capture() -> None:
    """The client opened the channel, so it was told where."""
    summary = summed(search(0, "A"), Chat().open(0.1).create("A", at=0.2))
    assert summary.searches.unanswered() == []


def test_a_search_that_is_passed_on_counts_once() -> None:
    origin = messages.OriginTag(address="10.0.0.2")
    copy = messages.Search(sequence=1, address="10.0.0.1", port=6000, channels=((1, "A"),))
    passed = datagram(0.001, origin, copy, src="10.0.0.2:5076", dst="224.0.0.128:5076")
    assert summed(search(0, "A"), passed).searches.unanswered() == [("A", 1, ["10.0.0.1"])]
    assert summed(passed).searches.unanswered() == [("A", 1, ["10.0.0.1"])]


def test_a_name_that_is_lost() -> None:
    """Found at first; later the server is gone."""
    start = [search(0, "A"), response(0.001, 1)]
    summary = summed(*start, *(search(float(t), "A") for t in (10, 11, 13)))
    assert summary.searches.unanswered() == []
    assert summary.searches.lost() == [("A", 3, ["10.0.0.1"])]
    assert section(summary, "searches no longer answered") == ["A ×3, by 10.0.0.1"]
    # Searched at three addresses at once, and answered at the first.
    assert (
        summed(*start, *(search(0.002, "A", dst=f"10.{i}.0.255:5076") for i in range(3))).searches.lost()
        == []
    )


def test_names_that_two_servers_answer() -> None:
    first = [search(0, "A", "B", "C"), response(0.001, 1, 2, 3)]
    summary = summed(
        *first,
        response(0.002, 1, host="10.0.0.3", guid=GUIDS[1]),
        response(0.002, 2, host="10.0.0.4"),  # another address of the same server
    )
    assert summary.searches.answered_twice() == [("A", ["10.0.0.2:5075", "10.0.0.3:5075"])]
    assert section(summary, "names that several servers answer") == ["A: 10.0.0.2:5075, 10.0.0.3:5075"]


def test_the_same_guid_at_two_addresses() -> None:
    summary = summed(
        beacon(0, 1), beacon(1, 1, host="10.0.0.3"), beacon(2, 1, host="10.0.0.4", guid=GUIDS[1])
    )
    assert summary.searches.duplicate_guids() == [("01" * 12, ["10.0.0.2:5075", "10.0.0.3:5075"])]
    assert section(summary, "GUIDs at several addresses") == [f"{'01' * 12}: 10.0.0.2:5075, 10.0.0.3:5075"]
    # Seen on the loopback as well.
    assert summed(beacon(0, 1), beacon(1, 1, host="127.0.0.1")).searches.duplicate_guids() == []
    assert len(summed(beacon(0, 1), beacon(1, 1, host="127.0.0.1", port=9)).searches.duplicate_guids()) == 1


# -- beacons


def test_beacons_that_are_in_order_say_nothing() -> None:
    """Also where the number wraps, and where each is sent twice."""
    sent = [beacon(15.0 * i + j / 1000, 250 + i) for i in range(12) for j in range(2)]
    summary = summed(*sent)
    assert summary.problems() == []
    assert summary.searches.beacons["10.0.0.2:5075"].count == 12


def test_beacons_that_jump() -> None:
    summary = summed(
        beacon(0, 1, 5), beacon(15, 2, 5), beacon(30, 6, 5), beacon(45, 7, 6), beacon(60, 8, 7), beacon(75, 4, 7),
    )  # fmt: skip
    told = summary.searches.beacons["10.0.0.2:5075"]
    assert (told.count, told.missing, told.back, told.changes) == (6, 3, 1, 2)
    assert section(summary, "beacons") == [
        "10.0.0.2:5075: 3 beacons missing beside 6",
        "10.0.0.2:5075: numbers of beacons went back",
        "10.0.0.2:5075: its PVs changed ×2",
    ]


def test_a_server_that_was_restarted() -> None:
    summary = summed(beacon(0, 9), beacon(20, 0, guid=GUIDS[1]), beacon(35, 1, guid=GUIDS[1]))
    assert summary.searches.restarts == [("10.0.0.2:5075", (NOW + 20) * 10**9)]
    assert section(summary, "beacons") == [
        "10.0.0.2:5075: a new GUID, 20 s after the start: the server was restarted"
    ]
    assert summary.searches.duplicate_guids() == []


# -- connections and channels


def test_reconnects_are_one_after_the_other() -> None:
    chats = [Chat(40_000 + i).open(at=10.0 * i).create("A", at=10.0 * i + 1) for i in range(3)]
    summary = summed(*chats)
    (one,) = summary.reconnects()
    assert one[:4] == ("10.0.0.1", "10.0.0.2:5075", 3, 2)
    assert [round(ns / 1e9 - NOW) for ns in one.times] == [10, 20]
    assert section(summary, "reconnects") == [
        "10.0.0.1 → 10.0.0.2:5075: connected again ×2, 3 connections, 10 s, 20 s after the start"
    ]


def test_clients_at_the_same_time_are_several() -> None:
    chats = [Chat(40_000 + i).open(at=i).create("A", at=i + 10.0) for i in range(3)]
    assert summed(*chats).reconnects() == []


def test_updates_keep_a_connection_alive() -> None:
    chat = Chat().open().create("A").subscribe()
    for i in range(1, 20):
        chat.update(i, Value(NT, {"value": 1.0}))
    assert summed(chat, Chat(40_001).open(at=10)).reconnects() == []


def test_channels_closed_by_the_server() -> None:
    chat = Chat().open().create("A").create("B", cid=2, at=0.1)
    chat.say(1, 1, messages.DestroyChannel(sid=101, cid=1)).create("A", cid=3, at=2)
    chat.say(0, 3, messages.DestroyChannel(sid=102, cid=2)).say(
        1, 3.1, messages.DestroyChannel(sid=102, cid=2)
    )
    summary = summed(chat)
    assert summary.closed == {("A", "10.0.0.2:5075"): 1}
    assert summary.reopened == {("A", "10.0.0.2:5075"): 1}
    assert section(summary, "channels closed by servers") == [
        "A of 10.0.0.2:5075: closed by the server, opened again in the same connection"
    ]


def test_recorded_channels_closed_by_the_server() -> None:
    """WIRE 13: pvxs closes a PV under its subscribers with DESTROY_CHANNEL."""
    assert recorded("p4p_monitor_close").closed == {("mon:close", "127.0.0.1:5075"): 1}


# -- losses


def test_overruns() -> None:
    value = Value(NT, {"value": 1.0})
    at = (NT.index("value"), NT.index("alarm"))
    chat = Chat().open().create("A").subscribe()
    chat.update(1, value).update(2, value, overrun=at[:1]).update(3, value, overrun=at)
    summary = summed(chat)
    assert summary.pvs["A"].overruns == {
        "value": 2, "alarm.severity": 1, "alarm.status": 1, "alarm.message": 1,
    }  # fmt: skip
    assert section(summary, "overruns") == [
        "A: value ×2, alarm.message, alarm.severity, alarm.status"
    ]  # fmt: skip


def test_recorded_overruns() -> None:
    """As many as there are in the records (WIRE 13: only pvAccessCPP sends them)."""
    file = corpus.sessions()["pvapy_monitor_fast"].files["capture.pcap"]
    expected = sum(1 for record in read(io.BytesIO(file)) if record.overrun)
    assert expected > 0
    assert recorded("pvapy_monitor_fast").pvs["mon:fast"].overruns == {"value": expected}


def test_frames_missing_and_doubled() -> None:
    """1, 2, 5, 5 again, 4 late, then 1 with newer data: the detector was started again."""
    chat = Chat().open().create("CAM").subscribe(type=image(1).type)
    for i, (number, at) in enumerate(((1, 0.1), (2, 0.2), (5, 0.5), (5, 0.5), (4, 0.4), (1, 9.0))):
        chat.update(1 + i, image(number, at=at))
    summary = summed(chat)
    ((client, server, losses),) = summary.pvs["CAM"].subscriptions
    assert (client, server) == ("10.0.0.1:40000", "10.0.0.2:5075")
    assert (losses.frames, losses.missing, losses.duplicates, losses.late, losses.restarts) == (6, 1, 1, 1, 1)
    assert section(summary, "missing, doubled or late frames") == [
        "CAM to 10.0.0.1:40000: 1 missing (17 %), 1 duplicate, 1 late, numbered anew"
    ]
    (row,) = rows(summary, "frames")
    assert (row["missing"], row["duplicates"], row["late"], row["numbered anew"]) == ("1", "1", "1", "1")
    assert section(summary, "time stamps that went back") == ["CAM to 10.0.0.1:40000, by 100 ms"]


def test_each_subscriber_has_losses_of_its_own() -> None:
    """One gets every frame, the other every second; a packet has a frame for both."""
    chat = Chat().open().create("CAM").create("CAM", cid=2)
    other = Chat(client=40_002).open().create("CAM").subscribe(type=image(1).type)
    chat.subscribe(1, 1, type=image(1).type).subscribe(2, 2, type=image(1).type)
    for number in range(1, 12):
        chat.update(number, image(number), ioid=1)
        if number % 2:
            chat.update(number, image(number), ioid=2)
            other.update(number, image(number))
    summary = summed(chat, other)
    pv = summary.pvs["CAM"]
    assert pv.updates == 11 + 6 + 6
    assert [(one.client, one.losses.updates, one.losses.missing) for one in pv.subscriptions] == [
        ("10.0.0.1:40000", 11, 0), ("10.0.0.1:40000", 6, 5), ("10.0.0.1:40002", 6, 5),
    ]  # fmt: skip
    assert pv.frame_rate == pytest.approx(1)
    assert rows(summary, "frames")[0]["missing"] == "10"
    assert section(summary, "missing, doubled or late frames") == [
        f"CAM to 10.0.0.1:{port}: 5 missing (45 %)" for port in (40_000, 40_002)
    ]


def test_what_the_capture_lost_the_server_did_not() -> None:
    """Frames between are not in the capture, or cannot be decoded, or have bytes left over: nothing is said of them."""
    chat = Chat().open().create("CAM").subscribe(type=image(1).type)
    at = chat.say
    update = messages.MonitorUpdate(ioid=1, value=image(2), overrun=BitSet())
    raw = b"".join(messages.encode(update, codec=Codec(), from_server=True))
    longer = raw[:4] + struct.pack("<I", len(raw) - 8 + 3) + raw[8:] + b"???"
    cut = raw[:4] + struct.pack("<I", len(raw) - 8 - 9) + raw[8:-9]
    chat.update(1, image(1))
    at(1, 2, raw, captured=False)
    chat.update(3, image(3)).update(4, image(4))
    at(1, 5, longer)
    chat.update(6, image(6))
    at(1, 7, cut)
    chat.update(8, image(8)).update(9, image(10))
    ((_, _, losses),) = summed(chat).pvs["CAM"].subscriptions
    assert (losses.updates, losses.missing, losses.duplicates) == (6, 1, 0)


def test_a_new_subscription_of_the_same_number_begins_anew() -> None:
    """Its first update is the value that stands: that is no duplicate."""
    chat = Chat().open().create("CAM").subscribe(type=image(1).type)
    chat.update(1, image(1)).update(2, image(2))
    chat.say(0, 3, messages.DestroyRequest(sid=101, ioid=1))
    chat.subscribe(type=image(1).type, at=4).update(5, image(2)).update(6, image(3))
    subscriptions = summed(chat).pvs["CAM"].subscriptions
    assert [(one.losses.updates, one.losses.duplicates) for one in subscriptions] == [(2, 0), (2, 0)]


def test_losses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subscriptions and the names of their overruns take of the room that all small things have."""
    monkeypatch.setattr(Room, "OF_ALL", 40)
    wide = FieldDesc.structure("", {f"f{i}": "int32" for i in range(25)})
    chat = Chat().open()
    for n in range(1, 21):
        chat.create(f"P{n}", n, at=n).subscribe(n, n, type=wide, at=n + 0.1)
        chat.update(n + 0.2, Value(wide, {"f1": n}), ioid=n, overrun=(0,) if n < 5 else ())
    summary = summed(chat)
    assert len(summary.pvs) == 20
    assert sum(pv.updates for pv in summary.pvs.values()) == 20
    held = sum(len(pv.subscriptions) + len(pv.overruns) for pv in summary.pvs.values())
    assert held <= 40 + 25
    assert summary.dropped > 0
    assert "! incomplete" in summary.text()


def test_lost_bytes() -> None:
    chat = Chat().open()
    for i in range(40):
        chat.say(1, 1 + i, messages.Echo(payload=bytes(30)), captured=i % 10 != 5)
    chat.say(0, 50, messages.Echo()).say(1, 50, messages.Echo())
    summary = summed(chat)
    (((where, what, _), (times, size, _)),) = summary.lost.items()
    assert (where, what) == ("10.0.0.2:5075 → 10.0.0.1:40000", "missing")
    assert (times, size) == (4, 4 * 38)
    assert section(summary, "lost or damaged") == [
        "10.0.0.2:5075 → 10.0.0.1:40000: 152 bytes missing in 4 places: bytes of the stream are missing"
    ]


def test_damaged_messages_are_counted_together() -> None:
    """Errors that differ in their numbers alone are one line."""
    chat = Chat().open()
    for i in range(1, 5):
        bad = struct.pack("<BBBBI", 0xCA, 2, 0x40, 7, i) + bytes(i)
        chat.say(1, i, bad)
    chat.say(0, 50, messages.Echo()).say(1, 50, messages.Echo())
    (line,) = section(summed(chat), "lost or damaged")
    assert line.startswith(
        "10.0.0.2:5075 → 10.0.0.1:40000: 42 bytes not decoded in 4 places: CREATE_CHANNEL: "
    )


# -- everything is bounded


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is counted and told; the numbers that need no room stay right."""
    monkeypatch.setattr(Room, "MOST", 10)
    monkeypatch.setattr(Room, "OF_ONE", 5)
    chats = []
    for i in range(30):
        chat = Chat(41_000 + i, 6000 + i).open(at=i, user=f"u{i}").create(f"PV{i}", at=i + 0.1)
        chat.get(i + 0.2, None).get(i + 0.3, 0.001, ioid=2, status=Status(StatusType.ERROR, f"error {i}"))
        chats.append(chat)
    udp_ = [search(40 + i, f"S{i}", src=f"10.0.0.1:{7000 + i}") for i in range(30)]
    udp_ += [search(80 + i, "S0", src=f"10.0.0.1:{7000 + i}") for i in range(30)]
    udp_ += [beacon(120 + i, i, guid=bytes([i]) * 12, port=6000 + i) for i in range(30)]
    summary = summed(*chats, *udp_)
    for table in (
        summary.pvs, summary.servers, summary.clients, summary.latencies, summary.searches.names, summary.searches.beacons,
        summary.statuses, summary.searches.guids, summary._given_up, summary._connections, summary._ended,
    ):  # fmt: skip
        assert 0 < len(table) <= 10
    assert max(len(found.clients) for found in summary.searches.names.values()) == 5
    assert summary._waits <= 10
    assert summary.dropped > 0
    assert (
        summary.text().split("\n")[2] == f"! incomplete: {summary.dropped} times there was no room for more"
    )
    everything = summed(*chats, *udp_)
    assert everything.records == summary.records


def test_waiting_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Room, "MOST", 20)
    chat = Chat().open().create("A")
    for i in range(100):
        chat.get(1.0 + i, None, ioid=i + 1)
    summary = summed(chat)
    assert summary._waits == len(summary._connections[0].waiting) == 20
    (one,) = summary.unanswered()
    assert one.times == 100


def test_connections_that_are_forgotten_are_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection older than those that are kept goes on talking."""
    monkeypatch.setattr(Room, "MOST", 3)
    old = Chat().open()
    chats = [Chat(40_001 + i).open(at=1.0 + i) for i in range(6)]
    old.say(0, 50, messages.Echo()).say(1, 50, messages.Echo())
    summary = summed(old, *chats)
    assert len(summary._connections) == 3
    assert summary.servers["10.0.0.2:5075"].connections == 7
    assert summary.text()


def test_texts_are_bounded() -> None:
    long = "x" * 5000
    chat = Chat().open().create(long)
    chat.get(1, 0.001, status=Status(StatusType.ERROR, "y" * 5000))
    for i in range(3):
        chat.subscribe(ioid=5 + i, at=2.0 + i).update(2.5 + i, Value(NT, {"value": 1.0}), ioid=5 + i)
    summary = summed(chat)
    (pv,) = summary.pvs.values()
    assert (len(pv.name), pv.updates) == (300, 3)
    assert all(len(part) <= 300 for key in summary.statuses for part in key)
    assert max(map(len, summary.text().split("\n"))) < 1500


# -- the text


def test_nothing() -> None:
    summary = Summary()
    assert summary.text() == "no PVA messages"
    assert summary.problems() == []


def test_what_is_empty_is_left_out() -> None:
    lines = summed(beacon(0, 1)).text().split("\n")
    assert lines[0].startswith("1 message, 47 B in 0 s from ")
    assert lines[0].endswith(" UTC; 0 PVs, 1 server, 0 clients")
    assert [line for line in lines if line and not line.startswith(" ")][1:] == ["servers"]


def test_long_lists_are_cut() -> None:
    summary = summed(search(0, *(f"S{i:02}" for i in range(50))))
    lines = section(summary, "searches never answered")
    assert lines[:2] == ["S00, by 10.0.0.1", "S01, by 10.0.0.1"]
    assert len(lines) == 21
    assert lines[-1] == "... and 30 more"
    chat = Chat().open()
    for i in range(50):
        chat.create(f"P{i:02}", cid=i, at=1.0 + i).get(1.5 + i, 0.001, ioid=i + 1, cid=i)
    assert section(summed(chat), "PVs")[-1] == "... and 30 more"
    assert "50 GET of P00, P01, P02 and 47 more" in section(summed(chat), "clients")[1]


def test_width() -> None:
    summary = recorded("p4p_put_errors")
    lines = summary.text().split("\n")
    cut = summary.text(40).split("\n")
    assert max(map(len, lines)) > 40
    assert max(map(len, cut)) == 40
    assert [a == b if len(a) <= 40 else b == f"{a[:39]}…" for a, b in zip(lines, cut, strict=True)].count(
        False
    ) == 0


def test_nothing_harms_a_terminal() -> None:
    chat = Chat().open(user="a\x1b[31m").create("P\x07\nV")
    chat.get(1, 0.001, status=Status(StatusType.ERROR, "\x1b]0;x\x07"))
    text = summed(chat, search(2, "\x1b[2J\u202e\r")).text()
    assert all(line.isprintable() for line in text.split("\n"))
    assert "P\\x07\\nV" in text
    assert text.encode()  # no lone surrogates


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (7, "7 B"), (999, "999 B"), (999.6, "1 kB"), (1000, "1 kB"), (13_400, "13.4 kB"), (999_499, "999 kB"),
     (999_500, "1 MB"), (3.5e9, "3.5 GB"), (2e12, "2 TB"), (5e16, "50000 TB")],
)  # fmt: skip
def test_sizes(number: float, text: str) -> None:
    assert report.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-1, "0 s"), (3e-9, "3 ns"), (75e-6, "75 µs"), (999.9e-6, "1 ms"), (0.00236, "2.36 ms"),
     (0.9999, "1 s"), (11.4, "11.4 s"), (119, "119 s"), (120, "2 min"), (5400, "90 min"), (9000, "2.5 h"), (1e7, "2777.78 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert report.time(seconds) == text


def test_frequencies() -> None:
    assert [report.si(x, "Hz") for x in (0.25, 39.62, 1234.0, 2.5e6)] == [
        "0.25 Hz",
        "39.6 Hz",
        "1.23 kHz",
        "2.5 MHz",
    ]


# -- recorded sessions


@pytest.mark.parametrize(
    "name", ["p4p_monitor", "pvapy_monitor_fast", "p4p_nts", "p4p_monitor_nd", "udp_p4pcli_p4psrv"]
)
def test_batches_and_records_say_the_same(name: str) -> None:
    assert recorded(name).text() == recorded(name, batches=False).text()


def test_recorded_sessions_without_trouble_have_no_problems() -> None:
    quiet = (
        "p4p_ndarray_types",
        "pvapy_ndarray",
        "p4p_nts",
        "p4p_scalars",
        "p4p_monitor",
        "pvapy_put",
        "bench_nts",
    )
    for name in quiet:
        assert recorded(name).problems() == [], name


def test_every_recorded_message_is_counted() -> None:
    for name, session in corpus.sessions().items():
        file = session.files["capture.pcap"]
        summary = of(file)
        records = list(read(io.BytesIO(file)))
        assert summary.records == len(records), name
        assert summary.bytes == sum(record.size for record in records), name
        assert (summary.first, summary.last) == (records[0].ns, max(record.ns for record in records)), name
        updates = sum(isinstance(record.message, messages.MonitorUpdate) for record in records)
        assert sum(pv.updates for pv in summary.pvs.values()) == updates, name
        assert summary.dropped == 0

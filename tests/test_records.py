"""Records of recorded captures, as objects and as JSON, against what the peers' own clients decoded."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import os
import random
import struct
from collections import defaultdict
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import corpus
from captures import A4, ACK, B4, NOW, PSH, Talk, ethernet, ip4, pcap, udp
from pvafast import Codec, DecodeError, FieldDesc, UnionValue, Value
from pvafast.capture import Record, read
from pvafast.capture.jsonform import dumps
from pvafast.capture.summary import Summary
from pvafast.capture.textform import fields, line
from pvafast.messages import Command

SESSIONS = sorted(corpus.sessions())


def capture(name: str) -> bytes:
    return corpus.sessions()[name].files["capture.pcap"]


def records(file: bytes) -> list[Record]:
    return list(read(io.BytesIO(file)))


def lines(file: bytes, max_elements: int = 64) -> list[dict[str, Any]]:
    """The records as their JSON lines say."""
    found = []
    for record in read(io.BytesIO(file)):
        text = dumps(record, max_elements)
        assert text.isascii()
        assert "\n" not in text
        found.append(json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")))
    return found


# -- the peers' forms and ours


def same(got: Any, want: Any, path: str = "value") -> None:
    """`got`, of a JSON line, says what `want`, of expected.json, says."""
    if (
        isinstance(want, list)
        and len(want) == 2
        and isinstance(got, dict | None)
        and isinstance(want[0], dict)
    ):
        # pvapy: the value of a union or an any by the name of the member, and its type by the same.
        if got is None:
            assert want == [{}, {}], path
        elif "length" not in got:
            same(got["value"], want[0][got.get("union", "value")], path)
    elif isinstance(got, dict) and got.keys() == {"union", "value"}:
        same(got["value"], want, f"{path}.{got['union']}")
    elif isinstance(got, dict) and got.keys() == {"any", "value"}:
        same(got["value"], want, path)
    elif isinstance(want, dict) and want.keys() == {"id", "fields"}:
        same(got, want["fields"], path)
    elif isinstance(want, dict) and want.keys() == {"array"}:
        array(got, want["array"], path)
    elif isinstance(want, dict) and want.keys() == {"list_as_array"}:
        # p4p says what it took the elements for; of what is not numeric on the wire we say the digest of its JSON.
        if "sha256" in got and "dtype" in got:
            array(got, want["list_as_array"], path)
        else:
            assert got["length"] == want["list_as_array"]["shape"][0], path
    elif isinstance(want, dict) and want.keys() == {"strings"}:
        assert got == {
            "strings": want["strings"]["n"],
            "sha256": want["strings"]["sha256_of_u32le_len_prefixed_utf8"],
        }, path
    elif isinstance(want, dict) and want.keys() == {"str_utf8_len", "sha256"}:
        raw = got.encode("utf-8", "surrogateescape")
        assert len(raw) == want["str_utf8_len"], path
        assert hashlib.sha256(raw).hexdigest() == want["sha256"], path
    elif isinstance(want, dict) and want.keys() == {"float"} and isinstance(want["float"], str):
        assert got == {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[want["float"]], path
    elif isinstance(want, dict):
        assert isinstance(got, dict), path
        assert not got.keys() - want.keys(), path
        assert [name for name in want if name in got] == list(got), f"{path}: another order"
        for name, member in want.items():
            if name in got:
                same(got[name], member, f"{path}.{name}")
            else:
                assert untouched(member), f"{path}.{name}: {member!r} expected"
    elif isinstance(want, list) and isinstance(got, dict):
        assert got["length"] == len(want), path
    elif isinstance(want, list):
        assert isinstance(got, list), path
        assert len(got) == len(want), path
        for i, (one, other) in enumerate(zip(got, want, strict=True)):
            same(one, other, f"{path}[{i}]")
    elif isinstance(want, str) and isinstance(got, int):
        assert chr(got & 0xFF) == want, path  # pvapy: a byte is a character
    else:
        assert type(got) is type(want), path
        assert got == want, path


def array(got: Any, want: dict[str, Any], path: str) -> None:
    if "sha256" in want:
        assert got["sha256"] == want["sha256"], path
        assert got["shape"] == want["shape"], path
        assert np.dtype(got["dtype"]).itemsize == np.dtype(want["dtype"]).itemsize, path
        if want["dtype"] != "|i1":  # what pvapy makes of booleans, too
            assert got["dtype"] == want["dtype"], path
    else:
        assert isinstance(got, list), path
        assert [len(got)] == want["shape"], path
        for i, (one, other) in enumerate(zip(got, want["data"], strict=True)):
            if isinstance(one, bool) and isinstance(other, int):
                # pvapy reads a boolean's byte as a number.
                assert one == bool(other), f"{path}[{i}]"
            else:
                same(one, other, f"{path}[{i}]")


def untouched(want: Any) -> bool:
    """A field that never came: the peer's client shows its type's zero."""
    if isinstance(want, dict):
        if want.keys() == {"array"}:
            return want["array"]["shape"] == [0]
        return all(untouched(member) for name, member in want.items() if name != "id")
    return want in (None, 0, "", [], False, "\0", [{}, {}])


def answers(found: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """What servers answered: lines with a value, by (command, PV)."""
    by_name = defaultdict(list)
    for entry in found:
        if entry["direction"] == "server" and "value" in entry and entry.get("pv"):
            by_name[entry["command"], entry["pv"]].append(entry)
    return by_name


# What the peer's client shows in forms of its own (texts of Python objects, no bare values): other tests see to these.
OTHER_FORMS = {"caproto", "spvirit"}
# The client dropped updates that are on the wire.
SQUASHED = {name for name in SESSIONS if "monitor_fast" in name or "pipeline_fast" in name}


@pytest.mark.parametrize("name", SESSIONS)
def test_values_are_what_the_peers_decoded(name: str) -> None:
    session = corpus.sessions()[name]
    if session.client in OTHER_FORMS or not isinstance(session.expected, list):
        pytest.skip("this client shows values in forms of its own")
    found = answers(lines(capture(name)))
    compared = 0
    for operation in session.expected:
        pv = operation["pv"]
        if name.startswith("tcpsearch") and operation["op"] == "get":
            compared += 1  # the data went over a connection that is not in the capture
        elif operation["op"] in ("get", "rpc") and "value" in operation:
            line = found[operation["op"].upper(), pv].pop(0)
            check(line, operation)
            compared += 1
        elif operation["op"] == "monitor":
            updates = found["MONITOR", pv]
            events = [event for event in operation.get("events", ()) if "value" in event]
            if name in SQUASHED:
                assert len(updates) >= len(events)
                continue
            for line, event in zip(updates, events, strict=True):
                check(line, event)
                compared += 1
    wanted = [o for o in session.expected if o["op"] in ("get", "rpc", "monitor") and "error" not in o]
    assert compared or not wanted or name in SQUASHED


def check(line: dict[str, Any], want: dict[str, Any]) -> None:
    same(line["value"], want["value"])
    if "changed" in want and "changed" in line:
        names = want["changed"]
        # p4p names structures, too, where the server marked them whole.
        leaves = {name for name in names if not any(other.startswith(name + ".") for other in names)}
        assert set(line["changed"]) == leaves


@pytest.mark.parametrize("name", SESSIONS)
def test_every_capture_is_read_without_damage(name: str) -> None:
    told = read(io.BytesIO(capture(name)))
    found = list(told)
    assert found
    assert told.damage is None
    assert [record.note for record in found if record.damage is not None] == []
    for record in found:
        assert record.direction in ("client", "server")
        assert record.command in Command.__members__ or record.command == "SET_BYTE_ORDER"
        if record.transport == "tcp":
            assert record.connection is not None
        if record.command in ("GET", "PUT", "MONITOR", "RPC", "PUT_GET", "GET_FIELD", "DESTROY_REQUEST"):
            assert record.pv, record
            assert record.ioid is not None, record


def test_both_peers_in_both_orders_say_the_same() -> None:
    little, big = (lines(capture(name)) for name in ("p4p_nts", "p4pBE_nts"))
    assert [x["value"] for x in little if "value" in x] == [x["value"] for x in big if "value" in x]
    assert [x.get("type") for x in little] == [x.get("type") for x in big]


# -- one line in full


def test_the_line_of_an_update() -> None:
    """From the peers' own words: expected.json, tcpdump's time, meta.json's ports."""
    session = corpus.sessions()["p4p_monitor"]
    port = session.meta["connections"][0]["client_port"]
    update = next(x for x in lines(capture("p4p_monitor")) if x["command"] == "MONITOR" and "value" in x)
    assert update["src"] == "127.0.0.1:5075"
    assert update["dst"] == f"127.0.0.1:{port}"
    assert update["direction"] == "server"
    assert update["subcommand"] == 0
    assert update["pv"] == "mon:partial"
    assert update["changed"] == [
        "value",
        "timeStamp.secondsPastEpoch",
        "timeStamp.nanoseconds",
        "timeStamp.userTag",
    ]
    assert update["overrun"] == []
    assert update["value"] == {
        "value": 0.0,
        "timeStamp": {"secondsPastEpoch": 1700000000, "nanoseconds": 123456789, "userTag": 42},
    }
    assert {"sid", "cid", "ioid"} <= update.keys()
    assert not {"type", "status", "note", "damage"} & update.keys()


def test_updates_are_merged_and_fields_never_seen_are_left_out() -> None:
    updates = [
        x
        for x in lines(capture("p4p_monitor"))
        if x["command"] == "MONITOR" and x.get("pv") == "mon:partial" and "value" in x
    ]
    assert updates[1]["changed"] == ["value"]
    assert updates[1]["value"]["timeStamp"]["nanoseconds"] == 123456789
    assert "display" not in updates[1]["value"]
    # The third update of the session brings alarm.severity, which stays.
    assert all(x["value"].keys() >= {"value", "timeStamp"} for x in updates)


def test_search_and_its_answer() -> None:
    found = lines(capture("p4p_nts"))
    search, answer = found[:2]
    assert (search["command"], search["direction"], search["pv"]) == ("SEARCH", "client", ["nts:bool"])
    assert (answer["command"], answer["direction"], answer["pv"]) == (
        "SEARCH_RESPONSE", "server", ["nts:bool"],
    )  # fmt: skip
    assert search["src"] == answer["dst"]


def test_status_type_and_union() -> None:
    found = lines(capture("p4p_put_errors"))
    rejected = [x["status"] for x in found if x.get("pv") == "put:reject" and x["command"] == "PUT"
                and x["direction"] == "server" and x["status"]["type"] != "OK"]  # fmt: skip
    assert rejected[0]["type"] == "ERROR"
    assert rejected[0]["message"] == "rejected by handler: µ no"
    assert "stack" in rejected[0]

    found = lines(capture("p4p_unions"))
    init = next(x for x in found if "type" in x)
    assert FieldDesc.parse(init["type"]) == FieldDesc.structure(
        "unions",
        {
            "u": FieldDesc.union(
                "uni_t",
                {
                    "i": "int", "s": "string", "d": "double", "ad": "double[]",
                    "st": FieldDesc.structure("ust", {"q": "byte", "r": "string"}), "ab": "bool[]",
                },
            ),
            "after": "int",
        },
    )  # fmt: skip
    values = {x["pv"]: x["value"] for x in found if "value" in x}
    assert values["union:null"] == {"after": 77} or values["union:null"] == {"u": None, "after": 77}
    assert values["union:i"] == {"u": {"union": "i", "value": -5}, "after": 77}
    assert values["union:s"] == {"u": {"union": "s", "value": "sel"}, "after": 77}


def test_any() -> None:
    values = {x["pv"]: x["value"] for x in lines(capture("p4p_anys")) if "value" in x}
    assert values["any:null"] == {"x": None, "after": 77}
    assert values["any:bool"] == {"x": {"any": "bool", "value": True}, "after": 77}
    assert values["any:int8"]["x"]["value"] == -128
    assert FieldDesc.parse(values["any:int8"]["x"]["any"]) == FieldDesc.of("int8")


def test_names_are_the_specifications() -> None:
    commands = {
        x["command"]
        for name in ("p4p_nts", "pvapy_put", "pvapy_rpc", "pvapy_info")
        for x in lines(capture(name))
    }
    assert commands >= {
        "SEARCH", "SEARCH_RESPONSE", "SET_BYTE_ORDER", "CONNECTION_VALIDATION", "CONNECTION_VALIDATED",
        "CREATE_CHANNEL", "GET", "PUT", "PUT_GET", "RPC", "GET_FIELD",
    }  # fmt: skip


def test_the_rpc_of_pvapy() -> None:
    call, failed = (o for o in corpus.sessions()["pvapy_rpc"].expected if o["op"] == "rpc")
    found = [x for x in lines(capture("pvapy_rpc")) if x["command"] == "RPC"]
    result = next(x for x in found if x["direction"] == "server" and "value" in x)
    assert result["value"] == call["value"] == {"value": 3.5}
    argument = next(x for x in found if x["direction"] == "client" and "value" in x)
    assert argument["value"] == {"lhs": 1.5, "rhs": 2.0}
    status = next(x["status"] for x in found if "status" in x and x["status"]["type"] != "OK")
    # The recorded folder was shortened in expected.json.
    assert status["message"].splitlines()[-1] == failed["error"]["message"].splitlines()[-1]


# -- time


@pytest.mark.parametrize(
    ("exponent", "ticks", "text"),
    [(6, NOW * 10**6 + 179_635, f"{NOW}.179635"), (9, NOW * 10**9 + 1, f"{NOW}.000000001")],
)
def test_time_has_every_digit(exponent: int, ticks: int, text: str) -> None:
    file = pcap([(ticks, datagram(search("A:B")))], exponent=exponent)
    (record,) = records(file)
    assert record.time == text
    assert record.ns == ticks * 10 ** (9 - exponent)
    line = json.loads(dumps(record), parse_float=str)
    assert line["time"] == text
    assert Decimal(str(line["time"])) == Decimal(text)


# -- messages made by hand, from the specification

BEACON = bytes(range(12)) + struct.pack(">BBH", 0, 7, 3) + bytes(10) + b"\xff\xff" + bytes(4)


def app(command: int, payload: bytes, flags: int = 0x80, size: int | None = None) -> bytes:
    order = ">" if flags & 0x80 else "<"
    return (
        b"\xca\x02"
        + struct.pack(order + "BBI", flags, command, len(payload) if size is None else size)
        + payload
    )


def text(name: str) -> bytes:
    raw = name.encode()
    return bytes([len(raw)]) + raw


def search(*names: str, cid: int = 1, port: int = 6000, address: bytes = bytes(16), flags: int = 0) -> bytes:
    head = struct.pack(">IB3x", 9, flags) + address + struct.pack(">H", port) + b"\x01" + text("tcp")
    channels = b"".join(struct.pack(">I", cid + i) + text(name) for i, name in enumerate(names))
    return app(3, head + struct.pack(">H", len(names)) + channels)


def response(*cids: int, found: int = 1) -> bytes:
    head = bytes(range(12)) + struct.pack(">I", 9) + bytes(16) + struct.pack(">H", 5075) + text("tcp")
    return app(4, head + bytes([found]) + struct.pack(f">H{len(cids)}I", len(cids), *cids), 0xC0)


def datagram(payload: bytes, sport: int = 6000, dport: int = 5076, back: bool = False) -> bytes:
    ends = (B4, A4) if back else (A4, B4)
    ports = (dport, sport) if back else (sport, dport)
    return ethernet(ip4(udp(*ports, payload), 17, src=ends[0], dst=ends[1]))


def told(*frames: bytes) -> list[Record]:
    return records(pcap([(NOW * 10**6 + i, frame) for i, frame in enumerate(frames)]))


def test_a_datagram_of_several_messages() -> None:
    origin = app(22, bytes(10) + b"\xff\xff" + bytes([127, 0, 0, 1]))
    found = told(datagram(origin + search("A", "B") + search("C", cid=9)))
    assert [(r.command, r.pv) for r in found] == [
        ("ORIGIN_TAG", ""), ("SEARCH", ("A", "B")), ("SEARCH", ("C",)),
    ]  # fmt: skip
    assert [r.offset for r in found] == [0, len(origin), len(origin) + len(search("A", "B"))]
    assert {(r.src, r.dst, r.transport, r.connection) for r in found} == {
        ("10.0.0.1:6000", "10.0.0.2:5076", "udp", None)
    }


def test_answers_have_the_names_that_were_asked_for() -> None:
    found = told(
        datagram(search("A", "B", cid=7)),
        datagram(response(8, 7), back=True),
        datagram(response(99), back=True),
    )
    assert [r.pv for r in found] == [("A", "B"), ("B", "A"), ("",)]


def test_answers_go_where_the_search_says() -> None:
    address = bytes(10) + b"\xff\xff" + A4
    asked = datagram(search("A", cid=7, port=6123, address=address), sport=50_000)
    (_, answer) = told(asked, datagram(response(7), sport=6123, back=True))
    assert answer.pv == ("A",)


def test_answers_to_the_source_port() -> None:
    """Flag 02: phoebus wants the answer at the port that its datagram came from."""
    asked = datagram(search("A", cid=7, port=6123, flags=2), sport=50_000)
    (_, answer) = told(asked, datagram(response(7), sport=50_000, back=True))
    assert answer.pv == ("A",)


def test_searches_of_two_clients_are_not_mixed_up() -> None:
    found = told(
        datagram(search("A", port=6001), sport=6001),
        datagram(search("B", port=6002), sport=6002),
        datagram(response(1), sport=6001, back=True),
        datagram(response(1), sport=6002, back=True),
    )
    assert [r.pv for r in found] == [("A",), ("B",), ("A",), ("B",)]


def test_other_datagrams_are_left_out() -> None:
    others = [b"", b"\xca", b"GET / HTTP/1.1\r\n\r\n", bytes(40), app(13, bytes(4)), b"\xca\x00" + bytes(30)]
    assert told(*(datagram(other) for other in others)) == []


def test_a_beacon() -> None:
    payload = bytes(range(12)) + struct.pack(">BBH", 0, 7, 3) + bytes(10) + b"\xff\xff" + bytes(4)
    payload += struct.pack(">H", 5075) + text("tcp") + b"\xff"
    (record,) = told(datagram(app(0, payload, 0xC0)))
    assert record.command == "BEACON"
    assert record.direction == "server"
    line = json.loads(dumps(record))
    assert line["message"]["sequence"] == 7
    assert line["message"]["change_count"] == 3
    assert line["message"]["guid"] == bytes(range(12)).hex()


def test_a_datagram_that_is_cut_is_damage() -> None:
    (record,) = told(datagram(search("A:LONG:NAME")[:-4]))
    assert record.damage is not None
    assert record.command == "SEARCH"
    line = json.loads(dumps(record))
    assert line["damage"]["reason"]
    assert line["command"] == "SEARCH"


# -- TCP: recognised by its bytes

SERVER_HELLO = bytes.fromhex("ca02410200000000") + app(
    1, struct.pack("<IH", 0x10000, 0x7FFF) + b"\x01" + text("ca"), 0x40
)


def echo(n: int, flags: int = 0) -> bytes:
    return app(2, bytes([n]) * n, flags)


def commands(file: bytes) -> list[tuple[str, str, str]]:
    return [(r.command, r.direction, r.src) for r in records(file)]


def packets_of(name: str, most: int) -> list[tuple[int, bytes]]:
    """The first connection of a session, in packets of at most so many bytes, none of them acknowledged on its own."""
    talk = Talk().open()
    for role, data in corpus.sessions()[name].talks[0].chunks:
        for at in range(0, len(data), most):
            talk.say(role == "server", data[at : at + most], acked=False)
    return talk.packets


@pytest.mark.parametrize("most", [1, 7, 100, 1448])
@pytest.mark.parametrize("name", ["p4p_monitor", "pvapy_monitor_fast", "p4p_nts"])
def test_the_time_of_a_message_is_that_of_its_last_byte(name: str, most: int) -> None:
    packets = packets_of(name, most)[:20_000]
    times: dict[str, list[int]] = {"client": [], "server": []}
    for time, frame in packets[3:]:
        times["server" if frame[34:36] == struct.pack(">H", 5075) else "client"] += [time] * (len(frame) - 54)
    found = 0
    for record in read(io.BytesIO(pcap(packets))):
        if record.damage is None:
            found += 1
            assert record.ticks == times[record.direction][record.offset + record.size - 1]
    assert found > 10


def test_records_of_a_live_pipe_come_at_once() -> None:
    """All that a packet brings is handed on before the next one is written."""
    packets = packets_of("p4p_monitor", 1 << 20)
    receive, send = os.pipe()
    with open(receive, "rb") as stream, open(send, "wb", buffering=0) as out:
        out.write(pcap([]))
        told = iter(read(stream))
        found: list[Record] = []
        for i in range(len(packets)):
            out.write(pcap([packets[i]])[24:])
            while len(found) < len(records(pcap(packets[: i + 1]))):
                found.append(next(told))
    assert len(found) > 20


@pytest.mark.parametrize("ports", [(40_000, 5075), (80, 443), (5075, 40_000)])
def test_any_port_and_either_side(ports: tuple[int, int]) -> None:
    talk = Talk(*ports).open().say(1, SERVER_HELLO).say(0, echo(3)).say(1, echo(3, 0x40)).close()
    assert commands(pcap(talk.packets)) == [
        ("SET_BYTE_ORDER", "server", f"10.0.0.2:{ports[1]}"),
        ("CONNECTION_VALIDATION", "server", f"10.0.0.2:{ports[1]}"),
        ("ECHO", "client", f"10.0.0.1:{ports[0]}"),
        ("ECHO", "server", f"10.0.0.2:{ports[1]}"),
    ]


def test_a_server_that_opens_the_connection() -> None:
    """Who is server is told by the bytes, not by who opened the connection."""
    talk = Talk().open().say(0, SERVER_HELLO).say(1, echo(3)).close()
    assert [(c, d) for c, d, _ in commands(pcap(talk.packets))] == [
        ("SET_BYTE_ORDER", "server"), ("CONNECTION_VALIDATION", "server"), ("ECHO", "client"),
    ]  # fmt: skip


def test_what_is_not_pva_is_left_out() -> None:
    talk = Talk().open().say(0, b"GET / HTTP/1.1\r\n\r\n")
    for _ in range(300):
        talk.say(1, bytes(range(256)) * 5)
    assert records(pcap(talk.close().packets)) == []
    # Mid-stream too, also with the magic in every packet.
    talk = Talk().say(0, b"xyz")
    for _ in range(300):
        talk.say(1, b"\xca" * 300 + bytes(1000))
    assert records(pcap(talk.packets)) == []


def test_joined_in_the_middle_of_the_stream() -> None:
    stream = b"".join(echo(n, 0x40) for n in range(200))
    talk = Talk()
    for i in range(5, len(stream), 100):
        talk.say(1, stream[i : i + 100])
    found = records(pcap(talk.packets))
    assert {r.command for r in found if r.damage is None} == {"ECHO"}
    assert len([r for r in found if r.damage is None]) >= 198
    assert all(r.direction == "server" for r in found if r.damage is None)
    assert found[0].damage is not None
    assert found[0].damage.lost > 0


@pytest.mark.parametrize("start", [0, 1, 60_001])
def test_frames_joined_in_the_middle(start: int) -> None:
    """Messages far longer than what is looked through at once: a camera that was running before the capture began."""
    frame = app(2, bytes(600_000), 0x40)
    stream = frame * 5
    talk = Talk()
    for i in range(start, len(stream), 1400):
        talk.say(1, stream[i : i + 1400], acked=False)
    found = [r for r in records(pcap(talk.packets)) if r.damage is None]
    assert len(found) >= 3
    assert {(r.command, r.size) for r in found} == {("ECHO", len(frame))}


def test_damage_of_the_stream_is_told_and_it_goes_on() -> None:
    talk = (
        Talk()
        .open()
        .say(1, SERVER_HELLO)
        .say(1, echo(3, 0x40) + b"rubbish!" + bytes(20))
        .say(1, echo(4, 0x40))
        .say(1, echo(5, 0x40))
    )
    found = records(pcap(talk.close().packets))
    assert [r.command for r in found] == [
        "SET_BYTE_ORDER", "CONNECTION_VALIDATION", "ECHO", "MALFORMED", "ECHO", "ECHO",
    ]  # fmt: skip
    damage = found[3].damage
    assert damage is not None
    assert damage.lost == 28
    assert damage.offset == len(SERVER_HELLO) + 11
    line = json.loads(dumps(found[3]))
    assert line["damage"]["lost"] == 28
    assert line["command"] == "MALFORMED"


def test_lost_bytes_are_told_and_it_goes_on() -> None:
    talk = Talk().open().say(1, SERVER_HELLO).say(1, echo(30, 0x40)).say(1, echo(31, 0x40), captured=False)
    for _ in range(40):
        talk.say(1, echo(32, 0x40))
    found = records(pcap(talk.close().packets))
    assert [r.command for r in found[:4]] == ["SET_BYTE_ORDER", "CONNECTION_VALIDATION", "ECHO", "LOST"]
    damage = found[3].damage
    assert damage is not None
    assert (damage.missing, damage.lost) == (39, 0)
    assert damage.offset == len(SERVER_HELLO) + 38
    assert [r.size for r in found[4:]] == [40] * 40


def test_a_stream_that_ends_in_a_message() -> None:
    talk = Talk().open().say(1, SERVER_HELLO).say(1, echo(9, 0x40)[:12]).close()
    last = records(pcap(talk.packets))[-1]
    assert last.damage is not None
    assert last.damage.lost == 12


def test_two_connections_on_the_same_ports() -> None:
    first = Talk().open().say(1, SERVER_HELLO).close()
    second = Talk(isn=(90_000, 80_000)).open().say(1, SERVER_HELLO).close()
    found = records(pcap(first.packets + [(t + 10**6, p) for t, p in second.packets]))
    assert [r.connection for r in found] == [0, 0, 1, 1]


# -- the file


def test_path_file_and_gzip(tmp_path: Any) -> None:
    file = capture("p4p_scalars")
    plain, packed = tmp_path / "a.pcap", tmp_path / "a.pcap.gz"
    plain.write_bytes(file)
    packed.write_bytes(gzip.compress(file))
    expected = [dumps(r) for r in records(file)]
    assert expected
    for source in (plain, str(plain), packed, io.BytesIO(packed.read_bytes())):
        assert [dumps(r) for r in read(source)] == expected


def test_a_file_cut_off_gives_what_is_before_the_cut() -> None:
    file = capture("p4p_scalars")
    whole = [dumps(r) for r in records(file)]
    told = read(io.BytesIO(file[: len(file) * 2 // 3]))
    part = [dumps(r) for r in told if r.damage is None]
    assert told.damage is not None
    assert told.damage.truncated
    assert 0 < len(part) < len(whole)
    assert whole[: len(part)] == part


def test_what_is_no_capture() -> None:
    with pytest.raises(DecodeError, match="no pcap"):
        read(io.BytesIO(b"hello, world, this is no capture"))
    with pytest.raises(FileNotFoundError):
        read("/no/such/file.pcap")


# -- the forms of values


def value_line(fd: FieldDesc, fields: dict[str, Any], most: int = 64) -> Any:
    """The JSON of the argument of an RPC of hand-made bytes: the codec writes what `fields` says."""
    codec = Codec()
    payload = struct.pack("<IIB", 1, 2, 0) + codec.encode_type(fd) + codec.encode(Value(fd, fields))
    talk = Talk().open().say(1, SERVER_HELLO).say(0, app(20, payload, 0)).close()
    line = json.loads(dumps(records(pcap(talk.packets))[-1], most))
    assert line["command"] == "RPC"
    return line["value"]


def structure(**fields: Any) -> FieldDesc:
    return FieldDesc.structure("", fields)


def test_floats_that_are_not_finite() -> None:
    fd = structure(a="double", b="float", c="double[]")
    found = value_line(fd, {"a": math.nan, "b": -math.inf, "c": [1.5, math.inf, math.nan]})
    assert found == {"a": "NaN", "b": "-Infinity", "c": [1.5, "Infinity", "NaN"]}


def test_strings_are_never_shortened_and_are_ascii() -> None:
    given = {"a": "µ€😀" * 999, "b": ["x" * 50_000, "\udcff"]}
    assert value_line(structure(a="string", b="string[]"), given) == given


@pytest.mark.parametrize("kind", ["bool", "int8", "uint8", "int16", "uint32", "int64", "float", "double"])
def test_long_numeric_arrays(kind: str) -> None:
    fd = structure(a=f"{kind}[]")
    data = (np.arange(100) % 2).astype(fd["a"].dtype)
    found = value_line(fd, {"a": data})["a"]
    assert found.keys() == {"dtype", "shape", "sha256"}
    assert np.dtype(found["dtype"]) == data.dtype
    assert found["shape"] == [100]
    assert found["sha256"] == hashlib.sha256(data.astype(data.dtype.newbyteorder("<")).tobytes()).hexdigest()
    assert value_line(fd, {"a": data[:64]})["a"] == data[:64].tolist()
    assert value_line(fd, {"a": data}, 0)["a"] == data.tolist()
    assert value_line(fd, {"a": data}, 99)["a"]["shape"] == [100]


def test_long_string_arrays() -> None:
    items = ["", "µ", "\udcff"] * 30
    found = value_line(structure(a="string[]"), {"a": items})["a"]
    raw = [item.encode("utf-8", "surrogateescape") for item in items]
    digest = hashlib.sha256(b"".join(len(x).to_bytes(4, "little") + x for x in raw)).hexdigest()
    assert found == {"strings": 90, "sha256": digest}


def test_other_long_lists() -> None:
    element = structure(x="int")
    fd = structure(a=element.array(), b=FieldDesc.union("", {"i": "int", "s": "string"}).array())
    most = 3
    given = {"a": [{"x": i} for i in range(4)], "b": [UnionValue("i", 1), None]}
    found = value_line(fd, given, most)
    spelled = json.dumps([{"x": i} for i in range(4)])
    assert found == {
        "a": {"length": 4, "sha256": hashlib.sha256(spelled.encode()).hexdigest()},
        "b": [{"union": "i", "value": 1}, None],
    }


def test_empty_structures_that_came() -> None:
    found = value_line(structure(a=structure(), b="int"), {"b": 3})
    assert found == {"a": {}, "b": 3}


def test_the_names_of_odd_members() -> None:
    fd = FieldDesc.structure("", {"a.b": "int", "": "int", "union": "int"})
    found = value_line(fd, {})
    assert list(found) == ["a.b", "", "union"]


# -- objects


def test_record_objects() -> None:
    found = records(capture("p4p_monitor"))
    update = next(r for r in found if r.command == "MONITOR" and r.value is not None)
    assert isinstance(update.value, Value)
    assert update.changed == update.value.changed
    assert update.seen >= update.changed
    assert update.transport == "tcp"
    assert update.message is not None
    assert update.damage is None
    assert update.status is None
    assert "MONITOR" in repr(update)
    init = next(r for r in found if r.command == "MONITOR" and r.type is not None)
    assert init.type == update.value.type
    assert init.changed is None
    assert (init.sid, init.cid, init.ioid) == (update.sid, update.cid, update.ioid)


def test_acks_are_not_messages() -> None:
    talk = Talk().open().say(1, SERVER_HELLO)
    talk.put(0, ACK).put(0, ACK | PSH)
    assert len(records(pcap(talk.close().packets))) == 2


@pytest.mark.parametrize("seed", range(4))
def test_damaged_captures_do_no_harm(seed: int) -> None:
    """Bytes of captures changed at random: whatever comes, it is told, as an object, a line and JSON."""
    chance = random.Random(seed)
    small = [name for name in SESSIONS if len(capture(name)) < 20_000]
    for _ in range(100):
        file = bytearray(capture(chance.choice(small)))
        for _ in range(chance.choice((1, 3, 20))):
            file[chance.randrange(24, len(file))] = chance.choice((0, 1, 255, chance.randrange(256)))
        if chance.random() < 0.2:
            at = chance.randrange(24, len(file))
            del file[at : at + chance.randrange(200)]
        summary = Summary()
        for record in read(io.BytesIO(file)):
            assert dumps(record).isascii()
            assert line(record).isprintable()
            assert repr(record)
            if record.value is not None:
                assert list(fields(record, 20)) is not None
            summary.add(record)
        assert summary.text()


def test_bits_are_hashed(backend: Any) -> None:
    """Text and JSON look up the names of the fields that changed by them."""
    bits = backend.bitset.BitSet
    assert hash(bits([1, 63, 100])) == hash(bits([100, 1, 63]))
    assert len({bits([i]) for i in range(200)} | {bits()}) == 201

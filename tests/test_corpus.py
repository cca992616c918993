"""Every recorded session decodes to what the peer's own client made of it, in any chunking, and encodes to its bytes again."""

from __future__ import annotations

import ast
import dataclasses
import io
import random
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest

import corpus
from corpus import Mismatch, Session, Talk, compare, compare_dump
from pvafast import AnyValue, Codec, FieldDesc, UnionValue, Value, capture, messages
from pvafast._backend import framing
from pvafast.capture import Record
from pvafast.connection import Malformed, Observed, Observer
from pvafast.messages import Command

SESSIONS = corpus.sessions()
Heard = Record | Observed


class Told(NamedTuple):
    """A message, and the number of the connection that it belongs to; None over UDP."""

    connection: int | None
    event: Heard


def sessions(keep: Callable[[Session], object]) -> pytest.MarkDecorator:
    found = [session for session in SESSIONS.values() if keep(session)]
    return pytest.mark.parametrize("session", found, ids=str)


def observe(chunks: Iterable[tuple[Any, bytes]]) -> list[Observed]:
    """What an Observer tells of a conversation, of which nothing may be malformed or unknown."""
    observer = Observer()
    found = []
    ends = dict.fromkeys(["client", "server"])
    for direction, data in chunks:
        ends[direction] = None
        observer.receive_data(direction, data)
        found += observer.events()
    for direction in ends:
        observer.receive_eof(direction)
    found += observer.events()
    for event in found:
        assert not isinstance(event, Malformed), event
        assert not event.note, event
        assert event.message is not None
    return found  # type: ignore[return-value]


def from_streams(session: Session) -> list[Told]:
    return [Told(i, event) for i, talk in enumerate(session.talks) for event in observe(talk.chunks)]


def from_capture(session: Session) -> list[Told]:
    records = capture.read(io.BytesIO(session.files["capture.pcap"]))
    found = [Told(record.connection, record) for record in records]
    assert records.damage is None
    for _, record in found:
        assert record.damage is None, record
        assert not record.note, record
    return found


# -- operations, and what is expected of them


@dataclass
class Operation:
    """The messages of one operation, in their order."""

    pv: str
    said: list[Heard] = field(default_factory=list)

    def last(self, *kinds: type) -> Heard | None:
        return next((event for event in reversed(self.said) if isinstance(event.message, kinds)), None)

    @property
    def reply(self) -> Heard:
        """The last reply."""
        found = self.last(messages.Reply)
        assert found is not None
        return found

    @property
    def updates(self) -> list[Heard]:
        kinds = (messages.MonitorUpdate, messages.MonitorFinal)
        return [event for event in self.said if isinstance(event.message, kinds) and event.value is not None]


COMMANDS = {
    "get": Command.GET, "put": Command.PUT, "putget": Command.PUT_GET, "monitor": Command.MONITOR,
    "rpc": Command.RPC, "info": Command.GET_FIELD,
}  # fmt: skip


def operations(told: Iterable[Told]) -> dict[tuple[str, str], list[Operation]]:
    """By what expected.json calls them, and PV."""
    found: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    alive: dict[tuple[int | None, int], Operation] = {}
    names = {command: op for op, command in COMMANDS.items()}
    for connection, event in told:
        message = event.message
        if isinstance(message, messages.InitRequest | messages.GetField):
            assert isinstance(event.pv, str)
            operation = alive[connection, message.ioid] = Operation(event.pv)
            found[names[Command(message.command)], event.pv].append(operation)
        if isinstance(message, messages.Request | messages.Reply):
            operation = alive[connection, message.ioid]
            assert event.pv == operation.pv
            operation.said.append(event)
    return found


def came(event: Heard) -> set[str]:
    """The leaves that the client has ever got."""
    type = event.value.type
    return {type.names[bit] for bit in event.seen.expand(type)}


def changed(event: Heard) -> set[str]:
    """The leaves that came with the message, and as p4p does, the structures whose own bit did."""
    value: Value = event.value
    names = set(value.changed_names())
    covered = 0
    for bit in value.changed:
        if bit >= covered:
            covered = value.type.end(bit)
            if bit and not value.type.is_leaf(bit):
                names.add(value.type.names[bit])
    return names


def check(client: str, expected: dict[str, Any], event: Heard, path: str) -> None:
    """The data of a message is what `client` decoded."""
    value: Value = event.value
    type = value.type
    if client == "p4p":
        check_p4p(expected, event, changed(event), path)
    elif client == "pvapy":
        compare(expected["type"], corpus.type_pvapy(type), path)
        compare(expected["intro"], corpus.intro_pvapy(type), path)
        compare(expected["value"], corpus.form_pvapy(value, type), path)
        if "tostr" in expected:
            compare_dump(expected["tostr"], str(corpus.PvDataDump(value)), path)
    elif client == "spvirit":
        compare(expected["value"], corpus.form_spvirit(value, set(value.changed_names())), path)
    else:
        assert client == "caproto"
        if "value" in expected:
            compare(expected["value"], corpus.form_caproto(value, type, set(value.changed_names())), path)
        check_repr(expected["repr"], event, path)


def check_p4p(expected: dict[str, Any], event: Heard, names: set[str], path: str) -> None:
    value: Value = event.value
    type = value.type
    compare(expected["value"], corpus.form_p4p(value, came(event)), path)
    assert expected["type"] == {"id": type.id or "structure", "spec": corpus.type_p4p(type)}, path
    assert set(expected["changed"]) == names, path
    compare_dump(expected["tostr"], str(corpus.PvxsDump(value, came(event))), path)


def check_repr(text: str, event: Heard, path: str) -> None:
    """caproto's repr of a reply or update: its data, BitSets and type id, as far as it was not cut off."""
    value: Value = event.value
    found = re.search(
        r"pv_data=DataWithBitSet\(data=(\{.*?\}), interface=StructuredField\(name='(.*?)'", text
    )
    if found is None:
        assert len(text) in (800, 1500), f"{path}: not cut off"
        return
    # Some values are no literals: array('d'), sub_t(p=8).
    if not re.search(r"\w\(", found[1]):
        data = re.sub(r"(?<=: )(-?(?:nan|inf))\b", r"{'float': '\1'}", found[1])
        names = set(value.changed_names())
        form = corpus.form_caproto(value, value.type, names)
        compare(filled(ast.literal_eval(data)), filled(chosen(form, value.type, names)), path)
    assert found[2] == value.type.id
    changed = re.search(r" bitset=BitSet\((.*?)\)\)", text)
    overrun = re.search(r"overrun_bitset=BitSet\((.*?)\)", text)
    for match, bits in ((changed, value.changed), (overrun, getattr(event.message, "overrun", ()))):
        if match is not None:
            assert (ast.literal_eval(match[1]) if match[1] else set()) == set(bits), path


def chosen(form: dict[str, Any], type: FieldDesc, names: set[str], path: str = "") -> dict[str, Any]:
    """Of a structure's form, the leaves of these names."""
    found = {}
    for name, x in form.items():
        if type.members[name].is_structure:
            found[name] = chosen(x, type.members[name], names, f"{path}{name}.")
        elif path + name in names:
            found[name] = x
    return found


def filled(form: Any) -> Any:
    """Without the empty structures, which caproto shows where it passes one on its way to the last changed field."""
    if not isinstance(form, dict):
        return form
    return {name: inner for name, x in form.items() if (inner := filled(x)) != {}}


# Expectations that do not hold: the client did not get as far as a value, though the bytes are right. What they say is
# then taken from what another client decoded of the same PV of the same server.
CLIENT_FAILED = {
    ("caprotocli_p4psrv_get", pv): (reason, other)
    for pv, reason, other in (
        ("ntmulti", "it takes the type of an any element for an array's", "p4p_ntypes"),
        ("structarr", "it makes a Python class whose name is no identifier", "p4pBE_structs"),
        ("structarr:null", "the same", "p4pBE_structs"),
        ("unionarr:mix", "it cannot decode union arrays", "p4p_unions"),
        ("unionarr:null", "the same", "p4p_unions"),
        ("anyarr:mix", "it cannot decode arrays of any", "p4p_anys"),
        ("nd:ushortValue", "it cannot hold arrays of structures", "p4p_ndarray_types"),
        ("nd:attrs", "the same", "pvapycli_p4psrv_get"),
        ("nd:512", "the same", "pvapycli_p4psrv_get"),
    )
} | {
    # pvapy makes characters of int8 and decodes them as UTF-8.
    ("pvapycli_p4psrv_get", "scalars:max"): ("int8 -128 is no UTF-8", "p4p_scalars"),
    ("pvapycli_p4psrv_get", "nts:int8"): ("int8 -128 is no UTF-8", "p4p_nts"),
} | {
    # spvirit gives an empty dict for the whole PV when an array of unions or anys is in it, and no error.
    ("spviritcli_p4psrv_get", pv): ("spvirit drops arrays of unions and anys", other)
    for pv, other in (
        ("ntmulti", "p4p_ntypes"),
        ("unionarr:mix", "p4p_unions"),
        ("unionarr:null", "p4p_unions"),
        ("anyarr:mix", "p4p_anys"),
    )
}  # fmt: skip
# The client refused what it was to put: nothing went out.
NOTHING_SENT = {("p4p_put_errors", "put:double"), ("pvapy_put", "put:bool"), ("pvapy_put", "put:int8")}
# The client drops updates (squashes them) when its queue is full.
SQUASHED = {"p4p_monitor_fast", "p4pBE_monitor_fast", "p4pcli_pvapysrv_monitor_fast"}
# p4p's client closes the connection on an any that holds a structure with an unselected union, and tries again.
ANY_QUIRK = {"p4p_any_ndarr_quirk", "p4pBE_any_ndarr_quirk"}


def check_session(session: Session, told: list[Told]) -> None:
    found = operations(told)
    for number, entry in enumerate(session.expected):
        op, pv = entry["op"], entry["pv"]
        path = f"{session} {number} {op} {pv}"
        waiting = found[op, pv]
        error = entry.get("error")
        if (session.name, pv) in CLIENT_FAILED:
            other = SESSIONS[CLIENT_FAILED[session.name, pv][1]]
            (entry,) = (e for e in other.expected if e["pv"] == pv and e["request"] is None)
            check(other.client, entry, waiting.pop(0).reply, path)
        elif session.name in ANY_QUIRK:
            check_any_quirk(waiting)
            waiting.clear()
        elif error is not None and (
            error["type"] == "TimeoutError" or error["message"].endswith("timed out.")
        ):
            # There is no such PV, or caproto's server did not answer.
            for operation in waiting:
                assert operation.last(messages.ValueReply) is None
            waiting.clear()
        elif error is not None:
            operation = waiting.pop(0)
            if (session.name, pv) in NOTHING_SENT and error["type"] != "RemoteError":
                assert operation.last(messages.Put) is None
            else:
                status = operation.reply.message.status
                assert not status.ok
                # The directory in the traceback of pvapy_rpc was taken out of the expectation.
                assert error["message"].endswith(status.message.replace("/tmp/peers/", ""))
                if operation.last(messages.Put) is not None:
                    check_put(entry, operation, path)
        elif op == "monitor":
            check_monitor(session, entry, waiting.pop(0), path)
        elif op == "put":
            operation = waiting.pop(0)
            assert operation.reply.message.status.ok
            check_put(entry, operation, path)
        elif op == "info":
            check_info(session, entry, waiting.pop(0).reply, path)
        else:
            check(session.client, entry, waiting.pop(0).reply, path)
    if session.expected:
        for (op, _), rest in found.items():
            # pvapy asks for types before it gets values.
            assert op == "info" or not any(operation.last(messages.Reply) for operation in rest)


def check_any_quirk(tried: list[Operation]) -> None:
    assert len(tried) == 2
    for operation in tried:
        value = operation.reply.value
        assert operation.reply.message.status.ok
        assert (value.type.id, list(value), value["after"]) == ("anys", ["x", "after"], 77)
        held = value["x"]
        assert held.type.id == held.value.type.id == "epics:nt/NTNDArray:1.0"
        assert held.value["value"] is None


def check_monitor(session: Session, entry: dict[str, Any], operation: Operation, path: str) -> None:
    updates = operation.updates
    if session.client == "caproto":
        events = [{"repr": text} for text in entry["events_repr"]]
    else:
        events = [event for event in entry["events"] if "value" in event]
    if session.name not in SQUASHED:
        assert len(events) == len(updates), path
        for i, (event, update) in enumerate(zip(events, updates, strict=True)):
            check(session.client, event, update, f"{path}[{i}]")
    else:
        follow(events, updates, path)
    if "counters" in entry:
        overrun = sum(bool(update.message.overrun) for update in updates)
        assert entry["counters"] == {"nReceived": len(updates), "nOverruns": overrun}


def follow(events: list[dict[str, Any]], updates: list[Heard], path: str) -> None:
    """Each of `events` is the value after one of the updates, in their order, and what changed since the one before."""
    left = iter(updates)
    for i, event in enumerate(events):
        names: set[str] = set()
        for update in left:
            names |= changed(update)
            try:
                check_p4p(event, update, names, f"{path}[{i}]")
            except Mismatch:
                continue
            break
        else:
            pytest.fail(f"{path}[{i}]: no update has this value")


def check_info(session: Session, entry: dict[str, Any], reply: Heard, path: str) -> None:
    type = reply.message.type
    if session.client == "pvapy":
        compare(entry["intro"], corpus.intro_pvapy(type), path)
    else:
        assert session.client == "spvirit"
        compare(entry["intro"]["dump"], corpus.dump_spvirit(type), path)


def check_put(entry: dict[str, Any], operation: Operation, path: str) -> None:
    event = operation.last(messages.Put)
    assert event is not None
    value: Value = event.value
    wanted: dict[str, Any] = {}
    for name, x in (entry.get("values") or {"value": entry["value_put"]}).items():
        flatten(name, x, value.type[name], wanted)
    assert set(value.changed_names()) == set(wanted), path
    for name, x in wanted.items():
        assert same(x, value[name]), f"{path} {name}: {value[name]}"


def flatten(name: str, x: Any, type: FieldDesc, wanted: dict[str, Any]) -> None:
    if type.is_structure:
        for member, y in x.items():
            flatten(f"{name}.{member}", y, type[member], wanted)
    else:
        wanted[name] = x


def same(wanted: Any, got: Any) -> bool:
    """What was put is what was given to the client (arrays of random numbers: of that type and length)."""
    if isinstance(got, np.ndarray):
        if isinstance(wanted, dict):
            return got.dtype == np.dtype(wanted["rng"]) and len(got) == wanted["n"]
        return got.tolist() == wanted
    if isinstance(got, UnionValue):
        name, x = wanted["tuple"]
        return got.name == name and same(x, got.value)
    if isinstance(got, AnyValue):
        if isinstance(wanted, dict) and "tuple" in wanted:
            letter, x = wanted["tuple"]
            return corpus.type_p4p(got.type) == letter and same(x, got.value)
        if isinstance(wanted, dict):
            spec = ["S", wanted["id"], wanted["VALUE"]]
            return corpus.type_p4p(got.type) == spec and same(wanted["v"], got.value)
        return same(wanted, got.value)
    if isinstance(got, Value):
        return all(same(x, got[name]) for name, x in wanted.items())
    if isinstance(got, list):
        return len(got) == len(wanted) and all(map(same, wanted, got))
    return type(wanted) is type(got) and wanted == got


@sessions(lambda session: session.expected and session.values_recorded)
def test_captures_decode_to_what_the_peer_decoded(session: Session) -> None:
    check_session(session, from_capture(session))


@sessions(lambda session: session.talks and session.expected and session.values_recorded)
def test_streams_decode_to_what_the_peer_decoded(session: Session) -> None:
    check_session(session, from_streams(session))


# Sessions of which the client has left no values: it crashed on null elements, or is a tool that prints types.
ELSEWHERE = {
    "pvapycli_p4psrv_nullunion_crash": {"unionarr:null": "p4p_unions"},
    "pvapycli_p4psrv_nullstruct_crash": {"structarr:null": "p4pBE_structs"},
    "pvapycli_p4psrv_putget_unsupported": {"put:double": "p4p_put_errors"},
    "pvxsinfocli_p4psrv_info": {
        "nts:double": "p4p_nts",
        "nd:512": "spviritcli_p4psrv_info",
        "nested": "p4pBE_structs",
        "structarr:null": "p4pBE_structs",
        "union:st": "p4p_unions",
        "ntmulti": "p4p_ntypes",
    },
    "pvxsinfocli_spviritsrv_info": {"ao": "spvirit_info", "nd": "spvirit_info"},
}


def test_sessions_without_expectations_are_these() -> None:
    assert {name for name, session in SESSIONS.items() if session.talks and not session.expected} == {
        *ELSEWHERE
    }


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_another_client_decoded_of_the_same_server(name: str) -> None:
    found = operations(from_streams(SESSIONS[name]))
    for pv, other in ELSEWHERE[name].items():
        (entry,) = (e for e in SESSIONS[other].expected if e["pv"] == pv and e["op"] in ("get", "info"))
        (asked,) = found.pop(("info", pv))
        told = asked.reply.message.type
        if "intro" in entry:
            compare(entry["intro"]["dump"], corpus.dump_spvirit(told), pv)
        else:
            assert entry["type"]["spec"] == corpus.type_p4p(told)
        for operation in found.pop(("get", pv), ()):
            check("p4p", entry, operation.reply, pv)
    # pvxs does not answer a PUT_GET.
    for (_, _), (operation,) in found.items():
        assert [event.message.__class__ for event in operation.said] == [messages.PutGetInit]


# -- the same messages however the bytes come


def heard(event: Heard) -> tuple[Any, ...]:
    """What must not depend on how the bytes came."""
    value = event.value
    bits = value.changed if isinstance(value, Value) else None
    return event.direction, event.offset, event.message, value, bits, event.seen, event.overrun


def one_by_one(talk: Talk) -> Iterator[tuple[str, bytes]]:
    for role, data in talk.chunks:
        for i in range(len(data)):
            yield role, data[i : i + 1]


def at_random(talk: Talk, seed: str) -> Iterator[tuple[int, bytes]]:
    """In random chunks; who is who is left to the Observer."""
    rng = random.Random(seed)
    sides = {"server": rng.getrandbits(1)}
    sides["client"] = 1 - sides["server"]
    waiting = b""
    for i, (role, data) in enumerate(talk.chunks):
        waiting += data
        if i + 1 < len(talk.chunks) and talk.chunks[i + 1][0] == role and rng.getrandbits(1):
            continue
        while waiting:
            size = int(2 ** rng.uniform(0, 17))
            yield sides[role], waiting[:size]
            waiting = waiting[size:]


@sessions(lambda session: session.talks)
def test_any_chunks_give_the_same_messages(session: Session) -> None:
    for talk in session.talks:
        whole = [heard(event) for event in observe(talk.chunks)]
        assert [heard(event) for event in observe(one_by_one(talk))] == whole
        assert [heard(event) for event in observe(at_random(talk, session.name))] == whole
        # Each stream in one piece, the server's first: what is put is decoded by the types that it told.
        apart = observe([(role, talk.streams[role]) for role in ("server", "client")])
        assert [heard(event) for event in apart] == sorted(whole, key=lambda told: told[0] == "client")


@sessions(lambda session: session.talks and "capture.pcap" in session.files)
def test_the_capture_gives_the_messages_of_the_streams(session: Session) -> None:
    captured: dict[int | None, list[Record]] = defaultdict(list)
    for told in from_capture(session):
        captured[told.connection].append(told.event)  # type: ignore[arg-type]
    captured.pop(None, None)
    conversations = [by_role(events) for events in captured.values()]
    for talk in session.talks:
        # Other connections may have said the very same.
        conversations.remove(by_role(observe(talk.chunks)))
    assert not conversations


def by_role(events: Iterable[Heard]) -> list[tuple[Any, ...]]:
    """One direction after the other: packets of both did not always come in the order in which they were read."""
    return sorted(map(heard, events), key=lambda told: told[0] == "client")


# -- back to bytes


def in_bytes(message: messages.PvaMessage, event: Heard, codec: Codec, **options: Any) -> bytes:
    """The message encoded as the one of `event` was."""
    frame = event.frame
    options = {"byteorder": frame.byteorder, "version": frame.version, **options}
    buffers = messages.encode(message, codec=codec, from_server=event.direction == "server", **options)
    return b"".join(buffers)


def original(event: Heard) -> bytes:
    """The message as it came; a segmented one in one piece."""
    frame = event.frame
    size = (frame.size if frame.is_control else len(frame.payload)).to_bytes(4, frame.byteorder)
    flags = frame.flags & ~SEGMENTS
    return bytes([0xCA, frame.version, flags, frame.command]) + size + bytes(frame.payload)


SEGMENTS = 0x30


def ids_of(session: Session, role: str) -> str:
    """How the peer in that role numbers types."""
    peer = session.client if role == "client" else session.server
    return "pvaccess" if peer in ("pvapy", "caproto") else "none"


@sessions(lambda session: session.talks)
def test_messages_encode_to_their_bytes(session: Session) -> None:
    for talk in session.talks:
        codecs = {role: Codec(ids=ids_of(session, role)) for role in talk.streams}
        for event in observe(talk.chunks):
            message = event.message
            assert message is not None
            encoded = in_bytes(message, event, codecs[event.direction])
            if message.trailing:
                # caproto's server tells access rights that are not in the protocol.
                assert session.server == "caproto"
                assert isinstance(message, messages.CreateChannelReply)
                assert message.trailing == b"\0\0"
                assert encoded[8:] + message.trailing == original(event)[8:]
            elif session.client == "spvirit" and isinstance(message, SPVIRIT_TYPES):
                # spvirit numbers some types, again and again by the same number: test_other_encodings has the values.
                assert encoded[:4] == original(event)[:4]
            else:
                assert encoded == original(event), message


SPVIRIT_TYPES = (
    messages.ConnectionValidationResponse,
    messages.GetInit,
    messages.PutInit,
    messages.MonitorInit,
)


@sessions(lambda session: session.talks)
def test_other_encodings_of_the_conversation_say_the_same(session: Session) -> None:
    """In the other byte order, the other way of numbering types, and in segments."""
    rng = random.Random(session.name)
    for talk in session.talks:
        ids = {role: {"none": "pvaccess", "pvaccess": "none"}[ids_of(session, role)] for role in talk.streams}
        codecs = {role: Codec(ids=ids[role]) for role in talk.streams}
        events = observe(talk.chunks)
        chunks = []
        for event in events:
            other = "little" if event.frame.byteorder == "big" else "big"
            options = {"byteorder": other, "segment_size": rng.randint(20, len(event.frame.payload) + 21)}
            message = event.message
            assert message is not None
            role = event.direction
            chunks.append((role, in_bytes(message, event, codecs[role], **options)))
        again = observe(chunks)
        assert list(map(contents, again)) == list(map(contents, events))


def contents(event: Heard) -> tuple[Any, ...]:
    direction, _, message, *rest = heard(event)
    return direction, dataclasses.replace(message, trailing=b""), *rest


# What an XOR of every byte with 1 does to a number, each at its place.
NUMBERS = {
    "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I",
    "uint64": "Q", "float": "f", "double": "d",
}  # fmt: skip
Altered = tuple[Any, bytes, bytes]


def flipped(data: bytes) -> bytes:
    return bytes(byte ^ 1 for byte in data)


def altered(type: FieldDesc, x: Any, byteorder: str) -> Altered | None:
    """x with one number, boolean or letter in it changed: the new x, the bytes that go and those that come."""
    name = type.format("short")
    if name in NUMBERS:
        form = ("<" if byteorder == "little" else ">") + NUMBERS[name]
        old = struct.pack(form, x)
        (y,) = struct.unpack(form, flipped(old))
        # A float NaN does not keep its bits as a Python float.
        return (y, old, flipped(old)) if x == x and y == y else None
    if name == "bool":
        return not x, bytes([x]), bytes([not x])
    if name == "string":
        old = x[:1].encode()
        return (chr(ord(x[0]) ^ 1) + x[1:], old, flipped(old)) if len(old) == 1 else None
    if isinstance(x, np.ndarray):
        if not len(x):
            return None
        i = len(x) // 2
        size = x.itemsize
        changed = x.copy()
        changed.view(np.uint8)[i * size : (i + 1) * size] ^= 1
        old = x[i : i + 1].astype(x.dtype.newbyteorder("<" if byteorder == "little" else ">")).tobytes()
        return changed, old, flipped(old)
    if isinstance(x, list):
        for i, item in enumerate(x):
            inside = item is not None and altered(type.element, item, byteorder)
            if inside:
                return [*x[:i], inside[0], *x[i + 1 :]], *inside[1:]
    if isinstance(x, UnionValue | AnyValue):
        inside = altered(x.type if isinstance(x, AnyValue) else type.members[x.name], x.value, byteorder)
        if inside:
            kind = x.type if isinstance(x, AnyValue) else x.name
            return x.__class__(kind, inside[0]), *inside[1:]  # type: ignore[arg-type]
    if isinstance(x, Value):
        for leaf, member, y in corpus.members(x):
            inside = altered(member, y, byteorder)
            if inside:
                changed = x.copy()
                changed[(leaf,)] = inside[0]
                return changed, *inside[1:]
    return None


def body(message: messages.PvaMessage) -> tuple[str, Value] | None:
    """The structure in a message, and the name of its field."""
    for name in ("value", "request", "data"):
        x = getattr(message, name, None)
        if isinstance(x, Value) and x.type.is_structure:
            return name, x
    return None


def alterations(value: Value, byteorder: str, whole: bool) -> Iterator[tuple[str, Value, Altered]]:
    """The value with one leaf changed that is in the message; some of them, where there are many."""
    names = list(value.type.names) if whole else value.changed_names()
    leaves = [name for name in names if value.type.is_leaf(value.type.index(name))]
    for name in leaves[:: max(1, len(leaves) // 8)]:
        change = altered(value.type[name], value[name], byteorder)
        if change is not None:
            other = value.copy()
            other[name] = change[0]
            # Setting a field marks it: what is sent shall be as before.
            other.unmark()
            other.mark(*(value.type.names[bit] for bit in value.changed))
            yield name, other, change


@sessions(lambda session: session.talks)
def test_a_changed_field_changes_its_bytes_alone(session: Session) -> None:
    done = 0
    for talk in session.talks:
        for event in observe(talk.chunks):
            message = event.message
            assert message is not None
            before = in_bytes(message, event, Codec())
            if hasattr(message, "ioid"):
                other = dataclasses.replace(message, ioid=message.ioid ^ 0x01010101)
                old = message.ioid.to_bytes(4, event.frame.byteorder)
                assert_replaced(before, in_bytes(other, event, Codec()), old, flipped(old))
            found = body(message)
            if found is None:
                continue
            field, value = found
            whole = not isinstance(message, UPDATES)
            for name, changed, (_, old, new) in alterations(value, event.frame.byteorder, whole):
                other = dataclasses.replace(message, **{field: changed})
                after = in_bytes(other, event, Codec())
                assert_replaced(before, after, old, new)
                assert_reads(after, other, field, name)
                done += 1
    assert done


# Messages whose value is an update: a BitSet and the fields that it names.
UPDATES = (messages.MonitorUpdate, messages.MonitorFinal, messages.ValueReply, messages.Put, messages.PutGet)


def assert_replaced(before: bytes, after: bytes, old: bytes, new: bytes) -> None:
    """`after` is `before` with `new` in one place where `old` was."""
    assert len(before) == len(after)
    assert before != after
    a, b = np.frombuffer(before, np.uint8), np.frombuffer(after, np.uint8)
    at = int((a != b).argmax())
    assert before[at : at + len(old)] == old
    assert after == before[:at] + new + before[at + len(old) :]


def assert_reads(data: bytes, message: Any, field: str, name: str) -> None:
    """A receiver finds the changed value in the changed bytes."""
    framer = framing.Framer()
    framer.receive_data(data)
    (frame,) = framer.messages()
    value: Value = getattr(message, field)
    operation = messages.Operation(message.command, 0, type=value.type, put_type=value.type)
    read = getattr(messages.decode(frame, codec=Codec(), operations=lambda ioid: operation), field)
    assert read.type == value.type
    # Values compare their floats bit by bit.
    one, other = Value(value.type), Value(value.type)
    one[name], other[name] = read[name], value[name]
    assert one == other


# -- searches and beacons


def datagrams(session: Session) -> list[tuple[str, str, list[Record]]]:
    """Source, destination and messages of each datagram."""
    found: list[tuple[str, str, list[Record]]] = []
    for connection, record in from_capture(session):
        if connection is None:
            if record.offset == 0:
                found.append((record.src, record.dst, []))
            found[-1][2].append(record)
    return found


def dissect(data: bytes) -> dict[str, Any]:
    """The fields of a UDP message, told by their places (WIRE 7)."""
    order = ">" if data[2] & 0x80 else "<"
    command, p = data[3], data[8:]

    def address(at: int) -> str:
        found = ".".join(map(str, p[at + 12 : at + 16]))
        return "" if found == "0.0.0.0" else found

    def number(form: str, at: int) -> int:
        return struct.unpack_from(order + form, p, at)[0]

    def string(at: int) -> tuple[str, int]:
        return p[at + 1 : at + 1 + p[at]].decode(), at + 1 + p[at]

    if command == 0:
        protocol, _ = string(34)
        return {
            "guid": p[:12], "flags": p[12], "sequence": p[13], "change_count": number("H", 14),
            "address": address(16), "port": number("H", 32), "protocol": protocol,
        }  # fmt: skip
    if command == 3:
        at, protocols = 27, []
        for _ in range(p[26]):
            protocol, at = string(at)
            protocols.append(protocol)
        count, channels = number("H", at), []
        at += 2
        for _ in range(count):
            cid = number("I", at)
            name, at = string(at + 4)
            channels.append((cid, name))
        return {
            "sequence": number("I", 0), "flags": p[4], "address": address(8), "port": number("H", 24),
            "protocols": tuple(protocols), "channels": tuple(channels),
        }  # fmt: skip
    if command == 4:
        protocol, at = string(34)
        cids = tuple(number("I", at + 3 + 4 * i) for i in range(number("H", at + 1)))
        return {
            "guid": p[:12], "sequence": number("I", 12), "address": address(16), "port": number("H", 32),
            "protocol": protocol, "found": bool(p[at]), "cids": cids,
        }  # fmt: skip
    assert command == 22
    return {"address": address(0)}


@sessions(lambda session: "capture.pcap" in session.files)
def test_datagrams_decode_and_encode(session: Session) -> None:
    for _, _, records in datagrams(session):
        for record in records:
            message = record.message
            assert message is not None
            data = original(record)
            fields = dissect(data)
            assert {name: getattr(message, name) for name in fields} == fields
            assert not message.trailing
            assert in_bytes(message, record, Codec()) == data
            if "port" in fields:
                old = fields["port"].to_bytes(2, record.frame.byteorder)
                other = dataclasses.replace(message, port=fields["port"] ^ 0x0101)
                assert_replaced(data, in_bytes(other, record, Codec()), old, flipped(old))


@sessions(lambda session: "datagrams.json" in session.files)
def test_datagrams_are_those_recorded_beside_the_capture(session: Session) -> None:
    recorded = session.json("datagrams.json")
    found = [
        (src, dst, b"".join(original(record) for record in records).hex())
        for src, dst, records in datagrams(session)
    ]
    wanted = [
        (*(":".join(map(str, one[end])) for end in ("src", "dst")), one["hex"])
        for one in recorded["datagrams"]
    ]
    assert sorted(found) == sorted(wanted)
    told = [record.message for _, _, records in datagrams(session) for record in records]
    # What the client printed of the servers that it found.
    guids = {
        message.guid.hex()
        for message in told
        if isinstance(message, messages.Beacon | messages.SearchResponse)
    }
    printed = set(re.findall(r"guid\W+(?:0x)?([0-9a-f]{24})", recorded["client_out"]))
    assert printed <= guids
    for message in told:
        if isinstance(message, messages.SearchResponse):
            assert message.port == recorded["server_tcp_port"]


# spvirit's client was told the addresses of its servers; the answers of pvapy's server were not recorded.
@sessions(
    lambda session: session.expected and session.client != "spvirit" and session.name != "udp_p4pcli_pvapysrv"
)
def test_searches_find_what_the_peer_found(session: Session) -> None:
    """The PVs that the client got something from are those that a server said it has."""
    found: set[str] = set()
    searched: set[str] = set()
    for _, record in from_capture(session):
        names = (record.pv,) if isinstance(record.pv, str) else record.pv
        if isinstance(record.message, messages.Search):
            searched |= set(names)
        elif isinstance(record.message, messages.SearchResponse) and record.message.found:
            found |= set(names)
    asked = {entry["pv"] for entry in session.expected}
    assert searched >= asked
    assert found <= searched
    got = {entry["pv"] for entry in session.expected if "error" not in entry}
    assert found >= got
    if session.name.startswith(("tcpsearch", "udp")):
        # In the others a stand-in answered, to every name.
        assert found == got

"""The Observer: recorded conversations with parts missing or damaged, heard from one side, joined late, out of step."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

import corpus
import wire
from corpus import Session
from pvafast import BitSet, Codec, FieldDesc, Limits, Value, messages
from pvafast._backend import framing
from pvafast.connection import Malformed, Observed, Observer, Update
from pvafast.messages import Status, StatusType

SMALL = [
    session
    for session in corpus.sessions().values()
    if session.talks and len(session.files["capture.pcap"]) < 60_000
]
NT = FieldDesc.structure("epics:nt/NTScalar:1.0", {"value": "double", "count": "int32", "note": "string"})
REQUEST = Value({"field": {}})
Heard = Observed | Update


def hear(observer: Observer, chunks: Iterable[tuple[Any, bytes]]) -> list[Heard | Malformed]:
    found: list[Heard | Malformed] = []
    for direction, data in chunks:
        observer.receive_data(direction, data)
        found += observer.events()
    return found


def size(event: Heard) -> int:
    """What a message takes of its stream, unless it was sent in segments."""
    return 8 if event.frame.is_control else 8 + event.frame.size


def segmented(session: Session) -> bool:
    for talk in session.talks:
        for stream in talk.streams.values():
            framer = framing.Framer()
            framer.receive_data(stream)
            if sum(8 if m.is_control else 8 + m.size for m in framer.messages()) != len(stream):
                return True
    return False


WHOLE = [session for session in SMALL if not segmented(session)]


def said(event: Heard) -> tuple[Any, ...]:
    return event.direction, event.offset, event.pv, event.message, event.value, event.seen, event.note


class Talk:
    """Makes a conversation: bytes of messages, in the order in which they are added."""

    def __init__(self, ids: str = "none", byteorder: str = "little") -> None:
        self.codecs = {True: Codec(ids=ids), False: Codec(ids=ids)}
        self.byteorder = byteorder
        self.chunks: list[tuple[str, bytes]] = []

    def add(self, *said: Any, server: bool | None = None) -> Talk:
        for message in said:
            from_server = message.from_server if server is None else server
            raw = messages.encode(
                message,
                codec=self.codecs[from_server],
                from_server=from_server,
                byteorder=self.byteorder,
            )
            self.chunks.append(("server" if from_server else "client", b"".join(raw)))
        return self

    def open(self) -> Talk:
        return self.add(
            messages.ConnectionValidationRequest(),
            messages.ConnectionValidationResponse(),
            messages.ConnectionValidated(),
            messages.CreateChannel(channels=((1, "the:pv"),)),
            messages.CreateChannelReply(cid=1, sid=11),
        )

    def monitor(self, ioid: int = 5) -> Talk:
        return self.add(
            messages.MonitorInit(sid=11, ioid=ioid, request=REQUEST),
            messages.MonitorInitReply(ioid=ioid, type=NT),
            messages.MonitorStart(sid=11, ioid=ioid),
        )

    def update(self, ioid: int = 5, **fields: Any) -> Talk:
        return self.add(messages.MonitorUpdate(ioid=ioid, value=Value(NT, fields)))


def in_runs(chunks: Iterable[tuple[Any, bytes]]) -> Iterator[tuple[Any, list[bytes], list[int]]]:
    """Chunks of one direction that follow each other together; the time of a chunk is its number."""
    run: tuple[Any, list[bytes], list[int]] | None = None
    for i, (direction, data) in enumerate(chunks):
        if run is None or run[0] != direction:
            if run is not None:
                yield run
            run = direction, [], []
        run[1].append(data)
        run[2].append(i)
    if run is not None:
        yield run


def last(found: list[Heard | Malformed]) -> Any:
    return found[-1]


# -- recorded conversations


@pytest.mark.parametrize("session", SMALL, ids=str)
def test_who_is_who_is_learnt(session: Session) -> None:
    for talk in session.talks:
        told = hear(Observer(), talk.chunks)
        numbers = {"client": 1, "server": 0}
        assert list(map(repr, hear(Observer(), ((numbers[r], d) for r, d in talk.chunks)))) == list(
            map(repr, told)
        )
        # Both directions in one stream: it must not be cut inside of messages.
        mixed = [(None, data) for _, data in whole_messages(talk.chunks)]
        assert [e.value for e in hear(Observer(), mixed)] == [  # type: ignore[union-attr]
            e.value
            for e in hear(Observer(), whole_messages(talk.chunks))  # type: ignore[union-attr]
        ]


def whole_messages(chunks: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The conversation cut between messages: each whole in the chunk where it ended."""
    pending = {"client": b"", "server": b""}
    found = []
    for role, data in chunks:
        data = pending[role] + data
        at = 0
        while len(data) - at >= 8:
            order = "big" if data[at + 2] & 0x80 else "little"
            control = data[at + 2] & 0x01
            n = 8 if control else 8 + int.from_bytes(data[at + 4 : at + 8], order)  # type: ignore[arg-type]
            if len(data) - at < n:
                break
            at += n
        pending[role] = data[at:]
        if at:
            found.append((role, data[:at]))
    return found


@pytest.mark.parametrize("session", SMALL, ids=str)
def test_the_server_alone(session: Session) -> None:
    """All values are there; names are when the numbers of the channels are told."""
    for talk in session.talks:
        both = [e for e in hear(Observer(), talk.chunks) if e.direction == "server"]
        alone = hear(Observer(), [("server", talk.streams["server"])])
        assert len(both) == len(alone)
        for one, other in zip(both, alone, strict=True):
            assert isinstance(one, Heard)
            assert isinstance(other, Heard)
            assert (other.message, other.value, other.seen, other.note) == (
                one.message,
                one.value,
                one.seen,
                "",
            )
        names = {
            cid: name
            for e in hear(Observer(), talk.chunks)
            if isinstance(e, Observed) and isinstance(e.message, messages.CreateChannel)
            for cid, name in e.message.channels
        }
        observer = Observer()
        for cid, name in names.items():
            observer.learn_name(cid, name)
        for event in hear(observer, [("server", talk.streams["server"])]):
            if isinstance(event.message, messages.CreateChannelReply):  # type: ignore[union-attr]
                assert event.pv


@pytest.mark.parametrize("session", SMALL, ids=str)
def test_the_client_alone(session: Session) -> None:
    """All messages are there, but the data of those whose type the server told; and all names."""
    for talk in session.talks:
        both = [e for e in hear(Observer(), talk.chunks) if e.direction == "client"]
        alone = hear(Observer(), [("client", talk.streams["client"])])
        assert len(both) == len(alone)
        for one, other in zip(both, alone, strict=True):
            assert isinstance(one, Heard)
            assert isinstance(other, Heard)
            if isinstance(one.message, messages.Put | messages.PutGet):
                assert other.note == "the type of this operation is not known"
                assert isinstance(other.message, messages.Put | messages.PutGet)
                assert other.message.raw
            else:
                assert (other.message, other.value, other.note) == (one.message, one.value, "")
            if not isinstance(one.message, messages.CreateChannel | messages.DestroyChannel):
                # Of the sids only the server tells whose they are.
                assert other.pv in ("", one.pv) or isinstance(one.message, messages.Search)


@pytest.mark.parametrize("session", WHOLE, ids=str)
def test_joined_in_the_middle(session: Session) -> None:
    """Whatever the place: all messages from the next one on, and their values where the type is known."""
    rng = random.Random(session.name)
    for talk in session.talks[:3]:
        for _ in range(4):
            at = {role: rng.randrange(len(stream)) for role, stream in talk.streams.items()}
            observer = Observer()
            found: list[Any] = []
            done = dict.fromkeys(at, 0)
            for role in at:
                observer.receive_gap(role, 0)
            for role, data in talk.chunks:
                skip = max(at[role] - done[role], 0)
                done[role] += len(data)
                if data[skip:]:
                    observer.receive_data(role, data[skip:])
                    found += observer.events()
            for role in at:
                observer.receive_eof(role)
            found += observer.events()
            for role, stream in talk.streams.items():
                heard = [e for e in found if e.direction == role and not isinstance(e, Malformed)]
                lost = sum(e.lost for e in found if isinstance(e, Malformed) and e.direction == role)
                if heard:
                    assert lost + sum(map(size, heard)) == len(stream) - at[role]
                for event in heard:
                    assert event.message is not None
                    assert event.note or not event.message.raw


def damaged(session: Session, rng: random.Random) -> Iterator[tuple[str, str, Any]]:
    """Its first conversation with something wrong in it."""
    talk = session.talks[0]
    for role, data in talk.chunks:
        draw = rng.random()
        if draw < 0.08:
            yield "gap", role, len(data)
        elif draw < 0.16:
            cut = rng.randrange(len(data))
            n = rng.randint(1, max(len(data) - cut, 1))
            yield "data", role, data[:cut]
            yield "gap", role, min(n, len(data) - cut)
            yield "data", role, data[cut + n :]
        elif draw < 0.3:
            wrong = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                wrong[rng.randrange(len(wrong))] = rng.choice((0, 0xFF, 0xCA, rng.randrange(256)))
            yield "data", role, bytes(wrong)
        elif draw < 0.36:
            cut = rng.randrange(len(data))
            yield "data", role, data[:cut] + rng.randbytes(rng.randint(1, 60)) + data[cut:]
        else:
            yield "data", role, data


@pytest.mark.parametrize("seed", range(6))
def test_it_never_raises_and_recovers(seed: int) -> None:
    rng = random.Random(seed)
    for session in SMALL:
        observer = Observer(limits=Limits(message=1 << 20))
        for what, role, x in damaged(session, rng):
            key: Any = role if seed % 3 else {"client": 0, "server": 1}[role]
            if what == "gap":
                observer.receive_gap(key, x)
            else:
                observer.receive_data(key, x)
            for event in observer.events():
                assert repr(event)
        for key in ("client", "server") if seed % 3 else (0, 1):
            # Enough of a plain conversation behind it, and all is well again.
            observer.receive_gap(key, 1_000_000_000)
        assert all(isinstance(event, Malformed) for event in observer.events())
        talk = Talk().open().monitor(77).update(77, value=1.5).update(77, count=3)
        found = [
            event
            for role, data in talk.chunks
            for event in observer.observe(
                role if seed % 3 else {"client": 0, "server": 1}[role], [data], [None]
            )  # type: ignore[arg-type]
        ]
        event = last(found)
        assert (event.pv, event.value["value"], event.value["count"]) == ("the:pv", 1.5, 3), session


@pytest.mark.parametrize("session", SMALL, ids=str)
def test_runs_of_chunks(session: Session) -> None:
    """However the bytes are cut, also with damage among them: the same events as from chunk after chunk, at the same times."""
    rng = random.Random(session.name)
    chunks: list[tuple[Any, bytes]] = []
    for talk in session.talks[:1]:
        for role, data in talk.chunks:
            for at in range(0, len(data), size_ := rng.choice([1, 7, 60, 1448, 1 << 20])):
                chunks.append((role, data[at : at + size_]))
    for damage in (False, True):
        if damage:
            for i in rng.sample(range(len(chunks)), min(3, len(chunks))):
                role, data = chunks[i]
                chunks[i] = role, bytes([data[0] ^ 0xFF]) + data[1:]
        one_by_one, together = Observer(), Observer()
        expected: list[Any] = []
        for i, (role, data) in enumerate(chunks):
            one_by_one.receive_data(role, data, i)
            expected += one_by_one.events()
        found = [event for run in in_runs(chunks) for event in together.observe(*run)]
        assert [(event.time, event.offset, repr(event)) for event in found] == [
            (event.time, event.offset, repr(event)) for event in expected
        ]


@pytest.mark.parametrize("session", WHOLE, ids=str)
def test_a_lost_piece(session: Session) -> None:
    """Every byte is accounted for, and what can be known again is told as if nothing had been lost."""
    rng = random.Random(session.name)
    talk = session.talks[0]
    told = {(e.direction, e.offset): e for e in hear(Observer(), talk.chunks)}
    for _ in range(3):
        victim = rng.randrange(len(talk.chunks))
        observer = Observer()
        found: list[Any] = []
        for i, (role, data) in enumerate(talk.chunks):
            if i == victim:
                observer.receive_gap(role, len(data))
            else:
                observer.receive_data(role, data)
            found += observer.events()
        for role in talk.streams:
            observer.receive_eof(role)
        found += observer.events()
        for role, stream in talk.streams.items():
            mine = [e for e in found if e.direction in (role, None)]
            missing = sum(e.missing for e in mine if isinstance(e, Malformed))
            lost = sum(e.lost for e in mine if isinstance(e, Malformed))
            assert missing == (len(talk.chunks[victim][1]) if talk.chunks[victim][0] == role else 0)
            assert missing + lost + sum(size(e) for e in mine if not isinstance(e, Malformed)) == len(stream)
        for event in found:
            if isinstance(event, Malformed):
                continue
            as_it_was = told[event.direction, event.offset]
            assert isinstance(as_it_was, Heard)
            if not event.note and event.value is not None and event.seen == as_it_was.seen:
                assert event.value == as_it_was.value
            assert event.pv in ("", as_it_was.pv) or not isinstance(event.pv, str)


@pytest.mark.parametrize("session", SMALL, ids=str)
def test_the_server_first(session: Session) -> None:
    """When a whole direction is heard before the other, names become known in the end."""
    for talk in session.talks[:3]:
        observer = Observer()
        found = hear(observer, [("server", talk.streams["server"]), ("client", talk.streams["client"])])
        assert not any(isinstance(event, Malformed) or event.note for event in found)
        for event in found:
            if event.direction == "client" and isinstance(event.message, messages.Request):  # type: ignore[union-attr]
                assert event.pv


# -- conversations made for the purpose


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_values_are_merged(byteorder: str) -> None:
    talk = Talk(byteorder=byteorder).open().monitor()
    talk.update(value=1.0, note="a").update(count=2).update(value=3.0).update(value=4.0)
    found = hear(Observer(), talk.chunks)
    values = [(e.value["value"], e.value["count"], e.value["note"]) for e in found[-4:]]  # type: ignore[union-attr]
    assert values == [(1.0, 0, "a"), (1.0, 2, "a"), (3.0, 2, "a"), (4.0, 2, "a")]
    seen = [[NT.names[i] for i in e.seen.expand(NT)] for e in found[-4:]]  # type: ignore[union-attr]
    assert seen == [["value", "note"]] + [["value", "count", "note"]] * 3
    event = last(found)
    assert isinstance(event, Update)
    assert event.message == messages.MonitorUpdate(ioid=5, value=event.value)
    assert (event.pv, event.sid, event.cid, event.ioid, event.command) == ("the:pv", 11, 1, 5, 13)
    assert event.type == NT


def test_fields_of_an_observed_message() -> None:
    talk = Talk().open().add(
        messages.PutInit(sid=11, ioid=6, request=REQUEST),
        messages.PutInitReply(ioid=6, type=NT),
        messages.Put(sid=11, ioid=6, value=Value(NT, {"count": 4})),
        messages.PutReply(ioid=6, status=Status(StatusType.ERROR, "no")),
    )  # fmt: skip
    observer = Observer()
    found = []
    for i, (role, data) in enumerate(talk.chunks):
        found += observer.observe(role, [data], [i])  # type: ignore[arg-type]
    put, reply = found[-2:]
    assert isinstance(put, Observed)
    assert isinstance(reply, Observed)
    assert (put.time, put.direction, put.pv, put.sid, put.cid, put.ioid) == (7, "client", "the:pv", 11, 1, 6)
    assert (put.value["count"], put.seen, put.type, put.status) == (4, BitSet((2,)), NT, None)
    assert (reply.value, reply.status, reply.pv) == (None, Status(StatusType.ERROR, "no"), "the:pv")
    assert "the:pv" in repr(put)
    assert observer.operations[6].request == REQUEST
    assert observer.channels[11].name == "the:pv"


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one chunk"])
def test_some_fields(together: bool) -> None:
    talk = Talk().open().monitor()
    observer = Observer()
    hear(observer, talk.chunks)
    observer.operations[5].fields = ["count", "other"]
    talk.chunks.clear()
    for i in range(5):
        talk.update(value=float(i), **({"count": i} if i % 2 == 0 else {"note": "x"}))
    chunks = [("server", b"".join(data for _, data in talk.chunks))] if together else talk.chunks
    found = hear(observer, chunks)
    assert [event.value.to_dict() for event in found] == [
        {"value": 0.0, "count": count, "note": ""} for count in (0, 0, 2, 2, 4)
    ]
    assert [event.value.changed_names() for event in found] == [["count"], [], ["count"], [], ["count"]]
    assert all(event.seen == BitSet((2,)) for event in found)


@pytest.mark.parametrize("session", SMALL, ids=str)
def test_some_fields_of_recorded_conversations(session: Session) -> None:
    """Every field of every operation, one left out in turns: those that are left in are as they ever were."""
    for talk in session.talks:
        plain, some = Observer(), Observer()
        for direction, data in talk.chunks:
            for observer in (plain, some):
                observer.receive_data(direction, data)
            for whole, part in zip(plain.events(), some.events(), strict=True):
                assert type(whole) is type(part)
                if isinstance(part, Malformed) or part.operation is None:
                    continue
                operation = part.operation
                if operation.type is not None and operation.fields is None:
                    names = [name for i, name in enumerate(operation.type.names) if operation.type.is_leaf(i)]
                    operation.fields = names[::2]
                    continue
                if isinstance(whole, Update):
                    assert operation.reads is not operation.type
                    for name in operation.fields or ():
                        assert wire.plain(whole.value[name]) == wire.plain(part.value[name]), name
                    kept = {whole.value.type.index(name) for name in operation.fields or ()}
                    came = set(whole.value.changed.expand(whole.value.type))
                    assert set(part.value.changed) == came & kept
                    assert part.overrun == whole.overrun


def test_a_lost_update_leaves_a_doubt() -> None:
    """Until every field has come again, or a value as a whole."""
    talk = Talk().open().monitor().update(value=1.0, count=1, note="a")
    lost = Talk().update(count=2).chunks[0][1]
    after = Talk().update(value=2.0).update(count=3, note="b").update(value=4.0)
    observer = Observer()
    assert not any(isinstance(event, Malformed) for event in hear(observer, talk.chunks))
    observer.receive_gap("server", len(lost))
    gap, doubtful, sure, then = hear(observer, after.chunks)
    assert isinstance(gap, Malformed)
    assert (gap.direction, gap.lost, gap.missing) == ("server", 0, len(lost))
    assert isinstance(doubtful, Update)
    assert "out of date" in doubtful.note
    assert (sure.note, sure.value["count"], then.note, then.value["value"]) == ("", 3, "", 4.0)  # type: ignore[union-attr]


def test_type_ids_that_were_missed() -> None:
    """Ids that were defined before the start or in a gap are a note; in a whole conversation they are damage."""
    talk = Talk(ids="pvaccess").open().monitor(5)
    defined = len(talk.chunks)
    talk.monitor(6).update(6, value=1.0)
    observer = Observer()
    found = hear(observer, talk.chunks[defined:])
    assert not any(isinstance(event, Malformed) for event in found)
    reply, update = found[1], found[3]
    assert isinstance(reply, Observed)
    assert isinstance(update, Heard)
    assert "unknown type id 1" in reply.note
    assert "not seen from its start" in reply.note
    assert update.note == "the type of this operation is not known"
    assert update.message is not None
    assert update.message.raw
    # New definitions are understood.
    fresh = Talk(ids="pvaccess").monitor(7).update(7, value=2.0)
    event = last(hear(observer, fresh.chunks))
    assert (event.value["value"], event.note) == (2.0, "")

    whole = Talk(ids="pvaccess").open()
    bad = messages.encode(messages.MonitorInitReply(ioid=6, type=NT), codec=whole.codecs[True])
    raw = b"".join(bad).replace(b"\xfd\x01\x00\x80", b"\xfe\x01\x00\x80")
    observer = Observer()
    hear(observer, whole.chunks)
    event = last(hear(observer, [("server", raw)]))
    assert isinstance(event, Malformed)
    assert "unknown type id 1" in event.reason


def test_a_payload_that_is_wrong() -> None:
    """It is told with its place, PV and operation; what follows is decoded."""
    talk = Talk().open().monitor().update(value=1.0, note="a")
    observer = Observer()
    hear(observer, talk.chunks)
    raw = bytearray(Talk().update(note="abc").chunks[0][1])
    raw[-5] = 9  # the length of the text
    (event,) = hear(observer, [("server", bytes(raw))])
    assert isinstance(event, Malformed)
    assert (event.direction, event.pv, event.path, event.lost) == ("server", "the:pv", "value.note", len(raw))
    assert event.reason == "string of 9 bytes needs 9 bytes, 4 left"
    assert event.operation is not None
    assert event.operation.ioid == 5
    assert event.frame is not None
    assert event.frame.command == 13
    (event,) = hear(observer, Talk().update(value=2.0).chunks)
    assert isinstance(event, Update)
    assert (event.value["value"], event.value["note"]) == (2.0, "a")
    assert "out of date" in event.note


def test_an_init_reply_that_is_wrong_leaves_no_type() -> None:
    """The number may have been in use before: what comes is not decoded by the old type."""
    talk = Talk().open().monitor().update(value=1.0)
    observer = Observer()
    hear(observer, talk.chunks)
    raw = b"".join(messages.encode(messages.MonitorInitReply(ioid=5, type=NT), codec=Codec()))
    found = hear(observer, [("server", raw.replace(b"\x43", b"\x47")), *Talk().update(value=2.0).chunks])
    assert isinstance(found[0], Malformed)
    assert found[1].note == "the type of this operation is not known"  # type: ignore[union-attr]


def test_numbers_are_used_again() -> None:
    other = FieldDesc.of({"x": "string"})
    talk = Talk().open().monitor().update(value=1.0)
    talk.add(
        messages.DestroyRequest(sid=11, ioid=5),
        messages.MonitorUpdate(ioid=5, value=Value(NT, {"value": 2.0})),
    )
    talk.add(messages.DestroyChannel(sid=11, cid=1), server=False)
    talk.add(messages.DestroyChannel(sid=11, cid=1), server=True)
    talk.add(
        messages.CreateChannel(channels=((2, "other:pv"),)),
        messages.CreateChannelReply(cid=2, sid=11),
        messages.MonitorInit(sid=11, ioid=5, request=REQUEST),
        messages.MonitorInitReply(ioid=5, type=other),
        messages.MonitorUpdate(ioid=5, value=Value(other, {"x": "y"})),
    )
    found = hear(Observer(), talk.chunks)
    assert not any(isinstance(event, Malformed) for event in found)
    late = next(e for e in found if isinstance(e, Update) and e.value.type == NT and e.value["value"] == 2.0)
    assert late.pv == "the:pv"
    event = last(found)
    assert (event.pv, event.value["x"], event.note) == ("other:pv", "y", "")


def test_names_out_of_step() -> None:
    """The client's half comes late: its operations get their names, also those that the server has told of."""
    talk = Talk().open().monitor().update(value=1.0)
    client = [chunk for chunk in talk.chunks if chunk[0] == "client"]
    server = [chunk for chunk in talk.chunks if chunk[0] == "server"]
    observer = Observer()
    found = hear(observer, server)
    update = last(found)
    assert (update.pv, update.value["value"]) == ("", 1.0)
    hear(observer, client)
    assert update.pv == "the:pv"
    event = last(hear(observer, Talk().update(count=2).chunks))
    assert (event.pv, event.value["value"], event.value["count"]) == ("the:pv", 1.0, 2)


def test_search_over_tcp() -> None:
    talk = Talk().add(
        messages.Search(sequence=1, channels=((7, "a"), (8, "b"))),
        messages.SearchResponse(guid=bytes(12), sequence=1, cids=(8,)),
        messages.CreateChannelReply(cid=8, sid=3),
    )
    search, response, created = hear(Observer(), talk.chunks)
    assert (search.pv, response.pv, created.pv) == (("a", "b"), ("b",), "b")


def test_memory_is_bounded() -> None:
    limits = Limits(channels=10, operations=20)
    observer = Observer(limits=limits)
    talk = Talk().open()
    for i in range(1, 200):
        talk.add(
            messages.CreateChannel(channels=((i, f"pv{i}"),)),
            messages.CreateChannelReply(cid=i, sid=i),
            messages.GetInit(sid=i, ioid=i, request=REQUEST),
            messages.GetInitReply(ioid=i, type=NT),
            messages.Get(sid=i, ioid=i),
            messages.GetReply(ioid=i, value=Value(NT, {"value": float(i)})),
        )
    found = hear(observer, talk.chunks)
    assert all(isinstance(event, Observed) and not event.note for event in found)
    assert last(found).pv == "pv199"
    assert len(observer.operations) <= 20
    assert len(observer.channels) <= 10
    known = observer._known
    for table in (known._cids, known._names, known._valued, known._steady):
        assert len(table) <= 20
    assert len(known._ended) <= 64


def test_events_can_be_left_and_taken_up() -> None:
    talk = Talk().open().monitor().update(value=1.0, count=1, note="").update(value=2.0).update(value=3.0)
    observer = Observer()
    for role, data in talk.chunks:
        observer.receive_data(role, data)  # type: ignore[arg-type]
    found: list[Any] = []
    while True:
        event = next(observer.events(), None)
        if event is None:
            break
        found.append(event)
    assert list(map(repr, found)) == list(map(repr, hear(Observer(), talk.chunks)))


def test_garbage_is_counted() -> None:
    observer = Observer()
    observer.receive_data("server", b"GET / HTTP/1.0\r\n\r\n")
    assert list(observer.events()) == []
    observer.receive_eof("server")
    (event,) = observer.events()
    assert isinstance(event, Malformed)
    assert (event.offset, event.lost, event.missing) == (0, 18, 0)
    assert "magic" in event.reason


def test_the_end_within_a_message() -> None:
    observer = Observer()
    talk = Talk().open()
    observer.receive_data("server", talk.chunks[0][1][:-3])
    observer.receive_eof("server")
    (event,) = observer.events()
    assert isinstance(event, Malformed)
    assert event.lost == len(talk.chunks[0][1]) - 3


def test_which_streams_there_are() -> None:
    with pytest.raises(ValueError, match="direction must be"):
        Observer().receive_data("both", b"")  # type: ignore[arg-type]

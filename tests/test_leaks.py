"""Errors leave nothing behind: the memory in use is the same after many rounds of every error path."""

from __future__ import annotations

import gc
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import pytest

import captures
import errorcases
from pvafast import ClientConnection, Observer, ServerConnection, ndarray, normative
from pvafast._types import DTYPES
from pvafast.errors import EncodeError, LocalProtocolError, ProtocolError, PvaError
from pvafast.limits import Limits

DATA = Path(__file__).parent / "data" / "bench_messages"
VECTORS = Path(__file__).parent / "vectors" / "messages.json"
INIT = 8 + 6  # header; ioid, sub, status
UPDATE = 8 + 5  # header; ioid, sub
ROUNDS = 10
# Blocks that may still be taken after the first rounds: the bounded caches of types turn over, in no fixed order.
# A leak takes one or more for each input that meets it, in each round.
SLACK = 250
# The table of errors meets the same types each time: what remains of one call is seen among these.
TIMES = 5


def grows(work: Callable[[], int]) -> tuple[int, int]:
    """(blocks by which the memory in use grows over some rounds, how many errors a round meets)."""
    work()
    errors = work()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(ROUNDS):
        work()
    gc.collect()
    return sys.getallocatedblocks() - before, errors


def damaged(raw: bytes, count: int) -> list[bytes]:
    """Every prefix of the first bytes, and mutations."""
    rng = random.Random(len(raw))
    found = [raw[:n] for n in range(min(len(raw), count))]
    for _ in range(count):
        bad = bytearray(raw[:2000])
        for _ in range(rng.randrange(1, 4)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        found.append(bytes(bad))
    return found


def attempts(calls: list[Callable[[], Any]], allowed: type[Exception] | tuple[type[Exception], ...]) -> int:
    """Make all the calls; how many failed as they may."""
    errors = 0
    for call in calls:
        try:
            call()
        except allowed:
            errors += 1
    return errors


def held_by(calls: list[Callable[[], Any]]) -> list[Any]:
    """What functions pass on, and what that is made of; not what is shared with all the world."""
    found: dict[int, Any] = {}
    waiting: list[Any] = []
    for call in calls:
        waiting += getattr(call, "__defaults__", None) or ()
        waiting += [cell.cell_contents for cell in getattr(call, "__closure__", None) or ()]
    while waiting:
        item = waiting.pop()
        if id(item) not in found and not isinstance(item, int | str | type | ModuleType | FunctionType):
            found[id(item)] = item
            waiting += gc.get_referents(item)
            # Compiled classes that can be in no cycle do not tell of what they hold.
            waiting += [getattr(item, name) for name in ("type", "element", "members") if hasattr(item, name)]
    return list(found.values())


def test_every_error_path(backend: SimpleNamespace) -> None:
    """The table of errorcases.py leaves no memory behind, and no reference to what the calls were given."""
    cases = errorcases.cases(backend)
    calls = [case.call for case in cases]
    errors = {case.error for case in cases}
    simple = [
        backend.introspection.FieldDesc.of(text)
        for text in ("int8", "int16", "double", "string", "any", "int8[]")
    ]
    watched = [*errors, *simple, *DTYPES.values(), *held_by(calls)]
    attempts(calls, tuple(errors))
    before = [sys.getrefcount(item) for item in watched]
    grown, met = grows(lambda: attempts(calls * TIMES, tuple(errors)))
    after = [sys.getrefcount(item) for item in watched]
    assert met == len(calls) * TIMES
    assert grown < ROUNDS * TIMES
    assert not [
        item for item, old, new in zip(watched, before, after, strict=True) if new - old >= ROUNDS * TIMES
    ]


@pytest.mark.parametrize("name", ["nts", "ntsa", "ntsas", "tbl"])
def test_types_and_updates(backend: SimpleNamespace, name: str) -> None:
    described = (DATA / f"{name}.init.msg").read_bytes()[INIT:]
    update = next(path for path in sorted(DATA.glob(f"{name}.*.msg")) if "init" not in path.name)
    fd, _ = backend.codec.Codec().decode_type(described)
    base, _ = backend.codec.Codec().decode_update(fd, update.read_bytes()[UPDATE:])
    limits = Limits(elements=2000, message=1 << 20)
    calls: list[Callable[[], Any]] = []
    for bad in damaged(described, 150):
        calls.append(lambda bad=bad: backend.codec.Codec(limits=limits).decode_type(bad))
    for bad in damaged(update.read_bytes()[UPDATE:], 150):
        calls.append(lambda bad=bad: backend.codec.Codec(limits=limits).decode_update(fd, bad))
        calls.append(lambda bad=bad: backend.codec.Codec(limits=limits).decode_update(fd, bad, base=base))
        calls.append(lambda bad=bad: backend.codec.Codec(limits=limits).decode(fd, bad))
    grown, errors = grows(lambda: attempts(calls, ProtocolError))
    assert errors > 200
    assert grown < SLACK


def test_messages_and_streams() -> None:
    """Every kind of message, cut short and damaged, to both ends of a connection and to the observer."""
    vectors = [bytes.fromhex(vector["bytes_hex"]) for vector in json.loads(VECTORS.read_text())]
    inputs = [bad for raw in vectors[::5] for bad in damaged(raw, 3)]

    def feed(make: Callable[[], Any], data: bytes) -> None:
        end = make()
        if isinstance(end, Observer):
            end.receive_data("server", data)
        else:
            end.receive_data(data)
            end.receive_eof()
        for event in end.events():
            repr(event)

    calls = [
        lambda make=make, data=data: feed(make, data)
        for make in (ClientConnection, ServerConnection, Observer)
        for data in inputs
    ]
    grown, errors = grows(lambda: attempts(calls, ProtocolError))
    assert errors > 200
    assert grown < SLACK


def test_values_that_do_not_fit(backend: SimpleNamespace) -> None:
    types = {
        "double": "x", "int8": 300, "uint8": -1, "bool": "x", "string": 5, "int32[]": ["x"], "int8[]": [1, 300],
        "string[]": [1], "int16[2]": [1, 2, 3], "double<1>": [1.0, 2.0], "string(2)": "abc", "any": object(), "any[]": 3,
        "uint64": 1 << 70, "int64": 1.5, "float": "nan?", "bool[]": ["x"], "string[2]": ["a"],
    }  # fmt: skip
    FieldDesc, Value = backend.introspection.FieldDesc, backend.value.Value
    inner = {"a": "int8", "b": "string"}
    fd = FieldDesc.structure(
        "",
        {
            **{f"f{i}": spec for i, spec in enumerate(types)},
            "s": FieldDesc.structure("", inner),
            "sa": FieldDesc.structure("", inner).array(),
            "u": FieldDesc.union("", inner),
            "ua": FieldDesc.union("", inner).array(),
        },
    )
    bad = {f"f{i}": wrong for i, wrong in enumerate(types.values())}
    bad |= {"s": {"c": 1}, "sa": [{"a": "x"}], "u": ("c", 1), "ua": [("a", "x")]}
    calls: list[Callable[[], Any]] = []
    for name, wrong in bad.items():
        calls.append(lambda name=name, wrong=wrong: Value(fd, {name: wrong}))
        calls.append(lambda name=name, wrong=wrong: Value(fd).__setitem__(name, wrong))
    grown, errors = grows(lambda: attempts(calls * 10, (EncodeError, KeyError, AttributeError, TypeError)))
    assert errors == len(calls) * 10
    assert grown < SLACK


def test_access_to_what_is_not_there(backend: SimpleNamespace) -> None:
    fd = backend.introspection.FieldDesc.structure("", {"a": "int8", "s": {"b": "double"}})
    value = backend.value.Value(fd, {"a": 1})
    calls: list[Callable[[], Any]] = [
        lambda: value["x"], lambda: value["s.x"], lambda: value.x, lambda: fd["x"], lambda: fd.index("s.x"),
        lambda: value.mark("x"), lambda: backend.introspection.FieldDesc.parse("struct { int"),
        lambda: backend.introspection.FieldDesc.structure("", {"a": "nothing"}),
        lambda: backend.codec.Codec().decode_update(fd, b"\x01\x02\x01", base=backend.value.Value(fd["s"])),
    ]  # fmt: skip
    grown, errors = grows(
        lambda: attempts(calls * 50, (PvaError, KeyError, AttributeError, ValueError, TypeError))
    )
    assert errors == len(calls) * 50
    assert grown < SLACK


def test_frames_and_readers() -> None:
    nt = normative.NTScalar("double")
    frame = ndarray.encode([[1, 2], [3, 4]])
    broken = frame.copy()
    broken["dimension"] = [{"size": 3}, {"size": 1 << 30}]
    coded = frame.copy()
    coded["codec.name"] = "nothing known"
    calls: list[Callable[[], Any]] = [
        lambda: ndarray.Frame(broken).data, lambda: ndarray.Frame(coded).data,
        lambda: nt.wrap("x"), lambda: ndarray.Frame(nt.wrap(1.0)).data,
    ]  # fmt: skip
    grown, errors = grows(lambda: attempts(calls * 50, PvaError))
    assert errors == len(calls) * 50
    assert grown < SLACK


def test_packets_that_are_not_plain(backend: SimpleNamespace) -> None:
    """A damaged capture is no error here: what is not plain is left to another reader."""
    lan = SimpleNamespace(link=1, clock=SimpleNamespace(per_second=1))
    packets = [
        captures.ethernet(captures.ip4(captures.tcp(1, 2, 100 + i, 7, captures.ACK, b"x"))) for i in range(3)
    ]
    key = captures.A4 + captures.B4 + bytes((0, 1, 0, 2))
    records = captures.pcap(list(enumerate(packets)))[24:]
    blocks = b"".join(captures.enhanced(packet, i) for i, packet in enumerate(packets))

    def whole(method: str, interface: Any, data: bytes) -> None:
        flow, back = (backend.packets.Flow(SimpleNamespace(ignored=False), side) for side in (0, 1))
        flow.peer, back.peer, flow.fast, flow.next = back, flow, True, 100
        plain = backend.packets.Plain({key: flow}, None)
        _, end = getattr(plain, method)(data, 0, "<", interface)
        if end < len(data) or plain.count < len(packets):
            raise ValueError(end)

    whole("pcap", lan, records)
    whole("pcapng", [lan], blocks)
    ways = (("pcap", lan, records), ("pcapng", [lan], blocks))
    calls = [
        lambda method=method, interface=interface, bad=bad: whole(method, interface, bad)
        for method, interface, good in ways
        for bad in damaged(good, 150)
    ]
    grown, errors = grows(lambda: attempts(calls, ValueError))
    assert errors > 200
    assert grown < SLACK


def test_misuse_of_a_connection() -> None:
    from pvafast import messages

    conn = ClientConnection()
    calls: list[Callable[[], Any]] = [
        lambda: conn.send(messages.CreateChannel(channels=((1, "x"),))),
        lambda: conn.send(messages.Get(sid=1, ioid=1)),
    ]
    grown, errors = grows(lambda: attempts(calls * 100, LocalProtocolError))
    assert errors == 200
    assert grown < SLACK

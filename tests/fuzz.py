"""Coverage-guided fuzzing of everything that reads bytes from outside.

    python tests/fuzz.py -runs=20000            a fixed number of inputs, as CI does
    python tests/fuzz.py -max_total_time=3600 my-corpus/    for an hour, new inputs kept
    python tests/fuzz.py --only=frame,columns -max_total_time=600    some targets: their names are those of the functions
    PVAFAST_BACKEND=py python tests/fuzz.py --active -runs=5000      those of one twin, on the other one
    python tests/fuzz.py crash-123abc           one input again
    python tests/fuzz.py --keep my-corpus/      those that reach something new become tests/data/fuzz/corpus.tar.xz

Other options are libFuzzer's. Seeds are made of tests/vectors, tests/data and, where it is set, of PVAFAST_VECTORS; with CI in the
environment it has to be.

Targets of codec, type texts, framing, packets and columns are run on both twins side by side, which must end the same: value or error,
text, offset. The coverage that guides them is that of the Python twin. The others (ACTIVE: messages, connections, captures, archives,
frames, datagrams, pvRequests) are Python code over the active twin, that of PVAFAST_BACKEND; CI runs them on each. open_client and
open_server (midway.py) compare what came in one piece with what came in pieces and in place. Any other exception, a difference or a
crash is a finding.

The first byte of an input chooses the target (a place in TARGETS, which therefore only grows at its end) and the byte order,
the rest is what is read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import math
import os
import struct
import sys
import tarfile
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import atheris
import numpy as np

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS))

with atheris.instrument_imports(include=["pvafast"]):
    import captures
    import conftest
    import datagrams
    import midwayseeds
    from midway import LIMITS, contents, open_client, open_server, plain, tried
    from pvafast import (
        AnyValue,
        UnionValue,
        Value,
        archive,
        connection,
        messages,
        ndarray,
        request,
    )
    from pvafast._backend import codec as active
    from pvafast._backend import framing as active_framing
    from pvafast.capture import read
    from pvafast.client.search import Searcher
    from pvafast.errors import (
        DecodeError,
        EncodeError,
        FrameError,
        LocalProtocolError,
        ProtocolError,
    )
    from pvafast.ndarray import codecs
    from pvafast.network import udp
    from pvafast.network.config import ClientConfig, ServerConfig
    from pvafast.request import Request
    from pvafast.server.discovery import Discovery

    C, PY = conftest.load("c"), conftest.load("py")

CORPUS = TESTS / "data" / "fuzz" / "corpus.tar.xz"


def outcome(work: Callable[[], Any]) -> Any:
    """What a twin makes of its input, in a form that can be compared with the other twin's."""
    try:
        return work()
    except DecodeError as error:
        return type(error).__name__, str(error), error.offset, error.path
    except (EncodeError, LocalProtocolError) as error:
        return type(error).__name__, str(error)


def same(target: Callable[[SimpleNamespace, bytes, str], Any], data: bytes, order: str) -> None:
    """Run a target on both twins and compare."""
    compiled = outcome(lambda: target(C, data, order))
    python = outcome(lambda: target(PY, data, order))
    if compiled != python:
        raise AssertionError(f"the twins differ: compiled {compiled!r}, Python {python!r}")


def decode_type(twin: SimpleNamespace, data: bytes, order: str) -> Any:
    """Type descriptions, one after the other, with their ids."""
    codec = twin.codec.Codec(limits=LIMITS)
    at, found = 0, []
    while at < len(data) and len(found) < 8:
        type, at = codec.decode_type(data, at, byteorder=order)
        found.append(None if type is None else (type.format("short"), type.to_bytes(order)))
    return found


def decode_any(twin: SimpleNamespace, data: bytes, order: str) -> Any:
    """A type description and a value of it, which must survive being encoded."""
    codec = twin.codec.Codec(limits=LIMITS)
    value, end = codec.decode_any(data, byteorder=order)
    encoded = twin.codec.Codec().encode_any(value, byteorder=order)
    again, _ = twin.codec.Codec(limits=LIMITS).decode_any(encoded, byteorder=order)
    if again != value:
        raise AssertionError(f"{value!r} reads back as {again!r}")
    return end, repr(value), encoded


def decode_update(twin: SimpleNamespace, data: bytes, order: str) -> Any:
    """A type description and two updates of it, the second laid over the first."""
    codec = twin.codec.Codec(limits=LIMITS)
    type, at = codec.decode_type(data, byteorder=order)
    if type is None:
        return None
    first, at = codec.decode_update(type, data, at, byteorder=order)
    names = [name for i, name in enumerate(type.names) if type.is_leaf(i)]
    names += [f"{name}.{inner}" for name in names for inner in type[name].members]
    projection = twin.projection.Projection(type, names[at % 2 :: 2], strict=False)
    fresh = twin.codec.Codec(limits=LIMITS)
    _, start = fresh.decode_type(data, byteorder=order)
    _, end = fresh.decode_update(projection, data, start, byteorder=order)
    if end != at:
        raise AssertionError(f"{projection!r} ends at {end}, the whole at {at}")
    second, at = codec.decode_update(type, data, at, base=first, byteorder=order)
    return at, list(second.changed), repr(second), twin.codec.Codec().encode(second, byteorder=order)


def decode_bitset(twin: SimpleNamespace, data: bytes, order: str) -> Any:
    """A BitSet and what it is written as."""
    bits, end = twin.bitset.BitSet.decode(data, byteorder=order)
    return end, list(bits), bits.encode(byteorder=order)


def frames(twin: SimpleNamespace, data: bytes, order: str) -> Any:
    """A byte stream, in pieces whose sizes its first byte tells, resynchronised after damage."""
    framer = twin.framing.Framer(limits=LIMITS)
    step = data[0] + 1 if data else 1
    found: list[Any] = []
    for start in range(1, len(data), step):
        framer.receive_data(data[start : start + step])
        while True:
            try:
                got = framer.messages()
            except DecodeError as error:
                found.append((str(error), framer.resync()))
                continue
            if not got:
                break
            found += [(m.flags, m.command, m.offset, m.size, bytes(m.payload)) for m in got]
    return found, framer.offset, framer.pending


def message(data: bytes, order: str) -> None:
    """One message of any kind, as a UDP datagram would bring it."""
    if len(data) < 2:
        return
    flags = data[0] & 0x41 | (0x80 if order == "big" else 0)
    frame = active_framing.Message(flags=flags, command=data[1] % 24, data=data[2:])
    try:
        messages.decode(frame, codec=active.Codec(limits=LIMITS), lenient=bool(data[0] & 2))
    except DecodeError:
        pass


def client(data: bytes, order: str) -> None:
    """What a server sends to a client."""
    role(connection.ClientConnection(limits=LIMITS), data)


def server(data: bytes, order: str) -> None:
    """What a client sends to a server."""
    role(connection.ServerConnection(limits=LIMITS), data)


def role(end: Any, data: bytes) -> None:
    """Feed one end of a connection; it may refuse with a ProtocolError, once."""
    try:
        end.receive_data(data)
        for _ in end.events():
            end.data_to_send()
        end.receive_eof()
        for _ in end.events():
            pass
    except ProtocolError:
        pass


def observer(data: bytes, order: str) -> None:
    """Both directions of a conversation, in turns; it never raises."""
    watch = connection.Observer(limits=LIMITS)
    step = data[0] + 1 if data else 1
    for i, start in enumerate(range(1, len(data), step)):
        watch.receive_data(("client", "server")[i & 1] if step & 1 else None, data[start : start + step])
        for event in watch.events():
            repr(event)


def capture(data: bytes, order: str) -> None:
    """A capture file."""
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        file.write(data)
        file.flush()
        try:
            for record in read(file.name):
                repr(record)
        except DecodeError:
            pass


# The two directions of two connections, and what a frame begins with, by link type.
ENDS = struct.pack(">HH", 1000, 2000)
STREAMS = [captures.A4 + captures.B4 + ENDS, captures.A6 + captures.B6 + ENDS]
LINKS = (1, 113, 276, 0, 101, 147)
CLOCK = SimpleNamespace(per_second=1_000_000)


def packets(twin: SimpleNamespace, data: bytes, order: str) -> Any:
    """The records of a pcap file, or blocks of a pcapng, of which the plain ones are taken in runs."""
    how, records = data[:1], data[1:]
    if not how:
        return None
    connection = SimpleNamespace(ignored=False)
    table: dict[bytes, Any] = {}
    for key in STREAMS:
        half = len(key) // 2 - 2
        back = key[half:-4] + key[:half] + key[-2:] + key[-4:-2]
        there, here = table[key], table[back] = [twin.packets.Flow(connection, side) for side in (0, 1)]
        there.peer, here.peer = here, there
        there.fast = here.fast = True
        there.next = here.next = 100
    plain = twin.packets.Plain(table, None, bool(how[0] & 1))
    lan = SimpleNamespace(link=LINKS[(how[0] >> 2) % len(LINKS)], clock=CLOCK)
    mark = "<" if order == "little" else ">"
    if how[0] & 2:
        runs, end = plain.pcapng(records, 0, mark, [lan])
    else:
        runs, end = plain.pcap(records, 0, mark, lan)
    names = {id(flow): key for key, flow in table.items()}
    return (
        [(names[id(run.flow)], run.times, run.chunks, run.size) for run in runs],
        [(flow.next, flow.acked, flow.touched) for flow in table.values()],
        *(end, plain.count, plain.ticks),
    )


def packet_seeds() -> Iterator[tuple[bytes, bool]]:
    """Records of both files, and whether they are big-endian: two updates and an acknowledgement, over IPv4 and IPv6."""
    update = b"\xca\2\x40\x0d\x0e\0\0\0" + bytes(14)
    for make, near, far in (
        (captures.ip4, captures.A4, captures.B4),
        (captures.ip6, captures.A6, captures.B6),
    ):
        frames = [
            captures.ethernet(
                make(captures.tcp(1000, 2000, 100, 7, captures.ACK, update), src=near, dst=far)
            ),
            captures.ethernet(make(captures.tcp(2000, 1000, 100, 122, captures.ACK, b""), src=far, dst=near)),
            captures.ethernet(
                make(captures.tcp(1000, 2000, 122, 7, captures.ACK, update * 2), src=near, dst=far)
            ),
        ]
        for order in "<>":
            ng = b"".join(captures.enhanced(frame, i, order=order) for i, frame in enumerate(frames))
            yield b"\1" + captures.pcap(list(enumerate(frames)), order=order)[24:], order == ">"
            yield b"\3" + ng, order == ">"


def stored(data: bytes, order: str) -> None:
    """An archive, read and written on; the checksums of its records are made anew."""
    with tempfile.NamedTemporaryFile(suffix=".pva") as file:
        file.write(b"PVAFAST\1")
        at = 0
        while at < len(data):
            body = data[at + 1 : at + 1 + data[at]]
            file.write(len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little") + body)
            at += 1 + data[at]
        file.flush()
        try:
            for entry in archive.read(file.name, limits=LIMITS):
                repr(entry)
            with archive.Writer(file.name, append=True):
                pass
        except DecodeError:
            pass
        finally:
            Path(f"{file.name}.torn").unlink(missing_ok=True)  # what the writer cut off


CODECS = ("", *codecs.DECODERS, "unknown")
MOST = 1 << 20  # bytes of a frame
GUARD = 64


def frame(data: bytes, order: str) -> None:
    """A compressed frame: its codec, element type and dimensions, then the data. Nothing is written outside of the array."""
    if len(data) < 4 or len(data) < 4 + 2 * (data[2] % 5):
        return
    ndim, given, payload = data[2] % 5, data[3], data[4 + 2 * (data[2] % 5) :]
    sizes = [int.from_bytes(data[4 + 2 * i : 6 + 2 * i], "little") for i in range(ndim)]
    value = Value(ndarray.NTNDArray().type)
    value["value"] = UnionValue("ubyteValue", np.frombuffer(payload, np.uint8))
    value["codec"] = {"name": CODECS[data[0] % len(CODECS)], "parameters": AnyValue("int32", data[1] % 12)}
    value["dimension"] = [{"size": size} for size in sizes]
    value["compressedSize"] = len(payload) if given & 1 else 0
    tracemalloc.start()
    try:
        made = ndarray.Frame(value, byteorder=order, max_bytes=MOST)  # type: ignore[arg-type]
        room = np.full(made.nbytes + 2 * GUARD, 0x5A, np.uint8)
        try:
            made.decode(room[GUARD:-GUARD].view(made.dtype))
        finally:
            if (room[:GUARD] != 0x5A).any() or (room[-GUARD:] != 0x5A).any():
                raise AssertionError("written outside of the array")
        if made.data.shape != made.shape or made.data.nbytes != made.nbytes:
            raise AssertionError(f"{made.data.shape} for dimensions {made.shape}")
    except FrameError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    room_for = min(MOST, 8 * math.prod(sizes)) if sizes else len(payload)
    if peak > 4 * (room_for + len(payload)) + (1 << 20):
        raise AssertionError(f"{peak} bytes for {len(payload)} and dimensions {sizes}")


def rows(data: bytes, order: str) -> Iterator[tuple[bytes, int]]:
    """Bytes, cut: how often, two bytes of length, so many bytes."""
    at, total = 0, 0
    while at + 3 <= len(data) and total < 200:
        times, size = data[at] % 8 + 1, int.from_bytes(data[at + 1 : at + 3], "little")
        yield data[at + 3 : at + 3 + size], times
        at, total = at + 3 + size, total + times


def columns(twin: SimpleNamespace, data: bytes, order: str) -> Any:
    """A type description and updates of it, into columns: in one batch, some of them several times; and their losses."""
    codec = twin.codec.Codec(limits=LIMITS)
    type, at = codec.decode_type(data, byteorder=order)
    if type is None:
        return None
    flags = 0x80 if order == "big" else 0
    batch = [
        twin.framing.Message(flags=flags, command=13, data=bytes(5) + body)
        for body, times in rows(data[at:], order)
        for _ in range(times)
    ]
    into = twin.columns.Columns(type, codec=codec)
    added = outcome(lambda: into.add(batch, range(len(batch))))
    kept = into.take() if len(batch) & 1 else into
    return added, contents(kept)


def losses(twin: SimpleNamespace, data: bytes, order: str) -> Any:
    """A type description and updates of it, accounted for."""
    codec = twin.codec.Codec(limits=LIMITS)
    type, at = codec.decode_type(data, byteorder=order)
    if type is None:
        return None
    account, base, found = twin.losses.Losses(), None, []
    flags = 0x80 if order == "big" else 0
    for body, times in rows(data[at:], order):
        message = twin.framing.Message(flags=flags, command=13, data=bytes(5) + body)
        base, overrun, _ = codec.decode_monitor(type, message, base)
        for _ in range(times):
            account.add(twin.monitor.Update(None, message, base, overrun, len(found)))
            found.append(repr(account))
    return found, str(account)


def projection(twin: SimpleNamespace, data: bytes, order: str) -> Any:
    """A type description, some fields of it, a value and an update over that; the errors are those of decoding the whole."""
    codec = twin.codec.Codec(limits=LIMITS)
    type, at = codec.decode_type(data, byteorder=order)
    if type is None or len(data) < at + 2:
        return None
    chosen, at = int.from_bytes(data[at : at + 2], "little"), at + 2
    names: list[str] = []
    for node, name in enumerate(type.names):
        element = type.node(node).element
        inside = () if element is None else element.names[1:]
        names += [name, *(f"{name}.{inner}" if name else inner for inner in inside)]
    wanted = [name for i, name in enumerate(names[:1000]) if chosen >> i % 16 & 1]
    some = twin.projection.Projection(type, wanted, strict=False)

    def work(kind: Any) -> Any:
        codec = twin.codec.Codec(limits=LIMITS)
        value, end = codec.decode(kind, data, at, byteorder=order)
        base = value if isinstance(value, twin.value.Value) else None
        value, end = codec.decode_update(kind, data, end, base=base, byteorder=order)
        return "ok", end, value

    part, whole = outcome(lambda: work(some)), outcome(lambda: work(type))
    if part[:2] != whole[:2] and not (part[0] == "LimitExceeded" and "Limits.expansion" in part[1]):
        raise AssertionError(f"projected {part!r}, whole {whole!r}")
    if part[0] != "ok":
        return part
    cells = [plain(tried(lambda name=name: part[2][name])) for name in some.fields]
    return part[1], list(part[2].changed), some.fields, cells, repr(part[2])


def type_text(twin: SimpleNamespace, data: bytes, order: str) -> Any:
    """A type as text, which must survive being written; in pvinfo's form once it was read from it, as it does not tell all."""
    parse = twin.introspection.FieldDesc.parse
    type = parse(data.decode("utf-8", "surrogateescape"))
    forms = [str(type), type.format("pvinfo"), type.format("short")]
    if (again := parse(forms[0])) != type:
        raise AssertionError(f"{forms[0]!r} reads back as {again}")
    try:
        told = parse(forms[1])
    except EncodeError:  # an id without members looks like a misspelt type
        return forms
    if (again := parse(told.format("pvinfo"))) != told:
        raise AssertionError(f"{forms[1]!r} reads as {told}, and that back as {again}")
    return forms


def request_text(data: bytes, order: str) -> None:
    """A pvRequest as text, which must survive being written."""
    try:
        found = Request.parse(data.decode("utf-8", "surrogateescape"), limits=LIMITS)
    except EncodeError:
        return
    if Request.parse(str(found)) != found:
        raise AssertionError(f"{str(found)!r} reads back as another request than {found!r}")
    made = found.to_value()
    if Request.read(made).to_value() != made:
        raise AssertionError(f"{str(found)!r} becomes {str(Request.read(made))!r} as a structure")
    selected(found)


def pv_request(data: bytes, order: str) -> None:
    """A pvRequest as a client sends it."""
    try:
        value, _ = active.Codec(limits=LIMITS).decode_any(data, byteorder=order)
        found = Request.read(value)
    except DecodeError:
        return
    str(found)
    selected(found)


def selected(found: Request) -> None:
    """What it selects of an NTNDArray; nothing at all is an EncodeError."""
    for which in ("field", "putField", "getField"):
        try:
            request.select(ndarray.NTNDArray().type, found, which)
        except EncodeError:
            pass


class Told(logging.Handler):
    """An error that the library catches and tells in its log is a finding, too."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            raise AssertionError(record.getMessage())


@cache
def network() -> tuple[Searcher, Discovery]:
    """A client's search and a server's discovery, on a loop that stands still and sockets that send nothing."""

    def send(self: udp.UdpSocket, data: bytes, endpoint: Any) -> None:
        if len(data) > 65_507:
            raise AssertionError(f"a datagram of {len(data)} bytes")

    udp.UdpSocket.send = send  # type: ignore[method-assign]
    loop = datagrams.VirtualLoop()
    free = datagrams.Udp()
    free.close()
    there = {"intf_addr_list": "127.0.0.1", "auto_addr_list": False, "broadcast_port": free.port}
    searcher = Searcher(loop, ClientConfig(addr_list="127.0.0.1:9", **there))
    searcher.beacons(repr)
    searcher.discover(repr)
    discovery = Discovery(loop, ServerConfig.isolated(), datagrams.GUID, 5075, lambda name: "e" in name)
    return searcher, discovery


def datagram(data: bytes, order: str) -> None:
    """A datagram that comes to the port of searches and beacons, and as an answer. The first byte tells where from."""
    if not data:
        return
    searcher, discovery = network()
    source = (("127.0.0.1", 5076), ("203.0.113.5", 1), ("fe80::1%eth0", 9))[data[0] % 3]
    destination = ("127.0.0.1", "", None)[data[0] // 3 % 3]
    searches = [searcher.find(name, lambda address, guid: None) for name in ("one", "two")]
    for cid, search in zip(b"12", searches, strict=True):  # an answer can name them
        searcher._searches[cid] = search
        search.tries = 1
    for listener in (searcher._listener, discovery._listener):
        assert listener is not None
        for sock in listener._hosts:
            listener._received(data[1:], source, destination, sock)
            searcher._datagram(data[1:], source, destination, sock)
    for search in searches:
        search.cancel()
    for cid in b"12":
        searcher._searches.pop(cid)
    searcher._servers.expire(math.inf)


COMPARED: set[Callable[[bytes, str], None]] = set()


def both(target: Callable[[SimpleNamespace, bytes, str], Any]) -> Callable[[bytes, str], None]:
    """A target for each twin, as one that compares them."""

    def compared(data: bytes, order: str) -> None:
        same(target, data, order)

    compared.__name__ = target.__name__
    COMPARED.add(compared)
    return compared


TARGETS: list[Callable[[bytes, str], None]] = [
    *map(both, (decode_type, decode_any, decode_update, decode_bitset, frames)),
    *(message, client, server, observer, capture, stored),
    *(frame, both(columns), both(projection), both(losses)),
    *(datagram, both(type_text), request_text, pv_request, both(packets)),
    *(open_client, open_server),
]
TYPE, ANY, UPDATE, BITSET, STREAM, MESSAGE, CLIENT, SERVER, OBSERVER, CAPTURE, ARCHIVE = range(11)
FRAME, COLUMNS, PROJECTION, LOSSES, DATAGRAM, TYPE_TEXT, REQUEST_TEXT, PV_REQUEST, PACKETS = range(11, 20)
OPEN_CLIENT, OPEN_SERVER = range(20, len(TARGETS))
NAMES = [target.__name__ for target in TARGETS]
# Those that do not compare the twins.
ACTIVE = frozenset(i for i, target in enumerate(TARGETS) if target not in COMPARED)


def target_of(data: bytes) -> int:
    """The target that an input is for. What is no place counts from the start, as when there were ten."""
    chosen = data[0] & 0x7F
    return chosen if chosen < len(TARGETS) else chosen % 10


def one_input(data: bytes, only: frozenset[int] = frozenset(range(len(TARGETS)))) -> None:
    """What libFuzzer calls."""
    if data and target_of(data) in only:
        TARGETS[target_of(data)](data[1:], "big" if data[0] & 0x80 else "little")


def seeds() -> Iterator[bytes]:
    """Inputs to start from."""
    if CORPUS.exists():
        with tarfile.open(CORPUS) as kept:
            for member in kept.getmembers():
                file = kept.extractfile(member)
                assert file is not None
                yield file.read()

    def seed(target: int, data: bytes, big: bool = False) -> bytes:
        return bytes([target | (0x80 if big else 0)]) + data

    subscription = b"\1\0\0\0\0\1\0x\x80\0\2\1a\x22\1b\x82" + bytes(4) + b"\xff"
    update = b"\2" + bytes(13) + b"\1\1" + bytes(4) + b"\x20\5\0"
    yield seed(ARCHIVE, b"".join(bytes([len(body)]) + body for body in (subscription, update, update)))
    places = [TESTS / "vectors"]
    shared = os.environ.get("PVAFAST_VECTORS", "")
    if shared not in ("", "none"):
        places.append(Path(shared))
    elif not shared and os.environ.get("CI"):
        sys.exit("tests/fuzz.py: PVAFAST_VECTORS is not set ('none': do without)")
    kinds = {
        "fielddesc": (TYPE,),
        "typevalue": (ANY,),
        "bitset": (BITSET,),
        "message": (STREAM, CLIENT, SERVER),
    }
    for place in places:
        for path in sorted(place.glob("*.json")):
            for vector in json.loads(path.read_text()):
                raw = bytes.fromhex(vector.get("bytes_hex") or vector.get("hex") or "")
                big = bool(vector.get("big_endian", vector.get("byteorder") == "big"))
                for target in kinds.get(vector.get("kind", "message"), (ANY, UPDATE)):
                    yield seed(target, b"\xff" * (target == STREAM) + raw, big)
    for path in sorted((TESTS / "data").rglob("*")):
        if path.suffix == ".msg":
            yield seed(STREAM, b"\xff" + path.read_bytes()[:4096])
        elif path.suffix == ".gz":
            raw = gzip.decompress(path.read_bytes())
            if ".pcap" in path.name:
                yield seed(CAPTURE, raw[:8192])
            elif "s2c" in path.name:
                yield seed(CLIENT, raw[:4096])
                yield seed(OBSERVER, b"\xfe" + raw[:4096])
            elif "c2s" in path.name:
                yield seed(SERVER, raw[:4096])
    yield from (seed(DATAGRAM, bytes([i]) + data) for i, data in enumerate(datagram_seeds()))
    yield from (seed(PACKETS, data, big) for data, big in packet_seeds())
    yield from (seed(OPEN_CLIENT, data, big) for data, big in midwayseeds.client_seeds())
    yield from (seed(OPEN_SERVER, data, big) for data, big in midwayseeds.server_seeds())
    for codec in CODECS[:-1]:
        for shape, dtype, style in (
            ((3, 5), "B", 1),
            ((40, 30), "B", 1),
            ((6, 7), "<u2", 3),
            ((300,), "<f8", 9),
        ):
            if codec == "jpeg" and (dtype != "B" or len(shape) != 2):
                continue
            image = (np.arange(math.prod(shape)) % 200).astype(dtype).reshape(shape)
            made = ndarray.encode(image, codec=codec)
            sizes = b"".join(size.to_bytes(2, "little") for size in reversed(shape))
            head = bytes([CODECS.index(codec), style, len(shape), 1]) + sizes
            yield seed(FRAME, head + flat(made["value"].value))
    place = TESTS / "data" / "bench_messages"
    for name in ("nts", "ntsa", "ntsas", "tbl", "ntsmin"):
        described = (place / f"{name}.init.msg").read_bytes()[14:]
        updates = [
            path.read_bytes()[13:] for path in sorted(place.glob(f"{name}.*.msg")) if "init" not in path.name
        ]
        for times in (0, 3):
            body = b"".join(
                bytes([times]) + len(raw).to_bytes(2, "little") + raw for raw in updates if len(raw) < 9000
            )
            yield seed(COLUMNS, described + body)
            yield seed(LOSSES, described + body)
    for fields, type in enumerate(TYPES, 0x1233):
        fd = PY.introspection.FieldDesc.parse(type)
        yield from (
            seed(TYPE_TEXT, text.encode()) for text in (str(fd), fd.format("pvinfo"), fd.format("short"))
        )
        for order in ("little", "big"):
            described = fd.to_bytes(order)
            value = PY.codec.Codec().encode(PY.value.Value(fd), byteorder=order)
            for chosen in (fields, 0xFFFF, 0):
                rest = chosen.to_bytes(2, "little") + value + b"\x01\x01" + value
                yield seed(PROJECTION, described + rest, order == "big")
    for text in REQUESTS:
        yield seed(REQUEST_TEXT, text.encode())
        asked = active.Codec().encode_any(AnyValue(request.parse(text).type, request.parse(text)))
        yield seed(PV_REQUEST, asked)


TYPES = (
    'struct "epics:nt/NTScalar:1.0" { double value; struct "alarm_t" { int32 severity; string message } alarm }',
    "struct { struct[] { int32 size; int32 offset; bool reverse } dimension; string name; any a; any[] b }",
    "struct { union { int8[] bytes; double d; string s } value; union[] { int8 x } u; double[3] f; string(5) t; int16<4> b }",
    "struct { struct[] { string name; any value; struct { int64 t } time } attribute; int32 uniqueId; uint8[] raw }",
)
REQUESTS = (
    "",
    "value,alarm.severity",
    "field(value,timeStamp.nanoseconds)",
    "record[queueSize=4,pipeline=true]field(value)",
    "putField(value)getField(alarm,timeStamp)",
    "field(value[algorithm=onChange,causeMonitor=true],dimension{size,offset})",
    'record[process=true,block="a b"]field()',
)


def flat(array: Any) -> bytes:
    """The bytes of an array."""
    return bytes(np.ascontiguousarray(array).tobytes())


def datagram_seeds() -> Iterator[bytes]:
    """Datagrams of every kind."""
    here = datagrams.mapped("127.0.0.1")
    one, two = ((cid, name) for cid, name in zip(b"12", ("one", "two"), strict=True))
    for order in "><":
        for flags in (0, 1, 0x80, 0x81):
            yield datagrams.search(one, two, flags=flags, port=5076, order=order)
        yield datagrams.search(one, address=here, port=5076, order=order)
        yield datagrams.search(protocols=(), flags=1, port=5076, order=order)
        yield datagrams.response(*b"12", order=order)
        yield datagrams.response(0x32, guid=bytes(12), address=here, order=order)
        yield datagrams.response(found=0, order=order)
    yield datagrams.beacon()
    yield datagrams.beacon(address=here, sequence=3, changes=1)
    yield datagrams.origin_tag(here) + datagrams.search(one, address=here, port=5076)
    yield datagrams.beacon() + datagrams.search(one) + datagrams.response(0x31)


def reached(data: bytes) -> set[tuple[str, int, int]]:
    """The steps from line to line in pvafast that an input causes."""
    steps: set[tuple[str, int, int]] = set()
    last = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal last
        if "/pvafast/" not in frame.f_code.co_filename:
            return None
        steps.add((frame.f_code.co_filename, last, frame.f_lineno))
        last = frame.f_lineno
        return trace

    sys.settrace(trace)
    try:
        one_input(data)
    finally:
        sys.settrace(None)
    return steps


def keep(place: Path) -> None:
    """Archive those inputs in a directory that reach something which neither the other seeds nor smaller inputs do."""
    inputs = {path.read_bytes() for path in place.rglob("*") if path.is_file()}
    CORPUS.unlink(missing_ok=True)  # else all of it would be among the seeds
    one_input(bytes([DATAGRAM, 0]))  # what is made once is made
    steps: set[tuple[str, int, int]] = set()
    for data in seeds():
        steps |= reached(data)
    found = []
    for data in sorted(inputs, key=lambda data: (len(data), data)):
        if more := reached(data) - steps:
            found.append(data)
            steps |= more
    CORPUS.parent.mkdir(exist_ok=True)
    with tarfile.open(CORPUS, "w:xz", preset=9) as archive:
        for data in found:
            entry = tarfile.TarInfo(f"{NAMES[target_of(data)]}/{hashlib.sha1(data).hexdigest()[:12]}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    print(f"{len(found)} inputs, {CORPUS.stat().st_size} bytes in {CORPUS}")


def main() -> None:
    """Write the seeds and let libFuzzer work."""
    if sys.argv[1:2] == ["--keep"]:
        keep(Path(sys.argv[2]))
        return
    chosen = [argument[7:].split(",") for argument in sys.argv[1:] if argument.startswith("--only=")]
    only = frozenset(map(NAMES.index, chosen[0] if chosen else NAMES))
    if "--active" in sys.argv:
        only &= ACTIVE
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    named = [argument for argument in arguments if not argument.startswith("-")]
    options = [argument for argument in arguments if argument.startswith("-")]
    logging.getLogger("pvafast").addHandler(Told())
    with tempfile.TemporaryDirectory() as corpus:
        if not any(Path(name).is_file() for name in named):
            for i, data in enumerate(seeds()):
                if target_of(data) in only:
                    Path(corpus, f"{i:05}").write_bytes(data)
            named.append(corpus)  # behind the user's own, if one is named: new inputs go to the first
        atheris.Setup([sys.argv[0], "-max_len=16384", *options, *named], lambda data: one_input(data, only))
        atheris.Fuzz()


if __name__ == "__main__":
    main()

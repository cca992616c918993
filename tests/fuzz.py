"""Coverage-guided fuzzing of everything that reads bytes from outside, both twins side by side.

    python tests/fuzz.py -runs=20000            a fixed number of inputs, as CI does
    python tests/fuzz.py -max_total_time=3600 my-corpus/    for an hour, new inputs kept

Options are libFuzzer's. Seeds are made of tests/vectors, tests/data and, where it is set, of PVAFAST_VECTORS; with CI in the
environment it has to be. The coverage that guides it is that of the Python twin; the compiled one reads the same bytes
and must end the same: value or error, text, offset. Any other exception, a difference or a crash is a finding.

The first byte of an input chooses the target and the byte order, the rest is what is read.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import atheris

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS))

with atheris.instrument_imports(include=["pvafast"]):
    import conftest
    from pvafast import Limits, archive, connection, messages
    from pvafast._backend import codec as active
    from pvafast._backend import framing as active_framing
    from pvafast.capture import read
    from pvafast.errors import DecodeError, LocalProtocolError, ProtocolError

    C, PY = conftest.load("c"), conftest.load("py")

LIMITS = Limits(message=1 << 20)


def outcome(work: Callable[[], Any]) -> Any:
    """What a twin makes of its input, in a form that can be compared with the other twin's."""
    try:
        return work()
    except DecodeError as error:
        return type(error).__name__, str(error), error.offset, error.path
    except LocalProtocolError as error:
        return "LocalProtocolError", str(error)


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


TARGETS: list[Callable[[bytes, str], None]] = [
    *(lambda data, order, target=target: same(target, data, order) for target in (decode_type, decode_any)),
    *(
        lambda data, order, target=target: same(target, data, order)
        for target in (decode_update, decode_bitset)
    ),
    lambda data, order: same(frames, data, order),
    message,
    client,
    server,
    observer,
    capture,
    stored,
]
TYPE, ANY, UPDATE, BITSET, STREAM, MESSAGE, CLIENT, SERVER, OBSERVER, CAPTURE, ARCHIVE = range(11)


def one_input(data: bytes) -> None:
    """What libFuzzer calls."""
    if data:
        TARGETS[(data[0] & 0x7F) % len(TARGETS)](data[1:], "big" if data[0] & 0x80 else "little")


def seeds() -> Iterator[bytes]:
    """Inputs to start from."""

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


def main() -> None:
    """Write the seeds and let libFuzzer work."""
    with tempfile.TemporaryDirectory() as corpus:
        for i, data in enumerate(seeds()):
            Path(corpus, f"{i:05}").write_bytes(data)
        # New inputs go to the first directory: the user's, where one is given.
        named = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
        options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
        atheris.Setup([sys.argv[0], "-max_len=16384", *options, *named, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

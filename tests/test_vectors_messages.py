"""The shared vectors of whole messages, payloads, statuses and addresses (PVAFAST_VECTORS names their directory)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pvafast import Codec, DecodeError, Value, messages
from pvafast._backend import buffer, framing
from pvafast.messages import Command, Operation, Status
from pvafast.messages.fields import In, Out, read_status, write_status
from vectorforms import partial, plain, spec_of, type_of, whole

DIRECTORY = os.environ.get("PVAFAST_VECTORS")
pytestmark = pytest.mark.skipif(not DIRECTORY, reason="PVAFAST_VECTORS is not set")


def load(name: str) -> list[Any]:
    """The vectors of one file as parameters."""
    if not DIRECTORY:
        return []
    vectors = json.loads((Path(DIRECTORY) / name).read_text())
    return [pytest.param(vector, id=vector["id"]) for vector in vectors]


def status_form(status: Status) -> dict[str, str]:
    if status == Status.OK:
        return {"type": "OK"}
    return {"type": status.type.name, "message": status.message, "stack": status.stack}


# Attribute of a message -> key of the vectors, and how its value looks there.
KEYS = {
    "sid": ("sid", int),
    "cid": ("cid", int),
    "ioid": ("ioid", int),
    "sequence": ("seq", int),
    "flags": ("flags", int),
    "port": ("port", int),
    "protocols": ("protos", list),
    "protocol": ("proto", str),
    "channels": ("channels", lambda x: [list(channel) for channel in x]),
    "cids": ("cids", list),
    "found": ("found", int),
    "guid": ("guid", bytes.hex),
    "change_count": ("change", int),
    "server_status": ("serverStatus", whole),
    "buffer_size": ("bufsize", int),
    "registry_size": ("regsize", int),
    "methods": ("auth", list),
    "method": ("auth", str),
    "qos": ("qos", int),
    "data": ("authData", whole),
    "status": ("status", status_form),
    "type": ("fieldDesc", spec_of),
    "request": ("pvRequest", whole),
    "nfree": ("nfree", lambda x: x),
    "severity": ("mtype", int),
    "text": ("text", str),
    "payload": ("data", bytes.hex),
    "offset": ("offset", int),
    "count": ("count", int),
    "stride": ("stride", int),
    "length": ("length", int),
    "field": ("field", str),
}


def form(message: messages.PvaMessage) -> dict[str, Any]:
    """A decoded message as the vectors write it."""
    if isinstance(message, messages.Control):
        return {"control": message.command, "value": message.value}
    shown = {
        key: make(getattr(message, name)) for name, (key, make) in KEYS.items() if hasattr(message, name)
    }
    shown["cmd"] = Command(message.command).name
    if hasattr(message, "address"):
        shown["addr"] = message.address or ("::" if message.zeros else "0.0.0.0")
    if hasattr(message, "sub"):
        shown["sub"] = message.sub
    failed = hasattr(message, "status") and not message.status.ok
    if failed:
        shown.pop("fieldDesc", None)
        shown.pop("length", None)
    if shown.get("nfree", 0) is None:
        del shown["nfree"]
    if hasattr(message, "value") and not failed and message.value is not None:
        if isinstance(message, messages.Rpc):
            shown["arg"] = whole(message.value)
        elif isinstance(message, messages.RpcReply):
            shown["result"] = whole(message.value)
        elif isinstance(message.value, Value):
            shown["data"] = partial(message.value)
            if hasattr(message, "overrun"):
                shown["data"]["overrun"] = list(message.overrun)
        else:
            shown["data"] = plain(message.value.value)
    return shown


def context(vector: dict[str, Any]) -> tuple[Codec, Any]:
    """Codec and operations as they are when the bytes come."""
    given = vector.get("context", {})
    byteorder = "big" if vector["big_endian"] else "little"
    codec = Codec()
    for number, spec in given.get("registry", {}).items():
        codec.decode_type(
            b"\xfd" + int(number).to_bytes(2, byteorder) + type_of(spec).to_bytes(byteorder),
            byteorder=byteorder,
        )
    operation = Operation(0, 0)
    if "op_type" in given:
        operation.type = type_of(given["op_type"])
    if "put_type" in given:
        operation.put_type = type_of(given["put_type"])
    return codec, lambda ioid: operation


def check(vector: dict[str, Any], message: framing.Message) -> messages.PvaMessage:
    codec, operations = context(vector)
    decoded = messages.decode(message, codec=codec, operations=operations)
    wanted = dict(vector["value"])
    wanted.pop("version", None)
    wanted.pop("hflags", None)
    shown = form(decoded)
    if "cmd" not in wanted and "control" not in wanted:
        del shown["cmd"]
    assert shown == wanted
    assert (decoded.trailing, decoded.raw) == (b"", b"")
    return decoded


def check_again(decoded: messages.PvaMessage, message: framing.Message, vector: dict[str, Any]) -> None:
    """Encoding gives the same bytes; where types were numbered, a message that decodes to the same."""
    raw = bytes.fromhex(vector["bytes_hex"])
    encoded = messages.encode(
        decoded,
        codec=Codec(),
        byteorder=message.byteorder,
        version=message.version,
        from_server=message.from_server,
    )
    joined = b"".join(encoded)
    # Only these hold types; the ids that pvAccessCPP gave them depend on what it sent before.
    numbered = b"\xfd" in raw or "registry" in vector.get("context", {})
    typed = any(hasattr(decoded, name) for name in ("type", "request", "data"))
    if numbered and typed:
        framer = framing.Framer()
        framer.receive_data(joined)
        for again in framer.messages():
            assert messages.decode(again, codec=Codec()) == decoded
    else:
        assert raw == (joined if vector["kind"] == "message" else joined[8:])


@pytest.mark.parametrize("vector", load("message.json"))
def test_messages(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["bytes_hex"])
    framer = framing.Framer()
    framer.receive_data(raw)
    (message,) = framer.messages()
    if "error" in vector["value"]:
        codec, operations = context(vector)
        with pytest.raises(DecodeError):
            messages.decode(message, codec=codec, operations=operations)
        return
    assert message.version == vector["value"]["version"]
    assert message.flags == vector["value"]["hflags"]
    decoded = check(vector, message)
    check_again(decoded, message, vector)


@pytest.mark.parametrize("vector", load("payload.json"))
def test_payloads(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["bytes_hex"])
    given = vector["context"]
    flags = (0x40 if given["server"] else 0) | (0x80 if vector["big_endian"] else 0)
    message = framing.Message(2, flags, Command[given["cmd"]], raw)
    decoded = check(vector, message)
    check_again(decoded, message, vector)


def read_statuses(vector: dict[str, Any], n: int) -> tuple[list[Status], buffer.Reader]:
    byteorder = "big" if vector["big_endian"] else "little"
    r = buffer.Reader(bytes.fromhex(vector["bytes_hex"]), 0, None, byteorder)
    c = In(r, Codec(), lambda ioid: None, False)
    return [read_status(c) for _ in range(n)], r


@pytest.mark.parametrize("vector", load("status.json") + load("statuses.json"))
def test_statuses(vector: dict[str, Any]) -> None:
    wanted = vector["value"] if isinstance(vector["value"], list) else [vector["value"]]
    statuses, r = read_statuses(vector, len(wanted))
    assert [status_form(status) for status in statuses] == wanted
    assert r.left == 0
    w = buffer.Writer(r.byteorder)
    for status in statuses:
        write_status(Out(w, Codec(), None), status)
    assert w.take().hex() == vector["bytes_hex"]


@pytest.mark.parametrize("vector", load("addr.json"))
def test_addresses(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["bytes_hex"])
    flags = 0x80 if vector["big_endian"] else 0
    message = framing.Message(2, flags, Command.ORIGIN_TAG, raw)
    decoded = messages.decode(message, codec=Codec())
    assert decoded == messages.OriginTag(address=vector["value"])
    assert b"".join(messages.encode(decoded, codec=Codec(), from_server=False))[8:] == raw

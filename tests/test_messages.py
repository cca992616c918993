"""Messages: hand-built vectors (tests/vectors/messages.json) both ways, and what happens to bytes that are wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pickle
import random
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pvafast import (
    AnyValue,
    BitSet,
    Codec,
    DecodeError,
    EncodeError,
    FieldDesc,
    LimitExceeded,
    Limits,
    LocalProtocolError,
    RangeError,
    RemoteError,
    Value,
    messages,
)
from pvafast._backend import framing
from pvafast.messages import Command, Operation, Status, StatusType
from vectorforms import partial, plain, spec_of, type_of, whole

VECTORS = Path(__file__).parent / "vectors"
CASES = json.loads((VECTORS / "messages.json").read_text())
every_case = pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES])
SCALAR = FieldDesc.structure("scalar", {"value": "double", "alarm": {"severity": "int32"}})
WHOLE = ("request", "data", "server_status")  # Any* fields


def form(name: str, x: Any, cls: type) -> Any:
    """A field of a message as JSON."""
    if name in WHOLE or (name == "value" and cls in (messages.Rpc, messages.RpcReply)):
        return whole(x)
    if isinstance(x, Status):
        return {"type": x.type.name, "message": x.message, "stack": x.stack}
    if isinstance(x, FieldDesc):
        return spec_of(x)
    if isinstance(x, Value):
        return partial(x)
    if isinstance(x, BitSet):
        return list(x)
    if isinstance(x, bytes):
        return x.hex()
    if isinstance(x, IntEnum):
        return int(x)
    if name == "replies":
        return [{"class": type(reply).__name__, **listed(reply)} for reply in x]
    if isinstance(x, tuple | list):
        return [form("", item, cls) for item in x]
    return plain(x)


def listed(message: messages.PvaMessage) -> dict[str, Any]:
    """The fields of a message that differ from their defaults, as JSON."""
    shown = {}
    for field in dataclasses.fields(message):
        x = getattr(message, field.name)
        default = field.default
        if default is dataclasses.MISSING or type(x) is not type(default) or x != default:
            shown[field.name] = form(field.name, x, type(message))
    return shown


def body(spec: dict[str, Any]) -> Any:
    """An Any* from JSON."""
    if spec["type"] is None:
        return None
    type = type_of(spec["type"])
    if type.is_structure:
        return Value(type, spec["value"])
    return AnyValue(type, spec["value"])


def update(spec: dict[str, Any], type: FieldDesc) -> Value:
    """A Value from JSON, with exactly the bits marked that are listed."""
    v = Value(type)
    for name, x in spec["fields"].items():
        v[name] = x
    v.unmark()
    for bit in spec["changed"]:
        v.mark(type.names[bit])
    return v


def build(name: str, fields: dict[str, Any], case: dict[str, Any]) -> messages.PvaMessage:
    """A message made by its constructor from the fields of a case."""
    cls = getattr(messages, name)
    given: dict[str, Any] = {}
    for key, x in fields.items():
        if key in WHOLE or (isinstance(x, dict) and set(x) == {"type", "value"}):
            given[key] = body(x)
        elif key == "status":
            given[key] = Status(StatusType[x["type"]], x["message"], x["stack"])
        elif key in ("type", "put_type", "get_type"):
            given[key] = type_of(x)
        elif key == "value" and isinstance(x, dict):
            put = name in ("PutGet", "PutGetGetPutReply")
            given[key] = update(x, type_of(case["put_type" if put else "type"]))
        elif key == "overrun":
            given[key] = BitSet(x)
        elif key in ("guid", "payload"):
            given[key] = bytes.fromhex(x)
        elif key == "channels":
            given[key] = tuple((cid, text) for cid, text in x)
        elif key == "severity":
            given[key] = messages.Severity(x)
        elif key == "replies":
            given[key] = tuple(
                build(one["class"], {k: y for k, y in one.items() if k != "class"}, case) for one in x
            )
        else:
            given[key] = tuple(x) if isinstance(x, list) and key != "value" else x
    return cls(**given)


def framed(case: dict[str, Any]) -> framing.Message:
    framer = framing.Framer()
    framer.receive_data(bytes.fromhex(case["bytes_hex"]))
    (message,) = framer.messages()
    return message


def with_payload(message: framing.Message, payload: bytes) -> framing.Message:
    """The same header over other bytes, which do not begin at offset 0."""
    return framing.Message(2, message.flags, message.command, b"...." + payload + b"..", 4, 4 + len(payload))


def operations(case: dict[str, Any]) -> dict[int, Operation]:
    operation = Operation(case.get("operation", 0), 258, sid=3)
    if "type" in case:
        operation.type = type_of(case["type"])
    if "put_type" in case:
        operation.put_type = type_of(case["put_type"])
    return {258: operation}


def decode(case: dict[str, Any], message: framing.Message) -> messages.PvaMessage:
    return messages.decode(message, codec=Codec(), operations=operations(case))


def encode(message: messages.PvaMessage, **options: Any) -> bytes:
    return b"".join(messages.encode(message, codec=Codec(), **options))


def reply(command: int, payload: bytes, flags: int = 0x40) -> framing.Message:
    return framing.Message(2, flags, command, payload)


def test_the_vectors_are_those_of_the_script() -> None:
    spec = importlib.util.spec_from_file_location("make_messages", VECTORS / "make_messages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.make() == (VECTORS / "messages.json").read_text()


def test_every_class_has_a_vector_in_both_byte_orders() -> None:
    abstract = {
        "Control",
        "PvaMessage",
        *("Request", "SubRequest", "InitRequest"),
        *("Reply", "SubReply", "StatusReply", "ValueReply", "InitReply", "TypedInitReply"),
    }
    classes = {
        name
        for name in messages.__all__
        if isinstance(getattr(messages, name), type)
        and issubclass(getattr(messages, name), messages.PvaMessage)
    }
    assert {(case["class"], case["byteorder"]) for case in CASES} == {
        (name, byteorder) for name in classes - abstract for byteorder in ("little", "big")
    }


@every_case
def test_decode(case: dict[str, Any]) -> None:
    decoded = decode(case, framed(case))
    assert type(decoded).__name__ == case["class"]
    # What the case lists, and nothing else.
    fields = {field.name: getattr(decoded, field.name) for field in dataclasses.fields(decoded)}
    wanted = case["fields"]
    assert {name: form(name, fields[name], type(decoded)) for name in wanted} == wanted
    assert set(listed(decoded)) <= set(wanted)
    assert decoded.command == framed(case).command
    assert decoded.from_server in (case["from_server"], None) or decoded.command not in (7, 10, 13)
    assert pickle.loads(pickle.dumps(decoded)) == decoded


@every_case
def test_encode(case: dict[str, Any]) -> None:
    if not case.get("canonical", True):
        decoded = decode(case, framed(case))
        again = encode(decoded, byteorder=case["byteorder"], from_server=case["from_server"])
        assert again.hex() != case["bytes_hex"]
        assert decode(case, framed({**case, "bytes_hex": again.hex()})) == decoded
        return
    built = build(case["class"], case["fields"], case)
    options = {"byteorder": case["byteorder"], "from_server": case["from_server"]}
    assert encode(built, **options).hex() == case["bytes_hex"]
    decoded = decode(case, framed(case))
    assert decoded == built
    assert encode(decoded, **options).hex() == case["bytes_hex"]
    if built.from_server is not None:
        assert encode(built, byteorder=case["byteorder"]).hex() == case["bytes_hex"]


@every_case
def test_every_prefix_is_an_error(case: dict[str, Any]) -> None:
    message = framed(case)
    payload = bytes(message.payload)
    for n in range(len(payload)):
        cut = with_payload(message, payload[:n])
        if n in case.get("ends", ()):
            assert decode(case, cut).trailing == b""
            continue
        with pytest.raises(DecodeError) as caught:
            decode(case, cut)
        assert 0 <= caught.value.offset <= n
        assert caught.value.path.split(".")[0].split("[")[0] in {
            *("sid", "ioid", "sub"),
            *(field.name for field in dataclasses.fields(decode(case, message))),
        }


@every_case
def test_bytes_behind_it_are_trailing(case: dict[str, Any]) -> None:
    message = framed(case)
    if message.is_control or case["class"] in ("Echo", "Unknown"):
        return
    if case["class"] == "MonitorFinal" and "value" not in case["fields"] and "status" not in case["fields"]:
        return  # what follows is the last update
    if case["class"] == "ConnectionValidationResponse" and not case.get("canonical", True):
        return  # what follows is the data
    decoded = decode(case, with_payload(message, bytes(message.payload) + b"\x00\x01\x02"))
    assert decoded.trailing == b"\x00\x01\x02"
    assert dataclasses.replace(decoded, trailing=b"") == decode(case, message)
    encoded = encode(decoded, byteorder=case["byteorder"], from_server=case["from_server"])
    if case.get("canonical", True):
        assert encoded.hex() == case["bytes_hex"]


def decoded_or_error(case: dict[str, Any], message: framing.Message) -> messages.PvaMessage | DecodeError:
    try:
        return decode(case, message)
    except DecodeError as error:
        return error


@every_case
def test_mutated_bytes_give_documented_errors(case: dict[str, Any]) -> None:
    message = framed(case)
    chance = random.Random(case["id"])
    for _ in range(60):
        payload = bytearray(message.payload)
        for _ in range(chance.randint(1, 3)):
            if payload:
                payload[chance.randrange(len(payload))] = chance.choice(
                    (0, 1, 0x80, 0xFD, 0xFE, 0xFF, chance.randrange(256))
                )
        mutated = with_payload(message, bytes(payload))
        decoded = decoded_or_error(case, mutated)
        if isinstance(decoded, DecodeError):
            assert 0 <= decoded.offset <= len(payload)
            continue
        if decoded.reason or isinstance(decoded, messages.MultipleData):
            continue
        # What is read can be written, and then reads as the same.
        again = framing.Framer()
        again.receive_data(encode(decoded, byteorder=case["byteorder"], from_server=case["from_server"]))
        (one,) = again.messages()
        same = decode(case, one)
        assert dataclasses.replace(decoded, trailing=b"") == same or "fd" in payload.hex()


@every_case
def test_wrong_direction_and_any_command(case: dict[str, Any]) -> None:
    message = framed(case)
    if message.is_control:
        return
    for command in range(24):
        for flags in (message.flags, message.flags ^ 0x40):
            other = framing.Message(2, flags, command, bytes(message.payload))
            try:
                decode(case, other)
            except DecodeError:
                continue


def test_unknown_commands() -> None:
    for command in (23, 99, 255):
        for flags in (0, 0x40):
            decoded = messages.decode(reply(command, b"abc", flags), codec=Codec())
            assert decoded == messages.Unknown(command=command, payload=b"abc")
    server_only = messages.decode(reply(19, b"\x01\x02", 0), codec=Codec())
    assert server_only == messages.Unknown(command=19, payload=b"\x01\x02")


def test_from_server_overrides_the_direction_bit() -> None:
    payload = bytes.fromhex("0100000002000000ff")
    decoded = messages.decode(reply(7, payload, 0), codec=Codec(), from_server=True)
    assert decoded == messages.CreateChannelReply(cid=1, sid=2)


def error_of(call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises((DecodeError, EncodeError, LocalProtocolError)) as caught:
        call(*args, **options)
    return str(caught.value)


def decode_error(command: int, payload: str, flags: int = 0x40, **options: Any) -> str:
    return error_of(messages.decode, reply(command, bytes.fromhex(payload), flags), codec=Codec(), **options)


def test_texts_of_decode_errors() -> None:
    assert decode_error(7, "0200 01000000 0161 0200", 0) == (
        "2 channels need at least 10 bytes, 8 left at `channels`, offset 2"
    )
    assert decode_error(7, "0200 01000000 0161 02000000 05 61", 0) == (
        "string of 5 bytes needs 5 bytes, 1 left at `channels[1].name`, offset 13"
    )
    assert (
        decode_error(7, "0100 010000", 0)
        == "1 channels need at least 5 bytes, 3 left at `channels`, offset 2"
    )
    assert decode_error(7, "01000000 02000000 02 0361", 0x40) == (
        "string of 3 bytes needs 3 bytes, 1 left at `status.message`, offset 10"
    )
    assert decode_error(7, "01000000 020000") == "uint32 needs 4 bytes, 3 left at `sid`, offset 4"
    assert decode_error(1, "00000000 0000 ff") == ("null Size where a count is needed at `methods`, offset 6")
    assert decode_error(1, "00000000 0000 fe00000080 61") == (
        "2147483648 strings need at least 2147483648 bytes, 1 left at `methods`, offset 11"
    )
    assert decode_error(10, "05000000 08 ff 80 00 01 01 61 77") == (
        "unknown type code 0x77 at `type.a`, offset 11"
    )
    operation = Operation(13, 5, type=SCALAR)
    assert decode_error(13, "05000000 00 01 08 0000", operations={5: operation}) == (
        "int32 needs 4 bytes, 2 left at `value.alarm.severity`, offset 7"
    )
    assert decode_error(13, "05000000 00 02 08", operations={5: operation}) == (
        "BitSet of 2 bytes needs 2 bytes, 1 left at `value.changed`, offset 6"
    )
    assert decode_error(13, "05000000 00 00", operations={5: operation}) == (
        "Size needs 1 bytes, 0 left at `overrun`, offset 6"
    )
    assert decode_error(19, "05000000 00 00 00 05000000 10 02", operations={5: operation}) == (
        "Size needs 1 bytes, 0 left at `replies[1].status.message`, offset 13"
    )


def test_limits_of_lists() -> None:
    payload = bytes.fromhex("00000000 0000 fd") + bytes(253)
    codec = Codec(limits=Limits(elements=252))
    text = error_of(messages.decode, reply(1, payload), codec=codec)
    assert text == "253 strings at `methods`, offset 7 (Limits.elements)"


def test_unknown_operations() -> None:
    update = reply(13, bytes.fromhex("05000000 00 01 02 000000000000f03f 00"))
    unknown = Operation(13, 5)
    for found, reason in (
        ({}, "the operation of this ioid is not known"),
        (None, "the operation of this ioid is not known"),
        (lambda ioid: None, "the operation of this ioid is not known"),
        ({5: unknown}, "the type of this operation is not known"),
    ):
        decoded = messages.decode(update, codec=Codec(), operations=found)
        raw = bytes.fromhex("0102000000000000f03f00")
        assert decoded == messages.MonitorUpdate(ioid=5, value=None, raw=raw, reason=reason)
        assert error_of(encode, decoded) == "11 undecoded bytes cannot be encoded at `raw`"
    # Status and everything before the data is known all the same.
    decoded = messages.decode(reply(11, bytes.fromhex("05000000 50 01 00 00 01 02")), codec=Codec())
    assert decoded == messages.PutGetBackReply(
        ioid=5,
        destroy=True,
        status=Status(StatusType.WARNING),
        raw=b"\x01\x02",
        reason="the operation of this ioid is not known",
    )
    put = messages.decode(reply(11, bytes.fromhex("01000000 05000000 00 01 02"), 0), codec=Codec())
    assert put == messages.Put(
        sid=1, ioid=5, value=None, raw=b"\x01\x02", reason="the operation of this ioid is not known"
    )
    array = messages.decode(reply(14, bytes.fromhex("01000000 05000000 00 00 01 02"), 0), codec=Codec())
    assert isinstance(array, messages.ArrayPut)
    assert (array.offset, array.stride, array.raw) == (0, 1, b"\x02")
    final = messages.decode(reply(13, bytes.fromhex("05000000 10 ff 00 00")), codec=Codec())
    assert isinstance(final, messages.MonitorFinal)
    assert (final.value, final.raw) == (None, b"\x00\x00")
    empty = messages.decode(reply(13, bytes.fromhex("05000000 10 ff")), codec=Codec())
    assert empty == messages.MonitorFinal(ioid=5)


def test_lenient_about_unknown_type_ids() -> None:
    message = reply(10, bytes.fromhex("05000000 08 ff fe0700"))
    assert decode_error(10, "05000000 08 ff fe0700") == "unknown type id 7 at `type`, offset 6"
    codec = Codec()
    decoded = messages.decode(message, codec=codec, lenient=True)
    assert decoded == messages.GetInitReply(ioid=5, raw=b"\xfe\x07\x00", reason="unknown type id 7")
    pipeline = reply(13, bytes.fromhex("01000000 05000000 98 fe0700 04000000"), 0)
    decoded = messages.decode(pipeline, codec=Codec(), lenient=True)
    assert isinstance(decoded, messages.MonitorInit)
    assert (decoded.request, decoded.nfree, decoded.sub, decoded.destroy) == (None, None, 0x98, True)
    # What is merely wrong remains an error.
    with pytest.raises(DecodeError):
        messages.decode(reply(10, bytes.fromhex("05000000 08 ff 77")), codec=Codec(), lenient=True)


def test_a_codec_that_lost_its_ids() -> None:
    codec = Codec()
    with pytest.raises(DecodeError):
        messages.decode(reply(10, bytes.fromhex("05000000 08 ff 77")), codec=codec)
    message = reply(10, bytes.fromhex("05000000 08 ff 43"))
    with pytest.raises(LocalProtocolError):
        messages.decode(message, codec=codec)
    decoded = messages.decode(message, codec=codec, lenient=True)
    assert decoded.raw == b"\x43"
    assert "ids" in decoded.reason


def test_updates_are_laid_over_the_value_before() -> None:
    operation = Operation(13, 5, type=SCALAR)
    first = Value(SCALAR, {"value": 1.5, "alarm": {"severity": 2}})
    operation.value = first
    update = reply(13, bytes.fromhex("05000000 00 01 02 0000000000000040 01 02"))
    decoded = messages.decode(update, codec=Codec(), operations={5: operation})
    assert isinstance(decoded, messages.MonitorUpdate)
    assert decoded.value is not None
    assert decoded.value.to_dict() == {"value": 2.0, "alarm": {"severity": 2}}
    assert list(decoded.value.changed) == [1]
    assert list(decoded.overrun) == [1]
    assert operation.value is first
    assert first["value"] == 1.5
    # A client's PUT is not.
    put = reply(11, bytes.fromhex("01000000 05000000 00 01 02 0000000000000040"), 0)
    decoded = messages.decode(put, codec=Codec(), operations={5: operation})
    assert isinstance(decoded, messages.Put)
    assert decoded.value is not None
    assert decoded.value["alarm.severity"] == 0


def test_put_get_has_two_values() -> None:
    put_type = FieldDesc.structure("", {"a": "int32", "b": "int32"})
    operation = Operation(12, 5, type=SCALAR, put_type=put_type)
    operation.value = Value(SCALAR, {"alarm": {"severity": 2}})
    operation.put_value = Value(put_type, {"b": 7})
    assert operation.get_type is SCALAR
    got = messages.decode(
        reply(12, bytes.fromhex("05000000 80 ff 01 02 03000000")), codec=Codec(), operations={5: operation}
    )
    assert isinstance(got, messages.PutGetGetPutReply)
    assert got.value is not None
    assert got.value.to_dict() == {"a": 3, "b": 7}
    got = messages.decode(
        reply(12, bytes.fromhex("05000000 40 ff 00")), codec=Codec(), operations={5: operation}
    )
    assert isinstance(got, messages.PutGetGetGetReply)
    assert got.value is not None
    assert got.value["alarm.severity"] == 2
    operation.type = SCALAR
    operation.put_type = put_type
    assert (operation.value, operation.put_value) == (None, None)


def test_operation_repr() -> None:
    assert repr(Operation(13, 5, sid=2, pv="a:b")) == "<Operation MONITOR 'a:b' ioid=5 sid=2>"
    assert repr(Operation(99, 5)) == "<Operation 99 ioid=5 sid=0>"


def test_status() -> None:
    assert Status.OK.ok
    assert Status() == Status.OK
    assert Status(StatusType.WARNING, "hm").ok
    Status(StatusType.WARNING, "hm").raise_for_status()
    failed = Status(StatusType.FATAL, "no", "at line 1")
    assert not failed.ok
    with pytest.raises(RemoteError, match="FATAL: no") as caught:
        failed.raise_for_status()
    assert (caught.value.severity, caught.value.message, caught.value.stack) == ("FATAL", "no", "at line 1")
    assert repr(Status.OK) == "Status(OK)"
    assert repr(failed) == "Status(FATAL, 'no', stack='at line 1')"
    for type, name in ((0, "OK"), (3, "FATAL"), (4, "FATAL"), (0xFE, "FATAL")):
        decoded = messages.decode(reply(9, bytes((type, 1, 0x61, 0))), codec=Codec())
        assert decoded == messages.ConnectionValidated(status=Status(StatusType[name], "a"))
    silent = messages.decode(reply(9, bytes(3)), codec=Codec())
    assert encode(silent)[8:] == b"\xff"


def test_repr_shows_what_is_not_the_default() -> None:
    assert repr(messages.Get(sid=1, ioid=2)) == "Get(sid=1, ioid=2)"
    assert repr(messages.Get(sid=1, ioid=2, destroy=True, trailing=b"\x01")) == (
        "Get(sid=1, ioid=2, destroy=True, trailing=b'\\x01')"
    )
    assert repr(messages.Unknown(command=99, payload=bytes(100))) == (
        f"Unknown(command=99, payload=<100 bytes {'00' * 24}...>)"
    )
    assert repr(messages.PutReply(ioid=1, status=Status(StatusType.ERROR, "no"))) == (
        "PutReply(ioid=1, status=Status(ERROR, 'no'))"
    )


def test_messages_are_frozen_slotted_and_keyword_only() -> None:
    get = messages.Get(sid=1, ioid=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        get.sid = 3  # type: ignore[misc]
    assert not hasattr(get, "__dict__")
    with pytest.raises(TypeError):
        messages.Get(1, 2)  # type: ignore[misc]
    assert hash(get) == hash(messages.Get(sid=1, ioid=2))


def test_texts_of_encode_errors() -> None:
    m = messages
    assert error_of(encode, m.Get(sid=-1, ioid=1)) == "uint32 cannot hold -1 at `sid`"
    assert error_of(encode, m.Get(sid="a", ioid=1)) == "uint32 expected, str found at `sid`"
    assert error_of(encode, m.Beacon(guid=b"short")) == "12 bytes expected, 5 found at `guid`"
    assert error_of(encode, m.Beacon(guid="short")) == "bytes expected, str found at `guid`"
    assert error_of(encode, m.Beacon(guid=bytes(12), address="here")) == "no IP address: 'here' at `address`"
    assert error_of(encode, m.CreateChannel(channels=((1, "a"), (2, "\ud800")))) == (
        "lone surrogate in string at index 0 at `channels[1].name`"
    )
    assert error_of(encode, m.CreateChannel(channels=((1 << 32, "a"),))) == (
        "uint32 cannot hold 4294967296 at `channels[0].cid`"
    )
    assert error_of(encode, m.CreateChannel(channels="ab")) == (
        "tuple of (cid, name) expected, str found at `channels`"
    )
    assert error_of(encode, m.CreateChannel(channels=("ab", "c"))) == (
        "(cid, name) expected, 'ab' found at `channels[0]`"
    )
    assert error_of(encode, m.CreateChannel(channels=((1, "a"),) * 65536)) == (
        "uint16 cannot hold 65536 at `channels`"
    )
    assert error_of(encode, m.Search(sequence=1, protocols="tcp")) == (
        "tuple of strings expected, str found at `protocols`"
    )
    assert error_of(encode, m.GetReply(ioid=1)) == "Value expected, NoneType found at `value`"
    assert error_of(encode, m.MonitorUpdate(ioid=1, value=Value(SCALAR), overrun={1})) == (
        "BitSet expected, set found at `overrun`"
    )
    assert (
        error_of(encode, m.MonitorFinal(ioid=1, overrun=BitSet([1])))
        == "overrun bits without a value at `overrun`"
    )
    assert error_of(encode, m.GetInit(sid=1, ioid=1, request={})) == (
        "Value, AnyValue or None expected, dict found at `request`"
    )
    assert (
        error_of(encode, m.GetInitReply(ioid=1, type="double")) == "FieldDesc expected, str found at `type`"
    )
    assert error_of(encode, m.GetReply(ioid=1, status="OK")) == "Status expected, str found at `status`"
    assert error_of(encode, m.ConnectionValidated(status=Status(StatusType.ERROR, "a", "\ud800"))) == (
        "lone surrogate in string at index 0 at `status.stack`"
    )
    assert (
        error_of(encode, m.ArrayGet(sid=1, ioid=1, count=None)) == "int expected, NoneType found at `count`"
    )
    assert error_of(encode, m.ArrayGet(sid=1, ioid=1, count=-1)) == "Size cannot hold -1 at `count`"
    assert (
        error_of(encode, m.ArrayPut(sid=1, ioid=1, value=[1])) == "AnyValue expected, list found at `value`"
    )
    assert error_of(encode, m.MultipleData(replies=(m.PutReply(ioid=0),))) == (
        "0 would end the list at `replies[0].ioid`"
    )
    assert error_of(encode, m.MultipleData(replies=(m.PutReply(ioid=1, status=None),))) == (
        "Status expected, NoneType found at `replies[0].status`"
    )
    with pytest.raises(RangeError, match="uint32 cannot hold -1 at `value`"):
        encode(m.Mark(value=-1), from_server=True)
    with pytest.raises(RangeError, match="uint8 cannot hold 256 at `command`"):
        encode(m.Unknown(command=256), from_server=True)


def test_bits_must_not_make_another_message() -> None:
    assert error_of(encode, messages.Put(sid=1, ioid=1, value=Value(SCALAR), bits=0x40)) == (
        "the sub byte 0x40 is not that of Put at `bits`"
    )
    assert error_of(encode, messages.MonitorInit(sid=1, ioid=1, request=None, bits=0x80)) == (
        "bit 80 goes with nfree at `nfree`"
    )
    assert encode(messages.Get(sid=1, ioid=1, bits=0x40))[16] == 0x40


def test_directions() -> None:
    assert error_of(encode, messages.Echo()) == "Echo goes both ways: from_server must say which"
    assert error_of(encode, messages.Get(sid=1, ioid=1), from_server=True) == "Get is not sent by the server"
    assert error_of(encode, messages.GetReply(ioid=1), from_server=False) == (
        "GetReply is not sent by the client"
    )
    assert error_of(encode, messages.CreateChannel(channels=()), from_server=True) == (
        "CreateChannel is not sent by the server"
    )
    assert error_of(encode, messages.MultipleData(), from_server=False) == (
        "MultipleData is not sent by the client"
    )
    # A beacon with the wrong bit can be told, and made.
    raw = encode(messages.Beacon(guid=bytes(12)), from_server=False)
    assert raw[2] == 0
    assert messages.decode(reply(0, raw[8:], 0), codec=Codec()) == messages.Beacon(guid=bytes(12))


def test_version_and_segments() -> None:
    echo = messages.Echo(payload=bytes(range(10)))
    assert encode(echo, from_server=False, version=1)[:4] == b"\xca\x01\x00\x02"
    raw = encode(echo, from_server=True, segment_size=4)
    assert raw.hex() == (
        "ca025002 04000000 00010203 ca027002 04000000 04050607 ca026002 02000000 0809".replace(" ", "")
    )
    framer = framing.Framer()
    framer.receive_data(raw)
    (message,) = framer.messages()
    assert messages.decode(message, codec=Codec()) == echo


def test_large_arrays_are_not_copied() -> None:
    type = FieldDesc.structure("", {"value": "double[]"})
    pixels = np.arange(20_000, dtype=float)
    update = messages.MonitorUpdate(ioid=1, value=Value(type, {"value": pixels}))
    buffers = messages.encode(update, codec=Codec())
    assert len(buffers) == 3
    assert np.shares_memory(np.frombuffer(buffers[1]), pixels)
    raw = b"".join(buffers)
    framer = framing.Framer()
    framer.receive_data(raw)
    (message,) = framer.messages()
    decoded = messages.decode(message, codec=Codec(), operations={1: Operation(13, 1, type=type)})
    assert isinstance(decoded, messages.MonitorUpdate)
    assert decoded.value is not None
    assert np.shares_memory(decoded.value["value"], np.frombuffer(raw, "u1"))
    aligned = messages.decode(
        message, codec=Codec(), operations={1: Operation(13, 1, type=type)}, aligned=True
    )
    assert isinstance(aligned, messages.MonitorUpdate)
    assert aligned.value is not None
    assert aligned.value["value"].flags.aligned


def test_arrays_of_array_messages() -> None:
    fixed = AnyValue("int16[2]", [1, 2])
    raw = encode(messages.ArrayPut(sid=1, ioid=2, value=fixed))
    assert raw[8:].hex() == "01000000 02000000 00 00 01 0100 0200".replace(" ", "")
    operation = Operation(14, 2, type=fixed.type)
    decoded = messages.decode(reply(14, raw[8:], 0), codec=Codec(), operations={2: operation})
    assert decoded == messages.ArrayPut(sid=1, ioid=2, value=fixed)
    large = np.arange(10_000)
    buffers = messages.encode(messages.ArrayGetReply(ioid=2, value=AnyValue("int64[]", large)), codec=Codec())
    assert np.shares_memory(np.frombuffer(buffers[1]), large)


def test_multiple_data() -> None:
    scalar = Operation(Command.MONITOR, 5, type=SCALAR)
    field = Operation(Command.GET_FIELD, 6)
    found = {5: scalar, 6: field}
    sent = messages.MultipleData(
        replies=(
            messages.MonitorInitReply(ioid=5, type=SCALAR),
            messages.MonitorUpdate(ioid=5, value=Value(SCALAR, {"value": 1.5})),
            messages.GetFieldReply(ioid=6, type=FieldDesc.of("double")),
        )
    )
    raw = encode(sent)[8:]
    assert messages.decode(reply(19, raw), codec=Codec(), operations=found) == sent
    # The body of an unknown operation cannot be told from what follows.
    late = messages.decode(reply(19, raw), codec=Codec(), operations={5: scalar})
    assert late == messages.MultipleData(
        replies=sent.replies[:2],
        raw=bytes.fromhex("06000000 ff 43 00000000"),
        reason="the operation of this ioid is not known",
    )
    # A type is known as soon as a reply before told it.
    assert messages.decode(reply(19, raw), codec=Codec(), operations={5: Operation(13, 5)}) == late
    update = encode(messages.MultipleData(replies=sent.replies[1:]))[8:]
    untyped = messages.decode(reply(19, update), codec=Codec(), operations={5: Operation(13, 5)})
    assert isinstance(untyped, messages.MultipleData)
    assert len(untyped.replies) == 1
    assert untyped.replies[0].raw == update[5:]
    assert untyped.reason == "the type of this operation is not known"
    odd = messages.decode(reply(19, raw), codec=Codec(), operations={5: Operation(99, 5)})
    assert isinstance(odd, messages.MultipleData)
    assert odd.raw == raw


def test_multiple_data_lays_updates_over_each_other() -> None:
    before = Operation(Command.MONITOR, 5)
    raw = encode(
        messages.MultipleData(
            replies=(
                messages.MonitorInitReply(ioid=5, type=SCALAR),
                messages.MonitorUpdate(ioid=5, value=Value(SCALAR, {"value": 1.5})),
                messages.MonitorUpdate(ioid=5, value=Value(SCALAR, {"alarm": {"severity": 2}})),
            )
        )
    )
    decoded = messages.decode(reply(19, raw[8:]), codec=Codec(), operations={5: before})
    assert isinstance(decoded, messages.MultipleData)
    last = decoded.replies[2]
    assert isinstance(last, messages.MonitorUpdate)
    assert last.value is not None
    assert last.value.to_dict() == {"value": 1.5, "alarm": {"severity": 2}}
    assert (before.type, before.value) == (None, None)


def test_learn() -> None:
    put_type = FieldDesc.structure("", {"a": "int32"})
    operation = Operation(Command.PUT_GET, 5)
    failed = Status(StatusType.ERROR, "no")
    messages.learn(operation, messages.PutGetInitReply(ioid=5, status=failed))
    assert operation.type is None
    messages.learn(operation, messages.PutGetInitReply(ioid=5, put_type=put_type, get_type=SCALAR))
    assert (operation.put_type, operation.type) == (put_type, SCALAR)
    got, put = Value(SCALAR), Value(put_type)
    messages.learn(operation, messages.PutGetReply(ioid=5, value=got))
    messages.learn(operation, messages.PutGetGetPutReply(ioid=5, value=put))
    messages.learn(operation, messages.PutGetReply(ioid=5, status=failed))
    messages.learn(operation, messages.RpcReply(ioid=5, value=Value("double")))
    assert operation.value is got
    assert operation.put_value is put
    for last in (messages.MonitorUpdate(ioid=5, value=Value(SCALAR)), messages.MonitorFinal(ioid=5)):
        messages.learn(operation, last)
        assert operation.value is not got
    messages.learn(operation, messages.GetInitReply(ioid=5, status=failed))
    assert operation.type is SCALAR
    messages.learn(operation, messages.GetInitReply(ioid=5, type=put_type))
    assert (operation.type, operation.value) == (put_type, None)


def test_lenient_updates() -> None:
    any_type = FieldDesc.structure("", {"value": "any"})
    found = {5: Operation(13, 5, type=any_type)}
    update = reply(13, bytes.fromhex("05000000 00 01 02 fe0900 00"))
    assert error_of(messages.decode, update, codec=Codec(), operations=found) == (
        "unknown type id 9 at `value.value`, offset 7"
    )
    decoded = messages.decode(update, codec=Codec(), operations=found, lenient=True)
    raw = bytes.fromhex("0102fe090000")
    assert decoded == messages.MonitorUpdate(ioid=5, value=None, raw=raw, reason="unknown type id 9")
    known = reply(13, bytes.fromhex("05000000 00 01 02 43 0000000000000040 00"))
    decoded = messages.decode(known, codec=Codec(), operations=found, lenient=True)
    assert isinstance(decoded, messages.MonitorUpdate)
    assert decoded.value is not None
    assert decoded.value["value"] == AnyValue("double", 2.0)


def test_multiple_data_is_bounded_by_its_weight() -> None:
    wide = FieldDesc.structure("", {f"f{i}": "double" for i in range(10_000)})
    payload = bytes.fromhex("05000000 00 00 00") * 10_000 + bytes(4)
    with pytest.raises(LimitExceeded) as caught:
        messages.decode(reply(19, payload), codec=Codec(), operations={5: Operation(13, 5, type=wide)})
    assert caught.value.limit == "expansion"
    assert caught.value.path.startswith("replies[")


def test_an_init_reply_of_the_null_type() -> None:
    decoded = messages.decode(reply(10, bytes.fromhex("05000000 08 ff ff")), codec=Codec())
    assert decoded == messages.GetInitReply(ioid=5)
    assert encode(decoded)[8:] == bytes.fromhex("05000000 08 ff ff")


def test_type_ids() -> None:
    sender = Codec(ids="pvaccess")
    receiver = Codec()
    first = messages.GetInitReply(ioid=5, type=SCALAR)
    second = messages.GetFieldReply(ioid=6, type=SCALAR)
    sizes = []
    for sent in (first, second):
        raw = b"".join(messages.encode(sent, codec=sender))
        sizes.append(len(raw))
        assert messages.decode(reply(sent.command, raw[8:]), codec=receiver) == sent
    assert sizes[1] == 8 + 4 + 1 + 3


@pytest.mark.parametrize("ids", ["pvaccess", "none"])
def test_a_message_that_fails_leaves_no_ids(ids: str) -> None:
    """What the peer never sees defined must not be referred to: a type, or the whole message, was encoded before the fault."""
    sender, receiver = Codec(ids=ids), Codec()
    told = messages.GetInitReply(ioid=5, type=SCALAR)
    good = messages.PutGetInitReply(
        ioid=6, put_type=SCALAR, get_type=FieldDesc.structure("other", {"x": "int8"})
    )
    for bad in (
        messages.PutGetInitReply(ioid=6, put_type=SCALAR, get_type="double"),  # type: ignore[arg-type]
        messages.MultipleData(replies=(told, messages.GetReply(ioid=7, value=5))),  # type: ignore[arg-type]
    ):
        with pytest.raises(EncodeError):
            messages.encode(bad, codec=sender)
        assert sender.numbered == 0
    with pytest.raises(ValueError, match="segment_size"):
        messages.encode(told, codec=sender, segment_size=0)
    assert sender.numbered == 0
    for sent in (told, good, told):
        raw = b"".join(messages.encode(sent, codec=sender))
        assert messages.decode(reply(sent.command, raw[8:]), codec=receiver) == sent
    # Each structure, by pvAccessCPP also each member that is one.
    assert (sender.numbered == 0) == (ids == "none")


def test_datagrams_with_a_fresh_codec() -> None:
    beacon = encode(messages.Beacon(guid=bytes(12), server_status=AnyValue("double", 1.5)))
    decoded = messages.decode(reply(0, beacon[8:]), codec=Codec())
    assert isinstance(decoded, messages.Beacon)
    assert decoded.server_status == AnyValue("double", 1.5)
    search = messages.Search(sequence=1, flags=messages.REPLY_REQUIRED | messages.UNICAST)
    assert (search.reply_required, search.unicast) == (True, True)

"""The shared vectors of sizes, strings, BitSets, types and values (PVAFAST_VECTORS names their directory)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pvafast import AnyValue, BitSet, Codec, DecodeError, FieldDesc, UnionValue, Value
from pvafast._backend import buffer
from vectorforms import partial, plain, spec_of, type_of

DIRECTORY = os.environ.get("PVAFAST_VECTORS")
pytestmark = pytest.mark.skipif(not DIRECTORY, reason="PVAFAST_VECTORS is not set")


def load(*names: str) -> list[Any]:
    """The vectors of some kinds as parameters."""
    if not DIRECTORY:
        return []
    found = [
        vector for name in names for vector in json.loads((Path(DIRECTORY) / f"{name}.json").read_text())
    ]
    return [pytest.param(vector, id=f"{vector['kind']}-{vector['id']}") for vector in found]


def order_of(vector: Any) -> str:
    return "big" if vector["big_endian"] else "little"


def raw_of(vector: Any) -> bytes:
    return bytes.fromhex(vector["bytes_hex"])


def read(vector: Any, data: bytes) -> tuple[Any, int]:
    """What one vector's bytes decode to, in the form of its `value`, and where it ends."""
    kind, order = vector["kind"], order_of(vector)
    codec = Codec()
    registry = (vector.get("context") or {}).get("registry", {})
    for number, spec in registry.items():
        # Known from earlier on: defined in front of the bytes under test.
        definition = b"\xfd" + int(number).to_bytes(2, "little" if order == "little" else "big")
        codec.decode_type(definition + type_of(spec).to_bytes(order), byteorder=order)
    if kind in ("size", "string", "seq"):
        r = buffer.Reader(data, byteorder=order)
        if kind == "size":
            return r.nullable_size(), r.pos
        if kind == "string":
            return r.string(), r.pos
        readers = {
            "int32": r.i32,
            "uint32": r.u32,
            "uint16": r.u16,
            "uint64": r.u64,
            "int64": r.i64,
            "string": r.string,
        }
        return [readers[name]() for name in vector["type"]], r.pos
    if kind == "bitset":
        bits, end = BitSet.decode(data, byteorder=order)
        return list(bits), end
    if kind == "fielddesc":
        found, end = codec.decode_type(data, byteorder=order)
        return spec_of(found), end
    if kind == "typevalue":
        found, at = codec.decode_type(data, byteorder=order)
        if found is None:
            return {"type": None, "value": None}, at
        value, end = codec.decode(found, data, at, byteorder=order)
        return {"type": spec_of(found), "value": plain(value)}, end
    type = type_of(vector["type"])
    if kind == "value":
        value, end = codec.decode(type, data, byteorder=order)
        return plain(value), end
    value, end = codec.decode_update(type, data, byteorder=order)
    found = partial(value)
    if kind == "update":
        overrun, end = BitSet.decode(data, end, byteorder=order)
        found["overrun"] = list(overrun)
    return found, end


KINDS = ("size", "string", "seq", "bitset", "fielddesc", "typevalue", "value", "partial", "update")


@pytest.mark.parametrize("vector", load(*KINDS))
def test_decodes(vector: Any) -> None:
    raw = raw_of(vector)
    wanted = vector["value"]
    if vector.get("optional"):
        pytest.skip("no C++ peer does it")
    if isinstance(wanted, dict) and "error" in wanted:
        with pytest.raises(DecodeError):
            read(vector, raw)
        return
    found, end = read(vector, raw)
    assert found == wanted
    assert end == len(raw)
    assert read(vector, raw + b"\xff\x00\x55") == (wanted, len(raw))


@pytest.mark.parametrize("vector", load(*KINDS))
def test_every_prefix_asks_for_more(vector: Any) -> None:
    raw = raw_of(vector)
    if vector.get("optional"):
        pytest.skip("no C++ peer does it")
    for n in range(len(raw)):
        with pytest.raises(DecodeError):
            read(vector, raw[:n])


def built(type: FieldDesc, x: Any) -> Any:
    """A value of the vectors' form as what the codec encodes."""
    if type.code == 0x80:
        return Value(type, {(name,): built(member, x[name]) for name, member in type.members.items()})
    if type.code == 0x81:
        return None if x is None else UnionValue(x["sel"], built(type.members[x["sel"]], x["value"]))
    if type.code == 0x82:
        if x is None:
            return None
        held = type_of(x["type"])
        return AnyValue(held, built(held, x["value"]))
    if type.code in (0x88, 0x89, 0x8A):
        assert type.element is not None
        return [None if item is None else built(type.element, item) for item in x]
    if type.dtype is not None and type.dtype.kind == "f":
        return [float(item) for item in x] if isinstance(x, list) else float(x)
    return x


def write(vector: Any) -> bytes:
    """The canonical encoding of a vector's value."""
    kind, order, x = vector["kind"], order_of(vector), vector["value"]
    codec = Codec()
    if kind in ("size", "string", "seq"):
        w = buffer.Writer(order)
        if kind == "size":
            w.size(x)
        elif kind == "string":
            w.string(x)
        else:
            writers = {
                "int32": w.i32,
                "uint32": w.u32,
                "uint16": w.u16,
                "uint64": w.u64,
                "int64": w.i64,
                "string": w.string,
            }
            for name, item in zip(vector["type"], x, strict=True):
                writers[name](item)
        return w.take()
    if kind == "bitset":
        return BitSet(x).encode(byteorder=order)
    if kind == "fielddesc":
        return codec.encode_type(None if x is None else type_of(x), byteorder=order)
    if kind == "typevalue":
        if x["type"] is None:
            return codec.encode_any(None, byteorder=order)
        type = type_of(x["type"])
        return codec.encode_any(AnyValue(type, built(type, x["value"])), byteorder=order)
    type = type_of(vector["type"])
    if kind == "value":
        return codec.encode(built(type, x), type, byteorder=order)
    value = Value(type)
    for name, item in x["fields"].items():
        value[name] = built(type[name], item)
    value.unmark()
    value.mark(*(type.names[bit] for bit in x["changed"]))
    encoded = codec.encode_update(value, byteorder=order)
    return encoded + BitSet(x["overrun"]).encode(byteorder=order) if kind == "update" else encoded


@pytest.mark.parametrize(
    "vector", [parameter for parameter in load(*KINDS) if parameter.values[0].get("canonical")]
)
def test_encodes_back(vector: Any) -> None:
    assert write(vector).hex() == vector["bytes_hex"]

"""Codec and introspection: type ids, both ways; the cache; what refuses further use."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from pvafast.errors import DecodeError, EncodeError, LocalProtocolError

POINT = b"\x80\x05point\x02\x01x\x43\x01y\x43"


def fd_of(number: int) -> bytes:
    return b"\xfd" + number.to_bytes(2, "little")


def fe_of(number: int) -> bytes:
    return b"\xfe" + number.to_bytes(2, "little")


@pytest.fixture
def codec(backend: SimpleNamespace) -> Any:
    return backend.codec.Codec()


def test_definitions_and_references(codec: Any) -> None:
    first, _ = codec.decode_type(fd_of(5) + POINT)
    assert (first.id, list(first.members)) == ("point", ["x", "y"])
    again, end = codec.decode_type(fe_of(5))
    assert again is first
    assert end == 3
    # Usable in the same description, and nested.
    outer, _ = codec.decode_type(b"\x80\x00\x02\x01a" + fd_of(6) + b"\x80\x00\x01\x01q\x20\x01b" + fe_of(6))
    assert outer["a"] == outer["b"]
    assert codec.decode_type(fe_of(6))[0] == outer["a"]


def test_the_last_definition_wins(codec: Any) -> None:
    codec.decode_type(fd_of(5) + POINT)
    codec.decode_type(fd_of(5) + b"\x22")
    assert codec.decode_type(fe_of(5))[0].format("short") == "int32"


def test_definition_around_a_reference(codec: Any) -> None:
    codec.decode_type(fd_of(1) + POINT)
    codec.decode_type(fd_of(2) + fe_of(1))
    assert codec.decode_type(fe_of(2))[0].id == "point"


def test_big_endian_ids(codec: Any) -> None:
    codec.decode_type(b"\xfd\x01\x02" + POINT, byteorder="big")
    assert codec.decode_type(b"\xfe\x02\x01")[0].id == "point"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (fe_of(9), "unknown type id 9 at offset 0"),
        (b"\xfc\x01\x00\x00\x00\x00\x00\x22", "tagged type id"),
        (b"\x80\x00\x01\x01a\xff", "null type where a type is needed at `a`, offset 5"),
        (b"\x80\x00\x02\x01a\x22\x01a\x22", "duplicate member name 'a' at offset 6"),
        # An empty name in each of its forms on the wire: of no bytes, null, of a long size.
        (b"\x80\x00\x02\x00\x22\xff\x22", "duplicate member name '' at offset 5"),
        (b"\x80\x00\x02\xff\x22\xfe\0\0\0\0\x22", "duplicate member name '' at offset 5"),
        (b"\x80\x00\x02\xfe\0\0\0\0\x22\x00\x22", "duplicate member name '' at offset 9"),
        (b"\x88\x22", "structure array of something else (code 0x22) at offset 1"),
        (b"\x89\x80\x00\x00", "union array of something else (code 0x80) at offset 1"),
        (b"\x01", "unknown type code 0x01"),
        (b"\x61", "unknown type code 0x61"),
        (b"\x90\x01\x80\x00\x00", "unknown type code 0x90"),
        (fd_of(1) + b"\xff", "null type where a type is needed"),
        (b"\x80\x00\x01", "1 members need 2 bytes, 0 left"),
        (b"", "type code needs 1 bytes, 0 left"),
    ],
)
def test_an_error_in_a_type_ends_the_codec(codec: Any, raw: bytes, text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode_type(raw)
    assert text in str(caught.value)
    with pytest.raises(LocalProtocolError, match="type ids are unknown"):
        codec.decode_type(b"\x22")


def test_an_error_in_a_value_does_not(backend: SimpleNamespace, codec: Any) -> None:
    fd = backend.introspection.FieldDesc.of("int32")
    with pytest.raises(DecodeError):
        codec.decode(fd, b"\x00")
    assert codec.decode(fd, b"\x01\x00\x00\x00") == (1, 4)


def test_null_types(codec: Any) -> None:
    assert codec.decode_type(b"\xff") == (None, 1)
    assert codec.decode_any(b"\xff") == (None, 1)
    assert codec.encode_type(None) == b"\xff"
    assert codec.encode_any(None) == b"\xff"


def test_ids_as_pvaccess_gives_them(backend: SimpleNamespace) -> None:
    """WIRE 6.2: from 1, the outer before the inner; not for scalars and their arrays; references afterwards."""
    of = backend.introspection.FieldDesc
    inner = of.structure("in", {"v": "double"})
    outer = of.structure("", {"a": inner, "b": inner, "c": inner.array(), "d": "any", "e": "int32[]"})
    codec = backend.codec.Codec(ids="pvaccess")
    described_inner = b"\x80\x02in\x01\x01v\x43"
    assert codec.encode_type(outer) == (
        fd_of(1) + b"\x80\x00\x05\x01a" + fd_of(2) + described_inner + b"\x01b" + fe_of(2)
        + b"\x01c" + fd_of(3) + b"\x88" + fe_of(2) + b"\x01d" + fd_of(4) + b"\x82" + b"\x01e\x2a"
    )  # fmt: skip
    assert codec.encode_type(outer) == fe_of(1)
    assert codec.encode_type(of.of("double")) == b"\x43"
    assert (
        backend.codec.Codec().decode_type(backend.codec.Codec(ids="pvaccess").encode_type(outer))[0] == outer
    )


def test_ids_of_a_failed_encoding_are_taken_back(backend: SimpleNamespace) -> None:
    codec = backend.codec.Codec(ids="pvaccess")
    fd = backend.introspection.FieldDesc.of({"v": "any", "u": "string"})
    bad = backend.value.Value(fd, {"v": backend.value.AnyValue({"q": "int8"}, {"q": 1})})
    bad["u"] = "\ud800"
    with pytest.raises(EncodeError, match=r"lone surrogate .* at `u`"):
        codec.encode(bad)
    assert codec.encode_type(backend.introspection.FieldDesc.of({"z": "int8"}))[:3] == fd_of(1)


def test_descriptions_that_come_again(backend: SimpleNamespace) -> None:
    """A look-up, not a parse: the identical FieldDesc, for any codec; each byte order by itself."""
    raw = b"\x80\x16epics:nt/NTScalar:1.0x\x03\x05value\x43\x05other\x4b\x04more\x80\x00\x01\x01q\x60"
    first, end = backend.codec.Codec().decode_type(raw)
    assert end == len(raw)
    assert backend.codec.Codec().decode_type(b"???" + raw + b"?", 3)[0] is first
    other, _ = backend.codec.Codec().decode_type(raw, byteorder="big")
    assert other == first
    changed = raw.replace(b"more", b"MORE")
    assert list(backend.codec.Codec().decode_type(changed)[0].members) == ["value", "other", "MORE"]


def test_types_from_python(backend: SimpleNamespace) -> None:
    of = backend.introspection.FieldDesc
    fd = of.structure("id", {"a": "double", "s": {"b": "int"}}, c="string[]")
    assert fd.names == ("", "a", "s", "s.b", "c")
    assert (fd.index("s.b"), fd.index(("s", "b")), len(fd), fd.end(2)) == (3, 3, 5, 4)
    assert fd["s.b"] == of.of("int32_t") == of.of("int32") == of.of("int")
    assert fd == of.structure("id", [("a", "float64"), ("s", {"b": "int32"}), ("c", "string[]")])
    assert hash(fd) == hash(of.structure("id", fd.members))
    assert fd != of.structure("other", fd.members)
    assert of.parse(str(fd)) == of.parse(fd.format("pvinfo")) == of.parse(fd.format("short")) == fd
    assert of.from_bytes(fd.to_bytes("big"), "big") == fd
    assert fd.array().element == fd
    assert fd.array().to_bytes() == b"\x88" + fd.to_bytes()
    with pytest.raises(AttributeError, match="frozen"):
        fd.id = "x"
    with pytest.raises(EncodeError, match="duplicate member name 'a'"):
        of.structure("", [("a", "int8"), ("a", "int8")])
    with pytest.raises(EncodeError):
        of.of("integer")
    with pytest.raises(TypeError):
        of()


def test_types_pickle_by_their_public_name() -> None:
    program = (
        "import pickle, pvafast as p; fd = p.FieldDesc.of({'a': 'double', 'b': {'c': 'any[]'}});"
        "raw = pickle.dumps(fd); assert pickle.loads(raw) == fd; assert b'_py' not in raw and b'_c' not in raw"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stderr == b""


def test_encoding_needs_a_type(backend: SimpleNamespace, codec: Any) -> None:
    with pytest.raises(EncodeError, match="the type of a float must be given"):
        codec.encode(1.5)
    assert codec.encode(1.5, backend.introspection.FieldDesc.of("float")).hex() == "0000c03f"

"""Value, UnionValue, AnyValue: what users lean on."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pvafast.errors import EncodeError, LocalProtocolError, RangeError

NT = {
    "value": "double",
    "alarm": {"severity": "int32", "status": "int32", "message": "string"},
    "data": "uint16[]",
    "names": "string[]",
    "any": "any",
}
# 0 root, 1 value, 2 alarm, 3 severity, 4 status, 5 message, 6 data, 7 names, 8 any


@pytest.fixture
def fd(backend: SimpleNamespace) -> Any:
    return backend.introspection.FieldDesc.of(NT)


@pytest.fixture
def v(backend: SimpleNamespace, fd: Any) -> Any:
    return backend.value.Value(fd, {"value": 1.5, "alarm": {"severity": 2}})


def test_access(v: Any) -> None:
    assert v["value"] == v.value == 1.5
    assert v["alarm.severity"] == v["alarm"]["severity"] == v.alarm.severity == v["alarm", "severity"] == 2
    assert v[""] is v
    assert list(v) == ["value", "alarm", "data", "names", "any"]
    assert len(v) == 5
    assert "alarm.status" in v
    assert "alarm.x" not in v
    for missing in ("x", "alarm.x", ("alarm.severity",)):
        with pytest.raises(KeyError):
            v[missing]
    with pytest.raises(AttributeError, match="no field 'x'"):
        _ = v.x


def test_names_with_dots(backend: SimpleNamespace) -> None:
    type = backend.introspection.FieldDesc.structure("", {"a": {"b": "int8"}, "a.b": "int16"})
    v = backend.value.Value(type, {("a", "b"): 1, ("a.b",): 2})
    assert v["a.b"] == 1
    assert v[("a.b",)] == 2


def test_methods_win_over_fields(backend: SimpleNamespace) -> None:
    type = backend.introspection.FieldDesc.of({"copy": "int32", "type": "string", "changed": "bool"})
    v = backend.value.Value(type, {"copy": 3})
    assert v.copy() == v
    assert v["copy"] == 3
    with pytest.raises(AttributeError, match=r'v\["copy"\]'):
        v.copy = 1
    with pytest.raises(AttributeError, match="no field 'nothing'"):
        v.nothing = 1


def test_unset_fields_read_as_zero(v: Any) -> None:
    assert v["alarm.status"] == 0
    assert v["alarm.message"] == ""
    assert v["data"].dtype == np.uint16
    assert v["data"].size == 0
    assert v["names"] == []
    assert v["any"] is None


@pytest.mark.thread_unsafe  # it changes the value that the others see, too
def test_marks(v: Any) -> None:
    assert list(v.changed) == [1, 3]
    assert v.changed_names() == ["value", "alarm.severity"]
    v.unmark("alarm")
    assert v.changed_names() == ["value"]
    v.mark("alarm")
    assert list(v.changed) == [1, 2]
    assert v.changed_names() == ["value", "alarm.severity", "alarm.status", "alarm.message"]
    assert v["alarm"].changed_names() == ["severity", "status", "message"]
    v.unmark()
    assert not v.changed
    v.mark()
    assert not v.changed
    v.alarm.severity = 5
    assert list(v.changed) == [3]
    assert list(v.alarm.changed) == [1]
    v.mark("")
    assert list(v.changed) == [0, 3]
    assert len(v.changed_names()) == 7


def test_views_are_no_copies(v: Any) -> None:
    alarm = v["alarm"]
    alarm["message"] = "high"
    assert v["alarm.message"] == "high"
    v["alarm.message"] = "low"
    assert alarm.message == "low"
    del v
    assert alarm.message == "low"


def test_overlay(backend: SimpleNamespace, v: Any, fd: Any) -> None:
    v.unmark()
    v.overlay(backend.value.Value(fd, {"alarm.status": 9}))
    assert (v["value"], v["alarm.severity"], v["alarm.status"]) == (1.5, 2, 9)
    assert v.changed_names() == ["alarm.status"]
    with pytest.raises(EncodeError, match="another type"):
        v.overlay(backend.value.Value({"x": "int8"}))


def test_equality_is_bit_by_bit(backend: SimpleNamespace) -> None:
    def make(x: float) -> Any:
        return backend.value.Value({"x": "double"}, {"x": x})

    assert make(math.nan) == make(math.nan)
    assert make(0.0) != make(-0.0)
    assert make(1.0) == make(1.0)
    assert make(1.0) != backend.value.Value({"x": "float"}, {"x": 1.0})
    assert make(0.0) == backend.value.Value({"x": "double"})
    with pytest.raises(TypeError, match="unhashable"):
        hash(make(1.0))


def test_copies(backend: SimpleNamespace, v: Any) -> None:
    v["data"] = np.array([1, 2], np.uint16)
    v["names"] = ["a"]
    for made in (v.copy(), copy.copy(v), copy.deepcopy(v)):
        assert made == v
        assert made.changed == v.changed
        made["value"] = 9.0
        made["data"][0] = 7
        made["names"].append("b")
        assert (v["value"], v["data"].tolist(), v["names"]) == (1.5, [1, 2], ["a"])


def test_to_dict(backend: SimpleNamespace, v: Any) -> None:
    v["any"] = backend.value.Value({"q": "int8"}, {"q": 1})
    found = v.to_dict()
    assert found["alarm"] == {"severity": 2, "status": 0, "message": ""}
    assert found["any"].value == {"q": 1}


def test_no_field_is_silently_truncated(v: Any) -> None:
    for name, bad, error, text in (
        ("alarm.severity", 2**31, RangeError, "int32 cannot hold 2147483648 at `alarm.severity`"),
        ("alarm.severity", 1.5, EncodeError, "int32 expected, float found at `alarm.severity`"),
        ("alarm.message", 5, EncodeError, "string expected, int found at `alarm.message`"),
        ("data", [1, 65536], RangeError, "uint16 cannot hold 65536 at `data[1]`"),
        ("data", [1, -1], RangeError, "uint16 cannot hold -1 at `data[1]`"),
        ("data", [[1], [2]], EncodeError, "one dimension expected, 2 found at `data`"),
        ("value", "1.5", EncodeError, "double expected, str found at `value`"),
        ("alarm", 5, EncodeError, "structure expected, int found at `alarm`"),
        ("names", "abc", EncodeError, "array of string expected, str found at `names`"),
    ):
        before = v.copy()
        with pytest.raises(error) as caught:
            v[name] = bad
        assert str(caught.value).endswith(text)
        assert isinstance(caught.value, ValueError)
        assert v == before
    with pytest.raises(OverflowError):
        v["alarm.severity"] = 2**31


def test_what_is_accepted(v: Any) -> None:
    v["value"] = np.float32(0.5)
    assert v["value"] == 0.5
    v["value"] = 3
    assert isinstance(v["value"], float)
    v["alarm.severity"] = np.int8(-3)
    assert v["alarm.severity"] == -3
    for array in (
        [1, 2],
        (1, 2),
        np.array([1, 2], np.int64),
        np.array([1, 2], ">u2"),
        b"\x01\x02",
        memoryview(b"\x01\x02"),
        iter([1, 2]),
    ):
        v["data"] = array
        assert v["data"].dtype == np.uint16
        assert v["data"].tolist() == [1, 2]
    exact = np.array([5], np.uint16)
    v["data"] = exact
    assert v["data"] is exact
    v["names"] = np.array(["x", "y"])
    assert v["names"] == ["x", "y"]


def test_unions(backend: SimpleNamespace) -> None:
    union = backend.introspection.FieldDesc.union(
        "", {"i": "int32", "d": "double", "s": "string", "a": "uint8[]"}
    )
    v = backend.value.Value({"u": union})
    v["u"] = "text"
    assert v["u"] == backend.value.UnionValue("s", "text")
    v["u"] = np.zeros(2, np.uint8)
    assert v["u"].name == "a"
    v["u"] = 2.5
    assert v["u"].name == "d"
    v["u"] = backend.value.UnionValue("i", 7)
    assert (v["u"].name, v["u"].value) == ("i", 7)
    v["u"] = None
    assert v["u"] is None
    with pytest.raises(EncodeError, match="no member 'x'"):
        v["u"] = backend.value.UnionValue("x", 7)
    with pytest.raises(RangeError, match=r"at `u\.i`"):
        v["u"] = backend.value.UnionValue("i", 2**40)
    with pytest.raises(AttributeError, match="frozen"):
        backend.value.UnionValue("i", 7).name = "j"


def test_anys(backend: SimpleNamespace, v: Any) -> None:
    for plain, type in (
        (True, "bool"), (5, "int64"), (2**63, "uint64"), (0.5, "double"), ("x", "string"), (np.int16(3), "int16"),
        (np.zeros(2, np.float32), "float[]"), (["a", "b"], "string[]"), (b"\x01", "uint8[]"),
    ):  # fmt: skip
        v["any"] = plain
        assert v["any"].type.format("short") == type
    with pytest.raises(EncodeError, match="no pvData type is evident"):
        v["any"] = object()
    with pytest.raises(RangeError):
        backend.value.AnyValue("int8", 200)
    with pytest.raises(AttributeError, match="frozen"):
        backend.value.AnyValue("int8", 2).value = 3


def test_an_update_never_changes_its_base(backend: SimpleNamespace, fd: Any, v: Any) -> None:
    codec = backend.codec.Codec()
    before = v.copy()
    new, _ = codec.decode_update(fd, b"\x01\x08\x07\x00\x00\x00", base=v)
    assert v == before
    assert (new["value"], new["alarm.severity"]) == (1.5, 7)
    assert list(new.changed) == [3]
    with pytest.raises(LocalProtocolError, match="another type"):
        codec.decode_update(fd, b"\x00", base=backend.value.Value({"x": "int8"}))


def test_other_roots(backend: SimpleNamespace) -> None:
    v = backend.value.Value("double", 2.5)
    assert v[""] == 2.5
    assert list(v.changed) == [0]
    assert backend.codec.Codec().encode_update(v) == b"\x01\x01" + bytes.fromhex("0000000000000440")


@pytest.mark.parametrize(("writer", "reader"), [("c", "py"), ("py", "c"), ("c", "c"), ("py", "py")])
def test_pickles_of_either_twin(writer: str, reader: str, twins: Any) -> None:
    make = (
        "import pvafast as p, pickle, sys, numpy as np;"
        "v = p.Value({'a': 'double', 'b': 'uint16[]', 'u': p.FieldDesc.union('', {'x': 'int8'}), 'v': 'any',"
        " 's': p.FieldDesc.structure('t', {'q': 'string'}).array()},"
        " {'a': 1.5, 'b': [1, 2], 'u': p.UnionValue('x', 3), 'v': p.AnyValue('string', 'z'), 's': [{'q': 'r'}, None]});"
    )
    write = make + "sys.stdout.buffer.write(pickle.dumps((v, v.changed, v.type, v['u'], v['v'])))"
    read = make + (
        "w, bits, type, u, any = pickle.loads(sys.stdin.buffer.read());"
        "assert w == v and w.changed == v.changed == bits and type == v.type and u == v['u'] and any == v['v'];"
        "print(p.BACKEND)"
    )

    def run(twin: str, program: str, given: bytes = b"") -> bytes:
        environment = {**os.environ, "PVAFAST_BACKEND": twin}
        return subprocess.run(
            [sys.executable, "-c", program], input=given, capture_output=True, check=True, env=environment
        ).stdout

    assert run(reader, read, run(writer, write)).decode().strip() == reader


def test_repr_and_str(v: Any) -> None:
    assert repr(v) == "Value('': value=1.5, alarm.severity=2)"
    assert "    double value = 1.5" in str(v).splitlines()


@pytest.mark.parametrize("change", ["item", "attribute of a part", "overlay", "unmark", "mark"])
@pytest.mark.parametrize("projected", [False, True])
def test_what_is_changed_in_an_update_was_not_received(
    backend: SimpleNamespace, change: str, projected: bool
) -> None:
    """A program may change what it got; what the peer sent is still there for the next update."""
    fd = backend.introspection.FieldDesc.of(
        {"value": "double", "alarm": {"severity": "int32", "message": "string"}}
    )
    codec = backend.codec.Codec()
    sent = backend.value.Value(fd, {"value": 1.0, "alarm.severity": 2})
    reads = backend.projection.Projection(fd, ["value", "alarm.severity"]) if projected else fd
    got, _ = codec.decode_update(reads, codec.encode_update(sent))
    assert got._received_() is got
    if change == "item":
        got["value"] = 77.0
    elif change == "attribute of a part":
        got.alarm.severity = 77
    elif change == "overlay":
        got.overlay(backend.value.Value(fd, {"value": 77.0}))
    elif change == "unmark":
        got.unmark("value")
    else:
        got.mark("")
    received = got._received_()
    assert received is not got
    assert (received["value"], received["alarm.severity"]) == (1.0, 2)
    assert received.changed_names() == ["value", "alarm.severity"]
    got["value"] = 78.0
    assert got._received_() is received
    # What a program made itself is what it is.
    sent["value"] = 3.0
    assert sent._received_() is sent

"""What a user may set a field to, and what is refused: nothing is cut, wrapped, rounded to an integer or turned to text."""

from __future__ import annotations

import array
import decimal
import enum
import fractions
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import wire
from pvafast.errors import EncodeError, RangeError

INTEGERS = {name: np.iinfo(format) for name, format in wire.NUMBERS.items() if format not in "?fd"}


class Colour(enum.IntEnum):
    RED = 3


class Word(str, enum.Enum):  # noqa: UP042 - its str() is not its text
    HIGH = "high"


class Loud(str):
    def __str__(self) -> str:
        return self.upper()


class Indexed:
    def __index__(self) -> int:
        return 5


class Floated:
    def __float__(self) -> float:
        return 2.5


def put(backend: SimpleNamespace, spec: Any, x: Any) -> Any:
    """The field after it was set."""
    v = backend.value.Value({"x": spec})
    v["x"] = x
    return v["x"]


def refused(backend: SimpleNamespace, spec: Any, x: Any, error: type[Exception] = EncodeError) -> str:
    """The reason; the field stays as it was, and unmarked."""
    v = backend.value.Value({"x": spec})
    before = wire.plain(v)
    with pytest.raises(EncodeError) as caught:
        v["x"] = x
    assert type(caught.value) is error
    assert caught.value.path.startswith("x")
    assert wire.plain(v) == before
    assert not v.changed
    return str(caught.value)


@pytest.mark.parametrize("name", INTEGERS)
def test_integers(backend: SimpleNamespace, name: str) -> None:
    low, high = int(INTEGERS[name].min), int(INTEGERS[name].max)
    dtype = INTEGERS[name].dtype
    for x in (low, high, 0, 1):
        for given in (x, dtype.type(x), np.array(x, dtype)):
            made = put(backend, name, given)
            assert type(made) is int
            assert made == x
    assert put(backend, name, True) == put(backend, name, np.bool_(True)) == 1
    assert put(backend, name, Colour.RED) == 3
    assert type(put(backend, name, Colour.RED)) is int
    assert put(backend, name, Indexed()) == 5
    for x in (low - 1, high + 1, 2**64, -(2**64)):
        assert refused(backend, name, x, RangeError) == f"{name} cannot hold {x} at `x`"
    for x in (
        1.0,
        1.5,
        math.nan,
        np.float64(1),
        "1",
        b"1",
        None,
        1j,
        [1],
        np.array([1]),
        decimal.Decimal(1),
        {},
    ):
        assert refused(backend, name, x).startswith(f"{name} expected, ")
    # Arrays: each element, wherever it comes from.
    for given in (
        [low, high],
        (low, high),
        np.array([low, high], dtype),
        array.array(dtype.char, [low, high]),
    ):
        made = put(backend, f"{name}[]", given)
        assert made.dtype == dtype
        assert made.tolist() == [low, high]
    for x in (low - 1, high + 1, 2**64, -(2**64)):
        text = refused(backend, f"{name}[]", [0, 1, x], RangeError)
        assert text == f"{name} cannot hold {x} at `x[2]`"
    for given in (
        [1, 1.0],
        [1.5],
        ["1"],
        [None],
        [[1]],
        [1, "a"],
        [b"1"],
        1,
        "1",
        None,
        {1: 2},
        {1},
        [1j],
        object(),
    ):
        refused(backend, f"{name}[]", given)
    for given in (
        np.array([1.0]),
        np.array(["1"]),
        np.array([1j]),
        np.array([1], "M8[s]"),
        np.zeros((1, 1), int),
        np.array([1, None]),
    ):
        refused(backend, f"{name}[]", given)


@pytest.mark.parametrize("name", INTEGERS)
def test_integer_arrays_of_other_types(backend: SimpleNamespace, name: str) -> None:
    low, high = int(INTEGERS[name].min), int(INTEGERS[name].max)
    for other in INTEGERS.values():
        for byteorder in "<>":
            given = np.array([0, 1, 100], other.dtype.newbyteorder(byteorder))
            made = put(backend, f"{name}[]", given)
            assert made.dtype == INTEGERS[name].dtype
            assert made.dtype.isnative
            assert made.tolist() == [0, 1, 100]
        for x in (int(other.min), int(other.max)):
            given = np.array([0, x], other.dtype)
            if low <= x <= high:
                assert put(backend, f"{name}[]", given).tolist() == [0, x]
            else:
                assert refused(backend, f"{name}[]", given, RangeError) == f"{name} cannot hold {x} at `x[1]`"
    assert put(backend, f"{name}[]", np.array([True, False])).tolist() == [1, 0]


def test_bools(backend: SimpleNamespace) -> None:
    for x in (True, 1, np.bool_(True), np.int8(1), np.array(1)):
        assert put(backend, "bool", x) is True
    for x in (False, 0, np.bool_(False)):
        assert put(backend, "bool", x) is False
    for x in (2, -1):
        assert refused(backend, "bool", x, RangeError) == f"bool cannot hold {x} at `x`"
    for x in (1.0, "true", None, [], b"\x01"):
        refused(backend, "bool", x)
    for given in ([True, False], [1, 0], np.array([1, 0], np.uint8), b"\x01\x00"):
        made = put(backend, "bool[]", given)
        assert made.dtype == bool
        assert made.tolist() == [True, False]
    assert refused(backend, "bool[]", [0, 2], RangeError) == "bool cannot hold 2 at `x[1]`"
    for given in ([0.0], np.array([1.0]), ["true"], 1):
        refused(backend, "bool[]", given)


@pytest.mark.parametrize("name", ["float", "double"])
def test_floats(backend: SimpleNamespace, name: str) -> None:
    dtype = np.dtype(wire.NUMBERS[name])
    for x in (
        1.5,
        1,
        True,
        np.float32(1.5),
        np.float16(1.5),
        np.int8(1),
        np.array(1.5),
        Floated(),
        Indexed(),
        decimal.Decimal("1.5"),
        fractions.Fraction(3, 2),
    ):
        made = put(backend, name, x)
        assert type(made) is float
        assert made == float(x)
    for x in (math.inf, -math.inf):
        assert put(backend, name, x) == x
        assert put(backend, f"{name}[]", [x]).tolist() == [x]
    assert math.isnan(put(backend, name, math.nan))
    assert math.copysign(1, put(backend, name, -0.0)) == -1
    for x in (
        10**400,
        decimal.Decimal("1e400"),
        np.longdouble("1e4000") if np.finfo(np.longdouble).maxexp > 1024 else 10**400,
    ):
        refused(backend, name, x, RangeError)
    for x in ("1.5", b"1", None, 1j, [1.5], np.array([1.5]), {}):
        assert refused(backend, name, x).startswith(f"{name} expected, ")
    for given in (
        [1.5, 2],
        (1.5, 2),
        np.array([1.5, 2], ">f8"),
        np.array([1.5, 2], np.float16),
        iter([1.5, 2]),
        memoryview(array.array("d", [1.5, 2])),
    ):
        made = put(backend, f"{name}[]", given)
        assert made.dtype == dtype
        assert made.tolist() == [1.5, 2.0]
    assert put(backend, f"{name}[]", np.arange(6.0)[::2]).tolist() == [0, 2, 4]
    assert put(backend, f"{name}[]", np.arange(6.0)[::2]).flags.c_contiguous
    assert put(backend, f"{name}[]", [2**70, 0.5]).tolist() == [2.0**70, 0.5]
    for given in (
        ["1.5"],
        [None],
        [[1.5]],
        np.zeros((2, 2)),
        np.array(1.5),
        1.5,
        "1.5",
        [1j],
        np.array([1j]),
    ):
        refused(backend, f"{name}[]", given)


def test_single_precision(backend: SimpleNamespace) -> None:
    """Rounded to what the type holds, but never to infinity."""
    assert put(backend, "float", 0.1) == float(np.float32(0.1))
    largest = float(np.finfo(np.float32).max)
    assert put(backend, "float", largest) == largest
    for x in (1e39, -1e39):
        assert refused(backend, "float", x, RangeError) == f"float cannot hold {x} at `x`"
        assert refused(backend, "float[]", [0.0, x], RangeError) == f"float cannot hold {x} at `x[1]`"
        assert (
            refused(backend, "float[]", np.array([0.0, x]), RangeError) == f"float cannot hold {x} at `x[1]`"
        )
    assert put(backend, "float[]", [math.inf]).tolist() == [math.inf]


def test_strings(backend: SimpleNamespace) -> None:
    for x, text in (
        ("", ""),
        ("é\0", "é\0"),
        ("\udcff", "\udcff"),
        (np.str_("n"), "n"),
        (Word.HIGH, "high"),
        (Loud("quiet"), "quiet"),
    ):
        made = put(backend, "string", x)
        assert type(made) is str
        assert made == text
    for x in (b"a", 5, None, ["a"], np.array(["a"])):
        assert refused(backend, "string", x).startswith("string expected, ")
    for given in (
        ["a", "b"],
        ("a", "b"),
        iter(["a", "b"]),
        np.array(["a", "b"]),
        np.array(["a", "b"], object),
        [np.str_("a"), Loud("b")],
    ):
        made = put(backend, "string[]", given)
        assert type(made) is list
        assert made == ["a", "b"]
        assert {type(item) for item in made} == {str}
    given = ["a"]
    made = put(backend, "string[]", given)
    given.append("b")
    assert made == ["a"]
    for given in (
        "ab",
        b"ab",
        5,
        None,
        {"a": 1},
        [5],
        ["a", None],
        np.array([b"a"]),
        np.array([["a"]]),
        np.array("a"),
    ):
        refused(backend, "string[]", given)
    assert refused(backend, "string[]", ["a", 5]) == "string expected, int found at `x[1]`"


def test_bounds(backend: SimpleNamespace) -> None:
    assert put(backend, "string(2)", "é") == "é"
    assert refused(backend, "string(2)", "éa") == "string of 3 bytes over its bound of 2 at `x`"
    assert put(backend, "int8<2>", [1, 2]).tolist() == [1, 2]
    assert refused(backend, "int8<2>", [1, 2, 3]) == "array of 3 int8 over its bound of 2 at `x`"
    assert put(backend, "string<1>", []) == []
    refused(backend, "string<1>", ["a", "b"])
    for spec, good, bad in (
        ("double[2]", [1, 2], [1]),
        ("double[2]", [1, 2], [1, 2, 3]),
        ("string[1]", ["a"], []),
    ):
        assert len(put(backend, spec, good)) == len(good)
        assert "are fixed at `x`" in refused(backend, spec, bad)
    v = backend.value.Value({"a": "double[3]", "b": "string[2]", "c": "int8[0]"})
    assert v["a"].tolist() == [0, 0, 0]
    assert v["b"] == ["", ""]
    assert backend.codec.Codec().encode(v) == bytes(24) + b"\x00\x00"


def test_structures_and_their_arrays(backend: SimpleNamespace) -> None:
    of = backend.introspection.FieldDesc.of
    inner = of({"a": "int8", "s": {"b": "string"}})
    v = backend.value.Value({"x": inner, "xs": inner.array()})
    v["x"] = {"a": 5}
    v["x"] = {"s": {"b": "t"}}
    v["x"] = {"s.b": "u", ("a",): 6}
    assert v.to_dict()["x"] == {"a": 6, "s": {"b": "u"}}
    assert v.changed_names() == ["x.a", "x.s.b"]
    v["xs"] = [{"a": 1}, None, backend.value.Value(inner, {"a": 2})]
    assert [item and item["a"] for item in v["xs"]] == [1, None, 2]
    for bad, path in (
        ({"a": 500}, "x.a"),
        ({"s": {"b": 5}}, "x.s.b"),
        ({"s": 5}, "x.s"),
        ({"zz": 5}, "x"),
        (5, "x"),
        ([1], "x"),
        (backend.value.Value({"a": "int8"}), "x"),
    ):
        with pytest.raises(EncodeError) as caught:
            v["x"] = bad
        assert caught.value.path == path
    for bad, path in (
        ([{"a": 1}, {"a": 500}], "xs[1].a"),
        ([{"s": {"b": 5}}], "xs[0].s.b"),
        ([5], "xs[0]"),
        ([backend.value.Value({"a": "int8"})], "xs[0]"),
        ({"a": 1}, "xs"),
        ("a", "xs"),
        (5, "xs"),
    ):
        with pytest.raises(EncodeError) as caught:
            v["xs"] = bad
        assert caught.value.path == path


def test_unions_of_plain_values(backend: SimpleNamespace) -> None:
    """A plain value goes to the one member that fits, or to the one that is of exactly its type."""
    union = backend.introspection.FieldDesc.union
    one = union("", n="int32", t="string", l="string[]")
    for x, name in ((5, "n"), ("5", "t"), (["a"], "l"), (iter(["a", "b"]), "l"), (np.int64(5), "n")):
        assert put(backend, one, x).name == name
    frame = union("", [(f"{name}Value", f"{name}[]") for name in wire.NUMBERS])
    for name, format in wire.NUMBERS.items():
        made = put(backend, frame, np.zeros(3, format))
        assert made.name == f"{name}Value"
        assert made.value.dtype == np.dtype(format)
    exact = np.zeros(3, np.uint16)
    assert put(backend, frame, exact).value is exact
    assert put(backend, frame, b"\x01\x02").name == "uint8Value"
    assert "fits several members" in refused(backend, frame, [1, 2])
    assert "fits no member" in refused(backend, frame, "text")
    assert "fits no member" in refused(backend, union(), 5)
    assert put(backend, union("", f="float", d="double", i="int64"), 1.5).name == "d"
    assert put(backend, union("", b="bool", i="int64"), True).name == "b"
    assert put(backend, union("", b="bool", i="int64"), 1).name == "i"
    nested = union("", s={"a": "int8"}, u=union("", q="string"))
    assert put(backend, nested, {"a": 5}).value["a"] == 5
    assert put(backend, nested, "text").value == backend.value.UnionValue("q", "text")
    make = backend.value.UnionValue
    assert refused(backend, nested, make("s", {"a": 500}), RangeError).endswith("at `x.s.a`")
    assert refused(backend, nested, make("z", 5)) == "union has no member 'z' at `x`"
    v = backend.value.Value({"x": union("", n="int8").array()})
    v["x"] = [5, None, make("n", 6)]
    assert v["x"] == [make("n", 5), None, make("n", 6)]
    with pytest.raises(EncodeError) as caught:
        v["x"] = [5, "a"]
    assert caught.value.path == "x[1]"


def test_types_inferred_for_any(backend: SimpleNamespace) -> None:
    for x, text in (
        (True, "bool"), (5, "int64"), (-(2**63), "int64"), (2**63, "uint64"), (1.5, "double"), ("t", "string"),
        (np.float32(1), "float"), (np.uint8(1), "uint8"), (np.bool_(1), "bool"), (np.str_("n"), "string"),
        (np.zeros(1, ">i2"), "int16[]"), (np.array(["a"]), "string[]"), (np.array([True]), "bool[]"),
        (b"a", "uint8[]"), (bytearray(b"a"), "uint8[]"), (["a"], "string[]"), (("a", "b"), "string[]"),
        ([1, 2], "int64[]"), ([1, 2.5], "double[]"), ([True], "bool[]"), ([1, 2**63], "uint64[]"), ([np.int8(1)], "int8[]"),
        (backend.value.Value({"a": "int8"}), "struct {int8 a}"), (backend.value.Value("float", 2), "float"),
    ):  # fmt: skip
        assert put(backend, "any", x).type == backend.introspection.FieldDesc.of(text), x
    assert put(backend, "any", [1, 2**63]).value.tolist() == [1, 2**63]
    assert put(backend, "any", backend.value.Value("float", 2)).value == 2.0
    assert put(backend, "any", None) is None
    kept = backend.value.AnyValue("int8", 5)
    assert put(backend, "any", kept) == kept
    assert put(backend, "any[]", [1, None, kept])[1:] == [None, kept]
    for x in (
        [],
        (),
        {},
        {"a": 1},
        object(),
        1j,
        [None],
        [1, "a"],
        [[1]],
        {1},
        np.float16(1),
        np.array([1, None]),
        memoryview(b"a"),
        backend.value.UnionValue("a", 1),
    ):
        assert "no pvData type is evident" in refused(backend, "any", x)
    for x in (2**64, -(2**63) - 1, [-1, 2**63], [2**64]):
        refused(backend, "any", x, RangeError)
    with pytest.raises(EncodeError) as caught:
        put(backend, "any[]", [1, object()])
    assert caught.value.path == "x[1]"


def test_any_values(backend: SimpleNamespace) -> None:
    make = backend.value.AnyValue
    made = make({"a": "int8", "b": "string"}, {"a": 5})
    assert made.value.to_dict() == {"a": 5, "b": ""}
    assert make("double", 1).value == 1.0
    assert make("any", 5).value == make("int64", 5)
    for type, x, error, path in (
        ("int8", 500, RangeError, ""),
        ("int8", "a", EncodeError, ""),
        ({"a": "int8"}, {"a": 500}, RangeError, "a"),
        ("int8[]", [1, 500], RangeError, "[1]"),
        ("nonsense", 5, EncodeError, ""),
    ):
        with pytest.raises(error) as caught:
            make(type, x)
        assert caught.value.path == path


def test_what_was_changed_behind_a_value(backend: SimpleNamespace) -> None:
    """Lists and arrays are the user's own: what has become of them is checked again when they are encoded."""
    encode = backend.codec.Codec().encode
    v = backend.value.Value(
        {"a": "double[]", "t": "string[]", "s": backend.introspection.FieldDesc.of({"q": "int8"}).array()}
    )
    given = np.zeros(4)
    v["a"] = given
    given[0] = 1.0
    assert encode(v)[:9] == b"\x04" + wire.pack("d", 1.0, "little")
    v["t"] = ["a"]
    v["t"].append(5)
    with pytest.raises(EncodeError, match=r"string expected, int found at `t\[1\]`"):
        encode(v)
    v["t"] = []
    v["s"] = [{"q": 1}]
    v["s"].append({"q": 500})
    with pytest.raises(RangeError, match=r"int8 cannot hold 500 at `s\[1\]\.q`"):
        encode(v)
    v["s"][1] = 5
    with pytest.raises(EncodeError, match=r"structure expected, int found at `s\[1\]`"):
        encode(v)
    v["s"] = []
    given.resize((2, 2), refcheck=False)
    with pytest.raises(EncodeError, match="one dimension expected, 2 found at `a`"):
        encode(v)


def test_lengths_that_the_type_fixes(backend: SimpleNamespace) -> None:
    """A count that is not on the wire cannot be wrong there."""
    v = backend.value.Value({"a": "string[2]", "b": "string<2>", "c": "double[2]"}, {"a": ["x", "y"]})
    raw = backend.codec.Codec().encode(v)
    assert raw == b"\x01x\x01y" + b"\x00" + bytes(16)
    v["a"].append("z")
    with pytest.raises(EncodeError, match="array of 3 string where 2 are fixed at `a`"):
        backend.codec.Codec().encode(v)
    v["a"] = ["x", "y"]
    v["b"] = ["p", "q"]
    v["b"].append("r")
    with pytest.raises(EncodeError, match="array of 3 string over its bound of 2 at `b`"):
        backend.codec.Codec().encode(v)
    v["b"] = []
    given = np.zeros(2)
    v["c"] = given
    given.resize(3, refcheck=False)
    with pytest.raises(EncodeError, match="array of 3 double where 2 are fixed at `c`"):
        backend.codec.Codec().encode(v)
    assert backend.codec.Codec().encode(backend.value.Value(v.type)) == b"\x00\x00" + b"\x00" + bytes(16)


def test_values_without_end(backend: SimpleNamespace) -> None:
    """A program can put any into any as deep as it likes: that is an error, not a crash."""
    deep = backend.value.AnyValue("int8", 1)
    for _ in range(100_000):
        deep = backend.value.AnyValue("any", deep)
    v = backend.value.Value({"x": "any"}, {"x": deep})
    for work in (v.copy, v.to_dict, lambda: backend.codec.Codec().encode(v), lambda: repr(v), lambda: str(v)):
        with pytest.raises(RecursionError):
            work()
    inner = backend.value.Value({"l": "any[]"}, {"l": []})
    inner["l"].append(backend.value.AnyValue(inner.type, inner))
    inner["l"][0].value["l"].append(inner["l"][0])
    for work in (inner.copy, inner.to_dict, lambda: backend.codec.Codec().encode(inner), lambda: repr(inner)):
        with pytest.raises(RecursionError):
            work()
    inner["l"].clear()


@pytest.mark.parametrize("kind", ["any", "union", "any in a structure", "list of anys"])
def test_values_without_end_are_dropped(backend: SimpleNamespace, kind: str) -> None:
    """The compiled twin needs no more than the small stack of a thread. Python needs its own 8 MiB: 3.13 recurses 10,000 deep."""
    value = backend.value
    fd = backend.introspection.FieldDesc.of({"x": "any"})

    def filled(inner: Any) -> Any:
        v = value.Value(fd)
        v["x"] = value.AnyValue("any", inner)
        return value.AnyValue(fd, v)

    wrap: Callable[[Any], Any] = {
        "any": lambda x: value.AnyValue("any", x),
        "union": lambda x: value.UnionValue("a", x),
        "any in a structure": filled,
        "list of anys": lambda x: value.AnyValue("any[]", [x]),
    }[kind]
    done = []

    def make_and_drop() -> None:
        deep = value.AnyValue("int32", 1)
        for _ in range(100_000):
            deep = wrap(deep)
        del deep
        done.append(True)

    before = threading.stack_size(512 * 1024 if backend.name == "c" else 8 * 1024 * 1024)
    try:
        thread = threading.Thread(target=make_and_drop)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert done


NESTING = """
import copy, importlib, pickle, sys, threading

value, introspection, codec = (importlib.import_module(f"pvafast._c.{word}") for word in ("value", "introspection", "codec"))
FieldDesc, Value, Union, Any = introspection.FieldDesc, value.Value, value.UnionValue, value.AnyValue
holder = FieldDesc.of({"a": "any", "l": "any[]"})
union = FieldDesc.union("", {"x": "any"})
wraps = [
    lambda x: Any("any", x),
    lambda x: Any("any[]", [x]),
    lambda x: Any(holder, Value(holder, {"a": x})),
    lambda x: Any(holder.array(), [Value(holder, {"l": [x]})]),
    lambda x: Any(union, Union("x", x)),
    lambda x: Any(union.array(), [Union("x", x)]),
]

def nested(levels, wraps):
    x = Any("int8", 1)
    for i in range(levels):
        x = wraps[i % len(wraps)](x)
    return Value(holder, {"a": x})

def works(v, other):
    yield lambda: v == other
    yield lambda: v["a"] == other["a"]
    yield from (lambda f=f, x=x: f(x) for f in (pickle.dumps, copy.deepcopy, repr, str) for x in (v, v["a"]))
    yield from (v.copy, v.to_dict, lambda: codec.Codec().encode(v))

def main():
    for chosen in [*([wrap] for wrap in wraps), wraps]:
        v, other = nested(20_000, chosen), nested(20_000, chosen)
        for i, work in enumerate(works(v, other)):
            try:
                work()
            except RecursionError:
                continue
            return print(f"no RecursionError from {i}")
        v, other = nested(12, chosen), nested(12, chosen)
        if not all(work() for work in works(v, other)) or pickle.loads(pickle.dumps(v)) != v:
            return print("values that are not deep")
    print("whole")

sys.setrecursionlimit(int(sys.argv[1]))
threading.stack_size(int(sys.argv[2]))
thread = threading.Thread(target=main)
thread.start()
thread.join()
"""


@pytest.mark.parametrize(("limit", "stack"), [(1000, 512 << 10), (1_000_000, 8 << 20)])
def test_values_without_end_need_a_small_stack(
    twins: tuple[SimpleNamespace, SimpleNamespace], limit: int, stack: int
) -> None:
    """The compiled twin counts levels of its own: Python's limit is a program's to raise, and 10,000 in 3.13."""
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        stack *= 8  # its frames are larger
    done = subprocess.run(
        [sys.executable, "-c", NESTING, str(limit), str(stack)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr

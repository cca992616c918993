"""Every error path of the twins as a table: what to call, and the error that it must end in.

test_leaks.py runs it in a loop, errorpaths.py under valgrind, test_errorcases.py compares the twins on it and finds what it leaves out.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from pvafast.errors import DecodeError, EncodeError, LimitExceeded, LocalProtocolError, RangeError
from pvafast.limits import Limits


class Case(NamedTuple):
    name: str
    call: Callable[[], Any]
    error: type[Exception]


# (type of a field, its bytes little-endian, limits): a DecodeError, or where there are limits a LimitExceeded.
VALUES: list[tuple[str, str, dict[str, int]]] = [
    ("int32", "000000", {}),
    ("double", "00", {}),
    ("bool", "", {}),
    ("string", "", {}),
    ("string", "05 61", {}),
    ("string", "fe 0500", {}),
    ("string", "02 6162", {"string": 1}),
    ("string(2)", "03 616263", {}),
    ("string(2)", "fe 03000000 616263", {}),
    ("int32[]", "02 00000000", {}),
    ("int32[]", "ff", {}),
    ("int8[]", "", {}),
    ("int16<2>", "03 000000000000", {}),
    ("int16<2>", "02 00", {}),
    ("double[2]", "00", {}),
    ("bool[]", "03 01", {}),
    ("string[]", "05 0161", {}),
    ("string[]", "02 0161", {}),
    ("string[]", "02 0161 0562", {}),
    ("string[]", "03 000000", {"elements": 2}),
    ("string[]", "02 00 02 6162", {"string": 1}),
    ("string[2]", "0161 0562", {}),
    ("string<1>", "02 0000", {}),
    ("struct {int8 a} ", "", {}),
    ("struct {int8 a; string b} ", "01 0561", {}),
    ("union {int8 a; string b} ", "", {}),
    ("union {int8 a; string b} ", "02", {}),
    ("union {int8 a; string b} ", "00", {}),
    ("union {int8 a; string b} ", "01 0561", {}),
    ("union {int8 a; string b} ", "00 01", {"value_nodes": 2}),
    ("union {struct {int8 a; string b} s} ", "00 01 0561", {}),
    ("any", "", {}),
    ("any", "fc", {}),
    ("any", "fe0100", {}),
    ("any", "23 00", {}),
    ("any", "2c 05 00", {}),
    ("any", "82 82 82 20 00", {"depth": 2}),
    ("any", "80 00 01 0161 80 00 00", {"depth": 2}),
    ("any", "80 00 02 0161 20 0162 60 01 0561", {}),
    ("any", "20 00", {"value_nodes": 2}),
    ("any", "80 00 03 0161 20 0162 20 0163 20 00 00 00", {"type_nodes": 3}),
    ("struct[] {int8 a; string b} ", "", {}),
    ("struct[] {int8 a; string b} ", "02 00", {}),
    ("struct[] {int8 a; string b} ", "03 01 01", {}),
    ("struct[] {int8 a; string b} ", "02 01 05 0161", {}),
    ("struct[] {int8 a; string b} ", "02 01 05 0161 01 01 0561", {}),
    ("struct[] {int8 a; string b} ", "03 00 00 00", {"elements": 2}),
    ("struct[] {int8 a; string b} ", "03 01 05 00 01 05 00 01 05 00", {"value_nodes": 5}),
    ("struct[] {int8 a; int16 b} ", "02 01 05 0600 01 05 06", {}),
    ("struct[] {int8 a; int16 b} ", "03 01 05 0600 00", {}),
    ("union[] {int8 a; string b} ", "02 01 00 05", {}),
    ("union[] {int8 a; string b} ", "02 01 00 05 01 02", {}),
    ("union[] {int8 a; string b} ", "02 01 00 05 01", {}),
    ("union[] {int8 a; string b} ", "03 00 00 00", {"elements": 2}),
    ("any[]", "02 01 20 05", {}),
    ("any[]", "02 01 20 05 01 22 00", {}),
    ("any[]", "05 00", {}),
    ("any[]", "03 00 00 00", {"elements": 2}),
    ("any[]", "02 01 82 82 20 00 00", {"depth": 2}),
]

# Type descriptions, little-endian, and limits.
TYPES: list[tuple[str, dict[str, int]]] = [
    ("", {}),
    ("07", {}),
    ("fc", {}),
    ("fd01", {}),
    ("fd0100 ff", {}),
    ("fd0100", {}),
    ("fe01", {}),
    ("fe0100", {}),
    ("80", {}),
    ("80 0561", {}),
    ("80 00", {}),
    ("80 00 ff", {}),
    ("80 00 05", {}),
    ("80 00 02 0161 20 0161 20", {}),
    ("80 00 02 0161 20 0562 20", {}),
    ("80 00 01 0161 ff", {}),
    ("80 00 01 0161 80 00 01 0162 07", {}),
    ("81 00 01 0161 80 00 01 0162 07", {}),
    ("88", {}),
    ("88 20", {}),
    ("89 80 00 00", {}),
    ("88 ff", {}),
    ("83", {}),
    ("83 ff", {}),
    ("83 05", {"message": 4}),
    ("38 05", {"message": 4}),
    ("30 05", {"message": 4}),
    ("78 05", {"elements": 4}),
    ("80 02 6161 00", {"string": 1}),
    ("80 00 01 03616161 80 00 01 0162 20", {"string": 3}),
    ("80 00 01 0161 80 00 01 0162 20", {"depth": 1}),
    ("80 00 02 0161 fd0100 80 00 01 0178 20 0162 80 00 01 0163 fe0100", {"depth": 2}),
    ("80 00 02 0161 20 0162 20", {"type_nodes": 2}),
    ("80 00 02 0161 fd0100 80 00 02 0178 20 0179 20 0162 fe0100", {"type_nodes": 5}),
    ("fd0100 80 00 01 0161 20", {"registry_nodes": 1}),
    # Fifteen structures, each twice in the one around it: more than a megabyte of plans for 300 bytes.
    (
        "".join(f"80 00 02 0161 fd{i:02x}00 " for i in range(1, 16))
        + "80 00 00"
        + "".join(f"0162 fe{i:02x}00" for i in range(15, 0, -1)),
        {"type_nodes": 1 << 20, "expansion": 1},
    ),
]

# Streams of the framer, and limits.
STREAMS: list[tuple[str, dict[str, int]]] = [
    ("cb02000d 00000000", {}),
    ("ca00000d 00000000", {}),
    ("ca02400d 00000000", {}),
    ("ca02000d 05000000", {"message": 4}),
    ("ca02800d 00000005", {"message": 4}),
    ("ca02200d 00000000", {}),
    ("ca02300d 00000000", {}),
    ("ca02100d 01000000 61 ca02000d 00000000", {}),
    ("ca02100d 01000000 61 ca02100d 00000000", {}),
    ("ca02100d 01000000 61 ca02200c 00000000", {}),
    ("ca02100d 01000000 61 ca02a00d 00000000", {}),
    ("ca02100d 01000000 61 ca02300d 00000000 ca02200d 00000000", {"segments": 2}),
    ("ca02100d 03000000 616263 ca02200d 03000000 616263", {"message": 5}),
]

# Streams that end too early.
ENDS = ["ca", "ca02000d 05000000 6162", "ca02100d 01000000 61", "ca02000d 00000100" + "00" * 3000]

NUMBERS = ("boolean", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f32", "f64")


def cases(backend: SimpleNamespace) -> list[Case]:
    """The table, on one twin."""
    return [
        Case(f"{group.__name__}: {name}", call, error)
        for group in (bits_and_bytes, types, values, received, sent, rows, frames)
        for name, call, error in group(backend)
    ]


Rows = Iterator[tuple[str, Callable[[], Any], type[Exception]]]


def bits_and_bytes(backend: SimpleNamespace) -> Rows:
    Reader, Writer, BitSet = backend.buffer.Reader, backend.buffer.Writer, backend.bitset.BitSet
    for name in (*NUMBERS, "nullable_size", "size", "string", "address"):
        yield f"Reader.{name} of nothing", lambda name=name: getattr(Reader(b""), name)(), DecodeError
    for name in ("bytes", "skip"):
        yield f"Reader.{name} of too many", lambda name=name: getattr(Reader(b"ab"), name)(3), DecodeError
        yield f"Reader.{name} of -1", lambda name=name: getattr(Reader(b"ab"), name)(-1), ValueError
    tight = Limits(string=1)
    yield "Size cut short", lambda: Reader(b"\xfe\0\0").size(), DecodeError
    yield "null Size", lambda: Reader(b"\xff").size(), DecodeError
    yield "string cut short", lambda: Reader(b"\5ab").string(), DecodeError
    yield "string above the limit", lambda: Reader(b"\2ab", limits=tight).string(), LimitExceeded
    yield "Reader behind its data", lambda: Reader(b"ab", 3), ValueError
    yield "Reader of no buffer", lambda: Reader(5), TypeError
    yield "Reader of no byte order", lambda: Reader(b"", byteorder="middle"), ValueError
    yield "Writer of no byte order", lambda: Writer("middle"), ValueError
    writer = Writer()
    for name in NUMBERS[1:]:
        yield f"Writer.{name} of a text", lambda name=name: getattr(writer, name)("x"), EncodeError
    for name in NUMBERS[1:-2]:
        yield f"Writer.{name} out of range", lambda name=name: getattr(writer, name)(1 << 70), RangeError
    yield "Writer.f32 out of range", lambda: writer.f32(1e300), RangeError
    yield "Writer.size of -1", lambda: writer.size(-1), RangeError
    yield "Writer.string of a number", lambda: writer.string(5), EncodeError
    yield "Writer.string of a surrogate", lambda: writer.string("a\ud800"), EncodeError
    yield "Writer.bytes of a number", lambda: writer.bytes(5), TypeError
    yield "Writer.address of no address", lambda: writer.address("1.2.3"), EncodeError
    yield "patch_u32 of nothing", lambda: Writer().patch_u32(0, 1), ValueError
    written, large = Writer(), Writer()
    written.u32(1)
    large.bytes(bytes(65_536))
    yield "patch_u32 out of range", lambda: written.patch_u32(0, 1 << 32), RangeError
    yield "patch_u32 after a large buffer", lambda: large.patch_u32(0, 1), ValueError
    yield "BitSet of -1", lambda: BitSet([1, -1]), ValueError
    yield "BitSet of too large a number", lambda: BitSet([1 << 24]), ValueError
    yield "BitSet of a text", lambda: BitSet(["x"]), TypeError
    yield "BitSet of a half", lambda: BitSet([0.5]), TypeError
    yield "BitSet of nothing", lambda: BitSet.decode(b""), DecodeError
    yield "BitSet cut short", lambda: BitSet.decode(b"\2\1"), DecodeError
    yield "BitSet of null Size", lambda: BitSet.decode(b"\xff"), DecodeError


def types(backend: SimpleNamespace) -> Rows:
    FieldDesc, Codec = backend.introspection.FieldDesc, backend.codec.Codec
    for text, limits in TYPES:
        raw, codec = bytes.fromhex(text), functools.partial(Codec, limits=Limits(**limits))
        error = LimitExceeded if limits else DecodeError
        name = f"{text[:40]} {limits or ''}"
        yield name, lambda codec=codec, raw=raw: codec().decode_type(raw), error
        if text:
            yield f"any of {name}", lambda codec=codec, raw=raw: codec().decode_any(raw), error
    yield "from_bytes of the null type", lambda: FieldDesc.from_bytes(b"\xff"), DecodeError
    yield "from_bytes of too much", lambda: FieldDesc.from_bytes(b"\x20\0"), DecodeError
    yield "FieldDesc()", lambda: FieldDesc(), TypeError
    deep = wide = FieldDesc.structure()
    while deep.height < 100:
        deep = FieldDesc.structure("", a=deep)
    for _ in range(19):
        wide = FieldDesc.structure("", a=wide, b=wide)
    yield "too deep", lambda: FieldDesc.structure("", a=deep), EncodeError
    yield "array too deep", lambda: deep.array(), EncodeError
    yield "too many nodes", lambda: FieldDesc.structure("", a=wide, b=wide), EncodeError
    fd = FieldDesc.structure("", a="int8", s=FieldDesc.structure("", b="double"))
    for spec in (5, "nothing", "struct {int8 a", "string(4294967296)", "struct {int8 a; int8 a}", {"a": 5}):
        yield f"of {spec!r}", lambda spec=spec: FieldDesc.of(spec), EncodeError
    yield "a bound of bytes", lambda: FieldDesc.parse("struct {string(99999999999) a}"), EncodeError
    yield "id of bytes", lambda: FieldDesc.structure(b"x", a="int8"), EncodeError
    yield "member name of a number", lambda: FieldDesc.union("", [(5, "int8")]), EncodeError
    yield "member name twice", lambda: FieldDesc.union("", [("a", "int8"), ("a", "int8")]), EncodeError
    yield "no pairs", lambda: FieldDesc.structure("", [5]), TypeError
    yield "array of an array", lambda: FieldDesc.of("int8[]").array(), EncodeError
    yield "no style", lambda: fd.format("plain"), ValueError
    yield "no field", lambda: fd.index("x"), KeyError
    yield "no path", lambda: fd[("s", "x")], KeyError
    for method in ("node", "end"):
        yield f"{method} -1", lambda method=method: getattr(fd, method)(-1), IndexError
        yield f"{method} 9", lambda method=method: getattr(fd, method)(9), IndexError
    yield "set", lambda: setattr(fd, "code", 1), AttributeError
    yield "delete", lambda: delattr(fd, "code"), AttributeError


def values(backend: SimpleNamespace) -> Rows:
    FieldDesc, Value = backend.introspection.FieldDesc, backend.value.Value
    UnionValue, AnyValue = backend.value.UnionValue, backend.value.AnyValue
    fd = FieldDesc.of("struct {int8 a; struct {double b} s; struct[] {int8 a} l; union {int8 a} u; any v}")
    value, other = Value(fd, {"a": 1}), Value("struct {int8 a}")
    for name, item in (
        ("a", "x"),
        ("s", 5),
        ("s", {"x": 1}),
        ("s", {"b": "x"}),
        ("s", other),
        ("l", 5),
        ("l", [{"a": "x"}]),
        ("u", UnionValue("x", 1)),
        ("u", UnionValue("a", "x")),
        ("v", object),
        ("", 5),
    ):
        yield f"{name} = {item!r}", lambda name=name, item=item: value.__setitem__(name, item), EncodeError
    yield "a = 300", lambda: value.__setitem__("a", 300), RangeError
    yield "Value of another type", lambda: Value(fd, other), EncodeError
    yield "Value of no type", lambda: Value(5), EncodeError
    yield "Value of a number", lambda: Value("int8", "x"), EncodeError
    yield "no field to set", lambda: value.__setitem__("x", 1), KeyError
    yield "no field to get", lambda: value["s.x"], KeyError
    yield "no field to mark", lambda: value.mark("x"), KeyError
    yield "no field to unmark", lambda: value.unmark("x"), KeyError
    yield "no attribute", lambda: value.x, AttributeError
    yield "no attribute to set", lambda: setattr(value, "x", 1), AttributeError
    yield "a method to set", lambda: setattr(value, "copy", 1), AttributeError
    yield "a wrong attribute", lambda: setattr(value, "a", "x"), EncodeError
    yield "del v[...]", lambda: value.__delitem__("a"), TypeError
    yield "del v.a", lambda: delattr(value, "a"), AttributeError
    yield "a Value without a type", lambda: Value.__new__(Value).a, AttributeError
    yield "overlay of a number", lambda: value.overlay(5), TypeError
    yield "overlay of another type", lambda: value.overlay(other), EncodeError
    yield "state of another type", lambda: Value(fd).__setstate__(([None], [])), ValueError
    yield "state of a wrong leaf", lambda: other.__setstate__((["x"], [])), EncodeError
    yield "UnionValue of a number", lambda: UnionValue(5, 1), EncodeError
    yield "AnyValue of a wrong value", lambda: AnyValue("int8", "x"), EncodeError
    yield "AnyValue of no type", lambda: AnyValue("nothing", 1), EncodeError
    for made in (UnionValue("a", 1), AnyValue("int8", 1)):
        name = type(made).__name__
        yield f"set {name}", lambda made=made: setattr(made, "value", 2), AttributeError
        yield f"delete {name}", lambda made=made: delattr(made, "value"), AttributeError


def received(backend: SimpleNamespace) -> Rows:
    """Each damaged field by itself, in a structure, in an update, named and skipped, and as a row of columns."""
    FieldDesc, Codec, Message = backend.introspection.FieldDesc, backend.codec.Codec, backend.framing.Message
    Projection, Columns = backend.projection.Projection, backend.columns.Columns
    for text, field, limits in VALUES:
        leaf = FieldDesc.of(text)
        fd = FieldDesc.structure("", f=leaf)
        full = bytes.fromhex(field)
        update = b"\1\1" + full
        codec = functools.partial(Codec, limits=Limits(**limits))
        named, skipped = Projection(fd, ["f"]), Projection(fd, [])
        message = Message(2, 0x40, 13, bytes(5) + update)
        some = [
            (f"f.{name}", Projection(fd, [f"f.{name}"]))
            for name in (leaf.members if text.startswith("struct[]") else ())
        ]
        error = LimitExceeded if limits else DecodeError
        kinds = [("decode", fd), ("named", named), ("skipped", skipped), *some]
        for how, wanted in kinds:
            name = f"{how} {text} {field} {limits or ''}"
            yield name, lambda codec=codec, wanted=wanted, full=full: codec().decode(wanted, full), error
            yield (
                f"update {name}",
                lambda codec=codec, wanted=wanted, update=update: codec().decode_update(wanted, update),
                error,
            )
        name = f"{text} {field} {limits or ''}"
        yield (
            f"monitor {name}",
            lambda codec=codec, fd=fd, message=message: codec().decode_monitor(fd, message),
            error,
        )
        yield (
            f"row {name}",
            lambda codec=codec, fd=fd, update=update: Columns(fd, codec=codec()).add_update(update),
            error,
        )
        yield (
            f"rows {name}",
            lambda codec=codec, fd=fd, message=message: Columns(fd, codec=codec()).add([message]),
            error,
        )
    fd = FieldDesc.of("struct {int8 a; struct {double b} s}")
    other = backend.value.Value("struct {int8 a}")
    low, few = Limits(depth=1), Limits(type_nodes=2)
    broken = Codec()
    try:
        broken.decode_type(b"\x07")
    except DecodeError:
        pass
    for wanted in (fd, Projection(fd, ["a"])):
        name = wanted.__class__.__name__
        yield f"no BitSet, {name}", lambda wanted=wanted: Codec().decode_update(wanted, b""), DecodeError
        yield (
            f"BitSet cut short, {name}",
            lambda wanted=wanted: Codec().decode_update(wanted, b"\2\1"),
            DecodeError,
        )
        yield (
            f"another base, {name}",
            lambda wanted=wanted: Codec().decode_update(wanted, b"\1\2\5", base=other),
            LocalProtocolError,
        )
        yield f"broken codec, {name}", lambda wanted=wanted: broken.decode(wanted, b"\0"), LocalProtocolError
        yield (
            f"type too deep, {name}",
            lambda wanted=wanted: Codec(limits=low).decode(wanted, b"\0"),
            LimitExceeded,
        )
        yield (
            f"type of too many nodes, {name}",
            lambda wanted=wanted: Codec(limits=few).decode(wanted, b"\0"),
            LimitExceeded,
        )
    yield "broken codec, type", lambda: broken.decode_type(b"\x20"), LocalProtocolError
    yield "broken codec, any", lambda: broken.decode_any(b"\x20\0"), LocalProtocolError
    short = Message(2, 0x40, 13, bytes(3))
    yield "monitor update of three bytes", lambda: Codec().decode_monitor(fd, short), DecodeError
    no_overrun = Message(2, 0x40, 13, bytes(5) + b"\1\2\5")
    yield "monitor update without overruns", lambda: Codec().decode_monitor(fd, no_overrun), DecodeError
    # Null elements are a byte each on the wire and more in columns: refused for their weight before anything is made.
    heavy = FieldDesc.of(
        "struct {struct[] {double a; double b; double c; double d; double e; double f; double g} l}"
    )
    names = [f"l.{name}" for name in "abcdefg"]
    several = Projection(heavy, names)
    light = Limits(expansion=1)
    raw = b"\xfe" + struct.pack("<I", 20_000) + bytes(20_000)
    yield "columns of too much weight", lambda: Codec(limits=light).decode(several, raw), LimitExceeded
    hollow = FieldDesc.of("struct {struct[] {int8 a; string b} l}")
    full = b"\xfe" + struct.pack("<I", 3000) + b"\1\0\0" * 3000
    for wanted in (hollow, Projection(hollow, ["l.a"]), Projection(hollow, [])):
        yield (
            f"elements of too much weight, {wanted!r}",
            lambda wanted=wanted: Codec(limits=light).decode(wanted, full),
            LimitExceeded,
        )


def sent(backend: SimpleNamespace) -> Rows:
    """What was put into lists and arrays after they were set is met when it is encoded."""
    FieldDesc, Value, Codec = backend.introspection.FieldDesc, backend.value.Value, backend.codec.Codec
    UnionValue, AnyValue = backend.value.UnionValue, backend.value.AnyValue
    for text, given, wrong in (
        ("string[]", ["a"], 5),
        ("string[]", ["a"], "\ud800"),
        ("string<1>", ["a"], "b"),
        ("struct[] {int8 a} ", [{"a": 1}], {"a": "x"}),
        ("struct[] {int8 a} ", [{"a": 1}], 5),
        ("union[] {int8 a} ", [UnionValue("a", 1)], UnionValue("x", 1)),
        ("union[] {int8 a} ", [UnionValue("a", 1)], UnionValue("a", "x")),
        ("union[] {int8 a} ", [UnionValue("a", 1)], "x"),
        ("any[]", [AnyValue("int8", 1)], 5),
    ):
        value = Value(FieldDesc.structure("", f=text), {"f": given})
        value["f"].append(wrong)
        for ids in ("none", "pvaccess"):
            codec = Codec(ids=ids)
            name = f"{text} {wrong!r} {ids}"
            yield name, lambda codec=codec, value=value: codec.encode(value), EncodeError
            yield f"update {name}", lambda codec=codec, value=value: codec.encode_update(value), EncodeError
    for text, wrong in (
        ("string", "\ud800"),
        ("union {string a} ", UnionValue("a", "\ud800")),
        ("any", AnyValue("string", "\ud800")),
        ("struct {string a} ", {"a": "\ud800"}),
    ):
        value = Value(FieldDesc.structure("", f=text), {"f": wrong})
        yield f"{text} {wrong!r}", lambda value=value: Codec(ids="pvaccess").encode(value), EncodeError
    value = Value("struct {int8[2] f}", {"f": np.zeros(2, "int8")})
    value["f"].resize(3, refcheck=False)
    yield "an array of another length", lambda: Codec().encode(value), EncodeError
    fd = FieldDesc.of("struct {int8 a}")
    for wrong in (5, {"a": "x"}, {"x": 1}):
        yield f"encode {wrong!r}", lambda wrong=wrong: Codec().encode(wrong, fd), EncodeError
    for text, wrong in (
        ("int8", object),
        ("int8[]", "x"),
        ("string", 5),
        ("union {int8 a}", UnionValue("x", 1)),
        ("any", object),
    ):
        leaf = FieldDesc.of(text)
        yield (
            f"encode {text} {wrong!r}",
            lambda leaf=leaf, wrong=wrong: Codec().encode(wrong, leaf),
            EncodeError,
        )
    yield "encode without a type", lambda: Codec().encode(5), EncodeError
    yield "encode_any of a number", lambda: Codec().encode_any(5), EncodeError
    yield "no ids", lambda: Codec(ids="some"), ValueError
    named = FieldDesc.structure("\ud800", a="int8")
    yield "an id of a surrogate", lambda: Codec(ids="pvaccess").encode_type(named), EncodeError
    yield "an id of a surrogate, to_bytes", lambda: named.to_bytes(), EncodeError


def rows(backend: SimpleNamespace) -> Rows:
    """Columns, projections, losses and captured packets."""
    Columns, Projection, Message = (
        backend.columns.Columns,
        backend.projection.Projection,
        backend.framing.Message,
    )
    Losses, Update = backend.losses.Losses, backend.monitor.Update
    fd = backend.introspection.FieldDesc.of("struct {int8 a; double b}")
    good = Message(2, 0x40, 13, bytes(5) + b"\1\2\5\0")
    columns = Columns(fd, ["a"])
    yield "columns of no field", lambda: Columns(fd, ["a", "x"]), KeyError
    yield "columns of no type", lambda: Columns("nothing"), EncodeError
    yield "times of other rows", lambda: columns.add([good], [1, 2]), ValueError
    for message in (
        Message(2, 0x40, 12, bytes(5) + b"\1\2\5\0"),
        Message(2, 0x41, 13, bytes(8)),
        Message(2, 0x40, 13, bytes(4)),
        Message(2, 0x40, 13, bytes(4) + b"\x08\0"),
    ):
        name = f"{message.flags:02x} {message.command} {message.size}"
        yield f"no update {name}", lambda message=message: columns.add([message]), LocalProtocolError
    for text in ("01 02", "01 02 05 ff", "02 01", "01 02 05 02 01"):
        raw = bytes.fromhex(text)
        bad = Message(2, 0x40, 13, bytes(5) + raw)
        yield f"row {text}", lambda raw=raw: columns.add_update(raw), DecodeError
        yield f"rows {text}", lambda bad=bad: columns.add([bad]), DecodeError
    yield "messages of a number", lambda: columns.add(5), TypeError
    yield "column that was not chosen", lambda: columns["b"], KeyError
    yield "changed of what was not chosen", lambda: columns.changed("b"), KeyError
    yield "overrun of what was not chosen", lambda: columns.overrun("b"), KeyError
    yield "column of no field", lambda: columns["x"], KeyError
    yield "offsets of a number", lambda: columns.offsets("a"), TypeError
    yield "no row", lambda: columns.changed_bits(1 << 70), IndexError
    yield "no row before the first", lambda: columns.changed_bits(-1), IndexError
    projection = Projection(fd, ["a"])
    yield "fields of a text", lambda: Projection(fd, "a"), TypeError
    yield "fields that are not there", lambda: Projection(fd, ["a", "x"]), KeyError
    yield "projection of no type", lambda: Projection("nothing", []), EncodeError
    yield "set a projection", lambda: setattr(projection, "type", 1), AttributeError
    yield "delete of a projection", lambda: delattr(projection, "type"), AttributeError
    losses, wrong = Losses(), Update(None, good, 5)
    yield "no ticks", lambda: Losses(per_second=0), ValueError
    yield "no update", lambda: losses.add(5), TypeError
    yield "an update of a number", lambda: losses.add(wrong), TypeError
    lan = SimpleNamespace(link=1, clock=SimpleNamespace(per_second=1))
    plain = backend.packets.Plain({}, None)
    for position in (-1, 3):
        yield (
            f"pcap at {position}",
            lambda position=position: plain.pcap(b"ab", position, "<", lan),
            ValueError,
        )
        yield (
            f"pcapng at {position}",
            lambda position=position: plain.pcapng(b"ab", position, "<", [lan]),
            ValueError,
        )


def frames(backend: SimpleNamespace) -> Rows:
    Framer, Message, frame = backend.framing.Framer, backend.framing.Message, backend.framing.frame

    def read(raw: bytes, size: int, end: bool = False, **options: Any) -> None:
        framer = Framer(from_server=False, **options)
        for at in range(0, len(raw), size):
            framer.receive_data(raw[at : at + size])
        if end:
            framer.receive_eof()
        while framer.messages():
            pass

    def fill(raw: bytes, **options: Any) -> None:
        framer = Framer(from_server=False, **options)
        at = 0
        while at < len(raw):
            view = framer.get_buffer()
            n = min(len(view), len(raw) - at)
            view[:n] = raw[at : at + n]
            framer.buffer_updated(n)
            at += n
        while framer.messages():
            pass

    for text, limits in STREAMS:
        raw, given = bytes.fromhex(text), Limits(**limits)
        error = LimitExceeded if limits else DecodeError
        for size in (1, 5, 4096):
            name = f"{text} {limits or ''} by {size}"
            yield name, lambda raw=raw, size=size, given=given: read(raw, size, limits=given), error
        yield f"{text} {limits or ''} in place", lambda raw=raw, given=given: fill(raw, limits=given), error
    for text in ENDS:
        raw = bytes.fromhex(text)
        yield f"{text[:40]} and the end", lambda raw=raw: read(raw, 4096, end=True), DecodeError
    bad = bytes.fromhex(STREAMS[0][0])
    yield "an error and the end", lambda: read(bad, 4096, end=True), DecodeError
    large = bytes.fromhex(ENDS[-1])
    yield "allocate of too little", lambda: read(large, 4096, allocate=lambda n: bytearray(5)), ValueError
    yield "allocate of what is fixed", lambda: read(large, 4096, allocate=bytes), ValueError
    yield "allocate of no buffer", lambda: read(large, 4096, allocate=lambda n: 5), TypeError
    framer = Framer()
    yield "data of a number", lambda: framer.receive_data(5), TypeError
    yield "more than was lent", lambda: framer.buffer_updated(1), ValueError
    yield "less than nothing", lambda: framer.buffer_updated(-1), ValueError
    yield "a gap of -1", lambda: framer.gap(-1), ValueError
    for options in (
        {"version": 256},
        {"flags": -1},
        {"command": 256},
        {"offset": -1},
        {"size": 1 << 63},
        {"start": 1},
    ):
        yield f"Message of {options}", lambda options=options: Message(**options), ValueError
    yield "Message of no buffer", lambda: Message(data=5), TypeError
    for options in (
        {"flags": 0x10},
        {"segment_size": 0},
        {"segment_size": 1 << 32},
        {"version": 256},
        {"byteorder": "x"},
    ):
        yield f"frame of {options}", lambda options=options: frame(13, [b"ab"], **options), ValueError
    yield "frame of a number", lambda: frame(13, [b"ab", 5]), TypeError
    mebibyte = [bytes(1 << 20)] * 4096
    yield "frame of 4 GiB", lambda: frame(13, mebibyte), EncodeError
    for options in ({"value": 1 << 32}, {"command": 256}, {"byteorder": "x"}):
        arguments = {"command": 2} | options
        yield (
            f"control of {options}",
            lambda arguments=arguments: backend.framing.control(**arguments),
            ValueError,
        )

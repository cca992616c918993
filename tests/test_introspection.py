"""FieldDesc: every form of type from Python, as text and on the wire; its nodes; what is refused."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import wire
from pvafast.errors import DecodeError, EncodeError

FORMS = [
    (f"{name}{form}", bytes([code | bits]) + tail)
    for name, (code, _) in wire.SCALARS.items()
    for form, bits, tail in (("", 0, b""), ("[]", 8, b""), ("<16>", 0x10, b"\x10"), ("[4]", 0x18, b"\x04"), ("[0]", 0x18, b"\x00"))
] + [("any", b"\x82"), ("any[]", b"\x8a"), ("string(8)", b"\x83\x08"), ("string(0)", b"\x83\x00")]  # fmt: skip

# 0 root, 1 a, 2 s, 3 s.b, 4 s.t, 5 s.t.c, 6 e, 7 u, 8 q, 9 z
TREE = wire.structure(
    "top",
    a="double",
    s=wire.structure("mid", b="int8", t=wire.structure("low", c="string[]")),
    e=wire.structure(),
    u=wire.Compound("union", "pick", (("x", "int8"), ("y", wire.structure(v="any")))),
    q=wire.Compound("struct[]", "row", (("k", "int32"),)),
    z="any",
)


def rebuilt(fd: Any) -> Any:
    """What unpickling does (pickle itself takes classes of the twin in use only)."""
    make, arguments = fd.__reduce__()
    return make(*arguments)


@pytest.fixture
def of(backend: SimpleNamespace) -> Any:
    return backend.introspection.FieldDesc.of


@pytest.fixture
def tree(backend: SimpleNamespace) -> Any:
    return wire.build(backend, TREE)


@pytest.mark.parametrize(("text", "raw"), FORMS)
@pytest.mark.parametrize("order", wire.ORDERS)
def test_every_form(backend: SimpleNamespace, of: Any, text: str, raw: bytes, order: str) -> None:
    fd = of(text)
    assert fd.to_bytes(order) == raw
    assert fd.format("short") == text
    made, end = backend.codec.Codec().decode_type(raw + b"\xff", byteorder=order)
    assert (made, end) == (fd, len(raw))
    assert hash(made) == hash(fd)
    assert made.code == raw[0]
    assert made.bound == (raw[1] if len(raw) > 1 else 0)
    assert (len(made), made.names, made.members, made.is_structure) == (1, ("",), {}, False)
    assert made == of(str(made)) == of(made.format("pvinfo"))
    assert rebuilt(made) == made
    for n in range(len(raw)):
        with pytest.raises(DecodeError, match="need"):
            backend.codec.Codec().decode_type(raw[:n], byteorder=order)


@pytest.mark.parametrize(
    ("order", "size"), [("little", b"\xfe\x00\x01\x00\x00"), ("big", b"\xfe\x00\x00\x01\x00")]
)
def test_long_bounds(backend: SimpleNamespace, of: Any, order: str, size: bytes) -> None:
    for text, code in (("int8[256]", 0x38), ("double<256>", 0x53), ("string(256)", 0x83)):
        assert of(text).to_bytes(order) == bytes([code]) + size
        assert backend.codec.Codec().decode_type(bytes([code]) + size, byteorder=order)[0] == of(text)


@pytest.mark.parametrize(
    "code",
    sorted(set(range(256)) - {raw[0] for _, raw in FORMS} - {0x80, 0x81, 0x88, 0x89, 0xFD, 0xFE, 0xFF}),
)
def test_every_other_code_is_refused(backend: SimpleNamespace, code: int) -> None:
    for raw in (
        bytes([code]),
        bytes([code]) + b"\x01" * 20,
        b"\x80\x00\x01\x01m" + bytes([code]) + b"\x01" * 20,
    ):
        with pytest.raises(DecodeError) as caught:
            backend.codec.Codec().decode_type(raw)
        assert (
            "tagged type id" in caught.value.reason
            or f"unknown type code 0x{code:02x}" in caught.value.reason
        )
        assert caught.value.path == ("m" if raw[0] == 0x80 else "")


@pytest.mark.parametrize(
    ("spellings", "raw"),
    [
        (("bool", "boolean"), "00"),
        (("int8", "int8_t", "byte"), "20"),
        (("int16", "int16_t", "short"), "21"),
        (("int32", "int32_t", "int"), "22"),
        (("int64", "int64_t", "long"), "23"),
        (("uint8", "uint8_t", "ubyte"), "24"),
        (("uint16", "uint16_t", "ushort"), "25"),
        (("uint32", "uint32_t", "uint"), "26"),
        (("uint64", "uint64_t", "ulong"), "27"),
        (("float", "float32"), "42"),
        (("double", "float64", " double "), "43"),
        (("int[]", "int32_t[ ]", "int32[]"), "2a"),
        (("byte<3>", "int8< 3 >"), "3003"),
    ],
)
def test_spellings(of: Any, spellings: tuple[str, ...], raw: str) -> None:
    assert {of(text) for text in spellings} == {of(spellings[0])}
    assert of(spellings[0]).to_bytes().hex() == raw


def test_nodes(tree: Any) -> None:
    assert tree.names == ("", "a", "s", "s.b", "s.t", "s.t.c", "e", "u", "q", "z")
    assert list(tree) == list(tree.names)
    assert [tree.end(i) for i in range(10)] == [10, 2, 6, 4, 6, 6, 7, 8, 9, 10]
    assert [i for i in range(10) if not tree.is_leaf(i)] == [0, 2, 4, 6]
    assert tree.node(0) is tree
    assert tree.node(4).id == "low"
    for i, name in enumerate(tree.names):
        path = tuple(name.split(".")) if name else ()
        assert tree.index(name) == tree.index(path) == i
        assert tree[name] == tree[path] == tree.node(i)
        assert name in tree
        assert path in tree
    for bad in ("x", "s.x", "u.x", "q.k", "s.", ".s", ("s", "x"), ("s.b",), ("a", "b")):
        assert bad not in tree
        with pytest.raises(KeyError):
            tree.index(bad)
        with pytest.raises(KeyError):
            tree[bad]
    assert 5 not in tree
    for i in (-1, 10, 1 << 40):
        for look in (tree.node, tree.end, tree.is_leaf):
            with pytest.raises(IndexError, match="there are 10"):
                look(i)


def test_parts(of: Any, tree: Any) -> None:
    assert (tree.id, tree.code, tree.is_structure) == ("top", 0x80, True)
    assert list(tree.members) == ["a", "s", "e", "u", "q", "z"]
    assert (tree["q"].id, tree["q"].code, list(tree["q"].members)) == ("row", 0x88, ["k"])
    assert tree["q"].element == tree["q"].element.array().element
    assert tree["q"].element.is_structure
    assert (tree["u"].id, tree["u"].code, list(tree["u"].members), tree["u"].is_structure) == (
        "pick",
        0x81,
        ["x", "y"],
        False,
    )
    assert tree["u"].array().code == 0x89
    assert of("any").array() == of("any[]")
    assert of("any[]").element == of("any")
    assert of("int16").array() == of("int16[]")
    assert of("int16[7]").element == of("int16")
    for scalar in ("double", "int32"):
        assert of(scalar).element is None
    with pytest.raises(TypeError):
        tree.members["new"] = of("int8")
    for text in ("int8[]", "int8[3]", "int8<3>", "any[]", "string(3)"):
        with pytest.raises(EncodeError, match="no arrays of"):
            of(text).array()
    with pytest.raises(EncodeError, match="no arrays of"):
        tree.array().array()


def test_dtypes(of: Any) -> None:
    for name, format in wire.NUMBERS.items():
        for form in ("", "[]", "<2>", "[2]"):
            assert of(name + form).dtype == np.dtype(format)
            assert of(name + form).dtype.isnative
    for text in ("string", "string[]", "any", "string(2)"):
        assert of(text).dtype is None
    assert of({"a": "double"}).dtype is None


def test_frozen(backend: SimpleNamespace, tree: Any) -> None:
    for name in ("code", "id", "bound", "members", "new"):
        with pytest.raises(AttributeError, match="frozen"):
            setattr(tree, name, 1)
        with pytest.raises(AttributeError, match="frozen"):
            delattr(tree, name)
    assert copy.copy(tree) is copy.deepcopy(tree) is tree
    with pytest.raises(TypeError, match="use FieldDesc"):
        backend.introspection.FieldDesc()
    assert backend.introspection.FieldDesc.__module__ == "pvafast"


def test_equality_is_of_structure(backend: SimpleNamespace, tree: Any) -> None:
    again = wire.build(backend, TREE)
    assert again is not tree
    assert again == tree
    assert hash(again) == hash(tree)
    assert len({again, tree}) == 1
    others = [
        TREE._replace(id="other"),
        TREE._replace(members=TREE.members[::-1]),
        TREE._replace(members=TREE.members[:-1]),
        TREE._replace(members=(*TREE.members[:-1], ("zz", "any"))),
        TREE._replace(members=(*TREE.members[:-1], ("z", "any[]"))),
        TREE._replace(kind="union"),
        TREE._replace(kind="struct[]"),
    ]
    for other in others:
        assert wire.build(backend, other) != tree
    assert tree != "struct"
    of = backend.introspection.FieldDesc.of
    assert len({of(text) for text in ("int8[3]", "int8[4]", "int8<3>", "int8[]", "int8", "uint8")}) == 6


def test_odd_names(backend: SimpleNamespace) -> None:
    """A path wins over a name with a dot; the tuple of exact names reaches everything."""
    fd = backend.introspection.FieldDesc.structure(
        "",
        [
            ("a.b", "int8"),
            ("a", {"b": "int16", "": "int32"}),
            ("", "int64"),
            ("in-valid", "bool"),
            ("é", "string"),
        ],
    )
    assert fd.names == ("", "a.b", "a", "a.b", "a.", "", "in-valid", "é")
    assert fd.index("a.b") == 3
    assert fd.index(("a.b",)) == 1
    assert fd.index("a.") == fd.index(("a", "")) == 4
    assert fd.index("") == 0
    assert fd.index(("",)) == 5
    assert backend.introspection.FieldDesc.from_bytes(fd.to_bytes()) == fd
    alone = backend.introspection.FieldDesc.structure("", [("a.b", {"c.d": "int8"})])
    assert alone.index("a.b") == 1
    assert alone.index("a.b.c.d") == alone.index(("a.b", "c.d")) == 2


def test_building(backend: SimpleNamespace) -> None:
    make = backend.introspection.FieldDesc
    wanted = make.structure("s", {"a": "int8", "id": "double", "members": {"x": "any"}})
    assert make.structure("s", [("a", "int8"), ("id", make.of("double"))], members={"x": "any"}) == wanted
    assert make.structure("s", a="int8", id="double", members=make.of({"x": "any"})) == wanted
    assert make.structure() == make.of({}) == make.structure("")
    assert make.union() != make.structure()
    assert (make.union("u", x="int8").to_bytes(), make.union().to_bytes()) == (
        b"\x81\x01u\x01\x01x\x20",
        b"\x81\x00\x00",
    )
    for wrong in (
        lambda: make.structure(5),
        lambda: make.structure("", {5: "int8"}),
        lambda: make.structure("", {"a": "int8"}, a="int8"),
        lambda: make.union("", [("a", "int8"), ("a", "int8")]),
        lambda: make.structure("", {"a": None}),
        lambda: make.of("int8(3)"),
        lambda: make.of("any<3>"),
        lambda: make.of("integer"),
        lambda: make.of("int8[4294967296]"),
        lambda: make.of(5),
    ):
        with pytest.raises(EncodeError):
            wrong()


def test_types_without_end_are_refused(backend: SimpleNamespace) -> None:
    make = backend.introspection.FieldDesc
    wide, deep = [make.of("int8")], [make.of("int8")]
    while len(wide) < 20:
        wide.append(make.structure("", a=wide[-1], b=wide[-1]))
    with pytest.raises(EncodeError, match="a type of 1048577 nodes; the most is 1048576"):
        make.structure("", [(str(i), t) for i, t in enumerate((wide[-1], make.of("int8")))])
    while len(deep) < 101:
        deep.append(make.structure("", a=deep[-1]))
    for further in (make.structure, make.union):
        with pytest.raises(EncodeError, match="nested 101 deep; the most is 100"):
            further("", a=deep[-1])
    with pytest.raises(EncodeError, match="nested 101 deep; the most is 100"):
        deep[-1].array()


def test_large_and_deep_types_pickle(backend: SimpleNamespace) -> None:
    """What the program may make comes back, whatever the limits on bytes from outside."""
    make = backend.introspection.FieldDesc
    deep = make.of("int8")
    for _ in range(100):
        deep = make.structure("", a=deep)
    wide = make.structure("", {f"m{i}": "int8" for i in range(20_000)})
    for fd in (deep, wide):
        assert make.from_bytes(fd.to_bytes()) == fd
        assert rebuilt(fd) == fd


def test_from_bytes_takes_all_of_them(backend: SimpleNamespace) -> None:
    read = backend.introspection.FieldDesc.from_bytes
    with pytest.raises(DecodeError, match="1 bytes after the type"):
        read(b"\x22\x22")
    with pytest.raises(DecodeError, match="null type"):
        read(b"\xff")
    with pytest.raises(ValueError, match="byteorder"):
        read(b"\x22", "<")
    assert read(memoryview(b"\x22")) == read(bytearray(b"\x22"))


def test_wide_types_are_quick(backend: SimpleNamespace) -> None:
    """Nothing is quadratic in the members: 16,000 of them, with dots in their names."""
    n = 16_000
    fd = backend.introspection.FieldDesc.structure("", {f"{i}.x": "int8" for i in range(n)})
    v = backend.value.Value(fd)
    assert fd.index(f"{n - 1}.x") == fd.index((f"{n - 1}.x",)) == n
    assert len(v.to_dict()) == n
    assert v == v.copy()
    v.mark("")
    assert len(v.changed_names()) == n
    assert len(str(v).splitlines()) == n + 2


def test_the_cache_is_bounded(backend: SimpleNamespace) -> None:
    """Ever new types do not fill the memory."""
    import tracemalloc

    def feed(start: int, count: int) -> None:
        codec = backend.codec.Codec()
        for i in range(start, start + count):
            codec.decode_type(b"\x80\x00\x02\x28" + b"%040d" % i + b"\x22\xfc" + b"n" * 252 + b"\x22")
        for i in range(start, start + 20):
            long = b"%06d" % i + b"n" * 60_000
            codec.decode_type(b"\x80\x00\x01\xfe" + len(long).to_bytes(4, "little") + long + b"\x22")

    feed(0, 20_000)
    tracemalloc.start()
    try:
        feed(100_000, 10)
        before, _ = tracemalloc.get_traced_memory()
        feed(200_000, 20_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20 << 20


def test_a_known_type_is_held_to_other_limits(backend: SimpleNamespace) -> None:
    """The error is that of a type met first, and it ends the codec as well."""
    from pvafast.errors import LimitExceeded, LocalProtocolError
    from pvafast.limits import Limits

    raw = b"\x80\x00\x02\x28" + b"x" * 40 + b"\x80\x00\x01\x01a\x22\x01b\x22"
    backend.codec.Codec().decode_type(raw)
    for limits, limit, offset, path in (
        (Limits(depth=1), "depth", 49, "x" * 40 + ".a"),
        (Limits(type_nodes=3), "type_nodes", 52, "b"),
        (Limits(string=10), "string", 4, ""),
    ):
        codec = backend.codec.Codec(limits=limits)
        with pytest.raises(LimitExceeded) as caught:
            codec.decode_type(raw)
        assert (caught.value.limit, caught.value.offset, caught.value.path) == (limit, offset, path)
        with pytest.raises(LocalProtocolError):
            codec.decode_type(raw)

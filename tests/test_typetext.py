"""Types as text: the layouts of pvxs and pvinfo as those libraries print them, and everything read back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvafast._types import (
    ANY,
    ANY_ARRAY,
    BOUNDED,
    BOUNDED_STRING,
    FIXED,
    SCALAR_FORMS,
    SCALARS,
    STRUCTURE,
    STRUCTURE_ARRAY,
    UNION,
    UNION_ARRAY,
)
from pvafast._typetext import Spec, format_pvinfo, format_pvxs, format_short, parse
from pvafast.errors import EncodeError
from pvafast.limits import Limits


@dataclass(frozen=True)
class Type:
    """The attributes of a FieldDesc that printing reads."""

    code: int
    bound: int
    id: str
    members: Mapping[str, Type]


def typed(spec: Spec) -> Type:
    return Type(spec.code, spec.bound, spec.id, {name: typed(member) for name, member in spec.members})


def spec(code: int, *members: tuple[str, Spec], id: str = "", bound: int = 0) -> Spec:
    return Spec(code, bound, id, members)


INT = Spec(0x22)
DOUBLE = Spec(0x43)
EVERYTHING = spec(
    STRUCTURE,
    ("value", DOUBLE),
    ("ai", Spec(0x2A)),
    (
        "u",
        spec(
            UNION,
            ("x", INT),
            ("s", spec(STRUCTURE, ("q", Spec(0x68)), id="sid")),
            ("ua", spec(UNION_ARRAY, ("k", INT))),
            ("va", Spec(ANY_ARRAY)),
            ("sa", spec(STRUCTURE_ARRAY, ("k", INT), id="z")),
            id="uid",
        ),
    ),
    ("au", spec(UNION_ARRAY, ("x", INT))),
    ("as", spec(STRUCTURE_ARRAY, ("x", Spec(0x4B)), ("inv", Spec(ANY)), id="dim_t")),
    ("v", Spec(ANY)),
    ("av", Spec(ANY_ARRAY)),
    ("e", spec(STRUCTURE, id="e")),
    ("e0", spec(STRUCTURE)),
    ("n", spec(STRUCTURE, ("m", spec(STRUCTURE, ("k", INT), id="mid")))),
    id="epics:nt/NTScalar:1.0",
)

# Printed by `std::cout << pvxs::TypeDef` of pvxs 1.5.3.
PVXS = """\
struct "epics:nt/NTScalar:1.0" {
    double value
    int32_t[] ai
    union "uid" {
        int32_t x
        struct "sid" {
            string[] q
        } s
        union[] {
            int32_t k
        } ua
        any[] va
        struct[] "z" {
            int32_t k
        } sa
    } u
    union[] {
        int32_t x
    } au
    struct[] "dim_t" {
        double[] x
        any inv
    } as
    any v
    any[] av
    struct "e" e
    struct e0
    struct {
        struct "mid" {
            int32_t k
        } m
    } n
}"""

# Printed by `std::cout << epics::pvData::Field` of pvDataCPP 8.0.7, as pvinfo does.
PVINFO = """\
epics:nt/NTScalar:1.0
    double value
    int[] ai
    uid u
        int x
        sid s
            string[] q
        union[] ua
            union[]
                union
                    int k
        any[] va
            any[]
                any
        z[] sa
            z[]
                z
                    int k
    union[] au
        union
            int x
    dim_t[] as
        dim_t
            double[] x
            any inv
    any v
    any[] av
        any
    e e
    structure e0
    structure n
        mid m
            int k"""

SHORT = (
    "epics:nt/NTScalar:1.0{double value, int32[] ai, union uid{int32 x, sid{string[] q} s, "
    "union{int32 k}[] ua, any[] va, z{int32 k}[] sa} u, union{int32 x}[] au, "
    "dim_t{double[] x, any inv}[] as, any v, any[] av, e{} e, struct{} e0, struct{mid{int32 k} m} n}"
)

# code, as pvxs and as pvinfo print it (bounded and fixed forms: pvinfo; pvxs has none)
SIMPLE = [
    (0x00, 0, "bool", "boolean"),
    (0x20, 0, "int8_t", "byte"),
    (0x21, 0, "int16_t", "short"),
    (0x22, 0, "int32_t", "int"),
    (0x23, 0, "int64_t", "long"),
    (0x24, 0, "uint8_t", "ubyte"),
    (0x25, 0, "uint16_t", "ushort"),
    (0x26, 0, "uint32_t", "uint"),
    (0x27, 0, "uint64_t", "ulong"),
    (0x42, 0, "float", "float"),
    (0x43, 0, "double", "double"),
    (0x60, 0, "string", "string"),
    (0x08, 0, "bool[]", "boolean[]"),
    (0x2C, 0, "uint8_t[]", "ubyte[]"),
    (0x68, 0, "string[]", "string[]"),
    (0x30, 16, "int8_t<16>", "byte<16>"),
    (0x38, 4, "int8_t[4]", "byte[4]"),
    (0x18, 3, "bool[3]", "boolean[3]"),
    (0x70, 8, "string<8>", "string<8>"),
    (0x83, 8, "string(8)", "string(8)"),
    (0x82, 0, "any", "any"),
    (0x8A, 0, "any[]", "any[]\n    any"),
]


def test_pvxs_form() -> None:
    assert format_pvxs(typed(EVERYTHING)) == PVXS
    assert parse(PVXS) == EVERYTHING
    assert parse(PVXS + "\n") == EVERYTHING


def test_pvinfo_form() -> None:
    assert format_pvinfo(typed(EVERYTHING)) == PVINFO
    wanted = as_pvinfo_says(EVERYTHING)
    assert wanted is None  # for the sake of `e e`
    text = PVINFO.replace("    e e\n", '    "e" e\n')
    assert parse(text).members[2] == ("u", EVERYTHING.members[2][1]._replace(code=STRUCTURE))
    assert parse(text)._replace(members=()) == EVERYTHING._replace(members=())
    assert parse(text).members[3:] == EVERYTHING.members[3:]


def test_short_form() -> None:
    assert format_short(typed(EVERYTHING)) == SHORT
    assert parse(SHORT) == EVERYTHING


@pytest.mark.parametrize(("code", "bound", "pvxs", "pvinfo"), SIMPLE)
def test_simple_types(code: int, bound: int, pvxs: str, pvinfo: str) -> None:
    wanted = Spec(code, bound)
    assert format_pvxs(typed(wanted)) == pvxs
    assert format_pvinfo(typed(wanted)) == pvinfo
    assert parse(pvxs) == parse(pvinfo) == parse(format_short(typed(wanted))) == wanted


def test_top_level_compounds() -> None:
    union = spec(UNION, ("x", INT))
    array = spec(STRUCTURE_ARRAY, ("x", Spec(0x4B)), id="dim_t")
    assert format_pvinfo(typed(union)) == "union\n    int x"
    assert format_pvinfo(typed(array)) == "dim_t[]\n    dim_t\n        double[] x"
    assert format_pvinfo(typed(spec(STRUCTURE))) == "structure"
    assert format_pvxs(typed(array)) == 'struct[] "dim_t" {\n    double[] x\n}'
    for each in (union, array, spec(STRUCTURE), spec(UNION), spec(STRUCTURE_ARRAY), spec(UNION_ARRAY)):
        assert parse(format_pvxs(typed(each))) == each
        assert parse(format_pvinfo(typed(each))) == each
        assert parse(format_short(typed(each))) == each


def test_name_and_indent() -> None:
    alarm = typed(spec(STRUCTURE, ("severity", INT), id="alarm_t"))
    assert format_pvxs(alarm, "alarm", 1) == '    struct "alarm_t" {\n        int32_t severity\n    } alarm'
    assert format_pvinfo(alarm, "alarm", 1) == "    alarm_t alarm\n        int severity"


# Printed by `pvxinfo` (a pvxs Value without its values): the ids of structure arrays are not shown, braces always.
def test_pvxinfo_form() -> None:
    text = 'struct {\n    struct "e" {} e\n    struct {} e0\n    union {} eu\n    struct[] {\n        int8_t a\n    } s\n}'
    assert parse(text) == spec(
        STRUCTURE,
        ("e", spec(STRUCTURE, id="e")),
        ("e0", spec(STRUCTURE)),
        ("eu", spec(UNION)),
        ("s", spec(STRUCTURE_ARRAY, ("a", Spec(0x20)))),
    )


@pytest.mark.parametrize(
    "text",
    [
        "alarm_t { int severity }",
        "struct alarm_t {int32 severity;}",
        "structure alarm_t{\tint32_t\n severity , }",
        '"alarm_t"{int severity}',
        'struct "alarm_t" { int "severity" }',
        '"alarm_t"\n  int severity',
        "alarm_t\n\tint    severity\n\n",
        "\n    alarm_t\n        int severity\n",
        "alarm_t\r\n    int severity\r\n",
    ],
)
def test_free_layout(text: str) -> None:
    assert parse(text) == spec(STRUCTURE, ("severity", INT), id="alarm_t")


def test_names_that_are_words_of_the_language() -> None:
    text = "struct{double double, struct{} struct, any any, union{int int} union, struct{int x} string}"
    wanted = spec(
        STRUCTURE,
        ("double", DOUBLE),
        ("struct", spec(STRUCTURE)),
        ("any", Spec(ANY)),
        ("union", spec(UNION, ("int", INT))),
        ("string", spec(STRUCTURE, ("x", INT))),
    )
    assert parse(text) == wanted
    for form in (format_pvxs, format_pvinfo, format_short):
        assert parse(form(typed(wanted))) == wanted


def test_ids_that_are_words_of_the_language() -> None:
    wanted = spec(
        STRUCTURE,
        *(
            (f"a{i}", spec(STRUCTURE, ("x", INT), id=id))
            for i, id in enumerate(("struct", "union", "double", "any"))
        ),
        *((f"b{i}", spec(STRUCTURE, id=id)) for i, id in enumerate(("struct", "union", "double", "any"))),
        *(
            (f"c{i}", spec(STRUCTURE_ARRAY, ("x", INT), id=id))
            for i, id in enumerate(("struct", "double", "any"))
        ),
        ("d", spec(STRUCTURE_ARRAY, id="double")),
    )
    for form in (format_pvxs, format_pvinfo, format_short):
        assert parse(form(typed(wanted))) == wanted
    # As pvDataCPP would print them.
    assert parse(
        "x_t\n    double a\n        int b\n    any c\n        int d\n    any[] e\n        any\n            int f"
    ) == spec(
        STRUCTURE,
        ("a", spec(STRUCTURE, ("b", INT), id="double")),
        ("c", spec(STRUCTURE, ("d", INT), id="any")),
        ("e", spec(STRUCTURE_ARRAY, ("f", INT), id="any")),
        id="x_t",
    )


def test_odd_names_are_escaped() -> None:
    odd = spec(
        STRUCTURE, ("in-valid", INT), ("", INT), ('a"b\\\n', INT), ("a b", INT), ("é", INT), ("\udcff", INT)
    )
    text = format_short(typed(odd))
    assert text == (
        'struct{int32 in-valid, int32 "", int32 "a\\"b\\\\\\n", int32 "a b", int32 é, int32 "\\udcff"}'
    )
    assert parse(text) == odd
    empty = spec(STRUCTURE, ("a b", spec(STRUCTURE)), ("c d", spec(UNION, id="x y")))
    assert format_pvxs(typed(empty)) == 'struct {\n    struct {} "a b"\n    union "x y" {} "c d"\n}'
    assert parse(format_pvxs(typed(empty))) == empty
    assert parse('struct{int "\\x41\\u00e9\\U0001f600"}').members[0][0] == "Aé😀"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: expected a type, found the end"),
        ("\n  ", "line 2, column 3: expected a type, found the end"),
        ("dobule", "line 1, column 1: unknown type `dobule`"),
        ("double x", "line 1, column 8: expected the end of the line, found `x`"),
        ("double[", "line 1, column 7: unexpected `[`"),
        ("double[-1]", "line 1, column 7: unexpected `[`"),
        ("double(8)", "line 1, column 7: only a string has a length in parentheses, not double"),
        ("any[4]", "line 1, column 4: expected the end of the line, found a length of 4"),
        ("struct<4>", "line 1, column 7: expected the end of the line, found a length of 4"),
        ("int8<99999999999999999999>", f"line 1, column 5: a length above {1 << 30} (Limits.message)"),
        ("{", "line 1, column 1: expected a type, found `{`"),
        ("struct {", "line 1, column 9: expected a type, found the end"),
        ("struct {\n  double\n}", "line 3, column 1: expected a member name, found `}`"),
        ("struct {\n  dobule x\n}", "line 2, column 3: unknown type `dobule`"),
        ("struct {} x", "line 1, column 11: expected the end of the type, found `x`"),
        ("struct{int a, int a}", "line 1, column 19: member `a` a second time"),
        ('struct "a', "line 1, column 8: a string without its closing quote"),
        ('struct{int "\\q"}', "line 1, column 12: unknown escape `\\q`"),
        ('struct{int "\\ud800"}', "line 1, column 12: `\\ud800` is no character"),
        ("a_t\n    int b\n  int c", "line 3, column 3: indented unlike the members above"),
        ("a_t\n    int\n    int c", "line 3, column 5: expected the name of the `int` above, found `int`"),
        ("a_t\n    int b\n        int c\n", None),
        ("a_t\n    foo b", "line 2, column 5: unknown type `foo`"),
        ("a_t\n    int b\n    int b", "line 3, column 9: member `b` a second time"),
    ],
)
def test_errors_say_where(text: str, message: str | None) -> None:
    if message is None:  # a structure whose id is "int" is odd, but legal
        assert parse(text).members[0][1].id == "int"
        return
    with pytest.raises(EncodeError) as caught:
        parse(text)
    assert str(caught.value) == f"type text, {message}"
    assert isinstance(caught.value, ValueError)


def nested(levels: int) -> str:
    return "struct{" * levels + "int x" + "} x" * (levels - 1) + "}"


def test_depth_limit() -> None:
    parse(nested(20))
    with pytest.raises(EncodeError, match=r"nested deeper than 20 \(Limits.depth\)"):
        parse(nested(21))
    lines = ["structure"] + ["    " * i + "structure x" for i in range(1, 20)]
    parse("\n".join([*lines, "    " * 20 + "int x"]))
    with pytest.raises(EncodeError, match=r"nested deeper than 20 \(Limits.depth\)"):
        parse("\n".join([*lines, "    " * 20 + "structure x", "    " * 21 + "int x"]))
    deep = Limits(depth=100)
    assert parse(nested(100), limits=deep) == parse(
        format_pvinfo(typed(parse(nested(100), limits=deep))), limits=deep
    )
    with pytest.raises(EncodeError, match="nested deeper"):
        parse(nested(1_000))


def test_node_limit() -> None:
    few = Limits(type_nodes=4)
    parse("struct{int a, int b, int c}", limits=few)
    with pytest.raises(EncodeError, match=r"more than 4 nodes \(Limits.type_nodes\)"):
        parse("struct{int a, int b, int c, int d}", limits=few)
    with pytest.raises(EncodeError, match=r"more than 4 nodes \(Limits.type_nodes\)"):
        parse("struct{struct[]{int c} a, int d}", limits=few)


@pytest.mark.parametrize(
    "text",
    ["struct{" * 500_000, "int " * 500_000, "x\n" * 500_000, '"' * 500_001, "[" * 500_000, "<" + "9" * 500_000 + ">",
     "a_t\n" + "  int x\n" * 200_000, "[" + " " * 500_000, '"' + "\\" * 500_001, "," * 500_000],
    ids=range(10),
)  # fmt: skip
def test_hostile_text_is_refused_soon(text: str) -> None:
    start = time.process_time()
    with pytest.raises(EncodeError):
        parse(text)
    assert time.process_time() - start < 10  # work that grows with the square would take hours


# Properties.

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["value", "struct", "double", "in-valid", "a.b", "any", "\udc80x", "[]", "x[]", "{", "union", "\\", '"']
)
bounds = st.integers(0, 1 << 30)
leaves = (
    st.sampled_from(sorted([*SCALARS, *(code | 8 for code in SCALARS), ANY, ANY_ARRAY])).map(
        lambda code: Spec(code)
    )
    | st.tuples(st.sampled_from([c for c in sorted(SCALAR_FORMS) if c & BOUNDED]), bounds).map(
        lambda x: Spec(*x)
    )
    | bounds.map(lambda bound: Spec(BOUNDED_STRING, bound))
)


def compounds(children: st.SearchStrategy[Spec]) -> st.SearchStrategy[Spec]:
    codes = st.sampled_from([STRUCTURE, UNION, STRUCTURE_ARRAY, UNION_ARRAY])
    members = st.dictionaries(names, children, max_size=4).map(lambda found: tuple(found.items()))
    return st.tuples(codes, st.just(0), names, members).map(lambda parts: Spec(*parts))


specs = st.recursive(leaves, compounds, max_leaves=12)


def as_pvinfo_says(spec: Spec) -> Spec | None:
    """What is left of a type after printing as pvinfo does; None if it cannot be read back."""
    code, bound, id, members = spec
    kept = tuple((name, as_pvinfo_says(member)) for name, member in members)
    if any(member is None for _, member in kept):
        return None
    if code in (STRUCTURE, STRUCTURE_ARRAY, UNION, UNION_ARRAY):
        default = "structure" if code in (STRUCTURE, STRUCTURE_ARRAY) else "union"
        if id == default:
            id = ""
        elif id and code in (UNION, UNION_ARRAY):
            code = STRUCTURE if code == UNION else STRUCTURE_ARRAY
        if id and not kept and code == STRUCTURE and not format_pvinfo(Type(code, 0, id, {})).startswith('"'):
            return None
    return Spec(code, bound, id, kept)  # type: ignore[arg-type]


def test_all_forms_of_codes_are_generated() -> None:
    assert FIXED & BOUNDED  # `c & BOUNDED` above means both


@given(specs)
def test_round_trip_pvxs(spec: Spec) -> None:
    assert parse(format_pvxs(typed(spec))) == spec


@given(specs)
def test_round_trip_short(spec: Spec) -> None:
    text = format_short(typed(spec))
    assert "\n" not in text
    assert parse(text) == spec


@given(specs)
def test_round_trip_pvinfo(spec: Spec) -> None:
    wanted = as_pvinfo_says(spec)
    text = format_pvinfo(typed(spec))
    if wanted is None:
        with pytest.raises(EncodeError, match="unknown type"):
            parse(text)
    else:
        assert parse(text) == wanted


@given(specs, st.sampled_from([format_pvxs, format_pvinfo, format_short]), st.data())
def test_damaged_text_gives_only_the_documented_error(spec: Spec, form: object, data: st.DataObject) -> None:
    text = form(typed(spec))  # type: ignore[operator]
    i = data.draw(st.integers(0, len(text)))
    j = data.draw(st.integers(i, min(len(text), i + 3)))
    damaged = text[:i] + data.draw(st.text(' \n\t"\\{}[]<>(),;ab0é', max_size=3)) + text[j:]
    with contextlib.suppress(EncodeError):
        parse(damaged)


@given(st.text(' \n"\\{}[]<>(),;ab09struct union int any', max_size=60))
def test_any_text_gives_only_the_documented_error(text: str) -> None:
    try:
        found = parse(text)
    except EncodeError:
        return
    assert parse(format_short(typed(found))) == found


# With the real types.


def test_field_desc(backend: object) -> None:
    FieldDesc = backend.introspection.FieldDesc  # type: ignore[attr-defined]
    fd = FieldDesc.parse(PVXS)
    assert str(fd) == PVXS
    assert fd.format("short") == SHORT
    assert fd.format("pvinfo") == PVINFO
    assert FieldDesc.of(SHORT) == fd
    for each in ("int", " int32 ", "int32_t"):
        assert FieldDesc.of(each) == FieldDesc.of("int32")
    with pytest.raises(EncodeError, match="unknown type `dobule`"):
        FieldDesc.of({"x": "dobule"})

"""Values as text, against what pvxs 1.5.3 printed for the same values: its tools' tree and delta formats."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pvafast._valuetext import delta_lines, format_tree, printable, printable_tree, text_of

# Served by p4p 4.3, printed by pvxs 1.5.3.
EVERYTHING = {
    "u": "union{int32 x, string s, inner{double p} st}",
    "un": "union{int32 x}",
    "a": "any",
    "an": "any",
    "sa": "elem{int32 q, string[] r}[]",
    "ua": "union{int32 x, string y}[]",
    "aa": "any[]",
    "st": "struct{deep_t{double z} deep}",
}
# But that pvxs does not say which member an element of a union array is.
TREE = """\
struct "all_t" {
    union u.st struct "inner" {
        double p = 1.5
    }
    union un null
    any a struct "any_t" {
        string m = "hello"
    }
    any an null
    struct[] sa = {2}[
        struct "elem" {
            int32_t q = 1
            string[] r = {2}["a", "b"]
        }
        struct "elem" {
            int32_t q = 2
            string[] r = {0}[]
        }
    ]
    union[] ua = {2}[
        union.x int32_t = 3
        union.y string = "z"
    ]
    any[] aa = {2}[
        int64_t = 5
        string = "six"
    ]
    struct {
        struct "deep_t" {
            double z = 2.5
        } deep
    } st
}"""
DELTA = """\
u union
u->st struct "inner"
u->st.p double = 1.5
a any
a-> struct "any_t"
a->.m string = "hello"
sa struct[]
sa[0] struct "elem"
sa[0].q int32_t = 1
sa[0].r string[] = {2}["a", "b"]
sa[1] struct "elem"
sa[1].q int32_t = 2
sa[1].r string[] = {0}[]
ua union[]
ua[0]->x int32_t = 3
ua[1]->y string = "z"
aa any[]
aa[0] int64_t = 5
aa[1] string = "six"
st.deep.z double = 2.5"""
SMALL_TREE = """\
struct "all_t" {
    union u.x int32_t = 5
    union un null
    any a int64_t = 7
    any an null
    struct[] sa = {0}[]
    union[] ua = {0}[]
    any[] aa = {0}[]
    struct {
        struct "deep_t" {
            double z = 0
        } deep
    } st
}"""
SMALL_DELTA = """\
u union
u->x int32_t = 5
a any
a-> int64_t = 7"""


def everything(backend: SimpleNamespace, **fields: Any) -> Any:
    made = backend.value.Value(backend.introspection.FieldDesc.structure("all_t", EVERYTHING))
    for name, x in fields.items():
        made[name] = x
    return made


def full(backend: SimpleNamespace) -> Any:
    any_value, union, value = backend.value.AnyValue, backend.value.UnionValue, backend.value.Value
    described = backend.introspection.FieldDesc.parse("any_t{string m}")
    elem = backend.introspection.FieldDesc.parse("elem{int32 q, string[] r}")
    inner = backend.introspection.FieldDesc.parse("inner{double p}")
    return everything(
        backend,
        u=union("st", value(inner, {"p": 1.5})),
        a=any_value(described, value(described, {"m": "hello"})),
        sa=[value(elem, {"q": 1, "r": ["a", "b"]}), value(elem, {"q": 2})],
        ua=[union("x", 3), union("y", "z")],
        aa=[any_value("int64", 5), any_value("string", "six")],
        st={"deep": {"z": 2.5}},
    )


def delta(value: Any, shown: int = 20) -> str:
    return "\n".join(text_of(line) for line in delta_lines(value, value.changed, shown))


def test_a_tree_is_as_pvxs_prints_it(backend: SimpleNamespace) -> None:
    assert format_tree(full(backend)) == str(full(backend)) == TREE
    any_value, union = backend.value.AnyValue, backend.value.UnionValue
    assert format_tree(everything(backend, u=union("x", 5), a=any_value("int64", 7))) == SMALL_TREE


def test_changes_are_as_pvxs_prints_them(backend: SimpleNamespace) -> None:
    assert delta(full(backend)) == DELTA
    any_value, union = backend.value.AnyValue, backend.value.UnionValue
    assert delta(everything(backend, u=union("x", 5), a=any_value("int64", 7))) == SMALL_DELTA


def test_what_did_not_change_is_not_shown(backend: SimpleNamespace) -> None:
    value = full(backend)
    value.unmark()
    assert delta(value) == ""
    value.mark("st.deep.z")
    assert delta(value) == "st.deep.z double = 2.5"


def test_structures_with_a_bit_of_their_own(backend: SimpleNamespace) -> None:
    value = full(backend)
    value.unmark()
    value.mark("st")
    assert delta(value) == "st struct\nst.deep.z double = 2.5"
    value.mark("st.deep")
    assert delta(value) == 'st struct\nst.deep struct "deep_t"\nst.deep.z double = 2.5'
    value.mark("")
    assert delta(value).splitlines()[:2] == ['struct "all_t"', "u union"]


@pytest.mark.parametrize(
    ("type", "x", "shown"),
    [
        ("double", 4.25, "double = 4.25"),
        ("double", 1 / 3, "double = 0.3333333333333333"),  # pvxs: 0.333333
        ("double", float("nan"), "double = nan"),
        ("int32", -5, "int32_t = -5"),
        ("uint64", 2**64 - 1, "uint64_t = 18446744073709551615"),
        ("boolean", True, "bool = true"),
        ("int8", -3, "int8_t = -3"),
        ("string", 'a "q"\n', r'string = "a \"q\"\n"'),
        ("double[]", [1.5, 1e300, np.inf], "double[] = {3}[1.5, 1e+300, inf]"),
        ("double[]", [], "double[] = {0}[]"),
        ("float[]", [np.float32(0.1)], "float[] = {1}[0.1]"),
        (
            "int32[]",
            list(range(30)),
            "int32_t[] = {30}[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, ...]",
        ),
        ("string[]", ["a", 'b"c'], r'string[] = {2}["a", "b\"c"]'),
        ("boolean[]", [True, False], "bool[] = {2}[true, false]"),  # pvxs: [1, 0]
    ],
)
def test_plain_values(backend: SimpleNamespace, type: str, x: Any, shown: str) -> None:
    assert delta(backend.value.Value(type, x)) == format_tree(backend.value.Value(type, x)) == shown
    described = backend.introspection.FieldDesc.structure("", {"value": type})
    assert delta(backend.value.Value(described, {"value": x})) == f"value {shown}"


def test_nulls(backend: SimpleNamespace) -> None:
    value = everything(backend, u=None, a=None, sa=[None], ua=[None], aa=[None])
    assert delta(value) == "\n".join(
        [
            "u union null",
            "a any null",
            "sa struct[]",
            'sa[0] struct "elem" null',
            "ua union[]",
            "ua[0] union null",
        ]
        + ["aa any[]", "aa[0] any null"]
    )
    assert '        struct "elem" null\n' in format_tree(value)


def test_long_lists_of_structures_are_cut(backend: SimpleNamespace) -> None:
    value = everything(backend, ua=[backend.value.UnionValue("x", i) for i in range(5)])
    assert delta(value, 2) == "ua union[]\nua[0]->x int32_t = 0\nua[1]->x int32_t = 1\nua[2] ..."
    assert delta(value, 5).endswith("ua[4]->x int32_t = 4")
    assert delta(value, 0).endswith("ua[4]->x int32_t = 4")
    lines = format_tree(value, 2).splitlines()
    start = lines.index("    union[] ua = {5}[")
    assert lines[start + 1 : start + 5] == [
        "        union.x int32_t = 0",
        "        union.x int32_t = 1",
        "        ...",
        "    ]",
    ]


def test_a_line_can_do_no_harm() -> None:
    assert printable("a\x1b[31mé\n") == r"a\x1b[31mé\n"
    assert printable_tree("a\x1b\nb") == "a\\x1b\nb"

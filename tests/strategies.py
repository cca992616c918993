"""hypothesis strategies for pvData types, values of them, and damaged encodings. Types and values are those of `wire`."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from wire import NUMBERS, SCALARS, Chosen, Compound, Typed, nodes, split

# "quick" is the same in each run; "deep" is for a night: PVAFAST_HYPOTHESIS=deep pytest tests/test_properties.py
settings.register_profile(
    "quick",
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("deep", settings.get_profile("quick"), max_examples=5000, derandomize=False)
settings.load_profile(os.environ.get("PVAFAST_HYPOTHESIS", "quick"))

ORDERS = st.sampled_from(("little", "big"))

# Bytes that are no UTF-8 are kept by surrogateescape.
TEXTS = st.text(max_size=12) | st.binary(max_size=6).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
NAMES = st.text("abcdefgxyz_09", min_size=1, max_size=6) | st.sampled_from(
    ["", "in-valid", "a.b", "é", "value", "copy", "type", "alarm", "n" * 300]
)
IDS = st.sampled_from(["", "alarm_t", "epics:nt/NTScalar:1.0", "é"]) | st.text(max_size=4)
BOUNDS = st.integers(0, 5)

LEAVES = st.one_of(
    st.sampled_from(sorted(SCALARS)),
    st.sampled_from(sorted(SCALARS)).map(lambda name: f"{name}[]"),
    st.builds("{}<{}>".format, st.sampled_from(sorted(SCALARS)), BOUNDS),
    st.builds("{}[{}]".format, st.sampled_from(sorted(SCALARS)), BOUNDS),
    st.builds("string({})".format, BOUNDS),
    st.sampled_from(["any", "any[]"]),
)


def compounds(kinds: Any, inner: Any, max_size: int = 5) -> Any:
    members = st.lists(st.tuples(NAMES, inner), max_size=max_size, unique_by=lambda member: member[0])
    return st.builds(Compound, kinds, IDS, members.map(tuple))


# Any type, nested.
TYPES = st.recursive(
    LEAVES,
    lambda inner: compounds(st.sampled_from(["struct", "struct", "struct[]", "union", "union[]"]), inner),
    max_leaves=12,
)
STRUCTURES = compounds(st.just("struct"), TYPES)
# Those that an any holds are kept small.
SMALL_TYPES = LEAVES | compounds(st.sampled_from(["struct", "union", "struct[]"]), LEAVES, 3)


def scalars(name: str) -> Any:
    if name == "bool":
        return st.booleans()
    if name == "string":
        return TEXTS
    if name == "float":
        return st.floats(width=32)
    if name == "double":
        return st.floats()
    bits = int(name.lstrip("uint"))
    low = 0 if name.startswith("u") else -(2 ** (bits - 1))
    return st.integers(low, low + 2**bits - 1)


def values(spec: Any, depth: int = 0) -> Any:
    """A strategy for the plain values of a type."""
    if isinstance(spec, Compound):
        if spec.kind == "struct":
            return st.fixed_dictionaries({name: values(member, depth) for name, member in spec.members})
        if spec.kind == "union":
            chosen = [
                values(member, depth).map(lambda x, name=name: Chosen(name, x))
                for name, member in spec.members
            ]
            return st.one_of(st.none(), *chosen)
        return st.lists(st.none() | values(spec.element, depth), max_size=3)
    if spec == "any":
        return st.none() | (typed(depth + 1) if depth < 3 else st.nothing())
    if spec == "any[]":
        return st.lists(values("any", depth), max_size=3)
    name, form, bound = split(spec)
    if form == "(":
        fitting = st.text("abc", max_size=bound)
        return fitting if bound < 2 else fitting | st.sampled_from(["é", "\udcff\udcfe"])
    if form == "":
        return scalars(name)
    low, high = {"[]": (0, 6), "<": (0, bound), "[": (bound, bound)}[form]
    return st.lists(scalars(name), min_size=low, max_size=high)


@st.composite
def typed(draw: Any, depth: int = 0, types: Any = SMALL_TYPES) -> Typed:
    """A type and a value of it."""
    spec = draw(types)
    return Typed(spec, draw(values(spec, depth)))


@st.composite
def updates(draw: Any) -> tuple[Compound, Any, set[int]]:
    """A structure, a value of it, and bits (of leaves, of structures, redundant ones too)."""
    spec = draw(STRUCTURES)
    bits = draw(st.sets(st.integers(0, len(nodes(spec)) - 1)))
    return spec, draw(values(spec)), bits


@st.composite
def damaged(draw: Any, raw: bytes) -> bytes:
    """The bytes with some of them changed, put in or left out."""
    out = bytearray(raw)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(out)))
        how = draw(st.sampled_from(["set", "flip", "insert", "delete"]))
        byte = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0x82, 0x88, 0xFD, 0xFE, 0xFF]) | st.integers(0, 255))
        if how == "insert" or at == len(out):
            out.insert(at, byte)
        elif how == "delete":
            del out[at]
        else:
            out[at] = byte if how == "set" else out[at] ^ 1 << (byte & 7)
    return bytes(out)


assert set(NUMBERS) | {"string"} == set(SCALARS)

"""Round trips of generated types and values, prefixes, damage: each twin against `wire`, and the twins against each other."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pvafast
import strategies
import wire
from pvafast.errors import DecodeError, EncodeError, LimitExceeded, LocalProtocolError, RangeError
from pvafast.limits import Limits

TAIL = b"\xa5\x5a\xff"


@given(given_type=strategies.typed(types=strategies.TYPES), order=strategies.ORDERS)
def test_full_values(backend: SimpleNamespace, given_type: wire.Typed, order: str) -> None:
    spec, x = given_type
    fd = wire.build(backend, spec)
    raw = wire.value(spec, x, order)
    codec = backend.codec.Codec()
    assert codec.encode(wire.pythonic(backend, spec, x), fd, byteorder=order) == raw
    made, end = codec.decode(fd, TAIL + raw + TAIL, len(TAIL), byteorder=order)
    assert end == len(TAIL) + len(raw)
    assert wire.plain(made) == wire.expected(backend, spec, x)
    assert codec.encode(made, fd, byteorder=order) == raw
    again, _ = codec.decode(fd, bytearray(raw), byteorder=order)
    assert wire.plain(again) == wire.plain(made)


@given(spec=strategies.TYPES, order=strategies.ORDERS)
def test_types(backend: SimpleNamespace, spec: Any, order: str) -> None:
    fd = wire.build(backend, spec)
    raw = wire.desc(spec, order)
    codec = backend.codec.Codec()
    assert codec.encode_type(fd, byteorder=order) == raw == fd.to_bytes(order)
    made, end = codec.decode_type(raw + TAIL, byteorder=order)
    assert end == len(raw)
    assert made == fd
    assert hash(made) == hash(fd)
    assert backend.introspection.FieldDesc.from_bytes(raw, order) == fd
    numbered = wire.nodes(spec)
    assert len(fd) == len(numbered)
    assert fd.names == tuple(".".join(path) for path, _, _ in numbered)
    for i, (path, at, end) in enumerate(numbered):
        assert fd.index(path) == i
        assert fd.end(i) == end
        assert fd.node(i) == wire.build(backend, at) == fd[path]
        assert fd.is_leaf(i) is not (isinstance(at, wire.Compound) and at.kind == "struct")


@given(spec=strategies.STRUCTURES)
def test_types_with_ids(backend: SimpleNamespace, spec: Any) -> None:
    """What is numbered as pvAccessCPP does reads back, twice, by its numbers."""
    fd = wire.build(backend, spec)
    out, back = backend.codec.Codec(ids="pvaccess"), backend.codec.Codec()
    first, second = out.encode_type(fd), out.encode_type(fd)
    assert second == b"\xfe\x01\x00"
    assert back.decode_type(first) == (fd, len(first))
    assert back.decode_type(second) == (fd, 3)


@given(case=strategies.updates(), order=strategies.ORDERS)
def test_updates(backend: SimpleNamespace, case: Any, order: str) -> None:
    spec, x, bits = case
    fd = wire.build(backend, spec)
    raw = wire.update(spec, x, bits, order)
    codec = backend.codec.Codec()
    base = backend.value.Value(fd)
    before = wire.plain(base)
    made, end = codec.decode_update(fd, raw + TAIL, base=base, byteorder=order)
    assert end == len(raw)
    assert set(made.changed) == bits
    assert wire.plain(base) == before
    covered: set[int] = set()
    numbered = wire.nodes(spec)
    for i, (path, at, end) in enumerate(numbered):
        if i in bits:
            covered.update(range(i, end))
        if fd.is_leaf(i):
            seen = wire.plain(made[path])
            assert seen == (
                wire.expected(backend, at, wire.pick(x, path)) if i in covered else wire.plain(base[path])
            )
    assert made.changed.expand(fd) == [i for i in sorted(covered) if fd.is_leaf(i)]
    assert codec.encode_update(made, byteorder=order) == raw
    # The same by marking: what was changed laid over a fresh Value.
    other = backend.value.Value(fd)
    other.overlay(made)
    assert other == made
    assert codec.encode_update(other, byteorder=order) == raw


@given(given_type=strategies.typed(types=strategies.STRUCTURES))
def test_pickle_copy_equality(backend: SimpleNamespace, given_type: wire.Typed) -> None:
    spec, x = given_type
    v = wire.pythonic(backend, spec, x)
    twin = v.copy()
    assert v == twin
    assert twin.changed == v.changed
    assert wire.plain(twin) == wire.plain(v)
    assert backend.codec.Codec().decode(v.type, wire.value(spec, x))[0] == v
    if backend.value.Value is pvafast.Value:
        # A pickle names pvafast.X, so only what is of the twin in use can be pickled.
        back = pickle.loads(pickle.dumps(v))
        assert back == v
        assert list(back.changed) == list(v.changed)


@given(given_type=strategies.typed(types=strategies.TYPES), order=strategies.ORDERS)
def test_prefixes_need_more(backend: SimpleNamespace, given_type: wire.Typed, order: str) -> None:
    spec, x = given_type
    fd = wire.build(backend, spec)
    raw = wire.value(spec, x, order)
    typed = wire.desc(spec, order) + raw
    for n in cut_points(len(raw)):
        with pytest.raises(DecodeError, match=r"needs? "):
            backend.codec.Codec().decode(fd, raw, end=n, byteorder=order)
    for n in cut_points(len(typed)):
        with pytest.raises(DecodeError, match="need"):
            backend.codec.Codec().decode_any(typed, end=n, byteorder=order)


@given(case=strategies.updates(), order=strategies.ORDERS)
def test_prefixes_of_updates(backend: SimpleNamespace, case: Any, order: str) -> None:
    spec, x, bits = case
    fd = wire.build(backend, spec)
    raw = wire.update(spec, x, bits, order)
    for n in cut_points(len(raw)):
        with pytest.raises(DecodeError, match=r"needs? "):
            backend.codec.Codec().decode_update(fd, raw[:n], byteorder=order)


def cut_points(n: int) -> list[int]:
    """All for short encodings, else the ends and some between."""
    return list(range(n)) if n <= 60 else [*range(30), *range(30, n - 30, max(1, n // 16)), *range(n - 30, n)]


# --- the twins, compared ---------------------------------------------------------------------------------------------


def outcome(twin: SimpleNamespace, call: Any) -> Any:
    """What a call gives: its value and end, or the error with all that it says."""
    try:
        made, end = call(twin)
    except DecodeError as error:
        limit = error.limit if isinstance(error, LimitExceeded) else None
        return (type(error).__name__, str(error), error.reason, error.offset, error.path, limit)
    if isinstance(made, twin.value.Value):
        return (wire.plain(made), list(made.changed), made.changed_names(), repr(made), str(made), end)
    if isinstance(made, twin.introspection.FieldDesc):
        return (str(made), repr(made), made.names, end)
    return (wire.plain(made), repr(made), end)


def same(twins: Any, call: Any) -> None:
    c, py = (outcome(twin, call) for twin in twins)
    assert c == py


LOW = Limits(
    depth=3, type_nodes=12, value_nodes=20, elements=3, string=10, expansion=2, message=100, registry_nodes=30
)
LIMITS = st.sampled_from([Limits(), Limits(), LOW])


@given(
    given_type=strategies.typed(types=strategies.TYPES),
    order=strategies.ORDERS,
    limits=LIMITS,
    data=st.data(),
)
def test_twins_read_damaged_values(
    twins: Any, given_type: Any, order: str, limits: Limits, data: Any
) -> None:
    spec, x = given_type
    raw = data.draw(st.just(wire.value(spec, x, order)) | strategies.damaged(wire.value(spec, x, order)))
    same(
        twins,
        lambda twin: twin.codec.Codec(limits=limits).decode(wire.build(twin, spec), raw, byteorder=order),
    )


@given(case=strategies.updates(), order=strategies.ORDERS, limits=LIMITS, data=st.data())
def test_twins_read_damaged_updates(twins: Any, case: Any, order: str, limits: Limits, data: Any) -> None:
    spec, x, bits = case
    raw = data.draw(strategies.damaged(wire.update(spec, x, bits, order)))
    same(
        twins,
        lambda twin: twin.codec.Codec(limits=limits).decode_update(
            wire.build(twin, spec), raw, byteorder=order
        ),
    )


@given(
    given_type=strategies.typed(types=strategies.TYPES),
    order=strategies.ORDERS,
    limits=LIMITS,
    data=st.data(),
)
def test_twins_read_damaged_types(twins: Any, given_type: Any, order: str, limits: Limits, data: Any) -> None:
    spec, x = given_type
    raw = data.draw(strategies.damaged(wire.desc(spec, order) + wire.value(spec, x, order)))
    same(twins, lambda twin: twin.codec.Codec(limits=limits).decode_any(raw, byteorder=order))
    same(twins, lambda twin: twin.codec.Codec(limits=limits).decode_type(raw, byteorder=order))


@given(specs=st.lists(strategies.STRUCTURES, min_size=1, max_size=3), order=strategies.ORDERS, data=st.data())
def test_twins_read_damaged_ids(twins: Any, specs: Any, order: str, data: Any) -> None:
    """Several descriptions of one connection, numbered, one of them damaged."""
    c, py = twins
    out = [twin.codec.Codec(ids="pvaccess") for twin in twins]
    raws = [out[0].encode_type(wire.build(c, spec), byteorder=order) for spec in specs * 2]
    assert raws == [out[1].encode_type(wire.build(py, spec), byteorder=order) for spec in specs * 2]
    at = data.draw(st.integers(0, len(raws) - 1))
    raws[at] = data.draw(strategies.damaged(raws[at]))
    codecs = {twin.name: twin.codec.Codec() for twin in twins}
    for raw in raws:
        try:
            same(twins, lambda twin, raw=raw: codecs[twin.name].decode_type(raw, byteorder=order))
        except LocalProtocolError:
            break  # on both: the ids are unknown


@given(raw=st.binary(max_size=60), order=strategies.ORDERS)
def test_twins_read_noise(twins: Any, raw: bytes, order: str) -> None:
    same(twins, lambda twin: twin.codec.Codec().decode_any(raw, byteorder=order))
    same(twins, lambda twin: twin.codec.Codec().decode_any(b"\x8a" + raw, byteorder=order))


OBJECTS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.integers(-300, 300),
        st.floats(),
        st.text(st.characters(codec=None), max_size=5),
        st.binary(max_size=5),
        st.complex_numbers(),
        st.sampled_from([np.float32(1.5), np.int8(-3), np.bool_(True), np.uint64(2**64 - 1), np.str_("n")]),
        st.sampled_from(
            ["?", "b", "B", "h", "i8", ">i4", "u8", "f4", "f8", ">f8", "f2", "U3", "S3", "c8"]
        ).flatmap(
            lambda dtype: st.lists(st.integers(0, 1), max_size=4).map(lambda x: np.array(x).astype(dtype))
        ),
        st.sampled_from([np.zeros((2, 2)), np.array(5.0), np.arange(6)[::2], np.array([1, None], object)]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b", ""]), inner)
    ),
    max_leaves=4,
)


@given(spec=strategies.SMALL_TYPES, x=OBJECTS)
def test_twins_take_the_same_objects(twins: Any, spec: Any, x: Any) -> None:
    """Anything set to a field: the same value or the same error, and nothing else than EncodeError."""

    def attempt(twin: SimpleNamespace) -> Any:
        v = twin.value.Value(wire.build(twin, wire.structure(x=spec)))
        try:
            v["x"] = x
            return (wire.plain(v["x"]), list(v.changed), twin.codec.Codec().encode(v))
        except EncodeError as error:
            return (
                type(error).__name__,
                isinstance(error, RangeError),
                str(error),
                error.path,
                list(v.changed),
            )

    assert attempt(twins[0]) == attempt(twins[1])


@given(spec=strategies.SMALL_TYPES, x=OBJECTS)
def test_only_encode_errors(backend: SimpleNamespace, spec: Any, x: Any) -> None:
    v = backend.value.Value(wire.build(backend, wire.structure(x=spec)))
    try:
        v["x"] = x
        backend.codec.Codec().encode(v)
    except EncodeError as error:
        path = error.path
    else:
        path = ""
    assert not path or path.startswith("x")

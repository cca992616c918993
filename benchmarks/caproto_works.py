"""The works that caproto.pva can do, under the names of those of the twins; in its own environment, by worker.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from caproto import pva
from caproto.pva._data import DataWithBitSet, from_wire
from caproto.pva._fields import BitSet, FieldDesc, Size
from caproto.pva._messages import bytes_needed_for_command

from . import (
    bench_array,
    bench_bitset,
    bench_buffer,
    bench_columns,
    bench_fields,
    bench_framing,
    bench_introspection,
    bench_value,
    messages,
)
from .subjects import Work, repeated

ORDERS = {"little": pva.LITTLE_ENDIAN, "big": pva.BIG_ENDIAN}
LITTLE = pva.LITTLE_ENDIAN


def described(raw: bytes) -> Any:
    found, rest, _ = FieldDesc.deserialize(raw, endian=LITTLE, cache=pva.CacheContext())
    assert not rest
    return found


def read_sizes(form: str) -> Work:
    data = memoryview(bench_buffer.encoded(form))

    def run() -> list[int]:
        left = data
        found = []
        for _ in range(bench_buffer.COUNT):
            n, left, _ = Size.deserialize(left, endian=LITTLE)
            found.append(n)
        return found

    assert run() == bench_buffer.FORMS[form]
    return Work(run, bench_buffer.COUNT)


def write_sizes(form: str) -> Work:
    numbers = bench_buffer.FORMS[form]

    def run() -> bytes:
        parts = []
        for n in numbers:
            parts += Size.serialize(n, LITTLE)
        return b"".join(parts)

    assert run() == bench_buffer.encoded(form)
    return Work(run, bench_buffer.COUNT)


def empty_strings() -> Work:
    fd = described(bench_buffer.STRINGS)

    def run() -> Any:
        return from_wire(fd, bench_buffer.EMPTY, endian=LITTLE, bitset=None, cache=None)

    assert run().data == {"value": [""] * bench_buffer.COUNT}
    return Work(run, bench_buffer.COUNT)


def structure(n: int) -> Work:
    """Of doubles, to a dict."""
    fd = described(bench_fields.described(n))
    data = bench_fields.encoded(n)
    bench_fields.check(from_wire(fd, data, endian=LITTLE, bitset=None, cache=None).data, n)
    return repeated(bench_fields.batch(n), from_wire, fd, data, endian=LITTLE, bitset=None, cache=None)


def decode(name: str) -> Work:
    """A BitSet."""
    bits, raw = bench_bitset.SETS[name]
    assert sorted(BitSet.deserialize(raw, endian=LITTLE).data) == bits
    return repeated(bench_bitset.BATCH, BitSet.deserialize, raw, endian=LITTLE)


def encode(name: str) -> Work | None:
    """A BitSet, or a type."""
    if name not in bench_bitset.SETS:
        return None
    bits, raw = bench_bitset.SETS[name]
    found = BitSet(bits)
    assert b"".join(found.serialize(LITTLE)) == raw

    def run() -> None:
        for _ in range(bench_bitset.BATCH):
            b"".join(found.serialize(LITTLE))

    return Work(run, bench_bitset.BATCH)


def unpack(element: str, n: int, order: str) -> Work:
    """To an array.array, or a list of str."""
    fd = described(bench_array.described(element))
    data = bench_array.encoded(element, n, order)
    found = from_wire(fd, data, endian=ORDERS[order], bitset=None, cache=None).data
    assert list(found["value"]) == bench_array.items(element, n)
    return repeated(bench_array.batch(n), from_wire, fd, data, endian=ORDERS[order], bitset=None, cache=None)


def first_met(name: str) -> Work:
    text = messages.TYPES[name.split(".")[0]]
    fd = described(messages.described(name))
    assert fd.struct_name == text[: text.index("{")]
    assert list(fd.children) == bench_introspection.top_names(text)
    return bench_introspection.one_by_one(described, messages.variants(name, bench_introspection.BATCH))


stranger = first_met  # it remembers nothing


def decode_update(name: str) -> Work:
    """The data to nested dicts."""
    fd = described(messages.described(name))
    raw = memoryview(messages.update(name))[messages.UPDATE_AT :]

    def run() -> Any:
        return DataWithBitSet(interface=fd).deserialize(raw, endian=LITTLE, cache=None)

    messages.check(name, messages.by_path(run().data.data))
    return repeated(bench_value.batch(name), run)._replace(kept=run)


def decode_frame(name: str) -> Work:
    n = int(name[3:])
    fd = described(messages.described(name))
    raw = memoryview(messages.update(name))[messages.UPDATE_AT :]

    def run() -> np.ndarray:
        tree = (
            DataWithBitSet(interface=fd).deserialize(raw, endian=LITTLE, cache=pva.CacheContext()).data.data
        )
        return np.frombuffer(tree["value"]["ushortValue"], np.uint16).reshape(n, n)

    assert np.array_equal(run(), np.frombuffer(messages.ramp(n), "<u2").reshape(n, n))
    return Work(run, kept=run)


def encode_update(name: str) -> Work | None:
    """Nested dicts to BitSet and data; only those of full values."""
    fd = described(messages.described(name))
    whole = b"".join(messages.body(name))
    held = DataWithBitSet(interface=fd).deserialize(whole, endian=LITTLE, cache=None).data

    def run() -> bytes:
        return b"".join(held.serialize(LITTLE))

    try:
        if run() != whole:
            return None
    except KeyError:
        return None  # it wants the fields that are not sent, too
    return repeated(bench_value.batch(name), run)


def cut(chunk: memoryview, cache: Any) -> list[Any]:
    """The messages of a chunk, by its own headers."""
    out = []
    left = chunk
    while left:
        header, _, _ = bytes_needed_for_command(
            left, pva.MessageFlags.FROM_SERVER, cache=cache, byte_order=LITTLE
        )
        end = 8 + header.payload_size
        out.append((header, left[8:end]))
        left = left[end:]
    return out


def stream_of_many() -> Work:
    """To nested dicts, whose values and times become arrays."""
    count = bench_columns.MANY["caproto"]
    chunk = memoryview(bytearray(messages.stream(count)))  # it wants a writable one
    cache = pva.CacheContext()
    fd = described(messages.described("nts.vt"))

    def run() -> tuple[np.ndarray, np.ndarray]:
        values, seconds, nanoseconds = [], [], []
        for _, payload in cut(chunk, cache):
            held = DataWithBitSet(interface=fd).deserialize(payload[5:], endian=LITTLE, cache=None).data.data
            values.append(held["value"])
            seconds.append(held["timeStamp"]["secondsPastEpoch"])
            nanoseconds.append(held["timeStamp"]["nanoseconds"])
        return np.array(values), np.array(seconds) * 10**9 + np.array(nanoseconds)

    bench_columns.check(*run(), count)
    return Work(run, count)


def in_a_chunk() -> Work:
    one = messages.update("nts.vt")
    chunk = memoryview(bytearray(one * bench_framing.COUNT))  # it wants a writable one
    cache = pva.CacheContext()

    def run() -> list[Any]:
        return cut(chunk, cache)

    assert [bytes(payload) for _, payload in run()] == [one[8:]] * bench_framing.COUNT
    return Work(run, bench_framing.COUNT)

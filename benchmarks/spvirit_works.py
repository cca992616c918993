"""The works that spvirit.codec can do, under the names of those of the twins. It decodes full values, to dicts; and a get of its client."""

from __future__ import annotations

import numpy as np
from spvirit import lowlevel
from spvirit.codec import decode_introspection, decode_value, encode_put_payload

from . import (
    bench_array,
    bench_buffer,
    bench_fields,
    bench_introspection,
    bench_live,
    bench_projection,
    bench_value,
    messages,
)
from .subjects import Work, repeated


def empty_strings() -> Work:
    desc = decode_introspection(bench_buffer.STRINGS)
    assert decode_value(bench_buffer.EMPTY, desc) == {"value": [""] * bench_buffer.COUNT}
    return Work(lambda: decode_value(bench_buffer.EMPTY, desc), bench_buffer.COUNT)


def unpack(element: str, n: int, order: str) -> Work:
    """To a list."""
    desc = decode_introspection(bench_array.described(element))
    data = bench_array.encoded(element, n, order)
    big = order == "big"
    assert decode_value(data, desc, big) == {"value": bench_array.items(element, n)}
    work = repeated(bench_array.batch(n), decode_value, data, desc, big)
    return work._replace(kept=lambda: decode_value(data, desc, big))


def first_met(name: str) -> Work:
    return _types(name, messages.variants(name))


def stranger(name: str) -> Work:
    return _types(name, messages.strangers(name))


def _types(name: str, descriptions: list[bytes]) -> Work:
    text = messages.TYPES[name.split(".")[0]]
    desc = decode_introspection(messages.described(name))
    assert desc.struct_id == text[: text.index("{")]
    assert [field.name for field in desc.fields] == bench_introspection.top_names(text)
    return bench_introspection.one_by_one(decode_introspection, descriptions)


def decode_update(name: str) -> Work | None:
    """The same data, as that of a full value."""
    if name not in bench_value.FULL:
        return None
    desc = decode_introspection(messages.described(name))
    data = messages.full_body(name)
    messages.check(name, messages.by_path(decode_value(data, desc)))
    work = repeated(bench_value.batch(name), decode_value, data, desc)
    return work._replace(kept=lambda: decode_value(data, desc))


def structure(n: int) -> Work:
    """Of doubles, to a dict."""
    desc = decode_introspection(bench_fields.described(n))
    data = bench_fields.encoded(n)
    bench_fields.check(decode_value(data, desc), n)
    return repeated(bench_fields.batch(n), decode_value, data, desc)


def decode_frame(name: str) -> Work | None:
    """To a list, of which numpy makes an array."""
    n = int(name[3:])
    if n * n > 4_000_000:
        return None  # it takes so many numbers at the most
    desc = decode_introspection(messages.described(name))
    data = messages.full_body(name)

    def run() -> np.ndarray:
        tree = decode_value(data, desc)
        return np.array(tree["value"]["ushortValue"], np.uint16).reshape(n, n)

    assert np.array_equal(run(), np.frombuffer(messages.ramp(n), "<u2").reshape(n, n))
    return Work(run, kept=run)


def encode_update(name: str) -> Work | None:
    """The payload of a put: a BitSet of the fields in a dict, and their data."""
    if name not in bench_value.FULL:
        return None
    desc = decode_introspection(messages.described(name))
    tree = decode_value(messages.full_body(name), desc)
    if bytes(encode_put_payload(desc, tree)) != b"".join(messages.body(name)):
        return None
    return repeated(bench_value.batch(name), encode_put_payload, desc, tree)


def rows_whole(kind: str) -> Work:
    """To a dict for each element."""
    desc = decode_introspection(bench_projection.rows_described(kind))
    data = bench_projection.rows_encoded(kind)
    tree = decode_value(data, desc)
    bench_projection.check_columns(lambda name: [element[name] for element in tree["data"]])
    return Work(lambda: decode_value(data, desc))


def rows_to_columns(kind: str, *members: str) -> Work:
    """To a dict for each element, of which numpy makes arrays."""
    desc = decode_introspection(bench_projection.rows_described(kind))
    data = bench_projection.rows_encoded(kind)

    def run() -> dict[str, np.ndarray]:
        elements = decode_value(data, desc)["data"]
        names = members or bench_projection.MEMBERS
        return {name: np.array([element[name] for element in elements]) for name in names}

    if not members:
        bench_projection.check_columns(run().__getitem__)
    return Work(run)


def get() -> Work:
    """Over a socket: the value out of the dict."""
    channel = lowlevel.Channel.connect("pv7", bench_live.pvs(), 5.0)
    return bench_live.repeated_gets(lambda: channel.get().value["value"])

"""What p4p can be asked: to make arrays of a Value that was received, and decoded in C++; and, over a socket, a get."""

from __future__ import annotations

from typing import Any

import numpy as np
from p4p import Type, Value
from p4p.nt import NTNDArray

from . import bench_live, messages
from .bench_projection import MEMBERS, ROWS, check_columns, row
from .live_client import p4p_context
from .subjects import Work


def value_to_array(n: int) -> Work:
    nt = NTNDArray()
    image = np.frombuffer(messages.ramp(n), "<u2").reshape(n, n)
    value = nt.wrap(image)

    def run() -> None:
        for _ in range(100):
            nt.unwrap(value)

    assert np.array_equal(nt.unwrap(value), image)
    return Work(run, 100)


def rows_to_columns(kind: str) -> Work:
    """Of a structure array: a Value for each element, an attribute for each number."""
    members = [*zip(MEMBERS, "iddlh?", strict=True), *([("name", "s")] if kind == "named" else [])]
    value = Value(Type([("value", "d"), ("data", ("aS", None, members))]))
    value.data = [
        dict(zip(MEMBERS, row(i), strict=True)) | ({"name": f"BPM:{i}"} if kind == "named" else {})
        for i in range(ROWS)
    ]

    def run() -> dict[str, Any]:
        elements = value.data
        return {name: np.array([element[name] for element in elements]) for name in MEMBERS}

    check_columns(run().__getitem__)
    return Work(run)


def get() -> Work:
    context = bench_live.held.enter_context(p4p_context(bench_live.pvs()))
    return bench_live.repeated_gets(lambda: context.get("pv7"))

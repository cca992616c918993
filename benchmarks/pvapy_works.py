"""What pvapy can be asked: to make arrays of a PvObject, which is already decoded (in C++); and, over a socket, a get."""

from __future__ import annotations

from typing import Any

import numpy as np
import pvaccess

from . import bench_live
from .bench_projection import MEMBERS, ROWS, check_columns, row
from .live_client import pvapy_channel
from .subjects import Work


def rows_to_columns(kind: str) -> Work:
    """From the PvObject to arrays: a dict for each element."""
    types = (pvaccess.INT, pvaccess.DOUBLE, pvaccess.DOUBLE, pvaccess.LONG, pvaccess.SHORT, pvaccess.BOOLEAN)
    element = dict(zip(MEMBERS, types, strict=True))
    if kind == "named":
        element["name"] = pvaccess.STRING
    held = pvaccess.PvObject({"value": pvaccess.DOUBLE, "data": [element]})
    held["data"] = [
        dict(zip(MEMBERS, row(i), strict=True)) | ({"name": f"BPM:{i}"} if kind == "named" else {})
        for i in range(ROWS)
    ]

    def run() -> dict[str, Any]:
        elements = held["data"]
        return {name: np.array([element[name] for element in elements]) for name in MEMBERS}

    check_columns(run().__getitem__)
    return Work(run)


def get() -> Work:
    """Of all fields, as the others do; its own default is the value alone."""
    channel = pvapy_channel("pv7", bench_live.pvs())
    return bench_live.repeated_gets(lambda: channel.get("field()")["value"])

"""What pvapy's users do with a structure array, under the name of the twins' work. Its PvObject is already decoded (in C++)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pvaccess

from .bench_projection import MEMBERS, ROWS, check_columns, row
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

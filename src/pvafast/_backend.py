"""The switch between the twins: PVAFAST_BACKEND=c or py, otherwise compiled where it is installed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

_wanted = os.environ.get("PVAFAST_BACKEND", "")
if _wanted not in ("", "c", "py"):
    raise ImportError(f"PVAFAST_BACKEND={_wanted!r}: use 'c' or 'py', or leave it unset")

if TYPE_CHECKING:
    BACKEND: str
    from ._py import (
        bitset,
        buffer,
        codec,
        columns,
        framing,
        introspection,
        losses,
        monitor,
        packets,
        projection,
        value,
    )
else:
    try:
        if _wanted == "py":
            raise ImportError("PVAFAST_BACKEND=py")
        from ._c import (
            bitset,
            buffer,
            codec,
            columns,
            framing,
            introspection,
            losses,
            monitor,
            packets,
            projection,
            value,
        )

        BACKEND = "c"
    except ImportError as error:
        if _wanted == "c":
            raise ImportError(f"PVAFAST_BACKEND=c, but the compiled twin does not load: {error}") from error
        from ._py import (
            bitset,
            buffer,
            codec,
            columns,
            framing,
            introspection,
            losses,
            monitor,
            packets,
            projection,
            value,
        )

        BACKEND = "py"

__all__ = [
    "BACKEND",
    "bitset",
    "buffer",
    "codec",
    "columns",
    "framing",
    "introspection",
    "losses",
    "monitor",
    "packets",
    "projection",
    "value",
]

"""The switch between the twins: PVAFAST_BACKEND=c or py, otherwise compiled where it is installed."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING
from warnings import warn

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
        if not _wanted and find_spec(f"{__package__}._c.codec") is not None:
            warn(
                f"the compiled twin is there, but does not load; the slow one is used: {error}",
                RuntimeWarning,
                2,
            )
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

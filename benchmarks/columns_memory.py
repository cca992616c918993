"""Memory of a million samples in Columns: `python -m benchmarks.columns_memory` (Linux). Of the twin in use (PVAFAST_BACKEND).

What the process has in memory more than before; room for further rows that none has reached yet takes none.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pvafast

from .messages import described, stream

COUNT = 1_000_000
PIECES = 10  # of a thousand updates, which come again and again


def resident() -> float:
    """MB of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def held(fields: list[str]) -> float:
    """MB that the columns of these fields take."""
    codec = pvafast.Codec()
    fd, _ = codec.decode_type(described("nts.vt"))
    assert fd is not None
    data = stream(PIECES * 1000)
    framer = pvafast._backend.framing.Framer(from_server=True)
    framer.receive_data(data)
    messages = framer.messages()
    columns = pvafast.Columns(fd, fields)
    columns.add(messages[:1])  # what is needed once
    before = resident()
    for _ in range(COUNT // len(messages)):
        columns.add(messages)
    assert len(columns) == COUNT + 1
    after = resident()
    assert columns["value"][-1] == (len(messages) - 1) * 0.5
    return after - before


def main() -> None:
    for fields in (["value"], ["value", "timeStamp", "alarm"]):
        print(f"{pvafast.BACKEND}: {', '.join(fields)}, time stamps and masks: {held(fields):.0f} MB")


if __name__ == "__main__":
    main()

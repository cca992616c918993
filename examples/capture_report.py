"""What a capture tells.

python examples/capture_report.py FILE               who asks for what, and what was lost
python examples/capture_report.py FILE PV OUT.csv    the updates of a PV as a table
python examples/capture_report.py FILE PV OUT.npz    the same for numpy.load
"""

import csv
import sys
from collections import Counter
from typing import Any

import numpy as np

import pvafast.capture
from pvafast import Columns, Losses, messages
from pvafast.connection import Update


def report(path: str) -> None:
    asked: Counter[tuple[str, str, str]] = Counter()
    losses: dict[tuple[str, str], Losses] = {}
    for record in pvafast.capture.read(path):
        host = record.src.rpartition(":")[0]
        if isinstance(record.event, Update):
            key = record.event.pv, record.dst
            if key not in losses:
                losses[key] = Losses(per_second=record.clock.per_second)
            losses[key].add(record.event)
        elif isinstance(record.message, messages.Search | messages.InitRequest | messages.GetField):
            names = record.pv if isinstance(record.pv, tuple) else (record.pv,)
            asked.update((host, record.command, name) for name in names)
        elif record.damage:
            print(f"{record.time} {record.src}: {record.note}, {record.size} bytes")
    for (host, command, pv), count in asked.most_common():
        print(f"{host} asks {count} times: {command} {pv}")
    for (pv, client), lost in losses.items():
        print(f"{pv} to {client}: {lost}")


def export(path: str, pv: str, out: str) -> int:
    """Write the subscription with the most updates; returns how many these are."""
    found: dict[Any, Columns] = {}
    for record in pvafast.capture.read(path):
        if isinstance(record.event, Update) and record.pv == pv:
            fd = record.event.type
            key = record.connection, record.ioid, fd
            if key not in found:
                wanted = ("value", "alarm.severity", "alarm.message")
                found[key] = Columns(fd, [name for name in wanted if name in fd])
            found[key].add([record.event.frame], received=record.ns)
    if not found:
        raise SystemExit(f"no updates of {pv} in {path}")
    columns = max(found.values(), key=len)
    table = {"received": columns.received, "time": columns.time} | {
        name: columns[name] for name in columns.fields
    }
    if out.endswith(".npz"):
        np.savez(out, **table)
    else:
        with open(out, "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(table)
            rows.writerows(zip(*(np.asarray(column).tolist() for column in table.values()), strict=True))
    return len(columns)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        report(sys.argv[1])
    else:
        print(export(*sys.argv[1:]), "updates")

"""Archive: 1,000 updates of an NTScalar into a file, and back. The library runs on one twin: each subject in a process of its own."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .messages import init, stream
from .subjects import Work

COUNT = 1000
_names = itertools.count()
_folder = tempfile.TemporaryDirectory()


def _path() -> Path:
    return Path(_folder.name, str(next(_names)))


def _updates() -> list[Any]:
    import pvafast

    observer = pvafast.Observer()
    observer.receive_data("server", init("nts.vt") + stream(COUNT))
    found = [event for event in observer.events() if isinstance(event, pvafast.Update)]
    assert len(found) == COUNT
    return found


def _write(path: Path, updates: list[Any]) -> None:
    from pvafast import archive

    with archive.Writer(path) as out:
        for update in updates:
            out.add("nts", update, time=5)


def write(subject: Any) -> Work:
    """A new file, 1,000 updates as they were received."""
    from pvafast import archive

    updates = _updates()
    path = _path()
    _write(path, updates)
    with archive.Reader(path) as reader:
        assert [entry.value["value"] for entry in reader] == [i * 0.5 for i in range(COUNT)]

    def run() -> None:
        path.unlink()
        _write(path, updates)

    return Work(run, COUNT)


def read(subject: Any) -> Work:
    """1,000 Entries, each value laid over the one before."""
    from pvafast import archive

    path = _path()
    updates = _updates()
    _write(path, updates)

    def run() -> list[archive.Entry]:
        with archive.Reader(path) as reader:
            return list(reader)

    assert [entry.value for entry in run()] == [update.value for update in updates]
    return Work(run, COUNT)


@pytest.mark.subjects("c", "py", remote=["c", "py"])
def test_write(timed: Callable[..., None]) -> None:
    timed(write)


@pytest.mark.subjects("c", "py", remote=["c", "py"])
def test_read(timed: Callable[..., None]) -> None:
    timed(read)

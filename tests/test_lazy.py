"""What is imported only when it is used."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import pvafast
from clitools import SOURCE


def loaded(program: str) -> set[str]:
    """The modules that are there after a program."""
    shown = f"{program}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", shown],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},  # the sanitizers need LD_PRELOAD
    )
    return set(run.stdout.split())


@pytest.mark.parametrize(
    ("program", "without"),
    [
        ("import pvafast", {"asyncio", "pvafast.capture", "pvafast.client", "multiprocessing"}),
        ("import pvafast.sync", {"asyncio", "pvafast.capture", "multiprocessing"}),
        ("import pvafast.cli.get, pvafast.cli.put, pvafast.cli.call", {"asyncio", "pvafast.capture"}),
        ("import pvafast.cli.search, pvafast.cli.beacons", {"asyncio", "pvafast.capture", "pvafast.sync"}),
        ("import pvafast.cli.decode", {"asyncio", "pvafast.client"}),
    ],
)
def test_a_program_does_without_what_it_does_not_use(program: str, without: set[str]) -> None:
    there = loaded(program)
    assert "pvafast._backend" in there
    assert not there & without


def test_it_is_there_when_it_is_used() -> None:
    there = loaded("import pvafast\npvafast.Client\npvafast.capture.read\npvafast.ndarray.FramePool")
    assert {"asyncio", "pvafast.capture", "pvafast.client.aio", "pvafast.ndarray.pool"} <= there
    assert pvafast.Client is pvafast.client.Client
    assert pvafast.capture.__name__ == "pvafast.capture"


def test_every_public_name_is_there() -> None:
    for package in (pvafast, pvafast.client, pvafast.ndarray, pvafast.capture):
        for name in package.__all__:
            assert getattr(package, name) is not None
        assert set(package.__all__) <= set(dir(package))


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'pvafast' has no attribute 'Clients'"):
        _ = pvafast.Clients
    with pytest.raises(ImportError):
        exec("from pvafast.client import Clients")
